//! What is wrong with a name, from all that was gathered: the `dns.*` causes, each with its evidence.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::compare;
use super::conf::Conf;
use super::direct::Dnssec;
use super::dnssec::Security;
use super::lookup::{Eai, Lookup, Origin, ServiceRun, in_short};
use super::message::Rcode;
use super::report::{
    Alias, Finding, Gathered, Report, ServerView, Severity, Verdict, chain_of, ms, result, server_with_line,
};
use super::send::{Exchange, Outcome};
use super::wire::NetErrorKind;

/// Codes of the catalogue.
pub mod code {
    /// A line of the hosts file answers, and the DNS says something else.
    pub const HOSTS_OVERRIDE: &str = "dns.hosts_override";
    /// The name does not exist.
    pub const NXDOMAIN: &str = "dns.nxdomain";
    /// The name exists, without a record of the kind.
    pub const NODATA: &str = "dns.nodata";
    /// The aliases lead round in a circle.
    pub const ALIAS_LOOP: &str = "dns.alias_loop";
    /// The server failed.
    pub const SERVFAIL: &str = "dns.servfail";
    /// The server refuses.
    pub const REFUSED: &str = "dns.refused";
    /// The server neither knows nor asks others.
    pub const LAME: &str = "dns.lame";
    /// No server answers.
    pub const SERVER_UNREACHABLE: &str = "dns.server_unreachable";
    /// No server is configured.
    pub const NO_RESOLVER: &str = "dns.no_resolver";
    /// It resolves too slowly.
    pub const SLOW: &str = "dns.slow";
    /// A search domain makes another name of it.
    pub const SEARCH_DOMAIN: &str = "dns.search_domain";
    /// Servers give different answers.
    pub const SERVERS_DISAGREE: &str = "dns.servers_disagree";
    /// IPv6 is tried first and does not work.
    pub const V6_PREFERRED_BROKEN: &str = "dns.v6_preferred_broken";
    /// nsswitch.conf keeps the resolver from asking where the answer is.
    pub const NSSWITCH: &str = "dns.nsswitch";
    /// An answer cannot be read as it should.
    pub const MALFORMED: &str = "dns.malformed";
    /// Something answered that was not asked.
    pub const SPOOFED: &str = "dns.spoofed";
    /// DNSSEC signatures are wrong.
    pub const DNSSEC_BOGUS: &str = "dns.dnssec_bogus";
    /// A file is not read as it was written.
    pub const CONFIG: &str = "dns.config";
    /// The C library says something else than the replay.
    pub const REPLAY_DIFFERS: &str = "dns.replay_differs";
}

/// A lookup that takes an application longer is worth a word.
pub const SLOW_MS: f64 = 1000.0;

/// What else was found out, beside the replay and the servers' views.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Search domains that do not exist.
    pub missing_suffixes: Vec<String>,
    /// What a server says to the name exactly as given, where the search list made another of it.
    pub as_is: Option<ServerView>,
    /// Whether servers were compared.
    pub compared: bool,
    /// Whether nscd keeps a cache before all this.
    pub nscd: bool,
}

/// Judges: fills in the disagreements, the findings and the verdict.
pub fn judge(report: &mut Report, gathered: &Gathered<'_>, extra: &Extra) {
    let lookup = gathered.lookup;
    if extra.compared {
        report.disagreement = Some(compare::differences(report, lookup));
    }
    if let Some(difference) = compare::with_check(report, lookup) {
        report.disagreement.get_or_insert_default().push(difference);
    }
    let mut findings = Vec::new();
    if report.error.is_some() {
        findings.push(failure(report, gathered, extra));
    }
    differences(report, gathered, &mut findings);
    servers(report, lookup, &mut findings);
    search_list(report, gathered, extra, &mut findings);
    slowness(report, lookup, &mut findings);
    connections(report, &mut findings);
    odd_answers(report, lookup, &mut findings);
    files(gathered, extra, &mut findings);
    // Wrong signatures are why such a server fails, not one more thing beside it.
    findings.sort_by_key(|finding| (finding.severity, finding.code != code::DNSSEC_BOGUS));
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert((finding.code, finding.object.clone(), finding.message.clone())));
    report.findings = findings;
    let unknown = lookup.runs.iter().any(|run| run.unknown) && report.answers.is_empty();
    report.verdict = if report.findings.iter().any(|finding| finding.severity == Severity::Fault) {
        if unknown || report.partial { Verdict::Unknown } else { Verdict::Problem }
    } else if unknown || report.partial {
        Verdict::Unknown
    } else {
        Verdict::Ok
    };
}

