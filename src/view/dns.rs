//! A name's resolution as people read it: the answer, how it came to be, who disagrees, what to do.

mod hosts;

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::style::{Paint, Style};
use super::text::hang;
pub use hosts::{hosts, hosts_change};

use crate::dns::Dnssec;
use crate::dns::dnssec::Security;
use crate::dns::report::{Answer, Finding, Report, ServerView, Severity, Step, Verdict};
use crate::dns::resolved::ResolvedAnswer;

/// Below this many columns nothing is set in columns of its own.
const NARROW: usize = 60;

/// Writes the whole report; with `details`, every flag and size, and the order's reasons for single addresses.
///
/// # Errors
/// Those of `out`.
pub fn report(out: &mut dyn Write, report: &Report, style: Style, details: bool) -> io::Result<()> {
    headline(out, report, style)?;
    answers(out, report, style)?;
    chain(out, report, style)?;
    steps(out, report, style, details)?;
    servers(out, report, style, details)?;
    dnssec(out, report, style, details)?;
    trace(out, report, style)?;
    connects(out, report, style)?;
    findings(out, report, style)?;
    if report.partial {
        writeln!(out, "\n{}", style.paint(Paint::Warn, "Interrupted: this is a part of it."))?;
    }
    Ok(())
}

fn headline(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    let first = report.answers.first().map(word);
    let more = report.answers.len().saturating_sub(1);
    let more = if more > 0 { format!(" (first of {})", more + 1) } else { String::new() };
    let (mark, paint, text) = match (report.verdict, first) {
        (Verdict::Ok, Some(first)) => ("✓ ", Paint::Good, format!("{} is {first}{more}", report.name)),
        (Verdict::Ok, None) => ("✓ ", Paint::Good, format!("{} was looked up", report.name)),
        (Verdict::Problem, Some(first)) => {
            ("! ", Paint::Warn, format!("{} is {first}{more}, and something is wrong with that", report.name))
        }
        (Verdict::Problem, None) => {
            let fault = report.findings.first().map(|finding| finding.message.clone());
            ("✗ ", Paint::Bad, fault.unwrap_or_else(|| format!("{} does not resolve", report.name)))
        }
        (Verdict::Unknown, _) => {
            ("? ", Paint::Warn, format!("What {} resolves to could not be found out.", report.name))
        }
    };
    for line in hang(mark, &text, style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    if let Some(error) = &report.error {
        let line = format!("an application gets {}: \"{}\"", error.eai, error.says);
        write!(out, "{}", style.paint(Paint::Dim, hang("  ", &line, style.width)))?;
    }
    if let Some(check) = &report.check {
        let ms = check.ms.map(|ms| format!(" ({})", duration(ms))).unwrap_or_default();
        let text = match check.agrees {
            Some(true) => format!("getaddrinfo of the C library says the same{ms}"),
            Some(false) => format!("getaddrinfo of the C library says something else{ms}"),
            None => "getaddrinfo of the C library has not come to an answer yet".to_owned(),
        };
        write!(out, "{}", style.paint(Paint::Dim, hang("  ", &text, style.width)))?;
    }
    Ok(())
}

fn word(answer: &Answer) -> String {
    match (&answer.address, &answer.data) {
        (Some(address), _) => address.to_string(),
        (None, Some(data)) => data.clone(),
        (None, None) => String::new(),
    }
}

/// The first few of a list.
fn some(list: &[String], most: usize) -> String {
    match list.get(most..).map_or(0, <[String]>::len) {
        0 => list.join(", "),
        more => format!("{}, … ({more} more)", list[..most].join(", ")),
    }
}

fn duration(ms: f64) -> String {
    if ms < 0.1 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

fn heading(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Paint::Bold, text))
}

