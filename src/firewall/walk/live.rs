//! The packet on its way: its fields with their defaults, and what has become of them.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::firewall::packet::{About, Layout, Packet, Proto, hex, patched, unhex};
use crate::firewall::ruleset::{CtStates, Hook, PktType, TcpFlags};

/// Whether a test holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It fails, negated or not: what it asks about is not there.
    Absent,
    /// Not known, and why.
    Maybe(String),
}

impl Truth {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// The truth of the negated test.
    pub(super) fn negate(self, negated: bool) -> Self {
        match self {
            Self::Yes if negated => Self::No,
            Self::No if negated => Self::Yes,
            other => other,
        }
    }
}

/// An interface's name as a hook sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IfaceName {
    Known(String),
    /// Not given, and surely not the loopback: neither address is this host's own to itself.
    NotLoopback,
}

/// A packet under way.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Live {
    /// The packet as given, with what NAT and targets have changed.
    pub(in crate::firewall) packet: Packet,
    pub(in crate::firewall) v6: bool,
    pub(in crate::firewall) proto: u8,
    pub(in crate::firewall) hook: Hook,
    /// The running chain's priority: before conntrack (-200) no packet has a state.
    pub(in crate::firewall) priority: i32,
    /// It began at prerouting, input or forward: another host sent it.
    pub(in crate::firewall) came_in: bool,
    pub(in crate::firewall) state: CtStates,
    /// A rule has kept it from conntrack.
    pub(in crate::firewall) notrack: bool,
    pub(in crate::firewall) mark: u32,
    /// Why the mark is not known, if so.
    pub(in crate::firewall) mark_open: Option<String>,
    pub(in crate::firewall) connmark: u32,
    pub(in crate::firewall) ttl: u8,
    pub(in crate::firewall) tos: u8,
    /// Addresses and ports before NAT.
    pub(in crate::firewall) original: (IpAddr, IpAddr, Option<u16>, Option<u16>),
    /// REDIRECT sent it to this host itself.
    pub(in crate::firewall) redirected: bool,
    /// What was used without being given.
    pub(in crate::firewall) assumed: Vec<Cow<'static, str>>,
    /// The octets given, and where their headers are.
    pub(in crate::firewall) wire: Option<(Vec<u8>, Layout)>,
    /// A module dropped the packet while it looked (`xt_action_param.hotdrop`).
    pub(in crate::firewall) hotdrop: bool,
    /// It did so where its negation still lets the rule match (`xt_sctp.c`, `xt_dccp.c`).
    pub(in crate::firewall) hot_but_matching: bool,
    /// A rule has given the packet a template: it is kept from conntrack no more (`xt_CT.c`).
    pub(in crate::firewall) template: bool,
    /// The packet that it quotes, an ICMP error, was translated too: its octets are not known.
    pub(in crate::firewall) quote_open: bool,
    /// The flow that this host's answer belongs to.
    pub(in crate::firewall) about: Option<About>,
}

impl Live {
    pub(super) fn new(packet: &Packet) -> Self {
        let wire = packet.octets.as_deref().and_then(unhex);
        let wire = wire.and_then(|octets| Layout::of(&octets).map(|layout| (octets, layout)));
        let packet = &match &wire {
            Some((octets, _)) => filled(packet, octets),
            None => packet.clone(),
        };
        let (proto, guessed) = packet.protocol();
        let start = packet.start();
        let mut live = Self {
            v6: packet.is_v6(),
            proto,
            hook: start,
            priority: 0,
            came_in: matches!(start, Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Ingress)
                || start == Hook::Postrouting && packet.in_.is_some(),
            state: packet.ctstate.unwrap_or(CtStates::NEW),
            mark: packet.mark.unwrap_or(0),
            mark_open: None,
            notrack: false,
            connmark: packet.connmark.unwrap_or(0),
            ttl: packet.ttl.unwrap_or(64),
            tos: packet.tos.unwrap_or(0),
            original: (packet.src, packet.dst, packet.sport, packet.dport),
            redirected: false,
            assumed: Vec::new(),
            wire,
            hotdrop: false,
            hot_but_matching: false,
            template: false,
            quote_open: false,
            about: None,
            packet: packet.clone(),
        };
        live.packet.proto = Some(Proto(proto));
        if guessed {
            live.assume("protocol TCP");
        }
        live
    }

    pub(super) fn assume(&mut self, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        if !self.assumed.contains(&what) {
            self.assumed.push(what);
        }
    }

    pub(in crate::firewall) fn is_later_fragment(&self) -> bool {
        self.packet.frag_offset.unwrap_or(0) > 0
    }

