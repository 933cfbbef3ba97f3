//! `gbsync_download`: entries of the log that no page holds, while their parts are fetched.
//!
//! Invariant (P2): nothing reads these tables but the transaction that applies a whole entry.

use crate::error::{Error, damaged};
use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::wire::{LogChange, LogEntry, LogPage, LogParts, parse_log_part};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Makes room for the entries in parts of a page. What was fetched of the same entries stays; all else goes: it belongs to
/// another log, or to a page that was applied.
pub(crate) fn begin(connection: &Connection, page: &LogPage, log: &LogId) -> Result<(), Error> {
    let mut statement = connection.prepare_cached("SELECT seq FROM gbsync_download")?;
    let kept: Vec<u64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for seq in kept.into_iter().filter(|seq| in_parts(page).all(|(entry, _)| entry.seq.0 != *seq)) {
        forget(connection, seq)?;
    }
    for (entry, parts) in in_parts(page) {
        let Some(group) = &entry.group else { continue };
        let chain = chain_of(page, entry.seq).map(|chain| chain.to_string()).unwrap_or_default();
        let values = params![entry.seq.0, log.as_str(), group.id.as_str(), chain, parts.parts];
        let sql = "SELECT EXISTS (SELECT 1 FROM gbsync_download
                    WHERE seq = ?1 AND NOT (log = ?2 AND group_id = ?3 AND chain = ?4 AND parts = ?5))";
        if connection.query_row(sql, values, |row| row.get(0))? {
            forget(connection, entry.seq.0)?;
        }
        let sql = "INSERT OR IGNORE INTO gbsync_download(seq, log, group_id, chain, parts) VALUES (?1, ?2, ?3, ?4, ?5)";
        connection.execute(sql, values)?;
    }
    Ok(())
}

/// The entries of a page whose changes are to be fetched.
pub(crate) fn in_parts(page: &LogPage) -> impl Iterator<Item = (&LogEntry, LogParts)> {
    page.entries.iter().filter_map(|entry| Some((entry, entry.group.as_ref()?.in_parts?)))
}

/// The chain after an entry, where the page says it.
fn chain_of(page: &LogPage, seq: Seq) -> Option<Digest> {
    (page.next == seq).then_some(page.chain)
}

/// The first part of an entry that is not here yet.
pub(crate) fn first_missing(connection: &Connection, seq: Seq, parts: u64) -> Result<Option<u64>, Error> {
    let sql = "SELECT coalesce(max(part) + 1, 0) FROM gbsync_download_part WHERE seq = ?1";
    let next: u64 = connection.prepare_cached(sql)?.query_row([seq.0], |row| row.get(0))?;
    Ok((next < parts).then_some(next))
}

/// Keeps a part, as it came. Parts come in order.
pub(crate) fn keep(connection: &Connection, seq: Seq, part: u64, changes: u64, body: &str) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO gbsync_download_part(seq, part, changes, body) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![seq.0, part, changes, body])?;
    Ok(())
}

/// Whether the parts have as many changes as the entry says. What does not fit is thrown away, to be fetched anew.
pub(crate) fn fits(connection: &Connection, seq: Seq, parts: LogParts) -> Result<bool, Error> {
    let sql = "SELECT coalesce(sum(changes), 0) FROM gbsync_download_part WHERE seq = ?1";
    let changes: u64 = connection.query_row(sql, [seq.0], |row| row.get(0))?;
    if changes != parts.change_count {
        forget(connection, seq.0)?;
    }
    Ok(changes == parts.change_count)
}

/// Hands the changes of an entry to `take`, one part at a time.
pub(crate) fn each_part(
    connection: &Connection,
    seq: Seq,
    parts: LogParts,
    mut take: impl FnMut(&[LogChange]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached("SELECT body FROM gbsync_download_part WHERE seq = ?1 AND part = ?2")?;
    for part in 0..parts.parts {
        let body: Option<String> = statement.query_row(params![seq.0, part], |row| row.get(0)).optional()?;
        let body = body.ok_or_else(|| damaged("gbsync_download_part", format!("part {part} of {seq} is missing")))?;
        take(&parse_log_part(body.as_bytes()).map_err(|error| damaged("gbsync_download_part", error))?)?;
    }
    Ok(())
}

/// Removes what was fetched: its page is applied, or the log is read anew.
pub(crate) fn clear(connection: &Connection) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM gbsync_download_part")?.execute([])?;
    connection.prepare_cached("DELETE FROM gbsync_download")?.execute([])?;
    Ok(())
}

fn forget(connection: &Connection, seq: u64) -> Result<(), Error> {
    connection.execute("DELETE FROM gbsync_download_part WHERE seq = ?1", [seq])?;
    connection.execute("DELETE FROM gbsync_download WHERE seq = ?1", [seq])?;
    Ok(())
}
