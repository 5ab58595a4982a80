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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::frame::Advert;
use super::sweep::Responder;
use super::trial::{Trial, TrialOutcome};
use super::vendor;
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
        let shown = shown(*ip, trials);
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
    let stations = by_station(evidence.answers);
    for (ip, responders) in evidence.answers {
        if evidence.scene.own.contains(ip) {
            findings.push(own_address(*ip, responders, evidence));
        } else if responders.len() > 1 {
            findings.push(several(*ip, responders, &stations, evidence));
        }
    }
    findings.extend(proxies(&stations, evidence));
    findings.extend(kernel(evidence));
    findings.extend(senders(evidence));
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

/// What the trials of one address showed.
#[derive(Default)]
struct Shown<'a> {
    /// Handed to, replied from.
    owners: Vec<(MacAddr, MacAddr)>,
    forwarders: Vec<(MacAddr, IpAddr)>,
    silent: Vec<MacAddr>,
    refused: Vec<(MacAddr, &'a str)>,
}

fn shown(ip: IpAddr, trials: &[Trial]) -> Shown<'_> {
    let mut all = Shown::default();
    for trial in trials.iter().filter(|trial| trial.ip == ip) {
        match &trial.outcome {
            TrialOutcome::Owns { reply_from, .. } => all.owners.push((trial.via, *reply_from)),
            TrialOutcome::Forwards { by, .. } => all.forwarders.push((trial.via, *by)),
            TrialOutcome::Silent => all.silent.push(trial.via),
            TrialOutcome::Refused { what, .. } => all.refused.push((trial.via, what)),
        }
    }
    all
}

