//! Neighbours on the real kernel: every case of "two answer for one" with its look-alike, and what is never done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

mod probe_support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use probe_support::{Sandbox, address, bridge, enslave, mac, sandboxed};
use reachwhy::lab::Lab;
use reachwhy::lab::impair::Impairment;
use reachwhy::lab::topology::{End, Host, Link, Topology};
use reachwhy::os::capture::Capture;
use reachwhy::os::netns::NetNs;
use reachwhy::probe::FlowFilter;
use reachwhy::wire::{Decoded, Encapsulation, MacAddr, Network, pcap};
use serde_json::Value;

const REACHWHY: &str = env!("CARGO_BIN_EXE_reachwhy");

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(REACHWHY);
    command.args(arguments).env("NO_COLOR", "1").env("XDG_DATA_HOME", "/nonexistent");
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program runs")
}

/// Runs `arp …` with `--json`: exit code and document.
fn arp(arguments: &[&str]) -> (i32, Value) {
    let output = run(&[&["arp"], arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), json)
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

fn addresses(report: &Value) -> BTreeSet<IpAddr> {
    report["entries"].as_array().unwrap().iter().map(|entry| ip(entry["ip"].as_str().unwrap())).collect()
}

/// A switch in this namespace (10.9.0.1 on the bridge), with hosts plugged in.
struct Lan<'a> {
    home: &'a Sandbox,
    ports: u32,
}

impl<'a> Lan<'a> {
    fn new(home: &'a Sandbox) -> Self {
        bridge("tb");
        address("tb", ip("10.9.0.1"), 24);
        Self { home, ports: 0 }
    }

    fn plug(&mut self, host: &NetNs, addresses: &[&str]) -> String {
        let (port, dev) = (format!("tp{}", self.ports), format!("te{}", self.ports));
        self.ports += 1;
        self.home.cable(&port, &dev, host);
        enslave(&port, "tb");
        host.run(|| {
            for text in addresses {
                address(&dev, ip(text), if text.contains(':') { 64 } else { 24 });
            }
        })
        .unwrap();
        dev
    }

    fn host(&mut self, addresses: &[&str]) -> NetNs {
        let host = self.home.neighbour();
        self.plug(&host, addresses);
        host
    }
}

fn set(host: &NetNs, path: &str, value: &str) {
    host.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap()).unwrap();
}

/// A router on the link that takes `route` (a host or a network) away over another link of its own.
fn proxy(lan: &mut Lan<'_>, address_text: &str, route: (&str, u8)) -> [NetNs; 2] {
    let router = lan.home.neighbour();
    let dev = lan.plug(&router, &[address_text]);
    let beyond = lan.home.neighbour();
    router
        .run(|| {
            Sandbox { home: NetNs::current().unwrap() }.cable("tx", "ty", &beyond);
            address("tx", ip(route.0), route.1);
        })
        .unwrap();
    set(&router, "ipv4/ip_forward", "1");
    set(&router, &format!("ipv4/conf/{dev}/proxy_arp"), "1");
    set(&router, &format!("ipv4/neigh/{dev}/proxy_delay"), "0");
    // A namespace lives as long as its handle.
    [router, beyond]
}

#[test]
fn one_host_one_answer() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let host = lan.host(&["10.9.0.11", "fd09::11"]);
        let theirs = host.run(|| mac("te0")).unwrap();
        for target in ["10.9.0.11", "fd09::11"] {
            if target.contains(':') {
                address("tb", ip("fd09::1"), 64);
            }
            let (exit, report) = arp(&["lookup", target]);
            let entry = &report["entries"][0];
            assert_eq!((exit, entry["mac"].as_str().unwrap()), (0, theirs.to_string().as_str()), "{report}");
            assert!(entry["rtt_ms"].as_f64().unwrap() < 1000.0);
            assert_eq!((entry["state"].as_str(), report["interface"].as_str()), (Some("answered"), Some("tb")));
            assert!(codes(&report).is_empty(), "{report}");
        }
        let (exit, report) = arp(&["lookup", "10.9.0.12", "--timeout", "0.2"]);
        assert_eq!((exit, report["entries"][0]["state"].as_str()), (3, Some("silent")));
    });
}

