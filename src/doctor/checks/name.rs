//! Does the name lead to an address?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Where};
use super::{Finding, Round};

const ID: &str = "name";

pub(super) fn check(round: &mut Round<'_>) {
    let Some(found) = &round.known.case.name else { return };
    let ms = found.ms;
    if let Some(first) = found.addresses.first() {
        let more = match found.addresses.len() {
            1 => String::new(),
            n => format!(" (first of {n})"),
        };
        let summary = format!("{} is {first}{more}", found.name);
        round.pass(Layer::Dns, ID, summary).ms = Some(ms);
        return;
    }
    let text = round.known.case.client.facts.names.resolv_conf.text.as_deref();
    let servers: Vec<&str> = text
        .unwrap_or("")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect();
    let said = found.error.clone().unwrap_or_else(|| "no address".to_owned());
    let eai = found.eai.as_deref().unwrap_or("");
    let (code, also, sentence): (Code, &[Code], String) = match eai {
        "EAI_AGAIN" | "EAI_FAIL" if servers.is_empty() => (
            Code::DnsNoResolver,
            &[Code::DnsServerUnreachable],
            format!("No name server is configured on the client, so {} does not resolve.", found.name),
        ),
        "EAI_AGAIN" | "EAI_FAIL" => (
            Code::DnsServerUnreachable,
            &[Code::DnsServfail, Code::DnsRefused],
            format!("The name servers of the client ({}) gave no answer for {}.", servers.join(", "), found.name),
        ),
        _ => (
            Code::DnsNxdomain,
            &[Code::DnsNsswitch, Code::DnsSearchDomain],
            format!("The name {} has no address on this host.", found.name),
        ),
    };
    let finding = Finding::new(code, Where::Dns, found.name.clone(), sentence)
        .seen(
            format!("getaddrinfo: {said}{}", if eai.is_empty() { String::new() } else { format!(" ({eai})") }),
            "the C library's resolver",
        )
        .fix(
            "check the name for a typing error, then the hosts file and the name servers",
            String::new(),
            String::new(),
        )
        .but(Confidence::Class, also, Some(format!("getent ahosts {}", found.name)));
    round.fail(ID, finding);
    if let Some(check) = round.checks.last_mut() {
        check.ms = Some(ms);
    }
}
