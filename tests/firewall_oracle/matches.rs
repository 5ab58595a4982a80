//! Random matches of iptables, each with packets that meet it and packets that just do not.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reachwhy::firewall::ruleset::{PktType, TcpFlags};

use crate::line::CLIENT_MAC;
use crate::random::Random;
use crate::rules::{Focus, Part, Set};
use reachwhy::wire::MacAddr;

pub(crate) const SOURCES: [&str; 6] =
    ["10.1.0.2", "10.1.0.77", "10.1.0.128", "192.168.3.4", "192.168.255.254", "198.51.100.7"];
pub(crate) const SOURCES6: [&str; 4] = ["fd00:1::2", "fd00:1::77", "fd99:3::4", "2001:db8:1::7"];
const PORTS: [u16; 11] = [0, 1, 22, 53, 80, 443, 1023, 1024, 8080, 40000, 65535];
const FLAGS: [u8; 12] = [0x00, 0x01, 0x02, 0x04, 0x10, 0x11, 0x12, 0x14, 0x18, 0x22, 0x29, 0x3f];
pub(crate) const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 3]);

/// Where a rule stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub v6: bool,
    pub focus: Focus,
    pub nat: bool,
    /// Packets are one history.
    pub history: bool,
    /// The base chain that leads to it.
    pub hook: &'a str,
    pub sets: &'a [(String, &'static str)],
}

/// Destinations of packets that go this way.
pub(crate) fn destinations(v6: bool, focus: Focus) -> &'static [&'static str] {
    match (v6, focus) {
        (false, Focus::Input) => &["10.1.0.1", "10.2.0.1", "10.2.0.3"],
        (false, _) => &["10.2.0.5", "10.2.0.6", "10.2.0.128", "172.16.5.1", "203.0.113.9"],
        (true, Focus::Input) => &["fd00:1::1", "fd00:2::1"],
        (true, _) => &["fd00:2::5", "fd00:2::6", "2001:db8::9"],
    }
}

pub(crate) fn port(r: &mut Random) -> u16 {
    r.pick(&PORTS)
}

pub(crate) fn flags(r: &mut Random) -> u8 {
    r.pick(&FLAGS)
}

pub(crate) fn source(r: &mut Random, v6: bool) -> IpAddr {
    r.pick(if v6 { &SOURCES6[..] } else { &SOURCES[..] }).parse().unwrap()
}

pub(crate) fn destination(r: &mut Random, v6: bool, focus: Focus) -> IpAddr {
    r.pick(destinations(v6, focus)).parse().unwrap()
}

pub(crate) fn not(r: &mut Random) -> &'static str {
    if r.chance(22) { "! " } else { "" }
}

fn step(addr: IpAddr, by: i8) -> IpAddr {
    match addr {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(a.to_bits().wrapping_add_signed(i32::from(by)))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from(a.to_bits().wrapping_add_signed(i128::from(by)))),
    }
}

/// An address with a mask, and its ends.
fn net(r: &mut Random, addr: IpAddr) -> (String, IpAddr, IpAddr) {
    if r.chance(10) {
        let mask = if addr.is_ipv6() {
            r.pick(&["ffff::ffff", "0:ffff::", "::ff"])
        } else {
            r.pick(&["255.0.0.255", "0.0.255.0", "255.255.0.1"])
        };
        return (format!("{addr}/{mask}"), addr, addr);
    }
    let (length, first, last) = match addr {
        IpAddr::V4(a) => {
            let length = r.pick(&[32, 32, 31, 25, 24, 24, 16, 9, 8, 0]);
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let bits = a.to_bits();
            (length, IpAddr::V4((bits & mask).into()), IpAddr::V4((bits | !mask).into()))
        }
        IpAddr::V6(a) => {
            let length = r.pick(&[128, 128, 127, 64, 64, 48, 33, 7, 0]);
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let bits = a.to_bits();
            (length, IpAddr::V6((bits & mask).into()), IpAddr::V6((bits | !mask).into()))
        }
    };
    (format!("{addr}/{length}"), first, last)
}

/// `-s` or `-d`.
pub(crate) fn address(r: &mut Random, place: Place<'_>, source_side: bool) -> Part {
    let addr = if source_side { source(r, place.v6) } else { destination(r, place.v6, place.focus) };
    let (text, first, last) = net(r, addr);
    // iptables-nft cannot load a negated /0.
    let not = if text.ends_with("/0") { "" } else { not(r) };
    let set = |addr| if source_side { Set::Src(addr) } else { Set::Dst(addr) };
    Part {
        text: format!("{not}-{} {text}", if source_side { "s" } else { "d" }),
        inside: vec![set(addr)],
        near: vec![set(first), set(last), set(step(first, -1)), set(step(last, 1))],
    }
}

