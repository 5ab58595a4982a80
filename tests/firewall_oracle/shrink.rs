//! A mismatch with everything left out that it does not need.

use std::time::Duration;

use reachwhy::firewall::packet::Proto;

use crate::cases::{self, Case};
use crate::check::{self, Fate};
use crate::generate::{KEPT, KEPT_NFT};
use crate::kernel::Kernel;
use crate::line::Line;
use crate::packets::{Plan, Shot, finish};
use crate::rules::Rules;

/// How long a mismatch is made smaller.
const LONGEST: Duration = Duration::from_secs(6);

/// Both fates of a packet where they differ.
fn differ(line: &Line, kernel: &mut Kernel, rules: &Rules, shot: &Shot) -> Option<(Fate, Fate)> {
    kernel.load(rules).ok()?;
    let dumps = check::dumps(rules).ok()?;
    let stack = check::stack(&dumps).ok()?;
    let mut ours = check::ours(&stack, &check::asked(shot, 7), &line.facts).0?;
    let mut theirs = check::theirs(line, kernel, rules, shot, 7, Duration::from_millis(10));
    check::level(rules, shot, &mut ours, &mut theirs);
    (ours != theirs).then_some((ours, theirs))
}

/// Everything that can be left out of a ruleset in one step, the large pieces first.
pub(crate) fn smaller(rules: &Rules) -> Vec<Rules> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Rules)| {
        let mut copy = rules.clone();
        change(&mut copy);
        out.push(copy);
    };
    for (t, table) in rules.tables.iter().enumerate() {
        if table.chains.iter().any(|chain| !chain.rules.is_empty()) {
            with(&|rules| rules.tables[t].chains.iter_mut().for_each(|chain| chain.rules.clear()));
        }
        for (c, chain) in table.chains.iter().enumerate() {
            if chain.rules.len() > 1 {
                with(&|rules| rules.tables[t].chains[c].rules.clear());
            }
            if matches!(chain.decl.as_str(), "-" | "") && chain.rules.is_empty() {
                with(&|rules| drop(rules.tables[t].chains.remove(c)));
            }
            if chain.decl == "DROP" {
                with(&|rules| "ACCEPT".clone_into(&mut rules.tables[t].chains[c].decl));
            }
            for (n, rule) in chain.rules.iter().enumerate() {
                with(&|rules| drop(rules.tables[t].chains[c].rules.remove(n)));
                for p in 0..rule.parts.len() {
                    with(&|rules| drop(rules.tables[t].chains[c].rules[n].parts.remove(p)));
                }
            }
        }
    }
    for (t, table) in rules.tables.iter().enumerate() {
        for n in 0..table.extra.len() {
            with(&|rules| drop(rules.tables[t].extra.remove(n)));
        }
        for (c, chain) in table.chains.iter().enumerate() {
            if chain.decl.contains("hook") && chain.rules.is_empty() {
                with(&|rules| drop(rules.tables[t].chains.remove(c)));
            }
        }
    }
    for n in 0..rules.sets.len() {
        with(&|rules| drop(rules.sets.remove(n)));
    }
    // One that is refused leaves the reassembly of fragments running for good (xt_TPROXY.c, tproxy_tg4_check).
    out.retain(|smaller| {
        let text = smaller.text();
        let mut lines = text.lines().filter(|line| line.contains("-j TPROXY"));
        lines.all(|line| line.contains("-p tcp") || line.contains("-p udp"))
    });
    out.retain(|smaller| !rules.nat || smaller.text().contains(KEPT) || smaller.text().contains(KEPT_NFT));
    out
}

/// Plainer packets.
fn plainer(shot: &Shot, rules: &Rules) -> Vec<Shot> {
    let mut out = Vec::new();
    let length = shot.packet.length.and_then(|length| u16::try_from(length).ok());
    let mut with = |keep: bool, change: &dyn Fn(&mut Plan)| {
        let mut copy = shot.plan.clone();
        change(&mut copy);
        let mut copy = finish(copy, rules, length.filter(|_| keep));
        copy.split = shot.split.filter(|at| u32::from(*at) * 8 + 40 < copy.packet.length.unwrap_or(0));
        if copy.packet != shot.packet {
            out.push(copy);
        }
    };
    with(false, &|shot| shot.headers.clear());
    with(true, &|shot| shot.headers.clear());
    with(false, &|shot| shot.payload.clear());
    with(false, &|_| ());
    with(true, &|shot| shot.packet.tcp_options = None);
    with(true, &|shot| shot.packet.ttl = Some(64));
    with(true, &|shot| shot.packet.tos = Some(0));
    with(true, &|shot| shot.packet.mark = shot.packet.mark.map(|_| 0));
    with(true, &|shot| (shot.packet.frag_offset, shot.packet.more_fragments) = (None, None));
    with(false, &|shot| shot.packet.proto = Some(Proto(17)));
    out
}

/// The mismatch at its smallest, told in full.
pub(crate) fn told(line: &Line, kernel: &mut Kernel, rules: &Rules, shot: &Shot, seed: u64) -> String {
    let (mut rules, mut shot) = (rules.clone(), shot.clone());
    let Some(mut fates) = differ(line, kernel, &rules, &shot) else {
        return format!("a mismatch that does not come again; seed {seed}\n{}", rules.text());
    };
    let (begun, joins) = (std::time::Instant::now(), rules.joins());
    'again: loop {
        for smaller in smaller(&rules).into_iter().filter(|smaller| smaller.joins() == joins) {
            if begun.elapsed() > LONGEST {
                break 'again;
            }
            if let Some(found) = differ(line, kernel, &smaller, &shot) {
                (rules, fates) = (smaller, found);
                continue 'again;
            }
        }
        for plainer in plainer(&shot, &rules) {
            if begun.elapsed() > LONGEST {
                break 'again;
            }
            if let Some(found) = differ(line, kernel, &rules, &plainer) {
                (shot, fates) = (plainer, found);
                continue 'again;
            }
        }
        break;
    }
    let dumps = kernel.load(&rules).and_then(|()| check::dumps(&rules)).unwrap_or_default();
    let case = Case {
        about: format!("found with seed {seed}"),
        kind: rules.kind,
        v6: rules.v6,
        focus: rules.focus,
        flows: rules.nat,
        packet: shot.packet,
        extensions: Vec::new(),
        split: shot.split,
        kernel: Some(fates.1.clone()),
    };
    let name = format!("{:?}{}_{seed}", rules.kind, if rules.nat { "_flows" } else { "" }).to_lowercase();
    format!(
        "{name}: the walk says {:?}\n{}the kernel {:?}",
        fates.0,
        cases::written(&name, &case, &rules, &dumps),
        fates.1
    )
}
