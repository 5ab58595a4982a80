//! Ports as people read them.

mod watch;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use super::style::{Paint, Style};
use super::text::{hang, wrap};
use crate::port::Technique;
use crate::port::report::{HostReport, PortReport, State, Verdict};
use crate::port::scan::Progress as Done;

pub use watch::Watch;

/// More ports than this that are all alike are counted instead of listed.
const ALIKE: usize = 20;
/// Below this many columns what it means has a line of its own.
const NARROW: usize = 76;
/// And what it means must have this much room beside the rest.
const ROOM: usize = 26;

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Open ports alone.
    pub open_only: bool,
    /// Every port in a line of its own, however many are alike.
    pub all: bool,
}

fn paint(state: State) -> Paint {
    match state {
        State::Open | State::Unfiltered => Paint::Good,
        State::Closed => Paint::Bad,
        State::Filtered | State::OpenOrFiltered => Paint::Warn,
    }
}

/// A host with its ports.
///
/// # Errors
/// Those of `out`.
pub fn host(out: &mut dyn Write, report: &HostReport, options: Options, style: Style) -> io::Result<()> {
    write!(out, "{}", hang("", &headline(report), style.width).trim_end())?;
    writeln!(out)?;
    let mut kinds: BTreeMap<(State, &str, String), Vec<&PortReport>> = BTreeMap::new();
    for port in &report.ports {
        kinds.entry((port.state, port.reason, meaning(report, port))).or_default().push(port);
    }
    let many = |port: &PortReport| {
        let alike = kinds.get(&(port.state, port.reason, meaning(report, port))).map_or(0, Vec::len);
        !options.all && alike > ALIKE && port.state != State::Open
    };
    let hidden = |port: &PortReport| options.open_only && port.state != State::Open;
    let shown: Vec<&PortReport> = report.ports.iter().filter(|port| !hidden(port) && !many(port)).collect();
    table(out, report, &shown, style)?;
    for ((state, reason, meaning), ports) in &kinds {
        if options.open_only || *state == State::Open || options.all || ports.len() <= ALIKE {
            continue;
        }
        let count = format!("{} {} ({reason})", ports.len(), state.word());
        let range = ranges(ports);
        let text = if meaning.is_empty() { range } else { format!("{meaning}; {range}") };
        let first = format!("not shown: {count}: ");
        write!(
            out,
            "{}",
            hang(&first, &text, style.width.max(first.width() + 20)).replacen(
                state.word(),
                &style.paint(paint(*state), state.word()),
                1
            )
        )?;
    }
    if options.open_only && shown.is_empty() {
        writeln!(out, "no port is open")?;
    }
    if report.not_asked > 0 {
        writeln!(out, "{}", style.paint(Paint::Warn, format!("not asked: {} ports", report.not_asked)))?;
    }
    for note in &report.notes {
        write!(out, "{}", hang("note: ", note, style.width))?;
    }
    if report.partial {
        writeln!(out, "{}", style.paint(Paint::Warn, "partial: the scan was cut short"))?;
    }
    Ok(())
}

fn headline(report: &HostReport) -> String {
    let name = if report.host == report.address {
        report.address.clone()
    } else {
        format!("{} ({})", report.host, report.address)
    };
    let mut text = match report.host_up {
        Some(true) => format!("{name} is up"),
        Some(false) => format!("{name} is down: nobody is at that address"),
        None => format!("{name} is silent: nothing tells whether it is there"),
    };
    let mut facts = Vec::new();
    match report.distance {
        Some(1) => facts.push("no router between".to_owned()),
        Some(hops) => facts.push(format!("{hops} hops away")),
        None => {}
    }
    if let Some(ms) = report.echo_ms {
        let ttl = report.echo_ttl.map_or(String::new(), |ttl| format!(", ttl {ttl}"));
        facts.push(format!("echo {}{ttl}", time(ms)));
    }
    if !facts.is_empty() && report.host_up == Some(true) {
        let _ = write!(text, ": {}", facts.join("; "));
    }
    text
}

