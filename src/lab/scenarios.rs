//! Whole exercises: a topology, what runs in it, whom to reach from where, and what goes wrong.

use serde::Serialize;

use super::faults::{API_PAIR, Fault, api, server};
use super::rules::Firewall;
use super::service::ServiceSpec;
use super::topology::Topology;
use super::{Lab, LabError, faults, topology};

/// An exercise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is about, in a line.
    pub summary: String,
    /// What a learner should see.
    pub lesson: String,
    /// The network.
    pub topology: Topology,
    /// What runs in it while all is well.
    pub services: Vec<ServiceSpec>,
    /// Firewalls while all is well, by host.
    pub firewalls: Vec<(String, Firewall)>,
    /// The host that asks.
    pub from: String,
    /// The host that should answer.
    pub to: String,
    /// What is asked for.
    pub target: String,
    /// What goes wrong.
    pub fault: Fault,
}

/// Why there is no such exercise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scenario or fault named {0}; `reachwhy lab list` shows them")]
pub struct NoSuchScenario(pub String);

/// The exercise of this name: `api-unreachable`, or the name of a fault.
pub fn named(name: &str) -> Result<Scenario, NoSuchScenario> {
    all().into_iter().find(|scenario| scenario.name == name).ok_or_else(|| NoSuchScenario(name.to_owned()))
}

/// Every exercise, the headline first.
pub fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = faults::all().into_iter().filter_map(of).collect();
    if let Some(mut first) = all.iter().find(|scenario| scenario.name == "reply-rule-missing").cloned() {
        first.name = String::from("api-unreachable");
        first.summary = String::from("the business server cannot reach the data API: one rule of a pair is missing");
        all.insert(0, first);
    }
    all
}

/// What a healthy lab of this topology runs, and who asks whom for what.
pub fn healthy(topology: &Topology) -> (Vec<ServiceSpec>, &'static str, &'static str, &'static str) {
    if topology.host("api").is_some() {
        let mut services = vec![api(&[])];
        if topology.host("dns").is_some() {
            let records = ["--record", "api.lab. A 192.168.1.3", "--record", "business.lab. A 192.168.1.2"];
            services.push(ServiceSpec::new("dns", "dns", &[&["dns"], &records[..]].concat()));
            return (services, "business", "api", "http://api.lab:8080/data");
        }
        (services, "business", "api", "http://192.168.1.3:8080/data")
    } else {
        (vec![server(&[])], "client", "server", "http://192.168.2.3:8080/data")
    }
}

fn of(fault: Fault) -> Option<Scenario> {
    let topology = topology::named(fault.topology)?;
    let (services, from, to, target) = healthy(&topology);
    let firewalls = match fault.name {
        // This one is about a pair of rules, so there is a whole pair before.
        "reply-rule-missing" => vec![("api".to_owned(), Firewall::v4(API_PAIR))],
        _ => Vec::new(),
    };
    Some(Scenario {
        name: fault.name.to_owned(),
        summary: fault.summary.to_owned(),
        lesson: fault.lesson.to_owned(),
        topology,
        services,
        firewalls,
        from: from.to_owned(),
        to: to.to_owned(),
        target: target.to_owned(),
        fault,
    })
}

impl Scenario {
    /// Starts the services and sets the firewalls of the healthy state in a lab of its topology.
    pub fn make_healthy(&self, lab: &Lab) -> Result<(), LabError> {
        for (host, firewall) in &self.firewalls {
            lab.set_firewall(host, firewall.clone())?;
        }
        self.services.iter().try_for_each(|service| lab.start_service(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_an_exercise_and_the_headline_is_first() {
        let all = all();
        assert_eq!(all[0].name, "api-unreachable");
        assert_eq!(all.len(), faults::all().len() + 1);
        for scenario in &all {
            for host in [&scenario.from, &scenario.to] {
                assert!(scenario.topology.host(host).is_some(), "{}: no {host}", scenario.name);
            }
            assert!(scenario.services.iter().all(|service| scenario.topology.host(&service.host).is_some()));
            serde_json::to_string(scenario).unwrap();
        }
        assert!(named("nonsense").unwrap_err().to_string().contains("lab list"));
    }
}
