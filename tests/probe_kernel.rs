//! The probe engine against the kernel's own network stack, in namespaces that lead nowhere.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::panic, reason = "a test")]
#![allow(clippy::items_after_statements, clippy::enum_glob_use, reason = "tables near their use")]

mod probe_support;

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use probe_support::ask::{LO, PEER4, arp, ask, ask_with, assert_sane, icmp, specs};
use probe_support::{Sandbox, sandboxed};
use reachwhy::os::capture::{Capture, CaptureError};
use reachwhy::os::netns::NetNs;
use reachwhy::os::probe::{Abilities, ProbeError, RunOptions, abilities, run};
use reachwhy::probe::{FlowFilter, Outcome, ProbeKind, ProbeSpec, ReplyKind, RttSource, RunReport};
use reachwhy::wire::TcpFlags;

#[test]
fn loopback_answers_every_kind_of_probe() {
    sandboxed(|sandbox| {
        let listener = TcpListener::bind((LO, 0)).unwrap();
        let open = listener.local_addr().unwrap().port();
        let echo = UdpSocket::bind((LO, 0)).unwrap();
        let service = echo.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            let (length, from) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..length], from).unwrap();
        });
        let report = ask(
            sandbox,
            [
                ProbeKind::echo(LO),
                ProbeKind::connect((LO, open).into()),
                ProbeKind::connect((LO, 1).into()),
                ProbeKind::syn(LO, open),
                ProbeKind::syn(LO, 1),
                ProbeKind::udp(LO, service, b"hello"),
                ProbeKind::udp(LO, 1, b"hello"),
                ProbeKind::TcpSyn { dst: LO, dport: open, src: None, sport: None, ttl: Some(9), flags: TcpFlags::ACK },
                ProbeKind::TcpSyn { dst: LO, dport: 1, src: None, sport: None, ttl: None, flags: TcpFlags::FIN },
            ],
        );
        let outcomes: Vec<Outcome> = report.probes.iter().map(|probe| probe.outcome).collect();
        use Outcome::{Answered, Connected, IcmpError, Refused};
        let wanted = [Answered, Connected, Refused, Answered, Refused, Answered, IcmpError, Refused, Refused];
        assert_eq!(outcomes, wanted, "{report:#?}");
        assert!(report.complete);
        assert_eq!(icmp(&report.probes[6]), Some((3, 3, LO)));
        for index in [0, 1, 3, 4, 5, 6] {
            assert_sane(&report.probes[index], RttSource::Kernel);
        }
        let syn_ack = report.probes[3].deciding().unwrap();
        assert_eq!((&syn_ack.kind, syn_ack.ttl), (&ReplyKind::SynAck, Some(64)));
        let tcp = syn_ack.tcp.as_ref().unwrap();
        assert!(tcp.acknowledges && tcp.options.as_ref().unwrap().mss.is_some(), "{tcp:?}");
        assert_eq!(report.probes[5].deciding().unwrap().kind, ReplyKind::UdpData { payload: b"hello".to_vec().into() });
        assert!(report.probes.iter().all(|probe| probe.sent.len() == 1), "{report:#?}");
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
    });
}

fn peer6() -> std::net::Ipv6Addr {
    "fd09::2".parse().unwrap()
}

fn ndp(target: std::net::Ipv6Addr) -> ProbeKind {
    ProbeKind::Ndp { interface: "t0".into(), target, source: None }
}

#[test]
fn a_neighbour_answers_over_a_cable_in_both_families() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let mac = other.run(|| probe_support::mac("t1")).unwrap();
        let listener = other.run(|| TcpListener::bind("[::]:8080").unwrap()).unwrap();
        let mut kinds = vec![arp(PEER4), ndp(peer6())];
        for dst in [IpAddr::from(PEER4), peer6().into()] {
            kinds.extend([
                ProbeKind::echo(dst),
                ProbeKind::syn(dst, 8080),
                ProbeKind::syn(dst, 81),
                ProbeKind::connect((dst, 8080).into()),
                ProbeKind::connect((dst, 81).into()),
                ProbeKind::udp(dst, 81, b""),
            ]);
        }
        let report = ask(sandbox, kinds);
        use Outcome::{Answered, Connected, IcmpError, Refused};
        let outcomes: Vec<Outcome> = report.probes.iter().map(|probe| probe.outcome).collect();
        let each = [Answered, Answered, Refused, Connected, Refused, IcmpError];
        assert_eq!(outcomes[..2], [Answered, Answered], "{report:#?}");
        assert_eq!(outcomes[2..8], each, "{report:#?}");
        assert_eq!(outcomes[8..], each, "{report:#?}");
        assert_eq!(report.probes[0].macs(), [mac]);
        assert_eq!(report.probes[1].macs(), [mac]);
        assert_eq!(icmp(&report.probes[7]), Some((3, 3, PEER4.into())));
        assert_eq!(icmp(&report.probes[13]), Some((1, 4, peer6().into())));
        for index in [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13] {
            assert_sane(&report.probes[index], RttSource::Kernel);
        }
        assert!(report.probes[8].deciding().unwrap().ttl == Some(64), "{report:#?}");
        drop(listener);
    });
}

