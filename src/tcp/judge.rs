//! What became of a connection: findings that no single segment shows, and the verdict in a sentence.

use super::code::Code;
use super::connection::{Closing, Connection, IcmpNote, Noted};
use super::end::{End, Reset};
use super::report::{Close, CloseBy, CloseKind, Finding};
use super::words::{count, octets, span};
use crate::wire::{IcmpFamily, code_name, type_name};
use std::fmt::Write as _;

/// A closed window that stalls nothing is none: shorter spans are left alone, nanoseconds.
const STALL_NS: u64 = 200_000_000;
/// As often in a row a segment is sent again before it is called a storm.
const STORM: u32 = 4;
/// Hops by which a RST may differ from its alleged sender's other packets: routes do change.
const SAME_PATH: u8 = 1;
/// An answer that takes longer is called slow, nanoseconds.
const SLOW_NS: u64 = 1_000_000_000;

fn found(code: Code, frame: u64, message: String) -> Finding {
    Finding { code, frame, message, severity: code.severity() }
}

/// The findings about the connection as a whole.
pub(super) fn findings(connection: &Connection) -> Vec<Finding> {
    let client = connection.client();
    let (c, s) = (&connection.ends[client], &connection.ends[1 - client]);
    let mut all = Vec::new();
    opening(connection, c, s, &mut all);
    for (end, who) in [(c, "client"), (s, "server")] {
        if let Some(reset) = end.reset {
            resets(connection, end, who, reset, &mut all);
        }
    }
    silence(connection, c, s, &mut all);
    for (end, peer, who, other) in [(c, s, "client", "server"), (s, c, "server", "client")] {
        stalls(end, peer, who, other, &mut all);
    }
    if let Some((frame, ns)) = connection.slowest.filter(|(_, ns)| *ns >= SLOW_NS) {
        let message =
            format!("the server took {} from the end of the request to the first octet of its answer", span(ns));
        all.push(found(Code::ResponseSlow, frame, message));
    }
    all
}

fn opening(connection: &Connection, c: &End, s: &End, all: &mut Vec<Finding>) {
    let Some(syn) = c.syn else { return };
    if syn.with_ack && s.syn.is_none() {
        // Only the answer was captured.
        return;
    }
    if s.syn.is_some_and(|other| !other.with_ack) || (s.syn.is_some() && both_opened(connection)) {
        all.push(found(
            Code::SimultaneousOpen,
            s.syn.map_or(syn.at.frame, |other| other.at.frame),
            "both ends sent a SYN before they saw the other's".to_owned(),
        ));
    }
    if s.packets == 0 {
        let waited = connection.last.ns.saturating_sub(syn.at.ns);
        let tries = count(syn.sent.into(), "SYN");
        let message = if connection.icmp.is_empty() {
            format!(
                "{tries} in {}, no answer at all: dropped on the way there, or the answer on the way back",
                span(waited)
            )
        } else {
            format!("{tries}, answered by an ICMP error and not by {}", s.address)
        };
        if c.reset.is_none() {
            all.push(found(Code::SynUnanswered, syn.at.frame, message));
        }
        return;
    }
    if let Some(reset) = s.reset.filter(|reset| reset.refuses && s.syn.is_none()) {
        let message = format!(
            "refused after {}: nothing listens on port {}, or a firewall answers with RST",
            span(reset.at.ns.saturating_sub(syn.last.ns)),
            s.address.port()
        );
        all.push(found(Code::SynRefused, reset.at.frame, message));
        return;
    }
    match s.syn {
        // RFC 9293 §3.5.1: an old connection is still there on one side, and answers with a challenge ACK.
        None if s.data == 0 && s.fin.is_none() && s.reset.is_none() => all.push(found(
            Code::HalfOpen,
            connection.last.frame,
            "the SYN was answered with an ACK and no SYN: the server still has an older connection of these ports"
                .to_owned(),
        )),
        Some(answer) if answer.with_ack && connection.third.is_none() && c.data == 0 && c.reset.is_none() => {
            let message = format!(
                "the server answered with SYN-ACK {}, the client never completed the handshake",
                if answer.sent == 1 { "once".to_owned() } else { format!("{} times", answer.sent) }
            );
            all.push(found(Code::HalfOpen, answer.at.frame, message));
        }
        Some(answer) if answer.scale.is_some() && syn.scale.is_none() && answer.with_ack => {
            let message = "the SYN-ACK has a window scale that the SYN did not offer: something changed one of them";
            all.push(found(Code::OptionsStripped, answer.at.frame, message.to_owned()));
        }
        _ => {}
    }
}

