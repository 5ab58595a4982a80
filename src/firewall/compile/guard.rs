//! What looking at a packet may leave behind.
//!
//! A test may note what it had to assume ("source port 40000"), or drop the packet at once (a header
//! cut short). A rule may be passed over for a test that surely fails only where nothing of that
//! kind would have happened on the way to that test. Each kind is a bit; those that can still happen
//! to a packet are pending. What was noted once is not noted again, so that little is pending for
//! long.

use std::net::IpAddr;

use crate::firewall::ruleset::{CtStates, Hook};
use crate::firewall::walk::Live;

/// Kinds of what may happen.
pub(super) type Guard = u32;

/// A header cut short, or a later fragment: what tests do then differs by module and backend.
pub(super) const ODD: Guard = 1;
pub(super) const SPORT: Guard = 1 << 1;
/// The destination port is not known.
pub(super) const DPORT_OPEN: Guard = 1 << 2;
pub(super) const FLAGS: Guard = 1 << 3;
pub(super) const ICMP: Guard = 1 << 4;
pub(super) const STATE: Guard = 1 << 5;
pub(super) const MARK: Guard = 1 << 6;
/// The mark is not known.
pub(super) const MARK_OPEN: Guard = 1 << 7;
pub(super) const CONNMARK: Guard = 1 << 8;
/// Any look at the interface.
pub(super) const IN: Guard = 1 << 9;
/// A test for `lo`.
pub(super) const IN_LO: Guard = 1 << 10;
/// The interface is not known.
pub(super) const IN_OPEN: Guard = 1 << 11;
pub(super) const OUT: Guard = 1 << 12;
pub(super) const OUT_LO: Guard = 1 << 13;
pub(super) const OUT_OPEN: Guard = 1 << 14;
pub(super) const LENGTH: Guard = 1 << 15;
pub(super) const TTL: Guard = 1 << 16;
pub(super) const PKTTYPE: Guard = 1 << 17;
/// There is a history, which matches with a memory change.
pub(super) const HISTORY: Guard = 1 << 18;
/// The source hardware address is not known.
pub(super) const MAC_OPEN: Guard = 1 << 19;
/// The protocol has no ports: a test of one reads whatever stands there.
pub(super) const NO_PORTS: Guard = 1 << 20;
/// Anything may happen.
pub(super) const ANYTHING: Guard = 1 << 31;

/// The port of a packet that does not say, see [`Live::sport`].
const EPHEMERAL: u16 = 40_000;

fn port_protocol(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 33 | 132 | 136)
}

/// Those of `asked` that can still happen to this packet.
pub(super) fn pending(live: &Live, history: bool, asked: Guard) -> Guard {
    let mut found = asked & ANYTHING;
    let packet = &live.packet;
    let noted = |text: &str| live.assumed.iter().any(|known| known == text);
    let begun = |text: &str| live.assumed.iter().any(|known| known.starts_with(text));
    let mut check = |bits: Guard, holds: &dyn Fn() -> bool| {
        if asked & bits != 0 && holds() {
            found |= asked & bits;
        }
    };
    check(ODD, &|| {
        let header = match live.proto {
            6 => 20,
            17 | 136 | 1 | 58 => 8,
            132 | 33 => 12,
            _ => 0,
        };
        live.is_later_fragment() || !live.has_octets(header)
    });
    check(NO_PORTS, &|| !port_protocol(live.proto));
    check(SPORT, &|| packet.sport.is_none() && !noted("source port 40000 (an ephemeral one)"));
    check(DPORT_OPEN, &|| packet.dport.is_none());
    check(FLAGS, &|| {
        packet.tcp_flags.is_none() && !noted(if live.is_fresh() { "TCP flags SYN" } else { "TCP flags ACK" })
    });
    check(ICMP, &|| packet.icmp_type.is_none() && !noted("ICMP echo request"));
    check(STATE, &|| {
        packet.ctstate.is_none()
            && live.state.intersects(CtStates::NEW)
            && !live.sees_no_state()
            && !noted("conntrack state NEW")
    });
    check(MARK, &|| packet.mark.is_none() && live.mark == 0 && !noted("packet mark 0"));
    check(MARK_OPEN, &|| live.mark_open.is_some());
    check(CONNMARK, &|| packet.connmark.is_none() && live.connmark == 0 && !noted("connection mark 0"));
    let (in_there, out_there) =
        (live.has_in_iface() && packet.in_.is_none(), live.has_out_iface() && packet.out.is_none());
    check(IN, &|| in_there && live.loops_back() && !noted("it arrives by lo"));
    check(OUT, &|| out_there && live.loops_back() && !noted("it leaves by lo"));
    check(IN_LO, &|| in_there && !live.loops_back() && !noted("it arrives by an interface other than lo"));
    check(OUT_LO, &|| out_there && !live.loops_back() && !noted("it leaves by an interface other than lo"));
    check(IN_OPEN, &|| in_there && !live.loops_back());
    check(OUT_OPEN, &|| out_there && !live.loops_back());
    check(LENGTH, &|| packet.length.is_none() && !begun("a packet of "));
    check(TTL, &|| packet.ttl.is_none() && !noted("64 hops left"));
    check(PKTTYPE, &|| {
        packet.pkttype.is_none()
            && (live.came_in || live.hook != Hook::Output)
            && !live
                .assumed
                .iter()
                .any(|known| known.strip_prefix("packet type ") == Some(live.likely_pkttype().name()))
    });
    check(HISTORY, &|| history);
    check(MAC_OPEN, &|| packet.mac_src.is_none());
    found
}

