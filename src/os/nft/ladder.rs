//! The hook ladder: counting-only base chains along a packet's way through this host.
//!
//! The chains accept everything (so that they never change a verdict) and look at addresses, ports
//! and ICMP types alone (a rule about connections would switch conntrack on for the whole namespace).
//! Where the kernel can (Linux 5.12), the tables belong to the socket that made them: they go when
//! the process does, however it ends.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::attr::Attrs;
use super::conn::{Conn, Order};
use super::error::NftError;
use super::expr::{Base, Expr, Op, comment_userdata};
use super::objects::{OWNER, family, msg};
use crate::host::{LadderSpec, LadderTransport, RungCount};

/// How the names of our tables begin, so that a reading of the rulesets can leave them out.
pub(crate) const PREFIX: &str = "reachwhy_ladder_";
/// How many names are tried: processes of different pid namespaces can share a network namespace and a pid.
const NAMES: u32 = 64;

/// The IP hooks (`NF_INET_*`) and the priorities to count at.
const RUNGS: &[(&str, u32, &[i32])] = &[
    ("prerouting", 0, &[-450, -250, 500]),
    ("input", 1, &[-500, 500]),
    ("forward", 2, &[-500, 500]),
    ("output", 3, &[-500, 500]),
    ("postrouting", 4, &[-500, 500]),
];
/// The same for netdev ingress.
const INGRESS: &[i32] = &[-500, 500];

const REQUEST: &str = "request";
const REPLY: &str = "reply";
const ICMP_ERROR: &str = "icmp_error";

struct Rung {
    family: u8,
    chain: String,
    hook: &'static str,
    priority: i32,
    device: Option<String>,
}

/// An installed ladder; dropping it takes it down.
pub struct Ladder {
    conn: Conn,
    table: String,
    families: Vec<u8>,
    rungs: Vec<Rung>,
    missing: Vec<String>,
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ladder").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Ladder {
    /// Installs one in the calling thread's network namespace, all its counters at zero.
    ///
    /// # Errors
    /// [`NftError::is_denied`] without `CAP_NET_ADMIN`; [`NftError::is_absent`] where the kernel has no
    /// nf_tables. An interface that cannot be counted at is no error: see [`Ladder::missing`].
    pub fn install(spec: &LadderSpec) -> Result<Self, NftError> {
        let ip = match (spec.client, spec.server) {
            (IpAddr::V4(_), IpAddr::V4(_)) => family::IPV4,
            (IpAddr::V6(_), IpAddr::V6(_)) => family::IPV6,
            _ => {
                return Err(NftError::Text(format!(
                    "{} and {} are of different families: no flow joins them",
                    spec.client, spec.server
                )));
            }
        };
        let mut conn = Conn::open()?;
        let (table, owner, inet) = make_table(&mut conn, ip)?;
        let mut ladder = Self { conn, table, families: vec![inet], rungs: Vec::new(), missing: Vec::new() };
        let mut orders = Vec::new();
        for (hook, number, priorities) in RUNGS {
            for &priority in *priorities {
                let chain = chain_name(hook, priority, None);
                orders.push(chain_order(&ladder.table, inet, &chain, *number, priority, None));
                orders.extend(rule_orders(&ladder.table, inet, &chain, spec)?);
                ladder.rungs.push(Rung { family: inet, chain, hook, priority, device: None });
            }
        }
        ladder.conn.commit(&orders)?;
        if !spec.devices.is_empty() {
            ladder.add_devices(spec, owner);
        }
        Ok(ladder)
    }

