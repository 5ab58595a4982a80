//! Random rulesets in nft's own words.

use std::net::IpAddr;

use crate::generate::KEPT_NFT;
use crate::matches;
use crate::random::Random;
use crate::rules::{ChainDef, Focus, Kind, Part, RuleDef, Rules, Set, TableDef};

/// What a rule may name.
#[derive(Debug, Clone, Copy)]
struct Place {
    v6: bool,
    focus: Focus,
    nat: bool,
    /// Packets are one history: some matches remember.
    history: bool,
    /// The table sees both families.
    inet: bool,
    /// Chains that may be called: from this number on, up to that.
    chains: (usize, usize),
    /// In a chain of the main hook, or one that only it calls.
    main: bool,
}

/// A random ruleset.
pub(crate) fn ruleset(r: &mut Random, nat: bool, history: bool) -> Rules {
    let v6 = r.chance(40);
    let focus = r.pick(&[Focus::Input, Focus::Forward, Focus::Forward, Focus::Output]);
    let focus = if history { Focus::Forward } else { focus };
    let family = if r.chance(60) { "inet" } else { ip(v6) };
    let users = r.below(4);
    let hook = match focus {
        Focus::Input => "input",
        Focus::Forward => "forward",
        Focus::Output => "output",
    };
    let place = Place { v6, focus, nat, history, inet: family == "inet", chains: (1, users), main: true };
    let policy = |r: &mut Random| if r.chance(40) { "drop" } else { "accept" };
    let mut chains = Vec::new();
    let mut base = |r: &mut Random, name: &str, hook: &str, priority: i32, policy: &str, most: usize, place| {
        let decl = format!("type filter hook {hook} priority {priority}; policy {policy};");
        let rules = (0..r.below(most + 1)).map(|_| rule(r, place)).collect();
        chains.push(ChainDef { name: name.to_owned(), decl, rules });
    };
    let early = Place { chains: (1, 0), main: false, ..place };
    if focus != Focus::Output && r.chance(50) {
        let at = r.pick(&[-300, -150, 0]);
        base(r, "early", "prerouting", at, "accept", 3, early);
    }
    let chosen = policy(r);
    let at = r.pick(&[0, 0, 5, -10]);
    base(r, "main", hook, at, chosen, 9, place);
    if r.chance(40) {
        let chosen = policy(r);
        let at = r.pick(&[10, 20, -20]);
        base(r, "second", hook, at, chosen, 4, place);
    }
    if focus != Focus::Input && r.chance(40) {
        let at = r.pick(&[0, 100]);
        base(r, "late", "postrouting", at, "accept", 3, early);
    }
    for n in 1..=users {
        let place = Place { chains: (n + 1, users), ..place };
        let rules = (0..=r.below(4)).map(|_| rule(r, place)).collect();
        chains.push(ChainDef { name: format!("c{n}"), decl: String::new(), rules });
    }
    if nat {
        let translates = |r: &mut Random, name: &str, hook: &str, priority: i32| ChainDef {
            name: name.to_owned(),
            decl: format!("type nat hook {hook} priority {priority};"),
            rules: (0..=r.below(3)).map(|_| translation(r, early, hook)).collect(),
        };
        for (name, hook, priority) in [("dn", "prerouting", -100), ("sn", "postrouting", 100), ("on", "output", -100)] {
            let met = match hook {
                "prerouting" => focus != Focus::Output,
                "postrouting" => focus != Focus::Input,
                _ => focus == Focus::Output,
            };
            if met && r.chance(45) {
                chains.push(translates(r, name, hook, priority));
            }
        }
        let rules =
            vec![RuleDef { parts: vec![Part { text: KEPT_NFT.to_owned(), ..Part::default() }], target: String::new() }];
        let aside = if focus == Focus::Input { "forward" } else { "input" };
        chains.push(ChainDef {
            name: "kept".to_owned(),
            decl: format!("type filter hook {aside} priority 50;"),
            rules,
        });
    }
    let extra = sets(r, place);
    let table = TableDef { name: format!("{family} t"), extra, chains };
    Rules { kind: Kind::Native, v6, focus, nat, tables: vec![table], sets: Vec::new(), verbatim: None }
}

