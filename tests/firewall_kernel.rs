//! The walk against the kernel it runs on: random rulesets, real packets, the same rules counted.
//!
//! In a network namespace of its own that has nothing but its loopback link, crafted packets leave
//! through OUTPUT; `iptables-save -c` before and after tells which rules they met, and the walk must
//! have named exactly those. Each ruleset is loaded as we write it, after that was found to be the same. INPUT drops everything, so no packet is ever answered.
//!
//! REACHWHY_ORACLE_RULESETS sets how many rulesets each backend gets (default 25),
//! REACHWHY_ORACLE_SEED the first seed (default 1).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "what was skipped, and the seed")]
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

use nix::sys::socket::{setsockopt, sockopt};
use reachwhy::firewall::packet::Proto;
use reachwhy::firewall::ruleset::{Family, Hook, TcpFlags};
use reachwhy::firewall::{Facts, Packet, Stack, counters, parse, walk::walk_hook};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};
use reachwhy::os::netns::NetNs;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// SplitMix64: the whole run follows from the seed that is printed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const ADDRS: [Ipv4Addr; 6] = [
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 1, 1),
    Ipv4Addr::new(127, 5, 0, 1),
    Ipv4Addr::new(127, 5, 255, 254),
    Ipv4Addr::new(127, 200, 3, 4),
];
const PORTS: [u16; 8] = [0, 1, 22, 53, 80, 1024, 40000, 65535];
const MARKS: [u32; 4] = [0, 1, 0x10, 0xffff_0001];
const FLAGS: [u8; 8] = [0x00, 0x01, 0x02, 0x04, 0x10, 0x12, 0x29, 0x3f];

/// One random match for a rule that has the given protocol.
fn random_match(r: &mut Random, proto: Option<&str>) -> String {
    let not = if r.chance(25) { "! " } else { "" };
    let port = |r: &mut Random| *r.pick(&PORTS);
    let range = |r: &mut Random| {
        let (a, b) = (*r.pick(&PORTS), *r.pick(&PORTS));
        // iptables-legacy-save does not print `! --dport 0:65535` (libxt_tcp.c, tcp_save).
        let whole = a.min(b) == 0 && a.max(b) == u16::MAX;
        if whole || a == b || r.chance(50) { a.to_string() } else { format!("{}:{}", a.min(b), a.max(b)) }
    };
    match (r.below(9), proto) {
        (0 | 1, Some(p @ ("tcp" | "udp"))) => {
            let side = if r.chance(60) { "dport" } else { "sport" };
            format!("-m {p} {not}--{side} {}", range(r))
        }
        (2 | 3, Some("tcp" | "udp")) => {
            let side = *r.pick(&["sports", "dports", "ports"]);
            let list: Vec<_> =
                (0..=r.below(4)).map(|_| if r.chance(70) { port(r).to_string() } else { range(r) }).collect();
            format!("-m multiport {not}--{side} {}", list.join(","))
        }
        (4, Some("tcp")) => {
            // iptables-legacy-save does not print a mask of NONE either.
            let (mask, set) = (TcpFlags(*r.pick(&FLAGS[1..])), TcpFlags(*r.pick(&FLAGS)));
            format!("-m tcp {not}--tcp-flags {} {}", mask.names(), set.names())
        }
        (0..=4, Some("icmp")) => {
            let kind = *r.pick(&["8", "0", "3", "3/1", "3/3", "any", "11"]);
            format!("-m icmp {not}--icmp-type {kind}")
        }
        (5, _) => {
            let (a, b) = (*r.pick(&ADDRS), *r.pick(&ADDRS));
            let side = if r.chance(50) { "src" } else { "dst" };
            format!("-m iprange {not}--{side}-range {}-{}", a.min(b), a.max(b))
        }
        (6, _) => format!("-m mark {not}--mark {:#x}/{:#x}", r.pick(&MARKS), r.pick(&[u32::MAX, 1, 0x10, 0])),
        (7, _) => {
            let order = *r.pick(&["eq", "lt", "gt"]);
            let not = if order == "eq" { not } else { "" };
            format!("-m ttl {not}--ttl-{order} {}", r.pick(&[1, 63, 64, 65]))
        }
        _ => match r.below(3) {
            0 => format!("-m dscp {not}--dscp {}", r.pick(&[0, 1, 46])),
            1 => format!("-m length {not}--length {}", r.pick(&["28", "28:40", "40", "41:", ":39"])),
            _ => "-m comment --comment \"a \\\"b\\\" c\"".to_owned(),
        },
    }
}

