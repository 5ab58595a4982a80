//! Several stations answered for one address: who of them has it, who only says so?

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::arp::filter::Ear;
use crate::arp::frame::Speaker;
use crate::arp::inquiry::Inquiry;
use crate::arp::judge::{Evidence, Finding, Scene, judge, worth_listening};
use crate::arp::lookup::{Lookup, Question};
use crate::host::NudState;
use crate::os::gather::{GatherOptions, Part, gather};
use crate::os::neighbour::{Stop, Wire};
use crate::probe::{ProbeKind, ProbeReport, ProbeSpec};

/// Answers of a link come within this, nanoseconds.
const PATIENCE: u64 = 300_000_000;
/// VRRP masters speak once a second (RFC 9568 §5.2.7).
const LISTEN: u64 = 1_300_000_000;

/// Looks closer, where the probe was answered from more than one hardware address; what cannot be looked at is
/// left open.
pub(super) fn look(spec: &ProbeSpec, report: &ProbeReport) -> Vec<Finding> {
    let mut macs: Vec<_> = report.replies.iter().filter_map(|reply| reply.mac).collect();
    macs.sort_unstable();
    macs.dedup();
    if macs.len() < 2 {
        return Vec::new();
    }
    let (interface, target, source) = match &spec.kind {
        ProbeKind::Arp { interface, target, source } => (interface, IpAddr::V4(*target), source.map(IpAddr::V4)),
        ProbeKind::Ndp { interface, target, source } => (interface, IpAddr::V6(*target), source.map(IpAddr::V6)),
        _ => return Vec::new(),
    };
    closer(interface, target, source).unwrap_or_default()
}

fn closer(interface: &str, target: IpAddr, source: Option<IpAddr>) -> Option<Vec<Finding>> {
    let facts = gather(&GatherOptions::only([Part::Links, Part::Addresses, Part::Routes, Part::Neighbours]));
    let link = facts.link(interface)?;
    let own: Vec<IpAddr> =
        facts.addresses.iter().flatten().filter(|one| one.interface == interface).map(|one| one.address).collect();
    let source = source.or_else(|| own.iter().copied().find(|one| one.is_ipv4() == target.is_ipv4()));
    let speaker = Speaker { mac: link.mac?, ip: source };
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let question = Question { target, count: 1, interval: PATIENCE, patience: PATIENCE, verify: true, id };
    let stop = Stop::watch().ok()?;
    let mut lookup = Lookup::new(speaker, question);
    let mut wire = Wire::open(interface, link.index, Ear::Everything, false).ok()?;
    wire.run(&mut lookup, &stop, &mut |_| true).ok()?;
    let scene = Scene {
        own,
        own_macs: facts.links.iter().flatten().filter_map(|link| Some((link.mac?, link.name.clone()))).collect(),
        gateways: facts.routes.iter().flatten().filter_map(|route| route.gateway).collect(),
        known: facts
            .neighbours
            .iter()
            .flatten()
            .filter(|entry| entry.interface == interface && !entry.proxy && entry.state != NudState::Noarp)
            .filter_map(|entry| Some((entry.address, entry.mac?, entry.state)))
            .collect(),
        asked: 1,
    };
    let answers = BTreeMap::from([(target, lookup.responders().to_vec())]);
    let trials = lookup.trials();
    let (mut adverts, mut listened) = (Vec::new(), 0);
    if worth_listening(&answers, &trials, &scene) {
        let mut inquiry = Inquiry::new(speaker, Vec::new(), id, LISTEN);
        wire.run(&mut inquiry, &stop, &mut |_| true).ok()?;
        (_, adverts, listened) = inquiry.finish();
    }
    Some(judge(&Evidence { answers: &answers, trials: &trials, adverts: &adverts, listened, scene: &scene }))
}
