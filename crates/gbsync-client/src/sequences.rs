//! Numbers that are allotted when an operation is sealed: never one twice, whatever becomes of the operation, and not by a
//! copy of the file either, because a number carries a short name of device and epoch.
//!
//! Rejected alternative: ranges handed out by the server; a till that is offline for long would run out of them.

use crate::error::{Error, damaged};
use crate::operation::staging::Staging;
use crate::store::{Tx, sequence};
use gbsync_core::change::{Edit, Payload};
use gbsync_core::digest::Digest;
use gbsync_core::id::{DeviceId, EpochId, RecordKey};
use gbsync_core::json::{self, Node, Value};
use gbsync_core::limits::PAYLOAD_DEPTH;
use gbsync_core::schema::{FieldKind, Schema, SequenceFormat, SequencePart};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The letters of a short name: none that a person confuses with another (Crockford's base 32).
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The edits of records that the operation creates without their numbers, with numbers taken for them.
pub(crate) fn fill(tx: &Tx<'_>, staging: &Staging) -> Result<BTreeMap<RecordKey, Vec<Edit>>, Error> {
    let mut filled = BTreeMap::new();
    let Some(schema) = tx.schemas().app().filter(|schema| !schema.sequences.is_empty()) else { return Ok(filled) };
    for (key, record) in staging.changed() {
        let Some(rules) = schema.entity(&key.entity).filter(|_| record.seen.payload.is_none()) else { continue };
        let numbered: Vec<_> = rules
            .fields
            .iter()
            .filter_map(|(name, field)| Some((name.as_str(), field.kind, field.sequence.as_deref()?)))
            .collect();
        let place = record.edits.iter().rposition(|edit| matches!(edit, Edit::Upsert(_)));
        let (Some(place), false) = (place, numbered.is_empty()) else { continue };
        let Some(payload) = record.edits[place].payload() else { continue };
        if let Some(payload) = fill_payload(tx, schema, staging, key, payload, &numbered)? {
            let mut edits = record.edits.clone();
            edits[place] = Edit::Upsert(payload);
            filled.insert(key.clone(), edits);
        }
    }
    Ok(filled)
}

fn fill_payload(
    tx: &Tx<'_>,
    schema: &Schema,
    staging: &Staging,
    key: &RecordKey,
    payload: &Payload,
    numbered: &[(&str, FieldKind, &str)],
) -> Result<Option<Payload>, Error> {
    let text = payload.as_str();
    let mut node = json::parse(text.as_bytes(), PAYLOAD_DEPTH + 1).map_err(|error| damaged("a staged payload", error))?;
    let Value::Object(members) = &mut node.value else { return Err(damaged("a staged payload", "it is no object")) };
    let mut is_filled = false;
    for (name, kind, sequence) in numbered {
        let present = members.iter().position(|(member, _)| member == name);
        if present.is_some_and(|place| !members[place].1.is_null()) {
            continue;
        }
        let Some(rules) = schema.sequences.get(*sequence) else { continue };
        let (device, epoch) = sequence::giver(tx)?;
        let number = write(&rules.format, &short_name(&device, &epoch), sequence::next(tx, sequence)?);
        let value = match kind {
            FieldKind::Integer if number.parse::<i64>().is_ok() => Value::Number(Cow::Owned(number)),
            _ => Value::String(Cow::Owned(number)),
        };
        match present {
            Some(place) => members[place].1 = Node::computed(value),
            None => members.push((Cow::Owned((*name).to_owned()), Node::computed(value))),
        }
        is_filled = true;
    }
    if !is_filled {
        return Ok(None);
    }
    let text = json::canonical(&Node::computed(node.value));
    let filled = Payload::parse(&text, staging.limits());
    filled.map(Some).map_err(|source| Error::InvalidPayload { key: key.clone(), source })
}

fn write(format: &SequenceFormat, device: &str, n: u64) -> String {
    let part = |part: &SequencePart| match part {
        SequencePart::Text(text) => text.clone(),
        SequencePart::Device => device.to_owned(),
        SequencePart::Number { width } => format!("{n:0width$}"),
    };
    format.parts.iter().map(part).collect()
}

/// Six letters for a device in one life of its database.
fn short_name(device: &DeviceId, epoch: &EpochId) -> String {
    let digest = Digest::of(format!("{device}\n{epoch}").as_bytes());
    let bits = digest.as_bytes()[..4].iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
    (0..6).map(|place| char::from(LETTERS[(bits >> (27 - 5 * place)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_number_carries_the_device_and_its_epoch() {
        let format = SequenceFormat {
            parts: vec![SequencePart::Device, SequencePart::Text("-".into()), SequencePart::Number { width: 6 }],
        };
        let device = DeviceId::new("till-1").unwrap();
        let name = |epoch: &str| short_name(&device, &EpochId::new(epoch).unwrap());
        assert_eq!(name("epoch-1").len(), 6);
        assert_ne!(name("epoch-1"), name("epoch-2"));
        assert_eq!(write(&format, &name("epoch-1"), 42), format!("{}-000042", name("epoch-1")));
    }
}
