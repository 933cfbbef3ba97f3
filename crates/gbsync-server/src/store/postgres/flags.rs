//! `flags`: soft rules that accepted groups broke, until a group clears them.

use super::row::{count, optional_count, stored};
use crate::store::{FlagId, FlagInfo, FlagsRequest, StoreError};
use deadpool_postgres::ClientWrapper;
use gbsync_core::id::{RecordKey, Seq};
use gbsync_core::verdict::{Flag, RejectionCode};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Flags in the order of the log; the first row is the space's.
pub(super) async fn list(client: &ClientWrapper, request: &FlagsRequest) -> Result<Option<Vec<FlagInfo>>, StoreError> {
    let statement = client
        .prepare_cached(
            "SELECT f.seq, f.place, f.code, f.rule, f.message, f.entity, f.id, f.cleared_by
               FROM spaces s LEFT JOIN LATERAL (
                 SELECT * FROM flags AS g WHERE space_no = s.space_no AND (seq, place) > ($2, $3) AND (cleared_by IS NULL OR NOT $4)
                    AND ($6::text IS NULL OR EXISTS (
                      SELECT 1 FROM records r WHERE r.space_no = g.space_no AND r.entity = g.entity AND r.id = g.id
                         AND (r.scopes IS NULL OR EXISTS (SELECT 1 FROM jsonb_array_elements_text(r.scopes::jsonb) AS held(scope)
                           WHERE held.scope IN (SELECT jsonb_array_elements_text($6::text::jsonb))))))
                  ORDER BY seq, place LIMIT $5) AS f ON true
              WHERE s.space = $1 ORDER BY f.seq, f.place",
        )
        .await?;
    let (seq, place) = request.after.map_or((0, -1), |after| (stored(after.seq.0), stored(after.place)));
    let most = stored(request.most);
    let scopes = request.scopes.to_json();
    let values: [&(dyn ToSql + Sync); 6] = [&request.space.as_str(), &seq, &place, &request.is_open_only, &most, &scopes];
    let rows = client.query(&statement, &values).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut flags = Vec::new();
    for row in &rows {
        if optional_count(row, 0)?.is_some() {
            flags.push(info(row)?);
        }
    }
    Ok(Some(flags))
}

/// A flag, from eight columns.
pub(super) fn info(row: &Row) -> Result<FlagInfo, StoreError> {
    let damaged = |what: String| StoreError::Damaged(format!("a flag: {what}"));
    let (code, entity, id): (&str, Option<&str>, Option<&str>) = (row.try_get(2)?, row.try_get(5)?, row.try_get(6)?);
    let code = RejectionCode::from_wire(code).ok_or_else(|| damaged(format!("{code:?} is no code")))?;
    let key = entity.zip(id).map(|(entity, id)| RecordKey::new(entity, id)).transpose();
    let key = key.map_err(|error| damaged(error.to_string()))?;
    let flag = Flag { code, rule: row.try_get(3)?, message: row.try_get(4)?, key };
    let flag_id = FlagId { seq: Seq(count(row, 0)?), place: count(row, 1)? };
    Ok(FlagInfo { id: flag_id, flag, cleared_by: optional_count(row, 7)?.map(Seq) })
}
