//! The strict parser and the canonical form, against a second reader and against serde_json.

use crate::reference;
use gbsync_core::json::{Decimal, Node, Outline, Value, canonical, parse, parse_opaque};
use gbsync_core::limits::PAYLOAD_DEPTH;

/// The parser accepts exactly what the reference accepts, and both write the same.
///
/// # Panics
/// When they differ, or the canonical form is not its own.
pub fn canonical_form(data: &[u8]) {
    let (ours, theirs) = (parse(data, PAYLOAD_DEPTH), reference::canonical(data, PAYLOAD_DEPTH));
    let (node, expected) = match (ours, theirs) {
        (Ok(node), Some(expected)) => (node, expected),
        (Err(error), None) => {
            assert!(error.offset <= data.len(), "{error}");
            return;
        }
        (Ok(_), None) => panic!("accepted, and the reference refuses it"),
        (Err(error), Some(_)) => panic!("refused, and the reference accepts it: {error}"),
    };
    let text = std::str::from_utf8(data).expect("the parser takes UTF-8 alone");
    let form = canonical(&node);
    assert_eq!(form, expected);
    assert_eq!(node.is_canonical(), text[node.span()] == form, "is_canonical");
    assert_eq!(node.canonical_in(text), form);
    let again = parse(form.as_bytes(), PAYLOAD_DEPTH).expect("the canonical form is accepted");
    assert!(again.is_canonical() && again.span() == (0..form.len()), "the canonical form is its own");
    let passing = parse_opaque(data, PAYLOAD_DEPTH, "payload").expect("what is passed on is read as strictly");
    assert_eq!((passing.depth(), passing.span()), (node.depth(), node.span()));
    others_agree(data, &form);
    members_are_found(&node, &form);
    numbers_are_exact(&node);
}

/// What is accepted must be plain JSON to others, and the same to them in both forms.
fn others_agree(data: &[u8], form: &str) {
    match serde_json::from_slice::<serde_json::Value>(data) {
        Ok(theirs) => {
            let again: serde_json::Value = serde_json::from_str(form).expect("serde_json reads the canonical form");
            assert!(are_equal(&theirs, &again), "serde_json: {theirs} becomes {again}");
        }
        Err(error) => assert!(error.to_string().contains("number out of range"), "serde_json: {error}"),
    }
}

/// Equal as values: the canonical form has no minus zero (docs/decisions/0001), which is another number to serde_json.
fn are_equal(left: &serde_json::Value, right: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (left, right) {
        (Number(left), Number(right)) => left == right || (left.as_f64() == Some(0.0) && right.as_f64() == Some(0.0)),
        (Array(left), Array(right)) => left.len() == right.len() && left.iter().zip(right).all(|(l, r)| are_equal(l, r)),
        (Object(left), Object(right)) => {
            left.len() == right.len() && left.iter().all(|(name, l)| right.get(name).is_some_and(|r| are_equal(l, r)))
        }
        _ => left == right,
    }
}

fn members_are_found(node: &Node<'_>, form: &str) {
    let Value::Object(members) = &node.value else { return };
    let outline = Outline::of(form);
    for (name, member) in members {
        assert_eq!(outline.member(name), Some(canonical(member).as_str()), "the member {name:?}");
    }
}

fn numbers_are_exact(node: &Node<'_>) {
    match &node.value {
        Value::Number(digits) => {
            let Some(decimal) = Decimal::parse(digits) else { return };
            let again = Decimal::parse(&decimal.to_string()).expect("a decimal is written as it is read");
            assert!(again == decimal && again.compare(decimal).is_eq(), "{digits} becomes {again}");
            assert_eq!(decimal.checked_sub(decimal).map(|rest| rest.compare(Decimal::from(0)).is_eq()), Some(true));
        }
        Value::Array(items) => items.iter().for_each(numbers_are_exact),
        Value::Object(members) => members.iter().for_each(|(_, member)| numbers_are_exact(member)),
        _ => {}
    }
}
