//! Mechanical replay of changes on records. Knows no policy: whether a change may be made is `decide`'s to say.
//!
//! Invariant: the device's view, the server's result and the simulator's are this one function of edit and state.

use crate::change::{Edit, Payload};
use crate::json::{self, Node, Value, merge_patch};
use crate::schema::EntityRules;
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
    let _ = rules;
    match (edit, state) {
        (Edit::Upsert(payload), _) => Ok(Some(payload.clone())),
        (_, None) => Err(LayError::Missing),
        (Edit::Delete, Some(_)) => Ok(None),
        (Edit::Patch(patch), Some(state)) => {
            let merged = merge_patch(Some(state.node()), patch.node());
            Ok(Some(Payload::from_stored(json::canonical(&merged))))
        }
        (Edit::Increment(deltas), Some(state)) => add(state, deltas).map(Some),
    }
}

/// Adds deltas to fields of a payload.
pub(crate) fn add(state: &Payload, deltas: &Payload) -> Result<Payload, LayError> {
    let (mut node, deltas) = (state.node(), deltas.node());
    let (Value::Object(members), Value::Object(deltas)) = (&mut node.value, &deltas.value) else {
        unreachable!("a payload is an object");
    };
    let mut created = Vec::new();
    for (field, delta) in deltas {
        let delta = delta.as_number().expect("an increment's fields are numbers");
        // A payload is canonical, so its members are sorted.
        match members.binary_search_by(|(name, _)| name.as_bytes().cmp(field.as_bytes())) {
            Ok(place) => {
                let member = &mut members[place].1;
                let Value::Number(old) = &member.value else {
                    return Err(LayError::NotANumber { field: field.to_string(), holds: member.kind_name() });
                };
                let sum = json::add_numbers(old, delta).ok_or_else(|| LayError::OutOfRange { field: field.to_string() })?;
                member.value = Value::Number(Cow::Owned(sum));
            }
            Err(_) => {
                let value = Value::Number(Cow::Owned(delta.to_owned()));
                created.push((Cow::Owned(field.to_string()), Node::computed(value)));
            }
        }
    }
    members.append(&mut created);
    Ok(Payload::from_stored(json::canonical(&node)))
}
