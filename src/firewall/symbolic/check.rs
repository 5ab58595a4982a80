//! Claims proved or refuted, the rules that no claim exercises, and a first policy of a ruleset.

use std::fmt::Write as _;

use serde::Serialize;

use crate::firewall::flow::{self, FlowOutcome, Host};
use crate::firewall::packet::Packet;
use crate::firewall::ruleset::{self, ChainKind, Hook};
use crate::firewall::walk::{DecidedBy, Facts, Outcome, Stack, Step, walk};

use super::bdd::{ALL, NONE, Set};
use super::expr::Packets;
use super::model::{Fate, Model};
use super::policy::{Claim, Expect, Policy, Quantifier};
use super::query::{OfWay, agrees, decided, families, of_packets};
use super::region::{Region, regions};
use super::space::{Field, Space, Way};
use super::survey;

/// Boxes of a claim's packets whose flows are run.
const MAX_FLOWS: usize = 64;

/// What came of one claim.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// The policy's file.
    pub policy: String,
    /// The claim.
    pub name: String,
    /// What it expects.
    pub expect: &'static str,
    /// Its packets.
    pub packets: Vec<String>,
    /// Of how many.
    #[serde(rename = "for")]
    pub quantifier: Quantifier,
    /// Whether it holds.
    pub ok: bool,
    /// Why it does not, or on what it rests.
    pub reason: Option<String>,
    /// A packet that refutes it, or for `some` one that shows it.
    pub example: Option<String>,
    /// What becomes of that packet.
    pub verdict: Option<&'static str>,
    /// The rule that decides.
    pub decided_by: Option<DecidedBy>,
    /// What must hold for that besides.
    pub when: Vec<String>,
    /// The packet's path.
    pub path: Vec<Step>,
}

/// What came of all claims.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether all hold.
    pub ok: bool,
    /// How many hold.
    pub passed: usize,
    /// How many do not.
    pub failed: usize,
    /// Each.
    pub checks: Vec<Checked>,
}

/// Proves or refutes every claim of a policy.
pub fn check(stack: &Stack, policy: &Policy) -> Vec<Checked> {
    let mut names: Vec<String> = Vec::new();
    for claim in &policy.claims {
        names.extend(claim.packets.iter().chain(&claim.except).flat_map(Packets::interfaces));
        let back = claim.packets.iter().map(Packets::answers);
        names.extend(back.flat_map(|packets| packets.interfaces()));
    }
    let mut spaces: Vec<Space> = families(&[stack]).into_iter().map(|v6| survey::space(&[stack], v6, &names)).collect();
    let mut models: Vec<Model<'_>> = spaces.iter_mut().map(|space| Model::new(stack, space)).collect();
    policy
        .claims
        .iter()
        .map(|claim| {
            let mut checked = Checked {
                policy: policy.source.clone(),
                name: claim.name.clone(),
                expect: claim.expect.name(),
                packets: claim.packets.iter().map(|packets| packets.text.clone()).collect(),
                quantifier: claim.quantifier,
                ok: claim.quantifier == Quantifier::All,
                reason: None,
                example: None,
                verdict: None,
                decided_by: None,
                when: Vec::new(),
                path: Vec::new(),
            };
            let mut any = false;
            for model in &mut models {
                let judge = Judge { stack, claim };
                any |= judge.family(model, &mut checked);
            }
            if !any {
                checked.ok = false;
                let why = match claim.packets.first().and_then(|packets| packets.v6) {
                    Some(v6) if !families(&[stack]).contains(&v6) => {
                        "there is no ruleset of its IP version among those given"
                    }
                    _ => "there is no such packet",
                };
                checked.reason = Some(why.to_owned());
            } else if !checked.ok && checked.reason.is_none() {
                checked.reason = Some("no packet of it is what is expected".to_owned());
            }
            checked
        })
        .collect()
}

struct Judge<'a> {
    stack: &'a Stack,
    claim: &'a Claim,
}

