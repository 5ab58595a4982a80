//! Sockets to name servers: UDP, TCP, TLS (RFC 7858) and HTTPS (RFC 8484), one thread, no runtime.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

use super::doh;
use super::http2::Http2;
use super::module;
use super::stop::{Stop, Waited};
use crate::dns::{ModuleAnswer, NetError, NetErrorKind, RType, Server, Transport, Wire};

/// The real network.
pub struct SocketWire {
    start: Instant,
    stop: Stop,
    /// Until when the exchange that was opened last may take.
    until: Instant,
    channels: Vec<(Server, Transport, Channel)>,
    dice: Dice,
}

enum Channel {
    Udp(UdpSocket),
    Stream(Box<Patient<TcpStream>>),
    Tls(Box<Secured>),
    /// Answers wait here until they are asked for.
    Https(Http, Vec<Result<Vec<u8>, NetError>>),
}

/// What the server's TLS agreed to speak.
enum Http {
    One(Box<Secured>),
    Two(Box<Http2>),
}

pub(super) type Secured = StreamOwned<ClientConnection, Patient<TcpStream>>;

/// Octets of the system's random source, a few at a time.
struct Dice {
    source: Option<File>,
    left: Vec<u8>,
}

impl Dice {
    fn next(&mut self) -> u16 {
        if self.left.len() < 2 {
            self.left = vec![0; 64];
            let filled = self.source.as_mut().is_some_and(|file| file.read_exact(&mut self.left).is_ok());
            if !filled {
                // No /dev in this place: the hasher's keys come from getrandom(2).
                use std::hash::{BuildHasher, Hasher};
                self.left = std::hash::RandomState::new().build_hasher().finish().to_ne_bytes().to_vec();
            }
        }
        let (low, high) = (self.left.pop().unwrap_or(0), self.left.pop().unwrap_or(0));
        u16::from_be_bytes([high, low])
    }
}

impl SocketWire {
    /// Nothing is open yet.
    pub fn new(stop: Stop) -> Self {
        let source = File::open("/dev/urandom").ok();
        let start = Instant::now();
        Self { start, stop, until: start, channels: Vec::new(), dice: Dice { source, left: Vec::new() } }
    }

    fn channel(&mut self, server: &Server, transport: Transport) -> Result<&mut Channel, NetError> {
        self.channels
            .iter_mut()
            .find(|(own, kind, _)| own == server && *kind == transport)
            .map(|(_, _, channel)| channel)
            .ok_or_else(|| NetError::new(NetErrorKind::Closed, "the connection is closed"))
    }

    fn connect(&self, server: &Server, transport: Transport, until: Instant) -> Result<Channel, NetError> {
        let address = server.address;
        if transport == Transport::Udp {
            let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any).map_err(|error| net_error(&error))?;
            socket.connect(address).and_then(|()| socket.set_nonblocking(true)).map_err(|error| net_error(&error))?;
            return Ok(Channel::Udp(socket));
        }
        let stream = tcp(address, until, &self.stop)?;
        if transport == Transport::Tcp {
            return Ok(Channel::Stream(Box::new(stream)));
        }
        let alpn: &[&[u8]] = if transport == Transport::Https { &[b"h2", b"http/1.1"] } else { &[b"dot"] };
        let name = match &server.tls_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| NetError::new(NetErrorKind::Tls, format!("`{name}` is no name for a certificate")))?,
            None => ServerName::from(address.ip()),
        };
        let secured = handshake(stream, name, alpn)?;
        Ok(match transport {
            Transport::Https if secured.conn.alpn_protocol() == Some(b"h2") => {
                Channel::Https(Http::Two(Box::new(Http2::begin(secured)?)), Vec::new())
            }
            Transport::Https => Channel::Https(Http::One(Box::new(secured)), Vec::new()),
            _ => Channel::Tls(Box::new(secured)),
        })
    }
}

