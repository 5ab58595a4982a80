//! What is wrong with a text, and where.

use std::fmt;

/// A text that is no ruleset, with the place of the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The file or command the text came from.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// The line itself.
    pub text: String,
    /// What to write instead, where there is something to say.
    pub hint: Option<String>,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.source, self.line, self.column, &self.message, &self.text, self.hint.as_deref())
    }
}

impl std::error::Error for ParseError {}

/// Something odd that the reader could live with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file or command the text came from.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is odd, and what was done about it.
    pub message: String,
    /// The line itself.
    pub text: String,
    /// The tool that loads such a text (iptables-restore, for a dump) refuses it for this.
    pub refused_by_restore: bool,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.source, self.line, self.column, &self.message, &self.text, None)
    }
}

fn show(
    f: &mut fmt::Formatter<'_>,
    source: &str,
    line: u32,
    column: u32,
    message: &str,
    text: &str,
    hint: Option<&str>,
) -> fmt::Result {
    writeln!(f, "{source}:{line}:{column}: {message}")?;
    let number = line.to_string();
    // A line of JSON can be the whole ruleset: show the neighbourhood of the fault only.
    let at = usize::try_from(column.saturating_sub(1)).unwrap_or(0);
    let start = if at > 100 { at - 60 } else { 0 };
    let shown: String = text.chars().skip(start).take(140).map(|c| if c.is_control() { ' ' } else { c }).collect();
    writeln!(f, "  {number} | {shown}")?;
    write!(f, "  {:width$} | {:at$}^", "", "", width = number.len(), at = at - start)?;
    match hint {
        Some(hint) => write!(f, "\nhint: {hint}"),
        None => Ok(()),
    }
}

/// A fault within a line: its column and what is wrong. The reader adds the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) column: u32,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(column: u32, message: impl Into<String>) -> Self {
        Self { column, message: message.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn at(self, source: &str, line: u32, text: &str) -> ParseError {
        ParseError {
            source: source.to_owned(),
            line,
            column: self.column,
            message: self.message,
            text: text.to_owned(),
            hint: self.hint,
        }
    }
}