impl Judge<'_> {
    /// Judges the claim over one family; whether there were packets to judge.
    fn family(&self, model: &mut Model<'_>, checked: &mut Checked) -> bool {
        let except: Vec<Set> = self.claim.except.iter().map(|packets| packets.set(model.space)).collect();
        let except = model.space.bdd.any_of(except);
        let mut any = false;
        for packets in &self.claim.packets {
            let packets = &self.on_their_way(packets, model.space.v6);
            for mut of in of_packets(model, packets) {
                let mut own = model.space.bdd.minus(of.asked, except);
                let fresh = self.fresh(model.space, packets);
                own = model.space.bdd.and(own, fresh);
                if own.is_none() {
                    continue;
                }
                any = true;
                of.asked = own;
                if self.claim.flow {
                    self.flows(model, packets, &of, checked);
                } else {
                    self.packets(model, packets, &of, checked);
                }
            }
        }
        any
    }

    /// A claim that names no way is about what comes in: to this host, and through it where rules
    /// look at that (as one packet's routing is guessed).
    fn on_their_way(&self, packets: &Packets, v6: bool) -> Packets {
        let mut packets = packets.clone();
        if packets.named_way {
            return packets;
        }
        let rules = |hook: Hook| {
            let chains = self.stack.base_chains(hook, v6);
            chains.into_iter().any(|(at, _)| self.stack.at(at).is_some_and(|(_, _, chain)| !chain.rules.is_empty()))
        };
        let filters = |hook: Hook| {
            rules(hook) || self.stack.base_chains(hook, v6).iter().any(|(_, base)| base.policy == ruleset::Policy::Drop)
        };
        packets.ways = match (filters(Hook::Input), rules(Hook::Forward)) {
            (_, true) => vec![Way::Input, Way::Forward],
            (true, false) => vec![Way::Input],
            (false, false) if packets.ways.is_empty() => Way::EVERY.to_vec(),
            (false, false) => packets.ways,
        };
        packets
    }

    /// What is not named is what a fresh packet has: state NEW, and where it is to pass SYN alone.
    fn fresh(&self, space: &mut Space, packets: &Packets) -> Set {
        if packets.states {
            return ALL;
        }
        let untracked = if space.v6 { space.equals(Field::Ct, 4) } else { NONE };
        let new = space.equals(Field::Ct, 0);
        let new = space.bdd.or(new, untracked);
        if packets.names_flags() || matches!(self.claim.expect, Expect::Drop | Expect::Reject) {
            return new;
        }
        let (tcp, syn) = (space.equals(Field::Proto, 6), space.equals(Field::Flags, 2));
        let flags = space.bdd.or(!tcp, syn);
        space.bdd.and(new, flags)
    }

    fn fits(&self, fate: &Fate) -> bool {
        match self.claim.expect {
            Expect::Accept | Expect::Works => *fate == Fate::Accept,
            Expect::Drop | Expect::Fails => fate.verdict().blocks(),
            Expect::Reject => matches!(fate, Fate::Reject(_)),
        }
    }

    fn packets(&self, model: &mut Model<'_>, packets: &Packets, of: &OfWay, checked: &mut Checked) {
        let wanted = match self.claim.quantifier {
            Quantifier::All => false,
            Quantifier::Some => true,
        };
        if checked.ok == wanted {
            return;
        }
        for (fate, set) in of.fates.iter().filter(|(fate, _)| self.fits(fate) == wanted) {
            let mut set = model.space.bdd.and(*set, of.asked);
            if wanted {
                // One packet for which it holds whatever limits and the like answer.
                let tests = model.space.tests();
                set = model.space.bdd.every(set, &|level| tests.contains(&level));
            }
            if set.is_none() {
                continue;
            }
            let (boxes, _) = regions(model.space, set, of.universe, of.way, 1);
            let Some(region) = boxes.into_iter().next() else { continue };
            checked.ok = wanted;
            self.show(packets, &region, fate, checked);
            return;
        }
    }

    fn show(&self, packets: &Packets, region: &Region, fate: &Fate, checked: &mut Checked) {
        let mut packet = region.example.clone();
        packet.hook = packets.start;
        let outcome = walk(self.stack, &packet, &Facts::none());
        checked.example = Some(packet.to_string());
        checked.verdict = Some(fate.verdict().name());
        checked.decided_by = decided(&outcome, fate);
        checked.when = region.when();
        checked.path.clone_from(&outcome.path);
        checked.reason = match self.claim.quantifier {
            Quantifier::Some => None,
            Quantifier::All => Some(reason(fate, region, &outcome)),
        };
        if !agrees(&outcome, fate) {
            checked.reason = Some("internal inconsistency: the walk of the example says otherwise".to_owned());
        }
    }

    /// Whole flows: the packets that open them, and the answers.
    fn flows(&self, model: &mut Model<'_>, packets: &Packets, of: &OfWay, checked: &mut Checked) {
        let accepted = of.fates.iter().find(|(fate, _)| *fate == Fate::Accept).map_or(NONE, |(_, set)| *set);
        let accepted = model.space.bdd.and(accepted, of.asked);
        let works = self.claim.expect == Expect::Works;
        let all = self.claim.quantifier == Quantifier::All;
        if all && works && checked.ok {
            for (fate, set) in of.fates.iter().filter(|(fate, _)| *fate != Fate::Accept) {
                let set = model.space.bdd.and(*set, of.asked);
                let (boxes, _) = regions(model.space, set, of.universe, of.way, 1);
                if let Some(region) = boxes.into_iter().next() {
                    checked.ok = false;
                    self.show(packets, &region, fate, checked);
                    return;
                }
            }
            if !translates(self.stack) {
                self.rest(model, packets, of.way, checked);
                if !checked.ok {
                    return;
                }
            }
        }
        // Each box's example is run from its first packet to its last.
        let (boxes, whole) = regions(model.space, accepted, of.universe, of.way, MAX_FLOWS);
        let mut ran = Vec::new();
        for region in &boxes {
            let outcome = self.run(&region.example);
            ran.push((region, outcome));
        }
        let wrong = ran.iter().find(|(_, outcome)| outcome.works != works);
        let right = ran.iter().find(|(_, outcome)| outcome.works == works);
        match (all, wrong, right) {
            (true, Some((region, outcome)), _) if checked.ok => {
                checked.ok = false;
                Self::tell(region, outcome, checked);
            }
            (false, _, Some((region, outcome))) if !checked.ok => {
                checked.ok = true;
                Self::tell(region, outcome, checked);
                checked.reason = None;
            }
            // A flow whose first packet is stopped fails.
            (false, ..) if !checked.ok && !works && accepted != of.asked => checked.ok = true,
            _ => (),
        }
        if !whole && checked.ok {
            checked.reason = Some(format!("{MAX_FLOWS} flows of more were run to their end"));
        }
    }

    /// The packets of an open flow, both ways, over all addresses and ports.
    fn rest(&self, model: &mut Model<'_>, packets: &Packets, way: Way, checked: &mut Checked) {
        let back = packets.answers();
        for (packets, answers) in [(&back, true), (packets, false)] {
            let mut packets = packets.clone();
            packets.start = None;
            let way = match (way, answers) {
                (Way::Input, true) => Way::Output,
                (Way::Output, true) => Way::Input,
                (way, _) => way,
            };
            packets.ways = vec![way];
            for of in of_packets(model, &packets) {
                let space = &mut *model.space;
                let open = space.equals(Field::Ct, 1);
                let (tcp, flags) = (
                    space.equals(Field::Proto, 6),
                    space.within(Field::Flags, if answers { &[(16, 18), (24, 25)] } else { &[(16, 17), (24, 25)] }),
                );
                let flags = space.bdd.or(!tcp, flags);
                let icmp = space.equals(Field::Proto, if space.v6 { 58 } else { 1 });
                let mut asked = space.bdd.and(of.asked, open);
                asked = space.bdd.and(asked, flags);
                asked = space.bdd.minus(asked, icmp);
                for (fate, set) in of.fates.iter().filter(|(fate, _)| *fate != Fate::Accept) {
                    let set = model.space.bdd.and(*set, asked);
                    let (boxes, _) = regions(model.space, set, of.universe, of.way, 1);
                    if let Some(region) = boxes.into_iter().next() {
                        checked.ok = false;
                        self.show(&packets, &region, fate, checked);
                        let what = if answers { "the answer" } else { "a later packet" };
                        let says = checked.reason.take().unwrap_or_default();
                        checked.reason = Some(format!("{what} does not get through: {says}"));
                        return;
                    }
                }
            }
        }
    }

    fn run(&self, first: &Packet) -> FlowOutcome {
        let mut first = first.clone();
        first.ctstate = None;
        flow::run(&first, &[Host { name: "host", stack: self.stack, facts: Facts::none() }])
    }

    fn tell(region: &Region, outcome: &FlowOutcome, checked: &mut Checked) {
        checked.example = Some(region.example.to_string());
        if let Some(blocked) = &outcome.first_blocked {
            checked.verdict = Some(blocked.verdict.name());
            checked.decided_by.clone_from(&blocked.decided_by);
            let flags =
                if blocked.flags.is_empty() { String::new() } else { format!(" ({})", blocked.flags.join(",")) };
            checked.reason = Some(format!("packet {}{flags} of the flow is stopped: {}", blocked.n, blocked.packet));
        } else {
            checked.verdict = Some("accept");
            checked.reason = Some("the flow gets through, from its first packet to its last".to_owned());
        }
    }
}

