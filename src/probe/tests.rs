use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::sim::{Host, Hosts, OWN_V4, Parcel, Port, Weather, icmp_error, ip_packet, run};
use super::*;
use crate::wire::{
    Decoded, Encapsulation, HexBytes, IcmpFamily, IcmpHeader, Ipv4Header, MacAddr, TcpFlags, TcpHeader, UdpHeader,
    ethertype, protocol,
};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));
const MS: Duration = Duration::from_millis(1);

fn host(host: Host) -> Hosts {
    Hosts(HashMap::from([(HOST, host)]))
}

fn one(kind: ProbeKind, tries: u8) -> Vec<ProbeSpec> {
    vec![ProbeSpec::new(1, kind).tries(tries, 100 * MS)]
}

fn config() -> Config {
    Config { nonce: 0x1234_5678_9abc_def0, ..Config::default() }
}

#[test]
fn every_state_of_a_port_is_told_apart() {
    let ports = HashMap::from([
        (22, Port::Open),
        (80, Port::Silent),
        (443, Port::Rejected(ROUTER, 3, 13)),
        (53, Port::Rejected(HOST, 3, 3)),
    ]);
    let mut net = host(Host { ports, ..Host::default() });
    for (port, wanted) in [
        (22, Outcome::Answered),
        (23, Outcome::Refused),
        (80, Outcome::Silent),
        (443, Outcome::IcmpError),
        (53, Outcome::IcmpError),
    ] {
        let (report, events) = run(one(ProbeKind::syn(HOST, port), 2), config(), &mut net);
        let probe = &report.probes[0];
        assert_eq!(probe.outcome, wanted, "{port}: {report:#?}");
        assert_eq!(probe.sent.len(), if wanted == Outcome::Silent { 2 } else { 1 });
        assert!(matches!(events.last(), Some(Event::Done { id: 1, outcome, .. }) if *outcome == wanted));
        if wanted != Outcome::Silent {
            let reply = probe.deciding().unwrap();
            assert_eq!((reply.rtt_us, reply.rtt_source), (Some(2000.0), Some(RttSource::User)));
            assert_eq!(reply.from, if port == 443 { ROUTER } else { HOST });
        }
    }
    let (report, _) = run(one(ProbeKind::echo(ROUTER), 3), config(), &mut net);
    assert_eq!(report.probes[0].local_error.as_deref(), Some("ENETUNREACH"));
    let (report, _) = run(one(ProbeKind::udp(HOST, 22, b"x"), 1), config(), &mut net);
    assert_eq!(report.probes[0].outcome, Outcome::Answered);
    let (report, _) = run(one(ProbeKind::connect((HOST, 23).into()), 1), config(), &mut net);
    assert_eq!(report.probes[0].outcome, Outcome::Refused);
}

/// An answer that comes after the retry was sent still belongs to the first try, and its time is the first try's.
#[test]
fn a_late_answer_is_given_to_its_own_try() {
    let mut net = host(Host { delay: 75 * MS, ports: HashMap::from([(22, Port::Open)]), ..Host::default() });
    for kind in [ProbeKind::echo(HOST), ProbeKind::syn(HOST, 22), ProbeKind::udp(HOST, 22, b"x")] {
        let (report, _) = run(one(kind, 3), config(), &mut net);
        let reply = report.probes[0].deciding().unwrap();
        assert_eq!((reply.number, reply.rtt_us), (1, Some(150_000.0)), "{report:#?}");
        assert_eq!(report.probes[0].sent.len(), 2);
    }
    // With a fixed source port the tries share a flow: for UDP nothing tells them apart, and no time is invented.
    let dst = HOST;
    let payload = HexBytes::default();
    let fixed = ProbeKind::Udp { dst, dport: 22, src: None, sport: Some(5000), ttl: None, payload };
    let (report, _) = run(one(fixed, 3), config(), &mut net);
    assert_eq!(report.probes[0].deciding().unwrap().rtt_us, None);
    // A TCP answer names its try by the number it acknowledges even then.
    let flags = TcpFlags::SYN;
    let fixed = ProbeKind::TcpSyn { dst, dport: 22, src: None, sport: Some(5000), ttl: None, flags };
    let (report, _) = run(one(fixed, 3), config(), &mut net);
    assert_eq!(report.probes[0].deciding().unwrap().rtt_us, Some(150_000.0));
}

