//! Operations on one device: staging, sealing, and what nothing leaves behind.

use crate::common::{Device, World};
use gbsync_client::{
    Client, Config, Error, GroupFilter, GroupState, Sealed, Written, operation_scope, operation_scope_sync,
};
use gbsync_core::id::{Actor, GroupId};

fn nothing_is_there(device: &Device) {
    assert_eq!(device.query::<i64>("SELECT count(*) FROM gbsync_records"), 0);
    assert_eq!(device.query::<i64>("SELECT count(*) FROM gbsync_group"), 0);
}

#[test]
fn an_operation_that_fails_panics_or_is_dropped_leaves_nothing() {
    let world = World::new();
    let device = world.device("a");
    let client = &device.client;
    let failed = client.operation("receipt-create", "r1", |op| {
        op.upsert("receipts", "r1", r#"{"total":"1.00"}"#)?;
        op.patch("receipts", "r2", r#"{"total":"1.00"}"#)
    });
    assert_eq!(failed.unwrap_err().code(), "missing");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        client.operation::<Error>("receipt-create", "r1", |op| {
            op.upsert("receipts", "r1", r#"{"total":"1.00"}"#)?;
            panic!("the till's drawer jams")
        })
    }));
    assert!(panicked.is_err());
    let mut dropped = client.begin("receipt-create", "r1").unwrap();
    dropped.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap();
    drop(dropped);
    nothing_is_there(&device);
    assert_eq!(device.receipt("r1", "1.00").device_seq.0, 1, "and takes no number");
}

