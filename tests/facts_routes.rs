//! Routes, rules and ways of a live kernel: read as `ip` shows them, asked as `ip route get` asks,
//! and explained as the kernel decides. In fresh network namespaces without a way out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::format_push_string, missing_docs)]

mod facts_support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use facts_support::{furnish, in_namespace, ip, lines, part};
use reachwhy::host::fib::{Flow, RouteVerdict, explain_flow};
use reachwhy::host::{HostFacts, RouteKind, RouteResult};
use reachwhy::os::gather::{GatherOptions, Part, gather};
use reachwhy::os::route_get::route_get;
use serde_json::Value;

/// Routes and rules of every sort.
fn route_and_rule() {
    for order in [
        "route add default via 192.168.1.1 metric 100",
        "route add default via 192.168.1.9 dev va proto dhcp metric 50",
        "route add 10.1.0.0/16 via 192.168.1.1 mtu 1300 src 192.168.1.22",
        "route add blackhole 10.2.0.0/16",
        "route add unreachable 10.3.0.0/16",
        "route add prohibit 10.4.0.0/16",
        "route add 10.5.0.0/16 proto static nexthop via 192.168.1.1 dev va weight 2 nexthop via 10.9.9.2 dev vc",
        "route add 10.6.0.0/16 via 172.31.0.1 dev va onlink",
        "route add 10.7.0.0/16 via inet6 fd00::1 dev va",
        "route add throw 10.8.0.0/16 table 100",
        "route add 10.0.0.0/8 via 192.168.1.77 table 100",
        "route add 10.8.1.0/24 via 192.168.1.88 table 1000",
        "route add 10.10.0.0/16 via 192.168.1.1 tos 0x10",
        "route add 10.10.0.0/16 via 192.168.1.3",
        "-6 route add default via fd00::1 metric 20",
        "-6 route add unreachable fd01::/64",
        "-6 route add blackhole fd02::/64",
        "-6 route add prohibit fd03::/64",
        "-6 route add fd04::/64 nexthop via fd00::1 dev va nexthop via fd00::3 dev va weight 3",
        "-6 route add fd05::/64 via fd00::5 dev va table 300",
        "rule add pref 10 to 10.8.0.0/16 lookup 100",
        "rule add pref 11 from 192.168.1.22 to 10.9.0.0/16 prohibit",
        "rule add pref 12 fwmark 0x7/0xff lookup 100",
        "rule add pref 13 iif vb lookup 1000",
        "rule add pref 14 oif nosuch lookup 1000",
        "rule add pref 15 ipproto tcp dport 8080 to 10.11.0.0/16 blackhole",
        "rule add pref 16 uidrange 4000-5000 lookup 1000",
        "rule add pref 17 not to 10.0.0.0/9 goto 30",
        "rule add pref 18 to 10.12.0.0/16 unreachable",
        "rule add pref 20 lookup main suppress_prefixlength 0",
        "rule add pref 30 nop",
        "-6 rule add pref 10 to fd05::/64 lookup 300",
        "-6 rule add pref 11 from fd00::22 to fd06::/64 blackhole",
        "-6 rule add pref 12 to fd07::/64 prohibit",
    ] {
        ip(order);
    }
}

#[test]
fn routes_and_rules_read_as_ip_shows_them() {
    in_namespace(|| {
        furnish();
        route_and_rule();
        let facts = gather(&GatherOptions::only([Part::Routes, Part::Rules]));
        assert_eq!(facts.unseen, []);
        let ours: BTreeSet<String> = facts.routes.as_ref().unwrap().iter().map(ToString::to_string).collect();
        let text = ip("-4 route show table all") + &ip("-6 route show table all");
        let theirs: BTreeSet<String> = lines(&text).iter().map(|line| lasting(line)).collect();
        assert_eq!(ours, theirs);

        let ours: Vec<String> = facts.rules.as_ref().unwrap().iter().map(ToString::to_string).collect();
        let text = ip("-4 rule") + &ip("-6 rule");
        let theirs: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(ours, theirs);
    });
}

/// A line of `ip route` without what a kernel adds to its answer (`error -113`, `expires 9sec`).
fn lasting(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, "error" | "expires") {
            words.next().unwrap()
        } else {
            kept.push(word);
            word
        };
    }
    kept.join(" ")
}

