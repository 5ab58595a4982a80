//! Where routing sends a packet, by a host's facts and without them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use reachwhy::firewall::{Facts, Outcome, Packet, Stack, Verdict, walk::walk};
use reachwhy::host::{Backend, DumpFormat, HostFacts, RulesetDump};
use serde_json::json;

const RULES: &str = "*mangle\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp --dport 99 -j MARK --set-xmark 0x9/0xffffffff\nCOMMIT\n\
*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.2.0.80\n\
-A OUTPUT -p tcp --dport 8 -j DNAT --to-destination 10.2.0.8\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n\
*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\n-A FORWARD -m ttl --ttl-eq 63 -j ACCEPT\n-A FORWARD -j DROP\n\
-A OUTPUT -o lan -p tcp --dport 8 -j DROP\n-A OUTPUT -j ACCEPT\nCOMMIT\n";

fn stack(text: &str) -> Stack {
    let dump = RulesetDump {
        format: DumpFormat::IptablesSave,
        backend: Backend::Legacy,
        via: "t".to_owned(),
        text: text.to_owned(),
    };
    Stack::from_dumps(&[dump]).0
}

/// A router: `lan` 10.1.0.1/24, `mid` 10.2.0.1/24, `wan` 203.0.113.2/24 with the default route.
fn host(sysctls: &[(&str, &str)]) -> HostFacts {
    let mut facts = HostFacts::default();
    let route = |destination: &str, interface: &str, gateway: Option<&str>, kind: &str, table: u32| {
        serde_json::from_value(json!({"table": table, "kind": kind, "destination": destination, "gateway": gateway,
            "interface": interface, "metric": 0, "protocol": "kernel", "scope": "link"}))
        .unwrap()
    };
    let mut routes = Vec::new();
    let mut addresses = Vec::new();
    for (name, own, net) in
        [("lan", "10.1.0.1", "10.1.0"), ("mid", "10.2.0.1", "10.2.0"), ("wan", "203.0.113.2", "203.0.113")]
    {
        routes.push(route(&format!("{own}/32"), name, None, "local", 255));
        routes.push(route(&format!("{net}.255/32"), name, None, "broadcast", 255));
        routes.push(route(&format!("{net}.0/24"), name, None, "unicast", 254));
        addresses.push(
            serde_json::from_value(
                json!({"index": 1, "interface": name, "address": own, "prefix_len": 24, "scope": "global",
                "broadcast": format!("{net}.255")}),
            )
            .unwrap_or_else(|e| panic!("{e}")),
        );
    }
    routes.push(route("0.0.0.0/0", "wan", Some("203.0.113.1"), "unicast", 254));
    routes.push(route("192.0.2.0/24", "lo", None, "blackhole", 254));
    facts.routes = Some(routes);
    facts.addresses = Some(addresses);
    for (name, value) in [("net.ipv4.ip_forward", "1")].iter().chain(sysctls) {
        facts.sysctls.insert((*name).to_owned(), (*value).to_owned());
    }
    for interface in ["lan", "mid", "wan", "all"] {
        for key in ["rp_filter", "accept_local"] {
            facts.sysctls.entry(format!("net.ipv4.conf.{interface}.{key}")).or_insert("0".to_owned());
        }
    }
    facts
}

fn ask(facts: &HostFacts, packet: &str) -> Outcome {
    let packet: Packet = packet.parse().unwrap_or_else(|e| panic!("{packet}: {e}"));
    walk(&stack(RULES), &packet, &Facts::of(facts))
}

#[track_caller]
fn check(facts: &HostFacts, packet: &str, expect: &str) {
    let outcome = ask(facts, packet);
    let by = outcome.decided_by.as_ref().map_or(String::new(), |by| format!(" {}", by.chain));
    let out = outcome.packet_out.out.as_deref().unwrap_or("-");
    let why = outcome.reason.as_deref().unwrap_or("");
    let told = format!("{}{by} out {out}: {why}", outcome.verdict.name());
    assert!(told.starts_with(expect) || told.contains(expect), "{packet}\n{told}\n{:?}", outcome.assumed);
}

#[test]
fn facts_decide() {
    let facts = host(&[]);
    check(&facts, "in=lan tcp 10.1.0.9:5 > 10.1.0.1:22", "accept INPUT");
    check(&facts, "in=lan udp 10.1.0.9:5 > 10.1.0.255:22", "accept INPUT");
    check(&facts, "in=lan udp 10.1.0.9:5 > 255.255.255.255:67", "accept INPUT");
    check(&facts, "in=lan udp 10.1.0.9:5 > 224.0.0.1:67", "accept INPUT");
    check(&facts, "in=lan tcp 10.1.0.9:5 > 9.9.9.9:22", "accept FORWARD out wan");
    check(&facts, "in=lan tcp 10.1.0.9:5 > 10.2.0.5:22", "accept FORWARD out mid");
    // Translated before it is routed.
    check(&facts, "in=wan tcp 9.9.9.9:5 > 203.0.113.2:80", "accept FORWARD out mid");
    check(&facts, "in=lan tcp 10.1.0.9:5 > 192.0.2.1:22", "blackhole");
    // The TTL that FORWARD sees is already one less.
    check(&facts, "in=lan ttl=63 tcp 10.1.0.9:5 > 9.9.9.9:22", "drop FORWARD");
    check(&facts, "in=lan ttl=1 tcp 10.1.0.9:5 > 9.9.9.9:22", "no hops left");
    check(&facts, "in=lan ttl=1 tcp 10.1.0.9:5 > 10.1.0.1:22", "accept INPUT");
    check(
        &host(&[("net.ipv4.ip_forward", "0")]),
        "in=lan tcp 10.1.0.9:5 > 9.9.9.9:22",
        "does not forward (net.ipv4.ip_forward = 0)",
    );
    // MASQUERADE takes the address of the way out.
    assert_eq!(ask(&facts, "in=lan tcp 10.1.0.9:5 > 9.9.9.9:22").packet_out.src.to_string(), "203.0.113.2");
}

