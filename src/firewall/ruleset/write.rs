//! Writing a ruleset back, in the syntax of iptables-save.

use std::fmt;
use std::net::IpAddr;

use crate::firewall::names;

use super::compare::CompareOp;
use super::{
    Chain, Comparison, ConnmarkOp, CtTest, Match, NatRange, Operand, Order, OwnerTest, PortRange, RejectWith, Rule,
    Ruleset, Side, Table, Target, Test, TtlOp, VerdictMap,
};

/// A word as iptables-save quotes it: bare where it is plain, else in `"` with `"`, `\` and `'` escaped.
pub(crate) fn quote(word: &str) -> String {
    // Wider than iptables-save's own list of bare characters, and still read back the same.
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/,+@%=!*#&?<>[](){}|~^$;".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut out = String::with_capacity(word.len() + 2);
    out.push('"');
    for c in word.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| write!(f, "{table}"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "*{}", self.name)?;
        for chain in &self.chains {
            writeln!(f, "{}", Declaration(chain))?;
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                if let Some(c) = rule.counters {
                    write!(f, "[{}:{}] ", c.packets, c.bytes)?;
                }
                writeln!(f, "-A {}{}{rule}", quote(&chain.name), if rule.is_bare() { "" } else { " " })?;
            }
        }
        writeln!(f, "COMMIT")
    }
}

/// `:INPUT DROP [0:0]`
struct Declaration<'a>(&'a Chain);

impl fmt::Display for Declaration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match &self.0.base {
            None => "-",
            Some(base) if base.policy == super::Policy::Accept => "ACCEPT",
            Some(_) => "DROP",
        };
        match &self.0.base {
            // iptables-restore reads a built-in chain without counters, and leaves them as they are.
            Some(base) if base.counters.is_none() => write!(f, ":{} {policy}", self.0.name),
            base => {
                let counters = base.as_ref().and_then(|base| base.counters).unwrap_or_default();
                write!(f, ":{} {policy} [{}:{}]", self.0.name, counters.packets, counters.bytes)
            }
        }
    }
}

impl Rule {
    /// Whether there is nothing to print after `-A CHAIN`.
    fn is_bare(&self) -> bool {
        self.matches.is_empty() && self.statements.is_empty() && self.target.is_none()
    }
}

/// The rule's specification: what stands after `-A CHAIN`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        let mut module: Option<&str> = None;
        let mut before: Option<&Match> = None;
        for m in &self.matches {
            let own = m.test.module();
            if let Some(name) = own {
                // One `-m` serves the options that follow, for the modules that take several.
                let shared = module == Some(name) && before.is_some_and(|before| m.test.shares_module(&before.test));
                if !shared {
                    parts.push(format!("-m {name}"));
                }
            }
            module = own;
            before = Some(m);
            let text = m.to_string();
            if !text.is_empty() {
                parts.push(text);
            }
        }
        parts.extend(self.statements.iter().chain(&self.target).map(ToString::to_string));
        f.write_str(&parts.join(" "))
    }
}

