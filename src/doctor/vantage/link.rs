//! The doctor's side of an agent: starting it at a vantage, asking, waiting.

use std::time::Duration;

use super::Vantage;
use super::protocol::{Answer, Ask};
use crate::os::peer::{Peer, Silence, own_program};

/// An agent could not be started, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It could not be started at all.
    #[error("cannot look from {vantage}: {why}")]
    Start {
        /// The vantage.
        vantage: String,
        /// Why.
        why: String,
        /// What to do.
        hint: Option<String>,
    },
    /// It answered that it cannot.
    #[error("{vantage}: {why}")]
    Failed {
        /// The vantage.
        vantage: String,
        /// Why.
        why: String,
    },
    /// It is gone, or silent.
    #[error("{vantage}: the agent {what}")]
    Gone {
        /// The vantage.
        vantage: String,
        /// What happened.
        what: String,
    },
}

impl AgentError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Start { hint, .. } => hint.as_deref(),
            Self::Failed { .. } | Self::Gone { .. } => None,
        }
    }
}

/// A running agent. It ends with this value: its input closes, and it takes down what it put up.
#[derive(Debug)]
pub struct Agent {
    vantage: Vantage,
    peer: Peer,
}

/// How long an agent may take to start: ssh may ask its agent, resolve names, jump hosts.
const START: Duration = Duration::from_secs(20);

impl Agent {
    /// Starts reachwhy at the vantage and waits for its greeting.
    ///
    /// # Errors
    /// [`AgentError::Start`] with what to do about it.
    pub fn start(vantage: &Vantage) -> Result<Self, AgentError> {
        let fail = |why: String, hint: Option<String>| AgentError::Start { vantage: vantage.to_string(), why, hint };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let started = match vantage {
            Vantage::Ssh { destination, port } => {
                let mut arguments = words(&["-T", "-o", "BatchMode=yes"]);
                if let Some(port) = port {
                    arguments.extend(words(&["-p", &port.to_string()]));
                }
                arguments.extend(words(&["--", destination, "reachwhy", "agent"]));
                Peer::start("ssh", &arguments)
            }
            Vantage::NetNs(name) => own_program().and_then(|me| Peer::start(me, &words(&["agent", "--netns", name]))),
            Vantage::Local => own_program().and_then(|me| Peer::start(me, &words(&["agent"]))),
        };
        let peer = started.map_err(|error| fail(format!("cannot start the agent: {error}"), None))?;
        let mut agent = Self { vantage: vantage.clone(), peer };
        match agent.ask(&Ask::Hello, START) {
            Ok(Answer::Hello { version, .. }) if version == env!("CARGO_PKG_VERSION") => Ok(agent),
            Ok(Answer::Hello { version, .. }) => Err(fail(
                format!("reachwhy there is version {version}, here it is {}", env!("CARGO_PKG_VERSION")),
                Some("install the same version on both hosts".to_owned()),
            )),
            _ => {
                let said = agent.last_words();
                let hint = match vantage {
                    Vantage::NetNs(_) if said.contains("(os error 2)") => {
                        Some("`ip netns list` shows the names that exist".to_owned())
                    }
                    Vantage::NetNs(_) => Some("entering a namespace needs root: run it with sudo".to_owned()),
                    Vantage::Ssh { destination, port } => {
                        let port = port.map_or(String::new(), |port| format!("-p {port} "));
                        Some(format!(
                            "`ssh {port}{destination} reachwhy --version` must work without a password: install reachwhy and a key there"
                        ))
                    }
                    Vantage::Local => None,
                };
                Err(fail(if said.is_empty() { "it does not answer".to_owned() } else { said }, hint))
            }
        }
    }

    /// The vantage it looks from.
    pub fn vantage(&self) -> &Vantage {
        &self.vantage
    }

    /// Asks, without waiting: [`Agent::wait`] brings the answer. One question at a time.
    ///
    /// # Errors
    /// [`AgentError::Gone`] when the agent has ended.
    pub fn send(&mut self, ask: &Ask) -> Result<(), AgentError> {
        let line = serde_json::to_vec(ask).map_err(|error| self.gone(format!("cannot be asked: {error}")))?;
        self.peer.say(&line).map_err(|error| self.gone(format!("has ended: {error}")))
    }

    /// Waits for the answer to the last question.
    ///
    /// # Errors
    /// [`AgentError::Gone`] when none comes in `patience`, [`AgentError::Failed`] when it is a refusal.
    pub fn wait(&mut self, patience: Duration) -> Result<Answer, AgentError> {
        let line = self.peer.hear(patience).map_err(|silence| {
            self.gone(match silence {
                Silence::Late => "does not answer".to_owned(),
                Silence::Ended => "has ended".to_owned(),
            })
        })?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed { why }) => Err(AgentError::Failed { vantage: self.vantage.to_string(), why }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.gone(format!("said what cannot be read ({error})"))),
        }
    }

    /// Asks and waits.
    ///
    /// # Errors
    /// As [`Agent::send`] and [`Agent::wait`].
    pub fn ask(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, AgentError> {
        self.send(ask)?;
        self.wait(patience)
    }

    fn gone(&self, what: String) -> AgentError {
        AgentError::Gone { vantage: self.vantage.to_string(), what }
    }

    /// What a dead agent left on its standard error, in one line.
    fn last_words(&mut self) -> String {
        let said = self.peer.last_words();
        let lines = said.lines().map(|line| line.trim().trim_start_matches("error: ")).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ")
    }
}
