//! Reading `ipset save`.

use std::net::IpAddr;

use crate::firewall::names;
use crate::firewall::ruleset::{Element, ElementPart, Family, Net, PortRange, Ruleset, Set};
use crate::host::Backend;

use super::Parsed;
use super::error::{Fault, ParseError, Warning};
use super::values;
use super::words::{self, Word};

pub(super) fn read(text: &str, source: &str) -> Result<Parsed, ParseError> {
    let mut ruleset = Ruleset::empty(Backend::Nft, source);
    let mut warnings = Vec::new();
    for (number, line) in (1u32..).zip(text.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let note = read_line(&mut ruleset, line).map_err(|fault| fault.at(source, number, line))?;
        if let Some((column, message)) = note {
            warnings.push(Warning {
                source: source.to_owned(),
                line: number,
                column,
                message,
                text: line.to_owned(),
                refused_by_restore: false,
            });
        }
    }
    Ok(Parsed { ruleset, warnings })
}

pub(super) type Note = Option<(u32, String)>;

pub(super) fn read_line(ruleset: &mut Ruleset, line: &str) -> Result<Note, Fault> {
    let words = words::split(line)?;
    let end = u32::try_from(line.chars().count() + 1).unwrap_or(u32::MAX);
    let word = |index: usize, what: &str| words.get(index).ok_or_else(|| Fault::new(end, format!("{what} is missing")));
    let command = word(0, "a command")?;
    match command.text.as_str() {
        "create" | "-N" | "n" | "new" => {
            let (name, kind) = (word(1, "the set's name")?, word(2, "the set's type")?);
            if ruleset.sets.iter().any(|set| set.name == name.text) {
                return Err(Fault::new(name.column, format!("set {} is created twice", name.text)));
            }
            let mut set = Set::empty(name.text.clone(), kind.text.clone());
            let known = parts_of(&kind.text).is_some();
            if !known {
                set.unreliable = Some(format!("type {} is not evaluated", kind.text));
            }
            if words.iter().any(|w| w.is("inet6")) {
                set.kind = format!("{} inet6", kind.text);
            }
            ruleset.sets.push(set);
            Ok((!known).then(|| (kind.column, format!("sets of type {} are not evaluated", kind.text))))
        }
        "add" | "-A" | "a" => {
            let (name, entry) = (word(1, "the set's name")?, word(2, "the element")?);
            let set = ruleset.sets.iter_mut().find(|set| set.name == name.text);
            let set = set.ok_or_else(|| {
                Fault::new(name.column, format!("there is no set {}", name.text))
                    .hint("a set is created before elements are added to it")
            })?;
            if set.unreliable.is_some() {
                return Ok(None);
            }
            let option = |name: &str| words.iter().position(|w| w.is(name));
            let timeout = match option("timeout") {
                Some(at) => Some(values::fit(word(at + 1, "the timeout")?, "timeout")?),
                None => None,
            };
            let nomatch = option("nomatch").is_some();
            if let Some(parts) = element(&set.kind, entry)? {
                set.elements.push(Element { parts, nomatch, timeout });
                return Ok(None);
            }
            let why = format!("element `{}` is not evaluated", entry.text);
            set.unreliable = Some(why.clone());
            Ok(Some((entry.column, why)))
        }
        "COMMIT" | "flush" | "destroy" | "swap" | "rename" => {
            Ok(Some((command.column, format!("`{}` is ignored", command.text))))
        }
        other => Err(Fault::new(command.column, format!("`{other}` is no command of ipset save"))
            .hint("lines are `create NAME TYPE …` and `add NAME ELEMENT …`")),
    }
}

/// One dimension of a set type.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Ip,
    Net,
    Port,
    Iface,
    Mac,
    Mark,
    Set,
}

fn parts_of(kind: &str) -> Option<Vec<Part>> {
    let kind = kind.strip_suffix(" inet6").unwrap_or(kind);
    let (method, data) = kind.split_once(':')?;
    let parts: Option<Vec<Part>> = data
        .split(',')
        .map(|part| {
            Some(match part {
                "ip" => Part::Ip,
                "net" => Part::Net,
                "port" => Part::Port,
                "iface" => Part::Iface,
                "mac" => Part::Mac,
                "mark" => Part::Mark,
                "set" => Part::Set,
                _ => return None,
            })
        })
        .collect();
    matches!(method, "hash" | "bitmap" | "list").then_some(parts?)
}

