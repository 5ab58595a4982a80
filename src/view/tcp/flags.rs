//! A set of flags, and what came back to one.

use std::io::{self, Write};

use crate::tcp::flags::FlagsReport;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes what a set means.
pub fn flags(out: &mut dyn Write, report: &FlagsReport, style: Style) -> io::Result<()> {
    let names = if report.names.is_empty() { "no flag".to_owned() } else { report.names.join(", ") };
    let head = format!("{names}  ({}, {}, tcpdump {})", report.hex, report.value, report.tcpdump);
    writeln!(out, "{}", style.paint(Paint::Bold, head))?;
    let (paint, word) = if report.legal { (Paint::Good, "legal") } else { (Paint::Bad, "illegal") };
    let text = hang("  ", &format!("{word}: {}", report.meaning), style.width);
    write!(out, "{}", text.replacen(word, &style.paint(paint, word), 1))?;
    write!(out, "{}", hang("  sent by: ", &report.sent_by, style.width))?;
    writeln!(out, "  a receiver does:")?;
    for answer in &report.answers {
        write!(out, "{}", hang(&format!("    {:<26}", answer.state), answer.does, style.width))?;
    }
    if !report.flags.is_empty() {
        writeln!(out, "  each flag:")?;
    }
    for flag in &report.flags {
        write!(out, "{}", hang(&format!("    {:<4}", flag.name), flag.says, style.width))?;
    }
    writeln!(
        out,
        "  find it: {}",
        style.paint(Paint::Command, format!("reachwhy tcp read FILE --filter '{}'", report.filter))
    )
}
