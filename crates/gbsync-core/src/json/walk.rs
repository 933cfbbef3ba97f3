//! Walking over an object in canonical form without keeping its members: for what is only passed on.
//!
//! Invariant: what is walked over is exactly what the parser would call canonical, or less; everything else is parsed in full,
//! which says what is wrong with it. Strings with escapes are left to the parser.

use super::parse::Parser;
use super::scan::plain_end;
use super::{Node, Value};

impl<'a> Parser<'a> {
    /// The member `key` if only its place is wanted and it is a canonical object.
    pub(super) fn opaque_member(&mut self, key: &str, depth: usize) -> Option<Node<'a>> {
        if self.opaque != Some(key) || self.bytes.get(self.at) != Some(&b'{') {
            return None;
        }
        let start = self.at;
        let Some(inner) = self.walk_object(depth) else {
            // Not canonical, or wrong: read in full, which says what is wrong.
            self.at = start;
            return None;
        };
        let (start, end) = (start as u32, self.at as u32);
        Some(Node { start, end, is_canonical: true, depth: inner, value: Value::Object(Vec::new()) })
    }

    /// Walks over an object in canonical form; `None` for anything else. Its depth, as a node would say it.
    fn walk_object(&mut self, depth: usize) -> Option<u16> {
        self.open(depth).ok()?;
        if self.take(b'}') {
            return Some(1);
        }
        let (mut before, mut inner): (Option<&str>, u16) = (None, 0);
        loop {
            let key = self.walk_string()?;
            // Strictly ascending keys are sorted, and none is there twice.
            if before.is_some_and(|before| before.as_bytes() >= key.as_bytes()) || !self.take(b':') {
                return None;
            }
            before = Some(key);
            inner = inner.max(self.walk_value(depth + 1)?);
            match self.take(b',') {
                true => {}
                false => return self.take(b'}').then_some(inner + 1),
            }
        }
    }

    fn walk_array(&mut self, depth: usize) -> Option<u16> {
        self.open(depth).ok()?;
        if self.take(b']') {
            return Some(1);
        }
        let mut inner = 0;
        loop {
            inner = inner.max(self.walk_value(depth + 1)?);
            match self.take(b',') {
                true => {}
                false => return self.take(b']').then_some(inner + 1),
            }
        }
    }

    fn walk_value(&mut self, depth: usize) -> Option<u16> {
        match self.bytes.get(self.at)? {
            b'{' => self.walk_object(depth),
            b'[' => self.walk_array(depth),
            b'"' => self.walk_string().map(|_| 0),
            b'-' | b'0'..=b'9' => self.number().ok()?.1.then_some(0),
            b't' => self.word("true", Value::Null).ok().map(|_| 0),
            b'f' => self.word("false", Value::Null).ok().map(|_| 0),
            b'n' => self.word("null", Value::Null).ok().map(|_| 0),
            _ => None,
        }
    }

    /// Walks over a string without escapes.
    fn walk_string(&mut self) -> Option<&'a str> {
        if !self.take(b'"') {
            return None;
        }
        let start = self.at;
        self.at = plain_end(self.bytes, start);
        let text = &self.text[start..self.at];
        self.take(b'"').then_some(text)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, parse_opaque};
    use super::*;

    #[test]
    fn an_opaque_member_is_what_it_would_be_in_full() {
        let payloads = [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":{"b":[1,{"c":null}],"d":"x"},"e":true,"f":-1.50e3}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{ "a":1}"#,
            r#"{"a" :1}"#,
            r#"{"a":1 }"#,
            r#"{"a":"b\"c"}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":-0}"#,
            r#"{"a":01}"#,
            r#"{"a":1e999}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":tru}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[}"#,
            r#"{"a":"é"}"#,
            r#"{"a":"b"#,
            r#"{"a":nulL}"#,
            "[]",
            "1",
            "null",
            r#"{"a":[[[[[[1]]]]]]}"#,
            r#"{"":0,"a":0}"#,
            "{\"a\":\"\u{1}\"}",
        ];
        for payload in payloads {
            let text = format!(r#"{{"changes":[{{"id":"x","payload":{payload}}}],"payload":7}}"#);
            let (full, opaque) = (parse(text.as_bytes(), 8), parse_opaque(text.as_bytes(), 8, "payload"));
            let (full, opaque) = match (full, opaque) {
                (Ok(full), Ok(opaque)) => (full, opaque),
                (full, opaque) => {
                    assert_eq!(full.err(), opaque.err(), "{payload}");
                    continue;
                }
            };
            let of = |node: &Node<'_>| {
                let payload =
                    node.member("changes").and_then(Node::as_array).and_then(|changes| changes[0].member("payload"));
                payload.map(|node| {
                    (node.span(), node.depth(), node.is_canonical(), node.kind_name(), node.canonical_in(&text).into_owned())
                })
            };
            assert_eq!(of(&full), of(&opaque), "{payload}");
            assert_eq!((full.depth(), full.is_canonical()), (opaque.depth(), opaque.is_canonical()), "{payload}");
        }
    }
}
