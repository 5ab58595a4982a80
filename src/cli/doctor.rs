//! `reachwhy doctor TARGET`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;

use super::{Failure, Global, print_json};
use crate::doctor::vantage::{Agent, AgentError, Vantage};
use crate::doctor::{CASE_SCHEMA, Case, Diagnosis, Patience, Target, examine, judge};
use crate::os::files;
use crate::view::{self, Progress, Style};

/// What to reach, from where, and where else to look.
#[derive(Debug, clap::Args)]
#[command(after_help = "Vantages: local, netns:NAME, ssh:[USER@]HOST[:PORT], docker:NAME, kubectl:[NAMESPACE/]POD\n\
    Exit: 0 it works, 1 a fault was found, 2 bad usage or input, 3 could not find out")]
pub(super) struct DoctorArgs {
    /// HOST:PORT, tcp://…, udp://…, http://…, https://… or HOST
    #[arg(required_unless_present_any = ["replay", "list_causes"])]
    target: Option<String>,
    /// Where to ask from
    #[arg(long, value_name = "VANTAGE", default_value = "local")]
    from: String,
    /// Where the target runs, so that both ends can be watched
    #[arg(long, value_name = "VANTAGE")]
    to: Option<String>,
    /// Write everything that was seen to a case file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write the answer as one HTML page too
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Judge a case file instead of looking
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "to", "save"])]
    replay: Option<PathBuf>,
    /// List the catalogue of causes
    #[arg(long, conflicts_with_all = ["target", "to", "save", "replay", "report"])]
    list_causes: bool,
}

/// Gathers (or reads) the case, judges it, shows the answer.
pub(super) fn run(args: &DoctorArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if args.list_causes {
        return list_causes(global, style);
    }
    let case = match (&args.replay, &args.target) {
        (Some(file), _) => replay(file)?,
        (None, Some(target)) => gather(target, args, global)?,
        (None, None) => return Err(Failure::usage("no target was given", Some("reachwhy doctor 192.168.1.3:8080"))),
    };
    if let Some(file) = &args.save {
        let text = serde_json::to_vec_pretty(&case)?;
        files::write_whole(file, &text).with_context(|| format!("cannot save the case to {}", file.display()))?;
    }
    let diagnosis = judge(&case);
    if let Some(file) = &args.report {
        let page = view::doctor_html::page(&diagnosis);
        files::write_whole(file, page.as_bytes())
            .with_context(|| format!("cannot write the report to {}", file.display()))?;
    }
    show(&diagnosis, global, style)?;
    Ok(diagnosis.exit_code())
}

fn show(diagnosis: &Diagnosis, global: &Global, style: Style) -> anyhow::Result<()> {
    if global.json {
        return print_json(diagnosis);
    }
    let mut out = std::io::stdout().lock();
    view::doctor::diagnosis(&mut out, diagnosis, style, global.verbose > 0)?;
    out.flush()?;
    Ok(())
}

fn gather(target: &str, args: &DoctorArgs, global: &Global) -> anyhow::Result<Case> {
    let examples = Some("192.168.1.3:8080, udp://10.0.0.1:53, https://api.example/health, [fd00::3]:80");
    let target: Target = target.parse().map_err(|error| Failure::usage(error, examples))?;
    let vantage = |text: &str| text.parse::<Vantage>().map_err(|error| Failure::usage(error, None));
    let from = vantage(&args.from)?;
    let to = args.to.as_deref().map(vantage).transpose()?;
    let mut patience = Patience::default();
    if let Some(timeout) = global.timeout {
        patience = Patience { connect: timeout, answer: timeout };
    }
    let mut progress = Progress::new(std::io::stderr(), std::io::stderr().is_terminal() && !global.json);
    progress.say("starting");
    let mut client = Agent::start(&from).map_err(|error| failed(&error))?;
    let mut server = to.as_ref().map(Agent::start).transpose().map_err(|error| failed(&error))?;
    examine(&target, &mut client, server.as_mut(), patience, &mut |what| progress.say(what))
        .map_err(|error| failed(&error))
}

fn failed(error: &AgentError) -> anyhow::Error {
    Failure::unknown(error, error.hint())
}

fn replay(file: &std::path::Path) -> anyhow::Result<Case> {
    let text = files::read_whole(file).map_err(|error| {
        Failure::usage(format!("cannot read {}: {error}", file.display()), Some("a case file is what `--save` writes"))
    })?;
    let case: Case = serde_json::from_slice(&text).map_err(|error| {
        let place = format!("{}:{}:{}", file.display(), error.line(), error.column());
        Failure::usage(format!("{place}: this is no case file: {error}"), Some("a case file is what `--save` writes"))
    })?;
    if case.schema > CASE_SCHEMA {
        return Err(Failure::usage(
            format!("{}: the case has schema {}, this program knows up to {CASE_SCHEMA}", file.display(), case.schema),
            Some("replay it with a newer reachwhy"),
        ));
    }
    Ok(case)
}

fn list_causes(global: &Global, style: Style) -> anyhow::Result<u8> {
    if global.json {
        let list: Vec<_> = crate::doctor::Code::ALL
            .iter()
            .map(|code| serde_json::json!({"code": code, "layer": code.layer(), "meaning": code.meaning()}))
            .collect();
        print_json(&list)?;
    } else {
        view::doctor::causes(&mut std::io::stdout().lock(), style)?;
    }
    Ok(0)
}
