//! DNSSEC checked here rather than believed: what the chain of keys from the trust anchor down to an
//! answer looks like, and at which link it breaks (RFC 4033 to 4035, RFC 6840).
//!
//! Whether an answer is secure, insecure or bogus is `hickory_net`'s judgement, made in `os::dns::validate`
//! on records fetched by our own sockets; this file puts into words why, from the same records.

use std::collections::BTreeMap;
use std::fmt;

pub use hickory_proto::dnssec::TrustAnchors;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, RRSIG};
use hickory_proto::dnssec::{PublicKey, Verifier};
use hickory_proto::op::Message;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use serde::Serialize;

use crate::wire::calendar;

/// What RFC 4035 4.3 has of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Every signature from the trust anchor down holds.
    Secure,
    /// A zone on the way is provably not signed.
    Insecure,
    /// It ought to be signed rightly, and is not.
    Bogus,
    /// What is needed to tell could not be had.
    Indeterminate,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secure => "secure",
            Self::Insecure => "insecure",
            Self::Bogus => "bogus",
            Self::Indeterminate => "indeterminate",
        })
    }
}

/// One link of the chain of trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Whose records: a zone, or the name asked for.
    pub owner: String,
    /// Their type: `DNSKEY`, `DS`, `A`, …
    #[serde(rename = "type")]
    pub rtype: String,
    /// Whether it holds.
    pub holds: bool,
    /// What it rests on, or why it does not hold.
    pub says: String,
}

/// The result of checking an answer's signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// The verdict.
    pub state: Security,
    /// In a sentence.
    pub because: String,
    /// The server that the records were fetched from.
    pub server: String,
    /// From the trust anchor down.
    pub chain: Vec<Link>,
    /// Questions that it took.
    pub questions: usize,
}

/// A reply as the validator got it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The name asked for.
    pub name: Name,
    /// The type asked for.
    pub rtype: RecordType,
    /// The reply.
    pub message: Message,
}

/// Reads trust anchors: DNSKEY records as zone files have them.
///
/// # Errors
/// In words, when the text is something else or has no key in it.
pub fn read_anchors(text: &str) -> Result<TrustAnchors, String> {
    // The parser stops at a line that does not end.
    let anchors: TrustAnchors = format!("{text}\n").parse().map_err(|error| format!("{error}"))?;
    let keys = text.lines().filter(|line| !line.trim_start().starts_with(';') && line.contains("DNSKEY")).count();
    if keys == 0 { Err("there is no DNSKEY record in it".to_owned()) } else { Ok(anchors) }
}

/// Records of one owner and type, and the signatures over them.
#[derive(Default, Clone)]
struct Set {
    records: Vec<Record>,
    signatures: Vec<RRSIG>,
}

type Sets = BTreeMap<(LowerName, u16), Set>;

fn gather(heard: &[Heard]) -> Sets {
    let mut sets = Sets::new();
    for record in heard.iter().flat_map(|one| one.message.answers.iter().chain(&one.message.authorities)) {
        let owner = LowerName::from(&record.name);
        if let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data {
            let set = sets.entry((owner, signature.input().type_covered.into())).or_default();
            if !set.signatures.contains(signature) {
                set.signatures.push(signature.clone());
            }
            continue;
        }
        let set = sets.entry((owner, record.record_type().into())).or_default();
        if !set.records.iter().any(|known| known.data == record.data) {
            set.records.push(record.clone());
        }
    }
    sets
}

fn keys(set: Option<&Set>) -> Vec<&DNSKEY> {
    let records = set.map(|set| set.records.as_slice()).unwrap_or_default();
    records
        .iter()
        .filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
            _ => None,
        })
        .collect()
}

fn digests(set: Option<&Set>) -> Vec<&DS> {
    let records = set.map(|set| set.records.as_slice()).unwrap_or_default();
    records
        .iter()
        .filter_map(|record| match &record.data {
            RData::DNSSEC(DNSSECRData::DS(digest)) => Some(digest),
            _ => None,
        })
        .collect()
}

fn tag(key: &DNSKEY) -> u16 {
    key.calculate_key_tag().unwrap_or(0)
}

