//! Named sets: ipset's, and nf_tables' own sets and maps.

use std::net::IpAddr;

use crate::wire::MacAddr;

use super::compare::{Field, Operand};
use super::target::Target;
use super::values::{Net, PortRange};

/// One named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// `hash:ip,port`, …, or nft's type.
    pub kind: String,
    /// Elements of an ipset.
    pub elements: Vec<Element>,
    /// Elements of an nft set: the parts of each key.
    pub keys: Vec<Vec<Operand>>,
    /// Elements of an nft verdict map.
    pub verdicts: Vec<(Vec<Operand>, Target)>,
    /// Why its content cannot be relied on (an unknown type, dynamic elements), if so.
    pub unreliable: Option<String>,
    /// The types of an nft key, where they are known.
    pub fields: Vec<Field>,
}

impl Set {
    /// A set with nothing in it.
    pub fn empty(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            elements: Vec::new(),
            keys: Vec::new(),
            verdicts: Vec::new(),
            unreliable: None,
            fields: Vec::new(),
        }
    }
}

/// One element of an ipset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// A part for each dimension of the type.
    pub parts: Vec<ElementPart>,
    /// `nomatch`: an exception to a larger network.
    pub nomatch: bool,
    /// `timeout`: seconds left.
    pub timeout: Option<u32>,
}

/// One part of an ipset element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementPart {
    /// An address or network.
    Net(Net),
    /// Addresses from and to.
    Range(IpAddr, IpAddr),
    /// Protocol and ports; protocol `None` where the type has none (bitmap:port).
    Port {
        /// IANA protocol number.
        proto: Option<u8>,
        /// Ports; for ICMP `type << 8 | code`.
        range: PortRange,
    },
    /// An interface.
    Iface(String),
    /// A hardware address.
    Mac(MacAddr),
    /// A packet mark.
    Mark(u32),
    /// Another set (list:set).
    Set(String),
}
