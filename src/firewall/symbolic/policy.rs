//! Policies: what a ruleset is for, as claims about sets of packets and whole flows (TOML).

use serde::{Deserialize, Serialize};

use super::expr::Packets;

/// What a claim expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The packets pass.
    Accept,
    /// They are dropped, with or without a word.
    Drop,
    /// They are dropped and their sender told.
    Reject,
    /// The flow gets through, both ways.
    Works,
    /// The flow does not.
    Fails,
}

impl Expect {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Works => "works",
            Self::Fails => "fails",
        }
    }
}

/// Of how many packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantifier {
    /// Every one.
    #[default]
    All,
    /// At least one.
    Some,
}

/// A text, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    rules: Option<Texts>,
    #[serde(default)]
    ipset: Option<Texts>,
    #[serde(default)]
    check: Vec<RawClaim>,
    #[serde(default)]
    change: Vec<RawChange>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaim {
    name: Option<String>,
    expect: Expect,
    packets: Option<Texts>,
    flow: Option<Texts>,
    #[serde(default, rename = "for")]
    quantifier: Quantifier,
    #[serde(default)]
    except: Option<Texts>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChange {
    packets: Texts,
    to: Option<Expect>,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What it says, in the writer's words.
    pub name: String,
    /// What must become of the packets.
    pub expect: Expect,
    /// The packets.
    pub packets: Vec<Packets>,
    /// Those that are not meant.
    pub except: Vec<Packets>,
    /// Whether whole flows are meant that these packets open.
    pub flow: bool,
    /// Of how many of them.
    pub quantifier: Quantifier,
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The file.
    pub source: String,
    /// Rulesets that it is about, beside it.
    pub rules: Vec<String>,
    /// Sets of those rulesets.
    pub ipset: Vec<String>,
    /// The claims.
    pub claims: Vec<Claim>,
    /// What may change against an older ruleset, and to what.
    pub changes: Vec<(Packets, Option<Expect>)>,
}

/// A text that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct BadPolicy {
    /// The file.
    pub origin: String,
    /// What is wrong, and where.
    pub message: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(text: &str, source: &str) -> Result<Self, BadPolicy> {
        let bad = |message: String| BadPolicy { origin: source.to_owned(), message };
        let document: Document = toml::from_str(text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
        let list = |texts: Option<Texts>| texts.map(Texts::list).unwrap_or_default();
        let mut policy = Self {
            source: source.to_owned(),
            rules: list(document.rules),
            ipset: list(document.ipset),
            ..Self::default()
        };
        for (number, raw) in (1..).zip(document.check) {
            let called = raw.name.clone().unwrap_or_else(|| format!("check {number}"));
            let read = |texts: Vec<String>| -> Result<Vec<Packets>, BadPolicy> {
                texts
                    .iter()
                    .map(|text| Packets::read(text).map_err(|e| bad(format!("check {number} ({called}): {e}"))))
                    .collect()
            };
            let (flow, texts) = match (raw.packets, raw.flow) {
                (Some(packets), None) => (false, packets.list()),
                (None, Some(flow)) => (true, flow.list()),
                (Some(_), Some(_)) => {
                    return Err(bad(format!("check {number} ({called}): it has both `packets` and `flow`")));
                }
                (None, None) => {
                    return Err(bad(format!("check {number} ({called}): it has neither `packets` nor `flow`")));
                }
            };
            let expect = match (raw.expect, flow) {
                (Expect::Accept, true) => Expect::Works,
                (Expect::Drop | Expect::Reject, true) => Expect::Fails,
                (Expect::Works | Expect::Fails, false) => {
                    return Err(bad(format!("check {number} ({called}): `{}` is said of a `flow`", raw.expect.name())));
                }
                (expect, _) => expect,
            };
            let packets = read(texts)?;
            if flow && packets.iter().any(Packets::is_one_way) {
                return Err(bad(format!(
                    "check {number} ({called}): a flow is told by its ends, ports and interfaces; flags and states are its own"
                )));
            }
            policy.claims.push(Claim {
                name: raw.name.unwrap_or_else(|| texts_of(&packets, raw.expect)),
                expect,
                packets,
                except: read(list(raw.except))?,
                flow,
                quantifier: raw.quantifier,
            });
        }
        for raw in document.change {
            for text in raw.packets.list() {
                let packets = Packets::read(&text).map_err(|e| bad(format!("change: {e}")))?;
                policy.changes.push((packets, raw.to));
            }
        }
        Ok(policy)
    }
}

fn texts_of(packets: &[Packets], expect: Expect) -> String {
    let texts: Vec<&str> = packets.iter().map(|packets| packets.text.as_str()).collect();
    format!("{} {}", expect.name(), texts.join("; "))
}
