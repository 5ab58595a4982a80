//! What a segment's header tells by itself: TCP Fast Open, and checksums that are wrong in earnest.

use super::code::Code;
use super::connection::Connection;
use crate::wire::{Segment, TcpFlags};

/// So many checksums must be right before one is called wrong: one in 65536 is right by chance.
const RIGHT_FIRST: u32 = 3;
impl Connection {
    /// TCP Fast Open (RFC 7413), as Wireshark tells it: a cookie with the SYN, and what became of the SYN's data.
    pub(super) fn fast_open(&self, segment: &Segment<'_>, side: usize) -> Option<Code> {
        if !segment.has(TcpFlags::SYN) {
            return None;
        }
        if !segment.has(TcpFlags::ACK) {
            return has_cookie(segment.options).then_some(Code::TfoSyn);
        }
        let opener = &self.ends[1 - side];
        let taken = segment.ack.wrapping_sub(opener.direction.base?);
        if taken > 1 {
            return Some(Code::TfoAck);
        }
        (taken == 1 && opener.syn.is_some_and(|syn| syn.data > 0)).then_some(Code::TfoIgnored)
    }

    /// Whether a checksum is wrong, and not because the sender's card fills it in behind the capture point: where
    /// such a one was seen, or none that is right, nothing is said.
    pub(super) fn checksum_is_wrong(&mut self, segment: &Segment<'_>, side: usize) -> bool {
        let mss = self.ends[1 - side].syn.and_then(|syn| syn.mss).map_or(1460, u32::from);
        let end = &mut self.ends[side];
        // What a card has put together from several segments has the checksum of one of them.
        if end.offloads || segment.len() > mss {
            return false;
        }
        match segment.checksum_good() {
            Some(true) => end.checksums_right = end.checksums_right.saturating_add(1),
            Some(false) if segment.checksum_partial() || end.checksums_right < RIGHT_FIRST => end.offloads = true,
            Some(false) => return true,
            None => {}
        }
        false
    }
}

/// Whether the options have a Fast Open cookie (kind 34; empty it is the request for one).
fn has_cookie(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest.first()) {
            (0, _) => return false,
            (1, _) => rest,
            (34, Some(length)) if *length > 2 => return true,
            // The experimental form that came before the number 34 was given.
            (253 | 254, Some(length)) if *length > 4 && rest.get(1..3) == Some(&[0xf9, 0x89]) => return true,
            (_, Some(length)) if *length >= 2 => options.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        };
    }
    false
}
