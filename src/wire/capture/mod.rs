//! Capture files as a stream: pcap and pcapng, either byte order, microseconds or nanoseconds.
//!
//! [`CaptureReader`] keeps one buffer and hands out records inside it, so that a file of any size needs the same
//! memory. Nothing of a file is believed before it is checked: a length is looked at before a byte is read, a block
//! that cannot be is named with its place in the file, and what was read until then stays good ([`Damage`]).

mod pcapng;

use std::io::{self, Read};

use pcapng::Section;

pub mod linktype;

/// A record longer than this is taken as damage (libpcap's `MAXIMUM_SNAPLEN`), unless the file itself announces more.
const LARGEST: u32 = 262_144;
/// More than this is never believed, whatever the file announces.
const LARGEST_ANNOUNCED: u32 = 16 << 20;
/// First size of the buffer; one read of the system fills it.
const BUFFER: usize = 1 << 20;

/// One packet of a file, still in the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// When, nanoseconds since 1970-01-01 UTC; 0 where the file does not say.
    pub at_ns: u64,
    /// What its bytes begin with ([`linktype`]).
    pub link: u32,
    /// Octets it had on the wire.
    pub orig_len: u32,
    /// The octets that were kept.
    pub bytes: &'a [u8],
}

/// Which format a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The classic format (draft-ietf-opsawg-pcap).
    Pcap,
    /// Blocks, several interfaces (draft-ietf-opsawg-pcapng).
    Pcapng,
}

/// Why reading ended before the end of the file was reached in good order.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// Neither format.
    #[error("this is no capture file: {0}")]
    Format(String),
    /// The file ends inside a record or block.
    #[error("the file ends inside the {what} that begins at octet {at}: {have} of {need} octets are there")]
    Truncated {
        /// Record, block, header.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// What it needs.
        need: usize,
        /// What is there.
        have: usize,
    },
    /// A length or field that cannot be.
    #[error("the {what} at octet {at} is damaged: {why}")]
    Nonsense {
        /// Record, block, header.
        what: &'static str,
        /// Where it begins.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// The system, or the decompressor, could not read on.
    #[error("cannot read on at octet {at}: {source}")]
    Read {
        /// How far it was read.
        at: u64,
        /// What was said.
        source: io::Error,
    },
}

/// How far a step of the reader got.
enum Step {
    /// A packet: its bytes are at this range of the buffer.
    Packet { at_ns: u64, link: u32, orig_len: u32, start: usize, len: usize },
    /// Something else was read; go on.
    Other,
    /// The file ended in good order.
    End,
}

/// Bytes of the source that were read and not yet used up.
struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Octets of the file in front of `start`.
    offset: u64,
    ended: bool,
}

impl<R: Read> Window<R> {
    fn here(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn have(&self) -> usize {
        self.end - self.start
    }

    /// Makes `need` octets available, if the source has them; how many are there.
    fn ensure(&mut self, need: usize) -> Result<usize, Damage> {
        if self.have() >= need || self.ended {
            return Ok(self.have());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < need {
            self.buffer.resize(need.next_power_of_two(), 0);
        }
        while self.end < need {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.ended = true;
                    return Err(Damage::Read { at: self.offset + self.end as u64, source });
                }
            }
        }
        Ok(self.have())
    }

    /// `need` octets, or that the file ends here.
    fn require(&mut self, what: &'static str, need: usize) -> Result<(), Damage> {
        let have = self.ensure(need)?;
        if have < need { Err(Damage::Truncated { what, at: self.offset, need, have }) } else { Ok(()) }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Passes over octets without keeping them.
    fn skip(&mut self, what: &'static str, count: u64) -> Result<(), Damage> {
        let mut left = count;
        let at = self.offset;
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER);
            let have = self.ensure(step)?.min(step);
            if have == 0 {
                let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
                return Err(Damage::Truncated { what, at, need: number(count), have: number(count - left) });
            }
            self.consume(have);
            left -= have as u64;
        }
        Ok(())
    }
}

/// Reads the packets of a capture one by one.
pub struct CaptureReader<R> {
    window: Window<R>,
    body: Body,
}

enum Body {
    Pcap { big_endian: bool, to_ns: u32, header: usize, link: u32, largest: u32 },
    Pcapng(Section),
}

impl<R> std::fmt::Debug for CaptureReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader").field("offset", &self.window.offset).finish_non_exhaustive()
    }
}

fn half(bytes: &[u8], at: usize, big_endian: bool) -> u16 {
    let octets = bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).unwrap_or_default();
    if big_endian { u16::from_be_bytes(octets) } else { u16::from_le_bytes(octets) }
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let octets = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).unwrap_or_default();
    if big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
}

