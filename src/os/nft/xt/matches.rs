//! Matches that look at the packet alone.

use super::{Context, Info, masked, network, not, quote, range, rate, stateful, states, tcp_flags, word};

/// The module's name as iptables-save prints it, and the options; `None` for what cannot be read.
pub(super) fn options(name: &str, rev: u32, info: Info<'_>, context: &Context<'_>) -> Option<(String, String)> {
    let mut module = name.to_owned();
    let options = match (name, rev) {
        ("tcp", 0) => tcp(info)?,
        ("udp" | "udplite", 0) => ports(info, info.u8(8)?)?.join(" "),
        ("sctp", 0) => sctp(info)?,
        ("icmp", 0) => icmp("--icmp-type", info)?,
        ("icmp6", 0) => icmp("--icmpv6-type", info)?,
        ("multiport", 0 | 1) => multiport(rev, info)?,
        ("conntrack", 1..=3) => {
            let (alias, options) = conntrack(rev, info, context.v6)?;
            if alias {
                "state".clone_into(&mut module);
            }
            options
        }
        ("state", 0) => format!("--state {}", states(info.u32(0)?, 64)),
        ("comment", 0) => format!("--comment {}", quote(&info.string(0, info.0.len())?)),
        ("limit", 0) => {
            let burst = info.u32(4)?;
            let limit = format!("--limit {}", rate(info.u32(0)?)?);
            if burst == 5 { limit } else { format!("{limit} --limit-burst {burst}") }
        }
        ("mark" | "connmark", 1) => {
            format!("{}--mark {}", not(info.u8(8)? != 0), masked(info.u32(0)?, info.u32(4)?))
        }
        ("iprange", 1) => iprange(info, context.v6)?,
        ("mac", 0) => {
            let mac: Vec<_> = info.array::<6>(0)?.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}--mac-source {}", not(info.u32(8)? != 0), mac.join(":"))
        }
        ("addrtype", 0 | 1) => addrtype(rev, info)?,
        ("owner", 1) => owner(info)?,
        ("length", 0) => {
            format!("{}--length {}", not(info.u8(4)? != 0), range(info.u16(0)?, info.u16(2)?, ':'))
        }
        ("pkttype", 0) => {
            let kind = match info.u32(0)? {
                0 => "unicast",
                1 => "broadcast",
                2 => "multicast",
                _ => return None,
            };
            format!("{}--pkt-type {kind}", not(info.u32(4)? != 0))
        }
        ("ttl" | "hl", 0) => {
            let (negated, order) = match info.u8(0)? {
                0 => (false, "eq"),
                1 => (true, "eq"),
                2 => (false, "lt"),
                3 => (false, "gt"),
                _ => return None,
            };
            format!("{}--{name}-{order} {}", not(negated), info.u8(1)?)
        }
        ("dscp", 0) => format!("{}--dscp {:#04x}", not(info.u8(1)? != 0), info.u8(0)?),
        ("tos", 1) => format!("{}--tos {:#04x}/{:#04x}", not(info.u8(2)? != 0), info.u8(1)?, info.u8(0)?),
        ("tcpmss", 0) => format!("{}--mss {}", not(info.u8(4)? != 0), range(info.u16(0)?, info.u16(2)?, ':')),
        ("physdev", 0) => physdev(info)?,
        ("helper", 0) => format!("{}--helper {}", not(info.u32(0)? != 0), quote(&info.string(4, 30)?)),
        ("rpfilter", 0) => {
            let flags = info.u8(0)?;
            let names = [(1, "--loose"), (2, "--validmark"), (4, "--accept-local"), (8, "--invert")];
            flag_options(u32::from(flags), &names)
        }
        ("socket", 1..=3) => {
            flag_options(u32::from(info.u8(0)?), &[(1, "--transparent"), (2, "--nowildcard"), (4, "--restore-skmark")])
        }
        _ => stateful::options(name, rev, info, context)?,
    };
    Some((module, options))
}

fn flag_options(flags: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<_> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    set.join(" ")
}

/// `--sport` and `--dport` of the first eight bytes; the inverse flags' bits 1 and 2.
fn ports(info: Info<'_>, inverse: u8) -> Option<Vec<String>> {
    let mut options = Vec::new();
    for (at, bit, option) in [(0, 1, "--sport"), (4, 2, "--dport")] {
        let (from, to) = (info.u16(at)?, info.u16(at + 2)?);
        let negated = inverse & bit != 0;
        if (from, to) != (0, u16::MAX) || negated {
            options.push(format!("{}{option} {}", not(negated), range(from, to, ':')));
        }
    }
    Some(options)
}

