//! The strict parser: one pass, byte offsets kept, every doubtful text refused.

use super::scan::plain_end;
use super::{Node, Value, number};
use crate::mutant::{Mutant, is};
use std::borrow::Cow;

/// Why a text was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}{}", if pointer.is_empty() { String::new() } else { format!(", inside {pointer}") })]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Byte offset into the text.
    pub offset: usize,
    /// RFC 6901 pointer to the innermost value that was being read.
    pub pointer: String,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The text is empty or only white space.
    #[error("there is no JSON value")]
    Empty,
    /// The text is not UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// The text starts with a byte order mark.
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// The text ends inside a value.
    #[error("the text ends too early")]
    UnexpectedEnd,
    /// Something stands where JSON's grammar has no place for it.
    #[error("the syntax is not JSON")]
    Syntax,
    /// More text follows the value.
    #[error("more text follows the JSON value")]
    TrailingBytes,
    /// An object has the same key twice, perhaps written with different escapes.
    #[error("an object has the same key twice")]
    DuplicateKey,
    /// Arrays and objects are nested deeper than the limit.
    #[error("the nesting is deeper than allowed")]
    TooDeep,
    /// The text has 4 GiB or more.
    #[error("the text has 4 GiB or more")]
    TooLong,
    /// A string holds U+0000.
    #[error("a string holds the character NUL")]
    Nul,
    /// A string holds half a surrogate pair.
    #[error("a string holds a lone surrogate")]
    LoneSurrogate,
    /// A control character stands unescaped in a string.
    #[error("a control character in a string must be escaped")]
    ControlCharacter,
    /// An integer does not fit 64 bits.
    #[error("an integer is outside -9223372036854775808 to 9223372036854775807; write it as a string")]
    IntegerRange,
    /// A number has too many digits or too large an exponent.
    #[error("a number has over 34 significant digits or an exponent beyond 308; write it as a string")]
    NumberRange,
}

/// Parses one JSON value and refuses everything that readers elsewhere disagree about.
///
/// `max_depth` bounds the nesting of arrays and objects. Linear in the length of the text, but for objects whose keys
/// are not sorted: those cost `n log n` in their number of members.
///
/// # Errors
/// [`JsonError`] with the offset and a pointer to the value being read.
///
/// ```
/// use gbsync_core::json::{parse, JsonErrorKind};
/// assert_eq!(parse(br#"{"a":1,"\u0061":2}"#, 64).unwrap_err().kind, JsonErrorKind::DuplicateKey);
/// ```
pub fn parse(text: &[u8], max_depth: usize) -> Result<Node<'_>, JsonError> {
    parse_with(text, max_depth, None)
}

/// As [`parse`], but of a member called `opaque` that is an object in canonical form only the place, the depth and the form
/// are kept, not the members: enough to pass it on. Every other text is read as [`parse`] reads it.
///
/// # Errors
/// As [`parse`].
///
/// ```
/// use gbsync_core::json::parse_opaque;
/// let text = r#"{"payload":{"no":"R-1","total":"2.50"}}"#;
/// let node = parse_opaque(text.as_bytes(), 64, "payload").unwrap();
/// let payload = node.member("payload").unwrap();
/// assert_eq!(payload.canonical_in(text), r#"{"no":"R-1","total":"2.50"}"#);
/// assert!(payload.member("no").is_none());
/// ```
pub fn parse_opaque<'a>(text: &'a [u8], max_depth: usize, opaque: &'static str) -> Result<Node<'a>, JsonError> {
    parse_with(text, max_depth, Some(opaque))
}

fn parse_with<'a>(text: &'a [u8], max_depth: usize, opaque: Option<&'static str>) -> Result<Node<'a>, JsonError> {
    let fail = |kind, offset| JsonError { kind, offset, pointer: String::new() };
    if text.starts_with(&[0xEF, 0xBB, 0xBF]) {
        return Err(fail(JsonErrorKind::ByteOrderMark, 0));
    }
    let text = std::str::from_utf8(text).map_err(|error| fail(JsonErrorKind::InvalidUtf8, error.valid_up_to()))?;
    if u32::try_from(text.len()).is_err() {
        return Err(fail(JsonErrorKind::TooLong, 0));
    }
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, max_depth: max_depth.min(MOST_DEPTH), opaque };
    parser.skip_space();
    if parser.at == text.len() {
        return Err(fail(JsonErrorKind::Empty, 0));
    }
    let node = parser.value(0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(fail(JsonErrorKind::TrailingBytes, parser.at));
    }
    Ok(node)
}

/// Members that an object has room for from the start: most payloads and messages have about as many.
const MEMBERS: usize = 8;
/// Members up to which pairs are compared.
const FEW_MEMBERS: usize = 16;
/// Nesting that no caller's limit may exceed, so that the stack holds.
const MOST_DEPTH: usize = 512;

pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    max_depth: usize,
    /// The name of members of which only the place is kept, where they are canonical objects.
    pub(super) opaque: Option<&'static str>,
}

pub(super) type Parsed<T> = Result<T, JsonError>;