/// Rows in columns as wide as they need, the last one wrapped; one under the other where it is narrow.
fn table(out: &mut dyn Write, rows: &[Vec<String>], style: Style) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0))
        .collect();
    let before: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + 2).sum();
    for row in rows {
        if style.width < NARROW || before + 18 > style.width {
            let text: Vec<&str> = row.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
            write!(out, "{}", hang("  ", &text.join(" · "), style.width))?;
            continue;
        }
        let mut first = "  ".to_owned();
        for (cell, width) in row.iter().zip(&widths).take(columns - 1) {
            first.push_str(cell);
            first.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        let last = row.get(columns - 1).map_or("", String::as_str);
        if last.is_empty() {
            writeln!(out, "{}", first.trim_end())?;
        } else {
            write!(out, "{}", hang(&first, last, style.width))?;
        }
    }
    Ok(())
}

fn answers(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    if report.answers.is_empty() {
        return Ok(());
    }
    let title = if report.order.len() > 1 { "In the order an application tries them" } else { "Answer" };
    heading(out, title, style)?;
    let rows: Vec<Vec<String>> = report
        .answers
        .iter()
        .enumerate()
        .map(|(at, answer)| {
            let place = match (&answer.server, answer.line) {
                (Some(server), _) => format!("{} {server}", answer.source),
                (None, Some(line)) => format!("{} line {line}", answer.source),
                (None, None) => answer.source.clone(),
            };
            let ttl = answer.ttl.map(|ttl| format!("TTL {ttl}")).unwrap_or_default();
            let rtype = answer.rtype.map(|rtype| format!("{rtype} ")).unwrap_or_default();
            let place_in_order = report.order.get(at).filter(|_| report.order.len() > 1);
            let why = match place_in_order {
                Some(order) if order.from.is_none() => "there is no route to it".to_owned(),
                Some(order) => match (order.rule, &order.because) {
                    (Some(rule), Some(because)) => format!("rule {rule}: {because}"),
                    _ => String::new(),
                },
                None => String::new(),
            };
            vec![format!("{rtype}{}", word(answer)), place, ttl, why]
        })
        .collect();
    table(out, &rows, style)
}

fn chain(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    if report.chain.is_empty() {
        return Ok(());
    }
    heading(out, "By way of aliases", style)?;
    for alias in &report.chain {
        write!(out, "{}", hang("  ", &format!("{} → {} (TTL {})", alias.from, alias.to, alias.ttl), style.width))?;
    }
    if let Some(cdn) = report.cdn {
        let text = format!("these lead to {cdn}, which answers each network with what is near to it");
        write!(out, "{}", hang("  ", &text, style.width))?;
    }
    Ok(())
}

fn steps(out: &mut dyn Write, report: &Report, style: Style, details: bool) -> io::Result<()> {
    if report.steps.is_empty() {
        return Ok(());
    }
    let place = report.nsswitch.line.map_or("glibc's default".to_owned(), |line| format!("nsswitch.conf line {line}"));
    heading(out, &format!("Step by step ({place}: {})", report.nsswitch.services.join(" ")), style)?;
    let rows: Vec<Vec<String>> = report.steps.iter().map(|step| step_row(step, details)).collect();
    table(out, &rows, style)?;
    if !report.nsswitch.never_asked.is_empty() {
        let text = format!("never asked: {}", report.nsswitch.never_asked.join(", "));
        write!(out, "{}", style.paint(Paint::Dim, hang("  ", &text, style.width)))?;
    }
    if let Some(stub) = &report.stub {
        write!(out, "{}", hang("  ", stub, style.width))?;
    }
    if let Some(own) = &report.resolved {
        write!(out, "{}", hang("  ", &resolved(own), style.width))?;
    }
    Ok(())
}

/// What systemd-resolved says by itself.
fn resolved(own: &ResolvedAnswer) -> String {
    if let Some(error) = &own.error {
        return format!("systemd-resolved itself says: {error}");
    }
    let addresses: Vec<String> = own
        .addresses
        .iter()
        .map(|(address, interface)| match interface {
            Some(interface) => format!("{address} by way of {interface}"),
            None => address.to_string(),
        })
        .collect();
    let how = [
        own.protocol.map(str::to_owned),
        own.from.map(|from| {
            format!("from its {from}").replace("its network", "the network").replace("its synthetic", "itself")
        }),
        Some(if own.authenticated { "authenticated" } else { "not authenticated" }.to_owned()),
        own.confidential.then(|| "confidential".to_owned()),
    ];
    let how: Vec<String> = how.into_iter().flatten().collect();
    format!("systemd-resolved itself says {} ({})", some(&addresses, 8), how.join(", "))
}

