//! Finding what may be meant among the elements of sets and maps.

use std::net::IpAddr;
use std::sync::OnceLock;

use crate::firewall::ruleset::{Element, ElementPart, Operand, Side};
use crate::firewall::walk::Live;

use super::Cursor;
use super::guard::{
    DPORT_OPEN, Guard, ICMP, IN, IN_OPEN, MAC_OPEN, MARK_OPEN, OUT, OUT_OPEN, SPORT, addr, name, octets, pending,
};
use super::tree::{Boxes, Span, Tree};
use super::variants::{Side as BoxSide, Source, Uses, Variants};

/// A field's value that a key is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) enum Known {
    Number(u64),
    Addr(IpAddr),
    /// The name as a number.
    Name(u128),
}

impl Known {
    pub(in crate::firewall) fn name(text: &str) -> Self {
        Self::Name(name(text))
    }

    fn kind(self) -> Kind {
        match self {
            Self::Number(_) => Kind::Number,
            Self::Addr(_) => Kind::Addr,
            Self::Name(_) => Kind::Name,
        }
    }

    fn value(self) -> u128 {
        match self {
            Self::Number(n) => n.into(),
            Self::Addr(a) => addr(a),
            Self::Name(n) => n,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Addr,
    Name,
}

fn operand(operand: &Operand) -> Option<(Kind, Option<Span>)> {
    Some(match operand {
        Operand::Number(n) => (Kind::Number, Some((u128::from(*n), u128::from(*n)))),
        Operand::NumberRange(from, to) => (Kind::Number, Some((u128::from(*from), u128::from(*to)))),
        Operand::AddrRange(from, to) => (Kind::Addr, Some((addr(*from), addr(*to)))),
        Operand::Name(text) if text.ends_with('*') => (Kind::Name, None),
        Operand::Name(text) => (Kind::Name, Some((name(text), name(text)))),
        _ => return None,
    })
}

/// Many keys of nf_tables.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) uses: Uses,
    /// The kind of each part, and the tree.
    tree: OnceLock<(Vec<Option<Kind>>, Tree)>,
}

impl Keys {
    pub(super) fn find<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        keys: &mut dyn Iterator<Item = &[Operand]>,
        values: &[Option<Known>],
    ) {
        let (kinds, tree) = self.tree.get_or_init(|| Self::plant(keys, values.len()));
        // A value of another kind is compared with nothing, which is no failure.
        let known = kinds.len() == values.len()
            && kinds
                .iter()
                .zip(values)
                .all(|(kind, value)| kind.is_none_or(|kind| value.is_some_and(|value| value.kind() == kind)));
        if !known {
            return;
        }
        let point: Vec<u128> = values.iter().map(|value| value.map_or(0, Known::value)).collect();
        cursor.every = false;
        cursor.pending = 0;
        cursor.lists.clear();
        tree.find(&point, &mut |list| cursor.lists.push(list));
    }

    fn plant(keys: &mut dyn Iterator<Item = &[Operand]>, width: usize) -> (Vec<Option<Kind>>, Tree) {
        let mut kinds: Vec<Option<Kind>> = vec![None; width];
        let mut mixed = vec![false; width];
        let mut boxes = Boxes::new(width);
        let mut all: Vec<Vec<(Kind, Option<Span>)>> = Vec::new();
        for key in keys {
            let parts: Option<Vec<_>> = key.iter().map(operand).collect();
            let parts = parts.filter(|parts| parts.len() == width).unwrap_or_default();
            for (index, (kind, _)) in parts.iter().enumerate() {
                mixed[index] |= kinds[index].is_some_and(|known| known != *kind);
                kinds[index] = Some(*kind);
            }
            all.push(parts);
        }
        for parts in &all {
            let sides = parts.iter().enumerate().filter(|(index, _)| !mixed[*index]);
            let sides = sides.filter_map(|(index, (_, span))| Some((index, std::slice::from_ref(span.as_ref()?))));
            boxes.push(sides, false);
        }
        for (kind, mixed) in kinds.iter_mut().zip(mixed) {
            if mixed {
                *kind = None;
            }
        }
        (kinds, boxes.tree())
    }
}

/// The elements of a large ipset.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) uses: Uses,
    shape: OnceLock<Vec<Part>>,
    variants: Variants,
    /// By the first part alone.
    firsts: Variants,
}

/// What stands at one place of each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Addr,
    Port,
    Iface,
    Mac,
    Mark,
    /// A set, or not the same in all elements.
    Other,
}

fn part(part: &ElementPart) -> Part {
    match part {
        ElementPart::Net(_) | ElementPart::Range(..) => Part::Addr,
        ElementPart::Port { .. } => Part::Port,
        ElementPart::Iface(_) => Part::Iface,
        ElementPart::Mac(_) => Part::Mac,
        ElementPart::Mark(_) => Part::Mark,
        ElementPart::Set(_) => Part::Other,
    }
}

struct Elements<'e> {
    elements: &'e [Element],
    shape: &'e [Part],
}

