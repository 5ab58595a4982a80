//! Random rulesets and packets from small pools, so that they meet often.

use std::fmt::Write as _;
use std::net::IpAddr;

use reachwhy::firewall::Packet;
use reachwhy::firewall::packet::{Proto, To};
use reachwhy::firewall::ruleset::{CtStates, CtStatuses, Hook, PktType, TcpFlags};
use reachwhy::host::Backend;

/// SplitMix64: the whole run follows from its seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// A ruleset's text.
pub(crate) struct Text {
    pub native: bool,
    pub backend: Backend,
    pub v6: bool,
    pub rules: String,
    pub sets: String,
}

const PORTS: [u16; 7] = [22, 53, 80, 443, 1024, 40_000, 65_535];
const IFACES: [&str; 5] = ["eth0", "eth1", "lo", "veth7", "br0"];

fn host(r: &mut Random, v6: bool) -> String {
    let n = r.below(5);
    if v6 {
        format!("fd00::{:x}", [1, 2, 0x100, 0x101, 0xffff][n])
    } else {
        format!("10.0.{}", ["0.1", "0.2", "1.0", "1.1", "255.7"][n])
    }
}

fn net(r: &mut Random, v6: bool) -> String {
    let host = host(r, v6);
    let lengths: &[u8] = if v6 { &[128, 128, 120, 112, 64, 8] } else { &[32, 32, 31, 24, 16, 8] };
    if !v6 && r.chance(5) {
        return format!("{host}/255.0.0.255");
    }
    format!("{host}/{}", r.pick(lengths))
}

fn not(r: &mut Random) -> &'static str {
    if r.chance(15) { "! " } else { "" }
}

fn ports(r: &mut Random) -> String {
    let (a, b) = (r.pick(&PORTS), r.pick(&PORTS));
    match r.below(5) {
        0 => format!("{}:{}", a.min(b), a.max(b)),
        1 if r.chance(20) => "0:65535".to_owned(),
        _ => a.to_string(),
    }
}

/// What a rule may ask once it has a protocol.
fn of_protocol(r: &mut Random, v6: bool) -> String {
    let proto = r.pick(&["tcp", "tcp", "udp", "icmp", "sctp", "udplite", "tcp"]);
    let mut out = match proto {
        "icmp" if v6 => "-p ipv6-icmp".to_owned(),
        proto => format!("-p {proto}"),
    };
    let n = not(r);
    let rest = match (proto, r.below(7)) {
        ("icmp", 0..3) if v6 => format!("-m icmp6 {n}--icmpv6-type {}", r.pick(&["128", "129", "1", "128/0"])),
        ("icmp", 0..3) => format!("-m icmp {n}--icmp-type {}", r.pick(&["8", "0", "3/3", "any"])),
        ("icmp", _) => String::new(),
        (proto, 0..3) => format!("-m {proto} {n}--{} {}", r.pick(&["dport", "sport"]), ports(r)),
        ("tcp", 3) => {
            format!("-m tcp {n}--tcp-flags {}", r.pick(&["SYN,ACK SYN", "ALL NONE", "FIN,RST FIN", "NONE NONE"]))
        }
        ("tcp", 4) if r.chance(20) => format!("-m tcp {n}--tcp-option 2"),
        ("tcp" | "udp" | "sctp", 5) => {
            let (a, b) = (r.pick(&PORTS), r.pick(&PORTS));
            format!("-m multiport {n}--{} {a},{}:{}", r.pick(&["dports", "sports", "ports"]), b.min(2000), b.max(2000))
        }
        (proto, 6) => format!("-m {proto}"),
        _ => String::new(),
    };
    let _ = write!(out, " {rest}");
    out
}

