//! nf_tables' tables, chains, rules, sets and elements, read from the kernel.

use std::collections::BTreeMap;

use super::attr::{Attrs, View};
use super::conn::{Answer, Conn, Subsystem};
use super::error::NftError;
use super::expr::{Data, Expr, userdata_comment};

/// `NFT_MSG_*` (include/uapi/linux/netfilter/nf_tables.h).
pub(crate) mod msg {
    pub(crate) const NEWTABLE: u8 = 0;
    pub(crate) const GETTABLE: u8 = 1;
    pub(crate) const DELTABLE: u8 = 2;
    pub(crate) const NEWCHAIN: u8 = 3;
    pub(crate) const GETCHAIN: u8 = 4;
    pub(crate) const NEWRULE: u8 = 6;
    pub(crate) const GETRULE: u8 = 7;
    pub(crate) const NEWSET: u8 = 9;
    pub(crate) const GETSET: u8 = 10;
    pub(crate) const NEWSETELEM: u8 = 12;
    pub(crate) const GETSETELEM: u8 = 13;
    pub(crate) const GETGEN: u8 = 16;
    pub(crate) const GETOBJ: u8 = 19;
    pub(crate) const GETFLOWTABLE: u8 = 23;
}

/// `NFPROTO_*` (include/uapi/linux/netfilter.h).
pub(crate) mod family {
    pub(crate) const INET: u8 = 1;
    pub(crate) const IPV4: u8 = 2;
    pub(crate) const ARP: u8 = 3;
    pub(crate) const NETDEV: u8 = 5;
    pub(crate) const BRIDGE: u8 = 7;
    pub(crate) const IPV6: u8 = 10;
}

/// `NFT_TABLE_F_DORMANT`: its chains are not called.
pub(crate) const DORMANT: u32 = 1;
/// `NFT_TABLE_F_OWNER`: it goes with the socket that made it (Linux 5.12).
pub(crate) const OWNER: u32 = 2;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
    pub(crate) handle: u64,
    pub(crate) flags: u32,
}

/// Where a base chain is called from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `NF_INET_*`, or `NF_NETDEV_INGRESS` 0 and `NF_NETDEV_EGRESS` 1.
    pub(crate) number: u32,
    pub(crate) priority: i32,
    pub(crate) devices: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
    /// `None` for a chain that is only jumped to.
    pub(crate) hook: Option<Hook>,
    /// `filter`, `nat` or `route`.
    pub(crate) kind: Option<String>,
    /// `NF_DROP` or `NF_ACCEPT`.
    pub(crate) policy: Option<u32>,
    /// Packets and bytes, where the chain counts.
    pub(crate) counters: Option<(u64, u64)>,
    /// `NFT_CHAIN_BINDING`: belongs to one rule's `jump { … }`.
    pub(crate) binding: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) handle: u64,
    pub(crate) exprs: Vec<Expr>,
    /// The comment that nft keeps in the user data.
    pub(crate) comment: Option<String>,
    /// `NFTA_RULE_COMPAT`: protocol and flags for x_tables' checks.
    pub(crate) compat: Option<(u32, u32)>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
    /// `NFT_SET_*`.
    pub(crate) flags: u32,
    pub(crate) key_type: u32,
    pub(crate) key_len: u32,
    pub(crate) data_type: Option<u32>,
    /// `NFT_OBJECT_*` that an object map leads to.
    pub(crate) object_type: Option<u32>,
    /// Milliseconds.
    pub(crate) timeout: Option<u64>,
    /// Milliseconds.
    pub(crate) gc_interval: Option<u64>,
    pub(crate) size: Option<u32>,
    /// The byte lengths of a concatenation's fields.
    pub(crate) field_lens: Vec<u32>,
    pub(crate) policy: Option<u32>,
    pub(crate) userdata: Vec<u8>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) elements: Vec<Element>,
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Option<Data>,
    pub(crate) object: Option<String>,
    /// `NFT_SET_ELEM_INTERVAL_END` 1, `NFT_SET_ELEM_CATCHALL` 2.
    pub(crate) flags: u32,
    /// Milliseconds.
    pub(crate) timeout: Option<u64>,
    /// Milliseconds.
    pub(crate) expiration: Option<u64>,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) comment: Option<String>,
}

/// A named object: counter, quota, limit, ct helper ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
    pub(crate) kind: u32,
    pub(crate) data: Vec<u8>,
}

/// A flow table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flowtable {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) handle: u64,
    pub(crate) priority: i32,
    pub(crate) devices: Vec<String>,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    pub(crate) tables: Vec<Table>,
    pub(crate) chains: Vec<Chain>,
    /// By [`Ruleset::place`] of their chain, so that a ruleset of thousands of chains is read in one pass.
    pub(crate) rules: BTreeMap<String, Vec<Rule>>,
    pub(crate) sets: Vec<Set>,
    pub(crate) objects: Vec<Object>,
    pub(crate) flowtables: Vec<Flowtable>,
}

