//! Tests that rest on history or chance, with their parameters: what a simulator of the history
//! needs. [`super::Test::Stateful`] keeps them as text; [`Stateful::read`] gives them typed.

use std::fmt;
use std::net::IpAddr;

use super::matches_header::not;
use super::{Net, Side, quote};

/// How fast a bucket fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// One packet in so many millionths of a second.
    Packets {
        /// Microseconds a packet.
        period: u64,
    },
    /// So many octets a second.
    Bytes(u64),
}

/// `-m hashlimit`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashlimit {
    /// `--hashlimit-above`: holds where the rate is exceeded; else where it is not.
    pub above: bool,
    /// The rate.
    pub rate: Rate,
    /// Packets, or octets, at once; `None` for the default (5 packets, or the rate's octets).
    pub burst: Option<u64>,
    /// A bucket for each source address.
    pub src: bool,
    /// … each source port.
    pub sport: bool,
    /// … each destination address.
    pub dst: bool,
    /// … each destination port.
    pub dport: bool,
    /// The table's name, which rules may share.
    pub name: String,
    /// Prefix length of source addresses; `None` for the whole address.
    pub src_mask: Option<u8>,
    /// Prefix length of destination addresses; `None` for the whole address.
    pub dst_mask: Option<u8>,
    /// `--hashlimit-htable-size`
    pub size: Option<u32>,
    /// `--hashlimit-htable-max`
    pub max: Option<u32>,
    /// `--hashlimit-htable-gcinterval`, milliseconds.
    pub gc: Option<u32>,
    /// `--hashlimit-htable-expire`, milliseconds.
    pub expire: Option<u32>,
    /// `--hashlimit-rate-match`
    pub rate_match: bool,
    /// `--hashlimit-rate-interval`, seconds.
    pub interval: Option<u32>,
}

impl Hashlimit {
    /// The bucket of a packet: addresses under their masks and ports, as far as the mode asks.
    pub fn key(&self, src: IpAddr, dst: IpAddr, sport: u16, dport: u16) -> HashKey {
        let addr = |on: bool, addr: IpAddr, mask: Option<u8>| {
            on.then(|| mask.and_then(|len| Net::prefix(addr, len)).map_or(addr, |net| net.addr))
        };
        HashKey {
            src: addr(self.src, src, self.src_mask),
            dst: addr(self.dst, dst, self.dst_mask),
            sport: self.sport.then_some(sport),
            dport: self.dport.then_some(dport),
        }
    }
}

/// A bucket of a hashlimit table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HashKey {
    /// Source network.
    pub src: Option<IpAddr>,
    /// Destination network.
    pub dst: Option<IpAddr>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
}

/// What `-m recent` does with its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentOp {
    /// `--set`: adds or refreshes the address; always holds.
    Set,
    /// `--rcheck`: looks.
    Check,
    /// `--update`: looks, and refreshes where it holds.
    Update,
    /// `--remove`: holds and removes where the address is there.
    Remove,
}

/// `-m recent`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    /// `! --rcheck` and its like.
    pub negated: bool,
    /// What it does.
    pub op: RecentOp,
    /// Seen within so many seconds.
    pub seconds: Option<u32>,
    /// `--reap`: drops older entries.
    pub reap: bool,
    /// Seen so many times.
    pub hitcount: Option<u32>,
    /// `--rttl`: the TTL must be that of the packet that made the entry.
    pub ttl: bool,
    /// The list.
    pub name: String,
    /// The mask put on addresses; `None` for the whole address.
    pub mask: Option<IpAddr>,
    /// `--rdest`: the destination address rather than the source.
    pub destination: bool,
}

impl Recent {
    /// The address that stands in the list for a packet.
    pub fn key(&self, src: IpAddr, dst: IpAddr) -> IpAddr {
        let addr = if self.destination { dst } else { src };
        self.mask.and_then(|mask| Net::masked(addr, mask)).map_or(addr, |net| net.addr)
    }
}

/// What `-m connbytes` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnbytesMode {
    /// Packets.
    Packets,
    /// Octets.
    Bytes,
    /// Octets a packet.
    Average,
}

