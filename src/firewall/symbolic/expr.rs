//! Sets of packets as people type them: a packet expression whose values may be lists, ranges,
//! networks and negations, and in which everything may be left out.

use std::net::IpAddr;

use crate::firewall::names;
use crate::firewall::ruleset::{CtStates, Hook, Iface, Net};

use super::bdd::{ALL, NONE, Set};
use super::space::{Field, STATES, Space, Way, low_bits, number};

/// A text that is no set of packets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  {text}\n  {:>column$}\nhint: a set of packets looks like `in=eth0 tcp 10.0.0.0/8 > 192.168.1.2:22,80 ctstate=NEW`", "^", column = *column)]
pub struct BadSpace {
    /// The text.
    pub text: String,
    /// Column of the fault in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// One demand: a field and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    Ranges(Field, Vec<(u128, u128)>),
    Masked(Field, u128, u128),
    Names(Field, Vec<String>),
    Addrs(Field, Vec<(IpAddr, IpAddr)>),
    IcmpType(Vec<(u128, u128)>),
    IcmpCode(Vec<(u128, u128)>),
}

/// A set of packets, as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packets {
    /// The text.
    pub text: String,
    /// The ways it is about; all where it names none.
    pub ways: Vec<Way>,
    /// The hook that the packets start at, where one is named.
    pub start: Option<Hook>,
    /// The family, where addresses or protocols tell.
    pub v6: Option<bool>,
    /// Whether the ways are named, and not only what packets that come in have.
    pub named_way: bool,
    /// Whether untracked packets are named.
    pub untracked: bool,
    /// Whether conntrack states are named, `any` among them.
    pub states: bool,
    wants: Vec<(bool, Want)>,
}

impl Packets {
    /// Reads a set of packets.
    ///
    /// # Errors
    /// The first word that is not understood.
    pub fn read(text: &str) -> Result<Self, BadSpace> {
        let mut packets = Self { text: text.trim().to_owned(), ..Self::default() };
        let bad = |column: usize, message: String| BadSpace { text: text.replace(['\n', '\r'], " "), column, message };
        let mut words: Vec<(usize, &str)> = Vec::new();
        let mut at = 0;
        for part in text.split(char::is_whitespace) {
            if !part.is_empty() {
                words.push((text[..at].chars().count() + 1, part));
            }
            at += part.len();
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        }
        if let [(_, "every"), (_, "packet")] = words.as_slice() {
            return Ok(packets);
        }
        let arrow = words.iter().position(|(_, word)| matches!(*word, ">" | "->" | "→"));
        for (index, (column, word)) in words.iter().enumerate() {
            let side = match arrow {
                Some(arrow) if index == arrow => continue,
                Some(arrow) if index + 1 == arrow => Some((Field::Src, Field::Sport)),
                Some(arrow) if index == arrow + 1 => Some((Field::Dst, Field::Dport)),
                _ => None,
            };
            match side {
                Some((addr, port)) => packets.end(word, addr, port),
                None => packets.word(word),
            }
            .map_err(|message| bad(*column, message))?;
        }
        if let Some(arrow) = arrow
            && (arrow == 0 || arrow + 1 == words.len())
        {
            return Err(bad(
                words[arrow].0,
                "`>` stands between the source and the destination; `any` is any".to_owned(),
            ));
        }
        packets.settle().map_err(|message| bad(1, message))?;
        Ok(packets)
    }

    /// The interfaces it names.
    pub fn interfaces(&self) -> Vec<String> {
        let names =
            self.wants.iter().filter_map(|(_, want)| if let Want::Names(_, names) = want { Some(names) } else { None });
        names.flatten().filter(|name| *name != "other").cloned().collect()
    }

