//! All rulesets of one host.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use crate::firewall::keyed::ByName;
use crate::firewall::parse::{self, ParseError, Warning};
use crate::firewall::ruleset::{Base, Chain, ChainKind, Family, Hook, Ruleset, Set, Table};
use crate::host::{Backend, DumpFormat, RulesetDump};

use super::track::runs_at;

/// All rulesets of one host (one network namespace), as the kernel runs them together.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    rulesets: Vec<Ruleset>,
    /// Ruleset → table → chain name → chain.
    names: Vec<Vec<ByName<String, usize>>>,
    /// Whether a rule asks for conntrack, for IPv4 and for IPv6: else it does not run.
    tracked: [bool; 2],
    /// The same of what only puts fragments together.
    whole: [bool; 2],
    /// For each hook, IPv4 and IPv6: the base chains in the kernel's order.
    bases: [[Vec<ChainAt>; 2]; 7],
    /// Whether there is a nat chain for IPv4, for IPv6.
    translates: [bool; 2],
    /// ipset name → (ruleset, set).
    sets: ByName<String, (usize, usize)>,
    /// The masks of the lists of `recent`.
    recent: HashMap<(String, bool), Option<IpAddr>>,
    /// Rulesets that are there and could not be read: no packet can be said to pass.
    unread: Vec<String>,
}

/// What was odd about a host's dumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issue {
    /// A dump could not be read; its rules are not in the stack.
    Unread(ParseError),
    /// A dump was read in spite of something odd.
    Odd(Warning),
    /// A table came in two dumps, and one of them was taken.
    Twice {
        /// `ip filter`
        table: String,
        /// The source that was left out.
        left_out: String,
    },
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(error) => error.fmt(f),
            Self::Odd(warning) => warning.fmt(f),
            Self::Twice { table, left_out } => {
                write!(f, "table {table} of {left_out} is left out: another dump has it in iptables' own words")
            }
        }
    }
}

/// A chain by its place in a [`Stack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainAt {
    pub(crate) ruleset: usize,
    pub(crate) table: usize,
    pub(crate) chain: usize,
}

impl Stack {
    /// Reads a host's dumps. A dump that cannot be read becomes an [`Issue::Unread`] and keeps
    /// every verdict of this stack from being a certain accept.
    pub fn from_dumps(dumps: &[RulesetDump]) -> (Self, Vec<Issue>) {
        let (mut rulesets, mut issues, mut unread) = (Vec::new(), Vec::new(), Vec::new());
        for dump in dumps {
            match parse::dump(dump) {
                Ok(parsed) => {
                    issues.extend(parsed.warnings.into_iter().map(Issue::Odd));
                    rulesets.push((dump.format, parsed.ruleset));
                }
                Err(error) => {
                    unread.push(format!("{}, line {}: {}", error.source, error.line, error.message));
                    issues.push(Issue::Unread(error));
                }
            }
        }
        // iptables-nft's tables are in `nft list ruleset` too, in words that nft itself calls
        // incompatible; iptables-save's are complete.
        let saved: Vec<(Family, String)> = rulesets
            .iter()
            .filter(|(format, ruleset)| {
                !matches!(format, DumpFormat::NftJson | DumpFormat::NftText) && ruleset.backend == Backend::Nft
            })
            .flat_map(|(_, ruleset)| ruleset.tables.iter().map(|t| (t.family, t.name.clone())))
            .collect();
        let rulesets = rulesets.into_iter().map(|(format, mut ruleset)| {
            if matches!(format, DumpFormat::NftJson | DumpFormat::NftText) {
                let source = ruleset.source.clone();
                ruleset.tables.retain(|table| {
                    let twice = table.is_iptables_shaped() && saved.contains(&(table.family, table.name.clone()));
                    if twice {
                        let table = format!("{} {}", table.family, table.name);
                        issues.push(Issue::Twice { table, left_out: source.clone() });
                    }
                    !twice
                });
            }
            ruleset
        });
        let mut stack = Self::from_rulesets(rulesets.collect::<Vec<_>>());
        stack.unread = unread;
        (stack, issues)
    }

    /// Puts rulesets that are read already together.
    pub fn from_rulesets(rulesets: impl IntoIterator<Item = Ruleset>) -> Self {
        let rulesets: Vec<_> = rulesets.into_iter().collect();
        let chains =
            |table: &Table| table.chains.iter().enumerate().map(|(index, chain)| (chain.name.clone(), index)).collect();
        let names = rulesets.iter().map(|ruleset| ruleset.tables.iter().map(chains).collect()).collect();
        let (tracked, whole) = super::asks::conntrack(&rulesets);
        let recent = super::asks::recent_masks(&rulesets);
        let mut stack = Self { rulesets, names, tracked, whole, recent, ..Self::default() };
        for (r, ruleset) in stack.rulesets.iter().enumerate() {
            for (s, set) in ruleset.sets.iter().enumerate() {
                stack.sets.entry(set.name.clone()).or_insert((r, s));
            }
        }
        stack.find_bases();
        stack
    }

