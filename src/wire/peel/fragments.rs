//! Fragments kept until their datagram is whole (RFC 791 §3.2, RFC 8200 §4.5), in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Octets kept of all incomplete datagrams together.
const MOST_OCTETS: usize = 32 << 20;
/// Datagrams kept at once.
const MOST_DATAGRAMS: usize = 8192;
/// Pieces of one datagram.
const MOST_PIECES: usize = 8192;
/// An IP datagram is no longer than this.
const LONGEST: usize = 65_535;

/// Which part of which datagram a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) id: u32,
    pub(super) protocol: u8,
    /// Octets in front of it.
    pub(super) offset: usize,
    pub(super) more: bool,
}

type Name = (IpAddr, IpAddr, u32, u8);

#[derive(Debug, Default)]
struct Datagram {
    pieces: Vec<(usize, Vec<u8>)>,
    octets: usize,
    total: Option<usize>,
    began_ns: u64,
}

/// Incomplete datagrams.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    open: HashMap<Name, Datagram>,
    order: VecDeque<(Name, u64)>,
    octets: usize,
}

impl Fragments {
    /// Adds a fragment; the datagram's octets when it is whole now.
    pub(super) fn add(&mut self, piece: Piece, bytes: &[u8], at_ns: u64) -> Option<Vec<u8>> {
        let name = (piece.src, piece.dst, piece.id, piece.protocol);
        if piece.offset + bytes.len() > LONGEST {
            return None;
        }
        while self.octets + bytes.len() > MOST_OCTETS || self.open.len() >= MOST_DATAGRAMS {
            if !self.forget_oldest() {
                break;
            }
        }
        let open = &mut self.open;
        let order = &mut self.order;
        let datagram = open.entry(name).or_insert_with(|| {
            order.push_back((name, at_ns));
            Datagram { began_ns: at_ns, ..Datagram::default() }
        });
        if datagram.pieces.len() >= MOST_PIECES {
            return None;
        }
        if !piece.more {
            datagram.total = Some(piece.offset + bytes.len());
        }
        datagram.pieces.push((piece.offset, bytes.to_vec()));
        datagram.octets += bytes.len();
        self.octets += bytes.len();
        let total = datagram.total.filter(|total| datagram.octets >= *total)?;
        // The first octets to come win, as in Linux before 4.20 and in Wireshark.
        let mut whole = vec![0; total];
        let mut sorted: Vec<&(usize, Vec<u8>)> = datagram.pieces.iter().collect();
        sorted.sort_by_key(|(offset, _)| *offset);
        let mut filled = 0;
        for (offset, bytes) in sorted {
            if *offset > filled {
                return None;
            }
            let skip = filled - offset;
            let new = bytes.get(skip..).unwrap_or_default();
            let end = (filled + new.len()).min(total);
            whole[filled..end].copy_from_slice(&new[..end - filled]);
            filled = end.max(filled);
        }
        if filled < total {
            return None;
        }
        if let Some(done) = self.open.remove(&name) {
            self.octets -= done.octets;
        }
        Some(whole)
    }

    fn forget_oldest(&mut self) -> bool {
        while let Some((name, began_ns)) = self.order.pop_front() {
            // A datagram that was finished leaves its place in the queue behind.
            if self.open.get(&name).is_some_and(|datagram| datagram.began_ns == began_ns) {
                if let Some(gone) = self.open.remove(&name) {
                    self.octets -= gone.octets;
                }
                return true;
            }
        }
        false
    }
}
