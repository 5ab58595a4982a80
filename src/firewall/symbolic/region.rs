//! Sets of packets as few boxes that people can read: for each field some of its values, and every
//! packet that has them.
//!
//! A box begins as one packet of the set and grows field by field to all values that keep it within
//! the set, the fields that rules seldom ask about first; so it cannot be made larger in any field.
//! Boxes may overlap: they say together exactly which packets there are.

use std::net::IpAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::firewall::names;
use crate::firewall::packet::Packet;
use crate::firewall::ruleset::{PktType, TcpFlags};

use super::bdd::{ALL, NONE, Set};
use super::space::{Field, Open, STATES, Space, Way, low_bits};

/// Fields in the order in which boxes grow.
const GROWS: [Field; 21] = [
    Field::SrcType,
    Field::DstType,
    Field::Gid,
    Field::Uid,
    Field::Tos,
    Field::Ttl,
    Field::Length,
    Field::Connmark,
    Field::Mark,
    Field::PktType,
    Field::Flags,
    Field::Sport,
    Field::Mac,
    Field::Ct,
    Field::Frag,
    Field::Out,
    Field::In,
    Field::Proto,
    Field::Dport,
    Field::Src,
    Field::Dst,
];
/// Values of one field in a box; what has more is cut into several.
const MAX_RANGES: usize = 4096;

/// Some packets: all that have these values.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Their way through the host.
    pub way: Way,
    /// IPv6.
    pub v6: bool,
    /// The fields that are not free, with their values from and to.
    pub fields: Vec<(Field, Vec<(u128, u128)>)>,
    /// Tests that are no function of the packet, and how they must answer.
    pub given: Vec<(Open, bool)>,
    /// The box in words.
    pub text: String,
    /// A packet of it.
    pub example: Packet,
    /// The answers to tests that the example rests on.
    pub set: Set,
}

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("hook", self.way.name())?;
        map.serialize_entry("family", if self.v6 { "ip6" } else { "ip" })?;
        map.serialize_entry("match", &self.text)?;
        map.serialize_entry("when", &self.when())?;
        map.serialize_entry("example", &self.example.to_string())?;
        map.end()
    }
}

impl Region {
    /// What must hold besides, in words.
    pub fn when(&self) -> Vec<String> {
        self.given.iter().map(|(open, holds)| condition(open, *holds)).collect()
    }
}

/// `only when `limit …` (INPUT rule 3, line 12) holds`
pub(super) fn condition(open: &Open, holds: bool) -> String {
    let place = match (open.place.as_str(), open.line) {
        ("", _) => String::new(),
        (place, Some(line)) => format!(" ({place}, line {line})"),
        (place, None) => format!(" ({place})"),
    };
    let does = if holds { "holds" } else { "does not hold" };
    format!("`{}`{place} {does}", open.text)
}

/// The boxes of a set, at most so many, and whether they are all.
pub fn regions(space: &mut Space, set: Set, universe: Set, way: Way, limit: usize) -> (Vec<Region>, bool) {
    let mut found = Vec::new();
    let allowed = space.bdd.or(set, !universe);
    let mut left = set;
    while !left.is_none() {
        if found.len() >= limit {
            return (found, false);
        }
        let Some(region) = grow(space, left, allowed, universe, way) else { break };
        left = space.bdd.minus(left, region.set);
        found.push(region);
    }
    (found, true)
}

