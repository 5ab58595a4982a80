//! Does the server know the way back, and does its next hop answer?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::Direction;
use super::{Finding, Round, address, gateway, neighbour};
use crate::host::{NudState, Route, RouteKind, RouteResult, fib};

/// The server's own route that decides the way back to the client.
pub(super) fn way_back(round: &Round<'_>) -> Option<Route> {
    let server = round.known.server.as_ref()?;
    fib::explain_route(&server.end.facts, round.known.source?, round.known.address).route
}

/// No way back at all: a finding that says so, or whose rule or route forbids it.
pub(super) fn missing(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let (server, client) = (known.server.as_ref()?, known.source?);
    let RouteResult::Refused { errno } = &server.end.route.as_ref()?.result else { return None };
    if let Some(prefix) = address::wrong_prefix(round, Where::Server) {
        return Some(prefix);
    }
    let said = format!("the server's kernel answers {errno} to `ip route get {client}`");
    let why = fib::explain_route(&server.end.facts, client, known.address);
    let rule = why.rule.filter(crate::host::PolicyRule::refuses);
    if let Some(rule) = rule {
        return Some(
            Finding::new(
                Code::RoutePolicyRule,
                Where::Server,
                rule.to_string(),
                format!("Policy rule `{rule}` of the server refuses answers to {client}."),
            )
            .seen(said, "netlink RTM_GETROUTE on the server")
            .fix("delete the rule", rule.ip_command("del"), rule.ip_command("add")),
        );
    }
    let device = known.address.and_then(|own| server.owns(own)).map(|entry| entry.interface.as_str());
    let request = server.frames.iter().flatten().find(|f| !f.outgoing && known.is_flow(f, Direction::Request));
    let way = gateway::of(server, client, None, request.and_then(|frame| frame.src_mac), device);
    let finding = match why.route.filter(|route| route.kind != RouteKind::Unicast) {
        Some(route) => Finding::new(
            Code::RouteReturnMissing,
            Where::Server,
            route.to_string(),
            format!("Route `{route}` of the server takes the answers to {client}."),
        )
        .fix("delete the route", route.ip_command("del"), route.ip_command("add")),
        None => Finding::new(
            Code::RouteReturnMissing,
            Where::Server,
            format!("a route to {client}"),
            format!("A route back to {client} is missing on the server: requests arrive and answers have no way."),
        )
        .fix(
            format!("add the way back through the server's gateway{}", way.because),
            format!("ip route add {client} via {} dev {}", way.address, way.device),
            format!("ip route del {client} via {} dev {}", way.address, way.device),
        ),
    };
    let drops = ["IpOutNoRoutes", "Ip6OutNoRoutes"]
        .iter()
        .find_map(|name| server.grew(name).filter(|n| *n > 0).map(|n| format!("{name} +{n}")));
    Some(
        finding
            .seen(said, "netlink RTM_GETROUTE on the server")
            .seen_if(drops.map(|drops| super::Observation::new(drops, "nstat on the server"))),
    )
}

pub(super) fn route(round: &mut Round<'_>) {
    let id = "server.route";
    let known = round.known;
    let Some(server) = known.server.as_ref().filter(|_| !known.is_self()) else { return };
    let Some(answer) = &server.end.route else { return };
    // The way back was asked for from an address that the server does not have: the answer says nothing.
    if known.address.is_some_and(|own| server.end.facts.addresses.is_some() && server.owns(own).is_none())
        && matches!(answer.result, RouteResult::Refused { .. })
    {
        return;
    }
    match &answer.result {
        RouteResult::Found { gateway, interface, .. } => {
            let via = gateway.map_or_else(|| "on the link".to_owned(), |gateway| format!("via {gateway}"));
            let out = interface.as_deref().unwrap_or("?");
            let came = server.frames.iter().flatten().find(|f| !f.outgoing && known.is_flow(f, Direction::Request));
            let text = format!("back to {} {via}, dev {out}", answer.destination);
            match came {
                Some(frame) if frame.interface != out && !known.reached() && out != "lo" => {
                    let text = format!("{text}, though requests come in on {}", frame.interface);
                    round.note(Status::Warn, Layer::Route, id, text);
                }
                _ => {
                    round.pass(Layer::Route, id, text.clone());
                    round.rule_out(Code::RouteReturnMissing, format!("the server's kernel has a way {text}"));
                }
            }
        }
        RouteResult::Refused { .. } if known.reached() => {
            round.note(Status::Warn, Layer::Route, id, "the kernel names no way back, yet answers come");
        }
        RouteResult::Refused { errno } => match missing(round) {
            Some(finding) => round.fail(id, finding),
            None => {
                round.note(Status::Warn, Layer::Route, id, format!("no way back: {errno}"));
            }
        },
    }
}

