//! `--verify-fix`: the printed fix is applied on trial at the host where it belongs, the connection
//! tried again, and the fix kept or taken back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::diagnosis::{Diagnosis, Fix, Status, Verdict, Where};
use super::vantage::protocol::{Answer, Ask};
use super::vantage::{Agent, AgentError, Vantage};
use crate::host::remedy::{Applied, RemedyOrder, Settled, StepDone};

/// A change that is not confirmed by then is taken back by the host itself.
const TRIAL: Duration = Duration::from_secs(90);
/// How long the commands of a fix may take together.
const WORK: Duration = Duration::from_secs(70);

/// What stands for a value that only a person knows.
const BLANKS: [&str; 7] = ["ADDRESS", "GATEWAY", "PREFIX", "DEVICE", "INTERFACE", "SERVER", "NAME"];

/// What `--verify-fix` did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// How it ended.
    pub outcome: Outcome,
    /// It in a sentence.
    pub says: String,
    /// Whether a change stays on a host.
    pub kept: bool,
    /// The fixes that were tried, or not, in the order in which they are printed.
    pub tried: Vec<Attempt>,
    /// How things stand after it: the diagnosis with the fix in force, where it was kept.
    pub after: Option<Box<Diagnosis>>,
}

/// How a fix on trial came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was nothing to fix.
    NothingToFix,
    /// The target answers now.
    Healed,
    /// This fault is gone, and the next one in causal order shows.
    NextFault,
    /// The fault is still there.
    NotHealed,
    /// A command of the fix failed.
    Failed,
    /// It cannot be tried: no command, a blank to fill in, a host we have no way into.
    NotApplicable,
    /// It was stopped before it was known whether the fix helps.
    Interrupted,
}

/// One fix on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The command.
    pub command: String,
    /// What takes it back.
    pub undo: String,
    /// The end it belongs to.
    pub on: Where,
    /// The vantage where it was run; `None` where it was not run.
    pub vantage: Option<String>,
    /// How it came out.
    pub outcome: Outcome,
    /// It in a sentence.
    pub says: String,
    /// The commands that were run, with what they said.
    pub steps: Vec<StepDone>,
    /// What they changed on the host: `+ …` is new, `- …` is gone.
    pub changed: Vec<String>,
    /// Whether the change stays.
    pub kept: bool,
    /// The commands that took it back.
    pub undone: Vec<StepDone>,
    /// What differs on the host from before, after taking it back; empty where all is as it was.
    pub left: Vec<String>,
}

/// The vantages of the two ends.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// The one that asks.
    pub from: &'a Vantage,
    /// The one that is asked, where it lets us look.
    pub to: Option<&'a Vantage>,
}

/// Why a fix cannot be tried; `None` where it can.
fn obstacle<'a>(fix: &Fix, ends: Ends<'a>) -> Result<&'a Vantage, String> {
    let words = || fix.command.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    let vantage = match fix.on {
        Where::Client => Some(ends.from),
        Where::Server => ends.to,
        Where::Path | Where::Dns => None,
    };
    if fix.command.is_empty() {
        return Err("no command does it: it is for a person to do".to_owned());
    }
    if let Some(blank) = words().find(|word| BLANKS.contains(word)) {
        return Err(format!("{blank} in it is for a person to fill in"));
    }
    if !harmless(&fix.command) || !harmless(&fix.undo) {
        return Err("a name in it has letters that a shell would act on, so it is for a person to run".to_owned());
    }
    if fix.undo.is_empty() {
        return Err("nothing takes it back, so it is not tried unasked".to_owned());
    }
    match (vantage, fix.on) {
        (Some(Vantage::Serve { .. }), _) => {
            Err("a doctor that serves changes nothing: it is to be run there".to_owned())
        }
        (Some(vantage), _) => Ok(vantage),
        (None, Where::Server) => Err("it belongs on the server, and no --to says how to get there".to_owned()),
        (None, _) => Err("it belongs on a host between the two, which is no vantage here".to_owned()),
    }
}

/// The frame of nft's undo, which needs a substitution to find a rule's handle; what it frames is looked at.
const FRAME: [&str; 3] = ["\"$(nft -a list chain ", " | sed -n 's/^[[:space:]]*", " # handle //p' | head -n 1)\""];

/// Whether a shell takes every letter of a command as it stands. Names of links, chains and sets come from
/// hosts that may not be friendly: `ip link add 'x$(reboot)'` is allowed.
fn harmless(command: &str) -> bool {
    let bare = FRAME.iter().fold(command.to_owned(), |text, frame| text.replace(frame, " ")).replace(" && ", " ");
    let plain = |c: char| c.is_ascii_alphanumeric() || " ._:/=,@%+-!{}\"'".contains(c);
    let even = |quote: char| bare.matches(quote).count().is_multiple_of(2);
    bare.chars().all(plain) && even('"') && even('\'')
}

