//! Random rulesets, and packets near what they ask about.

use std::fmt::Write as _;

/// A small generator (xorshift64*), so that a failure's seed is all that is needed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

pub(crate) const NETS: [&str; 8] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.7",
    "192.168.1.0/24",
    "192.168.1.5",
    "10.0.2.0/255.0.255.0",
    "0.0.0.0/0",
];
pub(crate) const NETS6: [&str; 6] =
    ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::7", "fe80::/10", "::/0", "2001:db8:2::5"];
pub(crate) const PORTS: [&str; 8] = ["22", "53", "80", "443", "8000:8100", "1024:65535", "0:1023", "52:54"];
const CHAINS: [&str; 4] = ["one", "two", "three", "four"];

/// What a ruleset may hold.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) v6: bool,
    pub(crate) nat: bool,
    pub(crate) open: bool,
    pub(crate) state: bool,
}

fn maybe_not(r: &mut Random) -> &'static str {
    if r.chance(20) { "! " } else { "" }
}

fn matches(r: &mut Random, kind: Kind, hook: &str) -> (String, bool) {
    let mut text = String::new();
    let mut tcp = false;
    let nets: &[&str] = if kind.v6 { &NETS6 } else { &NETS };
    if r.chance(40) {
        let _ = write!(text, " {}-s {}", maybe_not(r), r.pick(nets));
    }
    if r.chance(30) {
        let _ = write!(text, " {}-d {}", maybe_not(r), r.pick(nets));
    }
    if r.chance(20) && !matches!(hook, "OUTPUT" | "POSTROUTING") {
        let _ = write!(text, " {}-i {}", maybe_not(r), r.pick(&["eth0", "eth1", "eth+", "lo", "wlan0"]));
    }
    if r.chance(15) && !matches!(hook, "INPUT" | "PREROUTING") {
        let _ = write!(text, " {}-o {}", maybe_not(r), r.pick(&["eth0", "eth1", "eth+", "lo"]));
    }
    match r.below(9) {
        0 | 1 => {
            tcp = true;
            let _ = write!(text, " -p tcp");
            if r.chance(60) {
                let _ = write!(text, " -m tcp {}--dport {}", maybe_not(r), r.pick(&PORTS));
            }
            if r.chance(20) {
                let _ = write!(text, " -m tcp {}--sport {}", maybe_not(r), r.pick(&PORTS));
            }
            if r.chance(25) {
                let _ = write!(
                    text,
                    " -m tcp {}--tcp-flags {}",
                    maybe_not(r),
                    r.pick(&["FIN,SYN,RST,ACK SYN", "ALL NONE", "SYN,FIN SYN,FIN", "ACK ACK"])
                );
            }
        }
        2 => {
            let _ = write!(text, " -p udp -m udp {}--dport {}", maybe_not(r), r.pick(&PORTS));
        }
        3 => {
            let proto = r.pick(&["tcp", "udp"]);
            tcp = proto == "tcp";
            let _ = write!(
                text,
                " -p {proto} -m multiport {}{} {}",
                maybe_not(r),
                r.pick(&["--dports", "--sports", "--ports"]),
                r.pick(&["22,80,443", "53,8000:8100", "1:100"])
            );
        }
        4 if !kind.v6 => {
            let _ = write!(text, " -p icmp -m icmp {}--icmp-type {}", maybe_not(r), r.pick(&["8", "0", "3/4", "any"]));
        }
        4 => {
            let _ = write!(
                text,
                " -p ipv6-icmp -m icmp6 {}--icmpv6-type {}",
                maybe_not(r),
                r.pick(&["128", "129", "1/4", "135"])
            );
        }
        5 => {
            let _ = write!(text, " {}-p {}", maybe_not(r), r.pick(&["tcp", "udp", "47"]));
        }
        _ => (),
    }
    if kind.state && r.chance(20) {
        let _ = write!(
            text,
            " -m conntrack {}--ctstate {}",
            maybe_not(r),
            r.pick(&["NEW", "ESTABLISHED,RELATED", "INVALID", "NEW,UNTRACKED", "DNAT", "SNAT,ESTABLISHED"])
        );
    }
    if r.chance(12) {
        let _ = write!(text, " -m mark {}--mark {}", maybe_not(r), r.pick(&["0x1", "0x1/0x1", "0x4/0xc", "0x0/0xff"]));
    }
    if kind.state && r.chance(6) {
        let _ = write!(text, " -m connmark {}--mark {}", maybe_not(r), r.pick(&["0x1", "0x2/0x3"]));
    }
    if r.chance(6) && !kind.v6 {
        let _ = write!(text, " -m iprange {}--src-range 10.1.1.3-10.1.1.200", maybe_not(r));
    }
    if r.chance(6) && !matches!(hook, "OUTPUT" | "POSTROUTING") && !hook.is_empty() {
        let _ = write!(text, " -m mac {}--mac-source 02:00:00:00:00:01", maybe_not(r));
    }
    if r.chance(5) {
        let _ = write!(text, " -m length {}--length 40:100", maybe_not(r));
    }
    if r.chance(5) {
        let _ = if kind.v6 { write!(text, " -m hl --hl-lt 64") } else { write!(text, " -m ttl --ttl-gt 63") };
    }
    if r.chance(4) {
        let _ = write!(text, " -m tos {}--tos 0x10/0x3f", maybe_not(r));
    }
    if r.chance(5) {
        let _ = write!(text, " -m pkttype {}--pkt-type {}", maybe_not(r), r.pick(&["unicast", "multicast"]));
    }
    if r.chance(8) && !kind.v6 {
        let _ = write!(
            text,
            " -m set {}--match-set {}",
            maybe_not(r),
            r.pick(&["nets src", "nets dst", "pairs src,dst", "pairs dst,dst", "all src"])
        );
    }
    if kind.open && r.chance(10) {
        text.push_str(r.pick(&[
            " -m limit --limit 3/min",
            " -m statistic --mode random --probability 0.5",
            " -m string --string x --algo bm",
            " -m addrtype --dst-type LOCAL",
            " -m recent --rcheck --name x",
            " -m recent --set --name x",
        ]));
    }
    if r.chance(4) && hook == "OUTPUT" {
        let _ = write!(text, " -m owner {}--uid-owner 1000", maybe_not(r));
    }
    (text, tcp)
}

