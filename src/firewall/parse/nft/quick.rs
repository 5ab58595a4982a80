//! The common rules of nft's text, read without libnftables-json between: addresses, ports,
//! interfaces, states, marks, counters and plain verdicts, as nft itself prints them.
//!
//! Whatever is less plain gives `None` and goes the long way, which alone says what is wrong with a
//! rule. Both ways give the same rule (tested against each other).

use std::net::IpAddr;
use std::rc::Rc;

use serde_json::json;

use crate::firewall::names;
use crate::firewall::ruleset::{
    CompareOp, Comparison, Counters, Family, Field, Match, Net, Operand, RejectWith, Rule, Target, Test,
};

use super::expr;
use super::lex::{Kind, Token};

/// The chain that a rule is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
}

/// A rule that needs no more reading.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) home: Rc<Home>,
    pub(super) rule: Rule,
}

struct Words<'t> {
    tokens: &'t [Token],
    at: usize,
}

impl<'t> Words<'t> {
    fn next(&mut self) -> Option<&'t Kind> {
        let kind = &self.tokens.get(self.at)?.kind;
        self.at += 1;
        Some(kind)
    }

    fn word(&mut self) -> Option<&'t str> {
        match self.next()? {
            Kind::Word(text) => Some(text),
            _ => None,
        }
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.tokens.get(self.at).is_some_and(|token| token.is(mark));
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at).map(|t| &t.kind), Some(Kind::Word(text)) if text == word);
        self.at += usize::from(found);
        found
    }
}

/// Reads a rule's tokens: the rule without its place and text.
pub(super) fn read(tokens: &[Token], family: Family) -> Option<Rule> {
    let mut words = Words { tokens, at: 0 };
    let mut rule = Rule { matches: Vec::with_capacity(3), ..Rule::default() };
    let mut comment = None;
    while words.at < tokens.len() {
        let word = words.word()?;
        if word == "comment" {
            match words.next()? {
                Kind::Quoted(text) if comment.is_none() => comment = Some(text),
                _ => return None,
            }
            continue;
        }
        // Nothing but a comment stands behind a verdict.
        if rule.target.is_some() {
            return None;
        }
        match word {
            "accept" => rule.target = Some(Target::Accept),
            "drop" => rule.target = Some(Target::Drop),
            "return" => rule.target = Some(Target::Return),
            "jump" => rule.target = Some(Target::Jump(words.word()?.to_owned())),
            "goto" => rule.target = Some(Target::Goto(words.word()?.to_owned())),
            "reject" => {
                rule.target = Some(Target::Reject(match family {
                    Family::Ip => RejectWith::Icmp(3),
                    Family::Ip6 => RejectWith::Icmp6(4),
                    _ => RejectWith::Icmpx(1),
                }));
            }
            "counter" => {
                if words.take_word("packets") {
                    let packets = digits(words.word()?)?;
                    if !words.take_word("bytes") {
                        return None;
                    }
                    let bytes = digits(words.word()?)?;
                    if rule.counters.replace(Counters { packets, bytes }).is_some() {
                        return None;
                    }
                }
            }
            word => {
                let field = field(word, &mut words)?;
                rule.matches.push(comparison(field, &mut words)?);
            }
        }
    }
    rule.matches.extend(comment.map(|text| Match::is(Test::Comment(text.clone()))));
    Some(rule)
}

fn field(word: &str, words: &mut Words<'_>) -> Option<Field> {
    Some(match word {
        "iifname" | "iif" => Field::Iifname,
        "oifname" | "oif" => Field::Oifname,
        "ip" | "ip6" => {
            let v6 = word == "ip6";
            match words.word()? {
                "saddr" => Field::Saddr { v6 },
                "daddr" => Field::Daddr { v6 },
                "protocol" if !v6 => Field::Protocol { v6: false },
                _ => return None,
            }
        }
        "tcp" | "udp" | "sctp" | "th" => {
            let proto = match word {
                "tcp" => Some(6),
                "udp" => Some(17),
                "sctp" => Some(132),
                _ => None,
            };
            match words.word()? {
                "sport" => Field::Sport(proto),
                "dport" => Field::Dport(proto),
                _ => return None,
            }
        }
        "icmp" | "icmpv6" if words.take_word("type") => Field::IcmpType { v6: word == "icmpv6" },
        "ct" => match words.word()? {
            "state" => Field::CtState,
            "mark" => Field::CtMark,
            _ => return None,
        },
        "meta" => match words.word()? {
            "mark" => Field::Mark,
            "l4proto" => Field::L4Proto,
            "nfproto" => Field::NfProto,
            "iifname" => Field::Iifname,
            "oifname" => Field::Oifname,
            _ => return None,
        },
        _ => return None,
    })
}

