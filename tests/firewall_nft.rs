//! Native nf_tables rulesets, as `nft -j list ruleset` prints them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use reachwhy::firewall::{Facts, Outcome, Packet, Stack, fix, walk::walk};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};
use serde_json::{Value, json};

fn dump(format: DumpFormat, text: String) -> RulesetDump {
    RulesetDump { format, backend: Backend::Nft, via: "nft -j".to_owned(), text }
}

/// A table `inet t` with an input chain of policy drop, a chain `sub`, two sets and a map.
fn stack(rules: &[Value]) -> Stack {
    let chain =
        |name: &str, handle: u32| json!({"chain": {"family": "inet", "table": "t", "name": name, "handle": handle}});
    let mut items = vec![
        json!({"metainfo": {"version": "1.0.6", "json_schema_version": 1}}),
        json!({"table": {"family": "inet", "name": "t", "handle": 1}}),
        json!({"set": {"family": "inet", "name": "bad", "table": "t", "type": "ipv4_addr", "flags": ["interval"],
            "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"elem": {"val": "192.168.1.5", "timeout": 60}}]}}),
        json!({"map": {"family": "inet", "name": "vm", "table": "t", "type": "inet_service", "map": "verdict",
            "elem": [[22, {"accept": null}], [23, {"drop": null}]]}}),
        json!({"chain": {"family": "inet", "table": "t", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}),
        chain("sub", 2),
        json!({"rule": {"family": "inet", "table": "t", "chain": "sub", "handle": 90, "expr": [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}}),
    ];
    for (index, expr) in rules.iter().enumerate() {
        items.push(
            json!({"rule": {"family": "inet", "table": "t", "chain": "input", "handle": 10 + index, "expr": expr}}),
        );
    }
    let text = json!({ "nftables": items }).to_string();
    let (stack, issues) = Stack::from_dumps(&[dump(DumpFormat::NftJson, text)]);
    for issue in issues {
        assert!(matches!(issue, reachwhy::firewall::Issue::Odd(_)), "{issue}");
    }
    stack
}

fn ask(stack: &Stack, packet: &str) -> Outcome {
    let packet: Packet = packet.parse().unwrap_or_else(|e| panic!("{e}"));
    walk(stack, &packet, &Facts::none())
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn matches(op: &str, left: &Value, right: &Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

const SYN: &str = "hook=input in=eth0 tcp 10.0.0.9:40000 > 192.168.7.1:22 syn";

#[test]
fn matches_in_every_shape() {
    let accept = json!({"accept": null});
    let ct = json!({"ct": {"key": "state"}});
    let flags = payload("tcp", "flags");
    let mark = json!({"meta": {"key": "mark"}});
    for (statement, packet, verdict) in [
        (matches("==", &payload("tcp", "dport"), &json!(22)), SYN, "accept"),
        (matches("!=", &payload("tcp", "dport"), &json!(22)), SYN, "drop"),
        (matches("!=", &payload("tcp", "dport"), &json!({"set": [1, 2]})), SYN, "accept"),
        // A header that is not there ends the rule, negated or not.
        (matches("!=", &payload("udp", "dport"), &json!(1)), SYN, "drop"),
        (matches("==", &payload("th", "dport"), &json!({"set": [{"range": [20, 30]}]})), SYN, "accept"),
        (matches("==", &payload("ip", "saddr"), &json!({"prefix": {"addr": "10.0.0.0", "len": 24}})), SYN, "accept"),
        (matches("==", &payload("ip", "saddr"), &json!("@bad")), SYN, "accept"),
        (matches("!=", &payload("ip", "saddr"), &json!("@bad")), SYN, "drop"),
        (matches("==", &payload("ip", "daddr"), &json!("@bad")), "hook=input tcp 1.1.1.1:1 > 192.168.1.5:2", "accept"),
        (matches("==", &payload("ip6", "saddr"), &json!("fd00::1")), SYN, "drop"),
        (
            matches("==", &payload("ip6", "saddr"), &json!("fd00::1")),
            "hook=input tcp [fd00::1]:1 > [fd00::2]:2",
            "accept",
        ),
        (matches("in", &ct, &json!(["established", "related"])), SYN, "drop"),
        (matches("in", &ct, &json!(["established", "new"])), SYN, "accept"),
        (matches("in", &ct, &json!("new")), SYN, "accept"),
        (matches("in", &flags, &json!("syn")), SYN, "accept"),
        (matches("==", &json!({"&": [flags, ["syn", "ack"]]}), &json!("syn")), SYN, "accept"),
        (matches("==", &json!({"&": [flags, {"|": ["syn", "ack"]}]}), &json!("ack")), SYN, "drop"),
        (matches("!=", &json!({"&": [flags, ["syn", "ack"]]}), &json!("syn")), SYN, "drop"),
        (matches("==", &json!({"meta": {"key": "iifname"}}), &json!("eth*")), SYN, "accept"),
        (matches("==", &json!({"meta": {"key": "iif"}}), &json!("lo")), SYN, "drop"),
        (matches("==", &json!({"meta": {"key": "l4proto"}}), &json!({"set": ["tcp", "udp"]})), SYN, "accept"),
        (
            matches("==", &json!({"&": [mark, 255]}), &json!(16)),
            "hook=input tcp 1.1.1.1:1 > 2.2.2.2:2 mark=0xf10",
            "accept",
        ),
        (matches("<", &payload("ip", "ttl"), &json!(5)), "hook=input ttl=4 tcp 1.1.1.1:1 > 2.2.2.2:2", "accept"),
        (matches(">=", &payload("tcp", "dport"), &json!(23)), SYN, "drop"),
        (
            matches("==", &payload("icmp", "type"), &json!("echo-request")),
            "hook=input icmp 1.1.1.1 > 2.2.2.2 ping",
            "accept",
        ),
        (
            matches(
                "==",
                &json!({"concat": [payload("ip", "saddr"), payload("tcp", "dport")]}),
                &json!({"set": [{"concat": ["10.0.0.9", {"range": [20, 30]}]}]}),
            ),
            SYN,
            "accept",
        ),
        (matches("==", &json!({"fib": {"result": "type", "flags": ["daddr"]}}), &json!("local")), SYN, "unknown"),
        (matches("==", &json!({"socket": {"key": "transparent"}}), &json!(1)), SYN, "unknown"),
        (json!({"limit": {"rate": 5, "per": "second"}}), SYN, "unknown"),
        (json!({"xt": {"type": "match", "name": "string"}}), SYN, "unknown"),
    ] {
        let outcome = ask(&stack(&[json!([statement, accept])]), packet);
        assert_eq!(outcome.verdict.name(), verdict, "{statement}\n{packet}\n{outcome:#?}");
    }
}

#[test]
fn verdicts_maps_and_statements() {
    let dport = payload("tcp", "dport");
    for (rules, verdict, by) in [
        (vec![json!([{"vmap": {"key": dport, "data": "@vm"}}])], "accept", "input 1"),
        (
            vec![
                json!([{"vmap": {"key": dport, "data": {"set": [[{"range": [20, 30]}, {"jump": {"target": "sub"}}]]}}}]),
            ],
            "reject",
            "sub 1",
        ),
        (
            vec![json!([{"vmap": {"key": dport, "data": {"set": [["*", {"accept": null}], [22, {"drop": null}]]}}}])],
            "drop",
            "input 1",
        ),
        (
            vec![json!([{"vmap": {"key": dport, "data": {"set": [[80, {"drop": null}]]}}}]), json!([{"accept": null}])],
            "accept",
            "input 2",
        ),
        (
            vec![
                json!([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}]),
                json!([matches("==", &json!({"meta": {"key": "mark"}}), &json!(5)), {"accept": null}]),
            ],
            "accept",
            "input 2",
        ),
        (
            vec![json!([{"log": {"prefix": "x"}}, {"counter": {"packets": 3, "bytes": 9}}, {"accept": null}])],
            "accept",
            "input 1",
        ),
        (vec![json!([{"goto": {"target": "sub"}}]), json!([{"accept": null}])], "reject", "sub 1"),
        (vec![json!([{"return": null}]), json!([{"accept": null}])], "drop", "input policy"),
        (vec![json!([{"reject": {"type": "tcp reset"}}])], "reject", "input 1"),
        (vec![json!([{"queue": {"num": 1}}])], "queue", "input 1"),
    ] {
        let outcome = ask(&stack(&rules), SYN);
        let place = outcome
            .decided_by
            .as_ref()
            .map(|by| format!("{} {}", by.chain, by.rule.map_or("policy".to_owned(), |n| n.to_string())));
        assert_eq!((outcome.verdict.name(), place.as_deref()), (verdict, Some(by)), "{outcome:#?}");
    }
    let outcome = ask(&stack(&[json!([{"jump": {"target": "sub"}}])]), SYN);
    assert_eq!(outcome.reject_with.as_deref(), Some("icmp-admin-prohibited"));
    assert_eq!(outcome.decided_by.unwrap().text, "reject with icmpx admin-prohibited");
}

#[test]
fn fixes_in_the_words_of_nft() {
    let stack_ = stack(&[json!([matches("==", &payload("tcp", "dport"), &json!(22)), {"drop": null}])]);
    let packet: Packet = SYN.parse().unwrap();
    let outcome = walk(&stack_, &packet, &Facts::none());
    assert_eq!(outcome.decided_by.as_ref().unwrap().handle, Some(10));
    let fix = fix::allow(&stack_, &outcome, &packet).unwrap();
    assert_eq!(fix.command, "nft insert rule inet t input position 10 tcp dport 22 accept");
    assert!(fix.undo.starts_with("nft delete rule inet t input handle "));
    let outcome = walk(&stack(&[]), &packet, &Facts::none());
    let fix = fix::allow(&stack(&[]), &outcome, &packet).unwrap();
    assert_eq!(fix.command, "nft add rule inet t input tcp dport 22 accept");
}

#[test]
fn iptables_tables_are_taken_once() {
    let save = dump(DumpFormat::IptablesSave, "*filter\n:INPUT DROP [0:0]\nCOMMIT\n".to_owned());
    let json = json!({"nftables": [
        {"table": {"family": "ip", "name": "filter", "handle": 1}},
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"table": {"family": "ip", "name": "own", "handle": 2}},
        {"chain": {"family": "ip", "table": "own", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}}
    ]});
    let (stack, issues) = Stack::from_dumps(&[dump(DumpFormat::NftJson, json.to_string()), save]);
    assert!(issues.iter().any(|issue| matches!(issue, reachwhy::firewall::Issue::Twice { .. })));
    let outcome = ask(&stack, SYN);
    let path: Vec<_> = outcome.path.iter().map(|step| step.at.table.as_str()).collect();
    assert_eq!(path, ["own", "filter"]);
}

#[test]
fn a_real_dump_is_read_with_few_unknowns() {
    let text = include_str!("firewall/nft-mixed.json");
    let parsed = reachwhy::firewall::parse::nft_json(text, "x").unwrap();
    let rules: Vec<_> = parsed.ruleset.tables.iter().flat_map(|t| &t.chains).flat_map(|c| &c.rules).collect();
    assert!(rules.len() > 55, "{}", rules.len());
    let undecidable: Vec<_> = rules.iter().filter(|r| !r.unknown_parts().is_empty()).map(|r| r.text.as_str()).collect();
    assert!(undecidable.is_empty(), "{undecidable:?}");
    assert!(rules.iter().any(|r| r.text == "ip saddr @blocked counter drop comment \"bad ones\""));
    assert!(rules.iter().any(
        |r| r.text == "ip saddr != 192.168.1.5 udp dport 53 log prefix \"dns \" reject with icmp port-unreachable"
    ));
}
