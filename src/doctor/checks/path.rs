//! Do packets cross what lies between?

use std::net::IpAddr;

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::{Direction, Side, icmp_error, is_time_exceeded};
use super::neighbour::{real_mac, wrong_mac};
use super::{Finding, Observation, Round, several};
use crate::host::NudState;

/// Codes that a silent loss behind a router may be.
const SILENT: &[Code] = &[
    Code::RouteForwardingOff,
    Code::RouteWrongGateway,
    Code::RouteBlackhole,
    Code::RouteMissing,
    Code::FwConntrackFull,
    Code::FwConntrackInvalid,
    Code::PathLoss,
];

pub(super) fn forward(round: &mut Round<'_>) {
    let id = "path.request";
    let known = round.known;
    if known.trial().is_none() || known.is_self() || known.way().is_none() {
        return;
    }
    if known.reached() {
        if let Some(server) = &known.server
            && let Some(n) = arrived(round, server)
            && n > 0
        {
            round.pass(Layer::Path, id, format!("{} arrived at the server", several(n, "packet")));
        }
        return;
    }
    if let Some(finding) = server_off(round) {
        round.fail(id, finding);
        return;
    }
    // An error from a router or host on the way speaks for itself, whoever watches.
    if let Some(finding) = by_icmp(round) {
        round.fail(id, finding);
        return;
    }
    if let Some(finding) = by_forged_reset(round) {
        round.fail(id, finding);
        return;
    }
    let Some(server) = &known.server else { return };
    let left = known.on_wire(&known.client, Direction::Request);
    match (left, arrived(round, server)) {
        (_, Some(n)) if n > 0 => {
            round.pass(Layer::Path, id, format!("{} arrived at the server", several(n, "packet")));
            for code in [Code::FwPathDrop, Code::PathHostDown] {
                round.rule_out(code, format!("{} of the request arrived at the server", several(n, "packet")));
            }
        }
        (left, Some(_)) if left.is_none_or(|n| n > 0) => {
            let finding = lost_forward(round, left);
            round.fail(id, finding);
        }
        (Some(0), _) => {
            round.note(Status::Skip, Layer::Path, id, "no packet left the client");
        }
        _ => {
            round.note(Status::Skip, Layer::Path, id, "neither end could be watched");
        }
    }
}

/// The server's own interface is off: whatever routers say of it, that is why.
fn server_off(round: &Round<'_>) -> Option<Finding> {
    let server = round.known.server.as_ref()?;
    let link = server.link_of(server.owns(round.known.address?)?).filter(|link| !link.usable())?;
    let finding =
        if link.up { super::link::no_carrier(link, Where::Server) } else { super::link::down(link, Where::Server) };
    Some(finding.seen_if(round.known.icmp_errors().first().map(|(from, _, _, words)| {
        Observation::new(format!("{from} said: {words}"), "ICMP error received by the client")
    })))
}

/// Packets of the request that the server saw come in, by capture or by the ladder's first rung.
fn arrived(round: &Round<'_>, server: &Side<'_>) -> Option<u64> {
    let wire = round.known.on_wire(server, Direction::Request);
    let rung = server.counted("prerouting", -450, Direction::Request);
    wire.max(rung)
}

fn lost_forward(round: &Round<'_>, left: Option<u64>) -> Finding {
    let known = round.known;
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let sent = Observation::new(
        left.map_or_else(|| "the request was sent".to_owned(), |n| format!("{} left the client", several(n, "packet"))),
        "capture on the client",
    );
    let none = Observation::new("0 packets arrived", "capture and hook ladder on the server");
    if !known.routed() {
        let used = known
            .client
            .frames
            .iter()
            .flatten()
            .find(|f| f.outgoing && known.is_flow(f, Direction::Request))
            .and_then(|f| f.dst_mac);
        let real = known.address.and_then(|to| real_mac(known, to));
        if let (Some(used), Some(real), Some((_, _, Some(interface)))) = (used, real, known.way())
            && used != real
        {
            let hop = known.address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
            let permanent = known.client.neighbour(hop).is_some_and(|entry| entry.state == NudState::Permanent);
            return wrong_mac(hop, &used.to_string(), &real.to_string(), interface, permanent, Where::Client)
                .seen_if(Some(sent))
                .seen_if(Some(none));
        }
    }
    let last = last_hop(round);
    if let (None, true, Some(gateway)) = (last, probed(round), known.next_hop().filter(|_| known.routed())) {
        return not_forwarding(gateway, &target).seen_if(Some(sent)).seen_if(Some(none));
    }
    let object =
        last.map_or_else(|| format!("the path to {target}"), |(ttl, hop)| format!("the path behind {hop} (hop {ttl})"));
    let gateway = known.next_hop().map_or_else(|| "the router".to_owned(), |hop| hop.to_string());
    let next = format!("sysctl net.ipv4.ip_forward; ip route get {target}; iptables -nvL FORWARD  # on {gateway}");
    let also = if known.routed() { SILENT } else { &[][..] };
    Finding::new(
        Code::FwPathDrop,
        Where::Path,
        object,
        format!("Something between the hosts takes the request: it leaves the client and does not arrive at {target}."),
    )
    .seen_if(Some(sent))
    .seen_if(Some(none))
    .seen_if(last.map(|(ttl, hop)| {
        Observation::new(format!("{hop} (hop {ttl}) still answers probes for this port"), "TTL-limited probes")
    }))
    .but(Confidence::Class, also, Some(next))
}