#[test]
fn a_conflict_is_no_flux_and_flux_no_conflict() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let (_a, _b) = (lan.host(&["10.9.0.50", "10.9.0.51"]), lan.host(&["10.9.0.50", "10.9.0.51"]));
        let two_links = lan.host(&["10.9.0.60"]);
        lan.plug(&two_links, &["10.9.0.61"]);
        let (exit, report) = arp(&["lookup", "10.9.0.50"]);
        assert_eq!((exit, codes(&report)), (1, vec!["duplicate"]), "{report}");
        assert_eq!(report["entries"][0]["duplicate"].as_array().unwrap().len(), 1);
        let (exit, report) = arp(&["lookup", "10.9.0.60"]);
        assert_eq!((exit, codes(&report)), (1, vec!["flux"]), "{report}");
        // The two clones answer for each other's addresses just like the two interfaces of one host.
        let (_, report) = arp(&["scan", "10.9.0.48/28"]);
        assert_eq!(codes(&report), ["duplicate", "duplicate", "flux"], "{report}");
        assert_eq!(report["findings"][2]["ips"].as_array().unwrap().len(), 2);
        assert!(report["findings"].as_array().unwrap().iter().all(|one| one["confidence"] == "proven"));
    });
}

#[test]
fn silence_to_echo_leaves_it_open_and_says_so() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let hosts = [lan.host(&["10.9.0.50"]), lan.host(&["10.9.0.50"])];
        for host in &hosts {
            set(host, "ipv4/icmp_echo_ignore_all", "1");
        }
        let (exit, report) = arp(&["lookup", "10.9.0.50"]);
        assert_eq!((exit, codes(&report)), (1, vec!["two_answers"]), "{report}");
        let (_, report) = arp(&["lookup", "10.9.0.50", "--arp-only"]);
        assert_eq!(codes(&report), ["two_answers"]);
        assert_eq!(report["findings"][0]["confidence"], "likely");
    });
}

#[test]
fn proxy_arp_is_told_from_a_host_with_many_addresses() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let _router = proxy(&mut lan, "10.9.0.254", ("10.9.0.97", 28));
        let many: Vec<String> = (33..41).map(|n| format!("10.9.0.{n}")).collect();
        let _many = lan.host(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let (exit, report) = arp(&["lookup", "10.9.0.100"]);
        assert_eq!((exit, codes(&report)), (0, vec!["proxy"]), "{report}");
        let (_, report) = arp(&["lookup", "10.9.0.35"]);
        assert!(codes(&report).is_empty(), "{report}");
        let (_, report) = arp(&["scan"]);
        assert_eq!(codes(&report), ["proxy", "many_addresses"], "{report}");
        let proxied = report["findings"][0]["ips"].as_array().unwrap().len();
        assert!((14..=16).contains(&proxied), "{report}");
        assert!(report["findings"][0]["summary"].as_str().unwrap().contains("10.9.0.254"));
    });
}

#[test]
fn who_answers_beside_the_owner_and_passes_on_is_named() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let owner = lan.host(&["10.9.0.60"]);
        let _router = proxy(&mut lan, "10.9.0.66", ("10.9.0.61", 30));
        let theirs = owner.run(|| mac("te0")).unwrap();
        let (exit, report) = arp(&["lookup", "10.9.0.62", "--timeout", "0.3"]);
        assert_eq!((exit, codes(&report)), (0, vec!["proxy"]), "{report}");
        let (exit, report) = arp(&["lookup", "10.9.0.60"]);
        assert_eq!((exit, codes(&report)), (1, vec!["intercepted"]), "{report}");
        assert!(report["findings"][0]["summary"].as_str().unwrap().starts_with(&theirs.to_string()), "{report}");
    });
}

