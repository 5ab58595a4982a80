//! ipsets and the rarer tests as sets.

use std::collections::BTreeMap;

use crate::firewall::ruleset::{
    EcnTest, ElementPart, Ext, Hook, Set as IpSet, Side, SpiModule, TcpFlags, Test, TimeTest,
};

use super::bdd::{ALL, NONE, Set};
use super::condition::{Held, mac_number, of_family};
use super::env::Env;
use super::model::Model;
use super::space::{Field, number};

/// list:set may not hold list:set; this guards against a text that says otherwise.
const MAX_NESTING: usize = 4;

impl Model<'_> {
    /// Where an ipset holds the packet.
    pub(super) fn ipset(&mut self, env: &Env, test: &Test, name: &str, sides: &[Side], options: &str) -> Set {
        if options.split(' ').any(|o| o.contains("packets-") || o.contains("bytes-")) {
            return self.fact(env, test);
        }
        self.in_set(env, name, sides, options.contains("--return-nomatch"), 0)
    }

    fn in_set(&mut self, env: &Env, name: &str, sides: &[Side], nomatch: bool, depth: usize) -> Set {
        let stack = self.stack;
        let unknown = |model: &mut Self| {
            model.open(format!("ipset {name} {sides:?} {nomatch}"), format!("set {name} holds the packet"))
        };
        let Some(set) = stack.set(name) else { return unknown(self) };
        if depth > MAX_NESTING || set.unreliable.is_some() {
            return unknown(self);
        }
        let key = (
            name.to_owned(),
            format!(
                "{sides:?} {nomatch} {:?} {:?} {} {} {:?}",
                env.dst, env.src, env.new_dport, env.new_sport, env.hook
            ),
        );
        if let Some(done) = self.sets.get(&key) {
            return *done;
        }
        let made = self.elements(env, set, sides, nomatch, depth);
        self.sets.insert(key, made);
        made
    }

    fn elements(&mut self, env: &Env, set: &IpSet, sides: &[Side], nomatch: bool, depth: usize) -> Set {
        // Elements of one prefix length together: of hash:net and its like the longest decides.
        let mut by_length: BTreeMap<u32, [Vec<&[ElementPart]>; 2]> = BTreeMap::new();
        let mut nested = Vec::new();
        for element in &set.elements {
            if let Some(ElementPart::Set(inner)) = element.parts.first() {
                nested.push(self.in_set(env, inner, sides, nomatch, depth + 1));
                continue;
            }
            let length = |part: &ElementPart| match part {
                ElementPart::Net(net) => net.prefix_len().map_or(0, u32::from),
                _ => 128,
            };
            let sum = element.parts.iter().map(length).sum();
            by_length.entry(sum).or_default()[usize::from(element.nomatch)].push(&element.parts);
        }
        let layered = set.elements.iter().any(|element| element.nomatch);
        let by_iface = set.kind.starts_with("hash:net,iface");
        let mut result = self.space.bdd.any_of(nested);
        if !layered && !by_iface {
            let all: Vec<&[ElementPart]> = by_length.into_values().flat_map(|[yes, _]| yes).collect();
            let own = if nomatch { NONE } else { self.union(env, &all, sides) };
            return self.space.bdd.or(result, own);
        }
        // From short to long: each length decides for what it holds.
        for [yes, no] in by_length.into_values() {
            if by_iface {
                // The longest network that holds the address decides, whatever its interface.
                let nets: Vec<&[ElementPart]> = yes.iter().chain(&no).map(|parts| &parts[..1]).collect();
                let covers = self.union(env, &nets, sides);
                result = self.space.bdd.minus(result, covers);
            }
            for (parts, is_no) in [(yes, false), (no, true)] {
                let holds = self.union(env, &parts, sides);
                result = self.space.bdd.choose(holds, Env::there(is_no == nomatch), result);
            }
        }
        result
    }

    /// Where one of the elements holds. Elements that differ in their last part alone are joined
    /// before they become sets.
    fn union(&mut self, env: &Env, elements: &[&[ElementPart]], sides: &[Side]) -> Set {
        if elements.iter().all(|parts| parts.len() == 1) {
            let mut ranges: Vec<(u128, u128)> = Vec::new();
            let mut sets = Vec::new();
            for parts in elements {
                match self.addr_range(&parts[0]) {
                    Some(range) => ranges.push(range),
                    None => sets.push(self.part_of(env, &parts[0], sides.first().copied())),
                }
            }
            let Some(side) = sides.first() else { return NONE };
            let addrs = self.addr_within(env, *side, &ranges);
            sets.push(addrs);
            return self.space.bdd.any_of(sets);
        }
        let mut sets = Vec::with_capacity(elements.len());
        for parts in elements {
            let mut all = ALL;
            for (index, part) in parts.iter().enumerate() {
                let set = self.part_of(env, part, sides.get(index).copied());
                all = self.space.bdd.and(all, set);
            }
            sets.push(all);
        }
        self.space.bdd.any_of(sets)
    }

    /// `None` where the part is no contiguous range of addresses; one from after to of the other family.
    fn addr_range(&self, part: &ElementPart) -> Option<(u128, u128)> {
        const EMPTY: (u128, u128) = (1, 0);
        let v6 = self.space.v6;
        match part {
            ElementPart::Net(net) => {
                let length = net.prefix_len()?;
                if net.addr.is_ipv6() != v6 {
                    return Some(EMPTY);
                }
                let width = if v6 { 128 } else { 32 };
                let from = number(net.addr);
                Some((from, from | super::space::low_bits(width - u32::from(length))))
            }
            ElementPart::Range(from, to) => Some(of_family(*from, v6).zip(of_family(*to, v6)).unwrap_or(EMPTY)),
            _ => None,
        }
    }

    fn part_of(&mut self, env: &Env, part: &ElementPart, side: Option<Side>) -> Set {
        // A set with fewer directions than dimensions never matches.
        let Some(side) = side else { return NONE };
        let source = side == Side::Source;
        match part {
            ElementPart::Net(net) if net.addr.is_ipv6() != self.space.v6 => NONE,
            ElementPart::Net(net) => self.addr_masked(env, side, number(net.addr), number(net.mask)),
            ElementPart::Range(from, to) => match of_family(*from, self.space.v6).zip(of_family(*to, self.space.v6)) {
                Some(range) => self.addr_within(env, side, &[range]),
                None => NONE,
            },
            ElementPart::Port { proto, range } => {
                let whole = self.whole();
                let of = match proto {
                    Some(proto) => self.proto(*proto),
                    None => self.space.within(Field::Proto, &[(6, 6), (17, 17)]),
                };
                let port = match proto {
                    // The place of an ICMP message's port is type and code, whichever the side.
                    Some(1 | 58) => self.space.within(Field::Dport, &[(range.from.into(), range.to.into())]),
                    Some(6 | 17 | 132 | 136) | None => {
                        self.ports(env, if source { Side::Source } else { Side::Destination }, &[*range])
                    }
                    Some(_) => Env::there(range.contains(0)),
                };
                let set = self.space.bdd.and(of, port);
                self.space.bdd.and(set, whole)
            }
            ElementPart::Iface(name) => {
                let iface = crate::firewall::ruleset::Iface { name: name.clone(), prefix: false };
                self.iface(env, source, &iface)
            }
            ElementPart::Mac(mac) => self.space.equals(Field::Mac, mac_number(mac.0)),
            ElementPart::Mark(mark) => {
                self.space.ask(Field::Mark);
                self.space.word_masked(&env.mark, (*mark).into(), 0xffff_ffff)
            }
            ElementPart::Set(_) => NONE,
        }
    }

    /// The rarer tests. What the walk cannot answer is a variable.
    pub(super) fn ext(&mut self, env: &Env, test: &Test, ext: &Ext) -> Held {
        let fact = |model: &mut Self| model.fact(env, test);
        let within = |model: &mut Self, there: Set| Held { yes: model.fact(env, test), there };
        if self.cautious
            && matches!(
                ext,
                Ext::Physdev(_)
                    | Ext::Policy(_)
                    | Ext::Realm(_)
                    | Ext::Nfacct(_)
                    | Ext::Rt(_)
                    | Ext::Options(_)
                    | Ext::Ipv6Header(_)
                    | Ext::Frag(_)
                    | Ext::Groups(..)
                    | Ext::Cgroup(_)
            )
        {
            return fact(self).into();
        }
        match ext {
            Ext::Chunks(_) | Ext::DccpTypes(_) | Ext::DccpOption(_) | Ext::TcpMss(_) => {
                let whole = self.whole();
                within(self, whole)
            }
            Ext::MobilityHeader(span) => {
                let whole = self.whole();
                let asks = span.is_some_and(|span| span.negated || (span.from, span.to) != (0, 255));
                Held { yes: if asks { fact(self) } else { ALL }, there: whole }
            }
            Ext::Spi(spi) => {
                let proto = match spi.module {
                    SpiModule::Esp => 50,
                    SpiModule::Ah => 51,
                    SpiModule::Ipcomp => 108,
                };
                let (of, whole) = (self.proto(proto), self.whole());
                let there = self.space.bdd.and(of, whole);
                let every = spi.spi.is_none_or(|s| !s.negated && (s.from, s.to) == (0, u32::MAX));
                let asks = !every || spi.len.is_some() || spi.reserved;
                Held { yes: if asks { fact(self) } else { ALL }, there }
            }
            Ext::Ecn(ecn) => self.ecn(env, *ecn).into(),
            Ext::Osf(_) => {
                let (tcp, open) = (self.proto(6), fact(self));
                self.space.bdd.and(tcp, open).into()
            }
            Ext::Frag(frag) => {
                let later = self.space.equals(Field::Frag, 1);
                let yes = if frag.first { NONE } else { fact(self) };
                Held { yes, there: later }
            }
            Ext::Rt(_) => {
                let there = self.proto(43);
                within(self, there)
            }
            Ext::Options(options) => {
                let there = self.proto(if options.hop_by_hop { 0 } else { 60 });
                within(self, there)
            }
            // Without a bridge what is negated holds.
            Ext::Physdev(p) => {
                let asked = [p.is_in, p.is_out, p.is_bridged].into_iter().flatten();
                let devices = [&p.in_, &p.out].into_iter().flatten().map(|(negated, _)| *negated);
                Env::there(asked.chain(devices).all(|negated| negated)).into()
            }
            Ext::Policy(policy) => Env::there(policy.none).into(),
            Ext::Realm(realm) => Env::there(realm.0.holds(0)).into(),
            Ext::Nfacct(_) => ALL.into(),
            Ext::Helper(helper) => {
                let (flow, fresh) = (env.has_flow(self.space), env.state(self.space, &[0]));
                let open = fact(self);
                let old = self.space.bdd.minus(flow, fresh);
                self.space.bdd.choose(old, open, Env::there(helper.negated)).into()
            }
            Ext::Connlabel(label) => {
                let (flow, open) = (env.has_flow(self.space), fact(self));
                self.space.bdd.choose(flow, open, Env::there(label.negated)).into()
            }
            Ext::Cluster(_) => {
                let flow = env.has_flow(self.space);
                within(self, flow)
            }
            Ext::Rpfilter(rp) => {
                let (lo, open) = (env.by_lo(self.space), fact(self));
                self.space.bdd.choose(lo, Env::there(!rp.invert), open).into()
            }
            Ext::Groups(..) if env.came_in && env.hook != Hook::Input => NONE.into(),
            Ext::Cgroup(_) if env.came_in && env.hook != Hook::Input => Held { yes: NONE, there: NONE },
            Ext::Time(time) if *time == TimeTest::default() => ALL.into(),
            _ => fact(self).into(),
        }
    }

    /// `net/netfilter/xt_ecn.c`
    fn ecn(&mut self, env: &Env, ecn: EcnTest) -> Set {
        let mut all = ALL;
        if let Some((negated, ect)) = ecn.ect {
            self.space.ask(Field::Tos);
            let set = self.space.word_masked(&env.tos, u128::from(ect), 3);
            all = if negated { !set } else { set };
        }
        if ecn.ece.is_none() && ecn.cwr.is_none() {
            return all;
        }
        let (tcp, whole) = (self.proto(6), self.whole());
        all = self.space.bdd.and(all, tcp);
        all = self.space.bdd.and(all, whole);
        for (asked, bit) in [(ecn.ece, TcpFlags::ECE), (ecn.cwr, TcpFlags::CWR)] {
            if let Some(negated) = asked {
                let set = self.space.masked(Field::Flags, bit.0.into(), bit.0.into());
                all = self.space.bdd.and(all, if negated { !set } else { set });
            }
        }
        all
    }
}
