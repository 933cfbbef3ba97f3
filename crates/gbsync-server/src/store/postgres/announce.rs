//! Wake-ups between processes: each tells the others which logs have grown, after the COMMIT.
//!
//! One connection a process tells, many spaces at a time, because PostgreSQL lets only one transaction commit a NOTIFY at a
//! time: in the transactions of pushes it would line them all up. Another one listens. Wake-ups may be lost with a
//! connection, so the heads of the spaces that somebody waits for are looked up every second as well.
//!
//! Invariant: nothing but waking is done on what is told here; whoever is woken reads the store.

use super::connect::Address;
use super::engine::Engine;
use super::row::{count, id};
use crate::feed::Feed;
use crate::store::StoreError;
use deadpool_postgres::Pool;
use gbsync_core::id::{Seq, SpaceId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

/// How long wake-ups may gather before they are told.
const GATHER: Duration = Duration::from_millis(2);
/// How often heads are looked up, and how long a lost connection is left alone.
const POLL: Duration = Duration::from_secs(1);

/// What is to be told, and the tasks that tell and listen.
pub(super) struct Announcer {
    /// The channel of all processes on the store.
    channel: String,
    heads: Arc<Heads>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Heads {
    untold: Mutex<BTreeMap<SpaceId, Seq>>,
    changed: Notify,
}

impl Announcer {
    /// For the store in this schema of the database.
    pub(super) fn new(schema: &str) -> Self {
        Self { channel: format!("{schema}_heads"), heads: Arc::default(), tasks: Mutex::default() }
    }

    /// Notes that a log has grown; it is told soon.
    pub(super) fn announce(&self, space: &SpaceId, head: Seq) {
        self.heads.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(space.clone(), head);
        self.heads.changed.notify_one();
    }

    /// Starts to tell and to listen.
    pub(super) fn follow(&self, engine: &Engine, address: &Arc<Address>, pool: &Pool, feed: &Arc<Feed>) {
        let telling = engine.spawn(tell(Arc::clone(&self.heads), Arc::clone(address), self.channel.clone()));
        let listening = engine.spawn(listen(Arc::clone(address), Arc::clone(feed), self.channel.clone()));
        let polling = engine.spawn(poll(pool.clone(), Arc::clone(feed)));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend([telling, listening, polling]);
    }

    /// Tells what is left, for a moment, and ends.
    pub(super) fn stop(&self, engine: &Engine) {
        engine.wait(tokio::time::sleep(GATHER * 4));
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

async fn tell(heads: Arc<Heads>, address: Arc<Address>, channel: String) {
    loop {
        match tell_until_lost(&heads, &address, &channel).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "other processes are not woken; they look for themselves every second"),
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn tell_until_lost(heads: &Heads, address: &Address, channel: &str) -> Result<(), StoreError> {
    let client = address.connect().await?;
    let sql = "SELECT pg_notify($1, h.head || ' ' || h.space) FROM unnest($2::text[], $3::text[]) AS h(space, head)";
    let notify = client.prepare(sql).await?;
    loop {
        heads.changed.notified().await;
        tokio::time::sleep(GATHER).await;
        let untold = std::mem::take(&mut *heads.untold.lock().unwrap_or_else(PoisonError::into_inner));
        let (spaces, numbers): (Vec<String>, Vec<String>) =
            untold.iter().map(|(space, head)| (space.to_string(), head.to_string())).unzip();
        client.execute(&notify, &[&channel, &spaces, &numbers]).await?;
    }
}

async fn listen(address: Arc<Address>, feed: Arc<Feed>, channel: String) {
    loop {
        if let Err(error) = listen_until_lost(&address, &feed, &channel).await {
            tracing::warn!(%error, "nobody is woken by other processes; heads are looked up every second");
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn listen_until_lost(address: &Address, feed: &Feed, channel: &str) -> Result<(), StoreError> {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let client = address.connect_listening(sender).await?;
    client.batch_execute(&format!("LISTEN \"{channel}\"")).await?;
    while let Some(message) = messages.recv().await {
        let AsyncMessage::Notification(told) = message else { continue };
        let Some((head, space)) = told.payload().split_once(' ') else { continue };
        if let (Ok(head), Ok(space)) = (head.parse(), SpaceId::new(space)) {
            feed.reach(&space, Seq(head));
        }
    }
    Err(StoreError::Lost("the connection that listens has ended".into()))
}

async fn poll(pool: Pool, feed: Arc<Feed>) {
    loop {
        tokio::time::sleep(POLL).await;
        let spaces: Vec<String> = feed.awaited().iter().map(ToString::to_string).collect();
        if spaces.is_empty() {
            continue;
        }
        if let Err(error) = look_up(&pool, &spaces, &feed).await {
            tracing::debug!(%error, "heads cannot be looked up now");
        }
    }
}

async fn look_up(pool: &Pool, spaces: &[String], feed: &Feed) -> Result<(), StoreError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached("SELECT space, head FROM spaces WHERE space = ANY($1)").await?;
    for row in &client.query(&statement, &[&spaces]).await? {
        feed.reach(&id(row, 0, SpaceId::new)?, Seq(count(row, 1)?));
    }
    Ok(())
}
