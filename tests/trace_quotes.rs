//! What routers quote, and what `reachwhy trace` reads out of it: the answers are made by hand, on a host that plays a
//! whole path behind one real router.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a test")]

mod trace_support;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use reachwhy::lab::Lab;
use reachwhy::probe::{Moment, PathMethod};
use reachwhy::trace::{TraceRequest, Tracer};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use trace_support::{addresses, all_unlimited, codes, finding, in_lab, layered, reachwhy, trace};

const SERVER: [u8; 4] = [192, 168, 2, 3];
/// The TTL that arrives: the real router takes one before.
const HOPS: u8 = 4;

fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn packet(from: [u8; 4], to: &[u8], message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + message.len()).unwrap().to_be_bytes();
    [&[0x45, 0, length[0], length[1], 0, 0, 0, 0, 60, 1, 0, 0], &from[..], to, message].concat()
}

/// An ICMP message with its checksum put in.
fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, body].concat();
    let sum = sum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

fn expired(by: [u8; 4], probe: &[u8], quote: &[u8], extension: &[u8], words: u8) -> Vec<u8> {
    let mut body = quote.to_vec();
    if !extension.is_empty() {
        body.resize(128, 0);
        body.extend(extension);
    }
    packet(by, &probe[12..16], &icmp(11, 0, [0, words, 0, 0], &body))
}

/// RFC 4884: version 2, checksum, objects.
fn extension(objects: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0x20, 0, 0, 0], objects].concat();
    let sum = sum(&bytes);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// What stands behind the real router: an answer to each probe, made from its bytes (header included).
