//! The frames that are sent, and what is read out of those that come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::wire::{
    Arp, ArpOperation, Decoded, Encapsulation, EtherHeader, IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, MacAddr,
    NeighbourMessage, Network, Quoted, Transport, ethertype, protocol, solicited_node, solicited_node_mac,
};

/// `VRRP` (RFC 9568), also CARP.
pub const VRRP: u8 = 112;
/// Neighbour discovery is believed only from the link itself (RFC 4861 §7.1).
const ON_LINK: u8 = 255;
/// The least an Ethernet frame carries, FCS not counted; shorter ones are padded by the card, and by us.
const LEAST: usize = 60;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    /// Hardware address of the interface.
    pub mac: MacAddr,
    /// Source address of the requests; `None` asks as nobody (RFC 5227 probe, RFC 4862 solicitation),
    /// which no cache learns from.
    pub ip: Option<IpAddr>,
}

/// To whom a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To all (ARP), to the target's solicited-node group (NDP).
    All,
    /// To one station.
    One(MacAddr),
}

fn ethernet(dst: MacAddr, src: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = EtherHeader { dst, src, vlans: Vec::new(), ethertype: kind }.emit();
    bytes.extend_from_slice(payload);
    if bytes.len() < LEAST {
        bytes.resize(LEAST, 0);
    }
    bytes
}

/// "Who has `target`?"
pub fn request(speaker: Speaker, target: IpAddr, reach: Reach) -> Vec<u8> {
    match target {
        IpAddr::V4(target_ip) => {
            let sender_ip = match speaker.ip {
                Some(IpAddr::V4(ip)) => ip,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let arp = Arp {
                operation: ArpOperation::Request,
                sender_mac: speaker.mac,
                sender_ip,
                target_mac: MacAddr::ZERO,
                target_ip,
            };
            let dst = if let Reach::One(mac) = reach { mac } else { MacAddr::BROADCAST };
            ethernet(dst, speaker.mac, ethertype::ARP, &arp.emit())
        }
        IpAddr::V6(target) => {
            let src = match speaker.ip {
                Some(IpAddr::V6(ip)) => ip,
                _ => Ipv6Addr::UNSPECIFIED,
            };
            // RFC 4861 §4.3: no source address, no source link-layer option.
            let message = NeighbourMessage {
                advertisement: false,
                router: false,
                solicited: false,
                overrides: false,
                target,
                link_address: (!src.is_unspecified()).then_some(speaker.mac),
            };
            let (dst_mac, dst) = match reach {
                Reach::All => (solicited_node_mac(target), solicited_node(target)),
                Reach::One(mac) => (mac, target),
            };
            let mut ip = Ipv6Header::new(src, dst, protocol::ICMPV6);
            ip.hop_limit = ON_LINK;
            ethernet(dst_mac, speaker.mac, ethertype::IPV6, &ip.packet(&message.emit(src, dst)))
        }
    }
}

/// An echo request with the least TTL, handed to `via`: the owner of `target` answers it, a router that only
/// answers ARP for `target` must report it expired. `None` without a source address of the target's family.
pub fn echo(speaker: Speaker, target: IpAddr, via: MacAddr, id: u16, sequence: u16) -> Option<Vec<u8>> {
    let body = *b"reachwhy: does this address end here?";
    match (speaker.ip?, target) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let message = IcmpHeader::new_echo(IcmpFamily::V4, true, id, sequence).message(src.into(), target, &body);
            let mut ip = Ipv4Header::new(src, dst, protocol::ICMP);
            ip.ttl = 1;
            Some(ethernet(via, speaker.mac, ethertype::IPV4, &ip.packet(&message)))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let message = IcmpHeader::new_echo(IcmpFamily::V6, true, id, sequence).message(src.into(), target, &body);
            let mut ip = Ipv6Header::new(src, dst, protocol::ICMPV6);
            ip.hop_limit = 1;
            Some(ethernet(via, speaker.mac, ethertype::IPV6, &ip.packet(&message)))
        }
        _ => None,
    }
}

/// An echo request to all nodes of the link (`ff02::1`), which hosts may leave unanswered.
pub fn echo_all_nodes(speaker: Speaker, id: u16, sequence: u16) -> Option<Vec<u8>> {
    let Some(IpAddr::V6(src)) = speaker.ip else { return None };
    let dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = IcmpHeader::new_echo(IcmpFamily::V6, true, id, sequence).message(src.into(), dst.into(), b"reachwhy");
    let mut ip = Ipv6Header::new(src, dst, protocol::ICMPV6);
    ip.hop_limit = 1;
    Some(ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 1]), speaker.mac, ethertype::IPV6, &ip.packet(&message)))
}

