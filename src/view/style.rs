//! Colour and width: decided once, from the flags, `NO_COLOR` and the terminal.

use std::fmt;

use clap::ValueEnum;

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// When the output is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a piece of text means; the same words stand without colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// A heading.
    Bold,
    /// Secondary: times, sources.
    Dim,
    /// Good.
    Good,
    /// Broken.
    Bad,
    /// To be looked at.
    Warn,
    /// A name: a host, a rule, a code.
    Name,
    /// Something to type.
    Command,
}

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences are written.
    pub color: bool,
    /// Columns to fill at the most.
    pub width: usize,
}

impl Style {
    /// No colour, 80 columns: files, tests.
    pub const PLAIN: Self = Self { color: false, width: 80 };

    /// Decides from the flag, whether standard output is a terminal, `NO_COLOR` (any value that is not
    /// empty, see no-color.org) and the terminal's width.
    pub fn decide(choice: ColorChoice, terminal: bool, no_color: bool, columns: Option<u16>) -> Self {
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !no_color,
        };
        let width = columns.map_or(80, usize::from).clamp(40, 120);
        Self { color, width }
    }

    /// `text`, painted where colour is on.
    pub fn paint<T: fmt::Display>(self, paint: Paint, text: T) -> String {
        if !self.color {
            return text.to_string();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "1;31",
            Paint::Warn => "33",
            Paint::Name => "36",
            Paint::Command => "1;34",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