/// A gateway that is there and does not even say "time exceeded" never came to forward the packet:
/// `ip_forward()` looks at the TTL before the FORWARD hook, and is not called where forwarding is off.
fn not_forwarding(gateway: IpAddr, target: &str) -> Finding {
    Finding::new(
        Code::RouteForwardingOff,
        Where::Path,
        format!("net.ipv4.ip_forward on {gateway}"),
        format!("Router {gateway} takes the packets for {target} and does not forward them."),
    )
    .seen(
        format!("{gateway} answers for its address and sends no \"time exceeded\" for a packet with TTL 1: it does not come to forwarding it"),
        "TTL-limited probes",
    )
    .but(
        Confidence::Likely,
        &[Code::FwPathDrop, Code::RouteBlackhole, Code::PathHostUnreachable],
        Some(format!("sysctl net.ipv4.ip_forward; ip route get {target}  # on {gateway}")),
    )
}

/// Whether TTL-limited probes went out at all.
fn probed(round: &Round<'_>) -> bool {
    round.known.trial().is_some_and(|trial| trial.hops.iter().any(|report| !report.sent.is_empty()))
}

/// The last hop that answered the probes with rising TTL.
fn last_hop(round: &Round<'_>) -> Option<(u8, IpAddr)> {
    let hops = &round.known.trial()?.hops;
    (1u8..)
        .zip(hops)
        .filter_map(|(ttl, report)| {
            let reply = report.replies.iter().find(|reply| is_time_exceeded(reply))?;
            Some((ttl, reply.from))
        })
        .last()
}

pub(super) fn back(round: &mut Round<'_>) {
    let id = "path.reply";
    let known = round.known;
    let Some(server) = &known.server else { return };
    if known.reached() || known.is_self() || known.trial().is_none() {
        return;
    }
    let left = known.on_wire(server, Direction::Reply);
    let came =
        known.on_wire(&known.client, Direction::Reply).max(known.client.counted("prerouting", -450, Direction::Reply));
    match (left, came) {
        (Some(n), Some(0)) if n > 0 => {
            let via = if known.routed() { "a router or filter" } else { "the link" };
            let finding = Finding::new(
                Code::FwPathDrop,
                Where::Path,
                "the way back",
                format!("Something between the hosts ({via}) takes the answer: it leaves the server and does not arrive at the client."),
            )
            .seen(format!("{} left the server", several(n, "answer")), "capture on the server")
            .seen("0 answers arrived", "capture on the client")
            .but(
                Confidence::Class,
                &[Code::FwConntrackInvalid, Code::RouteReturnMissing, Code::RouteWrongGateway],
                Some("iptables -nvL FORWARD; nft list ruleset  # on the routers between: who takes the server's port as source port?".to_owned()),
            );
            round.fail(id, finding);
        }
        (_, Some(n)) if n > 0 => {
            round.pass(Layer::Path, id, format!("{} arrived at the client", several(n, "answer")));
        }
        _ => {}
    }
}

