//! Matches that remember: limit, hashlimit, recent, statistic, quota, connlimit, connbytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::firewall::walk::ChainAt;

use super::conntrack::Flow;
use super::memory::{Bucket, Key, RECENT_ADDRESSES, Recent, RecentEntry, Value};
use super::options::{Options, number, rate};
use super::session::Session;
use super::tcp::TcpState;
use super::tuple::Tuple;

/// The answer to a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Yes,
    No,
    /// Not known even with the history, and why.
    Maybe(String),
}

impl Ask {
    fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// The packet as these matches look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    pub(crate) length: u64,
    /// x_tables' own code runs the rule.
    pub(crate) legacy: bool,
    /// The mask of the list of `recent` that is asked.
    pub(crate) recent_mask: Option<IpAddr>,
}

/// Which match asks: chain, rule from 1, match from 0.
pub(crate) type Place = (ChainAt, usize, usize);

/// Stamps kept for an address (`XT_RECENT_MAX_NSTAMPS`).
const STAMPS: usize = 256;
/// The credits of a hashlimit are 64 bits of 2^37 a millisecond; a burst that is worth more than
/// these nanoseconds (37 hours) wraps around (measured: `1/day` with a burst of 3 lets one pass).
const CREDITS: u128 = 134_217_728_000_000;
/// Flows that a connlimit of one address counts at most, so that one rule's memory is bounded.
const FLOWS: usize = 65_536;

