//! Random matches of the rarer modules, each with packets that meet it and packets that just do not.

use std::net::IpAddr;

use crate::matches::{self, Place, not};
use crate::random::Random;
use crate::rules::{Focus, Part, Set};

fn part(text: impl Into<String>, inside: Vec<Set>, near: Vec<Set>) -> Part {
    Part { text: text.into(), inside, near }
}

fn plain(text: impl Into<String>) -> Part {
    part(text, Vec::new(), Vec::new())
}

fn span(r: &mut Random, values: &[u32]) -> String {
    let (a, b) = (r.pick(values), r.pick(values));
    if a == b || r.chance(50) { a.to_string() } else { format!("{}:{}", a.min(b), a.max(b)) }
}

/// An SCTP packet of these chunks: type, flags, octets of value.
fn sctp(chunks: &[(u8, u8, usize)]) -> Vec<u8> {
    let mut out = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0];
    for (kind, flags, value) in chunks {
        let length = u16::try_from(4 + value).unwrap();
        out.extend([*kind, *flags]);
        out.extend(length.to_be_bytes());
        out.resize(out.len() + value.next_multiple_of(4), 0x42);
    }
    out
}

/// A DCCP packet of this type with these options (without a checksum).
fn dccp(kind: u8, options: &[u8]) -> Vec<u8> {
    let more = match kind {
        0 => 4,
        1 | 7 => 12,
        2 => 0,
        _ => 8,
    };
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let size = 16 + more + options.len();
    let mut out = vec![0x9c, 0x40, 0, 80, u8::try_from(size / 4).unwrap(), 0, 0, 0, kind << 1 | 1, 0, 0, 1, 0, 0, 0, 9];
    out.resize(16 + more, 0);
    out.extend(options);
    out
}

/// Octets of an ESP, AH (IPv4) or IPComp header.
fn security(proto: u8, spi: u32, reserved: bool) -> Vec<u8> {
    let octets = spi.to_be_bytes();
    match proto {
        50 => [octets, [0, 0, 0, 1], [1; 4]].concat(),
        51 => [[17, 4, 0, u8::from(reserved)], octets, [0, 0, 0, 1], [9; 4], [9; 4], [9; 4]].concat(),
        _ => [[17, u8::from(reserved)].as_slice(), &octets[2..], &[7; 8]].concat(),
    }
}

const SPIS: [u32; 6] = [0, 1, 255, 256, 0x1234, 0xffff_fffe];

