//! All connections of a capture, the bad ones with what was found.

use std::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use crate::tcp::words::{self, octets};
use crate::tcp::{Code, ConnectionReport, Severity, Tally};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Connections shown one by one; beyond this they are counted.
const SHOWN: usize = 200;
/// Connections shown that are part of a scan or flood.
const CROWD: u64 = 5;
/// Findings shown of one connection.
const FINDINGS: usize = 8;

/// What is kept for the list.
#[derive(Debug, Default)]
pub struct List {
    reports: Vec<ConnectionReport>,
    left: u64,
    left_bad: u64,
    crowd: u64,
}

impl List {
    /// Adds a connection; when there are many, one with a problem takes the place of one without.
    pub fn add(&mut self, report: ConnectionReport) {
        let part = report.findings.iter().any(|finding| matches!(finding.code, Code::PortScan | Code::SynFlood));
        if part {
            self.crowd += 1;
            // Of a thousand alike a few are enough.
            if self.crowd > CROWD {
                return;
            }
        }
        if self.reports.len() < SHOWN {
            self.reports.push(report);
            return;
        }
        self.left += 1;
        if !report.has_problem() {
            return;
        }
        self.left_bad += 1;
        if let Some(good) = self.reports.iter_mut().rev().find(|one| !one.has_problem()) {
            *good = report;
            self.left_bad -= 1;
        }
    }
}

fn paint(severity: Option<Severity>) -> Paint {
    match severity {
        Some(Severity::Error) => Paint::Bad,
        Some(Severity::Warn) => Paint::Warn,
        _ => Paint::Good,
    }
}

fn mark(severity: Option<Severity>) -> &'static str {
    match severity {
        Some(Severity::Error) => "✗",
        Some(Severity::Warn) => "!",
        _ => "✓",
    }
}

/// Writes the list and the summary.
pub fn list(
    out: &mut dyn Write,
    list: &List,
    tally: &Tally,
    crowd: &[String],
    early: u64,
    style: Style,
) -> io::Result<()> {
    let mut reports: Vec<&ConnectionReport> = list.reports.iter().collect();
    reports.sort_by_key(|report| report.stream);
    for report in &reports {
        connection(out, report, style)?;
    }
    if list.left > 0 {
        let bad = if list.left_bad == 0 { String::new() } else { format!(", {} of them with problems", list.left_bad) };
        writeln!(out, "… and {} more connections{bad}; --json shows all", list.left)?;
    }
    if list.crowd > CROWD {
        writeln!(out, "… and {} more connections like these; --json shows all", list.crowd - CROWD)?;
    }
    for text in crowd {
        writeln!(out, "{} {text}", style.paint(Paint::Bad, "✗"))?;
    }
    summary(out, list, tally, early, style)
}

/// Writes one connection of the list.
pub fn connection(out: &mut dyn Write, report: &ConnectionReport, style: Style) -> io::Result<()> {
    let arrow = if report.zeek.history.starts_with('^') || report.handshake.syns == 0 { "↔" } else { "→" };
    let head = format!("{} #{} {} {arrow} {}", mark(report.severity), report.stream, report.client, report.server);
    let tail = format!("{} · {} {}", report.state, report.zeek.state, report.zeek.history);
    let gap = style.width.saturating_sub(head.width() + tail.width()).max(2);
    let painted = style.paint(paint(report.severity), mark(report.severity));
    let rest = head.strip_prefix(mark(report.severity)).unwrap_or_default();
    writeln!(out, "{painted}{}{}{}", style.paint(Paint::Bold, rest), " ".repeat(gap), style.paint(Paint::Dim, tail))?;
    write!(out, "{}", hang("    ", &report.verdict, style.width))?;
    let counted: Vec<String> = report
        .counts
        .iter()
        .map(|(code, times)| if *times == 1 { (*code).to_owned() } else { format!("{code} ×{times}") })
        .collect();
    if !counted.is_empty() {
        let text = hang("    found: ", &counted.join(", "), style.width);
        write!(out, "{}", style.paint(Paint::Dim, text.trim_end_matches('\n')))?;
        writeln!(out)?;
    }
    let grave: Vec<_> = report.findings.iter().filter(|finding| finding.severity >= Severity::Warn).collect();
    let mut last = None;
    let mut shown = 0;
    for finding in &grave {
        // Of a run of the same kind the first tells enough; the count is above.
        if last == Some(finding.code) || shown >= FINDINGS {
            continue;
        }
        (last, shown) = (Some(finding.code), shown + 1);
        let label = format!("    frame {} {}: ", finding.frame, finding.code);
        let text = hang(&label, &finding.message, style.width);
        write!(
            out,
            "{}",
            text.replacen(finding.code.name(), &style.paint(paint(Some(finding.severity)), finding.code), 1)
        )?;
    }
    Ok(())
}

fn summary(out: &mut dyn Write, list: &List, tally: &Tally, early: u64, style: Style) -> io::Result<()> {
    let hidden = list.crowd.saturating_sub(CROWD);
    let total = list.reports.len() as u64 + list.left + hidden;
    let bad = list.reports.iter().filter(|report| report.has_problem()).count() as u64 + list.left_bad + hidden;
    let span =
        tally.span.map(|(first, last)| format!(", {}", words::span(last.saturating_sub(first)))).unwrap_or_default();
    let mut text = format!(
        "{}, {} with problems; {} TCP of {} frames, {}{span}",
        words::count(total, "connection"),
        bad,
        tally.segments,
        tally.frames,
        octets(tally.bytes),
    );
    if tally.segments == 0 {
        text.push_str("; there is no TCP in it");
    }
    if early > 0 {
        let _ = write!(text, "; {early} connections were closed early to bound memory");
    }
    writeln!(out, "{}", style.paint(Paint::Bold, text))
}
