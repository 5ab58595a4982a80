//! The table of connections, in bounded memory.
//!
//! Connections live in chunks that never move, found through a table of indices, and lie on a list in order of their
//! last segment. When there are more than [`Limits::connections`], those that are over, and else those that have been
//! silent longest, are handed out early. So memory follows the connections that are open at once, not the file.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use hashbrown::HashTable;

use super::analysis::Judged;
use super::connection::{Connection, Keep};
use super::end::Mark;
use crate::wire::{IcmpError, Segment, TcpFlags};

const CHUNK: usize = 1024;
const NONE: u32 = u32::MAX;
/// The golden ratio in 64 bits: its products spread.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Segments and data of which connection: of this one only, or of all.
    pub only: Option<u64>,
    /// How much of each.
    pub keep: Keep,
    /// Segments kept of all connections together.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1_000_000, only: None, keep: Keep::default(), steps: 2_000_000 }
    }
}

/// The name of a connection: both ends, the lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    low: u128,
    high: u128,
    ports: u32,
    v6: bool,
}

impl Key {
    #[inline]
    fn new(segment: &Segment<'_>) -> Self {
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let (a, b) = (number(segment.src), number(segment.dst));
        let (sport, dport) = (u32::from(segment.sport), u32::from(segment.dport));
        let v6 = segment.src.is_ipv6();
        if (a, sport) <= (b, dport) {
            Self { low: a, high: b, ports: sport << 16 | dport, v6 }
        } else {
            Self { low: b, high: a, ports: dport << 16 | sport, v6 }
        }
    }
}

struct Slot {
    key: Key,
    connection: Connection,
    older: u32,
    newer: u32,
}

/// All connections that are being watched.
pub struct Table<S> {
    index: HashTable<u32>,
    hasher: S,
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    over: VecDeque<u32>,
    streams: u64,
    steps_left: usize,
    limits: Limits,
    done: Vec<Connection>,
    early: u64,
}

impl<S> std::fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("open", &self.index.len()).field("streams", &self.streams).finish_non_exhaustive()
    }
}

impl<S: BuildHasher> Table<S> {
    /// An empty table. A `hasher` with a random seed keeps a hostile capture from filling one place of it.
    pub fn new(limits: Limits, hasher: S) -> Self {
        Self {
            index: HashTable::new(),
            hasher,
            chunks: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            over: VecDeque::new(),
            streams: 0,
            steps_left: limits.steps,
            limits,
            done: Vec::new(),
            early: 0,
        }
    }

    #[inline]
    fn slot(&self, at: u32) -> &Slot {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    #[inline]
    fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    fn hash(&self, key: &Key) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(key.low);
        hasher.write_u128(key.high);
        hasher.write_u32(key.ports | u32::from(key.v6));
        hasher.finish()
    }

