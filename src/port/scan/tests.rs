//! The engine against a network in memory, with a clock of its own.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What a port does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Open,
    Closed,
    Silent,
}

/// A path and a host.
struct World {
    kinds: Vec<Kind>,
    /// Lost exchanges, of 1000.
    loss: u64,
    rtt: Duration,
    /// Answers a second at most; beyond that the path loses.
    bears: Option<f64>,
    /// ICMP errors: a bucket of six, then this many a second.
    icmp: Option<f64>,
    echo: bool,
}

struct Run {
    seen: HostSeen,
    sent: u64,
    took: Duration,
}

fn host() -> IpAddr {
    [10, 0, 0, 2].into()
}

fn run(world: &World, technique: Technique, seed: u64) -> Run {
    let plan = Plan {
        hosts: vec![host()],
        ports: (1..=u16::try_from(world.kinds.len()).unwrap()).collect(),
        technique,
        secret: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        rate: None,
        floor: 4000.0,
        most_in_flight: None,
        tries: 10,
        timeout: None,
        echo: true,
        present: vec![true],
    };
    let mut chance = seed | 1;
    let mut lost = || {
        // xorshift64
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % 1000 < world.loss
    };
    let mut now = Moment(0);
    let mut at: BTreeMap<(Moment, u64), (Shot, Answer)> = BTreeMap::new();
    let (mut tokens, mut filled) = (20.0f64, Moment(0));
    let (mut errors, mut error_filled) = (6.0f64, Moment(0));
    let mut scan = Scan::new(plan, now);
    let (mut count, mut turns) = (0u64, 0u64);
    loop {
        while let Some(entry) = at.first_entry().filter(|entry| entry.key().0 <= now) {
            let (shot, answer) = entry.remove();
            let reply = Reply { number: Some(shot.number), by: host(), ttl: Some(63), answer };
            scan.heard(0, shot.aim, reply, now);
        }
        match scan.next(now) {
            Next::Done => break,
            Next::Wait(until) => {
                assert!(until > now, "waits for the past");
                turns += 1;
                assert!(turns < 1_000_000, "does not end: {scan:?}");
                now = at.first_key_value().map_or(until, |(key, _)| key.0.min(until));
            }
            Next::Send(shot) => {
                count += 1;
                assert!(count < 3_000_000, "does not end");
                let answer = match shot.aim {
                    Aim::Echo => world.echo.then_some(Answer::Echo),
                    Aim::Port(port) => match (world.kinds[port as usize], technique) {
                        (Kind::Silent, _) => None,
                        (Kind::Open, Technique::Udp) => Some(Answer::Data(vec![1])),
                        (Kind::Open, _) => Some(Answer::SynAck { window: 9, options: true }),
                        (Kind::Closed, Technique::Udp) => Some(Answer::Icmp { v6: false, kind: 3, code: 3 }),
                        (Kind::Closed, _) => Some(Answer::Reset { window: 0 }),
                    },
                };
                let fill = |tokens: &mut f64, since: &mut Moment, rate: f64, most: f64| {
                    *tokens = (*tokens + now.since(*since).as_secs_f64() * rate).min(most);
                    *since = now;
                    let pays = *tokens >= 1.0;
                    *tokens -= f64::from(u8::from(pays));
                    pays
                };
                let borne = world.bears.is_none_or(|rate| fill(&mut tokens, &mut filled, rate, 20.0));
                let told = match (&answer, world.icmp) {
                    (Some(Answer::Icmp { .. }), Some(rate)) => fill(&mut errors, &mut error_filled, rate, 6.0),
                    _ => true,
                };
                if let Some(answer) = answer.filter(|_| borne && told && !lost()) {
                    at.insert((now + world.rtt, count), (shot, answer));
                }
                // A packet takes its time to leave.
                now = now + Duration::from_micros(2);
            }
        }
    }
    let seen = scan.finish().remove(0);
    Run { seen, sent: count, took: now.since(Moment(0)) }
}

fn world(kinds: Vec<Kind>) -> World {
    World { kinds, loss: 0, rtt: Duration::from_micros(200), bears: None, icmp: None, echo: true }
}

fn mixed(open: usize, closed: usize, silent: usize) -> Vec<Kind> {
    let mut kinds = vec![Kind::Open; open];
    kinds.extend(vec![Kind::Closed; closed]);
    kinds.extend(vec![Kind::Silent; silent]);
    kinds
}

fn right(world: &World, run: &Run) {
    let mut told = vec![Kind::Silent; world.kinds.len()];
    for (port, evidence) in &run.seen.answers {
        told[*port as usize] =
            if matches!(evidence.answer, Answer::SynAck { .. } | Answer::Data(_)) { Kind::Open } else { Kind::Closed };
    }
    assert_eq!(told, world.kinds);
    assert_eq!(run.seen.unasked, 0);
    assert_eq!(run.seen.answers.len() + run.seen.silent.len(), world.kinds.len());
}

