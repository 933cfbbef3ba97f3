//! The bytes of a download as units that can be stored: whole frames, or whole lines where it is not compressed.
//!
//! Invariant: a unit is whole lines, and what is read ahead of a whole one is bounded.

/// Bytes of lines that are stored together, where they are not compressed.
const LINES_BYTES: usize = 256 * 1024;
/// Most bytes of a unit, compressed or not: far above what a server makes, for a record may be large.
const UNIT_BYTES: usize = 64 * 1024 * 1024;

/// Lines to be stored together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) lines: Vec<u8>,
    /// Bytes of the download that they are.
    pub(super) bytes: u64,
}

/// Takes a download apart.
pub(super) struct Units {
    is_zstd: bool,
    bytes: Vec<u8>,
    /// Bytes in which no end of a unit was found.
    seen: usize,
}

impl Units {
    pub(super) fn new(is_zstd: bool) -> Self {
        Self { is_zstd, bytes: Vec::new(), seen: 0 }
    }

    /// Takes what came.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next unit that is whole; of what is left at the end, `is_end`. A sentence when this is no such file.
    pub(super) fn next(&mut self, is_end: bool) -> Result<Option<Unit>, String> {
        let unit = if self.is_zstd { self.frame()? } else { self.lines(is_end) };
        if unit.is_none() && self.bytes.len() > UNIT_BYTES {
            return Err(format!("more than {UNIT_BYTES} bytes of a snapshot came without an end of what they are"));
        }
        Ok(unit)
    }

    fn lines(&mut self, is_end: bool) -> Option<Unit> {
        if self.bytes.len() < LINES_BYTES && !is_end {
            return None;
        }
        let end = self.bytes[self.seen..].iter().rposition(|byte| *byte == b'\n').map(|end| self.seen + end + 1);
        let Some(end) = end else {
            self.seen = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(end);
        self.seen = 0;
        Some(Unit { bytes: end as u64, lines: std::mem::replace(&mut self.bytes, rest) })
    }

    #[cfg(feature = "native")]
    fn frame(&mut self) -> Result<Option<Unit>, String> {
        // It also fails for a frame of which more is to come.
        let Ok(size) = zstd::zstd_safe::find_frame_compressed_size(&self.bytes) else { return Ok(None) };
        let frame = &self.bytes[..size];
        let length = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten().unwrap_or(0);
        let length = usize::try_from(length).ok().filter(|length| *length <= UNIT_BYTES);
        let length = length.ok_or_else(|| format!("a frame of a snapshot says that it has more than {UNIT_BYTES} bytes"))?;
        let lines = if length == 0 { Vec::new() } else { decompress(frame, length)? };
        let rest = self.bytes.split_off(size);
        self.bytes = rest;
        Ok(Some(Unit { lines, bytes: size as u64 }))
    }

    #[cfg(not(feature = "native"))]
    fn frame(&mut self) -> Result<Option<Unit>, String> {
        Err("a snapshot came compressed, which was not asked for".into())
    }
}

#[cfg(feature = "native")]
fn decompress(frame: &[u8], length: usize) -> Result<Vec<u8>, String> {
    let lines =
        zstd::bulk::decompress(frame, length).map_err(|error| format!("a frame of a snapshot is damaged: {error}"))?;
    match lines.last() {
        Some(b'\n') => Ok(lines),
        _ => Err("a frame of a snapshot does not end with a line".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The units of a download that comes in pieces of so many bytes.
    fn units(bytes: &[u8], is_zstd: bool, piece: usize) -> Result<Vec<Unit>, String> {
        let (mut units, mut found) = (Units::new(is_zstd), Vec::new());
        for piece in bytes.chunks(piece) {
            units.feed(piece);
            while let Some(unit) = units.next(false)? {
                found.push(unit);
            }
        }
        found.extend(units.next(true)?);
        Ok(found)
    }

    fn compressed() -> Vec<u8> {
        let mut file = zstd::bulk::compress(b"{\"a\":1}\n", 1).unwrap();
        // Room that is left, as in a snapshot.
        file.extend([0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 0, 0, 0]);
        file.extend(zstd::bulk::compress("{\"b\":2}\n".repeat(9).as_bytes(), 1).unwrap());
        file
    }

    #[test]
    fn frames_are_units_however_they_come() {
        let file = compressed();
        for piece in [1, 2, 7, 1_000] {
            let units = units(&file, true, piece).unwrap();
            assert_eq!(units.iter().map(|unit| unit.lines.len()).collect::<Vec<_>>(), [8, 0, 72]);
            assert_eq!(units.iter().map(|unit| unit.bytes).sum::<u64>(), file.len() as u64);
        }
        // The last one is not whole.
        assert_eq!(units(&file[..file.len() - 1], true, 5).unwrap().len(), 2);
    }

    #[test]
    fn a_damaged_frame_is_an_error() {
        let mut file = zstd::bulk::Compressor::new(1).unwrap();
        file.include_checksum(true).unwrap();
        let mut file = file.compress(&b"{\"a\":\"0123456789\"}\n".repeat(50)).unwrap();
        let last = file.len() - 1;
        file[last] ^= 1;
        assert!(units(&file, true, 9).unwrap_err().contains("damaged"));
    }

    #[test]
    fn lines_are_units_up_to_the_last_whole_one() {
        let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(50_000));
        let file = line.repeat(12) + "{\"half";
        for piece in [999, 100_000, 1_000_000] {
            let units = units(file.as_bytes(), false, piece).unwrap();
            assert!(units.iter().all(|unit| unit.lines.ends_with(b"\n") && unit.bytes == unit.lines.len() as u64));
            let lines: Vec<u8> = units.into_iter().flat_map(|unit| unit.lines).collect();
            assert_eq!(lines, line.repeat(12).as_bytes());
        }
    }
}
