//! What two answers for one address mean: a true conflict, ARP flux, proxy ARP, a virtual address.
//!
//! The evidence, strongest first:
//!
//! - An echo request with TTL 1, handed to each station that answered ([`super::trial`]). Whoever reports
//!   it expired only answers for another (proxy ARP, or interception). If the replies to all come from one
//!   hardware address, however they were handed over, there is one host with several interfaces (flux): its
//!   routing chooses one way back. If each station replies by itself, there are several hosts.
//! - VRRP advertisements: who says that it is the master for which addresses.
//! - Who else answers for what: hosts with an address of their own that share one are a virtual address.

mod several;
mod stations;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::frame::Advert;
use super::sweep::Responder;
use super::trial::Trial;
use crate::host::NudState;
use crate::wire::MacAddr;

/// What is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Several hosts have one address.
    Duplicate,
    /// Another host has this host's own address.
    OwnAddress,
    /// One host answers with the hardware addresses of several of its interfaces.
    Flux,
    /// A router answers for addresses that are behind it.
    Proxy,
    /// One has the address, another takes its traffic and passes it on.
    Intercepted,
    /// Two routers say to be the master of one virtual address.
    VipTwoMasters,
    /// A host answers for a virtual address whose master is another.
    VipRealServer,
    /// Hosts with addresses of their own share one, and nothing says which of them is meant to answer.
    VipConflict,
    /// The address went from one station to another meanwhile.
    Moved,
    /// Two stations answered; whether they are one host could not be found out.
    TwoAnswers,
    /// The kernel's table has another hardware address.
    KernelDiffers,
    /// The reply's frame came from another station than it names.
    SenderDiffers,
    /// One station has many addresses of its own.
    ManyAddresses,
}

impl Code {
    /// The name in JSON and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::OwnAddress => "own_address",
            Self::Flux => "flux",
            Self::Proxy => "proxy",
            Self::Intercepted => "intercepted",
            Self::VipTwoMasters => "vip_two_masters",
            Self::VipRealServer => "vip_real_server",
            Self::VipConflict => "vip_conflict",
            Self::Moved => "moved",
            Self::TwoAnswers => "two_answers",
            Self::KernelDiffers => "kernel_differs",
            Self::SenderDiffers => "sender_differs",
            Self::ManyAddresses => "many_addresses",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Odd; it may be meant.
    Warning,
    /// It breaks connections.
    Problem,
}

/// How sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The evidence leaves nothing else.
    Proven,
    /// Something else is possible, and less likely.
    Likely,
}

/// One thing that is odd, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// Which addresses; of many, some.
    pub ips: Vec<IpAddr>,
    /// Which stations.
    pub macs: Vec<MacAddr>,
    /// In a sentence.
    pub summary: String,
    /// The evidence.
    pub because: Vec<String>,
    /// What to do.
    pub fix: Vec<String>,
}

/// What is known beside the answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// This host's addresses on the link.
    pub own: Vec<IpAddr>,
    /// This host's interfaces by hardware address.
    pub own_macs: Vec<(MacAddr, String)>,
    /// The gateways of this host's routes.
    pub gateways: Vec<IpAddr>,
    /// The kernel's table for the interface.
    pub known: Vec<(IpAddr, MacAddr, NudState)>,
    /// How many addresses were asked for.
    pub asked: usize,
}

/// All that was seen.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Who answered for what.
    pub answers: &'a BTreeMap<IpAddr, Vec<Responder>>,
    /// What echo requests showed.
    pub trials: &'a [Trial],
    /// VRRP advertisements heard.
    pub adverts: &'a [Advert],
    /// How long advertisements were listened for, nanoseconds.
    pub listened: u64,
    /// What is known beside.
    pub scene: &'a Scene,
}

/// Most trials of one run.
const TRIALS: usize = 256;
/// A station with this many addresses is looked at.
const MANY: usize = 3;

fn by_station(answers: &BTreeMap<IpAddr, Vec<Responder>>) -> BTreeMap<MacAddr, Vec<IpAddr>> {
    let mut stations: BTreeMap<MacAddr, Vec<IpAddr>> = BTreeMap::new();
    for (ip, responders) in answers {
        for responder in responders {
            stations.entry(responder.mac).or_default().push(*ip);
        }
    }
    stations
}

