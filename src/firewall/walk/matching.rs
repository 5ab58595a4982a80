//! Whether one match holds for the packet.

use std::net::{IpAddr, Ipv6Addr};

use crate::firewall::ruleset::{
    AddrTypes, CtStates, CtTest, Hook, Iface, Match, Order, OwnerTest, PktType, PortRange, Side, Test, Transport,
};
use crate::host::{Backend, HostFacts, RouteKind};

use super::flow::Run;
use super::live::{IfaceName, Truth};
use super::stack::ChainAt;

impl Run<'_> {
    /// Whether the match holds, its negation applied.
    pub(super) fn holds(&mut self, at: ChainAt, m: &Match) -> Truth {
        // iptables-nft leaves a test of no flag at all out, and the negation of all ports; all ports
        // not negated is as good as no option (iptables/nft.c, add_nft_tcpflags, add_nft_tcpudp).
        let left_out = match &m.test {
            Test::TcpFlags { mask, .. } => mask.0 == 0,
            Test::Port { module: Transport::Tcp | Transport::Udp, range, .. } => {
                m.negated && range.from == 0 && range.to == u16::MAX
            }
            _ => false,
        };
        if left_out && self.stack.at(at).is_some_and(|(ruleset, _, _)| ruleset.backend == Backend::Nft) {
            return Truth::Yes;
        }
        self.test(at, &m.test).negate(m.negated)
    }

    fn test(&mut self, at: ChainAt, test: &Test) -> Truth {
        let live = &mut self.live;
        match test {
            Test::Source(net) => Truth::of(net.contains(live.packet.src)),
            Test::Destination(net) => Truth::of(net.contains(live.packet.dst)),
            Test::InInterface(iface) => {
                let name = live.in_iface();
                self.iface(iface, &name, "arrives", "in")
            }
            Test::OutInterface(iface) => {
                let name = live.out_iface();
                self.iface(iface, &name, "leaves", "out")
            }
            Test::Protocol(number) => self.protocol(at, *number),
            Test::Fragment => Truth::of(live.is_later_fragment()),
            // Without options the module is x_tables' own in both backends (iptables/nft.c, tcp_all_zero).
            Test::Header(module) => self.module_header(*module).unwrap_or(Truth::Yes),
            Test::Port { module, side, range } => self.port(at, *module, *side, *range),
            Test::Multiport { side, ranges } => self.multiport(*side, ranges),
            Test::TcpFlags { mask, set } => self.flags(at, *mask, *set),
            Test::TcpOption(option) => self.tcp_option(*option),
            Test::Icmp { v6, kind, codes } => self.icmp(at, *v6, *kind, *codes),
            Test::Conntrack { tests, .. } => self.conntrack(tests),
            Test::Mark { value, mask } => {
                if let Some(why) = &live.mark_open {
                    return Truth::Maybe(why.clone());
                }
                if live.packet.mark.is_none() && live.mark == 0 {
                    live.assume("packet mark 0");
                }
                Truth::of(live.mark & mask == *value)
            }
            Test::Connmark { value, mask } => {
                if !live.has_flow() {
                    return Truth::Absent;
                }
                if live.packet.connmark.is_none() && live.connmark == 0 {
                    live.assume("connection mark 0");
                }
                Truth::of(live.connmark & mask == *value)
            }
            Test::Comment(_) => Truth::Yes,
            Test::IpRange { side, from, to } => {
                let addr = if *side == Side::Source { live.packet.src } else { live.packet.dst };
                Truth::of(in_range(addr, *from, *to))
            }
            Test::Mac(mac) => match (live.hook, live.packet.mac_src) {
                (Hook::Output | Hook::Postrouting | Hook::Egress, _) => Truth::Absent,
                (_, Some(own)) => Truth::of(own == *mac),
                (_, None) => Truth::Maybe("the source hardware address is not given".to_owned()),
            },
            Test::AddrType { side, types, limit_iface } => self.addrtype(*side, *types, *limit_iface),
            Test::Owner(owner) => self.owner(owner),
            Test::Length { from, to } => {
                let length = live.length();
                Truth::of((u32::from(*from)..=u32::from(*to)).contains(&length))
            }
            Test::Ttl { order, value, .. } => {
                if live.packet.ttl.is_none() {
                    live.assume("64 hops left");
                }
                Truth::of(match order {
                    Order::Eq => live.ttl == *value,
                    Order::Lt => live.ttl < *value,
                    Order::Gt => live.ttl > *value,
                })
            }
            Test::Tos { value, mask } => Truth::of(live.tos & mask == *value),
            Test::Dscp(value) => Truth::of(live.tos >> 2 == *value),
            Test::PktType(kind) => Truth::of(self.pkttype() == *kind),
            Test::Set { name, sides, options } => self.ipset(name, sides, options),
            // xt_recent.c: --set returns true whatever it found.
            Test::Stateful { module, options }
                if self.session.is_none() && module == "recent" && is_plain_set(options) =>
            {
                Truth::Yes
            }
            Test::Stateful { module, options } => self.stateful(at, module, options),
            Test::Ext(ext) => self.ext(ext),
            Test::Compare(comparison) => self.compare(at, comparison),
            Test::Unknown { .. } => Truth::Maybe("this program does not know it".to_owned()),
        }
    }

    /// `-p`. x_tables passes all extension headers of IPv6 (`ip6_packet_match`), nf_tables stops at AH
    /// (`nft_set_pktinfo_ipv6`); where the headers are cut, the one drops and the other does not match.
    fn protocol(&mut self, at: ChainAt, number: u8) -> Truth {
        let live = &mut self.live;
        if !live.v6 {
            return Truth::of(live.proto == number);
        }
        let extension = |number: u8| matches!(number, 0 | 43 | 44 | 51 | 60);
        let nft = self.stack.at(at).is_some_and(|(ruleset, _, _)| ruleset.backend == Backend::Nft);
        let Some((_, layout)) = &live.wire else {
            return match live.proto {
                51 if nft => Truth::of(number == 51),
                own if extension(own) && extension(number) => Truth::No,
                own if extension(own) => Truth::Maybe("what follows its extension header is not given".to_owned()),
                own => Truth::of(own == number),
            };
        };
        if layout.cut || live.is_later_fragment() && extension(layout.proto) {
            return if nft { Truth::Absent } else { live.hot() };
        }
        let authenticated = layout.extensions.iter().any(|header| header.kind == 51);
        Truth::of(if nft && authenticated { number == 51 } else { live.proto == number })
    }

    pub(super) fn ports(&mut self, side: Side, ranges: &[PortRange]) -> Truth {
        let inside = |port: u16| ranges.iter().any(|range| range.contains(port));
        let everything = ranges.iter().any(|range| range.from == 0 && range.to == u16::MAX);
        if everything {
            return Truth::Yes;
        }
        if side != Side::Destination {
            let port = self.live.sport();
            if inside(port) {
                return Truth::Yes;
            }
            if side == Side::Source {
                return Truth::No;
            }
        }
        match self.live.packet.dport {
            Some(port) => Truth::of(inside(port)),
            None => Truth::Maybe("the destination port is not given".to_owned()),
        }
    }

    pub(super) fn iface(&mut self, iface: &Iface, name: &IfaceName, verb: &str, field: &str) -> Truth {
        match name {
            IfaceName::Known(name) => Truth::of(iface.matches(name)),
            IfaceName::NotLoopback if iface.prefix && iface.name.is_empty() => Truth::Yes,
            IfaceName::NotLoopback if !iface.prefix && iface.name == "lo" => {
                self.live.assume(format!("it {verb} by an interface other than lo"));
                Truth::No
            }
            IfaceName::NotLoopback => Truth::Maybe(format!("the interface it {verb} by (`{field}`) is not given")),
        }
    }

    /// `net/netfilter/xt_conntrack.c`, `conntrack_mt`.
    fn conntrack(&mut self, tests: &[(bool, CtTest)]) -> Truth {
        let seen = self.live.states_seen();
        let flow = self.live.has_flow();
        let mut has_state = false;
        let mut truth = Truth::Yes;
        for (negated, test) in tests {
            if let CtTest::State(states) = test {
                has_state = true;
                if seen.intersects(*states) == *negated {
                    return Truth::No;
                }
            }
        }
        if !flow {
            // Without a flow only the state is looked at.
            return Truth::of(has_state);
        }
        for (negated, test) in tests.iter().filter(|(_, test)| !matches!(test, CtTest::State(_))) {
            match self.ct_test(test).negate(*negated) {
                Truth::Yes => (),
                Truth::Maybe(why) => truth = Truth::Maybe(why),
                Truth::No | Truth::Absent => return Truth::No,
            }
        }
        truth
    }

    fn ct_test(&mut self, test: &CtTest) -> Truth {
        if let Some(truth) = self.ct_of_flow(test) {
            return truth;
        }
        let live = &mut self.live;
        let fresh = live.state.intersects(CtStates::NEW);
        let (src, dst, sport, dport) = live.original;
        let unknown = |what: &str| Truth::Maybe(format!("the {what} of its flow is not known"));
        match test {
            CtTest::State(_) => Truth::Yes,
            CtTest::Proto(number) => Truth::of(live.about.map_or(live.proto, |about| about.proto) == *number),
            CtTest::Status(statuses) => match live.packet.ctstatus {
                Some(own) if statuses.0 == 0 => Truth::of(own.0 == 0),
                Some(own) => Truth::of(own.0 & statuses.0 != 0),
                None => unknown("status"),
            },
            CtTest::Direction(reply) if fresh => Truth::of(!reply),
            CtTest::Direction(reply) => match live.about.and_then(|about| about.reply) {
                Some(own) => Truth::of(own == *reply),
                None => unknown("direction"),
            },
            CtTest::Expire(_) => unknown("timeout"),
            // A new flow's reply is expected from where the packet now goes.
            CtTest::Addr { reply, side, net } if fresh => {
                let addr = match (reply, side) {
                    (false, Side::Source) => src,
                    (false, _) => dst,
                    (true, Side::Source) => live.packet.dst,
                    (true, _) => live.packet.src,
                };
                Truth::of(net.contains(addr))
            }
            CtTest::Addr { reply, side, net } => match live.about.and_then(|about| about.tuples) {
                Some(tuples) => {
                    let (src, dst, ..) = tuples[usize::from(*reply)];
                    Truth::of(net.contains(if *side == Side::Source { src } else { dst }))
                }
                None => unknown("original addresses"),
            },
            CtTest::Port { reply, side, range } if fresh => {
                let port = match (reply, side) {
                    (false, Side::Source) => sport,
                    (false, _) => dport,
                    (true, Side::Source) => live.packet.dport,
                    (true, _) => live.packet.sport,
                };
                port.map_or_else(|| unknown("ports"), |port| Truth::of(range.contains(port)))
            }
            CtTest::Port { reply, side, range } => {
                let tuples = live.about.and_then(|about| about.tuples);
                let port = tuples.and_then(|tuples| {
                    let (_, _, sport, dport) = tuples[usize::from(*reply)];
                    if *side == Side::Source { sport } else { dport }
                });
                port.map_or_else(|| unknown("original ports"), |port| Truth::of(range.contains(port)))
            }
        }
    }

    pub(super) fn owner(&mut self, owner: &OwnerTest) -> Truth {
        let live = &self.live;
        if live.came_in || !matches!(live.hook, Hook::Output | Hook::Postrouting) {
            // net/netfilter/xt_owner.c: no socket, no owner; `! --uid-owner` then holds.
            return Truth::No;
        }
        let within = |id: Option<u32>, from: u32, to: u32, what: &str| match id {
            Some(id) => Truth::of((from..=to).contains(&id)),
            None => Truth::Maybe(format!("the sending socket's {what} is not given")),
        };
        match owner {
            OwnerTest::Uid(from, to) => within(live.packet.uid, *from, *to, "user"),
            OwnerTest::Gid(from, to) => within(live.packet.gid, *from, *to, "group"),
            OwnerTest::SocketExists if live.packet.uid.is_some() || live.packet.gid.is_some() => Truth::Yes,
            OwnerTest::SocketExists => Truth::Maybe("whether it comes from a socket is not given".to_owned()),
        }
    }

    fn addrtype(&mut self, side: Side, types: AddrTypes, limit: Option<Side>) -> Truth {
        let addr = if side == Side::Source { self.live.packet.src } else { self.live.packet.dst };
        let device = match limit {
            None => None,
            Some(way) => {
                let name = if way == Side::Source { self.live.in_iface() } else { self.live.out_iface() };
                match name {
                    IfaceName::Known(name) => Some(name),
                    IfaceName::NotLoopback => return Truth::Maybe("the interface is not given".to_owned()),
                }
            }
        };
        if let IpAddr::V6(v6) = addr {
            return self.addrtype6(v6, types, device.as_deref());
        }
        match self.addr_type(addr, device.as_deref()) {
            Some(kind) => Truth::of(types.0 & kind != 0),
            // LOCAL, BROADCAST and MULTICAST are what a host takes for itself.
            None if side == Side::Destination && self.live.hook == Hook::Input && types.0 & 0b10_1100 == 0b10_1100 => {
                Truth::Yes
            }
            None if side == Side::Destination
                && self.live.hook == Hook::Input
                && device.is_none()
                && !self.live.redirected
                && types == AddrTypes::LOCAL
                && self.pkttype() == PktType::Unicast =>
            {
                self.live.assume(format!("{addr} is an address of this host: it takes the packet in"));
                Truth::Yes
            }
            None => Truth::Maybe(format!("the type of {addr} needs this host's addresses")),
        }
    }

    /// `net/netfilter/xt_addrtype.c`, `match_type6`: MULTICAST, UNICAST and UNSPEC must all hold that
    /// are asked for, and one of LOCAL, ANYCAST and UNREACHABLE; an own address is UNICAST too.
    fn addrtype6(&self, addr: Ipv6Addr, types: AddrTypes, device: Option<&str>) -> Truth {
        let asks = |bit: u16| types.0 & (1 << bit) != 0;
        let mapped = addr.to_ipv4_mapped().is_some();
        let unicast = !addr.is_multicast() && !addr.is_unspecified() && !mapped;
        if asks(5) && !addr.is_multicast() || asks(1) && !unicast || asks(0) && !addr.is_unspecified() {
            return Truth::No;
        }
        if types.0 & (1 << 2 | 1 << 4 | 1 << 7) == 0 {
            return Truth::Yes;
        }
        match self.addr_type(addr.into(), device) {
            Some(kind) => Truth::of(types.0 & kind & (1 << 2 | 1 << 4 | 1 << 7) != 0),
            None => Truth::Maybe(format!("the type of {addr} needs this host's addresses")),
        }
    }

    /// The type of an address as a bit of [`AddrTypes`]; `None` where the host is not known.
    pub(super) fn addr_type(&self, addr: IpAddr, device: Option<&str>) -> Option<u16> {
        const UNICAST: u16 = 1 << 1;
        const LOCAL: u16 = 1 << 2;
        const BROADCAST: u16 = 1 << 3;
        const MULTICAST: u16 = 1 << 5;
        match addr {
            addr if addr.is_multicast() => return Some(MULTICAST),
            // net/ipv4/fib_frontend.c, __inet_dev_addr_type
            IpAddr::V4(a) if a.is_broadcast() || a.octets()[0] == 0 => return Some(BROADCAST),
            addr if addr.is_loopback() && device.is_none_or(|d| d == "lo") => return Some(LOCAL),
            _ => (),
        }
        let host = self.facts.host.filter(|host| host.addresses.is_some())?;
        let own = host.addresses.as_deref().unwrap_or(&[]);
        let mut own = own.iter().filter(|a| device.is_none_or(|d| a.interface == d));
        if let Some(found) = own.find(|a| a.address == addr || a.broadcast == Some(addr)) {
            return Some(if found.address == addr { LOCAL } else { BROADCAST });
        }
        if addr.is_ipv6() && device.is_some() {
            // net/netfilter/xt_addrtype.c, match_lookup_rt6: the device's own addresses alone are LOCAL.
            return Some(UNICAST);
        }
        Some(route_type(host, addr, device).unwrap_or(UNICAST))
    }
}

