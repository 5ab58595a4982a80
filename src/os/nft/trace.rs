//! The kernel's own account of a packet's way through nf_tables (`meta nftrace`, `NFNLGRP_NFTRACE`):
//! each rule that matched, and what it decided.
//!
//! x_tables (iptables-legacy) takes no part in it.

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::attr::{Attrs, View};
use super::conn::{Answer, Conn, Order};
use super::error::NftError;
use super::expr::{ACCEPT, CONTINUE, DROP, Data, Expr, GOTO, JUMP, RETURN};
use super::ladder::{addresses, chain_order, make_table, octets, prelude, protocol};
use super::objects::{family, msg};
use crate::host::LadderSpec;

/// `NFNLGRP_NFTRACE`.
const GROUP: u32 = 9;
/// `NFT_MSG_TRACE`.
const TRACE: u8 = 17;
/// Before every other chain that can see the packet, defragmentation (-400) excepted.
const PRIORITY: i32 = -450;

/// What a trace event is about (`enum nft_trace_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// A rule matched.
    Rule,
    /// A chain ended without a verdict and went back to its caller.
    Return,
    /// A base chain ended, and its policy decided.
    Policy,
}

/// One step of one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceEvent {
    /// The same for all steps of a packet; packets of a flow follow each other with other numbers.
    pub id: u32,
    /// What it is about.
    pub kind: TraceKind,
    /// The table's family as nft names it (`ip`, `inet`, …).
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle, for a rule.
    pub handle: Option<u64>,
    /// The rule's number in its chain, from 1, as `iptables -L --line-numbers` counts; `None` where the
    /// rule has gone since.
    pub rule: Option<usize>,
    /// `accept`, `drop`, `queue`, `continue`, `return`, `jump CHAIN`, `goto CHAIN`.
    pub verdict: String,
    /// The interface that the packet came in by (its index), where it did.
    pub in_interface: Option<u32>,
    /// The interface that it is to leave by.
    pub out_interface: Option<u32>,
}

/// Traces a flow's first packets until it is dropped.
pub struct Tracer {
    notices: Conn,
    owner: Conn,
    table: String,
    family: u8,
    numbers: BTreeMap<(u8, String), Vec<(String, u64)>>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Marks the first `packets` of the flow in each direction at each place where packets enter
    /// (prerouting and output), and listens to what becomes of them. No verdict is changed.
    ///
    /// # Errors
    /// As for [`super::Ladder::install`].
    pub fn start(spec: &LadderSpec, packets: u32) -> Result<Self, NftError> {
        if spec.client.is_ipv4() != spec.server.is_ipv4() {
            let why = format!("{} and {} are of different families: no flow joins them", spec.client, spec.server);
            return Err(NftError::Text(why));
        }
        let v4 = spec.client.is_ipv4();
        let mut notices = Conn::open()?;
        notices.join(GROUP)?;
        let mut owner = Conn::open()?;
        let (table, _, number) = make_table(&mut owner, if v4 { family::IPV4 } else { family::IPV6 })?;
        let tracer = Self { notices, owner, table, family: number, numbers: BTreeMap::new() };
        let mut orders = Vec::new();
        let (client, server) = (octets(spec.client), octets(spec.server));
        for (chain, hook) in [("prerouting", 0), ("output", 3)] {
            orders.push(chain_order(&tracer.table, number, chain, hook, PRIORITY, None));
            for (from, to, port_offset) in [(&client, &server, 2), (&server, &client, 0)] {
                let mut exprs = prelude(number, v4);
                exprs.extend(addresses(from, to));
                exprs.extend(protocol(spec, port_offset));
                // As many at once, and then one more each day.
                let burst = packets.saturating_sub(1);
                exprs.push(Expr::Limit { rate: 1, unit: 86_400, burst, bytes: false, invert: false });
                exprs.push(Expr::Immediate { dreg: 1, data: Data::Value(vec![1]) });
                // NFT_META_NFTRACE
                exprs.push(Expr::MetaSet { key: 12, sreg: 1 });
                let list = Expr::write_list(&exprs)
                    .ok_or_else(|| NftError::Text(format!("a rule of {chain} cannot be written")))?;
                orders.push(Order {
                    kind: msg::NEWRULE,
                    flags: NLM_F_CREATE | NLM_F_APPEND,
                    family: number,
                    attrs: Attrs::new().string(1, &tracer.table).string(2, chain).nest(4, &list),
                    what: format!("add the rule that traces packets to {chain}"),
                });
            }
        }
        let mut tracer = tracer;
        tracer.owner.commit(&orders)?;
        Ok(tracer)
    }

