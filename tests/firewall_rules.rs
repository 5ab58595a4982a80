//! The example rulesets do what their policies claim.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use reachwhy::firewall::symbolic::{Policy, check};
use reachwhy::firewall::{Facts, Packet, Stack, Verdict, fix, parse, ruleset::TcpFlags, walk::walk};

fn rules_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules")
}

fn load(name: &str) -> Stack {
    let path = rules_dir().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let (stack, issues) = Stack::from_dumps(&[parse::guess(&text, name)]);
    assert!(issues.is_empty(), "{name}: {}", issues[0]);
    stack
}

#[test]
fn every_policy_holds() {
    let mut checked = 0;
    for entry in std::fs::read_dir(rules_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".policy.toml") else { continue };
        let stack = load(&format!("{stem}.rules"));
        let text = std::fs::read_to_string(rules_dir().join(&name)).unwrap();
        for check in check(&stack, &Policy::read(&text, &name).unwrap()) {
            assert!(check.ok, "{name}: {}: {:?} {:?}", check.name, check.reason, check.example);
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} claims were found");
}

#[test]
fn every_example_is_read_without_a_warning() {
    let mut read = 0;
    for entry in std::fs::read_dir(rules_dir()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|e| e == "rules") {
            load(&name);
            read += 1;
        }
    }
    assert!(read >= 5);
}

fn reply() -> Packet {
    let (api, client) = ("192.168.1.3".parse().unwrap(), "192.168.1.2".parse().unwrap());
    let mut packet = Packet::tcp(api, 8080, client, 45_678, TcpFlags(0x12));
    packet.out = Some("eth0".to_owned());
    packet
}

#[test]
fn the_missing_reply_rule_is_named_and_mended() {
    let healthy = load("api-server.rules");
    let outcome = walk(&healthy, &reply(), &Facts::none());
    assert_eq!(outcome.verdict, Verdict::Accept);
    assert_eq!(outcome.decided_by.unwrap().place(), "ip filter OUTPUT rule 3");

    let broken = load("api-server-reply-missing.rules");
    let request: Packet = "in=eth0 tcp 192.168.1.2:45678 > 192.168.1.3:8080 syn".parse().unwrap();
    let outcome = walk(&broken, &request, &Facts::none());
    assert_eq!(outcome.decided_by.unwrap().place(), "ip filter INPUT rule 3");

    let outcome = walk(&broken, &reply(), &Facts::none());
    assert_eq!(outcome.verdict, Verdict::Drop);
    let by = outcome.decided_by.clone().unwrap();
    assert_eq!((by.chain.as_str(), by.rule, by.text.as_str()), ("OUTPUT", None, "policy DROP"));

    let fix = fix::allow(&broken, &outcome, &reply()).unwrap();
    assert_eq!(fix.command, "iptables -A OUTPUT -p tcp --sport 8080 -j ACCEPT");
    assert_eq!(fix.undo, "iptables -D OUTPUT -p tcp --sport 8080 -j ACCEPT");
    let mut mended = broken.rulesets()[0].clone();
    assert!(fix.apply(&mut mended));
    let outcome = walk(&Stack::from_rulesets([mended.clone()]), &reply(), &Facts::none());
    assert_eq!(outcome.verdict, Verdict::Accept);
    assert!(mended.to_string().contains("-A OUTPUT -p tcp -m tcp --sport 8080 -j ACCEPT"));
}

#[test]
fn the_stateless_pair_opens_nothing_outwards() {
    let stack = load("ssh-stateless-pair.rules");
    for (packet, verdict) in [
        ("in=eth0 tcp 10.0.0.9:50000 > 10.0.0.1:22 syn", Verdict::Accept),
        ("out=eth0 tcp 10.0.0.1:22 > 10.0.0.9:50000 syn,ack", Verdict::Accept),
        ("out=eth0 tcp 10.0.0.1:22 > 10.0.0.9:50000 ack", Verdict::Accept),
        ("out=eth0 tcp 10.0.0.1:22 > 10.0.0.9:50000 syn", Verdict::Drop),
        ("in=eth0 tcp 10.0.0.9:50000 > 10.0.0.1:23 syn", Verdict::Drop),
    ] {
        let packet: Packet = packet.parse().unwrap();
        assert_eq!(walk(&stack, &packet, &Facts::none()).verdict, verdict, "{packet}");
    }
}