fn tags(keys: &[&DNSKEY]) -> String {
    let list: Vec<String> = keys.iter().map(|key| tag(key).to_string()).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// The chain from the trust anchor to the answers of the first `asked` replies, as far as it was heard; `now` in
/// seconds since 1970.
pub fn chain(heard: &[Heard], asked: &[(Name, RecordType)], anchors: &TrustAnchors, now: u32) -> Vec<Link> {
    let sets = gather(heard);
    let mut links = Vec::new();
    let dnskey = u16::from(RecordType::DNSKEY);
    let mut zones: Vec<Name> = heard
        .iter()
        .filter(|one| matches!(one.rtype, RecordType::DNSKEY | RecordType::DS))
        .map(|one| one.name.to_lowercase())
        .collect();
    zones.sort_by_key(|zone| (zone.num_labels(), zone.to_ascii()));
    zones.dedup();
    for zone in &zones {
        if !zone.is_root() {
            links.extend(delegation(&sets, heard, zone, now));
        }
        let set = sets.get(&(LowerName::from(zone), dnskey));
        if set.is_some_and(|set| !set.records.is_empty()) {
            links.push(zone_keys(&sets, zone, anchors, now));
        } else if heard.iter().any(|one| one.rtype == RecordType::DNSKEY && one.name.to_lowercase() == *zone) {
            links.push(link(zone, RecordType::DNSKEY, false, "the zone publishes no key".to_owned()));
        }
    }
    for (name, rtype) in asked {
        let reply = heard.iter().find(|one| one.name == *name && one.rtype == *rtype);
        let Some(reply) = reply else { continue };
        links.extend(answer(&sets, reply, now));
    }
    links.dedup();
    links
}

fn link(owner: &Name, rtype: RecordType, holds: bool, says: String) -> Link {
    let owner = owner.to_ascii();
    let short = owner.trim_end_matches('.');
    let owner = if short.is_empty() { ".".to_owned() } else { short.to_owned() };
    Link { owner, rtype: rtype.to_string(), holds, says }
}

/// The parent's word on a zone's keys.
fn delegation(sets: &Sets, heard: &[Heard], zone: &Name, now: u32) -> Option<Link> {
    let set = sets.get(&(LowerName::from(zone), RecordType::DS.into()));
    let known = digests(set);
    if let Some(set) = set.filter(|_| !known.is_empty()) {
        let names: Vec<String> = known.iter().map(|digest| digest.key_tag().to_string()).collect();
        return Some(match signed(sets, zone, set, now) {
            Ok(by) => {
                link(zone, RecordType::DS, true, format!("the parent vouches for key {}; {by}", names.join(", ")))
            }
            Err(why) => link(zone, RecordType::DS, false, why),
        });
    }
    let asked = heard.iter().find(|one| one.rtype == RecordType::DS && one.name.to_lowercase() == *zone)?;
    // Without a DS most names are no zones at all; only where there is a delegation does that say something.
    let cut = asked.message.authorities.iter().any(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
            record.name.to_lowercase() == *zone
                && nsec.type_set().contains(RecordType::NS)
                && !nsec.type_set().contains(RecordType::SOA)
        }
        RData::DNSSEC(DNSSECRData::NSEC3(nsec)) => {
            nsec.opt_out() || (nsec.type_set().contains(RecordType::NS) && !nsec.type_set().contains(RecordType::SOA))
        }
        _ => false,
    });
    cut.then(|| {
        link(zone, RecordType::DS, true, "there is none, and the parent proves it: not signed from here on".to_owned())
    })
}

/// A zone's keys: known to the parent or to us, and signed with one that is.
fn zone_keys(sets: &Sets, zone: &Name, anchors: &TrustAnchors, now: u32) -> Link {
    let owner = LowerName::from(zone);
    let set = sets.get(&(owner.clone(), RecordType::DNSKEY.into())).cloned().unwrap_or_default();
    let own = keys(Some(&set));
    let bad = |says: String| link(zone, RecordType::DNSKEY, false, says);
    let anchored: Vec<&DNSKEY> =
        own.iter().filter(|key| anchors.contains_with_name(key.public_key(), &owner)).copied().collect();
    let known = digests(sets.get(&(owner, RecordType::DS.into())));
    let vouched: Vec<&DNSKEY> = own
        .iter()
        .filter(|key| {
            known.iter().any(|digest| digest.key_tag() == tag(key) && digest.covers(zone, key).unwrap_or(false))
        })
        .copied()
        .collect();
    let (trusted, whose) =
        if anchored.is_empty() { (vouched, "the parent's DS") } else { (anchored, "a trust anchor") };
    if trusted.is_empty() {
        if zone.is_root() {
            return bad(format!("none of its keys ({}) is a trust anchor", tags(&own)));
        }
        if known.is_empty() {
            return bad(format!("nobody vouches for its keys ({})", tags(&own)));
        }
        let wanted: Vec<String> = known.iter().map(|digest| digest.key_tag().to_string()).collect();
        let same = own.iter().any(|key| known.iter().any(|digest| digest.key_tag() == tag(key)));
        let why = if same { ", and the digest does not fit that key" } else { "" };
        return bad(format!(
            "the parent vouches for key {}, the zone publishes {}{why}",
            wanted.join(", "),
            tags(&own)
        ));
    }
    match verify(&set, &trusted, now) {
        Ok(by) => link(zone, RecordType::DNSKEY, true, format!("key {} is {whose}; {by}", tags(&trusted))),
        Err(why) => bad(why),
    }
}

