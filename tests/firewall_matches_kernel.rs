//! Tests that are a function of the packet alone, against the kernel: each rule by itself, each
//! packet sent through it, both backends. The rule's counter and the chain's tell whether it
//! matched, did not, or the packet was dropped while the match looked at it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "what was skipped, and how much was compared")]
#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

use reachwhy::firewall::packet::Proto;
use reachwhy::firewall::ruleset::{Hook, TcpFlags};
use reachwhy::firewall::{Facts, Packet, Stack, walk::walk_hook};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};
use reachwhy::os::netns::NetNs;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const SRC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const DST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Rules whose answer the packet alone gives.
const RULES: &[&str] = &[
    "-p tcp",
    "-p tcp -m tcp",
    "-p tcp -m tcp --dport 80",
    "-p tcp -m tcp ! --sport 1000",
    "-p tcp -m tcp --dport 0:65535",
    "-p tcp --syn",
    "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN",
    "-p tcp -m tcp --tcp-option 2",
    "-p tcp -m tcp ! --tcp-option 8",
    "-p udp",
    "-p udp -m udp --dport 53",
    "-p udp -m udp ! --dport 53",
    "-p udp -m udp --sport 1:65534",
    "-p tcp -m multiport --ports 80,1000",
    "-p udp -m multiport ! --dports 53,54",
    "-p icmp -m icmp --icmp-type 8",
    "-p icmp -m icmp ! --icmp-type 0",
    "-p icmp -m icmp --icmp-type any",
    "-f",
    "! -f",
    "-m length --length 40",
    "-m length ! --length 0:30",
    "-m ttl --ttl-eq 64",
    "-m ttl --ttl-gt 64",
    "-m ttl ! --ttl-eq 9",
    "-m tos --tos 0x10/0x3f",
    "-m tos ! --tos 0x02/0x03",
    "-m dscp --dscp 4",
    "-m dscp ! --dscp 0",
    "-m ecn --ecn-ip-ect 2",
    "-m ecn ! --ecn-ip-ect 0",
    "-p tcp -m ecn --ecn-tcp-ece",
    "-p tcp -m ecn ! --ecn-tcp-cwr --ecn-tcp-ece",
    "-p tcp -m ecn --ecn-tcp-cwr --ecn-ip-ect 2",
    "-p esp -m esp --espspi 256:300",
    "-p esp -m esp ! --espspi 258",
    "-p esp -m esp",
    "-p ah -m ah --ahspi 258",
    "-p ah -m ah ! --ahspi 258",
    "-p sctp -m sctp --dport 80",
    "-p sctp -m sctp --chunk-types any DATA,ABORT",
    "-p sctp -m sctp --chunk-types any DATA:bE,ABORT",
    "-p sctp -m sctp --chunk-types all DATA,SACK",
    "-p sctp -m sctp --chunk-types all DATA,SACK,ABORT",
    "-p sctp -m sctp --chunk-types only DATA,SACK",
    "-p sctp -m sctp --chunk-types only DATA",
    "-p sctp -m sctp ! --chunk-types any INIT",
    "-m string --string GET --algo bm",
    "-m string --string GET --algo kmp --from 40 --to 43",
    "-m string --string GET --algo kmp --from 40 --to 42",
    "-m string --string get --algo bm --icase",
    "-m string ! --string hello --algo kmp",
    "-m string --hex-string |7f000002| --algo bm",
    "-m u32 --u32 \"6&0xFF=6\"",
    "-m u32 --u32 \"6&0xFF=1,17\"",
    "-m u32 ! --u32 \"6&0xFF=17\"",
    "-m u32 --u32 \"4&0x3FFF=0&&6&0xFF=17&&0>>22&0x3C@0&0xFFFF=53\"",
    "-m u32 --u32 \"0&0xFFFF=40\"",
    "-m u32 --u32 \"12=0x7f000003&&16=0x7f000002\"",
    "-m u32 --u32 \"0>>22&0x3C@8=0x47455420:0x68000000\"",
    "-m u32 --u32 \"60000=0\"",
    "-m bpf --bytecode \"4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0\"",
    // TCP or UDP to port 53, no fragment, as tcpdump compiles it.
    "-m bpf --bytecode \"8,48 0 0 9,21 1 0 6,21 0 4 17,40 0 0 6,69 2 0 8191,177 0 0 0,72 0 0 2,22 0 0 0\"",
    "-m bpf --bytecode \"2,128 0 0 0,22 0 0 0\"",
    "-m bpf --bytecode \"3,48 0 0 100,22 0 0 0,6 0 0 1\"",
    "-m pkttype --pkt-type unicast",
    "-m iprange --src-range 127.0.0.1-127.0.0.3 ! --dst-range 127.0.0.3-127.0.0.9",
    "-m mark --mark 0",
    "-m addrtype --dst-type LOCAL",
    "-m physdev ! --physdev-is-bridged",
    "-m policy --dir out --pol none",
    "-m time --datestart 2020-01-01",
    "-m realm --realm 0",
    "-p tcp -m tcpmss --mss 0:65535",
];

