//! How the conversation's first step ended, and what that says when no earlier step explains it.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::{Direction, is_echo_reply, is_time_exceeded};
use super::super::target::Scheme;
use super::{Finding, Observation, Round, server_socket, several, with_both_ends};
use crate::host::{NudState, SocketState, Transport};
use crate::probe::exchange::Outcome;

const ID: &str = "transport";

/// What silence after a SYN may be, seen from the client alone.
const SILENCE: &[Code] = &[
    Code::FwServerInputDrop,
    Code::FwReplyRuleMissing,
    Code::FwServerOutputDrop,
    Code::FwPathDrop,
    Code::TcpBacklogFull,
    Code::RouteReturnMissing,
    Code::RouteRpFilter,
    Code::PathHostDown,
];

/// What a reset may be, seen from the client alone.
const REFUSED: &[Code] = &[
    Code::TcpNotListening,
    Code::TcpLoopbackOnly,
    Code::TcpWrongAddress,
    Code::TcpFamilyMismatch,
    Code::FwServerInputReject,
    Code::TcpResetByMiddlebox,
];

pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    if known.trial().is_none() {
        return;
    }
    let Some(exchange) = known.exchange() else {
        host(round);
        return;
    };
    let ms = exchange.connect_ms;
    let target = known.case.target.host.clone();
    let port = known.port();
    let finding = match (&exchange.connect, known.case.target.scheme) {
        (Outcome::Done, Scheme::Udp) => {
            let octets = exchange.datagram.unwrap_or(0);
            round.pass(Layer::Transport, ID, format!("{target} port {port}/udp answered {octets} octets")).ms =
                Some(ms);
            return;
        }
        (Outcome::Done, _) => {
            round.pass(Layer::Transport, ID, format!("TCP handshake with {target} port {port}")).ms = Some(ms);
            for code in [Code::TcpPortClosed, Code::TcpTimeout, Code::FwFiltered] {
                round.rule_out(code, "the TCP handshake was completed");
            }
            return;
        }
        (_, _) if round.finding.is_some() => None,
        (Outcome::Error { errno }, scheme) => Some(by_errno(round, errno, scheme)),
        (Outcome::Timeout, Scheme::Udp) => Some(udp_silence(round)),
        (Outcome::Timeout, _) => Some(silence(round)),
    };
    let how = match &exchange.connect {
        Outcome::Error { errno } => errno.clone(),
        Outcome::Timeout => "no answer".to_owned(),
        Outcome::Done => "done".to_owned(),
    };
    match finding {
        Some(finding) => round.fail(ID, finding),
        None => {
            round.note(Status::Fail, Layer::Transport, ID, format!("connecting to {target} port {port}: {how}"));
        }
    }
    if let Some(check) = round.checks.last_mut() {
        check.ms = Some(ms);
    }
}

/// A host alone: the echo is all there is.
fn host(round: &mut Round<'_>) {
    let known = round.known;
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let report = known.trial().and_then(|trial| trial.echo.as_ref());
    match known.echoed() {
        Some(true) => {
            let rtt = report.and_then(|r| r.replies.iter().find(|r| is_echo_reply(r))).and_then(|r| r.rtt_us);
            round.pass(Layer::Transport, ID, format!("{target} answers an ICMP echo")).ms = rtt.map(|us| us / 1e3);
        }
        _ if round.finding.is_some() => {
            round.note(Status::Fail, Layer::Transport, ID, format!("{target} does not answer an ICMP echo"));
        }
        Some(false) => {
            let finding = Finding::new(
                Code::FwFiltered,
                Where::Path,
                format!("ICMP echo to {target}"),
                format!("Echo requests to {target} are not answered: the host is down, or something drops ICMP, which proves nothing about its services."),
            )
            .seen("no echo reply", "ICMP echo")
            .but(
                Confidence::Class,
                &[Code::PathHostDown, Code::FwServerInputDrop, Code::FwPathDrop, Code::RouteReturnMissing],
                Some(format!("reachwhy doctor {target}:PORT  # with the port of a service that should answer")),
            );
            round.fail(ID, finding);
        }
        None => {
            round.note(Status::Skip, Layer::Transport, ID, "no ICMP echo could be sent from here; name a port to try");
        }
    }
}

