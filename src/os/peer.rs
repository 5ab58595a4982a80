//! A child process that is spoken with, line by line, over its standard input and output.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::process::die_with_parent;

/// How long a child may take to end by itself once its input is closed.
const GRACE: Duration = Duration::from_secs(2);
/// What is kept of its standard error: a login shell at the far side may print a long greeting.
const SAID: u64 = 4096;

/// The program file of this process.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Runs a program to its end: what it printed, or what it complained of where it failed.
///
/// # Errors
/// When it cannot be started; `NotFound` where it is not installed.
pub fn ask_program(program: &str, arguments: &[&str]) -> io::Result<Result<String, String>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    die_with_parent(&mut command);
    let done = command.output()?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().chars().take(500).collect::<String>();
    Ok(if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) })
}

/// The child and its pipes. Dropping it closes its input, waits for it to end, and at last kills it.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// Why no line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Not in time.
    Late,
    /// The child has closed its output.
    Ended,
}

impl Peer {
    /// Starts `program` with `arguments`.
    ///
    /// # Errors
    /// When it cannot be started: not found, not executable, no more processes allowed.
    pub fn start(program: impl Into<OsString>, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(program.into());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for us: the child is needed to take down what it put up.
        command.process_group(0);
        die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let (send, lines) = channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let input = child.stdin.take();
        Ok(Self { child, input, lines })
    }

    /// Sends one line.
    ///
    /// # Errors
    /// When the child has closed its input.
    pub fn say(&mut self, line: &[u8]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(line)?;
        input.write_all(b"\n")?;
        input.flush()
    }

    /// Sends octets as they are.
    ///
    /// # Errors
    /// When the child has closed its input.
    pub fn pour(&mut self, octets: &[u8]) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(octets)?;
        input.flush()
    }

    /// Waits for its next line.
    ///
    /// # Errors
    /// [`Silence`]: it was late, or it has ended.
    pub fn hear(&mut self, patience: Duration) -> Result<String, Silence> {
        self.lines.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Late,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }

    /// Ends it, and returns what it left on its standard error.
    pub fn last_words(&mut self) -> String {
        self.input = None;
        let _ = self.child.kill();
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(SAID).read_to_end(&mut said);
        }
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.input = None;
        let step = Duration::from_millis(2);
        for _ in 0..GRACE.as_millis() / step.as_millis() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(step);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