/// The dimensions of a rule's box.
pub(super) mod dim {
    pub(crate) const SRC: usize = 0;
    pub(crate) const DST: usize = 1;
    pub(crate) const PROTO: usize = 2;
    pub(crate) const SPORT: usize = 3;
    pub(crate) const DPORT: usize = 4;
    pub(crate) const IN: usize = 5;
    pub(crate) const OUT: usize = 6;
    pub(crate) const MARK: usize = 7;
    pub(crate) const STATE: usize = 8;
    pub(crate) const ICMP: usize = 9;
    pub(crate) const MAC: usize = 10;
    pub(crate) const COUNT: usize = 11;
}

/// Where the packet is. A value that is not known is any: its guard is pending then, and the tree
/// in use does not ask for it.
pub(super) fn point(live: &Live) -> [u128; dim::COUNT] {
    let packet = &live.packet;
    let mut point = [0u128; dim::COUNT];
    point[dim::SRC] = addr(packet.src);
    point[dim::DST] = addr(packet.dst);
    point[dim::PROTO] = live.proto.into();
    point[dim::SPORT] = packet.sport.unwrap_or(EPHEMERAL).into();
    point[dim::DPORT] = packet.dport.unwrap_or(0).into();
    point[dim::IN] = iface(live.has_in_iface(), packet.in_.as_deref());
    point[dim::OUT] = iface(live.has_out_iface(), packet.out.as_deref());
    point[dim::MARK] = live.mark.into();
    point[dim::STATE] = state(live.states_now());
    point[dim::ICMP] = packet.icmp_type.unwrap_or(if live.v6 { 128 } else { 8 }).into();
    point[dim::MAC] = packet.mac_src.map_or(0, |mac| octets(&mac.0));
    point
}

pub(super) fn addr(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().into(),
        IpAddr::V6(addr) => addr.to_bits(),
    }
}

fn iface(there: bool, name: Option<&str>) -> u128 {
    if there { self::name(name.unwrap_or("lo")) } else { self::name("") }
}

/// A name as a number. Names may share one; that only costs a look.
pub(super) fn name(name: &str) -> u128 {
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    u128::from((hash ^ hash >> 32) & 0xffff_fffe)
}

/// Conntrack states as a number: one state alone has its own, everything else shares one.
pub(super) fn state(states: CtStates) -> u128 {
    match states.0 {
        bits @ (1 | 2 | 4 | 8 | 16) => u128::from(bits.trailing_zeros()),
        _ => 5,
    }
}

pub(super) fn octets(octets: &[u8]) -> u128 {
    octets.iter().fold(0, |n, octet| n << 8 | u128::from(*octet))
}
