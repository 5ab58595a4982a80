//! Does the next hop answer for its address on the link?

use std::net::IpAddr;

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::{Evidence, Side};
use super::super::sightings::Seen;
use super::{Finding, Round, address, link, return_path, stations};
use crate::host::{NudState, RouteResult, sysctl};

const ID: &str = "client.neighbour";

pub(super) fn client(round: &mut Round<'_>) {
    let known = round.known;
    let Some(hop) = known.next_hop() else { return };
    let Some((_, _, Some(interface))) = known.way() else { return };
    let egress = known.case.client.facts.link(interface);
    if egress.is_some_and(|link| link.noarp || link.loopback || link.mac.is_none()) {
        round.note(Status::Info, Layer::Neighbour, ID, format!("{interface} needs no neighbour addresses"));
        return;
    }
    if egress.is_some_and(|link| !link.usable()) {
        round.note(Status::Skip, Layer::Neighbour, ID, "not asked: the link is broken");
        return;
    }
    let who = if known.routed() { format!("gateway {hop}") } else { hop.to_string() };
    let macs = known.neighbour_macs();
    let entry = known.client.neighbour(hop);
    let believed = entry.and_then(|entry| entry.mac);
    let asked = known.trial().and_then(|trial| trial.neighbour.as_ref());
    match macs.as_deref() {
        Some(macs @ [_, _, ..]) if !known.reached() || !known.routed() => stations::several(round, ID, hop, macs),
        Some([mac, ..]) => {
            let wrong = believed.filter(|believed| believed != mac);
            match wrong {
                Some(wrong) if !known.reached() => {
                    let permanent = entry.is_some_and(|entry| entry.state == NudState::Permanent);
                    let finding =
                        wrong_mac(hop, &wrong.to_string(), &mac.to_string(), interface, permanent, Where::Client);
                    round.fail(ID, finding);
                }
                _ => {
                    let rtt = asked.and_then(|report| report.replies.first()).and_then(|reply| reply.rtt_us);
                    let check = round.pass(Layer::Neighbour, ID, format!("{who} is at {mac}"));
                    check.ms = rtt.map(|us| us / 1e3);
                    let because = format!("{who} answered from {mac}");
                    let code = if known.routed() { Code::RouteGatewaySilent } else { Code::NeighNoReply };
                    round.rule_out(code, because);
                }
            }
        }
        Some([]) if known.reached() => {
            let status =
                if entry.is_some_and(|entry| entry.state == NudState::Permanent) { Status::Info } else { Status::Warn };
            round.note(status, Layer::Neighbour, ID, format!("{who} did not answer the request, yet packets pass"));
        }
        Some([]) => {
            let tries = asked.map_or(0, |report| report.sent.len());
            let says = format!("{tries} requests for {hop} went out on {interface}, no answer came");
            let finding =
                silent(round, hop, interface, Confidence::Proven).seen(says, format!("capture on {interface}"));
            round.fail(ID, finding);
        }
        None => by_the_table(round, hop, &who, interface),
    }
}

/// Without the right to ask: what the kernel's own table says after the attempt.
fn by_the_table(round: &mut Round<'_>, hop: IpAddr, who: &str, interface: &str) {
    let known = round.known;
    match known.client.neighbour(hop) {
        Some(entry) if matches!(entry.state, NudState::Failed | NudState::Incomplete) && !known.reached() => {
            let state = if entry.state == NudState::Failed { "FAILED" } else { "INCOMPLETE" };
            let finding = silent(round, hop, interface, Confidence::Likely)
                .seen(format!("{hop} is {state} on {interface}"), "netlink RTM_GETNEIGH (ip neigh)");
            round.fail(ID, finding);
        }
        Some(entry) => {
            let mac = entry.mac.map_or_else(|| "no address".to_owned(), |mac| mac.to_string());
            round.pass(Layer::Neighbour, ID, format!("{who} is at {mac}, says the kernel's table"));
        }
        None => {
            round.note(
                Status::Skip,
                Layer::Neighbour,
                ID,
                format!("{who} could not be asked for, and the table has no entry"),
            );
        }
    }
}

