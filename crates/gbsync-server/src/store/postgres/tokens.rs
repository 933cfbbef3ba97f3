//! Tokens and the spaces they open. A token is stored as its SHA-256 only.

use super::PostgresStore;
use super::row::{count, id, optional_id, time};
use crate::auth::{ActorInfo, NewToken, TokenInfo};
use crate::store::kept::{self, act_as_json, roles_json};
use crate::store::{Grant, Made, StoreError, TokenTable, sighted};
use deadpool_postgres::ClientWrapper;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, DeviceId, Role, SpaceId};
use gbsync_core::time::Timestamp;
use gbsync_core::wire::Bearer;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

const GRANT: &str = "
SELECT t.token_id, s.space, t.roles, t.actor, t.device, t.revoked_at IS NOT NULL, t.expires_at, t.act_as, t.scopes, w.place
  FROM unnest($1::bytea[]) WITH ORDINALITY AS w(hash, place)
 CROSS JOIN LATERAL (SELECT * FROM tokens WHERE hash = w.hash OFFSET 0) AS t
 CROSS JOIN LATERAL (SELECT space FROM spaces WHERE space_no = t.space_no OFFSET 0) AS s";

const ROLES: &str = "
SELECT a.actor, a.roles
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[]) AS w(actor)
 CROSS JOIN LATERAL (SELECT actor, roles FROM actors WHERE space_no = s.space_no AND actor = w.actor OFFSET 0) AS a";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[GRANT, ROLES];

/// The tokens with these hashes, in their order, also revoked ones.
pub(super) async fn grants(client: &ClientWrapper, hashes: &[[u8; 32]]) -> Result<Vec<Option<Grant>>, StoreError> {
    let statement = client.prepare_cached(GRANT).await?;
    let values: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    let mut grants: Vec<Option<Grant>> = hashes.iter().map(|_| None).collect();
    for row in client.query(&statement, &[&values]).await? {
        let place = usize::try_from(count(&row, 9)?).ok().and_then(|place| place.checked_sub(1));
        let grant = place.and_then(|place| grants.get_mut(place));
        *grant.ok_or_else(|| StoreError::Damaged("a token that nobody asked for".into()))? = Some(grant_of(&row)?);
    }
    Ok(grants)
}

fn grant_of(row: &Row) -> Result<Grant, StoreError> {
    Ok(Grant {
        token_id: row.try_get(0)?,
        space: id(row, 1, SpaceId::new)?,
        roles: kept::roles(row.try_get(2)?)?,
        bearer: Bearer {
            actor: optional_id(row, 3, Actor::new)?,
            act_as: kept::act_as(row.try_get(7)?)?,
            expires_at: time(row, 6)?,
        },
        device: optional_id(row, 4, DeviceId::new)?,
        scopes: sighted::scope_set(row.try_get(8)?)?,
        is_revoked: row.try_get(5)?,
    })
}

/// The roles of those of these actors that are known.
pub(super) async fn roles_of(
    client: &ClientWrapper,
    space: &SpaceId,
    actors: &BTreeSet<Actor>,
) -> Result<BTreeMap<Actor, BTreeSet<Role>>, StoreError> {
    let statement = client.prepare_cached(ROLES).await?;
    let names: Vec<&str> = actors.iter().map(Actor::as_str).collect();
    let rows = client.query(&statement, &[&space.as_str(), &names]).await?;
    let known = |row| Ok((id(row, 0, Actor::new)?, kept::roles(row.try_get(1)?)?.into_iter().collect()));
    rows.iter().map(known).collect()
}

/// Whether a token that another party signed was revoked here, by the id in it.
pub(super) async fn is_revoked(client: &ClientWrapper, jti: &str) -> Result<bool, StoreError> {
    let statement = client.prepare_cached("SELECT 1 FROM revoked_jwts WHERE jti = $1").await?;
    Ok(client.query_opt(&statement, &[&digest_of(jti)]).await?.is_some())
}

/// What stands for an id of another party's: it may have any length.
fn digest_of(jti: &str) -> Vec<u8> {
    Digest::of(jti.as_bytes()).as_bytes().to_vec()
}

