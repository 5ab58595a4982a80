//! Who says something else: the hosts file against the DNS, server against server, the replay against
//! the C library.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::lookup::{Lookup, Origin, in_short};
use super::report::{Difference, Party, Report, ServerView};

/// What a server says, for comparison.
fn word(view: &ServerView) -> Option<Vec<String>> {
    let code = view.rcode.clone()?;
    if view.answers.is_empty() {
        return Some(vec![if code == "NOERROR" { "NODATA".to_owned() } else { code }]);
    }
    let sorted: BTreeSet<String> = view.answers.iter().map(|answer| answer.to_ascii_lowercase()).collect();
    Some(sorted.into_iter().collect())
}

fn who(view: &ServerView) -> String {
    match view.line {
        Some(line) => format!("{} (line {line})", view.server),
        None => view.server.clone(),
    }
}

fn party(view: &ServerView) -> Option<Party> {
    Some(Party { who: who(view), answer: word(view)? })
}

/// Every difference between the sources that were asked.
pub(super) fn differences(report: &Report, lookup: &Lookup) -> Vec<Difference> {
    let mut found = Vec::new();
    found.extend(hosts(report, lookup));
    let own: Vec<&ServerView> = report.servers.iter().filter(|view| view.configured()).collect();
    let parties: Vec<Party> = own.iter().filter_map(|view| party(view)).collect();
    if let Some(other) = parties.iter().find(|one| one.answer != parties[0].answer) {
        let says = format!(
            "The configured servers disagree about {}: {} says {}, {} says {}.",
            report.name,
            parties[0].who,
            in_short(&parties[0].answer),
            other.who,
            in_short(&other.answer)
        );
        found.push(Difference { between: "servers", says, parties: parties.clone() });
    }
    let reference = parties.first().cloned().or_else(|| from_hosts(report));
    for view in report.servers.iter().filter(|view| !view.configured()) {
        let (Some(asked), Some(reference)) = (party(view), &reference) else { continue };
        if asked.answer != reference.answer {
            let says = format!(
                "{} says {} to {}, {} says {}.",
                asked.who,
                in_short(&asked.answer),
                view.query,
                reference.who,
                in_short(&reference.answer)
            );
            found.push(Difference { between: "asked", says, parties: vec![asked, reference.clone()] });
        }
    }
    found.extend(authority(report, reference.as_ref()));
    found
}

/// What the hosts file says, where it decided.
fn from_hosts(report: &Report) -> Option<Party> {
    let lines: Vec<&_> = report.answers.iter().filter(|answer| answer.source == "hosts").collect();
    let sorted: BTreeSet<String> = lines.iter().filter_map(|answer| Some(answer.address?.to_string())).collect();
    let numbers: BTreeSet<usize> = lines.iter().filter_map(|answer| answer.line).collect();
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let line = match words.as_slice() {
        [] => String::new(),
        [one] => format!(" line {one}"),
        several => format!(" lines {}", several.join(", ")),
    };
    lines.first()?;
    Some(Party { who: format!("the hosts file{line}"), answer: sorted.into_iter().collect() })
}

/// A line of the hosts file with an address that no server knows for the name.
fn hosts(report: &Report, lookup: &Lookup) -> Option<Difference> {
    let decided = lookup.found.iter().any(|found| matches!(found.origin, Origin::Hosts(_)));
    let own = from_hosts(report).filter(|_| decided)?;
    let views: Vec<&ServerView> = report.servers.iter().filter(|view| !view.answers.is_empty()).collect();
    let known: BTreeSet<&str> = views.iter().flat_map(|view| view.answers.iter().map(String::as_str)).collect();
    if known.is_empty() || own.answer.iter().all(|address| known.contains(address.as_str())) {
        return None;
    }
    let known: Vec<&str> = known.into_iter().collect();
    let numbers: BTreeSet<usize> = report.answers.iter().filter_map(|answer| answer.line).collect();
    let several = numbers.len() > 1;
    let lines = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let says = format!(
        "{} of the hosts file {} {} for {}; the DNS says {}.",
        if several { format!("Lines {lines}") } else { format!("Line {lines}") },
        if several { "say" } else { "says" },
        in_short(&own.answer),
        report.name,
        known.join(", ")
    );
    let mut parties = vec![own];
    parties.extend(views.iter().filter_map(|view| party(view)));
    Some(Difference { between: "hosts", says, parties })
}

/// The servers in charge against those that were asked: an old answer.
fn authority(report: &Report, reference: Option<&Party>) -> Option<Difference> {
    let traced = report.trace.as_ref()?;
    let code = traced.rcode.clone()?;
    if traced.failure.is_some() {
        return None;
    }
    let reference = reference?;
    let answer: Vec<String> = match traced.answers.is_empty() {
        true if code == "NOERROR" => vec!["NODATA".to_owned()],
        true => vec![code],
        false => traced
            .answers
            .iter()
            .map(|answer| answer.to_ascii_lowercase())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    // Iteration asks for one type; only what is of its kind can be compared.
    let of_kind = |text: &&String| match text.parse::<IpAddr>() {
        Ok(address) => {
            let v4 = answer.iter().any(|one| one.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4()));
            let none = !answer.iter().any(|one| one.parse::<IpAddr>().is_ok());
            none || address.is_ipv4() == v4
        }
        Err(_) => true,
    };
    let theirs: Vec<String> = reference.answer.iter().filter(of_kind).cloned().collect();
    if theirs == answer {
        return None;
    }
    let ttl = report.servers.iter().filter_map(|view| view.ttl).max();
    let stale = ttl.map(|ttl| format!("; what it has may be kept for another {ttl} s")).unwrap_or_default();
    let says = format!(
        "The servers in charge of {} say {}, {} says {}{stale}.",
        report.name,
        answer.join(", "),
        reference.who,
        in_short(&theirs)
    );
    let in_charge = Party { who: format!("the servers of `{}`", traced.zone.clone().unwrap_or_default()), answer };
    Some(Difference { between: "authority", says, parties: vec![in_charge, reference.clone()] })
}

/// The C library's word against the replay.
pub(super) fn with_check(report: &Report, lookup: &Lookup) -> Option<Difference> {
    let check = report.check.as_ref().filter(|check| check.agrees == Some(false))?;
    let text = |list: Vec<String>, error: Option<String>| match (list.is_empty(), error) {
        (true, Some(error)) => vec![error],
        _ => list,
    };
    let ours: Vec<String> = report.answers.iter().filter_map(|answer| Some(answer.address?.to_string())).collect();
    let ours = text(ours, lookup.error.map(|error| error.says().to_owned()));
    let theirs = text(check.addresses.iter().map(ToString::to_string).collect(), check.error.clone());
    let says = format!(
        "The C library's own getaddrinfo says {}, the replay {}: what was asked may have changed in between; believe getaddrinfo.",
        in_short(&theirs),
        in_short(&ours)
    );
    let parties =
        vec![Party { who: check.by.to_owned(), answer: theirs }, Party { who: "the replay".to_owned(), answer: ours }];
    Some(Difference { between: "getaddrinfo", says, parties })
}
