//! The variables: one for each bit of a packet's fields, and one for each test that is no function
//! of the packet.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::firewall::packet::{Packet, Proto, To};
use crate::firewall::ruleset::{CtStates, PktType, TcpFlags};
use crate::wire::MacAddr;

use super::bdd::{ALL, Bdd, NONE, Set};
use super::interfaces::Names;

/// A field of a packet. The order is that of the variables, but for those behind the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// Its way: 0 to this host, 1 on to another, 2 from this host.
    To,
    /// The interface it comes by, as a number of [`Names`].
    In,
    /// The interface it leaves by.
    Out,
    /// Protocol number.
    Proto,
    /// 1 in a second or later fragment.
    Frag,
    /// Conntrack state, as a number of `STATES`.
    Ct,
    /// Destination address.
    Dst,
    /// Destination port; of ICMP type and code.
    Dport,
    /// Source address.
    Src,
    /// Source port.
    Sport,
    /// TCP flags.
    Flags,
    /// Source hardware address.
    Mac,
    /// Whom the frame was for: unicast, broadcast, multicast.
    PktType,
    /// The packet's mark.
    Mark,
    /// The connection's mark.
    Connmark,
    /// Length of the IP packet.
    Length,
    /// TTL or hop limit.
    Ttl,
    /// TOS octet.
    Tos,
    /// User of the sending socket.
    Uid,
    /// Group of the sending socket.
    Gid,
    /// Type of the destination address: unicast, local, broadcast, another.
    DstType,
    /// Type of the source address.
    SrcType,
    /// Destination address after translation.
    NewDst,
    /// Destination port after translation.
    NewDport,
    /// Source address after translation.
    NewSrc,
    /// Source port after translation.
    NewSport,
}

impl Field {
    /// All of them.
    pub const EVERY: [Self; 26] = [
        Self::To,
        Self::In,
        Self::Out,
        Self::Proto,
        Self::Frag,
        Self::Ct,
        Self::Dst,
        Self::Dport,
        Self::Src,
        Self::Sport,
        Self::Flags,
        Self::Mac,
        Self::PktType,
        Self::Mark,
        Self::Connmark,
        Self::Length,
        Self::Ttl,
        Self::Tos,
        Self::Uid,
        Self::Gid,
        Self::DstType,
        Self::SrcType,
        Self::NewDst,
        Self::NewDport,
        Self::NewSrc,
        Self::NewSport,
    ];
}

/// The first of the variables behind those of tests.
const LAST: u32 = 1 << 30;

/// Conntrack states by their number in [`Field::Ct`].
pub(super) const STATES: [CtStates; 5] =
    [CtStates::NEW, CtStates::ESTABLISHED, CtStates::RELATED, CtStates::INVALID, CtStates::UNTRACKED];

/// A test that is no function of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The test, as a rule has it.
    pub text: String,
    /// Where: `INPUT rule 3`.
    pub place: String,
    /// The rule's line.
    pub line: Option<u32>,
}

/// The variables of one family and the diagram over them.
pub struct Space {
    /// The diagram.
    pub bdd: Bdd,
    /// IPv6.
    pub v6: bool,
    /// The interfaces.
    pub names: Names,
    /// Whether fragments are seen at all: conntrack puts them together again before any rule.
    pub fragments: bool,
    /// The first variable of each field and how many it has, in the order of [`Field::EVERY`].
    places: [(u32, u32); 26],
    /// The first variable of tests.
    first_open: u32,
    open: Vec<Open>,
    by_key: HashMap<String, u32>,
    /// The fields that rules or questions ask about, a bit each.
    asked: u32,
}

