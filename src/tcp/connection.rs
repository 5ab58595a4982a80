//! One connection: what is kept while its segments pass.

use std::net::IpAddr;

use super::analysis::{self, Judged, Scale, Seen};
use super::code::{Code, Codes};
use super::end::{End, Mark, Reset};
use super::seq::{after, at_most};
use super::state::{self, Moves, State};
use super::zeek::{Look, Zeek};
use crate::wire::{IcmpError, Segment, TcpFlags};

/// Findings kept for one connection; beyond this they are counted.
const MOST_FINDINGS: usize = 10_000;
/// A delayed ACK comes this late, nanoseconds: Linux waits 40 ms, Windows and BSD up to 200 ms.
const DELAYED_NS: std::ops::Range<u64> = 30_000_000..260_000_000;

/// Packets that are overtaken come at most so much later, nanoseconds.
const OVERTAKEN_NS: u64 = 10_000_000;

/// Wireshark's `tcp.completeness`: which kinds of segments were seen.
mod complete {
    pub(super) const SYN: u8 = 1;
    pub(super) const SYN_ACK: u8 = 2;
    pub(super) const ACK: u8 = 4;
    pub(super) const DATA: u8 = 8;
    pub(super) const FIN: u8 = 16;
    pub(super) const RST: u8 = 32;
}

/// A finding as it is kept: its words are made when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Where.
    pub frame: u64,
    /// What.
    pub code: Code,
    /// Which side's segment.
    pub side: u8,
    /// A number that belongs to it: which duplicate ACK, milliseconds of a retransmission timeout.
    pub detail: u32,
}

/// An ICMP error that a router or host sent about this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpNote {
    /// Where.
    pub at: Mark,
    /// Who sent it.
    pub from: IpAddr,
    /// ICMPv6.
    pub v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The MTU it tells of.
    pub mtu: Option<u32>,
    /// Whose packet it is about.
    pub side: usize,
}

/// One segment of the drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub at: Mark,
    /// Who sent it: side 0 or 1.
    pub side: usize,
    /// Flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Octets of data.
    pub len: u32,
    /// Window in octets, as far as the scale is known.
    pub window: u32,
    /// What was found.
    pub codes: Codes,
    /// Both ends' states after it.
    pub states: [State; 2],
    /// The data that was captured, as far as it is kept.
    pub data: Vec<u8>,
    /// Options in words.
    pub options: String,
    /// It acknowledges this frame after so many nanoseconds.
    pub acks: Option<(u64, u64)>,
    /// Unacknowledged data of its sender after it.
    pub in_flight: u32,
    /// Selective acknowledgements.
    pub sack: Vec<(u32, u32)>,
    /// IP's TTL.
    pub ttl: u8,
    /// IPv4 identification.
    pub ip_id: Option<u16>,
    /// Window as sent.
    pub raw_window: u16,
}

/// How both directions were closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Closing {
    /// FIN, ACK, FIN, ACK.
    FourWay,
    /// The peer's FIN came with the ACK of the first.
    ThreeWay,
    /// Both sent a FIN before they saw the other's.
    Simultaneous,
    /// The peer went on sending data for a while after it had acknowledged the first FIN.
    HalfClosed,
}

