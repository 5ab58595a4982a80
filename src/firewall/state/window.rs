//! Windows of a TCP connection, as conntrack compares them (`net/netfilter/nf_conntrack_proto_tcp.c`,
//! `tcp_in_window`).

use crate::firewall::packet::tcp_options;
use crate::firewall::ruleset::TcpFlags;

use super::tcp::TcpState;

/// The numbers of a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// As the header has it.
    window: u16,
    /// `segment_seq_plus_len`
    end: u32,
    scale: Option<u8>,
    sack_permitted: bool,
    /// The highest number that SACK names, after the acknowledged one.
    sack: u32,
}

impl Segment {
    /// Reads the TCP header and what follows; `None` where it is cut.
    pub(crate) fn of(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]));
        let long = |at: usize| Some(u32::from(word(at)?) << 16 | u32::from(word(at + 2)?));
        let header = usize::from(octets.get(12)? >> 4) * 4;
        let flags = *octets.get(13)?;
        let data = u32::try_from(octets.len().checked_sub(header)?).ok()?;
        let (seq, ack) = (long(4)?, long(8)?);
        let one = |bit: TcpFlags| u32::from(flags & bit.0 != 0);
        let end = seq.wrapping_add(data).wrapping_add(one(TcpFlags::SYN)).wrapping_add(one(TcpFlags::FIN));
        let mut out = Self { seq, ack, window: word(14)?, end, scale: None, sack_permitted: false, sack: ack };
        for (kind, at, length) in tcp_options(octets) {
            match (kind, length) {
                (3, 3) => out.scale = octets.get(at + 2).map(|scale| (*scale).min(14)),
                (4, 2) => out.sack_permitted = true,
                (5, 10..) if (length - 2).is_multiple_of(8) => {
                    for block in (at + 2..at + length).step_by(8) {
                        let last = long(block + 4)?;
                        if after(last, out.sack) {
                            out.sack = last;
                        }
                    }
                }
                _ => (),
            }
        }
        Some(out)
    }
}

/// `before` of `include/net/tcp.h`: numbers wrap around.
pub(super) fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// What is known of one side (`struct ip_ct_tcp_state`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Side {
    end: u32,
    max_end: u32,
    max_window: u32,
    max_ack: Option<u32>,
    scale: u8,
    scales: bool,
    sack: bool,
    liberal: bool,
    unacknowledged: bool,
}

impl Side {
    fn options(&mut self, segment: &Segment) {
        (self.scale, self.scales) = (segment.scale.unwrap_or(0), segment.scale.is_some());
        (self.sack, self.max_ack, self.unacknowledged) = (segment.sack_permitted, None, false);
    }

    /// `MAXACKWINDOW`
    fn ack_window(&self) -> u32 {
        self.max_window.max(66_000)
    }
}

/// `enum nf_ct_tcp_action`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Ignore,
    Invalid,
}

/// Both sides, and the segment before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Windows {
    sides: [Side; 2],
    pub(super) begun: bool,
    last_seq: u32,
    pub(super) last_ack: u32,
    pub(super) last_end: u32,
    last_window: u16,
    last_scale: Option<u8>,
    last_sack: bool,
    /// Who sent the segment before.
    pub(super) last_reply: bool,
    again: u8,
}

impl Windows {
    /// A SYN begins the flow.
    pub(super) fn begin(&mut self, segment: &Segment) {
        *self = Self { begun: true, ..Self::default() };
        let side = &mut self.sides[0];
        (side.end, side.max_end, side.max_window) = (segment.end, segment.end, u32::from(segment.window).max(1));
        side.options(segment);
    }

    /// The flow is picked up in its middle.
    pub(super) fn begin_midway(&mut self, segment: &Segment) {
        *self = Self { begun: true, ..Self::default() };
        let window = u32::from(segment.window).max(1);
        let side = &mut self.sides[0];
        (side.end, side.max_end, side.max_window) = (segment.end, segment.end.wrapping_add(window), window);
        for side in &mut self.sides {
            (side.sack, side.liberal) = (true, true);
        }
    }

    /// A segment that is let through and changes nothing is kept in mind.
    pub(super) fn let_through(&mut self, segment: &Segment, syn: bool) {
        (self.last_seq, self.last_end, self.last_window) = (segment.seq, segment.end, segment.window);
        if syn {
            (self.last_scale, self.last_sack) = (segment.scale, segment.sack_permitted);
        }
    }

    /// A SYN that was let through is answered.
    pub(super) fn agree(&mut self, last_reply: bool, reply: bool) {
        self.sides[usize::from(last_reply)] = Side {
            end: self.last_end,
            max_end: self.last_end,
            max_window: u32::from(self.last_window).max(1),
            scale: self.last_scale.unwrap_or(0),
            scales: self.last_scale.is_some(),
            sack: self.last_sack,
            ..Side::default()
        };
        self.sides[usize::from(reply)] = Side::default();
    }

    /// The highest number that this side has acknowledged.
    pub(super) fn acked(&self, reply: bool) -> Option<u32> {
        self.sides[usize::from(reply)].max_ack
    }