impl Ruleset {
    /// The rules of one chain, in order.
    pub(crate) fn rules_of<'a>(&'a self, chain: &'a Chain) -> impl Iterator<Item = &'a Rule> {
        self.rules.get(&Self::place(chain.family, &chain.table, &chain.name)).into_iter().flatten()
    }

    /// Names a chain among all tables; names have no NUL.
    fn place(family: u8, table: &str, chain: &str) -> String {
        format!("{family}\0{table}\0{chain}")
    }

    /// The chains of one table, in the order they were made.
    pub(crate) fn chains_of<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = &'a Chain> {
        self.chains.iter().filter(|chain| chain.family == table.family && chain.table == table.name)
    }

    /// A set by name.
    pub(crate) fn set(&self, family: u8, table: &str, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.family == family && set.table == table && set.name == name)
    }
}

impl Table {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        Some(Self {
            family: answer.family,
            name: a.string(1)?,
            flags: a.u32(2).unwrap_or(0),
            handle: a.u64(4).unwrap_or(0),
        })
    }
}

impl Hook {
    fn read(a: View<'_>) -> Option<Self> {
        let devices = match (a.nested(4), a.string(3)) {
            (Some(list), _) => list.iter().map(|(_, name)| super::attr::text(name)).collect(),
            (None, Some(one)) => vec![one],
            (None, None) => Vec::new(),
        };
        #[expect(clippy::cast_possible_wrap, reason = "the kernel sends the priority as the bits of an int")]
        let priority = a.u32(2)? as i32;
        Some(Self { number: a.u32(1)?, priority, devices })
    }
}

impl Chain {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        Some(Self {
            family: answer.family,
            table: a.string(1)?,
            handle: a.u64(2).unwrap_or(0),
            name: a.string(3)?,
            hook: a.nested(4).and_then(Hook::read),
            policy: a.u32(5),
            kind: a.string(7),
            counters: a.nested(8).and_then(|counters| Some((counters.u64(2)?, counters.u64(1)?))),
            binding: a.u32(10).unwrap_or(0) & 4 != 0,
        })
    }
}

impl Rule {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        Some(Self {
            family: answer.family,
            table: a.string(1)?,
            chain: a.string(2)?,
            handle: a.u64(3).unwrap_or(0),
            exprs: a.nested(4).map(Expr::read_list).unwrap_or_default(),
            compat: a.nested(5).and_then(|compat| Some((compat.u32(1)?, compat.u32(2)?))),
            comment: a.get(7).and_then(userdata_comment),
        })
    }
}

impl Set {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        let desc = a.nested(9);
        Some(Self {
            family: answer.family,
            table: a.string(1)?,
            name: a.string(2)?,
            flags: a.u32(3).unwrap_or(0),
            key_type: a.u32(4).unwrap_or(0),
            key_len: a.u32(5)?,
            data_type: a.u32(6),
            policy: a.u32(8),
            size: desc.and_then(|desc| desc.u32(1)),
            field_lens: desc
                .and_then(|desc| desc.nested(2))
                .map(|fields| fields.iter().filter_map(|(_, field)| View::new(field).u32(1)).collect())
                .unwrap_or_default(),
            timeout: a.u64(11),
            gc_interval: a.u32(12).map(u64::from),
            userdata: a.get(13).unwrap_or_default().to_vec(),
            object_type: a.u32(15),
            handle: a.u64(16).unwrap_or(0),
            exprs: match (a.nested(17), a.nested(18)) {
                (Some(one), _) => vec![Expr::read(one)],
                (None, Some(many)) => Expr::read_list(many),
                (None, None) => Vec::new(),
            },
            elements: Vec::new(),
        })
    }
}

impl Element {
    fn read(a: View<'_>) -> Self {
        let bytes = |kind| match a.nested(kind).and_then(Data::read) {
            Some(Data::Value(bytes)) => Some(bytes),
            _ => None,
        };
        Self {
            key: bytes(1).unwrap_or_default(),
            key_end: bytes(10),
            data: a.nested(2).and_then(Data::read),
            object: a.string(9),
            flags: a.u32(3).unwrap_or(0),
            timeout: a.u64(4),
            expiration: a.u64(5),
            exprs: match (a.nested(7), a.nested(11)) {
                (Some(one), _) => vec![Expr::read(one)],
                (None, Some(many)) => Expr::read_list(many),
                (None, None) => Vec::new(),
            },
            comment: a.get(6).and_then(userdata_comment),
        }
    }

    pub(crate) fn read_list(answer: &Answer) -> Vec<Self> {
        let Some(list) = View::new(&answer.body).nested(3) else { return Vec::new() };
        list.iter().filter(|(kind, _)| *kind == 1).map(|(_, data)| Self::read(View::new(data))).collect()
    }
}

impl Object {
    fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        Some(Self {
            family: answer.family,
            table: a.string(1)?,
            name: a.string(2)?,
            kind: a.u32(3)?,
            data: a.get(4).unwrap_or_default().to_vec(),
            handle: a.u64(6).unwrap_or(0),
        })
    }
}

