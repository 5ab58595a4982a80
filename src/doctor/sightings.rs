//! What a capture saw, in the words the judge reasons in.

use std::net::IpAddr;

use crate::probe::{CapturedFrame, FrameKind};
use crate::wire::{ArpOperation, Decoded, MacAddr, Network, TcpFlags, Transport};

/// One frame of the flow, or one about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Its number in the capture, from 1.
    pub(crate) frame: usize,
    /// When this host's kernel saw it, nanoseconds.
    pub(crate) at_ns: u64,
    /// Whether this host sent it.
    pub(crate) outgoing: bool,
    /// Whether it was for this host: sent by it, or to its hardware address, or to all. A frame for another
    /// station, flooded past, did not arrive.
    pub(crate) ours: bool,
    /// The interface it was seen on.
    pub(crate) interface: String,
    /// Ethernet source, where there is an Ethernet header.
    pub(crate) src_mac: Option<MacAddr>,
    /// Ethernet destination.
    pub(crate) dst_mac: Option<MacAddr>,
    /// What it is.
    pub(crate) what: Seen,
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A TCP segment.
    Tcp {
        /// Sender.
        src: (IpAddr, u16),
        /// Receiver.
        dst: (IpAddr, u16),
        /// Its flags.
        flags: TcpFlags,
        /// Octets of payload.
        length: usize,
        /// Sequence number of the first of them.
        seq: u32,
        /// What it acknowledges.
        ack: u32,
        /// The window as it stands in the segment, unscaled.
        window: u16,
        /// TTL or hop limit, as seen here.
        ttl: u8,
    },
    /// A UDP datagram.
    Udp {
        /// Sender.
        src: (IpAddr, u16),
        /// Receiver.
        dst: (IpAddr, u16),
    },
    /// An ICMP or ICMPv6 message.
    Icmp {
        /// Sender.
        src: IpAddr,
        /// Receiver.
        dst: IpAddr,
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Whether it is an error about another packet.
        error: bool,
        /// In words.
        words: String,
    },
    /// An ARP request or reply, or its NDP twin.
    Neighbour {
        /// `true` for a request (solicitation).
        request: bool,
        /// Who speaks.
        sender: IpAddr,
        /// Whose address it is about.
        target: IpAddr,
        /// The hardware address it names.
        mac: Option<MacAddr>,
    },
}

impl Seen {
    /// The answer to a first SYN (RFC 9293 §3.5).
    pub(crate) fn is_syn_ack(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags.contains(TcpFlags::SYN | TcpFlags::ACK))
    }

    /// A reset.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags.contains(TcpFlags::RST))
    }

    /// Reads one decoded packet; `None` for what says nothing about a flow.
    /// `cut`: octets of it that the capture left out.
    fn of(packet: &Decoded<'_>, cut: usize) -> Option<Self> {
        if let Some(Network::Arp(arp)) = &packet.network {
            let request = arp.operation == ArpOperation::Request;
            let (sender, target) = (arp.sender_ip.into(), arp.target_ip.into());
            return Some(Self::Neighbour { request, sender, target, mac: Some(arp.sender_mac) });
        }
        let (src, dst) = (packet.src()?, packet.dst()?);
        Some(match packet.transport.as_ref()? {
            Transport::Tcp(tcp) => Self::Tcp {
                src: (src, tcp.sport),
                dst: (dst, tcp.dport),
                flags: tcp.flags,
                length: packet.payload.len() + cut,
                seq: tcp.seq,
                ack: tcp.ack,
                window: tcp.window,
                ttl: packet.ttl()?,
            },
            Transport::Udp(udp) => Self::Udp { src: (src, udp.sport), dst: (dst, udp.dport) },
            Transport::Icmp(icmp) => match packet.neighbour() {
                Some(neighbour) => Self::Neighbour {
                    request: !neighbour.advertisement,
                    // An advertisement speaks for its target (RFC 4861 §4.4).
                    sender: if neighbour.advertisement { neighbour.target.into() } else { src },
                    target: neighbour.target.into(),
                    mac: neighbour.link_address,
                },
                None => Self::Icmp {
                    src,
                    dst,
                    kind: icmp.kind,
                    code: icmp.code,
                    error: icmp.is_error(),
                    words: icmp.describe(),
                },
            },
            Transport::Opaque(_) => return None,
        })
    }
}

/// Reads a capture; frames that cannot be read, or say nothing about a flow, are left out.
pub(crate) fn read(frames: &[CapturedFrame]) -> Vec<Sighting> {
    let mut sightings = Vec::new();
    for (number, frame) in (1..).zip(frames) {
        let packet = frame.decode();
        let cut = usize::try_from(frame.orig_len).unwrap_or(0).saturating_sub(frame.bytes.0.len());
        if let Some(what) = Seen::of(&packet, cut) {
            let ether = packet.ether.as_ref();
            sightings.push(Sighting {
                frame: number,
                at_ns: frame.at_ns,
                outgoing: frame.outgoing,
                ours: frame.pkttype != FrameKind::Otherhost,
                interface: frame.interface.clone(),
                src_mac: ether.map(|ether| ether.src),
                dst_mac: ether.map(|ether| ether.dst),
                what,
            });
        }
    }
    sightings
}
