//! From a case to its diagnosis. Pure: the same case always gives the same answer.

use super::case::{Case, End};
use super::causes::Code;
use super::checks::{Round, drops};
use super::diagnosis::{Diagnosis, RootCause, Rung, Status, Verdict};
use super::evidence::{Direction, Evidence, Side};

/// Judges a case.
pub fn judge(case: &Case) -> Diagnosis {
    let known = Evidence::new(case);
    let round = Round::walk(&known);
    let complete = round
        .checks
        .iter()
        .any(|check| check.status == Status::Pass && matches!(check.id.as_str(), "transport" | "application" | "tls"));
    let broken = round.checks.iter().any(|check| check.status == Status::Fail);
    let verdict = match (&round.finding, broken, complete) {
        (Some(_), ..) => Verdict::Fault,
        (None, false, true) => Verdict::Ok,
        // Nothing failed and nothing was reached: what was not seen is not ok.
        (None, ..) => Verdict::Unknown,
    };
    let finding = round.finding.map(|finding| drops::corroborate(&known, finding));
    let also_possible = finding.as_ref().map(|finding| finding.also.clone()).unwrap_or_default();
    let next = finding.as_ref().and_then(|finding| finding.next.clone());
    let ruled_out = round.ruled_out;
    let root_cause = finding.map(|finding| RootCause {
        layer: finding.code.layer(),
        ruled_out: ruled_out.into_iter().filter(|out| relevant(finding.code, &also_possible, out.code)).collect(),
        code: finding.code,
        place: finding.place,
        object: finding.object,
        summary: finding.summary,
        evidence: finding.evidence,
        fix: finding.fix,
        confidence: finding.confidence,
    });
    let mut root_cause = root_cause;
    if let Some(cause) = &mut root_cause {
        super::plain::temper(case, cause);
    }
    let mut checks = round.checks;
    for ms in checks.iter_mut().filter_map(|check| check.ms.as_mut()) {
        // Nobody reads nanoseconds, and binary fractions would not survive being written in decimal.
        *ms = (*ms * 1e3).round() / 1e3;
    }
    let ends = || std::iter::once(&case.client).chain(&case.server);
    Diagnosis {
        target: case.target.to_string(),
        verdict,
        root_cause,
        also_possible,
        next,
        changed: ends().flat_map(|end| end.watch.changed.iter().map(|c| format!("{}: {c}", end.vantage))).collect(),
        checks,
        unseen: ends().flat_map(unseen).collect(),
        ladder: ladder(&known),
    }
}

/// A cause is worth ruling out aloud unless it is the one named or one still open.
fn relevant(named: Code, open: &[Code], out: Code) -> bool {
    out != named && !open.contains(&out)
}

fn unseen(end: &End) -> Vec<String> {
    let mut list: Vec<String> = end
        .facts
        .unseen
        .iter()
        .map(|unseen| {
            let hint = unseen.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {}: {}{hint}", end.vantage, unseen.fact, unseen.why)
        })
        .chain(end.watch.unseen.iter().map(|why| format!("{}: {why}", end.vantage)))
        .collect();
    if !list.is_empty()
        && let Some(grant) = &end.facts.privileges.grant
    {
        list.push(format!("{}: to see more: {grant}", end.vantage));
    }
    list
}

/// The way of the packets, rung by rung: out of the client, into the server, and back.
fn ladder(known: &Evidence<'_>) -> Vec<Rung> {
    let mut rungs = Vec::new();
    if known.trial().is_none() {
        return rungs;
    }
    // (where on the client, its counters by direction) in the order of the request's way.
    let mut side = |side: &Side<'_>, outward: Direction, inward: Direction, reverse: bool| {
        let out =
            [("OUTPUT in", "output", -500), ("OUTPUT out", "output", 500), ("POSTROUTING out", "postrouting", 500)];
        let back = [
            ("PREROUTING in", "prerouting", -450),
            ("PREROUTING out", "prerouting", 500),
            ("INPUT in", "input", -500),
            ("INPUT out", "input", 500),
        ];
        let rung = |at: &str, request: Option<u64>, reply: Option<u64>| Rung {
            host: side.place,
            at: at.to_owned(),
            request,
            reply,
        };
        let value = |direction: Direction, hook: &str, priority: i32| side.counted(hook, priority, direction);
        let put = |direction: Direction, n: Option<u64>| match direction {
            Direction::Request => (n, None),
            Direction::Reply => (None, n),
        };
        let mut sent = Vec::new();
        for (at, hook, priority) in out {
            let (request, reply) = put(outward, value(outward, hook, priority));
            sent.push(rung(at, request, reply));
        }
        let wire = |direction| known.on_wire(side, direction);
        let mut received = vec![rung("wire", wire(Direction::Request), wire(Direction::Reply))];
        for (at, hook, priority) in back {
            let (request, reply) = put(inward, value(inward, hook, priority));
            received.push(rung(at, request, reply));
        }
        let mut all: Vec<Rung> = if reverse {
            received.into_iter().chain(sent).collect()
        } else {
            sent.into_iter().chain(received).collect()
        };
        all.retain(|rung| rung.request.is_some() || rung.reply.is_some());
        rungs.extend(all);
    };
    side(&known.client, Direction::Request, Direction::Reply, false);
    if let Some(server) = &known.server {
        side(server, Direction::Reply, Direction::Request, true);
    }
    rungs
}
