//! Tokens and the spaces they open. A token is stored as its SHA-256 only.

use super::row::{id, optional_id, stored};
use super::{open, row};
use crate::auth::{NewToken, TokenInfo};
use crate::store::{Grant, StoreError};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, LogId, Role, SpaceId};
use gbsync_core::time::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The table of tokens, on a connection of its own.
pub(crate) struct TokenTable {
    connection: Mutex<Connection>,
}

const COLUMNS: &str = "token_id, space, roles, actor, device, tokens.created_at, revoked_at";

impl TokenTable {
    /// Opens the store of a folder, or makes a new one.
    pub(crate) fn open(data: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let path = open::file(data);
        open::prepare(&path, busy_timeout)?;
        Ok(Self { connection: Mutex::new(open::writer(&path, busy_timeout)?) })
    }

    fn write<T>(&self, write: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = write(&transaction)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Adds a token, and its space with the log `log` if it is new.
    pub(crate) fn add(
        &self,
        new: &NewToken,
        token_id: &str,
        hash: &[u8; 32],
        log: &LogId,
        now: &Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO spaces (space, space_no, log, head, chain, horizon, created_at)
                 VALUES (?1, (SELECT coalesce(max(space_no), 0) + 1 FROM spaces), ?2, 0, ?3, 0, ?4)
                 ON CONFLICT (space) DO NOTHING",
                params![new.space.as_str(), log.as_str(), Digest::ZERO.as_bytes(), now.as_str()],
            )?;
            let space_no = row::space(transaction, &new.space)?
                .map(|(space_no, _)| space_no)
                .ok_or_else(|| StoreError::Damaged("a space vanished inside a transaction".into()))?;
            let roles: Vec<&str> = new.roles.iter().map(Role::as_str).collect();
            transaction.execute(
                "INSERT INTO tokens (space_no, token_id, hash, roles, actor, device, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    space_no,
                    token_id,
                    hash,
                    serde_json::Value::from(roles).to_string(),
                    new.actor.as_ref().map(Actor::as_str),
                    new.device.as_ref().map(DeviceId::as_str),
                    now.as_str(),
                ],
            )?;
            Ok(())
        })
    }

    /// Every token, in the order made.
    pub(crate) fn list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        infos(&connection, "")
    }

    /// The tokens whose id begins so.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Result<Vec<TokenInfo>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        infos(&connection, prefix)
    }

    /// Revokes a token; one that is revoked keeps its time.
    pub(crate) fn revoke(&self, token_id: &str, now: &Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE token_id = ?1",
                params![token_id, now.as_str()],
            )?;
            Ok(())
        })
    }
}

fn infos(connection: &Connection, prefix: &str) -> Result<Vec<TokenInfo>, StoreError> {
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM tokens JOIN spaces USING (space_no) WHERE substr(token_id, 1, ?1) = ?2
         ORDER BY tokens.created_at, token_id"
    ))?;
    let length = stored(prefix.chars().count() as u64);
    let mut rows = statement.query(params![length, prefix])?;
    let mut infos = Vec::new();
    while let Some(row) = rows.next()? {
        infos.push(TokenInfo {
            id: row.get(0)?,
            space: id(row, 1, SpaceId::new)?,
            roles: roles(row, 2)?,
            actor: optional_id(row, 3, Actor::new)?,
            device: optional_id(row, 4, DeviceId::new)?,
            created_at: timestamp(row, 5)?,
            revoked_at: match row.get_ref(6)? {
                ValueRef::Null => None,
                _ => Some(timestamp(row, 6)?),
            },
        });
    }
    Ok(infos)
}

/// The token with this hash, also a revoked one.
pub(super) fn grant(connection: &Connection, hash: &[u8; 32]) -> Result<Option<Grant>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT token_id, space, roles, actor, device, revoked_at IS NOT NULL
         FROM tokens JOIN spaces USING (space_no) WHERE hash = ?1",
    )?;
    let mut rows = statement.query([hash])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Grant {
        token_id: row.get(0)?,
        space: id(row, 1, SpaceId::new)?,
        roles: roles(row, 2)?,
        actor: optional_id(row, 3, Actor::new)?,
        device: optional_id(row, 4, DeviceId::new)?,
        is_revoked: row.get(5)?,
    }))
}

fn roles(row: &Row<'_>, column: usize) -> Result<Vec<Role>, StoreError> {
    let damaged = |error: String| StoreError::Damaged(format!("the roles of a token: {error}"));
    let text: String = row.get(column)?;
    let names: Vec<String> = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    names.into_iter().map(|name| Role::new(name).map_err(|error| damaged(error.to_string()))).collect()
}

fn timestamp(row: &Row<'_>, column: usize) -> Result<Timestamp, StoreError> {
    let text: String = row.get(column)?;
    Timestamp::new(&text).map_err(|error| StoreError::Damaged(error.to_string()))
}