/// A test on history or chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stateful {
    /// `-m limit`: one bucket a rule, full at first.
    Limit {
        /// Ten-thousandths of a second a packet.
        period: u32,
        /// Packets at once.
        burst: u32,
    },
    /// `-m hashlimit`
    Hashlimit(Box<Hashlimit>),
    /// `-m recent`
    Recent(Recent),
    /// `-m statistic --mode nth`: the packets number `packet`, `packet + every`, … from 0.
    Nth {
        /// All others.
        negated: bool,
        /// Every so many.
        every: u32,
        /// Which of them, from 0.
        packet: u32,
    },
    /// `-m statistic --mode random`
    Random {
        /// The others.
        negated: bool,
        /// In 2^31ths.
        probability: u32,
    },
    /// `-m quota`: holds for so many octets.
    Quota {
        /// After them.
        negated: bool,
        /// Octets.
        bytes: u64,
    },
    /// `-m connlimit`
    Connlimit {
        /// Holds above the limit; else up to it.
        above: bool,
        /// Flows.
        limit: u32,
        /// Prefix length that groups addresses; `None` for the whole address.
        mask: Option<u8>,
        /// `--connlimit-daddr`: grouped by destination.
        destination: bool,
    },
    /// `-m connbytes`
    Connbytes {
        /// Outside the range.
        negated: bool,
        /// First.
        from: u64,
        /// Last; `None` without an upper bound.
        to: Option<u64>,
        /// What is counted.
        mode: ConnbytesMode,
        /// Of the original direction, of the reply's (`Destination`), or of both.
        direction: Side,
    },
}

/// One option: whether negated, its name, its value.
type Opt<'a> = (bool, &'a str, Option<String>);

impl Stateful {
    /// Reads the options of one of the modules; `Err` says what is wrong with them.
    pub fn read(module: &str, options: &str) -> Result<Self, String> {
        let words = words(options);
        let opts = group(&words);
        let get = |name: &str| opts.iter().find(|(_, n, _)| *n == name);
        let invertible = ["set", "rcheck", "update", "remove", "every", "probability", "quota", "connbytes"];
        let may = |name: &str| invertible.contains(&name) || name.ends_with("-above") || name.ends_with("upto");
        if let Some((_, name, _)) = opts.iter().find(|(n, name, _)| *n && !may(name) && *name != "hashlimit") {
            return Err(format!("`!` cannot stand before `--{name}`"));
        }
        let negated = |name: &str| get(name).is_some_and(|(n, ..)| *n);
        let value = |name: &str| get(name).and_then(|(_, _, v)| v.as_deref());
        let has = |name: &str| get(name).is_some();
        let number = |name: &str| -> Result<Option<u32>, String> {
            value(name).map(|v| v.parse().map_err(|_| format!("`{v}` is no number for `--{name}`"))).transpose()
        };
        let prefix = |name: &str| -> Result<Option<u8>, String> {
            let text = value(name);
            let len = text.map(|v| v.parse::<u8>().ok().filter(|n| *n <= 128).ok_or(v));
            len.transpose().map_err(|v| format!("`{v}` is no prefix length for `--{name}`"))
        };
        Ok(match module {
            "limit" => {
                let text = value("limit").unwrap_or("3/hour");
                let (count, unit) = rate(text).ok_or_else(|| format!("`{text}` is no rate such as 5/min"))?;
                let period = unit * 10_000 / count;
                if period == 0 || unit / count > 86_400 {
                    return Err(format!("the rate {text} is too fast for `-m limit`"));
                }
                let period = u32::try_from(period).map_err(|_| format!("the rate {text} is too slow"))?;
                Self::Limit { period, burst: number("limit-burst")?.unwrap_or(5) }
            }
            "hashlimit" => Self::Hashlimit(Box::new(hashlimit(&opts)?)),
            "recent" => {
                let op = [
                    ("set", RecentOp::Set),
                    ("rcheck", RecentOp::Check),
                    ("update", RecentOp::Update),
                    ("remove", RecentOp::Remove),
                ];
                let mut ops = op.into_iter().filter(|(name, _)| has(name));
                let Some((name, op)) = ops.next() else {
                    return Err("one of `--set`, `--rcheck`, `--update`, `--remove` is needed".to_owned());
                };
                if ops.next().is_some() {
                    return Err("only one of `--set`, `--rcheck`, `--update`, `--remove` may stand".to_owned());
                }
                let mask = value("mask").map(|m| m.parse().map_err(|_| format!("`{m}` is no mask"))).transpose()?;
                Self::Recent(Recent {
                    negated: negated(name),
                    op,
                    seconds: number("seconds")?,
                    reap: has("reap"),
                    hitcount: number("hitcount")?,
                    ttl: has("rttl"),
                    name: value("name").unwrap_or("DEFAULT").to_owned(),
                    mask,
                    destination: has("rdest"),
                })
            }
            "statistic" => match value("mode") {
                Some("nth") => {
                    let every = number("every")?.filter(|n| *n > 0).ok_or("`--mode nth` needs `--every N`")?;
                    let packet = number("packet")?.unwrap_or(0);
                    if packet >= every {
                        return Err(format!("`--packet {packet}` must be less than `--every {every}`"));
                    }
                    Self::Nth { negated: negated("every"), every, packet }
                }
                Some("random") => {
                    let text = value("probability").ok_or("`--mode random` needs `--probability P`")?;
                    let p: f64 = text.parse().map_err(|_| format!("`{text}` is no probability"))?;
                    if !(0.0..=1.0).contains(&p) {
                        return Err(format!("`{text}` is no probability between 0 and 1"));
                    }
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^31")]
                    let probability = (p * 2_147_483_648.0).round() as u32;
                    Self::Random { negated: negated("probability"), probability }
                }
                _ => return Err("`--mode random` or `--mode nth` is needed".to_owned()),
            },
            "quota" => {
                let text = value("quota").ok_or("`--quota BYTES` is needed")?;
                let bytes = text.parse().map_err(|_| format!("`{text}` is no number of octets"))?;
                Self::Quota { negated: negated("quota"), bytes }
            }
            "connlimit" => {
                let (name, above) =
                    if has("connlimit-above") { ("connlimit-above", true) } else { ("connlimit-upto", false) };
                let limit = number(name)?.ok_or("`--connlimit-above N` or `--connlimit-upto N` is needed")?;
                let mask = prefix("connlimit-mask")?;
                Self::Connlimit { above: above != negated(name), limit, mask, destination: has("connlimit-daddr") }
            }
            "connbytes" => {
                let text = value("connbytes").ok_or("`--connbytes FROM:TO` is needed")?;
                let part = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
                let (from, to) = match text.split_once(':') {
                    None => (part(text)?, None),
                    Some((from, to)) => (
                        if from.is_empty() { 0 } else { part(from)? },
                        if to.is_empty() { None } else { Some(part(to)?) },
                    ),
                };
                if to.is_some_and(|to| to < from) {
                    return Err(format!("the range {text} is empty"));
                }
                let mode = match value("connbytes-mode") {
                    Some("packets") => ConnbytesMode::Packets,
                    Some("bytes") => ConnbytesMode::Bytes,
                    Some("avgpkt") => ConnbytesMode::Average,
                    _ => return Err("`--connbytes-mode packets`, `bytes` or `avgpkt` is needed".to_owned()),
                };
                let direction = match value("connbytes-dir") {
                    Some("original") => Side::Source,
                    Some("reply") => Side::Destination,
                    Some("both") => Side::Either,
                    _ => return Err("`--connbytes-dir original`, `reply` or `both` is needed".to_owned()),
                };
                Self::Connbytes { negated: negated("connbytes"), from, to, mode, direction }
            }
            other => return Err(format!("{other} rests on no history")),
        })
    }

