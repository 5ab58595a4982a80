//! What is odd in the kernel's neighbour table, without asking anyone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::judge::{Confidence, Scene, Severity};
use super::report::Entry;
use super::vendor;
use crate::host::Address;
use crate::wire::MacAddr;

/// Sizes of the table (arp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `gc_thresh2`: above it, old entries go soon.
    pub soft: usize,
    /// `gc_thresh3`: no more than this.
    pub hard: usize,
}

/// One thing that is odd in the table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Oddity {
    /// Its name: `gateway_silent`, `failed`, `shared_mac`, `off_link`, `own_mac`, `group_mac`, `permanent`,
    /// `virtual_router`, `nearly_full`.
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// On which interface.
    pub interface: String,
    /// Which addresses.
    pub ips: Vec<IpAddr>,
    /// In a sentence.
    pub summary: String,
    /// What would tell more, or help.
    pub next: Option<String>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The entries of all interfaces, each with its interface.
    pub entries: &'a [Entry],
    /// This host's addresses.
    pub addresses: &'a [Address],
    /// This host's hardware addresses, and its gateways.
    pub scene: &'a Scene,
    /// Of IPv4, of IPv6.
    pub limits: [Option<Limits>; 2],
}

/// A table filled to this share is worth a word.
const NEARLY: f64 = 0.8;

/// What is odd; the gravest first.
pub fn oddities(table: &Table<'_>) -> Vec<Oddity> {
    let mut found = Vec::new();
    for entry in table.entries {
        found.extend(of_entry(entry, table));
    }
    found.extend(shared(table));
    for (v6, limits) in [(false, table.limits[0]), (true, table.limits[1])] {
        found.extend(limits.and_then(|limits| full(table, v6, limits)));
    }
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.ips.cmp(&b.ips)));
    found
}

fn oddity(entry: &Entry, code: &str, severity: Severity, summary: String, next: Option<String>) -> Oddity {
    Oddity {
        code: code.to_owned(),
        severity,
        confidence: Confidence::Proven,
        interface: entry.interface.clone().unwrap_or_default(),
        ips: vec![entry.ip],
        summary,
        next,
    }
}

fn of_entry(entry: &Entry, table: &Table<'_>) -> Vec<Oddity> {
    let mut found = Vec::new();
    let (ip, gateway) = (entry.ip, table.scene.gateways.contains(&entry.ip));
    let interface = entry.interface.as_deref().unwrap_or("?");
    let lookup = Some(format!("reachwhy arp lookup {ip} -i {interface}"));
    if entry.role.iter().any(|role| role == "proxied here") {
        return found;
    }
    match (entry.state.as_str(), gateway) {
        ("failed" | "incomplete", true) => found.push(oddity(
            entry,
            "gateway_silent",
            Severity::Problem,
            format!("The gateway {ip} does not answer on {interface}: nothing beyond it can be reached."),
            lookup.clone(),
        )),
        ("failed", false) => found.push(oddity(
            entry,
            "failed",
            Severity::Info,
            format!("{ip} did not answer when this host needed it last."),
            lookup.clone(),
        )),
        ("permanent", _) if entry.mac.is_some_and(|mac| !mac.is_multicast()) => found.push(oddity(
            entry,
            "permanent",
            Severity::Info,
            format!("{ip} was set by hand: the kernel never checks whether {} still has it.", mac_of(entry)),
            lookup.clone(),
        )),
        _ => {}
    }
    let Some(mac) = entry.mac else { return found };
    if let Some((_, own)) = table.scene.own_macs.iter().find(|(own, _)| *own == mac && mac != MacAddr::ZERO) {
        found.push(oddity(
            entry,
            "own_mac",
            Severity::Problem,
            format!("{ip} has the hardware address of this host's own {own}: packets for it come back, or go nowhere."),
            Some(format!("ip neigh del {ip} dev {interface}")),
        ));
    }
    if mac.is_multicast() && !ip.is_multicast() && mac.0[..2] != [0x03, 0xbf] {
        found.push(oddity(
            entry,
            "group_mac",
            Severity::Warning,
            format!("{ip} has the group address {mac}: every station on the link gets its packets."),
            lookup.clone(),
        ));
    }
    if vendor::is_virtual_router(mac) {
        let what = vendor::note(mac).unwrap_or_default();
        found.push(oddity(
            entry,
            "virtual_router",
            Severity::Info,
            format!("{ip} is a virtual address: {mac} is a {what}."),
            None,
        ));
    }
    let on_link = table.addresses.iter().filter(|address| address.interface == interface);
    let fits = on_link.clone().any(|address| address.on_link(ip));
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast());
    let family = on_link.clone().any(|address| address.address.is_ipv4() == ip.is_ipv4());
    if !fits && !link_local && !ip.is_multicast() && family && !gateway && entry.state != "noarp" {
        found.push(oddity(
            entry,
            "off_link",
            Severity::Warning,
            format!("{ip} is in none of the networks of {interface}, but was asked for there: a route without a gateway, or a wrong prefix length."),
            Some(format!("ip route get {ip}")),
        ));
    }
    found
}

