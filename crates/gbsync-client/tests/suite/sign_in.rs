//! People who share a device: whose groups go when, and under whose rights.

use crate::common::*;
use gbsync_client::{
    BoxFuture, FixedToken, GroupState, HttpTransport, NoToken, Request, Response, Sealed, SyncError, TokenProvider,
    Transport, TransportError,
};
use gbsync_core::id::{Actor, Role};
use gbsync_core::wire::ActAs;
use gbsync_server::{Actors, NewToken, Tokens};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
fields.voided = "boolean"
[operations.sale]
roles = ["cashier", "manager"]
[operations.void]
roles = ["manager"]
"#;

fn actor(name: &str) -> Actor {
    Actor::new(name).unwrap()
}

fn tokens(world: &World) -> Tokens {
    Tokens::open(world.folder.path().join("server")).unwrap()
}

fn token(world: &World, name: Option<&str>, role: Option<&str>, act_as: Option<ActAs>) -> Arc<FixedToken> {
    let roles = role.into_iter().map(|role| Role::new(role).unwrap()).collect();
    let new = NewToken { roles, actor: name.map(actor), act_as, ..NewToken::new(space()) };
    Arc::new(FixedToken(tokens(world).create(new).unwrap().token))
}

fn cashier(world: &World) -> Arc<FixedToken> {
    token(world, Some("cid"), Some("cashier"), None)
}

fn manager(world: &World) -> Arc<FixedToken> {
    token(world, Some("mia"), Some("manager"), None)
}