fn by_errno(round: &Round<'_>, errno: &str, scheme: Scheme) -> Finding {
    let known = round.known;
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let port = known.port();
    let said = Observation::new(format!("the system call gave {errno}"), "connect(2)/recv(2) on the client");
    let settle = Some(with_both_ends(known));
    let on_server =
        format!("ss -l{}np 'sport = :{port}'  # on {target}", if scheme == Scheme::Udp { 'u' } else { 't' });
    match (errno, scheme) {
        ("ECONNREFUSED", Scheme::Udp) => Finding::new(
            Code::UdpPortClosed,
            Where::Server,
            format!("{target}:{port}/udp"),
            format!("UDP port {port} of {target} is closed: the host answers \"port unreachable\"."),
        )
        .seen_if(Some(said))
        .but(Confidence::Likely, &[Code::FwServerInputReject, Code::FwPathReject], Some(on_server)),
        ("ECONNREFUSED", _) => {
            let reset = known
                .client
                .frames
                .iter()
                .flatten()
                .any(|f| !f.outgoing && known.is_flow(f, Direction::Reply) && f.what.is_reset());
            let both = known.server.is_some();
            Finding::new(
                Code::TcpPortClosed,
                Where::Server,
                format!("{target}:{port}"),
                format!("Port {port} of {target} is closed: the connection is refused."),
            )
            .seen_if(Some(said))
            .seen_if(
                reset.then(|| Observation::new("a reset came back from the server's address", "capture on the client")),
            )
            .fix("start the service on the server, or correct the port", String::new(), String::new())
            .but(Confidence::Class, if both { &[] } else { REFUSED }, Some(on_server))
        }
        ("EADDRNOTAVAIL", _) => Finding::new(
            Code::TcpPortsExhausted,
            Where::Client,
            "net.ipv4.ip_local_port_range",
            "The client has no free local port left for connections to this target.",
        )
        .seen_if(Some(said))
        .fix(
            "widen the range",
            "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
            format!(
                "sysctl -w net.ipv4.ip_local_port_range=\"{}\"",
                known.case.client.facts.sysctls.get("net.ipv4.ip_local_port_range").map_or("32768 60999", |v| v.trim())
            ),
        )
        .but(
            Confidence::Likely,
            &[Code::AddrSourceUnusable],
            Some("ss -s; sysctl net.ipv4.ip_local_port_range".to_owned()),
        ),
        ("EHOSTUNREACH" | "EHOSTDOWN", _) => Finding::new(
            Code::PathHostUnreachable,
            Where::Path,
            target.clone(),
            format!("Host {target} cannot be reached, says the network."),
        )
        .seen_if(Some(said))
        .but(
            Confidence::Class,
            &[
                Code::NeighNoReply,
                Code::RouteGatewaySilent,
                Code::PathHostDown,
                Code::FwServerInputReject,
                Code::FwPathReject,
            ],
            settle,
        ),
        ("ENETUNREACH" | "ENONET", _) => Finding::new(
            Code::PathHostUnreachable,
            Where::Path,
            target.clone(),
            format!("The network of {target} cannot be reached, says the network."),
        )
        .seen_if(Some(said))
        .but(Confidence::Class, &[Code::RouteMissing, Code::FwServerInputReject, Code::FwPathReject], settle),
        ("ENOPROTOOPT" | "EPROTO", _) => Finding::new(
            Code::FwServerInputReject,
            Where::Server,
            format!("INPUT rules of {target}"),
            format!("A firewall rejects the request to {target} as a protocol it does not take."),
        )
        .seen_if(Some(said))
        .but(Confidence::Likely, &[Code::FwPathReject], settle),
        ("ECONNRESET", _) => Finding::new(
            Code::TcpResetByServer,
            Where::Server,
            format!("{target}:{port}"),
            format!("The connection to {target} port {port} is reset while it opens."),
        )
        .seen_if(Some(said))
        .but(Confidence::Class, &[Code::TcpResetByMiddlebox, Code::TcpPortClosed], settle),
        ("EPERM" | "EACCES", _) => Finding::new(
            Code::FwClientOutputDrop,
            Where::Client,
            "local policy of the client",
            "A local policy of the client forbids the request.",
        )
        .seen_if(Some(said))
        .but(
            Confidence::Likely,
            &[Code::FwClientOutputReject, Code::RouteProhibit],
            Some("nft list ruleset; iptables-save; ip rule".to_owned()),
        ),
        ("EINVAL", _) => Finding::new(
            Code::AddrSourceUnusable,
            Where::Client,
            known.source.map_or_else(|| "source address".to_owned(), |a| a.to_string()),
            format!("The client cannot speak to {target} from the address it would take."),
        )
        .seen_if(Some(said))
        .but(Confidence::Class, &[Code::RouteBlackhole], Some(format!("ip route get {target}"))),
        _ => Finding::new(
            Code::TcpTimeout,
            Where::Path,
            format!("{target}:{port}"),
            format!("The connection to {target} port {port} fails with {errno}."),
        )
        .seen_if(Some(said))
        .but(Confidence::Class, &[], settle),
    }
}

