//! What rules start in the kernel by being there: conntrack and the reassembly of fragments. Without a
//! rule that asks for them neither runs (`nf_ct_netns_get`, `nf_defrag_ipv4_enable`).

use std::collections::HashMap;
use std::net::IpAddr;

use crate::firewall::ruleset::{Comparison, Ext, Field, Ruleset, Target, TargetExt, Test};

/// Whether conntrack runs, and whether fragments are put together for another reason: for IPv4, for IPv6.
pub(super) fn conntrack(rulesets: &[Ruleset]) -> ([bool; 2], [bool; 2]) {
    let (mut tracked, mut whole) = ([false; 2], [false; 2]);
    for table in rulesets.iter().flat_map(|ruleset| &ruleset.tables) {
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            let targets = rule.target.iter().chain(&rule.statements);
            let tracks = rule.matches.iter().any(|m| test(&m.test)) || targets.clone().any(target);
            let joins = rule.matches.iter().any(|m| matches!(m.test, Test::Ext(Ext::Socket(_))))
                || targets.clone().any(|target| matches!(target, Target::Ext(TargetExt::Tproxy(_))));
            for (family, v6) in [(0, false), (1, true)] {
                if table.family.sees(v6) {
                    tracked[family] |= tracks;
                    whole[family] |= joins;
                }
            }
        }
    }
    (tracked, whole)
}

/// The mask of each list of `recent`, by name and family: that of the rule which names it first
/// (`net/netfilter/xt_recent.c`, `recent_mt_check`).
pub(super) fn recent_masks(rulesets: &[Ruleset]) -> HashMap<(String, bool), Option<IpAddr>> {
    let mut masks = HashMap::new();
    for table in rulesets.iter().flat_map(|ruleset| &ruleset.tables) {
        for m in table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches) {
            let Test::Stateful { module, options } = &m.test else { continue };
            if module != "recent" {
                continue;
            }
            let words: Vec<&str> = options.split_ascii_whitespace().collect();
            let value = |name: &str| {
                let at = words.iter().position(|word| *word == name)?;
                words.get(at + 1).map(|word| word.trim_matches('"'))
            };
            let mask: Option<IpAddr> = value("--mask").and_then(|text| text.parse().ok());
            let name = value("--name").unwrap_or("DEFAULT").to_owned();
            for v6 in [false, true] {
                if table.family.sees(v6) {
                    masks.entry((name.clone(), v6)).or_insert(mask);
                }
            }
        }
    }
    masks
}

fn test(test: &Test) -> bool {
    match test {
        Test::Conntrack { .. } | Test::Connmark { .. } => true,
        Test::Ext(ext) => matches!(ext, Ext::Helper(_) | Ext::Cluster(_) | Ext::Connlabel(_)),
        Test::Stateful { module, options } => {
            matches!(module.as_str(), "connbytes" | "connlimit") || options.contains("ct count")
        }
        Test::Compare(comparison) => compares(comparison),
        Test::Unknown { module, options } => module == "ct" || options.contains("ct "),
        _ => false,
    }
}

fn compares(comparison: &Comparison) -> bool {
    comparison.fields.iter().any(|field| match field {
        Field::CtState | Field::CtMark | Field::CtStatus | Field::CtDirection => true,
        Field::Other(text) => text.split(' ').any(|word| word == "ct"),
        _ => false,
    })
}

fn target(target: &Target) -> bool {
    match target {
        Target::Dnat(_)
        | Target::Snat(_)
        | Target::Masquerade(_)
        | Target::Redirect(_)
        | Target::Netmap(_)
        | Target::Connmark(_)
        | Target::Ct { .. }
        | Target::Ext(TargetExt::Synproxy(_))
        // It may.
        | Target::Unknown { .. } => true,
        Target::Continue { name, .. } => name == "CONNSECMARK",
        _ => false,
    }
}