fn step_row(step: &Step, details: bool) -> Vec<String> {
    let server = match (&step.server, step.transport) {
        (Some(server), Some(transport)) => format!("{server} {transport}"),
        (Some(server), None) => server.clone(),
        (None, _) => String::new(),
    };
    let mut text = step.result.clone();
    if let Some(action) = &step.action {
        text = format!("{text} {action}");
    }
    if details {
        let mut extra = Vec::new();
        if !step.flags.is_empty() {
            extra.push(step.flags.join(" "));
        }
        extra.extend(step.size.map(|size| format!("{size} octets")));
        extra.extend(step.round.filter(|round| *round > 1).map(|round| format!("round {round}")));
        extra.extend(step.suffix.as_ref().map(|suffix| format!("search domain {suffix}")));
        extra.extend(step.ignored.iter().map(|ignored| format!("thrown away: {ignored}")));
        if !extra.is_empty() {
            text = format!("{text} ({})", extra.join("; "));
        }
    }
    // What one service sent stands above its outcome, without its name.
    let source = if step.server.is_some() { String::new() } else { step.source.clone() };
    vec![source, step.query.clone(), server, duration(step.ms), text]
}

fn servers(out: &mut dyn Write, report: &Report, style: Style, details: bool) -> io::Result<()> {
    if report.servers.is_empty() {
        return Ok(());
    }
    let query = report.servers.first().map(|view| view.query.clone()).unwrap_or_default();
    heading(out, &format!("Each server by itself, asked for {query}"), style)?;
    let rows: Vec<Vec<String>> = report.servers.iter().map(|view| server_row(view, details)).collect();
    table(out, &rows, style)?;
    if report.disagreement.as_ref().is_some_and(Vec::is_empty) && report.servers.iter().any(|one| one.rcode.is_some()) {
        write!(out, "{}", style.paint(Paint::Dim, hang("  ", "nobody disagrees", style.width)))?;
    }
    Ok(())
}

fn server_row(view: &ServerView, details: bool) -> Vec<String> {
    let name = match view.line {
        Some(line) => format!("{} (line {line})", view.server),
        None => view.server.clone(),
    };
    let mut text = match (&view.failure, view.answers.is_empty()) {
        (Some(failure), _) => failure.clone(),
        (None, false) => some(&view.answers, 8),
        (None, true) => match view.rcode.as_deref() {
            Some("NOERROR") => "NODATA".to_owned(),
            Some(code) => code.to_owned(),
            None => String::new(),
        },
    };
    if let Some(extended) = view.extended_errors.first() {
        text = format!("{text} ({extended})");
    }
    let mut facts: Vec<String> = Vec::new();
    facts.extend(view.ttl.map(|ttl| format!("TTL {ttl}")));
    facts.extend(view.negative_ttl.map(|ttl| format!("\"no\" for {ttl} s")));
    facts.extend(view.dnssec.filter(|dnssec| details || *dnssec != Dnssec::Unsigned).map(|dnssec| {
        match dnssec {
            Dnssec::Validated => "DNSSEC validated",
            Dnssec::SignedOnly => "signed, not validated",
            Dnssec::Unsigned => "no DNSSEC",
            Dnssec::Bogus => "DNSSEC bogus",
        }
        .to_owned()
    }));
    if view.no_edns {
        facts.push("no EDNS".to_owned());
    }
    if details && !view.flags.is_empty() {
        facts.push(view.flags.join(" "));
    }
    if !facts.is_empty() {
        text = format!("{text} [{}]", facts.join("; "));
    }
    vec![name, view.transport.to_string(), view.rtt_ms.map(duration).unwrap_or_default(), text]
}