fn target(r: &mut Random, kind: Kind, table: &str, hook: &str, own: usize, tcp: bool) -> String {
    let low = own + 1;
    if low < CHAINS.len() && r.chance(25) {
        return format!(" {} {}", if r.chance(25) { "-g" } else { "-j" }, CHAINS[low + r.below(CHAINS.len() - low)]);
    }
    match (table, r.below(10)) {
        ("filter", 0..=3) | ("nat", 0) => " -j ACCEPT".to_owned(),
        ("filter", 4..=6) | ("mangle" | "raw", 0) => " -j DROP".to_owned(),
        ("filter", 7) => {
            if tcp {
                " -j REJECT --reject-with tcp-reset".to_owned()
            } else {
                " -j REJECT".to_owned()
            }
        }
        ("filter", 8) => " -j RETURN".to_owned(),
        ("filter", _) => r.pick(&[" -j LOG", ""]).to_owned(),
        ("mangle", 1..=4) => format!(
            " -j MARK {}",
            r.pick(&[
                "--set-xmark 0x1/0x1",
                "--set-xmark 0x4/0xffffffff",
                "--set-xmark 0x0/0xff",
                "--set-xmark 0x8/0x0"
            ])
        ),
        ("mangle", 5) if kind.state => format!(
            " -j CONNMARK {}",
            r.pick(&[
                "--set-xmark 0x1/0xffffffff",
                "--save-mark --nfmask 0xff --ctmask 0xff",
                "--restore-mark --nfmask 0x3 --ctmask 0x3"
            ])
        ),
        ("mangle", 6) => " -j TOS --set-tos 0x10/0x3f".to_owned(),
        ("mangle", 7) => {
            if kind.v6 {
                " -j HL --hl-dec 1".to_owned()
            } else {
                " -j TTL --ttl-dec 1".to_owned()
            }
        }
        ("raw", 1..=2) if kind.state => " -j CT --notrack".to_owned(),
        ("nat", 1..=9) if !hook.is_empty() => {
            let source = matches!(hook, "INPUT" | "POSTROUTING");
            let (one, two) =
                if kind.v6 { ("2001:db8:2::5", "[2001:db8:1::7]:8080") } else { ("192.168.1.5", "10.1.1.7:8080") };
            let net = if kind.v6 { "2001:db8:7::/48" } else { "10.7.7.0/24" };
            match (r.below(5), source) {
                (0, true) if hook == "POSTROUTING" => " -j MASQUERADE".to_owned(),
                (0, false) if tcp => " -j REDIRECT --to-ports 8000".to_owned(),
                (1, _) => format!(" -j NETMAP --to {net}"),
                (2 | 3, true) => format!(" -j SNAT --to-source {one}"),
                (_, true) => " -j ACCEPT".to_owned(),
                (2, false) if tcp => format!(" -j DNAT --to-destination {two}"),
                _ => format!(" -j DNAT --to-destination {one}"),
            }
        }
        _ => " -j RETURN".to_owned(),
    }
}

