//! The decision table, row by row.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::port::locate::{AtTtl, Sweep};

const PORTS: [u16; 6] = [22, 80, 81, 82, 83, 84];

fn host() -> IpAddr {
    [10, 0, 9, 9].into()
}

fn router(hop: u8) -> IpAddr {
    [10, 0, hop, 1].into()
}

fn said(answer: Answer, by: IpAddr, ttl: u8) -> Evidence {
    Evidence { answer, by, ttl: Some(ttl), rtt: None, number: Some(1) }
}

fn reset(ttl: u8) -> Evidence {
    said(Answer::Reset { window: 0 }, host(), ttl)
}

fn open(ttl: u8) -> Evidence {
    said(Answer::SynAck { window: 64240, options: true }, host(), ttl)
}

fn icmp(code: u8, by: IpAddr, ttl: u8) -> Evidence {
    said(Answer::Icmp { v6: false, kind: 3, code }, by, ttl)
}

/// Routers up to `last`; then, where there is one, the final answer from `begins` on.
fn sweep(last: u8, begins: Option<u8>) -> Sweep {
    let mut hops: BTreeMap<u8, AtTtl> = (1..=last).map(|hop| (hop, AtTtl::Router(router(hop)))).collect();
    hops.extend(begins.into_iter().flat_map(|begins| begins..12).map(|hop| (hop, AtTtl::Final(host()))));
    Sweep { hops }
}

fn case(seen: &HostSeen, technique: Technique, nearness: Nearness, neighbour: Option<bool>) -> HostCase<'_> {
    HostCase {
        name: "host",
        address: host(),
        via: None,
        technique,
        ports: &PORTS,
        seen,
        nearness,
        neighbour,
        partial: false,
    }
}

fn judged(seen: &HostSeen, located: &Located) -> HostReport {
    case(seen, Technique::Syn, Nearness::Routed, None).judge(located, &Services::default())
}

fn verdicts(report: &HostReport) -> Vec<(u16, Verdict, Option<u8>)> {
    report.ports.iter().map(|port| (port.port, port.verdict, port.hop)).collect()
}

#[test]
fn a_forged_reset_is_betrayed_by_its_ttl_and_located_by_the_sweep() {
    // Nine hops away; the firewall is the fifth: its resets have passed four routers, the host's eight.
    let seen = HostSeen { answers: vec![(0, open(56)), (1, reset(60)), (2, reset(56))], ..HostSeen::default() };
    let case = case(&seen, Technique::Syn, Nearness::Routed, None);
    let plan = case.sweep().expect("there is something to look at");
    assert_eq!(plan.ports, [80], "the one that is suspect");
    // A router lets its own TTL run out before it forges: from six on.
    for begins in [5, 6] {
        let located = Located { ports: [(80, sweep(begins - 1, Some(begins)))].into(), echo: sweep(8, Some(9)) };
        let report = case.judge(&located, &Services::default());
        assert_eq!(
            verdicts(&report),
            [(22, Verdict::Open, None), (80, Verdict::ForgedReset, Some(5)), (81, Verdict::ClosedByHost, None)]
        );
        assert_eq!((report.ports[1].hop_address, report.distance), (located.router(5), Some(9)));
    }
}

#[test]
fn the_last_router_before_the_host_forges_from_the_same_ttl_as_the_host() {
    let seen = HostSeen { answers: vec![(0, open(63)), (1, reset(64))], ..HostSeen::default() };
    let located = Located { ports: [(80, sweep(1, Some(2)))].into(), echo: sweep(1, Some(2)) };
    let report = judged(&seen, &located);
    assert_eq!(verdicts(&report)[1], (80, Verdict::ForgedReset, Some(1)));
    assert_eq!(report.ports[1].hop_address, Some(router(1)));
}

#[test]
fn another_ttl_alone_convicts_nobody_when_the_sweep_reaches_the_host() {
    // The answer has a higher starting TTL than the echo's, but it begins where the host is.
    let seen = HostSeen { answers: vec![(0, open(56)), (1, reset(240))], ..HostSeen::default() };
    let located = Located { ports: [(80, sweep(8, Some(9)))].into(), echo: sweep(8, Some(9)) };
    assert_eq!(verdicts(&judged(&seen, &located))[1].1, Verdict::ClosedByHost);
    // And nothing is odd where all come alike.
    let seen = HostSeen { answers: vec![(0, open(56)), (1, reset(56))], ..HostSeen::default() };
    assert_eq!(verdicts(&judged(&seen, &Located::default()))[1].1, Verdict::ClosedByHost);
    // Resets begin with 255 on some systems, SYN-ACKs with 64: the distance is the same.
    let seen = HostSeen { answers: vec![(0, open(56)), (1, reset(247))], ..HostSeen::default() };
    assert_eq!(verdicts(&judged(&seen, &Located::default()))[1].1, Verdict::ClosedByHost);
}

