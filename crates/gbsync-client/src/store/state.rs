//! `gbsync_state` and `gbsync_meta`: where this device stands.

use super::lost;
use crate::error::{Error, damaged};
use gbsync_core::digest::Digest;
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, InvalidId, LogId, Seq, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::LogPlace;
use rusqlite::{Connection, OptionalExtension as _, params};

/// What a new file is filled with.
pub(crate) struct NewDevice<'a> {
    pub(crate) server: &'a str,
    pub(crate) space: &'a SpaceId,
    pub(crate) device: &'a DeviceId,
    pub(crate) epoch: &'a EpochId,
}

/// Where this device stands.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) server: String,
    pub(crate) space: SpaceId,
    pub(crate) device: DeviceId,
    pub(crate) epoch: EpochId,
    pub(crate) previous_epoch: Option<(EpochId, DeviceSeq)>,
    pub(crate) wants_new_epoch: bool,
    pub(crate) wanted_epoch: Option<EpochId>,
    pub(crate) log: Option<LogId>,
    pub(crate) chain: Option<Digest>,
    pub(crate) cursor: Seq,
    /// What the server calls the part of the space that base and cursor are of.
    pub(crate) scope_set: Option<String>,
    pub(crate) head: Option<Seq>,
    pub(crate) generation: u64,
    pub(crate) rebase: Option<Rebase>,
    pub(crate) failures: u32,
    pub(crate) next_attempt_at: Option<u64>,
    pub(crate) error: Option<LastError>,
    pub(crate) is_stopped: bool,
    pub(crate) limits: Limits,
}

impl State {
    /// Where this device stands, as the server can check it.
    pub(crate) fn place(&self) -> Option<LogPlace> {
        let chain = self.chain.or((self.cursor == Seq(0)).then_some(Digest::ZERO))?;
        Some(LogPlace { log: self.log.clone()?, seq: self.cursor, chain })
    }
}

/// How far the log was read anew.
#[derive(Debug, Clone)]
pub(crate) struct Rebase {
    pub(crate) log: Option<LogId>,
    pub(crate) chain: Option<Digest>,
    pub(crate) cursor: Seq,
    pub(crate) scope_set: Option<String>,
}

/// The last thing that went wrong while syncing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Its stable code.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

pub(crate) fn insert(connection: &Connection, new: &NewDevice<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO gbsync_state(one, server, space, device, epoch) VALUES (1, ?1, ?2, ?3, ?4)";
    connection.execute(sql, [new.server, new.space.as_str(), new.device.as_str(), new.epoch.as_str()])?;
    Ok(())
}

pub(crate) fn read(connection: &Connection) -> Result<State, Error> {
    let mut statement = connection.prepare_cached("SELECT * FROM gbsync_state")?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or_else(|| damaged("gbsync_state", "it has no row"))?;
    let chain = |column: &str| -> Result<Option<Digest>, Error> {
        let text: Option<String> = row.get(column)?;
        text.map(|text| Digest::from_hex(&text).ok_or_else(|| damaged("gbsync_state", "a chain is no digest"))).transpose()
    };
    let log = |column: &str| -> Result<Option<LogId>, Error> { optional(row.get(column)?, |text| LogId::new(text)) };
    let previous_epoch = optional(row.get("previous_epoch")?, |text| EpochId::new(text))?;
    let (error_code, error_message): (Option<String>, Option<String>) = (row.get("error_code")?, row.get("error_message")?);
    let limits: Option<String> = row.get("limits")?;
    Ok(State {
        server: row.get("server")?,
        space: required(row.get("space")?, |text| SpaceId::new(text))?,
        device: required(row.get("device")?, |text| DeviceId::new(text))?,
        epoch: required(row.get("epoch")?, |text| EpochId::new(text))?,
        previous_epoch: previous_epoch.zip(row.get::<_, Option<u64>>("previous_device_seq")?.map(DeviceSeq)),
        wants_new_epoch: row.get("wants_new_epoch")?,
        wanted_epoch: optional(row.get("wanted_epoch")?, |text| EpochId::new(text))?,
        log: log("log")?,
        chain: chain("chain")?,
        cursor: Seq(row.get("cursor")?),
        scope_set: row.get("scope_set")?,
        head: row.get::<_, Option<u64>>("head")?.map(Seq),
        generation: row.get("generation")?,
        rebase: match row.get("is_rebasing")? {
            true => Some(Rebase {
                log: log("next_log")?,
                chain: chain("next_chain")?,
                cursor: Seq(row.get("next_cursor")?),
                scope_set: row.get("next_scope_set")?,
            }),
            false => None,
        },
        failures: row.get("failures")?,
        next_attempt_at: row.get("next_attempt_at")?,
        error: match (error_code, error_message) {
            (Some(code), Some(message)) => {
                let at: Option<u64> = row.get("error_at")?;
                Some(LastError { code, message, at: Timestamp::from_unix_ms(at.unwrap_or(0)) })
            }
            _ => None,
        },
        is_stopped: row.get("is_stopped")?,
        limits: limits.map_or(Ok(Limits::default()), |text| limits_from_json(&text))?,
    })
}