fn comparison(field: Field, words: &mut Words<'_>) -> Option<Match> {
    let negated = words.take("!=");
    let explicit = negated || words.take("==");
    let mut op = CompareOp::Eq;
    let operands = if words.take("{") {
        let mut operands = Vec::new();
        loop {
            operands.push(vec![operand(&field, words)?]);
            if words.take("}") {
                break operands;
            }
            if !words.take(",") {
                return None;
            }
        }
    } else if field == Field::CtState {
        if explicit {
            return None;
        }
        op = CompareOp::Flags;
        let mut all = 0;
        loop {
            match operand(&field, words)? {
                Operand::Number(bits) => all |= bits,
                _ => return None,
            }
            if !words.take(",") {
                break vec![vec![Operand::Number(all)]];
            }
        }
    } else {
        vec![vec![operand(&field, words)?]]
    };
    // What joins a value to something larger.
    if let Some(Kind::Mark(_)) = words.tokens.get(words.at).map(|t| &t.kind) {
        return None;
    }
    if let Some(Kind::Word(next)) = words.tokens.get(words.at).map(|t| &t.kind)
        && matches!(
            next.as_str(),
            "." | "/" | "map" | "vmap" | "set" | "-" | "and" | "or" | "xor" | "lshift" | "rshift"
        )
    {
        return None;
    }
    Some(Match::new(negated, Test::Compare(Comparison { fields: vec![field], mask: None, op, operands })))
}

fn operand(field: &Field, words: &mut Words<'_>) -> Option<Operand> {
    let text = match words.next()? {
        Kind::Quoted(text) if matches!(field, Field::Iifname | Field::Oifname) => {
            return (!text.starts_with('@')).then(|| Operand::Name(text.clone()));
        }
        Kind::Word(text) => text.as_str(),
        _ => return None,
    };
    if let Some(name) = text.strip_prefix('@') {
        let alone = !words.tokens.get(words.at.wrapping_sub(2)).is_some_and(|before| before.is("{") || before.is(","));
        return (alone && *field != Field::CtState).then(|| Operand::Set(name.to_owned()));
    }
    match field {
        Field::Saddr { .. } | Field::Daddr { .. } => addresses(text),
        Field::Iifname | Field::Oifname => None,
        Field::Sport(_) | Field::Dport(_) => match text.split_once('-') {
            Some((from, to)) => Some(Operand::NumberRange(digits(from)?, digits(to)?)),
            None => digits(text).or_else(|| named(field, text)).map(Operand::Number),
        },
        Field::Mark | Field::CtMark => hex(text).or_else(|| digits(text)).map(Operand::Number),
        Field::L4Proto | Field::Protocol { .. } => {
            digits(text).or_else(|| plain(text).and_then(names::protocol).map(u64::from)).map(Operand::Number)
        }
        _ => named(field, text).map(Operand::Number),
    }
}