#[test]
fn sources_are_checked() {
    let loose = host(&[]);
    check(&loose, "in=lan tcp 10.1.0.1:5 > 10.1.0.1:22", "martian");
    check(&loose, "in=lan tcp 127.0.0.1:5 > 10.1.0.1:22", "martian");
    check(&loose, "in=lan tcp 224.0.0.5:5 > 10.1.0.1:22", "martian");
    check(&loose, "in=lan tcp 10.1.0.9:5 > 127.0.0.1:22", "martian");
    check(&host(&[("net.ipv4.conf.lan.accept_local", "1")]), "in=lan tcp 10.1.0.1:5 > 10.1.0.1:22", "accept INPUT");
    check(&loose, "in=lan tcp 9.9.9.9:5 > 10.1.0.1:22", "accept INPUT");
    let strict = host(&[("net.ipv4.conf.all.rp_filter", "1")]);
    check(&strict, "in=lan tcp 9.9.9.9:5 > 10.1.0.1:22", "reverse path filter on lan (rp_filter = 1)");
    check(&strict, "in=lan tcp 10.1.0.9:5 > 10.1.0.1:22", "accept INPUT");
    // The larger of the two settings is in force: loose.
    let mixed = host(&[("net.ipv4.conf.all.rp_filter", "1"), ("net.ipv4.conf.lan.rp_filter", "2")]);
    check(&mixed, "in=lan tcp 9.9.9.9:5 > 10.1.0.1:22", "accept INPUT");
    check(&mixed, "in=lan tcp 192.0.2.7:5 > 10.1.0.1:22", "reverse path filter on lan (rp_filter = 2)");
}

#[test]
fn what_is_sent_is_routed_and_routed_again() {
    let facts = host(&[]);
    check(&facts, "tcp 10.1.0.1:5 > 10.1.0.9:22", "accept OUTPUT out lan");
    check(&facts, "tcp 10.1.0.1:5 > 10.1.0.1:22", "accept OUTPUT out lo");
    check(&facts, "tcp 10.1.0.1:5 > 192.0.2.1:22", "blackhole");
    // DNAT in OUTPUT: its filter still sees the first way out, POSTROUTING the second.
    check(&facts, "tcp 10.2.0.1:5 > 10.1.0.9:8", "drop OUTPUT");
    check(&facts, "tcp 10.2.0.1:5 > 9.9.9.9:8", "accept OUTPUT out mid");
    // A mark that OUTPUT sets chooses another table.
    let mut marked = host(&[]);
    let mut routes = marked.routes.take().unwrap();
    let mut other = routes[2].clone();
    (other.table, other.destination) = (77, "0.0.0.0/0".parse().unwrap());
    routes.push(other);
    marked.routes = Some(routes);
    let rule = |priority, table, mark: Option<(u32, u32)>| {
        let mut rule = reachwhy::host::PolicyRule::for_all(priority, false, reachwhy::host::RuleAction::Table(table));
        rule.fwmark = mark;
        rule
    };
    marked.rules = Some(vec![rule(0, 255, None), rule(100, 77, Some((9, u32::MAX))), rule(32766, 254, None)]);
    check(&marked, "tcp 203.0.113.2:5 > 9.9.9.9:98", "accept OUTPUT out wan");
    check(&marked, "tcp 203.0.113.2:5 > 9.9.9.9:99", "accept OUTPUT out lan");
}

#[test]
fn without_facts_both_ways_are_looked_at() {
    let ask = |rules: &str, packet: &str| walk(&stack(rules), &packet.parse().unwrap(), &Facts::none());
    let host = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
    let outcome = ask(host, "in=eth0 tcp 10.0.0.9:5 > 10.0.0.1:22");
    assert_eq!(outcome.verdict, Verdict::Accept, "a host that forwards nothing by name");
    let router = host.replace("COMMIT", "-A FORWARD -d 10.5.0.0/16 -j ACCEPT\nCOMMIT");
    let outcome = ask(&router, "in=eth0 tcp 10.0.0.9:5 > 10.0.0.1:22");
    assert_eq!((outcome.verdict, outcome.branches.len()), (Verdict::Unknown, 2));
    assert!(outcome.assumed.iter().any(|a| a.contains("`to`")), "{:?}", outcome.assumed);
    let outcome = ask(&router, "in=eth0 tcp 10.0.0.9:5 > 10.0.0.1:23");
    assert_eq!(outcome.verdict, Verdict::Drop, "both ways agree");
    for (packet, expect) in [
        ("in=eth0 to=local tcp 10.0.0.9:5 > 10.0.0.1:22", Verdict::Accept),
        ("in=eth0 to=forward tcp 10.0.0.9:5 > 10.0.0.1:22", Verdict::Drop),
        ("in=eth0 out=eth1 tcp 10.0.0.9:5 > 10.0.0.1:22", Verdict::Drop),
        ("in=lo tcp 10.0.0.9:5 > 10.0.0.1:22", Verdict::Accept),
    ] {
        assert_eq!(ask(&router, packet).verdict, expect, "{packet}");
    }
}
