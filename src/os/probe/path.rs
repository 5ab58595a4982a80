//! Path probes: whole packets by a raw socket, or, without privilege, by the kernel's own sockets.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use socket2::{Protocol, Socket, Type};

use super::super::sys::{self, OutMessage};
use super::run::Driver;
use super::sockets::{Role, STAMPS, Sockets, domain, prepare, scoped, widen};
use super::{ProbeError, errno_name};
use crate::probe::{Local, Packet, PathMethod, PathNeeds, PathProbe, ProbeKind, SourcePort, Transmit, bpf};
use crate::wire::IcmpFamily;

/// `IP_PMTUDISC_PROBE`, the same for IPv6: don't fragment, and leave what the kernel remembers of the path aside.
const PMTUDISC_PROBE: i32 = 3;
/// include/uapi/linux/in.h, in6.h (Linux 5.9).
const IP_RECVERR_RFC4884: i32 = 26;
const IPV6_RECVERR_RFC4884: i32 = 31;

fn whole(socket: &Socket, v6: bool) {
    // A kernel that knows neither makes a report poorer, not wrong.
    if v6 {
        let _ = sys::set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, PMTUDISC_PROBE);
        let _ = sys::set_int(socket, libc::IPPROTO_IPV6, IPV6_RECVERR_RFC4884, 1);
    } else {
        let _ = sys::set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, PMTUDISC_PROBE);
        let _ = sys::set_int(socket, libc::IPPROTO_IP, IP_RECVERR_RFC4884, 1);
    }
}

impl Sockets {
    /// Opens what these path probes need: raw sockets, or else what needs no privilege.
    pub(super) fn open_path(&mut self, needs: &[PathNeeds], unprivileged: bool) -> Result<(), ProbeError> {
        for need in needs {
            let v6 = need.v6;
            let at = usize::from(v6);
            let raw = if unprivileged { Err(ProbeError::privilege("whole packets")) } else { self.open_out(v6) };
            match raw {
                Ok(()) => {
                    if self.icmp[at].is_none() {
                        let family = if v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
                        let index = self.open_raw(v6, Role::RawIcmp(family))?;
                        let filter = sys::attach_filter(&self.channels[index], &bpf::path_icmp(v6));
                        filter.map_err(ProbeError::system("attach a filter"))?;
                        self.icmp[at] = Some(index);
                    }
                    if matches!(need.method, PathMethod::Tcp { .. }) && self.tcp[at].is_none() {
                        self.tcp[at] = Some(self.open_raw(v6, Role::RawTcp(v6))?);
                        self.path_ports(v6, 0)?;
                    }
                }
                Err(ProbeError::Privilege { .. }) => {
                    if need.method == PathMethod::Icmp && self.icmp[at].is_none() {
                        let index = self.open_icmp(v6, false, true)?;
                        whole(&self.channels[index].socket, v6);
                        self.icmp[at] = Some(index);
                    }
                }
                Err(other) => return Err(other),
            }
        }
        if !needs.is_empty() {
            await_stamps();
        }
        Ok(())
    }

    fn open_out(&mut self, v6: bool) -> Result<(), ProbeError> {
        if self.out[usize::from(v6)].is_some() {
            return Ok(());
        }
        // IPPROTO_RAW: the packet brings its own IP header, and nothing is ever received (raw(7)).
        let protocol = Protocol::from(libc::IPPROTO_RAW);
        let socket =
            Socket::new(domain(v6), Type::from(libc::SOCK_RAW), Some(protocol)).map_err(|error| {
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => ProbeError::privilege("whole packets"),
                    _ => ProbeError::system("open a raw socket")(error),
                }
            })?;
        prepare(&socket, v6, false).map_err(ProbeError::system("prepare a raw socket"))?;
        widen(&socket);
        whole(&socket, v6);
        self.out[usize::from(v6)] = Some(self.add(socket, Role::Out));
        Ok(())
    }

    /// Reserves TCP source ports up to that of `flow`, and lets their answers through.
    fn path_ports(&mut self, v6: bool, flow: u16) -> Result<(), ProbeError> {
        let have = u16::try_from(self.reserved_ports(v6).count()).unwrap_or(u16::MAX);
        if flow < have {
            return Ok(());
        }
        self.reserve(v6, flow + 1 - have)?;
        let low = self.reserved_ports(v6).min().unwrap_or(0);
        let high = self.reserved_ports(v6).max().unwrap_or(u16::MAX);
        if let Some(index) = self.tcp_channel(v6) {
            let filter = sys::attach_filter(&self.channels[index], &bpf::raw_tcp(v6, (low, high)));
            filter.map_err(ProbeError::system("attach a filter"))?;
        }
        Ok(())
    }

    /// Whether whole packets can be sent.
    pub(super) fn is_raw(&self, v6: bool) -> bool {
        self.out[usize::from(v6)].is_some()
    }
}

