//! The rows that every push leaves, side by side as one statement takes them: of one space or of several, each table's in the order of
//! its key.

use super::flight::Value;
use super::row::stored;
use super::writer::Entered;
use crate::store::{EpochKey, StoredGroup, Written};
use gbsync_core::change::Payload;
use gbsync_core::decide::Record;
use gbsync_core::id::RecordKey;
use gbsync_core::scope::Trace;
use gbsync_core::wire::flags_json;

/// The columns of all rows, in the order in which the statement names them.
#[derive(Default)]
pub(super) struct Rows<'w> {
    records: Records<'w>,
    entries: Entries<'w>,
    groups: Groups<'w>,
    decided_at: &'w str,
    numbers: Numbers<'w>,
    devices: Devices<'w>,
    spaces: Spaces<'w>,
}

#[derive(Default)]
struct Records<'w> {
    spaces: Vec<i64>,
    of: RecordColumns<'w>,
}

/// The columns of records beside their space.
#[derive(Default)]
pub(super) struct RecordColumns<'w> {
    entities: Vec<&'w str>,
    ids: Vec<&'w str>,
    versions: Vec<i64>,
    edit_versions: Vec<i64>,
    payloads: Vec<Option<&'w str>>,
    marks: Vec<Option<String>>,
    scopes: Vec<Option<String>>,
}

#[derive(Default)]
struct Entries<'w> {
    spaces: Vec<i64>,
    seqs: Vec<i64>,
    change_counts: Vec<i64>,
    chains: Vec<&'w [u8]>,
    texts: Vec<&'w str>,
    parts: Vec<i64>,
    traces: Vec<Option<String>>,
}

#[derive(Default)]
struct Groups<'w> {
    spaces: Vec<i64>,
    ids: Vec<&'w str>,
    digests: Vec<Option<&'w [u8]>>,
    seqs: Vec<Option<i64>>,
    epoch_nos: Vec<Option<i64>>,
    device_seqs: Vec<Option<i64>>,
    flags: Vec<Option<String>>,
}

#[derive(Default)]
struct Numbers<'w> {
    spaces: Vec<i64>,
    epoch_nos: Vec<i64>,
    seqs: Vec<i64>,
    groups: Vec<&'w str>,
}

#[derive(Default)]
struct Devices<'w> {
    spaces: Vec<i64>,
    devices: Vec<&'w str>,
    epochs: Vec<&'w str>,
    epoch_nos: Vec<i64>,
    highest: Vec<i64>,
}

#[derive(Default)]
struct Spaces<'w> {
    spaces: Vec<i64>,
    heads: Vec<i64>,
    chains: Vec<&'w [u8]>,
}