/// A packet to all nodes with a destination option that nobody knows and everybody must refuse (RFC 8200
/// §4.2, type 10xxxxxx): hosts that keep silent to an echo to the group report it.
pub fn odd_option_all_nodes(speaker: Speaker, id: u16) -> Option<Vec<u8>> {
    let Some(IpAddr::V6(src)) = speaker.ip else { return None };
    let dst = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = IcmpHeader::new_echo(IcmpFamily::V6, true, id, 0).message(src.into(), dst.into(), b"");
    let mut payload = vec![protocol::ICMPV6, 0, 0x80, 4, 0, 0, 0, 0];
    payload.extend(message);
    let mut ip = Ipv6Header::new(src, dst, 60);
    ip.hop_limit = 1;
    Some(ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 1]), speaker.mac, ethertype::IPV6, &ip.packet(&payload)))
}

/// A VRRP advertisement (RFC 9568 §5, RFC 3768 §5): who says that it is the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// The frame's source.
    pub mac: MacAddr,
    /// The packet's source: the router's own address.
    pub from: IpAddr,
    /// Virtual router identifier.
    pub router: u8,
    /// 255: the owner of the address; 0: it steps down.
    pub priority: u8,
    /// The virtual addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An ARP packet.
    Arp(EtherHeader, Arp),
    /// A neighbour solicitation or advertisement with the hop limit of the link.
    Nd {
        /// The frame's header.
        ether: EtherHeader,
        /// The packet's source; unspecified in a probe.
        src: Ipv6Addr,
        /// Solicitation or advertisement.
        message: NeighbourMessage,
    },
    /// An echo reply.
    Echo {
        /// The frame's source: by which interface it was sent.
        mac: MacAddr,
        /// The packet's source.
        from: IpAddr,
        /// TTL or hop limit on arrival.
        ttl: u8,
        /// Identifier and sequence number.
        id: (u16, u16),
    },
    /// An ICMP error about an echo request.
    Error {
        /// The frame's source.
        mac: MacAddr,
        /// Who reports it.
        from: IpAddr,
        /// The message, in words.
        what: String,
        /// TTL or hop limit exceeded: it was to be forwarded.
        expired: bool,
        /// Identifier and sequence number of the quoted request; `None` where the quote does not reach so far.
        id: Option<(u16, u16)>,
        /// Where the quoted request was going.
        target: IpAddr,
    },
    /// A VRRP advertisement.
    Vrrp(Advert),
}

/// Reads a frame; `None` where it is none of these, or damaged.
pub fn read(bytes: &[u8]) -> Option<Heard> {
    let decoded = Decoded::parse(Encapsulation::Ethernet, bytes);
    let ether = decoded.ether?;
    match (decoded.network?, decoded.transport) {
        (Network::Arp(arp), _) => Some(Heard::Arp(ether, arp)),
        (Network::Ipv4(ip), Some(Transport::Opaque(VRRP))) if ip.ttl == ON_LINK && !ip.is_fragment() => {
            advert(ether.src, ip.src.into(), decoded.payload)
        }
        (Network::Ipv6(ip, _), Some(Transport::Opaque(VRRP))) if ip.hop_limit == ON_LINK => {
            advert(ether.src, ip.src.into(), decoded.payload)
        }
        (Network::Ipv4(ip), Some(Transport::Icmp(icmp))) => {
            reply(ether.src, ip.src.into(), ip.ttl, &icmp, decoded.payload)
        }
        (Network::Ipv6(ip, upper), Some(Transport::Icmp(icmp))) => {
            if matches!(icmp.kind, 135 | 136) {
                // The message begins at the ICMPv6 header; what is behind the packet is padding.
                let start = bytes.len().checked_sub(decoded.payload.len())?.checked_sub(IcmpHeader::LEN)?;
                let end = bytes.len().min(start + usize::from(ip.payload_len).saturating_sub(upper.offset - 40));
                let message = NeighbourMessage::parse(bytes.get(start..end)?).ok()?;
                return (ip.hop_limit == ON_LINK).then_some(Heard::Nd { ether, src: ip.src, message });
            }
            reply(ether.src, ip.src.into(), ip.hop_limit, &icmp, decoded.payload)
        }
        _ => None,
    }
}

