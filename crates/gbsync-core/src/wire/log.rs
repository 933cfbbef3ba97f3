//! `GET …/log`: pages of whole groups as resulting states.

use super::flags::{flag, push_flags};
use super::push::{flag_id, hlc, push_texts};
use super::read::{ENVELOPE_BYTES, Fields, Read, WireError, each, parse_passing, push_count, push_joined, push_text, wrong};
use super::resolution::read_resolution;
use crate::clock::Hlc;
use crate::decide::Outcome;
use crate::digest::Digest;
use crate::id::{Actor, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, RecordKey, Seq};
use crate::json::{Node, push_string};
use crate::limits::PAYLOAD_DEPTH;
use crate::time::Timestamp;
use crate::verdict::{Flag, Resolution};

/// Levels of a page around a payload: page, groups, entry, changes, change.
const DEPTH: usize = PAYLOAD_DEPTH + 5;

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// Entries in `seq` order.
    pub entries: Vec<LogEntry>,
    /// The cursor after this page.
    pub next: Seq,
    /// The chain at `next`.
    pub chain: Digest,
    /// The last `seq` of the log.
    pub head: Seq,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub seq: Seq,
    /// The group; `None` for an entry that changes no record, such as a resolution.
    pub group: Option<LogGroup>,
    /// How somebody closed a rejection; `None` for an entry that is a group.
    pub resolution: Option<Resolution>,
}

/// An accepted group as every device applies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGroup {
    /// Its id.
    pub id: GroupId,
    /// The device that made it.
    pub device: DeviceId,
    /// In which life of its database.
    pub epoch: EpochId,
    /// Its number there.
    pub device_seq: DeviceSeq,
    /// The clock of its maker.
    pub hlc: Option<Hlc>,
    /// Soft rules that it broke; each is named `{seq}.{place}`.
    pub flags: Vec<Flag>,
    /// The names of flags that it cleared.
    pub clears: Vec<Box<str>>,
    /// The rejected group that it was sent instead of.
    pub replaces: Option<GroupId>,
    /// The records as it leaves them; none when they are to be asked for in parts.
    pub changes: Vec<LogChange>,
    /// How its changes are to be asked for, when they are too large for a page.
    pub in_parts: Option<LogParts>,
}

/// A group of the log that no page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogParts {
    /// How many parts there are, numbered from 0.
    pub parts: u64,
    /// Changes of all parts together.
    pub change_count: u64,
}

/// A record as a group leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChange {
    /// The record.
    pub key: RecordKey,
    /// The `seq` that last changed it.
    pub version: Seq,
    /// The `seq` of its last change other than an increment.
    pub edit_version: Seq,
    /// What it is now.
    pub state: LogState,
    /// Whether the group did not name it, and it was deleted because a record that it refers to was.
    pub is_cascade: bool,
}

/// What a record is after a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// This, in canonical form.
    Live(Box<str>),
    /// Deleted.
    Deleted,
    /// Out of what this device may see.
    Left,
}

impl LogPage {
    /// Reads a page and checks that it goes forward without a step back: entries in order, `next` at or after the last.
    ///
    /// # Errors
    /// [`WireError`] when it is not what the protocol says: then nothing of it may be applied.
    pub fn parse(text: &[u8]) -> Result<Self, WireError> {
        let (node, text) = parse_passing(text, DEPTH)?;
        let fields = Fields::of(&node)?;
        let entries = each("groups", fields.array("groups")?, |entry| log_entry(entry, text))?;
        let chain =
            Digest::from_hex(fields.text("chain")?).ok_or_else(|| WireError::new("is no SHA-256").within("chain"))?;
        let page = Self { entries, next: Seq(fields.count("next")?), chain, head: Seq(fields.count("head")?) };
        page.check_order()?;
        Ok(page)
    }

    pub(super) fn check_order(&self) -> Read<()> {
        let is_ordered = self.entries.is_sorted_by(|a, b| a.seq < b.seq);
        if !is_ordered || self.entries.last().is_some_and(|last| last.seq > self.next) || self.next > self.head {
            return Err(WireError::new("entries, next and head are out of order"));
        }
        Ok(())
    }
}