#[test]
fn every_kind_of_segment_gets_its_reset_recognised() {
    let mut net = host(Host::default());
    for flags in ["SYN", "ACK", "FIN", "none", "FIN,PSH,URG", "SYN,FIN", "FIN,ACK"] {
        let kind =
            ProbeKind::TcpSyn { dst: HOST, dport: 9, src: None, sport: None, ttl: None, flags: flags.parse().unwrap() };
        let (report, _) = run(one(kind, 1), config(), &mut net);
        assert_eq!(report.probes[0].outcome, Outcome::Refused, "{flags}: {report:#?}");
        assert!(report.probes[0].replies[0].tcp.as_ref().unwrap().acknowledges);
    }
}

#[test]
fn what_is_not_ours_is_counted_and_ends_nothing() {
    type Forge = fn(&[u8]) -> Vec<u8>;
    let forgeries: Vec<(&str, Forge)> = vec![
        ("error about another port", |probe| {
            let mut other = probe.to_vec();
            other[22] ^= 1;
            icmp_error(ROUTER, &other, 3, 1, 8).unwrap()
        }),
        ("error about another sequence number", |probe| {
            let mut other = probe.to_vec();
            other[27] ^= 1;
            icmp_error(ROUTER, &other, 3, 1, 8).unwrap()
        }),
        ("error about another destination", |probe| {
            let mut other = probe.to_vec();
            other[19] ^= 1;
            icmp_error(ROUTER, &other, 3, 1, 8).unwrap()
        }),
        ("segment from another host", |probe| {
            let tcp = Decoded::parse(Encapsulation::Ip, probe).tcp().unwrap().clone();
            let reply = TcpHeader { ack: tcp.seq + 1, ..TcpHeader::new(22, tcp.sport, "RST,ACK".parse().unwrap()) };
            ip_packet(ROUTER, OWN_V4.into(), 6, 64, &reply.segment(ROUTER, OWN_V4.into(), &[]))
        }),
        ("cut short", |_| vec![0x45, 0, 0]),
    ];
    for (name, forge) in forgeries {
        let mut net = |parcel: &Parcel, _now| {
            let Parcel::Ip(probe) = parcel else { panic!() };
            Ok(vec![(MS, Parcel::Ip(forge(probe)))])
        };
        let (report, _) = run(one(ProbeKind::syn(HOST, 22), 1), config(), &mut net);
        assert_eq!(report.probes[0].outcome, Outcome::Silent, "{name}");
        let Strays { icmp, tcp, malformed, .. } = report.strays;
        assert_eq!((icmp + tcp + malformed, report.probes[0].replies.len()), (1, 0), "{name}");
    }
}

/// Each field of such a quote is one of ours, but of two different probes.
#[test]
fn a_quote_stitched_from_two_probes_is_nobodys() {
    let mut first = Vec::new();
    let mut net = |parcel: &Parcel, _now| {
        let Parcel::Ip(probe) = parcel else { panic!() };
        if first.is_empty() {
            first.clone_from(probe);
            return Ok(vec![]);
        }
        let mut stitched = probe.clone();
        stitched[24..28].copy_from_slice(&first[24..28]);
        Ok(vec![(MS, Parcel::Ip(icmp_error(ROUTER, &stitched, 3, 1, 8).unwrap()))])
    };
    let specs = vec![ProbeSpec::new(1, ProbeKind::syn(HOST, 22)), ProbeSpec::new(2, ProbeKind::syn(HOST, 23))];
    let (report, _) = run(specs, config(), &mut net);
    assert!(report.probes.iter().all(|probe| probe.outcome == Outcome::Silent), "{report:#?}");
    assert_eq!(report.strays.icmp, 1);
}

