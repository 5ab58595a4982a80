//! A trace as a lesson: the probe that is sent, what each router does with it, what comes back and why.

use std::fmt::Write as _;

use super::super::text::hang;
use super::super::{Paint, Style};
use super::milliseconds;
use crate::trace::{Answer, Said, Trace, Tracer, return_length};
use crate::wire::{Decoded, Encapsulation, Network, Transport};

/// The whole lesson. `all_bytes`: the octets of every probe, not of the first alone.
pub fn lesson(trace: &Trace, tracer: &Tracer, style: Style, all_bytes: bool) -> String {
    let mut out = String::new();
    let mut say = |first: &str, text: &str| out.push_str(&hang(first, text, style.width));
    say(
        "",
        "Every IP packet carries a number of hops that it may still go: TTL in IPv4, hop limit in IPv6. Each router takes \
         one off; a router that is left with 0 must not pass the packet on, throws it away and tells the sender by an ICMP \
         message (RFC 792, RFC 1812 §5.3.1, RFC 4443 §3.3). A trace sends packets that are meant to die like that, one \
         hop further each time: who complains about the packet with TTL n is the n-th router of the path.",
    );
    let last = trace.hops.last().map_or(0, |hop| hop.ttl);
    for hop in &trace.hops {
        out.push('\n');
        let _ = writeln!(out, "{}", style.paint(Paint::Bold, format!("TTL {}", hop.ttl)));
        let exchanges = tracer.exchanges(hop.ttl);
        let shown = exchanges.iter().find(|(_, answer)| answer.is_some()).or(exchanges.first());
        let Some((packet, answer)) = shown else { continue };
        if let Some(packet) = packet {
            out.push_str(&sent(packet, hop.ttl, style, all_bytes || hop.ttl == tracer.request().first));
        }
        match answer {
            Some(answer) => out.push_str(&answered(trace, hop.ttl, answer, style)),
            None => out.push_str(&silence(hop.ttl, last, exchanges.len(), style)),
        }
        let others: Vec<String> = exchanges
            .iter()
            .filter(|(_, other)| !other.is_some_and(|other| answer.is_some_and(|shown| std::ptr::eq(other, shown))))
            .map(|(_, other)| other.map_or("no answer".to_owned(), time))
            .collect();
        if answer.is_some() && !others.is_empty() {
            let text = format!("{} more with this TTL: {}", others.len(), others.join(", "));
            out.push_str(&hang("  and again  ", &text, style.width));
        }
    }
    out.push('\n');
    out
}

fn time(answer: &Answer) -> String {
    answer.rtt_ms.map_or("at an unknown time".to_owned(), |rtt| format!("{} ms", milliseconds(rtt)))
}

fn sent(packet: &[u8], ttl: u8, style: Style, bytes: bool) -> String {
    let decoded = Decoded::parse(Encapsulation::Ip, packet);
    let mut text = format!("{decoded}, TTL {ttl}, {} octets", packet.len());
    match &decoded.transport {
        Some(Transport::Icmp(icmp)) => {
            if let Some((id, sequence)) = icmp.echo() {
                let _ = write!(text, ", identifier {id}, sequence {sequence}, checksum 0x{:04x}", icmp.checksum);
            }
        }
        Some(Transport::Udp(udp)) => {
            let _ = write!(text, ", checksum 0x{:04x}", udp.checksum);
        }
        Some(Transport::Tcp(tcp)) => {
            let _ = write!(text, ", sequence number {}", tcp.seq);
        }
        _ => {}
    }
    let mut out = hang("  we send    ", &text, style.width);
    if bytes {
        let v6 = matches!(decoded.network, Some(Network::Ipv6(..)));
        out.push_str(&dump(packet, if v6 { 7 } else { 8 }, style));
        let (field, what) = if v6 { (7, "hop limit") } else { (8, "TTL") };
        let constant = match &decoded.transport {
            Some(Transport::Icmp(_)) => {
                "Identifier and checksum are the same in all probes, the sequence number names each: routers that spread \
                 traffic over several ways look at the former, so all probes take one way"
            }
            Some(Transport::Udp(_)) => {
                "The ports are the same in all probes, the checksum names each (two octets of the data make it come out): \
                 routers that spread traffic look at ports, so all probes take one way"
            }
            _ => {
                "The ports are the same in all probes, the sequence number names each: routers that spread traffic look at \
                 ports, so all probes take one way"
            }
        };
        out.push_str(&hang("             ", &format!("Octet {field} is the {what}. {constant}."), style.width));
    }
    out
}

/// Sixteen octets a line, one of them marked.
fn dump(packet: &[u8], marked: usize, style: Style) -> String {
    let mut out = String::new();
    for (line, part) in packet.chunks(16).take(6).enumerate() {
        let octet = |(at, octet): (usize, &u8)| {
            let text = format!("{octet:02x}");
            if line * 16 + at == marked { style.paint(Paint::Warn, text) } else { text }
        };
        let octets: Vec<String> = part.iter().enumerate().map(octet).collect();
        let _ = writeln!(
            out,
            "             {}  {}",
            style.paint(Paint::Dim, format!("{:04x}", line * 16)),
            octets.join(" ")
        );
    }
    if packet.len() > 96 {
        let _ = writeln!(out, "             … {} octets more", packet.len() - 96);
    }
    out
}

