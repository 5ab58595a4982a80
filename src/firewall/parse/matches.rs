//! From the options of a match module to tests.

use std::net::IpAddr;

use crate::firewall::names;
use crate::firewall::ruleset::quote;
use crate::firewall::ruleset::{
    AddrTypes, CtModule, CtStates, CtStatuses, CtTest, Ext, Family, Match, Order, OwnerTest, PktType, PortRange, Side,
    Stateful, TcpFlags, Test, Transport,
};

use super::error::Fault;
use super::values::{self, fit};
use super::words::Word;
use super::{ext, spec};

/// One option as it was written.
#[derive(Debug, Clone)]
pub(super) struct Opt {
    /// Its own name (long, without dashes); for unknown options the word itself.
    pub(super) name: String,
    /// `!` before it.
    pub(super) negated: bool,
    /// Its arguments.
    pub(super) args: Vec<Word>,
    /// Column of the option.
    pub(super) column: u32,
}

impl Opt {
    pub(super) fn arg(&self) -> Result<&Word, Fault> {
        self.args.first().ok_or_else(|| Fault::new(self.column, format!("`--{}` needs a value", self.name)))
    }
}

/// One `-m MODULE`, or a `-j TARGET`, with its options.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    /// The module is one whose options this program reads.
    pub(super) known: bool,
    pub(super) opts: Vec<Opt>,
    pub(super) column: u32,
}

