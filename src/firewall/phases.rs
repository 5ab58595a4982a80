//! A packet's way in phases: the path of an answer, one phase for each base chain it went through.

use crate::host::Backend;

use super::packet::{Packet, To};
use super::ruleset::{Base, Chain, Counters, Family, Hook, Rule, Target};
use super::walk::{DecidedBy, Outcome, Stack, Verdict};

/// One phase of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Through a base chain and the chains it calls.
    Chain(ChainPhase),
    /// The routing decision between prerouting and what follows.
    Routing {
        /// Where it leads, in words.
        says: String,
        /// Whether nobody said so: no host's facts, and not the packet.
        assumed: bool,
    },
}

/// A base chain that the packet went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainPhase {
    /// The chain's place; its rule is `None`.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The base chain's name.
    pub chain: String,
    /// Which code in the kernel runs it.
    pub backend: Backend,
    /// The file or command it came from.
    pub source: String,
    /// Where the packet met it.
    pub hook: Hook,
    /// The chain's priority, where it is a base chain of the rulesets.
    pub priority: Option<i32>,
    /// What matched, in order; the policy last where it was reached.
    pub steps: Vec<PhaseStep>,
    /// What translation changed: the end of the packet, before and after.
    pub rewrite: Option<Rewrite>,
    /// How the phase ended for the packet.
    pub end: PhaseEnd,
}

/// How a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseEnd {
    /// The packet goes on.
    Passes,
    /// It ends here.
    Ends(Verdict),
}

/// A rule that matched, or a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseStep {
    /// Where.
    pub at: DecidedBy,
    /// What it did, in the words of the path.
    pub action: String,
    /// What the rule or policy has seen so far, where the dump says.
    pub counters: Option<Counters>,
}

/// An address, and a port where there is one, before and after translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// `source` or `destination`.
    pub what: &'static str,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

/// The phases of an answer, in the order the packet took them.
///
/// `packet` is what was asked about. Where the branches differ the path is that of the last branch.
pub fn phases(stack: &Stack, packet: &Packet, outcome: &Outcome) -> Vec<Phase> {
    let mut out: Vec<ChainPhase> = Vec::new();
    for step in &outcome.path {
        let at = &step.at;
        let found = find(stack, at);
        let base = found.and_then(|(chain, _)| chain.base.as_ref());
        let open = out.last().is_some_and(|last| {
            let same = (last.family, &last.table, last.hook) == (at.family, &at.table, at.hook)
                && (last.backend, &last.source) == (at.backend, &at.source);
            let over = last.steps.last().is_some_and(|step| step.at.rule.is_none());
            same && !over && (base.is_none() || last.chain == at.chain)
        });
        if !open {
            out.push(ChainPhase {
                family: at.family,
                table: at.table.clone(),
                chain: at.chain.clone(),
                backend: at.backend,
                source: at.source.clone(),
                hook: at.hook,
                priority: base.map(|base| base.priority),
                steps: Vec::new(),
                rewrite: None,
                end: PhaseEnd::Passes,
            });
        }
        if let Some(phase) = out.last_mut() {
            let rewrite = rewrite(&step.action, packet, &outcome.packet_out);
            phase.rewrite = phase.rewrite.take().or(rewrite);
            let counters = match (at.rule, found) {
                (Some(_), Some((_, rule))) => rule.and_then(|rule| rule.counters),
                (None, Some((chain, _))) => chain.base.as_ref().and_then(|base: &Base| base.counters),
                (_, None) => None,
            };
            phase.steps.push(PhaseStep { at: at.clone(), action: step.action.clone(), counters });
        }
    }
    let last = out.len();
    let mut phases = Vec::new();
    let mut routed = packet.start() != Hook::Prerouting;
    for (number, mut phase) in out.into_iter().enumerate() {
        if !routed && matches!(phase.hook, Hook::Input | Hook::Forward) {
            routed = true;
            phases.push(routing(phase.hook, packet, outcome));
        }
        if number + 1 == last {
            phase.end = last_end(outcome);
        }
        phases.push(Phase::Chain(phase));
    }
    phases
}

/// How the last phase ends. The path is that of the last branch, so that its verdict counts there.
fn last_end(outcome: &Outcome) -> PhaseEnd {
    let (verdict, by) = match outcome.branches.last().filter(|_| outcome.verdict == Verdict::Unknown) {
        Some(branch) => (branch.verdict, branch.decided_by.is_some()),
        None => (outcome.verdict, outcome.decided_by.is_some()),
    };
    match verdict {
        Verdict::Accept => PhaseEnd::Passes,
        Verdict::Unknown => PhaseEnd::Ends(verdict),
        // A verdict that no rule gave fell between the chains.
        _ if !by => PhaseEnd::Passes,
        _ => PhaseEnd::Ends(verdict),
    }
}

