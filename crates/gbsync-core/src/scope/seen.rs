//! What somebody sees of an entry of the log, from its wire form and its trace.
//!
//! Invariant: an entry of which everything is seen, or nothing, is not looked into. Of any other one, each change that is seen
//! keeps its bytes, one whose record goes out of sight becomes a `leave`, and what is said of the group beside its changes
//! names no record that is not seen.
//!
//! An entry without a trace is from before its space had scopes. Records of entities that lie in scopes now are left out of
//! it: the entry that put them there tells them whole.

use super::ScopeSet;
use super::trace::{Seen, Trace};
use crate::id::{Entity, RecordKey};
use crate::json::{Outline, text_of};
use crate::schema::Schema;
use crate::wire::{leave_json, parse_flags, unseen_flags_json};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

/// Through whose eyes a space is seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sight {
    /// The scopes that somebody holds.
    pub scopes: ScopeSet,
    /// The entities whose records lie in scopes.
    pub scoped: BTreeSet<Entity>,
}

/// A stored entry that is none, or does not fit its trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry of the log does not fit what is stored of its scopes")]
pub struct Unreadable;

impl Sight {
    /// Through the eyes of somebody who holds these scopes, under this schema.
    pub fn new(scopes: ScopeSet, schema: Option<&Schema>) -> Self {
        let scoped = schema.into_iter().flat_map(Schema::scoped).map(|(entity, _)| entity.clone()).collect();
        Self { scopes, scoped }
    }

    /// Whether nothing is hidden.
    pub fn is_whole(&self) -> bool {
        self.scopes == ScopeSet::All
    }

    /// Whether an entry is told whole, or not at all; `None` where it has to be looked into.
    ///
    /// # Errors
    /// [`Unreadable`] when the trace cannot have been stored.
    pub fn of_entry(&self, trace: Option<&str>) -> Result<Option<bool>, Unreadable> {
        if self.is_whole() {
            return Ok(Some(true));
        }
        let Some(trace) = trace else { return Ok(None) };
        Ok(match Trace::parse(trace).map_err(|_| Unreadable)?.of_all(&self.scopes) {
            Some(Seen::Whole) => Some(true),
            Some(Seen::Nothing) => Some(false),
            Some(Seen::Leaving) | None => None,
        })
    }

    /// An entry as it is told; `None` where nothing of it is.
    ///
    /// # Errors
    /// [`Unreadable`] when the entry cannot have been stored.
    pub fn entry<'e>(&self, entry: &'e str, trace: Option<&str>) -> Result<Option<Cow<'e, str>>, Unreadable> {
        if self.is_whole() {
            return Ok(Some(Cow::Borrowed(entry)));
        }
        let outline = Outline::of(entry);
        let Some(trace) = trace else { return self.untraced(entry, &outline) };
        let trace = Trace::parse(trace).map_err(|_| Unreadable)?;
        match trace.of_all(&self.scopes) {
            None | Some(Seen::Leaving) => {}
            Some(Seen::Whole) => return Ok(Some(Cow::Borrowed(entry))),
            Some(Seen::Nothing) => return Ok(None),
        }
        let told = trace.told(&self.scopes);
        if outline.member("parts").is_some() {
            return rewritten(&outline, told, None).map(|entry| Some(Cow::Owned(entry)));
        }
        let (changes, count) = told_of(outline.member("changes").ok_or(Unreadable)?, trace.of_each(&self.scopes), &outline)?;
        if count != told {
            return Err(Unreadable);
        }
        rewritten(&outline, told, Some(&changes)).map(|entry| Some(Cow::Owned(entry)))
    }

    /// One part of an entry as it is told. `skipped`: the changes of the entry in the parts before it.
    ///
    /// # Errors
    /// [`Unreadable`] when the part cannot have been stored.
    pub fn part(&self, seq: &str, body: &str, skipped: u64, trace: Option<&str>) -> Result<String, Unreadable> {
        if self.is_whole() {
            return Ok(body.to_owned());
        }
        let seq = format!("{{\"seq\":{seq}}}");
        let outline = Outline::of(&seq);
        let Some(trace) = trace else {
            let seen = changes_of(body).map(|change| self.seen_untraced(&body[change])).collect::<Result<Vec<_>, _>>()?;
            return told_of(body, seen.into_iter(), &outline).map(|(told, _)| told);
        };
        let trace = Trace::parse(trace).map_err(|_| Unreadable)?;
        let skipped = usize::try_from(skipped).map_err(|_| Unreadable)?;
        let count = changes_of(body).count();
        let seen: Vec<Seen> = trace.of_each(&self.scopes).skip(skipped).take(count).collect();
        told_of(body, seen.into_iter(), &outline).map(|(told, _)| told)
    }

    /// How many changes of a part of an entry without a trace are told.
    ///
    /// # Errors
    /// [`Unreadable`] when the part cannot have been stored.
    pub fn told_of_untraced(&self, body: &str) -> Result<u64, Unreadable> {
        let seen = changes_of(body).map(|change| self.seen_untraced(&body[change]));
        seen.map(|seen| Ok(u64::from(seen? != Seen::Nothing))).sum()
    }

    /// An entry in parts without a trace as it is told; `told`: how many of its changes are.
    ///
    /// # Errors
    /// [`Unreadable`] when the entry cannot have been stored.
    pub fn untraced_in_parts(&self, entry: &str, told: u64) -> Result<Option<String>, Unreadable> {
        if told == 0 { Ok(None) } else { rewritten(&Outline::of(entry), told, None).map(Some) }
    }

    fn untraced<'e>(&self, entry: &'e str, outline: &Outline<'e>) -> Result<Option<Cow<'e, str>>, Unreadable> {
        let changes = outline.member("changes").ok_or(Unreadable)?;
        let seen = changes_of(changes).map(|change| self.seen_untraced(&changes[change])).collect::<Result<Vec<_>, _>>()?;
        if seen.iter().all(|seen| *seen == Seen::Whole) {
            return Ok(Some(Cow::Borrowed(entry)));
        }
        let (changes, count) = told_of(changes, seen.into_iter(), outline)?;
        if count == 0 { Ok(None) } else { rewritten(outline, count, Some(&changes)).map(|entry| Some(Cow::Owned(entry))) }
    }

    fn seen_untraced(&self, change: &str) -> Result<Seen, Unreadable> {
        let key = key_of(change)?;
        Ok(if self.scoped.contains(&key.entity) { Seen::Nothing } else { Seen::Whole })
    }
}

