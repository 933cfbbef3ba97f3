//! A server, devices that watch its stream, and what happens to them.

use super::line::{Ended, Line};
use crate::random::Random;
use crate::seeds::{Happened, scratch_folder};
use crate::world::mix;
use crate::world::server::space_id;
use crate::world::staff::{PEOPLE, Wallet};
use crate::world::time::Time;
use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{Client, Config, Error, Remote, SyncError, SyncObserver, SyncOptions, SyncReport};
use gbsync_core::id::Actor;
use gbsync_server::{LocalServer, NewToken, ServerConfig, Tokens};
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What must happen at some time, or a run shows less than it says.
pub const MUST_HAPPEN: &[&str] = &[
    "a stream was opened",
    "a stream was cut",
    "a slow reader was dropped",
    "a stream ended with its token",
    "somebody else signed in at a device that listens",
    "a wake-up was lost, and the log was looked at",
    "a world came to rest",
];

const DEVICES: usize = 3;
const ACTIONS: usize = 24;
/// How often an idle stream is sent an empty page, in real milliseconds.
const HEARTBEAT_MS: u64 = 20;
/// So many beats after a commit of which nobody was told, the page must have come.
const BEATS: u64 = 5;
/// Pages that are kept for who reads slowly.
const BUFFERED_PAGES: usize = 2;
/// A turn of the world: for the devices, and for the server.
const TURN_MS: u64 = 100;
const REAL_TURN: Duration = Duration::from_millis(1);
/// A token's life, in milliseconds.
const LIFE_MS: u64 = 60 * 60 * 1000;
/// The life of one that ends soon: before anybody takes the stream for silent.
const SHORT_MS: u64 = 15_000;
/// Turns in which something must come that nothing keeps away: half an hour of the devices' time and more.
const MOST_TURNS: u64 = 20_000;

/// A device that watches.
struct Ear {
    client: Client,
    line: Arc<Line>,
    watch: Pin<Box<dyn Future<Output = SyncError>>>,
    person: &'static str,
    token: String,
}

struct Deaf;

impl SyncObserver for Deaf {
    fn round(&self, _: &SyncReport) {}
    fn failed(&self, _: &SyncError) {}
}

/// One run.
pub struct World {
    random: Random,
    runtime: Runtime,
    time: Time,
    local: Arc<LocalServer>,
    office: Tokens,
    ended: Ended,
    ears: Vec<Ear>,
    sold: u64,
    folder: PathBuf,
    _scratch: TempDir,
}

impl World {
    /// A server, and devices with somebody signed in on each.
    pub fn new(seed: u64) -> Result<Self> {
        let scratch = scratch_folder()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (time, folder) = (Time::new(), scratch.path().join("server"));
        let party = time.party(mix(seed, 1));
        let office = Tokens::open_in(folder.as_path(), party.server_environment())?;
        office.create(NewToken::new(space_id("main")))?;
        let mut config = ServerConfig { environment: party.server_environment(), ..ServerConfig::new(&folder) };
        (config.live.heartbeat_ms, config.live.recheck_ms) = (HEARTBEAT_MS, 0);
        config.live.buffered_pages = BUFFERED_PAGES;
        let local = Arc::new(runtime.block_on(LocalServer::open(config))?);
        let (random, ended) = (Random::of(seed), Ended::default());
        let mut world =
            Self { random, runtime, time, local, office, ended, ears: Vec::new(), sold: 0, folder, _scratch: scratch };
        for place in 0..DEVICES {
            world.add_ear(seed, place)?;
        }
        Ok(world)
    }

    fn add_ear(&mut self, seed: u64, place: usize) -> Result<()> {
        let party = self.time.party(mix(seed, 100 + place as u64));
        let file = self.folder.with_file_name(format!("ear-{place}.db"));
        let config = Config { environment: party.environment(), ..Config::new(file) };
        let client = Client::create(config, &Remote { server: "http://streams.test".into(), space: space_id("main") })?;
        let line = Arc::new(Line::new(&self.local, &self.ended));
        let (watched, through) = (client.clone(), Arc::clone(&line));
        let watch = Box::pin(async move {
            watched.watch_sync(through.as_ref(), &SyncOptions { attempts: 1, ..SyncOptions::default() }, &Deaf).await
        });
        self.ears.push(Ear { client, line, watch, person: PEOPLE[place % 2], token: String::new() });
        self.sign_in(place, PEOPLE[place % 2], Some(LIFE_MS))
    }

    fn sign_in(&mut self, place: usize, person: &'static str, lifetime_ms: Option<u64>) -> Result<()> {
        let actor = Actor::new(person)?;
        let new = NewToken { actor: Some(actor.clone()), lifetime_ms, ..NewToken::new(space_id("main")) };
        let token = self.office.create(new)?.token;
        let ear = &mut self.ears[place];
        (ear.person, ear.token) = (person, token.clone());
        ear.client.sign_in(actor, Arc::new(Wallet::new(token)));
        Ok(())
    }