fn several(
    ip: IpAddr,
    responders: &[Responder],
    stations: &BTreeMap<MacAddr, Vec<IpAddr>>,
    evidence: &Evidence<'_>,
) -> Finding {
    let macs: Vec<MacAddr> = responders.iter().map(|responder| responder.mac).collect();
    let shown = shown(ip, evidence.trials);
    let finding = |code, severity, confidence, summary: String, because: Vec<String>, fix: Vec<String>| Finding {
        code,
        severity,
        confidence,
        ips: vec![ip],
        macs: macs.clone(),
        summary,
        because,
        fix,
    };
    let mut because = vec![said(responders)];
    for (via, from) in &shown.owners {
        because.push(if via == from {
            format!("an echo request with TTL 1 handed to {via} was answered by {from} itself")
        } else {
            format!("an echo request with TTL 1 handed to {via} was answered from {from}")
        });
    }
    for (via, by) in &shown.forwarders {
        because.push(format!("handed to {via}, it expired: {by} would have passed it on"));
    }
    for via in &shown.silent {
        because.push(format!("handed to {via}, it was not answered"));
    }
    for (via, what) in &shown.refused {
        because.push(format!("handed to {via}, it was refused: {what}"));
    }

    if !shown.forwarders.is_empty() && shown.owners.is_empty() {
        let routers: BTreeSet<IpAddr> = shown.forwarders.iter().map(|(_, by)| *by).collect();
        return finding(
            Code::Proxy,
            Severity::Warning,
            Confidence::Proven,
            format!("{} routers answer for {ip}, which none of them has: proxy ARP ({}).", macs.len(), list(routers)),
            because,
            vec!["if it is not meant: sysctl -w net.ipv4.conf.all.proxy_arp=0 on the routers".to_owned()],
        );
    }
    if let (Some((interceptor, by)), Some((owner, _))) = (shown.forwarders.first(), shown.owners.first()) {
        return finding(
            Code::Intercepted,
            Severity::Problem,
            Confidence::Proven,
            format!(
                "{owner} has {ip}, but {interceptor} ({by}) answers for it as well and passes its packets on: ARP spoofing, or proxy ARP where it does not belong."
            ),
            because,
            vec![
                format!("find {interceptor} in the switch's table of addresses and see what runs there"),
                "if it is a router of yours: sysctl -w net.ipv4.conf.all.proxy_arp=0 there".to_owned(),
                format!("until then: ip neigh replace {ip} lladdr {owner} dev … nud permanent"),
            ],
        );
    }
    let replied: BTreeSet<MacAddr> = shown.owners.iter().map(|(_, from)| *from).collect();
    if shown.owners.len() >= 2 && replied.len() == 1 {
        because.push(
            "all replies come from one hardware address: one host, whose routing chooses the way back".to_owned(),
        );
        return finding(
            Code::Flux,
            Severity::Problem,
            Confidence::Proven,
            format!("One host answers for {ip} with {} hardware addresses: ARP flux, no conflict.", macs.len()),
            because,
            flux_fix(),
        );
    }
    let apart = shown.owners.len() >= 2 && replied.len() >= 2 && shown.owners.iter().all(|(via, from)| via == from);
    if let Some(found) = virtual_address(ip, &macs, evidence, &because) {
        return found;
    }
    // An address of its own: one that this station alone answers for.
    let alone = |mac: &MacAddr| -> Option<IpAddr> {
        let swept = stations.get(mac).into_iter().flatten().copied();
        let swept = swept.filter(|other| *other != ip && evidence.answers.get(other).is_some_and(|all| all.len() == 1));
        let known = evidence.scene.known.iter().filter(|(other, known, _)| known == mac && *other != ip);
        swept
            .chain(known.map(|(other, ..)| *other))
            .find(|other| other.is_ipv4() == ip.is_ipv4() && !is_link_local(*other))
    };
    let homes: Vec<(MacAddr, IpAddr)> = macs.iter().filter_map(|mac| Some((*mac, alone(mac)?))).collect();
    if homes.len() == macs.len() {
        for (mac, home) in &homes {
            because.push(format!("{mac} has an address of its own, {home}"));
        }
        because.push(no_adverts(evidence));
        return finding(
            Code::VipConflict,
            Severity::Problem,
            Confidence::Likely,
            format!(
                "{} hosts have {ip}: an address conflict between {}. Each has an address of its own as well, so it looks like a virtual address: an LVS real server that answers for the VIP, or two masters.",
                macs.len(),
                list(&macs)
            ),
            because,
            vip_fix(ip).into_iter().chain(conflict_fix(ip).into_iter().take(1)).collect(),
        );
    }
    if !apart && shown.owners.len() < 2 {
        return unclear(ip, &macs, responders, stations, evidence, because);
    }
    if apart {
        because.push("each station answers by itself: they are different hosts".to_owned());
    } else {
        because.push("replies come from more than one hardware address: they are different hosts".to_owned());
    }
    because.push(no_adverts(evidence));
    let mut fix = conflict_fix(ip);
    fix.extend(vip_fix(ip).into_iter().map(|fix| format!("if it is meant to be a virtual address: {fix}")));
    let hosts = replied.len();
    finding(
        Code::Duplicate,
        Severity::Problem,
        Confidence::Proven,
        format!("{hosts} hosts have {ip}: an address conflict between {}.", list(&macs)),
        because,
        fix,
    )
}