/// A reset that acknowledges nothing we sent is evidence of something in the middle; a real TCP would ignore it.
#[test]
fn a_reset_with_wrong_numbers_is_kept_but_does_not_decide() {
    let mut net = |parcel: &Parcel, _now| {
        let Parcel::Ip(probe) = parcel else { panic!() };
        let tcp = Decoded::parse(Encapsulation::Ip, probe).tcp().unwrap().clone();
        let forged = TcpHeader { ack: 77, ..TcpHeader::new(22, tcp.sport, "RST,ACK".parse().unwrap()) };
        let real =
            TcpHeader { ack: tcp.seq.wrapping_add(1), ..TcpHeader::new(22, tcp.sport, "SYN,ACK".parse().unwrap()) };
        let back =
            |tcp: TcpHeader| Parcel::Ip(ip_packet(HOST, OWN_V4.into(), 6, 64, &tcp.segment(HOST, OWN_V4.into(), &[])));
        Ok(vec![(MS, back(forged)), (2 * MS, back(real))])
    };
    let (report, _) = run(one(ProbeKind::syn(HOST, 22), 1), config(), &mut net);
    let probe = &report.probes[0];
    assert_eq!((probe.outcome, probe.replies.len()), (Outcome::Answered, 2));
    assert_eq!(probe.replies[0].kind, ReplyKind::Rst);
    assert!(!probe.replies[0].tcp.as_ref().unwrap().acknowledges);
    assert_eq!(probe.deciding().unwrap().kind, ReplyKind::SynAck);
}

#[test]
fn another_process_echo_with_our_numbers_is_not_ours() {
    let mut net = |parcel: &Parcel, _now| {
        let Parcel::Ip(probe) = parcel else { panic!() };
        let packet = Decoded::parse(Encapsulation::Ip, probe);
        let (id, sequence) = packet.icmp().unwrap().echo().unwrap();
        let reply = IcmpHeader::new_echo(IcmpFamily::V4, false, id, sequence).message(HOST, OWN_V4.into(), &[0; 56]);
        Ok(vec![(MS, Parcel::Ip(ip_packet(HOST, OWN_V4.into(), protocol::ICMP, 64, &reply)))])
    };
    let (report, _) = run(one(ProbeKind::echo(HOST), 1), config(), &mut net);
    assert_eq!((report.probes[0].outcome, report.strays.icmp), (Outcome::Silent, 1));
}

#[test]
fn two_owners_of_an_address_are_both_heard() {
    let macs = vec![MacAddr([2, 0, 0, 0, 0, 7]), MacAddr([2, 0, 0, 0, 0, 8])];
    let mut net = host(Host { macs: macs.clone(), ..Host::default() });
    let kind = ProbeKind::Arp { interface: "eth0".into(), target: Ipv4Addr::new(192, 0, 2, 9), source: None };
    let (report, _) = run(one(kind, 2), config(), &mut net);
    assert_eq!(report.probes[0].macs(), macs);
    assert_eq!(report.probes[0].sent.len(), 1);
}

#[test]
fn the_rate_is_kept_and_descriptors_are_not_exceeded() {
    let mut times = Vec::new();
    let mut net = |_: &Parcel, now: Moment| {
        times.push(now);
        Ok(vec![])
    };
    let specs = (0..50u16).map(|id| ProbeSpec::new(id.into(), ProbeKind::syn(HOST, 1000 + id)).timeout(MS)).collect();
    let (report, _) = run(specs, Config { rate: Some(100), ..config() }, &mut net);
    assert!(report.complete);
    let span = times.last().unwrap().since(times[0]);
    assert!(span >= 480 * MS && span <= 500 * MS, "{span:?}");

    // A connection here takes two milliseconds: an eighth must not begin before the first has ended.
    let mut begun = Vec::new();
    let mut inner = host(Host { otherwise: Port::Open, ..Host::default() });
    let mut net = |parcel: &Parcel, now: Moment| {
        begun.push(now);
        sim::Network::carry(&mut inner, parcel, now)
    };
    let specs = (0..100).map(|id| ProbeSpec::new(id, ProbeKind::connect((HOST, 1).into()))).collect();
    let (report, _) = run(specs, Config { max_connects: 7, ..config() }, &mut net);
    assert!(report.probes.iter().all(|probe| probe.outcome == Outcome::Connected), "{report:#?}");
    assert!(begun.windows(8).all(|eight| eight[7].since(eight[0]) >= 2 * MS), "{begun:?}");
    assert_eq!(begun.len(), 100);
}

