//! What the service said.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use super::super::evidence::{Direction, Side};
use super::super::sightings::Seen;
use super::{Finding, Observation, Round, balancer, firewall, server_socket, transfer};
use crate::host::{SocketFact, SocketState, Transport};
use crate::probe::exchange::{HttpEnd, HttpReport};

const ID: &str = "application";

pub(super) fn check(round: &mut Round<'_>) {
    let known = round.known;
    let Some(report) = known.exchange().and_then(|exchange| exchange.http.as_ref()) else { return };
    let finding = match (report.status, &report.not_http, &report.end) {
        (_, Some(octets), _) => Some(not_http(round, octets)),
        (None, None, HttpEnd::Timeout) => Some(no_response(round, report)),
        (None, None, HttpEnd::Error { errno }) => Some(cut(round, report, errno)),
        (None, None, _) => Some(closed(round)),
        (Some(_), None, _) if report.misframed.is_some() => Some(misframed(round, report)),
        (Some(status), None, _) if status >= 400 => Some(refused(round, report, status)),
        (Some(_), None, HttpEnd::Complete | HttpEnd::Enough) => None,
        (Some(_), None, HttpEnd::Error { errno }) => Some(cut(round, report, errno)),
        (Some(_), None, HttpEnd::Closed) => Some(truncated(round, report)),
        (Some(_), None, HttpEnd::Timeout) => Some(stalled(round, report)),
    };
    if let Some(finding) = finding {
        round.fail(ID, finding);
    } else {
        let status = report.status.unwrap_or(0);
        round.pass(Layer::Application, ID, format!("HTTP {status}, {} octets of body", report.body_received));
    }
    if let Some(check) = round.checks.last_mut() {
        check.ms = Some(report.ms);
    }
}

fn service(round: &Round<'_>) -> String {
    let target = &round.known.case.target;
    format!("{}:{}", target.host, round.known.port())
}

fn refused(round: &Round<'_>, report: &HttpReport, status: u16) -> Finding {
    let who = service(round);
    let target = &round.known.case.target;
    let header = |name: &str| report.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
    let server = header("server").map(|value| format!(" (Server: {value})")).unwrap_or_default();
    let said = format!("GET {} was answered with {status}{server}", target.path);
    if matches!(status, 502..=504) {
        return balancer::gateway(round, report, status, &who).seen(said, "HTTP answer");
    }
    let (code, sentence, fix) = match status {
        500.. => (
            Code::AppHttpServerError,
            format!(
                "Service {who} answers {status} to GET {}: the network is fine, the application fails.",
                target.path
            ),
            "read the service's own log for this request",
        ),
        _ => (
            Code::AppHttpClientError,
            format!(
                "Service {who} answers {status} to GET {}: the network is fine, the request is not accepted.",
                target.path
            ),
            "check path, credentials and the Host the service expects",
        ),
    };
    Finding::new(code, Where::Server, format!("GET {} on {who}", target.path), sentence).seen(said, "HTTP answer").fix(
        fix,
        String::new(),
        String::new(),
    )
}

fn not_http(round: &Round<'_>, octets: &str) -> Finding {
    let who = service(round);
    // RFC 8446 §5.1: an alert (21) or handshake (22) record with a version 3.x.
    let tls = octets.starts_with("\\x15\\x03") || octets.starts_with("\\x16\\x03");
    let (code, sentence, fix) = if tls {
        (Code::AppTlsRequired, format!("Port {who} speaks TLS and was asked in clear."), "use https://")
    } else {
        (Code::AppNotHttp, format!("Port {who} answers, but not in HTTP."), "check that this is the right port")
    };
    Finding::new(code, Where::Server, who, sentence)
        .seen(format!("the answer begins with `{octets}`"), "the connection")
        .fix(fix, String::new(), String::new())
}

fn closed(round: &Round<'_>) -> Finding {
    let who = service(round);
    Finding::new(
        Code::AppNoResponse,
        Where::Server,
        who.clone(),
        format!("Service {who} closes the connection without answering the request."),
    )
    .seen("the connection was closed (FIN) after 0 octets of answer", "the connection")
    .fix("read the service's own log for this connection", String::new(), String::new())
    .but(
        Confidence::Likely,
        &[Code::AppTlsRequired, Code::AppNotHttp],
        Some(format!("reachwhy doctor https://{who}/")),
    )
}

