//! What a link, address, route, rule or neighbour should be: plain data, written and read in the words
//! of the `ip` command, so that a change can be shown to people exactly as they would type it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::wire::MacAddr;

/// The text was not in the words of `ip route`, `ip rule` or `ip neigh`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{text}`: {why}")]
pub struct SpecError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

fn bad(text: &str, why: impl Into<String>) -> SpecError {
    SpecError { text: text.to_owned(), why: why.into() }
}

/// What a route does with a packet (`rtm_type`, rtnetlink(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// Sends it on.
    #[default]
    Unicast,
    /// Drops it without a word; local senders get EINVAL.
    Blackhole,
    /// Answers host unreachable; local senders get EHOSTUNREACH.
    Unreachable,
    /// Answers administratively prohibited; local senders get EACCES.
    Prohibit,
    /// Ends the search in this table; local senders get ENETUNREACH where no other table knows better.
    Throw,
}

impl RouteKind {
    fn word(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Unicast, Self::Blackhole, Self::Unreachable, Self::Prohibit, Self::Throw]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// One way a route may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The gateway; none where the destination is on the link itself.
    pub via: Option<IpAddr>,
    /// The link; none where the kernel finds it by the gateway.
    pub dev: Option<String>,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
    /// Share among several hops, from 1.
    pub weight: Option<u8>,
}

/// A route as `ip route` writes it: `default via 192.168.1.1 dev eth0`, `blackhole 192.168.2.3`,
/// `10.0.0.0/8 nexthop via 10.0.1.2 weight 1 nexthop via 10.0.2.2 weight 1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RouteSpec {
    /// Destination; a prefix of length 0 is the default route.
    pub to: IpNetwork,
    /// What it does.
    pub kind: RouteKind,
    /// The ways; empty for kinds that go nowhere, several for multipath.
    pub hops: Vec<Hop>,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// Metric; none is the kernel's default.
    pub metric: Option<u32>,
    /// Table; none is main (254).
    pub table: Option<u32>,
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{} ", self.kind.word())?;
        }
        match (self.to.prefix(), self.to) {
            // `default` alone means IPv4, so the other family is written out.
            (0, IpNetwork::V4(_)) => f.write_str("default")?,
            (0, IpNetwork::V6(_)) => f.write_str("::/0")?,
            (32, IpNetwork::V4(net)) => write!(f, "{}", net.ip())?,
            (128, IpNetwork::V6(net)) => write!(f, "{}", net.ip())?,
            (_, net) => write!(f, "{net}")?,
        }
        for hop in &self.hops {
            if self.hops.len() > 1 {
                f.write_str(" nexthop")?;
            }
            if let Some(via) = hop.via {
                write!(f, " via {via}")?;
            }
            if let Some(dev) = &hop.dev {
                write!(f, " dev {dev}")?;
            }
            if let Some(weight) = hop.weight {
                write!(f, " weight {weight}")?;
            }
            if hop.onlink {
                f.write_str(" onlink")?;
            }
        }
        if let Some(src) = self.src {
            write!(f, " src {src}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        if let Some(table) = self.table {
            write!(f, " table {table}")?;
        }
        Ok(())
    }
}

fn value<'a, T: FromStr>(text: &str, key: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<T, SpecError> {
    let word = words.next().ok_or_else(|| bad(text, format!("nothing follows `{key}`")))?;
    word.parse().map_err(|_| bad(text, format!("`{word}` is no value for `{key}`")))
}

impl FromStr for RouteSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split_whitespace().peekable();
        let first = words.next().ok_or_else(|| bad(text, "a route needs a destination"))?;
        let (kind, to) = match RouteKind::from_word(first) {
            Some(kind) => (kind, words.next().ok_or_else(|| bad(text, "a route needs a destination"))?),
            None => (RouteKind::Unicast, first),
        };
        let mut hops: Vec<Hop> = Vec::new();
        let mut single = Hop::default();
        let (mut src, mut metric, mut table) = (None, None, None);
        while let Some(word) = words.next() {
            let hop = hops.last_mut().unwrap_or(&mut single);
            match word {
                "nexthop" => hops.push(Hop::default()),
                "via" => {
                    if matches!(words.peek(), Some(&("inet" | "inet6"))) {
                        words.next();
                    }
                    hop.via = Some(value(text, word, &mut words)?);
                }
                "dev" => hop.dev = Some(value(text, word, &mut words)?),
                "weight" => hop.weight = Some(value(text, word, &mut words)?),
                "onlink" => hop.onlink = true,
                "src" => src = Some(value(text, word, &mut words)?),
                "metric" => metric = Some(value(text, word, &mut words)?),
                "table" => {
                    let name: String = value(text, word, &mut words)?;
                    table = match name.as_str() {
                        "main" => None,
                        number => Some(number.parse().map_err(|_| bad(text, format!("`{number}` is no table")))?),
                    };
                }
                // What the kernel set by itself and shows; nothing to give back.
                "proto" | "scope" | "pref" => drop(words.next()),
                other => return Err(bad(text, format!("the word `{other}` is not known here"))),
            }
        }
        if hops.is_empty() && single != Hop::default() {
            hops.push(single);
        }
        let v6 = hops.iter().filter_map(|hop| hop.via).chain(src).any(|ip| ip.is_ipv6());
        let to: IpNetwork = match to {
            "default" | "all" | "any" if v6 => "::/0".parse().map_err(|_| bad(text, "no destination"))?,
            "default" | "all" | "any" => "0.0.0.0/0".parse().map_err(|_| bad(text, "no destination"))?,
            other => other.parse().map_err(|_| bad(text, format!("`{other}` is no destination")))?,
        };
        if kind == RouteKind::Unicast && hops.is_empty() && table.is_none() && metric.is_none() && src.is_none() {
            // Enough to name a route that is to be deleted, not to add one: the kernel says so itself.
            return Ok(Self { to, kind, hops, src, metric, table });
        }
        if hops.iter().filter_map(|hop| hop.via).any(|via| via.is_ipv6() != to.is_ipv6()) {
            return Err(bad(text, "destination and gateway are of two families"));
        }
        Ok(Self { to, kind, hops, src, metric, table })
    }
}

