//! Random packets, aimed at the places where a ruleset changes its mind, and their bytes.

use std::net::IpAddr;

use reachwhy::firewall::Packet;
use reachwhy::firewall::packet::Proto;
use reachwhy::firewall::ruleset::{CtStates, Hook, PktType, TcpFlags};
use reachwhy::wire::{IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, MacAddr, TcpHeader, UdpHeader, checksum};

use crate::line::{CLIENT_MAC, ROUTER_MAC};
use crate::matches::{self, OTHER_MAC};
use crate::random::Random;
use crate::rules::{Focus, Rules, Set};

/// A packet, and what the question to the walk does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Shot {
    /// The question to the walk; its octets are those that are sent.
    pub packet: Packet,
    /// What the octets are made from.
    pub plan: Plan,
    /// It is sent in two fragments, cut here (in units of eight octets).
    pub split: Option<u16>,
}

/// The making of a packet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub packet: Packet,
    /// IPv6 extension headers before the upper layer: number, and what follows the first two octets.
    pub headers: Vec<(u8, Vec<u8>)>,
    /// The upper layer, where it is made already.
    pub body: Option<Vec<u8>>,
    /// Octets behind the transport header.
    pub payload: Vec<u8>,
}

impl Shot {
    /// A packet from a case's file.
    pub(crate) fn of_case(packet: &Packet, extensions: &[u8]) -> Self {
        let headers = extensions.iter().map(|kind| (*kind, usual(*kind))).collect();
        let payload = packet.payload.as_deref().map_or(Vec::new(), |hex| vec![0x41; hex.len() / 2]);
        let mut plan = Plan { packet: packet.clone(), headers, body: None, payload };
        plan.packet.octets = None;
        let mut packet = packet.clone();
        if packet.octets.is_none() {
            packet.octets = Some(hex(&build(&plan)));
        }
        Self { packet, plan, split: None }
    }
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// PadN, or a routing header with no segment left, of eight octets.
fn usual(kind: u8) -> Vec<u8> {
    if kind == 43 { vec![4, 0, 0, 0, 0, 0] } else { vec![1, 4, 0, 0, 0, 0] }
}

/// The octets that are sent; `id` tells them from others.
pub(crate) fn bytes(shot: &Shot, id: u32) -> Vec<u8> {
    let mut out = unhex(shot.packet.octets.as_deref().unwrap());
    if out[0] >> 4 == 6 {
        let [_, high, middle, low] = (id & 0xf_ffff).to_be_bytes();
        out[1] = out[1] & 0xf0 | high;
        (out[2], out[3]) = (middle, low);
    } else {
        out[4..6].copy_from_slice(&u16::try_from(id & 0xffff).unwrap().to_be_bytes());
        let header = usize::from(out[0] & 15) * 4;
        (out[10], out[11]) = (0, 0);
        let sum = checksum::internet(&[&out[..header]]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

/// A random packet for this ruleset.
pub(crate) fn shot(r: &mut Random, rules: &Rules) -> Shot {
    let (v6, focus) = (rules.v6, rules.focus);
    let icmp = if v6 { 58 } else { 1 };
    let (src, dst) = (matches::source(r, v6), matches::destination(r, v6, focus));
    let mut packet = Packet::new(src, dst);
    packet.proto = Some(Proto(r.pick(&[6, 6, 17, icmp])));
    packet.sport = Some(matches::port(r));
    packet.dport = Some(matches::port(r));
    packet.tcp_flags = Some(TcpFlags(if r.chance(50) { 2 } else { matches::flags(r) }));
    let kinds: &[(u8, u8)] =
        if v6 { &[(128, 0), (129, 0), (1, 4), (3, 0)] } else { &[(8, 0), (0, 0), (3, 3), (11, 0), (13, 0)] };
    let (kind, code) = r.pick(kinds);
    (packet.icmp_type, packet.icmp_code) = (Some(kind), Some(code));
    packet.ttl = Some(r.pick(&[64, 64, 64, 2, 128, 255]));
    packet.tos = Some(r.pick(&[0, 0, 0x10, 0xb8]));
    if focus == Focus::Output {
        packet.mark = Some(r.pick(&[0, 0, 1, 0x10]));
    } else {
        packet.mac_src = Some(if r.chance(80) { CLIENT_MAC } else { OTHER_MAC });
        packet.pkttype = Some(PktType::Unicast);
    }
    let mut plan = Plan { packet, headers: Vec::new(), body: None, payload: Vec::new() };
    let mut length = None;
    if r.chance(85) {
        aim(r, rules, &mut plan, &mut length);
    }
    if v6 && plan.headers.is_empty() && r.chance(10) {
        plan.headers = r.pick(&[vec![60], vec![0], vec![0, 60], vec![43]]).iter().map(|k| (*k, usual(*k))).collect();
    }
    if !rules.nat && plan.headers.is_empty() && plan.packet.frag_offset.is_none() && r.chance(5) {
        let network = if v6 { 40 } else { 20 };
        length = Some(network + r.pick(&[0, 1, 2, 3, 4, 7, 8, 10, 13, 14, 19]));
    }
    let mut shot = finish(plan, rules, length);
    // Put together again before the rules see it.
    let joined = rules.joins();
    let body = shot.packet.length.unwrap_or(0).saturating_sub(if v6 { 40 } else { 20 });
    // Of the others the pieces do not say what the whole is.
    let whole = match shot.packet.protocol().0 {
        6 => body >= 20,
        33 | 132 => false,
        _ => true,
    };
    if joined && whole && shot.plan.headers.is_empty() && shot.packet.frag_offset.is_none() && body > 8 && r.chance(10)
    {
        let last = usize::try_from((body - 1) / 8).unwrap();
        // Over IPv6 a first fragment without the whole transport header is left alone
        // (net/ipv6/netfilter/nf_conntrack_reasm.c, nf_ct_frag6_gather).
        let first = if shot.packet.tcp_flags.is_some() && v6 { 3 } else { 1 };
        if first <= last {
            shot.split = Some(u16::try_from(first + r.below(last + 1 - first)).unwrap());
        }
        shot.packet.octets = Some(hex(&build(&shot.plan)));
    }
    shot
}

/// The two fragments of a packet.
pub(crate) fn fragments(octets: &[u8], at: u16, id: u32) -> [Vec<u8>; 2] {
    let cut = usize::from(at) * 8;
    if octets[0] >> 4 == 6 {
        let fragment = |body: &[u8], bits: u16| {
            let mut out = octets[..40].to_vec();
            out[4..6].copy_from_slice(&u16::try_from(body.len() + 8).unwrap().to_be_bytes());
            out[6] = 44;
            out.extend([octets[6], 0]);
            out.extend(bits.to_be_bytes());
            out.extend(id.to_be_bytes());
            out.extend(body);
            out
        };
        return [fragment(&octets[40..40 + cut], 1), fragment(&octets[40 + cut..], at << 3)];
    }
    let fragment = |body: &[u8], bits: u16| {
        let mut out = octets[..20].to_vec();
        out[2..4].copy_from_slice(&u16::try_from(body.len() + 20).unwrap().to_be_bytes());
        out[6..8].copy_from_slice(&bits.to_be_bytes());
        (out[10], out[11]) = (0, 0);
        let sum = checksum::internet(&[&out]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(body);
        out
    };
    [fragment(&octets[20..20 + cut], 0x2000), fragment(&octets[20 + cut..], at)]
}

/// Makes the packet meet a rule of the ruleset, or just not.
fn aim(r: &mut Random, rules: &Rules, plan: &mut Plan, length: &mut Option<u16>) {
    let all: Vec<_> = rules
        .tables
        .iter()
        .flat_map(|t| &t.chains)
        .flat_map(|c| &c.rules)
        .filter(|rule| !rule.parts.is_empty())
        .collect();
    if all.is_empty() {
        return;
    }
    for _ in 0..=r.below(2) {
        let rule = r.pick(&all);
        for part in &rule.parts {
            for set in &part.inside {
                apply(set, rules, plan, length);
            }
        }
        if r.chance(50) {
            let part = &rule.parts[r.below(rule.parts.len())];
            if !part.near.is_empty() {
                apply(&part.near[r.below(part.near.len())], rules, plan, length);
            }
        }
    }
}

fn apply(set: &Set, rules: &Rules, plan: &mut Plan, length: &mut Option<u16>) {
    let packet = &mut plan.packet;
    match set {
        Set::Mss(mss) => {
            packet.mss = Some(*mss);
            let options = packet.tcp_options.get_or_insert_default();
            if !options.contains(&2) {
                options.push(2);
            }
        }
        Set::Payload(octets) => plan.payload.clone_from(octets),
        // Of these conntrack has rules of its own.
        Set::Body(proto, octets) if !rules.nat => {
            (packet.proto, plan.body) = (Some(Proto(*proto)), Some(octets.clone()));
        }
        Set::Ext(44, _) if rules.nat || rules.joins() || rules.focus == Focus::Input => (),
        Set::Ext(kind, body) if rules.v6 => {
            plan.headers.retain(|(other, _)| other != kind);
            plan.headers.push((*kind, body.clone()));
            // In the order of RFC 8200; a fragment's header comes last.
            let order = [0, 60, 43, 51, 44];
            plan.headers.sort_by_key(|(kind, _)| order.iter().position(|other| other == kind));
        }
        Set::Eui64 if rules.v6 => {
            let mac = packet.mac_src.unwrap_or(CLIENT_MAC).0;
            let id = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
            packet.src = std::net::Ipv6Addr::from((0xfd99 << 112) | u128::from(u64::from_be_bytes(id))).into();
        }
        Set::Body(..) | Set::Ext(..) | Set::Eui64 => (),
        Set::Src(addr) if usable(*addr, true, rules) => packet.src = *addr,
        Set::Dst(addr) if usable(*addr, false, rules) => packet.dst = *addr,
        Set::Proto(number) => packet.proto = Some(Proto(*number)),
        Set::Sport(port) => packet.sport = Some(*port),
        Set::Dport(port) => packet.dport = Some(*port),
        Set::Flags(flags) => packet.tcp_flags = Some(TcpFlags(*flags)),
        Set::Options(options) => packet.tcp_options = Some(options.clone()),
        Set::Icmp(kind, code) => (packet.icmp_type, packet.icmp_code) = (Some(*kind), Some(*code)),
        Set::Ttl(ttl) => packet.ttl = Some((*ttl).max(1)),
        Set::Tos(tos) => packet.tos = Some(*tos),
        Set::Length(want) => *length = Some(*want),
        Set::Mac(mac) if rules.focus != Focus::Output => packet.mac_src = Some(*mac),
        // Only what is for this host is taken from a frame that was for others too.
        Set::Cast(kind) if rules.focus == Focus::Input => packet.pkttype = Some(*kind),
        Set::Mark(mark) if rules.focus == Focus::Output => packet.mark = Some(*mark),
        // conntrack puts fragments together first, and so does a host whose own they are.
        Set::Fragment(offset, more) if !rules.nat && !rules.joins() && !rules.v6 && rules.focus != Focus::Input => {
            (packet.frag_offset, packet.more_fragments) = (Some(*offset), Some(*more));
        }
        // It does not go with this ruleset.
        Set::Src(_) | Set::Dst(_) | Set::Mac(_) | Set::Cast(_) | Set::Mark(_) | Set::Fragment(..) => (),
    }
}

/// Whether a packet with this address goes the way that the focus says, and would be answered.
fn usable(addr: IpAddr, source: bool, rules: &Rules) -> bool {
    let known = |list: &[&str]| list.iter().any(|one| one.parse() == Ok(addr));
    if source && known(if rules.v6 { &matches::SOURCES6 } else { &matches::SOURCES }) {
        return true;
    }
    if !source && known(matches::destinations(rules.v6, rules.focus)) {
        return true;
    }
    if !source && rules.focus == Focus::Input {
        return false;
    }
    match addr {
        // Neighbours are given, not asked for.
        IpAddr::V4(a) => match a.octets() {
            [0 | 127 | 224..=255, ..] | [10, 1 | 2, ..] => false,
            [192, 168, ..] => source,
            _ => true,
        },
        IpAddr::V6(a) => match a.segments() {
            [0xfd99, ..] => source,
            [0x2000..=0x3fff, ..] => true,
            _ => false,
        },
    }
}

/// Fills in what follows from the rest.
pub(crate) fn finish(mut plan: Plan, rules: &Rules, length: Option<u16>) -> Shot {
    let packet = &mut plan.packet;
    // Of the others conntrack has rules of its own.
    if rules.nat && !matches!(packet.proto, Some(Proto(1 | 6 | 17 | 58))) {
        packet.proto = Some(Proto(17));
    }
    let proto = packet.proto.unwrap_or(Proto(6)).0;
    if !matches!(proto, 33 | 50 | 51 | 59 | 108 | 132 | 135) {
        plan.body = None;
    }
    if !matches!(proto, 6 | 17 | 33 | 132 | 136) {
        (packet.sport, packet.dport) = (None, None);
    } else if packet.sport.is_none() {
        (packet.sport, packet.dport) = (Some(40_000), Some(80));
    }
    if proto != 6 {
        (packet.tcp_flags, packet.mss) = (None, None);
    } else if packet.tcp_flags.is_none() {
        packet.tcp_flags = Some(TcpFlags(2));
    }
    packet.tcp_options = (proto == 6).then(|| packet.tcp_options.clone().unwrap_or_default());
    if !matches!(proto, 1 | 58) {
        (packet.icmp_type, packet.icmp_code) = (None, None);
    } else if packet.icmp_type.is_none() {
        (packet.icmp_type, packet.icmp_code) = (Some(if rules.v6 { 128 } else { 8 }), Some(0));
    }
    match rules.focus {
        Focus::Output => {
            packet.hook = Some(Hook::Output);
            // The router's routes decide it.
            packet.out = None;
            (packet.uid, packet.gid) = (Some(0), Some(0));
        }
        _ => packet.in_ = Some("eth0".to_owned()),
    }
    // What a packet too small for them may not have.
    if plan.packet.frag_offset.is_some() {
        plan.headers.clear();
    }
    (plan.packet.length, plan.packet.octets) = (None, None);
    let bare = build(&Plan { payload: Vec::new(), ..plan.clone() }).len();
    let network = if rules.v6 { 40 } else { 20 };
    let wanted = length.map_or(bare + plan.payload.len(), usize::from).clamp(network, bare + 600);
    // conntrack has its own opinion of what is cut short.
    let cut = !rules.nat && plan.headers.is_empty() && plan.packet.frag_offset.is_none();
    let wanted = if cut { wanted } else { wanted.max(bare) };
    let later = plan.packet.frag_offset.is_some_and(|offset| offset > 0);
    // Of other protocols all behind the IP header counts as payload.
    let known = plan.body.is_some() || matches!(proto, 1 | 6 | 17 | 33 | 58 | 132 | 136) || later;
    let wanted = if known { wanted } else { wanted.max(bare + 8) };
    let payload = if later { wanted - network } else { wanted.saturating_sub(bare) };
    plan.payload.resize(payload, 0x41);
    plan.packet.length = Some(u32::try_from(wanted).unwrap());
    let octets = build(&plan);
    let own = Packet::from_octets(&octets).unwrap();
    let place = plan.packet.clone();
    let mut packet = Packet {
        hook: place.hook,
        in_: place.in_,
        mark: place.mark,
        mac_src: place.mac_src,
        pkttype: place.pkttype,
        uid: place.uid,
        gid: place.gid,
        ..own
    };
    packet.ctstate = rules.nat.then(|| expected_state(&packet));
    Shot { packet, plan, split: None }
}

/// The conntrack state of a packet that comes first (`nf_conntrack_proto_tcp.c`, `…_icmp.c`).
fn expected_state(packet: &Packet) -> CtStates {
    let new = match packet.proto.unwrap().0 {
        // SYN, or an ACK that is let in late; with URG allowed, and PSH, ECE and CWR ignored.
        6 => matches!(packet.tcp_flags.unwrap().0 & 0x37, 0x02 | 0x22 | 0x10 | 0x30),
        1 => matches!(packet.icmp_type.unwrap(), 8 | 13 | 15 | 17),
        58 if (130..=136).contains(&packet.icmp_type.unwrap()) || packet.icmp_type == Some(143) => {
            return CtStates::UNTRACKED;
        }
        58 => matches!(packet.icmp_type.unwrap(), 128 | 139),
        _ => true,
    };
    if new { CtStates::NEW } else { CtStates::INVALID }
}

/// The packet as the wire has it.
fn build(plan: &Plan) -> Vec<u8> {
    let packet = &plan.packet;
    let proto = packet.proto.unwrap().0;
    let later = packet.frag_offset.is_some_and(|offset| offset > 0);
    let mut body = match &plan.body {
        _ if later && plan.payload.is_empty() => vec![0x41; 24],
        _ if later => plan.payload.clone(),
        Some(octets) => {
            let mut octets = octets.clone();
            if matches!(proto, 33 | 132) && octets.len() >= 4 {
                let ports = [packet.sport.unwrap_or(0).to_be_bytes(), packet.dport.unwrap_or(0).to_be_bytes()].concat();
                octets[..4].copy_from_slice(&ports);
            }
            [octets, plan.payload.clone()].concat()
        }
        None => upper(packet, proto, &plan.payload),
    };
    if let (Some(length), true) = (packet.length, plan.headers.is_empty()) {
        let network = if packet.is_v6() { 40 } else { 20 };
        body.truncate(usize::try_from(length).unwrap() - network);
    }
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = Ipv4Header::new(src, dst, proto);
            header.tos = packet.tos.unwrap();
            header.ttl = packet.ttl.unwrap();
            header.dont_fragment = false;
            header.fragment_offset = packet.frag_offset.unwrap_or(0);
            header.more_fragments = packet.more_fragments.unwrap_or(false);
            header.packet(&body)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut next = proto;
            for (kind, content) in plan.headers.iter().rev() {
                let size = match kind {
                    44 => 0,
                    51 => (2 + content.len()) / 4 - 2,
                    _ => (2 + content.len()) / 8 - 1,
                };
                let mut header = vec![next, u8::try_from(size).unwrap()];
                header.extend(content);
                header.extend(&body);
                (body, next) = (header, *kind);
            }
            let mut header = Ipv6Header::new(src, dst, next);
            header.traffic_class = packet.tos.unwrap();
            header.hop_limit = packet.ttl.unwrap();
            header.packet(&body)
        }
        _ => panic!("both addresses are of one family"),
    }
}

fn upper(packet: &Packet, proto: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (packet.src, packet.dst);
    let ports = (packet.sport.unwrap_or(0), packet.dport.unwrap_or(0));
    match proto {
        6 => {
            let mut header = TcpHeader::new(ports.0, ports.1, reachwhy::wire::TcpFlags(packet.tcp_flags.unwrap().0));
            header.seq = 1;
            let mut options = Vec::new();
            for option in packet.tcp_options.iter().flatten() {
                options.extend(match option {
                    2 => [[2, 4], packet.mss.unwrap_or(1460).to_be_bytes()].concat(),
                    3 => vec![3, 3, 7, 1],
                    4 => vec![4, 2, 1, 1],
                    8 => vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
                    other => vec![*other, 4, 0, 0],
                });
            }
            header.options = reachwhy::wire::HexBytes(options);
            header.segment(src, dst, payload)
        }
        17 => UdpHeader::datagram(src, dst, ports.0, ports.1, payload),
        1 | 58 => {
            let family = IcmpFamily::of(dst);
            let mut header = IcmpHeader::new_echo(family, true, 7, 1);
            (header.kind, header.code) = (packet.icmp_type.unwrap(), packet.icmp_code.unwrap());
            header.message(src, dst, payload)
        }
        136 => {
            // A coverage of 0 is the whole datagram.
            let mut out = Vec::new();
            out.extend(ports.0.to_be_bytes());
            out.extend(ports.1.to_be_bytes());
            out.extend([0, 0, 0, 0]);
            out.extend(payload);
            let sum = checksum::transport(src, dst, 136, &out);
            out[6..8].copy_from_slice(&sum.to_be_bytes());
            out
        }
        33 | 132 => {
            let mut out = Vec::new();
            out.extend(ports.0.to_be_bytes());
            out.extend(ports.1.to_be_bytes());
            out.extend([0; 8]);
            out.extend(payload);
            out
        }
        _ => payload.to_vec(),
    }
}

/// The frame's destination address.
pub(crate) fn frame_to(packet: &Packet) -> MacAddr {
    match packet.pkttype {
        Some(PktType::Broadcast) => MacAddr([0xff; 6]),
        Some(PktType::Multicast) => MacAddr([1, 0, 0x5e, 0, 0, 1]),
        _ => ROUTER_MAC,
    }
}
