//! The sockets of a run, but those of connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::super::sys::{self, OutMessage};
use super::ProbeError;
use crate::probe::{Moment, ProbeKind, ProbeSpec, SourcePort, Token};
use crate::wire::IcmpFamily;

/// `SOF_TIMESTAMPING_{TX_SOFTWARE, RX_SOFTWARE, SOFTWARE}`: stamps by the kernel, not by the device.
pub(super) const STAMPS: i32 = (1 << 1) | (1 << 3) | (1 << 4);
/// Enough for some thousands of packets.
const BUFFER: i32 = 8 << 20;

/// What a socket carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// Raw ICMP: echo, and errors about TCP segments.
    RawIcmp(IcmpFamily),
    /// ICMP datagram socket.
    Ping(IcmpFamily),
    /// Raw TCP; the flag is IPv6.
    RawTcp(bool),
    /// UDP on this local port.
    Udp(u16),
    /// A packet socket on this interface.
    Link(String),
    /// Whole IP packets, outwards only.
    Out,
}

/// A socket and what waits to leave by it.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) socket: Socket,
    pub(super) role: Role,
    pub(super) out: Vec<(Token, OutMessage)>,
    /// The kernel's drop counter as last seen.
    pub(super) drops: u32,
    /// Since when the kernel has taken nothing of `out`.
    pub(super) stuck: Option<Moment>,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// All channels of a run, and how to find them.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) channels: Vec<Channel>,
    pub(super) icmp: [Option<usize>; 2],
    pub(super) tcp: [Option<usize>; 2],
    /// For whole packets.
    pub(super) out: [Option<usize>; 2],
    udp: HashMap<(bool, Option<IpAddr>, SourcePort), usize>,
    links: HashMap<(String, u16), usize>,
    /// Bound and never used: they keep other programs off our TCP source ports.
    reserved: [Vec<(Socket, u16)>; 2],
    sources: HashMap<(IpAddr, u32), Result<IpAddr, String>>,
    /// Identifiers the kernel gave ICMP datagram sockets.
    pub(super) kernel_echo_id: [Option<u16>; 2],
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

pub(super) fn unspecified(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

pub(super) fn domain(v6: bool) -> Domain {
    if v6 { Domain::IPV6 } else { Domain::IPV4 }
}

/// What every socket gets: no blocking, stamps, TTL of arrivals, a count of what was dropped. None of these is
/// vital: a kernel without one makes a report poorer, not wrong.
pub(super) fn prepare(socket: &Socket, v6: bool, error_queue: bool) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let set = |level, name, value| {
        let _ = sys::set_int(socket, level, name, value);
    };
    set(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS);
    set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
    set(libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
    if v6 {
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1);
        set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, i32::from(error_queue));
    } else {
        set(libc::IPPROTO_IP, libc::IP_RECVTTL, 1);
        set(libc::IPPROTO_IP, libc::IP_RECVERR, i32::from(error_queue));
    }
    Ok(())
}

/// The largest buffers that the kernel grants. Packets that wait for a neighbour's address fill the sending one.
pub(super) fn widen(socket: &Socket) {
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if sys::set_int(socket, libc::SOL_SOCKET, force, BUFFER).is_err() {
            let _ = sys::set_int(socket, libc::SOL_SOCKET, plain, BUFFER);
        }
    }
}

impl Sockets {
    /// Opens what these probes need; nothing is sent.
    pub(super) fn open(specs: &[ProbeSpec], unprivileged: bool) -> Result<Self, ProbeError> {
        let mut sockets = Self::default();
        for v6 in [false, true] {
            let of_family = |kind: &ProbeKind| kind.dst().is_ipv6() == v6;
            let echo = specs.iter().any(|s| of_family(&s.kind) && matches!(s.kind, ProbeKind::IcmpEcho { .. }));
            let segment = specs.iter().any(|s| of_family(&s.kind) && matches!(s.kind, ProbeKind::TcpSyn { .. }));
            if segment {
                if unprivileged {
                    return Err(ProbeError::privilege("sending single TCP segments"));
                }
                sockets.tcp[usize::from(v6)] = Some(sockets.open_raw(v6, Role::RawTcp(v6))?);
            }
            if echo || segment {
                sockets.icmp[usize::from(v6)] = Some(sockets.open_icmp(v6, segment, unprivileged)?);
            }
        }
        Ok(sockets)
    }