/// The type of the longest matching route, as a bit of [`AddrTypes`]. Over IPv4 the local table alone is
/// asked, and a route of another device counts for nothing (`net/ipv4/fib_frontend.c`,
/// `__inet_dev_addr_type`).
fn route_type(host: &HostFacts, addr: IpAddr, device: Option<&str>) -> Option<u16> {
    let routes = host.routes.as_deref()?.iter().filter(|r| r.destination.contains(addr));
    let routes = routes.filter(|r| addr.is_ipv6() || r.table == 255);
    let best = routes.max_by_key(|r| (r.table == 255, r.destination.prefix()))?;
    if device.is_some_and(|device| addr.is_ipv4() && best.interface.as_deref() != Some(device)) {
        return None;
    }
    Some(match best.kind {
        RouteKind::Local => 1 << 2,
        RouteKind::Broadcast => 1 << 3,
        RouteKind::Anycast => 1 << 4,
        RouteKind::Multicast => 1 << 5,
        RouteKind::Blackhole => 1 << 6,
        RouteKind::Unreachable => 1 << 7,
        RouteKind::Prohibit => 1 << 8,
        _ => 1 << 1,
    })
}

/// Whether an address lies between two of its family, both included.
pub(super) fn in_range(addr: IpAddr, from: IpAddr, to: IpAddr) -> bool {
    addr.is_ipv6() == from.is_ipv6() && addr.is_ipv6() == to.is_ipv6() && from <= addr && addr <= to
}

/// `recent --set`, not negated.
fn is_plain_set(options: &str) -> bool {
    let mut words = options.split(' ').peekable();
    let mut before = "";
    words.any(|word| {
        let found = word == "--set" && before != "!";
        before = word;
        found
    })
}
