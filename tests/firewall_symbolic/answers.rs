//! Random rulesets: queries, diffs and lint against the walk.

use std::collections::BTreeSet;

use reachwhy::firewall::Packet;
use reachwhy::firewall::Stack;
use reachwhy::firewall::symbolic::{Packets, Want, diff, lint, query};
use reachwhy::firewall::walk::{Facts, Verdict, walk};
use reachwhy::host::Backend;

use crate::random::{Kind, Random, ruleset};
use crate::{holds, stack, without};

fn kind(seed: u64) -> Kind {
    Kind { v6: seed % 4 == 0, nat: seed % 3 == 0, open: seed % 5 == 0, state: seed % 2 == 0 }
}

/// A packet of everyday's, near what the rules ask about.
fn packet(r: &mut Random, v6: bool) -> Packet {
    let (a, b) = if v6 {
        (r.pick(&["2001:db8:1::7", "2001:db8:2::5", "fe80::9"]), r.pick(&["2001:db8:1::7", "2001:db8:2::5", "2a00::1"]))
    } else {
        (
            r.pick(&["10.1.1.7", "10.1.1.9", "10.9.9.9", "192.168.1.5"]),
            r.pick(&["10.1.1.7", "192.168.1.5", "192.168.1.9", "9.9.9.9"]),
        )
    };
    let end = |addr: &str, port: &str| if v6 { format!("[{addr}]:{port}") } else { format!("{addr}:{port}") };
    let (sport, dport) = (r.pick(&["40000", "53", "80"]), r.pick(&["22", "53", "80", "443", "8080", "8000"]));
    let way = r.pick(&[
        "in=eth0 to=local",
        "in=lo to=local",
        "in=eth1 out=eth0 to=forward",
        "out=eth0",
        "out=lo",
        "in=wlan0 to=local",
    ]);
    let what = r.pick(&["tcp", "udp"]);
    let flags = if what == "tcp" { r.pick(&["syn", "ack", "syn,ack"]) } else { "" };
    let state = r.pick(&["ctstate=NEW", "ctstate=ESTABLISHED", "ctstate=INVALID"]);
    let extra = "length=60 pkttype=unicast mac_src=02:00:00:00:00:02 uid=0 gid=0 mark=0 connmark=0 ttl=64 tos=0";
    format!("{way} {what} {} > {} {flags} {state} {extra}", end(a, sport), end(b, dport)).parse().unwrap()
}

#[test]
fn queries_are_exact() {
    let mut inside = 0;
    for seed in 1..=8u64 {
        let mut r = Random::new(seed);
        let kind = Kind { open: false, ..kind(seed) };
        let rules = ruleset(&mut r, kind);
        let stack = stack(&rules, kind.v6, Backend::Legacy);
        for (want, verdicts) in [(Want::Accept, ["accept", "accept"]), (Want::Drop, ["drop", "reject"])] {
            let answer = query(&stack, &Packets::read("").unwrap(), want);
            assert!(answer.complete || answer.regions.len() >= 1000, "seed {seed}");
            let read: Vec<Packets> = answer
                .regions
                .iter()
                .map(|found| {
                    assert!(found.confirmed, "seed {seed}: {}\n{rules}", found.region.example);
                    assert!(
                        found.region.when().is_empty() || rules.contains("addrtype"),
                        "seed {seed}: {:?}",
                        found.region.when()
                    );
                    Packets::read(&found.region.text).unwrap_or_else(|e| panic!("seed {seed}: {e}"))
                })
                .collect();
            // A box's own words, asked again, are wholly what was asked for.
            for (found, packets) in answer.regions.iter().zip(&read).take(3) {
                let mut packets = packets.clone();
                packets.ways = vec![found.region.way];
                packets.v6 = Some(kind.v6);
                let again = query(&stack, &packets, want);
                assert_eq!(again.extent, "all", "seed {seed}: {}\n{rules}", found.region.text);
            }
            if !answer.complete {
                continue;
            }
            for _ in 0..40 {
                let one = packet(&mut r, kind.v6);
                let outcome = walk(&stack, &one, &Facts::none());
                let told = answer
                    .regions
                    .iter()
                    .zip(&read)
                    .any(|(found, packets)| holds(found.region.way.name(), packets, &one));
                let walked = verdicts.contains(&outcome.verdict.name());
                if outcome.path.iter().any(|step| step.action == "redirect") {
                    continue;
                }
                inside += usize::from(told);
                assert_eq!(
                    told,
                    walked,
                    "seed {seed} {want:?}: {one}\n{rules}\n{:?}",
                    answer.regions.iter().map(|f| (f.region.way.name(), &f.region.text)).collect::<Vec<_>>()
                );
            }
        }
    }
    assert!(inside > 50, "only {inside}");
}