    #[inline]
    fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        self.index.find(hash, |at| self.slot(*at).key == *key).copied()
    }

    /// Takes in a segment of frame `at`, whose packet had `wire` octets: its connection, and what was found.
    #[inline]
    pub fn segment(&mut self, segment: &Segment<'_>, at: Mark, wire: u32) -> (&Connection, Judged) {
        let key = Key::new(segment);
        let hash = self.hash(&key);
        let opens = segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK);
        let found = self.find(hash, &key);
        let (place, reused, fresh) = match found {
            Some(place) if opens => {
                let connection = &self.slot(place).connection;
                let side = connection.side_of(segment.src, segment.sport);
                if connection.is_superseded(side, segment.seq) {
                    self.retire(place, hash);
                    (self.insert(key, hash, segment, at), true, true)
                } else {
                    (place, false, false)
                }
            }
            Some(place) => (place, false, false),
            None => (self.insert(key, hash, segment, at), false, true),
        };
        self.touch(place);
        let before = self.slot(place).connection.is_over();
        let slot = self.slot_mut(place);
        let steps = slot.connection.steps.len();
        let judged = slot.connection.absorb(segment, at, wire, reused, fresh);
        let added = slot.connection.steps.len() - steps;
        let over = slot.connection.is_over();
        self.steps_left = self.steps_left.saturating_sub(added);
        if over && !before {
            self.over.push_back(place);
            self.prune_over();
        }
        (&self.slot(place).connection, judged)
    }

    /// Takes in an ICMP error; the connection it is about, if that is known.
    pub fn error(&mut self, error: &IcmpError<'_>, at: Mark) -> Option<&Connection> {
        let key = Key::new(&error.about);
        let place = self.find(self.hash(&key), &key)?;
        self.slot_mut(place).connection.absorb_error(error, at);
        Some(&self.slot(place).connection)
    }

    fn insert(&mut self, key: Key, hash: u64, segment: &Segment<'_>, at: Mark) -> u32 {
        if self.index.len() >= self.limits.connections.max(1) {
            self.make_room();
        }
        let stream = self.streams;
        self.streams += 1;
        let wanted = self.limits.only.is_none_or(|only| only == stream) && self.steps_left > 0;
        let keep = if wanted { self.limits.keep } else { Keep::default() };
        let slot = Slot { key, connection: Connection::new(stream, segment, at, keep), older: NONE, newer: NONE };
        let place = if let Some(place) = self.free.pop() {
            *self.slot_mut(place) = slot;
            place
        } else {
            if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let chunks = self.chunks.len();
            let last = &mut self.chunks[chunks - 1];
            last.push(slot);
            u32::try_from((chunks - 1) * CHUNK + last.len() - 1).unwrap_or(NONE - 1)
        };
        let Self { index, hasher, chunks, .. } = self;
        index.insert_unique(hash, place, |at| {
            let key = &chunks[*at as usize / CHUNK][*at as usize % CHUNK].key;
            let mut hasher = hasher.build_hasher();
            hasher.write_u128(key.low);
            hasher.write_u128(key.high);
            hasher.write_u32(key.ports | u32::from(key.v6));
            hasher.finish()
        });
        self.link(place);
        place
    }

    fn link(&mut self, place: u32) {
        let newest = self.newest;
        let slot = self.slot_mut(place);
        (slot.older, slot.newer) = (newest, NONE);
        if newest == NONE {
            self.oldest = place;
        } else {
            self.slot_mut(newest).newer = place;
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let (older, newer) = (self.slot(place).older, self.slot(place).newer);
        if older == NONE {
            self.oldest = newer;
        } else {
            self.slot_mut(older).newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            self.slot_mut(newer).older = older;
        }
    }

    #[inline]
    fn touch(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Takes a connection out: the next segment of these ends begins another.
    fn retire(&mut self, place: u32, hash: u64) {
        if let Ok(entry) = self.index.find_entry(hash, |at| *at == place) {
            entry.remove();
        }
        self.unlink(place);
        let slot = self.slot_mut(place);
        let left = slot.connection.husk();
        let mut connection = std::mem::replace(&mut slot.connection, left);
        connection.finish();
        self.done.push(connection);
        self.free.push(place);
    }

    /// Forgets entries that are no longer true, when there are more of them than connections.
    fn prune_over(&mut self) {
        if self.over.len() > 2 * self.index.len() + CHUNK {
            let chunks = &self.chunks;
            self.over.retain(|at| chunks[*at as usize / CHUNK][*at as usize % CHUNK].connection.is_over());
            self.over.truncate(2 * self.index.len());
        }
    }

    fn make_room(&mut self) {
        while let Some(place) = self.over.pop_front() {
            // The place may have been given to another since.
            let slot = self.slot(place);
            let hash = self.hash(&slot.key);
            if slot.connection.is_over() && self.find(hash, &slot.key) == Some(place) {
                self.early += 1;
                self.retire(place, hash);
                return;
            }
        }
        let place = self.oldest;
        if place != NONE {
            let hash = self.hash(&self.slot(place).key);
            self.slot_mut(place).connection.partial = true;
            self.early += 1;
            self.retire(place, hash);
        }
    }

    /// Hands out the connections that were over before `until_ns`, and so get no late segment any more.
    pub fn reap(&mut self, until_ns: u64) {
        for _ in 0..self.over.len() {
            let Some(place) = self.over.pop_front() else { return };
            let slot = self.slot(place);
            let hash = self.hash(&slot.key);
            if !slot.connection.is_over() || self.find(hash, &slot.key) != Some(place) {
                continue;
            }
            if slot.connection.last.ns >= until_ns {
                self.over.push_back(place);
                continue;
            }
            self.retire(place, hash);
        }
    }

    /// Connections that have ended or had to go since the last call, in that order.
    pub fn take_done(&mut self) -> Vec<Connection> {
        std::mem::take(&mut self.done)
    }

    /// Whether [`Self::take_done`] has something.
    pub fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Connections seen so far.
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// Connections handed out early to make room.
    pub fn early(&self) -> u64 {
        self.early
    }

    /// The connections that are being watched, in no order.
    pub fn live(&self) -> impl Iterator<Item = &Connection> {
        self.index.iter().map(|place| &self.slot(*place).connection)
    }

    /// Ends the watch: what is left, one by one in order of appearance.
    pub fn drain(mut self) -> impl Iterator<Item = Connection> {
        let done = std::mem::take(&mut self.done);
        let mut order: Vec<(u64, u32)> =
            self.index.iter().map(|place| (self.slot(*place).connection.stream, *place)).collect();
        order.sort_unstable();
        let live = order.into_iter().map(move |(_, place)| {
            let slot = self.slot_mut(place);
            let left = slot.connection.husk();
            let mut connection = std::mem::replace(&mut slot.connection, left);
            connection.finish();
            connection
        });
        done.into_iter().chain(live)
    }

    /// All that [`Self::drain`] gives, at once.
    pub fn finish(self) -> Vec<Connection> {
        let mut all: Vec<Connection> = self.drain().collect();
        all.sort_by_key(|connection| connection.stream);
        all
    }
}

/// A quick hash with a seed: multiply and fold.
#[derive(Debug, Clone, Copy)]
pub struct Seeded(pub u64);

/// See [`Seeded`].
#[derive(Debug, Clone, Copy)]
pub struct Fold(u64);

impl BuildHasher for Seeded {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(self.0)
    }
}

impl Fold {
    #[inline]
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        let folded = (wide >> 64) ^ (wide & u128::from(u64::MAX));
        self.0 = u64::try_from(folded).unwrap_or(0) ^ word.rotate_left(32);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(self.0 >> 29);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    #[inline]
    fn write_u128(&mut self, value: u128) {
        let low = u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
        self.mix(low);
        let high = u64::try_from(value >> 64).unwrap_or(0);
        if high != 0 {
            self.mix(high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_connections_fit_in_two_gigabytes() {
        assert!(size_of::<Slot>() < 1700, "{}", size_of::<Slot>());
    }
}
