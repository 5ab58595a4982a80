//! Targets.

use super::natrange::NatRange;
use super::{Context, Info, network, quote, word};

/// The codes of `REJECT` by `enum ipt_reject_with`.
pub(crate) const REJECT_V4: [&str; 9] = [
    "icmp-net-unreachable",
    "icmp-host-unreachable",
    "icmp-proto-unreachable",
    "icmp-port-unreachable",
    "icmp-echo-reply",
    "icmp-net-prohibited",
    "icmp-host-prohibited",
    "tcp-reset",
    "icmp-admin-prohibited",
];
/// The codes of `REJECT` by `enum ip6t_reject_with`.
pub(crate) const REJECT_V6: [&str; 9] = [
    "icmp6-no-route",
    "icmp6-adm-prohibited",
    "icmp6-not-neighbour",
    "icmp6-addr-unreachable",
    "icmp6-port-unreachable",
    "icmp6-echo-reply",
    "tcp-reset",
    "icmp6-policy-fail",
    "icmp6-reject-route",
];

/// The target's name as iptables-save prints it, and the options; `None` for what cannot be read.
pub(super) fn options(name: &str, rev: u32, info: Info<'_>, context: &Context<'_>) -> Option<(String, String)> {
    let mut target = name.to_owned();
    let options = match (name, rev) {
        ("REJECT", 0) => {
            let names = if context.v6 { REJECT_V6 } else { REJECT_V4 };
            format!("--reject-with {}", names.get(info.u32(0)? as usize)?)
        }
        ("LOG", 0) => log(info)?,
        ("MARK", 2) => format!("--set-xmark {:#x}/{:#x}", info.u32(0)?, info.u32(4)?),
        ("CONNMARK", 1 | 2) => connmark(rev, info)?,
        ("DNAT", 0) if !context.v6 => NatRange::read_v4(info)?.options("--to-destination"),
        ("DNAT", 1 | 2) => NatRange::read_inet(info, context.v6)?.options("--to-destination"),
        ("SNAT", 0) if !context.v6 => NatRange::read_v4(info)?.options("--to-source"),
        ("SNAT", 1) => NatRange::read_inet(info, context.v6)?.options("--to-source"),
        ("MASQUERADE" | "REDIRECT", 0) => {
            let range = if context.v6 { NatRange::read_inet(info, true)? } else { NatRange::read_v4(info)? };
            NatRange { address: None, ..range }.options("--to-ports")
        }
        ("NETMAP", 0) => {
            let range = if context.v6 { NatRange::read_inet(info, true)? } else { NatRange::read_v4(info)? };
            let (first, last) = range.address?;
            format!("--to {}", netmap(first, last)?)
        }
        ("CT", 0..=2) => {
            let (alias, options) = ct(rev, info)?;
            if alias {
                "NOTRACK".clone_into(&mut target);
            }
            options
        }
        ("NOTRACK" | "TRACE", 0) => String::new(),
        ("TCPMSS", 0) => match info.u16(0)? {
            u16::MAX => "--clamp-mss-to-pmtu".to_owned(),
            mss => format!("--set-mss {mss}"),
        },
        ("NFLOG", 0) => nflog(info)?,
        ("NFQUEUE", 0..=3) => nfqueue(rev, info)?,
        ("TTL" | "HL", 0) => {
            let op = ["set", "inc", "dec"].get(usize::from(info.u8(0)?))?;
            format!("--{}-{op} {}", name.to_lowercase(), info.u8(1)?)
        }
        ("TOS", 1) => format!("--set-tos {:#04x}/{:#04x}", info.u8(0)?, info.u8(1)?),
        ("DSCP", 0) => format!("--set-dscp {:#04x}", info.u8(0)?),
        ("CHECKSUM", 0) => "--checksum-fill".to_owned(),
        ("CLASSIFY", 0) => {
            let class = info.u32(0)?;
            format!("--set-class {:x}:{:x}", class >> 16, class & 0xffff)
        }
        ("TPROXY", 0 | 1) => {
            let at = if rev == 0 { 12 } else { 24 };
            let (mask, value) = (info.u32(0)?, info.u32(4)?);
            let address = info.addr(8, context.v6 && rev == 1)?;
            format!("--on-port {} --on-ip {address} --tproxy-mark {value:#x}/{mask:#x}", info.be16(at)?)
        }
        _ => return None,
    };
    Some((target, options))
}