/// The chain and the rule at a place; no rule for a policy.
pub fn find<'a>(stack: &'a Stack, at: &DecidedBy) -> Option<(&'a Chain, Option<&'a Rule>)> {
    let table = stack
        .rulesets()
        .iter()
        .filter(|ruleset| ruleset.backend == at.backend && ruleset.source == at.source)
        .find_map(|ruleset| ruleset.table(at.family, &at.table))?;
    let chain = table.chain(&at.chain)?;
    let rule = at.rule.and_then(|number| usize::try_from(number).ok()?.checked_sub(1));
    Some((chain, rule.and_then(|index| chain.rules.get(index))))
}

/// The rule's target as iptables writes it, `-j` left out: `ACCEPT`, `DNAT --to-destination …`.
pub fn target_words(target: &Target) -> String {
    let text = target.to_string();
    text.strip_prefix("-j ").map_or_else(|| text.replacen("-g ", "goto ", 1), str::to_owned)
}

fn routing(next: Hook, packet: &Packet, outcome: &Outcome) -> Phase {
    let out = outcome.packet_out.out.as_deref().map_or(String::new(), |name| format!(", out by {name}"));
    let says = match next {
        Hook::Forward => format!("to another host{out}"),
        _ => "to this host itself".to_owned(),
    };
    let given = match next {
        Hook::Forward => packet.to == Some(To::Forward) || packet.out.is_some(),
        _ => packet.to == Some(To::Local),
    };
    let assumed = !given && outcome.assumed.iter().any(|what| what.contains("routing"));
    Phase::Routing { says, assumed }
}

fn rewrite(action: &str, before: &Packet, after: &Packet) -> Option<Rewrite> {
    let end = |addr: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(addr, port).to_string(),
        None => addr.to_string(),
    };
    let (source, destination) = (
        Rewrite { what: "source", before: end(before.src, before.sport), after: end(after.src, after.sport) },
        Rewrite { what: "destination", before: end(before.dst, before.dport), after: end(after.dst, after.dport) },
    );
    let rewrite = match action.split_whitespace().next()? {
        "dnat" | "redirect" => destination,
        "netmap" if destination.before != destination.after => destination,
        "snat" | "masquerade" | "netmap" => source,
        _ => return None,
    };
    (rewrite.before != rewrite.after).then_some(rewrite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Facts, parse, walk};

    #[test]
    fn two_tables_of_one_name_are_two_phases() {
        let read = |text: &str, backend| parse::iptables_save(text, Family::Ip, backend, "t").unwrap().ruleset;
        let (one, two) = ("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n");
        let stack = Stack::from_rulesets([read(two, Backend::Legacy), read(one, Backend::Nft)]);
        let packet: Packet = "hook=input in=eth0 udp 10.0.0.9 > 10.0.0.1:53".parse().unwrap();
        let outcome = walk(&stack, &packet, &Facts::none());
        assert_eq!(phases(&stack, &packet, &outcome).len(), 2, "{outcome:#?}");
    }

    #[test]
    fn each_base_chain_is_a_phase_with_its_own_chains_and_rewrites() {
        let text = "*nat\n:PREROUTING ACCEPT [7:70]\n:POSTROUTING ACCEPT [0:0]\n\
            [3:30] -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.9.9.9:8080\n\
            -A POSTROUTING -o eth1 -j SNAT --to-source 10.8.8.8\nCOMMIT\n\
            *filter\n:FORWARD DROP [0:0]\n:web - [0:0]\n-A FORWARD -p tcp -j web\n-A web -d 10.9.9.9 -j ACCEPT\nCOMMIT\n";
        let stack = Stack::from_rulesets([parse::iptables_save(text, Family::Ip, Backend::Nft, "t").unwrap().ruleset]);
        let packet: Packet = "in=eth0 out=eth1 to=forward tcp 10.0.0.9:40000 > 10.0.0.1:80 syn".parse().unwrap();
        let outcome = walk(&stack, &packet, &Facts::none());
        let told: Vec<String> = phases(&stack, &packet, &outcome)
            .iter()
            .map(|phase| match phase {
                Phase::Routing { says, assumed } => format!("routing {says} {assumed}"),
                Phase::Chain(phase) => {
                    let rewrite = phase.rewrite.as_ref().map(|r| format!("{} {} {}", r.what, r.before, r.after));
                    let seen = phase.steps[0].counters.map(|c| c.packets);
                    format!("{} {:?} {} {rewrite:?} {seen:?}", phase.chain, phase.priority, phase.steps.len())
                }
            })
            .collect();
        assert_eq!(
            told,
            [
                "PREROUTING Some(-100) 1 Some(\"destination 10.0.0.1:80 10.9.9.9:8080\") Some(3)",
                "routing to another host, out by eth1 false",
                "FORWARD Some(0) 2 None None",
                "POSTROUTING Some(100) 1 Some(\"source 10.0.0.9:40000 10.8.8.8:40000\") None",
            ]
        );
    }
}
