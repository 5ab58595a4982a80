//! The C library's own answer, in a thread of its own: the check on all that is told here.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::getaddrinfo::getaddrinfo;
use super::stop::{Stop, Waited};
use crate::dns::{Eai, Family};
use crate::os::resolve::resolve;

/// What it said.
pub struct Answer {
    /// The addresses in its order, each once.
    pub addresses: Vec<IpAddr>,
    /// Its error.
    pub error: Option<String>,
    /// How long it took, milliseconds.
    pub ms: f64,
}

/// A question that is on its way.
pub struct Check {
    answer: Receiver<Answer>,
    begun: Instant,
}

impl Check {
    /// Asks `getaddrinfo` in the background.
    pub fn begin(name: &str, family: Family) -> Self {
        let (sender, answer) = channel();
        let name = name.to_owned();
        // It may outlive the program's interest; then nobody is there to hear it, which is no harm.
        std::thread::spawn(move || sender.send(ask(&name, family)));
        Self { answer, begun: Instant::now() }
    }

    /// Its answer, or `None` when it takes longer than `patience` from now, or someone wants us to end.
    pub fn wait(&self, patience: Duration, stop: &Stop) -> Option<Answer> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.answer.recv_timeout(left.min(Duration::from_millis(20))) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let stopped = stop.wait(&[], nix::poll::PollFlags::empty(), Some(Duration::ZERO));
                    if left.is_zero() || stopped == Waited::Stopped {
                        return None;
                    }
                }
            }
        }
    }

    /// How long it has been on its way.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

fn ask(name: &str, family: Family) -> Answer {
    let begun = Instant::now();
    let found = getaddrinfo(name, family);
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    match found {
        Ok(addresses) => Answer { addresses, error: None, ms },
        Err(code) => Answer { addresses: Vec::new(), error: Some(word(code)), ms },
    }
}

/// The error's name in netdb.h.
fn word(code: i32) -> String {
    let known = match code {
        libc::EAI_NONAME => Eai::NoName,
        libc::EAI_AGAIN => Eai::Again,
        libc::EAI_NODATA => Eai::NoData,
        libc::EAI_SYSTEM => Eai::System,
        // EAI_ADDRFAMILY of netdb.h, which the bindings leave out.
        -9 => Eai::AddrFamily,
        libc::EAI_FAIL => return "EAI_FAIL".to_owned(),
        other => return format!("EAI {other}"),
    };
    known.name().to_owned()
}

/// The addresses of a host by the system's resolver, for a `--server` that is given by name.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = resolve(host);
    if found.addresses.is_empty() {
        Err(found.error.unwrap_or_else(|| "no address".to_owned()))
    } else {
        Ok(found.addresses)
    }
}