/// `LOG`'s options: level unless 4 (warning), and flags.
pub(crate) fn log_options(prefix: &str, level: u32, flags: u32) -> String {
    let mut options = Vec::new();
    if !prefix.is_empty() {
        options.push(format!("--log-prefix {}", quote(prefix)));
    }
    if level != 4 {
        options.push(format!("--log-level {level}"));
    }
    for (bit, option) in [
        (1, "--log-tcp-sequence"),
        (2, "--log-tcp-options"),
        (4, "--log-ip-options"),
        (8, "--log-uid"),
        (0x20, "--log-macdecode"),
    ] {
        if flags & bit != 0 {
            options.push(option.to_owned());
        }
    }
    options.join(" ")
}

fn log(info: Info<'_>) -> Option<String> {
    Some(log_options(&info.string(2, 30)?, u32::from(info.u8(0)?), u32::from(info.u8(1)?)))
}

fn nflog(info: Info<'_>) -> Option<String> {
    let (len, group, threshold, flags) = (info.u32(0)?, info.u16(4)?, info.u16(6)?, info.u16(8)?);
    let prefix = info.string(12, 64)?;
    Some(nflog_options(&prefix, group, (flags & 1 != 0).then_some(len), threshold))
}

/// `NFLOG`'s options.
pub(crate) fn nflog_options(prefix: &str, group: u16, size: Option<u32>, threshold: u16) -> String {
    let mut options = Vec::new();
    if !prefix.is_empty() {
        options.push(format!("--nflog-prefix {}", quote(prefix)));
    }
    if group != 0 {
        options.push(format!("--nflog-group {group}"));
    }
    if let Some(size) = size {
        options.push(format!("--nflog-size {size}"));
    }
    if threshold > 1 {
        options.push(format!("--nflog-threshold {threshold}"));
    }
    options.join(" ")
}

fn nfqueue(rev: u32, info: Info<'_>) -> Option<String> {
    let first = info.u16(0)?;
    let total = if rev == 0 { 1 } else { info.u16(2)? };
    let flags = if rev < 2 { 0 } else { info.u16(4)? };
    let mut options = match total {
        0 | 1 => format!("--queue-num {first}"),
        total => format!("--queue-balance {first}:{}", first.saturating_add(total - 1)),
    };
    for (bit, option) in [(1, " --queue-bypass"), (2, " --queue-cpu-fanout")] {
        if flags & bit != 0 {
            options += option;
        }
    }
    Some(options)
}

fn connmark(rev: u32, info: Info<'_>) -> Option<String> {
    let (mark, mask, packet_mask) = (info.u32(0)?, info.u32(4)?, info.u32(8)?);
    let mode = if rev == 1 { info.u8(12)? } else { info.u8(14)? };
    if rev == 2 && info.u8(13)? != 0 {
        return None;
    }
    Some(match mode {
        0 => format!("--set-xmark {mark:#x}/{mask:#x}"),
        1 => format!("--save-mark --nfmask {packet_mask:#x} --ctmask {mask:#x}"),
        2 => format!("--restore-mark --nfmask {packet_mask:#x} --ctmask {mask:#x}"),
        _ => return None,
    })
}

/// `struct xt_ct_target_info`; says too whether it was written `-j NOTRACK`.
fn ct(rev: u32, info: Info<'_>) -> Option<(bool, String)> {
    let (flags, zone) = (info.u16(0)?, info.u16(2)?);
    let (events, expected) = (info.u32(4)?, info.u32(8)?);
    if flags & 2 != 0 {
        return Some((true, String::new()));
    }
    if flags & 1 != 0 {
        return Some((false, "--notrack".to_owned()));
    }
    let mut options = Vec::new();
    let helper = info.string(12, 16)?;
    if !helper.is_empty() {
        options.push(format!("--helper {}", word(&helper)));
    }
    if rev > 0 {
        let timeout = info.string(28, 32)?;
        if !timeout.is_empty() {
            options.push(format!("--timeout {}", word(&timeout)));
        }
    }
    // Event masks and zones by mark are beyond this; they never decide about a packet.
    if events != 0 || expected != 0 || flags & 0x10 != 0 {
        return None;
    }
    match flags & 0xc {
        0 if zone != 0 => options.push(format!("--zone {zone}")),
        4 => options.push(format!("--zone-orig {zone}")),
        8 => options.push(format!("--zone-reply {zone}")),
        _ => {}
    }
    Some((false, options.join(" ")))
}

fn netmap(first: std::net::IpAddr, last: std::net::IpAddr) -> Option<String> {
    use std::net::IpAddr;
    let mask = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => IpAddr::V4((!(u32::from(a) ^ u32::from(b))).into()),
        (IpAddr::V6(a), IpAddr::V6(b)) => IpAddr::V6((!(u128::from(a) ^ u128::from(b))).into()),
        _ => return None,
    };
    Some(network(first, mask))
}