fn tcp(info: Info<'_>) -> Option<String> {
    let (option, mask, compare, inverse) = (info.u8(8)?, info.u8(9)?, info.u8(10)?, info.u8(11)?);
    let mut options = ports(info, inverse)?;
    if option != 0 || inverse & 8 != 0 {
        options.push(format!("{}--tcp-option {option}", not(inverse & 8 != 0)));
    }
    if mask != 0 || inverse & 4 != 0 {
        options.push(format!("{}--tcp-flags {} {}", not(inverse & 4 != 0), tcp_flags(mask), tcp_flags(compare)));
    }
    Some(options.join(" "))
}

/// `struct xt_sctp_info`; only ports are read, chunk tests make it unknown.
fn sctp(info: Info<'_>) -> Option<String> {
    // dpts, spts, chunkmap[64], chunk_match_type, flag_info[4], flag_count, flags, invflags
    let (flags, inverse) = (info.u32(284)?, info.u32(288)?);
    if flags & 4 != 0 {
        return None;
    }
    let mut options = Vec::new();
    for (at, bit, option) in [(4, 1, "--sport"), (0, 2, "--dport")] {
        if flags & bit != 0 {
            options.push(format!(
                "{}{option} {}",
                not(inverse & bit != 0),
                range(info.u16(at)?, info.u16(at + 2)?, ':')
            ));
        }
    }
    Some(options.join(" "))
}

fn icmp(option: &str, info: Info<'_>) -> Option<String> {
    let (kind, first, last, inverse) = (info.u8(0)?, info.u8(1)?, info.u8(2)?, info.u8(3)?);
    let value = match (kind, first, last) {
        (255, ..) => "any".to_owned(),
        (kind, 0, 255) => kind.to_string(),
        (kind, first, last) if first == last => format!("{kind}/{first}"),
        _ => return None,
    };
    Some(format!("{}{option} {value}", not(inverse & 1 != 0)))
}

fn multiport(rev: u32, info: Info<'_>) -> Option<String> {
    let option = match info.u8(0)? {
        0 => "--sports",
        1 => "--dports",
        2 => "--ports",
        _ => return None,
    };
    let count = usize::from(info.u8(1)?);
    if count > 15 {
        return None;
    }
    let mut list = Vec::new();
    let mut index = 0;
    while index < count {
        let port = info.u16(2 + index * 2)?;
        let opens_range = rev == 1 && info.u8(32 + index)? != 0;
        if opens_range && index + 1 < count {
            index += 1;
            list.push(format!("{port}:{}", info.u16(2 + index * 2)?));
        } else {
            list.push(port.to_string());
        }
        index += 1;
    }
    let negated = rev == 1 && info.u8(47)? != 0;
    Some(format!("{}{option} {}", not(negated), list.join(",")))
}

/// `struct xt_conntrack_mtinfo1` to 3; says too whether it was written `-m state`.
fn conntrack(rev: u32, info: Info<'_>, v6: bool) -> Option<(bool, String)> {
    let (flags, inverse) = (info.u16(146)?, info.u16(148)?);
    let (states_mask, statuses) = match rev {
        1 => (u32::from(info.u8(150)?), u32::from(info.u8(151)?)),
        _ => (u32::from(info.u16(150)?), u32::from(info.u16(152)?)),
    };
    if flags & !0x3fff != 0 {
        return None;
    }
    let alias = flags & 0x2000 != 0;
    let mut options = Vec::new();
    let negated = |bit: u16| not(inverse & bit != 0);
    if flags & 1 != 0 {
        let option = if alias { "--state" } else { "--ctstate" };
        options.push(format!("{}{option} {}", negated(1), states(states_mask, 256)));
    }
    if flags & 2 != 0 {
        options.push(format!("{}--ctproto {}", negated(2), info.u16(136)?));
    }
    for (bit, at, option) in
        [(4, 0, "--ctorigsrc"), (8, 32, "--ctorigdst"), (0x10, 64, "--ctreplsrc"), (0x20, 96, "--ctrepldst")]
    {
        if flags & bit != 0 {
            let net = network(info.addr(at, v6)?, info.addr(at + 16, v6)?);
            options.push(format!("{}{option} {net}", negated(bit)));
        }
    }
    for (bit, index, option) in [
        (0x100, 0, "--ctorigsrcport"),
        (0x200, 1, "--ctorigdstport"),
        (0x400, 2, "--ctreplsrcport"),
        (0x800, 3, "--ctrepldstport"),
    ] {
        if flags & bit != 0 {
            let at = 138 + index * 2;
            let ports = if rev == 3 {
                range(info.u16(at)?, info.u16(154 + index * 2)?, ':')
            } else {
                info.be16(at)?.to_string()
            };
            options.push(format!("{}{option} {ports}", negated(bit)));
        }
    }
    if flags & 0x40 != 0 {
        let names = [(1, "EXPECTED"), (2, "SEEN_REPLY"), (4, "ASSURED"), (8, "CONFIRMED")];
        let set: Vec<_> = names.iter().filter(|(bit, _)| statuses & bit != 0).map(|(_, name)| *name).collect();
        let list = if set.is_empty() { "NONE".to_owned() } else { set.join(",") };
        options.push(format!("{}--ctstatus {list}", negated(0x40)));
    }
    if flags & 0x80 != 0 {
        options.push(format!("{}--ctexpire {}", negated(0x80), range(info.u32(128)?, info.u32(132)?, ':')));
    }
    if flags & 0x1000 != 0 {
        let direction = if inverse & 0x1000 != 0 { "REPLY" } else { "ORIGINAL" };
        options.push(format!("--ctdir {direction}"));
    }
    Some((alias, options.join(" ")))
}

