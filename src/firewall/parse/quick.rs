//! The common shapes of rules, read without copying words: what iptables-save itself writes for
//! addresses, interfaces, ports, states, comments and plain verdicts.
//!
//! Whatever is less plain gives `None` and goes the long way ([`super::rule`]), which alone says
//! what is wrong with a rule. Both ways give the same rule (tested against each other).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::firewall::ruleset::{
    AddrTypes, Counters, CtModule, CtStates, CtTest, Family, Iface, Match, NatRange, Net, PortRange, RejectWith, Rule,
    Side, Stateful, Target, TcpFlags, Test, Transport,
};

use super::{spec, values};
use crate::firewall::names;

/// Reads `[p:b] -A CHAIN …`: the chain's name and the rule, without its place and text.
pub(super) fn read(line: &str, family: Family) -> Option<(&str, Rule)> {
    let mut words = Words { rest: line };
    let mut rule = Rule { matches: Vec::with_capacity(2), ..Rule::default() };
    let (mut first, _) = words.next()?;
    if let Some(pair) = first.strip_prefix('[') {
        let (packets, bytes) = pair.strip_suffix(']')?.split_once(':')?;
        rule.counters = Some(Counters { packets: decimal(packets)?, bytes: decimal(bytes)? });
        (first, _) = words.next()?;
    }
    if first != "-A" {
        return None;
    }
    let (chain, quoted) = words.next()?;
    if quoted || chain.starts_with(['-', '!', '\\']) {
        return None;
    }
    // The core options come before all others in the model, in this order.
    let mut core: [Option<Match>; 5] = [const { None }; 5];
    let mut seen = 0u8;
    let mut protocol = None;
    let mut module = None;
    while let Some((mut word, quoted)) = words.next() {
        if quoted {
            return None;
        }
        let negated = word == "!";
        if negated {
            (word, _) = words.next()?;
        }
        let slot = match word {
            "-s" => 0,
            "-d" => 1,
            "-i" => 2,
            "-o" => 3,
            "-p" => 4,
            "-m" if !negated => {
                module = Some(load(words.value()?, protocol, &mut words, family, &mut rule)?);
                continue;
            }
            "-j" | "-g" if !negated => {
                rule.target = Some(target(word, &mut words, family)?);
                break;
            }
            _ => {
                let transport = module??;
                let test = option(word, transport, &mut words)?;
                // The long way puts a module's options in their order.
                if rule.matches.last().is_some_and(|last| rank(&last.test) >= rank(&test)) {
                    return None;
                }
                rule.matches.push(Match::new(negated, test));
                continue;
            }
        };
        if seen & 1 << slot != 0 {
            return None;
        }
        seen |= 1 << slot;
        module = None;
        let value = words.value()?;
        let test = match slot {
            0 | 1 => {
                let net = net(value, family)?;
                if net.is_any() && !negated {
                    continue;
                }
                if slot == 0 { Test::Source(net) } else { Test::Destination(net) }
            }
            2 | 3 => {
                if value.len() > 15 {
                    return None;
                }
                let iface = Iface::parse(value);
                if slot == 2 { Test::InInterface(iface) } else { Test::OutInterface(iface) }
            }
            _ => {
                let number = match value {
                    "tcp" => 6,
                    "udp" => 17,
                    "icmp" => 1,
                    "ipv6-icmp" => 58,
                    name => names::protocol(name).filter(|number| *number != 0)?,
                };
                protocol = Some((number, negated));
                Test::Protocol(number)
            }
        };
        core[slot] = Some(Match::new(negated, test));
    }
    if words.next().is_some() {
        return None;
    }
    if seen != 0 {
        let count = core.iter().flatten().count();
        let mut all = Vec::with_capacity(count + rule.matches.len());
        all.extend(core.into_iter().flatten());
        all.append(&mut rule.matches);
        rule.matches = all;
    }
    Some((chain, rule))
}

/// In which order the long way has the options of tcp and udp; other tests are before them.
fn rank(test: &Test) -> u8 {
    match test {
        Test::Port { side: Side::Source, .. } => 1,
        Test::Port { .. } => 2,
        Test::TcpFlags { .. } => 3,
        _ => 0,
    }
}

