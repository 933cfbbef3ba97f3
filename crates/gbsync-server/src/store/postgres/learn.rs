//! Records and lists of indexes that a decision needs beside what was loaded with the lock, in one round trip.

use super::flight::Flight;
use super::index::list_of;
use super::row::{count, id, record};
use super::writer::PostgresWriter;
use crate::store::StoreError;
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::id::{Entity, RecordId, RecordKey, SpaceId};
use std::collections::BTreeMap;
use tokio_postgres::Row;

const RECORDS: &str = "
SELECT r.entity, r.id, r.version, r.edit_version, r.payload, r.marks, r.scopes
  FROM unnest($2::text[], $3::text[]) AS w(entity, id)
 CROSS JOIN LATERAL (SELECT * FROM records WHERE space_no = $1 AND entity = w.entity AND id = w.id OFFSET 0) AS r";

pub(super) const LISTS: &str = "
SELECT w.place, i.id
  FROM (SELECT space_no FROM spaces WHERE space = $1) AS s
 CROSS JOIN unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS w(entity, list, place)
 CROSS JOIN LATERAL (SELECT id FROM index_entries WHERE space_no = s.space_no AND entity = w.entity AND list = w.list
                     OFFSET 0) AS i
 ORDER BY w.place, i.id";

/// Held to their plans: see `plans`.
#[cfg(test)]
pub(super) const PLANNED: &[&str] = &[RECORDS, LISTS];

/// Loads what a decision needs.
pub(super) async fn learn(
    writer: &mut PostgresWriter,
    space: &SpaceId,
    needs: &Needs,
    facts: &mut Facts,
) -> Result<(), StoreError> {
    let space_no = writer.inside(space).await?;
    let client = writer.client();
    let (of_records, of_lists) = (client.prepare_cached(RECORDS).await?, client.prepare_cached(LISTS).await?);
    let entities: Vec<&str> = needs.records.iter().map(|key| key.entity.as_str()).collect();
    let ids: Vec<&str> = needs.records.iter().map(|key| key.id.as_str()).collect();
    let ((list_entities, lists), name) = (lists_of(needs), space.as_str());
    let mut flight = Flight::new(client);
    let at_records = (!ids.is_empty()).then(|| flight.add(&of_records, vec![&space_no, &entities, &ids]));
    let at_lists = (!lists.is_empty()).then(|| flight.add(&of_lists, vec![&name, &list_entities, &lists]));
    let rows = flight.land().await?;
    let rows_of = |place: Option<usize>| place.map_or(&[][..], |place| rows[place].as_slice());
    let mut found = BTreeMap::new();
    for row in rows_of(at_records) {
        let key = RecordKey { entity: id(row, 0, Entity::new)?, id: id(row, 1, RecordId::new)? };
        found.insert(key, record(row, 2)?);
    }
    let mut absent = Vec::new();
    for key in &needs.records {
        let record = found.remove(key);
        if record.is_none() {
            absent.push(key.clone());
        }
        facts.learn_record(key.clone(), record);
    }
    if let Some(entered) = writer.entered.get_mut(space) {
        entered.absent.extend(absent);
    }
    hold_lists(facts, needs, rows_of(at_lists))
}

/// What stands for the lists that are needed, side by side.
pub(super) fn lists_of(needs: &Needs) -> (Vec<&str>, Vec<Vec<u8>>) {
    needs.index.iter().map(|key| (key.entity.as_str(), list_of(key))).unzip()
}

/// Takes what is on the lists that are needed.
pub(super) fn hold_lists(facts: &mut Facts, needs: &Needs, rows: &[Row]) -> Result<(), StoreError> {
    let mut members: Vec<Vec<RecordId>> = needs.index.iter().map(|_| Vec::new()).collect();
    for row in rows {
        let place = usize::try_from(count(row, 0)?).ok().and_then(|place| place.checked_sub(1));
        let list = place.and_then(|place| members.get_mut(place));
        list.ok_or_else(|| StoreError::Damaged("a list that nobody asked for".into()))?.push(id(row, 1, RecordId::new)?);
    }
    for (key, ids) in needs.index.iter().zip(members) {
        facts.learn_index(key.clone(), ids);
    }
    Ok(())
}
