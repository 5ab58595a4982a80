//! The block format (draft-ietf-opsawg-pcapng): sections, interfaces, packets.

use std::io::Read;

use super::{Damage, LARGEST, LARGEST_ANNOUNCED, Step, Window, half, word};

/// Section header block; the same in both byte orders.
pub(super) const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// A file that describes more interfaces than this is hostile.
const MOST_INTERFACES: usize = 65_536;
const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// What a section says of one interface.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: u32,
    snaplen: u32,
    clock: Clock,
}

/// How an interface counts time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// Units in a second.
    per_second: u64,
    /// Added to each stamp, seconds.
    offset: i64,
}

impl Clock {
    fn ns(self, stamp: u64) -> u64 {
        let ns = match self.per_second {
            1_000_000 => u128::from(stamp) * 1000,
            1_000_000_000 => u128::from(stamp),
            units => u128::from(stamp) * 1_000_000_000 / u128::from(units.max(1)),
        };
        let ns = i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(self.offset) * 1_000_000_000);
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// The section that is being read.
#[derive(Debug, Default)]
pub(super) struct Section {
    big_endian: bool,
    begun: bool,
    interfaces: Vec<Interface>,
}

impl Section {
    /// Reads one block.
    #[inline]
    pub(super) fn step<R: Read>(&mut self, window: &mut Window<R>) -> Result<Step, Damage> {
        if window.ensure(12)? == 0 {
            return Ok(Step::End);
        }
        window.require("block", 12)?;
        let at = window.offset;
        let nonsense = |why: String| Damage::Nonsense { what: "block", at, why };
        if word(window.here(), 0, true) == SECTION {
            self.begin(window)?;
            return Ok(Step::Other);
        }
        let kind = word(window.here(), 0, self.big_endian);
        let length = word(window.here(), 4, self.big_endian);
        // Some writers forget to pad the length; libpcap refuses that as well.
        if length < 12 || !length.is_multiple_of(4) {
            return Err(nonsense(format!("its length is given as {length}")));
        }
        let known = matches!(kind, INTERFACE | OLD_PACKET | SIMPLE_PACKET | ENHANCED_PACKET);
        if !known {
            window.skip("block", u64::from(length))?;
            return Ok(Step::Other);
        }
        if length > LARGEST_ANNOUNCED + 65_536 {
            return Err(nonsense(format!("its length is given as {length}")));
        }
        let length = length as usize;
        window.require("block", length)?;
        let block = &window.here()[..length];
        if word(block, length - 4, self.big_endian) as usize != length {
            let tail = word(block, length - 4, self.big_endian);
            return Err(nonsense(format!("it begins with length {length} and ends with length {tail}")));
        }
        let body = &block[8..length - 4];
        let found = match kind {
            INTERFACE => {
                if self.interfaces.len() >= MOST_INTERFACES {
                    return Err(nonsense(format!("it describes more than {MOST_INTERFACES} interfaces")));
                }
                if body.len() < 8 {
                    return Err(nonsense("an interface needs 8 octets".to_owned()));
                }
                let clock = clock(&body[8..], self.big_endian);
                let (link, snaplen) = (half(body, 0, self.big_endian), word(body, 4, self.big_endian));
                self.interfaces.push(Interface { link: link.into(), snaplen, clock });
                None
            }
            _ => Some(self.packet(kind, body).map_err(nonsense)?),
        };
        let start = window.start + 8;
        window.consume(length);
        Ok(match found {
            None => Step::Other,
            Some(found) => Step::Packet {
                at_ns: found.at_ns,
                link: found.link,
                orig_len: found.orig_len,
                start: start + found.at,
                len: found.len,
            },
        })
    }

    /// A section header: from here on another byte order and other interfaces hold.
    fn begin<R: Read>(&mut self, window: &mut Window<R>) -> Result<(), Damage> {
        let at = window.offset;
        let nonsense = |why: String| Damage::Nonsense { what: "section header", at, why };
        window.require("section header", 28)?;
        self.big_endian = match word(window.here(), 8, true) {
            0x1a2b_3c4d => true,
            0x4d3c_2b1a => false,
            other => return Err(nonsense(format!("its byte-order magic is {other:08x}"))),
        };
        let length = word(window.here(), 4, self.big_endian);
        if length < 28 || !length.is_multiple_of(4) || length > LARGEST_ANNOUNCED {
            return Err(nonsense(format!("its length is given as {length}")));
        }
        let major = half(window.here(), 12, self.big_endian);
        if major != 1 {
            return Err(nonsense(format!("it is of version {major}, and only version 1 is known")));
        }
        self.interfaces.clear();
        self.begun = true;
        window.skip("section header", u64::from(length))
    }

    fn packet(&self, kind: u32, body: &[u8]) -> Result<Found, String> {
        let big = self.big_endian;
        let least = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < least {
            return Err(format!("a packet block needs {least} octets, and has {}", body.len()));
        }
        let interface = match kind {
            SIMPLE_PACKET => 0,
            OLD_PACKET => u32::from(half(body, 0, big)),
            _ => word(body, 0, big),
        };
        let Some(known) = self.interfaces.get(interface as usize) else {
            return Err(format!("it is of interface {interface}, which was not described"));
        };
        let found = if kind == SIMPLE_PACKET {
            let orig_len = word(body, 0, big);
            let limit = if known.snaplen == 0 { orig_len } else { known.snaplen.min(orig_len) };
            let len = (limit as usize).min(body.len() - 4);
            Found { at_ns: 0, link: known.link, orig_len, at: 4, len }
        } else {
            let stamp = u64::from(word(body, 4, big)) << 32 | u64::from(word(body, 8, big));
            let (kept, orig_len) = (word(body, 12, big), word(body, 16, big));
            if kept > known.snaplen.clamp(LARGEST, LARGEST_ANNOUNCED) || kept as usize > body.len() - 20 {
                return Err(format!("its packet claims {kept} octets, and {} are there", body.len() - 20));
            }
            Found { at_ns: known.clock.ns(stamp), link: known.link, orig_len, at: 20, len: kept as usize }
        };
        Ok(found)
    }
}

/// A packet within a block's body.
struct Found {
    at_ns: u64,
    link: u32,
    orig_len: u32,
    at: usize,
    len: usize,
}

/// Reads `if_tsresol` and `if_tsoffset` of an interface's options.
fn clock(mut options: &[u8], big_endian: bool) -> Clock {
    let mut clock = Clock { per_second: 1_000_000, offset: 0 };
    while options.len() >= 4 {
        let (code, length) = (half(options, 0, big_endian), usize::from(half(options, 2, big_endian)));
        let Some(value) = options.get(4..4 + length) else { break };
        match (code, value) {
            (OPTION_END, _) => break,
            (OPTION_RESOLUTION, [exponent]) => {
                // The first bit says whether the rest is a power of 2 or of 10.
                let power = u32::from(exponent & 0x7f);
                let units = if exponent & 0x80 == 0 { 10u64.checked_pow(power) } else { 1u64.checked_shl(power) };
                clock.per_second = units.filter(|units| *units > 0).unwrap_or(u64::MAX);
            }
            (OPTION_OFFSET, value) if value.len() == 8 => {
                let octets: [u8; 8] = value.try_into().unwrap_or_default();
                clock.offset = if big_endian { i64::from_be_bytes(octets) } else { i64::from_le_bytes(octets) };
            }
            _ => {}
        }
        let padded = (4 + length).next_multiple_of(4);
        options = options.get(padded..).unwrap_or_default();
    }
    clock
}
