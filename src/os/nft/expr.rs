//! nf_tables expressions (`NFTA_RULE_EXPRESSIONS`, include/uapi/linux/netfilter/nf_tables.h): the
//! kernel's small instruction set, read and written.

use super::attr::{Attrs, View, text};

/// Where a payload is counted from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The link-layer header.
    Link,
    /// The IPv4 or IPv6 header.
    Network,
    /// The TCP, UDP, ICMP… header.
    Transport,
    /// The transport's payload.
    Inner,
}

/// A comparison (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// A verdict: `NF_*` or `NFT_*` code, and the chain of a jump or goto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `NF_DROP` 0, `NF_ACCEPT` 1, `NF_QUEUE` 3, `NFT_CONTINUE` -1 … `NFT_RETURN` -5.
    pub(crate) code: i32,
    /// The target of a jump or goto.
    pub(crate) chain: Option<String>,
}

/// `NF_DROP`.
pub(crate) const DROP: i32 = 0;
/// `NF_ACCEPT`.
pub(crate) const ACCEPT: i32 = 1;
/// `NFT_CONTINUE`.
pub(crate) const CONTINUE: i32 = -1;
/// `NFT_JUMP`.
pub(crate) const JUMP: i32 = -3;
/// `NFT_GOTO`.
pub(crate) const GOTO: i32 = -4;
/// `NFT_RETURN`.
pub(crate) const RETURN: i32 = -5;

/// What an immediate puts into a register, and what a set's element holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// Bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// Registers named by an expression that translates addresses or ports; `None` where not used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Nat {
    /// `NFT_NAT_SNAT` 0, `NFT_NAT_DNAT` 1; unused by masquerade and redirect.
    pub(crate) kind: u32,
    /// `NFPROTO_*` of the new address.
    pub(crate) family: u32,
    /// First and last new address.
    pub(crate) address: (Option<u32>, Option<u32>),
    /// First and last new port.
    pub(crate) port: (Option<u32>, Option<u32>),
    /// `NF_NAT_RANGE_*`.
    pub(crate) flags: u32,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expr {
    /// Load bytes of the packet.
    Payload { dreg: u32, base: Base, offset: u32, len: u32 },
    /// Write bytes of the packet.
    PayloadSet { sreg: u32, base: Base, offset: u32, len: u32 },
    /// Break unless the register compares.
    Cmp { sreg: u32, op: Op, data: Vec<u8> },
    /// `dreg = (sreg & mask) ^ xor`, or a shift by `shift` bits (op 1 left, 2 right).
    Bitwise { sreg: u32, dreg: u32, len: u32, op: u32, mask: Vec<u8>, xor: Vec<u8>, shift: u32 },
    /// Byte order; it changes nothing in how a rule reads.
    Byteorder { sreg: u32, dreg: u32, len: u32 },
    /// Break unless the register is within (or, `neq`, outside) a range.
    Range { sreg: u32, neq: bool, from: Vec<u8>, to: Vec<u8> },
    /// Break unless the register is in the set; with `dreg`, a map.
    Lookup { sreg: u32, set: String, set_id: Option<u32>, dreg: Option<u32>, invert: bool },
    /// Load a packet's metadata (`NFT_META_*`).
    Meta { key: u32, dreg: u32 },
    /// Change a packet's metadata.
    MetaSet { key: u32, sreg: u32 },
    /// Load from the connection (`NFT_CT_*`); direction 0 original, 1 reply.
    Ct { key: u32, dreg: u32, direction: Option<u8> },
    /// Change the connection.
    CtSet { key: u32, sreg: u32, direction: Option<u8> },
    /// Load a constant, or decide.
    Immediate { dreg: u32, data: Data },
    /// Count.
    Counter { packets: u64, bytes: u64 },
    /// Refuse: type 0 ICMP, 1 TCP reset, 2 ICMPx.
    Reject { kind: u32, code: u8 },
    /// SNAT or DNAT.
    Nat(Nat),
    /// Masquerade.
    Masq(Nat),
    /// Redirect.
    Redir(Nat),
    /// A rate limit: per `unit` seconds, type 0 packets or 1 bytes.
    Limit { rate: u64, unit: u64, burst: u32, bytes: bool, invert: bool },
    /// Log; group is set for nfnetlink_log.
    Log {
        group: Option<u16>,
        prefix: Option<String>,
        snaplen: Option<u32>,
        qthreshold: Option<u16>,
        level: Option<u32>,
        flags: u32,
    },
    /// Hand to user space.
    Queue { num: Option<u16>, total: u16, flags: u16, sreg: Option<u32> },
    /// Load an IPv6 extension header (op 0), TCP option (1) or IPv4 option (2).
    Exthdr { dreg: u32, kind: u8, offset: u32, len: u32, op: u32, present: bool },
    /// Look up a route: result 1 oif, 2 oifname, 3 address type.
    Fib { dreg: u32, result: u32, flags: u32 },
    /// Load from the route.
    Rt { dreg: u32, key: u32 },
    /// Load from the local socket.
    Socket { dreg: u32, key: u32, level: u32 },
    /// Number generator: 0 incremental, 1 random.
    Numgen { dreg: u32, modulus: u32, random: bool, offset: u32 },
    /// A quota in bytes.
    Quota { bytes: u64, used: u64, over: bool },
    /// A limit on connections.
    Connlimit { count: u32, over: bool },
    /// Use a named object (`NFT_OBJECT_*`).
    Objref { kind: u32, name: String },
    /// Keep out of conntrack.
    Notrack,
    /// Add to a set from the packet path: op 0 add, 1 update, 2 delete.
    Dynset { set: String, op: u32, sreg: u32, data: Option<u32>, timeout: Option<u64>, exprs: Vec<Expr> },
    /// An x_tables match.
    Match { name: String, rev: u32, info: Vec<u8> },
    /// An x_tables target.
    Target { name: String, rev: u32, info: Vec<u8> },
    /// Anything else, by name, with its attributes.
    Unknown { name: String, data: Vec<u8> },
}

