//! What is wrong with a ruleset.

use std::io::{self, Write};

use super::clean;
use crate::firewall::symbolic::{Finding, Severity};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes the findings, one after the other.
///
/// # Errors
/// Those of `out`.
pub fn lint(out: &mut dyn Write, findings: &[Finding], style: Style) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "{} Nothing found.", style.paint(Paint::Good, "✓"));
    }
    for finding in findings {
        let (word, paint) = match finding.severity {
            Severity::Error => ("error", Paint::Bad),
            Severity::Warning => ("warning", Paint::Warn),
            Severity::Info => ("info", Paint::Dim),
        };
        let line = finding.line.map_or(String::new(), |line| format!(":{line}"));
        let place = match (finding.chain.as_str(), finding.rule) {
            ("", _) => String::new(),
            (chain, Some(rule)) => format!(" {} {chain} rule {rule}", finding.table),
            (chain, None) => format!(" {} {chain}", finding.table),
        };
        writeln!(
            out,
            "{}{} {}{}",
            clean(&finding.source),
            line,
            style.paint(paint, format!("{word}[{}]", finding.code)),
            clean(&place)
        )?;
        write!(out, "{}", hang("    ", &clean(&finding.message), style.width))?;
        if let Some(example) = &finding.example {
            for line in hang("    e.g. ", &clean(example), style.width).lines() {
                writeln!(out, "{}", style.paint(Paint::Dim, line))?;
            }
        }
    }
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let plural = |n: usize, word: &str| if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") };
    let (errors, warnings, notes) = (count(Severity::Error), count(Severity::Warning), count(Severity::Info));
    writeln!(out, "\n{}, {}, {}", plural(errors, "error"), plural(warnings, "warning"), plural(notes, "note"))
}
