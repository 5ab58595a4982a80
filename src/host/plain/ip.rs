//! What ip(8) prints: links, addresses, routes, rules, neighbours, one route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use crate::host::{
    Address, AddressScope, Link, Neighbour, NextHop, NudState, OperState, PolicyRule, Route, RouteAnswer, RouteKind,
    RouteResult, RuleAction,
};

/// A line's words, taken one by one.
struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Self {
        Self(line.split_whitespace().peekable())
    }

    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn parse<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.0.next()?.parse().ok()
    }
}

/// `2: eth0@if3: <BROADCAST,UP> mtu 1500 … state UP …\    link/ether aa:… brd …`
pub fn links(text: &str) -> Vec<Link> {
    text.lines().filter_map(link).collect()
}

fn link(line: &str) -> Option<Link> {
    let (index, rest) = line.split_once(": ")?;
    let (name, rest) = rest.split_once(": ")?;
    let (flags, rest) = rest.strip_prefix('<')?.split_once('>')?;
    let flags: Vec<&str> = flags.split(',').collect();
    let has = |flag: &str| flags.contains(&flag);
    let (name, parent) = name.split_once('@').map_or((name, None), |(name, parent)| (name, Some(parent)));
    let mut link = Link {
        index: index.trim().parse().ok()?,
        name: name.to_owned(),
        kind: None,
        mac: None,
        mtu: 0,
        up: has("UP"),
        carrier: has("UP").then(|| has("LOWER_UP") && !has("NO-CARRIER")),
        oper: OperState::Unknown,
        loopback: has("LOOPBACK"),
        noarp: has("NOARP"),
        point_to_point: has("POINTOPOINT"),
        master: None,
        parent: parent.and_then(|parent| parent.strip_prefix("if")?.parse().ok()),
        stats: None,
        xdp: rest.contains(" xdp"),
    };
    let mut words = Words::new(rest);
    while let Some(word) = words.next() {
        match word {
            "mtu" => link.mtu = words.parse().unwrap_or(0),
            "state" => {
                link.oper = match words.next()? {
                    "UP" => OperState::Up,
                    "DOWN" => OperState::Down,
                    "LOWERLAYERDOWN" => OperState::LowerLayerDown,
                    "DORMANT" => OperState::Dormant,
                    "NOTPRESENT" => OperState::NotPresent,
                    _ => OperState::Unknown,
                }
            }
            "link/ether" | "\\link/ether" => link.mac = words.parse(),
            _ => {}
        }
    }
    Some(link)
}

/// `2: eth0    inet 192.168.1.3/24 brd … scope global eth0\       valid_lft …`
pub fn addresses(text: &str, links: &[Link]) -> Vec<Address> {
    text.lines().filter_map(|line| address(line, links)).collect()
}

fn address(line: &str, links: &[Link]) -> Option<Address> {
    let (index, rest) = line.split_once(": ")?;
    let mut words = Words::new(rest);
    let interface = words.next()?.to_owned();
    let index = index.trim().parse().ok().or_else(|| Some(links.iter().find(|l| l.name == interface)?.index))?;
    if !matches!(words.next()?, "inet" | "inet6") {
        return None;
    }
    let (address, length) = split(words.next()?)?;
    let mut entry = Address {
        index,
        interface,
        address,
        prefix_len: length,
        peer: None,
        broadcast: None,
        scope: AddressScope::Global,
        tentative: false,
        dad_failed: false,
        deprecated: false,
        secondary: false,
    };
    while let Some(word) = words.next() {
        match word {
            "peer" => {
                let (peer, length) = split(words.next()?)?;
                (entry.peer, entry.prefix_len) = (Some(peer), length);
            }
            "brd" => entry.broadcast = words.parse(),
            "scope" => {
                entry.scope = match words.next()? {
                    "link" => AddressScope::Link,
                    "host" => AddressScope::Host,
                    "site" => AddressScope::Site,
                    _ => AddressScope::Global,
                }
            }
            "tentative" => entry.tentative = true,
            "dadfailed" => entry.dad_failed = true,
            "deprecated" => entry.deprecated = true,
            "secondary" | "temporary" => entry.secondary = true,
            _ => {}
        }
    }
    Some(entry)
}

