//! The walk against the semantics of the kernel, one table of cases for each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use reachwhy::firewall::{Facts, Outcome, Packet, Stack, Verdict, fix, parse, ruleset::Family, walk::walk};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};

fn save(text: &str) -> RulesetDump {
    RulesetDump { format: DumpFormat::IptablesSave, backend: Backend::Nft, via: "t".to_owned(), text: text.to_owned() }
}

fn stack(tables: &str) -> Stack {
    let (stack, issues) = Stack::from_dumps(&[save(tables)]);
    for issue in &issues {
        assert!(matches!(issue, reachwhy::firewall::Issue::Odd(_)), "{issue}");
    }
    stack
}

/// A filter table whose INPUT has this policy and these lines.
fn filter(policy: &str, rules: &str) -> Stack {
    stack(&format!(
        "*filter\n:INPUT {policy} [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n{rules}\nCOMMIT\n"
    ))
}

fn ask(stack: &Stack, packet: &str) -> Outcome {
    let packet: Packet = packet.parse().unwrap_or_else(|e| panic!("{e}"));
    walk(stack, &packet, &Facts::none())
}

/// `accept INPUT 2`, `drop INPUT policy`, `unknown`.
fn short(outcome: &Outcome) -> String {
    let by = outcome.decided_by.as_ref().map_or(String::new(), |by| {
        format!(" {} {}", by.chain, by.rule.map_or("policy".to_owned(), |rule| rule.to_string()))
    });
    format!("{}{by}", outcome.verdict.name())
}

#[track_caller]
fn check(policy: &str, rules: &str, packet: &str, expect: &str) {
    let outcome = ask(&filter(policy, rules), packet);
    assert_eq!(short(&outcome), expect, "{rules}\n{packet}\n{outcome:#?}");
}

const SYN: &str = "hook=input in=eth0 tcp 10.0.0.9:40000 > 10.0.0.1:22 syn";

#[test]
fn chains_jump_return_and_go() {
    for (rules, expect) in [
        ("-A INPUT -j a\n-A a -j RETURN\n-A a -j DROP\n-A INPUT -j DROP", "drop INPUT 2"),
        ("-A INPUT -j a\n-A a -j b\n-A b -j DROP", "drop b 1"),
        ("-A INPUT -j RETURN\n-A INPUT -j DROP", "accept INPUT policy"),
        // A goto from a base chain ends in the policy; what stands behind it is not seen.
        ("-A INPUT -g a\n-A INPUT -j DROP", "accept INPUT policy"),
        // A goto from a user chain ends at that chain's caller.
        ("-A INPUT -j a\n-A a -g b\n-A a -j DROP\n-A b -p udp -j DROP\n-A INPUT -p tcp -j REJECT", "reject INPUT 2"),
        ("-A INPUT -p tcp\n-A INPUT -j ACCEPT", "accept INPUT 2"),
        ("-A INPUT -j LOG --log-prefix x\n-A INPUT -j DROP", "drop INPUT 2"),
        ("-A INPUT -j a\n-A a -j b\n-A b -j a", "unknown"),
        ("-A INPUT -g a\n-A a -g b\n-A b -g a", "unknown"),
    ] {
        check("ACCEPT", rules, SYN, expect);
    }
}

