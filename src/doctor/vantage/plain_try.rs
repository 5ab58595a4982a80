//! Trying a connection with plain tools: a shell's own connect (bash, else nc), ping, getent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use super::protocol::{Answer, TryPlan};
use crate::host::Transport;
use crate::host::plain::Section;
use crate::probe::{Outcome, ProbeKind, ProbeReport, ProbeSpec, Reply, ReplyKind};

/// What a shell may be given as a word.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The commands that look a name up.
pub(super) fn resolve(name: &str) -> String {
    format!("getent ahosts {}", quoted(name))
}

/// The commands of a trial; `None` where plain tools cannot have that conversation.
pub(super) fn commands(plan: &TryPlan) -> Option<Vec<(String, String)>> {
    let mut commands = Vec::new();
    if let Some(exchange) = &plan.exchange {
        let plain = exchange.transport == Transport::Tcp && exchange.tls_name.is_none() && exchange.http.is_none();
        if !plain || matches!(exchange.to, SocketAddr::V6(to) if to.scope_id() != 0) {
            return None;
        }
        let (host, port) = (exchange.to.ip(), exchange.to.port());
        let seconds = exchange.connect_ms.div_ceil(1000).max(1);
        commands.push((
            "connect".to_owned(),
            format!(
                "s=$(date +%s%N); if command -v bash >/dev/null; then timeout {seconds} bash -c 'exec 3<>/dev/tcp/{host}/{port}'; \
                 elif command -v nc >/dev/null; then timeout {seconds} nc -zv -w {seconds} {host} {port}; \
                 else echo no tool; (exit 99); fi; r=$?; echo \"took $s $(date +%s%N)\"; (exit $r)"
            ),
        ));
    }
    commands.extend(plan.echo.iter().filter_map(ping));
    Some(commands)
}

/// The ping of an echo probe.
pub(super) fn ping(spec: &ProbeSpec) -> Option<(String, String)> {
    match &spec.kind {
        ProbeKind::IcmpEcho { dst, ttl: None, .. } => {
            let family = if dst.is_ipv4() { "" } else { "-6 " };
            Some((format!("ping {}", spec.id), format!("ping {family}-n -c 2 -i 0.3 -W 1 {dst}")))
        }
        _ => None,
    }
}

/// What came of a trial.
pub(super) fn trial(found: &BTreeMap<String, Section>, plan: &TryPlan) -> Answer {
    let exchange = match (&plan.exchange, found.get("connect")) {
        (Some(_), Some(section)) => match connected(section) {
            Some(report) => Some(report),
            None => {
                return Answer::Failed { why: format!("a connection cannot be tried there: {}", section.text.trim()) };
            }
        },
        _ => None,
    };
    let echo = plan.echo.as_ref().and_then(|spec| echoed(found, spec));
    // Read as an agent's own line would be.
    match serde_json::from_value(json!({"exchange": exchange, "neighbour": null, "echo": echo})) {
        Ok(trial) => Answer::Trial(Box::new(trial)),
        Err(error) => Answer::Failed { why: error.to_string() },
    }
}

/// How the shell's connect ended; `None` where it says nothing that is known.
fn connected(section: &Section) -> Option<serde_json::Value> {
    let ms = section.text.lines().find_map(|line| {
        let (from, to) = line.strip_prefix("took ")?.split_once(' ')?;
        let (from, to): (u64, u64) = (from.parse().ok()?, to.trim().parse().ok()?);
        Some(f64::from(u32::try_from(to.saturating_sub(from) / 1000).ok()?) / 1e3)
    });
    let errnos = [
        ("onnection refused", "ECONNREFUSED"),
        ("o route to host", "EHOSTUNREACH"),
        ("etwork is unreachable", "ENETUNREACH"),
        ("etwork unreachable", "ENETUNREACH"),
        ("ermission denied", "EACCES"),
        ("peration not permitted", "EPERM"),
        ("nvalid argument", "EINVAL"),
        ("annot assign requested address", "EADDRNOTAVAIL"),
    ];
    let errno = errnos.iter().find(|(says, _)| section.text.contains(says)).map(|(_, errno)| *errno);
    let timed_out = section.text.contains("timed out") || section.exit == 124 || section.exit == 143;
    let outcome = match (section.exit, errno) {
        (0, _) => json!({"outcome": "done"}),
        (_, Some(errno)) => json!({"outcome": "error", "errno": errno}),
        _ if timed_out => json!({"outcome": "timeout"}),
        _ => return None,
    };
    Some(json!({"connect": outcome, "connect_ms": ms.unwrap_or(0.0)}))
}

