//! iptables-nft's tables, out of nf_tables' expressions and back into iptables-save text.
//!
//! A table that holds what iptables cannot say is left to the native form as a whole: half a
//! ruleset would be a wrong one.

use std::collections::BTreeMap;

use super::expr::{ACCEPT, Base, CONTINUE, DROP, Data, Expr, GOTO, JUMP, Nat, Op, RETURN, Verdict};
use super::objects::{Chain, DORMANT, Rule, Ruleset, Table, family};
use super::save::{SaveChain, SaveRule, SaveTable, builtin_chains};
use super::xt::{self, Context, NatRange, masked, not, word};

mod loaded;

pub(crate) use loaded::Loaded;

/// Whether the table has iptables' name and chains, each on its own hook.
pub(crate) fn is_shaped(ruleset: &Ruleset, table: &Table) -> bool {
    let builtin = builtin_chains(&table.name);
    matches!(table.family, family::IPV4 | family::IPV6)
        && table.flags & DORMANT == 0
        && !builtin.is_empty()
        && ruleset.chains_of(table).all(|chain| match &chain.hook {
            None => !builtin.iter().any(|(name, ..)| *name == chain.name),
            Some(hook) => builtin.iter().any(|(name, number, priority, kind)| {
                *name == chain.name
                    && hook.number == *number
                    && hook.priority == *priority
                    && chain.kind.as_deref() == Some(kind)
            }),
        })
        && !ruleset.objects.iter().any(|object| object.family == table.family && object.table == table.name)
}

/// The table as iptables has it; `None` where it cannot be said.
pub(crate) fn table(ruleset: &Ruleset, table: &Table, set_name: &dyn Fn(u16) -> Option<String>) -> Option<SaveTable> {
    if !is_shaped(ruleset, table) {
        return None;
    }
    let order = |chain: &&Chain| {
        let builtin = builtin_chains(&table.name);
        builtin.iter().position(|(name, ..)| *name == chain.name).unwrap_or(builtin.len())
    };
    let mut chains: Vec<_> = ruleset.chains_of(table).collect();
    chains.sort_by_key(order);
    let mut out = SaveTable { name: table.name.clone(), chains: Vec::new() };
    for chain in chains {
        let rules: Option<Vec<_>> =
            ruleset.rules_of(chain).map(|rule| Decoder::new(ruleset, rule, set_name).rule()).collect();
        out.chains.push(SaveChain {
            name: chain.name.clone(),
            policy: chain.hook.as_ref().map(|_| if chain.policy == Some(0) { "DROP" } else { "ACCEPT" }),
            counters: chain.counters.unwrap_or((0, 0)),
            rules: rules?,
        });
    }
    Some(out)
}

/// One rule on its way: registers, and what has been understood.
struct Decoder<'a> {
    ruleset: &'a Ruleset,
    rule: &'a Rule,
    set_name: &'a dyn Fn(u16) -> Option<String>,
    registers: BTreeMap<u32, Loaded>,
    out: SaveRule,
    /// Which of `out.matches` is the transport's own (`-m tcp`), where there is one, and its options.
    transport: Option<(usize, Vec<String>)>,
    /// The lower end of a range whose upper end is still to come.
    lower: Option<(Loaded, Vec<u8>)>,
}

impl<'a> Decoder<'a> {
    fn new(ruleset: &'a Ruleset, rule: &'a Rule, set_name: &'a dyn Fn(u16) -> Option<String>) -> Self {
        Self {
            ruleset,
            rule,
            set_name,
            registers: BTreeMap::new(),
            out: SaveRule::default(),
            transport: None,
            lower: None,
        }
    }

    fn v6(&self) -> bool {
        self.rule.family == family::IPV6
    }