impl Driver {
    /// Puts a path probe into its socket's queue. The inner error is the name of a local errno.
    pub(super) fn dispatch_path(
        &mut self,
        transmit: &Transmit,
        path: PathProbe,
        interface: u32,
    ) -> Result<Result<(), String>, ProbeError> {
        let v6 = path.dst.is_ipv6();
        let raw = self.sockets.is_raw(v6);
        let lane = SourcePort::Lane(path.flow);
        let (mut channel, mut port) = (self.sockets.icmp_channel(v6), 0);
        match path.method {
            PathMethod::Icmp => {}
            PathMethod::Udp { .. } => {
                // With raw sockets it only keeps the port ours, and hears what a service says.
                let (index, bound, new) = match self.sockets.udp_channel(v6, Some(path.src), lane) {
                    Ok(found) => found,
                    Err(error) => return Ok(Err(errno_name(&error))),
                };
                if new {
                    self.watch(index)?;
                    whole(&self.sockets.channels[index].socket, v6);
                    if raw {
                        let (level, name) = if v6 {
                            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
                        } else {
                            (libc::IPPROTO_IP, libc::IP_RECVERR)
                        };
                        let _ = sys::set_int(&self.sockets.channels[index], level, name, 0);
                    }
                }
                (channel, port) = (Some(index), bound);
            }
            PathMethod::Tcp { .. } if raw => {
                self.sockets.path_ports(v6, path.flow)?;
                port = self.sockets.tcp_port(v6, lane);
            }
            PathMethod::Tcp { .. } => return Ok(self.open_connection(transmit)),
        }
        let address = SocketAddr::new(path.src, port);
        let local = if raw { Local::Whole(address) } else { Local::Address(address) };
        let message = match self.engine.prepare(transmit, local) {
            Packet::Whole { dst, bytes } => {
                channel = self.sockets.out[usize::from(v6)];
                OutMessage::to(scoped(dst, 0, interface), bytes)
            }
            Packet::Ip { dst, bytes, src, .. } => {
                let mut message = OutMessage::to(scoped(dst, 0, interface), bytes);
                message.packet_info(v6, src, interface);
                message.ttl(v6, path.ttl);
                message.tos(v6, path.tos);
                message
            }
            Packet::Udp { dst, payload, .. } => {
                let mut message = OutMessage::to(scoped(dst.ip(), dst.port(), interface), payload);
                message.ttl(v6, path.ttl);
                message.tos(v6, path.tos);
                message
            }
            Packet::Connect { .. } | Packet::Frame(_) => return Ok(Err("EINVAL".to_owned())),
        };
        let Some(channel) = channel else { return Ok(Err("ENOTSOCK".to_owned())) };
        self.sockets.channels[channel].out.push((transmit.token, message));
        Ok(Ok(()))
    }

    /// The stamps of sent packets come by another socket than the answers: they are read first.
    pub(super) fn read_stamps(&mut self) {
        for index in self.sockets.out.into_iter().flatten() {
            self.receive(index);
        }
    }
}

/// The path probe behind a try, where it is one.
pub(super) fn of(kind: &ProbeKind) -> Option<PathProbe> {
    if let ProbeKind::Path(path) = kind { Some(*path) } else { None }
}

/// The address this host would send from to `dst`, out of `via` where named; nothing is sent.
///
/// # Errors
/// The errno's name, where there is no way.
pub fn source_address(dst: std::net::IpAddr, via: Option<&str>) -> Result<std::net::IpAddr, String> {
    let index = match via {
        Some(via) => nix::net::if_::if_nametoindex(via).map_err(|errno| format!("{errno:?}"))?,
        None => 0,
    };
    Sockets::default().source_for(dst, index)
}

/// The MTU of the interface that has this address, or of the one named; `None` where it cannot be found.
pub fn interface_mtu(address: std::net::IpAddr, via: Option<&str>) -> Option<u16> {
    let has = |storage: &nix::sys::socket::SockaddrStorage| match address {
        std::net::IpAddr::V4(v4) => storage.as_sockaddr_in().is_some_and(|one| one.ip() == v4),
        std::net::IpAddr::V6(v6) => storage.as_sockaddr_in6().is_some_and(|one| one.ip() == v6),
    };
    let name = if let Some(via) = via {
        via.to_owned()
    } else {
        let mut all = nix::ifaddrs::getifaddrs().ok()?;
        all.find(|one| one.address.as_ref().is_some_and(has))?.interface_name
    };
    let link = super::super::links::Links::open().ok()?.find(&name).ok()?;
    // Loopback's 65536 is more than an IP packet can have.
    Some(u16::try_from(link.mtu?).unwrap_or(u16::MAX))
}

/// Asks the kernel to stamp what arrives. It begins to some time later (`net_enable_timestamp` leaves the work to a
/// queue): who asks first thing has it by the time that its probes are ready.
pub fn begin_stamps() {
    let _ = stamp_socket();
}

fn stamp_socket() -> Option<&'static Socket> {
    static SOCKET: OnceLock<Option<Socket>> = OnceLock::new();
    let open = || -> std::io::Result<Socket> {
        let socket =
            Socket::new(domain(false), Type::from(libc::SOCK_DGRAM | libc::SOCK_NONBLOCK), Some(Protocol::UDP))?;
        sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        Ok(socket)
    };
    SOCKET.get_or_init(|| open().ok()).as_ref()
}

/// Waits until the kernel stamps what arrives: what came before would look as if it had taken longer.
///
/// Known by a datagram to ourselves over loopback; where that is not to be had, nothing is waited for.
pub(super) fn await_stamps() {
    const PATIENCE: Duration = Duration::from_millis(4);
    let Some(socket) = stamp_socket() else { return };
    let wait = || -> std::io::Result<()> {
        let own = socket.local_addr()?;
        let mut inbox = sys::Inbox::for_packets(1);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            socket.send_to(&[0], &own)?;
            let count = inbox.receive(socket.as_fd(), false)?;
            if (0..count).any(|at| inbox.get(at).stamp_ns.is_some()) {
                break;
            }
            let _ = inbox.receive(socket.as_fd(), true);
            std::thread::yield_now();
        }
        Ok(())
    };
    let _ = wait();
}
