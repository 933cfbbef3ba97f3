//! `POST …/push`: the request.

use super::made_on::{MadeOn, made_on};
use super::parts::{InParts, in_parts};
use super::place::{LogPlace, accepted_as};
use super::read::{
    ENVELOPE_BYTES, Fields, Read, WireError, each, id_item, parse, push_count, push_joined, push_text, wrong,
};
use crate::change::{Base, Change, Edit, InvalidPayload, Payload};
use crate::clock::Hlc;
use crate::digest::Digest;
use crate::group::{Group, Header, InvalidGroup, check_header};
use crate::id::{Actor, BatchId, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, LogId, RecordKey, Seq};
use crate::json::{Node, push_string};
use crate::limits::{ENVELOPE_DEPTH, Limits, PAYLOAD_DEPTH};
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// The groups of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRequest {
    /// Who sends.
    pub device: DeviceId,
    /// In which life of its database.
    pub epoch: EpochId,
    /// For tracing only.
    pub batch: Option<BatchId>,
    /// Where in which log the sender stands: what its groups were made on.
    pub at: Option<LogPlace>,
    /// What arrived, in the order sent.
    pub groups: Vec<Arrival>,
}

/// One group as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its id.
    pub id: GroupId,
    /// Its number on device and epoch.
    pub device_seq: DeviceSeq,
    /// SHA-256 of the changes that arrived.
    pub digest: Digest,
    /// What arrived of it.
    pub content: Content,
    /// Where it stood in logs that lost it.
    pub accepted_as: Vec<(LogId, Seq)>,
    /// What its bases were, where it was made on a history that its device left.
    pub made_on: Option<MadeOn>,
}

/// What arrived of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Whole(Box<Group>),
    /// What it says of itself; its changes were sent before, in parts.
    InParts(Box<InParts>),
    /// The same, and these parts of it are not there.
    Missing(Vec<u64>),
    /// Something else than it says of itself; the text says what.
    Incomplete(String),
    /// What it says of itself, and what of it is more than the limits allow.
    TooLarge(Box<Header>, String),
}

impl Content {
    /// What the group says of itself, where that is known.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Self::Whole(group) => Some(group.header()),
            Self::InParts(in_parts) => Some(&in_parts.header),
            Self::TooLarge(header, _) => Some(header),
            Self::Missing(_) | Self::Incomplete(_) => None,
        }
    }
}

impl PushRequest {
    /// Reads a request and checks everything that makes it malformed: syntax, ids, actions, empty groups, cycles, a
    /// number used twice. Damage in transit and groups over a limit are not malformed: see [`Content`].
    ///
    /// # Errors
    /// [`WireError`] with a pointer under `/groups/i` when a group is at fault and elsewhere when the envelope is.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, WireError> {
        let (node, text) = parse(text, PAYLOAD_DEPTH + ENVELOPE_DEPTH)?;
        let fields = Fields::of(&node)?;
        let groups = each("groups", fields.array("groups")?, |group| arrival(group, text, limits))?;
        let request = Self {
            device: fields.id("device", |text| DeviceId::new(text))?,
            epoch: fields.id("epoch", |text| EpochId::new(text))?,
            batch: fields.optional_id("batch", |text| BatchId::new(text))?,
            at: fields.optional("at").map(LogPlace::read).transpose().map_err(|error| error.within("at"))?,
            groups,
        };
        request.refuse_shared_numbers()?;
        request.refuse_cycles()?;
        request.refuse_two_in_parts()?;
        Ok(request)
    }

    /// The group that was sent in parts, if there is one: its place.
    pub fn in_parts(&self) -> Option<(usize, &InParts)> {
        self.groups.iter().enumerate().find_map(|(index, arrival)| match &arrival.content {
            Content::InParts(in_parts) => Some((index, in_parts.as_ref())),
            _ => None,
        })
    }

    /// Memory is bounded by the largest group, so a request brings one of them at most.
    fn refuse_two_in_parts(&self) -> Read<()> {
        let is_in_parts = |(_, arrival): &(usize, &Arrival)| matches!(arrival.content, Content::InParts(_));
        match self.groups.iter().enumerate().filter(is_in_parts).nth(1) {
            Some((index, _)) => Err(WireError::new("a request has one group in parts at most")
                .within("parts")
                .within(index)
                .within("groups")),
            None => Ok(()),
        }
    }

    fn refuse_shared_numbers(&self) -> Read<()> {
        let mut owners: BTreeMap<DeviceSeq, &GroupId> = BTreeMap::new();
        for (index, group) in self.groups.iter().enumerate() {
            let owner = *owners.entry(group.device_seq).or_insert(&group.id);
            if *owner != group.id {
                let message = format!("deviceSeq {} is also the number of {owner} in this request", group.device_seq);
                return Err(WireError::new(message).within("deviceSeq").within(index).within("groups"));
            }
        }
        Ok(())
    }

    fn refuse_cycles(&self) -> Read<()> {
        let mut places: BTreeMap<&GroupId, usize> = BTreeMap::new();
        for (index, group) in self.groups.iter().enumerate() {
            places.entry(&group.id).or_insert(index);
        }
        let parents = |arrival: &Arrival| match arrival.content.header() {
            Some(header) => header.depends_on.iter().filter_map(|id| places.get(id).copied()).collect(),
            None => Vec::new(),
        };
        let Some(index) = on_a_cycle(&self.groups.iter().map(parents).collect::<Vec<_>>()) else { return Ok(()) };
        let message = format!("group {} depends on itself through other groups of this request", self.groups[index].id);
        Err(WireError::new(message).within("dependsOn").within(index).within("groups"))
    }
}