/// Tries the fixes of a diagnosis in their order until one helps, and marks that one as verified.
/// `again` examines the connection once more.
pub fn verify(
    diagnosis: &mut Diagnosis,
    ends: Ends<'_>,
    again: &mut dyn FnMut() -> Result<Diagnosis, AgentError>,
    progress: &mut dyn FnMut(&str),
) -> Verification {
    let before = diagnosis.clone();
    let mut tried: Vec<Attempt> = Vec::new();
    let mut after = None;
    let fixes = diagnosis.root_cause.iter_mut().flat_map(|cause| &mut cause.fix);
    for fix in fixes {
        let (attempt, found) = attempt(&before, fix, ends, again, progress);
        fix.verified = attempt.kept;
        let over = attempt.kept || attempt.outcome == Outcome::Interrupted || !attempt.left.is_empty();
        tried.push(attempt);
        if over {
            after = found;
            break;
        }
    }
    conclude(&before, tried, after)
}

fn conclude(before: &Diagnosis, tried: Vec<Attempt>, after: Option<Diagnosis>) -> Verification {
    let last = tried.iter().rev().find(|attempt| attempt.vantage.is_some()).or(tried.last());
    let kept = tried.iter().any(|attempt| attempt.kept);
    let (outcome, says) = match (last, before.verdict) {
        (Some(last), _) => (last.outcome, last.says.clone()),
        (None, Verdict::Ok) => (Outcome::NothingToFix, "Nothing was changed: it works.".to_owned()),
        (None, _) => (Outcome::NotApplicable, "Nothing was changed: there is no fix to try.".to_owned()),
    };
    Verification { outcome, says, kept, tried, after: after.filter(|_| kept).map(Box::new) }
}

fn attempt(
    before: &Diagnosis,
    fix: &Fix,
    ends: Ends<'_>,
    again: &mut dyn FnMut() -> Result<Diagnosis, AgentError>,
    progress: &mut dyn FnMut(&str),
) -> (Attempt, Option<Diagnosis>) {
    let mut attempt = Attempt {
        command: fix.command.clone(),
        undo: fix.undo.clone(),
        on: fix.on,
        vantage: None,
        outcome: Outcome::NotApplicable,
        says: String::new(),
        steps: Vec::new(),
        changed: Vec::new(),
        kept: false,
        undone: Vec::new(),
        left: Vec::new(),
    };
    let vantage = match obstacle(fix, ends) {
        Ok(vantage) => vantage,
        Err(why) => {
            attempt.says = format!("Not tried: {why}.");
            return (attempt, None);
        }
    };
    progress(&format!("trying the fix on the {}", fix.on));
    // An agent of its own: it has nothing else to do, and so hears at once when all is to be taken back.
    let applied = Agent::start(vantage).and_then(|mut agent| {
        let within_ms = u64::try_from(TRIAL.as_millis()).unwrap_or(u64::MAX);
        let order = RemedyOrder { command: fix.command.clone(), undo: fix.undo.clone(), within_ms };
        match agent.see_through(&Ask::Apply(order), WORK)? {
            Answer::Applied(applied) => Ok((agent, applied)),
            _ => Err(agent.nonsense()),
        }
    });
    let (mut agent, applied) = match applied {
        Ok(applied) => applied,
        Err(error) => {
            attempt.outcome = Outcome::Failed;
            attempt.says = format!("The fix could not be tried: {error}.");
            return (attempt, None);
        }
    };
    attempt.vantage = Some(vantage.to_string());
    let Applied { steps, done, undone, changed } = applied;
    (attempt.steps, attempt.changed) = (steps, changed);
    if !done {
        attempt.undone = undone;
        attempt.outcome = Outcome::Failed;
        attempt.left = std::mem::take(&mut attempt.changed);
        let failed = attempt.steps.last();
        let said = failed.map_or("", |step| step.said.lines().next().unwrap_or(""));
        let command = failed.map_or(fix.command.as_str(), |step| step.command.as_str());
        let why = if said.is_empty() { "it failed without a word" } else { said };
        attempt.says = format!("The fix could not be applied: `{command}`: {why}.{}", rest(&attempt.left));
        return (attempt, None);
    }
    progress("trying the connection with the fix");
    let found = again();
    let (outcome, says) = match &found {
        Ok(after) => compare(before, after),
        Err(AgentError::Interrupted) => {
            (Outcome::Interrupted, "Stopped before it was known whether the fix helps".to_owned())
        }
        Err(error) => (Outcome::NotHealed, format!("With the fix in force it could not be tried again ({error})")),
    };
    attempt.outcome = outcome;
    let keep = matches!(outcome, Outcome::Healed | Outcome::NextFault);
    progress(if keep { "keeping the fix" } else { "taking the fix back" });
    let settled = agent.see_through(&Ask::Settle { keep }, WORK).and_then(|answer| match answer {
        Answer::Settled(settled) => Ok(settled),
        _ => Err(agent.nonsense()),
    });
    settle(&mut attempt, &says, settled);
    let found = found.ok().filter(|_| attempt.kept);
    (attempt, found)
}