/// `-i` or `-o`, as far as the place allows it.
pub(crate) fn interface(r: &mut Random, place: Place<'_>) -> Part {
    let name = r.pick(&["eth0", "eth1", "eth+", "e+", "lo", "eth", "eth00", "eth0+"]);
    let in_ = match place.hook {
        "PREROUTING" | "INPUT" => true,
        "OUTPUT" | "POSTROUTING" => false,
        _ => r.chance(50),
    };
    Part { text: format!("{}-{} {name}", not(r), if in_ { "i" } else { "o" }), ..Part::default() }
}

fn port_range(r: &mut Random) -> (u16, u16) {
    let (a, b) = (port(r), port(r));
    if r.chance(50) { (a, a) } else { (a.min(b), a.max(b)) }
}

fn range_text((from, to): (u16, u16)) -> String {
    if from == to { from.to_string() } else { format!("{from}:{to}") }
}

fn around((from, to): (u16, u16)) -> [u16; 4] {
    [from, to, from.wrapping_sub(1), to.wrapping_add(1)]
}

/// `-p`, and the matches of that protocol.
pub(crate) fn protocol(r: &mut Random, place: Place<'_>) -> (Part, Vec<Part>) {
    let icmp = if place.v6 { ("icmpv6", 58) } else { ("icmp", 1) };
    let mut known = vec![("tcp", 6), ("tcp", 6), ("udp", 17), ("udp", 17), icmp];
    if !place.nat {
        known.extend([("132", 132), ("47", 47), ("udplite", 136)]);
    }
    let (name, number) = r.pick(&known);
    let negated = r.chance(10);
    let part = Part {
        text: format!("{}-p {name}", if negated { "! " } else { "" }),
        inside: vec![Set::Proto(number)],
        near: vec![Set::Proto(6), Set::Proto(17), Set::Proto(icmp.1)],
    };
    let mut more = Vec::new();
    if !negated && r.chance(75) {
        more.extend(of_protocol(r, name));
    }
    if !negated && matches!(name, "tcp" | "udp" | "udplite") && r.chance(20) {
        more.push(multiport(r));
    }
    (part, more)
}

fn of_protocol(r: &mut Random, name: &str) -> Option<Part> {
    if matches!(name, "tcp" | "udp") && r.chance(6) {
        return Some(Part { text: format!("-m {name}"), ..Part::default() });
    }
    match name {
        "tcp" => match r.below(10) {
            0..5 => Some(ports(r, name)),
            5..8 => {
                // iptables-nft leaves a test of no flag out, unless it stands alone.
                let (mask, comp) = (TcpFlags(flags(r).max(1)), TcpFlags(flags(r)));
                let comp = if r.chance(80) { TcpFlags(comp.0 & mask.0) } else { comp };
                Some(Part {
                    text: format!("-m tcp {}--tcp-flags {} {}", not(r), mask.names(), comp.names()),
                    inside: vec![Set::Flags(comp.0)],
                    near: vec![Set::Flags(comp.0 ^ mask.0), Set::Flags(0x3f), Set::Flags(comp.0 ^ 0x10)],
                })
            }
            8 => Some(Part {
                text: format!("-m tcp {}--syn", not(r)),
                inside: vec![Set::Flags(2)],
                near: [0x12, 0x03, 0x06, 0x0a, 0x22, 0].map(Set::Flags).to_vec(),
            }),
            _ => {
                let option = r.pick(&[2u8, 3, 4, 8]);
                Some(Part {
                    text: format!("-m tcp {}--tcp-option {option}", not(r)),
                    inside: vec![Set::Options(vec![option])],
                    near: vec![Set::Options(vec![]), Set::Options(vec![2, 4])],
                })
            }
        },
        "udp" => Some(ports(r, name)),
        "icmp" => {
            let (text, kind, code) = r.pick(&[
                ("8", 8, 0),
                ("0", 0, 0),
                ("3", 3, 1),
                ("3/1", 3, 1),
                ("3/3", 3, 3),
                ("any", 8, 0),
                ("11", 11, 0),
                ("echo-request", 8, 0),
                ("timestamp-request", 13, 0),
            ]);
            Some(Part {
                text: format!("-m icmp {}--icmp-type {text}", if text == "any" { "" } else { not(r) }),
                inside: vec![Set::Icmp(kind, code)],
                near: vec![Set::Icmp(kind, code + 1), Set::Icmp(kind + 1, code), Set::Icmp(3, 3)],
            })
        }
        "icmpv6" => {
            let (text, kind, code) = r.pick(&[
                ("128", 128, 0),
                ("129", 129, 0),
                ("1", 1, 4),
                ("1/4", 1, 4),
                ("3/0", 3, 0),
                ("echo-request", 128, 0),
            ]);
            Some(Part {
                text: format!("-m icmp6 {}--icmpv6-type {text}", not(r)),
                inside: vec![Set::Icmp(kind, code)],
                near: vec![Set::Icmp(kind, code + 1), Set::Icmp(kind + 1, code), Set::Icmp(1, 4)],
            })
        }
        _ => None,
    }
}