/// What ping says of an echo probe; `None` where it cannot ping at all.
pub(super) fn echoed(found: &BTreeMap<String, Section>, spec: &ProbeSpec) -> Option<ProbeReport> {
    let ProbeKind::IcmpEcho { dst, .. } = &spec.kind else { return None };
    let section = found.get(&format!("ping {}", spec.id))?;
    let replies: Vec<Reply> = section
        .text
        .lines()
        .filter(|line| line.contains("bytes from") && line.contains("time="))
        .zip(1_u8..)
        .map(|(line, number)| {
            let after = |key: &str| {
                line.split_once(key).and_then(|(_, rest)| rest.split([' ', '\t']).next()).map(str::to_owned)
            };
            Reply {
                from: *dst,
                mac: None,
                kind: ReplyKind::EchoReply,
                ttl: after("ttl=").and_then(|ttl| ttl.parse().ok()),
                rtt_us: after("time=").and_then(|ms| ms.parse::<f64>().ok()).map(|ms| ms * 1e3),
                rtt_source: None,
                at_ns: 0,
                number,
                tcp: None,
                duplicate: false,
                late: false,
            }
        })
        .collect();
    // 1: sent and not answered; 2 and more: it could not be sent, or there is no ping.
    if replies.is_empty() && section.exit != 1 {
        return None;
    }
    let outcome = if replies.is_empty() { Outcome::Silent } else { Outcome::Answered };
    Some(ProbeReport { id: spec.id, outcome, local_error: None, sent: Vec::new(), replies })
}

/// What `getent ahosts` says: the addresses in the order in which an application would try them.
pub(super) fn resolved(found: &BTreeMap<String, Section>, name: &str) -> Answer {
    let section = found.get("resolve");
    let mut addresses: Vec<IpAddr> = Vec::new();
    for line in section.map_or("", |section| section.text.as_str()).lines() {
        if let Some(address) = line.split_whitespace().next().and_then(|word| word.parse().ok())
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    let error = match section.map(|section| section.exit) {
        Some(0) => None,
        // nss: the key was not found.
        Some(2) => Some("the name does not resolve there (getent)".to_owned()),
        _ => return Answer::Failed { why: "names cannot be looked up there: getent is missing".to_owned() },
    };
    let eai = error.as_ref().map(|_| "EAI_NONAME");
    match serde_json::from_value(json!({"name": name, "addresses": addresses, "error": error, "eai": eai, "ms": 0.0})) {
        Ok(resolution) => Answer::Resolved(resolution),
        Err(error) => Answer::Failed { why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(exit: i32, text: &str) -> Section {
        Section { exit, text: text.to_owned() }
    }

    #[test]
    fn a_shells_connect_is_understood() {
        let outcome = |exit, text: &str| connected(&section(exit, text)).map(|report| report["connect"].clone());
        assert_eq!(outcome(0, "took 1 2"), Some(json!({"outcome": "done"})));
        let refused = "bash: connect: Connection refused\nbash: line 1: /dev/tcp/10.0.0.1/80: Connection refused\n";
        assert_eq!(outcome(1, refused), Some(json!({"outcome": "error", "errno": "ECONNREFUSED"})));
        assert_eq!(outcome(124, "took 1 x"), Some(json!({"outcome": "timeout"})));
        assert_eq!(outcome(99, "no tool"), None);
        let timed = connected(&section(0, "took 1000000000 1002500000")).unwrap();
        assert_eq!(timed["connect_ms"], 2.5);
    }

    #[test]
    fn a_name_stays_a_word() {
        assert_eq!(quoted("a'b;c"), r"'a'\''b;c'");
    }
}
