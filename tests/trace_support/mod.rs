//! Labs for traces: rows and meshes of routers whose paths are known, and what a trace says of them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "helpers of tests")]

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use reachwhy::lab::topology::{End, Host, Link, Topology};
use reachwhy::lab::{Lab, LabError};
use serde_json::Value;

pub const REACHWHY: &str = env!("CARGO_BIN_EXE_reachwhy");

/// Builds a lab in a thread of its own and does `work` with it; skips, loudly, where the machine cannot.
pub fn in_lab(topology: &Topology, work: impl FnOnce(&Lab) + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| match Lab::build_with(topology, Path::new(REACHWHY)) {
            Ok(lab) => work(&lab),
            Err(LabError::Isolate(error)) => {
                assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {error}");
                eprintln!("SKIPPED: {error}");
            }
            Err(error) => panic!("{}: {error}", topology.name),
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What `reachwhy ARGS` on a host says and how it ends.
pub fn reachwhy(lab: &Lab, host: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = lab.program();
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = lab.spawn(host, command).unwrap();
    let child = process.child();
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap_or(-1), out, err)
}

/// `reachwhy trace -n --json ARGS` from the client.
pub fn trace(lab: &Lab, args: &[&str]) -> Value {
    let (code, out, err) = reachwhy(lab, "client", &[&["trace", "-n", "--json"], args].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: exit {code}\n{out}\n{err}"))
}

/// The address of each hop, `*` where silent; of several, all, joined.
pub fn addresses(trace: &Value) -> Vec<String> {
    let of = |hop: &Value| {
        let mut found: Vec<&str> = Vec::new();
        for address in hop["probes"].as_array().unwrap().iter().filter_map(|probe| probe["address"].as_str()) {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() { "*".to_owned() } else { found.join("|") }
    };
    trace["hops"].as_array().unwrap().iter().map(of).collect()
}

pub fn codes(trace: &Value) -> Vec<&str> {
    trace["findings"].as_array().unwrap().iter().filter_map(|finding| finding["code"].as_str()).collect()
}

pub fn finding<'a>(trace: &'a Value, code: &str) -> &'a Value {
    let all = trace["findings"].as_array().unwrap();
    all.iter().find(|finding| finding["code"] == code).unwrap_or_else(|| panic!("no {code} in {all:#?}"))
}

/// Answers as often as it is asked: what is tested is not the limit.
pub fn unlimited(lab: &Lab, host: &str) {
    lab.in_host(host, || {
        for (name, value) in [
            ("ipv4/icmp_ratemask", "0"),
            ("ipv6/icmp/ratelimit", "0"),
            ("ipv4/icmp_msgs_per_sec", "1000000"),
            ("ipv4/icmp_msgs_burst", "100000"),
        ] {
            let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
        }
    })
    .unwrap();
}

pub fn all_unlimited(lab: &Lab) {
    for (at, host) in lab.topology().hosts.iter().enumerate() {
        unlimited(lab, &host.name);
        // Routers that all hash alike never use some of their ways: what one sends this way, the next sends that way.
        let seed = (at + 1) * 7919;
        let written = lab
            .in_host(&host.name, || std::fs::write("/proc/sys/net/ipv4/fib_multipath_hash_seed", seed.to_string()))
            .unwrap();
        // Kernels before 6.11 have no such seed: each host's own hash differs already by its boot.
        if let Err(error) = written {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

fn end(node: &str, dev: &str, addresses: &[String]) -> End {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    End { node: node.to_owned(), dev: dev.to_owned(), addresses }
}

fn host(name: &str, router: bool, routes: Vec<String>) -> Host {
    let mut host = Host { name: name.to_owned(), role: "test".to_owned(), router, routes, ..Host::default() };
    if router {
        host.sysctls.insert("net.ipv4.fib_multipath_hash_policy".to_owned(), "1".to_owned());
    }
    host
}

/// Layers of routers between client (192.168.1.2) and server (192.168.2.3). Where two layers are of one width each
/// router leads to its neighbour, else each leads to all of the next. `fd00:…` beside.
///
/// The router n of layer l is `r{l}x{n}`, and answers from layer l - 1, router m, with 10.l.m*16+n.2.
pub fn layered(widths: &[usize]) -> Topology {
    let link_of = |layer: usize, from: usize, to: usize| {
        (format!("10.{layer}.{}", from * 16 + to), format!("fd00:{layer:x}:{from:x}:{to:x}"))
    };
    let joins = |layer: usize, from: usize, to: usize| widths[layer - 1] != widths[layer] || from == to;
    let name = |layer: usize, at: usize| format!("r{layer}x{at}");
    let mut links = vec![Link {
        a: end("client", "eth0", &["192.168.1.2/24".into(), "fd01::2/64".into()]),
        b: end("r0x0", "up0", &["192.168.1.1/24".into(), "fd01::1/64".into()]),
        mtu: None,
        impair: None,
    }];
    assert_eq!((widths[0], widths[widths.len() - 1]), (1, 1));
    for layer in 1..widths.len() {
        for from in 0..widths[layer - 1] {
            for to in (0..widths[layer]).filter(|to| joins(layer, from, *to)) {
                let (v4, v6) = link_of(layer, from, to);
                links.push(Link {
                    a: end(
                        &name(layer - 1, from),
                        &format!("down{to}"),
                        &[format!("{v4}.1/24"), format!("{v6}::1/64")],
                    ),
                    b: end(&name(layer, to), &format!("up{from}"), &[format!("{v4}.2/24"), format!("{v6}::2/64")]),
                    mtu: None,
                    impair: None,
                });
            }
        }
    }
    let last = widths.len() - 1;
    links.push(Link {
        a: end(&name(last, 0), "down0", &["192.168.2.1/24".into(), "fd02::1/64".into()]),
        b: end("server", "eth0", &["192.168.2.3/24".into(), "fd02::3/64".into()]),
        mtu: None,
        impair: None,
    });
    let mut hosts = vec![host("client", false, vec!["default via 192.168.1.1".into(), "default via fd01::1".into()])];
    for layer in 0..widths.len() {
        for at in 0..widths[layer] {
            let mut routes = Vec::new();
            if layer > 0 {
                let from = (0..widths[layer - 1]).find(|from| joins(layer, *from, at)).unwrap();
                let (v4, v6) = link_of(layer, from, at);
                routes.push(format!("192.168.1.0/24 via {v4}.1"));
                routes.push(format!("fd01::/64 via {v6}::1"));
            }
            if layer < last {
                let next: Vec<usize> = (0..widths[layer + 1]).filter(|to| joins(layer + 1, at, *to)).collect();
                let way = |to: &usize, v6: bool| {
                    let (four, six) = link_of(layer + 1, at, *to);
                    if v6 { format!("{six}::2") } else { format!("{four}.2") }
                };
                for (net, v6) in [("192.168.2.0/24", false), ("fd02::/64", true)] {
                    if let [only] = next.as_slice() {
                        routes.push(format!("{net} via {}", way(only, v6)));
                    } else {
                        let hops: Vec<String> =
                            next.iter().map(|to| format!("nexthop via {} weight 1", way(to, v6))).collect();
                        routes.push(format!("{net} {}", hops.join(" ")));
                    }
                }
            }
            hosts.push(host(&name(layer, at), true, routes));
        }
    }
    hosts.push(host("server", false, vec!["default via 192.168.2.1".into(), "default via fd02::1".into()]));
    Topology { name: format!("layers-{}", hosts.len()), summary: "test".to_owned(), hosts, switches: vec![], links }
}

/// The address that a router answers probes from `from` with, as [`layered`] gives them out. IPv4: that of the way
/// back to the client (Linux, `icmp_errors_use_inbound_ifaddr` off); IPv6: that of the link they came by.
pub fn router_address(widths: &[usize], layer: usize, from: usize, at: usize, v6: bool) -> String {
    let text = |v4: &str, six: &str| if v6 { six.to_owned() } else { v4.to_owned() };
    if layer == 0 {
        return text("192.168.1.1", "fd01::1");
    }
    if layer == widths.len() {
        return text("192.168.2.3", "fd02::3");
    }
    if v6 {
        let address: std::net::Ipv6Addr = format!("fd00:{layer:x}:{from:x}:{at:x}::2").parse().unwrap();
        return address.to_string();
    }
    let first = if widths[layer - 1] == widths[layer] { at } else { 0 };
    format!("10.{layer}.{}.2", first * 16 + at)
}
