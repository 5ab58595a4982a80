//! `NF_NAT_RANGE_*`: the ranges of DNAT, SNAT, MASQUERADE, REDIRECT and NETMAP.

use std::net::IpAddr;

use super::Info;

/// `NF_NAT_RANGE_MAP_IPS`: the addresses count.
pub(crate) const MAP_IPS: u32 = 1;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: the ports count.
pub(crate) const PROTO_SPECIFIED: u32 = 2;
/// `NF_NAT_RANGE_PROTO_RANDOM`.
pub(crate) const RANDOM: u32 = 4;
/// `NF_NAT_RANGE_PERSISTENT`.
pub(crate) const PERSISTENT: u32 = 8;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
pub(crate) const RANDOM_FULLY: u32 = 16;
/// `NF_NAT_RANGE_PROTO_OFFSET`: ports are shifted from a base.
const OFFSET: u32 = 32;

/// A range: addresses and ports, each first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NatRange {
    /// First and last address.
    pub(crate) address: Option<(IpAddr, IpAddr)>,
    /// First and last port.
    pub(crate) port: Option<(u16, u16)>,
    /// `NF_NAT_RANGE_*`.
    pub(crate) flags: u32,
}

impl NatRange {
    /// `struct nf_nat_ipv4_multi_range_compat`, of one range.
    pub(super) fn read_v4(info: Info<'_>) -> Option<Self> {
        if info.u32(0)? != 1 {
            return None;
        }
        Some(Self::read(info.u32(4)?, (info.addr(8, false)?, info.addr(12, false)?), (info.be16(16)?, info.be16(18)?)))
    }

    /// `struct nf_nat_range`, and `nf_nat_range2` without a port base.
    pub(super) fn read_inet(info: Info<'_>, v6: bool) -> Option<Self> {
        let flags = info.u32(0)?;
        if flags & OFFSET != 0 {
            return None;
        }
        Some(Self::read(flags, (info.addr(4, v6)?, info.addr(20, v6)?), (info.be16(36)?, info.be16(38)?)))
    }

    fn read(flags: u32, address: (IpAddr, IpAddr), port: (u16, u16)) -> Self {
        Self {
            address: (flags & MAP_IPS != 0).then_some(address),
            port: (flags & PROTO_SPECIFIED != 0).then_some(port),
            flags,
        }
    }

    /// `--to-destination 10.0.0.1:80 --random`, with whichever option it is.
    pub(crate) fn options(&self, option: &str) -> String {
        let mut text = String::new();
        if let Some((first, last)) = self.address {
            let list = if first == last { first.to_string() } else { format!("{first}-{last}") };
            text = if first.is_ipv6() && self.port.is_some() { format!("[{list}]") } else { list };
        }
        if let Some((first, last)) = self.port {
            if self.address.is_some() {
                text.push(':');
            }
            text += &super::range(first, last, '-');
        }
        let mut options = Vec::new();
        if !text.is_empty() {
            options.push(format!("{option} {text}"));
        }
        for (flag, name) in [(RANDOM, "--random"), (RANDOM_FULLY, "--random-fully"), (PERSISTENT, "--persistent")] {
            if self.flags & flag != 0 {
                options.push(name.to_owned());
            }
        }
        options.join(" ")
    }
}
