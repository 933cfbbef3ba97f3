//! What PostgreSQL's errors mean to a transaction.

use crate::store::StoreError;
use deadpool_postgres::{HookError, PoolError};
use std::error::Error as _;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            let is_io = error.source().is_some_and(|source| source.is::<std::io::Error>());
            let text = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            return if error.is_closed() || is_io { Self::Lost(text) } else { Self::Postgres(text) };
        };
        let text = format!("{} ({})", refusal.message(), refusal.code().code());
        let code = refusal.code();
        let is = |codes: &[&SqlState]| codes.contains(&code);
        if is(&[&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED, &SqlState::LOCK_NOT_AVAILABLE]) {
            return Self::Collided(text);
        }
        if is(&[&SqlState::UNIQUE_VIOLATION]) {
            return Self::Taken(text);
        }
        // It is going down or coming up, has no room for the connection, or is a standby since a moment ago.
        let is_away = code.code().starts_with("08")
            || is(&[
                &SqlState::ADMIN_SHUTDOWN,
                &SqlState::CRASH_SHUTDOWN,
                &SqlState::CANNOT_CONNECT_NOW,
                &SqlState::TOO_MANY_CONNECTIONS,
                &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                &SqlState::READ_ONLY_SQL_TRANSACTION,
            ]);
        if is_away { Self::Lost(text) } else { Self::Postgres(text) }
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => error.into(),
            PoolError::PostCreateHook(HookError::Message(text)) => Self::Unsafe(text.into_owned()),
            other => Self::Lost(other.to_string()),
        }
    }
}