#[test]
fn a_flush_during_an_open_operation_sends_nothing_of_it() {
    let world = World::new();
    let device = world.device("a");
    device.receipt("r1", "1.00");
    let mut open = device.client.begin("receipt-create", "r2").unwrap();
    open.upsert("receipts", "r2", r#"{"total":"2.00"}"#).unwrap();
    let report = device.sync();
    assert_eq!((report.pushed, report.accepted), (1, 1));
    assert_eq!(world.digest().1, 2, "a receipt and its payment");
    open.upsert("payments", "p2", r#"{"amount":"2.00"}"#).unwrap();
    open.seal().unwrap();
    assert_eq!(device.sync().accepted, 1);
    assert_eq!(world.digest().1, 4);
}

#[test]
fn an_operation_sees_its_own_changes_and_nobody_else_does() {
    let world = World::new();
    let device = world.device("a");
    let mut op = device.client.begin("receipt-create", "r1").unwrap();
    op.upsert("receipts", "r1", r#"{"total": 1, "note":"x"}"#).unwrap();
    op.increment("receipts", "r1", r#"{"total": 2}"#).unwrap();
    op.patch("receipts", "r1", r#"{"note": null}"#).unwrap();
    assert_eq!(op.read("receipts", "r1").unwrap().unwrap().as_str(), r#"{"total":3}"#);
    assert_eq!(device.read("receipts", "r1"), None);
    let sealed = op.seal().unwrap();
    assert_eq!(device.read("receipts", "r1").unwrap(), r#"{"total":3}"#);
    let changes = device.client.changes_of(&sealed.group_id).unwrap();
    assert_eq!(changes.len(), 1, "squashed into one");
}

#[test]
fn an_operation_without_a_change_is_refused_with_a_sentence() {
    let world = World::new();
    let device = world.device("a");
    let empty = device.client.operation::<Error>("receipt-create", "r1", |_| Ok(()));
    assert_eq!(empty.unwrap_err().code(), "empty_operation");
    let mut undone = device.client.begin("receipt-create", "r1").unwrap();
    undone.upsert("receipts", "r1", "{}").unwrap();
    undone.delete("receipts", "r1").unwrap();
    assert_eq!(undone.seal().unwrap_err().code(), "empty_operation");
    assert_eq!(device.client.begin("receipt-create", "  ").err().unwrap().code(), "invalid_id");
}

#[test]
fn writes_in_a_scope_join_one_group_however_deep() {
    let world = World::new();
    let device = world.device("a");
    let client = device.client.clone();
    async fn deep(client: &Client) -> Result<(), Error> {
        tokio::task::yield_now().await;
        let (written, nested) = operation_scope("inner", "x", async { client.upsert("payments", "p1", "{}") }).await?;
        assert_eq!((written, nested), (Written::Staged, None), "a nested scope joins the outer one");
        Ok(())
    }
    let (read, sealed) = world
        .runtime
        .block_on(operation_scope("receipt-create", "r1", async {
            client.upsert("receipts", "r1", r#"{"n":1}"#)?;
            deep(&client).await?;
            client.read("receipts", "r1")
        }))
        .unwrap();
    assert_eq!(read.unwrap().as_str(), r#"{"n":1}"#);
    let Sealed { group_id, .. } = sealed.unwrap();
    assert_eq!(client.changes_of(&group_id).unwrap().len(), 2);
    let failed: Result<((), _), Error> = operation_scope_sync("receipt-create", "r2", || {
        client.upsert("receipts", "r2", "{}")?;
        Err(Error::EmptyOperation)
    });
    assert!(failed.is_err());
    assert_eq!(device.read("receipts", "r2"), None);
    assert!(matches!(client.upsert("notes", "n1", "{}").unwrap(), Written::Sealed(_)), "outside, a change stands alone");
}

#[test]
fn a_scope_writes_to_one_database() {
    let world = World::new();
    let (a, b) = (world.device("a"), world.device("b"));
    let mixed = operation_scope_sync("receipt-create", "r1", || {
        a.client.upsert("receipts", "r1", "{}")?;
        b.client.upsert("receipts", "r1", "{}")
    });
    assert_eq!(mixed.unwrap_err().code(), "another_client");
    nothing_is_there(&a);
}

#[test]
fn a_group_keeps_who_made_it() {
    let world = World::new();
    let remote = gbsync_client::Remote { server: world.url.clone(), space: crate::common::space() };
    let config = Config { actor: Some(Actor::new("ann").unwrap()), ..Config::new(world.path("a")) };
    let device = world.with_client(Client::create(config, &remote).unwrap());
    device.receipt("r1", "1.00");
    device
        .client
        .operation::<Error>("receipt-create", "r2", |op| {
            op.actor(Actor::new("ben").unwrap());
            op.upsert("receipts", "r2", "{}")
        })
        .unwrap();
    let groups = device.client.groups(GroupFilter::Pending, 10).unwrap();
    let actors: Vec<_> = groups.iter().map(|group| group.actor.as_ref().unwrap().as_str()).collect();
    assert_eq!(actors, ["ann", "ben"]);
    let batches = std::sync::Arc::new(std::sync::Mutex::new(0));
    let counted = batches.clone();
    let mut options = device.options.clone();
    options.on_batch = Some(std::sync::Arc::new(move |_| *counted.lock().unwrap() += 1));
    world.runtime.block_on(device.client.sync(device.transport.as_ref(), &options)).unwrap();
    assert_eq!(*batches.lock().unwrap(), 2, "one actor a batch");
}

#[test]
fn a_given_id_makes_a_group_idempotent_for_ever() {
    let world = World::new();
    let device = world.device("a");
    let write = || {
        device.client.operation::<Error>("receipt-create", "r1", |op| {
            op.given_id(GroupId::new("import-7").unwrap());
            op.upsert("receipts", "r1", "{}")
        })
    };
    assert_eq!(write().unwrap().group_id.as_str(), "import-7");
    assert_eq!(write().unwrap_err().code(), "already_applied");
    device.sync();
    assert_eq!(write().unwrap_err().code(), "already_applied");
}

#[test]
fn the_apps_own_tables_are_left_alone() {
    let world = World::new();
    let path = world.path("shared");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch(
        "PRAGMA user_version = 42; CREATE TABLE settings(k, v); INSERT INTO settings VALUES ('theme', 'dark')",
    )
    .unwrap();
    let device = world.device("shared");
    device.receipt("r1", "1.00");
    let (theme, version): (String, i64) = app
        .query_row("SELECT (SELECT v FROM settings), (SELECT user_version FROM pragma_user_version)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((theme.as_str(), version), ("dark", 42));
    let receipts: i64 =
        app.query_row("SELECT count(*) FROM gbsync_records WHERE entity = 'receipts'", [], |row| row.get(0)).unwrap();
    assert_eq!(receipts, 1, "and the app reads the local view from its own connection");
}

#[test]
fn files_that_cannot_be_used_are_refused_with_one_sentence_and_left_untouched() {
    let world = World::new();
    let remote = gbsync_client::Remote { server: world.url.clone(), space: crate::common::space() };
    let text = world.path("text");
    std::fs::write(&text, "this is a shopping list, and a long one at that").unwrap();
    for result in [Client::open(Config::new(&text)), Client::create(Config::new(&text), &remote)] {
        assert_eq!(result.err().unwrap().code(), "not_sqlite");
    }
    assert_eq!(std::fs::read(&text).unwrap(), b"this is a shopping list, and a long one at that");
    assert_eq!(Client::open(Config::new(world.path("absent"))).err().unwrap().code(), "not_initialized");
    assert!(!world.path("absent").exists());
    world.device("twice");
    assert_eq!(Client::create(Config::new(world.path("twice")), &remote).err().unwrap().code(), "already_initialized");
    let newer = world.path("twice");
    let db = rusqlite::Connection::open(&newer).unwrap();
    db.execute("UPDATE gbsync_meta SET value = '99' WHERE key = 'format'", []).unwrap();
    drop(db);
    let before = std::fs::read(&newer).unwrap();
    assert_eq!(Client::open(Config::new(&newer)).err().unwrap().code(), "newer_format");
    assert_eq!(std::fs::read(&newer).unwrap(), before);
}

/// The step was once part of the one before it: files of that format are there with the index and without it.
#[test]
fn a_file_of_a_former_format_gets_the_index_that_came_after_it() {
    let world = World::new();
    let index = "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = 'gbsync_outbox_unpassed'";
    let since = "DROP TABLE gbsync_stood; DROP TABLE gbsync_stood_next; ALTER TABLE gbsync_outbox DROP COLUMN made_on;
                 ALTER TABLE gbsync_state DROP COLUMN told_agreed; ALTER TABLE gbsync_state DROP COLUMN left_log;
                 ALTER TABLE gbsync_state DROP COLUMN left_shared;";
    for (name, before) in [("without", "DROP INDEX gbsync_outbox_unpassed;"), ("with", "")] {
        let device = world.device(name);
        device.client.upsert("notes", "n1", r#"{"text":"kept"}"#).unwrap();
        drop(device);
        let db = rusqlite::Connection::open(world.path(name)).unwrap();
        db.execute_batch(&format!("{since} {before} UPDATE gbsync_meta SET value = '10' WHERE key = 'format';")).unwrap();
        drop(db);
        let device = world.reopen(name);
        let db = rusqlite::Connection::open(world.path(name)).unwrap();
        assert_eq!(db.query_row(index, [], |row| row.get::<_, i64>(0)).unwrap(), 1, "{name}");
        assert_eq!(device.query::<String>("SELECT state FROM gbsync_group"), "sealed", "{name}");
    }
}

#[test]
fn a_change_that_no_request_can_hold_is_refused_when_it_is_written() {
    let world = World::with(|config| config.limits.request_bytes = 100_000);
    let device = world.device("a");
    device.sync();
    let big = format!(r#"{{"text":"{}"}}"#, "x".repeat(90_000));
    let import = |text: &str| {
        device.client.operation::<Error>("import", "i1", |op| {
            (0..3).try_for_each(|index| op.upsert("notes", &format!("n{index}"), text))
        })
    };
    assert_eq!(import(&big.replace("xx", "xxxxx")).unwrap_err().code(), "too_large");
    nothing_is_there(&device);
    let too_big = format!(r#"{{"text":"{}"}}"#, "x".repeat(300_000));
    assert_eq!(device.client.upsert("notes", "n", too_big).unwrap_err().code(), "invalid_payload");
    import(&big).expect("a group may be larger than a request");
    assert_eq!(device.sync().accepted, 1);
}

#[test]
fn a_group_over_the_maximum_is_refused_when_it_is_written() {
    let world = World::with(|config| {
        config.limits.group_records = 20;
        config.limits.group_bytes = 5_000;
    });
    let device = world.device("a");
    device.sync();
    let import = |records: usize, payload: &str| {
        device.client.operation::<Error>("import", "i1", |op| {
            (0..records).try_for_each(|index| op.upsert("notes", &format!("n{index}"), payload))
        })
    };
    assert_eq!(import(21, "{}").unwrap_err().code(), "too_large");
    assert_eq!(import(20, &format!(r#"{{"text":"{}"}}"#, "x".repeat(300))).unwrap_err().code(), "too_large");
    nothing_is_there(&device);
    import(20, "{}").unwrap();
}

#[test]
fn a_client_is_shared_between_threads_and_its_futures_are_sent() {
    fn shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn sent<T: Send>(_: &T) {}
    let world = World::new();
    let device = world.device("a");
    shared(&device.client);
    let round = device.client.sync(device.transport.as_ref(), &device.options);
    sent(&round);
    drop(round);
    sent(&operation_scope("t", "r", async { device.client.upsert("e", "i", "{}") }));
    sent(&device.client.decided(&GroupId::new("g").unwrap()));
    let handles: Vec<_> = (0..4)
        .map(|thread| {
            let client = device.client.clone();
            std::thread::spawn(move || {
                (0..25).for_each(|n| drop(client.upsert("notes", &format!("{thread}-{n}"), "{}").unwrap()))
            })
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    let numbers = "SELECT count(DISTINCT device_seq) || ' ' || min(device_seq) || ' ' || max(device_seq) FROM gbsync_group";
    assert_eq!(device.query::<String>(numbers), "100 1 100", "without gaps, without doubles");
}

#[test]
fn a_subscriber_hears_of_the_verdict() {
    let world = World::new();
    let device = world.device("a");
    let sealed = device.receipt("r1", "1.00");
    let client = device.client.clone();
    let waiting = world.runtime.spawn(async move { client.decided(&sealed.group_id).await });
    device.sync();
    let decided = world.runtime.block_on(waiting).unwrap().unwrap().unwrap();
    assert_eq!(decided.state, GroupState::Accepted);
}