    fn settle(&mut self) -> Result<(), String> {
        let families: Vec<bool> = self
            .wants
            .iter()
            .filter_map(|(_, want)| if let Want::Addrs(_, addrs) = want { Some(addrs) } else { None })
            .flatten()
            .map(|(from, _)| from.is_ipv6())
            .collect();
        let own = families.first().copied();
        if families.iter().any(|v6| Some(*v6) != own) {
            return Err("its addresses are not of one family".to_owned());
        }
        let icmp = |proto: u128| {
            self.wants.iter().any(|(no, want)| !no && *want == Want::Ranges(Field::Proto, vec![(proto, proto)]))
        };
        if own == Some(true) && icmp(1) {
            for (_, want) in &mut self.wants {
                if *want == Want::Ranges(Field::Proto, vec![(1, 1)]) {
                    *want = Want::Ranges(Field::Proto, vec![(58, 58)]);
                }
            }
        } else if own.is_none() && icmp(58) {
            self.v6 = Some(true);
        }
        self.v6 = self.v6.or(own);
        if self.wants.iter().any(|(_, want)| matches!(want, Want::Names(Field::In, _))) && self.ways.is_empty() {
            self.ways = vec![Way::Input, Way::Forward];
        }
        if self.wants.iter().any(|(_, want)| matches!(want, Want::Names(Field::Out, _))) {
            let both = self.ways.is_empty();
            self.named_way = true;
            self.ways = if both {
                vec![Way::Forward, Way::Output]
            } else {
                self.ways.iter().copied().filter(|w| *w != Way::Input).collect()
            };
        }
        Ok(())
    }

