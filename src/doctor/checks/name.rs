//! Does the name lead to an address, and to the right one?

use std::net::IpAddr;

use super::super::case::{NameFinding, Resolution};
use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::super::target::Scheme;
use super::{Finding, Round};
use crate::dns::report::Connect;
use crate::probe::exchange::{HttpEnd, Outcome};

const ID: &str = "name";

/// A name that takes an application longer than this is a fault of its own, milliseconds.
const SLOW_MS: f64 = 1000.0;

pub(super) fn check(round: &mut Round<'_>) {
    let Some(found) = &round.known.case.name else { return };
    let Some(first) = found.addresses.first() else {
        let finding = unresolved(round, found);
        round.fail(ID, finding);
        note_time(round, found);
        return;
    };
    let ended = ended(round);
    let others: &[Connect] = round.known.trial().map_or(&[], |trial| &trial.others);
    let finding = wrong_address(found, others, ended)
        .or_else(|| broken_v6(found, others, *first, ended))
        .or_else(|| slow(found, ended));
    if let Some(finding) = finding {
        round.fail(ID, finding);
    } else {
        let more = match found.addresses.len() {
            1 => String::new(),
            n => format!(" (first of {n})"),
        };
        let source = found.source.as_ref().map(|source| format!(", says {source}")).unwrap_or_default();
        round.pass(Layer::Dns, ID, format!("{} is {first}{more}{source}", found.name));
    }
    note_time(round, found);
    for odd in &found.findings {
        let named = round.finding.as_ref().is_some_and(|finding| Some(finding.code) == code(odd));
        if !named {
            round.note(Status::Warn, Layer::Dns, ID, odd.message.clone());
        }
    }
    let other = others.iter().find(|one| one.error.is_none() && found.addresses.contains(&one.address));
    if let Some(other) = other.filter(|_| ended != Ended::Well) {
        let says = format!("{} takes the connection, and is tried only after {first}", other.address);
        round.note(Status::Info, Layer::Dns, ID, says);
    }
}

fn note_time(round: &mut Round<'_>, found: &Resolution) {
    if let Some(check) = round.checks.iter_mut().rfind(|check| check.id == ID) {
        check.ms = Some(found.ms);
    }
}

/// How the conversation with the first address ended, as far as the name may be to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Well.
    Well,
    /// There was no connection.
    Unconnected,
    /// There was one, to something that does not give what was asked for.
    Unserved,
}

fn ended(round: &Round<'_>) -> Ended {
    let known = round.known;
    if known.case.target.scheme == Scheme::Host {
        return if known.echoed() == Some(false) { Ended::Unconnected } else { Ended::Well };
    }
    let Some(exchange) = known.exchange() else { return Ended::Well };
    if exchange.connect != Outcome::Done {
        return Ended::Unconnected;
    }
    let tls = exchange.tls.as_ref().is_some_and(|tls| tls.failure.is_some());
    let http = exchange.http.as_ref().is_some_and(|http| {
        http.status.is_none_or(|status| status >= 400) || !matches!(http.end, HttpEnd::Complete | HttpEnd::Enough)
    });
    if tls || http { Ended::Unserved } else { Ended::Well }
}

/// The code of the catalogue.
fn code(found: &NameFinding) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == found.code)
}

/// What the name's own judge says, as a break of this walk.
fn of(code: Code, found: &NameFinding) -> Finding {
    let mut finding = Finding::new(code, Where::Dns, found.object.clone(), found.message.clone());
    for says in &found.evidence {
        finding = finding.seen(says.clone(), "name resolution on the client");
    }
    match (code, found.object.rsplit_once(':').filter(|(_, line)| line.parse::<usize>().is_ok())) {
        (Code::DnsHostsOverride, Some((file, line))) => finding.fix(
            "if the DNS is right: takes the line out of use",
            format!("sed -i '{line}s/^/#/' {file}"),
            format!("sed -i '{line}s/^#//' {file}"),
        ),
        _ => match &found.fix {
            Some(fix) => finding.fix(fix.clone(), String::new(), String::new()),
            None => finding,
        },
    }
}

