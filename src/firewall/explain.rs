//! A rule in one plain sentence.

use std::fmt::Write as _;

use super::names;
use super::ruleset::{
    Base, Chain, CtStates, CtTest, Ext, Hook, Match, NatRange, Net, Order, OwnerTest, Policy, PortRange, Rule, Side,
    Target, TargetExt, TcpFlags, Test,
};

/// A rule of a chain: `TCP packets for this host from 192.168.1.5 to port 53 (DNS) are dropped.`
pub fn rule(chain: &Chain, rule: &Rule) -> String {
    let mut what = "every packet".to_owned();
    let mut parts = Vec::new();
    for m in &rule.matches {
        match &m.test {
            Test::Protocol(number) if !m.negated => what = format!("{} packets", protocol(*number)),
            Test::Comment(_) | Test::Header(_) => (),
            _ => parts.push(of(m)),
        }
    }
    // "Coming in by eth0" says both: at which hook, and by which device.
    let by_name = |part: &String| part.starts_with("arriving by") || part.starts_with("leaving by");
    let said = |base: &Base| matches!(base.hook, Hook::Prerouting | Hook::Postrouting) && parts.iter().any(by_name);
    let base = chain.base.as_ref().filter(|base| !said(base));
    let place = base.map_or(String::new(), |base| format!(" {}", whither(base.hook)));
    let mut sentence = format!("{what}{place}");
    for part in parts {
        sentence.push(' ');
        sentence += &part;
    }
    let mut ends: Vec<String> = rule.statements.iter().map(done).collect();
    match &rule.target {
        Some(target) => ends.push(done(target)),
        None if ends.is_empty() => ends.push("is only counted".to_owned()),
        None => (),
    }
    let plural = what != "every packet";
    let ends: Vec<String> = ends.into_iter().map(|end| if plural { pluralise(&end) } else { end }).collect();
    let _ = write!(sentence, " {}.", ends.join(", then "));
    if let Some(comment) = rule.comment() {
        let _ = write!(sentence, " The comment says: {comment}.");
    }
    let mut chars = sentence.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// A chain's policy in a sentence.
pub fn policy(chain: &Chain) -> Option<String> {
    let base = chain.base.as_ref()?;
    let end = if base.policy == Policy::Accept { "passes" } else { "is dropped without a word" };
    Some(format!("Every packet {} that no rule of {} decides {end}.", whither(base.hook), chain.name))
}

fn whither(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => "from the device",
        Hook::Prerouting => "coming in",
        Hook::Input => "for this host",
        Hook::Forward => "through this host",
        Hook::Output => "from this host",
        Hook::Postrouting => "going out",
        Hook::Egress => "to the device",
    }
}

/// One match, its negation in words.
fn of(m: &Match) -> String {
    let text = test(&m.test);
    if m.negated { format!("except {text}") } else { text }
}

/// A protocol as people say it.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        other => {
            let name = names::protocol_name(other);
            if name.parse::<u8>().is_ok() { format!("protocol {other}") } else { name.to_uppercase() }
        }
    }
}

/// A network: an address alone where it is one.
pub fn net(net: &Net) -> String {
    if net.is_host() { net.addr.to_string() } else { net.to_string() }
}

fn port(range: PortRange) -> String {
    if range.from != range.to {
        return format!("{} to {}", range.from, range.to);
    }
    names::service_name(range.from).map_or_else(|| range.from.to_string(), |name| format!("{} ({name})", range.from))
}

fn ends(side: Side) -> (&'static str, &'static str) {
    match side {
        Side::Source => ("from", "source"),
        Side::Destination => ("to", "destination"),
        Side::Either => ("from or to", "source or destination"),
    }
}

