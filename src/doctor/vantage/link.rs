//! The doctor's side of an agent: starting it at a vantage, asking, waiting.

use std::io::ErrorKind;
use std::time::Duration;

use super::plain::Plain;
use super::protocol::{Answer, Ask};
use super::{Vantage, push};
use crate::os::peer::{Peer, Silence, ask_program, own_program};
use crate::os::{clock, interrupt};

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
    /// Ctrl-C, or a signal to end.
    #[error("stopped by a signal")]
    Interrupted,
}

impl AgentError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Start { hint, .. } => hint.as_deref(),
            Self::Failed { .. } | Self::Gone { .. } | Self::Interrupted => None,
        }
    }
}

/// A running agent. It ends with this value: its input closes, and it takes down what it put up.
#[derive(Debug)]
pub struct Agent {
    vantage: Vantage,
    peer: Peer,
    /// Set where a shell with plain tools stands in for an agent.
    plain: Option<Plain>,
}

/// How long an agent may take to start: ssh may ask its agent, resolve names, jump hosts.
const START: Duration = Duration::from_secs(20);

/// How long a signal may go unnoticed.
const SLICE: Duration = Duration::from_millis(50);

impl Agent {
    /// Starts reachwhy at the vantage and waits for its greeting.
    ///
    /// # Errors
    /// [`AgentError::Start`] with what to do about it.
    pub fn start(vantage: &Vantage) -> Result<Self, AgentError> {
        let fail = |why: String, hint: Option<String>| AgentError::Start { vantage: vantage.to_string(), why, hint };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let started = match vantage {
            Vantage::Ssh { destination, port, push } => {
                return Self::over_ssh(vantage, destination, *port, *push);
            }
            Vantage::NetNs(name) => own_program().and_then(|me| Peer::start(me, &words(&["agent", "--netns", name]))),
            Vantage::Local => own_program().and_then(|me| Peer::start(me, &words(&["agent"]))),
            Vantage::Serve { host, port, token } => {
                let arguments = words(&["relay", "--", host, &port.to_string()]);
                // The token goes over the pipe: what stands on a command line is seen by everyone.
                own_program().and_then(|me| Peer::start(me, &arguments)).and_then(|mut peer| {
                    peer.say(token.as_bytes())?;
                    Ok(peer)
                })
            }
            Vantage::Docker(name) => {
                let pid = container(name).map_err(|(why, hint)| fail(why, Some(hint)))?;
                own_program().and_then(|me| Peer::start(me, &words(&["agent", "--pid", &pid.to_string()])))
            }
            Vantage::Kubectl { namespace, pod, push } => {
                let mut arguments = words(&["exec", "-i"]);
                if let Some(namespace) = namespace {
                    arguments.extend(words(&["-n", namespace]));
                }
                arguments.extend(words(&[pod, "--"]));
                let agent = [arguments.clone(), words(&["reachwhy", "agent"])].concat();
                let first = Peer::start("kubectl", &agent)
                    .map_err(|error| fail(format!("cannot start kubectl: {error}"), None))?;
                let missing = match Self::greet(Self { vantage: vantage.clone(), peer: first, plain: None }) {
                    Ok(agent) => return Ok(agent),
                    Err(error) => error,
                };
                arguments.extend(words(&["sh", "-c", &shell_script(*push)]));
                let peer = Peer::start("kubectl", &arguments)
                    .map_err(|error| fail(format!("cannot start kubectl: {error}"), None))?;
                // An image without a shell: what was said first says it best.
                return Self::over_shell(vantage, peer, *push, |_| missing);
            }
        };
        let peer = started.map_err(|error| fail(format!("cannot start the agent: {error}"), None))?;
        Self::greet(Self { vantage: vantage.clone(), peer, plain: None })
    }

