//! `/etc/gai.conf` as glibc reads it (gai.conf(5), `gaiconf_init` in sysdeps/posix/getaddrinfo.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host::Issue;

/// The tables that [`super::order()`] goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GaiConf {
    labels: Vec<(Ipv6Addr, u32, i64)>,
    precedences: Vec<(Ipv6Addr, u32, i64)>,
    scopes: Vec<(Ipv4Addr, u32, i64)>,
    /// Lines that count for nothing.
    pub issues: Vec<Issue>,
    /// Whether the file sets any table.
    pub changed: bool,
}

/// The tables of RFC 3484 with glibc's two additions.
impl Default for GaiConf {
    fn default() -> Self {
        let v6 = |a, b, f| Ipv6Addr::new(a, b, 0, 0, 0, f, 0, 0);
        Self {
            labels: vec![
                (Ipv6Addr::LOCALHOST, 128, 0),
                (v6(0x2002, 0, 0), 16, 2),
                (v6(0, 0, 0), 96, 3),
                (v6(0, 0, 0xffff), 96, 4),
                (v6(0xfec0, 0, 0), 10, 5),
                (v6(0xfc00, 0, 0), 7, 6),
                (v6(0x2001, 0, 0), 32, 7),
                (v6(0, 0, 0), 0, 1),
            ],
            precedences: vec![
                (Ipv6Addr::LOCALHOST, 128, 50),
                (v6(0x2002, 0, 0), 16, 30),
                (v6(0, 0, 0), 96, 20),
                (v6(0, 0, 0xffff), 96, 10),
                (v6(0, 0, 0), 0, 40),
            ],
            scopes: vec![
                (Ipv4Addr::new(169, 254, 0, 0), 16, 2),
                (Ipv4Addr::new(127, 0, 0, 0), 8, 2),
                (Ipv4Addr::UNSPECIFIED, 0, 14),
            ],
            issues: Vec::new(),
            changed: false,
        }
    }
}

impl GaiConf {
    /// Reads the text. One line for a table replaces the whole of that table's defaults.
    pub fn parse(text: &str) -> Self {
        let (mut labels, mut precedences, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
        let mut file = Self::default();
        for (number, line) in text.split('\n').enumerate() {
            let content = line.split('#').next().unwrap_or_default();
            let mut words = content.split_ascii_whitespace();
            let Some(keyword) = words.next() else { continue };
            let (prefix, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let value = value.parse().ok().filter(|value| (0..=i64::from(i32::MAX)).contains(value));
            let read = match keyword {
                "label" => value.and_then(|value| v6_entry(prefix, value)).map(|entry| labels.push(entry)),
                "precedence" => value.and_then(|value| v6_entry(prefix, value)).map(|entry| precedences.push(entry)),
                "scopev4" => value.and_then(|value| v4_entry(prefix, value)).map(|entry| scopes.push(entry)),
                "reload" => Some(()),
                _ => None,
            };
            if read.is_none() {
                let message = format!("`{}` is not read by glibc", content.trim());
                file.issues.push(Issue { line: number + 1, column: 1, message });
            }
        }
        file.changed = !(labels.is_empty() && precedences.is_empty() && scopes.is_empty());
        complete(&mut labels, (Ipv6Addr::UNSPECIFIED, 0, 1), &mut file.labels);
        complete(&mut precedences, (Ipv6Addr::UNSPECIFIED, 0, 40), &mut file.precedences);
        complete(&mut scopes, (Ipv4Addr::UNSPECIFIED, 0, 14), &mut file.scopes);
        file
    }

    /// The label of an address (rule 5).
    pub fn label(&self, address: IpAddr) -> i64 {
        find(&self.labels, address, i64::from(i32::MAX))
    }

    /// The precedence of an address (rule 6).
    pub fn precedence(&self, address: IpAddr) -> i64 {
        find(&self.precedences, address, 0)
    }

    /// The scope of an IPv4 address (rules 2 and 8).
    pub fn scope(&self, address: Ipv4Addr) -> i64 {
        let covers = |net: Ipv4Addr, bits: u32| bits == 0 || (net.to_bits() ^ address.to_bits()) >> (32 - bits) == 0;
        self.scopes.iter().find(|(net, bits, _)| covers(*net, *bits)).map_or(14, |(_, _, scope)| *scope)
    }
}

/// Puts a table from the file in place of the default one, most specific first, with an entry for all.
fn complete<A>(read: &mut Vec<(A, u32, i64)>, all: (A, u32, i64), table: &mut Vec<(A, u32, i64)>) {
    if read.is_empty() {
        return;
    }
    if read.iter().all(|(_, bits, _)| *bits != 0) {
        read.push(all);
    }
    read.sort_by_key(|(_, bits, _)| std::cmp::Reverse(*bits));
    std::mem::swap(read, table);
}

fn find(table: &[(Ipv6Addr, u32, i64)], address: IpAddr, otherwise: i64) -> i64 {
    let own = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let covers = |net: Ipv6Addr, bits: u32| bits == 0 || (net.to_bits() ^ own.to_bits()) >> (128 - bits) == 0;
    table.iter().find(|(net, bits, _)| covers(*net, *bits)).map_or(otherwise, |(_, _, value)| *value)
}

fn v6_entry(prefix: &str, value: i64) -> Option<(Ipv6Addr, u32, i64)> {
    let (net, bits) = prefix.split_once('/').map_or((prefix, Some(128)), |(net, bits)| (net, bits.parse().ok()));
    Some((net.parse().ok()?, bits.filter(|bits| *bits <= 128)?, value))
}

/// `127.0.0.0/8` or the same as a mapped address, `::ffff:127.0.0.0/104`.
fn v4_entry(prefix: &str, value: i64) -> Option<(Ipv4Addr, u32, i64)> {
    let (net, bits) = prefix.split_once('/').map_or((prefix, None), |(net, bits)| (net, bits.parse::<u32>().ok()));
    if let Ok(net) = net.parse::<Ipv4Addr>() {
        return Some((net, bits.unwrap_or(32), value)).filter(|(_, bits, _)| *bits <= 32);
    }
    let net = net.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?;
    Some((net, bits.unwrap_or(128).checked_sub(96).filter(|bits| *bits <= 32)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_replaces_the_defaults_of_its_table() {
        let default = GaiConf::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(default.label(ip("fd00::1")), 6);
        assert_eq!(default.precedence(ip("10.0.0.1")), 10);
        assert_eq!(default.scope(Ipv4Addr::LOCALHOST), 2);
        let file = GaiConf::parse(
            "# x\nprecedence ::ffff:0:0/96  100 # IPv4 first\nscopev4 ::ffff:10.0.0.0/104 5\nlabel x 1\nfoo\n",
        );
        assert_eq!(file.precedence(ip("10.0.0.1")), 100);
        assert_eq!(file.precedence(ip("::1")), 40);
        assert_eq!(file.label(ip("fd00::1")), 6);
        assert_eq!(file.scope(Ipv4Addr::new(10, 1, 1, 1)), 5);
        assert_eq!(file.scope(Ipv4Addr::LOCALHOST), 14);
        assert_eq!(file.issues.iter().map(|issue| issue.line).collect::<Vec<_>>(), [4, 5]);
        assert!(file.changed && !default.changed);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, line in "(label|precedence|scopev4) [0-9a-f:./]{0,20} [0-9]{0,12}", address: IpAddr) {
            let file = GaiConf::parse(&format!("{text}\n{line}"));
            let _ = (file.label(address), file.precedence(address), file.scope(Ipv4Addr::LOCALHOST));
        }
    }
}
