//! What the resolver asks of the world: a clock, numbers nobody can guess, and sockets to servers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::lookup::Eai;
use super::message::RType;
use crate::host::nsswitch::Status;

/// How a server is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A datagram for each message.
    Udp,
    /// RFC 7766: each message behind its length.
    Tcp,
    /// DNS over TLS, RFC 7858.
    Tls,
    /// DNS over HTTPS, RFC 8484.
    Https,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
        })
    }
}

impl Serialize for Transport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Where it listens; a link-local address with its interface.
    pub address: SocketAddr,
    /// How it is talked to first (UDP turns to TCP where the server says so).
    pub transport: Transport,
    /// The name in its certificate, for TLS and HTTPS; the address where there is none.
    pub tls_name: Option<String>,
    /// The path of its HTTPS service.
    pub path: Option<String>,
    /// Its line in resolv.conf, from 1.
    pub line: Option<usize>,
}

impl Server {
    /// A server by UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self { address, transport: Transport::Udp, tls_name: None, path: None, line: None }
    }
}

/// `192.168.1.53`, `192.168.1.53:5353`, `tls://dns.example`, …: as `--server` takes it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = match self.transport {
            Transport::Udp | Transport::Tcp => 53,
            Transport::Tls => 853,
            Transport::Https => 443,
        };
        if self.transport != Transport::Udp {
            write!(f, "{}://", self.transport)?;
        }
        let host = match (&self.tls_name, self.address) {
            (Some(name), _) => name.clone(),
            (None, SocketAddr::V6(v6)) if self.address.port() != usual || self.transport == Transport::Https => {
                format!("[{}]", v6.ip())
            }
            (None, SocketAddr::V6(v6)) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            (None, address) => address.ip().to_string(),
        };
        f.write_str(&host)?;
        if self.address.port() != usual {
            write!(f, ":{}", self.address.port())?;
        }
        f.write_str(self.path.as_deref().unwrap_or_default())
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why nothing could be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{says}")]
pub struct NetError {
    /// What kind it is of.
    pub kind: NetErrorKind,
    /// In the system's words.
    pub says: String,
}

/// What glibc tells apart, and a few that people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetErrorKind {
    /// Nobody listens (ICMP port unreachable, or a reset in answer to a SYN).
    Refused,
    /// No way there, or a router says so.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer.
    Closed,
    /// Nothing came in the time allowed.
    TimedOut,
    /// This system has no such address family.
    Family,
    /// TLS did not come to be, or the certificate is not believed.
    Tls,
    /// The HTTP server answered something else.
    Http,
    /// The user has had enough.
    Interrupted,
    /// Anything else.
    Other,
}

impl NetError {
    /// An error of a kind, in words.
    pub fn new(kind: NetErrorKind, says: impl Into<String>) -> Self {
        Self { kind, says: says.into() }
    }
}

/// What a service of nsswitch.conf that is not ours to follow (`mdns4_minimal`, `resolve`, `sss`, …) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleAnswer {
    /// Its library is not installed.
    Missing,

    /// It knows these.
    Found(Vec<IpAddr>),
    /// It ended so, and an application that asks nobody else gets this error.
    Failed(Status, Eai),
    /// Nobody could be asked about it: why.
    Unknown(String),
}

/// The sockets, the clock and the dice. One server and transport make a channel; it stays open until
/// [`Wire::close`], and what arrives late on it is seen by whoever receives next.
pub trait Wire {
    /// Time since some beginning; never goes back.
    fn now(&mut self) -> Duration;

    /// A number that nobody else can know.
    fn random(&mut self) -> u16;

    /// Opens the channel, where it is not open: a socket connected to the server.
    ///
    /// # Errors
    /// When there is no way to the server, nobody listens there, or `until` is over.
    fn open(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<(), NetError>;

    /// Sends one message.
    ///
    /// # Errors
    /// When the system refuses to send it.
    fn send(&mut self, server: &Server, transport: Transport, message: &[u8]) -> Result<(), NetError>;

    /// The next message, or `None` when `until` is over.
    ///
    /// # Errors
    /// When the system reports an error (nobody listens there), or the stream has ended.
    fn receive(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<Option<Vec<u8>>, NetError>;

    /// Closes all channels.
    fn close(&mut self);

    /// Asks a module of the C library about a name; `wanted` is A, AAAA, or `None` for both.
    fn module(&mut self, service: &str, name: &str, wanted: Option<RType>) -> ModuleAnswer;
}