/// What one test asks, without its negation.
pub fn test(test: &Test) -> String {
    match test {
        Test::Source(n) => format!("from {}", net(n)),
        Test::Destination(n) => format!("to {}", net(n)),
        Test::InInterface(iface) => format!("arriving by {iface}"),
        Test::OutInterface(iface) => format!("leaving by {iface}"),
        Test::Protocol(number) => format!("of {}", protocol(*number)),
        Test::Fragment => "being later fragments".to_owned(),
        Test::Header(module) => format!("with a {} header", module.module()),
        Test::Port { side, range, .. } => format!("{} port {}", ends(*side).0, port(*range)),
        Test::Multiport { side, ranges } => {
            let list: Vec<_> = ranges.iter().map(|r| port(*r)).collect();
            format!("{} one of the ports {}", ends(*side).0, list.join(", "))
        }
        Test::TcpFlags { mask, set } if (mask.0, *set) == (0x17, TcpFlags::SYN) => {
            "opening a connection (SYN)".to_owned()
        }
        Test::TcpFlags { mask, set } => format!("with exactly {} set of {}", set.names(), mask.names()),
        Test::TcpOption(option) => format!("with TCP option {option}"),
        Test::Icmp { kind: None, .. } => "of any type".to_owned(),
        Test::Icmp { v6, kind: Some(kind), codes } => match names::icmp_name(*kind, *codes, *v6) {
            Some(name) => format!("of type {name}"),
            None if codes.0 == codes.1 => format!("of type {kind} code {}", codes.0),
            None => format!("of type {kind}"),
        },
        Test::Conntrack { tests, .. } => {
            let list: Vec<_> = tests.iter().map(|(negated, t)| ct(*negated, t)).collect();
            list.join(" and ")
        }
        Test::Mark { value, mask: u32::MAX } => format!("with mark {value:#x}"),
        Test::Mark { value, mask } => format!("with mark {value:#x} under mask {mask:#x}"),
        Test::Connmark { value, mask } => format!("of a connection with mark {value:#x} under mask {mask:#x}"),
        Test::Comment(text) => format!("({text})"),
        Test::IpRange { side, from, to } => format!("{} {from} to {to}", ends(*side).0),
        Test::Mac(mac) => format!("from the card {mac}"),
        Test::AddrType { side, types, .. } => {
            format!("whose {} address is of type {}", ends(*side).1, types.names().to_lowercase())
        }
        Test::Owner(OwnerTest::Uid(from, to)) => format!("of user {}", span(*from, *to)),
        Test::Owner(OwnerTest::Gid(from, to)) => format!("of group {}", span(*from, *to)),
        Test::Owner(OwnerTest::SocketExists) => "of a socket of this host".to_owned(),
        Test::Length { from, to } => format!("of {from} to {to} octets"),
        Test::Ttl { order, value, .. } => {
            let order = match order {
                Order::Eq => "exactly",
                Order::Lt => "less than",
                Order::Gt => "more than",
            };
            format!("with {order} {value} hops left")
        }
        Test::Tos { value, mask } => format!("with TOS {value:#04x} under mask {mask:#04x}"),
        Test::Dscp(value) => format!("with DSCP {value}"),
        Test::PktType(kind) => format!("sent as {}", kind.name()),
        Test::Set { name, sides, .. } => {
            let sides: Vec<_> = sides.iter().map(|side| ends(*side).1).collect();
            format!("whose {} is in the set {name}", sides.join(" and "))
        }
        Test::Stateful { module, options } => match module.as_str() {
            "limit" | "hashlimit" => format!("as long as they are within the limit ({options})"),
            "recent" => format!("by the list of recent addresses ({options})"),
            "statistic" => format!("some of them, by chance or turn ({options})"),
            other => format!("by {other} ({options})"),
        },
        Test::Ext(ext) => extension(ext),
        Test::Compare(_) => format!("with {}", Match::is(test.clone())),
        Test::Unknown { module, options } => {
            format!("that `{}` picks (not known to this program)", format!("{module} {options}").trim())
        }
    }
}

/// The rarer tests: what they look at in words, and their options as they are written.
fn extension(ext: &Ext) -> String {
    let what = match ext {
        Ext::Chunks(_) => "by their SCTP chunks",
        Ext::DccpTypes(_) | Ext::DccpOption(_) => "by their DCCP header",
        Ext::Spi(_) => "by their IPsec header",
        Ext::Ecn(_) => "by their congestion bits",
        Ext::TcpMss(_) => "by the segment size they offer",
        Ext::Osf(_) => "by the system whose SYN it looks like",
        Ext::Frag(_) => "by their fragment header",
        Ext::Ipv6Header(_) | Ext::Rt(_) | Ext::Options(_) | Ext::MobilityHeader(_) | Ext::Srh(_) => {
            "by their IPv6 extension headers"
        }
        Ext::Ipvs(_) => "by what the load balancer does with them",
        Ext::Eui64 => return "whose source address is made of the sender's hardware address".to_owned(),
        Ext::Physdev(_) => "by the bridge's ports they cross",
        Ext::Rpfilter(test) if test.invert => "whose source is not where they came from",
        Ext::Rpfilter(_) => "whose source is where they came from",
        Ext::Socket(_) => "for which a socket of this host is open",
        Ext::Helper(_) => "by the helper of their flow",
        Ext::Cluster(_) => "of which this node of the cluster takes care",
        Ext::Realm(_) => "by the realm of their route",
        Ext::DevGroup(_) => "by the group of their device",
        Ext::Policy(_) => "by what IPsec does with them",
        Ext::Cpu(_) => "by the processor that handles them",
        Ext::Nfacct(name) => return format!("counted in {name}"),
        Ext::Cgroup(_) | Ext::Groups(..) => "by the process that sends them",
        Ext::Connlabel(_) => "by the label of their flow",
        Ext::String(test) if test.negated => "without a certain text in them",
        Ext::String(_) => "with a certain text in them",
        Ext::U32(_) | Ext::Bpf(_) => "by a computation over their octets",
        Ext::Time(_) => "at certain times",
    };
    let options = ext.to_string();
    if options.is_empty() { what.to_owned() } else { format!("{what} ({options})") }
}

fn span(from: u32, to: u32) -> String {
    if from == to { from.to_string() } else { format!("{from} to {to}") }
}