/// Sends VRRP advertisements for 10.9.0.100 from a host until it is dropped.
struct Master {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Master {
    fn start(host: NetNs, from: &str) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, from) = (stop.clone(), from.parse::<Ipv4Addr>().unwrap());
        let thread = std::thread::spawn(move || {
            host.enter().unwrap();
            let socket = Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(Protocol::from(112))).unwrap();
            socket.set_multicast_if_v4(&from).unwrap();
            socket.set_multicast_ttl_v4(255).unwrap();
            socket.bind(&std::net::SocketAddr::from((from, 0)).into()).unwrap();
            let group = std::net::SocketAddr::from(([224, 0, 0, 18], 0));
            while !flag.load(Ordering::Relaxed) {
                let packet = [0x21, 51, 100, 1, 0, 1, 0, 0, 10, 9, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0];
                let _ = socket.send_to(&packet, &group.into());
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

#[test]
fn two_stations_for_one_virtual_address() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let director = lan.host(&["10.9.0.4", "10.9.0.100"]);
        let real = lan.host(&["10.9.0.5"]);
        // A real server's own copy, which the kernel answers for unless it is told not to.
        real.run(|| address("lo", ip("10.9.0.100"), 32)).unwrap();
        let (exit, report) = arp(&["scan"]);
        assert_eq!((exit, codes(&report)), (1, vec!["vip_conflict"]), "{report}");
        let again = |host: &NetNs| host.run(|| NetNs::current().unwrap()).unwrap();
        let master = Master::start(again(&director), "10.9.0.4");
        let (exit, report) = arp(&["lookup", "10.9.0.100"]);
        assert_eq!((exit, codes(&report)), (1, vec!["vip_real_server"]), "{report}");
        let second = Master::start(again(&real), "10.9.0.5");
        let (exit, report) = arp(&["lookup", "10.9.0.100"]);
        assert_eq!((exit, codes(&report)), (1, vec!["vip_two_masters"]), "{report}");
        drop((master, second));
        set(&real, "ipv4/conf/all/arp_ignore", "1");
        let (exit, report) = arp(&["lookup", "10.9.0.100"]);
        assert_eq!((exit, codes(&report).len()), (0, 0), "{report}");
    });
}

#[test]
fn this_hosts_own_address_elsewhere() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let (exit, _) = arp(&["lookup", "10.9.0.1", "--timeout", "0.2"]);
        assert_eq!(exit, 0);
        let _other = lan.host(&["10.9.0.1"]);
        for verb in [&["lookup", "10.9.0.1"][..], &["scan", "10.9.0.0/29"]] {
            let (exit, report) = arp(verb);
            assert_eq!((exit, codes(&report)), (1, vec!["own_address"]), "{report}");
        }
    });
}

#[test]
fn nothing_is_asked_for_but_what_was_asked_for_and_no_table_fills() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let watcher = lan.host(&["10.9.0.20", "10.9.0.21", "10.9.0.22", "10.9.0.23"]);
        let _twin = lan.host(&["10.9.0.22"]);
        let filter = FlowFilter { neighbours: true, ..FlowFilter::default() };
        let mut capture = watcher.run(|| Capture::open(Some("te0"), &filter).unwrap()).unwrap();
        let ours = mac("tb");
        let (_, report) = arp(&["scan", "10.9.0.16/28,10.9.0.40-45"]);
        assert_eq!(addresses(&report).len(), 4);
        let wanted: BTreeSet<Ipv4Addr> = (16..32).chain(40..46).map(|last| Ipv4Addr::new(10, 9, 0, last)).collect();
        let mut seen = BTreeSet::new();
        for frame in capture.drain().into_iter().filter(|frame| !frame.outgoing) {
            let decoded = frame.decode();
            if decoded.ether.as_ref().is_none_or(|ether| ether.src != ours) {
                continue;
            }
            match &decoded.network {
                Some(Network::Arp(arp)) => {
                    assert!(wanted.contains(&arp.target_ip), "asked for {}", arp.target_ip);
                    seen.insert(arp.target_ip);
                }
                // The kernel's bridge joins a group of its own (IGMP).
                Some(Network::Ipv4(packet)) if packet.protocol == 2 => {}
                Some(Network::Ipv4(packet)) => assert!(wanted.contains(&packet.dst), "sent to {}", packet.dst),
                // The kernel's own neighbour and listener messages of a new link.
                Some(Network::Ipv6(..)) => {}
                None => panic!("an unknown frame"),
            }
        }
        assert_eq!(seen, wanted);
        let (_, table) = arp(&["table", "-i", "tb", "-4"]);
        assert!(table["entries"].as_array().unwrap().len() <= 1, "the kernel's table was filled: {table}");
    });
}