fn key_of(change: &str) -> Result<RecordKey, Unreadable> {
    let outline = Outline::of(change);
    let text = |name| outline.member(name).and_then(text_of).ok_or(Unreadable);
    RecordKey::new(&text("entity")?, &text("id")?).map_err(|_| Unreadable)
}

fn changes_of(array: &str) -> impl Iterator<Item = Range<usize>> {
    crate::wire::elements(array)
}

/// The changes that are told, as an array, and how many they are.
fn told_of(array: &str, seen: impl Iterator<Item = Seen>, entry: &Outline<'_>) -> Result<(String, u64), Unreadable> {
    let seq = entry.member("seq").ok_or(Unreadable)?;
    let (mut out, mut told, mut seen) = (String::from("["), 0, seen);
    for change in changes_of(array) {
        let change = &array[change];
        let text = match seen.next().ok_or(Unreadable)? {
            Seen::Whole => Cow::Borrowed(change),
            Seen::Leaving => Cow::Owned(leave_json(&key_of(change)?, seq)),
            Seen::Nothing => continue,
        };
        out.push_str(if told > 0 { "," } else { "" });
        out.push_str(&text);
        told += 1;
    }
    out.push(']');
    if seen.next().is_some() { Err(Unreadable) } else { Ok((out, told)) }
}

