//! Classic slips of whole rulesets: loopback, answers, policies, open doors, backends.

use std::net::IpAddr;

use crate::firewall::ruleset::{ChainKind, Hook, Policy, Target, Test};
use crate::firewall::walk::{ChainAt, Stack};
use crate::host::Backend;

use super::super::bdd::{ALL, NONE, Set};
use super::super::diff::diff_fragments;
use super::super::model::{Fate, Model};
use super::super::space::{Field, Way, number};
use super::super::survey;
use super::dead::example;
use super::{Finding, Severity, Sight};

pub(super) fn look(stack: &Stack, sights: &mut [Sight<'_, '_>], found: &mut Vec<Finding>) {
    for sight in sights.iter_mut() {
        loopback(stack, sight, found);
        established(stack, sight, found);
        doors(stack, sight, found);
    }
}

/// The filter chain of a hook: the last base chain of type filter at priority 0 or near.
pub(super) fn filter_chain(stack: &Stack, hook: Hook, v6: bool) -> Option<(ChainAt, Policy)> {
    let chains = stack.base_chains(hook, v6).into_iter();
    let own = chains.filter(|(_, base)| base.kind == ChainKind::Filter && base.priority > -100);
    own.map(|(at, base)| (at, base.policy)).next_back()
}

/// The packets of one way that pass.
pub(super) fn accepted(sight: &Sight<'_, '_>, way: Way) -> Set {
    let fates = sight.fates.iter().find(|(own, _)| *own == way).map_or(&[][..], |(_, fates)| fates);
    fates.iter().find(|(fate, _)| *fate == Fate::Accept).map_or(NONE, |(_, set)| *set)
}

pub(super) fn all_of(sight: &mut Sight<'_, '_>, sets: &[Set]) -> Set {
    sets.iter().fold(ALL, |all, set| sight.model.space.bdd.and(all, *set))
}

fn loopback(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    let Some((at, _)) = filter_chain(stack, Hook::Input, sight.v6) else { return };
    let own: IpAddr =
        if sight.v6 { IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) } else { IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };
    let space = &mut *sight.model.space;
    let lo = space.names.ranges(|name| name == "lo");
    let sets = [
        space.within(Field::In, &lo),
        space.equals(Field::Src, number(own)),
        space.equals(Field::Dst, number(own)),
        space.equals(Field::Proto, 6),
        space.equals(Field::Ct, 0),
        space.universe(Way::Input, false),
    ];
    let asked = all_of(sight, &sets);
    let passes = accepted(sight, Way::Input);
    let passes = sight.model.space.bdd.and(passes, asked);
    if passes.is_none() && !asked.is_none() {
        let message = format!("the host's own connections over lo ({own}) are dropped: no rule accepts `-i lo`");
        let example = example(sight, asked);
        found.push(Finding { example, ..Finding::new("no-loopback", Severity::Warning, message).at(stack, at, None) });
    }
}

fn established(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    let Some((at, _)) = filter_chain(stack, Hook::Input, sight.v6) else { return };
    let space = &mut *sight.model.space;
    let not_lo = space.names.ranges(|name| name != "lo");
    let answer = [
        space.within(Field::In, &not_lo),
        space.equals(Field::Proto, 6),
        space.equals(Field::Ct, 1),
        space.within(Field::Dport, &[(32_768, 60_999)]),
        space.equals(Field::Flags, 0x12),
        space.universe(Way::Input, false),
    ];
    let question = [
        space.within(Field::Out, &not_lo),
        space.equals(Field::Proto, 6),
        space.equals(Field::Ct, 0),
        space.within(Field::Sport, &[(32_768, 60_999)]),
        space.equals(Field::Flags, 0x02),
        space.universe(Way::Output, false),
    ];
    let (answer, question) = (all_of(sight, &answer), all_of(sight, &question));
    let (comes, goes) = (accepted(sight, Way::Input), accepted(sight, Way::Output));
    let comes = sight.model.space.bdd.and(comes, answer);
    let goes = sight.model.space.bdd.and(goes, question);
    if comes.is_none() && !goes.is_none() {
        let message = "this host may open TCP connections, and every answer to them is dropped: no rule accepts \
            ESTABLISHED,RELATED"
            .to_owned();
        let example = example(sight, answer);
        found.push(Finding {
            example,
            ..Finding::new("no-established", Severity::Warning, message).at(stack, at, None)
        });
    }
}

/// New connections from anywhere.
fn strangers(sight: &mut Sight<'_, '_>, way: Way) -> Set {
    let space = &mut *sight.model.space;
    let not_lo = space.names.ranges(|name| name != "lo");
    let sets = [
        space.within(Field::In, &not_lo),
        space.equals(Field::Proto, 6),
        space.equals(Field::Ct, 0),
        space.equals(Field::Flags, 0x02),
        space.universe(way, false),
    ];
    all_of(sight, &sets)
}

