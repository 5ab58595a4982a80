//! Runs one conversation with a service: connect, TLS, request, answer, with the time of each.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

use crate::host::Transport;
use crate::os::errno;
use crate::probe::exchange::{
    ExchangePlan, ExchangeReport, HttpEnd, HttpReport, HttpRequest, Outcome, TlsFailure, TlsFailureKind, TlsReport,
};
use crate::probe::http::AnswerReader;

/// Bodies are read this far; more proves nothing about reachability.
const ENOUGH: u64 = 8 << 20;

/// A conversation that is over but whose connection is kept, so that both ends can be looked at as
/// they stand. Dropping it closes the connection.
pub struct Held {
    /// What was seen.
    pub report: ExchangeReport,
    _stream: Option<Box<dyn Send>>,
}

/// Has the conversation.
pub fn run(plan: &ExchangePlan) -> Held {
    match plan.transport {
        Transport::Tcp => over_tcp(plan),
        Transport::Udp => over_udp(plan),
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn over_tcp(plan: &ExchangePlan) -> Held {
    let start = Instant::now();
    let mut report =
        ExchangeReport { local: None, connect: Outcome::Done, connect_ms: 0.0, tls: None, http: None, datagram: None };
    let connected = Socket::new(Domain::for_address(plan.to), Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
        let done = socket.connect_timeout(&plan.to.into(), Duration::from_millis(plan.connect_ms.max(1)));
        report.local = socket.local_addr().ok().and_then(|address| address.as_socket()).filter(|a| a.port() != 0);
        done.map(|()| socket)
    });
    report.connect_ms = ms(start);
    let socket = match connected {
        Ok(socket) => socket,
        Err(error) => {
            report.connect = failure(&error);
            return Held { report, _stream: None };
        }
    };
    let stream: std::net::TcpStream = socket.into();
    let patience = Some(Duration::from_millis(plan.answer_ms.max(1)));
    // Without these a silent server would hold the program for ever.
    if let Err(error) = stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)) {
        report.connect = failure(&error);
        return Held { report, _stream: None };
    }
    let Some(name) = &plan.tls_name else {
        let mut stream = stream;
        report.http = plan.http.as_ref().map(|request| converse(&mut stream, request, plan.answer_ms));
        return Held { report, _stream: Some(Box::new(stream)) };
    };
    let start = Instant::now();
    match handshake(stream, name) {
        Ok(mut stream) => {
            let version = stream.conn.protocol_version().and_then(|v| v.as_str().map(str::to_owned));
            report.tls = Some(TlsReport { ms: ms(start), version, failure: None });
            report.http = plan.http.as_ref().map(|request| converse(&mut stream, request, plan.answer_ms));
            Held { report, _stream: Some(Box::new(stream)) }
        }
        Err(failure) => {
            report.tls = Some(TlsReport { ms: ms(start), version: None, failure: Some(failure) });
            Held { report, _stream: None }
        }
    }
}

fn over_udp(plan: &ExchangePlan) -> Held {
    let start = Instant::now();
    let mut report = ExchangeReport {
        local: None,
        connect: Outcome::Timeout,
        connect_ms: 0.0,
        tls: None,
        http: None,
        datagram: None,
    };
    let any: SocketAddr = if plan.to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let attempt = || -> std::io::Result<Option<usize>> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(plan.to)?;
        let payload = crate::probe::exchange::udp_question(plan.to.port());
        let tries = 3;
        socket.set_read_timeout(Some(Duration::from_millis((plan.connect_ms / tries).max(1))))?;
        let mut buffer = [0; 4096];
        for _ in 0..tries {
            socket.send(payload)?;
            match socket.recv(&mut buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    };
    match attempt() {
        Ok(Some(length)) => {
            report.connect = Outcome::Done;
            report.datagram = Some(length);
        }
        Ok(None) => {}
        Err(error) => report.connect = failure(&error),
    }
    report.connect_ms = ms(start);
    Held { report, _stream: None }
}

fn failure(error: &std::io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(code) if code == libc::ETIMEDOUT => Outcome::Timeout,
        Some(code) => Outcome::Error { errno: errno::name(code) },
        None if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Outcome::Timeout,
        None => Outcome::Error { errno: error.kind().to_string() },
    }
}

type TlsStream = StreamOwned<ClientConnection, std::net::TcpStream>;

fn handshake(mut tcp: std::net::TcpStream, name: &str) -> Result<TlsStream, TlsFailure> {
    let other = |detail: String| TlsFailure { kind: TlsFailureKind::Other, detail };
    let mut roots = RootCertStore::empty();
    for certificate in rustls_native_certs::load_native_certs().certs {
        // A root this library cannot read is one it cannot use; the others still count.
        let _ = roots.add(certificate);
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| other(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(|error| other(error.to_string()))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| other(error.to_string()))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut tcp) {
            return Err(tls_failure(&error));
        }
    }
    Ok(StreamOwned::new(connection, tcp))
}

