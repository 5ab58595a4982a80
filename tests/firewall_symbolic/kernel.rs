//! The kernel itself: rules that are called dead or redundant are taken out of it, and nothing
//! that is sent meets another end; its counters say which rules acted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sched::{CloneFlags, unshare};
use reachwhy::firewall::symbolic::lint;
use reachwhy::host::Backend;

use crate::random::Random;
use crate::{stack, without};

const HOSTS: [Ipv4Addr; 3] = [Ipv4Addr::new(10, 1, 1, 7), Ipv4Addr::new(10, 1, 1, 9), Ipv4Addr::new(192, 168, 1, 5)];
const PORTS: [u16; 3] = [53, 54, 80];
const NETS: [&str; 6] = ["10.1.1.0/24", "10.1.1.7/32", "10.1.0.0/16", "192.168.1.5/32", "10.1.1.8/29", "0.0.0.0/0"];

fn feed(tool: &str, arguments: &[&str], text: &str) -> Result<String, String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{tool}: {e}"))?;
    child.stdin.take().unwrap().write_all(text.as_bytes()).map_err(|e| format!("{tool}: {e}"))?;
    let output = child.wait_with_output().map_err(|e| format!("{tool}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn condition(r: &mut Random) -> String {
    let mut text = String::new();
    let not = |r: &mut Random| if r.chance(25) { "! " } else { "" };
    for side in ["-s", "-d"] {
        if r.chance(40) {
            let _ = write!(text, " {}{side} {}", not(r), r.pick(&NETS[..5]));
        }
    }
    match r.below(5) {
        0 | 1 => {
            let _ = write!(text, " -p udp -m udp {}--dport {}", not(r), r.pick(&["53", "54", "53:54", "1:79"]));
        }
        2 => {
            let _ = write!(text, " -p udp -m multiport {}--dports {}", not(r), r.pick(&["53,80", "54,60:90"]));
        }
        _ => (),
    }
    if r.chance(15) {
        let _ = write!(text, " -m mark {}--mark {}", not(r), r.pick(&["0x1", "0x2/0x2"]));
    }
    if r.chance(12) {
        let _ = write!(text, " -m set {}--match-set nets {}", not(r), r.pick(&["src", "dst"]));
    }
    if r.chance(12) {
        let _ =
            write!(text, " -m conntrack {}--ctstate {}", not(r), r.pick(&["NEW", "ESTABLISHED", "INVALID,UNTRACKED"]));
    }
    text
}

fn rules(r: &mut Random) -> String {
    let mut out =
        "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                   :POSTROUTING ACCEPT [0:0]\n"
            .to_owned();
    for _ in 0..r.below(3) {
        let _ =
            writeln!(out, "-A OUTPUT{} -j MARK --set-xmark {}", condition(r), r.pick(&["0x1/0xffffffff", "0x2/0x2"]));
    }
    out.push_str("COMMIT\n");
    out.push_str(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n",
    );
    if r.chance(40) {
        let _ =
            writeln!(out, "-A OUTPUT -d 10.1.1.9/32 -p udp -m udp --dport 54 -j DNAT --to-destination 192.168.1.5:80");
    }
    out.push_str("COMMIT\n");
    out.push_str("*filter\n");
    for hook in ["INPUT", "FORWARD", "OUTPUT"] {
        let _ = writeln!(out, ":{hook} {} [0:0]", r.pick(&["ACCEPT", "ACCEPT", "DROP"]));
    }
    out.push_str(":one - [0:0]\n:two - [0:0]\n");
    for (chain, calls) in [
        ("INPUT", &["-j one", "-j two", "-g one"][..]),
        ("OUTPUT", &["-j one", "-g two"]),
        ("one", &["-j two", "-g two"]),
        ("two", &[]),
    ] {
        for _ in 0..=r.below(6) {
            let own = chain.starts_with(char::is_lowercase);
            let target = match r.below(9) {
                0..=2 => "-j ACCEPT",
                3..=4 => "-j DROP",
                5 => "-j REJECT --reject-with icmp-port-unreachable",
                6 if own => "-j RETURN",
                _ if calls.is_empty() => "-j ACCEPT",
                _ => r.pick(calls),
            };
            let _ = writeln!(out, "-A {chain}{} {target}", condition(r));
        }
    }
    out.push_str("COMMIT\n");
    out
}

/// A socket on a port of `source` that no pass had before. A port chosen by the system comes again
/// after some hundred passes, and then an entry of connection tracking from an earlier ruleset still
/// says whether, and where to, the datagram is rewritten.
fn sender(source: Ipv4Addr) -> UdpSocket {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!((10_000..u16::MAX).contains(&port), "more passes than ports: entries would be met again");
    UdpSocket::bind(SocketAddrV4::new(source, port)).unwrap()
}

/// What becomes of a datagram from each address to each address and port: whether it was sent, and
/// where it came out.
fn fates(sockets: &[(SocketAddrV4, UdpSocket)]) -> Vec<String> {
    let mut fates = Vec::new();
    let mut buffer = [0; 64];
    for source in HOSTS {
        let sender = sender(source);
        for dst in HOSTS {
            for port in PORTS {
                let sent = sender.send_to(b"x", SocketAddrV4::new(dst, port));
                let mut fate =
                    format!("{source} > {dst}:{port} {}", sent.map_or_else(|e| e.to_string(), |_| "sent".to_owned()));
                for (place, socket) in sockets {
                    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        let _ = write!(fate, " {place} from {}", from.ip());
                    }
                }
                fates.push(fate);
            }
        }
    }
    fates
}