fn element(kind: &str, entry: &Word) -> Result<Option<Vec<ElementPart>>, Fault> {
    let Some(parts) = parts_of(kind) else { return Ok(None) };
    let bitmap_port = kind.starts_with("bitmap:port");
    let texts: Vec<&str> = entry.text.split(',').collect();
    // bitmap:ip,mac may lack its second part.
    if texts.len() > parts.len() || texts.len() < parts.len() && !kind.starts_with("bitmap:ip,mac") {
        let message = format!("`{}` has {} parts, type {kind} has {}", entry.text, texts.len(), parts.len());
        return Err(Fault::new(entry.column, message));
    }
    let mut out = Vec::new();
    let mut column = entry.column;
    for (text, part) in texts.iter().zip(&parts) {
        let bad = |what: &str| Fault::new(column, format!("`{text}` is no {what}"));
        out.push(match part {
            Part::Ip | Part::Net => match address(text) {
                Some(part) => part,
                None => return Err(bad("address, network or range")),
            },
            Part::Port => match ports(text, bitmap_port) {
                Some(part) => part,
                None => return Err(bad("port")),
            },
            Part::Mac => ElementPart::Mac(text.parse().map_err(|_| bad("hardware address"))?),
            Part::Mark => {
                let number = values::number(text).and_then(|n| u32::try_from(n).ok());
                ElementPart::Mark(number.ok_or_else(|| bad("mark"))?)
            }
            // physdev:NAME asks for a bridge's port.
            Part::Iface if text.starts_with("physdev:") => return Ok(None),
            Part::Iface => ElementPart::Iface((*text).to_owned()),
            Part::Set => ElementPart::Set((*text).to_owned()),
        });
        column += u32::try_from(text.chars().count() + 1).unwrap_or(0);
    }
    Ok(Some(out))
}

fn address(text: &str) -> Option<ElementPart> {
    if let Some((from, to)) = text.split_once('-') {
        let (from, to): (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
        return (from.is_ipv6() == to.is_ipv6() && from <= to).then_some(ElementPart::Range(from, to));
    }
    let family = if text.contains(':') { Family::Ip6 } else { Family::Ip };
    let net: Net = values::net(text, 1, family).ok()??;
    Some(ElementPart::Net(net))
}

/// `tcp:80`, `80`, `udp:1000-2000`, `icmp:echo-request`, `icmp:8/0`, `gre:0`.
fn ports(text: &str, plain: bool) -> Option<ElementPart> {
    let (proto, port) = match text.split_once(':') {
        Some((proto, port)) => (names::protocol(proto)?, port),
        // "If the protocol is not given, TCP is taken" (ipset(8)).
        None => (6, text),
    };
    if matches!(proto, 1 | 58) {
        let code = |kind: u8, code: u8| u16::from(kind) << 8 | u16::from(code);
        let (kind, from, to) = names::icmp_type(port, proto == 58)?;
        // A type without a code is code 0 here, not any.
        let exact = if from == to { from } else { 0 };
        let value = code(kind?, exact);
        return Some(ElementPart::Port { proto: Some(proto), range: PortRange::one(value) });
    }
    let (from, to) = port.split_once('-').unwrap_or((port, port));
    let range = PortRange { from: names::port(from)?, to: names::port(to)? };
    (range.from <= range.to).then_some(ElementPart::Port { proto: (!plain).then_some(proto), range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_their_elements() {
        let text = "create a hash:net family inet hashsize 1024\nadd a 10.0.0.0/8 timeout 30\nadd a 10.1.0.0/16 nomatch\n\
                    create b hash:ip,port family inet\nadd b 1.2.3.4,udp:53\nadd b 1.2.3.4,icmp:8/0\n\
                    create l list:set size 8\nadd l a\ncreate x hash:odd\nadd x 1\n";
        let parsed = read(text, "s").unwrap();
        let sets = &parsed.ruleset.sets;
        assert_eq!(sets[0].elements[0].timeout, Some(30));
        assert!(sets[0].elements[1].nomatch);
        assert_eq!(sets[1].elements[1].parts[1], ElementPart::Port { proto: Some(1), range: PortRange::one(0x0800) });
        assert_eq!(sets[2].elements[0].parts, [ElementPart::Set("a".to_owned())]);
        assert!(sets[3].unreliable.is_some() && parsed.warnings.len() == 1);
        for (text, column) in [
            ("add a 1", 5),
            ("create a hash:ip\nadd a 1.2.3", 0),
            ("create a hash:ip,port\nadd a 1.2.3.4", 7),
            ("hello", 1),
        ] {
            match read(text, "s") {
                Err(error) => assert_eq!(error.column, column, "{error}"),
                Ok(_) => assert_eq!(column, 0, "{text}"),
            }
        }
    }
}