/// A ruleset in the words of iptables-save.
pub(crate) fn ruleset(r: &mut Random, kind: Kind) -> String {
    let mut text = String::new();
    let tables: &[(&str, &[&str])] = &[
        ("raw", &["PREROUTING", "OUTPUT"]),
        ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
        ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
        ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ];
    for (table, hooks) in tables {
        let percent = match *table {
            "filter" => 100,
            "nat" => {
                if kind.nat {
                    100
                } else {
                    0
                }
            }
            _ => 40,
        };
        if !r.chance(percent) {
            continue;
        }
        let _ = writeln!(text, "*{table}");
        for hook in *hooks {
            let policy = if *table == "filter" && r.chance(50) { "DROP" } else { "ACCEPT" };
            let _ = writeln!(text, ":{hook} {policy} [0:0]");
        }
        for chain in CHAINS {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for hook in *hooks {
            for _ in 0..r.below(5) {
                let (m, tcp) = matches(r, kind, hook);
                // A chain is called from the chains before it alone, and hooks are before all.
                let t = target_from_hook(r, kind, table, hook, tcp);
                let _ = writeln!(text, "-A {hook}{m}{t}");
            }
        }
        for (own, chain) in CHAINS.iter().enumerate() {
            for _ in 0..r.below(4) {
                let (m, tcp) = matches(r, kind, "");
                let t = target(r, kind, table, "", own, tcp);
                let _ = writeln!(text, "-A {chain}{m}{t}");
            }
        }
        text.push_str("COMMIT\n");
    }
    text
}

fn target_from_hook(r: &mut Random, kind: Kind, table: &str, hook: &str, tcp: bool) -> String {
    if r.chance(25) {
        return format!(" {} {}", if r.chance(25) { "-g" } else { "-j" }, r.pick(&CHAINS));
    }
    target(r, kind, table, hook, CHAINS.len(), tcp)
}

/// The sets that the rules name.
pub(crate) const SETS: &str = "create nets hash:net family inet\nadd nets 10.1.0.0/16\nadd nets 10.1.1.0/24 nomatch\nadd nets 192.168.1.5\n\
    create pairs hash:ip,port family inet\nadd pairs 10.1.1.7,tcp:80\nadd pairs 192.168.1.5,udp:53\nadd pairs 10.1.1.7,icmp:8/0\n\
    create all list:set\nadd all nets\n";
