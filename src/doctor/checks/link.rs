//! Is there an interface that can carry the packets?

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Status, Where};
use super::{Finding, Round};
use crate::host::Link;

const ID: &str = "client.link";

pub(super) fn client(round: &mut Round<'_>) {
    let known = round.known;
    let facts = &known.case.client.facts;
    let Some(links) = facts.links.as_deref() else {
        round.note(Status::Skip, Layer::Link, ID, "the interfaces could not be read");
        return;
    };
    if known.is_self() {
        round.pass(Layer::Link, ID, "the target is this host itself: packets stay inside");
        return;
    }
    let egress = known.way().and_then(|(_, _, interface)| interface).and_then(|name| facts.link(name));
    if let Some(link) = egress {
        if link.up && link.carrier == Some(false) && !known.reached() {
            round.fail(ID, no_carrier(link, Where::Client));
        } else if !link.up && !known.reached() {
            round.fail(ID, down(link, Where::Client));
        } else {
            round.pass(Layer::Link, ID, format!("{} is up{}, MTU {}", link.name, carrier(link), link.mtu));
        }
        return;
    }
    // The kernel knows no way out. A link that is off takes its routes with it, so look there first.
    let outward = || links.iter().filter(|link| !link.loopback);
    if outward().next().is_none() {
        let finding = Finding::new(
            Code::LinkMissing,
            Where::Client,
            "network interfaces",
            "The client has no network interface but its loopback.",
        )
        .seen("only a loopback interface is listed", "netlink RTM_GETLINK");
        round.fail(ID, finding);
        return;
    }
    let addressed =
        |link: &Link| facts.addresses.iter().flatten().any(|a| a.index == link.index && !a.address.is_loopback());
    let covers = |link: &Link| {
        known.address.is_some_and(|to| {
            facts.addresses.iter().flatten().any(|a| a.index == link.index && a.prefix_len > 0 && a.on_link(to))
        })
    };
    let others_work = outward().any(|link| link.usable() && addressed(link));
    let broken = outward()
        .filter(|link| !link.usable())
        .find(|link| covers(link))
        .or_else(|| if others_work { None } else { outward().find(|l| !l.usable() && addressed(l)) })
        .or_else(|| if outward().any(Link::usable) { None } else { outward().next() });
    match broken {
        Some(link) if !link.up => round.fail(ID, down(link, Where::Client)),
        Some(link) => round.fail(ID, no_carrier(link, Where::Client)),
        None => {
            let up: Vec<&str> = outward().filter(|link| link.usable()).map(|link| link.name.as_str()).collect();
            round.pass(Layer::Link, ID, format!("{} up", up.join(", ")));
        }
    }
}

fn carrier(link: &Link) -> &'static str {
    if link.carrier == Some(true) { ", carrier" } else { "" }
}

/// A link that is switched off.
pub(super) fn down(link: &Link, place: Where) -> Finding {
    Finding::new(
        Code::LinkDown,
        place,
        link.name.clone(),
        format!(
            "Interface {} of the {place} is switched off, so it carries nothing and its routes are gone.",
            link.name
        ),
    )
    .seen(format!("{}: the UP flag is not set", link.name), "netlink RTM_GETLINK")
    .fix(
        format!("switch {} on", link.name),
        format!("ip link set {} up", link.name),
        format!("ip link set {} down", link.name),
    )
}

/// A link without a medium.
pub(super) fn no_carrier(link: &Link, place: Where) -> Finding {
    Finding::new(
        Code::LinkNoCarrier,
        place,
        link.name.clone(),
        format!(
            "Interface {} of the {place} is switched on but has no carrier: nothing is plugged in at the other end.",
            link.name
        ),
    )
    .seen(format!("{}: UP is set, carrier is 0", link.name), "netlink RTM_GETLINK")
    .fix(
        format!("check the cable, the switch port or the peer interface of {}", link.name),
        String::new(),
        String::new(),
    )
}