/// No address at all.
fn unresolved(round: &Round<'_>, found: &Resolution) -> Finding {
    let eai = found.eai.as_deref().unwrap_or("");
    let said = found.error.clone().unwrap_or_else(|| "no address".to_owned());
    let said = format!("getaddrinfo: {said}{}", if eai.is_empty() { String::new() } else { format!(" ({eai})") });
    let faults = found.findings.iter().filter(|one| one.fault);
    let named = faults.filter_map(|one| {
        let code = match one.code.as_str() {
            // The server's answer is none, whatever makes it so.
            "dns.malformed" | "dns.dnssec_bogus" => Code::DnsServfail,
            _ => code(one)?,
        };
        Some(of(code, one))
    });
    // A name that resolves slowly and to nothing does not resolve.
    if let Some(finding) = named.clone().find(|finding| finding.code != Code::DnsSlow).or_else(|| named.clone().next())
    {
        return finding.seen(said, "the C library's resolver");
    }
    let text = round.known.case.client.facts.names.resolv_conf.text.as_deref();
    let servers: Vec<&str> = text
        .unwrap_or("")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .collect();
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
    Finding::new(code, Where::Dns, found.name.clone(), sentence)
        .seen(said, "the C library's resolver")
        .fix(
            "check the name for a typing error, then the hosts file and the name servers",
            String::new(),
            String::new(),
        )
        .but(Confidence::Class, also, Some(format!("reachwhy dns {}", found.name)))
}

/// Somebody else gives the name another address, and that one works.
fn wrong_address(found: &Resolution, others: &[Connect], ended: Ended) -> Option<Finding> {
    if ended == Ended::Well {
        return None;
    }
    let works = |address: &IpAddr| others.iter().find(|one| one.address == *address && one.error.is_none());
    found.findings.iter().filter(|one| one.fault).find_map(|one| {
        let code = code(one)
            .filter(|code| matches!(code, Code::DnsHostsOverride | Code::DnsServersDisagree | Code::DnsSearchDomain))?;
        let other: &Connect = one.mentions().iter().filter(|ip| !found.addresses.contains(ip)).find_map(works)?;
        let finding = of(code, one).seen(
            format!("{} port {} takes the connection ({:.1} ms)", other.address, other.port, other.ms),
            "connect(2) on the client",
        );
        Some(match ended {
            Ended::Unserved => finding.but(
                Confidence::Likely,
                &[],
                Some(format!(
                    "reachwhy doctor {}:{}  # the other address, as this one answers",
                    other.address, other.port
                )),
            ),
            _ => finding,
        })
    })
}

/// IPv6 comes first and gets nowhere; IPv4 works.
fn broken_v6(found: &Resolution, others: &[Connect], first: IpAddr, ended: Ended) -> Option<Finding> {
    if ended != Ended::Unconnected || first.is_ipv4() {
        return None;
    }
    let other = others
        .iter()
        .find(|one| one.address.is_ipv4() && one.error.is_none() && found.addresses.contains(&one.address))?;
    Some(
        Finding::new(
            Code::DnsV6PreferredBroken,
            Where::Dns,
            found.name.clone(),
            format!(
                "IPv6 address {first} of {} is tried first and does not work; IPv4 address {} does.",
                found.name, other.address
            ),
        )
        .seen(format!("{first} took no connection"), "connect(2) on the client")
        .seen(
            format!("{} port {} takes the connection ({:.1} ms)", other.address, other.port, other.ms),
            "connect(2) on the client",
        )
        .fix(
            "puts IPv4 first on the client until IPv6 to it works (or take the AAAA record out of the zone)",
            "echo 'precedence ::ffff:0:0/96 100' >> /etc/gai.conf",
            "sed -i '/^precedence ::ffff:0:0\\/96 100$/d' /etc/gai.conf",
        ),
    )
}

/// All is well but for the time the name took.
fn slow(found: &Resolution, ended: Ended) -> Option<Finding> {
    let told = found.findings.iter().find(|one| code(one) == Some(Code::DnsSlow));
    if ended != Ended::Well || found.ms < SLOW_MS && told.is_none() {
        return None;
    }
    Some(match told {
        Some(told) => of(Code::DnsSlow, told),
        None => Finding::new(
            Code::DnsSlow,
            Where::Dns,
            found.name.clone(),
            format!("The name {} takes {:.1} s to resolve.", found.name, found.ms / 1e3),
        )
        .seen(format!("getaddrinfo answered after {:.0} ms", found.ms), "the C library's resolver"),
    })
}

impl NameFinding {
    /// The addresses that somebody gives the name, by the evidence: `WHO: ADDRESS, …`, or `NAME itself is ADDRESS (WHO)`.
    pub(crate) fn mentions(&self) -> Vec<IpAddr> {
        let answers = self.evidence.iter().map(|says| match says.split_once(": ") {
            Some((_, answer)) => answer,
            None => says.split(" (").next().unwrap_or(says),
        });
        answers.flat_map(|says| says.split([' ', ',', ';'])).filter_map(|word| word.parse().ok()).collect()
    }
}
