//! Whether a transport header is there to be looked at. The two backends differ where it is cut
//! short or belongs to a later fragment.
//!
//! x_tables modules drop a packet whose header is cut short at once (`hotdrop`: no counter moves) and
//! never match a later fragment (`net/netfilter/xt_tcpudp.c`, `xt_multiport.c`, `xt_sctp.c`).
//! iptables-nft writes `-m tcp` and `-m udp` as native expressions, which compare whatever stands at
//! that place (`net/netfilter/nft_payload.c`); its other modules are x_tables' own.

use crate::firewall::ruleset::{Bits, PortRange, Side, TcpFlags, Transport};
use crate::host::Backend;

use super::flow::Run;
use super::live::{Live, Truth};
use super::stack::ChainAt;

impl Transport {
    /// Octets of the header that the module insists on.
    fn octets(self) -> u32 {
        match self {
            Self::Tcp => 20,
            Self::Udp | Self::UdpLite | Self::Icmp | Self::Icmp6 => 8,
            Self::Sctp | Self::Dccp => 12,
        }
    }
}

impl Live {
    /// The kernel drops the packet here, whatever the rules say.
    pub(super) fn hot(&mut self) -> Truth {
        self.hotdrop = true;
        Truth::Absent
    }

    /// The same of a test that fails in its middle: negated it holds, where x_tables' own code runs.
    pub(super) fn hot_inside(&mut self) -> Truth {
        self.hot_but_matching = true;
        self.hot()
    }

    /// `width` octets at `at` after the IP header, as nf_tables loads them: `None` where the packet
    /// ends before. In a later fragment they are the payload's over IPv4; over IPv6 the IP header's own:
    /// `ipv6_find_hdr` leaves where the transport header is at 0 (`net/ipv6/exthdrs_core.c`).
    pub(super) fn transport(&mut self, at: u32, width: u8) -> Option<Bits> {
        if self.v6 && self.is_later_fragment() {
            let octets = self.octets();
            return Bits::read(&octets, at, usize::from(width));
        }
        if !self.has_octets(at + u32::from(width)) {
            return None;
        }
        let octets = self.octets();
        Bits::read(&octets, self.network_header() + at, usize::from(width))
    }
}

/// Whether bits compare as wanted, as far as they are known.
fn compare(bits: Option<Bits>, holds: impl Fn(u32) -> bool) -> Truth {
    match bits.map(Bits::value) {
        None => Truth::Absent,
        Some(Some(value)) => Truth::of(holds(value)),
        Some(None) => Truth::Maybe("the octets that stand where the header would be are not given".to_owned()),
    }
}

impl Run<'_> {
    /// Whether the module's test is a native expression of nf_tables here.
    fn native(&self, at: ChainAt, module: Transport) -> bool {
        matches!(module, Transport::Tcp | Transport::Udp)
            && self.stack.at(at).is_some_and(|(ruleset, _, _)| ruleset.backend == Backend::Nft)
    }

    /// `Some` where an x_tables module cannot look at its header.
    pub(super) fn header(&mut self, at: ChainAt, module: Transport) -> Option<Truth> {
        if self.native(at, module) {
            return (self.live.proto != module.number()).then_some(Truth::Absent);
        }
        self.module_header(module)
    }

    /// The same for a module that is x_tables' own, whatever the backend.
    pub(super) fn module_header(&mut self, module: Transport) -> Option<Truth> {
        let live = &mut self.live;
        if live.proto != module.number() {
            return Some(Truth::Absent);
        }
        if live.is_later_fragment() {
            // An offset of one would overwrite the flags: xt_tcpudp.c takes it for an attack.
            let attack = module == Transport::Tcp && !live.v6 && live.packet.frag_offset == Some(1);
            return Some(if attack { live.hot() } else { Truth::Absent });
        }
        if live.has_octets(module.octets()) { None } else { Some(live.hot()) }
    }

    /// `--sport`, `--dport` of a protocol's own module.
    pub(super) fn port(&mut self, at: ChainAt, module: Transport, side: Side, range: PortRange) -> Truth {
        if let Some(truth) = self.header(at, module) {
            return truth;
        }
        if self.native(at, module) {
            // Of the range of all ports iptables-nft makes no expression.
            if range.from == 0 && range.to == u16::MAX {
                return self.module_header(module).unwrap_or(Truth::Yes);
            }
            let place = if side == Side::Source { 0 } else { 2 };
            if self.live.is_later_fragment() {
                let bits = self.live.transport(place, 2);
                return compare(bits, |port| (u32::from(range.from)..=u32::from(range.to)).contains(&port));
            }
            if !self.live.has_octets(place + 2) {
                return Truth::Absent;
            }
        }
        self.ports(side, std::slice::from_ref(&range))
    }

    /// `--tcp-flags`
    pub(super) fn flags(&mut self, at: ChainAt, mask: TcpFlags, set: TcpFlags) -> Truth {
        if let Some(truth) = self.header(at, Transport::Tcp) {
            return truth;
        }
        if self.native(at, Transport::Tcp) {
            if self.live.is_later_fragment() {
                let bits = self.live.transport(13, 1);
                return compare(bits, |flags| flags & u32::from(mask.0) == u32::from(set.0));
            }
            if !self.live.has_octets(14) {
                return Truth::Absent;
            }
        }
        Truth::of(self.live.tcp_flags().0 & mask.0 == set.0)
    }

    /// `--tcp-option`, which both backends leave to x_tables.
    pub(super) fn tcp_option(&mut self, option: u8) -> Truth {
        let live = &mut self.live;
        if live.is_later_fragment() {
            return if !live.v6 && live.packet.frag_offset == Some(1) { live.hot() } else { Truth::Absent };
        }
        // The options are part of the header (xt_tcpudp.c, tcp_find_option).
        let header = live.tcp_header().and_then(|length| u32::try_from(length).ok()).unwrap_or(20);
        if !live.has_octets(header) {
            return live.hot();
        }
        match &live.packet.tcp_options {
            Some(options) => Truth::of(options.contains(&option)),
            // A header of 20 octets has none.
            None if live.after_network() == Some(20) => Truth::No,
            None => Truth::Maybe("the TCP options are not given".to_owned()),
        }
    }

    /// `-m multiport`, x_tables' own in both backends.
    pub(super) fn multiport(&mut self, side: Side, ranges: &[PortRange]) -> Truth {
        let live = &mut self.live;
        if live.is_later_fragment() || !matches!(live.proto, 6 | 17 | 33 | 132 | 136) {
            return Truth::Absent;
        }
        if !live.has_octets(4) {
            return live.hot();
        }
        self.ports(side, ranges)
    }

    /// `-m icmp`, `-m icmp6`, x_tables' own in both backends.
    pub(super) fn icmp(&mut self, at: ChainAt, v6: bool, kind: Option<u8>, codes: (u8, u8)) -> Truth {
        let module = if v6 { Transport::Icmp6 } else { Transport::Icmp };
        if let Some(truth) = self.header(at, module) {
            return truth;
        }
        let (own_kind, own_code) = self.live.icmp();
        Truth::of(kind.is_none_or(|kind| kind == own_kind && (codes.0..=codes.1).contains(&own_code)))
    }
}
