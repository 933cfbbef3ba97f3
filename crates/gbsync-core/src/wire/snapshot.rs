//! `GET …/snapshot`: the full state of a space at one `seq`, one JSON object a line.
//!
//! Invariant: a snapshot is complete only with its last line, which counts the lines between it and the first.
//!
//! Tombstones travel with it as records without a payload, as far as the log behind the horizon still names them: a device
//! that loads a snapshot decides about deleted records as one that read the log.

use super::flags::{flag, push_flags};
use super::log::{LogChange, LogState};
use super::read::{Fields, Read, WireError, parse_passing, push_count, push_text, wrong};
use crate::digest::Digest;
use crate::id::{GroupId, LogId, RecordKey, Seq};
use crate::json::{Node, Value, push_string};
use crate::limits::PAYLOAD_DEPTH;
use crate::verdict::Flag;

/// Levels of a line around a payload: the record.
const DEPTH: usize = PAYLOAD_DEPTH + 1;

/// The first line: what the records are the state of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The place of the log.
    pub seq: Seq,
    /// The log.
    pub log: LogId,
    /// The chain at `seq`.
    pub chain: Digest,
    /// The records that follow, tombstones included.
    pub records: u64,
    /// Tombstones up to here are left out.
    pub horizon: Seq,
    /// The schema that records are brought to in this state, or are being brought to; 0 without one.
    pub schema_version: u64,
}

impl SnapshotHead {
    /// The line, without its end.
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\"seq\":{}", self.seq);
        push_text(&mut out, "log", self.log.as_str());
        push_text(&mut out, "chain", &self.chain.to_string());
        push_count(&mut out, "records", self.records);
        push_count(&mut out, "horizon", self.horizon.0);
        if self.schema_version > 0 {
            push_count(&mut out, "schemaVersion", self.schema_version);
        }
        out.push('}');
        out
    }

    /// Reads the first line.
    ///
    /// # Errors
    /// [`WireError`] when it is not what the protocol says: then nothing of the snapshot may be used.
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        let (node, _) = parse_passing(line, DEPTH)?;
        let fields = Fields::of(&node)?;
        let chain = Digest::from_hex(fields.text("chain")?);
        Ok(Self {
            seq: Seq(fields.count("seq")?),
            log: fields.id("log", |text| LogId::new(text))?,
            chain: chain.ok_or_else(|| WireError::new("is no SHA-256").within("chain"))?,
            records: fields.count("records")?,
            horizon: Seq(fields.optional_count("horizon")?.unwrap_or(0)),
            schema_version: fields.optional_count("schemaVersion")?.unwrap_or(0),
        })
    }
}

/// A record of a snapshot as a store has it.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotRow<'r> {
    /// Its kind.
    pub entity: &'r str,
    /// Its id.
    pub id: &'r str,
    /// The `seq` that last changed it.
    pub version: Seq,
    /// The `seq` of its last change other than an increment.
    pub edit_version: Seq,
    /// Its payload in canonical form; `None` for a tombstone.
    pub payload: Option<&'r str>,
}

impl SnapshotRow<'_> {
    /// Appends the line, with its end.
    pub fn push_json(&self, out: &mut String) {
        out.push_str("{\"entity\":");
        push_string(out, self.entity);
        push_text(out, "id", self.id);
        push_count(out, "version", self.version.0);
        push_count(out, "editVersion", self.edit_version.0);
        out.push_str(",\"payload\":");
        out.push_str(self.payload.unwrap_or("null"));
        out.push_str("}\n");
    }
}

/// A soft rule that a group of the log broke, and that nobody has cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFlag {
    /// The group's place in the log.
    pub seq: Seq,
    /// Which of the group's flags it is.
    pub place: u64,
    /// The group.
    pub group: GroupId,
    /// The flag.
    pub flag: Flag,
}

impl SnapshotFlag {
    /// Appends the line, with its end.
    pub fn push_json(&self, out: &mut String) {
        let Self { seq, place, group, flag } = self;
        out.push_str(&format!("{{\"flag\":{{\"seq\":{seq},\"place\":{place}"));
        push_text(out, "syncGroupId", group.as_str());
        out.push(',');
        // The flag as the log has it.
        let mut list = String::new();
        push_flags(&mut list, std::slice::from_ref(flag));
        out.push_str(list.trim_start_matches("[{").trim_end_matches("}]"));
        out.push_str("}}\n");
    }
}

/// The last line, without its end.
pub fn snapshot_end_json(records: u64) -> String {
    format!("{{\"end\":true,\"records\":{records}}}")
}

/// A line behind the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotLine {
    /// A record, or the tombstone of one.
    Record(LogChange),
    /// The end, with the count of records before it.
    End {
        /// How many.
        records: u64,
    },
    /// An open flag.
    Flag(SnapshotFlag),
    /// A line of a later version, which says nothing of records.
    Other,
}

impl SnapshotLine {
    /// Reads a line behind the first.
    ///
    /// # Errors
    /// [`WireError`] when it is not what the protocol says: then nothing of the snapshot may be used.
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        let (node, text) = parse_passing(line, DEPTH)?;
        let fields = Fields::of(&node)?;
        if let Some(end) = fields.optional("end") {
            return match end.value {
                Value::Bool(true) => Ok(Self::End { records: fields.count("records")? }),
                _ => Err(wrong(end, "true").within("end")),
            };
        }
        if let Some(node) = fields.optional("flag") {
            return open_flag(node).map(Self::Flag).map_err(|error| error.within("flag"));
        }
        if fields.optional("entity").is_none() {
            return Ok(Self::Other);
        }
        record(&fields, text).map(Self::Record)
    }
}

fn record(fields: &Fields<'_, '_>, text: &str) -> Read<LogChange> {
    let payload = fields.required("payload")?;
    let state = match () {
        () if payload.is_null() => LogState::Deleted,
        () if payload.is_object() => LogState::Live(payload.canonical_in(text).into()),
        () => return Err(wrong(payload, "an object or null").within("payload")),
    };
    let version = Seq(fields.count("version")?);
    let edit_version = fields.optional_count("editVersion")?.map_or(version, Seq);
    let key =
        RecordKey::new(fields.text("entity")?, fields.text("id")?).map_err(|error| WireError::new(error.to_string()))?;
    Ok(LogChange { key, version, edit_version, state, is_cascade: false })
}

fn open_flag(node: &Node<'_>) -> Read<SnapshotFlag> {
    let fields = Fields::of(node)?;
    let group = fields.id("syncGroupId", |text| GroupId::new(text))?;
    Ok(SnapshotFlag { seq: Seq(fields.count("seq")?), place: fields.count("place")?, group, flag: flag(node)? })
}
