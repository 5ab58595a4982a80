//! A rule's tests as expressions.

use std::net::IpAddr;

use super::blob::{Blob, words};
use super::{Dialect, Encoder};
use crate::firewall::ruleset::{
    CtModule, CtStates, CtTest, Iface, Match, Net, Order as Comparing, OwnerTest, PktType, PortRange, Side, Test,
};
use crate::os::nft::attr::Attrs;
use crate::os::nft::conn::Order;
use crate::os::nft::error::NftError;
use crate::os::nft::expr::{Base, Expr, Op};
use crate::os::nft::objects::msg;

/// `NFT_META_*`.
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_SKUID: u32 = 10;
const META_SKGID: u32 = 11;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;

fn cmp(negated: bool, data: &[u8]) -> Expr {
    Expr::Cmp { sreg: 1, op: if negated { Op::Neq } else { Op::Eq }, data: data.to_vec() }
}

fn masked(mask: &[u8]) -> Expr {
    let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    Expr::Bitwise { sreg: 1, dreg: 1, len, op: 0, mask: mask.to_vec(), xor: vec![0; mask.len()], shift: 0 }
}

fn payload(base: Base, offset: u32, len: usize) -> Expr {
    Expr::Payload { dreg: 1, base, offset, len: u32::try_from(len).unwrap_or(u32::MAX) }
}

