//! Whatever stands in a file, the readers answer and never panic; what they write they read back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use proptest::prelude::*;
use reachwhy::firewall::ruleset::Family;
use reachwhy::firewall::{Facts, Packet, Stack, parse, walk::walk};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};

/// Words of which rulesets are made, and some that do not belong.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "-A",
            "INPUT",
            "-s",
            "-d",
            "!",
            "-p",
            "tcp",
            "udp",
            "icmp",
            "-m",
            "multiport",
            "--dports",
            "--dport",
            "--sport",
            "22",
            "1:2",
            ":",
            "80,443",
            "-j",
            "ACCEPT",
            "DROP",
            "REJECT",
            "-g",
            "user",
            "--syn",
            "--tcp-flags",
            "SYN",
            "ALL",
            "conntrack",
            "--ctstate",
            "NEW,ESTABLISHED",
            "state",
            "--state",
            "limit",
            "--limit",
            "5/min",
            "comment",
            "--comment",
            "\"a b\"",
            "\"",
            "set",
            "--match-set",
            "x",
            "src,dst",
            "10.0.0.0/8",
            "1.2.3.4,5.6.7.8",
            "mark",
            "--mark",
            "0x1/0xff",
            "iprange",
            "--src-range",
            "1.1.1.1-2.2.2.2",
            "DNAT",
            "--to-destination",
            "1.2.3.4:80",
            "MARK",
            "--set-mark",
            "-i",
            "eth+",
            "-f",
            "-c",
            "[1:2]",
            "-I",
            "0",
            "3",
            "-N",
            "-P",
            "é",
            "--",
            "-",
            "geoip",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => proptest::collection::vec(word(), 0..12).prop_map(|words| format!("-A INPUT {}", words.join(" "))),
        1 => proptest::collection::vec(word(), 0..6).prop_map(|words| words.join(" ")),
        1 => proptest::sample::select(vec!["*filter", "*nat", "COMMIT", ":INPUT DROP [0:0]", ":user - [0:0]", "#", "-N a"]).prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(line(), 0..12).prop_map(|lines| format!("*filter\n:user - [0:0]\n{}\n", lines.join("\n")))
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = proptest::sample::select(vec![
        "rule", "chain", "table", "set", "map", "expr", "match", "op", "==", "in", "left", "right", "payload",
        "protocol", "tcp", "field", "dport", "meta", "key", "iifname", "ct", "state", "vmap", "data", "elem", "prefix",
        "addr", "10.0.0.0", "len", "range", "concat", "&", "accept", "jump", "target", "family", "inet", "name",
        "type", "hook", "input", "prio", "@s", "*",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(Into::into),
        word.clone().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::vec((word.clone(), inner), 0..4).prop_map(|pairs| {
                serde_json::Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

fn ask(stack: &Stack) {
    for packet in ["hook=input in=eth0 tcp 1.2.3.4:5 > 6.7.8.9:22 syn", "in=eth0 udp [fd00::1]:1 > [fd00::2]:2"] {
        let packet: Packet = packet.parse().unwrap();
        let outcome = walk(stack, &packet, &Facts::none());
        let _ = reachwhy::firewall::fix::allow(stack, &outcome, &packet);
        serde_json::to_string(&outcome).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}|[ -~\\n]{0,200}") {
        for family in [Family::Ip, Family::Ip6] {
            if let Err(error) = parse::iptables_save(&text, family, Backend::Nft, "f") {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        let _ = parse::ipset_save(&text, "f").map_err(|e| e.to_string());
        let _ = parse::nft_json(&text, "f").map_err(|e| e.to_string());
        let _ = text.parse::<Packet>().map_err(|e| e.to_string());
        let _ = parse::guess(&text, "f");
    }

    #[test]
    fn what_is_read_is_written_and_read_again(text in text()) {
        if let Ok(parsed) = parse::iptables_save(&text, Family::Ip, Backend::Nft, "f") {
            let written = parsed.ruleset.to_string();
            let again = match parse::iptables_save(&written, Family::Ip, Backend::Nft, "f") {
                Ok(again) => again,
                Err(error) => return Err(TestCaseError::fail(format!("{written}\n{error}"))),
            };
            prop_assert_eq!(again.ruleset.to_string(), written.clone());
            let (one, two) = (again.ruleset.without_places(), parsed.ruleset.clone().without_places());
            prop_assert_eq!(one, two, "{}", written);
            ask(&Stack::from_rulesets([parsed.ruleset]));
        }
    }

    #[test]
    fn any_json_is_answered(items in proptest::collection::vec(json(), 0..4), exprs in proptest::collection::vec(json(), 0..4)) {
        let mut all = vec![
            serde_json::json!({"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input", "prio": 0}}),
            serde_json::json!({"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 1, "expr": exprs}}),
        ];
        all.extend(items);
        let text = serde_json::json!({ "nftables": all }).to_string();
        let dump = RulesetDump { format: DumpFormat::NftJson, backend: Backend::Nft, via: "x".into(), text };
        let (stack, _) = Stack::from_dumps(&[dump]);
        ask(&stack);
    }
}
