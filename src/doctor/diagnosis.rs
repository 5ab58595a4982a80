//! The doctor's answer: what people and programs are told. The keys are a contract.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::causes::{Code, Layer};

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The target, as it was understood.
    pub target: String,
    /// Fine, broken, or not to be told from here.
    pub verdict: Verdict,
    /// The one thing that breaks first; `None` when nothing is broken, or nothing could be found out.
    pub root_cause: Option<RootCause>,
    /// Codes that the evidence does not tell from the root cause's.
    pub also_possible: Vec<Code>,
    /// A command that would settle what is open.
    pub next: Option<String>,
    /// What was touched while measuring, and that it was removed.
    pub changed: Vec<String>,
    /// The walk, in causal order.
    pub checks: Vec<Check>,
    /// What could not be seen, and what would allow it.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// Where the packets of the trial were seen, in the order of their way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<Rung>,
}

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The target answers as it should.
    Ok,
    /// Something is broken.
    Fault,
    /// Not to be told from here.
    Unknown,
}

/// Where the broken thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// The host that asks.
    Client,
    /// The host that is asked.
    Server,
    /// Between them.
    Path,
    /// The name's resolution.
    Dns,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Path => "path",
            Self::Dns => "dns",
        })
    }
}

/// How sure the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Only the class of the cause is known from here; `next` says what would split it.
    Class,
    /// The evidence points here, and one observation that would prove it is missing.
    Likely,
    /// The packet was seen to enter one rung and not the next, or the kernel itself said so.
    Proven,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Class => "class",
            Self::Likely => "likely",
            Self::Proven => "proven",
        })
    }
}

/// The first break in causal order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootCause {
    /// Its stable code.
    pub code: Code,
    /// Its layer.
    pub layer: Layer,
    /// Where it is.
    #[serde(rename = "where")]
    pub place: Where,
    /// The thing to change: the rule, the route, the neighbour, the socket.
    pub object: String,
    /// One sentence whose subject is that thing.
    pub summary: String,
    /// What was seen that only this explains.
    pub evidence: Vec<Evidence>,
    /// What was looked at and is not it.
    pub ruled_out: Vec<RuledOut>,
    /// What to do, nearest first.
    pub fix: Vec<Fix>,
    /// How sure.
    pub confidence: Confidence,
}

/// One observation and where it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was seen.
    pub says: String,
    /// Where: a counter, a capture, a table, a file with its line.
    pub source: String,
}

/// A cause that is not it, and the observation that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledOut {
    /// The cause.
    pub code: Code,
    /// The observation.
    pub because: String,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// What it changes, in a sentence.
    pub explain: String,
    /// The exact command; empty where no command can do it.
    pub command: String,
    /// The command that takes it back; empty where there is none.
    pub undo: String,
    /// The host to run it on.
    pub on: Where,
    /// Whether it was applied and the target then answered.
    pub verified: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Pass,
    /// Broken.
    Fail,
    /// Odd, and not what breaks this connection.
    Warn,
    /// Not looked at: what it rests on is broken, or it could not be seen.
    Skip,
    /// Said for the reader.
    Info,
}

/// One step of the walk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Stable name: `client.link`, `server.firewall.input`.
    pub id: String,
    /// Its layer.
    pub layer: Layer,
    /// How it came out.
    pub status: Status,
    /// One line.
    pub summary: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// How long it took, milliseconds; `None` where it is a look at facts already gathered.
    pub ms: Option<f64>,
}

/// One place where the trial's packets were counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Whose.
    pub host: Where,
    /// Which: `output (first)`, `wire`, `input (last)`.
    pub at: String,
    /// Packets of the request's direction; `None` where that way does not pass here or was not counted.
    pub request: Option<u64>,
    /// Packets of the answer's direction.
    pub reply: Option<u64>,
}

impl Evidence {
    /// Shorthand.
    pub fn new(says: impl Into<String>, source: impl Into<String>) -> Self {
        Self { says: says.into(), source: source.into() }
    }
}

impl Diagnosis {
    /// The exit code of the contract: 0 fine, 1 a fault, 3 could not find out.
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Ok => 0,
            Verdict::Fault => 1,
            Verdict::Unknown => 3,
        }
    }
}