/// A hash of the source address decides; the packets need a flow.
const CLUSTER: &[&str] = &[
    "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 0xdeadbeef",
    "-m cluster --cluster-total-nodes 5 ! --cluster-local-nodemask 6 --cluster-hash-seed 7",
    "-m helper --helper ftp",
    "-m helper ! --helper ftp",
    "-m conntrack --ctstate NEW --ctproto 17 --ctdir ORIGINAL",
];

/// Datagrams from many addresses, each the first of its flow.
fn sources() -> Vec<Packet> {
    (10..40)
        .map(|n| Packet {
            out: Some("lo".to_owned()),
            ttl: Some(64),
            tos: Some(0),
            payload: Some(String::new()),
            length: Some(28),
            ..Packet::udp(IpAddr::V4(Ipv4Addr::new(127, 0, n, n)), 1000, IpAddr::V4(DST), 53).at(Hook::Output)
        })
        .collect()
}

/// Packets with all that the rules ask about.
fn packets() -> Vec<Packet> {
    let digit = |n: u8| char::from_digit(n.into(), 16).unwrap();
    let hex = |text: &[u8]| Some(text.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect::<String>());
    let base = |proto: u8| Packet {
        proto: Some(Proto(proto)),
        out: Some("lo".to_owned()),
        ttl: Some(64),
        tos: Some(0),
        mark: Some(0),
        payload: Some(String::new()),
        ..Packet::new(IpAddr::V4(SRC), IpAddr::V4(DST)).at(Hook::Output)
    };
    let tcp = |flags: u8| Packet {
        sport: Some(1000),
        dport: Some(80),
        tcp_flags: Some(TcpFlags(flags)),
        tcp_options: Some(Vec::new()),
        ..base(6)
    };
    let udp = || Packet { sport: Some(1000), dport: Some(53), ..base(17) };
    let cut = |packet: Packet, length: u32| Packet { length: Some(length), ..packet };
    // DATA with flags E, then SACK.
    let chunks = [&[0u8, 1, 0, 17][..], &[0; 16], &[3, 0, 0, 16], &[0; 12]].concat();
    let later = |proto: u8, offset: u16, payload: &[u8]| Packet {
        frag_offset: Some(offset),
        payload: hex(payload),
        ..base(proto)
    };
    vec![
        tcp(0x02),
        Packet { tos: Some(0x10), ttl: Some(65), payload: hex(b"GET / HTTP/1.1"), ..tcp(0x18) },
        Packet { tos: Some(2), ..tcp(0xc2) },
        Packet { tos: Some(3), ..tcp(0x42) },
        Packet { tcp_options: Some(vec![2, 4, 8, 1, 3]), ..tcp(0x02) },
        Packet { payload: hex(b"hello get"), ..udp() },
        Packet { dport: Some(54), ..udp() },
        Packet { icmp_type: Some(8), icmp_code: Some(0), ..base(1) },
        Packet { icmp_type: Some(0), icmp_code: Some(0), payload: hex(b"abc"), ..base(1) },
        cut(tcp(0x02), 30),
        cut(tcp(0x02), 22),
        cut(tcp(0x02), 34),
        cut(udp(), 23),
        cut(udp(), 24),
        cut(Packet { icmp_type: Some(8), icmp_code: Some(0), ..base(1) }, 24),
        later(17, 185, b"\x03\xe8\x00\x35GET 89abcdefghij"),
        later(17, 1, b"ABCDEFGH"),
        later(6, 1, b"\x00\x00\x00\x50ABCDEFGHI\x02JKLMNOP"),
        later(6, 100, b"\x03\xe8\x00\x50ABCDEFGHI\x02JKLMNOP"),
        later(6, 100, b"AB"),
        later(132, 3, b"0123456789abcdef"),
        Packet { more_fragments: Some(true), payload: hex(b"hello456"), ..udp() },
        Packet { payload: hex(&[0, 0, 1, 2, 0, 0, 0, 1, 9, 9]), ..base(50) },
        Packet { payload: hex(&[0, 0, 1]), ..base(50) },
        Packet { payload: hex(&[6, 4, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0]), ..base(51) },
        Packet { sport: Some(1000), dport: Some(80), payload: hex(&chunks), ..base(132) },
        Packet { sport: Some(1000), dport: Some(80), payload: hex(&[6, 0, 0, 0]), ..base(132) },
        cut(Packet { sport: Some(1000), dport: Some(80), ..base(132) }, 30),
    ]
    .into_iter()
    .map(|packet| {
        let length = u32::try_from(bytes(&packet).len()).unwrap();
        Packet { length: Some(length), ..packet }
    })
    .collect()
}

