//! `lab up` and `lab down`: a lab that stays until it is ended.

use std::env;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Usage, print, stage};
use crate::lab::Lab;
use crate::lab::scenarios::{self, Scenario};
use crate::lab::topology::{self, Topology};
use crate::os::labstate::{self, LabState, ProcessId};
use crate::os::process;
use crate::view::Style;
use crate::view::lab as view;

/// How long a lab may take to come up or go down.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the labs that are up are written down.
pub(super) fn directory() -> anyhow::Result<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    labstate::directory(runtime.as_deref()).context("cannot use the directory for the labs' state")
}

/// What a name of `lab up` stands for.
enum Wanted {
    Exercise(Box<Scenario>),
    Network(Topology),
}

fn wanted(name: &str) -> anyhow::Result<Wanted> {
    match topology::named(name) {
        Some(topology) => Ok(Wanted::Network(topology)),
        None => Ok(Wanted::Exercise(Box::new(super::scenario(name)?))),
    }
}

impl Wanted {
    fn topology(&self) -> &Topology {
        match self {
            Self::Exercise(scenario) => &scenario.topology,
            Self::Network(topology) => topology,
        }
    }
}

/// `lab up`: starts the process that holds the lab and waits until the lab is built.
pub(super) fn up(name: &str, healthy: bool, style: Style, json: bool) -> anyhow::Result<u8> {
    let wanted = wanted(name)?;
    let directory = directory()?;
    let log = std::fs::File::create(labstate::log(&directory, name)).context("cannot write the lab's log")?;
    let mut command = Command::new(stage::program());
    command.arg0("reachwhy").args(["lab", "hold", name]);
    if healthy {
        command.arg("--healthy");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut holder = command.spawn().context("cannot start the lab's process")?;
    let out = holder.stdout.take().context("the lab's process has no output")?;
    let mut last = String::new();
    for line in BufReader::new(out).lines() {
        last = line.context("cannot hear the lab's process")?;
        if last == "ready" || last == "taken" {
            break;
        }
    }
    match last.as_str() {
        "ready" => {}
        "taken" => {
            let _ = holder.wait();
            return Err(Usage(format!("a lab named {name} is up already; `reachwhy lab down {name}` ends it")).into());
        }
        _ => {
            let _ = holder.wait();
            let why = std::fs::read_to_string(labstate::log(&directory, name)).unwrap_or_default();
            labstate::forget(&directory, name);
            bail!("{}", why.trim().trim_start_matches("error: "));
        }
    }
    let hosts: Vec<&str> = wanted.topology().hosts.iter().map(|host| host.name.as_str()).collect();
    if json {
        print(&format!("{:#}\n", json!({ "name": name, "pid": holder.id(), "hosts": hosts })))?;
        return Ok(0);
    }
    let mut text = view::drawing(wanted.topology(), style);
    if let (Wanted::Exercise(scenario), false) = (&wanted, healthy) {
        text.push_str("\n  ");
        text.push_str(&scenario.summary);
        text.push('\n');
    }
    let first = hosts.first().copied().unwrap_or_default();
    let last = hosts.last().copied().unwrap_or_default();
    text += &view::up(name, first, last, style);
    print(&text)?;
    Ok(0)
}

/// The process that holds the lab: watches, and writes down that the lab is up.
pub(super) fn hold(name: &str, healthy: bool, style: Style) -> anyhow::Result<u8> {
    let wanted = wanted(name)?;
    // A session of its own, so that the terminal's end is not the lab's.
    let _ = nix::unistd::setsid();
    let directory = directory()?;
    let me = ProcessId::of(std::process::id()).context("cannot see this process in /proc")?;
    let hosts = wanted.topology().hosts.iter().map(|host| host.name.clone()).collect();
    let state = LabState { name: name.to_owned(), holder: me, stage: None, hosts };
    if !labstate::claim(&directory, &state).context("cannot write the lab's state")? {
        print("taken\n")?;
        return Ok(1);
    }
    let mut then = vec!["lab", "hold", name];
    if healthy {
        then.push("--healthy");
    }
    let code = stage::enter_with(&then, style, false, |pid| {
        // Who cannot be told where the lab is cannot enter it, and says so.
        let _ = labstate::update(&directory, &LabState { stage: ProcessId::of(pid), ..state.clone() });
    });
    // Kept until the lab is gone, so that the name is not free too soon; the log belongs to `up`.
    if !matches!(code, Ok(3)) {
        labstate::forget(&directory, name);
    }
    code
}

/// Builds the lab inside, and keeps it.
pub(super) fn inside(name: &str, healthy: bool) -> anyhow::Result<u8> {
    if let Some(code) = stage::settle() {
        return Ok(code);
    }
    let wanted = wanted(name)?;
    let lab = Lab::inside(wanted.topology(), &stage::program())?;
    match &wanted {
        Wanted::Exercise(scenario) => {
            scenario.make_healthy(&lab)?;
            if !healthy {
                lab.inject(&scenario.fault)?;
            }
        }
        Wanted::Network(topology) => {
            let (services, ..) = scenarios::healthy(topology);
            services.iter().try_for_each(|service| lab.start_service(service))?;
        }
    }
    print("ready\n")?;
    loop {
        // As the first process we are the parent of every orphan; they must not stay as zombies.
        let _ = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `lab down`.
pub(super) fn down(name: Option<&str>, style: Style, json: bool) -> anyhow::Result<u8> {
    let directory = directory()?;
    let mut labs = labstate::all(&directory).context("cannot read the labs' state")?;
    if let Some(name) = name {
        labs.retain(|lab| lab.name == name);
        if labs.is_empty() {
            return Err(Usage(format!("no lab named {name} is up")).into());
        }
    }
    for lab in &labs {
        end(&directory, lab)?;
    }
    let names: Vec<&str> = labs.iter().map(|lab| lab.name.as_str()).collect();
    let text = if json { format!("{:#}\n", json!({ "ended": names })) } else { view::down(&names, style) };
    print(&text)?;
    Ok(0)
}

fn end(directory: &Path, lab: &LabState) -> anyhow::Result<()> {
    process::send(lab.holder.pid, Signal::SIGTERM).with_context(|| format!("cannot end the lab {}", lab.name))?;
    let end = Instant::now() + PATIENCE;
    while lab.holder.runs() {
        if Instant::now() > end {
            process::send(lab.holder.pid, Signal::SIGKILL)
                .with_context(|| format!("cannot end the lab {}", lab.name))?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    labstate::forget(directory, &lab.name);
    Ok(())
}

/// The lab of this name, or the only one that is up.
pub(super) fn find(name: Option<&str>) -> anyhow::Result<LabState> {
    let labs = labstate::all(&directory()?).context("cannot read the labs' state")?;
    let names = || labs.iter().map(|lab| lab.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, labs.as_slice()) {
        (Some(name), _) => match labs.iter().find(|lab| lab.name == name) {
            Some(lab) => Ok(lab.clone()),
            None => Err(Usage(format!("no lab named {name} is up")).into()),
        },
        (None, []) => Err(Usage("no lab is up; `reachwhy lab up lan` makes one".to_owned()).into()),
        (None, [one]) => Ok(one.clone()),
        (None, _) => Err(Usage(format!("several labs are up ({}); say which with --lab", names())).into()),
    }
}