fn finding(code: &'static str, severity: Severity, object: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { code, severity, object: object.into(), message: message.into(), evidence: Vec::new(), fix: None }
}

/// The run of the DNS, where it came to it.
fn dns_run(lookup: &Lookup) -> Option<&ServiceRun> {
    lookup.runs.iter().rfind(|run| run.service.name == "dns")
}

fn evidence(exchange: &Exchange) -> String {
    format!(
        "{} asked for {} {} by {}: {}",
        server_with_line(&exchange.server),
        exchange.question.name,
        exchange.question.rtype,
        exchange.transport,
        result(exchange)
    )
}

/// Why there is no answer.
fn failure(report: &Report, gathered: &Gathered<'_>, extra: &Extra) -> Finding {
    let (name, conf, lookup) = (gathered.name, gathered.conf, gathered.lookup);
    let known = report.servers.iter().find(|view| !view.answers.is_empty());
    if let Some(found) = not_asked(report, gathered, known) {
        return found;
    }
    let Some(run) = dns_run(lookup) else {
        let services = report.nsswitch.services.join(" ");
        let message = match lookup.error {
            Some(Eai::AddrFamily) => format!("{name} is an address of the other family."),
            _ => {
                format!("No source that nsswitch.conf names ({services}) knows {name}, and the DNS is not one of them.")
            }
        };
        return finding(code::NXDOMAIN, Severity::Fault, name, message);
    };
    let of =
        |want: &dyn Fn(&Outcome) -> bool| run.exchanges.iter().filter(|one| want(&one.outcome)).collect::<Vec<_>>();
    let passed = |why: &'static str| of(&|outcome| matches!(outcome, Outcome::PassedOver(_, own) if *own == why));
    let silent = of(&|outcome| matches!(outcome, Outcome::Timeout | Outcome::Net(_)));
    let answered = of(&|outcome| matches!(outcome, Outcome::Answer(_)));
    let malformed = of(&|outcome| matches!(outcome, Outcome::Malformed(_)));
    let list = |exchanges: &[&Exchange]| {
        let mut said: Vec<String> = Vec::new();
        for one in exchanges.iter().map(|one| evidence(one)) {
            // Rounds repeat themselves.
            if !said.contains(&one) {
                said.push(one);
            }
        }
        said.truncate(6);
        said
    };
    let with = |mut finding: Finding, exchanges: &[&Exchange], fix: Option<&str>| {
        finding.evidence.extend(list(exchanges));
        finding.fix = fix.map(str::to_owned);
        finding
    };
    let whom = |exchanges: &[&Exchange]| {
        let mut names: Vec<String> = exchanges.iter().map(|one| server_with_line(&one.server)).collect();
        names.dedup();
        names.join(", ")
    };
    if run.exchanges.is_empty() {
        let mut found =
            finding(code::NXDOMAIN, Severity::Fault, name, format!("{name} is not asked for: {}.", run.says));
        if !name.is_ascii() {
            found.fix =
                Some("ask for its xn-- form: browsers do that by themselves (IDNA), getaddrinfo does not".to_owned());
        }
        return found;
    }
    let last = answered.last().and_then(|exchange| exchange.outcome.message());
    match last.map(|message| message.header_rcode()) {
        Some(Rcode::NXDOMAIN | Rcode::NOERROR) if !extra.missing_suffixes.is_empty() => {
            let suffix = extra.missing_suffixes.join(", ");
            let place = search_place(conf);
            let message =
                format!("{name} is looked for in the search domain `{suffix}`, which does not exist; no other has it.");
            let found = finding(code::SEARCH_DOMAIN, Severity::Fault, place, message);
            with(found, &answered, Some("set the search line of resolv.conf to the domain the name is in"))
        }
        Some(Rcode::NXDOMAIN) => {
            let tried: Vec<&str> = run.candidates.iter().map(|one| one.name.as_str()).collect();
            let tried = if tried.len() > 1 { format!(" (tried: {})", tried.join(", ")) } else { String::new() };
            let mut found =
                finding(code::NXDOMAIN, Severity::Fault, name, format!("The name {name} does not exist{tried}."));
            if conf.search.is_empty() && !name.contains('.') {
                found.fix = Some("give the whole name, or set a search domain in resolv.conf".to_owned());
            } else {
                found.fix =
                    Some("check the name for a typing error; else the record is missing in its zone".to_owned());
            }
            with_ttl(with(found.clone(), &answered, found.fix.as_deref()), report)
        }
        Some(Rcode::NOERROR) if matches!(lookup.error, Some(Eai::NoData | Eai::NoName)) => {
            let aliases = last.map(|message| chain_of(&message.answers)).unwrap_or_default();
            with(without_records(name, &report.rtype, &aliases), &answered, None)
        }
        _ if !malformed.is_empty() || run.says.contains("damaged") => {
            let bad = if malformed.is_empty() { &answered } else { &malformed };
            let message = "The server's answer cannot be read.".to_owned();
            with(finding(code::MALFORMED, Severity::Fault, whom(bad), message), bad, None)
        }
        Some(other) => {
            let message = format!("The server answers {other} to {name}.");
            with(finding(code::SERVFAIL, Severity::Fault, whom(&answered), message), &answered, None)
        }
        None => {
            for (why, code, message, fix) in [
                (
                    "SERVFAIL",
                    code::SERVFAIL,
                    "fails to answer",
                    "see the log of that server; its own way to the zone's servers is broken, or DNSSEC is",
                ),
                ("NOTIMP", code::SERVFAIL, "says that it does not do such questions", "use another server"),
                (
                    "REFUSED",
                    code::REFUSED,
                    "refuses to answer this host",
                    "allow this host on that server, or use one that serves it",
                ),
                (
                    "lame",
                    code::LAME,
                    "neither knows the name nor asks others for it",
                    "use a server that resolves for its clients",
                ),
            ] {
                let those = passed(why);
                if !those.is_empty() {
                    let message = format!("The name server {} {message} ({why}).", whom(&those));
                    return with(finding(code, Severity::Fault, whom(&those), message), &those, Some(fix));
                }
            }
            no_answer(conf, &silent, with)
        }
    }
}

