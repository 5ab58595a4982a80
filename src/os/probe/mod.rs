//! Drives the probe engine with real sockets: one thread, one epoll, one timer.
//!
//! Echo and TCP segments go through raw sockets where the process may open them, echo else through ICMP
//! datagram sockets; UDP and connections need no privilege: their ICMP errors come by the socket's error
//! queue, which names the offender. ARP and neighbour solicitations go through packet sockets, never
//! promiscuous. The kernel stamps packets as they leave and arrive (`SO_TIMESTAMPING`); the stamp of a
//! sent packet comes back with the packet itself and is matched by its content: a counter (`OPT_ID`)
//! would be off by one after each packet that a local firewall refused.

mod connect;
mod connections;
mod deliver;
mod link;
mod path;
mod run;
mod setup;
mod sockets;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::late::PacketSocket;
pub use path::{begin_stamps, interface_mtu, source_address};
pub use run::{Conducted, conduct, run};

/// How a run is to be done.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// Packets a second; `None`: as fast as the sockets take them.
    pub rate: Option<u32>,
    /// The run ends after this time at the latest.
    pub deadline: Option<Duration>,
    /// Set from elsewhere (a signal handler) to end the run with what was found so far.
    pub cancel: Option<&'a AtomicBool>,
    /// How long ARP and NDP probes wait for a second answer after the first.
    pub neighbour_grace: Duration,
    /// Do as if this process could not open raw sockets, where there is another way.
    pub unprivileged: bool,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            rate: None,
            deadline: None,
            cancel: None,
            neighbour_grace: Duration::from_millis(200),
            unprivileged: false,
        }
    }
}

/// Why a run could not be done at all. What happens to single packets is in their reports.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// This process may not open the sockets that were asked for.
    #[error("{what} needs {missing}, which this process does not have")]
    Privilege {
        /// Which probes.
        what: &'static str,
        /// Which capability or setting.
        missing: &'static str,
        /// The command that grants it.
        hint: String,
    },
    /// A system call failed that has no business failing.
    #[error("probe: cannot {operation}: {source}")]
    System {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ProbeError {
    fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { operation, source }
    }

    fn privilege(what: &'static str) -> Self {
        Self::Privilege { what, missing: "CAP_NET_RAW", hint: setcap_hint() }
    }
}

/// The command that lets this program's file open raw sockets.
pub fn setcap_hint() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("reachwhy"));
    format!("sudo setcap cap_net_raw+ep {}", path.display())
}

/// What this process may open, so that a caller can choose probes that will work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Raw sockets: TCP segments, echo.
    pub raw: bool,
    /// Packet sockets: ARP, NDP, capture.
    pub packet: bool,
    /// Echo, raw or by datagram sockets, over IPv4.
    pub echo4: bool,
    /// Echo over IPv6.
    pub echo6: bool,
}

/// Finds out by opening (and closing) one socket of each kind; nothing is sent.
pub fn abilities() -> Abilities {
    use socket2::{Domain, Protocol, Type};
    let kind = Type::from(libc::SOCK_RAW);
    let packet = socket2::Socket::new(Domain::from(libc::AF_PACKET), kind, Some(Protocol::from(0)));
    Abilities { packet: packet.map(PacketSocket::from).is_ok(), ..path_abilities() }
}

/// As [`abilities`], but for packet sockets, which take milliseconds to close: `packet` is false.
pub fn path_abilities() -> Abilities {
    use socket2::{Domain, Protocol, Type};
    let opens = |domain, kind, protocol| socket2::Socket::new(domain, kind, Some(protocol)).is_ok();
    let raw = opens(Domain::IPV4, Type::from(libc::SOCK_RAW), Protocol::ICMPV4);
    Abilities {
        raw,
        packet: false,
        echo4: raw || opens(Domain::IPV4, Type::DGRAM, Protocol::ICMPV4),
        echo6: raw || opens(Domain::IPV6, Type::DGRAM, Protocol::ICMPV6),
    }
}

/// The name of an errno: `ECONNREFUSED`.
fn errno_name(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| format!("{:?}", nix::errno::Errno::from_raw(number)))
}
