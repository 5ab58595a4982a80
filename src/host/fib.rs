//! Why a packet goes where it goes: the walk over policy rules and tables that the kernel makes
//! (`net/core/fib_rules.c`, `net/ipv4/fib_trie.c`, `net/ipv6/ip6_fib.c`), over facts.
//!
//! The kernel's own answer ([`super::RouteAnswer`]) is the truth about *where*; this says *because
//! of which rule and route*, and what nearly decided instead.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::show::table_name;
use super::{HostFacts, PolicyRule, Route, RouteKind, RuleAction};

/// What of a packet decides its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow<'a> {
    /// Where it goes.
    pub dst: IpAddr,
    /// Where it is from; `None` while the kernel has not chosen yet.
    pub src: Option<IpAddr>,
    /// Its mark, 0 where nobody sets one.
    pub mark: u32,
    /// The interface it came in by; `None` for one that is sent from here.
    pub iif: Option<&'a str>,
    /// The interface its socket is bound to.
    pub oif: Option<&'a str>,
    /// IP protocol number, where it is known.
    pub protocol: Option<u8>,
    /// Source and destination port, where they are known.
    pub ports: Option<(u16, u16)>,
    /// User id of the sender, where it is known.
    pub uid: Option<u32>,
}

impl Flow<'_> {
    /// One sent from here to `dst`, of which nothing else is known.
    pub fn to(dst: IpAddr) -> Self {
        Self { dst, src: None, mark: 0, iif: None, oif: None, protocol: None, ports: None, uid: None }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteVerdict {
    /// It is sent: to the route's gateway, or on the link itself.
    Sent,
    /// It is for this host.
    Local,
    /// It goes to all on a link.
    Broadcast,
    /// It goes to a group.
    Multicast,
    /// Dropped without a word (`EINVAL` to who sends it from here).
    Blackhole,
    /// Refused: host unreachable (`EHOSTUNREACH`).
    Unreachable,
    /// Refused: prohibited (`EACCES`).
    Prohibit,
    /// No rule and no table knows a way (`ENETUNREACH`).
    NoRoute,
    /// Something that is not known decides; the notes say what.
    Unknown,
}

impl RouteVerdict {
    /// The errno that connect(2) gives for it on this host; `None` where it is sent, or not known.
    pub fn errno(self) -> Option<&'static str> {
        match self {
            Self::Sent | Self::Local | Self::Broadcast | Self::Multicast | Self::Unknown => None,
            Self::Blackhole => Some("EINVAL"),
            Self::Unreachable => Some("EHOSTUNREACH"),
            Self::Prohibit => Some("EACCES"),
            Self::NoRoute => Some("ENETUNREACH"),
        }
    }
}

/// Which rule and route decide, and what nearly did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteExplanation {
    /// What becomes of the packet.
    pub verdict: RouteVerdict,
    /// The policy rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<PolicyRule>,
    /// The route that decided; `None` where a rule did by itself, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The walk in words, in its order: what was passed over and why.
    pub notes: Vec<String>,
}

/// Explains the way of a packet sent from this host, without a mark.
///
/// Without `src` this is the first of the two looks a connect(2) takes; [`explain_connect`] takes both.
pub fn explain_route(facts: &HostFacts, dst: IpAddr, src: Option<IpAddr>) -> RouteExplanation {
    explain_flow(facts, &Flow { src, ..Flow::to(dst) })
}

/// Explains the way of a connection opened from this host: the kernel looks for a way, takes the
/// source address that suits it, and looks again *with* that source, where a policy rule on sources
/// may decide otherwise (`include/net/route.h` ip_route_connect).
///
/// `chosen` is the source the kernel takes (from its own answer), where it is known.
pub fn explain_connect(facts: &HostFacts, dst: IpAddr, chosen: Option<IpAddr>) -> RouteExplanation {
    let first = explain_route(facts, dst, None);
    if first.verdict != RouteVerdict::Sent {
        return first;
    }
    let Some(source) = chosen.or_else(|| source_for(facts, &first)) else { return first };
    let mut second = explain_route(facts, dst, Some(source));
    if (second.verdict, &second.route) != (first.verdict, &first.route) {
        let way = first.route.as_ref().map(|route| format!(" by `{route}`")).unwrap_or_default();
        second.notes.insert(0, format!("a first look without a source finds a way{way} and the source {source}"));
    }
    second
}

