//! Several stations answer for one address: what that means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::frame::Advert;
use super::super::sweep::Responder;
use super::super::trial::{Trial, TrialOutcome};
use super::super::vendor;
use super::{Code, Confidence, Evidence, Finding, Severity, flux_fix, list};
use crate::wire::MacAddr;

/// What the trials of one address showed.
#[derive(Default)]
pub(super) struct Shown<'a> {
    /// Handed to, replied from.
    pub(super) owners: Vec<(MacAddr, MacAddr)>,
    pub(super) forwarders: Vec<(MacAddr, IpAddr)>,
    pub(super) silent: Vec<MacAddr>,
    pub(super) refused: Vec<(MacAddr, &'a str)>,
}

pub(super) fn shown(ip: IpAddr, trials: &[Trial]) -> Shown<'_> {
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

pub(super) fn several(
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
