//! Speaking with open ports: who greets is listened to, who does not is asked for a page, in clear or by TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use super::scoped;
use crate::os::clock;
use crate::port::banner::{Banner, TlsFacts, greeting, usually_http, usually_tls, wants_tls};
use crate::port::certificate::Certificate;
use crate::port::report::{HostReport, State};

/// Ports that are spoken with at once.
const AT_ONCE: usize = 16;
/// How long a service may take to greet, which it does before it is asked.
const GREETS: Duration = Duration::from_millis(700);
/// How long it may take to answer.
const ANSWERS: Duration = Duration::from_secs(3);
/// Octets that are read of an answer.
const ENOUGH: usize = 4096;

/// Asks every open TCP port of a host what it is.
pub fn ask(
    report: &mut HostReport,
    address: IpAddr,
    link: u32,
    name: &str,
    timeout: Option<Duration>,
    stop: &AtomicBool,
) {
    let open: Vec<u16> = report
        .ports
        .iter()
        .filter(|port| port.state == State::Open && port.proto == "tcp")
        .map(|port| port.port)
        .collect();
    let patience = timeout.unwrap_or(ANSWERS);
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(u16, Banner)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(open.len()) {
            scope.spawn(|| {
                while let Some(port) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let banner = Service { address, link, port: *port, name, patience }.ask();
                    if let Ok(mut found) = found.lock() {
                        found.push((*port, banner));
                    }
                }
            });
        }
    });
    for (port, banner) in found.into_inner().unwrap_or_default() {
        if let Some(one) = report.ports.iter_mut().find(|one| one.port == port) {
            one.banner = Some(banner);
        }
    }
}

struct Service<'a> {
    address: IpAddr,
    link: u32,
    port: u16,
    name: &'a str,
    patience: Duration,
}

impl Service<'_> {
    fn ask(&self) -> Banner {
        if usually_tls(self.port)
            && let Ok(banner) = self.by_tls()
        {
            return banner;
        }
        let plain = self.in_clear();
        match plain {
            Ok((octets, _)) if !octets.is_empty() && !wants_tls(&octets) => greeting(&octets),
            // A TLS server closes, or sends an alert, when it is spoken to in clear.
            Ok((octets, closed)) if closed || wants_tls(&octets) => self.by_tls().unwrap_or_else(|_| Banner {
                failure: Some("it closes without a word".to_owned()),
                ..Banner::default()
            }),
            Ok(_) => Banner { failure: Some("it says nothing".to_owned()), ..Banner::default() },
            Err(error) => {
                Banner { failure: Some(format!("the connection did not last: {error}")), ..Banner::default() }
            }
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&scoped(self.address, self.port, self.link), self.patience)?;
        stream.set_write_timeout(Some(self.patience))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn request(&self) -> String {
        let host = if self.name.contains(':') { format!("[{}]", self.address) } else { self.name.to_owned() };
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: reachwhy\r\nAccept: */*\r\nConnection: close\r\n\r\n")
    }

    /// What it says, and whether it closed.
    fn in_clear(&self) -> std::io::Result<(Vec<u8>, bool)> {
        let mut stream = self.connect()?;
        if !usually_http(self.port) {
            stream.set_read_timeout(Some(GREETS.min(self.patience)))?;
            let (octets, closed) = read(&mut stream, GREETS.min(self.patience));
            if !octets.is_empty() || closed {
                return Ok((octets, closed));
            }
        }
        stream.write_all(self.request().as_bytes())?;
        stream.set_read_timeout(Some(self.patience))?;
        Ok(read(&mut stream, self.patience))
    }

    fn by_tls(&self) -> Result<Banner, String> {
        let stream = self.connect().map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(self.patience)).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(self.name.to_owned()).unwrap_or(ServerName::IpAddress(self.address.into()));
        let witness = Arc::new(Witness::new());
        let config = ClientConfig::builder_with_provider(Arc::clone(&witness.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        let mut tls = StreamOwned::new(connection, stream);
        let end = Instant::now() + self.patience;
        while tls.conn.is_handshaking() {
            if Instant::now() > end {
                return Err("the handshake takes too long".to_owned());
            }
            tls.conn.complete_io(&mut tls.sock).map_err(|error| error.to_string())?;
        }
        let seen = witness.seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        let certificate = seen.0.as_deref().and_then(Certificate::read);
        let now = i64::try_from(clock::wall_ns() / 1_000_000_000).unwrap_or(i64::MAX);
        let days_left = certificate.as_ref().and_then(|one| one.not_after).map(|at| (at - now).div_euclid(86_400));
        let version = tls.conn.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
        let facts = TlsFacts { version, certificate, days_left, fault: seen.1 };
        let _ = tls.write_all(self.request().as_bytes());
        let (octets, _) = read(&mut tls, self.patience);
        let banner = greeting(&octets);
        Ok(Banner { protocol: banner.protocol.or(Some("tls")), tls: Some(facts), ..banner })
    }
}

/// Reads until there is a whole line (of HTTP: the whole head), the end, or no more time.
fn read(stream: &mut impl Read, patience: Duration) -> (Vec<u8>, bool) {
    let end = Instant::now() + patience;
    let mut octets = Vec::new();
    let mut buffer = [0; 1024];
    while octets.len() < ENOUGH && Instant::now() < end {
        match stream.read(&mut buffer) {
            Ok(0) => return (octets, true),
            Ok(count) => octets.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return (octets, false);
            }
            Err(_) => return (octets, true),
        }
        let http = octets.starts_with(b"HTTP/");
        let head = octets.windows(4).any(|four| four == b"\r\n\r\n");
        // The page of an error may say that TLS is wanted, so a little more than the head is read.
        if (!http && octets.ends_with(b"\n")) || (http && head && octets.len() > 512) || (!http && octets.len() > 64) {
            break;
        }
    }
    (octets, false)
}

/// Lets every certificate pass and remembers it, and why it would have been refused.
#[derive(Debug)]
struct Witness {
    provider: Arc<rustls::crypto::CryptoProvider>,
    judge: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<(Option<Vec<u8>>, Option<String>)>,
}

impl Witness {
    fn new() -> Self {
        static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = ROOTS.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        });
        // Without any root nothing can be said about trust.
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider)).build().ok();
        Self { provider, judge, seen: Mutex::new((None, None)) }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fault = match &self.judge {
            Some(judge) => judge.verify_server_cert(end, chain, name, ocsp, now).err().map(|error| error.to_string()),
            None => Some("this host trusts no authority at all".to_owned()),
        };
        if let Ok(mut seen) = self.seen.lock() {
            *seen = (Some(end.to_vec()), fault);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