/// The records of the answer, or of the proof that there are none.
fn answer(sets: &Sets, reply: &Heard, now: u32) -> Vec<Link> {
    let mut owners: Vec<(Name, RecordType)> = Vec::new();
    let positive = reply.message.answers.iter().any(|record| record.record_type() != RecordType::RRSIG);
    let section = if positive { &reply.message.answers } else { &reply.message.authorities };
    for record in section.iter().filter(|record| record.record_type() != RecordType::RRSIG) {
        let owner = (record.name.to_lowercase(), record.record_type());
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    let mut links: Vec<Link> = Vec::new();
    for (owner, rtype) in &owners {
        let Some(set) = sets.get(&(LowerName::from(owner), u16::from(*rtype))) else { continue };
        links.push(match signed(sets, owner, set, now) {
            Ok(by) => link(owner, *rtype, true, by),
            Err(why) => link(owner, *rtype, false, why),
        });
    }
    let proof = owners.iter().any(|(_, rtype)| matches!(rtype, RecordType::NSEC | RecordType::NSEC3));
    if !positive && !proof {
        links.push(link(&reply.name, reply.rtype, false, "nothing proves that there is no such record".to_owned()));
    }
    links
}

/// Whether records are signed by the zone that the signature names.
fn signed(sets: &Sets, owner: &Name, set: &Set, now: u32) -> Result<String, String> {
    let Some(first) = set.signatures.first() else {
        return Err("it has no signature".to_owned());
    };
    let signer = &first.input().signer_name;
    if !signer.zone_of(owner) {
        return Err(format!("it is signed by {signer}, which is not above it"));
    }
    let set_of_keys = sets.get(&(LowerName::from(signer), RecordType::DNSKEY.into()));
    let own = keys(set_of_keys);
    if own.is_empty() {
        return Err(format!("it is signed by {signer}, whose keys could not be had"));
    }
    verify(set, &own, now)
}

/// Whether one of the signatures holds with one of the keys; else why the best of them does not.
fn verify(set: &Set, keys: &[&DNSKEY], now: u32) -> Result<String, String> {
    let Some(first) = set.records.first() else { return Err("there are no records".to_owned()) };
    let mut reasons: Vec<(u8, String)> = Vec::new();
    for signature in &set.signatures {
        let input = signature.input();
        let (begins, ends) = (input.sig_inception.get(), input.sig_expiration.get());
        let by: Vec<&&DNSKEY> = keys
            .iter()
            .filter(|key| tag(key) == input.key_tag && key.public_key().algorithm() == input.algorithm)
            .collect();
        // RFC 1982: the times are counted round.
        let (old, early) = (later(now, ends), later(begins, now));
        let fits = by.iter().find(|key| {
            key.verify_rrsig(&first.name, first.dns_class, signature, set.records.iter()).is_ok() && key.zone_key()
        });
        match (by.first(), fits) {
            _ if !input.algorithm.is_supported() => {
                reasons.push((1, format!("its algorithm ({}) cannot be checked here", input.algorithm)));
            }
            (Some(_), Some(_)) if old.is_some() => {
                let ago = span(old.unwrap_or(0));
                reasons.push((4, format!("its signature expired {} ({ago} ago)", utc(ends))));
            }
            (Some(_), Some(_)) if early.is_some() => {
                let until = span(early.unwrap_or(0));
                reasons.push((
                    4,
                    format!(
                        "its signature is not valid before {}, in {until}; this host's clock says {}",
                        utc(begins),
                        utc(now)
                    ),
                ));
            }
            (Some(_), Some(_)) => {
                return Ok(format!("signed with key {} ({}), until {}", input.key_tag, input.algorithm, utc(ends)));
            }
            (Some(_), None) => {
                reasons.push((3, format!("its signature by key {} does not fit the data", input.key_tag)));
            }
            (None, _) => {
                let text = format!(
                    "it is signed with key {}, which is not among those trusted ({})",
                    input.key_tag,
                    tags(keys)
                );
                reasons.push((2, text));
            }
        }
    }
    Err(reasons.into_iter().max_by_key(|(rank, _)| *rank).map_or("it has no signature".to_owned(), |(_, why)| why))
}

/// Seconds from `b` to `a`, where `a` is the later one.
fn later(a: u32, b: u32) -> Option<u32> {
    let between = a.wrapping_sub(b);
    (between != 0 && between < 1 << 31).then_some(between)
}

fn span(seconds: u32) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `2026-11-24 02:40 UTC`.
fn utc(seconds: u32) -> String {
    let second = seconds % 86_400;
    format!("{} {:02}:{:02} UTC", calendar::date_of(seconds.into()), second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_round_and_written_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(1_709_210_096), "2024-02-29 12:34 UTC");
        assert_eq!(later(5, 3), Some(2));
        assert_eq!(later(3, 5), None);
        assert_eq!(later(2, u32::MAX), Some(3));
        assert_eq!(span(3 * 86_400), "3 days");
    }

    #[test]
    fn anchors_are_read_or_refused() {
        let root = ". 172800 IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kvArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+eoZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwNR1AkUTV74bU=";
        assert_eq!(read_anchors(root).unwrap().len(), 1);
        assert!(read_anchors("hello").is_err());
        assert!(read_anchors("").is_err());
    }
}
