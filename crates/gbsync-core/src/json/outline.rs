//! The members of an object in canonical form, as text: enough to look a few fields up, at a fraction of what the values cost.
//!
//! Invariant: what is read here was written canonically by this product. Of any other text the members up to the first doubt
//! are seen, and nothing panics.

use super::parse;
use super::scan::plain_end;
use std::borrow::Cow;
use std::ops::Range;

/// Members that there is room for from the start.
const MEMBERS: usize = 8;

/// The members of a canonical object.
///
/// ```
/// use gbsync_core::json::{Outline, text_of};
/// let outline = Outline::of(r#"{"no":"R-1","total":"12.50"}"#);
/// assert_eq!(outline.member("total").and_then(text_of).as_deref(), Some("12.50"));
/// ```
#[derive(Debug)]
pub struct Outline<'t>(Vec<(Cow<'t, str>, &'t str)>);

impl<'t> Outline<'t> {
    /// Walks over a canonical object.
    pub fn of(canonical: &'t str) -> Self {
        let (mut members, mut at) = (Vec::with_capacity(MEMBERS), 0);
        while let Some((name, value)) = member_at(canonical, at) {
            at = value.end;
            members.push((name, &canonical[value]));
        }
        Self(members)
    }

    /// The members with their canonical texts, in the order of their names' bytes.
    pub fn members(&self) -> &[(Cow<'t, str>, &'t str)] {
        &self.0
    }

    /// The canonical text of a member.
    pub fn member(&self, name: &str) -> Option<&'t str> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }
}

/// The text of a canonical string; `None` for any other value.
pub fn text_of(canonical: &str) -> Option<Cow<'_, str>> {
    let inner = canonical.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    let node = parse(canonical.as_bytes(), 1).ok()?;
    Some(Cow::Owned(node.as_str()?.to_owned()))
}

/// The member after the `{` or `,` at a place: its name, and where its value is.
fn member_at(text: &str, at: usize) -> Option<(Cow<'_, str>, Range<usize>)> {
    let bytes = text.as_bytes();
    if !matches!(bytes.get(at)?, b'{' | b',') {
        return None;
    }
    let start = at + 1;
    let end = string_end(bytes, start)?;
    if bytes.get(end) != Some(&b':') {
        return None;
    }
    let value = end + 1..value_end(bytes, end + 1)?;
    Some((text_of(&text[start..end])?, value))
}

/// Where the string that begins at a place ends.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let mut at = start + 1;
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the value that begins at a place ends.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Value, canonical};

    #[test]
    fn an_outline_says_what_the_parser_says() {
        for text in [
            "{}",
            r#"{"a":1}"#,
            r#"{"":"","a":"b\"c\\","b":[1,{"x":"}]"},[]],"c":{"d":{},"e":","},"d":null,"é":"ü","z":-1.5e3}"#,
            r#"{"a\\":true,"q\"":"\\","t\t":"\n\u0001"}"#,
        ] {
            let (outline, node) = (Outline::of(text), parse(text.as_bytes(), 64).expect("strict JSON"));
            let Value::Object(members) = &node.value else { panic!("an object") };
            assert_eq!(outline.0.len(), members.len(), "{text}");
            for (name, member) in members {
                let value = outline.member(name).expect("the member");
                assert_eq!(value, canonical(member));
                assert_eq!(text_of(value).as_deref(), member.as_str());
            }
        }
    }

    #[test]
    fn a_text_that_is_no_object_has_no_members() {
        for text in ["", "{", "[1]", "\"", r#"{"a"#, r#"{"a":"#, r#"{"a":"\"#, r#"{"a":[}"#, r#"{"é\"#, r#"{"a":"b\"}"#] {
            assert_eq!(Outline::of(text).0.len(), 0, "{text}");
        }
    }
}
