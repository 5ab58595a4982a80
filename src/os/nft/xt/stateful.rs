//! Matches that remember: their answer depends on more than the packet.

use std::fmt::Write as _;

use super::{Context, Info, network, not, quote, rate, word};

/// The options; `None` for what cannot be read.
pub(super) fn options(name: &str, rev: u32, info: Info<'_>, context: &Context<'_>) -> Option<String> {
    Some(match (name, rev) {
        ("set", 1..=4) => set(rev, info, context)?,
        ("statistic", 0) => statistic(info)?,
        ("recent", 0 | 1) => recent(rev, info, context.v6)?,
        ("hashlimit", 1..=3) => hashlimit(rev, info, context.v6)?,
        ("connlimit", 1) => connlimit(info, context.v6)?,
        ("quota", 0) => format!("{}--quota {}", not(info.u32(0)? & 1 != 0), info.u64(8)?),
        ("connbytes", 0) => {
            let what = ["packets", "bytes", "avgpkt"].get(usize::from(info.u8(16)?))?;
            let direction = ["original", "reply", "both"].get(usize::from(info.u8(17)?))?;
            let (from, to) = (info.u64(0)?, info.u64(8)?);
            let (negated, from, to) = if from > to { (true, to, from) } else { (false, from, to) };
            let to = if to == u64::MAX { String::new() } else { to.to_string() };
            format!("{}--connbytes {from}:{to} --connbytes-mode {what} --connbytes-dir {direction}", not(negated))
        }
        _ => return None,
    })
}

/// `struct xt_set_info` and what follows it: the set by index, directions, counters.
fn set(rev: u32, info: Info<'_>, context: &Context<'_>) -> Option<String> {
    let (index, dimensions, flags) = (info.u16(0)?, info.u8(2)?, info.u8(3)?);
    let counts = match rev {
        3 => info.u8(8)? != 0 || info.u8(24)? != 0,
        4 => info.u8(16)? != 0 || info.u8(32)? != 0,
        _ => false,
    };
    if counts || !(1..=6).contains(&dimensions) {
        return None;
    }
    let name = word(&(context.set_name)(index)?);
    let sides: Vec<_> =
        (1..=dimensions).map(|dimension| if flags & (1 << dimension) != 0 { "src" } else { "dst" }).collect();
    let nomatch = if flags & 0x80 != 0 { " --return-nomatch" } else { "" };
    Some(format!("{}--match-set {name} {}{nomatch}", not(flags & 1 != 0), sides.join(",")))
}

fn statistic(info: Info<'_>) -> Option<String> {
    let not = not(info.u16(2)? & 1 != 0);
    Some(match info.u16(0)? {
        0 => format!("--mode random {not}--probability {:.11}", f64::from(info.u32(4)?) / 2_147_483_648.0),
        1 => format!("--mode nth {not}--every {} --packet {}", u64::from(info.u32(4)?) + 1, info.u32(8)?),
        _ => return None,
    })
}

fn recent(rev: u32, info: Info<'_>, v6: bool) -> Option<String> {
    let (seconds, hits, check) = (info.u32(0)?, info.u32(4)?, info.u8(8)?);
    let mut options = String::from(not(info.u8(9)? != 0));
    let mut add = |text: &str| {
        if !options.is_empty() && !options.ends_with(' ') {
            options.push(' ');
        }
        options.push_str(text);
    };
    for (bit, option) in [(2, "--set"), (1, "--rcheck"), (4, "--update"), (8, "--remove")] {
        if check & bit != 0 {
            add(option);
        }
    }
    if seconds != 0 {
        add(&format!("--seconds {seconds}"));
    }
    if check & 0x20 != 0 {
        add("--reap");
    }
    if hits != 0 {
        add(&format!("--hitcount {hits}"));
    }
    if check & 0x10 != 0 {
        add("--rttl");
    }
    add(&format!("--name {}", quote(&info.string(10, 200)?)));
    if rev == 1 {
        add(&format!("--mask {}", info.addr(212, v6)?));
    }
    add(if info.u8(210)? == 0 { "--rsource" } else { "--rdest" });
    Some(options)
}

fn hashlimit(rev: u32, info: Info<'_>, v6: bool) -> Option<String> {
    // Offsets of the configuration of each revision; revision 1 has 32-bit rates in 1/10000 s,
    // the later ones 64-bit rates in 1/1000000 s.
    let (mode, period, burst, rest, masks, scale) = match rev {
        1 => (info.u32(16)?, u64::from(info.u32(20)?), u64::from(info.u32(24)?), 28, 44, 1),
        2 => (info.u32(272)?, info.u64(256)?, info.u64(264)?, 276, 292, 100),
        _ => (info.u32(272)?, info.u64(256)?, info.u64(264)?, 276, 296, 100),
    };
    // By bytes, or matching a rate: said in other words.
    if mode & 0x60 != 0 || period % scale != 0 {
        return None;
    }
    let period = u32::try_from(period / scale).ok()?;
    let name_len = if rev == 1 { 16 } else { 255 };
    let above = mode & 0x10 != 0;
    let mut options =
        format!("--hashlimit-{} {} --hashlimit-burst {burst}", if above { "above" } else { "upto" }, rate(period)?);
    let modes: Vec<_> = [(4, "srcip"), (8, "srcport"), (1, "dstip"), (2, "dstport")]
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if !modes.is_empty() {
        let _ = write!(options, " --hashlimit-mode {}", modes.join(","));
    }
    let _ = write!(options, " --hashlimit-name {}", word(&info.string(0, name_len)?));
    let (size, max, interval, expire) =
        (info.u32(rest)?, info.u32(rest + 4)?, info.u32(rest + 8)?, info.u32(rest + 12)?);
    for (value, default, option) in
        [(size, 0, "size"), (max, 0, "max"), (interval, 1000, "gcinterval"), (expire, unit_ms(period), "expire")]
    {
        if value != default {
            let _ = write!(options, " --hashlimit-htable-{option} {value}");
        }
    }
    let full = if v6 { 128 } else { 32 };
    for (at, bit, option) in [(masks, 4, "srcmask"), (masks + 1, 1, "dstmask")] {
        let mask = info.u8(at)?;
        if mode & bit != 0 && mask != full {
            let _ = write!(options, " --hashlimit-{option} {mask}");
        }
    }
    Some(options)
}

/// The time unit that a rate is said in, in milliseconds: how long hashlimit keeps an entry unless told.
fn unit_ms(period: u32) -> u32 {
    match rate(period).as_deref().and_then(|text| text.rsplit('/').next()) {
        Some("day") => 86_400_000,
        Some("hour") => 3_600_000,
        Some("min") => 60_000,
        _ => 1_000,
    }
}

fn connlimit(info: Info<'_>, v6: bool) -> Option<String> {
    let (limit, flags) = (info.u32(16)?, info.u32(20)?);
    let mask = info.addr(0, v6)?;
    let prefix = network(mask, mask).rsplit('/').next()?.parse::<u8>().ok()?;
    let option = if flags & 1 != 0 { "upto" } else { "above" };
    let side = if flags & 2 != 0 { "daddr" } else { "saddr" };
    Some(format!("--connlimit-{option} {limit} --connlimit-mask {prefix} --connlimit-{side}"))
}
