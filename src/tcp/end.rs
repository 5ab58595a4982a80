//! What is kept of one end of a connection.

use std::net::SocketAddr;

use super::analysis::Direction;
use super::state::State;
use crate::wire::{Segment, TcpOptions};

/// A place in the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Frame, from 1.
    pub frame: u64,
    /// When, nanoseconds since 1970.
    pub ns: u64,
}

/// A SYN or SYN-ACK, the first of its kind that this end sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syn {
    /// Where.
    pub at: Mark,
    /// Initial sequence number.
    pub seq: u32,
    /// It carried ACK.
    pub with_ack: bool,
    /// Largest segment it takes.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// Window, never scaled.
    pub window: u16,
    /// Octets of data that came with it (TCP Fast Open).
    pub data: u32,
    /// How often it was sent.
    pub sent: u32,
    /// When it was sent last.
    pub last: Mark,
}

/// A RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Where.
    pub at: Mark,
    /// Its sequence number.
    pub seq: u32,
    /// With ACK.
    pub with_ack: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub ip_id: Option<u16>,
    /// How many.
    pub sent: u32,
    /// In answer to a SYN.
    pub refuses: bool,
    /// Data of either end was unacknowledged, or a request unanswered.
    pub cuts: bool,
    /// The TTL this end's other packets had just before.
    pub usual_ttl: Option<u8>,
    /// The IPv4 identification of this end's packet before it.
    pub usual_id: Option<u16>,
}

/// How an end numbers its packets (RFC 6864 leaves it free: hosts count, roll dice, or put 0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IpIds {
    /// The one seen last.
    pub last: Option<u16>,
    /// Steps that a counter makes.
    counted: u16,
    /// Other steps.
    jumped: u16,
}

impl IpIds {
    /// A busy host's counter moves this far between two packets of a connection.
    const STEP: std::ops::RangeInclusive<u16> = 1..=512;

    pub(super) fn note(&mut self, id: Option<u16>) {
        let Some(id) = id else { return };
        if let Some(last) = self.last {
            let steps = if Self::STEP.contains(&id.wrapping_sub(last)) { &mut self.counted } else { &mut self.jumped };
            *steps = steps.saturating_add(1);
        }
        self.last = Some(id);
    }

    /// Whether a packet with `id` after one with `usual` is not of this counter. A 0 says nothing: Linux puts it
    /// into resets that belong to no socket, and so do its firewalls.
    pub fn is_stranger(self, id: u16, usual: u16) -> bool {
        // Packets overtake each other, and capture points see that.
        let near = id.wrapping_sub(usual).min(usual.wrapping_sub(id)) <= 4096;
        id != 0 && self.counted >= 3 && self.jumped == 0 && !near
    }
}

/// Round-trip times as the acknowledgements of this end's data show them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rtt {
    /// How many.
    pub count: u32,
    /// The least, nanoseconds.
    pub min_ns: u64,
    /// The most.
    pub max_ns: u64,
    /// All together.
    pub sum_ns: u64,
}

impl Rtt {
    pub(super) fn add(&mut self, ns: u64) {
        // A clock that ran backwards measured nothing.
        if ns > 1 << 62 {
            return;
        }
        self.min_ns = if self.count == 0 { ns } else { self.min_ns.min(ns) };
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.count = self.count.saturating_add(1);
    }

    /// Their mean, nanoseconds.
    pub fn mean_ns(self) -> Option<u64> {
        self.sum_ns.checked_div(u64::from(self.count))
    }
}

/// What kept this end from sending faster, nanoseconds of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// All was acknowledged and nothing new came: the application had nothing to send.
    pub sender_ns: u64,
    /// The receiver's window was full.
    pub receiver_ns: u64,
    /// Something was lost and had to be sent again.
    pub loss_ns: u64,
    /// In flight, neither lost nor at the window's edge: the round trip, and what the congestion window allows.
    pub network_ns: u64,
}

/// One segment that was sent again and again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Its sequence number.
    pub seq: u32,
    /// Its length.
    pub len: u32,
    /// How often it was sent again in a row.
    pub times: u32,
    /// The first that was a repetition.
    pub first: u64,
    /// An acknowledgement of it was seen since.
    pub answered: bool,
}

