//! What fits, what does not, and what is no filter.

use proptest::prelude::*;

use super::Filter;
use crate::wire::capture::{RawPacket, linktype};
use crate::wire::{Ipv4Header, TcpFlags, TcpHeader};

fn fits(filter: &str) -> bool {
    let (src, dst) = ([10, 1, 2, 3].into(), [192, 168, 7, 9].into());
    let segment = TcpHeader::new(40000, 80, TcpFlags::SYN).segment(
        std::net::Ipv4Addr::into(src),
        std::net::Ipv4Addr::into(dst),
        b"hello",
    );
    let ip = Ipv4Header::new(src, dst, 6).packet(&segment);
    let frame = [&[2; 12][..], &[0x81, 0, 0, 5, 8, 0], &ip].concat();
    let orig_len = u32::try_from(frame.len()).unwrap();
    let packet = RawPacket { at_ns: 0, link: linktype::ETHERNET, orig_len, bytes: &frame };
    filter.parse::<Filter>().unwrap_or_else(|error| panic!("{filter}: {error}")).matches(&packet)
}

#[test]
fn filters_say_what_they_mean() {
    for yes in [
        "",
        "tcp",
        "ip",
        "host 10.1.2.3",
        "src host 10.1.2.3",
        "src 10.1.2.3 and dst 192.168.7.9",
        "10.1.2.3",
        "net 10",
        "net 10.0.0.0/8",
        "net 10.1.0.0 mask 255.255.0.0",
        "src net 10.1 and dst net 192.168.7.0/24",
        "port 80",
        "port http",
        "tcp dst port 80",
        "tcp port 443 or 80",
        "portrange 79-81",
        "src or dst port 80",
        "not udp",
        "! (udp or icmp) && tcp",
        "tcp[tcpflags] & tcp-syn != 0",
        "tcp[13] == 2",
        "tcp[0:2] = 40000",
        "(tcp[12] >> 4) * 4 = 20",
        "ip[8] > 10 and ip[9] == 6",
        "ip[2:2] - ((ip[0]&0xf)<<2) - ((tcp[12]&0xf0)>>2) = 5",
        "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
        "len > 20 and greater 40 and less 200",
        "vlan",
        "vlan 5 and tcp",
        "proto 6",
        "ip proto tcp",
        "ether[12:2] = 0x8100",
    ] {
        assert!(fits(yes), "{yes}");
    }
    for no in [
        "udp",
        "ip6",
        "dst host 10.1.2.3",
        "src and dst port 80",
        "net 11",
        "port 81 or 82",
        "vlan 6",
        "tcp[13] & tcp-ack != 0",
        "tcp[4000] = 0",
        "udp[0] = 0",
        "ip[0] / 0 = 0",
        "icmp[icmptype] = icmp-echo",
    ] {
        assert!(!fits(no), "{no}");
    }
}

#[test]
fn what_is_no_filter_is_named() {
    for (bad, says) in [
        ("port", "missing"),
        ("port abc", "no port"),
        ("host example.org", "not looked up"),
        ("frobnicate", "known here"),
        ("tcp and", "missing"),
        ("(tcp", ""),
        ("tcp[13", "`]`"),
        ("tcp[0:3] = 1", "1, 2 or 4"),
        ("tcp udp", "left over"),
        ("portrange 9-1", "no port"),
        ("net 10.0.0.0/33", "no address"),
    ] {
        let error = bad.parse::<Filter>().unwrap_err().to_string();
        assert!(error.contains(says), "{bad}: {error}");
    }
    assert!("(".repeat(5000).parse::<Filter>().is_err());
    assert!("not ".repeat(1000).parse::<Filter>().is_err());
    assert!(format!("{}1=1", "-".repeat(1000)).parse::<Filter>().is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        let _ = text.parse::<Filter>();
    }

    #[test]
    fn no_mix_of_words_makes_it_panic(words in prop::collection::vec(prop::sample::select(vec![
        "tcp", "port", "80", "host", "10.0.0.1", "and", "or", "not", "(", ")", "[", "]", ":", "13", "&", "=", "src",
        "dst", "net", "10/8", "len", "-", "<<", "vlan", "portrange", "1-2", "ip", "ether", "mask", "proto",
    ]), 0..20)) {
        if let Ok(filter) = words.join(" ").parse::<Filter>() {
            let _ = filter.matches(&RawPacket { at_ns: 0, link: 1, orig_len: 60, bytes: &[0; 60] });
        }
    }
}
