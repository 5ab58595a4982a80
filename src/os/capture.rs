//! Capturing a flow's packets while something else happens: never promiscuous, filtered in the kernel.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::ring::{Ring, RingFrame};
use crate::probe::{CapturedFrame, FlowFilter, FrameKind};
use crate::wire::capture::{RawPacket, linktype};
use crate::wire::{Encapsulation, HexBytes};

/// Why a capture could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// This process may not open packet sockets.
    #[error("capturing packets needs CAP_NET_RAW, which this process does not have")]
    Privilege {
        /// The command that grants it.
        hint: String,
    },
    /// There is no such interface in this namespace.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    /// A system call failed that has no business failing.
    #[error("capture: cannot {operation}: {source}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A running capture. The kernel fills its ring (some 4000 frames) whether or not anyone reads; frames are kept up to
/// about 940 octets. It stays in the namespace it was opened in, and can be read from any thread.
#[derive(Debug)]
pub struct Capture {
    ring: Ring,
    filter: FlowFilter,
    names: HashMap<u32, String>,
    drops: u64,
}

impl Capture {
    /// Begins to capture on one interface, or on all with `None`; what passes from now on is kept.
    ///
    /// On loopback each packet is seen twice: as it is sent and as it arrives.
    pub fn open(interface: Option<&str>, filter: &FlowFilter) -> Result<Self, CaptureError> {
        let system = |operation| move |source| CaptureError::System { operation, source };
        let names = nix::net::if_::if_nameindex().map_err(|errno| system("list the interfaces")(errno.into()))?;
        let names: HashMap<u32, String> =
            names.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned())).collect();
        let index = match interface {
            None => 0,
            Some(name) => {
                let found = names.iter().find(|(_, known)| *known == name).map(|(index, _)| *index);
                found.ok_or_else(|| CaptureError::NoInterface(name.to_owned()))?
            }
        };
        let ring = Ring::open(index, &filter.program()).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => CaptureError::Privilege { hint: super::probe::setcap_hint() },
            _ => system("open a ring")(error),
        })?;
        Ok(Self { ring, filter: filter.clone(), names, drops: 0 })
    }

    /// What was captured since the last call, in order of arrival; never blocks.
    pub fn drain(&mut self) -> Vec<CapturedFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.ring.pop() {
            let frame = self.convert(frame);
            if self.filter.matches(&frame.decode()) {
                frames.push(frame);
            }
        }
        frames
    }

    /// Waits until something was captured, at most this long; whether something was.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
    }

    /// Frames lost so far because the ring was full: where this is not 0, absence proves nothing.
    pub fn drops(&mut self) -> u64 {
        self.drops += self.ring.take_drops();
        self.drops
    }

    fn convert(&self, frame: RingFrame) -> CapturedFrame {
        /// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: an Ethernet header is there.
        const WITH_ETHERNET: [u16; 2] = [1, 772];
        let (encapsulation, mut bytes, cut) = if WITH_ETHERNET.contains(&frame.hardware) {
            (Encapsulation::Ethernet, frame.bytes, 0)
        } else {
            let cut = frame.network.min(frame.bytes.len());
            (Encapsulation::Ip, frame.bytes[cut..].to_vec(), cut)
        };
        let mut orig_len = frame.orig_len.saturating_sub(u32::try_from(cut).unwrap_or(0));
        if let Some((tpid, tci)) = frame.vlan.filter(|_| encapsulation == Encapsulation::Ethernet && bytes.len() >= 12)
        {
            let (tpid, tci) = (tpid.to_be_bytes(), tci.to_be_bytes());
            bytes.splice(12..12, [tpid[0], tpid[1], tci[0], tci[1]]);
            orig_len += 4;
        }
        let pkttype = match frame.pkttype {
            0 => FrameKind::Host,
            1 => FrameKind::Broadcast,
            2 => FrameKind::Multicast,
            3 => FrameKind::Otherhost,
            _ => FrameKind::Outgoing,
        };
        let name = self.names.get(&frame.interface).cloned();
        CapturedFrame {
            at_ns: frame.at_ns,
            // One that came later: its name is not known here, its number is.
            interface: name.unwrap_or_else(|| format!("if{}", frame.interface)),
            pkttype,
            outgoing: pkttype == FrameKind::Outgoing,
            encapsulation,
            bytes: HexBytes(bytes),
            orig_len,
        }
    }
}

/// A running capture of everything on an interface, read in place: for traffic of any rate.
#[derive(Debug)]
pub struct Tap {
    ring: Ring,
    drops: u64,
}

impl Tap {
    /// Begins to hear one interface, or all with `None`; never promiscuous.
    ///
    /// # Errors
    /// [`CaptureError`]: no privilege, no such interface.
    pub fn open(interface: Option<&str>) -> Result<Self, CaptureError> {
        /// 128 MiB: a quarter of a second at 500 000 packets a second.
        const BLOCKS: u32 = 2048;
        let index = match interface {
            None => 0,
            Some(name) => {
                nix::net::if_::if_nametoindex(name).map_err(|_| CaptureError::NoInterface(name.to_owned()))?
            }
        };
        let ring = Ring::open_sized(index, None, BLOCKS).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => CaptureError::Privilege { hint: super::probe::setcap_hint() },
            _ => CaptureError::System { operation: "open a ring", source: error },
        })?;
        Ok(Self { ring, drops: 0 })
    }

    /// Shows the next packet, if one has come; what it begins with is in it. On loopback each packet is heard once.
    pub fn next(&mut self, look: &mut dyn FnMut(&RawPacket<'_>)) -> bool {
        const ETHERNET: u16 = 1;
        const LOOPBACK: u16 = 772;
        const OUTGOING: u8 = 4;
        self.ring.visit(|frame| {
            if frame.hardware == LOOPBACK && frame.pkttype == OUTGOING {
                return;
            }
            let with_link = matches!(frame.hardware, ETHERNET | LOOPBACK);
            let cut = if with_link { 0 } else { frame.network.min(frame.bytes.len()) };
            look(&RawPacket {
                at_ns: frame.at_ns,
                link: if with_link { linktype::ETHERNET } else { linktype::RAW },
                orig_len: frame.orig_len.saturating_sub(u32::try_from(cut).unwrap_or(0)),
                bytes: &frame.bytes[cut..],
            });
        })
    }

    /// Waits until something has come, or `also` can be read, at most this long; whether `also` can.
    pub fn wait(&self, also: Option<BorrowedFd<'_>>, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let here = PollFd::new(self.ring.as_fd(), PollFlags::POLLIN);
        match also {
            None => {
                let _ = poll(&mut [here], timeout);
                false
            }
            Some(also) => {
                let mut fds = [here, PollFd::new(also, PollFlags::POLLIN)];
                let _ = poll(&mut fds, timeout);
                fds[1].any().unwrap_or(false)
            }
        }
    }

    /// Packets lost so far because the ring was full.
    pub fn drops(&mut self) -> u64 {
        self.drops += self.ring.take_drops();
        self.drops
    }
}

/// Ctrl-C and its kin as something to wait for; while it lives the calling thread is not interrupted by them.
#[derive(Debug)]
pub struct Stop(SignalFd);

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn listen() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether we were told to stop.
    pub fn is_told(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