#[test]
fn one_address_with_two_owners_shows_both() {
    sandboxed(|sandbox| {
        // Two cables into one bridge, so that both owners hear the one who asks.
        let hub = sandbox.neighbour();
        let ports: Vec<_> = (0..2).map(|_| sandbox.neighbour()).collect();
        sandbox.cable("t0", "t9", &hub);
        probe_support::address("t0", "10.9.0.1".parse().unwrap(), 24);
        probe_support::address("t0", "fd09::1".parse().unwrap(), 64);
        let mut macs = hub
            .run(|| {
                probe_support::bridge("tbr");
                probe_support::enslave("t9", "tbr");
                let mut macs = Vec::new();
                for (port, other) in ports.iter().enumerate() {
                    let name = format!("t{}", port + 1);
                    Sandbox { home: NetNs::current().unwrap() }.cable(&name, "t0", other);
                    probe_support::enslave(&name, "tbr");
                    macs.push(
                        other
                            .run(|| {
                                probe_support::address("t0", PEER4.into(), 24);
                                probe_support::address("t0", peer6().into(), 64);
                                probe_support::mac("t0")
                            })
                            .unwrap(),
                    );
                }
                macs
            })
            .unwrap();
        let silent = Ipv4Addr::new(10, 9, 0, 77);
        let report = ask(sandbox, [arp(PEER4), ndp(peer6()), arp(silent), ndp("fd09::77".parse().unwrap())]);
        macs.sort_unstable();
        for index in [0, 1] {
            let probe = &report.probes[index];
            let mut seen = probe.macs();
            seen.sort_unstable();
            assert_eq!(seen, macs, "{report:#?}");
            assert_eq!(probe.outcome, Outcome::Answered);
            assert_eq!(probe.replies.iter().map(|reply| reply.duplicate).collect::<Vec<_>>(), [false, true]);
        }
        assert_eq!(report.probes[2].outcome, Outcome::Silent);
        assert_eq!(report.probes[3].outcome, Outcome::Silent);
    });
}

#[test]
fn what_this_host_cannot_send_is_a_result() {
    sandboxed(|sandbox| {
        let far: IpAddr = "10.77.0.1".parse().unwrap();
        let report = ask(
            sandbox,
            [
                ProbeKind::echo(far),
                ProbeKind::syn(far, 80),
                ProbeKind::connect((far, 80).into()),
                ProbeKind::udp(far, 80, b""),
                ProbeKind::Arp { interface: "lo".into(), target: PEER4, source: None },
                ProbeKind::Arp { interface: "none0".into(), target: PEER4, source: None },
                ProbeKind::IcmpEcho { dst: LO, src: Some("10.77.0.2".parse().unwrap()), ttl: None, payload_len: 8 },
            ],
        );
        let errors: Vec<_> = report.probes.iter().map(|probe| probe.local_error.as_deref().unwrap_or("?")).collect();
        let none = "ENETUNREACH";
        assert_eq!(errors[..6], [none, none, none, none, "EOPNOTSUPP", "ENODEV"], "{report:#?}");
        assert!(report.probes.iter().all(|probe| probe.outcome == Outcome::LocalError && probe.sent.is_empty()));
    });
}

#[test]
fn a_silent_neighbour_is_named_by_this_hosts_own_error() {
    sandboxed(|sandbox| {
        let _other = sandbox.pair();
        let absent: IpAddr = "10.9.0.99".parse().unwrap();
        let kinds = [
            ProbeKind::echo(absent),
            ProbeKind::syn(absent, 80),
            ProbeKind::connect((absent, 80).into()),
            ProbeKind::udp(absent, 80, b""),
        ];
        let mut specs = specs(kinds);
        for spec in &mut specs {
            spec.timeout = Duration::from_secs(5);
        }
        let report = ask_with(sandbox, specs, &RunOptions::default());
        for probe in &report.probes[..3] {
            assert_eq!(icmp(probe), Some((3, 1, "10.9.0.1".parse().unwrap())), "{report:#?}");
        }
    });
}