    /// Ingress chains, each interface by itself: one that is gone, or of a kind without the hook,
    /// must not cost the others.
    fn add_devices(&mut self, spec: &LadderSpec, owner: u32) {
        let table = table_order(&self.table, family::NETDEV, owner);
        if self.conn.commit(&[table]).is_err() {
            self.missing.clone_from(&spec.devices);
            return;
        }
        self.families.push(family::NETDEV);
        for (index, device) in spec.devices.iter().enumerate() {
            // Linux 6.16 and later take a name that nothing has yet, and would count nothing.
            if nix::net::if_::if_nametoindex(device.as_str()).is_err() {
                self.missing.push(device.clone());
                continue;
            }
            let mut orders = Vec::new();
            let mut rungs = Vec::new();
            for &priority in INGRESS {
                let chain = chain_name("ingress", priority, Some(index));
                orders.push(chain_order(&self.table, family::NETDEV, &chain, 0, priority, Some(device)));
                match rule_orders(&self.table, family::NETDEV, &chain, spec) {
                    Ok(rules) => orders.extend(rules),
                    Err(_) => continue,
                }
                let device = Some(device.clone());
                rungs.push(Rung { family: family::NETDEV, chain, hook: "ingress", priority, device });
            }
            match self.conn.commit(&orders) {
                Ok(()) => self.rungs.extend(rungs),
                Err(_) => self.missing.push(device.clone()),
            }
        }
    }

    /// The name of its table (or tables: `inet`, and `netdev` where interfaces were given).
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The interfaces of the request that cannot be counted at.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// What each rung has counted so far, in the order of the way in, through and out.
    ///
    /// # Errors
    /// [`NftError::Gone`] when someone removed the table meanwhile.
    pub fn read(&mut self) -> Result<Vec<RungCount>, NftError> {
        let mut rules = Vec::new();
        for family in &self.families {
            match self.conn.rules(*family, &self.table) {
                Ok(more) => rules.extend(more),
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let mut counts = Vec::with_capacity(self.rungs.len());
        for rung in self
            .rungs
            .iter()
            .filter(|rung| rung.device.is_some())
            .chain(self.rungs.iter().filter(|rung| rung.device.is_none()))
        {
            let mut count = RungCount {
                hook: rung.hook.to_owned(),
                priority: rung.priority,
                device: rung.device.clone(),
                request: 0,
                reply: 0,
                icmp_error: 0,
            };
            let mut found = false;
            for rule in rules.iter().filter(|rule| rule.family == rung.family && rule.chain == rung.chain) {
                let packets = rule.exprs.iter().find_map(|expr| match expr {
                    Expr::Counter { packets, .. } => Some(*packets),
                    _ => None,
                });
                let into = match rule.comment.as_deref() {
                    Some(REQUEST) => &mut count.request,
                    Some(REPLY) => &mut count.reply,
                    Some(ICMP_ERROR) => &mut count.icmp_error,
                    _ => continue,
                };
                let Some(packets) = packets else { continue };
                *into += packets;
                found = true;
            }
            // An interface that went away takes its chains with it; a table does not lose others.
            if !found && rung.device.is_none() {
                return Err(NftError::Gone { table: self.table.clone() });
            }
            if found {
                counts.push(count);
            }
        }
        Ok(counts)
    }

    /// Takes it down.
    ///
    /// # Errors
    /// When the kernel would not. A table that someone else removed is no error.
    pub fn remove(mut self) -> Result<(), NftError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), NftError> {
        let mut result = Ok(());
        for family in std::mem::take(&mut self.families) {
            let order = Order {
                kind: msg::DELTABLE,
                flags: 0,
                family,
                attrs: Attrs::new().string(1, &self.table),
                what: format!("remove the counting table {}", self.table),
            };
            match self.conn.commit(&[order]) {
                Err(error) if error.errno() != Some(libc::ENOENT) => result = Err(error),
                _ => {}
            }
        }
        result
    }
}

impl Drop for Ladder {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; an owned table goes with the socket in any case.
        let _ = self.take_down();
    }
}