impl Base {
    fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Link,
            1 => Self::Network,
            2 => Self::Transport,
            3 => Self::Inner,
            _ => return None,
        })
    }
}

impl Op {
    fn from_u32(value: u32) -> Option<Self> {
        Some(match value {
            0 => Self::Eq,
            1 => Self::Neq,
            2 => Self::Lt,
            3 => Self::Lte,
            4 => Self::Gt,
            5 => Self::Gte,
            _ => return None,
        })
    }
}

impl Data {
    /// From `NFTA_DATA_*`.
    pub(crate) fn read(view: View<'_>) -> Option<Self> {
        if let Some(value) = view.get(1) {
            return Some(Self::Value(value.to_vec()));
        }
        let verdict = view.nested(2)?;
        #[expect(clippy::cast_possible_wrap, reason = "the kernel sends the code as the bits of an int")]
        let code = verdict.u32(1)? as i32;
        Some(Self::Verdict(Verdict { code, chain: verdict.string(2) }))
    }

    fn write(&self) -> Attrs {
        match self {
            Self::Value(bytes) => Attrs::new().bytes_attr(1, bytes),
            Self::Verdict(verdict) => {
                #[expect(clippy::cast_sign_loss, reason = "the kernel takes the bits of an int")]
                let inner = Attrs::new().u32(1, verdict.code as u32);
                let inner = match &verdict.chain {
                    Some(chain) => inner.string(2, chain),
                    None => inner,
                };
                Attrs::new().nest(2, &inner)
            }
        }
    }

    fn bytes(view: Option<View<'_>>) -> Option<Vec<u8>> {
        match Self::read(view?)? {
            Self::Value(bytes) => Some(bytes),
            Self::Verdict(_) => None,
        }
    }
}

impl Expr {
    /// Reads a list of `NFTA_LIST_ELEM`.
    pub(crate) fn read_list(view: View<'_>) -> Vec<Self> {
        view.iter().filter(|(kind, _)| *kind == 1).map(|(_, data)| Self::read(View::new(data))).collect()
    }

