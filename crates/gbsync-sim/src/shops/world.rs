//! A server whose space is divided, devices of its shops, and what happens there.

use super::till::{Rows, Sees, Till, may_see};
use crate::random::Random;
use crate::seeds::{Happened, scratch_folder};
use crate::world::mix;
use crate::world::server::space_id;
use crate::world::time::Time;
use anyhow::{Context, Result, ensure};
use gbsync_client::Error;
use gbsync_core::id::Scope;
use gbsync_core::schema::Schema;
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::{LiveEvent, LiveReader, LogPage, LogState};
use gbsync_server::{LocalServer, NewToken, ServerConfig, Tokens};
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What must happen at some time, or a run shows less than it says.
pub const MUST_HAPPEN: &[&str] = &[
    "a receipt was sold",
    "a receipt was corrected",
    "a receipt moved to another shop",
    "a receipt was voided",
    "a device became one of another shop",
    "an answer was lost",
    "a world came to rest",
];

const RULES: &str = r#"
version = 1
[entities.receipts]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.total = "text"
[entities.payments]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
[entities.products]
fields.name = "text"
fields.sold = { type = "integer", counter = true }
"#;

const SHOPS: [&str; 2] = ["north", "south"];
/// What tokens may see.
const SEEN: [Sees; 4] = [Some(&["north"]), Some(&["south"]), Some(&["north", "south"]), None];
/// What the devices begin with, by place in [`SEEN`].
const TILLS: [usize; 6] = [0, 1, 2, 3, 0, 1];
/// Rounds of every device in which a world must come to rest.
const ROUNDS_TO_REST: u64 = 6;
/// Most bytes of a page of the stream.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// One run.
pub struct World {
    random: Random,
    runtime: Runtime,
    local: Arc<LocalServer>,
    tokens: Vec<String>,
    tills: Vec<Till>,
    _scratch: TempDir,
}

impl World {
    /// A server, devices, and the product that they all sell.
    pub fn new(seed: u64) -> Result<Self> {
        let scratch = scratch_folder()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (time, folder) = (Time::new(), scratch.path().join("server"));
        let schema = Schema::parse(RULES).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let made = Tokens::open(folder.as_path())?;
        let token = |sees: &Sees| {
            let scopes = match sees {
                None => ScopeSet::All,
                Some(shops) => ScopeSet::These(shops.iter().map(|shop| Scope::new(*shop)).collect::<Result<_, _>>()?),
            };
            Ok(made.create(NewToken { scopes, ..NewToken::new(space_id("main")) })?.token)
        };
        let tokens = SEEN.iter().map(token).collect::<Result<Vec<_>>>()?;
        let config = ServerConfig { schema: Some(schema.clone()), ..ServerConfig::new(&folder) };
        let local = Arc::new(runtime.block_on(LocalServer::open(config))?);
        let till = |(place, seen): (usize, &usize)| {
            let party = time.party(mix(seed, 100 + place as u64));
            let token = (SEEN[*seen], tokens[*seen].clone());
            Till::new(place, scratch.path(), (&schema, &party), &local, token)
        };
        let tills = TILLS.iter().enumerate().map(till).collect::<Result<Vec<_>>>()?;
        let world = Self { random: Random::of(seed), runtime, local, tokens, tills, _scratch: scratch };
        world.stock()?;
        Ok(world)
    }