#[test]
fn matches_hold_as_in_the_kernel() {
    for (rule, packet, holds) in [
        ("-s 10.0.0.0/24", SYN, true),
        ("! -s 10.0.0.0/24", SYN, false),
        ("-s 10.0.0.9/255.0.0.255", SYN, true),
        ("-i eth+", SYN, true),
        ("! -i eth+", SYN, false),
        ("-i eth", SYN, false),
        ("-p tcp --dport 20:25", SYN, true),
        ("-p tcp ! --dport 20:25", SYN, false),
        ("-p tcp --sport 1024:", SYN, true),
        ("-p udp --dport 22", SYN, false),
        ("! -p udp", SYN, true),
        ("-p tcp --syn", SYN, true),
        ("-p tcp --tcp-flags SYN,ACK SYN", SYN, true),
        ("-p tcp --tcp-flags ACK ACK", SYN, false),
        ("-p tcp -m multiport --dports 80,20:23", SYN, true),
        ("-p tcp -m multiport ! --dports 80,20:23", SYN, false),
        ("-p tcp -m multiport --ports 40000", SYN, true),
        ("-m iprange --src-range 10.0.0.1-10.0.0.9", SYN, true),
        ("-m iprange ! --dst-range 10.0.0.2-10.0.0.9", SYN, true),
        ("-m state --state NEW", SYN, true),
        ("-m conntrack ! --ctstate NEW", SYN, false),
        ("-m conntrack --ctstate ESTABLISHED", "hook=input tcp 10.0.0.9:1 > 10.0.0.1:2 ack established", true),
        // Without a flow only the state is looked at.
        ("-m conntrack --ctstate INVALID --ctproto 17", "hook=input tcp 10.0.0.9:1 > 10.0.0.1:2 rst invalid", true),
        ("-m conntrack --ctproto 6", "hook=input tcp 10.0.0.9:1 > 10.0.0.1:2 rst invalid", false),
        ("-m conntrack ! --ctstate NEW", "hook=input tcp 10.0.0.9:1 > 10.0.0.1:2 syn untracked", true),
        ("-m mark --mark 0x10/0xf0", "hook=input tcp 10.0.0.9:1 > 10.0.0.1:2 mark=0x1f", true),
        ("-p icmp --icmp-type echo-request", "hook=input icmp 10.0.0.9 > 10.0.0.1 echo-request", true),
        ("-p icmp --icmp-type 3/1", "hook=input icmp 10.0.0.9 > 10.0.0.1 type=3 code=2", false),
        ("-p icmp ! --icmp-type 3", "hook=input icmp 10.0.0.9 > 10.0.0.1 type=3 code=2", false),
        (
            "-m mac --mac-source 02:00:00:00:00:01",
            "hook=input mac_src=02:00:00:00:00:01 tcp 10.0.0.9:1 > 10.0.0.1:2",
            true,
        ),
        ("-m length --length 60:", "hook=input length=59 tcp 10.0.0.9:1 > 10.0.0.1:2", false),
        ("-m ttl --ttl-lt 5", "hook=input ttl=4 tcp 10.0.0.9:1 > 10.0.0.1:2", true),
        ("-m dscp --dscp 0x2e", "hook=input tos=0xb8 tcp 10.0.0.9:1 > 10.0.0.1:2", true),
        ("-m pkttype --pkt-type multicast", "hook=input udp 10.0.0.9:1 > 224.0.0.1:2", true),
        ("-m addrtype --dst-type MULTICAST", "hook=input udp 10.0.0.9:1 > 224.0.0.1:2", true),
        ("-f", "hook=input udp 10.0.0.9 > 10.0.0.1 frag_offset=10", true),
        ("-p udp", "hook=input udp 10.0.0.9 > 10.0.0.1 frag_offset=10", true),
        ("-m recent --set --name X", SYN, true),
        // -o at INPUT compares with no name at all (through a user chain in iptables).
        ("! -o lo", SYN, true),
    ] {
        check(
            "ACCEPT",
            &format!("-A INPUT {rule} -j DROP"),
            packet,
            if holds { "drop INPUT 1" } else { "accept INPUT policy" },
        );
    }
}

/// An address that a rule's branch takes for this host's own is taken for it by routing too.
#[test]
fn branches_do_not_contradict_themselves() {
    let nat = "*nat\n:PREROUTING ACCEPT [0:0]\n:PUB - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j PUB\n\
               -A PUB -p tcp --dport 80 -j RETURN\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n\
               -A FORWARD -s 10.9.9.9 -j DROP\nCOMMIT\n";
    let stack = save(nat);
    let (stack, _) = Stack::from_dumps(&[stack]);
    for (to, expect) in [("to=local ", Verdict::Accept), ("to=forward ", Verdict::Drop)] {
        let outcome = ask(&stack, &format!("in=eth0 {to}tcp 10.0.0.9:5 > 10.0.0.1:80 syn"));
        assert_eq!((outcome.verdict, outcome.branches.len()), (expect, 0), "{outcome:#?}");
    }
    let outcome = ask(&stack, "in=eth0 tcp 10.0.0.9:5 > 10.0.0.1:80 syn");
    let mut verdicts: Vec<Verdict> = outcome.branches.iter().map(|branch| branch.verdict).collect();
    verdicts.sort_unstable_by_key(|verdict| format!("{verdict:?}"));
    assert_eq!(verdicts, [Verdict::Accept, Verdict::Drop], "{outcome:#?}");
}