/// A `-m`: the protocol whose options may follow, or, for the modules of one option, that option.
#[expect(clippy::option_option, reason = "not plain, plain without options of its own, plain with them")]
fn load(
    name: &str,
    protocol: Option<(u8, bool)>,
    words: &mut Words<'_>,
    family: Family,
    rule: &mut Rule,
) -> Option<Option<Transport>> {
    match name {
        "tcp" | "udp" => {
            let transport = if name == "tcp" { Transport::Tcp } else { Transport::Udp };
            let twice = rule
                .matches
                .iter()
                .any(|m| matches!(m.test, Test::Port { .. } | Test::TcpFlags { .. } | Test::Header(_)));
            // Without an option of its own the module asks for the header only: the long way.
            let follows = words.goes_on();
            if protocol != Some((transport.number(), false)) || twice {
                return None;
            }
            if !follows {
                rule.matches.push(Match::is(Test::Header(transport)));
            }
            Some(follows.then_some(transport))
        }
        "comment" => {
            if words.next()?.0 != "--comment" {
                return None;
            }
            let (text, quoted) = words.next()?;
            if !quoted && text.starts_with(['-', '!', '\\']) {
                return None;
            }
            rule.matches.push(Match::is(Test::Comment(text.to_owned())));
            Some(None)
        }
        "state" | "conntrack" => {
            let (module, option) =
                if name == "state" { (CtModule::State, "--state") } else { (CtModule::Conntrack, "--ctstate") };
            let mut word = words.next()?.0;
            let negated = word == "!";
            if negated {
                word = words.next()?.0;
            }
            if word != option {
                return None;
            }
            let states = words.value()?.split(',').try_fold(0, |bits, name| {
                CtStates::NAMES.iter().find(|(known, _)| *known == name).map(|(_, bit)| bits | bit)
            })?;
            // Another option of the module would join this test.
            if words.goes_on() {
                return None;
            }
            let tests = vec![(negated, CtTest::State(CtStates(states)))];
            rule.matches.push(Match::is(Test::Conntrack { module, tests }));
            Some(None)
        }
        "mark" => {
            let negated = words.negated_option("--mark")?;
            let (value, mask) = masked(words.value()?)?;
            rule.matches.push(Match::new(negated, Test::Mark { value, mask: mask.unwrap_or(u32::MAX) }));
            (!words.goes_on()).then_some(None)
        }
        "addrtype" => {
            let negated = words.negated_option("--dst-type")?;
            let name = words.value()?;
            let bit = AddrTypes::NAMES.iter().position(|known| *known == name)?;
            let types = AddrTypes(1 << bit);
            rule.matches
                .push(Match::new(negated, Test::AddrType { side: Side::Destination, types, limit_iface: None }));
            (!words.goes_on()).then_some(None)
        }
        "set" => {
            let negated = words.negated_option("--match-set")?;
            let name = words.value()?.to_owned();
            let sides = words.value()?.split(',').map(|side| match side {
                "src" => Some(Side::Source),
                "dst" => Some(Side::Destination),
                _ => None,
            });
            let sides: Vec<Side> = sides.collect::<Option<_>>()?;
            if sides.len() > 6 || words.goes_on() {
                return None;
            }
            rule.matches.push(Match::new(negated, Test::Set { name, sides, options: String::new() }));
            Some(None)
        }
        "multiport" => {
            if !matches!(protocol, Some((6 | 17 | 136 | 132 | 33, false))) {
                return None;
            }
            let mut word = words.next()?.0;
            let negated = word == "!";
            if negated {
                word = words.next()?.0;
            }
            let side = match word {
                "--dports" => Side::Destination,
                "--sports" => Side::Source,
                "--ports" => Side::Either,
                _ => return None,
            };
            let ranges: Vec<PortRange> = words.value()?.split(',').map(ports).collect::<Option<_>>()?;
            if ranges.len() > 7 || words.goes_on() {
                return None;
            }
            rule.matches.push(Match::new(negated, Test::Multiport { side, ranges }));
            Some(None)
        }
        "icmp" | "icmp6" => {
            let v6 = name == "icmp6";
            let number = if v6 { 58 } else { 1 };
            let twice = rule.matches.iter().any(|m| matches!(m.test, Test::Icmp { .. } | Test::Header(_)));
            if protocol != Some((number, false)) || twice {
                return None;
            }
            let negated = words.negated_option(if v6 { "--icmpv6-type" } else { "--icmp-type" })?;
            let (kind, from, to) = names::icmp_type(words.value()?, v6)?;
            rule.matches.push(Match::new(negated, Test::Icmp { v6, kind, codes: (from, to) }));
            (!words.goes_on()).then_some(None)
        }
        "statistic" | "limit" => {
            let start = words.rest;
            while words.goes_on() {
                let option = words.next()?.0;
                if !matches!(option, "--mode" | "--probability" | "--every" | "--packet" | "--limit" | "--limit-burst")
                    || option.starts_with("--limit") != (name == "limit")
                {
                    return None;
                }
                let value = words.value()?;
                if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/') {
                    return None;
                }
            }
            let text = start[..start.len() - words.rest.len()].trim();
            if text.contains("  ") || text.contains('\t') {
                return None;
            }
            let options = Stateful::read(name, text).ok()?.for_family(family == Family::Ip6).to_string();
            rule.matches.push(Match::is(Test::Stateful { module: name.to_owned(), options }));
            Some(None)
        }
        "mac" if family == Family::Ip || family == Family::Ip6 => {
            let mut word = words.next()?.0;
            let negated = word == "!";
            if negated {
                word = words.next()?.0;
            }
            if word != "--mac-source" {
                return None;
            }
            let value = words.value()?;
            if value.len() != 17 || value.contains('-') {
                return None;
            }
            rule.matches.push(Match::new(negated, Test::Mac(value.parse().ok()?)));
            Some(None)
        }
        _ => None,
    }
}