/// The entry with other changes. Flags keep their places, by which they are named; those on records that are not told say no
/// more than that.
fn rewritten(entry: &Outline<'_>, told: u64, changes: Option<&str>) -> Result<String, Unreadable> {
    let flags = entry.member("flags").map(parse_flags).transpose().map_err(|_| Unreadable)?;
    let keys = changes.map(|changes| changes_of(changes).map(|change| key_of(&changes[change])).collect());
    let keys: Option<BTreeSet<RecordKey>> = keys.transpose()?;
    let mut out = String::new();
    for (name, value) in entry.members() {
        out.push_str(if out.is_empty() { "{\"" } else { ",\"" });
        out.push_str(name);
        out.push_str("\":");
        match &**name {
            "changeCount" => out.push_str(&told.to_string()),
            "changes" => out.push_str(changes.ok_or(Unreadable)?),
            "flags" => out.push_str(&unseen_flags_json(flags.as_deref().unwrap_or_default(), keys.as_ref())),
            _ => out.push_str(value),
        }
    }
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Scope;
    use crate::scope::Reach;

    const A: &str = r#"{"entity":"receipts","id":"a","action":"upsert","version":7,"editVersion":7,"payload":{"x":"],["}}"#;
    const B: &str = r#"{"entity":"receipts","id":"b","action":"upsert","version":7,"editVersion":7,"payload":{"secret":1}}"#;
    const C: &str = r#"{"entity":"stock","id":"c","action":"delete","version":7,"editVersion":7}"#;
    const FLAG: &str = r#"{"code":"bound_violation","rule":"receipts.x","message":"b is 1","entity":"receipts","id":"b"}"#;

    fn entry(changes: &[&str]) -> String {
        let changes = (changes.len(), changes.join(","));
        format!(r#"{{"seq":7,"syncGroupId":"g","flags":[{FLAG}],"changeCount":{},"changes":[{}]}}"#, changes.0, changes.1)
    }

    fn reach(scopes: &[&str]) -> Reach {
        Reach::In(scopes.iter().map(|scope| Scope::new(*scope).expect("a name")).collect())
    }

    fn sight(scopes: &[&str]) -> Sight {
        let Reach::In(scopes) = reach(scopes) else { unreachable!("some scopes") };
        Sight { scopes: ScopeSet::These(scopes), scoped: [Entity::new("receipts").expect("a name")].into() }
    }

    fn trace(reaches: [(Reach, Reach); 3]) -> String {
        let mut trace = Trace::default();
        reaches.into_iter().for_each(|(before, after)| trace.add(before, after));
        trace.to_json()
    }

    #[test]
    fn each_sees_its_own_part_and_who_sees_all_the_bytes_as_they_are() {
        let entry = entry(&[A, B, C]);
        let north = || (reach(&[]), reach(&["north"]));
        let trace = trace([north(), (reach(&["west"]), reach(&["south"])), (Reach::Everywhere, Reach::Everywhere)]);
        let seen = |sight: Sight| sight.entry(&entry, Some(&trace)).expect("readable").expect("something").into_owned();
        assert_eq!(seen(Sight::default()), entry);
        let of_north = seen(sight(&["north"]));
        assert!(of_north.contains(&format!(r#""changeCount":2,"changes":[{A},{C}]"#)), "{of_north}");
        assert!(!of_north.contains("secret") && !of_north.contains("b is 1") && !of_north.contains("\"b\""), "{of_north}");
        assert!(seen(sight(&["south"])).contains(&format!(r#""flags":[{FLAG}],"changeCount":2,"changes":[{B},{C}]"#)));
        let leave = r#"{"entity":"receipts","id":"b","action":"leave","version":7}"#;
        assert!(seen(sight(&["west"])).ends_with(&format!(r#""changeCount":2,"changes":[{leave},{C}]}}"#)));
        assert!(seen(sight(&["east"])).ends_with(&format!(r#""changeCount":1,"changes":[{C}]}}"#)));
    }

    #[test]
    fn a_group_of_one_scope_is_seen_whole_or_not_at_all() {
        let entry = entry(&[A, B]);
        let mut trace = Trace::default();
        (0..2).for_each(|_| trace.add(reach(&[]), reach(&["north"])));
        let seen = |scopes: &[&str]| sight(scopes).entry(&entry, Some(&trace.to_json())).expect("readable");
        assert!(matches!(seen(&["north", "south"]), Some(Cow::Borrowed(_))));
        assert_eq!(seen(&["south"]), None);
    }

    #[test]
    fn before_there_were_scopes_what_lies_in_one_now_is_left_out() {
        let seen = |changes: &[&str]| {
            let entry = entry(changes);
            sight(&["north"]).entry(&entry, None).expect("readable").map(Cow::into_owned)
        };
        assert_eq!(seen(&[A, B]), None);
        assert_eq!(seen(&[C]), Some(entry(&[C])));
        assert!(seen(&[A, C]).is_some_and(|seen| seen.ends_with(&format!(r#""changeCount":1,"changes":[{C}]}}"#))));
    }

    #[test]
    fn parts_are_seen_like_the_whole() {
        let north = || (reach(&[]), reach(&["north"]));
        let trace = trace([north(), (reach(&["west"]), reach(&["south"])), (Reach::Everywhere, Reach::Everywhere)]);
        let part =
            |scopes: &[&str], body: &str, skipped| sight(scopes).part("7", body, skipped, Some(&trace)).expect("readable");
        assert_eq!(part(&["north"], &format!("[{A},{B}]"), 0), format!("[{A}]"));
        assert_eq!(part(&["north"], &format!("[{C}]"), 2), format!("[{C}]"));
        assert_eq!(part(&["east"], &format!("[{A},{B}]"), 0), "[]");
    }

    #[test]
    fn a_trace_of_another_entry_is_damage_and_not_a_guess() {
        let mut trace = Trace::default();
        trace.add(reach(&[]), reach(&["north"]));
        trace.add(Reach::Everywhere, Reach::Everywhere);
        for changes in [&[A][..], &[A, B, C]] {
            assert_eq!(sight(&["south"]).entry(&entry(changes), Some(&trace.to_json())), Err(Unreadable));
        }
        assert_eq!(sight(&["south"]).entry(&entry(&[A]), Some("[[")), Err(Unreadable));
    }
}
