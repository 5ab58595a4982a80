//! What a capture saw, in the words the judge reasons in.

use std::net::IpAddr;

use crate::wire::{CapturedFrame, MacAddr, TcpFlags};

/// One frame of the flow, or one about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its number in the capture, from 1.
    pub frame: usize,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// The interface it was seen on.
    pub interface: String,
    /// Ethernet source, where there is an Ethernet header.
    pub src_mac: Option<MacAddr>,
    /// Ethernet destination.
    pub dst_mac: Option<MacAddr>,
    /// What it is.
    pub what: Seen,
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
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
    /// A first SYN (RFC 9293 §3.5), not the answer to one.
    pub fn is_syn(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags.syn() && !flags.ack())
    }

    /// A SYN-ACK.
    pub fn is_syn_ack(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags.syn() && flags.ack())
    }

    /// A reset.
    pub fn is_reset(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags.rst())
    }
}

/// Reads a capture; frames that are nothing of ours are left out.
pub fn read(frames: &[CapturedFrame]) -> Vec<Sighting> {
    let _ = frames;
    Vec::new()
}