/// A name that is there, without what was asked for; by way of aliases it is their end that lacks it.
fn without_records(name: &str, what: &str, aliases: &[Alias]) -> Finding {
    let Some(last) = aliases.last() else {
        let message = format!("The name {name} exists, and has no record of type {what}.");
        return finding(code::NODATA, Severity::Fault, name, message);
    };
    let way: Vec<&str> = aliases.iter().map(|alias| alias.to.as_str()).collect();
    if aliases.iter().any(|alias| alias.from.eq_ignore_ascii_case(&last.to)) {
        let message = format!("The aliases of {name} lead round in a circle: {name} → {}.", way.join(" → "));
        return finding(code::ALIAS_LOOP, Severity::Fault, name, message);
    }
    let message = format!(
        "{name} is an alias ({name} → {}), and the answer has no record of type {what} for its end.",
        way.join(" → ")
    );
    let mut found = finding(code::NODATA, Severity::Fault, last.to.clone(), message);
    found.fix = Some(format!("reachwhy dns {} tells what becomes of the name it leads to", last.to));
    found
}

fn with_ttl(mut found: Finding, report: &Report) -> Finding {
    if let Some(ttl) = report.servers.iter().find_map(|view| view.negative_ttl) {
        found.evidence.push(format!("servers may repeat this \"no\" for up to {ttl} s after the name is made"));
    }
    found
}