    /// Reads one `NFTA_EXPR_*`; what is not understood is [`Expr::Unknown`], never left out.
    pub(crate) fn read(view: View<'_>) -> Self {
        let name = view.string(1).unwrap_or_default();
        let data = view.get(2).unwrap_or_default();
        Self::read_named(&name, View::new(data)).unwrap_or_else(|| Self::Unknown { name, data: data.to_vec() })
    }

    fn read_named(name: &str, a: View<'_>) -> Option<Self> {
        Some(match name {
            "payload" => {
                let (base, offset, len) = (Base::from_u32(a.u32(2)?)?, a.u32(3)?, a.u32(4)?);
                match a.u32(1) {
                    Some(dreg) => Self::Payload { dreg, base, offset, len },
                    None => Self::PayloadSet { sreg: a.u32(5)?, base, offset, len },
                }
            }
            "cmp" => Self::Cmp { sreg: a.u32(1)?, op: Op::from_u32(a.u32(2)?)?, data: Data::bytes(a.nested(3))? },
            "bitwise" => {
                let op = a.u32(6).unwrap_or(0);
                let (mask, xor, shift) = match op {
                    0 => (Data::bytes(a.nested(4))?, Data::bytes(a.nested(5))?, 0),
                    1 | 2 => {
                        let shift = Data::bytes(a.nested(7))?;
                        (Vec::new(), Vec::new(), u32::from_ne_bytes(*shift.first_chunk()?))
                    }
                    _ => return None,
                };
                Self::Bitwise { sreg: a.u32(1)?, dreg: a.u32(2)?, len: a.u32(3)?, op, mask, xor, shift }
            }
            "byteorder" => Self::Byteorder { sreg: a.u32(1)?, dreg: a.u32(2)?, len: a.u32(4)? },
            "range" => Self::Range {
                sreg: a.u32(1)?,
                neq: a.u32(2)? == 1,
                from: Data::bytes(a.nested(3))?,
                to: Data::bytes(a.nested(4))?,
            },
            "lookup" => Self::Lookup {
                set: a.string(1)?,
                sreg: a.u32(2)?,
                dreg: a.u32(3),
                set_id: a.u32(4),
                invert: a.u32(5).unwrap_or(0) & 1 != 0,
            },
            "meta" => match a.u32(1) {
                Some(dreg) => Self::Meta { key: a.u32(2)?, dreg },
                None => Self::MetaSet { key: a.u32(2)?, sreg: a.u32(3)? },
            },
            "ct" => match a.u32(1) {
                Some(dreg) => Self::Ct { key: a.u32(2)?, dreg, direction: a.u8(3) },
                None => Self::CtSet { key: a.u32(2)?, sreg: a.u32(4)?, direction: a.u8(3) },
            },
            "immediate" => Self::Immediate { dreg: a.u32(1)?, data: Data::read(a.nested(2)?)? },
            "counter" => Self::Counter { bytes: a.u64(1)?, packets: a.u64(2)? },
            "reject" => Self::Reject { kind: a.u32(1)?, code: a.u8(2).unwrap_or(0) },
            "nat" => Self::Nat(Nat {
                kind: a.u32(1)?,
                family: a.u32(2)?,
                address: (a.u32(3), a.u32(4)),
                port: (a.u32(5), a.u32(6)),
                flags: a.u32(7).unwrap_or(0),
            }),
            "masq" => Self::Masq(Nat { flags: a.u32(1).unwrap_or(0), port: (a.u32(2), a.u32(3)), ..Nat::default() }),
            "redir" => Self::Redir(Nat { port: (a.u32(1), a.u32(2)), flags: a.u32(3).unwrap_or(0), ..Nat::default() }),
            "limit" => Self::Limit {
                rate: a.u64(1)?,
                unit: a.u64(2)?,
                burst: a.u32(3).unwrap_or(0),
                bytes: a.u32(4).unwrap_or(0) == 1,
                invert: a.u32(5).unwrap_or(0) & 1 != 0,
            },
            "log" => Self::Log {
                group: a.u16(1),
                prefix: a.string(2),
                snaplen: a.u32(3),
                qthreshold: a.u16(4),
                level: a.u32(5),
                flags: a.u32(6).unwrap_or(0),
            },
            "queue" => Self::Queue {
                num: a.u16(1),
                total: a.u16(2).unwrap_or(1),
                flags: a.u16(3).unwrap_or(0),
                sreg: a.u32(4),
            },
            "exthdr" => Self::Exthdr {
                dreg: a.u32(1)?,
                kind: a.u8(2)?,
                offset: a.u32(3)?,
                len: a.u32(4)?,
                present: a.u32(5).unwrap_or(0) & 1 != 0,
                op: a.u32(6).unwrap_or(0),
            },
            "fib" => Self::Fib { dreg: a.u32(1)?, result: a.u32(2)?, flags: a.u32(3)? },
            "rt" => Self::Rt { dreg: a.u32(1)?, key: a.u32(2)? },
            "socket" => Self::Socket { key: a.u32(1)?, dreg: a.u32(2)?, level: a.u32(3).unwrap_or(0) },
            "numgen" => Self::Numgen {
                dreg: a.u32(1)?,
                modulus: a.u32(2)?,
                random: a.u32(3)? == 1,
                offset: a.u32(4).unwrap_or(0),
            },
            "quota" => {
                Self::Quota { bytes: a.u64(1)?, over: a.u32(2).unwrap_or(0) & 1 != 0, used: a.u64(4).unwrap_or(0) }
            }
            "connlimit" => Self::Connlimit { count: a.u32(1)?, over: a.u32(2).unwrap_or(0) & 1 != 0 },
            "objref" => Self::Objref { kind: a.u32(1)?, name: a.string(2)? },
            "notrack" => Self::Notrack,
            "dynset" => Self::Dynset {
                set: a.string(1)?,
                op: a.u32(3)?,
                sreg: a.u32(4)?,
                data: a.u32(5),
                timeout: a.u64(6),
                exprs: match (a.nested(7), a.nested(10)) {
                    (Some(one), _) => vec![Self::read(one)],
                    (None, Some(many)) => Self::read_list(many),
                    (None, None) => Vec::new(),
                },
            },
            "match" => Self::Match { name: a.string(1)?, rev: a.u32(2)?, info: a.get(3)?.to_vec() },
            "target" => Self::Target { name: a.string(1)?, rev: a.u32(2)?, info: a.get(3)?.to_vec() },
            _ => return None,
        })
    }

