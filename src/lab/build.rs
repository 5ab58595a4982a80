//! From a topology to namespaces, cables, addresses and files.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use netlink_packet_route::link::LinkFlags;

use super::impair::Impairment;
use super::topology::{End, Host, Link};
use super::{Lab, LabError, Node, ServiceSpec, Topology};
use crate::os::links::{Links, RouteSpec, VethEnd, write_sysctl};
use crate::os::netns::NetNs;
use crate::os::userns;

/// The files of `/etc` that each host has for itself.
pub(super) const OWN_FILES: [&str; 3] = ["hosts", "resolv.conf", "nsswitch.conf"];
/// Link indices: those of cable ends, above loopback's and a bridge's.
const FIRST_INDEX: u32 = 10;
/// Those of the inner ends of impaired cables, which must differ from the outer ones'.
const FIRST_INNER: u32 = 10_000;
/// A switch's bridge, in the switch's own namespace.
const BRIDGE: &str = "bridge";

/// Makes a namespace for every host and switch, with loopback up and its settings made.
pub(super) fn nodes(topology: &Topology) -> Result<BTreeMap<String, Node>, LabError> {
    let home = NetNs::current()?;
    let mut nodes = BTreeMap::new();
    for host in &topology.hosts {
        let made = make(&host.name, || settings(topology, host));
        home.enter()?;
        nodes.insert(host.name.clone(), made?);
        files(topology, host)?;
    }
    for (number, _) in impaired(topology) {
        let name = cable_name(number);
        let made = make(&name, no_v6);
        home.enter()?;
        nodes.insert(name, made?);
    }
    for switch in &topology.switches {
        let made = make(switch, || no_v6().and_then(|()| Ok(Links::open()?.add_bridge(BRIDGE)?)));
        home.enter()?;
        nodes.insert(switch.clone(), made?);
    }
    Ok(nodes)
}

/// The links that something goes wrong on, with their numbers.
fn impaired(topology: &Topology) -> impl Iterator<Item = (u32, (&Link, &Impairment))> {
    let numbered = (0..).zip(&topology.links);
    numbered.filter_map(|(number, link)| link.impair.as_ref().map(|impair| (number, (link, impair))))
}

/// The namespace, and the process, in the middle of an impaired link. No host may have a dot in its name.
fn cable_name(number: u32) -> String {
    format!("cable.{number}")
}

/// Leaves the calling thread in the new namespace.
fn make(name: &str, first: impl FnOnce() -> Result<(), LabError>) -> Result<Node, LabError> {
    let namespace = NetNs::unshare()?;
    userns::name_network(name).map_err(LabError::system("name a namespace in /run/netns"))?;
    let mut links = Links::open()?;
    first()?;
    links.set_up("lo", true)?;
    Ok(Node { namespace, links: RefCell::new(links) })
}

fn sysctl(key: &str, value: &str) -> Result<(), LabError> {
    write_sysctl(key, value).map_err(LabError::system(&format!("set {key} to {value}")))
}

/// Without IPv6 no link makes itself an address or sends a word unasked.
fn no_v6() -> Result<(), LabError> {
    for scope in ["all", "default"] {
        match write_sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "1") {
            // A kernel without IPv6, or a /proc/sys that is read-only: then there is noise, no more.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EROFS)) => {}
            other => other.map_err(LabError::system("turn IPv6 off in a host that has no IPv6 address"))?,
        }
    }
    Ok(())
}

fn settings(topology: &Topology, host: &Host) -> Result<(), LabError> {
    if topology.has_v6(&host.name) {
        for scope in ["all", "default"] {
            sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "0")?;
            sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
            // Duplicates are not looked for, so that addresses can be used at once.
            sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            if host.router {
                sysctl(&format!("net.ipv6.conf.{scope}.forwarding"), "1")?;
            }
        }
    } else {
        no_v6()?;
    }
    if host.router {
        sysctl("net.ipv4.ip_forward", "1")?;
    }
    // A user's own programs may ping and take low ports in a lab, as root's may.
    let _ = write_sysctl("net.ipv4.ping_group_range", "0 0");
    for (key, value) in &host.sysctls {
        sysctl(key, value)?;
    }
    Ok(())
}

