//! The sequence diagram in a terminal.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use crate::tcp::ladder::{Arrow, Row, fold_words};
use crate::tcp::{Connection, Severity, ladder, words};
use crate::view::{Paint, Style};

/// Columns of the time, and of a state.
const TIME: usize = 10;
const STATE: usize = 13;

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

fn left_pad(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// Cuts a text to a width, with a mark where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for letter in text.chars() {
        if kept.width() + 2 > width {
            break;
        }
        kept.push(letter);
    }
    kept.push('…');
    kept
}

/// Writes the diagram of one connection.
pub fn ladder(out: &mut dyn Write, connection: &Connection, style: Style) -> io::Result<()> {
    let client = connection.client();
    let rows = ladder::rows(connection);
    let width = style.width.max(60);
    let inner = width - TIME - 2 * STATE - 4;
    let (from, to) = (connection.ends[client].address, connection.ends[1 - client].address);
    let (left, right) = (format!("client {from}"), format!("server {to}"));
    let gap = width.saturating_sub(TIME + left.width() + right.width()).max(2);
    writeln!(
        out,
        "{}{}{}{}",
        " ".repeat(TIME),
        style.paint(Paint::Bold, &left),
        " ".repeat(gap),
        style.paint(Paint::Bold, &right)
    )?;
    for row in &rows {
        match row {
            Row::Segment(arrow) => segment(out, arrow, inner, style)?,
            Row::Fold { segments, from_client, from_server, span } => {
                let text = cut(&format!("┄ {}", fold_words(*segments, *from_client, *from_server, *span)), inner + 2);
                let line = format!("{}{}│{}│", " ".repeat(TIME), " ".repeat(STATE), pad(&text, inner + 2));
                writeln!(out, "{}", style.paint(Paint::Dim, line))?;
            }
        }
    }
    if connection.steps_left > 0 {
        let text = format!("… {} more segments are not drawn", connection.steps_left);
        writeln!(out, "{}", style.paint(Paint::Dim, text))?;
    }
    Ok(())
}

fn segment(out: &mut dyn Write, arrow: &Arrow, inner: usize, style: Style) -> io::Result<()> {
    let label = cut(&arrow.label, inner.saturating_sub(4));
    let dashes = inner.saturating_sub(label.width() + 3);
    let line = if arrow.from_client {
        format!("─ {label} {}─▶", "─".repeat(dashes))
    } else {
        format!("◀─{} {label} ─", "─".repeat(dashes))
    };
    let worst = arrow.notes.iter().map(|(_, severity)| *severity).max();
    let paint = match worst {
        Some(Severity::Error) => Some(Paint::Bad),
        Some(Severity::Warn) => Some(Paint::Warn),
        _ => None,
    };
    let line = paint.map_or(line.clone(), |paint| style.paint(paint, &line));
    let state = |end: usize| arrow.states[end].map_or("", crate::tcp::State::name);
    writeln!(
        out,
        "{} {}│{line}│{} {}",
        style.paint(Paint::Dim, left_pad(&words::span(arrow.ns), TIME - 1)),
        style.paint(Paint::Name, pad(state(0), STATE)),
        style.paint(Paint::Name, pad(state(1), STATE - 1)),
        style.paint(Paint::Dim, format!("#{}", arrow.frame)),
    )?;
    if !arrow.notes.is_empty() {
        let notes: Vec<&str> = arrow.notes.iter().map(|(note, _)| note.as_str()).collect();
        let text = cut(&format!("  ^ {}", notes.join(", ")), inner + 2);
        let text = if arrow.from_client {
            pad(&text, inner + 2)
        } else {
            left_pad(&format!("{} ", text.trim_start_matches("  ^ ")), inner + 2)
        };
        let text = style.paint(paint.unwrap_or(Paint::Warn), text);
        writeln!(out, "{}{}│{text}│", " ".repeat(TIME), " ".repeat(STATE))?;
    }
    Ok(())
}
