//! In which order an application tries the addresses: RFC 3484/6724 as glibc's `rfc3484_sort` has it
//! (sysdeps/posix/getaddrinfo.c), with the tables of gai.conf(5), and the rule that placed each.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::gai::GaiConf;

/// What the kernel says of the way to one address (a UDP socket is connected; nothing is sent).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFact {
    /// The address it would be sent from; `None` where there is no route.
    pub address: Option<IpAddr>,
    /// The prefix length of that address on its interface; 0 where it is on none.
    pub prefix: u8,
    /// Its interface's index, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// It is deprecated (RFC 4862 5.5.4).
    #[serde(default)]
    pub deprecated: bool,
    /// It is a mobile node's home address (RFC 6275).
    #[serde(default)]
    pub home: bool,
    /// It leaves by a tunnel (sit, ip6tnl, ipip).
    #[serde(default)]
    pub tunnel: bool,
}

/// Why one address stands before the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 1: the other cannot be reached.
    Usable,
    /// 2: its source has the same scope.
    Scope,
    /// 3: its source is not deprecated.
    Deprecated,
    /// 4: its source is a home address.
    Home,
    /// 5: its source has the same label.
    Label,
    /// 6: higher precedence.
    Precedence,
    /// 7: no tunnel.
    Native,
    /// 8: smaller scope.
    SmallerScope,
    /// 9: longer prefix in common with its source.
    Prefix,
    /// 10: as the answer had them.
    Unchanged,
}

impl Rule {
    /// Its number in RFC 6724 6.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// In words, of the one that stands first.
    pub const fn because(self) -> &'static str {
        match self {
            Self::Usable => "the next one has no route",
            Self::Scope => "its source address has the same scope",
            Self::Deprecated => "the next one's source address is deprecated",
            Self::Home => "its source is a home address",
            Self::Label => "its source address has the same label",
            Self::Precedence => "it has the higher precedence",
            Self::Native => "the next one goes through a tunnel",
            Self::SmallerScope => "it has the smaller scope",
            Self::Prefix => "it has more leading bits in common with its source address",
            Self::Unchanged => "the rules see no difference: the order of the answer stays",
        }
    }
}

/// One address in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its index in the list that was given.
    pub index: usize,
    /// The rule that puts it before the next one; `None` for the last.
    pub rule: Option<Rule>,
}

/// Sorts `addresses` as getaddrinfo gives them out; `sources` has one entry for each.
pub fn order(addresses: &[IpAddr], sources: &[SourceFact], gai: &GaiConf) -> Vec<Placed> {
    let unknown = SourceFact::default();
    let ways: Vec<Way<'_>> = addresses
        .iter()
        .enumerate()
        .map(|(index, address)| Way::new(index, *address, sources.get(index).unwrap_or(&unknown), gai))
        .collect();
    let mut sorted: Vec<usize> = (0..ways.len()).collect();
    if ways.len() > 1 {
        merge_sort(&mut sorted, &|one, other| compare(&ways[one], &ways[other]).0);
    }
    (0..sorted.len())
        .map(|at| Placed {
            index: sorted[at],
            rule: sorted.get(at + 1).map(|next| compare(&ways[sorted[at]], &ways[*next]).1),
        })
        .collect()
}

struct Way<'a> {
    index: usize,
    address: IpAddr,
    source: &'a SourceFact,
    scope: i64,
    source_scope: i64,
    label: i64,
    source_label: i64,
    precedence: i64,
}

impl<'a> Way<'a> {
    fn new(index: usize, address: IpAddr, source: &'a SourceFact, gai: &GaiConf) -> Self {
        let from = source.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        Self {
            index,
            address,
            source,
            scope: scope(address, gai),
            source_scope: scope(from, gai),
            label: gai.label(address),
            source_label: gai.label(from),
            precedence: gai.precedence(address),
        }
    }

    fn usable(&self) -> bool {
        self.source.address.is_some()
    }
}

fn scope(address: IpAddr, gai: &GaiConf) -> i64 {
    match address {
        IpAddr::V4(v4) => gai.scope(v4),
        IpAddr::V6(v6) if v6.is_multicast() => i64::from(v6.octets()[1] & 0xf),
        IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_loopback() => 2,
        IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfec0 => 5,
        IpAddr::V6(_) => 14,
    }
}

fn compare(one: &Way<'_>, other: &Way<'_>) -> (Ordering, Rule) {
    // `true` comes first.
    let first = |mine: bool, theirs: bool| theirs.cmp(&mine);
    let usable = one.usable();
    let mut rules = vec![(Rule::Usable, first(usable, other.usable()))];
    if usable {
        rules.push((Rule::Scope, first(one.scope == one.source_scope, other.scope == other.source_scope)));
        rules.push((Rule::Deprecated, first(!one.source.deprecated, !other.source.deprecated)));
        rules.push((Rule::Home, first(one.source.home, other.source.home)));
        rules.push((Rule::Label, first(one.label == one.source_label, other.label == other.source_label)));
    }
    rules.push((Rule::Precedence, other.precedence.cmp(&one.precedence)));
    if usable && one.source.index != other.source.index {
        rules.push((Rule::Native, first(!one.source.tunnel, !other.source.tunnel)));
    }
    rules.push((Rule::SmallerScope, one.scope.cmp(&other.scope)));
    if usable {
        let (mine, theirs) = common_bits(one, other);
        rules.push((Rule::Prefix, theirs.cmp(&mine)));
    }
    rules
        .into_iter()
        .find(|(_, order)| order.is_ne())
        .map_or((one.index.cmp(&other.index), Rule::Unchanged), |(rule, order)| (order, rule))
}