fn random_rule(r: &mut Random, chains: usize, own: Option<usize>) -> String {
    let mut rule = String::new();
    let not = |r: &mut Random| if r.chance(20) { "! " } else { "" };
    for side in ["-s", "-d"] {
        if r.chance(30) {
            let mask = *r.pick(&["32", "24", "16", "8", "9", "0", "255.0.0.255", "0.0.255.0"]);
            // iptables-nft cannot load a negated /0.
            let not = if mask == "0" { "" } else { not(r) };
            write!(rule, "{not}{side} {}/{mask} ", r.pick(&ADDRS)).unwrap();
        }
    }
    if r.chance(20) {
        write!(rule, "{}-o {} ", not(r), r.pick(&["lo", "l+", "eth0", "lo+"])).unwrap();
    }
    let proto = if r.chance(65) { Some(*r.pick(&["tcp", "udp", "icmp"])) } else { None };
    let mut positive = None;
    if let Some(proto) = proto {
        let not = not(r);
        write!(rule, "{not}-p {proto} ").unwrap();
        positive = Some(proto).filter(|_| not.is_empty());
    }
    for _ in 0..r.below(3) {
        let one = random_match(r, positive);
        // iptables-nft does not print two of one module as it loaded them.
        let module: String = one.split(' ').take(2).collect::<Vec<_>>().join(" ");
        if !rule.contains(&module) {
            write!(rule, "{one} ").unwrap();
        }
    }
    // A chain calls only later ones, so there are no circles.
    let first = own.map_or(0, |n| n + 1);
    let target = match r.below(10) {
        0 | 1 => "-j ACCEPT".to_owned(),
        2 | 3 => "-j DROP".to_owned(),
        4 => "-j RETURN".to_owned(),
        5 | 6 if first < chains => format!("-j c{}", first + r.below(chains - first)),
        7 if first < chains => format!("-g c{}", first + r.below(chains - first)),
        _ => String::new(),
    };
    rule + &target
}

fn random_ruleset(r: &mut Random) -> String {
    let chains = r.below(4);
    let policy = *r.pick(&["ACCEPT", "DROP"]);
    let mut text = format!("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT {policy} [0:0]\n");
    for n in 0..chains {
        writeln!(text, ":c{n} - [0:0]").unwrap();
    }
    for _ in 0..3 + r.below(8) {
        writeln!(text, "-A OUTPUT {}", random_rule(r, chains, None)).unwrap();
    }
    for n in 0..chains {
        for _ in 0..=r.below(4) {
            writeln!(text, "-A c{n} {}", random_rule(r, chains, Some(n))).unwrap();
        }
    }
    text + "COMMIT\n"
}

fn random_packet(r: &mut Random) -> Packet {
    let (src, dst) = (*r.pick(&ADDRS), *r.pick(&ADDRS));
    let mut packet = match r.below(5) {
        0 | 1 => Packet::udp(src.into(), *r.pick(&PORTS), dst.into(), *r.pick(&PORTS)),
        2 | 3 => Packet::tcp(src.into(), *r.pick(&PORTS), dst.into(), *r.pick(&PORTS), TcpFlags(*r.pick(&FLAGS))),
        _ => Packet::icmp(src.into(), dst.into(), *r.pick(&[0, 3, 8, 11]), *r.pick(&[0, 1, 3])),
    };
    packet.mark = Some(*r.pick(&MARKS));
    packet.ttl = Some(*r.pick(&[1, 63, 64, 65, 255]));
    packet.tos = Some(*r.pick(&[0, 4, 0xb8]));
    packet.out = Some("lo".to_owned());
    packet.length = Some(u32::try_from(bytes(&packet).len()).unwrap());
    packet.at(Hook::Output)
}