impl Space {
    /// Variables for packets of one family.
    pub fn new(v6: bool, names: Names, fragments: bool) -> Self {
        let classes = u32::try_from(names.names.len()).unwrap_or(u32::MAX).max(2);
        let name_bits = 32 - (classes - 1).leading_zeros();
        let width = |field: Field| match field {
            Field::Frag => 1,
            Field::In | Field::Out => name_bits,
            Field::Proto | Field::Flags | Field::Ttl | Field::Tos => 8,
            Field::Ct => 3,
            Field::Dst | Field::Src | Field::NewDst | Field::NewSrc => {
                if v6 {
                    128
                } else {
                    32
                }
            }
            Field::Dport | Field::Sport | Field::NewDport | Field::NewSport | Field::Length => 16,
            Field::Mac => 48,
            Field::To | Field::PktType | Field::DstType | Field::SrcType => 2,
            Field::Mark | Field::Connmark | Field::Uid | Field::Gid => 32,
        };
        let mut places = [(0, 0); 26];
        let (mut at, mut translated) = (0, LAST);
        let mut last =
            LAST + [Field::NewDst, Field::NewDport, Field::NewSrc, Field::NewSport].map(width).iter().sum::<u32>();
        for (place, field) in places.iter_mut().zip(Field::EVERY) {
            let next = match field {
                Field::NewDst | Field::NewDport | Field::NewSrc | Field::NewSport => &mut translated,
                // No rule, or few, ask about these; that some values cannot be is said of all packets,
                // and said below everything else it makes no set larger.
                Field::To | Field::PktType | Field::Length | Field::Ttl => &mut last,
                _ => &mut at,
            };
            *place = (*next, width(field));
            *next += width(field);
        }
        Self {
            bdd: Bdd::new(),
            v6,
            names,
            fragments,
            places,
            first_open: at,
            open: Vec::new(),
            by_key: HashMap::new(),
            asked: 0,
        }
    }

    /// The first variable of a field, and how many it has; the most significant bit first.
    pub fn bits(&self, field: Field) -> (u32, u32) {
        self.places[field as usize]
    }

    /// Remembers that something asks about a field.
    pub(super) fn ask(&mut self, field: Field) {
        self.asked |= 1 << field as u32;
    }

    /// The field of a variable; `None` for those of tests.
    pub fn field_of(&self, level: u32) -> Option<Field> {
        let holds = |field: &Field| {
            let (start, width) = self.bits(*field);
            (start..start + width).contains(&level)
        };
        Field::EVERY.into_iter().find(holds)
    }

    /// The variables of translated fields.
    pub fn translated(&self) -> Range<u32> {
        LAST..self.bits(Field::To).0
    }

    /// The variables of tests that are no function of the packet.
    pub fn tests(&self) -> Range<u32> {
        self.first_open..LAST
    }

    /// The tests that are no function of the packet.
    pub fn open(&self) -> &[Open] {
        &self.open
    }

    /// The test of a variable.
    pub fn open_at(&self, level: u32) -> Option<&Open> {
        self.open.get(usize::try_from(level.checked_sub(self.first_open)?).ok()?)
    }

    /// Where a test holds that is no function of the packet; the same key is the same test.
    pub fn free(&mut self, key: String, open: impl FnOnce() -> Open) -> Set {
        let next = self.first_open + u32::try_from(self.open.len()).unwrap_or(u32::MAX / 2);
        let level = *self.by_key.entry(key).or_insert(next);
        if level == next {
            self.open.push(open());
        }
        self.bdd.var(level)
    }

    /// Where the field lies in one of the ranges, which are made sorted and apart.
    pub fn within(&mut self, field: Field, ranges: &[(u128, u128)]) -> Set {
        self.ask(field);
        let (start, width) = self.bits(field);
        let mut sorted = ranges.to_vec();
        tidy(&mut sorted);
        self.build(start, width, 0, &sorted)
    }

    /// Where the field is this number.
    pub fn equals(&mut self, field: Field, value: u128) -> Set {
        self.ask(field);
        let (start, width) = self.bits(field);
        (0..width).fold(ALL, |below, n| {
            let level = start + width - 1 - n;
            if value >> n & 1 == 1 { self.bdd.make(level, NONE, below) } else { self.bdd.make(level, below, NONE) }
        })
    }

    /// Where the field's bits under the mask are these.
    pub fn masked(&mut self, field: Field, value: u128, mask: u128) -> Set {
        self.ask(field);
        let (start, width) = self.bits(field);
        (0..width).fold(ALL, |below, n| {
            let level = start + width - 1 - n;
            match (mask >> n & 1, value >> n & 1) {
                (0, 0) => below,
                (0, _) => NONE,
                (_, 1) => self.bdd.make(level, NONE, below),
                _ => self.bdd.make(level, below, NONE),
            }
        })
    }

