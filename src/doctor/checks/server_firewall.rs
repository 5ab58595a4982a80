//! Does the server's packet filter let the request in and the answer out?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use super::super::evidence::{Direction, Side};
use super::firewall::{Codes, Passage, at, note};
use super::{Finding, Round};

const IN: Codes = Codes { drop: Code::FwServerInputDrop, reject: Code::FwServerInputReject };
const OUT: Codes = Codes { drop: Code::FwServerOutputDrop, reject: Code::FwServerOutputDrop };

/// Up to the routing decision: netdev ingress, raw, connection tracking, mangle.
pub(super) fn before_routing(round: &mut Round<'_>) {
    let id = "server.firewall.prerouting";
    let known = round.known;
    let Some(server) = &known.server else { return };
    if known.reached() || known.is_self() {
        return;
    }
    if let Some((first, last)) = ingress(server)
        && first > 0
        && last == 0
    {
        let finding = Finding::new(
            Code::FwServerInputDrop,
            Where::Server,
            "netdev ingress hook of the server",
            "A rule at the server's ingress hook drops the request before any iptables table sees it.",
        )
        .seen(format!("{first} packets entered the ingress hook, 0 came out"), "hook ladder on the server")
        .but(
            Confidence::Likely,
            &[],
            Some("nft list ruleset netdev; tc filter show dev DEVICE ingress".to_owned()),
        );
        round.fail(id, finding);
        return;
    }
    let full = conntrack_full(server);
    match at(round, server, "prerouting", Direction::Request, &IN) {
        // NAT at this hook changes the very addresses the ladder counts by, so that 0 proves nothing.
        Passage::Taken(finding) if server.firewall.as_ref().is_some_and(|f| f.rewrites(known, Direction::Request)) => {
            let finding = Finding { code: Code::FwNatWrong, confidence: Confidence::Likely, ..*finding };
            round.fail(id, finding);
        }
        Passage::Taken(finding) => match full {
            Some((count, max)) => {
                let table = Finding::new(
                    Code::FwConntrackFull,
                    Where::Server,
                    format!("net.netfilter.nf_conntrack_max={max}"),
                    "The server's connection tracking table is full, so it drops new connections.",
                )
                .seen(
                    format!("{count} of {max} entries in use"),
                    "sysctl net.netfilter.nf_conntrack_count on the server",
                )
                .fix(
                    "make room",
                    format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(2)),
                    format!("sysctl -w net.netfilter.nf_conntrack_max={max}"),
                )
                .but(Confidence::Likely, &[Code::FwServerInputDrop], None);
                round.fail(id, table);
            }
            None => {
                note(round, id, Passage::Taken(finding), "PREROUTING", &IN);
            }
        },
        _ => {}
    }
}

fn ingress(server: &Side<'_>) -> Option<(u64, u64)> {
    let rungs = server.end.watch.ladder.as_deref()?.iter().filter(|rung| rung.hook == "ingress");
    let mut sums = (None, None);
    for rung in rungs {
        let sum: &mut Option<u64> = if rung.priority < 0 { &mut sums.0 } else { &mut sums.1 };
        *sum = Some(sum.unwrap_or(0) + rung.request);
    }
    Some((sums.0?, sums.1?))
}

fn conntrack_full(server: &Side<'_>) -> Option<(i64, i64)> {
    let facts = &server.end.facts;
    let max = facts.sysctl("net.netfilter.nf_conntrack_max")?;
    let count = facts.sysctl("net.netfilter.nf_conntrack_count")?;
    (count >= max && max > 0).then_some((count, max))
}

