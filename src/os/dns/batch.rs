//! The batch engine's sockets: one to each server, one thread, one core.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::stop::{Stop, Waited};
use super::wire::SocketWire;
use crate::dns::{Batch, BatchAnswer, BatchResult, Conf, Datagram, Ending, RType, Server, Transport, Wire, view};

/// How a batch is run.
pub struct BatchOptions {
    /// The servers asked.
    pub servers: Vec<Server>,
    /// What is asked for.
    pub types: Vec<RType>,
    /// How long a question waits.
    pub patience: Duration,
    /// What ends it early.
    pub stop: Stop,
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub struct BatchReport {
    /// From the first name to the last.
    pub took: Duration,
    /// It was ended by Ctrl-C.
    pub stopped: bool,
}

/// Resolves `names`; `tell` gets each result in the order of the names.
///
/// # Errors
/// When no socket can be had, or `tell` fails.
pub fn run_batch(
    names: &[&str],
    conf: &Conf,
    options: &BatchOptions,
    tell: &mut dyn FnMut(BatchResult) -> io::Result<()>,
) -> io::Result<BatchReport> {
    let start = Instant::now();
    let sockets: Vec<UdpSocket> = options.servers.iter().map(socket).collect::<io::Result<_>>()?;
    let seed = {
        let mut dice = SocketWire::new(Stop::never());
        (0..4).fold(0_u64, |seed, _| seed << 16 | u64::from(dice.random()))
    };
    let mut engine = Batch::new(conf, sockets.len(), options.types.clone(), options.patience, seed);
    let mut results = InOrder { waiting: BTreeMap::new(), next: 0 };
    let mut large = Vec::new();
    let mut left = names.iter().enumerate();
    let mut pending: Vec<Datagram> = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let mut stopped = false;
    let mut more = true;
    while more || !engine.is_idle() || !pending.is_empty() {
        let now = start.elapsed();
        engine.tick(now);
        while pending.is_empty() && engine.has_room() {
            let Some((index, name)) = left.next() else {
                more = false;
                break;
            };
            engine.begin(index, name, now);
        }
        pending.extend(engine.take_outbox());
        flush(&mut pending, &sockets, &mut engine, now);
        let mut heard = false;
        for (server, socket) in sockets.iter().enumerate() {
            heard |= drain(server, socket, &mut engine, &mut buffer, start);
        }
        for result in engine.take_done() {
            match result.ending {
                Ending::Truncated(_) => large.push(result),
                _ => results.put(result, tell)?,
            }
        }
        if heard || (more && engine.has_room() && pending.is_empty()) || engine.is_idle() {
            continue;
        }
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let wait = engine.deadline().map(|deadline| deadline.saturating_sub(start.elapsed()));
        let events = if pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
        if options.stop.wait(&fds, events, wait) == Waited::Stopped {
            stopped = true;
            break;
        }
    }
    for chunk in large.chunks(64) {
        if options.stop.stopped() {
            stopped = true;
            break;
        }
        for result in by_tcp(chunk, options) {
            results.put(result, tell)?;
        }
    }
    if stopped {
        results.rest(tell)?;
    }
    Ok(BatchReport { took: start.elapsed(), stopped })
}

fn socket(server: &Server) -> io::Result<UdpSocket> {
    let any: SocketAddr = if server.address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server.address)?;
    socket.set_nonblocking(true)?;
    // Answers to all questions under way must find room; the system may give less.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    Ok(socket)
}

/// Sends what can be sent; what the socket has no room for stays.
fn flush(pending: &mut Vec<Datagram>, sockets: &[UdpSocket], engine: &mut Batch<'_>, now: Duration) {
    let mut kept = Vec::new();
    for datagram in pending.drain(..) {
        if !kept.is_empty() {
            kept.push(datagram);
            continue;
        }
        match sockets[datagram.server].send(&datagram.octets) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => kept.push(datagram),
            // What is refused comes out of the wait for an answer, or at once where nobody listens.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => engine.refused(datagram.server, now),
            _ => {}
        }
    }
    *pending = kept;
}

fn drain(server: usize, socket: &UdpSocket, engine: &mut Batch<'_>, buffer: &mut [u8], start: Instant) -> bool {
    let mut heard = false;
    // Others have their turn after as many.
    for _ in 0..256 {
        match socket.recv(buffer) {
            Ok(length) => {
                heard = true;
                engine.receive(server, &buffer[..length], start.elapsed());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                engine.refused(server, start.elapsed());
                return true;
            }
            Err(_) => return heard,
        }
    }
    heard
}

/// Answers that do not fit are fetched by TCP, several at once.
fn by_tcp(results: &[BatchResult], options: &BatchOptions) -> Vec<BatchResult> {
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            results.iter().map(|result| scope.spawn(move || one_by_tcp(result.clone(), options))).collect();
        asked.into_iter().filter_map(|thread| thread.join().ok()).collect()
    })
}

fn one_by_tcp(mut result: BatchResult, options: &BatchOptions) -> BatchResult {
    let (Ending::Truncated(server), Some(name)) = (&result.ending, &result.asked) else { return result };
    let Some(server) = options.servers.get(*server) else { return result };
    let server = Server { transport: Transport::Tcp, ..server.clone() };
    let mut wire = SocketWire::new(options.stop.clone());
    let view = view(&mut wire, &server, name, &options.types, options.patience, 1);
    result.answers = view
        .replies
        .iter()
        .flat_map(|(rtype, reply)| reply.answers.iter().filter(move |record| record.rtype == *rtype))
        .map(|record| BatchAnswer { data: record.data.clone(), ttl: Some(record.ttl), line: None })
        .collect();
    result.ending = match (result.answers.is_empty(), view.rcode()) {
        (false, _) => Ending::Found,
        (true, Some(code)) => Ending::Said(code.to_string()),
        (true, None) => Ending::Timeout,
    };
    result
}

struct InOrder {
    waiting: BTreeMap<usize, BatchResult>,
    next: usize,
}

impl InOrder {
    fn put(&mut self, result: BatchResult, tell: &mut dyn FnMut(BatchResult) -> io::Result<()>) -> io::Result<()> {
        self.waiting.insert(result.index, result);
        self.tell(tell)
    }

    /// What is done, without what should have stood between.
    fn rest(&mut self, tell: &mut dyn FnMut(BatchResult) -> io::Result<()>) -> io::Result<()> {
        std::mem::take(&mut self.waiting).into_values().try_for_each(tell)
    }

    fn tell(&mut self, tell: &mut dyn FnMut(BatchResult) -> io::Result<()>) -> io::Result<()> {
        while let Some(result) = self.waiting.remove(&self.next) {
            self.next += 1;
            tell(result)?;
        }
        Ok(())
    }
}