impl Wire for SocketWire {
    fn now(&mut self) -> Duration {
        self.start.elapsed()
    }

    fn random(&mut self) -> u16 {
        self.dice.next()
    }

    fn open(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<(), NetError> {
        self.until = self.start + until;
        if self.channel(server, transport).is_ok() {
            return Ok(());
        }
        let channel = self.connect(server, transport, self.start + until)?;
        self.channels.push((server.clone(), transport, channel));
        Ok(())
    }

    fn send(&mut self, server: &Server, transport: Transport, message: &[u8]) -> Result<(), NetError> {
        // With HTTP the answer is waited for here.
        let until = if transport == Transport::Https { self.until } else { Instant::now() + Duration::from_secs(10) };
        match self.channel(server, transport)? {
            Channel::Udp(socket) => socket.send(message).map(|_| ()).map_err(|error| net_error(&error)),
            Channel::Stream(stream) => {
                stream.until = until;
                framed(stream.as_mut(), message)
            }
            Channel::Tls(stream) => {
                stream.sock.until = until;
                framed(stream.as_mut(), message)
            }
            Channel::Https(http, answers) => {
                let host = server.tls_name.clone().unwrap_or_else(|| match server.address {
                    SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
                    SocketAddr::V4(v4) => v4.ip().to_string(),
                });
                let path = server.path.as_deref().unwrap_or("/dns-query");
                let answer = match http {
                    Http::One(stream) => {
                        stream.sock.until = until;
                        doh::ask(stream.as_mut(), &host, path, message)
                    }
                    Http::Two(http) => http.ask(&host, path, message, until),
                };
                answers.push(answer);
                Ok(())
            }
        }
    }

    fn receive(&mut self, server: &Server, transport: Transport, until: Duration) -> Result<Option<Vec<u8>>, NetError> {
        let (until, stop) = (self.start + until, self.stop.clone());
        match self.channel(server, transport)? {
            Channel::Udp(socket) => datagram(socket, until, &stop),
            Channel::Stream(stream) => {
                stream.until = until;
                unframed(stream.as_mut())
            }
            Channel::Tls(stream) => {
                stream.sock.until = until;
                unframed(stream.as_mut())
            }
            Channel::Https(_, answers) if answers.is_empty() => Ok(None),
            Channel::Https(_, answers) => answers.remove(0).map(Some),
        }
    }

    fn close(&mut self) {
        self.channels.clear();
    }

    fn module(&mut self, service: &str, name: &str, wanted: Option<RType>) -> ModuleAnswer {
        module::ask(service, name, wanted, &self.stop)
    }
}

fn datagram(socket: &UdpSocket, until: Instant, stop: &Stop) -> Result<Option<Vec<u8>>, NetError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(net_error(&error)),
        }
        let left = until.saturating_duration_since(Instant::now());
        match stop.wait(&[socket.as_fd()], PollFlags::POLLIN, Some(left)) {
            Waited::Ready => {}
            Waited::TimedOut => return Ok(None),
            Waited::Stopped => return Err(NetError::new(NetErrorKind::Interrupted, "interrupted")),
        }
    }
}

fn tcp(address: SocketAddr, until: Instant, stop: &Stop) -> Result<Patient<TcpStream>, NetError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|error| net_error(&error))?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let left = until.saturating_duration_since(Instant::now());
            match stop.wait(&[socket.as_fd()], PollFlags::POLLOUT, Some(left)) {
                Waited::Ready => {}
                Waited::TimedOut => return Err(NetError::new(NetErrorKind::TimedOut, "no answer to the SYN")),
                Waited::Stopped => return Err(NetError::new(NetErrorKind::Interrupted, "interrupted")),
            }
            if let Some(error) = socket.take_error().map_err(|error| net_error(&error))? {
                return Err(net_error(&error));
            }
        }
        Err(error) => return Err(net_error(&error)),
    }
    // Two small messages in a row must not wait for each other's acknowledgement.
    let _ = socket.set_tcp_nodelay(true);
    Ok(Patient { stream: socket.into(), until, stop: stop.clone(), waits: true })
}