/// Whether each end sent a SYN without ACK at some time.
fn both_opened(connection: &Connection) -> bool {
    let history = connection.zeek.history();
    history.contains('S') && history.contains('s')
}

fn resets(connection: &Connection, end: &End, who: &str, reset: Reset, all: &mut Vec<Finding>) {
    // What came before it tells most; where it came first, what came after.
    let usual = reset.usual_ttl.or(end.ttl).filter(|usual| usual.abs_diff(reset.ttl) > SAME_PATH);
    // Who refuses a SYN does not accept it afterwards.
    let accepted = end.syn.filter(|syn| reset.refuses && syn.at.frame > reset.at.frame);
    let strange_id = reset.ip_id.zip(reset.usual_id).filter(|(id, usual)| end.ids.is_stranger(*id, *usual));
    let went_on = end.after_reset.filter(|_| accepted.is_none());
    if usual.is_some() || accepted.is_some() || strange_id.is_some() || went_on.is_some() {
        let mut signs = Vec::new();
        if let Some(usual) = usual {
            signs.push(format!("it came with TTL {}, the {who}'s other packets with {usual}", reset.ttl));
        }
        if let Some(syn) = accepted {
            signs.push(format!("the {who} accepted the connection after it (frame {})", syn.at.frame));
        }
        if let Some((id, usual)) = strange_id {
            signs.push(format!(
                "its IP identification is {id}, where the {who}'s own packets count up and the one before had {usual}"
            ));
        }
        if let Some(frame) = went_on {
            signs.push(format!("the {who} went on sending after it (frame {frame})"));
        }
        let message = format!("this RST was sent by something between, in the {who}'s name: {}", signs.join(", and "));
        all.push(found(Code::ResetByOtherHop, reset.at.frame, message));
        return;
    }
    let strangers = !connection.opening_seen() && end.syn.is_none() && end.data == 0 && end.fin.is_none();
    if strangers && end.packets <= u64::from(reset.sent) {
        let message = format!("the {who} answered with RST: it does not know this connection (any more)");
        all.push(found(Code::HalfOpen, reset.at.frame, message));
    } else if reset.cuts && !reset.refuses {
        let message = format!("the {who} reset the connection while an exchange was under way");
        all.push(found(Code::ResetMidTransfer, reset.at.frame, message));
    }
}

fn silence(connection: &Connection, c: &End, s: &End, all: &mut Vec<Finding>) {
    if !connection.is_opened() {
        return;
    }
    let over = connection.is_over() || c.reset.is_some() || s.reset.is_some();
    // What the numbers say was sent may have been missed by the capture.
    let missed = s.stream_length().is_some_and(|length| length > 0)
        || s.syn.is_some_and(|syn| super::seq::after(c.direction.last_ack, syn.seq.wrapping_add(2)));
    if let Some(asked) = c.last_data.filter(|_| s.data == 0 && !missed) {
        let acked =
            !super::seq::before(s.direction.last_ack, c.direction.next.wrapping_sub(u32::from(c.fin.is_some())));
        // Until somebody gave up, or the capture ends: what a capture cuts short is no silence.
        let given_up = [c.fin.map(|(at, _)| at), s.fin.map(|(at, _)| at), c.reset.map(|reset| reset.at)];
        let until = given_up.into_iter().flatten().map(|at| at.ns).min().unwrap_or(connection.last.ns);
        let waited = until.saturating_sub(asked.ns);
        if acked && waited >= SLOW_NS && s.reset.is_none_or(|reset| !reset.cuts) {
            let (data, waited) = (octets(c.data), span(waited));
            let message = format!("the server took the request ({data}) and sent no answer in {waited}");
            all.push(found(Code::ServerSilent, asked.frame, message));
        }
    }
    if !over && c.fin.is_none() && s.fin.is_none() {
        let message = "no FIN and no RST until the capture ends".to_owned();
        all.push(found(Code::NotClosed, connection.last.frame, message));
    } else if !over && (c.fin.is_none() || s.fin.is_none()) {
        let (left, done) = if c.fin.is_none() { ("client", "server") } else { ("server", "client") };
        let message = format!("the {done} closed its direction, the {left} did not until the capture ends");
        all.push(found(Code::NotClosed, connection.last.frame, message));
    }
}

