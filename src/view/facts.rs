//! A host's facts as people read them: what is there, what it looks like, and what could not be seen.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use super::{Paint, Style};
use crate::host::hosts::HostsFile;
use crate::host::nsswitch::NsSwitch;
use crate::host::resolv::ResolvConf;
use crate::host::show::table_name;
use crate::host::{
    Address, HostFacts, Issue, Link, NudState, PolicyRule, Privileges, SocketFact, SocketState, TextFile, Transport,
};

/// Lines of one list that are shown; the rest is counted, and is in the JSON.
const SHOWN: usize = 40;

/// Writes all that was seen.
///
/// # Errors
/// Those of `out`.
pub fn facts(out: &mut dyn Write, facts: &HostFacts, style: Style) -> io::Result<()> {
    let mut page = Page { out, style };
    page.head(facts)?;
    if let Some(links) = &facts.links {
        page.links(links, facts.addresses.as_deref())?;
    } else if let Some(addresses) = &facts.addresses {
        page.section("Addresses")?;
        page.list(addresses.iter().map(|address| (address.to_string(), address_paint(address))).collect())?;
    }
    page.routes(facts)?;
    page.rules(facts)?;
    page.neighbours(facts)?;
    if let Some(sockets) = &facts.sockets {
        page.sockets(sockets)?;
    }
    page.names(facts)?;
    page.settings(facts)?;
    page.firewall(facts)?;
    page.counters(&facts.counters)?;
    page.unseen(facts)
}

struct Page<'a> {
    out: &'a mut dyn Write,
    style: Style,
}

/// Below this width columns that can be done without are left out.
const NARROW: usize = 72;

/// A cell and what it means.
type Painted = (String, Option<Paint>);

fn plain(text: impl Into<String>) -> Painted {
    (text.into(), None)
}