#[test]
fn what_is_not_known_forks_and_never_passes() {
    for (rules, expect) in [
        ("-A INPUT -m limit --limit 1/s -j ACCEPT", "unknown"),
        ("-A INPUT -m limit --limit 1/s -j DROP\n-A INPUT -j DROP", "drop INPUT 2"),
        ("-A INPUT -m geoip --src-cc DE -j ACCEPT", "unknown"),
        ("-A INPUT -m geoip --src-cc DE -j DROP", "drop INPUT policy"),
        ("-A INPUT -m limit --limit 1/s -j LOG\n-A INPUT -j ACCEPT", "accept INPUT 2"),
        ("-A INPUT -j STEAL --all", "unknown"),
        ("-A INPUT -m set --match-set gone src -j ACCEPT", "unknown"),
        ("-A INPUT -m addrtype --src-type LOCAL -j ACCEPT", "unknown"),
        // Input is where packets for this host's own addresses come.
        ("-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT", "accept INPUT 1"),
        // One fact is one fact: asked twice, it has one answer.
        (
            "-A INPUT -m addrtype --src-type LOCAL -j DROP\n-A INPUT -m addrtype ! --src-type LOCAL -j DROP\n-A INPUT -j ACCEPT",
            "drop",
        ),
        ("-A INPUT -s host.example.net -j ACCEPT", "unknown"),
    ] {
        let outcome = ask(&filter("DROP", rules), SYN);
        if expect == "drop" {
            assert_eq!(outcome.verdict, Verdict::Drop, "{outcome:#?}");
        } else {
            assert_eq!(short(&outcome), expect, "{rules}\n{outcome:#?}");
        }
        if outcome.verdict == Verdict::Unknown {
            assert!(outcome.branches.len() > 1 && !outcome.assumed.is_empty(), "{outcome:#?}");
        }
    }
    let broken = RulesetDump { text: "*filter\n-A INPUT --nonsense\n".to_owned(), ..save("") };
    let (stack, issues) = Stack::from_dumps(&[broken]);
    assert!(matches!(issues[0], reachwhy::firewall::Issue::Unread(_)));
    assert_eq!(
        ask(&stack, SYN).verdict,
        Verdict::Unknown,
        "a ruleset that cannot be read lets nothing pass for certain"
    );
}

#[test]
fn many_undecidable_rules_do_not_explode() {
    let rules: Vec<_> = (0..200)
        .map(|n| {
            format!("-A INPUT -m limit --limit 1/s -p tcp --dport 22 -s 10.0.0.9/32 -m mark ! --mark {n:#x}1 -j ACCEPT")
        })
        .collect();
    let outcome = ask(&filter("DROP", &rules.join("\n")), SYN);
    assert_eq!(outcome.verdict, Verdict::Unknown);
}

const TABLES: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp --dport 53 -j NOTRACK
-A PREROUTING -m conntrack --ctstate NEW -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 80 -j MARK --set-mark 7
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.9.9.9:8080
-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081
-A POSTROUTING -o eth1 -j SNAT --to-source 10.8.8.8
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p udp -m conntrack --ctstate UNTRACKED -j ACCEPT
-A INPUT -p tcp --dport 8081 -j ACCEPT
-A FORWARD -d 10.9.9.9/32 -p tcp --dport 8080 -m mark --mark 7 -m conntrack --ctorigdstport 80 --ctstate DNAT -j ACCEPT
COMMIT
";

