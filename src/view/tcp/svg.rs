//! The sequence diagram as a drawing.

use std::fmt::Write;

use crate::tcp::ladder::{Row, fold_words};
use crate::tcp::{Connection, Severity, ladder, words};

const WIDTH: usize = 960;
const LEFT: usize = 250;
const RIGHT: usize = 710;
/// Between the two lines.
const MIDDLE: usize = 480;
const ROW: usize = 34;
const TOP: usize = 56;

/// Text that may stand in XML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter if letter.is_control() => safe.push('·'),
            letter => safe.push(letter),
        }
    }
    safe
}

/// The diagram of one connection as an SVG document.
pub fn svg(connection: &Connection) -> String {
    let client = connection.client();
    let rows = ladder::rows(connection);
    let height = TOP + ROW * (rows.len() + 1);
    let mut text = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="ui-monospace, monospace" font-size="12">
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="context-stroke"/></marker></defs>
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="20" text-anchor="middle" font-weight="bold">client {from}</text>
<text x="{RIGHT}" y="20" text-anchor="middle" font-weight="bold">server {to}</text>
<path d="M{LEFT} 30V{height}M{RIGHT} 30V{height}" stroke="#888"/>
"##,
        from = connection.ends[client].address,
        to = connection.ends[1 - client].address,
    );
    for (n, row) in rows.iter().enumerate() {
        let y = TOP + ROW * n;
        match row {
            Row::Segment(arrow) => {
                let worst = arrow.notes.iter().map(|(_, severity)| *severity).max();
                let colour = match worst {
                    Some(Severity::Error) => "#c00",
                    Some(Severity::Warn) => "#b60",
                    Some(Severity::Note) => "#06a",
                    _ => "#222",
                };
                // A slope shows that time passes on the way.
                let (from, to) = if arrow.from_client { (LEFT, RIGHT) } else { (RIGHT, LEFT) };
                let _ = write!(
                    text,
                    r##"<path d="M{from} {y}L{to} {y2}" stroke="{colour}" marker-end="url(#tip)"/><text x="{middle}" y="{above}" text-anchor="middle" fill="{colour}">{label}</text><text x="8" y="{y}" fill="#777">{time} #{frame}</text>"##,
                    y2 = y + 8,
                    middle = MIDDLE,
                    above = y - 3,
                    label = escape(&shorten(&arrow.label)),
                    time = words::span(arrow.ns),
                    frame = arrow.frame,
                );
                if !arrow.notes.is_empty() {
                    let notes: Vec<&str> = arrow.notes.iter().map(|(note, _)| note.as_str()).collect();
                    let _ = write!(
                        text,
                        r#"<text x="{}" y="{}" text-anchor="middle" fill="{colour}" font-size="10">{}</text>"#,
                        MIDDLE,
                        y + 17,
                        escape(&notes.join(", "))
                    );
                }
                for (state, x, anchor) in [(arrow.states[0], LEFT - 8, "end"), (arrow.states[1], RIGHT + 8, "start")] {
                    if let Some(state) = state {
                        let _ = write!(
                            text,
                            r##"<text x="{x}" y="{}" text-anchor="{anchor}" fill="#063" font-weight="bold">{state}</text>"##,
                            y + 4
                        );
                    }
                }
            }
            Row::Fold { segments, from_client, from_server, span } => {
                let _ = write!(
                    text,
                    r##"<text x="{}" y="{y}" text-anchor="middle" fill="#777">{}</text>"##,
                    MIDDLE,
                    escape(&fold_words(*segments, *from_client, *from_server, *span))
                );
            }
        }
        text.push('\n');
    }
    text.push_str("</svg>\n");
    text
}

/// A label that fits between the lines.
fn shorten(label: &str) -> String {
    const MOST: usize = 60;
    if label.chars().count() <= MOST {
        return label.to_owned();
    }
    let mut kept: String = label.chars().take(MOST - 1).collect();
    kept.push('…');
    kept
}
