//! Random rulesets: what the sets say of a packet is what the walk says.

use std::collections::{BTreeSet, HashMap};

use reachwhy::firewall::symbolic::{Field, Model, Set, Space, Way, variables};
use reachwhy::firewall::walk::{Facts, Verdict, walk};
use reachwhy::host::Backend;

use crate::random::{Kind, Random, ruleset};
use crate::stack;

/// A number for a field that the rules may care about.
fn number(r: &mut Random, space: &Space, field: Field) -> u128 {
    let list = |r: &mut Random, list: &[u128]| list[r.below(list.len())];
    let v4 = [
        0x0a01_0107,
        0x0a01_0105,
        0x0a02_0203,
        0xc0a8_0105,
        0xc0a8_0106,
        0x0a00_0201,
        0x0909_0909,
        0xe000_0001,
        0x7f00_0001,
    ];
    let v6 = [
        (0x2001_0db8_0001_u128 << 80) | 7,
        (0x2001_0db8_0002_u128 << 80) | 5,
        0xfe80_u128 << 112 | 9,
        0x2a00_u128 << 112 | 1,
    ];
    match field {
        Field::Frag => r.below(2) as u128,
        Field::To => r.below(3) as u128,
        Field::In | Field::Out => r.below(space.names.names.len()) as u128,
        Field::Proto => list(r, &[6, 6, 6, 17, 17, if space.v6 { 58 } else { 1 }, 47, 132]),
        Field::Ct => list(r, &[0, 0, 1, 2, 3]),
        Field::Dst | Field::Src => {
            if space.v6 {
                list(r, &v6)
            } else {
                list(r, &v4)
            }
        }
        Field::Dport | Field::Sport => list(
            r,
            &[22, 53, 54, 80, 443, 8000, 8100, 8101, 1023, 1024, 40_000, 0x0800, 0x0304, 0x8000, 135 << 8, 65_535, 0],
        ),
        Field::Flags => list(r, &[2, 16, 18, 3, 0, 41, 4]),
        Field::Mac => list(r, &[0x0200_0000_0001, 0x0200_0000_0002]),
        Field::PktType => list(r, &[0, 0, 2]),
        Field::Mark => list(r, &[0, 1, 4, 5, 0x104]),
        Field::Connmark => list(r, &[0, 1, 2]),
        Field::Length => list(r, &[60, 100, 101, 1000]),
        Field::Ttl => list(r, &[63, 64, 65, 3]),
        Field::Tos => list(r, &[0, 0x10, 0x11]),
        Field::Uid | Field::Gid => list(r, &[0, 1000]),
        _ => 0,
    }
}

fn assignment(r: &mut Random, space: &Space) -> HashMap<u32, bool> {
    let mut path = HashMap::new();
    for field in Field::EVERY {
        let value = number(r, space, field);
        let (start, width) = space.bits(field);
        for n in 0..width {
            path.insert(start + width - 1 - n, value >> n & 1 == 1);
        }
    }
    path
}

fn check(seed: u64, kind: Kind, backend: Backend) -> usize {
    let mut r = Random::new(seed);
    let rules = ruleset(&mut r, kind);
    let stack = stack(&rules, kind.v6, backend);
    let mut space = variables(&[&stack], kind.v6, &[]);
    let universe: Vec<Set> = Way::EVERY.iter().map(|way| space.universe(*way, false)).collect();
    let mut model = Model::new(&stack, &mut space);
    let fates = model.fates(false);
    let mut compared = 0;
    for _ in 0..150 {
        let path = assignment(&mut r, model.space);
        let value = |level: u32| path.get(&level).copied().unwrap_or(false);
        for (n, (way, fates)) in fates.iter().enumerate() {
            if !model.space.bdd.holds(universe[n], &value) {
                continue;
            }
            let packet = model.space.assemble(&path, *way, &|_| true);
            let outcome = walk(&stack, &packet, &Facts::none());
            let tests = model.space.tests();
            // The types of addresses are the host's facts, which the walk is not given.
            let facts: Vec<u32> = [Field::DstType, Field::SrcType]
                .iter()
                .flat_map(|field| {
                    let (start, width) = model.space.bits(*field);
                    start..start + width
                })
                .collect();
            let mut said = BTreeSet::new();
            for (fate, set) in fates {
                let may = model.space.bdd.some(*set, &|level| tests.contains(&level) || facts.contains(&level));
                if model.space.bdd.holds(may, &value) {
                    said.insert(fate.verdict().name());
                }
            }
            let walked: BTreeSet<&str> = if outcome.verdict == Verdict::Unknown {
                outcome.branches.iter().map(|branch| branch.verdict.name()).collect()
            } else {
                BTreeSet::from([outcome.verdict.name()])
            };
            // A redirected packet is this host's, whatever `to` says.
            if *way == Way::Forward && outcome.path.iter().any(|step| step.action == "redirect") {
                continue;
            }
            if outcome.branches.len() >= 64 {
                continue;
            }
            compared += 1;
            assert_eq!(
                said,
                walked,
                "seed {seed} {backend:?} v6 {} {}\n{packet}\n{rules}\n{}",
                kind.v6,
                way.name(),
                outcome
                    .path
                    .iter()
                    .map(|step| format!("{} {}", step.at.place(), step.action))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
    }
    compared
}

#[test]
fn sets_say_of_a_packet_what_the_walk_says() {
    let mut compared = 0;
    for seed in 1..=160u64 {
        let kind = Kind { v6: seed % 4 == 0, nat: seed % 3 == 0, open: seed % 5 == 0, state: seed % 2 == 0 };
        let backend = if seed % 7 < 3 { Backend::Legacy } else { Backend::Nft };
        compared += check(seed, kind, backend);
    }
    assert!(compared > 3_000, "only {compared} packets were compared");
}
