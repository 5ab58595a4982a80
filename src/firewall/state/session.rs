//! One packet's view of a history: what it reads is the history, what it changes is a draft. The
//! branches of a walk each have their own, and one of them is kept.

use std::collections::HashMap;
use std::time::Duration;

use crate::firewall::ruleset::{CtStates, TcpFlags};

use super::History;
use super::conntrack::{Flow, Status};
use super::memory::{Key, Value};
use super::tcp::{Fate, Known, Tcp, TcpState, valid_flags};
use super::tuple::{Dir, Tuple};
use super::window::Segment;

/// The flow a packet belongs to, as it is changed by it.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    /// `None` while it is not confirmed.
    pub(crate) id: Option<u64>,
    pub(crate) flow: Flow,
    pub(crate) dir: Dir,
    /// The packet is an ICMP error about the flow, no part of it.
    pub(crate) error: bool,
    /// The flow ends with this packet.
    pub(crate) killed: bool,
    /// The packet changes nothing, and is not counted (`nf_conntrack_tcp_packet` returns before
    /// `nf_ct_refresh_acct`).
    pub(crate) idle: bool,
}

impl Current {
    /// The packet's state, by its direction and what was heard.
    fn tracked(&self) -> Tracked {
        match self.dir {
            Dir::Reply => Tracked::Established,
            Dir::Original if self.flow.status.has(Status::SEEN_REPLY) => Tracked::Established,
            Dir::Original if self.flow.status.has(Status::EXPECTED) => Tracked::Related,
            Dir::Original => Tracked::New,
        }
    }
}

/// What conntrack makes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracked {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

/// What conntrack reads of a packet besides its tuple.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) flags: TcpFlags,
    /// The tuple that an ICMP error quotes.
    pub(crate) quoted: Option<Tuple>,
    /// Octets of the IP packet.
    pub(crate) length: u64,
    /// `nf_conntrack_tcp_loose`: a connection may be picked up in its middle.
    pub(crate) loose: bool,
    /// The state that the packet was given with; it says how its flow began, where none is known.
    pub(crate) given: Option<CtStates>,
    /// It comes back from the loopback link.
    pub(crate) by_lo: bool,
    /// The numbers of a TCP segment, where its octets are given.
    pub(crate) segment: Option<Segment>,
}

#[derive(Debug, Clone)]
pub(crate) struct Session<'h> {
    base: &'h History,
    pub(crate) current: Option<Current>,
    killed: Vec<u64>,
    values: HashMap<Key, Value>,
}

/// What a session changed, to be kept or thrown away.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(super) current: Option<Current>,
    pub(super) killed: Vec<u64>,
    pub(super) values: HashMap<Key, Value>,
}

/// ICMP types that are errors and quote a packet.
pub(crate) fn is_icmp_error(proto: u8, kind: u8) -> bool {
    match proto {
        1 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        58 => kind < 128,
        _ => false,
    }
}

impl<'h> Session<'h> {
    pub(crate) fn new(base: &'h History) -> Self {
        Self { base, current: None, killed: Vec::new(), values: HashMap::new() }
    }

    pub(crate) fn draft(self) -> Draft {
        Draft { current: self.current, killed: self.killed, values: self.values }
    }

    pub(crate) fn now(&self) -> Duration {
        self.base.now
    }

    /// How long ago the first packet came, when sets were as the dump has them.
    pub(crate) fn age(&self) -> Duration {
        self.base.now.saturating_sub(self.base.began.unwrap_or(self.base.now))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Value> {
        self.values.get(key).or_else(|| self.base.memory.get(key))
    }

    pub(crate) fn put(&mut self, key: Key, value: Value) {
        self.values.insert(key, value);
    }

    /// A flow of the table by one of its tuples.
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<(u64, Dir, &'h Flow)> {
        self.base.table.find(tuple, self.now()).filter(|(id, ..)| !self.killed.contains(id))
    }

    /// Every flow that lives, but those that this packet ended.
    pub(crate) fn flows(&self) -> impl Iterator<Item = (u64, &'h Flow)> {
        let now = self.now();
        let base = self.base;
        base.table.iter().filter(move |(id, flow)| flow.expires > now && !self.killed.contains(id))
    }

    /// Flows whose first packet had the tuple's source, the newest first.
    pub(crate) fn flows_of(&self, tuple: &Tuple) -> impl Iterator<Item = &'h Flow> {
        let now = self.now();
        let there = self.base.table.of_source(tuple);
        there.filter(move |(id, flow)| flow.expires > now && !self.killed.contains(id)).map(|(_, flow)| flow)
    }

