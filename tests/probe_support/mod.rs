//! Namespaces for tests: made here, leading nowhere, gone with their thread.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "helpers of tests")]
#![allow(clippy::unused_self, reason = "having a sandbox is the proof that one was made")]

pub mod ask;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use reachwhy::os::netlink::Netlink;
use reachwhy::os::netns::NetNs;
use reachwhy::wire::MacAddr;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;

/// The network namespace of the calling thread, fresh.
pub struct Sandbox {
    pub home: NetNs,
}

/// Runs a test in its own thread and namespace, with loopback up. Says loudly when this machine does not allow it.
pub fn sandboxed(test: impl FnOnce(&Sandbox) + Send + 'static) {
    let outcome = std::thread::spawn(move || {
        let home = match NetNs::unshare() {
            Ok(home) => home,
            Err(error) => {
                assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "kernel tests are required: {error}");
                eprintln!("SKIPPED: {error}");
                return;
            }
        };
        let sandbox = Sandbox { home };
        sandbox.assert_closed();
        begin();
        stamping();
        test(&sandbox);
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Sandbox {
    /// Stops the test unless every interface here is loopback or a veth that tests make (`t…`): nothing sent from
    /// here can reach a real network.
    pub fn assert_closed(&self) {
        let names: Vec<String> =
            nix::net::if_::if_nameindex().unwrap().iter().map(|one| one.name().to_string_lossy().into()).collect();
        assert!(names.iter().all(|name| name == "lo" || name.starts_with('t')), "not a closed namespace: {names:?}");
        assert!(names.iter().any(|name| name == "lo"));
    }

    /// Another closed namespace; the calling thread stays at home.
    pub fn neighbour(&self) -> NetNs {
        let other = NetNs::unshare().unwrap();
        begin();
        self.home.enter().unwrap();
        other
    }

    /// A cable from `name` here to `peer` there.
    pub fn cable(&self, name: &str, peer: &str, there: &NetNs) {
        assert!(name.starts_with('t') && peer.starts_with('t'));
        let mut end = LinkMessage::default();
        end.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        end.attributes.push(LinkAttribute::NetNsFd(there.file().as_raw_fd()));
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end))),
        ]));
        order(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
        up(name);
        there.run(|| up(peer)).unwrap();
        running(name);
        there.run(|| running(peer)).unwrap();
    }

    /// This host (10.9.0.1), a router (10.9.0.2, 10.9.1.1) and a host behind it (10.9.1.2), with default routes towards
    /// the router, IPv6 alike (fd09:: and fd0a::). Gives router and host.
    pub fn chain(&self) -> (NetNs, NetNs) {
        let router = self.pair();
        let far = self.neighbour();
        router
            .run(|| {
                Sandbox { home: NetNs::current().unwrap() }.cable("t2", "t3", &far);
                address("t2", "10.9.1.1".parse().unwrap(), 24);
                address("t2", "fd0a::1".parse().unwrap(), 64);
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
                // Several errors a second are asked of this router.
                // (A rate limit of 0 would empty the bucket that "no route" errors draw on: icmpv4_xrlim_allow, ip_error.)
                std::fs::write("/proc/sys/net/ipv4/icmp_ratemask", "0").unwrap();
                std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").unwrap();
                std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            })
            .unwrap();
        far.run(|| {
            address("t3", "10.9.1.2".parse().unwrap(), 24);
            address("t3", "fd0a::2".parse().unwrap(), 64);
            default_route("10.9.1.1".parse().unwrap());
            default_route("fd0a::1".parse().unwrap());
        })
        .unwrap();
        default_route("10.9.0.2".parse().unwrap());
        default_route("fd09::2".parse().unwrap());
        (router, far)
    }

    /// A LAN of this host (10.9.0.1/24, fd09::1/64 on `t0`) and another (.2) by one cable.
    pub fn pair(&self) -> NetNs {
        let other = self.neighbour();
        self.cable("t0", "t1", &other);
        for (at, host) in [(None, 1u16), (Some(&other), 2)] {
            let give = || {
                let name = if host == 1 { "t0" } else { "t1" };
                address(name, IpAddr::V4(Ipv4Addr::new(10, 9, 0, u8::try_from(host).unwrap())), 24);
                address(name, format!("fd09::{host}").parse().unwrap(), 64);
            };
            match at {
                None => give(),
                Some(there) => there.run(give).unwrap(),
            }
        }
        other
    }
}

/// Duplicate detection would hold addresses back for seconds.
fn begin() {
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
    up("lo");
}

fn order(message: RouteNetlinkMessage, flags: u16) {
    Netlink::open(0).unwrap().request("test set-up", message, flags).unwrap();
}

pub fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

pub fn up(name: &str) {
    let mut link = LinkMessage::default();
    link.header.index = index(name);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    order(RouteNetlinkMessage::SetLink(link), 0);
}

/// Until the kernel has noticed the carrier (linkwatch), a new link drops what is sent.
fn running(name: &str) {
    use netlink_packet_route::link::State;
    let runs = || {
        let mut question = LinkMessage::default();
        question.header.index = index(name);
        let answers =
            Netlink::open(0).unwrap().request("test set-up", RouteNetlinkMessage::GetLink(question), 0).unwrap();
        answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => link.attributes.contains(&LinkAttribute::OperState(State::Up)),
            _ => false,
        })
    };
    for _ in 0..300 {
        if runs() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{name} has no carrier");
}

/// The kernel begins to stamp arriving packets some time after the first socket asks for it (`net_enable_timestamp`
/// is deferred), so a test that looks at stamps asks well before.
fn stamping() {
    static ONCE: std::sync::OnceLock<std::net::UdpSocket> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimestamp, &true).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        socket
    });
}

pub fn mac(name: &str) -> MacAddr {
    let text = nix::ifaddrs::getifaddrs()
        .unwrap()
        .find_map(|one| (one.interface_name == name).then(|| one.address?.as_link_addr()?.addr()).flatten());
    MacAddr(text.unwrap())
}

/// IFA_F_NODAD: usable at once.
pub fn address(name: &str, address: IpAddr, prefix: u8) {
    let mut message = AddressMessage::default();
    message.header.index = index(name);
    message.header.prefix_len = prefix;
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.flags = netlink_packet_route::address::AddressHeaderFlags::Nodad;
    message.attributes.push(AddressAttribute::Address(address));
    message.attributes.push(AddressAttribute::Local(address));
    order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    if address.is_ipv6() {
        // The kernel joins the address's solicited-node group later, by a work queue (`addrconf_dad_begin`).
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

pub fn bridge(name: &str) {
    assert!(name.starts_with('t'));
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    order(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
    up(name);
}

pub fn enslave(port: &str, bridge: &str) {
    let mut link = LinkMessage::default();
    link.header.index = index(port);
    link.attributes.push(LinkAttribute::Controller(index(bridge)));
    order(RouteNetlinkMessage::SetLink(link), 0);
}

pub fn default_route(gateway: IpAddr) {
    use netlink_packet_route::route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    };
    let mut route = RouteMessage::default();
    route.header.address_family = if gateway.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Gateway(match gateway {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }));
    order(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL);
}

pub fn link_local(name: &str) -> IpAddr {
    let found = nix::ifaddrs::getifaddrs().unwrap().find_map(|one| {
        let address = one.address?.as_sockaddr_in6()?.ip();
        (one.interface_name == name && address.is_unicast_link_local()).then_some(address)
    });
    found.unwrap().into()
}
