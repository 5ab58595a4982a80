//! A host's firewall as the lab keeps it: iptables-save text, changed as the `iptables` command would
//! change it, and loaded whole.

use serde::{Deserialize, Serialize};

use crate::os::nft;

/// A host's rules of both families, as `iptables-save` and `ip6tables-save` write them. Empty text is
/// an empty filter table with policies ACCEPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// IPv4.
    pub v4: String,
    /// IPv6.
    pub v6: String,
}

/// A table that lets everything pass.
pub const OPEN: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

impl Firewall {
    /// IPv4 rules alone.
    pub fn v4(text: &str) -> Self {
        Self { v4: text.to_owned(), v6: String::new() }
    }

    /// The text of a family, never empty.
    pub fn text(&self, v6: bool) -> &str {
        let text = if v6 { &self.v6 } else { &self.v4 };
        if text.is_empty() { OPEN } else { text }
    }
}

/// Splits a line into words as a shell does, as far as rules need: quotes and backslashes.
pub fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (Some(q), c) if c == q => quoted = None,
            (None, '"' | '\'') => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Loads both families' rules into the network of the calling thread, in place of what was there.
///
/// # Errors
/// What the loader said.
pub fn load(firewall: &Firewall) -> Result<(), String> {
    for v6 in [false, true] {
        // IPv6's tables are left alone until there is something to put there.
        if v6 && firewall.v6.is_empty() {
            continue;
        }
        nft::load_iptables_save(firewall.text(v6), v6).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let words = words_of(r#"-A INPUT -m comment --comment "two words" -j  DROP 'a "b' c\ d """#);
        assert_eq!(words[5], "two words");
        assert_eq!(words[7..], ["DROP", "a \"b", "c d", ""]);
    }
}
