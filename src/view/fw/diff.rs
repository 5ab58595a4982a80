//! Two rulesets, compared.

use std::io::{self, Write};

use super::clean;
use super::query::{decided, region};
use crate::firewall::symbolic::Diff;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes what changes.
///
/// # Errors
/// Those of `out`.
pub fn diff(out: &mut dyn Write, diff: &Diff, only_accepted: bool, style: Style) -> io::Result<()> {
    if diff.equal {
        let says = if only_accepted {
            "Nothing opens up: every packet that is accepted now was accepted before."
        } else {
            "Equal: every packet meets the same end under both rulesets."
        };
        return writeln!(out, "{} {says}", style.paint(Paint::Good, "✓"));
    }
    let n = diff.regions.len();
    let what = if only_accepted { "newly accepted" } else { "treated differently" };
    let areas = if n == 1 { "1 area of packets is".to_owned() } else { format!("{n} areas of packets are") };
    writeln!(out, "{}", style.paint(Paint::Bold, format!("{areas} {what}:")))?;
    for change in &diff.regions {
        writeln!(out)?;
        let opens = change.to.starts_with("accept") && !change.from.starts_with("accept");
        let paint = if opens { Paint::Bad } else { Paint::Warn };
        writeln!(out, "{}", style.paint(paint, format!("{} → {}", change.from, change.to)))?;
        region(out, &change.region, style)?;
        decided(out, "before:", change.old_rule.as_ref(), style)?;
        decided(out, "now:", change.new_rule.as_ref(), style)?;
        if !change.confirmed {
            let says = "internal inconsistency: the walk of the example says otherwise";
            writeln!(out, "    {}", style.paint(Paint::Bad, says))?;
        }
    }
    if !diff.complete {
        writeln!(out, "\n{}", style.paint(Paint::Warn, "… and more: these are not all (--limit)"))?;
    }
    for note in &diff.notes {
        write!(out, "\n{}", hang("note: ", &clean(note), style.width))?;
    }
    Ok(())
}
