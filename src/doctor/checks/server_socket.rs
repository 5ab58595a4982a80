//! Does a process on the server take what arrives?

use std::net::IpAddr;

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::evidence::{Direction, Side};
use super::super::target::Scheme;
use super::{Finding, Round};
use crate::host::{SocketFact, SocketState, Transport};

const ID: &str = "server.socket";

pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    let (Some(server), Some(target), Some(port)) = (&known.server, known.address, known.case.target.port) else {
        return;
    };
    let transport = if known.case.target.scheme == Scheme::Udp { Transport::Udp } else { Transport::Tcp };
    let layer = Layer::Transport;
    let Some(sockets) = sockets(server) else {
        round.note(Status::Skip, layer, ID, "the server's sockets could not be read");
        return;
    };
    let taker = sockets.iter().find(|socket| socket.accepts(transport, target, port));
    let Some(taker) = taker else {
        if known.reached() {
            // NAT or a proxy in front: what answers is not what this host shows.
            round.note(
                Status::Info,
                layer,
                ID,
                format!("no socket of this host takes {target}:{port}, yet it answers: something in front does"),
            );
            return;
        }
        let arrived = arrived(server);
        if arrived == Some(false) {
            let text = format!("nothing takes {target}:{port}; the request does not come this far");
            round.note(Status::Warn, layer, ID, text);
            return;
        }
        let before = server.end.facts.sockets.iter().flatten().find(|socket| socket.accepts(transport, target, port));
        if let Some(gone) = before {
            let text = format!("{} took {target}:{port} before and is gone: it ended while it was asked", owner(gone));
            round.note(Status::Warn, layer, ID, text);
            return;
        }
        let finding = nobody(sockets, transport, target, port);
        let (also, confidence): (&[Code], Confidence) = match arrived {
            Some(_) => (&[], Confidence::Proven),
            None => (&[Code::TcpPortClosed], Confidence::Likely),
        };
        let refused = known.errno() == Some("ECONNREFUSED");
        let call = if transport == Transport::Tcp { "connect(2)" } else { "recv(2)" };
        let counter = if transport == Transport::Tcp { "TcpOutRsts" } else { "UdpNoPorts" };
        let finding = finding
            .seen_if(refused.then(|| {
                super::Observation::new("the client was refused (ECONNREFUSED)", format!("{call} on the client"))
            }))
            .seen_if(
                server
                    .grew(counter)
                    .filter(|n| *n > 0)
                    .map(|n| super::Observation::new(format!("{counter} +{n}"), "nstat on the server")),
            )
            .but(confidence, also, None);
        round.fail(ID, finding);
        return;
    };
    let owner = owner(taker);
    let listening = format!("{}:{port} {}", taker.local, if transport == Transport::Tcp { "LISTEN" } else { "bound" });
    let (waiting, limit) = (taker.recv_queue, taker.send_queue);
    if transport == Transport::Tcp && !known.reached() {
        let overflows = server.grew("TcpExtListenOverflows").filter(|n| *n > 0);
        if waiting > limit || overflows.is_some() {
            let finding = Finding::new(
                Code::TcpBacklogFull,
                Where::Server,
                format!("{listening}, backlog {limit}, {owner}"),
                format!("The accept queue of {owner} on port {port} is full ({waiting} waiting, backlog {limit}), so new connections are dropped."),
            )
            .seen(format!("{listening}: Recv-Q {waiting}, Send-Q {limit}"), "sock_diag on the server")
            .seen_if(overflows.map(|n| super::Observation::new(format!("TcpExtListenOverflows +{n}"), "nstat on the server")))
            .seen_if(stopped(taker))
            .but(Confidence::Proven, &[Code::TcpServerStuck], None);
            let finding = match taker.owners.iter().find(|owner| matches!(owner.state, 'T' | 't')) {
                Some(owner) => finding.fix(
                    "let the stopped process run on",
                    format!("kill -CONT {}", owner.pid),
                    format!("kill -STOP {}", owner.pid),
                ),
                None => finding.fix(
                    "find out why the process does not accept; then raise its backlog and net.core.somaxconn",
                    String::new(),
                    String::new(),
                ),
            };
            round.fail(ID, finding);
            return;
        }
    }
    let queue = if transport == Transport::Tcp { format!(", queue {waiting} of {limit}") } else { String::new() };
    let check = round.pass(layer, ID, format!("{owner} takes {listening}{queue}"));
    check.evidence.extend(stopped(taker));
    if stopped(taker).is_some() {
        check.status = Status::Warn;
        check.summary = format!("{owner} takes {listening}, but is stopped{queue}");
    }
    let because = format!("{owner}: {listening}");
    for code in [Code::TcpNotListening, Code::TcpLoopbackOnly, Code::TcpWrongAddress, Code::TcpFamilyMismatch] {
        round.rule_out(code, because.clone());
    }
}