/// Makes the IP table under a free name: owned where the kernel can, `inet` where it can.
pub(crate) fn make_table(conn: &mut Conn, ip: u8) -> Result<(String, u32, u8), NftError> {
    let mut owner = OWNER;
    let mut inet = family::INET;
    let mut number = 0;
    loop {
        let table = match number {
            0 => format!("{PREFIX}{}", std::process::id()),
            _ => format!("{PREFIX}{}_{number}", std::process::id()),
        };
        // A name must be free in both families, since both tables carry it.
        let taken = conn.tables()?.iter().any(|other| other.name == table);
        let made = if taken { Err(None) } else { conn.commit(&[table_order(&table, inet, owner)]).map_err(Some) };
        match made {
            Ok(()) => return Ok((table, owner, inet)),
            Err(None) if number < NAMES => number += 1,
            Err(None) => return Err(NftError::Text(format!("{NAMES} counting tables exist already: {table}"))),
            Err(Some(error)) => match error.errno() {
                Some(libc::EEXIST) if number < NAMES => number += 1,
                Some(libc::EOPNOTSUPP | libc::EINVAL) if owner != 0 => owner = 0,
                Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) if inet != ip => inet = ip,
                _ => return Err(error),
            },
        }
    }
}

fn chain_name(hook: &str, priority: i32, device: Option<usize>) -> String {
    let sign = if priority < 0 { "m" } else { "" };
    let name = format!("{hook}_{sign}{}", priority.unsigned_abs());
    match device {
        Some(index) => format!("{name}_{index}"),
        None => name,
    }
}

fn table_order(table: &str, family: u8, owner: u32) -> Order {
    Order {
        kind: msg::NEWTABLE,
        flags: NLM_F_CREATE | NLM_F_EXCL,
        family,
        attrs: Attrs::new().string(1, table).u32(2, owner),
        what: format!("add the counting table {table}"),
    }
}

pub(crate) fn chain_order(
    table: &str,
    family: u8,
    chain: &str,
    hook: u32,
    priority: i32,
    device: Option<&str>,
) -> Order {
    #[expect(clippy::cast_sign_loss, reason = "the kernel takes the bits of an int")]
    let attrs = Attrs::new().u32(1, hook).u32(2, priority as u32);
    let hook = match device {
        Some(device) => attrs.string(3, device),
        None => attrs,
    };
    Order {
        kind: msg::NEWCHAIN,
        flags: NLM_F_CREATE | NLM_F_EXCL,
        family,
        // Policy NF_ACCEPT.
        attrs: Attrs::new().string(1, table).string(3, chain).nest(4, &hook).u32(5, 1).string(7, "filter"),
        what: format!("add the counting chain {chain}"),
    }
}