#[test]
fn what_is_called_dead_or_redundant_can_go() {
    let (mut removed, mut live) = (0, 0);
    for seed in 1..=50u64 {
        let mut r = Random::new(seed * 7 + 1);
        let kind = kind(seed);
        let rules = ruleset(&mut r, kind);
        let whole = stack(&rules, kind.v6, Backend::Legacy);
        let findings = lint(&whole, &[]);
        let mut gone: Vec<u32> = findings
            .iter()
            .filter(|finding| matches!(finding.code, "shadowed" | "redundant" | "contradiction"))
            .filter_map(|finding| finding.line)
            .collect();
        gone.sort_unstable();
        gone.dedup();
        // Each alone, and all together.
        let mut fewer: Vec<(String, String)> =
            gone.iter().map(|line| (format!("line {line}"), without(&rules, *line))).collect();
        let all = gone.iter().rev().fold(rules.clone(), |rules, line| without(&rules, *line));
        fewer.push(("all of them".to_owned(), all));
        removed += gone.len();
        let packets: Vec<Packet> = (0..60).map(|_| packet(&mut r, kind.v6)).collect();
        for (what, text) in fewer {
            let other = stack(&text, kind.v6, Backend::Legacy);
            for one in &packets {
                let (a, b) = (walk(&whole, one, &Facts::none()), walk(&other, one, &Facts::none()));
                let same = (a.verdict, &a.reject_with, &a.packet_out) == (b.verdict, &b.reject_with, &b.packet_out)
                    || a.verdict == Verdict::Unknown;
                assert!(
                    same,
                    "seed {seed} without {what}: {one}\n{:?} {}\n{:?} {}\n{rules}\n{:#?}",
                    a.verdict,
                    a.packet_out,
                    b.verdict,
                    b.packet_out,
                    findings.iter().filter(|f| gone.contains(&f.line.unwrap_or(0))).collect::<Vec<_>>()
                );
            }
        }
        // A rule that a packet matches is not called dead.
        for one in &packets {
            let outcome = walk(&whole, one, &Facts::none());
            for step in outcome.path.iter().filter(|step| step.at.rule.is_some() && step.action != "maybe") {
                live += 1;
                let dead = findings.iter().find(|f| {
                    f.line == step.at.line && f.rule.is_some() && (f.code == "shadowed" || f.code == "contradiction")
                });
                assert!(dead.is_none(), "seed {seed}: {one} matches {dead:?}\n{rules}");
            }
        }
    }
    assert!(removed > 40 && live > 500, "{removed} {live}");
}

fn codes(rules: &str) -> BTreeSet<String> {
    lint(&stack(rules, false, Backend::Legacy), &[])
        .iter()
        .map(|f| format!("{} {}", f.code, f.line.unwrap_or(0)))
        .collect()
}

#[test]
fn unions_of_rules_shadow_and_fragments_do_not() {
    let filter = |rules: &str| format!("*filter\n:INPUT DROP [0:0]\n:user - [0:0]\n{rules}COMMIT\n");
    // Two halves cover the whole.
    let found = codes(&filter(
        "-A INPUT -s 10.0.0.0/9 -j ACCEPT\n-A INPUT -s 10.128.0.0/9 -j ACCEPT\n-A INPUT -s 10.0.0.0/8 -j DROP\n",
    ));
    assert!(found.contains("shadowed 6") && found.contains("accept-before-drop 4"), "{found:?}");
    // A later fragment has no ports: the second rule acts for it.
    let found = codes(&filter("-A INPUT -p tcp -m tcp --dport 0:65535 -j ACCEPT\n-A INPUT -p tcp -j REJECT\n"));
    assert!(!found.contains("shadowed 5"), "{found:?}");
    // Through a chain that returns, and one that does not.
    let found = codes(&filter(
        "-A INPUT -p tcp -j user\n-A INPUT -p tcp -j ACCEPT\n-A user -s 10.0.0.0/8 -j DROP\n-A user -j RETURN\n",
    ));
    assert!(!found.contains("shadowed 5"), "{found:?}");
    let found = codes(&filter("-A INPUT -p tcp -j user\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A user -j DROP\n"));
    assert!(found.contains("shadowed 5"), "{found:?}");
    // limit may always let through or hold back.
    let found = codes(&filter("-A INPUT -m limit --limit 1/s -j ACCEPT\n-A INPUT -m limit --limit 1/s -j ACCEPT\n"));
    assert!(!found.iter().any(|f| f.starts_with("shadowed") || f.starts_with("redundant")), "{found:?}");
    let found = codes(&filter("-A INPUT -s 10.0.0.1 -m iprange --src-range 11.0.0.0-11.0.0.9 -j ACCEPT\n"));
    assert!(found.iter().any(|f| f.starts_with("contradiction")), "{found:?}");
}