/// Text of this host without what a terminal would obey: names of processes and lines of files can
/// hold anything.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl Page<'_> {
    fn section(&mut self, title: &str) -> io::Result<()> {
        writeln!(self.out, "\n{}", self.style.paint(Paint::Bold, title))
    }

    /// Aligned columns, indented, folded to the width there is.
    fn grid(&mut self, header: &[&str], rows: Vec<Vec<Painted>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(u16::try_from(self.style.width.saturating_sub(1)).unwrap_or(u16::MAX));
        if self.style.color {
            table.enforce_styling();
            table.style_text_only();
        } else {
            table.force_no_tty();
        }
        let cell = |(text, paint): Painted| {
            let cell = Cell::new(clean(&text));
            match paint.and_then(color) {
                Some(color) if self.style.color => cell.fg(color),
                _ => cell,
            }
        };
        if !header.is_empty() {
            table.set_header(header.iter().map(|title| cell(((*title).to_owned(), Some(Paint::Dim)))));
        }
        for row in rows {
            table.add_row(row.into_iter().map(cell));
        }
        for line in table.lines() {
            writeln!(self.out, " {}", line.trim_end())?;
        }
        Ok(())
    }

    /// One line each, the first [`SHOWN`] of them.
    fn list(&mut self, lines: Vec<Painted>) -> io::Result<()> {
        let more = lines.len().saturating_sub(SHOWN);
        for (line, paint) in lines.into_iter().take(SHOWN) {
            let line = clean(&line);
            let painted = paint.map_or_else(|| line.clone(), |paint| self.style.paint(paint, &line));
            writeln!(self.out, "  {painted}")?;
        }
        self.more(more)
    }

    fn more(&mut self, more: usize) -> io::Result<()> {
        if more > 0 {
            writeln!(self.out, "  {}", self.style.paint(Paint::Dim, format!("… and {more} more (--json has all)")))?;
        }
        Ok(())
    }

    fn head(&mut self, facts: &HostFacts) -> io::Result<()> {
        let name = clean(facts.hostname.as_deref().unwrap_or("this host"));
        let kernel = facts.kernel.as_deref().map(|kernel| format!("Linux {kernel}")).unwrap_or_default();
        writeln!(self.out, "{}  {}", self.style.paint(Paint::Bold, name), self.style.paint(Paint::Dim, kernel))?;
        let privileges = &facts.privileges;
        writeln!(self.out, "looked at as {}", privileged(privileges))?;
        if let Some(grant) = &privileges.grant {
            writeln!(self.out, "for more: {}", self.style.paint(Paint::Command, grant))?;
        }
        Ok(())
    }

    fn links(&mut self, links: &[Link], addresses: Option<&[Address]>) -> io::Result<()> {
        self.section("Links")?;
        let narrow = self.style.width < NARROW;
        let rows = links.iter().take(SHOWN).map(|link| {
            let own: Vec<String> =
                addresses.unwrap_or_default().iter().filter(|address| address.index == link.index).map(brief).collect();
            let mut row = vec![(link.name.clone(), Some(Paint::Name)), link_state(link)];
            if !narrow {
                row.push(plain(link.kind.clone().unwrap_or_default()));
                row.push(plain(link.mtu.to_string()));
                row.push(plain(link.mac.map(|mac| mac.to_string()).unwrap_or_default()));
            }
            row.push(plain(own.join("\n")));
            row
        });
        let rows = rows.collect();
        let wide = ["name", "state", "kind", "mtu", "mac", "addresses"];
        self.grid(if narrow { &["name", "state", "addresses"] } else { &wide }, rows)?;
        self.more(links.len().saturating_sub(SHOWN))
    }

    fn routes(&mut self, facts: &HostFacts) -> io::Result<()> {
        let Some(routes) = &facts.routes else { return Ok(()) };
        let mut tables: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for route in routes {
            tables.entry(route.table).or_default().push(route);
        }
        // What the kernel keeps for itself follows from the addresses.
        let own = tables.remove(&255).map_or(0, |own| own.len());
        // Main first.
        let mut order: Vec<u32> = tables.keys().copied().collect();
        order.sort_by_key(|table| (*table != 254, *table));
        for table in order {
            self.section(&format!("Routes, table {}", table_name(table)))?;
            let named = format!(" table {}", table_name(table));
            let lines = tables[&table].iter().map(|route| {
                let paint = (route.dead || route.linkdown).then_some(Paint::Warn);
                (route.to_string().replacen(&named, "", 1), paint)
            });
            let lines = lines.collect();
            self.list(lines)?;
        }
        if own > 0 {
            let note = format!("and {own} of table local, which follow from the addresses");
            writeln!(self.out, "  {}", self.style.paint(Paint::Dim, note))?;
        }
        if routes.is_empty() {
            self.section("Routes")?;
            self.list(vec![("none".to_owned(), Some(Paint::Warn))])?;
        }
        Ok(())
    }

    fn rules(&mut self, facts: &HostFacts) -> io::Result<()> {
        let Some(rules) = &facts.rules else { return Ok(()) };
        self.section("Policy rules")?;
        let special: Vec<&PolicyRule> =
            rules.iter().filter(|rule| !PolicyRule::builtin(rule.v6).contains(rule)).collect();
        if special.is_empty() {
            return self.list(vec![("none but the kernel's own".to_owned(), Some(Paint::Dim))]);
        }
        let lines = special.iter().map(|rule| {
            let family = if rule.v6 { "-6 " } else { "-4 " };
            plain(format!("{family}{rule}"))
        });
        let lines = lines.collect();
        self.list(lines)
    }

    fn neighbours(&mut self, facts: &HostFacts) -> io::Result<()> {
        let Some(neighbours) = &facts.neighbours else { return Ok(()) };
        self.section("Neighbours")?;
        // Groups have no neighbours to speak of: the kernel makes these up.
        let lines: Vec<Painted> = neighbours
            .iter()
            .filter(|neighbour| neighbour.state != NudState::Noarp)
            .map(|neighbour| {
                let paint = match neighbour.state {
                    NudState::Failed => Some(Paint::Bad),
                    NudState::Incomplete | NudState::Probe => Some(Paint::Warn),
                    _ => None,
                };
                (neighbour.to_string(), paint)
            })
            .collect();
        if lines.is_empty() {
            return self.list(vec![("none".to_owned(), Some(Paint::Dim))]);
        }
        self.list(lines)
    }

    fn sockets(&mut self, sockets: &[SocketFact]) -> io::Result<()> {
        self.section("Listening")?;
        let open: Vec<&SocketFact> = sockets
            .iter()
            .filter(|socket| match socket.transport {
                Transport::Tcp => socket.state == SocketState::Listen,
                Transport::Udp => socket.state == SocketState::Unconnected,
            })
            .collect();
        if open.is_empty() {
            self.list(vec![("nothing".to_owned(), Some(Paint::Dim))])?;
        } else {
            let rows = open.iter().take(SHOWN).map(|socket| {
                let queue = match socket.transport {
                    Transport::Tcp => format!("{}/{}", socket.recv_queue, socket.send_queue),
                    Transport::Udp => String::new(),
                };
                let full = socket.accept_queue_full().then_some(Paint::Bad);
                vec![
                    plain(if socket.transport == Transport::Tcp { "tcp" } else { "udp" }),
                    (endpoint(socket), Some(Paint::Name)),
                    (queue, full),
                    plain(holders(socket)),
                ]
            });
            let rows = rows.collect();
            self.grid(&["", "address", "waiting", "held by"], rows)?;
            self.more(open.len().saturating_sub(SHOWN))?;
        }
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        for socket in
            sockets.iter().filter(|socket| socket.transport == Transport::Tcp && socket.state != SocketState::Listen)
        {
            *states.entry(words(socket.state)).or_default() += 1;
        }
        if !states.is_empty() {
            let all: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let note = format!("TCP connections: {}", all.join(", "));
            writeln!(self.out, "  {}", self.style.paint(Paint::Dim, note))?;
        }
        Ok(())
    }

    fn names(&mut self, facts: &HostFacts) -> io::Result<()> {
        let names = &facts.names;
        // Not asked for: not even a path.
        if names.hosts.path.is_empty() {
            return Ok(());
        }
        self.section("Names")?;
        let parsed = |file: &TextFile| file.text.clone().unwrap_or_default();
        let switch = NsSwitch::parse(&parsed(&names.nsswitch));
        let order: Vec<String> = switch.hosts().iter().map(ToString::to_string).collect();
        let resolv = ResolvConf::of(names);
        let servers: Vec<String> = resolv
            .servers()
            .iter()
            .map(|server| match (&server.scope, server.line) {
                (Some(scope), _) => format!("{}%{scope}", server.address),
                (None, Some(_)) => server.address.to_string(),
                (None, None) => format!("{} (none is named)", server.address),
            })
            .collect();
        let hosts = HostsFile::parse(&parsed(&names.hosts));
        let mut rows =
            vec![vec![plain("asked"), plain(order.join(", then "))], vec![plain("servers"), plain(servers.join(", "))]];
        let search = resolv.search(facts.hostname.as_deref());
        if !search.is_empty() {
            rows.push(vec![plain("suffixes"), plain(search.join(" "))]);
        }
        rows.push(vec![plain("hosts file"), plain(format!("{} entries", hosts.entries.len()))]);
        for (name, value) in &names.environment {
            rows.push(vec![plain(name.clone()), (value.clone(), Some(Paint::Warn))]);
        }
        for file in [&names.hosts, &names.resolv_conf, &names.nsswitch, &names.gai_conf] {
            if let Some(target) = &file.target {
                rows.push(vec![plain(file.path.clone()), plain(format!("is {target}"))]);
            }
            // Without gai.conf the defaults hold, as almost everywhere.
            if let (Some(why), false) = (&file.why, file.path == names.gai_conf.path) {
                rows.push(vec![plain(file.path.clone()), (why.clone(), Some(Paint::Warn))]);
            }
        }
        for (file, issues) in
            [(&names.hosts, &hosts.issues), (&names.resolv_conf, &resolv.issues), (&names.nsswitch, &switch.issues)]
        {
            for Issue { line, column, message } in issues.iter().take(SHOWN) {
                rows.push(vec![plain(format!("{}:{line}:{column}", file.path)), (message.clone(), Some(Paint::Warn))]);
            }
        }
        self.grid(&[], rows)
    }

    fn settings(&mut self, facts: &HostFacts) -> io::Result<()> {
        if facts.sysctls.is_empty() {
            return Ok(());
        }
        self.section("Settings")?;
        let yes_no = |value: i64| if value == 0 { "no" } else { "yes" };
        let mut rows: Vec<Vec<Painted>> = Vec::new();
        for (name, meaning) in TOLD {
            if let Some(value) = facts.sysctl(name) {
                rows.push(vec![plain(*meaning), plain(yes_no(value)), ((*name).to_owned(), Some(Paint::Dim))]);
            }
        }
        if let (Some(count), Some(most)) =
            (facts.sysctl("net.netfilter.nf_conntrack_count"), facts.sysctl("net.netfilter.nf_conntrack_max"))
        {
            let full = (count * 10 >= most * 9).then_some(Paint::Bad);
            let name = "net.netfilter.nf_conntrack_max".to_owned();
            rows.push(vec![
                plain("tracked connections"),
                (format!("{count} of {most}"), full),
                (name, Some(Paint::Dim)),
            ]);
        }
        if self.style.width < NARROW {
            for row in &mut rows {
                row.truncate(2);
            }
        }
        self.grid(&[], rows)?;
        let note = format!("{} settings were read (--json has all)", facts.sysctls.len());
        writeln!(self.out, "  {}", self.style.paint(Paint::Dim, note))
    }

    fn firewall(&mut self, facts: &HostFacts) -> io::Result<()> {
        let Some(dumps) = &facts.firewall else { return Ok(()) };
        self.section("Firewall")?;
        if dumps.is_empty() {
            return self.list(vec![("no rules are loaded".to_owned(), Some(Paint::Dim))]);
        }
        let word = |value: serde_json::Result<serde_json::Value>| {
            value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let rows = dumps.iter().map(|dump| {
            vec![
                (word(serde_json::to_value(dump.format)), Some(Paint::Name)),
                plain(format!("in the kernel's {}", word(serde_json::to_value(dump.backend)))),
                plain(format!("{} lines", dump.text.lines().count())),
                (format!("read by {}", dump.via), Some(Paint::Dim)),
            ]
        });
        let rows = rows.collect();
        self.grid(&[], rows)
    }

    fn counters(&mut self, counters: &BTreeMap<String, u64>) -> io::Result<()> {
        if counters.is_empty() {
            return Ok(());
        }
        self.section("Counters that tell of trouble")?;
        let telling = |name: &str| TROUBLE.contains(&name);
        let rows: Vec<Vec<Painted>> = counters
            .iter()
            .filter(|(name, count)| **count > 0 && telling(name))
            .map(|(name, count)| vec![plain(name.clone()), plain(count.to_string())])
            .collect();
        if rows.is_empty() {
            return self.list(vec![("none has counted".to_owned(), Some(Paint::Good))]);
        }
        self.grid(&[], rows)
    }

    fn unseen(&mut self, facts: &HostFacts) -> io::Result<()> {
        if facts.unseen.is_empty() {
            return Ok(());
        }
        self.section("Not seen")?;
        let rows = facts.unseen.iter().map(|unseen| {
            let hint = unseen.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
            vec![(unseen.fact.clone(), Some(Paint::Warn)), plain(format!("{}{hint}", unseen.why))]
        });
        let rows = rows.collect();
        self.grid(&[], rows)
    }
}

