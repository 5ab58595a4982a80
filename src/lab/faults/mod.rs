//! What goes wrong: small named pieces, each the steps that put it in, the steps that take it out, and
//! what a diagnosis should call it. Data only; [`Lab::inject`] and [`Lab::undo`] carry the steps out.

mod catalogue;
mod upper;

use serde::Serialize;

use super::apply::ApplyError;
use super::rules::Firewall;
use super::{Lab, LabError, ServiceSpec};

pub use catalogue::{API_PAIR, API_REPLY_MISSING, all, api, named, server};

/// One change to a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A command line, carried out by the lab itself.
    Command(String),
    /// IPv4 rules in iptables-save text, in place of what was there.
    Rules(String),
    /// The service is stopped.
    Stop(String),
    /// The service is started.
    Start(ServiceSpec),
    /// The service's process is stopped as by Ctrl-Z.
    Pause(String),
    /// It goes on.
    Resume(String),
    /// The host's own copy of a file (`hosts`, `resolv.conf`, `nsswitch.conf`) is given this text.
    File {
        /// Which.
        name: &'static str,
        /// The whole text.
        text: String,
    },
    /// Nothing; the lab goes on when this link works.
    Wait(String),
}

/// A change and the host (or switch) it is made to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where.
    pub on: String,
    /// What.
    pub change: Change,
}

/// A fault that can be put into a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// What is wrong, in a line, for people.
    pub summary: &'static str,
    /// The layer it is in, as the doctor names layers.
    pub layer: &'static str,
    /// The cause that a diagnosis with both ends names.
    pub cause: &'static str,
    /// The causes that a diagnosis from the client alone may name: the first is the best.
    pub cause_alone: &'static [&'static str],
    /// The name of the topology it needs.
    pub topology: &'static str,
    /// What a learner should see.
    pub lesson: &'static str,
    /// Puts it in.
    pub inject: Vec<Step>,
    /// Takes it out.
    pub undo: Vec<Step>,
}

impl Step {
    /// Whether it only waits for another to take effect.
    pub fn only_waits(&self) -> bool {
        matches!(self.change, Change::Wait(_))
    }

    /// Whether it gives a host a whole new set of rules.
    pub fn replaces_rules(&self) -> bool {
        matches!(self.change, Change::Rules(_))
    }

    /// What is done, as it would be typed, or in words.
    pub fn describe(&self) -> String {
        match &self.change {
            Change::Command(command) => command.clone(),
            Change::Rules(text) => {
                format!("iptables-restore, {} rules", text.lines().filter(|l| l.starts_with("-A")).count())
            }
            Change::Stop(name) => format!("stop the service {name}"),
            Change::Start(spec) => spec.command(),
            Change::Pause(name) => format!("kill -STOP (the process of {name})"),
            Change::Resume(name) => format!("kill -CONT (the process of {name})"),
            Change::File { name, text } => {
                format!("/etc/{name}: {}", text.trim_end().lines().collect::<Vec<_>>().join(" / "))
            }
            Change::Wait(dev) => format!("wait until {dev} works"),
        }
    }
}

impl Lab {
    /// Carries out one step.
    pub fn step(&self, step: &Step) -> Result<(), LabError> {
        match &step.change {
            Change::Command(command) => self.apply(&step.on, command),
            Change::Rules(text) => self.set_firewall(&step.on, Firewall::v4(text)),
            Change::Stop(name) => {
                self.stop_service(name).then_some(()).ok_or_else(|| LabError::NoSuchService { name: name.clone() })
            }
            Change::Start(spec) => self.start_service(spec),
            Change::Pause(name) => self.signal_service(name, nix::sys::signal::Signal::SIGSTOP),
            Change::Resume(name) => self.signal_service(name, nix::sys::signal::Signal::SIGCONT),
            Change::File { name, text } => self.write_file(&step.on, name, text),
            Change::Wait(dev) => self.wait_for_link(&step.on, dev),
        }
    }

    /// Puts a fault in.
    pub fn inject(&self, fault: &Fault) -> Result<(), LabError> {
        fault.inject.iter().try_for_each(|step| self.step(step))
    }

    /// Takes a fault out.
    pub fn undo(&self, fault: &Fault) -> Result<(), LabError> {
        fault.undo.iter().try_for_each(|step| self.step(step))
    }

    /// Carries out a fix that a diagnosis printed; `Ok(false)` where the lab cannot and nothing was done.
    pub fn fix(&self, host: &str, command: &str) -> Result<bool, LabError> {
        match self.apply(host, command) {
            Ok(()) => Ok(true),
            // Also where it leaves something to be filled in by people (`via GATEWAY`).
            Err(LabError::Apply(ApplyError::Unknown { .. } | ApplyError::Spec(_))) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{apply, topology};

    #[test]
    fn every_fault_is_whole() {
        let all = all();
        for (index, fault) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other.name != fault.name), "two are named {}", fault.name);
            let topology = topology::named(fault.topology).unwrap();
            assert!(!fault.inject.is_empty() && !fault.undo.is_empty(), "{}", fault.name);
            assert!(!fault.cause_alone.is_empty());
            for step in fault.inject.iter().chain(&fault.undo) {
                let there = topology.host(&step.on).is_some() || topology.switches.contains(&step.on);
                assert!(there, "{}: no {}", fault.name, step.on);
                if let Change::Command(command) = &step.change {
                    apply::parse(command).unwrap_or_else(|error| panic!("{}: {error}", fault.name));
                }
            }
        }
    }
}
