//! `vectors/lay.json`, `vectors/squash.json` and `vectors/depend.json`.

use crate::vectors::{cases, edit, name, payload};
use gbsync_core::change::Payload;
use gbsync_core::depend::{Touch, Trail};
use gbsync_core::lay::{LayError, lay};
use gbsync_core::squash::{Squashed, squash};
use serde_json::Value;

#[test]
fn edits_are_laid_as_the_vectors_say() {
    for case in cases("lay.json", 60) {
        let state = payload(&case["state"]);
        let laid = lay(&edit(&case), state.as_ref(), None);
        let Some(error) = case["error"].as_str() else {
            let result = laid.unwrap_or_else(|error| panic!("{}: {error}", name(&case)));
            assert_eq!(result.as_ref().map(Payload::as_str), case["result"].as_str(), "{}", name(&case));
            continue;
        };
        let (word, field) = match laid.expect_err(name(&case)) {
            LayError::Missing => ("missing", None),
            LayError::NotANumber { field, .. } => ("not_a_number", Some(field)),
            LayError::OutOfRange { field } => ("out_of_range", Some(field)),
        };
        assert_eq!((word, field.as_deref()), (error, case["field"].as_str()), "{}", name(&case));
    }
}

#[test]
fn edits_are_squashed_as_the_vectors_say() {
    for case in cases("squash.json", 30) {
        let squashed = squash(&edit(&case["first"]), &edit(&case["second"]), case["existed"].as_bool().unwrap(), None);
        let expected = match &case["squashed"] {
            Value::String(word) if word == "nothing" => Squashed::Nothing,
            Value::String(word) if word == "both" => Squashed::Both,
            one => Squashed::One(edit(one)),
        };
        assert_eq!(squashed, expected, "{}", name(&case));
    }
}

#[test]
fn groups_depend_as_the_vectors_say() {
    for case in cases("depend.json", 30) {
        let touch = |value: &Value| Touch::from_stored(value.as_str().unwrap()).unwrap();
        let earlier = case["earlier"].as_array().unwrap();
        let trail = earlier.iter().fold(Trail::default(), |trail: Trail<&str>, group| {
            trail.after(group["group"].as_str().unwrap(), touch(&group["touch"]))
        });
        let expected: Vec<&str> = case["dependsOn"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(trail.dependencies(touch(&case["touch"])), expected, "{}", name(&case));
    }
}