fn no_answer(
    conf: &Conf,
    silent: &[&Exchange],
    with: impl Fn(Finding, &[&Exchange], Option<&str>) -> Finding,
) -> Finding {
    let none = conf.resolv.servers.is_empty();
    let refused = silent.iter().all(|one| {
        matches!(&one.outcome, Outcome::Net(error) if matches!(error.kind, NetErrorKind::Refused | NetErrorKind::Unreachable))
    });
    if none {
        let what = if refused { "and nothing answers there" } else { "which does not answer" };
        let message = format!("{} names no server, so 127.0.0.1 is asked, {what}.", conf.paths.resolv);
        let found = finding(code::NO_RESOLVER, Severity::Fault, conf.paths.resolv.clone(), message);
        return with(found, silent, Some("put a line `nameserver ADDRESS` into resolv.conf"));
    }
    let servers: Vec<String> = conf.servers.iter().map(server_with_line).collect();
    let message = if servers.len() == 1 {
        format!("The name server {} does not answer.", servers[0])
    } else {
        format!("None of the name servers answers: {}.", servers.join(", "))
    };
    let found = finding(code::SERVER_UNREACHABLE, Severity::Fault, conf.paths.resolv.clone(), message);
    let fix = format!(
        "reachwhy doctor udp://{}",
        conf.servers.first().map_or_else(String::new, |one| one.address.to_string())
    );
    with(found, silent, Some(&fix))
}

fn search_place(conf: &Conf) -> String {
    match conf.resolv.search_line {
        Some(line) => format!("{}:{line}", conf.paths.resolv),
        None if conf.resolv.search.is_some() => "LOCALDOMAIN".to_owned(),
        None => "the host's own name".to_owned(),
    }
}

/// A source that knows the name was never asked.
fn not_asked(report: &Report, gathered: &Gathered<'_>, known: Option<&ServerView>) -> Option<Finding> {
    let (name, conf, lookup) = (gathered.name, gathered.conf, gathered.lookup);
    let place = match conf.services_line {
        Some(line) => format!("{}:{line}", conf.paths.nsswitch),
        None => conf.paths.nsswitch.clone(),
    };
    let line = report.nsswitch.services.join(" ");
    let dns_asked = dns_run(lookup).is_some();
    if let Some(view) = known.filter(|_| !dns_asked && !lookup.runs.is_empty()) {
        let ended = lookup.runs.last().filter(|_| lookup.never_asked.iter().any(|service| service == "dns"));
        let message = match ended {
            Some(run) => format!(
                "nsswitch.conf ends the lookup at `{}` ({}), before `dns`, which knows {name}.",
                run.service, run.says
            ),
            None => format!(
                "nsswitch.conf has no `dns` for hosts (`{line}`), so the DNS, which knows {name}, is never asked."
            ),
        };
        let mut found = finding(code::NSSWITCH, Severity::Fault, place, message);
        found.evidence.push(format!("{} says {}", view.server, view.answers.join(", ")));
        found.fix = Some(match ended {
            Some(run) => format!("take the action off `{}`, or put `dns` before it", run.service),
            None => format!("write `hosts: {} dns`", line.trim()),
        });
        return Some(found);
    }
    let in_hosts = conf.hosts.as_ref().and_then(|hosts| hosts.lookup(name).next());
    let files_asked = lookup.runs.iter().any(|run| run.service.name == "files");
    let entry = in_hosts.filter(|_| !files_asked && !lookup.runs.is_empty())?;
    let message =
        format!("nsswitch.conf (`{line}`) never asks the hosts file, whose line {} knows {name}.", entry.line);
    let mut found = finding(code::NSSWITCH, Severity::Fault, place, message);
    found.evidence.push(format!("{}:{}: {} {}", conf.paths.hosts, entry.line, entry.address, entry.name));
    found.fix = Some(format!("write `hosts: files {}`", line.trim()));
    Some(found)
}