    fn build(&mut self, start: u32, width: u32, base: u128, ranges: &[(u128, u128)]) -> Set {
        let last = base | low_bits(width);
        let from = ranges.partition_point(|(_, to)| *to < base);
        let until = ranges.partition_point(|(from, _)| *from <= last);
        let ranges = ranges.get(from..until).unwrap_or(&[]);
        let Some(first) = ranges.first() else { return NONE };
        if first.0 <= base && first.1 >= last {
            return ALL;
        }
        let half = base | 1u128 << (width - 1);
        let lo = self.build(start + 1, width - 1, base, ranges);
        let hi = self.build(start + 1, width - 1, half, ranges);
        self.bdd.make(start, lo, hi)
    }

    /// Where variables have these values; sorted by variable.
    pub(super) fn cube(&mut self, values: &[(u32, bool)]) -> Set {
        values.iter().rev().fold(ALL, |below, (level, up)| {
            if *up { self.bdd.make(*level, NONE, below) } else { self.bdd.make(*level, below, NONE) }
        })
    }

    /// The bits of a field as sets, the most significant first.
    pub fn word(&mut self, field: Field) -> Vec<Set> {
        let (start, width) = self.bits(field);
        (start..start + width).map(|level| self.bdd.var(level)).collect()
    }

    /// Where a number given by its bits, the most significant first, lies between two others.
    pub fn word_within(&mut self, word: &[Set], from: u128, to: u128) -> Set {
        let width = u32::try_from(word.len()).unwrap_or(0);
        if from > to || from > low_bits(width) {
            return NONE;
        }
        let (mut least, mut most) = (ALL, ALL);
        for (n, bit) in word.iter().rev().enumerate() {
            least = if from >> n & 1 == 1 { self.bdd.and(*bit, least) } else { self.bdd.or(*bit, least) };
            most = if to >> n & 1 == 1 { self.bdd.or(!*bit, most) } else { self.bdd.and(!*bit, most) };
        }
        if to >= low_bits(width) {
            most = ALL;
        }
        self.bdd.and(least, most)
    }

    /// Where a number given by its bits has these under the mask.
    pub fn word_masked(&mut self, word: &[Set], value: u128, mask: u128) -> Set {
        let width = u32::try_from(word.len()).unwrap_or(0);
        if value & !mask != 0 || value > low_bits(width) {
            return NONE;
        }
        let mut set = ALL;
        for (n, bit) in word.iter().rev().enumerate() {
            if mask >> n & 1 == 1 {
                set = self.bdd.and(set, if value >> n & 1 == 1 { *bit } else { !*bit });
            }
        }
        set
    }

    /// The values of one field in a set that rests on that field alone; sorted and apart. At most
    /// `limit` of them.
    pub fn ranges_of(&self, field: Field, set: Set, limit: usize) -> Vec<(u128, u128)> {
        let (start, width) = self.bits(field);
        let mut found = Vec::new();
        self.collect(set, start, width, 0, limit, &mut found);
        found
    }

    fn collect(&self, set: Set, start: u32, width: u32, base: u128, limit: usize, found: &mut Vec<(u128, u128)>) {
        if set.is_none() || found.len() >= limit {
            return;
        }
        if set.is_all() || width == 0 {
            let last = base | low_bits(width);
            match found.last_mut() {
                Some(before) if before.1.checked_add(1) == Some(base) => before.1 = last,
                _ => found.push((base, last)),
            }
            return;
        }
        let (lo, hi) = if self.bdd.level(set) == start { self.bdd.parts(set) } else { (set, set) };
        self.collect(lo, start + 1, width - 1, base, limit, found);
        self.collect(hi, start + 1, width - 1, base | 1u128 << (width - 1), limit, found);
    }

    /// The number that an assignment gives a field.
    pub fn value(&self, field: Field, path: &HashMap<u32, bool>) -> u128 {
        let (start, width) = self.bits(field);
        (start..start + width).fold(0, |n, level| n << 1 | u128::from(path.get(&level).copied().unwrap_or(false)))
    }

    /// Where the header has ports.
    pub fn has_ports(&mut self) -> Set {
        self.within(Field::Proto, &[(6, 6), (17, 17), (33, 33), (132, 132), (136, 136)])
    }

    /// The packets that there can be on one way.
    pub fn universe(&mut self, way: Way, untracked: bool) -> Set {
        let asked = self.asked;
        let all = self.every_packet(way, untracked);
        self.asked = asked;
        all
    }

