//! Numbers of sequences, learned from accepted records, so that a device that lost its own count goes on above them.
//!
//! A record counts for the device that made it: one that another device edits later keeps its number. Which epoch wrote the
//! number does not matter: its short name keeps epochs apart, the count goes on over all of them.

use gbsync_core::decide::{Facts, Outcome};
use gbsync_core::id::DeviceId;
use gbsync_core::schema::{Schema, SequenceFormat, SequencePart};
use std::collections::BTreeMap;

/// Characters of a device's short name.
const SHORT_NAME: usize = 6;

/// The highest numbers that a transaction learned, by device and sequence.
pub(super) type Highest = BTreeMap<(DeviceId, String), u64>;

/// Learns from the records that a group made anew. To be asked before the facts take the outcomes.
pub(super) fn learn(schema: &Schema, device: &DeviceId, facts: &Facts, outcomes: &[Outcome], highest: &mut Highest) {
    if schema.sequences.is_empty() {
        return;
    }
    for Outcome { key, record, .. } in outcomes {
        let is_new = facts.found(key).is_none_or(|record| record.payload.is_none());
        let (Some(rules), Some(payload)) = (schema.entity(&key.entity), record.payload.as_ref().filter(|_| is_new)) else {
            continue;
        };
        let mut node = None;
        for (name, sequence) in rules.fields.iter().filter_map(|(name, field)| Some((name, field.sequence.as_ref()?))) {
            let Some(rules) = schema.sequences.get(sequence) else { continue };
            let node = node.get_or_insert_with(|| payload.node());
            let Some(number) = node.member(name).and_then(|value| number_in(&rules.format, value.as_str()?)) else {
                continue;
            };
            let known = highest.entry((device.clone(), sequence.clone())).or_default();
            *known = number.max(*known);
        }
    }
}

/// The number in a text of this format; `None` when it is of another.
fn number_in(format: &SequenceFormat, text: &str) -> Option<u64> {
    let (mut rest, mut number) = (text, None);
    for part in &format.parts {
        let length = match part {
            SequencePart::Text(text) => rest.starts_with(text.as_str()).then_some(text.len())?,
            SequencePart::Device => {
                let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                rest.get(..SHORT_NAME).filter(|name| is_name(name)).map(str::len)?
            }
            SequencePart::Number { .. } => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                // The protocol's numbers are below 2^53; a larger one is no number of ours.
                number = Some(rest[..digits].parse::<u64>().ok().filter(|number| *number < 1 << 53)?);
                digits
            }
        };
        rest = &rest[length..];
    }
    number.filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(parts: Vec<SequencePart>) -> SequenceFormat {
        SequenceFormat { parts }
    }

    #[test]
    fn a_number_is_read_where_the_format_has_it() {
        let text = |text: &str| SequencePart::Text(text.into());
        let (device, number) = (SequencePart::Device, SequencePart::Number { width: 6 });
        let with_device = format(vec![device, text("-"), number.clone()]);
        assert_eq!(number_in(&with_device, "k3x7qa-000041"), Some(41));
        assert_eq!(number_in(&with_device, "k3x7qa-1000041"), Some(1_000_041));
        for other in
            ["k3x7qa-", "k3x7q-000041", "k3x7qa-000041x", "k3x7qa_000041", "", "é3x7q-000041", "k3x7qa-99999999999999999999"]
        {
            assert_eq!(number_in(&with_device, other), None, "{other}");
        }
        assert_eq!(number_in(&format(vec![text("R"), number, text("/26")]), "R000007/26"), Some(7));
    }
}
