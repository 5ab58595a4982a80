//! An answer that a gateway gives in the place of the service behind it.

use super::super::causes::Code;
use super::super::diagnosis::{Confidence, Where};
use super::{Finding, Round};
use crate::host::{SocketFact, SocketState, Transport};
use crate::probe::exchange::HttpReport;

/// What a gateway means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// It has nobody to pass the request to.
    Nobody,
    /// The one it passed it to failed.
    Failed,
    /// The one it passed it to did not answer in time.
    Late,
}

/// The pages that gateways write themselves: (who, words of the page in lower case, what it means).
const PAGES: &[(&str, &str, Means)] = &[
    ("HAProxy", "no server is available to handle this request", Means::Nobody),
    ("HAProxy", "the server returned an invalid or incomplete response", Means::Failed),
    ("HAProxy", "the server didn't respond in time", Means::Late),
    ("Envoy", "no healthy upstream", Means::Nobody),
    ("Envoy", "upstream connect error", Means::Failed),
    ("Envoy", "upstream request timeout", Means::Late),
    ("Traefik", "no available server", Means::Nobody),
    ("Varnish", "backend fetch failed", Means::Failed),
    ("Apache", "the proxy server received an invalid response from an upstream server", Means::Failed),
    ("Apache", "the gateway did not receive a timely response from the upstream server", Means::Late),
];

/// The gateway that speaks, and what it means; `None` where the answer may be the service's own.
fn speaks(report: &HttpReport, status: u16) -> Option<(String, Means)> {
    let page = report.page.as_deref().unwrap_or("").to_ascii_lowercase();
    if let Some((who, _, means)) = PAGES.iter().find(|(_, words, _)| page.contains(words)) {
        return Some(((*who).to_owned(), *means));
    }
    let header = |name: &str| report.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
    let server = header("server").unwrap_or("");
    let means = if status == 504 { Means::Late } else { Means::Failed };
    if page.contains("<center>nginx") || page.contains("<center>openresty") {
        return Some(("nginx".to_owned(), means));
    }
    if server.starts_with("awselb") {
        return Some(("the AWS balancer".to_owned(), if status == 503 { Means::Nobody } else { means }));
    }
    None
}

/// A 502, 503 or 504.
pub(super) fn gateway(round: &Round<'_>, report: &HttpReport, status: u16, who: &str) -> Finding {
    let target = &round.known.case.target;
    let spoke = speaks(report, status);
    let upstream = connecting(round);
    let behind = upstream
        .first()
        .map_or_else(|| "the service behind it".to_owned(), |socket| format!("{} behind it", socket_address(socket)));
    let (code, sentence) = match &spoke {
        Some((name, Means::Nobody)) => (
            Code::LbBackendDown,
            format!("Balancer {who} ({name}) answers {status}: it has no healthy backend to pass the request to."),
        ),
        Some((name, Means::Failed)) => (
            Code::AppBadGateway,
            format!("Gateway {who} ({name}) answers {status}: {behind} refused it or gave no proper answer."),
        ),
        Some((name, Means::Late)) => (
            Code::AppBadGateway,
            format!("Gateway {who} ({name}) answers {status}: {behind} did not answer it in time."),
        ),
        None => (
            Code::AppBadGateway,
            format!("Gateway {who} answers {status}: the service behind it failed or did not answer."),
        ),
    };
    let mut finding = Finding::new(code, Where::Server, format!("GET {} on {who}", target.path), sentence);
    if let Some(line) = report.page.as_deref().and_then(headline).filter(|_| spoke.is_some()) {
        finding = finding.seen(format!("its page says: {line}"), "HTTP answer");
    }
    for socket in &upstream {
        let says = format!(
            "{} waits for {} to take its connection (SYN-SENT)",
            super::server_socket::owner(socket),
            socket_address(socket)
        );
        finding = finding.seen(says, "sock_diag on the server");
    }
    let server = round.known.server.as_ref();
    if let Some(failed) = server.and_then(|server| server.grew("TcpAttemptFails")).filter(|failed| *failed > 0) {
        finding = finding.seen(
            format!(
                "{} of its own connections were refused or given up meanwhile (AttemptFails)",
                super::several(failed, "attempt")
            ),
            "/proc/net/snmp on the server",
        );
    }
    let vantage = round.known.case.server.as_ref().map(|end| end.vantage.clone());
    let address = upstream.first().map_or_else(|| "BACKEND:PORT".to_owned(), |socket| socket_address(socket));
    let from = vantage.map_or_else(|| format!(" --from ssh:{}", target.host), |vantage| format!(" --from {vantage}"));
    let next = format!("reachwhy doctor {address}{from}  # from the gateway to the service behind it");
    let also: &[Code] = match (&spoke, code) {
        (None, _) => &[Code::LbBackendDown, Code::AppHttpServerError],
        (_, Code::AppBadGateway) => &[Code::LbBackendDown],
        _ => &[],
    };
    let sure = if spoke.is_some() { Confidence::Proven } else { Confidence::Likely };
    finding
        .fix(
            if code == Code::LbBackendDown {
                "look at the backends and the health check that took them out, from the balancer"
            } else {
                "look from the gateway at the service behind it"
            },
            String::new(),
            String::new(),
        )
        .but(sure, also, Some(next))
}

/// The page's first words that say something.
fn headline(page: &str) -> Option<String> {
    let mut text = String::new();
    let mut inside = false;
    for c in page.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    let words: Vec<&str> = text.split_whitespace().take(24).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Connections of the gateway's own that nobody has taken yet.
fn connecting<'a>(round: &Round<'a>) -> Vec<&'a SocketFact> {
    let known = round.known;
    let Some(server) = &known.server else { return Vec::new() };
    let Some(sockets) = super::server_socket::sockets(server) else { return Vec::new() };
    let Some(target) = known.address else { return Vec::new() };
    let listener = sockets.iter().find(|socket| socket.accepts(Transport::Tcp, target, known.port()));
    let names: Vec<&str> = listener.iter().flat_map(|socket| &socket.owners).map(|owner| owner.name.as_str()).collect();
    sockets
        .iter()
        .filter(|socket| socket.transport == Transport::Tcp && socket.state == SocketState::SynSent)
        .filter(|socket| names.is_empty() || socket.owners.iter().any(|owner| names.contains(&owner.name.as_str())))
        .collect()
}

fn socket_address(socket: &SocketFact) -> String {
    std::net::SocketAddr::new(socket.remote, socket.remote_port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_without_its_tags() {
        let page = "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>";
        assert_eq!(
            headline(page).as_deref(),
            Some("503 Service Unavailable No server is available to handle this request.")
        );
        assert_eq!(headline("<html></html>"), None);
    }
}
