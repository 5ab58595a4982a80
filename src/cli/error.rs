//! What is told when a command cannot do its work.

use std::fmt;

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A problem was found.
    Problem,
    /// Bad usage or input.
    Usage,
    /// Could not find out.
    Unknown,
}

impl Exit {
    /// As the shell sees it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Problem => 1,
            Self::Usage => 2,
            Self::Unknown => 3,
        }
    }
}

/// A failure with its exit code and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened and why.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// Bad usage or input.
    pub fn usage(what: impl fmt::Display, hint: Option<&str>) -> anyhow::Error {
        anyhow::Error::new(Self { exit: Exit::Usage, what: what.to_string(), hint: hint.map(str::to_owned) })
    }

    /// Could not find out.
    pub fn unknown(what: impl fmt::Display, hint: Option<&str>) -> anyhow::Error {
        anyhow::Error::new(Self { exit: Exit::Unknown, what: what.to_string(), hint: hint.map(str::to_owned) })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}