impl Session<'_> {
    /// Whether a match of this module holds; what it remembers is changed.
    pub(crate) fn ask(&mut self, place: Place, module: &str, text: &str, look: &Look) -> Ask {
        let options = Options::read(text);
        let answer = match module {
            "limit" if text.trim_start().starts_with("limit") => self.nft_limit(place, text),
            "limit" => self.limit(place, &options, look.legacy),
            "hashlimit" => self.hashlimit(&options, look),
            "recent" => Some(self.recent(&options, look)),
            "statistic" => self.statistic(place, &options),
            "quota" => self.quota(place, &options, text, look),
            "connlimit" => self.connlimit(place, &options, look),
            "connbytes" => self.connbytes(&options),
            _ => None,
        };
        answer.unwrap_or_else(|| match module {
            "statistic" => Ask::Maybe("it rests on chance".to_owned()),
            "time" => Ask::Maybe("the time of day is not given".to_owned()),
            _ => Ask::Maybe(format!("what {module} remembers is not modelled")),
        })
    }

    fn bucket(&mut self, key: Key, cost: u128, most: u128, idle: Option<Duration>) -> bool {
        let now = self.now();
        let mut bucket = match self.get(&key) {
            Some(Value::Bucket(bucket)) if idle.is_none_or(|idle| now.saturating_sub(bucket.seen()) < idle) => *bucket,
            _ => Bucket::full(most, now),
        };
        let passed = bucket.take(cost, most, now);
        self.put(key, Value::Bucket(bucket));
        passed
    }

    /// `net/netfilter/xt_limit.c`
    fn limit(&mut self, (at, rule, index): Place, options: &Options<'_>, legacy: bool) -> Option<Ask> {
        let (cost, _) = rate(options.value("--limit").unwrap_or("3/hour"))?;
        let burst = options.number("--limit-burst").unwrap_or(5).min(u64::from(u32::MAX));
        let mut most = cost * u128::from(burst);
        if legacy {
            most = limit_cap(cost, burst);
        }
        Some(Ask::of(self.bucket(Key::Rule(at, rule, index), cost, most, None)))
    }

    /// `net/netfilter/nft_limit.c`: `limit rate [over] 10/second [burst 5 packets]`.
    fn nft_limit(&mut self, (at, rule, index): Place, text: &str) -> Option<Ask> {
        let words: Vec<&str> = text.split_ascii_whitespace().skip_while(|word| *word != "rate").skip(1).collect();
        let over = words.first() == Some(&"over");
        let words = if over { words.get(1..)? } else { &words[..] };
        let (cost, _) = rate(words.first()?)?;
        let burst = words.iter().position(|word| *word == "burst").and_then(|at| words.get(at + 1)?.parse().ok());
        let burst: u32 = burst.unwrap_or(5);
        let passed = self.bucket(Key::Rule(at, rule, index), cost, cost * u128::from(burst), None);
        Some(Ask::of(passed != over))
    }

    /// `net/netfilter/xt_hashlimit.c`, in packets.
    fn hashlimit(&mut self, options: &Options<'_>, look: &Look) -> Option<Ask> {
        let (value, above) = [("--hashlimit-upto", false), ("--hashlimit", false), ("--hashlimit-above", true)]
            .into_iter()
            .find_map(|(name, above)| Some((options.value(name)?, above != options.negated(name))))?;
        if options.has("--hashlimit-rate-match") {
            return None;
        }
        let (cost, unit) = rate(value)?;
        let burst = options.number("--hashlimit-burst").unwrap_or(5).min(u64::from(u32::MAX));
        let most = cost * u128::from(burst) % CREDITS;
        let idle = options.number("--hashlimit-htable-expire").map_or(Duration::from_secs(unit), Duration::from_millis);
        let v6 = look.src.is_ipv6();
        let mut fields = String::new();
        for mode in options.value("--hashlimit-mode").unwrap_or("").split(',').filter(|mode| !mode.is_empty()) {
            let masked = |addr, name: &str| mask(addr, options.number(name).and_then(|n| u8::try_from(n).ok()));
            let part = match mode {
                "srcip" => masked(look.src, "--hashlimit-srcmask").to_string(),
                "dstip" => masked(look.dst, "--hashlimit-dstmask").to_string(),
                "srcport" => look.sport.to_string(),
                "dstport" => look.dport.to_string(),
                _ => return None,
            };
            fields.push_str(&part);
            fields.push(' ');
        }
        let name = options.value("--hashlimit-name").unwrap_or("").to_owned();
        let passed = self.bucket(Key::Hash(name, v6, fields), cost, most, Some(idle));
        Some(Ask::of(passed != above))
    }

    /// `net/netfilter/xt_recent.c`, `recent_mt`
    fn recent(&mut self, options: &Options<'_>, look: &Look) -> Ask {
        let now = self.now();
        let (verb, verbs) = (|name: &str| options.has(name), ["--set", "--rcheck", "--update", "--remove"]);
        let invert = verbs.iter().any(|name| options.negated(name));
        let addr = if options.has("--rdest") { look.dst } else { look.src };
        let addr = match (addr, look.recent_mask) {
            (IpAddr::V4(a), Some(IpAddr::V4(m))) => IpAddr::V4(Ipv4Addr::from(a.to_bits() & m.to_bits())),
            (IpAddr::V6(a), Some(IpAddr::V6(m))) => IpAddr::V6(Ipv6Addr::from(a.to_bits() & m.to_bits())),
            (addr, _) => addr,
        };
        let name = options.value("--name").unwrap_or("DEFAULT").to_owned();
        let key = Key::Recent(name, addr.is_ipv6());
        let mut list = match self.get(&key) {
            Some(Value::Recent(list)) => list.clone(),
            _ => Recent::default(),
        };
        let found = list.entries.get_mut(&addr).filter(|e| !options.has("--rttl") || e.ttl == look.ttl);
        let mut holds = invert;
        match found {
            None if !verb("--set") => return Ask::of(invert),
            None => {
                if list.entries.len() >= RECENT_ADDRESSES
                    && let Some(oldest) =
                        list.entries.iter().min_by_key(|(_, e)| e.stamps.last().copied()).map(|(a, _)| *a)
                {
                    list.entries.remove(&oldest);
                }
                list.entries.insert(addr, RecentEntry { ttl: look.ttl, stamps: vec![now] });
                holds = !holds;
            }
            Some(_) if verb("--remove") => {
                list.entries.remove(&addr);
                holds = !holds;
            }
            Some(entry) => {
                if verb("--set") {
                    holds = !holds;
                } else {
                    let seconds = options.number("--seconds").map(Duration::from_secs);
                    let needed = options.number("--hitcount").unwrap_or(0).max(1);
                    let young = |stamp: &&Duration| seconds.is_none_or(|s| now.saturating_sub(**stamp) <= s);
                    if entry.stamps.iter().filter(young).count() as u64 >= needed {
                        holds = !holds;
                    }
                    if options.has("--reap") {
                        entry.stamps.retain(|stamp| young(&stamp));
                    }
                }
                if verb("--set") || verb("--update") && holds {
                    entry.stamps.push(now);
                    let extra = entry.stamps.len().saturating_sub(STAMPS);
                    entry.stamps.drain(..extra);
                    entry.ttl = look.ttl;
                } else if entry.stamps.is_empty() {
                    list.entries.remove(&addr);
                }
            }
        }
        self.put(key, Value::Recent(list));
        Ask::of(holds)
    }

    /// `net/netfilter/xt_statistic.c`; `None` for chance.
    fn statistic(&mut self, (at, rule, index): Place, options: &Options<'_>) -> Option<Ask> {
        if options.value("--mode") != Some("nth") {
            return None;
        }
        let every = options.number("--every").filter(|every| *every > 0)? - 1;
        let key = Key::Rule(at, rule, index);
        let count = match self.get(&key) {
            Some(Value::Count(count)) => *count,
            // As the program sets it up (libxt_statistic.c): the packet-th of every round matches.
            _ => every.saturating_sub(options.number("--packet").unwrap_or(0)),
        };
        let next = if count >= every { 0 } else { count + 1 };
        self.put(key, Value::Count(next));
        Some(Ask::of((next == 0) != (options.negated("--mode") || options.negated("--every"))))
    }

    /// `net/netfilter/xt_quota.c`, and nft's `quota [over] 10 mbytes`.
    fn quota(&mut self, (at, rule, index): Place, options: &Options<'_>, text: &str, look: &Look) -> Option<Ask> {
        let key = Key::Rule(at, rule, index);
        let before = match self.get(&key) {
            Some(Value::Count(count)) => Some(*count),
            _ => None,
        };
        if let Some(limit) = options.number("--quota") {
            let left = before.unwrap_or(limit);
            let enough = left >= look.length;
            // Once too small, it takes no small packet either.
            self.put(key, Value::Count(if enough { left - look.length } else { 0 }));
            return Some(Ask::of(enough != options.negated("--quota")));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().skip_while(|word| *word == "quota").collect();
        let over = words.first() == Some(&"over");
        let mut words = words.into_iter().filter(|word| !matches!(*word, "over" | "until"));
        let amount: u64 = number(words.next()?)?;
        let unit = match words.next()? {
            "bytes" => 1,
            "kbytes" => 1 << 10,
            "mbytes" => 1 << 20,
            _ => return None,
        };
        let used = before.unwrap_or(0).saturating_add(look.length);
        self.put(key, Value::Count(used));
        Some(Ask::of((used > amount.saturating_mul(unit)) == over))
    }

    /// `net/netfilter/xt_connlimit.c`, `nf_conncount.c`
    fn connlimit(&mut self, (at, rule, index): Place, options: &Options<'_>, look: &Look) -> Option<Ask> {
        let (limit, above) = [("--connlimit-above", true), ("--connlimit-upto", false)]
            .into_iter()
            .find_map(|(name, above)| Some((options.number(name)?, above != options.negated(name))))?;
        let addr = if options.has("--connlimit-daddr") { look.dst } else { look.src };
        let bits = options.number("--connlimit-mask").and_then(|n| u8::try_from(n).ok());
        let own = match &self.current {
            Some(current) => current.flow.tuples[0],
            None => Tuple { src: look.src, dst: look.dst, proto: look.proto, sport: look.sport, dport: look.dport },
        };
        let key = Key::Hash(format!("connlimit {at:?} {rule} {index}"), addr.is_ipv6(), mask(addr, bits).to_string());
        // The list is walked in its order, and no further than to the packet's own flow: what is dropped from
        // it (flows that were never confirmed or are over) lies before that. A flow not yet in it is added.
        let (mut flows, mut found) = (Vec::new(), false);
        if let Some(Value::Flows(listed)) = self.get(&key) {
            for tuple in listed {
                let state = if found { None } else { self.find(tuple).map(|(_, _, flow)| closed(flow)) };
                let own = state.is_some() && *tuple == own;
                if found || own || state == Some(false) {
                    flows.push(*tuple);
                }
                found |= own;
            }
        }
        if !found && flows.len() < FLOWS {
            flows.push(own);
        }
        let count = flows.len() as u64;
        self.put(key, Value::Flows(flows));
        Some(Ask::of((count > limit) == above))
    }

    /// `net/netfilter/xt_connbytes.c`
    fn connbytes(&mut self, options: &Options<'_>) -> Option<Ask> {
        let Some(current) = &self.current else { return Some(Ask::No) };
        let flow = &current.flow;
        let pick = |pair: [u64; 2]| match options.value("--connbytes-dir") {
            Some("original") => Some(pair[0]),
            Some("reply") => Some(pair[1]),
            Some("both") => Some(pair[0].saturating_add(pair[1])),
            _ => None,
        };
        let (packets, bytes) = (pick(flow.packets)?, pick(flow.bytes)?);
        let what = match options.value("--connbytes-mode")? {
            "packets" => packets,
            "bytes" => bytes,
            "avgpkt" => bytes.checked_div(packets).unwrap_or(0),
            _ => return None,
        };
        let (from, to) = options.value("--connbytes")?.split_once(':').unwrap_or((options.value("--connbytes")?, ""));
        let from = if from.is_empty() { 0 } else { number(from)? };
        let to = if to.is_empty() { u64::MAX } else { number(to)? };
        Some(Ask::of((from..=to).contains(&what) != options.negated("--connbytes")))
    }
}

