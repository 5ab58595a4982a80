//! Reading `nft -j list ruleset` (libnftables-json(5)).

mod expr;
mod statement;
mod text;

use serde_json::Value;

use super::error::{ParseError, Warning};
use super::{Fault, Parsed};
use crate::firewall::ruleset::{
    Base, Chain, ChainKind, Counters, Family, Field, Hook, Match, Operand, Policy, Rule, Ruleset, Set, Table, Target,
    Test,
};
use crate::host::Backend;

pub(super) fn read(text: &str, source: &str) -> Result<Parsed, ParseError> {
    let mut reader =
        Reader { ruleset: Ruleset::empty(Backend::Nft, source), warnings: Vec::new(), source, dormant: Vec::new() };
    if text.trim().is_empty() {
        return Ok(Parsed { ruleset: reader.ruleset, warnings: reader.warnings });
    }
    let document: Value = serde_json::from_str(text).map_err(|error| {
        let line = u32::try_from(error.line()).unwrap_or(1).max(1);
        let column = u32::try_from(error.column()).unwrap_or(1).max(1);
        let shown = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
        // serde_json's message ends with the place, which stands in front already.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        Fault::new(column, format!("no JSON: {message}")).at(source, line, shown)
    })?;
    let Some(items) = document.get("nftables").and_then(Value::as_array) else {
        let first = text.lines().next().unwrap_or("");
        return Err(Fault::new(1, "no list named `nftables`")
            .hint("this is the output of `nft -j list ruleset`")
            .at(source, 1, first));
    };
    // Chains before rules: a rule may stand before the chain it jumps to.
    for item in items {
        reader.container(item);
    }
    for item in items {
        if let Some(rule) = item.get("rule") {
            reader.rule(rule);
        }
    }
    for table in reader.ruleset.tables.iter_mut().filter(|t| reader.dormant.contains(&(t.family, t.name.clone()))) {
        table.chains.iter_mut().for_each(|chain| chain.base = None);
    }
    Ok(Parsed { ruleset: reader.ruleset, warnings: reader.warnings })
}

struct Reader<'a> {
    ruleset: Ruleset,
    warnings: Vec<Warning>,
    source: &'a str,
    /// Tables that are switched off.
    dormant: Vec<(Family, String)>,
}

fn string<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn family(value: &Value) -> Option<Family> {
    Some(match string(value, "family")? {
        "ip" => Family::Ip,
        "ip6" => Family::Ip6,
        "inet" => Family::Inet,
        "arp" => Family::Arp,
        "bridge" => Family::Bridge,
        "netdev" => Family::Netdev,
        _ => return None,
    })
}

impl Reader<'_> {
    fn warn(&mut self, message: impl Into<String>, item: &Value) {
        let mut text = item.to_string();
        if text.len() > 200 {
            text = text.chars().take(200).collect();
        }
        self.warnings.push(Warning {
            source: self.source.to_owned(),
            line: 1,
            column: 1,
            message: message.into(),
            text,
        });
    }

    fn container(&mut self, item: &Value) {
        if let Some(table) = item.get("table") {
            let handle = table.get("handle").and_then(Value::as_u64);
            if let (Some(family), Some(name)) = (family(table), string(table, "name")) {
                self.table(family, name).handle = handle;
                if table.get("flags").is_some_and(|flags| flags.to_string().contains("dormant")) {
                    self.dormant.push((family, name.to_owned()));
                    self.warn(format!("table {name} is dormant: its chains do not run"), item);
                }
            }
        } else if let Some(chain) = item.get("chain") {
            self.chain(chain);
        } else if let Some(set) = item.get("set").or_else(|| item.get("map"))
            && let (Some(family), Some(table)) = (family(set), string(set, "table"))
        {
            let read = read_set(set);
            self.table(family, table).sets.push(read);
        }
    }

    fn table(&mut self, family: Family, name: &str) -> &mut Table {
        let tables = &mut self.ruleset.tables;
        let known = tables.iter().position(|t| t.family == family && t.name == name);
        let index = known.unwrap_or(tables.len());
        if known.is_none() {
            tables.push(Table::empty(family, name));
        }
        &mut tables[index]
    }

    fn chain(&mut self, item: &Value) {
        let (Some(family), Some(table), Some(name)) = (family(item), string(item, "table"), string(item, "name"))
        else {
            self.warn("a chain without family, table or name is left out", item);
            return;
        };
        let hook = string(item, "hook");
        let base = match hook.map(read_hook) {
            None => None,
            Some(Some(hook)) => Some(Base {
                kind: match string(item, "type") {
                    Some("nat") => ChainKind::Nat,
                    Some("route") => ChainKind::Route,
                    _ => ChainKind::Filter,
                },
                hook,
                priority: item.get("prio").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
                policy: if string(item, "policy") == Some("drop") { Policy::Drop } else { Policy::Accept },
                counters: None,
                devices: match item.get("dev") {
                    Some(Value::String(device)) => vec![device.clone()],
                    Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                    _ => Vec::new(),
                },
            }),
            Some(None) => {
                self.warn(format!("chain {name} hangs on a hook that is not evaluated"), item);
                None
            }
        };
        let handle = item.get("handle").and_then(Value::as_u64);
        let chain = Chain { base, handle, ..Chain::user(name) };
        let table = self.table(family, table);
        match table.chain_mut(name) {
            Some(old) => *old = chain,
            None => table.chains.push(chain),
        }
    }

    fn rule(&mut self, item: &Value) {
        let (Some(family), Some(table), Some(chain)) = (family(item), string(item, "table"), string(item, "chain"))
        else {
            self.warn("a rule without family, table or chain is left out", item);
            return;
        };
        let empty = Vec::new();
        let parts = item.get("expr").and_then(Value::as_array).unwrap_or(&empty);
        let mut rule = Rule { handle: item.get("handle").and_then(Value::as_u64), ..Rule::default() };
        let mut changed = false;
        for part in parts {
            if rule.target.is_some() {
                break;
            }
            match statement::read(part, family) {
                statement::Read::Match(m) if changed => {
                    // The statement before this match runs whether it holds or not; the model's
                    // rules match first.
                    let options = m.to_string();
                    rule.matches.push(Match::is(Test::Unknown { module: String::new(), options }));
                }
                statement::Read::Match(m) => rule.matches.push(m),
                statement::Read::Counter(packets, bytes) => rule.counters = Some(Counters { packets, bytes }),
                statement::Read::Nothing => (),
                statement::Read::Target(target) if ends(&target) => rule.target = Some(target),
                statement::Read::Target(target) => {
                    changed |= !target.only_observes();
                    rule.statements.push(target);
                }
            }
        }
        let mut words: Vec<String> = parts.iter().map(text::statement).collect();
        if let Some(comment) = string(item, "comment") {
            rule.matches.push(Match::is(Test::Comment(comment.to_owned())));
            words.push(format!("comment \"{comment}\""));
        }
        rule.text = words.join(" ");
        for unknown in rule.unknown_parts() {
            self.warn(format!("{unknown} is not evaluated: this rule may or may not match"), item);
        }
        let table = self.table(family, table);
        if table.chain(chain).is_none() {
            table.chains.push(Chain::user(chain));
        }
        if let Some(chain) = table.chain_mut(chain) {
            chain.rules.push(rule);
        }
    }
}

