//! `rejections` and `family_closures`: what was rejected, and how somebody closed it.
//!
//! Invariant: a closure belongs to a family; its members in `rejections` show the same one, also those that come later.

use super::row::{id, optional_id, rejection, space as space_row, stored};
use crate::store::{HeldRejection, RejectionsRequest, StoreError, Written, sighted};
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Resolution, ResolvedAs, Verdict};
use gbsync_core::wire::{Closed, GroupResult, RejectedGroup, SealedAs};
use rusqlite::{Connection, Row, params};
use std::collections::{BTreeMap, BTreeSet};

/// Whose the rejected groups are.
pub(super) fn load_rejected(
    connection: &Connection,
    space_no: i64,
    wanted: &BTreeSet<&GroupId>,
) -> Result<BTreeMap<GroupId, HeldRejection>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT r.group_type, r.actor, d.device, r.scopes FROM rejections AS r
           JOIN groups AS g ON g.space_no = r.space_no AND g.group_id = r.group_id
           LEFT JOIN devices AS d ON d.space_no = g.space_no AND d.epoch_no = g.epoch_no
          WHERE r.space_no = ?1 AND r.group_id = ?2",
    )?;
    let mut held = BTreeMap::new();
    for group in wanted {
        let mut rows = statement.query(params![space_no, group.as_str()])?;
        let Some(row) = rows.next()? else { continue };
        let found = HeldRejection {
            group_type: optional_id(row, 0, GroupType::new)?,
            actor: optional_id(row, 1, Actor::new)?,
            device: optional_id(row, 2, DeviceId::new)?,
            scopes: sighted::scope_set(row.get::<_, Option<String>>(3)?.as_deref())?,
        };
        held.insert((*group).clone(), found);
    }
    Ok(held)
}

/// How somebody closed these families.
pub(super) fn load_closures(
    connection: &Connection,
    space_no: i64,
    roots: &BTreeMap<GroupId, GroupId>,
) -> Result<BTreeMap<GroupId, Resolution>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT of_group, closed_as, closed_by, actor, reason FROM family_closures WHERE space_no = ?1 AND root = ?2",
    )?;
    let mut closures = BTreeMap::new();
    for root in roots.values() {
        let mut rows = statement.query(params![space_no, root.as_str()])?;
        let Some(row) = rows.next()? else { continue };
        let word: String = row.get(1)?;
        let resolution = Resolution {
            of: id(row, 0, GroupId::new)?,
            resolved_as: ResolvedAs::from_wire(&word)
                .ok_or_else(|| StoreError::Damaged(format!("a family is closed as {word:?}")))?,
            by: optional_id(row, 2, GroupId::new)?,
            actor: optional_id(row, 3, Actor::new)?,
            reason: row.get(4)?,
        };
        closures.insert(root.clone(), resolution);
    }
    Ok(closures)
}

/// Keeps new closures, and shows with each rejection how its family was closed. After the families are written.
pub(super) fn write_closures(connection: &Connection, space_no: i64, written: &Written) -> Result<(), StoreError> {
    for (from, into) in &written.merges {
        connection
            .prepare_cached("UPDATE OR IGNORE family_closures SET root = ?3 WHERE space_no = ?1 AND root = ?2")?
            .execute(params![space_no, from.as_str(), into.as_str()])?;
    }
    for (root, resolution) in &written.closures {
        let mut statement = connection.prepare_cached(
            "INSERT INTO family_closures (space_no, root, of_group, closed_as, closed_by, actor, reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?;
        let (by, actor) = (resolution.by.as_ref().map(GroupId::as_str), resolution.actor.as_ref().map(Actor::as_str));
        let (of, resolved_as) = (resolution.of.as_str(), resolution.resolved_as.as_str());
        statement.execute(params![space_no, root.as_str(), of, resolved_as, by, actor, resolution.reason])?;
    }
    let mut touched: BTreeSet<&GroupId> = written.closures.keys().chain(written.winners.keys()).collect();
    touched.extend(written.merges.iter().map(|(_, into)| into));
    for group in written.groups.iter().filter(|group| group.rejected.is_some()) {
        touched.insert(&group.id);
        if let Some(replaces) = group.rejected.as_ref().and_then(|rejected| rejected.replaces.as_ref()) {
            connection
                .prepare_cached(
                    "UPDATE rejections SET closed_as = 'replaced', closed_by = ?3, closed_at = ?4
                      WHERE space_no = ?1 AND group_id = ?2 AND closed_as IS NULL",
                )?
                .execute(params![space_no, replaces.as_str(), group.id.as_str(), written.decided_at.as_str()])?;
        }
    }
    let mut show = connection.prepare_cached(SHOW_CLOSURE)?;
    for group in touched {
        show.execute(params![space_no, group.as_str(), written.decided_at.as_str()])?;
    }
    Ok(())
}

/// A closure counts before a winner: it says who and why.
const SHOW_CLOSURE: &str = "
UPDATE rejections SET closed_as = f.closed_as, closed_by = f.closed_by, closed_actor = f.actor, closed_reason = f.reason,
                      closed_at = ?3
  FROM (SELECT m.group_id AS member, coalesce(c.closed_as, 'amended') AS closed_as,
               CASE WHEN c.root IS NULL THEN w.group_id ELSE c.closed_by END AS closed_by, c.actor AS actor, c.reason AS reason
          FROM families AS own
          JOIN families AS m ON m.space_no = own.space_no AND m.root = own.root
          LEFT JOIN family_closures AS c ON c.space_no = own.space_no AND c.root = own.root
          LEFT JOIN family_winners AS w ON w.space_no = own.space_no AND w.root = own.root
         WHERE own.space_no = ?1 AND own.group_id = ?2 AND (c.root IS NOT NULL OR w.root IS NOT NULL)) AS f
 WHERE rejections.space_no = ?1 AND rejections.group_id = f.member
   AND (rejections.closed_as IS NULL OR rejections.closed_as = 'replaced')";

/// The last number that the server gave in an epoch of its own.
pub(super) fn last_number(
    connection: &Connection,
    space_no: i64,
    device: &str,
    epoch: &str,
) -> Result<Option<(DeviceSeq, GroupId)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT n.device_seq, n.group_id FROM devices AS d
           JOIN numbers AS n ON n.space_no = d.space_no AND n.epoch_no = d.epoch_no
          WHERE d.space_no = ?1 AND d.device = ?2 AND d.epoch = ?3 ORDER BY n.device_seq DESC LIMIT 1",
    )?;
    let mut rows = statement.query(params![space_no, device, epoch])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((DeviceSeq(super::row::count(row, 0)?), id(row, 1, GroupId::new)?)))
}

