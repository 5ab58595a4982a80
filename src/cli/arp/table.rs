//! `reachwhy arp table`.

use std::collections::HashMap;

use super::super::{Failure, Global, print_json};
use super::link::Here;
use super::{vendors, views};
use crate::arp::judge::{Scene, Severity};
use crate::arp::report::{ArpReport, Entry};
use crate::arp::table::{Table, oddities};
use crate::host::NudState;
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::neighbour_table::{ages, limits};
use crate::view::Style;

/// Which part of the table.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit: 0 nothing wrong, 1 something is wrong (the gateway is silent, the table is full), 3 cannot read it"
)]
pub(super) struct TableArgs {
    /// Only the neighbours on this interface
    #[arg(short, long, value_name = "NAME")]
    interface: Option<String>,
    /// Only IPv4
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only IPv6
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Also what the kernel sets by itself: multicast and loopback mappings
    #[arg(short, long)]
    all: bool,
}

pub(super) fn run(args: &TableArgs, global: &Global, style: Style) -> anyhow::Result<u8> {
    let facts = gather(&GatherOptions::only([Part::Links, Part::Addresses, Part::Routes, Part::Neighbours]));
    let here = Here {
        links: facts.links.clone().unwrap_or_default(),
        addresses: facts.addresses.clone().unwrap_or_default(),
        facts,
    };
    if let Some(name) = &args.interface
        && !here.links.iter().any(|link| link.name == *name)
    {
        return Err(here.no_interface(name));
    }
    let Some(neighbours) = &here.facts.neighbours else {
        return Err(Failure::unknown("the kernel's neighbour table could not be read", None));
    };
    let index: HashMap<&str, u32> = here.links.iter().map(|link| (link.name.as_str(), link.index)).collect();
    // Without times the table is still a table.
    let ages = ages().unwrap_or_default();
    let vendors = vendors();
    let scene = Scene {
        own_macs: here.links.iter().filter_map(|link| Some((link.mac?, link.name.clone()))).collect(),
        gateways: here
            .facts
            .routes
            .iter()
            .flatten()
            .flat_map(|route| route.gateway.into_iter().chain(route.multipath.iter().filter_map(|hop| hop.gateway)))
            .collect(),
        ..Scene::default()
    };
    let mut entries = Vec::new();
    for neighbour in neighbours {
        let wanted = args.interface.as_ref().is_none_or(|name| *name == neighbour.interface)
            && !(args.ipv4 && neighbour.address.is_ipv6())
            && !(args.ipv6 && neighbour.address.is_ipv4())
            && (args.all || neighbour.state != NudState::Noarp || neighbour.proxy);
        if !wanted {
            continue;
        }
        let state = format!("{:?}", neighbour.state).to_lowercase();
        let mut entry = Entry::of(neighbour.address, neighbour.mac, &state, &vendors);
        entry.interface = Some(neighbour.interface.clone());
        if neighbour.proxy {
            entry.role.push("proxied here".to_owned());
        } else {
            entry.ages = index
                .get(neighbour.interface.as_str())
                .and_then(|index| ages.get(&(*index, neighbour.address)))
                .copied();
        }
        if scene.gateways.contains(&neighbour.address) {
            entry.role.push("gateway".to_owned());
        } else if neighbour.router {
            entry.role.push("router".to_owned());
        }
        entries.push(entry);
    }
    entries.sort_by(|a, b| a.interface.cmp(&b.interface).then(a.ip.cmp(&b.ip)));
    let odd = oddities(&Table { entries: &entries, addresses: &here.addresses, scene: &scene, limits: limits() });
    let mut interfaces: Vec<&String> = entries.iter().filter_map(|entry| entry.interface.as_ref()).collect();
    interfaces.dedup();
    let only = if interfaces.len() == 1 { interfaces.first().map(|name| (*name).clone()) } else { None };
    let report = ArpReport {
        interface: args.interface.clone().or(only),
        entries,
        oddities: odd,
        method: "kernel".to_owned(),
        ..ArpReport::default()
    };
    if global.json {
        print_json(&report)?;
    } else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        views::table(&mut out, &report, style, global.verbose > 0)?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(u8::from(report.oddities.iter().any(|odd| odd.severity == Severity::Problem)))
}