fn ip(v6: bool) -> &'static str {
    if v6 { "ip6" } else { "ip" }
}

/// The named sets and maps of a table.
fn sets(r: &mut Random, place: Place) -> Vec<String> {
    let kind = if place.v6 { "ipv6_addr" } else { "ipv4_addr" };
    let addrs: Vec<String> = (0..3).map(|_| any_address(r, place).to_string()).collect();
    let ports: Vec<String> = (0..3).map(|_| matches::port(r).to_string()).collect();
    let net = format!("{}/{}", matches::source(r, place.v6), if place.v6 { 64 } else { 16 });
    let target = |r: &mut Random| verdict(r, place, true);
    vec![
        format!("set as {{ type {kind}; elements = {{ {} }} }}", unique(&addrs)),
        format!("set an {{ type {kind}; flags interval; elements = {{ {net} }} }}"),
        format!("set ps {{ type inet_service; flags interval; elements = {{ {}, 2000-3000 }} }}", ports[0]),
        format!(
            "set ap {{ type {kind} . inet_service; elements = {{ {} . {}, {} . {} }} }}",
            addrs[0], ports[0], addrs[1], "4444"
        ),
        format!(
            "set ac {{ type {kind} . inet_proto . inet_service; flags interval; elements = {{ {net} . tcp . {}-{}, {} . udp . 0-1023 }} }}",
            1000, 2000, addrs[2]
        ),
        format!("set if {{ type ifname; elements = {{ \"eth0\", \"lo\" }} }}"),
        format!("set mk {{ type mark; flags interval; elements = {{ 0x1-0xf, 0x10 }} }}"),
        format!("set pr {{ type inet_proto; elements = {{ tcp, 47 }} }}"),
        format!(
            "map av {{ type {kind} : verdict; flags interval; elements = {{ {net} : {}, {} : {} }} }}",
            target(r),
            far(place),
            target(r)
        ),
        format!(
            "map cv {{ type {kind} . inet_service : verdict; elements = {{ {} . {} : {}, {} . 443 : {} }} }}",
            addrs[1],
            ports[0],
            target(r),
            addrs[2],
            target(r)
        ),
        format!("map mm {{ type inet_service : mark; elements = {{ {} : 0x1, 5555 : 0x10 }} }}", ports[2]),
        format!(
            "map pv {{ type inet_service : verdict; elements = {{ {} : {}, 5555 : {} }} }}",
            ports[1],
            target(r),
            target(r)
        ),
    ]
}

/// An address that lies in no other element.
fn far(place: Place) -> &'static str {
    if place.v6 { "2001:db8:ffff::1" } else { "100.64.0.1" }
}

fn unique(list: &[String]) -> String {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list.join(", ")
}

fn any_address(r: &mut Random, place: Place) -> IpAddr {
    if r.chance(50) { matches::source(r, place.v6) } else { matches::destination(r, place.v6, place.focus) }
}

