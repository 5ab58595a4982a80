//! Addresses, routes, rules and neighbours in the syntax of ip(8), so that what is shown can be
//! found in, and typed into, that tool.

use std::fmt::{self, Display, Formatter};

use ipnetwork::IpNetwork;

use super::{Address, AddressScope, Neighbour, NextHop, NudState, PolicyRule, Route, RouteKind, RuleAction};

/// The name of a routing table: `main`, `local`, `default`, else its number.
pub fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        number => number.to_string(),
    }
}

/// `default`, `10.0.0.0/8`, `10.0.0.1`.
struct Prefix<'a>(&'a IpNetwork, &'static str);

impl Display for Prefix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(network, everything) = self;
        let whole = if network.is_ipv4() { 32 } else { 128 };
        match network.prefix() {
            0 if network.ip().is_unspecified() => f.write_str(everything),
            length if length == whole => write!(f, "{}", network.ip()),
            length => write!(f, "{}/{length}", network.ip()),
        }
    }
}

impl Display for RouteKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Anycast => "anycast",
            Self::Multicast => "multicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
            Self::Nat => "nat",
            Self::Other => "other",
        })
    }
}

/// `default via 192.168.1.1 dev eth0 proto dhcp metric 100`; the table is named unless it is main.
impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{} ", self.kind)?;
        }
        write!(f, "{}", Prefix(&self.destination, "default"))?;
        if let Some(from) = &self.from {
            write!(f, " from {}", Prefix(from, "default"))?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        // A multipath route has its ways at the end.
        if let Some(id) = self.nexthop_id {
            write!(f, " nhid {id}")?;
        }
        if let Some(gateway) = self.gateway {
            via(f, gateway, self.destination.is_ipv4())?;
        }
        if let Some(interface) = &self.interface {
            write!(f, " dev {interface}")?;
        }
        if self.table != 254 {
            write!(f, " table {}", table_name(self.table))?;
        }
        if self.protocol != "boot" {
            write!(f, " proto {}", self.protocol)?;
        }
        if self.scope != "global" {
            write!(f, " scope {}", self.scope)?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        // IPv6 routes always have one.
        if self.metric != 0 || self.destination.is_ipv6() {
            write!(f, " metric {}", self.metric)?;
        }
        if self.multipath.is_empty() {
            hop_flags(f, self.dead, self.onlink, self.linkdown)?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(preference) = &self.preference {
            write!(f, " pref {preference}")?;
        }
        for hop in &self.multipath {
            write!(f, " nexthop{}", Hop(hop, self.destination.is_ipv4()))?;
        }
        Ok(())
    }
}

struct Hop<'a>(&'a NextHop, bool);

impl Display for Hop<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(hop, v4) = self;
        if let Some(gateway) = hop.gateway {
            via(f, gateway, *v4)?;
        }
        if let Some(interface) = &hop.interface {
            write!(f, " dev {interface}")?;
        }
        write!(f, " weight {}", hop.weight)?;
        hop_flags(f, hop.dead, hop.onlink, hop.linkdown)
    }
}

fn via(f: &mut Formatter<'_>, gateway: std::net::IpAddr, v4: bool) -> fmt::Result {
    // A gateway of the other family is named with it (RFC 5549).
    let family = match (v4, gateway.is_ipv4()) {
        (true, false) => "inet6 ",
        (false, true) => "inet ",
        _ => "",
    };
    write!(f, " via {family}{gateway}")
}

fn hop_flags(f: &mut Formatter<'_>, dead: bool, onlink: bool, linkdown: bool) -> fmt::Result {
    for (set, word) in [(dead, "dead"), (onlink, "onlink"), (linkdown, "linkdown")] {
        if set {
            write!(f, " {word}")?;
        }
    }
    Ok(())
}

impl Route {
    /// The `ip route add` or `ip route del` that makes or removes exactly this route.
    pub fn ip_command(&self, verb: &str) -> String {
        let family = if self.destination.is_ipv4() { "" } else { "-6 " };
        // What the kernel only reports cannot be given back to it.
        let words = self.to_string().replace(" dead", "").replace(" linkdown", "");
        format!("ip {family}route {verb} {words}")
    }
}

impl PolicyRule {
    /// Whether packets that it selects are refused, whatever the tables say.
    pub fn refuses(&self) -> bool {
        matches!(self.action, RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit)
    }

