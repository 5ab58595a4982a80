//! Paths that were watched for a while, as text, CSV and Markdown.

use std::fmt::Write as _;

use super::milliseconds;
use crate::trace::monitor::{HopReport, WatchReport};
use crate::view::{Paint, Style};

const COLUMNS: [&str; 9] = ["loss %", "sent", "recv", "last", "avg", "best", "worst", "stddev", "jitter"];

fn numbers(hop: &HopReport) -> [String; 9] {
    // What was not measured is shown as such, never as 0.
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), milliseconds);
    let times = &hop.times;
    [
        hop.loss_percent.map_or("-".to_owned(), |loss| format!("{loss:.1}")),
        hop.sent.to_string(),
        hop.received.to_string(),
        ms(times.last_ms),
        ms(times.avg_ms),
        ms(times.best_ms),
        ms(times.worst_ms),
        ms(times.stddev_ms),
        ms(times.jitter_ms),
    ]
}

/// Who answers at a hop: its latest address, its name, how many others there were.
pub fn who(hop: &HopReport) -> String {
    let mut text = hop.addresses.first().map_or("*".to_owned(), ToString::to_string);
    if let Some(name) = hop.names.first() {
        let _ = write!(text, " ({name})");
    }
    if hop.addresses.len() > 1 {
        let _ = write!(text, " +{}", hop.addresses.len() - 1);
    }
    text
}

/// A table for people.
pub fn text(reports: &[WatchReport], style: Style) -> String {
    let mut out = String::new();
    for report in reports {
        let title = format!("{} ({}) by {}, {} rounds", report.target, report.address, report.protocol, report.rounds);
        let _ = writeln!(out, "{}", style.paint(Paint::Bold, title));
        let width = report.hops.iter().map(|hop| who(hop).chars().count()).max().unwrap_or(0).clamp(15, 40);
        let head: Vec<String> = COLUMNS.iter().map(|name| format!("{name:>7}")).collect();
        let _ = writeln!(out, "{}", style.paint(Paint::Dim, format!("hop  {:<width$} {}", "address", head.join(" "))));
        for hop in &report.hops {
            let cells: Vec<String> = numbers(hop).iter().map(|cell| format!("{cell:>7}")).collect();
            let _ = writeln!(out, "{:>3}  {:<width$} {}", hop.ttl, who(hop), cells.join(" "));
        }
        for hop in &report.hops {
            if let Some(verdict) = &hop.verdict {
                let _ = writeln!(out, "  · hop {}: {verdict}", hop.ttl);
            }
        }
        for change in &report.changes {
            let _ = writeln!(
                out,
                "  · round {}: hop {} changed from {} to {}",
                change.round, change.ttl, change.from, change.to
            );
        }
        if !report.reached {
            out.push_str("  · the destination did not answer\n");
        }
        out.push('\n');
    }
    out
}

/// RFC 4180, one line for each hop of each target.
pub fn csv(reports: &[WatchReport]) -> String {
    let mut out = String::from(
        "target,address,protocol,hop,host,name,loss_percent,sent,received,last_ms,avg_ms,best_ms,worst_ms,stddev_ms,jitter_ms,verdict\r\n",
    );
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    for report in reports {
        for hop in &report.hops {
            let times = &hop.times;
            // Empty: not measured.
            let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.6}"));
            let fields = [
                quoted(&report.target),
                report.address.to_string(),
                report.protocol.to_owned(),
                hop.ttl.to_string(),
                hop.addresses.first().map_or(String::new(), ToString::to_string),
                quoted(hop.names.first().map_or("", String::as_str)),
                hop.loss_percent.map_or(String::new(), |loss| format!("{loss:.3}")),
                hop.sent.to_string(),
                hop.received.to_string(),
                number(times.last_ms),
                number(times.avg_ms),
                number(times.best_ms),
                number(times.worst_ms),
                number(times.stddev_ms),
                number(times.jitter_ms),
                quoted(hop.verdict.as_deref().unwrap_or_default()),
            ];
            out.push_str(&fields.join(","));
            out.push_str("\r\n");
        }
    }
    out
}

/// Tables for an issue or a wiki.
pub fn markdown(reports: &[WatchReport]) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut out = String::new();
    for report in reports {
        let _ = writeln!(
            out,
            "### {} ({}) by {}, {} rounds\n",
            cell(&report.target),
            report.address,
            report.protocol,
            report.rounds
        );
        let _ = writeln!(out, "| hop | address | {} | verdict |", COLUMNS.join(" | "));
        let _ = writeln!(out, "|---:|---|{}---|", "---:|".repeat(COLUMNS.len()));
        for hop in &report.hops {
            let verdict = cell(hop.verdict.as_deref().unwrap_or_default());
            let _ = writeln!(out, "| {} | {} | {} | {verdict} |", hop.ttl, cell(&who(hop)), numbers(hop).join(" | "));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::monitor::Times;

    fn report() -> WatchReport {
        let hop = |ttl: u8, answers: bool| HopReport {
            ttl,
            addresses: if answers { vec!["10.0.0.1".parse().unwrap()] } else { vec![] },
            names: if answers { vec!["a|b,\"c\"".to_owned()] } else { vec![] },
            sent: 4,
            received: if answers { 4 } else { 0 },
            loss_percent: Some(if answers { 0.0 } else { 100.0 }),
            times: Times { avg_ms: answers.then_some(1.5), ..Times::default() },
            rate_limit: None,
            verdict: None,
            strip: vec![],
            answer: None,
            packet: None,
        };
        WatchReport {
            target: "x".to_owned(),
            address: "10.0.0.9".parse().unwrap(),
            protocol: "icmp",
            rounds: 4,
            reached: false,
            hops: vec![hop(1, true), hop(2, false)],
            changes: vec![],
        }
    }

    #[test]
    fn what_was_not_measured_is_never_zero() {
        let csv = csv(&[report()]);
        assert!(csv.contains("x,10.0.0.9,icmp,2,,,100.000,4,0,,,,,,,\r\n"), "{csv}");
        assert!(csv.contains(",\"a|b,\"\"c\"\"\",0.000,4,4,,1.500000,"), "{csv}");
        let text = text(&[report()], Style::PLAIN);
        assert!(text.contains("  2  *") && text.contains(" 100.0 "), "{text}");
        assert!(markdown(&[report()]).contains("a\\|b"));
    }
}
