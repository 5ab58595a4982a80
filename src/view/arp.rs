//! Neighbours as people read them.

pub mod explain;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

use unicode_width::UnicodeWidthStr as _;

use super::style::{Paint, Style};
use super::text::hang;
use crate::arp::dad::Claim;
use crate::arp::frame::Speaker;
use crate::arp::judge::{Confidence, Finding, Severity};
use crate::arp::report::{ArpReport, Coverage, Entry};
use crate::arp::sweep::SweepProgress;
use crate::arp::trial::TrialOutcome;
use crate::arp::watch::Event;
use crate::wire::MacAddr;

/// `0.42 ms`, `17 µs`.
pub(crate) fn time(ms: f64) -> String {
    if ms < 0.0995 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number as u64), if number == 1 { one } else { many })
}

/// How far a scan is, in a line.
pub fn scan_progress(progress: &SweepProgress, since_ns: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let rate = progress.sent as f64 / (since_ns.max(1) as f64 / 1e9);
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let left = progress.targets.saturating_sub(progress.done) as f64 / rate.max(1.0);
    format!(
        "round {}: {} of {} asked for, {} answered, {:.0} a second, {left:.0} s left in this round",
        progress.round,
        thousands(progress.done as u64),
        thousands(progress.targets as u64),
        thousands(progress.answered as u64),
        rate
    )
}

/// Writes a scan's result.
///
/// # Errors
/// Those of `out`.
pub fn scan(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    let interface = report.interface.as_deref().unwrap_or("?");
    if report.entries.is_empty() {
        writeln!(out, "{}", style.paint(Paint::Warn, format!("Nobody answered on {interface}.")))?;
    } else {
        entries(out, &report.entries, style)?;
    }
    writeln!(out)?;
    if let Some(coverage) = &report.coverage {
        write!(out, "{}", hang("", &covered(report, coverage), style.width))?;
    }
    partial(out, report, style)?;
    notes(out, report, style)?;
    findings(out, &report.findings, style)
}

fn partial(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    if report.partial {
        writeln!(
            out,
            "{}",
            style.paint(Paint::Warn, "Stopped before it was finished: this is what was found until then.")
        )?;
    }
    Ok(())
}

fn notes(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    for note in &report.notes {
        write!(out, "{}", hang("", note, style.width))?;
    }
    Ok(())
}

fn covered(report: &ArpReport, coverage: &Coverage) -> String {
    let silent = report.entries.iter().filter(|entry| entry.mac.is_none()).count();
    let mut text = format!(
        "{} on {}: {} of {}",
        coverage.targets,
        report.interface.as_deref().unwrap_or("?"),
        thousands((report.entries.len() - silent) as u64),
        count(coverage.addresses, "address answered", "addresses answered"),
    );
    if let Some(seconds) = report.seconds {
        let _ = write!(text, " in {}", time(seconds * 1e3));
    }
    let _ = write!(
        text,
        " ({}, {}).",
        count(usize::try_from(coverage.requests).unwrap_or(usize::MAX), "request", "requests"),
        count(coverage.rounds.into(), "round", "rounds")
    );
    if coverage.asked < coverage.addresses {
        let _ = write!(text, " {} were not asked for.", thousands((coverage.addresses - coverage.asked) as u64));
    }
    match coverage.loss {
        Some(loss) if loss > 0.0 => {
            let _ = write!(text, " {:.0} % of exchanges were lost on the way.", loss * 100.0);
        }
        Some(_) => text.push_str(" Nothing was lost on the way."),
        None => {}
    }
    if let Some(missed) = coverage.expected_missed.filter(|missed| *missed >= 0.01) {
        let _ = write!(text, " About {missed:.2} stations may have been missed: more with --rounds.");
    }
    if coverage.overrun > 0 {
        let _ = write!(text, " {} replies came faster than they could be taken: try a lower --rate.", coverage.overrun);
    }
    text
}

