//! TCP taught on a connection's own packets.

use super::code::Code;
use super::connection::{Closing, Connection, Step};
use super::report::ConnectionReport;
use super::words::{count, octets, span};
use crate::wire::TcpFlags;

/// A lesson: a heading and what there is to say.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Lesson {
    /// What it is about.
    pub title: &'static str,
    /// Paragraphs.
    pub text: Vec<String>,
}

/// What each flag says (RFC 9293 §3.1, RFC 3168 §6.1).
pub const FLAGS: [(TcpFlags, &str, &str); 8] = [
    (
        TcpFlags::SYN,
        "SYN",
        "synchronise: here is my first sequence number. It takes one number itself, so that it can be acknowledged.",
    ),
    (
        TcpFlags::ACK,
        "ACK",
        "the acknowledgement number counts: I have everything before it. Set on every segment after the first SYN.",
    ),
    (TcpFlags::FIN, "FIN", "I have nothing more to send. It takes one number; the other direction stays open."),
    (
        TcpFlags::RST,
        "RST",
        "abort: there is no such connection here, or there shall be none any more. Nothing answers it.",
    ),
    (
        TcpFlags::PSH,
        "PSH",
        "hand what you have to the application now. It marks where a write ended, not where a message does.",
    ),
    (TcpFlags::URG, "URG", "the urgent pointer counts. Hardly used; middleboxes often clear it."),
    (TcpFlags::ECE, "ECE", "on a SYN: I speak ECN. Later: a router marked a packet of yours, slow down."),
    (TcpFlags::CWR, "CWR", "I heard your ECE and reduced my congestion window."),
];

/// The lessons that this connection can give; its segments must have been kept.
pub fn lessons(connection: &Connection, report: &ConnectionReport) -> Vec<Lesson> {
    let mut all = vec![Lesson {
        title: "TCP and UDP",
        text: vec![
            "IP carries single packets and promises nothing: they may be lost, doubled, late, or change places. UDP adds \
             ports and a checksum and leaves it at that: one send is one packet, and who needs an answer asks again. TCP \
             makes a stream of octets out of packets: every octet has a number, the receiver acknowledges up to which \
             number it has all, the sender repeats what is missing, and the receiver's window says how much more it can \
             take. The price is a handshake before the first octet, state in both ends, and that a lost packet holds up \
             those behind it. A stream has no message boundaries: those the application must make itself."
                .to_owned(),
        ],
    }];
    all.extend(handshake(connection, report));
    all.extend(data(connection, report));
    all.extend(trouble(connection, report));
    all.extend(closing(connection, report));
    all.push(flags(connection));
    all
}

fn relative(connection: &Connection, number: u32, side: usize) -> u32 {
    number.wrapping_sub(connection.ends[side].direction.base.unwrap_or(0))
}