fn mac_of(entry: &Entry) -> String {
    entry.mac.map_or_else(|| "nobody".to_owned(), |mac| mac.to_string())
}

/// Several addresses with one hardware address on one interface.
fn shared(table: &Table<'_>) -> Vec<Oddity> {
    let mut stations: BTreeMap<(&str, MacAddr, bool), Vec<&Entry>> = BTreeMap::new();
    for entry in table.entries {
        let Some(mac) = entry.mac.filter(|mac| !mac.is_multicast() && *mac != MacAddr::ZERO) else { continue };
        // A host has several IPv6 addresses as a rule.
        if entry.ip.is_ipv4() && matches!(entry.state.as_str(), "reachable" | "stale" | "delay" | "probe") {
            stations.entry((entry.interface.as_deref().unwrap_or("?"), mac, false)).or_default().push(entry);
        }
    }
    let mut found = Vec::new();
    for ((interface, mac, _), entries) in stations.into_iter().filter(|(_, entries)| entries.len() > 1) {
        let gateway = entries.iter().find(|entry| table.scene.gateways.contains(&entry.ip));
        let ips: Vec<IpAddr> = entries.iter().map(|entry| entry.ip).collect();
        let names: Vec<String> = ips.iter().take(4).map(ToString::to_string).collect();
        let more = if ips.len() > 4 { format!(" and {} more", ips.len() - 4) } else { String::new() };
        let (severity, meaning) = match gateway {
            Some(_) => (
                Severity::Warning,
                "with the gateway's among them: proxy ARP, or someone who takes the gateway's place",
            ),
            None => (Severity::Info, "one host with several addresses, or proxy ARP"),
        };
        let asked =
            entries.iter().find(|entry| Some(entry.ip) != gateway.map(|gateway| gateway.ip)).unwrap_or(&entries[0]);
        found.push(Oddity {
            code: "shared_mac".to_owned(),
            severity,
            confidence: Confidence::Likely,
            interface: interface.to_owned(),
            summary: format!("{mac} has {} addresses ({}{more}): {meaning}.", ips.len(), names.join(", ")),
            next: Some(format!("reachwhy arp lookup {} -i {interface}", asked.ip)),
            ips,
        });
    }
    found
}

fn full(table: &Table<'_>, v6: bool, limits: Limits) -> Option<Oddity> {
    let count = table
        .entries
        .iter()
        .filter(|entry| entry.ip.is_ipv6() == v6 && entry.state != "permanent" && entry.state != "noarp")
        .count();
    #[allow(clippy::cast_precision_loss, reason = "counts of neighbours")]
    let nearly = count as f64 >= limits.hard as f64 * NEARLY;
    let family = if v6 { "ipv6" } else { "ipv4" };
    nearly.then(|| Oddity {
        code: "nearly_full".to_owned(),
        severity: Severity::Problem,
        confidence: Confidence::Proven,
        interface: String::new(),
        ips: Vec::new(),
        summary: format!(
            "The table holds {count} neighbours and takes {} at most: new ones will be refused (\"neighbour table overflow\").",
            limits.hard
        ),
        next: Some(format!("sysctl -w net.{family}.neigh.default.gc_thresh3={} net.{family}.neigh.default.gc_thresh2={}", limits.hard * 8, limits.soft * 8)),
    })
}