/// The most that x_tables' limit saves up, in nanoseconds: its credits, 32,000 a second with the usual
/// timer frequencies, are counted in 32 bits (`net/netfilter/xt_limit.c`, `user2credits`); of more than
/// 37 hours the rest is left.
fn limit_cap(cost: u128, burst: u64) -> u128 {
    const A_SECOND: u32 = 32_000;
    // XT_LIMIT_SCALE: ten thousandths of a second a packet.
    let average = u32::try_from(cost / 100_000).unwrap_or(u32::MAX);
    let user = average.wrapping_mul(u32::try_from(burst).unwrap_or(u32::MAX));
    let credits =
        if user > u32::MAX / A_SECOND { (user / 10_000).wrapping_mul(A_SECOND) } else { user * A_SECOND / 10_000 };
    u128::from(credits) * 1_000_000_000 / u128::from(A_SECOND)
}

fn closed(flow: &Flow) -> bool {
    flow.tuples[0].proto == 6 && matches!(flow.tcp.state, TcpState::TimeWait | TcpState::Close)
}

/// The first bits of an address; all of them without a number.
fn mask(addr: IpAddr, bits: Option<u8>) -> IpAddr {
    let Some(bits) = bits.map(u32::from) else { return addr };
    match addr {
        IpAddr::V4(a) if bits < 32 => IpAddr::V4(Ipv4Addr::from(a.to_bits() & !(u32::MAX >> bits))),
        IpAddr::V6(a) if bits < 128 => IpAddr::V6(Ipv6Addr::from(a.to_bits() & !(u128::MAX >> bits))),
        addr => addr,
    }
}
