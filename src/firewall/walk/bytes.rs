//! The octets of a packet, as far as its fields give them, and how much of its headers is there.

use crate::firewall::packet::unhex;
use crate::firewall::ruleset::Octet;

use super::live::Live;

/// The octets from the IP header's first on.
pub(super) type Octets = Vec<Octet>;

/// No packet is larger; a jumbogram's octets beyond are not looked at.
const MAX: usize = 65_535;

impl Live {
    /// Octets of the IP header and, in a fragment over IPv6, the fragment header.
    pub(super) fn network_header(&self) -> u32 {
        if let Some((_, layout)) = &self.wire {
            return u32::try_from(layout.transport).unwrap_or(u32::MAX);
        }
        match (self.v6, self.is_fragment()) {
            (false, _) => 20,
            (true, false) => 40,
            (true, true) => 48,
        }
    }

    /// Whether it is one of several fragments.
    pub(super) fn is_fragment(&self) -> bool {
        self.is_later_fragment() || self.packet.more_fragments == Some(true)
    }

    /// Octets after the IP header, where the packet's length was given: a length too small for the
    /// transport header says that it is cut short.
    pub(super) fn after_network(&self) -> Option<u32> {
        self.packet.length.map(|length| length.saturating_sub(self.network_header()))
    }

    /// Whether `octets` of the transport header are there. What is not given is whole.
    pub(in crate::firewall) fn has_octets(&self, octets: u32) -> bool {
        self.after_network().is_none_or(|n| n >= octets)
    }

    /// The payload's octets, where they are given.
    pub(super) fn payload(&self) -> Option<Vec<u8>> {
        unhex(self.packet.payload.as_ref()?)
    }

    /// The length of the TCP header, where it follows from what is given.
    pub(super) fn tcp_header(&self) -> Option<usize> {
        if let Some((octets, layout)) = &self.wire {
            return octets.get(layout.transport + 12).map(|octet| usize::from(octet >> 4) * 4);
        }
        if let Some(options) = &self.packet.tcp_options {
            let size = |kind: &u8| match kind {
                0 | 1 => Some(1),
                2 => Some(4),
                3 => Some(3),
                4 => Some(2),
                8 => Some(10),
                _ => None,
            };
            let sizes: Option<Vec<usize>> = options.iter().map(size).collect();
            return sizes.map(|sizes| (20 + sizes.iter().sum::<usize>().next_multiple_of(4)).min(60));
        }
        let rest = usize::try_from(self.after_network()?).ok()?;
        let payload = self.payload()?.len();
        rest.checked_sub(payload).filter(|len| (20..=60).contains(len) && len % 4 == 0)
    }

    /// The octets of the packet.
    pub(super) fn octets(&mut self) -> Octets {
        self.octets_and_headers().0
    }

    /// The octets of the packet, and how many of them are headers'.
    pub(super) fn octets_and_headers(&mut self) -> (Octets, usize) {
        if let Some(octets) = self.wire_now() {
            let headers = self.headers(&octets);
            let mut octets: Octets = octets.into_iter().map(Octet::known).collect();
            if self.quote_open {
                // The checksum, and all that is quoted.
                let from = usize::try_from(self.network_header()).unwrap_or(0) + 2;
                octets.iter_mut().skip(from).for_each(|octet| *octet = Octet::OPEN);
            }
            return (octets, headers);
        }
        let total = usize::try_from(self.length()).unwrap_or(MAX).min(MAX);
        let mut out: Octets = Vec::with_capacity(total.min(2048));
        self.network_octets(&mut out, total);
        if !self.is_later_fragment() && !self.transport_octets(&mut out, total) {
            out.resize(total, Octet::OPEN);
            return (out, 40);
        }
        let headers = out.len();
        self.tail(&mut out, total);
        (out, headers)
    }

    /// How many octets are headers'.
    fn headers(&self, octets: &[u8]) -> usize {
        let network = usize::try_from(self.network_header()).unwrap_or(octets.len());
        let upper = match self.proto {
            _ if self.is_later_fragment() => 0,
            6 => self.tcp_header().unwrap_or(20),
            17 | 136 | 1 | 58 => 8,
            132 | 33 => 12,
            _ => 0,
        };
        octets.len().min(network + upper)
    }