/// One line an address.
pub(crate) fn entries(out: &mut dyn Write, entries: &[Entry], style: Style) -> io::Result<()> {
    let ip_width = entries.iter().map(|entry| entry.ip.to_string().len()).max().unwrap_or(0);
    let rtt_width = entries.iter().filter_map(|entry| entry.rtt_ms).map(|ms| time(ms).width()).max().unwrap_or(0);
    for entry in entries {
        let mac = entry.mac.map_or_else(|| "no answer".to_owned(), |mac| mac.to_string());
        let rtt = entry.rtt_ms.map(time).unwrap_or_default();
        let mut line = format!("{:ip_width$}  {mac:17}", entry.ip.to_string());
        if rtt_width > 0 {
            line.push_str("  ");
            line.extend(std::iter::repeat_n(' ', rtt_width - rtt.width()));
            line.push_str(&rtt);
        }
        let column = line.width();
        line.push_str("  ");
        line.push_str(&what(entry));
        let line = line.trim_end();
        let shown: String = if line.width() > style.width.max(column + 12) {
            let mut cut: String = line.chars().take(style.width.max(column + 12) - 1).collect();
            cut.push('…');
            cut
        } else {
            line.to_owned()
        };
        let shown =
            shown.replacen(&mac, &style.paint(if entry.mac.is_some() { Paint::Name } else { Paint::Dim }, &mac), 1);
        writeln!(out, "{shown}")?;
        for other in &entry.duplicate {
            let first = format!("{:ip_width$}  ", "");
            writeln!(out, "{first}{}", style.paint(Paint::Bad, format!("{other}  answers for it too")))?;
        }
    }
    Ok(())
}

fn what(entry: &Entry) -> String {
    let mut words: Vec<String> = Vec::new();
    if entry.own {
        words.push("this host's own".to_owned());
    }
    words.extend(entry.role.iter().cloned());
    // What an address says of itself is more than who was assigned its block.
    words.extend(entry.note.clone().or_else(|| entry.vendor.clone()));
    words.join(" · ")
}

/// What is odd, with reasons and remedies.
///
/// # Errors
/// Those of `out`.
pub(crate) fn findings(out: &mut dyn Write, findings: &[Finding], style: Style) -> io::Result<()> {
    for finding in findings {
        writeln!(out)?;
        let (mark, paint) = mark(finding.severity);
        for line in hang(mark, &finding.summary, style.width).lines() {
            writeln!(out, "{}", style.paint(paint, line))?;
        }
        let sure = if finding.confidence == Confidence::Proven { "proven" } else { "likely" };
        writeln!(out, "  {} · {sure}", style.paint(Paint::Name, finding.code))?;
        for reason in &finding.because {
            write!(out, "{}", hang("  • ", reason, style.width))?;
        }
        for fix in &finding.fix {
            write!(out, "{}", style.paint(Paint::Command, hang("  → ", fix, style.width).trim_end()))?;
            writeln!(out)?;
        }
    }
    Ok(())
}

/// Writes a lookup's result: request, answers, what they mean.
///
/// # Errors
/// Those of `out`.
pub fn lookup(out: &mut dyn Write, report: &ArpReport, speaker: Speaker, style: Style) -> io::Result<()> {
    let Some(entry) = report.entries.first() else { return Ok(()) };
    let interface = report.interface.as_deref().unwrap_or("?");
    let asks = asking(entry.ip, speaker);
    writeln!(out, "{}", style.paint(Paint::Dim, format!("→ {interface}  {asks}")))?;
    let answered = report.exchanges.iter().any(|exchange| !exchange.answers.is_empty());
    for exchange in report.exchanges.iter().filter(|_| answered) {
        let number = if report.exchanges.len() > 1 { format!("#{} ", exchange.n) } else { String::new() };
        let mut told: Vec<MacAddr> = Vec::new();
        for (mac, ms) in &exchange.answers {
            if told.contains(mac) {
                continue;
            }
            told.push(*mac);
            let again = exchange.answers.iter().filter(|(other, _)| other == mac).count();
            let again = if again > 1 { format!("  ({again} replies)") } else { String::new() };
            writeln!(out, "← {number}{} is at {}  {}{again}", entry.ip, style.paint(Paint::Name, mac), time(*ms))?;
        }
        if exchange.answers.is_empty() {
            writeln!(out, "← {number}{}", style.paint(Paint::Warn, "no answer in time"))?;
        }
    }
    if answered {
        let who = what(entry);
        if !who.is_empty() {
            writeln!(out, "  {who}")?;
        }
        for trial in &report.trials {
            let text = match &trial.outcome {
                TrialOutcome::Owns { .. } if report.findings.is_empty() => "  The address ends there: an echo request with TTL 1 was answered.".to_owned(),
                TrialOutcome::Silent if report.findings.is_empty() => "  Whether the address ends there is not known: an echo request with TTL 1 was not answered in time.".to_owned(),
                _ => continue,
            };
            write!(out, "{}", hang("  ", text.trim_start(), style.width))?;
        }
    } else {
        let text = silence(entry, report);
        let paint = if entry.own { Paint::Good } else { Paint::Warn };
        for line in hang("", &text, style.width).lines() {
            writeln!(out, "{}", style.paint(paint, line))?;
        }
    }
    partial(out, report, style)?;
    notes(out, report, style)?;
    findings(out, &report.findings, style)
}