fn table(out: &mut dyn Write, report: &HostReport, ports: &[&PortReport], style: Style) -> io::Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let narrow = style.width < NARROW;
    let cells = |port: &PortReport| {
        [
            format!("{}/{}", port.port, port.proto),
            port.state.word().to_owned(),
            port.service.clone().unwrap_or_default(),
            port.reason.to_owned(),
            port.reply_ttl.map_or(String::new(), |ttl| ttl.to_string()),
            port.rtt_ms.map_or(String::new(), time),
        ]
    };
    let heads = ["PORT", "STATE", "SERVICE", "REASON", "TTL", "RTT"];
    let rows: Vec<[String; 6]> = ports.iter().map(|port| cells(port)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        if cells == 0 { 0 } else { cells.max(heads[column].width()) }
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[&str; 6], state: Option<State>| {
        let mut text = String::new();
        for (column, cell) in row.iter().enumerate() {
            if widths[column] == 0 {
                continue;
            }
            let pad = " ".repeat(widths[column].saturating_sub(cell.width()) + 2);
            let right = column >= 4;
            let cell = match state {
                Some(state) if column == 1 => style.paint(paint(state), cell),
                Some(_) if column >= 3 => style.paint(Paint::Dim, cell),
                _ => (*cell).to_owned(),
            };
            if right {
                let _ = write!(text, "{}{cell}  ", &pad[2..]);
            } else {
                let _ = write!(text, "{cell}{pad}");
            }
        }
        text
    };
    let columns: usize = widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum();
    let apart = narrow || columns + ROOM > style.width;
    let head = line(&heads, None);
    let head = if apart { head.trim_end().to_owned() } else { format!("{head}WHO SAYS SO") };
    writeln!(out, "{}", style.paint(Paint::Bold, head.trim_end()))?;
    for (port, row) in ports.iter().zip(&rows) {
        let row: [&str; 6] = std::array::from_fn(|at| row[at].as_str());
        let text = line(&row, Some(port.state));
        let mut says = meaning(report, port);
        if let Some(banner) = &port.banner {
            says = banner.line();
        }
        if apart {
            writeln!(out, "{}", text.trim_end())?;
            for part in wrap(&says, style.width.saturating_sub(6).max(20)).iter().filter(|part| !part.is_empty()) {
                writeln!(out, "      {part}")?;
            }
        } else {
            let mut parts = wrap(&says, style.width - columns).into_iter();
            writeln!(out, "{}", format!("{text}{}", parts.next().unwrap_or_default()).trim_end())?;
            for part in parts {
                writeln!(out, "{}{part}", " ".repeat(columns))?;
            }
        }
        for fact in port.banner.iter().flat_map(crate::port::banner::Banner::facts) {
            write!(out, "{}", hang("      ", &fact, style.width))?;
        }
    }
    Ok(())
}