/// Whether a statement stands last in its rule for the walk: it gives a verdict, or may.
fn ends(target: &Target) -> bool {
    target.is_terminal()
        || matches!(
            target,
            Target::Return | Target::Jump(_) | Target::Goto(_) | Target::VerdictMap(_) | Target::Unknown { .. }
        )
}

fn read_hook(name: &str) -> Option<Hook> {
    Some(match name {
        "ingress" => Hook::Ingress,
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        "egress" => Hook::Egress,
        _ => return None,
    })
}

fn read_set(item: &Value) -> Set {
    let name = string(item, "name").unwrap_or_default();
    let kind = item.get("type").map_or(String::new(), |kind| match kind {
        Value::String(one) => one.clone(),
        other => text::expr(other),
    });
    let mut set = Set::empty(name, kind);
    set.fields = match item.get("type") {
        Some(Value::Array(list)) => list.iter().map(set_field).collect(),
        Some(one) => match one.get("typeof") {
            Some(of) => expr::fields(of),
            None => vec![set_field(one)],
        },
        None => Vec::new(),
    };
    let verdicts = string(item, "map") == Some("verdict");
    if item.get("map").is_some() && !verdicts {
        set.unreliable = Some("it is a map to values".to_owned());
        return set;
    }
    let empty = Vec::new();
    for element in item.get("elem").and_then(Value::as_array).unwrap_or(&empty) {
        if verdicts {
            if let Some([key, verdict]) = element.as_array().map(Vec::as_slice) {
                set.verdicts.push((set_key(&set.fields, key), statement::verdict(verdict)));
            }
        } else {
            set.keys.push(set_key(&set.fields, element));
        }
    }
    set
}

/// One element's key, out of its `elem` wrapping.
fn set_key(fields: &[Field], element: &Value) -> Vec<Operand> {
    let value = element.get("elem").and_then(|elem| elem.get("val")).unwrap_or(element);
    expr::key(fields, value)
}

/// A field with values of a set's type.
fn set_field(kind: &Value) -> Field {
    match kind.as_str().unwrap_or_default() {
        "ipv4_addr" => Field::Saddr { v6: false },
        "ipv6_addr" => Field::Saddr { v6: true },
        "inet_service" => Field::Dport(None),
        "inet_proto" => Field::L4Proto,
        "mark" => Field::Mark,
        "ifname" | "iface_index" => Field::Iifname,
        "icmp_type" => Field::IcmpType { v6: false },
        "icmpv6_type" => Field::IcmpType { v6: true },
        "ct_state" => Field::CtState,
        "ether_addr" => Field::EtherSaddr,
        "dscp" => Field::Dscp,
        other => Field::Other(other.to_owned()),
    }
}
