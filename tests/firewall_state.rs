//! Histories: packets that follow each other through one host's rules.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use reachwhy::firewall::state::{Status, TcpState};
use reachwhy::firewall::{Facts, History, Outcome, Packet, Stack};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};

fn stack(text: &str) -> Stack {
    let dump = RulesetDump {
        format: DumpFormat::IptablesSave,
        backend: Backend::Legacy,
        via: "t".to_owned(),
        text: text.to_owned(),
    };
    let (stack, issues) = Stack::from_dumps(&[dump]);
    for issue in &issues {
        assert!(matches!(issue, reachwhy::firewall::Issue::Odd(_)), "{issue}");
    }
    stack
}

fn input(rules: &str) -> Stack {
    stack(&format!("*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n"))
}

struct Host {
    stack: Stack,
    history: History,
}

impl Host {
    fn new(stack: Stack) -> Self {
        Self { stack, history: History::new() }
    }

    #[track_caller]
    fn send(&mut self, packet: &str) -> Outcome {
        let packet: Packet = packet.parse().unwrap_or_else(|e| panic!("{packet}: {e}"));
        self.history.step(&self.stack, &packet, &Facts::none())
    }

    /// Sends packets and tells each one's verdict and deciding rule: `a1` is accept by rule 1, `d-`
    /// drop by policy.
    #[track_caller]
    fn verdicts(&mut self, packets: &[&str]) -> String {
        let short = |o: Outcome| {
            let rule = o.decided_by.and_then(|by| by.rule).map_or("-".to_owned(), |rule| rule.to_string());
            format!("{}{rule}", &o.verdict.name()[..1])
        };
        packets.iter().map(|packet| short(self.send(packet))).collect::<Vec<_>>().join(" ")
    }

    fn secs(&mut self, seconds: u64) {
        self.history.at(Duration::from_secs(seconds));
    }
}

/// Rules 1 to 4 tell the states apart.
const STATES: &str = "-A INPUT -m conntrack --ctstate NEW -j ACCEPT\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
                      -A INPUT -m conntrack --ctstate RELATED -j ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j ACCEPT";

const IN: &str = "in=eth0 to=local tcp 10.0.0.9:4000 > 10.0.0.1:22";
const OUT: &str = "out=eth0 tcp 10.0.0.1:22 > 10.0.0.9:4000";

#[test]
fn a_handshake_is_new_and_then_established() {
    let mut host = Host::new(input(STATES));
    let (syn, ack, fin) = (format!("{IN} syn"), format!("{IN} ack"), format!("{IN} fin,ack"));
    assert_eq!(host.verdicts(&[&syn, &syn]), "a1 a1");
    assert_eq!(host.history.flows().next().unwrap().tcp.state, TcpState::SynSent);
    host.send(&format!("{OUT} syn,ack"));
    assert_eq!(host.verdicts(&[&ack, &fin]), "a2 a2");
    let flow = host.history.flows().next().unwrap();
    assert_eq!(flow.tcp.state, TcpState::FinWait);
    assert!(flow.status.has(Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED));
    // The SYN that is sent again is not counted (nf_conntrack_proto_tcp.c).
    assert_eq!((flow.packets, host.history.flows().count()), ([3, 1], 1));
}

#[test]
fn what_no_flow_explains_is_invalid() {
    for flags in ["syn,ack", "rst", "fin", "fin,ack", "none", "fin,psh,urg", "rst,ack", "syn,fin"] {
        assert_eq!(Host::new(input(STATES)).verdicts(&[&format!("{IN} {flags}")]), "a4", "{flags}");
    }
    // A connection may be picked up in its middle.
    assert_eq!(Host::new(input(STATES)).verdicts(&[&format!("{IN} ack"), &format!("{IN} ack")]), "a1 a1");
    let reply = "in=eth0 to=local icmp 10.0.0.9 > 10.0.0.1 type=0 code=0";
    assert_eq!(Host::new(input(STATES)).verdicts(&[reply]), "a4");
    let mut host = Host::new(input(STATES));
    host.send("out=eth0 icmp 10.0.0.1 > 10.0.0.9 type=8 code=0");
    assert_eq!(host.verdicts(&[reply, reply]), "a2 a2");
}