    /// Its name in the kernel.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Payload { .. } | Self::PayloadSet { .. } => "payload",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Byteorder { .. } => "byteorder",
            Self::Range { .. } => "range",
            Self::Lookup { .. } => "lookup",
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Ct { .. } | Self::CtSet { .. } => "ct",
            Self::Immediate { .. } => "immediate",
            Self::Counter { .. } => "counter",
            Self::Reject { .. } => "reject",
            Self::Nat(_) => "nat",
            Self::Masq(_) => "masq",
            Self::Redir(_) => "redir",
            Self::Limit { .. } => "limit",
            Self::Log { .. } => "log",
            Self::Queue { .. } => "queue",
            Self::Exthdr { .. } => "exthdr",
            Self::Fib { .. } => "fib",
            Self::Rt { .. } => "rt",
            Self::Socket { .. } => "socket",
            Self::Numgen { .. } => "numgen",
            Self::Quota { .. } => "quota",
            Self::Connlimit { .. } => "connlimit",
            Self::Objref { .. } => "objref",
            Self::Notrack => "notrack",
            Self::Dynset { .. } => "dynset",
            Self::Match { .. } => "match",
            Self::Target { .. } => "target",
            Self::Unknown { name, .. } => name,
        }
    }

    /// A list of `NFTA_LIST_ELEM`, ready for `NFTA_RULE_EXPRESSIONS`; `None` if one of them is of a
    /// kind that this program only reads.
    pub(crate) fn write_list(exprs: &[Self]) -> Option<Attrs> {
        exprs.iter().try_fold(Attrs::new(), |list, expr| {
            let body = Attrs::new().string(1, expr.name()).nest(2, &expr.write()?);
            Some(list.nest(1, &body))
        })
    }

    fn write(&self) -> Option<Attrs> {
        let a = Attrs::new();
        Some(match self {
            Self::Payload { dreg, base, offset, len } => {
                a.u32(1, *dreg).u32(2, *base as u32).u32(3, *offset).u32(4, *len)
            }
            Self::Cmp { sreg, op, data } => {
                a.u32(1, *sreg).u32(2, *op as u32).nest(3, &Attrs::new().bytes_attr(1, data))
            }
            Self::Bitwise { sreg, dreg, len, op: 0, mask, xor, .. } => a
                .u32(1, *sreg)
                .u32(2, *dreg)
                .u32(3, *len)
                .nest(4, &Attrs::new().bytes_attr(1, mask))
                .nest(5, &Attrs::new().bytes_attr(1, xor)),
            Self::Range { sreg, neq, from, to } => a
                .u32(1, *sreg)
                .u32(2, u32::from(*neq))
                .nest(3, &Attrs::new().bytes_attr(1, from))
                .nest(4, &Attrs::new().bytes_attr(1, to)),
            Self::Lookup { sreg, set, set_id, dreg: None, invert } => {
                let a = a.string(1, set).u32(2, *sreg);
                let a = set_id.iter().fold(a, |a, id| a.u32(4, *id));
                if *invert { a.u32(5, 1) } else { a }
            }
            Self::Meta { key, dreg } => a.u32(1, *dreg).u32(2, *key),
            Self::MetaSet { key, sreg } => a.u32(2, *key).u32(3, *sreg),
            Self::Ct { key, dreg, direction } => {
                let a = a.u32(1, *dreg).u32(2, *key);
                direction.iter().fold(a, |a, direction| a.u8(3, *direction))
            }
            Self::Immediate { dreg, data } => a.u32(1, *dreg).nest(2, &data.write()),
            Self::Counter { packets, bytes } => a.u64(1, *bytes).u64(2, *packets),
            Self::Reject { kind, code } => a.u32(1, *kind).u8(2, *code),
            Self::Nat(nat) => nat_registers(a.u32(1, nat.kind).u32(2, nat.family), nat, 5, Some(3), 7),
            Self::Masq(nat) => nat_registers(a, nat, 2, None, 1),
            Self::Redir(nat) => nat_registers(a, nat, 1, None, 3),
            Self::Limit { rate, unit, burst, bytes, invert } => {
                a.u64(1, *rate).u64(2, *unit).u32(3, *burst).u32(4, u32::from(*bytes)).u32(5, u32::from(*invert))
            }
            Self::Log { group, prefix, snaplen, qthreshold, level, flags } => {
                let a = group.iter().fold(a, |a, group| a.u16(1, *group));
                let a = prefix.iter().fold(a, |a, prefix| a.string(2, prefix));
                let a = snaplen.iter().fold(a, |a, snaplen| a.u32(3, *snaplen));
                let a = qthreshold.iter().fold(a, |a, threshold| a.u16(4, *threshold));
                let a = level.iter().fold(a, |a, level| a.u32(5, *level));
                if *flags == 0 { a } else { a.u32(6, *flags) }
            }
            Self::Exthdr { dreg, kind, offset, len, op, present } => {
                a.u32(1, *dreg).u8(2, *kind).u32(3, *offset).u32(4, *len).u32(5, u32::from(*present)).u32(6, *op)
            }
            Self::Notrack => a,
            Self::Fib { dreg, result, flags } => a.u32(1, *dreg).u32(2, *result).u32(3, *flags),
            Self::Match { name, rev, info } | Self::Target { name, rev, info } => {
                a.string(1, name).u32(2, *rev).bytes_attr(3, info)
            }
            _ => return None,
        })
    }

    /// Decides: `NF_*` or `NFT_RETURN`, or to a chain.
    pub(crate) fn decide(code: i32, chain: Option<&str>) -> Self {
        Self::Immediate { dreg: 0, data: Data::Verdict(Verdict { code, chain: chain.map(str::to_owned) }) }
    }
}

