//! Whether an ipset holds the packet.

use std::net::IpAddr;

use crate::firewall::compile::Cursor;
use crate::firewall::ruleset::{Element, ElementPart, PktType, Set, Side};

use super::changing::SetNow;
use super::flow::Run;
use super::live::{IfaceName, Truth};
use super::matching::in_range;

/// list:set may hold list:set no deeper (`net/netfilter/ipset/ip_set_list_set.c` refuses it), so
/// this only guards against a text that says otherwise.
const MAX_NESTING: usize = 4;

impl Run<'_> {
    pub(super) fn ipset(&mut self, name: &str, sides: &[Side], options: &str) -> Truth {
        // Counters of elements are not in the dump's plain form.
        if options.split(' ').any(|o| o.contains("packets-") || o.contains("bytes-")) {
            return Truth::Maybe(format!("the counters of set {name} are not evaluated"));
        }
        self.in_set(name, sides, options.contains("--return-nomatch"), 0)
    }

    fn in_set(&mut self, name: &str, sides: &[Side], return_nomatch: bool, depth: usize) -> Truth {
        let Some(now) = self.set_now(name) else {
            return Truth::Maybe(format!("set {name} is not given"));
        };
        let set = now.set;
        if depth > MAX_NESTING {
            return Truth::Maybe(format!("set {name} holds itself"));
        }
        if let Some(why) = &set.unreliable {
            return Truth::Maybe(format!("set {name}: {why}"));
        }
        let mut maybe = None;
        // Of hash:net and its like the longest prefix decides, and it may say "nomatch".
        let mut best: Option<(u32, bool)> = None;
        // Of hash:net,iface the longest prefix decides that any interface has (ip_set_hash_gen.h,
        // mtype_test_cidrs: `multi`).
        let only = if set.kind.starts_with("hash:net,iface") { self.longest(&now, sides) } else { None };
        let mut cursor = Cursor::every();
        if let Some(index) = self.index {
            let nets = set.kind.starts_with("hash:net,iface");
            index.members(&mut cursor, &set.elements, nets, sides, &self.live);
        }
        let (mut next, mut added) = (cursor.seek(0), now.added());
        loop {
            let element = match set.elements.get(next) {
                Some(element) => {
                    next = cursor.seek(next + 1);
                    if !now.keeps(element) {
                        continue;
                    }
                    element
                }
                None => match added.next() {
                    Some(element) => element,
                    None => break,
                },
            };
            if only.is_some_and(|only| prefix_sum(element) != only) {
                continue;
            }
            match self.element(set, element, sides, return_nomatch, depth) {
                Truth::Yes => {
                    let length = prefix_sum(element);
                    if best.is_none_or(|(old, _)| length > old) {
                        best = Some((length, element.nomatch));
                    }
                }
                Truth::Maybe(why) => maybe = Some(why),
                Truth::No | Truth::Absent => (),
            }
        }
        match (best, maybe) {
            (_, Some(why)) => Truth::Maybe(why),
            (Some((_, nomatch)), None) => Truth::of(nomatch == return_nomatch),
            (None, None) => Truth::No,
        }
    }

    /// The longest prefix whose network holds the address, whatever else the element says.
    fn longest(&mut self, now: &SetNow<'_>, sides: &[Side]) -> Option<u32> {
        let set = now.set;
        let addr = if sides.first() == Some(&Side::Source) { self.live.packet.src } else { self.live.packet.dst };
        let mut cursor = Cursor::every();
        if let Some(index) = self.index {
            index.members(&mut cursor, &set.elements, true, sides, &self.live);
        }
        let holds = |e: &Element| matches!(e.parts.first(), Some(ElementPart::Net(net)) if net.contains(addr));
        let mut longest = now.added().filter(|e| holds(e)).map(prefix_sum).max();
        let mut next = cursor.seek(0);
        while let Some(element) = set.elements.get(next) {
            next = cursor.seek(next + 1);
            if holds(element) && now.keeps(element) {
                longest = longest.max(Some(prefix_sum(element)));
            }
        }
        longest
    }

    fn element(&mut self, set: &Set, element: &Element, sides: &[Side], return_nomatch: bool, depth: usize) -> Truth {
        let mut truth = Truth::Yes;
        for (index, part) in element.parts.iter().enumerate() {
            if let ElementPart::Set(name) = part {
                return self.in_set(name, sides, return_nomatch, depth + 1);
            }
            // A set with fewer directions than dimensions never matches (`ip_set_core.c`).
            let Some(side) = sides.get(index) else { return Truth::No };
            match self.part(set, part, *side) {
                Truth::Yes => (),
                Truth::Maybe(why) => truth = Truth::Maybe(why),
                Truth::No | Truth::Absent => return Truth::No,
            }
        }
        truth
    }

    fn part(&mut self, set: &Set, part: &ElementPart, side: Side) -> Truth {
        let live = &mut self.live;
        let source = side == Side::Source;
        let addr: IpAddr = if source { live.packet.src } else { live.packet.dst };
        match part {
            ElementPart::Net(net) => Truth::of(net.contains(addr)),
            ElementPart::Range(from, to) => Truth::of(in_range(addr, *from, *to)),
            ElementPart::Port { proto, range } => {
                if proto.is_some_and(|proto| proto != live.proto) {
                    return Truth::No;
                }
                // Over IPv4 a later fragment of a protocol without ports still has the port 0 (ip_set_getport.c).
                let without = !live.v6 && proto.is_some() && !matches!(live.proto, 1 | 6 | 17 | 132 | 136);
                if live.is_later_fragment() && !without {
                    return Truth::No;
                }
                // ip_set_getport.c, get_port: without its whole header a packet has no port.
                let header = match live.proto {
                    6 => 20,
                    132 => 12,
                    17 | 136 | 1 | 58 => 8,
                    _ => 0,
                };
                if !live.has_octets(header) {
                    return Truth::No;
                }
                let port = match live.proto {
                    // bitmap:port knows these two alone (ip_set_getport.c, ip_set_get_ip_port).
                    other if proto.is_none() && !matches!(other, 6 | 17) => return Truth::No,
                    6 | 17 | 132 | 136 if source => live.sport(),
                    6 | 17 | 132 | 136 => match live.packet.dport {
                        Some(port) => port,
                        None => return Truth::Maybe("the destination port is not given".to_owned()),
                    },
                    1 | 58 => {
                        let (kind, code) = live.icmp();
                        u16::from(kind) << 8 | u16::from(code)
                    }
                    _ if proto.is_some() => 0,
                    _ => return Truth::No,
                };
                Truth::of(range.contains(port))
            }
            ElementPart::Iface(name) => {
                let own = if source { live.in_iface() } else { live.out_iface() };
                match own {
                    IfaceName::Known(own) => Truth::of(own == *name),
                    IfaceName::NotLoopback => Truth::Maybe("the interface is not given".to_owned()),
                }
            }
            // A packet of this host's own has no such header yet.
            ElementPart::Mac(_) if !live.came_in => Truth::No,
            ElementPart::Mac(mac) if source => match live.packet.mac_src {
                Some(own) => Truth::of(own == *mac),
                None => Truth::Maybe("the source hardware address is not given".to_owned()),
            },
            ElementPart::Mac(mac) => {
                let own = live.packet.in_.clone().filter(|_| live.packet.pkttype == Some(PktType::Unicast));
                let links = self.facts.host.and_then(|host| host.links.as_deref()).unwrap_or_default();
                let own = own.and_then(|name| links.iter().find(|link| link.name == name)?.mac);
                match own {
                    Some(own) => Truth::of(own == *mac),
                    None => Truth::Maybe("the destination hardware address is not given".to_owned()),
                }
            }
            ElementPart::Mark(mark) => Truth::of(live.mark == *mark),
            ElementPart::Set(name) => Truth::Maybe(format!("set {name} within {}", set.name)),
        }
    }
}

fn prefix_sum(element: &Element) -> u32 {
    let length = |part: &ElementPart| match part {
        ElementPart::Net(net) => net.prefix_len().map_or(0, u32::from),
        _ => 128,
    };
    element.parts.iter().map(length).sum()
}
