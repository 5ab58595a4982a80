//! TCP headers, flags and options (RFC 9293, RFC 7323, RFC 2018).

use std::fmt;
use std::net::IpAddr;
use std::ops::BitOr;
use std::str::FromStr;

use pnet_packet::tcp::{MutableTcpPacket, TcpPacket};
use serde::{Deserialize, Serialize};

use super::{HexBytes, Malformed, checksum, protocol, take};

/// The flags of a TCP segment; written `SYN,ACK`, or `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TcpFlags(pub u8);

/// A flag name that TCP does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a TCP flag (FIN, SYN, RST, PSH, ACK, URG, ECE, CWR)")]
pub struct BadFlags(pub String);

impl TcpFlags {
    /// The sender has finished sending.
    pub const FIN: Self = Self(1);
    /// Synchronise sequence numbers: open.
    pub const SYN: Self = Self(2);
    /// Abort.
    pub const RST: Self = Self(4);
    /// Hand the data to the application now.
    pub const PSH: Self = Self(8);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(16);
    /// The urgent pointer counts.
    pub const URG: Self = Self(32);
    /// Congestion seen (RFC 3168).
    pub const ECE: Self = Self(64);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(128);

    /// All names in the order in which tcpdump and iptables write a handshake's flags.
    const NAMES: [(Self, &'static str); 8] = [
        (Self::SYN, "SYN"),
        (Self::FIN, "FIN"),
        (Self::RST, "RST"),
        (Self::PSH, "PSH"),
        (Self::ACK, "ACK"),
        (Self::URG, "URG"),
        (Self::ECE, "ECE"),
        (Self::CWR, "CWR"),
    ];

    /// Whether all of `other`'s flags are set here.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// How much of the sequence space a segment without data takes (RFC 9293 §3.4): SYN and FIN count one each.
    pub fn sequence_len(self) -> u32 {
        u32::from(self.contains(Self::SYN)) + u32::from(self.contains(Self::FIN))
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

impl FromStr for TcpFlags {
    type Err = BadFlags;

    fn from_str(text: &str) -> Result<Self, BadFlags> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(0));
        }
        let flag = |name: &str| {
            let known = Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name.trim()));
            known.map(|(flag, _)| *flag).ok_or_else(|| BadFlags(name.trim().to_owned()))
        };
        text.split([',', '|', '+']).try_fold(Self(0), |flags, name| Ok(flags | flag(name)?))
    }
}

impl From<TcpFlags> for String {
    fn from(flags: TcpFlags) -> Self {
        flags.to_string()
    }
}

impl TryFrom<String> for TcpFlags {
    type Error = BadFlags;

    fn try_from(text: String) -> Result<Self, BadFlags> {
        text.parse()
    }
}

/// A TCP header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpHeader {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; counts only with ACK.
    pub ack: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Window as sent, not scaled.
    pub window: u16,
    /// Checksum as read.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options as sent, 0 to 40 octets.
    pub options: HexBytes,
}

impl TcpHeader {
    /// Length without options, octets.
    pub const MIN_LEN: usize = 20;

    /// A header with window 64240 (what Linux offers over Ethernet) and no options.
    pub fn new(sport: u16, dport: u16, flags: TcpFlags) -> Self {
        let options = HexBytes::default();
        Self { sport, dport, seq: 0, ack: 0, flags, window: 64240, checksum: 0, urgent: 0, options }
    }

