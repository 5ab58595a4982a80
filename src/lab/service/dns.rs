//! An authoritative DNS server for one zone given on the command line, UDP and TCP, that can fail in
//! the ways that resolvers see (RFC 1035; RFC 2308 for the SOA beside a negative answer).

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};

use super::{ServiceError, listen, ready, serve};

/// How the DNS service is started.
#[derive(Debug, Clone, clap::Args)]
pub struct DnsOptions {
    /// Address to listen on, UDP and TCP
    #[arg(long, default_value = "0.0.0.0:53")]
    pub listen: SocketAddr,
    /// The zone it answers for; other names are refused
    #[arg(long, default_value = "lab.")]
    pub zone: String,
    /// A record, as `NAME [TTL] TYPE VALUE`; repeatable
    #[arg(long = "record")]
    pub records: Vec<String>,
    /// A file of them, one a line
    #[arg(long = "records", value_name = "FILE")]
    pub file: Option<std::path::PathBuf>,
    /// What every question gets: answer, nxdomain, servfail, refused, drop, truncate, delay=MS
    #[arg(long, default_value = "answer")]
    pub mode: Mode,
    /// The process's name
    #[arg(long)]
    pub name: Option<String>,
}

/// What questions get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What the zone says.
    Answer,
    /// What the zone says, after so long.
    Delay(Duration),
    /// This error.
    Code(ResponseCode),
    /// Nothing.
    Drop,
    /// By UDP only "ask again by TCP".
    Truncate,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(millis) = text.strip_prefix("delay=") {
            let millis = millis.parse().map_err(|_| format!("`{millis}` is no number of milliseconds"))?;
            return Ok(Self::Delay(Duration::from_millis(millis)));
        }
        Ok(match text {
            "answer" => Self::Answer,
            "nxdomain" => Self::Code(ResponseCode::NXDomain),
            "servfail" => Self::Code(ResponseCode::ServFail),
            "refused" => Self::Code(ResponseCode::Refused),
            "drop" => Self::Drop,
            "truncate" => Self::Truncate,
            other => return Err(format!("`{other}` is nothing this service does")),
        })
    }
}

/// What the server knows.
#[derive(Debug)]
struct Zone {
    origin: Name,
    /// By owner, in small letters; names that only have others below them are here too, with none.
    records: HashMap<LowerName, Vec<Record>>,
}

/// How many aliases are followed (a loop of CNAMEs must end).
const LONGEST_ALIAS_CHAIN: usize = 8;

impl Zone {
    fn new(origin: &str, records: &[String]) -> Result<Self, ServiceError> {
        let bad = |record: &str, why: String| ServiceError::Record { record: record.to_owned(), why };
        let name = |text: &str| {
            let mut name = Name::from_ascii(text).map_err(|error| bad(text, error.to_string()))?;
            name.set_fqdn(true);
            Ok::<_, ServiceError>(name)
        };
        let origin = name(origin)?;
        let read = records
            .iter()
            .map(|text| {
                let mut words = text.split_whitespace().peekable();
                let owner = name(words.next().ok_or_else(|| bad(text, "it is empty".to_owned()))?)?;
                let ttl = words.peek().and_then(|word| word.parse().ok());
                if ttl.is_some() {
                    words.next();
                }
                let kind = words.next().ok_or_else(|| bad(text, "it has no type".to_owned()))?;
                let kind = RecordType::from_str(&kind.to_ascii_uppercase()).map_err(|e| bad(text, e.to_string()))?;
                let value: Vec<&str> = words.collect();
                let data = RData::try_from_str(kind, &value.join(" ")).map_err(|e| bad(text, e.to_string()))?;
                Ok(Record::from_rdata(owner, ttl.unwrap_or(60), data))
            })
            .collect::<Result<Vec<_>, ServiceError>>()?;
        let mut records: HashMap<LowerName, Vec<Record>> = HashMap::with_capacity(read.len());
        for record in read {
            let mut above = record.name.base_name();
            while above != origin && origin.zone_of(&above) && !above.is_root() {
                let next = above.base_name();
                records.entry(LowerName::from(above)).or_default();
                above = next;
            }
            records.entry(LowerName::from(record.name.clone())).or_default().push(record);
        }
        Ok(Self { origin, records })
    }

