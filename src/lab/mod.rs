//! Real hosts in private network namespaces: the demo, the classroom and the test bed.
//!
//! [`topology`] says what there is, [`Lab::build`] makes it, [`service`] is what its hosts run,
//! [`faults`] are what goes wrong with it, [`apply`] does to it what a command line says, and
//! [`scenarios`] are whole exercises. Nothing of it touches the machine's own network or files: see
//! [`crate::os::userns`].

pub mod apply;
mod build;
mod error;
pub mod faults;
pub mod impair;
pub mod rules;
pub mod scenarios;
pub mod service;
pub mod topology;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub use error::LabError;
pub use service::ServiceSpec;
pub use topology::Topology;

use crate::os::links::Links;
use crate::os::netns::NetNs;
use crate::os::process::{Birthplace, Guarded, die_with_parent};
use crate::os::userns;

/// How long anything is waited for before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A host or switch that has been built.
struct Node {
    namespace: NetNs,
    links: RefCell<Links>,
}

/// A running service.
struct Running {
    spec: ServiceSpec,
    process: Guarded,
}

/// A lab: it lives as long as this value, and the processes in it no longer than the thread that made it.
pub struct Lab {
    topology: Topology,
    program: PathBuf,
    nodes: BTreeMap<String, Node>,
    services: RefCell<Vec<Running>>,
    /// What each host's firewall was last given.
    firewalls: RefCell<BTreeMap<String, rules::Firewall>>,
}

impl Lab {
    /// Builds `topology`, with this program's own binary for its services.
    ///
    /// The calling thread leaves the machine's network and mounts for good, unless it already has
    /// ([`Lab::inside`]).
    ///
    /// # Errors
    /// Where namespaces are forbidden, or the topology cannot be built.
    pub fn build(topology: &Topology) -> Result<Self, LabError> {
        let program = std::env::current_exe().map_err(LabError::system("find this program's own file"))?;
        Self::build_with(topology, &program)
    }

    /// As [`Lab::build`], with `program` for the services: a test's own binary is not reachwhy.
    pub fn build_with(topology: &Topology, program: &Path) -> Result<Self, LabError> {
        userns::isolate(false)?;
        Self::inside(topology, program)
    }

    /// Builds `topology` in a thread that [`userns::isolate`] has already set apart.
    pub fn inside(topology: &Topology, program: &Path) -> Result<Self, LabError> {
        topology.check()?;
        let lab = Self {
            topology: topology.clone(),
            program: program.to_owned(),
            nodes: build::nodes(topology)?,
            services: RefCell::new(Vec::new()),
            firewalls: RefCell::new(BTreeMap::new()),
        };
        lab.connect()?;
        Ok(lab)
    }

