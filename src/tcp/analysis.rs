//! The sequence analysis: which of Wireshark's flags a segment gets.
//!
//! The conditions, their order and what is remembered from one segment to the next are those of Wireshark 4.0
//! (`tcp.analysis.*`; its user's guide, "TCP Analysis", describes them, and `tests/tcp_oracle.rs` compares the outcome
//! with `tshark` frame by frame). Two of its habits matter throughout: 0 stands for "not seen yet", even where a
//! sequence number happens to be 0, and a direction's window is compared as it was sent, before scaling.

use std::collections::VecDeque;

use super::code::{Code, Codes};
use super::seq::{after, at_most, before};
use crate::wire::TcpFlags;

/// Unacknowledged segments remembered in each direction.
const MOST_UNACKED: usize = 10_000;
/// An answer to duplicate ACKs comes within this, nanoseconds.
const FAST_NS: u64 = 20_000_000;
/// Segments that only changed places are this close where the round-trip time is not known, nanoseconds.
const REORDERED_NS: u64 = 3_000_000;

/// How a direction's window is scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// The handshake was not seen.
    #[default]
    Unknown,
    /// Not scaled: one end did not offer it.
    None,
    /// Shift count.
    Shift(u8),
}

impl Scale {
    /// The window in octets, as far as the scale is known.
    pub fn apply(self, window: u32) -> u32 {
        if let Self::Shift(shift) = self { window.wrapping_shl(shift.into()) } else { window }
    }
}

/// A segment that was sent and not yet acknowledged.
#[derive(Debug, Clone, Copy)]
struct Unacked {
    frame: u64,
    ns: u64,
    seq: u32,
    next: u32,
}

/// What is remembered of one direction.
#[derive(Debug, Clone)]
pub struct Direction {
    /// The highest sequence number sent, plus one.
    pub next: u32,
    next_ns: u64,
    /// Length of the segment that last moved `next`.
    top_len: u32,
    /// Up to here all was seen, without a hole.
    to_be_acked: u32,
    /// The acknowledgement number sent last.
    pub last_ack: u32,
    last_ack_ns: u64,
    /// The window sent last, not scaled; all ones before any.
    pub window: u32,
    /// How it is scaled.
    pub scale: Scale,
    /// The flags of the segment before.
    last: Codes,
    dup_acks: i32,
    /// The frame whose acknowledgement the duplicates repeat.
    last_new_ack: u64,
    /// The initial sequence number, where known: of the SYN, or one less than the first seen.
    pub base: Option<u32>,
    /// A SYN was sent, and no ACK yet: the window is not scaled until then.
    pub fresh: bool,
    unacked: VecDeque<Unacked>,
    /// `unacked` grows in both numbers, so that looking at its front is enough.
    ordered: bool,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            next: 0,
            next_ns: 0,
            top_len: 0,
            to_be_acked: 0,
            last_ack: 0,
            last_ack_ns: 0,
            window: u32::MAX,
            scale: Scale::Unknown,
            last: Codes::default(),
            dup_acks: 0,
            last_new_ack: 0,
            base: None,
            fresh: false,
            unacked: VecDeque::new(),
            ordered: true,
        }
    }
}

impl Direction {
    /// The window in octets; `None` before any was sent.
    pub fn scaled_window(&self) -> Option<u32> {
        let scale = if self.fresh { Scale::None } else { self.scale };
        (self.window != u32::MAX).then(|| scale.apply(self.window))
    }
}

/// What the analysis needs of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Frame number, from 1.
    pub frame: u64,
    /// When, nanoseconds.
    pub ns: u64,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number field.
    pub ack: u32,
    /// Octets of data.
    pub len: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window field.
    pub window: u32,
}

/// What the analysis says of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// The flags.
    pub codes: Codes,
    /// Which duplicate of its acknowledgement it is, from 1.
    pub dup_ack: u32,
    /// The frame whose acknowledgement it repeats.
    pub dup_of: u64,
    /// The frame it acknowledges, and the time since, nanoseconds.
    pub acks: Option<(u64, u64)>,
    /// The longest segment that it acknowledges whole, octets.
    pub acked_len: u32,
    /// For a retransmission: the time since the data was sent before, nanoseconds.
    pub rto_ns: Option<u64>,
}

