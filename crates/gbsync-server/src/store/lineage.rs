//! Where a space's log comes from, and what devices brought back of what earlier logs lost (docs/protocol.md, "Restored logs").
//!
//! Invariant: the ancestors of a log are all that it was ever restored from, the nearest first, each up to where it agrees with
//! the present one. They stand in the space's row, so that whoever locks or reads it has them without asking again.

use super::{StoreError, StoreLocation};
use crate::config::Environment;
use crate::error::ServerError;
use gbsync_core::decide::lineage;
use gbsync_core::id::{GroupId, LogId, Seq, SpaceId};
use gbsync_core::wire::Ancestor;
use serde_json::{Value, json};
use std::time::Duration;

/// Ancestors kept at most; of many restores the oldest are forgotten.
const MOST: usize = 64;

/// A log that a space's log was restored from, and when that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptAncestor {
    pub(crate) ancestor: Ancestor,
    pub(crate) at_ms: u64,
}

/// A group that an earlier log lost and that was decided again: its place there, and here if it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealedGroup {
    pub(crate) log: LogId,
    pub(crate) seq: Seq,
    pub(crate) group: GroupId,
    pub(crate) now: Option<Seq>,
}

/// The ancestors of a log that begins now, where the one before, with these ancestors, stood at `up_to`.
pub(crate) fn descend(log: &LogId, up_to: Seq, ancestors: &[KeptAncestor], now_ms: u64) -> Vec<KeptAncestor> {
    let before: Vec<Ancestor> = ancestors.iter().map(|kept| kept.ancestor.clone()).collect();
    let at = std::iter::once(now_ms).chain(ancestors.iter().map(|kept| kept.at_ms));
    let kept = lineage(log, up_to, &before).into_iter().zip(at);
    kept.map(|(ancestor, at_ms)| KeptAncestor { ancestor, at_ms }).take(MOST).collect()
}

/// The ancestors of a log that goes on, where a device turned up that knows another log, unheard of, up to there.
pub(crate) fn meet(log: &LogId, up_to: Seq, ancestors: &[KeptAncestor], now_ms: u64) -> Vec<KeptAncestor> {
    let met = KeptAncestor { ancestor: Ancestor { log: log.clone(), up_to }, at_ms: now_ms };
    std::iter::once(met).chain(ancestors.iter().cloned()).take(MOST).collect()
}

/// Reads what [`to_json`] wrote.
pub(super) fn from_json(text: Option<&str>) -> Result<Vec<KeptAncestor>, StoreError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let damaged = || StoreError::Damaged("the ancestors of a log cannot be read".into());
    let kept: Vec<Value> = serde_json::from_str(text).map_err(|_| damaged())?;
    let read = |kept: &Value| {
        let log = LogId::new(kept["log"].as_str()?).ok()?;
        let ancestor = Ancestor { log, up_to: Seq(kept["upTo"].as_u64()?) };
        Some(KeptAncestor { ancestor, at_ms: kept["atMs"].as_u64()? })
    };
    kept.iter().map(read).collect::<Option<_>>().ok_or_else(damaged)
}

/// Ancestors as a store keeps them.
pub(super) fn to_json(ancestors: &[KeptAncestor]) -> String {
    let written = |kept: &KeptAncestor| json!({ "log": kept.ancestor.log.as_str(), "upTo": kept.ancestor.up_to.0, "atMs": kept.at_ms });
    Value::from_iter(ancestors.iter().map(written)).to_string()
}

/// A space whose log was marked as restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredSpace {
    /// The space.
    pub space: SpaceId,
    /// The log that it had.
    pub ancestor: LogId,
    /// The last `seq` that is left of it.
    pub up_to: Seq,
    /// The log that it has from now on.
    pub log: LogId,
}

/// Gives every space of a store a new log whose ancestor is the one it had, up to where that goes now: after the store was put
/// back to an earlier state by whatever means. Devices then bring back what the log lost.
///
/// # Errors
/// [`ServerError::Locked`] where a server runs on the folder; [`ServerError::NoStore`]; [`ServerError::Store`] when the store
/// cannot be written. What was marked before stays marked; doing it again is harmless.
pub fn mark_restored(
    store: impl Into<StoreLocation>,
    environment: &Environment,
    mut told: impl FnMut(&RestoredSpace),
) -> Result<Vec<RestoredSpace>, ServerError> {
    let location = store.into();
    let spaces = location.survey(|survey| Ok(survey.spaces()?))?;
    let opened = location.open(Duration::from_secs(10), 1, None)?;
    let mut restored = Vec::new();
    for space in spaces {
        let mut writer = opened.writer()?;
        writer.begin()?;
        let Some(held) = writer.load(&space, &super::Wanted::default())? else { continue };
        let log = LogId::new(environment.uuid()).expect("a UUID is an id");
        let state = held.state;
        writer.fork(&space, &log, &descend(&state.log, state.head, &state.ancestors, environment.now_ms()))?;
        writer.commit()?;
        restored.push(RestoredSpace { space, ancestor: state.log, up_to: state.head, log });
        restored.last().into_iter().for_each(&mut told);
    }
    if location.folder().is_some() {
        opened.close()?;
    }
    Ok(restored)
}
