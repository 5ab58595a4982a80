//! `reachwhy port` against the kernel's own stack and firewalls, in namespaces that lead nowhere.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, clippy::expect_used, reason = "a test")]

mod probe_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use probe_support::{Sandbox, sandboxed};
use reachwhy::lab::rules::{Firewall, load};
use reachwhy::os::netns::NetNs;
use serde_json::Value;

const FAR: &str = "10.9.1.2";
const NEAR: &str = "10.9.0.2";
const ROUTER: &str = "10.9.0.2";

/// The kinds of rejects that iptables knows, with nmap's word.
const REJECTS: [(&str, &str); 7] = [
    ("icmp-port-unreachable", "port-unreach"),
    ("icmp-host-unreachable", "host-unreach"),
    ("icmp-net-unreachable", "net-unreach"),
    ("icmp-proto-unreachable", "proto-unreach"),
    ("icmp-net-prohibited", "net-prohibited"),
    ("icmp-host-prohibited", "host-prohibited"),
    ("icmp-admin-prohibited", "admin-prohibited"),
];
const OPEN: u16 = 1000;
const DROPPED: u16 = 1001;
const DROPPED_ON_THE_WAY: u16 = 1002;
const HOST: u16 = 1010;
const WAY: u16 = 1020;
const RESET_HOST: u16 = 1018;
const RESET_WAY: u16 = 1028;
const ASKED: &str = "999-1002,1010-1016,1018,1020-1026,1028";

fn reachwhy(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reachwhy"));
    // The child is born in the network of this thread.
    command.arg("port").args(arguments).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn json(arguments: &[&str]) -> Value {
    let output = reachwhy(arguments).arg("--json").output().unwrap();
    parsed(&output)
}

fn parsed(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    })
}

fn port(report: &Value, number: u16) -> &Value {
    let ports = report["ports"].as_array().unwrap();
    ports.iter().find(|port| port["port"] == number).unwrap_or_else(|| panic!("no {number} in {report:#}"))
}

#[track_caller]
fn expect(report: &Value, number: u16, wanted: [&str; 4]) {
    let one = port(report, number);
    let text = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
    assert_eq!(["state", "reason", "by", "verdict"].map(text), wanted, "{number}: {one:#}");
}

/// Rules for the far host and for the router, TCP and UDP.
fn rules() -> (String, String) {
    let (mut host, mut way) = (String::new(), String::new());
    for proto in ["tcp", "udp"] {
        writeln!(host, "-A INPUT -p {proto} --dport {DROPPED} -j DROP").unwrap();
        writeln!(way, "-A FORWARD -p {proto} --dport {DROPPED_ON_THE_WAY} -j DROP").unwrap();
        for (at, (with, _)) in (0..).zip(REJECTS) {
            writeln!(host, "-A INPUT -p {proto} --dport {} -j REJECT --reject-with {with}", HOST + at).unwrap();
            writeln!(way, "-A FORWARD -p {proto} --dport {} -j REJECT --reject-with {with}", WAY + at).unwrap();
        }
    }
    writeln!(host, "-A INPUT -p tcp --dport {RESET_HOST} -j REJECT --reject-with tcp-reset").unwrap();
    writeln!(way, "-A FORWARD -p tcp --dport {RESET_WAY} -j REJECT --reject-with tcp-reset").unwrap();
    (table(&host), table(&way))
}

fn table(rules: &str) -> String {
    format!("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}COMMIT\n")
}