fn meta(key: u32) -> Expr {
    Expr::Meta { key, dreg: 1 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn xt(name: &str, rev: u32, blob: Blob) -> Expr {
    Expr::Match { name: name.to_owned(), rev, info: blob.done() }
}

impl Encoder<'_> {
    pub(super) fn test(&mut self, test: &Match, exprs: &mut Vec<Expr>) -> Result<(), NftError> {
        let negated = test.negated;
        let native = self.dialect == Dialect::Native;
        match &test.test {
            Test::InInterface(iface) => interface(META_IIFNAME, negated, iface, exprs),
            Test::OutInterface(iface) => interface(META_OIFNAME, negated, iface, exprs),
            Test::Protocol(number) => exprs.extend([meta(META_L4PROTO), cmp(negated, &[*number])]),
            Test::Source(net) => network(if self.v6 { 8 } else { 12 }, negated, net, exprs),
            Test::Destination(net) => network(if self.v6 { 24 } else { 16 }, negated, net, exprs),
            Test::Fragment => {
                exprs.extend([payload(Base::Network, 6, 2), masked(&[0x1f, 0xff]), cmp(!negated, &[0, 0])]);
            }
            // What follows asks for the header's bytes, and that is enough.
            Test::Header(_) => {}
            Test::Port { side, range, .. } => {
                let offset = self.port_offset(*side, test)?;
                exprs.extend([payload(Base::Transport, offset, 2), port(negated, *range)]);
            }
            Test::TcpFlags { mask, set } => {
                exprs.extend([payload(Base::Transport, 13, 1), masked(&[mask.0]), cmp(negated, &[set.0])]);
            }
            Test::TcpOption(option) if native => {
                let present = Expr::Exthdr { dreg: 1, kind: *option, offset: 0, len: 1, op: 1, present: true };
                exprs.extend([present, cmp(negated, &[1])]);
            }
            Test::TcpOption(option) => {
                let inverse = if negated { 8 } else { 0 };
                let ports = Blob::new().u16(0).u16(u16::MAX).u16(0).u16(u16::MAX);
                exprs.push(xt("tcp", 0, ports.u8(*option).u8(0).u8(0).u8(inverse)));
            }
            Test::Icmp { v6, kind, codes } => self.icmp(test, *v6, *kind, *codes, exprs)?,
            Test::Multiport { side, ranges } => self.multiport(test, *side, ranges, exprs)?,
            Test::Conntrack { module, tests } => self.conntrack(test, *module, tests, exprs)?,
            Test::Mark { value, mask } => {
                exprs.push(meta(META_MARK));
                mark(negated, *value, *mask, exprs);
            }
            Test::Connmark { value, mask } if native => {
                // NFT_CT_MARK
                exprs.push(Expr::Ct { key: 3, dreg: 1, direction: None });
                mark(negated, *value, *mask, exprs);
            }
            Test::Connmark { value, mask } => {
                exprs.push(xt("connmark", 1, Blob::new().u32(*value).u32(*mask).u8(u8::from(negated))));
            }
            Test::Comment(text) if text.len() > 255 => {
                return Err(self.unsupported_match(test, "a comment has at most 255 octets"));
            }
            Test::Comment(_) if native => {
                return Err(self.unsupported_match(test, "a rule has one comment"));
            }
            Test::Comment(text) => exprs.push(xt("comment", 0, Blob::new().string(text, 256))),
            Test::IpRange { side, from, to } => self.iprange(test, *side, *from, *to, exprs)?,
            Test::Mac(mac) if native => exprs.extend([payload(Base::Link, 6, 6), cmp(negated, &mac.0)]),
            Test::Mac(mac) => {
                exprs.push(xt("mac", 0, Blob::new().bytes(&mac.0).pad_to(8).u32(u32::from(negated))));
            }
            Test::PktType(kind) => pkttype(native, negated, *kind, exprs),
            Test::Length { from, to } if !native => {
                exprs.push(xt("length", 0, Blob::new().u16(*from).u16(*to).u8(u8::from(negated))));
            }
            Test::AddrType { side, types, limit_iface } if !native => {
                let (source, destination) = match side {
                    Side::Source => (types.0, 0),
                    Side::Destination => (0, types.0),
                    Side::Either => return Err(self.unsupported_match(test, "an address type is of one end")),
                };
                let mut flags = if negated { u32::from(source != 0) | u32::from(destination != 0) << 1 } else { 0 };
                flags |= match limit_iface {
                    Some(Side::Source) => 4,
                    Some(_) => 8,
                    None => 0,
                };
                exprs.push(xt("addrtype", 1, Blob::new().u16(source).u16(destination).u32(flags)));
            }
            Test::Owner(owner) => self.owner(test, owner, exprs)?,
            Test::Ttl { v6, order, value } if !native => {
                let mode = match (order, negated) {
                    (Comparing::Eq, false) => 0,
                    (Comparing::Eq, true) => 1,
                    (Comparing::Lt, false) => 2,
                    (Comparing::Gt, false) => 3,
                    _ => return Err(self.unsupported_match(test, "only equality can be negated")),
                };
                exprs.push(xt(if *v6 { "hl" } else { "ttl" }, 0, Blob::new().u8(mode).u8(*value)));
            }
            Test::Tos { value, mask } if !native => {
                exprs.push(xt("tos", 1, Blob::new().u8(*mask).u8(*value).u8(u8::from(negated))));
            }
            Test::Dscp(value) if !native => {
                exprs.push(xt("dscp", 0, Blob::new().u8(*value).u8(u8::from(negated))));
            }
            Test::Stateful { module, options } if module == "limit" && !negated => {
                exprs.push(limit(options).ok_or_else(|| self.unsupported_match(test, "the rate cannot be read"))?);
            }
            Test::Stateful { module, options } if module == "statistic" && !negated && !native => {
                let blob = statistic(options);
                exprs.push(xt(
                    "statistic",
                    0,
                    blob.ok_or_else(|| self.unsupported_match(test, "its options cannot be read"))?,
                ));
            }
            _ => return Err(self.unsupported_match(test, "this match is not supported here")),
        }
        Ok(())
    }

    fn port_offset(&self, side: Side, test: &Match) -> Result<u32, NftError> {
        match side {
            Side::Source => Ok(0),
            Side::Destination => Ok(2),
            Side::Either => Err(self.unsupported_match(test, "a port is of one end")),
        }
    }

    fn icmp(
        &self,
        test: &Match,
        v6: bool,
        kind: Option<u8>,
        codes: (u8, u8),
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        if self.dialect == Dialect::Compat {
            let (kind, codes) = (kind.unwrap_or(255), if kind.is_some() { codes } else { (0, 255) });
            let blob = Blob::new().u8(kind).u8(codes.0).u8(codes.1).u8(u8::from(test.negated));
            exprs.push(xt(if v6 { "icmp6" } else { "icmp" }, 0, blob));
            return Ok(());
        }
        match (kind, codes) {
            (None, _) if !test.negated => {}
            (Some(kind), (0, 255)) => exprs.extend([payload(Base::Transport, 0, 1), cmp(test.negated, &[kind])]),
            (Some(kind), (code, last)) if code == last => {
                exprs.extend([payload(Base::Transport, 0, 2), cmp(test.negated, &[kind, code])]);
            }
            _ => return Err(self.unsupported_match(test, "this kernel has no x_tables match for it")),
        }
        Ok(())
    }

    fn multiport(
        &mut self,
        test: &Match,
        side: Side,
        ranges: &[PortRange],
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        if self.dialect == Dialect::Native {
            let offset = self.port_offset(side, test)?;
            let id = self.port_set(ranges);
            exprs.push(payload(Base::Transport, offset, 2));
            let (set, invert) = ("__set%d".to_owned(), test.negated);
            exprs.push(Expr::Lookup { sreg: 1, set, set_id: Some(id), dreg: None, invert });
            return Ok(());
        }
        let (mut ports, mut opens) = (Vec::new(), Vec::new());
        for range in ranges {
            ports.push(range.from);
            opens.push(u8::from(range.from != range.to));
            if range.from != range.to {
                ports.push(range.to);
                opens.push(0);
            }
        }
        let count = match u8::try_from(ports.len()) {
            Ok(count) if (1..=15).contains(&count) => count,
            _ => return Err(self.unsupported_match(test, "a multiport has 1 to 15 ports, a range counting as two")),
        };
        let kind = match side {
            Side::Source => 0,
            Side::Destination => 1,
            Side::Either => 2,
        };
        let blob = ports.iter().fold(Blob::new().u8(kind).u8(count), |blob, port| blob.u16(*port)).pad_to(32);
        let blob = opens.iter().fold(blob, |blob, open| blob.u8(*open)).pad_to(47);
        exprs.push(xt("multiport", 1, blob.u8(u8::from(test.negated))));
        Ok(())
    }

    /// An anonymous set of port ranges; its id within the batch.
    fn port_set(&mut self, ranges: &[PortRange]) -> u32 {
        *self.sets += 1;
        let id = *self.sets;
        let named = || Attrs::new().string(1, self.table).string(2, "__set%d");
        // ANONYMOUS, CONSTANT, INTERVAL; keys of nft's type inet_service (13).
        let attrs = named().u32(3, 1 | 2 | 4).u32(4, 13).u32(5, 2).u32(10, id);
        // The kernel refuses overlapping ranges.
        let mut ranges: Vec<_> = ranges.iter().map(|range| (range.from, range.to)).collect();
        ranges.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (from, to) in ranges {
            match joined.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        let key = |port: u16| Attrs::new().nest(1, &Attrs::new().bytes_attr(1, &port.to_be_bytes()));
        let mut elements = Attrs::new();
        for (from, to) in joined {
            elements = elements.nest(1, &key(from).u32(3, 0));
            if let Some(end) = to.checked_add(1) {
                elements = elements.nest(1, &key(end).u32(3, 1));
            }
        }
        let filled = named().nest(3, &elements).u32(4, id);
        for (kind, attrs) in [(msg::NEWSET, attrs), (msg::NEWSETELEM, filled)] {
            let what = format!("add a set of ports to {}", self.table);
            let flags = netlink_packet_core::NLM_F_CREATE;
            self.orders.push(Order { kind, flags, family: self.family, attrs, what });
        }
        id
    }

    /// `struct xt_conntrack_mtinfo3`; natively, states alone.
    fn conntrack(
        &self,
        test: &Match,
        module: CtModule,
        tests: &[(bool, CtTest)],
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        if self.dialect == Dialect::Native {
            for (negated, part) in tests {
                let CtTest::State(states) = part else {
                    return Err(self.unsupported_match(test, "this kernel has no x_tables match for it"));
                };
                let bits = native_states(*states)
                    .ok_or_else(|| self.unsupported_match(test, "this kernel has no x_tables match for it"))?;
                let negated = *negated != test.negated;
                exprs.push(Expr::Ct { key: 0, dreg: 1, direction: None });
                exprs.extend([masked(&bits.to_ne_bytes()), cmp(!negated, &[0; 4])]);
            }
            return Ok(());
        }
        let mut addresses =
            [(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)); 4];
        let mut ports = [PortRange { from: 0, to: 0 }; 4];
        let (mut flags, mut inverse) = (0u16, 0u16);
        let (mut states, mut statuses, mut proto, mut expires) = (0u16, 0u16, 0u16, (0u32, 0u32));
        let index = |reply: bool, side: Side| usize::from(reply) * 2 + usize::from(side == Side::Destination);
        for (negated, part) in tests {
            let bit = match part {
                CtTest::State(set) => {
                    states = compat_states(*set);
                    1
                }
                CtTest::Proto(number) => {
                    proto = u16::from(*number);
                    2
                }
                CtTest::Addr { reply, side, net } => {
                    let index = index(*reply, *side);
                    addresses[index] = (net.addr, net.mask);
                    4 << index
                }
                CtTest::Port { reply, side, range } => {
                    let index = index(*reply, *side);
                    ports[index] = *range;
                    0x100 << index
                }
                CtTest::Status(set) => {
                    statuses = u16::from(set.0);
                    0x40
                }
                CtTest::Direction(reply) => {
                    inverse |= if *reply { 0x1000 } else { 0 };
                    0x1000
                }
                CtTest::Expire(range) => {
                    let (from, to) = range.split_once(':').unwrap_or((range, range));
                    expires = match (from.parse(), to.parse()) {
                        (Ok(from), Ok(to)) => (from, to),
                        _ => return Err(self.unsupported_match(test, "the time range cannot be read")),
                    };
                    0x80
                }
            };
            flags |= bit;
            inverse ^= if *negated { bit } else { 0 };
        }
        if module == CtModule::State {
            flags |= 0x2000;
        }
        let blob = addresses.iter().fold(Blob::new(), |blob, (address, mask)| blob.addr(*address).addr(*mask));
        let blob = blob.u32(expires.0).u32(expires.1).u16(proto);
        let blob = ports.iter().fold(blob, |blob, range| blob.u16(range.from));
        let blob = blob.u16(flags).u16(inverse).u16(states).u16(statuses);
        exprs.push(xt("conntrack", 3, ports.iter().fold(blob, |blob, range| blob.u16(range.to))));
        Ok(())
    }

    fn iprange(
        &self,
        test: &Match,
        side: Side,
        from: IpAddr,
        to: IpAddr,
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        let source = match side {
            Side::Source => true,
            Side::Destination => false,
            Side::Either => return Err(self.unsupported_match(test, "a range is of one end")),
        };
        if self.dialect == Dialect::Native {
            let offset = match (self.v6, source) {
                (false, true) => 12,
                (false, false) => 16,
                (true, true) => 8,
                (true, false) => 24,
            };
            let (from, to) = (octets(from), octets(to));
            exprs.push(payload(Base::Network, offset, from.len()));
            exprs.push(Expr::Range { sreg: 1, neq: test.negated, from, to });
            return Ok(());
        }
        let flag = if source { 1 } else { 2 };
        let flags = flag | if test.negated { flag << 4 } else { 0 };
        let at = if source { 0 } else { 32 };
        let blob = Blob::new().pad_to(at).addr(from).addr(to).pad_to(64).u8(flags).pad_to(68);
        exprs.push(xt("iprange", 1, blob));
        Ok(())
    }

    fn owner(&self, test: &Match, owner: &OwnerTest, exprs: &mut Vec<Expr>) -> Result<(), NftError> {
        let (bit, uid, gid) = match owner {
            OwnerTest::Uid(from, to) => (1, (*from, *to), (0, 0)),
            OwnerTest::Gid(from, to) => (2, (0, 0), (*from, *to)),
            OwnerTest::SocketExists => (4, (0, 0), (0, 0)),
        };
        if self.dialect == Dialect::Compat {
            let blob = Blob::new().u32(uid.0).u32(uid.1).u32(gid.0).u32(gid.1);
            exprs.push(xt("owner", 1, blob.u8(bit).u8(if test.negated { bit } else { 0 }).pad_to(20)));
            return Ok(());
        }
        let (key, (from, to)) = match owner {
            OwnerTest::Uid(..) => (META_SKUID, uid),
            OwnerTest::Gid(..) => (META_SKGID, gid),
            OwnerTest::SocketExists => {
                return Err(self.unsupported_match(test, "this kernel has no x_tables match for it"));
            }
        };
        if from != to {
            return Err(self.unsupported_match(test, "this kernel has no x_tables match for it"));
        }
        exprs.extend([meta(key), cmp(test.negated, &from.to_ne_bytes())]);
        Ok(())
    }
}

/// With its NUL a name is compared whole, without it as a prefix; `+` alone is any interface.
fn interface(key: u32, negated: bool, iface: &Iface, exprs: &mut Vec<Expr>) {
    let mut data = iface.name.clone().into_bytes();
    match (iface.prefix, data.is_empty()) {
        // Never: iptables-nft compares with a name that no interface has.
        (true, true) if negated => data.extend_from_slice(b"INVAL/D\0"),
        (true, true) => return,
        (true, false) => {}
        (false, _) => data.push(0),
    }
    let impossible = iface.prefix && iface.name.is_empty();
    exprs.extend([meta(key), cmp(negated && !impossible, &data)]);
}

/// As iptables-nft: a prefix of whole bytes is compared by those bytes alone.
fn network(offset: u32, negated: bool, net: &Net, exprs: &mut Vec<Expr>) {
    let (address, mask) = (octets(net.addr), octets(net.mask));
    match net.prefix_len().map(usize::from) {
        Some(0) if negated => {
            // No address is outside of all addresses: compare with what cannot be.
            exprs.extend([payload(Base::Network, offset, 1), masked(&[0]), cmp(true, &[0])]);
        }
        Some(0) => {}
        Some(bits) if bits % 8 == 0 => {
            exprs.extend([payload(Base::Network, offset, bits / 8), cmp(negated, &address[..bits / 8])]);
        }
        _ => exprs.extend([payload(Base::Network, offset, address.len()), masked(&mask), cmp(negated, &address)]),
    }
}

fn port(negated: bool, range: PortRange) -> Expr {
    if range.from == range.to {
        return cmp(negated, &range.from.to_be_bytes());
    }
    let (from, to) = (range.from.to_be_bytes().to_vec(), range.to.to_be_bytes().to_vec());
    Expr::Range { sreg: 1, neq: negated, from, to }
}

fn mark(negated: bool, value: u32, mask: u32, exprs: &mut Vec<Expr>) {
    if mask != u32::MAX {
        exprs.push(masked(&mask.to_ne_bytes()));
    }
    exprs.push(cmp(negated, &value.to_ne_bytes()));
}

fn pkttype(native: bool, negated: bool, kind: PktType, exprs: &mut Vec<Expr>) {
    let number = match kind {
        PktType::Unicast => 0u8,
        PktType::Broadcast => 1,
        PktType::Multicast => 2,
    };
    if native {
        exprs.extend([meta(META_PKTTYPE), cmp(negated, &[number])]);
    } else {
        exprs.push(xt("pkttype", 0, Blob::new().u32(u32::from(number)).u32(u32::from(negated))));
    }
}

/// `XT_CONNTRACK_STATE_*`: SNAT, DNAT and UNTRACKED are bits 6, 7 and 8.
fn compat_states(states: CtStates) -> u16 {
    let low = u16::from(states.0 & 0x0f);
    let moved = [(CtStates::SNAT, 64), (CtStates::DNAT, 128), (CtStates::UNTRACKED, 256)];
    moved.iter().filter(|(state, _)| states.intersects(*state)).fold(low, |bits, (_, bit)| bits | bit)
}

/// `NF_CT_STATE_*`: UNTRACKED is bit 6; translation is not a state.
fn native_states(states: CtStates) -> Option<u32> {
    if states.intersects(CtStates::SNAT) || states.intersects(CtStates::DNAT) {
        return None;
    }
    let untracked = if states.intersects(CtStates::UNTRACKED) { 64 } else { 0 };
    Some(u32::from(states.0 & 0x0f) | untracked)
}

/// `--limit 5/min --limit-burst 10`, 3/hour and 5 unless told.
fn limit(options: &str) -> Option<Expr> {
    let (mut rate, mut unit, mut burst) = (3, 3600, 5);
    let words = words(options);
    for pair in words.chunks(2) {
        match (pair.first()?.as_str(), pair.get(1)?) {
            ("--limit", value) => {
                let (number, per) = value.split_once('/').unwrap_or((value, "second"));
                rate = number.parse().ok().filter(|rate| *rate > 0)?;
                unit = ["second", "minute", "hour", "day"]
                    .iter()
                    .zip([1, 60, 3600, 86400])
                    .find(|(name, _)| !per.is_empty() && name.starts_with(&per.to_lowercase()))?
                    .1;
            }
            ("--limit-burst", value) => burst = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(Expr::Limit { rate, unit, burst, bytes: false, invert: false })
}

/// `struct xt_statistic_info`.
fn statistic(options: &str) -> Option<Blob> {
    let words = words(options);
    let value = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let inverse = u16::from(words.iter().any(|word| word == "!"));
    let (mode, first, second) = match value("--mode")?.as_str() {
        "random" => {
            let probability: f64 = value("--probability")?.parse().ok()?;
            if !(0.0..=1.0).contains(&probability) {
                return None;
            }
            // 31 bits of fraction.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^31")]
            let scaled = (probability * 2_147_483_648.0).round() as u32;
            (0, scaled, 0)
        }
        "nth" => {
            let every: u32 = value("--every")?.parse().ok()?;
            let packet: u32 = value("--packet").map_or(Some(0), |packet| packet.parse().ok())?;
            (1, every.checked_sub(1)?, if packet < every { packet } else { return None })
        }
        _ => return None,
    };
    Some(Blob::new().u16(mode).u16(inverse).u32(first).u32(second).u32(0).pad_to(24))
}
