//! Ctrl-C as a flag, so that a command can end with what it has found so far.
#![allow(unsafe_code, reason = "signal handlers")]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static STOP: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT and SIGTERM set the flag that is given back; a second one ends the program at once.
pub fn flag() -> &'static AtomicBool {
    static ONCE: Once = Once::new();
    ONCE.call_once(watch);
    &STOP
}

/// Whether one of the signals has come; always false where [`flag`] was never called.
pub fn asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

extern "C" fn came(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn watch() {
    // SA_RESETHAND: the second one meets the usual way to end. SA_RESTART: only what waits for packets (epoll, ppoll,
    // which never restart) is to notice.
    let flags = SaFlags::SA_RESETHAND | SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::Handler(came), flags, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which is async-signal-safe.
        let before = unsafe { sigaction(signal, &action) };
        // Who started us in the background wants such a signal ignored.
        if let Ok(before) = before.as_ref()
            && matches!(before.handler(), SigHandler::SigIgn)
        {
            // SAFETY: what was there before.
            let _ = unsafe { sigaction(signal, before) };
        }
    }
}
