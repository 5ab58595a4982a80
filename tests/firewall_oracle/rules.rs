//! A ruleset as the generator and the shrinker handle it: lines that can be left out one by one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use reachwhy::firewall::ruleset::PktType;
use reachwhy::wire::MacAddr;
use serde::{Deserialize, Serialize};

/// Who loads the rules and whose code runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// iptables-nft.
    Nft,
    /// iptables-legacy.
    Legacy,
    /// nft's own words.
    Native,
}

/// Which way the packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Focus {
    Input,
    Forward,
    Output,
}

/// One field of a packet.
#[derive(Debug, Clone)]
pub(crate) enum Set {
    Src(IpAddr),
    Dst(IpAddr),
    Proto(u8),
    Sport(u16),
    Dport(u16),
    Flags(u8),
    Options(Vec<u8>),
    Icmp(u8, u8),
    Ttl(u8),
    Tos(u8),
    Length(u16),
    Mac(MacAddr),
    Cast(PktType),
    Mark(u32),
    Fragment(u16, bool),
    Mss(u16),
    /// Octets behind the transport header.
    Payload(Vec<u8>),
    /// A protocol and all octets of its header and what follows.
    Body(u8, Vec<u8>),
    /// An IPv6 extension header: its number, and what follows its first two octets.
    Ext(u8, Vec<u8>),
    /// The source has the hardware address in it.
    Eui64,
}

/// One match, the fields that make it hold, and such as lie close to where it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    pub text: String,
    pub inside: Vec<Set>,
    pub near: Vec<Set>,
}

#[derive(Debug, Clone)]
pub(crate) struct RuleDef {
    pub parts: Vec<Part>,
    pub target: String,
}

#[derive(Debug, Clone)]
pub(crate) struct ChainDef {
    pub name: String,
    /// The policy, or `-`; for nft the line that hooks it, or nothing.
    pub decl: String,
    pub rules: Vec<RuleDef>,
}

#[derive(Debug, Clone)]
pub(crate) struct TableDef {
    /// `filter`; for nft `inet t`.
    pub name: String,
    /// Sets and maps of nft.
    pub extra: Vec<String>,
    pub chains: Vec<ChainDef>,
}

#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub kind: Kind,
    pub v6: bool,
    pub focus: Focus,
    /// It may use conntrack and nat.
    pub nat: bool,
    pub tables: Vec<TableDef>,
    /// Commands of `ipset restore`.
    pub sets: Vec<String>,
    /// The text to be loaded, where it was not made here.
    pub verbatim: Option<String>,
}

impl RuleDef {
    pub(crate) fn text(&self) -> String {
        let mut words: Vec<&str> = self.parts.iter().map(|part| part.text.as_str()).collect();
        words.push(&self.target);
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }
}

impl Rules {
    /// What the tool is given.
    pub(crate) fn text(&self) -> String {
        if let Some(text) = &self.verbatim {
            return text.clone();
        }
        let mut out = String::new();
        for table in &self.tables {
            if self.kind == Kind::Native {
                writeln!(out, "table {} {{", table.name).unwrap();
                for line in &table.extra {
                    writeln!(out, " {line}").unwrap();
                }
                // A chain must be there before it is called.
                for chain in table.chains.iter().rev() {
                    writeln!(out, " chain {} {{ {} }}", chain.name, chain.decl).unwrap();
                }
                out += "}\n";
                for chain in &table.chains {
                    for rule in &chain.rules {
                        writeln!(out, "add rule {} {} {}", table.name, chain.name, rule.text()).unwrap();
                    }
                }
                continue;
            }
            writeln!(out, "*{}", table.name).unwrap();
            for chain in &table.chains {
                writeln!(out, ":{} {} [0:0]", chain.name, chain.decl).unwrap();
            }
            for chain in &table.chains {
                for rule in &chain.rules {
                    writeln!(out, "-A {} {}", chain.name, rule.text()).unwrap();
                }
            }
            out += "COMMIT\n";
        }
        out
    }

    /// Whether fragments are put together before any rule sees them.
    pub(crate) fn joins(&self) -> bool {
        let text = self.text();
        self.nat || text.contains("-m socket") || text.contains("-j TPROXY") || text.contains("-m cluster")
    }

    pub(crate) fn sets_text(&self) -> String {
        self.sets.join("\n") + if self.sets.is_empty() { "" } else { "\n" }
    }

    /// Rules in each chain.
    pub(crate) fn lengths(&self) -> HashMap<(String, String), u32> {
        if self.verbatim.is_some() {
            let parsed = crate::check::dumps_of(self, &self.text(), "");
            let ruleset = reachwhy::firewall::parse::dump(&parsed[0]).unwrap().ruleset;
            let chains = ruleset.tables.into_iter().flat_map(|table| {
                let name = table.name;
                table.chains.into_iter().map(move |chain| (name.clone(), chain))
            });
            return chains
                .map(|(table, chain)| ((table, chain.name), u32::try_from(chain.rules.len()).unwrap()))
                .collect();
        }
        let chains = self.tables.iter().flat_map(|table| table.chains.iter().map(|chain| (&table.name, chain)));
        chains
            .map(|(table, chain)| ((table.clone(), chain.name.clone()), u32::try_from(chain.rules.len()).unwrap()))
            .collect()
    }
}

/// The built-in chains of a table.
pub(crate) fn builtin(table: &str) -> &'static [&'static str] {
    match table {
        "raw" => &["PREROUTING", "OUTPUT"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        _ => &["INPUT", "FORWARD", "OUTPUT"],
    }
}

/// The tables in the order in which their text is written.
pub(crate) fn tables(nat: bool) -> &'static [&'static str] {
    if nat { &["raw", "mangle", "nat", "filter", "security"] } else { &["raw", "mangle", "filter", "security"] }
}

/// Tables without a rule, for iptables-restore.
pub(crate) fn empty_tables(nat: bool) -> String {
    let mut out = String::new();
    for table in tables(nat) {
        writeln!(out, "*{table}").unwrap();
        for chain in builtin(table) {
            writeln!(out, ":{chain} ACCEPT [0:0]").unwrap();
        }
        out += "COMMIT\n";
    }
    out
}