/// Settings worth a line, and what it means when they are on.
const TOLD: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "forwards IPv4"),
    ("net.ipv6.conf.all.forwarding", "forwards IPv6"),
    ("net.ipv6.conf.all.disable_ipv6", "IPv6 switched off"),
    ("net.ipv4.icmp_echo_ignore_all", "ignores pings"),
    ("net.ipv4.ip_nonlocal_bind", "binds foreign addresses"),
];

/// Counters that stand still on a host where all is well.
const TROUBLE: &[&str] = &[
    "IcmpInErrors",
    "IpFragFails",
    "IpInAddrErrors",
    "IpInDiscards",
    "IpInHdrErrors",
    "IpInTruncatedPkts",
    "IpOutDiscards",
    "IpOutNoRoutes",
    "IpReasmFails",
    "Ip6InAddrErrors",
    "Ip6InDiscards",
    "Ip6InHdrErrors",
    "Ip6InNoRoutes",
    "Ip6OutDiscards",
    "Ip6OutNoRoutes",
    "TcpExtListenDrops",
    "TcpExtListenOverflows",
    "TcpExtTCPBacklogDrop",
    "TcpExtTCPMemoryPressures",
    "TcpExtTCPReqQFullDrop",
    "TcpExtTCPTimeWaitOverflow",
    "TcpExtPAWSPassive",
    "TcpInCsumErrors",
    "TcpInErrs",
    "UdpInCsumErrors",
    "UdpInErrors",
    "UdpRcvbufErrors",
    "UdpSndbufErrors",
    "IPReversePathFilter",
    "TcpExtIPReversePathFilter",
    "IpExtInCsumErrors",
    "IpExtInNoRoutes",
];

