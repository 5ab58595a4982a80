//! x_tables matches and targets, out of the kernel's structures (include/uapi/linux/netfilter/xt_*.h)
//! into the options that iptables-save prints. Both iptables-legacy and iptables-nft carry them.

mod matches;
pub(crate) mod natrange;
mod stateful;
pub(crate) mod targets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use natrange::NatRange;
pub(crate) use targets::{log_options, nflog_options};

use super::attr::text;

/// What a structure does not say by itself.
pub(crate) struct Context<'a> {
    /// The rule is an ip6tables one.
    pub(crate) v6: bool,
    /// The name of the ipset with this index, where it could be learnt.
    pub(crate) set_name: &'a dyn Fn(u16) -> Option<String>,
}

/// The bytes of a structure. Reading past its end gives `None`, and so an unknown match.
#[derive(Clone, Copy)]
pub(crate) struct Info<'a>(pub(crate) &'a [u8]);

impl Info<'_> {
    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    fn be16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }

    fn string(self, at: usize, len: usize) -> Option<String> {
        self.0.get(at..at + len).map(text)
    }

    /// An address of a `union nf_inet_addr` (16 bytes, IPv4 in the first four).
    fn addr(self, at: usize, v6: bool) -> Option<IpAddr> {
        Some(if v6 {
            IpAddr::V6(Ipv6Addr::from(self.array::<16>(at)?))
        } else {
            IpAddr::V4(Ipv4Addr::from(self.array::<4>(at)?))
        })
    }
}

/// `-m NAME options` of a match. What is not understood keeps its bytes, so that nobody takes the
/// rule for a simpler one.
pub(crate) fn match_text(name: &str, rev: u32, info: &[u8], context: &Context<'_>) -> String {
    match matches::options(name, rev, Info(info), context) {
        Some((name, options)) if options.is_empty() => format!("-m {name}"),
        Some((name, options)) => format!("-m {name} {options}"),
        None => format!("-m {}", unknown(name, rev, info)),
    }
}

/// `-j NAME options` of a target.
pub(crate) fn target_text(name: &str, rev: u32, info: &[u8], context: &Context<'_>) -> String {
    match targets::options(name, rev, Info(info), context) {
        Some((name, options)) if options.is_empty() => format!("-j {name}"),
        Some((name, options)) => format!("-j {name} {options}"),
        None => format!("-j {}", unknown(name, rev, info)),
    }
}

/// What this program cannot read: name and revision as one word, so that no reader takes it for the
/// module it knows by that name, and the bytes.
fn unknown(name: &str, rev: u32, info: &[u8]) -> String {
    format!("{}.{rev} --reachwhy-unknown {}", word(name), hex(info))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A name that may have come from anywhere, as one word of a line.
pub(crate) fn word(name: &str) -> String {
    let clean: String = name.chars().map(|c| if c.is_whitespace() || c.is_control() { '?' } else { c }).collect();
    if clean.is_empty() { "?".to_owned() } else { clean }
}

/// A string as iptables-save quotes it (`xtables_save_string`).
pub(crate) fn quote(value: &str) -> String {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        // A line break would end the rule; iptables-save cannot say it either.
        let c = if c == '\n' || c == '\r' { ' ' } else { c };
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// `! ` where negated.
pub(crate) fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

/// `a` or `a:b`.
pub(crate) fn range<T: PartialEq + Copy + std::fmt::Display>(from: T, to: T, separator: char) -> String {
    if from == to { from.to_string() } else { format!("{from}{separator}{to}") }
}

/// `address/prefix`, or `address/mask` where the mask is no prefix.
pub(crate) fn network(address: IpAddr, mask: IpAddr) -> String {
    let (bits, ones, width) = match mask {
        IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, u32::from(mask).count_ones(), 32),
        IpAddr::V6(mask) => (u128::from(mask), u128::from(mask).count_ones(), 128),
    };
    if bits.leading_ones() == ones && ones <= width { format!("{address}/{ones}") } else { format!("{address}/{mask}") }
}

/// `0x1`, or `0x1/0x3` with a mask that is not all ones.
pub(crate) fn masked(value: u32, mask: u32) -> String {
    if mask == u32::MAX { format!("{value:#x}") } else { format!("{value:#x}/{mask:#x}") }
}

/// TCP flags by name (`FIN,SYN`), `NONE` for none.
pub(crate) fn tcp_flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set: Vec<_> = names.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0).map(|(_, n)| *n).collect();
    if set.is_empty() { "NONE".to_owned() } else { set.join(",") }
}