#[test]
fn a_dropped_first_packet_begins_no_flow() {
    let mut host = Host::new(input("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
    let udp = "in=eth0 to=local udp 10.0.0.9:5 > 10.0.0.1:53";
    assert_eq!(host.verdicts(&[udp, udp]), "d- d-");
    assert_eq!(host.history.flows().count(), 0);
    host.send("out=eth0 udp 10.0.0.1:53 > 10.0.0.9:5");
    assert_eq!(host.verdicts(&[udp]), "a1");
}

#[test]
fn flows_are_forgotten_in_time() {
    let mut host = Host::new(input(STATES));
    let udp = "in=eth0 to=local udp 10.0.0.9:5 > 10.0.0.1:53";
    host.send("out=eth0 udp 10.0.0.1:53 > 10.0.0.9:5");
    host.secs(29);
    assert_eq!(host.verdicts(&[udp]), "a2");
    host.secs(58);
    assert_eq!(host.verdicts(&[udp]), "a2");
    host.secs(178);
    assert_eq!(host.history.flows().count(), 0, "a stream lives for 120 seconds");
    assert_eq!(host.verdicts(&[udp]), "a1");
}

#[test]
fn limits_lists_and_counters_live_on() {
    let syn = |port: u16| format!("in=eth0 to=local tcp 10.0.0.9:{port} > 10.0.0.1:22 syn");
    let many: Vec<String> = (1..=8).map(syn).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (rules, expect) in [
        ("-A INPUT -m limit --limit 1/s --limit-burst 3 -j ACCEPT", "a1 a1 a1 d- d- d- d- d-"),
        ("-A INPUT -m statistic --mode nth --every 3 --packet 0 -j ACCEPT", "a1 d- d- a1 d- d- a1 d-"),
        ("-A INPUT -m statistic --mode nth --every 3 --packet 2 -j ACCEPT", "d- d- a1 d- d- a1 d- d-"),
        (
            "-A INPUT -m recent --update --seconds 60 --hitcount 3 --name x -j DROP\n-A INPUT -m recent --set --name x -j ACCEPT",
            "a2 a2 a2 d1 d1 d1 d1 d1",
        ),
        ("-A INPUT -m quota --quota 150 -j ACCEPT", "a1 a1 d- d- d- d- d- d-"),
        ("-A INPUT -p tcp -m connlimit --connlimit-above 2 -j DROP\n-A INPUT -j ACCEPT", "a2 a2 d1 d1 d1 d1 d1 d1"),
        (
            "-A INPUT -m hashlimit --hashlimit-upto 1/min --hashlimit-burst 2 --hashlimit-mode srcip --hashlimit-name h -j ACCEPT",
            "a1 a1 d- d- d- d- d- d-",
        ),
        (
            "-A INPUT -m hashlimit --hashlimit-above 1/min --hashlimit-burst 2 --hashlimit-mode srcip,srcport --hashlimit-name h -j DROP\n-A INPUT -j ACCEPT",
            "a2 a2 a2 a2 a2 a2 a2 a2",
        ),
    ] {
        assert_eq!(Host::new(input(rules)).verdicts(&many), expect, "{rules}");
    }
    let mut host = Host::new(input("-A INPUT -m limit --limit 1/s --limit-burst 2 -j ACCEPT"));
    assert_eq!(host.verdicts(&many[..3]), "a1 a1 d-");
    host.secs(1);
    assert_eq!(host.verdicts(&many[..2]), "a1 d-");
    host.secs(100);
    assert_eq!(host.verdicts(&many[..3]), "a1 a1 d-");
    // Only what comes to a rule is counted by it.
    let mut host = Host::new(input("-A INPUT -p udp -m limit --limit 1/h --limit-burst 1 -j ACCEPT"));
    assert_eq!(host.verdicts(&many[..2]), "d- d-");
    assert_eq!(host.verdicts(&["in=eth0 to=local udp 10.0.0.9:5 > 10.0.0.1:53"]), "a1");
    // Chance stays chance.
    let chance = input("-A INPUT -m statistic --mode random --probability 0.5 -j ACCEPT");
    assert_eq!(Host::new(chance).verdicts(&many[..1]), "u-");
}

const NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
-A PREROUTING -i wan -p tcp --dport 80 -j DNAT --to-destination 192.168.1.2:8080\n\
-A POSTROUTING -o wan -j SNAT --to-source 203.0.113.1\nCOMMIT\n\
*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
-A FORWARD -m conntrack --ctstate DNAT --ctorigdstport 80 -j ACCEPT\n-A FORWARD -i lan -j ACCEPT\nCOMMIT\n";

#[track_caller]
fn leaves(outcome: &Outcome, expect: &str) {
    let p = &outcome.packet_out;
    let text =
        format!("{} {}:{} > {}:{}", outcome.verdict.name(), p.src, p.sport.unwrap_or(0), p.dst, p.dport.unwrap_or(0));
    assert_eq!(text, expect, "{outcome:#?}");
}

#[test]
fn answers_are_translated_back() {
    let mut host = Host::new(stack(NAT));
    let request = host.send("in=wan out=lan to=forward tcp 198.51.100.7:5000 > 203.0.113.1:80 syn");
    leaves(&request, "accept 198.51.100.7:5000 > 192.168.1.2:8080");
    let reply = host.send("in=lan out=wan to=forward tcp 192.168.1.2:8080 > 198.51.100.7:5000 syn,ack");
    leaves(&reply, "accept 203.0.113.1:80 > 198.51.100.7:5000");
    assert_eq!(reply.decided_by.unwrap().rule, Some(1));
    // The binding holds, and no nat rule is asked again.
    let third = host.send("in=wan out=lan to=forward tcp 198.51.100.7:5000 > 203.0.113.1:80 ack");
    leaves(&third, "accept 198.51.100.7:5000 > 192.168.1.2:8080");
    assert!(third.path.iter().all(|step| step.at.table != "nat"), "{third:#?}");

    let mut host = Host::new(stack(NAT));
    leaves(
        &host.send("in=lan out=wan to=forward udp 192.168.1.5:6000 > 9.9.9.9:53"),
        "accept 203.0.113.1:6000 > 9.9.9.9:53",
    );
    leaves(
        &host.send("in=wan out=lan to=forward udp 9.9.9.9:53 > 203.0.113.1:6000"),
        "accept 9.9.9.9:53 > 192.168.1.5:6000",
    );
    // Another with the same port needs another one outside.
    let clash = host.send("in=lan out=wan to=forward udp 192.168.1.6:6000 > 9.9.9.9:53");
    leaves(&clash, "accept 203.0.113.1:1024 > 9.9.9.9:53");
    assert!(clash.assumed.iter().any(|a| a.contains("any free one")), "{clash:#?}");
    leaves(
        &host.send("in=wan out=lan to=forward udp 9.9.9.9:53 > 203.0.113.1:1024"),
        "accept 9.9.9.9:53 > 192.168.1.6:6000",
    );
}

mod flows {
    use super::{Facts, Packet, input, stack};
    use reachwhy::firewall::flow::{FlowOutcome, Host, run};
    use reachwhy::firewall::{Stack, Verdict};

    fn through(stacks: &[&Stack], packet: &str) -> FlowOutcome {
        let packet: Packet = packet.parse().unwrap();
        let names = ["client", "server"];
        let names = if stacks.len() == 1 { &names[1..] } else { &names };
        let hosts: Vec<_> =
            stacks.iter().zip(names).map(|(stack, name)| Host { name, stack, facts: Facts::none() }).collect();
        run(&packet, &hosts)
    }

    fn first_blocked(outcome: &FlowOutcome) -> Option<(u32, String, String)> {
        outcome.first_blocked.as_ref().map(|p| {
            let by = p.decided_by.as_ref().map_or(String::new(), |by| format!("{} {:?}", by.chain, by.rule));
            (p.n, p.host.clone(), by)
        })
    }

    #[test]
    fn the_missing_reply_rule_is_found() {
        let stateless = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n-A INPUT -p tcp --dport 80 -j ACCEPT\nCOMMIT\n";
        let outcome = through(&[&stack(stateless)], "in=eth0 tcp 10.0.0.9:4000 > 10.0.0.1:80");
        assert!(!outcome.works);
        assert_eq!(first_blocked(&outcome), Some((2, "server".to_owned(), "OUTPUT None".to_owned())));
        let mended = stateless.replace("COMMIT", "-A OUTPUT -p tcp --sport 80 -j ACCEPT\nCOMMIT");
        let outcome = through(&[&stack(&mended)], "in=eth0 tcp 10.0.0.9:4000 > 10.0.0.1:80");
        assert!(outcome.works && outcome.packets.len() == 10, "{outcome:#?}");
        let keys = serde_json::to_value(&outcome).unwrap();
        assert_eq!(keys["packets"][1]["flags"], serde_json::json!(["syn", "ack"]));
        assert!(keys["first_blocked"].is_null() && keys["works"] == true && keys["packets"][1]["dir"] == "reply");
    }

    #[test]
    fn through_two_hosts() {
        let client = stack(
            "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n",
        );
        let server =
            input("-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -p tcp --dport 22 --syn -j ACCEPT");
        let outcome = through(&[&client, &server], "tcp 10.0.0.9:4000 > 10.0.0.1:22");
        assert!(outcome.works && outcome.packets.len() == 20, "{outcome:#?}");
        let outcome = through(&[&client, &server], "tcp 10.0.0.9:4000 > 10.0.0.1:23");
        assert_eq!(first_blocked(&outcome), Some((1, "server".to_owned(), "INPUT None".to_owned())));
        let deaf = stack("*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n");
        let outcome = through(&[&deaf, &server], "tcp 10.0.0.9:4000 > 10.0.0.1:22");
        assert_eq!(first_blocked(&outcome), Some((2, "client".to_owned(), "INPUT None".to_owned())));
        for packet in ["icmp 10.0.0.9 > 10.0.0.1", "udp 10.0.0.9:5 > 10.0.0.1:53"] {
            let all = input("-A INPUT -j ACCEPT");
            assert!(through(&[&client, &all], packet).works, "{packet}");
        }
    }

    #[test]
    fn through_a_router_and_over_loopback() {
        let outcome = through(&[&stack(super::NAT)], "in=wan out=lan tcp 198.51.100.7:5000 > 203.0.113.1:80");
        assert!(outcome.works, "{outcome:#?}");
        let outcome = through(&[&stack(super::NAT)], "in=lan out=wan udp 192.168.1.5:6000 > 9.9.9.9:53");
        assert!(outcome.works, "{outcome:#?}");
        let closed = "*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\n-A OUTPUT -o lo -j ACCEPT\n-A INPUT -i lo -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n";
        let outcome = through(&[&stack(closed)], "tcp 127.0.0.1:4000 > 127.0.0.1:80");
        assert_eq!(first_blocked(&outcome), Some((2, "server".to_owned(), "INPUT None".to_owned())));
        let open = closed.replace("NEW", "NEW,ESTABLISHED");
        let outcome = through(&[&stack(&open)], "tcp 127.0.0.1:4000 > 127.0.0.1:80");
        assert!(outcome.works && outcome.packets.len() == 20, "{outcome:#?}");
        assert_eq!(outcome.packets[0].verdict, Verdict::Accept);
    }
}

#[test]
fn rules_fill_sets() {
    let ipset = RulesetDump {
        format: DumpFormat::IpsetSave,
        backend: Backend::Legacy,
        via: "s".to_owned(),
        text: "create bad hash:ip family inet hashsize 1024 maxelem 65536 timeout 0\nadd bad 10.0.0.77 timeout 5\ncreate knock hash:ip,port family inet hashsize 1024 maxelem 65536\n".to_owned(),
    };
    let rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m set --match-set bad src -j DROP\n\
                 -A INPUT -p tcp --dport 23 -j SET --add-set bad src --timeout 10 --exist\n-A INPUT -p tcp --dport 23 -j DROP\n\
                 -A INPUT -p udp --dport 9 -j SET --del-set bad dst\n-A INPUT -j ACCEPT\nCOMMIT\n";
    let rules = RulesetDump {
        format: DumpFormat::IptablesSave,
        backend: Backend::Legacy,
        via: "t".to_owned(),
        text: rules.to_owned(),
    };
    let mut host = Host::new(Stack::from_dumps(&[ipset, rules]).0);
    let to = |from: &str, port: u16| format!("in=eth0 to=local tcp {from}:4000 > 10.0.0.1:{port} syn");
    let (ssh, telnet, old) = (to("10.0.0.9", 22), to("10.0.0.9", 23), to("10.0.0.77", 22));
    assert_eq!(host.verdicts(&[&ssh, &telnet, &ssh, &old]), "a5 d3 d1 d1");
    host.secs(6);
    assert_eq!(host.verdicts(&[&ssh, &old]), "d1 a5", "the dump's element had 5 seconds left");
    host.secs(11);
    assert_eq!(host.verdicts(&[&ssh, &telnet, &ssh]), "a5 d3 d1");
    host.send("in=eth0 to=local udp 10.0.0.1:5 > 10.0.0.9:9");
    assert_eq!(host.verdicts(&[&ssh]), "a5");
}

#[test]
fn no_time_and_no_number_is_too_large() {
    let rules = "-A INPUT -m limit --limit 10000/s --limit-burst 4294967295 -j ACCEPT\n\
                 -A INPUT -m quota --quota 18446744073709551615 -j ACCEPT\n-A INPUT -m connbytes --connbytes 18446744073709551615: \
                 --connbytes-dir both --connbytes-mode avgpkt -j ACCEPT\n-A INPUT -m statistic --mode nth --every 10 --packet 9 -j ACCEPT";
    let mut host = Host::new(input(rules));
    for seconds in [0, 5, u64::MAX] {
        host.history.at(Duration::from_secs(seconds));
        for packet in [
            "in=eth0 to=local udp 10.0.0.9:5 > 10.0.0.1:53",
            "in=eth0 icmp 10.0.0.9 > 10.0.0.1 type=3",
            "tcp ::1 > ::2",
        ] {
            host.send(packet);
        }
    }
}