fn cut(round: &Round<'_>, report: &HttpReport, errno: &str) -> Finding {
    let who = service(round);
    let begun = report.received > 0;
    let code = if begun { Code::AppResetMidResponse } else { Code::TcpResetByServer };
    let when =
        if begun { format!("after {} octets of the answer", report.received) } else { "before any answer".to_owned() };
    let forged = forged(round);
    let place = if forged == Some(true) { Where::Path } else { Where::Server };
    let code = if forged == Some(true) && !begun { Code::TcpResetByMiddlebox } else { code };
    let confidence = if forged.is_some() { Confidence::Proven } else { Confidence::Likely };
    let also: &[Code] = if forged.is_some() { &[] } else { &[Code::TcpResetByMiddlebox] };
    let by = if place == Where::Path { "Something between the hosts" } else { "The server" };
    Finding::new(code, place, who.clone(), format!("{by} resets the connection to {who} {when}."))
        .seen(format!("read(2) gave {errno} {when}"), "the connection")
        .seen_if(forged.map(|forged| {
            let says = if forged { "the server sent no reset" } else { "the server sent the reset" };
            Observation::new(says, "capture on the server")
        }))
        .fix("read the service's own log: a crash, a limit, a closed worker", String::new(), String::new())
        .but(confidence, also, None)
}

/// Whether a reset that came in was not the server's; `None` where that cannot be told.
fn forged(round: &Round<'_>) -> Option<bool> {
    let known = round.known;
    let server = known.server.as_ref()?;
    if server.end.watch.frames_lost > 0 {
        return None;
    }
    let frames = server.frames.as_ref()?;
    Some(!frames.iter().any(|f| f.outgoing && known.is_flow(f, Direction::Reply) && f.what.is_reset()))
}

/// Messages that are cut, or run into each other.
fn misframed(round: &Round<'_>, report: &HttpReport) -> Finding {
    let who = service(round);
    Finding::new(
        Code::AppFraming,
        Where::Server,
        format!("the framing of {who}"),
        format!("Service {who} cuts its messages wrong: where one ends and the next begins cannot be told."),
    )
    .seen(report.misframed.clone().unwrap_or_default(), "HTTP answer (RFC 9112 §6)")
    .fix(
        "have the service announce the length it really sends (Content-Length or chunks), once, and read in a loop until a message is whole: TCP carries octets, not messages",
        String::new(),
        String::new(),
    )
}

fn truncated(round: &Round<'_>, report: &HttpReport) -> Finding {
    let who = service(round);
    let promised = report.body_expected.map_or_else(|| "an end mark".to_owned(), |n| format!("{n} octets"));
    Finding::new(
        Code::AppTruncated,
        Where::Server,
        who.clone(),
        format!("Service {who} ends its answer before it is complete."),
    )
    .seen(format!("{} octets of body came, {promised} had been promised", report.body_received), "HTTP answer")
    .fix("read the service's own log: it closed the connection in the middle", String::new(), String::new())
}

fn stalled(round: &Round<'_>, report: &HttpReport) -> Finding {
    let who = service(round);
    if let Some(finding) = transfer::stopped(round).or_else(|| transfer::lossy_alone(round)) {
        let says = format!("{} octets of body came in {:.0} ms, then nothing", report.body_received, report.ms);
        return finding.seen(says, "HTTP answer");
    }
    Finding::new(
        Code::AppSlow,
        Where::Server,
        who.clone(),
        format!("The answer of {who} stops in the middle and does not go on in time."),
    )
    .seen(format!("{} octets of body came in {:.0} ms, then nothing", report.body_received, report.ms), "HTTP answer")
    .but(Confidence::Class, &[Code::PathMtuBlackhole, Code::AppTruncated, Code::PathLoss], None)
}

/// The connection stands, the request is out, nothing comes back.
fn no_response(round: &Round<'_>, report: &HttpReport) -> Finding {
    let known = round.known;
    let who = service(round);
    let waited = Observation::new(format!("no octet of an answer in {:.0} ms", report.ms), "the connection");
    let acked = acked(round);
    if let Some(finding) = filtered(round) {
        return finding.seen_if(Some(waited));
    }
    if let Some(server) = &known.server
        && let Some(finding) = stuck(round, server)
    {
        return finding.seen_if(Some(waited));
    }
    let by_path = || transfer::stopped(round).or_else(|| transfer::lossy_alone(round));
    if let Some(finding) = transfer::full(round).or_else(by_path) {
        return finding.seen_if(Some(waited));
    }
    let sure = known.server.is_some();
    let also: &[Code] = if sure { &[] } else { &[Code::TcpServerStuck, Code::AppSlow, Code::PathMtuBlackhole] };
    Finding::new(
        Code::AppNoResponse,
        Where::Server,
        who.clone(),
        format!("Service {who} takes the request and sends nothing back."),
    )
    .seen_if(Some(waited))
    .seen_if(acked.map(|acked| {
        let says =
            if acked { "the request was acknowledged by the server's TCP" } else { "the request was not acknowledged" };
        Observation::new(says, "capture on the client")
    }))
    .seen_if(known.server.as_ref().and_then(|server| conversation(round, server)).map(|socket| {
        let says = format!(
            "{} has read the request (Recv-Q {}) and not answered",
            server_socket::owner(socket),
            socket.recv_queue
        );
        Observation::new(says, "sock_diag on the server")
    }))
    .fix(
        "look at what the service is waiting for: its log, its threads, what it calls itself",
        String::new(),
        String::new(),
    )
    .but(
        if sure { Confidence::Proven } else { Confidence::Class },
        also,
        (!sure).then(|| super::with_both_ends(known)),
    )
}

