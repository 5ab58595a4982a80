//! The files that decide how a name resolves on this host, verbatim.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A file as it was read, or why it was not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFile {
    /// Its path, as a program in that namespace sees it.
    pub path: String,
    /// Where it leads if it is a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its text; `None` when it is missing or unreadable (see `why`).
    pub text: Option<String>,
    /// Why `text` is `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// hosts, resolv.conf, nsswitch.conf, gai.conf and the variables that bend them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFacts {
    /// `/etc/hosts`.
    pub hosts: TextFile,
    /// `/etc/resolv.conf`.
    pub resolv_conf: TextFile,
    /// `/etc/nsswitch.conf`.
    pub nsswitch: TextFile,
    /// `/etc/gai.conf`.
    pub gai_conf: TextFile,
    /// `LOCALDOMAIN`, `RES_OPTIONS`, `HOSTALIASES`, where set.
    pub environment: BTreeMap<String, String>,
    /// The proxy variables that are set, without passwords.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proxies: BTreeMap<String, String>,
}

/// A place in a file that its reader does not take as the writer meant it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// What is wrong, and what the reader does about it.
    pub message: String,
}

impl Issue {
    /// An issue with `part`, which must be a slice of `line_text`.
    pub(super) fn at(line: usize, line_text: &str, part: &str, message: impl Into<String>) -> Self {
        let offset = (part.as_ptr() as usize).saturating_sub(line_text.as_ptr() as usize).min(line_text.len());
        let column = line_text.char_indices().take_while(|(start, _)| *start < offset).count() + 1;
        Self { line, column, message: message.into() }
    }
}

/// Lines as fgets(3) gives them to glibc's parsers: ended by a line feed, read up to a NUL.
pub(super) fn c_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(at, line)| (at + 1, line.split('\0').next().unwrap_or_default()))
}

/// isspace(3) of the C locale.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}
