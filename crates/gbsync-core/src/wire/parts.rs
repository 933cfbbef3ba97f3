//! Groups that no request holds: their bytes cut into parts, and arrived parts put together again.
//!
//! A part is a JSON array of some of the group's changes. Where the cuts are means nothing: the digest is that of all
//! changes in one array, so a group that was cut in another way is the same group.
//!
//! Invariant: one part is parsed at a time; what stays of it is its changes and their bytes.
//!
//! Rejected alternative: cutting the bytes anywhere. A part could not be checked before all of them are there.

use super::made_on::made_on;
use super::place::accepted_as;
use super::push::{Arrival, Content, change, changes, header, invalid_group, named, push_header};
use super::read::{Fields, Read, WireError, parse, push_count, wrong};
use crate::change::Change;
use crate::digest::Digest;
use crate::group::{Group, Header, InvalidGroup, check_names};
use crate::id::{DeviceSeq, GroupId};
use crate::limits::{GROUP_PARTS, Limits, PAYLOAD_DEPTH};
use std::ops::Range;

/// A group whose changes were sent before the push that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InParts {
    /// What it says of itself.
    pub header: Header,
    /// How many parts there are, numbered from 0.
    pub parts: u64,
    /// Changes of all parts together.
    pub change_count: u64,
}

/// Reads the rest of a pushed group that names parts.
pub(super) fn in_parts(fields: &Fields<'_, '_>, id: GroupId, device_seq: DeviceSeq, limits: &Limits) -> Read<Arrival> {
    if fields.optional("changes").is_some() {
        return Err(named(WireError::new("a group has changes or parts, not both").within("parts"), &id));
    }
    let (parts, change_count) = (fields.count("parts")?, fields.count("changeCount")?);
    if parts == 0 || parts > GROUP_PARTS {
        return Err(named(WireError::new(format!("must be from 1 to {GROUP_PARTS}")).within("parts"), &id));
    }
    if change_count == 0 {
        return Err(named(invalid_group(&InvalidGroup::Empty), &id));
    }
    let header = header(fields, id.clone(), device_seq)?;
    check_names(&header).map_err(|error| named(invalid_group(&error), &id))?;
    let digest = Digest::from_hex(fields.text("digest")?);
    let bytes = fields.optional_count("changeBytes")?.unwrap_or(0);
    let content = if digest.is_none() {
        Content::Incomplete("the digest is no SHA-256".into())
    } else if change_count > limits.group_records {
        let error = InvalidGroup::TooManyRecords { records: change_count, limit: limits.group_records };
        Content::TooLarge(Box::new(header), error.to_string())
    } else if bytes > limits.group_bytes {
        let error = InvalidGroup::TooLarge { bytes, limit: limits.group_bytes };
        Content::TooLarge(Box::new(header), error.to_string())
    } else {
        Content::InParts(Box::new(InParts { header, parts, change_count }))
    };
    let (accepted_as, made_on) = (accepted_as(fields)?, made_on(fields)?);
    Ok(Arrival { id, device_seq, digest: digest.unwrap_or(Digest::ZERO), content, accepted_as, made_on })
}

/// Puts the parts of a group together.
///
/// ```
/// use gbsync_core::{limits::Limits, wire::Assembly};
/// let limits = Limits::default();
/// let mut assembly = Assembly::new(2, &limits);
/// assembly.add(r#"[{"entity":"notes","id":"n1","action":"delete","baseVersion":7}]"#).unwrap();
/// assembly.add(r#"[{"entity":"notes","id":"n2","action":"delete","baseVersion":7}]"#).unwrap();
/// ```
pub struct Assembly<'l> {
    limits: &'l Limits,
    change_count: u64,
    changes: Vec<Change>,
    text: String,
    too_large: Option<String>,
}

impl<'l> Assembly<'l> {
    /// Begins a group of `change_count` changes.
    pub fn new(change_count: u64, limits: &'l Limits) -> Self {
        Self { limits, change_count, changes: Vec::new(), text: "[".into(), too_large: None }
    }