#[test]
fn who_rejects_is_who_says_so() {
    let seen = HostSeen {
        answers: vec![
            (0, open(56)),
            (1, icmp(3, host(), 56)),
            (2, icmp(13, router(5), 60)),
            (3, icmp(3, router(5), 60)),
        ],
        ..HostSeen::default()
    };
    let located = Located { ports: BTreeMap::new(), echo: sweep(8, Some(9)) };
    let report = judged(&seen, &located);
    assert_eq!(
        verdicts(&report)[1..],
        [
            (80, Verdict::RejectedByHost, None),
            (81, Verdict::RejectedOnTheWay, Some(5)),
            (82, Verdict::RejectedOnTheWay, Some(5))
        ]
    );
    assert!(report.ports[1..].iter().all(|port| port.state == State::Filtered));
}

#[test]
fn silence_is_placed_by_what_was_heard_last() {
    let seen = HostSeen { answers: vec![(0, open(56))], silent: vec![1, 2], ..HostSeen::default() };
    let at = |last: u8| Located { ports: [(80, sweep(last, None))].into(), echo: sweep(8, Some(9)) };
    assert_eq!(
        verdicts(&judged(&seen, &at(5)))[1..],
        [(80, Verdict::DroppedOnTheWay, Some(5)), (81, Verdict::DroppedOnTheWay, Some(5))]
    );
    assert_eq!(verdicts(&judged(&seen, &at(8)))[1], (80, Verdict::DroppedAtTheEnd, Some(8)));
    assert_eq!(verdicts(&judged(&seen, &Located::default()))[1], (80, Verdict::Dropped, None));
    let near =
        case(&seen, Technique::Syn, Nearness::OnLink, Some(true)).judge(&Located::default(), &Services::default());
    assert_eq!(near.ports[1].verdict, Verdict::DroppedByHost);
}

#[test]
fn a_host_is_up_down_or_not_known() {
    let silent = HostSeen { silent: vec![0], ..HostSeen::default() };
    let up = |seen: &HostSeen, nearness, neighbour| {
        case(seen, Technique::Syn, nearness, neighbour).judge(&Located::default(), &Services::default()).host_up
    };
    assert_eq!(up(&silent, Nearness::Routed, None), None, "nothing tells");
    assert_eq!(up(&silent, Nearness::OnLink, Some(false)), Some(false));
    assert_eq!(up(&silent, Nearness::OnLink, Some(true)), Some(true));
    let down = HostSeen { answers: vec![(0, icmp(1, router(8), 57))], ..HostSeen::default() };
    assert_eq!(up(&down, Nearness::Routed, None), Some(false));
    // A firewall of the host's own that says "host unreachable" is up to say so.
    let own = HostSeen { answers: vec![(0, icmp(1, host(), 57))], ..HostSeen::default() };
    assert_eq!(up(&own, Nearness::Routed, None), Some(true));
    // So is one whose port is filtered by a router, when the echo came back.
    let echo = Some(said(Answer::Echo, host(), 56));
    let filtered = HostSeen { echo, answers: vec![(0, icmp(1, router(8), 57))], ..HostSeen::default() };
    assert_eq!(up(&filtered, Nearness::Routed, None), Some(true));
}

#[test]
fn udp_and_flag_scans_speak_nmap_s_words() {
    let seen = HostSeen {
        answers: vec![
            (0, icmp(3, host(), 56)),
            (1, icmp(3, router(5), 60)),
            (2, said(Answer::Data(vec![1]), host(), 56)),
        ],
        silent: vec![3],
        ..HostSeen::default()
    };
    let report = case(&seen, Technique::Udp, Nearness::Routed, None).judge(&Located::default(), &Services::default());
    let told: Vec<_> = report.ports.iter().map(|port| (port.state, port.reason)).collect();
    assert_eq!(
        told,
        [
            (State::Closed, "port-unreach"),
            (State::Filtered, "port-unreach"),
            (State::Open, "udp-response"),
            (State::OpenOrFiltered, "no-response")
        ]
    );
    let seen = HostSeen { answers: vec![(0, reset(56))], silent: vec![1], ..HostSeen::default() };
    for (technique, wanted) in [
        (Technique::Ack, [State::Unfiltered, State::Filtered]),
        (Technique::Fin, [State::Closed, State::OpenOrFiltered]),
        (Technique::Xmas, [State::Closed, State::OpenOrFiltered]),
    ] {
        let report = case(&seen, technique, Nearness::Routed, None).judge(&Located::default(), &Services::default());
        assert_eq!([report.ports[0].state, report.ports[1].state], wanted);
    }
}
