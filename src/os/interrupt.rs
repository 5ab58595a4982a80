//! Ctrl-C as a flag, so that a command can end with what it has found so far.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

static STOP: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT and SIGTERM set the flag that is given back; a second one ends the program at once.
///
/// To be called before other threads are started: they inherit that these signals are not theirs.
pub fn flag() -> &'static AtomicBool {
    static ONCE: Once = Once::new();
    ONCE.call_once(watch);
    &STOP
}

/// Whether one of the signals has come; always false where [`flag`] was never called.
pub fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

fn watch() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_ok() {
        let waiter = std::thread::Builder::new().name("signals".to_owned());
        let started = waiter.spawn(move || {
            while let Ok(signal) = signals.wait() {
                if STOP.swap(true, Ordering::Relaxed) {
                    // It said so once already: the usual way to end is what is wanted now.
                    let _ = signals.thread_unblock();
                    let _ = nix::sys::signal::raise(signal);
                }
            }
        });
        if started.is_err() {
            let _ = signals.thread_unblock();
        }
    }
}