/// An ICMP error that came in about the request: who said what.
fn by_icmp(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let target = known.address?;
    let errors = known.icmp_errors();
    // What our own kernel says of a neighbour that does not answer is no news from the path.
    let others = errors.iter().find(|(from, ..)| Some(*from) != known.source);
    let (from, kind, code, words) = others.copied().or_else(|| by_probe(round))?;
    let v6 = target.is_ipv6();
    let said = Observation::new(
        format!("{from} said: {words} (type {kind} code {code})"),
        "ICMP error received by the client",
    );
    let hop = from.to_string();
    let administrative =
        if v6 { kind == 1 && matches!(code, 1 | 5 | 6) } else { kind == 3 && matches!(code, 9 | 10 | 13) };
    let port = if v6 { kind == 1 && code == 4 } else { kind == 3 && matches!(code, 2 | 3) };
    let exceeded = if v6 { kind == 3 && code == 0 } else { kind == 11 && code == 0 };
    let host = if v6 { kind == 1 && code == 3 } else { kind == 3 && code == 1 };
    if from == target {
        // Left to the server's own steps when they can look; a transport check speaks for UDP ports.
        if known.server.is_some() || (port && known.case.target.scheme == super::super::target::Scheme::Udp) || exceeded
        {
            return None;
        }
        return Some(
            Finding::new(
                Code::FwServerInputReject,
                Where::Server,
                format!("INPUT rules of {target}"),
                format!("A firewall rule of {target} rejects the request: {words}."),
            )
            .seen_if(Some(said))
            .seen("a closed TCP port would have answered with a reset", "RFC 9293 §3.5.2")
            .but(
                Confidence::Likely,
                &[Code::FwPathReject],
                Some(format!("iptables-save; nft list ruleset  # on {target}")),
            ),
        );
    }
    let slow = known.exchange().is_some_and(|exchange| exchange.connect_ms > 900.0);
    let next = Some(format!("ip route get {target}; ip neigh; iptables -nvL FORWARD  # on {hop}"));
    let finding = if exceeded {
        Finding::new(
            Code::RouteLoop,
            Where::Path,
            hop.clone(),
            format!("A routing loop near {hop} sends the packets round until their TTL runs out."),
        )
        .but(Confidence::Likely, &[], Some(format!("traceroute -n {target}")))
    } else if administrative || port {
        Finding::new(
            Code::FwPathReject,
            Where::Path,
            hop.clone(),
            format!("Router or firewall {hop} rejects packets to {target}: {words}."),
        )
        .but(Confidence::Likely, &[Code::RouteProhibit], next)
    } else if host && slow {
        Finding::new(
            Code::PathHostDown,
            Where::Path,
            target.to_string(),
            format!("Host {target} gives no sign of life on its own link, says its router {hop}."),
        )
        .but(Confidence::Likely, &[Code::PathHostUnreachable, Code::NeighNoReply, Code::LinkDown], next)
    } else {
        Finding::new(
            Code::PathHostUnreachable,
            Where::Path,
            hop.clone(),
            format!("Router {hop} cannot reach {target}: {words}."),
        )
        .but(
            Confidence::Likely,
            &[Code::RouteMissing, Code::RouteUnreachable, Code::PathHostDown, Code::FwPathReject],
            next,
        )
    };
    Some(finding.seen_if(Some(said)))
}

/// The same from the echo's and hop probes' own error reports, where there was no capture.
fn by_probe<'a>(round: &Round<'a>) -> Option<(IpAddr, u8, u8, &'a str)> {
    let known = round.known;
    let trial = known.trial()?;
    let replies = trial.hops.iter().chain(&trial.echo).flat_map(|report| &report.replies);
    replies.filter(|reply| !is_time_exceeded(reply) && Some(reply.from) != known.address).find_map(|reply| {
        let (kind, code) = icmp_error(reply)?;
        Some((reply.from, kind, code, "it cannot deliver the packets"))
    })
}

/// A reset in the server's name that the server did not send, as both ends' captures show.
fn by_forged_reset(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let server = known.server.as_ref()?;
    let came = known
        .client
        .frames
        .as_ref()?
        .iter()
        .any(|f| !f.outgoing && known.is_flow(f, Direction::Reply) && f.what.is_reset());
    let frames = server.frames.as_ref()?;
    let saw_request = frames.iter().any(|f| !f.outgoing && known.is_flow(f, Direction::Request));
    let sent_reset = frames.iter().any(|f| f.outgoing && known.is_flow(f, Direction::Reply) && f.what.is_reset());
    if !came || sent_reset || server.end.watch.frames_lost > 0 {
        return None;
    }
    let target = known.address?;
    Some(
        Finding::new(
            Code::FwPathReject,
            Where::Path,
            "a device between the hosts",
            format!("Something between the hosts answers the request with a reset in the name of {target}."),
        )
        .seen("a reset from the server's address arrived at the client", "capture on the client")
        .seen(
            format!("the server sent no reset{}", if saw_request { "" } else { " and never saw the request" }),
            "capture on the server",
        )
        .but(
            Confidence::Proven,
            &[Code::TcpResetByMiddlebox],
            Some(
                "iptables -nvL FORWARD; nft list ruleset  # on the routers between: who rejects with tcp-reset?"
                    .to_owned(),
            ),
        ),
    )
}
