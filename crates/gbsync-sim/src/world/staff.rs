//! People who share the devices of some worlds: who sealed what, which tokens there are, and what may be done with each.
//!
//! The reference of P9: it knows who was signed in when an operation began, and for whom a token was made, from what the world
//! did and not from what client or server say. Held against it are each request that reaches the server, each answer, and each
//! entry of the log.

use anyhow::{Context, Result, bail, ensure};
use gbsync_client::{BoxFuture, Request, TokenProvider};
use gbsync_core::id::Actor;
use gbsync_core::limits::Limits;
use gbsync_core::wire::PushRequest;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Who works here.
pub const PEOPLE: [&str; 2] = ["bo", "mia"];
/// The one of them who may do these, where there are rules.
pub const MANAGER: &str = "mia";
/// What only the manager may do.
pub const OF_THE_MANAGER: [&str; 3] = ["void", "stock-take", "pay-out"];
/// The actor of tokens that act for all of them.
pub const TILL: &str = "till";

/// A token that was made for somebody.
pub(super) struct Issued {
    /// What the office calls it.
    pub(super) id: String,
    /// Who signs in with it.
    pub(super) person: &'static str,
    /// Whether it is a till's, which acts as everybody who works here.
    pub(super) is_tills: bool,
    /// From when on it is none any more.
    pub(super) expires_ms: Option<u64>,
    /// Whether it was revoked.
    pub(super) is_revoked: bool,
}

impl Issued {
    fn may_send(&self, author: Option<&str>) -> bool {
        match author {
            None => true,
            Some(author) if self.is_tills => author == TILL || PEOPLE.contains(&author),
            Some(author) => author == self.person,
        }
    }

    fn is_valid(&self, now_ms: u64) -> bool {
        !self.is_revoked && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

/// What the world knows of people and tokens.
#[derive(Default)]
pub(super) struct Staff {
    /// By token.
    pub(super) tokens: BTreeMap<String, Issued>,
    /// Who was signed in when an operation began, by its token in the records.
    sealers: BTreeMap<String, Option<&'static str>>,
    /// How far the log of each space was read.
    read: BTreeMap<i64, i64>,
}

impl Staff {
    /// Takes note of who begins an operation.
    pub(super) fn begins(&mut self, operation: &str, person: Option<&'static str>) {
        self.sealers.entry(operation.to_owned()).or_insert(person);
    }

    /// Who sealed a group: whoever began the operation that its id names. An amended or retried one stays its author's.
    fn sealer(&self, group: &str) -> Option<Option<&'static str>> {
        self.sealers.get(group.split(':').nth(1)?).copied()
    }

    /// P9: each group of a request is sent under whoever sealed it, with a token that may. Answers whether one was sent for
    /// somebody else than who is signed in.
    pub(super) fn p9_sent_under_its_author(&self, request: &Request, token: &str) -> Result<bool> {
        let Some(body) = &request.body else { return Ok(false) };
        let path = request.path.replace("%3A", ":");
        let mut is_for_another = false;
        let mut check = |group: &str, author: Option<&str>| {
            let by = self.tokens.get(token);
            let may = by.is_some_and(|by| by.may_send(author));
            let whose = by.map_or("nobody's", |by| if by.is_tills { TILL } else { by.person });
            ensure!(may, "P9: {group}, which {author:?} sealed, was sent with a token of {whose}");
            is_for_another |= author.is_some() && by.is_some_and(|by| author != Some(by.person));
            Ok(())
        };
        if let Some((group, _)) = path.split_once("/parts/") {
            let group = group.rsplit('/').next().unwrap_or_default();
            if let Some(sealer) = self.sealer(group) {
                check(group, sealer)?;
            }
        }
        if path.ends_with("/discard") {
            let said: Value = serde_json::from_slice(body).unwrap_or_default();
            check(&path, said["actor"].as_str())?;
        }
        if path.ends_with("/push")
            && let Ok(push) = PushRequest::parse(body, &Limits::default())
        {
            for arrival in &push.groups {
                let (group, header) = (arrival.id.as_str(), arrival.content.header());
                let named = header.as_ref().and_then(|header| header.actor.as_ref()).map(Actor::as_str);
                let Some(sealer) = self.sealer(group).filter(|_| header.is_some()) else { continue };
                ensure!(named == sealer, "P9: {group}, which {sealer:?} sealed, was sent as {named:?}'s");
                check(group, named)?;
            }
        }
        Ok(is_for_another)
    }

    /// P9: a token that ended or was revoked opens nothing. Answers what was refused.
    pub(super) fn p9_let_in(&self, token: &str, now_ms: u64, status: u16) -> Result<Option<&'static str>> {
        let Some(issued) = self.tokens.get(token) else { return Ok(None) };
        if issued.is_valid(now_ms) {
            return Ok(None);
        }
        let what = if issued.is_revoked { "revoked" } else { "expired" };
        ensure!(!(200..300).contains(&status), "P9: a token of {} that is {what} was answered {status}", issued.person);
        let seen = if issued.is_revoked { "a revoked token was refused" } else { "an expired token was refused" };
        Ok((status == 401).then_some(seen))
    }

    /// Whether the server must know this token, which is none of a worker's, or valid.
    pub(super) fn is_welcome(&self, token: &str, now_ms: u64) -> bool {
        self.tokens.get(token).is_some_and(|issued| issued.is_valid(now_ms))
    }

