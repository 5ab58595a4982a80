//! Link headers: how to the network layer.

use super::Rest;
use crate::wire::capture::linktype as lt;
use crate::wire::ethertype;

/// VLAN tags, as 802.1Q, 802.1ad and older equipment write them.
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
const PPPOE_SESSION: u16 = 0x8864;
const MPLS: [u16; 2] = [0x8847, 0x8848];
/// Below this the field is a length (IEEE 802.3).
const LEAST_TYPE: u16 = 1536;
/// Tags and labels that are followed.
const DEPTH: usize = 16;
/// `NFULA_PAYLOAD`.
const NFLOG_PAYLOAD: u16 = 9;

/// The EtherType of the network layer and what begins there; `None` where there is none.
#[inline]
pub(super) fn network(link: u32, rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    match link {
        lt::ETHERNET => ethertype(rest.half(12)?, rest.after(14)?),
        lt::RAW | lt::RAW_BSD | lt::RAW_OPENBSD | lt::IPV4 | lt::IPV6 => by_version(rest),
        lt::LINUX_SLL => ethertype(rest.half(14)?, rest.after(16)?),
        lt::LINUX_SLL2 => ethertype(rest.half(0)?, rest.after(20)?),
        // The family is in the order of the machine that captured, and IPv6 has a number of its own in each BSD.
        lt::NULL | lt::LOOP => match (rest.word(0)?, rest.after(4)?) {
            (2 | 0x0200_0000 | 24 | 28 | 30 | 10 | 0x1800_0000 | 0x1c00_0000 | 0x1e00_0000 | 0x0a00_0000, inside) => {
                by_version(inside)
            }
            _ => None,
        },
        lt::PPP | lt::PPP_HDLC => ppp(rest),
        lt::PPPOE => ppp(rest.after(6)?),
        lt::C_HDLC => ethertype(rest.half(2)?, rest.after(4)?),
        lt::NFLOG => nflog(rest),
        _ => None,
    }
}

fn by_version(rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    match rest.bytes.first()? >> 4 {
        4 => Some((ethertype::IPV4, rest)),
        6 => Some((ethertype::IPV6, rest)),
        _ => None,
    }
}

/// Goes through tags, labels and sessions to IP.
#[inline]
pub(super) fn ethertype(mut kind: u16, mut rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    for _ in 0..DEPTH {
        match kind {
            ethertype::IPV4 | ethertype::IPV6 => return Some((kind, rest)),
            kind if TAGS.contains(&kind) => {}
            PPPOE_SESSION => {
                // RFC 2516 §4: the header gives the session's length, the frame may be padded.
                let length = usize::from(rest.half(4)?);
                return ppp(rest.after(6)?.limit(length));
            }
            kind if MPLS.contains(&kind) => return mpls(rest),
            kind if kind < LEAST_TYPE => {
                // 802.2 with SNAP (RFC 1042).
                let snap = rest.bytes.first_chunk::<8>()?;
                if snap[..6] != [0xaa, 0xaa, 3, 0, 0, 0] {
                    return None;
                }
                let inside = rest.limit(usize::from(kind)).after(8)?;
                let inner = u16::from_be_bytes([snap[6], snap[7]]);
                return if inner < LEAST_TYPE { None } else { ethertype(inner, inside) };
            }
            _ => return None,
        }
        (kind, rest) = (rest.half(2)?, rest.after(4)?);
    }
    None
}

/// PPP, with or without the HDLC address and control octets, the protocol field long or compressed.
pub(super) fn ppp(rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    let rest = if rest.bytes.starts_with(&[0xff, 3]) { rest.after(2)? } else { rest };
    match rest.bytes {
        [0, 0x21, ..] => Some((ethertype::IPV4, rest.after(2)?)),
        [0, 0x57, ..] => Some((ethertype::IPV6, rest.after(2)?)),
        [0x21, ..] => Some((ethertype::IPV4, rest.after(1)?)),
        [0x57, ..] => Some((ethertype::IPV6, rest.after(1)?)),
        _ => None,
    }
}

fn mpls(mut rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    for _ in 0..DEPTH {
        let label = rest.word(0)?;
        rest = rest.after(4)?;
        if label & 0x100 != 0 {
            return by_version(rest);
        }
    }
    None
}

/// Netfilter's log: attributes, of which one is the packet.
fn nflog(rest: Rest<'_>) -> Option<(u16, Rest<'_>)> {
    let mut rest = rest.after(4)?;
    loop {
        // The capturing machine's byte order: nearly always little endian; a length that does not fit says otherwise.
        let head = rest.bytes.first_chunk::<4>()?;
        let little = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let big = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
        let fits = |(length, kind): (u16, u16)| length >= 4 && usize::from(length) <= rest.wire && kind & 0x7fff < 64;
        let (length, kind) = if fits(little) { little } else { big };
        if length < 4 {
            return None;
        }
        let length = usize::from(length);
        if kind & 0x7fff == NFLOG_PAYLOAD {
            return by_version(rest.limit(length).after(4)?);
        }
        rest = rest.after(length.next_multiple_of(4))?;
    }
}