const COLUMNS: &str = "
SELECT r.group_id, r.group_type, d.device, d.epoch, g.device_seq, r.actor, r.created_at, g.decided_at, r.replaces,
       r.closed_as, r.closed_by, r.closed_actor, r.closed_reason, r.closed_at, r.changes
  FROM rejections AS r
  JOIN groups AS g ON g.space_no = r.space_no AND g.group_id = r.group_id
  LEFT JOIN devices AS d ON d.space_no = g.space_no AND d.epoch_no = g.epoch_no
 WHERE r.space_no = ?1";

/// That the author of a group held no scope beside these, a JSON array; NULL stands for everything.
const IS_COVERED: &str = "(?3 IS NULL OR (r.scopes IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM json_each(r.scopes) AS s WHERE s.value NOT IN (SELECT value FROM json_each(?3)))))";

/// Rejections in the order they came.
pub(super) fn list(connection: &Connection, request: &RejectionsRequest) -> Result<Option<Vec<RejectedGroup>>, StoreError> {
    let Some((space_no, _)) = space_row(connection, &request.space)? else { return Ok(None) };
    let sql = format!(
        "{COLUMNS} AND r.rowid > coalesce((SELECT rowid FROM rejections WHERE space_no = ?1 AND group_id = ?2), 0)
            AND {IS_COVERED} AND (?4 IS NULL OR (r.closed_as IS NOT NULL) = ?4) ORDER BY r.rowid LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let after = request.after.as_ref().map(GroupId::as_str);
    let (scopes, most) = (request.scopes.to_json(), stored(request.most));
    let mut rows = statement.query(params![space_no, after, scopes, request.is_closed, most])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(RejectedGroup { changes: None, ..rejected(connection, space_no, row, &request.scopes)? });
    }
    Ok(Some(found))
}

/// One rejection, with its changes.
pub(super) fn one(
    connection: &Connection,
    space: &SpaceId,
    group: &GroupId,
    scopes: &ScopeSet,
) -> Result<Option<RejectedGroup>, StoreError> {
    let Some((space_no, _)) = space_row(connection, space)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} AND r.group_id = ?2 AND {IS_COVERED}"))?;
    let mut rows = statement.query(params![space_no, group.as_str(), scopes.to_json()])?;
    rows.next()?.map(|row| rejected(connection, space_no, row, scopes)).transpose()
}

fn rejected(connection: &Connection, space_no: i64, row: &Row<'_>, scopes: &ScopeSet) -> Result<RejectedGroup, StoreError> {
    let group = id(row, 0, GroupId::new)?;
    let time = |index| -> Result<Option<Timestamp>, StoreError> {
        let text: Option<String> = row.get(index)?;
        text.map(|text| Timestamp::new(&text).map_err(|error| StoreError::Damaged(error.to_string()))).transpose()
    };
    let missing = || StoreError::Damaged(format!("the rejection of {group} has no time"));
    let (actor, group_type) = (optional_id(row, 5, Actor::new)?, optional_id(row, 1, GroupType::new)?);
    let sealed = optional_id(row, 2, DeviceId::new)?.zip(optional_id(row, 3, EpochId::new)?);
    let device_seq: Option<i64> = row.get(4)?;
    let closed_as: Option<Box<str>> = row.get(9)?;
    let rejection = rejection(connection, space_no, &group)?.told_to(scopes);
    let verdict = Verdict::Rejected { rejection, is_duplicate: true };
    Ok(RejectedGroup {
        sealed_as: sealed.zip(device_seq).map(|((device, epoch), device_seq)| SealedAs {
            device,
            epoch,
            device_seq: DeviceSeq(device_seq.unsigned_abs()),
            actor: actor.clone(),
            group_type: group_type.clone(),
        }),
        group_type,
        actor,
        created_at: time(6)?,
        decided_at: time(7)?.ok_or_else(missing)?,
        replaces: optional_id(row, 8, GroupId::new)?,
        closed: match closed_as {
            None => None,
            Some(closed_as) => Some(Closed {
                closed_as,
                by: optional_id(row, 10, GroupId::new)?,
                actor: optional_id(row, 11, Actor::new)?,
                reason: row.get(12)?,
                at: time(13)?.ok_or_else(missing)?,
            }),
        },
        changes: row.get(14)?,
        result: GroupResult { id: group.clone(), verdict },
        id: group,
    })
}
