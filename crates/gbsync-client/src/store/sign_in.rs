//! Groups of `gbsync_outbox` that wait until somebody signs in.

use crate::error::{Error, damaged};
use gbsync_core::id::Actor;
use rusqlite::{Connection, params};

/// The code of groups whose author is not signed in.
const WAITING_FOR_SIGN_IN: &str = "waiting_for_sign_in";

/// Notes that a group waits until its author signs in.
pub(crate) fn wait(connection: &Connection, local_no: i64) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET state = 'waiting_for_sign_in', code = ?2, next_attempt_at = NULL,
                      message = 'it waits until ' || actor || ' signs in'
                WHERE local_no = ?1 AND state = 'sealed'";
    connection.prepare_cached(sql)?.execute(params![local_no, WAITING_FOR_SIGN_IN])?;
    Ok(())
}

/// Notes that all undecided groups wait until somebody signs in: the server knows nobody by this token.
pub(crate) fn all_wait(connection: &Connection, message: &str) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET state = 'waiting_for_sign_in', code = ?1, next_attempt_at = NULL, message = ?2
                WHERE state = 'sealed' AND local_no >= (SELECT pending_from FROM gbsync_state)";
    connection.prepare_cached(sql)?.execute([WAITING_FOR_SIGN_IN, message])?;
    Ok(())
}

/// Notes that a group waits for no sign-in any more.
pub(crate) fn go_on(connection: &Connection, local_no: i64) -> Result<(), Error> {
    let sql = "UPDATE gbsync_outbox SET state = 'sealed', code = NULL, message = NULL
                WHERE local_no = ?1 AND state = 'waiting_for_sign_in'";
    connection.prepare_cached(sql)?.execute([local_no])?;
    Ok(())
}

/// For whom undecided groups wait: how many, and since when the oldest of them was sealed.
pub(crate) fn waiting(connection: &Connection) -> Result<Vec<(Option<Actor>, u64, u64)>, Error> {
    let sql = "SELECT actor, count(*), min(sealed_at) FROM gbsync_outbox WHERE state = 'waiting_for_sign_in'
                  AND local_no >= (SELECT pending_from FROM gbsync_state) GROUP BY actor ORDER BY actor";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        let actor: Option<Box<str>> = row.get(0)?;
        let actor = actor.map(Actor::new).transpose().map_err(|error| damaged("gbsync_outbox.actor", error))?;
        waiting.push((actor, row.get(1)?, row.get(2)?));
    }
    Ok(waiting)
}