fn rule(r: &mut Random, place: Place) -> RuleDef {
    let mut parts = Vec::new();
    if r.chance(40) {
        parts.push(address(r, place));
    }
    if r.chance(60) {
        parts.push(transport(r, place));
    }
    if r.chance(35) {
        let part = other(r, place);
        // nft 1.0.6 cannot list a concatenation of a protocol that is already known.
        let twice = parts.iter().any(|part| part.text.starts_with("meta l4proto") || !part.text.starts_with("ip"));
        if !(twice && part.text.contains("th dport")) {
            parts.push(part);
        }
    }
    if place.history && r.chance(40) {
        parts.push(remembers(r));
    }
    if r.chance(30) {
        parts.push(Part { text: "counter".to_owned(), ..Part::default() });
    }
    let target = if r.chance(12) && place.main && place.chains.0 <= place.chains.1 + 1 {
        // nft refuses two protocols in one rule.
        let free = parts.iter().all(|part| part.text.starts_with("ip") || part.text.starts_with("tcp"));
        let bare = parts.iter().all(|part| part.text.starts_with("ip") && !part.text.contains(" . "));
        match r.below(6) {
            3 => format!("{} {} vmap @av", ip(place.v6), r.pick(&["saddr", "daddr"])),
            4 if free => format!("{} {} . tcp dport vmap @cv", ip(place.v6), r.pick(&["saddr", "daddr"])),
            5 if bare => {
                "meta l4proto . th dport vmap { tcp . 22 : drop, udp . 53 : accept, tcp . 80 : continue }".to_owned()
            }
            _ if !free => {
                format!("{} daddr vmap {{ {} : {} }}", ip(place.v6), any_address(r, place), verdict(r, place, true))
            }
            0 => "tcp dport vmap @pv".to_owned(),
            1 => format!(
                "tcp dport vmap {{ 22 : {}, 80 : {}, 1024-2048 : {} }}",
                verdict(r, place, true),
                verdict(r, place, true),
                verdict(r, place, true)
            ),
            _ => format!(
                "{} saddr vmap {{ {} : {} }}",
                ip(place.v6),
                matches::source(r, place.v6),
                verdict(r, place, true)
            ),
        }
    } else {
        verdict(r, place, false)
    };
    let target = if target.is_empty() && parts.is_empty() { "counter".to_owned() } else { target };
    RuleDef { parts, target }
}

/// The words of a rule that say what it looks at and does: no values, no names.
pub(crate) fn words(rule: &str) -> Vec<String> {
    const TWO: [&str; 17] = [
        "ip", "ip6", "tcp", "udp", "th", "icmp", "icmpv6", "meta", "ct", "fib", "limit", "quota", "reject", "log",
        "dnat", "snat", "redirect",
    ];
    const ONE: [&str; 10] =
        ["vmap", "counter", "masquerade", "jump", "goto", "return", "continue", "accept", "drop", "persistent"];
    let all: Vec<&str> = rule.split(' ').collect();
    let pairs =
        all.windows(2).filter(|pair| TWO.contains(&pair[0]) && pair[1].starts_with(|c: char| c.is_alphabetic()));
    let known = pairs.map(|pair| format!("{} {}", pair[0], pair[1]));
    let mut out: Vec<String> = known.collect();
    out.extend(all.iter().filter(|word| ONE.contains(word) || word.starts_with('@')).map(|word| (*word).to_owned()));
    for (mark, name) in [(" . ", "concatenation"), ("!= ", "!="), ("iifname", "iifname"), ("oifname", "oifname")] {
        if rule.contains(mark) {
            out.push(name.to_owned());
        }
    }
    out
}