fn handshake(connection: &Connection, report: &ConnectionReport) -> Option<Lesson> {
    let client = connection.client();
    let (c, s) = (&connection.ends[client], &connection.ends[1 - client]);
    let syn = c.syn?;
    let mut text = vec![
        "Before data flows, each end must tell the other where its numbers begin, and know that the other has heard it. \
         That is four statements; the two in the middle share a segment, so three packets do. Two would not: the server \
         could not know that its own number arrived, and an old SYN that wandered in the net would open a connection \
         that nobody wants (RFC 9293 §3.5)."
            .to_owned(),
        format!(
            "Frame {}: {} sends SYN with sequence number {} (chosen at random, shown as 0 from here on). It goes from \
             CLOSED to SYN-SENT.{}",
            syn.at.frame,
            c.address,
            syn.seq,
            offers(report.handshake.client_options)
        ),
    ];
    match (s.syn, s.reset.filter(|reset| reset.refuses)) {
        (Some(answer), _) => {
            text.push(format!(
                "Frame {}: {} answers with SYN and ACK: its own number is {}, and it acknowledges {}, one more than the \
                 SYN's, as the SYN takes one number. It goes from LISTEN to SYN-RECEIVED.{}",
                answer.at.frame,
                s.address,
                answer.seq,
                syn.seq.wrapping_add(1),
                offers(report.handshake.server_options)
            ));
            match connection.third {
                Some(third) => text.push(format!(
                    "Frame {}: the ACK. Now both know that both know: ESTABLISHED on both sides.",
                    third.frame
                )),
                None => text.push(
                    "The third step, the client's ACK, is not in this capture: the server waits in SYN-RECEIVED, repeats its \
                     SYN-ACK, and gives up in the end."
                        .to_owned(),
                ),
            }
            if let (Some(far), Some(near)) = (report.handshake.server_side_ms, report.handshake.client_side_ms) {
                text.push(format!(
                    "The capture stands between the two: SYN to SYN-ACK took {far} ms, that is the way from here to the \
                     server and back; SYN-ACK to ACK took {near} ms, the way to the client and back. The first much longer \
                     means that it was taken near the client."
                ));
            }
        }
        (None, Some(reset)) => text.push(format!(
            "Frame {}: the answer is RST: no handshake. A host does that when nothing listens on the port, a firewall to \
             refuse politely. The client sees \"connection refused\".",
            reset.at.frame
        )),
        (None, None) => text.push(format!(
            "There is no answer. The client sends its SYN again after 1, 2, 4, 8 … seconds ({} here) and gives up with \
             \"connection timed out\". Silence means that something drops the SYN or the answer: a host that is there \
             would have refused.",
            count(syn.sent.into(), "SYN")
        )),
    }
    Some(Lesson { title: "The three-way handshake", text })
}

fn offers(options: Option<super::report::OptionsReport>) -> String {
    let Some(options) = options else { return String::new() };
    let mut words = Vec::new();
    if let Some(mss) = options.mss {
        words.push(format!("segments up to {mss} octets (MSS)"));
    }
    if let Some(shift) = options.window_scale {
        words.push(format!("windows to be multiplied by {} (window scale {shift})", 1u64 << shift.min(14)));
    }
    if options.sack {
        words.push("selective acknowledgements (SACK)".to_owned());
    }
    if options.timestamps {
        words.push("timestamps".to_owned());
    }
    if words.is_empty() { String::new() } else { format!(" It offers {}.", words.join(", ")) }
}

fn data(connection: &Connection, report: &ConnectionReport) -> Option<Lesson> {
    let step = connection.steps.iter().find(|step| step.len > 0)?;
    let who = |side: usize| if side == connection.client() { "client" } else { "server" };
    let seq = relative(connection, step.seq, step.side);
    let next = seq.wrapping_add(step.len);
    let mut text = vec![format!(
        "Frame {}: the {} sends {} octets with sequence number {seq}: these are octets {seq} to {} of its stream. The \
         acknowledgement to wait for is {next}, the number of the octet that comes next.",
        step.at.frame,
        who(step.side),
        step.len,
        next.wrapping_sub(1)
    )];
    let answer = connection.steps.iter().find(|other| {
        other.at.frame > step.at.frame
            && other.side != step.side
            && other.flags.contains(TcpFlags::ACK)
            && relative(connection, other.ack, step.side) >= next
    });
    if let Some(answer) = answer {
        let carries = if answer.len > 0 { "with data of its own, so it costs no packet" } else { "alone" };
        text.push(format!(
            "Frame {}, {} later: the {} acknowledges {}, {carries}.",
            answer.at.frame,
            span(answer.at.ns.saturating_sub(step.at.ns)),
            who(answer.side),
            relative(connection, answer.ack, step.side)
        ));
    }
    text.push(format!(
        "In all the client sent {} in {}, the server {} in {}.",
        octets(report.from_client.data),
        count(report.from_client.data_segments, "segment"),
        octets(report.from_server.data),
        count(report.from_server.data_segments, "segment")
    ));
    Some(Lesson { title: "Data and acknowledgements", text })
}

