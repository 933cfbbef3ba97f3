//! The queue that `gbsync` replaces, written as well as such a queue can be.
//!
//! It is keyed by record: one item a record, a later edit overwrites the earlier one and keeps its place. Batches close by
//! count. Each item is pushed as a change of its own, and each record of the log is applied on its own. It does right what
//! such queues often do wrong: local writes and queue items are one transaction, an attempt keeps its id so that a lost
//! answer makes no duplicate, a version conflict is answered by sending the latest state on the server's version, nothing is
//! ever dropped, and it ends with the same rows everywhere. What it cannot do is keep an operation together on the way.
//!
//! It talks to the same server through the same transport as `gbsync`.

use super::check::Observer;
use super::measure::{Receiver, Sender};
use anyhow::{Context, Result, anyhow, bail};
use gbsync_client::{HttpTransport, Method, Request, Transport};
use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{BatchId, DeviceId, DeviceSeq, EpochId, GroupId, RecordKey, Seq, SpaceId};
use gbsync_core::lay::lay;
use gbsync_core::limits::Limits;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Rejection, Verdict};
use gbsync_core::wire::{LogPage, LogState, OperationLine, PushAnswer, group_json, parse_answer, push_json};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::Path;

/// The relation that holds a device's rows.
pub(super) const ROWS: &str = "records";

const TIMEOUT_MS: u64 = 10_000;
const PAGE_RECORDS: u64 = 1_000;

const TABLES: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE records (entity TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, PRIMARY KEY (entity, id)) WITHOUT ROWID;
-- payload NULL: the record is to be deleted. attempt is the number of the change that stands for this item on the wire.
CREATE TABLE queue (
  place INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL UNIQUE, entity TEXT NOT NULL, id TEXT NOT NULL, payload TEXT,
  attempt INTEGER NOT NULL
);
CREATE TABLE versions (item TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE progress (attempt INTEGER NOT NULL, cursor INTEGER NOT NULL);
INSERT INTO progress VALUES (0, 0);
";

/// How a device reaches the server.
pub(super) struct Link {
    transport: HttpTransport,
    space: SpaceId,
}

impl Link {
    /// A link to one space.
    pub(super) fn new(transport: HttpTransport, space: &SpaceId) -> Self {
        Self { transport, space: space.clone() }
    }

    /// The body of a successful answer; `None` when the connection broke.
    async fn exchange(&self, method: Method, path: &str, body: Option<String>) -> Result<Option<Vec<u8>>> {
        let path = format!("/v1/spaces/{}{path}", self.space);
        let request = Request { method, path, body: body.map(String::into_bytes), timeout_ms: TIMEOUT_MS, token: None };
        match self.transport.send(request).await {
            Err(_) => Ok(None),
            Ok(response) if response.status == 200 => Ok(Some(response.body)),
            Ok(response) if response.status == 503 => Ok(None),
            Ok(response) => bail!("the server answered {}: {}", response.status, String::from_utf8_lossy(&response.body)),
        }
    }
}

/// The device that writes and pushes.
pub(super) struct NaiveSender {
    connection: Connection,
    link: Link,
    batch_records: u64,
}

/// One item of the queue.
struct Item {
    key: RecordKey,
    payload: Option<Payload>,
    attempt: u64,
    version: u64,
}

impl NaiveSender {
    /// A new device at `path`.
    pub(super) fn create(path: &Path, link: Link, batch_records: u64) -> Result<Self> {
        Ok(Self { connection: create(path)?, link, batch_records })
    }

    /// The first items of the queue.
    fn batch(&self) -> Result<Vec<Item>> {
        let sql = "SELECT entity, id, payload, attempt, coalesce(version, 0) FROM queue LEFT JOIN versions USING (item)
                    ORDER BY place LIMIT ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([self.batch_records])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let key = RecordKey::new(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?)?;
            let payload: Option<String> = row.get(2)?;
            let payload = payload.map(Payload::from_stored);
            items.push(Item { key, payload, attempt: row.get(3)?, version: row.get(4)? });
        }
        Ok(items)
    }

    /// Takes the answer to each item, in one transaction.
    fn take(&mut self, items: &[Item], answer: &PushAnswer) -> Result<()> {
        let tx = self.connection.transaction()?;
        for (item, result) in items.iter().zip(&answer.results) {
            match &result.verdict {
                Verdict::Accepted { seq, .. } => {
                    set_version(&tx, &item.key, Some(*seq))?;
                    done(&tx, item)?;
                }
                Verdict::Rejected { rejection, .. } => answer_conflict(&tx, item, rejection)?,
                other => bail!("the server answered {other:?} to a single change"),
            }
        }
        tx.commit()?;
        Ok(())
    }
}

impl Sender for NaiveSender {
    fn save(&mut self, operation: &OperationLine) -> Result<()> {
        let tx = self.connection.transaction()?;
        for (key, edit) in &operation.edits {
            write(&tx, key, edit)?;
        }
        Ok(tx.commit()?)
    }

    async fn send(&mut self) -> Result<bool> {
        loop {
            let items = self.batch()?;
            if items.is_empty() {
                return Ok(true);
            }
            let groups = items.iter().map(|item| Ok(group_json(&group(item)?))).collect::<Result<Vec<_>>>()?;
            let (device, epoch) = (DeviceId::new("device-a")?, EpochId::new("epoch-1")?);
            let batch = BatchId::new(format!("batch-{}", items[0].attempt))?;
            let body = push_json(&device, &epoch, &batch, groups.iter().map(String::as_str));
            let Some(answer) = self.link.exchange(Method::Post, "/push", Some(body)).await? else { return Ok(false) };
            self.take(&items, &parse_answer(&answer)?)?;
        }
    }
}

