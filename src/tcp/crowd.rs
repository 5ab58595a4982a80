//! What only many connections together show: floods and scans.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::code::Code;
use super::connection::Connection;
use super::report::Finding;
use crate::wire::TcpFlags;

/// Attempts without a handshake at one port that are called a flood.
const FLOOD: u32 = 100;
/// Ports of one host, or hosts at one port, that one host tries in vain before it is called a scan.
const SCAN: usize = 15;
/// Keys and members kept: beyond, more of the same changes no verdict.
const MOST: usize = 100_000;

/// How a connection was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Way {
    Syn,
    Fin,
    Null,
    Xmas,
    Ack,
    Odd,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN",
            Self::Fin => "FIN",
            Self::Null => "NULL",
            Self::Xmas => "Xmas",
            Self::Ack => "ACK",
            Self::Odd => "odd flags",
        }
    }
}

#[derive(Debug, Default)]
struct Flood {
    tried: u32,
    completed: u32,
    sources: HashSet<IpAddr>,
}

/// Keeps count over all connections of a capture.
#[derive(Debug, Default)]
pub struct Crowd {
    floods: HashMap<(IpAddr, u16), Flood>,
    ports: HashMap<(IpAddr, IpAddr, Way), HashSet<u16>>,
    hosts: HashMap<(IpAddr, u16, Way), HashSet<IpAddr>>,
}

fn first_flags(connection: &Connection) -> Option<Way> {
    let client = &connection.ends[connection.client()];
    if client.syn.is_some() {
        return Some(Way::Syn);
    }
    let flags = connection.opened_with;
    let has = |flag: TcpFlags| flags.contains(flag);
    let said = connection.ends[0].data + connection.ends[1].data > 0;
    match flags.0 & 0x3f {
        _ if said => None,
        0 => Some(Way::Null),
        1 => Some(Way::Fin),
        0x29 => Some(Way::Xmas),
        0x10 if connection.ends[0].packets <= 2 => Some(Way::Ack),
        _ if super::is_illegal(flags) || has(TcpFlags::URG) => Some(Way::Odd),
        _ => None,
    }
}

/// Tried and got nowhere: no data was exchanged.
fn in_vain(connection: &Connection) -> bool {
    connection.ends.iter().all(|end| end.data == 0)
}

impl Crowd {
    /// Takes note of a connection.
    pub fn add(&mut self, connection: &Connection) {
        let client = connection.client();
        let (c, s) = (connection.ends[client].address, connection.ends[1 - client].address);
        let Some(way) = first_flags(connection) else { return };
        if way == Way::Syn && (self.floods.len() < MOST || self.floods.contains_key(&(s.ip(), s.port()))) {
            let flood = self.floods.entry((s.ip(), s.port())).or_default();
            flood.tried += 1;
            flood.completed += u32::from(connection.is_opened());
            if flood.sources.len() < 1000 {
                flood.sources.insert(c.ip());
            }
        }
        if !in_vain(connection) {
            return;
        }
        if self.ports.len() < MOST {
            self.ports.entry((c.ip(), s.ip(), way)).or_default().insert(s.port());
        }
        if self.hosts.len() < MOST {
            let hosts = self.hosts.entry((c.ip(), s.port(), way)).or_default();
            if hosts.len() < 1000 {
                hosts.insert(s.ip());
            }
        }
    }

    /// What a connection is part of.
    pub fn judge(&self, connection: &Connection) -> Vec<Finding> {
        let client = connection.client();
        let (c, s) = (connection.ends[client].address, connection.ends[1 - client].address);
        let Some(way) = first_flags(connection).filter(|_| in_vain(connection)) else { return Vec::new() };
        let mut all = Vec::new();
        let mut say = |code: Code, message: String| {
            all.push(Finding { code, frame: connection.first.frame, message, severity: code.severity() });
        };
        if let Some(text) = self.scan(c.ip(), s.ip(), way) {
            say(Code::PortScan, text);
        } else if let Some(text) = self.sweep(c.ip(), s.port(), way) {
            say(Code::PortScan, text);
        } else if way == Way::Syn
            && let Some(text) = self.flood(s.ip(), s.port())
        {
            say(Code::SynFlood, text);
        }
        all
    }

    fn scan(&self, from: IpAddr, to: IpAddr, way: Way) -> Option<String> {
        let ports = self.ports.get(&(from, to, way)).filter(|ports| ports.len() >= SCAN)?;
        Some(format!("{from} tries {} ports of {to} ({} scan)", ports.len(), way.name()))
    }

    fn sweep(&self, from: IpAddr, port: u16, way: Way) -> Option<String> {
        let hosts = self.hosts.get(&(from, port, way)).filter(|hosts| hosts.len() >= SCAN)?;
        Some(format!("{from} tries port {port} of {} hosts ({} scan)", hosts.len(), way.name()))
    }

    fn flood(&self, to: IpAddr, port: u16) -> Option<String> {
        let flood = self.floods.get(&(to, port))?;
        let open = flood.tried - flood.completed;
        (open >= FLOOD && open * 5 >= flood.tried * 4).then(|| {
            let sources = flood.sources.len();
            format!("{open} SYNs to {to}:{port} from {sources} addresses were never completed: a SYN flood")
        })
    }

    /// Everything that was found, for people.
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.ports.keys().filter_map(|(from, to, way)| self.scan(*from, *to, *way)).collect();
        all.extend(self.hosts.keys().filter_map(|(from, port, way)| self.sweep(*from, *port, *way)));
        all.extend(self.floods.keys().filter_map(|(to, port)| self.flood(*to, *port)));
        all.sort();
        all
    }
}