fn sale(device: &Device, id: &str) -> Sealed {
    device
        .client
        .operation::<gbsync_client::Error>("sale", id, |op| op.upsert("receipts", id, r#"{"total":"1.00"}"#))
        .unwrap()
}

fn void(device: &Device, id: &str) -> Sealed {
    device.client.operation::<gbsync_client::Error>("void", id, |op| op.patch("receipts", id, r#"{"voided":true}"#)).unwrap()
}

fn state(device: &Device, sealed: &Sealed) -> GroupState {
    device.client.group(&sealed.group_id).unwrap().unwrap().state
}

/// Who made what the server accepted, in the order of the log.
fn authors(world: &World) -> Vec<String> {
    let store = rusqlite::Connection::open(world.folder.path().join("server/gbsync.db")).unwrap();
    let sql = "SELECT (entry ->> '$.syncGroupType') || ' by ' || (entry ->> '$.actor') FROM log ORDER BY place";
    let mut statement = store.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_void_of_a_manager_is_never_sent_under_the_cashier_and_goes_when_the_manager_is_back() {
    let world = World::under(SCHEMA);
    let device = world.device("till");
    device.client.sign_in(actor("cid"), cashier(&world));
    sale(&device, "r-1");
    device.sync();
    // Offline, the manager voids a receipt; then the cashier is back.
    device.client.sign_in(actor("mia"), manager(&world));
    let voided = void(&device, "r-1");
    device.client.sign_in(actor("cid"), cashier(&world));
    let (unrelated, dependent) = (sale(&device, "r-2"), void(&device, "r-1"));
    let report = device.sync();
    assert_eq!((report.accepted, report.waiting), (1, 2));
    assert_eq!(state(&device, &voided), GroupState::WaitingForSignIn);
    assert_eq!(state(&device, &unrelated), GroupState::Accepted);
    assert_eq!(state(&device, &dependent), GroupState::Sealed, "it is the cashier's own, and waits for what it is made on");
    assert_eq!(authors(&world), ["sale by cid", "sale by cid"]);
    let waiting = device.client.status().unwrap().waiting_for_sign_in;
    assert_eq!(
        waiting.iter().map(|waits| (waits.actor.clone(), waits.groups)).collect::<Vec<_>>(),
        [(Some(actor("mia")), 1)]
    );
    let shown: String = device.query("SELECT message FROM gbsync_group WHERE state = 'waiting_for_sign_in'");
    assert_eq!(shown, "it waits until mia signs in");
    assert!(device.transport.pushes().iter().all(|push| !push.contains("mia")), "no byte of it left");
    device.client.sign_in(actor("mia"), manager(&world));
    assert_eq!(device.sync().accepted, 1);
    assert_eq!(state(&device, &voided), GroupState::Accepted);
    device.client.sign_in(actor("cid"), cashier(&world));
    device.sync();
    assert_eq!(authors(&world), ["sale by cid", "sale by cid", "void by mia"]);
    let refused = device.client.group(&dependent.group_id).unwrap().unwrap();
    assert_eq!((refused.state, refused.code.as_deref()), (GroupState::Parked, Some("not_permitted")));
}

/// A server that was replaced, and not restored, knows no log but its own; when nobody brought the sale in time, nobody will.
#[test]
fn what_waited_until_its_sale_was_forgotten_is_parked_where_the_server_was_replaced() {
    for is_log_known in [true, false] {
        let world = World::under(SCHEMA);
        let remote = gbsync_client::Remote { server: world.url.clone(), space: space() };
        let config = gbsync_client::Config { retain_accepted_ms: 0, ..gbsync_client::Config::new(world.path("till")) };
        let device = world.with_client(gbsync_client::Client::create(config, &remote).unwrap());
        device.client.sign_in(actor("cid"), cashier(&world));
        if is_log_known {
            device.sync();
        }
        let sold = sale(&device, "r-1");
        device.client.sign_in(actor("mia"), manager(&world));
        let voided = void(&device, "r-1");
        device.client.sign_in(actor("cid"), cashier(&world));
        for _ in 0..2 {
            device.sync();
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(device.client.group(&sold.group_id).unwrap().is_none(), "it is forgotten");
        let replaced = World::with(|config| {
            config.schema = Some(gbsync_core::schema::Schema::parse(SCHEMA).unwrap());
            config.heal_window_ms = 0;
        });
        let device = replaced.with_client(device.client);
        device.client.sign_in(actor("mia"), manager(&replaced));
        device.sync();
        let lost = device.client.group(&voided.group_id).unwrap().unwrap();
        assert_eq!((lost.state, lost.code.as_deref()), (GroupState::Parked, Some("base_lost")), "{is_log_known}");
        assert!(lost.message.unwrap().contains(sold.group_id.as_str()), "it says what is lost");
    }
}

#[test]
fn a_device_that_may_act_as_the_manager_sends_the_void_and_the_managers_roles_decide() {
    let world = World::under(SCHEMA);
    let actors = Actors::open(world.folder.path().join("server")).unwrap();
    actors.set(&space(), &actor("mia"), &[Role::new("manager").unwrap()].into()).unwrap();
    actors.set(&space(), &actor("cid"), &[Role::new("cashier").unwrap()].into()).unwrap();
    let till = token(&world, Some("till-1"), None, Some(ActAs::These([actor("mia"), actor("cid")].into())));
    let device = world.device("till");
    device.client.sign_in(actor("cid"), till.clone());
    for id in ["r-1", "r-2"] {
        sale(&device, id);
    }
    device.sync();
    device.client.sign_in(actor("mia"), till.clone());
    let by_manager = void(&device, "r-1");
    device.client.sign_in(actor("cid"), till);
    let by_cashier = void(&device, "r-2");
    device.sync();
    assert_eq!(state(&device, &by_manager), GroupState::Accepted);
    assert_eq!(state(&device, &by_cashier), GroupState::Parked);
    assert_eq!(authors(&world), ["sale by cid", "sale by cid", "void by mia"]);
}

#[test]
fn whoever_is_signed_in_sends_no_other_persons_groups_though_the_token_would_take_them() {
    let world = World::new();
    let device = world.device("till");
    let anybodys = token(&world, None, None, None);
    device.client.sign_in(actor("mia"), anybodys.clone());
    let hers = sale(&device, "r-1");
    device.client.sign_in(actor("cid"), anybodys);
    let his = sale(&device, "r-2");
    device.sync();
    assert_eq!((state(&device, &hers), state(&device, &his)), (GroupState::WaitingForSignIn, GroupState::Accepted));
}

#[test]
fn signing_out_and_a_new_start_leave_the_outbox_as_it_is() {
    let world = World::new();
    let device = world.device("till");
    device.client.sign_in(actor("cid"), cashier(&world));
    let kept = sale(&device, "r-1");
    device.client.sign_out();
    assert_eq!(device.client.signed_in(), None);
    drop(device);
    let device = world.reopen("till");
    let group = device.client.group(&kept.group_id).unwrap().unwrap();
    assert_eq!((group.state, group.actor), (GroupState::Sealed, Some(actor("cid"))));
    device.client.sign_in(actor("mia"), manager(&world));
    device.sync();
    assert_eq!(state(&device, &kept), GroupState::WaitingForSignIn);
    device.client.sign_in(actor("cid"), cashier(&world));
    device.sync();
    assert_eq!(state(&device, &kept), GroupState::Accepted);
}

/// Gives a token that was revoked, and a good one when it is asked again, if it has one.
struct Renewing {
    old: String,
    new: Option<String>,
    asked: AtomicU32,
}

impl TokenProvider for Renewing {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some(self.old.clone()) })
    }

    fn renewed(&self, refused: Option<&str>) -> BoxFuture<'_, Option<String>> {
        assert_eq!(refused, Some(self.old.as_str()));
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.new.clone() })
    }
}

