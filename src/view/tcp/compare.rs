//! Two captures side by side.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use crate::tcp::CloseBy;
use crate::tcp::compare::{Comparison, Fate};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Uneventful segments in a row that are written out.
const RUN: usize = 6;

/// Writes a comparison; `all` writes every segment.
pub fn compare(out: &mut dyn Write, comparison: &Comparison, all: bool, style: Style) -> io::Result<()> {
    let head = format!(
        "{} → {}  (A #{}, B #{}; {} was taken nearer to the client)",
        comparison.client,
        comparison.server,
        comparison.streams[0],
        comparison.streams[1],
        comparison.client_side.to_uppercase()
    );
    writeln!(out, "{}", style.paint(Paint::Bold, head))?;
    write!(out, "{}", hang("  ", &comparison.verdict, style.width))?;
    if let Some(offset) = comparison.clock_offset_ms {
        writeln!(
            out,
            "  the clock of B is {} ms {} that of A",
            offset.abs(),
            if offset < 0.0 { "behind" } else { "ahead of" }
        )?;
    }
    let mut quiet = 0;
    for one in &comparison.segments {
        if one.fate == Fate::Arrived && !all {
            quiet += 1;
            if quiet > RUN {
                continue;
            }
        } else {
            if quiet > RUN {
                writeln!(out, "    … {} more arrived unchanged", quiet - RUN)?;
            }
            quiet = 0;
        }
        let arrow = if one.from == CloseBy::Client { "→" } else { "←" };
        let frame = |frame: Option<u64>| frame.map_or("-".to_owned(), |frame| format!("#{frame}"));
        let paint = match one.fate {
            Fate::Arrived => Paint::Good,
            Fate::Resegmented => Paint::Dim,
            Fate::Changed | Fate::Duplicated => Paint::Warn,
            Fate::Lost | Fate::NotSent => Paint::Bad,
        };
        let mut line = format!("  {arrow} {:>6} {:>6}  ", frame(one.sent), frame(one.arrived));
        let pad = 11usize.saturating_sub(one.fate.name().width());
        line.push_str(&style.paint(paint, one.fate.name()));
        line.push_str(&" ".repeat(pad + 1));
        line.push_str(&one.segment);
        if let Some(ms) = one.transit_ms {
            line.push_str(&style.paint(Paint::Dim, format!("  {ms} ms")));
        }
        if let Some(hops) = one.hops.filter(|hops| *hops > 0) {
            line.push_str(&style.paint(Paint::Dim, format!(", {hops} hops")));
        }
        writeln!(out, "{line}")?;
        for change in &one.changes {
            write!(out, "{}", hang("                         ", change, style.width))?;
        }
    }
    if quiet > RUN {
        writeln!(out, "    … {} more arrived unchanged", quiet - RUN)?;
    }
    Ok(())
}
