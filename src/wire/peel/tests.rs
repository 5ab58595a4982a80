//! Packets within packets, and bytes that are none.

use proptest::prelude::*;

use super::super::capture::{RawPacket, linktype};
use super::super::{Ipv4Header, Ipv6Header, TcpFlags, TcpHeader};
use super::{Peeled, Peeler};

fn v4(a: u8, b: u8) -> (std::net::Ipv4Addr, std::net::Ipv4Addr) {
    ([10, 0, 0, a].into(), [10, 0, 0, b].into())
}

fn tcp(data: &[u8]) -> Vec<u8> {
    let (src, dst) = v4(1, 2);
    let header = TcpHeader::new(40000, 80, TcpFlags::ACK);
    header.segment(src.into(), dst.into(), data)
}

fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = v4(1, 2);
    Ipv4Header::new(src, dst, protocol).packet(payload)
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind.to_be_bytes(), payload].concat()
}

fn look(link: u32, bytes: &[u8]) -> Option<(u16, u16, u32)> {
    let mut peeler = Peeler::default();
    let packet = RawPacket { at_ns: 0, link, orig_len: u32::try_from(bytes.len()).unwrap(), bytes };
    match peeler.peel(&packet) {
        Peeled::Tcp(segment) => {
            assert_eq!(segment.checksum_good(), Some(true));
            Some((segment.sport, segment.dport, segment.len()))
        }
        _ => None,
    }
}

#[test]
fn every_link_type_and_tunnel_leads_to_the_segment() {
    let inner = ip(6, &tcp(b"hello"));
    let eth = ethernet(0x0800, &inner);
    let vlan = |tag: u16, inside: &[u8]| [&[0, 5][..], &tag.to_be_bytes(), inside].concat();
    let mut padded = eth.clone();
    padded.extend([0; 7]);
    let udp =
        |port: u16, inside: &[u8]| ip(17, &[&[0x30, 0x39][..], &port.to_be_bytes(), &[0, 0, 0, 0], inside].concat());
    let cases: Vec<(u32, Vec<u8>)> = vec![
        (linktype::ETHERNET, eth.clone()),
        (linktype::ETHERNET, padded),
        (linktype::ETHERNET, ethernet(0x8100, &vlan(0x0800, &inner))),
        (linktype::ETHERNET, ethernet(0x88a8, &vlan(0x8100, &vlan(0x0800, &inner)))),
        (linktype::ETHERNET, ethernet(0x8847, &[&[0, 1, 0, 9, 0, 1, 1, 9][..], &inner].concat())),
        (
            linktype::ETHERNET,
            ethernet(
                0x8864,
                &[&[0x11, 0, 0, 1][..], &u16::try_from(inner.len() + 2).unwrap().to_be_bytes(), &[0, 0x21], &inner]
                    .concat(),
            ),
        ),
        (linktype::RAW, inner.clone()),
        (linktype::IPV4, inner.clone()),
        (linktype::NULL, [&[2, 0, 0, 0][..], &inner].concat()),
        (linktype::LOOP, [&[0, 0, 0, 2][..], &inner].concat()),
        (linktype::PPP, [&[0xff, 3, 0, 0x21][..], &inner].concat()),
        (linktype::LINUX_SLL, [&[0; 14][..], &[8, 0], &inner].concat()),
        (linktype::LINUX_SLL2, [&[8, 0][..], &[0; 18], &inner].concat()),
        (
            linktype::NFLOG,
            [
                &[2, 0, 0, 0, 5, 0, 10, 0, 0, 0, 0, 0][..],
                &u16::try_from(inner.len() + 4).unwrap().to_le_bytes(),
                &[9, 0],
                &inner,
            ]
            .concat(),
        ),
        (linktype::RAW, ip(4, &inner)),
        (linktype::RAW, ip(47, &[&[0, 0, 8, 0][..], &inner].concat())),
        (linktype::RAW, ip(47, &[&[0xb0, 0, 8, 0][..], &[0; 12], &inner].concat())),
        (linktype::RAW, ip(47, &[&[0, 0, 0x65, 0x58][..], &eth].concat())),
        (linktype::RAW, udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &eth].concat())),
        (linktype::RAW, udp(6081, &[&[0, 0, 0x65, 0x58, 0, 0, 1, 0][..], &eth].concat())),
    ];
    for (n, (link, bytes)) in cases.iter().enumerate() {
        assert_eq!(look(*link, bytes), Some((40000, 80, 5)), "case {n}");
    }
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let (src, dst): (std::net::Ipv6Addr, std::net::Ipv6Addr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let segment = TcpHeader::new(1, 2, TcpFlags::ACK).segment(src.into(), dst.into(), b"abc");
    let payload = [&[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 9][..], &segment].concat();
    let packet = Ipv6Header::new(src, dst, 0).packet(&payload);
    assert_eq!(look(linktype::RAW, &packet), Some((1, 2, 3)));
}

#[test]
fn fragments_are_put_together_in_any_order() {
    let whole = tcp(&[7; 3000]);
    let piece = |from: usize, to: usize, more: bool| {
        let (src, dst) = v4(1, 2);
        let mut header = Ipv4Header::new(src, dst, 6);
        (header.id, header.dont_fragment, header.more_fragments) = (9, false, more);
        header.fragment_offset = u16::try_from(from / 8).unwrap();
        header.packet(&whole[from..to])
    };
    let pieces = [piece(2000, whole.len(), false), piece(0, 1000, true), piece(800, 2000, true)];
    let mut peeler = Peeler::default();
    for (n, bytes) in pieces.iter().enumerate() {
        let orig_len = u32::try_from(bytes.len()).unwrap();
        let found = peeler.peel(&RawPacket { at_ns: 0, link: linktype::RAW, orig_len, bytes });
        if n < 2 {
            assert_eq!(found, Peeled::Fragment);
        } else {
            let Peeled::Tcp(segment) = found else { panic!("{found:?}") };
            assert_eq!((segment.len(), segment.checksum_good()), (3000, Some(true)));
        }
    }
}

#[test]
fn a_short_snapshot_still_knows_the_length() {
    let packet = ip(6, &tcp(&[1; 1000]));
    let mut peeler = Peeler::default();
    let raw = RawPacket { at_ns: 0, link: linktype::RAW, orig_len: 1040, bytes: &packet[..60] };
    let Peeled::Tcp(segment) = peeler.peel(&raw) else { panic!() };
    assert_eq!((segment.len(), segment.data.len(), segment.checksum_good()), (1000, 20, None));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        link in prop::sample::select(vec![0u32, 1, 9, 12, 51, 101, 104, 108, 113, 228, 229, 239, 276, 105, 9999]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        orig_len in any::<u32>(),
    ) {
        let mut peeler = Peeler::default();
        let _ = peeler.peel(&RawPacket { at_ns: 0, link, orig_len, bytes: &bytes });
    }

    #[test]
    fn no_change_to_a_tunnel_makes_it_panic(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
        let inner = ip(6, &tcp(b"hello"));
        let gre = ip(47, &[&[0, 0, 8, 0][..], &ip(4, &inner)].concat());
        let mut bytes = ethernet(0x8100, &[&[0, 5, 8, 0][..], &gre].concat());
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(cut % length);
        let orig_len = u32::try_from(length).unwrap();
        let mut peeler = Peeler::default();
        let _ = peeler.peel(&RawPacket { at_ns: 0, link: linktype::ETHERNET, orig_len, bytes: &bytes });
    }
}