/// The packet's octets; identification and checksums are the kernel's.
fn bytes(packet: &Packet) -> Vec<u8> {
    let mut out = vec![0x45, packet.tos.unwrap(), 0, 0, 0, 0];
    let more = if packet.more_fragments == Some(true) { 0x2000 } else { 0 };
    out.extend((packet.frag_offset.unwrap_or(0) | more).to_be_bytes());
    out.extend([packet.ttl.unwrap(), packet.proto.unwrap().0, 0, 0]);
    for addr in [packet.src, packet.dst] {
        let IpAddr::V4(addr) = addr else { panic!("IPv4") };
        out.extend(addr.octets());
    }
    let ports = [packet.sport.unwrap_or(0).to_be_bytes(), packet.dport.unwrap_or(0).to_be_bytes()].concat();
    let hex = packet.payload.as_ref().unwrap();
    let payload: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    match packet.proto.unwrap().0 {
        _ if packet.frag_offset.is_some() => (),
        6 => {
            let mut options = Vec::new();
            for kind in packet.tcp_options.iter().flatten() {
                match kind {
                    1 => options.push(1),
                    2 => options.extend([2, 4, 5, 0xb4]),
                    3 => options.extend([3, 3, 7]),
                    4 => options.extend([4, 2]),
                    _ => options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 0]),
                }
            }
            options.resize(options.len().next_multiple_of(4), 0);
            out.extend(ports);
            out.extend([0, 0, 0, 1, 0, 0, 0, 2]);
            out.extend([u8::try_from((20 + options.len()) / 4 * 16).unwrap(), packet.tcp_flags.unwrap().0]);
            out.extend([0x20, 0, 0, 0, 0, 0]);
            out.extend(options);
        }
        17 => {
            out.extend(ports);
            out.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
            out.extend([0, 0]);
        }
        132 => {
            out.extend(ports);
            out.extend([0; 8]);
        }
        1 => out.extend([packet.icmp_type.unwrap(), packet.icmp_code.unwrap(), 0, 0, 0, 1, 0, 1]),
        _ => (),
    }
    out.extend(payload);
    if let Some(length) = packet.length {
        out.truncate(usize::try_from(length).unwrap());
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Matched,
    Missed,
    Dropped,
    Open,
}

fn tool(backend: Backend, verb: &str) -> String {
    format!("iptables-{}-{verb}", if backend == Backend::Nft { "nft" } else { "legacy" })
}

