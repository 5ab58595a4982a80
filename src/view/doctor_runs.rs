//! What `doctor` did or would do besides looking: a fix on trial, a fix simulated, a watch.

use std::io::{self, Write};

use super::doctor::place;
use super::style::{Paint, Style};
use super::text::hang;
use crate::doctor::{Attempt, Diagnosis, FixCheck, Outcome, Verdict, Verification};
use crate::firewall::walk::{DecidedBy, Verdict as Ruling};
use crate::host::remedy::StepDone;

fn heading(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    writeln!(out, "\n{}", style.paint(Paint::Bold, text))
}

/// Writes what `--verify-fix` did.
///
/// # Errors
/// Those of `out`.
pub fn verification(out: &mut dyn Write, done: &Verification, style: Style) -> io::Result<()> {
    heading(out, "What --verify-fix did", style)?;
    for attempt in &done.tried {
        tried(out, attempt, style)?;
    }
    let (mark, paint) = match done.outcome {
        Outcome::Healed | Outcome::NothingToFix => ("✓ ", Paint::Good),
        Outcome::NextFault => ("! ", Paint::Warn),
        _ => ("✗ ", Paint::Bad),
    };
    if done.tried.is_empty() || done.kept {
        for line in hang(mark, &done.says, style.width).lines() {
            writeln!(out, "{}", style.paint(paint, line))?;
        }
    }
    if done.outcome == Outcome::NextFault {
        write!(out, "{}", hang("  ", "The same command again goes on with that one.", style.width))?;
    }
    Ok(())
}

fn tried(out: &mut dyn Write, attempt: &Attempt, style: Style) -> io::Result<()> {
    let steps = |out: &mut dyn Write, verb: &str, steps: &[StepDone]| -> io::Result<()> {
        for step in steps {
            let ended = match step.exit {
                Some(0) => style.paint(Paint::Good, "done"),
                Some(code) => style.paint(Paint::Bad, format!("exit {code}")),
                None => style.paint(Paint::Bad, "did not run to its end"),
            };
            let by = attempt.vantage.as_deref().unwrap_or("?");
            writeln!(out, "  • {verb} at {by} ({ended}):")?;
            writeln!(out, "    {}", style.paint(Paint::Command, &step.command))?;
            for line in step.said.lines().take(5) {
                writeln!(out, "      {}", style.paint(Paint::Dim, clean(line)))?;
            }
        }
        Ok(())
    };
    if attempt.vantage.is_none() && !attempt.command.is_empty() {
        writeln!(out, "  • {} (on the {})", style.paint(Paint::Command, &attempt.command), place(attempt.on))?;
    }
    steps(out, "applied", &attempt.steps)?;
    for change in &attempt.changed {
        writeln!(out, "      {}", style.paint(Paint::Dim, clean(change)))?;
    }
    steps(out, "taken back", &attempt.undone)?;
    if !attempt.kept {
        write!(out, "{}", hang("  • ", &clean(&attempt.says), style.width))?;
    }
    Ok(())
}

/// Writes what the fixes would do.
///
/// # Errors
/// Those of `out`.
pub fn fix_checks(out: &mut dyn Write, checks: &[FixCheck], style: Style) -> io::Result<()> {
    heading(out, "What the fix would do (simulated; nothing was touched)", style)?;
    if checks.is_empty() {
        writeln!(out, "  There is no fix to simulate.")?;
    }
    for check in checks {
        if !check.command.is_empty() {
            writeln!(out, "    {}", style.paint(Paint::Command, &check.command))?;
        }
        if let Some(why) = &check.not_simulated {
            write!(out, "{}", hang("  - ", &format!("Not simulated: {why}."), style.width))?;
            continue;
        }
        let (mark, paint, says) = match check.helps {
            Some(true) => ("✓", Paint::Good, "every packet of the connection passes this host's rules then"),
            Some(false) => ("✗", Paint::Bad, "it does not suffice: this host's rules still stop the connection"),
            None => ("?", Paint::Warn, "the rules leave open whether the connection passes then"),
        };
        writeln!(out, "  {} {says}", style.paint(paint, mark))?;
        for fate in check.packets.iter().filter(|fate| fate.now != fate.then || fate.then != Ruling::Accept) {
            let line = format!("{} at {}: {} now, {} then", fate.packet, fate.hook, fate.now.name(), fate.then.name());
            write!(out, "{}", hang("    ", &line, style.width))?;
            decided(out, "now by", fate.now_by.as_ref(), style)?;
            decided(out, "then by", fate.then_by.as_ref(), style)?;
        }
        if check.newly_passes.is_empty() {
            writeln!(out, "  Nothing that is stopped now would pass.")?;
        } else {
            let all = if check.complete { "all of it" } else { "the first of it" };
            writeln!(out, "  What is stopped now and would pass ({all}):")?;
        }
        for change in &check.newly_passes {
            let family = if change.region.v6 { "ip6 " } else { "" };
            let text = format!("{}: {family}{}", change.region.way.name(), clean(&change.region.text));
            write!(out, "{}", hang("    • ", &text, style.width))?;
            for when in change.region.when() {
                write!(out, "{}", hang("        only when ", &clean(&when), style.width))?;
            }
            write!(out, "{}", hang("        e.g. ", &clean(&change.region.example.to_string()), style.width))?;
        }
    }
    Ok(())
}

