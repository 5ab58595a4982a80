//! A link spoken to directly: packet sockets that send whole frames and hear what a filter lets through,
//! driving an [`Conversation`]. The kernel's neighbour table takes no part, so a sweep cannot fill it.

use std::io;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::clock;
use super::late::PacketSocket;
use super::sys::{self, Inbox, OutMessage};
use crate::arp::conversation::{Conversation, Outgoing, Step};
use crate::arp::filter::Ear;
use crate::wire::{ethertype, pcap};

/// `SOF_TIMESTAMPING_{RX_SOFTWARE, SOFTWARE}`.
const RECEIVE_STAMPS: i32 = (1 << 3) | (1 << 4);
/// Room for some ten thousand replies that come at once.
const BUFFER: i32 = 16 << 20;
/// `include/uapi/linux/if_packet.h`
const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_MR_ALLMULTI: u16 = 2;
const PACKET_IGNORE_OUTGOING: i32 = 23;
/// `ETH_P_ALL`.
const ALL: u16 = 3;
/// How often the watcher is shown how far it is, nanoseconds.
const TICK: u64 = 100_000_000;
/// Frames kept for a capture file at the most.
const KEPT: usize = 1 << 20;

/// Why a link cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// This process may not open packet sockets.
    #[error("asking on the wire needs CAP_NET_RAW, which this process does not have")]
    Privilege {
        /// The command that grants it.
        hint: String,
    },
    /// The interface went down or away meanwhile.
    #[error("the interface {0} went down while it was used")]
    Down(String),
    /// A system call failed that has no business failing.
    #[error("{interface}: cannot {operation}: {source}")]
    System {
        /// On which interface.
        interface: String,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A request to stop (Ctrl-C, SIGTERM), noticed by whoever drives; while this lives the signals do not end
/// the program.
#[derive(Debug)]
pub struct Stop {
    signals: SignalFd,
    before: SigSet,
}

impl Stop {
    /// Begins to watch for signals in the calling thread. A process with other threads should do so first.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn watch() -> io::Result<Self> {
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGINT);
        wanted.add(Signal::SIGTERM);
        wanted.add(Signal::SIGHUP);
        let before = wanted.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, before })
    }

    /// Whether someone asked to stop since.
    pub fn asked(&self) -> bool {
        self.signals.read_signal().is_ok_and(|signal| signal.is_some())
    }

    /// Waits until `until` (nanoseconds, [`clock::monotonic_ns`]), or someone asks to stop, or `socket` has
    /// something; whether a stop was asked for.
    ///
    /// # Errors
    /// When waiting itself is not possible.
    pub fn wait(&self, socket: Option<std::os::fd::BorrowedFd<'_>>, until: u64) -> io::Result<bool> {
        let left = i64::try_from(until.saturating_sub(clock::monotonic_ns())).unwrap_or(i64::MAX);
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(socket.map(|socket| PollFd::new(socket, PollFlags::POLLIN)));
        let left = TimeSpec::new(left / 1_000_000_000, left % 1_000_000_000);
        match ppoll(&mut fds, Some(left), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(self.asked()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // A second Ctrl-C that came meanwhile is taken here, so that it does not end the program unexpectedly.
        while self.asked() {}
        let _ = self.before.thread_set_mask();
    }
}

/// How driving a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It came to its end.
    Finished,
    /// Someone asked to stop.
    Stopped,
}

/// An interface, open for speaking and listening.
pub struct Wire {
    socket: PacketSocket,
    interface: String,
    index: u32,
    inbox: Inbox,
    drops: u32,
    /// What went over the link, where it is kept: wall clock, frame.
    record: Option<Vec<(u64, Vec<u8>)>>,
    /// Frames that no longer had room in `record`.
    pub unrecorded: u64,
}

