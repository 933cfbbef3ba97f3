//! One function a promise, each with its name in what it says.

use super::run::{Device, Store};
use anyhow::{Result, ensure};
use gbsync_client::{GroupFilter, GroupState};
use gbsync_core::id::Seq;
use std::collections::{BTreeMap, BTreeSet};

/// P4: every entry is in the log or in an archive that is whole.
pub(super) fn nothing_left_the_log_alone(store: &Store) -> Result<()> {
    let (head, horizon, log) = store.log()?;
    let archived = store.archived()?;
    let missing = (1..=head).find(|seq| !log.contains(seq) && !archived.contains(seq));
    ensure!(missing.is_none(), "P4: entry {} is neither in the log nor in an archive", missing.unwrap_or_default());
    let kept: BTreeSet<u64> = (horizon + 1..=head).collect();
    ensure!(log == kept, "P4: the log behind {horizon} has {} entries, and its head is {head}", log.len());
    Ok(())
}

/// P4: what was deleted, and acknowledged, stays deleted: nobody in these runs makes a record anew.
pub(super) fn deletions_stay(store: &Store, deleted: &BTreeMap<String, u64>) -> Result<()> {
    for id in store.live()? {
        let seq = deleted.get(&id);
        ensure!(seq.is_none(), "P4: notes:{id} was deleted as {} and is there again", seq.copied().unwrap_or_default());
    }
    Ok(())
}

/// P6: at a cursor a device has what the server had there.
pub(super) fn rows_are_the_servers(device: &Device, known: &BTreeMap<u64, String>) -> Result<()> {
    let digest = device.client()?.digest()?;
    let rows = format!("{} {}", digest.records, digest.digest);
    if let Some(expected) = known.get(&digest.cursor.0) {
        ensure!(rows == *expected, "P6: device {} has {rows} at {}, the server had {expected}", device.place, digest.cursor);
    }
    Ok(())
}

/// P10, P11: at rest every group that was ever sealed is there and decided.
pub(super) fn everything_is_decided(device: &Device, head: u64) -> Result<()> {
    let groups = device.client()?.groups(GroupFilter::All, usize::MAX >> 1)?;
    let (kept, sealed) = (groups.len(), device.sealed);
    ensure!(kept >= sealed, "P11: device {} sealed {sealed} groups and knows of {kept}", device.place);
    let is_decided = |state| matches!(state, GroupState::Accepted | GroupState::Parked | GroupState::Superseded);
    let waiting = groups.iter().find(|group| !is_decided(group.state));
    ensure!(
        waiting.is_none(),
        "P10: {} of device {} is not decided",
        waiting.map_or("", |g| g.group_id.as_str()),
        device.place
    );
    let cursor = device.client()?.status()?.cursor;
    ensure!(cursor == Seq(head), "P10: device {} came to rest at {cursor} of {head}", device.place);
    Ok(())
}