fn other(r: &mut Random, v6: bool) -> String {
    let n = not(r);
    match r.below(26) {
        0..4 => format!(
            "-m conntrack {n}--ctstate {}",
            r.pick(&["NEW", "ESTABLISHED,RELATED", "INVALID", "UNTRACKED", "DNAT", "NEW,SNAT"])
        ),
        4 => format!("-m state --state {}", r.pick(&["NEW", "RELATED,ESTABLISHED"])),
        5 | 6 => format!("-m mark {n}--mark {}", r.pick(&["0x1", "0x2", "0x1/0xff", "0x0"])),
        7 => format!("-m connmark {n}--mark {}", r.pick(&["0x1", "0x0", "0x5/0xf"])),
        8 | 9 => format!(
            "-m set {n}--match-set {} {}",
            r.pick(&["ips", "nets", "pairs", "ports", "wires", "list", "none", "macs"]),
            r.pick(&["src", "dst", "src,dst", "dst,dst", "src,src"])
        ),
        10 => format!("-m iprange {n}--src-range {}-{}", host_low(v6), host_high(r, v6)),
        11 => format!("-m mac {n}--mac-source 02:00:00:00:00:0{}", r.below(3)),
        12 => format!("-m length {n}--length {}", r.pick(&["0:60", "60", "40:1500"])),
        13 if v6 => format!("-m hl --hl-{} 64", r.pick(&["eq", "lt", "gt"])),
        13 => format!("-m ttl --ttl-{} 64", r.pick(&["eq", "lt", "gt"])),
        14 => "-m limit --limit 1/second --limit-burst 3".to_owned(),
        15 => format!("-m statistic --mode {}", r.pick(&["random --probability 0.5", "nth --every 3 --packet 0"])),
        16 => {
            format!("-m recent --name x --rsource --{}", r.pick(&["set", "rcheck", "update --seconds 5 --hitcount 2"]))
        }
        17 => format!("-m addrtype {n}--dst-type {}", r.pick(&["LOCAL", "MULTICAST", "UNICAST", "BROADCAST"])),
        18 => format!("-m pkttype {n}--pkt-type {}", r.pick(&["unicast", "broadcast", "multicast"])),
        19 => format!("-m owner {n}--uid-owner {}", r.pick(&["0", "1000"])),
        20 => format!("-m tos {n}--tos 0x10/0xff"),
        21 => "-m string --algo bm --string \"ab\"".to_owned(),
        22 => "-m time --timestart 08:00:00 --timestop 18:00:00".to_owned(),
        23 => format!("-m ecn {n}--ecn-tcp-cwr"),
        24 => "-m nonsense --what 3".to_owned(),
        _ => format!("-m comment --comment \"c{}\"", r.below(3)),
    }
}

fn host_low(v6: bool) -> &'static str {
    if v6 { "fd00::1" } else { "10.0.0.1" }
}

fn host_high(r: &mut Random, v6: bool) -> &'static str {
    if v6 { r.pick(&["fd00::2", "fd00::ff"]) } else { r.pick(&["10.0.0.2", "10.0.1.255", "255.255.255.255"]) }
}

