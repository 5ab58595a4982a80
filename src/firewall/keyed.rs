//! Hash tables for names: chains, sets. Faster than the standard library's own for short texts, and
//! as hard to fill with collisions, since each table has a seed of its own.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A table by name.
pub(super) type ByName<K, V> = HashMap<K, V, Seeded>;

/// A set of names.
pub(super) type Names<K> = HashSet<K, Seeded>;

/// Makes hashers with one secret seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u8) | 1)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.0, seed: self.0 }
    }
}

/// Multiplies into 128 bits and folds the halves, eight octets at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folded {
    state: u64,
    seed: u64,
}

impl Folded {
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.seed ^ 0x9e37_79b9_7f4a_7c15);
        let [low, high] = [product & u128::from(u64::MAX), product >> 64].map(|half| u64::try_from(half).unwrap_or(0));
        self.state = (low ^ high).rotate_left(23) ^ self.seed;
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.fold(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut last = [0u8; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.fold(u64::from_le_bytes(last));
        }
        self.fold(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.fold(n.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_apart() {
        let seed = Seeded::default();
        let hashes: HashSet<u64> = (0..20_000).map(|n| seed.hash_one(format!("KUBE-SEP-{n:X}")) >> 40).collect();
        // Of 24 bits, as the tables look at few at a time.
        assert!(hashes.len() > 19_900, "{}", hashes.len());
        assert_eq!(seed.hash_one("a"), seed.hash_one(String::from("a")));
    }
}
