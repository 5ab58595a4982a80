use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 3);

fn all_parsers(bytes: &[u8]) {
    for encapsulation in [Encapsulation::Ethernet, Encapsulation::Ip] {
        let decoded = Decoded::parse(encapsulation, bytes);
        let _ =
            (decoded.to_string(), decoded.quoted(), decoded.neighbour(), decoded.tcp().map(TcpHeader::parsed_options));
        if let Some(icmp) = decoded.icmp() {
            let _ = Extension::parse_all(icmp, decoded.payload).iter().map(Extension::mpls).count();
        }
    }
    for family in [IcmpFamily::V4, IcmpFamily::V6] {
        let _ = (Quoted::parse(family, bytes), IcmpHeader::parse(family, bytes).map(|icmp| icmp.describe()));
    }
    let _ = (Arp::parse(bytes), NeighbourMessage::parse(bytes), TcpOptions::parse(bytes), UdpHeader::parse(bytes));
    if let Ok(reader) = pcap::Reader::new(bytes) {
        let _ = reader.count();
    }
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        all_parsers(&bytes);
    }

    /// Random bytes rarely get past the first header: these wear a plausible one and lie further in.
    #[test]
    fn never_panics_behind_a_plausible_header(
        bytes in proptest::collection::vec(any::<u8>(), 60..200), v6 in any::<bool>(), number in prop_oneof![Just(0u8), Just(1), Just(6), Just(17), Just(43), Just(44), Just(51), Just(58), Just(60)], cut in 0usize..200,
    ) {
        let mut bytes = bytes;
        if v6 { bytes[0] = 0x60; bytes[6] = number; } else { bytes[0] = 0x45 | (bytes[0] & 0x0f); bytes[9] = number; bytes[6] = 0; bytes[7] = 0; }
        let cut = cut.min(bytes.len());
        all_parsers(&bytes[..cut]);
        let mut icmp = vec![if v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(&bytes[..cut]);
        all_parsers(&icmp);
    }

    #[test]
    fn what_is_emitted_is_read_back(
        sport in any::<u16>(), dport in any::<u16>(), seq in any::<u32>(), ack in any::<u32>(), flags in any::<u8>(), window in any::<u16>(),
        mss in proptest::option::of(any::<u16>()), scale in proptest::option::of(any::<u8>()), stamps in proptest::option::of(any::<(u32, u32)>()),
        sack in any::<bool>(), payload in proptest::collection::vec(any::<u8>(), 0..40), ttl in any::<u8>(), v6 in any::<bool>(),
    ) {
        let options = TcpOptions { mss, window_scale: scale, sack_permitted: sack, sack: vec![], timestamps: stamps, broken: false };
        prop_assert_eq!(&TcpOptions::parse(&options.emit()), &options);
        let tcp = TcpHeader { seq, ack, window, options: HexBytes(options.emit()), ..TcpHeader::new(sport, dport, TcpFlags(flags)) };
        let (src, dst): (IpAddr, IpAddr) = if v6 { (A.to_ipv6_mapped().into(), B.to_ipv6_mapped().into()) } else { (A.into(), B.into()) };
        let segment = tcp.segment(src, dst, &payload);
        prop_assert_eq!(checksum::transport(src, dst, protocol::TCP, &segment), 0);
        let packet = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header { ttl, ..Ipv4Header::new(src, dst, protocol::TCP) }.packet(&segment),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header { hop_limit: ttl, ..Ipv6Header::new(src, dst, protocol::TCP) }.packet(&segment),
            _ => unreachable!(),
        };
        let ether = EtherHeader { dst: MacAddr::BROADCAST, src: MacAddr([2, 0, 0, 0, 0, 1]), vlans: vec![VlanTag { tpid: 0x8100, tci: 0x2007 }], ethertype: if v6 { ethertype::IPV6 } else { ethertype::IPV4 } };
        let mut frame = ether.emit();
        frame.extend(&packet);
        frame.extend([0; 6]); // Ethernet padding is no payload
        let decoded = Decoded::parse(Encapsulation::Ethernet, &frame);
        prop_assert_eq!(decoded.fault, None);
        prop_assert_eq!(decoded.ether.as_ref(), Some(&ether));
        prop_assert_eq!((decoded.src(), decoded.dst(), decoded.ttl()), (Some(src), Some(dst), Some(ttl)));
        prop_assert_eq!(decoded.payload, &payload[..]);
        let read = decoded.tcp().unwrap();
        prop_assert_eq!(TcpHeader { checksum: 0, ..read.clone() }, tcp);
        prop_assert_eq!(read.emit(), &segment[..segment.len() - payload.len()]);
    }

    #[test]
    fn ipv4_fields_survive(tos in any::<u8>(), id in any::<u16>(), df in any::<bool>(), mf in any::<bool>(), offset in 0u16..0x2000, words in 0usize..=10, number in any::<u8>(), total in any::<u16>(), sum in any::<u16>()) {
        let header = Ipv4Header { tos, id, dont_fragment: df, more_fragments: mf, fragment_offset: offset, options: HexBytes(vec![1; words * 4]), total_len: total, checksum: sum, ..Ipv4Header::new(A, B, number) };
        prop_assert_eq!(Ipv4Header::parse(&header.emit()), Ok((header, 20 + words * 4)));
    }

    #[test]
    fn small_messages_survive(target in any::<u128>(), mac in any::<[u8; 6]>(), flags in any::<[bool; 4]>(), operation in any::<u16>(), ips in any::<(u32, u32)>(), rest in any::<[u8; 4]>()) {
        let [advertisement, a, b, c] = flags;
        let message = NeighbourMessage { advertisement, router: advertisement && a, solicited: advertisement && b, overrides: advertisement && c, target: target.into(), link_address: Some(MacAddr(mac)) };
        let bytes = message.emit(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        prop_assert_eq!(NeighbourMessage::parse(&bytes), Ok(message));
        let arp = Arp { operation: operation.into(), sender_mac: MacAddr(mac), sender_ip: ips.0.into(), target_mac: MacAddr::ZERO, target_ip: ips.1.into() };
        prop_assert_eq!(Arp::parse(&arp.emit()), Ok(arp));
        let icmp = IcmpHeader { family: IcmpFamily::V4, kind: rest[0], code: rest[1], checksum: 7, rest };
        prop_assert_eq!(IcmpHeader::parse(IcmpFamily::V4, &icmp.emit()), Ok(icmp));
        let udp = UdpHeader { sport: operation, dport: 5, length: 8, checksum: 9 };
        prop_assert_eq!(UdpHeader::parse(&udp.emit()), Ok(udp));
    }

    #[test]
    fn odd_parts_sum_as_one_run(a in proptest::collection::vec(any::<u8>(), 0..9), b in proptest::collection::vec(any::<u8>(), 0..9)) {
        prop_assert_eq!(checksum::internet(&[&a, &b]), checksum::internet(&[&[a.clone(), b.clone()].concat()]));
    }

    #[test]
    fn pcap_gives_back_what_it_took(packets in proptest::collection::vec((0u64..4_000_000_000_000_000_000, proptest::collection::vec(any::<u8>(), 0..80)), 0..5), cut in 0usize..200) {
        let mut writer = pcap::Writer::new(pcap::ETHERNET);
        for (at, bytes) in &packets { writer.push(*at, 1500, bytes); }
        let file = writer.finish();
        let read: Vec<_> = pcap::Reader::new(&file).unwrap().map(|record| record.map(|record| (record.at_ns, record.bytes.to_vec()))).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(read, packets);
        let cut = &file[..file.len().saturating_sub(cut).max(24)];
        prop_assert!(pcap::Reader::new(cut).unwrap().count() <= 6);
    }
}