impl Flowtable {
    fn read(answer: &Answer) -> Option<Self> {
        let a = View::new(&answer.body);
        let hook = a.nested(3)?;
        #[expect(clippy::cast_possible_wrap, reason = "the kernel sends the priority as the bits of an int")]
        let priority = hook.u32(2).unwrap_or(0) as i32;
        let devices = hook.nested(3).map(|list| list.iter().map(|(_, name)| super::attr::text(name)).collect());
        Some(Self {
            family: answer.family,
            table: a.string(1)?,
            name: a.string(2)?,
            handle: a.u64(5).unwrap_or(0),
            priority,
            devices: devices.unwrap_or_default(),
        })
    }
}

impl Conn {
    /// The tables of all families.
    pub(crate) fn tables(&mut self) -> Result<Vec<Table>, NftError> {
        let answers = self.list("list the tables", msg::GETTABLE).map_err(|error| match error {
            // What nfnetlink answers for a subsystem that the kernel does not have.
            NftError::Refused { what, source } if source.raw_os_error() == Some(libc::EINVAL) => {
                NftError::Refused { what, source: std::io::Error::from_raw_os_error(libc::EOPNOTSUPP) }
            }
            other => other,
        })?;
        Ok(answers.iter().filter_map(Table::read).collect())
    }

    /// The rules of one table, in order.
    pub(crate) fn rules(&mut self, family: u8, table: &str) -> Result<Vec<Rule>, NftError> {
        let attrs = Attrs::new().string(1, table);
        let answers = self.dump("list the rules", Subsystem::Nftables, msg::GETRULE, family, &attrs)?;
        // Kernels before 4.15 ignore the filter.
        let ours = |rule: &Rule| rule.table == table && rule.family == family;
        Ok(answers.iter().filter_map(Rule::read).filter(ours).collect())
    }

    /// The chains of all tables.
    pub(crate) fn chains(&mut self) -> Result<Vec<Chain>, NftError> {
        Ok(self.list("list the chains", msg::GETCHAIN)?.iter().filter_map(Chain::read).collect())
    }

    /// Everything, of one generation of the ruleset.
    pub(crate) fn ruleset(&mut self) -> Result<Ruleset, NftError> {
        let mut before = self.generation()?;
        let mut ruleset = self.ruleset_once()?;
        for _ in 0..4 {
            let after = self.generation()?;
            if after == before {
                break;
            }
            before = after;
            ruleset = self.ruleset_once()?;
        }
        Ok(ruleset)
    }

    fn ruleset_once(&mut self) -> Result<Ruleset, NftError> {
        let mut ruleset = Ruleset { tables: self.tables()?, chains: self.chains()?, ..Ruleset::default() };
        for rule in self.list("list the rules", msg::GETRULE)?.iter().filter_map(Rule::read) {
            ruleset.rules.entry(Ruleset::place(rule.family, &rule.table, &rule.chain)).or_default().push(rule);
        }
        ruleset.sets = self.list("list the sets", msg::GETSET)?.iter().filter_map(Set::read).collect();
        for set in &mut ruleset.sets {
            let attrs = Attrs::new().string(1, &set.table).string(2, &set.name);
            let what = format!("list the elements of set {}", set.name);
            let answers = self.dump(&what, Subsystem::Nftables, msg::GETSETELEM, set.family, &attrs)?;
            set.elements = answers.iter().flat_map(Element::read_list).collect();
        }
        // Kernels before 4.10 have no objects, before 4.16 no flow tables.
        let objects = self.list("list the objects", msg::GETOBJ).unwrap_or_default();
        ruleset.objects = objects.iter().filter_map(Object::read).collect();
        let flowtables = self.list("list the flow tables", msg::GETFLOWTABLE).unwrap_or_default();
        ruleset.flowtables = flowtables.iter().filter_map(Flowtable::read).collect();
        Ok(ruleset)
    }

    fn list(&mut self, what: &str, kind: u8) -> Result<Vec<Answer>, NftError> {
        self.dump(what, Subsystem::Nftables, kind, 0, &Attrs::new())
    }

    /// The ruleset's generation, which changes with every commit; `None` where the kernel does not say.
    fn generation(&mut self) -> Result<Option<u32>, NftError> {
        let flags = netlink_packet_core::NLM_F_ACK;
        match self.ask("read the generation", Subsystem::Nftables, msg::GETGEN, 0, flags, &Attrs::new()) {
            Ok((answers, _)) => Ok(answers.first().and_then(|answer| View::new(&answer.body).u32(1))),
            Err(error) if error.errno() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn reading_never_panics(body: Vec<u8>) {
            let answer = Answer { kind: 0, family: 2, body };
            let _ = (Table::read(&answer), Chain::read(&answer), Rule::read(&answer), Set::read(&answer));
            let _ = (Element::read_list(&answer), Object::read(&answer), Flowtable::read(&answer));
        }
    }
}
