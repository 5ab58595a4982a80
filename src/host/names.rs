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
}