    /// What it was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    fn node(&self, name: &str) -> Result<&Node, LabError> {
        self.nodes.get(name).ok_or_else(|| LabError::NoSuchHost {
            name: name.to_owned(),
            known: self.topology.hosts.iter().map(|host| host.name.clone()).collect(),
        })
    }

    /// Does `work` with the calling thread in the network of host `name`.
    ///
    /// Only the network is the host's; files are the lab's. A program that reads `/etc/hosts` belongs in
    /// [`Lab::spawn`].
    pub fn in_host<T>(&self, name: &str, work: impl FnOnce() -> T) -> Result<T, LabError> {
        Ok(self.node(name)?.namespace.run(work)?)
    }

    /// Gives orders to the links of host `name`.
    pub fn links<T, E>(&self, name: &str, work: impl FnOnce(&mut Links) -> Result<T, E>) -> Result<T, LabError>
    where
        LabError: From<E>,
    {
        Ok(work(&mut self.node(name)?.links.borrow_mut())?)
    }

    /// Has `command` run in host `name`, with that host's `/etc/hosts`, `resolv.conf` and
    /// `nsswitch.conf`. It is killed when the handle, or the lab's thread, goes.
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<Guarded, LabError> {
        let node = self.node(name)?;
        die_with_parent(&mut command);
        birthplace(node.namespace.file(), name)
            .map_err(LabError::system("prepare a process of a host"))?
            .apply(&mut command);
        command.spawn().map(Guarded::new).map_err(|source| LabError::System {
            operation: format!("start {} in {name}", command.get_program().display()),
            source,
        })
    }

    /// This program, to be run with other arguments.
    pub fn program(&self) -> Command {
        let mut command = Command::new(if self.program.exists() { &self.program } else { Path::new("/proc/self/exe") });
        command.arg0("reachwhy");
        command
    }

    /// Starts a service and waits until it can be used.
    pub fn start_service(&self, spec: &ServiceSpec) -> Result<(), LabError> {
        let failed = |why: String| LabError::Service { name: spec.name.clone(), host: spec.host.clone(), why };
        let mut command = self.program();
        command.args(["lab", "service"]).args(&spec.args).args(["--name", &spec.name]);
        // Of its own process group: Ctrl-C is for the one who runs the lab, who then ends this.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = self.spawn(&spec.host, command)?;
        let out = process.child().stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(|error| failed(error.to_string()))?;
        if line.trim_end() != "ready" {
            let mut why = String::new();
            if let Some(mut errors) = process.child().stderr.take() {
                let _ = std::io::Read::read_to_string(&mut errors, &mut why);
            }
            return Err(failed(if why.trim().is_empty() {
                "it ended at once".to_owned()
            } else {
                why.trim().to_owned()
            }));
        }
        self.services.borrow_mut().push(Running { spec: spec.clone(), process });
        Ok(())
    }

    /// Stops a service; true if it was running.
    pub fn stop_service(&self, name: &str) -> bool {
        let mut services = self.services.borrow_mut();
        let before = services.len();
        services.retain(|running| running.spec.name != name);
        services.len() < before
    }

    /// Sends a signal to a service.
    pub fn signal_service(&self, name: &str, signal: Signal) -> Result<(), LabError> {
        let services = self.services.borrow();
        let running = services
            .iter()
            .find(|running| running.spec.name == name)
            .ok_or_else(|| LabError::NoSuchService { name: name.to_owned() })?;
        running.process.signal(signal).map_err(LabError::system("send a signal to a service"))
    }

    /// The services that were started, with their process ids.
    pub fn services(&self) -> Vec<(ServiceSpec, u32)> {
        self.services.borrow().iter().map(|running| (running.spec.clone(), running.process.id())).collect()
    }

    /// Gives a host's firewall these rules, in place of what the lab gave it before.
    pub fn set_firewall(&self, name: &str, firewall: rules::Firewall) -> Result<(), LabError> {
        let loaded = self.in_host(name, || rules::load(&firewall))?;
        loaded.map_err(|why| LabError::Firewall { host: name.to_owned(), why })?;
        self.firewalls.borrow_mut().insert(name.to_owned(), firewall);
        Ok(())
    }

    /// What a host's firewall was last given; empty tables where nothing was.
    pub fn firewall(&self, name: &str) -> rules::Firewall {
        self.firewalls.borrow().get(name).cloned().unwrap_or_default()
    }

    /// Waits until `done` says so.
    pub fn wait_until(what: &str, done: impl FnMut() -> bool) -> Result<(), LabError> {
        let waited = || LabError::NotReady { what: what.to_owned(), seconds: PATIENCE.as_secs() };
        Self::wait_for(PATIENCE, done).then_some(()).ok_or_else(waited)
    }

    /// Waits at most `patience` until `done` says so; whether it did.
    fn wait_for(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + patience;
        while !done() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

/// Where a process of host `name` begins: in its network, with its files over the system's.
pub fn birthplace(network: &std::fs::File, name: &str) -> std::io::Result<Birthplace> {
    let own = Path::new("/etc/netns").join(name);
    let pairs: Vec<(PathBuf, PathBuf)> = build::OWN_FILES
        .iter()
        .map(|file| (own.join(file), Path::new("/etc").join(file)))
        .filter(|(from, over)| from.exists() && over.exists())
        .collect();
    let pairs: Vec<(&Path, &Path)> = pairs.iter().map(|(from, over)| (from.as_path(), over.as_path())).collect();
    Birthplace::new(network, &pairs)
}
