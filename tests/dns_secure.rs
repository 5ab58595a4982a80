//! What makes answers trustworthy: DNSSEC checked from a trust anchor down, against zones signed here (what holds, what
//! is not signed, what is wrong and why), and servers asked by HTTPS over HTTP/2.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::panic, reason = "a test")]

mod dns_support;
mod probe_support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
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
            ("cn.lab.", _) => {
                let target = name("www.sub.lab.");
                let alias = record(owner, RData::CNAME(hickory_proto::rr::rdata::CNAME(target.clone())));
                let mut answers = self.lab.well(vec![alias]);
                let (code, rest, proof) = match rtype {
                    RecordType::CNAME => yes(Vec::new()),
                    other => self.answer(&target, other),
                };
                answers.extend(rest);
                return (code, answers, proof);
            }
            ("bare.lab." | "mute.lab." | "host.plain.lab.", RecordType::A) => return yes(vec![address(owner, 5)]),
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
            ("lab." | "sub.lab." | "plain.lab." | "badds.lab." | "mute.lab.", RecordType::NS) => {
                return yes(vec![record(owner, RData::NS(hickory_proto::rr::rdata::NS(name("ns."))))]);
            }
            ("broken.lab.", _) => return (ResponseCode::ServFail, Vec::new(), Vec::new()),
            _ => {}
        }
        let exists = [
            "lab.",
            "api.lab.",
            "old.lab.",
            "early.lab.",
            "forged.lab.",
            "bare.lab.",
            "stranger.lab.",
            "www.sub.lab.",
            "plain.lab.",
            "host.plain.lab.",
            "sub.lab.",
            "badds.lab.",
            ".",
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
    if asked.name == "mute.lab." && rtype == RecordType::DS {
        return Vec::new();
    }
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
            ("mute.lab", "indeterminate", "no answer"),
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
        // Both families, by way of an alias, whose end has no IPv6 address.
        let report = dns(&["cn.lab", "--json", "--anchor", &anchor]).json();
        assert_eq!(state(&report).0, "secure", "{report:#}");
        // With the keys of the real root nothing can be said of a private one.
        let report = dns(&["api.lab", "A", "--json"]).json();
        let (state, because) = state(&report);
        assert!(state == "indeterminate" && because.contains("trust anchor"), "{report:#}");
        let text = dns(&["old.lab", "A", "--anchor", &anchor]).out;
        assert!(text.contains("✗ old.lab") && text.contains("dns.dnssec_bogus"), "{text}");
        let bad = dns(&["api.lab", "--anchor", "/nonexistent"]);
        assert_eq!(bad.code, 2, "{}", bad.err);
    });
}

/// The frame's type, flags, stream and payload (RFC 9113 4.1).
fn frame(stream: &mut impl Read) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A server of HTTP/2 that answers each question with 10.0.0.5, or does so in a wrong way.
fn http2(mut stream: impl Read + Write, way: &str) -> Option<()> {
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).ok()?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stream.write_all(&framed(4, 0, 0, &[])).ok()?;
    loop {
        let (kind, flags, id, payload) = frame(&mut stream)?;
        match kind {
            4 if flags & 1 == 0 => stream.write_all(&framed(4, 1, 0, &[])).ok()?,
            0 if !payload.is_empty() => {
                let mut answer = payload.clone();
                answer[2] |= 0x80;
                answer.truncate(payload.len() - 11);
                answer[11] = 0;
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 5]);
                // HPACK: 0x88 is `:status: 200`, 0x8d is 404; 0x0f 0x10 is `content-type:` and a text.
                let with = |status: u8, kind: &str| {
                    [&[status, 0x0f, 0x10, u8::try_from(kind.len()).unwrap()][..], kind.as_bytes()].concat()
                };
                let dns = "application/dns-message";
                let (head, body) = match way {
                    "gone" => (with(0x8d, dns), Vec::new()),
                    "page" => (with(0x88, "text/html"), b"<p>".to_vec()),
                    "huge" => (with(0x88, dns), vec![0; 16_000]),
                    "reset" => {
                        stream.write_all(&framed(3, 0, id, &[0, 0, 0, 2])).ok()?;
                        continue;
                    }
                    "close" => return None,
                    "junk" => {
                        stream.write_all(&framed(1, 0, id, &[0xff; 20])).ok()?;
                        continue;
                    }
                    "silent" => continue,
                    _ => (with(0x88, dns), answer),
                };
                stream.write_all(&framed(1, END_HEADERS, id, &head)).ok()?;
                let parts = if way == "huge" { 8 } else { 1 };
                for part in 1..=parts {
                    let end = if part == parts { END_STREAM } else { 0 };
                    stream.write_all(&framed(0, end, id, &body)).ok()?;
                }
                stream.flush().ok()?;
            }
            _ => {}
        }
        stream.flush().ok()?;
    }
}

#[test]
fn a_server_that_speaks_http2() {
    sandboxed(|sandbox| {
        let etc = Etc::own(sandbox);
        etc.set("hosts", "127.0.0.1 localhost dns.lab\n");
        let key = rcgen::generate_simple_self_signed(vec!["dns.lab".to_owned()]).unwrap();
        let ca = etc.path("ca.pem");
        std::fs::write(&ca, key.cert.pem()).unwrap();
        let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![key.cert.der().clone()], secret)
                .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        let ask = |way: &'static str| {
            let (config, listener) = (Arc::clone(&config), TcpListener::bind((HERE, 0)).unwrap());
            let server = format!("https://dns.lab:{}/dns-query", listener.local_addr().unwrap().port());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                    http2(rustls::StreamOwned::new(connection, stream), way);
                }
            });
            let mut command = Command::new(env!("CARGO_BIN_EXE_reachwhy"));
            command.args(["dns", "api.lab", "A", "--json", "--no-compare", "--timeout", "0.5", "--server", &server]);
            let output = command.stdin(Stdio::null()).env("SSL_CERT_FILE", &ca).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).unwrap()["servers"][0].clone()
        };
        let good = ask("well");
        assert_eq!(good["answers"], serde_json::json!(["10.0.0.5"]), "{good:#}");
        assert_eq!(good["transport"], "https");
        for (way, why) in [
            ("gone", "HTTP 404"),
            ("page", "text/html"),
            ("huge", "flow-control"),
            ("reset", "HTTP/2"),
            ("close", "the connection"),
            ("junk", "HTTP/2"),
            ("silent", "no answer"),
        ] {
            let bad = ask(way);
            let failure = bad["failure"].as_str().unwrap_or_default();
            assert!(failure.contains(why), "{way}: {bad:#}");
        }
    });
}
