//! Probes that meet a firewall at either end, in namespaces that lead nowhere.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::panic, reason = "a test")]
#![allow(clippy::items_after_statements, clippy::enum_glob_use, reason = "tables near their use")]

mod probe_support;

use std::net::IpAddr;

use probe_support::ask::{PEER4, arp, ask, assert_sane, icmp};
use probe_support::sandboxed;
use reachwhy::probe::{Outcome, ProbeKind, ReplyKind, RttSource};

/// Needs the `nft` program to set the firewall up; everything else here needs none.
fn nft(rules: &str) -> bool {
    use std::io::Write as _;
    let child = std::process::Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "kernel tests are required: no nft");
        eprintln!("SKIPPED: no nft program");
        return false;
    };
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    true
}

#[test]
fn what_a_local_firewall_refuses_is_told_and_counted_once() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let mac = other.run(|| probe_support::mac("t1")).unwrap();
        let rules = "table ip t { chain o { type filter hook output priority 0;
            ip daddr 10.9.0.2 meta l4proto tcp tcp dport 81 counter drop
            ip daddr 10.9.0.2 meta l4proto { icmp, udp } counter drop
            tcp dport 82 reject with icmp type admin-prohibited
            }
            }";
        if !nft(rules) {
            return;
        }
        let dst = PEER4.into();
        let kinds = [
            ProbeKind::echo(dst),
            ProbeKind::udp(dst, 81, b"x"),
            // What is refused comes behind what is not: a batch would stop there without saying why.
            ProbeKind::syn(dst, 83),
            ProbeKind::connect((dst, 82).into()),
            ProbeKind::syn(dst, 81),
            ProbeKind::syn(dst, 82),
            arp(PEER4),
        ];
        let report = ask(sandbox, kinds);
        for index in [0, 1, 4] {
            assert_eq!(report.probes[index].local_error.as_deref(), Some("EPERM"), "{report:#?}");
        }
        let own: IpAddr = "10.9.0.1".parse().unwrap();
        assert_eq!(icmp(&report.probes[3]), Some((3, 13, own)), "{report:#?}");
        assert_eq!(report.probes[3].replies.len(), 1);
        // A raw socket gets both: the errno, and this host's own ICMP error beside it.
        let rejected = &report.probes[5];
        assert_eq!(rejected.local_error.as_deref(), Some("EPERM"));
        let ReplyKind::IcmpError(error) = &rejected.replies[0].kind else { panic!("{report:#?}") };
        assert_eq!((error.icmp_type, error.code, rejected.replies[0].from), (3, 13, own));
        // Stamps of what left are not confused by what did not.
        assert_eq!(report.probes[2].outcome, Outcome::Refused);
        assert_sane(&report.probes[2], RttSource::Kernel);
        assert_eq!(report.probes[6].macs(), [mac]);
        let listed = std::process::Command::new("nft").args(["list", "table", "ip", "t"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        // One dropped SYN; an echo and a datagram.
        assert!(listed.contains("packets 1 ") && listed.contains("packets 2 "), "{listed}");
    });
}

#[test]
fn a_dropped_packet_at_the_other_end_is_silence_and_a_rejected_one_is_not() {
    sandboxed(|sandbox| {
        let other = sandbox.pair();
        let rules = "table ip t { chain i { type filter hook input priority 0;
            tcp dport 81 drop
            tcp dport 82 reject with tcp reset
            tcp dport 83 reject with icmp type host-prohibited
            }
            }";
        if !other.run(|| nft(rules)).unwrap() {
            return;
        }
        let dst: IpAddr = PEER4.into();
        let mut kinds = Vec::new();
        for port in [81, 82, 83] {
            kinds.extend([ProbeKind::syn(dst, port), ProbeKind::connect((dst, port).into())]);
        }
        let report = ask(sandbox, kinds);
        let outcomes: Vec<_> = report.probes.iter().map(|probe| probe.outcome).collect();
        use Outcome::{IcmpError, Refused, Silent};
        assert_eq!(outcomes, [Silent, Silent, Refused, Refused, IcmpError, IcmpError], "{report:#?}");
        assert_eq!(icmp(&report.probes[4]), Some((3, 10, dst)));
        assert_eq!(icmp(&report.probes[5]), Some((3, 10, dst)));
    });
}