/// A SYN, retried, and nothing came back.
fn silence(round: &Round<'_>) -> Finding {
    let known = round.known;
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let port = known.port();
    let sent = known.on_wire(&known.client, Direction::Request);
    let seen = Observation::new(
        sent.map_or_else(
            || "the request was not answered".to_owned(),
            |n| format!("{} left the client, none was answered", several(n, "packet")),
        ),
        if sent.is_some() { "capture on the client" } else { "connect(2) on the client" },
    );
    let alive = match (known.echoed(), known.neighbour_macs(), known.routed()) {
        (Some(true), _, _) => Some(Observation::new(format!("{target} answers an ICMP echo"), "ICMP echo")),
        (_, Some(macs), false) if !macs.is_empty() => {
            Some(Observation::new(format!("{target} answers for its address on the link"), "ARP/NDP probe"))
        }
        _ => None,
    };
    let mut answered_hops = known
        .trial()
        .map(|trial| &trial.hops)
        .into_iter()
        .flatten()
        .filter_map(|report| report.replies.iter().find(|reply| is_time_exceeded(reply)).map(|reply| reply.from));
    let last = answered_hops.next_back().map(|hop| {
        Observation::new(
            format!("{hop} still answers probes for this port; behind it nothing does"),
            "TTL-limited probes",
        )
    });
    if let Some(server) = &known.server {
        // Both ends were looked at and no step explains it: say what is known and no more.
        let answered = server.counted("output", -500, Direction::Reply);
        let sentence = match answered {
            Some(0) => format!("The server takes the request for {target} port {port} and its kernel sends no answer."),
            _ => format!("The connection to {target} port {port} is not answered in time."),
        };
        return Finding::new(Code::TcpTimeout, Where::Server, format!("{target}:{port}"), sentence)
            .seen_if(Some(seen))
            .seen_if(alive)
            .seen_if(last)
            .but(
                Confidence::Class,
                &[Code::TcpBacklogFull, Code::FwServerInputDrop, Code::FwServerOutputDrop, Code::FwPathDrop],
                Some(format!(
                    "sudo reachwhy doctor {}  # as root on both ends the packets can be watched",
                    known.case.target
                )),
            );
    }
    let mut also = SILENCE.to_vec();
    if alive.is_some() {
        also.retain(|code| *code != Code::PathHostDown);
    }
    if !known.routed() {
        also.retain(|code| !matches!(code, Code::FwPathDrop));
    }
    if known.client.end.watch.ladder.is_none() && known.client.frames.is_none() {
        also.push(Code::FwClientInputDrop);
        let entry = known.next_hop().and_then(|hop| known.client.neighbour(hop));
        if entry.is_some_and(|entry| entry.state == NudState::Permanent) {
            also.insert(0, Code::NeighWrongMac);
        }
    }
    let mut finding = Finding::new(
        Code::FwFiltered,
        Where::Path,
        format!("{target}:{port}"),
        format!("Requests to {target} port {port} vanish beyond the client: no answer, no error."),
    )
    .seen_if(Some(seen))
    .seen_if(alive)
    .seen_if(last);
    finding.confidence = Confidence::Class;
    finding.also = also;
    finding.next = Some(with_both_ends(known));
    finding
}

fn udp_silence(round: &Round<'_>) -> Finding {
    let known = round.known;
    let target = known.address.map_or_else(String::new, |a| a.to_string());
    let port = known.port();
    let socket = known.server.as_ref().and_then(|server| {
        server_socket::sockets(server)?
            .iter()
            .find(|s| s.transport == Transport::Udp && s.local_port == port && s.state == SocketState::Unconnected)
    });
    let finding = Finding::new(
        Code::UdpNoReply,
        Where::Server,
        format!("{target}:{port}/udp"),
        format!("Nothing answers datagrams to {target} port {port}; a UDP service may also keep silent when it works."),
    )
    .seen("3 datagrams were sent, none was answered, no error came", "UDP socket of the client");
    match socket {
        Some(socket) => finding
            .seen(format!("{} holds {}:{port}", server_socket::owner(socket), socket.local), "sock_diag on the server")
            .but(Confidence::Class, &[], Some(format!("tcpdump -ni any udp port {port}  # on the server, while the client asks in the service's own protocol"))),
        None => finding.but(
            Confidence::Class,
            &[Code::FwServerInputDrop, Code::FwPathDrop, Code::FwServerOutputDrop, Code::FwReplyRuleMissing],
            Some(with_both_ends(known)),
        ),
    }
}