/// The match's options, without its `-m`.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.negated { "! " } else { "" };
        let way = |side: &Side, src: &'static str, dst: &'static str, either: &'static str| match side {
            Side::Source => src,
            Side::Destination => dst,
            Side::Either => either,
        };
        match &self.test {
            Test::Source(net) => write!(f, "{not}-s {net}"),
            Test::Destination(net) => write!(f, "{not}-d {net}"),
            Test::InInterface(iface) => write!(f, "{not}-i {}", quote(&iface.to_string())),
            Test::OutInterface(iface) => write!(f, "{not}-o {}", quote(&iface.to_string())),
            Test::Protocol(number) => write!(f, "{not}-p {}", names::portable_protocol(*number)),
            Test::Fragment => write!(f, "{not}-f"),
            Test::Header(_) => Ok(()),
            Test::Port { side, range, .. } => {
                write!(f, "{not}{} {range}", way(side, "--sport", "--dport", "--port"))
            }
            Test::TcpFlags { mask, set } => write!(f, "{not}--tcp-flags {} {}", mask.names(), set.names()),
            Test::TcpOption(option) => write!(f, "{not}--tcp-option {option}"),
            Test::Icmp { v6, kind, codes } => {
                let name = if *v6 { "--icmpv6-type" } else { "--icmp-type" };
                match kind {
                    None => write!(f, "{not}{name} any"),
                    Some(kind) if *codes == (0, 255) => write!(f, "{not}{name} {kind}"),
                    Some(kind) => write!(f, "{not}{name} {kind}/{}", codes.0),
                }
            }
            Test::Multiport { side, ranges } => {
                let list: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                write!(f, "{not}{} {}", way(side, "--sports", "--dports", "--ports"), list.join(","))
            }
            Test::Conntrack { module, tests } => {
                let list: Vec<_> = tests.iter().map(|(negated, test)| conntrack(*module, *negated, test)).collect();
                f.write_str(&list.join(" "))
            }
            Test::Mark { value, mask } | Test::Connmark { value, mask } => {
                write!(f, "{not}--mark {value:#x}")?;
                if *mask == u32::MAX { Ok(()) } else { write!(f, "/{mask:#x}") }
            }
            Test::Comment(text) => write!(f, "--comment {}", quote(text)),
            Test::IpRange { side, from, to } => {
                write!(f, "{not}{} {from}-{to}", way(side, "--src-range", "--dst-range", "--range"))
            }
            Test::Mac(mac) => write!(f, "{not}--mac-source {mac}"),
            Test::AddrType { side, types, limit_iface } => {
                write!(f, "{not}{} {}", way(side, "--src-type", "--dst-type", "--type"), types.names())?;
                match limit_iface {
                    None => Ok(()),
                    Some(side) => write!(f, " {}", way(side, "--limit-iface-in", "--limit-iface-out", "")),
                }
            }
            Test::Owner(owner) => {
                let range = |from: &u32, to: &u32| if from == to { from.to_string() } else { format!("{from}-{to}") };
                match owner {
                    OwnerTest::Uid(from, to) => write!(f, "{not}--uid-owner {}", range(from, to)),
                    OwnerTest::Gid(from, to) => write!(f, "{not}--gid-owner {}", range(from, to)),
                    OwnerTest::SocketExists => write!(f, "{not}--socket-exists"),
                }
            }
            Test::Length { from, to } => write!(f, "{not}--length {}", PortRange { from: *from, to: *to }),
            Test::Ttl { v6, order, value } => {
                let name = if *v6 { "hl" } else { "ttl" };
                let order = match order {
                    Order::Eq => "eq",
                    Order::Lt => "lt",
                    Order::Gt => "gt",
                };
                write!(f, "{not}--{name}-{order} {value}")
            }
            Test::Tos { value, mask } => write!(f, "{not}--tos {value:#04x}/{mask:#04x}"),
            Test::Dscp(value) => write!(f, "{not}--dscp {value:#04x}"),
            Test::PktType(kind) => write!(f, "{not}--pkt-type {}", kind.name()),
            Test::Set { name, sides, options } => {
                let sides: Vec<_> = sides.iter().map(|side| way(side, "src", "dst", "src")).collect();
                write!(f, "{not}--match-set {} {}", quote(name), sides.join(","))?;
                if options.is_empty() { Ok(()) } else { write!(f, " {options}") }
            }
            Test::Stateful { options, .. } | Test::Unknown { options, .. } => write!(f, "{not}{options}"),
            Test::Ext(ext) => write!(f, "{not}{ext}"),
            Test::Compare(comparison) => comparison.write(f, self.negated),
        }
    }
}

