//! A rule as a box: the outline within which alone it can match, and what each side of the outline
//! rests on.

use std::net::IpAddr;

use crate::firewall::ruleset::{
    CompareOp, Comparison, CtStates, CtTest, Field, Iface, Match, Net, Operand, PortRange, Rule, Set, Side, Table,
    Test, Transport,
};
use crate::firewall::walk::{Stack, is_core, nft_states};
use crate::host::Backend;

use super::guard::{
    ANYTHING, CONNMARK, DPORT_OPEN, FLAGS, Guard, HISTORY, ICMP, IN, IN_LO, IN_OPEN, LENGTH, MAC_OPEN, MARK, MARK_OPEN,
    NO_PORTS, ODD, OUT, OUT_LO, OUT_OPEN, PKTTYPE, SPORT, STATE, TTL, addr, dim, name, octets,
};
use super::tree::Span;

/// More intervals than this are taken for everything.
const MAX_SPANS: usize = 24;

/// One side of a rule's outline.
pub(super) struct Face {
    pub(super) dim: usize,
    /// Nothing of this may be pending where the rule is passed over for this side.
    pub(super) guard: Guard,
    pub(super) spans: Vec<Span>,
}

/// A rule's outline. A side without intervals: the rule never matches.
pub(super) struct Sketch {
    pub(super) faces: Vec<Face>,
}

/// What one test says.
#[derive(Default)]
struct Says {
    /// What looking at it may leave behind.
    own: Guard,
    faces: Vec<Said>,
}

/// One constraint of a test.
struct Said {
    dim: usize,
    /// What must be known for it.
    needs: Guard,
    /// It is looked at before anything else of the test.
    first: bool,
    spans: Vec<Span>,
}

impl Says {
    fn own(own: Guard) -> Self {
        Self { own, faces: Vec::new() }
    }

    fn face(mut self, dim: usize, needs: Guard, spans: Option<Vec<Span>>) -> Self {
        self.faces.extend(spans.map(|spans| Said { dim, needs, first: false, spans }));
        self
    }

    fn first(mut self, dim: usize, spans: Vec<Span>) -> Self {
        self.faces.push(Said { dim, needs: 0, first: true, spans });
        self
    }
}

/// What a sketch is made for.
pub(super) struct Scene<'s> {
    pub(super) stack: &'s Stack,
    pub(super) table: &'s Table,
    pub(super) backend: Backend,
    pub(super) v6: bool,
}

