//! The hosts file, and a change of it.

use std::io::{self, Write};

use super::table;
use crate::dns::report::Severity;
use crate::dns::{Edited, LineFinding};
use crate::host::hosts::HostsEntry;
use crate::view::style::{Paint, Style};
use crate::view::text::hang;

/// Writes entries with their lines, and what is wrong; `name` is what was looked for.
///
/// # Errors
/// Those of `out`.
pub fn hosts(
    out: &mut dyn Write,
    path: &str,
    entries: &[&HostsEntry],
    findings: &[&LineFinding],
    name: Option<&str>,
    style: Style,
) -> io::Result<()> {
    match name {
        Some(name) if entries.is_empty() => writeln!(out, "{path} has no line with {name}")?,
        _ => {}
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let names = std::iter::once(&entry.name).chain(&entry.aliases).cloned().collect::<Vec<_>>().join(" ");
            vec![format!("{:>4}", entry.line), entry.address.to_string(), names]
        })
        .collect();
    table(out, &rows, style)?;
    if !findings.is_empty() && !rows.is_empty() {
        writeln!(out)?;
    }
    for finding in findings {
        let (mark, paint) = match finding.severity {
            Severity::Fault => ("✗", Paint::Bad),
            Severity::Warning => ("!", Paint::Warn),
            Severity::Info => ("·", Paint::Dim),
        };
        let place = finding.line.map(|line| format!("{path}:{line}: ")).unwrap_or_default();
        let text = hang(&format!("  {mark} "), &format!("{place}{} ({})", finding.message, finding.code), style.width);
        write!(out, "{}", text.replacen(mark, &style.paint(paint, mark), 1))?;
    }
    if findings.is_empty() && rows.is_empty() && name.is_none() {
        writeln!(out, "{}", style.paint(Paint::Good, format!("✓ nothing is wrong with {path}")))?;
    }
    Ok(())
}

/// Writes the change, what to know about it, and whether it was made.
///
/// # Errors
/// Those of `out`.
pub fn hosts_change(
    out: &mut dyn Write,
    edited: &Edited,
    diff: &str,
    backup: Option<&str>,
    style: Style,
) -> io::Result<()> {
    for line in diff.split_inclusive('\n') {
        let paint = match line.as_bytes().first() {
            Some(b'+') => Paint::Good,
            Some(b'-') => Paint::Bad,
            _ => Paint::Dim,
        };
        let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
        write!(out, "{}{end}", style.paint(paint, text))?;
    }
    for note in &edited.notes {
        write!(out, "{}", hang("! ", note, style.width))?;
    }
    match backup {
        Some(backup) => writeln!(out, "written; the old file is {backup}"),
        None if edited.changes() => writeln!(out, "not written; --write does it"),
        None => writeln!(out, "nothing to change"),
    }
}