    /// The test with what is left to the family filled in, as iptables-save prints it.
    #[must_use]
    pub fn for_family(mut self, v6: bool) -> Self {
        let whole = if v6 { 128 } else { 32 };
        match &mut self {
            Self::Recent(recent) => {
                let all = if v6 { IpAddr::from([0xff; 16]) } else { IpAddr::from([0xff; 4]) };
                recent.mask.get_or_insert(all);
            }
            Self::Connlimit { mask, .. } => {
                mask.get_or_insert(whole);
            }
            Self::Hashlimit(limit) => {
                limit.src_mask = limit.src_mask.filter(|len| *len != whole);
                limit.dst_mask = limit.dst_mask.filter(|len| *len != whole);
            }
            _ => (),
        }
        self
    }
}

fn hashlimit(opts: &[Opt<'_>]) -> Result<Hashlimit, String> {
    let get = |name: &str| opts.iter().find(|(_, n, _)| *n == name);
    let value = |name: &str| get(name).and_then(|(_, _, v)| v.as_deref());
    let number = |name: &str| -> Result<Option<u32>, String> {
        value(name).map(|v| v.parse().map_err(|_| format!("`{v}` is no number for `--{name}`"))).transpose()
    };
    let prefix = |name: &str| -> Result<Option<u8>, String> {
        let len = value(name).map(|v| v.parse::<u8>().ok().filter(|n| *n <= 128).ok_or(v));
        len.transpose().map_err(|v| format!("`{v}` is no prefix length for `--{name}`"))
    };
    let found = [("hashlimit-above", true), ("hashlimit-upto", false), ("hashlimit", false)]
        .into_iter()
        .find_map(|(name, above)| get(name).map(|(negated, _, text)| (above != *negated, text.as_deref())));
    let Some((above, Some(text))) = found else {
        return Err("`--hashlimit-upto RATE` or `--hashlimit-above RATE` is needed".to_owned());
    };
    let rate = if let Some(bytes) = bytes(text.strip_suffix("/s").unwrap_or("")) {
        Rate::Bytes(bytes)
    } else {
        let (count, unit) = rate(text).ok_or_else(|| format!("`{text}` is no rate such as 5/min or 1mb/s"))?;
        Rate::Packets { period: unit * 1_000_000 / count }
    };
    let burst = match (value("hashlimit-burst"), rate) {
        (None, Rate::Packets { .. }) => Some(5),
        (None, Rate::Bytes(_)) => None,
        (Some(text), _) => {
            let read = bytes(text).or_else(|| text.parse().ok());
            Some(read.ok_or_else(|| format!("`{text}` is no burst"))?)
        }
    };
    let mode = value("hashlimit-mode").unwrap_or("");
    let mut modes = [false; 4];
    for word in mode.split(',').filter(|w| !w.is_empty()) {
        let index = ["srcip", "srcport", "dstip", "dstport"].iter().position(|m| *m == word);
        let index = index.ok_or_else(|| format!("`{word}` is none of srcip, srcport, dstip, dstport"))?;
        if let Some(slot) = modes.get_mut(index) {
            *slot = true;
        }
    }
    Ok(Hashlimit {
        above,
        rate,
        burst,
        src: modes[0],
        sport: modes[1],
        dst: modes[2],
        dport: modes[3],
        name: value("hashlimit-name").ok_or("`--hashlimit-name NAME` is needed")?.to_owned(),
        src_mask: prefix("hashlimit-srcmask")?,
        dst_mask: prefix("hashlimit-dstmask")?,
        size: number("hashlimit-htable-size")?,
        max: number("hashlimit-htable-max")?,
        gc: number("hashlimit-htable-gcinterval")?.filter(|ms| *ms != 1000),
        expire: number("hashlimit-htable-expire")?,
        rate_match: get("hashlimit-rate-match").is_some(),
        interval: number("hashlimit-rate-interval")?,
    })
}

/// `N[/unit]` as a count and the unit's seconds; the beginning of a unit's name will do.
fn rate(text: &str) -> Option<(u64, u64)> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "second"));
    let units = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)];
    let unit = unit.to_ascii_lowercase();
    let (_, seconds) = units.into_iter().find(|(name, _)| !unit.is_empty() && name.starts_with(unit.as_str()))?;
    let count = count.parse::<u64>().ok().filter(|n| (1..=1_000_000_000).contains(n))?;
    Some((count, seconds))
}