/// How much is kept of a connection's segments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Segments.
    pub steps: usize,
    /// Octets of data of each.
    pub data: usize,
    /// Octets of data of all.
    pub octets: usize,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its number in order of appearance, from 0, as `tcp.stream`.
    pub stream: u64,
    /// The sender of its first segment, and the other.
    pub ends: [End; 2],
    /// The first segment.
    pub first: Mark,
    /// Its flags.
    pub opened_with: TcpFlags,
    /// The last.
    pub last: Mark,
    /// Zeek's words.
    pub zeek: Zeek,
    /// What was found.
    pub noted: Vec<Noted>,
    /// Findings that were not kept.
    pub not_noted: u64,
    /// All codes that were found.
    pub codes: Codes,
    /// How often each was found.
    pub counts: [u16; Code::ALL.len()],
    /// Errors about it.
    pub icmp: Vec<IcmpNote>,
    /// The segments, where they are kept.
    pub steps: Vec<Step>,
    /// Segments that were not kept.
    pub steps_left: u64,
    /// Wireshark's completeness.
    pub completeness: u8,
    /// The third step of the handshake.
    pub third: Option<Mark>,
    /// How the second FIN met the first.
    pub closing: Option<Closing>,
    /// The slowest answer: frame where it began, how long it took, nanoseconds.
    pub slowest: Option<(u64, u64)>,
    /// Requests and answers by turns.
    pub turns: u32,
    /// Reading ended, or the table was full, before it was over.
    pub partial: bool,
    latest_syn_ns: u64,
    irtt_ns: u64,
    /// Who sent data last, and when.
    spoke: Option<(usize, Mark)>,
    keep: Keep,
}