    fn answer(&self, question: &Message) -> Message {
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.add_queries(question.queries.iter().cloned());
        let Some(query) = question.queries.first() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        if question.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        if !self.origin.zone_of(query.name()) {
            answer.metadata.response_code = ResponseCode::Refused;
            return answer;
        }
        answer.metadata.authoritative = true;
        let mut name = query.name().clone();
        let mut known = name == self.origin;
        for _ in 0..LONGEST_ALIAS_CHAIN {
            let own = self.records.get(&LowerName::from(name.clone()));
            known |= own.is_some();
            let own: Vec<&Record> = own.into_iter().flatten().collect();
            let wanted = |kind: RecordType| kind == query.query_type() || query.query_type() == RecordType::ANY;
            let alias = own.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if !wanted(RecordType::CNAME) => Some((*record, target.0.clone())),
                _ => None,
            });
            if let Some((record, target)) = alias {
                answer.add_answer(record.clone());
                name = target;
                continue;
            }
            answer.add_answers(own.into_iter().filter(|record| wanted(record.record_type())).cloned());
            break;
        }
        if !known {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        if answer.answers.is_empty() {
            let soa = SOA::new(self.origin.clone(), self.origin.clone(), 1, 3600, 600, 86400, 60);
            answer.add_authority(Record::from_rdata(self.origin.clone(), 60, RData::SOA(soa)));
        }
        answer
    }

    /// The octets of the answer, none where there is to be none. Waits where the mode says so.
    fn reply(&self, mode: Mode, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let question = Message::from_vec(bytes).ok()?;
        let mut answer = self.answer(&question);
        match mode {
            Mode::Answer => {}
            Mode::Delay(time) => thread::sleep(time),
            Mode::Code(code) => {
                answer.metadata.response_code = code;
                answer.answers.clear();
                answer.authorities.clear();
            }
            Mode::Drop => return None,
            Mode::Truncate if tcp => {}
            Mode::Truncate => answer = answer.truncate(),
        }
        let octets = answer.to_vec().ok()?;
        if !tcp && octets.len() > usize::from(question.max_payload()) {
            return answer.truncate().to_vec().ok();
        }
        Some(octets)
    }
}

/// Runs the service; returns only when it cannot begin.
pub fn run(options: &DnsOptions) -> Result<(), ServiceError> {
    let mut records = options.records.clone();
    if let Some(file) = &options.file {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ServiceError::Io { operation: "read its records", source })?;
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['#', ';']));
        records.extend(lines.map(str::to_owned));
    }
    let zone = Arc::new(Zone::new(&options.zone, &records)?);
    let address = options.listen;
    let tcp = listen(address)?;
    let udp = UdpSocket::bind(address).map_err(|source| ServiceError::Listen { address, source })?;
    ready(options.name.as_deref())?;
    let mode = options.mode;
    let udp = Arc::new(udp);
    let shared = Arc::clone(&zone);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
            if !matches!(mode, Mode::Delay(_)) {
                shared.reply(mode, &buffer[..length], false).map(|reply| udp.send_to(&reply, from));
                continue;
            }
            let (zone, udp, question) = (Arc::clone(&shared), Arc::clone(&udp), buffer[..length].to_vec());
            // A slow answer to one must not delay another.
            thread::spawn(move || zone.reply(mode, &question, false).map(|reply| udp.send_to(&reply, from)));
        }
    });
    serve(&tcp, move |mut stream| {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question)?;
            let Some(reply) = zone.reply(mode, &question, true) else { continue };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], &reply].concat())?;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    fn zone() -> Zone {
        let records =
            ["api.lab. A 192.168.1.3", "www.lab. 5 CNAME api.lab.", "deep.er.lab. AAAA fd00::1", "a.lab. CNAME a.lab."];
        Zone::new("lab.", &records.map(str::to_owned)).unwrap()
    }

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        zone().answer(&question)
    }

    #[test]
    fn the_zone_answers() {
        assert_eq!(ask("api.lab.", RecordType::A).answers.len(), 1);
        assert_eq!(ask("WWW.lab.", RecordType::A).answers.len(), 2);
        let nodata = ask("api.lab.", RecordType::AAAA);
        assert_eq!((nodata.answers.len(), nodata.metadata.response_code), (0, ResponseCode::NoError));
        assert_eq!(nodata.authorities.len(), 1);
        assert_eq!(ask("no.lab.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(ask("er.lab.", RecordType::A).metadata.response_code, ResponseCode::NoError);
        assert_eq!(ask("example.com.", RecordType::A).metadata.response_code, ResponseCode::Refused);
        assert!(ask("a.lab.", RecordType::A).answers.len() <= LONGEST_ALIAS_CHAIN);
    }

    #[test]
    fn each_mode_does_what_it_says() {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("api.lab.").unwrap(), RecordType::A));
        let bytes = question.to_vec().unwrap();
        let reply = |mode, tcp| zone().reply(mode, &bytes, tcp).map(|b| Message::from_vec(&b).unwrap());
        assert_eq!(reply(Mode::Drop, false), None);
        assert!(reply(Mode::Truncate, false).unwrap().metadata.truncation);
        assert_eq!(reply(Mode::Truncate, true).unwrap().answers.len(), 1);
        let failed = reply("servfail".parse().unwrap(), false).unwrap();
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
        assert!("maybe".parse::<Mode>().is_err());
    }

    #[test]
    fn a_record_that_is_none_is_refused_by_name() {
        for text in ["", "x.lab.", "x.lab. A", "x.lab. A here", "x.lab. NOPE 1"] {
            assert!(Zone::new("lab.", &[text.to_owned()]).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes: Vec<u8>) {
            let _ = zone().reply(Mode::Answer, &bytes, false);
        }
    }
}
