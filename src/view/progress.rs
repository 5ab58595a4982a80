//! One line on standard error that says what is being done, where someone is watching.

use std::io::Write;

/// A status line; it erases itself when it is dropped.
#[derive(Debug)]
pub struct Progress<W: Write> {
    output: Option<W>,
    shown: bool,
}

impl<W: Write> Progress<W> {
    /// Writes to `output` if `terminal` is true, else stays silent.
    pub fn new(output: W, terminal: bool) -> Self {
        Self { output: terminal.then_some(output), shown: false }
    }

    /// Replaces the line.
    pub fn say(&mut self, what: &str) {
        if let Some(output) = &mut self.output {
            // A status line that cannot be written is no reason to stop.
            let _ = write!(output, "\r\x1b[K… {what}").and_then(|()| output.flush());
            self.shown = true;
        }
    }

    /// Takes the line away, so that results can be printed.
    pub fn clear(&mut self) {
        if let (Some(output), true) = (&mut self.output, self.shown) {
            let _ = write!(output, "\r\x1b[K").and_then(|()| output.flush());
            self.shown = false;
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.clear();
    }
}