/// Answers that pass the server's filter and never leave, or leave to the wrong station.
pub(super) fn neighbour(round: &mut Round<'_>) {
    let id = "server.neighbour";
    let known = round.known;
    let (Some(server), Some(client)) = (&known.server, known.source) else { return };
    if known.reached() || known.is_self() {
        return;
    }
    let Some(RouteResult::Found { kind: RouteKind::Unicast, gateway, interface, .. }) =
        server.end.route.as_ref().map(|route| &route.result)
    else {
        return;
    };
    let hop = gateway.unwrap_or(client);
    let out = interface.as_deref().unwrap_or("?");
    let entry = server.neighbour(hop);
    let handed = server.through("postrouting", Direction::Reply).map(|(_, last)| last);
    let left = known.on_wire(server, Direction::Reply);
    let wrong_way = || {
        let came = server.frames.iter().flatten().find(|f| !f.outgoing && known.is_flow(f, Direction::Request))?;
        (came.interface != out && out != "lo").then(|| came.interface.clone())
    };
    if handed.is_some_and(|n| n > 0) && left == Some(0) {
        let request = server.frames.iter().flatten().find(|f| !f.outgoing && known.is_flow(f, Direction::Request));
        let right = gateway::of(server, hop, Some(hop), request.and_then(|frame| frame.src_mac), Some(out));
        let state = entry.map_or_else(|| "no entry".to_owned(), |e| format!("{:?}", e.state).to_uppercase());
        let silent = entry.is_none_or(|entry| matches!(entry.state, NudState::Failed | NudState::Incomplete));
        let finding = match wrong_way() {
            Some(came) => astray(round, out, &came, hop),
            None if gateway.is_some() => Finding::new(
                Code::RouteGatewaySilent,
                Where::Server,
                format!("gateway {hop} dev {out}"),
                format!("Gateway {hop} of the server does not answer for its address, so answers cannot leave."),
            )
            .fix(
                format!("correct the server's gateway{}", right.because),
                format!("ip route replace default via {} dev {}", right.address, right.device),
                format!("ip route replace default via {hop} dev {out}"),
            ),
            None => Finding::new(
                Code::NeighNoReply,
                Where::Server,
                hop.to_string(),
                format!(
                    "Client {hop} does not answer the server's request for its address on {out}, so answers cannot leave."
                ),
            ),
        };
        let finding = finding
            .seen(
                format!("{} passed POSTROUTING, 0 left", super::several(handed.unwrap_or(0), "answer")),
                "hook ladder and capture on the server",
            )
            .seen(format!("{hop} dev {out}: {state}"), "netlink RTM_GETNEIGH on the server");
        let confidence = if silent { Confidence::Proven } else { Confidence::Likely };
        let also = finding.also.clone();
        round.fail(id, finding.but(confidence, &also, None));
        return;
    }
    if left.is_some_and(|n| n > 0) && known.on_wire(&known.client, Direction::Reply).is_none_or(|n| n == 0) {
        if gateway.is_none()
            && let (Some(believed), Some(real)) = (entry.and_then(|e| e.mac), client_mac(round))
            && believed != real
        {
            let permanent = entry.is_some_and(|entry| entry.state == NudState::Permanent);
            let finding =
                neighbour::wrong_mac(hop, &believed.to_string(), &real.to_string(), out, permanent, Where::Server);
            round.fail(id, finding);
            return;
        }
        if let Some(came) = wrong_way() {
            let finding = astray(round, out, &came, hop);
            round.fail(id, finding);
            return;
        }
    }
    if let Some(mac) = entry.and_then(|entry| entry.mac) {
        round.pass(Layer::Neighbour, id, format!("{hop} is at {mac}, says the server's table"));
    }
}

/// Answers leave by another interface than the one the requests come in on, and do not arrive.
fn astray(round: &Round<'_>, out: &str, came: &str, hop: std::net::IpAddr) -> Finding {
    let client = round.known.source.map_or_else(|| "the client".to_owned(), |a| a.to_string());
    let finding = Finding::new(
        Code::RouteWrongGateway,
        Where::Server,
        format!("{client} via {hop} dev {out}"),
        format!("A route of the server sends answers to {client} out of {out}, though requests come in on {came}."),
    )
    .but(Confidence::Likely, &[Code::RouteReturnMissing], None);
    match way_back(round) {
        Some(route) => finding.seen(route.to_string(), "netlink RTM_GETROUTE on the server").fix(
            "take the route away",
            route.ip_command("del"),
            route.ip_command("add"),
        ),
        None => finding,
    }
}

/// The hardware address of the client's interface that the flow uses.
fn client_mac(round: &Round<'_>) -> Option<crate::wire::MacAddr> {
    let (_, _, interface) = round.known.way()?;
    round.known.case.client.facts.link(interface?)?.mac
}
