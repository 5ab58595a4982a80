//! nf_tables rulesets in the JSON of `nft -j list ruleset` (libnftables-json(5)).
//!
//! What has no place in that schema is `{"reachwhy-unknown": {…}}` within its rule, so that a reader
//! knows that the rule says more than it can read.

mod field;
mod kind;
mod load;
mod objects;
mod rule;
mod sets;
mod statement;

use serde_json::{Value, json};

use super::objects::{Chain, DORMANT, Ruleset, Table, family};

/// The document; `None` when none of the tables is wanted.
pub(crate) fn document(ruleset: &Ruleset, wanted: &dyn Fn(&Table) -> bool) -> Option<String> {
    let mut list = vec![json!({"metainfo": {"json_schema_version": 1, "release_name": "reachwhy",
        "version": env!("CARGO_PKG_VERSION")}})];
    let before = list.len();
    for table in ruleset.tables.iter().filter(|table| wanted(table)) {
        table_objects(ruleset, table, &mut list);
    }
    if list.len() == before {
        return None;
    }
    serde_json::to_string(&json!({"nftables": list})).ok()
}

fn table_objects(ruleset: &Ruleset, table: &Table, list: &mut Vec<Value>) {
    let family = family_name(table.family);
    let dormant = table.flags & DORMANT != 0;
    let mut entry = json!({"family": family, "name": table.name, "handle": table.handle});
    if dormant {
        entry["flags"] = json!("dormant");
    }
    list.push(json!({"table": entry}));
    let of = |other: u8, name: &str| other == table.family && name == table.name;
    list.extend(ruleset.objects.iter().filter(|o| of(o.family, &o.table)).map(objects::object));
    let named = |set: &&super::objects::Set| of(set.family, &set.table) && set.flags & 1 == 0;
    list.extend(ruleset.sets.iter().filter(named).map(sets::named));
    list.extend(ruleset.flowtables.iter().filter(|f| of(f.family, &f.table)).map(objects::flowtable));
    for chain in ruleset.chains_of(table) {
        list.push(chain_object(chain, dormant));
    }
    for chain in ruleset.chains_of(table) {
        for rule in ruleset.rules_of(chain) {
            let mut entry = json!({"family": family, "table": rule.table, "chain": rule.chain,
                "handle": rule.handle, "expr": rule::Decoder::new(ruleset, rule).statements()});
            if let Some(comment) = &rule.comment {
                entry["comment"] = json!(comment);
            }
            list.push(json!({"rule": entry}));
        }
    }
}

/// A dormant table's chains hang on no hook, and are written so: a reader that knows nothing of
/// dormancy then takes none of its rules for active.
fn chain_object(chain: &Chain, dormant: bool) -> Value {
    let mut entry = json!({"family": family_name(chain.family), "table": chain.table, "name": chain.name,
        "handle": chain.handle});
    if let Some(hook) = chain.hook.as_ref().filter(|_| !dormant) {
        entry["type"] = json!(chain.kind.as_deref().unwrap_or("filter"));
        entry["hook"] = json!(hook_name(chain.family, hook.number));
        entry["prio"] = json!(hook.priority);
        entry["policy"] = json!(if chain.policy == Some(0) { "drop" } else { "accept" });
        match hook.devices.as_slice() {
            [] => {}
            [one] => entry["dev"] = json!(one),
            many => entry["dev"] = json!(many),
        }
    }
    json!({"chain": entry})
}

pub(super) fn family_name(number: u8) -> String {
    match number {
        family::INET => "inet",
        family::IPV4 => "ip",
        family::IPV6 => "ip6",
        family::ARP => "arp",
        family::NETDEV => "netdev",
        family::BRIDGE => "bridge",
        _ => return number.to_string(),
    }
    .to_owned()
}

fn hook_name(family: u8, number: u32) -> String {
    match (family, number) {
        (family::NETDEV, 0) | (family::INET, 5) => "ingress",
        (family::NETDEV, 1) => "egress",
        (family::ARP, 0) => "input",
        (_, 0) => "prerouting",
        (family::ARP, 1) | (_, 3) => "output",
        (_, 1) => "input",
        (_, 2) => "forward",
        (_, 4) => "postrouting",
        (_, number) => return number.to_string(),
    }
    .to_owned()
}