fn silence(entry: &Entry, report: &ArpReport) -> String {
    let times = match report.exchanges.len() {
        1 => "once".to_owned(),
        number => format!("{number} times"),
    };
    if entry.own {
        return format!("{} is this host's own address, and nobody else answers for it (asked {times}).", entry.ip);
    }
    let seconds = report.seconds.map(|seconds| time(seconds * 1e3)).unwrap_or_default();
    format!(
        "Nobody answers for {} (asked {times} in {seconds}): no host on this link has it, or it is switched off, in another VLAN, or told not to answer.",
        entry.ip
    )
}

fn asking(target: IpAddr, speaker: Speaker) -> String {
    match (target, speaker.ip) {
        (IpAddr::V4(_), Some(source)) => {
            format!("who has {target}? tell {source} ({}); to all (broadcast)", speaker.mac)
        }
        (IpAddr::V4(_), None) => {
            format!("who has {target}? asked as nobody (0.0.0.0) by {}; to all (broadcast)", speaker.mac)
        }
        (IpAddr::V6(v6), source) => {
            let group = crate::wire::solicited_node(v6);
            let who = source.map_or_else(|| "nobody (::)".to_owned(), |ip| ip.to_string());
            format!("who has {target}? asked as {who} ({}); to its group {group}", speaker.mac)
        }
    }
}

