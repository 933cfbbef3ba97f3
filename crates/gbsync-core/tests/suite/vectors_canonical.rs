//! `vectors/canonical-accepted.json` and `vectors/canonical-refused.json`.

use crate::vectors::{bytes, cases, name};
use gbsync_core::json::{JsonErrorKind, canonical, parse};

#[test]
fn accepted_texts_have_the_canonical_form_of_the_vectors() {
    for case in cases("canonical-accepted.json", 60) {
        let (text, expected) = (bytes(&case), case["canonical"].as_str().unwrap());
        let node = parse(&text, 64).unwrap_or_else(|error| panic!("{}: {error}", name(&case)));
        assert_eq!(canonical(&node), expected, "{}", name(&case));
        assert_eq!(node.is_canonical(), &text[node.span()] == expected.as_bytes(), "{}", name(&case));
        let again = parse(expected.as_bytes(), 64).unwrap();
        assert!(again.is_canonical(), "{}: the canonical form is its own", name(&case));
    }
}

#[test]
fn refused_texts_are_refused_for_the_reason_of_the_vectors() {
    for case in cases("canonical-refused.json", 60) {
        let Err(error) = parse(&bytes(&case), 64) else { panic!("{}: accepted", name(&case)) };
        assert_eq!(word(error.kind), case["error"].as_str().unwrap(), "{}", name(&case));
        assert_eq!(error.pointer, case["pointer"].as_str().unwrap(), "{}", name(&case));
    }
}

#[test]
fn every_reason_has_a_vector() {
    let cases = cases("canonical-refused.json", 60);
    for kind in [
        JsonErrorKind::Empty,
        JsonErrorKind::InvalidUtf8,
        JsonErrorKind::ByteOrderMark,
        JsonErrorKind::UnexpectedEnd,
        JsonErrorKind::Syntax,
        JsonErrorKind::TrailingBytes,
        JsonErrorKind::DuplicateKey,
        JsonErrorKind::TooDeep,
        JsonErrorKind::Nul,
        JsonErrorKind::LoneSurrogate,
        JsonErrorKind::ControlCharacter,
        JsonErrorKind::IntegerRange,
        JsonErrorKind::NumberRange,
    ] {
        assert!(cases.iter().any(|case| case["error"] == word(kind)), "{kind:?}");
    }
}

/// The word that the vectors use for a kind of error.
fn word(kind: JsonErrorKind) -> &'static str {
    match kind {
        JsonErrorKind::Empty => "empty",
        JsonErrorKind::InvalidUtf8 => "invalid_utf8",
        JsonErrorKind::ByteOrderMark => "byte_order_mark",
        JsonErrorKind::UnexpectedEnd => "unexpected_end",
        JsonErrorKind::Syntax => "syntax",
        JsonErrorKind::TrailingBytes => "trailing_bytes",
        JsonErrorKind::DuplicateKey => "duplicate_key",
        JsonErrorKind::TooDeep => "too_deep",
        JsonErrorKind::Nul => "nul",
        JsonErrorKind::LoneSurrogate => "lone_surrogate",
        JsonErrorKind::ControlCharacter => "control_character",
        JsonErrorKind::IntegerRange => "integer_range",
        JsonErrorKind::NumberRange => "number_range",
        other => panic!("{other:?} has no word yet"),
    }
}
