//! Reading option values: addresses, ports, marks, states.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::names;
use crate::firewall::ruleset::{Family, Net, PortRange, TcpFlags};

use super::error::Fault;
use super::words::Word;

/// A decimal, `0x` or octal number, as `strtoul(…, 0)` reads it.
pub(super) fn number(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return if hex.starts_with('+') { None } else { u64::from_str_radix(hex, 16).ok() };
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if text.len() > 1 && text.starts_with('0') { u64::from_str_radix(text, 8).ok() } else { text.parse().ok() }
}

/// A number that fits its field.
pub(super) fn fit<T: TryFrom<u64>>(word: &Word, what: &str) -> Result<T, Fault> {
    let value = number(&word.text).ok_or_else(|| Fault::new(word.column, format!("`{}` is no {what}", word.text)))?;
    T::try_from(value).map_err(|_| Fault::new(word.column, format!("{} is too large for a {what}", word.text)))
}

/// `value[/mask]`, both 32 bit.
pub(super) fn value_mask(word: &Word, what: &str) -> Result<(u32, Option<u32>), Fault> {
    let (value, mask) = word.text.split_once('/').map_or((word.text.as_str(), None), |(v, m)| (v, Some(m)));
    let part = |text: &str, shift: usize| {
        let column = word.column + u32::try_from(shift).unwrap_or(0);
        fit::<u32>(&Word { text: text.to_owned(), column, quoted: false }, what)
    };
    Ok((part(value, 0)?, mask.map(|m| part(m, value.len() + 1)).transpose()?))
}

/// One address with an optional mask. `Ok(None)` where it is a name, which cannot be looked up here.
pub(super) fn net(text: &str, column: u32, family: Family) -> Result<Option<Net>, Fault> {
    let (addr_text, mask_text) = text.split_once('/').map_or((text, None), |(a, m)| (a, Some(m)));
    let bad_mask = |m: &str| {
        let column = column + u32::try_from(addr_text.chars().count() + 1).unwrap_or(0);
        Fault::new(column, format!("`{m}` is no prefix length or mask for {addr_text}"))
    };
    let addr = if family == Family::Ip6 {
        addr_text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    } else {
        short_v4(addr_text).map(IpAddr::V4)
    };
    let Some(addr) = addr else {
        let other_family = addr_text.parse::<IpAddr>().is_ok();
        if other_family {
            let (this, that) = if family == Family::Ip6 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
            let tool = if family == Family::Ip6 { "iptables" } else { "ip6tables" };
            return Err(Fault::new(column, format!("{addr_text} is an {that} address in an {this} ruleset"))
                .hint(format!("this rule belongs into {tool}'s ruleset")));
        }
        let numeric = !addr_text.is_empty() && addr_text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            || addr_text.contains(':');
        if numeric || addr_text.is_empty() {
            return Err(Fault::new(column, format!("`{addr_text}` is no address")));
        }
        return Ok(None);
    };
    let Some(mask_text) = mask_text else { return Ok(Some(Net::host(addr))) };
    let whole = mask_text.bytes().all(|b| b.is_ascii_digit());
    let net = if whole {
        mask_text.parse::<u8>().ok().and_then(|len| Net::prefix(addr, len))
    } else {
        mask_text.parse::<IpAddr>().ok().and_then(|mask| Net::masked(addr, mask))
    };
    net.map(Some).ok_or_else(|| bad_mask(mask_text))
}

/// An IPv4 address that may lack its last octets (`10/8` is 10.0.0.0/8), as iptables reads it.
fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        match parts.next() {
            Some(part) if !part.is_empty() && part.len() <= 3 && part.bytes().all(|b| b.is_ascii_digit()) => {
                *octet = part.parse().ok()?;
            }
            Some(_) => return None,
            None => break,
        }
    }
    if text.is_empty() || parts.next().is_some() { None } else { Some(Ipv4Addr::from(octets)) }
}

