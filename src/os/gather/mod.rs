//! Gathering [`HostFacts`] of the calling thread's network namespace.
//!
//! Each part is read on its own: one that cannot be read is `None` and leaves an [`Unseen`] entry.

mod lenient;
pub(crate) mod links;
mod neighbours;
mod owners;
pub(crate) mod routes;
mod rules;
mod sockets;
mod sysctls;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use netlink_packet_route::AddressFamily;

use self::lenient::Table;
use self::links::LinkNames;
use crate::host::{FACTS_SCHEMA, HostFacts, SocketFact, Transport, Unseen};
use crate::os::netlink::{Netlink, NetlinkError};
use crate::os::{counters, files, nft, privilege};

/// A part of [`HostFacts`], by its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Part {
    /// Interfaces.
    Links,
    /// Their addresses.
    Addresses,
    /// Routes of all tables.
    Routes,
    /// Policy rules.
    Rules,
    /// ARP and NDP table.
    Neighbours,
    /// TCP and UDP sockets with their owners.
    Sockets,
    /// Kernel settings.
    Sysctls,
    /// hosts, resolv.conf, nsswitch.conf.
    Names,
    /// Rulesets in force.
    Firewall,
    /// Protocol counters.
    Counters,
}

/// What to gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatherOptions {
    /// The parts wanted; the others stay `None` or empty, and are not listed as unseen.
    pub parts: BTreeSet<Part>,
    /// Whether to search `/proc` for the processes that hold the sockets (the slowest part of all on
    /// a host with many processes).
    pub owners: bool,
}

impl Default for GatherOptions {
    fn default() -> Self {
        Self { parts: Part::value_variants().iter().copied().collect(), owners: true }
    }
}

impl GatherOptions {
    /// Only these parts.
    pub fn only(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { parts: parts.into_iter().collect(), owners: true }
    }

    /// Whether a part is wanted.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    fn wants_any(&self, parts: &[Part]) -> bool {
        parts.iter().any(|part| self.wants(*part))
    }
}

/// Takes a snapshot of the calling thread's network namespace, with the files and the privileges
/// as this thread has them. Changes nothing.
pub fn gather(options: &GatherOptions) -> HostFacts {
    let mut facts = HostFacts {
        schema: FACTS_SCHEMA,
        taken_at_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| u64::try_from(since.as_millis()).ok()),
        privileges: privilege::privileges(),
        ..HostFacts::default()
    };
    if let Ok(names) = nix::sys::utsname::uname() {
        facts.hostname = Some(names.nodename().to_string_lossy().into_owned());
        facts.kernel = Some(names.release().to_string_lossy().into_owned());
    }
    // The counters first: what follows moves some of them.
    if options.wants(Part::Counters) {
        match counters::read() {
            Ok(counted) => facts.counters = counted,
            Err(error) => unseen(&mut facts, "counters", format!("/proc/thread-self/net: {error}"), None),
        }
    }
    tables(options, &mut facts);
    if options.wants(Part::Sysctls) {
        let interfaces: Vec<String> = interfaces();
        facts.sysctls = sysctls::sysctls(interfaces.iter().map(String::as_str));
        if facts.sysctls.is_empty() {
            unseen(&mut facts, "sysctls", "/proc/sys cannot be read", None);
        }
    }
    if options.wants(Part::Names) {
        facts.names = files::name_facts();
    }
    if options.wants(Part::Firewall) {
        let (dumps, unread) = nft::dumps();
        // Rules that could not be read may be anything: no list is then better than an empty one.
        facts.firewall = (unread.is_empty() || !dumps.is_empty()).then_some(dumps);
        facts.unseen.extend(unread);
    }
    facts
}

/// The links that have settings of their own. `/proc/sys` lists them without netlink.
fn interfaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/sys/net/ipv4/conf") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "all" && name != "default")
        .collect()
}

fn unseen(facts: &mut HostFacts, fact: impl Into<String>, why: impl Display, hint: Option<String>) {
    facts.unseen.push(Unseen { fact: fact.into(), why: why.to_string(), hint });
}

/// Takes what was read of a table; what was not is said.
fn take<T>(facts: &mut HostFacts, fact: &str, read: Result<Table<T>, NetlinkError>) -> Option<Vec<T>> {
    match read {
        Ok(table) => {
            if table.damaged > 0 {
                let why = format!(
                    "the kernel's answer could not be read wholly: {}",
                    count(table.damaged, "entry", "entries")
                );
                unseen(facts, fact, why, None);
            }
            Some(table.entries)
        }
        Err(error) => {
            unseen(facts, fact, error, None);
            None
        }
    }
}

