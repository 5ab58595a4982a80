//! What a service says of itself, and what it therefore probably is.

use serde::Serialize;

/// A service's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Banner {
    /// The protocol that it speaks, where that could be told.
    pub protocol: Option<&'static str>,
    /// Its first line, or what sums its answer up.
    pub says: Option<String>,
}

impl Banner {
    /// The line beside the port.
    pub fn line(&self) -> String {
        self.says.clone().unwrap_or_default()
    }

    /// What else is to be told, a line each.
    pub fn facts(&self) -> Vec<String> {
        Vec::new()
    }
}