fn trouble(connection: &Connection, report: &ConnectionReport) -> Option<Lesson> {
    let mut text = Vec::new();
    for code in Code::ALL.iter().filter(|code| !matches!(code, Code::WindowUpdate | Code::NotClosed)) {
        let Some(finding) = report.findings.iter().find(|finding| finding.code == *code) else { continue };
        let times = report.counts.get(code.name()).copied().unwrap_or(1);
        text.push(format!(
            "{code} ({times}×, first at frame {}): {} Here: {}.",
            finding.frame,
            code.meaning(),
            finding.message
        ));
    }
    if connection.codes.any(&[Code::Retransmission]) {
        text.push(
            "A sender repeats what was not acknowledged when its timer runs out (at least 200 ms on Linux, doubled each \
             time), or at once when duplicate ACKs tell that later segments did arrive (fast retransmission)."
                .to_owned(),
        );
    }
    (!text.is_empty()).then_some(Lesson { title: "What went wrong here", text })
}

fn closing(connection: &Connection, report: &ConnectionReport) -> Option<Lesson> {
    let who = |side: usize| if side == connection.client() { "client" } else { "server" };
    let mut fins: Vec<(u64, usize)> =
        (0..2).filter_map(|side| Some((connection.ends[side].fin?.0.frame, side))).collect();
    fins.sort_unstable();
    let resets: Vec<(u64, usize)> =
        (0..2).filter_map(|side| Some((connection.ends[side].reset?.at.frame, side))).collect();
    if fins.is_empty() && resets.is_empty() {
        return None;
    }
    let mut text = Vec::new();
    if let Some((frame, side)) = fins.first() {
        text.push(
            "Each direction is closed by itself: FIN, and the ACK for it. That makes four packets, where the second end has \
             still something to say; when it is done at the same time, its FIN travels with the ACK and three do."
                .to_owned(),
        );
        text.push(format!("Frame {frame}: the {} sends FIN and goes to FIN-WAIT-1.", who(*side)));
        match (fins.get(1), connection.closing) {
            (Some((second, other)), Some(Closing::FourWay | Closing::HalfClosed)) => text.push(format!(
                "The {} acknowledges it (CLOSE-WAIT; the first is in FIN-WAIT-2), and sends its own FIN in frame {second}: \
                 LAST-ACK. Four steps.",
                who(*other)
            )),
            (Some((second, other)), Some(Closing::ThreeWay)) => text.push(format!(
                "Frame {second}: the {} acknowledges and sends its own FIN at once: three steps.",
                who(*other)
            )),
            (Some((second, _)), Some(Closing::Simultaneous)) => text.push(format!(
                "Frame {second}: the other end had sent its FIN before it saw the first: both go through CLOSING to TIME-WAIT."
            )),
            _ => text.push(
                "The other direction stays open: a half-closed connection. The other end may still send for as long as it likes."
                    .to_owned(),
            ),
        }
        if fins.len() == 2 {
            text.push(
                "Who closes first ends in TIME-WAIT for a minute (Linux; twice the longest life of a packet by RFC 9293 §3.6.1). \
                 Its last ACK may be lost: then the peer repeats its FIN, and somebody must be there to answer. And stray old \
                 packets must have died before the same ports are used anew. Many TIME-WAIT sockets are no fault; a server that \
                 has them closes its connections itself."
                    .to_owned(),
            );
        }
    }
    for (frame, side) in resets {
        text.push(format!(
            "Frame {frame}: the {} sends RST: no waiting, no acknowledgement; what was on its way is lost, and the other \
             application sees \"connection reset by peer\".",
            who(side)
        ));
    }
    text.push(format!("At the end the client is {}, the server {}.", report.states.client, report.states.server));
    Some(Lesson { title: "Closing", text })
}

fn flags(connection: &Connection) -> Lesson {
    let example = |flag: TcpFlags| -> Option<&Step> { connection.steps.iter().find(|step| step.flags.contains(flag)) };
    let text = FLAGS
        .iter()
        .map(|(flag, name, meaning)| match example(*flag) {
            Some(step) => format!("{name}: {meaning} Here first in frame {}.", step.at.frame),
            None => format!("{name}: {meaning} Not in this connection."),
        })
        .collect();
    Lesson { title: "The flags", text }
}
