//! `reachwhy lab`: real hosts in private network namespaces.
//!
//! Three processes make a lab. The one that the user started only watches, and ends when nothing of the
//! lab is left ([`crate::os::process::supervise`]). The *stage* enters the new namespaces. Its child,
//! the first process of the lab's PID namespace, builds the lab and does the work; when it ends, for
//! whatever reason, the kernel ends all the rest.

mod doctor;
mod handshake;
mod hold;
mod run;
mod shell;
mod stage;
mod trace;

use std::io::{IsTerminal, Write};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::lab::scenarios::{self, Scenario};
use crate::lab::service::{cable, dns, echo, http, tls};
use crate::lab::topology;
use crate::view::{self, Style};

/// `reachwhy lab …`
#[derive(Debug, Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Show the exercises and topologies there are
    List,
    /// Run an exercise: healthy, broken, diagnosed, fixed, cleaned up
    Run {
        /// An exercise of `lab list`
        name: String,
    },
    /// Build a lab and keep it until `lab down`
    Up {
        /// A topology, or an exercise (then with its fault in it)
        name: String,
        /// Leave the exercise's fault out
        #[arg(long)]
        healthy: bool,
    },
    /// Open a shell, or run a command, on a host of the lab that is up
    Shell {
        /// The host
        host: String,
        /// Which lab, where several are up
        #[arg(long)]
        lab: Option<String>,
        /// The command; none: $SHELL
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// End a lab
    Down {
        /// Which; none: all that are up
        name: Option<String>,
    },
    /// One service of a lab's host
    #[command(hide = true, subcommand)]
    Service(ServiceCommand),
    /// Enters new namespaces and goes on there
    #[command(hide = true)]
    Stage {
        /// Without a PID namespace
        #[arg(long)]
        no_pids: bool,
        /// What goes on there: arguments of reachwhy
        #[arg(last = true)]
        then: Vec<String>,
    },
    /// Keeps a lab
    #[command(hide = true)]
    Hold {
        name: String,
        #[arg(long)]
        healthy: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// HTTP/1.1
    Http(http::HttpOptions),
    /// HTTP over TLS
    Tls(tls::TlsOptions),
    /// DNS
    Dns(dns::DnsOptions),
    /// Echo, TCP and UDP
    Echo(echo::EchoOptions),
    /// A cable that delays, loses, repeats
    Cable(cable::CableOptions),
}

/// Does what `args` ask for; the exit code is the contract's (0 fine, 1 a problem, 2 usage, 3 could not).
///
/// # Errors
/// What stopped it, for people, with a hint where there is one.
pub(super) fn run(args: &LabArgs, style: Style, json: bool) -> anyhow::Result<u8> {
    match &args.command {
        LabCommand::List => list(style, json),
        LabCommand::Run { name } if stage::inside() && name == handshake::NAME => handshake::inside(style, json),
        LabCommand::Run { name } if stage::inside() && name == trace::NAME => trace::inside(style, json),
        LabCommand::Run { name } if stage::inside() => run::inside(name, style, json),
        LabCommand::Run { name } => {
            // Asked here so that a wrong name is told before anything is made.
            if ![trace::NAME, handshake::NAME].contains(&name.as_str()) {
                scenario(name)?;
            }
            stage::enter(&["lab", "run", name], style, json)
        }
        LabCommand::Up { name, healthy } => hold::up(name, *healthy, style, json),
        LabCommand::Hold { name, healthy } if stage::inside() => hold::inside(name, *healthy),
        LabCommand::Hold { name, healthy } => hold::hold(name, *healthy, style),
        LabCommand::Shell { host, lab, command } => shell::run(host, lab.as_deref(), command),
        LabCommand::Down { name } => hold::down(name.as_deref(), style, json),
        LabCommand::Stage { no_pids, then } => stage::stage(!no_pids, then),
        LabCommand::Service(service) => {
            match service {
                ServiceCommand::Http(options) => http::run(options),
                ServiceCommand::Tls(options) => tls::run(options),
                ServiceCommand::Dns(options) => dns::run(options),
                ServiceCommand::Echo(options) => echo::run(options),
                ServiceCommand::Cable(options) => cable::run(options),
            }?;
            Ok(0)
        }
    }
}

/// The request makes no sense here and now: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(String);

fn scenario(name: &str) -> Result<Scenario, Usage> {
    scenarios::named(name).map_err(|error| Usage(error.to_string()))
}

fn list(style: Style, json: bool) -> anyhow::Result<u8> {
    let (scenarios, topologies) = (scenarios::all(), topology::all());
    let text = if json {
        view::lab::list_json(&scenarios, &topologies)
    } else {
        let lessons = [(trace::NAME, trace::SUMMARY), (handshake::NAME, handshake::SUMMARY)];
        view::lab::list(&scenarios, &lessons, &topologies, style)
    };
    print(&text)?;
    Ok(0)
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write the output"),
        _ => Ok(()),
    }
}

/// Tells people at a terminal what is going on.
fn progress(text: &str) {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        // Nothing can be done about a terminal that is gone.
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
