//! The kernel names the rules that a packet met.

use std::net::UdpSocket;

use reachwhy::host::{LadderSpec, LadderTransport};
use reachwhy::os::nft::{TraceKind, Tracer, dumps, load_iptables_save};

use super::world::inside;

#[test]
fn the_rule_that_dropped_is_named() {
    inside(|| {
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n:guard - [0:0]\n-A INPUT -p tcp -j DROP\n-A INPUT -j guard\n\
            -A guard -p udp -m udp --dport 5 -j ACCEPT\n-A guard -p udp -m udp --dport 77 -j DROP\nCOMMIT\n";
        load_iptables_save(rules, false).unwrap();
        let before = dumps();
        let address = "127.0.0.1".parse().unwrap();
        let spec = LadderSpec {
            transport: LadderTransport::Udp,
            client: address,
            server: address,
            port: Some(77),
            devices: Vec::new(),
        };
        let mut tracer = Tracer::start(&spec, 1).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", "127.0.0.1:78").unwrap();
        socket.send_to(b"x", "127.0.0.1:77").unwrap();
        let mut events = Vec::new();
        for _ in 0..200 {
            let (more, lost) = tracer.drain().unwrap();
            assert!(!lost);
            events.extend(more);
            if events.iter().any(|event| event.verdict == "drop") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let said: Vec<_> =
            events.iter().map(|event| (event.kind, event.chain.as_str(), event.rule, event.verdict.as_str())).collect();
        assert!(said.contains(&(TraceKind::Policy, "OUTPUT", None, "accept")), "{said:?}");
        assert!(said.contains(&(TraceKind::Rule, "INPUT", Some(2), "jump guard")), "{said:?}");
        assert_eq!(said.last(), Some(&(TraceKind::Rule, "guard", Some(2), "drop")));
        assert!(events.iter().all(|event| event.table == "filter" && event.family == "ip"));
        drop(tracer);
        assert_eq!(dumps().0.len(), before.0.len());
    });
}
