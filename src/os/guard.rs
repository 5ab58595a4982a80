//! A change on trial is kept by a process of its own, which takes it back when whoever ordered it is
//! gone: told so, killed, cut off, or too slow. It stands outside our process group and does not
//! listen to the terminal's signals, so neither Ctrl-C nor a crash of ours leaves the change behind.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use super::process::die_with_parent;
use crate::host::remedy::{Applied, RemedyOrder, Settled, StepDone, steps, undo_of};

/// How long one command may take.
const STEP: Duration = Duration::from_secs(20);
/// What is kept of a command's output.
const SAID: usize = 2000;

/// What the one who ordered says at the end.
const KEEP: &str = "keep";
const UNDO: &str = "undo";

/// A change that is in force and will be taken back unless [`Guard::settle`] says otherwise.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Guard {
    /// Makes the change. `None` in the guard's place where it could not be made as a whole; what had
    /// been done of it is then taken back already.
    ///
    /// # Errors
    /// When the guarding process cannot be started, or dies.
    pub fn apply(order: &RemedyOrder) -> io::Result<(Option<Self>, Applied)> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("guard").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut guard = Self { child, input, output };
        guard.say(&serde_json::to_string(order)?)?;
        let applied: Applied = guard.hear()?;
        Ok((applied.done.then_some(guard), applied))
    }

    /// Ends the trial.
    ///
    /// # Errors
    /// When the guarding process is gone; then the change may or may not be in force.
    pub fn settle(mut self, keep: bool) -> io::Result<Settled> {
        // It may have ended for lateness; then the answer is already there.
        let _ = self.say(if keep { KEEP } else { UNDO });
        self.hear()
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")?;
        input.flush()
    }

    fn hear<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process that guards the change has died"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Its input closes, so that it takes the change back, unless it was told otherwise.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// The guarding process: reads an order, carries it out, waits for the end of the trial.
///
/// # Errors
/// When there is no order to read.
pub fn run(input: impl Read + Send + 'static, mut output: impl Write) -> io::Result<()> {
    let mut deaf = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE] {
        deaf.add(signal);
    }
    deaf.thread_block()?;
    let mut input = BufReader::new(input);
    let mut line = String::new();
    input.read_line(&mut line)?;
    let order: RemedyOrder = serde_json::from_str(&line)?;
    let all = steps(&order.command);
    let mut applied = Applied::default();
    for step in &all {
        let done = carry_out(step);
        let worked = done.worked();
        applied.steps.push(done);
        if !worked {
            break;
        }
    }
    let worked = applied.steps.iter().filter(|step| step.worked()).count();
    applied.done = worked == all.len() && worked > 0;
    let back = undo_of(&order.undo, all.len(), worked);
    if !applied.done {
        applied.undone = back.iter().map(|step| carry_out(step)).collect();
        tell(&mut output, &applied);
        return Ok(());
    }
    tell(&mut output, &applied);
    let (send, words) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let said = input.read_line(&mut line).map(|_| line.trim().to_owned());
        // A closed input says nothing, and nothing is not `keep`.
        let _ = send.send(said.unwrap_or_default());
    });
    let word = words.recv_timeout(Duration::from_millis(order.within_ms));
    let late = matches!(word, Err(RecvTimeoutError::Timeout));
    let kept = word.is_ok_and(|word| word == KEEP);
    let undone = if kept { Vec::new() } else { back.iter().map(|step| carry_out(step)).collect() };
    tell(&mut output, &Settled { kept, undone, late, left: Vec::new() });
    Ok(())
}

/// Whoever listened may be gone: that is what this process is for.
fn tell(output: &mut impl Write, what: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(what) {
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}

/// Runs one command by sh(1).
fn carry_out(step: &str) -> StepDone {
    let start = Instant::now();
    let ended = shell(step);
    let ms = (start.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    match ended {
        Ok((exit, said)) => StepDone { command: step.to_owned(), exit, said, ms },
        Err(error) => StepDone { command: step.to_owned(), exit: None, said: error.to_string(), ms },
    }
}

fn shell(step: &str) -> io::Result<(Option<i32>, String)> {
    let mut command = Command::new("/bin/sh");
    // A shell over ssh may know no /sbin, where ip and iptables are.
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(["-c", &format!("exec 2>&1; {step}")]);
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let (send, said) = channel();
    if let Some(mut output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut octets = [0_u8; 512];
            while let Ok(read @ 1..) = output.read(&mut octets) {
                if send.send(octets[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    let until = Instant::now() + STEP;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break Some(ended);
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // A service that was started may hold the pipe for ever; what the command itself said is there at once.
    let mut octets = Vec::new();
    while let Ok(more) = said.recv_timeout(Duration::from_millis(50)) {
        octets.extend(more);
        if octets.len() >= SAID {
            break;
        }
    }
    octets.truncate(SAID);
    let mut text = String::from_utf8_lossy(&octets).trim().to_owned();
    if ended.is_none() {
        text = format!("{text}\n(stopped after {} s)", STEP.as_secs());
    }
    Ok((ended.and_then(|ended| ended.code()), text))
}
