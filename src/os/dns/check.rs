//! The C library's own answer, in a thread of its own: the check on all that is told here.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::stop::{Stop, Waited};
use crate::os::resolve::{Resolved, resolve};

/// A question that is on its way.
pub struct Check {
    answer: Receiver<Resolved>,
    begun: Instant,
}

impl Check {
    /// Asks `getaddrinfo` in the background.
    pub fn begin(name: &str) -> Self {
        let (sender, answer) = channel();
        let name = name.to_owned();
        // It may outlive the program's interest; then nobody is there to hear it, which is no harm.
        std::thread::spawn(move || sender.send(resolve(&name)));
        Self { answer, begun: Instant::now() }
    }

    /// Its answer, or `None` when it takes longer than `patience` from now, or someone wants us to end.
    pub fn wait(&self, patience: Duration, stop: &Stop) -> Option<Resolved> {
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

/// The addresses of a host by the system's resolver, for a `--server` that is given by name.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = resolve(host);
    if found.addresses.is_empty() {
        Err(found.error.unwrap_or_else(|| "no address".to_owned()))
    } else {
        Ok(found.addresses)
    }
}