/// RFC 1071 §3, the worked example.
#[test]
fn checksum_of_the_rfc() {
    assert_eq!(checksum::internet(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
}

/// A port unreachable that quotes exactly the 8 octets RFC 792 promises.
#[test]
fn reads_the_shortest_legal_quote() {
    let syn =
        TcpHeader { seq: 0xdead_beef, ..TcpHeader::new(40000, 8080, TcpFlags::SYN) }.segment(A.into(), B.into(), &[]);
    let probe = Ipv4Header { ttl: 3, id: 77, ..Ipv4Header::new(A, B, protocol::TCP) }.packet(&syn);
    let header = IcmpHeader { family: IcmpFamily::V4, kind: 3, code: 3, checksum: 0, rest: [0; 4] };
    let error = header.message(B.into(), A.into(), &probe[..28]);
    let packet = Ipv4Header::new(B, A, protocol::ICMP).packet(&error);
    let decoded = Decoded::parse(Encapsulation::Ip, &packet);
    let quoted = decoded.quoted().unwrap();
    assert_eq!(
        (quoted.ports, quoted.seq, quoted.ttl, quoted.id),
        (Some((40000, 8080)), Some(0xdead_beef), 3, Some(77))
    );
    assert_eq!(decoded.to_string(), "192.168.1.3 > 192.168.1.2 icmp destination unreachable: port unreachable");
    // One octet less and the sequence number is not known; the ports still are.
    let shorter = Quoted::parse(IcmpFamily::V4, &probe[..27]).unwrap();
    assert_eq!((shorter.ports, shorter.seq), (Some((40000, 8080)), None));
    assert_eq!(Quoted::parse(IcmpFamily::V4, &probe[..19]), None);
}

#[test]
fn names_next_hop_mtu_only_where_it_is_one() {
    let header = |kind, code, rest| IcmpHeader { family: IcmpFamily::V4, kind, code, checksum: 0, rest };
    assert_eq!(header(3, 4, [0, 0, 5, 0x78]).next_hop_mtu(), Some(1400));
    assert_eq!(header(3, 4, [0; 4]).next_hop_mtu(), None);
    assert_eq!(header(3, 1, [0, 0, 5, 0x78]).next_hop_mtu(), None);
    let big = IcmpHeader { family: IcmpFamily::V6, ..header(2, 0, [0, 0, 5, 0]) };
    assert_eq!(big.next_hop_mtu(), Some(1280));
}

#[test]
fn walks_extension_headers_to_the_upper_layer() {
    let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop
    payload.extend([44, 0, 1, 4, 0, 0, 0, 0]); // destination options
    payload.extend([17, 0, 0, 1, 0, 0, 0, 9]); // first fragment, more to come
    payload.extend([0, 53, 0x30, 0x39, 0, 8, 0, 0]);
    let mut packet = Ipv6Header::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, 0).packet(&payload);
    let decoded = Decoded::parse(Encapsulation::Ip, &packet);
    assert_eq!(decoded.ports(), Some((53, 12345)));
    packet[40 + 19] = 9; // offset 1: a later fragment has no ports
    let decoded = Decoded::parse(Encapsulation::Ip, &packet);
    assert_eq!((decoded.ports(), decoded.protocol()), (None, Some(17)));
}

#[test]
fn flags_read_and_print() {
    assert_eq!("syn,ack".parse::<TcpFlags>().unwrap().to_string(), "SYN,ACK");
    assert_eq!(TcpFlags(0).to_string(), "none");
    assert!("SYN,XYZ".parse::<TcpFlags>().is_err());
    assert!("".parse::<TcpFlags>().is_err());
}

#[test]
fn mpls_labels_are_read_from_behind_the_quote() {
    let header = IcmpHeader { family: IcmpFamily::V4, kind: 11, code: 0, checksum: 0, rest: [0, 32, 0, 0] };
    let mut structure = vec![0x20, 0, 0, 0, 0, 8, 1, 1, 0x05, 0xdc, 0x01, 0xfe];
    let sum = checksum::internet(&[&structure]);
    structure[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut body = vec![0; 128];
    body.extend(structure);
    let objects = Extension::parse_all(&header, &body);
    assert_eq!(objects[0].mpls(), Some(vec![(24000, 0, true, 254)]));
    // A lie in the checksum makes it none.
    body[130] ^= 1;
    assert!(Extension::parse_all(&header, &body).is_empty());
}