/// Nobody answers for the next hop: with the other end's facts, why.
fn silent(round: &Round<'_>, hop: IpAddr, interface: &str, confidence: Confidence) -> Finding {
    let known = round.known;
    if known.routed() {
        let right = super::gateway::of(&known.client, hop, Some(hop), None, Some(interface));
        return Finding::new(
            Code::RouteGatewaySilent,
            Where::Client,
            format!("gateway {hop} dev {interface}"),
            format!("Gateway {hop} of the client does not answer for its address on {interface}, so nothing gets past the first link."),
        )
        .fix(
            format!("check that the gateway runs and that this is its address; if not, correct the route{}", right.because),
            format!("ip route replace default via {} dev {}", right.address, right.device),
            format!("ip route replace default via {hop} dev {interface}"),
        )
        .but(confidence, &[Code::RouteWrongGateway], Some(format!("ip addr  # on the gateway: is {hop} there?")));
    }
    if let Some(finding) = stations::one_mac(round, hop, interface) {
        return finding;
    }
    if let Some(server) = &known.server
        && let Some(finding) = silent_server(round, server, hop, interface)
    {
        return finding;
    }
    let alone = known.server.is_none();
    let also: &[Code] = if alone {
        &[
            Code::LinkDown,
            Code::LinkNoCarrier,
            Code::AddrNone,
            Code::AddrWrongPrefix,
            Code::NeighArpFiltered,
            Code::PathHostDown,
        ]
    } else {
        &[Code::NeighArpFiltered, Code::PathHostDown]
    };
    Finding::new(
        Code::NeighNoReply,
        if alone { Where::Server } else { Where::Path },
        hop.to_string(),
        format!("Host {hop} does not answer for its address on {interface}: it is down, elsewhere, or keeps silent."),
    )
    .fix("check that the host runs, has this address, and is on this network", String::new(), String::new())
    .but(confidence, also, alone.then(|| format!("ip addr; ip link  # on {hop}, or run the doctor with --to")))
}

/// The server lets us look: which of its settings keeps it silent?
fn silent_server(round: &Round<'_>, server: &Side<'_>, hop: IpAddr, interface: &str) -> Option<Finding> {
    let Some(owner) = server.owns(hop) else {
        let has: Vec<String> = server
            .end
            .facts
            .addresses
            .as_deref()?
            .iter()
            .filter(|a| !a.address.is_loopback() && a.address.is_ipv4() == hop.is_ipv4())
            .map(|a| format!("{}/{} on {}", a.address, a.prefix_len, a.interface))
            .collect();
        let link = server.end.facts.links.iter().flatten().find(|link| !link.loopback);
        let device = link.map_or("DEVICE", |link| link.name.as_str());
        // A link that is off loses its IPv6 addresses: then the link is the cause.
        if let Some(link) = link.filter(|link| has.is_empty() && !link.up && hop.is_ipv6()) {
            return Some(link::down(link, Where::Server));
        }
        return Some(
            Finding::new(
                Code::AddrNone,
                Where::Server,
                hop.to_string(),
                format!("Address {hop} is on no interface of the server, so nobody answers for it."),
            )
            .seen(
                if has.is_empty() {
                    "the server has no such address".to_owned()
                } else {
                    format!("the server has {}", has.join(", "))
                },
                "netlink RTM_GETADDR on the server",
            )
            .fix(
                "give the server the address, or correct the target",
                format!("ip addr add {hop}/PREFIX dev {device}"),
                format!("ip addr del {hop}/PREFIX dev {device}"),
            ),
        );
    };
    let link = server.link_of(owner)?;
    if !link.up {
        return Some(link::down(link, Where::Server));
    }
    if link.carrier == Some(false) {
        return Some(link::no_carrier(link, Where::Server));
    }
    let heard = heard_requests(server, hop);
    let facts = &server.end.facts;
    if hop.is_ipv4() {
        let setting = |name: &str| {
            let key = |scope: &str| format!("net.ipv4.conf.{scope}.{name}");
            [key("all"), key(&link.name)]
                .into_iter()
                .filter_map(|key| facts.sysctl(&key).map(|v| (key, v)))
                .max_by_key(|(_, v)| *v)
        };
        // ip-sysctl: 8 answers for no local address; lower values still do for one of this interface.
        if let Some((key, value)) = setting("arp_ignore").filter(|(_, value)| *value == 8) {
            return Some(
                Finding::new(
                    Code::NeighArpFiltered,
                    Where::Server,
                    format!("{key}={value}"),
                    format!("Setting {key}={value} of the server keeps it from answering requests for {hop}."),
                )
                .seen(format!("{key} = {value}"), "sysctl on the server")
                .seen_if(heard.filter(|n| *n > 0).map(|n| {
                    super::super::diagnosis::Evidence::new(
                        format!("{n} requests for {hop} arrived, the server sent no answer"),
                        format!("capture on {} of the server", link.name),
                    )
                }))
                .fix("let it answer", format!("sysctl -w {key}=0"), format!("sysctl -w {key}={value}")),
            );
        }
    }
    if hop.is_ipv4()
        && sysctl::effective(facts, false, &link.name, "rp_filter") == Some(1)
        && let Some(RouteResult::Found { interface: Some(back), .. }) = server.end.route.as_ref().map(|r| &r.result)
        && *back != link.name
        && let (Some(client), Some(route)) = (round.known.source, return_path::way_back(round))
    {
        // arp_process() asks ip_route_input(), which refuses a sender whose way back leads elsewhere.
        return Some(
            Finding::new(
                Code::RouteRpFilter,
                Where::Server,
                format!("reverse-path filter on {}", link.name),
                format!(
                    "The server's reverse-path filter ignores requests from {client} on {}: its way back leads out of {back}.",
                    link.name
                ),
            )
            .seen(format!("rp_filter is 1 (strict) on {}", link.name), "sysctl on the server")
            .seen(format!("the way back: {route}"), "netlink RTM_GETROUTE on the server")
            .fix(
                "take away the route that leads answers to the client the wrong way",
                route.ip_command("del"),
                route.ip_command("add"),
            ),
        );
    }
    if link.noarp {
        return Some(
            Finding::new(
                Code::NeighArpFiltered,
                Where::Server,
                format!("{} NOARP", link.name),
                format!("Interface {} of the server has ARP switched off, so it answers no request.", link.name),
            )
            .seen(format!("{}: the NOARP flag is set", link.name), "netlink RTM_GETLINK on the server")
            .fix(
                "switch it on",
                format!("ip link set {} arp on", link.name),
                format!("ip link set {} arp off", link.name),
            ),
        );
    }
    match heard {
        Some(0) => {
            if let Some(prefix) = address::wrong_prefix(round, Where::Client) {
                return Some(prefix);
            }
            Some(
                Finding::new(
                    Code::NeighNoReply,
                    Where::Path,
                    format!("the link between {interface} and {} of the server", link.name),
                    format!("The requests for {hop} leave {interface} of the client and never arrive at {} of the server: the two are not on one link.", link.name),
                )
                .seen(format!("0 requests for {hop} arrived"), format!("capture on {} of the server", link.name))
                .fix("check the switch between them: VLAN, port isolation, cabling", String::new(), String::new())
                .but(Confidence::Proven, &[Code::AddrWrongPrefix], None),
            )
        }
        Some(heard) => {
            let answered = server.frames.as_ref().is_some_and(|frames| {
                frames.iter().any(|f| {
                    f.outgoing && matches!(&f.what, Seen::Neighbour { request: false, sender, .. } if *sender == hop)
                })
            });
            let (code, place, sentence) = if answered {
                (Code::NeighNoReply, Where::Path, format!("The server's answers for {hop} do not reach the client."))
            } else {
                (
                    Code::NeighArpFiltered,
                    Where::Server,
                    format!("The server hears the requests for {hop} and does not answer them."),
                )
            };
            let next = "nft list ruleset arp; arptables -L; sysctl -a | grep arp_  # on the server".to_owned();
            Some(
                Finding::new(code, place, hop.to_string(), sentence)
                    .seen(
                        format!("{heard} requests arrived, {} answer left", if answered { "an" } else { "no" }),
                        format!("capture on {} of the server", link.name),
                    )
                    .fix(
                        "look for an ARP filter on the server (arptables, nft family arp, bridge filters)",
                        String::new(),
                        String::new(),
                    )
                    .but(Confidence::Likely, &[Code::NeighNoReply], Some(next)),
            )
        }
        None => None,
    }
}