/// `-p` and one of the modules of that protocol.
pub(crate) fn of_protocol(r: &mut Random, place: Place<'_>) -> Option<Part> {
    let not = not(r);
    let port = matches::port(r);
    Some(match r.below(if place.nat { 4 } else { 10 }) {
        0 => {
            let (low, high) = (r.pick(&[1u32, 536, 1200, 1460]), r.pick(&[1200u32, 1460, 9000, 65535]));
            let text = if low >= high { low.to_string() } else { format!("{low}:{high}") };
            let near = [low, low - 1, low + 1, high, high.saturating_add(1).min(65535)];
            let set = |mss: u32| Set::Mss(u16::try_from(mss).unwrap());
            part(
                format!("-p tcp -m tcpmss {not}--mss {text}"),
                vec![Set::Proto(6), Set::Flags(2), set(low)],
                near.into_iter().map(set).chain([Set::Options(vec![3]), Set::Options(vec![])]).collect(),
            )
        }
        1 => {
            let option = r.pick(&["--ecn-tcp-cwr", "--ecn-tcp-ece"]);
            part(
                format!("-p tcp -m ecn {not}{option}"),
                vec![Set::Proto(6), Set::Flags(if option.ends_with("cwr") { 0x82 } else { 0x42 })],
                [0x02, 0xc2, 0x42, 0x82, 0x90].map(Set::Flags).to_vec(),
            )
        }
        2 if !place.v6 => {
            let (name, kind, code) = r.pick(&[
                ("pong", 0u8, 0u8),
                ("network-unreachable", 3, 0),
                ("fragmentation-needed", 3, 4),
                ("source-quench", 4, 0),
                ("redirect", 5, 2),
                ("router-solicitation", 10, 0),
                ("ttl-zero-during-transit", 11, 0),
                ("parameter-problem", 12, 1),
                ("address-mask-request", 17, 0),
                ("255", 255, 0),
                ("40/3", 40, 3),
            ]);
            part(
                format!("-p icmp -m icmp {not}--icmp-type {name}"),
                vec![Set::Proto(1), Set::Icmp(kind, code)],
                vec![Set::Icmp(kind, code + 1), Set::Icmp(kind.wrapping_add(1), code), Set::Icmp(8, 0)],
            )
        }
        2 => {
            let (name, kind, code) = r.pick(&[
                ("packet-too-big", 2u8, 0u8),
                ("no-route", 1, 0),
                ("communication-prohibited", 1, 1),
                ("ttl-exceeded", 3, 1),
                ("bad-header", 4, 0),
                ("router-advertisement", 134, 0),
                ("neighbour-solicitation", 135, 0),
                ("neighbor-advertisement", 136, 0),
                ("200/7", 200, 7),
            ]);
            part(
                format!("-p icmpv6 -m icmp6 {not}--icmpv6-type {name}"),
                vec![Set::Proto(58), Set::Icmp(kind, code)],
                vec![Set::Icmp(kind, code + 1), Set::Icmp(kind.wrapping_add(1), code), Set::Icmp(128, 0)],
            )
        }
        3 => part(
            format!("-p tcp -m tcp --tcp-flags ALL {}", r.pick(&["SYN", "ACK", "FIN,PSH,URG", "NONE", "ALL"])),
            vec![Set::Proto(6), Set::Flags(2)],
            [0x10, 0x29, 0, 0x3f, 0xc2].map(Set::Flags).to_vec(),
        ),
        4 | 5 => {
            let kind = r.pick(&["all", "any", "only"]);
            let list = r.pick(&[
                "DATA",
                "INIT",
                "DATA,SACK",
                "DATA:Be",
                "DATA:uB",
                "ABORT:T",
                "ABORT:t,SHUTDOWN_COMPLETE",
                "ALL",
                "NONE",
                "ASCONF,I_DATA",
                "DATA:IUBE",
                "INIT_ACK,COOKIE_ECHO",
            ]);
            let text = if r.chance(60) {
                format!("-p sctp -m sctp --chunk-types {kind} {list}")
            } else {
                format!("-p sctp -m sctp {not}--{} {port}", r.pick(&["sport", "dport"]))
            };
            let packets = [
                sctp(&[(0, 3, 16)]),
                sctp(&[(0, 2, 5), (3, 0, 12)]),
                sctp(&[(1, 0, 16)]),
                sctp(&[(6, 1, 0)]),
                sctp(&[(6, 0, 4), (14, 1, 0)]),
                sctp(&[(2, 0, 16), (10, 0, 3)]),
                sctp(&[(193, 0, 8), (64, 15, 16)]),
                sctp(&[(0, 15, 2)]),
                sctp(&[]),
                sctp(&[(0, 0, 4), (0, 7, 4)]),
            ];
            let near: Vec<Set> = packets.into_iter().map(|octets| Set::Body(132, octets)).collect();
            part(text, vec![r.pick(&near)], near.into_iter().chain([Set::Dport(port), Set::Sport(port)]).collect())
        }
        6 => {
            let text = match r.below(3) {
                0 => format!(
                    "--dccp-types {}",
                    r.pick(&["REQUEST", "RESPONSE,DATA", "ACK,RESET,SYNC", "INVALID", "CLOSE,CLOSEREQ,DATAACK"])
                ),
                1 => format!("--dccp-option {}", r.pick(&[1, 2, 32, 41, 255])),
                _ => format!("--{} {port}", r.pick(&["sport", "dport"])),
            };
            let near: Vec<Set> = (0..12u8)
                .map(|kind| {
                    dccp(kind, r.pick(&[&[][..], &[1, 1, 1, 1], &[32, 3, 9], &[41, 6, 0, 0, 0, 1], &[1, 255, 2, 0]]))
                })
                .map(|octets| Set::Body(33, octets))
                .collect();
            part(
                format!("-p dccp -m dccp {not}{text}"),
                vec![r.pick(&near)],
                near.into_iter().chain([Set::Dport(port)]).collect(),
            )
        }
        7 | 8 => {
            let text = span(r, &SPIS);
            let (proto, text) = match r.below(3) {
                0 => (50, format!("-p esp -m esp {not}--espspi {text}")),
                1 if place.v6 => return None,
                1 => (51, format!("-p ah -m ah {not}--ahspi {text}")),
                _ => {
                    let text = span(r, &[0, 1, 255, 0x1234]);
                    let more = if r.chance(30) { " --compres" } else { "" };
                    (108, format!("-p ipcomp -m ipcomp {not}--ipcompspi {text}{more}"))
                }
            };
            let packet = |spi: u32, odd: bool| Set::Body(proto, security(proto, spi, odd));
            let near = SPIS.iter().flat_map(|spi| [packet(*spi, false), packet(spi.wrapping_add(1), true)]).collect();
            part(text, vec![packet(r.pick(&SPIS), false)], near)
        }
        _ if place.v6 => {
            let (name, kind) = r.pick(&[("binding-refresh-request", 0u8), ("5", 5), ("hoti:cot", 2), ("6:255", 7)]);
            let packet = |next: u8, kind: u8| Set::Body(135, vec![next, 0, kind, 0, 0, 0, 0, 0]);
            let near = vec![packet(59, kind + 1), packet(59, kind.wrapping_sub(1)), packet(58, kind), packet(59, 255)];
            part(format!("-p mh -m mh {not}--mh-type {name}"), vec![packet(59, kind)], near)
        }
        _ => return None,
    })
}

