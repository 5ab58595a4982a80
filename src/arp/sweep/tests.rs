use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;
use crate::wire::{Arp, ArpOperation, EtherHeader, ethertype};

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn speaker() -> Speaker {
    Speaker { mac: US, ip: Some("10.0.0.1".parse().unwrap()) }
}

fn mac(n: u32) -> MacAddr {
    let mut octets = [2, 1, 0, 0, 0, 0];
    octets[2..].copy_from_slice(&n.to_be_bytes());
    MacAddr(octets)
}

fn reply(from: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let arp =
        Arp { operation: ArpOperation::Reply, sender_mac: from, sender_ip: sender, target_mac: US, target_ip: target };
    [EtherHeader { dst: US, src: from, vlans: vec![], ethertype: ethertype::ARP }.emit(), arp.emit()].concat()
}

/// A link in memory: who has what, how long a reply takes, what is lost.
struct Net {
    hosts: BTreeMap<Ipv4Addr, Vec<MacAddr>>,
    delay: u64,
    loss: f64,
    chance: ChaCha8Rng,
    /// Requests by address, and when each was sent.
    asked: BTreeMap<Ipv4Addr, Vec<u64>>,
    /// The most that left within ten milliseconds.
    busiest: usize,
}

impl Net {
    fn new(hosts: &[(u32, &[u32])], delay: u64, loss: f64, seed: u64) -> Self {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0));
        Self {
            hosts: hosts
                .iter()
                .map(|(ip, macs)| (Ipv4Addr::from(base + ip), macs.iter().map(|n| mac(*n)).collect()))
                .collect(),
            delay,
            loss,
            chance: ChaCha8Rng::seed_from_u64(seed),
            asked: BTreeMap::new(),
            busiest: 0,
        }
    }

    fn lost(&mut self) -> bool {
        #[allow(clippy::cast_precision_loss)]
        let draw = (self.chance.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0;
        draw < self.loss
    }

    /// Drives a sweep to its end; gives its outcome.
    fn run(&mut self, sweep: &mut Sweep) -> SweepOutcome {
        let mut now = 1_000_000_000;
        let mut replies: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>> = BinaryHeap::new();
        let mut number = 0;
        let mut times: Vec<u64> = Vec::new();
        loop {
            let mut out = Vec::new();
            let step = sweep.poll(now, &mut out);
            for frame in out {
                let target = Ipv4Addr::new(frame.bytes[38], frame.bytes[39], frame.bytes[40], frame.bytes[41]);
                self.asked.entry(target).or_default().push(now);
                times.push(now);
                sweep.sent(frame.token, now);
                for mac in self.hosts.get(&target).cloned().unwrap_or_default() {
                    if self.lost() || self.lost() {
                        continue;
                    }
                    number += 1;
                    let to = Ipv4Addr::new(frame.bytes[28], frame.bytes[29], frame.bytes[30], frame.bytes[31]);
                    replies.push(Reverse((now + self.delay, number, reply(mac, target, to))));
                }
            }
            let Step::Until(until) = step else { break };
            match replies.peek() {
                Some(Reverse((at, ..))) if *at <= until => {
                    let Some(Reverse((at, _, frame))) = replies.pop() else { unreachable!() };
                    now = now.max(at);
                    sweep.heard(now, &frame);
                }
                _ => now = now.max(until),
            }
            assert!(now < 10_000_000_000_000, "it does not end");
        }
        times.sort_unstable();
        self.busiest = times.windows(400).filter(|run| run[399] - run[0] < 10_000_000).count();
        sweep.outcome()
    }
}

fn targets(text: &str) -> Targets {
    Targets::parse([text]).unwrap()
}

fn found(outcome: &SweepOutcome) -> BTreeSet<IpAddr> {
    outcome.answers.keys().copied().collect()
}