fn ports(r: &mut Random, name: &str) -> Part {
    let both = r.chance(15);
    let (mut text, mut inside, mut near) = (format!("-m {name}"), Vec::new(), Vec::new());
    let source = r.chance(40);
    for side in [source, !source].into_iter().take(1 + usize::from(both)) {
        // iptables-nft leaves a test of all ports to x_tables' module, unless there is another.
        let range = Some(port_range(r)).filter(|range| *range != (0, u16::MAX)).unwrap_or((1, u16::MAX));
        // Of two negated ones iptables-nft 1.8.9 makes one comparison of four octets, which holds where
        // either differs.
        let not = if both { "" } else { not(r) };
        write!(text, " {not}--{} {}", if side { "sport" } else { "dport" }, range_text(range)).unwrap();
        let set = |port| if side { Set::Sport(port) } else { Set::Dport(port) };
        inside.push(set(range.0));
        near.extend(around(range).map(set));
    }
    Part { text, inside, near }
}

fn multiport(r: &mut Random) -> Part {
    let side = r.pick(&["sports", "dports", "ports"]);
    let ranges: Vec<_> = (0..=r.below(4)).map(|_| port_range(r)).collect();
    let list: Vec<_> = ranges.iter().map(|range| range_text(*range)).collect();
    let set = |port| if side == "sports" { Set::Sport(port) } else { Set::Dport(port) };
    Part {
        text: format!("-m multiport {}--{side} {}", not(r), list.join(",")),
        inside: vec![set(ranges[0].0)],
        near: ranges.iter().flat_map(|range| around(*range)).map(set).collect(),
    }
}