fn answered(trace: &Trace, ttl: u8, answer: &Answer, style: Style) -> String {
    let mut out = String::new();
    let who = answer.address;
    let before = if ttl == 1 { String::new() } else { format!("{} routers have each taken one off. ", ttl - 1) };
    let before = if ttl == 2 { "One router has taken one off. ".to_owned() } else { before };
    let says = answer.icmp.as_ref().map_or(String::new(), |icmp| {
        format!(
            "ICMP{} type {} code {}, {}",
            if who.is_ipv6() { "v6" } else { "" },
            icmp.icmp_type,
            icmp.code,
            icmp.says
        )
    });
    let what = match answer.said {
        Said::TimeExceeded => format!(
            "{before}{who} gets it with TTL 1, takes one off, is left with 0, throws it away and says so to the sender"
        ),
        Said::EchoReply => format!(
            "{before}{who} is the destination: it is not passed on, so its TTL does not matter; an echo request is answered"
        ),
        Said::PortUnreachable => format!(
            "{before}{who} is the destination: no program waits at that port, and it says so. An error is what a UDP trace hopes for"
        ),
        Said::SynAck => format!(
            "{before}{who} is the destination, and the port is open: it agrees to a connection (which this host then resets)"
        ),
        Said::Rst => {
            format!("{before}{who} is the destination: nothing listens at that port, and it says so by a reset")
        }
        Said::TcpOther => format!("{before}{who} answers with some TCP segment"),
        Said::Data => format!("{before}{who} is the destination, and a program at that port answered"),
        Said::TooBig => format!(
            "{before}{who} cannot pass it on: the next link takes packets of at most {} octets",
            answer.mtu.unwrap_or(0)
        ),
        Said::Unreachable => format!("{before}{who} refuses to pass it on"),
    };
    out.push_str(&hang("  then       ", &what, style.width));
    let mut back = format!("after {}", time(answer));
    if !says.is_empty() {
        let _ = write!(back, ": {says}");
    }
    if let Some(left) = answer.reply_ttl {
        let _ = write!(back, "; it arrives with TTL {left}");
        if let Some(hops) = return_length(answer) {
            let count = if hops == 1 { "1 hop".to_owned() } else { format!("{hops} hops") };
            let _ = write!(back, ", so (systems begin with 64, 128 or 255) it came over {count}");
            if hops.abs_diff(ttl) >= 2 && answer.said == Said::TimeExceeded {
                let _ = write!(back, ": not the way that the probe went");
            }
        }
    }
    out.push_str(&hang("  comes back ", &back, style.width));
    if let Some(quoted) = &answer.quoted {
        let count = quoted.len();
        let mut text = format!("the message carries our packet's IP header and {count} octets behind it");
        if ttl == trace.hops.first().map_or(1, |hop| hop.ttl) {
            text.push_str(
                ". Routers keep no memory of packets: without these octets nobody could tell which packet, of which \
                 program, it is about",
            );
        }
        out.push_str(&hang("  quotes     ", &text, style.width));
        if let Some(left) = answer.quoted_ttl.filter(|left| *left != 1 && answer.said == Said::TimeExceeded) {
            let text = format!(
                "the TTL in the quote is {left}, not 1: something on the way does not count as a router should"
            );
            out.push_str(&hang("             ", &text, style.width));
        }
    } else if !trace.raw && answer.said == Said::TimeExceeded {
        let text = "without raw sockets the kernel matches the quote to our socket itself, and keeps the rest of it";
        out.push_str(&hang("  quotes     ", text, style.width));
    }
    for change in &answer.changed {
        let text = format!(
            "{} was sent as {} and is quoted as {}: something before this hop changed it",
            change.field, change.sent, change.seen
        );
        out.push_str(&hang("  changed    ", &text, style.width));
    }
    for label in &answer.mpls {
        let text =
            format!("label {}, TTL {}: the packet was being switched by label here (RFC 4950)", label.label, label.ttl);
        out.push_str(&hang("  MPLS       ", &text, style.width));
    }
    out
}

fn silence(ttl: u8, last: u8, probes: usize, style: Style) -> String {
    let mut text = format!("{probes} probes, and nothing comes back: that is what `*` means. ");
    text.push_str(if ttl < last {
        "Probes with a larger TTL pass this router, or no later hop could answer. So it forwards well; it only does not \
         complain: its rules say so, or it may send only so many errors a second, or its errors get lost on their way back. \
         A `*` between answers is no fault"
    } else {
        "Nothing behind it answers either, so here it cannot be told whether the probe, or its answer, got lost"
    });
    hang("  then       ", &text, style.width)
}
