//! Which addresses to ask for: prefixes, ranges, lists. Nothing else is ever asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// More is no sweep of a link: a /10 of IPv4.
pub const MOST: u64 = 1 << 22;

/// Why a text names no addresses that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTargets {
    /// Not an address, prefix or range.
    #[error("`{0}` is no address, prefix (10.0.0.0/24) or range (10.0.0.1-50, 10.0.0.1-10.0.1.9)")]
    Text(String),
    /// The end of a range before its beginning.
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    /// Too many at once.
    #[error("{0} addresses are more than a link holds: at most {MOST} (an IPv4 /10) at once")]
    TooMany(u128),
    /// Groups and the like have no station behind them.
    #[error("{0} is {1}: no station has it, so nobody can be asked for it")]
    NoStation(IpAddr, &'static str),
    /// One sweep speaks one protocol.
    #[error("IPv4 and IPv6 addresses cannot be asked for in one run")]
    TwoFamilies,
    /// An empty list.
    #[error("no address was given")]
    None,
}

/// A run of consecutive addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    first: u128,
    count: u64,
}

/// A set of addresses of one family, in order, each with its place from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    v6: bool,
    runs: Vec<Run>,
    /// Addresses before each run.
    before: Vec<u64>,
    count: u64,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// What an address is that no station can have; `None` for the others.
pub fn no_station(ip: IpAddr) -> Option<&'static str> {
    Some(match ip {
        ip if ip.is_multicast() => "a multicast group",
        ip if ip.is_loopback() => "a loopback address, which never leaves its host",
        ip if ip.is_unspecified() => "the unspecified address",
        IpAddr::V4(Ipv4Addr::BROADCAST) => "the broadcast address",
        IpAddr::V4(ip) if ip.octets()[0] == 0 => "in 0.0.0.0/8, \"this network\"",
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => "reserved (240.0.0.0/4)",
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form",
        _ => return None,
    })
}

impl Targets {
    /// Every address that the texts name: `10.0.0.1`, `10.0.0.0/24`, `10.0.0.1-50`,
    /// `10.0.0.1-10.0.1.9`; several in one text with commas between. Doubles count once.
    ///
    /// # Errors
    /// With the text that is wrong.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BadTargets> {
        let mut spans = Vec::new();
        for part in texts.into_iter().flat_map(|text| text.split(',')).map(str::trim) {
            spans.push(span(part)?);
        }
        Self::from_spans(&spans)
    }

    /// One address.
    ///
    /// # Errors
    /// Where no station can have it.
    pub fn one(ip: IpAddr) -> Result<Self, BadTargets> {
        Self::from_spans(&[(ip, ip)])
    }

    /// All addresses of a prefix.
    ///
    /// # Errors
    /// Where it is too large, or none a station's.
    pub fn network(net: IpNetwork) -> Result<Self, BadTargets> {
        Self::from_spans(&[(net.network(), net.broadcast())])
    }

    fn from_spans(spans: &[(IpAddr, IpAddr)]) -> Result<Self, BadTargets> {
        let v6 = spans.first().ok_or(BadTargets::None)?.0.is_ipv6();
        let mut pairs = Vec::new();
        for (first, last) in spans {
            if first.is_ipv6() != v6 {
                return Err(BadTargets::TwoFamilies);
            }
            for ip in [first, last] {
                if let Some(what) = no_station(*ip) {
                    return Err(BadTargets::NoStation(*ip, what));
                }
            }
            pairs.push((number(*first), number(*last)));
        }
        pairs.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in pairs {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let total =
            merged.iter().fold(0u128, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)));
        if total > MOST.into() {
            return Err(BadTargets::TooMany(total));
        }
        let runs: Vec<Run> = merged
            .iter()
            .map(|(first, last)| Run { first: *first, count: u64::try_from(last - first + 1).unwrap_or(MOST) })
            .collect();
        let mut before = Vec::with_capacity(runs.len());
        let mut count = 0;
        for run in &runs {
            before.push(count);
            count += run.count;
        }
        Ok(Self { v6, runs, before, count })
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Never: an empty set is refused.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether they are IPv6 addresses.
    pub fn is_v6(&self) -> bool {
        self.v6
    }

    /// The address at a place.
    pub fn get(&self, place: usize) -> Option<IpAddr> {
        let place = u64::try_from(place).ok().filter(|place| *place < self.count)?;
        let run = self.before.partition_point(|before| *before <= place).checked_sub(1)?;
        let value = self.runs[run].first + u128::from(place - self.before[run]);
        Some(self.ip(value))
    }

    /// The place of an address; `None` where it was not asked for.
    pub fn place(&self, ip: IpAddr) -> Option<usize> {
        if ip.is_ipv6() != self.v6 {
            return None;
        }
        let value = number(ip);
        let run = self.runs.partition_point(|run| run.first <= value).checked_sub(1)?;
        let offset =
            u64::try_from(value - self.runs[run].first).ok().filter(|offset| *offset < self.runs[run].count)?;
        usize::try_from(self.before[run] + offset).ok()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// First and last address of each run of consecutive ones.
    pub fn ends(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.runs.iter().map(|run| (self.ip(run.first), self.ip(run.first + u128::from(run.count - 1))))
    }

    fn ip(&self, value: u128) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from(value).into()
        } else {
            Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).into()
        }
    }

    /// In words: `10.0.0.0/24`, `10.0.0.5`, `10.0.0.1-10.0.0.50, …`.
    pub fn describe(&self) -> String {
        let mut words: Vec<String> = self
            .runs
            .iter()
            .take(4)
            .map(|run| {
                let bits = if self.v6 { 128u32 } else { 32 };
                let size = run.count.trailing_zeros();
                if run.count == 1 {
                    self.ip(run.first).to_string()
                } else if run.count.is_power_of_two() && run.first % u128::from(run.count) == 0 && size <= bits {
                    format!("{}/{}", self.ip(run.first), bits - size)
                } else {
                    format!("{}-{}", self.ip(run.first), self.ip(run.first + u128::from(run.count - 1)))
                }
            })
            .collect();
        if self.runs.len() > words.len() {
            words.push("…".to_owned());
        }
        words.join(", ")
    }
}