#[test]
fn an_address_is_free_until_someone_has_it() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let _host = lan.host(&["10.9.0.11", "fd09::11"]);
        let (exit, report) = arp(&["lookup", "10.9.0.11", "--dad"]);
        assert_eq!((exit, report["dad"]["verdict"].as_str()), (1, Some("in_use")), "{report}");
        let (exit, report) = arp(&["lookup", "fd09::11", "--dad", "-i", "tb"]);
        assert_eq!((exit, report["dad"]["verdict"].as_str()), (1, Some("in_use")), "{report}");
        let (exit, report) = arp(&["lookup", "fd09::12", "--dad", "-i", "tb"]);
        assert_eq!((exit, report["dad"]["verdict"].as_str()), (0, Some("free")), "{report}");
        let (exit, report) = arp(&["lookup", "10.9.0.12", "--dad"]);
        assert_eq!((exit, report["dad"]["verdict"].as_str()), (0, Some("free")), "{report}");
        assert_eq!(report["dad"]["probes_ms"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn a_scan_of_an_ipv6_link_finds_who_is_there() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        address("tb", ip("fd09::1"), 64);
        let hosts = [lan.host(&["fd09::11"]), lan.host(&["fd09::12"])];
        let (exit, report) = arp(&["scan", "-6", "-i", "tb"]);
        let found = addresses(&report);
        for (number, host) in hosts.iter().enumerate() {
            let local = host.run(|| probe_support::link_local(&format!("te{number}"))).unwrap();
            assert!(found.contains(&local) && found.contains(&ip(&format!("fd09::1{}", number + 1))), "{report}");
        }
        assert_eq!((exit, codes(&report).len()), (0, 0), "{report}");
        // A prefix that can be gone through is.
        let (_, report) = arp(&["scan", "fd09::/120"]);
        assert_eq!(addresses(&report), [ip("fd09::11"), ip("fd09::12")].into());
        let (_, report) = arp(&["scan", "fd09::/64"]);
        assert!(addresses(&report).iter().all(|ip| ip.to_string().starts_with("fd09::")), "{report}");
    });
}

#[test]
fn without_privilege_the_kernel_asks() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let _host = lan.host(&["10.9.0.11"]);
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("reachwhy");
        std::fs::copy(REACHWHY, &program).unwrap();
        for path in [folder.path(), &program] {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let nobody =
            |arguments: &[&str]| Command::new(&program).args(arguments).uid(65534).gid(65534).output().unwrap();
        let output = nobody(&["arp", "lookup", "10.9.0.11", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), report["method"].as_str()), (Some(0), Some("kernel")), "{report}");
        assert!(report["entries"][0]["mac"].is_string());
        for verb in [
            &["arp", "lookup", "10.9.0.11", "--dad"][..],
            &["arp", "scan", "-i", "tb", "10.9.0.0/16"],
            &["arp", "scan", "-6", "-i", "tb"],
            &["arp", "watch", "--no-memory", "-i", "tb"],
            &["arp", "lookup", "10.77.0.1", "-i", "tb"],
        ] {
            let output = nobody(verb);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{verb:?}: {told}");
            assert!(told.contains(&format!("hint: sudo setcap cap_net_raw+ep {}", program.display())), "{told}");
        }
    });
}

#[test]
fn a_watch_tells_what_happens_and_remembers() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let host = lan.host(&["10.9.0.11"]);
        let other = lan.host(&["10.9.0.12"]);
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("deep/stations.json");
        let memory = memory.to_str().unwrap();
        let watch = |seconds: &str| {
            let verb = ["arp", "watch", "-i", "tb", "--json", "--for", seconds, "--memory", memory];
            let child = command(&verb).stdout(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(500));
            child
        };
        let told = |child: std::process::Child| -> (Option<i32>, Vec<String>) {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let kinds = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned());
            (output.status.code(), kinds.collect())
        };
        let child = watch("2");
        host.run(|| arp(&["lookup", "10.9.0.1", "--timeout", "0.2"])).unwrap();
        let (exit, kinds) = told(child);
        assert_eq!((exit, kinds.as_slice()), (Some(0), &["new".to_owned()][..]));
        // Known by now; then another takes the address.
        let child = watch("2");
        host.run(|| arp(&["lookup", "10.9.0.1", "--timeout", "0.2"])).unwrap();
        other
            .run(|| {
                address("te1", ip("10.9.0.11"), 24);
                arp(&["lookup", "10.9.0.1", "-s", "10.9.0.11", "--timeout", "0.2"])
            })
            .unwrap();
        let (_, kinds) = told(child);
        assert_eq!(kinds, ["moved"]);
        assert!(std::fs::read_to_string(memory).unwrap().contains("10.9.0.11"));
    });
}

