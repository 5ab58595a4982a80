//! Sysctls by their dotted names, as sysctl(8) writes them: a dot inside an interface's name is a
//! slash (`net.ipv4.conf.eth0/100.rp_filter`).

use super::HostFacts;

/// The ones that are not kept per interface.
pub const GLOBAL: &[&str] = &[
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_bpf_disabled",
    "kernel.unprivileged_userns_clone",
    "net.bridge.bridge-nf-call-arptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.fib_multipath_hash_policy",
    "net.ipv4.fib_multipath_use_neigh",
    "net.ipv4.fwmark_reflect",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.icmp_errors_use_inbound_ifaddr",
    "net.ipv4.icmp_msgs_burst",
    "net.ipv4.icmp_msgs_per_sec",
    "net.ipv4.icmp_ratelimit",
    "net.ipv4.icmp_ratemask",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.ip_early_demux",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_forward_use_pmtu",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_no_pmtu_disc",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.min_adv_mss",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv4.ping_group_range",
    "net.ipv4.route.min_pmtu",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_base_mss",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_ecn_fallback",
    "net.ipv4.tcp_fastopen",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_fwmark_accept",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_l3mdev_accept",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_min_snd_mss",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_retries1",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_recycle",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_l3mdev_accept",
    "net.ipv6.bindv6only",
    "net.ipv6.fib_multipath_hash_policy",
    "net.ipv6.fwmark_reflect",
    "net.ipv6.icmp.echo_ignore_all",
    "net.ipv6.icmp.ratelimit",
    "net.ipv6.ip_nonlocal_bind",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.ipv6.route.max_size",
    "net.netfilter.nf_conntrack_acct",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_checksum",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_helper",
    "net.netfilter.nf_conntrack_log_invalid",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst",
    "net.netfilter.nf_conntrack_tcp_loose",
    "net.netfilter.nf_conntrack_tcp_max_retrans",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
    "user.max_net_namespaces",
    "user.max_user_namespaces",
];

/// Below `net.ipv4.conf.INTERFACE` (`Documentation/networking/ip-sysctl.rst`).
pub const PER_INTERFACE_V4: &[&str] = &[
    "accept_local",
    "accept_redirects",
    "accept_source_route",
    "arp_accept",
    "arp_announce",
    "arp_filter",
    "arp_ignore",
    "arp_notify",
    "disable_policy",
    "disable_xfrm",
    "drop_gratuitous_arp",
    "drop_unicast_in_l2_multicast",
    "forwarding",
    "ignore_routes_with_linkdown",
    "log_martians",
    "proxy_arp",
    "proxy_arp_pvlan",
    "route_localnet",
    "rp_filter",
    "secure_redirects",
    "send_redirects",
    "shared_media",
    "src_valid_mark",
];

/// Below `net.ipv6.conf.INTERFACE`.
pub const PER_INTERFACE_V6: &[&str] = &[
    "accept_dad",
    "accept_ra",
    "accept_redirects",
    "accept_source_route",
    "autoconf",
    "dad_transmits",
    "disable_ipv6",
    "drop_unsolicited_na",
    "forwarding",
    "hop_limit",
    "ignore_routes_with_linkdown",
    "keep_addr_on_down",
    "mtu",
    "optimistic_dad",
    "proxy_ndp",
    "use_tempaddr",
];

/// How the value for all interfaces and the one for an interface make the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Combine {
    /// The larger one (`IN_DEV_MAXCONF`).
    Max,
    /// Either (`IN_DEV_ORCONF`).
    Or,
    /// Both (`IN_DEV_ANDCONF`).
    And,
    /// The interface's own alone.
    Own,
    /// That of `all` alone.
    All,
    /// [`Combine::And`] where the interface forwards, else [`Combine::Or`] (`IN_DEV_RX_REDIRECTS`).
    Redirects,
}

