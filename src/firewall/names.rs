//! Numbers and the names people write for them: protocols, ports, ICMP types.
//!
//! Only names that iptables itself carries or that every `/etc/services` has; the machine's own
//! files are not read, so a judgement does not depend on where it is made.

/// Protocol names (IANA "Assigned Internet Protocol Numbers"), the preferred one first.
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("udplite", 136),
    ("sctp", 132),
    ("dccp", 33),
    ("esp", 50),
    ("ah", 51),
    ("gre", 47),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("ipv4", 4),
    ("ipip", 94),
    ("st", 5),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("idrp", 45),
    ("rsvp", 46),
    ("skip", 57),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("rspf", 73),
    ("vmtp", 81),
    ("eigrp", 88),
    ("ospf", 89),
    ("ospfigp", 89),
    ("ax.25", 93),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("isis", 124),
    ("fc", 133),
    ("mh", 135),
    ("ipv6-mh", 135),
    ("mobility-header", 135),
    ("mpls-in-ip", 137),
    ("manet", 138),
    ("shim6", 139),
    ("wesp", 141),
    ("rohc", 142),
];

/// Names that iptables-restore knows without `/etc/protocols` (`xtables_chain_protos`).
const PORTABLE: [u8; 8] = [6, 17, 136, 1, 58, 50, 51, 132];

/// A protocol by name or number; `all` and `ip` are 0.
pub fn protocol(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return Some(number);
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "all" | "ip" | "hopopt" | "hopopts") {
        return Some(0);
    }
    PROTOCOLS.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number)
}

/// A protocol's name, or its number where it has none.
pub fn protocol_name(number: u8) -> String {
    PROTOCOLS.iter().find(|(_, n)| *n == number).map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// A protocol as iptables-restore reads it on every machine.
pub(in crate::firewall) fn portable_protocol(number: u8) -> String {
    if PORTABLE.contains(&number) { protocol_name(number) } else { number.to_string() }
}

/// Service names that rulesets use.
const SERVICES: &[(&str, u16)] = &[
    ("tcpmux", 1),
    ("echo", 7),
    ("discard", 9),
    ("daytime", 13),
    ("chargen", 19),
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("mail", 25),
    ("time", 37),
    ("whois", 43),
    ("nicname", 43),
    ("tacacs", 49),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("gopher", 70),
    ("finger", 79),
    ("http", 80),
    ("www", 80),
    ("www-http", 80),
    ("kerberos", 88),
    ("pop2", 109),
    ("pop3", 110),
    ("pop-3", 110),
    ("sunrpc", 111),
    ("portmapper", 111),
    ("auth", 113),
    ("ident", 113),
    ("tap", 113),
    ("sftp", 115),
    ("nntp", 119),
    ("ntp", 123),
    ("epmap", 135),
    ("loc-srv", 135),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("imap", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("snmptrap", 162),
    ("xdmcp", 177),
    ("bgp", 179),
    ("irc", 194),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("kpasswd", 464),
    ("submissions", 465),
    ("urd", 465),
    ("ssmtp", 465),
    ("smtps", 465),
    ("isakmp", 500),
    ("exec", 512),
    ("biff", 512),
    ("login", 513),
    ("who", 513),
    ("shell", 514),
    ("syslog", 514),
    ("printer", 515),
    ("route", 520),
    ("router", 520),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("rtsp", 554),
    ("nntps", 563),
    ("submission", 587),
    ("ipp", 631),
    ("ldaps", 636),
    ("tinc", 655),
    ("domain-s", 853),
    ("rsync", 873),
    ("ftps-data", 989),
    ("ftps", 990),
    ("telnets", 992),
    ("imaps", 993),
    ("pop3s", 995),
    ("socks", 1080),
    ("openvpn", 1194),
    ("ms-sql-s", 1433),
    ("ms-sql-m", 1434),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("nfs", 2049),
    ("squid", 3128),
    ("mysql", 3306),
    ("ms-wbt-server", 3389),
    ("rdp", 3389),
    ("svn", 3690),
    ("epmd", 4369),
    ("ipsec-nat-t", 4500),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
    ("mdns", 5353),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("amqps", 5671),
    ("x11", 6000),
    ("redis", 6379),
    ("ircd", 6667),
    ("bbs", 7000),
    ("http-alt", 8080),
    ("webcache", 8080),
    ("puppet", 8140),
    ("git", 9418),
    ("zabbix-agent", 10050),
    ("zabbix-trapper", 10051),
    ("webmin", 10000),
];

/// A port by number or service name.
pub fn port(text: &str) -> Option<u16> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let lower = text.to_ascii_lowercase();
    SERVICES.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number)
}

