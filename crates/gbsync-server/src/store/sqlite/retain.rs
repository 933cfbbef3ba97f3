//! Taking entries out of logs, on a connection of its own beside the writer: each transaction is as short as a push's.

use super::open;
use super::row::{count, digest, id, place, seq_at, space as space_row, stored};
use crate::store::{KeptEntry, Retainer, SpaceState, StoreError};
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

/// Takes entries out of the logs of a file.
pub(crate) struct SqliteRetainer {
    connection: Connection,
    /// Held for as long as it works.
    _lock: File,
}

impl SqliteRetainer {
    /// Opens the store of a folder; `None` while another process is at it.
    pub(crate) fn open(data: &Path, busy_timeout: Duration) -> Result<Option<Self>, StoreError> {
        let path = open::file(data);
        let connection = open::prepare(&path, busy_timeout)?;
        let lock = File::options().create(true).truncate(false).write(true).open(data.join("retention.lock"));
        let lock = lock.map_err(StoreError::Archive)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { connection, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::Archive(error)),
        }
    }

    fn space_no(&self, space: &SpaceId) -> Result<i64, StoreError> {
        let row = space_row(&self.connection, space)?;
        row.map(|(space_no, _)| space_no).ok_or_else(|| StoreError::Damaged("a space vanished".into()))
    }

    fn write<T>(&mut self, write: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = write(&transaction)?;
        gbsync_wal::commit(transaction)?;
        Ok(answer)
    }
}

impl Retainer for SqliteRetainer {
    fn spaces(&mut self) -> Result<BTreeSet<SpaceId>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT space FROM spaces")?;
        let mut rows = statement.query([])?;
        let mut spaces = BTreeSet::new();
        while let Some(row) = rows.next()? {
            spaces.insert(id(row, 0, SpaceId::new)?);
        }
        Ok(spaces)
    }

    fn state(&mut self, space: &SpaceId) -> Result<Option<SpaceState>, StoreError> {
        Ok(space_row(&self.connection, space)?.map(|(_, state)| state))
    }

    fn entries(&mut self, space: &SpaceId, after: Seq, bytes: u64) -> Result<Vec<KeptEntry>, StoreError> {
        let space_no = self.space_no(space)?;
        let mut statement = self
            .connection
            .prepare_cached("SELECT place, chain, entry, parts FROM log WHERE place > ?1 AND place < ?2 ORDER BY place")?;
        let mut rows = statement.query([place(space_no, after)?, place(space_no + 1, Seq(0))?])?;
        let (mut entries, mut sum) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let entry: String = row.get(2)?;
            sum += entry.len() as u64;
            if sum > bytes && !entries.is_empty() {
                break;
            }
            entries.push(KeptEntry { seq: seq_at(row.get(0)?), chain: digest(row, 1)?, entry, parts: count(row, 3)? });
        }
        Ok(entries)
    }

    fn part(&mut self, space: &SpaceId, seq: Seq, part: u64) -> Result<String, StoreError> {
        let space_no = self.space_no(space)?;
        let mut statement = self.connection.prepare_cached("SELECT body FROM log_parts WHERE place = ?1 AND part = ?2")?;
        let body = statement.query_row([place(space_no, seq)?, stored(part)], |row| row.get(0)).optional()?;
        body.ok_or_else(|| StoreError::Damaged(format!("entry {seq} of the log has no part {part}")))
    }

    fn forget(&mut self, space: &SpaceId, log: &LogId, from: Seq, to: Seq) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let Some((space_no, state)) = space_row(transaction, space)? else { return Ok(false) };
            if state.log != *log || state.horizon != from || to > state.head || to <= from {
                return Ok(false);
            }
            let chain = transaction.query_row("SELECT chain FROM log WHERE place = ?1", [place(space_no, to)?], |row| {
                row.get::<_, Vec<u8>>(0)
            })?;
            let range = [place(space_no, from)?, place(space_no, to)?];
            transaction.prepare_cached("DELETE FROM log_parts WHERE place > ?1 AND place <= ?2")?.execute(range)?;
            transaction.prepare_cached("DELETE FROM log WHERE place > ?1 AND place <= ?2")?.execute(range)?;
            transaction
                .prepare_cached("UPDATE spaces SET horizon = ?2, horizon_chain = ?3 WHERE space_no = ?1")?
                .execute(params![space_no, stored(to.0), chain])?;
            Ok(true)
        })
    }

    fn bury(&mut self, space: &SpaceId, most: u64) -> Result<u64, StoreError> {
        self.write(|transaction| {
            let Some((space_no, state)) = space_row(transaction, space)? else { return Ok(0) };
            let up_to = if is(Mutant::TombstoneRemovedTooEarly) { state.head } else { state.horizon };
            let sql = "DELETE FROM records WHERE (space_no, entity, id) IN
                         (SELECT space_no, entity, id FROM records WHERE space_no = ?1 AND payload IS NULL AND version <= ?2 LIMIT ?3)";
            let buried = transaction.prepare_cached(sql)?.execute([space_no, stored(up_to.0), stored(most)])?;
            Ok(buried as u64)
        })
    }
}