fn reason(fate: &Fate, region: &Region, outcome: &Outcome) -> String {
    let by = outcome.decided_by.as_ref().map_or(String::new(), |by| {
        let line = by.line.map_or(String::new(), |line| format!(" (line {line})"));
        format!(" by {}{line}", by.place())
    });
    let when = if region.given.is_empty() { String::new() } else { format!(" when {}", region.when().join(" and ")) };
    match fate {
        Fate::Unknown(why) => format!("it is not known: {why}"),
        other => format!("{}{by}{when}: {}", past(other), region.text),
    }
}

fn past(fate: &Fate) -> &'static str {
    match fate {
        Fate::Accept => "accepted",
        Fate::Drop => "dropped",
        Fate::Reject(_) => "rejected",
        Fate::Queue => "handed to a program",
        Fate::Unknown(_) => "not known",
    }
}

fn translates(stack: &Stack) -> bool {
    stack.chains().any(|(_, _, _, chain)| {
        !chain.rules.is_empty() && chain.base.as_ref().is_some_and(|base| base.kind == ChainKind::Nat)
    })
}

/// A rule that no claim exercises.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unexercised {
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's number, from 1.
    pub rule: usize,
    /// Its line.
    pub line: Option<u32>,
    /// The rule as its dump has it.
    pub text: String,
}