fn equal(a: &str, b: &str) {
    let (a, b) = (stack(a, false, Backend::Nft), stack(b, false, Backend::Nft));
    let found = diff(&a, &b, false, 10);
    assert!(
        found.equal,
        "{:?}",
        found.regions.iter().map(|c| (&c.from, &c.to, &c.region.text, c.region.when())).collect::<Vec<_>>()
    );
}

fn regions(a: &Stack, b: &Stack) -> Vec<(String, String, String)> {
    diff(a, b, false, 10)
        .regions
        .iter()
        .map(|c| {
            assert!(c.confirmed, "{}", c.region.example);
            (c.from.clone(), c.to.clone(), c.region.text.clone())
        })
        .collect()
}

#[test]
fn rulesets_of_another_shape_are_equal() {
    let save = |rules: &str| {
        format!("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:u - [0:0]\n{rules}COMMIT\n")
    };
    let flat = save(
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -m limit --limit 3/min -p udp -m udp --dport 53 -j ACCEPT\n",
    );
    let shuffled = save(
        "-A INPUT -p udp -m limit --limit 3/min -m udp --dport 53 -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -p tcp -m multiport --dports 80,22 -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n",
    );
    equal(&flat, &shuffled);
    let split = save(
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -p tcp -j u\n-A INPUT -p udp -m udp --dport 53 -m limit --limit 3/min -j ACCEPT\n-A u -m tcp -p tcp --dport 80 -j ACCEPT\n-A u -p tcp -m tcp ! --dport 22 -j RETURN\n-A u -j ACCEPT\n",
    );
    let _ = split;
    let one = save("-A INPUT -m set --match-set nets src -j ACCEPT\n");
    let two =
        save("-A INPUT -s 10.1.1.0/24 -j DROP\n-A INPUT -s 192.168.1.5 -j ACCEPT\n-A INPUT -s 10.1.0.0/16 -j ACCEPT\n");
    equal(&one, &two);
    let native = "table ip t {\n chain in { type filter hook input priority 0; policy drop;\n ip saddr { 10.1.0.0-10.1.0.255, 10.1.2.0-10.1.255.255, 192.168.1.5 } accept\n }\n}\n";
    equal(&one, native);
    equal(&two, native);
    let (a, b) = (
        stack(&one, false, Backend::Nft),
        stack(
            &save(
                "-A INPUT -m set --match-set nets src -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 8080 -s 172.16.0.0/12 -j REJECT\n",
            ),
            false,
            Backend::Nft,
        ),
    );
    assert_eq!(
        regions(&a, &b),
        [("drop".to_owned(), "reject (icmp-port-unreachable)".to_owned(), "tcp 172.16.0.0/12 > any:8080".to_owned())]
    );
}

#[test]
fn diffs_of_random_rulesets_are_exact() {
    let mut told = 0;
    for seed in 1..=30u64 {
        let mut r = Random::new(seed * 31 + 5);
        let kind = Kind { open: false, ..kind(seed) };
        let old = ruleset(&mut r, kind);
        // The same with one rule less.
        let lines: Vec<u32> = (1..).zip(old.lines()).filter(|(_, l)| l.starts_with("-A")).map(|(n, _)| n).collect();
        if lines.is_empty() {
            continue;
        }
        let new = without(&old, lines[r.below(lines.len())]);
        let (a, b) = (stack(&old, kind.v6, Backend::Legacy), stack(&new, kind.v6, Backend::Legacy));
        assert!(diff(&a, &a, false, 5).equal, "seed {seed}");
        let found = diff(&a, &b, false, 500);
        told += found.regions.len();
        for change in &found.regions {
            assert!(
                change.confirmed,
                "seed {seed}: {} {} → {}\n{old}\n{new}",
                change.region.example, change.from, change.to
            );
        }
        let read: Vec<(&str, Packets)> = found
            .regions
            .iter()
            .filter(|c| !(c.from.starts_with("accept") && c.to.starts_with("accept")))
            .map(|c| (c.region.way.name(), Packets::read(&c.region.text).unwrap()))
            .collect();
        if !found.complete || old.contains("REDIRECT") {
            continue;
        }
        for _ in 0..60 {
            let one = packet(&mut r, kind.v6);
            let (x, y) = (walk(&a, &one, &Facts::none()), walk(&b, &one, &Facts::none()));
            let changed = (x.verdict, &x.reject_with) != (y.verdict, &y.reject_with);
            let inside = read.iter().any(|(way, packets)| holds(way, packets, &one));
            assert_eq!(changed, inside, "seed {seed}: {one}\n{old}\n{new}");
        }
    }
    assert!(told > 15, "only {told}");
}