impl From<RouteSpec> for String {
    fn from(spec: RouteSpec) -> Self {
        spec.to_string()
    }
}

impl TryFrom<String> for RouteSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

/// A policy rule as `ip rule` writes it: `from 192.168.1.2 prohibit`, `to 10.0.0.0/8 lookup 100 pref 50`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// Sender of the packets it is for.
    pub from: Option<IpNetwork>,
    /// Receiver.
    pub to: Option<IpNetwork>,
    /// Firewall mark.
    pub mark: Option<u32>,
    /// Its number: rules are asked in rising order.
    pub priority: Option<u32>,
    /// The table it sends to; none where `kind` says what happens.
    pub table: Option<u32>,
    /// What happens where it is not a table.
    pub kind: RouteKind,
}

impl FromStr for RuleSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        let mut words = text.split_whitespace();
        let net = |word: String| match word.as_str() {
            "all" | "any" | "default" => Ok(None),
            other => other.parse().map(Some).map_err(|_| bad(text, format!("`{other}` is no prefix"))),
        };
        while let Some(word) = words.next() {
            match word {
                "from" => spec.from = net(value(text, word, &mut words)?)?,
                "to" => spec.to = net(value(text, word, &mut words)?)?,
                "fwmark" => spec.mark = Some(value(text, word, &mut words)?),
                "pref" | "priority" | "prio" | "order" => spec.priority = Some(value(text, word, &mut words)?),
                "lookup" | "table" => {
                    let name: String = value(text, word, &mut words)?;
                    spec.table = Some(match name.as_str() {
                        "main" => 254,
                        "local" => 255,
                        "default" => 253,
                        number => number.parse().map_err(|_| bad(text, format!("`{number}` is no table")))?,
                    });
                }
                other => {
                    spec.kind = RouteKind::from_word(other)
                        .ok_or_else(|| bad(text, format!("the word `{other}` is not known here")))?;
                }
            }
        }
        Ok(spec)
    }
}

/// A neighbour as `ip neigh` writes it: `192.168.1.3 lladdr 02:00:00:00:00:99 dev eth0 nud permanent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourSpec {
    /// Whose address.
    pub ip: IpAddr,
    /// Link-layer address; none when the entry is only named.
    pub mac: Option<MacAddr>,
    /// On which link.
    pub dev: String,
    /// Kept until deleted, or an entry that may age.
    pub permanent: bool,
}

impl FromStr for NeighbourSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut words = text.split_whitespace();
        let (mut ip, mut mac, mut dev, mut permanent) = (None, None, None, true);
        while let Some(word) = words.next() {
            match word {
                "lladdr" => mac = Some(value(text, word, &mut words)?),
                "dev" => dev = Some(value(text, word, &mut words)?),
                "nud" => permanent = value::<String>(text, word, &mut words)? == "permanent",
                "to" => {}
                address => ip = Some(address.parse().map_err(|_| bad(text, format!("`{address}` is no address")))?),
            }
        }
        Ok(Self {
            ip: ip.ok_or_else(|| bad(text, "no address"))?,
            mac,
            dev: dev.ok_or_else(|| bad(text, "no `dev`"))?,
            permanent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_read_back_as_written() {
        for text in [
            "default via 192.168.1.1",
            "default via 192.168.1.77 dev eth0 onlink",
            "blackhole 192.168.2.3",
            "unreachable 10.0.0.0/8 metric 5 table 100",
            "192.168.2.0/24 nexthop via 10.0.1.2 weight 1 nexthop via 10.0.2.2 weight 1",
            "::/0 via fd00:1::1",
            "192.168.1.0/24 dev eth0 src 192.168.1.2",
        ] {
            assert_eq!(text.parse::<RouteSpec>().unwrap().to_string(), text);
        }
        assert_eq!("default via fd00::1".parse::<RouteSpec>().unwrap().to_string(), "::/0 via fd00::1");
        assert_eq!("192.168.2.0/24 dev eth0 proto kernel scope link".parse::<RouteSpec>().unwrap().hops.len(), 1);
    }

    #[test]
    fn nonsense_is_refused_with_the_word_that_is_wrong() {
        for (text, why) in [
            ("", "needs a destination"),
            ("blackhole", "needs a destination"),
            ("default via", "nothing follows"),
            ("default over 1.2.3.4", "`over`"),
            ("10.0.0.0/8 via fd00::1", "two families"),
            ("10.0.0.0/99 via 1.2.3.4", "10.0.0.0/99"),
        ] {
            let error = text.parse::<RouteSpec>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!("192.168.1.3".parse::<NeighbourSpec>().is_err());
        assert!("from 1.2.3.4 dance".parse::<RuleSpec>().is_err());
    }

    #[test]
    fn rules_and_neighbours() {
        let rule: RuleSpec = "from 192.168.1.2 to 10.0.0.0/8 lookup 100 pref 50".parse().unwrap();
        assert_eq!((rule.table, rule.priority), (Some(100), Some(50)));
        let neigh: NeighbourSpec = "192.168.1.3 lladdr 02:00:00:00:00:99 dev eth0 nud permanent".parse().unwrap();
        assert!(neigh.permanent && neigh.mac.is_some());
    }
}