impl Connection {
    pub(super) fn new(stream: u64, segment: &Segment<'_>, at: Mark, keep: Keep) -> Self {
        let ends = [(segment.src, segment.sport), (segment.dst, segment.dport)].map(|end| End::new(end.into()));
        let opens = segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK);
        let flipped = !opens && looks_like_server(segment.sport, segment.dport);
        Self { opened_with: segment.flags, ..Self::blank(stream, ends, at, keep, flipped) }
    }

    /// An empty one of the same ends, to leave behind.
    pub(super) fn husk(&self) -> Self {
        let ends = [End::new(self.ends[0].address), End::new(self.ends[1].address)];
        Self::blank(self.stream, ends, self.first, Keep::default(), false)
    }

    fn blank(stream: u64, ends: [End; 2], at: Mark, keep: Keep, flipped: bool) -> Self {
        Self {
            stream,
            ends,
            first: at,
            opened_with: TcpFlags::default(),
            last: at,
            zeek: Zeek::new(flipped),
            noted: Vec::new(),
            not_noted: 0,
            codes: Codes::default(),
            counts: [0; Code::ALL.len()],
            icmp: Vec::new(),
            steps: Vec::new(),
            steps_left: 0,
            completeness: 0,
            third: None,
            closing: None,
            slowest: None,
            turns: 0,
            partial: false,
            latest_syn_ns: 0,
            irtt_ns: 0,
            spoke: None,
            keep,
        }
    }

    /// Which end sent a segment.
    pub fn side_of(&self, src: IpAddr, sport: u16) -> usize {
        let first = &self.ends[0].address;
        usize::from(!(first.port() == sport && first.ip() == src))
    }

    /// The end that opened it, as far as is known: who sent a SYN first, else whose peer has the port of a service.
    pub fn client(&self) -> usize {
        let opened = |side: usize| self.ends[side].syn.is_some_and(|syn| !syn.with_ack);
        let answered = |side: usize| self.ends[side].syn.is_some_and(|syn| syn.with_ack);
        match (opened(0), opened(1)) {
            (true, _) => 0,
            (false, true) => 1,
            _ if answered(0) => 1,
            _ if answered(1) => 0,
            _ => usize::from(looks_like_server(self.ends[0].address.port(), self.ends[1].address.port())),
        }
    }

    /// Whether a SYN that opens was seen, so that [`Self::client`] is certain.
    pub fn opening_seen(&self) -> bool {
        self.ends.iter().any(|end| end.syn.is_some())
    }

    /// Whether both SYNs were seen and the second acknowledged.
    pub fn is_opened(&self) -> bool {
        self.ends.iter().all(|end| end.syn.is_some())
            && (self.third.is_some() || self.ends[0].data + self.ends[1].data > 0)
    }

    /// Whether a SYN of `side` begins another connection than this one.
    pub(super) fn is_superseded(&self, side: usize, seq: u32) -> bool {
        self.ends[side].direction.base.is_some_and(|base| base != seq)
    }

    /// Whether nothing more is expected.
    pub fn is_over(&self) -> bool {
        let gone = |state: State| matches!(state, State::Closed | State::TimeWait);
        self.ends.iter().all(|end| gone(end.state))
    }

    pub(super) fn note(&mut self, code: Code, frame: u64, side: usize, detail: u32) {
        self.codes.add(code);
        let count = &mut self.counts[code as usize];
        *count = count.saturating_add(1);
        if self.noted.len() < MOST_FINDINGS {
            self.noted.push(Noted { frame, code, side: u8::from(side == 1), detail });
        } else {
            self.not_noted += 1;
        }
    }

    /// How often a code was found.
    pub fn count(&self, code: Code) -> u32 {
        self.counts[code as usize].into()
    }

    /// Takes in a segment; `reused` where it begins a new connection on old ports.
    pub(super) fn absorb(
        &mut self,
        segment: &Segment<'_>,
        at: Mark,
        wire: u32,
        mut reused: bool,
        fresh: bool,
    ) -> Judged {
        let side = self.side_of(segment.src, segment.sport);
        let flags = segment.flags;
        let (syn, ack) = (segment.has(TcpFlags::SYN), segment.has(TcpFlags::ACK));
        let (fin, rst) = (segment.has(TcpFlags::FIN), segment.has(TcpFlags::RST));

        if syn && ack && self.ends[side].direction.base.is_some_and(|base| base != segment.seq) {
            self.ends[side].direction.base = Some(segment.seq);
            reused = true;
        }
        if syn && !ack && self.ends[side].direction.base.is_some_and(|base| base == segment.seq) {
            self.ends[side].direction.begin_again();
        }
        self.account_for_time(at.ns);

        let mut judged = Judged::default();
        let next_before = self.ends[side].direction.next;
        if let Some(len) = segment.data_len {
            let seen = Seen {
                frame: at.frame,
                ns: at.ns,
                seq: segment.seq,
                ack: segment.ack,
                len,
                flags,
                window: segment.window.into(),
            };
            let (fwd, rev) = pair(&mut self.ends, side);
            let first = if syn { segment.seq } else { segment.seq.wrapping_sub(1) };
            fwd.direction.base.get_or_insert(first);
            if ack {
                rev.direction.base.get_or_insert(segment.ack.wrapping_sub(1));
            }
            judged = analysis::judge(&mut fwd.direction, &mut rev.direction, &seen, self.irtt_ns);
        }
        if reused {
            judged.codes.add(Code::PortReused);
        }
        if let Some(code) = self.fast_open(segment, side) {
            judged.codes.add(code);
        }
        let malformed = segment.header_len < 20 || segment.data_len.is_none();
        if malformed {
            // No receiver takes it, and Wireshark says no more of it either.
            judged.codes = Codes::default();
            judged.codes.add(Code::Malformed);
        } else {
            self.complete(segment, fresh, reused);
            self.after_header(segment, side, at);
        }
        if self.checksum_is_wrong(segment, side) {
            judged.codes.add(Code::BadChecksum);
        }
        if is_illegal(flags) {
            judged.codes.add(Code::IllegalFlags);
            self.ends[side].illegal += 1;
        }
        self.observe(segment, side, at, wire, &judged, next_before);

        let repeated =
            !segment.is_empty() && next_before != 0 && at_most(segment.seq.wrapping_add(segment.len()), next_before);
        self.zeek.look(Look {
            side,
            flags,
            seq: segment.seq,
            len: segment.len(),
            window: segment.window,
            repeated,
            gap: judged.codes.has(Code::AckLostSegment),
        });
        let moves = self.moves(segment, side);
        if fin && self.ends[side].fin.is_none() && self.ends[1 - side].fin.is_some() {
            let spoke_since = self.spoke.is_some_and(|(speaker, when)| {
                speaker == side
                    && self.ends[1 - side].fin.is_some_and(|(first, _)| when.frame > first.frame && when != at)
            });
            self.closing = Some(match self.ends[1 - side].state {
                _ if spoke_since => Closing::HalfClosed,
                State::FinWait2 => Closing::FourWay,
                _ if moves.acks_fin => Closing::ThreeWay,
                _ => Closing::Simultaneous,
            });
        }
        let (sender, receiver) = pair(&mut self.ends, side);
        if !malformed {
            state::step(&mut sender.state, &mut receiver.state, moves);
        }
        if rst {
            self.note_reset(segment, side, at);
        }
        if fin {
            let end = segment.seq.wrapping_add(segment.len()).wrapping_add(1);
            self.ends[side].fin.get_or_insert((at, end));
        }
        for code in judged.codes.iter() {
            let detail = match code {
                Code::DuplicateAck => judged.dup_ack,
                Code::Retransmission => judged.rto_ns.map_or(0, |ns| u32::try_from(ns / 1_000_000).unwrap_or(u32::MAX)),
                _ => segment.len(),
            };
            self.note(code, at.frame, side, detail);
        }
        self.keep_step(segment, side, at, &judged);
        self.last = at;
        judged
    }

    /// Wireshark's completeness, which decides whether a later SYN is a new connection.
    fn complete(&mut self, segment: &Segment<'_>, fresh: bool, reused: bool) {
        let (syn, ack) = (segment.has(TcpFlags::SYN), segment.has(TcpFlags::ACK));
        if fresh && reused {
            self.completeness = complete::SYN;
        } else if fresh {
            if syn && !ack {
                self.completeness |= complete::SYN | if segment.is_empty() { 0 } else { complete::DATA };
            }
            return;
        }
        match (syn, ack) {
            (true, true) => self.completeness |= complete::SYN_ACK,
            (false, true) if segment.is_empty() => self.completeness |= complete::ACK,
            (false, true) => self.completeness |= complete::DATA,
            _ => {}
        }
        if segment.has(TcpFlags::FIN | TcpFlags::ACK) {
            self.completeness |= complete::FIN;
        }
        if segment.has(TcpFlags::RST) {
            self.completeness |= complete::RST;
        }
    }

    /// What is remembered once the whole header has been read: the handshake's time, the scale of windows.
    pub(super) fn after_header(&mut self, segment: &Segment<'_>, side: usize, at: Mark) {
        let (syn, ack) = (segment.has(TcpFlags::SYN), segment.has(TcpFlags::ACK));
        let (fwd, rev) = pair(&mut self.ends, side);
        if syn {
            if !ack {
                self.latest_syn_ns = at.ns;
            }
            fwd.direction.fresh = true;
        } else if ack {
            if self.latest_syn_ns != 0 && self.irtt_ns == 0 {
                self.irtt_ns = at.ns.wrapping_sub(self.latest_syn_ns);
            }
            fwd.direction.fresh = false;
        }
        if segment.options.is_empty() && !syn {
            return;
        }
        // A scale is taken from wherever it is found; without one in a SYN, neither direction is scaled.
        let shift = if syn || segment.options.contains(&3) { segment.parsed_options().window_scale } else { None };
        if let Some(shift) = shift {
            fwd.direction.scale = Scale::Shift(shift);
        }
        if syn {
            if fwd.direction.scale == Scale::Unknown {
                (fwd.direction.scale, rev.direction.scale) = (Scale::None, Scale::None);
            } else if ack && rev.direction.scale == Scale::None {
                fwd.direction.scale = Scale::None;
            }
        }
    }

    /// Our own account of a segment.
    fn observe(&mut self, segment: &Segment<'_>, side: usize, at: Mark, wire: u32, judged: &Judged, next_before: u32) {
        let len = segment.len();
        let again = judged.codes.any(&[Code::Retransmission, Code::FastRetransmission, Code::SpuriousRetransmission]);
        let syn = segment.has(TcpFlags::SYN);
        if syn {
            let options = segment.parsed_options();
            self.ends[side].note_syn(segment, at, &options);
        } else if self.third.is_none()
            && segment.has(TcpFlags::ACK)
            && !segment.has(TcpFlags::RST)
            && self.ends.iter().all(|end| end.syn.is_some())
            && self.ends[side].syn.is_some_and(|syn| !syn.with_ack)
        {
            self.third = Some(at);
        }
        let (fwd, rev) = pair(&mut self.ends, side);
        fwd.packets += 1;
        fwd.bytes += u64::from(wire);
        fwd.data += u64::from(len);
        if segment.has(TcpFlags::PSH) {
            fwd.pushes += 1;
        }
        if again {
            fwd.again = fwd.again.saturating_add(1);
            fwd.data_again += u64::from(len);
            fwd.note_repeat(segment.seq, len, at);
            fwd.recover = Some(fwd.direction.next);
        }
        if !segment.has(TcpFlags::RST) {
            fwd.ttl = Some(segment.ttl);
            // Linux counts for each connection, and begins when it is opened: the SYN,ACK has 0.
            if !syn {
                fwd.ids.note(segment.ip_id);
            }
            // In the place of what was overtaken by the RST nothing new stands.
            if let Some(reset) = fwd.reset
                && len > 0
                && !again
                && !after(reset.seq, segment.seq)
                && at.ns.saturating_sub(reset.at.ns) > OVERTAKEN_NS
            {
                fwd.after_reset.get_or_insert(at.frame);
            }
            if !syn {
                fwd.note_window(segment.window == 0, at);
            }
        }
        if let Some((_, ns)) = judged.acks {
            rev.rtt.add(ns);
        }
        if segment.has(TcpFlags::ACK) {
            if rev.recover.is_some_and(|until| at_most(until, segment.ack)) {
                rev.recover = None;
            }
            if rev.repeats.times > 0 && after(segment.ack, rev.repeats.seq) {
                if rev.worst.seq == rev.repeats.seq {
                    rev.worst.answered = true;
                }
                rev.repeats.times = 0;
            }
            rev.longest_acked = rev.longest_acked.max(judged.acked_len);
        }
        if len == 0 {
            return;
        }
        fwd.data_segments += 1;
        fwd.longest = fwd.longest.max(len);
        let new = next_before == 0 || after(segment.seq.wrapping_add(len), next_before);
        if new && !syn {
            self.delayed_ack(segment, side, at);
            self.take_turns(side, at);
            self.ends[side].last_data = Some(at);
        }
    }

    /// Whether a small write waited until the peer's delayed ACK let it go (RFC 896 against RFC 1122 §4.2.3.2).
    fn delayed_ack(&mut self, segment: &Segment<'_>, side: usize, at: Mark) {
        let (fwd, rev) = pair(&mut self.ends, side);
        let full = fwd.longest.max(500);
        let Some(before) = fwd.last_data else { return };
        let waited = at.ns.saturating_sub(before.ns);
        // The peer's last word was the ACK, just now, and it had said nothing else since this end's last write.
        let since_ack = at.ns.saturating_sub(rev.direction.last_heard_ns());
        let acked = rev.direction.last_ack == segment.seq;
        let quiet = rev.last_data.is_none_or(|mark| mark.ns < before.ns);
        if acked
            && quiet
            && segment.len() <= full
            && DELAYED_NS.contains(&waited)
            && since_ack < 5_000_000
            && fwd.recover.is_none()
            && rev.direction.last_heard_ns().saturating_sub(before.ns) >= DELAYED_NS.start
        {
            fwd.delayed.0 += 1;
            if fwd.delayed.0 == 1 {
                fwd.delayed.1 = at.frame;
            }
            fwd.delayed.2 += waited;
        }
    }

    /// Keeps account of who answers whom, and how soon.
    fn take_turns(&mut self, side: usize, at: Mark) {
        match self.spoke {
            Some((speaker, when)) if speaker != side => {
                self.turns += 1;
                let took = at.ns.saturating_sub(when.ns);
                if side != self.client() && self.slowest.is_none_or(|(_, slowest)| took > slowest) {
                    self.slowest = Some((at.frame, took));
                }
            }
            _ => {}
        }
        self.spoke = Some((side, at));
    }

    /// Charges the time since the last segment to whatever kept each end from sending.
    fn account_for_time(&mut self, now_ns: u64) {
        let span = now_ns.saturating_sub(self.last.ns);
        if span == 0 || span > 1 << 62 {
            return;
        }
        for side in 0..2 {
            let (fwd, rev) = pair(&mut self.ends, side);
            if fwd.data == 0 || fwd.fin.is_some() || fwd.reset.is_some() || rev.reset.is_some() {
                continue;
            }
            let flight = fwd.direction.in_flight(&rev.direction);
            let window = rev.direction.scaled_window();
            let limits = &mut fwd.limits;
            if fwd.recover.is_some() {
                limits.loss_ns += span;
            } else if window.is_some_and(|window| window.saturating_sub(flight) < fwd.longest.clamp(1, 1460)) {
                limits.receiver_ns += span;
            } else if flight == 0 {
                limits.sender_ns += span;
            } else {
                limits.network_ns += span;
            }
        }
    }

    fn moves(&self, segment: &Segment<'_>, side: usize) -> Moves {
        let (sender, receiver) = (&self.ends[side], &self.ends[1 - side]);
        let acks = |number: u32| segment.has(TcpFlags::ACK) && at_most(number, segment.ack);
        let acks_syn = receiver.syn.is_none_or(|syn| acks(syn.seq.wrapping_add(1)));
        let acks_fin = receiver.fin.is_some_and(|(_, end)| acks(end));
        // RFC 9293 §3.5.3: a RST must lie in the window, or acknowledge the SYN it answers.
        let edge = receiver.direction.last_ack;
        let window = receiver.direction.scaled_window().unwrap_or(u32::MAX).max(1);
        let reset_counts = if receiver.state == State::SynSent && sender.state == State::Unknown {
            segment.has(TcpFlags::ACK) && acks_syn
        } else {
            edge == 0 || segment.seq.wrapping_sub(edge) < window || at_most(segment.seq, edge) && segment.seq == edge
        };
        Moves { flags: segment.flags, acks_syn, acks_fin, reset_counts }
    }

    fn note_reset(&mut self, segment: &Segment<'_>, side: usize, at: Mark) {
        let speaks_next = self.spoke.map(|(speaker, _)| 1 - speaker);
        let client = self.client();
        let (fwd, rev) = pair(&mut self.ends, side);
        if let Some(reset) = &mut fwd.reset {
            reset.sent += 1;
            return;
        }
        let refuses =
            fwd.syn.is_none() && fwd.data == 0 && rev.syn.is_some_and(|syn| !syn.with_ack) && fwd.packets == 1;
        let in_flight = fwd.direction.in_flight(&rev.direction) > 0 || rev.direction.in_flight(&fwd.direction) > 0;
        // A request waits for its answer, or an answer is not yet all there; after the peer's FIN it is only rude.
        let unanswered = speaks_next.is_some_and(|next| next != client);
        let cuts = !refuses && fwd.syn.is_some() && rev.fin.is_none() && (unanswered || in_flight);
        fwd.reset = Some(Reset {
            at,
            seq: segment.seq,
            with_ack: segment.has(TcpFlags::ACK),
            ttl: segment.ttl,
            ip_id: segment.ip_id,
            sent: 1,
            refuses,
            cuts,
            usual_ttl: fwd.ttl,
            usual_id: fwd.ids.last,
        });
    }

    /// Takes in an ICMP error about a segment of this connection.
    pub(super) fn absorb_error(&mut self, error: &IcmpError<'_>, at: Mark) {
        let side = self.side_of(error.about.src, error.about.sport);
        if self.icmp.len() < 64 {
            self.icmp.push(IcmpNote {
                at,
                from: error.from,
                v6: error.v6,
                kind: error.kind,
                code: error.code,
                mtu: error.mtu,
                side,
            });
        }
        self.note(Code::IcmpError, at.frame, side, 0);
        if error.complete && error.about.header_len >= 20 && !error.about.cut {
            // Wireshark reads the quoted header as if it had passed here.
            self.complete(&error.about, false, false);
            self.after_header(&error.about, side, at);
        }
        self.last = at;
    }

    fn keep_step(&mut self, segment: &Segment<'_>, side: usize, at: Mark, judged: &Judged) {
        if self.keep.steps == 0 {
            return;
        }
        if self.steps.len() >= self.keep.steps {
            self.steps_left += 1;
            return;
        }
        let options = segment.parsed_options();
        let most = self.keep.data.min(self.keep.octets).min(segment.len() as usize);
        let data = &segment.data[..segment.data.len().min(most)];
        self.keep.octets -= data.len();
        let direction = &self.ends[side].direction;
        let window = if segment.has(TcpFlags::SYN) {
            segment.window.into()
        } else {
            direction.scale.apply(segment.window.into())
        };
        self.steps.push(Step {
            at,
            side,
            flags: segment.flags,
            seq: segment.seq,
            ack: segment.ack,
            len: segment.len(),
            window,
            codes: judged.codes,
            states: [self.ends[0].state, self.ends[1].state],
            data: data.to_vec(),
            options: super::words::options(&options),
            acks: judged.acks,
            in_flight: direction.in_flight(&self.ends[1 - side].direction),
            sack: options.sack,
            ttl: segment.ttl,
            ip_id: segment.ip_id,
            raw_window: segment.window,
        });
    }

    /// Closes the books: what was still going on when the capture ended.
    pub(super) fn finish(&mut self) {
        let last = self.last;
        for end in &mut self.ends {
            if let Some(since) = end.closed_since.take() {
                end.add_closed(since, last.ns);
            }
        }
    }

    /// The handshake's whole round-trip time, nanoseconds: from the SYN that was answered to the ACK.
    pub fn handshake_ns(&self) -> Option<u64> {
        let client = self.client();
        let (syn, answer) = (self.ends[client].syn?, self.ends[1 - client].syn?);
        let asked = if syn.last.ns <= answer.at.ns { syn.last.ns } else { syn.at.ns };
        self.third?.ns.checked_sub(asked)
    }
}

/// Both ends, the sender first.
pub(super) fn pair(ends: &mut [End; 2], side: usize) -> (&mut End, &mut End) {
    let [a, b] = ends;
    if side == 0 { (a, b) } else { (b, a) }
}

/// Whether no TCP sends such a set: it comes from a scanner, or from damage.
pub fn is_illegal(flags: TcpFlags) -> bool {
    let has = |flag: TcpFlags| flags.contains(flag);
    let (syn, fin, rst, ack) = (has(TcpFlags::SYN), has(TcpFlags::FIN), has(TcpFlags::RST), has(TcpFlags::ACK));
    // RFC 9293 §3.10.7: after the handshake every segment has ACK; SYN goes with neither FIN nor RST.
    (syn && (fin || rst)) || (fin && rst) || !(syn || rst || ack)
}

/// Whether `port` belongs to a service rather than to the one who asks it.
pub(super) fn looks_like_server(port: u16, other: u16) -> bool {
    match (port < 1024, other < 1024) {
        (true, false) => true,
        (false, true) => false,
        _ => port < 32_768 && other >= 32_768,
    }
}