#[test]
fn silence_is_waited_for_and_retried() {
    sandboxed(|sandbox| {
        // Nobody holds this address on loopback's wire: the kernel drops what it sends there.
        let other = sandbox.pair();
        other.run(|| std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").unwrap()).unwrap();
        let spec = ProbeSpec::new(7, ProbeKind::echo(PEER4.into()));
        let spec = spec.tries(3, Duration::from_millis(50)).timeout(Duration::from_millis(100));
        let begun = Instant::now();
        let report = ask_with(sandbox, vec![spec.clone()], &RunOptions::default());
        let took = begun.elapsed();
        let probe = report.probe(7).unwrap();
        assert_eq!((probe.outcome, probe.sent.len()), (Outcome::Silent, 3));
        assert!(took >= Duration::from_millis(200), "{took:?}");
        assert!(probe.sent.iter().all(|sent| sent.kernel_time), "{report:#?}");
        let cut = RunOptions { deadline: Some(Duration::from_millis(20)), ..RunOptions::default() };
        let report = ask_with(sandbox, vec![spec], &cut);
        assert_eq!((report.probes[0].outcome, report.complete), (Outcome::Cancelled, false));
    });
}

#[test]
fn five_thousand_ports_at_once_are_all_told_right() {
    sandboxed(|sandbox| {
        let open: Vec<TcpListener> = (0..20).map(|at| TcpListener::bind((LO, 2000 + at * 100)).unwrap()).collect();
        for connect in [false, true] {
            let kind = |port| if connect { ProbeKind::connect((LO, port).into()) } else { ProbeKind::syn(LO, port) };
            let mut specs = specs((1..=5000u16).map(kind));
            for spec in &mut specs {
                spec.timeout = Duration::from_secs(3);
            }
            let begun = Instant::now();
            let report = ask_with(sandbox, specs, &RunOptions::default());
            eprintln!("5000 ports, connect {connect}: {:?}", begun.elapsed());
            assert_eq!((report.complete, report.receive_drops), (true, 0));
            for (port, probe) in (1..=5000u16).zip(&report.probes) {
                let listens = (2000..4000).contains(&port) && port % 100 == 0;
                let wanted = match (listens, connect) {
                    (true, true) => Outcome::Connected,
                    (true, false) => Outcome::Answered,
                    (false, _) => Outcome::Refused,
                };
                assert_eq!(probe.outcome, wanted, "port {port}: {probe:#?}");
                assert_eq!(probe.sent.len(), 1);
            }
        }
        drop(open);
    });
}

/// What a router says about probes that end at it, whatever kind they are and whoever sends them.
fn a_router_is_named_by_every_kind(sandbox: &Sandbox, unprivileged: bool) {
    let ttl = Some(1);
    for (far, nowhere, router, exceeded, no_route) in
        [("10.9.1.2", "10.9.7.7", "10.9.0.2", (11, 0), (3, 0)), ("fd0a::2", "fd77::7", "fd09::2", (3, 0), (1, 0))]
    {
        let (far, nowhere): (IpAddr, IpAddr) = (far.parse().unwrap(), nowhere.parse().unwrap());
        let router: IpAddr = router.parse().unwrap();
        let payload = b"payload".to_vec();
        let mut kinds = vec![
            ProbeKind::IcmpEcho { dst: far, src: None, ttl, payload_len: 32 },
            ProbeKind::Udp { dst: far, dport: 33434, src: None, sport: None, ttl, payload: payload.into() },
            ProbeKind::echo(nowhere),
            ProbeKind::udp(nowhere, 33434, b"x"),
            ProbeKind::connect((nowhere, 80).into()),
            ProbeKind::echo(far),
            ProbeKind::udp(far, 33434, b"x"),
        ];
        if !unprivileged {
            kinds.push(ProbeKind::TcpSyn { dst: far, dport: 80, src: None, sport: None, ttl, flags: TcpFlags::SYN });
            kinds.push(ProbeKind::syn(nowhere, 80));
        }
        // Routers limit how many errors they send: one probe at a time, and a second try.
        for (index, kind) in kinds.into_iter().enumerate() {
            let spec = ProbeSpec::new(0, kind).tries(3, Duration::from_millis(400)).timeout(Duration::from_secs(1));
            let options = RunOptions { unprivileged, ..RunOptions::default() };
            let report = ask_with(sandbox, vec![spec], &options);
            let probe = &report.probes[0];
            let unreachable = if far.is_ipv4() { (3, 3) } else { (1, 4) };
            let wanted = match index {
                0 | 1 | 7 => Some((exceeded.0, exceeded.1, router)),
                2..=4 | 8 => Some((no_route.0, no_route.1, router)),
                6 => Some((unreachable.0, unreachable.1, far)),
                _ => None,
            };
            assert_eq!(icmp(probe), wanted, "probe {index}: {report:#?}");
            let outcome = if wanted.is_some() { Outcome::IcmpError } else { Outcome::Answered };
            assert_eq!(probe.outcome, outcome, "{report:#?}");
            let reply = probe.deciding().unwrap();
            assert!(reply.rtt_us.is_some_and(|rtt| rtt > 0.0 && rtt < 50_000.0), "{report:#?}");
            // The far host is one router away: its answers say so.
            assert_eq!(reply.ttl, Some(if index == 5 || index == 6 { 63 } else { 64 }), "probe {index}: {report:#?}");
        }
    }
}

#[test]
fn a_router_on_the_way_is_named() {
    sandboxed(|sandbox| {
        let _hosts = sandbox.chain();
        a_router_is_named_by_every_kind(sandbox, false);
    });
}

/// Run by [`without_privilege_echo_udp_and_connect_still_attribute`] in a process of its own, since giving up
/// privilege is for all of a process.
#[test]
#[ignore = "run by another test in its own process"]
fn child_without_privilege() {
    let Some(ping) = std::env::var_os("REACHWHY_TEST_CHILD") else { return };
    sandboxed(move |sandbox| {
        let _hosts = sandbox.chain();
        let open = ping == "open";
        if open {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        }
        let nobody = nix::unistd::Uid::from_raw(65534);
        nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
        assert_eq!(abilities(), Abilities { raw: false, packet: false, echo4: open, echo6: open });
        let mut kinds = vec![ProbeKind::syn(LO, 80), arp(PEER4), ndp(peer6())];
        if open {
            a_router_is_named_by_every_kind(sandbox, true);
        } else {
            kinds.push(ProbeKind::echo(LO));
        }
        for kind in kinds {
            let error = run(vec![ProbeSpec::new(0, kind)], &RunOptions::default(), &mut |_| {}).unwrap_err();
            let ProbeError::Privilege { hint, .. } = &error else { panic!("{error}") };
            assert!(hint.starts_with("sudo setcap cap_net_raw+ep /"), "{hint}");
            assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
        }
        assert!(matches!(Capture::open(None, &FlowFilter::all()), Err(CaptureError::Privilege { .. })));
        println!("child is content");
    });
}

#[test]
fn without_privilege_echo_udp_and_connect_still_attribute() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "kernel tests are required");
        eprintln!("SKIPPED: not root, so there is no privilege to give up");
        return;
    }
    for ping in ["open", "closed"] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_without_privilege", "--ignored", "--nocapture", "--test-threads=1"])
            .env("REACHWHY_TEST_CHILD", ping)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        let done = out.contains("child is content") || err.contains("SKIPPED");
        assert!(child.status.success() && done, "{ping}: {out}\n{err}");
    }
}