const WORDS: [&str; 4] = ["GET /", "AAAA", "abcAbc", "x"];

/// A match of a module that asks for no protocol.
pub(crate) fn any(r: &mut Random, place: Place<'_>) -> Option<Part> {
    match r.below(10) {
        0 | 1 => payload(r, place),
        2 => Some(u32_or_bpf(r, place)),
        3 | 4 if place.v6 => Some(extension(r, place)),
        5 | 6 if place.nat => Some(flow(r, place)),
        _ => host(r, place),
    }
}

fn payload(r: &mut Random, place: Place<'_>) -> Option<Part> {
    let not = not(r);
    if r.chance(25) {
        let ect = r.below(4);
        let near = (0..4u8).map(|ect| Set::Tos(0xb8 | ect)).collect();
        return Some(part(format!("-m ecn {not}--ecn-ip-ect {ect}"), vec![Set::Tos(u8::try_from(ect).unwrap())], near));
    }
    let word = r.pick(&WORDS);
    let algo = r.pick(&["bm", "kmp"]);
    let pattern = match r.below(3) {
        0 => format!("--hex-string \"|{}|\"", word.bytes().map(|b| format!("{b:02x}")).collect::<String>()),
        _ => format!("--string \"{word}\""),
    };
    let base = if place.v6 { 48u16 } else { 28 };
    let mut text = format!("-m string {not}{pattern} --algo {algo}");
    // The kernel's Boyer-Moore search has its own idea of case and of where a text may begin.
    if algo == "kmp" && r.chance(25) {
        text += " --icase";
    }
    let from = if r.chance(40) { r.pick(&[0, 20, base, base + 1, base + 12, 100]) } else { 0 };
    if from > 0 {
        text += &format!(" --from {from}");
    }
    let to = r.pick(&[40, base + 4, base + 5, base + 20, 200]);
    if to >= from && r.chance(40) {
        text += &format!(" --to {to}");
    }
    let with =
        |lead: usize, word: &str| Set::Payload([vec![b'z'; lead], word.as_bytes().to_vec(), b"zz".to_vec()].concat());
    let near = vec![
        with(1, word),
        with(12, word),
        with(0, &word.to_lowercase()),
        with(0, &word[..word.len() - 1]),
        with(60, word),
    ];
    Some(part(text, vec![with(0, word)], near))
}

