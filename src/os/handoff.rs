//! One doctor's line to another where there is no ssh: TLS 1.3 with a certificate made for the
//! occasion, known by its hash, and a secret that is good for one session. Both are in the token.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
    StreamOwned, SupportedCipherSuite,
};

use super::interrupt;

/// Octets of the certificate's hash in a token, and of the secret.
const PART: usize = 12;
/// How long a stranger may take to show the secret.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Strangers that are heard at once; more are hung up on.
const STRANGERS: usize = 16;
/// The longest line of a session.
const LINE: usize = 1 << 20;
/// How often the listener looks at the clock.
const TICK: Duration = Duration::from_millis(50);

/// What a client must know: the hash of the certificate and the secret, in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    certificate: [u8; PART],
    secret: [u8; PART],
}

impl Token {
    /// Reads a token; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let octets: Vec<u8> = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect::<Option<_>>()
            .filter(|_| text.chars().all(|c| c.is_ascii_hexdigit()))?;
        let (certificate, secret) = octets.split_at_checked(PART)?;
        Some(Self { certificate: certificate.try_into().ok()?, secret: secret.try_into().ok()? })
    }

    /// The token as text.
    pub fn text(&self) -> String {
        hex(&self.certificate) + &hex(&self.secret)
    }

    fn secret_line(&self) -> String {
        hex(&self.secret)
    }
}

fn hex(octets: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect()
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    match ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.hash(octets).as_ref().to_vec(),
        // It is a suite of TLS 1.3 by its name; the other arm is for the type alone.
        SupportedCipherSuite::Tls12(_) => Vec::new(),
    }
}

fn pin(certificate: &[u8]) -> Option<[u8; PART]> {
    sha256(certificate).get(..PART)?.try_into().ok()
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// A listener with its token.
pub struct Handoff {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    token: Token,
}

/// A stream whose every read and write ends by a time.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.left()?.map(|left| left.min(TICK * 4)))?;
            match self.stream.read(into) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if interrupt::asked() {
                        return Err(io::Error::new(ErrorKind::ConnectionAborted, "it was stopped here"));
                    }
                }
                read => return read,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A session with the one client that showed the secret.
pub struct Session {
    stream: StreamOwned<ServerConnection, Timed>,
    /// Who it is.
    pub peer: SocketAddr,
}