fn reply(mac: MacAddr, from: IpAddr, ttl: u8, icmp: &IcmpHeader, payload: &[u8]) -> Option<Heard> {
    if icmp.kind == icmp.family.echo_reply() {
        return Some(Heard::Echo { mac, from, ttl, id: icmp.echo()? });
    }
    if !icmp.is_error() {
        return None;
    }
    let quoted = Quoted::parse(icmp.family, payload)?;
    let expired = icmp.kind == if icmp.family == IcmpFamily::V4 { 11 } else { 3 };
    Some(Heard::Error { mac, from, what: icmp.describe(), expired, id: quoted.echo, target: quoted.dst })
}

fn advert(mac: MacAddr, from: IpAddr, bytes: &[u8]) -> Option<Heard> {
    let [version_type, router, priority, count, _, _, _, _, rest @ ..] = bytes else { return None };
    if !matches!(version_type, 0x21 | 0x31) {
        return None;
    }
    let addresses = if from.is_ipv4() {
        rest.chunks_exact(4).take((*count).into()).map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]).into()).collect()
    } else {
        let v6 = |chunk: &[u8]| <[u8; 16]>::try_from(chunk).ok().map(|octets| Ipv6Addr::from(octets).into());
        rest.chunks_exact(16).take((*count).into()).filter_map(v6).collect()
    };
    Some(Heard::Vrrp(Advert { mac, from, router: *router, priority: *priority, addresses }))
}

/// An answer to a request of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The address that was asked for.
    pub ip: IpAddr,
    /// Who says to have it.
    pub mac: MacAddr,
    /// Who sent the frame: another only when something answers for another, or lies.
    pub ether_src: MacAddr,
    /// It was spoken to us; else to all.
    pub to_us: bool,
}

