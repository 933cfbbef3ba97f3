//! Properties of core that no list of examples can show.

use gbsync_core::change::{Edit, Payload};
use gbsync_core::json::{Decimal, Node, Value, add_numbers, canonical, compose_patches, merge_patch, parse};
use gbsync_core::lay::lay;
use gbsync_core::limits::Limits;
use gbsync_core::plan::{Candidate, plan};
use gbsync_core::squash::{Squashed, squash};
use gbsync_core::wire::{Handshake, LogPage, OperationLine, Problem, PushRequest, parse_answer};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A number as somebody may write it.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        (-50_i64..50).prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,8})\\.[0-9]{1,6}",
        "-?(0|[1-9][0-9]{0,4})(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,2}",
    ]
}

/// A number small enough for every sum of a few of them.
fn amount() -> impl Strategy<Value = String> {
    prop_oneof!["-?(0|[1-9][0-9]{0,4})", "-?(0|[1-9][0-9]{0,4})\\.[0-9]{1,4}", "-?[1-9]e[0-3]"]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,2}", any::<String>().prop_map(|text| text.replace('\0', "")), "[\"\\\\/\u{1}\u{1f}\u{7f}é🧾]{0,4}",]
        .prop_map(|text| serde_json::to_string(&text).unwrap())
}

/// A JSON value as text, with white space, escapes and keys in any order.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![number(), string(), Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned())];
    scalar.prop_recursive(4, 24, 4, |inner| {
        let space = prop_oneof![Just(""), Just(" "), Just("\n\t")];
        let members = prop::collection::btree_map(string(), inner.clone(), 0..4);
        prop_oneof![
            (prop::collection::vec(inner, 0..4), space.clone())
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
            (members, any::<bool>(), space).prop_map(|(members, is_reversed, space)| {
                let mut members: Vec<String> =
                    members.iter().map(|(key, member)| format!("{key}{space}:{member}")).collect();
                if is_reversed {
                    members.reverse();
                }
                format!("{{{space}{}}}", members.join(&format!(",{space}")))
            }),
        ]
    })
}

/// An object over few keys, so that two of them meet; with nulls.
fn object() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![Just("null".to_owned()), amount(), Just("\"x\"".to_owned()), Just("[1,null]".to_owned())];
    let value = scalar.prop_recursive(2, 8, 3, object_of);
    object_of(value)
}

fn object_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::btree_map("[a-c]", value, 0..4).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(key, member)| format!("\"{key}\":{member}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn deltas() -> impl Strategy<Value = String> {
    prop::collection::btree_map("[a-c]", amount(), 1..3).prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(key, member)| format!("\"{key}\":{member}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn payload(text: &str) -> Payload {
    Payload::parse(text, &Limits::default()).unwrap()
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        object().prop_map(|text| Edit::Upsert(payload(&text))),
        object().prop_map(|text| Edit::Patch(payload(&text))),
        deltas().prop_map(|text| Edit::Increment(payload(&text))),
        Just(Edit::Delete),
    ]
}

/// The value without places and with members sorted: what two texts of one value have in common.
fn meaning(node: &Node<'_>) -> String {
    match &node.value {
        Value::Array(items) => format!("[{}]", items.iter().map(meaning).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let members: BTreeMap<&str, String> =
                members.iter().map(|(key, member)| (key.as_ref(), meaning(member))).collect();
            format!("{members:?}")
        }
        scalar => format!("{scalar:?}"),
    }
}

