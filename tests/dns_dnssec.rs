//! DNSSEC checked from a trust anchor down, against zones signed here: what holds, what is not signed, what is
//! wrong and why.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "a test")]

mod dns_support;
mod probe_support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dns_support::server::{Asked, Reply, serve};
use dns_support::{Etc, dns};
use hickory_proto::dnssec::crypto::Ed25519SigningKey;
use hickory_proto::dnssec::rdata::sig::SigInput;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, NSEC, RRSIG};
use hickory_proto::dnssec::{Algorithm, DigestType, DnssecSigner, SigningKey, TBS};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use probe_support::sandboxed;
use serde_json::Value;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY: i64 = 86_400;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

struct Zone {
    origin: Name,
    signer: DnssecSigner,
    key: DNSKEY,
}

impl Zone {
    fn new(origin: &str) -> Self {
        let pkcs8 = Ed25519SigningKey::generate_pkcs8().unwrap();
        let secret = Ed25519SigningKey::from_pkcs8(&pkcs8).unwrap();
        let key = DNSKEY::new(true, true, false, secret.to_public_key().unwrap());
        let signer = DnssecSigner::new(key.clone(), Box::new(secret), name(origin), Duration::from_secs(1));
        Self { origin: name(origin), signer, key }
    }

    fn keys(&self) -> Vec<Record> {
        vec![record(&self.origin, RData::DNSSEC(DNSSECRData::DNSKEY(self.key.clone())))]
    }

    fn digest(&self) -> DS {
        DS::from_key(self.signer.key().to_public_key().as_ref().unwrap(), &self.origin, DigestType::SHA256).unwrap()
    }

    fn anchor(&self) -> String {
        format!("{} 3600 IN DNSKEY {}\n", self.origin, self.key)
    }

    /// The records with a signature that holds from one day to another, counted from now.
    fn signed(&self, records: Vec<Record>, days: std::ops::Range<i64>) -> Vec<Record> {
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let at = |days: i64| SerialNumber::new(u32::try_from(now + days * DAY).unwrap());
        let owner = records[0].name.clone();
        let input = SigInput {
            type_covered: records[0].record_type(),
            algorithm: Algorithm::ED25519,
            num_labels: owner.num_labels(),
            original_ttl: 60,
            sig_expiration: at(days.end),
            sig_inception: at(days.start),
            key_tag: self.signer.calculate_key_tag().unwrap(),
            signer_name: self.origin.clone(),
        };
        let octets = TBS::from_input(&owner, DNSClass::IN, &input, records.iter()).unwrap();
        let signature = RRSIG::from_sig(input, self.signer.sign(&octets).unwrap());
        let mut all = records;
        all.push(record(&owner, RData::DNSSEC(DNSSECRData::RRSIG(signature))));
        all
    }

    fn well(&self, records: Vec<Record>) -> Vec<Record> {
        self.signed(records, -1..7)
    }

    fn soa(&self) -> Vec<Record> {
        self.well(vec![record(&self.origin, RData::SOA(SOA::new(name("ns."), name("root."), 1, 60, 60, 60, 60)))])
    }

    fn gap(&self, owner: &Name, next: &str, types: &[RecordType]) -> Vec<Record> {
        let nsec = NSEC::new(name(next), types.iter().copied());
        self.well(vec![record(owner, RData::DNSSEC(DNSSECRData::NSEC(nsec)))])
    }
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), 60, data)
}

fn address(owner: &Name, last: u8) -> Record {
    record(owner, RData::A(Ipv4Addr::new(10, 0, 0, last).into()))
}

/// `.` → `lab.` → `sub.lab.`; `plain.lab.` is not signed; `badds.lab.` has other keys than its parent says.
struct World {
    root: Zone,
    lab: Zone,
    sub: Zone,
    other: Zone,
}