impl Wire {
    /// Opens a packet socket on an interface. With `record`, what is sent and heard is kept.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or where the interface is not there or down.
    pub fn open(interface: &str, index: u32, ear: Ear, record: bool) -> Result<Self, NeighbourError> {
        let system =
            |operation| move |source| NeighbourError::System { interface: interface.to_owned(), operation, source };
        // Protocol 0 hears nothing until it is bound: no frame of another interface gets in before.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::from(libc::SOCK_RAW), Some(Protocol::from(0)))
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => NeighbourError::Privilege { hint: super::probe::setcap_hint() },
                _ => system("open a packet socket")(error),
            })?;
        socket.set_nonblocking(true).map_err(system("prepare a packet socket"))?;
        // Without one of these a report is poorer, not wrong.
        let set = |level, name, value| {
            let _ = sys::set_int(&socket, level, name, value);
        };
        set(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, RECEIVE_STAMPS);
        set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        // A watch must know what this host itself asked.
        set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, i32::from(ear != Ear::Conversation));
        for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            if sys::set_int(&socket, libc::SOL_SOCKET, force, BUFFER).is_err() {
                set(libc::SOL_SOCKET, plain, BUFFER);
            }
        }
        sys::attach_filter(&socket, &ear.program()).map_err(system("attach a filter"))?;
        sys::bind_link(&socket, index, ear.ethertype().unwrap_or(ALL)).map_err(system("listen"))?;
        if ear != Ear::ArpReplies {
            // Groups that nobody here has joined are kept out by a card: VRRP's, neighbour discovery's.
            let mut request = Vec::with_capacity(16);
            request.extend(index.to_ne_bytes());
            request.extend(PACKET_MR_ALLMULTI.to_ne_bytes());
            request.extend([0; 10]);
            let _ = sys::set_bytes(&socket, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request);
        }
        Ok(Self {
            socket: socket.into(),
            interface: interface.to_owned(),
            index,
            inbox: Inbox::new(),
            drops: 0,
            record: record.then(Vec::new),
            unrecorded: 0,
        })
    }

    /// Takes what was recorded as frames with their times.
    pub fn take_record(&mut self) -> Vec<(u64, Vec<u8>)> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        if let Some(record) = &mut self.record {
            if record.len() < KEPT {
                record.push((at, bytes.to_vec()));
            } else {
                self.unrecorded += 1;
            }
        }
    }

    fn error(&self, operation: &'static str, source: io::Error) -> NeighbourError {
        match source.raw_os_error() {
            Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO) => NeighbourError::Down(self.interface.clone()),
            _ => NeighbourError::System { interface: self.interface.clone(), operation, source },
        }
    }

    /// Drives a conversation to its end, or until someone asks to stop; `tick` sees it several times a second, and
    /// may end it by giving `false`.
    ///
    /// # Errors
    /// When the interface goes down.
    pub fn run<C: Conversation>(
        &mut self,
        talk: &mut C,
        stop: &Stop,
        tick: &mut dyn FnMut(&mut C) -> bool,
    ) -> Result<Ended, NeighbourError> {
        let mut waiting: Vec<Outgoing> = Vec::new();
        let mut ticked = clock::monotonic_ns();
        loop {
            let now = clock::monotonic_ns();
            let mut step = talk.poll(now, &mut waiting);
            if !waiting.is_empty() {
                self.send(talk, &mut waiting)?;
            }
            if !waiting.is_empty() {
                // The queue is full: what was given out waits until there is room.
                step = Step::Until(clock::monotonic_ns() + 1_000_000);
            }
            self.receive(talk)?;
            if now.saturating_sub(ticked) > TICK {
                ticked = now;
                if !tick(talk) || stop.asked() {
                    return Ok(Ended::Stopped);
                }
            }
            match step {
                Step::Done => return Ok(Ended::Finished),
                Step::Until(until) => {
                    let until = until.min(ticked + TICK + 1);
                    if until > clock::monotonic_ns()
                        && stop.wait(Some(self.socket.as_fd()), until).map_err(|error| self.error("wait", error))?
                    {
                        return Ok(Ended::Stopped);
                    }
                }
            }
        }
    }

    /// Sends as much as the interface takes.
    fn send<C: Conversation>(&mut self, talk: &mut C, waiting: &mut Vec<Outgoing>) -> Result<(), NeighbourError> {
        // One call for each frame, so that the time of each is known; a call is cheap beside what a frame sets off.
        let mut left = 0;
        let mut outcome = Ok(());
        while let Some(out) = waiting.get(left) {
            let kind = out.bytes.get(12..14).map_or(ethertype::ARP, |kind| u16::from_be_bytes([kind[0], kind[1]]));
            let message = [OutMessage::frame(self.index, kind, out.bytes.clone())];
            let wall = if self.record.is_some() { clock::wall_ns() } else { 0 };
            let at = clock::monotonic_ns();
            match sys::send_batch(self.socket.as_fd(), &message) {
                Ok(_) => {
                    talk.sent(out.token, at);
                    if self.record.is_some() {
                        self.keep(wall, &out.bytes);
                    }
                    left += 1;
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS | libc::EAGAIN) => {
                        talk.congested(at);
                        break;
                    }
                    Some(libc::EINTR) => {}
                    _ => {
                        outcome = Err(self.error("send", error));
                        break;
                    }
                },
            }
        }
        waiting.drain(..left);
        outcome
    }

    /// Takes what has arrived.
    fn receive<C: Conversation>(&mut self, talk: &mut C) -> Result<(), NeighbourError> {
        // So many at once that a flood does not keep us from sending.
        for _ in 0..16 {
            let got = match self.inbox.receive(self.socket.as_fd(), false) {
                Ok(got) => got,
                Err(error) => return Err(self.error("receive", error)),
            };
            let (now, wall) = (clock::monotonic_ns(), clock::wall_ns());
            for number in 0..got {
                let message = self.inbox.get(number);
                // A stamp from the future or from long ago is a clock that was set.
                let age = message.stamp_ns.and_then(|stamp| wall.checked_sub(stamp)).filter(|age| *age < 1_000_000_000);
                let at = now - age.unwrap_or(0).min(now);
                talk.heard(at, message.bytes);
                let drops = message.drops.unwrap_or(self.drops);
                if drops != self.drops {
                    talk.overrun(drops.wrapping_sub(self.drops).into());
                    self.drops = drops;
                }
                if self.record.is_some() {
                    let bytes = message.bytes.to_vec();
                    self.keep(wall - age.unwrap_or(0), &bytes);
                }
            }
            if got < sys::BATCH {
                break;
            }
        }
        Ok(())
    }
}

/// A capture file (pcap, nanoseconds) of frames in the order of their times.
pub fn capture_file(mut frames: Vec<(u64, Vec<u8>)>) -> Vec<u8> {
    frames.sort_by_key(|(at, _)| *at);
    let mut file = pcap::Writer::new(pcap::ETHERNET);
    for (at, bytes) in frames {
        file.push(at, u32::try_from(bytes.len()).unwrap_or(u32::MAX), &bytes);
    }
    file.finish()
}

/// What is known of an interface's speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Radio: broadcasts are slow there, and stations sleep.
    Radio,
    /// A cable of so many megabits a second, where the driver says.
    Cable(Option<u32>),
}

/// Looks up what an interface is, as far as the system says.
pub fn medium(interface: &str) -> Medium {
    let radio = std::fs::read_to_string("/proc/thread-self/net/wireless").unwrap_or_default();
    if radio.lines().any(|line| line.trim_start().strip_prefix(interface).is_some_and(|rest| rest.starts_with(':'))) {
        return Medium::Radio;
    }
    let speed = std::fs::read_to_string(format!("/sys/class/net/{interface}/speed")).unwrap_or_default();
    Medium::Cable(speed.trim().parse().ok().filter(|speed| *speed > 0))
}