fn differences(report: &Report, gathered: &Gathered<'_>, findings: &mut Vec<Finding>) {
    let conf = gathered.conf;
    for difference in report.disagreement.iter().flatten() {
        let parties = difference.parties.iter().map(|party| format!("{}: {}", party.who, in_short(&party.answer)));
        let (code, severity, object, fix) = match difference.between {
            "hosts" => {
                let line = report.answers.iter().find_map(|answer| answer.line);
                let place = line.map_or(conf.paths.hosts.clone(), |line| format!("{}:{line}", conf.paths.hosts));
                let fix = format!("if the DNS is right: reachwhy dns hosts --remove {}", report.name);
                let fix = line.map(|_| fix);
                (code::HOSTS_OVERRIDE, Severity::Fault, place, fix)
            }
            "getaddrinfo" => (code::REPLAY_DIFFERS, Severity::Warning, report.name.clone(), None),
            // Delivery networks answer each server with what is near to it.
            _ if report.cdn.is_some() => (code::SERVERS_DISAGREE, Severity::Info, report.name.clone(), None),
            _ => (code::SERVERS_DISAGREE, Severity::Fault, report.name.clone(), None),
        };
        let mut found = finding(code, severity, object, difference.says.clone());
        found.evidence.extend(parties);
        found.fix = fix;
        findings.push(found);
    }
}

/// Servers that cost something although the name resolves.
fn servers(report: &Report, lookup: &Lookup, findings: &mut Vec<Finding>) {
    if report.answers.is_empty() {
        return;
    }
    let mut told = BTreeSet::new();
    for exchange in dns_run(lookup).iter().flat_map(|run| &run.exchanges) {
        let (code, what) = match &exchange.outcome {
            Outcome::Timeout | Outcome::Net(_) => (code::SERVER_UNREACHABLE, "does not answer"),
            Outcome::PassedOver(_, "SERVFAIL" | "NOTIMP") => (code::SERVFAIL, "fails to answer"),
            Outcome::PassedOver(_, "REFUSED") => (code::REFUSED, "refuses to answer"),
            Outcome::PassedOver(..) => (code::LAME, "neither knows the name nor asks others"),
            Outcome::Malformed(_) => (code::MALFORMED, "answers with what cannot be read"),
            _ => continue,
        };
        if !told.insert((code, exchange.server.to_string())) {
            continue;
        }
        let message = format!("The name server {} {what}; another one did.", server_with_line(&exchange.server));
        let mut found = finding(code, Severity::Warning, exchange.server.to_string(), message);
        found.evidence.push(evidence(exchange));
        findings.push(found);
    }
    for view in report.servers.iter().filter(|view| view.failure.is_some()) {
        if told.iter().any(|(_, server)| *server == view.server) {
            continue;
        }
        let place = view.line.map(|line| format!(" (line {line})")).unwrap_or_default();
        let failure = view.failure.clone().unwrap_or_default();
        let message = format!("The name server {}{place} does not answer: {failure}.", view.server);
        // One that was asked for by name is what the user wants to know about.
        let severity = if view.configured() { Severity::Warning } else { Severity::Fault };
        findings.push(finding(code::SERVER_UNREACHABLE, severity, view.server.clone(), message));
    }
}

fn search_list(report: &Report, gathered: &Gathered<'_>, extra: &Extra, findings: &mut Vec<Finding>) {
    let (name, conf) = (gathered.name, gathered.conf);
    let Some(run) = dns_run(gathered.lookup).filter(|_| report.error.is_none()) else { return };
    let Some(candidate) = run.candidates.iter().find(|one| one.answered) else { return };
    let Some(suffix) = candidate.suffix.as_deref().filter(|suffix| !suffix.is_empty()) else { return };
    if !name.contains('.') {
        return;
    }
    let other = extra.as_is.as_ref().filter(|view| !view.answers.is_empty());
    let severity = if other.is_some() { Severity::Fault } else { Severity::Warning };
    let message =
        format!("The search domain `{suffix}` turns {name} into {}, and that is what answers.", candidate.name);
    let mut found = finding(code::SEARCH_DOMAIN, severity, search_place(conf), message);
    if let Some(view) = other {
        found.evidence.push(format!("{} itself is {} ({})", name, view.answers.join(", "), view.server));
    }
    if conf.options().ndots > 1 {
        found
            .evidence
            .push(format!("ndots:{} has names with fewer dots tried with a suffix first", conf.options().ndots));
    }
    found.fix = Some(format!("ask for `{name}.` with a dot at the end, or lower ndots"));
    findings.push(found);
}