struct Path {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Path {
    fn play(lab: &Lab, mut answer: impl FnMut(u8, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let open = || {
            std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").unwrap();
            let kind = Type::from(nix::libc::SOCK_RAW);
            let ears = Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4)).unwrap();
            let mouth = Socket::new(Domain::IPV4, kind, Some(Protocol::from(nix::libc::IPPROTO_RAW))).unwrap();
            ears.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
            (ears, mouth)
        };
        let (ears, mouth) = lab.in_host("server", open).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(count) = (&ears).read(&mut bytes) else { continue };
                let probe = &bytes[..count];
                if count < 28 || probe[20] != 8 {
                    continue;
                }
                let answers = if probe[8] >= HOPS {
                    vec![packet(SERVER, &probe[12..16], &icmp(0, 0, probe[24..28].try_into().unwrap(), &probe[28..]))]
                } else {
                    answer(probe[8], probe)
                };
                let to = SocketAddr::from((<[u8; 4]>::try_from(&probe[12..16]).unwrap(), 0));
                for answer in answers {
                    let _ = mouth.send_to(&answer, &to.into());
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn hop(ttl: u8) -> [u8; 4] {
    [10, 7, ttl, 1]
}

#[test]
fn what_is_rewritten_on_the_way_is_told_with_where() {
    in_lab(&layered(&[1]), |lab| {
        all_unlimited(lab);
        let _path = Path::play(lab, |ttl, probe| {
            let mut quote = probe.to_vec();
            quote[8] = 1;
            if ttl >= 2 {
                quote[1] &= 3;
            }
            if ttl >= 3 {
                quote[12..16].copy_from_slice(&[203, 0, 113, 5]);
                quote[8] = 4;
            }
            vec![expired(hop(ttl), probe, &quote, &[], 0)]
        });
        let found = trace(lab, &["--tos", "184", "192.168.2.3"]);
        assert_eq!(addresses(&found), ["192.168.1.1", "10.7.1.1", "10.7.2.1", "10.7.3.1", "192.168.2.3"], "{found:#}");
        assert_eq!(finding(&found, "dscp")["ttl"], 3, "{found:#}");
        assert_eq!(finding(&found, "nat")["ttl"], 4, "{found:#}");
        assert!(finding(&found, "nat")["says"].as_str().unwrap().contains("203.0.113.5"));
        assert_eq!(finding(&found, "quoted_ttl")["ttl"], 4, "{found:#}");
        assert_eq!(found["hops"][2]["probes"][0]["changed"][0]["field"], "DSCP");
    });
}

#[test]
fn labels_and_interfaces_are_read() {
    in_lab(&layered(&[1]), |lab| {
        all_unlimited(lab);
        let _path = Path::play(lab, |ttl, probe| {
            let label = |number: u32, bottom: u32, left: u32| (number << 12 | bottom << 8 | left).to_be_bytes();
            let stack = [&[0, 12, 1, 1], &label(24016, 0, 1)[..], &label(99, 1, 254)].concat();
            // RFC 5837: incoming; index, address, name of 4 octets, MTU.
            let interface =
                [&[0, 28, 2, 0x0f, 0, 0, 0, 17, 0, 1, 0, 0, 192, 0, 2, 9, 8][..], b"ge-0/0\0", &9000u32.to_be_bytes()]
                    .concat();
            let (objects, words) = match ttl {
                1 => (stack, 32),
                // As before RFC 4884: no length, the structure at 128.
                2 => (stack, 0),
                _ => (interface, 32),
            };
            vec![expired(hop(ttl), probe, probe, &extension(&objects), words)]
        });
        let found = trace(lab, &["192.168.2.3"]);
        for at in [1, 2] {
            let labels = &found["hops"][at]["probes"][0]["mpls"];
            assert_eq!((&labels[0]["label"], &labels[1]["label"]), (&24016.into(), &99.into()), "{found:#}");
        }
        let interface = &found["hops"][3]["probes"][0]["interface"][0];
        assert_eq!((&interface["name"], &interface["index"]), (&"ge-0/0".into(), &17.into()), "{found:#}");
        assert_eq!((&interface["mtu"], &interface["address"]), (&9000.into(), &"192.0.2.9".into()));
        let text = reachwhy(lab, "client", &["trace", "-n", "192.168.2.3"]).1;
        assert!(text.contains("incoming interface ge-0/0 192.0.2.9 #17 MTU 9000"), "{text}");
    });
}

#[test]
fn broken_answers_neither_end_a_trace_nor_make_hops_up() {
    in_lab(&layered(&[1]), |lab| {
        all_unlimited(lab);
        let mut seed = 11u64;
        let _path = Path::play(lab, move |ttl, probe| {
            let mut any = |below: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(seed >> 33).unwrap() % below
            };
            let mut all = Vec::new();
            for _ in 0..6 {
                let length = [0, 1, 3, 4, 5, 8, 40, 65535][any(8)];
                let object = [u8::try_from(length >> 8).unwrap(), u8::try_from(length & 255).unwrap()];
                let kind = [u8::try_from(1 + any(3)).unwrap(), u8::try_from(any(256)).unwrap()];
                let more: Vec<u8> = (0..any(40)).map(|_| u8::try_from(any(256)).unwrap()).collect();
                let objects = extension(&[&object[..], &kind, &more].concat());
                let words = [0, 1, 5, 32, 33, 255][any(6)];
                let mut quote = probe[..any(probe.len())].to_vec();
                if let Some(first) = quote.first_mut().filter(|_| any(2) == 0) {
                    *first = [0x40, 0x44, 0x4f, 0x65, 0][any(5)];
                }
                let mut answer = expired([10, 66, ttl, 6], probe, &quote, &objects, words);
                answer.truncate(21 + any(answer.len() - 21));
                all.push(answer);
            }
            all.push(expired(hop(ttl), probe, probe, &[], 0));
            all
        });
        for args in [&["192.168.2.3"][..], &["-q", "9", "192.168.2.3"]] {
            let found = trace(lab, args);
            assert_eq!(found["hops"].as_array().unwrap().len(), usize::from(HOPS) + 1, "{found:#}");
            for ttl in 1..HOPS {
                let of = &addresses(&found)[usize::from(ttl)];
                assert!(of.contains(&Ipv4Addr::from(hop(ttl)).to_string()), "{found:#}");
            }
            assert_eq!(found["reached"], true);
        }
        let (code, text, _) = reachwhy(lab, "client", &["trace", "-n", "--explain", "192.168.2.3"]);
        assert_eq!(code, 0, "{text}");
    });
}

#[test]
fn packets_spread_one_by_one_are_told_from_flows() {
    in_lab(&layered(&[1]), |lab| {
        all_unlimited(lab);
        let mut turn = 0u8;
        // Hop 2 by flow (identifier and checksum), hop 3 by turns.
        let _path = Path::play(lab, move |ttl, probe| {
            turn = turn.wrapping_mul(5).wrapping_add(3);
            let by = match ttl {
                2 => [10, 7, 2, 1 + u8::from((probe[22] ^ probe[23] ^ probe[24] ^ probe[25]).count_ones() % 2 == 1)],
                3 => [10, 7, 3, 1 + (turn >> 3 & 1)],
                _ => hop(ttl),
            };
            vec![expired(by, probe, probe, &[], 0)]
        });
        let found = trace(lab, &["--paths", "--icmp", "192.168.2.3"]);
        let graph = &found["graph"];
        let nodes = graph["nodes"].as_array().unwrap();
        let spread = |address: &str| {
            let id = &nodes.iter().find(|node| node["address"] == address).unwrap_or_else(|| panic!("{graph:#}"))["id"];
            let mut balancers = graph["balancers"].as_array().unwrap().iter();
            balancers.find(|one| one["node"] == *id).map(|one| one["spread"].as_str().unwrap().to_owned())
        };
        assert_eq!(spread("10.7.1.1").as_deref(), Some("per-flow"), "{graph:#}");
        assert_eq!(spread("10.7.2.1").as_deref(), Some("per-packet"), "{graph:#}");
        assert_eq!(spread("10.7.2.2").as_deref(), Some("per-packet"), "{graph:#}");
        // Whoever was seen has a way that leads to it.
        let led: BTreeSet<u64> =
            graph["edges"].as_array().unwrap().iter().filter_map(|edge| edge["to"].as_u64()).collect();
        for node in nodes.iter().skip(1) {
            assert!(led.contains(&node["id"].as_u64().unwrap()), "{graph:#}");
        }
    });
}

#[test]
fn ways_behind_a_spread_of_packets_are_possible_ones() {
    in_lab(&layered(&[1]), |lab| {
        all_unlimited(lab);
        let mut turn = 0u8;
        let _path = Path::play(lab, move |ttl, probe| {
            turn = turn.wrapping_mul(5).wrapping_add(3);
            let by = if ttl == 3 { hop(3) } else { [10, 7, ttl, 1 + (turn >> 3 & 1)] };
            vec![expired(by, probe, probe, &[], 0)]
        });
        let found = trace(lab, &["--paths", "--icmp", "192.168.2.3"]);
        assert_eq!(found["graph"]["blurred_hops"], serde_json::json!([3]), "{found:#}");
        let text = reachwhy(lab, "client", &["trace", "-n", "--paths", "--icmp", "192.168.2.3"]).1;
        assert!(text.contains("cannot be told"), "{text}");
        let led: BTreeSet<u64> =
            found["graph"]["edges"].as_array().unwrap().iter().filter_map(|edge| edge["to"].as_u64()).collect();
        assert_eq!(led.len() + 1, found["graph"]["nodes"].as_array().unwrap().len(), "{found:#}");
    });
}

#[test]
fn used_up_limits_before_a_dead_destination_are_waited_for() {
    in_lab(&layered(&[1, 1, 1]), |lab| {
        let drop = |_: Value| ();
        // All that the routers' limits hold is used up.
        drop(trace(lab, &["-q", "12", "192.168.2.77"]));
        let found = trace(lab, &["192.168.2.77"]);
        assert_eq!(addresses(&found).len(), 3, "{found:#}");
        assert!(!addresses(&found).contains(&"*".to_owned()), "{found:#}");
        assert!(codes(&found).contains(&"silent"), "{found:#}");
        assert!(found["elapsed_ms"].as_f64().unwrap() < 1500.0, "{found:#}");
    });
}

#[test]
fn what_has_not_left_yet_makes_no_room_for_more() {
    let request = TraceRequest::new("192.0.2.1", [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), PathMethod::Icmp);
    let mut tracer = Tracer::new(request, true, Vec::new(), 7);
    let at = |ms: u64| Moment(ms * 1_000_000);
    let orders = tracer.plan(at(0));
    assert_eq!(orders.len(), 7);
    assert!(tracer.plan(at(50)).is_empty());
    for (number, _) in orders {
        tracer.sent(number, None, at(51));
    }
    assert!(tracer.plan(at(51)).is_empty());
    assert_eq!(tracer.plan(at(53)).len(), 12, "a path that says nothing is asked further");
}
