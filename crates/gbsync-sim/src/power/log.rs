//! The log of a server's file, entry by entry: what every record is after each, deleted ones too.

use anyhow::{Context, Result, bail, ensure};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, RecordKey, Seq};
use gbsync_core::wire::{LogPage, LogState, page_json, parse_log_part};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where each record was last changed, and its payload; `None` where it is deleted.
pub(super) type Records = BTreeMap<RecordKey, (Seq, Option<Arc<str>>)>;

/// The records before the log and after each of its entries.
#[derive(Default)]
pub struct History(Vec<Records>);

impl History {
    /// That of the server of a folder.
    ///
    /// # Errors
    /// When its log is none.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let db = Connection::open(folder.join("gbsync.db"))?;
        let mut states = vec![Records::new()];
        replay(&db, |records| states.push(records.clone()))?;
        Ok(Self(states))
    }

    /// P2: a device's base is the log up to its cursor, each group of it entirely, and nothing else.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn is_base(&self, db: &Connection) -> Result<()> {
        let cursor: usize = db.query_row("SELECT cursor FROM gbsync_state", [], |row| row.get(0))?;
        let Some(records) = self.0.get(cursor) else {
            bail!("P2: the cursor is at {cursor} of a log that ends at {}", self.0.len() - 1)
        };
        let base = "SELECT entity, id, version, payload FROM gbsync_base";
        same(db, base, records).with_context(|| format!("P2: the base at cursor {cursor} is not the log up to there"))
    }
}

/// Reads the log from its beginning: without gaps, and chained. Gives `after` the records after each entry, and answers the end.
pub(super) fn replay(db: &Connection, mut after: impl FnMut(&Records)) -> Result<(Seq, Records)> {
    let mut statement = db.prepare("SELECT entry, chain, place FROM log ORDER BY place")?;
    let entries =
        statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, i64>(2)?)))?;
    let mut records = Records::new();
    let (mut seq, mut chain) = (Seq(0), Digest::ZERO);
    for entry in entries {
        let (entry, stored, place) = entry?;
        seq = seq.next();
        let page = page_json([entry.as_str()], seq, Digest::ZERO, seq);
        let page = LogPage::parse(page.as_bytes()).context("P1: an entry of the log cannot be read")?;
        let read = page.entries.into_iter().next().context("an entry is on its page")?;
        ensure!(read.seq == seq, "P8: the log jumps from {} to {}", seq.0 - 1, read.seq);
        let group = read.group.context("every entry of this run is a group")?;
        let changes = match group.in_parts {
            None => entry.find(",\"changes\":").map(|place| entry[place + 11..entry.len() - 1].to_owned()),
            Some(_) => Some(joined(db, place)?),
        };
        let changes = changes.context("an entry has changes or parts")?;
        chain = chain.chained(seq, &GroupId::new(group.id.as_str())?, &changes);
        ensure!(chain.as_bytes().as_slice() == stored, "the chain breaks at {seq}");
        let in_parts = if group.in_parts.is_some() { parse_log_part(changes.as_bytes())? } else { Vec::new() };
        for change in group.changes.into_iter().chain(in_parts) {
            let payload = if let LogState::Live(payload) = change.state { Some(Arc::from(payload)) } else { None };
            records.insert(change.key, (change.version, payload));
        }
        after(&records);
    }
    Ok((seq, records))
}

/// Whether rows of entity, id, version and payload are exactly these records.
pub(super) fn same(db: &Connection, sql: &str, records: &Records) -> Result<()> {
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?, row.get::<_, Option<Arc<str>>>(3)?))
    })?;
    let mut count = 0;
    for row in rows {
        let (entity, id, version, payload) = row?;
        let key = RecordKey::new(&entity, &id)?;
        let stored = (Seq(version), payload);
        let should_be = records.get(&key);
        ensure!(should_be == Some(&stored), "{key} is {stored:?} and should be {should_be:?}");
        count += 1;
    }
    ensure!(count == records.len(), "there are {count} records of {}, deleted ones too", records.len());
    Ok(())
}

/// The changes of an entry that is stored in parts, as one array.
fn joined(db: &Connection, place: i64) -> Result<String> {
    let mut statement = db.prepare("SELECT body FROM log_parts WHERE place = ?1 ORDER BY part")?;
    let parts = statement.query_map([place], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let inner: Vec<&str> = parts.iter().map(|part| part.trim_start_matches('[').trim_end_matches(']')).collect();
    Ok(format!("[{}]", inner.join(",")))
}