/// Between PREROUTING and INPUT the kernel decides whether the packet is for this host at all.
pub(super) fn routing(round: &mut Round<'_>) {
    let id = "server.routing";
    let known = round.known;
    let Some(server) = &known.server else { return };
    if known.reached() || known.is_self() {
        return;
    }
    let (Some((_, before)), Some((after, _))) =
        (server.through("prerouting", Direction::Request), server.through("input", Direction::Request))
    else {
        return;
    };
    if before == 0 || after > 0 {
        return;
    }
    let counts = format!("{} passed PREROUTING, 0 entered INPUT", super::several(before, "packet"));
    let forwarded = server.through("forward", Direction::Request).map_or(0, |(first, _)| first);
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let client = known.source.map_or_else(|| "the client".to_owned(), |a| a.to_string());
    let filtered = server.grew("TcpExtIPReversePathFilter").filter(|n| *n > 0);
    let finding = if let Some(n) = filtered {
        let arrived = server.frames.iter().flatten().find(|f| !f.outgoing && known.is_flow(f, Direction::Request));
        let on = arrived.map_or_else(|| "the interface it came in on".to_owned(), |f| f.interface.clone());
        let back = super::return_path::way_back(round);
        let finding = Finding::new(
            Code::RouteRpFilter,
            Where::Server,
            format!("reverse-path filter on {on}"),
            format!("The server's reverse-path filter drops the request: it came in on {on}, and the way back to {client} leads elsewhere."),
        )
        .seen(format!("TcpExtIPReversePathFilter +{n}"), "nstat on the server")
        .seen(counts, "hook ladder on the server");
        match back {
            Some(route) => finding.seen(format!("the way back: {route}"), "netlink RTM_GETROUTE on the server").fix(
                "take away the route that leads answers to the client the wrong way",
                route.ip_command("del"),
                route.ip_command("add"),
            ),
            None => finding.fix(
                format!("correct the server's route to {client} so that it leaves by {on}"),
                String::new(),
                String::new(),
            ),
        }
    } else if forwarded > 0
        || server.owns(known.address.unwrap_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))).is_none()
    {
        Finding::new(
            Code::AddrNone,
            Where::Server,
            target.clone(),
            format!("Address {target} is on no interface of the server, so it does not take the request for its own."),
        )
        .seen(counts, "hook ladder on the server")
        .fix(
            "give the server the address, or correct the target",
            format!("ip addr add {target}/PREFIX dev DEVICE"),
            format!("ip addr del {target}/PREFIX dev DEVICE"),
        )
    } else {
        let reasons: Vec<String> = ["IpInAddrErrors", "IpExtInNoRoutes", "IpInHdrErrors"]
            .iter()
            .filter_map(|name| server.grew(name).filter(|n| *n > 0).map(|n| format!("{name} +{n}")))
            .collect();
        let why = if reasons.is_empty() { "no counter says why".to_owned() } else { reasons.join(", ") };
        // fib_validate_source(): a source the server has no valid way to is a martian, dropped here.
        if let Some(finding) = super::return_path::missing(round) {
            finding.seen(counts, "hook ladder on the server").seen(why, "nstat on the server")
        } else {
            Finding::new(
                Code::RouteReturnMissing,
                Where::Server,
                "routing decision of the server",
                format!("The server's routing decision drops the request from {client}."),
            )
            .seen(counts, "hook ladder on the server")
            .seen(why, "nstat on the server")
            .but(
                Confidence::Likely,
                &[Code::RouteRpFilter, Code::RoutePolicyRule],
                Some(format!("ip route get {client}; ip rule")),
            )
        }
    };
    round.fail(id, finding);
}

/// INPUT.
pub(super) fn input(round: &mut Round<'_>) {
    let id = "server.firewall.input";
    let known = round.known;
    let Some(server) = &known.server else { return };
    if known.reached() {
        round.pass(Layer::Firewall, id, "INPUT lets the request in");
        return;
    }
    let passage = at(round, server, "input", Direction::Request, &IN);
    note(round, id, passage, "INPUT", &IN);
}

/// OUTPUT and POSTROUTING.
pub(super) fn output(round: &mut Round<'_>) {
    let id = "server.firewall.output";
    let known = round.known;
    let Some(server) = &known.server else { return };
    if known.reached() {
        round.pass(Layer::Firewall, id, "OUTPUT lets the answer out");
        return;
    }
    // Unwatched, the rules alone decide; they may only speak if the request is known to have come in.
    match at(round, server, "output", Direction::Reply, &OUT) {
        Passage::Passed { seen } => {
            let after = at(round, server, "postrouting", Direction::Reply, &OUT);
            let passage = if matches!(after, Passage::Taken(_)) { after } else { Passage::Passed { seen } };
            note(round, id, passage, "OUTPUT", &OUT);
        }
        passage => {
            note(round, id, passage, "OUTPUT", &OUT);
        }
    }
}