impl<R: Read> CaptureReader<R> {
    /// Reads the file's first header.
    ///
    /// # Errors
    /// When it is no capture file, or ends at once.
    pub fn new(source: R) -> Result<Self, Damage> {
        let mut window = Window { source, buffer: vec![0; BUFFER], start: 0, end: 0, offset: 0, ended: false };
        let have = window.ensure(24)?;
        if have == 0 {
            return Err(Damage::Format("it is empty".to_owned()));
        }
        if have < 4 {
            return Err(Damage::Format(format!("it has {have} octets")));
        }
        let magic = word(window.here(), 0, true);
        // Kuznetzov's patched libpcap (2.x of some distributions) has 8 octets more in each record.
        let (big_endian, to_ns, header) = match magic {
            pcapng::SECTION => return Ok(Self { window, body: Body::Pcapng(Section::default()) }),
            0xa1b2_c3d4 => (true, 1000, 16),
            0xd4c3_b2a1 => (false, 1000, 16),
            0xa1b2_3c4d => (true, 1, 16),
            0x4d3c_b2a1 => (false, 1, 16),
            0xa1b2_cd34 => (true, 1000, 24),
            0x34cd_b2a1 => (false, 1000, 24),
            _ => return Err(Damage::Format(other_format(window.here()))),
        };
        window.require("file header", 24)?;
        // The upper bits say how long the frames' checksums are.
        let link = word(window.here(), 20, big_endian) & 0x0fff_ffff;
        let snaplen = word(window.here(), 16, big_endian);
        window.consume(24);
        let largest = snaplen.clamp(LARGEST, LARGEST_ANNOUNCED);
        Ok(Self { window, body: Body::Pcap { big_endian, to_ns, header, link, largest } })
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        if matches!(self.body, Body::Pcap { .. }) { Format::Pcap } else { Format::Pcapng }
    }

    /// Octets of the (uncompressed) file that were used up.
    pub fn offset(&self) -> u64 {
        self.window.offset
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// [`Damage`]; after that nothing more comes.
    #[inline]
    pub fn next_packet(&mut self) -> Result<Option<RawPacket<'_>>, Damage> {
        loop {
            let step = match &mut self.body {
                Body::Pcap { big_endian, to_ns, header, link, largest } => {
                    pcap_record(&mut self.window, *big_endian, *to_ns, *header, *link, *largest)
                }
                Body::Pcapng(section) => section.step(&mut self.window),
            };
            match step {
                Ok(Step::Packet { at_ns, link, orig_len, start, len }) => {
                    let bytes = &self.window.buffer[start..start + len];
                    return Ok(Some(RawPacket { at_ns, link, orig_len, bytes }));
                }
                Ok(Step::Other) => {}
                Ok(Step::End) => return Ok(None),
                Err(damage) => {
                    self.window.ended = true;
                    self.window.start = self.window.end;
                    return Err(damage);
                }
            }
        }
    }
}

#[inline]
fn pcap_record<R: Read>(
    window: &mut Window<R>,
    big_endian: bool,
    to_ns: u32,
    header: usize,
    link: u32,
    largest: u32,
) -> Result<Step, Damage> {
    if window.ensure(header)? == 0 {
        return Ok(Step::End);
    }
    window.require("record", header)?;
    let here = window.here();
    let field = |index: usize| word(here, 4 * index, big_endian);
    let (seconds, fraction, kept, orig_len) = (field(0), field(1), field(2), field(3));
    if kept > largest {
        let why = format!("it claims {kept} octets, and no packet is longer than {largest}");
        return Err(Damage::Nonsense { what: "record", at: window.offset, why });
    }
    let kept = kept as usize;
    window.require("record", header + kept)?;
    let start = window.start + header;
    window.consume(header + kept);
    let at_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * u64::from(to_ns);
    Ok(Step::Packet { at_ns, link, orig_len, start, len: kept })
}

/// What a file that is no capture may be, by its first octets.
fn other_format(bytes: &[u8]) -> String {
    let known: &[(&[u8], &str)] = &[
        (b"snoop\0\0\0", "it is a snoop file; `editcap -F pcap` converts it"),
        (b"XCP\0", "it is a NetXRay file; `editcap -F pcap` converts it"),
        (b"GMBU", "it is a Microsoft Network Monitor file; `editcap -F pcap` converts it"),
        (b"RTSS", "it is a Microsoft Network Monitor file; `editcap -F pcap` converts it"),
        (b"BZh", "it is compressed with bzip2; decompress it first"),
        (b"\xfd7zXZ", "it is compressed with xz; decompress it first"),
        (b"PK\x03\x04", "it is a ZIP archive; unpack it first"),
        (b"\x7fELF", "it is a program"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return (*what).to_owned();
    }
    let text = bytes.iter().take(24).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if text {
        return "it looks like text; pcap and pcapng are binary".to_owned();
    }
    let first = bytes.iter().take(4).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    format!("its first octets are {first:08x}, not those of pcap or pcapng")
}

#[cfg(test)]
mod tests;
