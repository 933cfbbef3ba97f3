//! Groups in parts, inside a transaction: put together before they are decided, cleared when they are, and cut again for
//! the log.
//!
//! Invariant: memory holds one of them at a time, because a request names one at most and such a request travels alone.

use super::{Push, PushOutcome};
use crate::store::{CutChanges, Staged, StoreError, Writer};
use gbsync_core::limits::Limits;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{Assembly, Content, EntryHeader, PushRequest, cut, entry_in_parts_json, entry_json};

/// More than an entry's members take beside its changes, ids and all.
const HEADER_BYTES: u64 = 8 * 1024;

/// The request with what is staged of its group in parts; `None` when it stays as it is.
pub(super) fn assemble(writer: &mut dyn Writer, push: &Push, limits: &Limits) -> Result<Option<PushRequest>, StoreError> {
    let Some((index, in_parts)) = push.request.in_parts() else { return Ok(None) };
    let arrival = &push.request.groups[index];
    let mut assembly = Assembly::new(in_parts.change_count, limits);
    let mut take = |part: &str| {
        // It was read when it arrived.
        assembly.add(part).map_err(|error| StoreError::Damaged(format!("a part of {}: {error}", arrival.id)))?;
        Ok(!assembly.is_over())
    };
    let staged = writer.staged(&push.space, &push.request.device, &arrival.id, in_parts.parts, &mut take)?;
    let content = match staged {
        // Its first verdict needs no changes.
        Staged::Decided => return Ok(None),
        Staged::Missing(missing) => Content::Missing(missing),
        Staged::All => assembly.finish(in_parts.header.clone(), arrival.digest),
    };
    let mut request = push.request.clone();
    request.groups[index].content = content;
    Ok(Some(request))
}

/// Removes the parts of groups that have their verdict now.
pub(super) fn clear(writer: &mut dyn Writer, push: &Push, outcome: &PushOutcome) -> Result<(), StoreError> {
    let PushOutcome::Decided { results, .. } = outcome else { return Ok(()) };
    for (arrival, result) in push.request.groups.iter().zip(results) {
        let may_be_staged = matches!(arrival.content, Content::InParts(_) | Content::TooLarge(..));
        let is_decided = match &result.verdict {
            Verdict::Accepted { .. } => true,
            Verdict::Rejected { rejection, .. } => rejection.code.is_final(),
            Verdict::Blocked { .. } | Verdict::Incomplete { .. } | Verdict::Unknown => false,
        };
        if may_be_staged && is_decided {
            writer.unstage(&push.space, &push.request.device, &arrival.id)?;
        }
    }
    Ok(())
}

/// An entry in wire form, with its changes beside it in parts when it would be larger than `most_bytes`.
pub(super) fn entry(
    header: &EntryHeader<'_>,
    change_count: u64,
    changes: String,
    most_bytes: u64,
) -> (String, Option<CutChanges>) {
    if changes.len() as u64 + HEADER_BYTES <= most_bytes {
        return (entry_json(header, change_count, &changes), None);
    }
    let whole_bytes = entry_json(header, change_count, "").len() as u64 + changes.len() as u64;
    if whole_bytes <= most_bytes {
        return (entry_json(header, change_count, &changes), None);
    }
    let cuts = cut(&changes, most_bytes);
    (entry_in_parts_json(header, change_count, cuts.len() as u64), Some(CutChanges { changes, cuts }))
}
