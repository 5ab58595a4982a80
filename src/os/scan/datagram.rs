//! Datagrams without privilege: one socket a family and try; errors come by its error queue, which names the offender.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};

use socket2::{Protocol, Socket, Type};

use super::super::sys::{self, ExtendedError, Inbox, OutMessage};
use super::{Clock, Request, ScanError, Wire, domain, errno, is_busy, scoped, system, unspecified, widen};
use crate::port::scan::{Aim, Answer, Reply, Scan, Shot};
use crate::probe::payload;

/// Tries that have a socket of their own, and so can be told apart.
const LANES: u8 = 4;
const STAMPS: i32 = (1 << 3) | (1 << 4);
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const BY_ICMP: [u8; 2] = [2, 3];
/// What is kept of an answer.
const KEPT: usize = 64;

pub(super) struct Datagrams {
    hosts: Vec<(IpAddr, u32)>,
    ports: Vec<u16>,
    host_of: HashMap<IpAddr, u32>,
    port_of: HashMap<u16, u32>,
    /// IPv4's lanes, then IPv6's.
    lanes: Vec<Socket>,
    inbox: Inbox,
}

impl Datagrams {
    pub(super) fn open(request: &Request) -> Result<Self, ScanError> {
        let mut lanes = Vec::new();
        for v6 in [false, true] {
            for _ in 0..LANES {
                match lane(v6) {
                    Ok(socket) => lanes.push(socket),
                    // Without IPv6 in this kernel there is no such host either: sending says so.
                    Err(_) if v6 => break,
                    Err(error) => return Err(system("open a datagram socket")(error)),
                }
            }
        }
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Ok(Self {
            host_of: request.hosts.iter().enumerate().map(|(at, host)| (host.0, place(at))).collect(),
            port_of: request.ports.iter().enumerate().map(|(at, port)| (*port, place(at))).collect(),
            hosts: request.hosts.clone(),
            ports: request.ports.clone(),
            lanes,
            inbox: Inbox::new(),
        })
    }

    fn lane_of(v6: bool, number: u8) -> usize {
        usize::from(v6) * usize::from(LANES) + usize::from((number.max(1) - 1) % LANES)
    }
}

fn lane(v6: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(domain(v6), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if v6 {
        socket.set_only_v6(true)?;
        sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        let _ = sys::set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1);
    } else {
        sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        let _ = sys::set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL, 1);
    }
    let _ = sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS);
    let _ = sys::set_int(&socket, libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
    widen(&socket);
    socket.bind(&SocketAddr::new(unspecified(v6), 0).into())?;
    Ok(socket)
}

impl Wire for Datagrams {
    fn send(&mut self, shots: &[Shot], scan: &mut Scan, clock: Clock) -> Result<usize, ScanError> {
        let Some(shot) = shots.first() else { return Ok(0) };
        let (Aim::Port(place), Some((dst, link))) = (shot.aim, self.hosts.get(shot.host as usize)) else {
            return Ok(1);
        };
        let Some(port) = self.ports.get(place as usize) else { return Ok(1) };
        let Some(socket) = self.lanes.get(Self::lane_of(dst.is_ipv6(), shot.number)) else {
            scan.refused(*shot, "ENETUNREACH", clock.now());
            return Ok(1);
        };
        let data = payload::for_udp_port(*port).unwrap_or_default().to_vec();
        let message = OutMessage::to(scoped(*dst, *port, *link), data);
        // An error that waits makes a send fail which has nothing to do with it; a second attempt is the real one.
        for attempt in 0..8 {
            scan.left(*shot, clock.now());
            match sys::send_batch(socket.as_fd(), std::slice::from_ref(&message)) {
                Ok(_) => return Ok(1),
                Err(error) if is_busy(&error) => return Ok(0),
                Err(error)
                    if attempt == 7
                        || matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENETUNREACH)) && attempt > 0 =>
                {
                    scan.refused(*shot, errno(&error), clock.now());
                }
                Err(_) => {
                    // Sending took the pending error away; its record stays in the queue and is read later.
                    let _ = socket.take_error();
                    continue;
                }
            }
            break;
        }
        Ok(1)
    }

    fn receive(&mut self, scan: &mut Scan, clock: Clock) -> Result<bool, ScanError> {
        let mut any = false;
        for (at, socket) in self.lanes.iter().enumerate() {
            let number = u8::try_from(at % usize::from(LANES) + 1).unwrap_or(1);
            for queue in [true, false] {
                // An error reported by the plain queue is one that the error queue has told in full.
                let got = self.inbox.receive(socket.as_fd(), queue).unwrap_or(0);
                for at in 0..got {
                    let message = self.inbox.get(at);
                    let Some(peer) = message.peer else { continue };
                    let (by, answer) = match (queue, message.error) {
                        (false, _) => {
                            (peer.ip(), Answer::Data(message.bytes[..message.bytes.len().min(KEPT)].to_vec()))
                        }
                        (true, Some(ExtendedError { origin, icmp_type: kind, code, offender, .. }))
                            if BY_ICMP.contains(&origin) =>
                        {
                            (offender.unwrap_or(peer.ip()), Answer::Icmp { v6: origin == 3, kind, code })
                        }
                        _ => continue,
                    };
                    let (Some(host), Some(port)) = (self.host_of.get(&peer.ip()), self.port_of.get(&peer.port()))
                    else {
                        continue;
                    };
                    any = true;
                    let at = clock.of_stamp(message.stamp_ns);
                    let reply = Reply { number: Some(number), by, ttl: message.ttl, answer };
                    scan.heard(*host, Aim::Port(*port), reply, at);
                }
            }
        }
        Ok(any)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.lanes.iter().map(|socket| socket.as_fd()).collect()
    }
}
