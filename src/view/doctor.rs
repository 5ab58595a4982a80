//! A diagnosis as people read it: the verdict first, then the walk, the packets, the reasons, the fix.

use std::io::{self, Write};

use super::style::{Paint, Style};
use super::text::hang;
use crate::doctor::lessons::Lesson;
use crate::doctor::{Check, Code, Diagnosis, Fix, RootCause, Rung, Status, Verdict, Where};

/// Below this many columns the steps are not set in columns of their own.
const NARROW: usize = 60;

/// Writes the whole answer; with `details`, what each step rests on, and the packets counted on a way that works.
///
/// # Errors
/// Those of `out`.
pub fn diagnosis(out: &mut dyn Write, diagnosis: &Diagnosis, style: Style, details: bool) -> io::Result<()> {
    headline(out, diagnosis, style)?;
    writeln!(out)?;
    walk(out, &diagnosis.checks, style, details)?;
    if details || diagnosis.root_cause.is_some() {
        ladder(out, &diagnosis.ladder, style)?;
    }
    if let Some(cause) = &diagnosis.root_cause {
        reasons(out, cause, style)?;
        ruled_out(out, cause, style)?;
        open(out, &diagnosis.also_possible, style)?;
        fixes(out, cause, style)?;
    }
    if let Some(next) = &diagnosis.next {
        heading(out, "To settle it", style)?;
        command(out, next, style)?;
    }
    notes(out, "Not seen", &diagnosis.unseen, style)?;
    notes(out, "Touched while measuring", &diagnosis.changed, style)
}

fn headline(out: &mut dyn Write, diagnosis: &Diagnosis, style: Style) -> io::Result<()> {
    let (mark, paint, text) = match (diagnosis.verdict, &diagnosis.root_cause) {
        (Verdict::Ok, _) => ("✓ ", Paint::Good, format!("{} answers as it should.", diagnosis.target)),
        (_, Some(cause)) => ("✗ ", Paint::Bad, cause.summary.clone()),
        (_, None) => {
            ("? ", Paint::Warn, format!("Whether {} works could not be found out from here.", diagnosis.target))
        }
    };
    for line in hang(mark, &text, style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    if let Some(cause) = &diagnosis.root_cause {
        let line = format!("{} · on the {} · {}", cause.code, place(cause.place), cause.confidence);
        let text = hang("  ", &line, style.width);
        write!(out, "{}", text.replacen(cause.code.as_str(), &style.paint(Paint::Name, cause.code), 1))?;
    }
    Ok(())
}

pub(super) fn place(place: Where) -> &'static str {
    match place {
        Where::Client => "client",
        Where::Server => "server",
        Where::Path => "path between",
        Where::Dns => "name service",
    }
}

fn walk(out: &mut dyn Write, checks: &[Check], style: Style, details: bool) -> io::Result<()> {
    let column = checks.iter().map(|check| label(check).chars().count()).max().unwrap_or(0);
    for check in checks {
        let (mark, paint) = match check.status {
            Status::Pass => ("✓", Paint::Good),
            Status::Fail => ("✗", Paint::Bad),
            Status::Warn => ("!", Paint::Warn),
            Status::Skip => ("-", Paint::Dim),
            Status::Info => ("·", Paint::Dim),
        };
        let time = check.ms.map(|ms| format!(" ({})", duration(ms))).unwrap_or_default();
        let text = if style.width < NARROW {
            hang(&format!("  {mark} "), &format!("{}: {}{time}", label(check), check.summary), style.width)
        } else {
            let first = format!("  {mark} {:column$}  ", label(check));
            hang(&first, &format!("{}{time}", check.summary), style.width)
        };
        let mut lines = text.lines();
        if let Some(line) = lines.next() {
            // Only the mark is painted, so that the line reads the same without colour.
            writeln!(out, "{}", line.replacen(mark, &style.paint(paint, mark), 1))?;
        }
        for line in lines {
            writeln!(out, "{line}")?;
        }
        for evidence in check.evidence.iter().filter(|_| details) {
            let text = hang("      • ", &format!("{} [{}]", evidence.says, evidence.source), style.width);
            write!(out, "{}", style.paint(Paint::Dim, text))?;
        }
    }
    Ok(())
}

/// Writes the lesson on a cause.
///
/// # Errors
/// Those of `out`.
pub fn lesson(out: &mut dyn Write, lesson: &Lesson, style: Style) -> io::Result<()> {
    let code = lesson.code;
    writeln!(out, "{} · layer {}", style.paint(Paint::Name, code), code.layer())?;
    write!(out, "{}", hang("  ", &sentence(code.meaning()), style.width))?;
    for (title, text) in [
        ("How it looks", lesson.looks),
        ("How it comes about", lesson.why),
        ("What tells it from its look-alikes", lesson.tells),
        ("What to do", lesson.cure),
    ] {
        heading(out, title, style)?;
        write!(out, "{}", hang("  ", text, style.width))?;
    }
    Ok(())
}

