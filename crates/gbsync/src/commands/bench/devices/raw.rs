//! What plain SQLite takes: for the records of pushes alone, and for all rows that the server writes for them.

use crate::commands::bench::pushes::{AT, Batch, SPACES, Written, space_id};
use crate::commands::bench::rows::RECORDS;
use crate::config::server_failure;
use anyhow::{Context, Result};
use gbsync_server::{NewToken, Tokens};
use rusqlite::{Connection, Transaction, params};
use std::path::Path;
use std::time::{Duration, Instant};

const RECORDS_ALONE: &str = "CREATE TABLE raw (
  space INTEGER NOT NULL, entity TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY (space, entity, id)
) STRICT, WITHOUT ROWID";

/// How long plain SQLite takes for the records of all batches, in durable transactions of so many batches.
pub(super) fn insert(folder: &Path, batches: &[Vec<Batch>], together: usize) -> Result<Duration> {
    let mut connection = open(&folder.join("raw.db"))?;
    connection.execute_batch(RECORDS_ALONE)?;
    let sql = "INSERT INTO raw (space, entity, id, payload, version) VALUES (?1, ?2, ?3, ?4, 1)";
    each(&mut connection, batches, together, |tx, _, batch| {
        let mut insert = tx.prepare_cached(sql)?;
        for row in batch.sales.iter().flat_map(|sale| &sale.rows) {
            insert.execute(params![batch.space, row.entity, row.id, row.payload])?;
        }
        Ok(())
    })
}

/// How long plain SQLite takes for all rows that the server writes for the batches, in its tables with their indexes.
pub(super) fn insert_all(folder: &Path, batches: &[Vec<Batch>], together: usize) -> Result<Duration> {
    let table = Tokens::open(folder).map_err(|error| server_failure(&error))?;
    for space in 0..SPACES {
        table.create(NewToken::new(space_id(space))).map_err(|error| server_failure(&error))?;
    }
    drop(table);
    let mut connection = open(&folder.join("gbsync.db"))?;
    let space_nos: Vec<i64> = connection
        .prepare("SELECT space_no FROM spaces ORDER BY space")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut heads = vec![0_i64; space_nos.len()];
    each(&mut connection, batches, together, |tx, device, batch| {
        let at = usize::try_from(batch.space)?;
        write(tx, (space_nos[at], &mut heads[at]), device, batch)
    })
}

fn write(tx: &Transaction<'_>, (space_no, head): (i64, &mut i64), device: i64, batch: &Batch) -> Result<()> {
    let mut record = tx.prepare_cached(
        "INSERT INTO records (space_no, entity, id, version, edit_version, payload) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
    )?;
    let mut log =
        tx.prepare_cached("INSERT INTO log (place, change_count, chain, entry, parts) VALUES (?1, ?2, ?3, ?4, 0)")?;
    let mut verdict = tx.prepare_cached(
        "INSERT INTO groups (space_no, group_id, digest, seq, epoch_no, device_seq, decided_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut number =
        tx.prepare_cached("INSERT INTO numbers (space_no, epoch_no, device_seq, group_id) VALUES (?1, ?2, ?3, ?4)")?;
    let mut device_seq = i64::try_from(batch.before)?;
    for sale in &batch.sales {
        (*head, device_seq) = (*head + 1, device_seq + 1);
        let Written { id, digest, entry, .. } = Written::new(sale, *head, device_seq);
        for row in &sale.rows {
            record.execute(params![space_no, row.entity, row.id, *head, row.payload])?;
        }
        // As the server keys it: the space above the forty bits of the place.
        log.execute(params![space_no << 40 | *head, RECORDS, digest, entry])?;
        verdict.execute(params![space_no, id, digest, *head, device, device_seq, AT])?;
        number.execute(params![space_no, device, device_seq, id])?;
    }
    tx.prepare_cached(
        "INSERT INTO devices (space_no, device, epoch, epoch_no, highest_seq, first_seen) VALUES (?1, ?2, 'e1', ?3, ?4, ?5)
         ON CONFLICT (space_no, device, epoch) DO UPDATE SET highest_seq = excluded.highest_seq, pushed_at = ?5",
    )?
    .execute(params![space_no, format!("till-{device}"), device, device_seq, AT])?;
    tx.prepare_cached("UPDATE spaces SET head = ?2, chain = zeroblob(32) WHERE space_no = ?1")?
        .execute(params![space_no, *head])?;
    Ok(())
}

fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Hands out the batches of the devices in turns, in durable transactions of `together`, and says how long all took.
fn each(
    connection: &mut Connection,
    batches: &[Vec<Batch>],
    together: usize,
    mut write: impl FnMut(&Transaction<'_>, i64, &Batch) -> Result<()>,
) -> Result<Duration> {
    let rounds = batches.iter().map(Vec::len).max().unwrap_or(0);
    let turns = |round| (1..).zip(batches).filter_map(move |(device, batches)| Some((device, batches.get(round)?)));
    let all: Vec<(i64, &Batch)> = (0..rounds).flat_map(turns).collect();
    let started = Instant::now();
    for chunk in all.chunks(together.max(1)) {
        let tx = connection.transaction()?;
        for (device, batch) in chunk {
            write(&tx, *device, batch)?;
        }
        tx.commit()?;
    }
    Ok(started.elapsed())
}
