//! The words of nft's text syntax (`src/scanner.l` of nftables).

use std::net::{IpAddr, Ipv6Addr};

use crate::firewall::parse::error::Fault;
use crate::wire::MacAddr;

/// A fault with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: u32,
    pub(super) fault: Fault,
}

/// What a piece of the text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, number, address, range, …
    Word(String),
    /// `"…"`
    Quoted(String),
    /// `{ } ( ) , ; : = == != < <= << > >= >> & | ^ !`
    Mark(&'static str),
    /// The end of a line.
    Newline,
    /// `# handle N`
    Handle(u64),
}

/// A piece of the text and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

impl Token {
    pub(super) fn is(&self, mark: &str) -> bool {
        matches!(&self.kind, Kind::Mark(m) if *m == mark)
    }

    pub(super) fn wrong(&self, message: impl Into<String>) -> Wrong {
        Wrong { line: self.line, fault: Fault::new(self.column, message) }
    }

    /// As it is said in an error.
    pub(super) fn says(&self) -> String {
        match &self.kind {
            Kind::Word(text) => format!("`{text}`"),
            Kind::Quoted(text) => format!("\"{text}\""),
            Kind::Mark(mark) => format!("`{mark}`"),
            Kind::Newline => "the end of the line".to_owned(),
            Kind::Handle(_) => "the handle".to_owned(),
        }
    }
}

/// Longest first, so that `<=` is not `<` and `=`.
const MARKS: [&str; 20] =
    ["==", "!=", "<=", ">=", "<<", ">>", "{", "}", "(", ")", ",", ";", "=", "<", ">", "&", "|", "^", "!", "~"];

/// Splits a text into its pieces.
pub(super) fn split(text: &str) -> Result<Vec<Token>, Wrong> {
    let mut out = Vec::new();
    let mut continued = false;
    for (line, content) in (1u32..).zip(text.lines()) {
        let ends = split_line(line, content, &mut out)?;
        if !ends {
            continued = true;
            continue;
        }
        let column = u32::try_from(content.chars().count() + 1).unwrap_or(u32::MAX);
        out.push(Token { kind: Kind::Newline, line, column });
        continued = false;
    }
    if continued {
        out.push(Token {
            kind: Kind::Newline,
            line: u32::try_from(text.lines().count()).unwrap_or(u32::MAX),
            column: 1,
        });
    }
    Ok(out)
}

/// One line; `false` where a `\` says that it goes on.
fn split_line(line: u32, content: &str, out: &mut Vec<Token>) -> Result<bool, Wrong> {
    let mut rest = content;
    let mut column = 1u32;
    let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    while let Some(c) = rest.chars().next() {
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
            column += 1;
            continue;
        }
        if c == '#' {
            let number = rest[1..].trim().strip_prefix("handle ").and_then(|n| n.trim().parse().ok());
            if let Some(number) = number {
                out.push(Token { kind: Kind::Handle(number), line, column });
            }
            return Ok(true);
        }
        if c == '\\' && rest[1..].trim().is_empty() {
            return Ok(false);
        }
        if c == '"' {
            let Some(end) = rest[1..].find('"') else {
                return Err(Wrong {
                    line,
                    fault: Fault::new(column, "this quote is not closed").hint("close it with `\"`"),
                });
            };
            let inner = &rest[1..=end];
            out.push(Token { kind: Kind::Quoted(inner.to_owned()), line, column });
            column += count(inner) + 2;
            rest = &rest[end + 2..];
            continue;
        }
        if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
            out.push(Token { kind: Kind::Mark(mark), line, column });
            rest = &rest[mark.len()..];
            column += u32::try_from(mark.len()).unwrap_or(1);
            continue;
        }
        let ends = |c: char| c.is_whitespace() || "{}(),;=<>&|^!\"#~".contains(c);
        let end = rest.find(ends).unwrap_or(rest.len());
        word(&rest[..end], line, column, out);
        column += count(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(true)
}

/// A word, split at a `:` that separates a key from a value or an address from a port.
fn word(text: &str, line: u32, mut column: u32, out: &mut Vec<Token>) {
    let mut push = |kind: Kind, length: usize| {
        out.push(Token { kind, line, column });
        column += u32::try_from(length).unwrap_or(0);
    };
    let mut rest = text;
    while !rest.is_empty() {
        if rest.starts_with(':') && !has_colons(rest) {
            push(Kind::Mark(":"), 1);
            rest = &rest[1..];
            continue;
        }
        let bracket = if rest.starts_with('[') { rest.find(']').map(|at| at + 1) } else { None };
        let end = match bracket {
            Some(end) => end,
            None if has_colons(rest) => rest.len(),
            None if rest.ends_with(':') && has_colons(&rest[..rest.len() - 1]) => rest.len() - 1,
            None => rest.find(':').unwrap_or(rest.len()),
        };
        push(Kind::Word(rest[..end].to_owned()), rest[..end].chars().count());
        rest = &rest[end..];
    }
}

/// Whether the colons are the word's own: an IPv6 address, network or range, or a hardware address.
fn has_colons(text: &str) -> bool {
    if !text.contains(':') {
        return false;
    }
    let own = |text: &str| text.parse::<Ipv6Addr>().is_ok() || text.parse::<MacAddr>().is_ok();
    match text.split_once(['-', '/']) {
        Some((from, to)) => own(from) && (own(to) || to.bytes().all(|b| b.is_ascii_digit())),
        None => own(text),
    }
}

/// Whether a word is an address.
pub(super) fn is_addr(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_marks() {
        let words = |text: &str| {
            let tokens = split(text).unwrap();
            tokens
                .iter()
                .map(|t| t.says().trim_matches('`').to_owned())
                .filter(|t| !t.starts_with("the end"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words("tcp dport {22:accept,80 : drop}"),
            ["tcp", "dport", "{", "22", ":", "accept", ",", "80", ":", "drop", "}"]
        );
        assert_eq!(words("dnat to 10.0.0.1:80-90"), ["dnat", "to", "10.0.0.1", ":", "80-90"]);
        assert_eq!(words("dnat to [fd00::1]:80"), ["dnat", "to", "[fd00::1]", ":", "80"]);
        assert_eq!(
            words("fe80::/10 ::1-::9 00:11:22:33:44:55 :80"),
            ["fe80::/10", "::1-::9", "00:11:22:33:44:55", ":", "80"]
        );
        assert_eq!(
            words("a==b!=c<=d<<2 \"x y\" # handle 7"),
            ["a", "==", "b", "!=", "c", "<=", "d", "<<", "2", "\"x y\"", "the handle"]
        );
        assert_eq!(words("a \\\n b # note"), ["a", "b"]);
        assert_eq!(split("a \"b").unwrap_err().fault.column, 3);
    }
}
