//! The walk: one file a layer, in causal order. Each step looks at the evidence and says what it
//! found; the first one that finds the break names the root cause.

mod address;
mod application;
mod balancer;
mod client_firewall;
pub(crate) mod drops;
mod firewall;
mod gateway;
mod link;
mod name;
mod neighbour;
mod path;
mod proxy;
mod return_path;
mod route;
mod server_firewall;
mod server_socket;
mod stations;
mod tls;
mod transfer;
mod transport;

use super::causes::{Code, Layer};
use super::diagnosis::{Check, Confidence, Evidence as Observation, Fix, RuledOut, Status, Where};
use super::evidence::Evidence;

/// A break, with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// Its code.
    pub(crate) code: Code,
    /// Where it is.
    pub(crate) place: Where,
    /// The thing to change.
    pub(crate) object: String,
    /// One sentence whose subject is that thing.
    pub(crate) summary: String,
    /// What was seen.
    pub(crate) evidence: Vec<Observation>,
    /// What to do.
    pub(crate) fix: Vec<Fix>,
    /// How sure.
    pub(crate) confidence: Confidence,
    /// Codes that the evidence does not tell from this one.
    pub(crate) also: Vec<Code>,
    /// The command that would settle it.
    pub(crate) next: Option<String>,
}

impl Finding {
    /// A finding with its sentence; proven until said otherwise.
    pub(crate) fn new(code: Code, place: Where, object: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            code,
            place,
            object: object.into(),
            summary: summary.into(),
            evidence: Vec::new(),
            fix: Vec::new(),
            confidence: Confidence::Proven,
            also: Vec::new(),
            next: None,
        }
    }

    /// Adds an observation.
    #[must_use]
    pub(crate) fn seen(mut self, says: impl Into<String>, source: impl Into<String>) -> Self {
        self.evidence.push(Observation::new(says, source));
        self
    }

    /// Adds an observation where there is one.
    #[must_use]
    pub(crate) fn seen_if(mut self, observation: Option<Observation>) -> Self {
        self.evidence.extend(observation);
        self
    }

    /// Adds something to do on the host the break is on.
    #[must_use]
    pub(crate) fn fix(
        mut self,
        explain: impl Into<String>,
        command: impl Into<String>,
        undo: impl Into<String>,
    ) -> Self {
        let on = if self.place == Where::Server { Where::Server } else { Where::Client };
        self.fix.push(Fix { explain: explain.into(), command: command.into(), undo: undo.into(), on, verified: false });
        self
    }

    /// Weaker than proven: what else it may be, and what would settle it.
    #[must_use]
    pub(crate) fn but(mut self, confidence: Confidence, also: &[Code], next: Option<String>) -> Self {
        self.confidence = confidence;
        self.also = also.to_vec();
        self.next = next;
        self
    }
}

/// The walk as it goes.
pub(crate) struct Round<'a> {
    /// What is known.
    pub(crate) known: &'a Evidence<'a>,
    /// The steps so far.
    pub(crate) checks: Vec<Check>,
    /// The first break.
    pub(crate) finding: Option<Finding>,
    /// What is not it.
    pub(crate) ruled_out: Vec<RuledOut>,
}

impl<'a> Round<'a> {
    /// Walks all steps.
    pub(crate) fn walk(known: &'a Evidence<'a>) -> Self {
        let mut round = Self { known, checks: Vec::new(), finding: None, ruled_out: Vec::new() };
        for step in STEPS {
            step(&mut round);
        }
        round
    }

    /// Notes a step's result.
    pub(crate) fn note(&mut self, status: Status, layer: Layer, id: &str, summary: impl Into<String>) -> &mut Check {
        self.checks.push(Check {
            id: id.to_owned(),
            layer,
            status,
            summary: summary.into(),
            evidence: Vec::new(),
            ms: None,
        });
        let last = self.checks.len() - 1;
        &mut self.checks[last]
    }

    /// Notes a step that went well.
    pub(crate) fn pass(&mut self, layer: Layer, id: &str, summary: impl Into<String>) -> &mut Check {
        self.note(Status::Pass, layer, id, summary)
    }

    /// Notes a break. The first one is the root cause; later ones only show in their step.
    pub(crate) fn fail(&mut self, id: &str, finding: Finding) {
        let check = self.note(Status::Fail, finding.code.layer(), id, finding.summary.clone());
        check.evidence.clone_from(&finding.evidence);
        if self.finding.is_none() {
            self.finding = Some(finding);
        }
    }

    /// Notes what is not it.
    pub(crate) fn rule_out(&mut self, code: Code, because: impl Into<String>) {
        if !self.ruled_out.iter().any(|out| out.code == code) {
            self.ruled_out.push(RuledOut { code, because: because.into() });
        }
    }
}

/// The command that looks from the other end too.
pub(crate) fn with_both_ends(known: &Evidence<'_>) -> String {
    let vantage = &known.case.client.vantage;
    let from = if vantage == "local" { String::new() } else { format!(" --from {vantage}") };
    let host = known.address.map_or_else(|| known.case.target.host.clone(), |address| address.to_string());
    format!("reachwhy doctor {}{from} --to ssh:{host}", known.case.target)
}

/// `1 packet`, `3 packets`.
pub(crate) fn several(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

type Step = fn(&mut Round<'_>);

/// Causal order: the order in which a packet, and then a request, needs each thing. The name comes
/// behind the link, without which no name server could be asked; the client's output filter
/// before the neighbour, because the kernel asks for a neighbour only after the filter let the packet through.
const STEPS: &[Step] = &[
    link::client,
    name::check,
    address::client,
    route::client,
    client_firewall::output,
    neighbour::client,
    path::forward,
    server_firewall::before_routing,
    server_firewall::routing,
    server_firewall::input,
    server_socket::check,
    return_path::route,
    server_firewall::output,
    return_path::neighbour,
    path::back,
    client_firewall::input,
    transport::check,
    tls::check,
    application::check,
    transfer::check,
    proxy::check,
];
