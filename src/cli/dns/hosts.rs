//! `reachwhy dns hosts`: the hosts file listed, checked, looked up and changed.

use std::io::Write;
use std::path::PathBuf;

use crate::cli::{Failure, Global, print_json};
use crate::dns::report::Severity;
use crate::dns::{Addition, LineFinding, edit, lint};
use crate::host::hosts::{HostsEntry, HostsFile};
use crate::os::dns::save;
use crate::os::files;
use crate::view::{self, Style};

/// The hosts file: without arguments, all of it, and what is wrong with it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit: 0 fine, 1 a finding, or the name is not there, 2 bad usage or input, 3 it cannot be read or written"
)]
pub(in crate::cli) struct HostsArgs {
    /// Only the lines with this name or address
    #[arg(conflicts_with_all = ["add", "remove"])]
    name: Option<String>,
    /// Another file
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    file: PathBuf,
    /// Only what is wrong with it
    #[arg(long, conflicts_with_all = ["name", "add", "remove"])]
    lint: bool,
    /// Give names to an address, as 127.0.0.1=www.163.com; repeatable. Prints the change
    #[arg(long, value_name = "ADDRESS=NAME,…")]
    add: Vec<String>,
    /// Take a name out; repeatable. Prints the change
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Make the change, and keep the old file beside it
    #[arg(long)]
    write: bool,
}

pub(super) fn run(args: &HostsArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let octets = files::read_whole(&args.file)
        .map_err(|error| Failure::unknown(format!("cannot read {}: {error}", args.file.display()), None))?;
    if !args.add.is_empty() || !args.remove.is_empty() {
        return change(args, global, style, &octets);
    }
    if args.write {
        return Err(Failure::usage("there is nothing to write", Some("--add ADDRESS=NAME or --remove NAME say what")));
    }
    let text = String::from_utf8_lossy(&octets);
    let file = HostsFile::parse(&text);
    let found = lint(&text, own_name().as_deref());
    let entries: Vec<&HostsEntry> = match &args.name {
        Some(name) => match name.parse() {
            Ok(address) => file.reverse(address).collect(),
            Err(_) => file.lookup(name.trim_end_matches('.')).collect(),
        },
        None if args.lint => Vec::new(),
        None => file.entries.iter().collect(),
    };
    // What concerns other lines is nobody's question when one name is looked up.
    let of_interest =
        |finding: &&LineFinding| args.name.is_none() || entries.iter().any(|entry| Some(entry.line) == finding.line);
    let found: Vec<&LineFinding> = found.iter().filter(of_interest).collect();
    if global.json {
        print_json(&serde_json::json!({"file": args.file, "entries": entries, "findings": found}))?;
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        view::dns::hosts(&mut out, &args.file.display().to_string(), &entries, &found, args.name.as_deref(), style)?;
        out.flush()?;
    }
    let wrong = found.iter().any(|finding| finding.severity != Severity::Info);
    let missing = args.name.is_some() && entries.is_empty();
    Ok(u8::from(missing || (args.name.is_none() && wrong)))
}

fn own_name() -> Option<String> {
    crate::os::dns::facts::resolver_facts().hostname
}

fn change(args: &HostsArgs, global: &Global, style: Style, octets: &[u8]) -> anyhow::Result<u8> {
    let additions: Vec<Addition> = args
        .add
        .iter()
        .map(|text| {
            text.parse().map_err(|error| {
                Failure::usage(format!("--add {text}: {error}"), Some("reachwhy dns hosts --add 127.0.0.1=www.163.com"))
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let Ok(text) = std::str::from_utf8(octets) else {
        let what = format!("{} is not UTF-8; changing it could damage what stands there", args.file.display());
        return Err(Failure::unknown(what, Some("bring its comments to UTF-8 first")));
    };
    let path = args.file.display().to_string();
    let edited = edit(text, &additions, &args.remove);
    let diff = edited.diff(&path);
    let backup = if args.write && edited.changes() {
        let kept = save::replace(&args.file, octets, edited.text.as_bytes()).map_err(|error| {
            let hint = (error.kind() == std::io::ErrorKind::PermissionDenied).then_some("run it as root (sudo)");
            Failure::unknown(format!("cannot write {path}: {error}"), hint)
        })?;
        Some(kept)
    } else {
        None
    };
    if global.json {
        print_json(&serde_json::json!({
            "file": path, "changes": edited.changes(), "diff": diff, "notes": edited.notes,
            "written": backup.is_some(), "backup": backup,
        }))?;
    } else {
        let backup = backup.map(|backup| backup.display().to_string());
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        view::dns::hosts_change(&mut out, &edited, &diff, backup.as_deref(), style)?;
        out.flush()?;
    }
    Ok(0)
}
