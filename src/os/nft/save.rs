//! iptables-save text: the form that both x_tables and iptables-nft rulesets are put into.

use std::fmt::Write as _;

use super::xt::{not, word};

/// A rule as iptables-save has it. `(true, …)` is negated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SaveRule {
    /// Packets and bytes.
    pub(crate) counters: (u64, u64),
    pub(crate) source: Option<(bool, String)>,
    pub(crate) destination: Option<(bool, String)>,
    pub(crate) in_interface: Option<(bool, String)>,
    pub(crate) out_interface: Option<(bool, String)>,
    pub(crate) protocol: Option<(bool, u8)>,
    /// `-f`, or `! -f`.
    pub(crate) fragment: Option<bool>,
    /// `-m …` each.
    pub(crate) matches: Vec<String>,
    /// `-j …` or `-g …`.
    pub(crate) target: Option<String>,
}

/// A chain with its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SaveChain {
    pub(crate) name: String,
    /// `ACCEPT` or `DROP`; `None` for a user chain.
    pub(crate) policy: Option<&'static str>,
    pub(crate) counters: (u64, u64),
    pub(crate) rules: Vec<SaveRule>,
}

/// A table with its chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SaveTable {
    pub(crate) name: String,
    pub(crate) chains: Vec<SaveChain>,
}

impl SaveRule {
    /// `[1:60] -A INPUT -p tcp …`.
    fn line(&self, chain: &str) -> String {
        let mut line = format!("[{}:{}] -A {}", self.counters.0, self.counters.1, word(chain));
        let words =
            [("-s", &self.source), ("-d", &self.destination), ("-i", &self.in_interface), ("-o", &self.out_interface)];
        for (option, value) in words {
            if let Some((negated, value)) = value {
                let _ = write!(line, " {}{option} {value}", not(*negated));
            }
        }
        if let Some((negated, number)) = self.protocol {
            let _ = write!(line, " {}-p {}", not(negated), protocol_name(number));
        }
        if let Some(fragment) = self.fragment {
            let _ = write!(line, " {}-f", not(!fragment));
        }
        for part in self.matches.iter().chain(&self.target) {
            let _ = write!(line, " {part}");
        }
        line
    }
}

/// The text of some tables, with a first line that says where it came from.
pub(crate) fn text(tables: &[SaveTable], header: &str) -> String {
    let mut out = format!("# {header}\n");
    for table in tables {
        let _ = writeln!(out, "*{}", word(&table.name));
        for chain in &table.chains {
            let (packets, bytes) = chain.counters;
            let _ = writeln!(out, ":{} {} [{packets}:{bytes}]", word(&chain.name), chain.policy.unwrap_or("-"));
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                let _ = writeln!(out, "{}", rule.line(&chain.name));
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// A protocol by the name that every iptables knows, else its number.
pub(crate) fn protocol_name(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipencap",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        43 => "ipv6-route",
        44 => "ipv6-frag",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        59 => "ipv6-nonxt",
        60 => "ipv6-opts",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        115 => "l2tp",
        132 => "sctp",
        136 => "udplite",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// The built-in chains of a table in the order that iptables-save prints them, with hook (`NF_INET_*`),
/// priority and chain type (`enum nf_ip_hook_priorities`).
pub(crate) fn builtin_chains(table: &str) -> &'static [(&'static str, u32, i32, &'static str)] {
    match table {
        "filter" => &[("INPUT", 1, 0, "filter"), ("FORWARD", 2, 0, "filter"), ("OUTPUT", 3, 0, "filter")],
        "nat" => &[
            ("PREROUTING", 0, -100, "nat"),
            ("INPUT", 1, 100, "nat"),
            ("OUTPUT", 3, -100, "nat"),
            ("POSTROUTING", 4, 100, "nat"),
        ],
        "mangle" => &[
            ("PREROUTING", 0, -150, "filter"),
            ("INPUT", 1, -150, "filter"),
            ("FORWARD", 2, -150, "filter"),
            ("OUTPUT", 3, -150, "route"),
            ("POSTROUTING", 4, -150, "filter"),
        ],
        "raw" => &[("PREROUTING", 0, -300, "filter"), ("OUTPUT", 3, -300, "filter")],
        // iptables-nft's own choice; legacy has 50, as the kernel's header says.
        "security" => &[("INPUT", 1, 150, "filter"), ("FORWARD", 2, 150, "filter"), ("OUTPUT", 3, 150, "filter")],
        _ => &[],
    }
}
