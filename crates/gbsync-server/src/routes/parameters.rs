//! Parameters of a query string. Unknown ones are ignored; one that is given twice is malformed.

use crate::error::Refusal;
use axum::http::Uri;
use gbsync_core::id::InvalidId;
use percent_encoding::percent_decode_str;

/// The parameters of a request.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let decoded = percent_decode_str(&text).decode_utf8().map(Into::into);
            decoded.map_err(|_| Refusal::parameter("list", "is not UTF-8 behind its percent-encoding"))
        };
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        pairs.map(read).collect::<Result<_, Refusal>>().map(Self)
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str());
        let value = values.next();
        match values.next() {
            Some(_) => Err(Refusal::parameter(name, "is given twice")),
            None => Ok(value),
        }
    }

    /// A non-negative integer below 2^53.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let count = text.parse::<u64>().ok().filter(|count| is_plain && *count < (1 << 53));
        match count {
            Some(count) => Ok(Some(count)),
            None => Err(Refusal::parameter(name, &format!("must be an integer from 0 to below 2^53, not {text:?}"))),
        }
    }

    /// A limit: a positive integer, and no more than `most` of it counts.
    pub(super) fn limit(&self, name: &str, default: u64, most: u64) -> Result<u64, Refusal> {
        match self.count(name)? {
            Some(0) => Err(Refusal::parameter(name, "must be above 0")),
            limit => Ok(limit.unwrap_or(default).min(most)),
        }
    }

    /// An id.
    pub(super) fn id<T>(&self, name: &str, new: impl Fn(&str) -> Result<T, InvalidId>) -> Result<Option<T>, Refusal> {
        let id = self.text(name)?.map(new).transpose();
        id.map_err(|error| Refusal::parameter(name, &error.problem.to_string()))
    }

    /// One of a few words, the first of which is the default.
    pub(super) fn choice<'w>(&self, name: &str, words: &[&'w str]) -> Result<&'w str, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(words[0]) };
        let known = words.iter().copied().find(|word| *word == text);
        known.ok_or_else(|| Refusal::parameter(name, &format!("must be one of {}, not {text:?}", words.join(", "))))
    }

    /// A value that `read` understands.
    pub(super) fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| Refusal::parameter(name, &format!("must be {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Parameters {
        Parameters::of(&format!("/log?{query}").parse().expect("a URI")).expect("parameters")
    }

    #[test]
    fn counts_are_plain_digits() {
        assert_eq!(of("after=42").count("after").expect("a count"), Some(42));
        assert_eq!(of("").count("after").expect("none"), None);
        for text in ["after=-1", "after=", "after=1.0", "after=%2B1", "after=x", "after=9007199254740992", "after=1&after=2"]
        {
            assert!(of(text).count("after").is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_clamped_and_never_zero() {
        assert_eq!(of("maxRecords=99").limit("maxRecords", 5, 10).expect("a limit"), 10);
        assert_eq!(of("").limit("maxRecords", 5, 10).expect("a limit"), 5);
        assert!(of("maxRecords=0").limit("maxRecords", 5, 10).is_err());
    }
}