impl Session {
    /// Reads the next question; `None` where the client has ended.
    ///
    /// # Errors
    /// When the time is up, the line is too long, or the connection breaks.
    pub fn hear(&mut self) -> io::Result<Option<String>> {
        line(&mut self.stream, LINE)
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// When the time is up or the connection breaks.
    pub fn say(&mut self, answer: &[u8]) -> io::Result<()> {
        self.stream.write_all(answer)?;
        self.stream.write_all(b"\n")?;
        self.stream.flush()
    }

    /// Tells the client that this is all.
    pub fn close(mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
    }
}

/// A line of at most `limit` octets, without its end.
fn line(stream: &mut impl Read, limit: usize) -> io::Result<Option<String>> {
    let mut octets = Vec::new();
    let mut one = [0_u8; 1];
    loop {
        match stream.read(&mut one) {
            Ok(0) if octets.is_empty() => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) if one[0] == b'\n' => break,
            Ok(_) if octets.len() >= limit => return Err(other("the line is too long")),
            Ok(_) => octets.push(one[0]),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && octets.is_empty() => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(octets).map(Some).map_err(other)
}

/// How waiting for a client ended.
pub enum Waited {
    /// One came.
    Client(Box<Session>),
    /// None came in time.
    Nobody,
    /// Someone asked us to end.
    Stopped,
}

impl Handoff {
    /// Listens at `address`, with a new certificate and a new secret.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["reachwhy".to_owned()]).map_err(other)?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut secret = [0_u8; PART];
        ring::default_provider()
            .secure_random
            .fill(&mut secret)
            .map_err(|_| other("the system gives no randomness"))?;
        let token = Token { certificate: pin(&certificate).ok_or_else(|| other("no hash"))?, secret };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(other)?;
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, config: Arc::new(config), token })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// None in practice.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Waits for a client that knows the secret, at most until `time` has passed; the session ends by
    /// then, too. Nobody else is let in afterwards.
    ///
    /// # Errors
    /// When the listener breaks.
    pub fn wait(self, time: Duration) -> io::Result<Waited> {
        let until = Instant::now() + time;
        let strangers = Arc::new(AtomicUsize::new(0));
        let (send, known): (Sender<Session>, Receiver<Session>) = channel();
        loop {
            if interrupt::asked() {
                return Ok(Waited::Stopped);
            }
            if let Ok(session) = known.recv_timeout(TICK) {
                return Ok(Waited::Client(Box::new(session)));
            }
            if Instant::now() >= until {
                return Ok(Waited::Nobody);
            }
            loop {
                match self.listener.accept() {
                    Ok((stream, peer)) => self.meet(stream, peer, until, &strangers, &send),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What a client did wrong before it was accepted is not ours (accept(2)).
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::ConnectionAborted | ErrorKind::Interrupted | ErrorKind::ConnectionReset
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Hears a stranger, beside the others: a slow one keeps nobody waiting.
    fn meet(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        until: Instant,
        strangers: &Arc<AtomicUsize>,
        send: &Sender<Session>,
    ) {
        if strangers.load(Ordering::Acquire) >= STRANGERS || stream.set_nonblocking(false).is_err() {
            return;
        }
        strangers.fetch_add(1, Ordering::AcqRel);
        let (config, token, send, count) =
            (Arc::clone(&self.config), self.token.clone(), send.clone(), Arc::clone(strangers));
        let started = std::thread::Builder::new().spawn(move || {
            let introduced = introduce(stream, config, &token);
            count.fetch_sub(1, Ordering::AcqRel);
            if let Some(mut stream) = introduced {
                stream.sock.until = until;
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let _ = send.send(Session { stream, peer });
            }
        });
        if started.is_err() {
            strangers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The stream of a client that shows the secret in time.
fn introduce(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    token: &Token,
) -> Option<StreamOwned<ServerConnection, Timed>> {
    let timed = Timed { stream, until: Instant::now() + INTRODUCTION };
    let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, timed);
    let wanted = token.secret_line();
    let said = line(&mut stream, wanted.len()).ok()??;
    // Every octet is compared, so that the time says nothing about the secret.
    let wrong = said.bytes().zip(wanted.bytes()).fold(0_u8, |wrong, (a, b)| wrong | (a ^ b));
    (said.len() == wanted.len() && wrong == 0).then_some(stream)
}

/// Accepts the one certificate whose hash is known, whatever its names and dates.
#[derive(Debug)]
struct Pinned {
    pin: [u8; PART],
    provider: CryptoProvider,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if pin(end_entity) == Some(self.pin) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("it is not the doctor that made this token".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's side, as a process of its own: the first line of `input` is the token, each further
/// one a question; each answer is a line of `output`.
///
/// # Errors
/// In words, when the other doctor is not there, is another one, or hangs up.
pub fn relay(host: &str, port: u16, input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::new(input);
    let mut first = String::new();
    input.read_line(&mut first)?;
    let token = Token::parse(first.trim()).ok_or_else(|| other("the token is none"))?;
    let stream = reach(host, port)?;
    stream.set_read_timeout(Some(INTRODUCTION * 2))?;
    let provider = ring::default_provider();
    let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin: token.certificate, provider }))
        .with_no_client_auth();
    let name = ServerName::try_from("reachwhy").map_err(other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(other)?;
    let mut stream = StreamOwned::new(connection, stream);
    // The handshake comes first, so that the secret is told to nobody else.
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    writeln!(stream, "{}", token.secret_line())?;
    stream.flush()?;
    stream.sock.set_read_timeout(None)?;
    let mut answers = BufReader::new(stream);
    for question in input.lines() {
        let question = question?;
        writeln!(answers.get_mut(), "{question}")?;
        answers.get_mut().flush()?;
        let mut answer = String::new();
        match answers.read_line(&mut answer) {
            Ok(1..) => output.write_all(answer.as_bytes()).and_then(|()| output.flush())?,
            Ok(0) | Err(_) => {
                return Err(other("it hangs up: the token is wrong, or was used already, or its time is up"));
            }
        }
    }
    let mut stream = answers.into_inner();
    stream.conn.send_close_notify();
    let _ = stream.flush();
    Ok(())
}

fn reach(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = other(format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, INTRODUCTION) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = other(format!("cannot connect to {address}: {error}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written() {
        let token = Token { certificate: [1; PART], secret: [0xfe; PART] };
        assert_eq!(Token::parse(&token.text()), Some(token.clone()));
        for bad in ["", "zz", &token.text()[1..], &format!("{}0", token.text()), &format!("+{}", &token.text()[1..])] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_line_is_bounded() {
        assert_eq!(line(&mut &b"ab\ncd"[..], 10).unwrap().as_deref(), Some("ab"));
        assert_eq!(line(&mut &b""[..], 10).unwrap(), None);
        assert!(line(&mut &b"abc"[..], 10).is_err());
        assert!(line(&mut &b"abcdef\n"[..], 3).is_err());
        assert!(line(&mut &b"\xff\n"[..], 3).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_token_panics(text: String) {
            let _ = Token::parse(&text);
        }
    }
}