fn split(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    Some((address, length.map_or(Some(whole), |length| length.parse().ok()).filter(|length| *length <= whole)?))
}

fn network(text: &str, v6: bool) -> Option<IpNetwork> {
    if matches!(text, "default" | "all") {
        let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        return IpNetwork::new(any, 0).ok();
    }
    let (address, length) = split(text)?;
    IpNetwork::new(address, length).ok()
}

fn kind(word: &str) -> Option<RouteKind> {
    Some(match word {
        "unicast" => RouteKind::Unicast,
        "local" => RouteKind::Local,
        "broadcast" => RouteKind::Broadcast,
        "anycast" => RouteKind::Anycast,
        "multicast" => RouteKind::Multicast,
        "blackhole" => RouteKind::Blackhole,
        "unreachable" => RouteKind::Unreachable,
        "prohibit" => RouteKind::Prohibit,
        "throw" => RouteKind::Throw,
        "nat" => RouteKind::Nat,
        _ => return None,
    })
}

fn table(word: &str) -> Option<u32> {
    match word {
        "main" => Some(254),
        "local" => Some(255),
        "default" => Some(253),
        number => number.parse().ok(),
    }
}

/// `default via 10.0.0.1 dev eth0 proto dhcp metric 100`, multipath with its ways on lines of their own.
pub fn routes(text: &str, v6: bool) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for line in text.lines() {
        let mut words = Words::new(line);
        if line.starts_with(char::is_whitespace) {
            if words.next() == Some("nexthop")
                && let Some(route) = routes.last_mut()
            {
                let mut hop = NextHop {
                    gateway: None,
                    interface: None,
                    weight: 1,
                    dead: line.contains(" dead"),
                    linkdown: line.contains(" linkdown"),
                    onlink: line.contains(" onlink"),
                };
                while let Some(word) = words.next() {
                    match word {
                        "via" => hop.gateway = via(&mut words),
                        "dev" => hop.interface = words.next().map(str::to_owned),
                        "weight" => hop.weight = words.parse().unwrap_or(1),
                        _ => {}
                    }
                }
                route.multipath.push(hop);
            }
            continue;
        }
        routes.extend(route(&mut words, v6));
    }
    routes
}

/// `via 10.0.0.1`, `via inet6 fe80::1`.
fn via(words: &mut Words<'_>) -> Option<IpAddr> {
    let first = words.next()?;
    let address = if matches!(first, "inet" | "inet6") { words.next()? } else { first };
    address.parse().ok()
}

fn route(words: &mut Words<'_>, v6: bool) -> Option<Route> {
    let first = words.next()?;
    let (kind, destination) = match kind(first) {
        Some(kind) => (kind, words.next()?),
        None => (RouteKind::Unicast, first),
    };
    let mut route = Route {
        table: 254,
        kind,
        destination: network(destination, v6)?,
        gateway: None,
        interface: None,
        source: None,
        metric: 0,
        protocol: "boot".to_owned(),
        scope: "global".to_owned(),
        mtu: None,
        multipath: Vec::new(),
        dead: false,
        linkdown: false,
        from: None,
        tos: 0,
        preference: None,
        nexthop_id: None,
        onlink: false,
    };
    while let Some(word) = words.next() {
        match word {
            "via" => route.gateway = via(words),
            "dev" => route.interface = words.next().map(str::to_owned),
            "table" => route.table = table(words.next()?)?,
            "proto" => words.next()?.clone_into(&mut route.protocol),
            "scope" => words.next()?.clone_into(&mut route.scope),
            "src" => route.source = words.parse(),
            "metric" => route.metric = words.parse().unwrap_or(0),
            "mtu" => {
                let mut value = words.next()?;
                if value == "lock" {
                    value = words.next()?;
                }
                route.mtu = value.parse().ok();
            }
            "from" => route.from = network(words.next()?, v6),
            "tos" => route.tos = u8::from_str_radix(words.next()?.trim_start_matches("0x"), 16).unwrap_or(0),
            "pref" => route.preference = words.next().map(str::to_owned),
            "nhid" => route.nexthop_id = words.parse(),
            "dead" => route.dead = true,
            "linkdown" => route.linkdown = true,
            "onlink" => route.onlink = true,
            _ => {}
        }
    }
    Some(route)
}