    fn rule(mut self) -> Option<SaveRule> {
        for expr in &self.rule.exprs {
            // iptables has one target, and it comes last (a counter may stand anywhere).
            if self.out.target.is_some() && !matches!(expr, Expr::Counter { .. }) {
                return None;
            }
            self.expr(expr)?;
        }
        if self.lower.is_some() {
            return None;
        }
        if let Some((index, mut options)) = self.transport.take() {
            // iptables-save prints a module's options in an order of its own.
            let rank = |option: &String| ["--sport", "--dport", "--tcp-flags"].iter().position(|o| option.contains(o));
            options.sort_by_key(rank);
            if let Some(text) = self.out.matches.get_mut(index) {
                text.push(' ');
                text.push_str(&options.join(" "));
            }
        }
        if let Some(comment) = &self.rule.comment {
            self.out.matches.push(format!("-m comment --comment {}", xt::quote(comment)));
        }
        Some(self.out)
    }

    fn expr(&mut self, expr: &Expr) -> Option<()> {
        let context = Context { v6: self.v6(), set_name: self.set_name };
        match expr {
            Expr::Payload { dreg, base, offset, len } => {
                self.load(*dreg, Loaded::Payload { base: *base, offset: *offset, len: *len, mask: None });
            }
            Expr::Meta { key, dreg } => self.load(*dreg, Loaded::Meta { key: *key, mask: None, xor: None }),
            Expr::Ct { key: 0, dreg, direction: None } => self.load(*dreg, Loaded::CtState { mask: None }),
            Expr::Immediate { dreg: 0, data: Data::Verdict(verdict) } => self.verdict(verdict)?,
            Expr::Immediate { dreg, data: Data::Value(value) } => self.load(*dreg, Loaded::Value(value.clone())),
            Expr::Bitwise { sreg, dreg, op: 0, mask, xor, .. } => {
                let loaded = self.loaded(*sreg)?.masked(mask, xor)?;
                self.load(*dreg, loaded);
            }
            Expr::Cmp { sreg, op, data } => {
                let loaded = self.loaded(*sreg)?.clone();
                match op {
                    Op::Eq => self.test(&loaded, false, data)?,
                    Op::Neq => self.test(&loaded, true, data)?,
                    Op::Gte if self.lower.is_none() => self.lower = Some((loaded, data.clone())),
                    Op::Lte => {
                        let (other, from) = self.lower.take()?;
                        if other != loaded {
                            return None;
                        }
                        self.port_range(&loaded, false, &from, data)?;
                    }
                    _ => return None,
                }
            }
            Expr::Range { sreg, neq, from, to } => {
                let loaded = self.loaded(*sreg)?.clone();
                self.port_range(&loaded, *neq, from, to)?;
            }
            Expr::Lookup { sreg, set, dreg: None, invert, .. } => {
                let loaded = self.loaded(*sreg)?.clone();
                self.lookup(&loaded, set, *invert)?;
            }
            Expr::Limit { rate, unit, burst, bytes: false, invert: false } => {
                let period = u32::try_from(unit.checked_mul(10_000)?.checked_div(*rate)?).ok()?;
                let burst = if *burst == 5 { String::new() } else { format!(" --limit-burst {burst}") };
                self.out.matches.push(format!("-m limit --limit {}{burst}", xt::rate(period)?));
            }
            Expr::Match { name, rev, info } => self.out.matches.push(xt::match_text(name, *rev, info, &context)),
            Expr::Target { name, rev, info } => {
                self.out.target = Some(xt::target_text(name, *rev, info, &context));
            }
            Expr::Counter { packets, bytes } => self.out.counters = (*packets, *bytes),
            _ => self.statement(expr)?,
        }
        Some(())
    }