    /// The product is there on every device, so that all can count it.
    fn stock(&self) -> Result<()> {
        let group = r#"{"syncGroupId":"stock","syncGroupType":null,"deviceSeq":1,"createdAt":"2026-06-01T00:00:00Z","changeCount":1,"digest":"DIGEST","changes":CHANGES}"#;
        let changes = r#"[{"entity":"products","id":"roll","action":"upsert","payload":{"name":"Roll"}}]"#;
        let digest = gbsync_core::digest::Digest::of(changes.as_bytes()).to_string();
        let group = group.replace("DIGEST", &digest).replace("CHANGES", changes);
        let body = format!(r#"{{"device":"office","epoch":"e1","groups":[{group}]}}"#);
        let pushing = self.local.answer("POST", "/v1/spaces/main/push", Some(&self.tokens[3]), Some(body.into_bytes()));
        let answer = self.runtime.block_on(pushing);
        ensure!(answer.status == 200, "the product was not taken: {}", String::from_utf8_lossy(&answer.body));
        self.tills.iter().try_for_each(|till| till.sync(&self.runtime, 0).map(drop))
    }

    /// Acts so often, then lets the world come to rest.
    pub fn run(&mut self, actions: usize, happened: &mut Happened) -> Result<()> {
        for action in 0..actions {
            self.act(happened).with_context(|| format!("action {action}"))?;
        }
        self.rest().context("at rest")?;
        *happened.entry("a world came to rest").or_default() += 1;
        Ok(())
    }

    fn act(&mut self, happened: &mut Happened) -> Result<()> {
        let place = self.random.below(self.tills.len());
        let (drawn, other) = (self.random.below(20), self.random.below(SEEN.len()));
        let till = &mut self.tills[place];
        let shops = till.sees.unwrap_or(&SHOPS);
        let shop = shops[self.random.below(shops.len())];
        let receipts = till.receipts()?;
        let receipt = receipts.get(self.random.below(receipts.len()));
        let (done, what) = match (drawn, receipt) {
            (0..=6, _) => (till.sell(shop), "a receipt was sold"),
            (7..=8, Some(receipt)) => (till.correct(receipt, self.random.next() % 1_000), "a receipt was corrected"),
            (9..=10, Some(receipt)) if shops.len() > 1 => (till.move_to(receipt, shop), "a receipt moved to another shop"),
            (11, Some(receipt)) => (till.void(receipt), "a receipt was voided"),
            (12, _) => {
                till.becomes(SEEN[other], self.tokens[other].clone());
                (Ok(()), "a device became one of another shop")
            }
            (13, _) => {
                let reached = till.sync(&self.runtime, 1 + self.random.next() % 4)?;
                if !reached {
                    *happened.entry("an answer was lost").or_default() += 1;
                }
                return Ok(());
            }
            _ => {
                till.sync(&self.runtime, 0)?;
                till.judge()?;
                return self.judge_routes(place);
            }
        };
        match done {
            Ok(()) => *happened.entry(what).or_default() += 1,
            // What does not fit what the device shows is refused at once; that is no matter of scopes.
            Err(Error::RuleViolated { .. } | Error::CannotLay { .. }) => {}
            Err(error) => return Err(error).context(what),
        }
        Ok(())
    }

    /// Holds every page of the log, and of the stream, against what a device may see.
    fn judge_routes(&self, place: usize) -> Result<()> {
        let till = &self.tills[place];
        let (token, mut after) = (till.token(), 0);
        loop {
            let path = format!("/v1/spaces/main/log?after={after}&maxRecords=20");
            let answer = self.runtime.block_on(self.local.answer("GET", &path, Some(&token), None));
            let page = LogPage::parse(&answer.body).context("P9: a page of the log cannot be read")?;
            judge_page(&page, till.sees, "the log")?;
            after = page.next.0;
            if page.next >= page.head {
                break;
            }
        }
        let path = format!("/v1/spaces/main/live?after={}", after.saturating_sub(5));
        let (status, piece) = self.runtime.block_on(self.local.first_piece(&path, &token));
        ensure!(status == 200, "P10: the stream was refused with {status}");
        let mut reader = LiveReader::new(PAGE_BYTES);
        reader.push(&piece);
        match reader.next().context("P9: the stream cannot be read")? {
            Some(LiveEvent::Page(page)) => judge_page(&page.page, till.sees, "the stream"),
            other => anyhow::bail!("P10: the stream began with {other:?}"),
        }
    }

    /// Everybody syncs until nothing is left to do; then those who see the same hold the same.
    fn rest(&mut self) -> Result<()> {
        for _ in 0..ROUNDS_TO_REST {
            for till in &self.tills {
                till.sync(&self.runtime, 0)?;
            }
        }
        for till in &self.tills {
            ensure!(till.pending()? == 0, "P10: till {} still has undecided groups", till.place);
            till.judge()?;
        }
        let everything = self.everything()?;
        let mut digests: BTreeMap<Sees, String> = BTreeMap::new();
        for till in &self.tills {
            let theirs: Rows = everything
                .iter()
                .filter(|(_, payload)| may_see(till.sees, payload))
                .map(|(k, p)| (k.clone(), p.clone()))
                .collect();
            let base = till.base()?;
            ensure!(base == theirs, "P6: till {}, which sees {:?}, holds {base:?}, not {theirs:?}", till.place, till.sees);
            let digest = till.digest()?;
            let known = digests.entry(till.sees).or_insert_with(|| digest.clone());
            ensure!(*known == digest, "P6: two tills that see {:?} differ: {known}, {digest}", till.sees);
        }
        Ok(())
    }

    /// Every record of the space, from the log as who sees everything reads it.
    fn everything(&self) -> Result<Rows> {
        let (mut rows, mut after) = (Rows::new(), 0);
        loop {
            let path = format!("/v1/spaces/main/log?after={after}");
            let answer = self.runtime.block_on(self.local.answer("GET", &path, Some(&self.tokens[3]), None));
            let page = LogPage::parse(&answer.body)?;
            for change in page.entries.iter().filter_map(|entry| entry.group.as_ref()).flat_map(|group| &group.changes) {
                let key = (change.key.entity.to_string(), change.key.id.to_string());
                match &change.state {
                    LogState::Live(payload) => rows.insert(key, payload.to_string()),
                    LogState::Deleted | LogState::Left => rows.remove(&key),
                };
            }
            after = page.next.0;
            if page.next >= page.head {
                return Ok(rows);
            }
        }
    }

    /// Closes the server.
    pub fn end(self) -> Result<()> {
        let Self { runtime, local, tills, .. } = self;
        drop(tills);
        let local = Arc::into_inner(local).context("somebody still talks to the server")?;
        Ok(runtime.block_on(local.close())?)
    }
}

fn judge_page(page: &LogPage, sees: Sees, what: &str) -> Result<()> {
    for change in page.entries.iter().filter_map(|entry| entry.group.as_ref()).flat_map(|group| &group.changes) {
        if let LogState::Live(payload) = &change.state {
            ensure!(may_see(sees, payload), "P9: {what} shows {} {payload} to who sees {sees:?}", change.key);
        }
    }
    Ok(())
}
