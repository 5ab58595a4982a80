//! One connection in detail.

use std::fmt::Write as _;
use std::io::{self, Write};

use crate::tcp::framing::Framing;
use crate::tcp::words::octets;
use crate::tcp::{CloseKind, ConnectionReport, FlowReport, OptionsReport, Severity};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Findings and messages listed.
const LISTED: usize = 60;

/// Writes all that is known of a connection; `framing` is the client's and the server's messages.
pub fn detail(
    out: &mut dyn Write,
    report: &ConnectionReport,
    framing: &[Option<Framing>; 2],
    style: Style,
) -> io::Result<()> {
    let head = format!("#{} {} → {}", report.stream, report.client, report.server);
    writeln!(out, "{}", style.paint(Paint::Bold, head))?;
    write!(out, "{}", hang("  ", &report.verdict, style.width))?;
    writeln!(out)?;
    let mut row = |name: &str, text: &str| write!(out, "{}", hang(&format!("  {name:<12}"), text, style.width));
    row("state", &format!("{}; client {}, server {}", report.state, report.states.client, report.states.server))?;
    row("Zeek", &format!("{} {}: {}", report.zeek.state, report.zeek.history, report.zeek.meaning))?;
    let h = &report.handshake;
    let frame = |frame: Option<u64>| frame.map_or("not seen".to_owned(), |frame| format!("frame {frame}"));
    row("handshake", &format!("SYN {}, SYN-ACK {}, ACK {}", frame(h.syn), frame(h.syn_ack), frame(h.ack)))?;
    if let (Some(rtt), Some(far), Some(near)) = (h.rtt_ms, h.server_side_ms, h.client_side_ms) {
        row(
            "round trip",
            &format!("{rtt} ms: {far} ms between here and the server, {near} ms between here and the client"),
        )?;
    }
    row("client", &options(h.client_options))?;
    row("server", &options(h.server_options))?;
    let close = match (report.close.kind, report.close.by) {
        (CloseKind::None, _) => "not seen".to_owned(),
        (kind, by) => {
            let kind = if kind == CloseKind::Fin { "FIN" } else { "RST" };
            let by = by.map_or("", |by| if by == crate::tcp::CloseBy::Client { "client" } else { "server" });
            format!("{kind} by the {by}, {}", frame(report.close.frame))
        }
    };
    row("close", &close)?;
    row("sent", &flow("client", &report.from_client))?;
    row("", &flow("server", &report.from_server))?;
    for (who, flow) in [("client", &report.from_client), ("server", &report.from_server)] {
        let l = flow.limited;
        if l.sender_ms + l.receiver_ms + l.loss_ms + l.network_ms > 0.0 && flow.data > 0 {
            row(
                "limited by",
                &format!(
                    "{who}: nothing to send {} ms, receiver's window {} ms, loss {} ms, network {} ms",
                    l.sender_ms, l.receiver_ms, l.loss_ms, l.network_ms
                ),
            )?;
        }
    }
    if let Some(slow) = report.slowest_answer {
        row("slowest", &format!("{} ms until the answer of frame {}", slow.ms, slow.frame))?;
    }
    for (who, framing) in [("client", &framing[0]), ("server", &framing[1])] {
        if let Some(framing) = framing {
            messages(out, who, framing, style)?;
        }
    }
    findings(out, report, style)
}

fn options(options: Option<OptionsReport>) -> String {
    let Some(o) = options else { return "its SYN was not seen".to_owned() };
    let mss = o.mss.map_or("no MSS".to_owned(), |mss| format!("MSS {mss}"));
    let scale = o.window_scale.map_or("no window scale".to_owned(), |shift| format!("window scale {shift}"));
    let sack = if o.sack { "SACK" } else { "no SACK" };
    let stamps = if o.timestamps { "timestamps" } else { "no timestamps" };
    format!("{mss}, {scale}, {sack}, {stamps}, first window {}", o.window)
}

fn flow(who: &str, flow: &FlowReport) -> String {
    let mut text =
        format!("{who}: {} packets, {} of data in {} segments", flow.packets, octets(flow.data), flow.data_segments);
    if flow.retransmissions > 0 {
        let _ = write!(text, ", {} sent again ({})", flow.retransmissions, octets(flow.data_again));
    }
    if let Some([least, mean, most]) = flow.rtt_ms {
        let _ = write!(text, "; acknowledged after {least} / {mean} / {most} ms (least, mean, most)");
    }
    if flow.zero_window_ms > 0.0 {
        let _ = write!(text, "; window closed for {} ms", flow.zero_window_ms);
    }
    text
}

fn messages(out: &mut dyn Write, who: &str, framing: &Framing, style: Style) -> io::Result<()> {
    let total = framing.messages.len();
    let text = format!(
        "{who}: {total} {}; {} of its segments carry several or parts of several, {} messages are spread over several segments",
        framing.protocol.describe(),
        framing.sticky.len(),
        framing.split.len()
    );
    write!(out, "{}", hang("  messages    ", &text, style.width))?;
    for (n, message) in framing.messages.iter().take(LISTED).enumerate() {
        let frames = match message.frames.as_slice() {
            [one] => format!("frame {one}"),
            [first, .., last] => format!("frames {first}–{last} ({})", message.frames.len()),
            [] => "no frame".to_owned(),
        };
        let shared = message.frames.iter().any(|frame| framing.sticky.iter().any(|(sticky, _)| sticky == frame));
        let mut tail = String::new();
        if shared {
            tail.push_str(", shares a segment");
        }
        if message.frames.len() > 1 {
            tail.push_str(", split");
        }
        if !message.whole {
            tail.push_str(", not all of it was captured");
        }
        let line = format!(
            "{frames}: octets {} to {}{tail}  {}",
            message.offset,
            message.offset + message.len,
            message.begins
        );
        write!(out, "{}", hang(&format!("      {n:>3} "), &line, style.width))?;
    }
    if total > LISTED {
        writeln!(out, "      … and {} more", total - LISTED)?;
    }
    Ok(())
}

fn findings(out: &mut dyn Write, report: &ConnectionReport, style: Style) -> io::Result<()> {
    if report.findings.is_empty() {
        return writeln!(out, "  {}", style.paint(Paint::Good, "nothing found"));
    }
    writeln!(out, "  findings")?;
    let graver = |severity: Severity| report.findings.iter().filter(move |finding| finding.severity >= severity);
    let least = if report.findings.len() > LISTED { Severity::Warn } else { Severity::Chat };
    for finding in graver(least).take(LISTED) {
        let paint = match finding.severity {
            Severity::Error => Paint::Bad,
            Severity::Warn => Paint::Warn,
            _ => Paint::Dim,
        };
        let label = format!("    {:>6}  {}: ", finding.frame, finding.code);
        let text = hang(&label, &finding.message, style.width);
        write!(out, "{}", text.replacen(finding.code.name(), &style.paint(paint, finding.code), 1))?;
    }
    let left =
        report.findings.len().saturating_sub(graver(least).take(LISTED).count()) as u64 + report.findings_left_off;
    if left > 0 {
        writeln!(out, "    … and {left} more; --json shows all")?;
    }
    Ok(())
}