#[test]
fn a_quiet_network_is_done_in_a_third_of_a_second() {
    let mut net = Net::new(&[(5, &[5]), (9, &[9]), (200, &[1])], 50_000, 0.0, 1);
    let mut sweep = Sweep::new(speaker(), targets("10.0.0.0/24"), &[], Plan::LOCAL);
    let outcome = net.run(&mut sweep);
    assert_eq!((outcome.answers.len(), outcome.rounds, outcome.complete), (3, 3, true));
    assert!(outcome.took < 500 * MS, "{}", outcome.took);
    assert_eq!((outcome.asked, net.asked.len()), (256, 256));
    assert_eq!(outcome.loss, Some(0.0));
    for responders in outcome.answers.values() {
        assert_eq!(responders[0].rtt_ns, Some(50_000));
    }
}

#[test]
fn many_who_answer_at_once_prove_the_link_in_two_rounds() {
    let hosts: Vec<(u32, Vec<u32>)> = (0..500).map(|n| (n * 7 % 4093 + 2, vec![n])).collect();
    let hosts: Vec<(u32, &[u32])> = hosts.iter().map(|(ip, macs)| (*ip, macs.as_slice())).collect();
    let mut net = Net::new(&hosts, 100_000, 0.0, 1);
    let outcome =
        net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/20"), &[], Plan { rate: 50_000.0, ..Plan::LOCAL }));
    assert_eq!((outcome.answers.len(), outcome.rounds), (net.hosts.len(), 2));
}

#[test]
fn a_link_that_loses_gets_more_rounds_and_nobody_is_missed() {
    let hosts: Vec<(u32, Vec<u32>)> = (0..60).map(|n| (n * 37 % 251 + 2, vec![n])).collect();
    let hosts: Vec<(u32, &[u32])> = hosts.iter().map(|(ip, macs)| (*ip, macs.as_slice())).collect();
    let mut missed = 0;
    for seed in 0..200 {
        let mut net = Net::new(&hosts, 300_000, 0.05, seed);
        let outcome = net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/24"), &[], Plan { seed, ..Plan::LOCAL }));
        missed += net.hosts.len() - outcome.answers.len();
        assert!(outcome.rounds <= MOST_ROUNDS && outcome.took < 2000 * MS, "{outcome:?}");
    }
    // 12,000 stations, each of whose exchanges fails in one of ten cases.
    assert!(missed <= 3, "{missed} missed");
}

#[test]
fn the_rate_is_kept() {
    let mut net = Net::new(&[], 0, 0.0, 1);
    let plan = Plan { rate: 1000.0, rounds: Some(1), ..Plan::LOCAL };
    let outcome = net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/22"), &[], plan));
    assert_eq!(outcome.sent, 1024);
    assert!(outcome.took > 1000 * MS, "{}", outcome.took);
    assert_eq!(net.busiest, 0);
}

#[test]
fn no_address_is_asked_for_again_too_soon() {
    let mut net = Net::new(&[], 0, 0.0, 1);
    let outcome = net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/26"), &[], Plan::LOCAL));
    assert_eq!(outcome.rounds, 3);
    for times in net.asked.values() {
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Plan::LOCAL.gap), "{times:?}");
    }
}

#[test]
fn two_stations_for_one_address_are_both_seen_again_and_again() {
    let mut net = Net::new(&[(5, &[5, 6])], 50_000, 0.0, 1);
    let outcome = net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/28"), &[], Plan::LOCAL));
    let responders = &outcome.answers[&"10.0.0.5".parse::<IpAddr>().unwrap()];
    assert_eq!(responders.iter().map(|one| one.rounds).collect::<Vec<_>>(), [0b111, 0b111]);
}

#[test]
fn slow_proxies_are_waited_for() {
    let mut net = Net::new(&[(5, &[5])], 700 * MS, 0.0, 1);
    let outcome =
        net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/28"), &[], Plan { last: 150 * MS, ..Plan::LOCAL }));
    // Its reply comes after three rounds: it is found as long as anything is still open.
    assert!(outcome.took < 3000 * MS);
    let mut quick = Net::new(&[(5, &[5])], 90 * MS, 0.0, 1);
    let outcome = quick.run(&mut Sweep::new(speaker(), targets("10.0.0.0/28"), &[], Plan::LOCAL));
    assert_eq!(found(&outcome).len(), 1);
}

