//! `rejections`, as the back office reads them.

use super::row::{id, optional_count, optional_id, stored, time};
use crate::store::{RejectionsRequest, StoreError, kept};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{Closed, GroupResult, RejectedGroup, SealedAs};
use tokio_postgres::Row;

const COLUMNS: &str = "
SELECT r.group_id, r.group_type, d.device, d.epoch, g.device_seq, r.actor, r.created_at, g.decided_at, r.replaces,
       r.closed_as, r.closed_by, r.closed_actor, r.closed_reason, r.closed_at, r.changes, r.result
  FROM rejections AS r
 CROSS JOIN LATERAL (SELECT * FROM groups WHERE space_no = r.space_no AND group_id = r.group_id OFFSET 0) AS g
  LEFT JOIN LATERAL (SELECT device, epoch FROM devices WHERE space_no = r.space_no AND epoch_no = g.epoch_no OFFSET 0) AS d ON true
 WHERE r.space_no = (SELECT space_no FROM spaces WHERE space = $1)";

/// That the author of a group held no scope beside these, a JSON array; NULL stands for everything.
const IS_COVERED: &str = "($3::text IS NULL OR r.scopes::jsonb <@ $3::text::jsonb)";

/// Rejections in the order they came.
pub(super) async fn list(
    client: &ClientWrapper,
    request: &RejectionsRequest,
) -> Result<Option<Vec<RejectedGroup>>, StoreError> {
    let known = client.prepare_cached("SELECT 1 FROM spaces WHERE space = $1").await?;
    let space = request.space.as_str();
    if client.query_opt(&known, &[&space]).await?.is_none() {
        return Ok(None);
    }
    let statement = client
        .prepare_cached(&format!(
            "{COLUMNS} AND r.came > 0 AND r.came > coalesce((SELECT came FROM rejections WHERE space_no = r.space_no AND group_id = $2), 0)
                AND {IS_COVERED} AND ($4::boolean IS NULL OR (r.closed_as IS NOT NULL) = $4) ORDER BY r.came LIMIT $5"
        ))
        .await?;
    let (after, most) = (request.after.as_ref().map(GroupId::as_str), stored(request.most));
    let scopes = request.scopes.to_json();
    let rows = client.query(&statement, &[&space, &after, &scopes, &request.is_closed, &most]).await?;
    let without_changes = |row| Ok(RejectedGroup { changes: None, ..rejected(row, &request.scopes)? });
    rows.iter().map(without_changes).collect::<Result<_, _>>().map(Some)
}

/// One rejection, with its changes.
pub(super) async fn one(
    client: &ClientWrapper,
    space: &SpaceId,
    group: &GroupId,
    scopes: &ScopeSet,
) -> Result<Option<RejectedGroup>, StoreError> {
    let statement = client.prepare_cached(&format!("{COLUMNS} AND r.group_id = $2 AND {IS_COVERED}")).await?;
    let row = client.query_opt(&statement, &[&space.as_str(), &group.as_str(), &scopes.to_json()]).await?;
    row.as_ref().map(|row| rejected(row, scopes)).transpose()
}

fn rejected(row: &Row, scopes: &ScopeSet) -> Result<RejectedGroup, StoreError> {
    let group = id(row, 0, GroupId::new)?;
    let missing = || StoreError::Damaged(format!("the rejection of {group} has no time"));
    let (actor, group_type) = (optional_id(row, 5, Actor::new)?, optional_id(row, 1, GroupType::new)?);
    let sealed = optional_id(row, 2, DeviceId::new)?.zip(optional_id(row, 3, EpochId::new)?);
    let device_seq = if sealed.is_some() { optional_count(row, 4)? } else { None };
    let closed_as: Option<&str> = row.try_get(9)?;
    let rejection = kept::rejection(&group, row.try_get(15)?)?.told_to(scopes);
    Ok(RejectedGroup {
        sealed_as: sealed.zip(device_seq).map(|((device, epoch), device_seq)| SealedAs {
            device,
            epoch,
            device_seq: DeviceSeq(device_seq),
            actor: actor.clone(),
            group_type: group_type.clone(),
        }),
        group_type,
        actor,
        created_at: time(row, 6)?,
        decided_at: time(row, 7)?.ok_or_else(missing)?,
        replaces: optional_id(row, 8, GroupId::new)?,
        closed: match closed_as {
            None => None,
            Some(closed_as) => Some(Closed {
                closed_as: closed_as.into(),
                by: optional_id(row, 10, GroupId::new)?,
                actor: optional_id(row, 11, Actor::new)?,
                reason: row.try_get::<_, Option<&str>>(12)?.map(Into::into),
                at: time(row, 13)?.ok_or_else(missing)?,
            }),
        },
        changes: row.try_get::<_, Option<&str>>(14)?.map(Into::into),
        result: GroupResult { id: group.clone(), verdict: Verdict::Rejected { rejection, is_duplicate: true } },
        id: group,
    })
}