#[test]
fn the_deadline_leaves_open_probes_cancelled_and_the_report_partial() {
    let mut net = host(Host { otherwise: Port::Silent, ..Host::default() });
    let specs = vec![ProbeSpec::new(1, ProbeKind::echo(HOST)), ProbeSpec::new(2, ProbeKind::syn(HOST, 1))];
    let (report, _) = run(specs, Config { deadline: Some(Moment(0) + 500 * MS), ..config() }, &mut net);
    assert_eq!(report.probes[0].outcome, Outcome::Answered);
    assert_eq!((report.probes[1].outcome, report.complete), (Outcome::Cancelled, false));
}

#[test]
fn the_timeout_follows_the_round_trips() {
    let mut estimator = RttEstimator::new(1000 * MS, 10 * MS, 3000 * MS);
    assert_eq!(estimator.timeout(), 1000 * MS);
    estimator.add(100 * MS);
    assert_eq!(estimator.timeout(), 300 * MS);
    (0..100).for_each(|_| estimator.add(MS));
    assert_eq!(estimator.timeout(), 10 * MS);
    estimator.add(Duration::from_secs(100));
    assert_eq!(estimator.timeout(), 3000 * MS);
}

/// The kernel's two stamps are believed only when they can be true.
#[test]
fn impossible_kernel_stamps_are_not_believed() {
    for (out, back, wanted) in [
        (1_000_000, 1_500_000, (500.0, RttSource::Kernel)),
        // Set back in between.
        (1_000_000, 900_000, (2000.0, RttSource::User)),
        // Longer than the program itself waited.
        (1_000_000, 9_000_000, (2000.0, RttSource::User)),
    ] {
        let mut engine = Engine::new(one(ProbeKind::echo(HOST), 1), config());
        engine.advance(Moment(0));
        let transmit = engine.poll(Moment(0)).unwrap();
        let Packet::Ip { bytes, .. } = engine.prepare(&transmit, Local::Address((OWN_V4, 0).into())) else { panic!() };
        engine.sent(transmit.token, Moment(1_000_000));
        let mut reply = bytes;
        reply[0] = 0;
        let at = Received { user: Moment(3_000_000), kernel_ns: Some(back) };
        engine.on_icmp(IcmpFamily::V4, &Arrival { from: HOST, ttl: Some(64), at, bytes: &reply });
        // As it happens: the stamp of the sending is read after the answer.
        engine.stamp(transmit.token.0, out);
        let reply = &engine.finish_run(0).probes[0].replies[0];
        assert_eq!((reply.rtt_us.unwrap(), reply.rtt_source.unwrap()), wanted);
    }
}