fn nat_registers(a: Attrs, nat: &Nat, port: u16, address: Option<u16>, flags: u16) -> Attrs {
    let mut pairs = vec![(port, nat.port.0), (port + 1, nat.port.1)];
    if let Some(kind) = address {
        pairs.extend([(kind, nat.address.0), (kind + 1, nat.address.1)]);
    }
    let a = pairs.into_iter().fold(a, |a, (kind, register)| match register {
        Some(register) => a.u32(kind, register),
        None => a,
    });
    if nat.flags == 0 { a } else { a.u32(flags, nat.flags) }
}

/// The comment in a rule's or element's user data: type 0 of libnftnl's type-length-value list.
pub(crate) fn userdata_comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let Some(([kind, length], tail)) = rest.split_first_chunk::<2>() {
        let value = tail.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        rest = &tail[usize::from(*length)..];
    }
    None
}

/// A comment as user data; cut at what its length byte can say.
pub(crate) fn comment_userdata(comment: &str) -> Vec<u8> {
    let mut end = comment.len().min(250);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = vec![0, u8::try_from(end + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&comment.as_bytes()[..end]);
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_expressions_read_back() {
        let all = vec![
            Expr::Payload { dreg: 1, base: Base::Transport, offset: 2, len: 2 },
            Expr::Cmp { sreg: 1, op: Op::Neq, data: vec![0, 80] },
            Expr::Bitwise { sreg: 1, dreg: 1, len: 1, op: 0, mask: vec![0x17], xor: vec![0], shift: 0 },
            Expr::Range { sreg: 1, neq: true, from: vec![0, 1], to: vec![0, 9] },
            Expr::Lookup { sreg: 1, set: "__set%d".to_owned(), set_id: Some(3), dreg: None, invert: true },
            Expr::Meta { key: 16, dreg: 1 },
            Expr::Ct { key: 0, dreg: 1, direction: None },
            Expr::Counter { packets: 1, bytes: 60 },
            Expr::Limit { rate: 5, unit: 60, burst: 5, bytes: false, invert: false },
            Expr::Reject { kind: 1, code: 0 },
            Expr::Nat(Nat { kind: 1, family: 2, address: (Some(1), Some(1)), port: (Some(2), None), flags: 2 }),
            Expr::Masq(Nat { flags: 4, ..Nat::default() }),
            Expr::Redir(Nat { port: (Some(1), Some(2)), ..Nat::default() }),
            Expr::Match { name: "comment".to_owned(), rev: 0, info: vec![1; 256] },
            Expr::decide(JUMP, Some("x")),
            Expr::decide(DROP, None),
        ];
        let list = Expr::write_list(&all).unwrap();
        assert_eq!(Expr::read_list(View::new(list.bytes())), all);
    }

    #[test]
    fn an_unknown_expression_is_kept() {
        let body = Attrs::new().string(1, "newthing").nest(2, &Attrs::new().u32(1, 5));
        let list = Attrs::new().nest(1, &body);
        let read = Expr::read_list(View::new(list.bytes()));
        assert!(matches!(&read[..], [Expr::Unknown { name, data }] if name == "newthing" && data.len() == 8));
    }

    #[test]
    fn comments_go_through_user_data() {
        assert_eq!(userdata_comment(&comment_userdata("hello")).as_deref(), Some("hello"));
        let long = "é".repeat(300);
        assert!(long.starts_with(&userdata_comment(&comment_userdata(&long)).unwrap()));
    }

    proptest::proptest! {
        #[test]
        fn reading_never_panics(name in "[a-z]{2,9}", bytes: Vec<u8>) {
            let _ = Expr::read_named(&name, View::new(&bytes));
            let _ = Expr::read_list(View::new(&bytes));
            let _ = userdata_comment(&bytes);
        }

        #[test]
        fn known_names_never_panic(which in 0usize..28, bytes: Vec<u8>) {
            let names = ["payload", "cmp", "bitwise", "byteorder", "range", "lookup", "meta", "ct", "immediate", "counter",
                "reject", "nat", "masq", "redir", "limit", "log", "queue", "exthdr", "fib", "rt", "socket", "numgen",
                "quota", "connlimit", "objref", "dynset", "match", "target"];
            let _ = Expr::read_named(names[which], View::new(&bytes));
        }
    }
}