fn grow(space: &mut Space, left: Set, allowed: Set, universe: Set, way: Way) -> Option<Region> {
    let path = space.bdd.pick(left)?;
    let mut parts: Vec<(Field, Set)> = GROWS.iter().map(|field| (*field, ALL)).collect();
    let tests = space.tests();
    for (level, up) in path.iter().rev().filter(|(level, _)| !tests.contains(level)) {
        let Some(field) = space.field_of(*level) else { continue };
        let Some((_, part)) = parts.iter_mut().find(|(own, _)| *own == field) else { continue };
        *part = if *up { space.bdd.make(*level, NONE, *part) } else { space.bdd.make(*level, *part, NONE) };
    }
    let mut given: Vec<(u32, bool)> = path.into_iter().filter(|(level, _)| tests.contains(level)).collect();
    // First without as many tests as can be.
    let forbidden = !allowed;
    let whole =
        |space: &mut Space, parts: &[(Field, Set)]| parts.iter().fold(ALL, |all, (_, part)| space.bdd.and(all, *part));
    let fixed = whole(space, &parts);
    let inside = space.bdd.and(forbidden, fixed);
    let mut at = 0;
    while at < given.len() {
        let mut fewer = given.clone();
        fewer.remove(at);
        let cube = space.cube(&fewer);
        if space.bdd.and(inside, cube).is_none() { given = fewer } else { at += 1 }
    }
    let open = space.cube(&given);
    let forbidden = space.bdd.and(forbidden, open);
    for index in 0..parts.len() {
        if parts[index].1.is_all() {
            continue;
        }
        let field = parts[index].0;
        let others = parts.iter().enumerate().filter(|(n, _)| *n != index);
        let others: Vec<Set> = others.map(|(_, (_, part))| *part).collect();
        let mut bad = forbidden;
        for part in others {
            bad = space.bdd.and(bad, part);
        }
        let (start, width) = space.bits(field);
        let bad = space.bdd.some(bad, &|level| !(start..start + width).contains(&level));
        parts[index].1 = !bad;
    }
    let mut set = whole(space, &parts);
    set = space.bdd.and(set, open);
    let real = space.bdd.and(set, universe);
    let mut fields = Vec::new();
    for (field, part) in parts.iter().rev().filter(|(_, part)| !part.is_all()) {
        // Without values that no packet of the box can have.
        let mut part = *part;
        if matches!(field, Field::In | Field::Out | Field::Ct) {
            let (start, width) = space.bits(*field);
            let seen = space.bdd.some(real, &|level| !(start..start + width).contains(&level));
            part = space.bdd.and(part, seen);
        }
        let ranges = space.ranges_of(*field, part, MAX_RANGES);
        if ranges.len() >= MAX_RANGES {
            let cut = space.within(*field, &ranges);
            set = space.bdd.and(set, cut);
        }
        fields.push((*field, ranges));
    }
    let real = space.bdd.and(set, universe);
    let (example, _) = space.packet(real, way)?;
    let given = given.iter().filter_map(|(level, up)| Some((space.open_at(*level)?.clone(), *up))).collect();
    let text = text(space, &fields, way);
    Some(Region { way, v6: space.v6, fields, given, text, example, set })
}

/// A box in words, as `fw query` reads them.
fn text(space: &Space, fields: &[(Field, Vec<(u128, u128)>)], way: Way) -> String {
    let of = |field: Field| fields.iter().find(|(own, _)| *own == field).map(|(_, ranges)| ranges.as_slice());
    let mut words: Vec<String> = Vec::new();
    for (field, key) in [(Field::In, "in"), (Field::Out, "out")] {
        if let Some(ranges) = of(field) {
            words.push(format!("{key}{}", interfaces(space, ranges, way)));
        }
    }
    let proto = of(Field::Proto);
    if let Some(ranges) = proto {
        words.push(listed(
            ranges,
            255,
            |from, to| {
                if from == to {
                    names::protocol_name(u8::try_from(from).unwrap_or(255))
                } else {
                    format!("{from}-{to}")
                }
            },
            "proto",
        ));
    }
    let only = |wanted: u128| proto == Some(&[(wanted, wanted)][..]);
    let icmp = only(if space.v6 { 58 } else { 1 });
    let end = |addr: Field, port: Field| {
        let addrs = of(addr).map(|ranges| addresses(space, ranges));
        let ports = of(port).filter(|_| !icmp).map(ports);
        match (addrs, ports) {
            (None, None) => "any".to_owned(),
            (Some(addrs), None) => addrs,
            (None, Some(ports)) => format!("any:{ports}"),
            (Some(addrs), Some(ports)) if addrs.contains(':') => format!("[{addrs}]:{ports}"),
            (Some(addrs), Some(ports)) => format!("{addrs}:{ports}"),
        }
    };
    let (src, dst) = (end(Field::Src, Field::Sport), end(Field::Dst, Field::Dport));
    let bare = src == "any" && dst == "any";
    if !bare {
        words.push(format!("{src} > {dst}"));
    }
    if icmp && let Some(ranges) = of(Field::Dport) {
        words.push(icmp_types(ranges));
    }
    for (field, ranges) in fields {
        words.extend(other(*field, ranges));
    }
    if words.is_empty() {
        return "every packet".to_owned();
    }
    words.join(" ")
}

