//! Rules in sentences, and the traps among them.

use std::io::{self, Write};

use super::{bare, chain_title, clean, painted, table_title};
use crate::firewall::overview::{ChainView, Overview};
use crate::firewall::traps::Trap;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes every rule in a sentence, its traps right under it.
///
/// # Errors
/// Those of `out`.
pub fn explain(out: &mut dyn Write, page: &Overview, traps: &[Trap], style: Style) -> io::Result<()> {
    for (number, table) in page.tables.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        for line in hang("", &table_title(table), style.width).lines() {
            writeln!(out, "{}", style.paint(Paint::Bold, line))?;
        }
        for view in &table.chains {
            let mine =
                |trap: &&Trap| trap.table == table.table && trap.family == table.family && trap.chain == view.chain;
            let mine: Vec<&Trap> = traps.iter().filter(mine).collect();
            chain(out, view, &mine, style)?;
        }
    }
    if page.tables.is_empty() {
        writeln!(out, "There is no table.")?;
    }
    writeln!(out)?;
    match traps.len() {
        0 => writeln!(out, "{} No trap that the rules alone prove.", style.paint(Paint::Good, "✓")),
        1 => writeln!(out, "{} 1 trap", style.paint(Paint::Warn, "!")),
        n => writeln!(out, "{} {n} traps", style.paint(Paint::Warn, "!")),
    }
}

fn chain(out: &mut dyn Write, view: &ChainView, traps: &[&Trap], style: Style) -> io::Result<()> {
    writeln!(out)?;
    let (name, rest) = chain_title(view);
    painted(out, &hang("", &format!("{name} · {rest}"), style.width), &name, Paint::Name, style)?;
    for trap in traps.iter().filter(|trap| trap.rule.is_none()) {
        told(out, trap, "  ", style)?;
    }
    let column = view.rules.len().to_string().len().max(2);
    for rule in &view.rules {
        let first = format!("  {:>column$}  ", rule.rule);
        write!(out, "{}", hang(&first, &clean(&rule.sentence), style.width))?;
        let indent = " ".repeat(column + 4);
        let line = rule.line.map_or(String::new(), |line| format!("line {line}: "));
        for line in hang(&indent, &clean(&format!("{line}{}", bare(&rule.text))), style.width).lines() {
            writeln!(out, "{}", style.paint(Paint::Dim, line))?;
        }
        for trap in traps.iter().filter(|trap| trap.rule == Some(rule.rule)) {
            told(out, trap, &indent, style)?;
        }
    }
    if let Some(policy) = &view.policy_sentence {
        let first = format!("  {:>column$}  ", "—");
        write!(out, "{}", hang(&first, &clean(policy), style.width))?;
    }
    Ok(())
}

fn told(out: &mut dyn Write, trap: &Trap, indent: &str, style: Style) -> io::Result<()> {
    let text = hang(&format!("{indent}! "), &clean(&format!("{}: {}", trap.code, trap.message)), style.width);
    painted(out, &text, "!", Paint::Warn, style)
}
