//! A receive ring shared with the kernel (packet(7), `TPACKET_V2`; Documentation/networking/packet_mmap.rst).
//!
//! A ring holds thousands of frames whatever the socket's receive buffer may be, which an unprivileged
//! user cannot widen; its frames are stamped as they arrive, without the late start of `SO_TIMESTAMP`.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;
use crate::probe::bpf::Instruction;

/// Octets for each frame, header included: about 940 are kept of a packet.
const FRAME: usize = 1024;
const BLOCK: usize = 1 << 16;
/// First attempt; halved while the kernel has no such memory.
const BLOCKS: u32 = 64;
const PACKET_RX_RING: i32 = 5;
const PACKET_STATISTICS: i32 = 6;
const PACKET_VERSION: i32 = 10;
const TPACKET_V2: i32 = 1;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// `struct tpacket2_hdr` is 32 octets, then comes `struct sockaddr_ll`.
const LINK_ADDRESS: usize = 32;

/// One frame as the kernel left it in the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RingFrame {
    pub(super) at_ns: u64,
    pub(super) interface: u32,
    /// `ARPHRD_*`.
    pub(super) hardware: u16,
    /// `PACKET_HOST`, ….
    pub(super) pkttype: u8,
    pub(super) ethertype: u16,
    /// From the link header on.
    pub(super) bytes: Vec<u8>,
    /// Where the network header begins in `bytes`.
    pub(super) network: usize,
    pub(super) orig_len: u32,
    /// The tag that the kernel took out: TPID, TCI.
    pub(super) vlan: Option<(u16, u16)>,
}

/// One frame as it lies in the ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenFrame<'a> {
    pub(super) at_ns: u64,
    /// `ARPHRD_*`.
    pub(super) hardware: u16,
    /// `PACKET_HOST`, ….
    pub(super) pkttype: u8,
    /// From the link header on.
    pub(super) bytes: &'a [u8],
    /// Where the network header begins in `bytes`.
    pub(super) network: usize,
    pub(super) orig_len: u32,
}

/// A packet socket with its ring.
#[derive(Debug)]
pub(super) struct Ring {
    socket: Socket,
    map: NonNull<libc::c_void>,
    length: usize,
    frames: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is reached through `&mut self` only.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a ring that hears one interface (0: all) through a filter.
    pub(super) fn open(interface: u32, filter: &[Instruction]) -> io::Result<Self> {
        Self::open_sized(interface, Some(filter), BLOCKS)
    }