    /// The `ip rule add` or `ip rule del` that makes or removes exactly this rule.
    pub fn ip_command(&self, verb: &str) -> String {
        let family = if self.v6 { "-6 " } else { "" };
        let shown = self.to_string();
        let words = shown.split_once(':').map_or("", |(_, words)| words).replace(" [detached]", "");
        format!("ip {family}rule {verb} priority {}{words}", self.priority)
    }
}

/// `32765: from 10.0.0.0/8 fwmark 0x1/0xff lookup 100`.
impl Display for PolicyRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} from ", self.priority, if self.not { " not" } else { "" })?;
        match &self.from {
            Some(from) => write!(f, "{}", Prefix(from, "all"))?,
            None => f.write_str("all")?,
        }
        if let Some(to) = &self.to {
            write!(f, " to {}", Prefix(to, "all"))?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        match self.fwmark {
            Some((mark, u32::MAX)) => write!(f, " fwmark {mark:#x}")?,
            Some((mark, mask)) => write!(f, " fwmark {mark:#x}/{mask:#x}")?,
            None => {}
        }
        for (word, interface) in [("iif", &self.iif), ("oif", &self.oif)] {
            if let Some(interface) = interface {
                write!(f, " {word} {interface}")?;
            }
        }
        if self.detached {
            f.write_str(" [detached]")?;
        }
        if let Some((first, last)) = self.uid {
            write!(f, " uidrange {first}-{last}")?;
        }
        match self.ipproto {
            Some(6) => f.write_str(" ipproto tcp")?,
            Some(17) => f.write_str(" ipproto udp")?,
            Some(1) => f.write_str(" ipproto icmp")?,
            Some(58) => f.write_str(" ipproto ipv6-icmp")?,
            Some(number) => write!(f, " ipproto {number}")?,
            None => {}
        }
        for (word, range) in [("sport", self.sport), ("dport", self.dport)] {
            match range {
                Some((first, last)) if first == last => write!(f, " {word} {first}")?,
                Some((first, last)) => write!(f, " {word} {first}-{last}")?,
                None => {}
            }
        }
        for selector in &self.other_selectors {
            write!(f, " {selector}")?;
        }
        match self.action {
            // The table of an l3mdev rule is the device's own.
            RuleAction::Table(0) => Ok(()),
            RuleAction::Table(table) => write!(f, " lookup {}", table_name(table)),
            RuleAction::Goto(priority) => write!(f, " goto {priority}"),
            RuleAction::Nop => f.write_str(" nop"),
            RuleAction::Blackhole => f.write_str(" blackhole"),
            RuleAction::Unreachable => f.write_str(" unreachable"),
            RuleAction::Prohibit => f.write_str(" prohibit"),
        }?;
        match self.suppress_prefix_len {
            Some(length) => write!(f, " suppress_prefixlength {length}"),
            None => Ok(()),
        }
    }
}

impl Display for NudState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "INCOMPLETE",
            Self::Reachable => "REACHABLE",
            Self::Stale => "STALE",
            Self::Delay => "DELAY",
            Self::Probe => "PROBE",
            Self::Failed => "FAILED",
            Self::Noarp => "NOARP",
            Self::Permanent => "PERMANENT",
            Self::None => "NONE",
        })
    }
}

/// `192.168.1.1 dev eth0 lladdr 02:00:c0:a8:01:01 REACHABLE`.
impl Display for Neighbour {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.interface)?;
        if let Some(mac) = self.mac {
            write!(f, " lladdr {mac}")?;
        }
        if self.router {
            f.write_str(" router")?;
        }
        // An address answered for on another's behalf has no state.
        if self.proxy { f.write_str(" proxy") } else { write!(f, " {}", self.state) }
    }
}

impl Display for AddressScope {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Site => "site",
            Self::Link => "link",
            Self::Host => "host",
            Self::Nowhere => "nowhere",
        })
    }
}

/// `192.168.1.2/24 brd 192.168.1.255 scope global dev eth0`, and what keeps it from use.
impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(peer) = self.peer {
            write!(f, " peer {peer}")?;
        }
        write!(f, "/{}", self.prefix_len)?;
        if let Some(broadcast) = self.broadcast {
            write!(f, " brd {broadcast}")?;
        }
        write!(f, " scope {} dev {}", self.scope, self.interface)?;
        for (set, word) in [
            (self.secondary, if self.address.is_ipv4() { "secondary" } else { "temporary" }),
            (self.tentative, "tentative"),
            (self.dad_failed, "dadfailed"),
            (self.deprecated, "deprecated"),
        ] {
            if set {
                write!(f, " {word}")?;
            }
        }
        Ok(())
    }
}