/// Explains the way of a packet.
pub fn explain_flow(facts: &HostFacts, flow: &Flow<'_>) -> RouteExplanation {
    Walk { facts, flow, notes: Vec::new(), doubt: false }.run()
}

/// The routes that cover `dst`, of all tables: by table, then longest prefix, then metric. For those
/// who want to show what there is.
pub fn covering(facts: &HostFacts, dst: IpAddr) -> Vec<&Route> {
    let mut routes: Vec<&Route> =
        facts.routes.iter().flatten().filter(|route| route.destination.contains(dst)).collect();
    routes.sort_by_key(|route| (route.table, u8::MAX - route.destination.prefix(), route.metric));
    routes
}

/// The source address a route suggests, or the first fitting one of its interface.
pub(crate) fn source_for(facts: &HostFacts, explained: &RouteExplanation) -> Option<IpAddr> {
    let route = explained.route.as_ref()?;
    if route.source.is_some() {
        return route.source;
    }
    let hop = route.multipath.iter().find(|hop| !hop.dead);
    let interface = route.interface.as_ref().or_else(|| hop?.interface.as_ref())?;
    let next = route.gateway.or_else(|| hop?.gateway);
    let v4 = route.destination.is_ipv4();
    let mut own = facts.addresses.iter().flatten().filter(|address| {
        address.interface == *interface
            && address.address.is_ipv4() == v4
            && address.scope == super::AddressScope::Global
            && !(address.tentative || address.dad_failed || address.secondary && v4)
    });
    // The address that shares a prefix with the next hop, else the first (`net/ipv4/devinet.c`
    // inet_select_addr). IPv6 chooses by RFC 6724, of which this is the common case only.
    let first = own.clone().next();
    own.find(|address| next.is_some_and(|next| address.on_link(next))).or(first).map(|address| address.address)
}

/// Whether a rule takes the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    Perhaps(String),
}

struct Walk<'a> {
    facts: &'a HostFacts,
    flow: &'a Flow<'a>,
    notes: Vec<String>,
    /// A rule that perhaps applies was passed over, so that what comes later is not certain.
    doubt: bool,
}

