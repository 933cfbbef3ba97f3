//! What routes ask of committed states.

use super::row::{count, decided, digest, id, place, seq_at, space as space_row};
use super::{parts, sequences};
use crate::shown::Shown;
use crate::store::kept::{Filling, Row};
use crate::store::{DecidedAs, Page, PageRequest, SpaceState, SpaceView, StoreError, ToldEpoch, Usage, sighted};
use gbsync_core::digest::Digest;
use gbsync_core::id::{DeviceId, DeviceSeq, EpochId, GroupId, Seq, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{DeviceReport, GroupResult};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};

/// What a space holds.
pub(super) fn usage(connection: &Connection, space: &SpaceId) -> Result<Option<Usage>, StoreError> {
    let Some((space_no, _)) = space_row(connection, space)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT count(*), coalesce(sum(octet_length(payload)), 0) FROM records WHERE space_no = ?1 AND payload IS NOT NULL",
    )?;
    let mut rows = statement.query([space_no])?;
    let row = rows.next()?.ok_or_else(|| StoreError::Damaged("a count has no row".into()))?;
    Ok(Some(Usage { records: count(row, 0)?, bytes: count(row, 1)? }))
}

pub(super) fn space(
    connection: &Connection,
    space: &SpaceId,
    device: Option<&DeviceId>,
    told: Option<&ToldEpoch>,
) -> Result<Option<SpaceView>, StoreError> {
    let Some((space_no, state)) = space_row(connection, space)? else { return Ok(None) };
    let device = device.map(|device| device_report(connection, space_no, device)).transpose()?.flatten();
    let knows_told = told.map(|told| knows(connection, space_no, told)).transpose()?.unwrap_or(true);
    Ok(Some(SpaceView { state, device, knows_told }))
}

