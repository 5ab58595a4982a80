//! Tests of a packet's octets: `string` and `u32`, parsed and run over what is known of it.

use std::fmt;

use super::matches_header::not;

/// Octets that are not given decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotGiven;

/// `-m string`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringTest {
    /// `! --string`
    pub negated: bool,
    /// The octets looked for, 1 to 128.
    pub pattern: Vec<u8>,
    /// `--algo kmp`; else `bm`. Both find the same.
    pub kmp: bool,
    /// `--from`: first octet of the IP packet looked at.
    pub from: u16,
    /// `--to`: the octet after the last one looked at.
    pub to: u16,
    /// `--icase`: letters of either case.
    pub icase: bool,
}

impl StringTest {
    /// Reads `abc|0d 0a|def`; `\` keeps the next character as it is (`parse_hex_string`).
    pub fn of_hex(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut chars = text.bytes();
        let mut hex = false;
        while let Some(c) = chars.next() {
            match c {
                b'|' => hex = !hex,
                b' ' if hex => (),
                b'\\' if !hex => out.push(chars.next()?),
                high if hex => {
                    let low = chars.next()?;
                    let digits = [high, low];
                    let digits =
                        std::str::from_utf8(&digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
                    out.push(u8::from_str_radix(digits, 16).ok()?);
                }
                plain => out.push(plain),
            }
        }
        (!hex).then_some(out)
    }

    /// Whether the pattern stands in `octets`, which begin with the IP header, wholly between `from`
    /// and `to` (`net/core/skbuff.c`, `skb_find_text`); `Err` where an octet not known decides. The
    /// first `headers` octets are headers': those of them that are not known are taken to be no
    /// part of the pattern.
    pub fn find(&self, octets: &[Octet], headers: usize) -> Result<bool, NotGiven> {
        let from = usize::from(self.from).min(octets.len());
        let to = usize::from(self.to).min(octets.len()).max(from);
        let fold = |c: u8| if self.icase { upper(c) } else { c };
        let mut maybe = false;
        for (start, window) in (from..).zip(octets[from..to].windows(self.pattern.len().max(1))) {
            let (mut fits, mut known) = (true, true);
            for ((place, own), wanted) in (start..).zip(window).zip(&self.pattern) {
                match own.value() {
                    Some(own) if fold(own) == fold(*wanted) => (),
                    Some(_) => fits = false,
                    None if place < headers => fits = false,
                    None => known = false,
                }
            }
            if fits && known {
                return Ok(true);
            }
            maybe |= fits;
        }
        if maybe { Err(NotGiven) } else { Ok(false) }
    }
}

/// The kernel's `toupper`, which knows Latin-1 (`lib/ctype.c`).
fn upper(c: u8) -> u8 {
    match c {
        b'a'..=b'z' | 0xdf..=0xf6 | 0xf8..=0xff => c - 32,
        _ => c,
    }
}

impl fmt::Display for StringTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = self.pattern.iter().all(|c| (0x20..0x7f).contains(c)) && self.pattern.last() != Some(&b'\\');
        if printable {
            let mut text = String::new();
            for c in &self.pattern {
                if matches!(c, b'"' | b'\\' | b'\'') {
                    text.push('\\');
                }
                text.push(char::from(*c));
            }
            write!(f, "{}--string \"{text}\"", not(self.negated))?;
        } else {
            write!(f, "{}--hex-string \"|", not(self.negated))?;
            self.pattern.iter().try_for_each(|c| write!(f, "{c:02x}"))?;
            f.write_str("|\"")?;
        }
        write!(f, " --algo {}", if self.kmp { "kmp" } else { "bm" })?;
        if self.from != 0 {
            write!(f, " --from {}", self.from)?;
        }
        if self.to != 0 && self.to != u16::MAX {
            write!(f, " --to {}", self.to)?;
        }
        if self.icase { f.write_str(" --icase") } else { Ok(()) }
    }
}

/// One operation of u32's location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum U32Op {
    /// `&`
    And,
    /// `<<`
    Left,
    /// `>>`
    Right,
    /// `@`: the value so far is where to read next.
    At,
}

/// One `location = ranges`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct U32Part {
    /// Where the first four octets are read.
    pub start: u32,
    /// What is done with them.
    pub ops: Vec<(U32Op, u32)>,
    /// The value must be in one of these.
    pub ranges: Vec<(u32, u32)>,
}

/// `-m u32`: all parts must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct U32Test {
    /// `! --u32`
    pub negated: bool,
    /// The parts, joined by `&&`.
    pub parts: Vec<U32Part>,
}