/// One port by number or name.
pub(super) fn port(text: &str, column: u32) -> Result<u16, Fault> {
    names::port(text).ok_or_else(|| {
        let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let why =
            if number { "is too large for a port (0 to 65535)" } else { "is no port and no service name known here" };
        let fault = Fault::new(column, format!("`{text}` {why}"));
        if text.contains(',') {
            fault.hint(format!("a list of ports needs the multiport match: `-m multiport --dports {text}`"))
        } else if text.contains('-') {
            fault.hint(format!("a range of ports is written with a colon: {}", text.replacen('-', ":", 1)))
        } else {
            fault
        }
    })
}

/// `22`, `1:1024`, `:1024`, `1024:`. A range whose first port is the larger one holds no port; some
/// modules take it so ([`no_empty`] is for the others).
pub(super) fn port_range(text: &str, column: u32) -> Result<PortRange, Fault> {
    let Some((from, to)) = text.split_once(':') else { return port(text, column).map(PortRange::one) };
    let low = if from.is_empty() { 0 } else { port(from, column)? };
    let shift = u32::try_from(from.chars().count() + 1).unwrap_or(0);
    let high = if to.is_empty() { u16::MAX } else { port(to, column + shift)? };
    Ok(PortRange { from: low, to: high })
}

/// Refuses a range without a port, as iptables does for `tcp`, `sctp` and `multiport`, and not for
/// `udp`, `dccp` and `conntrack`.
pub(super) fn no_empty(range: PortRange, column: u32) -> Result<PortRange, Fault> {
    let PortRange { from, to } = range;
    if from <= to {
        return Ok(range);
    }
    let fault = Fault::new(column, format!("the port range {from}:{to} is empty: its first port is the larger one"));
    Err(fault.hint(format!("write {to}:{from}")))
}

/// A list of TCP flag names; `ALL`, `NONE`.
pub(super) fn tcp_flags(text: &str, column: u32) -> Result<TcpFlags, Fault> {
    let mut flags = 0;
    let mut at = column;
    for name in text.split(',') {
        flags |= match name.to_ascii_uppercase().as_str() {
            "ALL" => 0x3f,
            "NONE" => 0,
            upper => match TcpFlags::NAMES.iter().find(|(n, _)| *n == upper) {
                Some((_, bit)) => *bit,
                None => {
                    return Err(Fault::new(at, format!("`{name}` is no TCP flag"))
                        .hint("the flags are FIN, SYN, RST, PSH, ACK, URG, or ALL, or NONE"));
                }
            },
        };
        at += u32::try_from(name.chars().count() + 1).unwrap_or(0);
    }
    Ok(TcpFlags(flags))
}

/// Names joined by commas, each looked up in a table of bits.
pub(super) fn names_to_bits(word: &Word, what: &str, table: impl Fn(&str) -> Option<u16>) -> Result<u16, Fault> {
    let mut bits = 0;
    let mut at = word.column;
    for name in word.text.split(',') {
        bits |= table(&name.to_ascii_uppercase()).ok_or_else(|| Fault::new(at, format!("`{name}` is no {what}")))?;
        at += u32::try_from(name.chars().count() + 1).unwrap_or(0);
    }
    Ok(bits)
}

/// DSCP class names (RFC 2474, 2597, 3246).
pub(super) fn dscp_class(name: &str) -> Option<u8> {
    let lower = name.to_ascii_lowercase();
    if let Some(class) = lower.strip_prefix("cs").and_then(|n| n.parse::<u8>().ok()).filter(|n| *n < 8) {
        return Some(class << 3);
    }
    if let Some(af) = lower.strip_prefix("af").and_then(|n| n.parse::<u8>().ok()) {
        let (class, drop) = (af / 10, af % 10);
        return ((1..=4).contains(&class) && (1..=3).contains(&drop)).then_some(class << 3 | drop << 1);
    }
    match lower.as_str() {
        "be" => Some(0),
        "ef" => Some(0x2e),
        _ => None,
    }
}

/// TOS names of `iptables -m tos`.
pub(super) fn tos_name(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "minimize-delay" => 0x10,
        "maximize-throughput" => 0x08,
        "maximize-reliability" => 0x04,
        "minimize-cost" => 0x02,
        "normal-service" => 0,
        _ => return None,
    })
}