#[test]
fn all_tables_in_the_order_of_the_kernel() {
    let stack = stack(TABLES);
    let outcome = ask(&stack, "in=eth0 out=eth1 to=forward tcp 10.0.0.9:40000 > 10.0.0.1:80 syn");
    assert_eq!(short(&outcome), "accept FORWARD 1", "{outcome:#?}");
    assert_eq!(
        outcome.packet_out.to_string(),
        "in=eth0 out=eth1 to=forward tcp 10.8.8.8:40000 > 10.9.9.9:8080 syn ttl=63 mark=7"
    );
    let path: Vec<_> =
        outcome.path.iter().map(|s| format!("{} {} {:?} {}", s.at.table, s.at.chain, s.at.rule, s.action)).collect();
    assert_eq!(
        path,
        [
            "raw PREROUTING None accept",
            "mangle PREROUTING Some(1) mark",
            "mangle PREROUTING None accept",
            "nat PREROUTING Some(1) dnat",
            "filter FORWARD Some(1) accept",
            "nat POSTROUTING Some(1) snat",
        ]
    );
    let outcome = ask(&stack, "in=eth0 to=local udp 10.0.0.9:40000 > 10.0.0.1:53");
    assert_eq!(short(&outcome), "accept INPUT 1");
    // Both INPUT and FORWARD have rules, and nothing says where it goes.
    let outcome = ask(&stack, "in=eth0 udp 10.0.0.9:40000 > 10.0.0.1:53");
    assert_eq!((short(&outcome).as_str(), outcome.branches.len()), ("unknown", 2));
    assert!(outcome.assumed.iter().any(|a| a.contains("both ways")), "{:?}", outcome.assumed);
    let outcome = ask(&stack, "in=eth0 tcp 10.0.0.9:40000 > 10.0.0.1:81 syn");
    assert_eq!(short(&outcome), "accept INPUT 2", "{outcome:#?}");
    // nat rules see only the first packet of a flow.
    let outcome = ask(&stack, "in=eth0 to=local tcp 10.0.0.9:40000 > 10.0.0.1:81 ack established");
    assert_eq!(short(&outcome), "drop INPUT policy");
    assert!(outcome.assumed.iter().any(|a| a.contains("not translated")), "{:?}", outcome.assumed);
}

#[test]
fn accept_ends_one_base_chain_and_drop_is_final() {
    let legacy = RulesetDump {
        backend: Backend::Legacy,
        ..save("*filter\n:INPUT DROP [0:0]\n-A INPUT -p udp -j ACCEPT\nCOMMIT\n")
    };
    let nft = save("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n");
    let (stack, _) = Stack::from_dumps(&[nft, legacy]);
    let outcome = ask(&stack, SYN);
    assert_eq!(short(&outcome), "drop INPUT policy");
    assert_eq!(outcome.decided_by.unwrap().backend, Backend::Legacy);
}

#[test]
fn ipv6_packets_see_only_ipv6_tables() {
    let v4 = save("*filter\n:INPUT DROP [0:0]\nCOMMIT\n");
    let v6 = RulesetDump {
        format: DumpFormat::Ip6tablesSave,
        ..save("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p ipv6-icmp -j REJECT\nCOMMIT\n")
    };
    let (stack, issues) = Stack::from_dumps(&[v4, v6]);
    assert!(issues.is_empty());
    let outcome = ask(&stack, "hook=input icmp fd00::1 > fd00::2");
    assert_eq!(
        (short(&outcome).as_str(), outcome.reject_with.as_deref()),
        ("reject INPUT 1", Some("icmp6-port-unreachable"))
    );
    assert_eq!(outcome.decided_by.unwrap().family, Family::Ip6);
    assert_eq!(short(&ask(&stack, "hook=input icmp 10.0.0.1 > 10.0.0.2")), "drop INPUT policy");
}