#[test]
fn our_own_address_is_asked_for_as_nobody() {
    let own: IpAddr = "10.0.0.1".parse().unwrap();
    let mut sweep = Sweep::new(speaker(), targets("10.0.0.0/30"), &[own], Plan::LOCAL);
    let mut out = Vec::new();
    sweep.poll(1, &mut out);
    for frame in &out {
        let nobody = frame.bytes[28..32] == [0; 4];
        assert_eq!(nobody, frame.bytes[38..42] == [10, 0, 0, 1]);
    }
    let mut net = Net::new(&[(1, &[7])], 50_000, 0.0, 1);
    let outcome = net.run(&mut Sweep::new(speaker(), targets("10.0.0.0/30"), &[own], Plan::LOCAL));
    assert_eq!(outcome.answers[&own][0].mac, mac(7));
}

#[test]
fn a_full_queue_and_lost_replies_slow_it_down() {
    let mut sweep = Sweep::new(speaker(), targets("10.0.0.0/24"), &[], Plan::LOCAL);
    let before = sweep.rate;
    sweep.congested(5);
    assert!(sweep.rate < before);
    sweep.overrun(3);
    let mut net = Net::new(&[], 0, 0.0, 1);
    let outcome = net.run(&mut sweep);
    assert_eq!((outcome.overrun, outcome.rounds), (3, 3));
}

#[test]
fn replies_that_were_not_asked_for_do_not_count() {
    let mut sweep = Sweep::new(speaker(), targets("10.0.0.0/28"), &[], Plan::LOCAL);
    let us = Ipv4Addr::new(10, 0, 0, 1);
    sweep.heard(1, &reply(mac(9), Ipv4Addr::new(10, 0, 0, 5), us));
    assert!(sweep.outcome().answers.is_empty(), "before anything was asked for");
    let mut out = Vec::new();
    sweep.poll(1, &mut out);
    for frame in &out {
        sweep.sent(frame.token, 1);
    }
    sweep.heard(2, &reply(mac(9), Ipv4Addr::new(10, 0, 0, 99), us));
    assert!(sweep.outcome().answers.is_empty(), "another address");
}

proptest! {
    #[test]
    fn every_address_is_asked_for_and_no_other(first in 0u32..5000, count in 1u32..600, seed: u64, rounds in 1u8..4) {
        let base = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + first;
        let text = format!("{}-{}", Ipv4Addr::from(base), Ipv4Addr::from(base + count - 1));
        let mut net = Net::new(&[(first, &[1])], 1000, 0.0, seed);
        let plan = Plan { seed, rounds: Some(rounds), ..Plan::LOCAL };
        let outcome = net.run(&mut Sweep::new(speaker(), targets(&text), &[], plan));
        let wanted: BTreeSet<Ipv4Addr> = (base..base + count).map(Ipv4Addr::from).collect();
        prop_assert_eq!(net.asked.keys().copied().collect::<BTreeSet<_>>(), wanted);
        prop_assert!(net.asked.values().all(|times| times.len() <= usize::from(rounds)));
        prop_assert_eq!((outcome.answers.len(), outcome.complete), (1, true));
    }

    #[test]
    fn no_frame_and_no_clock_is_a_panic(
        steps in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..70), any::<u64>()), 0..30)
    ) {
        let mut sweep = Sweep::new(speaker(), targets("10.0.0.0/24"), &[], Plan::LOCAL);
        for (now, frame, token) in steps {
            let _ = sweep.poll(now >> 2, &mut Vec::new());
            sweep.sent(token % 300, now >> 2);
            sweep.heard(now >> 2, &frame);
            let _ = (sweep.outcome(), sweep.progress());
        }
    }
}