/// `5b`, `5kb`, `5mb`
fn bytes(text: &str) -> Option<u64> {
    let (number, factor) = if let Some(n) = text.strip_suffix("mb") {
        (n, 1 << 20)
    } else if let Some(n) = text.strip_suffix("kb") {
        (n, 1 << 10)
    } else {
        (text.strip_suffix('b')?, 1)
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The words of an option text, quotes resolved, and whether each was in quotes.
fn words(text: &str) -> Vec<(String, bool)> {
    let (mut out, mut word, mut inside, mut escaped) = (Vec::new(), None::<(String, bool)>, false, false);
    for c in text.chars() {
        if escaped {
            word.get_or_insert_default().0.push(c);
            escaped = false;
        } else if inside && c == '\\' {
            escaped = true;
        } else if c == '"' {
            inside = !inside;
            word.get_or_insert_default().1 = true;
        } else if c == ' ' && !inside {
            out.extend(word.take());
        } else {
            word.get_or_insert_default().0.push(c);
        }
    }
    out.extend(word);
    out
}

fn group(words: &[(String, bool)]) -> Vec<Opt<'_>> {
    let (mut out, mut negated): (Vec<Opt<'_>>, bool) = (Vec::new(), false);
    for (word, quoted) in words {
        if word == "!" && !quoted {
            negated = true;
        } else if let Some(name) = word.strip_prefix("--").filter(|_| !quoted) {
            out.push((std::mem::take(&mut negated), name, None));
        } else if let Some((_, _, value)) = out.last_mut() {
            value.get_or_insert(word.clone());
        }
    }
    out
}

/// A rate as iptables-save prints it (`print_rate`); `scale` is the period's parts a second.
fn rate_text(period: u64, scale: u64) -> String {
    let units = [("day", 86_400), ("hour", 3600), ("min", 60), ("sec", 1)];
    let period = period.max(1);
    let mut found = ("day", 86_400 * scale);
    for (name, seconds) in units.into_iter().skip(1) {
        let unit = seconds * scale;
        if period > unit || unit / period < unit % period {
            break;
        }
        found = (name, unit);
    }
    format!("{}/{}", found.1 / period, found.0)
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        n if n != 0 && n % (1 << 20) == 0 => format!("{}mb", n >> 20),
        n if n != 0 && n % (1 << 10) == 0 => format!("{}kb", n >> 10),
        n => format!("{n}b"),
    }
}

impl fmt::Display for Stateful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { period, burst } => {
                write!(f, "--limit {}", rate_text(u64::from(*period), 10_000))?;
                if *burst == 5 { Ok(()) } else { write!(f, " --limit-burst {burst}") }
            }
            Self::Hashlimit(limit) => write!(f, "{limit}"),
            Self::Recent(recent) => write!(f, "{recent}"),
            Self::Nth { negated, every, packet } => {
                write!(f, "--mode nth {}--every {every} --packet {packet}", not(*negated))
            }
            Self::Random { negated, probability } => {
                let p = f64::from(*probability) / 2_147_483_648.0;
                write!(f, "--mode random {}--probability {p:.11}", not(*negated))
            }
            Self::Quota { negated, bytes } => write!(f, "{}--quota {bytes}", not(*negated)),
            Self::Connlimit { above, limit, mask, destination } => {
                write!(f, "--connlimit-{} {limit}", if *above { "above" } else { "upto" })?;
                if let Some(mask) = mask {
                    write!(f, " --connlimit-mask {mask}")?;
                }
                write!(f, " --connlimit-{}", if *destination { "daddr" } else { "saddr" })
            }
            Self::Connbytes { negated, from, to, mode, direction } => {
                write!(f, "{}--connbytes {from}", not(*negated))?;
                if let Some(to) = to {
                    write!(f, ":{to}")?;
                }
                let mode = match mode {
                    ConnbytesMode::Packets => "packets",
                    ConnbytesMode::Bytes => "bytes",
                    ConnbytesMode::Average => "avgpkt",
                };
                let direction = match direction {
                    Side::Source => "original",
                    Side::Destination => "reply",
                    Side::Either => "both",
                };
                write!(f, " --connbytes-mode {mode} --connbytes-dir {direction}")
            }
        }
    }
}