fn decided(out: &mut dyn Write, how: &str, by: Option<&DecidedBy>, style: Style) -> io::Result<()> {
    let Some(by) = by else { return Ok(()) };
    let text = hang(&format!("      {how} "), &format!("{}: {}", by.place(), clean(&by.text)), style.width);
    write!(out, "{}", style.paint(Paint::Dim, text))
}

/// What came from another host holds no control characters when it is shown.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A round of a watch that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchEvent {
    /// The first round.
    Start,
    /// It worked and does not any more.
    Breaks,
    /// It did not work and does now.
    Heals,
    /// It fails in another way, or for another reason.
    Changes,
    /// The watch is over.
    End,
}

/// Writes one event of a watch in one line; the whole diagnosis may follow.
///
/// # Errors
/// Those of `out`.
pub fn watched(
    out: &mut dyn Write,
    at_ns: u64,
    event: WatchEvent,
    diagnosis: &Diagnosis,
    style: Style,
) -> io::Result<()> {
    let (mark, paint) = match diagnosis.verdict {
        Verdict::Ok => ("✓", Paint::Good),
        Verdict::Fault => ("✗", Paint::Bad),
        Verdict::Unknown => ("?", Paint::Warn),
    };
    let word = match event {
        WatchEvent::Start => "at first",
        WatchEvent::Breaks => "breaks",
        WatchEvent::Heals => "heals",
        WatchEvent::Changes => "changes",
        WatchEvent::End => "at last",
    };
    let says = match (&diagnosis.root_cause, diagnosis.verdict) {
        (Some(cause), _) => format!("{} ({})", cause.summary, cause.code),
        (None, Verdict::Ok) => format!("{} answers", diagnosis.target),
        (None, _) => diagnosis.unseen.first().cloned().unwrap_or_else(|| "it could not be found out".to_owned()),
    };
    let first = format!("{} {mark} {word}: ", clock(at_ns));
    let text = hang(&first, &clean(&says), style.width);
    write!(out, "{}", text.replacen(mark, &style.paint(paint, mark), 1))
}

/// Hours, minutes, seconds, UTC.
fn clock(at_ns: u64) -> String {
    let seconds = at_ns / 1_000_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// What a serving doctor says: that it listens, and how it ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Served {
    /// `listening` or `end`.
    pub event: &'static str,
    /// The address and port.
    pub listening: String,
    /// The vantage to give to the other doctor, by each of this host's addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// What the other doctor may try.
    pub target: String,
    /// How long it serves.
    pub seconds: f64,
    /// What it lets be seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exposes: Vec<&'static str>,
    /// Who came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// How many questions were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<u32>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Writes what a serving doctor says.
///
/// # Errors
/// Those of `out`.
pub fn served(out: &mut dyn Write, event: &Served, style: Style) -> io::Result<()> {
    if event.event == "end" {
        let why = event.why.as_deref().unwrap_or("");
        let text = match (&event.peer, event.questions) {
            (Some(peer), Some(n)) => format!("Over: {peer} came and was answered {n} times; {why}. The token is void."),
            _ => format!("Over: {why}. The token is void."),
        };
        return write!(out, "{}", hang("", &text, style.width));
    }
    writeln!(out, "{}", style.paint(Paint::Bold, format!("Listening at {}.", event.listening)))?;
    write!(out, "{}", hang("", "On the other host, within the time:", style.width))?;
    for to in &event.to {
        let command = format!("reachwhy doctor {} --to {to}", event.target);
        writeln!(out, "    {}", style.paint(Paint::Command, command))?;
    }
    let ends = format!(
        "Good for one client and {} s; Ctrl-C ends it. The line is encrypted. Whoever has the token may see:",
        event.seconds
    );
    write!(out, "{}", hang("", &ends, style.width))?;
    for exposed in &event.exposes {
        write!(out, "{}", hang("  • ", exposed, style.width))?;
    }
    let open =
        format!("The port must be open for the other host: {}", event.listening.rsplit(':').next().unwrap_or(""));
    write!(out, "{}", hang("", &format!("{open}."), style.width))
}
