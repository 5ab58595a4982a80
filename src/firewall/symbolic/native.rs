//! Native nf_tables comparisons as sets.

use crate::firewall::ruleset::{
    AddrTypes, CompareOp, Comparison, CtStates, Field as Nft, Hook, Iface, Operand, Side, Test,
};

use super::bdd::{ALL, NONE, Set};
use super::condition::{Asker, Held, of_family};
use super::env::{Addr, Env};
use super::model::Model;
use super::space::{Field, STATES};

/// What nf_tables loads into a register.
enum Loaded {
    /// A number in variables of its own.
    Field(Field),
    /// A number by its bits.
    Word(Vec<Set>),
    /// An address.
    Addr(Side),
    /// An interface's name.
    Name { incoming: bool },
    /// One of few numbers, each with where it is.
    Few(Vec<(u64, Set)>),
    /// Something this program does not evaluate.
    Unknown,
}

impl Model<'_> {
    /// Where a comparison holds.
    pub(super) fn compare(&mut self, asker: Asker<'_>, env: &Env, comparison: &Comparison) -> Held {
        let there = self.fields_there(env, &comparison.fields);
        let mut simple: Vec<(u128, u128)> = Vec::new();
        let mut sets: Vec<Set> = Vec::new();
        for key in &comparison.operands {
            if comparison.op == CompareOp::Eq
                && comparison.mask.is_none()
                && let ([field], [operand]) = (comparison.fields.as_slice(), key.as_slice())
                && let Some(range) = self.plain_range(field, operand)
            {
                simple.push(range);
                continue;
            }
            let set = match comparison.op {
                CompareOp::Eq => self.key(asker, env, &comparison.fields, comparison.mask, key),
                op => self.order(env, op, comparison, key),
            };
            sets.push(set);
        }
        if !simple.is_empty()
            && let [field] = comparison.fields.as_slice()
        {
            let set = self.in_ranges(env, field, &simple);
            sets.push(set);
        }
        Held { yes: self.space.bdd.any_of(sets), there }
    }

    /// The range of a single operand that needs no mask: of addresses and ports.
    fn plain_range(&self, field: &Nft, operand: &Operand) -> Option<(u128, u128)> {
        match (field, operand) {
            (Nft::Saddr { v6 } | Nft::Daddr { v6 }, Operand::AddrRange(from, to)) if *v6 == self.space.v6 => {
                Some((of_family(*from, *v6)?, of_family(*to, *v6)?))
            }
            (Nft::Sport(Some(_)) | Nft::Dport(Some(_)), Operand::Number(n)) => Some(((*n).into(), (*n).into())),
            (Nft::Sport(Some(_)) | Nft::Dport(Some(_)), Operand::NumberRange(from, to)) => {
                Some(((*from).into(), (*to).into()))
            }
            _ => None,
        }
    }

    /// Where a packet has all of these fields.
    pub(super) fn fields_there(&mut self, env: &Env, fields: &[Nft]) -> Set {
        fields.iter().fold(ALL, |there, field| {
            let own = self.loads(env, field).1;
            self.space.bdd.and(there, own)
        })
    }

    fn in_ranges(&mut self, env: &Env, field: &Nft, ranges: &[(u128, u128)]) -> Set {
        match self.loads(env, field).0 {
            Loaded::Addr(side) => self.addr_within(env, side, ranges),
            Loaded::Field(own) => self.space.within(own, ranges),
            Loaded::Word(word) => {
                let sets: Vec<Set> =
                    ranges.iter().map(|(from, to)| self.space.word_within(&word, *from, *to)).collect();
                self.space.bdd.any_of(sets)
            }
            _ => NONE,
        }
    }

    /// Where the fields equal one key: each of its parts.
    pub(super) fn key(
        &mut self,
        asker: Asker<'_>,
        env: &Env,
        fields: &[Nft],
        mask: Option<u64>,
        key: &[Operand],
    ) -> Set {
        if let [Operand::Set(name)] = key {
            return self.named(asker, env, fields, mask, name);
        }
        if let [Operand::Any] = key {
            return ALL;
        }
        if fields.len() != key.len() {
            return self.open(format!("{fields:?} {key:?}"), format!("a key of another shape: {key:?}"));
        }
        let mut all = ALL;
        for (field, operand) in fields.iter().zip(key) {
            let set = self.part(env, field, mask, operand);
            all = self.space.bdd.and(all, set);
        }
        all
    }

    fn named(&mut self, asker: Asker<'_>, env: &Env, fields: &[Nft], mask: Option<u64>, name: &str) -> Set {
        let set = self.stack.at(asker.at).and_then(|(_, table, _)| table.sets.iter().find(|set| set.name == name));
        let Some(set) = set else {
            return self.open(format!("set @{name}"), format!("set @{name}, which is not given"));
        };
        let mut sets = Vec::new();
        let mut simple = Vec::new();
        for key in &set.keys {
            if mask.is_none()
                && let ([field], [operand]) = (fields, key.as_slice())
                && let Some(range) = self.plain_range(field, operand)
            {
                simple.push(range);
            } else {
                sets.push(self.key(asker, env, fields, mask, key));
            }
        }
        if !simple.is_empty()
            && let [field] = fields
        {
            let set = self.in_ranges(env, field, &simple);
            sets.push(set);
        }
        if let Some(why) = &set.unreliable {
            // Elements that rules add hold beside those of the dump.
            let open = self.open(format!("set @{name} now"), format!("an element of set @{name} ({why})"));
            sets.push(open);
        }
        self.space.bdd.any_of(sets)
    }

    fn part(&mut self, env: &Env, field: &Nft, mask: Option<u64>, operand: &Operand) -> Set {
        if matches!(operand, Operand::Any) {
            return ALL;
        }
        let unknown = |model: &mut Self| {
            let text = format!("{} {operand}", field.name());
            let key = if env.moved() { format!("{text} {} translated", env.hook) } else { text.clone() };
            model.open(key, text)
        };
        let (loaded, _) = self.loads(env, field);
        let range = match operand {
            Operand::Number(n) => Some((*n, *n)),
            Operand::NumberRange(from, to) => Some((*from, *to)),
            _ => None,
        };
        match (loaded, operand, range) {
            (Loaded::Addr(side), Operand::AddrRange(from, to), _) => {
                match (of_family(*from, self.space.v6), of_family(*to, self.space.v6)) {
                    (Some(from), Some(to)) => self.addr_within(env, side, &[(from, to)]),
                    _ => NONE,
                }
            }
            (Loaded::Name { incoming }, Operand::Name(pattern), _) => {
                let iface = match pattern.strip_suffix('*') {
                    Some(begin) => Iface { name: begin.to_owned(), prefix: true },
                    None => Iface { name: pattern.clone(), prefix: false },
                };
                self.iface(env, incoming, &iface)
            }
            (Loaded::Field(own), _, Some((from, to))) if mask.is_none() => {
                self.space.within(own, &[(from.into(), to.into())])
            }
            (Loaded::Field(own), _, Some((from, to))) => {
                let word = self.space.word(own);
                self.word_range(&word, mask, from, to)
            }
            (Loaded::Word(word), _, Some((from, to))) => self.word_range(&word, mask, from, to),
            (Loaded::Few(few), _, Some((from, to))) => {
                let fits = |n: u64| (from..=to).contains(&(n & mask.unwrap_or(u64::MAX)));
                self.space.bdd.any_of(few.into_iter().filter(|(n, _)| fits(*n)).map(|(_, set)| set).collect())
            }
            _ => unknown(self),
        }
    }

    fn order(&mut self, env: &Env, op: CompareOp, comparison: &Comparison, key: &[Operand]) -> Set {
        let ([field], Some(operand)) = (comparison.fields.as_slice(), key.first()) else {
            return self.open(format!("{comparison:?}"), "a comparison that is not evaluated".to_owned());
        };
        let with = match operand {
            Operand::Number(with) => *with,
            Operand::AddrRange(from, to) => {
                let (Some(from), Some(to)) = (of_family(*from, self.space.v6), of_family(*to, self.space.v6)) else {
                    return NONE;
                };
                let Loaded::Addr(side) = self.loads(env, field).0 else { return NONE };
                let range = match op {
                    CompareOp::Lt => from.checked_sub(1).map(|last| (0, last)),
                    CompareOp::Gt => to.checked_add(1).map(|first| (first, u128::MAX)),
                    CompareOp::Le => Some((0, to)),
                    _ => Some((from, u128::MAX)),
                };
                return range.map_or(NONE, |range| self.addr_within(env, side, &[range]));
            }
            _ => return self.part(env, field, comparison.mask, operand),
        };
        if op == CompareOp::Flags {
            return match self.loads(env, field).0 {
                Loaded::Few(few) => {
                    let mask = comparison.mask.unwrap_or(u64::MAX);
                    let fits = few.into_iter().filter(|(n, _)| n & mask & with != 0).map(|(_, set)| set).collect();
                    self.space.bdd.any_of(fits)
                }
                loaded => {
                    let Some(word) = self.word_of(loaded) else {
                        return self.part(env, field, comparison.mask, operand);
                    };
                    let with = with & comparison.mask.unwrap_or(u64::MAX);
                    let bits = word.iter().rev().enumerate().filter(|(n, _)| *n < 64 && with >> n & 1 == 1);
                    let bits: Vec<Set> = bits.map(|(_, bit)| *bit).collect();
                    self.space.bdd.any_of(bits)
                }
            };
        }
        let (from, to) = match op {
            CompareOp::Lt if with == 0 => return NONE,
            CompareOp::Lt => (0, with - 1),
            CompareOp::Le => (0, with),
            CompareOp::Gt if with == u64::MAX => return NONE,
            CompareOp::Gt => (with + 1, u64::MAX),
            _ => (with, u64::MAX),
        };
        self.part(env, field, comparison.mask, &Operand::NumberRange(from, to))
    }

    fn word_of(&mut self, loaded: Loaded) -> Option<Vec<Set>> {
        match loaded {
            Loaded::Field(field) => Some(self.space.word(field)),
            Loaded::Word(word) => Some(word),
            _ => None,
        }
    }

    /// What a field is here, and where it is there at all.
    fn loads(&mut self, env: &Env, field: &Nft) -> (Loaded, Set) {
        let v6 = self.space.v6;
        let asks = match field {
            Nft::Mark => Some(Field::Mark),
            Nft::CtMark => Some(Field::Connmark),
            Nft::Ttl => Some(Field::Ttl),
            Nft::Dscp => Some(Field::Tos),
            Nft::Length => Some(Field::Length),
            Nft::Skuid => Some(Field::Uid),
            Nft::Skgid => Some(Field::Gid),
            Nft::EtherSaddr => Some(Field::Mac),
            _ => None,
        };
        if let Some(asked) = asks {
            self.space.ask(asked);
        }
        let ip = |six: bool| Env::there(six == v6);
        match field {
            Nft::Saddr { v6: six } => (Loaded::Addr(Side::Source), ip(*six)),
            Nft::Daddr { v6: six } => (Loaded::Addr(Side::Destination), ip(*six)),
            Nft::Protocol { v6: six } => (Loaded::Field(Field::Proto), ip(*six)),
            Nft::L4Proto => (Loaded::Field(Field::Proto), ALL),
            Nft::NfProto => (Loaded::Few(vec![(if v6 { 10 } else { 2 }, ALL)]), ALL),
            Nft::EtherType => (Loaded::Few(vec![(if v6 { 0x86dd } else { 0x0800 }, ALL)]), ALL),
            Nft::Sport(proto) | Nft::Dport(proto) => {
                let own = match (field, env.new_sport, env.new_dport) {
                    (Nft::Sport(_), true, _) => Field::NewSport,
                    (Nft::Sport(_), ..) => Field::Sport,
                    (_, _, true) => Field::NewDport,
                    _ => Field::Dport,
                };
                let there = match proto {
                    Some(proto) => self.native(*proto),
                    // Of another protocol's header whatever stands there, which is not modelled: the
                    // port's own variables stand for it too.
                    None if v6 => self.whole(),
                    None => ALL,
                };
                (Loaded::Field(own), there)
            }
            Nft::TcpFlags => (Loaded::Field(Field::Flags), self.native(6)),
            Nft::IcmpType { v6: six } | Nft::IcmpCode { v6: six } => {
                let there = if *six == v6 { self.native(if v6 { 58 } else { 1 }) } else { NONE };
                let word = self.space.word(Field::Dport);
                let half = if matches!(field, Nft::IcmpType { .. }) { word[..8].to_vec() } else { word[8..].to_vec() };
                (Loaded::Word(half), there)
            }
            Nft::Iifname => (Loaded::Name { incoming: true }, ALL),
            Nft::Oifname => (Loaded::Name { incoming: false }, ALL),
            Nft::Mark if env.mark_open => (Loaded::Unknown, ALL),
            Nft::Mark => (Loaded::Word(env.mark.clone()), ALL),
            Nft::CtState => {
                // nft numbers them as bits: invalid 1, established 2, related 4, new 8, untracked 64.
                let number =
                    |state: CtStates| if state == CtStates::UNTRACKED { 64 } else { u64::from(state.0 & 0x0f) };
                let few = STATES.into_iter().map(|state| (number(state), self.sees(env, state))).collect();
                (Loaded::Few(few), ALL)
            }
            Nft::CtMark => (Loaded::Word(env.connmark.clone()), env.has_flow(self.space)),
            Nft::CtStatus | Nft::CtDirection => {
                let flow = env.has_flow(self.space);
                let fresh = env.state(self.space, &[0]);
                if *field == Nft::CtDirection {
                    let back = self.open("ct direction".to_owned(), "ct direction reply".to_owned());
                    let back = self.space.bdd.minus(back, fresh);
                    return (Loaded::Few(vec![(0, !back), (1, back)]), flow);
                }
                // IPS_SRC_NAT 16, IPS_DST_NAT 32; the others of a flow that is not new are not known.
                (Loaded::Few(self.statuses(env, fresh)), flow)
            }
            Nft::Ttl => (Loaded::Word(env.ttl.clone()), ALL),
            Nft::Dscp => (Loaded::Word(env.tos[..6].to_vec()), ALL),
            Nft::Length => (Loaded::Field(Field::Length), ALL),
            Nft::Skuid | Nft::Skgid => {
                let own = if *field == Nft::Skuid { Field::Uid } else { Field::Gid };
                let there = !env.came_in && matches!(env.hook, Hook::Output | Hook::Postrouting);
                (Loaded::Field(own), Env::there(there || self.cautious))
            }
            Nft::PktType => {
                let few = (0..3u64).map(|kind| {
                    let set = if env.came_in {
                        self.space.equals(Field::PktType, kind.into())
                    } else {
                        Env::there(kind == 0)
                    };
                    (kind, set)
                });
                (Loaded::Few(few.collect()), ALL)
            }
            Nft::EtherSaddr => (Loaded::Field(Field::Mac), ALL),
            Nft::FibType { destination } => {
                let side = if *destination { Side::Destination } else { Side::Source };
                let few = [1u64, 2, 3, 4, 5, 6, 7, 8].map(|kind| (kind, self.fib_type(env, side, kind)));
                (Loaded::Few(few.to_vec()), ALL)
            }
            Nft::Other(_) => (Loaded::Unknown, ALL),
        }
    }

    fn statuses(&mut self, env: &Env, fresh: Set) -> Vec<(u64, Set)> {
        let known = self.space.bdd.any_of(vec![fresh, env.snat, env.dnat]);
        let mut few = Vec::new();
        for (number, snat, dnat) in
            [(0, !env.snat, !env.dnat), (16, env.snat, !env.dnat), (32, !env.snat, env.dnat), (48, env.snat, env.dnat)]
        {
            let set = self.space.bdd.and(snat, dnat);
            let set = self.space.bdd.and(set, known);
            few.push((number, set));
        }
        // SEEN_REPLY, ASSURED and CONFIRMED of an open flow.
        let mut rest = !known;
        for (number, text) in [(2u64 | 4 | 8, "its flow is assured"), (2 | 8, "its flow has seen a reply")] {
            let open = self.open(format!("ct status {text}"), text.to_owned());
            let set = self.space.bdd.and(rest, open);
            few.push((number, set));
            rest = self.space.bdd.minus(rest, open);
        }
        few.push((8, rest));
        few
    }

    fn fib_type(&mut self, env: &Env, side: Side, kind: u64) -> Set {
        let types = AddrTypes(1 << kind);
        let test = Test::AddrType { side, types, limit_iface: None };
        if self.space.v6 && env.dst == Addr::Kept && env.src == Addr::Kept {
            let many = self.addr_within(env, side, &[(0xff_u128 << 120, u128::MAX)]);
            let own = self.addr_within(env, side, &[(1, 1)]);
            let field = if side == Side::Source { Field::SrcType } else { Field::DstType };
            let code = match kind {
                1 => self.space.equals(field, 0),
                2 => self.space.equals(field, 1),
                3 => self.space.equals(field, 2),
                _ => {
                    let (other, fact) = (self.space.equals(field, 3), self.fact(env, &test));
                    self.space.bdd.and(other, fact)
                }
            };
            let code = self.space.bdd.choose(own, Env::there(kind == 2), code);
            return self.space.bdd.choose(many, Env::there(kind == 5), code);
        }
        self.types4(env, &test, side, types, false)
    }
}