/// A node of a graph that is on a cycle, if there is one: a walk in depth, linear in nodes and edges, without recursion.
fn on_a_cycle(parents: &[Vec<usize>]) -> Option<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Never,
        OnPath,
        Left,
    }
    let mut seen = vec![Seen::Never; parents.len()];
    for start in 0..parents.len() {
        if seen[start] != Seen::Never {
            continue;
        }
        seen[start] = Seen::OnPath;
        let mut path = vec![(start, 0)];
        while let Some((node, edge)) = path.last_mut() {
            let Some(parent) = parents[*node].get(*edge).copied() else {
                seen[*node] = Seen::Left;
                path.pop();
                continue;
            };
            *edge += 1;
            match seen[parent] {
                Seen::OnPath => return Some(parent),
                Seen::Left => {}
                Seen::Never => {
                    seen[parent] = Seen::OnPath;
                    path.push((parent, 0));
                }
            }
        }
    }
    None
}

fn arrival(node: &Node<'_>, text: &str, limits: &Limits) -> Read<Arrival> {
    let fields = Fields::of(node)?;
    let id = fields.id("syncGroupId", |text| GroupId::new(text))?;
    let device_seq = DeviceSeq(fields.count("deviceSeq")?);
    if device_seq.0 == 0 {
        return Err(WireError::new("numbers begin at 1").within("deviceSeq"));
    }
    if fields.optional("parts").is_some() {
        return in_parts(&fields, id, device_seq, limits);
    }
    let (said_count, said_digest) = (fields.count("changeCount")?, fields.text("digest")?);
    let header = header(&fields, id.clone(), device_seq)?;
    let array = fields.required("changes").map_err(|error| named(error, &id))?;
    let changes_text = &text[array.span()];
    let (changes, too_large) = changes(array, text, limits).map_err(|error| named(error.within("changes"), &id))?;
    check_header(&header, &changes).map_err(|error| named(invalid_group(&error), &id))?;
    let digest = Digest::of(changes_text.as_bytes());
    let arrived_count = changes.len() as u64;
    let content = if said_count != arrived_count {
        Content::Incomplete(format!("changeCount says {said_count}, {arrived_count} arrived"))
    } else if said_digest != digest.to_string() {
        Content::Incomplete("the digest does not fit the changes that arrived".into())
    } else if let Some(message) = too_large {
        Content::TooLarge(Box::new(header), message)
    } else {
        match Group::checked(header.clone(), changes, changes_text.into(), digest, limits) {
            Ok(group) => Content::Whole(Box::new(group)),
            Err(error) => Content::TooLarge(Box::new(header), error.to_string()),
        }
    };
    Ok(Arrival { id, device_seq, digest, content, accepted_as: accepted_as(&fields)?, made_on: made_on(&fields)? })
}