#[test]
fn a_refused_token_is_asked_for_once_more_and_then_everything_waits_for_a_sign_in() {
    let world = World::new();
    let device = world.device("till");
    let stale = || Renewing { old: "gbt_stale".into(), new: None, asked: AtomicU32::new(0) };
    let (hopeless, renewing) = (Arc::new(stale()), Renewing { new: Some(cashier(&world).0.clone()), ..stale() });
    device.client.sign_in(actor("cid"), hopeless.clone());
    let groups = [sale(&device, "r-1"), sale(&device, "r-2")];
    assert!(matches!(device.try_sync(), Err(SyncError::SignIn { .. })));
    assert_eq!(hopeless.asked.load(Ordering::Relaxed), 1);
    assert!(groups.iter().all(|sealed| state(&device, sealed) == GroupState::WaitingForSignIn));
    assert_eq!(device.client.status().unwrap().waiting_for_sign_in[0].groups, 2);
    device.client.sign_in(actor("cid"), Arc::new(renewing));
    assert_eq!(device.sync().accepted, 2);
    assert!(groups.iter().all(|sealed| state(&device, sealed) == GroupState::Accepted));
    assert_eq!(device.client.status().unwrap().waiting_for_sign_in, []);
}

#[test]
fn the_tokens_of_a_transport_are_asked_again_too() {
    let world = World::new();
    let device = world.device("till");
    sale(&device, "r-1");
    let renewing = Renewing { old: "gbt_stale".into(), new: Some(world.token.clone()), asked: AtomicU32::new(0) };
    let http = HttpTransport::new(&world.url, Arc::new(renewing)).unwrap();
    let report = world.runtime.block_on(device.client.sync(&http, &device.options)).unwrap();
    assert_eq!(report.accepted, 1);
    let http = HttpTransport::new(&world.url, Arc::new(NoToken)).unwrap();
    let nobody = world.runtime.block_on(device.client.sync(&http, &device.options));
    assert!(matches!(nobody, Err(SyncError::SignIn { .. })));
}

/// A server of before: its handshake does not say in whose names a token speaks.
struct Silent(HttpTransport);

impl Transport for Silent {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        Box::pin(async {
            let mut response = self.0.send(request).await?;
            let text = String::from_utf8(response.body).unwrap();
            let said = text.find(",\"token\":{").map(|from| (from, from + text[from..].find('}').unwrap() + 1));
            response.body = said.map_or(text.clone(), |(from, to)| format!("{}{}", &text[..from], &text[to..])).into();
            Ok(response)
        })
    }
}

#[test]
fn where_the_server_does_not_tell_its_refusal_of_one_group_lets_the_others_go() {
    let world = World::new();
    let device = world.device("till");
    device.client.sign_in(actor("mia"), manager(&world));
    let hers = sale(&device, "r-1");
    device.client.sign_in(actor("cid"), cashier(&world));
    let his = [sale(&device, "r-2"), sale(&device, "r-3")];
    device.client.sign_out();
    // Nobody says who is signed in either: the transport has the cashier's token.
    let http = Silent(HttpTransport::new(&world.url, cashier(&world)).unwrap());
    let report = world.runtime.block_on(device.client.sync(&http, &device.options)).unwrap();
    assert_eq!((report.accepted, report.waiting), (2, 1));
    assert_eq!(state(&device, &hers), GroupState::WaitingForSignIn);
    assert!(his.iter().all(|sealed| state(&device, sealed) == GroupState::Accepted));
    assert_eq!(authors(&world), ["sale by cid", "sale by cid"]);
}