    /// Native expressions that do what an iptables target does.
    fn statement(&mut self, expr: &Expr) -> Option<()> {
        let target = match expr {
            Expr::Log { group: None, prefix, level, flags, .. } => {
                let options = xt::log_options(prefix.as_deref().unwrap_or(""), level.unwrap_or(4), *flags);
                joined("LOG", &options)
            }
            Expr::Log { group: Some(group), prefix, snaplen, qthreshold, .. } => {
                let threshold = qthreshold.unwrap_or(0);
                joined("NFLOG", &xt::nflog_options(prefix.as_deref().unwrap_or(""), *group, *snaplen, threshold))
            }
            Expr::Reject { kind, code } => format!("-j REJECT --reject-with {}", reject_name(*kind, *code, self.v6())?),
            Expr::Nat(nat) => {
                let (name, option) = if nat.kind == 1 { ("DNAT", "--to-destination") } else { ("SNAT", "--to-source") };
                joined(name, &self.nat(nat)?.options(option))
            }
            Expr::Masq(nat) => joined("MASQUERADE", &self.nat(nat)?.options("--to-ports")),
            Expr::Redir(nat) => joined("REDIRECT", &self.nat(nat)?.options("--to-ports")),
            Expr::Notrack => "-j CT --notrack".to_owned(),
            Expr::MetaSet { key: 3, sreg } => match self.loaded(*sreg)? {
                Loaded::Value(value) => format!("-j MARK --set-xmark {:#x}/0xffffffff", ne32(value)?),
                Loaded::Meta { key: 3, mask: Some(mask), xor } => {
                    let xor = xor.as_deref().map_or(Some(0), ne32)?;
                    format!("-j MARK --set-xmark {xor:#x}/{:#x}", !ne32(mask)?)
                }
                _ => return None,
            },
            Expr::Queue { num: Some(num), total, flags, sreg: None } => {
                let last = num.saturating_add(total.saturating_sub(1));
                let mut options =
                    if *total > 1 { format!("--queue-balance {num}:{last}") } else { format!("--queue-num {num}") };
                for (bit, option) in [(1, " --queue-bypass"), (2, " --queue-cpu-fanout")] {
                    if flags & bit != 0 {
                        options += option;
                    }
                }
                joined("NFQUEUE", &options)
            }
            _ => return None,
        };
        self.out.target = Some(target);
        Some(())
    }

    fn load(&mut self, register: u32, loaded: Loaded) {
        self.registers.insert(slot(register), loaded);
    }

    fn loaded(&self, register: u32) -> Option<&Loaded> {
        self.registers.get(&slot(register))
    }

    fn verdict(&mut self, verdict: &Verdict) -> Option<()> {
        self.out.target = Some(match (verdict.code, &verdict.chain) {
            (ACCEPT, _) => "-j ACCEPT".to_owned(),
            (DROP, _) => "-j DROP".to_owned(),
            (RETURN, _) => "-j RETURN".to_owned(),
            (JUMP, Some(chain)) => format!("-j {}", word(chain)),
            (GOTO, Some(chain)) => format!("-g {}", word(chain)),
            (CONTINUE, _) => return Some(()),
            _ => return None,
        });
        Some(())
    }

    fn nat(&self, nat: &Nat) -> Option<NatRange> {
        let value = |register: Option<u32>| match register.map(|register| self.loaded(register)) {
            None => Some(None),
            Some(Some(Loaded::Value(value))) => Some(Some(value.clone())),
            Some(_) => None,
        };
        let (first, last) = (value(nat.address.0)?, value(nat.address.1)?);
        let address = match first {
            None => None,
            Some(first) => {
                let last = last.unwrap_or_else(|| first.clone());
                Some((loaded::address(&first)?, loaded::address(&last)?))
            }
        };
        let (first, last) = (value(nat.port.0)?, value(nat.port.1)?);
        let port = match first {
            None => None,
            Some(first) => {
                let last = last.unwrap_or_else(|| first.clone());
                Some((be16(&first)?, be16(&last)?))
            }
        };
        Some(NatRange { address, port, flags: nat.flags })
    }

    /// Adds an option of the transport's own module, which is written once.
    fn transport_option(&mut self, option: &str) -> Option<()> {
        let (false, number) = self.out.protocol? else { return None };
        let module = match number {
            6 => "tcp",
            17 => "udp",
            33 => "dccp",
            132 => "sctp",
            136 => "udplite",
            1 => "icmp",
            58 => "icmp6",
            _ => return None,
        };
        let (_, options) = self.transport.get_or_insert_with(|| {
            self.out.matches.push(format!("-m {module}"));
            (self.out.matches.len() - 1, Vec::new())
        });
        options.push(option.to_owned());
        Some(())
    }

