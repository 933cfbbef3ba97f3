//! The log, followed entry by entry as any device may read it: the conditions hold after each.

use super::conditions::{Condition, Rows, judge};
use crate::world::server::ServerParty;
use anyhow::{Context, Result, bail, ensure};
use gbsync_core::wire::{LogChange, LogEntry, LogPage, LogState, parse_log_part};
use rusqlite::Connection;
use tokio::runtime::Runtime;

/// The state that the entries so far leave.
pub struct Log {
    state: Connection,
    head: u64,
    /// What each entry changed, for a look.
    pub entries: Vec<Vec<LogChange>>,
}

impl Log {
    /// Before the first entry.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn new() -> Result<Self> {
        Ok(Self { state: empty_state()?, head: 0, entries: Vec::new() })
    }

    /// Reads on to the head, and judges the state after each entry. Answers how many there were.
    ///
    /// # Errors
    /// The condition that an entry breaks.
    pub fn follow(&mut self, server: &ServerParty, runtime: &Runtime, conditions: &[Condition]) -> Result<u64> {
        let before = self.head;
        loop {
            let path = format!("/v1/spaces/shop/log?after={}", self.head);
            let Some(body) = ask(server, runtime, &path)? else { break };
            let page = LogPage::parse(&body)?;
            for entry in &page.entries {
                ensure!(entry.seq.0 == self.head + 1, "P8: the log jumps from {} to {}", self.head, entry.seq);
                let Some(changes) = changes_of(entry, server, runtime)? else { return Ok(self.head - before) };
                for change in &changes {
                    apply(&self.state, change)?;
                }
                self.entries.push(changes);
                self.head += 1;
                judge(&self.state, Rows::Payloads("state"), conditions)
                    .with_context(|| format!("after entry {} of the log", self.head))?;
            }
            if page.next == page.head {
                break;
            }
        }
        Ok(self.head - before)
    }
}

/// A state without records.
///
/// # Errors
/// What SQLite says.
pub fn empty_state() -> Result<Connection> {
    let state = Connection::open_in_memory()?;
    state.execute_batch("CREATE TABLE state(entity TEXT, id TEXT, payload TEXT, PRIMARY KEY (entity, id))")?;
    Ok(state)
}

/// A record as an entry leaves it.
///
/// # Errors
/// What SQLite says.
pub fn apply(state: &Connection, change: &LogChange) -> Result<()> {
    let payload = match &change.state {
        LogState::Live(payload) => Some(payload),
        LogState::Deleted | LogState::Left => None,
    };
    let sql = "INSERT INTO state VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET payload = excluded.payload";
    state.prepare_cached(sql)?.execute((change.key.entity.as_str(), change.key.id.as_str(), payload))?;
    Ok(())
}

/// `None` while the server cannot answer, because its power is about to fail.
fn ask(server: &ServerParty, runtime: &Runtime, path: &str) -> Result<Option<Vec<u8>>> {
    let answer = server.answer(runtime, "GET", path, &server.tokens[0].device, None)?;
    let Some(answer) = answer else { return Ok(None) };
    match answer.status {
        200 => Ok(Some(answer.body)),
        503 => Ok(None),
        status => bail!("the log is answered with {status}"),
    }
}

fn changes_of(entry: &LogEntry, server: &ServerParty, runtime: &Runtime) -> Result<Option<Vec<LogChange>>> {
    let Some(group) = &entry.group else { return Ok(Some(Vec::new())) };
    let Some(parts) = group.in_parts else { return Ok(Some(group.changes.clone())) };
    let mut changes = Vec::new();
    for part in 0..parts.parts {
        let path = format!("/v1/spaces/shop/log/{}/parts/{part}", entry.seq);
        let Some(body) = ask(server, runtime, &path)? else { return Ok(None) };
        changes.extend(parse_log_part(&body)?);
    }
    ensure!(changes.len() as u64 == parts.change_count, "P1: parts of entry {} are missing", entry.seq);
    Ok(Some(changes))
}
