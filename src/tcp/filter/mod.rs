//! Filters in the language of pcap-filter(7): the part that people use.
//!
//! `host`, `net`, `port`, `portrange` with `src` and `dst`; `ip`, `ip6`, `tcp`, `udp`, `icmp`, `icmp6`, `arp`, `vlan`;
//! `less`, `greater` and `len`; comparisons over `tcp[13] & tcp-syn != 0`; `and`, `or`, `not`, brackets. VLAN tags are
//! seen through without `vlan`; of a tunnel, the outer packet is meant, as with libpcap.

mod eval;
mod parse;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::capture::RawPacket;

/// A filter that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: String,
    test: Test,
}

/// Why a filter was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}, at `{at}`")]
pub struct BadFilter {
    /// What is wrong.
    pub why: String,
    /// Where.
    pub at: String,
}

/// Which end an address or port is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Src,
    Dst,
    Either,
    Both,
}

/// A protocol word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proto {
    Ip,
    Ip6,
    Arp,
    Tcp,
    Udp,
    Icmp,
    Icmp6,
    Number(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Always,
    Is(Proto),
    Net { proto: Option<Proto>, direction: Direction, net: IpAddr, bits: u8 },
    Port { proto: Option<Proto>, direction: Direction, low: u16, high: u16 },
    Vlan(Option<u16>),
    Compare { left: Sum, relation: Relation, right: Sum },
    Not(Box<Test>),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Plus,
    Minus,
    Times,
    Over,
    Modulo,
    And,
    Or,
    Xor,
    Left,
    Right,
}

/// From where octets are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Link,
    Network(Proto),
    Transport(Proto),
}

/// Arithmetic over octets of the packet, modulo 2³².
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sum {
    Number(u32),
    Length,
    Octets { base: Base, at: Box<Sum>, size: u8 },
    Apply(Box<Sum>, Operator, Box<Sum>),
}

impl Filter {
    /// Whether a packet fits.
    pub fn matches(&self, packet: &RawPacket<'_>) -> bool {
        eval::matches(&self.test, packet)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        Ok(Self { text: text.to_owned(), test: parse::parse(text)? })
    }
}

#[cfg(test)]
mod tests;
