//! How a trace is shown.

pub mod explain;
pub mod live;
pub mod paths;
pub mod report;

use std::fmt::Write as _;
use std::net::IpAddr;

use unicode_width::UnicodeWidthStr as _;

use super::text::hang;
use super::{Paint, Style};
use crate::trace::{Answer, Hop, ProbeResult, Said, Stopped, Trace, TraceRequest, return_length};

/// What is known of an address beside the trace: its name, its autonomous system.
pub trait Labels {
    /// The name, as far as known by now.
    fn name(&mut self, address: IpAddr) -> Option<String>;
    /// `AS64500 Example`.
    fn asn(&mut self, address: IpAddr) -> Option<String>;
}

/// The line before the first hop.
pub fn header(request: &TraceRequest, raw: bool, style: Style) -> String {
    let how = match request.method.dport() {
        Some(port) => format!("{} port {port}", request.method.name().to_uppercase()),
        None => "ICMP echo".to_owned(),
    };
    let target = if request.target == request.dst.to_string() {
        request.target.clone()
    } else {
        format!("{} ({})", request.target, request.dst)
    };
    let way = if raw { "" } else { ", without raw sockets" };
    let text = format!("from {} by {how}, at most {} hops{way}", request.src, request.max);
    format!("{} {}\n", style.paint(Paint::Bold, format!("trace to {target}")), style.paint(Paint::Dim, text))
}

/// The line before a trace that is shown as a whole.
pub fn title(trace: &Trace, style: Style) -> String {
    let target = if trace.target == trace.address.to_string() {
        trace.target.clone()
    } else {
        format!("{} ({})", trace.target, trace.address)
    };
    format!("{}\n", style.paint(Paint::Bold, format!("trace to {target}")))
}

fn milliseconds(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{ms:.3}"),
        _ if ms < 100.0 => format!("{ms:.2}"),
        _ => format!("{ms:.1}"),
    }
}

/// One hop: a line for each address that answered.
pub fn hop(hop: &Hop, labels: &mut dyn Labels, style: Style) -> String {
    let mut out = String::new();
    let number = format!("{:>3}  ", hop.ttl);
    let addresses = hop.addresses();
    if addresses.is_empty() {
        let why = hop.probes.iter().find_map(|probe| match probe {
            ProbeResult::NotSent(errno) => Some(format!("not sent: {errno}")),
            _ => None,
        });
        let what = why.unwrap_or_else(|| format!("no answer to {} probes", hop.probes.len()));
        let _ = writeln!(out, "{number}{} {}", style.paint(Paint::Warn, "*"), style.paint(Paint::Dim, what));
        return out;
    }
    for (at, address) in addresses.iter().enumerate() {
        let mut line = if at == 0 { number.clone() } else { " ".repeat(number.len()) };
        let mut who = address.to_string();
        if let Some(name) = labels.name(*address) {
            let _ = write!(who, " ({name})");
        }
        if let Some(asn) = labels.asn(*address) {
            let _ = write!(who, " [{asn}]");
        }
        let pad = 34_usize.saturating_sub(who.width()).max(1);
        line.push_str(&style.paint(Paint::Name, &who));
        line.push_str(&" ".repeat(pad));
        let times: Vec<String> = hop
            .probes
            .iter()
            .filter_map(|probe| match probe {
                ProbeResult::Answered(answer) if answer.address == *address => {
                    Some(answer.rtt_ms.map_or("?".to_owned(), milliseconds))
                }
                ProbeResult::Lost if at == 0 => Some(style.paint(Paint::Warn, "*")),
                _ => None,
            })
            .collect();
        let _ = write!(line, "{} ms", times.join("  "));
        let remarks = remarks(hop, *address);
        if !remarks.is_empty() {
            let _ = write!(line, "  {}", style.paint(Paint::Warn, remarks.join("; ")));
        }
        line.push('\n');
        out.push_str(&line);
    }
    out
}