/// An option of `-m tcp` or `-m udp`.
fn option(name: &str, module: Transport, words: &mut Words<'_>) -> Option<Test> {
    let side = match name {
        "--sport" => Side::Source,
        "--dport" => Side::Destination,
        "--tcp-flags" if module == Transport::Tcp => {
            let (mask, set) = (flags(words.value()?)?, flags(words.value()?)?);
            return Some(Test::TcpFlags { mask, set });
        }
        _ => return None,
    };
    Some(Test::Port { module, side, range: ports(words.value()?)? })
}

/// A port or `FROM:TO`, in decimal numbers.
fn ports(text: &str) -> Option<PortRange> {
    let (from, to) = text.split_once(':').unwrap_or((text, text));
    let range = PortRange { from: port(from)?, to: port(to)? };
    (range.from <= range.to).then_some(range)
}

fn port(text: &str) -> Option<u16> {
    if text.len() > 1 && text.starts_with('0') { None } else { u16::try_from(decimal(text)?).ok() }
}

/// `VALUE[/MASK]`
fn masked(text: &str) -> Option<(u32, Option<u32>)> {
    let part = |text: &str| values::number(text).and_then(|n| u32::try_from(n).ok());
    match text.split_once('/') {
        None => Some((part(text)?, None)),
        Some((value, mask)) => Some((part(value)?, Some(part(mask)?))),
    }
}

/// The address and port of DNAT and SNAT.
fn translation(words: &mut Words<'_>, option: &str, family: Family) -> Option<NatRange> {
    if words.next()?.0 != option || family != Family::Ip {
        return None;
    }
    let value = words.value()?;
    let (addr, ports) = value.split_once(':').map_or((value, None), |(addr, ports)| (addr, Some(ports)));
    let addr = IpAddr::V4(addr.parse::<Ipv4Addr>().ok()?);
    let ports = match ports {
        None => None,
        Some(text) => Some(PortRange::one(port(text)?)),
    };
    words.peek().is_none().then(|| NatRange { addrs: Some((addr, addr)), ports, ..NatRange::default() })
}