impl Walk<'_> {
    fn run(mut self) -> RouteExplanation {
        if self.facts.routes.is_none() {
            self.notes.push("the routes of this host were not seen".to_owned());
            return self.answer(RouteVerdict::Unknown, None, None);
        }
        if let (IpAddr::V4(dst), Some(src), None) = (self.flow.dst, self.flow.src, self.flow.oif)
            && (dst.is_multicast() || dst.is_broadcast())
        {
            // `net/ipv4/route.c` ip_route_output_key_hash_rcu: no table is asked.
            self.notes.push(format!("a group is reached by the interface that has the source {src}"));
            let verdict = if dst.is_multicast() { RouteVerdict::Multicast } else { RouteVerdict::Broadcast };
            return self.answer(verdict, None, None);
        }
        let rules = self.rules();
        let mut position = 0;
        while let Some(rule) = rules.get(position) {
            position += 1;
            match self.fits(rule) {
                Fit::No => continue,
                Fit::Perhaps(why) => {
                    self.perhaps(rule, &why);
                    continue;
                }
                Fit::Yes => {}
            }
            let (verdict, route) = match rule.action {
                RuleAction::Nop => continue,
                RuleAction::Goto(priority) => {
                    // The first rule of that priority; forward only, so this ends.
                    match rules.iter().position(|other| other.priority >= priority) {
                        Some(target) if target >= position => position = target,
                        _ => {}
                    }
                    continue;
                }
                RuleAction::Blackhole => (RouteVerdict::Blackhole, None),
                // Unlike the route of that name, a rule gives ENETUNREACH (`net/ipv4/fib_rules.c`).
                RuleAction::Unreachable => (RouteVerdict::NoRoute, None),
                RuleAction::Prohibit => (RouteVerdict::Prohibit, None),
                RuleAction::Table(table) => match self.look_up(table, rule) {
                    Some((verdict, route)) => (verdict, Some(route)),
                    None => continue,
                },
            };
            return self.answer(verdict, Some(rule.clone()), route);
        }
        if self.notes.is_empty() {
            self.notes.push("no route of any table that a policy rule names covers it".to_owned());
        }
        if let (Some(oif), true) = (self.flow.oif, self.flow.dst.is_ipv4()) {
            // `net/ipv4/route.c` ip_route_output_key_hash_rcu: "Apparently, routing tables are wrong".
            self.notes.push(format!("no route leaves by {oif}, to which it is bound: taken as on that link"));
            return self.answer(RouteVerdict::Sent, None, None);
        }
        self.answer(RouteVerdict::NoRoute, None, None)
    }

    /// Passes over a rule that may apply. It casts doubt on what follows only if it would decide.
    fn perhaps(&mut self, rule: &PolicyRule, why: &str) {
        let decides = match rule.action {
            RuleAction::Nop => false,
            // Table 0 stands for that of a device (l3mdev), which is not known from the rule.
            RuleAction::Table(table) if table != 0 => self.look_up(table, rule).is_some(),
            _ => true,
        };
        if decides {
            self.notes.push(format!("rule `{rule}` may or may not apply: {why}"));
            self.doubt = true;
        }
    }

    fn answer(self, verdict: RouteVerdict, rule: Option<PolicyRule>, route: Option<Route>) -> RouteExplanation {
        let verdict = if self.doubt { RouteVerdict::Unknown } else { verdict };
        RouteExplanation { verdict, rule, route, notes: self.notes }
    }

    /// The rules of the packet's family in their order; the kernel's own where none were seen.
    fn rules(&mut self) -> Vec<PolicyRule> {
        let v6 = self.flow.dst.is_ipv6();
        if let Some(rules) = &self.facts.rules {
            let mut rules: Vec<_> = rules.iter().filter(|rule| rule.v6 == v6).cloned().collect();
            rules.sort_by_key(|rule| rule.priority);
            return rules;
        }
        self.notes.push("the policy rules were not seen; the kernel's own ones are assumed".to_owned());
        PolicyRule::builtin(v6)
    }

    /// `fib_rule_match` and `fib4_rule_match`/`fib6_rule_match`. A selector on what is not known fits perhaps.
    fn fits(&self, rule: &PolicyRule) -> Fit {
        let flow = self.flow;
        let mut open: Vec<String> = rule.other_selectors.clone();
        open.retain(|selector| !selector.starts_with("suppress_ifgroup"));
        // A packet that is sent from here has the loopback as its input interface.
        let iif = flow.iif.unwrap_or("lo");
        let mut sure = !rule.detached
            && rule.iif.as_deref().is_none_or(|wanted| wanted == iif)
            && rule.oif.as_deref().is_none_or(|wanted| flow.oif == Some(wanted))
            && rule.to.is_none_or(|network| network.contains(flow.dst))
            && rule.from.is_none_or(|network| match flow.src {
                Some(src) => network.contains(src),
                // All zeros is what the kernel compares while no source is chosen.
                None => network.prefix() == 0,
            })
            && rule.fwmark.is_none_or(|(mark, mask)| (mark ^ flow.mark) & mask == 0);
        if rule.tos != 0 {
            open.push(format!("tos {:#04x}", rule.tos));
        }
        for (wanted, known, name) in [
            (rule.uid.map(|(a, b)| (u64::from(a), u64::from(b))), flow.uid.map(u64::from), "the sender's user id"),
            (rule.ipproto.map(|p| (p.into(), p.into())), flow.protocol.map(u64::from), "the protocol"),
            (wide(rule.sport), flow.ports.map(|(sport, _)| sport.into()), "the source port"),
            (wide(rule.dport), flow.ports.map(|(_, dport)| dport.into()), "the destination port"),
        ] {
            match (wanted, known) {
                (Some((first, last)), Some(known)) => sure &= (first..=last).contains(&known),
                (Some(_), None) => open.push(name.to_owned()),
                (None, _) => {}
            }
        }
        match (sure, open.is_empty(), rule.not) {
            (true, true, false) | (false, _, true) => Fit::Yes,
            (false, _, false) | (true, true, true) => Fit::No,
            (true, false, _) => Fit::Perhaps(format!("it depends on {}", open.join(", "))),
        }
    }

    /// The route of a table that takes the packet; `None` to go on with the next rule.
    fn look_up(&mut self, table: u32, rule: &PolicyRule) -> Option<(RouteVerdict, Route)> {
        let flow = self.flow;
        let mut covering: Vec<&Route> = self
            .facts
            .routes
            .iter()
            .flatten()
            .filter(|route| route.table == table && route.destination.contains(flow.dst))
            .collect();
        // Longest prefix, then the more special TOS, then the lowest metric; equal ones keep their order.
        covering.sort_by_key(|route| (u8::MAX - route.destination.prefix(), u8::MAX - route.tos, route.metric));
        let mut passed: Vec<String> = Vec::new();
        let mut chosen = None;
        for route in covering {
            if chosen.is_some() {
                // The nearest of those that lost is worth naming; the rest follows from it.
                passed.push(format!("`{route}` covers it too, and gives way to a {}", Self::better(route, chosen)));
                break;
            }
            match self.usable(route) {
                Ok(()) => chosen = Some(route),
                Err(why) => passed.push(format!("`{route}` is passed over: {why}")),
            }
        }
        self.notes.append(&mut passed);
        let Some(route) = chosen else {
            // Main and the rules' own tables are worth a word; that local knows nothing is usual.
            if table != 255 && table != 253 {
                self.notes.push(format!("table {} has no route for it", table_name(table)));
            }
            return None;
        };
        let verdict = match route.kind {
            // IPv4 knows these by the address, whatever the route (`net/ipv4/route.c` __mkroute_output).
            RouteKind::Unicast => match flow.dst {
                IpAddr::V4(dst) if dst.is_broadcast() => RouteVerdict::Broadcast,
                IpAddr::V4(dst) if dst.is_multicast() => RouteVerdict::Multicast,
                _ => RouteVerdict::Sent,
            },
            RouteKind::Local | RouteKind::Anycast => RouteVerdict::Local,
            RouteKind::Broadcast => RouteVerdict::Broadcast,
            RouteKind::Multicast => RouteVerdict::Multicast,
            RouteKind::Blackhole => RouteVerdict::Blackhole,
            RouteKind::Unreachable => RouteVerdict::Unreachable,
            RouteKind::Prohibit => RouteVerdict::Prohibit,
            RouteKind::Throw => {
                self.notes.push(format!("`{route}` sends it on to the next rule"));
                return None;
            }
            RouteKind::Nat | RouteKind::Other => RouteVerdict::Unknown,
        };
        let sends = matches!(verdict, RouteVerdict::Sent | RouteVerdict::Local | RouteVerdict::Broadcast);
        if let Some(length) = rule.suppress_prefix_len
            && sends
            && u32::from(route.destination.prefix()) <= length
        {
            self.notes.push(format!("`{route}` does not count for rule `{rule}`, which suppresses prefixes so short"));
            return None;
        }
        Some((verdict, route.clone()))
    }

    fn better(loser: &Route, winner: Option<&Route>) -> String {
        match winner {
            Some(winner) if winner.destination.prefix() > loser.destination.prefix() => {
                format!("longer prefix (/{} over /{})", winner.destination.prefix(), loser.destination.prefix())
            }
            Some(winner) if winner.metric < loser.metric => {
                format!("lower metric ({} under {})", winner.metric, loser.metric)
            }
            _ => "route before it".to_owned(),
        }
    }

    /// Whether the kernel takes a covering route, or why not.
    fn usable(&self, route: &Route) -> Result<(), String> {
        let flow = self.flow;
        if route.dead {
            return Err("the kernel has marked it dead (its interface is down, or has no carrier)".to_owned());
        }
        if route.tos != 0 {
            return Err(format!("it is for packets with tos {:#04x} only", route.tos));
        }
        if let Some(from) = route.from
            && !flow.src.is_some_and(|src| from.contains(src))
        {
            return Err(format!("it is for packets from {from} only"));
        }
        // Only ways out are compared with the socket's interface, and `local` routes are not.
        if let Some(oif) = flow.oif
            && route.kind == RouteKind::Unicast
        {
            let by_hop = route.multipath.iter().any(|hop| hop.interface.as_deref() == Some(oif));
            if route.interface.as_deref() != Some(oif) && !by_hop {
                return Err(format!("it does not leave by {oif}"));
            }
        }
        Ok(())
    }
}

fn wide(range: Option<(u16, u16)>) -> Option<(u64, u64)> {
    range.map(|(first, last)| (first.into(), last.into()))
}

#[cfg(test)]
mod tests;