fn files(topology: &Topology, host: &Host) -> Result<(), LabError> {
    let place = Path::new("/etc/netns").join(&host.name);
    let resolv = host.resolv_conf.as_deref().unwrap_or("# no resolver in this lab\n");
    let nsswitch = host.nsswitch_conf.as_deref().unwrap_or("passwd: files\ngroup: files\nhosts: files dns\n");
    let texts = [topology.hosts_file(host), resolv.to_owned(), nsswitch.to_owned()];
    fs::create_dir_all(&place).map_err(LabError::system("make a host's directory in /etc/netns"))?;
    for (name, text) in OWN_FILES.iter().zip(texts) {
        fs::write(place.join(name), text).map_err(LabError::system("write a host's files"))?;
    }
    Ok(())
}

impl Lab {
    /// Gives one of a host's own files another text; programs of the host read it when they next open it.
    pub(super) fn write_file(&self, host: &str, name: &str, text: &str) -> Result<(), LabError> {
        let place = Path::new("/etc/netns").join(host).join(name);
        self.in_host(host, || fs::write(&place, text))?.map_err(LabError::system("write a host's files"))
    }

    /// Lays the cables, gives addresses and routes, and waits until every link works.
    pub(super) fn connect(&self) -> Result<(), LabError> {
        let mut base = Links::open()?;
        for (number, link) in (0..).zip(&self.topology.links) {
            if link.impair.is_none() {
                let (a, b) = (self.veth(&link.a, 2 * number)?, self.veth(&link.b, 2 * number + 1)?);
                base.add_veth(a, b, link.mtu)?;
            }
        }
        for (number, (link, impair)) in impaired(&self.topology) {
            self.lay_impaired(&mut base, number, link, impair)?;
        }
        for switch in &self.topology.switches {
            self.links(switch, |links| links.set_up(BRIDGE, true))?;
        }
        let ends: Vec<&End> = self.topology.links.iter().flat_map(|link| [&link.a, &link.b]).collect();
        for end in &ends {
            self.links(&end.node, |links| -> Result<(), LabError> {
                if self.topology.switches.contains(&end.node) {
                    links.set_bridge(&end.dev, BRIDGE)?;
                }
                links.set_up(&end.dev, true)?;
                for address in &end.addresses {
                    links.add_address(&end.dev, *address)?;
                }
                Ok(())
            })?;
        }
        for host in &self.topology.hosts {
            for route in &host.routes {
                let spec: RouteSpec = route.parse().map_err(super::apply::ApplyError::from)?;
                self.links(&host.name, |links| links.add_route(&spec))?;
            }
        }
        for end in &ends {
            self.wait_for_link(&end.node, &end.dev)?;
        }
        Ok(())
    }

    /// Waits until the kernel has started a link's queues: before that it drops what is sent.
    pub fn wait_for_link(&self, node: &str, dev: &str) -> Result<(), LabError> {
        Self::wait_until(&format!("the link {dev} of {node}"), || {
            self.links(node, |links| links.works(dev)).unwrap_or(false)
        })
    }

    /// Two cables that meet in a namespace of their own, where a process carries frames between them.
    fn lay_impaired(&self, base: &mut Links, number: u32, link: &Link, impair: &Impairment) -> Result<(), LabError> {
        let name = cable_name(number);
        let middle = &self.node(&name)?.namespace;
        for (end, dev, number) in [(&link.a, "a", 2 * number), (&link.b, "b", 2 * number + 1)] {
            let inner = VethEnd { name: dev, mac: None, index: FIRST_INNER + number, namespace: middle };
            base.add_veth(self.veth(end, number)?, inner, link.mtu)?;
            self.links(&end.node, |links| links.no_large_frames(&end.dev))?;
            self.links(&name, |links| {
                links.set_flags(dev, LinkFlags::Promisc, true)?;
                links.set_up(dev, true)
            })?;
        }
        let json =
            serde_json::to_string(impair).map_err(|error| LabError::system("write the impairment")(error.into()))?;
        self.start_service(&ServiceSpec::new(&name, &name, &["cable", "a", "b", "--impair", &json]))
    }

    fn veth<'a>(&'a self, end: &'a End, number: u32) -> Result<VethEnd<'a>, LabError> {
        let namespace = &self.node(&end.node)?.namespace;
        Ok(VethEnd { name: &end.dev, mac: Some(end.mac()), index: FIRST_INDEX + number, namespace })
    }
}
