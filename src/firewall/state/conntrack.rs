//! The table of flows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::tcp::Tcp;
use super::tuple::{Dir, Tuple};

/// Bits of a flow's status (`enum ip_conntrack_status`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Another flow announced it.
    pub const EXPECTED: u16 = 0x01;
    /// It was heard both ways.
    pub const SEEN_REPLY: u16 = 0x02;
    /// It is not dropped early.
    pub const ASSURED: u16 = 0x04;
    /// Its first packet has left the host, or arrived.
    pub const CONFIRMED: u16 = 0x08;
    /// Its source is translated.
    pub const SRC_NAT: u16 = 0x10;
    /// Its destination is translated.
    pub const DST_NAT: u16 = 0x20;
    /// It was decided whether its source is translated.
    pub const SRC_NAT_DONE: u16 = 0x80;
    /// It was decided whether its destination is translated.
    pub const DST_NAT_DONE: u16 = 0x100;

    /// Whether all of these bits are set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }

    pub(crate) fn set(&mut self, bits: u16) {
        self.0 |= bits;
    }
}

/// One tracked flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its directions: as its first packet came, and as answers are expected.
    pub tuples: [Tuple; 2],
    /// What is known of it.
    pub status: Status,
    /// Its mark.
    pub mark: u32,
    /// When it is forgotten.
    pub expires: Duration,
    /// Its TCP state.
    pub tcp: Tcp,
    /// When a UDP flow counts as a stream.
    pub(crate) stream_at: Duration,
    /// Packets each way.
    pub packets: [u64; 2],
    /// Octets each way, of IP packets.
    pub bytes: [u64; 2],
    /// It goes by the loopback link, where a packet is looked at only once.
    pub(crate) by_lo: bool,
}

impl Flow {
    /// The tuple of a direction.
    pub fn tuple(&self, dir: Dir) -> Tuple {
        self.tuples[dir.index()]
    }
}

/// All flows of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    flows: BTreeMap<u64, Flow>,
    index: HashMap<Tuple, (u64, Dir)>,
    /// Flows by their source, protocol and source port (`nf_nat_bysource`), the newest last.
    sources: HashMap<(IpAddr, u8, u16), Vec<u64>>,
    /// Which flow is forgotten when.
    ends: BTreeSet<(Duration, u64)>,
    next: u64,
}

impl Table {
    /// The flow that has this tuple, and which way. One that has expired is no longer there.
    pub(crate) fn find(&self, tuple: &Tuple, now: Duration) -> Option<(u64, Dir, &Flow)> {
        let (id, dir) = *self.index.get(tuple)?;
        let flow = self.flows.get(&id)?;
        (flow.expires > now).then_some((id, dir, flow))
    }

    pub(crate) fn insert(&mut self, flow: Flow) {
        // An expired flow may still hold the place.
        for tuple in flow.tuples {
            if let Some((old, _)) = self.index.get(&tuple).copied() {
                self.remove(old);
            }
        }
        let id = self.next;
        self.next += 1;
        self.sources.entry(flow.tuples[0].source()).or_default().push(id);
        self.index.insert(flow.tuples[1], (id, Dir::Reply));
        self.index.insert(flow.tuples[0], (id, Dir::Original));
        self.ends.insert((flow.expires, id));
        self.flows.insert(id, flow);
    }

    /// Writes a flow back whose tuples are as they were.
    pub(crate) fn update(&mut self, id: u64, flow: Flow) {
        if let Some(old) = self.flows.get_mut(&id) {
            self.ends.remove(&(old.expires, id));
            self.ends.insert((flow.expires, id));
            *old = flow;
        }
    }

    pub(crate) fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.ends.remove(&(flow.expires, id));
            let source = flow.tuples[0].source();
            if let Some(ids) = self.sources.get_mut(&source) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.sources.remove(&source);
                }
            }
            for tuple in flow.tuples {
                if self.index.get(&tuple).is_some_and(|(at, _)| *at == id) {
                    self.index.remove(&tuple);
                }
            }
        }
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some((_, id)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.remove(id);
        }
    }

    /// The flows of a source, the newest first.
    pub(crate) fn of_source(&self, tuple: &Tuple) -> impl Iterator<Item = (u64, &Flow)> {
        let ids = self.sources.get(&tuple.source()).map_or(&[][..], Vec::as_slice);
        ids.iter().rev().filter_map(|id| Some((*id, self.flows.get(id)?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Flow)> {
        self.flows.iter().map(|(id, flow)| (*id, flow))
    }
}