fn iprange(info: Info<'_>, v6: bool) -> Option<String> {
    let flags = info.u8(64)?;
    let mut options = Vec::new();
    for (bit, inverse, at, option) in [(1, 0x10, 0, "--src-range"), (2, 0x20, 32, "--dst-range")] {
        if flags & bit != 0 {
            let (from, to) = (info.addr(at, v6)?, info.addr(at + 16, v6)?);
            options.push(format!("{}{option} {from}-{to}", not(flags & inverse != 0)));
        }
    }
    Some(options.join(" "))
}

fn addrtype(rev: u32, info: Info<'_>) -> Option<String> {
    const NAMES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let (source, destination, third) = (info.u16(0)?, info.u16(2)?, info.u32(4)?);
    let (not_source, not_destination, limits) = match rev {
        0 => (third != 0, info.u32(8)? != 0, 0),
        _ => (third & 1 != 0, third & 2 != 0, third & 0xc),
    };
    if (source | destination) >> NAMES.len() != 0 {
        return None;
    }
    let mut options = Vec::new();
    for (types, negated, option) in [(source, not_source, "--src-type"), (destination, not_destination, "--dst-type")] {
        if types != 0 {
            let list: Vec<_> =
                NAMES.iter().enumerate().filter(|(bit, _)| types & (1 << bit) != 0).map(|(_, name)| *name).collect();
            options.push(format!("{}{option} {}", not(negated), list.join(",")));
        }
    }
    for (bit, option) in [(4, "--limit-iface-in"), (8, "--limit-iface-out")] {
        if limits & bit != 0 {
            options.push(option.to_owned());
        }
    }
    Some(options.join(" "))
}

fn owner(info: Info<'_>) -> Option<String> {
    let (wanted, inverse) = (info.u8(16)?, info.u8(17)?);
    let mut options = Vec::new();
    if wanted & 4 != 0 {
        options.push(format!("{}--socket-exists", not(inverse & 4 != 0)));
    }
    for (bit, at, option) in [(1, 0, "--uid-owner"), (2, 8, "--gid-owner")] {
        if wanted & bit != 0 {
            let owners = range(info.u32(at)?, info.u32(at + 4)?, '-');
            options.push(format!("{}{option} {owners}", not(inverse & bit != 0)));
        }
    }
    if wanted & 8 != 0 {
        options.push("--suppl-groups".to_owned());
    }
    Some(options.join(" "))
}

/// `struct xt_physdev_info`: names and masks of 16 bytes, then invert and bitmask.
fn physdev(info: Info<'_>) -> Option<String> {
    let (inverse, wanted) = (info.u8(64)?, info.u8(65)?);
    let device = |at: usize| {
        let name = info.string(at, 16)?;
        let full = info.u8(at + 16 + name.len()).is_some_and(|mask| mask != 0);
        Some(if full { name } else { format!("{name}+") })
    };
    let mut options = Vec::new();
    if wanted & 8 != 0 {
        options.push(format!("{}--physdev-is-in", not(inverse & 8 != 0)));
    }
    if wanted & 1 != 0 {
        options.push(format!("{}--physdev-in {}", not(inverse & 1 != 0), word(&device(0)?)));
    }
    if wanted & 0x10 != 0 {
        options.push(format!("{}--physdev-is-out", not(inverse & 0x10 != 0)));
    }
    if wanted & 2 != 0 {
        options.push(format!("{}--physdev-out {}", not(inverse & 2 != 0), word(&device(32)?)));
    }
    if wanted & 4 != 0 {
        options.push(format!("{}--physdev-is-bridged", not(inverse & 4 != 0)));
    }
    Some(options.join(" "))
}
