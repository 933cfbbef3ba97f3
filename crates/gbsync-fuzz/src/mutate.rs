//! Inputs made of others: the small fuzzer that runs wherever the tests run, the same for the same seed.

/// Pieces that bring inputs further than single bytes do.
const WORDS: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\"id\":",
    "-0",
    "0",
    "-1",
    "1e308",
    "9223372036854775807",
    "9007199254740992",
    "0.10",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\u{FEFF}",
    "é",
    "\u{10FFFF}",
    "\n",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\"upsert\"",
    "\"patch\"",
    "\"increment\"",
    "\"delete\"",
    "\"leave\"",
    "\"payload\":",
    "Bearer ",
    "TOKEN",
    "\0",
];

/// Makes inputs.
pub struct Mutator(u64);

impl Mutator {
    /// One that always makes the same.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    /// An input made of one of `inputs`, with something of another perhaps.
    pub fn input(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs.get(self.below(inputs.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(4) {
            let other = &inputs[self.below(inputs.len())..];
            self.change(&mut input, other.first().map_or(&[], Vec::as_slice));
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(16)).min(input.len());
        let (from, length) = (self.below(other.len() + 1), self.below(64));
        let piece: Vec<u8> = match self.below(6) {
            // A byte more, a piece less, a bit turned, a piece twice.
            0 => vec![self.next().to_le_bytes()[0]],
            1 => Vec::new(),
            2 => input[at..end].iter().map(|byte| byte ^ (1 << self.below(8))).collect(),
            3 => input[at..end].repeat(2),
            4 => WORDS[self.below(WORDS.len())].as_bytes().to_vec(),
            _ => other[from..(from + length).min(other.len())].to_vec(),
        };
        let replaced = if self.below(2) == 0 { at..at } else { at..end };
        input.splice(replaced, piece);
    }
}