    fn every_packet(&mut self, way: Way, untracked: bool) -> Set {
        let count = self.names.names.len() as u128;
        let known = [(0, count - 1)];
        let lo = self.names.ranges(|name| name == "lo");
        let mut all = ALL;
        let mut parts = Vec::new();
        match way {
            Way::Input => {
                parts.push(self.equals(Field::To, 0));
                parts.push(self.within(Field::In, &known));
            }
            Way::Forward => {
                parts.push(self.equals(Field::To, 1));
                parts.push(self.within(Field::In, &known));
                parts.push(self.within(Field::Out, &known));
                // Frames for many are not forwarded; nor is what has no hops left.
                parts.push(self.within(Field::Ttl, &[(2, 255)]));
                parts.push(self.equals(Field::PktType, 0));
                if !untracked {
                    let from_lo = self.within(Field::In, &lo);
                    let to_lo = self.within(Field::Out, &lo);
                    parts.extend([!from_lo, !to_lo]);
                }
            }
            Way::Output => {
                parts.push(self.equals(Field::To, 2));
                parts.push(self.within(Field::Out, &known));
            }
        }
        if !self.fragments {
            parts.push(self.equals(Field::Frag, 0));
        }
        parts.push(self.within(Field::PktType, &[(0, 2)]));
        let tracked = self.within(Field::Ct, &[(0, 3)]);
        if untracked {
            parts.push(self.within(Field::Ct, &[(0, 4)]));
        } else if self.v6 {
            // net/netfilter/nf_conntrack_proto_icmpv6.c: neighbour discovery belongs to no flow.
            let icmp = self.equals(Field::Proto, 58);
            let kinds = self.within(Field::Dport, &[(130 << 8, 136 << 8 | 255), (143 << 8, 143 << 8 | 255)]);
            let whole = self.equals(Field::Frag, 0);
            let discovery = self.bdd.and(icmp, kinds);
            let discovery = self.bdd.and(discovery, whole);
            let none = self.equals(Field::Ct, 4);
            parts.push(self.bdd.choose(discovery, none, tracked));
        } else {
            parts.push(tracked);
        }
        // A length that cuts the header short is no whole packet.
        let header: u128 = if self.v6 { 40 } else { 20 };
        let mut long = self.within(Field::Length, &[(header, 65_535)]);
        for (protos, octets) in
            [(vec![6u128], 20), (vec![17, 136, 1, 58], 8), (vec![132, 33], 12), (vec![50, 51], 12), (vec![108], 4)]
        {
            let protos: Vec<_> = protos.into_iter().map(|p| (p, p)).collect();
            let of = self.within(Field::Proto, &protos);
            let enough = self.within(Field::Length, &[(header + octets, 65_535)]);
            let fine = self.bdd.or(!of, enough);
            long = self.bdd.and(long, fine);
        }
        if !untracked {
            parts.push(long);
        }
        for part in parts {
            all = self.bdd.and(all, part);
        }
        all
    }

    /// A packet of the set that looks like one of everyday's, and the answers that its tests get.
    pub fn packet(&mut self, set: Set, way: Way) -> Option<(Packet, Vec<(u32, bool)>)> {
        let asked = self.asked;
        let found = self.nicest(set);
        self.asked = asked;
        let (path, answers, support) = found?;
        let touched = |field: Field| {
            asked >> field as u32 & 1 == 1 && support.iter().any(|level| self.field_of(*level) == Some(field))
        };
        Some((self.assemble(&path, way, &touched), answers))
    }

