//! The rulesets in force in the calling thread's network namespace, as text in formats people know.

use std::cell::OnceCell;

use super::conn::Conn;
use super::error::NftError;
use super::ipset::Sets;
use super::ladder::PREFIX;
use super::objects::{Ruleset, Table, family};
use super::{iptables, json, legacy, save};
use crate::host::{Backend, DumpFormat, RulesetDump, Unseen};

/// Reads every ruleset in force: nf_tables (those of iptables-nft as iptables-save text, others in
/// nft's JSON) and x_tables. Our own counting tables are left out.
///
/// Nothing is changed and no kernel module is loaded on purpose. What could not be read is in the
/// second list; where both lists are empty there is no ruleset.
pub fn dumps() -> (Vec<RulesetDump>, Vec<Unseen>) {
    let mut dumps = Vec::new();
    let mut unseen = Vec::new();
    // Read when the first rule names a set; rules and sets are not of one moment, but a set that a
    // rule names cannot go.
    let sets = OnceCell::new();
    let set_name = |index: u16| match sets.get_or_init(Sets::read) {
        Ok(sets) => sets.name(index),
        Err(_) => None,
    };
    match native() {
        Ok(ruleset) => dumps.extend(split(&ruleset, &set_name)),
        Err(error) if error.is_absent() => {}
        Err(error) => unseen.push(not_seen("firewall", &error)),
    }
    for v6 in [false, true] {
        match legacy::tables(v6, &set_name) {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => dumps.push(RulesetDump {
                format: if v6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave },
                backend: Backend::Legacy,
                via: "netlink".to_owned(),
                text: save::text(&tables, &header(v6, "legacy")),
            }),
            Err(error) => {
                let fact = if v6 { "firewall.ip6tables-legacy" } else { "firewall.iptables-legacy" };
                unseen.push(not_seen(fact, &error));
            }
        }
    }
    match sets.get() {
        None => {}
        Some(Ok(sets)) => dumps.push(RulesetDump {
            format: DumpFormat::IpsetSave,
            backend: dumps.first().map_or(Backend::Nft, |dump| dump.backend),
            via: "netlink".to_owned(),
            text: sets.text.clone(),
        }),
        Some(Err(error)) => unseen.push(not_seen("firewall.ipset", error)),
    }
    (dumps, unseen)
}

fn native() -> Result<Ruleset, NftError> {
    let mut ruleset = Conn::open()?.ruleset()?;
    let ours: Vec<_> = ruleset
        .tables
        .iter()
        .filter(|table| table.name.starts_with(PREFIX))
        .map(|table| (table.family, table.name.clone()))
        .collect();
    let theirs = |family: u8, table: &str| !ours.iter().any(|our| (our.0, our.1.as_str()) == (family, table));
    ruleset.tables.retain(|table| theirs(table.family, &table.name));
    ruleset.chains.retain(|chain| theirs(chain.family, &chain.table));
    ruleset.sets.retain(|set| theirs(set.family, &set.table));
    Ok(ruleset)
}

/// One dump for each form that the tables take.
fn split(ruleset: &Ruleset, set_name: &dyn Fn(u16) -> Option<String>) -> Vec<RulesetDump> {
    let mut dumps = Vec::new();
    let mut said = Vec::new();
    for (number, v6) in [(family::IPV4, false), (family::IPV6, true)] {
        let tables: Vec<_> = ruleset
            .tables
            .iter()
            .filter(|table| table.family == number)
            .filter_map(|table| Some((table, iptables::table(ruleset, table, set_name)?)))
            .collect();
        if tables.is_empty() {
            continue;
        }
        said.extend(tables.iter().map(|(table, _)| (table.family, table.name.clone())));
        let tables: Vec<_> = tables.into_iter().map(|(_, text)| text).collect();
        dumps.push(RulesetDump {
            format: if v6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave },
            backend: Backend::Nft,
            via: "netlink".to_owned(),
            text: save::text(&tables, &header(v6, "nf_tables")),
        });
    }
    let native = |table: &Table| !said.iter().any(|(family, name)| (*family, name) == (table.family, &table.name));
    if let Some(text) = json::document(ruleset, &native) {
        dumps.push(RulesetDump { format: DumpFormat::NftJson, backend: Backend::Nft, via: "netlink".to_owned(), text });
    }
    dumps
}

/// The first line of a dump: it names the variant as iptables-save does.
fn header(v6: bool, variant: &str) -> String {
    format!("Read from the kernel in the form of {} ({variant})", if v6 { "ip6tables-save" } else { "iptables-save" })
}

fn not_seen(fact: &str, error: &NftError) -> Unseen {
    let hint = match error {
        // The list of tables is a file for root alone; no network capability opens it.
        NftError::Legacy { .. } if error.errno() == Some(libc::EACCES) => Some("run as root"),
        _ if error.is_denied() => Some(
            "run as root, or grant CAP_NET_ADMIN: \
             sudo setcap cap_net_admin,cap_net_raw+ep \"$(command -v reachwhy)\"",
        ),
        _ => None,
    };
    Unseen { fact: fact.to_owned(), why: error.to_string(), hint: hint.map(str::to_owned) }
}
