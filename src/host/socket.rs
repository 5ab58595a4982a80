//! Sockets: who listens where, with which backlog.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::HostFacts;

/// The transport protocol of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// TCP state by its RFC 9293 name; an unconnected UDP socket is `Unconnected`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SocketState {
    /// ESTABLISHED (a connected UDP socket too).
    Established,
    /// SYN-SENT.
    SynSent,
    /// SYN-RECEIVED.
    SynReceived,
    /// FIN-WAIT-1.
    FinWait1,
    /// FIN-WAIT-2.
    FinWait2,
    /// TIME-WAIT.
    TimeWait,
    /// CLOSED, or a UDP socket without a peer.
    Unconnected,
    /// CLOSE-WAIT.
    CloseWait,
    /// LAST-ACK.
    LastAck,
    /// LISTEN.
    Listen,
    /// CLOSING.
    Closing,
}

/// One socket, as sock_diag shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFact {
    /// TCP or UDP.
    pub transport: Transport,
    /// Its state.
    pub state: SocketState,
    /// Local address; `0.0.0.0` or `::` for all.
    pub local: IpAddr,
    /// Local port.
    pub local_port: u16,
    /// Remote address, unspecified while there is none.
    pub remote: IpAddr,
    /// Remote port, 0 while there is none.
    pub remote_port: u16,
    /// `IPV6_V6ONLY`: a `::` listener that takes no IPv4.
    #[serde(default)]
    pub v6only: bool,
    /// `SO_BINDTODEVICE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// LISTEN: connections waiting to be accepted; else octets received and not read.
    pub recv_queue: u32,
    /// LISTEN: the backlog limit; else octets sent and not acknowledged.
    pub send_queue: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Socket inode; 0 where no process holds it.
    pub inode: u64,
    /// The processes that hold it, where they could be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<SocketOwner>,
}

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOwner {
    /// Process id.
    pub pid: u32,
    /// `/proc/PID/comm`.
    pub name: String,
    /// `/proc/PID/stat` state letter: `R`, `S`, `D`, `T` (stopped), `Z`, …
    pub state: char,
    /// Open file descriptors and the soft limit, where readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fds: Option<(u64, u64)>,
}

impl SocketFact {
    /// Whether a TCP SYN or UDP datagram to `address:port` can be taken by this socket.
    ///
    /// `net/ipv4/inet_hashtables.c` `compute_score`: a wildcard takes its own family; a `::` socket
    /// takes IPv4 too unless it is v6-only.
    pub fn accepts(&self, transport: Transport, address: IpAddr, port: u16) -> bool {
        let open = match transport {
            Transport::Tcp => self.state == SocketState::Listen,
            Transport::Udp => self.state == SocketState::Unconnected,
        };
        if self.transport != transport || !open || self.local_port != port {
            return false;
        }
        match (self.local, address) {
            (local, asked) if local == asked => true,
            (IpAddr::V4(local), IpAddr::V4(_)) => local.is_unspecified(),
            (IpAddr::V6(local), IpAddr::V6(_)) => local.is_unspecified(),
            (IpAddr::V6(local), IpAddr::V4(asked)) => {
                !self.v6only && (local.is_unspecified() || local.to_ipv4_mapped() == Some(asked))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

impl SocketFact {
    /// The local address, an IPv4 one in its own form though an IPv6 socket carries it (`::ffff:10.0.0.1`).
    pub fn local_ip(&self) -> IpAddr {
        self.local.to_canonical()
    }

    /// The remote address, likewise.
    pub fn remote_ip(&self) -> IpAddr {
        self.remote.to_canonical()
    }

    /// A listener whose queue of connections to be accepted is full: the kernel drops what comes
    /// (`sk_acceptq_is_full`: more than the limit are waiting).
    pub fn accept_queue_full(&self) -> bool {
        self.state == SocketState::Listen && self.recv_queue > self.send_queue
    }
}

impl HostFacts {
    /// The sockets that could take a SYN or a datagram to `address:port`, those bound to exactly this
    /// address first, as the kernel prefers them. `None` where the sockets were not seen.
    pub fn takers(&self, transport: Transport, address: IpAddr, port: u16) -> Option<Vec<&SocketFact>> {
        let mut takers: Vec<_> =
            self.sockets.as_deref()?.iter().filter(|socket| socket.accepts(transport, address, port)).collect();
        takers.sort_by_key(|socket| (socket.local_ip() != address.to_canonical(), socket.device.is_none()));
        Some(takers)
    }

    /// The sockets that wait on a port at whatever address: what a client meets that asks at the
    /// wrong one. `None` where the sockets were not seen.
    pub fn open_on(&self, transport: Transport, port: u16) -> Option<Vec<&SocketFact>> {
        let open = |socket: &&SocketFact| {
            socket.transport == transport
                && socket.local_port == port
                && match transport {
                    Transport::Tcp => socket.state == SocketState::Listen,
                    Transport::Udp => socket.state == SocketState::Unconnected,
                }
        };
        Some(self.sockets.as_deref()?.iter().filter(open).collect())
    }

    /// The TCP sockets of one connection seen from this host, by its two ends. `None` where the
    /// sockets were not seen.
    pub fn connections(&self, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Option<Vec<&SocketFact>> {
        let ends = |socket: &&SocketFact| {
            socket.transport == Transport::Tcp
                && (socket.local_ip(), socket.local_port) == (local.0.to_canonical(), local.1)
                && (socket.remote_ip(), socket.remote_port) == (remote.0.to_canonical(), remote.1)
        };
        Some(self.sockets.as_deref()?.iter().filter(ends).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(local: &str, v6only: bool) -> SocketFact {
        SocketFact {
            transport: Transport::Tcp,
            state: SocketState::Listen,
            local: local.parse().unwrap(),
            local_port: 8080,
            remote: "0.0.0.0".parse().unwrap(),
            remote_port: 0,
            v6only,
            device: None,
            recv_queue: 0,
            send_queue: 128,
            uid: 0,
            inode: 1,
            owners: Vec::new(),
        }
    }

    #[test]
    fn a_listener_takes_what_the_kernel_would_give_it() {
        let v4: IpAddr = "192.168.1.3".parse().unwrap();
        let v6: IpAddr = "fd00::3".parse().unwrap();
        for (local, v6only, to, takes) in [
            ("0.0.0.0", false, v4, true),
            ("127.0.0.1", false, v4, false),
            ("192.168.1.3", false, v4, true),
            ("::", false, v4, true),
            ("::", true, v4, false),
            ("::", true, v6, true),
            ("::ffff:192.168.1.3", false, v4, true),
            ("0.0.0.0", false, v6, false),
        ] {
            assert_eq!(listener(local, v6only).accepts(Transport::Tcp, to, 8080), takes, "{local} {v6only} {to}");
        }
        assert!(!listener("0.0.0.0", false).accepts(Transport::Tcp, v4, 8081));
        assert!(!listener("0.0.0.0", false).accepts(Transport::Udp, v4, 8080));
    }
}