/// `32765: from 10.0.0.0/8 fwmark 0x1/0xff lookup 100`
pub fn rules(text: &str, v6: bool) -> Vec<PolicyRule> {
    text.lines().filter_map(|line| rule(line, v6)).collect()
}

fn rule(line: &str, v6: bool) -> Option<PolicyRule> {
    let (priority, rest) = line.split_once(':')?;
    let mut rule = PolicyRule::for_all(priority.trim().parse().ok()?, v6, RuleAction::Nop);
    let hex = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    };
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    };
    let ports = |word: &str| {
        let (first, last) = range(word)?;
        Some((u16::try_from(first).ok()?, u16::try_from(last).ok()?))
    };
    let mut words = Words::new(rest);
    while let Some(word) = words.next() {
        match word {
            "not" => rule.not = true,
            "from" => rule.from = words.next().filter(|word| *word != "all").and_then(|word| network(word, v6)),
            "to" => rule.to = words.next().filter(|word| *word != "all").and_then(|word| network(word, v6)),
            "iif" => rule.iif = words.next().map(str::to_owned),
            "oif" => rule.oif = words.next().map(str::to_owned),
            "fwmark" => {
                let (value, mask) = words.next().map(|word| word.split_once('/').unwrap_or((word, "0xffffffff")))?;
                rule.fwmark = Some((hex(value)?, hex(mask)?));
            }
            "tos" => rule.tos = u8::from_str_radix(words.next()?.trim_start_matches("0x"), 16).unwrap_or(0),
            "ipproto" => {
                rule.ipproto = match words.next()? {
                    "tcp" => Some(6),
                    "udp" => Some(17),
                    "icmp" => Some(1),
                    "ipv6-icmp" => Some(58),
                    number => number.parse().ok(),
                }
            }
            "sport" => rule.sport = words.next().and_then(ports),
            "dport" => rule.dport = words.next().and_then(ports),
            "uidrange" => rule.uid = words.next().and_then(range),
            "lookup" => rule.action = RuleAction::Table(table(words.next()?)?),
            "goto" => rule.action = RuleAction::Goto(words.parse()?),
            "blackhole" => rule.action = RuleAction::Blackhole,
            "unreachable" => rule.action = RuleAction::Unreachable,
            "prohibit" => rule.action = RuleAction::Prohibit,
            "suppress_prefixlength" => rule.suppress_prefix_len = words.parse(),
            "[detached]" => rule.detached = true,
            "nop" | "proto" | "[unresolved]" => {}
            other => rule.other_selectors.push(other.to_owned()),
        }
    }
    Some(rule)
}

