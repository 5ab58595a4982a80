//! From the options of a target to what it does.

use crate::firewall::ruleset::{ConnmarkOp, Family, NatRange, PortRange, RejectWith, Target, TtlOp};

use super::error::Fault;
use super::matches::{Instance, Opt, addr_range};
use super::values::{self, fit};
use super::words::Word;
use super::{spec, target_ext};

/// Reads a target extension. `-j CHAIN` is told apart by the caller.
pub(super) fn build(instance: &Instance, family: Family) -> Result<Target, Fault> {
    let name = instance.name.as_str();
    let options = || target_ext::in_order(instance).verbatim();
    if !instance.known {
        return Ok(Target::Unknown { name: name.to_owned(), options: options() });
    }
    if spec::OBSERVERS.contains(&name) {
        return Ok(Target::Continue { name: name.to_owned(), options: target_ext::observer(instance)? });
    }
    if let Some(ext) = target_ext::build(instance, family)? {
        return Ok(Target::Ext(ext));
    }
    let need = |what: &str| Fault::new(instance.column, format!("`-j {name}` needs {what}"));
    Ok(match name {
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        "RETURN" => Target::Return,
        "REJECT" => reject(instance, family)?,
        "QUEUE" => Target::Queue { number: 0, bypass: false, options: "QUEUE".to_owned() },
        "NFQUEUE" => Target::Queue {
            number: instance
                .get("queue-num")
                .map(|opt| arg(opt).and_then(|w| fit(w, "queue number")))
                .transpose()?
                .unwrap_or(0),
            bypass: instance.has("queue-bypass"),
            options: target_ext::nfqueue(instance),
        },
        "LOG" => Target::Log { options: target_ext::log(instance)? },
        "NFLOG" => Target::Nflog { options: target_ext::nflog(instance) },
        "NOTRACK" => Target::Notrack,
        "CT" if instance.has("notrack") => Target::Notrack,
        "CT" => Target::Ct { options: options() },
        "MARK" => {
            let opt = instance.opts.first().ok_or_else(|| need("`--set-mark VALUE`"))?;
            let (value, mask) = mark_op(opt)?;
            Target::Mark { value, mask }
        }
        "CONNMARK" => connmark(instance)?,
        "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" => nat(instance, family)?,
        "NETMAP" => {
            let opt = instance.get("to").ok_or_else(|| need("`--to NETWORK`"))?;
            let word = arg(opt)?;
            match values::net(&word.text, word.column, family)? {
                Some(net) => Target::Netmap(net),
                None => return Err(Fault::new(word.column, format!("`{}` is no network", word.text))),
            }
        }
        "TCPMSS" => match instance.get("set-mss") {
            Some(opt) => Target::Tcpmss(Some(fit(arg(opt)?, "segment size")?)),
            None => Target::Tcpmss(None),
        },
        "TTL" | "HL" => {
            let opt = instance.opts.first().ok_or_else(|| need("one of its options"))?;
            let op = match opt.name.rsplit('-').next() {
                Some("inc") => TtlOp::Inc,
                Some("dec") => TtlOp::Dec,
                _ => TtlOp::Set,
            };
            Target::Ttl { v6: name == "HL", op, value: fit(arg(opt)?, "hop count")? }
        }
        "TOS" | "DSCP" => tos(instance)?,
        _ => Target::Unknown { name: name.to_owned(), options: options() },
    })
}

pub(super) fn arg(opt: &Opt) -> Result<&Word, Fault> {
    opt.args.first().ok_or_else(|| Fault::new(opt.column, format!("`--{}` needs a value", opt.name)))
}

fn reject(instance: &Instance, family: Family) -> Result<Target, Fault> {
    let v6 = family == Family::Ip6;
    let Some(opt) = instance.get("reject-with") else {
        return Ok(Target::Reject(if v6 { RejectWith::Icmp6(4) } else { RejectWith::Icmp(3) }));
    };
    let word = arg(opt)?;
    RejectWith::of_name(&word.text, v6).map(Target::Reject).ok_or_else(|| {
        Fault::new(word.column, format!("`{}` is no reject type here", word.text)).hint(if v6 {
            "such as icmp6-port-unreachable, icmp6-adm-prohibited, tcp-reset"
        } else {
            "such as icmp-port-unreachable, icmp-admin-prohibited, tcp-reset"
        })
    })
}

/// `--set-mark` and its kin as (value, mask) of `mark = (mark & !mask) ^ value`
/// (`extensions/libxt_MARK.c`).
fn mark_op(opt: &Opt) -> Result<(u32, u32), Fault> {
    let (value, mask) = values::value_mask(arg(opt)?, "mark")?;
    Ok(match opt.name.as_str() {
        "set-xmark" => (value, mask.unwrap_or(u32::MAX)),
        "and-mark" => (0, !value),
        "or-mark" => (value, value),
        "xor-mark" => (value, 0),
        // --set-mark value/mask clears value's own bits too.
        _ => (value, mask.map_or(u32::MAX, |mask| mask | value)),
    })
}