/// A rule of a nat chain.
fn translation(r: &mut Random, place: Place, hook: &str) -> RuleDef {
    let mut parts = Vec::new();
    if r.chance(50) {
        parts.push(address(r, place));
    }
    let ported = r.chance(50);
    if ported {
        let (name, number) = r.pick(&[("tcp", 6), ("udp", 17)]);
        let port = matches::port(r);
        parts.push(Part {
            text: format!("{name} dport {}{port}", not(r)),
            inside: vec![Set::Proto(number), Set::Dport(port)],
            near: vec![Set::Dport(80)],
        });
    }
    let (family, v6) = (if place.inet { format!("{} ", ip(place.v6)) } else { String::new() }, place.v6);
    let with = |addr: &str, port: &str| match (v6, ported && !port.is_empty()) {
        (true, true) => format!("[{addr}]:{port}"),
        (false, true) => format!("{addr}:{port}"),
        _ => addr.to_owned(),
    };
    let target = match (hook, r.below(6)) {
        (_, 0) => r.pick(&["accept", "return", "counter"]).to_owned(),
        ("prerouting", 1) if !place.history => {
            format!("redirect{}", if ported { " to :8081" } else { "" })
        }
        ("postrouting", 1) => "masquerade".to_owned(),
        ("postrouting", 2) if ported => "masquerade to :2000".to_owned(),
        ("postrouting", _) => {
            let to = if v6 { r.pick(&["fd00:2::9", "fd00:2::1"]) } else { r.pick(&["10.2.0.9", "10.2.0.1"]) };
            format!("snat {family}to {}", with(to, r.pick(&["", "3000"])))
        }
        (_, 2) => {
            let range = if v6 { "fd00:2::5-fd00:2::9" } else { "10.2.0.5-10.2.0.9" };
            format!("dnat {family}to {range}{}", r.pick(&["", " persistent"]))
        }
        _ => {
            let to = match (v6, place.focus) {
                (false, Focus::Input) => r.pick(&["10.1.0.1", "10.2.0.1", "10.2.0.6"]),
                (false, _) => r.pick(&["10.2.0.5", "10.2.0.6", "172.16.5.1"]),
                (true, Focus::Input) => r.pick(&["fd00:1::1", "fd00:2::1", "fd00:2::6"]),
                (true, _) => r.pick(&["fd00:2::5", "fd00:2::6", "2001:db8::9"]),
            };
            format!("dnat {family}to {}", with(to, r.pick(&["", "8080", "22"])))
        }
    };
    // In a table of both families the rule must say which.
    if place.inet && !parts.iter().any(|part| part.text.starts_with("ip")) {
        parts.insert(0, Part { text: format!("meta nfproto {}", if v6 { "ipv6" } else { "ipv4" }), ..Part::default() });
    }
    RuleDef { parts, target }
}

/// A match that remembers.
fn remembers(r: &mut Random) -> Part {
    let over = r.pick(&["", "over "]);
    let text = match r.below(5) {
        0 | 1 => format!(
            "limit rate {over}{} burst {} packets",
            r.pick(&["1/hour", "2/day", "1/minute"]),
            r.pick(&[1, 2, 3, 5])
        ),
        2 => format!("quota {}{} bytes", r.pick(&["over ", ""]), r.pick(&[60, 100, 200, 500])),
        3 => format!("ct state {}{}", not(r), r.pick(&["new", "established", "established,related", "invalid"])),
        _ => format!("ct status {}", r.pick(&["dnat", "snat", "snat,dnat"])),
    };
    Part { text, ..Part::default() }
}

fn verdict(r: &mut Random, place: Place, in_map: bool) -> String {
    let (first, last) = place.chains;
    if !in_map && place.main && first <= last && r.chance(30) {
        return format!("{} c{}", r.pick(&["jump", "goto"]), first + r.below(last - first + 1));
    }
    if in_map {
        return r.pick(&["accept", "drop", "return", "continue"]).to_owned();
    }
    match r.below(10) {
        0..3 => "accept".to_owned(),
        3 | 4 => "drop".to_owned(),
        5 if place.main => {
            let specific = if place.v6 {
                "reject with icmpv6 type addr-unreachable"
            } else {
                "reject with icmp type host-prohibited"
            };
            let both =
                ["reject", specific, "reject with icmpx type admin-prohibited", "reject with icmpx type no-route"];
            r.pick(&both[..if place.inet { 4 } else { 2 }]).to_owned()
        }
        6 => "return".to_owned(),
        7 => r
            .pick(&[
                "meta mark set 0x1",
                "meta mark set 0x10",
                "meta mark set 0x0",
                "meta mark set meta mark or 0x10",
                "meta mark set meta mark and 0x1",
                "meta mark set meta mark xor 0x3",
                "log prefix \"a b\" level info",
                "log group 5",
            ])
            .to_owned(),
        _ => String::new(),
    }
}

fn not(r: &mut Random) -> &'static str {
    if r.chance(22) { "!= " } else { "" }
}

