//! What is said of a connection: the contract of `tcp read --json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::code::{Code, Severity};
use super::connection::{Closing, Connection, IcmpNote, Noted};
use super::end::{End, Syn};
use super::state::State;
use super::{judge, words, zeek};

/// One connection.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionReport {
    /// Its number in order of appearance, from 0: Wireshark's `tcp.stream`.
    pub stream: u64,
    /// Who opened it, as far as is known: `ADDRESS:PORT`.
    pub client: String,
    /// The other end.
    pub server: String,
    /// `unanswered`, `refused`, `opening`, `established`, `half-closed`, `closing`, `closed`, `reset`, or `unknown`.
    pub state: &'static str,
    /// The state machine of each end (RFC 9293).
    pub states: Pair<State>,
    /// How it was opened.
    pub handshake: Handshake,
    /// How it ended.
    pub close: Close,
    /// Packets of both ends.
    pub packets: u64,
    /// Their octets on the wire.
    pub bytes: u64,
    /// What went wrong, in order of frames.
    pub findings: Vec<Finding>,
    /// Findings that were counted and not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub findings_left_off: u64,
    /// How often each code was found.
    pub counts: BTreeMap<&'static str, u32>,
    /// What became of it, in a sentence.
    pub verdict: String,
    /// The worst that was found.
    pub severity: Option<Severity>,
    /// Zeek's words for it.
    pub zeek: ZeekReport,
    /// Wireshark's `tcp.completeness`.
    pub completeness: u8,
    /// What the client sent.
    pub from_client: FlowReport,
    /// What the server sent.
    pub from_server: FlowReport,
    /// Its first frame.
    pub first_frame: u64,
    /// Its last frame.
    pub last_frame: u64,
    /// Seconds since 1970 at its first frame.
    pub started: f64,
    /// From its first frame to its last, milliseconds.
    pub duration_ms: f64,
    /// The slowest answer of the server: from the end of a request to the first octet of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_answer: Option<SlowAnswer>,
    /// ICMP errors about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icmp: Vec<IcmpReport>,
    /// The capture was damaged, or memory ran short, before it was over.
    #[serde(skip_serializing_if = "is_false")]
    pub partial: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One of each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pair<T> {
    /// The client's.
    pub client: T,
    /// The server's.
    pub server: T,
}

/// The opening: frames, and the round trip split at the point of capture.
#[derive(Debug, Clone, Serialize)]
pub struct Handshake {
    /// The frame of the SYN.
    pub syn: Option<u64>,
    /// The frame of the SYN-ACK.
    pub syn_ack: Option<u64>,
    /// The frame of the ACK that completes it.
    pub ack: Option<u64>,
    /// The whole round trip: SYN to ACK.
    pub rtt_ms: Option<f64>,
    /// SYN to SYN-ACK: from the point of capture to the server and back.
    pub server_side_ms: Option<f64>,
    /// SYN-ACK to ACK: from the point of capture to the client and back.
    pub client_side_ms: Option<f64>,
    /// What the client offered.
    pub client_options: Option<OptionsReport>,
    /// What the server offered.
    pub server_options: Option<OptionsReport>,
    /// How often the SYN was sent.
    pub syns: u32,
}

/// What a SYN offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OptionsReport {
    /// Largest segment, octets.
    pub mss: Option<u16>,
    /// Window scale, shift count.
    pub window_scale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
    /// First window, octets.
    pub window: u16,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CloseBy {
    /// The end that opened.
    Client,
    /// The other.
    Server,
}

/// With what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CloseKind {
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// Nothing: the capture ends before.
    None,
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Close {
    /// Who was first.
    pub by: Option<CloseBy>,
    /// With what.
    pub kind: CloseKind,
    /// How the two FINs met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<Closing>,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// The frame that shows it.
    pub frame: u64,
    /// In words.
    pub message: String,
    /// How grave.
    pub severity: Severity,
}

/// What one end sent.
#[derive(Debug, Clone, Serialize)]
pub struct FlowReport {
    /// Packets.
    pub packets: u64,
    /// Octets on the wire.
    pub bytes: u64,
    /// Octets of data, repetitions included.
    pub data: u64,
    /// Octets of data that were sent more than once.
    pub data_again: u64,
    /// Segments sent again.
    pub retransmissions: u32,
    /// Segments with data.
    pub data_segments: u64,
    /// The longest segment.
    pub longest_segment: u32,
    /// Round trips seen by the acknowledgements of this data: least, mean, most.
    pub rtt_ms: Option<[f64; 3]>,
    /// Its window was closed for so long in all.
    pub zero_window_ms: f64,
    /// What kept it from sending faster.
    pub limited: LimitReport,
    /// TTL or hop limit as captured.
    pub ttl: Option<u8>,
}

