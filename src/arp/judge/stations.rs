//! What else is odd: stations with many addresses, a kernel that believes otherwise, replies under a false name.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::trial::{Trial, TrialOutcome};
use super::super::vendor;
use super::{Code, Confidence, Evidence, Finding, MANY, Severity, gateway_macs, list};
use crate::host::NudState;
use crate::wire::MacAddr;

/// Stations that answer for many addresses, or for another with the gateway's hardware address.
pub(super) fn proxies(stations: &BTreeMap<MacAddr, Vec<IpAddr>>, evidence: &Evidence<'_>) -> Vec<Finding> {
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
pub(super) fn kernel(evidence: &Evidence<'_>) -> Vec<Finding> {
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
pub(super) fn senders(evidence: &Evidence<'_>) -> Vec<Finding> {
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