fn rule(r: &mut Random, v6: bool, hook: &str, table: &str, users: usize) -> String {
    let mut words = Vec::new();
    let narrow = r.chance(60);
    for option in ["-s", "-d"] {
        if r.chance(if narrow { 70 } else { 25 }) {
            words.push(format!("{}{option} {}", not(r), net(r, v6)));
        }
    }
    if r.chance(20) && !matches!(hook, "OUTPUT" | "POSTROUTING") {
        words.push(format!("{}-i {}", not(r), r.pick(&["eth0", "eth1", "lo", "veth+", "+"])));
    }
    if r.chance(20) && !matches!(hook, "INPUT" | "PREROUTING") {
        words.push(format!("{}-o {}", not(r), r.pick(&["eth0", "eth1", "lo", "veth+"])));
    }
    let mut modules = Vec::new();
    if r.chance(65) {
        modules.push(of_protocol(r, v6));
    }
    for _ in 0..r.below(3) {
        modules.push(other(r, v6));
    }
    if r.chance(3) && !v6 {
        modules.push("-f".to_owned());
    }
    if r.chance(30) {
        modules.reverse();
    }
    // Options of a protocol need it before them.
    modules.sort_by_key(|m| !m.starts_with("-p"));
    if r.chance(50) && modules.len() > 1 && modules[0].matches(" -m ").count() == 1 {
        let first = modules.remove(0);
        let (proto, rest) = first.split_once(" -m ").unwrap();
        let rest = format!("-m {rest}");
        modules.insert(0, proto.to_owned());
        modules.push(rest);
    }
    words.extend(modules);
    words.push(target(r, v6, hook, table, users));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn target(r: &mut Random, v6: bool, hook: &str, table: &str, users: usize) -> String {
    let user = format!("user{}", r.below(users.max(1)));
    match r.below(24) {
        0..4 => "-j ACCEPT".to_owned(),
        4..6 if table != "nat" => "-j DROP".to_owned(),
        6 if table == "filter" => "-j REJECT".to_owned(),
        7 => "-j RETURN".to_owned(),
        8..11 if users > 0 => format!("-j {user}"),
        11 if users > 0 => format!("-g {user}"),
        12 => "-j LOG".to_owned(),
        13 | 14 if table == "mangle" => {
            format!("-j MARK --set-xmark {}", r.pick(&["0x1/0xffffffff", "0x2/0xff", "0x0/0xf"]))
        }
        15 if table == "mangle" => {
            format!("-j CONNMARK {}", r.pick(&["--save-mark", "--restore-mark", "--set-xmark 0x5/0xf"]))
        }
        16 if table == "mangle" && !v6 => "-j TTL --ttl-set 9".to_owned(),
        17 if table == "mangle" => "-j TOS --set-tos 0x10/0xff".to_owned(),
        18 if table == "raw" => "-j CT --notrack".to_owned(),
        19 | 20 if table == "nat" && matches!(hook, "PREROUTING" | "OUTPUT") => {
            format!("-j DNAT --to-destination {}", host_low(v6))
        }
        19 | 20 if table == "nat" && hook == "POSTROUTING" => "-j MASQUERADE".to_owned(),
        21 => "-j SET --add-set ips src".to_owned(),
        22 if r.chance(20) => "-j NFQUEUE --queue-num 1".to_owned(),
        _ => String::new(),
    }
}

/// Rules as iptables-save has them, in tables with chains long enough for an index.
pub(crate) fn iptables(r: &mut Random, backend: Backend) -> Text {
    let v6 = r.chance(35);
    let mut rules = String::new();
    let tables: [(&str, &[&str]); 4] = [
        ("raw", &["PREROUTING", "OUTPUT"]),
        ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
        ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
        ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ];
    for (table, chains) in tables {
        if table != "filter" && r.chance(55) {
            continue;
        }
        let users = r.below(4);
        let _ = writeln!(rules, "*{table}");
        for chain in chains {
            let policy = if table == "filter" && r.chance(50) { "DROP" } else { "ACCEPT" };
            let _ = writeln!(rules, ":{chain} {policy} [0:0]");
        }
        for user in 0..users {
            let _ = writeln!(rules, ":user{user} - [0:0]");
        }
        let long = r.chance(60);
        for chain in chains {
            for _ in 0..r.below(if long { 60 } else { 8 }) {
                let _ = writeln!(rules, "-A {chain} {}", rule(r, v6, chain, table, users));
            }
        }
        for user in 0..users {
            for _ in 0..r.below(if long { 30 } else { 5 }) {
                // Chains call later ones only, so that none calls itself.
                let text = format!(" {}", rule(r, v6, "INPUT", table, 0).replace("-o ", "-i "));
                let call = if user + 1 < users && r.chance(15) && !text.contains(" -j ") {
                    format!(" -j user{}", user + 1)
                } else {
                    String::new()
                };
                let text = if call.is_empty() { text } else { text.split(" -j ").next().unwrap().to_owned() };
                let _ = writeln!(rules, "-A user{user}{text}{call}");
            }
        }
        rules.push_str("COMMIT\n");
    }
    // Rules that a parser has to refuse are none of this test's.
    let rules: String = rules
        .lines()
        .filter(|l| !(l.contains("-i ") && l.starts_with("-A OUTPUT")))
        .fold(String::new(), |all, l| all + l + "\n");
    Text { native: false, backend, v6, rules, sets: sets(r, v6) }
}

fn sets(r: &mut Random, v6: bool) -> String {
    let family = if v6 { "inet6" } else { "inet" };
    let mut out = String::new();
    for (name, kind) in
        [("ips", "hash:ip"), ("nets", "hash:net"), ("pairs", "hash:ip,port"), ("wires", "hash:net,iface")]
    {
        let _ = writeln!(out, "create {name} {kind} family {family}");
    }
    out.push_str("create ports bitmap:port range 0-65535\ncreate macs hash:mac\ncreate list list:set\nadd list ips\nadd list pairs\n");
    for _ in 0..r.below(40) {
        let proto = r.pick(&["tcp", "udp", "sctp"]);
        let _ = match r.below(6) {
            0 => writeln!(out, "add ips {}", host(r, v6)),
            1 => {
                writeln!(out, "add nets {}{}", net(r, v6).replace("/255.0.0.255", "/24"), r.pick(&["", "", " nomatch"]))
            }
            2 => writeln!(out, "add pairs {},{proto}:{}", host(r, v6), r.pick(&PORTS)),
            3 => writeln!(out, "add wires {},{}", net(r, v6).replace("/255.0.0.255", "/16"), r.pick(&IFACES)),
            4 => writeln!(out, "add macs 02:00:00:00:00:0{}", r.below(3)),
            _ => writeln!(out, "add ports {}", r.pick(&PORTS)),
        };
    }
    out
}

/// nft's own words.
pub(crate) fn native(r: &mut Random) -> Text {
    let v6 = r.chance(35);
    let mut rules = "table inet t {\n".to_owned();
    let of = |r: &mut Random, six: bool| host(r, six);
    for (name, kind, count) in [("hosts", false, r.below(40)), ("pairs", true, r.below(40))] {
        let key = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        let mut elements: Vec<String> =
            (0..=count).map(|_| if kind { format!("{} . {}", of(r, v6), r.pick(&PORTS)) } else { of(r, v6) }).collect();
        elements.sort();
        elements.dedup();
        let tail = if kind { " . inet_service" } else { "" };
        let _ = writeln!(rules, " set {name} {{ type {key}{tail}; elements = {{ {} }} }}", elements.join(", "));
    }
    let mut verdicts: Vec<String> = Vec::new();
    for port in PORTS {
        let verdict = r.pick(&["accept", "drop", "jump user", "return", "continue"]);
        if r.chance(70) {
            verdicts.push(format!("{port} : {verdict}"));
        }
    }
    let verdicts = if verdicts.is_empty() { "1 : drop".to_owned() } else { verdicts.join(", ") };
    let _ = writeln!(rules, " map verdicts {{ type inet_service : verdict; elements = {{ {verdicts} }} }}");
    rules.push_str(" chain user {\n");
    for _ in 0..r.below(25) {
        let _ = writeln!(rules, "  {}", native_rule(r, v6, false));
    }
    rules.push_str(" }\n");
    for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
        if r.chance(40) {
            continue;
        }
        let priority = r.pick(&["0", "-300", "-150", "filter"]);
        let policy = r.pick(&["accept", "drop"]);
        let _ = writeln!(rules, " chain c{hook} {{ type filter hook {hook} priority {priority}; policy {policy};");
        for _ in 0..r.below(60) {
            let _ = writeln!(rules, "  {}", native_rule(r, v6, true));
        }
        rules.push_str(" }\n");
    }
    rules.push_str("}\n");
    Text { native: true, backend: Backend::Nft, v6, rules, sets: sets(r, v6) }
}