pub(super) fn log_entry(node: &Node<'_>, text: &str) -> Read<LogEntry> {
    let fields = Fields::of(node)?;
    let seq = Seq(fields.count("seq")?);
    if let Some(resolution) = fields.optional("resolution") {
        let resolution = read_resolution(resolution).map_err(|error| error.within("resolution"))?;
        return Ok(LogEntry { seq, group: None, resolution: Some(resolution) });
    }
    let (changes, in_parts) = entry_changes(&fields, text)?;
    let group = LogGroup {
        id: fields.id("syncGroupId", |text| GroupId::new(text))?,
        device: fields.id("device", |text| DeviceId::new(text))?,
        epoch: fields.id("epoch", |text| EpochId::new(text))?,
        device_seq: DeviceSeq(fields.count("deviceSeq")?),
        hlc: hlc(&fields)?,
        flags: each("flags", fields.optional_array("flags")?, flag)?,
        clears: each("clears", fields.optional_array("clears")?, flag_id)?,
        replaces: fields.optional_id("replaces", |text| GroupId::new(text))?,
        changes,
        in_parts,
    };
    Ok(LogEntry { seq, group: Some(group), resolution: None })
}

fn entry_changes(fields: &Fields<'_, '_>, text: &str) -> Read<(Vec<LogChange>, Option<LogParts>)> {
    let change_count = fields.count("changeCount")?;
    match fields.optional_count("parts")? {
        None => {
            let changes = each("changes", fields.array("changes")?, |change| log_change(change, text))?;
            if change_count != changes.len() as u64 {
                return Err(WireError::new("does not fit the changes").within("changeCount"));
            }
            Ok((changes, None))
        }
        Some(_) if fields.optional("changes").is_some() => {
            Err(WireError::new("an entry has changes or parts, not both").within("parts"))
        }
        Some(0) => Err(WireError::new("must be above 0").within("parts")),
        Some(parts) => Ok((Vec::new(), Some(LogParts { parts, change_count }))),
    }
}

/// Reads one part of an entry: an array of its changes.
///
/// # Errors
/// [`WireError`] when it is not what the protocol says: then nothing of it may be kept.
pub fn parse_log_part(text: &[u8]) -> Result<Vec<LogChange>, WireError> {
    let (node, text) = parse_passing(text, DEPTH)?;
    let items = node.as_array().ok_or_else(|| wrong(&node, "an array"))?;
    items.iter().enumerate().map(|(index, item)| log_change(item, text).map_err(|error| error.within(index))).collect()
}

fn log_change(node: &Node<'_>, text: &str) -> Read<LogChange> {
    let fields = Fields::of(node)?;
    let state = match fields.text("action")? {
        "upsert" => {
            let payload = fields.required("payload")?;
            if !payload.is_object() {
                return Err(wrong(payload, "an object").within("payload"));
            }
            LogState::Live(payload.canonical_in(text).into())
        }
        "delete" => LogState::Deleted,
        "leave" => LogState::Left,
        other => return Err(WireError::new(format!("{other:?} is no action of a log")).within("action")),
    };
    let version = Seq(fields.count("version")?);
    let edit_version = fields.optional_count("editVersion")?.map_or(version, Seq);
    let key =
        RecordKey::new(fields.text("entity")?, fields.text("id")?).map_err(|error| WireError::new(error.to_string()))?;
    let is_cascade = fields.optional_text("cause")? == Some("cascade");
    Ok(LogChange { key, version, edit_version, state, is_cascade })
}

/// What an entry says of its group beside the changes.
#[derive(Debug, Clone)]
pub struct EntryHeader<'a> {
    /// Its place.
    pub seq: Seq,
    /// The group.
    pub id: &'a GroupId,
    /// The kind of operation.
    pub group_type: Option<&'a GroupType>,
    /// The device that made it.
    pub device: &'a DeviceId,
    /// In which life of its database.
    pub epoch: &'a EpochId,
    /// Its number there.
    pub device_seq: DeviceSeq,
    /// Who made it.
    pub actor: Option<&'a Actor>,
    /// When its maker says it was made.
    pub created_at: &'a Timestamp,
    /// When the server committed it.
    pub committed_at: &'a Timestamp,
    /// The rejected group that it was sent instead of.
    pub replaces: Option<&'a GroupId>,
    /// The clock of its maker.
    pub hlc: Option<&'a Hlc>,
    /// Soft rules that it broke.
    pub flags: &'a [Flag],
    /// The names of flags that it cleared.
    pub clears: &'a [Box<str>],
}