fn conntrack(module: super::CtModule, negated: bool, test: &CtTest) -> String {
    let not = if negated { "! " } else { "" };
    let dir = |reply: &bool| if *reply { "repl" } else { "orig" };
    let end = |side: &Side| if *side == Side::Source { "src" } else { "dst" };
    match test {
        CtTest::State(states) => {
            let option = if module == super::CtModule::State { "--state" } else { "--ctstate" };
            format!("{not}{option} {}", states.names())
        }
        CtTest::Status(statuses) => format!("{not}--ctstatus {}", statuses.names()),
        CtTest::Proto(number) => format!("{not}--ctproto {number}"),
        CtTest::Addr { reply, side, net } => format!("{not}--ct{}{} {net}", dir(reply), end(side)),
        CtTest::Port { reply, side, range } => format!("{not}--ct{}{}port {range}", dir(reply), end(side)),
        CtTest::Direction(reply) => format!("{not}--ctdir {}", if *reply { "REPLY" } else { "ORIGINAL" }),
        CtTest::Expire(range) => format!("{not}--ctexpire {range}"),
    }
}

/// `-j TARGET options`
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |f: &mut fmt::Formatter<'_>, name: &str, options: &str| {
            write!(f, "-j {}{}{options}", quote(name), if options.is_empty() { "" } else { " " })
        };
        match self {
            Self::Accept => f.write_str("-j ACCEPT"),
            Self::Drop => f.write_str("-j DROP"),
            Self::Return => f.write_str("-j RETURN"),
            Self::Reject(with) => write!(f, "-j REJECT --reject-with {}", with.name()),
            Self::Jump(chain) => write!(f, "-j {}", quote(chain)),
            Self::Goto(chain) => write!(f, "-g {}", quote(chain)),
            Self::Queue { options, .. } if options == "QUEUE" => f.write_str("-j QUEUE"),
            Self::Queue { options, .. } => plain(f, "NFQUEUE", options),
            Self::Log { options } => plain(f, "LOG", options),
            Self::Nflog { options } => plain(f, "NFLOG", options),
            Self::Mark { value, mask } => write!(f, "-j MARK --set-xmark {value:#x}/{mask:#x}"),
            Self::Connmark(op) => match op {
                ConnmarkOp::Set { value, mask } => write!(f, "-j CONNMARK --set-xmark {value:#x}/{mask:#x}"),
                ConnmarkOp::Save { nfmask, ctmask } => {
                    write!(f, "-j CONNMARK --save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
                }
                ConnmarkOp::Restore { nfmask, ctmask } => {
                    write!(f, "-j CONNMARK --restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
                }
            },
            Self::Notrack => f.write_str("-j CT --notrack"),
            Self::Ct { options } => plain(f, "CT", options),
            Self::Dnat(range) => write!(f, "-j DNAT{}", nat(range, "--to-destination")),
            Self::Snat(range) => write!(f, "-j SNAT{}", nat(range, "--to-source")),
            Self::Masquerade(range) => write!(f, "-j MASQUERADE{}", nat(range, "--to-ports")),
            Self::Redirect(range) => write!(f, "-j REDIRECT{}", nat(range, "--to-ports")),
            Self::Netmap(net) => write!(f, "-j NETMAP --to {net}"),
            Self::Tcpmss(None) => f.write_str("-j TCPMSS --clamp-mss-to-pmtu"),
            Self::Tcpmss(Some(mss)) => write!(f, "-j TCPMSS --set-mss {mss}"),
            Self::Ttl { v6, op, value } => {
                let (target, option) = if *v6 { ("HL", "hl") } else { ("TTL", "ttl") };
                let op = match op {
                    TtlOp::Set => "set",
                    TtlOp::Inc => "inc",
                    TtlOp::Dec => "dec",
                };
                write!(f, "-j {target} --{option}-{op} {value}")
            }
            Self::Tos { value, dscp: true, .. } => write!(f, "-j DSCP --set-dscp {:#04x}", value >> 2),
            Self::Tos { value, mask, dscp: false } => write!(f, "-j TOS --set-tos {value:#04x}/{mask:#04x}"),
            Self::Continue { name, options } | Self::Unknown { name, options } => plain(f, name, options),
            Self::Ext(ext) => write!(f, "-j {ext}"),
            Self::VerdictMap(map) => map.write(f),
        }
    }
}