    pub(super) fn add(&mut self, socket: Socket, role: Role) -> usize {
        self.channels.push(Channel { socket, role, out: Vec::new(), drops: 0, stuck: None });
        self.channels.len() - 1
    }

    pub(super) fn open_raw(&mut self, v6: bool, role: Role) -> Result<usize, ProbeError> {
        let (protocol, what) = match (&role, v6) {
            (Role::RawTcp(_), _) => (Protocol::TCP, "sending single TCP segments"),
            (_, false) => (Protocol::ICMPV4, "ICMP echo"),
            (_, true) => (Protocol::ICMPV6, "ICMPv6 echo"),
        };
        let socket = Socket::new(domain(v6), Type::from(libc::SOCK_RAW), Some(protocol)).map_err(|error| {
            if is_denied(&error) { ProbeError::privilege(what) } else { ProbeError::system("open a raw socket")(error) }
        })?;
        prepare(&socket, v6, false).map_err(ProbeError::system("prepare a raw socket"))?;
        widen(&socket);
        Ok(self.add(socket, role))
    }

    /// Raw where allowed; else, for echo alone, the kernel's own ping socket (icmp(7), `ping_group_range`).
    pub(super) fn open_icmp(&mut self, v6: bool, raw_only: bool, unprivileged: bool) -> Result<usize, ProbeError> {
        let family = if v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
        let denied = if unprivileged {
            ProbeError::privilege("ICMP echo")
        } else {
            match self.open_raw(v6, Role::RawIcmp(family)) {
                Err(error @ ProbeError::Privilege { .. }) if !raw_only => error,
                other => return other,
            }
        };
        let protocol = if v6 { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        let socket = match Socket::new(domain(v6), Type::DGRAM, Some(protocol)) {
            Ok(socket) => socket,
            Err(error) if is_denied(&error) => {
                return Err(match denied {
                    ProbeError::Privilege { what, hint, .. } => ProbeError::Privilege {
                        what,
                        missing: "CAP_NET_RAW (or a group within net.ipv4.ping_group_range)",
                        hint,
                    },
                    other @ ProbeError::System { .. } => other,
                });
            }
            Err(error) => return Err(ProbeError::system("open an ICMP datagram socket")(error)),
        };
        prepare(&socket, v6, true).map_err(ProbeError::system("prepare an ICMP datagram socket"))?;
        widen(&socket);
        socket
            .bind(&SocketAddr::new(unspecified(v6), 0).into())
            .map_err(ProbeError::system("bind an ICMP datagram socket"))?;
        let local = socket.local_addr().map_err(ProbeError::system("name an ICMP datagram socket"))?;
        self.kernel_echo_id[usize::from(v6)] = local.as_socket().map(|local| local.port());
        Ok(self.add(socket, Role::Ping(family)))
    }

    /// Takes `count` source ports for TCP segments out of other programs' reach.
    pub(super) fn reserve(&mut self, v6: bool, count: u16) -> Result<(), ProbeError> {
        for _ in 0..count {
            let bound = Socket::new(domain(v6), Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
                socket.bind(&SocketAddr::new(unspecified(v6), 0).into())?;
                let port = socket.local_addr()?.as_socket().map_or(0, |local| local.port());
                Ok((socket, port))
            });
            match bound {
                Ok(bound) => self.reserved[usize::from(v6)].push(bound),
                // Fewer ports than wished for are used in turn.
                Err(_) if !self.reserved[usize::from(v6)].is_empty() => break,
                Err(error) => return Err(ProbeError::system("reserve a source port")(error)),
            }
        }
        Ok(())
    }

