//! `[sequences.NAME]`: numbers that are allotted when an operation is sealed.

use super::super::problem::{Code, Problems};
use super::super::source::Entry;
use super::super::{Sequence, SequenceFormat, SequencePart};
use super::keys::Keys;

/// Most digits that a number is padded to.
const MOST_WIDTH: usize = 18;
/// Most bytes of a format.
const FORMAT_BYTES: usize = 256;

/// Reads one sequence.
pub(super) fn read(entry: &Entry, problems: &mut Problems) -> Option<(String, Sequence)> {
    let path = format!("sequences.{}", entry.key);
    let keys = Keys::of(&entry.item, entry.at, path, problems)?;
    keys.only(&["per", "format"], problems);
    if entry.key.is_empty() || entry.key.len() > 128 || entry.key.chars().any(char::is_control) {
        let message = "a sequence's name has 1 to 128 bytes and no control character";
        problems.add(entry.at, &keys.path, Code::InvalidName, message);
    }
    // The one way there is; the key says so to whoever reads the file.
    keys.choice("per", &[("device", ())], problems);
    let Some((format, at)) = keys.text("format", problems) else {
        if keys.find("format").is_none() {
            let message = format!("the sequence {:?} needs a format", entry.key);
            let fix = "such as format = \"{device}-{n:06}\"";
            problems.add_with(entry.at, &keys.path_of("format"), Code::MissingKey, message, fix);
        }
        return None;
    };
    match parse_format(format) {
        Ok(format) => Some((entry.key.clone(), Sequence { format })),
        Err(message) => {
            let fix = "such as \"{device}-{n:06}\"";
            problems.add_with(at, &keys.path_of("format"), Code::InvalidFormat, message, fix);
            None
        }
    }
}

/// Reads a format: text with `{device}` and once `{n}` or `{n:06}`.
fn parse_format(text: &str) -> Result<SequenceFormat, String> {
    if text.len() > FORMAT_BYTES {
        return Err(format!("a format has at most {FORMAT_BYTES} bytes"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (plain, opened) = rest.split_at(open);
        let inside = opened.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let Some((name, after)) = inside else { return Err(format!("a brace of {text:?} has no partner")) };
        if !plain.is_empty() {
            parts.push(SequencePart::Text(plain.to_owned()));
        }
        parts.push(parse_part(name)?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(SequencePart::Text(rest.to_owned()));
    }
    let count = |wanted: fn(&SequencePart) -> bool| parts.iter().filter(|part| wanted(part)).count();
    if count(|part| matches!(part, SequencePart::Number { .. })) != 1 {
        return Err("a format names {n} exactly once".to_owned());
    }
    if count(|part| matches!(part, SequencePart::Device)) != 1 {
        return Err("a format names {device} exactly once: two devices would make the same number".to_owned());
    }
    Ok(SequenceFormat { parts })
}

fn parse_part(name: &str) -> Result<SequencePart, String> {
    if name == "device" {
        return Ok(SequencePart::Device);
    }
    if name == "n" {
        return Ok(SequencePart::Number { width: 1 });
    }
    let width = name.strip_prefix("n:0").and_then(|digits| digits.parse::<usize>().ok());
    match width.filter(|width| (1..=MOST_WIDTH).contains(width)) {
        Some(width) => Ok(SequencePart::Number { width }),
        None => Err(format!("{{{name}}} is no placeholder; use {{device}}, {{n}} or {{n:01}} to {{n:0{MOST_WIDTH}}}")),
    }
}

impl std::fmt::Display for SequenceFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.parts {
            match part {
                SequencePart::Text(text) => f.write_str(text)?,
                SequencePart::Device => f.write_str("{device}")?,
                SequencePart::Number { width: 1 } => f.write_str("{n}")?,
                SequencePart::Number { width } => write!(f, "{{n:0{width}}}")?,
            }
        }
        Ok(())
    }
}