fn slowness(report: &Report, lookup: &Lookup, findings: &mut Vec<Finding>) {
    if report.error.is_some() || report.ms < SLOW_MS {
        return;
    }
    let message = format!("An application waits {:.1} s for {}.", report.ms / 1e3, report.name);
    let mut found = finding(code::SLOW, Severity::Fault, report.name.clone(), message);
    for exchange in lookup.runs.iter().flat_map(|run| &run.exchanges).filter(|one| ms(one.took) >= SLOW_MS / 2.0) {
        found.evidence.push(evidence(exchange));
    }
    found.evidence.truncate(6);
    let dead = lookup.runs.iter().flat_map(|run| &run.exchanges).find(|one| matches!(one.outcome, Outcome::Timeout));
    if let Some(dead) = dead {
        let server = server_with_line(&dead.server);
        found.fix =
            Some(format!("take {server} out of resolv.conf, or put it last; `options timeout:1` shortens the wait"));
    }
    findings.push(found);
}

fn connections(report: &Report, findings: &mut Vec<Finding>) {
    let Some(first) = report.connects.first() else { return };
    let Some(error) = &first.error else { return };
    let works = report.connects.iter().find(|one| one.error.is_none());
    let v4_works = works.filter(|one| one.address.is_ipv4() && first.address.is_ipv6());
    let Some(other) = v4_works else { return };
    let message = format!("{} is tried first and does not work ({error}); {} does.", first.address, other.address);
    let mut found = finding(code::V6_PREFERRED_BROKEN, Severity::Fault, report.name.clone(), message);
    let rule = report.order.first().and_then(|place| Some(format!("rule {}: {}", place.rule?, place.because.clone()?)));
    found.evidence.extend(rule);
    found.evidence.push(format!("port {}: {error} after {:.0} ms", first.port, first.ms));
    found.fix = Some(
        "repair IPv6 to it; until then `precedence ::ffff:0:0/96 100` in /etc/gai.conf puts IPv4 first".to_owned(),
    );
    findings.push(found);
}

fn odd_answers(report: &Report, lookup: &Lookup, findings: &mut Vec<Finding>) {
    for exchange in lookup.runs.iter().flat_map(|run| &run.exchanges) {
        if let Some(first) = exchange.ignored.first() {
            spoofed(&exchange.server.to_string(), first, exchange.ignored.len(), findings);
        }
        if let Some(malformed) = exchange.outcome.message().and_then(|message| message.malformed.as_ref()) {
            let message = format!("An answer of {} is damaged: {malformed}.", exchange.server);
            findings.push(finding(code::MALFORMED, Severity::Warning, exchange.server.to_string(), message));
        }
    }
    for view in &report.servers {
        if let Some(first) = view.ignored.first() {
            spoofed(&view.server, first, view.ignored.len(), findings);
        }
        for malformed in &view.malformed {
            let message = format!("An answer of {} is damaged: {malformed}.", view.server);
            findings.push(finding(code::MALFORMED, Severity::Warning, view.server.clone(), message));
        }
    }
    signatures(report, findings);
}