    /// The reserved TCP ports, v4 then v6.
    pub(super) fn reserved_ports(&self, v6: bool) -> impl Iterator<Item = u16> {
        self.reserved[usize::from(v6)].iter().map(|(_, port)| *port)
    }

    pub(super) fn icmp_channel(&self, v6: bool) -> Option<usize> {
        self.icmp[usize::from(v6)]
    }

    pub(super) fn tcp_channel(&self, v6: bool) -> Option<usize> {
        self.tcp[usize::from(v6)]
    }

    /// The reserved port of a lane.
    pub(super) fn tcp_port(&self, v6: bool, source: SourcePort) -> u16 {
        let ports = &self.reserved[usize::from(v6)];
        match source {
            SourcePort::Fixed(port) => port,
            SourcePort::Lane(lane) if !ports.is_empty() => ports[usize::from(lane) % ports.len()].1,
            _ => 0,
        }
    }

    /// The UDP socket of a lane, opened on first use; errno names of failing are results. The flag says whether
    /// it is new (and so not yet watched).
    pub(super) fn udp_channel(
        &mut self,
        v6: bool,
        src: Option<IpAddr>,
        source: SourcePort,
    ) -> Result<(usize, u16, bool), io::Error> {
        if let Some(index) = self.udp.get(&(v6, src, source)) {
            let Role::Udp(port) = self.channels[*index].role else { return Ok((*index, 0, false)) };
            return Ok((*index, port, false));
        }
        let socket = Socket::new(domain(v6), Type::DGRAM, Some(Protocol::UDP))?;
        prepare(&socket, v6, true)?;
        let wanted = if let SourcePort::Fixed(port) = source { port } else { 0 };
        widen(&socket);
        if v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SocketAddr::new(src.unwrap_or(unspecified(v6)), wanted).into())?;
        let port = socket.local_addr()?.as_socket().map_or(0, |local| local.port());
        let index = self.add(socket, Role::Udp(port));
        self.udp.insert((v6, src, source), index);
        Ok((index, port, true))
    }

    /// The packet socket of an interface and EtherType, opened on first use.
    pub(super) fn link_channel(
        &mut self,
        interface: &str,
        index: u32,
        ethertype: u16,
    ) -> Result<(usize, bool), ProbeError> {
        if let Some(channel) = self.links.get(&(interface.to_owned(), ethertype)) {
            return Ok((*channel, false));
        }
        let socket = super::link::open(index, ethertype)?;
        let channel = self.add(socket, Role::Link(interface.to_owned()));
        self.links.insert((interface.to_owned(), ethertype), channel);
        Ok((channel, true))
    }

    /// The address the kernel would send from, found by connecting a datagram socket, which sends nothing.
    ///
    /// The errno's name where there is no way to that destination.
    pub(super) fn source_for(&mut self, dst: IpAddr, interface: u32) -> Result<IpAddr, String> {
        let find = || -> io::Result<IpAddr> {
            let socket = Socket::new(domain(dst.is_ipv6()), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_broadcast(true)?;
            if let Some(index) = i32::try_from(interface).ok().filter(|index| *index != 0) {
                sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, index)?;
            }
            socket.connect(&scoped(dst, 9, interface).into())?;
            let local = socket.local_addr()?.as_socket();
            Ok(local.map_or(unspecified(dst.is_ipv6()), |local| local.ip()))
        };
        self.sources
            .entry((dst, interface))
            .or_insert_with(|| find().map_err(|error| super::errno_name(&error)))
            .clone()
    }
}

/// An address with a scope where it needs one.
pub(super) fn scoped(address: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => {
            std::net::SocketAddrV6::new(v6, port, 0, interface).into()
        }
        _ => SocketAddr::new(address, port),
    }
}