impl Source for Elements<'_> {
    fn dims(&self) -> usize {
        self.shape.len()
    }

    fn each(&self, take: &mut dyn FnMut(&[BoxSide<'_>])) {
        for element in self.elements {
            let mut spans: [[Span; 2]; 4] = [[(0, 0); 2]; 4];
            let mut sides: Vec<(usize, Guard, usize)> = Vec::with_capacity(4);
            let mut before = 0;
            for (index, part) in element.parts.iter().enumerate().take(self.shape.len()) {
                if self.shape[index] == Part::Other {
                    break;
                }
                let (own, needs, count) = face(part, &mut spans[index]);
                before |= own;
                sides.push((index, before | needs, count));
            }
            let sides: Vec<BoxSide<'_>> =
                sides.iter().map(|(index, guard, count)| (*index, *guard, &spans[*index][..*count])).collect();
            take(&sides);
        }
    }
}

/// Where an element's part lies: what a look at it may leave behind, what must be known, and how
/// many of the spans are used.
fn face(part: &ElementPart, spans: &mut [Span; 2]) -> (Guard, Guard, usize) {
    let exact = |n: u128| (n, n);
    match part {
        ElementPart::Net(net) => {
            let (from, mask) = (addr(net.addr), addr(net.mask));
            let top = if net.addr.is_ipv6() { u128::MAX } else { u128::from(u32::MAX) };
            spans[0] = if net.prefix_len().is_some() { (from, from | top & !mask) } else { (0, u128::MAX) };
            (0, 0, 1)
        }
        ElementPart::Range(from, to) => {
            spans[0] = (addr(*from), addr(*to));
            (0, 0, 1)
        }
        ElementPart::Port { proto, range } => {
            let span = |proto: u8| (port(proto, range.from), port(proto, range.to));
            // bitmap:port knows tcp and udp.
            *spans = [span(proto.unwrap_or(6)), span(17)];
            let count = if proto.is_some() { 1 } else { 2 };
            (SPORT | ICMP, DPORT_OPEN, count)
        }
        ElementPart::Iface(text) => {
            spans[0] = exact(name(text));
            (IN | OUT, IN_OPEN | OUT_OPEN, 1)
        }
        ElementPart::Mac(mac) => {
            spans[0] = exact(octets(&mac.0));
            (0, MAC_OPEN, 1)
        }
        ElementPart::Mark(mark) => {
            spans[0] = exact((*mark).into());
            (0, MARK_OPEN, 1)
        }
        ElementPart::Set(_) => (Guard::MAX, 0, 0),
    }
}

fn port(proto: u8, port: u16) -> u128 {
    u128::from(proto) << 16 | u128::from(port)
}

impl Members {
    pub(super) fn find<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        elements: &[Element],
        first_only: bool,
        sides: &[Side],
        live: &Live,
    ) {
        let shape = self.shape.get_or_init(|| {
            let width = elements.iter().map(|e| e.parts.len()).max().unwrap_or(0).min(4);
            let mut shape: Vec<Option<Part>> = vec![None; width];
            for element in elements {
                for (known, own) in shape.iter_mut().zip(&element.parts) {
                    let own = part(own);
                    *known = Some(if known.is_none_or(|known| known == own) { own } else { Part::Other });
                }
            }
            shape.into_iter().map(|part| part.unwrap_or(Part::Other)).collect()
        });
        // A set with fewer directions than dimensions holds nothing.
        if sides.len() < shape.len() || shape.first().is_none_or(|part| *part == Part::Other) {
            return;
        }
        // To whom the frame went is not in the packet.
        if shape.iter().zip(sides).any(|(part, side)| *part == Part::Mac && *side != Side::Source) {
            return;
        }
        let shape = if first_only { &shape[..1] } else { shape.as_slice() };
        let variants = if first_only { &self.firsts } else { &self.variants };
        let source = Elements { elements, shape };
        let mut asked = variants.guards(&source);
        let (source_side, other_side) = (sides.contains(&Side::Source), sides.iter().any(|s| *s != Side::Source));
        if !source_side {
            asked &= !(SPORT | IN | IN_OPEN);
        }
        if !other_side {
            asked &= !(DPORT_OPEN | OUT | OUT_OPEN);
        }
        if matches!(live.proto, 1 | 58) {
            asked &= !(SPORT | DPORT_OPEN);
        } else {
            asked &= !ICMP;
        }
        let open = pending(live, false, asked);
        let point: Vec<u128> = shape.iter().zip(sides).map(|(part, side)| value(*part, *side, live)).collect();
        cursor.every = false;
        cursor.pending = open;
        cursor.lists.clear();
        variants.tree(open, &source).find(&point, &mut |list| cursor.lists.push(list));
    }
}

fn value(part: Part, side: Side, live: &Live) -> u128 {
    let source = side == Side::Source;
    let packet = &live.packet;
    match part {
        Part::Addr => addr(if source { packet.src } else { packet.dst }),
        Part::Port => {
            let number = match live.proto {
                6 | 17 | 132 | 136 if source => packet.sport.unwrap_or(40_000),
                6 | 17 | 132 | 136 => packet.dport.unwrap_or(0),
                1 | 58 => {
                    let kind = packet.icmp_type.unwrap_or(if live.v6 { 128 } else { 8 });
                    u16::from(kind) << 8 | u16::from(packet.icmp_code.unwrap_or(0))
                }
                _ => 0,
            };
            port(live.proto, number)
        }
        Part::Iface => {
            let (there, own) =
                if source { (live.has_in_iface(), &packet.in_) } else { (live.has_out_iface(), &packet.out) };
            if there { name(own.as_deref().unwrap_or("lo")) } else { name("") }
        }
        Part::Mac => packet.mac_src.map_or(0, |mac| octets(&mac.0)),
        Part::Mark => live.mark.into(),
        Part::Other => 0,
    }
}
