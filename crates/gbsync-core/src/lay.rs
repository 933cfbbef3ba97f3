//! Mechanical replay of changes on records. Knows no policy: whether a change may be made is `decide`'s to say.
//!
//! Rules only say how a record is written: decimals with all digits of their scale, counters left alone by upserts and
//! patches. A value that does not fit stays as it is, for `decide` to refuse.
//!
//! Invariant: the device's view, the server's result and the simulator's are this one function of edit, state and rules.

use crate::change::{Edit, Payload};
use crate::json::{self, Decimal, Node, Value, merge_patch};
use crate::schema::{EntityRules, Field, FieldKind};
use std::borrow::Cow;

/// Why an edit cannot be laid on a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayError {
    /// A patch, increment or delete of a record that is not there.
    #[error("the record does not exist")]
    Missing,
    /// An increment of a field that holds something else than a number.
    #[error("the field {field:?} holds {holds}, to which nothing can be added")]
    NotANumber {
        /// The field.
        field: String,
        /// What it holds.
        holds: &'static str,
    },
    /// An increment whose result no payload can hold.
    #[error("the field {field:?} would leave the range of numbers")]
    OutOfRange {
        /// The field.
        field: String,
    },
}

/// Lays one edit on the state of its record; `None` is a record that is not there.
///
/// An absent field counts as 0 for an increment. `rules` are those of the record's entity, where there is a schema.
///
/// # Errors
/// [`LayError`] when the edit has no meaning on that state.
///
/// ```
/// use gbsync_core::{change::{Edit, Payload}, lay::lay};
/// let stock = Payload::from_stored(r#"{"quantity":10}"#);
/// let sold = Edit::Increment(Payload::from_stored(r#"{"quantity":-3}"#));
/// assert_eq!(lay(&sold, Some(&stock), None).unwrap().unwrap().as_str(), r#"{"quantity":7}"#);
/// ```
pub fn lay(edit: &Edit, state: Option<&Payload>, rules: Option<&EntityRules>) -> Result<Option<Payload>, LayError> {
    match edit {
        Edit::Upsert(payload) if rules.is_none() => return Ok(Some(payload.clone())),
        Edit::Delete if state.is_some() => return Ok(None),
        _ => {}
    }
    let laid = lay_node(edit, edit.payload().map(Payload::node), || state.map(Payload::node), rules)?;
    Ok(laid.map(|laid| laid.into_payload(edit).0))
}

/// A record as an edit leaves it.
pub(crate) struct Laid<'a> {
    node: Node<'a>,
    /// Whether the text of the edit's payload is that of the record.
    is_as_given: bool,
}

impl<'a> Laid<'a> {
    /// The record's text, and the value that was written.
    pub(crate) fn into_payload(self, edit: &Edit) -> (Payload, Node<'a>) {
        let payload = match edit.payload().filter(|_| self.is_as_given) {
            Some(given) => given.clone(),
            None => Payload::from_stored(json::canonical(&self.node)),
        };
        (payload, self.node)
    }
}

/// [`lay`] on parsed values: `given` is the edit's payload. The state is asked for only where the result rests on it.
pub(crate) fn lay_node<'a>(
    edit: &Edit,
    given: Option<Node<'a>>,
    state: impl FnOnce() -> Option<Node<'a>>,
    rules: Option<&EntityRules>,
) -> Result<Option<Laid<'a>>, LayError> {
    let mut given = given.unwrap_or_else(|| Node::computed(Value::Null));
    let has_counters = rules.is_some_and(|rules| rules.counters().next().is_some());
    let (mut node, mut is_as_given) = match edit {
        Edit::Upsert(_) => {
            let kept = if has_counters { state() } else { None };
            let is_kept = kept.is_some();
            if let (Some(kept), Some(rules)) = (kept, rules) {
                keep_counters(&mut given, kept, rules);
            }
            (given, !is_kept)
        }
        Edit::Delete => return state().map(|_| None).ok_or(LayError::Missing),
        Edit::Patch(_) => {
            let state = state().ok_or(LayError::Missing)?;
            if let (true, Value::Object(members), Some(rules)) = (has_counters, &mut given.value, rules) {
                members.retain(|(name, _)| !is_counter(rules, name));
            }
            (merge_patch(Some(state), given), false)
        }
        Edit::Increment(_) => (add_nodes(state().ok_or(LayError::Missing)?, &given, rules)?, false),
    };
    if let Some(rules) = rules {
        is_as_given &= !normalize(&mut node, rules);
    }
    Ok(Some(Laid { node, is_as_given }))
}

