//! Rulesets in force, kept as text in the formats people know, so that a dump taken from a case
//! file can be read by any tool.

use serde::{Deserialize, Serialize};

/// The format of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DumpFormat {
    /// `iptables-save -c`.
    IptablesSave,
    /// `ip6tables-save -c`.
    Ip6tablesSave,
    /// `nft -j list ruleset`.
    NftJson,
    /// `ipset save`.
    IpsetSave,
    /// `nft list ruleset`, or a file for `nft -f`.
    NftText,
    /// A shell script of `iptables …` and `ipset …` commands.
    Script,
    /// `iptables -L`, or `iptables -S`.
    Listing,
}

/// Which code in the kernel runs the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nf_tables: native rules, and iptables-nft's.
    Nft,
    /// x_tables: iptables-legacy's.
    Legacy,
}

/// One ruleset, or one part of it, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesetDump {
    /// The format of `text`.
    pub format: DumpFormat,
    /// Which code in the kernel runs it.
    pub backend: Backend,
    /// Where it came from: `netlink`, or the command that printed it.
    pub via: String,
    /// The dump itself, with counters.
    pub text: String,
}
