//! What can be found on a connection: the codes, how grave each is, what it means.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How grave a finding is, in Wireshark's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of how TCP works.
    Chat,
    /// Worth a look.
    Note,
    /// Something went wrong on the way.
    Warn,
    /// The connection failed or was damaged by it.
    Error,
}

macro_rules! codes {
    ($($name:ident $text:literal $severity:ident $meaning:literal,)+) => {
        /// A kind of finding. Names and conditions of the first block are Wireshark's (`tcp.analysis.*`), and agree
        /// with `tshark` frame by frame; the rest is ours.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its name in JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// How grave it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    Retransmission "retransmission" Note "The same data again, because no acknowledgement came in time.",
    FastRetransmission "fast_retransmission" Note "The same data again, because duplicate ACKs told of a hole.",
    SpuriousRetransmission "spurious_retransmission" Note "Data again that the peer had already acknowledged.",
    OutOfOrder "out_of_order" Warn "A segment that comes after one with a higher sequence number.",
    DuplicateAck "duplicate_ack" Note "The same acknowledgement again: the peer got something that leaves a hole before it.",
    LostSegment "lost_segment" Warn "A segment before this one was not captured: lost, or missed by the capture.",
    AckLostSegment "ack_lost_segment" Warn "It acknowledges data that was not captured.",
    ZeroWindow "zero_window" Warn "The receiver's buffer is full: its application does not read.",
    ZeroWindowProbe "zero_window_probe" Note "One octet, to ask whether a closed window has opened.",
    ZeroWindowProbeAck "zero_window_probe_ack" Note "The answer to a probe: the window is still closed.",
    WindowUpdate "window_update" Chat "The receiver tells of another window, and nothing else.",
    WindowFull "window_full" Warn "The sender has filled the window that the receiver allows, and must wait.",
    KeepAlive "keep_alive" Note "An old octet or none, to see whether the peer is still there.",
    KeepAliveAck "keep_alive_ack" Note "The answer to a keep-alive.",
    PortReused "port_reused" Note "A new connection with the same addresses and ports as one before.",
    TfoSyn "tfo_syn" Note "A SYN with a TCP Fast Open cookie: data may come with it, before the handshake is done.",
    TfoAck "tfo_ack" Note "The SYN-ACK takes the data that came with the SYN (TCP Fast Open).",
    TfoIgnored "tfo_ignored" Note "The SYN-ACK does not take the data that came with the SYN: it must be sent again.",

    SynUnanswered "syn_unanswered" Error "The SYN got no answer: dropped on the way, or the answer was.",
    SynRefused "syn_refused" Error "The SYN was answered with RST: nothing listens, or something refuses for it.",
    HalfOpen "half_open" Warn "One end has a connection that the other does not know (any more).",
    ResetByOtherHop "reset_by_other_hop" Error "The RST does not look like the peer's own packets: something between sent it.",
    IllegalFlags "illegal_flags" Warn "A set of flags that no TCP sends: a scan, or damage.",
    SimultaneousOpen "simultaneous_open" Note "Both ends sent a SYN before they saw the other's.",
    NotClosed "not_closed" Note "The capture ends, or the connection fell silent, without FIN or RST.",
    ServerSilent "server_silent" Error "The server took the connection and the request, and never answered.",
    ResetMidTransfer "reset_mid_transfer" Error "Reset while an exchange was under way.",
    WindowStall "window_stall" Warn "Data waited for a window that the receiver kept closed.",
    RetransmissionStorm "retransmission_storm" Error "The same data again and again without an answer.",
    MtuBlackHole "mtu_black_hole" Error "Small segments pass, full-sized ones do not, and nobody says so.",
    DelayedAckStall "delayed_ack_stall" Warn "A small write waited for a delayed ACK (Nagle's algorithm against delayed ACK).",
    IcmpError "icmp_error" Error "A router or host answered with an ICMP error.",
    OptionsStripped "options_stripped" Warn "Options that one end offered did not come back as they should: a middlebox may take them out.",
    BadChecksum "bad_checksum" Warn "The checksum is wrong, and not because the sending host lets its card compute it.",
    Malformed "malformed" Warn "A TCP header that contradicts itself.",
    ResponseSlow "response_slow" Note "The server took long to begin its answer.",
    SynFlood "syn_flood" Error "Very many SYNs to one service that are never completed.",
    PortScan "port_scan" Warn "One host knocks at many ports.",
}

impl Code {
    /// Whether Wireshark has it under the same conditions.
    pub const fn is_shared(self) -> bool {
        (self as u8) <= Self::TfoIgnored as u8
    }

    /// The field of Wireshark that shows it.
    pub fn wireshark_field(self) -> Option<String> {
        let name = if self == Self::PortReused { "reused_ports" } else { self.name() };
        self.is_shared().then(|| format!("tcp.analysis.{name}"))
    }

    /// Its bit in [`Codes`].
    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A set of codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Codes(u64);

impl Codes {
    /// Adds a code.
    pub fn add(&mut self, code: Code) {
        self.0 |= code.bit();
    }

    /// Whether a code is in it.
    pub fn has(self, code: Code) -> bool {
        self.0 & code.bit() != 0
    }

    /// Whether one of these is in it.
    pub fn any(self, codes: &[Code]) -> bool {
        codes.iter().any(|code| self.has(*code))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All in both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// They, one by one, in the order of [`Code::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Code> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let code = Code::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*code)
        })
    }
}

impl Serialize for Codes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_what_was_put_in() {
        let mut codes = Codes::default();
        assert_eq!(codes.iter().count(), 0);
        for code in [Code::WindowFull, Code::Retransmission, Code::PortScan] {
            codes.add(code);
        }
        let back: Vec<Code> = codes.iter().collect();
        assert_eq!(back, [Code::Retransmission, Code::WindowFull, Code::PortScan]);
        assert!(Code::ALL.len() <= 64 && codes.has(Code::PortScan) && !codes.has(Code::KeepAlive));
    }

    #[test]
    fn names_are_the_contract() {
        for name in
            "retransmission fast_retransmission spurious_retransmission out_of_order duplicate_ack lost_segment \
                     ack_lost_segment zero_window zero_window_probe window_full keep_alive port_reused syn_unanswered \
                     syn_refused half_open reset_by_other_hop illegal_flags simultaneous_open not_closed"
                .split_whitespace()
        {
            assert!(Code::ALL.iter().any(|code| code.name() == name), "{name}");
        }
    }
}