fn address(r: &mut Random, place: Place) -> Part {
    let from = r.chance(50);
    let addr = if from { matches::source(r, place.v6) } else { matches::destination(r, place.v6, place.focus) };
    let other = if from { matches::source(r, place.v6) } else { matches::destination(r, place.v6, place.focus) };
    let set = |addr| if from { Set::Src(addr) } else { Set::Dst(addr) };
    let (low, high) = (addr.min(other), addr.max(other));
    let value = match r.below(7) {
        1 => format!("{addr}/{}", if place.v6 { r.pick(&[127, 64, 48]) } else { r.pick(&[31, 24, 25, 9]) }),
        2 if low != high => format!("{low}-{high}"),
        3 if addr != other => format!("{{ {addr}, {other} }}"),
        4 => "@as".to_owned(),
        5 => "@an".to_owned(),
        _ => addr.to_string(),
    };
    let field = if from { "saddr" } else { "daddr" };
    Part {
        text: format!("{} {field} {}{value}", ip(place.v6), not(r)),
        inside: vec![set(addr)],
        near: vec![set(other), set(low), set(high)],
    }
}

fn transport(r: &mut Random, place: Place) -> Part {
    let (a, b) = (matches::port(r), matches::port(r));
    let (low, high) = (a.min(b), a.max(b));
    match r.below(8) {
        0..4 => {
            let (name, number) = r.pick(&[("tcp", 6), ("udp", 17), ("th", 6)]);
            let source = r.chance(35);
            let value = match r.below(6) {
                0 | 1 => format!("{}{a}", not(r)),
                2 if low < high => format!("{}{low}-{high}", not(r)),
                3 if high - low > 1 => format!("{}{{ {low}, {}-{high} }}", not(r), low + 2),
                4 => format!("{}@ps", not(r)),
                5 if high > 0 => format!("{} {high}", r.pick(&["<", ">=", "<="])),
                _ => a.to_string(),
            };
            let set = |port| if source { Set::Sport(port) } else { Set::Dport(port) };
            Part {
                text: format!("{name} {} {value}", if source { "sport" } else { "dport" }),
                inside: vec![Set::Proto(number), set(a)],
                near: [low, high, high.wrapping_add(1), low.wrapping_sub(1), 2000, 3000, 3001].map(set).to_vec(),
            }
        }
        4 => Part {
            text: format!(
                "tcp flags & (fin|syn|rst|ack) {} {}",
                r.pick(&["==", "!="]),
                r.pick(&["syn", "ack", "syn|ack", "fin|ack"])
            ),
            inside: vec![Set::Proto(6), Set::Flags(2)],
            near: [0x10, 0x12, 0x11, 0, 0x0a].map(Set::Flags).to_vec(),
        },
        5 => {
            let (text, set) = if place.v6 {
                let (name, kind) = r.pick(&[
                    ("echo-request", 128),
                    ("{ echo-request, echo-reply }", 129),
                    ("destination-unreachable", 1),
                ]);
                (format!("icmpv6 type {name}"), vec![Set::Proto(58), Set::Icmp(kind, 0)])
            } else {
                let (name, kind) =
                    r.pick(&[("echo-request", 8), ("{ echo-request, echo-reply }", 0), ("destination-unreachable", 3)]);
                (format!("icmp type {name}"), vec![Set::Proto(1), Set::Icmp(kind, 0)])
            };
            Part { text, inside: set, near: vec![Set::Icmp(3, 3), Set::Icmp(8, 0), Set::Icmp(128, 0)] }
        }
        6 => Part {
            text: format!("meta l4proto {}{}", not(r), r.pick(&["tcp", "udp", "{ tcp, udp }", "47"])),
            inside: vec![Set::Proto(6)],
            near: vec![Set::Proto(17), Set::Proto(47)],
        },
        _ => Part {
            text: format!("{} {} . tcp dport @ap", ip(place.v6), r.pick(&["saddr", "daddr"])),
            inside: vec![Set::Proto(6), Set::Dport(4444)],
            near: vec![Set::Dport(80)],
        },
    }
}

impl Part {
    fn only_where(self, there: bool) -> Self {
        if there { self } else { Self { text: "meta mark 0x0".to_owned(), ..Self::default() } }
    }
}

