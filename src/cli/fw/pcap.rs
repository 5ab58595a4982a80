//! Captured frames as packets to ask about.

use std::time::Duration;

use crate::firewall::packet::Proto;
use crate::firewall::{Hook, Packet, ruleset};
use crate::host::HostFacts;
use crate::wire::pcap::{ETHERNET, RAW, Reader};
use crate::wire::{Decoded, Encapsulation, Network};

/// `LINKTYPE_LINUX_SLL`: 16 octets before the packet (`tcpdump -i any`).
const SLL: u32 = 113;
/// `LINKTYPE_LINUX_SLL2`: 20 octets before the packet.
const SLL2: u32 = 276;
/// `LINKTYPE_IPV4`, `LINKTYPE_IPV6`.
const IP: [u32; 2] = [228, 229];

/// The packets of a capture.
pub(super) struct Captured {
    /// The packets, each with its frame's number (from 1) as id, and when it was seen, measured from
    /// 1970-01-01 UTC.
    pub(super) packets: Vec<(Packet, Duration)>,
    /// What was left out or broken off.
    pub(super) warnings: Vec<String>,
}

/// Reads a pcap file. Frames that are no IP, or too short to be told apart, are left out.
///
/// # Errors
/// What is wrong with the file, where nothing of it can be read.
pub(super) fn read(bytes: &[u8], source: &str, host: Option<&HostFacts>) -> Result<Captured, String> {
    let reader = Reader::new(bytes).map_err(|error| format!("{source}: {error}"))?;
    let link = reader.link_type;
    if ![ETHERNET, RAW, SLL, SLL2].contains(&link) && !IP.contains(&link) {
        return Err(format!(
            "{source}: frames of link type {link} are not read (Ethernet, raw IP and Linux cooked are)"
        ));
    }
    let (mut packets, mut warnings) = (Vec::new(), Vec::new());
    let (mut others, mut short) = (0usize, 0usize);
    for (number, record) in (1u64..).zip(reader) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                // No partial result passed off as whole.
                return Err(format!("{source}: frame {number}: {error}"));
            }
        };
        let (encapsulation, octets, outgoing) = strip(link, record.bytes);
        let decoded = Decoded::parse(encapsulation, octets);
        if !matches!(decoded.network, Some(Network::Ipv4(_) | Network::Ipv6(..))) {
            others += 1;
            continue;
        }
        match packet(&decoded, outgoing, host) {
            Some(packet) => {
                let at = Duration::from_nanos(record.at_ns);
                packets.push((Packet { id: Some(number.into()), ..packet }, at));
            }
            None => short += 1,
        }
    }
    if others > 0 {
        warnings.push(format!("{source}: {others} frames are no IP packets and were left out"));
    }
    if short > 0 {
        warnings.push(format!("{source}: {short} frames are cut short within a header and were left out"));
    }
    Ok(Captured { packets, warnings })
}

/// The octets from where [`Decoded`] begins, and whether this host sent them, where that is written.
fn strip(link: u32, bytes: &[u8]) -> (Encapsulation, &[u8], Option<bool>) {
    // Packet type 4 is PACKET_OUTGOING.
    match link {
        ETHERNET => (Encapsulation::Ethernet, bytes, None),
        SLL => (Encapsulation::Ip, bytes.get(16..).unwrap_or_default(), bytes.get(1).map(|kind| *kind == 4)),
        SLL2 => (Encapsulation::Ip, bytes.get(20..).unwrap_or_default(), bytes.get(10).map(|kind| *kind == 4)),
        _ => (Encapsulation::Ip, bytes, None),
    }
}

fn packet(decoded: &Decoded<'_>, outgoing: Option<bool>, host: Option<&HostFacts>) -> Option<Packet> {
    if decoded.fault.is_some() {
        return None;
    }
    let mut packet = Packet::new(decoded.src()?, decoded.dst()?);
    packet.proto = decoded.protocol().map(Proto);
    packet.ttl = decoded.ttl();
    match decoded.network.as_ref()? {
        Network::Ipv4(ip) => {
            packet.tos = Some(ip.tos).filter(|tos| *tos != 0);
            packet.length = Some(u32::from(ip.total_len)).filter(|length| *length > 0);
            if ip.is_fragment() {
                packet.frag_offset = Some(ip.fragment_offset);
                packet.more_fragments = Some(ip.more_fragments);
            }
        }
        Network::Ipv6(ip, upper) => {
            packet.tos = Some(ip.traffic_class).filter(|tos| *tos != 0);
            packet.length = Some(40 + u32::from(ip.payload_len)).filter(|length| *length > 40);
            if upper.fragment_offset.is_some() {
                packet.frag_offset = upper.fragment_offset;
                packet.more_fragments = Some(upper.more_fragments);
            }
        }
        Network::Arp(_) => return None,
    }
    if let Some((sport, dport)) = decoded.ports() {
        packet.sport = Some(sport);
        packet.dport = Some(dport);
    }
    packet.tcp_flags = decoded.tcp().map(|tcp| ruleset::TcpFlags(tcp.flags.0));
    if let Some(icmp) = decoded.icmp() {
        packet.icmp_type = Some(icmp.kind);
        packet.icmp_code = Some(icmp.code);
    }
    if let Some(ether) = &decoded.ether {
        packet.mac_src = Some(ether.src);
    }
    if !decoded.payload.is_empty() {
        packet.payload = Some(hex(decoded.payload));
    }
    let own = host.and_then(|host| host.addresses.as_deref()).map(|own| own.iter().any(|a| a.address == packet.src));
    let sent = outgoing.or(own).unwrap_or(false);
    packet.hook = Some(if sent { Hook::Output } else { Hook::Prerouting });
    if sent {
        packet.mac_src = None;
    }
    Some(packet)
}

fn hex(octets: &[u8]) -> String {
    use std::fmt::Write as _;
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pcap::Writer;
    use crate::wire::{Ipv4Header, TcpFlags, TcpHeader};

    #[test]
    fn a_captured_syn_is_a_packet() {
        let (src, dst) = ("10.0.0.9".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let tcp = TcpHeader::new(40000, 22, TcpFlags::SYN).segment(src, dst, &[]);
        let (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) = (src, dst) else { panic!() };
        let ip = Ipv4Header::new(src, dst, 6).packet(&tcp);
        let mut file = Writer::new(RAW);
        file.push(0, 40, &ip);
        file.push(1, 12, &ip[..12]);
        let bytes = file.finish();
        let captured = read(&bytes, "c.pcap", None).unwrap();
        assert_eq!(captured.packets.len(), 1);
        assert!(captured.packets[0].0.to_string().contains("tcp 10.0.0.9:40000 > 10.0.0.1:22 syn"));
        assert_eq!(captured.warnings.len(), 1, "{:?}", captured.warnings);
        assert!(read(&bytes[..bytes.len() - 3], "c.pcap", None).is_err(), "a file that ends early");
    }

    proptest::proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&bytes, "c", None);
            let mut file = Writer::new(RAW);
            file.push(0, 1, &bytes);
            let _ = read(&file.finish(), "c", None);
        }
    }
}