    /// Hears who is there.
    fn greet(mut agent: Self) -> Result<Self, AgentError> {
        let vantage = agent.vantage.clone();
        let fail = |why: String, hint: Option<String>| AgentError::Start { vantage: vantage.to_string(), why, hint };
        match agent.ask(&Ask::Hello, START) {
            Ok(Answer::Hello { version, .. }) if version == env!("CARGO_PKG_VERSION") => Ok(agent),
            Ok(Answer::Hello { version, .. }) => Err(fail(
                format!("reachwhy there is version {version}, here it is {}", env!("CARGO_PKG_VERSION")),
                Some("install the same version on both hosts (over ssh: or --push)".to_owned()),
            )),
            _ => {
                let said = agent.last_words();
                let hint = match &vantage {
                    Vantage::NetNs(_) if said.contains("(os error 2)") => {
                        Some("`ip netns list` shows the names that exist".to_owned())
                    }
                    Vantage::NetNs(_) => Some("entering a namespace needs root: run it with sudo".to_owned()),
                    Vantage::Ssh { destination, port, .. } => Some(ssh_hint(destination, *port)),
                    Vantage::Serve { .. } => Some(
                        "`reachwhy doctor --serve` must run there; each token is good for one client, and the port must be open".to_owned(),
                    ),
                    Vantage::Docker(_) => Some("entering a container needs root: run it with sudo".to_owned()),
                    Vantage::Kubectl { namespace, pod, .. } => {
                        let namespace = namespace.as_ref().map_or(String::new(), |name| format!("-n {name} "));
                        Some(format!(
                            "`kubectl exec {namespace}{pod} -- reachwhy --version` must work: reachwhy must be in the image"
                        ))
                    }
                    Vantage::Local => None,
                };
                Err(fail(if said.is_empty() { "it does not answer".to_owned() } else { said }, hint))
            }
        }
    }

