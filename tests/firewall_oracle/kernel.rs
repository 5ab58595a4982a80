//! The kernel's own account of a packet's way: nf_tables' trace notices, and what x_tables logs of a
//! packet with the same trace bit (`net/ipv4/netfilter/ip_tables.c`, `trace_packet`).

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use reachwhy::os::links::write_sysctl;

use crate::rules::{Kind, Rules};

/// A rule, or with `None` the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Met {
    pub table: String,
    pub chain: String,
    pub rule: Option<u32>,
}

/// Sets the trace bit on every packet that comes by cable, and on our own that leave.
const TRACING: &str = "flush ruleset
table inet oracle {
 chain pre { type filter hook prerouting priority -450; iifname \"eth*\" meta nftrace set 1; }
 chain out { type filter hook output priority -450; meta priority 7777:1 meta nftrace set 1; }
}
";

const NFTABLES: u16 = 10;
/// `NFT_MSG_TRACE`.
const TRACE: u16 = 0x11;
const ULOG: u16 = 4;
const CONNTRACK: u16 = 1;

/// The two places where a packet's way is told.
#[derive(Debug)]
pub(crate) struct Kernel {
    notices: Socket,
    log: Socket,
    orders: Socket,
    /// (family, table, chain, handle) → number.
    numbers: HashMap<(u8, String, String, u64), u32>,
    /// Rules in each chain of an x_tables table.
    lengths: HashMap<(String, String), u32>,
    sets: bool,
    named: bool,
}

/// Runs a tool with text on its standard input; what it says if it refuses.
pub(crate) fn feed(tool: &str, arguments: &[&str], text: &str) -> Result<String, String> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{tool}: {e}"))?;
    child.stdin.take().unwrap().write_all(text.as_bytes()).map_err(|e| format!("{tool}: {e}"))?;
    let output = child.wait_with_output().map_err(|e| format!("{tool}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr)))
}

impl Kernel {
    /// Listens in the calling thread's namespace.
    pub(crate) fn listen() -> Result<Self, String> {
        // A socket without an address of its own hears no notices.
        let open = || {
            let made = Socket::new(NETLINK_NETFILTER).and_then(|mut socket| socket.bind_auto().map(|_| socket));
            made.map_err(|e| format!("NETLINK_NETFILTER: {e}"))
        };
        let (mut notices, mut log, orders) = (open()?, open()?, open()?);
        for family in ["2", "10"] {
            write_sysctl(&format!("net.netfilter.nf_log.{family}"), "nfnetlink_log")
                .map_err(|e| format!("nf_log: {e}"))?;
        }
        // NFNLGRP_NFTRACE
        notices.add_membership(9).map_err(|e| e.to_string())?;
        // Group 0: NFULNL_CFG_CMD_BIND; whole headers (NFULNL_COPY_PACKET); each message at once.
        for attribute in [vec![5, 0, 1, 0, 1], vec![10, 0, 2, 0, 0, 0, 0, 60, 2, 0], vec![8, 0, 5, 0, 0, 0, 0, 1]] {
            log.send(&message(ULOG << 8 | 1, 5, &attribute), 0).map_err(|e| e.to_string())?;
            acknowledged(&log)?;
        }
        for socket in [&mut notices, &mut log] {
            nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &(4 << 20))
                .map_err(|e| e.to_string())?;
            socket.set_non_blocking(true).map_err(|e| e.to_string())?;
        }
        Ok(Self { notices, log, orders, numbers: HashMap::new(), lengths: HashMap::new(), sets: false, named: false })
    }

    /// Puts a ruleset in force in place of what there was.
    pub(crate) fn load(&mut self, rules: &Rules) -> Result<(), String> {
        let (tool, empty) = match (rules.kind, rules.v6) {
            (Kind::Native, _) => ("nft", ""),
            (Kind::Nft, false) => ("iptables-nft-restore", ""),
            (Kind::Nft, true) => ("ip6tables-nft-restore", ""),
            (Kind::Legacy, false) => ("iptables-legacy-restore", "ip"),
            (Kind::Legacy, true) => ("ip6tables-legacy-restore", "ip6"),
        };
        self.lengths.clear();
        self.numbers.clear();
        if rules.kind == Kind::Legacy {
            self.lengths = rules.lengths();
            // What has a name lives on from one ruleset to the next: lists of recent, tables of hashlimit.
            let named = self.named || ["-m recent", "-m hashlimit"].iter().any(|module| rules.text().contains(module));
            self.named = named;
            if self.sets || !rules.sets.is_empty() || named {
                // Sets in use cannot go; every table that the texts know is emptied first.
                debug_assert!(!empty.is_empty());
                for tool in ["iptables-legacy-restore", "ip6tables-legacy-restore"] {
                    feed(tool, &[], &crate::rules::empty_tables(rules.nat))?;
                }
                // A list keeps its members.
                feed("ipset", &["flush"], "")?;
                feed("ipset", &["destroy"], "")?;
            }
            feed("nft", &["-f", "-"], TRACING)?;
        } else {
            feed("nft", &["-f", "-"], TRACING)?;
            if self.sets {
                // A list keeps its members.
                feed("ipset", &["flush"], "")?;
                feed("ipset", &["destroy"], "")?;
            }
        }
        self.sets = !rules.sets.is_empty();
        if self.sets {
            feed("ipset", &["restore"], &rules.sets_text())?;
        }
        if rules.kind == Kind::Native {
            feed(tool, &["-f", "-"], &rules.text())
        } else {
            feed(tool, &[], &rules.text())
        }?;
        if rules.kind != Kind::Legacy {
            self.number()?;
        }
        self.forget_flows();
        self.drain(0);
        Ok(())
    }

    /// Learns which handle is which rule (NFT_MSG_GETRULE).
    fn number(&mut self) -> Result<(), String> {
        const GETRULE: u16 = 7;
        self.orders.send(&message(NFTABLES << 8 | GETRULE, 0x301, &[]), 0).map_err(|e| e.to_string())?;
        let mut counts: HashMap<(u8, String, String), u32> = HashMap::new();
        loop {
            let bytes = receive(&self.orders).ok_or("no answer to GETRULE")?;
            for (kind, body) in messages(&bytes) {
                match kind {
                    3 => return Ok(()),
                    2 => return Err("GETRULE is refused".to_owned()),
                    _ => {
                        let family = body[0];
                        let attributes = attributes(&body[4..]);
                        let (Some(table), Some(chain), Some(handle)) =
                            (text(&attributes, 1), text(&attributes, 2), number64(&attributes, 3))
                        else {
                            continue;
                        };
                        let count = counts.entry((family, table.clone(), chain.clone())).or_default();
                        *count += 1;
                        self.numbers.insert((family, table, chain, handle), *count);
                    }
                }
            }
        }
    }

    /// Forgets all flows (IPCTNL_MSG_CT_DELETE without a tuple).
    pub(crate) fn forget_flows(&self) {
        self.orders.send(&message(CONNTRACK << 8 | 2, 5, &[]), 0).unwrap();
        let _ = acknowledged(&self.orders);
    }

    /// What the packet with this number met, in order.
    pub(crate) fn drain(&mut self, id: u32) -> Vec<Met> {
        // Of a later fragment over IPv6 the notices show no header.
        let (mut met, mut ours) = (Vec::new(), true);
        // An answer may be traced in the midst of the packet that it answers.
        let mut whose: HashMap<u32, bool> = HashMap::new();
        while let Some(bytes) = receive(&self.notices) {
            for (kind, body) in messages(&bytes) {
                if kind != NFTABLES << 8 | TRACE || body.len() < 4 {
                    continue;
                }
                let attributes = attributes(&body[4..]);
                let trace = number32(&attributes, 6).unwrap_or(0);
                if let Some((_, header)) = attributes.iter().find(|(kind, _)| *kind == 8) {
                    whose.insert(trace, packet_id(header) == id);
                }
                ours = whose.get(&trace).copied().unwrap_or(ours);
                if ours {
                    self.notice(body[0], &attributes, &mut met);
                }
            }
        }
        while let Some(bytes) = receive(&self.log) {
            for (kind, body) in messages(&bytes) {
                if kind != ULOG << 8 || body.len() < 4 {
                    continue;
                }
                let attributes = attributes(&body[4..]);
                let payload = attributes.iter().find(|(kind, _)| *kind == 9).map_or(&[][..], |(_, bytes)| bytes);
                let Some(prefix) = text(&attributes, 10) else { continue };
                if packet_id(payload) == id
                    && let Some(place) = prefix.trim().strip_prefix("TRACE: ")
                {
                    self.logged(place, &mut met);
                }
            }
        }
        met
    }

    fn notice(&self, family: u8, attributes: &[(u16, &[u8])], met: &mut Vec<Met>) {
        let (Some(table), Some(chain)) = (text(attributes, 1), text(attributes, 2)) else { return };
        if table == "oracle" {
            return;
        }
        let kind = number32(attributes, 4);
        match kind {
            Some(1) => met.push(Met { table, chain, rule: None }),
            // Without a handle it is the end of a chain.
            Some(3) => {
                let Some(handle) = number64(attributes, 3) else { return };
                let rule = self.numbers.get(&(family, table.clone(), chain.clone(), handle)).copied();
                met.push(Met { table, chain, rule: rule.or(Some(0)) });
            }
            // The end of a chain that was called.
            _ => (),
        }
    }

    /// `filter:INPUT:rule:3`; a policy and the end of a called chain are the rule behind the last.
    fn logged(&self, place: &str, met: &mut Vec<Met>) {
        let words: Vec<&str> = place.rsplitn(3, ':').collect();
        let [number, _, at] = words[..] else { return };
        let Some((table, chain)) = at.split_once(':') else { return };
        let number: u32 = number.parse().unwrap_or(0);
        let key = (table.to_owned(), chain.to_owned());
        let behind = self.lengths.get(&key).is_none_or(|length| number > *length);
        let base = chain.chars().all(|c| c.is_ascii_uppercase());
        if !behind || base {
            met.push(Met { table: key.0, chain: key.1, rule: Some(number).filter(|_| !behind) });
        }
    }
}

/// What tells one packet from the next: the IPv4 identification or the IPv6 flow label.
pub(crate) fn packet_id(ip: &[u8]) -> u32 {
    match ip {
        [first, _, _, _, a, b, ..] if first >> 4 == 4 => u32::from(u16::from_be_bytes([*a, *b])),
        [first, a, b, c, ..] if first >> 4 == 6 => u32::from_be_bytes([0, a & 0xf, *b, *c]),
        _ => 0,
    }
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u32::try_from(20 + body.len()).unwrap();
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    // NLM_F_REQUEST always; 5 asks for an answer too.
    out.extend((flags | 1).to_ne_bytes());
    out.extend([0; 8]);
    out.extend([0; 4]);
    out.extend(body);
    out
}

fn receive(socket: &Socket) -> Option<Vec<u8>> {
    let mut buffer = Vec::with_capacity(1 << 16);
    loop {
        match socket.recv(&mut buffer, 0) {
            Ok(_) => return Some(buffer),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            // Notices were lost: the comparison will be made again.
            Err(_) => buffer.clear(),
        }
    }
}

fn acknowledged(socket: &Socket) -> Result<(), String> {
    let bytes = receive(socket).ok_or("no answer")?;
    match messages(&bytes).first() {
        Some((2, [0, 0, 0, 0, ..])) => Ok(()),
        other => Err(format!("the kernel refuses: {other:?}")),
    }
}

fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while let [a, b, c, d, k0, k1, ..] = bytes {
        let length = u32::from_ne_bytes([*a, *b, *c, *d]) as usize;
        let Some(body) = bytes.get(16..length) else { break };
        out.push((u16::from_ne_bytes([*k0, *k1]), body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while let [a, b, k0, k1, ..] = bytes {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let Some(value) = bytes.get(4..length) else { break };
        out.push((u16::from_ne_bytes([*k0, *k1]) & 0x3fff, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

fn text(attributes: &[(u16, &[u8])], kind: u16) -> Option<String> {
    let (_, bytes) = attributes.iter().find(|(k, _)| *k == kind)?;
    Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
}

fn number32(attributes: &[(u16, &[u8])], kind: u16) -> Option<u32> {
    let (_, bytes) = attributes.iter().find(|(k, _)| *k == kind)?;
    Some(u32::from_be_bytes(bytes.first_chunk().copied()?))
}

fn number64(attributes: &[(u16, &[u8])], kind: u16) -> Option<u64> {
    let (_, bytes) = attributes.iter().find(|(k, _)| *k == kind)?;
    Some(u64::from_be_bytes(bytes.first_chunk().copied()?))
}
