//! A whole connection, packet by packet.

use std::io::{self, Write};

use super::sim::{heading, look, past, place};
use super::{clean, painted};
use crate::firewall::Packet;
use crate::firewall::flow::{FlowOutcome, FlowPacket, Way};
use crate::firewall::walk::Verdict;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes whether a connection works, then each of its packets at each host.
///
/// `fix` is what a rule would do that lets the stopped packet pass, and the command that adds it.
///
/// # Errors
/// Those of `out`.
pub fn flow(
    out: &mut dyn Write,
    first: &Packet,
    outcome: &FlowOutcome,
    assumed: &[String],
    fix: Option<(&str, &str)>,
    style: Style,
) -> io::Result<()> {
    let (text, verdict) = match &outcome.first_blocked {
        None => {
            let count = outcome.packets.last().map_or(0, |packet| packet.n);
            (format!("{first}: the connection works, all its {count} packets pass"), Verdict::Accept)
        }
        Some(blocked) if blocked.verdict == Verdict::Unknown => {
            let packet = format!("packet {}, {}", blocked.n, kind(blocked));
            let text = format!(
                "{first}: whether the connection works is not known: {packet}, may be stopped at the {}",
                blocked.host
            );
            (text, blocked.verdict)
        }
        Some(blocked) => {
            let text = format!(
                "{first}: the connection does not work: packet {}, {}, is {} at the {}{}",
                blocked.n,
                kind(blocked),
                past(blocked.verdict),
                blocked.host,
                cause(blocked)
            );
            (text, blocked.verdict)
        }
    };
    let (mark, paint) = look(verdict);
    for line in hang(&format!("{mark} "), &clean(&text), style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    if let Some(by) = outcome.first_blocked.as_ref().and_then(|blocked| blocked.decided_by.as_ref())
        && by.rule.is_some()
    {
        write!(out, "{}", hang("    ", &clean(super::bare(&by.text)), style.width))?;
    }
    heading(out, "Packet by packet", style)?;
    for packet in &outcome.packets {
        row(out, packet, style)?;
    }
    if let Some((explain, command)) = fix {
        heading(out, "A rule that lets it pass", style)?;
        write!(out, "{}", hang("  ", &clean(explain), style.width))?;
        writeln!(out, "    {}", style.paint(Paint::Command, clean(command)))?;
    }
    let mut all: Vec<&String> = assumed.iter().collect();
    for what in outcome.packets.iter().flat_map(|packet| &packet.assumed) {
        if !all.contains(&what) {
            all.push(what);
        }
    }
    if !all.is_empty() {
        heading(out, "Assumed", style)?;
        for what in all {
            write!(out, "{}", hang("  • ", &clean(what), style.width))?;
        }
    }
    Ok(())
}

/// `a reply (syn,ack)`
fn kind(packet: &FlowPacket) -> String {
    let way = match packet.dir {
        Way::Original => "request",
        Way::Reply => "reply",
    };
    if packet.flags.is_empty() { format!("a {way}") } else { format!("a {way} ({})", packet.flags.join(",")) }
}

/// ` by rule 3 of chain INPUT, table ip filter (api.rules:9)`
fn cause(packet: &FlowPacket) -> String {
    let with = packet.reject_with.as_deref().map_or(String::new(), |with| format!(" with {with}"));
    match (&packet.decided_by, &packet.reason) {
        (Some(by), _) => format!("{with} by {} ({})", place(by), super::sim::source(by)),
        (None, Some(reason)) => format!("{with}: {reason}"),
        (None, None) => with,
    }
}

fn row(out: &mut dyn Write, packet: &FlowPacket, style: Style) -> io::Result<()> {
    let arrow = match packet.dir {
        Way::Original => "→",
        Way::Reply => "←",
    };
    let (mark, paint) = look(packet.verdict);
    let flags = if packet.flags.is_empty() { "data".to_owned() } else { packet.flags.join(",") };
    let state = packet.state.as_deref().map_or(String::new(), |state| format!(", {state}"));
    let by = match (&packet.decided_by, packet.verdict) {
        (Some(by), _) => format!("{} by {}", past(packet.verdict), place(by)),
        (None, Verdict::Accept) => "passes, no chain looks at it".to_owned(),
        (None, _) => packet.reason.clone().unwrap_or_else(|| past(packet.verdict).to_owned()),
    };
    let first = format!("{:>3} {arrow} {mark} ", packet.n);
    let text = format!("{flags} at the {}{state}: {by}", packet.host);
    painted(out, &hang(&first, &clean(&text), style.width), mark, paint, style)
}