/// The resulting states of a group, as the log stores and chains them.
pub fn changes_json(outcomes: &[Outcome]) -> String {
    let mut out = String::from("[");
    for (index, Outcome { key, record, cause }) in outcomes.iter().enumerate() {
        out.push_str(if index > 0 { ",{\"entity\":" } else { "{\"entity\":" });
        push_string(&mut out, key.entity.as_str());
        push_text(&mut out, "id", key.id.as_str());
        push_text(&mut out, "action", if record.payload.is_some() { "upsert" } else { "delete" });
        push_count(&mut out, "version", record.version.0);
        push_count(&mut out, "editVersion", record.edit_version.0);
        if let Some(cause) = cause {
            push_text(&mut out, "cause", cause.as_str());
        }
        if let Some(payload) = &record.payload {
            out.push_str(",\"payload\":");
            out.push_str(payload.as_str());
        }
        out.push('}');
    }
    out.push(']');
    out
}

/// A change that says of a record that it is out of sight from `seq` on.
pub(crate) fn leave_json(key: &RecordKey, seq: &str) -> String {
    let mut out = String::from("{\"entity\":");
    push_string(&mut out, key.entity.as_str());
    push_text(&mut out, "id", key.id.as_str());
    push_text(&mut out, "action", "leave");
    out + &format!(",\"version\":{seq}}}")
}

/// One entry in wire form, as it is stored and served.
pub fn entry_json(header: &EntryHeader<'_>, change_count: u64, changes_json: &str) -> String {
    let mut out = String::with_capacity(changes_json.len() + 512);
    push_entry_header(&mut out, header, change_count);
    out.push_str(",\"changes\":");
    out.push_str(changes_json);
    out.push('}');
    out
}

/// The entry of a group whose changes are served in parts.
pub fn entry_in_parts_json(header: &EntryHeader<'_>, change_count: u64, parts: u64) -> String {
    let mut out = String::with_capacity(512);
    push_entry_header(&mut out, header, change_count);
    push_count(&mut out, "parts", parts);
    out.push('}');
    out
}

fn push_entry_header(out: &mut String, header: &EntryHeader<'_>, change_count: u64) {
    out.push_str(&format!("{{\"seq\":{}", header.seq));
    push_text(out, "syncGroupId", header.id.as_str());
    let nullable = |out: &mut String, name: &str, text: Option<&str>| match text {
        Some(text) => push_text(out, name, text),
        None => out.push_str(&format!(",\"{name}\":null")),
    };
    nullable(out, "syncGroupType", header.group_type.map(GroupType::as_str));
    push_text(out, "device", header.device.as_str());
    push_text(out, "epoch", header.epoch.as_str());
    push_count(out, "deviceSeq", header.device_seq.0);
    nullable(out, "actor", header.actor.map(Actor::as_str));
    push_text(out, "createdAt", header.created_at.as_str());
    push_text(out, "committedAt", header.committed_at.as_str());
    nullable(out, "replaces", header.replaces.map(GroupId::as_str));
    if let Some(hlc) = header.hlc {
        push_text(out, "hlc", &hlc.to_string());
    }
    out.push_str(",\"flags\":");
    push_flags(out, header.flags);
    push_texts(out, "clears", header.clears.iter().map(AsRef::as_ref));
    push_count(out, "changeCount", change_count);
}

/// When an entry in wire form was committed; `None` for one that does not say it, such as a resolution.
///
/// # Errors
/// [`WireError`] when it is no entry.
pub fn committed_at(entry: &str) -> Result<Option<Timestamp>, WireError> {
    let (node, _) = parse_passing(entry.as_bytes(), DEPTH)?;
    let fields = Fields::of(&node)?;
    let time = |text: &str| Timestamp::new(text).map_err(|error| WireError::new(error.to_string()).within("committedAt"));
    fields.optional_text("committedAt")?.map(time).transpose()
}

/// A page, from entries in wire form.
pub fn page_json<'e>(entries: impl IntoIterator<Item = &'e str>, next: Seq, chain: Digest, head: Seq) -> String {
    let entries: Vec<&str> = entries.into_iter().collect();
    // Growing to the length of a page step by step takes longer than reading its entries.
    let bytes: usize = entries.iter().map(|entry| entry.len() + 1).sum();
    let mut out = String::with_capacity(bytes + ENVELOPE_BYTES);
    out.push_str("{\"groups\":[");
    push_joined(&mut out, &entries);
    out.push_str(&format!("],\"next\":{next},\"chain\":\"{chain}\",\"head\":{head}}}"));
    out
}