    fn port_range(&mut self, loaded: &Loaded, negated: bool, from: &[u8], to: &[u8]) -> Option<()> {
        let side = loaded.port_side()?;
        let range = xt::range(be16(from)?, be16(to)?, ':');
        self.transport_option(&format!("{}--{side} {range}", not(negated)))
    }

    /// A port in an anonymous set: multiport.
    fn lookup(&mut self, loaded: &Loaded, set: &str, negated: bool) -> Option<()> {
        let side = loaded.port_side()?;
        let set = self.ruleset.set(self.rule.family, &self.rule.table, set)?;
        if set.flags & 1 == 0 || set.flags & 8 != 0 {
            return None;
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        let mut keys: Vec<(u16, bool)> = Vec::new();
        for element in &set.elements {
            keys.push((be16(&element.key)?, element.flags & 1 != 0));
        }
        // In an interval set, an element opens a range and the next end closes it, not included.
        keys.sort_unstable();
        for (key, end) in keys {
            match (set.flags & 4 != 0, end) {
                (false, _) => ranges.push((key, key)),
                (true, false) => ranges.push((key, u16::MAX)),
                (true, true) => {
                    if let Some(last) = ranges.last_mut() {
                        last.1 = key.checked_sub(1)?;
                    }
                }
            }
        }
        let list: Vec<_> = ranges.iter().map(|(from, to)| xt::range(*from, *to, ':')).collect();
        self.out.matches.push(format!("-m multiport {}--{side}s {}", not(negated), list.join(",")));
        Some(())
    }

    fn test(&mut self, loaded: &Loaded, negated: bool, data: &[u8]) -> Option<()> {
        match loaded {
            Loaded::Meta { key: 16, mask: None, .. } => self.protocol(negated, data),
            Loaded::Meta { key: key @ (6 | 7), mask: None, .. } => {
                let name = loaded::interface(data)?;
                let slot = if *key == 6 { &mut self.out.in_interface } else { &mut self.out.out_interface };
                set_once(slot, (negated, name))
            }
            Loaded::Meta { key: 3, mask, xor: None } => {
                let mask = mask.as_deref().map_or(Some(u32::MAX), ne32)?;
                self.out.matches.push(format!("-m mark {}--mark {}", not(negated), masked(ne32(data)?, mask)));
                Some(())
            }
            Loaded::Meta { key: 19, mask: None, .. } => {
                let kind = match data.first()? {
                    0 => "unicast",
                    1 => "broadcast",
                    2 => "multicast",
                    _ => return None,
                };
                self.out.matches.push(format!("-m pkttype {}--pkt-type {kind}", not(negated)));
                Some(())
            }
            Loaded::CtState { mask: Some(mask) } if ne32(data)? == 0 => {
                let states = xt::states(ne32(mask)?, 64);
                self.out.matches.push(format!("-m conntrack {}--ctstate {states}", not(!negated)));
                Some(())
            }
            Loaded::CtState { mask: None } => {
                let states = xt::states(ne32(data)?, 64);
                self.out.matches.push(format!("-m conntrack {}--ctstate {states}", not(negated)));
                Some(())
            }
            Loaded::Payload { base, offset, len, mask } => {
                self.payload(*base, *offset, *len, mask.as_deref(), negated, data)
            }
            _ => None,
        }
    }

    fn protocol(&mut self, negated: bool, data: &[u8]) -> Option<()> {
        set_once(&mut self.out.protocol, (negated, *data.first()?))
    }

    fn payload(
        &mut self,
        base: Base,
        offset: u32,
        len: u32,
        mask: Option<&[u8]>,
        negated: bool,
        data: &[u8],
    ) -> Option<()> {
        let v6 = self.v6();
        let (source, destination, width) = if v6 { (8, 24, 16) } else { (12, 16, 4) };
        match (base, offset, len, mask) {
            (Base::Network, offset, len, mask)
                if (offset == source || offset == destination) && (1..=width).contains(&len) =>
            {
                let net = loaded::network(data, mask, width as usize)?;
                let slot = if offset == source { &mut self.out.source } else { &mut self.out.destination };
                set_once(slot, (negated, net))
            }
            (Base::Network, 9, 1, None) if !v6 => self.protocol(negated, data),
            (Base::Network, 6, 1, None) if v6 => self.protocol(negated, data),
            (Base::Network, 6, 2, Some([0x1f, 0xff])) if !v6 && data == [0, 0] => {
                set_once(&mut self.out.fragment, negated)
            }
            (Base::Transport, 0 | 2, 2, None)
                if matches!(self.out.protocol, Some((false, 6 | 17 | 33 | 132 | 136))) =>
            {
                let side = if offset == 0 { "sport" } else { "dport" };
                self.transport_option(&format!("{}--{side} {}", not(negated), be16(data)?))
            }
            (Base::Transport, 13, 1, mask) if self.out.protocol == Some((false, 6)) => {
                let mask = mask.map_or(Some(u8::MAX), |mask| mask.first().copied())?;
                let flags = format!("{} {}", xt::tcp_flags(mask), xt::tcp_flags(*data.first()?));
                self.transport_option(&format!("{}--tcp-flags {flags}", not(negated)))
            }
            (Base::Transport, 0, 1 | 2, None) if matches!(self.out.protocol, Some((false, 1 | 58))) => {
                let option = if v6 { "--icmpv6-type" } else { "--icmp-type" };
                let value = match data {
                    [kind] => kind.to_string(),
                    [kind, code] => format!("{kind}/{code}"),
                    _ => return None,
                };
                self.transport_option(&format!("{}{option} {value}", not(negated)))
            }
            (Base::Link, 6, 6, None) => {
                let mac: Vec<_> = data.iter().map(|byte| format!("{byte:02x}")).collect();
                self.out.matches.push(format!("-m mac {}--mac-source {}", not(negated), mac.join(":")));
                Some(())
            }
            _ => None,
        }
    }
}

fn joined(name: &str, options: &str) -> String {
    if options.is_empty() { format!("-j {name}") } else { format!("-j {name} {options}") }
}

/// iptables has each of its own options once.
fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.is_none().then(|| *slot = Some(value))
}

