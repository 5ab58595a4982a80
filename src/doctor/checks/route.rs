//! Does the client know a way?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use std::net::IpAddr;

use super::{Finding, Round, address, gateway};
use crate::host::{RouteKind, RouteResult, fib};

const ID: &str = "client.route";

pub(super) fn client(round: &mut Round<'_>) {
    let known = round.known;
    let (Some(target), Some(answer)) = (known.address, &known.case.client.route) else { return };
    match &answer.result {
        RouteResult::Found { kind: RouteKind::Local, .. } => {
            round.pass(Layer::Route, ID, format!("{target} is local"));
        }
        RouteResult::Found { gateway, interface, source, .. } => {
            let via = gateway.map_or_else(|| "on the link".to_owned(), |gateway| format!("via {gateway}"));
            let device = interface.as_deref().unwrap_or("?");
            let from = source.map_or(String::new(), |source| format!(", from {source}"));
            round.pass(Layer::Route, ID, format!("{target} {via}, dev {device}{from}"));
            round.rule_out(Code::RouteMissing, format!("the kernel has a way: {target} {via} dev {device}"));
        }
        RouteResult::Refused { errno } => {
            let finding = refused(round, errno);
            round.fail(ID, finding);
        }
    }
}

/// The source that the kernel was asked with, where its second look was refused.
fn answer_from(round: &Round<'_>) -> Option<IpAddr> {
    round.known.case.client.route.as_ref()?.asked_from
}

fn refused(round: &Round<'_>, errno: &str) -> Finding {
    let known = round.known;
    let facts = &known.case.client.facts;
    let target = known.address.map_or_else(String::new, |address| address.to_string());
    let why = known.address.map(|to| fib::explain_connect(facts, to, answer_from(round)));
    let rule = why.as_ref().and_then(|why| why.rule.as_ref()).filter(|rule| rule.refuses());
    let route = why.as_ref().and_then(|why| why.route.as_ref());
    let said = format!("the kernel answers {errno} to `ip route get {target}`");
    if let Some(rule) = rule {
        return Finding::new(
            Code::RoutePolicyRule,
            Where::Client,
            rule.to_string(),
            format!("Policy rule `{rule}` of the client refuses packets to {target}."),
        )
        .seen(said, "netlink RTM_GETROUTE")
        .seen(rule.to_string(), "netlink RTM_GETRULE (ip rule)")
        .fix("delete the rule", rule.ip_command("del"), rule.ip_command("add"));
    }
    let typed = match errno {
        "EINVAL" => Some((Code::RouteBlackhole, "drops packets to the target without a word")),
        "EHOSTUNREACH" => Some((Code::RouteUnreachable, "answers that the target cannot be reached")),
        "EACCES" => Some((Code::RouteProhibit, "forbids packets to the target")),
        _ => None,
    };
    if let Some((code, does)) = typed {
        let object = route.map_or_else(|| format!("the route to {target}"), ToString::to_string);
        let finding =
            Finding::new(code, Where::Client, object.clone(), format!("Route `{object}` of the client {does}."))
                .seen(said, "netlink RTM_GETROUTE");
        return match route {
            Some(route) => finding.seen(route.to_string(), "netlink RTM_GETROUTE (ip route)").fix(
                "delete the route",
                route.ip_command("del"),
                route.ip_command("add"),
            ),
            None => finding.but(
                Confidence::Likely,
                &[Code::RoutePolicyRule],
                Some(format!("ip route show table all; ip rule; ip route get {target}")),
            ),
        };
    }
    if let Some(prefix) = address::wrong_prefix(round, Where::Client) {
        return prefix.seen(said, "netlink RTM_GETROUTE");
    }
    let family = if known.address.is_some_and(|a| a.is_ipv6()) { "-6 " } else { "" };
    let device = facts.links.iter().flatten().find(|link| !link.loopback && link.usable());
    let device = device.map(|link| link.name.as_str());
    let any = if family.is_empty() { IpAddr::from([0, 0, 0, 0]) } else { IpAddr::from([0u16; 8]) };
    let way = gateway::of(&known.client, known.address.unwrap_or(any), None, None, device);
    let has_default = facts.routes.iter().flatten().any(|route| {
        route.destination.prefix() == 0
            && route.destination.is_ipv4() != (family == "-6 ")
            && route.kind == RouteKind::Unicast
    });
    let mut finding = Finding::new(
        Code::RouteMissing,
        Where::Client,
        format!("a route to {target}"),
        format!(
            "A route to {target} is missing on the client{}.",
            if has_default { "" } else { "; it has no default route either" }
        ),
    )
    .seen(said, "netlink RTM_GETROUTE")
    .fix(
        format!("add the way to the target's network through the gateway that leads there{}", way.because),
        format!("ip {family}route add {target} via {} dev {}", way.address, way.device),
        format!("ip {family}route del {target} via {} dev {}", way.address, way.device),
    );
    if known.case.server.is_none() {
        finding.also = vec![Code::AddrWrongPrefix];
        finding.next = Some("ip addr; ip route  # is the target meant to be on the client's own link?".to_owned());
    }
    finding
}
