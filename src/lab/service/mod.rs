//! The services that a lab's hosts run: small, honest, and able to misbehave in one chosen way.
//!
//! Each is a process of its own (`reachwhy lab service …`), so that it has a process id and a name, and
//! can be stopped or killed. Every request has a thread; a lab has few.

pub mod cable;
pub mod dns;
pub mod echo;
pub mod http;
pub mod tls;

use std::ffi::CString;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use serde::{Deserialize, Serialize};

/// A service of a lab: where it runs and how it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name, also its process's (at most 15 octets are shown by the kernel).
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// What follows `reachwhy lab service`.
    pub args: Vec<String>,
}

impl ServiceSpec {
    /// A service by its command line.
    pub fn new(name: &str, host: &str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { name: name.to_owned(), host: host.to_owned(), args }
    }

    /// The command line, to be shown.
    pub fn command(&self) -> String {
        format!("reachwhy lab service {} --name {}", self.args.join(" "), self.name)
    }
}

/// Why a service could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It cannot have its address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificates cannot be made.
    #[error("cannot make its certificate: {0}")]
    Certificate(String),
    /// Its zone cannot be read.
    #[error("record `{record}`: {why}")]
    Record {
        /// As given.
        record: String,
        /// What is wrong with it.
        why: String,
    },
    /// Anything else of the system's.
    #[error("cannot {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).map_err(|source| ServiceError::Listen { address, source })
}

/// Gives the process its name and tells the lab, by a line on standard output, that it can be used.
pub(crate) fn ready(name: Option<&str>) -> Result<(), ServiceError> {
    if let Some(name) = name.and_then(|name| CString::new(name).ok()) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let mut out = io::stdout();
    out.write_all(b"ready\n")
        .and_then(|()| out.flush())
        .map_err(|source| ServiceError::Io { operation: "say that it is ready", source })
}

/// Takes connections for ever, each in a thread.
pub(crate) fn serve(
    listener: &TcpListener,
    work: impl Fn(std::net::TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    let work = std::sync::Arc::new(work);
    for connection in listener.incoming() {
        // A client that went away between the handshake and here is no reason to end.
        let Ok(connection) = connection else { continue };
        let work = std::sync::Arc::clone(&work);
        std::thread::spawn(move || {
            // What becomes of a single connection concerns the client alone.
            let _ = work(connection);
        });
    }
}