/// A register's place in 32-bit words: `NFT_REG_1` and `NFT_REG32_00` are the same.
pub(crate) fn slot(register: u32) -> u32 {
    if register <= 4 { register * 4 } else { register.saturating_sub(4) }
}

fn ne32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// `--reject-with` for a native reject; ICMPx by the table's family.
fn reject_name(kind: u32, code: u8, v6: bool) -> Option<&'static str> {
    Some(match (kind, v6, code) {
        (1, ..) => "tcp-reset",
        (0 | 2, false, 0) => "icmp-net-unreachable",
        (0, false, 1) | (2, false, 2) => "icmp-host-unreachable",
        (0, false, 2) => "icmp-proto-unreachable",
        (0, false, 3) | (2, false, 1) => "icmp-port-unreachable",
        (0, false, 9) => "icmp-net-prohibited",
        (0, false, 10) => "icmp-host-prohibited",
        (0, false, 13) | (2, false, 3) => "icmp-admin-prohibited",
        (0 | 2, true, 0) => "icmp6-no-route",
        (0, true, 1) | (2, true, 3) => "icmp6-adm-prohibited",
        (0, true, 3) | (2, true, 2) => "icmp6-addr-unreachable",
        (0, true, 4) | (2, true, 1) => "icmp6-port-unreachable",
        (0, true, 5) => "icmp6-policy-fail",
        (0, true, 6) => "icmp6-reject-route",
        _ => return None,
    })
}