fn target(option: &str, words: &mut Words<'_>, family: Family) -> Option<Target> {
    let name = words.value()?;
    let last = words.peek().is_none();
    if option == "-g" {
        return last.then(|| Target::Goto(name.to_owned()));
    }
    match name {
        "ACCEPT" if last => Some(Target::Accept),
        "DROP" if last => Some(Target::Drop),
        "RETURN" if last => Some(Target::Return),
        "DNAT" => translation(words, "--to-destination", family).map(Target::Dnat),
        "SNAT" => translation(words, "--to-source", family).map(Target::Snat),
        "MASQUERADE" if last => Some(Target::Masquerade(NatRange::default())),
        "MASQUERADE" => {
            let flag = words.next()?.0;
            (flag == "--random-fully" && words.peek().is_none())
                .then(|| Target::Masquerade(NatRange { flags: flag.to_owned(), ..NatRange::default() }))
        }
        "MARK" => {
            if words.next()?.0 != "--set-xmark" {
                return None;
            }
            let (value, mask) = masked(words.value()?)?;
            words.peek().is_none().then(|| Target::Mark { value, mask: mask.unwrap_or(u32::MAX) })
        }
        "REJECT" if words.peek() == Some("--reject-with") => {
            words.next()?;
            let kind = words.value()?;
            let known = matches!(
                kind,
                "icmp-port-unreachable" | "icmp-host-prohibited" | "icmp-admin-prohibited" | "icmp6-port-unreachable"
            );
            (known && words.peek().is_none())
                .then(|| RejectWith::of_name(kind, family == Family::Ip6))?
                .map(Target::Reject)
        }
        _ if last && spec::find(spec::TARGETS, name).is_none() => Some(Target::Jump(name.to_owned())),
        _ => None,
    }
}

/// A whole address with an optional prefix length.
fn net(text: &str, family: Family) -> Option<Net> {
    let (addr, len) = match text.split_once('/') {
        Some((addr, len)) => (addr, Some(decimal(len).and_then(|len| u8::try_from(len).ok())?)),
        None => (text, None),
    };
    let addr = match family {
        Family::Ip => IpAddr::V4(addr.parse::<Ipv4Addr>().ok()?),
        Family::Ip6 => IpAddr::V6(addr.parse::<Ipv6Addr>().ok()?),
        _ => return None,
    };
    match len {
        Some(len) => Net::prefix(addr, len),
        None => Some(Net::host(addr)),
    }
}

fn flags(text: &str) -> Option<TcpFlags> {
    text.split(',').try_fold(TcpFlags(0), |all, name| {
        TcpFlags::NAMES.iter().find(|(known, _)| *known == name).map(|(_, bit)| TcpFlags(all.0 | bit))
    })
}

/// A number of digits only.
fn decimal(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The words of a line without escapes.
struct Words<'l> {
    rest: &'l str,
}

