//! Threads that send. On a link without delay a packet's way there and its answer's way back are worked off within
//! the call that sends it, so that one thread keeps one processor busy: several share the work.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::super::sys::{self, OutMessage};
use super::raw::Probes;
use super::{Clock, errno, is_busy};
use crate::port::scan::Shot;
use crate::probe::Moment;

/// More threads than this help no scan.
const MOST: usize = 4;
/// Batches in line for each thread: one under way, one ready.
const AHEAD: usize = 2;
/// A device that takes nothing for this long will not.
const STUCK: Duration = Duration::from_secs(5);
/// A full device is tried again after this time.
const AGAIN: Duration = Duration::from_micros(200);

/// What became of a batch.
pub(super) struct Sent {
    number: u64,
    /// When each left.
    pub(super) left: Vec<(Shot, Moment)>,
    pub(super) refused: Vec<(Shot, &'static str)>,
}

/// The threads, and what they have in hand.
pub(super) struct Crew {
    jobs: Vec<Sender<(u64, Vec<Shot>)>>,
    done: Receiver<Sent>,
    threads: Vec<JoinHandle<()>>,
    /// Batches given out so far; the next goes to this number modulo the threads.
    given: u64,
    /// Batches that came back out of turn.
    early: Vec<u64>,
    /// All batches below this number are over.
    over: u64,
}

impl Crew {
    /// Threads for a scan that is worth them, each with its own sockets; none where there is but one processor.
    pub(super) fn hire(
        probes: &Arc<Probes>,
        clock: Clock,
        mut sockets: impl FnMut() -> Option<[Option<Socket>; 2]>,
    ) -> Option<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        if count < 2 {
            return None;
        }
        let (tell, done) = channel();
        let mut crew = Self { jobs: Vec::new(), done, threads: Vec::new(), given: 0, early: Vec::new(), over: 0 };
        for _ in 0..count {
            let (give, jobs) = channel::<(u64, Vec<Shot>)>();
            let (tell, probes, sockets) = (tell.clone(), Arc::clone(probes), sockets()?);
            let work = move || {
                while let Ok((number, shots)) = jobs.recv() {
                    if tell.send(deal(number, &shots, &probes, &sockets, clock)).is_err() {
                        return;
                    }
                }
            };
            crew.threads.push(std::thread::Builder::new().name("send".to_owned()).spawn(work).ok()?);
            crew.jobs.push(give);
        }
        Some(crew)
    }

    /// How many batches were given out: what is heard now may answer any of them.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Whether all of the first `number` batches are over.
    pub(super) fn is_over(&self, number: u64) -> bool {
        number <= self.over
    }

    fn is_full(&self) -> bool {
        usize::try_from(self.given - self.over).unwrap_or(usize::MAX) >= self.jobs.len() * AHEAD
    }

    /// Gives a batch to the next thread. False: none of them has room.
    pub(super) fn give(&mut self, shots: &[Shot]) -> bool {
        let at = usize::try_from(self.given).unwrap_or(0) % self.jobs.len().max(1);
        if self.is_full() || self.jobs[at].send((self.given, shots.to_vec())).is_err() {
            return false;
        }
        self.given += 1;
        true
    }

    /// A batch that is over, waiting for one where asked to.
    pub(super) fn take(&mut self, wait: bool) -> Option<Sent> {
        let idle = self.over == self.given;
        let sent = if wait && !idle {
            self.done.recv_timeout(Duration::from_millis(1)).ok()?
        } else {
            self.done.try_recv().ok()?
        };
        self.early.push(sent.number);
        while let Some(at) = self.early.iter().position(|number| *number == self.over) {
            self.early.swap_remove(at);
            self.over += 1;
        }
        Some(sent)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.jobs.clear();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Sends a batch.
fn deal(number: u64, shots: &[Shot], probes: &Probes, sockets: &[Option<Socket>; 2], clock: Clock) -> Sent {
    let mut sent = Sent { number, left: Vec::with_capacity(shots.len()), refused: Vec::new() };
    for v6 in [false, true] {
        let Some(socket) = &sockets[usize::from(v6)] else { continue };
        let mut batch: Vec<(Shot, OutMessage)> = Vec::with_capacity(shots.len());
        for shot in shots.iter().filter(|shot| probes.is_v6(**shot) == v6) {
            match probes.message(*shot) {
                Ok(message) => batch.push((*shot, message)),
                Err(errno) => sent.refused.push((*shot, errno)),
            }
        }
        let (shots, messages): (Vec<Shot>, Vec<OutMessage>) = batch.into_iter().unzip();
        let (mut at, mut last) = (0, Instant::now());
        while at < messages.len() {
            let before = clock.now();
            match sys::send_batch(socket.as_fd(), &messages[at..]) {
                Ok(count) => {
                    sent.left.extend(spread(&shots[at..at + count], before, clock.now()));
                    (at, last) = (at + count, Instant::now());
                }
                Err(error) if is_busy(&error) && last.elapsed() < STUCK => std::thread::sleep(AGAIN),
                Err(error) => {
                    sent.refused.push((shots[at], errno(&error)));
                    at += 1;
                }
            }
        }
    }
    sent
}

/// Within a batch each packet left in its turn.
pub(super) fn spread(shots: &[Shot], before: Moment, after: Moment) -> impl Iterator<Item = (Shot, Moment)> {
    let span = after.since(before).as_nanos();
    let count = shots.len().max(1) as u128;
    shots.iter().enumerate().map(move |(place, shot)| {
        let share = span * place as u128 / count;
        (*shot, Moment(before.0 + u64::try_from(share).unwrap_or(0)))
    })
}