impl Instance {
    /// The options as text.
    pub(super) fn verbatim(&self) -> String {
        let mut parts = Vec::new();
        for opt in &self.opts {
            if opt.negated {
                parts.push("!".to_owned());
            }
            if self.known {
                parts.push(format!("--{}", opt.name));
            } else if !opt.name.is_empty() {
                parts.push(opt.name.clone());
            }
            parts.extend(opt.args.iter().map(|word| quote(&word.text)));
        }
        parts.join(" ")
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.opts.iter().any(|opt| opt.name == name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Opt> {
        self.opts.iter().find(|opt| opt.name == name)
    }

    fn unknown(&self) -> Match {
        Match::is(Test::Unknown { module: self.name.clone(), options: self.verbatim() })
    }
}

/// Reads a module's options. Notes are warnings about values that cannot be understood and make
/// the rule undecidable.
pub(super) fn build(instance: &Instance, family: Family, notes: &mut Vec<(u32, String)>) -> Result<Vec<Match>, Fault> {
    let name = instance.name.as_str();
    if !instance.known {
        return Ok(vec![instance.unknown()]);
    }
    if spec::STATEFUL.contains(&name) {
        let read = Stateful::read(name, &instance.verbatim());
        let read = read.map_err(|why| Fault::new(instance.column, format!("`-m {name}`: {why}")))?;
        let options = read.for_family(family == Family::Ip6).to_string();
        return Ok(vec![Match::is(Test::Stateful { module: name.to_owned(), options })]);
    }
    if let Some(ext) = ext::build(instance, family)? {
        return Ok(vec![Match::is(Test::Ext(ext))]);
    }
    match name {
        "conntrack" | "state" => return conntrack(instance, family).map(|m| vec![m]),
        "addrtype" => return addrtype(instance),
        "set" => return set(instance).map(|m| vec![m]),
        _ => (),
    }
    if let Some(transport) = Transport::of_module(name)
        && instance.opts.is_empty()
    {
        return Ok(vec![Match::is(Test::Header(transport))]);
    }
    let mut out = Vec::new();
    // In the order of iptables-save, which keeps no other; `--syn` is `--tcp-flags`.
    let mut opts: Vec<&Opt> = instance.opts.iter().collect();
    if let Some(spec) = spec::find(spec::MATCHES, name) {
        opts.sort_by_key(|opt| spec.options.iter().position(|o| o.names.contains(&opt.name.as_str())));
    }
    for opt in opts {
        if opt.name == "suppl-groups" {
            continue;
        }
        match one(name, opt, family)? {
            Read::Test(Test::Owner(OwnerTest::Gid(from, to))) if instance.has("suppl-groups") => {
                out.push(Match::new(opt.negated, Test::Ext(Ext::Groups(from, to))));
            }
            Read::Test(test) => out.push(Match::new(opt.negated, test)),
            Read::Unreadable(why) => {
                notes.push((opt.column, why));
                out.push(instance.unknown());
                return Ok(out);
            }
        }
    }
    if out.is_empty() {
        let options = spec::find(spec::MATCHES, name).map_or(String::new(), |spec| {
            let names: Vec<_> = spec.options.iter().map(|o| format!("--{}", o.names[0])).collect();
            names.join(", ")
        });
        return Err(Fault::new(instance.column, format!("`-m {name}` needs one of its options"))
            .hint(format!("its options are {options}")));
    }
    Ok(out)
}

enum Read {
    Test(Test),
    Unreadable(String),
}

fn one(module: &str, opt: &Opt, family: Family) -> Result<Read, Fault> {
    let test = match (module, opt.name.as_str()) {
        (_, "sport" | "dport") => {
            let Some(module) = Transport::of_module(module) else {
                return Ok(Read::Unreadable(format!("`--{}` of `-m {module}` is not known", opt.name)));
            };
            let arg = opt.arg()?;
            let side = if opt.name == "sport" { Side::Source } else { Side::Destination };
            let range = values::port_range(&arg.text, arg.column).map_err(|fault| {
                if arg.text.contains(',') {
                    let proto = module.module();
                    Fault { hint: None, ..fault }.hint(format!(
                        "a list of ports needs the multiport match: `-p {proto} -m multiport --{}s {}`",
                        opt.name, arg.text
                    ))
                } else {
                    fault
                }
            })?;
            let strict = matches!(module, Transport::Tcp | Transport::Sctp);
            let range = if strict { values::no_empty(range, arg.column)? } else { range };
            Test::Port { module, side, range }
        }
        ("tcp", "tcp-flags") => {
            let (Some(mask), Some(set)) = (opt.args.first(), opt.args.get(1)) else {
                return Err(Fault::new(
                    opt.column,
                    "`--tcp-flags` needs two lists: which flags to look at, and which of them must be set",
                ));
            };
            Test::TcpFlags {
                mask: values::tcp_flags(&mask.text, mask.column)?,
                set: values::tcp_flags(&set.text, set.column)?,
            }
        }
        ("tcp", "syn") => Test::TcpFlags { mask: TcpFlags(0x17), set: TcpFlags::SYN },
        ("tcp", "tcp-option") => Test::TcpOption(fit(opt.arg()?, "TCP option number")?),
        ("sctp", _) => Test::Ext(Ext::Chunks(ext::chunks(opt)?)),
        ("dccp", "dccp-option") => Test::Ext(Ext::DccpOption(fit(opt.arg()?, "DCCP option number")?)),
        ("dccp", _) => Test::Ext(Ext::DccpTypes(ext::dccp_types(opt.arg()?)?)),
        ("icmp" | "icmp6", _) => {
            let (arg, v6) = (opt.arg()?, module == "icmp6");
            let (kind, from, to) = names::icmp_type(&arg.text, v6).ok_or_else(|| {
                Fault::new(arg.column, format!("`{}` is no ICMP type, or the beginning of several", arg.text))
            })?;
            Test::Icmp { v6, kind, codes: (from, to) }
        }
        ("multiport", side) => {
            let side = match side {
                "sports" => Side::Source,
                "dports" => Side::Destination,
                _ => Side::Either,
            };
            Test::Multiport { side, ranges: port_list(opt.arg()?)? }
        }
        ("mark", _) => {
            let (value, mask) = values::value_mask(opt.arg()?, "mark")?;
            Test::Mark { value, mask: mask.unwrap_or(u32::MAX) }
        }
        ("connmark", _) => {
            let (value, mask) = values::value_mask(opt.arg()?, "mark")?;
            Test::Connmark { value, mask: mask.unwrap_or(u32::MAX) }
        }
        ("comment", _) if opt.negated => return Err(Fault::new(opt.column, "`--comment` cannot be negated")),
        ("comment", _) => Test::Comment(opt.arg()?.text.clone()),
        ("iprange", name) => {
            let arg = opt.arg()?;
            let side = if name == "src-range" { Side::Source } else { Side::Destination };
            let (from, to) = addr_range(&arg.text, arg.column, family)?;
            Test::IpRange { side, from, to }
        }
        ("mac", _) => {
            let arg = opt.arg()?;
            match arg.text.parse() {
                Ok(mac) => Test::Mac(mac),
                Err(bad) => return Ok(Read::Unreadable(bad.to_string())),
            }
        }
        ("owner", "socket-exists") => Test::Owner(OwnerTest::SocketExists),
        ("owner", name @ ("uid-owner" | "gid-owner")) => {
            let arg = opt.arg()?;
            let (from, to) = arg.text.split_once('-').unwrap_or((&arg.text, &arg.text));
            match (
                values::number(from).and_then(|n| u32::try_from(n).ok()),
                values::number(to).and_then(|n| u32::try_from(n).ok()),
            ) {
                (Some(from), Some(to)) if name == "uid-owner" => Test::Owner(OwnerTest::Uid(from, to)),
                (Some(from), Some(to)) => Test::Owner(OwnerTest::Gid(from, to)),
                _ if arg.text == "root" && name == "uid-owner" => Test::Owner(OwnerTest::Uid(0, 0)),
                _ if arg.text == "root" => Test::Owner(OwnerTest::Gid(0, 0)),
                _ => {
                    return Ok(Read::Unreadable(format!(
                        "the number of user or group `{}` is not known here",
                        arg.text
                    )));
                }
            }
        }
        ("length", _) => {
            let arg = opt.arg()?;
            let range = length_range(arg)?;
            Test::Length { from: range.from, to: range.to }
        }
        ("ttl" | "hl", name) => {
            let order = match name.rsplit('-').next() {
                Some("lt") => Order::Lt,
                Some("gt") => Order::Gt,
                _ => Order::Eq,
            };
            Test::Ttl { v6: module == "hl", order, value: fit(opt.arg()?, "hop count")? }
        }
        ("tos", _) => {
            let arg = opt.arg()?;
            if let Some(value) = values::tos_name(&arg.text) {
                Test::Tos { value, mask: 0x3f }
            } else {
                let (value, mask) = values::value_mask(arg, "TOS value")?;
                let octet = |n: u32| {
                    u8::try_from(n)
                        .map_err(|_| Fault::new(arg.column, format!("`{}` is too large for a TOS value", arg.text)))
                };
                Test::Tos { value: octet(value)?, mask: mask.map_or(Ok(0xff), octet)? }
            }
        }
        ("dscp", "dscp-class") => {
            let arg = opt.arg()?;
            let class = values::dscp_class(&arg.text);
            Test::Dscp(class.ok_or_else(|| Fault::new(arg.column, format!("`{}` is no DSCP class", arg.text)))?)
        }
        ("dscp", _) => {
            let arg = opt.arg()?;
            let value: u8 = fit(arg, "DSCP value")?;
            if value > 63 {
                return Err(Fault::new(arg.column, "a DSCP value is at most 63"));
            }
            Test::Dscp(value)
        }
        ("pkttype", _) => {
            let arg = opt.arg()?;
            Test::PktType(match arg.text.to_ascii_lowercase().as_str() {
                "unicast" | "host" => PktType::Unicast,
                "broadcast" => PktType::Broadcast,
                "multicast" => PktType::Multicast,
                _ => return Ok(Read::Unreadable(format!("packet type `{}` is not known", arg.text))),
            })
        }
        (_, name) => return Ok(Read::Unreadable(format!("`--{name}` of `-m {module}` is not evaluated"))),
    };
    Ok(Read::Test(test))
}

fn port_list(word: &Word) -> Result<Vec<PortRange>, Fault> {
    let (mut ranges, mut slots, mut at) = (Vec::new(), 0, word.column);
    for part in word.text.split(',') {
        let range = values::no_empty(values::port_range(part, at)?, at)?;
        slots += if range.from == range.to && !part.contains(':') { 1 } else { 2 };
        ranges.push(range);
        at += u32::try_from(part.chars().count() + 1).unwrap_or(0);
    }
    if slots > 15 {
        return Err(Fault::new(
            word.column,
            format!("multiport takes 15 ports (a range counts twice); these are {slots}"),
        )
        .hint("write a second rule for the rest"));
    }
    Ok(ranges)
}

fn length_range(word: &Word) -> Result<PortRange, Fault> {
    let part =
        |text: &str| fit::<u16>(&Word { text: text.to_owned(), column: word.column, quoted: false }, "packet length");
    let (from, to) = match word.text.split_once(':') {
        None => (part(&word.text)?, part(&word.text)?),
        Some((from, to)) => {
            (if from.is_empty() { 0 } else { part(from)? }, if to.is_empty() { u16::MAX } else { part(to)? })
        }
    };
    // A range without a length is loaded, and never matches.
    Ok(PortRange { from, to })
}

/// `FROM-TO` or one address.
pub(super) fn addr_range(text: &str, column: u32, family: Family) -> Result<(IpAddr, IpAddr), Fault> {
    let read = |part: &str| match part.parse::<IpAddr>() {
        Ok(addr) if addr.is_ipv6() == (family == Family::Ip6) => Ok(addr),
        _ => Err(Fault::new(column, format!("`{part}` is no address of this ruleset's family"))),
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    // A reversed range is loaded with a warning, and never matches (libxt_iprange.c).
    Ok((read(from)?, read(to)?))
}

fn conntrack(instance: &Instance, family: Family) -> Result<Match, Fault> {
    let module = if instance.name == "state" { CtModule::State } else { CtModule::Conntrack };
    let mut tests = Vec::new();
    for opt in &instance.opts {
        let arg = opt.arg()?;
        let name = opt.name.as_str();
        let test = match name {
            "state" | "ctstate" => {
                let bits = values::names_to_bits(arg, "connection state", |state| {
                    let bit = CtStates::NAMES.iter().find(|(n, _)| *n == state).map(|(_, b)| u16::from(*b));
                    // iptables takes any beginning of a name (`ESTAB`).
                    let begun = || CtStates::NAMES.iter().find(|(n, _)| state.len() > 2 && n.starts_with(state));
                    bit.or_else(|| begun().map(|(_, b)| u16::from(*b)))
                })
                .map_err(|fault| {
                    fault.hint("the states are NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED, SNAT, DNAT")
                })?;
                CtTest::State(CtStates(u8::try_from(bits).unwrap_or(0)))
            }
            "ctstatus" => {
                let bits = values::names_to_bits(arg, "connection status", |status| {
                    if status == "NONE" {
                        return Some(0);
                    }
                    CtStatuses::NAMES.iter().find(|(n, _)| *n == status).map(|(_, b)| u16::from(*b))
                })?;
                CtTest::Status(CtStatuses(u8::try_from(bits).unwrap_or(0)))
            }
            "ctproto" => {
                let number = names::protocol(&arg.text);
                CtTest::Proto(number.ok_or_else(|| Fault::new(arg.column, format!("`{}` is no protocol", arg.text)))?)
            }
            "ctdir" => CtTest::Direction(match arg.text.to_ascii_uppercase().as_str() {
                "REPLY" => true,
                "ORIGINAL" => false,
                _ => {
                    return Err(
                        Fault::new(arg.column, format!("`{}` is no direction", arg.text)).hint("ORIGINAL or REPLY")
                    );
                }
            }),
            "ctexpire" => CtTest::Expire(arg.text.clone()),
            _ => {
                let reply = name.starts_with("ctrepl");
                let side = if name.contains("src") { Side::Source } else { Side::Destination };
                if name.ends_with("port") {
                    CtTest::Port { reply, side, range: values::port_range(&arg.text, arg.column)? }
                } else {
                    match values::net(&arg.text, arg.column, family)? {
                        Some(net) => CtTest::Addr { reply, side, net },
                        None => return Err(Fault::new(arg.column, format!("`{}` is no address", arg.text))),
                    }
                }
            }
        };
        tests.push((opt.negated, test));
    }
    if tests.is_empty() {
        let option = if module == CtModule::State { "--state" } else { "--ctstate" };
        return Err(Fault::new(instance.column, format!("`-m {}` needs an option", instance.name))
            .hint(format!("such as `{option} NEW,ESTABLISHED`")));
    }
    Ok(Match::is(Test::Conntrack { module, tests }))
}

fn addrtype(instance: &Instance) -> Result<Vec<Match>, Fault> {
    let limit_iface = match (instance.has("limit-iface-in"), instance.has("limit-iface-out")) {
        (true, _) => Some(Side::Source),
        (_, true) => Some(Side::Destination),
        _ => None,
    };
    let mut out = Vec::new();
    for opt in &instance.opts {
        let side = match opt.name.as_str() {
            "src-type" => Side::Source,
            "dst-type" => Side::Destination,
            _ => continue,
        };
        let types = values::names_to_bits(opt.arg()?, "address type", |name| {
            AddrTypes::NAMES.iter().position(|n| *n == name).map(|bit| 1 << bit)
        })
        .map_err(|fault| fault.hint("such as LOCAL, UNICAST, BROADCAST, MULTICAST"))?;
        out.push(Match::new(opt.negated, Test::AddrType { side, types: AddrTypes(types), limit_iface }));
    }
    if out.is_empty() {
        return Err(Fault::new(instance.column, "`-m addrtype` needs `--src-type` or `--dst-type`"));
    }
    Ok(out)
}

fn set(instance: &Instance) -> Result<Match, Fault> {
    let opt = instance
        .get("match-set")
        .ok_or_else(|| Fault::new(instance.column, "`-m set` needs `--match-set NAME src`"))?;
    let (Some(name), Some(flags)) = (opt.args.first(), opt.args.get(1)) else {
        return Err(Fault::new(opt.column, "`--match-set` needs a set's name and its directions (src,dst)"));
    };
    let mut sides = Vec::new();
    for flag in flags.text.split(',') {
        sides.push(match flag {
            "src" => Side::Source,
            "dst" => Side::Destination,
            other => return Err(Fault::new(flags.column, format!("`{other}` is neither `src` nor `dst`"))),
        });
    }
    if sides.len() > 6 {
        return Err(Fault::new(flags.column, "a set has at most six dimensions"));
    }
    let mut rest = instance.clone();
    rest.opts.retain(|o| o.name != "match-set");
    Ok(Match::new(opt.negated, Test::Set { name: name.text.clone(), sides, options: rest.verbatim() }))
}