/// Signatures that are wrong: found so by a server, by us, or by both.
fn signatures(report: &Report, findings: &mut Vec<Finding>) {
    let own = report.dnssec.as_ref();
    let broken = own.filter(|own| own.state == Security::Bogus);
    let why = |found: &mut Finding| {
        let Some(own) = own else { return };
        let word = if own.state == Security::Bogus { "" } else { ", by our own check" };
        found.evidence.push(format!("{}{word}: {}", own.state, own.because));
        let bad = own.chain.iter().filter(|link| !link.holds).skip(1);
        found.evidence.extend(bad.map(|link| format!("{} {}: {}", link.owner, link.rtype, link.says)).take(2));
        found.fix = broken.and_then(|own| remedy(&own.because)).map(str::to_owned);
    };
    let mut told = false;
    for view in report.servers.iter().filter(|view| view.dnssec == Some(Dnssec::Bogus)) {
        let message =
            format!("{} finds the DNSSEC signatures of {} wrong, and refuses to answer.", view.server, view.query);
        let mut found = finding(code::DNSSEC_BOGUS, Severity::Fault, view.query.clone(), message);
        found.evidence.push("asked with CD (checking disabled) it does answer".to_owned());
        found.evidence.extend(view.extended_errors.clone());
        why(&mut found);
        findings.push(found);
        told = true;
    }
    if let Some(own) = broken.filter(|_| !told) {
        let message = format!(
            "The DNSSEC signatures of {} are wrong: {}. {} does not check them; resolvers that do refuse to answer.",
            report.name, own.because, own.server
        );
        let mut found = finding(code::DNSSEC_BOGUS, Severity::Warning, report.name.clone(), message);
        why(&mut found);
        findings.push(found);
    }
}

/// Who must do what about a broken chain.
fn remedy(because: &str) -> Option<&'static str> {
    if because.contains("this host's clock says") {
        Some("set this host's clock, if it is wrong; else the zone was signed for a time to come")
    } else if because.contains("expired") {
        Some("sign the zone again (its owner must); if this host's clock is ahead, set it")
    } else if because.contains("vouches for key") {
        Some("the zone's owner must have its parent publish the DS of a key that the zone has")
    } else if because.contains("does not fit the data") {
        Some(
            "sign the zone again (its owner must); if other servers send data that fits, something on the way changes it",
        )
    } else {
        None
    }
}

fn spoofed(server: &str, first: &str, count: usize, findings: &mut Vec<Finding>) {
    if findings.iter().any(|one| one.code == code::SPOOFED && one.object == server) {
        return;
    }
    let message = format!("Something that was not asked for came as if from {server}, and was thrown away.");
    let mut found = finding(code::SPOOFED, Severity::Warning, server, message);
    found.evidence.push(if count > 1 { format!("{first} ({count} in all)") } else { first.to_owned() });
    findings.push(found);
}

/// What the files' readers do not take as it was meant, and several lines for one name.
fn files(gathered: &Gathered<'_>, extra: &Extra, findings: &mut Vec<Finding>) {
    let (conf, lookup) = (gathered.conf, gathered.lookup);
    let dns_used = dns_run(lookup).is_some();
    for (path, issue) in &conf.issues {
        if *path == conf.paths.resolv && !dns_used {
            continue;
        }
        let place = format!("{path}:{}", issue.line);
        findings.push(finding(code::CONFIG, Severity::Info, place, issue.message.clone()));
    }
    if extra.nscd {
        let message =
            "nscd runs: what it has in its cache, applications get without any of this; `nscd -i hosts` empties it";
        findings.push(finding(code::CONFIG, Severity::Info, "nscd", message));
    }
    let local = gathered.name.trim_end_matches('.').to_ascii_lowercase().ends_with(".local");
    if local && dns_used && !lookup.runs.iter().any(|run| run.service.name.starts_with("mdns")) {
        let message = "`.local` belongs to multicast DNS (RFC 6762), which nsswitch.conf does not name; servers were asked for it";
        findings.push(finding(code::NSSWITCH, Severity::Info, conf.paths.nsswitch.clone(), message));
    }
    let used: Vec<(usize, IpAddr)> = lookup
        .found
        .iter()
        .filter_map(|found| match found.origin {
            Origin::Hosts(line) => Some((line, found.address)),
            _ => None,
        })
        .collect();
    for family in [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6] {
        let own: Vec<&(usize, IpAddr)> = used.iter().filter(|(_, address)| family(address)).collect();
        if own.len() > 1 {
            let lines: Vec<String> = own.iter().map(|(line, address)| format!("{line} ({address})")).collect();
            let message =
                format!("{} has {} lines for {}: {}.", conf.paths.hosts, own.len(), gathered.name, lines.join(", "));
            findings.push(finding(code::CONFIG, Severity::Info, conf.paths.hosts.clone(), message));
        }
    }
}