    /// The source port; a fresh packet has an ephemeral one.
    pub(super) fn sport(&mut self) -> u16 {
        if self.packet.sport.is_none() {
            self.assume("source port 40000 (an ephemeral one)");
        }
        self.packet.sport.unwrap_or(40_000)
    }

    pub(super) fn tcp_flags(&mut self) -> TcpFlags {
        if let Some(flags) = self.packet.tcp_flags {
            return flags;
        }
        let fresh = self.is_fresh();
        self.assume(if fresh { "TCP flags SYN" } else { "TCP flags ACK" });
        if fresh { TcpFlags::SYN } else { TcpFlags::ACK }
    }

    /// Whether its flow is not known to have been answered.
    pub(in crate::firewall) fn is_fresh(&self) -> bool {
        !self.state.intersects(CtStates(CtStates::ESTABLISHED.0 | CtStates::RELATED.0))
    }

    pub(super) fn icmp(&mut self) -> (u8, u8) {
        let fresh = if self.v6 { 128 } else { 8 };
        if self.packet.icmp_type.is_none() {
            self.assume("ICMP echo request");
        }
        (self.packet.icmp_type.unwrap_or(fresh), self.packet.icmp_code.unwrap_or(0))
    }

    pub(super) fn length(&mut self) -> u32 {
        if let Some(length) = self.packet.length {
            return length;
        }
        let ip = if self.v6 { 40 } else { 20 };
        let transport = match self.proto {
            // A SYN carries options; other segments of Linux the timestamps.
            6 if self.packet.tcp_flags.unwrap_or(TcpFlags::SYN).0 & TcpFlags::SYN.0 != 0 => 40,
            6 => 32,
            17 => 8,
            1 | 58 => 64,
            _ => 0,
        };
        let payload = self.packet.payload.as_ref().map_or(0, |hex| u32::try_from(hex.len() / 2).unwrap_or(0));
        self.assume(format!("a packet of {} octets", ip + transport + payload));
        ip + transport + payload
    }

    /// The states that a chain of this priority sees. Before conntrack's own hook, which looks the
    /// flow up at priority -200, a packet has none (`net/netfilter/xt_conntrack.c`: INVALID).
    pub(super) fn states_seen(&mut self) -> CtStates {
        if self.sees_no_state() {
            return CtStates::INVALID;
        }
        if self.packet.ctstate.is_none() && self.state.intersects(CtStates::NEW) {
            self.assume("conntrack state NEW");
        }
        self.state
    }

    /// Whether the running chain comes before conntrack.
    pub(in crate::firewall) fn sees_no_state(&self) -> bool {
        let early = self.priority < -200 && matches!(self.hook, Hook::Prerouting | Hook::Output | Hook::Ingress);
        early && !self.notrack && self.packet.in_.as_deref() != Some("lo")
    }

    /// What [`Live::states_seen`] gives, with nothing assumed.
    pub(in crate::firewall) fn states_now(&self) -> CtStates {
        if self.sees_no_state() { CtStates::INVALID } else { self.state }
    }

    /// Whether the packet belongs to a flow that conntrack knows.
    pub(super) fn has_flow(&mut self) -> bool {
        !self.states_seen().intersects(CtStates(CtStates::INVALID.0 | CtStates::UNTRACKED.0))
    }

    /// The rules see the whole packet, of which this is a fragment.
    pub(super) fn put_together(&mut self, why: &str) {
        self.assume(format!("it is put together with its other fragments before the rules see it ({why})"));
        let packet = &mut self.packet;
        (packet.frag_offset, packet.more_fragments) = (None, None);
        (packet.length, packet.payload, packet.octets) = (None, None, None);
        self.wire = None;
    }