fn nat(range: &NatRange, option: &str) -> String {
    let mut out = String::new();
    if range.addrs.is_some() || range.ports.is_some() {
        out = format!(" {option} ");
        if let Some((from, to)) = range.addrs {
            let brackets = range.ports.is_some() && matches!(from, IpAddr::V6(_));
            let list = if from == to { from.to_string() } else { format!("{from}-{to}") };
            let (open, close) = if brackets { ("[", "]") } else { ("", "") };
            out.extend([open, &list, close]);
        }
        if let Some(ports) = range.ports {
            if range.addrs.is_some() || !option.ends_with("ports") {
                out.push(':');
            }
            out += &ports.to_string().replace(':', "-");
            if let Some(base) = range.base {
                out.push('/');
                out += &base.to_string();
            }
        }
    }
    if !range.flags.is_empty() {
        out.push(' ');
        out += &range.flags;
    }
    out
}

impl Comparison {
    /// Writes the comparison in nft's words; iptables has none for it.
    fn write(&self, f: &mut fmt::Formatter<'_>, negated: bool) -> fmt::Result {
        let fields: Vec<_> = self.fields.iter().map(super::Field::name).collect();
        f.write_str(&fields.join(" . "))?;
        if let Some(mask) = self.mask {
            write!(f, " & {mask:#x}")?;
        }
        let op = match (self.op, negated) {
            (CompareOp::Eq | CompareOp::Flags, false) => " ",
            (CompareOp::Eq, true) => " != ",
            (CompareOp::Flags, true) => " ! ",
            (CompareOp::Lt, false) | (CompareOp::Ge, true) => " < ",
            (CompareOp::Gt, false) | (CompareOp::Le, true) => " > ",
            (CompareOp::Le, false) | (CompareOp::Gt, true) => " <= ",
            (CompareOp::Ge, false) | (CompareOp::Lt, true) => " >= ",
        };
        f.write_str(op)?;
        let list: Vec<_> = self.operands.iter().map(|key| join_key(key)).collect();
        match list.as_slice() {
            [one] => f.write_str(one),
            many => write!(f, "{{ {} }}", many.join(", ")),
        }
    }
}

impl VerdictMap {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.key.iter().map(super::Field::name).collect();
        write!(f, "{} vmap ", fields.join(" . "))?;
        if let Some(name) = &self.name {
            return write!(f, "@{name}");
        }
        let list: Vec<_> =
            self.elements.iter().map(|(key, verdict)| format!("{} : {}", join_key(key), verdict.nft_word())).collect();
        write!(f, "{{ {} }}", list.join(", "))
    }
}

impl Target {
    /// A verdict in nft's words.
    pub fn nft_word(&self) -> String {
        match self {
            Self::Accept => "accept".to_owned(),
            Self::Drop => "drop".to_owned(),
            Self::Return => "return".to_owned(),
            Self::Jump(chain) => format!("jump {chain}"),
            Self::Goto(chain) => format!("goto {chain}"),
            Self::Queue { number, .. } => format!("queue to {number}"),
            Self::Reject(RejectWith::TcpReset) => "reject with tcp reset".to_owned(),
            Self::Reject(_) => "reject".to_owned(),
            other => other.to_string(),
        }
    }
}

fn join_key(key: &[Operand]) -> String {
    let parts: Vec<_> = key.iter().map(ToString::to_string).collect();
    parts.join(" . ")
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::NumberRange(from, to) => write!(f, "{from}-{to}"),
            Self::AddrRange(from, to) if from == to => write!(f, "{from}"),
            Self::AddrRange(from, to) => write!(f, "{from}-{to}"),
            Self::AddrMasked(net) => write!(f, "& {} == {}", net.mask, net.addr),
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Set(name) => write!(f, "@{name}"),
            Self::Any => f.write_str("*"),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}
