//! Points in time as the wire writes them. Core never reads a clock: the time is an argument.

use std::fmt;

/// A point in time in RFC 3339 form, UTC. Kept as written, so that what one device wrote every other reads.
///
/// ```
/// use gbsync_core::time::Timestamp;
/// assert_eq!(Timestamp::from_unix_ms(1_780_519_979_123).as_str(), "2026-06-03T20:52:59.123Z");
/// assert!(Timestamp::new("2026-06-03 20:52:59").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp(Box<str>);

/// A text that is no RFC 3339 time in UTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time in UTC like 2026-06-03T20:52:59.123Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidTimestamp`] for any other form, and for an offset other than UTC.
    pub fn new(text: &str) -> Result<Self, InvalidTimestamp> {
        if is_timestamp(text) { Ok(Self(text.into())) } else { Err(InvalidTimestamp) }
    }

    /// The time `unix_ms` milliseconds after 1970, with three digits of a second.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let latest = jiff::Timestamp::MAX.as_millisecond();
        let ms = i64::try_from(unix_ms).unwrap_or(latest).min(latest);
        let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Self(format!("{time:.3}").into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Milliseconds after 1970; negative before.
    pub fn unix_ms(&self) -> i64 {
        self.0.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a [`Timestamp`].
pub(crate) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_utc = text.ends_with(['Z', 'z']) || text.ends_with("+00:00");
    // ISO 8601, which the parser reads, has shorter forms and a comma; RFC 3339 has not.
    let has_form = (20..=40).contains(&bytes.len())
        && [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(place, mark)| bytes[*place] == *mark)
        && matches!(bytes[10], b'T' | b't')
        && !bytes.contains(&b',');
    is_utc && has_form && text.parse::<jiff::Timestamp>().is_ok()
}

/// Whether a text is a date of the calendar in the form `YYYY-MM-DD`.
///
/// ```
/// use gbsync_core::time::is_date;
/// assert!(is_date("2028-02-29") && !is_date("2026-02-29") && !is_date("2026-6-3"));
/// ```
pub fn is_date(text: &str) -> bool {
    let has_form = text.len() == 10
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    has_form && text.parse::<jiff::civil::Date>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_in_utc_and_kept_as_written() {
        for text in
            ["2026-06-03T20:52:59Z", "2026-06-03T20:52:59.123456789Z", "2026-06-03t20:52:59z", "2026-06-03T20:52:59+00:00"]
        {
            assert_eq!(Timestamp::new(text).expect(text).as_str(), text);
        }
        for text in [
            "",
            "2026-06-03",
            "2026-06-03T20:52:59",
            "2026-06-03T20:52:59+02:00",
            "2026-06-03 20:52:59Z",
            "2026-06-03T20:52:59,123Z",
            "2026-06-03T205259.1234Z",
            "20260603T20:52:59.1234Z",
            "2026-02-30T20:52:59Z",
            "2026-06-03T24:00:00Z",
            "2026-06-03T20:52:59Z[UTC]",
            "日本日本日本日本日本",
        ] {
            assert_eq!(Timestamp::new(text), Err(InvalidTimestamp), "{text}");
        }
    }
}