    /// The transport header; false where its length is not known.
    fn transport_octets(&mut self, out: &mut Octets, total: usize) -> bool {
        match self.proto {
            6 => {
                self.port_octets(out);
                out.extend([Octet::OPEN; 8]);
                let header = self.tcp_header();
                let flags = self.tcp_flags().0;
                out.push(header.and_then(|len| u8::try_from(len / 4 * 16).ok()).map_or(Octet::OPEN, Octet::known));
                out.push(Octet::known(flags));
                out.extend([Octet::OPEN; 6]);
                let Some(len) = header else { return false };
                out.extend(vec![Octet::OPEN; len - 20]);
            }
            17 | 136 => {
                self.port_octets(out);
                let length = u16::try_from(total.saturating_sub(out.len() - 4)).unwrap_or(0);
                out.extend(length.to_be_bytes().map(Octet::known));
                out.extend([Octet::OPEN; 2]);
            }
            132 | 33 => {
                self.port_octets(out);
                out.extend([Octet::OPEN; 8]);
            }
            1 | 58 if self.proto == 58 || !self.v6 => {
                let (kind, code) = self.icmp();
                out.extend([kind, code].map(Octet::known));
                out.extend([Octet::OPEN; 6]);
            }
            _ => (),
        }
        true
    }

    fn network_octets(&mut self, out: &mut Octets, total: usize) {
        let proto = self.proto;
        let more = self.packet.more_fragments == Some(true);
        let offset = self.packet.frag_offset.unwrap_or(0);
        let (src, dst) = (self.packet.src, self.packet.dst);
        let addr = |ip: std::net::IpAddr| match ip {
            std::net::IpAddr::V4(a) => a.octets().to_vec(),
            std::net::IpAddr::V6(a) => a.octets().to_vec(),
        };
        let (src, dst) = (addr(src), addr(dst));
        if self.v6 {
            let fragment = self.is_fragment();
            // The flow label's upper four bits share an octet with the traffic class.
            out.push(Octet::known(0x60 | self.tos >> 4));
            out.extend([Octet { set: self.tos << 4, open: 0x0f }, Octet::OPEN, Octet::OPEN]);
            let length = u16::try_from(total.saturating_sub(40)).unwrap_or(0);
            out.extend(length.to_be_bytes().map(Octet::known));
            out.extend([if fragment { 44 } else { proto }, self.ttl].map(Octet::known));
            out.extend(src.into_iter().chain(dst).map(Octet::known));
            if fragment {
                out.extend([proto, 0].map(Octet::known));
                out.extend((offset << 3 | u16::from(more)).to_be_bytes().map(Octet::known));
                out.extend([Octet::OPEN; 4]);
            }
            return;
        }
        out.extend([0x45, self.tos].map(Octet::known));
        out.extend(u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes().map(Octet::known));
        out.extend([Octet::OPEN; 2]);
        let [high, low] = ((offset & 0x1fff) | if more { 0x2000 } else { 0 }).to_be_bytes();
        // Whether the DF bit is set is not given.
        out.extend([Octet { set: high, open: 0x40 }, Octet::known(low)]);
        out.extend([self.ttl, proto].map(Octet::known));
        out.extend([Octet::OPEN; 2]);
        out.extend(src.into_iter().chain(dst).map(Octet::known));
    }

    fn port_octets(&mut self, out: &mut Octets) {
        out.extend(self.sport().to_be_bytes().map(Octet::known));
        match self.packet.dport {
            Some(port) => out.extend(port.to_be_bytes().map(Octet::known)),
            None => out.extend([Octet::OPEN; 2]),
        }
    }

    /// The payload, and the packet cut or filled up to its length.
    fn tail(&self, out: &mut Octets, total: usize) {
        if let Some(payload) = self.payload() {
            out.extend(payload.into_iter().map(Octet::known));
        }
        out.resize(total, Octet::OPEN);
    }
}
