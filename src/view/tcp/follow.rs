//! What the applications said to each other.

use std::io::{self, Write};

use crate::tcp::stream::Chunk;
use crate::tcp::words::{count, octets};
use crate::view::{Paint, Style};

/// Writes the data of both directions in the order in which it came.
pub fn follow(out: &mut dyn Write, chunks: &[Chunk], client: usize, hex: bool, style: Style) -> io::Result<()> {
    for chunk in chunks {
        if chunk.missing > 0 {
            let text = format!("[{} are missing in the capture]", octets(chunk.missing));
            writeln!(out, "{}", style.paint(Paint::Warn, text))?;
        }
        let (arrow, paint) = if chunk.side == client { ("→", Paint::Command) } else { ("←", Paint::Good) };
        let push = if chunk.push { ", PSH" } else { "" };
        let head =
            format!("{arrow} frame {}, from octet {}, {}{push}", chunk.frame, chunk.offset, count(chunk.len, "octet"));
        writeln!(out, "{}", style.paint(Paint::Dim, head))?;
        if hex {
            dump(out, &chunk.bytes, chunk.offset)?;
        } else {
            for line in text(&chunk.bytes) {
                writeln!(out, "  {}", style.paint(paint, line))?;
            }
        }
        let kept = chunk.bytes.len() as u64;
        if kept < chunk.len {
            let text = format!("  [{} were cut off by the capture]", octets(chunk.len - kept));
            writeln!(out, "{}", style.paint(Paint::Warn, text))?;
        }
    }
    Ok(())
}

/// Octets as lines; what a terminal could act on is shown as a dot.
fn text(bytes: &[u8]) -> Vec<String> {
    let mut lines = vec![String::new()];
    for letter in String::from_utf8_lossy(bytes).chars() {
        if letter == '\n' {
            lines.push(String::new());
            continue;
        }
        let Some(line) = lines.last_mut() else { continue };
        match letter {
            '\r' => {}
            '\t' => line.push(' '),
            letter if letter.is_control() || letter == '\u{fffd}' => line.push('·'),
            letter => line.push(letter),
        }
    }
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn dump(out: &mut dyn Write, bytes: &[u8], offset: u64) -> io::Result<()> {
    for (n, row) in bytes.chunks(16).enumerate() {
        let hex = row.iter().fold(String::new(), |mut text, byte| {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x} "));
            text
        });
        let plain: String = row
            .iter()
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
            .collect();
        writeln!(out, "  {:08x}  {hex:<48} {plain}", offset + 16 * n as u64)?;
    }
    Ok(())
}