fn restore(backend: Backend, rule: &str) -> String {
    let text = format!("*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT {rule}\nCOMMIT\n");
    let mut child =
        Command::new(tool(backend, "restore")).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{rule}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Packets that the rule and the policy have counted.
fn counters(backend: Backend) -> (u64, u64) {
    let output = Command::new(tool(backend, "save")).args(["-c", "-t", "filter"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = |begin: &str| -> u64 {
        let line = text.lines().find(|line| line.contains(begin)).unwrap();
        line.split_once('[').unwrap().1.split_once(':').unwrap().0.parse().unwrap()
    };
    (number("-A OUTPUT"), number(":OUTPUT ACCEPT"))
}

fn skip(why: &str) {
    assert!(std::env::var("REACHWHY_REQUIRE_KERNEL").as_deref() != Ok("1"), "{why}");
    println!("SKIPPED: {why}");
}

#[test]
fn what_the_packet_alone_decides_is_decided_as_the_kernel_does() {
    if !nix::unistd::geteuid().is_root() {
        return skip("the kernel oracle needs root");
    }
    for tool in ["iptables-nft-restore", "iptables-legacy-restore", "ip"] {
        if Command::new(tool).arg("-V").output().is_err() {
            return skip(&format!("{tool} is not installed"));
        }
    }
    // A thread of its own: the namespace goes with it.
    let done = std::thread::spawn(|| {
        if let Err(error) = NetNs::unshare() {
            return skip(&format!("no network namespace: {error}"));
        }
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let raw = (Type::from(libc::SOCK_RAW), Protocol::from(libc::IPPROTO_RAW));
        let socket = Socket::new(Domain::IPV4, raw.0, Some(raw.1)).unwrap();
        let (mut faults, mut compared, mut open) = (Vec::new(), 0, 0);
        for backend in [Backend::Nft, Backend::Legacy] {
            for rule in RULES {
                compared += one_rule(&socket, backend, rule, &packets(), &mut faults, &mut open);
            }
            for rule in CLUSTER {
                compared += one_rule(&socket, backend, rule, &sources(), &mut faults, &mut open);
            }
            restore(backend, "-p 253");
        }
        println!(
            "{compared} packets compared, {open} of them open for want of octets that a packet's fields do not give"
        );
        assert!(faults.is_empty(), "{} of {compared}\n{}", faults.len(), faults.join("\n"));
        // Sequence numbers, identifications and checksums are nobody's business but u32's.
        assert!(open * 40 < compared, "{open} of {compared} are open");
    });
    done.join().unwrap();
}

fn one_rule(
    socket: &Socket,
    backend: Backend,
    rule: &str,
    packets: &[Packet],
    faults: &mut Vec<String>,
    open: &mut usize,
) -> usize {
    let text = restore(backend, rule);
    let dump = RulesetDump { format: DumpFormat::IptablesSave, backend, via: "rule".into(), text };
    let (stack, issues) = Stack::from_dumps(&[dump]);
    assert!(issues.is_empty(), "{}", issues[0]);
    let mut before = counters(backend);
    for packet in packets {
        let to = SockAddr::from(SocketAddrV4::new(DST, 0));
        let refused = socket.send_to(&bytes(packet), &to).is_err();
        let after = counters(backend);
        let kernel = match (after.0 - before.0, after.1 - before.1) {
            (1, 1) => Did::Matched,
            (0, 1) => Did::Missed,
            // A negated match of iptables-legacy counts the packet that it then drops.
            (0 | 1, 0) => Did::Dropped,
            other => panic!("{rule}: {other:?} {refused}"),
        };
        before = after;
        let outcome = walk_hook(&stack, packet, &Facts::none().at(1_750_000_000));
        let own = outcome.path.iter().find(|step| step.at.rule.is_some());
        let ours = match own.map(|step| step.action.as_str()) {
            _ if outcome.verdict == reachwhy::firewall::Verdict::Drop => Did::Dropped,
            Some("maybe") => Did::Open,
            Some(_) => Did::Matched,
            None => Did::Missed,
        };
        if ours == Did::Open {
            *open += 1;
        } else if ours != kernel {
            faults.push(format!("{backend:?} `{rule}` {packet}: the kernel {kernel:?}, we {ours:?}"));
        }
    }
    packets.len()
}