fn conflict_fix(ip: IpAddr) -> Vec<String> {
    vec![
        format!("give all but one of them another address; who is meant to have {ip} is in the DHCP server's leases"),
        "find them by their hardware addresses in the switch's table of addresses".to_owned(),
    ]
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn said(responders: &[Responder]) -> String {
    let each = responders.iter().map(|responder| {
        let times = if responder.replies == 1 { "once".to_owned() } else { format!("{} times", responder.replies) };
        format!("{} {times}", responder.mac)
    });
    format!("answers came from {}", list(each))
}

fn no_adverts(evidence: &Evidence<'_>) -> String {
    if evidence.listened == 0 {
        "VRRP advertisements were not listened for".to_owned()
    } else {
        let tenths = evidence.listened / 100_000_000;
        format!("no VRRP advertisement for it was heard in {}.{} s", tenths / 10, tenths % 10)
    }
}

fn vip_fix(ip: IpAddr) -> Vec<String> {
    if ip.is_ipv6() {
        return vec![
            format!("on real servers behind LVS (direct routing): keep {ip}/128 on lo: a solicitation is answered only for addresses of the interface it came in on"),
            "between two keepalived masters: let VRRP (IP protocol 112, ff02::12) pass, and give both the same virtual_router_id".to_owned(),
        ];
    }
    vec![
        format!("on real servers behind LVS (direct routing): keep {ip} on lo with a full mask, and sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"),
        "between two keepalived masters: let VRRP (IP protocol 112, 224.0.0.18) pass, and give both the same virtual_router_id and authentication".to_owned(),
    ]
}

/// Names the case where virtual routers are at work: by their hardware addresses, or by advertisements.
fn virtual_address(ip: IpAddr, macs: &[MacAddr], evidence: &Evidence<'_>, because: &[String]) -> Option<Finding> {
    let mut because = because.to_vec();
    let named: Vec<&Advert> = evidence.adverts.iter().filter(|advert| advert.addresses.contains(&ip)).collect();
    // One advert for each sender is enough to tell of.
    let mut masters: BTreeMap<(MacAddr, IpAddr), &Advert> = BTreeMap::new();
    for advert in &named {
        masters.insert((advert.mac, advert.from), advert);
    }
    for advert in masters.values() {
        because.push(format!(
            "{} ({}) advertises {ip} as master of virtual router {} with priority {}",
            advert.from, advert.mac, advert.router, advert.priority
        ));
    }
    let finding = |code, confidence, summary: String, because: Vec<String>| Finding {
        code,
        severity: Severity::Problem,
        confidence,
        ips: vec![ip],
        macs: macs.to_vec(),
        summary,
        because,
        fix: vip_fix(ip),
    };
    let virtual_macs: Vec<&MacAddr> = macs.iter().filter(|mac| vendor::is_virtual_router(**mac)).collect();
    let routers: BTreeSet<u8> = masters.values().map(|advert| advert.router).collect();
    if masters.len() >= 2 {
        let who = list(masters.keys().map(|(_, from)| from));
        let summary = if routers.len() > 1 {
            format!("{who} are both master for {ip}, in different virtual routers ({}).", list(&routers))
        } else {
            format!("{who} are both VRRP master for {ip}: they do not hear each other (split brain).")
        };
        return Some(finding(Code::VipTwoMasters, Confidence::Proven, summary, because));
    }
    if let Some(((master, from), advert)) = masters.into_iter().next() {
        let is_master = |mac: &MacAddr| *mac == master || vendor::vrrp_router(*mac) == Some(advert.router);
        let others: Vec<&MacAddr> = macs.iter().filter(|mac| !is_master(mac)).collect();
        because.push(format!("{} does not advertise it", list(&others)));
        let summary = format!(
            "{ip} is a virtual address with {from} as its VRRP master, but {} answers for it too: a real server (LVS direct routing) or backup that should not.",
            list(others)
        );
        return Some(finding(Code::VipRealServer, Confidence::Proven, summary, because));
    }
    match virtual_macs.as_slice() {
        [] => None,
        [virtual_mac] => {
            because.push(format!("{virtual_mac} is a {}", vendor::note(**virtual_mac).unwrap_or_default()));
            because.push(no_adverts(evidence));
            let others: Vec<&MacAddr> = macs.iter().filter(|mac| mac != virtual_mac).collect();
            let summary = format!(
                "{ip} belongs to a virtual router ({virtual_mac}), but {} answers for it with a hardware address of its own: a backup or real server that should not, or a second owner.",
                list(others)
            );
            Some(finding(Code::VipRealServer, Confidence::Likely, summary, because))
        }
        several => {
            let summary = format!("{} virtual routers answer for {ip}: {}.", several.len(), list(several));
            Some(finding(Code::VipTwoMasters, Confidence::Proven, summary, because))
        }
    }
}

/// The trials did not tell.
fn unclear(
    ip: IpAddr,
    macs: &[MacAddr],
    responders: &[Responder],
    stations: &BTreeMap<MacAddr, Vec<IpAddr>>,
    evidence: &Evidence<'_>,
    mut because: Vec<String>,
) -> Finding {
    let finding = |code, severity, summary: String, because, fix| Finding {
        code,
        severity,
        confidence: Confidence::Likely,
        ips: vec![ip],
        macs: macs.to_vec(),
        summary,
        because,
        fix,
    };
    // One stopped answering before the other began: rounds are bits, the first lowest.
    if let [a, b] = responders {
        let (early, late) = if a.rounds.trailing_zeros() <= b.rounds.trailing_zeros() { (a, b) } else { (b, a) };
        if early.rounds < 1 << late.rounds.trailing_zeros() && late.rounds.count_ones() >= 2 {
            because.push(format!("{} answered only before {} did", early.mac, late.mac));
            let summary = format!("{ip} went from {} to {} while it was asked for: a failover.", early.mac, late.mac);
            return finding(Code::Moved, Severity::Warning, summary, because, Vec::new());
        }
    }
    let set: BTreeSet<&MacAddr> = macs.iter().collect();
    let same: Vec<IpAddr> = evidence
        .answers
        .iter()
        .filter(|(other, all)| **other != ip && all.iter().map(|one| &one.mac).collect::<BTreeSet<_>>() == set)
        .map(|(other, _)| *other)
        .collect();
    let alone = macs.iter().any(|mac| {
        stations
            .get(mac)
            .into_iter()
            .flatten()
            .any(|other| evidence.answers.get(other).is_some_and(|all| all.len() == 1))
    });
    if !same.is_empty() && !alone {
        because.push(format!(
            "the same stations answer for {} too, and none for an address alone",
            list(same.iter().take(4))
        ));
        let summary = format!(
            "{} answer for {ip} and for each other's addresses: most likely one host with several interfaces (ARP flux).",
            list(macs)
        );
        return finding(Code::Flux, Severity::Problem, summary, because, flux_fix());
    }
    because.push("whether they are one host or several could not be told".to_owned());
    let summary = format!(
        "{} stations answer for {ip}: {}. It is an address conflict, unless they are interfaces of one host (ARP flux).",
        macs.len(),
        list(macs)
    );
    let mut fix = conflict_fix(ip);
    fix.push("to settle it: let the hosts answer ping, and look again".to_owned());
    finding(Code::TwoAnswers, Severity::Problem, summary, because, fix)
}

/// Stations that answer for many addresses, or for another with the gateway's hardware address.
fn proxies(stations: &BTreeMap<MacAddr, Vec<IpAddr>>, evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let gateways = gateway_macs(evidence.answers, evidence.scene);
    for (mac, ips) in stations {
        let ips: Vec<IpAddr> =
            ips.iter().copied().filter(|ip| evidence.answers.get(ip).is_some_and(|all| all.len() == 1)).collect();
        let trials: Vec<&Trial> =
            evidence.trials.iter().filter(|trial| trial.via == *mac && ips.contains(&trial.ip)).collect();
        let forwarded: Vec<(&Trial, IpAddr)> = trials
            .iter()
            .filter_map(
                |trial| if let TrialOutcome::Forwards { by, .. } = trial.outcome { Some((*trial, by)) } else { None },
            )
            .collect();
        let owned: Vec<IpAddr> = trials
            .iter()
            .filter(|trial| matches!(trial.outcome, TrialOutcome::Owns { .. }))
            .map(|trial| trial.ip)
            .collect();
        let fix = vec![
            "if it is not meant: sysctl -w net.ipv4.conf.all.proxy_arp=0 on the router, and see its proxy_arp of each interface".to_owned(),
            "if it is: the hosts behind it are reached, but an address there cannot be told from a free one by ARP".to_owned(),
        ];
        if let Some((first, by)) = forwarded.first() {
            let mut because: Vec<String> = forwarded
                .iter()
                .map(|(trial, by)| {
                    format!(
                        "an echo request with TTL 1 to {} handed to {mac} expired: {by} would have passed it on",
                        trial.ip
                    )
                })
                .collect();
            if !owned.is_empty() {
                because.push(format!("{} it has itself", list(&owned)));
            }
            let others: Vec<IpAddr> = ips.iter().copied().filter(|ip| !owned.contains(ip) && ip != by).collect();
            let what = match others.len() {
                0 | 1 => first.ip.to_string(),
                count => format!("{count} addresses ({} … {})", others[0], others[count - 1]),
            };
            findings.push(Finding {
                code: Code::Proxy,
                severity: Severity::Warning,
                confidence: Confidence::Proven,
                ips: others,
                macs: vec![*mac],
                summary: format!("The router {by} ({mac}) answers for {what} that it does not have: proxy ARP."),
                because,
                fix,
            });
        } else if ips.len() >= MANY
            && owned.is_empty()
            && (ips.len() * 2 > evidence.scene.asked || gateways.contains(mac))
        {
            let because = vec![
                format!("it answers for {} of the {} addresses that were asked for", ips.len(), evidence.scene.asked),
                if trials.is_empty() {
                    "whether it has them was not tried".to_owned()
                } else {
                    "echo requests with TTL 1 to some of them were not answered".to_owned()
                },
            ];
            findings.push(Finding {
                code: Code::Proxy,
                severity: Severity::Warning,
                confidence: Confidence::Likely,
                summary: format!("{mac} answers for {} addresses: most likely proxy ARP.", ips.len()),
                ips,
                macs: vec![*mac],
                because,
                fix,
            });
        } else if ips.len() >= MANY && !owned.is_empty() {
            findings.push(Finding {
                code: Code::ManyAddresses,
                severity: Severity::Info,
                confidence: Confidence::Proven,
                summary: format!(
                    "{mac} has {} addresses of its own ({} … {}); it is no proxy.",
                    ips.len(),
                    ips[0],
                    ips[ips.len() - 1]
                ),
                because: vec![format!("an echo request with TTL 1 to {} was answered by it", list(&owned))],
                ips,
                macs: vec![*mac],
                fix: Vec::new(),
            });
        }
    }
    findings
}

/// Where the kernel believes something else.
fn kernel(evidence: &Evidence<'_>) -> Vec<Finding> {
    let believes = [NudState::Reachable, NudState::Stale, NudState::Delay, NudState::Probe, NudState::Permanent];
    let mut findings = Vec::new();
    for (ip, known, state) in &evidence.scene.known {
        let Some(responders) = evidence.answers.get(ip).filter(|_| believes.contains(state)) else { continue };
        if responders.iter().any(|responder| responder.mac == *known) {
            continue;
        }
        let macs: Vec<MacAddr> = responders.iter().map(|responder| responder.mac).collect();
        let permanent = *state == NudState::Permanent;
        findings.push(Finding {
            code: Code::KernelDiffers,
            severity: if permanent { Severity::Problem } else { Severity::Warning },
            confidence: Confidence::Proven,
            ips: vec![*ip],
            summary: format!(
                "This host sends packets for {ip} to {known}, but {} answers for it.{}",
                list(&macs),
                if permanent { " The entry was set by hand and never changes." } else { "" }
            ),
            because: vec![format!("the kernel's neighbour table has {known} ({state:?}) for {ip}").to_lowercase()],
            macs,
            fix: vec![format!("ip neigh del {ip} dev …")],
        });
    }
    findings
}

/// Replies whose frame came from another station than they name.
fn senders(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (ip, responders) in evidence.answers {
        for responder in responders {
            let Some(source) = responder.ether_src else { continue };
            // VRRP routers and load balancers do so by design.
            if vendor::is_virtual_router(responder.mac) {
                continue;
            }
            findings.push(Finding {
                code: Code::SenderDiffers,
                severity: Severity::Warning,
                confidence: Confidence::Proven,
                ips: vec![*ip],
                macs: vec![responder.mac, source],
                summary: format!("The reply that names {} for {ip} was sent by {source}.", responder.mac),
                because: vec![
                    "the frame's source and the sender in the ARP packet differ: a proxy, a bond, or a forged reply"
                        .to_owned(),
                ],
                fix: Vec::new(),
            });
        }
    }
    findings
}