    /// Reads the header with its options; also gives its length in octets.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        const WHAT: &str = "TCP header";
        let invalid = |why| Malformed::Invalid { what: WHAT, why };
        let fixed = take(WHAT, bytes, Self::MIN_LEN)?;
        let view = TcpPacket::new(fixed).ok_or(invalid("too short"))?;
        let length = usize::from(view.get_data_offset()) * 4;
        if length < Self::MIN_LEN {
            return Err(invalid("the data offset is below 20 octets"));
        }
        let options = take(WHAT, bytes, length)?[Self::MIN_LEN..].to_vec();
        let header = Self {
            sport: view.get_source(),
            dport: view.get_destination(),
            seq: view.get_sequence(),
            ack: view.get_acknowledgement(),
            flags: TcpFlags(fixed[13]),
            window: view.get_window(),
            checksum: view.get_checksum(),
            urgent: view.get_urgent_ptr(),
            options: HexBytes(options),
        };
        Ok((header, length))
    }

    /// The header's bytes exactly as the fields say.
    pub fn emit(&self) -> Vec<u8> {
        let options = &self.options[..self.options.len().min(40) & !3];
        let length = Self::MIN_LEN + options.len();
        let mut bytes = vec![0; length];
        if let Some(mut view) = MutableTcpPacket::new(&mut bytes) {
            view.set_source(self.sport);
            view.set_destination(self.dport);
            view.set_sequence(self.seq);
            view.set_acknowledgement(self.ack);
            view.set_data_offset(u8::try_from(length / 4).unwrap_or(5));
            view.set_window(self.window);
            view.set_checksum(self.checksum);
            view.set_urgent_ptr(self.urgent);
        }
        bytes[13] = self.flags.0;
        bytes[Self::MIN_LEN..].copy_from_slice(options);
        bytes
    }

    /// A whole segment, the checksum computed.
    pub fn segment(&self, src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Self { checksum: 0, ..self.clone() }.emit();
        bytes.extend_from_slice(payload);
        let sum = checksum::transport(src, dst, protocol::TCP, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// The options in words.
    pub fn parsed_options(&self) -> TcpOptions {
        TcpOptions::parse(&self.options)
    }
}

/// The options that tell stacks and middleboxes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpOptions {
    /// Largest segment the sender takes, octets (kind 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mss: Option<u16>,
    /// Shift count of the window (kind 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_scale: Option<u8>,
    /// Selective acknowledgements allowed (kind 4).
    #[serde(default)]
    pub sack_permitted: bool,
    /// Blocks received out of order, [left, right) (kind 5).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sack: Vec<(u32, u32)>,
    /// Timestamp value and echo (kind 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<(u32, u32)>,
    /// The list ended inside an option, or an option's length is impossible.
    #[serde(default)]
    pub broken: bool,
}

impl TcpOptions {
    /// Reads the options area; what cannot be read sets `broken` and ends the reading.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut rest = bytes;
        let word = |at: &[u8]| u32::from_be_bytes([at[0], at[1], at[2], at[3]]);
        while let [kind, tail @ ..] = rest {
            match kind {
                0 => break,
                1 => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let length = usize::from(tail.first().copied().unwrap_or(0));
            let Some(body) = rest.get(2..length) else {
                found.broken = true;
                break;
            };
            match (kind, body.len()) {
                (2, 2) => found.mss = Some(u16::from_be_bytes([body[0], body[1]])),
                (3, 1) => found.window_scale = Some(body[0]),
                (4, 0) => found.sack_permitted = true,
                (5, length) if length % 8 == 0 => {
                    found.sack = body.chunks_exact(8).map(|block| (word(&block[..4]), word(&block[4..]))).collect();
                }
                (8, 8) => found.timestamps = Some((word(&body[..4]), word(&body[4..]))),
                (2..=5 | 8, _) => found.broken = true,
                _ => {}
            }
            rest = &rest[length..];
        }
        found
    }

    /// The options area, padded with end-of-list to a multiple of 4 octets.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(mss) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            bytes.extend([4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            bytes.extend([8, 10]);
            bytes.extend(value.to_be_bytes());
            bytes.extend(echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            bytes.extend([1, 3, 3, shift]);
        }
        // Three blocks fit beside timestamps (RFC 2018 §3).
        let blocks = &self.sack[..self.sack.len().min((40 - bytes.len().min(40)).saturating_sub(2) / 8)];
        if !blocks.is_empty() {
            bytes.extend([5, u8::try_from(2 + 8 * blocks.len()).unwrap_or(2)]);
            for (left, right) in blocks {
                bytes.extend(left.to_be_bytes());
                bytes.extend(right.to_be_bytes());
            }
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}