fn native_rule(r: &mut Random, v6: bool, calls: bool) -> String {
    let mut words = Vec::new();
    for _ in 0..=r.below(3) {
        let six = if r.chance(90) { v6 } else { !v6 };
        let ip = if six { "ip6" } else { "ip" };
        let n = if r.chance(15) { "!= " } else { "" };
        let (a, b) = (r.pick(&PORTS), r.pick(&PORTS));
        let (low, high) = (a.min(b), a.max(b));
        let end = r.pick(&["saddr", "daddr"]);
        let side = r.pick(&["sport", "dport"]);
        let proto = r.pick(&["tcp", "udp", "th", "tcp"]);
        words.push(match r.below(24) {
            0..3 => format!("{ip} {end} {n}{}", net(r, six).replace("/255.0.0.255", "/24")),
            3 => format!(
                "{ip} {end} {n}{{ {}, {} }}",
                if six { "fd00::1" } else { "10.0.0.1" },
                if six { "fd00::101" } else { "10.0.1.1" }
            ),
            4 | 5 => format!("{proto} {side} {n}{a}"),
            6 => format!("{proto} {side} {n}{low}-{high}"),
            7 => format!("{proto} {side} {}{a}", r.pick(&["< ", "> ", ">= "])),
            8 => format!("{proto} {side} {n}{{ 22, 80, 1024-2000, 40000 }}"),
            9 => format!("{} {end} {n}@hosts", if v6 { "ip6" } else { "ip" }),
            10 => format!("{} {end} . {proto} {side} {n}@pairs", if v6 { "ip6" } else { "ip" }),
            11 => format!("iifname {n}{}", r.pick(&["\"eth0\"", "\"lo\"", "\"veth*\"", "{ \"eth0\", \"lo\" }"])),
            12 => format!("oifname {n}{}", r.pick(&["\"eth1\"", "\"lo\"", "\"br*\""])),
            13 | 14 => {
                format!("ct state {n}{}", r.pick(&["new", "established,related", "invalid", "{ new, untracked }"]))
            }
            15 => format!("meta mark {n}{}", r.pick(&["0x1", "0x2", "{ 0x1, 0x3 }"])),
            16 => "meta mark and 0xff == 0x1".to_owned(),
            17 => format!("meta l4proto {n}{}", r.pick(&["tcp", "{ tcp, udp }", "icmp"])),
            18 => {
                if v6 {
                    format!("icmpv6 type {n}echo-request")
                } else {
                    format!("icmp type {n}echo-request")
                }
            }
            19 => format!("tcp flags {}", r.pick(&["syn", "& (syn | ack) == syn", "== 0x2"])),
            20 => format!("meta length {}", r.pick(&["60", "< 100", "!= 60"])),
            21 => {
                if v6 {
                    "ip6 hoplimit 64".to_owned()
                } else {
                    "ip ttl 64".to_owned()
                }
            }
            22 => r
                .pick(&[
                    "limit rate 1/second",
                    "meta pkttype unicast",
                    "meta nfproto ipv4",
                    "ct mark 0x1",
                    "ct direction original",
                ])
                .to_owned(),
            _ => format!("{} {end} . {proto} {side} {{ {} . {a} }}", if v6 { "ip6" } else { "ip" }, host(r, v6)),
        });
    }
    words.push(
        match r.below(12) {
            0..3 => "accept",
            3 | 4 => "drop",
            5 => "reject",
            6 if calls => "jump user",
            7 if calls => "goto user",
            8 if calls => "tcp dport vmap @verdicts",
            9 => "meta mark set 0x1",
            10 => "return",
            _ => "counter",
        }
        .to_owned(),
    );
    words.join(" ")
}