/// Judges a segment of direction `fwd`, and remembers it. `irtt_ns` is the handshake's round-trip time, 0 if unknown.
pub fn judge(fwd: &mut Direction, rev: &mut Direction, seen: &Seen, irtt_ns: u64) -> Judged {
    let mut judged = Judged::default();
    let codes = &mut judged.codes;
    let ends = seen.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0);
    let plain = seen.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) == 0;
    let repeats = seen.len == 0 && seen.seq == fwd.next && seen.ack == fwd.last_ack && plain;

    if seen.len == 1 && seen.seq == fwd.next && rev.window == 0 {
        codes.add(Code::ZeroWindowProbe);
    } else {
        if seen.window == 0 && plain {
            codes.add(Code::ZeroWindow);
        }
        if fwd.next != 0 && after(seen.seq, fwd.next) && !seen.flags.contains(TcpFlags::RST) {
            codes.add(Code::LostSegment);
        }
        if seen.len <= 1 && seen.seq == fwd.next.wrapping_sub(1) && plain {
            codes.add(Code::KeepAlive);
        }
        if repeats && seen.window != 0 && seen.window != fwd.window {
            codes.add(Code::WindowUpdate);
        }
        if seen.len > 0 && plain && rev.scale != Scale::Unknown {
            let scale = if rev.fresh { Scale::None } else { rev.scale };
            let edge = rev.last_ack.wrapping_add(scale.apply(rev.window));
            if seen.seq.wrapping_add(seen.len) == edge {
                codes.add(Code::WindowFull);
            }
        }
        if repeats && seen.window != 0 && seen.window == fwd.window && rev.last.has(Code::KeepAlive) {
            codes.add(Code::KeepAliveAck);
        } else if repeats && seen.window == 0 && fwd.window == 0 && rev.last.has(Code::ZeroWindowProbe) {
            codes.add(Code::ZeroWindowProbeAck);
        } else if repeats && seen.window != 0 && seen.window == fwd.window {
            // -1 marks a direction whose acknowledgements ran ahead of what was captured.
            fwd.dup_acks = if fwd.dup_acks == -1 { 1 } else { fwd.dup_acks.saturating_add(1) };
            codes.add(Code::DuplicateAck);
            judged.dup_ack = fwd.dup_acks.cast_unsigned();
            judged.dup_of = fwd.last_new_ack;
        }
    }

    if seen.ack != fwd.last_ack {
        fwd.last_new_ack = seen.frame;
        fwd.dup_acks = 0;
    }

    if rev.to_be_acked != 0 && after(seen.ack, rev.to_be_acked) && seen.flags.contains(TcpFlags::ACK) {
        if before(rev.to_be_acked, rev.next) {
            rev.to_be_acked = rev.next;
            codes.add(Code::AckLostSegment);
        } else {
            // Once told, not again for the same hole.
            if rev.dup_acks == 0 {
                codes.add(Code::AckLostSegment);
            }
            rev.dup_acks = -1;
        }
    }

    if (seen.len > 0 || ends != 0) && !codes.has(Code::KeepAlive) {
        let again = sent_again(fwd, rev, seen, irtt_ns);
        if let Some(code) = again {
            codes.add(code);
            if matches!(code, Code::FastRetransmission | Code::SpuriousRetransmission) {
                codes.add(Code::Retransmission);
            }
            if code == Code::Retransmission {
                judged.rto_ns = Some(seen.ns.wrapping_sub(fwd.sent_before(seen.seq)));
            }
        }
    }

    remember(fwd, seen, *codes);
    (judged.acks, judged.acked_len) = rev.acknowledge(seen);
    judged
}

/// Whether data (or a SYN or FIN) that does not advance was retransmitted, and why, or overtaken.
fn sent_again(fwd: &Direction, rev: &Direction, seen: &Seen, irtt_ns: u64) -> Option<Code> {
    let takes_one = u32::from(seen.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0) != 0);
    let mut old = fwd.next != 0 && before(seen.seq, fwd.next);
    // New data may begin with the octet that a window probe has already brought.
    if seen.len > 1 && fwd.next.wrapping_sub(1) == seen.seq {
        old = false;
    }
    if seen.len > 0 && rev.last_ack != 0 && at_most(seen.seq.wrapping_add(seen.len), rev.last_ack) {
        return Some(Code::SpuriousRetransmission);
    }
    if !old {
        return None;
    }
    // Where clocks run backwards the difference is taken as very long.
    // The marker of a hole that was told of, -1, counts as many.
    if (rev.dup_acks >= 2 || rev.dup_acks < 0)
        && rev.last_ack == seen.seq
        && seen.ns.wrapping_sub(rev.last_ack_ns) < FAST_NS
    {
        return Some(Code::FastRetransmission);
    }
    let near = if irtt_ns == 0 { REORDERED_NS } else { irtt_ns };
    let fills_the_end = fwd.next == seen.seq.wrapping_add(seen.len).wrapping_add(takes_one);
    if seen.ns.wrapping_sub(fwd.next_ns) < near && !fills_the_end {
        return Some(Code::OutOfOrder);
    }
    Some(Code::Retransmission)
}

