//! The octets an application sent, put back in order.

use super::connection::Connection;

/// A piece of a stream, new data only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Side that sent it.
    pub side: usize,
    /// The frame that brought it.
    pub frame: u64,
    /// Octets of the stream in front of it.
    pub offset: u64,
    /// The octets; fewer than `len` where the capture did not keep all.
    pub bytes: Vec<u8>,
    /// How many it has.
    pub len: u64,
    /// Octets before it that were never captured.
    pub missing: u64,
    /// PSH was set on its segment.
    pub push: bool,
}

/// The data of both directions, each in its own order, woven by the frames that completed them.
pub fn chunks(connection: &Connection) -> Vec<Chunk> {
    let mut all = side(connection, 0);
    all.extend(side(connection, 1));
    all.sort_by_key(|chunk| chunk.frame);
    all
}

/// A segment's data at its place in the stream.
struct Piece<'a> {
    offset: u64,
    frame: u64,
    len: u64,
    bytes: &'a [u8],
    push: bool,
}

/// The data of one direction in order; of what came twice, the first.
pub fn side(connection: &Connection, side: usize) -> Vec<Chunk> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut origin: Option<u32> = connection.ends[side].syn.map(|syn| syn.seq.wrapping_add(1));
    let mut reached: u64 = 0;
    for step in connection.steps.iter().filter(|step| step.side == side && step.len > 0) {
        let seq = step.seq.wrapping_add(u32::from(step.flags.contains(crate::wire::TcpFlags::SYN)));
        let origin = *origin.get_or_insert(seq);
        // Numbers wrap every 4 GB: the place nearest to what was reached so far is meant.
        let low = u32::try_from(reached & u64::from(u32::MAX)).unwrap_or(0);
        let ahead = i64::from(seq.wrapping_sub(origin).wrapping_sub(low).cast_signed());
        let Some(offset) = reached.checked_add_signed(ahead) else { continue };
        let len = u64::from(step.len);
        // A keep-alive repeats an old octet, or one that never was.
        if step.codes.has(super::Code::KeepAlive) {
            continue;
        }
        reached = reached.max(offset + len);
        let push = step.flags.contains(crate::wire::TcpFlags::PSH);
        pieces.push(Piece { offset, frame: step.at.frame, len, bytes: &step.data, push });
    }
    pieces.sort_by_key(|piece| (piece.offset, piece.frame));
    let mut chunks = Vec::new();
    let mut at = pieces.first().map_or(0, |piece| if connection.ends[side].syn.is_some() { 0 } else { piece.offset });
    for piece in pieces {
        let end = piece.offset + piece.len;
        if end <= at {
            continue;
        }
        let missing = piece.offset.saturating_sub(at);
        let skip = at.saturating_sub(piece.offset);
        let bytes = piece.bytes.get(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec();
        let offset = piece.offset + skip;
        chunks.push(Chunk {
            side,
            frame: piece.frame,
            offset,
            bytes,
            len: piece.len - skip,
            missing,
            push: piece.push,
        });
        at = end;
    }
    chunks
}