/// The rules that no packet of any claim matches, and how many rules there are.
pub fn coverage(stack: &Stack, policies: &[Policy]) -> (Vec<Unexercised>, usize) {
    let claims: Vec<&Claim> = policies.iter().flat_map(|policy| &policy.claims).collect();
    let names: Vec<String> = claims
        .iter()
        .flat_map(|claim| claim.packets.iter().chain(&claim.except))
        .flat_map(Packets::interfaces)
        .collect();
    let mut hit: std::collections::HashSet<(crate::firewall::walk::ChainAt, usize)> = std::collections::HashSet::new();
    for v6 in families(&[stack]) {
        let mut space = survey::space(&[stack], v6, &names);
        let mut model = Model::new(stack, &mut space);
        let mut asked = NONE;
        for claim in &claims {
            let judge = Judge { stack, claim };
            let except: Vec<Set> = claim.except.iter().map(|packets| packets.set(model.space)).collect();
            let except = model.space.bdd.any_of(except);
            for packets in &claim.packets {
                let packets = &judge.on_their_way(packets, v6);
                let ways = if packets.ways.is_empty() { Way::EVERY.to_vec() } else { packets.ways.clone() };
                let mut own = packets.set(model.space);
                let fresh = judge.fresh(model.space, packets);
                own = model.space.bdd.and(own, fresh);
                let universes: Vec<Set> =
                    ways.iter().map(|way| model.space.universe(*way, packets.untracked)).collect();
                let universe = model.space.bdd.any_of(universes);
                own = model.space.bdd.and(own, universe);
                own = model.space.bdd.minus(own, except);
                asked = model.space.bdd.or(asked, own);
                if claim.flow {
                    let back = packets.answers().set(model.space);
                    let open = model.space.equals(Field::Ct, 1);
                    let back = model.space.bdd.and(back, open);
                    asked = model.space.bdd.or(asked, back);
                }
            }
        }
        model.fates(false);
        let entered = model.entered();
        for (id, comes) in entered.into_iter().enumerate() {
            let comes = model.space.bdd.and(comes, asked);
            if comes.is_none() {
                continue;
            }
            let at = model.summaries[id].at;
            for index in 0..model.summaries[id].seen.len() {
                let own = model.summaries[id].seen[index].hit;
                if !hit.contains(&(at, index)) && !model.space.bdd.and(comes, own).is_none() {
                    hit.insert((at, index));
                }
            }
        }
    }
    let (mut missing, mut count) = (Vec::new(), 0);
    for (at, _, table, chain) in stack.chains() {
        for (index, rule) in chain.rules.iter().enumerate() {
            count += 1;
            if !hit.contains(&(at, index)) {
                missing.push(Unexercised {
                    table: table.name.clone(),
                    chain: chain.name.clone(),
                    rule: index + 1,
                    line: rule.line,
                    text: rule.text.clone(),
                });
            }
        }
    }
    (missing, count)
}