#[test]
fn the_nearest_miss_is_named() {
    for (rules, packet, field, wanted, had) in [
        ("-A INPUT -p tcp --dport 80 -j ACCEPT\n-A INPUT -i lo -j ACCEPT", SYN, "destination port", "80", "22"),
        ("-A INPUT -s 10.0.1.0/24 -p tcp --dport 22 -j ACCEPT", SYN, "source address", "10.0.1.0/24", "10.0.0.9"),
        (
            "-A INPUT -p udp -m udp --dport 22 -j ACCEPT\n-A INPUT -i eth1 -p tcp --dport 22 -j ACCEPT",
            SYN,
            "incoming interface",
            "eth1",
            "eth0",
        ),
        ("-A INPUT -s 10.0.0.8 -j ACCEPT", SYN, "source address", "10.0.0.8", "10.0.0.9"),
    ] {
        let outcome = ask(&filter("DROP", rules), packet);
        let miss = outcome.near_miss.unwrap_or_else(|| panic!("{rules}"));
        assert_eq!(
            (miss.field.as_str(), miss.wanted.as_str(), miss.had.as_str()),
            (field, wanted, had),
            "{}",
            miss.sentence()
        );
    }
    assert_eq!(ask(&filter("DROP", "-A INPUT -i lo -j ACCEPT\n-A INPUT -p icmp -j ACCEPT"), SYN).near_miss, None);
}

#[test]
fn fixes_are_narrow_and_work() {
    for (policy, rules, packet, command) in [
        ("DROP", "", SYN, "iptables -A INPUT -p tcp --dport 22 -j ACCEPT"),
        (
            "ACCEPT",
            "-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -j DROP",
            SYN,
            "iptables -I INPUT 2 -p tcp --dport 22 -j ACCEPT",
        ),
        ("ACCEPT", "-A INPUT -j a\n-A a -p tcp -j REJECT", SYN, "iptables -I a 1 -p tcp --dport 22 -j ACCEPT"),
        (
            "DROP",
            "-A INPUT -s 10.1.1.1 -p tcp --dport 80 -j ACCEPT",
            SYN,
            "iptables -A INPUT -s 10.0.0.9 -p tcp --dport 22 -j ACCEPT",
        ),
        (
            "DROP",
            "-A INPUT -p tcp -j RETURN\n-A INPUT -p udp -j ACCEPT",
            SYN,
            "iptables -I INPUT 1 -p tcp --dport 22 -j ACCEPT",
        ),
        (
            "DROP",
            "-A INPUT -p tcp -m conntrack --ctstate NEW --dport 9 -j ACCEPT",
            "hook=input in=eth0 tcp 10.0.0.9:80 > 10.0.0.1:40000 syn,ack established",
            "iptables -A INPUT -p tcp --sport 80 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        ),
        (
            "DROP",
            "",
            "hook=input icmp 10.0.0.9 > 10.0.0.1 echo-request",
            "iptables -A INPUT -p icmp --icmp-type 8 -j ACCEPT",
        ),
        ("DROP", "", "hook=input udp 10.0.0.9:53 > 10.0.0.1:40000", "iptables -A INPUT -p udp --sport 53 -j ACCEPT"),
        ("DROP", "", "hook=input proto=gre 10.0.0.9 > 10.0.0.1", "iptables -A INPUT -p 47 -j ACCEPT"),
    ] {
        let stack = filter(policy, rules);
        let packet: Packet = packet.parse().unwrap();
        let outcome = walk(&stack, &packet, &Facts::none());
        let fix = fix::allow(&stack, &outcome, &packet).unwrap_or_else(|| panic!("{outcome:#?}"));
        assert_eq!(fix.command, command);
        assert!(fix.undo.contains(" -D "), "{}", fix.undo);
        let mut mended = stack.rulesets()[0].clone();
        assert!(fix.apply(&mut mended));
        assert_eq!(
            walk(&Stack::from_rulesets([mended]), &packet, &Facts::none()).verdict,
            Verdict::Accept,
            "{command}"
        );
    }
}

#[test]
fn answers_have_the_keys_of_the_contract() {
    let outcome = ask(&filter("DROP", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset"), SYN);
    let json = serde_json::to_value(&outcome).unwrap();
    for key in ["verdict", "reject_with", "decided_by", "path", "packet_out", "assumed"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["verdict"], "reject");
    assert_eq!(json["reject_with"], "tcp-reset");
    assert_eq!(json["decided_by"]["table"], "filter");
    assert_eq!(json["decided_by"]["rule"], 1);
    assert_eq!(json["decided_by"]["line"], 7);
    assert_eq!(json["path"][0]["action"], "reject tcp-reset");
    assert_eq!(json["packet_out"]["proto"], "tcp");
    let _ = parse::guess("", "x");
}