impl U32Test {
    /// Reads the expression. `Err` is the octet of the text where it goes wrong, and why.
    pub fn parse(negated: bool, text: &str) -> Result<Self, (usize, &'static str)> {
        let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
        let mut parts = Vec::new();
        loop {
            let start = cursor.number()?;
            let mut ops = Vec::new();
            loop {
                let op = match cursor.next() {
                    Some(b'=') => break,
                    Some(b'&') => U32Op::And,
                    Some(b'@') => U32Op::At,
                    Some(b'<') if cursor.next() == Some(b'<') => U32Op::Left,
                    Some(b'>') if cursor.next() == Some(b'>') => U32Op::Right,
                    _ => return Err((cursor.at, "an operator (&, <<, >>, @) or `=` is missing")),
                };
                ops.push((op, cursor.number()?));
                if ops.len() > 10 {
                    return Err((cursor.at, "at most ten operations")); // XT_U32_MAXSIZE
                }
            }
            let mut ranges = Vec::new();
            let last = loop {
                let from = cursor.number()?;
                let (to, next) = match cursor.next() {
                    Some(b':') => (cursor.number()?, cursor.next()),
                    other => (from, other),
                };
                ranges.push((from, to));
                if ranges.len() > 10 {
                    return Err((cursor.at, "at most ten ranges"));
                }
                match next {
                    Some(b',') => (),
                    Some(b'&') if cursor.next() == Some(b'&') => break false,
                    None => break true,
                    Some(_) => return Err((cursor.at, "`,` or `&&` or the end is missing")),
                }
            };
            parts.push(U32Part { start, ops, ranges });
            if parts.len() > 10 {
                return Err((cursor.at, "at most ten parts"));
            }
            if last {
                return Ok(Self { negated, parts });
            }
        }
    }

    /// Whether it holds for the octets from the IP header on, its negation not applied; `Err` where
    /// octets not known decide (`net/netfilter/xt_u32.c`, `u32_match_it`).
    pub fn holds(&self, octets: &[Octet]) -> Result<bool, NotGiven> {
        let mut open = false;
        for part in &self.parts {
            match part.holds(octets) {
                Ok(true) => (),
                Ok(false) => return Ok(false),
                Err(NotGiven) => open = true,
            }
        }
        if open { Err(NotGiven) } else { Ok(true) }
    }
}

impl U32Part {
    fn holds(&self, octets: &[Octet]) -> Result<bool, NotGiven> {
        let mut at: u32 = 0;
        let Some(mut bits) = Bits::read(octets, self.start, 4) else { return Ok(false) };
        for (op, number) in &self.ops {
            match op {
                U32Op::And => bits = bits.and(Bits::known(*number)),
                U32Op::Left => bits = bits.map(|n| n.wrapping_shl(*number)),
                U32Op::Right => bits = bits.map(|n| n.wrapping_shr(*number)),
                U32Op::At => {
                    let value = bits.value().ok_or(NotGiven)?;
                    let Some(base) = at.checked_add(value) else { return Ok(false) };
                    at = base;
                    let Some(place) = at.checked_add(*number) else { return Ok(false) };
                    match Bits::read(octets, place, 4) {
                        Some(next) => bits = next,
                        None => return Ok(false),
                    }
                }
            }
        }
        let mut open = false;
        for (from, to) in &self.ranges {
            match bits.value() {
                Some(value) if (*from..=*to).contains(&value) => return Ok(true),
                Some(_) => (),
                // The value lies between all its open bits clear and all set.
                None => open |= bits.set <= *to && bits.set | bits.open >= *from,
            }
        }
        if open { Err(NotGiven) } else { Ok(false) }
    }
}

impl fmt::Display for U32Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}--u32 \"", not(self.negated))?;
        for (index, part) in self.parts.iter().enumerate() {
            write!(f, "{}{:#x}", if index > 0 { "&&" } else { "" }, part.start)?;
            for (op, number) in &part.ops {
                let op = match op {
                    U32Op::And => "&",
                    U32Op::Left => "<<",
                    U32Op::Right => ">>",
                    U32Op::At => "@",
                };
                write!(f, "{op}{number:#x}")?;
            }
            for (index, (from, to)) in part.ranges.iter().enumerate() {
                write!(f, "{}{from:#x}", if index > 0 { "," } else { "=" })?;
                if from != to {
                    write!(f, ":{to:#x}")?;
                }
            }
        }
        f.write_str("\"")
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next character that is no blank.
    fn next(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let c = self.text.get(self.at).copied();
        self.at += 1;
        c
    }

    fn number(&mut self) -> Result<u32, (usize, &'static str)> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let start = self.at;
        let hex = self.text[start.min(self.text.len())..].starts_with(b"0x");
        if hex {
            self.at += 2;
        }
        while self.text.get(self.at).is_some_and(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() }) {
            self.at += 1;
        }
        let digits = self.text.get(start..self.at).and_then(|d| std::str::from_utf8(d).ok()).unwrap_or("");
        let value = match digits.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => u32::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        value.map_err(|_| (start, "a number of 32 bits is missing"))
    }
}

