//! The two ends, with an agent at each, ready to examine the connection as often as is wanted.

use std::io::IsTerminal;

use super::DoctorArgs;
use crate::cli::{Failure, Global};
use crate::doctor::vantage::{Agent, AgentError, Vantage};
use crate::doctor::{Case, Ends, Patience, Target, examine};
use crate::view::Progress;

/// A target and its two ends.
pub(super) struct Look {
    pub(super) target: Target,
    from: Vantage,
    to: Option<Vantage>,
    patience: Patience,
    agents: Option<(Agent, Option<Agent>)>,
    quiet: bool,
}

/// How long things may take.
pub(super) fn patience(global: &Global) -> Patience {
    global.timeout.map_or_else(Patience::default, |timeout| Patience { connect: timeout, answer: timeout })
}

/// Reads a vantage.
pub(super) fn vantage(text: &str) -> anyhow::Result<Vantage> {
    text.parse::<Vantage>().map_err(|error| Failure::usage(error, None))
}

/// Reads a target.
pub(super) fn target(text: &str) -> anyhow::Result<Target> {
    let examples = Some("192.168.1.3:8080, udp://10.0.0.1:53, https://api.example/health, [fd00::3]:80");
    text.parse().map_err(|error| Failure::usage(error, examples))
}

fn pushed(vantage: Vantage, push: bool) -> Vantage {
    if push { vantage.with_push() } else { vantage }
}

impl Look {
    /// Reads what was asked for; nothing is started yet.
    pub(super) fn new(text: &str, args: &DoctorArgs, global: &Global) -> anyhow::Result<Self> {
        if matches!(vantage(&args.from)?, Vantage::Serve { .. }) {
            let hint = "run the doctor on that host, or give it as --to";
            return Err(Failure::usage("a doctor that serves is looked at, nothing is tried from it", Some(hint)));
        }
        Ok(Self {
            target: target(text)?,
            from: pushed(vantage(&args.from)?, args.push),
            to: args.to.as_deref().map(vantage).transpose()?.map(|to| pushed(to, args.push)),
            patience: patience(global),
            agents: None,
            quiet: global.json,
        })
    }

    /// The vantages.
    pub(super) fn ends(&self) -> Ends<'_> {
        Ends { from: &self.from, to: self.to.as_ref() }
    }

    /// Says what is being done, where someone is watching.
    pub(super) fn progress(&self) -> Progress<std::io::Stderr> {
        Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !self.quiet)
    }

    /// Examines the connection. After an error the agents are started anew the next time.
    pub(super) fn case(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Case, AgentError> {
        let (mut client, mut server) = match self.agents.take() {
            Some(agents) => agents,
            None => (Agent::start(&self.from)?, self.to.as_ref().map(Agent::start).transpose()?),
        };
        let case = examine(&self.target, &mut client, server.as_mut(), self.patience, progress)?;
        self.agents = Some((client, server));
        Ok(case)
    }
}

/// An agent's trouble as the program's.
pub(super) fn failed(error: &AgentError) -> anyhow::Error {
    Failure::unknown(error, error.hint())
}