/// One end.
#[derive(Debug, Clone)]
pub struct End {
    /// Who.
    pub address: SocketAddr,
    /// Sequence analysis of what it sends.
    pub direction: Direction,
    /// Its state.
    pub state: State,
    /// Packets sent.
    pub packets: u64,
    /// Octets of those packets on the wire.
    pub bytes: u64,
    /// Octets of data, repetitions included.
    pub data: u64,
    /// Octets of data that were sent before.
    pub data_again: u64,
    /// Segments that were sent before.
    pub again: u32,
    /// Segments with data.
    pub data_segments: u64,
    /// Segments with PSH.
    pub pushes: u64,
    /// The last segment with new data.
    pub last_data: Option<Mark>,
    /// SYN or SYN-ACK.
    pub syn: Option<Syn>,
    /// FIN, and the number behind it.
    pub fin: Option<(Mark, u32)>,
    /// The first RST.
    pub reset: Option<Reset>,
    /// TTL of its last packet that was no RST.
    pub ttl: Option<u8>,
    /// How its packets that are no RST are numbered.
    pub ids: IpIds,
    /// Segments with a right checksum before any wrong one.
    pub checksums_right: u32,
    /// A checksum was not filled in, or too few were right before a wrong one to tell: the capture may be on the
    /// sender, whose card fills them in.
    pub offloads: bool,
    /// The frame in which it went on sending new data after its RST.
    pub after_reset: Option<u64>,
    /// The longest segment sent.
    pub longest: u32,
    /// The longest that was acknowledged.
    pub longest_acked: u32,
    /// Round-trip times.
    pub rtt: Rtt,
    /// Since when its window is closed.
    pub closed_since: Option<Mark>,
    /// How long its window was closed in all, nanoseconds.
    pub closed_ns: u64,
    /// Where it was closed longest, and how long.
    pub closed_longest: Option<(u64, u64)>,
    /// The worst repetition.
    pub worst: Repeats,
    /// The repetition that is going on.
    pub repeats: Repeats,
    /// What kept it from sending.
    pub limits: Limits,
    /// A hole is being filled: until this number is acknowledged.
    pub(super) recover: Option<u32>,
    /// Times that a small write waited for a delayed ACK: how often, the first frame, nanoseconds in all.
    pub delayed: (u32, u64, u64),
    /// Segments that were neither SYN nor RST nor had ACK.
    pub illegal: u32,
}

impl End {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            direction: Direction::default(),
            state: State::default(),
            packets: 0,
            bytes: 0,
            data: 0,
            data_again: 0,
            again: 0,
            data_segments: 0,
            pushes: 0,
            last_data: None,
            syn: None,
            fin: None,
            reset: None,
            ttl: None,
            ids: IpIds::default(),
            checksums_right: 0,
            offloads: false,
            after_reset: None,
            longest: 0,
            longest_acked: 0,
            rtt: Rtt::default(),
            closed_since: None,
            closed_ns: 0,
            closed_longest: None,
            worst: Repeats::default(),
            repeats: Repeats::default(),
            limits: Limits::default(),
            recover: None,
            delayed: (0, 0, 0),
            illegal: 0,
        }
    }

    pub(super) fn note_syn(&mut self, segment: &Segment<'_>, at: Mark, options: &TcpOptions) {
        let with_ack = segment.has(crate::wire::TcpFlags::ACK);
        match &mut self.syn {
            Some(syn) if syn.seq == segment.seq => {
                syn.sent += 1;
                syn.last = at;
                // In a simultaneous open the SYN comes first and the SYN-ACK after it.
                syn.with_ack |= with_ack;
            }
            Some(_) => {}
            none => {
                *none = Some(Syn {
                    at,
                    seq: segment.seq,
                    with_ack,
                    mss: options.mss,
                    scale: options.window_scale,
                    sack: options.sack_permitted,
                    timestamps: options.timestamps.is_some(),
                    window: segment.window,
                    data: segment.len(),
                    sent: 1,
                    last: at,
                });
            }
        }
    }

    /// Keeps account of how long the window is closed.
    pub(super) fn note_window(&mut self, closed: bool, at: Mark) {
        match (closed, self.closed_since) {
            (true, None) => self.closed_since = Some(at),
            (false, Some(since)) => {
                self.closed_since = None;
                self.add_closed(since, at.ns);
            }
            _ => {}
        }
    }

    pub(super) fn add_closed(&mut self, since: Mark, until_ns: u64) {
        let span = until_ns.saturating_sub(since.ns);
        self.closed_ns += span;
        if self.closed_longest.is_none_or(|(_, longest)| span > longest) {
            self.closed_longest = Some((since.frame, span));
        }
    }

    /// Keeps account of one segment being sent over and over.
    pub(super) fn note_repeat(&mut self, seq: u32, len: u32, at: Mark) {
        if self.repeats.times > 0 && self.repeats.seq == seq {
            self.repeats.times += 1;
            self.repeats.len = self.repeats.len.max(len);
        } else {
            self.repeats = Repeats { seq, len, times: 1, first: at.frame, answered: false };
        }
        if self.repeats.times >= self.worst.times {
            self.worst = self.repeats;
        }
    }

    /// How many octets of data the sequence numbers say were sent; `None` without a SYN.
    pub fn stream_length(&self) -> Option<u32> {
        let first = self.syn?.seq.wrapping_add(1);
        let end = self.direction.next.wrapping_sub(u32::from(self.fin.is_some()));
        (self.direction.next != 0).then(|| end.wrapping_sub(first))
    }
}