struct Services(#[allow(dead_code, reason = "held open")] TcpListener);

fn serve() -> Services {
    let udp = UdpSocket::bind(("0.0.0.0", OPEN)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((_, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(b"hello", from);
        }
    });
    Services(TcpListener::bind(("0.0.0.0", OPEN)).unwrap())
}

/// This host, a router and a far host, both with firewalls; errors come without limit.
fn firewalled(sandbox: &Sandbox) -> (NetNs, NetNs, Services) {
    let (router, far) = sandbox.chain();
    let (host, way) = rules();
    router.run(|| load(&Firewall::v4(&way)).unwrap()).unwrap();
    let services = far
        .run(|| {
            std::fs::write("/proc/sys/net/ipv4/icmp_ratemask", "0").unwrap();
            load(&Firewall::v4(&host)).unwrap();
            serve()
        })
        .unwrap();
    (router, far, services)
}

#[test]
fn every_way_to_say_no_is_told_apart() {
    sandboxed(|sandbox| {
        let _world = firewalled(sandbox);
        for technique in ["--syn", "--connect"] {
            let report = json(&[technique, FAR, ASKED]);
            let connect = technique == "--connect";
            let (refused, reset) = if connect { ("conn-refused", "conn-refused") } else { ("reset", "reset") };
            expect(&report, 999, ["closed", refused, FAR, "closed-by-host"]);
            expect(&report, OPEN, ["open", "syn-ack", FAR, "open"]);
            for dropped in [DROPPED, DROPPED_ON_THE_WAY] {
                let meaning = if connect { "dropped" } else { "dropped-at-the-end" };
                expect(&report, dropped, ["filtered", "no-response", "-", meaning]);
            }
            for (at, (_, reason)) in (0..).zip(REJECTS) {
                expect(&report, HOST + at, ["filtered", reason, FAR, "rejected-by-host"]);
                expect(&report, WAY + at, ["filtered", reason, ROUTER, "rejected-on-the-way"]);
            }
            let forged = if connect { "closed-by-host" } else { "forged-reset" };
            expect(&report, RESET_WAY, ["closed", reset, FAR, forged]);
            assert_eq!(report["host_up"], true);
            if !connect {
                assert_eq!(port(&report, RESET_WAY)["hop"], 1);
                assert_eq!(port(&report, RESET_WAY)["hop_address"], ROUTER);
                assert_eq!(port(&report, WAY)["hop"], 1);
                assert_eq!(port(&report, OPEN)["reply_ttl"], 63);
                assert_eq!(report["distance"], 2);
                let rtt = port(&report, OPEN)["rtt_ms"].as_f64().unwrap();
                assert!(rtt > 0.0, "{rtt}");
            }
            assert_eq!(port(&report, WAY)["icmp"]["says"], "destination unreachable: port unreachable");
        }
        let report = json(&["--udp", FAR, ASKED]);
        expect(&report, 999, ["closed", "port-unreach", FAR, "closed-by-host"]);
        expect(&report, OPEN, ["open", "udp-response", FAR, "open"]);
        expect(&report, DROPPED, ["open|filtered", "no-response", "-", "no-answer"]);
        // A host's own port-unreachable is what a closed port says, rule or no rule.
        expect(&report, HOST, ["closed", "port-unreach", FAR, "closed-by-host"]);
        expect(&report, WAY, ["filtered", "port-unreach", ROUTER, "rejected-on-the-way"]);
        for (at, (_, reason)) in (0..).zip(REJECTS).skip(1) {
            expect(&report, HOST + at, ["filtered", reason, FAR, "rejected-by-host"]);
            expect(&report, WAY + at, ["filtered", reason, ROUTER, "rejected-on-the-way"]);
        }
    });
}

/// `port → (state, reason)` as nmap prints them.
fn nmap(arguments: &[&str]) -> Option<BTreeMap<u16, (String, String)>> {
    let found = Command::new("nmap").args(["-n", "-Pn", "--reason", "-v"]).args(arguments).output();
    let Ok(output) = found else {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "nmap is required");
        eprintln!("SKIPPED: there is no nmap");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let port = words.next()?.split_once('/')?.0.parse().ok()?;
        let (state, _service, reason) = (words.next()?, words.next()?, words.next()?);
        Some((port, (state.to_owned(), reason.to_owned())))
    };
    let found: BTreeMap<_, _> = text.lines().filter_map(line).collect();
    assert!(found.len() > 10, "{text}");
    Some(found)
}

#[test]
fn nmap_agrees_on_every_state() {
    sandboxed(|sandbox| {
        let _world = firewalled(sandbox);
        for (ours, theirs) in [
            ("--syn", "-sS"),
            ("--connect", "-sT"),
            ("--udp", "-sU"),
            ("--ack", "-sA"),
            ("--fin", "-sF"),
            ("--null", "-sN"),
            ("--xmas", "-sX"),
        ] {
            let Some(wanted) = nmap(&[theirs, "-p", ASKED, FAR]) else { return };
            let report = json(&[ours, FAR, ASKED]);
            for (number, (state, reason)) in wanted {
                let one = port(&report, number);
                let by_icmp = !one["icmp"].is_null();
                if ours == "--connect" && by_icmp {
                    // nmap has only the errno: it calls a reject "closed", and does not know who sent it.
                    assert_eq!(one["state"], "filtered", "{number}");
                    continue;
                }
                assert_eq!(
                    (one["state"].as_str().unwrap(), one["reason"].as_str().unwrap()),
                    (state.as_str(), reason.as_str()),
                    "{theirs} {number}"
                );
            }
        }
    });
}

