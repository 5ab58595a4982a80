//! Tests of protocol headers beyond ports: IPsec, SCTP, DCCP, ECN, and IPv6 extension headers.

use std::fmt;
use std::net::Ipv6Addr;

/// Numbers from and to, both included, with their own negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Outside rather than inside.
    pub negated: bool,
    /// First.
    pub from: u32,
    /// Last.
    pub to: u32,
}

impl Span {
    /// Whether the number is in it, its negation applied: `(from <= n && n <= to) ^ negated`.
    pub fn holds(self, number: u32) -> bool {
        (self.from..=self.to).contains(&number) != self.negated
    }

    /// `! --option FROM:TO`
    pub(super) fn option(self, name: &str) -> String {
        let range = if self.from == self.to { self.from.to_string() } else { format!("{}:{}", self.from, self.to) };
        format!("{}--{name} {range}", not(self.negated))
    }
}

/// `! ` or nothing.
pub(super) fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

/// Which header carries the number that `esp`, `ah` and `ipcomp` look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpiModule {
    /// `-m esp`, protocol 50.
    Esp,
    /// `-m ah`, protocol 51.
    Ah,
    /// `-m ipcomp`, protocol 108.
    Ipcomp,
}

impl SpiModule {
    /// The module's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Esp => "esp",
            Self::Ah => "ah",
            Self::Ipcomp => "ipcomp",
        }
    }

    /// IANA protocol number.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Esp => 50,
            Self::Ah => 51,
            Self::Ipcomp => 108,
        }
    }
}

/// `-m esp`, `-m ah`, `-m ipcomp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiTest {
    /// The header.
    pub module: SpiModule,
    /// The security parameters index, or the compression parameter index.
    pub spi: Option<Span>,
    /// `--ahlen` (IPv6): the header's length, octets.
    pub len: Option<Span>,
    /// `--ahres`, `--compres`: the reserved field is zero.
    pub reserved: bool,
}

impl fmt::Display for SpiTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (spi, reserved) = match self.module {
            SpiModule::Esp => ("espspi", ""),
            SpiModule::Ah => ("ahspi", "--ahres"),
            SpiModule::Ipcomp => ("ipcompspi", "--compres"),
        };
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.spi.map(|span| span.option(spi)));
        parts.extend(self.len.map(|span| span.option("ahlen")));
        parts.extend(self.reserved.then(|| reserved.to_owned()));
        f.write_str(&parts.join(" "))
    }
}

/// How many of the listed SCTP chunks a packet must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkMode {
    /// All of them.
    All,
    /// One of them.
    Any,
    /// No others.
    Only,
}

/// One SCTP chunk type with the flags asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Chunk type (RFC 9260 section 3.2).
    pub kind: u8,
    /// The flags looked at.
    pub mask: u8,
    /// Those that must be set among them.
    pub set: u8,
}

/// `-m sctp --chunk-types`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTest {
    /// How many of them.
    pub mode: ChunkMode,
    /// The chunks; all 256 types without flags is written ALL.
    pub chunks: Vec<Chunk>,
}

impl ChunkTest {
    /// Names as `libxt_sctp.c` has them.
    pub const NAMES: [(&'static str, u8); 18] = [
        ("DATA", 0),
        ("INIT", 1),
        ("INIT_ACK", 2),
        ("SACK", 3),
        ("HEARTBEAT", 4),
        ("HEARTBEAT_ACK", 5),
        ("ABORT", 6),
        ("SHUTDOWN", 7),
        ("SHUTDOWN_ACK", 8),
        ("ERROR", 9),
        ("COOKIE_ECHO", 10),
        ("COOKIE_ACK", 11),
        ("ECN_ECNE", 12),
        ("ECN_CWR", 13),
        ("SHUTDOWN_COMPLETE", 14),
        ("I_DATA", 64),
        ("ASCONF", 193),
        ("ASCONF_ACK", 128),
    ];
    /// The flag letters of a chunk type, bit 7 first; `-` for a bit without a letter.
    pub fn letters(kind: u8) -> &'static [u8; 8] {
        match kind {
            0 | 64 => b"----IUBE",
            6 | 14 => b"-------T",
            _ => b"--------",
        }
    }
}

impl fmt::Display for ChunkTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ChunkMode::All => "all",
            ChunkMode::Any => "any",
            ChunkMode::Only => "only",
        };
        write!(f, "--chunk-types {mode} ")?;
        if self.chunks.is_empty() {
            return f.write_str("NONE");
        }
        if self.chunks.len() == 256 {
            return f.write_str("ALL");
        }
        let list: Vec<String> = self.chunks.iter().copied().map(chunk_text).collect();
        f.write_str(&list.join(","))
    }
}

fn chunk_text(chunk: Chunk) -> String {
    let name = ChunkTest::NAMES.iter().find(|(_, kind)| *kind == chunk.kind);
    let mut out = name.map_or_else(|| chunk.kind.to_string(), |(name, _)| (*name).to_owned());
    if chunk.mask != 0 {
        out.push(':');
        for (bit, letter) in (0..8u8).rev().zip(ChunkTest::letters(chunk.kind)) {
            if chunk.mask & (1 << bit) != 0 {
                let letter = char::from(*letter);
                // A capital asks for the flag set, a small letter for it clear.
                out.push(if chunk.set & (1 << bit) == 0 { letter.to_ascii_lowercase() } else { letter });
            }
        }
    }
    out
}

/// DCCP packet types in the order of their numbers (RFC 4340 section 5.1).
pub const DCCP_TYPES: [&str; 11] =
    ["REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC", "SYNCACK", "INVALID"];

