//! The classic pcap file (draft-ietf-opsawg-pcap): reading all four variants, writing nanoseconds.

/// `LINKTYPE_ETHERNET`.
pub const ETHERNET: u32 = 1;
/// `LINKTYPE_RAW`: packets begin with an IP header.
pub const RAW: u32 = 101;
/// A record longer than this is taken as a broken file (tcpdump's `MAXIMUM_SNAPLEN`).
const MAX_RECORD: u32 = 262_144;

/// One packet of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, nanoseconds since 1970-01-01 UTC.
    pub at_ns: u64,
    /// Octets it had on the wire.
    pub orig_len: u32,
    /// The octets that were kept.
    pub bytes: &'a [u8],
}

/// Why a file could not be read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPcap {
    /// Another format.
    #[error("not a pcap file (its first four octets are {0:08x})")]
    Magic(u32),
    /// The file ends inside a header or record.
    #[error("the file ends inside the record at octet {0}")]
    Truncated(usize),
    /// A record claims an impossible length.
    #[error("the record at octet {at} claims {length} octets")]
    Length {
        /// Where the record begins.
        at: usize,
        /// What it claims.
        length: u32,
    },
}

/// A reader over a file's bytes: an iterator of records; after an error it ends.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
    nanoseconds: bool,
    /// Link type of all packets, the FCS bits removed.
    pub link_type: u32,
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let octets: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) })
}

impl<'a> Reader<'a> {
    /// Reads the file header.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BadPcap> {
        let magic = word(bytes, 0, true).ok_or(BadPcap::Truncated(0))?;
        let (big_endian, nanoseconds) = match magic {
            0xa1b2_c3d4 => (true, false),
            0xd4c3_b2a1 => (false, false),
            0xa1b2_3c4d => (true, true),
            0x4d3c_b2a1 => (false, true),
            other => return Err(BadPcap::Magic(other)),
        };
        let link_type = word(bytes, 20, big_endian).ok_or(BadPcap::Truncated(0))? & 0x0fff_ffff;
        Ok(Self { bytes, at: 24, big_endian, nanoseconds, link_type })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Record<'a>, BadPcap>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        if at >= self.bytes.len() {
            return None;
        }
        self.at = self.bytes.len();
        let field = |index: usize| word(self.bytes, at + 4 * index, self.big_endian).ok_or(BadPcap::Truncated(at));
        let read = || {
            let (seconds, fraction, kept, orig_len) = (field(0)?, field(1)?, field(2)?, field(3)?);
            if kept > MAX_RECORD {
                return Err(BadPcap::Length { at, length: kept });
            }
            let end = at + 16 + usize::try_from(kept).unwrap_or(usize::MAX);
            let bytes = self.bytes.get(at + 16..end).ok_or(BadPcap::Truncated(at))?;
            let nanoseconds = u64::from(fraction) * if self.nanoseconds { 1 } else { 1000 };
            Ok((Record { at_ns: u64::from(seconds) * 1_000_000_000 + nanoseconds, orig_len, bytes }, end))
        };
        let outcome = read();
        Some(outcome.map(|(record, end)| {
            self.at = end;
            record
        }))
    }
}

/// A file's bytes, written record by record: little endian, nanoseconds.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a file of this link type.
    pub fn new(link_type: u32) -> Self {
        let mut bytes = Vec::new();
        bytes.extend(0xa1b2_3c4d_u32.to_le_bytes());
        bytes.extend(2u16.to_le_bytes());
        bytes.extend(4u16.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(MAX_RECORD.to_le_bytes());
        bytes.extend(link_type.to_le_bytes());
        Self { bytes }
    }

    /// Adds a packet. The format's clock ends in 2106; its length field at 256 KiB, what is beyond is cut.
    pub fn push(&mut self, at_ns: u64, orig_len: u32, packet: &[u8]) {
        let kept = &packet[..packet.len().min(MAX_RECORD as usize)];
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
        self.bytes.extend(small(at_ns / 1_000_000_000));
        self.bytes.extend(small(at_ns % 1_000_000_000));
        self.bytes.extend(small(kept.len() as u64));
        self.bytes.extend(orig_len.to_le_bytes());
        self.bytes.extend_from_slice(kept);
    }

    /// The file.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