fn u32_or_bpf(r: &mut Random, place: Place<'_>) -> Part {
    let not = not(r);
    if r.chance(50) {
        let tests: &[&str] = if place.v6 {
            &[
                "4&0xFF00=0x600",
                "4&0xFF=0:63",
                "40>>16=0x1F40:0x9C40",
                "36&0xFFFF=80&&6&0xFF=1:0xFFFF",
                "0>>28=6",
                "40&0xFFFF=22,53,80",
            ]
        } else {
            &[
                "6&0xFF=6",
                "0>>22&0x3C@0&0xFFFF=22,53,80",
                "0&0xFFFF=0x1C:0x40",
                "4&0x1FFF=0&&0>>22&0x3C@12>>26&0x3C@0=0x41414141",
                "12=0x0A010002,0x0A01004D",
                "8>>24=64,128&&6&0xFF=6:17",
                "0>>22&0x3C@12>>8&0xFF=2",
                "10&0xFFFF=0:65535",
                "100=0:0xFFFFFFFF",
            ]
        };
        return part(
            format!("-m u32 {not}--u32 \"{}\"", r.pick(tests)),
            vec![Set::Proto(6), Set::Dport(80)],
            vec![
                Set::Proto(17),
                Set::Dport(22),
                Set::Dport(53),
                Set::Ttl(128),
                Set::Payload(vec![0x41; 40]),
                Set::Flags(0x12),
            ],
        );
    }
    let programs = [
        // tcp; ip[8] < 64; a port at [22]; length; a mark; protocol by ancillary load; X register.
        "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0",
        "4,48 0 0 8,53 1 0 64,6 0 0 1,6 0 0 0",
        "4,40 0 0 22,21 0 1 80,6 0 0 4,6 0 0 0",
        "4,128 0 0 0,37 0 1 48,6 0 0 1,6 0 0 0",
        "5,177 0 0 0,72 0 0 2,21 0 1 22,6 0 0 1,6 0 0 0",
        "4,32 0 0 4294963204,21 1 0 0,6 0 0 1,6 0 0 0",
        "4,32 0 0 4294963220,69 0 1 16,6 0 0 1,6 0 0 0",
        "6,48 0 0 1,84 0 0 252,116 0 0 2,21 0 1 46,6 0 0 1,6 0 0 0",
        "4,32 0 0 100,21 0 1 1094795585,6 0 0 1,6 0 0 0",
    ];
    part(
        format!("-m bpf --bytecode \"{}\"", r.pick(&programs)),
        vec![Set::Proto(6), Set::Dport(80), Set::Tos(0xb8)],
        vec![Set::Proto(17), Set::Ttl(63), Set::Ttl(64), Set::Dport(22), Set::Payload(vec![0x41; 80]), Set::Mark(0x10)],
    )
}

/// A routing header of this type.
fn routing(kind: u8, left: u8, addrs: &[&str], reserved: u8) -> Set {
    let mut body = vec![kind, left, 0, 0, 0, reserved];
    for addr in addrs {
        let IpAddr::V6(addr) = addr.parse().unwrap() else { unreachable!() };
        body.extend(addr.octets());
    }
    Set::Ext(43, body)
}