impl World {
    fn zone(&self, owner: &Name) -> &Zone {
        let text = owner.to_lowercase().to_ascii();
        if text == "sub.lab." || text.ends_with(".sub.lab.") {
            &self.sub
        } else if text == "badds.lab." {
            &self.other
        } else if text == "lab." || text.ends_with(".lab.") {
            &self.lab
        } else {
            &self.root
        }
    }

    fn answer(&self, owner: &Name, rtype: RecordType) -> (ResponseCode, Vec<Record>, Vec<Record>) {
        let text = owner.to_lowercase().to_ascii();
        let zone = self.zone(owner);
        let yes = |records: Vec<Record>| (ResponseCode::NoError, records, Vec::new());
        match (text.as_str(), rtype) {
            ("." | "lab." | "sub.lab." | "badds.lab.", RecordType::DNSKEY) => return yes(zone.well(zone.keys())),
            ("lab.", RecordType::DS) => {
                let digest = record(owner, RData::DNSSEC(DNSSECRData::DS(self.lab.digest())));
                return yes(self.root.well(vec![digest]));
            }
            ("sub.lab." | "badds.lab.", RecordType::DS) => {
                let digest = record(owner, RData::DNSSEC(DNSSECRData::DS(self.sub.digest())));
                return yes(self.lab.well(vec![digest]));
            }
            ("api.lab." | "www.sub.lab." | "badds.lab.", RecordType::A) => {
                return yes(zone.well(vec![address(owner, 1)]));
            }
            ("old.lab.", RecordType::A) => return yes(zone.signed(vec![address(owner, 2)], -9..-3)),
            ("early.lab.", RecordType::A) => return yes(zone.signed(vec![address(owner, 3)], 3..9)),
            ("forged.lab.", RecordType::A) => {
                let mut records = zone.well(vec![address(owner, 4)]);
                records[0] = address(owner, 66);
                return yes(records);
            }
            ("bare.lab." | "host.plain.lab.", RecordType::A) => return yes(vec![address(owner, 5)]),
            ("stranger.lab.", RecordType::A) => {
                let mut records = self.other.well(vec![address(owner, 6)]);
                if let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &records[1].data {
                    let mut input = signature.input().clone();
                    input.signer_name = name("lab.");
                    let signature = RRSIG::from_sig(input, signature.sig().to_vec());
                    records[1] = record(owner, RData::DNSSEC(DNSSECRData::RRSIG(signature)));
                }
                return yes(records);
            }
            ("lab." | "sub.lab." | "plain.lab." | "badds.lab.", RecordType::NS) => {
                return yes(vec![record(owner, RData::NS(hickory_proto::rr::rdata::NS(name("ns."))))]);
            }
            ("broken.lab.", _) => return (ResponseCode::ServFail, Vec::new(), Vec::new()),
            _ => {}
        }
        let exists = [
            "lab.", "api.lab.", "old.lab.", "early.lab.", "forged.lab.", "bare.lab.", "stranger.lab.", "www.sub.lab.",
            "plain.lab.", "host.plain.lab.", "sub.lab.", "badds.lab.", ".",
        ];
        if text.ends_with("plain.lab.") && rtype != RecordType::DS {
            return (ResponseCode::NoError, Vec::new(), Vec::new());
        }
        let mut no = zone.soa();
        if text == "plain.lab." {
            no.extend(self.lab.gap(owner, "q.lab.", &[RecordType::NS, RecordType::NSEC, RecordType::RRSIG]));
            return (ResponseCode::NoError, Vec::new(), no);
        }
        if exists.contains(&text.as_str()) {
            let next = format!("0.{}", text.trim_start_matches('.'));
            no.extend(zone.gap(owner, &next, &[RecordType::A, RecordType::NSEC, RecordType::RRSIG]));
            return (ResponseCode::NoError, Vec::new(), no);
        }
        if text != "unproved.lab." {
            let last = format!("zzz.{}", zone.origin.to_ascii().trim_start_matches('.'));
            no.extend(zone.gap(&zone.origin, &last, &[RecordType::NS, RecordType::SOA, RecordType::DNSKEY]));
        }
        (ResponseCode::NXDomain, Vec::new(), no)
    }
}

