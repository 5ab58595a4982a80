//! Waiting that Ctrl-C can end.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Notices SIGINT and SIGTERM; any number of threads may wait on the same one.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<SignalFd>>);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There is something to be done.
    Ready,
    /// The time is over.
    TimedOut,
    /// Someone wants us to end.
    Stopped,
}

impl Stop {
    /// Takes the signals from now on, for this thread and those it starts. Where that cannot be done,
    /// they end the program as ever.
    pub fn watch() -> Self {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        let watched = signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
        Self(watched.ok().map(Arc::new))
    }

    /// Notices nothing.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether someone wants us to end. The signal stays, so that all who wait see it.
    pub fn stopped(&self) -> bool {
        self.wait(&[], PollFlags::empty(), Some(Duration::ZERO)) == Waited::Stopped
    }

    /// Waits until one of `fds` is ready.
    pub fn wait(&self, fds: &[BorrowedFd<'_>], events: PollFlags, patience: Option<Duration>) -> Waited {
        let until = patience.map(|patience| Instant::now() + patience);
        loop {
            let mut polled: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, events)).collect();
            if let Some(signals) = &self.0 {
                polled.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                // Rounded up, so that what is left of a millisecond is not spun away.
                let ms = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut polled, timeout) {
                Ok(0) if left.is_some_and(|left| left < Duration::from_secs(1 << 20)) => return Waited::TimedOut,
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => {
                    let stopped = polled.get(fds.len()).and_then(PollFd::any).unwrap_or(false);
                    return if stopped { Waited::Stopped } else { Waited::Ready };
                }
                Err(_) => return Waited::TimedOut,
            }
        }
    }
}