    fn find_bases(&mut self) {
        let mut bases: [[Vec<(ChainAt, &Base)>; 2]; 7] = Default::default();
        let mut translates = [false; 2];
        for (at, _, table, chain) in self.chains() {
            let Some(base) = &chain.base else { continue };
            for v6 in [false, true] {
                if table.family.sees(v6) {
                    bases[base.hook as usize][usize::from(v6)].push((at, base));
                    translates[usize::from(v6)] |= base.kind == ChainKind::Nat;
                }
            }
        }
        let bases = bases.map(|families| {
            families.map(|mut found| {
                found.reverse();
                found.sort_by_key(|(_, base)| runs_at(base));
                found.into_iter().map(|(at, _)| at).collect()
            })
        });
        (self.bases, self.translates) = (bases, translates);
    }

    /// The rulesets.
    pub fn rulesets(&self) -> &[Ruleset] {
        &self.rulesets
    }

    /// Rulesets that are there and could not be read, and why.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Whether there is no rule and no dropping policy at all, so that every packet passes.
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
            && self.rulesets.iter().flat_map(|r| &r.tables).flat_map(|t| &t.chains).all(|chain| {
                chain.rules.is_empty()
                    && chain.base.as_ref().is_none_or(|b| b.policy == super::super::ruleset::Policy::Accept)
            })
    }

    /// Every chain with its place.
    pub fn chains(&self) -> impl Iterator<Item = (ChainAt, &Ruleset, &Table, &Chain)> {
        self.rulesets.iter().enumerate().flat_map(|(r, ruleset)| {
            ruleset.tables.iter().enumerate().flat_map(move |(t, table)| {
                let at = move |chain| ChainAt { ruleset: r, table: t, chain };
                table.chains.iter().enumerate().map(move |(c, chain)| (at(c), ruleset, table, chain))
            })
        })
    }

    /// The ruleset, table and chain at a place.
    pub(crate) fn at(&self, at: ChainAt) -> Option<(&Ruleset, &Table, &Chain)> {
        let ruleset = self.rulesets.get(at.ruleset)?;
        let table = ruleset.tables.get(at.table)?;
        Some((ruleset, table, table.chains.get(at.chain)?))
    }

    /// A chain of the same table by name.
    pub(crate) fn sibling(&self, at: ChainAt, name: &str) -> Option<ChainAt> {
        let chain = *self.names.get(at.ruleset)?.get(at.table)?.get(name)?;
        Some(ChainAt { chain, ..at })
    }

    /// The base chains that a packet of one family meets at one hook, in the kernel's order.
    ///
    /// Of equal priority the one registered later runs first (`net/netfilter/core.c`,
    /// `nf_hook_entries_grow`); dumps list them as they were made.
    #[allow(dead_code, reason = "for the analyses of whole rulesets")]
    pub(crate) fn base_chains(&self, hook: Hook, v6: bool) -> Vec<(ChainAt, &Base)> {
        self.bases_at(hook, v6).collect()
    }

    /// The same one by one.
    pub(crate) fn bases_at(&self, hook: Hook, v6: bool) -> impl Iterator<Item = (ChainAt, &Base)> {
        let found = self.bases[hook as usize][usize::from(v6)].iter();
        found.filter_map(|at| Some((*at, self.at(*at)?.2.base.as_ref()?)))
    }

    /// Whether conntrack runs for a family: some rule asks for it (`nf_ct_netns_get`).
    pub(crate) fn tracks(&self, v6: bool) -> bool {
        self.tracked[usize::from(v6)]
    }

    /// Whether fragments are put together before any rule sees them (`nf_defrag_ipv4_enable`).
    pub(crate) fn defragments(&self, v6: bool) -> bool {
        self.tracks(v6) || self.whole[usize::from(v6)]
    }

    /// The mask of a list of `recent`.
    pub(crate) fn recent_mask(&self, name: &str, v6: bool) -> Option<IpAddr> {
        self.recent.get(&(name.to_owned(), v6)).copied().flatten()
    }

    /// Whether packets of a family are translated at all: there is a nat chain that sees them.
    pub(crate) fn translates(&self, v6: bool) -> bool {
        self.translates[usize::from(v6)]
    }

    /// An ipset by name.
    pub(crate) fn set(&self, name: &str) -> Option<&Set> {
        let (ruleset, set) = *self.sets.get(name)?;
        self.rulesets.get(ruleset)?.sets.get(set)
    }
}
