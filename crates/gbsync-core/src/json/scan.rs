//! Where the plain part of a string ends, eight bytes at a time: most bytes of most texts are within strings.

/// In each byte of a word.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The place of the next quotation mark, backslash or control character at or after `at`; the end of the text where there is
/// none.
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1F)) {
        at += 1;
    }
    at
}

/// The high bit of each byte that is a quotation mark, a backslash or below 0x20. Bytes after the first such one may be marked
/// wrongly, because a subtraction borrows from them; the first is right.
fn marks(word: u64) -> u64 {
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word & HIGH;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | is(b'"') | is(b'\\')
}

#[cfg(test)]
mod tests {
    use super::plain_end;

    #[test]
    fn every_byte_at_every_place_is_told_as_one_by_one() {
        for length in 0..20 {
            for place in 0..=length {
                for byte in 0..=u8::MAX {
                    for (fill, after) in [(b'a', b'b'), (0xC3, 0x1F), (0x7F, b'"'), (b' ', b'\\'), (b'#', b'!'), (0xFF, 0)] {
                        let mut text = vec![fill; length];
                        text[place..].fill(after);
                        if place < length {
                            text[place] = byte;
                        }
                        let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
                        let expected = text.iter().position(is_end).unwrap_or(length);
                        assert_eq!(plain_end(&text, 0), expected, "{text:?}");
                    }
                }
            }
        }
        assert_eq!(plain_end(b"\"a\"", 1), 2);
        assert_eq!(plain_end(b"abc", 3), 3);
        assert_eq!(plain_end(b"abc", 7), 7);
    }
}
