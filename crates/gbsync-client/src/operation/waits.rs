//! Which groups a group waits for because of references (DESIGN: what creates a record must come before what refers to it,
//! and what refers to a record before what deletes it).

use super::seal::Laid;
use crate::cascade;
use crate::error::{Error, damaged};
use crate::store::Tx;
use crate::view;
use gbsync_core::change::Payload;
use gbsync_core::decide::{IndexKey, entries};
use gbsync_core::depend::Touch;
use gbsync_core::id::{RecordId, RecordKey};
use gbsync_core::json::push_string;
use gbsync_core::schema::{OnDelete, Schema};
use rusqlite::params;
use std::collections::BTreeSet;

/// The overlay groups that a group waits for because of references, latest first.
pub(super) fn by_references(tx: &Tx<'_>, laid: &[Laid<'_>]) -> Result<BTreeSet<i64>, Error> {
    let mut groups = BTreeSet::new();
    let Some(schema) = tx.schemas().effective() else { return Ok(groups) };
    let own: BTreeSet<&RecordKey> = laid.iter().map(|laid| laid.key).collect();
    let mut deleted = Vec::new();
    for Laid { key, touch, payload, .. } in laid {
        let Ok(payload) = payload else { continue };
        if *touch == Touch::Delete {
            deleted.push((*key).clone());
        }
        for target in cascade::references(tx, key, payload.as_ref(), |_| true)? {
            if !own.contains(&target) {
                groups.extend(view::of(tx, &target)?.trail.born_or_died);
            }
        }
    }
    let mut seen: BTreeSet<RecordKey> = deleted.iter().cloned().collect();
    while let Some(target) = deleted.pop() {
        for (entity, field, reference) in schema.referrers(&target.entity) {
            if reference.on_delete == OnDelete::Ignore {
                continue;
            }
            let list = IndexKey { entity: entity.clone(), fields: field.into(), value: target.id.as_str().into() };
            for id in referred(tx, schema, &list)? {
                let key = RecordKey { entity: entity.clone(), id };
                groups.extend(view::of(tx, &key)?.trail.edited);
            }
        }
        // What is taken along is deleted as well.
        if cascade::takes_along(schema, &target) {
            deleted.extend(cascade::followers(tx, &target)?.into_iter().filter(|key| seen.insert(key.clone())));
        }
    }
    Ok(groups)
}

/// Records under the overlay that refer to a record or did so before an overlay group changed or deleted them.
fn referred(tx: &Tx<'_>, schema: &Schema, list: &IndexKey) -> Result<BTreeSet<RecordId>, Error> {
    // A text that does not hold the id refers to nothing by it; the others are read.
    let mut holds = String::new();
    push_string(&mut holds, &list.value);
    let holds = &holds[1..holds.len() - 1];
    let mut statement = tx.prepare_cached(
        "SELECT id, payload FROM gbsync_overlay WHERE entity = ?1 AND instr(payload, ?2)
         UNION ALL
         SELECT b.id, b.payload FROM gbsync_overlay AS o CROSS JOIN gbsync_base AS b ON b.entity = o.entity AND b.id = o.id
          WHERE o.entity = ?1 AND instr(b.payload, ?2)",
    )?;
    let mut rows = statement.query(params![list.entity.as_str(), holds])?;
    let mut found = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let id = RecordId::new(row.get::<_, Box<str>>(0)?).map_err(|error| damaged("gbsync_overlay", error))?;
        let key = RecordKey { entity: list.entity.clone(), id };
        if entries(schema, &key, &Payload::from_stored(row.get::<_, Box<str>>(1)?)).contains(list) {
            found.insert(key.id);
        }
    }
    Ok(found)
}