    /// P9: the log says of each group who sealed it, and holds nothing that this one may not do.
    pub(super) fn p9_accepted_as_its_authors(&mut self, db: &Connection, has_rules: bool) -> Result<()> {
        const SPACE: i64 = 1 << 40;
        let mut spaces = db.prepare_cached("SELECT space_no FROM spaces")?;
        let spaces = spaces.query_map([], |row| row.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut statement =
            db.prepare_cached("SELECT place, entry FROM log WHERE place > ?1 AND place < ?2 ORDER BY place")?;
        for space in spaces {
            let after = self.read.get(&space).copied().unwrap_or(space * SPACE);
            let mut rows = statement.query([after, (space + 1) * SPACE])?;
            while let Some(row) = rows.next()? {
                self.read.insert(space, row.get(0)?);
                let entry: Value = serde_json::from_str(row.get_ref(1)?.as_str()?).context("an entry of the log")?;
                let (Some(group), false) = (entry["syncGroupId"].as_str(), entry["device"] == "server") else { continue };
                let actor = entry["actor"].as_str();
                if let Some(Some(sealer)) = self.sealer(group) {
                    ensure!(actor == Some(sealer), "P9: {group}, which {sealer} sealed, was accepted as {actor:?}'s");
                }
                let is_hers = entry["syncGroupType"].as_str().is_some_and(|kind| OF_THE_MANAGER.contains(&kind));
                if has_rules && is_hers && actor != Some(MANAGER) {
                    bail!("P9: {group} was accepted, which {actor:?} may not do");
                }
            }
        }
        Ok(())
    }
}

/// P9: what the manager sealed is never refused for the rights of whoever sent it.
///
/// # Errors
/// The promise that is broken.
pub(super) fn p9_own_roles_decide(db: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT min(group_id) FROM gbsync_outbox WHERE code = 'not_permitted' AND actor = ?1";
    db.prepare_cached(sql)?.query_row([MANAGER], |row| row.get(0))
}

/// Who is signed in on a device, and what it sends with.
#[derive(Clone)]
pub struct Badge {
    /// Who.
    pub person: &'static str,
    /// The tokens.
    pub wallet: Arc<Wallet>,
}

/// Tokens of somebody who is signed in: one, and perhaps another for when that one is refused.
pub struct Wallet {
    tokens: Mutex<(String, Option<String>)>,
    has_renewed: AtomicBool,
}

impl Wallet {
    /// With one token.
    pub fn new(token: String) -> Self {
        Self { tokens: Mutex::new((token, None)), has_renewed: AtomicBool::new(false) }
    }

    /// The token that requests bear now.
    pub fn present(&self) -> String {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Whether it was asked for another token since the last look, and had one.
    pub fn take_renewed(&self) -> bool {
        self.has_renewed.swap(false, Ordering::Relaxed)
    }

    /// Puts another token in, for when the present one is refused.
    pub fn put(&self, token: String) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(token);
    }
}

impl TokenProvider for Wallet {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(Some(self.present())))
    }

    fn renewed(&self, refused: Option<&str>) -> BoxFuture<'_, Option<String>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if refused == Some(tokens.0.as_str()) {
            match tokens.1.take() {
                Some(other) => {
                    tokens.0 = other;
                    self.has_renewed.store(true, Ordering::Relaxed);
                }
                None => return Box::pin(std::future::ready(None)),
            }
        }
        Box::pin(std::future::ready(Some(tokens.0.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gbsync_client::{Method, Token};

    fn staff() -> Staff {
        let issued = |person, is_tills| Issued { id: "i".into(), person, is_tills, expires_ms: Some(10), is_revoked: false };
        let mut staff = Staff::default();
        staff.tokens.insert("bos".into(), issued("bo", false));
        staff.tokens.insert("tills".into(), issued("bo", true));
        staff.begins("t1", Some("mia"));
        staff
    }

    fn push(actor: &str) -> Request {
        let changes = r#"[{"entity":"notes","id":"n","action":"upsert","payload":{}}]"#;
        let digest = gbsync_core::digest::Digest::of(changes.as_bytes());
        let body = format!(
            r#"{{"device":"d","epoch":"e","groups":[{{"syncGroupId":"sale:t1:1","syncGroupType":"sale","actor":"{actor}","deviceSeq":1,"createdAt":"2026-06-01T00:00:00.000Z","changeCount":1,"digest":"{digest}","changes":{changes}}}]}}"#
        );
        let token = None::<Token>;
        Request { method: Method::Post, path: "/v1/spaces/shop/push".into(), body: Some(body.into()), timeout_ms: 1, token }
    }

    #[test]
    fn a_group_is_sent_under_who_sealed_it_or_by_a_till() {
        let sent = |actor, token| staff().p9_sent_under_its_author(&push(actor), token).map_err(|error| error.to_string());
        assert_eq!(sent("mia", "tills"), Ok(true));
        let [stolen, renamed, without] = [sent("mia", "bos"), sent("bo", "bos"), sent("mia", "")];
        assert!(
            stolen.as_ref().is_err_and(|error| error.starts_with("P9: ") && error.contains("a token of bo")),
            "{stolen:?}"
        );
        assert!(renamed.as_ref().is_err_and(|error| error.contains(r#"sent as Some("bo")"#)), "{renamed:?}");
        assert!(without.is_err());
    }

    #[test]
    fn a_token_that_ended_opens_nothing() {
        assert!(staff().p9_let_in("bos", 9, 200).is_ok_and(|refused| refused.is_none()));
        assert!(staff().p9_let_in("bos", 10, 200).is_err());
        assert!(staff().p9_let_in("bos", 10, 401).is_ok_and(|refused| refused.is_some()));
    }
}
