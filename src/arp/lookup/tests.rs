use std::net::Ipv4Addr;

use super::*;
use crate::wire::{Arp, ArpOperation, EtherHeader, IcmpFamily, IcmpHeader, Ipv4Header, ethertype};

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

fn question(count: u32) -> Question {
    Question {
        target: "10.0.0.5".parse().unwrap(),
        count,
        interval: 100 * MS,
        patience: 1000 * MS,
        verify: true,
        id: 77,
    }
}

fn reply(from: MacAddr) -> Vec<u8> {
    let arp = Arp {
        operation: ArpOperation::Reply,
        sender_mac: from,
        sender_ip: "10.0.0.5".parse().unwrap(),
        target_mac: US,
        target_ip: "10.0.0.1".parse().unwrap(),
    };
    [EtherHeader { dst: US, src: from, vlans: vec![], ethertype: ethertype::ARP }.emit(), arp.emit()].concat()
}

fn echo_reply(from: MacAddr, sequence: u16) -> Vec<u8> {
    let (src, dst): (Ipv4Addr, Ipv4Addr) = ("10.0.0.5".parse().unwrap(), "10.0.0.1".parse().unwrap());
    let message = IcmpHeader::new_echo(IcmpFamily::V4, false, 77, sequence).message(src.into(), dst.into(), b"");
    let ether = EtherHeader { dst: US, src: from, vlans: vec![], ethertype: ethertype::IPV4 };
    [ether.emit(), Ipv4Header::new(src, dst, 1).packet(&message)].concat()
}

/// Drives a lookup: `answer` says what comes back for each frame, and after how long.
fn run(count: u32, mut answer: impl FnMut(usize, &[u8]) -> Vec<(u64, Vec<u8>)>) -> (Lookup, Vec<Vec<u8>>) {
    let speaker = Speaker { mac: US, ip: Some("10.0.0.1".parse().unwrap()) };
    let mut lookup = Lookup::new(speaker, question(count));
    let (mut now, mut coming, mut all) = (0u64, Vec::<(u64, Vec<u8>)>::new(), Vec::new());
    loop {
        let mut out = Vec::new();
        let step = lookup.poll(now, &mut out);
        for frame in out {
            lookup.sent(frame.token, now);
            coming.extend(answer(all.len(), &frame.bytes).into_iter().map(|(after, bytes)| (now + after, bytes)));
            all.push(frame.bytes);
        }
        let Step::Until(until) = step else { return (lookup, all) };
        coming.sort_by_key(|(at, _)| Reverse(*at));
        match coming.pop_if(|(at, _)| *at <= until) {
            Some((at, bytes)) => {
                now = at;
                lookup.heard(now, &bytes);
            }
            None => now = until.max(now),
        }
    }
}

use std::cmp::Reverse;

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
}

#[test]
fn one_answer_ends_it_at_once() {
    let (lookup, frames) =
        run(1, |_, frame| if is_arp(frame) { vec![(80_000, reply(A))] } else { vec![(60_000, echo_reply(A, 0))] });
    assert_eq!(lookup.responders()[0].rtt_ns, Some(80_000));
    assert!(lookup.took() <= 80_000 + 5 * MS, "{}", lookup.took());
    assert_eq!((frames.len(), lookup.trials()[0].outcome.clone()), (2, TrialOutcome::Owns { reply_from: A, ttl: 64 }));
    // The echo goes to the one who answered, for the address itself, and no further.
    assert_eq!((&frames[1][..6], &frames[1][30..34], frames[1][22]), (&A.0[..], &[10, 0, 0, 5][..], 1));
}

#[test]
fn two_answers_are_both_heard_and_tried() {
    let (lookup, frames) = run(1, |_, frame| {
        if is_arp(frame) {
            vec![(50_000, reply(A)), (900_000, reply(B)), (950_000, reply(A))]
        } else {
            vec![(1, echo_reply(A, u16::from(frame[..6] == B.0)))]
        }
    });
    assert_eq!(lookup.responders().iter().map(|one| (one.mac, one.replies)).collect::<Vec<_>>(), [(A, 2), (B, 1)]);
    assert_eq!(frames.len(), 3);
    assert!(lookup.trials().iter().all(|trial| trial.outcome == TrialOutcome::Owns { reply_from: A, ttl: 64 }));
}

#[test]
fn silence_is_asked_again_with_patience() {
    let (lookup, frames) = run(1, |_, _| Vec::new());
    assert!(lookup.responders().is_empty() && frames.iter().all(|frame| is_arp(frame)));
    assert!((4..=6).contains(&frames.len()) && lookup.took() == 1000 * MS, "{}", frames.len());
    // The third request is heard.
    let (lookup, _) =
        run(1, |number, frame| if is_arp(frame) && number == 2 { vec![(70_000, reply(A))] } else { Vec::new() });
    assert_eq!(lookup.responders()[0].rtt_ns, Some(70_000));
}

#[test]
fn several_requests_are_counted_one_by_one() {
    let (lookup, _) =
        run(4, |number, frame| if is_arp(frame) && number != 3 { vec![(40_000, reply(A))] } else { Vec::new() });
    let answered: Vec<usize> = lookup.asked().iter().map(|asked| asked.answers.len()).collect();
    assert_eq!(answered.iter().sum::<usize>(), 3);
    assert_eq!(answered.len(), 4);
    assert!(lookup.took() < 600 * MS);
}

#[test]
fn nobody_is_handed_an_echo_when_that_was_forbidden() {
    let speaker = Speaker { mac: US, ip: Some("10.0.0.1".parse().unwrap()) };
    let mut lookup = Lookup::new(speaker, Question { verify: false, ..question(1) });
    let mut out = Vec::new();
    lookup.poll(0, &mut out);
    lookup.sent(0, 0);
    lookup.heard(10, &reply(A));
    out.clear();
    lookup.poll(20, &mut out);
    assert!(out.is_empty());
}

proptest::proptest! {
    #[test]
    fn no_frame_is_a_panic(frames in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..90), 0..20)) {
        let speaker = Speaker { mac: US, ip: None };
        let mut lookup = Lookup::new(speaker, question(3));
        let mut out = Vec::new();
        for (now, frame) in (0..).zip(frames) {
            lookup.poll(now * MS, &mut out);
            for frame in out.drain(..) {
                lookup.sent(frame.token, now * MS);
            }
            lookup.heard(now * MS, &frame);
        }
    }
}
