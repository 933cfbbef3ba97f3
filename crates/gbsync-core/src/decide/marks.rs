//! What conflict policies remember of a record, as a store keeps it.
//!
//! Rejected alternative: the whole history of a record; a `seq` a field is enough to tell what an author has not seen.

use super::Record;
use crate::clock::Hlc;
use crate::id::Seq;
use crate::json::{self, Node, Value, push_string};
use crate::schema::OnConflict;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Fields that are named at most. Beyond that all are forgotten, and count as changed by the latest edit.
const FIELDS: usize = 1_000;

/// The latest links of chains that are kept though no field was last changed there: an operation that is open, or waits behind
/// another of its device, was made on one of them. Without a link what it saw counts as not seen, and it is a conflict.
const LINKS: usize = 16;

/// What conflict policies remember of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// The `seq` that last changed each top-level field, also one that was taken out.
    pub fields: BTreeMap<Box<str>, Seq>,
    /// The `seq` that counts for every field that is not named: the one that made the record, or from which on fields are
    /// told apart.
    pub since: Seq,
    /// Of the `seq`s above and the latest edits, which chain of groups each belongs to, by the first `seq` of the chain; itself when absent.
    pub chains: BTreeMap<Seq, Seq>,
    /// The clock of the group that last edited it.
    pub hlc: Option<Hlc>,
}

/// A text that is no marks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("marks of a record cannot be read")]
pub struct InvalidMarks;

impl Marks {
    /// The marks as JSON.
    ///
    /// ```
    /// use gbsync_core::{decide::Marks, id::Seq};
    /// let marks = Marks { fields: [("name".into(), Seq(7))].into(), since: Seq(3), ..Marks::default() };
    /// assert_eq!(Marks::parse(&marks.to_json()), Ok(marks));
    /// ```
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"fields\":{");
        for (index, (field, seq)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, field);
            out.push_str(&format!(":{seq}"));
        }
        out.push_str(&format!("}},\"since\":{}", self.since));
        for (index, (seq, chain)) in self.chains.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { ",\"chains\":[" });
            out.push_str(&format!("[{seq},{chain}]"));
        }
        if !self.chains.is_empty() {
            out.push(']');
        }
        if let Some(hlc) = &self.hlc {
            out.push_str(",\"hlc\":");
            push_string(&mut out, &hlc.to_string());
        }
        out.push('}');
        out
    }

    /// Reads marks that a store kept.
    ///
    /// # Errors
    /// [`InvalidMarks`] when they are none.
    pub fn parse(text: &str) -> Result<Self, InvalidMarks> {
        Self::read(&json::parse(text.as_bytes(), 4).map_err(|_| InvalidMarks)?).ok_or(InvalidMarks)
    }

    fn read(node: &Node<'_>) -> Option<Self> {
        let Value::Object(fields) = &node.member("fields")?.value else { return None };
        let mark = |(field, seq): &(Cow<'_, str>, Node<'_>)| Some((Box::from(&**field), Seq(seq.as_count()?)));
        let link = |link: &Node<'_>| match link.as_array()? {
            [seq, chain] => Some((Seq(seq.as_count()?), Seq(chain.as_count()?))),
            _ => None,
        };
        let hlc = match node.member("hlc") {
            Some(hlc) => Some(Hlc::parse(hlc.as_str()?).ok()?),
            None => None,
        };
        Some(Self {
            fields: fields.iter().map(mark).collect::<Option<_>>()?,
            since: Seq(node.member("since")?.as_count()?),
            chains: match node.member("chains") {
                Some(links) => links.as_array()?.iter().map(link).collect::<Option<_>>()?,
                None => BTreeMap::new(),
            },
            hlc,
        })
    }

    /// The `seq` that last changed a field.
    pub(super) fn of(&self, field: &str) -> Seq {
        self.fields.get(field).copied().unwrap_or(self.since)
    }

    /// Whether two `seq`s are of one chain of groups, each made on what the one before it left.
    pub(super) fn is_one_chain(&self, one: Seq, other: Seq) -> bool {
        self.chain(one) == self.chain(other)
    }

    fn chain(&self, seq: Seq) -> Seq {
        self.chains.get(&seq).copied().unwrap_or(seq)
    }
}

/// An edit, as far as it matters to marks.
pub(super) struct Marked<'e, 'a> {
    pub(super) seq: Seq,
    /// The `seq` of the group that it was made on.
    pub(super) base_group: Option<Seq>,
    pub(super) hlc: Option<&'e Hlc>,
    /// The record before and after; `None` where it is not there.
    pub(super) before: Option<&'e Node<'a>>,
    pub(super) after: Option<&'e Node<'a>>,
}

/// What is remembered of a record after an edit: nothing unless its policy asks for it.
pub(super) fn after_edit(policy: OnConflict, existing: Option<&Record>, edit: &Marked<'_, '_>) -> Option<Box<Marks>> {
    let old = existing.and_then(|record| record.marks.as_deref());
    match policy {
        OnConflict::Reject | OnConflict::Accept => None,
        OnConflict::LastWriteWins => {
            let hlc = old.and_then(|marks| marks.hlc.as_ref()).max(edit.hlc).cloned();
            Some(Box::new(Marks { since: edit.seq, hlc, ..Marks::default() }))
        }
        OnConflict::Merge => {
            let mut marks = match (edit.before, edit.after, existing) {
                (Some(before), Some(after), Some(existing)) => {
                    let unknown = Marks { since: existing.edit_version, ..Marks::default() };
                    let mut marks = old.cloned().unwrap_or(unknown);
                    for field in changed_fields(before, after) {
                        marks.fields.insert(field.into(), edit.seq);
                    }
                    marks
                }
                // A record that is made or deleted is new in every field.
                _ => Marks { since: edit.seq, ..Marks::default() },
            };
            if marks.fields.len() > FIELDS {
                marks = Marks { since: edit.seq, ..Marks::default() };
            }
            if let Some(base) = edit.base_group {
                marks.chains.insert(edit.seq, marks.chain(base));
            }
            let Marks { fields, since, chains, .. } = &mut marks;
            let oldest = chains.keys().rev().nth(LINKS - 1).copied().unwrap_or_default();
            chains.retain(|seq, _| *seq >= oldest || seq == since || fields.values().any(|field| field == seq));
            Some(Box::new(marks))
        }
    }
}

/// The top-level fields whose values differ.
fn changed_fields<'n>(before: &'n Node<'_>, after: &'n Node<'_>) -> Vec<&'n str> {
    let (Value::Object(old), Value::Object(new)) = (&before.value, &after.value) else { return Vec::new() };
    let changed = new.iter().filter(|(name, value)| !before.member(name).is_some_and(|old| is_same(old, value)));
    let removed = old.iter().filter(|(name, _)| after.member(name).is_none());
    changed.chain(removed).map(|(name, _)| &**name).collect()
}

/// Whether two values have one canonical form.
pub(super) fn is_same(one: &Node<'_>, other: &Node<'_>) -> bool {
    match (&one.value, &other.value) {
        (Value::String(one), Value::String(other)) => one == other,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::Null, Value::Null) => true,
        _ => one.kind_name() == other.kind_name() && json::canonical(one) == json::canonical(other),
    }
}
