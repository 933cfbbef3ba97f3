//! `fields.NAME`: one field, as the name of its type or as a table.

use super::super::problem::{Code, Problems};
use super::super::source::{Entry, Value};
use super::super::{Counter, Field, FieldKind, OnDelete, OnViolation, Reference, names};
use super::keys::{self, Keys};
use super::{ON_VIOLATION, default};
use crate::id::Entity;

/// Most digits after the point: `10^18` is the largest power of ten within `i64`.
const MOST_SCALE: u64 = 18;
const TYPES: [&str; 8] = ["text", "integer", "real", "decimal", "boolean", "date", "timestamp", "json"];
/// What others call these types.
const OTHER_WORDS: [(&str, &str); 16] = [
    ("string", "text"),
    ("str", "text"),
    ("varchar", "text"),
    ("uuid", "text"),
    ("int", "integer"),
    ("bigint", "integer"),
    ("long", "integer"),
    ("float", "real"),
    ("double", "real"),
    ("number", "decimal"),
    ("numeric", "decimal"),
    ("money", "decimal"),
    ("bool", "boolean"),
    ("datetime", "timestamp"),
    ("object", "json"),
    ("array", "json"),
];
const KEYS: [&str; 13] = [
    "type",
    "scale",
    "required",
    "counter",
    "min",
    "max",
    "references",
    "on_delete",
    "on_violation",
    "sequence",
    "default",
    "was",
    "since",
];
const ON_DELETE: [OnDelete; 3] = [OnDelete::Restrict, OnDelete::Cascade, OnDelete::Ignore];

/// Reads one field.
pub(super) fn read(entry: &Entry, within: &str, version: u64, problems: &mut Problems) -> Option<Field> {
    let path = keys::join(within, &entry.key);
    names::check_field(&entry.key, entry.at, &path, problems);
    if let Value::Text(word) = &entry.item.value {
        let kind = kind_of(word, None, entry.item.at, &path, problems)?;
        return Some(Field::of(kind));
    }
    let Value::Table(_) = &entry.item.value else {
        keys::wrong_type(&entry.item, &path, "the name of a type or a table", problems);
        return None;
    };
    let keys = Keys::of(&entry.item, entry.at, path, problems)?;
    keys.only(&KEYS, problems);
    let Some(kind) = read_kind(&keys, problems) else {
        check_without_kind(&keys, problems);
        return None;
    };
    let mut field = Field::of(kind);
    field.required = keys.boolean("required", problems).unwrap_or_default();
    let on_violation = keys.choice("on_violation", &ON_VIOLATION, problems);
    field.counter = read_counter(&keys, kind, on_violation, problems);
    field.reference = read_reference(&keys, kind, on_violation, problems);
    field.sequence = read_sequence(&keys, kind, problems);
    field.default = default::read(&keys, kind, problems);
    read_history(&keys, &mut field, version, problems);
    check_together(&keys, &field, on_violation, problems);
    Some(field)
}

fn read_kind(keys: &Keys<'_>, problems: &mut Problems) -> Option<FieldKind> {
    if keys.find("type").is_none() {
        if !keys.is_misspelt("type") {
            let fix = format!("one of {}", TYPES.join(", "));
            problems.add_with(keys.at, &keys.path_of("type"), Code::MissingKey, "the field needs a type", fix);
        }
        return None;
    }
    let (word, at) = keys.text("type", problems)?;
    kind_of(word, Some(keys), at, &keys.path_of("type"), problems)
}

fn kind_of(word: &str, keys: Option<&Keys<'_>>, at: usize, path: &str, problems: &mut Problems) -> Option<FieldKind> {
    if word == "decimal" && keys.is_some_and(|keys| keys.find("scale").is_none() && keys.is_misspelt("scale")) {
        return None;
    }
    let scale = keys.filter(|keys| keys.find("scale").is_some());
    if let (Some(keys), true) = (scale, word != "decimal" && TYPES.contains(&word)) {
        let message = format!("only a decimal has a scale, not {word}");
        problems.add(keys.place("scale"), &keys.path_of("scale"), Code::Contradiction, message);
    }
    Some(match word {
        "text" => FieldKind::Text,
        "integer" => FieldKind::Integer,
        "real" => FieldKind::Real,
        "boolean" => FieldKind::Boolean,
        "date" => FieldKind::Date,
        "timestamp" => FieldKind::Timestamp,
        "json" => FieldKind::Json,
        "decimal" => return read_scale(scale, at, path, problems),
        _ => {
            let message = format!("{word:?} is no type");
            match OTHER_WORDS.iter().find(|(other, _)| word.eq_ignore_ascii_case(other)) {
                Some((_, ours)) => {
                    problems.add_with(at, path, Code::UnknownValue, message, format!("did you mean {ours:?}?"));
                }
                None => problems.add_unknown(at, path, Code::UnknownValue, message, word, &TYPES),
            }
            return None;
        }
    })
}

fn read_scale(keys: Option<&Keys<'_>>, at: usize, path: &str, problems: &mut Problems) -> Option<FieldKind> {
    let Some(keys) = keys else {
        let message = "a decimal needs a scale, its digits after the point";
        let fix = "such as { type = \"decimal\", scale = 2 }";
        problems.add_with(at, path, Code::MissingKey, message, fix);
        return None;
    };
    let scale = keys.count("scale", problems)?;
    match u32::try_from(scale).ok().filter(|_| scale <= MOST_SCALE) {
        Some(scale) => Some(FieldKind::Decimal { scale }),
        None => {
            let at = keys.find("scale").map_or(keys.at, |entry| entry.item.at);
            let message = format!("a scale is 0 to {MOST_SCALE}, not {scale}");
            problems.add(at, &keys.path_of("scale"), Code::OutOfRange, message);
            None
        }
    }
}

