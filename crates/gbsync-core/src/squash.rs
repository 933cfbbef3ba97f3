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
    match (first, second) {
        (Upsert(_), Delete) if !existed => Squashed::Nothing,
        (_, Delete) => Squashed::One(Delete),
        // An upsert leaves counters alone, so the increment before it must stay.
        (Increment(_), Upsert(_) | Patch(_)) => Squashed::Both,
        (_, Upsert(_)) => Squashed::One(second.clone()),
        (Upsert(_), Patch(_) | Increment(_)) => match lay::lay(second, first.payload(), rules) {
            Ok(Some(payload)) => Squashed::One(Upsert(payload)),
            _ => Squashed::Both,
        },
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

/// Whether a patch sets every field of an increment to a number.
fn sets_all(patch: &Payload, deltas: &Payload) -> bool {
    let (patch, deltas) = (patch.node(), deltas.node());
    let Value::Object(deltas) = &deltas.value else { return false };
    deltas.iter().all(|(field, _)| patch.member(field).is_some_and(|member| member.as_number().is_some()))
}