#[test]
fn a_quick_host_is_asked_quickly_and_once() {
    let world = world(mixed(3, 60_000, 0));
    let run = run(&world, Technique::Syn, 1);
    right(&world, &run);
    assert!(run.sent < 60_100, "{} sent", run.sent);
    assert!(run.took < Duration::from_millis(600), "{:?}", run.took);
}

#[test]
fn silent_ports_take_seconds_not_minutes() {
    for echo in [true, false] {
        let world = World { echo, ..world(mixed(0, 0, 2000)) };
        let run = run(&world, Technique::Syn, 1);
        right(&world, &run);
        assert!(run.took < Duration::from_secs(5), "echo {echo}: {:?} with {} probes", run.took, run.sent);
    }
}

#[test]
fn no_open_port_is_lost_with_one_exchange_in_ten() {
    for seed in 1..=100 {
        let lossy = World { loss: 98, rtt: Duration::from_millis(20), ..world(mixed(20, 150, 30)) };
        right(&lossy, &run(&lossy, Technique::Syn, seed));
        // And where hardly anything answers.
        let lossy = World { loss: 98, rtt: Duration::from_millis(20), ..world(mixed(3, 0, 40)) };
        right(&lossy, &run(&lossy, Technique::Syn, seed));
    }
}

#[test]
fn the_rate_that_a_path_bears_is_found() {
    for bears in [300.0, 2000.0, 20_000.0] {
        let world = World { bears: Some(bears), rtt: Duration::from_millis(10), ..world(mixed(10, 3000, 20)) };
        let run = run(&world, Technique::Syn, 3);
        right(&world, &run);
        let least = 3000.0 / bears;
        assert!(run.took.as_secs_f64() < least * 4.0 + 4.0, "{bears}: {:?} with {} probes", run.took, run.sent);
    }
}

#[test]
fn udp_outlasts_a_limit_on_icmp_errors() {
    let world = World { icmp: Some(1.0), ..world(mixed(2, 20, 3)) };
    let run = run(&world, Technique::Udp, 1);
    right(&world, &run);
    assert!(run.seen.icmp_limited);
    assert!(run.took < Duration::from_secs(60), "{:?}", run.took);
}

#[test]
fn udp_is_quick_where_errors_are_not_limited() {
    let world = world(mixed(2, 30, 60));
    let run = run(&world, Technique::Udp, 1);
    right(&world, &run);
    assert!(!run.seen.icmp_limited);
    assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
    // Fewer closed ports than the limit lets pass at once: nothing can be hidden.
    let few = World { icmp: Some(1.0), ..self::world(mixed(2, 4, 60)) };
    let run = self::run(&few, Technique::Udp, 1);
    right(&few, &run);
    assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
}

#[test]
fn a_user_s_rate_is_kept() {
    let plan_rate = 500;
    let mut scan = Scan::new(
        Plan {
            hosts: vec![host()],
            ports: (1..=2000).collect(),
            technique: Technique::Syn,
            secret: 5,
            rate: Some(plan_rate),
            floor: 20_000.0,
            most_in_flight: None,
            tries: 2,
            timeout: None,
            echo: false,
            present: vec![],
        },
        Moment(0),
    );
    let (mut now, mut sent) = (Moment(0), 0u32);
    while now < Moment(0) + Duration::from_secs(1) {
        match scan.next(now) {
            Next::Send(_) => sent += 1,
            Next::Wait(until) => now = until,
            Next::Done => break,
        }
    }
    assert!((450..=520).contains(&sent), "{sent}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn it_always_ends_and_every_port_is_told(
        kinds in proptest::collection::vec(prop_oneof![Just(Kind::Open), Just(Kind::Closed), Just(Kind::Silent)], 1..80),
        loss in 0u64..600, ms in 0u64..400, echo: bool, udp: bool, seed: u64,
    ) {
        let world = World { kinds, loss, rtt: Duration::from_millis(ms) + Duration::from_micros(10), bears: None, icmp: None, echo };
        let run = run(&world, if udp { Technique::Udp } else { Technique::Syn }, seed);
        prop_assert_eq!(run.seen.answers.len() + run.seen.silent.len(), world.kinds.len());
    }

    #[test]
    fn what_nobody_asked_for_changes_nothing(host in 0u32..4, port in 0u32..9, number: Option<u8>) {
        let plan = Plan { hosts: vec![super::tests::host()], ports: vec![1, 2], technique: Technique::Syn, secret: 1,
            rate: None, floor: 100.0, most_in_flight: None, tries: 3, timeout: None, echo: true, present: vec![] };
        let mut scan = Scan::new(plan, Moment(0));
        let reply = Reply { number, by: super::tests::host(), ttl: None, answer: Answer::Reset { window: 0 } };
        scan.heard(host, Aim::Port(port), reply, Moment(5));
        prop_assert!(scan.finish()[0].answers.is_empty());
    }
}