/// The verdict on the signatures; the links of the chain where one is broken, or with `details`.
fn dnssec(out: &mut dyn Write, report: &Report, style: Style, details: bool) -> io::Result<()> {
    let Some(own) = &report.dnssec else { return Ok(()) };
    heading(out, &format!("DNSSEC, checked here with what {} sent", own.server), style)?;
    let (mark, paint) = match own.state {
        Security::Secure => ("✓", Paint::Good),
        Security::Bogus => ("✗", Paint::Bad),
        Security::Insecure | Security::Indeterminate => ("-", Paint::Dim),
    };
    let text = hang(&format!("  {mark} "), &format!("{}: {}", own.state, own.because), style.width);
    write!(out, "{}", text.replacen(mark, &style.paint(paint, mark), 1))?;
    if own.state != Security::Bogus && !details {
        return Ok(());
    }
    let mark = |holds: bool| if holds { "✓" } else { "✗" };
    let rows: Vec<Vec<String>> = own
        .chain
        .iter()
        .map(|link| vec![format!("{} {}", mark(link.holds), link.owner), link.rtype.clone(), link.says.clone()])
        .collect();
    table(out, &rows, style)
}

fn trace(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    let Some(traced) = &report.trace else { return Ok(()) };
    heading(out, "From the root down", style)?;
    let rows: Vec<Vec<String>> = traced
        .steps
        .iter()
        .map(|step| vec![step.zone.clone(), step.server.clone(), duration(step.ms), step.result.clone()])
        .collect();
    table(out, &rows, style)?;
    let text = match (&traced.failure, traced.answers.is_empty(), &traced.rcode) {
        (Some(failure), _, _) => failure.clone(),
        (None, false, _) => {
            let zone = traced.zone.clone().unwrap_or_default();
            format!("the servers of `{zone}` are in charge and say {}", traced.answers.join(", "))
        }
        (None, true, Some(code)) => format!("the servers in charge say {code}"),
        (None, true, None) => "nothing".to_owned(),
    };
    write!(out, "{}", hang("  → ", &text, style.width))?;
    for lame in &traced.lame {
        write!(out, "{}", hang("  ! ", lame, style.width))?;
    }
    Ok(())
}

fn connects(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    if report.connects.is_empty() {
        return Ok(());
    }
    heading(out, &format!("Connecting to port {}", report.connects[0].port), style)?;
    let rows: Vec<Vec<String>> = report
        .connects
        .iter()
        .map(|one| {
            let text = one.error.clone().unwrap_or_else(|| "accepted".to_owned());
            vec![one.address.to_string(), duration(one.ms), text]
        })
        .collect();
    table(out, &rows, style)
}

fn findings(out: &mut dyn Write, report: &Report, style: Style) -> io::Result<()> {
    if report.findings.is_empty() {
        return Ok(());
    }
    heading(out, "Findings", style)?;
    for finding in &report.findings {
        one_finding(out, finding, style)?;
    }
    Ok(())
}

fn one_finding(out: &mut dyn Write, finding: &Finding, style: Style) -> io::Result<()> {
    let (mark, paint) = match finding.severity {
        Severity::Fault => ("✗", Paint::Bad),
        Severity::Warning => ("!", Paint::Warn),
        Severity::Info => ("·", Paint::Dim),
    };
    let text = hang(&format!("  {mark} "), &finding.message, style.width);
    write!(out, "{}", text.replacen(mark, &style.paint(paint, mark), 1))?;
    let line = hang("    ", &format!("{} · {}", finding.code, finding.object), style.width);
    write!(out, "{}", line.replacen(finding.code, &style.paint(Paint::Name, finding.code), 1))?;
    for evidence in &finding.evidence {
        write!(out, "{}", style.paint(Paint::Dim, hang("    • ", evidence, style.width)))?;
    }
    if let Some(fix) = &finding.fix {
        write!(out, "{}", style.paint(Paint::Command, hang("    → ", fix, style.width)))?;
    }
    Ok(())
}