impl Scene<'_> {
    /// A rule's outline for packets of one family.
    pub(super) fn sketch(&self, rule: &Rule) -> Sketch {
        // With a history the core tests come first, without one all come as they stand.
        let says: Vec<Says> = rule.matches.iter().map(|m| self.says(m)).collect();
        let mut before = vec![0; says.len()];
        let core = |index: usize| is_core(&rule.matches[index].test);
        let mut as_written = 0;
        let mut core_first =
            says.iter().enumerate().filter(|(index, _)| core(*index)).fold(0, |all, (_, s)| all | s.own);
        let mut cores = 0;
        for (index, said) in says.iter().enumerate() {
            if core(index) {
                before[index] = as_written | cores;
                cores |= said.own;
            } else {
                before[index] = as_written | core_first;
                core_first |= said.own;
            }
            as_written |= said.own;
        }
        let mut faces = Vec::new();
        for (said, before) in says.into_iter().zip(before) {
            if before & ANYTHING != 0 {
                continue;
            }
            for face in said.faces {
                let guard = before | face.needs | if face.first { 0 } else { said.own };
                faces.push(Face { dim: face.dim, guard, spans: face.spans });
            }
        }
        Sketch { faces }
    }

    fn says(&self, m: &Match) -> Says {
        let not = m.negated;
        match &m.test {
            Test::Source(net) => Says::own(0).face(dim::SRC, 0, self.net(net, not)),
            Test::Destination(net) => Says::own(0).face(dim::DST, 0, self.net(net, not)),
            Test::IpRange { side, from, to } => {
                let dim = if *side == Side::Source { dim::SRC } else { dim::DST };
                Says::own(0).face(dim, 0, self.range(*from, *to, not))
            }
            Test::InInterface(want) => {
                let lo = if !want.prefix && want.name == "lo" { IN_LO } else { 0 };
                Says::own(IN | lo).face(dim::IN, IN_OPEN, iface(want, not))
            }
            Test::OutInterface(want) => {
                let lo = if !want.prefix && want.name == "lo" { OUT_LO } else { 0 };
                Says::own(OUT | lo).face(dim::OUT, OUT_OPEN, iface(want, not))
            }
            Test::Protocol(number) => Says::own(0).face(dim::PROTO, 0, spans(vec![one(*number)], not)),
            Test::Header(module) => Says::own(ODD).first(dim::PROTO, vec![one(module.number())]),
            Test::Port { module, side, range } => self.port(*module, *side, *range, not),
            Test::Multiport { side, ranges } => {
                let source = if *side == Side::Destination { 0 } else { SPORT };
                let says = Says::own(ODD | source)
                    .first(dim::PROTO, vec![one(6u8), one(17u8), one(33u8), one(132u8), one(136u8)]);
                let wanted = ranges.iter().map(|r| (r.from.into(), r.to.into())).collect();
                match side {
                    Side::Source => says.face(dim::SPORT, 0, spans(wanted, not)),
                    Side::Destination => says.face(dim::DPORT, DPORT_OPEN, spans(wanted, not)),
                    Side::Either => says,
                }
            }
            Test::TcpFlags { mask, .. } if mask.0 == 0 && self.backend == Backend::Nft => Says::default(),
            Test::TcpFlags { .. } => Says::own(ODD | FLAGS).first(dim::PROTO, vec![one(6u8)]),
            Test::Icmp { v6, kind, .. } => {
                let says = Says::own(ODD | ICMP).first(dim::PROTO, vec![one(if *v6 { 58u8 } else { 1 })]);
                says.face(dim::ICMP, 0, kind.filter(|_| !not).map(|kind| vec![one(kind)]))
            }
            Test::Conntrack { tests, .. } => {
                let mut says = Says::own(STATE);
                for (negated, test) in tests.iter().filter(|_| !not) {
                    if let CtTest::State(wanted) = test {
                        says = says.face(dim::STATE, 0, states(|state| state.intersects(*wanted) != *negated));
                    }
                }
                says
            }
            Test::Mark { value, mask } => {
                let spans = if *mask == u32::MAX { spans(vec![one(*value)], not) } else { None };
                Says::own(MARK).face(dim::MARK, MARK_OPEN, spans)
            }
            Test::Connmark { .. } => Says::own(STATE | CONNMARK),
            Test::Mac(mac) => Says::own(0).face(dim::MAC, MAC_OPEN, spans(vec![one(octets(&mac.0))], not)),
            Test::AddrType { limit_iface, .. } => Says::own(match limit_iface {
                None => 0,
                Some(Side::Source) => IN,
                Some(_) => OUT,
            }),
            Test::Fragment
            | Test::Comment(_)
            | Test::Owner(_)
            | Test::Tos { .. }
            | Test::Dscp(_)
            | Test::Unknown { .. } => Says::default(),
            Test::Length { .. } => Says::own(LENGTH),
            Test::Ttl { .. } => Says::own(TTL),
            Test::PktType(_) => Says::own(PKTTYPE),
            Test::Set { name, .. } => Says::own(self.stack.set(name).map_or(0, of_set)),
            Test::Stateful { .. } => Says::own(HISTORY),
            Test::Compare(comparison) => self.compare(comparison, not),
            Test::TcpOption(_) | Test::Ext(_) => Says::own(ANYTHING),
        }
    }

    fn net(&self, net: &Net, not: bool) -> Option<Vec<Span>> {
        if net.addr.is_ipv6() != self.v6 {
            return if not { None } else { Some(Vec::new()) };
        }
        let (addr, mask, top) = match (net.addr, net.mask) {
            (IpAddr::V4(a), IpAddr::V4(m)) => (u128::from(a.to_bits()), u128::from(m.to_bits()), u128::from(u32::MAX)),
            (IpAddr::V6(a), IpAddr::V6(m)) => (a.to_bits(), m.to_bits(), u128::MAX),
            _ => return None,
        };
        let exact = net.prefix_len().is_some();
        if !exact && not {
            return None;
        }
        // Of a mask with holes, what stands before the first hole.
        let open = if exact {
            top & !mask
        } else {
            (top & !mask) | (top & !mask).checked_next_power_of_two().map_or(top, |p| p - 1)
        };
        self.whole(addr & !open, (addr & !open) | open, not)
    }

    fn range(&self, from: IpAddr, to: IpAddr, not: bool) -> Option<Vec<Span>> {
        if from.is_ipv6() != self.v6 || to.is_ipv6() != self.v6 {
            return if not { None } else { Some(Vec::new()) };
        }
        self.whole(addr(from), addr(to), not)
    }

    /// Addresses; the last of a family stands for all above it, which are none.
    fn whole(&self, from: u128, to: u128, not: bool) -> Option<Vec<Span>> {
        let to = if !self.v6 && to == u128::from(u32::MAX) { u128::MAX } else { to };
        if from > to {
            return if not { None } else { Some(Vec::new()) };
        }
        spans(vec![(from, to)], not)
    }

    fn port(&self, module: Transport, side: Side, range: PortRange, not: bool) -> Says {
        let every = range.from == 0 && range.to == u16::MAX;
        if not && every && self.backend == Backend::Nft && matches!(module, Transport::Tcp | Transport::Udp) {
            return Says::default();
        }
        let source = side != Side::Destination;
        let says =
            Says::own(if source && !every { ODD | SPORT } else { ODD }).first(dim::PROTO, vec![one(module.number())]);
        let wanted = if every { None } else { spans(vec![(range.from.into(), range.to.into())], not) };
        match side {
            Side::Source => says.face(dim::SPORT, 0, wanted),
            Side::Destination => says.face(dim::DPORT, DPORT_OPEN, wanted),
            Side::Either => says,
        }
    }

    fn compare(&self, c: &Comparison, not: bool) -> Says {
        let own = c.fields.iter().fold(0, |all, field| all | of_field(field));
        let mut says = Says::own(own);
        // Something larger than a few keys stands for everything.
        let mut keys: Vec<&[Operand]> = Vec::new();
        let mut many = false;
        let fits = |key: &Vec<Operand>| match key.as_slice() {
            // One holds without a look at the fields, the other is another set's.
            [Operand::Any | Operand::Set(_)] | [] => false,
            key => c.op != CompareOp::Eq || key.len() == c.fields.len(),
        };
        for key in &c.operands {
            if let [Operand::Set(name)] = key.as_slice() {
                let set = self.table.sets.iter().find(|set| set.name == *name);
                match set.filter(|set| set.unreliable.is_none() && set.keys.iter().all(fits)) {
                    Some(set) if set.keys.len() <= MAX_SPANS => keys.extend(set.keys.iter().map(Vec::as_slice)),
                    Some(_) => many = true,
                    None => return says,
                }
            } else if fits(key) {
                keys.push(key);
            } else {
                return says;
            }
        }
        if c.operands.is_empty() {
            return says;
        }
        let fields = if c.op == CompareOp::Eq { c.fields.as_slice() } else { c.fields.get(..1).unwrap_or_default() };
        let single = c.fields.len() == 1;
        for (index, field) in fields.iter().enumerate() {
            // A field that is not there fails either way.
            if let Some((dim, spans)) = self.there(field) {
                says.faces.push(Said { dim, needs: 0, first: single, spans });
            }
            let operands: Vec<&Operand> = keys.iter().filter_map(|key| key.get(index)).collect();
            if (single || !not)
                && !many
                && keys.len() <= MAX_SPANS
                && let Some((dim, needs, spans)) = self.field(field, c, &operands, not)
            {
                says.faces.push(Said { dim, needs, first: false, spans });
            }
        }
        says
    }

    /// What a packet must be to have the field.
    fn there(&self, field: &Field) -> Option<(usize, Vec<Span>)> {
        let of_family = |six: bool| if six == self.v6 { None } else { Some((dim::PROTO, Vec::new())) };
        match field {
            Field::Saddr { v6 } | Field::Daddr { v6 } | Field::Protocol { v6 } => of_family(*v6),
            Field::Sport(Some(proto)) | Field::Dport(Some(proto)) => Some((dim::PROTO, vec![one(*proto)])),
            Field::TcpFlags => Some((dim::PROTO, vec![one(6u8)])),
            Field::IcmpType { v6 } | Field::IcmpCode { v6 } => {
                of_family(*v6).or(Some((dim::PROTO, vec![one(if *v6 { 58u8 } else { 1 })])))
            }
            _ => None,
        }
    }

    /// Where one field must be.
    fn field(
        &self,
        field: &Field,
        c: &Comparison,
        operands: &[&Operand],
        not: bool,
    ) -> Option<(usize, Guard, Vec<Span>)> {
        if *field == Field::CtState {
            let numbers: Option<Vec<u64>> =
                operands.iter().map(|o| if let Operand::Number(n) = o { Some(*n) } else { None }).collect();
            let (numbers, mask) = (numbers?, c.mask.unwrap_or(u64::MAX));
            let holds = |state: CtStates| {
                let seen = nft_states(state) & mask;
                numbers.iter().any(|with| match c.op {
                    CompareOp::Eq => seen == *with,
                    CompareOp::Flags => seen & with != 0,
                    CompareOp::Lt => seen < *with,
                    CompareOp::Gt => seen > *with,
                    CompareOp::Le => seen <= *with,
                    CompareOp::Ge => seen >= *with,
                })
            };
            return Some((dim::STATE, 0, states(|state| holds(state) != not)?));
        }
        if c.mask.is_some() {
            return None;
        }
        let (dim, needs) = match field {
            Field::Saddr { .. } => (dim::SRC, 0),
            Field::Daddr { .. } => (dim::DST, 0),
            Field::Protocol { .. } | Field::L4Proto => (dim::PROTO, 0),
            Field::Sport(_) => (dim::SPORT, NO_PORTS),
            Field::Dport(_) => (dim::DPORT, DPORT_OPEN | NO_PORTS),
            Field::Iifname => (dim::IN, IN_OPEN),
            Field::Oifname => (dim::OUT, OUT_OPEN),
            Field::Mark => (dim::MARK, 0),
            Field::IcmpType { .. } => (dim::ICMP, 0),
            _ => return None,
        };
        let mut wanted: Vec<Span> = Vec::new();
        for operand in operands {
            wanted.push(match (operand, c.op) {
                (Operand::Number(n), CompareOp::Eq) => one(*n),
                (Operand::NumberRange(from, to), CompareOp::Eq) => (u128::from(*from), u128::from(*to)),
                (Operand::Number(n), CompareOp::Lt) => (0, u128::from(n.checked_sub(1)?)),
                (Operand::Number(n), CompareOp::Le) => (0, u128::from(*n)),
                (Operand::Number(n), CompareOp::Gt) => (u128::from(*n) + 1, u128::MAX),
                (Operand::Number(n), CompareOp::Ge) => (u128::from(*n), u128::MAX),
                (Operand::AddrRange(from, to), CompareOp::Eq) if from.is_ipv6() == self.v6 => {
                    *self.range(*from, *to, false)?.first()?
                }
                (Operand::Name(text), CompareOp::Eq) if !text.ends_with('*') && !not => one(name(text)),
                _ => return None,
            });
        }
        // An address in a field of numbers is not evaluated, which is no failure.
        let addresses = dim == dim::SRC || dim == dim::DST;
        let names = dim == dim::IN || dim == dim::OUT;
        let kind = |o: &&&Operand| match o {
            Operand::AddrRange(..) => addresses,
            Operand::Name(_) => names,
            _ => !addresses && !names,
        };
        if !operands.iter().all(|o| kind(&o)) || wanted.iter().any(|(from, to)| from > to) {
            return None;
        }
        Some((dim, needs, spans(wanted, not)?))
    }
}

