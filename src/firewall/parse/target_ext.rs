//! From the options of the rarer targets to what they do, and options in iptables-save's order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::{Family, SetOp, Side, TargetExt, TargetSet, Tproxy, quote};

use super::error::Fault;
use super::matches::Instance;
use super::spec;
use super::targets::arg;
use super::values::{self, fit};

/// The same with its options in the order that iptables-save has them.
pub(super) fn in_order(instance: &Instance) -> Instance {
    let mut sorted = instance.clone();
    if let Some(spec) = spec::find(spec::TARGETS, &instance.name) {
        sorted.opts.sort_by_key(|opt| spec.options.iter().position(|o| o.names.contains(&opt.name.as_str())));
    }
    sorted
}

/// The options of a target that decides nothing, with their values as iptables-save has them.
pub(super) fn observer(instance: &Instance) -> Result<String, Fault> {
    let mut own = in_order(instance);
    for opt in &mut own.opts {
        let Some(word) = opt.args.first_mut() else { continue };
        match (instance.name.as_str(), opt.name.as_str()) {
            ("AUDIT", "type") => {
                word.text = word.text.to_ascii_lowercase();
                if !matches!(word.text.as_str(), "accept" | "drop" | "reject") {
                    return Err(Fault::new(word.column, format!("`{}` is none of accept, drop, reject", word.text)));
                }
            }
            ("CLASSIFY", "set-class") => {
                let half = |text: &str| u16::from_str_radix(text, 16).ok();
                let class = word.text.split_once(':').and_then(|(major, minor)| Some((half(major)?, half(minor)?)));
                let (major, minor) =
                    class.ok_or_else(|| Fault::new(word.column, format!("`{}` is no class MAJOR:MINOR", word.text)))?;
                word.text = format!("{major:04x}:{minor:04x}");
            }
            _ => (),
        }
    }
    Ok(own.verbatim())
}

/// Syslog levels, the number being the place.
const LEVELS: [&[&str]; 8] = [
    &["emerg", "panic"],
    &["alert"],
    &["crit"],
    &["err", "error"],
    &["warning", "warn"],
    &["notice"],
    &["info"],
    &["debug"],
];

/// LOG: the level as a number, and not at all where it is the default (warning).
pub(super) fn log(instance: &Instance) -> Result<String, Fault> {
    let mut own = in_order(instance);
    for opt in &mut own.opts {
        if opt.name != "log-level" {
            continue;
        }
        let Some(word) = opt.args.first_mut() else { continue };
        let lower = word.text.to_ascii_lowercase();
        let named = LEVELS.iter().position(|names| names.contains(&lower.as_str()));
        let level = named.or_else(|| lower.parse().ok().filter(|n| *n < LEVELS.len()));
        let level = level.ok_or_else(|| Fault::new(word.column, format!("`{}` is no log level", word.text)))?;
        word.text = level.to_string();
    }
    own.opts.retain(|opt| opt.name != "log-level" || opt.args.first().is_none_or(|word| word.text != "4"));
    Ok(own.verbatim())
}

/// NFLOG, without its defaults: group 0, threshold 1.
pub(super) fn nflog(instance: &Instance) -> String {
    let mut own = in_order(instance);
    let value = |text: &str| values::number(text);
    own.opts.retain(|opt| match (opt.name.as_str(), opt.args.first().and_then(|word| value(&word.text))) {
        ("nflog-group" | "nflog-range", Some(0)) | ("nflog-threshold", Some(1)) => false,
        ("nflog-range", _) => !instance.has("nflog-size"),
        _ => true,
    });
    own.verbatim()
}

/// NFQUEUE, with its queue.
pub(super) fn nfqueue(instance: &Instance) -> String {
    let options = in_order(instance).verbatim();
    if instance.has("queue-num") || instance.has("queue-balance") {
        return options;
    }
    format!("--queue-num 0 {options}").trim_end().to_owned()
}