    #[allow(clippy::type_complexity, reason = "the parts of one packet, taken apart at once")]
    fn nicest(&mut self, set: Set) -> Option<(HashMap<u32, bool>, Vec<(u32, bool)>, Vec<u32>)> {
        let mut left = set;
        if left.is_none() {
            return None;
        }
        let support = self.bdd.support(set);
        let (src, dst) = if self.v6 {
            (0x2001_0db8_u128 << 96 | 2, 0x2001_0db8_u128 << 96 | 1)
        } else {
            (u128::from(u32::from(Ipv4Addr::new(192, 0, 2, 2))), u128::from(u32::from(Ipv4Addr::new(192, 0, 2, 1))))
        };
        let real: Vec<(u128, u128)> = (0u128..)
            .zip(&self.names.names)
            .zip(&self.names.kinds)
            .filter(|((_, name), kind)| kind.is_none() && *name != "lo")
            .map(|((n, _), _)| (n, n))
            .collect();
        let not_lo = self.names.ranges(|name| name != "lo");
        let any_unicast: Vec<(u128, u128)> = if self.v6 {
            vec![(0x2000_u128 << 112, (0x4000_u128 << 112) - 1)]
        } else {
            vec![(1 << 24, (127 << 24) - 1), (128 << 24, (224 << 24) - 1)]
        };
        let icmp = if self.v6 { 58 } else { 1 };
        let echo = if self.v6 { 128 << 8 } else { 8 << 8 };
        let wishes: Vec<(Field, Vec<(u128, u128)>)> = vec![
            (Field::Frag, vec![(0, 0)]),
            (Field::Proto, vec![(6, 6)]),
            (Field::Proto, vec![(17, 17)]),
            (Field::Proto, vec![(icmp, icmp)]),
            (Field::Ct, vec![(0, 0)]),
            (Field::Ct, vec![(1, 1)]),
            (Field::In, not_lo.clone()),
            (Field::In, real.clone()),
            (Field::Out, not_lo),
            (Field::Out, real),
            (Field::PktType, vec![(0, 0)]),
            (Field::Mark, vec![(0, 0)]),
            (Field::Connmark, vec![(0, 0)]),
            (Field::Ttl, vec![(64, 64)]),
            (Field::Tos, vec![(0, 0)]),
            (Field::Dst, any_unicast.clone()),
            (Field::Dst, vec![(dst, dst)]),
            (Field::Src, any_unicast),
            (Field::Src, vec![(src, src)]),
            (Field::Dport, vec![(80, 80)]),
            (Field::Dport, vec![(1, 65_535)]),
            (Field::Sport, vec![(40_000, 40_000)]),
            (Field::Sport, vec![(1024, 65_535)]),
            (Field::Length, vec![(60, 60)]),
            (Field::Length, vec![(1000, 1000)]),
            (Field::Uid, vec![(1000, 1000)]),
            (Field::Gid, vec![(1000, 1000)]),
        ];
        for (field, ranges) in wishes {
            let mut ranges = ranges;
            if field == Field::Dport && ranges == [(80, 80)] {
                // For ICMP the place of the port is type and code.
                let of_icmp = self.equals(Field::Proto, icmp);
                if self.bdd.within(left, of_icmp) {
                    ranges = vec![(echo, echo)];
                }
            }
            let wish = self.within(field, &ranges);
            let better = self.bdd.and(left, wish);
            if !better.is_none() {
                left = better;
            }
        }
        // The first address of a network is nobody's.
        for field in [Field::Dst, Field::Src] {
            let odd = self.masked(field, 1, 1);
            let better = self.bdd.and(left, odd);
            if !better.is_none() {
                left = better;
            }
        }
        // A new flow begins with SYN, one that is open goes on with ACK.
        let new = self.equals(Field::Ct, 0);
        let flags = if self.bdd.within(left, new) { [2, 16] } else { [16, 2] };
        for flags in flags {
            let wish = self.equals(Field::Flags, flags);
            let better = self.bdd.and(left, wish);
            if !better.is_none() {
                left = better;
                break;
            }
        }
        let picked = self.bdd.pick(left)?;
        let path: HashMap<u32, bool> = picked.iter().copied().collect();
        let answers = picked.into_iter().filter(|(level, _)| self.tests().contains(level)).collect();
        Some((path, answers, support))
    }

