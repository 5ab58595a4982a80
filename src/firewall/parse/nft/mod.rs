//! Reading `nft -j list ruleset` (libnftables-json(5)) and nft's text syntax, which is turned into
//! the same items first so that both have one meaning.

mod expr;
mod grammar;
mod lex;
mod literal;
mod maps;
mod phrase;
mod quick;
mod sets;
mod statement;
mod text;
mod value;
mod variables;

use serde_json::Value;

use super::error::{ParseError, Warning};
use super::{Fault, Parsed};
use crate::firewall::ruleset::{
    Base, Chain, ChainKind, Counters, Family, Field, Hook, Match, Operand, Policy, Rule, Ruleset, Set, Table, Target,
    Test,
};
use crate::host::Backend;

/// Reads `nft list ruleset`, or a file for `nft -f`.
pub(super) fn read_text(text: &str, source: &str) -> Result<Parsed, ParseError> {
    let line_of = |line: u32| {
        let index = usize::try_from(line).unwrap_or(1).saturating_sub(1);
        text.lines().nth(index).unwrap_or("").to_owned()
    };
    let items = grammar::read(text).map_err(|wrong| wrong.fault.at(source, wrong.line, &line_of(wrong.line)))?;
    let mut reader = Reader::new(source);
    for (line, column, message) in items.notes {
        reader.warnings.push(Warning {
            source: source.to_owned(),
            line,
            column,
            message,
            text: line_of(line),
            refused_by_restore: false,
        });
    }
    let mut items = items.items;
    let ready: Vec<Option<quick::Ready>> = items.iter_mut().map(|item| item.ready.take()).collect();
    let all = items.iter().zip(ready).map(|(item, ready)| {
        let place = Place { line: item.line, column: item.column, position: item.position, text: item.text.as_str() };
        (&item.value, Some(place), ready)
    });
    Ok(reader.all(all.collect()))
}

pub(super) fn read(text: &str, source: &str) -> Result<Parsed, ParseError> {
    let reader = Reader::new(source);
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
    Ok(reader.all(items.iter().map(|item| (item, None, None)).collect()))
}

/// Where an item of a text stood.
#[derive(Clone, Copy)]
struct Place<'a> {
    line: u32,
    column: u32,
    /// Where a rule goes; `None` for the end of its chain.
    position: Option<usize>,
    /// The rule's own words.
    text: &'a str,
}

struct Reader<'a> {
    ruleset: Ruleset,
    warnings: Vec<Warning>,
    source: &'a str,
    /// Tables that are switched off.
    dormant: Vec<(Family, String)>,
    /// Where the last rule went: its table and chain. Rules of a chain follow each other.
    last: (usize, usize),
}

fn string<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn family(value: &Value) -> Option<Family> {
    family_of(string(value, "family")?)
}