fn color(paint: Paint) -> Option<Color> {
    Some(match paint {
        Paint::Bold => return None,
        Paint::Dim => Color::DarkGrey,
        Paint::Good => Color::DarkGreen,
        Paint::Bad => Color::DarkRed,
        Paint::Warn => Color::DarkYellow,
        Paint::Name => Color::DarkCyan,
        Paint::Command => Color::DarkBlue,
    })
}

fn privileged(privileges: &Privileges) -> String {
    let may = [
        (privileges.net_raw, "raw sockets"),
        (privileges.net_admin, "rulesets"),
        (privileges.sys_admin, "namespaces"),
        (privileges.sys_ptrace, "others' sockets"),
        (privileges.ping_socket, "ping sockets"),
    ];
    let who = if privileges.euid == 0 { "root".to_owned() } else { format!("user {}", privileges.euid) };
    let list = |wanted: bool| {
        may.iter().filter(|(may, _)| *may == wanted).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
    };
    match (list(true), list(false)) {
        (all, none) if none.is_empty() => format!("{who}, who may use {all}"),
        (none, all) if none.is_empty() => format!("{who}, who may not use {all}"),
        (some, others) => format!("{who}, who may use {some}; not {others}"),
    }
}

fn link_state(link: &Link) -> Painted {
    let (text, paint) = match (link.up, link.carrier) {
        (false, _) => ("down", Paint::Warn),
        (true, Some(false)) => ("no carrier", Paint::Bad),
        (true, _) => ("up", Paint::Good),
    };
    let mut text = text.to_owned();
    for (set, word) in [(link.noarp && !link.point_to_point, "no ARP"), (link.xdp, "XDP")] {
        if set {
            text = format!("{text}, {word}");
        }
    }
    (text, Some(paint))
}

