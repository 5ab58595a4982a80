//! From a try to the bytes that leave, and the marks by which its answer will be known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Engine, Token, Transmit};
use crate::probe::{PathMark, PathMethod, PathProbe, ProbeKind};
use crate::wire::{
    Arp, ArpOperation, EtherHeader, HexBytes, IcmpFamily, IcmpHeader, Ipv6Header, MacAddr, NeighbourMessage, TcpFlags,
    TcpHeader, TcpOptions, ethertype, protocol, solicited_node, solicited_node_mac,
};

/// Where a try leaves from, as the driver found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// Address and port; unspecified and 0 where the kernel fills them in itself.
    Address(SocketAddr),
    /// As [`Self::Address`], for a socket that takes whole IP packets.
    Whole(SocketAddr),
    /// An interface: its hardware address, and its own protocol address where it has a fitting one.
    Link(MacAddr, Option<IpAddr>),
}

/// What is to be handed to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// An ICMP message or TCP segment for a raw (or ICMP datagram) socket.
    Ip {
        /// From the address asked for.
        src: Option<IpAddr>,
        /// To.
        dst: IpAddr,
        /// ICMP, ICMPv6 or TCP.
        protocol: u8,
        /// TTL or hop limit, where asked for.
        ttl: Option<u8>,
        /// From the upper header on.
        bytes: Vec<u8>,
    },
    /// A datagram for a UDP socket.
    Udp {
        /// To.
        dst: SocketAddr,
        /// TTL or hop limit, where asked for.
        ttl: Option<u8>,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A connection to open.
    Connect {
        /// To.
        dst: SocketAddr,
        /// From.
        src: Option<SocketAddr>,
    },
    /// A whole IP packet.
    Whole {
        /// To.
        dst: IpAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A whole Ethernet frame.
    Frame(Vec<u8>),
}

/// A sequence number for a try: unpredictable from outside, and different for any two tries of a run,
/// since multiplying by an odd number permutes the 32-bit integers.
pub(super) fn sequence_number(nonce: u64, token: u32) -> u32 {
    let low = u32::try_from(nonce & 0xffff_ffff).unwrap_or(0);
    let high = u32::try_from(nonce >> 32).unwrap_or(0);
    token.wrapping_mul(high | 1).wrapping_add(low)
}

/// What the payload of an echo carries: enough of the run's nonce and the try's number that no other process's reply fits.
pub(super) fn cookie(nonce: u64, token: u32) -> [u8; 8] {
    let mixed = nonce.rotate_left(17) ^ u64::from(token).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_be_bytes()
}

/// The token that [`cookie`] was made of.
pub(super) fn token_of(nonce: u64, cookie: &[u8]) -> Option<u32> {
    // The inverse of the multiplier modulo 2^64.
    const INVERSE: u64 = 0xf1de_83e1_9937_733d;
    let mixed = u64::from_be_bytes(cookie.try_into().ok()?);
    u32::try_from((mixed ^ nonce.rotate_left(17)).wrapping_mul(INVERSE)).ok()
}

impl Engine {
    /// The packet of a try. From here on an answer to it is recognised, so call it before sending.
    ///
    /// The address given must be that of the try's own source port where it has one; for TCP also the
    /// address the kernel will use, since the checksum covers it.
    pub fn prepare(&mut self, transmit: &Transmit, local: Local) -> Packet {
        let token = transmit.token.0;
        let kind = self.probes[transmit.probe].spec.kind.clone();
        match (kind, local) {
            (ProbeKind::Path(path), local) => self.prepare_path(token, &path, local),
            (ProbeKind::IcmpEcho { dst, src, ttl, payload_len }, _) => {
                let family = IcmpFamily::of(dst);
                let (id, sequence) = self.echo_identity(family, token);
                self.echoes.insert((family, id, sequence), token);
                let mut body = vec![0; usize::from(payload_len)];
                // The usual pattern of ping: each octet its own offset.
                body.iter_mut().zip((0..=255u8).cycle()).for_each(|(octet, value)| *octet = value);
                if let Some(head) = body.get_mut(..8) {
                    head.copy_from_slice(&cookie(self.config.nonce, token));
                }
                let header = IcmpHeader::new_echo(family, true, id, sequence);
                // ICMPv6's checksum covers addresses that the kernel chooses; it fills it in itself.
                let source = src.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
                let bytes = header.message(source, dst, &body);
                Packet::Ip { src, dst, protocol: family.protocol(), ttl, bytes }
            }
            (ProbeKind::TcpSyn { dst, dport, src, ttl, flags, .. }, Local::Address(local) | Local::Whole(local)) => {
                let craft = self.probes[transmit.probe].spec.craft.clone().unwrap_or_default();
                let attempt = &mut self.attempts[token as usize];
                attempt.local = Some(local);
                attempt.isn = craft.seq.unwrap_or(attempt.isn);
                let isn = attempt.isn;
                // An answer counts the data; a reset in answer to an ACK takes its number from there.
                self.segments.insert(isn, token);
                self.segments.insert(isn.wrapping_add(craft.data_len()), token);
                self.segments.extend(craft.ack.map(|ack| (ack, token)));
                self.tuples.insert((protocol::TCP, dst, dport, local.port()), token);
                let options = TcpOptions {
                    mss: flags.contains(TcpFlags::SYN).then_some(1460),
                    sack_permitted: flags.contains(TcpFlags::SYN),
                    window_scale: flags.contains(TcpFlags::SYN).then_some(7),
                    ..TcpOptions::default()
                };
                let header = TcpHeader {
                    seq: isn,
                    ack: craft.ack.unwrap_or(if flags.contains(TcpFlags::ACK) { isn } else { 0 }),
                    options: HexBytes(options.emit()),
                    ..TcpHeader::new(local.port(), dport, flags)
                };
                let bytes = header.segment(local.ip(), dst, &craft.data.0);
                Packet::Ip { src: src.or(Some(local.ip())), dst, protocol: protocol::TCP, ttl, bytes }
            }
            (ProbeKind::Udp { dst, dport, ttl, payload, .. }, Local::Address(local) | Local::Whole(local)) => {
                self.attempts[token as usize].local = Some(local);
                self.tuples.insert((protocol::UDP, dst, dport, local.port()), token);
                Packet::Udp { dst: SocketAddr::new(dst, dport), ttl, payload: payload.0 }
            }
            (ProbeKind::TcpConnect { dst, src }, _) => Packet::Connect { dst, src },
            (ProbeKind::Arp { target, source, .. }, local) => {
                let (mac, own) = match local {
                    Local::Link(mac, own) => (mac, own),
                    Local::Address(_) | Local::Whole(_) => (MacAddr::ZERO, None),
                };
                self.neighbours.entry(target.into()).or_default().push(token);
                let own = if let Some(IpAddr::V4(own)) = own { own } else { Ipv4Addr::UNSPECIFIED };
                let request = Arp {
                    operation: ArpOperation::Request,
                    sender_mac: mac,
                    sender_ip: source.unwrap_or(own),
                    target_mac: MacAddr::ZERO,
                    target_ip: target,
                };
                Packet::Frame(frame(MacAddr::BROADCAST, mac, ethertype::ARP, &request.emit()))
            }
            (ProbeKind::Ndp { target, source, .. }, local) => {
                let (mac, own) = match local {
                    Local::Link(mac, own) => (mac, own),
                    Local::Address(_) | Local::Whole(_) => (MacAddr::ZERO, None),
                };
                self.neighbours.entry(target.into()).or_default().push(token);
                let own = if let Some(IpAddr::V6(own)) = own { own } else { Ipv6Addr::UNSPECIFIED };
                let source = source.unwrap_or(own);
                let solicitation = NeighbourMessage {
                    advertisement: false,
                    router: false,
                    solicited: false,
                    overrides: false,
                    target,
                    // RFC 4861 §4.3: must not be there when the source is unspecified.
                    link_address: (!source.is_unspecified()).then_some(mac),
                };
                let group = solicited_node(target);
                // RFC 4861 §7.1.1: any other hop limit is discarded, so that no router can forge it.
                let header = Ipv6Header { hop_limit: 255, ..Ipv6Header::new(source, group, protocol::ICMPV6) };
                let packet = header.packet(&solicitation.emit(source, group));
                Packet::Frame(frame(solicited_node_mac(target), mac, ethertype::IPV6, &packet))
            }
            (ProbeKind::TcpSyn { dst, .. } | ProbeKind::Udp { dst, .. }, Local::Link(..)) => {
                // A driver's mistake: nothing sensible can be sent, and nothing is.
                Packet::Ip { src: None, dst, protocol: 0, ttl: None, bytes: Vec::new() }
            }
        }
    }

    fn prepare_path(&mut self, token: u32, path: &PathProbe, local: Local) -> Packet {
        let (Local::Address(address) | Local::Whole(address)) = local else {
            return Packet::Whole { dst: path.dst, bytes: Vec::new() };
        };
        let v6 = path.dst.is_ipv6();
        let mut ports = SocketAddr::new(path.src, address.port());
        if path.method == PathMethod::Icmp {
            let kernel = self.config.kernel_echo_id[usize::from(v6)];
            ports.set_port(kernel.unwrap_or(self.config.echo_id.wrapping_add(path.flow)));
        }
        let number = PathMark::number_of(token);
        let nonce = self.config.nonce;
        let attempt = &mut self.attempts[token as usize];
        attempt.local = Some(ports);
        let mark = PathMark { number, isn: attempt.isn, cookie: cookie(nonce, token), nonce };
        self.marks.insert((path.method.protocol(v6), number), token);
        match path.method {
            PathMethod::Icmp => {
                self.echoes.insert((IcmpFamily::of(path.dst), ports.port(), number), token);
            }
            PathMethod::Udp { dport } => {
                self.tuples.insert((protocol::UDP, path.dst, dport, ports.port()), token);
            }
            PathMethod::Tcp { dport } => {
                self.segments.insert(attempt.isn, token);
                // A closed port acknowledges the data too (RFC 9293 §3.10.7.1).
                self.segments.insert(attempt.isn.wrapping_add(path.segment_data()), token);
                self.tuples.insert((protocol::TCP, path.dst, dport, ports.port()), token);
            }
        }
        let bytes = path.packet(ports, &mark);
        attempt.packet = Some(HexBytes(bytes.clone()));
        let ttl = Some(path.ttl);
        if let Local::Whole(_) = local {
            return Packet::Whole { dst: path.dst, bytes };
        }
        match path.method {
            PathMethod::Icmp => {
                let family = IcmpFamily::of(path.dst);
                let bytes = path.upper(ports, &mark);
                Packet::Ip { src: Some(path.src), dst: path.dst, protocol: family.protocol(), ttl, bytes }
            }
            PathMethod::Udp { dport } => {
                let payload = path.upper(ports, &mark).split_off(8);
                Packet::Udp { dst: SocketAddr::new(path.dst, dport), ttl, payload }
            }
            PathMethod::Tcp { dport } => {
                Packet::Connect { dst: SocketAddr::new(path.dst, dport), src: Some(SocketAddr::new(path.src, 0)) }
            }
        }
    }

    /// Identifier and sequence number of an echo: together they name the try.
    pub(super) fn echo_identity(&self, family: IcmpFamily, token: u32) -> (u16, u16) {
        let halves = token.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([halves[0], halves[1]]), u16::from_be_bytes([halves[2], halves[3]]));
        match self.config.kernel_echo_id[usize::from(family == IcmpFamily::V6)] {
            Some(id) => (id, low.wrapping_add(1)),
            None => (self.config.echo_id.wrapping_add(high), low.wrapping_add(1)),
        }
    }

    /// Notes which address a connection was opened from.
    pub fn local_address(&mut self, token: Token, local: SocketAddr) {
        if let Some(attempt) = self.attempts.get_mut(token.0 as usize) {
            attempt.local = Some(local);
        }
    }
}

fn frame(dst: MacAddr, src: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = EtherHeader { dst, src, vlans: Vec::new(), ethertype }.emit();
    bytes.extend_from_slice(payload);
    // IEEE 802.3: 60 octets at least, without the check sequence.
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_cookie_names_its_token(nonce: u64, token: u32) {
            assert_eq!(token_of(nonce, &cookie(nonce, token)), Some(token));
        }
    }
}
