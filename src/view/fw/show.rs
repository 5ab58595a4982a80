//! Rulesets as tables.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::{chain_title, clean, painted, table_title};
use crate::firewall::overview::{ChainView, Overview, RuleView, SetView};
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Below this width the fields of a rule share one column.
const NARROW: usize = 72;

/// Writes every table with its chains, policies, counters and sets.
///
/// # Errors
/// Those of `out`.
pub fn show(out: &mut dyn Write, page: &Overview, style: Style) -> io::Result<()> {
    for (number, table) in page.tables.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        for line in hang("", &table_title(table), style.width).lines() {
            writeln!(out, "{}", style.paint(Paint::Bold, line))?;
        }
        for chain in &table.chains {
            writeln!(out)?;
            let (name, rest) = chain_title(chain);
            painted(out, &hang("", &format!("{name} · {rest}"), style.width), &name, Paint::Name, style)?;
            rules(out, chain, style)?;
        }
        sets(out, &table.sets, style)?;
    }
    if page.tables.is_empty() {
        writeln!(out, "There is no table.")?;
    }
    sets(out, &page.sets, style)
}

/// A column: its title, how it is aligned, and a rule's cell.
struct Column {
    title: &'static str,
    right: bool,
    cell: fn(&RuleView) -> String,
}

const fn left(title: &'static str, cell: fn(&RuleView) -> String) -> Column {
    Column { title, right: false, cell }
}

const fn right(title: &'static str, cell: fn(&RuleView) -> String) -> Column {
    Column { title, right: true, cell }
}

fn text(field: Option<&String>) -> String {
    field.cloned().unwrap_or_default()
}

const WIDE: [Column; 10] = [
    right("#", |rule| rule.rule.to_string()),
    right("packets", |rule| rule.counters.map_or(String::new(), |c| c.packets.to_string())),
    right("octets", |rule| rule.counters.map_or(String::new(), |c| c.bytes.to_string())),
    left("action", |rule| rule.action.clone()),
    left("proto", |rule| text(rule.protocol.as_ref())),
    left("in", |rule| text(rule.in_.as_ref())),
    left("out", |rule| text(rule.out.as_ref())),
    left("source", |rule| text(rule.source.as_ref())),
    left("destination", |rule| text(rule.destination.as_ref())),
    left("more", more),
];

const SLIM: [Column; 4] = [
    right("#", |rule| rule.rule.to_string()),
    right("packets", |rule| rule.counters.map_or(String::new(), |c| c.packets.to_string())),
    left("action", |rule| rule.action.clone()),
    left("when", when),
];

fn more(rule: &RuleView) -> String {
    let comment = rule.comment.as_ref().map_or(String::new(), |comment| format!("({comment})"));
    [rule.more.clone(), comment].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn when(rule: &RuleView) -> String {
    let named = |name: &str, field: Option<&String>| field.map(|field| format!("{name} {field}"));
    let parts = [
        rule.protocol.clone(),
        named("in", rule.in_.as_ref()),
        named("out", rule.out.as_ref()),
        named("from", rule.source.as_ref()),
        named("to", rule.destination.as_ref()),
        Some(more(rule)).filter(|more| !more.is_empty()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn rules(out: &mut dyn Write, chain: &ChainView, style: Style) -> io::Result<()> {
    if chain.rules.is_empty() {
        return writeln!(out, "  {}", style.paint(Paint::Dim, "no rules"));
    }
    let columns: &[Column] = if style.width < NARROW { &SLIM } else { &WIDE };
    // A column that no rule of the chain fills is left out; number and action always stand.
    let used: Vec<&Column> = columns
        .iter()
        .filter(|c| matches!(c.title, "#" | "action") || chain.rules.iter().any(|rule| !(c.cell)(rule).is_empty()))
        .collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(style.width.saturating_sub(1)).unwrap_or(u16::MAX));
    if style.color {
        table.enforce_styling();
        table.style_text_only();
    } else {
        table.force_no_tty();
    }
    let dim = |cell: Cell| if style.color { cell.fg(Color::DarkGrey) } else { cell };
    table.set_header(used.iter().map(|c| {
        let cell = dim(Cell::new(c.title));
        if c.right { cell.set_alignment(CellAlignment::Right) } else { cell }
    }));
    for rule in &chain.rules {
        table.add_row(used.iter().map(|c| {
            let content = clean(&(c.cell)(rule));
            let shown = if content.is_empty() && !c.right { "·".to_owned() } else { content };
            let cell = Cell::new(shown);
            let cell = if c.right { cell.set_alignment(CellAlignment::Right) } else { cell };
            match color(rule).filter(|_| c.title == "action" && style.color) {
                Some(color) => cell.fg(color),
                None => cell,
            }
        }));
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}

fn color(rule: &RuleView) -> Option<Color> {
    Some(match rule.action.split_whitespace().next()? {
        "ACCEPT" | "accept" => Color::Green,
        "DROP" | "REJECT" | "drop" | "reject" => Color::Red,
        "count" | "LOG" | "RETURN" => return None,
        _ => Color::Yellow,
    })
}

fn sets(out: &mut dyn Write, sets: &[SetView], style: Style) -> io::Result<()> {
    if sets.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Paint::Bold, "Sets"))?;
    for set in sets {
        let name = clean(&set.set);
        let unreliable = set.unreliable.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        let elements = if set.elements == 1 { "element" } else { "elements" };
        let text = format!("{name} · {} · {} {elements}{unreliable}", clean(&set.kind), set.elements);
        painted(out, &hang("  ", &clean(&text), style.width), &name, Paint::Name, style)?;
    }
    Ok(())
}