/// Whether only increments change a field.
pub(crate) fn is_counter(rules: &EntityRules, name: &str) -> bool {
    rules.fields.get(name).is_some_and(|field| field.counter.is_some())
}

/// Gives an upsert the counters of the record that it replaces.
fn keep_counters<'a>(given: &mut Node<'a>, kept: Node<'a>, rules: &EntityRules) {
    let (Value::Object(members), Value::Object(kept)) = (&mut given.value, kept.value) else { return };
    members.retain(|(name, _)| !is_counter(rules, name));
    members.extend(kept.into_iter().filter(|(name, _)| is_counter(rules, name)));
    members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
}

/// Writes decimals with all digits of their scale; says whether anything was written anew.
fn normalize(node: &mut Node<'_>, rules: &EntityRules) -> bool {
    let Value::Object(members) = &mut node.value else { return false };
    let mut is_changed = false;
    for (name, member) in members {
        let Some(Field { kind: FieldKind::Decimal { scale }, .. }) = rules.fields.get(&**name) else { continue };
        if let Some(text) = padded(&member.value, *scale) {
            *member = Node::computed(Value::String(Cow::Owned(text)));
            is_changed = true;
        }
    }
    is_changed
}

/// The text of a decimal with all digits of its scale; `None` where it is written so, or does not fit.
fn padded(value: &Value<'_>, scale: u32) -> Option<String> {
    if let Value::String(text) = value
        && is_written_with(text, scale)
    {
        return None;
    }
    decimal_of(value)?.with_scale(scale).map(|decimal| decimal.to_string())
}

/// Whether a text is a decimal just as it is written for a scale. Most are, and nothing has to be made of them.
fn is_written_with(text: &str, scale: u32) -> bool {
    let bytes = text.as_bytes();
    let (digits, point) = match scale as usize {
        0 => (bytes, true),
        scale if bytes.len() > scale + 1 => {
            let (whole, fraction) = bytes.split_at(bytes.len() - scale - 1);
            (whole, fraction[0] == b'.' && fraction[1..].iter().all(u8::is_ascii_digit))
        }
        _ => return false,
    };
    // A sign may belong to a zero, and many digits may not fit: those are looked at closely.
    let is_plain = digits.first().is_some_and(|first| *first != b'0' || digits.len() == 1);
    point && is_plain && text.len() <= 30 && digits.iter().all(u8::is_ascii_digit)
}

/// The exact value of a number, or of a decimal written as a string without an exponent.
pub(crate) fn decimal_of(value: &Value<'_>) -> Option<Decimal> {
    match value {
        Value::Number(text) => Decimal::parse(text),
        Value::String(text) if !text.contains(['e', 'E']) => Decimal::parse(text),
        _ => None,
    }
}

/// Adds deltas to fields of a payload.
pub(crate) fn add(state: &Payload, deltas: &Payload) -> Result<Payload, LayError> {
    Ok(Payload::from_stored(json::canonical(&add_nodes(state.node(), &deltas.node(), None)?)))
}

fn add_nodes<'a>(mut node: Node<'a>, deltas: &Node<'a>, rules: Option<&EntityRules>) -> Result<Node<'a>, LayError> {
    let (Value::Object(members), Value::Object(deltas)) = (&mut node.value, &deltas.value) else {
        unreachable!("a payload is an object");
    };
    let mut created = Vec::new();
    for (field, delta) in deltas {
        // A payload is canonical, so its members are sorted.
        match members.binary_search_by(|(name, _)| name.as_bytes().cmp(field.as_bytes())) {
            Ok(place) => {
                let member = &mut members[place].1;
                *member = sum(field, member, delta, rules)?;
            }
            Err(_) => created.push((field.clone(), delta.clone())),
        }
    }
    if !created.is_empty() {
        members.append(&mut created);
        members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    }
    Ok(node)
}

fn sum<'a>(field: &str, member: &Node<'a>, delta: &Node<'a>, rules: Option<&EntityRules>) -> Result<Node<'a>, LayError> {
    let (out_of_range, is_decimal) = (|| LayError::OutOfRange { field: field.to_owned() }, is_decimal(rules, field));
    let delta = delta.as_number().expect("an increment's fields are numbers");
    let value = match &member.value {
        Value::Number(old) => Value::Number(Cow::Owned(json::add_numbers(old, delta).ok_or_else(out_of_range)?)),
        value @ Value::String(_) if is_decimal => {
            let not_a_number = || LayError::NotANumber { field: field.to_owned(), holds: "a text that is no decimal" };
            let old = decimal_of(value).ok_or_else(not_a_number)?;
            let sum = Decimal::parse(delta).and_then(|delta| old.checked_add(delta)).ok_or_else(out_of_range)?;
            Value::String(Cow::Owned(sum.to_string()))
        }
        // With rules, null is the same as absent.
        Value::Null if rules.is_some() => return Ok(delta_node(delta)),
        _ => return Err(LayError::NotANumber { field: field.to_owned(), holds: member.kind_name() }),
    };
    Ok(Node::computed(value))
}