    /// Acts, then lets everything come to rest.
    pub fn run(&mut self, happened: &mut Happened) -> Result<()> {
        for action in 0..ACTIONS {
            self.act(happened).with_context(|| format!("action {action}"))?;
            for _ in 0..self.random.below(30) {
                self.turn()?;
            }
            self.judge().with_context(|| format!("after action {action}"))?;
        }
        self.rest().context("at rest")?;
        for ear in &self.ears {
            let present = ear.line.present();
            for (what, times) in [
                ("a stream was opened", present.opened),
                ("a stream was cut", present.cut),
                ("a slow reader was dropped", present.too_slow),
                ("a stream ended with its token", present.unauthenticated),
            ] {
                if times > 0 {
                    *happened.entry(what).or_default() += times;
                }
            }
        }
        *happened.entry("a world came to rest").or_default() += 1;
        Ok(())
    }

    fn act(&mut self, happened: &mut Happened) -> Result<()> {
        let place = self.random.below(DEVICES);
        match self.random.below(14) {
            0..=5 => self.sell(place),
            6 => {
                let bytes = self.random.below(1_000);
                self.ears[place].line.present().cut_after = Some(bytes);
                Ok(())
            }
            7 => self.read_slowly(place),
            8 => self.let_token_end(place),
            9 => {
                let person = PEOPLE[usize::from(self.ears[place].person == PEOPLE[0])];
                *happened.entry("somebody else signed in at a device that listens").or_default() += 1;
                self.sign_in(place, person, Some(LIFE_MS))
            }
            _ => self.lose_wake_up(place, happened),
        }
    }