/// What can be said of the other keys although the type is not known.
fn check_without_kind(keys: &Keys<'_>, problems: &mut Problems) {
    for key in ["required", "counter"] {
        keys.boolean(key, problems);
    }
    for key in ["references", "sequence", "was"] {
        keys.text(key, problems);
    }
    keys.choice("on_violation", &ON_VIOLATION, problems);
    keys.choice("on_delete", &ON_DELETE.map(|policy| (policy.as_str(), policy)), problems);
}

fn read_counter(
    keys: &Keys<'_>,
    kind: FieldKind,
    on_violation: Option<OnViolation>,
    problems: &mut Problems,
) -> Option<Counter> {
    let (min, max) = (keys.decimal("min", problems), keys.decimal("max", problems));
    if keys.boolean("counter", problems) != Some(true) {
        for key in ["min", "max"] {
            if keys.find(key).is_some()
                && keys.find("counter").is_none_or(|entry| matches!(entry.item.value, Value::Bool(_)))
            {
                let message = format!("{key} bounds a counter, and this field is none");
                let fix = "add counter = true, or say it as an invariant";
                problems.add_with(keys.place(key), &keys.path_of(key), Code::Contradiction, message, fix);
            }
        }
        return None;
    }
    if !matches!(kind, FieldKind::Integer | FieldKind::Real | FieldKind::Decimal { .. }) {
        let message = format!("a counter is an integer, a decimal or a real, not {}", kind.as_str());
        problems.add(keys.place("counter"), &keys.path_of("counter"), Code::Contradiction, message);
        return None;
    }
    for (key, bound) in [("min", min), ("max", max)] {
        if let Some(bound) = bound.filter(|bound| !default::fits(kind, *bound)) {
            let at = keys.find(key).map_or(keys.at, |entry| entry.item.at);
            let message = format!("{bound} is no value that the counter can have");
            problems.add(at, &keys.path_of(key), Code::OutOfRange, message);
        }
    }
    if let (Some(least), Some(most)) = (min, max)
        && most.compare(least).is_lt()
    {
        let message = format!("min is {least}, over max, which is {most}");
        problems.add(keys.place("min"), &keys.path_of("min"), Code::Contradiction, message);
    }
    Some(Counter { min, max, on_violation: on_violation.unwrap_or_default() })
}

fn read_reference(
    keys: &Keys<'_>,
    kind: FieldKind,
    on_violation: Option<OnViolation>,
    problems: &mut Problems,
) -> Option<Reference> {
    let on_delete = keys.choice("on_delete", &ON_DELETE.map(|policy| (policy.as_str(), policy)), problems);
    let Some((entity, _)) = keys.text("references", problems) else {
        if on_delete.is_some() && keys.find("references").is_none() {
            let message = "on_delete belongs to a reference, and this field is none";
            let fix = "add references = \"ENTITY\"";
            problems.add_with(keys.place("on_delete"), &keys.path_of("on_delete"), Code::Contradiction, message, fix);
        }
        return None;
    };
    if !matches!(kind, FieldKind::Text | FieldKind::Integer) {
        let message = format!("a reference holds an id and is text (or an integer), not {}", kind.as_str());
        problems.add(keys.place("references"), &keys.path_of("references"), Code::Contradiction, message);
    }
    let entity = Entity::new(entity).ok()?;
    Some(Reference { entity, on_delete: on_delete.unwrap_or_default(), on_violation: on_violation.unwrap_or_default() })
}

fn read_sequence(keys: &Keys<'_>, kind: FieldKind, problems: &mut Problems) -> Option<String> {
    let (sequence, _) = keys.text("sequence", problems)?;
    if kind != FieldKind::Text {
        let message = format!("a sequence fills a text, not {}", kind.as_str());
        problems.add(keys.place("sequence"), &keys.path_of("sequence"), Code::Contradiction, message);
    }
    Some(sequence.to_owned())
}

fn read_history(keys: &Keys<'_>, field: &mut Field, version: u64, problems: &mut Problems) {
    field.was = keys.text("was", problems).map(|(was, _)| was.to_owned());
    field.since = keys.count("since", problems);
    let Some(since) = field.since else { return };
    let at = keys.find("since").map_or(keys.at, |entry| entry.item.at);
    if since == 0 || since > version {
        let message = format!("since is a version up to the schema's own, not {since}");
        problems.add(at, &keys.path_of("since"), Code::OutOfRange, message);
    }
    if since > 1 && field.required && field.was.is_none() && keys.find("default").is_none() {
        let message = format!("the field is required since version {since} and has no default");
        let fix = "older apps leave it out and would be refused; add default";
        problems.add_with(at, &keys.path_of("default"), Code::MissingKey, message, fix);
    }
}

fn check_together(keys: &Keys<'_>, field: &Field, on_violation: Option<OnViolation>, problems: &mut Problems) {
    if on_violation.is_some() && field.counter.is_none() && field.reference.is_none() {
        let message = "on_violation belongs to a reference or a counter, and this field is neither";
        problems.add(keys.place("on_violation"), &keys.path_of("on_violation"), Code::Contradiction, message);
    }
    for (one, other, is) in [
        ("counter", "references", field.counter.is_some() && field.reference.is_some()),
        ("sequence", "references", field.sequence.is_some() && field.reference.is_some()),
    ] {
        if is {
            let message = format!("a field cannot have both {one} and {other}");
            problems.add(keys.place(one), &keys.path_of(one), Code::Contradiction, message);
        }
    }
}
