//! What a host's packet filter did to one direction of the flow at one hook.
//!
//! Two witnesses: the ladder's counts, which say *that* packets vanished between a hook's first
//! and last rung whoever took them, and the walk through the rulesets, which says *which* rule
//! decides. Where they agree, and the rule's own counter moved, the finding is proven.

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Evidence as Observation, Status};
use super::super::evidence::{Direction, Side};
use super::super::ruling::{Decision, Ruling};
use super::{Finding, Round, several};

/// The codes a hook's verdicts lead to.
pub(super) struct Codes {
    pub(super) drop: Code,
    pub(super) reject: Code,
}

/// What happened at a hook.
pub(super) enum Passage {
    /// Packets came in and went on.
    Passed { seen: u64 },
    /// None came this far.
    NotReached,
    /// The host could not be watched, and its rules let the packet pass as far as they can be read.
    Unwatched { why: String },
    /// They ended here.
    Taken(Box<Finding>),
}

/// Looks at one hook.
pub(super) fn at(round: &Round<'_>, side: &Side<'_>, hook: &str, direction: Direction, codes: &Codes) -> Passage {
    let through = side.through(hook, direction);
    let ruling = side.firewall.as_ref().map(|firewall| firewall.rule_on(round.known, hook, direction));
    match through {
        Some((0, _)) => Passage::NotReached,
        Some((first, last)) if last > 0 => Passage::Passed { seen: first },
        Some((first, _)) => Passage::Taken(Box::new(taken(side, hook, direction, codes, Some(first), ruling))),
        None => match ruling {
            Some(ruling) if matches!(ruling.decision, Decision::Drop | Decision::Reject) => {
                Passage::Taken(Box::new(taken(side, hook, direction, codes, None, Some(ruling))))
            }
            Some(ruling) if ruling.decision == Decision::Unknown => {
                Passage::Unwatched { why: format!("its rules leave it open: {}", ruling.open.join("; ")) }
            }
            Some(_) => Passage::Unwatched { why: "its rules let the packet pass".to_owned() },
            None => Passage::Unwatched { why: "its rules could not be read".to_owned() },
        },
    }
}

/// The packets ended between a hook's first and last rung: by which rule?
fn taken(
    side: &Side<'_>,
    hook: &str,
    direction: Direction,
    codes: &Codes,
    lost: Option<u64>,
    ruling: Option<Ruling>,
) -> Finding {
    let place = side.place;
    let what = match direction {
        Direction::Request => "the request",
        Direction::Reply => "the answer",
    };
    let chain = hook.to_uppercase();
    // A walk that lets the packet pass while the ladder says it did not has missed something (a
    // state, a set, a module): then the counters that moved name the rule.
    let decided = ruling.filter(|ruling| matches!(ruling.decision, Decision::Drop | Decision::Reject));
    let agreed = decided.is_some();
    let ruling = decided.or_else(|| side.firewall.as_ref().and_then(|firewall| firewall.guilty(hook)));
    let ladder = lost.map(|first| {
        Observation::new(
            format!("{} of {what} entered {chain} of the {place}, 0 came out", several(first, "packet")),
            format!("hook ladder on the {place}"),
        )
    });
    let Some(ruling) = ruling else {
        let sentence =
            format!("Something in {chain} of the {place} takes {what}; no rule that could be read explains it.");
        return Finding::new(codes.drop, place, format!("{chain} of the {place}"), sentence).seen_if(ladder).but(
            Confidence::Likely,
            &[],
            Some("nft list ruleset; iptables-save -c; iptables-legacy-save -c".to_owned()),
        );
    };
    let rejects = ruling.decision == Decision::Reject;
    let mut code = if rejects { codes.reject } else { codes.drop };
    if ruling.limits {
        code = Code::FwRateLimited;
    } else if ruling.invalid {
        code = Code::FwConntrackInvalid;
    } else if !rejects && code == Code::FwServerOutputDrop && ruling.catch_all {
        // No rule speaks of the answer at all: the pair of rules has lost its second half.
        code = Code::FwReplyRuleMissing;
    }
    let verb = if rejects { "rejects" } else { "drops" };
    let sentence = if code == Code::FwReplyRuleMissing {
        format!("{} of the {place} {verb} {what}: no rule lets it out, though the request was let in.", ruling.name())
    } else {
        format!("{} of the {place} {verb} {what}.", ruling.name())
    };
    let mut finding = Finding::new(code, place, ruling.object(), sentence)
        .seen(ruling.text.clone(), ruling.source(place))
        .seen_if(ladder);
    if let Some((before, after)) = ruling.counted.filter(|(before, after)| after > before) {
        finding = finding.seen(
            format!("its counter went from {before} to {after} packets during the trial"),
            format!("ruleset of the {place} before and after"),
        );
    }
    if let Some(near) = &ruling.near_miss {
        finding = finding.seen(near.clone(), "the walk through the ruleset");
    }
    if let Some((explain, command, undo)) = &ruling.fix {
        finding = finding.fix(explain, command, undo);
    }
    let moved = ruling.counted.is_none_or(|(before, after)| after > before);
    let confidence = if lost.is_some() && (agreed || moved) { Confidence::Proven } else { Confidence::Likely };
    finding.but(confidence, &[], None)
}

