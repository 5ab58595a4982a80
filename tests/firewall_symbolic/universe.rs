//! Small universes, packet by packet: rules speak of few values, and every combination of them (and
//! of one value more of each) goes through the walk. What is said of all packets must be so for each.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use reachwhy::firewall::symbolic::{Packets, Policy, RuleName, Want, check, diff, lint, of_rule, query};
use reachwhy::firewall::walk::{Facts, Outcome, walk};
use reachwhy::firewall::{Packet, Stack};
use reachwhy::host::Backend;

use crate::random::Random;
use crate::{holds, stack, without};

/// What rules and packets speak of.
struct Words {
    v6: bool,
    nets: [&'static str; 4],
    hosts: [&'static str; 3],
    other: &'static str,
}

const FOUR: Words = Words {
    v6: false,
    nets: ["10.1.1.0/24", "10.1.1.7", "192.168.1.0/24", "192.168.1.5"],
    hosts: ["10.1.1.7", "10.1.1.9", "192.168.1.5"],
    other: "9.9.9.9",
};
const SIX: Words = Words {
    v6: true,
    nets: ["2001:db8:1::/48", "2001:db8:1::7", "2001:db8:2::/48", "2001:db8:2::5"],
    hosts: ["2001:db8:1::7", "2001:db8:1::9", "2001:db8:2::5"],
    other: "2a00::1",
};

fn condition(r: &mut Random, words: &Words, hook: &str) -> String {
    let mut text = String::new();
    let not = |r: &mut Random| if r.chance(25) { "! " } else { "" };
    for side in ["-s", "-d"] {
        if r.chance(35) {
            let _ = write!(text, " {}{side} {}", not(r), r.pick(&words.nets));
        }
    }
    if r.chance(20) && matches!(hook, "INPUT" | "PREROUTING") {
        let _ = write!(text, " {}-i {}", not(r), r.pick(&["eth0", "lo", "eth+"]));
    }
    if r.chance(45) {
        let proto = r.pick(&["tcp", "udp"]);
        let _ = write!(text, " -p {proto} -m {proto}");
        if r.chance(70) {
            let _ = write!(text, " {}--dport {}", not(r), r.pick(&["22", "53", "22:53"]));
        }
        if proto == "tcp" && r.chance(20) {
            let _ = write!(text, " {}--syn", not(r));
        }
    }
    if r.chance(15) {
        let _ = write!(text, " -m conntrack {}--ctstate {}", not(r), r.pick(&["NEW", "ESTABLISHED", "INVALID,NEW"]));
    }
    if r.chance(20) {
        let _ = write!(text, " -m mark {}--mark {}", not(r), r.pick(&["1", "2/2"]));
    }
    if r.chance(10) && !words.v6 {
        let _ = write!(text, " -m set {}--match-set nets {}", not(r), r.pick(&["src", "dst"]));
    }
    text
}

/// Random rules over the words: chains that call, go to and return, marks from mangle, NAT.
fn rules(r: &mut Random, words: &Words, nat: bool) -> String {
    let mut out = "*mangle\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    for _ in 0..r.below(3) {
        let mark = r.pick(&["--set-xmark 0x1/0xffffffff", "--set-xmark 0x2/0x2", "--set-xmark 0x0/0x1"]);
        let _ = writeln!(out, "-A PREROUTING{} -j MARK {mark}", condition(r, words, "PREROUTING"));
    }
    out.push_str("COMMIT\n");
    if nat {
        out.push_str(
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n",
        );
        for _ in 0..2 {
            let target = if words.v6 { "[2001:db8:2::5]:22" } else { "192.168.1.5:22" };
            let port = r.pick(&["22", "53"]);
            let _ = writeln!(out, "-A PREROUTING -p tcp -m tcp --dport {port} -j DNAT --to-destination {target}");
        }
        out.push_str("COMMIT\n");
    }
    out.push_str("*filter\n");
    for hook in ["INPUT", "FORWARD", "OUTPUT"] {
        let _ = writeln!(out, ":{hook} {} [0:0]", r.pick(&["ACCEPT", "DROP"]));
    }
    out.push_str(":one - [0:0]\n:two - [0:0]\n");
    for (chain, calls) in
        [("INPUT", &["one", "two"][..]), ("FORWARD", &["two"]), ("OUTPUT", &["one"]), ("one", &["two"]), ("two", &[])]
    {
        for _ in 0..=r.below(5) {
            let target = match r.below(10) {
                0..=2 => "-j ACCEPT",
                3..=5 => "-j DROP",
                6 => "-j REJECT",
                7 if chain.starts_with(char::is_lowercase) => "-j RETURN",
                _ => match r.below(calls.len() + 1).checked_sub(1).and_then(|n| calls.get(n)) {
                    Some(&"one") => "-j one",
                    Some(_) if r.chance(40) => "-g two",
                    Some(_) => "-j two",
                    None => "-j ACCEPT",
                },
            };
            let _ = writeln!(out, "-A {chain}{} {target}", condition(r, words, chain));
        }
    }
    out.push_str("COMMIT\n");
    out
}

/// Every packet of the universe.
fn every(words: &Words) -> Vec<Packet> {
    let mut packets = Vec::new();
    let ends: Vec<&str> = words.hosts.into_iter().chain([words.other]).collect();
    let end = |addr: &str, port: &str| if words.v6 { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") };
    for way in ["in=eth0 to=local", "in=lo to=local", "in=wlan0 to=local", "in=eth0 out=eth1 to=forward", "out=eth0"] {
        for (src, dst) in ends.iter().flat_map(|src| ends.iter().map(move |dst| (src, dst))) {
            for (what, flags) in [("tcp", "syn"), ("tcp", "ack"), ("udp", "")] {
                for port in ["22", "53", "80"] {
                    for (state, mark) in [("NEW", 0), ("ESTABLISHED", 3), ("INVALID", 0), ("NEW", 2)] {
                        let text = format!(
                            "{way} {what} {} > {} {flags} ctstate={state} length=60 pkttype=unicast \
                             mac_src=02:00:00:00:00:02 uid=0 gid=0 mark={mark} connmark=0 ttl=64 tos=0",
                            end(src, "40000"),
                            end(dst, port)
                        );
                        packets.push(text.parse().unwrap());
                    }
                }
            }
        }
    }
    packets
}

type Fates = Vec<(String, Option<String>)>;

fn fates(stack: &Stack, packets: &[Packet]) -> (Vec<Outcome>, Fates) {
    let outcomes: Vec<Outcome> = packets.iter().map(|packet| walk(stack, packet, &Facts::none())).collect();
    let fates = outcomes.iter().map(|o| (o.verdict.name().to_owned(), o.reject_with.clone())).collect();
    (outcomes, fates)
}

fn each_seed(seeds: std::ops::RangeInclusive<u64>, mut run: impl FnMut(u64, &mut Random, &Words, bool, &[Packet])) {
    let universes = [every(&FOUR), every(&SIX)];
    for seed in seeds {
        let words = if seed % 3 == 0 { &SIX } else { &FOUR };
        run(seed, &mut Random::new(seed * 77 + 3), words, seed % 2 == 0, &universes[usize::from(words.v6)]);
    }
}

#[test]
fn lint_calls_dead_what_no_packet_meets_and_live_what_some_packet_meets() {
    let (mut dead, mut live, mut removed) = (0, 0, 0);
    each_seed(1..=18, |seed, r, words, nat, packets| {
        let text = rules(r, words, nat);
        let whole = stack(&text, words.v6, Backend::Legacy);
        let (outcomes, before) = fates(&whole, packets);
        let met: BTreeSet<u32> =
            outcomes.iter().flat_map(|o| &o.path).filter(|s| s.at.rule.is_some()).filter_map(|s| s.at.line).collect();
        let findings = lint(&whole, &[]);
        let of = |codes: &[&str]| -> BTreeSet<u32> {
            findings.iter().filter(|f| codes.contains(&f.code)).filter_map(|f| f.line).collect()
        };
        // A rule that is redundant may act, and lose nothing.
        let never: BTreeSet<u32> = findings
            .iter()
            .filter(|f| {
                matches!(f.code, "shadowed" | "contradiction")
                    || f.code == "redundant" && f.message.contains("never acts")
            })
            .filter_map(|f| f.line)
            .collect();
        let empty: BTreeSet<String> =
            findings.iter().filter(|f| f.code.ends_with("-chain")).map(|f| f.chain.clone()).collect();
        for (n, line) in (1u32..).zip(text.lines()).filter(|(_, l)| l.starts_with("-A ")) {
            let chain = line.split(' ').nth(1).unwrap_or("");
            // Who sends to a chain that nobody comes to is told instead of its rules.
            if empty.contains(chain) {
                assert!(!met.contains(&n), "seed {seed}: line {n} of an empty chain is met\n{text}");
                continue;
            }
            assert!(!(never.contains(&n) && met.contains(&n)), "seed {seed}: line {n} is called dead and met\n{text}");
            dead += usize::from(never.contains(&n));
            live += usize::from(met.contains(&n));
            if never.contains(&n) || met.contains(&n) {
                continue;
            }
            // Called live, and no packet of the universe meets it: then its witness lies outside.
            let name = RuleName::read(&format!("line:{n}")).unwrap();
            let witness = of_rule(&whole, &Packets::read("").unwrap(), &name, true).unwrap();
            let example =
                &witness.regions.first().unwrap_or_else(|| panic!("seed {seed}: line {n}: no witness\n{text}"));
            let outcome = walk(&whole, &example.region.example, &Facts::none());
            let seen = outcome.path.iter().any(|step| step.at.line == Some(n) && step.at.rule.is_some());
            assert!(seen, "seed {seed}: line {n}: {} does not come there\n{text}", example.region.example);
        }
        for line in of(&["shadowed", "redundant", "contradiction"]) {
            let other = stack(&without(&text, line), words.v6, Backend::Legacy);
            removed += 1;
            let (_, after) = fates(&other, packets);
            let at = before.iter().zip(&after).position(|(a, b)| a != b);
            assert!(at.is_none(), "seed {seed}: without line {line} {}\n{text}", packets[at.unwrap_or(0)]);
        }
    });
    assert!(dead > 12 && live > 90 && removed > 15, "{dead} {live} {removed}");
}

#[test]
fn queries_diffs_and_checks_hold_for_each_packet() {
    let (mut inside, mut changed, mut proved, mut refuted) = (0, 0, 0, 0);
    each_seed(101..=106, |seed, r, words, nat, packets| {
        let old = rules(r, words, nat);
        let lines: Vec<u32> = (1..).zip(old.lines()).filter(|(_, l)| l.starts_with("-A")).map(|(n, _)| n).collect();
        let new = without(&old, lines[r.below(lines.len())]);
        let (a, b) = (stack(&old, words.v6, Backend::Legacy), stack(&new, words.v6, Backend::Legacy));
        let (before, after) = (fates(&a, packets).1, fates(&b, packets).1);
        let some: Vec<usize> = (0..packets.len()).filter(|_| r.chance(4)).collect();
        let found = query(&a, &Packets::read("").unwrap(), Want::Accept);
        let boxes: Vec<(&str, Packets)> =
            found.regions.iter().map(|f| (f.region.way.name(), Packets::read(&f.region.text).unwrap())).collect();
        for n in some.iter().copied().filter(|_| found.complete) {
            let told = boxes.iter().any(|(way, set)| holds(way, set, &packets[n]));
            inside += usize::from(told);
            assert_eq!(told, before[n].0 == "accept", "seed {seed}: {}\n{old}", packets[n]);
        }
        let found = diff(&a, &b, false, 500);
        assert!(found.regions.iter().all(|change| change.confirmed), "seed {seed}\n{old}\n{new}");
        let boxes: Vec<(&str, Packets)> = found
            .regions
            .iter()
            .filter(|c| !(c.from.starts_with("accept") && c.to.starts_with("accept")))
            .map(|c| (c.region.way.name(), Packets::read(&c.region.text).unwrap()))
            .collect();
        for n in (0..packets.len()).filter(|n| found.complete && (before[*n] != after[*n] || some.contains(n))) {
            let told = boxes.iter().any(|(way, set)| holds(way, set, &packets[n]));
            changed += usize::from(told);
            if changed > 400 {
                break;
            }
            assert_eq!(told, before[n] != after[n], "seed {seed}: {}\n{old}\n{new}", packets[n]);
        }
        // Claims about sets that the universe holds a packet of each kind of.
        for n in 0..16 {
            let way = r.pick(&["in=eth0 to=local", "in=eth0 out=eth1 to=forward", "hook=output out=eth0"]);
            let (what, port) = (r.pick(&["tcp", "udp"]), r.pick(&["22", "53", "80"]));
            let (src, dst) = (r.pick(&words.hosts), r.pick(&words.hosts));
            let state = r.pick(&["NEW", "ESTABLISHED"]);
            let end =
                if words.v6 { (format!("[{src}]"), format!("[{dst}]")) } else { (src.to_owned(), dst.to_owned()) };
            let fixed = "length=60 pkttype=unicast mac_src=02:00:00:00:00:02 uid=0 gid=0 connmark=0 ttl=64 tos=0";
            let set = format!("{way} {what} {}:40000 > {}:{port} ctstate={state} mark=0-3 {fixed}", end.0, end.1);
            let (expect, quantifier) = (r.pick(&["accept", "drop"]), r.pick(&["all", "some"]));
            let policy = format!(
                "[[check]]\nname = \"{n}\"\nexpect = \"{expect}\"\nfor = \"{quantifier}\"\npackets = \"{set}\"\n"
            );
            let policy = Policy::read(&policy, "policy").unwrap_or_else(|e| panic!("{e}\n{policy}"));
            let checked = check(&a, &policy);
            // The same by hand: every mark, flags as rules tell them apart.
            let mut verdicts = Vec::new();
            for (mark, flags) in (0..4).flat_map(|mark| ["syn", "ack"].map(|flags| (mark, flags))) {
                let flags = if what == "tcp" { flags } else { "" };
                let one = set.replace("mark=0-3", &format!("{flags} mark={mark}"));
                let outcome = walk(&a, &one.parse().unwrap(), &Facts::none());
                verdicts.push(if expect == "drop" {
                    matches!(outcome.verdict.name(), "drop" | "reject")
                } else {
                    outcome.verdict.name() == expect
                });
            }
            let holds = if quantifier == "all" { verdicts.iter().all(|v| *v) } else { verdicts.iter().any(|v| *v) };
            assert_eq!(
                checked[0].ok, holds,
                "seed {seed}: {set} {expect} {quantifier} {:?}\n{old}",
                checked[0].example
            );
            if holds { proved += 1 } else { refuted += 1 }
        }
    });
    assert!(inside > 90 && changed > 10 && proved > 10 && refuted > 10, "{inside} {changed} {proved} {refuted}");
}
