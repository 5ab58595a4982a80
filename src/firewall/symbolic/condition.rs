//! Where a rule matches: its tests as sets, each as the walk (`super::super::walk`) has it.

use std::net::IpAddr;

use crate::firewall::ruleset::{
    AddrTypes, CtStates, CtTest, Hook, Iface, Match, Net, Order, OwnerTest, PktType, PortRange, Rule, Side, Test,
    Transport,
};
use crate::firewall::walk::ChainAt;
use crate::host::Backend;

use super::bdd::{ALL, NONE, Set};
use super::env::{Addr, Env};
use super::model::Model;
use super::space::{Field, Open, low_bits, number};

/// Where a test holds, and where what it asks about is there at all: elsewhere it fails, negated or
/// not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) yes: Set,
    pub(super) there: Set,
}

impl From<Set> for Held {
    fn from(yes: Set) -> Self {
        Self { yes, there: ALL }
    }
}

/// The rule that asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'r> {
    pub(super) at: ChainAt,
    pub(super) index: usize,
    pub(super) rule: &'r Rule,
}

impl Model<'_> {
    /// Where all of a rule's matches hold.
    pub(super) fn matched(&mut self, asker: Asker<'_>, env: &Env) -> Set {
        let mut parts = Vec::with_capacity(asker.rule.matches.len());
        let mut late = Vec::new();
        for (number, m) in asker.rule.matches.iter().enumerate() {
            if is_occurrence(&m.test) && !is_plain_set(&m.test) {
                late.push((number, m));
                continue;
            }
            let set = self.holds(asker, env, m);
            let set = self.space.bdd.given(set, &self.given.0);
            if set.is_none() {
                return NONE;
            }
            parts.push(set);
        }
        // From the last variables to the first, so that little is made that is not kept.
        parts.sort_unstable_by_key(|part| std::cmp::Reverse(self.space.bdd.level(*part)));
        let mut all = parts.into_iter().fold(ALL, |all, part| self.space.bdd.and(part, all));
        if all.is_none() {
            return NONE;
        }
        // What rests on history or chance is a variable of its own at each rule; by what else the
        // rule asks it is known again in another ruleset.
        let rest = all;
        for (number, m) in late {
            let open = self.occurrence(asker, env, &m.test, rest, number);
            let set = if m.negated { !open } else { open };
            all = self.space.bdd.and(all, set);
        }
        all
    }

    fn holds(&mut self, asker: Asker<'_>, env: &Env, m: &Match) -> Set {
        let left_out = match &m.test {
            Test::TcpFlags { mask, .. } => mask.0 == 0,
            Test::Port { module: Transport::Tcp | Transport::Udp, range, .. } => {
                m.negated && range.from == 0 && range.to == u16::MAX
            }
            _ => false,
        };
        if left_out && self.backend(asker.at) == Backend::Nft {
            return ALL;
        }
        let held = self.test(asker, env, &m.test);
        let set = if m.negated { !held.yes } else { held.yes };
        self.space.bdd.and(set, held.there)
    }

    fn test(&mut self, asker: Asker<'_>, env: &Env, test: &Test) -> Held {
        match test {
            Test::Source(net) => self.net(env, Side::Source, net).into(),
            Test::Destination(net) => self.net(env, Side::Destination, net).into(),
            Test::InInterface(iface) => self.iface(env, true, iface).into(),
            Test::OutInterface(iface) => self.iface(env, false, iface).into(),
            Test::Protocol(proto) => self.proto(*proto).into(),
            Test::Fragment => self.space.equals(Field::Frag, 1).into(),
            Test::Header(module) => Held { yes: ALL, there: self.header(*module) },
            Test::Port { module, side, range } => self.port(asker.at, env, *module, *side, *range),
            Test::Multiport { side, ranges } => {
                let ports = self.space.has_ports();
                let whole = self.whole();
                let there = self.space.bdd.and(ports, whole);
                let all = ranges.iter().any(|range| (range.from, range.to) == (0, u16::MAX));
                Held { yes: if all { ALL } else { self.ports(env, *side, ranges) }, there }
            }
            Test::TcpFlags { mask, set } => {
                let there =
                    if self.backend(asker.at) == Backend::Nft { self.native(6) } else { self.header(Transport::Tcp) };
                Held { yes: self.space.masked(Field::Flags, set.0.into(), mask.0.into()), there }
            }
            Test::TcpOption(_) => {
                let whole = self.whole();
                Held { yes: self.fact(env, test), there: whole }
            }
            Test::Icmp { v6, kind, codes } => {
                let there = self.header(if *v6 { Transport::Icmp6 } else { Transport::Icmp });
                let yes = match kind {
                    None => ALL,
                    Some(kind) => {
                        let high = u128::from(*kind) << 8;
                        self.space.within(Field::Dport, &[(high | u128::from(codes.0), high | u128::from(codes.1))])
                    }
                };
                Held { yes, there }
            }
            Test::Conntrack { tests, .. } => self.conntrack(env, test, tests).into(),
            Test::Mark { .. } if env.mark_open => self.fact(env, test).into(),
            Test::Mark { value, mask } => {
                self.space.ask(Field::Mark);
                self.space.word_masked(&env.mark, u128::from(*value), u128::from(*mask)).into()
            }
            Test::Connmark { value, mask } => {
                self.space.ask(Field::Connmark);
                let there = env.has_flow(self.space);
                Held { yes: self.space.word_masked(&env.connmark, u128::from(*value), u128::from(*mask)), there }
            }
            Test::IpRange { side, from, to } => {
                if from.is_ipv6() != self.space.v6 {
                    return NONE.into();
                }
                let ranges = [(number(*from), number(*to))];
                self.addr_within(env, *side, &ranges).into()
            }
            Test::Mac(mac) => {
                let there = Env::there(!matches!(env.hook, Hook::Output | Hook::Postrouting | Hook::Egress));
                Held { yes: self.space.equals(Field::Mac, mac_number(mac.0)), there }
            }
            Test::AddrType { side, types, limit_iface } => {
                self.addr_types(env, test, *side, *types, limit_iface.is_some()).into()
            }
            Test::Owner(owner) => self.owner(env, test, owner).into(),
            Test::Length { from, to } => self.space.within(Field::Length, &[((*from).into(), (*to).into())]).into(),
            Test::Ttl { order, value, .. } => {
                self.space.ask(Field::Ttl);
                let value = u128::from(*value);
                let (from, to) = match order {
                    Order::Eq => (value, value),
                    Order::Lt if value == 0 => return NONE.into(),
                    Order::Lt => (0, value - 1),
                    Order::Gt => (value + 1, 255),
                };
                self.space.word_within(&env.ttl, from, to).into()
            }
            Test::Tos { value, mask } => {
                self.space.ask(Field::Tos);
                self.space.word_masked(&env.tos, (*value).into(), (*mask).into()).into()
            }
            Test::Dscp(value) => {
                self.space.ask(Field::Tos);
                self.space.word_masked(&env.tos, u128::from(*value) << 2, 0xfc).into()
            }
            Test::PktType(kind) => self.pkttype(env, *kind).into(),
            Test::Set { name, sides, options } => self.ipset(env, test, name, sides, options).into(),
            Test::Ext(ext) => self.ext(env, test, ext),
            Test::Compare(comparison) => self.compare(asker, env, comparison),
            // `recent --set` holds whatever it found.
            Test::Stateful { .. } | Test::Comment(_) => ALL.into(),
            Test::Unknown { .. } => self.fact(env, test).into(),
        }
    }

    pub(super) fn backend(&self, at: ChainAt) -> Backend {
        self.stack.at(at).map_or(Backend::Nft, |(ruleset, _, _)| ruleset.backend)
    }

    pub(super) fn proto(&mut self, proto: u8) -> Set {
        self.space.equals(Field::Proto, proto.into())
    }

    /// Not a later fragment.
    pub(super) fn whole(&mut self) -> Set {
        self.space.equals(Field::Frag, 0)
    }

    /// Where an x_tables module finds its header.
    fn header(&mut self, module: Transport) -> Set {
        let (of, whole) = (self.proto(module.number()), self.whole());
        self.space.bdd.and(of, whole)
    }

    /// Where a native expression finds octets of a header: in a later fragment over IPv4 whatever
    /// stands there, which the same variables stand for.
    pub(super) fn native(&mut self, proto: u8) -> Set {
        let of = self.proto(proto);
        if !self.space.v6 {
            return of;
        }
        let whole = self.whole();
        self.space.bdd.and(of, whole)
    }

    fn port(&mut self, at: ChainAt, env: &Env, module: Transport, side: Side, range: PortRange) -> Held {
        let all = range.from == 0 && range.to == u16::MAX;
        let native = matches!(module, Transport::Tcp | Transport::Udp) && self.backend(at) == Backend::Nft && !all;
        let there = if native { self.native(module.number()) } else { self.header(module) };
        Held { yes: if all { ALL } else { self.ports(env, side, &[range]) }, there }
    }

    /// Where a port is one of these, whatever the protocol.
    pub(super) fn ports(&mut self, env: &Env, side: Side, ranges: &[PortRange]) -> Set {
        let ranges: Vec<(u128, u128)> = ranges.iter().map(|range| (range.from.into(), range.to.into())).collect();
        let mut found = NONE;
        if side != Side::Destination {
            found = self.space.within(if env.new_sport { Field::NewSport } else { Field::Sport }, &ranges);
        }
        if side != Side::Source {
            let field = if env.new_dport { Field::NewDport } else { Field::Dport };
            let other = self.space.within(field, &ranges);
            found = self.space.bdd.or(found, other);
        }
        found
    }

    fn net(&mut self, env: &Env, side: Side, net: &Net) -> Set {
        if net.addr.is_ipv6() != self.space.v6 {
            return NONE;
        }
        self.addr_masked(env, side, number(net.addr), number(net.mask))
    }

    /// Where the address's bits under the mask are these.
    pub(super) fn addr_masked(&mut self, env: &Env, side: Side, value: u128, mask: u128) -> Set {
        let (at, kept, new) = place(env, side);
        match at {
            Addr::Kept => self.space.masked(kept, value, mask),
            Addr::New => self.space.masked(new, value, mask),
            Addr::Mapped(..) => {
                let word = self.address_word(env, side);
                self.space.word_masked(&word, value, mask)
            }
        }
    }

    /// Where the address lies in one of the ranges.
    pub(super) fn addr_within(&mut self, env: &Env, side: Side, ranges: &[(u128, u128)]) -> Set {
        let (at, kept, new) = place(env, side);
        match at {
            Addr::Kept => self.space.within(kept, ranges),
            Addr::New => self.space.within(new, ranges),
            Addr::Mapped(..) => {
                let word = self.address_word(env, side);
                let sets: Vec<Set> =
                    ranges.iter().map(|(from, to)| self.space.word_within(&word, *from, *to)).collect();
                self.space.bdd.any_of(sets)
            }
        }
    }

    /// The bits of an address.
    pub(super) fn address_word(&mut self, env: &Env, side: Side) -> Vec<Set> {
        let (at, kept, new) = place(env, side);
        match at {
            Addr::Kept => self.space.word(kept),
            Addr::New => self.space.word(new),
            Addr::Mapped(value, mask) => {
                let word = self.space.word(kept);
                let width = word.len();
                let bit = |n: usize| (value >> (width - 1 - n) & 1 == 1, mask >> (width - 1 - n) & 1 == 1);
                word.into_iter()
                    .enumerate()
                    .map(|(n, own)| match bit(n) {
                        (value, true) => {
                            if value {
                                ALL
                            } else {
                                NONE
                            }
                        }
                        _ => own,
                    })
                    .collect()
            }
        }
    }

    /// Where the interface is meant. Where there is none its name is empty.
    pub(super) fn iface(&mut self, env: &Env, incoming: bool, iface: &Iface) -> Set {
        let there =
            if incoming { env.came_in } else { !matches!(env.hook, Hook::Ingress | Hook::Prerouting | Hook::Input) };
        if !there {
            return Env::there(iface.matches(""));
        }
        if !incoming && env.rerouted {
            if iface.prefix && iface.name.is_empty() {
                return ALL;
            }
            let back = if self.space.v6 { (1, 1) } else { (0x7f00_0000, 0x7fff_ffff) };
            let back = self.addr_within(env, Side::Destination, &[back]);
            let open = self
                .open(format!("rerouted {iface}"), format!("the packet leaves by {iface} after it was routed again"));
            return self.space.bdd.choose(back, Env::there(iface.matches("lo")), open);
        }
        let ranges = self.space.names.ranges(|name| iface.matches(name));
        self.space.within(if incoming { Field::In } else { Field::Out }, &ranges)
    }

    /// `net/netfilter/xt_conntrack.c`, `conntrack_mt`.
    fn conntrack(&mut self, env: &Env, whole: &Test, tests: &[(bool, CtTest)]) -> Set {
        let (mut states, mut others, mut has_state) = (ALL, ALL, false);
        for (negated, test) in tests {
            if let CtTest::State(wanted) = test {
                has_state = true;
                let seen = self.sees(env, *wanted);
                states = self.space.bdd.and(states, if *negated { !seen } else { seen });
            } else {
                let held = self.ct_test(env, whole, test);
                let set = if *negated { !held } else { held };
                others = self.space.bdd.and(others, set);
            }
        }
        let flow = env.has_flow(self.space);
        let without = Env::there(has_state);
        let rest = self.space.bdd.choose(flow, others, without);
        self.space.bdd.and(states, rest)
    }

    /// Where the state that this chain sees is one of these.
    pub(super) fn sees(&mut self, env: &Env, wanted: CtStates) -> Set {
        let codes: Vec<u128> =
            (0u128..).zip(super::space::STATES).filter(|(_, state)| state.intersects(wanted)).map(|(n, _)| n).collect();
        let mut set = env.state(self.space, &codes);
        if wanted.intersects(CtStates::SNAT) {
            set = self.space.bdd.or(set, env.snat);
        }
        if wanted.intersects(CtStates::DNAT) {
            set = self.space.bdd.or(set, env.dnat);
        }
        if env.early {
            let untracked = env.state(self.space, &[4]);
            let lo = env.by_lo(self.space);
            let known = self.space.bdd.or(untracked, lo);
            set = self.space.bdd.choose(known, set, Env::there(wanted.intersects(CtStates::INVALID)));
        }
        set
    }

    fn ct_test(&mut self, env: &Env, whole: &Test, test: &CtTest) -> Set {
        let fresh = env.state(self.space, &[0]);
        let open = self.fact(env, whole);
        let original = Env { dst: Addr::Kept, src: Addr::Kept, new_dport: false, new_sport: false, ..env.clone() };
        // A new flow's reply is expected from where the packet now goes.
        let end = |reply: bool, side: Side| match (reply, side) {
            (false, side) => (false, side),
            (true, Side::Source) => (true, Side::Destination),
            (true, _) => (true, Side::Source),
        };
        let known = match test {
            CtTest::State(_) => return ALL,
            CtTest::Proto(proto) => return self.proto(*proto),
            CtTest::Status(_) | CtTest::Expire(_) => return open,
            CtTest::Direction(reply) => Env::there(!reply),
            CtTest::Addr { reply, side, net } => {
                let (now, side) = end(*reply, *side);
                self.net(if now { env } else { &original }, side, net)
            }
            CtTest::Port { reply, side, range } => {
                let (now, side) = end(*reply, *side);
                self.ports(if now { env } else { &original }, side, &[*range])
            }
        };
        self.space.bdd.choose(fresh, known, open)
    }

    pub(super) fn owner(&mut self, env: &Env, test: &Test, owner: &OwnerTest) -> Set {
        if env.came_in {
            return if self.cautious { self.fact(env, test) } else { NONE };
        }
        match owner {
            OwnerTest::Uid(from, to) => self.space.within(Field::Uid, &[((*from).into(), (*to).into())]),
            OwnerTest::Gid(from, to) => self.space.within(Field::Gid, &[((*from).into(), (*to).into())]),
            OwnerTest::SocketExists => self.fact(env, test),
        }
    }

    fn pkttype(&mut self, env: &Env, kind: PktType) -> Set {
        let code = match kind {
            PktType::Unicast => 0,
            PktType::Broadcast => 1,
            PktType::Multicast => 2,
        };
        if env.came_in {
            return self.space.equals(Field::PktType, code);
        }
        if env.hook == Hook::Output {
            return Env::there(code == 0);
        }
        let many = self.multicast(env, Side::Destination);
        let broadcast =
            if self.space.v6 { NONE } else { self.addr_within(env, Side::Destination, &[(0xffff_ffff, 0xffff_ffff)]) };
        match code {
            2 => many,
            1 => broadcast,
            _ => {
                let other = self.space.bdd.or(many, broadcast);
                !other
            }
        }
    }

    fn multicast(&mut self, env: &Env, side: Side) -> Set {
        let range = if self.space.v6 { (0xff_u128 << 120, u128::MAX) } else { (0xe000_0000, 0xefff_ffff) };
        self.addr_within(env, side, &[range])
    }

    fn addr_types(&mut self, env: &Env, test: &Test, side: Side, types: AddrTypes, limited: bool) -> Set {
        if !self.space.v6
            && side == Side::Destination
            && env.hook == Hook::Input
            && types.0 & 0b10_1100 == 0b10_1100
            && !self.cautious
        {
            return ALL;
        }
        if self.space.v6 {
            return self.addr_types6(env, test, side, types, limited);
        }
        self.types4(env, test, side, types, limited)
    }

    /// The type of an address: what the address itself says, else a fact of the host.
    pub(super) fn types4(&mut self, env: &Env, test: &Test, side: Side, types: AddrTypes, limited: bool) -> Set {
        let asks = |n: u16| types.0 & (1 << n) != 0;
        let many = self.multicast(env, side);
        let all = self.addr_within(env, side, &[(0, 0x00ff_ffff), (0xffff_ffff, 0xffff_ffff)]);
        let own = self.addr_within(env, side, &[(0x7f00_0000, 0x7fff_ffff)]);
        let mut set = self.host_type(env, test, side, types, limited);
        if limited {
            // 127/8 is of `lo` only; by which device it came may not be that.
            let fact = self.fact(env, test);
            set = self.space.bdd.choose(own, fact, set);
        } else {
            set = self.space.bdd.choose(own, Env::there(asks(2)), set);
        }
        set = self.space.bdd.choose(all, Env::there(asks(3)), set);
        self.space.bdd.choose(many, Env::there(asks(5)), set)
    }

    /// Where the host's own addresses and routes make the address one of these types.
    fn host_type(&mut self, env: &Env, test: &Test, side: Side, types: AddrTypes, limited: bool) -> Set {
        let asks = |n: u16| types.0 & (1 << n) != 0;
        let moved = place(env, side).0 != Addr::Kept;
        if limited || moved {
            return self.fact(env, test);
        }
        let codes: Vec<(u128, u128)> =
            [1u16, 2, 3].into_iter().zip(0u128..).filter(|(kind, _)| asks(*kind)).map(|(_, n)| (n, n)).collect();
        let field = if side == Side::Source { Field::SrcType } else { Field::DstType };
        let mut set = self.space.within(field, &codes);
        if types.0 & !0b10_1110 != 0 {
            let (other, fact) = (self.space.equals(field, 3), self.fact(env, test));
            let other = self.space.bdd.and(other, fact);
            set = self.space.bdd.or(set, other);
        }
        set
    }

    /// `net/netfilter/xt_addrtype.c`, `match_type6`.
    fn addr_types6(&mut self, env: &Env, test: &Test, side: Side, types: AddrTypes, limited: bool) -> Set {
        let asks = |bit: u16| types.0 & (1 << bit) != 0;
        let many = self.multicast(env, side);
        let none = self.addr_within(env, side, &[(0, 0)]);
        let mapped = self.addr_within(env, side, &[(0xffff_0000_0000, 0xffff_ffff_ffff)]);
        let not_one = self.space.bdd.any_of(vec![many, none, mapped]);
        let mut set = ALL;
        for (bit, part) in [(5, many), (1, !not_one), (0, none)] {
            if asks(bit) {
                set = self.space.bdd.and(set, part);
            }
        }
        if types.0 & (1 << 2 | 1 << 4 | 1 << 7) == 0 {
            return set;
        }
        let own = self.addr_within(env, side, &[(1, 1)]);
        let fact = self.host_type(env, test, side, AddrTypes(types.0 & (1 << 2 | 1 << 4 | 1 << 7)), limited);
        let there = if limited { self.fact(env, test) } else { Env::there(asks(2)) };
        let kind = self.space.bdd.choose(own, there, fact);
        let kind = self.space.bdd.choose(many, NONE, kind);
        self.space.bdd.and(set, kind)
    }

    /// A test on history or chance: a variable of its own at each rule.
    fn occurrence(&mut self, asker: Asker<'_>, env: &Env, test: &Test, rest: Set, number: usize) -> Set {
        let norm =
            test.stateful().map_or_else(|| Match::is(test.clone()).to_string(), |stateful| format!("{stateful:?}"));
        let key = format!("{norm} {rest:?} {} {:?}", env.hook, asker.rule.target);
        let nth = {
            let seen = self.occurrences.entry(key.clone()).or_default();
            let here = (asker.at, asker.index, number);
            seen.iter().position(|at| *at == here).unwrap_or_else(|| {
                seen.push(here);
                seen.len() - 1
            })
        };
        let open = self.told(asker, test);
        self.space.free(format!("{key} {nth}"), || open)
    }

    /// How to name a rule's test.
    pub(super) fn told(&self, asker: Asker<'_>, test: &Test) -> Open {
        let chain = self.stack.at(asker.at).map_or("", |(_, _, chain)| chain.name.as_str());
        let module = test.module().map_or(String::new(), |module| format!("-m {module} "));
        let text = format!("{module}{}", Match::is(test.clone())).trim().to_owned();
        Open { text, place: format!("{chain} rule {}", asker.index + 1), line: asker.rule.line }
    }

    /// A test of a fact that is not given: the same words are the same fact.
    pub(super) fn fact(&mut self, env: &Env, test: &Test) -> Set {
        let module = test.module().map_or(String::new(), |module| format!("-m {module} "));
        let text = format!("{module}{}", Match::is(test.clone())).trim().to_owned();
        let key = if env.moved() { format!("{text} {} translated", env.hook) } else { text.clone() };
        self.open(key, text)
    }

    /// A variable for something that is not known.
    pub(super) fn open(&mut self, key: String, text: String) -> Set {
        self.space.free(key, || Open { text, place: String::new(), line: None })
    }

    /// Where a number given by its bits has `n & mask` in a range.
    pub(super) fn word_range(&mut self, word: &[Set], mask: Option<u64>, from: u64, to: u64) -> Set {
        let width = u32::try_from(word.len()).unwrap_or(0);
        let all = low_bits(width);
        let mask = mask.map_or(all, |mask| u128::from(mask) & all);
        if mask == all {
            return self.space.word_within(word, from.into(), to.into());
        }
        if from == to {
            return self.space.word_masked(word, from.into(), mask);
        }
        let bits: Vec<Set> = word
            .iter()
            .enumerate()
            .map(|(n, bit)| if mask >> (word.len() - 1 - n) & 1 == 1 { *bit } else { NONE })
            .collect();
        self.space.word_within(&bits, from.into(), to.into())
    }
}

/// Which variables an address is in.
pub(super) fn place(env: &Env, side: Side) -> (Addr, Field, Field) {
    if side == Side::Source { (env.src, Field::Src, Field::NewSrc) } else { (env.dst, Field::Dst, Field::NewDst) }
}

/// A hardware address as a number.
pub(super) fn mac_number(octets: [u8; 6]) -> u128 {
    octets.iter().fold(0, |n, octet| n << 8 | u128::from(*octet))
}

/// An address as a number, where it is of this family.
pub(super) fn of_family(addr: IpAddr, v6: bool) -> Option<u128> {
    (addr.is_ipv6() == v6).then(|| number(addr))
}

/// Whether the test is a question of its own at each rule.
fn is_occurrence(test: &Test) -> bool {
    matches!(test, Test::Stateful { .. } | Test::Unknown { .. })
}

/// `recent --set`, not negated, which always holds.
fn is_plain_set(test: &Test) -> bool {
    let Test::Stateful { module, options } = test else { return false };
    let mut before = "";
    module == "recent"
        && options.split(' ').any(|word| {
            let found = word == "--set" && before != "!";
            before = word;
            found
        })
}