/// The packet as the wire has it; the kernel fills in the IP checksum.
fn bytes(packet: &Packet) -> Vec<u8> {
    let (Some(Proto(proto)), std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) =
        (packet.proto, packet.src, packet.dst)
    else {
        panic!("an IPv4 packet with a protocol");
    };
    let ports = |out: &mut Vec<u8>| {
        out.extend(packet.sport.unwrap().to_be_bytes());
        out.extend(packet.dport.unwrap().to_be_bytes());
    };
    let mut body = Vec::new();
    match proto {
        6 => {
            ports(&mut body);
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, packet.tcp_flags.unwrap().0, 0xff, 0xff, 0, 0, 0, 0]);
        }
        17 => {
            ports(&mut body);
            body.extend([0, 8, 0, 0]);
        }
        _ => body.extend([packet.icmp_type.unwrap(), packet.icmp_code.unwrap(), 0, 0, 0, 0, 0, 0]),
    }
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut out = vec![0x45, packet.tos.unwrap(), length[0], length[1], 0, 1, 0, 0, packet.ttl.unwrap(), proto, 0, 0];
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(body);
    out
}

/// Loads a text, and what we write when we have read it: the kernel must hold the same rules.
fn same_when_written(backend: Backend, rules: &str) {
    let plain = || {
        let output = Command::new(tool(backend, "save")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .filter(|line| line.starts_with("-A") || line.starts_with('*'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    restore(backend, rules);
    let theirs = plain();
    let written = parse::iptables_save(rules, Family::Ip, backend, "oracle")
        .unwrap_or_else(|e| panic!("{e}"))
        .ruleset
        .to_string();
    restore(backend, &written);
    assert_eq!(theirs, plain(), "{rules}\n{written}");
}

/// Options and targets that the random rulesets do not use.
const WRITTEN: &str = r#"*mangle
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --syn -j TCPMSS --set-mss 1200
-A PREROUTING -j MARK --set-mark 5
-A PREROUTING -j MARK --or-mark 0x10
-A PREROUTING -j CONNMARK --save-mark
-A PREROUTING -j CONNMARK --restore-mark --mask 0xff
-A PREROUTING -m connmark --mark 1/3 -j TTL --ttl-set 5
-A POSTROUTING -j DSCP --set-dscp-class EF
-A POSTROUTING -j TOS --set-tos 0x10/0x3f
-A POSTROUTING -j CLASSIFY --set-class 1:2
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p udp --dport 53 -j CT --notrack
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080
-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081
-A PREROUTING -d 1.2.3.0/24 -j NETMAP --to 10.1.2.0/24
-A POSTROUTING -p udp -j MASQUERADE --to-ports 1000-2000 --random
-A POSTROUTING -j SNAT --to-source 10.0.0.5-10.0.0.9 --persistent
COMMIT
*filter
:INPUT DROP [0:0]
:we.ird~chain%1 - [0:0]
-A INPUT -m conntrack ! --ctstate NEW --ctproto tcp --ctorigdst 10.0.0.0/8 --ctdir REPLY -j ACCEPT
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j ACCEPT
-A INPUT -m addrtype --dst-type LOCAL,BROADCAST --limit-iface-in -j ACCEPT
-A INPUT -m limit --limit 5/min --limit-burst 9 -j LOG --log-prefix "a \"b\" c: " --log-level 6
-A INPUT -m recent --set --name SSH -j ACCEPT
-A INPUT -m hashlimit --hashlimit-upto 5/sec --hashlimit-mode srcip --hashlimit-name h -j ACCEPT
-A INPUT -m statistic --mode nth --every 3 --packet 1 -j ACCEPT
-A INPUT -m pkttype --pkt-type multicast -j DROP
-A INPUT -m tos --tos 0x10/0x3f -j we.ird~chain%1
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j NFLOG --nflog-group 3
-A INPUT -j NFQUEUE --queue-num 3 --queue-bypass
-A INPUT -s 10.0.0.1,10.0.0.2 -d 10.1.0.0/16 -g we.ird~chain%1
-A INPUT -p 47 -j REJECT
COMMIT
"#;

fn tool(backend: Backend, verb: &str) -> String {
    format!("iptables-{}-{verb}", if backend == Backend::Nft { "nft" } else { "legacy" })
}

fn restore(backend: Backend, rules: &str) {
    let mut child =
        Command::new(tool(backend, "restore")).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{rules}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn saved(backend: Backend) -> Stack {
    let output = Command::new(tool(backend, "save")).args(["-c", "-t", "filter"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (stack, issues) =
        Stack::from_dumps(&[RulesetDump { format: DumpFormat::IptablesSave, backend, via: "save".into(), text }]);
    assert!(issues.is_empty(), "{}", issues[0]);
    stack
}

/// Says why this test cannot run here; fails instead where it must.
fn skip(why: &str) {
    assert!(std::env::var("REACHWHY_REQUIRE_KERNEL").as_deref() != Ok("1"), "{why}");
    println!("SKIPPED: {why}");
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the kernel oracle needs root".to_owned());
    }
    for tool in ["iptables-nft-restore", "iptables-legacy-restore", "iptables-nft-save", "iptables-legacy-save", "ip"] {
        if Command::new(tool).arg("--version").output().is_err() && Command::new(tool).arg("-V").output().is_err() {
            return Some(format!("{tool} is not installed"));
        }
    }
    None
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_walk_meets_the_rules_that_the_kernel_counts() {
    if let Some(why) = missing() {
        return skip(&why);
    }
    // unshare changes the calling thread only, and a thread of its own takes the namespace with it.
    let compared = std::thread::spawn(|| {
        if let Err(error) = NetNs::unshare() {
            skip(&error.to_string());
            return 0;
        }
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let (seed, rulesets) = (from_env("REACHWHY_ORACLE_SEED", 1), from_env("REACHWHY_ORACLE_RULESETS", 25));
        println!("seed {seed}, {rulesets} rulesets for each backend");
        let mut compared = 0;
        for backend in [Backend::Nft, Backend::Legacy] {
            same_when_written(backend, WRITTEN);
            for n in 0..rulesets {
                compared += one_ruleset(backend, seed + n);
            }
            restore(backend, "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n");
        }
        compared
    })
    .join();
    match compared {
        Ok(compared) => println!("{compared} packets compared"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Loads the ruleset of this seed and compares a dozen packets; gives how many.
fn one_ruleset(backend: Backend, seed: u64) -> usize {
    let mut r = Random(seed);
    let rules = random_ruleset(&mut r);
    same_when_written(backend, &rules);
    let socket =
        Socket::new(Domain::IPV4, Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
    let mut before = saved(backend);
    let packets = 12;
    for _ in 0..packets {
        let packet = random_packet(&mut r);
        setsockopt(&socket, sockopt::Mark, &packet.mark.unwrap()).unwrap();
        let std::net::IpAddr::V4(dst) = packet.dst else { panic!("IPv4") };
        // A packet that OUTPUT drops makes sendto fail with EPERM; the counters tell.
        let _ = socket.send_to(&bytes(&packet), &SockAddr::from(SocketAddrV4::new(dst, 0)));
        let after = saved(backend);
        let mut kernel: BTreeMap<(String, Option<u32>), u64> = BTreeMap::new();
        for moved in counters::moved(&before, &after) {
            if moved.rule.chain != "INPUT" {
                kernel.insert((moved.rule.chain, moved.rule.rule), moved.packets_after - moved.packets_before);
            }
        }
        assert!(!kernel.is_empty(), "no counter of OUTPUT moved: {packet}\n{rules}");
        let outcome = walk_hook(&before, &packet, &Facts::none());
        let mut ours: BTreeMap<(String, Option<u32>), u64> = BTreeMap::new();
        for step in &outcome.path {
            *ours.entry((step.at.chain.clone(), step.at.rule)).or_default() += 1;
        }
        assert_eq!(
            ours, kernel,
            "\nours (left) and the kernel's (right) differ\nbackend {backend:?} seed {seed}\n{rules}{packet}\n{:#?}",
            outcome.path
        );
        before = after;
    }
    packets
}