    /// The packet of an assignment. Fields that no rule looked at are left out.
    pub fn assemble(&self, path: &HashMap<u32, bool>, way: Way, touched: &dyn Fn(Field) -> bool) -> Packet {
        let number = |field: Field| self.value(field, path);
        let small = |field: Field| u8::try_from(number(field)).unwrap_or(u8::MAX);
        let port = |field: Field| u16::try_from(number(field)).unwrap_or(u16::MAX);
        let wide = |field: Field| u32::try_from(number(field)).unwrap_or(u32::MAX);
        let name = |field: Field| self.names.names.get(usize::try_from(number(field)).unwrap_or(0)).cloned();
        let addr = |field: Field| self.address(number(field));
        let mut packet = Packet::new(addr(Field::Src), addr(Field::Dst));
        let proto = small(Field::Proto);
        packet.proto = Some(Proto(proto));
        let fragment = number(Field::Frag) == 1;
        if fragment {
            packet.frag_offset = Some(100);
            if touched(Field::Dport) || touched(Field::Sport) || touched(Field::Flags) {
                packet.payload = Some(self.fragment_payload(path, proto));
            }
        } else if matches!(proto, 6 | 17 | 33 | 132 | 136) {
            packet.sport = Some(port(Field::Sport));
            packet.dport = Some(port(Field::Dport));
        } else if proto == if self.v6 { 58 } else { 1 } {
            let [kind, code] = port(Field::Dport).to_be_bytes();
            (packet.icmp_type, packet.icmp_code) = (Some(kind), Some(code));
        }
        if proto == 6 && !fragment {
            packet.tcp_flags = Some(TcpFlags(small(Field::Flags)));
        }
        let state = STATES.get(usize::try_from(number(Field::Ct)).unwrap_or(0)).copied().unwrap_or(CtStates::NEW);
        packet.ctstate = (touched(Field::Ct) || state != CtStates::NEW).then_some(state);
        match way {
            Way::Output => packet.out = name(Field::Out),
            Way::Input => (packet.in_, packet.to) = (name(Field::In), Some(To::Local)),
            Way::Forward => {
                (packet.in_, packet.out, packet.to) = (name(Field::In), name(Field::Out), Some(To::Forward));
            }
        }
        if touched(Field::Mac) {
            let octets = number(Field::Mac).to_be_bytes();
            let mut mac = [0; 6];
            mac.copy_from_slice(&octets[10..]);
            packet.mac_src = Some(MacAddr(mac));
        }
        let set = |field: Field| touched(field).then_some(());
        packet.pkttype = set(Field::PktType).filter(|()| way != Way::Output).map(|()| match number(Field::PktType) {
            0 => PktType::Unicast,
            1 => PktType::Broadcast,
            _ => PktType::Multicast,
        });
        packet.mark = set(Field::Mark).map(|()| wide(Field::Mark)).filter(|n| *n != 0);
        packet.connmark = set(Field::Connmark).map(|()| wide(Field::Connmark)).filter(|n| *n != 0);
        packet.length = set(Field::Length).map(|()| wide(Field::Length));
        packet.ttl = set(Field::Ttl).map(|()| small(Field::Ttl)).filter(|n| *n != 64);
        packet.tos = set(Field::Tos).map(|()| small(Field::Tos)).filter(|n| *n != 0);
        packet.uid = set(Field::Uid).map(|()| wide(Field::Uid));
        packet.gid = set(Field::Gid).map(|()| wide(Field::Gid));
        packet
    }

    /// The octets of a later fragment that stand where a header would be.
    fn fragment_payload(&self, path: &HashMap<u32, bool>, proto: u8) -> String {
        let port = |field: Field| u16::try_from(self.value(field, path)).unwrap_or(0).to_be_bytes();
        let mut octets = [0u8; 20];
        if matches!(proto, 1 | 58) {
            octets[..2].copy_from_slice(&port(Field::Dport));
        } else {
            octets[..2].copy_from_slice(&port(Field::Sport));
            octets[2..4].copy_from_slice(&port(Field::Dport));
            octets[13] = u8::try_from(self.value(Field::Flags, path)).unwrap_or(0);
        }
        octets.iter().fold(String::new(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        })
    }

    /// A number as an address of this family.
    pub fn address(&self, number: u128) -> IpAddr {
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(number))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
        }
    }
}

/// Which way a packet takes through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Prerouting, input.
    Input,
    /// Prerouting, forward, postrouting.
    Forward,
    /// Output, postrouting.
    Output,
}

impl Way {
    /// All three.
    pub const EVERY: [Self; 3] = [Self::Input, Self::Forward, Self::Output];

    /// The name of the hook that filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

/// As many ones.
pub(super) fn low_bits(width: u32) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

/// Sorts ranges and joins those that touch.
pub(super) fn tidy(ranges: &mut Vec<(u128, u128)>) {
    ranges.retain(|(from, to)| from <= to);
    ranges.sort_unstable();
    let mut out: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges.drain(..) {
        match out.last_mut() {
            Some(last) if last.1 == u128::MAX || from <= last.1 + 1 => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    *ranges = out;
}

/// An address as a number.
pub(super) fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}
