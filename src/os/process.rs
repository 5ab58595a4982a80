//! Child processes that cannot outlive us, and that are born inside a host of the lab.
//!
//! The kernel does the cleaning: every child asks for SIGKILL at its parent's death
//! (`PR_SET_PDEATHSIG`, prctl(2)), and the outermost process adopts orphans
//! (`PR_SET_CHILD_SUBREAPER`) and ends only when none is left. No handler has to run for that,
//! so it holds for a crash and for `kill -9` too.
#![allow(unsafe_code, reason = "CommandExt::pre_exec is the only way to act between fork and exec")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

/// Has the child killed when the thread that spawns it ends, however that happens.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child before exec and only makes async-signal-safe system
    // calls (prctl, getppid, rt_sigprocmask); it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have gone before that call; then nobody is left to send the signal. A
            // parent in an outer PID namespace is seen as 0.
            let now = getppid();
            if now != parent && now.as_raw() != 0 {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
}

/// Where a child begins its life: a network namespace, and files of its own put over the system's, as
/// `ip netns exec` does with `/etc/netns/NAME/*`.
#[derive(Debug)]
pub struct Birthplace {
    network: OwnedFd,
    files: Vec<(CString, CString)>,
}

impl Birthplace {
    /// In the network namespace `network`, with each `files` entry's first path bound over its second.
    ///
    /// # Errors
    /// When the handle cannot be doubled, or a path has a NUL in it.
    pub fn new(network: impl AsFd, files: &[(&Path, &Path)]) -> io::Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::from);
        let files = files.iter().map(|(from, over)| Ok((text(from)?, text(over)?))).collect::<io::Result<_>>()?;
        Ok(Self { network: network.as_fd().try_clone_to_owned()?, files })
    }

    /// Has `command` start here. The mounts are in a mount namespace of the child's own.
    pub fn apply(self, command: &mut Command) {
        let Self { network, files } = self;
        // SAFETY: as in `die_with_parent`: only system calls (unshare, mount, setns) on strings that were
        // made before the fork; nix passes a CStr on without copying it.
        unsafe {
            command.pre_exec(move || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                setns(&network, CloneFlags::CLONE_NEWNET)?;
                for (from, over) in &files {
                    let none: Option<&str> = None;
                    mount(Some(from.as_c_str()), over.as_c_str(), none, MsFlags::MS_BIND, none)?;
                }
                // So that /sys/class/net shows this namespace's links; a sandbox may forbid it, and
                // nothing here rests on it.
                let none: Option<&str> = None;
                let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none);
                Ok(())
            });
        }
    }
}

/// A child that is killed and reaped when the handle goes.
#[derive(Debug)]
pub struct Guarded(Child);

impl Guarded {
    /// Takes charge of `child`.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).map_err(io::Error::from)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Already gone is as good; there is nobody to tell of anything else.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process by its number.
pub fn send(pid: u32, signal: Signal) -> io::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), signal).map_err(io::Error::from)
}

/// How a supervised run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code (128 + n for signal n).
    Code(u8),
    /// We were told to stop by this signal; everything was killed.
    Stopped(Signal),
}

/// What is done when someone asks us to end.
const STOPS: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs `command` and everything it starts; returns when none of it is left.
///
/// SIGINT, SIGTERM, SIGHUP and SIGQUIT end it early. `started` is told the child's process id.
///
/// # Errors
/// When the child cannot be started.
pub fn supervise(command: &mut Command, started: impl FnOnce(u32)) -> io::Result<Ended> {
    prctl::set_child_subreaper(true)?;
    let mut watched = SigSet::empty();
    for signal in STOPS {
        watched.add(signal);
    }
    watched.add(Signal::SIGCHLD);
    let before = watched.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    die_with_parent(command);
    let ended = command.spawn().and_then(|child| {
        started(child.id());
        let first = Pid::from_raw(child.id().cast_signed());
        let ended = wait_for(first, &watched)?;
        reap_orphans();
        Ok(ended)
    });
    let _ = before.thread_set_mask();
    ended
}

fn wait_for(first: Pid, watched: &SigSet) -> io::Result<Ended> {
    let mut stopped = None;
    loop {
        // Signals that came while we were not looking are still pending, so the wait returns at once.
        while let Some((pid, code)) = reap() {
            if pid == first {
                return Ok(stopped.map_or(Ended::Code(code), Ended::Stopped));
            }
        }
        match watched.wait()? {
            Signal::SIGCHLD => {}
            signal => {
                stopped = Some(signal);
                let _ = kill(first, Signal::SIGKILL);
            }
        }
    }
}

/// Reaps one child if one has ended: which, and its exit code.
fn reap() -> Option<(Pid, u8)> {
    let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(u8::MAX);
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, code)) => Some((pid, low(code))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, low(128 + signal as i32))),
        _ => None,
    }
}

/// Kills and reaps whatever was left to us as the adoptive parent.
fn reap_orphans() {
    let patience = Instant::now() + Duration::from_secs(5);
    while Instant::now() < patience {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) | Err(_) => {
                for pid in children() {
                    let _ = kill(pid, Signal::SIGKILL);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(_) => {}
        }
    }
}

/// Our children, by the parent field of `/proc/PID/stat` (proc(5)).
fn children() -> Vec<Pid> {
    let me = getpid().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| stat_field(*pid, 1).as_deref() == Some(me.to_string().as_str()))
        .map(Pid::from_raw)
        .collect()
}

/// The `index`-th field after the command's name in `/proc/PID/stat`: 0 state, 1 parent, 19 start time.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold anything, so the last one ends it.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    rest.split_whitespace().nth(index).map(str::to_owned)
}

/// When a process was started, in ticks since boot: with its number it names a process for ever.
/// `None` where there is no such process (a zombie counts as none).
pub fn start_time(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok()?;
    if stat_field(pid, 0)? == "Z" {
        return None;
    }
    stat_field(pid, 19)?.parse().ok()
}
