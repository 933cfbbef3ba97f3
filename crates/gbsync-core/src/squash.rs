//! Two edits of one record inside one group become one, where one can say both. Edits of different groups never do:
//! that would tear a record out of the first group.

use crate::change::{Edit, Payload};
use crate::json::{self, Value, compose_patches};
use crate::lay;
use crate::schema::EntityRules;

/// What is left of two edits that followed each other in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Squashed {
    /// One edit with the effect of both in turn.
    One(Edit),
    /// Nothing: the record was created and deleted inside the group.
    Nothing,
    /// No single edit has their effect; the group keeps both, in order.
    Both,
}

/// Squashes `second` into `first`. `existed` says whether the record was there before the group.
///
/// ```
/// use gbsync_core::{change::{Edit, Payload}, squash::{Squashed, squash}};
/// let add = |n: i64| Edit::Increment(Payload::from_stored(format!(r#"{{"quantity":{n}}}"#)));
/// assert_eq!(squash(&add(-3), &add(1), true, None), Squashed::One(add(-2)));
/// ```
pub fn squash(first: &Edit, second: &Edit, existed: bool, rules: Option<&EntityRules>) -> Squashed {
    use Edit::{Delete, Increment, Patch, Upsert};
    let counts = |deltas: &Payload| rules.is_some_and(|rules| has_counter(deltas, rules));
    let has_counters = rules.is_some_and(|rules| rules.counters().next().is_some());
    match (first, second) {
        (Upsert(_), Delete) if !existed => Squashed::Nothing,
        (_, Delete) => Squashed::One(Delete),
        // An upsert leaves counters alone, so the increment before it must stay.
        (Increment(_), Upsert(_) | Patch(_)) => Squashed::Both,
        // The record is made anew with the counters of the upsert: without the delete it would keep the old ones.
        (Delete, Upsert(_)) if has_counters => Squashed::Both,
        // The first made the record and its counters, which the second leaves alone.
        (Upsert(_), Upsert(_)) if has_counters && !existed => laid(first, second, rules),
        (_, Upsert(_)) => Squashed::One(second.clone()),
        // The upsert leaves the counters of a record that existed alone: they would be lost in it.
        (Upsert(_) | Patch(_), Increment(deltas)) if existed && counts(deltas) => Squashed::Both,
        (Upsert(_), Patch(_) | Increment(_)) => laid(first, second, rules),
        (Patch(first), Patch(second)) => match compose_patches(first.node(), second.node()) {
            Some(node) => Squashed::One(Patch(Payload::from_stored(json::canonical(&node)))),
            None => Squashed::Both,
        },
        (Increment(first), Increment(second)) => match lay::add(first, second) {
            Ok(sum) => Squashed::One(Increment(sum)),
            Err(_) => Squashed::Both,
        },
        (Patch(patch), Increment(deltas)) if sets_all(patch, deltas) => match lay::add(patch, deltas) {
            Ok(sum) => Squashed::One(Patch(sum)),
            Err(_) => Squashed::Both,
        },
        (Patch(_), Increment(_)) | (Delete, Patch(_) | Increment(_)) => Squashed::Both,
    }
}

/// An upsert of what `second` makes of the record that `first` sets.
fn laid(first: &Edit, second: &Edit, rules: Option<&EntityRules>) -> Squashed {
    match lay::lay(second, first.payload(), rules) {
        Ok(Some(payload)) => Squashed::One(Edit::Upsert(payload)),
        _ => Squashed::Both,
    }
}

/// Whether a payload names a field that only increments change.
fn has_counter(payload: &Payload, rules: &EntityRules) -> bool {
    let Value::Object(members) = payload.node().value else { return false };
    members.iter().any(|(name, _)| lay::is_counter(rules, name))
}

/// Whether a patch sets every field of an increment to a number.
fn sets_all(patch: &Payload, deltas: &Payload) -> bool {
    let (patch, deltas) = (patch.node(), deltas.node());
    let Value::Object(deltas) = &deltas.value else { return false };
    deltas.iter().all(|(field, _)| patch.member(field).is_some_and(|member| member.as_number().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Counter, Field, FieldKind};

    fn edit(make: fn(Payload) -> Edit, text: &str) -> Edit {
        make(Payload::from_stored(text))
    }

    #[test]
    fn no_increment_of_a_counter_is_lost_in_an_upsert() {
        let counter = Field { counter: Some(Counter::default()), ..Field::of(FieldKind::Integer) };
        let rules = EntityRules { fields: [("n".to_owned(), counter)].into(), ..EntityRules::default() };
        let squashed = |first: &Edit, second: &Edit, existed| squash(first, second, existed, Some(&rules));
        let (upsert, add) = (edit(Edit::Upsert, r#"{"n":5}"#), edit(Edit::Increment, r#"{"n":-1}"#));
        assert_eq!(squashed(&upsert, &add, true), Squashed::Both);
        assert_eq!(squashed(&upsert, &add, false), Squashed::One(edit(Edit::Upsert, r#"{"n":4}"#)));
        assert_eq!(squashed(&edit(Edit::Patch, r#"{"n":5}"#), &add, true), Squashed::Both);
        assert_eq!(squashed(&Edit::Delete, &upsert, true), Squashed::Both);
        let renamed = edit(Edit::Upsert, r#"{"a":1,"n":9}"#);
        assert_eq!(squashed(&upsert, &renamed, false), Squashed::One(edit(Edit::Upsert, r#"{"a":1,"n":5}"#)));
        assert_eq!(squashed(&upsert, &renamed, true), Squashed::One(renamed));
        let free = edit(Edit::Increment, r#"{"m":1}"#);
        assert_eq!(
            squashed(&edit(Edit::Upsert, r#"{"m":1}"#), &free, true),
            Squashed::One(edit(Edit::Upsert, r#"{"m":2}"#))
        );
    }
}
