//! Tokens and the spaces they open. A token is stored as its SHA-256 only.

use super::row::{id, optional_id, stored};
use super::{open, row};
use crate::auth::{ActorInfo, NewToken, TokenInfo};
use crate::store::kept::{self, act_as_json, roles_json};
use crate::store::{Grant, Made, StoreError, TokenTable, sighted};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, Role, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{ActAs, Bearer};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The tables of tokens and actors, on a connection of its own.
pub(crate) struct SqliteTokens {
    connection: Mutex<Connection>,
}

const COLUMNS: &str = "token_id, space, roles, actor, device, tokens.created_at, revoked_at, expires_at, act_as, scopes";

impl SqliteTokens {
    /// Opens the store of a folder, or makes a new one.
    pub(crate) fn open(data: &Path, busy_timeout: Duration) -> Result<Self, StoreError> {
        let path = open::file(data);
        Ok(Self { connection: Mutex::new(open::prepare(&path, busy_timeout)?) })
    }

    fn write<T>(&self, write: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let answer = write(&transaction)?;
        gbsync_wal::commit(transaction)?;
        Ok(answer)
    }
}

impl TokenTable for SqliteTokens {
    fn add(&self, new: &NewToken, made: &Made<'_>) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO spaces (space, space_no, log, head, chain, horizon, created_at)
                 VALUES (?1, (SELECT coalesce(max(space_no), 0) + 1 FROM spaces), ?2, 0, ?3, 0, ?4)
                 ON CONFLICT (space) DO NOTHING",
                params![new.space.as_str(), made.log.as_str(), Digest::ZERO.as_bytes(), made.now.as_str()],
            )?;
            let space_no = row::space(transaction, &new.space)?
                .map(|(space_no, _)| space_no)
                .ok_or_else(|| StoreError::Damaged("a space vanished inside a transaction".into()))?;
            let roles = roles_json(&new.roles);
            transaction.execute(
                "INSERT INTO tokens (space_no, token_id, hash, roles, actor, device, created_at, expires_at, act_as, scopes)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    space_no,
                    made.token_id,
                    made.hash,
                    roles,
                    new.actor.as_ref().map(Actor::as_str),
                    new.device.as_ref().map(DeviceId::as_str),
                    made.now.as_str(),
                    made.expires_at.as_ref().map(Timestamp::as_str),
                    new.act_as.as_ref().map(act_as_json),
                    new.scopes.to_json(),
                ],
            )?;
            if let Some(actor) = new.actor.as_ref().filter(|_| !new.roles.is_empty()) {
                transaction.execute(
                    "INSERT INTO actors (space_no, actor, roles, since) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                    params![space_no, actor.as_str(), roles, made.now.as_str()],
                )?;
            }
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        infos(&connection, "")
    }

    fn with_prefix(&self, prefix: &str) -> Result<Vec<TokenInfo>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        infos(&connection, prefix)
    }

    fn revoke(&self, token_id: &str, now: &Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?2) WHERE token_id = ?1",
                params![token_id, now.as_str()],
            )?;
            Ok(())
        })
    }

    fn revoke_jwt(&self, jti: &str, now: &Timestamp) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO revoked_jwts (jti, revoked_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![jti, now.as_str()],
            )?;
            Ok(())
        })
    }

    fn set_actor(
        &self,
        space: &SpaceId,
        actor: &Actor,
        roles: &BTreeSet<Role>,
        now: &Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let Some((space_no, _)) = row::space(transaction, space)? else { return Ok(false) };
            transaction.execute(
                "INSERT INTO actors (space_no, actor, roles, since) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET roles = excluded.roles, since = excluded.since",
                params![space_no, actor.as_str(), roles_json(roles), now.as_str()],
            )?;
            Ok(true)
        })
    }

    fn actors(&self) -> Result<Vec<ActorInfo>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection
            .prepare("SELECT space, actor, roles, since FROM actors JOIN spaces USING (space_no) ORDER BY space, actor")?;
        let mut rows = statement.query([])?;
        let mut actors = Vec::new();
        while let Some(row) = rows.next()? {
            actors.push(ActorInfo {
                space: id(row, 0, SpaceId::new)?,
                actor: id(row, 1, Actor::new)?,
                roles: roles(row, 2)?.into_iter().collect(),
                since: timestamp(row, 3)?,
            });
        }
        Ok(actors)
    }

    fn remove_actor(&self, space: &SpaceId, actor: &Actor) -> Result<bool, StoreError> {
        self.write(|transaction| {
            let sql = "DELETE FROM actors WHERE actor = ?2 AND space_no = (SELECT space_no FROM spaces WHERE space = ?1)";
            Ok(transaction.execute(sql, [space.as_str(), actor.as_str()])? > 0)
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
            revoked_at: optional_timestamp(row, 6)?,
            expires_at: optional_timestamp(row, 7)?,
            act_as: act_as(row, 8)?,
            scopes: scopes(row, 9)?,
        });
    }
    Ok(infos)
}

/// The token with this hash, also a revoked one.
pub(super) fn grant(connection: &Connection, hash: &[u8; 32]) -> Result<Option<Grant>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT token_id, space, roles, actor, device, revoked_at IS NOT NULL, expires_at, act_as, scopes
         FROM tokens JOIN spaces USING (space_no) WHERE hash = ?1",
    )?;
    let mut rows = statement.query([hash])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Grant {
        token_id: row.get(0)?,
        space: id(row, 1, SpaceId::new)?,
        roles: roles(row, 2)?,
        bearer: Bearer {
            actor: optional_id(row, 3, Actor::new)?,
            act_as: act_as(row, 7)?,
            expires_at: optional_timestamp(row, 6)?,
        },
        device: optional_id(row, 4, DeviceId::new)?,
        scopes: scopes(row, 8)?,
        is_revoked: row.get(5)?,
    }))
}

/// The roles of those of these actors that are known.
pub(super) fn roles_of(
    connection: &Connection,
    space: &SpaceId,
    actors: &BTreeSet<Actor>,
) -> Result<BTreeMap<Actor, BTreeSet<Role>>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT roles FROM actors JOIN spaces USING (space_no) WHERE space = ?1 AND actor = ?2")?;
    let mut found = BTreeMap::new();
    for actor in actors {
        let mut rows = statement.query([space.as_str(), actor.as_str()])?;
        if let Some(row) = rows.next()? {
            found.insert(actor.clone(), roles(row, 0)?.into_iter().collect());
        }
    }
    Ok(found)
}

/// Whether a token that another party signed was revoked here, by the id in it.
pub(super) fn is_revoked(connection: &Connection, jti: &str) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM revoked_jwts WHERE jti = ?1)")?;
    Ok(statement.query_row([jti], |row| row.get(0))?)
}

fn act_as(row: &Row<'_>, column: usize) -> Result<Option<ActAs>, StoreError> {
    kept::act_as(row.get::<_, Option<String>>(column)?.as_deref())
}

fn scopes(row: &Row<'_>, column: usize) -> Result<ScopeSet, StoreError> {
    sighted::scope_set(row.get::<_, Option<String>>(column)?.as_deref())
}

fn roles(row: &Row<'_>, column: usize) -> Result<Vec<Role>, StoreError> {
    kept::roles(&row.get::<_, String>(column)?)
}

fn timestamp(row: &Row<'_>, column: usize) -> Result<Timestamp, StoreError> {
    let text: String = row.get(column)?;
    Timestamp::new(&text).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn optional_timestamp(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, StoreError> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { timestamp(row, column).map(Some) }
}
