//! Random rulesets in iptables' words.

use crate::matches::{self, Place};
use crate::random::Random;
use crate::rules::{ChainDef, Focus, Kind, RuleDef, Rules, TableDef, builtin, tables};

/// A random ruleset.
pub(crate) fn ruleset(r: &mut Random, kind: Kind, nat: bool, history: bool) -> Rules {
    let v6 = r.chance(35);
    let focus = r.pick(&[Focus::Input, Focus::Forward, Focus::Forward, Focus::Output]);
    let focus = if history { Focus::Forward } else { focus };
    let mut sets = Vec::new();
    let mut commands = Vec::new();
    if r.chance(30) {
        for n in 0..=r.below(2) {
            let (kind, lines) = crate::sets::set(r, &format!("s{n}"), v6, focus);
            sets.push((format!("s{n}"), kind));
            commands.extend(lines);
        }
        if r.chance(25) {
            // A list of those, with as many directions as its longest member has dimensions.
            let longest = sets.iter().map(|(_, kind)| *kind).max_by_key(|kind| kind.split(',').count());
            commands.push("create s9 list:set size 4".to_owned());
            commands.extend(sets.iter().map(|(name, _)| format!("add s9 {name} -exist")));
            sets.push(("s9".to_owned(), longest.unwrap_or("hash:ip")));
        }
    }
    let mut all = Vec::new();
    for name in tables(nat) {
        all.push(table(r, name, Place { v6, focus, nat, history, hook: "", sets: &sets }));
    }
    if nat {
        // Where no rule asks for conntrack it does not run, and nat chains see no packet.
        let aside = if focus == Focus::Input { "FORWARD" } else { "INPUT" };
        let chains = all.iter_mut().filter(|table| table.name == "security").flat_map(|table| &mut table.chains);
        for chain in chains.filter(|chain| chain.name == aside) {
            let part = crate::rules::Part { text: KEPT.to_owned(), ..Default::default() };
            chain.rules = vec![RuleDef { parts: vec![part], target: String::new() }];
        }
    }
    Rules { kind, v6, focus, nat, tables: all, sets: commands, verbatim: None }
}

/// The same in nft's words.
pub(crate) const KEPT_NFT: &str = "ct state new comment \"kept\"";

/// A rule that only keeps conntrack running.
pub(crate) const KEPT: &str = "-m conntrack --ctstate NEW -m comment --comment kept";

/// The chains of a table that the packets of this focus meet.
fn busy(table: &str, focus: Focus) -> Vec<&'static str> {
    let way: &[&str] = match focus {
        Focus::Input => &["PREROUTING", "INPUT"],
        Focus::Forward => &["PREROUTING", "FORWARD", "POSTROUTING"],
        Focus::Output => &["OUTPUT", "POSTROUTING"],
    };
    builtin(table).iter().filter(|name| way.contains(name)).copied().collect()
}

fn table(r: &mut Random, name: &str, given: Place<'_>) -> TableDef {
    let busy = busy(name, given.focus);
    let (most, users) = match name {
        "filter" => (9, 3),
        "mangle" => (3, 1),
        "nat" => (4, 1),
        "raw" => (2, 1),
        _ => (usize::from(r.chance(15)), 0),
    };
    let users = if users > 0 { r.below(users + 1) } else { 0 };
    let mut chains = Vec::new();
    for chain in builtin(name) {
        let at_work = busy.contains(chain);
        // nat has no dropping policy.
        let drops = at_work && name != "nat" && (name == "filter" && r.chance(45) || r.chance(4));
        let rules = if at_work && most > 0 { r.below(most + 1) } else { 0 };
        let place = Place { hook: chain, ..given };
        let rules = (0..rules).map(|_| rule(r, name, place, 0, users)).collect();
        chains.push(ChainDef {
            name: (*chain).to_owned(),
            decl: if drops { "DROP" } else { "ACCEPT" }.to_owned(),
            rules,
        });
    }
    for n in 0..users {
        // Called from any of the table's busy chains: what only one of them may say is left out.
        let hook = if busy.len() == 1 { busy[0] } else { "" };
        let place = Place { hook: if hook.is_empty() { "POSTROUTING" } else { hook }, ..given };
        let rules = (0..=r.below(4)).map(|_| rule(r, name, place, n + 1, users)).collect();
        chains.push(ChainDef { name: format!("c{}", n + 1), decl: "-".to_owned(), rules });
    }
    TableDef { name: name.to_owned(), extra: Vec::new(), chains }
}