/// A packet of which more or less is given.
pub(crate) fn packet(r: &mut Random, v6: bool) -> Packet {
    let addr = |text: String| text.parse::<IpAddr>().unwrap();
    let mut dst = addr(host(r, v6));
    if r.chance(4) {
        dst = addr(if v6 { "ff02::1".to_owned() } else { r.pick(&["224.0.0.1", "255.255.255.255"]).to_owned() });
    }
    let src =
        if r.chance(4) { addr(if v6 { "::1".to_owned() } else { "127.0.0.1".to_owned() }) } else { addr(host(r, v6)) };
    let mut packet = Packet::new(src, dst);
    let proto = r.pick(&[6, 6, 6, 17, 17, if v6 { 58 } else { 1 }, 132, 47]);
    packet.proto = Some(Proto(proto)).filter(|_| r.chance(90));
    let (proto, _) = packet.protocol();
    if matches!(proto, 6 | 17 | 132) {
        packet.sport = Some(r.pick(&PORTS)).filter(|_| r.chance(50));
        packet.dport = Some(r.pick(&PORTS)).filter(|_| r.chance(90));
    }
    if proto == 6 {
        packet.tcp_flags = Some(TcpFlags(r.pick(&[2, 0x12, 0x10, 4, 0]))).filter(|_| r.chance(60));
        packet.tcp_options = Some(vec![2]).filter(|_| r.chance(10));
    }
    if matches!(proto, 1 | 58) {
        packet.icmp_type = Some(r.pick(&[8, 0, 3, 128, 129, 1])).filter(|_| r.chance(60));
        packet.icmp_code = Some(r.pick(&[0, 3])).filter(|_| r.chance(40));
    }
    packet.in_ = Some(r.pick(&IFACES).to_owned()).filter(|_| r.chance(55));
    packet.out = Some(r.pick(&IFACES).to_owned()).filter(|_| r.chance(40));
    packet.to = Some(r.pick(&[To::Local, To::Forward])).filter(|_| r.chance(60));
    packet.hook = Some(r.pick(&[Hook::Input, Hook::Forward, Hook::Output, Hook::Prerouting])).filter(|_| r.chance(30));
    packet.ttl = Some(r.pick(&[64, 63, 128, 1])).filter(|_| r.chance(30));
    packet.tos = Some(0x10).filter(|_| r.chance(20));
    packet.mark = Some(r.pick(&[0, 1, 2, 0x101])).filter(|_| r.chance(40));
    packet.connmark = Some(r.pick(&[0, 1, 5])).filter(|_| r.chance(20));
    packet.ctstate = Some(CtStates(r.pick(&[8, 2, 4, 1, 16, 0x48, 0x0a]))).filter(|_| r.chance(50));
    packet.ctstatus = Some(CtStatuses(2)).filter(|_| r.chance(10));
    packet.mac_src = Some(format!("02:00:00:00:00:0{}", r.below(3)).parse().unwrap()).filter(|_| r.chance(40));
    packet.pkttype = Some(r.pick(&[PktType::Unicast, PktType::Broadcast])).filter(|_| r.chance(20));
    packet.uid = Some(r.pick(&[0, 1000])).filter(|_| r.chance(20));
    if r.chance(10) {
        packet.length = Some(r.pick(&[20, 22, 24, 28, 30, 34, 40, 44, 48, 60, 80, 1500]));
    }
    if r.chance(6) {
        packet.frag_offset = Some(r.pick(&[0, 1, 100]));
        packet.more_fragments = Some(r.chance(50));
    }
    if r.chance(10) {
        packet.payload = Some("6162".to_owned());
    }
    packet
}
