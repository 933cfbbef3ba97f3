//! The hybrid logical clock: orders groups of devices whose clocks differ. The time is an argument.
//!
//! Written `{13 digits of milliseconds}-{4 hex digits}-{device}`, so that the order of the texts is the order of the clocks
//! (Kulkarni et al., "Logical Physical Clocks", 2014).

use crate::id::DeviceId;
use std::fmt;

/// A reading of the clock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hlc {
    unix_ms: u64,
    counter: u16,
    device: Box<str>,
}

/// A text that is no reading.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 13 digits of milliseconds, 4 hex digits and a device, with - between")]
pub struct InvalidHlc;

impl Hlc {
    /// Reads a text.
    ///
    /// # Errors
    /// [`InvalidHlc`] for any other form.
    ///
    /// ```
    /// use gbsync_core::clock::Hlc;
    /// let earlier = Hlc::parse("1780519979123-0001-till-1").unwrap();
    /// assert!(earlier < Hlc::parse("1780519979123-0002-till-0").unwrap());
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidHlc> {
        let mut parts = text.splitn(3, '-');
        let (Some(ms), Some(counter), Some(device)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidHlc);
        };
        let is_ms = ms.len() == 13 && ms.bytes().all(|byte| byte.is_ascii_digit());
        let is_counter = counter.len() == 4 && counter.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ms || !is_counter || DeviceId::new(device).is_err() {
            return Err(InvalidHlc);
        }
        let unix_ms = ms.parse().map_err(|_| InvalidHlc)?;
        let counter = u16::from_str_radix(counter, 16).map_err(|_| InvalidHlc)?;
        Ok(Self { unix_ms, counter, device: device.into() })
    }

    /// The reading of `device` at `now_ms`, after every reading up to `last`.
    ///
    /// ```
    /// use gbsync_core::{clock::Hlc, id::DeviceId};
    /// let device = DeviceId::new("till-1").unwrap();
    /// let first = Hlc::after(None, 1_000, &device);
    /// let second = Hlc::after(Some(&first), 900, &device); // the clock was set back
    /// assert!(second > first);
    /// ```
    pub fn after(last: Option<&Self>, now_ms: u64, device: &DeviceId) -> Self {
        let (unix_ms, counter) = match last {
            Some(last) if last.unix_ms >= now_ms => match last.counter.checked_add(1) {
                Some(counter) => (last.unix_ms, counter),
                None => (last.unix_ms + 1, 0),
            },
            _ => (now_ms, 0),
        };
        Self { unix_ms, counter, device: device.as_str().into() }
    }

    /// Milliseconds after 1970.
    pub fn unix_ms(&self) -> u64 {
        self.unix_ms
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:013}-{:04x}-{}", self.unix_ms, self.counter, self.device)
    }
}