    /// The identifier of an ICMP query or its answer; 0 where it is not given.
    pub(super) fn icmp_id(&self) -> u16 {
        let wire = self.wire.as_ref().and_then(|(octets, layout)| {
            let at = layout.transport + 4;
            Some(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]))
        });
        wire.or(self.packet.sport).unwrap_or(0)
    }

    /// Whether conntrack gave the packet a flow before this chain.
    pub(super) fn has_flow_now(&self) -> bool {
        let early = self.priority < -200 && matches!(self.hook, Hook::Prerouting | Hook::Output | Hook::Ingress);
        !early && !self.state.intersects(CtStates(CtStates::INVALID.0 | CtStates::UNTRACKED.0))
    }

    pub(in crate::firewall) fn loops_back(&self) -> bool {
        let loopback = |addr: IpAddr| addr.is_loopback();
        loopback(self.packet.dst) || loopback(self.packet.src) || self.packet.src == self.packet.dst
    }

    /// Whether there is an incoming interface at this hook.
    pub(in crate::firewall) fn has_in_iface(&self) -> bool {
        match self.hook {
            Hook::Ingress | Hook::Prerouting | Hook::Input | Hook::Forward => true,
            Hook::Postrouting | Hook::Egress => self.came_in,
            Hook::Output => false,
        }
    }

    /// Whether there is an outgoing interface at this hook.
    pub(in crate::firewall) fn has_out_iface(&self) -> bool {
        !matches!(self.hook, Hook::Ingress | Hook::Prerouting | Hook::Input)
    }

    /// The interface that `-i` looks at.
    pub(super) fn in_iface(&mut self) -> IfaceName {
        if !self.has_in_iface() {
            // net/netfilter/x_tables: a missing device compares as the empty name.
            return IfaceName::Known(String::new());
        }
        let name = self.packet.in_.clone();
        self.name_or_guess(name, "arrives")
    }

    /// The interface that `-o` looks at.
    pub(super) fn out_iface(&mut self) -> IfaceName {
        if !self.has_out_iface() {
            return IfaceName::Known(String::new());
        }
        let name = self.packet.out.clone();
        self.name_or_guess(name, "leaves")
    }

    fn name_or_guess(&mut self, name: Option<String>, verb: &str) -> IfaceName {
        match name {
            Some(name) => IfaceName::Known(name),
            None if self.loops_back() => {
                self.assume(format!("it {verb} by lo"));
                IfaceName::Known("lo".to_owned())
            }
            None => IfaceName::NotLoopback,
        }
    }

    pub(super) fn pkttype(&mut self) -> PktType {
        if let Some(kind) = self.packet.pkttype {
            return kind;
        }
        let kind = self.likely_pkttype();
        self.assume(format!("packet type {}", kind.name()));
        kind
    }

    /// Whom the frame was for, by its destination.
    pub(in crate::firewall) fn likely_pkttype(&self) -> PktType {
        match self.packet.dst {
            addr if addr.is_multicast() => PktType::Multicast,
            IpAddr::V4(addr) if addr.is_broadcast() => PktType::Broadcast,
            _ => PktType::Unicast,
        }
    }

    /// The octets as they are now, where they were given.
    pub(super) fn wire_now(&self) -> Option<Vec<u8>> {
        let (octets, _) = self.wire.as_ref()?;
        let now = Packet { ttl: Some(self.ttl), tos: Some(self.tos), ..self.packet.clone() };
        Some(patched(&now, octets))
    }

    /// The packet as it leaves.
    pub(super) fn leaving(self, given: &Packet, tracked: bool) -> Packet {
        let octets = self.wire_now();
        let mut out = self.packet;
        if let Some(octets) = octets {
            out.octets = Some(hex(&octets));
        }
        out.proto = given.proto.or(out.proto);
        if self.mark_open.is_some() {
            out.mark = None;
        } else if self.mark != given.mark.unwrap_or(0) {
            out.mark = Some(self.mark);
        }
        if self.connmark != given.connmark.unwrap_or(0) {
            out.connmark = Some(self.connmark);
        }
        if self.ttl != given.ttl.unwrap_or(64) {
            out.ttl = Some(self.ttl);
        }
        if self.tos != given.tos.unwrap_or(0) {
            out.tos = Some(self.tos);
        }
        if tracked || given.ctstate.is_some() || self.state.intersects(CtStates::UNTRACKED) {
            out.ctstate = Some(self.state);
        }
        out.hook = given.hook;
        out.to = given.to;
        out
    }
}

/// The packet with the fields that were not given as its octets have them.
fn filled(packet: &Packet, octets: &[u8]) -> Packet {
    let Some(own) = Packet::from_octets(octets) else { return packet.clone() };
    Packet {
        proto: packet.proto.or(own.proto),
        sport: packet.sport.or(own.sport),
        dport: packet.dport.or(own.dport),
        tcp_flags: packet.tcp_flags.or(own.tcp_flags),
        tcp_options: packet.tcp_options.clone().or(own.tcp_options),
        mss: packet.mss.or(own.mss),
        icmp_type: packet.icmp_type.or(own.icmp_type),
        icmp_code: packet.icmp_code.or(own.icmp_code),
        ttl: packet.ttl.or(own.ttl),
        tos: packet.tos.or(own.tos),
        length: packet.length.or(own.length),
        frag_offset: packet.frag_offset.or(own.frag_offset),
        more_fragments: packet.more_fragments.or(own.more_fragments),
        payload: packet.payload.clone().or(own.payload),
        ..packet.clone()
    }
}
