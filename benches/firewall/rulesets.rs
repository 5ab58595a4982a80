//! Rulesets of the sizes that people have, and packets for them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use reachwhy::firewall::Packet;
use reachwhy::firewall::ruleset::TcpFlags;

/// A small generator of numbers (xorshift), the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(n)).unwrap()
    }
}

fn host(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 | n.wrapping_mul(2_654_435_761) >> 8)
}

fn port(n: u32) -> u16 {
    u16::try_from(n % 50_000 + 1_000).unwrap()
}

/// Each rule one host and one port.
pub fn ports(count: u32) -> String {
    let mut out = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    for n in 0..count {
        let proto = if n.is_multiple_of(3) { "udp" } else { "tcp" };
        let _ = writeln!(out, "-A FORWARD -s {}/32 -p {proto} -m {proto} --dport {} -j ACCEPT", host(n), port(n));
    }
    out.push_str("COMMIT\n");
    out
}

/// A packet for each of many rules of [`ports`], drawn evenly.
pub fn port_packets(count: u32, packets: usize) -> Vec<Packet> {
    let mut numbers = Numbers::new(1);
    (0..packets)
        .map(|_| {
            let n = numbers.below(count);
            let (src, dst) = (IpAddr::V4(host(n)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
            let mut packet = if n.is_multiple_of(3) {
                Packet::udp(src, 40_000, dst, port(n))
            } else {
                Packet::tcp(src, 40_000, dst, port(n), TcpFlags::SYN)
            };
            packet.in_ = Some("eth0".to_owned());
            packet.out = Some("eth1".to_owned());
            packet.at(reachwhy::firewall::Hook::Forward)
        })
        .collect()
}

/// Networks of all lengths on both sides, ranges of ports, states and interfaces: none is the key.
pub fn networks(count: u32) -> String {
    let mut numbers = Numbers::new(7);
    let mut out = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    for n in 0..count {
        let (a, b) = (numbers.below(9) + 16, numbers.below(17) + 16);
        let _ = write!(out, "-A FORWARD -s {}/{a} -d {}/{b}", host(n), host(n * 7 + 1));
        if n.is_multiple_of(4) {
            let _ = write!(out, " -i eth{}", n % 3);
        }
        if n.is_multiple_of(5) {
            out.push_str(" -p icmp");
        } else {
            let proto = if n.is_multiple_of(2) { "tcp" } else { "udp" };
            let (from, to) = (port(n), port(n) + u16::try_from(numbers.below(900)).unwrap());
            let _ = write!(out, " -p {proto} -m {proto} --dport {from}:{to}");
        }
        if n.is_multiple_of(3) {
            out.push_str(" -m state --state NEW,ESTABLISHED");
        }
        let _ = writeln!(out, " -j {}", if n.is_multiple_of(2) { "ACCEPT" } else { "DROP" });
    }
    out.push_str("COMMIT\n");
    out
}

/// Packets for rules of [`networks`].
pub fn network_packets(count: u32, packets: usize) -> Vec<Packet> {
    let mut numbers = Numbers::new(3);
    (0..packets)
        .map(|_| {
            let n = numbers.below(count);
            let (src, dst) = (IpAddr::V4(host(n)), IpAddr::V4(host(n * 7 + 1)));
            let mut packet = if n.is_multiple_of(5) {
                Packet::icmp(src, dst, 8, 0)
            } else if n.is_multiple_of(2) {
                Packet::tcp(src, 40_000, dst, port(n), TcpFlags::SYN)
            } else {
                Packet::udp(src, 40_000, dst, port(n))
            };
            packet.in_ = Some(format!("eth{}", n % 3));
            packet.out = Some("eth9".to_owned());
            packet.at(reachwhy::firewall::Hook::Forward)
        })
        .collect()
}

fn service(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0000 | n & 0xf_ffff)
}

/// kube-proxy's rules, eight for each service with two endpoints.
pub fn kube(rules: u32) -> String {
    let services = rules / 8;
    let mut out = "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                   :POSTROUTING ACCEPT [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
                   :KUBE-POSTROUTING - [0:0]\n:KUBE-SERVICES - [0:0]\n"
        .to_owned();
    for n in 0..services {
        let _ = writeln!(out, ":KUBE-SVC-{n:016X} - [0:0]\n:KUBE-SEP-{n:015X}A - [0:0]\n:KUBE-SEP-{n:015X}B - [0:0]");
    }
    out.push_str(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\n",
    );
    for n in 0..services {
        let (ip, name) = (service(n), format!("default/service-{n}:http"));
        let _ = writeln!(
            out,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{n:016X}\n\
             -A KUBE-SVC-{n:016X} ! -s 10.244.0.0/16 -d {ip}/32 -p tcp -m comment --comment \"{name} cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{n:016X} -m comment --comment \"{name} -> 10.244.1.1:8080\" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-{n:015X}A\n\
             -A KUBE-SVC-{n:016X} -m comment --comment \"{name} -> 10.244.2.1:8080\" -j KUBE-SEP-{n:015X}B"
        );
        for (end, net) in [("A", 1), ("B", 2)] {
            let to = Ipv4Addr::from(0x0af4_0000 | net << 15 | n & 0x7fff);
            let _ = writeln!(
                out,
                "-A KUBE-SEP-{n:015X}{end} -s {to}/32 -m comment --comment \"{name}\" -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{n:015X}{end} -p tcp -m comment --comment \"{name}\" -m tcp -j DNAT --to-destination {to}:8080"
            );
        }
    }
    out.push_str(
        "-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         COMMIT\n",
    );
    out
}

/// Packets of pods to services of [`kube`].
pub fn kube_packets(rules: u32, packets: usize) -> Vec<Packet> {
    let mut numbers = Numbers::new(5);
    (0..packets)
        .map(|_| {
            let dst = IpAddr::V4(service(numbers.below(rules / 8)));
            let src = IpAddr::V4(Ipv4Addr::new(10, 244, 3, 7));
            let mut packet = Packet::tcp(src, 40_000, dst, 80, TcpFlags::SYN);
            packet.in_ = Some("cni0".to_owned());
            packet.out = Some("eth0".to_owned());
            packet.to = Some(reachwhy::firewall::packet::To::Forward);
            packet
        })
        .collect()
}

/// A site's router: for each of its networks a chain that checks the sources of an interface by
/// address and MAC, and one with what its hosts offer; states and marks of the site besides.
pub fn site(rules: u32) -> String {
    let networks = rules / 25;
    let mut out =
        "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:LOG_DROP - [0:0]\n".to_owned();
    for n in 0..networks {
        let _ = writeln!(out, ":mac_{n} - [0:0]\n:svc_{n} - [0:0]");
    }
    out.push_str(
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n\
         -A INPUT -p tcp -m tcp --dport 22 -s 10.0.0.0/16 -j ACCEPT\n\
         -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -m state --state INVALID -j DROP\n",
    );
    let address = |n: u32, k: u32| Ipv4Addr::from(0x0a00_0000 | n << 8 | k);
    for n in 0..networks {
        let net = address(n, 0);
        let _ = writeln!(
            out,
            "-A FORWARD -i eth1.{n} -j mac_{n}\n-A FORWARD -i eth1.{n} ! -s {net}/24 -j LOG_DROP\n-A FORWARD -d {net}/24 -j svc_{n}"
        );
        for k in 1..=8 {
            let (ip, kind) = (address(n, k), n * 8 + k);
            let [_, a, b, c] = kind.to_be_bytes();
            let _ =
                writeln!(out, "-A mac_{n} -s {ip}/32 -m mac --mac-source 02:00:00:{a:02X}:{b:02X}:{c:02X} -j RETURN");
        }
        let _ = writeln!(
            out,
            "-A mac_{n} -s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --dport 67 -j RETURN\n-A mac_{n} -j DROP"
        );
        for k in 1..=9 {
            let proto = if k % 3 == 0 { "udp" } else { "tcp" };
            let from = port(n * 31 + k * 7);
            let _ = match k % 4 {
                0 => writeln!(
                    out,
                    "-A svc_{n} -d {}/32 -p {proto} -m multiport --dports 80,443,{from} -j ACCEPT",
                    address(n, k)
                ),
                1 => writeln!(
                    out,
                    "-A svc_{n} -s {}/20 -d {}/32 -p {proto} -m state --state NEW -m {proto} --dport {from} -j ACCEPT",
                    address(n & 0xff0, 0),
                    address(n, k)
                ),
                2 => writeln!(
                    out,
                    "-A svc_{n} -d {}/32 -p {proto} -m {proto} --dport {from}:{} -j ACCEPT",
                    address(n, k),
                    from + 20
                ),
                _ => writeln!(
                    out,
                    "-A svc_{n} ! -s 10.0.0.0/8 -d {}/32 -p icmp -m icmp --icmp-type 8 -j DROP",
                    address(n, k)
                ),
            };
        }
        let _ =
            writeln!(out, "-A svc_{n} -i eth0 -j DROP\n-A svc_{n} -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT");
    }
    out.push_str("-A LOG_DROP -m limit --limit 5/min -j LOG\n-A LOG_DROP -j DROP\nCOMMIT\n");
    out
}

/// The same with one service more and one less, as a change of the day would have it.
pub fn site_changed(rules: u32) -> String {
    let host = Ipv4Addr::from(0x0a00_0000 | 3 << 8 | 4);
    let gone = format!("-A svc_3 -d {host}/");
    let mut out = String::new();
    for line in site(rules).lines().filter(|line| !line.starts_with(&gone)) {
        if line == "COMMIT" {
            out.push_str("-A svc_7 -d 10.0.7.99/32 -p tcp -m tcp --dport 8443 -j ACCEPT\n");
        }
        let _ = writeln!(out, "{line}");
    }
    out
}

/// nft's own text.
pub fn native(count: u32) -> String {
    let mut out =
        "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n".to_owned();
    for n in 0..count {
        let _ = match n % 3 {
            0 => writeln!(out, "\t\tip saddr {}/24 tcp dport {} accept", host(n), port(n)),
            1 => writeln!(
                out,
                "\t\tiifname \"eth0\" ip daddr {} udp dport {{ {}, 53 }} counter packets 0 bytes 0 drop",
                host(n),
                port(n)
            ),
            _ => writeln!(out, "\t\tct state established,related meta mark 0x{n:08x} accept comment \"rule {n}\""),
        };
    }
    out.push_str("\t}\n}\n");
    out
}

/// `ipset save` of one large set.
pub fn ipset(count: u32) -> String {
    let mut out = "create big hash:ip family inet hashsize 1048576 maxelem 2000000\n".to_owned();
    for n in 0..count {
        let _ = writeln!(out, "add big {}", Ipv4Addr::from(0x0b00_0000 + n * 3));
    }
    out
}