/// The sockets as they stood at the end of the trial, else before it.
pub(super) fn sockets<'a>(server: &Side<'a>) -> Option<&'a [SocketFact]> {
    let after = server.end.watch.after.as_ref().and_then(|after| after.sockets.as_deref());
    after.or(server.end.facts.sockets.as_deref())
}

/// Whether the request came as far as a socket; `None` where that was not watched.
fn arrived(server: &Side<'_>) -> Option<bool> {
    server.through("input", Direction::Request).map(|(_, last)| last > 0)
}

/// `python3 (pid 4242)`, or who else it may be.
pub(super) fn owner(socket: &SocketFact) -> String {
    match socket.owners.first() {
        Some(owner) => format!("{} (pid {})", owner.name, owner.pid),
        None => format!("a process of uid {}", socket.uid),
    }
}

fn stopped(socket: &SocketFact) -> Option<super::Observation> {
    let owner = socket.owners.iter().find(|owner| matches!(owner.state, 'T' | 't'))?;
    Some(super::Observation::new(
        format!("{} (pid {}) is in state {}: stopped", owner.name, owner.pid, owner.state),
        format!("/proc/{}/stat on the server", owner.pid),
    ))
}

/// Nobody takes it: is the service on another address, for the other family, on another port, or not there?
fn nobody(sockets: &[SocketFact], transport: Transport, target: IpAddr, port: u16) -> Finding {
    let open = |socket: &&SocketFact| {
        socket.transport == transport
            && match transport {
                Transport::Tcp => socket.state == SocketState::Listen,
                Transport::Udp => socket.state == SocketState::Unconnected,
            }
    };
    let at_port: Vec<&SocketFact> = sockets.iter().filter(open).filter(|socket| socket.local_port == port).collect();
    let shown = |socket: &SocketFact| {
        format!("{}:{}{}", socket.local, socket.local_port, if socket.v6only { " v6only" } else { "" })
    };
    let source = "sock_diag on the server";
    let wildcard = if target.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let rebind = |finding: Finding, process: &SocketFact| {
        finding.fix(
            format!(
                "have {} listen on {target} or on {wildcard} (its bind or listen setting), and restart it",
                owner(process)
            ),
            String::new(),
            String::new(),
        )
    };
    if let Some(socket) = at_port.iter().find(|s| s.local.is_loopback()) {
        let who = owner(socket);
        let finding = Finding::new(
            Code::TcpLoopbackOnly,
            Where::Server,
            format!("{} {who}", shown(socket)),
            format!(
                "Service {who} on the server listens on {} alone, so only the server itself can reach it.",
                shown(socket)
            ),
        )
        .seen(format!("LISTEN {}", shown(socket)), source);
        return rebind(finding, socket);
    }
    let family = |socket: &SocketFact| socket.local.is_ipv4() == target.is_ipv4();
    if let Some(socket) = at_port.iter().find(|s| !family(s) && s.local.to_canonical().is_ipv4() != target.is_ipv4()) {
        let who = owner(socket);
        let (has, lacks) = if target.is_ipv4() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        let finding = Finding::new(
            Code::TcpFamilyMismatch,
            Where::Server,
            format!("{} {who}", shown(socket)),
            format!("Service {who} on the server listens for {has} ({}) and not for {lacks}.", shown(socket)),
        )
        .seen(format!("LISTEN {}", shown(socket)), source);
        return rebind(finding, socket);
    }
    if let Some(socket) = at_port.first() {
        let who = owner(socket);
        let finding = Finding::new(
            Code::TcpWrongAddress,
            Where::Server,
            format!("{} {who}", shown(socket)),
            format!("Service {who} on the server listens on {}, not on {target}.", shown(socket)),
        )
        .seen(format!("LISTEN {}", shown(socket)), source);
        return rebind(finding, socket);
    }
    let mut others: Vec<String> = sockets
        .iter()
        .filter(open)
        .filter(|socket| !socket.local.is_loopback())
        .map(|socket| {
            format!("{} ({})", socket.local_port, socket.owners.first().map_or("?", |owner| owner.name.as_str()))
        })
        .collect();
    others.sort();
    others.dedup();
    others.truncate(8);
    let elsewhere = if others.is_empty() {
        "no other port is open either".to_owned()
    } else {
        format!("open are {}", others.join(", "))
    };
    let (code, name) = match transport {
        Transport::Tcp => (Code::TcpNotListening, "TCP"),
        Transport::Udp => (Code::UdpPortClosed, "UDP"),
    };
    let udp = if transport == Transport::Udp { "udp " } else { "" };
    Finding::new(
        code,
        Where::Server,
        format!("{udp}{target}:{port}"),
        format!("No process on the server listens on {name} port {port}; {elsewhere}."),
    )
    .seen(format!("no {name} socket is bound to port {port}"), source)
    .fix("start the service, or correct the port", String::new(), String::new())
}