/// A filter on either end that let the handshake pass and takes the data.
fn filtered(round: &Round<'_>) -> Option<Finding> {
    let known = round.known;
    let client = Some(&known.client);
    let server = known.server.as_ref();
    [
        (client, "output", Direction::Request, Code::FwClientOutputDrop),
        (server, "prerouting", Direction::Request, Code::FwServerInputDrop),
        (server, "input", Direction::Request, Code::FwServerInputDrop),
        (server, "output", Direction::Reply, Code::FwServerOutputDrop),
        (client, "input", Direction::Reply, Code::FwClientInputDrop),
    ]
    .into_iter()
    .find_map(|(side, hook, direction, code)| firewall::partly(side?, hook, direction, code))
}

/// Whether the server's TCP acknowledged the request; `None` without a capture.
fn acked(round: &Round<'_>) -> Option<bool> {
    let known = round.known;
    let frames = known.client.frames.as_ref()?;
    let sent = frames.iter().position(|f| {
        f.outgoing && known.is_flow(f, Direction::Request) && matches!(f.what, Seen::Tcp { length, .. } if length > 0)
    })?;
    Some(frames[sent..].iter().any(|f| !f.outgoing && known.is_flow(f, Direction::Reply)))
}

/// The server's socket of this very connection.
fn conversation<'a>(round: &Round<'_>, server: &Side<'a>) -> Option<&'a SocketFact> {
    let local = round.known.exchange()?.local?;
    server_socket::sockets(server)?.iter().find(|socket| {
        socket.transport == Transport::Tcp
            && socket.state != SocketState::Listen
            && socket.local_port == round.known.port()
            && socket.remote_port == local.port()
            && socket.remote.to_canonical() == local.ip().to_canonical()
    })
}

/// The process does not take its connections, or is stopped.
fn stuck(round: &Round<'_>, server: &Side<'_>) -> Option<Finding> {
    let known = round.known;
    let (target, port) = (known.address?, known.port());
    let sockets = server_socket::sockets(server)?;
    let listener = sockets.iter().find(|socket| socket.accepts(Transport::Tcp, target, port))?;
    let ours = conversation(round, server);
    let halted = listener.owners.iter().find(|owner| matches!(owner.state, 'T' | 't'));
    // An unaccepted connection belongs to no process yet: its inode is 0.
    let unaccepted = listener.recv_queue > 0 && ours.is_none_or(|socket| socket.inode == 0);
    if halted.is_none() && !unaccepted {
        return None;
    }
    let who = server_socket::owner(listener);
    let full = listener.owners.iter().find_map(|owner| owner.fds.filter(|(open, limit)| open >= limit));
    let why = match (halted, full) {
        (Some(_), _) => "is stopped",
        (None, Some(_)) => "has no file descriptor left",
        (None, None) => "does not accept its connections",
    };
    let finding = Finding::new(
        Code::TcpServerStuck,
        Where::Server,
        who.clone(),
        format!("Process {who} on the server {why}, so the request waits in the kernel."),
    )
    .seen(
        format!("LISTEN {}:{port}: {} connections wait to be accepted", listener.local, listener.recv_queue),
        "sock_diag on the server",
    )
    .seen_if(halted.map(|owner| {
        Observation::new(format!("state {} (stopped)", owner.state), format!("/proc/{}/stat on the server", owner.pid))
    }))
    .seen_if(full.map(|(open, limit)| {
        Observation::new(format!("{open} of {limit} file descriptors open"), "/proc on the server")
    }));
    Some(match halted {
        Some(owner) => {
            finding.fix("let it run on", format!("kill -CONT {}", owner.pid), format!("kill -STOP {}", owner.pid))
        }
        None => finding.fix("find out what the process is doing; restart it", String::new(), String::new()),
    })
}
