//! The Internet checksum (RFC 1071) and the pseudo-headers it covers.

use std::net::IpAddr;

/// The ones' complement sum of all parts as if they were one run of bytes, complemented.
///
/// Parts may be of odd length. Over bytes that carry a right checksum the result is 0.
pub fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    let mut odd = false;
    for part in parts {
        let mut rest = *part;
        if odd && let Some((first, tail)) = rest.split_first() {
            sum += u64::from(*first);
            (rest, odd) = (tail, false);
        }
        // Ones' complement addition is the same in words of any size, and in either order of octets, turned at the
        // end (RFC 1071 §2 (B), (C)): so that the loop needs no turning, and runs on vectors.
        let words = rest.chunks_exact(4);
        let tail = words.remainder();
        let mut native: u64 = 0;
        for word in words {
            native += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        while native > 0xffff {
            native = (native & 0xffff) + (native >> 16);
        }
        sum += u64::from(u16::from_be_bytes(u16::try_from(native).unwrap_or(0).to_ne_bytes()));
        for pair in tail.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
            odd = pair.len() == 1;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The sum, not complemented, of a pseudo-header alone: a segment has it in its checksum field while the network card
/// is to compute the rest.
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, length: u32) -> u16 {
    let four = length.to_be_bytes();
    !match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            internet(&[&src.octets(), &dst.octets(), &[0, protocol], four.get(2..).unwrap_or_default()])
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => internet(&[&src.octets(), &dst.octets(), &four, &[0, 0, 0, protocol]]),
        _ => 0xffff,
    }
}

/// The checksum of a TCP, UDP or ICMPv6 segment under its pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// The segment's own checksum field must hold 0 to compute it; with the right one in place the result is 0.
/// Addresses of different families make no packet: only the segment is summed then.
pub fn transport(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = u16::try_from(segment.len()).unwrap_or(u16::MAX).to_be_bytes();
            internet(&[&src.octets(), &dst.octets(), &[0, protocol], &length, segment])
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let length = u32::try_from(segment.len()).unwrap_or(u32::MAX).to_be_bytes();
            internet(&[&src.octets(), &dst.octets(), &length, &[0, 0, 0, protocol], segment])
        }
        _ => internet(&[segment]),
    }
}