impl TokenTable for PostgresStore {
    fn add(&self, new: &NewToken, made: &Made<'_>) -> Result<(), StoreError> {
        let roles = roles_json(&new.roles);
        let (actor, device) = (new.actor.as_ref().map(Actor::as_str), new.device.as_ref().map(DeviceId::as_str));
        let (space, log, now, hash) = (new.space.as_str(), made.log.as_str(), made.now.as_str(), made.hash.as_slice());
        let (expires_at, act_as) = (made.expires_at.as_ref().map(Timestamp::as_str), new.act_as.as_ref().map(act_as_json));
        let scopes = new.scopes.to_json();
        self.administer(async |client| {
            // The space first, the token last: what is there without it opens nothing. The same again where an answer was lost.
            let sql = "INSERT INTO spaces (space, log, head, chain, horizon, created_at) VALUES ($1, $2, 0, $3, 0, $4)
                       ON CONFLICT (space) DO NOTHING";
            client.execute(sql, &[&space, &log, &Digest::ZERO.as_bytes().as_slice(), &now]).await?;
            if actor.is_some() && !new.roles.is_empty() {
                let sql = "INSERT INTO actors (space_no, actor, roles, since)
                           SELECT space_no, $2, $3, $4 FROM spaces WHERE space = $1 ON CONFLICT DO NOTHING";
                client.execute(sql, &[&space, &actor, &roles, &now]).await?;
            }
            let sql = "INSERT INTO tokens (space_no, token_id, hash, roles, actor, device, created_at, expires_at, act_as, scopes)
                       SELECT space_no, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM spaces WHERE space = $1 ON CONFLICT DO NOTHING";
            client
                .execute(sql, &[&space, &made.token_id, &hash, &roles, &actor, &device, &now, &expires_at, &act_as, &scopes])
                .await?;
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<TokenInfo>, StoreError> {
        self.with_prefix("")
    }

    fn with_prefix(&self, prefix: &str) -> Result<Vec<TokenInfo>, StoreError> {
        self.administer(async |client| {
            let sql =
                "SELECT t.token_id, s.space, t.roles, t.actor, t.device, t.created_at, t.revoked_at, t.expires_at, t.act_as, t.scopes
                         FROM tokens t JOIN spaces s USING (space_no) WHERE starts_with(t.token_id, $1)
                        ORDER BY t.created_at, t.token_id";
            client.query(sql, &[&prefix]).await?.iter().map(info).collect()
        })
    }

    fn revoke(&self, token_id: &str, now: &Timestamp) -> Result<(), StoreError> {
        self.administer(async |client| {
            let sql = "UPDATE tokens SET revoked_at = coalesce(revoked_at, $2) WHERE token_id = $1";
            client.execute(sql, &[&token_id, &now.as_str()]).await?;
            Ok(())
        })
    }

    fn revoke_jwt(&self, jti: &str, now: &Timestamp) -> Result<(), StoreError> {
        self.administer(async |client| {
            let sql = "INSERT INTO revoked_jwts (jti, revoked_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            client.execute(sql, &[&digest_of(jti), &now.as_str()]).await?;
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
        self.administer(async |client| {
            let sql =
                "INSERT INTO actors (space_no, actor, roles, since) SELECT space_no, $2, $3, $4 FROM spaces WHERE space = $1
                       ON CONFLICT (space_no, actor) DO UPDATE SET roles = excluded.roles, since = excluded.since";
            let values: &[&(dyn ToSql + Sync)] = &[&space.as_str(), &actor.as_str(), &roles_json(roles), &now.as_str()];
            Ok(client.execute(sql, values).await? > 0)
        })
    }

    fn actors(&self) -> Result<Vec<ActorInfo>, StoreError> {
        self.administer(async |client| {
            let sql = "SELECT s.space, a.actor, a.roles, a.since FROM actors a JOIN spaces s USING (space_no)
                        ORDER BY s.space, a.actor";
            let actor = |row| {
                Ok(ActorInfo {
                    space: id(row, 0, SpaceId::new)?,
                    actor: id(row, 1, Actor::new)?,
                    roles: kept::roles(row.try_get(2)?)?.into_iter().collect(),
                    since: time(row, 3)?.ok_or_else(|| StoreError::Damaged("an actor has no time".into()))?,
                })
            };
            client.query(sql, &[]).await?.iter().map(actor).collect()
        })
    }

    fn remove_actor(&self, space: &SpaceId, actor: &Actor) -> Result<bool, StoreError> {
        self.administer(async |client| {
            let sql = "DELETE FROM actors WHERE actor = $2 AND space_no = (SELECT space_no FROM spaces WHERE space = $1)";
            Ok(client.execute(sql, &[&space.as_str(), &actor.as_str()]).await? > 0)
        })
    }
}

impl PostgresStore {
    /// For administrators, who may be on a runtime's thread. What is lost on the way is asked again.
    fn administer<T: Send>(
        &self,
        ask: impl AsyncFn(&ClientWrapper) -> Result<T, StoreError> + Send + Sync,
    ) -> Result<T, StoreError> {
        self.engine.elsewhere(|| self.read(ask))
    }
}

fn info(row: &Row) -> Result<TokenInfo, StoreError> {
    Ok(TokenInfo {
        id: row.try_get(0)?,
        space: id(row, 1, SpaceId::new)?,
        roles: kept::roles(row.try_get(2)?)?,
        actor: optional_id(row, 3, Actor::new)?,
        device: optional_id(row, 4, DeviceId::new)?,
        created_at: time(row, 5)?.ok_or_else(|| StoreError::Damaged("a token has no time".into()))?,
        revoked_at: time(row, 6)?,
        expires_at: time(row, 7)?,
        act_as: kept::act_as(row.try_get(8)?)?,
        scopes: sighted::scope_set(row.try_get(9)?)?,
    })
}