fn brief(address: &Address) -> String {
    let mut text = format!("{}/{}", address.address, address.prefix_len);
    if let Some(peer) = address.peer {
        text = format!("{} peer {peer}/{}", address.address, address.prefix_len);
    }
    for (set, word) in
        [(address.tentative, "tentative"), (address.dad_failed, "duplicate!"), (address.deprecated, "deprecated")]
    {
        if set {
            text = format!("{text} {word}");
        }
    }
    text
}

fn address_paint(address: &Address) -> Option<Paint> {
    if address.dad_failed {
        Some(Paint::Bad)
    } else if address.tentative || address.deprecated {
        Some(Paint::Warn)
    } else {
        None
    }
}

fn endpoint(socket: &SocketFact) -> String {
    let address = match socket.local {
        local if local.is_unspecified() && local.is_ipv4() => "0.0.0.0".to_owned(),
        local if local.is_ipv6() => format!("[{local}]"),
        local => local.to_string(),
    };
    let device = socket.device.as_ref().map(|device| format!("%{device}")).unwrap_or_default();
    let only = if socket.v6only && socket.local.is_unspecified() { " (IPv6 only)" } else { "" };
    format!("{address}{device}:{}{only}", socket.local_port)
}

fn holders(socket: &SocketFact) -> String {
    if socket.owners.is_empty() {
        return format!("? (user {})", socket.uid);
    }
    let mut all: Vec<String> = socket
        .owners
        .iter()
        .take(3)
        .map(|owner| {
            let stopped = match owner.state {
                'T' | 't' => ", stopped!",
                'Z' => ", zombie!",
                _ => "",
            };
            let full = match owner.fds {
                Some((open, limit)) if open >= limit => ", out of descriptors!",
                _ => "",
            };
            format!("{}({}{stopped}{full})", owner.name, owner.pid)
        })
        .collect();
    if socket.owners.len() > all.len() {
        all.push(format!("and {} more", socket.owners.len() - all.len()));
    }
    all.join(", ")
}

/// `time-wait`: the name in the JSON.
fn words(state: SocketState) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