impl<'w> Rows<'w> {
    /// Adds those of a locked space, with those of its records that are new.
    pub(super) fn add(&mut self, entered: &Entered, written: &'w Written, new: &[&'w (RecordKey, Record)]) {
        let space_no = entered.space_no;
        for (key, record) in new {
            self.records.spaces.push(space_no);
            self.records.of.add(key, record);
        }
        for entry in &written.entries {
            let entries = &mut self.entries;
            entries.spaces.push(space_no);
            entries.seqs.push(stored(entry.seq.0));
            entries.change_counts.push(stored(entry.change_count));
            entries.chains.push(entry.chain.as_bytes().as_slice());
            entries.texts.push(&entry.entry);
            entries.parts.push(stored(entry.parts.as_ref().map_or(0, |parts| parts.cuts.len() as u64)));
            entries.traces.push(entry.trace.as_ref().map(Trace::to_json));
        }
        let number = |key: &EpochKey| entered.epochs.get(key).copied();
        let mut groups: Vec<&StoredGroup> = written.groups.iter().collect();
        groups.sort_by(|one, other| one.id.cmp(&other.id));
        groups.into_iter().for_each(|group| self.groups.add(space_no, group, number));
        let mut numbers: Vec<(i64, i64, &str)> = Vec::new();
        for (key, of_epoch) in &written.numbers {
            let (Some(epoch_no), Some((highest, _))) = (number(key), of_epoch.last_key_value()) else { continue };
            numbers.extend(of_epoch.iter().map(|(seq, group)| (epoch_no, stored(seq.0), group.as_str())));
            let devices = &mut self.devices;
            devices.spaces.push(space_no);
            devices.devices.push(key.device.as_str());
            devices.epochs.push(key.epoch.as_str());
            devices.epoch_nos.push(epoch_no);
            devices.highest.push(stored(highest.0));
        }
        numbers.sort_unstable();
        for (epoch_no, seq, group) in numbers {
            self.numbers.spaces.push(space_no);
            self.numbers.epoch_nos.push(epoch_no);
            self.numbers.seqs.push(seq);
            self.numbers.groups.push(group);
        }
        self.spaces.spaces.push(space_no);
        self.spaces.heads.push(stored(written.head.0));
        self.spaces.chains.push(written.chain.as_bytes().as_slice());
        self.decided_at = written.decided_at.as_str();
    }

    /// The values of the statement.
    pub(super) fn values(self) -> Vec<Value<'w>> {
        let Self { records, entries, groups, decided_at, numbers, devices, spaces } = self;
        let mut values: Vec<Value<'w>> = vec![Box::new(records.spaces)];
        values.extend(records.of.values());
        values.extend::<[Value<'w>; 7]>([
            Box::new(entries.spaces),
            Box::new(entries.seqs),
            Box::new(entries.change_counts),
            Box::new(entries.chains),
            Box::new(entries.texts),
            Box::new(entries.parts),
            Box::new(entries.traces),
        ]);
        values.extend::<[Value<'w>; 8]>([
            Box::new(groups.spaces),
            Box::new(groups.ids),
            Box::new(groups.digests),
            Box::new(groups.seqs),
            Box::new(groups.epoch_nos),
            Box::new(groups.device_seqs),
            Box::new(groups.flags),
            Box::new(decided_at),
        ]);
        values.extend::<[Value<'w>; 4]>([
            Box::new(numbers.spaces),
            Box::new(numbers.epoch_nos),
            Box::new(numbers.seqs),
            Box::new(numbers.groups),
        ]);
        values.extend::<[Value<'w>; 5]>([
            Box::new(devices.spaces),
            Box::new(devices.devices),
            Box::new(devices.epochs),
            Box::new(devices.epoch_nos),
            Box::new(devices.highest),
        ]);
        values.extend::<[Value<'w>; 3]>([Box::new(spaces.spaces), Box::new(spaces.heads), Box::new(spaces.chains)]);
        values
    }
}

impl<'w> RecordColumns<'w> {
    /// Adds a record.
    pub(super) fn add(&mut self, key: &'w RecordKey, record: &'w Record) {
        self.entities.push(key.entity.as_str());
        self.ids.push(key.id.as_str());
        self.versions.push(stored(record.version.0));
        self.edit_versions.push(stored(record.edit_version.0));
        self.payloads.push(record.payload.as_ref().map(Payload::as_str));
        self.marks.push(record.marks.as_ref().map(|marks| marks.to_json()));
        self.scopes.push(record.reach.to_json());
    }

    /// The values of a statement.
    pub(super) fn values(self) -> [Value<'w>; 7] {
        [
            Box::new(self.entities),
            Box::new(self.ids),
            Box::new(self.versions),
            Box::new(self.edit_versions),
            Box::new(self.payloads),
            Box::new(self.marks),
            Box::new(self.scopes),
        ]
    }
}

impl<'w> Groups<'w> {
    fn add(&mut self, space_no: i64, group: &'w StoredGroup, number: impl Fn(&EpochKey) -> Option<i64>) {
        let source = group.source.as_ref();
        self.spaces.push(space_no);
        self.ids.push(group.id.as_str());
        self.digests.push(group.digest.as_ref().map(|digest| digest.as_bytes().as_slice()));
        self.seqs.push(group.seq.map(|seq| stored(seq.0)));
        self.epoch_nos.push(source.and_then(|(key, _)| number(key)));
        self.device_seqs.push(source.map(|(_, seq)| stored(seq.0)));
        self.flags.push((!group.flags.is_empty()).then(|| flags_json(&group.flags)));
    }
}