#[test]
fn nobody_at_home_is_told_by_the_neighbour_and_by_the_router() {
    sandboxed(|sandbox| {
        let _hosts = sandbox.chain();
        for technique in ["--syn", "--udp"] {
            let report = json(&[technique, "10.9.0.77", "80,81"]);
            assert_eq!(report["host_up"], false, "{report:#}");
            expect(&report, 80, ["filtered", "host-unreach", "-", "host-down"]);
        }
        let report = json(&["--syn", "10.9.1.77", "80,81"]);
        assert_eq!(report["host_up"], false, "{report:#}");
        expect(&report, 80, ["filtered", "host-unreach", ROUTER, "host-down"]);
        // The router has no route further on.
        let report = json(&["--syn", "10.99.0.1", "80"]);
        expect(&report, 80, ["filtered", "net-unreach", ROUTER, "no-route-on-the-way"]);
    });
}

#[test]
fn no_open_port_is_lost_on_a_link_that_loses_a_twentieth() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let loss = "-A INPUT -p tcp -m statistic --mode random --probability 0.05 -j DROP\n\
            -A OUTPUT -p tcp -m statistic --mode random --probability 0.05 -j DROP\n";
        let listeners: Vec<_> = other
            .run(|| {
                load(&Firewall::v4(&table(loss))).unwrap();
                (0..30u16).map(|at| TcpListener::bind(("0.0.0.0", 2000 + at * 7)).unwrap()).collect()
            })
            .unwrap();
        for _ in 0..5 {
            let report = json(&["--syn", NEAR, "2000-2300"]);
            let ports = report["ports"].as_array().unwrap();
            let open = ports.iter().filter(|port| port["state"] == "open").count();
            let closed = ports.iter().filter(|port| port["state"] == "closed").count();
            assert_eq!((open, closed), (30, 271), "{report:#}");
        }
        drop(listeners);
    });
}

#[test]
fn all_ports_of_a_host_are_asked() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let listener = other.run(|| TcpListener::bind("[::]:54321").unwrap()).unwrap();
        for host in [NEAR, "fd09::2"] {
            let report = json(&[host, "-"]);
            let ports = report["ports"].as_array().unwrap();
            assert_eq!(ports.len(), 65535);
            let other: Vec<_> = ports.iter().filter(|port| port["state"] != "closed").collect();
            assert_eq!(other.len(), 1, "{other:#?}");
            assert_eq!((&other[0]["port"], &other[0]["state"]), (&54321.into(), &"open".into()));
        }
        drop(listener);
    });
}

#[test]
fn nothing_is_sent_to_an_address_that_was_not_asked_for() {
    use reachwhy::os::capture::Capture;
    use reachwhy::probe::FlowFilter;
    sandboxed(|sandbox| {
        let _other = sandbox.pair();
        let mut capture = Capture::open(Some("t0"), &FlowFilter { neighbours: true, ..FlowFilter::all() }).unwrap();
        let output = reachwhy(&["--json", "10.9.0.2-3", "10.9.0.9", "80,443"]).output().unwrap();
        let lines: Vec<Value> =
            String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["host_up"], &lines[1]["host_up"]), (&true.into(), &false.into()));
        assert_eq!(output.status.code(), Some(1));
        let asked: Vec<IpAddr> = ["10.9.0.2", "10.9.0.3", "10.9.0.9"].iter().map(|one| one.parse().unwrap()).collect();
        let frames = capture.drain();
        let out = frames.iter().filter(|frame| frame.outgoing).map(|frame| frame.decode());
        let told: Vec<String> = out
            .filter(|packet| packet.dst().is_some_and(|dst| dst.is_ipv4() && !asked.contains(&dst)))
            .map(|packet| packet.to_string())
            .collect();
        assert!(told.is_empty(), "{told:#?}");
        assert!(frames.len() > 6);
    });
}

#[test]
fn ctrl_c_leaves_what_was_found() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let listener = other.run(|| TcpListener::bind(("0.0.0.0", OPEN)).unwrap()).unwrap();
        let silent = table("-A INPUT -p tcp --dport 2000:65535 -j DROP\n");
        other.run(|| load(&Firewall::v4(&silent)).unwrap()).unwrap();
        let mut child = reachwhy(&["--json", "--rate", "3000", NEAR, "1-65535"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It reads faster than it can be filled only when somebody reads.
        std::thread::sleep(Duration::from_millis(1500));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text).unwrap();
        let status = child.wait().unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["partial"], true);
        assert!(report["not_asked"].as_u64().unwrap() > 1000);
        assert!(matches!(status.code(), Some(1 | 3)), "{status}");
        drop(listener);
    });
}