/// A connected stream that waits no longer than it may, and that Ctrl-C ends.
pub(super) struct Patient<S> {
    stream: S,
    pub(super) until: Instant,
    stop: Stop,
    /// Whether reading and writing wait, or say at once that they would have to.
    waits: bool,
}

impl Patient<TcpStream> {
    /// From here on whoever reads or writes waits himself.
    pub(super) fn hurry(&mut self) {
        self.waits = false;
    }

    pub(super) fn wait(&self, events: PollFlags) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        match self.stop.wait(&[self.stream.as_fd()], events, Some(left)) {
            Waited::Ready => Ok(()),
            Waited::TimedOut => Err(ErrorKind::TimedOut.into()),
            Waited::Stopped => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        }
    }
}

impl Read for Patient<TcpStream> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.waits => self.wait(PollFlags::POLLIN)?,
                other => return other,
            }
        }
    }
}

impl Write for Patient<TcpStream> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.waits => self.wait(PollFlags::POLLOUT)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn handshake(stream: Patient<TcpStream>, name: ServerName<'static>, alpn: &[&[u8]]) -> Result<Secured, NetError> {
    let tls = |says: String| NetError::new(NetErrorKind::Tls, says);
    let mut roots = RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // One damaged certificate in the store is no reason to believe none.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(tls("this host has no root certificates, so no server can be believed".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| tls(error.to_string()))?;
    let mut secured = StreamOwned::new(connection, stream);
    while secured.conn.is_handshaking() {
        secured.conn.complete_io(&mut secured.sock).map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => tls(plainly(&inner.to_string())),
            _ => net_error(&error),
        })?;
    }
    Ok(secured)
}

/// What the library leaves in the words of its own types.
fn plainly(error: &str) -> String {
    if error.contains("CaUsedAsEndEntity") {
        return "invalid peer certificate: it is a certificate authority's own, not a server's".to_owned();
    }
    error.to_owned()
}

fn framed(stream: &mut impl Write, message: &[u8]) -> Result<(), NetError> {
    let length = u16::try_from(message.len())
        .map_err(|_| NetError::new(NetErrorKind::Other, "the message is longer than 65535 octets"))?;
    let frame = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&frame).and_then(|()| stream.flush()).map_err(|error| net_error(&error))
}

fn unframed(stream: &mut impl Read) -> Result<Option<Vec<u8>>, NetError> {
    let mut read = || -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message)?;
        Ok(message)
    };
    match read() {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(net_error(&error)),
    }
}

/// What an errno means for a question to a server.
pub(super) fn net_error(error: &io::Error) -> NetError {
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => NetErrorKind::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => NetErrorKind::Reset,
        ErrorKind::UnexpectedEof => NetErrorKind::Closed,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => NetErrorKind::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            NetErrorKind::Unreachable
        }
        _ => match error.raw_os_error() {
            Some(libc::ECANCELED) => NetErrorKind::Interrupted,
            Some(libc::EAFNOSUPPORT) => NetErrorKind::Family,
            // What a ruleset that drops or forbids on the way out makes of it.
            Some(libc::EPERM | libc::EACCES) => NetErrorKind::Unreachable,
            _ => NetErrorKind::Other,
        },
    };
    let says = match kind {
        NetErrorKind::Refused => "connection refused: nothing listens there".to_owned(),
        NetErrorKind::Closed => "the server closed the connection without an answer".to_owned(),
        NetErrorKind::Reset => "the connection was reset".to_owned(),
        _ if error.raw_os_error() == Some(libc::EPERM) => {
            "operation not permitted: a local firewall rule forbids it".to_owned()
        }
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
    };
    NetError::new(kind, says)
}