/// What kept an end from sending faster, milliseconds of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LimitReport {
    /// Its application had nothing to send.
    pub sender_ms: f64,
    /// The receiver's window was full.
    pub receiver_ms: f64,
    /// Losses were repaired.
    pub loss_ms: f64,
    /// Acknowledgements were on their way.
    pub network_ms: f64,
}

/// Zeek's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ZeekReport {
    /// `conn_state`.
    pub state: &'static str,
    /// `history`.
    pub history: String,
    /// What the state means.
    pub meaning: &'static str,
}

/// The slowest answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SlowAnswer {
    /// Its first frame.
    pub frame: u64,
    /// How long it took to come.
    pub ms: f64,
}

/// An ICMP error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IcmpReport {
    /// Where.
    pub frame: u64,
    /// Who said it.
    pub from: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// In words.
    pub says: String,
    /// The MTU it tells of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl ConnectionReport {
    /// Judges a connection that is over, or of which nothing more is to come.
    pub fn new(connection: &Connection) -> Self {
        let client = connection.client();
        let (c, s) = (&connection.ends[client], &connection.ends[1 - client]);
        let own = judge::findings(connection);
        let mut findings: Vec<Finding> =
            connection.noted.iter().map(|noted| finding(connection, noted, client)).chain(own).collect();
        findings.sort_by_key(|finding| finding.frame);
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for code in Code::ALL {
            let noted = connection.count(*code);
            let judged = findings.iter().filter(|finding| finding.code == *code).count();
            let count = noted.max(u32::try_from(judged).unwrap_or(u32::MAX));
            if count > 0 {
                counts.insert(code.name(), count);
            }
        }
        let close = close(connection, client);
        Self {
            stream: connection.stream,
            client: c.address.to_string(),
            server: s.address.to_string(),
            state: overall(connection, client),
            states: Pair { client: c.state, server: s.state },
            handshake: handshake(connection, client),
            close,
            packets: c.packets + s.packets,
            bytes: c.bytes + s.bytes,
            severity: findings.iter().map(|finding| finding.severity).max(),
            verdict: judge::verdict(connection, client, &close, &findings),
            findings,
            findings_left_off: connection.not_noted,
            counts,
            zeek: ZeekReport {
                state: connection.zeek.conn_state(),
                history: connection.zeek.history().to_owned(),
                meaning: zeek::meaning(connection.zeek.conn_state()),
            },
            completeness: connection.completeness,
            from_client: flow(c, s),
            from_server: flow(s, c),
            first_frame: connection.first.frame,
            last_frame: connection.last.frame,
            started: words::ms(connection.first.ns) / 1000.0,
            duration_ms: words::ms(connection.last.ns.saturating_sub(connection.first.ns)),
            slowest_answer: connection.slowest.map(|(frame, ns)| SlowAnswer { frame, ms: words::ms(ns) }),
            icmp: connection.icmp.iter().map(icmp).collect(),
            partial: connection.partial,
        }
    }

    /// Adds what only many connections together show.
    pub fn add(&mut self, finding: Finding) {
        *self.counts.entry(finding.code.name()).or_default() += 1;
        self.severity = self.severity.max(Some(finding.severity));
        let _ = write!(self.verdict, " Part of more: {}.", finding.message);
        self.findings.push(finding);
        self.findings.sort_by_key(|finding| finding.frame);
    }

    /// Whether something went wrong that a user should know of.
    pub fn has_problem(&self) -> bool {
        self.severity.is_some_and(|severity| severity >= Severity::Warn)
    }
}

fn overall(connection: &Connection, client: usize) -> &'static str {
    let (c, s) = (&connection.ends[client], &connection.ends[1 - client]);
    if s.syn.is_none() && s.reset.is_some_and(|reset| reset.refuses) {
        return "refused";
    }
    if s.packets == 0 && c.syn.is_some() {
        return "unanswered";
    }
    let resets = [c, s].iter().any(|end| end.reset.is_some());
    if resets && !(c.fin.is_some() && s.fin.is_some()) {
        return "reset";
    }
    match (c.fin.is_some(), s.fin.is_some()) {
        (true, true) if connection.is_over() => "closed",
        (true, true) => "closing",
        (true, false) | (false, true) => "half-closed",
        _ if connection.opening_seen() && !connection.is_opened() => "opening",
        _ if c.state == State::Unknown && s.state == State::Unknown => "unknown",
        _ => "established",
    }
}