fn tls_failure(error: &std::io::Error) -> TlsFailure {
    use rustls::{AlertDescription as Alert, Error as Tls};
    let kind = match error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::InvalidCertificate(certificate)) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailureKind::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFailureKind::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFailureKind::WrongName
            }
            _ => TlsFailureKind::Untrusted,
        },
        Some(Tls::InvalidMessage(_)) => TlsFailureKind::NotTls,
        Some(Tls::PeerIncompatible(_)) => TlsFailureKind::Version,
        Some(Tls::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity)) => {
            TlsFailureKind::Version
        }
        Some(_) => TlsFailureKind::Other,
        None if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => TlsFailureKind::Timeout,
        None => TlsFailureKind::Closed,
    };
    TlsFailure { kind, detail: error.to_string() }
}

/// A stream whose patience can be shortened.
trait Talk: Read + Write {
    /// Waits no longer than this for octets from now on.
    fn hurry(&self, patience: Duration);
}

impl Talk for std::net::TcpStream {
    fn hurry(&self, patience: Duration) {
        // Where it cannot be shortened the old patience holds, which is bounded too.
        let _ = self.set_read_timeout(Some(patience));
    }
}

impl Talk for TlsStream {
    fn hurry(&self, patience: Duration) {
        self.sock.hurry(patience);
    }
}

fn converse<S: Talk>(stream: &mut S, request: &HttpRequest, patience_ms: u64) -> HttpReport {
    let start = Instant::now();
    let mut report = HttpReport {
        first_octet_ms: None,
        ms: 0.0,
        received: 0,
        status: None,
        headers: Vec::new(),
        body_expected: None,
        body_received: 0,
        end: HttpEnd::Complete,
        not_http: None,
        misframed: None,
        page: None,
    };
    let line = if request.tunnel { format!("CONNECT {}", request.host) } else { format!("GET {}", request.path) };
    let text = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nUser-Agent: reachwhy/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        request.host,
        env!("CARGO_PKG_VERSION")
    );
    if let Err(error) = stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        report.end = end_of(&error);
        report.ms = ms(start);
        return report;
    }
    let mut reader = AnswerReader::default();
    let mut buffer = [0; 16 << 10];
    // The whole answer has a limit too: a server that drips an octet a second is slow, not silent.
    let deadline = Duration::from_millis(patience_ms.saturating_mul(4));
    report.end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break reader.at_close(),
            Ok(length) => {
                report.first_octet_ms.get_or_insert_with(|| ms(start));
                reader.take(&buffer[..length]);
                // What follows a tunnel's head is the tunnel.
                if request.tunnel && reader.status.is_some() {
                    break HttpEnd::Complete;
                }
                if reader.complete() {
                    report.ms = ms(start);
                    more(stream, &mut reader, &mut buffer);
                    break HttpEnd::Complete;
                }
                if reader.received > ENOUGH {
                    break HttpEnd::Enough;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A TLS peer that closes without close_notify still closed.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break reader.at_close(),
            Err(error) => break end_of(&error),
        }
        if start.elapsed() > deadline {
            // A large answer that still flows is no silence.
            break if reader.status.is_some() { HttpEnd::Enough } else { HttpEnd::Timeout };
        }
    };
    // A look at what follows a complete answer is no part of it.
    if report.ms == 0.0 {
        report.ms = ms(start);
    }
    report.received = reader.received;
    report.status = reader.status;
    report.headers = std::mem::take(&mut reader.headers);
    report.body_expected = reader.length;
    report.body_received = reader.body;
    report.misframed = reader.misframed();
    report.page = reader.page();
    report.not_http = reader.not_http.take();
    report
}

/// What comes behind a complete answer, up to the close that was asked for: at most one look, and no wait worth
/// mentioning, since a server may keep the connection.
fn more<S: Talk>(stream: &mut S, reader: &mut AnswerReader, buffer: &mut [u8]) {
    stream.hurry(Duration::from_millis(10));
    if let Ok(length) = stream.read(buffer) {
        reader.take(&buffer[..length]);
    }
}

fn end_of(error: &std::io::Error) -> HttpEnd {
    match failure(error) {
        Outcome::Error { errno } if errno == "EAGAIN" => HttpEnd::Timeout,
        Outcome::Error { errno } => HttpEnd::Error { errno },
        Outcome::Timeout | Outcome::Done => HttpEnd::Timeout,
    }
}