proptest! {
    #[test]
    fn arrivals_of_any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..120), first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()], number in prop_oneof![Just(1u8), Just(6), Just(17), Just(58)]) {
        let mut engine = Engine::new(one(ProbeKind::echo(HOST), 1), config());
        let mut bytes = bytes;
        if bytes.len() > 9 { bytes[0] = first; bytes[9] = number; bytes[6] = if first == 0x60 { number } else { 0 }; }
        let at = Received { user: Moment(5), kernel_ns: Some(7) };
        engine.on_ip(&bytes, at);
        engine.on_frame("eth0", &bytes, at);
        engine.on_sent_stamp(&bytes, 3);
        for family in [IcmpFamily::V4, IcmpFamily::V6] {
            engine.on_icmp(family, &Arrival { from: HOST, ttl: None, at, bytes: &bytes });
        }
        engine.on_tcp(&Arrival { from: HOST, ttl: None, at, bytes: &bytes });
        prop_assert!(engine.finish_run(0).probes[0].replies.is_empty());
    }

    /// However the network loses, delays and repeats: every probe ends, none twice, and what answers is told.
    #[test]
    fn every_probe_ends_once_in_any_weather(loss in 0u8..=100, twice in 0u8..=100, jitter in 0u32..300, seed in any::<u64>(), count in 1u32..40, rate in proptest::option::of(50u32..5000)) {
        let inner = host(Host { ports: HashMap::from([(22, Port::Open)]), ..Host::default() });
        let mut net = Weather { inner, loss_percent: loss, twice_percent: twice, jitter: Duration::from_millis(jitter.into()), seed };
        let kinds = [ProbeKind::echo(HOST), ProbeKind::syn(HOST, 22), ProbeKind::syn(HOST, 23), ProbeKind::udp(HOST, 22, b"x"), ProbeKind::udp(HOST, 23, b"x")];
        let specs: Vec<_> = (0..count).map(|id| ProbeSpec::new(id, kinds[id as usize % 5].clone()).tries(3, 50 * MS)).collect();
        let (report, events) = run(specs, Config { rate, ..config() }, &mut net);
        prop_assert!(report.complete);
        let done = events.iter().filter(|event| matches!(event, Event::Done { .. })).count();
        prop_assert_eq!(done, count as usize);
        prop_assert_eq!(report.strays, Strays::default());
        for probe in &report.probes {
            let conclusive = probe.replies.iter().filter(|reply| !reply.duplicate && !reply.late).count();
            prop_assert_eq!(conclusive, usize::from(probe.outcome != Outcome::Silent));
            let wanted = [Outcome::Answered, Outcome::Answered, Outcome::Refused, Outcome::Answered, Outcome::IcmpError][probe.id as usize % 5];
            prop_assert!(probe.outcome == wanted || (probe.outcome == Outcome::Silent && (loss > 0)));
            for reply in &probe.replies {
                let rtt = reply.rtt_us.unwrap();
                prop_assert!((2000.0..=(2010.0 + 1000.0 * f64::from(jitter))).contains(&rtt), "{}", rtt);
            }
        }
    }

    /// The kernel's program never drops what is wanted; and what is plainly not wanted, it drops.
    #[test]
    fn a_flow_filter_loses_nothing(
        ends in any::<[u8; 4]>(), v6 in any::<bool>(), number in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), Just(47)], ports in any::<[u8; 4]>(),
        quoted in any::<bool>(), kind in prop_oneof![Just(3u8), Just(1), Just(11), Just(136), Just(0)], link in prop_oneof![Just(14usize), Just(0)], fragment in any::<bool>(),
        flow_protocol in proptest::option::of(prop_oneof![Just(6u8), Just(17), Just(1)]), flow_ports in any::<[Option<bool>; 2]>(), errors in any::<bool>(), neighbours in any::<bool>(),
    ) {
        // Few values each, so that hits and near misses are both common.
        let address = |n: u8| -> IpAddr { if v6 { format!("2001:db8::{}", n % 2).parse().unwrap() } else { Ipv4Addr::new(10, 0, 0, n % 2).into() } };
        let port = |n: u8| 1000 + u16::from(n % 2);
        let (src, dst) = (address(ends[0]), address(ends[1]));
        let flow = Flow { a: Some(address(ends[2])), b: Some(address(ends[3])), protocol: flow_protocol, a_port: flow_ports[0].map(|n| port(n.into())), b_port: flow_ports[1].map(|n| port(n.into())) };
        let filter = FlowFilter { flows: vec![flow], icmp_errors: errors, neighbours };
        let upper = match number {
            6 => TcpHeader::new(port(ports[0]), port(ports[1]), TcpFlags::SYN).segment(src, dst, b"abc"),
            17 => UdpHeader::datagram(src, dst, port(ports[0]), port(ports[1]), b"abc"),
            _ => IcmpHeader { family: if number == 58 { IcmpFamily::V6 } else { IcmpFamily::V4 }, kind, code: 0, checksum: 0, rest: [0; 4] }.message(src, dst, &[0; 24]),
        };
        let mut packet = ip_packet(src, dst, number, 64, &upper);
        if quoted {
            packet = icmp_error(address(ports[2]), &packet, if v6 { 1 } else { kind }, 0, 8).unwrap();
        }
        if fragment && !v6 { packet[7] = 3; }
        let decoded = Decoded::parse(Encapsulation::Ip, &packet);
        let wanted = filter.matches(&decoded);
        let mut frame = vec![0; link];
        frame.extend(&packet);
        let kept = bpf::machine::run(&filter.program(), &frame, link, if v6 { ethertype::IPV6 } else { ethertype::IPV4 }) > 0;
        prop_assert!(kept || !wanted, "lost: {} {:?}", decoded, filter);
        let strange = !quoted && !fragment && number != 1 && number != 58;
        prop_assert!(!(strange && kept && !wanted), "kept: {} {:?}", decoded, filter);
    }
}

