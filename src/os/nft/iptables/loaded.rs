//! What a register holds, and how compared bytes read as iptables' values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::expr::Base;
use super::super::xt;

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// Bytes of the packet, perhaps masked.
    Payload { base: Base, offset: u32, len: u32, mask: Option<Vec<u8>> },
    /// Metadata, perhaps masked and with bits flipped.
    Meta { key: u32, mask: Option<Vec<u8>>, xor: Option<Vec<u8>> },
    /// The connection's state, perhaps masked.
    CtState { mask: Option<Vec<u8>> },
    /// A constant.
    Value(Vec<u8>),
}

impl Loaded {
    /// The same behind a mask; `None` for what iptables never masks so.
    pub(crate) fn masked(&self, by: &[u8], flip: &[u8]) -> Option<Self> {
        let plain = flip.iter().all(|byte| *byte == 0);
        Some(match self {
            Self::Payload { base, offset, len, mask: None } if plain => {
                Self::Payload { base: *base, offset: *offset, len: *len, mask: Some(by.to_vec()) }
            }
            Self::Meta { key, mask: None, xor: None } => {
                Self::Meta { key: *key, mask: Some(by.to_vec()), xor: (!plain).then(|| flip.to_vec()) }
            }
            Self::CtState { mask: None } if plain => Self::CtState { mask: Some(by.to_vec()) },
            _ => return None,
        })
    }

    /// `sport` or `dport`, if it is one.
    pub(crate) fn port_side(&self) -> Option<&'static str> {
        match self {
            Self::Payload { base: Base::Transport, offset: 0, len: 2, mask: None } => Some("sport"),
            Self::Payload { base: Base::Transport, offset: 2, len: 2, mask: None } => Some("dport"),
            _ => None,
        }
    }
}

/// An address of 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
        _ => None,
    }
}

/// `address/prefix` of a comparison: a short one is a prefix of whole bytes.
pub(crate) fn network(data: &[u8], mask: Option<&[u8]>, width: usize) -> Option<String> {
    let known = data.len();
    if known == 0 || known > width || mask.is_some_and(|mask| mask.len() != known) {
        return None;
    }
    let mut bits = vec![0u8; width];
    match mask {
        Some(mask) => bits[..known].copy_from_slice(mask),
        None => bits[..known].fill(u8::MAX),
    }
    let mut whole = data.to_vec();
    whole.resize(width, 0);
    Some(xt::network(address(&whole)?, address(&bits)?))
}

/// An interface's name: with its NUL it is whole, without a prefix (`eth+`).
pub(crate) fn interface(data: &[u8]) -> Option<String> {
    let name = super::super::attr::text(data);
    if name.is_empty() {
        return None;
    }
    Some(xt::word(&if data.contains(&0) { name } else { format!("{name}+") }))
}