/// `server.firewall.input` as `server firewall input`.
pub(super) fn label(check: &Check) -> String {
    check.id.replace('.', " ")
}

pub(super) fn duration(ms: f64) -> String {
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

fn ladder(out: &mut dyn Write, rungs: &[Rung], style: Style) -> io::Result<()> {
    if rungs.is_empty() {
        return Ok(());
    }
    heading(out, "Where the packets were counted", style)?;
    let names: Vec<String> = rungs.iter().map(|rung| format!("{} {}", rung.host, rung.at)).collect();
    let column = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let gap = if style.width < NARROW { 0 } else { 2 };
    writeln!(out, "  {:column$}{:gap$} {:>7}{:gap$} {:>6}", "", "", "request", "", "answer")?;
    // A nought is a loss only where packets of that direction were counted at all.
    let asked = rungs.iter().any(|rung| rung.request.is_some_and(|n| n > 0));
    let answered = rungs.iter().any(|rung| rung.reply.is_some_and(|n| n > 0));
    for (rung, name) in rungs.iter().zip(&names) {
        let request = count(rung.request, 7, asked, style);
        let reply = count(rung.reply, 6, answered, style);
        let line = format!("  {name:column$}{:gap$} {request}{:gap$} {reply}", "", "");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn count(n: Option<u64>, width: usize, lost: bool, style: Style) -> String {
    match n {
        None => format!("{:width$}", ""),
        Some(0) if lost => style.paint(Paint::Bad, format!("{:>width$}", 0)),
        Some(n) => format!("{n:>width$}"),
    }
}

fn reasons(out: &mut dyn Write, cause: &RootCause, style: Style) -> io::Result<()> {
    if cause.evidence.is_empty() {
        return Ok(());
    }
    heading(out, "Why we say so", style)?;
    for evidence in &cause.evidence {
        write!(out, "{}", hang("  • ", &evidence.says, style.width))?;
        let source = hang("    ", &evidence.source, style.width);
        writeln!(out, "{}", style.paint(Paint::Dim, source.trim_end()))?;
    }
    Ok(())
}

fn ruled_out(out: &mut dyn Write, cause: &RootCause, style: Style) -> io::Result<()> {
    if cause.ruled_out.is_empty() {
        return Ok(());
    }
    heading(out, "Ruled out", style)?;
    for group in grouped(cause) {
        write!(out, "{}", hang("  • ", &group, style.width))?;
    }
    Ok(())
}

/// Causes ruled out by one observation share a line.
pub(super) fn grouped(cause: &RootCause) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for out in &cause.ruled_out {
        match groups.iter_mut().find(|(because, _)| *because == out.because) {
            Some((_, codes)) => codes.push(out.code.as_str()),
            None => groups.push((&out.because, vec![out.code.as_str()])),
        }
    }
    groups.into_iter().map(|(because, codes)| format!("{}: {because}", codes.join(", "))).collect()
}

fn open(out: &mut dyn Write, also: &[Code], style: Style) -> io::Result<()> {
    if also.is_empty() {
        return Ok(());
    }
    heading(out, "Not told apart from here", style)?;
    for code in also {
        write!(out, "{}", hang("  • ", &format!("{code}: {}", code.meaning()), style.width))?;
    }
    Ok(())
}

fn fixes(out: &mut dyn Write, cause: &RootCause, style: Style) -> io::Result<()> {
    for Fix { explain, command: fix, undo, on, verified } in &cause.fix {
        let verified = if *verified { " (verified)" } else { "" };
        heading(out, &format!("Fix on the {}{verified}", place(*on)), style)?;
        write!(out, "{}", hang("  ", &sentence(explain), style.width))?;
        if !fix.is_empty() {
            command(out, fix, style)?;
        }
        if !undo.is_empty() {
            writeln!(out, "  {} {undo}", style.paint(Paint::Dim, "undo:"))?;
        }
    }
    Ok(())
}

pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

fn command(out: &mut dyn Write, text: &str, style: Style) -> io::Result<()> {
    writeln!(out, "    {}", style.paint(Paint::Command, text))
}

fn notes(out: &mut dyn Write, title: &str, notes: &[String], style: Style) -> io::Result<()> {
    if notes.is_empty() {
        return Ok(());
    }
    heading(out, title, style)?;
    for note in notes {
        write!(out, "{}", hang("  • ", note, style.width))?;
    }
    Ok(())
}

/// The catalogue, a line a code.
///
/// # Errors
/// Those of `out`.
pub fn causes(out: &mut dyn Write, style: Style) -> io::Result<()> {
    let column = Code::ALL.iter().map(|code| code.as_str().len()).max().unwrap_or(0);
    let mut layer = None;
    for code in Code::ALL {
        if layer != Some(code.layer()) {
            layer = Some(code.layer());
            heading(out, &code.layer().to_string(), style)?;
        }
        let text = hang(&format!("  {:column$}  ", code.as_str()), code.meaning(), style.width);
        write!(out, "{}", text.replacen(code.as_str(), &style.paint(Paint::Name, code), 1))?;
    }
    Ok(())
}