    /// As [`Self::open`], with room for so many blocks if the kernel has them; without a filter all is heard.
    pub(super) fn open_sized(interface: u32, filter: Option<&[Instruction]>, most: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing until it is bound, so that no frame passes before the filter is there.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        sys::set_int(&socket, libc::SOL_PACKET, PACKET_VERSION, TPACKET_V2)?;
        if let Some(filter) = filter {
            sys::attach_filter(&socket, filter)?;
        }
        let mut blocks = most;
        loop {
            let words = [BLOCK, blocks as usize, FRAME, blocks as usize * (BLOCK / FRAME)];
            let request: Vec<u8> =
                words.iter().flat_map(|word| u32::try_from(*word).unwrap_or(0).to_ne_bytes()).collect();
            match sys::set_bytes(&socket, libc::SOL_PACKET, PACKET_RX_RING, &request) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && blocks > 1 => blocks /= 2,
                Err(error) => return Err(error),
            }
        }
        let length = BLOCK * blocks as usize;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of exactly the ring's length.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map).ok_or(io::ErrorKind::InvalidData)?;
        let ring = Self { socket, map, length, frames: length / FRAME, next: 0 };
        // ETH_P_ALL: both directions.
        sys::bind_link(&ring.socket, interface, 3)?;
        Ok(ring)
    }

    /// The next frame, if there is one.
    pub(super) fn pop(&mut self) -> Option<RingFrame> {
        // SAFETY: `next < frames`, so the frame lies within the mapping, which lives as long as `self`; frames are
        // aligned to FRAME. The status word is the hand-over point and is only accessed atomically.
        let (base, status) = unsafe {
            let base = self.map.as_ptr().cast::<u8>().add(self.next * FRAME);
            (base, AtomicU32::from_ptr(base.cast()))
        };
        let state = status.load(Ordering::Acquire);
        if state & TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: with TP_STATUS_USER set the kernel leaves the frame's FRAME octets alone until the status is
        // given back below; the acquiring load orders these reads behind its writes.
        let frame = unsafe { std::slice::from_raw_parts(base, FRAME) };
        let read = parse(frame, state);
        status.store(0, Ordering::Release);
        self.next = (self.next + 1) % self.frames;
        // A frame that makes no sense is skipped; the next call goes on behind it.
        Some(read)
    }

    /// The next frame, where it lies; the kernel gets its place back when `look` returns. False: there is none.
    pub(super) fn visit(&mut self, look: impl FnOnce(&SeenFrame<'_>)) -> bool {
        // SAFETY: as in `pop`.
        let (base, status) = unsafe {
            let base = self.map.as_ptr().cast::<u8>().add(self.next * FRAME);
            (base, AtomicU32::from_ptr(base.cast()))
        };
        if status.load(Ordering::Acquire) & TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: as in `pop`; the slice is gone when `look` returns, before the status is given back.
        let frame = unsafe { std::slice::from_raw_parts(base, FRAME) };
        look(&seen(frame));
        status.store(0, Ordering::Release);
        self.next = (self.next + 1) % self.frames;
        true
    }

    /// Frames dropped for want of room since the last call (`PACKET_STATISTICS`).
    pub(super) fn take_drops(&self) -> u64 {
        let counts = sys::get_bytes::<8>(&self.socket, libc::SOL_PACKET, PACKET_STATISTICS).unwrap_or_default();
        counts.get(4..8).map_or(0, |word| word.try_into().map_or(0, u32::from_ne_bytes).into())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `open`, whole, and nothing refers to it any more.
        let _ = unsafe { libc::munmap(self.map.as_ptr(), self.length) };
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads a frame's headers. All offsets come from the kernel, and are checked nevertheless.
fn parse(frame: &[u8], state: u32) -> RingFrame {
    let word = |at: usize| frame.get(at..at + 4).map_or(0, |word| word.try_into().map_or(0, u32::from_ne_bytes));
    let half = |at: usize| frame.get(at..at + 2).map_or(0, |half| half.try_into().map_or(0, u16::from_ne_bytes));
    let (start, network) = (usize::from(half(12)), usize::from(half(14)));
    let kept = word(8) as usize;
    let end = (start + kept).min(frame.len());
    let tpid = if state & TP_STATUS_VLAN_TPID_VALID == 0 { 0x8100 } else { half(26) };
    RingFrame {
        at_ns: u64::from(word(16)) * 1_000_000_000 + u64::from(word(20)),
        interface: word(LINK_ADDRESS + 4),
        hardware: half(LINK_ADDRESS + 8),
        pkttype: frame.get(LINK_ADDRESS + 10).copied().unwrap_or(0),
        ethertype: u16::from_be(half(LINK_ADDRESS + 2)),
        bytes: frame.get(start..end).unwrap_or_default().to_vec(),
        network: network.saturating_sub(start),
        orig_len: word(4),
        vlan: (state & TP_STATUS_VLAN_VALID != 0).then(|| (tpid, half(24))),
    }
}

/// Reads a frame's headers without a copy.
fn seen(frame: &[u8]) -> SeenFrame<'_> {
    let word = |at: usize| frame.get(at..at + 4).map_or(0, |word| word.try_into().map_or(0, u32::from_ne_bytes));
    let half = |at: usize| frame.get(at..at + 2).map_or(0, |half| half.try_into().map_or(0, u16::from_ne_bytes));
    let (start, network) = (usize::from(half(12)), usize::from(half(14)));
    let end = (start + word(8) as usize).min(frame.len());
    SeenFrame {
        at_ns: u64::from(word(16)) * 1_000_000_000 + u64::from(word(20)),
        hardware: half(LINK_ADDRESS + 8),
        pkttype: frame.get(LINK_ADDRESS + 10).copied().unwrap_or(0),
        bytes: frame.get(start..end).unwrap_or_default(),
        network: network.saturating_sub(start),
        orig_len: word(4),
    }
}