#[test]
fn a_scan_that_is_interrupted_gives_what_it_has() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let _host = lan.host(&["10.9.0.11"]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scan.pcap");
        let verb = ["arp", "scan", "10.9.0.0/24", "--rate", "40", "--json", "--pcap", file.to_str().unwrap()];
        let child = command(&verb).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1200));
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let output = child.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), report["partial"].as_bool()), (Some(0), Some(true)), "{report}");
        let asked = report["coverage"]["asked"].as_u64().unwrap();
        assert!((1..256).contains(&asked), "{report}");
        let bytes = std::fs::read(&file).unwrap();
        let frames = pcap::Reader::new(&bytes).unwrap().map(Result::unwrap);
        let requests = frames.filter(|record| {
            let decoded = Decoded::parse(Encapsulation::Ethernet, record.bytes);
            matches!(decoded.network, Some(Network::Arp(arp)) if arp.sender_ip == Ipv4Addr::new(10, 9, 0, 1))
        });
        assert!(requests.count() as u64 >= asked);
    });
}

/// A client and a host with many addresses, with a cable between that loses frames.
fn lossy(loss: f64, seed: u64) -> (Topology, BTreeSet<IpAddr>) {
    let all: Vec<String> = (0..60u32).map(|n| format!("10.9.0.{}/24", 2 + (n * 37 + 11) % 250)).collect();
    let truth = all.iter().map(|text| ip(text.split('/').next().unwrap())).collect();
    let end = |node: &str, texts: &[String]| End {
        node: node.to_owned(),
        dev: "eth0".to_owned(),
        addresses: texts.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let host = |name: &str| Host { name: name.to_owned(), ..Host::default() };
    let topology = Topology {
        name: "lossy".to_owned(),
        summary: String::new(),
        hosts: vec![host("client"), host("server")],
        switches: vec![],
        links: vec![Link {
            a: end("client", &["10.9.0.1/24".to_owned()]),
            b: end("server", &all),
            mtu: None,
            impair: Some(Impairment { loss, delay_ms: 0.5, seed, ..Impairment::default() }),
        }],
    };
    (topology, truth)
}

#[test]
fn every_host_is_found_where_frames_are_lost() {
    for seed in 1..=4 {
        let (topology, truth) = lossy(0.05, seed);
        std::thread::scope(|scope| {
            let done = scope.spawn(|| {
                let lab = match Lab::build_with(&topology, Path::new(REACHWHY)) {
                    Ok(lab) => lab,
                    Err(error) => {
                        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {error}");
                        eprintln!("SKIPPED: {error}");
                        return;
                    }
                };
                let (_, report) = lab.in_host("client", || arp(&["scan"])).unwrap();
                let found = addresses(&report);
                let missed: Vec<_> = truth.difference(&found).collect();
                assert!(missed.is_empty(), "seed {seed}: missed {missed:?}: {}", report["coverage"]);
                assert_eq!(found, truth);
                assert!(report["coverage"]["rounds"].as_u64().unwrap() >= 3, "{}", report["coverage"]);
            });
            if let Err(panic) = done.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

#[test]
fn the_table_shows_states_and_what_is_odd() {
    sandboxed(|home| {
        let mut lan = Lan::new(home);
        let host = lan.host(&["10.9.0.11"]);
        let theirs: MacAddr = host.run(|| mac("te0")).unwrap();
        let poke = |text: &str| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(&[], (ip(text), 9));
        };
        poke("10.9.0.11");
        probe_support::default_route(ip("10.9.0.99"));
        poke("10.9.0.99");
        std::thread::sleep(Duration::from_millis(3500));
        let (exit, report) = arp(&["table", "-4"]);
        let entry = &report["entries"][0];
        assert_eq!(
            (entry["ip"].as_str(), entry["mac"].as_str()),
            (Some("10.9.0.11"), Some(theirs.to_string().as_str()))
        );
        assert!(entry["ages"]["confirmed_s"].as_f64().unwrap() >= 3.0, "{report}");
        assert_eq!(report["oddities"][0]["code"], "gateway_silent", "{report}");
        assert_eq!(exit, 1);
    });
}