/// A time with two or three digits that count.
pub(super) fn time(ms: f64) -> String {
    if ms < 1.0 {
        format!("{:.0} µs", ms * 1e3)
    } else if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1000.0 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

/// Who says so, in words.
fn meaning(report: &HostReport, port: &PortReport) -> String {
    let at = match (port.hop, port.hop_address) {
        (Some(hop), Some(address)) => format!("hop {hop} ({address})"),
        (Some(hop), None) => format!("hop {hop}"),
        (None, _) => "a device on the way".to_owned(),
    };
    let by = port.by.map(|by| by.to_string()).unwrap_or_default();
    let icmp = port
        .icmp
        .as_ref()
        .map(|icmp| icmp.says.trim_start_matches("destination unreachable: ").replace("administratively ", ""))
        .unwrap_or_default();
    let from = match port.hop {
        Some(hop) => format!("{by} at hop {hop}"),
        None => by.clone(),
    };
    match port.verdict {
        Verdict::Open => String::new(),
        Verdict::OpenByProxy => format!("{at} answers in the host's name"),
        Verdict::ClosedByHost if port.reason == "conn-refused" => {
            "refused: nothing listens, or a firewall resets".to_owned()
        }
        Verdict::ClosedByHost => "the host: nothing listens".to_owned(),
        Verdict::RejectedByHost => format!("the host's own firewall: {icmp}"),
        Verdict::RejectedOnTheWay if by.is_empty() => "rejected on the way, by whom connect() does not tell".to_owned(),
        Verdict::RejectedOnTheWay => format!("{from}: {icmp}"),
        Verdict::ForgedReset => format!("forged by {at} in the host's name"),
        Verdict::DroppedByHost => "dropped by the host's own firewall".to_owned(),
        Verdict::DroppedAtTheEnd => match port.hop_address {
            Some(address) => format!("dropped by the host or by {address} before it"),
            None => "dropped by the host or the router before it".to_owned(),
        },
        Verdict::DroppedOnTheWay => format!("dropped at {at} or right behind it"),
        Verdict::Dropped => "dropped; nothing tells where".to_owned(),
        Verdict::Unfiltered => "reaches the host: no stateful filter drops it".to_owned(),
        Verdict::NoAnswer if report.technique == Technique::Udp => "no answer: open and silent, or dropped".to_owned(),
        Verdict::NoAnswer => "no answer: open, or dropped".to_owned(),
        Verdict::NoRouteOnTheWay => format!("{from} knows no way there: {icmp}"),
        Verdict::HostDown if by.is_empty() => "nobody answers for that address on its link".to_owned(),
        Verdict::HostDown => format!("{from} says that the host is not there"),
        Verdict::NoRoute => "this host has no way there".to_owned(),
        Verdict::LocalFirewall => "this host's own firewall did not let it out".to_owned(),
        Verdict::LocalError => "this host could not send it".to_owned(),
    }
}

/// Port numbers as ranges, cut when there are many.
fn ranges(ports: &[&PortReport]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match parts.last_mut() {
            Some((_, high)) if u32::from(*high) + 1 == u32::from(port.port) => *high = port.port,
            _ => parts.push((port.port, port.port)),
        }
    }
    let write = |(low, high): &(u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
    let shown: Vec<String> = parts.iter().take(12).map(write).collect();
    let more = if parts.len() > 12 { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Hosts that were not shown because nobody is there.
///
/// # Errors
/// Those of `out`.
pub fn absent(out: &mut dyn Write, count: usize) -> io::Result<()> {
    match count {
        0 => Ok(()),
        1 => writeln!(out, "\nnot shown: 1 host that is down"),
        _ => writeln!(out, "\nnot shown: {count} hosts that are down"),
    }
}

/// What a whole run came to.
///
/// # Errors
/// Those of `out`.
pub fn sum(
    out: &mut dyn Write,
    sent: u64,
    elapsed: Duration,
    loss: Option<f64>,
    partial: bool,
    style: Style,
) -> io::Result<()> {
    let loss = match loss {
        Some(loss) if loss >= 0.005 => format!(", {:.0} % of the exchanges were lost", loss * 100.0),
        _ => String::new(),
    };
    let cut = if partial { "; cut short: this is what was found so far" } else { "" };
    let text = format!("{sent} probes in {}{loss}{cut}", time(elapsed.as_secs_f64() * 1e3));
    writeln!(out, "{}", style.paint(Paint::Dim, text))
}

/// How waiting ended.
///
/// # Errors
/// Those of `out`.
pub fn waited(out: &mut dyn Write, spent: Duration, open: bool, stopped: bool, style: Style) -> io::Result<()> {
    let seconds = spent.as_secs_f64();
    let (what, text) = match (open, stopped) {
        (true, _) => (Paint::Good, format!("open after {seconds:.2} s")),
        (false, true) => (Paint::Warn, format!("stopped after {seconds:.2} s: not all are open")),
        (false, false) => (Paint::Bad, format!("not all are open after {seconds:.2} s")),
    };
    writeln!(out, "{}", style.paint(what, text))
}

/// The line that says how far a scan is, with its rate and the time that is left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    last: Option<(Duration, u64, u64)>,
    rate: f64,
    speed: f64,
}

impl Pace {
    /// `before`: hosts that are done; `hosts`: those of this group, of `all`.
    pub fn line(&mut self, done: &Done, elapsed: Duration, before: usize, hosts: usize, all: usize) -> String {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let float = |count: u64| count as f64;
        if let Some((at, sent, settled)) = self.last {
            let span = elapsed.saturating_sub(at).as_secs_f64().max(1e-3);
            let blend = |old: f64, new: f64| if old == 0.0 { new } else { old * 0.7 + new * 0.3 };
            self.rate = blend(self.rate, float(done.sent.saturating_sub(sent)) / span);
            self.speed = blend(self.speed, float(done.done.saturating_sub(settled)) / span);
        }
        self.last = Some((elapsed, done.sent, done.done));
        let mut text = String::new();
        if all > 1 {
            let _ = write!(text, "hosts {}-{} of {all}: ", before + 1, before + hosts);
        }
        let share = if done.total == 0 { 100.0 } else { float(done.done) / float(done.total) * 100.0 };
        let _ = write!(text, "{share:.0} % of {} ports, {:.0} probes/s", done.total, self.rate);
        if self.speed > 0.0 && done.done < done.total {
            let _ = write!(text, ", {:.0} s left", (float(done.total - done.done) / self.speed).ceil());
        }
        if let Some(loss) = done.loss.filter(|loss| *loss >= 0.01) {
            let _ = write!(text, ", {:.0} % lost", loss * 100.0);
        }
        text
    }
}