/// An octet of a packet, of which some bits may not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Octet {
    /// The known bits that are set.
    pub set: u8,
    /// The bits not known.
    pub open: u8,
}

impl Octet {
    /// Nothing is known of it.
    pub const OPEN: Self = Self { set: 0, open: 0xff };

    /// An octet known whole.
    pub fn known(value: u8) -> Self {
        Self { set: value, open: 0 }
    }

    /// The octet, where all of it is known.
    pub fn value(self) -> Option<u8> {
        (self.open == 0).then_some(self.set)
    }
}

/// A number of which some bits may not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    /// The known bits that are set.
    pub set: u32,
    /// The bits not known.
    pub open: u32,
}

impl Bits {
    /// A number known whole.
    pub fn known(value: u32) -> Self {
        Self { set: value, open: 0 }
    }

    /// The number, where all of it is known.
    pub fn value(self) -> Option<u32> {
        (self.open == 0).then_some(self.set)
    }

    /// `width` octets in network order at `at`; `None` where the packet ends before.
    pub fn read(octets: &[Octet], at: u32, width: usize) -> Option<Self> {
        let at = usize::try_from(at).ok()?;
        let cells = octets.get(at..at.checked_add(width)?)?;
        Some(cells.iter().fold(Self::known(0), |bits, cell| Self {
            set: bits.set << 8 | u32::from(cell.set),
            open: bits.open << 8 | u32::from(cell.open),
        }))
    }

    /// Bitwise and.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (may, other_may) = (self.set | self.open, other.set | other.open);
        let set = self.set & other.set;
        Self { set, open: may & other_may & !set }
    }

    /// Bitwise or.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let set = self.set | other.set;
        Self { set, open: (self.open | other.open) & !set }
    }

    pub(super) fn map(self, with: impl Fn(u32) -> u32) -> Self {
        Self { set: with(self.set), open: with(self.open) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(octets: &[u8]) -> Vec<Octet> {
        octets.iter().copied().map(Octet::known).collect()
    }

    #[test]
    fn u32_reads_and_runs() {
        // net/netfilter/xt_u32.c; the first is the manual's own example: ICMP, no fragment, type 0.
        let test = U32Test::parse(false, "6&0xFF=1 && 4&0x3FFF=0 && 0>>22&0x3C@0>>24=0").unwrap();
        assert_eq!(test.to_string(), "--u32 \"0x6&0xff=0x1&&0x4&0x3fff=0x0&&0x0>>0x16&0x3c@0x0>>0x18=0x0\"");
        let mut packet = vec![0u8; 28];
        (packet[0], packet[9]) = (0x45, 1);
        assert_eq!(test.holds(&known(&packet)), Ok(true));
        packet[20] = 8;
        assert_eq!(test.holds(&known(&packet)), Ok(false));
        let mut open = known(&packet);
        open[20] = Octet::OPEN;
        assert_eq!(test.holds(&open), Err(NotGiven));
        assert_eq!(test.holds(&known(&packet[..20])), Ok(false), "past the end");
        for bad in ["", "1", "1=", "1=2&&", "1&=2", "1=1:2:3", "=1", "1|2=3", "0x=1"] {
            assert!(U32Test::parse(false, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strings_are_found_between_from_and_to() {
        let test =
            |from, to, icase| StringTest { negated: false, pattern: b"Get".to_vec(), kmp: false, from, to, icase };
        let packet = known(b"....Get.GET");
        assert_eq!(test(0, u16::MAX, false).find(&packet, 0), Ok(true));
        assert_eq!(test(4, 7, false).find(&packet, 0), Ok(true));
        assert_eq!(test(4, 6, false).find(&packet, 0), Ok(false), "it must end before `to`");
        assert_eq!(test(5, 99, false).find(&packet, 0), Ok(false));
        assert_eq!(test(5, 99, true).find(&packet, 0), Ok(true));
        assert_eq!(test(90, 99, true).find(&packet, 0), Ok(false));
        assert_eq!(StringTest::of_hex("|00 ff|a\\|b|0d0a|").unwrap(), b"\x00\xffa|b\r\n");
        assert_eq!(StringTest::of_hex("|0"), None);
    }
}
