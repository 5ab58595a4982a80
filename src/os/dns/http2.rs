//! A question by HTTPS over HTTP/2 (RFC 8484 5.2: the least version that servers should be asked by).
//!
//! The `h2` crate is written for an asynchronous runtime, and needs none: its futures are polled here, and
//! between two polls the socket is waited for, so that deadlines and Ctrl-C hold as everywhere else.

use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use nix::poll::PollFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{Secured, net_error};
use crate::dns::{NetError, NetErrorKind};

/// No DNS message is larger.
const LARGEST: usize = 1 << 16;

/// A connection that speaks HTTP/2.
pub(super) struct Http2 {
    stream: Shared,
    connection: Connection<Shared, Bytes>,
    requests: SendRequest<Bytes>,
}

fn http(says: impl Into<String>) -> NetError {
    NetError::new(NetErrorKind::Http, says)
}

fn spoken(error: &h2::Error) -> NetError {
    match error.get_io() {
        Some(io) => net_error(io),
        None => http(format!("HTTP/2: {error}")),
    }
}

impl Http2 {
    /// Begins to speak on a connection whose TLS has agreed on it.
    pub(super) fn begin(mut secured: Secured) -> Result<Self, NetError> {
        let until = secured.sock.until.max(Instant::now() + Duration::from_millis(100));
        secured.sock.hurry();
        let stream = Shared { secured: Arc::new(Mutex::new(secured)) };
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(1 << 14);
        let (requests, connection) = {
            let handshake = builder.handshake::<_, Bytes>(stream.clone());
            drive(&stream, until, handshake, |_| Poll::Pending)?.map_err(|error| spoken(&error))?
        };
        Ok(Self { stream, connection, requests })
    }

    /// Posts `message` and reads the answer.
    pub(super) fn ask(&mut self, host: &str, path: &str, message: &[u8], until: Instant) -> Result<Vec<u8>, NetError> {
        let request = ::http::Request::post(format!("https://{host}{path}"))
            .header("accept", "application/dns-message")
            .header("content-type", "application/dns-message")
            .header("content-length", message.len())
            .body(())
            .map_err(|error| http(error.to_string()))?;
        let body = Bytes::copy_from_slice(message);
        let requests = self.requests.clone();
        let exchange = async move {
            let mut requests = requests.ready().await?;
            let (response, mut sender) = requests.send_request(request, false)?;
            sender.send_data(body, true)?;
            let response = response.await?;
            let (head, mut body) = response.into_parts();
            let mut octets = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                octets.extend_from_slice(&data);
                if octets.len() > LARGEST {
                    break;
                }
                body.flow_control().release_capacity(data.len())?;
            }
            Ok::<_, h2::Error>((head, octets))
        };
        let connection = &mut self.connection;
        let background = |context: &mut Context<'_>| Pin::new(&mut *connection).poll(context).map(Result::err);
        let answered = drive(&self.stream, until, exchange, background)?;
        let (head, octets) = answered.map_err(|error| spoken(&error))?;
        if head.status != ::http::StatusCode::OK {
            return Err(http(format!("the server answered HTTP {}", head.status.as_u16())));
        }
        let kind = head.headers.get("content-type").map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
        if !kind.as_deref().is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/dns-message")) {
            let kind: String =
                kind.unwrap_or("nothing named".to_owned()).chars().filter(|c| !c.is_control()).take(80).collect();
            return Err(http(format!("the server answered {kind}, not application/dns-message")));
        }
        if octets.len() > LARGEST {
            return Err(http("the answer is larger than any DNS message"));
        }
        Ok(octets)
    }
}

/// Polls `wanted`, and `background` beside it, until the first is done; waits for the socket in between.
fn drive<T>(
    stream: &Shared,
    until: Instant,
    wanted: impl Future<Output = T>,
    mut background: impl FnMut(&mut Context<'_>) -> Poll<Option<h2::Error>>,
) -> Result<T, NetError> {
    let mut wanted = pin!(wanted);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = wanted.as_mut().poll(&mut context) {
            // What was queued with the last poll, an acknowledgement say, must still go out.
            let _ = background(&mut context);
            return Ok(done);
        }
        let over = background(&mut context);
        if let Poll::Ready(done) = wanted.as_mut().poll(&mut context) {
            return Ok(done);
        }
        if let Poll::Ready(error) = over {
            let closed = || NetError::new(NetErrorKind::Closed, "the server closed the connection without an answer");
            return Err(error.map_or_else(closed, |error| spoken(&error)));
        }
        // A poll may have queued what the next one writes.
        let _ = background(&mut context);
        let mut secured = stream.lock();
        secured.sock.until = until;
        let events =
            if secured.conn.wants_write() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        secured.sock.wait(events).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => NetError::new(NetErrorKind::TimedOut, "no answer"),
            _ => net_error(&error),
        })?;
    }
}

/// The TLS stream as both the connection and the waiting need it.
#[derive(Clone)]
struct Shared {
    secured: Arc<Mutex<Secured>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Secured> {
        self.secured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn polled<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut secured = self.lock();
        polled(match secured.read(buffer.initialize_unfilled()) {
            Ok(length) => {
                buffer.advance(length);
                Ok(())
            }
            // Many servers close without saying so within TLS.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        })
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        polled(self.lock().write(octets))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        polled(self.lock().flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut secured = self.lock();
        secured.conn.send_close_notify();
        polled(secured.flush())
    }
}