/// A match that asks for no protocol.
pub(crate) fn any(r: &mut Random, place: Place<'_>) -> Option<Part> {
    let not = not(r);
    let came_in = place.focus != Focus::Output;
    let part = match r.below(13) {
        0 => {
            let source_side = r.chance(50);
            let (a, b) = if source_side {
                (source(r, place.v6), source(r, place.v6))
            } else {
                (destination(r, place.v6, place.focus), destination(r, place.v6, place.focus))
            };
            let (a, b) = (a.min(b), a.max(b));
            let set = |addr| if source_side { Set::Src(addr) } else { Set::Dst(addr) };
            Part {
                text: format!("-m iprange {not}--{}-range {a}-{b}", if source_side { "src" } else { "dst" }),
                inside: vec![set(a)],
                near: vec![set(b), set(step(a, -1)), set(step(b, 1))],
            }
        }
        1 | 2 => {
            let (value, mask) = (r.pick(&[0, 1, 0x10, 0xffff_0001]), r.pick(&[u32::MAX, 1, 0x11, 0]));
            Part {
                text: format!("-m mark {not}--mark {value:#x}/{mask:#x}"),
                inside: vec![Set::Mark(value)],
                near: vec![Set::Mark(0), Set::Mark(value ^ 1), Set::Mark(value ^ 0x8000_0000)],
            }
        }
        3 => {
            let value = r.pick(&[2u8, 63, 64, 128]);
            let order = r.pick(&["eq", "lt", "gt"]);
            let not = if order == "eq" { not } else { "" };
            let module = if place.v6 { "hl" } else { "ttl" };
            Part {
                text: format!("-m {module} {not}--{module}-{order} {value}"),
                inside: vec![Set::Ttl(value)],
                near: vec![Set::Ttl(value - 1), Set::Ttl(value + 1), Set::Ttl(value + 2), Set::Ttl(1)],
            }
        }
        4 => {
            let dscp = r.pick(&[0u8, 1, 46]);
            Part {
                text: format!("-m dscp {not}--dscp {dscp}"),
                inside: vec![Set::Tos(dscp << 2)],
                near: vec![Set::Tos(dscp << 2 | 3), Set::Tos((dscp << 2).wrapping_add(4)), Set::Tos(0)],
            }
        }
        5 => {
            let (value, mask) = (r.pick(&[0u8, 0x10, 0xb8]), r.pick(&[0xffu8, 0x3f, 0x10]));
            Part {
                text: format!("-m tos {not}--tos {value:#04x}/{mask:#04x}"),
                inside: vec![Set::Tos(value)],
                near: vec![Set::Tos(value ^ 1), Set::Tos(value ^ 0x80), Set::Tos(0x10)],
            }
        }
        6 => {
            let base = if place.v6 { 48u16 } else { 28 };
            let (a, b) = (r.pick(&[base, base + 1, base + 12, 100]), r.pick(&[base, base + 12, 100, 200]));
            let (a, b) = (a.min(b), a.max(b));
            let text = match r.below(4) {
                0 => format!("{a}"),
                1 => format!(":{a}"),
                2 => format!("{a}:"),
                _ => format!("{a}:{b}"),
            };
            Part {
                text: format!("-m length {not}--length {text}"),
                inside: vec![Set::Length(a)],
                near: vec![Set::Length(a - 1), Set::Length(a + 1), Set::Length(b), Set::Length(b + 1)],
            }
        }
        7 if came_in && place.hook != "POSTROUTING" => {
            let mac = r.pick(&[CLIENT_MAC, OTHER_MAC]);
            Part {
                text: format!("-m mac {not}--mac-source {mac}"),
                inside: vec![Set::Mac(mac)],
                near: vec![Set::Mac(CLIENT_MAC), Set::Mac(OTHER_MAC)],
            }
        }
        8 if came_in => {
            let kind = r.pick(&[PktType::Unicast, PktType::Broadcast, PktType::Multicast]);
            Part {
                text: format!("-m pkttype {not}--pkt-type {}", kind.name()),
                inside: vec![Set::Cast(kind)],
                near: vec![Set::Cast(PktType::Unicast), Set::Cast(PktType::Broadcast)],
            }
        }
        9 => {
            let side = r.pick(&["src", "dst"]);
            let lists = ["LOCAL", "UNICAST", "UNICAST,LOCAL", "ANYCAST", "MULTICAST", "BROADCAST", "LOCAL,BROADCAST"];
            // IPv6 has no broadcast, and the kernel says so.
            let list = r.pick(&lists[..if place.v6 { 4 } else { 7 }]);
            Part { text: format!("-m addrtype {not}--{side}-type {list}"), ..Part::default() }
        }
        10 if place.nat => {
            let list = r.pick(&["NEW", "INVALID", "NEW,INVALID", "ESTABLISHED,RELATED", "UNTRACKED", "NEW,UNTRACKED"]);
            let text = match r.below(4) {
                0 => format!("-m state {not}--state {list}"),
                1 => {
                    format!("-m conntrack {not}--ctstate {list} {}--ctproto {}", self::not(r), r.pick(&["tcp", "udp"]))
                }
                2 => format!("-m conntrack {not}--ctstate {}", r.pick(&["DNAT", "SNAT", "DNAT,INVALID"])),
                _ => format!("-m conntrack {not}--ctstate {list}"),
            };
            Part {
                text,
                inside: Vec::new(),
                near: vec![Set::Flags(1), Set::Flags(2), Set::Flags(0x10), Set::Flags(0x12)],
            }
        }
        11 if !place.sets.is_empty() => {
            let (name, kind) = r.pick(place.sets);
            let dimensions = kind.split(',').count();
            let sides: Vec<_> = (0..dimensions).map(|_| r.pick(&["src", "dst"])).collect();
            Part { text: format!("-m set {not}--match-set {name} {}", sides.join(",")), ..Part::default() }
        }
        12 if !place.nat && !place.v6 => Part {
            text: format!("{not}-f"),
            inside: vec![Set::Fragment(3, false)],
            near: vec![Set::Fragment(0, true), Set::Fragment(1, true), Set::Fragment(8, false)],
        },
        _ => return None,
    };
    Some(part)
}