/// Rules and policies that let anyone in to anything.
fn doors(stack: &Stack, sight: &mut Sight<'_, '_>, found: &mut Vec<Finding>) {
    for (hook, way) in [(Hook::Input, Way::Input), (Hook::Forward, Way::Forward)] {
        let asked = strangers(sight, way);
        for (id, comes) in sight.entered.clone().into_iter().enumerate() {
            let at = sight.model.summaries[id].at;
            let Some((_, table, chain)) = stack.at(at) else { continue };
            let Some(base) = chain.base.as_ref().filter(|base| base.hook == hook && base.kind == ChainKind::Filter)
            else {
                continue;
            };
            if base.priority <= -100
                || comes.is_none()
                || table.name == "security"
                || Some(at) != filter_chain(stack, hook, sight.v6).map(|(at, _)| at)
            {
                continue;
            }
            let come = sight.model.space.bdd.and(comes, asked);
            for (index, rule) in chain.rules.iter().enumerate() {
                if rule.target != Some(Target::Accept) || !rule.matches.iter().all(|m| is_wide(&m.test)) {
                    continue;
                }
                let hit = sight.model.summaries[id].seen[index].matched;
                if sight.model.space.bdd.within(asked, hit) && !come.is_none() {
                    let reach = sight.model.summaries[id].seen[index].hit;
                    let own = sight.model.space.bdd.and(reach, come);
                    if own.is_none() {
                        continue;
                    }
                    let what = if hook == Hook::Input {
                        "to every port of this host"
                    } else {
                        "through this host to any other"
                    };
                    let message =
                        format!("this accepts new connections from anyone {what} that no rule before it blocks");
                    let example = example(sight, own);
                    let finding = Finding::new("open-to-world", Severity::Warning, message).at(stack, at, Some(index));
                    push_once(found, Finding { example, ..finding });
                }
            }
            let accepts = chain.rules.iter().any(|rule| rule.target == Some(Target::Accept));
            if base.policy == Policy::Accept && accepts {
                let end = sight.model.summaries[id].end;
                let end = sight.model.space.bdd.and(end, come);
                if !end.is_none() {
                    let message =
                        "the policy lets in what no rule is about, so that the rules that accept keep nobody out"
                            .to_owned();
                    let example = example(sight, end);
                    push_once(
                        found,
                        Finding {
                            example,
                            ..Finding::new("policy-accept", Severity::Warning, message).at(stack, at, None)
                        },
                    );
                }
            }
        }
    }
}

/// Inet tables are looked at for each family; what is the same is told once.
fn push_once(found: &mut Vec<Finding>, finding: Finding) {
    if !found.iter().any(|own| {
        (own.code, &own.table, &own.chain, own.rule, own.family)
            == (finding.code, &finding.table, &finding.chain, finding.rule, finding.family)
    }) {
        found.push(finding);
    }
}

/// Whether a test leaves nearly all packets in.
fn is_wide(test: &Test) -> bool {
    !matches!(test, Test::InInterface(_) | Test::Stateful { .. } | Test::Unknown { .. })
}

/// Packets that the two iptables treat differently.
pub(super) fn backends(stack: &Stack, found: &mut Vec<Finding>) {
    let shaped = stack.rulesets().iter().all(|r| r.tables.iter().all(super::super::super::Table::is_iptables_shaped));
    let odd = stack.chains().flat_map(|(_, _, _, chain)| &chain.rules).flat_map(|rule| &rule.matches).any(|m| match &m
        .test
    {
        Test::TcpFlags { mask, .. } => mask.0 == 0,
        Test::Port { range, .. } => m.negated && range.from == 0 && range.to == u16::MAX,
        _ => false,
    });
    let fragments = [false, true]
        .into_iter()
        .any(|v6| super::super::query::families(&[stack]).contains(&v6) && survey::widest(&[stack], v6).fragments);
    let ports = stack
        .chains()
        .flat_map(|(_, _, _, chain)| &chain.rules)
        .flat_map(|rule| &rule.matches)
        .any(|m| matches!(m.test, Test::Port { .. } | Test::TcpFlags { .. }));
    if !(shaped && (odd || fragments && ports)) {
        return;
    }
    let as_backend = |backend: Backend| {
        Stack::from_rulesets(stack.rulesets().iter().cloned().map(|mut ruleset| {
            ruleset.backend = backend;
            ruleset
        }))
    };
    let (legacy, nft) = (as_backend(Backend::Legacy), as_backend(Backend::Nft));
    let changes = diff_fragments(&legacy, &nft, 40);
    let mut told: Vec<Option<u32>> = Vec::new();
    for change in changes.regions.iter().filter(|change| change.confirmed) {
        // The rule that sees the packet by one of the two alone.
        let rule = [&change.new_rule, &change.old_rule].into_iter().flatten().find(|by| by.rule.is_some());
        let Some(by) = rule.or(change.new_rule.as_ref()) else { continue };
        if told.contains(&by.line) {
            continue;
        }
        told.push(by.line);
        let message = format!(
            "iptables-legacy: {}, iptables-nft: {} for such packets as the example: the two read later fragments and \
             emptied options differently",
            change.from, change.to
        );
        let mut finding = Finding::new("backend-differs", Severity::Info, message);
        finding.family = Some(by.family);
        finding.table.clone_from(&by.table);
        finding.chain.clone_from(&by.chain);
        finding.rule = by.rule;
        finding.line = by.line;
        finding.source.clone_from(&by.source);
        finding.example = Some(change.region.example.to_string());
        finding.because = [&change.old_rule, &change.new_rule]
            .into_iter()
            .flatten()
            .filter_map(|by| by.line)
            .filter(|line| Some(*line) != by.line)
            .collect();
        found.push(finding);
    }
}

/// Packets that come in and pass, with all that hides where they go taken out.
pub(super) fn without_way(model: &mut Model<'_>, set: Set) -> Set {
    let (to, width) = model.space.bits(Field::To);
    let (out, out_width) = model.space.bits(Field::Out);
    model.space.bdd.some(set, &|level| (to..to + width).contains(&level) || (out..out + out_width).contains(&level))
}
