//! The probes of a scan as bytes, and the answers read back.
//!
//! No table of what was sent is needed to match an answer: TCP probes are signed with a sequence number made
//! from the run's secret, host, port and try, and an answer must acknowledge it; every try has a source port of
//! its own. What does not carry the signature is no answer.
//!
//! The source ports are not for matching alone: a second SYN of the same flow within the window of the first is
//! answered with a reset by a port that is open (`tcp_check_req`, embryonic reset).

use std::net::IpAddr;

use super::Technique;
use super::scan::{Aim, Answer, Shot};
use crate::probe::payload;
use crate::wire::{IcmpFamily, IcmpHeader, Ipv4Header, Ipv6Header, TcpFlags, checksum, protocol};

/// Source ports that a scan needs: one a try.
pub const SOURCES: u16 = 15;
/// Longest payload that is kept of a datagram that answers.
const KEPT: usize = 64;

/// How probes are signed.
#[derive(Debug, Clone)]
pub struct Signature {
    /// Of this run alone.
    pub secret: u64,
    /// The source ports by the number of the try, from the first.
    pub sources: Vec<u16>,
    /// Identifier of echoes.
    pub echo_id: u16,
}

/// What an answer says, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The address that was asked.
    pub asked: IpAddr,
    /// The port that was asked; none for an echo.
    pub port: Option<u16>,
    /// Which try.
    pub number: Option<u8>,
    /// Who answers.
    pub by: IpAddr,
    /// TTL or hop limit on arrival.
    pub ttl: u8,
    /// What.
    pub answer: Answer,
}

