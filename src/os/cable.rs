//! A cable made of a process: frames are read from one link and sent on another, when and if
//! [`crate::lab::impair`] says. Packet sockets (packet(7)) with the virtio header, so that a frame whose
//! checksum the sender left to its card stays valid on the way.
#![allow(unsafe_code, reason = "binding a packet socket and its options have no safe wrapper")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Socket, Type};

/// A frame's fate: when it arrives, if it does, and whether twice. Asked with the time since the cable
/// was laid and the frame's length in octets.
pub type Fate = Box<dyn FnMut(Duration, usize) -> Vec<Duration>>;

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), which stands before each frame.
const VIRTIO_HEADER: usize = 10;
/// Larger than any frame, a segmentation offload's included.
const LARGEST: usize = 1 << 17;
/// Not in libc: packet(7), since Linux 4.20.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Frames taken from one side before the other has its turn.
const BURST: usize = 64;

fn option(socket: &Socket, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and length describe a c_int that outlives the call; the descriptor is open.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A packet socket on the link with this index: every frame that arrives there, and nothing else.
fn open(index: u32) -> io::Result<Socket> {
    // Protocol 0 receives nothing until it is bound, so no other link's frame gets in.
    let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), None)?;
    socket.set_nonblocking(true)?;
    option(&socket, libc::PACKET_VNET_HDR)?;
    option(&socket, PACKET_IGNORE_OUTGOING)?;
    let _ = socket.set_recv_buffer_size(4 << 20);
    // SAFETY: sockaddr_ll is a plain struct of integers, for which all zeroes is a value.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    address.sll_ifindex = index.cast_signed();
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and length describe a sockaddr_ll that outlives the call; the descriptor is open.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// A frame under way: when it arrives, its number, the side it arrives at, its octets.
type UnderWay = Reverse<(Duration, u64, usize, Vec<u8>)>;

/// Carries frames between the links `ends` (by index) of the calling thread's namespace, for ever.
/// `fates` are asked for each direction, the first for frames that arrive at the first link.
///
/// # Errors
/// When the sockets cannot be had (CAP_NET_RAW), or a link goes away.
pub fn carry(ends: [u32; 2], fates: [Fate; 2], ready: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let [first, second] = ends;
    let mut sockets = [open(first)?, open(second)?];
    let mut fates = fates;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (token, socket) in (0..).zip(&sockets) {
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token))?;
    }
    epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 2))?;
    ready()?;

    let start = Instant::now();
    let mut under_way: BinaryHeap<UnderWay> = BinaryHeap::new();
    let mut number = 0;
    let mut buffer = vec![0; LARGEST];
    loop {
        let mut events = [EpollEvent::empty(); 3];
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            let Ok(side) = usize::try_from(event.data()) else { continue };
            if side >= sockets.len() {
                let _ = timer.wait();
                continue;
            }
            for _ in 0..BURST {
                let length = match sockets[side].read(&mut buffer) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The link is down for now.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => break,
                    Err(error) => return Err(error),
                };
                for time in fates[side](start.elapsed(), length.saturating_sub(VIRTIO_HEADER)) {
                    number += 1;
                    under_way.push(Reverse((time, number, 1 - side, buffer[..length].to_vec())));
                }
            }
        }
        deliver(&mut under_way, &mut sockets, start.elapsed());
        if let Some(Reverse((time, ..))) = under_way.peek() {
            // Zero would disarm the timer.
            let left = time.saturating_sub(start.elapsed()).max(Duration::from_nanos(1));
            timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        }
    }
}

fn deliver(under_way: &mut BinaryHeap<UnderWay>, sockets: &mut [Socket; 2], now: Duration) {
    while under_way.peek().is_some_and(|Reverse((time, ..))| *time <= now) {
        if let Some(Reverse((_, _, side, frame))) = under_way.pop() {
            // A frame that a link does not take is a frame lost, as on any cable.
            let _ = sockets[side].write(&frame);
        }
    }
}