/// Reads a target that changes or keeps the packet; `None` where it is another reader's.
pub(super) fn build(instance: &Instance, family: Family) -> Result<Option<TargetExt>, Fault> {
    let need = |what: &str| Fault::new(instance.column, format!("`-j {}` needs {what}", instance.name));
    Ok(Some(match instance.name.as_str() {
        "ECN" if instance.has("ecn-tcp-remove") => TargetExt::EcnRemove,
        "ECN" => return Err(need("`--ecn-tcp-remove`")),
        "TCPOPTSTRIP" => {
            let opt = instance.get("strip-options").ok_or_else(|| need("`--strip-options LIST`"))?;
            let word = arg(opt)?;
            let mut list = Vec::new();
            for text in word.text.split(',') {
                let number = match text {
                    "mss" => Some(2),
                    "wscale" => Some(3),
                    "sack-permitted" => Some(4),
                    "sack" => Some(5),
                    "timestamp" => Some(8),
                    "md5" => Some(19),
                    other => values::number(other).and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 1),
                };
                list.push(number.ok_or_else(|| Fault::new(word.column, format!("`{text}` is no TCP option")))?);
            }
            list.sort_unstable();
            list.dedup();
            TargetExt::Tcpoptstrip(list)
        }
        "TPROXY" => {
            let port = arg(instance.get("on-port").ok_or_else(|| need("`--on-port PORT`"))?)?;
            let any: IpAddr =
                if family == Family::Ip6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let addr = match instance.get("on-ip").map(arg).transpose()? {
                None => any,
                Some(word) => word
                    .text
                    .parse::<IpAddr>()
                    .ok()
                    .filter(|addr| addr.is_ipv6() == any.is_ipv6())
                    .ok_or_else(|| Fault::new(word.column, format!("`{}` is no address here", word.text)))?,
            };
            let mark = instance.get("tproxy-mark").map(|opt| values::value_mask(arg(opt)?, "mark")).transpose()?;
            let (value, mask) = mark.map_or((0, 0), |(value, mask)| (value, mask.unwrap_or(u32::MAX)));
            TargetExt::Tproxy(Tproxy { port: values::port(&port.text, port.column)?, addr, value, mask })
        }
        "SYNPROXY" => TargetExt::Synproxy(in_order(instance).verbatim()),
        "HMARK" => TargetExt::Hmark(in_order(instance).verbatim()),
        "SET" => TargetExt::Set(set(instance)?),
        _ => return Ok(None),
    }))
}

fn set(instance: &Instance) -> Result<TargetSet, Fault> {
    let ops = [("add-set", SetOp::Add), ("del-set", SetOp::Delete), ("map-set", SetOp::Map)];
    let found = ops.into_iter().find_map(|(name, op)| instance.get(name).map(|opt| (op, opt)));
    let (op, opt) =
        found.ok_or_else(|| Fault::new(instance.column, "`-j SET` needs `--add-set NAME src` or its like"))?;
    let (Some(name), Some(flags)) = (opt.args.first(), opt.args.get(1)) else {
        return Err(Fault::new(
            opt.column,
            format!("`--{}` needs a set's name and its directions (src,dst)", opt.name),
        ));
    };
    let mut sides = Vec::new();
    for flag in flags.text.split(',') {
        sides.push(match flag {
            "src" => Side::Source,
            "dst" => Side::Destination,
            other => {
                let other = quote(other);
                return Err(Fault::new(flags.column, format!("{other} is neither `src` nor `dst`")));
            }
        });
    }
    Ok(TargetSet {
        op,
        name: name.text.clone(),
        sides,
        exist: instance.has("exist"),
        timeout: instance.get("timeout").map(|opt| fit(arg(opt)?, "timeout")).transpose()?,
        map_mark: instance.has("map-mark"),
        map_prio: instance.has("map-prio"),
        map_queue: instance.has("map-queue"),
    })
}