#[test]
fn raw_socket_programs_take_ours_and_refuse_others() {
    let wanted = bpf::Wanted { echo_ids: (100, 102), tcp_ports: Some((40000, 40010)) };
    let taken = |program: &[bpf::Instruction], packet: &[u8]| bpf::machine::run(program, packet, 0, 0) > 0;
    let own: IpAddr = OWN_V4.into();
    let echo = |id, request| {
        let message = IcmpHeader::new_echo(IcmpFamily::V4, request, id, 1).message(HOST, own, &[0; 8]);
        ip_packet(HOST, own, protocol::ICMP, 64, &message)
    };
    let syn = |sport| ip_packet(own, HOST, 6, 64, &TcpHeader::new(sport, 22, TcpFlags::SYN).segment(own, HOST, &[]));
    let program = bpf::raw_icmp4(&wanted);
    assert!(taken(&program, &echo(100, false)) && taken(&program, &echo(102, false)));
    assert!(!taken(&program, &echo(103, false)) && !taken(&program, &echo(100, true)));
    assert!(taken(&program, &icmp_error(ROUTER, &syn(40000), 3, 1, 8).unwrap()));
    assert!(!taken(&program, &icmp_error(ROUTER, &syn(39999), 3, 1, 8).unwrap()));
    assert!(taken(&program, &icmp_error(ROUTER, &echo(101, true), 11, 0, 8).unwrap()));
    // Options in the quoted header move what is behind them.
    let optioned =
        Ipv4Header { options: HexBytes(vec![1; 8]), ..Ipv4Header::new(OWN_V4, Ipv4Addr::new(192, 0, 2, 9), 6) };
    let optioned = optioned.packet(&syn(40001)[20..]);
    assert!(taken(&program, &icmp_error(ROUTER, &optioned, 3, 1, 8).unwrap()));

    let (own6, host6): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::9".parse().unwrap());
    let program = bpf::raw_icmp6(&wanted);
    let syn6 =
        |sport| ip_packet(own6, host6, 6, 64, &TcpHeader::new(sport, 22, TcpFlags::SYN).segment(own6, host6, &[]));
    let reply = |id| IcmpHeader::new_echo(IcmpFamily::V6, false, id, 1).message(host6, own6, &[0; 8]);
    assert!(taken(&program, &reply(101)) && !taken(&program, &reply(99)));
    assert!(taken(&program, &icmp_error(host6, &syn6(40010), 1, 0, 8).unwrap()[40..]));
    assert!(!taken(&program, &icmp_error(host6, &syn6(40011), 1, 0, 8).unwrap()[40..]));

    let answer = TcpHeader::new(22, 40005, TcpFlags::SYN).segment(HOST, own, &[]);
    assert!(taken(&bpf::raw_tcp(true, (40000, 40010)), &answer));
    assert!(taken(&bpf::raw_tcp(false, (40000, 40010)), &ip_packet(HOST, own, 6, 64, &answer)));
    assert!(!taken(&bpf::raw_tcp(false, (40006, 40010)), &ip_packet(HOST, own, 6, 64, &answer)));
}