    /// Adds the next part. What is over the group's own count or over the limits is counted and not kept.
    ///
    /// # Errors
    /// [`WireError`] when the part is none: it was checked when it arrived.
    pub fn add(&mut self, part: &str) -> Result<(), WireError> {
        let (node, part) = parse(part.as_bytes(), PAYLOAD_DEPTH + 2)?;
        let (changes, too_large) = changes(&node, part, self.limits)?;
        self.too_large = self.too_large.take().or(too_large);
        for item in node.as_array().unwrap_or_default() {
            if self.text.len() > 1 {
                self.text.push(',');
            }
            self.text.push_str(&part[item.span()]);
        }
        self.changes.extend(changes);
        Ok(())
    }

    /// Whether more parts than these cannot make it whole.
    pub fn is_over(&self) -> bool {
        self.changes.len() as u64 > self.change_count || self.text.len() as u64 > self.limits.group_bytes
    }

    /// The group, or what is wrong with it.
    pub fn finish(mut self, header: Header, said: Digest) -> Content {
        self.text.push(']');
        let (arrived, bytes) = (self.changes.len() as u64, self.text.len() as u64);
        if bytes > self.limits.group_bytes {
            let error = InvalidGroup::TooLarge { bytes, limit: self.limits.group_bytes };
            return Content::TooLarge(Box::new(header), error.to_string());
        }
        if arrived != self.change_count {
            return Content::Incomplete(format!("changeCount says {}, {arrived} arrived", self.change_count));
        }
        if Digest::of(self.text.as_bytes()) != said {
            return Content::Incomplete("the digest does not fit the changes that arrived".into());
        }
        if let Some(message) = self.too_large {
            return Content::TooLarge(Box::new(header), message);
        }
        match Group::checked(header.clone(), self.changes, self.text.into(), said, self.limits) {
            Ok(group) => Content::Whole(Box::new(group)),
            Err(error @ (InvalidGroup::TooManyRecords { .. } | InvalidGroup::TooLarge { .. })) => {
                Content::TooLarge(Box::new(header), error.to_string())
            }
            // What makes a group in one request malformed, found when its request has long been read.
            Err(error) => Content::Incomplete(error.to_string()),
        }
    }
}

/// Checks a part that arrives and answers how many changes are in it. A payload over its limit is no fault of the part:
/// the group will be rejected.
///
/// # Errors
/// [`WireError`] with a pointer to the change at fault.
pub fn parse_part(text: &[u8], limits: &Limits) -> Result<u64, WireError> {
    let (node, text) = parse(text, PAYLOAD_DEPTH + 2)?;
    match changes(&node, text, limits)?.0.len() as u64 {
        0 => Err(WireError::new("a part has at least one change")),
        count => Ok(count),
    }
}

/// Reads the `changes` array that a device stored when it sealed the group, one change at a time.
///
/// # Errors
/// [`WireError`] with a pointer to the change at fault.
pub fn parse_changes(text: &str, limits: &Limits) -> Result<Vec<Change>, WireError> {
    if !text.starts_with('[') || !text.ends_with(']') {
        let (node, _) = parse(text.as_bytes(), PAYLOAD_DEPTH + 2)?;
        return Err(wrong(&node, "an array without white space around it"));
    }
    let read = |(index, range): (usize, Range<usize>)| {
        let (node, text) = parse(text[range].as_bytes(), PAYLOAD_DEPTH + 1)?;
        let (change, too_large) = change(&node, text, limits).map_err(|error| error.within(index))?;
        match too_large {
            Some(problem) => Err(WireError::new(format!("change {index} on {}: {problem}", change.key)).within(index)),
            None => Ok(change),
        }
    };
    Elements::of(text).enumerate().map(read).collect()
}

/// Cuts an array that this product wrote into parts of at most `most_bytes`, brackets included; a change that is larger is
/// a part alone. Each range holds whole elements with the commas between them.
///
/// ```
/// let changes = r#"[{"a":1},{"b":"],"},{"c":3}]"#;
/// let parts = gbsync_core::wire::cut(changes, 21);
/// assert_eq!(gbsync_core::wire::part_json(changes, &parts[0]), r#"[{"a":1},{"b":"],"}]"#);
/// assert_eq!(parts.len(), 2);
/// ```
pub fn cut(array: &str, most_bytes: u64) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for element in Elements::of(array) {
        match parts.last_mut() {
            Some(part) if (element.end - part.start) as u64 + 2 <= most_bytes => part.end = element.end,
            _ => parts.push(element),
        }
    }
    parts
}