fn remember(fwd: &mut Direction, seen: &Seen, codes: Codes) {
    let takes_one = u32::from(seen.flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0) != 0);
    let mut next = seen.seq.wrapping_add(seen.len);
    if (seen.len > 0 || takes_one == 1) && fwd.unacked.len() < MOST_UNACKED {
        next = next.wrapping_add(takes_one);
        if fwd.unacked.is_empty() {
            fwd.ordered = true;
        } else if fwd.unacked.back().is_some_and(|last| before(seen.seq, last.next)) {
            fwd.ordered = false;
        }
        fwd.unacked.push_back(Unacked { frame: seen.frame, ns: seen.ns, seq: seen.seq, next });
    }
    if fwd.next == 0 || after(next, fwd.next.wrapping_add(takes_one)) {
        fwd.top_len = seen.len;
    }
    let probe = codes.has(Code::ZeroWindowProbe);
    if (fwd.next == 0 || after(next, fwd.next)) && !probe {
        fwd.next = next;
        fwd.next_ns = seen.ns;
    }
    if (fwd.to_be_acked == 0 || seen.seq == fwd.to_be_acked) && !probe {
        fwd.to_be_acked = fwd.next;
    }
    fwd.window = seen.window;
    fwd.last_ack = seen.ack;
    fwd.last_ack_ns = seen.ns;
    fwd.last = codes;
}

impl Direction {
    /// When the data at `seq` was sent before: the oldest of the unacknowledged that is not below it, else the newest.
    fn sent_before(&self, seq: u32) -> u64 {
        let not_below = self.unacked.iter().find(|one| !before(one.seq, seq));
        not_below.map_or(self.next_ns, |one| one.ns)
    }

    /// Takes what a segment of the other direction acknowledges off the list; which frame it was the answer to,
    /// and the longest that is off the list now.
    fn acknowledge(&mut self, seen: &Seen) -> (Option<(u64, u64)>, u32) {
        let ack = seen.ack;
        let (mut answers, mut longest) = (None, 0);
        let mut keep = |one: &mut Unacked| {
            if ack == one.next {
                // Of several that end here the oldest counts, which is met first.
                answers.get_or_insert((one.frame, seen.ns.wrapping_sub(one.ns)));
                longest = longest.max(one.next.wrapping_sub(one.seq));
                return false;
            }
            if after(ack, one.seq) && at_most(ack, one.next) {
                one.seq = ack;
            }
            let left = after(one.next, ack);
            if !left {
                longest = longest.max(one.next.wrapping_sub(one.seq));
            }
            left
        };
        if self.ordered {
            while self.unacked.front_mut().is_some_and(|one| !keep(one)) {
                self.unacked.pop_front();
            }
        } else {
            self.unacked.retain_mut(keep);
        }
        if self.unacked.is_empty() && self.unacked.capacity() > 64 {
            self.unacked = VecDeque::new();
        }
        (answers, longest)
    }

    /// A SYN with the number of the one before: what was sent after that is forgotten as far as it left holes.
    pub(super) fn begin_again(&mut self) {
        self.next = self.to_be_acked;
    }

    /// When it sent anything last, nanoseconds.
    pub(super) fn last_heard_ns(&self) -> u64 {
        self.last_ack_ns
    }

    /// Octets sent and not yet acknowledged by `rev`.
    pub fn in_flight(&self, rev: &Self) -> u32 {
        if self.next == 0 || rev.last_ack == 0 || !after(self.next, rev.last_ack) {
            return 0;
        }
        self.next.wrapping_sub(rev.last_ack)
    }
}
