//! A fleet's matrix: who reaches whom, and what stands in the way of the rest.

use std::io::{self, Write};

use super::style::{Paint, Style};
use super::text::hang;
use crate::doctor::Verdict;
use crate::doctor::matrix::{Group, Matrix, Pair};

/// The letter of a group: A to Z, a to z; further ones share a star.
fn letter(number: usize) -> char {
    let letters = ('A'..='Z').chain('a'..='z');
    letters.into_iter().nth(number).unwrap_or('*')
}

/// Pairs that are named behind a cause.
const NAMED: usize = 6;

/// Writes the matrix, its causes, and what could not be found out.
///
/// # Errors
/// Those of `out`.
pub fn matrix(out: &mut dyn Write, found: &Matrix, style: Style) -> io::Result<()> {
    let total = found.pairs.len();
    let text = if found.ok == total {
        format!("All {total} pairs work ({}).", found.target)
    } else if found.faults == 0 {
        format!("{} of {total} pairs could not be found out; the others work ({}).", found.unknown, found.target)
    } else {
        let causes = found.causes.len();
        let causes = if causes == 1 { "1 root cause".to_owned() } else { format!("{causes} root causes") };
        let unknown = if found.unknown > 0 { format!(", {} not found out", found.unknown) } else { String::new() };
        format!("{} of {total} pairs do not work{unknown}: {causes} ({}).", found.faults, found.target)
    };
    let (mark, paint) = match found.exit_code() {
        0 => ("✓ ", Paint::Good),
        1 => ("✗ ", Paint::Bad),
        _ => ("? ", Paint::Warn),
    };
    for line in hang(mark, &text, style.width).lines() {
        writeln!(out, "{}", style.paint(paint, line))?;
    }
    writeln!(out)?;
    grid(out, found, style)?;
    for (number, cause) in found.causes.iter().enumerate() {
        group(out, number, cause, style)?;
    }
    unknown(out, found, style)
}

fn grid(out: &mut dyn Write, found: &Matrix, style: Style) -> io::Result<()> {
    let names: Vec<String> = found.hosts.iter().map(|host| clean(&host.name)).collect();
    let title = "from ↓  to →";
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let column = widest.min(style.width / 2).max(title.chars().count());
    let digits = names.len().to_string().len();
    let cell = digits + 1;
    if 2 + digits + 1 + column + names.len() * cell > style.width.max(80) {
        return writeln!(out, "  ({} hosts are too many for a drawing; --json has every pair)", names.len());
    }
    write!(out, "  {:digits$} {title:column$}", "")?;
    for number in 1..=names.len() {
        write!(out, " {number:>digits$}")?;
    }
    writeln!(out)?;
    for (row, name) in names.iter().enumerate() {
        let name: String = name.chars().take(column).collect();
        write!(out, "  {:>digits$} {name:column$}", row + 1)?;
        for to in &found.hosts {
            let pair = found.pairs.iter().find(|pair| pair.from == found.hosts[row].name && pair.to == to.name);
            let (mark, paint) = mark(pair);
            write!(out, " {:1$}{2}", "", digits - 1, style.paint(paint, mark))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn mark(pair: Option<&Pair>) -> (char, Paint) {
    let Some(pair) = pair else { return ('·', Paint::Dim) };
    match (pair.verdict, pair.cause) {
        (Verdict::Ok, _) => ('✓', Paint::Good),
        (_, Some(cause)) => (letter(cause), Paint::Bad),
        (_, None) => ('?', Paint::Warn),
    }
}

fn group(out: &mut dyn Write, number: usize, group: &Group, style: Style) -> io::Result<()> {
    let host = group.host.as_deref().map_or_else(|| "between them".to_owned(), |host| format!("on {}", clean(host)));
    let pairs = if group.pairs.len() == 1 { "1 pair".to_owned() } else { format!("{} pairs", group.pairs.len()) };
    writeln!(out)?;
    let first = format!("  {} ", letter(number));
    let codes: Vec<&str> = std::iter::once(&group.code).chain(&group.also).map(|code| code.as_str()).collect();
    let text = format!("{} {host} · {} · {pairs}", codes.join(" and "), group.confidence);
    let text = hang(&first, &text, style.width);
    write!(out, "{}", text.replacen(group.code.as_str(), &style.paint(Paint::Name, group.code), 1))?;
    write!(out, "{}", hang("    ", &clean(&group.summary), style.width))?;
    write!(out, "{}", hang("    ", &clean(&group.object), style.width))?;
    let mut named: Vec<String> =
        group.pairs.iter().take(NAMED).map(|(from, to)| format!("{} → {}", clean(from), clean(to))).collect();
    if group.pairs.len() > NAMED {
        named.push(format!("and {} more", group.pairs.len() - NAMED));
    }
    let text = hang("    ", &named.join(", "), style.width);
    write!(out, "{}", style.paint(Paint::Dim, text))?;
    for fix in group.fix.iter().take(NAMED) {
        writeln!(out, "    {}", style.paint(Paint::Command, clean(fix)))?;
    }
    Ok(())
}

fn unknown(out: &mut dyn Write, found: &Matrix, style: Style) -> io::Result<()> {
    let mut whys: Vec<(String, usize)> = Vec::new();
    for host in &found.hosts {
        if let Some(error) = &host.error {
            whys.push((format!("{}: {}", clean(&host.name), clean(error)), 0));
        }
    }
    for pair in found.pairs.iter().filter(|pair| pair.verdict == Verdict::Unknown) {
        let why = pair.error.as_deref().map_or_else(|| "it could not be found out".to_owned(), clean);
        if found.hosts.iter().any(|host| host.error.as_deref() == pair.error.as_deref() && host.error.is_some()) {
            continue;
        }
        match whys.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => whys.push((why, 1)),
        }
    }
    if whys.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.paint(Paint::Bold, "Not found out"))?;
    for (why, count) in whys {
        let times = if count > 1 { format!(" ({count} pairs)") } else { String::new() };
        write!(out, "{}", hang("  ? ", &format!("{why}{times}"), style.width))?;
    }
    Ok(())
}

/// What came from another host holds no control characters when it is shown.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