/// Both families of a table as one; `None` only where neither could be read.
fn both<T>(
    facts: &mut HostFacts,
    fact: &str,
    mut read: impl FnMut(AddressFamily) -> Result<Table<T>, NetlinkError>,
) -> Option<Vec<T>> {
    let v4 = take(facts, &format!("{fact}.ipv4"), read(AddressFamily::Inet));
    if !has_ipv6() {
        return v4;
    }
    let v6 = take(facts, &format!("{fact}.ipv6"), read(AddressFamily::Inet6));
    match (v4, v6) {
        (Some(mut v4), Some(v6)) => {
            v4.extend(v6);
            Some(v4)
        }
        (v4, v6) => v4.or(v6),
    }
}

/// Whether this kernel has IPv6 at all (`ipv6.disable=1` leaves none to list).
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// All that netlink lists.
fn tables(options: &GatherOptions, facts: &mut HostFacts) {
    use Part::{Addresses, Links, Neighbours, Routes, Rules, Sockets};
    const TABLES: [Part; 6] = [Links, Addresses, Routes, Rules, Neighbours, Sockets];

    if !options.wants_any(&TABLES) {
        return;
    }
    let mut netlink = match Netlink::open(libc::NETLINK_ROUTE as isize) {
        Ok(netlink) => netlink,
        Err(error) => {
            for part in TABLES.into_iter().filter(|part| options.wants(*part)) {
                unseen(facts, key(part), &error, None);
            }
            return;
        }
    };
    let mut names = LinkNames::new();
    if options.wants_any(&[Links, Addresses, Routes, Neighbours, Sockets])
        && let Some(links) = take(facts, "links", links::links(&mut netlink))
    {
        names = links.iter().map(|link| (link.index, link.name.clone())).collect();
        facts.links = options.wants(Links).then_some(links);
    }
    if options.wants(Addresses) {
        facts.addresses = take(facts, "addresses", links::addresses(&mut netlink, &names));
    }
    if options.wants(Routes) {
        facts.routes = both(facts, "routes", |family| routes::routes(&mut netlink, family, &names));
    }
    if options.wants(Rules) {
        facts.rules = both(facts, "rules", |family| rules::rules(&mut netlink, family));
    }
    if options.wants(Neighbours) {
        facts.neighbours = both(facts, "neighbours", |family| {
            let mut table = neighbours::neighbours(&mut netlink, family, false, &names)?;
            let proxies = neighbours::neighbours(&mut netlink, family, true, &names)?;
            table.entries.extend(proxies.entries);
            table.damaged += proxies.damaged;
            Ok(table)
        });
    }
    if options.wants(Sockets) {
        gather_sockets(options, facts, &names);
    }
}

fn gather_sockets(options: &GatherOptions, facts: &mut HostFacts, names: &LinkNames) {
    let mut netlink = match Netlink::open(libc::NETLINK_SOCK_DIAG as isize) {
        Ok(netlink) => netlink,
        Err(error) => {
            return unseen(facts, "sockets", error, Some("sudo modprobe inet_diag tcp_diag udp_diag".to_owned()));
        }
    };
    let mut all: Option<Vec<SocketFact>> = None;
    for (transport, name) in [(Transport::Tcp, "tcp"), (Transport::Udp, "udp")] {
        for (v6, family) in [(false, "ipv4"), (true, "ipv6")] {
            if v6 && !has_ipv6() {
                continue;
            }
            match sockets::sockets(&mut netlink, transport, v6, names) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {
                    let why = format!("the kernel cannot list {name} sockets: its module {name}_diag is not loaded");
                    unseen(facts, format!("sockets.{name}.{family}"), why, Some(format!("sudo modprobe {name}_diag")));
                }
                read => {
                    if let Some(sockets) = take(facts, &format!("sockets.{name}.{family}"), read) {
                        all.get_or_insert_default().extend(sockets);
                    }
                }
            }
        }
    }
    if options.owners
        && let Some(sockets) = &mut all
    {
        match owners::find(sockets) {
            Ok(hidden) if hidden.orphans == 0 => {}
            Ok(hidden) if hidden.processes > 0 => {
                let why = format!(
                    "who holds {} is not known: this user may not look into {}",
                    count(hidden.orphans, "socket", "sockets"),
                    count(hidden.processes, "process", "processes")
                );
                unseen(facts, "sockets.owners", why, Some("run it again with sudo".to_owned()));
            }
            Ok(hidden) => {
                let why = format!(
                    "no process that is visible here holds {}: the kernel does, or one in another container",
                    count(hidden.orphans, "socket", "sockets")
                );
                unseen(facts, "sockets.owners", why, None);
            }
            Err(error) => unseen_owners(facts, &error),
        }
    }
    facts.sockets = all;
}

/// `1 socket`, `2 sockets`.
fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn unseen_owners(facts: &mut HostFacts, error: &io::Error) {
    unseen(facts, "sockets.owners", format!("/proc cannot be listed: {error}"), None);
}

fn key(part: Part) -> String {
    part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