const FOUR: &[&str] = &[
    "127.0.0.1",
    "192.168.1.2",
    "192.168.1.3",
    "192.168.1.255",
    "10.9.9.2",
    "8.8.8.8",
    "10.1.0.1",
    "10.2.0.1",
    "10.3.0.1",
    "10.4.0.1",
    "10.5.0.1",
    "10.6.0.1",
    "10.7.0.1",
    "10.8.0.1",
    "10.8.1.1",
    "10.9.0.1",
    "10.10.0.1",
    "10.11.0.1",
    "10.12.0.1",
    "10.200.0.1",
    "200.1.1.1",
    "224.0.0.1",
    "255.255.255.255",
];
const SIX: &[&str] = &[
    "::1",
    "fd00::2",
    "fd00::3",
    "fd01::1",
    "fd02::1",
    "fd03::1",
    "fd04::1",
    "fd05::1",
    "fd06::1",
    "fd07::1",
    "2001:db8::1",
];

#[test]
fn the_way_is_the_one_that_ip_gets_and_the_tables_explain_it() {
    in_namespace(|| {
        furnish();
        route_and_rule();
        let mut refused = BTreeSet::new();
        // A second round without defaults, so that nothing catches what no route covers.
        for round in 0..2 {
            let facts = gather(&GatherOptions::only([Part::Routes, Part::Rules, Part::Addresses]));
            for (targets, sources) in [
                (FOUR, [None, Some("192.168.1.2"), Some("192.168.1.22")]),
                (SIX, [None, Some("fd00::2"), Some("fd00::22")]),
            ] {
                for dst in targets {
                    for src in sources {
                        for mark in [None, Some(7), Some(0x107), Some(0x8)] {
                            refused.extend(compare(&facts, dst, src, mark));
                        }
                    }
                }
            }
            if round == 0 {
                ip("route del default via 192.168.1.1");
                ip("route del default via 192.168.1.9");
                ip("-6 route del default");
            }
        }
        let expected = ["EACCES", "EHOSTUNREACH", "EINVAL", "ENETUNREACH"].map(str::to_owned);
        assert_eq!(refused, BTreeSet::from(expected));
    });
}

/// Asks the kernel, `ip` and the explanation; returns the errno that all agree on, if it is one.
fn compare(facts: &HostFacts, dst: &str, src: Option<&str>, mark: Option<u32>) -> Option<String> {
    let to: IpAddr = dst.parse().unwrap();
    let from: Option<IpAddr> = src.map(|src| src.parse().unwrap());
    let mut order = format!("-j route get {dst}");
    if let Some(src) = src {
        order += &format!(" from {src}");
    }
    if let Some(mark) = mark {
        order += &format!(" mark {mark}");
    }
    let output = Command::new("ip").args(order.split_whitespace()).output().unwrap();
    let answer = route_get(to, from, None, None, mark, None).unwrap();
    let flow = Flow { src: from, mark: mark.unwrap_or(0), uid: Some(0), protocol: Some(1), ..Flow::to(to) };
    let explained = explain_flow(facts, &Flow { ports: Some((0, 0)), ..flow });
    let context = format!("ip {order}: {answer:?} {explained:#?}");
    match answer.result {
        RouteResult::Refused { errno } => {
            assert!(!output.status.success(), "{context}");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let words = match errno.as_str() {
                "ENETUNREACH" => "Network is unreachable",
                "EHOSTUNREACH" => "No route to host",
                "EACCES" => "Permission denied",
                "EINVAL" => "Invalid argument",
                _ => panic!("{context}"),
            };
            assert!(said.contains(words), "{said} {context}");
            assert_eq!(explained.verdict.errno(), Some(errno.as_str()), "{context}");
            Some(errno)
        }
        RouteResult::Found { kind, gateway, interface, source, table, .. } => {
            assert!(output.status.success(), "{context}");
            let theirs = &serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap()[0];
            let via = theirs["via"]["host"].as_str().or(theirs["gateway"].as_str());
            assert_eq!(gateway.map(|g| g.to_string()).as_deref(), via, "{context}");
            assert_eq!(interface.as_deref(), theirs["dev"].as_str(), "{context}");
            assert_eq!(kind.to_string(), theirs["type"].as_str().unwrap_or("unicast"), "{context}");
            if from.is_none() {
                assert_eq!(source.map(|s| s.to_string()).as_deref(), theirs["prefsrc"].as_str(), "{context}");
            }
            let verdict = match kind {
                RouteKind::Local => RouteVerdict::Local,
                RouteKind::Broadcast => RouteVerdict::Broadcast,
                RouteKind::Multicast => RouteVerdict::Multicast,
                _ => RouteVerdict::Sent,
            };
            assert_eq!(explained.verdict, verdict, "{context}");
            // IPv4 takes a group by its address, whatever the route.
            let group = matches!(to, IpAddr::V4(to) if to.is_multicast() || to.is_broadcast());
            if group {
                return None;
            }
            let route = explained.route.as_ref().unwrap_or_else(|| panic!("{context}"));
            assert_eq!(Some(route.table), table, "{context}");
            if route.multipath.is_empty() {
                assert_eq!(route.gateway, gateway, "{context}");
                // What is for itself the kernel sends by the loopback.
                assert!(kind == RouteKind::Local || route.interface == interface, "{context}");
            } else {
                let taken = |hop: &reachwhy::host::NextHop| hop.gateway == gateway && hop.interface == interface;
                assert!(route.multipath.iter().any(taken), "{context}");
            }
            None
        }
    }
}

