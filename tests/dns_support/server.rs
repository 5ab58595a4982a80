//! A name server that does whatever it is told: the answer is a function of the question.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A question as it came.
pub struct Asked {
    pub id: u16,
    pub name: String,
    pub rtype: u16,
    pub tcp: bool,
    /// The question section's octets.
    pub section: Vec<u8>,
    /// Its place among all, from 0.
    pub number: usize,
}

/// One datagram (or framed message) after a time.
pub type Reply = (Duration, Vec<u8>);

/// Runs on `address`, by UDP and TCP, in the calling thread's namespace, as long as the process lives.
pub fn serve(address: SocketAddr, answer: impl Fn(&Asked) -> Vec<Reply> + Send + Sync + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = Arc::new(answer);
    let udp = UdpSocket::bind(address).unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    let (counted, reply) = (Arc::clone(&count), Arc::clone(&answer));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let Some(asked) = read(&buffer[..length], false, &counted) else { continue };
            // One after the other, so that answers come in the order of the questions.
            for (wait, octets) in reply(&asked) {
                std::thread::sleep(wait);
                let _ = udp.send_to(&octets, from);
            }
        }
    });
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let (counted, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
                    if stream.read_exact(&mut octets).is_err() {
                        return;
                    }
                    let Some(asked) = read(&octets, true, &counted) else { return };
                    let replies = answer(&asked);
                    if replies.is_empty() {
                        // A server that does not want to talk closes.
                        return;
                    }
                    for (wait, octets) in replies {
                        std::thread::sleep(wait);
                        let length = u16::try_from(octets.len()).unwrap();
                        if stream.write_all(&[&length.to_be_bytes()[..], &octets].concat()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    count
}

fn read(octets: &[u8], tcp: bool, count: &AtomicUsize) -> Option<Asked> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*octets.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(&String::from_utf8_lossy(octets.get(at..at + length)?).to_ascii_lowercase());
        name.push('.');
        at += length;
    }
    let rtype = u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?]);
    let section = octets.get(12..at + 4)?.to_vec();
    let id = u16::from_be_bytes([octets[0], octets[1]]);
    Some(Asked { id, name, rtype, tcp, section, number: count.fetch_add(1, Ordering::Relaxed) })
}

/// A name on the wire.
pub fn wire(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(u8::try_from(label.len()).unwrap());
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets
}

pub const QR: u16 = 0x8000;
pub const AA: u16 = 0x0400;
pub const TC: u16 = 0x0200;
pub const RD: u16 = 0x0100;
pub const RA: u16 = 0x0080;
pub const AD: u16 = 0x0020;

/// A message put together by hand.
pub struct Build {
    pub id: u16,
    pub flags: u16,
    pub question: Vec<u8>,
    pub sections: [Vec<Vec<u8>>; 3],
    pub counts: Option<[u16; 4]>,
}

impl Build {
    pub fn reply(asked: &Asked, rcode: u16) -> Self {
        Self {
            id: asked.id,
            flags: QR | RD | RA | rcode,
            question: asked.section.clone(),
            sections: Default::default(),
            counts: None,
        }
    }

    pub fn record(mut self, owner: &[u8], rtype: u16, data: &[u8]) -> Self {
        self.sections[0].push(record(owner, rtype, data));
        self
    }

    pub fn address(self, owner: &[u8], address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.record(owner, 1, &v4.octets()),
            IpAddr::V6(v6) => self.record(owner, 28, &v6.octets()),
        }
    }

    pub fn octets(self) -> Vec<u8> {
        let lengths = self.sections.each_ref().map(|section| u16::try_from(section.len()).unwrap());
        let question = u16::from(!self.question.is_empty());
        let counts = self.counts.unwrap_or([question, lengths[0], lengths[1], lengths[2]]);
        let mut octets = Vec::new();
        for word in [self.id, self.flags].into_iter().chain(counts) {
            octets.extend_from_slice(&word.to_be_bytes());
        }
        octets.extend_from_slice(&self.question);
        octets.extend(self.sections.concat().concat());
        octets
    }
}

pub fn record(owner: &[u8], rtype: u16, data: &[u8]) -> Vec<u8> {
    let mut octets = owner.to_vec();
    octets.extend_from_slice(&rtype.to_be_bytes());
    octets.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
    octets.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    octets.extend_from_slice(data);
    octets
}

/// A pointer to the question's name.
pub const TO_QUESTION: &[u8] = &[0xc0, 12];