impl fmt::Display for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            RecentOp::Set => "set",
            RecentOp::Check => "rcheck",
            RecentOp::Update => "update",
            RecentOp::Remove => "remove",
        };
        write!(f, "{}--{op}", not(self.negated))?;
        if let Some(seconds) = self.seconds {
            write!(f, " --seconds {seconds}")?;
        }
        if self.reap {
            f.write_str(" --reap")?;
        }
        if let Some(hits) = self.hitcount {
            write!(f, " --hitcount {hits}")?;
        }
        if self.ttl {
            f.write_str(" --rttl")?;
        }
        write!(f, " --name {}", quote(&self.name))?;
        if let Some(mask) = self.mask {
            write!(f, " --mask {mask}")?;
        }
        f.write_str(if self.destination { " --rdest" } else { " --rsource" })
    }
}

impl fmt::Display for Hashlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.above { "above" } else { "upto" };
        match self.rate {
            Rate::Packets { period } => {
                write!(f, "--hashlimit-{way} {}", rate_text(period, 1_000_000))?;
                write!(f, " --hashlimit-burst {}", self.burst.unwrap_or(5))?;
            }
            Rate::Bytes(bytes) => {
                write!(f, "--hashlimit-{way} {}/s", bytes_text(bytes))?;
                if let Some(burst) = self.burst {
                    write!(f, " --hashlimit-burst {}", bytes_text(burst))?;
                }
            }
        }
        let modes = [(self.src, "srcip"), (self.sport, "srcport"), (self.dst, "dstip"), (self.dport, "dstport")];
        let modes: Vec<_> = modes.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        if !modes.is_empty() {
            write!(f, " --hashlimit-mode {}", modes.join(","))?;
        }
        write!(f, " --hashlimit-name {}", quote(&self.name))?;
        for (name, value) in [
            ("htable-size", self.size),
            ("htable-max", self.max),
            ("htable-gcinterval", self.gc),
            ("htable-expire", self.expire),
            ("srcmask", self.src_mask.map(u32::from)),
            ("dstmask", self.dst_mask.map(u32::from)),
        ] {
            if let Some(value) = value {
                write!(f, " --hashlimit-{name} {value}")?;
            }
        }
        if self.rate_match {
            f.write_str(" --hashlimit-rate-match")?;
        }
        self.interval.map_or(Ok(()), |seconds| write!(f, " --hashlimit-rate-interval {seconds}"))
    }
}
