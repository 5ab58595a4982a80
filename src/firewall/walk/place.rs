//! What a walk notes on its way, small enough to be noted a million times a second: places and
//! actions without words. An [`Answer`] finds the words when it is told.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use crate::firewall::packet::{Packet, Reply};
use crate::firewall::ruleset::{Family, Hook, Policy, RejectWith};
use crate::host::Backend;

use super::stack::{ChainAt, Stack};
use super::{Branch, DecidedBy, NearMiss, Outcome, Step, Verdict};

/// A rule, or the policy of a chain, and the hook at which it was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: ChainAt,
    /// From 1; `None` for the policy.
    pub(crate) rule: Option<u32>,
    pub(crate) hook: Hook,
}

/// What a rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Is(&'static str),
    Jump(ChainAt),
    Goto(ChainAt),
    Reject(RejectWith),
    /// In its own words.
    Says(Box<str>),
}

impl Action {
    fn words<'s>(&'s self, stack: &'s Stack) -> Cow<'s, str> {
        let name = |at: &ChainAt| stack.at(*at).map_or("", |(_, _, chain)| chain.name.as_str());
        match self {
            Self::Is(word) => Cow::Borrowed(word),
            Self::Jump(at) => Cow::Owned(format!("jump {}", name(at))),
            Self::Goto(at) => Cow::Owned(format!("goto {}", name(at))),
            Self::Reject(with) => Cow::Owned(format!("reject {}", with.name())),
            Self::Says(text) => Cow::Borrowed(text),
        }
    }
}

/// One rule that matched, or one policy that was reached.
#[derive(Debug, Clone)]
pub(crate) struct Trod {
    pub(crate) at: Place,
    pub(crate) action: Action,
}

/// One way the walk can go.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) given: Vec<String>,
    pub(crate) verdict: Verdict,
    pub(crate) reject_with: Option<String>,
    pub(crate) by: Option<Place>,
}

/// The answer to one packet, of which the words are still in the ruleset. It serialises as the
/// [`Outcome`] that it becomes.
#[derive(Debug, Clone)]
pub struct Answer<'s> {
    pub(crate) stack: &'s Stack,
    pub(crate) id: Option<serde_json::Value>,
    pub(crate) verdict: Verdict,
    pub(crate) reject_with: Option<String>,
    pub(crate) reply: Option<Reply>,
    pub(crate) by: Option<Place>,
    pub(crate) reason: Option<Cow<'static, str>>,
    pub(crate) path: Vec<Trod>,
    pub(crate) out: Packet,
    pub(crate) assumed: Vec<Cow<'static, str>>,
    pub(crate) branches: Vec<Way>,
    pub(crate) near: Option<NearMiss>,
}

impl Answer<'_> {
    /// What becomes of the packet.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether a rule or a policy is named for the verdict.
    pub fn is_decided(&self) -> bool {
        self.by.is_some()
    }

    /// The number of the rule that decided, from 1; `None` for a policy and where none did.
    pub fn rule(&self) -> Option<u32> {
        self.by.and_then(|by| by.rule)
    }

    /// Adds something that the answer rests on.
    pub fn assume(&mut self, what: impl Into<Cow<'static, str>>) {
        self.assumed.push(what.into());
    }

    /// The answer in full.
    pub fn outcome(self) -> Outcome {
        let told = |place: Place| self.stack.told(place);
        let branch = |way: Way| Branch {
            given: way.given,
            verdict: way.verdict,
            reject_with: way.reject_with,
            decided_by: way.by.map(told),
        };
        Outcome {
            id: self.id,
            verdict: self.verdict,
            reject_with: self.reject_with,
            reply: self.reply,
            decided_by: self.by.map(told),
            reason: self.reason.map(Cow::into_owned),
            path: self
                .path
                .iter()
                .map(|s| Step { at: told(s.at), action: s.action.words(self.stack).into_owned() })
                .collect(),
            packet_out: self.out,
            assumed: self.assumed.into_iter().map(Cow::into_owned).collect(),
            branches: self.branches.into_iter().map(branch).collect(),
            near_miss: self.near,
        }
    }
}

/// [`DecidedBy`] with borrowed words.
struct Told<'s> {
    table: &'s str,
    family: Family,
    chain: &'s str,
    rule: Option<u32>,
    line: Option<u32>,
    text: Cow<'s, str>,
    backend: Backend,
    handle: Option<u64>,
    source: &'s str,
    hook: Hook,
}