fn rule_orders(table: &str, family: u8, chain: &str, spec: &LadderSpec) -> Result<Vec<Order>, NftError> {
    let (client, server) = (octets(spec.client), octets(spec.server));
    let prelude = prelude(family, spec.client.is_ipv4());
    let mut rules = Vec::new();
    for (comment, from, to, port_offset) in [(REQUEST, &client, &server, 2), (REPLY, &server, &client, 0)] {
        let mut exprs = prelude.clone();
        exprs.extend(addresses(from, to));
        exprs.extend(protocol(spec, port_offset));
        rules.push((comment, exprs));
    }
    for (sender, other) in [(&client, &server), (&server, &client)] {
        let mut exprs = prelude.clone();
        exprs.extend(icmp_error(sender, other));
        rules.push((ICMP_ERROR, exprs));
    }
    rules
        .into_iter()
        .map(|(comment, mut exprs)| {
            exprs.push(Expr::Counter { packets: 0, bytes: 0 });
            let list = Expr::write_list(&exprs)
                .ok_or_else(|| NftError::Text(format!("a rule of {chain} cannot be written")))?;
            let attrs = Attrs::new().string(1, table).string(2, chain).nest(4, &list);
            Ok(Order {
                kind: msg::NEWRULE,
                flags: NLM_F_CREATE | netlink_packet_core::NLM_F_APPEND,
                family,
                attrs: attrs.bytes_attr(7, &comment_userdata(comment)),
                what: format!("add the rule that counts {comment}s to {chain}"),
            })
        })
        .collect()
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Which IP version: by `meta nfproto` in inet, by `meta protocol` (EtherType) in netdev.
pub(crate) fn prelude(family: u8, v4: bool) -> Vec<Expr> {
    match family {
        family::INET => eq_meta(15, vec![if v4 { family::IPV4 } else { family::IPV6 }]),
        family::NETDEV => eq_meta(1, if v4 { vec![0x08, 0x00] } else { vec![0x86, 0xdd] }),
        _ => Vec::new(),
    }
}

fn eq_meta(key: u32, data: Vec<u8>) -> Vec<Expr> {
    vec![Expr::Meta { key, dreg: 1 }, Expr::Cmp { sreg: 1, op: Op::Eq, data }]
}

fn eq_payload(base: Base, offset: u32, data: &[u8]) -> [Expr; 2] {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    [Expr::Payload { dreg: 1, base, offset, len }, Expr::Cmp { sreg: 1, op: Op::Eq, data: data.to_vec() }]
}

/// The offsets of source and destination address in an IP header.
fn address_offsets(address: &[u8]) -> (u32, u32) {
    if address.len() == 4 { (12, 16) } else { (8, 24) }
}

pub(crate) fn addresses(from: &[u8], to: &[u8]) -> Vec<Expr> {
    let (source, destination) = address_offsets(from);
    let mut exprs = eq_payload(Base::Network, source, from).to_vec();
    exprs.extend(eq_payload(Base::Network, destination, to));
    exprs
}

/// `meta l4proto` and, at `port_offset` of the transport header, the server's port; or an echo's type.
pub(crate) fn protocol(spec: &LadderSpec, port_offset: u32) -> Vec<Expr> {
    let request = port_offset == 2;
    let (number, echo) = match (spec.transport, spec.client.is_ipv4()) {
        (LadderTransport::Tcp, _) => (6, None),
        (LadderTransport::Udp, _) => (17, None),
        (LadderTransport::Icmp, true) => (1, Some(if request { 8 } else { 0 })),
        (LadderTransport::Icmp, false) => (58, Some(if request { 128 } else { 129 })),
    };
    let mut exprs = eq_meta(16, vec![number]);
    if let Some(kind) = echo {
        exprs.extend(eq_payload(Base::Transport, 0, &[kind]));
    } else if let Some(port) = spec.port {
        exprs.extend(eq_payload(Base::Transport, port_offset, &port.to_be_bytes()));
    }
    exprs
}

/// An error for `sender` about a packet of its own to `other`, whoever says it: the quoted IP header
/// follows the ICMP header's 8 bytes.
fn icmp_error(sender: &[u8], other: &[u8]) -> Vec<Expr> {
    let (source, destination) = address_offsets(sender);
    let v4 = sender.len() == 4;
    let mut exprs = eq_payload(Base::Network, destination, sender).to_vec();
    exprs.extend(eq_meta(16, vec![if v4 { 1 } else { 58 }]));
    exprs.push(Expr::Payload { dreg: 1, base: Base::Transport, offset: 0, len: 1 });
    if v4 {
        // 3 (unreachable) and 11 (time exceeded) differ in one bit.
        exprs.push(Expr::Bitwise { sreg: 1, dreg: 1, len: 1, op: 0, mask: vec![!8], xor: vec![0], shift: 0 });
        exprs.push(Expr::Cmp { sreg: 1, op: Op::Eq, data: vec![3] });
    } else {
        // 1 (unreachable), 2 (packet too big), 3 (time exceeded).
        exprs.push(Expr::Cmp { sreg: 1, op: Op::Gte, data: vec![1] });
        exprs.push(Expr::Cmp { sreg: 1, op: Op::Lte, data: vec![3] });
    }
    exprs.extend(eq_payload(Base::Transport, 8 + source, sender));
    exprs.extend(eq_payload(Base::Transport, 8 + destination, other));
    exprs
}