/// What is unusual about the answers of one address.
fn remarks(hop: &Hop, address: IpAddr) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut add = |text: String| {
        if !found.contains(&text) {
            found.push(text);
        }
    };
    for answer in hop.answers().filter(|answer| answer.address == address) {
        if let Some(text) = said(answer) {
            add(text);
        }
        if let Some(mtu) = answer.mtu {
            add(format!("next link's MTU {mtu}"));
        }
        for label in &answer.mpls {
            add(format!("MPLS label {} tc {} ttl {}", label.label, label.tc, label.ttl));
        }
        for interface in &answer.interface {
            let parts = [
                interface.name.clone(),
                interface.address.map(|ip| ip.to_string()),
                interface.index.map(|index| format!("#{index}")),
                interface.mtu.map(|mtu| format!("MTU {mtu}")),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            add(format!("{} interface {}", interface.role, parts.join(" ")));
        }
        if let Some(back) = return_length(answer).filter(|back| back.abs_diff(hop.ttl) >= 2) {
            add(format!("{back} hops back"));
        }
        if let Some(ttl) = answer.quoted_ttl.filter(|ttl| *ttl > 1 && answer.said == Said::TimeExceeded) {
            add(format!("saw TTL {ttl}"));
        }
        for change in &answer.changed {
            // What is gone is gone, whatever the value was that each probe had.
            add(if change.seen == "none" {
                format!("{} stripped", change.field)
            } else {
                format!("{} {} → {}", change.field, change.sent, change.seen)
            });
        }
    }
    found
}

/// An answer that is not what a hop says as a rule, spelled out.
fn said(answer: &Answer) -> Option<String> {
    match answer.said {
        Said::TimeExceeded | Said::EchoReply => None,
        Said::PortUnreachable => Some("port unreachable".to_owned()),
        Said::SynAck => Some("open: SYN-ACK".to_owned()),
        Said::Rst => Some("closed: reset".to_owned()),
        Said::TcpOther => Some("TCP segment".to_owned()),
        Said::Data => Some("data".to_owned()),
        Said::TooBig | Said::Unreachable => answer.icmp.as_ref().map(|icmp| format!("! {}", icmp.says)),
    }
}

/// What is said behind the last hop.
pub fn summary(trace: &Trace, style: Style) -> String {
    let mut out = String::new();
    let hops = trace.hops.len();
    let took = format!("in {} ms", milliseconds(trace.elapsed_ms));
    let (paint, text) = match trace.stopped {
        Stopped::Reached => (Paint::Good, format!("reached: {hops} {}", if hops == 1 { "hop" } else { "hops" })),
        Stopped::Unreachable => (Paint::Bad, "unreachable".to_owned()),
        Stopped::MaxTtl => (Paint::Warn, "not reached within the hops looked at".to_owned()),
        Stopped::Silent => (Paint::Bad, "no answer from the destination".to_owned()),
    };
    let partial = if trace.complete { "" } else { ", partial: it was ended early" };
    let _ = writeln!(out, "{} {}", style.paint(paint, text), style.paint(Paint::Dim, format!("{took}{partial}")));
    let mut sizes: Vec<(u32, u8, u8)> = Vec::new();
    for hop in &trace.hops {
        let Some(mtu) = hop.mtu else { continue };
        match sizes.last_mut() {
            Some((known, _, last)) if *known == mtu => *last = hop.ttl,
            _ => sizes.push((mtu, hop.ttl, hop.ttl)),
        }
    }
    if let Some(mtu) = trace.path_mtu {
        let _ = writeln!(out, "path MTU {}", style.paint(Paint::Bold, mtu));
    }
    if !sizes.is_empty() {
        let part = |(mtu, first, last): &(u32, u8, u8)| {
            if first == last { format!("{mtu} to hop {first}") } else { format!("{mtu} to hops {first}–{last}") }
        };
        let parts: Vec<String> = sizes.iter().map(part).collect();
        let _ = writeln!(out, "largest packets: {}", parts.join(", "));
    }
    for finding in &trace.findings {
        out.push_str(&hang("  · ", &finding.says, style.width));
    }
    out
}
