//! What can go wrong with a lab.

use std::io;

use super::apply::ApplyError;
use super::topology::BadTopology;
use crate::os::netlink::NetlinkError;
use crate::os::netns::NetNsError;
use crate::os::userns::IsolateError;

/// Why a lab could not be built, or something in it not be done.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine does not let us.
    #[error(transparent)]
    Isolate(#[from] IsolateError),
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] BadTopology),
    /// A namespace could not be used.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The kernel refused an order.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A command cannot be carried out by the lab.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// There is no such host.
    #[error("there is no host {name} in this lab; there are: {}", known.join(", "))]
    NoSuchHost {
        /// As asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// There is no such service, or it has ended.
    #[error("no service {name} is running in this lab")]
    NoSuchService {
        /// As asked for.
        name: String,
    },
    /// A service did not begin.
    #[error("the service {name} on {host} did not start: {why}")]
    Service {
        /// Its name.
        name: String,
        /// Its host.
        host: String,
        /// What it said.
        why: String,
    },
    /// A ruleset was not taken.
    #[error("the firewall of {host} does not take its rules: {why}")]
    Firewall {
        /// The host.
        host: String,
        /// What was said.
        why: String,
    },
    /// Something did not become ready.
    #[error("{what} did not come up within {seconds} s")]
    NotReady {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The system refused.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was being done.
        operation: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LabError {
    /// For `map_err`: the system refused this operation.
    pub fn system(operation: &str) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.to_owned();
        move |source| Self::System { operation, source }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Isolate(error) => error.hint().map(|allow| format!("to allow it: {allow}")),
            _ => None,
        }
    }
}