fn connmark(instance: &Instance) -> Result<Target, Fault> {
    let mask_of = |name: &str| -> Result<Option<u32>, Fault> {
        instance.get(name).map(|opt| arg(opt).and_then(|word| fit(word, "mask"))).transpose()
    };
    let both = mask_of("mask")?;
    let nfmask = mask_of("nfmask")?.or(both).unwrap_or(u32::MAX);
    let ctmask = mask_of("ctmask")?.or(both).unwrap_or(u32::MAX);
    if instance.has("save-mark") {
        return Ok(Target::Connmark(ConnmarkOp::Save { nfmask, ctmask }));
    }
    if instance.has("restore-mark") {
        return Ok(Target::Connmark(ConnmarkOp::Restore { nfmask, ctmask }));
    }
    let opt = instance.opts.iter().find(|opt| opt.name.ends_with("mark"));
    let opt = opt.ok_or_else(|| {
        Fault::new(instance.column, "`-j CONNMARK` needs `--set-mark`, `--save-mark` or `--restore-mark`")
    })?;
    let (value, mask) = mark_op(opt)?;
    Ok(Target::Connmark(ConnmarkOp::Set { value, mask }))
}

fn nat(instance: &Instance, family: Family) -> Result<Target, Fault> {
    let mut range = NatRange::default();
    let mut flags = Vec::new();
    for opt in &instance.opts {
        match opt.name.as_str() {
            "to-destination" | "to-source" => {
                let word = arg(opt)?;
                let (addrs, ports) = split_nat(&word.text, family);
                if let Some(addrs) = addrs.filter(|a| !a.is_empty()) {
                    range.addrs = Some(addr_range(addrs, word.column, family)?);
                }
                if let Some(ports) = ports {
                    range.ports = Some(nat_ports(ports, word.column)?);
                    if let Some((_, base)) = ports.split_once('/') {
                        range.base = Some(values::port(base, word.column)?);
                    }
                }
            }
            "to-ports" => {
                let word = arg(opt)?;
                range.ports = Some(nat_ports(&word.text, word.column)?);
            }
            flag => flags.push(format!("--{flag}")),
        }
    }
    range.flags = flags.join(" ");
    if range.addrs.is_none() && range.ports.is_none() && matches!(instance.name.as_str(), "DNAT" | "SNAT") {
        let option = if instance.name == "DNAT" { "--to-destination" } else { "--to-source" };
        return Err(Fault::new(instance.column, format!("`-j {}` needs `{option} ADDRESS`", instance.name)));
    }
    Ok(match instance.name.as_str() {
        "DNAT" => Target::Dnat(range),
        "SNAT" => Target::Snat(range),
        "MASQUERADE" => Target::Masquerade(range),
        _ => Target::Redirect(range),
    })
}

/// `ADDR[-ADDR][:PORT[-PORT]]`, for IPv6 `[ADDR[-ADDR]]:PORT` or `ADDR[-ADDR]`.
fn split_nat(text: &str, family: Family) -> (Option<&str>, Option<&str>) {
    if family == Family::Ip6 {
        return match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((addrs, rest)) => (Some(addrs), rest.strip_prefix(':')),
            None => (Some(text), None),
        };
    }
    match text.split_once(':') {
        Some((addrs, ports)) => (Some(addrs), Some(ports)),
        None => (Some(text), None),
    }
}

fn nat_ports(text: &str, column: u32) -> Result<PortRange, Fault> {
    // `--to-destination a:1-5/3` has a base port, which its caller reads.
    let text = text.split('/').next().unwrap_or(text);
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (values::port(from, column)?, values::port(to, column)?);
    if from > to {
        return Err(Fault::new(column, format!("the port range {from}-{to} is empty")));
    }
    Ok(PortRange { from, to })
}

fn tos(instance: &Instance) -> Result<Target, Fault> {
    let need = || Fault::new(instance.column, format!("`-j {}` needs one of its options", instance.name));
    let opt = instance.opts.first().ok_or_else(need)?;
    let word = arg(opt)?;
    let octet = |n: u32| u8::try_from(n).map_err(|_| Fault::new(word.column, format!("`{}` is too large", word.text)));
    let dscp = |class: u8| {
        // DSCP is the upper six bits of the octet.
        if class > 63 { Err(Fault::new(word.column, "a DSCP value is at most 63")) } else { Ok(class << 2) }
    };
    Ok(match opt.name.as_str() {
        "set-dscp" => Target::Tos { value: dscp(fit(word, "DSCP value")?)?, mask: 0xfc, dscp: true },
        "set-dscp-class" => {
            let class = values::dscp_class(&word.text);
            let class = class.ok_or_else(|| Fault::new(word.column, format!("`{}` is no DSCP class", word.text)))?;
            Target::Tos { value: dscp(class)?, mask: 0xfc, dscp: true }
        }
        name => {
            let (value, mask) = if let Some(value) = values::tos_name(&word.text) {
                (value, Some(0x3f))
            } else {
                let (value, mask) = values::value_mask(word, "TOS value")?;
                (octet(value)?, mask.map(octet).transpose()?)
            };
            let (value, mask) = match name {
                "and-tos" => (0, !value),
                "or-tos" => (value, value),
                "xor-tos" => (value, 0),
                _ => (value, mask.unwrap_or(0xff)),
            };
            Target::Tos { value, mask, dscp: false }
        }
    })
}
