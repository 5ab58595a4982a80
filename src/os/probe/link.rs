//! Packet sockets for ARP and neighbour discovery, and what an interface is called on its link.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use nix::sys::socket::SockaddrLike as _;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::sys;
use super::ProbeError;
use super::sockets::{prepare, widen};
use crate::wire::MacAddr;

/// What is needed to speak on a link.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) mac: Option<MacAddr>,
    /// Own addresses with their networks.
    networks: Vec<IpNetwork>,
    /// Neighbours are asked for on this link at all.
    asks: bool,
}

impl Interface {
    /// Own address to ask from: one in the target's network; else, of the same family, any.
    pub(super) fn address_for(&self, target: IpAddr) -> Option<IpAddr> {
        let same_family = || self.networks.iter().filter(|network| network.is_ipv4() == target.is_ipv4());
        let fitting = same_family().find(|network| network.contains(target));
        fitting.or_else(|| same_family().next()).map(IpNetwork::ip)
    }

    /// The hardware address, or why this link has no neighbours to ask.
    pub(super) fn sender(&self) -> Result<MacAddr, &'static str> {
        self.mac.filter(|_| self.asks).ok_or("EOPNOTSUPP")
    }
}

/// The interfaces of this namespace by name.
pub(super) fn interfaces() -> io::Result<HashMap<String, Interface>> {
    let mut found: HashMap<String, Interface> = HashMap::new();
    for entry in getifaddrs()? {
        let name = entry.interface_name.clone();
        let asks = !entry.flags.intersects(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP);
        let interface = found.entry(name.clone()).or_insert_with(|| {
            let index = if_nametoindex(name.as_str()).unwrap_or(0);
            Interface { index, mac: None, networks: Vec::new(), asks }
        });
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            interface.mac = link.addr().map(MacAddr);
            continue;
        }
        let ip_of = |address: &nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
            match address.family()? {
                nix::sys::socket::AddressFamily::Inet => address.as_sockaddr_in().map(|v4| v4.ip().into()),
                nix::sys::socket::AddressFamily::Inet6 => address.as_sockaddr_in6().map(|v6| v6.ip().into()),
                _ => None,
            }
        };
        let mask = entry.netmask.as_ref().and_then(ip_of);
        if let Some(ip) = ip_of(&address) {
            let prefix = mask.and_then(|mask| ipnetwork::ip_mask_to_prefix(mask).ok());
            let prefix = prefix.unwrap_or(if ip.is_ipv4() { 32 } else { 128 });
            interface.networks.extend(IpNetwork::new(ip, prefix).ok());
        }
    }
    Ok(found)
}

/// A packet socket that hears one EtherType on one interface, without what this host sends itself.
pub(super) fn open(interface: u32, ethertype: u16) -> Result<Socket, ProbeError> {
    /// `include/uapi/linux/if_packet.h`, since Linux 4.20.
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    // Protocol 0 hears nothing until it is bound: no frame of another interface gets in before.
    let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), Some(Protocol::from(0)))
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ProbeError::privilege("asking for neighbours (ARP, NDP)"),
            _ => ProbeError::system("open a packet socket")(error),
        })?;
    prepare(&socket, false, false).map_err(ProbeError::system("prepare a packet socket"))?;
    let _ = sys::set_int(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
    widen(&socket);
    let filter = crate::probe::bpf::neighbours(ethertype);
    sys::attach_filter(&socket, &filter).map_err(ProbeError::system("attach a filter"))?;
    sys::bind_link(&socket, interface, ethertype).map_err(ProbeError::system("bind a packet socket"))?;
    Ok(socket)
}
