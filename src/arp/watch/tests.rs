use proptest::prelude::*;

use super::*;
use crate::wire::ethertype;

const A: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0x0a]);
const B: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0x0b]);
const C: MacAddr = MacAddr([0, 0, 0x0c, 0, 0, 0x0c]);

fn watch() -> Watch {
    let home = Home { gateways: vec!["10.0.0.1".parse().unwrap()], ..Home::default() };
    Watch::new(home, Memory::default(), Vendors::embedded())
}

fn arp(operation: ArpOperation, src: MacAddr, dst: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    let packet = Arp {
        operation,
        sender_mac: src,
        sender_ip: sender.parse().unwrap(),
        target_mac: MacAddr::ZERO,
        target_ip: target.parse().unwrap(),
    };
    [EtherHeader { dst, src, vlans: vec![], ethertype: ethertype::ARP }.emit(), packet.emit()].concat()
}

fn asks(src: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    arp(ArpOperation::Request, src, MacAddr::BROADCAST, sender, target)
}

fn answers(src: MacAddr, dst: MacAddr, sender: &str, target: &str) -> Vec<u8> {
    arp(ArpOperation::Reply, src, dst, sender, target)
}

/// The kinds of events that these frames (at their seconds) make.
fn kinds(watch: &mut Watch, frames: &[(f64, Vec<u8>)]) -> Vec<Kind> {
    for (at, frame) in frames {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        watch.hear(1_000_000 + (at * 1000.0) as u64, frame);
    }
    watch.take_events().into_iter().map(|event| event.event).collect()
}

#[test]
fn a_station_is_new_once() {
    let mut watch = watch();
    let frames = [(0.0, asks(A, "10.0.0.10", "10.0.0.1")), (1.0, asks(A, "10.0.0.10", "10.0.0.2"))];
    assert_eq!(kinds(&mut watch, &frames), [Kind::New]);
    assert_eq!(watch.memory().get("10.0.0.10".parse().unwrap()).unwrap().mac, A);
}

#[test]
fn two_answers_to_one_request_are_a_duplicate() {
    let frames = [
        (0.0, asks(C, "10.0.0.3", "10.0.0.10")),
        (0.001, answers(A, C, "10.0.0.10", "10.0.0.3")),
        (0.002, answers(B, C, "10.0.0.10", "10.0.0.3")),
    ];
    assert_eq!(kinds(&mut watch(), &frames), [Kind::New, Kind::New, Kind::Duplicate]);
}

#[test]
fn moved_once_is_no_quarrel_and_back_later_is_a_flip_flop() {
    let mut watch = watch();
    let at = |seconds: f64, mac| (seconds, asks(mac, "10.0.0.10", "10.0.0.99"));
    assert_eq!(kinds(&mut watch, &[at(0.0, A), at(600.0, B)]), [Kind::New, Kind::Moved]);
    assert_eq!(kinds(&mut watch, &[at(1200.0, A)]), [Kind::FlipFlop]);
    assert_eq!(kinds(&mut watch, &[at(1203.0, B), at(1204.0, A)]), [Kind::FlipFlop, Kind::Duplicate]);
}

#[test]
fn who_takes_the_gateways_place_is_told_with_evidence() {
    let mut watch = watch();
    let calm = [
        (0.0, asks(A, "10.0.0.1", "10.0.0.10")),
        (1.0, asks(B, "10.0.0.66", "10.0.0.1")),
        (2.0, asks(C, "10.0.0.3", "10.0.0.1")),
    ];
    assert_eq!(kinds(&mut watch, &calm), [Kind::New; 3]);
    watch.hear(1_000_000 + 30_000, &answers(B, C, "10.0.0.1", "10.0.0.3"));
    let events = watch.take_events();
    let kinds: Vec<Kind> = events.iter().map(|event| event.event).collect();
    assert_eq!(kinds, [Kind::UnaskedReply, Kind::Moved, Kind::GatewayChanged]);
    let last = events.last().unwrap();
    assert_eq!(last.severity, Severity::Problem);
    assert!(last.because.iter().any(|line| line.contains("10.0.0.66")), "{last:?}");
}

#[test]
fn a_failover_of_a_virtual_router_is_no_attack() {
    let mut watch = watch();
    let virtual_mac = MacAddr([0, 0, 0x5e, 0, 1, 7]);
    let frames = [(0.0, asks(virtual_mac, "10.0.0.1", "10.0.0.1")), (9.0, asks(A, "10.0.0.1", "10.0.0.1"))];
    let kinds = kinds(&mut watch, &frames);
    assert!(!kinds.contains(&Kind::GatewayChanged), "{kinds:?}");
}

