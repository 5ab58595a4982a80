//! Packets as people type them.

use std::fmt;
use std::net::IpAddr;

use crate::firewall::names;
use crate::firewall::ruleset::{CtStates, Hook, PktType, TcpFlags};

use super::values::{self, Proto};
use super::{Packet, To};

/// A text that is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  {text}\n  {:>column$}\nhint: a packet looks like `in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn`", "^", column = *column)]
pub struct BadPacket {
    /// The text.
    pub text: String,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// The addresses and ports that the arrow joins.
type End = (IpAddr, Option<u16>);

pub(super) fn read(text: &str) -> Result<Packet, BadPacket> {
    let mut words: Vec<(usize, &str)> = Vec::new();
    let mut rest = 0;
    for part in text.split(char::is_whitespace) {
        if !part.is_empty() {
            words.push((text[..rest].chars().count() + 1, part));
        }
        // The separator may be more than one octet long.
        rest += part.len();
        rest += text[rest..].chars().next().map_or(0, char::len_utf8);
    }
    let bad = |column: usize, message: String| BadPacket { text: text.replace(['\n', '\r'], " "), column, message };
    let end = text.chars().count() + 1;
    let arrow = words.iter().position(|(_, w)| matches!(*w, ">" | "->" | "→"));
    let Some(arrow) = arrow else {
        return Err(bad(end, "a packet has a source and a destination with ` > ` between them".to_owned()));
    };
    let side = |at: Option<usize>| -> Result<(usize, End), BadPacket> {
        let (column, word) = at.and_then(|at| words.get(at)).copied().unwrap_or((end, ""));
        address(word).map(|a| (column, a)).map_err(|message| bad(column, message))
    };
    let (_, (src, sport)) = side(arrow.checked_sub(1))?;
    let (column, (dst, dport)) = side(Some(arrow + 1))?;
    if src.is_ipv6() != dst.is_ipv6() {
        return Err(bad(column, format!("{src} and {dst} are not of one family")));
    }
    let mut packet = Packet { sport, dport, ..Packet::new(src, dst) };
    for (index, (column, word)) in words.iter().enumerate() {
        if (arrow - 1..=arrow + 1).contains(&index) {
            continue;
        }
        match word.split_once('=') {
            Some((key, value)) => setting(&mut packet, key, value),
            None => plain(&mut packet, word),
        }
        .map_err(|message| bad(*column, message))?;
    }
    let ports = packet.sport.is_some() || packet.dport.is_some();
    let (proto, _) = packet.protocol();
    if ports && !matches!(proto, 6 | 17 | 33 | 132 | 136) {
        return Err(bad(1, format!("{} has no ports", Proto(proto))));
    }
    if packet.tcp_flags.is_some() && proto != 6 {
        return Err(bad(1, format!("{} has no TCP flags", Proto(proto))));
    }
    if packet.icmp_type.is_some() && !matches!(proto, 1 | 58) {
        return Err(bad(1, format!("{} has no ICMP type", Proto(proto))));
    }
    Ok(packet)
}

/// `1.2.3.4`, `1.2.3.4:80`, `fd00::1`, `[fd00::1]:80`.
fn address(word: &str) -> Result<End, String> {
    if word.is_empty() {
        return Err("an address is missing here".to_owned());
    }
    if let Ok(addr) = word.parse::<IpAddr>() {
        return Ok((addr, None));
    }
    let (addr, port) = match word.strip_prefix('[') {
        Some(rest) => {
            let (addr, port) = rest.split_once(']').ok_or_else(|| format!("`{word}` lacks its `]`"))?;
            (addr, port.strip_prefix(':'))
        }
        None => word.rsplit_once(':').map_or((word, None), |(addr, port)| (addr, Some(port))),
    };
    let addr = addr.parse::<IpAddr>().map_err(|_| format!("`{addr}` is no address"))?;
    let port = port.map(|p| names::port(p).ok_or_else(|| format!("`{p}` is no port"))).transpose()?;
    Ok((addr, port))
}

/// A word of its own: a protocol, TCP flags, a conntrack state, an ICMP type.
fn plain(packet: &mut Packet, word: &str) -> Result<(), String> {
    if packet.proto.is_none()
        && packet.tcp_flags.is_none()
        && let Some(number) = names::protocol(word)
    {
        let number = if number == 1 && packet.is_v6() { 58 } else { number };
        packet.proto = Some(Proto(number));
        return Ok(());
    }
    let flags: Option<u8> =
        word.split([',', '+', '|', '/']).map(values::tcp_flag).try_fold(0, |all, bit| Some(all | bit?));
    if let Some(bits) = flags {
        packet.tcp_flags = Some(TcpFlags(packet.tcp_flags.unwrap_or_default().0 | bits));
        return Ok(());
    }
    let states: Option<u8> = word.split([',', '+', '|']).map(values::ct_state).try_fold(0, |all, bit| Some(all | bit?));
    if let Some(bits) = states {
        packet.ctstate = Some(CtStates(packet.ctstate.unwrap_or_default().0 | bits));
        return Ok(());
    }
    if matches!(packet.proto, Some(Proto(1 | 58)))
        && let Some((Some(kind), from, to)) = names::icmp_type(word, packet.is_v6())
    {
        packet.icmp_type = Some(kind);
        packet.icmp_code = Some(if from == to { from } else { 0 });
        return Ok(());
    }
    Err(format!("`{word}` is no protocol, TCP flag, conntrack state or ICMP type, and no key=value"))
}

fn setting(packet: &mut Packet, key: &str, value: &str) -> Result<(), String> {
    fn number<T: TryFrom<u64>>(key: &str, value: &str) -> Result<Option<T>, String> {
        let parsed = match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        };
        match parsed.map(T::try_from) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(format!("`{value}` is no value of `{key}`")),
        }
    }
    let no = || format!("`{value}` is no value of `{key}`");
    match key {
        "in" | "iif" => packet.in_ = Some(value.to_owned()),
        "out" | "oif" => packet.out = Some(value.to_owned()),
        "hook" => {
            packet.hook = Some(match value.to_ascii_lowercase().as_str() {
                "prerouting" => Hook::Prerouting,
                "input" => Hook::Input,
                "forward" => Hook::Forward,
                "output" => Hook::Output,
                "postrouting" => Hook::Postrouting,
                _ => return Err(format!("`{value}` is no hook (prerouting, input, forward, output, postrouting)")),
            });
        }
        "to" => {
            packet.to = Some(match value {
                "local" => To::Local,
                "forward" => To::Forward,
                _ => return Err(format!("`{value}` is neither local nor forward")),
            });
        }
        "proto" => packet.proto = Some(Proto(names::protocol(value).ok_or_else(no)?)),
        "sport" => packet.sport = Some(names::port(value).ok_or_else(no)?),
        "dport" => packet.dport = Some(names::port(value).ok_or_else(no)?),
        "tcp_flags" | "flags" => {
            let bits: Option<u8> =
                value.split([',', '+', '|']).map(values::tcp_flag).try_fold(0, |all, bit| Some(all | bit?));
            packet.tcp_flags = Some(TcpFlags(bits.ok_or_else(no)?));
        }
        "mss" => packet.mss = number(key, value)?,
        "icmp_type" | "type" => packet.icmp_type = number(key, value)?,
        "icmp_code" | "code" => packet.icmp_code = number(key, value)?,
        "ttl" | "hl" => packet.ttl = number(key, value)?,
        "tos" => packet.tos = number(key, value)?,
        "length" => packet.length = number(key, value)?,
        "frag_offset" => packet.frag_offset = number(key, value)?,
        "more_fragments" => packet.more_fragments = Some(value.parse().map_err(|_| no())?),
        "mark" => packet.mark = number(key, value)?,
        "connmark" => packet.connmark = number(key, value)?,
        "ctstate" | "state" => {
            let bits: Option<u8> =
                value.split([',', '+', '|']).map(values::ct_state).try_fold(0, |all, bit| Some(all | bit?));
            packet.ctstate = Some(CtStates(bits.ok_or_else(no)?));
        }
        "mac_src" | "mac" => packet.mac_src = Some(value.parse().map_err(|e: crate::wire::BadMac| e.to_string())?),
        "pkttype" => {
            packet.pkttype = Some(match value {
                "unicast" | "host" => PktType::Unicast,
                "broadcast" => PktType::Broadcast,
                "multicast" => PktType::Multicast,
                _ => return Err(no()),
            });
        }
        "uid" => packet.uid = number(key, value)?,
        "gid" => packet.gid = number(key, value)?,
        "payload" => packet.payload = Some(value.to_owned()),
        "octets" => packet.octets = Some(value.to_owned()),
        "id" => packet.id = Some(value.into()),
        _ => return Err(format!("`{key}` is no field of a packet")),
    }
    Ok(())
}

