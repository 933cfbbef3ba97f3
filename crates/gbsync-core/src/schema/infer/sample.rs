//! A sample of a set of texts that can be compared with another: a text is in every sample or in none, by its hash.

use std::collections::BTreeSet;

/// Hashes kept of one set, after which every other one is dropped.
const MOST: usize = 16 * 1024;

/// A sample of texts, as hashes whose last `zeros` bits are zero.
#[derive(Debug, Default)]
pub(super) struct Sample {
    zeros: u32,
    hashes: BTreeSet<u64>,
}

impl Sample {
    /// Adds a text.
    pub fn add(&mut self, text: &str) {
        let hash = hash(text);
        if hash.trailing_zeros() < self.zeros {
            return;
        }
        self.hashes.insert(hash);
        while self.hashes.len() > MOST {
            self.zeros += 1;
            self.hashes.retain(|hash| hash.trailing_zeros() >= self.zeros);
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether every text of this is in the other, as far as the samples tell.
    pub fn is_within(&self, other: &Self) -> bool {
        let zeros = self.zeros.max(other.zeros);
        self.hashes.iter().filter(|hash| hash.trailing_zeros() >= zeros).all(|hash| other.hashes.contains(hash))
    }
}

/// FNV-1a with the last steps of SplitMix64, so that the low bits are as good as the others.
fn hash(text: &str) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_sets_beyond_memory_still_compare() {
        let (mut ids, mut some, mut others) = (Sample::default(), Sample::default(), Sample::default());
        for n in 0..100_000 {
            ids.add(&format!("id-{n}"));
            if n % 3 == 0 {
                some.add(&format!("id-{n}"));
            }
            others.add(&format!("id-{}", n + 1_000));
        }
        assert!(ids.hashes.len() <= MOST && ids.zeros > 0);
        assert!(some.is_within(&ids) && !ids.is_within(&some) && !others.is_within(&ids));
    }
}