fn other(field: Field, ranges: &[(u128, u128)]) -> Option<String> {
    let plain = |key: &str, most: u128| {
        let one = |from: u128, to: u128| if from == to { from.to_string() } else { format!("{from}-{to}") };
        let text = listed(ranges, most, one, "");
        match text.strip_prefix('!') {
            Some(rest) => format!("{key}!={rest}"),
            None => format!("{key}={text}"),
        }
    };
    Some(match field {
        Field::Ct => {
            let inside = |n: u128| ranges.iter().any(|(from, to)| (*from..=*to).contains(&n));
            // UNTRACKED is there only where rules make packets so.
            let known: Vec<u128> = (0..4).filter(|n| inside(*n)).collect();
            let name = |n: &u128| STATES.get(usize::try_from(*n).unwrap_or(0)).map(|s| s.names()).unwrap_or_default();
            let list = |codes: Vec<u128>| codes.iter().map(name).collect::<Vec<_>>().join(",");
            match known.len() {
                0 => "ctstate=UNTRACKED".to_owned(),
                3 if inside(4) || known.contains(&3) && known.contains(&0) && known.contains(&1) => {
                    format!("ctstate!={}", list((0..4).filter(|n| !inside(*n)).collect()))
                }
                _ => format!("ctstate={}", list((0..5).filter(|n| inside(*n)).collect())),
            }
        }
        Field::Flags => flags(ranges),
        Field::Mac => {
            let mac = |n: u128| {
                let octets = n.to_be_bytes();
                octets[10..].iter().map(|o| format!("{o:02x}")).collect::<Vec<_>>().join(":")
            };
            let one = |from: u128, to: u128| if from == to { mac(from) } else { format!("{}-{}", mac(from), mac(to)) };
            let text = listed(ranges, low_bits(48), one, "");
            text.strip_prefix('!').map_or_else(|| format!("mac_src={text}"), |rest| format!("mac_src!={rest}"))
        }
        Field::PktType => {
            let kinds = [PktType::Unicast, PktType::Broadcast, PktType::Multicast];
            let inside = |n: &u128| ranges.iter().any(|(from, to)| (*from..=*to).contains(n));
            let list: Vec<&str> =
                (0u128..).zip(kinds).filter(|(n, _)| inside(n)).map(|(_, kind)| kind.name()).collect();
            format!("pkttype={}", list.join(","))
        }
        Field::Frag => {
            // What has a port is no later fragment anyway.
            if ranges == [(0, 0)] { "whole".to_owned() } else { "fragment".to_owned() }
        }
        Field::Mark => plain("mark", 0xffff_ffff),
        Field::Connmark => plain("connmark", 0xffff_ffff),
        Field::Length => plain("length", 65_535),
        Field::Ttl => plain("ttl", 255),
        Field::Tos => plain("tos", 255),
        Field::Uid => plain("uid", 0xffff_ffff),
        Field::Gid => plain("gid", 0xffff_ffff),
        Field::DstType | Field::SrcType => {
            let key = if field == Field::DstType { "dst_type" } else { "src_type" };
            let inside = |n: &u128| ranges.iter().any(|(from, to)| (*from..=*to).contains(n));
            let list = (0u128..).zip(["unicast", "local", "broadcast", "other"]).filter(|(n, _)| inside(n));
            format!("{key}={}", list.map(|(_, name)| name).collect::<Vec<_>>().join(","))
        }
        _ => return None,
    })
}

/// Values, or those that are left out where they are fewer.
fn listed(ranges: &[(u128, u128)], most: u128, one: impl Fn(u128, u128) -> String, key: &str) -> String {
    let others = outside(ranges, most);
    let (sign, list) = if others.len() < ranges.len() || (others.len() == ranges.len() && size(&others) < size(ranges))
    {
        ("!", others.as_slice())
    } else {
        ("", ranges)
    };
    let text: Vec<String> = list.iter().map(|(from, to)| one(*from, *to)).collect();
    let text = text.join(",");
    if key.is_empty() {
        return format!("{sign}{text}");
    }
    if sign == "!" {
        format!("{key}!={text}")
    } else if text.contains('-') && !text.starts_with("ipv6") {
        format!("{key}={text}")
    } else {
        text
    }
}

fn size(ranges: &[(u128, u128)]) -> u128 {
    ranges.iter().fold(0u128, |n, (from, to)| n.saturating_add(to - from))
}

/// The values that are in no range.
fn outside(ranges: &[(u128, u128)], most: u128) -> Vec<(u128, u128)> {
    let (mut out, mut next) = (Vec::new(), Some(0u128));
    for (from, to) in ranges {
        if let Some(start) = next
            && *from > start
        {
            out.push((start, from - 1));
        }
        next = to.checked_add(1).filter(|n| *n <= most);
    }
    if let Some(start) = next {
        out.push((start, most));
    }
    out
}

fn ports(ranges: &[(u128, u128)]) -> String {
    listed(ranges, 65_535, |from, to| if from == to { from.to_string() } else { format!("{from}-{to}") }, "")
}

/// Addresses as prefixes, or as ranges where these are shorter.
fn addresses(space: &Space, ranges: &[(u128, u128)]) -> String {
    let most = low_bits(if space.v6 { 128 } else { 32 });
    listed(ranges, most, |from, to| span(space.address(from), space.address(to), from, to), "")
}

fn span(first: IpAddr, last: IpAddr, from: u128, to: u128) -> String {
    if from == to {
        return first.to_string();
    }
    let size = (to - from).wrapping_add(1);
    let width = if first.is_ipv6() { 128 } else { 32 };
    let power = size == 0 || size.is_power_of_two();
    let bits = if size == 0 { 128 } else { size.trailing_zeros() };
    if power && from & low_bits(bits) == 0 {
        return format!("{first}/{}", width - bits);
    }
    format!("{first}-{last}")
}

