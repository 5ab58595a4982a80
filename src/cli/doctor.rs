//! `reachwhy doctor TARGET`.

mod fleet;
mod look;
mod serve;
mod watch;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::{Exit, Failure, Global, print_json};
use crate::doctor::vantage::AgentError;
use crate::doctor::{CASE_SCHEMA, Case, Diagnosis, FixCheck, Outcome, Verification, fix_check, judge, verify};
use crate::os::{files, interrupt};
use crate::view::{self, Style};
use look::{Look, failed};

/// What to reach, from where, and where else to look.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Vantages: local, netns:NAME, ssh:[USER@]HOST[:PORT], docker:NAME, kubectl:[NAMESPACE/]POD,\n\
    and for --to serve:HOST:PORT#TOKEN\n\
    Exit: 0 it works, 1 a fault was found, 2 bad usage or input, 3 could not find out;\n\
    with --verify-fix and --watch as things stand at the end"
)]
pub(super) struct DoctorArgs {
    #[command(subcommand)]
    command: Option<DoctorCommand>,
    /// HOST:PORT, tcp://…, udp://…, http://…, https://… or HOST
    #[arg(required_unless_present_any = ["replay", "list_causes", "serve"])]
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
    /// Say what a firewall fix would do, by simulation: what passes then, what else would newly pass
    #[arg(long, conflicts_with = "list_causes")]
    fix_check: bool,
    /// Apply the fix where it belongs, try again; keep it if it helps, else take it back
    #[arg(long, conflicts_with_all = ["list_causes", "replay"])]
    verify_fix: bool,
    /// Over ssh and kubectl: where reachwhy is not installed, copy it to a temporary place for the time of the look
    #[arg(long, conflicts_with_all = ["list_causes", "replay"])]
    push: bool,
    /// Let another doctor look at this host, once: prints a token, serves one client, ends. With a
    /// TARGET only that one may be tried
    #[arg(long, conflicts_with_all = ["from", "to", "save", "report", "replay", "list_causes", "fix_check", "verify_fix", "push", "watch"])]
    serve: bool,
    /// The port to serve at; without it any free one
    #[arg(long, value_name = "PORT", requires = "serve", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// The address to serve at; without it all of this host's
    #[arg(long, value_name = "ADDRESS", requires = "serve")]
    bind: Option<std::net::IpAddr>,
    /// Serve for this long at most, in seconds [default: 600]
    #[arg(long = "for", value_name = "SECONDS", requires = "serve", value_parser = super::seconds)]
    time: Option<std::time::Duration>,
    /// Look again and again until it breaks or heals, and tell the changes
    #[arg(long, conflicts_with_all = ["list_causes", "replay", "save", "report", "verify_fix", "fix_check"])]
    watch: bool,
    /// Seconds between two looks [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = super::seconds, requires = "watch")]
    interval: Option<std::time::Duration>,
    /// Look at most this many times
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "watch")]
    count: Option<u32>,
}

#[derive(Debug, clap::Subcommand)]
enum DoctorCommand {
    /// Have every host of a fleet try every other, and group what stands in the way
    Matrix(fleet::MatrixArgs),
}

/// The answer with what else was asked for.
#[derive(serde::Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix_check: Option<&'a [FixCheck]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify_fix: Option<&'a Verification>,
}

/// Gathers (or reads) the case, judges it, shows the answer.
pub(super) fn run(args: &DoctorArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    if let Some(DoctorCommand::Matrix(args)) = &args.command {
        return fleet::run(args, global, style);
    }
    if args.list_causes {
        return list_causes(global, style);
    }
    if args.serve {
        let target = args.target.as_deref().map(look::target).transpose()?;
        let time = args.time.unwrap_or(std::time::Duration::from_secs(600));
        let plan = serve::Plan { target: target.as_ref(), bind: args.bind, port: args.port, time };
        return serve::run(&plan, global, style);
    }
    if args.verify_fix {
        interrupt::flag();
    }
    let mut look = match (&args.replay, &args.target) {
        (None, Some(target)) => Some(Look::new(target, args, global)?),
        (None, None) => return Err(Failure::usage("no target was given", Some("reachwhy doctor 192.168.1.3:8080"))),
        (Some(_), _) => None,
    };
    if args.watch
        && let Some(look) = look
    {
        let interval = args.interval.unwrap_or(std::time::Duration::from_secs(5));
        return watch::run(look, &watch::Plan { interval, count: args.count }, global, style);
    }
    let case = match (&args.replay, &mut look) {
        (Some(file), _) => replay(file)?,
        (None, Some(look)) => {
            let mut progress = look.progress();
            progress.say("starting");
            look.case(&mut |what| progress.say(what)).map_err(|error| failed(&error))?
        }
        (None, None) => return Err(Failure::usage("no target was given", None)),
    };
    if let Some(file) = &args.save {
        let text = serde_json::to_vec_pretty(&case)?;
        files::write_whole(file, &text).with_context(|| format!("cannot save the case to {}", file.display()))?;
    }
    let mut diagnosis = judge(&case);
    let checks = args.fix_check.then(|| fix_check(&case, &diagnosis));
    let verified = look.as_mut().filter(|_| args.verify_fix).map(|look| try_fix(look, &mut diagnosis));
    if let Some(file) = &args.report {
        let page = view::doctor_html::page(&diagnosis);
        files::write_whole(file, page.as_bytes())
            .with_context(|| format!("cannot write the report to {}", file.display()))?;
    }
    let whole = Whole { diagnosis: &diagnosis, fix_check: checks.as_deref(), verify_fix: verified.as_ref() };
    show(&whole, global, style)?;
    Ok(exit_code(&diagnosis, verified.as_ref()))
}

/// With a fix on trial: as things stand at the end.
fn exit_code(diagnosis: &Diagnosis, verified: Option<&Verification>) -> u8 {
    match verified {
        Some(done) if done.kept && done.outcome == Outcome::Healed => 0,
        Some(Verification { after: Some(after), .. }) => after.exit_code(),
        Some(done) if done.kept => Exit::Problem.code(),
        _ => diagnosis.exit_code(),
    }
}

/// Puts the fix on trial.
fn try_fix(look: &mut Look, diagnosis: &mut Diagnosis) -> Verification {
    let progress = std::cell::RefCell::new(look.progress());
    let (from, to) = (look.ends().from.clone(), look.ends().to.cloned());
    let ends = crate::doctor::Ends { from: &from, to: to.as_ref() };
    let mut again = || -> Result<Diagnosis, AgentError> {
        let case = look.case(&mut |what| progress.borrow_mut().say(what))?;
        Ok(judge(&case))
    };
    verify(diagnosis, ends, &mut again, &mut |what| progress.borrow_mut().say(what))
}

fn show(whole: &Whole<'_>, global: &Global, style: Style) -> anyhow::Result<()> {
    if global.json {
        return print_json(whole);
    }
    let mut out = std::io::stdout().lock();
    view::doctor::diagnosis(&mut out, whole.diagnosis, style, global.verbose > 0)?;
    if let Some(checks) = whole.fix_check {
        view::doctor_runs::fix_checks(&mut out, checks, style)?;
    }
    if let Some(done) = whole.verify_fix {
        view::doctor_runs::verification(&mut out, done, style)?;
    }
    out.flush()?;
    Ok(())
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
