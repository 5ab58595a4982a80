//! A name as an application on this host gets it, with what is wrong about it.

use std::net::IpAddr;
use std::time::Duration;

use crate::dns::report::{Answer, Report, Severity};
use crate::dns::{Conf, Family};
use crate::doctor::case::{NameFinding, Resolution};
use crate::os::dns::asked::{Asked, Wanted};
use crate::os::dns::{Stop, facts};

/// How long a server is waited for that is only asked to compare.
const COMPARE: Duration = Duration::from_millis(400);

/// Resolves it: the replay of the C library's way tells why, the C library's own answer is the one that counts.
pub(super) fn resolve(name: String) -> Resolution {
    let facts = facts::resolver_facts();
    let conf = Conf::read(&facts, None);
    let report = Asked {
        name: &name,
        wanted: Wanted::Addresses(Family::Any),
        conf: &conf,
        facts: &facts,
        given: Vec::new(),
        roots: None,
        anchors: None,
        dnssec: false,
        compare: true,
        connect: None,
        stop: Stop::never(),
        patience: COMPARE,
        tries: 1,
    }
    .report(&mut |_| {});
    let replayed: Vec<IpAddr> = report.answers.iter().filter_map(|answer| answer.address).collect();
    let checked = report.check.as_ref().filter(|check| check.agrees.is_some());
    let addresses = checked.map_or(replayed, |check| check.addresses.clone());
    let eai = match checked {
        Some(check) => check.error.clone(),
        None => report.error.as_ref().map(|error| error.eai.to_owned()),
    };
    let source = addresses.first().and_then(|first| source(&report, *first));
    Resolution {
        addresses,
        error: report.error.as_ref().map(|error| error.says.to_owned()).or_else(|| eai.clone()),
        eai,
        ms: checked.and_then(|check| check.ms).unwrap_or(report.ms),
        source,
        findings: report.findings.iter().filter(|one| one.severity != Severity::Info).map(finding).collect(),
        name,
    }
}

/// Who gave the name this address.
fn source(report: &Report, address: IpAddr) -> Option<String> {
    let answer: &Answer = report.answers.iter().find(|answer| answer.address == Some(address))?;
    Some(match (answer.line, &answer.server) {
        (Some(line), _) => format!("{} line {line}", answer.source),
        (None, Some(server)) => server.clone(),
        (None, None) => answer.source.clone(),
    })
}

fn finding(found: &crate::dns::report::Finding) -> NameFinding {
    NameFinding {
        code: found.code.to_owned(),
        fault: found.severity == Severity::Fault,
        object: found.object.clone(),
        message: found.message.clone(),
        evidence: found.evidence.clone(),
        fix: found.fix.clone(),
    }
}