fn required<T>(text: String, new: impl Fn(&str) -> Result<T, InvalidId>) -> Result<T, Error> {
    new(&text).map_err(|error| damaged("gbsync_state", error))
}

fn optional<T>(text: Option<String>, new: impl Fn(&str) -> Result<T, InvalidId>) -> Result<Option<T>, Error> {
    text.map(|text| required(text, new)).transpose()
}

fn limits_from_json(text: &str) -> Result<Limits, Error> {
    let read: [u64; 6] = serde_json::from_str(text).map_err(|error| damaged("gbsync_state.limits", error))?;
    let [batch_records, batch_bytes, request_bytes, group_records, group_bytes, payload_bytes] = read;
    Ok(Limits { batch_records, batch_bytes, request_bytes, group_records, group_bytes, payload_bytes })
}

/// How often the log was read anew, and how far it is applied.
pub(crate) fn generation_and_cursor(connection: &Connection) -> Result<(u64, Seq), Error> {
    let mut statement = connection.prepare_cached("SELECT generation, cursor FROM gbsync_state")?;
    Ok(statement.query_row([], |row| Ok((row.get(0)?, Seq(row.get(1)?))))?)
}

/// Keeps what a handshake said.
pub(crate) fn set_handshake(
    connection: &Connection,
    log: &LogId,
    head: Seq,
    scope_set: &str,
    limits: &Limits,
) -> Result<(), Error> {
    let Limits { batch_records, batch_bytes, request_bytes, group_records, group_bytes, payload_bytes } = *limits;
    let limits = [batch_records, batch_bytes, request_bytes, group_records, group_bytes, payload_bytes];
    let limits = serde_json::to_string(&limits).expect("numbers are JSON");
    let sql = "UPDATE gbsync_state SET log = coalesce(log, ?1), head = ?2, limits = ?3, scope_set = coalesce(scope_set, ?4),
                      previous_epoch = NULL, previous_device_seq = NULL
                WHERE log IS NULL OR head IS NOT ?2 OR limits IS NOT ?3 OR scope_set IS NULL OR previous_epoch IS NOT NULL";
    connection.prepare_cached(sql)?.execute(params![log.as_str(), head.0, limits, scope_set])?;
    Ok(())
}

/// Keeps where the server's log begins.
pub(crate) fn set_horizon(connection: &Connection, horizon: Seq) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET horizon = ?1 WHERE horizon <> ?1";
    connection.prepare_cached(sql)?.execute([horizon.0])?;
    Ok(())
}

/// Where the server's log begins.
pub(crate) fn horizon(connection: &Connection) -> Result<Seq, Error> {
    let mut statement = connection.prepare_cached("SELECT horizon FROM gbsync_state")?;
    Ok(Seq(statement.query_row([], |row| row.get(0))?))
}

/// Moves the cursor: in the transaction that applies what it passes.
pub(crate) fn set_cursor(connection: &Connection, cursor: Seq, chain: Digest, head: Seq) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET cursor = ?1, chain = ?2, head = ?3";
    connection.prepare_cached(sql)?.execute(params![cursor.0, chain.to_string(), head.0])?;
    lost::remember_place(connection, cursor, chain)
}

/// Begins to read the log anew. What an abandoned reading took for accepted belongs to that reading's generation, so that
/// it counts as lost if this one does not find it.
pub(crate) fn begin_rebase(connection: &Connection, log: &LogId, scope_set: &str) -> Result<(), Error> {
    let sql =
        "UPDATE gbsync_state SET is_rebasing = 1, next_log = ?1, next_chain = NULL, next_cursor = 0, next_scope_set = ?2,
                      generation = generation + 1";
    connection.execute(sql, [log.as_str(), scope_set])?;
    Ok(())
}

/// Gives up reading anew, where nothing was read.
pub(crate) fn cancel_rebase(connection: &Connection) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET is_rebasing = 0, next_log = NULL, next_chain = NULL, next_cursor = 0";
    connection.execute(sql, [])?;
    Ok(())
}

/// Moves the cursor of the reading anew.
pub(crate) fn set_next_cursor(connection: &Connection, cursor: Seq, chain: Digest) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET next_cursor = ?1, next_chain = ?2";
    connection.prepare_cached(sql)?.execute(params![cursor.0, chain.to_string()])?;
    Ok(())
}

