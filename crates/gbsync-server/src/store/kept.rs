//! What both stores keep as JSON, and how a page is filled. Data that cannot have been stored is an error, never a panic.

use super::{Page, PageRequest, StoreError, sighted};
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, GroupId, Role, Seq};
use gbsync_core::verdict::{Flag, Rejection, Verdict};
use gbsync_core::wire::{ActAs, parse_answer, parse_flags};
use std::borrow::Cow;

/// The flags of an accepted group.
pub(super) fn flags(text: Option<&str>) -> Result<Vec<Flag>, StoreError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    parse_flags(text).map_err(|error| StoreError::Damaged(format!("flags: {error}")))
}

/// Why a group was rejected, from its result in wire form.
pub(super) fn rejection(group: &GroupId, result: Option<&str>) -> Result<Rejection, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("the rejection of {group} {what}"));
    let result = result.ok_or_else(|| damaged("is missing"))?;
    let answer = parse_answer(format!("{{\"results\":[{result}]}}").as_bytes()).map_err(|_| damaged("cannot be read"))?;
    match answer.results.into_iter().next().map(|result| result.verdict) {
        Some(Verdict::Rejected { rejection, .. }) => Ok(rejection),
        _ => Err(damaged("is none")),
    }
}

/// The roles of a token.
pub(super) fn roles(text: &str) -> Result<Vec<Role>, StoreError> {
    let damaged = |error: String| StoreError::Damaged(format!("the roles of a token: {error}"));
    let names: Vec<String> = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    names.into_iter().map(|name| Role::new(name).map_err(|error| damaged(error.to_string()))).collect()
}

/// The roles of a token or an actor, as JSON.
pub(super) fn roles_json<'r>(roles: impl IntoIterator<Item = &'r Role>) -> String {
    serde_json::Value::from_iter(roles.into_iter().map(Role::as_str)).to_string()
}

/// As whom a token may act, as JSON.
pub(super) fn act_as_json(act_as: &ActAs) -> String {
    match act_as {
        ActAs::Anyone => "\"*\"".into(),
        ActAs::These(actors) => serde_json::Value::from_iter(actors.iter().map(Actor::as_str)).to_string(),
    }
}

/// As whom a token may act.
pub(super) fn act_as(text: Option<&str>) -> Result<Option<ActAs>, StoreError> {
    let damaged = |error: String| StoreError::Damaged(format!("whom a token may act as: {error}"));
    let Some(text) = text else { return Ok(None) };
    if text == "\"*\"" {
        return Ok(Some(ActAs::Anyone));
    }
    let names: Vec<String> = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    let actors = names.into_iter().map(|name| Actor::new(name).map_err(|error| damaged(error.to_string())));
    actors.collect::<Result<_, _>>().map(|actors| Some(ActAs::These(actors)))
}

/// A page that is being filled: whole entries in order, at least one if there is one.
pub(super) struct Filling<'r> {
    request: &'r PageRequest,
    entries: Vec<String>,
    next: Seq,
    chain: Digest,
    records: u64,
    bytes: u64,
    /// Entries that were looked at.
    looked_at: u64,
}

/// Entries that are looked at for a page: what somebody does not see is passed over, but not without end.
const LOOKED_AT: u64 = 10_000;

/// An entry as a row holds it.
pub(super) struct Row<'e> {
    pub(super) seq: Seq,
    pub(super) change_count: u64,
    pub(super) chain: Digest,
    pub(super) entry: &'e str,
    pub(super) parts: u64,
    /// Where its changes are seen.
    pub(super) trace: Option<&'e str>,
    /// Of an entry in parts without a trace, how many of its changes are told.
    pub(super) told: Option<u64>,
}

impl<'r> Filling<'r> {
    /// An empty page behind `after`, where the chain is this.
    pub(super) fn new(request: &'r PageRequest, chain: Digest) -> Self {
        Self { request, entries: Vec::new(), next: request.after, chain, records: 0, bytes: 0, looked_at: 0 }
    }

    /// What is told of an entry; `None` where nothing is.
    fn told<'e>(&self, row: &Row<'e>) -> Result<Option<Cow<'e, str>>, StoreError> {
        let sight = &self.request.sight;
        let entry = match row.told {
            Some(told) => sight.untraced_in_parts(row.entry, told).map(|entry| entry.map(Cow::Owned)),
            None => sight.entry(row.entry, row.trace),
        };
        entry.map_err(sighted::damaged)
    }

    /// Takes the entry if it fits, and passes over one of which nothing is seen; whether the next one may come.
    pub(super) fn add(&mut self, row: &Row<'_>) -> Result<bool, StoreError> {
        self.looked_at += 1;
        let Some(entry) = self.told(row)? else {
            (self.next, self.chain) = (row.seq, row.chain);
            return Ok(self.looked_at < LOOKED_AT);
        };
        self.records += row.change_count;
        self.bytes += entry.len() as u64;
        // An entry in parts is larger than it looks here: it has a page of its own.
        let is_in_parts = row.parts > 0;
        let (most_records, most_bytes) = (self.request.max_records, self.request.max_bytes);
        if !self.entries.is_empty() && (is_in_parts || self.records > most_records || self.bytes > most_bytes) {
            return Ok(false);
        }
        (self.next, self.chain) = (row.seq, row.chain);
        #[cfg(not(feature = "mutants"))]
        self.entries.push(entry.into_owned());
        #[cfg(feature = "mutants")]
        self.entries.push(crate::planted::cut(&entry, self.records, most_records));
        let is_full = is_in_parts || self.records >= most_records || self.bytes >= most_bytes;
        Ok(!is_full && self.looked_at < LOOKED_AT)
    }

    pub(super) fn finish(self, head: Seq) -> Page {
        Page::Entries { entries: self.entries, next: self.next, chain: self.chain, head }
    }
}
