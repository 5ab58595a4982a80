//! Parse, dispatch, exit code; nothing else.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reachwhy::cli::lab::{self, LabArgs};
use reachwhy::view::{ColorChoice, Style};

/// Why can't this host reach that one?
#[derive(Parser)]
#[command(name = "reachwhy", version)]
struct Cli {
    /// One JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Colour
    #[arg(long, global = true, value_enum, default_value = "auto")]
    color: ColorChoice,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Real hosts in private network namespaces
    Lab(LabArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let columns = terminal_size::terminal_size().map(|(width, _)| width.0);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::decide(cli.color, std::io::stdout().is_terminal(), no_color, columns);
    let Command::Lab(args) = &cli.command;
    match lab::run(args, style, cli.json) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            if let Some(hint) = error.downcast_ref::<reachwhy::lab::LabError>().and_then(reachwhy::lab::LabError::hint)
            {
                let _ = writeln!(std::io::stderr(), "hint: {hint}");
            }
            ExitCode::from(if error.is::<lab::Usage>() { 2 } else { 3 })
        }
    }
}