impl<'a> Parser<'a> {
    fn skip_space(&mut self) -> bool {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.at > start
    }

    fn error<T>(&self, kind: JsonErrorKind) -> Parsed<T> {
        Err(JsonError { kind, offset: self.at, pointer: String::new() })
    }

    fn unexpected<T>(&self) -> Parsed<T> {
        self.error(if self.at >= self.bytes.len() { JsonErrorKind::UnexpectedEnd } else { JsonErrorKind::Syntax })
    }

    fn value(&mut self, depth: usize) -> Parsed<Node<'a>> {
        let start = self.at;
        let (value, is_canonical, depth) = match self.bytes.get(self.at) {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => {
                let (text, is_canonical) = self.string()?;
                (Value::String(text), is_canonical, 0)
            }
            Some(b'-' | b'0'..=b'9') => {
                let (digits, is_canonical) = self.number()?;
                (Value::Number(digits), is_canonical, 0)
            }
            Some(b't') => (self.word("true", Value::Bool(true))?, true, 0),
            Some(b'f') => (self.word("false", Value::Bool(false))?, true, 0),
            Some(b'n') => (self.word("null", Value::Null)?, true, 0),
            _ => return self.unexpected(),
        };
        Ok(Node { start: start as u32, end: self.at as u32, is_canonical, depth, value })
    }

    pub(super) fn word(&mut self, word: &str, value: Value<'a>) -> Parsed<Value<'a>> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        let rest = self.bytes.len() - self.at;
        if rest < word.len() && word.as_bytes().starts_with(&self.bytes[self.at..]) {
            self.at = self.bytes.len();
        }
        self.unexpected()
    }

    pub(super) fn open(&mut self, depth: usize) -> Parsed<()> {
        if depth >= self.max_depth {
            return self.error(JsonErrorKind::TooDeep);
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Parsed<(Value<'a>, bool, u16)> {
        self.open(depth)?;
        let mut items: Vec<Node<'a>> = Vec::new();
        let (mut is_canonical, mut inner) = (!self.skip_space(), 0);
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok((Value::Array(items), is_canonical, 1));
        }
        loop {
            let item = self.value(depth + 1).map_err(|error| within(error, &items.len().to_string()))?;
            is_canonical &= item.is_canonical;
            inner = inner.max(item.depth);
            items.push(item);
            is_canonical &= !self.skip_space();
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.unexpected().map_err(|error| within(error, &items.len().to_string())),
            }
            is_canonical &= !self.skip_space();
        }
        self.at += 1;
        Ok((Value::Array(items), is_canonical, inner + 1))
    }

    fn object(&mut self, depth: usize) -> Parsed<(Value<'a>, bool, u16)> {
        self.open(depth)?;
        let mut members: Vec<(Cow<'a, str>, Node<'a>)> = Vec::with_capacity(MEMBERS);
        let (mut is_canonical, mut inner, mut is_sorted) = (!self.skip_space(), 0, true);
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok((Value::Object(members), is_canonical, 1));
        }
        loop {
            if self.bytes.get(self.at) != Some(&b'"') {
                return self.unexpected();
            }
            let (key, key_is_canonical) = self.string()?;
            is_canonical &= key_is_canonical & !self.skip_space();
            if self.bytes.get(self.at) != Some(&b':') {
                return self.unexpected().map_err(|error| within(error, &key));
            }
            self.at += 1;
            is_canonical &= !self.skip_space();
            let member = match self.opaque_member(&key, depth + 1) {
                Some(member) => member,
                None => self.value(depth + 1).map_err(|error| within(error, &key))?,
            };
            is_canonical &= member.is_canonical;
            inner = inner.max(member.depth);
            is_sorted &= members.last().is_none_or(|(before, _)| before.as_bytes() < key.as_bytes());
            members.push((key, member));
            is_canonical &= !self.skip_space();
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.unexpected(),
            }
            is_canonical &= !self.skip_space();
        }
        self.at += 1;
        if !is_sorted && !is(Mutant::DuplicateKeyAccepted) {
            self.refuse_duplicates(&members)?;
        }
        Ok((Value::Object(members), is_canonical && is_sorted, inner + 1))
    }

    fn refuse_duplicates(&self, members: &[(Cow<'a, str>, Node<'a>)]) -> Parsed<()> {
        // Of a few it is quicker to look at each pair than to sort them.
        let is_new =
            |(place, (key, _)): (usize, &(Cow<'a, str>, Node<'a>))| members[..place].iter().all(|(other, _)| other != key);
        if members.len() <= FEW_MEMBERS && members.iter().enumerate().all(is_new) {
            return Ok(());
        }
        let mut keys: Vec<(&str, usize)> = members.iter().map(|(key, node)| (key.as_ref(), node.start as usize)).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => {
                let error = JsonError { kind: JsonErrorKind::DuplicateKey, offset: pair[1].1, pointer: String::new() };
                Err(within(error, pair[1].0))
            }
            None => Ok(()),
        }
    }

    /// Reads a string; the flag says whether it was escaped as the canonical form does.
    fn string(&mut self) -> Parsed<(Cow<'a, str>, bool)> {
        self.at += 1;
        let start = self.at;
        self.at = plain_end(self.bytes, start);
        match self.bytes.get(self.at) {
            Some(b'"') => {
                let text = &self.text[start..self.at];
                self.at += 1;
                Ok((Cow::Borrowed(text), true))
            }
            Some(b'\\') => self.escaped_string(start),
            Some(_) => self.error(JsonErrorKind::ControlCharacter),
            None => self.unexpected(),
        }
    }

    fn escaped_string(&mut self, start: usize) -> Parsed<(Cow<'a, str>, bool)> {
        let mut text = String::from(&self.text[start..self.at]);
        loop {
            let plain = self.at;
            self.at = plain_end(self.bytes, plain);
            text.push_str(&self.text[plain..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return self.error(JsonErrorKind::ControlCharacter),
                None => return self.unexpected(),
            }
        }
        self.at += 1;
        let mut written = String::with_capacity(text.len() + 2);
        super::push_string(&mut written, &text);
        let is_canonical = written == self.text[start - 1..self.at];
        Ok((Cow::Owned(text), is_canonical))
    }

    fn escape(&mut self) -> Parsed<char> {
        let start = self.at;
        self.at += 2;
        let character = match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => {
                self.at = (start + 1).min(self.bytes.len());
                return self.unexpected();
            }
        };
        Ok(character)
    }

    fn unicode_escape(&mut self, start: usize) -> Parsed<char> {
        let at = |kind| JsonError { kind, offset: start, pointer: String::new() };
        let first = self.hex4()?;
        let code = match first {
            0 => return Err(at(JsonErrorKind::Nul)),
            0xD800..=0xDBFF if self.bytes[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.hex4()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return Err(at(JsonErrorKind::LoneSurrogate));
                }
                0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            0xD800..=0xDFFF => return Err(at(JsonErrorKind::LoneSurrogate)),
            code => code,
        };
        char::from_u32(code).ok_or_else(|| at(JsonErrorKind::LoneSurrogate))
    }

    fn hex4(&mut self) -> Parsed<u32> {
        let mut code = 0;
        for _ in 0..4 {
            match self.bytes.get(self.at).and_then(|byte| char::from(*byte).to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return self.unexpected(),
            }
            self.at += 1;
        }
        Ok(code)
    }

    pub(super) fn number(&mut self) -> Parsed<(Cow<'a, str>, bool)> {
        let start = self.at;
        let is_integer = self.scan_number()?;
        let text = &self.text[start..self.at];
        let refuse = |kind| JsonError { kind, offset: start, pointer: String::new() };
        if is_integer {
            text.parse::<i64>().map_err(|_| refuse(JsonErrorKind::IntegerRange))?;
            if text == "-0" {
                return Ok((Cow::Borrowed("0"), false));
            }
        } else if !number::is_in_range(text) {
            return Err(refuse(JsonErrorKind::NumberRange));
        }
        Ok((Cow::Borrowed(text), true))
    }

    /// Walks over a number and says whether it was an integer.
    fn scan_number(&mut self) -> Parsed<bool> {
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.unexpected(),
        }
        let mut is_integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
            is_integer = false;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
            is_integer = false;
        }
        Ok(is_integer)
    }

    fn digits(&mut self) -> Parsed<()> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.unexpected() } else { Ok(()) }
    }
}