/// `include/linux/inetdevice.h` for IPv4; `net/ipv6/{ndisc,addrconf,ip6_output}.c` for IPv6, where
/// most keys are the interface's own and writing `all` copies to every interface.
fn combine(v6: bool, key: &str) -> Combine {
    match (v6, key) {
        (true, "forwarding") => Combine::All,
        (true, "accept_dad") | (false, "rp_filter" | "arp_accept" | "arp_ignore" | "arp_announce" | "arp_notify") => {
            Combine::Max
        }
        (true, "proxy_ndp")
        | (
            false,
            "accept_local"
            | "arp_filter"
            | "disable_policy"
            | "disable_xfrm"
            | "drop_gratuitous_arp"
            | "drop_unicast_in_l2_multicast"
            | "ignore_routes_with_linkdown"
            | "log_martians"
            | "proxy_arp"
            | "proxy_arp_pvlan"
            | "route_localnet"
            | "secure_redirects"
            | "send_redirects"
            | "shared_media"
            | "src_valid_mark",
        ) => Combine::Or,
        (false, "accept_source_route") => Combine::And,
        (false, "accept_redirects") => Combine::Redirects,
        _ => Combine::Own,
    }
}

/// The dotted name of a setting of `interface` (or of `all`, `default`).
///
/// ```
/// use reachwhy::host::sysctl;
/// assert_eq!(sysctl::conf(false, "eth0.100", "rp_filter"), "net.ipv4.conf.eth0/100.rp_filter");
/// ```
pub fn conf(v6: bool, interface: &str, key: &str) -> String {
    let family = if v6 { "ipv6" } else { "ipv4" };
    format!("net.{family}.conf.{}.{key}", interface.replace('.', "/"))
}

/// The file of a dotted name below `/proc/sys`.
pub fn path(name: &str) -> String {
    let file: String = name
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{file}")
}

/// The value in force on `interface`: its own one and that of `all`, put together as the kernel
/// does for this key. `None` where it was not seen.
///
/// IPv6 `forwarding` answers whether packets are forwarded, which is the value of `all`
/// (`net/ipv6/ip6_output.c` ip6_forward); the interface's own one only sets its role as a router.
pub fn effective(facts: &HostFacts, v6: bool, interface: &str, key: &str) -> Option<i64> {
    let own = facts.sysctl(&conf(v6, interface, key));
    let all = facts.sysctl(&conf(v6, "all", key));
    let or = || Some(i64::from(own? != 0 || all? != 0));
    let and = || Some(i64::from(own? != 0 && all? != 0));
    match combine(v6, key) {
        Combine::Own => own,
        Combine::All => all,
        Combine::Max => Some(own?.max(all?)),
        Combine::And => and(),
        Combine::Redirects if effective(facts, v6, interface, "forwarding")? != 0 => and(),
        Combine::Or | Combine::Redirects => or(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(path("net.ipv4.conf.eth0/100.rp_filter"), "/proc/sys/net/ipv4/conf/eth0.100/rp_filter");
        assert_eq!(path("net.bridge.bridge-nf-call-iptables"), "/proc/sys/net/bridge/bridge-nf-call-iptables");
    }

    #[test]
    fn all_and_own_make_one() {
        let mut facts = HostFacts::default();
        for (name, value) in [
            ("net.ipv4.conf.all.rp_filter", "2"),
            ("net.ipv4.conf.eth0.rp_filter", "1"),
            ("net.ipv4.conf.all.accept_local", "0"),
            ("net.ipv4.conf.eth0.accept_local", "1"),
            ("net.ipv4.conf.all.forwarding", "1"),
            ("net.ipv4.conf.eth0.forwarding", "0"),
        ] {
            facts.sysctls.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(effective(&facts, false, "eth0", "rp_filter"), Some(2));
        assert_eq!(effective(&facts, false, "eth0", "accept_local"), Some(1));
        assert_eq!(effective(&facts, false, "eth0", "forwarding"), Some(0));
        assert_eq!(effective(&facts, false, "eth1", "rp_filter"), None);
    }

    #[test]
    fn the_lists_are_sorted_and_free_of_doubles() {
        for list in [GLOBAL, PER_INTERFACE_V4, PER_INTERFACE_V6] {
            assert!(list.is_sorted_by(|a, b| a < b));
        }
    }
}
