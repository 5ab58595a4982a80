//! Three private hosts in a line, client – router – server, of which the router is tested. The
//! other two have no addresses: they only hold the far ends of its cables and never answer.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto, setsockopt, sockopt};
use reachwhy::host::HostFacts;
use reachwhy::os::gather::{GatherOptions, Part, gather};
use reachwhy::os::links::{Links, VethEnd, write_sysctl};
use reachwhy::os::netns::NetNs;
use reachwhy::wire::MacAddr;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub(crate) const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
pub(crate) const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
pub(crate) const SERVER_SIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
pub(crate) const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 2]);

const ADDRESSES: [(&str, &str); 5] = [
    ("eth0", "10.1.0.1/24"),
    ("eth0", "fd00:1::1/64"),
    ("eth1", "10.2.0.1/24"),
    ("eth1", "fd00:2::1/64"),
    ("eth1", "10.2.0.3/24"),
];
const ROUTES: [&str; 4] = [
    "192.168.0.0/16 via 10.1.0.2 dev eth0",
    "default via 10.2.0.2 dev eth1",
    "fd99::/16 via fd00:1::2 dev eth0",
    "::/0 via fd00:2::2 dev eth1",
];
/// Those on the router's own networks that the packets name, or that NAT makes of them; they need
/// no asking for.
fn neighbours() -> Vec<String> {
    let mut all: Vec<String> =
        ["10.1.0.2", "10.1.0.77", "10.1.0.128", "10.2.0.2", "10.2.0.128", "fd00:1::2", "fd00:1::77"]
            .map(str::to_owned)
            .to_vec();
    all.extend((4..16).map(|n| format!("10.2.0.{n}")));
    all.extend((2..16).map(|n| format!("fd00:2::{n:x}")));
    // What NETMAP makes of the sources.
    all.extend(["fd00:2::102", "fd00:2::104", "fd00:2::107", "fd00:2::177"].map(str::to_owned));
    all
}

const SYSCTLS: [(&str, &str); 14] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.eth0.rp_filter", "0"),
    ("net.ipv4.conf.eth1.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.eth0.send_redirects", "0"),
    ("net.ipv4.conf.eth1.send_redirects", "0"),
    // Every reject is to be seen.
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "1000000"),
    ("net.ipv4.icmp_msgs_burst", "1000000"),
    ("net.ipv6.icmp.ratelimit", "0"),
    ("net.ipv4.icmp_echo_ignore_all", "1"),
    ("net.ipv6.icmp.echo_ignore_all", "1"),
];

/// A far end of a cable.
#[derive(Debug)]
struct Far {
    socket: Socket,
    link: LinkAddr,
    own: MacAddr,
}

impl Far {
    /// Opens it in the calling thread's namespace.
    fn open(name: &str, own: MacAddr) -> Self {
        // ETH_P_ALL, in network order. There is one link, so it need not be bound.
        let all = Protocol::from(i32::from(3u16.to_be()));
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), Some(all)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let found = getifaddrs().unwrap().find(|one| one.interface_name == name && one.address.is_some()).unwrap();
        let link = *found.address.unwrap().as_link_addr().unwrap();
        Self { socket, link, own }
    }

    fn send(&self, frame: &[u8]) {
        sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty()).unwrap();
    }

    /// What the router has sent since the last time, without the Ethernet headers.
    fn drain(&self) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut buffer = [0u8; 4096];
        while let Ok((length, _)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            let frame = &buffer[..length];
            if length > 14 && frame[6..12] != self.own.0 {
                out.push(frame[14..].to_vec());
            }
        }
        out
    }
}

/// The three hosts. The thread that made them stays in the router's namespace.
#[derive(Debug)]
pub(crate) struct Line {
    client: Far,
    server: Far,
    raw4: Socket,
    raw6: Socket,
    pub facts: HostFacts,
}