/// The change that stands for an item: a group of one. The same attempt is the same bytes.
fn group(item: &Item) -> Result<Group> {
    let edit = item.payload.clone().map_or(Edit::Delete, Edit::Upsert);
    let base = Base { version: Seq(item.version), group: None };
    let header = Header {
        id: GroupId::mint_single(&item.key, &format!("attempt-{}", item.attempt)),
        group_type: None,
        device_seq: DeviceSeq(item.attempt),
        actor: None,
        created_at: Timestamp::from_unix_ms(0),
        schema_version: 0,
        depends_on: Vec::new(),
        replaces: None,
        family: None,
        log: None,
        hlc: None,
        clears: Vec::new(),
    };
    Ok(Group::seal(header, vec![Change::new(item.key.clone(), edit, base)?], &Limits::default())?)
}

/// Writes one record and its item: a new one at the end of the queue, or a new state of one that waits.
fn write(tx: &Transaction<'_>, key: &RecordKey, edit: &Edit) -> Result<()> {
    let (entity, id) = (key.entity.as_str(), key.id.as_str());
    let mut statement = tx.prepare_cached("SELECT payload FROM records WHERE entity = ?1 AND id = ?2")?;
    let before: Option<String> = statement.query_row([entity, id], |row| row.get(0)).optional()?;
    let after = lay(edit, before.map(Payload::from_stored).as_ref(), None).with_context(|| format!("writing {key}"))?;
    store(tx, key, after.as_ref().map(Payload::as_str))?;
    let sql = "INSERT INTO queue(item, entity, id, payload, attempt) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (item) DO UPDATE SET payload = excluded.payload, attempt = excluded.attempt";
    let attempt = next_attempt(tx)?;
    tx.prepare_cached(sql)?.execute(params![key.to_string(), entity, id, after.as_ref().map(Payload::as_str), attempt])?;
    Ok(())
}

/// Sends the item again on the version that the server has, or is done with a delete of what is not there.
fn answer_conflict(tx: &Transaction<'_>, item: &Item, rejection: &Rejection) -> Result<()> {
    let change = rejection.changes.first().ok_or_else(|| anyhow!("{}: {}", item.key, rejection.message))?;
    let current = change.current.as_ref();
    set_version(tx, &item.key, current.map(|current| current.version))?;
    if item.payload.is_none() && current.is_none_or(|current| current.payload.is_none()) {
        return done(tx, item);
    }
    let attempt = next_attempt(tx)?;
    let sql = "UPDATE queue SET attempt = ?1 WHERE item = ?2 AND attempt = ?3";
    tx.prepare_cached(sql)?.execute(params![attempt, item.key.to_string(), item.attempt])?;
    Ok(())
}

fn done(tx: &Transaction<'_>, item: &Item) -> Result<()> {
    let sql = "DELETE FROM queue WHERE item = ?1 AND attempt = ?2";
    tx.prepare_cached(sql)?.execute(params![item.key.to_string(), item.attempt])?;
    Ok(())
}

fn next_attempt(tx: &Transaction<'_>) -> Result<u64> {
    let sql = "UPDATE progress SET attempt = attempt + 1 RETURNING attempt";
    Ok(tx.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

fn set_version(tx: &Transaction<'_>, key: &RecordKey, version: Option<Seq>) -> Result<()> {
    let sql = "INSERT INTO versions(item, version) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET version = ?2";
    tx.prepare_cached(sql)?.execute(params![key.to_string(), version.map_or(0, |version| version.0)])?;
    Ok(())
}

fn store(connection: &Connection, key: &RecordKey, payload: Option<&str>) -> Result<()> {
    let (entity, id) = (key.entity.as_str(), key.id.as_str());
    let upsert = "INSERT INTO records(entity, id, payload) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET payload = ?3";
    match payload {
        Some(payload) => connection.prepare_cached(upsert)?.execute([entity, id, payload])?,
        None => connection.prepare_cached("DELETE FROM records WHERE entity = ?1 AND id = ?2")?.execute([entity, id])?,
    };
    Ok(())
}

fn create(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(TABLES)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// The device that pulls.
pub(super) struct NaiveReceiver {
    connection: Connection,
    link: Link,
}

impl NaiveReceiver {
    /// A new device at `path`.
    pub(super) fn create(path: &Path, link: Link) -> Result<Self> {
        Ok(Self { connection: create(path)?, link })
    }
}

impl Receiver for NaiveReceiver {
    async fn receive(&mut self, observer: &Observer) -> Result<bool> {
        let cursor: u64 = self.connection.query_row("SELECT cursor FROM progress", [], |row| row.get(0))?;
        let path = format!("/log?after={cursor}&maxRecords={PAGE_RECORDS}");
        let Some(page) = self.link.exchange(Method::Get, &path, None).await? else { return Ok(false) };
        let page = LogPage::parse(&page)?;
        for change in page.entries.iter().filter_map(|entry| entry.group.as_ref()).flat_map(|group| &group.changes) {
            let payload = match &change.state {
                LogState::Live(payload) => Some(&**payload),
                LogState::Deleted | LogState::Left => None,
            };
            store(&self.connection, &change.key, payload)?;
            observer.observe();
        }
        self.connection.execute("UPDATE progress SET cursor = ?1", [page.next.0])?;
        Ok(page.next == page.head)
    }
}