    /// Over ssh: reachwhy where it is there, else a copy of it where that is allowed, else the tools
    /// that are there.
    fn over_ssh(vantage: &Vantage, destination: &str, port: Option<u16>, push: bool) -> Result<Self, AgentError> {
        let fail = |why: String, hint: Option<String>| AgentError::Start { vantage: vantage.to_string(), why, hint };
        let mut arguments: Vec<String> = ["-T", "-o", "BatchMode=yes"].map(str::to_owned).to_vec();
        if let Some(port) = port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), destination.to_owned(), format!("exec sh -c '{}'", shell_script(push))]);
        let peer = Peer::start("ssh", &arguments).map_err(|error| fail(format!("cannot start ssh: {error}"), None))?;
        Self::over_shell(vantage, peer, push, |said| {
            let why = if said.is_empty() { "ssh does not answer".to_owned() } else { said };
            fail(why, Some(ssh_hint(destination, port)))
        })
    }

    /// At the other end of `peer` a shell runs [`shell_script`]. `mute` makes the error where it does not.
    fn over_shell(
        vantage: &Vantage,
        peer: Peer,
        push: bool,
        mute: impl FnOnce(String) -> AgentError,
    ) -> Result<Self, AgentError> {
        let mut agent = Self { vantage: vantage.clone(), peer, plain: None };
        // A login shell may greet before.
        let here = loop {
            match agent.peer.hear(START).as_deref() {
                Ok("reachwhy-is-here") => break true,
                Ok("reachwhy-is-missing") => break false,
                Ok(_) => {}
                Err(_) => {
                    let said = agent.last_words();
                    return Err(mute(said));
                }
            }
        };
        if here {
            return Self::greet(agent);
        }
        if push {
            push::push(&mut agent.peer).map_err(|why| AgentError::Start {
                vantage: vantage.to_string(),
                why: format!("reachwhy cannot be copied there: {why}"),
                hint: None,
            })?;
            return Self::greet(agent);
        }
        agent.plain = Some(Plain::new(format!("reachwhy-{:x}", clock::monotonic_ns())));
        Ok(agent)
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
        if let Some(plain) = &mut self.plain {
            let script = plain.script(ask);
            return self.peer.say(script.as_bytes()).map_err(|error| self.gone(format!("has ended: {error}")));
        }
        let line = serde_json::to_vec(ask).map_err(|error| self.gone(format!("cannot be asked: {error}")))?;
        self.peer.say(&line).map_err(|error| self.gone(format!("has ended: {error}")))
    }

    /// Waits for the answer to the last question.
    ///
    /// # Errors
    /// [`AgentError::Gone`] when none comes in `patience`, [`AgentError::Failed`] when it is a refusal.
    pub fn wait(&mut self, patience: Duration) -> Result<Answer, AgentError> {
        self.listen(patience, true)
    }

    /// Asks and waits, whatever signal comes: for what must not be left half done.
    ///
    /// # Errors
    /// As [`Agent::send`] and [`Agent::wait`].
    pub fn see_through(&mut self, ask: &Ask, patience: Duration) -> Result<Answer, AgentError> {
        self.send(ask)?;
        self.listen(patience, false)
    }

    /// What to say of an answer that is none to the question.
    pub fn nonsense(&self) -> AgentError {
        self.gone("gave an answer to another question".to_owned())
    }

    fn listen(&mut self, patience: Duration, heed: bool) -> Result<Answer, AgentError> {
        let mut left = patience;
        let mut lines: Vec<String> = Vec::new();
        let line = loop {
            if heed && interrupt::asked() {
                return Err(AgentError::Interrupted);
            }
            let slice = left.min(SLICE);
            match self.peer.hear(slice) {
                Ok(line) => match &self.plain {
                    Some(plain) if !plain.is_last(&line) => lines.push(line),
                    _ => break line,
                },
                Err(Silence::Late) if left > slice => left -= slice,
                Err(Silence::Late) => return Err(self.gone("does not answer".to_owned())),
                Err(Silence::Ended) => return Err(self.gone("has ended".to_owned())),
            }
        };
        let answer = match &mut self.plain {
            Some(plain) => Ok(plain.answer(&lines)),
            None => serde_json::from_str(&line),
        };
        match answer {
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

/// What a shell at the far side is told first: become the agent, or wait.
fn shell_script(push: bool) -> String {
    // A copy is as new as we are; what is installed there may be older.
    let installed = if push {
        format!("[ \"$(reachwhy --version 2>/dev/null)\" = \"reachwhy {}\" ]", env!("CARGO_PKG_VERSION"))
    } else {
        "command -v reachwhy >/dev/null 2>&1".to_owned()
    };
    format!("if {installed}; then echo reachwhy-is-here; exec reachwhy agent; fi; echo reachwhy-is-missing; exec sh")
}

fn ssh_hint(destination: &str, port: Option<u16>) -> String {
    let port = port.map_or(String::new(), |port| format!("-p {port} "));
    format!("`ssh {port}{destination} true` must work without a password: put a key there")
}

/// The first process of a running container, as seen from here; else why not, and what to do.
fn container(name: &str) -> Result<u32, (String, String)> {
    let arguments = ["inspect", "--type", "container", "--format", "{{.State.Pid}}", name];
    let (program, asked) = match ask_program("docker", &arguments) {
        Err(error) if error.kind() == ErrorKind::NotFound => ("podman", ask_program("podman", &arguments)),
        asked => ("docker", asked),
    };
    let shown = "`docker ps` (or `podman ps`) shows the containers that run here".to_owned();
    match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(("neither docker nor podman is installed here".to_owned(), shown))
        }
        Err(error) => Err((format!("cannot run {program}: {error}"), shown)),
        Ok(Err(said)) => Err((format!("{program} says: {said}"), shown)),
        Ok(Ok(said)) => match said.trim().parse() {
            Ok(0) => Err((format!("container {name} is not running"), format!("`{program} start {name}` starts it"))),
            Ok(pid) => Ok(pid),
            Err(_) => Err((format!("{program} gave no process id but `{}`", said.trim()), shown)),
        },
    }
}