fn stalls(end: &End, peer: &End, who: &str, other: &str, all: &mut Vec<Finding>) {
    if let Some((frame, ns)) = end.closed_longest.filter(|(_, ns)| *ns >= STALL_NS && peer.data > 0) {
        let message = format!(
            "the {who} kept its window closed for {} ({} in all): its application does not read, and the {other} must wait",
            span(ns),
            span(end.closed_ns)
        );
        all.push(found(Code::WindowStall, frame, message));
    }
    let worst = end.worst;
    if worst.times >= STORM {
        let what = if worst.len == 0 { "segment".to_owned() } else { format!("{} octets", worst.len) };
        let end_of_it = if worst.answered { "then answered" } else { "never answered" };
        let message = format!("the {who} sent the same {what} again {} times, {end_of_it}", worst.times);
        all.push(found(Code::RetransmissionStorm, worst.first, message));
    }
    // Full segments are lost time and again, smaller ones of the same flow arrived: RFC 2923 §2.1.
    let mss = peer.syn.and_then(|syn| syn.mss).map_or(1200, u32::from);
    let full = worst.len >= 536 && worst.len + 100 >= mss.min(end.longest);
    let small_passed = end.longest_acked > 0 || end.data == 0 || end.rtt.count > 0;
    if worst.times >= 2 && full && !worst.answered && end.longest_acked < worst.len && small_passed {
        let message = format!(
            "segments of {} octets are never acknowledged, smaller ones are, and no ICMP message tells of a smaller MTU",
            worst.len
        );
        all.push(found(Code::MtuBlackHole, worst.first, message));
    }
    let (times, frame, ns) = end.delayed;
    if times >= 2 {
        let message = format!(
            "{times} times a small write of the {who} waited for the {other}'s delayed ACK, {} in all: Nagle's algorithm \
             against delayed ACK; TCP_NODELAY, or one write in place of several, avoids it",
            span(ns)
        );
        all.push(found(Code::DelayedAckStall, frame, message));
    }
}

/// A finding of one segment in words.
pub(super) fn message(connection: &Connection, noted: &Noted, who: &str) -> String {
    let len = noted.detail;
    match noted.code {
        Code::Retransmission if noted.detail > 0 => {
            format!("the {who} sends it again after {} ms without an acknowledgement", noted.detail)
        }
        Code::Retransmission => format!("the {who} sends it again"),
        Code::FastRetransmission => format!("the {who} sends {len} octets again, as duplicate ACKs asked for"),
        Code::SpuriousRetransmission => format!("the {who} sends {len} octets again that were already acknowledged"),
        Code::OutOfOrder => format!("the {who}'s segment comes after a later one"),
        Code::DuplicateAck => format!("duplicate ACK number {} of the {who}", noted.detail),
        Code::LostSegment => format!("segments of the {who} before this one were not captured"),
        Code::AckLostSegment => format!("the {who} acknowledges what was not captured"),
        Code::ZeroWindow => format!("the {who} closes its window"),
        Code::ZeroWindowProbe => format!("the {who} asks whether the window is open again"),
        Code::ZeroWindowProbeAck => format!("the {who} answers a probe: the window is still closed"),
        Code::WindowUpdate => format!("the {who} tells of a new window"),
        Code::WindowFull => format!("the {who} has filled its peer's window"),
        Code::KeepAlive => format!("keep-alive of the {who}"),
        Code::KeepAliveAck => format!("the {who} answers a keep-alive"),
        Code::TfoSyn => format!("the {who}'s SYN has a Fast Open cookie"),
        Code::TfoAck => format!("the {who} takes the data that came with the SYN"),
        Code::TfoIgnored => format!("the {who} does not take the data that came with the SYN"),
        Code::PortReused => "the same addresses and ports as an earlier connection".to_owned(),
        Code::IllegalFlags => format!("a set of flags that no TCP sends, from the {who}"),
        Code::Malformed => "a TCP header that contradicts itself".to_owned(),
        Code::IcmpError => connection.icmp.iter().find(|note| note.at.frame == noted.frame).map_or_else(
            || "an ICMP error about it".to_owned(),
            |note| format!("{} says: {}", note.from, icmp_words(note)),
        ),
        other => other.meaning().to_owned(),
    }
}

/// An ICMP error in words.
pub(super) fn icmp_words(note: &IcmpNote) -> String {
    let family = if note.v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
    let mut text = match code_name(family, note.kind, note.code) {
        Some(code) => code.to_owned(),
        None => format!("{}, code {}", type_name(family, note.kind), note.code),
    };
    if let Some(mtu) = note.mtu {
        let _ = write!(text, " (MTU {mtu})");
    }
    text
}