/// Some packets of a direction passed a hook and others ended there: a rule that looks at content, size or rate.
pub(super) fn partly(side: &Side<'_>, hook: &str, direction: Direction, drop: Code) -> Option<Finding> {
    let (first, last) = side.through(hook, direction)?;
    let lost = first.checked_sub(last).filter(|lost| *lost > 0 && last > 0)?;
    let (place, chain) = (side.place, hook.to_uppercase());
    let what = match direction {
        Direction::Request => "of the request's packets",
        Direction::Reply => "of the answer's packets",
    };
    let ruling = side.firewall.as_ref().and_then(|firewall| firewall.guilty(hook));
    let (object, name) = match &ruling {
        Some(ruling) => (ruling.object(), ruling.name()),
        None => (format!("{chain} of the {place}"), format!("Something in {chain}")),
    };
    let finding =
        Finding::new(drop, place, object, format!("{name} of the {place} takes some {what} and lets others pass."))
            .seen(
                format!("{first} {what} entered {chain} of the {place}, {last} came out"),
                format!("hook ladder on the {place}"),
            );
    let Some(ruling) = ruling else { return Some(finding.but(Confidence::Likely, &[], None)) };
    let (before, after) = ruling.counted.unwrap_or_default();
    let finding = finding.seen(ruling.text.clone(), ruling.source(place)).seen(
        format!("its counter went from {before} to {after} packets during the trial"),
        format!("ruleset of the {place} before and after"),
    );
    // The rule's counter and the ladder's difference are the same packets, or it is not this rule alone.
    let confidence = if after - before == lost { Confidence::Proven } else { Confidence::Likely };
    Some(finding.but(confidence, &[], None))
}

/// Notes a passage as a step of the walk.
pub(super) fn note(round: &mut Round<'_>, id: &str, passage: Passage, what: &str, codes: &Codes) -> bool {
    match passage {
        Passage::Passed { seen } => {
            round.pass(Layer::Firewall, id, format!("{what}: {} passed", several(seen, "packet")));
            let because = format!("{what}: {} passed the hook", several(seen, "packet"));
            round.rule_out(codes.drop, because.clone());
            round.rule_out(codes.reject, because);
            false
        }
        Passage::NotReached => {
            round.note(Status::Skip, Layer::Firewall, id, format!("{what}: no packet came this far"));
            false
        }
        Passage::Unwatched { why } => {
            let status = if why.contains("pass") { Status::Info } else { Status::Skip };
            round.note(status, Layer::Firewall, id, format!("{what}: not watched; {why}"));
            false
        }
        Passage::Taken(finding) => {
            round.fail(id, *finding);
            true
        }
    }
}
