//! Networks, interfaces and ports as rules name them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and a mask; the mask need not be contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    /// The address, already masked.
    pub addr: IpAddr,
    /// The bits looked at; of the same family.
    pub mask: IpAddr,
}

impl Net {
    /// One address.
    pub fn host(addr: IpAddr) -> Self {
        let mask = match addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX)),
        };
        Self { addr, mask }
    }

    /// `addr/len`; `None` where the length is too large for the family.
    pub fn prefix(addr: IpAddr, len: u8) -> Option<Self> {
        match addr {
            IpAddr::V4(a) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Some(Self::masked_v4(a, Ipv4Addr::from(mask)))
            }
            IpAddr::V6(a) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Some(Self::masked_v6(a, Ipv6Addr::from(mask)))
            }
            _ => None,
        }
    }

    /// `addr/mask`; `None` where the families differ.
    pub fn masked(addr: IpAddr, mask: IpAddr) -> Option<Self> {
        match (addr, mask) {
            (IpAddr::V4(a), IpAddr::V4(m)) => Some(Self::masked_v4(a, m)),
            (IpAddr::V6(a), IpAddr::V6(m)) => Some(Self::masked_v6(a, m)),
            _ => None,
        }
    }

    fn masked_v4(addr: Ipv4Addr, mask: Ipv4Addr) -> Self {
        Self { addr: IpAddr::V4(Ipv4Addr::from(addr.to_bits() & mask.to_bits())), mask: IpAddr::V4(mask) }
    }

    fn masked_v6(addr: Ipv6Addr, mask: Ipv6Addr) -> Self {
        Self { addr: IpAddr::V6(Ipv6Addr::from(addr.to_bits() & mask.to_bits())), mask: IpAddr::V6(mask) }
    }

    /// `(addr & mask) == self.addr`; false across families.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, self.mask, addr) {
            (IpAddr::V4(net), IpAddr::V4(mask), IpAddr::V4(a)) => a.to_bits() & mask.to_bits() == net.to_bits(),
            (IpAddr::V6(net), IpAddr::V6(mask), IpAddr::V6(a)) => a.to_bits() & mask.to_bits() == net.to_bits(),
            _ => false,
        }
    }

    /// The prefix length, where the mask is contiguous.
    pub fn prefix_len(&self) -> Option<u8> {
        let (ones, leading) = match self.mask {
            IpAddr::V4(m) => (m.to_bits().count_ones(), m.to_bits().leading_ones()),
            IpAddr::V6(m) => (m.to_bits().count_ones(), m.to_bits().leading_ones()),
        };
        if ones == leading { u8::try_from(ones).ok() } else { None }
    }

    /// Whether every address of the family is in it.
    pub fn is_any(&self) -> bool {
        self.prefix_len() == Some(0)
    }

    /// Whether it is one single address.
    pub fn is_host(&self) -> bool {
        matches!((self.prefix_len(), self.addr), (Some(32), IpAddr::V4(_)) | (Some(128), IpAddr::V6(_)))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len() {
            Some(len) => write!(f, "{}/{len}", self.addr),
            None => write!(f, "{}/{}", self.addr, self.mask),
        }
    }
}

/// An interface name, or the beginning of one (`eth+`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Iface {
    /// The name without its `+`.
    pub name: String,
    /// Any name that begins so.
    pub prefix: bool,
}

impl Iface {
    /// Reads `eth0` or `eth+`.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('+') {
            Some(name) => Self { name: name.to_owned(), prefix: true },
            None => Self { name: text.to_owned(), prefix: false },
        }
    }

    /// Whether the interface is meant; a missing interface has the name "".
    pub fn matches(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

impl fmt::Display for Iface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.prefix { "+" } else { "" })
    }
}

/// Ports from and to, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First.
    pub from: u16,
    /// Last.
    pub to: u16,
}

impl PortRange {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self { from: port, to: port }
    }

    /// `from <= port <= to`.
    pub fn contains(self, port: u16) -> bool {
        (self.from..=self.to).contains(&port)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { write!(f, "{}", self.from) } else { write!(f, "{}:{}", self.from, self.to) }
    }
}