/// A first policy: what the ruleset lets in now, and that it lets nothing else in.
pub fn generate(stack: &Stack) -> String {
    let mut out = String::from("# What the ruleset lets through now, as claims that `reachwhy fw check` proves.\n");
    for v6 in families(&[stack]) {
        let mut space = survey::space(&[stack], v6, &[]);
        let mut model = Model::new(stack, &mut space);
        let family = if v6 { "family=ip6 " } else { "family=ip " };
        for (way, fates) in model.fates(false) {
            let universe = model.space.universe(way, false);
            let new = model.space.equals(Field::Ct, 0);
            let universe = model.space.bdd.and(universe, new);
            let accepted = fates.iter().find(|(fate, _)| *fate == Fate::Accept).map_or(NONE, |(_, set)| *set);
            let accepted = model.space.bdd.and(accepted, universe);
            if accepted == universe {
                continue;
            }
            let (boxes, whole) = regions(model.space, accepted, universe, way, 500);
            let mut except = Vec::new();
            for region in &boxes {
                let text = if region.text == "every packet" { String::new() } else { region.text.clone() };
                let packets = format!("{family}{} ctstate=NEW {text}", hook_word(way)).trim_end().to_owned();
                except.push(packets.clone());
                if !region.given.is_empty()
                    || region.fields.iter().any(|(field, _)| matches!(field, Field::DstType | Field::SrcType))
                {
                    continue;
                }
                let name = format!("{}{}: {}", way.name(), if v6 { " (IPv6)" } else { "" }, region.text);
                let _ = write!(
                    out,
                    "\n[[check]]\nname = {}\nexpect = \"accept\"\npackets = {}\n",
                    quoted(&name),
                    quoted(&packets)
                );
            }
            if whole {
                let name = format!("{}{}: nothing else is let through", way.name(), if v6 { " (IPv6)" } else { "" });
                let _ = write!(
                    out,
                    "\n[[check]]\nname = {}\nexpect = \"drop\"\npackets = \"{family}{} ctstate=NEW\"\nexcept = [",
                    quoted(&name),
                    hook_word(way)
                );
                for text in except {
                    let _ = write!(out, "\n  {},", quoted(&text));
                }
                out.push_str("\n]\n");
            }
        }
    }
    out
}

/// The word that names a way and not a hook to start at.
fn hook_word(way: Way) -> &'static str {
    match way {
        Way::Input => "to=local",
        Way::Forward => "to=forward",
        Way::Output => "hook=output",
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