fn family_of(name: &str) -> Option<Family> {
    Some(match name {
        "ip" => Family::Ip,
        "ip6" => Family::Ip6,
        "inet" => Family::Inet,
        "arp" => Family::Arp,
        "bridge" => Family::Bridge,
        "netdev" => Family::Netdev,
        _ => return None,
    })
}

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Self {
        let ruleset = Ruleset::empty(Backend::Nft, source);
        Self { ruleset, warnings: Vec::new(), source, dormant: Vec::new(), last: (0, 0) }
    }

    fn all(mut self, items: Vec<(&Value, Option<Place<'_>>, Option<quick::Ready>)>) -> Parsed {
        // Chains before rules: a rule may stand before the chain it jumps to.
        for (item, place, _) in &items {
            self.container(item, *place);
        }
        let maps = maps::Maps::of(items.iter().map(|(item, ..)| *item));
        for (item, place, ready) in items {
            match (ready, place) {
                (Some(ready), Some(place)) => self.ready(ready, place),
                _ => {
                    if let Some(rule) = item.get("rule") {
                        self.rule(rule, place, &maps);
                    }
                }
            }
        }
        let dormant = &self.dormant;
        for table in self.ruleset.tables.iter_mut().filter(|t| dormant.contains(&(t.family, t.name.clone()))) {
            table.chains.iter_mut().for_each(|chain| chain.base = None);
        }
        Parsed { ruleset: self.ruleset, warnings: self.warnings }
    }

    fn warn(&mut self, message: impl Into<String>, item: &Value, place: Option<Place<'_>>) {
        let text = match place {
            Some(place) if !place.text.is_empty() => {
                let indent = usize::try_from(place.column).unwrap_or(1).saturating_sub(1).min(200);
                format!("{:indent$}{}", "", place.text)
            }
            _ => item.to_string().chars().take(200).collect(),
        };
        self.warnings.push(Warning {
            source: self.source.to_owned(),
            line: place.map_or(1, |p| p.line),
            column: place.map_or(1, |p| p.column),
            message: message.into(),
            text,
            refused_by_restore: false,
        });
    }

    fn container(&mut self, item: &Value, place: Option<Place<'_>>) {
        if let Some(table) = item.get("table") {
            let handle = table.get("handle").and_then(Value::as_u64);
            if let (Some(family), Some(name)) = (family(table), string(table, "name")) {
                self.table(family, name).handle = handle;
                if table.get("flags").is_some_and(|flags| flags.to_string().contains("dormant")) {
                    self.dormant.push((family, name.to_owned()));
                    self.warn(format!("table {name} is dormant: its chains do not run"), item, place);
                }
            }
        } else if let Some(chain) = item.get("chain") {
            self.chain(chain, place);
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

    fn chain(&mut self, item: &Value, place: Option<Place<'_>>) {
        let (Some(family), Some(table), Some(name)) = (family(item), string(item, "table"), string(item, "name"))
        else {
            self.warn("a chain without family, table or name is left out", item, place);
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
                self.warn(format!("chain {name} hangs on a hook that is not evaluated"), item, place);
                None
            }
        };
        let handle = item.get("handle").and_then(Value::as_u64);
        let chain = Chain { base, handle, line: place.map(|p| p.line), ..Chain::user(name) };
        let table = self.table(family, table);
        match table.chain_mut(name) {
            Some(old) => *old = chain,
            None => table.chains.push(chain),
        }
    }

    /// Puts a rule that needs no more reading into its chain.
    fn ready(&mut self, ready: quick::Ready, place: Place<'_>) {
        let quick::Ready { home, mut rule } = ready;
        let Some(family) = family_of(&home.family) else { return };
        rule.line = Some(place.line);
        place.text.clone_into(&mut rule.text);
        let rules = &mut self.rules_of(family, &home.table, &home.chain).rules;
        match place.position {
            Some(position) => rules.insert(position.min(rules.len()), rule),
            None => rules.push(rule),
        }
    }

    fn rule(&mut self, item: &Value, place: Option<Place<'_>>, maps: &maps::Maps<'_>) {
        let (Some(family), Some(table), Some(chain)) = (family(item), string(item, "table"), string(item, "chain"))
        else {
            self.warn("a rule without family, table or chain is left out", item, place);
            return;
        };
        let empty = Vec::new();
        let parts = item.get("expr").and_then(Value::as_array).unwrap_or(&empty);
        let mut rule = Rule { handle: item.get("handle").and_then(Value::as_u64), ..Rule::default() };
        rule.line = place.map(|p| p.line);
        let mut changed = false;
        for (index, part) in parts.iter().enumerate() {
            if rule.target.is_some() {
                break;
            }
            match statement::read(part, &maps.of_table(family, table)) {
                statement::Read::Match(m) if changed => {
                    // The statement before this match runs whether it holds or not; the model's
                    // rules match first.
                    let options = m.to_string();
                    rule.matches.push(Match::is(Test::Unknown { module: String::new(), options }));
                }
                statement::Read::Match(m) => rule.matches.push(m),
                statement::Read::Counter(packets, bytes) => rule.counters = Some(Counters { packets, bytes }),
                statement::Read::Nothing => (),
                statement::Read::Target(Target::VerdictMap(map))
                    if index + 1 < parts.len() && !map.elements.iter().all(|(_, to)| ends(to)) =>
                {
                    // A mark out of a map, and then more: the model's maps end their rules.
                    let options = parts[index + 1..].iter().map(text::statement).collect::<Vec<_>>().join(" ");
                    rule.target = Some(Target::Unknown { name: text::statement(part), options });
                }
                statement::Read::Target(target) if ends(&target) => rule.target = Some(target),
                statement::Read::Target(target) => {
                    changed |= !target.only_observes();
                    rule.statements.push(target);
                }
            }
        }
        if let Some(comment) = string(item, "comment") {
            rule.matches.push(Match::is(Test::Comment(comment.to_owned())));
        }
        if let Some(place) = place {
            place.text.clone_into(&mut rule.text);
        } else {
            let mut words: Vec<String> = parts.iter().map(text::statement).collect();
            words.extend(string(item, "comment").map(|comment| format!("comment \"{comment}\"")));
            rule.text = words.join(" ");
        }
        for unknown in rule.unknown_parts() {
            self.warn(format!("{unknown} is not evaluated: this rule may or may not match"), item, place);
        }
        let rules = &mut self.rules_of(family, table, chain).rules;
        match place.and_then(|place| place.position) {
            Some(position) => rules.insert(position.min(rules.len()), rule),
            None => rules.push(rule),
        }
    }

    /// A chain, made where there is none.
    fn rules_of(&mut self, family: Family, table: &str, chain: &str) -> &mut Chain {
        let (t, c) = self.last;
        let same = self.ruleset.tables.get(t).is_some_and(|found| {
            found.family == family && found.name == table && found.chains.get(c).is_some_and(|c| c.name == chain)
        });
        if !same {
            self.table(family, table);
            let of = |t: &Table| t.family == family && t.name == table;
            let t = self.ruleset.tables.iter().position(of).unwrap_or(0);
            let chains = &mut self.ruleset.tables[t].chains;
            let c = chains.iter().position(|c| c.name == chain).unwrap_or_else(|| {
                chains.push(Chain::user(chain));
                chains.len() - 1
            });
            self.last = (t, c);
        }
        let (t, c) = self.last;
        &mut self.ruleset.tables[t].chains[c]
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
    let fields: Vec<Field> = match item.get("type") {
        Some(Value::Array(list)) => list.iter().map(set_field).collect(),
        Some(one) => match one.get("typeof") {
            Some(of) => expr::fields(of).into_iter().map(typed).collect(),
            None => vec![set_field(one)],
        },
        None => Vec::new(),
    };
    let kind: Vec<String> =
        fields.iter().map(|field| type_of(field).map_or_else(|| field.name(), str::to_owned)).collect();
    let mut set = Set::empty(name, kind.join(" . "));
    set.fields = fields;
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
    // The default is what is left when no other element fits.
    set.verdicts.sort_by_key(|(key, _)| key.as_slice() == [Operand::Any]);
    set
}

/// One element's key, out of its `elem` wrapping.
fn set_key(fields: &[Field], element: &Value) -> Vec<Operand> {
    expr::key(fields, expr::unwrapped(element))
}

/// The types of set keys, with a field that has such values.
const TYPES: [(&str, Field); 20] = [
    ("ipv4_addr", Field::Saddr { v6: false }),
    ("ipv6_addr", Field::Saddr { v6: true }),
    ("inet_service", Field::Dport(None)),
    ("inet_proto", Field::L4Proto),
    ("mark", Field::Mark),
    ("ifname", Field::Iifname),
    ("iface_index", Field::Iifname),
    ("icmp_type", Field::IcmpType { v6: false }),
    ("icmpv6_type", Field::IcmpType { v6: true }),
    ("icmp_code", Field::IcmpCode { v6: false }),
    ("icmpv6_code", Field::IcmpCode { v6: true }),
    ("ct_state", Field::CtState),
    ("ct_status", Field::CtStatus),
    ("ct_dir", Field::CtDirection),
    ("ether_addr", Field::EtherSaddr),
    ("ether_type", Field::EtherType),
    ("nf_proto", Field::NfProto),
    ("dscp", Field::Dscp),
    ("pkt_type", Field::PktType),
    ("tcp_flag", Field::TcpFlags),
];

/// A field with values of a set's type.
fn set_field(kind: &Value) -> Field {
    let name = kind.as_str().unwrap_or_default();
    let found = TYPES.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone());
    found.unwrap_or_else(|| Field::Other(name.to_owned()))
}

/// The type of a field's values.
fn type_of(field: &Field) -> Option<&'static str> {
    let field = typed(field.clone());
    TYPES.iter().find(|(_, known)| *known == field).map(|(name, _)| *name)
}

/// The field that stands for all of one type: `typeof ip daddr` is `type ipv4_addr`.
fn typed(field: Field) -> Field {
    match field {
        Field::Daddr { v6 } => Field::Saddr { v6 },
        Field::Sport(_) | Field::Dport(_) => Field::Dport(None),
        Field::Protocol { .. } => Field::L4Proto,
        Field::CtMark => Field::Mark,
        Field::Oifname => Field::Iifname,
        other => other,
    }
}