    /// Finds the packet's flow or begins one (`nf_conntrack_in`).
    pub(crate) fn track(&mut self, tuple: Tuple, seen: &Seen) -> Tracked {
        if tuple.proto == 58 && matches!(tuple.icmp_type(), 130..=136 | 143) {
            return Tracked::Untracked;
        }
        if is_icmp_error(tuple.proto, tuple.icmp_type()) {
            return self.error_about(tuple, seen);
        }
        if tuple.proto == 6 && !valid_flags(seen.flags) {
            return Tracked::Invalid;
        }
        let mut current = if let Some((id, dir, flow)) = self.find(&tuple) {
            let current = Current { id: Some(id), flow: flow.clone(), dir, error: false, killed: false, idle: false };
            if seen.by_lo && flow.by_lo {
                // It was looked at when it was sent.
                let tracked = current.tracked();
                self.current = Some(current);
                return tracked;
            }
            current
        } else {
            let given = seen.given.unwrap_or(CtStates::NEW);
            if given.intersects(CtStates::INVALID) {
                return Tracked::Invalid;
            }
            if given.intersects(CtStates::UNTRACKED) {
                return Tracked::Untracked;
            }
            let Some(mut current) = self.fresh(tuple, given) else { return Tracked::Invalid };
            if given.intersects(CtStates::RELATED) {
                current.flow.status.set(Status::EXPECTED);
            }
            current
        };
        match self.advance(&mut current, seen) {
            Some(true) => (),
            Some(false) => return Tracked::Invalid,
            None => {
                // The old flow is over; the segment begins another.
                self.killed.extend(current.id);
                let Some(mut next) = self.fresh(tuple, CtStates::NEW) else { return Tracked::Invalid };
                if self.advance(&mut next, seen) != Some(true) {
                    return Tracked::Invalid;
                }
                current = next;
            }
        }
        let flow = &mut current.flow;
        if !current.idle {
            flow.packets[current.dir.index()] += 1;
            flow.bytes[current.dir.index()] += seen.length;
        }
        if current.dir == Dir::Reply {
            flow.status.set(Status::SEEN_REPLY);
        }
        let tracked = current.tracked();
        self.current = Some(current);
        tracked
    }

    /// A flow that begins with this packet, or that began before the history did.
    fn fresh(&self, tuple: Tuple, given: CtStates) -> Option<Current> {
        let known = given.intersects(CtStates::ESTABLISHED);
        let reply = tuple.invert()?;
        if matches!(tuple.proto, 1 | 58) && !tuple.is_icmp_query() && !known {
            return None;
        }
        let mut flow = Flow {
            tuples: [tuple, reply],
            status: Status::default(),
            mark: 0,
            expires: self.now(),
            tcp: Tcp::default(),
            stream_at: self.now().saturating_add(Duration::from_secs(2)),
            packets: [0, 0],
            bytes: [0, 0],
            by_lo: false,
        };
        if known {
            let bits = Status::SEEN_REPLY | Status::ASSURED | Status::SRC_NAT_DONE | Status::DST_NAT_DONE;
            flow.status.set(bits);
            flow.tcp = Tcp::midway();
        }
        Some(Current { id: None, flow, dir: Dir::Original, error: false, killed: false, idle: false })
    }

    /// Lets the flow see the packet; `Some(false)` where it is no part of it, `None` where the flow
    /// is over and the packet begins another.
    fn advance(&self, current: &mut Current, seen: &Seen) -> Option<bool> {
        let now = self.now();
        let flow = &mut current.flow;
        let answered = flow.status.has(Status::SEEN_REPLY);
        let seconds = match flow.tuples[0].proto {
            6 => {
                let assured = flow.status.has(Status::ASSURED);
                let known = Known { seen_reply: answered, assured, loose: seen.loose };
                match flow.tcp.packet(current.dir, seen.flags, known, seen.segment.as_ref()) {
                    Fate::Invalid => return Some(false),
                    Fate::Reopen => return None,
                    Fate::Belongs { timeout, assured, killed } => {
                        if let Some(timeout) = timeout {
                            flow.expires = now.saturating_add(timeout);
                        }
                        if assured {
                            flow.status.set(Status::ASSURED);
                        }
                        current.killed = killed;
                        current.idle = timeout.is_none();
                        return Some(true);
                    }
                }
            }
            // A stream once it is still active after two seconds.
            17 | 136 if answered && now > flow.stream_at => {
                flow.status.set(Status::ASSURED);
                120
            }
            47 if answered => {
                flow.status.set(Status::ASSURED);
                180
            }
            132 | 33 if answered => {
                flow.status.set(Status::ASSURED);
                210
            }
            17 | 136 | 1 | 58 | 47 | 132 | 33 => 30,
            _ => 600,
        };
        flow.expires = now.saturating_add(Duration::from_secs(seconds));
        Some(true)
    }

    /// An ICMP error: RELATED to the flow whose packet it quotes (`nf_conntrack_inet_error`).
    fn error_about(&mut self, tuple: Tuple, seen: &Seen) -> Tracked {
        // What is quoted went the other way; the flow is looked up by what would answer it.
        let Some(answer) = seen.quoted.and_then(Tuple::invert) else { return Tracked::Invalid };
        let Some((id, dir, flow)) = self.find(&answer) else { return Tracked::Invalid };
        if flow.tuple(dir).dst != tuple.dst {
            return Tracked::Invalid;
        }
        self.current = Some(Current { id: Some(id), flow: flow.clone(), dir, error: true, killed: false, idle: false });
        Tracked::Related
    }

    /// Whether the packet's new flow cannot be confirmed: another one holds one of its tuples
    /// (`nf_conntrack_core.c`, `__nf_conntrack_confirm`).
    pub(crate) fn clashes(&self) -> bool {
        let Some(current) = self.current.as_ref().filter(|current| current.id.is_none() && !current.error) else {
            return false;
        };
        current.flow.tuples.iter().any(|tuple| self.taken(tuple))
    }

    /// REJECT answers with a reset: the flow is closed (`nf_ct_set_closing`).
    pub(crate) fn close(&mut self) {
        let now = self.now();
        let Some(current) = self.current.as_mut().filter(|current| current.flow.tuples[0].proto == 6) else { return };
        if current.flow.tcp.state != TcpState::Close {
            current.flow.tcp.state = TcpState::Close;
            current.flow.expires = now.saturating_add(TcpState::Close.timeout());
        }
    }

    /// Whether another flow already has this tuple.
    pub(super) fn taken(&self, tuple: &Tuple) -> bool {
        let own = self.current.as_ref().and_then(|current| current.id);
        self.find(tuple).is_some_and(|(id, ..)| Some(id) != own)
    }
}