/// The rules with packets counted, by their place among the `-A` lines of a chain.
fn counted(tool: &str) -> Vec<(String, bool)> {
    let text = feed(&format!("{tool}-save"), &["-c"], "").unwrap();
    let rules = text.lines().filter(|line| line.starts_with('['));
    rules.map(|line| (line.to_owned(), !line.starts_with("[0:"))).collect()
}

fn run(tool: &str, backend: Backend, seeds: std::ops::RangeInclusive<u64>) -> (usize, usize) {
    let (mut removed, mut acted) = (0, 0);
    let sockets: Vec<(SocketAddrV4, UdpSocket)> = HOSTS
        .into_iter()
        .flat_map(|host| PORTS.map(|port| SocketAddrV4::new(host, port)))
        .map(|place| {
            let socket = UdpSocket::bind(place).unwrap();
            socket.set_nonblocking(true).unwrap();
            (place, socket)
        })
        .collect();
    let restore = format!("{tool}-restore");
    for seed in seeds {
        let mut r = Random::new(seed * 1_000_003);
        let text = rules(&mut r);
        feed(&restore, &[], &text).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{text}"));
        let before = fates(&sockets);
        let lines: Vec<u32> = (1..).zip(text.lines()).filter(|(_, l)| l.starts_with("-A ")).map(|(n, _)| n).collect();
        let counts = counted(tool);
        assert_eq!(counts.len(), lines.len(), "seed {seed}\n{text}");
        let findings = lint(&stack(&text, false, backend), &[]);
        // The dump lists the rules of each table chain by chain, in the order of the chains' names or of
        // their making: they are found again by their text.
        for (line, count) in
            counts.iter().filter(|(_, acts)| *acts).map(|(line, _)| (line.split("] ").nth(1).unwrap_or(""), 1))
        {
            acted += count;
            let same: Vec<u32> =
                (1..).zip(text.lines()).filter(|(_, own)| own.trim() == line.trim()).map(|(n, _)| n).collect();
            if let [one] = same[..] {
                let dead = findings.iter().find(|f| {
                    f.line == Some(one)
                        && (matches!(f.code, "shadowed" | "contradiction")
                            || f.code == "redundant" && f.message.contains("never acts"))
                });
                assert!(dead.is_none(), "seed {seed}: the kernel counts packets at {line}, called {dead:?}\n{text}");
            }
        }
        let mut gone: Vec<u32> = findings
            .iter()
            .filter(|f| matches!(f.code, "shadowed" | "redundant" | "contradiction"))
            .filter_map(|f| f.line)
            .collect();
        gone.sort_unstable();
        gone.dedup();
        let all = gone.iter().rev().fold(text.clone(), |text, line| without(&text, *line));
        let alone = gone.iter().map(|line| (format!("line {line}"), without(&text, *line)));
        for (what, fewer) in alone.chain([("all that are called so".to_owned(), all)]) {
            feed(&restore, &[], &fewer).unwrap_or_else(|why| panic!("seed {seed}: {why}\n{fewer}"));
            let after = fates(&sockets);
            let at = before.iter().zip(&after).find(|(a, b)| a != b);
            assert!(at.is_none(), "seed {seed} without {what}: {at:?}\n{text}");
        }
        removed += gone.len();
    }
    (removed, acted)
}

#[test]
fn the_kernel_does_the_same_without_rules_that_are_called_dead_or_redundant() {
    let missing = ["ip", "ipset", "iptables-restore", "iptables-legacy-restore"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err());
    let why = match missing {
        Some(tool) => Some(format!("there is no {tool}")),
        None if !nix::unistd::geteuid().is_root() => Some("no root".to_owned()),
        None => None,
    };
    if let Some(why) = why {
        assert!(std::env::var("REACHWHY_REQUIRE_KERNEL").as_deref() != Ok("1"), "{why}");
        println!("SKIPPED: {why}");
        return;
    }
    for (tool, backend) in [("iptables", Backend::Nft), ("iptables-legacy", Backend::Legacy)] {
        let job = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            for arguments in [
                &["link", "set", "lo", "up"][..],
                &["addr", "add", "10.1.1.7/32", "dev", "lo"],
                &["addr", "add", "10.1.1.9/32", "dev", "lo"],
                &["addr", "add", "192.168.1.5/32", "dev", "lo"],
            ] {
                feed("ip", arguments, "").unwrap();
            }
            feed("ipset", &["restore"], crate::random::SETS).unwrap();
            let (removed, acted) = run(tool, backend, 1..=12);
            println!("{tool}: {removed} rules taken out, {acted} rules acted");
            assert!(removed > 10 && acted > 20, "{tool}: {removed} {acted}");
        });
        if let Err(why) = job.join() {
            std::panic::resume_unwind(why);
        }
    }
}