pub(super) fn write(packet: &Packet, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(hook) = packet.hook {
        write!(f, "hook={hook} ")?;
    }
    for (key, value) in [("in", &packet.in_), ("out", &packet.out)] {
        if let Some(value) = value {
            write!(f, "{key}={value} ")?;
        }
    }
    if let Some(to) = packet.to {
        write!(f, "to={} ", if to == To::Local { "local" } else { "forward" })?;
    }
    let end = |addr: IpAddr, port: Option<u16>| match (addr, port) {
        (addr, None) => addr.to_string(),
        (IpAddr::V4(a), Some(p)) => format!("{a}:{p}"),
        (IpAddr::V6(a), Some(p)) => format!("[{a}]:{p}"),
    };
    let (proto, _) = packet.protocol();
    write!(f, "{} {} > {}", Proto(proto), end(packet.src, packet.sport), end(packet.dst, packet.dport))?;
    if let Some(flags) = packet.tcp_flags {
        let names = values::flag_names(flags);
        write!(f, " {}", if names.is_empty() { "none".to_owned() } else { names.join(",") })?;
    }
    let numbers = [
        ("mss", packet.mss.map(u32::from)),
        ("icmp_type", packet.icmp_type.map(u32::from)),
        ("icmp_code", packet.icmp_code.map(u32::from)),
        ("ttl", packet.ttl.map(u32::from)),
        ("tos", packet.tos.map(u32::from)),
        ("length", packet.length),
        ("frag_offset", packet.frag_offset.map(u32::from)),
        ("mark", packet.mark),
        ("connmark", packet.connmark),
        ("uid", packet.uid),
        ("gid", packet.gid),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            write!(f, " {key}={value}")?;
        }
    }
    if let Some(states) = packet.ctstate {
        write!(f, " ctstate={}", states.names())?;
    }
    if let Some(mac) = packet.mac_src {
        write!(f, " mac_src={mac}")?;
    }
    if let Some(kind) = packet.pkttype {
        write!(f, " pkttype={}", kind.name())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let packet = read("in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn").unwrap();
        assert_eq!(packet.to_string(), "in=eth0 tcp 192.168.1.5:40000 > 192.168.1.2:53 syn");
        assert_eq!(packet.start(), Hook::Prerouting);
        for (text, written) in [
            ("udp 10.0.0.1 > 10.0.0.2:domain", "udp 10.0.0.1 > 10.0.0.2:53"),
            ("icmp fd00::1 > fd00::2 echo-request", "ipv6-icmp fd00::1 > fd00::2 icmp_type=128 icmp_code=0"),
            (
                "tcp [fd00::1]:1 -> [fd00::2]:2 syn,ack established",
                "tcp [fd00::1]:1 > [fd00::2]:2 syn,ack ctstate=ESTABLISHED",
            ),
            ("hook=input 10.0.0.1 > 10.0.0.2 mark=0x10", "hook=input tcp 10.0.0.1 > 10.0.0.2 mark=16"),
        ] {
            let packet = read(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(packet.to_string(), written);
            let json = serde_json::to_string(&packet).unwrap();
            assert_eq!(serde_json::from_str::<Packet>(&json).unwrap(), packet, "{json}");
        }
        for (text, column) in [
            ("", 1),
            ("tcp 10.0.0.1 10.0.0.2", 22),
            ("tcp > 10.0.0.2", 1),
            ("tcp 10.0.0.1 >", 15),
            ("tcp 10.0.0.1 > fd00::1", 16),
            ("tcp 10.0.0.1 > 10.0.0.2:x", 16),
            ("tcp 10.0.0.1 > 10.0.0.2 foo", 25),
            ("colour=red tcp 10.0.0.1 > 10.0.0.2", 1),
            ("icmp 10.0.0.1:1 > 10.0.0.2", 1),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.column, column, "{error}");
        }
    }

    #[test]
    fn json_takes_names_and_numbers_and_no_unknown_key() {
        let packet: Packet =
            serde_json::from_str(r#"{"id":7,"in":"eth0","src":"1.1.1.1","dst":"2.2.2.2","proto":6,"tcp_flags":["SYN","ack"],"ctstate":"NEW"}"#)
                .unwrap();
        assert_eq!(packet.tcp_flags, Some(TcpFlags(0x12)));
        assert_eq!(packet.ctstate, Some(CtStates::NEW));
        assert!(serde_json::from_str::<Packet>(r#"{"src":"1.1.1.1","dst":"2.2.2.2","sprt":1}"#).is_err());
    }
}