/// One part as it is sent or served.
pub fn part_json(array: &str, part: &Range<usize>) -> String {
    format!("[{}]", &array[part.clone()])
}

/// How many changes a part has that this product wrote.
pub fn change_count(part: &str) -> u64 {
    Elements::of(part).count() as u64
}

/// Where the elements of an array are that this product wrote.
pub(crate) fn elements(array: &str) -> impl Iterator<Item = Range<usize>> {
    Elements::of(array)
}

/// The elements of an array that this product wrote, without reading them.
struct Elements<'t> {
    bytes: &'t [u8],
    start: Option<usize>,
}

impl<'t> Elements<'t> {
    fn of(array: &'t str) -> Self {
        Self { bytes: array.as_bytes(), start: (array.len() > 2).then_some(1) }
    }
}

impl Iterator for Elements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let (start, last) = (self.start.take()?, self.bytes.len() - 1);
        let (mut at, mut depth, mut is_text) = (start, 0_usize, false);
        while at < last {
            match self.bytes[at] {
                b'"' => is_text = !is_text,
                b'\\' if is_text => at += 1,
                b'{' | b'[' if !is_text => depth += 1,
                b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
                b',' if !is_text && depth == 0 => {
                    self.start = Some(at + 1);
                    return Some(start..at);
                }
                _ => {}
            }
            at += 1;
        }
        Some(start..last)
    }
}

/// A group in wire form whose changes of so many bytes were sent in parts.
pub fn group_in_parts_json(header: &Header, change_count: u64, digest: Digest, bytes: u64, parts: u64) -> String {
    let mut out = String::with_capacity(512);
    push_header(&mut out, header, change_count, digest);
    push_count(&mut out, "changeBytes", bytes);
    push_count(&mut out, "parts", parts);
    out.push('}');
    out
}

/// The answer to a part that is staged.
pub fn part_answer_json(number: u64) -> String {
    format!("{{\"part\":{number}}}")
}

/// Reads that answer: the number of the part.
///
/// # Errors
/// [`WireError`] when it is not what the protocol says.
pub fn parse_part_answer(text: &[u8]) -> Result<u64, WireError> {
    let (node, _) = parse(text, 16)?;
    Fields::of(&node)?.count("part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fall_between_changes_whatever_is_in_their_texts() {
        let array = r#"[{"a":"\\"},{"b":"x\",]["},{"c":[1,{"d":[2,3]}]},4]"#;
        for most_bytes in 0..array.len() as u64 + 2 {
            let parts = cut(array, most_bytes);
            let texts: Vec<&str> = parts.iter().map(|part| &array[part.clone()]).collect();
            assert_eq!(format!("[{}]", texts.join(",")), array, "{most_bytes}");
            for (part, text) in parts.iter().zip(texts) {
                let part = part_json(array, part);
                let node = crate::json::parse(part.as_bytes(), 64).expect("a part is JSON");
                let is_single = node.as_array().expect("an array").len() == 1;
                assert!(is_single || part.len() as u64 <= most_bytes, "{text} over {most_bytes}");
            }
        }
        assert!(cut("[]", 10).is_empty());
    }

    #[test]
    fn stored_changes_that_are_no_array_are_refused_and_not_half_read() {
        let limits = Limits::default();
        let change = r#"{"entity":"notes","id":"n1","action":"delete"}"#;
        assert_eq!(parse_changes(&format!("[{change},{change}]"), &limits).map(|changes| changes.len()), Ok(2));
        for text in ["", "{}", "[", "[]x", &format!("[{change},]"), &format!("[{change}"), &format!("[{change}}}]")] {
            assert!(parse_changes(text, &limits).is_err(), "{text}");
        }
    }
}
