//! A conversation with nfnetlink (include/uapi/linux/netfilter/nfnetlink.h): batches that are
//! applied whole or not at all, and dumps.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::attr::Attrs;
use super::error::NftError;
use crate::os::netlink::Netlink;

/// `NETLINK_NETFILTER`.
const PROTOCOL: isize = 12;
/// `NFNL_MSG_BATCH_BEGIN`.
const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
const BATCH_END: u16 = 0x11;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the table changed while it was read out.
const DUMP_INTR: u16 = 0x10;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 16 + 4;
/// How often an interrupted dump is asked for again.
const TRIES: u32 = 5;
/// The kernel answers at once or, while it loads modules, within seconds; a silence this long is a fault.
const SILENCE_S: i64 = 30;

/// The parts of nfnetlink that are spoken here (`NFNL_SUBSYS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subsystem {
    /// `NFNL_SUBSYS_IPSET`.
    Ipset = 6,
    /// `NFNL_SUBSYS_NFTABLES`.
    Nftables = 10,
}

/// One order of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// `NFT_MSG_*`.
    pub(crate) kind: u8,
    /// `NLM_F_CREATE`, `NLM_F_EXCL`, `NLM_F_APPEND`.
    pub(crate) flags: u16,
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// Its attributes.
    pub(crate) attrs: Attrs,
    /// In words, for an error message: `add rule 3 of filter INPUT`.
    pub(crate) what: String,
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The low byte of its type: `NFT_MSG_*`.
    pub(crate) kind: u8,
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// Its attributes.
    pub(crate) body: Vec<u8>,
}

/// An open conversation. Tables made with the owner flag live as long as it does.
pub(crate) struct Conn {
    netlink: Netlink,
    sequence: u32,
}

struct Raw<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Conn {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NftError> {
        let mut netlink = Netlink::open(PROTOCOL)?;
        // Both are improvements only: without them a large batch fails with its own error.
        let _ = setsockopt(netlink.socket(), sockopt::ReceiveTimeout, &TimeVal::seconds(SILENCE_S));
        let _ = setsockopt(netlink.socket(), sockopt::SndBufForce, &(16 << 20))
            .or_else(|_| setsockopt(netlink.socket(), sockopt::SndBuf, &(1 << 20)));
        Ok(Self { netlink, sequence: 1 })
    }