/// Ends the reading anew: what was read is the state now.
pub(crate) fn end_rebase(connection: &Connection) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET ancestors = CASE WHEN told_log = next_log THEN told_ancestors END, log = next_log, chain = next_chain, cursor = next_cursor, scope_set = next_scope_set,
                      generation = generation + 1, is_rebasing = 0, next_log = NULL, next_chain = NULL, next_cursor = 0,
                      next_scope_set = NULL";
    connection.execute(sql, [])?;
    lost::forget_places(connection)?;
    match read(connection)?.place() {
        Some(place) => lost::remember_place(connection, place.seq, place.chain),
        None => Ok(()),
    }
}

/// Persists the intent to begin a new epoch, before anything is done about it.
pub(crate) fn want_new_epoch(connection: &Connection) -> Result<(), Error> {
    connection.execute("UPDATE gbsync_state SET wants_new_epoch = 1", [])?;
    Ok(())
}

/// The same, with the epoch that will begin, because numbers of sequences are given under its name from now on.
pub(crate) fn want_epoch(connection: &Connection, epoch: &EpochId) -> Result<(), Error> {
    connection.execute("UPDATE gbsync_state SET wants_new_epoch = 1, wanted_epoch = ?1", [epoch.as_str()])?;
    Ok(())
}

/// What the file beside the database must say.
pub(crate) fn life(connection: &Connection) -> Result<Option<String>, Error> {
    Ok(connection.query_row("SELECT life FROM gbsync_state", [], |row| row.get(0))?)
}

/// Keeps what the file beside the database says.
pub(crate) fn set_life(connection: &Connection, life: Option<&str>) -> Result<(), Error> {
    connection.execute("UPDATE gbsync_state SET life = ?1", [life])?;
    Ok(())
}

/// Begins an epoch whose first `numbered_through` numbers are given to the undecided groups.
pub(crate) fn set_epoch(
    connection: &Connection,
    epoch: &EpochId,
    last: DeviceSeq,
    numbered: DeviceSeq,
) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET previous_epoch = epoch, previous_device_seq = ?2, epoch = ?1, numbered_through = ?3, wants_new_epoch = 0,
                      wanted_epoch = NULL";
    connection.execute(sql, params![epoch.as_str(), last.0, numbered.0])?;
    Ok(())
}

/// The local numbers of the batch that is on its way; empty for none.
pub(crate) fn in_flight(connection: &Connection) -> Result<Vec<i64>, Error> {
    let mut statement = connection.prepare_cached("SELECT in_flight FROM gbsync_state")?;
    let text: Option<String> = statement.query_row([], |row| row.get(0))?;
    let Some(text) = text else { return Ok(Vec::new()) };
    serde_json::from_str(&text).map_err(|error| damaged("gbsync_state.in_flight", error))
}

/// Persists which batch is on its way, before it is sent; an empty one says that none is.
pub(crate) fn set_in_flight(connection: &Connection, local_nos: &[i64]) -> Result<(), Error> {
    let text = (!local_nos.is_empty()).then(|| serde_json::to_string(local_nos).expect("numbers are JSON"));
    connection.prepare_cached("UPDATE gbsync_state SET in_flight = ?1 WHERE in_flight IS NOT ?1")?.execute([text])?;
    Ok(())
}

/// Notes a failure and when to try again.
pub(crate) fn set_failure(
    connection: &Connection,
    failure: &LastError,
    at_ms: u64,
    next_ms: Option<u64>,
) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET failures = failures + 1, next_attempt_at = ?1, error_code = ?2, error_message = ?3, error_at = ?4";
    connection.prepare_cached(sql)?.execute(params![next_ms, failure.code, failure.message, at_ms])?;
    Ok(())
}

/// Notes that the queue stopped at something that waiting does not mend, or goes on.
pub(crate) fn set_stopped(connection: &Connection, is_stopped: bool) -> Result<(), Error> {
    connection.execute("UPDATE gbsync_state SET is_stopped = ?1", [is_stopped])?;
    Ok(())
}

/// Forgets failures after a success.
pub(crate) fn clear_failure(connection: &Connection) -> Result<(), Error> {
    let sql = "UPDATE gbsync_state SET failures = 0, next_attempt_at = NULL, error_code = NULL, error_message = NULL, error_at = NULL, is_stopped = 0
                WHERE failures > 0 OR error_code IS NOT NULL OR is_stopped";
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// A setting of the program that opened the file.
pub(crate) fn setting(connection: &Connection, key: &str) -> Result<Option<String>, Error> {
    let mut statement = connection.prepare_cached("SELECT value FROM gbsync_meta WHERE key = 'setting:' || ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// Keeps or removes a setting.
pub(crate) fn set_setting(connection: &Connection, key: &str, value: Option<&str>) -> Result<(), Error> {
    match value {
        Some(value) => {
            let sql =
                "INSERT INTO gbsync_meta(key, value) VALUES ('setting:' || ?1, ?2) ON CONFLICT DO UPDATE SET value = ?2";
            connection.execute(sql, [key, value])?
        }
        None => connection.execute("DELETE FROM gbsync_meta WHERE key = 'setting:' || ?1", [key])?,
    };
    Ok(())
}
