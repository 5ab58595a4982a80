//! Into the private namespaces, and out again.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

use crate::lab::LabError;
use crate::os::process::{self, Ended, die_with_parent};
use crate::os::userns;
use crate::view::Style;

/// Tells a process that it is inside: `pids` with a PID namespace of the lab's own, or `plain`.
const INSIDE: &str = "REACHWHY_LAB_INSIDE";
/// The exit code by which the first process of a PID namespace says that it cannot have a `/proc`.
const NO_PROC: u8 = 254;

/// Whether this process is inside a lab's namespaces, as the one that builds it.
pub(super) fn inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// This program's own file, also where its path is covered by something.
pub(super) fn program() -> PathBuf {
    env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn this_program() -> Command {
    let mut command = Command::new(program());
    command.arg0("reachwhy");
    command
}

/// Runs `then` (arguments of reachwhy) inside new namespaces and returns its exit code, when nothing that
/// it started is left.
pub(super) fn enter(then: &[&str], style: Style, json: bool) -> anyhow::Result<u8> {
    enter_with(then, style, json, |_| ())
}

/// As [`enter`]; `started` is told the process id of the stage, whose namespaces are the lab's.
pub(super) fn enter_with(then: &[&str], style: Style, json: bool, started: impl Fn(u32)) -> anyhow::Result<u8> {
    let mut ended = Ended::Code(NO_PROC);
    for pids in [true, false] {
        let mut command = this_program();
        command.args(["lab", "stage"]);
        if !pids {
            command.arg("--no-pids");
        }
        command.arg("--").args(["--color", if style.color { "always" } else { "never" }]);
        if json {
            command.arg("--json");
        }
        command.args(then);
        ended = process::supervise(&mut command, &started).context("cannot start the lab's first process")?;
        if ended != Ended::Code(NO_PROC) {
            break;
        }
    }
    Ok(match ended {
        Ended::Code(code) => code,
        Ended::Stopped(signal) => {
            super::progress("");
            eprint_line(&format!("{signal}: the lab was ended, nothing of it is left"));
            u8::try_from(128 + signal as i32).unwrap_or(130)
        }
    })
}

#[allow(clippy::print_stderr, reason = "the one line that says why we end early")]
fn eprint_line(text: &str) {
    eprintln!("{text}");
}

/// The stage itself: enters the namespaces and runs `then` as their first process.
pub(super) fn stage(pids: bool, then: &[String]) -> anyhow::Result<u8> {
    // Ours may be the one of a binary that drops it at exec (file capabilities), so it is asked for again.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // Whether and when to end is decided by the process that watches us.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    userns::isolate(pids).map_err(LabError::from)?;
    let mut command = this_program();
    command.args(then).env(INSIDE, if pids { "pids" } else { "plain" });
    die_with_parent(&mut command);
    let status = command.status().context("cannot start the lab's first process")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(3))
}

/// What the first process inside does before anything else; `Some` is the exit code to end with at once.
pub(super) fn settle() -> Option<u8> {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if env::var_os(INSIDE).is_some_and(|kind| kind == "pids") && userns::own_proc().is_err() {
        return Some(NO_PROC);
    }
    None
}

/// A file of the lab's own, that is gone with it.
pub(super) fn scratch(name: &str) -> PathBuf {
    Path::new("/run/reachwhy").join(name)
}