/// The epoch that a device last sent from, and its highest number.
fn device_report(connection: &Connection, space_no: i64, device: &DeviceId) -> Result<Option<DeviceReport>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT epoch, highest_seq FROM devices WHERE space_no = ?1 AND device = ?2 AND pushed_at IS NOT NULL
         ORDER BY pushed_at DESC, epoch_no DESC LIMIT 1",
    )?;
    let mut rows = statement.query(params![space_no, device.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (epoch, device_seq) = (id(row, 0, EpochId::new)?, DeviceSeq(count(row, 1)?));
    Ok(Some(DeviceReport { epoch, device_seq, sequences: sequences::of_device(connection, space_no, device)? }))
}

fn knows(connection: &Connection, space_no: i64, told: &ToldEpoch) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT previous_epoch IS NOT NULL FROM devices WHERE space_no = ?1 AND device = ?2 AND epoch = ?3",
    )?;
    let mut rows = statement.query(params![space_no, told.key.device.as_str(), told.key.epoch.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    let knows_previous: bool = row.get(0)?;
    Ok(knows_previous || told.previous.is_none())
}

pub(super) fn page(connection: &Connection, request: &PageRequest) -> Result<Page, StoreError> {
    let Some((space_no, state)) = space_row(connection, &request.space)? else { return Ok(Page::NoSpace) };
    if request.log.as_ref().is_some_and(|log| *log != state.log) {
        return Ok(Page::LogChanged);
    }
    #[cfg(feature = "mutants")]
    if let Some(page) = crate::planted::beyond(request, &state) {
        return Ok(page);
    }
    if request.after > state.head {
        return Ok(Page::BeyondHead { head: state.head });
    }
    if request.after < state.horizon {
        return Ok(Page::BehindHorizon { horizon: state.horizon });
    }
    let chain =
        if request.after == state.horizon { state.horizon_chain } else { chain_at(connection, space_no, request.after)? };
    if request.chain.is_some_and(|known| known != chain) {
        return Ok(Page::LogChanged);
    }
    let mut statement = connection.prepare_cached(
        "SELECT place, change_count, chain, entry, parts, scopes FROM log WHERE place > ?1 AND place < ?2 ORDER BY place",
    )?;
    let mut rows = statement.query([place(space_no, request.after)?, place(space_no + 1, Seq(0))?])?;
    let mut filling = Filling::new(request, chain);
    while let Some(row) = rows.next()? {
        let (at, trace): (i64, Option<String>) = (row.get(0)?, row.get(5)?);
        let parts = count(row, 4)?;
        let is_untraced = parts > 0 && trace.is_none() && !request.sight.is_whole();
        let entry = Row {
            seq: seq_at(at),
            change_count: count(row, 1)?,
            chain: digest(row, 2)?,
            entry: row.get_ref(3)?.as_str().map_err(|error| StoreError::Damaged(error.to_string()))?,
            parts,
            trace: trace.as_deref(),
            told: is_untraced.then(|| parts::told(connection, at, &request.sight)).transpose()?,
        };
        if !filling.add(&entry)? {
            break;
        }
    }
    Ok(filling.finish(state.head))
}

/// The chain at those of these places that the log has.
pub(super) fn chains(
    connection: &Connection,
    space_no: i64,
    state: &SpaceState,
    places: &BTreeSet<Seq>,
) -> Result<BTreeMap<Seq, Digest>, StoreError> {
    let mut chains =
        BTreeMap::from([(Seq(0), Digest::ZERO), (state.horizon, state.horizon_chain), (state.head, state.chain)]);
    for seq in places.iter().filter(|seq| **seq < state.head && **seq > Seq(0)) {
        let mut statement = connection.prepare_cached("SELECT chain FROM log WHERE place = ?1")?;
        let mut rows = statement.query([place(space_no, *seq)?])?;
        if let Some(row) = rows.next()? {
            chains.insert(*seq, digest(row, 0)?);
        }
    }
    Ok(chains)
}

fn chain_at(connection: &Connection, space_no: i64, seq: Seq) -> Result<Digest, StoreError> {
    let mut statement = connection.prepare_cached("SELECT chain FROM log WHERE place = ?1")?;
    let mut rows = statement.query([place(space_no, seq)?])?;
    match rows.next()? {
        Some(row) => digest(row, 0),
        None => Err(StoreError::Damaged(format!(
            "the log has no entry {seq}, which is behind its horizon and not beyond its head"
        ))),
    }
}

pub(super) fn verdicts(
    connection: &Connection,
    space: &SpaceId,
    ids: Vec<GroupId>,
    scopes: &ScopeSet,
) -> Result<Vec<GroupResult>, StoreError> {
    let space_no = space_row(connection, space)?.map(|(space_no, _)| space_no);
    let mut shown = Shown::new();
    let verdict = |id: GroupId| {
        #[cfg(feature = "mutants")]
        let space_no = crate::planted::any_space(connection, space_no, &id)?;
        let decided = space_no.map(|space_no| decided(connection, space_no, &id)).transpose()?.flatten();
        let mut verdict = match (space_no, decided.map(|decided| decided.outcome)) {
            (Some(space_no), Some(outcome)) => told(connection, space_no, &id, outcome, scopes)?,
            _ => Verdict::Unknown,
        };
        if let Verdict::Rejected { rejection, .. } = &mut verdict {
            shown.fit(rejection);
        }
        Ok(GroupResult { id, verdict })
    };
    ids.into_iter().map(verdict).collect()
}

/// What the holder of these scopes is told of a group that was decided.
fn told(
    connection: &Connection,
    space_no: i64,
    id: &GroupId,
    outcome: DecidedAs,
    scopes: &ScopeSet,
) -> Result<Verdict, StoreError> {
    if *scopes == ScopeSet::All {
        return sighted::verdict(outcome, None, None, scopes);
    }
    let (mut trace, mut author): (Option<Option<String>>, Option<String>) = (None, None);
    match &outcome {
        DecidedAs::Accepted { seq, .. } => {
            let mut statement = connection.prepare_cached("SELECT scopes FROM log WHERE place = ?1")?;
            trace = statement.query_row([place(space_no, *seq)?], |row| row.get(0)).optional()?;
        }
        DecidedAs::Rejected(_) => {
            let sql = "SELECT scopes FROM rejections WHERE space_no = ?1 AND group_id = ?2";
            author = connection.prepare_cached(sql)?.query_row(params![space_no, id.as_str()], |row| row.get(0))?;
        }
    }
    sighted::verdict(outcome, trace.as_ref().map(Option::as_deref), author.as_deref(), scopes)
}