/// An oracle for addition: digits by hand, no machine integers. Numbers are given as sign, digits and decimal places.
fn oracle_sum(left: (bool, Vec<u8>, usize), right: (bool, Vec<u8>, usize)) -> String {
    let places = left.2.max(right.2);
    let width = 80;
    let aligned = |(_, digits, scale): &(bool, Vec<u8>, usize)| {
        let mut digits = digits.clone();
        digits.resize(digits.len() + places - scale, 0);
        let mut padded = vec![0; width - digits.len()];
        padded.append(&mut digits);
        padded
    };
    let (a, b) = (aligned(&left), aligned(&right));
    let (is_negative, digits) = if left.0 == right.0 {
        let (mut out, mut carry) = (vec![0; width], 0);
        for place in (0..width).rev() {
            let sum = a[place] + b[place] + carry;
            (out[place], carry) = (sum % 10, sum / 10);
        }
        (left.0, out)
    } else {
        let (is_negative, large, small) = if a >= b { (left.0, a, b) } else { (right.0, b, a) };
        let (mut out, mut borrow) = (vec![0; width], 0);
        for place in (0..width).rev() {
            let take = small[place] + borrow;
            borrow = u8::from(large[place] < take);
            out[place] = large[place] + 10 * borrow - take;
        }
        (is_negative, out)
    };
    let is_zero = digits.iter().all(|digit| *digit == 0);
    let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    let (whole, fraction) = text.split_at(width - places);
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let sign = if is_negative && !is_zero { "-" } else { "" };
    if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn decimal() -> impl Strategy<Value = (bool, Vec<u8>, usize)> {
    (any::<bool>(), prop::collection::vec(0_u8..10, 1..33), 0_usize..20)
        .prop_map(|(is_negative, digits, scale)| (is_negative, digits.clone(), scale.min(digits.len() - 1)))
}

fn decimal_text((is_negative, digits, scale): &(bool, Vec<u8>, usize)) -> String {
    let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    let (whole, fraction) = text.split_at(text.len() - scale);
    let whole = if whole.trim_start_matches('0').is_empty() { "0" } else { whole.trim_start_matches('0') };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{whole}{point}{fraction}", if *is_negative { "-" } else { "" })
}

fn outbox() -> impl Strategy<Value = Vec<Candidate<usize, u8>>> {
    let group = (
        1_u64..8,
        1_u64..400,
        0_u8..3,
        prop::bool::weighted(0.9),
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    );
    prop::collection::vec(group, 0..60).prop_map(|groups| {
        let groups = groups.into_iter().enumerate();
        groups
            .map(|(place, (records, bytes, actor, is_ready, parents))| {
                let undecided = if place == 0 { vec![] } else { parents.iter().map(|parent| parent.index(place)).collect() };
                Candidate { group: place, records, bytes, actor, is_ready, undecided }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_never_panics_on_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes, 64);
    }

    #[test]
    fn the_parser_never_panics_on_what_looks_like_json(text in "[\\[\\]{}\",:0-9eE.+\\-\\\\utfalsrn dD8]{0,40}") {
        let _ = parse(text.as_bytes(), 8);
    }

    #[test]
    fn no_reader_of_messages_panics(text in json(), key in "(groups|results|changes|head|limits|device|ids|type)") {
        for text in [text.clone(), format!("{{\"{key}\":{text}}}"), format!("{{\"device\":\"d\",\"epoch\":\"e\",\"groups\":[{text}]}}")] {
            let limits = Limits::default();
            let _ = PushRequest::parse(text.as_bytes(), &limits);
            let _ = parse_answer(text.as_bytes());
            let _ = LogPage::parse(text.as_bytes());
            let _ = Handshake::parse(text.as_bytes());
            let _ = Problem::parse(text.as_bytes());
            let _ = OperationLine::parse(&text, &limits);
        }
    }

    #[test]
    fn every_number_is_judged_without_a_panic(text in "-?[0-9]{1,40}(\\.[0-9]{1,40})?[eE][+-]?[0-9]{1,22}") {
        let _ = parse(text.as_bytes(), 64);
        let _ = Decimal::parse(&text);
    }

    #[test]
    fn the_canonical_form_is_its_own_and_means_the_same(text in json()) {
        let Ok(node) = parse(text.as_bytes(), 64) else { return Ok(()) };
        let form = canonical(&node);
        let again = parse(form.as_bytes(), 64).unwrap();
        prop_assert!(again.is_canonical());
        prop_assert_eq!(again.depth(), node.depth());
        prop_assert_eq!(meaning(&again), meaning(&node));
        prop_assert_eq!(canonical(&again), form.clone());
        let is_written_so = text[node.span()] == form;
        prop_assert_eq!(node.is_canonical(), is_written_so);
        let canonical_in = node.canonical_in(&text).into_owned();
        prop_assert_eq!(canonical_in, form);
    }

    #[test]
    fn what_is_accepted_is_json_for_everybody_else(text in json()) {
        if parse(text.as_bytes(), 64).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn a_merge_patch_made_of_two_does_what_both_do(target in object(), first in object(), second in object()) {
        let node = |text| parse(str::as_bytes(text), 64).unwrap();
        let in_turn = merge_patch(Some(merge_patch(Some(node(&target)), node(&first))), node(&second));
        if let Some(composed) = compose_patches(node(&first), node(&second)) {
            prop_assert_eq!(canonical(&merge_patch(Some(node(&target)), composed)), canonical(&in_turn));
        }
    }

    #[test]
    fn a_squashed_edit_does_what_both_do(first in edit(), second in edit(), state in prop::option::of(object())) {
        let state = state.map(|text| payload(&text));
        let in_turn = lay(&first, state.as_ref(), None).and_then(|between| lay(&second, between.as_ref(), None));
        let Ok(in_turn) = in_turn else { return Ok(()) };
        match squash(&first, &second, state.is_some(), None) {
            Squashed::One(edit) => prop_assert_eq!(lay(&edit, state.as_ref(), None), Ok(in_turn)),
            Squashed::Nothing => prop_assert_eq!(state, in_turn),
            Squashed::Both => {}
        }
    }

    #[test]
    fn increments_commute(state in object(), first in deltas(), second in deltas(), third in deltas()) {
        let state = payload(&state);
        let [a, b, c] = [first, second, third].map(|text| Edit::Increment(payload(&text)));
        let all = |edits: [&Edit; 3]| {
            edits.iter().try_fold(Some(state.clone()), |state, edit| lay(edit, state.as_ref(), None)).ok()
        };
        let forth = all([&a, &b, &c]);
        prop_assert_eq!(&forth, &all([&c, &b, &a]));
        prop_assert_eq!(&forth, &all([&b, &a, &c]));
    }

    #[test]
    fn sums_agree_with_the_digits_added_by_hand(left in decimal(), right in decimal()) {
        let (left_text, right_text) = (decimal_text(&left), decimal_text(&right));
        let sum = Decimal::parse(&left_text).unwrap().checked_add(Decimal::parse(&right_text).unwrap());
        let expected = oracle_sum(left, right);
        let digits = expected.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
        match sum {
            Some(sum) => prop_assert_eq!(sum.to_string(), expected),
            None => prop_assert!(digits > 34, "{} + {} = {} fits", left_text, right_text, expected),
        }
    }

    #[test]
    fn a_sum_is_a_number_that_a_payload_may_hold(left in number(), right in number()) {
        if parse(left.as_bytes(), 0).is_ok() && parse(right.as_bytes(), 0).is_ok()
            && let Some(sum) = add_numbers(&left, &right)
        {
            prop_assert!(parse(sum.as_bytes(), 0).is_ok(), "{left} + {right} = {sum}");
            prop_assert_eq!(add_numbers(&right, &left), Some(sum));
        }
    }

    #[test]
    fn plans_keep_every_rule(groups in outbox(), batch_records in 1_u64..12, batch_bytes in 1_u64..900) {
        let limits = Limits { batch_records, batch_bytes, ..Limits::default() };
        let batches = plan(groups.clone(), &limits);
        let planned: Vec<usize> = batches.iter().flatten().copied().collect();
        prop_assert!(planned.is_sorted_by(|a, b| a < b), "seal order, each group once and whole");
        let mut waiting = std::collections::BTreeSet::new();
        for group in &groups {
            let waits = !group.is_ready || group.undecided.iter().any(|parent| waiting.contains(parent));
            prop_assert_eq!(planned.contains(&group.group), !waits, "group {}", group.group);
            if waits {
                waiting.insert(group.group);
            }
        }
        for (place, batch) in batches.iter().enumerate() {
            let records: u64 = batch.iter().map(|group| groups[*group].records).sum();
            let bytes: u64 = batch.iter().map(|group| groups[*group].bytes).sum();
            prop_assert!(!batch.is_empty());
            prop_assert!(batch.len() == 1 || (records <= batch_records && bytes <= batch_bytes), "over the limit, not alone");
            prop_assert!(batch.iter().all(|group| groups[*group].actor == groups[batch[0]].actor), "two actors");
            if let Some(next) = batches.get(place + 1).map(|next| &groups[next[0]]) {
                let is_full = records >= batch_records || bytes >= batch_bytes;
                let would_be_over = records + next.records > batch_records || bytes + next.bytes > batch_bytes;
                prop_assert!(is_full || would_be_over || next.actor != groups[batch[0]].actor, "closed for no reason");
            }
        }
    }
}

/// Was once taken for a number in release and a panic in debug: the sign of `i64::MIN` cannot be turned.
#[test]
fn an_exponent_at_the_end_of_64_bits_is_refused() {
    for text in ["1e-9223372036854775808", "0.5e-9223372036854775808", "1e9223372036854775807", "0e-9223372036854775808"] {
        assert!(parse(text.as_bytes(), 64).is_err(), "{text}");
        assert!(Decimal::parse(text).is_none() || text.starts_with('0'), "{text}");
    }
}
