//! The command line: arguments → request → feature → view, one file a command.
//!
//! Exit codes are a contract: 0 fine, 1 a problem was found, 2 bad usage or input, 3 could not
//! find out. This module is the only place that decides them.

mod agent;
mod arp;
mod dns;
mod doctor;
mod error;
mod explain;
mod facts;
mod fw;
mod guard;
mod lab;
mod port;
mod tcp;
mod trace;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use error::{Exit, Failure};

use crate::lab::LabError;
use crate::os::late;
use crate::view::{ColorChoice, Paint, Style};

/// Why can't this host reach that one? Packet-level, honest about its evidence.
#[derive(Debug, Parser)]
#[command(name = "reachwhy", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print JSON: one document, or JSON Lines where there are many
    #[arg(long, global = true)]
    pub json: bool,
    /// Use colour: auto, always or never; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true)]
    pub color: ColorChoice,
    /// Say more: what each step rests on
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How long to wait for an answer, in seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<std::time::Duration>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find out why a target does not answer, and what to do about it
    Doctor(doctor::DoctorArgs),
    /// Show the path to a host: every hop, what it changes, where it ends
    Trace(trace::TraceArgs),
    /// Neighbours on the link: look up, scan, table, watch (ARP, NDP)
    Arp(arp::ArpArgs),
    /// Which ports answer, and who says no
    Port(port::PortArgs),
    /// What this host resolves a name to, step by step, and who disagrees
    Dns(dns::DnsArgs),
    /// TCP: read captures, watch, explain flags, send segments, compare two captures
    Tcp(tcp::TcpArgs),
    /// Packet filters: simulate, prove, compare, explain
    Fw(fw::FwArgs),
    /// Teach a cause: how it looks, how it comes about, what tells it from its look-alikes, the cure
    Explain(explain::ExplainArgs),
    /// Print this host's network facts
    Facts(facts::FactsArgs),
    /// Real hosts in private network namespaces: demo, classroom, test bed
    Lab(lab::LabArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Ask the C library about one service of nsswitch.conf
    #[command(hide = true)]
    NssModule {
        /// The service
        service: String,
        /// 0, 4 or 6
        family: u8,
        /// The name
        name: String,
    },
    /// Answer a doctor's questions on standard input
    #[command(hide = true)]
    Agent(agent::AgentArgs),
    /// Keep a change on trial, and take it back when nobody says to keep it
    #[command(hide = true)]
    Guard,
    /// Carry a doctor's questions to one that serves
    #[command(hide = true)]
    Relay {
        /// Its name or address
        host: String,
        /// Its port
        port: u16,
    },
}

/// One of the commands that may be over sooner than the descriptions of all commands are made: the same words with the
/// same meaning, parsed alone.
#[derive(Debug, Parser)]
#[command(name = "reachwhy", version, propagate_version = true)]
struct Quick<C: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Subcommand)]
enum QuickTrace {
    Trace(trace::TraceArgs),
}

#[derive(Debug, Subcommand)]
enum QuickArp {
    Arp(arp::ArpArgs),
}

#[derive(Debug, Subcommand)]
enum QuickPort {
    Port(port::PortArgs),
}

/// The command line, if it is one of these commands' and nothing is wrong with it: help and complaints need them all.
fn quick(words: &[OsString]) -> Option<Cli> {
    fn alone<C: Subcommand>(words: &[OsString], of: fn(C) -> Command) -> Option<Cli> {
        let Quick { global, command } = Quick::<C>::try_parse_from(words).ok()?;
        Some(Cli { global, command: of(command) })
    }
    match words.get(1)?.to_str()? {
        "trace" => alone(words, |QuickTrace::Trace(args)| Command::Trace(args)),
        "arp" => alone(words, |QuickArp::Arp(args)| Command::Arp(args)),
        "port" => alone(words, |QuickPort::Port(args)| Command::Port(args)),
        _ => None,
    }
}

/// Parses the command line, runs the command, reports what went wrong, and says how it ended.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match quick(&words).map_or_else(|| Cli::try_parse_from(&words), Ok) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to standard output and complaints to standard error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage.code() } else { 0 });
        }
    };
    let style = style(cli.global.color);
    late::allow();
    let code = match run(cli, style) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(&error),
    };
    late::leave();
    code
}

fn style(choice: ColorChoice) -> Style {
    let terminal = std::io::stdout().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let columns = terminal_size::terminal_size().map(|(width, _)| width.0).filter(|_| terminal);
    Style::decide(choice, terminal, no_color, columns)
}

fn run(cli: Cli, style: Style) -> anyhow::Result<u8> {
    let global = cli.global;
    match cli.command {
        Command::Doctor(args) => doctor::run(&args, &global, style),
        Command::Explain(args) => explain::run(&args, &global, style),
        Command::Trace(args) => trace::run(&args, &global, style),
        Command::Arp(args) => arp::run(&args, &global, style),
        Command::Dns(args) => dns::run(&args, &global, style),
        Command::Facts(args) => facts::run(&args, &global, style),
        Command::Fw(args) => fw::run(&args, &global, style),
        Command::Tcp(args) => tcp::run(&args, &global, style),
        Command::Lab(args) => lab::run(&args, style, global.json),
        Command::Port(args) => port::run(&args, &global, style),
        Command::NssModule { service, family, name } => dns::module(&service, family, &name),
        Command::Agent(args) => agent::run(&args),
        Command::Guard => guard::run(),
        Command::Relay { host, port } => guard::relay(&host, port),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reachwhy", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(0)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
            Ok(0)
        }
    }
}

/// Tells the user what went wrong and what to do; the one place where an error becomes an exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    use std::fmt::Write as _;

    if error.chain().any(is_broken_pipe) {
        // Whoever reads has enough: `reachwhy … | head` is no failure.
        return ExitCode::SUCCESS;
    }
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let style = Style::decide(ColorChoice::Auto, terminal, false, None);
    let mut text = format!("{} {error:#}\n", style.paint(Paint::Bad, "error:"));
    let failure = error.downcast_ref::<Failure>();
    let lab = error.downcast_ref::<LabError>();
    let hint = failure.and_then(|failure| failure.hint.clone()).or_else(|| lab.and_then(LabError::hint));
    if let Some(hint) = hint {
        let _ = writeln!(text, "{} {hint}", style.paint(Paint::Name, "hint:"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    let exit = match failure {
        Some(failure) => failure.exit,
        None if error.is::<lab::Usage>() => Exit::Usage,
        None => Exit::Unknown,
    };
    ExitCode::from(exit.code())
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    kind.or(json) == Some(std::io::ErrorKind::BrokenPipe)
}

/// Seconds with a fraction; more than 0, at most a day.
fn seconds(text: &str) -> Result<std::time::Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(std::time::Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds greater than 0 and at most 86400".to_owned()),
    }
}

/// Writes one JSON document and a newline to standard output.
///
/// # Errors
/// When standard output is closed.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    std::io::stdout().write_all(&text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_are_positive_numbers() {
        assert_eq!(seconds("1.5").unwrap().as_millis(), 1500);
        for bad in ["0", "-1", "x", "NaN", "inf", "1e9", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