/// `-m ecn`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EcnTest {
    /// `--ecn-tcp-ece`, and whether negated.
    pub ece: Option<bool>,
    /// `--ecn-tcp-cwr`, and whether negated.
    pub cwr: Option<bool>,
    /// `--ecn-ip-ect`, and whether negated.
    pub ect: Option<(bool, u8)>,
}

impl fmt::Display for EcnTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.ece.map(|n| format!("{}--ecn-tcp-ece", not(n))));
        parts.extend(self.cwr.map(|n| format!("{}--ecn-tcp-cwr", not(n))));
        parts.extend(self.ect.map(|(n, ect)| format!("{}--ecn-ip-ect {ect}", not(n))));
        f.write_str(&parts.join(" "))
    }
}

/// `-m frag`: the fragment header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FragTest {
    /// `--fragid`
    pub id: Option<Span>,
    /// `--fraglen`, which the kernel does not look at any more.
    pub len: Option<Span>,
    /// `--fragres`: the reserved fields are zero.
    pub reserved: bool,
    /// `--fragfirst`: offset 0.
    pub first: bool,
    /// `--fragmore`: more follow.
    pub more: bool,
    /// `--fraglast`: none follow.
    pub last: bool,
}

impl fmt::Display for FragTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.id.map(|span| span.option("fragid")));
        parts.extend(self.len.map(|span| span.option("fraglen")));
        for (on, name) in [
            (self.reserved, "--fragres"),
            (self.first, "--fragfirst"),
            (self.more, "--fragmore"),
            (self.last, "--fraglast"),
        ] {
            parts.extend(on.then(|| name.to_owned()));
        }
        f.write_str(&parts.join(" "))
    }
}

/// `-m ipv6header`: which extension headers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6HeaderTest {
    /// `! --header`
    pub negated: bool,
    /// The headers, as bits (`MASK_*` of `ip6t_ipv6header.h`).
    pub mask: u8,
    /// `--soft`: these at least, rather than these exactly.
    pub soft: bool,
}

impl Ipv6HeaderTest {
    /// Names, long and short, with their protocol numbers and bits, in the order of ip6tables-save.
    pub const NAMES: [(&'static str, &'static str, u8, u8); 8] = [
        ("hop-by-hop", "hop", 0, 128),
        ("ipv6-opts", "dst", 60, 64),
        ("ipv6-route", "route", 43, 32),
        ("ipv6-frag", "frag", 44, 16),
        ("ah", "auth", 51, 8),
        ("esp", "esp", 50, 4),
        ("ipv6-nonxt", "none", 59, 2),
        ("protocol", "prot", 255, 1),
    ];
}

impl fmt::Display for Ipv6HeaderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Self::NAMES.iter().filter(|(_, _, _, bit)| self.mask & bit != 0).map(|(name, ..)| *name).collect();
        write!(f, "{}--header {}{}", not(self.negated), names.join(","), if self.soft { " --soft" } else { "" })
    }
}

/// `-m rt`: the routing header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RtTest {
    /// `--rt-type`
    pub kind: Option<Span>,
    /// `--rt-segsleft`
    pub segsleft: Option<Span>,
    /// `--rt-len`, octets.
    pub len: Option<Span>,
    /// `--rt-0-res`
    pub reserved: bool,
    /// `--rt-0-addrs`
    pub addrs: Vec<Ipv6Addr>,
    /// `--rt-0-not-strict`
    pub not_strict: bool,
}

impl fmt::Display for RtTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.kind.map(|span| span.option("rt-type")));
        parts.extend(self.segsleft.map(|span| span.option("rt-segsleft")));
        parts.extend(self.len.map(|span| span.option("rt-len")));
        parts.extend(self.reserved.then(|| "--rt-0-res".to_owned()));
        if !self.addrs.is_empty() {
            let list: Vec<_> = self.addrs.iter().map(ToString::to_string).collect();
            parts.push(format!("--rt-0-addrs {}", list.join(",")));
        }
        parts.extend(self.not_strict.then(|| "--rt-0-not-strict".to_owned()));
        f.write_str(&parts.join(" "))
    }
}

/// `-m hbh`, `-m dst`: hop-by-hop and destination options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionsTest {
    /// The hop-by-hop header; else the destination options header.
    pub hop_by_hop: bool,
    /// `--hbh-len`, `--dst-len`, octets.
    pub len: Option<Span>,
    /// `--hbh-opts`, `--dst-opts`: type and length of each.
    pub opts: Vec<(u8, Option<u8>)>,
}

impl fmt::Display for OptionsTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.hop_by_hop { "hbh" } else { "dst" };
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.len.map(|span| span.option(&format!("{name}-len"))));
        if !self.opts.is_empty() {
            let one = |(kind, len): &(u8, Option<u8>)| len.map_or(kind.to_string(), |len| format!("{kind}:{len}"));
            let list: Vec<_> = self.opts.iter().map(one).collect();
            parts.push(format!("--{name}-opts {}", list.join(",")));
        }
        f.write_str(&parts.join(" "))
    }
}

/// `-m osf`: whose TCP stack sent this SYN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsfTest {
    /// `! --genre`
    pub negated: bool,
    /// `Linux`, `Windows`, …
    pub genre: String,
    /// `--ttl`: 0 true TTL, 1 TTL less than the fingerprint's, 2 not compared.
    pub ttl: Option<u8>,
    /// `--log`
    pub log: Option<u8>,
}

impl fmt::Display for OsfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}--genre {}", not(self.negated), super::quote(&self.genre))?;
        if let Some(ttl) = self.ttl {
            write!(f, " --ttl {ttl}")?;
        }
        self.log.map_or(Ok(()), |log| write!(f, " --log {log}"))
    }
}
