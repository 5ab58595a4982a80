//! `reachwhy doctor matrix HOSTS`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Mutex;

use super::look::patience;
use crate::cli::{Failure, Global, print_json};
use crate::doctor::matrix::{self, Member, Plan};
use crate::os::{files, interrupt};
use crate::view::{self, Progress, Style};

/// Which hosts, and what to try between them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A host is a name for ssh, or a vantage (netns:NAME, ssh:[USER@]HOST[:PORT], docker:NAME, local), each perhaps with\n\
    =ADDRESS. An inventory has one a line, or is Ansible's (INI or YAML).\n\
    Exit: 0 all pairs work, 1 one does not, 2 bad usage or input, 3 could not find out of all"
)]
pub(super) struct MatrixArgs {
    /// The hosts
    #[arg(required_unless_present = "inventory")]
    hosts: Vec<String>,
    /// Read the hosts from a file: one a line, or Ansible's INI or YAML
    #[arg(short, long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    /// Try this TCP port; without it, whether the hosts answer at all (ICMP echo)
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "target")]
    port: Option<u16>,
    /// Try this target, with {} for the other host's address: http://{}:8080/health
    #[arg(short, long, value_name = "TARGET")]
    target: Option<String>,
    /// Try this many pairs at once at most
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Where reachwhy is not installed, copy it to a temporary place for the time of the look
    #[arg(long)]
    push: bool,
}

/// Reads the hosts, tries all pairs, shows the matrix.
pub(super) fn run(args: &MatrixArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let members = members(args)?;
    let target = match (&args.target, args.port) {
        (Some(target), _) => target.clone(),
        (None, Some(port)) => format!("tcp://{{}}:{port}"),
        (None, None) => "{}".to_owned(),
    };
    if !target.contains("{}") {
        let hint = Some("for example --target 'http://{}:8080/health'");
        return Err(Failure::usage(format!("--target {target}: {{}} is missing, where the host's address goes"), hint));
    }
    matrix::fill(&target, "192.0.2.1").map_err(|error| Failure::usage(error, None))?;
    interrupt::flag();
    let plan = Plan { target, jobs: usize::from(args.jobs), patience: patience(global) };
    let quiet = global.json || !std::io::stderr().is_terminal();
    let progress = Mutex::new(Progress::new(std::io::stderr(), !quiet));
    if let Ok(mut progress) = progress.lock() {
        progress.say("starting");
    }
    let found = matrix::matrix(&members, &plan, &|done, all| {
        if let Ok(mut progress) = progress.lock() {
            progress.say(&format!("{done} of {all} pairs"));
        }
    });
    drop(progress);
    if global.json {
        print_json(&found)?;
    } else {
        let mut out = std::io::stdout().lock();
        view::doctor_matrix::matrix(&mut out, &found, style)?;
        out.flush()?;
    }
    Ok(found.exit_code())
}

fn members(args: &MatrixArgs) -> anyhow::Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    if let Some(file) = &args.inventory {
        let name = file.display();
        let text = files::read_whole(file).map_err(|error| {
            Failure::usage(
                format!("cannot read {name}: {error}"),
                Some("an inventory has one host a line, or is Ansible's"),
            )
        })?;
        let text = String::from_utf8(text).map_err(|_| Failure::usage(format!("{name}: it is no text"), None))?;
        members = matrix::inventory(&text, &name.to_string()).map_err(|error| Failure::usage(error, None))?;
    }
    for text in &args.hosts {
        let hint = Some(
            "a name for ssh, netns:NAME, ssh:[USER@]HOST[:PORT], docker:NAME or local, each perhaps with =ADDRESS",
        );
        members.push(matrix::member(text).map_err(|why| Failure::usage(why, hint))?);
    }
    for (at, member) in members.iter().enumerate() {
        if members[..at].iter().any(|other| other.name == member.name) {
            return Err(Failure::usage(format!("{} is named twice", member.name), None));
        }
    }
    if members.len() < 2 {
        return Err(Failure::usage(
            "a matrix needs two hosts at least",
            Some("reachwhy doctor matrix web1 web2 db1 --port 22"),
        ));
    }
    if args.push {
        for member in &mut members {
            member.vantage = member.vantage.clone().with_push();
        }
    }
    Ok(members)
}