    /// The steps since the last time, in the order they were taken, and whether the kernel had to
    /// leave some out because nobody read them in time.
    pub fn drain(&mut self) -> Result<(Vec<TraceEvent>, bool), NftError> {
        let (answers, lost) = self.notices.notices()?;
        let mut events = Vec::new();
        for answer in answers.iter().filter(|answer| answer.kind == TRACE) {
            let Some(mut event) = read(answer) else { continue };
            if event.table == self.table {
                continue;
            }
            event.rule = event.handle.and_then(|handle| self.number(answer.family, &event, handle));
            events.push(event);
        }
        // Rules may change until the next time.
        self.numbers.clear();
        Ok((events, lost))
    }

    fn number(&mut self, family: u8, event: &TraceEvent, handle: u64) -> Option<usize> {
        let key = (family, event.table.clone());
        if !self.numbers.contains_key(&key) {
            let rules = self.owner.rules(family, &event.table).unwrap_or_default();
            self.numbers.insert(key.clone(), rules.into_iter().map(|rule| (rule.chain, rule.handle)).collect());
        }
        let rules = self.numbers.get(&key)?;
        rules.iter().filter(|(chain, _)| *chain == event.chain).position(|(_, other)| *other == handle).map(|at| at + 1)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let order = Order {
            kind: msg::DELTABLE,
            flags: 0,
            family: self.family,
            attrs: Attrs::new().string(1, &self.table),
            what: format!("remove the tracing table {}", self.table),
        };
        // Nobody is left to hear of a failure; an owned table goes with the socket in any case.
        let _ = self.owner.commit(&[order]);
    }
}

fn read(answer: &Answer) -> Option<TraceEvent> {
    let a = View::new(&answer.body);
    let kind = match a.u32(4)? {
        1 => TraceKind::Policy,
        2 => TraceKind::Return,
        3 => TraceKind::Rule,
        _ => return None,
    };
    #[expect(clippy::cast_possible_wrap, reason = "the kernel sends the code as the bits of an int")]
    let (code, chain) = match a.nested(5) {
        Some(verdict) => (verdict.u32(1).map(|code| code as i32), verdict.string(2)),
        None => (a.u32(16).map(|code| code as i32), None),
    };
    let to = chain.unwrap_or_default();
    let verdict = match code {
        Some(DROP) => "drop".to_owned(),
        Some(ACCEPT) => "accept".to_owned(),
        Some(CONTINUE) | None => "continue".to_owned(),
        Some(RETURN) => "return".to_owned(),
        Some(JUMP) => format!("jump {to}"),
        Some(GOTO) => format!("goto {to}"),
        // NF_QUEUE, with the queue's number above.
        Some(code) if code & 0xff == 3 => "queue".to_owned(),
        Some(code) => format!("verdict {code}"),
    };
    Some(TraceEvent {
        id: a.u32(6)?,
        kind,
        family: super::json::family_name(answer.family),
        table: a.string(1)?,
        chain: a.string(2)?,
        handle: a.u64(3),
        rule: None,
        verdict,
        in_interface: a.u32(10),
        out_interface: a.u32(12),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(body: Vec<u8>) {
            let _ = read(&Answer { kind: TRACE, family: 2, body });
        }
    }
}