/// Rule 9's figures: for IPv4 the bits in common with a source on the same subnet, else 0; for IPv6 as
/// glibc counts, within the first 32 bits in which either differs from its source.
fn common_bits(one: &Way<'_>, other: &Way<'_>) -> (u32, u32) {
    match ((one.address, one.source.address), (other.address, other.source.address)) {
        ((IpAddr::V4(to1), Some(IpAddr::V4(from1))), (IpAddr::V4(to2), Some(IpAddr::V4(from2)))) => {
            (subnet_bits(to1, from1, one.source.prefix), subnet_bits(to2, from2, other.source.prefix))
        }
        ((IpAddr::V6(to1), Some(IpAddr::V6(from1))), (IpAddr::V6(to2), Some(IpAddr::V6(from2)))) => {
            let parts = |a: Ipv6Addr, b: Ipv6Addr| {
                let bits = a.to_bits() ^ b.to_bits();
                [96_u32, 64, 32, 0].map(|shift| u32::try_from(bits >> shift & 0xffff_ffff).unwrap_or(0))
            };
            parts(to1, from1)
                .into_iter()
                .zip(parts(to2, from2))
                .find(|(mine, theirs)| *mine != 0 || *theirs != 0)
                .map_or((0, 0), |(mine, theirs)| (mine.leading_zeros(), theirs.leading_zeros()))
        }
        _ => (0, 0),
    }
}

fn subnet_bits(to: Ipv4Addr, from: Ipv4Addr, prefix: u8) -> u32 {
    // A length of 0 shifts by 32, which on the machines glibc runs on is a shift by 0.
    let mask = u32::MAX << ((32 - u32::from(prefix.min(32))) & 31);
    let differ = to.to_bits() ^ from.to_bits();
    if differ & mask == 0 { differ.leading_zeros() } else { 0 }
}

/// glibc's own merge sort (`msort.c`): the rules are no total order, so that the way of sorting shows.
fn merge_sort(list: &mut [usize], compare: &dyn Fn(usize, usize) -> Ordering) {
    if list.len() < 2 {
        return;
    }
    let (left, right) = list.split_at_mut(list.len() / 2);
    merge_sort(left, compare);
    merge_sort(right, compare);
    let (left, right) = (left.to_vec(), right.to_vec());
    let (mut a, mut b) = (left.iter().copied().peekable(), right.iter().copied().peekable());
    for place in list.iter_mut() {
        let take_left = match (a.peek(), b.peek()) {
            (Some(one), Some(other)) => compare(*one, *other).is_le(),
            (one, _) => one.is_some(),
        };
        if let Some(next) = if take_left { a.next() } else { b.next() } {
            *place = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from(address: &str, prefix: u8) -> SourceFact {
        SourceFact { address: Some(address.parse().unwrap()), prefix, index: Some(2), ..SourceFact::default() }
    }

    fn sorted(list: &[(&str, SourceFact)], gai: &str) -> Vec<(String, Option<u8>)> {
        let addresses: Vec<IpAddr> = list.iter().map(|(address, _)| address.parse().unwrap()).collect();
        let sources: Vec<SourceFact> = list.iter().map(|(_, source)| source.clone()).collect();
        order(&addresses, &sources, &GaiConf::parse(gai))
            .into_iter()
            .map(|placed| (addresses[placed.index].to_string(), placed.rule.map(Rule::number)))
            .collect()
    }

    #[test]
    fn the_rules_one_by_one() {
        let v6 = || from("2001:db8::9", 64);
        let v4 = || from("192.168.1.2", 24);
        let names = |list: Vec<(String, Option<u8>)>| format!("{list:?}");
        for (list, gai, wanted) in [
            (vec![("2001:db8::1", SourceFact::default()), ("192.168.1.3", v4())], "", [("192.168.1.3", 1)]),
            (vec![("192.168.1.3", v4()), ("2001:db8::1", v6())], "", [("2001:db8::1", 6)]),
            (
                vec![("2001:db8::1", v6()), ("192.168.1.3", v4())],
                "precedence ::ffff:0:0/96 100\n",
                [("192.168.1.3", 6)],
            ),
            (vec![("fd00::1", v6()), ("2001:db8::1", v6())], "", [("2001:db8::1", 5)]),
            (vec![("192.168.2.3", v4()), ("192.168.1.3", v4())], "", [("192.168.1.3", 9)]),
            (vec![("192.168.2.3", v4()), ("192.168.3.3", v4())], "", [("192.168.2.3", 10)]),
            (vec![("fe80::1", from("2001:db8::9", 64)), ("2001:db8::1", v6())], "", [("2001:db8::1", 2)]),
        ] {
            let found = sorted(&list, gai);
            assert_eq!((found[0].0.as_str(), found[0].1), (wanted[0].0, Some(wanted[0].1)), "{}", names(found.clone()));
            assert_eq!(found[1].1, None);
        }
    }

    proptest! {
        #[test]
        fn every_address_keeps_a_place(list in proptest::collection::vec((any::<IpAddr>(), any::<Option<IpAddr>>(), 0_u8..130), 0..9)) {
            let addresses: Vec<IpAddr> = list.iter().map(|one| one.0).collect();
            let sources: Vec<SourceFact> = list
                .iter()
                .map(|one| SourceFact { address: one.1, prefix: one.2, ..SourceFact::default() })
                .collect();
            let mut places: Vec<usize> =
                order(&addresses, &sources, &GaiConf::default()).iter().map(|placed| placed.index).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..list.len()).collect::<Vec<_>>());
        }
    }
}
