//! Finding IPv6 stations where there are too many addresses to ask for each: an echo request to all nodes, a
//! packet with an option that all must refuse, and a guess from every hardware address heard (EUI-64).
//! A prefix of 64 bits is never gone through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::Ipv6Network;

use super::conversation::{Conversation, Outgoing, Step};
use super::frame::{self, Heard, Speaker};
use crate::wire::MacAddr;

const MS: u64 = 1_000_000;
/// When the group is asked, after the beginning.
const SCHEDULE: [u64; 3] = [0, 200 * MS, 500 * MS];
/// Hosts spread their answers to a group over some time (RFC 4443 §2.4, RFC 9099).
const END: u64 = 1100 * MS;
/// More stations than this are forged.
const MOST: usize = 65_536;

/// A discovery under way.
#[derive(Debug)]
pub struct Discover {
    speakers: Vec<Speaker>,
    id: u16,
    begun: Option<u64>,
    now: u64,
    given: usize,
    heard: BTreeMap<IpAddr, MacAddr>,
    macs: BTreeSet<MacAddr>,
}

impl Discover {
    /// `speakers`: this host with each of its addresses, so that stations answer from an address of the same kind.
    pub fn new(speakers: Vec<Speaker>, id: u16) -> Self {
        Self { speakers, id, begun: None, now: 0, given: 0, heard: BTreeMap::new(), macs: BTreeSet::new() }
    }

    /// Addresses that were heard, and by which station.
    pub fn heard(&self) -> &BTreeMap<IpAddr, MacAddr> {
        &self.heard
    }

    /// Which addresses to ask for: those heard, those known already, and what stations would make of their
    /// hardware addresses in each of these networks.
    pub fn candidates(&self, known: &[(IpAddr, MacAddr)], networks: &[Ipv6Network]) -> BTreeSet<IpAddr> {
        let mut all: BTreeSet<IpAddr> = self.heard.keys().copied().collect();
        all.extend(known.iter().map(|(ip, _)| *ip).filter(IpAddr::is_ipv6));
        let macs: BTreeSet<MacAddr> = self.macs.iter().copied().chain(known.iter().map(|(_, mac)| *mac)).collect();
        for mac in macs {
            for network in networks.iter().filter(|network| network.prefix() == 64) {
                all.insert(eui64(network.network(), mac).into());
            }
        }
        all.retain(|ip| super::targets::no_station(*ip).is_none());
        all
    }
}

/// The address that a station makes of its hardware address in a /64 (RFC 4291 appendix A).
pub fn eui64(network: Ipv6Addr, mac: MacAddr) -> Ipv6Addr {
    let mut octets = network.octets();
    octets[8..11].copy_from_slice(&mac.0[..3]);
    octets[8] ^= 2;
    octets[11..13].copy_from_slice(&[0xff, 0xfe]);
    octets[13..].copy_from_slice(&mac.0[3..]);
    octets.into()
}

impl Conversation for Discover {
    fn poll(&mut self, now: u64, out: &mut Vec<Outgoing>) -> Step {
        self.now = now;
        let begun = *self.begun.get_or_insert(now);
        while let Some(at) = SCHEDULE.get(self.given) {
            if now < begun + at {
                return Step::Until(begun + at);
            }
            self.given += 1;
            let sequence = u16::try_from(self.given).unwrap_or(0);
            for speaker in &self.speakers {
                let echo = frame::echo_all_nodes(*speaker, self.id, sequence);
                let odd = frame::odd_option_all_nodes(*speaker, self.id);
                out.extend(echo.into_iter().chain(odd).map(|bytes| Outgoing { token: 0, bytes }));
            }
        }
        if now < begun + END { Step::Until(begun + END) } else { Step::Done }
    }

    fn sent(&mut self, _token: u64, _at: u64) {}

    fn heard(&mut self, _at: u64, bytes: &[u8]) {
        let (ip, mac) = match frame::read(bytes) {
            Some(Heard::Echo { mac, from, id, .. }) if id.0 == self.id => (from, mac),
            // A refusal quotes what we sent to the group.
            Some(Heard::Error { mac, from, target, .. }) if target.is_multicast() => (from, mac),
            Some(Heard::Nd { ether, src, message }) => {
                let ip = if message.advertisement { message.target } else { src };
                (ip.into(), message.link_address.unwrap_or(ether.src))
            }
            _ => return,
        };
        if ip.is_ipv6() && !ip.is_unspecified() && !ip.is_multicast() && self.heard.len() < MOST {
            self.heard.insert(ip, mac);
            self.macs.insert(mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_makes_an_interface_identifier() {
        let mac = "00:00:0c:00:00:11".parse().unwrap();
        assert_eq!(eui64("fe80::".parse().unwrap(), mac).to_string(), "fe80::200:cff:fe00:11");
    }

    #[test]
    fn candidates_are_heard_known_and_guessed() {
        let discover = Discover::new(Vec::new(), 1);
        let mac: MacAddr = "00:00:0c:00:00:11".parse().unwrap();
        let known = [("10.0.0.1".parse().unwrap(), mac)];
        let networks = ["fd00::/64".parse().unwrap(), "fd01::/48".parse().unwrap()];
        let all = discover.candidates(&known, &networks);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["fd00::200:cff:fe00:11".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_group_is_asked_three_times_and_then_it_ends() {
        let speaker = Speaker { mac: MacAddr([2, 0, 0, 0, 0, 1]), ip: Some("fe80::1".parse().unwrap()) };
        let mut discover = Discover::new(vec![speaker], 7);
        let (mut now, mut frames) = (0, Vec::new());
        while let Step::Until(until) = discover.poll(now, &mut frames) {
            now = until;
        }
        assert_eq!((frames.len(), now), (6, END));
        assert!(frames.iter().all(|frame| frame.bytes[..6] == [0x33, 0x33, 0, 0, 0, 1]));
    }
}