/// Puts one more step before an error's pointer, escaped after RFC 6901 section 3.
fn within(mut error: JsonError, step: &str) -> JsonError {
    error.pointer = format!("/{}{}", step.replace('~', "~0").replace('/', "~1"), error.pointer);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (JsonErrorKind, String) {
        let error = parse(text.as_bytes(), 64).expect_err(text);
        (error.kind, error.pointer)
    }

    #[test]
    fn an_error_points_at_the_value_being_read() {
        assert_eq!(refused(r#"{"groups":[{},{"a":NaN}]}"#), (JsonErrorKind::Syntax, "/groups/1/a".into()));
        assert_eq!(refused(r#"{"groups":[{},{"a":1 2}]}"#).1, "/groups/1");
        assert_eq!(refused(r#"{"a/b":[1,{"k":1,"k":2}]}"#), (JsonErrorKind::DuplicateKey, "/a~1b/1/k".into()));
    }

    #[test]
    fn a_truncated_text_is_told_from_a_wrong_one() {
        for text in ["{", "[1,", r#"{"a""#, r#""abc"#, r#""\u00"#, "tru", "-", "1.", r#""\"#] {
            assert_eq!(refused(text).0, JsonErrorKind::UnexpectedEnd, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded_before_the_stack_is() {
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert_eq!(parse(deep.as_bytes(), 64).expect("64 levels").depth, 64);
        assert_eq!(refused(&format!("[{deep}]")).0, JsonErrorKind::TooDeep);
        assert_eq!(refused(&"[".repeat(5_000_000)).0, JsonErrorKind::TooDeep);
    }
}