fn settle(attempt: &mut Attempt, says: &str, settled: Result<Settled, AgentError>) {
    match settled {
        Ok(settled) => {
            attempt.kept = settled.kept;
            attempt.left = settled.left;
            let clean = settled.undone.iter().all(StepDone::worked);
            attempt.undone = settled.undone;
            attempt.says = match (settled.kept, settled.late) {
                (true, _) => format!("{says}; the fix was kept."),
                (false, true) => format!(
                    "{says}; it was not confirmed within {} s, so the host took it back.{}",
                    TRIAL.as_secs(),
                    rest(&attempt.left)
                ),
                (false, false) if clean => format!("{says}; the fix was taken back.{}", rest(&attempt.left)),
                (false, false) => format!("{says}; taking the fix back failed in part.{}", rest(&attempt.left)),
            };
        }
        Err(error) => {
            attempt.says = format!(
                "{says}; the host cannot be told so ({error}): it takes the fix back by itself within {} s.",
                TRIAL.as_secs()
            );
        }
    }
}

fn rest(left: &[String]) -> String {
    if left.is_empty() {
        " The host is as it was.".to_owned()
    } else {
        format!(" Left on the host: {}.", left.join("; "))
    }
}

/// Whether the fault is gone.
fn compare(before: &Diagnosis, after: &Diagnosis) -> (Outcome, String) {
    match after.verdict {
        Verdict::Ok => return (Outcome::Healed, format!("With the fix {} answers", after.target)),
        Verdict::Unknown => {
            return (Outcome::NotHealed, "With the fix it could not be found out whether it works".to_owned());
        }
        Verdict::Fault => {}
    }
    let (Some(old), Some(new)) = (&before.root_cause, &after.root_cause) else {
        return (Outcome::NotHealed, "The fix does not help".to_owned());
    };
    let same = old.code == new.code && nameless(&old.object) == nameless(&new.object);
    if !same && later(before, after) {
        let says =
            format!("With the fix this fault is gone and the next one shows: {}", new.summary.trim_end_matches('.'));
        return (Outcome::NextFault, says);
    }
    let says = if same {
        "The fix does not help: the fault is the same".to_owned()
    } else {
        format!("The fix does not help: with it an earlier thing breaks: {}", new.summary.trim_end_matches('.'))
    };
    (Outcome::NotHealed, says)
}

/// An object without its numbers: a rule that stands elsewhere now is still the same rule.
fn nameless(object: &str) -> String {
    let mut words = object.split_whitespace().peekable();
    let mut kept: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        kept.push(word);
        if word == "rule" {
            words.next_if(|next| next.trim_end_matches([':', ',']).parse::<u32>().is_ok());
        }
    }
    kept.join(" ")
}

/// Whether what breaks now stands behind what broke before. The steps of a walk are in causal order.
fn later(before: &Diagnosis, after: &Diagnosis) -> bool {
    let broken = |diagnosis: &Diagnosis| {
        diagnosis.checks.iter().find(|check| check.status == Status::Fail).map(|c| c.id.clone())
    };
    let (Some(old), Some(new)) = (broken(before), broken(after)) else { return false };
    let at = |diagnosis: &Diagnosis, id: &str| diagnosis.checks.iter().position(|check| check.id == id);
    [after, before].into_iter().find_map(|walk| Some(at(walk, &new)? >= at(walk, &old)?)).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_not_run() {
        for fine in [
            "iptables -I INPUT 1 -p tcp --dport 8080 -j ACCEPT",
            "ip addr add 10.0.0.1/24 dev eth0 && ip addr del 10.0.0.1/16 dev eth0",
            "nft insert rule inet fw in position 7 ip saddr { 10.0.0.1, 10.0.0.2 } iifname \"lo\" accept",
            "nft delete rule inet fw in handle \"$(nft -a list chain inet fw in | sed -n 's/^[[:space:]]*tcp dport 80 accept # handle //p' | head -n 1)\"",
        ] {
            assert!(harmless(fine), "{fine}");
        }
        for bad in [
            "ip link set x$(reboot) up",
            "ip link set x`reboot` up",
            "ip link set x;reboot up",
            "ip link set x&reboot up",
            "ip link set x|y up",
            "ip link set x>y up",
            "ip link set 'x up",
            "ip link set x\ny up",
            "nft delete rule inet $(reboot) in handle 1",
        ] {
            assert!(!harmless(bad), "{bad}");
        }
    }

    #[test]
    fn a_rule_that_moved_is_the_same_rule() {
        assert_eq!(
            nameless("ip filter INPUT rule 1: -A INPUT -j DROP"),
            nameless("ip filter INPUT rule 2: -A INPUT -j DROP")
        );
        assert_ne!(
            nameless("ip filter INPUT rule 1: -A INPUT -j DROP"),
            nameless("ip filter OUTPUT rule 1: -A OUTPUT -j DROP")
        );
    }
}
