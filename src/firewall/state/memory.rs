//! What rules remember: buckets, counters, lists (`net/netfilter/xt_*.c`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::firewall::ruleset::Element;
use crate::firewall::walk::ChainAt;

use super::tuple::Tuple;

/// Whose memory it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One match of one rule: chain, rule from 1, match from 0.
    Rule(ChainAt, usize, usize),
    /// A hashlimit table's entry: table, IPv6, packet fields.
    Hash(String, bool, String),
    /// A list of recent: name, IPv6.
    Recent(String, bool),
    /// An ipset.
    Set(String),
}

/// What is remembered.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Bucket(Bucket),
    Count(u64),
    Recent(Recent),
    Set(Arc<SetChange>),
    /// The flows that a connlimit counts.
    Flows(Vec<Tuple>),
}

/// A token bucket in nanoseconds of credit (`xt_limit.c`, `xt_hashlimit.c`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    credit: u128,
    seen: Duration,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(most: u128, now: Duration) -> Self {
        Self { credit: most, seen: now }
    }

    /// Takes one packet's cost; false where there is not enough.
    pub(crate) fn take(&mut self, cost: u128, most: u128, now: Duration) -> bool {
        let gained = now.saturating_sub(self.seen).as_nanos();
        self.seen = now;
        self.credit = self.credit.saturating_add(gained).min(most);
        if self.credit < cost {
            return false;
        }
        self.credit -= cost;
        true
    }

    /// When it was last asked.
    pub(crate) fn seen(&self) -> Duration {
        self.seen
    }
}

/// One list of recent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    pub(crate) entries: BTreeMap<IpAddr, RecentEntry>,
}

/// An address in a list of recent.
#[derive(Debug, Clone)]
pub(crate) struct RecentEntry {
    pub(crate) ttl: u8,
    /// Newest last.
    pub(crate) stamps: Vec<Duration>,
}

/// Addresses a list remembers (`ip_list_tot`).
pub(crate) const RECENT_ADDRESSES: usize = 100;

/// What has become of an ipset since the dump.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetChange {
    /// Elements with when they expire.
    pub(crate) added: Vec<(Element, Option<Duration>)>,
    pub(crate) removed: Vec<Vec<crate::firewall::ruleset::ElementPart>>,
}