    fn sell(&mut self, place: usize) -> Result<()> {
        self.sold += 1;
        let id = format!("s{}", self.sold);
        let sealed = self.ears[place].client.operation::<Error>("sale", &id, |op| {
            op.upsert("receipts", &id, r#"{"total":"1.00"}"#)?;
            op.upsert("payments", &id, r#"{"amount":"1.00"}"#)
        });
        sealed.map(drop).context("P4: a sale is refused")
    }

    /// The token of a device ends while it listens, and whoever was there has gone home.
    fn let_token_end(&mut self, place: usize) -> Result<()> {
        self.sign_in(place, self.ears[place].person, Some(SHORT_MS))?;
        self.drive(SHORT_MS / TURN_MS / 2, |world| {
            let ear = &world.ears[place];
            let present = ear.line.present();
            Ok(present.open == 1 && present.pieces > 0 && present.token == ear.token)
        })?;
        self.time.pass(SHORT_MS);
        let token = self.ears[place].token.clone();
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(token, self.sold);
        self.sell((place + 1) % DEVICES)
    }

    /// Nobody reads the stream of a device while others sell more than the server keeps for it.
    fn read_slowly(&mut self, place: usize) -> Result<()> {
        self.ears[place].line.present().is_stalled = true;
        for _ in 0..BUFFERED_PAGES * 2 {
            self.sell((place + 1) % DEVICES)?;
            self.drive(40, |world| Ok(world.pending((place + 1) % DEVICES)? == 0))?;
            self.drive(5, |_| Ok(false))?;
        }
        self.ears[place].line.present().is_stalled = false;
        Ok(())
    }

    /// Nobody is woken by a commit. Whoever listens hears of it all the same, as soon as the server looks by itself.
    fn lose_wake_up(&mut self, seller: usize, happened: &mut Happened) -> Result<()> {
        let listener = (seller + 1) % DEVICES;
        for place in [seller, listener] {
            self.ears[place].line.present().cut_after = None;
            self.sign_in(place, self.ears[place].person, Some(LIFE_MS))?;
        }
        let is_ready = |world: &Self| {
            let heard = world.ears[listener].line.present().pieces > 0 && world.ears[listener].line.present().open == 1;
            Ok(heard && world.pending(seller)? == 0 && world.cursor(listener)? == world.head()?)
        };
        if !self.drive(600, is_ready)? {
            return Ok(());
        }
        let before = self.head()?;
        self.local.lose_wake_ups(1);
        self.sell(seller)?;
        let has_sold = self.drive(600, |world| Ok(world.head()? > before))?;
        self.local.lose_wake_ups(0);
        if !has_sold {
            return Ok(());
        }
        let (opened, asked, pieces) = {
            let present = self.ears[listener].line.present();
            (present.opened, present.asked, present.pieces)
        };
        let came = self.drive(600, |world| {
            let present = world.ears[listener].line.present();
            let beats = if present.opened == opened { present.pieces.saturating_sub(pieces) } else { 0 };
            drop(present);
            let came = world.cursor(listener)? > before;
            ensure!(came || beats < BEATS, "P10: {beats} beats after a commit, device {listener} was not told of it");
            Ok(came)
        })?;
        let present = self.ears[listener].line.present();
        if came && (present.opened, present.asked) == (opened, asked) {
            *happened.entry("a wake-up was lost, and the log was looked at").or_default() += 1;
        }
        Ok(())
    }

    /// Turns until something is so; whether it came to be, in so many.
    fn drive(&mut self, turns: u64, is_so: impl Fn(&Self) -> Result<bool>) -> Result<bool> {
        for _ in 0..turns {
            if is_so(self)? {
                return Ok(true);
            }
            self.turn()?;
        }
        is_so(self)
    }

    fn turn(&mut self) -> Result<()> {
        let Self { runtime, ears, .. } = self;
        let ended = runtime.block_on(async {
            let ended = poll_fn(|task| {
                let ended = ears.iter_mut().find_map(|ear| match ear.watch.as_mut().poll(task) {
                    Poll::Ready(error) => Some(error),
                    Poll::Pending => None,
                });
                Poll::Ready(ended)
            });
            let ended = ended.await;
            tokio::time::sleep(REAL_TURN).await;
            ended
        });
        if let Some(error) = ended {
            bail!("P10: a watch ended: {error}");
        }
        self.time.pass(TURN_MS);
        Ok(())
    }

    fn cursor(&self, place: usize) -> Result<u64> {
        Ok(self.ears[place].client.status()?.cursor.0)
    }

    fn pending(&self, place: usize) -> Result<u64> {
        Ok(self.ears[place].client.status()?.pending_groups)
    }

    fn head(&self) -> Result<u64> {
        Ok(gbsync_server::space_digest(&self.folder, &space_id("main"))?.head.0)
    }

    fn judge(&self) -> Result<()> {
        for (place, ear) in self.ears.iter().enumerate() {
            let sql = "SELECT count(*) FROM gbsync_base AS r WHERE entity = 'receipts' AND NOT EXISTS
                         (SELECT 1 FROM gbsync_base AS p WHERE p.entity = 'payments' AND p.id = r.id)";
            let alone: u64 = ear.client.with_reader(|db| db.query_row(sql, [], |row| row.get(0)))?;
            ensure!(alone == 0, "P2: device {place} has {alone} receipts without a payment");
            if let Some(broken) = ear.line.present().broken.take() {
                bail!(broken);
            }
        }
        Ok(())
    }

    /// Everybody comes back in turn, nobody asks for anything, and all hear of all.
    fn rest(&mut self) -> Result<()> {
        for person in PEOPLE {
            for place in 0..DEVICES {
                {
                    let mut present = self.ears[place].line.present();
                    (present.cut_after, present.is_stalled) = (None, false);
                }
                self.sign_in(place, person, None)?;
            }
            let has_sent = |world: &Self| {
                let waits = |ear: &Ear| {
                    let sql = "SELECT count(*) FROM gbsync_outbox
                                WHERE state IN ('sealed', 'waiting_for_sign_in') AND actor = ?1";
                    ear.client.with_reader(|db| db.query_row(sql, [person], |row| row.get::<_, u64>(0)))
                };
                Ok(world.ears.iter().map(waits).sum::<Result<u64, _>>()? == 0)
            };
            ensure!(self.drive(MOST_TURNS, has_sent)?, "P10: what {person} sealed is not decided");
        }
        let is_over = |world: &Self| {
            let head = world.head()?;
            (0..DEVICES).try_fold(true, |is_over, place| Ok(is_over && world.cursor(place)? == head))
        };
        ensure!(self.drive(MOST_TURNS, is_over)?, "P10: a device that listens does not come to the end of the log");
        self.judge()?;
        let theirs = gbsync_server::space_digest(&self.folder, &space_id("main"))?;
        ensure!(
            theirs.records == 2 * self.sold,
            "P4: {} were sold, and the server has {} records",
            self.sold,
            theirs.records
        );
        for (place, ear) in self.ears.iter().enumerate() {
            let ours = ear.client.digest()?;
            ensure!(ours.digest == theirs.digest, "P6: device {place} has another digest than the server");
        }
        Ok(())
    }

    /// Closes the server.
    pub fn end(self) -> Result<()> {
        let Self { runtime, local, ears, .. } = self;
        drop(ears);
        // The reader of the log ends when nobody listens.
        runtime.block_on(async { tokio::time::sleep(REAL_TURN).await });
        let local = Arc::into_inner(local).context("somebody still talks to the server")?;
        Ok(runtime.block_on(local.close())?)
    }
}
