//! A change to a host that is made on trial: what is ordered, and what came of it.

use serde::{Deserialize, Serialize};

/// A change and how to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemedyOrder {
    /// The command that makes the change, for sh(1); steps are joined by ` && `.
    pub command: String,
    /// The command that takes it back; its steps undo those of `command` from the last to the first.
    pub undo: String,
    /// When it is taken back without being told to, milliseconds: the one who ordered it may have cut
    /// itself off by it.
    pub within_ms: u64,
}

/// One command that was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDone {
    /// The command.
    pub command: String,
    /// Its exit code; `None` where a signal ended it or it could not be started.
    pub exit: Option<i32>,
    /// What it printed, both outputs.
    pub said: String,
    /// How long it took, milliseconds.
    pub ms: f64,
}

impl StepDone {
    /// Whether it did what it was to do.
    pub fn worked(&self) -> bool {
        self.exit == Some(0)
    }
}

/// What came of an order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The steps that were run, the last one perhaps in vain.
    pub steps: Vec<StepDone>,
    /// Whether all of it was done. If not, what was done has been taken back.
    pub done: bool,
    /// What was run to take back the part that had been done.
    #[serde(default)]
    pub undone: Vec<StepDone>,
    /// What differs on the host from before: `+ …` is new, `- …` is gone.
    #[serde(default)]
    pub changed: Vec<String>,
}

/// How a trial ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    /// Whether the change stays.
    pub kept: bool,
    /// What was run to take it back.
    pub undone: Vec<StepDone>,
    /// Whether it had been taken back already, because the time was up.
    #[serde(default)]
    pub late: bool,
    /// What still differs from before the change: `+ …` is new, `- …` is gone.
    #[serde(default)]
    pub left: Vec<String>,
}

/// Splits a command at ` && ` outside quotes and substitutions.
pub fn steps(command: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut part, mut single, mut double, mut depth) = (String::new(), false, false, 0_u32);
    let mut rest = command;
    while let Some(c) = rest.chars().next() {
        if !single && !double && depth == 0 && rest.starts_with(" && ") {
            parts.push(std::mem::take(&mut part));
            rest = &rest[4..];
            continue;
        }
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '(' if !single => depth += 1,
            ')' if !single => depth = depth.saturating_sub(1),
            _ => {}
        }
        part.push(c);
        rest = &rest[c.len_utf8()..];
    }
    parts.push(part);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// What takes back the first `done` of `all` steps: the undo's last ones where it has as many, else all of it.
pub fn undo_of(undo: &str, all: usize, done: usize) -> Vec<String> {
    let back = steps(undo);
    if done == 0 {
        Vec::new()
    } else if back.len() == all {
        back.into_iter().skip(all - done.min(all)).collect()
    } else {
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_cut_outside_quotes_only() {
        assert_eq!(steps("a && b"), ["a", "b"]);
        assert_eq!(steps("nft x 'a && b' && c"), ["nft x 'a && b'", "c"]);
        assert_eq!(steps("x \"$(a && b)\""), ["x \"$(a && b)\""]);
        assert_eq!(steps(""), Vec::<String>::new());
    }

    #[test]
    fn a_half_done_change_is_half_undone() {
        // Done: add new, delete old. Undo: add old, delete new.
        assert_eq!(undo_of("add old && del new", 2, 1), ["del new"]);
        assert_eq!(undo_of("add old && del new", 2, 2), ["add old", "del new"]);
        assert_eq!(undo_of("restore", 3, 1), ["restore"]);
        assert!(undo_of("restore", 3, 0).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_command_panics(text: String, done in 0_usize..9) {
            let all = steps(&text).len();
            let _ = undo_of(&text, all, done);
        }
    }
}