fn addresses(text: &str) -> Option<Operand> {
    let Some((addr, len)) = text.split_once('/') else {
        let addr: IpAddr = text.parse().ok()?;
        return Some(Operand::AddrRange(addr, addr));
    };
    let net = Net::prefix(addr.parse().ok()?, u8::try_from(digits(len)?).ok()?)?;
    let last = match (net.addr, net.mask) {
        (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4((a.to_bits() | !m.to_bits()).into()),
        (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6((a.to_bits() | !m.to_bits()).into()),
        _ => return None,
    };
    Some(Operand::AddrRange(net.addr, last))
}

/// A name of letters, and blanks between them, that no number hides in.
fn plain(text: &str) -> Option<&str> {
    let letters =
        text.bytes().enumerate().all(|(n, b)| b.is_ascii_lowercase() || n > 0 && (b == b'-' || b.is_ascii_digit()));
    (letters && !text.is_empty()).then_some(text)
}

fn named(field: &Field, text: &str) -> Option<u64> {
    expr::number(field, &json!(plain(text)?))
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

fn hex(text: &str) -> Option<u64> {
    let hex = text.strip_prefix("0x")?;
    if hex.bytes().all(|b| b.is_ascii_hexdigit()) { u64::from_str_radix(hex, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, lex, phrase};
    use super::*;
    use proptest::prelude::*;

    /// Both ways; `None` where the quick one does not go.
    fn both(text: &str, family: &str) -> Option<(Rule, Rule)> {
        let tokens = lex::split(text).ok()?;
        let (after, tokens) = tokens.split_last()?;
        let kind = if family == "ip" { Family::Ip } else { Family::Inet };
        let quick = read(tokens, kind)?;
        let phrases = phrase::read(tokens, after).unwrap_or_else(|_| panic!("{text}: only the quick way takes it"));
        let mut rule = json!({ "family": family, "table": "t", "chain": "c", "expr": phrases.expr });
        if let Some(comment) = phrases.comment {
            rule["comment"] = json!(comment);
        }
        let item = json!({ "rule": rule });
        let parsed = Reader::new("t").all(vec![(&item, None, None)]);
        let mut long = parsed.ruleset.tables[0].chains[0].rules[0].clone();
        long.text.clear();
        Some((quick, long))
    }

    #[test]
    fn plain_rules_go_the_quick_way() {
        for text in [
            "ip saddr 10.0.0.0/24 tcp dport 22 accept",
            "iifname \"eth0\" ip daddr 10.0.0.1 udp dport { 53, 67-68 } counter packets 1 bytes 2 drop",
            "ct state established,related meta mark 0x1f accept comment \"rule 1\"",
            "ip6 saddr != fe80::/10 meta l4proto { tcp, udp } counter jump user",
            "icmp type echo-request reject",
            "ip saddr @blocked drop",
            "ct state { new, untracked } th sport != 5 goto user",
            "oifname \"veth*\" return",
        ] {
            let (quick, long) = both(text, "inet").unwrap_or_else(|| panic!("{text}"));
            assert_eq!(quick, long, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_agree(parts in proptest::collection::vec(proptest::sample::select(vec![
            "ip saddr", "ip6 daddr", "10.0.0.1", "10.0.0.0/8", "fd00::1", "fd00::/64", "10.0.0.1-10.0.0.9", "!=", "==", "{", "}",
            ",", "tcp dport", "udp sport", "th dport", "22", "22-30", "ssh", "http-alt", "0x16", "@set", "iifname", "\"eth0\"",
            "\"@x\"", "oifname \"lo\"", "ct state", "new", "established,related", "{ new, invalid }", "meta mark 0x1",
            "meta mark", "and 0xff", "& 0xff", "meta l4proto tcp", "{ tcp, 17 }", "ip protocol icmp", "icmp type", "echo-request",
            "8", "counter", "counter packets 1 bytes 2", "accept", "drop", "reject", "return", "jump user", "comment \"x\"",
            "with tcp reset", ".", "vmap @m", "set 5", "/ 3", "ct mark 7", "10.0.0.0/33", "1.2.3", "{ 10.0.0.1, 10.0.0.2 }",
            "{ 22, 80 }", "tcp dport 22", "ip saddr 10.0.0.1", "meta nfproto ipv4", "icmpv6 type { 133, nd-redirect }",
        ]), 1..7)) {
            for family in ["ip", "inet"] {
                if let Some((quick, long)) = both(&parts.join(" "), family) {
                    prop_assert_eq!(quick, long, "{}", parts.join(" "));
                }
            }
        }
    }
}