#[test]
fn a_way_asked_for_with_everything() {
    in_namespace(|| {
        furnish();
        route_and_rule();
        let to = |dst: &str| dst.parse::<IpAddr>().unwrap();
        let errno = |answer: RouteResult| match answer {
            RouteResult::Refused { errno } => errno,
            RouteResult::Found { .. } => String::new(),
        };
        let get = |dst, src: Option<&str>, iif, oif, ports| {
            route_get(to(dst), src.map(to), iif, oif, None, ports).unwrap().result
        };
        assert_eq!(errno(get("10.11.0.1", None, None, None, Some((6, 40000, 8080)))), "EINVAL");
        assert_eq!(errno(get("10.11.0.1", None, None, None, Some((6, 40000, 8081)))), "");
        let RouteResult::Found { interface, .. } = get("8.8.8.8", None, None, Some("vc"), None) else { panic!() };
        assert_eq!(interface.as_deref(), Some("vc"));
        let RouteResult::Found { mtu, source, .. } = get("10.1.0.1", None, None, None, None) else { panic!() };
        assert_eq!((mtu, source), (Some(1300), Some(to("192.168.1.22"))));
        assert_eq!(errno(get("8.8.8.8", None, None, Some("none"), None)), "ENODEV");
        assert_eq!(errno(get("8.8.8.8", Some("fd00::2"), None, None, None)), "EAFNOSUPPORT");
        // As if received there: nothing is forwarded in a new namespace.
        assert_eq!(errno(get("8.8.8.8", Some("192.168.1.50"), Some("va"), None, None)), "EHOSTUNREACH");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(errno(get("8.8.8.8", Some("192.168.1.50"), Some("va"), None, None)), "");
        // A source that the reverse path does not have.
        std::fs::write("/proc/sys/net/ipv4/conf/vc/rp_filter", "1").unwrap();
        let refused = errno(get("8.8.8.8", Some("192.168.1.50"), Some("vc"), None, None));
        assert!(["EXDEV", "EINVAL"].contains(&refused.as_str()), "{refused}");
    });
}

/// Waits for what the kernel does later, at most ten seconds.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it never came about that {what}");
}

#[test]
fn a_dead_way_is_told_from_a_living_one() {
    in_namespace(|| {
        furnish();
        ip("route add 10.1.0.0/16 via 192.168.1.1 metric 5");
        ip("route add 10.1.0.0/16 via 10.9.9.2 metric 9");
        let of = |metric| {
            let routes = part(Part::Routes).routes.unwrap();
            routes.into_iter().find(|route| route.metric == metric).unwrap()
        };
        assert!(!of(5).linkdown && !of(5).dead);
        ip("link set vb down");
        // The kernel marks the routes in its own time (net/core/link_watch.c).
        eventually("the routes of a link without carrier are marked", || of(5).linkdown);
        assert!(!of(5).dead, "without carrier, and used all the same");
        std::fs::write("/proc/sys/net/ipv4/conf/va/ignore_routes_with_linkdown", "1").unwrap();
        eventually("a route that is not used is marked", || of(5).dead);
        let facts = part(Part::Routes);
        let flow = Flow::to("10.1.0.1".parse().unwrap());
        assert_eq!(explain_flow(&facts, &flow).route.unwrap().metric, 9);
        let RouteResult::Found { gateway, .. } = route_get(flow.dst, None, None, None, None, None).unwrap().result
        else {
            panic!()
        };
        assert_eq!(gateway, Some("10.9.9.2".parse().unwrap()));
    });
}

#[test]
fn a_large_table_is_read_whole() {
    in_namespace(|| {
        furnish();
        let mut batch = String::new();
        for at in 0..10_000u32 {
            batch += &format!("route add 11.{}.{}.0/24 via 192.168.1.{}\n", at / 250, at % 250, 1 + at % 200);
        }
        let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let facts = part(Part::Routes);
        let many = facts.routes.unwrap().iter().filter(|route| route.gateway.is_some()).count();
        assert_eq!(many, 10_000);
    });
}