/// What kept a long transfer of `end` from being faster, with the time it cost.
fn limited(end: &End, who: &str, peer: &str) -> Option<String> {
    /// Less than this is no transfer, octets and nanoseconds.
    const LEAST: (u64, u64) = (100_000, 500_000_000);
    let limits = end.limits;
    let busy = limits.receiver_ns + limits.loss_ns + limits.network_ns;
    if end.data < LEAST.0 || busy + limits.sender_ns < LEAST.1 {
        return None;
    }
    let parts = [
        (limits.sender_ns, format!("by the {who} itself, which had nothing to send")),
        (limits.receiver_ns, format!("by the {peer}'s window")),
        (limits.loss_ns, "by losses".to_owned()),
        (limits.network_ns, "by the round trip and what the congestion window allows".to_owned()),
    ];
    let (most, words) = parts.into_iter().max_by_key(|(ns, _)| *ns)?;
    Some(format!(
        "What the {who} sent was limited mostly {words}: {} of {}.",
        span(most),
        span(busy + limits.sender_ns)
    ))
}

/// The whole in a sentence.
pub(super) fn verdict(connection: &Connection, client: usize, close: &Close, findings: &[Finding]) -> String {
    let (c, s) = (&connection.ends[client], &connection.ends[1 - client]);
    let first = |code: Code| findings.iter().find(|finding| finding.code == code);
    let lasted = span(connection.last.ns.saturating_sub(connection.first.ns));
    if let Some(unanswered) = first(Code::SynUnanswered) {
        let icmp = connection.icmp.first().map(|note| format!("; {} says: {}", note.from, icmp_words(note)));
        return format!("Not opened: {}{}.", unanswered.message, icmp.unwrap_or_default());
    }
    if let Some(refused) = first(Code::SynRefused) {
        return format!("Not opened: {}.", refused.message);
    }
    if let Some(odd) = first(Code::IllegalFlags).filter(|_| !connection.opening_seen() && c.data + s.data == 0) {
        return format!("No connection: {}; a scan.", odd.message);
    }
    if let Some(half) = first(Code::HalfOpen) {
        return format!("Half-open: {}.", half.message);
    }
    let opened = if !connection.opening_seen() {
        "Begun before the capture".to_owned()
    } else if connection.is_opened() {
        let rtt = connection.handshake_ns().map(|ns| format!(" in {}", span(ns))).unwrap_or_default();
        format!("Opened by {}{rtt}", c.address.ip())
    } else {
        "Opening was not completed".to_owned()
    };
    let said = if c.data + s.data == 0 {
        "no data".to_owned()
    } else {
        format!("{} up, {} down", octets(c.data), octets(s.data))
    };
    let who = |by: Option<CloseBy>| if by == Some(CloseBy::Client) { "client" } else { "server" };
    let ended = match (close.kind, close.how) {
        (CloseKind::Rst, _) => format!("reset by the {}", who(close.by)),
        (CloseKind::Fin, Some(Closing::Simultaneous)) => "both closed at once".to_owned(),
        (CloseKind::Fin, Some(how)) => {
            let steps = match how {
                Closing::FourWay => " in four steps",
                Closing::ThreeWay => " in three steps",
                Closing::HalfClosed => ", the other end still had something to say",
                Closing::Simultaneous => "",
            };
            format!("closed by the {}{steps}", who(close.by))
        }
        (CloseKind::Fin, None) => format!("half closed by the {}", who(close.by)),
        (CloseKind::None, _) => "still open".to_owned(),
    };
    let mut text = format!("{opened}; {said}; {ended} after {lasted}.");
    let grave = [
        Code::ResetByOtherHop,
        Code::MtuBlackHole,
        Code::ServerSilent,
        Code::ResetMidTransfer,
        Code::RetransmissionStorm,
        Code::WindowStall,
        Code::DelayedAckStall,
        Code::IcmpError,
        Code::OptionsStripped,
        Code::ResponseSlow,
    ];
    if let Some(worst) = grave.iter().find_map(|code| first(*code)) {
        let mut letters = worst.message.chars();
        let message: String =
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default();
        let _ = write!(text, " {message}.");
    }
    for (end, who, peer) in [(c, "client", "server"), (s, "server", "client")] {
        if let Some(what) = limited(end, who, peer) {
            let _ = write!(text, " {what}");
        }
    }
    let again = u64::from(c.again) + u64::from(s.again);
    let segments = c.data_segments + s.data_segments;
    if again > 0 && first(Code::MtuBlackHole).is_none() && first(Code::RetransmissionStorm).is_none() {
        let _ = write!(text, " {} of {segments} sent again.", count(again, "segment"));
    }
    text
}
