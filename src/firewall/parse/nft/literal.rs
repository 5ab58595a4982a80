//! Numbers, addresses, ranges and times of nft's text syntax.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::lex::{Kind, Token, is_addr};

/// Tokens as one text.
pub(super) fn said(tokens: &[Token]) -> String {
    let words = tokens.iter().filter_map(|token| match &token.kind {
        Kind::Word(text) => Some(text.clone()),
        Kind::Quoted(text) => Some(format!("\"{text}\"")),
        Kind::Mark(mark) => Some((*mark).to_owned()),
        Kind::Newline | Kind::Handle(_) => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A number or a name.
pub(super) fn atom(text: &str) -> Value {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    number(bare).map_or_else(|| json!(bare), |n| json!(n))
}

/// A decimal or hexadecimal number.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

pub(super) fn literal(text: &str) -> Value {
    if let Some((addr, len)) = text.split_once('/')
        && let (Ok(addr), Some(len)) = (addr.parse::<IpAddr>(), number(len))
    {
        return json!({ "prefix": { "addr": addr.to_string(), "len": len } });
    }
    if let Some((from, to)) = text.split_once('-') {
        let end = |text: &str| is_addr(text) || number(text).is_some();
        if end(from) && end(to) {
            return json!({ "range": [atom(from), atom(to)] });
        }
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(addr) => json!(addr.to_string()),
        Err(_) => atom(text),
    }
}

/// `1d2h3m4s` in seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    if let Ok(plain) = text.parse() {
        return Some(plain);
    }
    let (mut all, mut number, mut digits) = (0u64, 0u64, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if let Some(digit) = c.to_digit(10) {
            number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
            digits = true;
            continue;
        }
        if !digits {
            return None;
        }
        let unit = match c {
            'w' => 604_800,
            'd' => 86_400,
            'h' => 3_600,
            'm' if chars.peek() == Some(&'s') => {
                chars.next();
                0
            }
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        all = all.checked_add(number.checked_mul(unit)?)?;
        (number, digits) = (0, false);
    }
    if digits { None } else { Some(all) }
}
