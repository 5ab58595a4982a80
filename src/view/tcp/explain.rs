//! Lessons, as a page of text.

use std::io::{self, Write};

use crate::tcp::lesson::Lesson;
use crate::view::text::hang;
use crate::view::{Paint, Style};

/// Writes the lessons.
pub fn explain(out: &mut dyn Write, lessons: &[Lesson], style: Style) -> io::Result<()> {
    for lesson in lessons {
        writeln!(out, "\n{}", style.paint(Paint::Bold, lesson.title))?;
        for paragraph in &lesson.text {
            write!(out, "{}", hang("  ", paragraph, style.width))?;
        }
    }
    Ok(())
}