impl Heard {
    /// Reads it as an answer to `speaker`. A reply to someone else's request is none.
    pub fn answer(&self, speaker: Speaker) -> Option<Answer> {
        match self {
            Self::Arp(ether, arp) => {
                let to_us = ether.dst == speaker.mac;
                let fits = match speaker.ip {
                    Some(IpAddr::V4(ip)) => arp.target_ip == ip,
                    // To a probe some answer with 0.0.0.0, some with their own address.
                    _ => true,
                };
                let usable = !arp.sender_mac.is_multicast() || matches!(arp.sender_mac.0[..2], [0x03, 0xbf]);
                let sane = usable && arp.sender_mac != MacAddr::ZERO && !arp.sender_ip.is_unspecified();
                (arp.operation == ArpOperation::Reply && to_us && fits && sane).then_some(Answer {
                    ip: arp.sender_ip.into(),
                    mac: arp.sender_mac,
                    ether_src: ether.src,
                    to_us,
                })
            }
            Self::Nd { ether, message, .. } => {
                let to_us = ether.dst == speaker.mac;
                // To a solicitation without a source address the answer goes to all nodes (RFC 4861 §7.2.4).
                let fits = to_us || (speaker.ip.is_none() && ether.dst.is_multicast());
                (message.advertisement && fits).then_some(Answer {
                    ip: message.target.into(),
                    mac: message.link_address.unwrap_or(ether.src),
                    ether_src: ether.src,
                    to_us,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEM: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn speaker(ip: &str) -> Speaker {
        Speaker { mac: US, ip: Some(ip.parse().unwrap()) }
    }

    #[test]
    fn a_request_is_the_28_octets_of_rfc_826_and_padding() {
        let bytes = request(speaker("192.168.1.2"), "192.168.1.3".parse().unwrap(), Reach::All);
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(bytes[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(bytes[22..42], [2, 0, 0, 0, 0, 1, 192, 168, 1, 2, 0, 0, 0, 0, 0, 0, 192, 168, 1, 3]);
        let probe = request(Speaker { mac: US, ip: None }, "192.168.1.3".parse().unwrap(), Reach::One(THEM));
        assert_eq!((&probe[..6], &probe[28..32]), (&THEM.0[..], &[0, 0, 0, 0][..]));
    }

    #[test]
    fn a_solicitation_goes_to_the_group_and_reads_back() {
        let target: Ipv6Addr = "fd00::12:3456".parse().unwrap();
        let bytes = request(speaker("fd00::1"), target.into(), Reach::All);
        assert_eq!(bytes[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let Some(Heard::Nd { message, .. }) = read(&bytes) else { panic!("not read") };
        assert_eq!((message.target, message.link_address, message.advertisement), (target, Some(US), false));
        let probe = request(Speaker { mac: US, ip: None }, target.into(), Reach::All);
        let Some(Heard::Nd { message, src, .. }) = read(&probe) else { panic!("not read") };
        assert!(src.is_unspecified() && message.link_address.is_none());
    }

    fn arp_reply(to: MacAddr, target_ip: &str) -> Vec<u8> {
        let arp = Arp {
            operation: ArpOperation::Reply,
            sender_mac: THEM,
            sender_ip: "10.0.0.2".parse().unwrap(),
            target_mac: to,
            target_ip: target_ip.parse().unwrap(),
        };
        ethernet(to, THEM, ethertype::ARP, &arp.emit())
    }

    #[test]
    fn only_answers_to_us_are_answers() {
        let us = speaker("10.0.0.1");
        let answer = |bytes: &[u8]| read(bytes).unwrap().answer(us);
        assert_eq!(answer(&arp_reply(US, "10.0.0.1")).unwrap().mac, THEM);
        assert_eq!(answer(&arp_reply(MacAddr([2, 0, 0, 0, 0, 9]), "10.0.0.1")), None);
        assert_eq!(answer(&arp_reply(US, "10.0.0.9")), None);
        assert_eq!(answer(&arp_reply(MacAddr::BROADCAST, "10.0.0.2")), None);
        assert_eq!(answer(&request(us, "10.0.0.2".parse().unwrap(), Reach::All)), None);
    }

    #[test]
    fn an_expired_echo_names_the_request() {
        let target = "10.9.9.9".parse().unwrap();
        let sent = echo(speaker("10.0.0.1"), target, THEM, 7, 3).unwrap();
        let packet = &sent[14..];
        let error = IcmpHeader { family: IcmpFamily::V4, kind: 11, code: 0, checksum: 0, rest: [0; 4] };
        let (router, us) = ("10.0.0.254".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let message = error.message(IpAddr::V4(router), IpAddr::V4(us), packet);
        let bytes = ethernet(US, THEM, ethertype::IPV4, &Ipv4Header::new(router, us, 1).packet(&message));
        let Some(Heard::Error { from, expired, id, target: quoted, .. }) = read(&bytes) else { panic!("not read") };
        assert_eq!((from, expired, id, quoted), (router.into(), true, Some((7, 3)), target));
    }

    #[test]
    fn vrrp_names_the_virtual_addresses() {
        let mut ip = Ipv4Header::new("10.0.0.2".parse().unwrap(), "224.0.0.18".parse().unwrap(), VRRP);
        ip.ttl = 255;
        let payload = [0x21, 51, 100, 1, 0, 1, 0, 0, 10, 0, 0, 100, 9, 9, 9, 9, 0, 0, 0, 0];
        let dst = MacAddr([1, 0, 0x5e, 0, 0, 0x12]);
        let bytes = ethernet(dst, THEM, ethertype::IPV4, &ip.packet(&payload));
        let Some(Heard::Vrrp(advert)) = read(&bytes) else { panic!("not read") };
        assert_eq!((advert.router, advert.priority), (51, 100));
        assert_eq!(advert.addresses, ["10.0.0.100".parse::<IpAddr>().unwrap()]);
        ip.ttl = 254;
        assert_eq!(read(&ethernet(dst, THEM, ethertype::IPV4, &ip.packet(&payload))), None);
    }

    proptest! {
        #[test]
        fn no_frame_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..3, at in 0usize..120, with: u8) {
            let _ = read(&bytes);
            // Damaged ones of the right kind reach further.
            let mut frame = match kind {
                0 => arp_reply(US, "10.0.0.1"),
                1 => request(speaker("fd00::1"), "fd00::2".parse().unwrap(), Reach::All),
                _ => odd_option_all_nodes(speaker("fd00::1"), 1).unwrap(),
            };
            let at = at % frame.len();
            frame[at] = with;
            frame.extend(&bytes);
            if let Some(heard) = read(&frame) {
                let _ = heard.answer(speaker("10.0.0.1"));
            }
            frame.truncate(at);
            let _ = read(&frame);
        }
    }
}
