//! `/etc/hosts` as glibc's `files` service reads it (hosts(5), `nss/nss_files/files-hosts.c`).

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::names::{Issue, c_lines, is_space};

/// One line that names an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsEntry {
    /// Line, from 1.
    pub line: usize,
    /// The address.
    pub address: IpAddr,
    /// Its canonical name.
    pub name: String,
    /// Its other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// A hosts file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsFile {
    /// Its entries, in file order.
    pub entries: Vec<HostsEntry>,
    /// Lines that are read as nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
}

impl HostsEntry {
    /// Whether it is for `name`: letter case does not matter, a dot at the end does.
    pub fn has(&self, name: &str) -> bool {
        std::iter::once(&self.name).chain(&self.aliases).any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The address it gives to who asks for IPv4 only: `::1` is given as 127.0.0.1 and a mapped
    /// address as what it maps, as glibc does.
    pub fn as_ipv4(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) if address.is_loopback() => Some(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) => address.to_ipv4_mapped(),
        }
    }
}

impl HostsFile {
    /// Reads the text of a hosts file. Nothing in it is an error: what cannot be read is an issue
    /// with its line, and is skipped.
    ///
    /// ```
    /// let file = reachwhy::host::hosts::HostsFile::parse("192.168.1.3 api.lab api # the data API\n");
    /// assert_eq!(file.lookup("API").next().unwrap().line, 1);
    /// ```
    pub fn parse(text: &str) -> Self {
        Self::read(c_lines(text))
    }

    /// Reads only the lines that have `word` in them, in any letter case: much faster where the file is
    /// a long list of blocked names.
    pub fn parse_lines_with(text: &str, word: &str) -> Self {
        let wanted = word.as_bytes();
        let Some(first) = wanted.first() else { return Self::parse(text) };
        let (small, big) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
        let has = |line: &str| {
            let mut rest = line.as_bytes();
            while let Some(at) = rest.iter().position(|octet| *octet == small || *octet == big) {
                rest = &rest[at..];
                if rest.len() < wanted.len() {
                    return false;
                }
                if rest[..wanted.len()].eq_ignore_ascii_case(wanted) {
                    return true;
                }
                rest = &rest[1..];
            }
            false
        };
        Self::read(c_lines(text).filter(|(_, line)| has(line)))
    }

    fn read<'t>(lines: impl Iterator<Item = (usize, &'t str)>) -> Self {
        let mut file = Self::default();
        for (number, line) in lines {
            let content = line.split('#').next().unwrap_or_default();
            let mut words = content.split(is_space).filter(|word| !word.is_empty());
            let Some(first) = words.next() else { continue };
            let Ok(address) = first.parse::<IpAddr>() else {
                let message = format!("`{first}` is not an address: {}; the line is ignored", why_not(first));
                file.issues.push(Issue::at(number, line, first, message));
                continue;
            };
            let Some(name) = words.next() else {
                file.issues.push(Issue::at(number, line, first, "an address without a name: the line names nothing"));
                continue;
            };
            file.entries.push(HostsEntry {
                line: number,
                address,
                name: name.to_owned(),
                aliases: words.map(str::to_owned).collect(),
            });
        }
        file
    }

    /// All entries for a name, in file order: glibc gives out every one of them.
    pub fn lookup(&self, name: &str) -> impl Iterator<Item = &HostsEntry> {
        self.entries.iter().filter(move |entry| entry.has(name))
    }

    /// All entries for an address: what a reverse lookup finds (the first one counts).
    pub fn reverse(&self, address: IpAddr) -> impl Iterator<Item = &HostsEntry> {
        self.entries.iter().filter(move |entry| entry.address == address)
    }
}

/// The usual ways to get an address wrong, in words.
fn why_not(word: &str) -> &'static str {
    let leading_zero = |part: &str| part.len() > 1 && part.starts_with('0');
    if word.starts_with('\u{feff}') {
        "the file begins with a byte order mark"
    } else if word.contains('%') {
        "a scope (%) is not read here"
    } else if word.contains('/') {
        "a prefix length is not read here"
    } else if word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())) {
        if word.split('.').any(leading_zero) {
            "a number has a leading zero"
        } else {
            "four numbers from 0 to 255 are needed"
        }
    } else {
        "the address comes first on a line, then the names"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "127.0.0.1\tlocalhost\n\n# 10.0.0.1 commented\n::1 localhost ip6-localhost # loopback\n\
        \x20 192.168.1.3   api.lab  API\r\n192.168.1.300 wrong\n10.0.0.1\n192.168.1.4 api.lab\nhost 10.0.0.9\n\
        ::ffff:10.0.0.7 mapped";

    #[test]
    fn finds_every_line_of_a_name_and_says_which() {
        let file = HostsFile::parse(FILE);
        let lines = |name: &str| file.lookup(name).map(|entry| entry.line).collect::<Vec<_>>();
        assert_eq!(lines("LOCALHOST"), [1, 4]);
        assert_eq!(lines("api.lab"), [5, 8]);
        assert_eq!(lines("api"), [5]);
        assert_eq!(lines("api.lab."), [0; 0]);
        assert_eq!(lines("commented"), [0; 0]);
        assert_eq!(lines("#"), [0; 0]);
        assert_eq!(file.reverse("10.0.0.1".parse().unwrap()).count(), 0);
        assert_eq!(file.lookup("ip6-localhost").next().unwrap().as_ipv4(), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(file.lookup("mapped").next().unwrap().as_ipv4(), Some(Ipv4Addr::new(10, 0, 0, 7)));
    }

    #[test]
    fn broken_lines_are_issues_with_their_place() {
        let file = HostsFile::parse(FILE);
        let places: Vec<_> = file.issues.iter().map(|issue| (issue.line, issue.column)).collect();
        assert_eq!(places, [(6, 1), (7, 1), (9, 1)]);
        assert!(file.issues[0].message.contains("0 to 255"), "{:?}", file.issues[0]);
        assert!(HostsFile::parse("  010.0.0.1 a").issues[0].message.contains("leading zero"));
        assert_eq!(HostsFile::parse("  010.0.0.1 a").issues[0].column, 3);
        assert!(HostsFile::parse("\u{feff}10.0.0.1 a").issues[0].message.contains("byte order mark"));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), name in any::<String>()) {
            let _ = HostsFile::parse(&text).lookup(&name).count();
        }

        #[test]
        fn what_is_written_is_found(name in "[a-z][a-z0-9.-]{0,20}", address: IpAddr, before in "([^\n]{0,10}\n){0,5}") {
            let file = HostsFile::parse(&format!("{before}{address} other {name}\n"));
            let line = before.matches('\n').count() + 1;
            prop_assert!(file.lookup(&name).any(|entry| entry.address == address && entry.line == line));
        }
    }
}