pub(super) fn header(fields: &Fields<'_, '_>, id: GroupId, device_seq: DeviceSeq) -> Read<Header> {
    // null says "no type"; a member that is missing may be one that was forgotten.
    fields.required("syncGroupType")?;
    Ok(Header {
        id,
        group_type: fields.optional_id("syncGroupType", |text| GroupType::new(text))?,
        device_seq,
        actor: fields.optional_id("actor", |text| Actor::new(text))?,
        created_at: Timestamp::new(fields.text("createdAt")?)
            .map_err(|error| WireError::new(error.to_string()).within("createdAt"))?,
        schema_version: fields.optional_count("schemaVersion")?.unwrap_or(0),
        depends_on: each("dependsOn", fields.optional_array("dependsOn")?, |id| id_item(id, |text| GroupId::new(text)))?,
        replaces: fields.optional_id("replaces", |text| GroupId::new(text))?,
        family: fields.optional_id("family", |text| GroupId::new(text))?,
        log: fields.optional_id("log", |text| LogId::new(text))?,
        hlc: hlc(fields)?,
        clears: each("clears", fields.optional_array("clears")?, flag_id)?,
    })
}

pub(super) fn hlc(fields: &Fields<'_, '_>) -> Read<Option<Hlc>> {
    let Some(text) = fields.optional_text("hlc")? else { return Ok(None) };
    Hlc::parse(text).map(Some).map_err(|error| WireError::new(error.to_string()).within("hlc"))
}

/// The id of a flag: the `seq` of the group that it is on, a point, and its place there.
pub(super) fn flag_id(node: &Node<'_>) -> Read<Box<str>> {
    let text = node.as_str().ok_or_else(|| wrong(node, "a string"))?;
    let is_count = |text: &str| (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((seq, place)) if is_count(seq) && is_count(place) => Ok(text.into()),
        _ => Err(WireError::new("must be the id of a flag, like 42.0")),
    }
}

/// The changes, and what about them is over a limit.
pub(super) fn changes(array: &Node<'_>, text: &str, limits: &Limits) -> Read<(Vec<Change>, Option<String>)> {
    let items = array.as_array().ok_or_else(|| wrong(array, "an array"))?;
    let (mut changes, mut too_large) = (Vec::with_capacity(items.len()), None);
    for (index, item) in items.iter().enumerate() {
        let (change, problem) = change(item, text, limits).map_err(|mut error| {
            error.message = format!("change {index}: {}", error.message);
            error.within(index)
        })?;
        too_large = too_large.or_else(|| problem.map(|problem| format!("change {index} on {}: {problem}", change.key)));
        changes.push(change);
    }
    Ok((changes, too_large))
}