    /// Whether the flow is kept shorter: data are not acknowledged, a window is shut, or the same comes again.
    pub(super) fn waits(&self) -> bool {
        self.again >= 3 || self.sides.iter().any(|side| side.unacknowledged) || self.last_window == 0
    }

    fn init(&mut self, reply: bool, segment: &Segment) {
        let side = &mut self.sides[usize::from(reply)];
        (side.end, side.max_end, side.max_window) = (segment.end, segment.end, u32::from(segment.window).max(1));
        side.options(segment);
        if reply && !self.sides.iter().all(|side| side.scales) {
            for side in &mut self.sides {
                side.scale = 0;
            }
        }
    }

    /// `tcp_in_window`
    pub(super) fn compare(
        &mut self,
        reply: bool,
        flags: TcpFlags,
        plain_ack: bool,
        segment: &Segment,
        state: TcpState,
    ) -> Action {
        let has = |flag: TcpFlags| flags.0 & flag.0 != 0;
        let (own, other) = (usize::from(reply), usize::from(!reply));
        let (mut seq, mut end, mut ack) = (segment.seq, segment.end, segment.ack);
        let mut sack = if self.sides[other].sack { segment.sack } else { ack };
        let mut window = u32::from(segment.window);
        let (syn, acks) = (has(TcpFlags::SYN), has(TcpFlags::ACK));
        if self.sides[own].max_window == 0 {
            if syn {
                self.init(reply, segment);
                if !acks {
                    return Action::Accept;
                }
            } else {
                let [sender, receiver] = self.both(own);
                let scaled = window << sender.scale;
                (sender.end, sender.max_window) = (end, scaled.max(1));
                sender.max_end = end.wrapping_add(sender.max_window);
                if receiver.max_window == 0 {
                    (receiver.end, receiver.max_end) = (sack, sack);
                } else if sack == receiver.end.wrapping_add(1) {
                    receiver.end = sack;
                }
            }
        } else if syn && after(end, self.sides[own].end) && matches!(state, TcpState::SynSent | TcpState::SynRecv) {
            self.init(reply, segment);
            if reply && !acks {
                return Action::Accept;
            }
        }
        let [sender, receiver] = self.both(own);
        if !acks || has(TcpFlags::RST) && ack == 0 {
            (ack, sack) = (receiver.end, receiver.end);
        }
        if has(TcpFlags::RST) && seq == 0 && state == TcpState::SynSent {
            (seq, end) = (sender.end, sender.end);
        }
        let unless_liberal = |sender: &Side, action| if sender.liberal { Action::Accept } else { action };
        let ack_ok = after(sack, receiver.end.wrapping_sub(sender.ack_window()).wrapping_sub(1));
        let in_window = after(end, sender.end.wrapping_sub(receiver.max_window).wrapping_sub(1));
        let acks_seen = before(sack, receiver.end.wrapping_add(1));
        if !before(seq, sender.max_end.wrapping_add(1)) {
            let overshot = end.wrapping_sub(sender.max_end).wrapping_add(1);
            if receiver.max_window != 0 && in_window && ack_ok && overshot <= receiver.max_window && acks_seen {
                (sender.end, sender.unacknowledged) = (end, true);
                return unless_liberal(sender, Action::Ignore);
            }
            return unless_liberal(sender, Action::Invalid);
        }
        if !acks_seen {
            return unless_liberal(sender, Action::Invalid);
        }
        if receiver.max_window != 0 && !in_window || !ack_ok {
            return unless_liberal(sender, Action::Ignore);
        }
        if !syn {
            window <<= sender.scale;
        }
        sender.max_window = sender.max_window.max(window.wrapping_add(sack.wrapping_sub(ack)));
        if after(end, sender.end) {
            (sender.end, sender.unacknowledged) = (end, true);
        }
        if acks && sender.max_ack.is_none_or(|old| after(ack, old)) {
            sender.max_ack = Some(ack);
        }
        if receiver.max_window != 0 && after(end, sender.max_end) {
            receiver.max_window = receiver.max_window.wrapping_add(end.wrapping_sub(sender.max_end));
        }
        if after(sack.wrapping_add(window), receiver.max_end.wrapping_sub(1)) {
            receiver.max_end = sack.wrapping_add(window).wrapping_add(u32::from(window == 0));
        }
        if ack == receiver.end {
            receiver.unacknowledged = false;
        }
        if plain_ack {
            let now = (reply, seq, ack, end, segment.window);
            if (self.last_reply, self.last_seq, self.last_ack, self.last_end, self.last_window) == now {
                self.again = self.again.saturating_add(1);
            } else {
                (self.last_reply, self.last_seq, self.last_ack, self.last_end, self.last_window) = now;
                self.again = 0;
            }
        }
        Action::Accept
    }

    /// The sender and the receiver.
    fn both(&mut self, sender: usize) -> [&mut Side; 2] {
        let [a, b] = &mut self.sides;
        if sender == 0 { [a, b] } else { [b, a] }
    }
}