/// A port's usual service name, for explanations.
pub fn service_name(port: u16) -> Option<&'static str> {
    // Only the names that help a reader; most of the table is aliases of the past.
    Some(match port {
        22 => "SSH",
        25 => "SMTP",
        53 => "DNS",
        67 | 68 => "DHCP",
        80 => "HTTP",
        123 => "NTP",
        443 => "HTTPS",
        853 => "DNS over TLS",
        3306 => "MySQL",
        5432 => "PostgreSQL",
        6379 => "Redis",
        8080 => "HTTP alternative",
        _ => return None,
    })
}

type IcmpRow = (&'static str, u8, u8, u8);

/// `extensions/libxt_icmp.h`, IPv4: name, type, first and last code.
const ICMP: &[IcmpRow] = &[
    ("echo-reply", 0, 0, 255),
    ("pong", 0, 0, 255),
    ("destination-unreachable", 3, 0, 255),
    ("network-unreachable", 3, 0, 0),
    ("host-unreachable", 3, 1, 1),
    ("protocol-unreachable", 3, 2, 2),
    ("port-unreachable", 3, 3, 3),
    ("fragmentation-needed", 3, 4, 4),
    ("source-route-failed", 3, 5, 5),
    ("network-unknown", 3, 6, 6),
    ("host-unknown", 3, 7, 7),
    ("network-prohibited", 3, 9, 9),
    ("host-prohibited", 3, 10, 10),
    ("TOS-network-unreachable", 3, 11, 11),
    ("TOS-host-unreachable", 3, 12, 12),
    ("communication-prohibited", 3, 13, 13),
    ("host-precedence-violation", 3, 14, 14),
    ("precedence-cutoff", 3, 15, 15),
    ("source-quench", 4, 0, 255),
    ("redirect", 5, 0, 255),
    ("network-redirect", 5, 0, 0),
    ("host-redirect", 5, 1, 1),
    ("TOS-network-redirect", 5, 2, 2),
    ("TOS-host-redirect", 5, 3, 3),
    ("echo-request", 8, 0, 255),
    ("ping", 8, 0, 255),
    ("router-advertisement", 9, 0, 255),
    ("router-solicitation", 10, 0, 255),
    ("time-exceeded", 11, 0, 255),
    ("ttl-exceeded", 11, 0, 255),
    ("ttl-zero-during-transit", 11, 0, 0),
    ("ttl-zero-during-reassembly", 11, 1, 1),
    ("parameter-problem", 12, 0, 255),
    ("ip-header-bad", 12, 0, 0),
    ("required-option-missing", 12, 1, 1),
    ("timestamp-request", 13, 0, 255),
    ("timestamp-reply", 14, 0, 255),
    ("info-request", 15, 0, 255),
    ("info-reply", 16, 0, 255),
    ("address-mask-request", 17, 0, 255),
    ("address-mask-reply", 18, 0, 255),
];

/// `extensions/libxt_icmp.h`, IPv6.
const ICMP6: &[IcmpRow] = &[
    ("destination-unreachable", 1, 0, 255),
    ("no-route", 1, 0, 0),
    ("communication-prohibited", 1, 1, 1),
    ("beyond-scope", 1, 2, 2),
    ("address-unreachable", 1, 3, 3),
    ("port-unreachable", 1, 4, 4),
    ("failed-policy", 1, 5, 5),
    ("reject-route", 1, 6, 6),
    ("packet-too-big", 2, 0, 255),
    ("time-exceeded", 3, 0, 255),
    ("ttl-exceeded", 3, 0, 255),
    ("ttl-zero-during-transit", 3, 0, 0),
    ("ttl-zero-during-reassembly", 3, 1, 1),
    ("parameter-problem", 4, 0, 255),
    ("bad-header", 4, 0, 0),
    ("unknown-header-type", 4, 1, 1),
    ("unknown-option", 4, 2, 2),
    ("echo-request", 128, 0, 255),
    ("ping", 128, 0, 255),
    ("echo-reply", 129, 0, 255),
    ("pong", 129, 0, 255),
    ("mld-listener-query", 130, 0, 255),
    ("mld-listener-report", 131, 0, 255),
    ("mld-listener-done", 132, 0, 255),
    ("mld-listener-reduction", 132, 0, 255),
    ("router-solicitation", 133, 0, 255),
    ("nd-router-solicit", 133, 0, 255),
    ("router-advertisement", 134, 0, 255),
    ("nd-router-advert", 134, 0, 255),
    ("neighbour-solicitation", 135, 0, 255),
    ("neighbor-solicitation", 135, 0, 255),
    ("nd-neighbor-solicit", 135, 0, 255),
    ("neighbour-advertisement", 136, 0, 255),
    ("neighbor-advertisement", 136, 0, 255),
    ("nd-neighbor-advert", 136, 0, 255),
    ("redirect", 137, 0, 255),
    ("nd-redirect", 137, 0, 255),
];

/// An ICMP type: `8`, `3/4`, a name or the unique beginning of one, `any`.
///
/// Gives the type (`None` for any) and the first and last code.
pub fn icmp_type(text: &str, v6: bool) -> Option<(Option<u8>, u8, u8)> {
    if !v6 && text.eq_ignore_ascii_case("any") {
        return Some((None, 0, 255));
    }
    if text.bytes().next().is_some_and(|b| b.is_ascii_digit()) {
        let (kind, code) = match text.split_once('/') {
            Some((kind, code)) => (kind, Some(code.parse().ok()?)),
            None => (text, None),
        };
        let kind: u8 = kind.parse().ok()?;
        // The kernel takes 255 as any type (net/ipv4/netfilter/ip_tables.c, icmp_type_code_match).
        let kind = if kind == 255 && !v6 { None } else { Some(kind) };
        return Some((kind, code.unwrap_or(0), code.unwrap_or(255)));
    }
    let table = if v6 { ICMP6 } else { ICMP };
    let lower = text.to_ascii_lowercase();
    if lower.is_empty() {
        return None;
    }
    let exact = table.iter().find(|row| row.0.eq_ignore_ascii_case(&lower));
    let row = exact.or_else(|| {
        let mut found = table.iter().filter(|row| row.0.to_ascii_lowercase().starts_with(&lower));
        let first = found.next()?;
        found.all(|row| (row.1, row.2, row.3) == (first.1, first.2, first.3)).then_some(first)
    })?;
    Some((Some(row.1), row.2, row.3))
}

/// An ICMP type in words.
pub fn icmp_name(kind: u8, codes: (u8, u8), v6: bool) -> Option<&'static str> {
    let table = if v6 { ICMP6 } else { ICMP };
    table.iter().find(|row| row.1 == kind && (row.2, row.3) == codes).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(protocol("ICMPv6"), Some(58));
        assert_eq!(protocol("all"), Some(0));
        assert_eq!(protocol("256"), None);
        assert_eq!(port("ssh"), Some(22));
        assert_eq!(port("70000"), None);
        assert_eq!(port("+5"), None);
        assert_eq!(icmp_type("echo-req", false), Some((Some(8), 0, 255)));
        assert_eq!(icmp_type("3/4", false), Some((Some(3), 4, 4)));
        assert_eq!(icmp_type("time", false), None, "ambiguous: time-exceeded, timestamp-request");
        assert_eq!(icmp_type("neighbor-solicitation", true), Some((Some(135), 0, 255)));
    }
}