pub(super) fn change(node: &Node<'_>, text: &str, limits: &Limits) -> Read<(Change, Option<InvalidPayload>)> {
    let fields = Fields::of(node)?;
    let key = RecordKey {
        entity: fields.id("entity", |text| crate::id::Entity::new(text))?,
        id: fields.id("id", |text| crate::id::RecordId::new(text))?,
    };
    let action = fields.text("action")?;
    let make = match action {
        "upsert" => Edit::Upsert,
        "patch" => Edit::Patch,
        "increment" => Edit::Increment,
        "delete" => |_| Edit::Delete,
        other => {
            let message = format!("{other:?} is no action; use upsert, patch, increment or delete");
            return Err(WireError::new(message).within("action"));
        }
    };
    let (payload, too_large) = match action {
        "delete" => (Payload::from_stored("{}"), None),
        _ => match Payload::from_node(fields.required("payload")?, text, limits) {
            Ok(payload) => (payload, None),
            Err(error @ InvalidPayload::TooLarge { .. }) => (Payload::from_stored(r#"{"tooLarge":0}"#), Some(error)),
            Err(error) => return Err(WireError::new(error.to_string()).within("payload")),
        },
    };
    let base = Base {
        version: Seq(fields.optional_count("baseVersion")?.unwrap_or(0)),
        group: fields.optional_id("baseGroup", |text| GroupId::new(text))?,
    };
    let change =
        Change::new(key, make(payload), base).map_err(|error| WireError::new(error.to_string()).within("payload"))?;
    Ok((change, too_large))
}

pub(super) fn named(mut error: WireError, id: &GroupId) -> WireError {
    error.message = format!("group {id}, {}", error.message);
    error
}

pub(super) fn invalid_group(error: &InvalidGroup) -> WireError {
    let wire = WireError::new(error.to_string());
    match error {
        InvalidGroup::DependsOnItself | InvalidGroup::TooManyDependencies(_) => wire.within("dependsOn"),
        InvalidGroup::BaseNotListed { index, .. } => wire.within("baseGroup").within(index).within("changes"),
        InvalidGroup::ReplacesItself => wire.within("replaces"),
        InvalidGroup::FamilyOfNothing => wire.within("family"),
        _ => wire.within("changes"),
    }
}

/// A group in wire form. Its changes are the bytes it was sealed with.
pub fn group_json(group: &Group) -> String {
    group_json_bytes(group.header(), group.changes().len() as u64, group.digest(), group.changes_json())
}

/// A group in wire form, from what a device stored of it.
pub fn group_json_bytes(header: &Header, change_count: u64, digest: Digest, changes_json: &str) -> String {
    let mut out = String::with_capacity(changes_json.len() + 512);
    push_header(&mut out, header, change_count, digest);
    out.push_str(",\"changes\":");
    out.push_str(changes_json);
    out.push('}');
    out
}

/// Appends a group's object up to where its changes, or their parts, are named.
pub(super) fn push_header(out: &mut String, header: &Header, change_count: u64, digest: Digest) {
    out.push_str("{\"syncGroupId\":");
    push_string(out, header.id.as_str());
    match &header.group_type {
        Some(group_type) => push_text(out, "syncGroupType", group_type.as_str()),
        None => out.push_str(",\"syncGroupType\":null"),
    }
    push_count(out, "deviceSeq", header.device_seq.0);
    if let Some(actor) = &header.actor {
        push_text(out, "actor", actor.as_str());
    }
    push_text(out, "createdAt", header.created_at.as_str());
    if header.schema_version > 0 {
        push_count(out, "schemaVersion", header.schema_version);
    }
    push_texts(out, "dependsOn", header.depends_on.iter().map(GroupId::as_str));
    if let Some(replaces) = &header.replaces {
        push_text(out, "replaces", replaces.as_str());
    }
    if let Some(family) = &header.family {
        push_text(out, "family", family.as_str());
    }
    if let Some(log) = &header.log {
        push_text(out, "log", log.as_str());
    }
    if let Some(hlc) = &header.hlc {
        push_text(out, "hlc", &hlc.to_string());
    }
    push_texts(out, "clears", header.clears.iter().map(AsRef::as_ref));
    push_count(out, "changeCount", change_count);
    push_text(out, "digest", &digest.to_string());
}

/// Appends `,"name":["text",…]`; nothing where there is no text.
pub(super) fn push_texts<'t>(out: &mut String, name: &str, texts: impl Iterator<Item = &'t str>) {
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return;
    }
    out.push_str(&format!(",\"{name}\":["));
    for (index, text) in texts.enumerate() {
        if index > 0 {
            out.push(',');
        }
        push_string(out, text);
    }
    out.push(']');
}

/// A request, from groups in wire form.
pub fn push_json<'g>(
    device: &DeviceId,
    epoch: &EpochId,
    batch: &BatchId,
    groups: impl IntoIterator<Item = &'g str>,
) -> String {
    push_json_at(device, epoch, batch, None, groups)
}

/// The same, with where in which log the sender stands.
pub fn push_json_at<'g>(
    device: &DeviceId,
    epoch: &EpochId,
    batch: &BatchId,
    at: Option<&LogPlace>,
    groups: impl IntoIterator<Item = &'g str>,
) -> String {
    let groups: Vec<&str> = groups.into_iter().collect();
    // Growing to the length of a batch step by step takes longer than writing it.
    let bytes: usize = groups.iter().map(|group| group.len() + 1).sum();
    let mut out = String::with_capacity(bytes + ENVELOPE_BYTES);
    out.push_str("{\"device\":");
    push_string(&mut out, device.as_str());
    push_text(&mut out, "epoch", epoch.as_str());
    push_text(&mut out, "batch", batch.as_str());
    if let Some(at) = at {
        out.push_str(",\"at\":");
        at.push(&mut out);
    }
    out.push_str(",\"groups\":[");
    push_joined(&mut out, &groups);
    out.push_str("]}");
    out
}