impl<'l> Words<'l> {
    /// The next word, and whether it was in quotes. A line that is not plain ends in a word that
    /// fits nothing.
    fn next(&mut self) -> Option<(&'l str, bool)> {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        if let Some(inner) = rest.strip_prefix('"') {
            let Some(end) = inner.find(['"', '\\']) else { return Some(("\\", false)) };
            let after = &inner[end + 1..];
            if inner.as_bytes().get(end) != Some(&b'"') || !(after.is_empty() || after.starts_with(' ')) {
                // Not plain: stays in `rest`, so that no rule ends here.
                return Some(("\\", false));
            }
            self.rest = after;
            return Some((&inner[..end], true));
        }
        let bytes = rest.as_bytes();
        let end = bytes.iter().position(|b| *b == b' ' || *b == b'\t').unwrap_or(bytes.len());
        if bytes[..end].iter().any(|b| matches!(b, b'"' | b'\'' | b'\\' | b'=') || !b.is_ascii_graphic()) {
            return Some(("\\", false));
        }
        self.rest = &rest[end..];
        Some((&rest[..end], false))
    }

    /// A word that is no option and no `!`.
    fn value(&mut self) -> Option<&'l str> {
        self.next().filter(|(word, quoted)| !quoted && !word.starts_with(['-', '!', '\\'])).map(|(word, _)| word)
    }

    /// `[!] NAME`, and whether it was negated.
    fn negated_option(&mut self, name: &str) -> Option<bool> {
        let mut word = self.next()?.0;
        let negated = word == "!";
        if negated {
            word = self.next()?.0;
        }
        (word == name).then_some(negated)
    }

    /// Whether the next word is another option of the module.
    fn goes_on(&self) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        rest.starts_with("--")
            || rest.starts_with('!')
                && !matches!(rest.split_ascii_whitespace().nth(1), Some("-s" | "-d" | "-i" | "-o" | "-p"))
    }

    fn peek(&self) -> Option<&'l str> {
        Words { rest: self.rest }.next().map(|(word, _)| word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::parse::{rule, words};
    use proptest::prelude::*;

    /// The long way's answer.
    fn long(line: &str, family: Family) -> Option<(String, Rule)> {
        let mut words = words::split(line).ok()?;
        let mut counters = None;
        if words[0].text.starts_with('[') {
            counters = crate::firewall::parse::save::counters(&words[0].text, 1).ok();
            words.remove(0);
        }
        let (rules, notes) = rule::read(words.get(2..)?, family, line).ok()?;
        let mut rule = rules.into_iter().next()?;
        rule.counters = rule.counters.or(counters);
        notes.is_empty().then_some((words[1].text.clone(), rule))
    }

    #[track_caller]
    fn same(line: &str, family: Family) -> bool {
        let Some((chain, rule)) = read(line, family) else { return false };
        let long = long(line, family);
        assert_eq!(Some((chain.to_owned(), rule)), long, "{line}");
        true
    }

    #[test]
    fn plain_rules_go_the_quick_way() {
        for line in [
            "-A INPUT -s 10.1.2.3/24 -p tcp -m tcp --dport 22 -j ACCEPT",
            "[5:60] -A INPUT ! -i lo -o eth+ -j DROP",
            "-A INPUT -p tcp -m tcp ! --sport 1:1023 --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j user",
            "-A x -m comment --comment \"a b 'c'\" -m state --state NEW,RELATED -g user",
            "-A x -m conntrack ! --ctstate INVALID -m comment --comment plain -j RETURN",
            "-A x -m mac --mac-source 02:00:00:00:00:01 -d 1.2.3.4 -j REJECT --reject-with icmp-port-unreachable",
            "-A x",
            "-A x -d 0.0.0.0/0 -s 0.0.0.0/0",
            "-A S -d 10.96.0.1/32 -p tcp -m comment --comment \"default/k:https cluster IP\" -m tcp --dport 443 -j KUBE-SVC",
            "-A S -m comment --comment \"a -> b\" -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP",
            "-A S -p tcp -m comment --comment x -m tcp -j DNAT --to-destination 10.244.0.2:8080",
            "-A S -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A S -j MARK --set-xmark 0x4000/0x0",
            "-A S -j MASQUERADE --random-fully",
            "-A S -m addrtype --dst-type LOCAL -m set ! --match-set x src,dst -j SNAT --to-source 1.2.3.4",
            "-A S -p udp -m multiport --dports 53,60:70 -m limit --limit 5/min --limit-burst 7 -j ACCEPT",
            "-A S -p icmp -m icmp ! --icmp-type 3/4 -j DROP",
            "-A S -p esp -j ACCEPT",
        ] {
            assert!(same(line, Family::Ip), "{line}");
        }
        assert!(same("-A x -s fe80::1/64 -p ipv6-icmp -j DROP", Family::Ip6));
    }

    proptest! {
        #[test]
        fn both_ways_agree(parts in proptest::collection::vec(proptest::sample::select(vec![
            "-s", "10.0.0.0/8", "-d", "1.2.3.4", "-i", "eth0", "-o", "!", "-p", "tcp", "udp", "-m", "--dport", "22",
            "1:5", "5:1", "--sport", "-j", "ACCEPT", "LOG", "user", "-g", "comment", "--comment", "\"a b\"", "\"", "x",
            "state", "--state", "NEW,ESTABLISHED", "conntrack", "--ctstate", "INVALID", "mac", "--mac-source",
            "02:00:00:00:00:01", "-p tcp -m tcp --dport 7", "-m state --state NEW", "--tcp-flags", "SYN,ACK", "icmp",
            "mark", "--mark 0x1/0xff", "statistic", "--mode random", "--probability 0.5", "--mode nth", "--every 2",
            "--packet 1", "limit", "--limit 5/min", "--limit-burst 3", "multiport", "--dports 1,2:3", "--sports",
            "-m icmp", "--icmp-type 8", "--icmp-type any", "addrtype", "--dst-type LOCAL", "set", "--match-set x src,dst", "DNAT",
            "--to-destination 1.2.3.4:5", "SNAT", "--to-source 1.2.3.4", "MASQUERADE", "--random-fully", "MARK",
            "--set-xmark 0x1/0xf", "-m tcp", "-m udp", "sctp", "all", "=", "--random",
            "0.0.0.0/0", "! -i lo", "-j DROP", "-m comment --comment \"q\"", "REJECT", "--reject-with",
        ]), 0..10)) {
            same(&format!("-A INPUT {}", parts.join(" ")), Family::Ip);
        }
    }
}