/// Writes what duplicate detection found.
///
/// # Errors
/// Those of `out`.
pub fn dad(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    let (Some(entry), Some(dad)) = (report.entries.first(), &report.dad) else { return Ok(()) };
    let seconds = |ms: u64| format!("{}.{:02} s", ms / 1000, ms % 1000 / 10);
    for (number, at) in (1..).zip(&dad.probes_ms) {
        writeln!(out, "{:>7}  probe {number}: is anyone using {}?", seconds(*at), entry.ip)?;
    }
    for objection in &dad.objections {
        let how = match objection.how {
            Claim::Answered => "answered the probe: it has the address",
            Claim::Used => "speaks with the address as its own",
            Claim::Probes => "probes for the same address",
        };
        let after = seconds(objection.after_ms);
        writeln!(out, "{}  {how} ({after} after it)", style.paint(Paint::Name, objection.mac))?;
    }
    let (paint, text) = match dad.verdict.as_str() {
        "free" if report.partial => (
            Paint::Warn,
            format!("Nobody spoke up for {} until it was stopped: that is not long enough to call it free.", entry.ip),
        ),
        "free" => (
            Paint::Good,
            format!("{} is free: nobody spoke up in {} ({}).", entry.ip, seconds(dad.took_ms), dad.standard),
        ),
        "contested" => (
            Paint::Bad,
            format!("{} is contested: another host probes for it at the same time; neither may use it.", entry.ip),
        ),
        _ if entry.own => (Paint::Bad, format!("{} is this host's own address, and another has it too.", entry.ip)),
        _ => (Paint::Bad, format!("{} is in use.", entry.ip)),
    };
    for line in hang("", &text, style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    Ok(())
}

/// Writes where packets for an address behind a router go.
///
/// # Errors
/// Those of `out`.
pub fn behind(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    notes(out, report, style)?;
    if let Some(entry) = report.entries.first() {
        let mac = entry.mac.map_or_else(|| "hardware address not known yet".to_owned(), |mac| mac.to_string());
        writeln!(out, "{}  {}  {} · {}", entry.ip, style.paint(Paint::Name, mac), entry.state, what(entry))?;
    }
    Ok(())
}

/// Writes the kernel's table, and what is odd in it.
///
/// # Errors
/// Those of `out`.
pub fn table(out: &mut dyn Write, report: &ArpReport, style: Style, details: bool) -> io::Result<()> {
    if report.entries.is_empty() {
        writeln!(
            out,
            "The kernel knows no neighbours{}.",
            report.interface.as_ref().map_or_else(String::new, |name| format!(" on {name}"))
        )?;
    }
    let ip_width = report.entries.iter().map(|entry| entry.ip.to_string().len()).max().unwrap_or(0);
    let mut interface: Option<&str> = None;
    for entry in &report.entries {
        if entry.interface.as_deref() != interface {
            interface = entry.interface.as_deref();
            writeln!(out, "{}", style.paint(Paint::Bold, interface.unwrap_or("?")))?;
        }
        let mac = entry.mac.map_or_else(|| "-".to_owned(), |mac| mac.to_string());
        let aged = matches!(entry.state.as_str(), "reachable" | "stale" | "delay" | "probe");
        let age = entry.ages.filter(|_| aged).map_or_else(String::new, |ages| ago(ages.confirmed_s));
        let line =
            format!("  {:ip_width$}  {mac:17}  {:10}  {age:>6}  {}", entry.ip.to_string(), entry.state, what(entry));
        let shown: String = if line.trim_end().width() > style.width {
            line.chars().take(style.width - 1).chain(['…']).collect()
        } else {
            line.trim_end().to_owned()
        };
        let paint = match entry.state.as_str() {
            "reachable" | "permanent" => Paint::Good,
            "failed" | "incomplete" => Paint::Bad,
            _ => Paint::Dim,
        };
        writeln!(out, "{}", shown.replacen(&entry.state, &style.paint(paint, &entry.state), 1))?;
        if let Some(ages) = entry.ages.filter(|_| details) {
            let text = format!(
                "confirmed {} ago, used {} ago, changed {} ago",
                ago(ages.confirmed_s),
                ago(ages.used_s),
                ago(ages.updated_s)
            );
            writeln!(out, "{}", style.paint(Paint::Dim, hang("      ", &text, style.width).trim_end()))?;
        }
    }
    if report.entries.iter().any(|entry| entry.ages.is_some()) && !details {
        writeln!(out)?;
        let text = "The time is since the neighbour was last known to answer; stale is normal, it is checked when used. More with -v.";
        writeln!(out, "{}", style.paint(Paint::Dim, hang("", text, style.width).trim_end()))?;
    }
    for odd in &report.oddities {
        writeln!(out)?;
        let (mark, paint) = mark(odd.severity);
        for line in hang(mark, &odd.summary, style.width).lines() {
            writeln!(out, "{}", style.paint(paint, line))?;
        }
        if let Some(next) = &odd.next {
            writeln!(out, "  → {}", style.paint(Paint::Command, next))?;
        }
    }
    Ok(())
}

fn mark(severity: Severity) -> (&'static str, Paint) {
    match severity {
        Severity::Problem => ("✗ ", Paint::Bad),
        Severity::Warning => ("! ", Paint::Warn),
        Severity::Info => ("· ", Paint::Dim),
    }
}

/// `8 s`, `12 min`, `3 h`, `2 d`.
fn ago(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s if s < 86_400.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// Writes one event of a watch.
///
/// # Errors
/// Those of `out`.
pub fn event(out: &mut dyn Write, event: &Event, style: Style) -> io::Result<()> {
    let (_, paint) = mark(event.severity);
    let day = event.at_ms / 1000 % 86_400;
    let first = format!("{:02}:{:02}:{:02}Z  ", day / 3600, day / 60 % 60, day % 60);
    let name = event.event.as_str().replace('_', " ");
    let text = hang(&first, &format!("{name}: {}", event.summary), style.width);
    write!(out, "{}", text.replacen(&name, &style.paint(paint, &name), 1))?;
    for reason in &event.because {
        write!(out, "{}", hang("           • ", reason, style.width))?;
    }
    Ok(())
}

/// Writes how a watch ended.
///
/// # Errors
/// Those of `out`.
pub fn watched(out: &mut dyn Write, frames: u64, known: usize, damaged: bool, style: Style) -> io::Result<()> {
    let cut = if damaged { " The file is damaged: the rest was not read." } else { "" };
    let text = format!(
        "{} that said something; {} known.{cut}",
        count(usize::try_from(frames).unwrap_or(usize::MAX), "frame", "frames"),
        count(known, "address is", "addresses are")
    );
    writeln!(out, "{}", style.paint(Paint::Dim, hang("", &text, style.width).trim_end()))
}

/// Writes what was found out by way of the kernel.
///
/// # Errors
/// Those of `out`.
pub fn by_kernel(out: &mut dyn Write, report: &ArpReport, style: Style) -> io::Result<()> {
    if report.entries.iter().any(|entry| entry.mac.is_some()) {
        entries(out, &report.entries, style)?;
    } else {
        writeln!(out, "{}", style.paint(Paint::Warn, "Nobody answered the kernel."))?;
    }
    partial(out, report, style)?;
    writeln!(out)?;
    notes(out, report, style)
}
