//! Does the client have an address to speak from?

use std::net::IpAddr;

use super::super::causes::{Code, Layer};
use super::super::diagnosis::{Confidence, Status, Where};
use super::{Finding, Round};
use crate::host::{Address, AddressScope, RouteResult};

const ID: &str = "client.address";

pub(super) fn client(round: &mut Round<'_>) {
    let known = round.known;
    let Some(target) = known.address else { return };
    let facts = &known.case.client.facts;
    let Some(addresses) = facts.addresses.as_deref() else {
        round.note(Status::Skip, Layer::Address, ID, "the addresses could not be read");
        return;
    };
    let family = if target.is_ipv4() { "IPv4" } else { "IPv6" };
    let own: Vec<&Address> = addresses
        .iter()
        .filter(|a| a.address.is_ipv4() == target.is_ipv4() && !a.address.is_loopback())
        .filter(|a| target.is_ipv4() || a.scope != AddressScope::Link || is_link_local(target))
        .collect();
    let found = matches!(known.case.client.route.as_ref().map(|r| &r.result), Some(RouteResult::Found { .. }));
    if known.is_self() {
        round.pass(Layer::Address, ID, format!("{target} is an address of this host"));
        return;
    }
    if own.is_empty() && !known.reached() && round.finding.is_none() {
        let link = facts.links.iter().flatten().find(|link| !link.loopback && link.usable());
        let name = link.map_or("the interface", |link| link.name.as_str());
        let prefix = if target.is_ipv4() { "24" } else { "64" };
        let finding = Finding::new(
            Code::AddrNone,
            Where::Client,
            name,
            format!("Interface {name} of the client has no {family} address to speak from."),
        )
        .seen(format!("no {family} address but the loopback's"), "netlink RTM_GETADDR")
        .fix(
            format!("give {name} an address of the target's network (or start its DHCP client)"),
            format!("ip addr add ADDRESS/{prefix} dev {name}"),
            format!("ip addr del ADDRESS/{prefix} dev {name}"),
        );
        round.fail(ID, finding);
        return;
    }
    let Some(source) = known.source else {
        if !found {
            let have: Vec<String> = own.iter().map(|a| format!("{}/{}", a.address, a.prefix_len)).collect();
            round.note(Status::Info, Layer::Address, ID, format!("{family} addresses: {}", have.join(", ")));
        }
        return;
    };
    let Some(entry) = addresses.iter().find(|a| a.address == source) else {
        round.note(Status::Info, Layer::Address, ID, format!("the kernel would speak from {source}"));
        return;
    };
    if entry.dad_failed {
        let finding = Finding::new(
            Code::AddrDuplicate,
            Where::Client,
            source.to_string(),
            format!("Address {source} of the client belongs to another host too, so the kernel does not use it."),
        )
        .seen(
            format!("{source} on {}: duplicate address detection failed", entry.interface),
            "netlink RTM_GETADDR (IFA_F_DADFAILED)",
        );
        round.fail(ID, finding);
        return;
    }
    if let Some(server) = &known.server
        && let Some(twin) = server.owns(source)
        && !known.reached()
    {
        let finding = Finding::new(
            Code::AddrDuplicate,
            Where::Server,
            format!("{source} on {}", twin.interface),
            format!(
                "The server has the client's own address {source} on {}, so its answers never leave it.",
                twin.interface
            ),
        )
        .seen(
            format!("{source}/{} on {} of the server", twin.prefix_len, twin.interface),
            "netlink RTM_GETADDR on the server",
        )
        .seen(
            format!("{source}/{} on {} of the client", entry.prefix_len, entry.interface),
            "netlink RTM_GETADDR on the client",
        )
        .fix(
            "take the client's address off the server",
            format!("ip addr del {source}/{} dev {}", twin.prefix_len, twin.interface),
            format!("ip addr add {source}/{} dev {}", twin.prefix_len, twin.interface),
        );
        round.fail(ID, finding);
        return;
    }
    let egress = known.way().and_then(|(_, _, interface)| interface);
    let summary = format!("{source}/{} on {}", entry.prefix_len, entry.interface);
    if egress.is_some_and(|egress| egress != entry.interface) && !known.reached() {
        let text =
            format!("{summary}, though packets leave by {}: answers must find their way to it", egress.unwrap_or("?"));
        round.note(Status::Warn, Layer::Address, ID, text);
    } else {
        round.pass(Layer::Address, ID, summary);
    }
}

/// `fe80::/10`, `169.254/16`.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether the two ends disagree on their network's prefix length so that one does not see the
/// other on its link, or sees it where it is not. `blamed` is the end whose step failed.
pub(super) fn wrong_prefix(round: &Round<'_>, blamed: Where) -> Option<Finding> {
    let known = round.known;
    let (target, server) = (known.address?, known.server.as_ref()?);
    let theirs = server.owns(target)?;
    let own = known.case.client.facts.addresses.as_deref()?;
    let ours = own
        .iter()
        .filter(|a| a.address.is_ipv4() == target.is_ipv4() && !a.address.is_loopback())
        .filter(|a| known.source.is_none_or(|source| source == a.address))
        .find(|a| theirs.on_link(a.address) || a.on_link(target))?;
    if ours.on_link(target) == theirs.on_link(ours.address) {
        return None;
    }
    let (entry, other, sees) = match blamed {
        Where::Server => (theirs, ours, theirs.on_link(ours.address)),
        _ => (ours, theirs, ours.on_link(target)),
    };
    let (had, want, i) = (entry.prefix_len, other.prefix_len, &entry.interface);
    let effect = if sees {
        "looks for the other end on its own link, where it is not"
    } else {
        "does not know that the other end is on its own link"
    };
    let finding = Finding::new(
        Code::AddrWrongPrefix,
        blamed,
        format!("{}/{had} on {i}", entry.address),
        format!(
            "Address {}/{had} of the {blamed} has the wrong prefix length (the other end has /{want}), so it {effect}.",
            entry.address
        ),
    );
    let address = entry.address;
    Some(
        finding
            .seen(
                format!("client: {}/{} on {}", ours.address, ours.prefix_len, ours.interface),
                "netlink RTM_GETADDR on the client",
            )
            .seen(
                format!("server: {}/{} on {}", theirs.address, theirs.prefix_len, theirs.interface),
                "netlink RTM_GETADDR on the server",
            )
            .fix(
                format!("give {address} the prefix length of its network"),
                format!("ip addr add {address}/{want} dev {i} && ip addr del {address}/{had} dev {i}"),
                format!("ip addr add {address}/{had} dev {i} && ip addr del {address}/{want} dev {i}"),
            )
            .but(Confidence::Likely, &[], None),
    )
}
