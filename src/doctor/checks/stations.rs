//! More than one station for an address, or more than one for a hardware address.

use std::net::IpAddr;

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::{Finding, Round};
use crate::arp::judge::{Code as Odd, Confidence as Sure, Finding as Oddity};
use crate::wire::MacAddr;

/// Several hardware addresses answered for the next hop.
pub(super) fn several(round: &mut Round<'_>, id: &str, hop: IpAddr, macs: &[MacAddr]) {
    let known = round.known;
    let odd = known.trial().into_iter().flat_map(|trial| &trial.stations).find(|one| one.ips.contains(&hop));
    let list: Vec<String> = macs.iter().map(ToString::to_string).collect();
    let list = list.join(" and ");
    let one_host = odd.is_some_and(|odd| odd.code == Odd::Flux) || all_of_the_server(round, macs);
    if one_host && known.reached() {
        let says = format!("{hop} is answered for by {list}, both of one host (ARP flux)");
        round.note(Status::Warn, Layer::Neighbour, id, says);
        return;
    }
    let finding = on_loopback(round, hop, &list)
        .or_else(|| odd.map(|odd| named(round, odd, hop, &list)))
        .unwrap_or_else(|| {
            Finding::new(
                Code::AddrDuplicate,
                Where::Path,
                format!("{hop} at {list}"),
                format!(
                    "Address {hop} is claimed by two stations ({list}), and packets go to whichever answered last."
                ),
            )
            .fix(format!("take {hop} off the station that should not have it"), String::new(), String::new())
            .but(Confidence::Likely, &[Code::NeighDuplicate, Code::LbVipConflict, Code::LbArpFlux], None)
        })
        .seen(format!("one request for {hop} was answered by {list}"), "ARP/NDP probe");
    round.fail(id, finding);
}

/// Whether all of them are interfaces of the server.
fn all_of_the_server(round: &Round<'_>, macs: &[MacAddr]) -> bool {
    let links = round.known.server.as_ref().and_then(|server| server.end.facts.links.as_deref());
    links.is_some_and(|links| macs.iter().all(|mac| links.iter().any(|link| link.mac == Some(*mac))))
}

/// The server has the address on its loopback interface, as a real server behind a balancer has, and answers for it
/// on the link all the same.
fn on_loopback(round: &Round<'_>, hop: IpAddr, list: &str) -> Option<Finding> {
    let server = round.known.server.as_ref()?;
    let owner = server.owns(hop)?;
    let link = server.link_of(owner).filter(|link| link.loopback)?;
    Some(
        Finding::new(
            Code::LbArpFlux,
            Where::Server,
            format!("net.ipv4.conf.all.arp_ignore on the server ({hop} on {})", link.name),
            format!("The server has virtual address {hop} on {} and answers for it on the link, beside the balancer ({list}).", link.name),
        )
        .seen(format!("{hop}/{} on {}", owner.prefix_len, link.name), "netlink RTM_GETADDR on the server")
        .fix(
            "let it answer only for addresses of the interface that is asked, and announce none of another",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
            "sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0",
        ),
    )
}

/// By what the stations themselves showed when they were looked at closer.
fn named(round: &Round<'_>, odd: &Oddity, hop: IpAddr, list: &str) -> Finding {
    let vip = vip_of_the_server(round, hop);
    let (code, also): (Code, &[Code]) = match odd.code {
        Odd::VipTwoMasters | Odd::VipConflict => (Code::LbVipConflict, &[]),
        Odd::VipRealServer => (Code::LbArpFlux, &[]),
        Odd::Flux | Odd::Proxy | Odd::Intercepted => (Code::NeighDuplicate, &[]),
        _ if vip => (Code::LbVipConflict, &[Code::AddrDuplicate]),
        _ => (Code::AddrDuplicate, &[Code::LbVipConflict, Code::LbArpFlux]),
    };
    let sentence = match code {
        Code::LbVipConflict => format!("Virtual address {hop} is claimed by two machines at once ({list})."),
        Code::AddrDuplicate => {
            format!("Address {hop} is claimed by two stations ({list}), and packets go to whichever answered last.")
        }
        _ => odd.summary.clone(),
    };
    let mut finding = Finding::new(code, Where::Path, format!("{hop} at {list}"), sentence);
    for because in &odd.because {
        finding = finding.seen(because.clone(), "ARP/NDP and echo probes");
    }
    if vip {
        finding = finding.seen(
            format!("the server has {hop} as a single address beside its own"),
            "netlink RTM_GETADDR on the server",
        );
    }
    for fix in &odd.fix {
        finding = finding.fix(fix.clone(), String::new(), String::new());
    }
    if odd.fix.is_empty() {
        finding =
            finding.fix(format!("take {hop} off the station that should not have it"), String::new(), String::new());
    }
    let sure = if odd.confidence == Sure::Proven || vip { Confidence::Proven } else { Confidence::Likely };
    finding.but(sure, also, None)
}

/// Whether the server holds it as keepalived and its like add it: alone in its prefix, beside another address.
fn vip_of_the_server(round: &Round<'_>, hop: IpAddr) -> bool {
    let Some(server) = &round.known.server else { return false };
    let Some(owner) = server.owns(hop) else { return false };
    let single = owner.prefix_len == if hop.is_ipv4() { 32 } else { 128 };
    let beside =
        server.end.facts.addresses.iter().flatten().any(|other| {
            other.index == owner.index && other.address != hop && other.address.is_ipv4() == hop.is_ipv4()
        });
    single && beside
}

/// Both ends have one hardware address: a switch gives the frames of both to the port that spoke last.
pub(super) fn one_mac(round: &Round<'_>, hop: IpAddr, interface: &str) -> Option<Finding> {
    let known = round.known;
    let mine = known.case.client.facts.link(interface)?.mac?;
    let server = known.server.as_ref()?;
    let link = server.link_of(server.owns(hop)?).filter(|link| link.mac == Some(mine))?;
    let mut other = mine;
    // A locally administered address (IEEE 802 §8.2) of the same numbers.
    other.0[0] |= 0x02;
    other.0[5] ^= 0x01;
    Some(
        Finding::new(
            Code::NeighDuplicate,
            Where::Server,
            format!("{mine} on {interface} of the client and {} of the server", link.name),
            format!("Hardware address {mine} is used by both ends, so the switch gives their frames to whichever spoke last."),
        )
        .seen(format!("{interface}: {mine}"), "netlink RTM_GETLINK on the client")
        .seen(format!("{}: {mine}", link.name), "netlink RTM_GETLINK on the server")
        .fix(
            "give one of them another (a machine was cloned)",
            format!("ip link set {} address {other}", link.name),
            format!("ip link set {} address {mine}", link.name),
        ),
    )
}