#[test]
fn announcements_probes_and_lies_are_told_apart() {
    let mut watch = watch();
    let mut lie = answers(A, C, "10.0.0.10", "10.0.0.3");
    lie[6..12].copy_from_slice(&B.0);
    let frames = [(0.0, asks(A, "10.0.0.10", "10.0.0.10")), (1.0, asks(B, "0.0.0.0", "10.0.0.20")), (2.0, lie)];
    assert_eq!(kinds(&mut watch, &frames), [Kind::New, Kind::Announcement, Kind::Probe, Kind::SenderDiffers]);
}

#[test]
fn this_hosts_own_address_is_guarded() {
    let home = Home { own: vec!["10.0.0.3".parse().unwrap()], own_macs: vec![C], ..Home::default() };
    let mut watch = Watch::new(home, Memory::default(), Vendors::embedded());
    let frames = [(0.0, asks(C, "10.0.0.3", "10.0.0.1")), (1.0, asks(B, "10.0.0.3", "10.0.0.9"))];
    assert_eq!(kinds(&mut watch, &frames), [Kind::OwnAddress]);
}

#[test]
fn who_answers_for_many_is_told_once() {
    let mut watch = watch();
    let mut frames = Vec::new();
    for n in 10..40 {
        frames.push((0.0, asks(C, "10.0.0.3", &format!("10.0.0.{n}"))));
        frames.push((0.1, answers(A, C, &format!("10.0.0.{n}"), "10.0.0.3")));
    }
    let many = kinds(&mut watch, &frames).into_iter().filter(|kind| *kind == Kind::ManyAddresses).count();
    assert_eq!(many, 1);
}

#[test]
fn two_masters_are_told_from_a_takeover() {
    let advert = |from: &str, mac: MacAddr, priority| Advert {
        mac,
        from: from.parse().unwrap(),
        router: 51,
        priority,
        addresses: vec!["10.0.0.100".parse().unwrap()],
    };
    let mut watch = watch();
    let mut run = |list: &[(u64, Advert)]| -> Vec<Kind> {
        for (at, advert) in list {
            watch.advert(*at, advert.clone());
        }
        watch.take_events().into_iter().map(|event| event.event).collect()
    };
    let (a, b) = (advert("10.0.0.4", A, 100), advert("10.0.0.5", B, 90));
    assert_eq!(run(&[(1000, a.clone()), (2000, a.clone())]), [Kind::VrrpMaster]);
    assert_eq!(run(&[(6000, b.clone()), (7000, b.clone())]), [Kind::VrrpMaster]);
    assert_eq!(run(&[(67_100, a.clone()), (67_200, b.clone()), (68_100, a), (68_200, b)])[..1], [Kind::VrrpMaster]);
    assert!(watch.told.keys().any(|(kind, ..)| *kind == Kind::VrrpTwoMasters));
}

#[test]
fn memory_survives_its_file_and_refuses_others() {
    let mut memory = Memory::default();
    for (at, mac) in [(1, A), (2, B), (3, A)] {
        memory.note("10.0.0.10".parse().unwrap(), mac, at);
    }
    let again = Memory::parse(memory.to_json().as_bytes()).unwrap();
    assert_eq!(again.get("10.0.0.10".parse().unwrap()), memory.get("10.0.0.10".parse().unwrap()));
    for bad in ["", "{}", "[1]", "{\"schema\":1,\"stations\":[{\"ip\":\"x\"}]}", "{\"schema\":99,\"stations\":[]}"] {
        assert!(Memory::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_frame_is_a_panic_and_memory_stays_readable(
        frames in prop::collection::vec((0u64..100_000, 0usize..5, any::<[u8; 6]>(), any::<[u8; 8]>()), 0..60)
    ) {
        let mut watch = watch();
        for (at, kind, mac, octets) in frames {
            let ip = |n: usize| std::net::Ipv4Addr::new(octets[n], octets[n + 1], octets[n + 2], octets[n + 3]).to_string();
            let mac = MacAddr(mac);
            let frame = match kind {
                0 => asks(mac, &ip(0), &ip(4)),
                1 => answers(mac, A, &ip(0), &ip(4)),
                2 => asks(mac, &ip(0), &ip(0)),
                3 => asks(mac, "0.0.0.0", &ip(0)),
                _ => [mac.0.as_slice(), &octets].concat(),
            };
            watch.hear(at, &frame);
        }
        prop_assert!(Memory::parse(watch.memory().to_json().as_bytes()).is_ok());
    }
}