fn interfaces(space: &Space, ranges: &[(u128, u128)], way: Way) -> String {
    let names = &space.names;
    let inside = |n: usize| ranges.iter().any(|(from, to)| (*from..=*to).contains(&(n as u128)));
    let name = |n: usize| match &names.kinds[n] {
        None => names.names[n].clone(),
        Some(kind) if kind == "+" => "other".to_owned(),
        Some(kind) => kind.clone(),
    };
    // A pattern with all its names is the pattern.
    let list = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let all: Vec<usize> = (0..names.names.len()).filter(|n| wanted(*n)).collect();
        let mut stems: Vec<&str> = Vec::new();
        for n in &all {
            if let Some(stem) =
                names.kinds[*n].as_deref().and_then(|kind| kind.strip_suffix('+')).filter(|s| !s.is_empty())
                && (0..names.names.len()).all(|m| !names.names[m].starts_with(stem) || wanted(m))
            {
                stems.push(stem);
            }
        }
        let covered = |n: &usize| {
            let kind = names.kinds[*n].as_deref().and_then(|kind| kind.strip_suffix('+'));
            stems.iter().any(|stem| names.names[*n].starts_with(stem) && kind != Some(*stem))
        };
        all.iter().filter(|n| !covered(n)).map(|n| name(*n)).collect()
    };
    let (yes, no) = (list(&inside), list(&|n| !inside(n) && (way != Way::Forward || names.names[n] != "lo")));
    let catch_all = |list: &[String]| list.iter().any(|name| name == "other");
    if no.len() < yes.len() || catch_all(&yes) && !catch_all(&no) {
        format!("!={}", no.join(","))
    } else {
        format!("={}", yes.join(","))
    }
}

fn icmp_types(ranges: &[(u128, u128)]) -> String {
    let whole = ranges.iter().all(|(from, to)| from.trailing_zeros() >= 8 && to & 0xff == 0xff);
    if whole {
        let kinds: Vec<(u128, u128)> = ranges.iter().map(|(from, to)| (from >> 8, to >> 8)).collect();
        let text =
            listed(&kinds, 255, |from, to| if from == to { from.to_string() } else { format!("{from}-{to}") }, "");
        return text.strip_prefix('!').map_or_else(|| format!("icmp_type={text}"), |rest| format!("icmp_type!={rest}"));
    }
    if let [(from, to)] = ranges
        && from >> 8 == to >> 8
    {
        let codes = if from == to { (from & 0xff).to_string() } else { format!("{}-{}", from & 0xff, to & 0xff) };
        return format!("icmp_type={} icmp_code={codes}", from >> 8);
    }
    let one = |from: u128, to: u128| {
        let pair = |n: u128| format!("{}/{}", n >> 8, n & 0xff);
        if from == to { pair(from) } else { format!("{}-{}", pair(from), pair(to)) }
    };
    let text = listed(ranges, 65_535, one, "");
    text.strip_prefix('!').map_or_else(|| format!("icmp={text}"), |rest| format!("icmp!={rest}"))
}

/// TCP flags as those that must be set and those that must not, where that says it all.
fn flags(ranges: &[(u128, u128)]) -> String {
    let inside = |n: u128| ranges.iter().any(|(from, to)| (*from..=*to).contains(&n));
    let all: Vec<u128> = (0..256).filter(|n| inside(*n)).collect();
    let as_mask = |values: &[u128]| -> Option<String> {
        let (first, ones) = (*values.first()?, values.iter().fold(255, |all, n| all & n));
        let ever = values.iter().fold(0, |all, n| all | n);
        let free = (ever & !ones).count_ones();
        let _ = first;
        if values.len() != 1 << free {
            return None;
        }
        let mask = 255 & !(ever & !ones);
        let name = |bits: u128| {
            let mut names = TcpFlags(u8::try_from(bits).unwrap_or(0)).names().to_lowercase();
            for (bit, name) in [(0x40, "ece"), (0x80, "cwr")] {
                if bits & bit != 0 {
                    names = if names == "none" { name.to_owned() } else { format!("{names},{name}") };
                }
            }
            names
        };
        Some(if mask == 255 { name(ones) } else { format!("{}/{}", name(ones), name(mask)) })
    };
    if let Some(text) = as_mask(&all) {
        return format!("flags={text}");
    }
    let others: Vec<u128> = (0..256).filter(|n| !inside(*n)).collect();
    if let Some(text) = as_mask(&others) {
        return format!("flags!={text}");
    }
    let one = |(f, t): &(u128, u128)| if f == t { format!("{f:#x}") } else { format!("{f:#x}-{t:#x}") };
    format!("flags={}", ranges.iter().map(one).collect::<Vec<_>>().join(","))
}