fn rule(r: &mut Random, table: &str, place: Place<'_>, own: usize, users: usize) -> RuleDef {
    let mut parts = Vec::new();
    for source in [true, false] {
        if r.chance(28) {
            parts.push(matches::address(r, place, source));
        }
    }
    if r.chance(20) {
        // A user chain is called from several hooks.
        let hook = if own > 0 { "" } else { place.hook };
        parts.push(matches::interface(r, Place { hook, ..place }));
    }
    // What a module takes in one hook alone is left out of chains that several call.
    let there = if own > 0 && busy(table, place.focus).len() > 1 { Place { hook: "", ..place } } else { place };
    let rare = if r.chance(20) { crate::rare::of_protocol(r, there) } else { None };
    if let Some(part) = rare {
        parts.push(part);
    } else if r.chance(60) {
        let (protocol, more) = matches::protocol(r, place);
        parts.push(protocol);
        parts.extend(more);
    }
    for _ in 0..r.below(3) {
        // rpfilter is for raw and mangle.
        let there = if table == "nat" && there.hook == "PREROUTING" { Place { hook: "", ..there } } else { there };
        let remembers = place.history && matches!(there.hook, "PREROUTING" | "FORWARD");
        let part = if remembers && r.chance(45) {
            Some(crate::stateful::any(r, place))
        } else if r.chance(if place.history { 10 } else { 45 }) {
            crate::rare::any(r, there)
        } else {
            matches::any(r, place)
        };
        if let Some(part) = part {
            // iptables takes a module twice, and merges the options of some.
            let module = |text: &str| text.trim_start_matches("! ").split(' ').take(2).collect::<Vec<_>>().join(" ");
            if !parts.iter().any(|other| module(&other.text) == module(&part.text)) {
                parts.push(part);
            }
        }
    }
    if r.chance(3) {
        parts.push(crate::rules::Part {
            text: "-m comment --comment \"a \\\"b\\\" c\"".to_owned(),
            ..Default::default()
        });
    }
    let begins = |protocol: &str| {
        parts
            .iter()
            .any(|part| part.text.strip_prefix(protocol).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
    };
    let (tcp, ported) = (begins("-p tcp"), begins("-p tcp") || begins("-p udp"));
    if r.chance(18)
        && let Some((target, more)) = rare_target(r, table, there, own, tcp, ported)
        && (more.is_none() || !parts.iter().any(|part| part.text.contains("-p ")) || target.contains("SYNPROXY"))
    {
        parts.extend(more);
        return RuleDef { target, parts };
    }
    RuleDef { target: target(r, table, place, own, users, tcp, ported), parts }
}

/// A rarer target, and the match that it must have.
fn rare_target(
    r: &mut Random,
    table: &str,
    place: Place<'_>,
    own: usize,
    tcp: bool,
    ported: bool,
) -> Option<(String, Option<crate::rules::Part>)> {
    let part = |text: &str| Some(crate::rules::Part { text: text.to_owned(), ..Default::default() });
    let syn = || {
        let mut part = part("-p tcp -m tcp --tcp-flags SYN,RST SYN").unwrap_or_default();
        part.inside = vec![crate::rules::Set::Proto(6), crate::rules::Set::Flags(2)];
        part.near = vec![
            crate::rules::Set::Mss(1460),
            crate::rules::Set::Mss(900),
            crate::rules::Set::Options(vec![]),
            crate::rules::Set::Options(vec![3, 4, 8]),
            crate::rules::Set::Payload(vec![1, 2, 3]),
        ];
        Some(part)
    };
    let plain = |text: String| Some((text, None));
    match (table, r.below(8)) {
        (_, 0) => plain(format!("-j AUDIT --type {}", r.pick(&["accept", "drop", "reject"]))),
        ("raw", 1) => plain("-j TRACE".to_owned()),
        ("raw", 2 | 3) if place.nat => {
            plain(r.pick(&["-j NOTRACK", "-j CT --helper ftp", "-j CT --ctevents new,destroy"]).to_owned())
                .filter(|(text, _)| !text.contains("ftp") || tcp)
        }
        ("mangle", 1 | 2) if !tcp && !ported => {
            let size = r.pick(&["--set-mss 1000", "--set-mss 1460", "--set-mss 9000", "--clamp-mss-to-pmtu"]);
            let clamps = matches!(place.hook, "FORWARD" | "OUTPUT" | "POSTROUTING") && own == 0;
            Some((format!("-j TCPMSS {}", if clamps { size } else { "--set-mss 1200" }), syn()))
        }
        ("mangle", 1 | 2) if tcp => plain(format!(
            "-j TCPOPTSTRIP --strip-options {}",
            r.pick(&["2", "3,4", "8", "2,3,4,8", "timestamp,wscale", "5-9,2"]).replace("5-9,2", "5,2")
        )),
        ("mangle", 3) if tcp && !place.v6 => plain("-j ECN --ecn-tcp-remove".to_owned()),
        ("mangle", 3) if ported && place.hook == "PREROUTING" && own == 0 => {
            let to = if place.v6 { "::" } else { "0.0.0.0" };
            plain(format!("-j TPROXY --on-port {} --on-ip {to} --tproxy-mark 0x1/0x1", r.pick(&[3128, 0])))
        }
        ("mangle", 4) if ported => plain("-j CHECKSUM --checksum-fill".to_owned()),
        ("mangle", 4) => plain(format!("-j DSCP --set-dscp-class {}", r.pick(&["AF11", "EF", "CS7", "BE"]))),
        ("mangle", 5) => {
            plain(format!("-j TOS --{}-tos {:#04x}", r.pick(&["and", "or", "xor", "set"]), r.pick(&[0, 3, 0x10, 0xfc])))
        }
        ("mangle", 6) if place.nat => plain(format!(
            "-j CONNMARK {}",
            r.pick(&[
                "--set-mark 0x5",
                "--and-mark 0x10",
                "--or-mark 0x3",
                "--xor-mark 0xff",
                "--save-mark --nfmask 0xf --ctmask 0xff",
                "--restore-mark --nfmask 0x11 --ctmask 0x1"
            ])
        )),
        ("mangle", 7) => {
            plain("-j HMARK --hmark-tuple src,dst --hmark-mod 8 --hmark-rnd 0x1234".to_owned()).filter(|_| r.chance(20))
        }
        ("filter", 1) => plain(format!("-j NFQUEUE --queue-num {}", r.pick(&[3, 65535]))),
        ("filter", 2) if place.v6 => plain(format!(
            "-j REJECT --reject-with {}",
            r.pick(&["policy-fail", "reject-route", "icmp6-adm-prohibited", "no-route"])
        )),
        ("filter", 2) => plain(format!(
            "-j REJECT --reject-with {}",
            r.pick(&["net-unreach", "host-prohib", "admin-prohib", "proto-unreach"])
        )),
        ("filter", 3) if tcp && place.nat && matches!(place.hook, "INPUT" | "FORWARD") && own == 0 => Some((
            "-j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460".to_owned(),
            part("-m conntrack --ctstate INVALID,UNTRACKED"),
        )),
        ("filter", 4) => plain(format!(
            "-j LOG --log-level {} --log-tcp-options --log-ip-options --log-uid",
            r.pick(&["debug", "warning"])
        )),
        ("filter", 5) => {
            plain("-j NFLOG --nflog-group 6 --nflog-prefix \"a b\" --nflog-size 20 --nflog-threshold 2".to_owned())
        }
        ("filter", 6) if place.focus == Focus::Input && !place.nat => {
            plain(format!("-j TEE --gateway {}", if place.v6 { "fd00:2::5" } else { "10.2.0.5" }))
        }
        ("filter", 7) => {
            plain("-j RATEEST --rateest-name r --rateest-interval 250ms --rateest-ewmalog 500ms".to_owned())
        }
        ("nat", 1 | 2) if own == 0 && !place.v6 => plain(match place.hook {
            "PREROUTING" | "OUTPUT" => {
                let to = r.pick(&["10.2.0.5-10.2.0.9", "10.2.0.6-10.2.0.15 --persistent", "172.16.0.0-172.31.255.255"]);
                if ported && r.chance(60) {
                    format!(
                        "-j DNAT --to-destination {}",
                        r.pick(&["10.2.0.5:1000-1010", "10.2.0.5:5000-5100/1024", "10.2.0.6-10.2.0.9:80", ":8080"])
                    )
                } else if place.focus == Focus::Input {
                    "-j DNAT --to-destination 10.2.0.1".to_owned()
                } else {
                    format!("-j DNAT --to-destination {to}")
                }
            }
            _ => {
                let to = r.pick(&["10.2.0.9-10.2.0.12", "10.2.0.8-10.2.0.15 --persistent", "10.2.0.4-10.2.0.15"]);
                format!("-j SNAT --to-source {to}")
            }
        }),
        ("nat", 1 | 2) if own == 0 => plain(match place.hook {
            "PREROUTING" | "OUTPUT" if place.focus != Focus::Input => {
                format!(
                    "-j DNAT --to-destination {}",
                    r.pick(&["fd00:2::5-fd00:2::9", "fd00:2::5-fd00:2::f --persistent"])
                )
            }
            "POSTROUTING" => "-j SNAT --to-source fd00:2::4-fd00:2::b".to_owned(),
            _ => return None,
        }),
        _ => None,
    }
}

fn target(r: &mut Random, table: &str, place: Place<'_>, own: usize, users: usize, tcp: bool, ported: bool) -> String {
    // A chain calls only later ones, so there are no circles.
    if own < users && r.chance(25) {
        let verb = if r.chance(70) { "j" } else { "g" };
        return format!("-{verb} c{}", own + 1 + r.below(users - own));
    }
    let common = ["-j ACCEPT", "-j RETURN", ""];
    match table {
        "nat" => nat(r, place, own, ported),
        "filter" => match r.below(10) {
            0..3 => "-j ACCEPT".to_owned(),
            3..5 => "-j DROP".to_owned(),
            5 if tcp && r.chance(60) => "-j REJECT --reject-with tcp-reset".to_owned(),
            5 | 6 => reject(r, place.v6),
            7 => "-j RETURN".to_owned(),
            8 => r
                .pick(&[
                    "-j LOG --log-prefix \"a b: \"",
                    "-j NFLOG --nflog-group 5",
                    "-j MARK --set-xmark 0x1/0xffffffff",
                ])
                .to_owned(),
            _ => String::new(),
        },
        "mangle" => match r.below(10) {
            0 => r.pick(&common).to_owned(),
            1 => "-j DROP".to_owned(),
            2..4 => {
                let value = r.pick(&[0u32, 1, 0x10, 0xffff_0001]);
                match r.below(4) {
                    0 => format!("-j MARK --set-xmark {value:#x}/{:#x}", r.pick(&[u32::MAX, 0xff, 0])),
                    1 => format!("-j MARK --and-mark {value:#x}"),
                    2 => format!("-j MARK --or-mark {value:#x}"),
                    _ => format!("-j MARK --xor-mark {value:#x}"),
                }
            }
            4..6 => {
                let name = if place.v6 { "hl" } else { "ttl" };
                let op = r.pick(&["set", "inc", "dec"]);
                format!("-j {} --{name}-{op} {}", name.to_uppercase(), r.pick(&[1, 2, 64, 200]))
            }
            6 => format!("-j DSCP --set-dscp {:#04x}", r.pick(&[0, 1, 46])),
            7 => format!("-j TOS --set-tos {:#04x}/{:#04x}", r.pick(&[0, 0x10, 0xb8]), r.pick(&[0xff, 0x3f, 0x10])),
            8 if place.nat => r
                .pick(&["-j CONNMARK --save-mark", "-j CONNMARK --set-xmark 0x10/0xff", "-j CONNMARK --restore-mark"])
                .to_owned(),
            8 if own == 0 && matches!(place.hook, "FORWARD" | "POSTROUTING") => {
                "-j CLASSIFY --set-class 1:2".to_owned()
            }
            _ => String::new(),
        },
        "raw" if place.nat && r.chance(40) => "-j CT --notrack".to_owned(),
        "raw" | "security" => r.pick(&["-j ACCEPT", "-j RETURN", "", "-j DROP"]).to_owned(),
        _ => r.pick(&common).to_owned(),
    }
}

fn reject(r: &mut Random, v6: bool) -> String {
    let with = if v6 {
        r.pick(&["icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-port-unreachable", ""])
    } else {
        r.pick(&[
            "icmp-net-unreachable",
            "icmp-host-unreachable",
            "icmp-proto-unreachable",
            "icmp-port-unreachable",
            "icmp-net-prohibited",
            "icmp-host-prohibited",
            "icmp-admin-prohibited",
            "",
        ])
    };
    if with.is_empty() { "-j REJECT".to_owned() } else { format!("-j REJECT --reject-with {with}") }
}

/// Targets of the nat table. A chain that several hooks call names none of them.
fn nat(r: &mut Random, place: Place<'_>, own: usize, ported: bool) -> String {
    let plain = r.pick(&["-j ACCEPT", "-j RETURN", ""]).to_owned();
    if own > 0 || r.chance(25) {
        return plain;
    }
    let with = |addr: &str, port: &str| match (place.v6, ported && !port.is_empty()) {
        (true, true) => format!("[{addr}]:{port}"),
        (false, true) => format!("{addr}:{port}"),
        _ => addr.to_owned(),
    };
    let port = r.pick(&["", "8080", "22"]);
    match place.hook {
        "PREROUTING" | "OUTPUT" => {
            let to = match (place.v6, place.focus) {
                (false, Focus::Input) => r.pick(&["10.1.0.1", "10.2.0.1", "10.2.0.6"]),
                (false, _) => r.pick(&["10.2.0.5", "10.2.0.6", "172.16.5.1"]),
                (true, Focus::Input) => r.pick(&["fd00:1::1", "fd00:2::1", "fd00:2::6"]),
                (true, _) => r.pick(&["fd00:2::5", "fd00:2::6", "2001:db8::9"]),
            };
            match r.below(6) {
                0 if place.history => plain,
                0 if place.hook == "PREROUTING" && ported => "-j REDIRECT --to-ports 8081".to_owned(),
                0 if place.hook == "PREROUTING" => "-j REDIRECT".to_owned(),
                1 if place.v6 => "-j NETMAP --to fd00:2::8/125".to_owned(),
                1 => "-j NETMAP --to 10.2.0.4/30".to_owned(),
                _ => format!("-j DNAT --to-destination {}", with(to, port)),
            }
        }
        _ => {
            let to = if place.v6 { r.pick(&["fd00:2::9", "fd00:2::1"]) } else { r.pick(&["10.2.0.9", "10.2.0.1"]) };
            match r.below(6) {
                0 if place.hook == "POSTROUTING" => "-j MASQUERADE".to_owned(),
                1 if place.hook == "POSTROUTING" && ported => "-j MASQUERADE --to-ports 2000".to_owned(),
                2 if place.v6 => "-j NETMAP --to fd00:2::100/120".to_owned(),
                2 => "-j NETMAP --to 10.9.0.0/24".to_owned(),
                _ => format!("-j SNAT --to-source {}", with(to, if port.is_empty() { "" } else { "3000" })),
            }
        }
    }
}