/// Connection states by name, of (bit, name) pairs in iptables' order.
pub(crate) fn states(mask: u32, untracked: u32) -> String {
    let names = [
        (1, "INVALID"),
        (8, "NEW"),
        (4, "RELATED"),
        (2, "ESTABLISHED"),
        (untracked, "UNTRACKED"),
        (if untracked == 64 { 0 } else { 64 }, "SNAT"),
        (128, "DNAT"),
    ];
    let set: Vec<_> = names.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    set.join(",")
}

/// A rate in the words of `--limit` (`print_rate` of iptables): `period` is in 1/10000 s per packet.
pub(crate) fn rate(period: u32) -> Option<String> {
    const RATES: [(&str, u32); 4] = [("day", 864_000_000), ("hour", 36_000_000), ("min", 600_000), ("sec", 10_000)];
    if period == 0 {
        return None;
    }
    let mut best = RATES[0];
    for next in &RATES[1..] {
        if period > next.1 || next.1 / period < next.1 % period {
            break;
        }
        best = *next;
    }
    Some(format!("{}/{}", best.1 / period, best.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_they_were_written() {
        assert_eq!(rate(10_000 * 60 / 5).as_deref(), Some("5/min"));
        assert_eq!(rate(10_000 * 3600 / 3).as_deref(), Some("3/hour"));
        assert_eq!(rate(10_000 / 100).as_deref(), Some("100/sec"));
        assert_eq!(rate(0), None);
    }

    #[test]
    fn words_are_quoted_as_iptables_save_does() {
        assert_eq!(quote("plain-1_x"), "plain-1_x");
        assert_eq!(quote("a \"b\" \\'"), "\"a \\\"b\\\" \\\\\\'\"");
        assert_eq!(quote(""), "\"\"");
        assert_eq!(quote("a\n-A INPUT -j ACCEPT"), "\"a -A INPUT -j ACCEPT\"");
    }

    #[test]
    fn masks_that_are_no_prefix_are_written_out() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(ip("10.0.0.0"), ip("255.0.0.0")), "10.0.0.0/8");
        assert_eq!(network(ip("10.0.0.1"), ip("255.0.0.255")), "10.0.0.1/255.0.0.255");
        assert_eq!(network(ip("0.0.0.0"), ip("0.0.0.0")), "0.0.0.0/0");
        assert_eq!(network(ip("fe80::"), ip("ffc0::")), "fe80::/10");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(name in 0usize..46, rev in 0u32..5, info: Vec<u8>, v6: bool) {
            let names = ["tcp", "udp", "udplite", "sctp", "icmp", "icmp6", "multiport", "conntrack", "state", "comment", "limit",
                "mark", "connmark", "iprange", "mac", "addrtype", "owner", "set", "statistic", "recent", "length", "pkttype",
                "ttl", "hl", "hashlimit", "dscp", "tos", "physdev", "connlimit", "rpfilter", "helper", "tcpmss", "socket",
                "REJECT", "LOG", "MARK", "CONNMARK", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "CT", "TCPMSS",
                "NFLOG", "NFQUEUE"];
            let mut long = info.clone();
            long.resize(400, 0xa5);
            for info in [&info, &long] {
                let context = Context { v6, set_name: &|_| None };
                let line = match_text(names[name], rev, info, &context);
                assert!(!line.contains('\n'));
                let line = target_text(names[name], rev, info, &context);
                assert!(!line.contains('\n'));
            }
        }
    }
}
