//! Sets of packets.

use std::io::{self, Write};

use super::{bare, clean};
use crate::firewall::symbolic::{QueryAnswer, Region};
use crate::firewall::walk::DecidedBy;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes the packets that were asked for.
///
/// # Errors
/// Those of `out`.
pub fn query(out: &mut dyn Write, answer: &QueryAnswer, asked: &str, style: Style) -> io::Result<()> {
    let of = if answer.space.is_empty() { String::new() } else { format!(" of `{}`", clean(&answer.space)) };
    let extent = match answer.extent {
        "none" => "No packet",
        "all" => "Every packet",
        _ => "These packets",
    };
    let verb = if answer.extent == "some" { asked.to_owned() } else { singular(asked) };
    writeln!(out, "{}", style.paint(Paint::Bold, format!("{extent}{of} {verb}:").replace("packet:", "packet")))?;
    for found in &answer.regions {
        writeln!(out)?;
        region(out, &found.region, style)?;
        decided(out, "by", found.decided_by.as_ref(), style)?;
        if !found.confirmed {
            writeln!(
                out,
                "    {}",
                style.paint(Paint::Bad, "internal inconsistency: the walk of the example says otherwise")
            )?;
        }
    }
    if !answer.complete {
        writeln!(out, "\n{}", style.paint(Paint::Warn, "… and more: these are not all (a narrower SPACE tells them)"))?;
    }
    for note in &answer.notes {
        write!(out, "\n{}", hang("note: ", &clean(note), style.width))?;
    }
    Ok(())
}

fn singular(asked: &str) -> String {
    match asked {
        "pass" => "passes".to_owned(),
        "are dropped" => "is dropped".to_owned(),
        "come to the rule" => "comes to the rule".to_owned(),
        other => other.replace("match", "matches"),
    }
}

/// Writes a box of packets and its example.
pub(super) fn region(out: &mut dyn Write, region: &Region, style: Style) -> io::Result<()> {
    let family = if region.v6 { "ip6 " } else { "" };
    let text = hang(&format!("  {:<8}", region.way.name()), &clean(&format!("{family}{}", region.text)), style.width);
    write!(out, "{}", text.replacen(region.way.name(), &style.paint(Paint::Name, region.way.name()), 1))?;
    for when in region.when() {
        write!(out, "{}", hang("    only when ", &clean(&when), style.width))?;
    }
    let example = hang("    e.g. ", &clean(&region.example.to_string()), style.width);
    for line in example.lines() {
        writeln!(out, "{}", style.paint(Paint::Dim, line))?;
    }
    Ok(())
}

/// Writes which rule decides.
pub(super) fn decided(out: &mut dyn Write, word: &str, by: Option<&DecidedBy>, style: Style) -> io::Result<()> {
    let Some(by) = by else { return Ok(()) };
    let line = by.line.map_or(String::new(), |line| format!(", line {line}"));
    let text = format!("{}{line}: {}", by.place(), bare(&by.text));
    for line in hang(&format!("    {word} "), &clean(&text), style.width).lines() {
        writeln!(out, "{}", style.paint(Paint::Dim, line))?;
    }
    Ok(())
}