/// `192.168.1.2 dev eth0 lladdr 02:… REACHABLE`
pub fn neighbours(text: &str, proxy: bool) -> Vec<Neighbour> {
    let entry = |line: &str| {
        let mut words = Words::new(line);
        let mut entry = Neighbour {
            interface: String::new(),
            address: words.parse()?,
            mac: None,
            state: NudState::None,
            router: false,
            proxy,
        };
        while let Some(word) = words.next() {
            match word {
                "dev" => words.next()?.clone_into(&mut entry.interface),
                "lladdr" => entry.mac = words.parse(),
                "router" => entry.router = true,
                "proxy" => entry.proxy = true,
                "INCOMPLETE" => entry.state = NudState::Incomplete,
                "REACHABLE" => entry.state = NudState::Reachable,
                "STALE" => entry.state = NudState::Stale,
                "DELAY" => entry.state = NudState::Delay,
                "PROBE" => entry.state = NudState::Probe,
                "FAILED" => entry.state = NudState::Failed,
                "NOARP" => entry.state = NudState::Noarp,
                "PERMANENT" => entry.state = NudState::Permanent,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// The answer of `ip route get TO [from FROM]`; `None` where it says neither a way nor that there is none.
pub fn answer(text: &str, to: IpAddr, from: Option<IpAddr>) -> Option<RouteAnswer> {
    let result = text.lines().find_map(|line| {
        if let Some((_, why)) = line.split_once("answers: ") {
            let errno = match why.trim() {
                "Network is unreachable" => "ENETUNREACH",
                "No route to host" => "EHOSTUNREACH",
                "Permission denied" => "EACCES",
                "Invalid argument" => "EINVAL",
                "Invalid cross-device link" => "EXDEV",
                _ => return None,
            };
            return Some(RouteResult::Refused { errno: errno.to_owned() });
        }
        let mut words = Words::new(line);
        let first = words.next()?;
        let (kind, destination) = kind(first).map_or((RouteKind::Unicast, Some(first)), |kind| (kind, words.next()));
        // A refusing route is printed, too, by an `ip` that asks for the route itself.
        destination?.parse::<IpAddr>().ok()?;
        let (mut gateway, mut interface, mut source, mut table_, mut mtu) = (None, None, None, None, None);
        while let Some(word) = words.next() {
            match word {
                "via" => gateway = via(&mut words),
                "dev" => interface = words.next().map(str::to_owned),
                "src" => source = words.parse(),
                "table" => table_ = words.next().and_then(table),
                "mtu" => mtu = words.parse(),
                _ => {}
            }
        }
        Some(RouteResult::Found { kind, gateway, interface, source: source.or(from), table: table_, mtu })
    })?;
    Some(RouteAnswer { destination: to, asked_from: from, result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_addresses() {
        let text = "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN qlen 1000\\    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00\n\
            2: vb@if2: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1400 qdisc noqueue state LOWERLAYERDOWN mode DEFAULT qlen 1000\\    link/ether 9a:3d:f0:65:3b:45 brd ff:ff:ff:ff:ff:ff link-netns a\n";
        let links = links(text);
        assert_eq!(links.len(), 2);
        assert_eq!(
            (links[1].name.as_str(), links[1].mtu, links[1].up, links[1].carrier),
            ("vb", 1400, true, Some(false))
        );
        assert_eq!(links[1].mac.map(|mac| mac.to_string()).as_deref(), Some("9a:3d:f0:65:3b:45"));
        let text = "2: vb    inet 192.168.1.3/24 brd 192.168.1.255 scope global vb\\       valid_lft forever preferred_lft forever\n\
            2: vb    inet6 fe80::1/64 scope link tentative \\       valid_lft forever\n\
            3: tun0    inet 10.0.0.1 peer 10.0.0.2/32 scope global tun0\\ valid_lft forever\n";
        let addresses = addresses(text, &links);
        assert_eq!(addresses[0].to_string(), "192.168.1.3/24 brd 192.168.1.255 scope global dev vb");
        assert!(addresses[1].tentative);
        assert_eq!(addresses[2].peer, Some("10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn routes_and_rules_are_read_as_they_are_written() {
        for line in [
            "default via 192.168.1.1 dev vb proto dhcp metric 100",
            "blackhole 10.8.0.0/16",
            "192.168.1.0/24 dev vb proto kernel scope link src 192.168.1.3",
            "10.9.0.0/16 via 192.168.1.2 dev vb table 100",
        ] {
            assert_eq!(routes(line, false)[0].to_string(), line);
        }
        let multi =
            routes("10.7.0.0/16 \n\tnexthop via 192.168.1.2 dev vb weight 1 \n\tnexthop dev vb weight 2 \n", false);
        assert_eq!(multi[0].multipath.len(), 2);
        for line in ["32764: from all to 10.2.0.1 fwmark 0x1/0xff prohibit", "32765: from 10.1.0.0/16 lookup 100"] {
            assert_eq!(rules(&line.replace(": ", ":\t"), false)[0].to_string(), line);
        }
    }

    #[test]
    fn one_route_is_found_or_refused() {
        let to: IpAddr = "10.0.0.1".parse().unwrap();
        let found = |text: &str| answer(text, to, None).map(|answer| answer.result);
        assert!(matches!(
            found("10.0.0.1 via 192.168.1.1 dev vb src 192.168.1.3 uid 0 \n    cache \n"),
            Some(RouteResult::Found { kind: RouteKind::Unicast, gateway: Some(_), source: Some(_), .. })
        ));
        assert!(matches!(
            found("local 10.0.0.1 dev lo table local src 10.0.0.1 uid 0 \n"),
            Some(RouteResult::Found { kind: RouteKind::Local, .. })
        ));
        assert_eq!(
            found("RTNETLINK answers: Network is unreachable\n"),
            Some(RouteResult::Refused { errno: "ENETUNREACH".to_owned() })
        );
        assert_eq!(found("sh: ip: not found\n"), None);
    }
}