fn extension(r: &mut Random, place: Place<'_>) -> Part {
    let not = not(r);
    let output = place.focus == Focus::Output;
    match r.below(7) {
        0 => {
            let (name, kind) = if r.chance(50) && !output { ("hbh", 0u8) } else { ("dst", 60) };
            let mut text = format!("-m {name}");
            if r.chance(50) {
                text += &format!(" {not}--{name}-len {}", r.pick(&[8, 16, 24]));
            }
            if r.chance(60) {
                text += &format!(
                    " --{name}-opts {}",
                    r.pick(&["1", "1:4", "0,0", "1:2,0", "5:2", "1:4,1", "0,1:3", "201:1"])
                );
            }
            let bodies: [&[u8]; 5] = [
                &[1, 4, 0, 0, 0, 0],
                &[0, 0, 1, 2, 0, 0],
                &[30, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                &[1, 2, 0, 0, 0, 0],
                &[0, 1, 3, 0, 0, 0],
            ];
            let near: Vec<Set> = bodies.iter().map(|body| Set::Ext(kind, body.to_vec())).collect();
            part(text, vec![r.pick(&near)], near)
        }
        1 => {
            let mut text = "-m rt".to_owned();
            let zero = r.chance(40);
            if zero {
                text += " --rt-type 0";
            } else if r.chance(60) {
                text += &format!(" {not}--rt-type {}", r.pick(&[0, 2, 4]));
            }
            if r.chance(40) {
                text += &format!(" {}--rt-segsleft {}", matches::not(r), span(r, &[0, 1, 2]));
            }
            if r.chance(30) {
                text += &format!(" --rt-len {}", r.pick(&[8, 24, 40]));
            }
            if zero && r.chance(30) {
                text += " --rt-0-res";
            }
            if zero && r.chance(50) {
                text += &format!(" --rt-0-addrs {}", r.pick(&["fd00::1", "fd00::1,fd00::2", "fd00::2"]));
                if r.chance(50) {
                    text += " --rt-0-not-strict";
                }
            }
            // A forwarded packet's routing header is not looked at; one with segments left is not for us.
            let left = u8::from(place.focus == Focus::Forward);
            let near = vec![
                routing(0, 0, &["fd00::1"], 0),
                routing(0, left, &["fd00::1", "fd00::2"], 0),
                routing(0, left, &["fd00::2"], 1),
                routing(4, 0, &[], 0),
                routing(2, 0, &["fd00::2"], 0),
            ];
            part(text, vec![r.pick(&near)], near)
        }
        2 => {
            let bits = ["hop-by-hop", "dst", "route", "frag", "auth", "esp", "none", "prot"];
            let mut list: Vec<&str> = bits.into_iter().filter(|_| r.chance(22)).collect();
            if list.is_empty() || r.chance(40) {
                list = vec!["prot"];
                list.extend(r.pick(&[None, Some("dst"), Some("route")]));
            }
            let soft = if r.chance(50) { " --soft" } else { "" };
            let near = vec![
                Set::Ext(60, vec![1, 4, 0, 0, 0, 0]),
                Set::Ext(43, vec![4, 0, 0, 0, 0, 0]),
                Set::Body(59, vec![]),
                Set::Body(50, security(50, 9, false)),
                Set::Proto(17),
            ];
            part(format!("-m ipv6header {not}--header {}{soft}", list.join(",")), vec![], near)
        }
        3 if !place.nat && place.focus != Focus::Input => {
            let mut text = "-m frag".to_owned();
            if r.chance(60) {
                text += &format!(" {not}--fragid {}", span(r, &[0, 7, 99]));
            }
            for option in ["--fragres", "--fragfirst"] {
                if r.chance(20) {
                    text += &format!(" {option}");
                }
            }
            text += r.pick(&["", " --fragmore", " --fraglast"]);
            let header = |bits: u16, id: u8| {
                let [high, low] = bits.to_be_bytes();
                Set::Ext(44, vec![high, low, 0, 0, 0, id])
            };
            let near = vec![
                header(0, 7),
                header(1, 7),
                header(8 | 1, 7),
                header(16, 99),
                header(0, 0),
                header(6, 7),
                header(1, 98),
            ];
            part(text, vec![r.pick(&near)], near)
        }
        4 => {
            let mut text = "-m ah".to_owned();
            if r.chance(60) {
                text += &format!(" {not}--ahspi {}", span(r, &SPIS));
            }
            if r.chance(30) {
                text += &format!(" --ahlen {}", r.pick(&[16, 24, 12]));
            }
            if r.chance(30) {
                text += " --ahres";
            }
            let header = |spi: u32, res: u8, more: usize| {
                let mut body = vec![0, res];
                body.extend(spi.to_be_bytes());
                body.extend(vec![0; 4 + more]);
                Set::Ext(51, body)
            };
            let near = vec![header(1, 0, 4), header(256, 1, 4), header(255, 0, 12), header(0, 0, 4)];
            part(text, vec![r.pick(&near)], near)
        }
        5 => {
            part(format!("{not}-m eui64"), vec![Set::Eui64], vec![Set::Mac(matches::OTHER_MAC)]).only_unless(place, not)
        }
        _ => {
            let mut text = "-m srh".to_owned();
            let options = [
                "--srh-next-hdr 17",
                "! --srh-next-hdr 6",
                "--srh-hdr-len-eq 2",
                "--srh-hdr-len-gt 1",
                "--srh-hdr-len-lt 4",
                "--srh-segs-left-eq 0",
                "! --srh-segs-left-gt 0",
                "--srh-last-entry-eq 0",
                "--srh-last-entry-lt 2",
                "--srh-tag 5",
                "! --srh-tag 0",
            ];
            let mut taken: Vec<&str> = options.into_iter().filter(|_| r.chance(15)).collect();
            taken.dedup_by_key(|option| {
                option.trim_start_matches("! ").split(' ').next().map(|name| name[..8].to_owned())
            });
            for option in taken {
                text += &format!(" {option}");
            }
            let header = |left: u8, last: u8, tag: u8| {
                let mut body = vec![4, left, last, 0, 0, tag];
                body.extend([0xfd; 16]);
                Set::Ext(43, body)
            };
            let left = u8::from(place.focus == Focus::Forward);
            let near = vec![header(0, 0, 5), header(0, 1, 0), header(left, 0, 0), header(left, 1, 5)];
            part(text, vec![r.pick(&near)], near)
        }
    }
}

impl Part {
    /// `eui64` has no negation, and no hardware address where packets leave.
    fn only_unless(mut self, place: Place<'_>, not: &str) -> Self {
        self.text = self.text.trim_start_matches(not).to_owned();
        if matches!(place.hook, "OUTPUT" | "POSTROUTING") || place.focus == Focus::Output {
            "-m ipv6header --header prot --soft".clone_into(&mut self.text);
        }
        self
    }
}

fn flow(r: &mut Random, place: Place<'_>) -> Part {
    let not = not(r);
    let v6 = place.v6;
    match r.below(9) {
        0 => plain(format!("-m connmark {not}--mark {:#x}/{:#x}", r.pick(&[0, 1, 0x10]), r.pick(&[u32::MAX, 0x11, 0]))),
        1 => plain(format!(
            "-m cluster --cluster-total-nodes {} {not}--cluster-local-node {} --cluster-hash-seed {:#x}",
            2,
            r.pick(&[1, 2]),
            r.pick(&[0, 0xdead_beef_u32])
        )),
        2 => plain(format!("-m helper {not}--helper {}", r.pick(&["ftp", "sip", "irc-6667"]))),
        3 => plain(format!("-m connlabel {not}--label {}", r.pick(&[0, 5, 127]))),
        4 => plain(format!(
            "-m conntrack {not}--ctstatus {}",
            r.pick(&["NONE", "CONFIRMED", "EXPECTED", "SEEN_REPLY,ASSURED"])
        )),
        5 => plain(format!("-m conntrack --ctdir {}", r.pick(&["ORIGINAL", "REPLY"]))),
        6 => {
            let which = r.pick(&["orig", "repl"]);
            let port = matches::port(r);
            let set = if which == "orig" { Set::Dport(port) } else { Set::Sport(port) };
            part(
                format!("-m conntrack --ctstate NEW {not}--ct{which}dstport {port}"),
                vec![set],
                vec![Set::Dport(port), Set::Sport(port)],
            )
        }
        7 => {
            let (which, side) = (r.pick(&["orig", "repl"]), r.pick(&["src", "dst"]));
            let addr = if r.chance(50) { matches::source(r, v6) } else { matches::destination(r, v6, place.focus) };
            let net = if r.chance(50) { format!("/{}", if v6 { 64 } else { 24 }) } else { String::new() };
            part(format!("-m conntrack {not}--ct{which}{side} {addr}{net}"), vec![Set::Src(addr)], vec![Set::Dst(addr)])
        }
        _ => plain(format!(
            "-m conntrack {not}--ctproto {} --ctstate {}",
            r.pick(&["17", "6", "1"]),
            r.pick(&["NEW", "INVALID"])
        )),
    }
}

fn host(r: &mut Random, place: Place<'_>) -> Option<Part> {
    let not = not(r);
    let hook = place.hook;
    let came_in = place.focus != Focus::Output;
    let text = match r.below(14) {
        0 if hook == "PREROUTING" => {
            let mut text = "-m rpfilter".to_owned();
            for option in ["--loose", "--accept-local", "--invert", "--validmark"] {
                if r.chance(30) {
                    text += &format!(" {option}");
                }
            }
            text
        }
        1 if !place.v6 && matches!(hook, "FORWARD" | "INPUT" | "OUTPUT" | "POSTROUTING") => {
            format!("-m realm {not}--realm {}", r.pick(&["0", "5", "0x1/0x3", "0x0/0xf"]))
        }
        2 if !hook.is_empty() => {
            let dir = if matches!(hook, "OUTPUT" | "POSTROUTING") { "out" } else { "in" };
            let more =
                r.pick(&["none", "ipsec", "ipsec --strict --proto esp", "ipsec --mode tunnel --tunnel-src 10.0.0.1"]);
            if place.v6 && more.contains("10.0") {
                format!("-m policy --dir {dir} --pol ipsec")
            } else {
                format!("-m policy --dir {dir} --pol {more}")
            }
        }
        3 if matches!(hook, "PREROUTING" | "INPUT" | "FORWARD") => {
            format!(
                "-m physdev {}",
                r.pick(&[
                    "--physdev-in eth0",
                    "! --physdev-in eth0",
                    "--physdev-is-in",
                    "! --physdev-is-in",
                    "! --physdev-is-out"
                ])
            )
        }
        4 if matches!(hook, "FORWARD" | "POSTROUTING") => {
            format!("-m physdev {}", r.pick(&["--physdev-is-bridged", "! --physdev-is-bridged", "! --physdev-is-out"]))
        }
        5 | 6 if matches!(hook, "OUTPUT") || !came_in && hook == "POSTROUTING" => format!(
            "-m owner {}",
            match r.below(4) {
                0 => format!("{not}--uid-owner {}", r.pick(&["0", "1000", "0-5", "1-65000"])),
                1 => format!("{not}--gid-owner {}", r.pick(&["0", "1000", "0-5"])),
                2 => format!("{not}--uid-owner 0 --gid-owner {}", r.pick(&["0", "7"])),
                _ => format!("{not}--socket-exists"),
            }
        ),
        7 if !hook.is_empty() => {
            let side = r.pick(&["src", "dst"]);
            let kind = if place.v6 {
                r.pick(&["LOCAL", "UNICAST", "MULTICAST"])
            } else {
                r.pick(&["LOCAL", "UNICAST", "BROADCAST"])
            };
            let limit = match hook {
                "PREROUTING" | "INPUT" => " --limit-iface-in",
                "OUTPUT" | "POSTROUTING" => " --limit-iface-out",
                _ => r.pick(&[" --limit-iface-in", " --limit-iface-out", ""]),
            };
            format!("-m addrtype {not}--{side}-type {kind}{limit}")
        }
        8 => time(r),
        9 if r.chance(15) => format!("-m cpu {not}--cpu {}", r.pick(&[0, 1, 99])),
        10 if r.chance(15) => format!("-m devgroup {not}--src-group {}", r.pick(&["0", "7", "0x0/0xf"]))
            .replace("--src", if matches!(hook, "OUTPUT" | "POSTROUTING") { "--dst" } else { "--src" }),
        11 if matches!(hook, "PREROUTING" | "INPUT") => {
            format!("-m socket{}", r.pick(&["", " --transparent", " --nowildcard", " --nowildcard --restore-skmark"]))
        }
        12 if matches!(hook, "INPUT" | "OUTPUT" | "POSTROUTING") => {
            format!("-m cgroup {not}--cgroup {}", r.pick(&[0, 7]))
        }
        13 => r
            .pick(&[
                "-m comment --comment \"it's a \\\"quoted\\\" \\\\ word\"",
                "-m comment --comment x",
                "-m comment --comment \"-j DROP\" -m comment --comment \"! two\"",
            ])
            .to_owned(),
        _ => return None,
    };
    Some(plain(text))
}

/// Times that are surely on or surely off now and for the next hours.
fn time(r: &mut Random) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hour = |h: u64| format!("{:02}:{:02}:00", (now / 3600 + h) % 24, 30);
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    // 1970-01-01 was a Thursday.
    let today = usize::try_from((now / 86_400 + 3) % 7).unwrap();
    let mut text = "-m time".to_owned();
    match r.below(5) {
        0 => text += &format!(" --timestart {} --timestop {}", hour(21), hour(3)),
        1 => text += &format!(" --timestart {} --timestop {}", hour(3), hour(21)),
        2 => {
            text +=
                &format!(" {}--weekdays {},{},{}", not(r), days[(today + 6) % 7], days[today], days[(today + 1) % 7]);
        }
        3 => text += &format!(" --datestart {}-01-01T00:00:00", r.pick(&["1999", "2000", "2037"])),
        _ => text += &format!(" --weekdays {} --datestop 2037-12-31T00:00:00", days[(today + 3) % 7]),
    }
    text
}