    /// Applies all orders or none.
    ///
    /// # Errors
    /// [`NftError::Refused`], naming the first order that the kernel would not take.
    pub(crate) fn commit(&mut self, orders: &[Order]) -> Result<(), NftError> {
        if orders.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(orders.len() * 256);
        push(&mut bytes, BATCH_BEGIN, NLM_F_REQUEST, first, 0, Subsystem::Nftables as u16, &[]);
        for (order, sequence) in orders.iter().zip(first + 1..) {
            let last = sequence as usize - first as usize == orders.len();
            let flags = NLM_F_REQUEST | order.flags | if last { NLM_F_ACK } else { 0 };
            let kind = (Subsystem::Nftables as u16) << 8 | u16::from(order.kind);
            push(&mut bytes, kind, flags, sequence, order.family, 0, order.attrs.bytes());
        }
        let end = first + u32::try_from(orders.len()).unwrap_or(u32::MAX) + 1;
        push(&mut bytes, BATCH_END, NLM_F_REQUEST, end, 0, Subsystem::Nftables as u16, &[]);
        self.sequence = end;
        self.send(&bytes)?;

        let mut refused: Option<NftError> = None;
        loop {
            let buffer = self.receive("a batch")?;
            for raw in messages(&buffer) {
                if raw.kind != ERROR || raw.sequence < first || raw.sequence >= end {
                    continue;
                }
                let errno = errno(raw.payload);
                let index = (raw.sequence - first) as usize;
                if errno != 0 && refused.is_none() {
                    let what = match index.checked_sub(1).and_then(|index| orders.get(index)) {
                        Some(order) => order.what.clone(),
                        None => "change the ruleset".to_owned(),
                    };
                    refused = Some(NftError::Refused { what, source: io::Error::from_raw_os_error(errno) });
                }
                // The last order is acknowledged whatever became of the others; an error against
                // the batch itself (no privilege, no such subsystem, a failed commit) ends it.
                if index == orders.len() || index == 0 {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Reads out a whole list; asked again while the kernel says that it changed meanwhile.
    pub(crate) fn dump(
        &mut self,
        what: &str,
        subsystem: Subsystem,
        kind: u8,
        family: u8,
        attrs: &Attrs,
    ) -> Result<Vec<Answer>, NftError> {
        let mut last = Vec::new();
        for _ in 0..TRIES {
            let (answers, interrupted) = self.ask(what, subsystem, kind, family, NLM_F_DUMP, attrs)?;
            last = answers;
            if !interrupted {
                break;
            }
        }
        Ok(last)
    }

    /// Asks one question; `flags` is `NLM_F_DUMP` or `NLM_F_ACK`.
    pub(crate) fn ask(
        &mut self,
        what: &str,
        subsystem: Subsystem,
        kind: u8,
        family: u8,
        flags: u16,
        attrs: &Attrs,
    ) -> Result<(Vec<Answer>, bool), NftError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let kind = (subsystem as u16) << 8 | u16::from(kind);
        push(&mut bytes, kind, NLM_F_REQUEST | flags, self.sequence, family, 0, attrs.bytes());
        self.send(&bytes)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let buffer = self.receive(what)?;
            for raw in messages(&buffer) {
                if raw.sequence != self.sequence {
                    continue;
                }
                interrupted |= raw.flags & DUMP_INTR != 0;
                match raw.kind {
                    ERROR | DONE => {
                        let errno = errno(raw.payload);
                        if errno == 0 {
                            return Ok((answers, interrupted));
                        }
                        // A dump that lost its place is begun anew, as one that says so by flag.
                        if errno == libc::EINTR || errno == libc::EAGAIN {
                            return Ok((answers, true));
                        }
                        let source = io::Error::from_raw_os_error(errno);
                        return Err(NftError::Refused { what: what.to_owned(), source });
                    }
                    kind => answers.extend(answer(kind, raw.payload)),
                }
            }
        }
    }

    /// Listens to a group of notices (`NFNLGRP_*`); [`Conn::notices`] then gives them.
    pub(crate) fn join(&mut self, group: u32) -> Result<(), NftError> {
        let join = |source| NftError::Socket { operation: "listen to notices", source };
        self.netlink.socket().add_membership(group).map_err(join)?;
        self.netlink.socket().set_non_blocking(true).map_err(join)
    }

    /// The notices that have come since the last time, and whether some were lost because there
    /// were too many.
    pub(crate) fn notices(&mut self) -> Result<(Vec<Answer>, bool), NftError> {
        let (mut answers, mut lost) = (Vec::new(), false);
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.netlink.socket().recv(&mut buffer, 0) {
                Ok(_) => {
                    for raw in messages(&buffer).filter(|raw| raw.kind >> 8 == Subsystem::Nftables as u16) {
                        answers.extend(answer(raw.kind, raw.payload));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((answers, lost)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(source) => return Err(NftError::Socket { operation: "receive", source }),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NftError> {
        let sent = self.netlink.socket().send(bytes, 0);
        sent.map(|_| ()).map_err(|source| NftError::Socket { operation: "send", source })
    }

    fn receive(&mut self, what: &str) -> Result<Vec<u8>, NftError> {
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            match self.netlink.socket().recv(&mut buffer, 0) {
                Ok(0) => {
                    return Err(NftError::Malformed { what: what.to_owned(), why: "an empty answer".to_owned() });
                }
                Ok(_) => return Ok(buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NftError::Socket { operation: "receive", source }),
            }
        }
    }
}

/// Appends one message: `struct nlmsghdr`, `struct nfgenmsg` (version 0), attributes.
fn push(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16, body: &[u8]) {
    let length = u32::try_from(HEADERS + body.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn messages(buffer: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        let header: &[u8; 16] = rest.first_chunk()?;
        let [a, b, c, d, kind0, kind1, flags0, flags1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let payload = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Raw {
            kind: u16::from_ne_bytes([kind0, kind1]),
            flags: u16::from_ne_bytes([flags0, flags1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload,
        })
    })
}

fn answer(kind: u16, payload: &[u8]) -> Option<Answer> {
    let (head, body) = payload.split_first_chunk::<4>()?;
    Some(Answer { kind: kind.to_be_bytes()[1], family: head[0], body: body.to_vec() })
}

/// The errno of an `NLMSG_ERROR` or `NLMSG_DONE`, as a positive number; 0 is an acknowledgement.
fn errno(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_and_errors_read() {
        let mut bytes = Vec::new();
        push(&mut bytes, 0x0a00, 1, 7, 2, 0, &[4, 0, 1, 0, 0]);
        push(&mut bytes, ERROR, 0, 8, 0, 0, &[]);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&(-1i32).to_ne_bytes());
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].sequence), (0x0a00, 7));
        assert_eq!(answer(all[0].kind, all[0].payload).unwrap().family, 2);
        assert_eq!(errno(all[1].payload), libc::EPERM);
    }

    proptest::proptest! {
        #[test]
        fn splitting_never_panics(bytes: Vec<u8>) {
            for raw in messages(&bytes) {
                let _ = (errno(raw.payload), answer(raw.kind, raw.payload));
            }
        }
    }
}