fn one(n: impl Into<u128>) -> Span {
    let n = n.into();
    (n, n)
}

fn iface(want: &Iface, not: bool) -> Option<Vec<Span>> {
    // Names may share a number, so that nothing is known of the others.
    (!want.prefix && !not).then(|| vec![one(name(&want.name))])
}

/// What looking at a field may leave behind.
fn of_field(field: &Field) -> Guard {
    match field {
        Field::Sport(_) => ODD | SPORT | NO_PORTS,
        Field::Dport(_) => ODD | NO_PORTS,
        Field::TcpFlags => ODD | FLAGS,
        Field::IcmpType { .. } | Field::IcmpCode { .. } => ODD | ICMP,
        Field::Iifname => IN | IN_LO,
        Field::Oifname => OUT | OUT_LO,
        Field::Mark => MARK,
        Field::CtMark | Field::CtState | Field::CtStatus | Field::CtDirection => STATE,
        Field::Length => LENGTH,
        Field::PktType => PKTTYPE,
        _ => 0,
    }
}

/// What looking a packet up in a set may leave behind.
fn of_set(set: &Set) -> Guard {
    let looks = |what: &str| set.kind.contains(what);
    if looks("port") || looks("iface") || looks("list") { SPORT | ICMP | IN | IN_LO | OUT | OUT_LO } else { 0 }
}

/// The states, one by one, that a test lets pass.
fn states(holds: impl Fn(CtStates) -> bool) -> Option<Vec<Span>> {
    let mut wanted: Vec<Span> = (0..5u32).filter(|bit| holds(CtStates(1 << bit))).map(one).collect();
    wanted.push(one(5u8));
    spans(wanted, false)
}

/// The intervals in order and apart from each other, or what is between them; `None` for everything.
fn spans(mut wanted: Vec<Span>, not: bool) -> Option<Vec<Span>> {
    wanted.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(wanted.len());
    for (from, to) in wanted {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    if not {
        let mut gaps = Vec::with_capacity(joined.len() + 1);
        let mut next = Some(0);
        for (from, to) in joined {
            if let Some(start) = next.filter(|start| *start < from) {
                gaps.push((start, from - 1));
            }
            next = to.checked_add(1);
        }
        gaps.extend(next.map(|start| (start, u128::MAX)));
        joined = gaps;
    }
    let everything = joined.first().is_some_and(|span| *span == (0, u128::MAX));
    (!everything && joined.len() <= MAX_SPANS).then_some(joined)
}