/// How many requests for an address arrived there; `None` where it could not be captured.
fn heard_requests(server: &Side<'_>, hop: IpAddr) -> Option<usize> {
    let frames = server.frames.as_ref()?;
    let asks = |what: &Seen| matches!(what, Seen::Neighbour { request: true, target, .. } if *target == hop);
    Some(frames.iter().filter(|frame| !frame.outgoing && asks(&frame.what)).count())
}

/// A neighbour entry that names the wrong station.
pub(super) fn wrong_mac(
    hop: IpAddr,
    wrong: &str,
    right: &str,
    interface: &str,
    permanent: bool,
    place: Where,
) -> Finding {
    let kind = if permanent { "PERMANENT entry" } else { "entry" };
    Finding::new(
        Code::NeighWrongMac,
        place,
        format!("{hop} lladdr {wrong} dev {interface}"),
        format!("The neighbour {kind} for {hop} on the {place} names {wrong}, but {hop} is at {right}."),
    )
    .seen(format!("{hop} dev {interface} lladdr {wrong}"), format!("netlink RTM_GETNEIGH (ip neigh) on the {place}"))
    .seen(format!("{hop} is at {right}"), "ARP/NDP probe")
    .fix(
        "delete the entry; the kernel asks again",
        format!("ip neigh del {hop} dev {interface}"),
        format!(
            "ip neigh replace {hop} lladdr {wrong} dev {interface}{}",
            if permanent { " nud permanent" } else { "" }
        ),
    )
}

/// What the known facts say of a station's hardware address on the other side.
pub(super) fn real_mac(known: &Evidence<'_>, address: IpAddr) -> Option<crate::wire::MacAddr> {
    let side = known.server.as_ref().filter(|server| server.owns(address).is_some()).unwrap_or(&known.client);
    side.link_of(side.owns(address)?)?.mac
}