#[test]
fn without_privilege_connect_takes_over_and_says_so() {
    use std::os::unix::process::CommandExt as _;
    sandboxed(|sandbox| {
        let _world = firewalled(sandbox);
        // Where nobody may look for a program.
        let program = std::env::temp_dir().join(format!("reachwhy-port-test-{}", std::process::id()));
        std::fs::copy(env!("CARGO_BIN_EXE_reachwhy"), &program).unwrap();
        let nobody = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.arg("port").args(arguments).env("NO_COLOR", "1").uid(65534).gid(65534).output().unwrap()
        };
        let output = nobody(&[FAR, "999,1000,1010,1020"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = nobody(&["--syn", FAR, "999"]);
        let report = parsed(&nobody(&["--json", FAR, "999,1000,1010,1020"]));
        let udp = parsed(&nobody(&["--json", "--udp", FAR, "999,1000,1001,1020"]));
        std::fs::remove_file(&program).unwrap();
        assert!(said.contains("connect()"), "{said}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(report["technique"], "connect");
        expect(&report, 1010, ["filtered", "port-unreach", FAR, "rejected-by-host"]);
        expect(&report, 1020, ["filtered", "port-unreach", ROUTER, "rejected-on-the-way"]);
        expect(&report, 999, ["closed", "conn-refused", FAR, "closed-by-host"]);
        expect(&udp, 999, ["closed", "port-unreach", FAR, "closed-by-host"]);
        expect(&udp, 1000, ["open", "udp-response", FAR, "open"]);
        expect(&udp, 1001, ["open|filtered", "no-response", "-", "no-answer"]);
        expect(&udp, 1020, ["filtered", "port-unreach", ROUTER, "rejected-on-the-way"]);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(3), "{error}");
        assert!(error.contains("CAP_NET_RAW") && error.contains("--connect"), "{error}");
    });
}

#[test]
fn this_host_s_own_firewall_and_lack_of_a_route_are_named() {
    sandboxed(|sandbox| {
        let _other = sandbox.pair();
        load(&Firewall::v4(&table("-A OUTPUT -p tcp --dport 81 -j DROP\n"))).unwrap();
        let report = json(&["--syn", NEAR, "80,81"]);
        expect(&report, 81, ["filtered", "local-firewall", "-", "local-firewall"]);
        expect(&report, 80, ["closed", "reset", NEAR, "closed-by-host"]);
        for technique in ["--syn", "--connect", "--udp"] {
            let report = json(&[technique, "10.55.0.1", "80"]);
            expect(&report, 80, ["filtered", "no-route", "-", "no-route"]);
        }
    });
}

#[test]
fn waiting_ends_when_the_port_opens_and_watching_tells_changes() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let never = reachwhy(&["--wait=0.5", NEAR, "1000"]).output().unwrap();
        assert_eq!(never.status.code(), Some(1));
        let waiting = reachwhy(&["--wait=60", "--json", NEAR, "1000"]).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(600));
        let listener = other.run(|| TcpListener::bind(("0.0.0.0", OPEN)).unwrap()).unwrap();
        let output = waiting.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        expect(&parsed(&output), OPEN, ["open", "syn-ack", NEAR, "open"]);
        let watched =
            reachwhy(&["--watch", "--count", "3", "--interval", "0.05", "--json", NEAR, "1000"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&watched.stdout).lines().count(), 3);
        assert_eq!(watched.status.code(), Some(0));
        let watched = reachwhy(&["--watch", "--count", "2", "--interval", "0.05", NEAR, "1000"]).output().unwrap();
        let text = String::from_utf8_lossy(&watched.stdout).into_owned();
        assert!(text.contains("2 of 2 rounds open, 0 changes; min / mean / max"), "{text}");
        drop(listener);
    });
}

#[test]
fn services_are_asked_who_they_are() {
    use std::io::{Read as _, Write as _};
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        other
            .run(|| {
                for (port, greeting, answer) in [
                    (22, &b"SSH-2.0-Test_1\r\n"[..], &b""[..]),
                    (8080, b"", b"HTTP/1.1 404 Not Found\r\nServer: small\r\nContent-Length: 0\r\n\r\n"),
                    (9999, b"\x1b[31mred\n", b""),
                ] {
                    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
                    std::thread::spawn(move || {
                        for stream in listener.incoming() {
                            let mut stream = stream.unwrap();
                            let _ = stream.write_all(greeting);
                            let mut request = [0; 1000];
                            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                                let _ = stream.write_all(answer);
                            }
                        }
                    });
                }
            })
            .unwrap();
        let report = json(&["--banner", NEAR, "22,8080,9999"]);
        assert_eq!(port(&report, 22)["banner"]["protocol"], "ssh", "{report:#}");
        assert_eq!(port(&report, 22)["banner"]["says"], "SSH-2.0-Test_1");
        assert_eq!(port(&report, 8080)["banner"]["http"]["status"], 404);
        assert_eq!(port(&report, 8080)["banner"]["http"]["server"], "small");
        let output = reachwhy(&["--banner", NEAR, "9999"]).output().unwrap();
        assert!(!output.stdout.contains(&0x1b), "{}", String::from_utf8_lossy(&output.stdout));
    });
}
