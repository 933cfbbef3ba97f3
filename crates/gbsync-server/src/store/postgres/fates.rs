//! What became of groups that were rejected and of families: looked for only where a known group says that there is something.

use super::row::{id, optional_id};
use crate::store::{Decided, DecidedAs, Held, StoreError, kept};
use deadpool_postgres::ClientWrapper;
use gbsync_core::digest::Digest;
use gbsync_core::id::{Actor, GroupId};
use gbsync_core::verdict::{Resolution, ResolvedAs};
use std::collections::BTreeMap;
use tokio_postgres::Row;

/// Of groups that are of a family, or that were rejected: why, who won in the family and how it was closed.
const FATES: &str = "
SELECT w.group_id, r.result, f.root, v.group_id, c.of_group, c.closed_as, c.closed_by, c.actor, c.reason
  FROM unnest($2::text[]) AS w(group_id)
  LEFT JOIN LATERAL (SELECT result FROM rejections WHERE space_no = $1 AND group_id = w.group_id OFFSET 0) AS r ON true
  LEFT JOIN LATERAL (SELECT root FROM families WHERE space_no = $1 AND group_id = w.group_id OFFSET 0) AS f ON true
  LEFT JOIN LATERAL (SELECT group_id FROM family_winners WHERE space_no = $1 AND root = f.root OFFSET 0) AS v ON true
  LEFT JOIN LATERAL (SELECT * FROM family_closures WHERE space_no = $1 AND root = f.root OFFSET 0) AS c ON true";

/// Held to its plan: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[FATES];

/// A group that was rejected, or that is of a family.
pub(super) struct Unclear {
    pub(super) id: GroupId,
    /// `None` for one that has no verdict, only a family; its digest otherwise.
    pub(super) rejected: Option<Option<Digest>>,
}

/// Why groups were rejected, and what became of their families.
pub(super) async fn fates(
    client: &ClientWrapper,
    space_no: i64,
    held: &mut Held,
    unclear: Vec<Unclear>,
) -> Result<(), StoreError> {
    if unclear.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(FATES).await?;
    let ids: Vec<&str> = unclear.iter().map(|unclear| unclear.id.as_str()).collect();
    let rows = client.query(&statement, &[&space_no, &ids]).await?;
    let rejected: BTreeMap<&str, Option<Digest>> =
        unclear.iter().filter_map(|unclear| Some((unclear.id.as_str(), unclear.rejected?))).collect();
    for row in &rows {
        let group = id(row, 0, GroupId::new)?;
        if let Some(digest) = rejected.get(group.as_str()) {
            let rejection = kept::rejection(&group, row.try_get(1)?)?;
            let outcome = DecidedAs::Rejected(Box::new(rejection));
            held.groups.insert(group.clone(), Decided { digest: *digest, outcome });
        }
        hold_family(held, group, row)?;
    }
    Ok(())
}

fn hold_family(held: &mut Held, group: GroupId, row: &Row) -> Result<(), StoreError> {
    let Some(root) = optional_id(row, 2, GroupId::new)? else { return Ok(()) };
    if let Some(winner) = optional_id(row, 3, GroupId::new)? {
        held.winners.insert(root.clone(), winner);
    }
    if let Some(of) = optional_id(row, 4, GroupId::new)? {
        let word: &str = row.try_get(5)?;
        let resolution = Resolution {
            of,
            resolved_as: ResolvedAs::from_wire(word)
                .ok_or_else(|| StoreError::Damaged(format!("a family is closed as {word:?}")))?,
            by: optional_id(row, 6, GroupId::new)?,
            actor: optional_id(row, 7, Actor::new)?,
            reason: row.try_get::<_, Option<&str>>(8)?.map(Into::into),
        };
        held.closures.insert(root.clone(), resolution);
    }
    held.roots.insert(group, root);
    Ok(())
}