fn ct(negated: bool, test: &CtTest) -> String {
    let not = if negated { "not " } else { "" };
    match test {
        CtTest::State(states) => {
            let words: Vec<_> = CtStates::NAMES
                .iter()
                .filter(|(_, bit)| states.0 & bit != 0)
                .map(|(name, _)| match *name {
                    "NEW" => "a new connection",
                    "ESTABLISHED" => "an established connection",
                    "RELATED" => "one related to another connection",
                    "INVALID" => "no valid connection",
                    "UNTRACKED" => "an untracked connection",
                    "SNAT" => "a connection whose source is translated",
                    _ => "a connection whose destination is translated",
                })
                .collect();
            format!("{not}of {}", words.join(" or "))
        }
        CtTest::Status(statuses) => format!("{not}of a connection with status {}", statuses.names()),
        CtTest::Proto(number) => format!("{not}of a {} connection", protocol(*number)),
        CtTest::Addr { side, net: n, .. } => format!("{not}of a connection with {} {}", ends(*side).1, net(n)),
        CtTest::Port { side, range, .. } => format!("{not}of a connection with {} port {range}", ends(*side).1),
        CtTest::Direction(true) => format!("{not}in the reply direction"),
        CtTest::Direction(false) => format!("{not}in the original direction"),
        CtTest::Expire(range) => format!("{not}of a connection that expires in {range} seconds"),
    }
}

/// What a target does, of one packet.
fn done(target: &Target) -> String {
    match target {
        Target::Accept => "is accepted".to_owned(),
        Target::Drop => "is dropped without a word".to_owned(),
        Target::Reject(with) => format!("is refused with {}", with.name()),
        Target::Return => "goes back to the calling chain, or to the policy".to_owned(),
        Target::Jump(chain) => format!("goes through chain {chain}"),
        Target::Goto(chain) => format!("goes over to chain {chain}"),
        Target::Queue { number, .. } => format!("is handed to the program at queue {number}"),
        Target::Log { .. } | Target::Nflog { .. } => "is logged".to_owned(),
        Target::Mark { value, .. } => format!("is marked {value:#x}"),
        Target::Connmark(_) => "has its connection's mark set or used".to_owned(),
        Target::Notrack => "is not tracked".to_owned(),
        Target::Dnat(range) => format!("gets the destination {}", to(range)),
        Target::Snat(range) => format!("gets the source {}", to(range)),
        Target::Masquerade(_) => "gets the outgoing interface's address as source".to_owned(),
        Target::Redirect(range) => {
            format!("is redirected to this host{}", range.ports.map_or(String::new(), |p| format!(", port {p}")))
        }
        Target::Netmap(n) => format!("is mapped into {n}"),
        Target::Unknown { name, .. } => format!("meets the target {name}, which this program does not know"),
        Target::Ext(TargetExt::Tproxy(_)) => format!("is handed to a local socket, or dropped, with `{target}`"),
        Target::Ext(_) => format!("is treated with `{target}`"),
        Target::VerdictMap(_) => format!("is decided by the map {target}"),
        Target::Tcpmss(_) | Target::Ttl { .. } | Target::Tos { .. } | Target::Ct { .. } | Target::Continue { .. } => {
            format!("is treated with `{target}`")
        }
    }
}

fn to(range: &NatRange) -> String {
    let addr = match range.addrs {
        Some((from, to)) if from == to => from.to_string(),
        Some((from, to)) => format!("{from} to {to}"),
        None => String::new(),
    };
    let ports = range.ports.map_or(String::new(), |ports| format!("port {ports}"));
    [addr, ports].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(" ")
}

/// "is" → "are" and so on, for `… packets`.
fn pluralise(end: &str) -> String {
    for (one, many) in
        [("is ", "are "), ("goes ", "go "), ("gets ", "get "), ("has its ", "have their "), ("meets ", "meet ")]
    {
        if let Some(rest) = end.strip_prefix(one) {
            return format!("{many}{rest}");
        }
    }
    end.to_owned()
}

#[cfg(test)]
mod tests {
    use crate::firewall::parse;
    use crate::firewall::ruleset::Family;
    use crate::host::Backend;

    #[track_caller]
    fn check(rule: &str, expect: &str) {
        let text = format!("*filter\n:INPUT DROP [0:0]\n:u - [0:0]\n-A INPUT {rule}\nCOMMIT\n");
        let ruleset = parse::iptables_save(&text, Family::Ip, Backend::Nft, "t").unwrap().ruleset;
        let chain = &ruleset.tables[0].chains[0];
        assert_eq!(super::rule(chain, &chain.rules[0]), expect);
    }

    #[test]
    fn sentences() {
        check(
            "-s 192.168.1.5 -p udp --dport 53 -j DROP",
            "UDP packets for this host from 192.168.1.5 to port 53 (DNS) are dropped without a word.",
        );
        check("-j u", "Every packet for this host goes through chain u.");
        check(
            "-p udp -m multiport --dports 8888,9999 -j ACCEPT",
            "UDP packets for this host to one of the ports 8888, 9999 are accepted.",
        );
        check(
            "-m conntrack --ctstate ESTABLISHED,RELATED -m comment --comment hi -j ACCEPT",
            "Every packet for this host of one related to another connection or an established connection is accepted. The comment says: hi.",
        );
    }
}