fn span(text: &str) -> Result<(IpAddr, IpAddr), BadTargets> {
    let bad = || BadTargets::Text(text.to_owned());
    if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.trim().parse().map_err(|_| bad())?;
        let last = last.trim();
        let last: IpAddr = match (last.parse(), first, last.parse::<u8>()) {
            (Ok(ip), ..) => ip,
            (_, IpAddr::V4(first), Ok(octet)) => {
                let [a, b, c, _] = first.octets();
                Ipv4Addr::new(a, b, c, octet).into()
            }
            _ => return Err(bad()),
        };
        if first.is_ipv6() != last.is_ipv6() {
            return Err(bad());
        }
        return if last < first { Err(BadTargets::Backwards(text.to_owned())) } else { Ok((first, last)) };
    }
    if let Some((address, length)) = text.split_once('/') {
        // `10.0.0.0/255.255.255.0` is a mask that some write; ipnetwork reads it too.
        let net: IpNetwork = format!("{address}/{length}").parse().map_err(|_| bad())?;
        return Ok((net.network(), net.broadcast()));
    }
    let ip: IpAddr = text.parse().map_err(|_| bad())?;
    Ok((ip, ip))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Targets, BadTargets> {
        Targets::parse([text])
    }

    #[test]
    fn prefixes_ranges_and_lists() {
        for (text, count, words) in [
            ("10.0.0.7", 1, "10.0.0.7"),
            ("10.0.0.9/24", 256, "10.0.0.0/24"),
            ("10.0.0.1-50", 50, "10.0.0.1-10.0.0.50"),
            ("10.0.0.250-10.0.1.9", 16, "10.0.0.250-10.0.1.9"),
            ("10.0.0.0/25,10.0.0.128/25,10.0.0.5", 256, "10.0.0.0/24"),
            ("10.0.0.1, 10.0.0.3", 2, "10.0.0.1, 10.0.0.3"),
            ("10.0.0.0/255.255.255.0", 256, "10.0.0.0/24"),
            ("fd00::/120", 256, "fd00::/120"),
            ("fe80::1-fe80::ff", 255, "fe80::1-fe80::ff"),
        ] {
            let targets = parse(text).unwrap();
            assert_eq!((targets.len(), targets.describe().as_str()), (count, words), "{text}");
            for (place, ip) in targets.iter().enumerate() {
                assert_eq!(targets.place(ip), Some(place));
            }
        }
        assert_eq!(parse("10.0.0.0/24").unwrap().place("10.0.1.0".parse().unwrap()), None);
        assert_eq!(parse("10.0.0.0/24").unwrap().place("9.255.255.255".parse().unwrap()), None);
        assert_eq!(parse("10.0.0.0/24").unwrap().place("::1".parse().unwrap()), None);
    }

    #[test]
    fn what_nobody_can_answer_for_is_refused() {
        for text in ["", "x", "10.0.0.0/33", "10.0.0.1-", "10.0.0.1-300", "-", "/", "10.0.0/24", "fd00::1-9"] {
            assert!(matches!(parse(text), Err(BadTargets::Text(_))), "{text}");
        }
        assert!(matches!(parse("10.0.0.9-10.0.0.1"), Err(BadTargets::Backwards(_))));
        assert!(matches!(parse("10.0.0.0/8"), Err(BadTargets::TooMany(16_777_216))));
        assert!(matches!(parse("fd00::/64"), Err(BadTargets::TooMany(_))));
        assert!(matches!(parse("::2/0"), Err(BadTargets::TooMany(_) | BadTargets::NoStation(..))));
        assert!(matches!(parse("10.0.0.1,fd00::1"), Err(BadTargets::TwoFamilies)));
        for text in ["224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "ff02::1", "::", "::1", "250.1.1.1"] {
            assert!(matches!(parse(text), Err(BadTargets::NoStation(..))), "{text}");
        }
        assert!(matches!(Targets::parse([]), Err(BadTargets::None)));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[0-9a-f:./,\\- ]{0,60}") {
            let _ = Targets::parse([text.as_str()]);
        }

        #[test]
        fn place_and_get_are_inverse(a: u32, b in 0u32..2000, c: u32, d in 0u32..2000, probe: u32) {
            let ip = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
            let spans = [(ip(a), ip(a.saturating_add(b))), (ip(c), ip(c.saturating_add(d)))];
            if let Ok(targets) = Targets::from_spans(&spans) {
                for place in [0, targets.len() / 2, targets.len() - 1] {
                    prop_assert_eq!(targets.place(targets.get(place).unwrap()), Some(place));
                }
                let inside = spans.iter().any(|(low, high)| (*low..=*high).contains(&ip(probe)));
                prop_assert_eq!(targets.place(ip(probe)).is_some(), inside);
                prop_assert_eq!(targets.get(targets.len()), None);
            }
        }
    }
}