    fn end(&mut self, word: &str, addr: Field, port: Field) -> Result<(), String> {
        let (addrs, ports) = match word.strip_prefix('[') {
            Some(rest) => {
                let (addrs, rest) = rest.split_once(']').ok_or_else(|| format!("`{word}` lacks its `]`"))?;
                (addrs, rest.strip_prefix(':'))
            }
            None if word.matches(':').count() == 1 => word.split_once(':').map_or((word, None), |(a, p)| (a, Some(p))),
            None => (word, None),
        };
        if !matches!(addrs, "any" | "*" | "") {
            let (no, list) = negated(addrs);
            let list = list.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
            self.wants.push((no, Want::Addrs(addr, list)));
        }
        if let Some(ports) = ports.filter(|ports| !matches!(*ports, "any" | "*" | "")) {
            let (no, list) = negated(ports);
            self.wants.push((no, Want::Ranges(port, port_list(list)?)));
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if let Some((key, value)) = word.split_once("!=") {
            return self.setting(key, true, value);
        }
        if let Some((key, value)) = word.split_once('=') {
            let (no, value) = negated(value);
            return self.setting(key, no, value);
        }
        match word {
            "any" => return Ok(()),
            "fragment" | "whole" => {
                let value = u128::from(word == "fragment");
                self.push(false, Want::Ranges(Field::Frag, vec![(value, value)]));
                return Ok(());
            }
            "v4" | "ipv4" => {
                self.v6 = Some(false);
                return Ok(());
            }
            "v6" => {
                self.v6 = Some(true);
                return Ok(());
            }
            _ => (),
        }
        let (no, list) = negated(word);
        if let Some(protos) = list.split(',').map(names::protocol).collect::<Option<Vec<u8>>>() {
            let ranges = protos.into_iter().map(|p| (p.into(), p.into())).collect();
            self.push(no, Want::Ranges(Field::Proto, ranges));
            return Ok(());
        }
        if let Some(states) = states(list) {
            self.untracked |= states.contains(&(4, 4)) && !no;
            self.push(no, Want::Ranges(Field::Ct, states));
            return Ok(());
        }
        if flag_bits(list).is_some() {
            return self.setting("flags", no, list);
        }
        Err(format!("`{word}` is no protocol, TCP flag or conntrack state, and no key=value"))
    }

    fn push(&mut self, no: bool, want: Want) {
        self.states |= matches!(want, Want::Ranges(Field::Ct, _));
        self.wants.push((no, want));
    }

    fn setting(&mut self, key: &str, no: bool, value: &str) -> Result<(), String> {
        let wrong = || format!("`{value}` is no value of `{key}`");
        let names = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        let want = match key {
            "in" | "iif" => Want::Names(Field::In, names()),
            "out" | "oif" => Want::Names(Field::Out, names()),
            "hook" => {
                let hook = Hook::of_builtin(&value.to_ascii_uppercase()).ok_or_else(wrong)?;
                self.ways = match hook {
                    Hook::Input => vec![Way::Input],
                    Hook::Forward => vec![Way::Forward],
                    Hook::Output => vec![Way::Output],
                    Hook::Postrouting => vec![Way::Forward, Way::Output],
                    _ => vec![Way::Input, Way::Forward],
                };
                self.start = matches!(hook, Hook::Input | Hook::Forward).then_some(hook);
                self.named_way = true;
                return Ok(());
            }
            "to" => {
                self.ways = match value {
                    "local" => vec![Way::Input],
                    "forward" => vec![Way::Forward],
                    _ => return Err(wrong()),
                };
                self.named_way = true;
                return Ok(());
            }
            "family" => {
                self.v6 = Some(match value {
                    "ip" | "ipv4" | "v4" => false,
                    "ip6" | "ipv6" | "v6" => true,
                    _ => return Err(wrong()),
                });
                return Ok(());
            }
            "proto" => {
                let one = |p: &str| match p.split_once('-') {
                    Some((from, to)) if from.parse::<u8>().is_ok() => Some((from.parse().ok()?, to.parse().ok()?)),
                    _ => names::protocol(p).map(|p| (p.into(), p.into())),
                };
                Want::Ranges(Field::Proto, value.split(',').map(one).collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
            "src" | "dst" => {
                let list = value.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
                Want::Addrs(if key == "src" { Field::Src } else { Field::Dst }, list)
            }
            "sport" => Want::Ranges(Field::Sport, port_list(value)?),
            "dport" => Want::Ranges(Field::Dport, port_list(value)?),
            "ctstate" if value == "any" => {
                self.states = true;
                return Ok(());
            }
            "ctstate" => {
                let states = states(value).ok_or_else(wrong)?;
                self.untracked |= states.contains(&(4, 4)) && !no;
                Want::Ranges(Field::Ct, states)
            }
            "flags" | "tcp_flags" => match value.split_once('/') {
                Some((set, mask)) => {
                    let (set, mask) = (flag_bits(set).ok_or_else(wrong)?, flag_bits(mask).ok_or_else(wrong)?);
                    Want::Masked(Field::Flags, set, mask)
                }
                None => match flag_bits(value) {
                    Some(bits) => Want::Ranges(Field::Flags, vec![(bits, bits)]),
                    None => Want::Ranges(Field::Flags, ranges(value, 255).ok_or_else(wrong)?),
                },
            },
            "icmp_type" | "type" => Want::IcmpType(ranges(value, 255).ok_or_else(wrong)?),
            "icmp_code" | "code" => Want::IcmpCode(ranges(value, 255).ok_or_else(wrong)?),
            "mark" | "connmark" => {
                let field = if key == "mark" { Field::Mark } else { Field::Connmark };
                match value.split_once('/') {
                    Some((number, mask)) => {
                        let (number, mask) = (parse(number).ok_or_else(wrong)?, parse(mask).ok_or_else(wrong)?);
                        Want::Masked(field, number, mask)
                    }
                    None => Want::Ranges(field, ranges(value, 0xffff_ffff).ok_or_else(wrong)?),
                }
            }
            "length" => Want::Ranges(Field::Length, ranges(value, 65_535).ok_or_else(wrong)?),
            "ttl" | "hl" => Want::Ranges(Field::Ttl, ranges(value, 255).ok_or_else(wrong)?),
            "tos" => Want::Ranges(Field::Tos, ranges(value, 255).ok_or_else(wrong)?),
            "uid" => Want::Ranges(Field::Uid, ranges(value, 0xffff_ffff).ok_or_else(wrong)?),
            "gid" => Want::Ranges(Field::Gid, ranges(value, 0xffff_ffff).ok_or_else(wrong)?),
            "mac_src" | "mac" => {
                let mac: crate::wire::MacAddr = value.parse().map_err(|_| wrong())?;
                let n = super::condition::mac_number(mac.0);
                Want::Ranges(Field::Mac, vec![(n, n)])
            }
            "pkttype" => {
                let one = |kind: &str| ["unicast", "broadcast", "multicast"].iter().position(|k| *k == kind);
                let kinds = value.split(',').map(one).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
                Want::Ranges(Field::PktType, kinds.into_iter().map(|k| (k as u128, k as u128)).collect())
            }
            _ => return Err(format!("`{key}` is no field of a packet")),
        };
        self.push(no, want);
        Ok(())
    }

    /// Whether TCP flags are named.
    pub fn names_flags(&self) -> bool {
        self.wants
            .iter()
            .any(|(_, want)| matches!(want, Want::Ranges(Field::Flags, _) | Want::Masked(Field::Flags, ..)))
    }

    /// Whether it names something that answers do not have in common with what they answer.
    pub fn is_one_way(&self) -> bool {
        self.states
            || self.names_flags()
            || self.wants.iter().any(|(_, want)| {
                matches!(want, Want::IcmpType(_) | Want::IcmpCode(_))
                    || matches!(
                        want,
                        Want::Ranges(
                            Field::Mark | Field::Mac | Field::Ttl | Field::Length | Field::Uid | Field::Gid,
                            _
                        )
                    )
            })
    }

    /// The packets that answer these: ends, ports, interfaces and ways swapped.
    #[must_use]
    pub fn answers(&self) -> Self {
        let swap = |field: Field| match field {
            Field::Src => Field::Dst,
            Field::Dst => Field::Src,
            Field::Sport => Field::Dport,
            Field::Dport => Field::Sport,
            Field::In => Field::Out,
            Field::Out => Field::In,
            other => other,
        };
        let mut back = self.clone();
        for (_, want) in &mut back.wants {
            match want {
                Want::Ranges(field, _) | Want::Masked(field, ..) | Want::Names(field, _) | Want::Addrs(field, _) => {
                    *field = swap(*field);
                }
                Want::IcmpType(_) | Want::IcmpCode(_) => (),
            }
        }
        back.start = None;
        for way in &mut back.ways {
            *way = match way {
                Way::Input => Way::Output,
                Way::Forward => Way::Forward,
                Way::Output => Way::Input,
            };
        }
        back
    }

    /// The set, without regard to ways.
    pub fn set(&self, space: &mut Space) -> Set {
        if self.v6.is_some_and(|v6| v6 != space.v6) {
            return NONE;
        }
        let mut all = ALL;
        for (no, want) in &self.wants {
            let (set, there) = Self::want(space, want);
            let set = if *no { !set } else { set };
            all = space.bdd.and(all, set);
            all = space.bdd.and(all, there);
        }
        all
    }

    fn want(space: &mut Space, want: &Want) -> (Set, Set) {
        match want {
            Want::Ranges(field, ranges) => {
                let mut there = ALL;
                if matches!(field, Field::Sport | Field::Dport) {
                    let (ports, whole) = (space.has_ports(), space.equals(Field::Frag, 0));
                    there = space.bdd.and(ports, whole);
                } else if *field == Field::Flags {
                    let (tcp, whole) = (space.equals(Field::Proto, 6), space.equals(Field::Frag, 0));
                    there = space.bdd.and(tcp, whole);
                }
                // `icmp` is ICMPv6 over IPv6.
                let ranges: Vec<(u128, u128)> = if *field == Field::Proto && space.v6 {
                    ranges.iter().map(|r| if *r == (1, 1) { (58, 58) } else { *r }).collect()
                } else {
                    ranges.clone()
                };
                (space.within(*field, &ranges), there)
            }
            Want::Masked(field, value, mask) => {
                let there = if *field == Field::Flags { space.equals(Field::Proto, 6) } else { ALL };
                (space.masked(*field, *value, *mask), there)
            }
            Want::Names(field, names) => {
                let space_names = space.names.clone();
                let mut ranges = Vec::new();
                for name in names {
                    if name == "other" {
                        let other = (0u128..).zip(&space_names.kinds).filter(|(_, k)| k.as_deref() == Some("+"));
                        ranges.extend(other.map(|(n, _)| (n, n)));
                    } else {
                        let iface = Iface::parse(&name.replace('*', "+"));
                        ranges.extend(space_names.ranges(|own| iface.matches(own)));
                    }
                }
                (space.within(*field, &ranges), ALL)
            }
            Want::Addrs(field, list) => {
                let ranges: Vec<(u128, u128)> = list.iter().map(|(from, to)| (number(*from), number(*to))).collect();
                (space.within(*field, &ranges), ALL)
            }
            Want::IcmpType(kinds) | Want::IcmpCode(kinds) => {
                let (icmp, whole) =
                    (space.equals(Field::Proto, if space.v6 { 58 } else { 1 }), space.equals(Field::Frag, 0));
                let there = space.bdd.and(icmp, whole);
                let ranges: Vec<(u128, u128)> = if matches!(want, Want::IcmpType(_)) {
                    kinds.iter().map(|(from, to)| (from << 8, to << 8 | 255)).collect()
                } else {
                    (0..256u128)
                        .flat_map(|kind| kinds.iter().map(move |(from, to)| (kind << 8 | from, kind << 8 | to)))
                        .collect()
                };
                (space.within(Field::Dport, &ranges), there)
            }
        }
    }
}

fn negated(text: &str) -> (bool, &str) {
    text.strip_prefix('!').map_or((false, text), |rest| (true, rest))
}

fn parse(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(hex) => u128::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn ranges(text: &str, most: u128) -> Option<Vec<(u128, u128)>> {
    let one = |part: &str| {
        let (from, to) = part.split_once(['-', ':']).unwrap_or((part, part));
        let (from, to) = (parse(from)?, parse(to)?);
        (from <= to && to <= most).then_some((from, to))
    };
    text.split(',').map(one).collect()
}

fn port_list(text: &str) -> Result<Vec<(u128, u128)>, String> {
    let one = |part: &str| -> Option<(u128, u128)> {
        if let Some(port) = names::port(part) {
            return Some((port.into(), port.into()));
        }
        let (from, to) = part.split_once(['-', ':'])?;
        let from = if from.is_empty() { 0 } else { names::port(from)?.into() };
        let to = if to.is_empty() { 65_535 } else { names::port(to)?.into() };
        (from <= to).then_some((from, to))
    };
    text.split(',').map(|part| one(part).ok_or_else(|| format!("`{part}` is no port and no range of ports"))).collect()
}

fn address(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let no = || format!("`{text}` is no address, network or range of addresses");
    if let Some((from, to)) = text.split_once('-') {
        let (from, to): (IpAddr, IpAddr) = (from.parse().map_err(|_| no())?, to.parse().map_err(|_| no())?);
        return if from.is_ipv6() == to.is_ipv6() && from <= to { Ok((from, to)) } else { Err(no()) };
    }
    let Some((addr, length)) = text.split_once('/') else {
        let addr: IpAddr = text.parse().map_err(|_| no())?;
        return Ok((addr, addr));
    };
    let addr: IpAddr = addr.parse().map_err(|_| no())?;
    let net = match length.parse::<u8>() {
        Ok(length) => Net::prefix(addr, length),
        Err(_) => length.parse().ok().and_then(|mask| Net::masked(addr, mask)),
    };
    let net = net.ok_or_else(no)?;
    let bits = net.prefix_len().ok_or_else(|| format!("`{text}`: the mask has holes"))?;
    let last = number(net.addr) | low_bits((if addr.is_ipv6() { 128 } else { 32 }) - u32::from(bits));
    let last = if addr.is_ipv6() {
        IpAddr::V6(last.into())
    } else {
        IpAddr::V4(u32::try_from(last).unwrap_or(u32::MAX).into())
    };
    Ok((net.addr, last))
}

fn states(text: &str) -> Option<Vec<(u128, u128)>> {
    let one = |part: &str| {
        let name = CtStates::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(part))?;
        let code = STATES.iter().position(|state| state.0 == name.1)? as u128;
        Some((code, code))
    };
    text.split([',', '|']).map(one).collect()
}

fn flag_bits(text: &str) -> Option<u128> {
    let one = |part: &str| match part.to_ascii_lowercase().as_str() {
        "fin" => Some(1),
        "syn" => Some(2),
        "rst" => Some(4),
        "psh" => Some(8),
        "ack" => Some(16),
        "urg" => Some(32),
        "ece" => Some(64),
        "cwr" => Some(128),
        "none" => Some(0),
        "all" => Some(0x3f),
        _ => None,
    };
    text.split([',', '+', '|']).map(one).try_fold(0, |all, bit| Some(all | bit?))
}