/// Which answers deserve an echo request after a sweep: those for one address by several, and some of a
/// station with many addresses or with the gateway's hardware address.
pub fn worth_a_trial(answers: &BTreeMap<IpAddr, Vec<Responder>>, scene: &Scene) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (ip, responders) in answers.iter().filter(|(_, responders)| responders.len() > 1) {
        trials.extend(responders.iter().map(|responder| Trial::new(*ip, responder.mac)));
    }
    let gateways: BTreeSet<MacAddr> = gateway_macs(answers, scene);
    for (mac, ips) in by_station(answers) {
        let others: Vec<&IpAddr> = ips.iter().filter(|ip| !scene.gateways.contains(ip)).collect();
        if ips.len() >= MANY || (gateways.contains(&mac) && !others.is_empty()) {
            // The first, one in the middle, the last.
            let picked: BTreeSet<usize> = [0, others.len() / 2, others.len().saturating_sub(1)].into();
            let picked = picked.into_iter().filter_map(|at| others.get(at));
            trials.extend(picked.map(|ip| Trial::new(**ip, mac)));
        }
    }
    trials.sort_by_key(|trial| (trial.ip, trial.via));
    trials.dedup_by_key(|trial| (trial.ip, trial.via));
    trials.truncate(TRIALS);
    trials
}

/// The addresses for which VRRP would still say something: several hosts have them, or may have.
pub fn worth_listening(answers: &BTreeMap<IpAddr, Vec<Responder>>, trials: &[Trial], scene: &Scene) -> bool {
    answers.iter().filter(|(ip, all)| all.len() > 1 && !scene.own.contains(ip)).any(|(ip, _)| {
        let shown = several::shown(*ip, trials);
        let replied: BTreeSet<MacAddr> = shown.owners.iter().map(|(_, from)| *from).collect();
        let one_host = shown.owners.len() >= 2 && replied.len() == 1;
        !one_host && shown.forwarders.is_empty()
    })
}

fn gateway_macs(answers: &BTreeMap<IpAddr, Vec<Responder>>, scene: &Scene) -> BTreeSet<MacAddr> {
    let seen = scene.gateways.iter().filter_map(|ip| answers.get(ip)).flatten().map(|responder| responder.mac);
    let known = scene.known.iter().filter(|(ip, ..)| scene.gateways.contains(ip)).map(|(_, mac, _)| *mac);
    seen.chain(known).collect()
}

/// What the answers mean; the gravest first.
pub fn judge(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let by_station = by_station(evidence.answers);
    for (ip, responders) in evidence.answers {
        if evidence.scene.own.contains(ip) {
            findings.push(own_address(*ip, responders, evidence));
        } else if responders.len() > 1 {
            findings.push(several::several(*ip, responders, &by_station, evidence));
        }
    }
    findings.extend(stations::proxies(&by_station, evidence));
    findings.extend(stations::kernel(evidence));
    findings.extend(stations::senders(evidence));
    let mut merged = merge(findings);
    merged.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.ips.cmp(&b.ips)));
    merged
}

/// One finding for the same stations doing the same for several addresses.
fn merge(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |other: &&mut Finding| {
            other.code == finding.code && other.macs == finding.macs && other.confidence == finding.confidence
        };
        match merged.iter_mut().find(same).filter(|_| finding.code == Code::Flux) {
            Some(known) => known.ips.extend(finding.ips),
            None => merged.push(finding),
        }
    }
    for finding in &mut merged {
        finding.ips.sort_unstable();
        finding.ips.dedup();
    }
    merged
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    }
}

fn own_address(ip: IpAddr, responders: &[Responder], evidence: &Evidence<'_>) -> Finding {
    let macs: Vec<MacAddr> = responders.iter().map(|responder| responder.mac).collect();
    let ours: Vec<&(MacAddr, String)> = evidence.scene.own_macs.iter().filter(|(mac, _)| macs.contains(mac)).collect();
    if ours.len() == macs.len() {
        return Finding {
            code: Code::Flux,
            severity: Severity::Problem,
            confidence: Confidence::Proven,
            ips: vec![ip],
            summary: format!(
                "This host answers for its address {ip} with another of its interfaces too: {} ({}).",
                list(ours.iter().map(|(_, name)| name)),
                list(&macs)
            ),
            macs,
            because: vec!["the hardware address that answered is this host's own".to_owned()],
            fix: flux_fix(),
        };
    }
    Finding {
        code: Code::OwnAddress,
        severity: Severity::Problem,
        confidence: Confidence::Proven,
        ips: vec![ip],
        summary: format!("{ip} is this host's own address, and {} answers for it too.", list(&macs)),
        macs,
        because: vec![
            "a request that names no sender (RFC 5227) was answered by another station".to_owned(),
            "neighbours reach whichever of the two they heard last".to_owned(),
        ],
        fix: vec![
            format!("give one of the two another address: here `ip address del {ip} …`, or on the other host"),
            "find the other by its hardware address in the switch's table of addresses".to_owned(),
        ],
    }
}

fn flux_fix() -> Vec<String> {
    vec![
        "on that host: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".to_owned(),
        "or keep one interface in each network, or make the two a bond".to_owned(),
    ]
}