impl Line {
    /// Makes the three hosts, or says why that is not allowed here.
    pub(crate) fn new() -> Result<Self, String> {
        let quiet = || -> Result<NetNs, String> {
            let made = NetNs::unshare().map_err(|e| e.to_string())?;
            for key in ["net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"] {
                write_sysctl(key, "1").map_err(|e| format!("{key}: {e}"))?;
            }
            Ok(made)
        };
        let (client, server) = (quiet()?, quiet()?);
        let router = NetNs::unshare().map_err(|e| e.to_string())?;
        let fail = |e: reachwhy::os::netlink::NetlinkError| e.to_string();
        // No router advertisements, no address made of the link's own: nothing speaks unasked.
        for (key, value) in [("net.ipv6.conf.default.addr_gen_mode", "1"), ("net.ipv6.conf.default.dad_transmits", "0")]
        {
            write_sysctl(key, value).map_err(|e| format!("{key}: {e}"))?;
        }
        let mut links = Links::open().map_err(fail)?;
        let end = |name, mac, index, namespace| VethEnd { name, mac: Some(mac), index, namespace };
        for (near, far) in [
            (end("eth0", ROUTER_MAC, 11, &router), end("c0", CLIENT_MAC, 21, &client)),
            (end("eth1", SERVER_SIDE_MAC, 12, &router), end("s0", SERVER_MAC, 22, &server)),
        ] {
            links.add_veth(near, far, None).map_err(fail)?;
        }
        for (key, value) in SYSCTLS {
            write_sysctl(key, value).map_err(|e| format!("{key}: {e}"))?;
        }
        let open = |namespace: &NetNs, name: &'static str, mac| {
            let there = move || {
                Links::open().and_then(|mut links| links.set_up(name, true)).unwrap();
                Far::open(name, mac)
            };
            namespace.run(there).map_err(|e| e.to_string())
        };
        let (client, server) = (open(&client, "c0", CLIENT_MAC)?, open(&server, "s0", SERVER_MAC)?);
        for name in ["lo", "eth0", "eth1"] {
            links.set_up(name, true).map_err(fail)?;
        }
        for (name, net) in ADDRESSES {
            links.add_address(name, net.parse().unwrap()).map_err(fail)?;
        }
        for route in ROUTES {
            links.add_route(&route.parse().unwrap()).map_err(fail)?;
        }
        for ip in neighbours() {
            let (mac, dev) = if ip.starts_with("10.1") || ip.starts_with("fd00:1") {
                (CLIENT_MAC, "eth0")
            } else {
                (SERVER_MAC, "eth1")
            };
            links
                .replace_neighbour(&format!("{ip} lladdr {mac} dev {dev} nud permanent").parse().unwrap())
                .map_err(fail)?;
        }
        let raw = |domain| {
            let socket =
                Socket::new(domain, Type::from(libc::SOCK_RAW), Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
            // The tracing table tells our packets from the router's own by this.
            setsockopt(&socket, sockopt::Priority, &PRIORITY).unwrap();
            socket
        };
        let parts = [Part::Links, Part::Addresses, Part::Routes, Part::Rules, Part::Sysctls, Part::Sockets];
        let facts = gather(&GatherOptions::only(parts));
        Ok(Self { client, server, raw4: raw(Domain::IPV4), raw6: raw(Domain::IPV6), facts })
    }

    /// Sends an IP packet to the router over the client's cable.
    pub(crate) fn arrive(&self, dst: MacAddr, src: MacAddr, packet: &[u8]) {
        let mut frame = Vec::with_capacity(packet.len() + 14);
        frame.extend(dst.0);
        frame.extend(src.0);
        frame.extend(if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(packet);
        self.client.send(&frame);
    }

    /// Sends an IP packet to the router over the server's cable.
    pub(crate) fn arrive_from_server(&self, packet: &[u8]) {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        self.server.send(&[&SERVER_SIDE_MAC.0[..], &SERVER_MAC.0, &kind, packet].concat());
    }

    /// Sends an IP packet as the router's own.
    pub(crate) fn leave(&self, dst: IpAddr, mark: u32, packet: &[u8]) {
        let socket = if dst.is_ipv6() { &self.raw6 } else { &self.raw4 };
        setsockopt(socket, sockopt::Mark, &mark).unwrap();
        // A packet that OUTPUT drops makes this fail with EPERM; the trace tells.
        let _ = socket.send_to(packet, &SockAddr::from(SocketAddr::new(dst, 0)));
    }

    /// What the router has sent since the last time, to the client and to the server.
    pub(crate) fn drain(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        (self.client.drain(), self.server.drain())
    }
}

/// `skb->priority` of the packets that are sent as the router's own; nft writes it `7777:1`.
const PRIORITY: i32 = 0x7777_0001;