fn reply(world: &World, asked: &Asked) -> Vec<Reply> {
    let text = if asked.name.is_empty() { "." } else { &asked.name };
    let (owner, rtype) = (name(text), RecordType::from(asked.rtype));
    let (code, answers, authorities) = world.answer(&owner, rtype);
    let mut message = Message::response(asked.id, OpCode::Query);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_query(Query::query(owner, rtype));
    message.insert_answers(answers);
    message.insert_authorities(authorities);
    vec![(Duration::ZERO, message.to_vec().unwrap())]
}

fn state(report: &Value) -> (String, String) {
    let text = |key: &str| report["dnssec"][key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("because"))
}

#[test]
fn a_chain_that_holds_and_where_it_breaks() {
    sandboxed(|sandbox| {
        let etc = Etc::own(sandbox);
        etc.set("hosts", "127.0.0.1 localhost\n");
        etc.set("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
        let world = Arc::new(World {
            root: Zone::new("."),
            lab: Zone::new("lab."),
            sub: Zone::new("sub.lab."),
            other: Zone::new("badds.lab."),
        });
        let anchor = etc.path("anchor");
        std::fs::write(&anchor, format!("; the lab's root\n{}", world.root.anchor())).unwrap();
        let anchor = anchor.to_str().unwrap().to_owned();
        let answering = Arc::clone(&world);
        serve((HERE, 53).into(), move |asked| reply(&answering, asked));
        let ask = |name: &str| dns(&[name, "A", "--json", "--dnssec", "--anchor", &anchor]).json();

        for (name, wanted, why) in [
            ("api.lab", "secure", "holds"),
            ("www.sub.lab", "secure", "holds"),
            ("nope.lab", "secure", "holds"),
            ("host.plain.lab", "insecure", "`plain.lab` is not signed"),
            ("old.lab", "bogus", "expired"),
            ("early.lab", "bogus", "this host's clock"),
            ("forged.lab", "bogus", "does not fit the data"),
            ("bare.lab", "bogus", "no signature"),
            ("stranger.lab", "bogus", "not among those trusted"),
            ("badds.lab", "bogus", "the parent vouches for key"),
            ("unproved.lab", "bogus", "nothing proves"),
            ("broken.lab", "indeterminate", "Server Failure"),
        ] {
            let report = ask(name);
            let (state, because) = state(&report);
            assert!(state == wanted && because.contains(why), "{name}: {state}, {because}\n{report:#}");
            let codes: Vec<&str> =
                report["findings"].as_array().unwrap().iter().filter_map(|one| one["code"].as_str()).collect();
            assert_eq!(codes.contains(&"dns.dnssec_bogus"), wanted == "bogus", "{name}: {codes:?}");
        }
        // The chain is told from the anchor down.
        let report = ask("www.sub.lab");
        let links = report["dnssec"]["chain"].as_array().unwrap();
        let links: Vec<String> = links.iter().map(|link| format!("{} {}", link["owner"], link["type"])).collect();
        let wanted = ["\".\" \"DNSKEY\"", "\"lab\" \"DS\"", "\"lab\" \"DNSKEY\"", "\"sub.lab\" \"DS\""];
        assert_eq!(&links[..4], wanted, "{links:?}");
        // With the root zone's own keys nothing of this is to be believed.
        let report = dns(&["api.lab", "A", "--json"]).json();
        assert_eq!(state(&report).0, "bogus", "{report:#}");
        let text = dns(&["old.lab", "A", "--anchor", &anchor]).out;
        assert!(text.contains("✗ old.lab") && text.contains("dns.dnssec_bogus"), "{text}");
        let bad = dns(&["api.lab", "--anchor", "/nonexistent"]);
        assert_eq!(bad.code, 2, "{}", bad.err);
    });
}