/// A socket with a pending ICMP error refuses the next packet once: it must be sent nevertheless.
#[test]
fn an_error_that_waits_does_not_swallow_the_next_datagram() {
    sandboxed(|sandbox| {
        let payload = || b"x".to_vec().into();
        let kind =
            |dport| ProbeKind::Udp { dst: LO, dport, src: None, sport: Some(5555), ttl: None, payload: payload() };
        let report = ask(sandbox, (1..=500u16).map(kind));
        assert!(report.probes.iter().all(|probe| icmp(probe) == Some((3, 3, LO))), "{report:#?}");
        assert_eq!(report.strays, reachwhy::probe::Strays::default());
    });
}

#[test]
fn a_run_can_be_cancelled_from_elsewhere() {
    sandboxed(|sandbox| {
        let _other = sandbox.pair();
        static STOP: AtomicBool = AtomicBool::new(false);
        let spec = ProbeSpec::new(0, arp(Ipv4Addr::new(10, 9, 0, 88))).timeout(Duration::from_secs(60));
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            STOP.store(true, Ordering::Relaxed);
        });
        let report = ask_with(sandbox, vec![spec], &RunOptions { cancel: Some(&STOP), ..RunOptions::default() });
        assert_eq!((report.complete, report.probes[0].outcome), (false, Outcome::Cancelled));
    });
}

/// A link-local address means nothing without its link.
#[test]
fn link_local_addresses_are_reached_via_their_link() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let local = other.run(|| probe_support::link_local("t1")).unwrap();
        let listener = other.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap();
        let kinds = [ProbeKind::echo(local), ProbeKind::syn(local, 80), ProbeKind::udp(local, 9, b"x")];
        let mut specs = specs(kinds);
        for spec in &mut specs {
            spec.via = Some("t0".into());
        }
        let report = ask_with(sandbox, specs.clone(), &RunOptions::default());
        let outcomes: Vec<_> = report.probes.iter().map(|probe| probe.outcome).collect();
        assert_eq!(outcomes, [Outcome::Answered, Outcome::Answered, Outcome::IcmpError], "{report:#?}");
        for spec in &mut specs {
            spec.via = Some("none0".into());
        }
        let report = ask_with(sandbox, specs, &RunOptions::default());
        assert!(report.probes.iter().all(|probe| probe.local_error.as_deref() == Some("ENODEV")), "{report:#?}");
        drop(listener);
    });
}