impl Stack {
    fn words(&self, place: Place) -> Told<'_> {
        let mut told = Told {
            table: "",
            family: Family::Inet,
            chain: "",
            rule: place.rule,
            line: None,
            text: Cow::Borrowed(""),
            backend: Backend::Nft,
            handle: None,
            source: "",
            hook: place.hook,
        };
        let Some((ruleset, table, chain)) = self.at(place.at) else { return told };
        (told.table, told.family, told.chain) = (&table.name, table.family, &chain.name);
        (told.backend, told.source) = (ruleset.backend, &ruleset.source);
        let number = place.rule.and_then(|n| usize::try_from(n).ok());
        if let Some(rule) = number.and_then(|n| chain.rules.get(n.checked_sub(1)?)) {
            (told.line, told.handle) = (rule.line, rule.handle);
            told.text = if rule.text.is_empty() {
                Cow::Owned(format!("-A {} {rule}", chain.name))
            } else {
                Cow::Borrowed(&rule.text)
            };
        } else {
            (told.line, told.handle) = (chain.line, chain.handle);
            told.text = Cow::Borrowed(match chain.base.as_ref().map(|base| base.policy) {
                Some(Policy::Drop) => "policy DROP",
                _ => "policy ACCEPT",
            });
        }
        told
    }

    /// A place in words.
    pub(crate) fn told(&self, place: Place) -> DecidedBy {
        let told = self.words(place);
        DecidedBy {
            table: told.table.to_owned(),
            family: told.family,
            chain: told.chain.to_owned(),
            rule: told.rule,
            line: told.line,
            text: told.text.into_owned(),
            backend: told.backend,
            handle: told.handle,
            source: told.source.to_owned(),
            hook: told.hook,
        }
    }
}

impl Told<'_> {
    fn write<S: SerializeStruct>(&self, s: &mut S) -> Result<(), S::Error> {
        s.serialize_field("table", self.table)?;
        s.serialize_field("family", &self.family)?;
        s.serialize_field("chain", self.chain)?;
        s.serialize_field("rule", &self.rule)?;
        s.serialize_field("line", &self.line)?;
        s.serialize_field("text", &*self.text)?;
        s.serialize_field("backend", &self.backend)?;
        if let Some(handle) = &self.handle {
            s.serialize_field("handle", handle)?;
        }
        s.serialize_field("source", self.source)?;
        s.serialize_field("hook", &self.hook)
    }
}

/// A place as it is told: a [`DecidedBy`].
struct Named<'a>(&'a Stack, Place);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("DecidedBy", 10)?;
        self.0.words(self.1).write(&mut s)?;
        s.end()
    }
}

/// A [`Step`].
struct Stepped<'a>(&'a Stack, &'a Trod);

impl Serialize for Stepped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Step", 11)?;
        self.0.words(self.1.at).write(&mut s)?;
        s.serialize_field("action", &self.1.action.words(self.0))?;
        s.end()
    }
}

struct Path<'a>(&'a Stack, &'a [Trod]);

impl Serialize for Path<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_seq(Some(self.1.len()))?;
        for step in self.1 {
            s.serialize_element(&Stepped(self.0, step))?;
        }
        s.end()
    }
}

/// A [`Branch`].
struct Branched<'a>(&'a Stack, &'a Way);

impl Serialize for Branched<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Branch", 4)?;
        s.serialize_field("given", &self.1.given)?;
        s.serialize_field("verdict", &self.1.verdict)?;
        if let Some(with) = &self.1.reject_with {
            s.serialize_field("reject_with", with)?;
        }
        s.serialize_field("decided_by", &self.1.by.map(|by| Named(self.0, by)))?;
        s.end()
    }
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stack = self.stack;
        let mut s = serializer.serialize_struct("Outcome", 11)?;
        s.serialize_field("id", &self.id)?;
        s.serialize_field("verdict", &self.verdict)?;
        s.serialize_field("reject_with", &self.reject_with)?;
        if let Some(reply) = &self.reply {
            s.serialize_field("reply", reply)?;
        }
        s.serialize_field("decided_by", &self.by.map(|by| Named(stack, by)))?;
        if let Some(reason) = &self.reason {
            s.serialize_field("reason", reason)?;
        }
        s.serialize_field("path", &Path(stack, &self.path))?;
        s.serialize_field("packet_out", &self.out)?;
        s.serialize_field("assumed", &self.assumed)?;
        s.serialize_field("branches", &self.branches.iter().map(|way| Branched(stack, way)).collect::<Vec<_>>())?;
        s.serialize_field("near_miss", &self.near)?;
        s.end()
    }
}