fn delta_node<'a>(delta: &str) -> Node<'a> {
    Node::computed(Value::Number(Cow::Owned(delta.to_owned())))
}

fn is_decimal(rules: Option<&EntityRules>, name: &str) -> bool {
    let field = rules.and_then(|rules| rules.fields.get(name));
    field.is_some_and(|field| matches!(field.kind, FieldKind::Decimal { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Counter;

    fn rules() -> EntityRules {
        let counter = |kind| Field { counter: Some(Counter::default()), ..Field::of(kind) };
        let fields = [
            ("price", Field::of(FieldKind::Decimal { scale: 2 })),
            ("quantity", counter(FieldKind::Integer)),
            ("weight", counter(FieldKind::Decimal { scale: 3 })),
        ];
        EntityRules { fields: fields.map(|(name, field)| (name.to_owned(), field)).into(), ..EntityRules::default() }
    }

    fn laid(make: fn(Payload) -> Edit, given: &str, state: Option<&str>) -> String {
        let state = state.map(Payload::from_stored);
        let laid = lay(&make(Payload::from_stored(given)), state.as_ref(), Some(&rules()));
        laid.map_or_else(|error| error.to_string(), |laid| laid.map_or(String::new(), |laid| laid.as_str().to_owned()))
    }

    #[test]
    fn decimals_are_written_with_all_digits_of_their_scale() {
        for (given, expected) in [
            (r#"{"price":"12.5"}"#, r#"{"price":"12.50"}"#),
            (r#"{"price":12.5}"#, r#"{"price":"12.50"}"#),
            (r#"{"price":1e2}"#, r#"{"price":"100.00"}"#),
            (r#"{"price":"-0"}"#, r#"{"price":"0.00"}"#),
            (r#"{"price":"-3.1"}"#, r#"{"price":"-3.10"}"#),
            (r#"{"price":"0.07"}"#, r#"{"price":"0.07"}"#),
            // What does not fit stays, for `decide` to refuse.
            (r#"{"price":"5.125"}"#, r#"{"price":"5.125"}"#),
            (r#"{"price":"1e2"}"#, r#"{"price":"1e2"}"#),
            (r#"{"price":"007.50"}"#, r#"{"price":"007.50"}"#),
            (r#"{"price":".50"}"#, r#"{"price":".50"}"#),
            (r#"{"price":null}"#, r#"{"price":null}"#),
        ] {
            assert_eq!(laid(Edit::Upsert, given, None), expected);
        }
        assert_eq!(laid(Edit::Patch, r#"{"a":1}"#, Some(r#"{"price":3}"#)), r#"{"a":1,"price":"3.00"}"#);
    }

    #[test]
    fn only_a_creating_upsert_and_increments_change_a_counter() {
        let state = Some(r#"{"name":"Roll","quantity":7,"weight":"1.500"}"#);
        assert_eq!(laid(Edit::Upsert, r#"{"quantity":3}"#, None), r#"{"quantity":3}"#);
        assert_eq!(
            laid(Edit::Upsert, r#"{"name":"R","quantity":3}"#, state),
            r#"{"name":"R","quantity":7,"weight":"1.500"}"#
        );
        assert_eq!(laid(Edit::Upsert, r#"{"quantity":3}"#, Some("{}")), "{}");
        let patched = laid(Edit::Patch, r#"{"name":"R","quantity":3,"weight":null}"#, state);
        assert_eq!(patched, r#"{"name":"R","quantity":7,"weight":"1.500"}"#);
        let added = laid(Edit::Increment, r#"{"quantity":-2,"weight":0.25}"#, state);
        assert_eq!(added, r#"{"name":"Roll","quantity":5,"weight":"1.750"}"#);
        assert_eq!(laid(Edit::Increment, r#"{"weight":1}"#, Some("{}")), r#"{"weight":"1.000"}"#);
        assert_eq!(laid(Edit::Increment, r#"{"quantity":1}"#, Some(r#"{"quantity":null}"#)), r#"{"quantity":1}"#);
    }
}