fn options(syn: Option<Syn>) -> Option<OptionsReport> {
    syn.map(|syn| OptionsReport {
        mss: syn.mss,
        window_scale: syn.scale,
        sack: syn.sack,
        timestamps: syn.timestamps,
        window: syn.window,
    })
}

fn handshake(connection: &Connection, client: usize) -> Handshake {
    let (c, s) = (connection.ends[client].syn, connection.ends[1 - client].syn);
    let syn = c.filter(|syn| !syn.with_ack || s.is_some_and(|other| !other.with_ack));
    let third = connection.third;
    let span = |from: Option<u64>, to: Option<u64>| Some(words::ms(to?.checked_sub(from?)?));
    // From the last SYN before the answer: earlier ones were lost, and their waiting is no round trip.
    let asked =
        syn.map(|syn| if s.is_some_and(|answer| syn.last.ns <= answer.at.ns) { syn.last.ns } else { syn.at.ns });
    Handshake {
        syn: syn.map(|syn| syn.at.frame),
        syn_ack: s.map(|syn| syn.at.frame),
        ack: third.map(|mark| mark.frame),
        rtt_ms: span(asked, third.map(|mark| mark.ns)),
        server_side_ms: span(asked, s.map(|syn| syn.at.ns)),
        client_side_ms: span(s.map(|syn| syn.last.ns), third.map(|mark| mark.ns)),
        client_options: options(c),
        server_options: options(s),
        syns: c.map_or(0, |syn| syn.sent),
    }
}

fn close(connection: &Connection, client: usize) -> Close {
    let by = |side: usize| if side == client { CloseBy::Client } else { CloseBy::Server };
    let first = |marks: [Option<u64>; 2]| {
        let found = marks.iter().enumerate().filter_map(|(side, frame)| frame.map(|frame| (frame, side)));
        found.min()
    };
    let ends = &connection.ends;
    let fin = first([0, 1].map(|side| ends[side].fin.map(|(mark, _)| mark.frame)));
    let rst = first([0, 1].map(|side| ends[side].reset.map(|reset| reset.at.frame)));
    match (fin, rst) {
        // A RST after both FINs changes nothing any more.
        (Some((frame, side)), rst) if rst.is_none() || connection.closing.is_some() => {
            Close { by: Some(by(side)), kind: CloseKind::Fin, how: connection.closing, frame: Some(frame) }
        }
        (_, Some((frame, side))) => Close { by: Some(by(side)), kind: CloseKind::Rst, how: None, frame: Some(frame) },
        _ => Close { by: None, kind: CloseKind::None, how: None, frame: None },
    }
}

fn flow(end: &End, peer: &End) -> FlowReport {
    FlowReport {
        packets: end.packets,
        bytes: end.bytes,
        data: end.data,
        data_again: end.data_again,
        retransmissions: end.again,
        data_segments: end.data_segments,
        longest_segment: end.longest,
        rtt_ms: end.rtt.mean_ns().map(|mean| [words::ms(end.rtt.min_ns), words::ms(mean), words::ms(end.rtt.max_ns)]),
        zero_window_ms: words::ms(end.closed_ns),
        limited: LimitReport {
            sender_ms: words::ms(end.limits.sender_ns),
            receiver_ms: words::ms(end.limits.receiver_ns),
            loss_ms: words::ms(end.limits.loss_ns),
            network_ms: words::ms(end.limits.network_ns),
        },
        ttl: end.ttl.or(peer.reset.and(end.reset.map(|reset| reset.ttl))),
    }
}

fn icmp(note: &IcmpNote) -> IcmpReport {
    IcmpReport {
        frame: note.at.frame,
        from: note.from.to_string(),
        kind: note.kind,
        code: note.code,
        says: judge::icmp_words(note),
        mtu: note.mtu,
    }
}

fn finding(connection: &Connection, noted: &Noted, client: usize) -> Finding {
    let who = if usize::from(noted.side) == client { "client" } else { "server" };
    let message = judge::message(connection, noted, who);
    Finding { code: noted.code, frame: noted.frame, message, severity: noted.code.severity() }
}