fn other(r: &mut Random, place: Place) -> Part {
    let ttl = r.pick(&[2u8, 63, 64]);
    let (name, v6) = (ip(place.v6), place.v6);
    let plain = |text: String| Part { text, ..Part::default() };
    match r.below(14) {
        7 => plain(format!("{} {}{}", r.pick(&["iifname", "oifname"]), not(r), r.pick(&["@if", "{ \"eth1\" }"]))),
        8 => Part {
            text: format!(
                "meta mark {}{}",
                "",
                r.pick(&["@mk", "0x1-0xf", "!= @mk", "& 0x11 == 0x1", "& 0x10 != 0x10"])
            ),
            inside: vec![Set::Mark(1)],
            near: vec![Set::Mark(0), Set::Mark(0x10), Set::Mark(0x11)],
        },
        9 => plain(format!("meta l4proto {}@pr", not(r))),
        10 => Part {
            text: format!("{name} {} . meta l4proto . th dport {}@ac", r.pick(&["saddr", "daddr"]), not(r)),
            inside: vec![Set::Proto(6), Set::Dport(1000)],
            near: [999, 2000, 2001].map(Set::Dport).into_iter().chain([Set::Proto(17), Set::Dport(1023)]).collect(),
        },
        11 => plain(format!(
            "fib {} type {}{}",
            r.pick(&["saddr", "daddr"]),
            not(r),
            r.pick(&["local", "unicast", "{ local, broadcast }"])
        ))
        .only_where(!v6),
        12 => plain(format!("meta pkttype {}{}", not(r), r.pick(&["unicast", "broadcast", "{ unicast, multicast }"]))),
        13 => Part {
            text: format!(
                "{name} {} {}{}",
                r.pick(&["saddr", "daddr"]),
                "& ",
                if v6 { "ffff:ffff:: == fd00:1::" } else { "255.0.0.255 == 10.0.0.2" }
            ),
            inside: vec![Set::Src(matches::source(r, v6))],
            near: Vec::new(),
        },
        0 => Part {
            text: format!(
                "{} {} {ttl}",
                if place.v6 { "ip6 hoplimit" } else { "ip ttl" },
                r.pick(&["==", "!=", "<", ">="])
            ),
            inside: vec![Set::Ttl(ttl)],
            near: vec![Set::Ttl(ttl + 1), Set::Ttl(ttl - 1)],
        },
        1 => Part {
            text: format!("{} dscp {}{}", ip(place.v6), not(r), r.pick(&["0", "1", "46"])),
            inside: vec![Set::Tos(0xb8)],
            near: vec![Set::Tos(4), Set::Tos(0), Set::Tos(0xbb)],
        },
        2 => Part {
            text: format!("meta mark {}{}", not(r), r.pick(&["0x1", "0x10", "0x0"])),
            inside: vec![Set::Mark(1)],
            near: vec![Set::Mark(0), Set::Mark(0x10)],
        },
        3 => Part {
            text: format!("meta length {} {}", r.pick(&["<", ">", "=="]), r.pick(&[48, 60, 100])),
            inside: vec![Set::Length(60)],
            near: vec![Set::Length(59), Set::Length(61), Set::Length(100)],
        },
        4 => Part {
            text: format!(
                "{} {}{}",
                r.pick(&["iifname", "oifname"]),
                not(r),
                r.pick(&["\"eth0\"", "\"eth1\"", "\"eth*\"", "\"lo\"", "{ \"eth0\", \"lo\" }"])
            ),
            ..Part::default()
        },
        5 if place.nat => Part {
            text: format!(
                "ct state {}{}",
                not(r),
                r.pick(&["new", "invalid", "{ new, invalid }", "established,related", "new,untracked"])
            ),
            inside: Vec::new(),
            near: [1, 2, 0x10, 0x12].map(Set::Flags).to_vec(),
        },
        _ if place.inet => {
            Part { text: format!("meta nfproto {}", if place.v6 { "ipv6" } else { "ipv4" }), ..Part::default() }
        }
        _ => Part { text: "meta mark 0x0".to_owned(), ..Part::default() },
    }
}
