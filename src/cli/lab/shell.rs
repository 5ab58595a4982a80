//! `lab shell`: a shell, or a command, on a host of a lab that is up.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::{Usage, hold, stage};
use crate::lab::birthplace;
use crate::os::labstate::LabState;
use crate::os::netns::{NAMED, NetNs};
use crate::os::process::die_with_parent;
use crate::os::userns;

/// Names the lab that a shell is in, so that a second `lab shell` in it needs not look for it.
const LAB: &str = "REACHWHY_LAB";
/// Makes the prompt of an interactive bash show the host, whatever the user's own files set.
const BASHRC: &str = "[ -r ~/.bashrc ] && . ~/.bashrc\nPS1=\"[$REACHWHY_HOST] \\w\\$ \"\n";

/// Joins the lab and runs `command`, or the user's shell; returns its exit code.
pub(super) fn run(host: &str, lab: Option<&str>, command: &[String]) -> anyhow::Result<u8> {
    let here = env::var(LAB).ok().filter(|name| lab.is_none_or(|lab| lab == name));
    let name = if let Some(name) = here {
        name
    } else {
        let lab = hold::find(lab)?;
        join(&lab, host)?;
        lab.name
    };
    let place = Path::new(NAMED).join(host);
    if !place.exists() {
        return Err(Usage(format!("there is no host {host} in the lab {name}")).into());
    }
    let network = NetNs::open(&place)?;
    let mut child = match command {
        [] => shell(host),
        [program, args @ ..] => {
            let mut child = Command::new(program);
            child.args(args);
            child
        }
    };
    child.env(LAB, &name).env("REACHWHY_HOST", host);
    die_with_parent(&mut child);
    birthplace(network.file(), host).context("cannot prepare the host's files")?.apply(&mut child);
    // Ctrl-C is for what runs in the shell.
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(nix::sys::signal::Signal::SIGINT);
    signals.add(nix::sys::signal::Signal::SIGQUIT);
    let _ = signals.thread_block();
    let status = child.status().with_context(|| format!("cannot run {}", child.get_program().display()))?;
    let code = status.code().or_else(|| {
        use std::os::unix::process::ExitStatusExt;
        status.signal().map(|signal| 128 + signal)
    });
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(3))
}

fn join(lab: &LabState, host: &str) -> anyhow::Result<()> {
    if !lab.hosts.iter().any(|name| name == host) {
        let hosts = lab.hosts.join(", ");
        return Err(Usage(format!("there is no host {host} in the lab {}; there are: {hosts}", lab.name)).into());
    }
    let stage = lab.stage.filter(|stage| stage.runs()).context("the lab is not built yet")?;
    userns::join(stage.pid).with_context(|| format!("cannot enter the lab {}", lab.name))
}

fn shell(host: &str) -> Command {
    let shell =
        env::var("SHELL").ok().filter(|shell| Path::new(shell).exists()).unwrap_or_else(|| "/bin/sh".to_owned());
    let mut command = Command::new(&shell);
    command.env("PS1", format!("[{host}] $ "));
    let bashrc = stage::scratch("bashrc");
    if shell.ends_with("/bash") && std::fs::write(&bashrc, BASHRC).is_ok() {
        command.arg("--rcfile").arg(bashrc);
    }
    command
}