impl Signature {
    /// The number that signs a try: its last four bits are the try.
    fn number(&self, dst: IpAddr, port: u16, number: u8) -> u32 {
        let address = match dst {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0) ^ u64::try_from(bits >> 64).unwrap_or(0)
            }
        };
        // splitmix64: whoever does not know the secret cannot guess it from one probe.
        let mut mixed = self.secret ^ address.rotate_left(16) ^ (u64::from(port) << 48);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0);
        (high & !15) | u32::from(number & 15)
    }

    /// The try that this number signs, if it is this run's.
    fn verify(&self, dst: IpAddr, port: u16, number: u32) -> Option<u8> {
        let last = u8::try_from(number & 15).ok().filter(|last| *last > 0)?;
        (self.number(dst, port, last) == number).then_some(last)
    }

    /// The number of a try of an echo, in its sequence field.
    fn echo_number(number: u8) -> u16 {
        0x5200 | u16::from(number)
    }

    /// The whole packet, IP header included.
    pub fn packet(&self, technique: Technique, src: IpAddr, dst: IpAddr, port: Option<u16>, shot: Shot) -> Vec<u8> {
        let (inner, segment) = match (shot.aim, port) {
            (Aim::Echo, _) | (_, None) => {
                let family = IcmpFamily::of(dst);
                let header = IcmpHeader::new_echo(family, true, self.echo_id, Self::echo_number(shot.number));
                (family.protocol(), header.message(src, dst, b"reachwhy is here"))
            }
            (Aim::Port(_), Some(port)) => match technique.flags() {
                Some(flags) => (protocol::TCP, self.segment(flags, src, dst, port, shot.number)),
                None => (protocol::UDP, self.datagram(src, dst, port, shot.number)),
            },
        };
        wrap(src, dst, inner, &segment)
    }

    fn segment(&self, flags: TcpFlags, src: IpAddr, dst: IpAddr, port: u16, number: u8) -> Vec<u8> {
        let signed = self.number(dst, port, number);
        let syn = flags.contains(TcpFlags::SYN);
        let (seq, ack) = if flags.contains(TcpFlags::ACK) { (signed ^ 0x5a5a_0000, signed) } else { (signed, 0) };
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(self.source_of(number).to_be_bytes());
        bytes.extend(port.to_be_bytes());
        bytes.extend(seq.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([if syn { 0x60 } else { 0x50 }, flags.0]);
        bytes.extend(64240u16.to_be_bytes());
        bytes.extend([0; 4]);
        if syn {
            bytes.extend([2, 4, 5, 180]);
        }
        let sum = checksum::transport(src, dst, protocol::TCP, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn datagram(&self, src: IpAddr, dst: IpAddr, port: u16, number: u8) -> Vec<u8> {
        let payload = payload::for_udp_port(port).unwrap_or_default();
        let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::with_capacity(8 + payload.len());
        bytes.extend(self.source_of(number).to_be_bytes());
        bytes.extend(port.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(payload);
        // RFC 768: 0 would mean that there is none.
        let sum = checksum::transport(src, dst, protocol::UDP, &bytes);
        bytes[6..8].copy_from_slice(&if sum == 0 { u16::MAX } else { sum }.to_be_bytes());
        bytes
    }

    fn source_of(&self, number: u8) -> u16 {
        let at = usize::from(number.max(1) - 1).min(self.sources.len().saturating_sub(1));
        self.sources.get(at).copied().unwrap_or(0)
    }

    fn number_of(&self, source: u16) -> Option<u8> {
        let at = self.sources.iter().position(|known| *known == source)?;
        u8::try_from(at + 1).ok()
    }

    /// Reads an arriving packet, from its IP header on; none when it answers nothing of this run.
    pub fn read(&self, technique: Technique, packet: &[u8]) -> Option<Heard> {
        let ip = Outer::read(packet)?;
        let upper = packet.get(ip.at..ip.end)?;
        match ip.protocol {
            protocol::TCP if technique != Technique::Udp => self.read_tcp(technique, &ip, upper),
            protocol::UDP if technique == Technique::Udp => {
                let number = self.number_of(word(upper, 2)?)?;
                let data = upper.get(8..)?;
                let answer = Answer::Data(data[..data.len().min(KEPT)].to_vec());
                Some(ip.heard(ip.src, Some(word(upper, 0)?), Some(number), answer))
            }
            protocol::ICMP if !ip.v6 => self.read_icmp(technique, &ip, upper),
            protocol::ICMPV6 if ip.v6 => self.read_icmp(technique, &ip, upper),
            _ => None,
        }
    }

    fn read_tcp(&self, technique: Technique, ip: &Outer, upper: &[u8]) -> Option<Heard> {
        let (sport, dport, seq, ack) = (word(upper, 0)?, word(upper, 2)?, long(upper, 4)?, long(upper, 8)?);
        self.number_of(dport)?;
        let (offset, flags, window) = (upper.get(12)? >> 4, TcpFlags(*upper.get(13)?), word(upper, 14)?);
        let ours = technique.flags()?;
        let signed = if ours.contains(TcpFlags::ACK) { seq } else { ack.wrapping_sub(ours.sequence_len()) };
        let number = self.verify(ip.src, sport, signed)?;
        let answer = if flags.contains(TcpFlags::RST) {
            Answer::Reset { window }
        } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) && ours.contains(TcpFlags::SYN) {
            Answer::SynAck { window, options: offset > 5 }
        } else {
            return None;
        };
        Some(ip.heard(ip.src, Some(sport), Some(number), answer))
    }

    fn read_icmp(&self, technique: Technique, ip: &Outer, upper: &[u8]) -> Option<Heard> {
        let family = if ip.v6 { IcmpFamily::V6 } else { IcmpFamily::V4 };
        let header = IcmpHeader::parse(family, upper).ok()?;
        if header.kind == family.echo_reply() {
            let (id, sequence) = header.echo()?;
            let [0x52, number] = sequence.to_be_bytes() else { return None };
            return (id == self.echo_id).then(|| ip.heard(ip.src, None, Some(number), Answer::Echo));
        }
        // Redirects and quenches are advice: the packet was passed on. Too big says nothing about a port.
        let told = match family {
            IcmpFamily::V4 => matches!(header.kind, 3 | 11 | 12) && (header.kind, header.code) != (3, 4),
            IcmpFamily::V6 => matches!(header.kind, 1 | 3 | 4),
        };
        if !told {
            return None;
        }
        let answer = Answer::Icmp { v6: ip.v6, kind: header.kind, code: header.code };
        let quote = upper.get(IcmpHeader::LEN..)?;
        let quoted = Outer::read(quote)?;
        let inner = quote.get(quoted.at..)?;
        match quoted.protocol {
            protocol::TCP if technique != Technique::Udp => {
                let (sport, dport, seq) = (word(inner, 0)?, word(inner, 2)?, long(inner, 4)?);
                self.number_of(sport)?;
                let ack = technique.flags()?.contains(TcpFlags::ACK);
                let number = self.verify(quoted.dst, dport, if ack { seq ^ 0x5a5a_0000 } else { seq })?;
                Some(ip.heard(quoted.dst, Some(dport), Some(number), answer))
            }
            protocol::UDP if technique == Technique::Udp => {
                let number = self.number_of(word(inner, 0)?)?;
                Some(ip.heard(quoted.dst, Some(word(inner, 2)?), Some(number), answer))
            }
            number if number == family.protocol() => {
                let ours = *inner.first()? == family.echo_request() && word(inner, 4)? == self.echo_id;
                let [0x52, number] = word(inner, 6)?.to_be_bytes() else { return None };
                ours.then(|| ip.heard(quoted.dst, None, Some(number), answer))
            }
            _ => None,
        }
    }
}

/// What is needed of an IP header.
struct Outer {
    v6: bool,
    src: IpAddr,
    dst: IpAddr,
    ttl: u8,
    protocol: u8,
    /// Where the upper layer begins, and where the packet ends (padding is not part of it).
    at: usize,
    end: usize,
}

impl Outer {
    fn read(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let (ip, at) = Ipv4Header::parse(packet).ok()?;
            if ip.fragment_offset != 0 {
                return None;
            }
            let total = usize::from(ip.total_len);
            let end = if total < at { packet.len() } else { total.min(packet.len()) };
            let (src, dst) = (ip.src.into(), ip.dst.into());
            return Some(Self { v6: false, src, dst, ttl: ip.ttl, protocol: ip.protocol, at, end });
        }
        let ip = Ipv6Header::parse(packet).ok()?;
        let walk = ip.walk(packet).ok()?;
        if walk.fragment_offset.unwrap_or(0) != 0 {
            return None;
        }
        let end = (Ipv6Header::LEN + usize::from(ip.payload_len)).min(packet.len());
        let (src, dst) = (ip.src.into(), ip.dst.into());
        Some(Self { v6: true, src, dst, ttl: ip.hop_limit, protocol: walk.protocol, at: walk.offset, end })
    }

    fn heard(&self, asked: IpAddr, port: Option<u16>, number: Option<u8>, answer: Answer) -> Heard {
        Heard { asked, port, number, by: self.src, ttl: self.ttl, answer }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The IP packet around a segment.
fn wrap(src: IpAddr, dst: IpAddr, inner: u8, segment: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut bytes = Vec::with_capacity(20 + segment.len());
            let total = u16::try_from(20 + segment.len()).unwrap_or(u16::MAX);
            bytes.extend([0x45, 0]);
            bytes.extend(total.to_be_bytes());
            // The kernel fills in identification and checksum (raw(7)).
            bytes.extend([0, 0, 0x40, 0, 64, inner, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            bytes.extend(segment);
            bytes
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header::new(src, dst, inner).packet(segment),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TcpHeader;
    use proptest::prelude::*;

    fn signature() -> Signature {
        Signature { secret: 7, sources: (40000..40015).collect(), echo_id: 9 }
    }

    const ALL: [Technique; 6] =
        [Technique::Syn, Technique::Ack, Technique::Fin, Technique::Null, Technique::Xmas, Technique::Udp];

    fn ends(v6: bool) -> (IpAddr, IpAddr) {
        if v6 {
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
        } else {
            ([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        }
    }

    fn shot(number: u8) -> Shot {
        Shot { host: 0, aim: Aim::Port(0), number }
    }

    #[test]
    fn an_error_that_quotes_a_probe_names_its_port_and_try() {
        for v6 in [false, true] {
            let (src, dst) = ends(v6);
            for technique in ALL {
                let probe = signature().packet(technique, src, dst, Some(53), shot(3));
                let family = IcmpFamily::of(src);
                let kind = if v6 { 1 } else { 3 };
                let header = IcmpHeader { family, kind, code: 3, checksum: 0, rest: [0; 4] };
                // A router may quote no more than 8 octets of the upper layer.
                let quote = if v6 { &probe[..48] } else { &probe[..28] };
                let error = wrap(dst, src, family.protocol(), &header.message(dst, src, quote));
                let heard = signature().read(technique, &error).expect("it is about a probe of ours");
                assert_eq!((heard.asked, heard.port, heard.number, heard.by), (dst, Some(53), Some(3), dst));
                assert_eq!(heard.answer, Answer::Icmp { v6, kind, code: 3 });
                let other = Signature { secret: 8, sources: vec![1], echo_id: 1 };
                assert_eq!(other.read(technique, &error), None);
            }
        }
    }

    #[test]
    fn a_reset_counts_only_with_the_right_number() {
        let (src, dst) = ends(false);
        for technique in ALL.into_iter().filter(|technique| *technique != Technique::Udp) {
            let probe = signature().packet(technique, src, dst, Some(80), shot(2));
            let (tcp, _) = TcpHeader::parse(&probe[20..]).unwrap();
            // RFC 9293 §3.10.7.1: what a closed port sends.
            let mut reset = TcpHeader::new(80, tcp.sport, TcpFlags::RST | TcpFlags::ACK);
            if tcp.flags.contains(TcpFlags::ACK) {
                reset = TcpHeader { seq: tcp.ack, flags: TcpFlags::RST, ..reset };
            } else {
                reset.ack = tcp.seq.wrapping_add(tcp.flags.sequence_len());
            }
            let answer = wrap(dst, src, protocol::TCP, &reset.segment(dst, src, &[]));
            let heard = signature().read(technique, &answer).expect("ours");
            assert_eq!((heard.port, heard.number), (Some(80), Some(2)));
            let wrong = TcpHeader { ack: reset.ack ^ 0x100, seq: reset.seq ^ 0x100, ..reset };
            let answer = wrap(dst, src, protocol::TCP, &wrong.segment(dst, src, &[]));
            assert_eq!(signature().read(technique, &answer), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            for technique in ALL {
                let _ = signature().read(technique, &bytes);
                let (src, dst) = ends(v6);
                for inner in [1, 6, 17, 58] {
                    let _ = signature().read(technique, &wrap(dst, src, inner, &bytes));
                }
            }
        }
    }
}
