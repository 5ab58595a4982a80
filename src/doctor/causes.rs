//! The catalogue of root causes: one stable code each, its layer, and what it means.
//!
//! Other programs match on these codes. Codes are added, never renamed or dropped.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The layer a cause belongs to; the order is the order in which a connection needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Interfaces.
    Link,
    /// Their addresses.
    Address,
    /// Which way.
    Route,
    /// Whose hardware address.
    Neighbour,
    /// Packet filters of either end.
    Firewall,
    /// What lies between.
    Path,
    /// The name of the target.
    Dns,
    /// Ports, handshakes, queues.
    Transport,
    /// Certificates and versions.
    Tls,
    /// What the service says.
    Application,
    /// Virtual addresses and their backends.
    Balancer,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::Firewall => "firewall",
            Self::Path => "path",
            Self::Dns => "dns",
            Self::Transport => "transport",
            Self::Tls => "tls",
            Self::Application => "application",
            Self::Balancer => "balancer",
        })
    }
}

macro_rules! catalogue {
    ($($layer:ident { $($name:ident = $code:literal : $meaning:literal,)+ })+) => {
        /// A root cause by its stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $meaning] #[serde(rename = $code)] $name,)+)+
        }

        impl Code {
            /// Every code, in the order of the layers.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// The code as other programs read it: `fw.server_input_drop`.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$name => $code,)+)+ }
            }

            /// The layer it belongs to.
            pub const fn layer(self) -> Layer {
                match self { $($(Self::$name => Layer::$layer,)+)+ }
            }

            /// What it means, in one sentence without its full stop.
            pub const fn meaning(self) -> &'static str {
                match self { $($(Self::$name => $meaning,)+)+ }
            }
        }
    };
}

catalogue! {
    Link {
        LinkDown = "link.down": "an interface that the packets need is switched off",
        LinkNoCarrier = "link.no_carrier": "an interface is switched on but has no medium: cable, switch port, peer",
        LinkMissing = "link.missing": "there is no interface that could carry the packets",
    }
    Address {
        AddrNone = "addr.none": "the interface has no address of that family, or the host does not own the address",
        AddrWrongPrefix = "addr.wrong_prefix": "an address has the wrong prefix length, so one end looks for the other in the wrong place",
        AddrDuplicate = "addr.duplicate": "two hosts claim one address",
        AddrSourceUnusable = "addr.source_unusable": "packets leave with a source address that answers cannot come back to",
    }
    Route {
        RouteMissing = "route.missing": "no route leads to the target",
        RouteBlackhole = "route.blackhole": "a route drops the packets without a word",
        RouteUnreachable = "route.unreachable": "a route answers that the target cannot be reached",
        RouteProhibit = "route.prohibit": "a route forbids the target",
        RouteWrongGateway = "route.wrong_gateway": "the route leads to a gateway that does not lead on",
        RouteGatewaySilent = "route.gateway_silent": "the gateway does not answer for its address",
        RoutePolicyRule = "route.policy_rule": "a policy rule sends the packets astray or refuses them",
        RouteForwardingOff = "route.forwarding_off": "a router on the way does not forward",
        RouteLoop = "route.loop": "packets go round in a circle until their TTL runs out",
        RouteReturnMissing = "route.return_missing": "the request arrives but there is no route back for the answer",
        RouteRpFilter = "route.rp_filter": "the reverse-path filter drops what arrives on an interface the answer would not take",
    }
    Neighbour {
        NeighNoReply = "neigh.no_reply": "nobody answers for the next hop's address on the link",
        NeighWrongMac = "neigh.wrong_mac": "the neighbour table holds a wrong hardware address",
        NeighDuplicate = "neigh.duplicate": "two stations answer with, or for, one identity on the link",
        NeighArpFiltered = "neigh.arp_filtered": "the host hears the address request and is configured not to answer it",
    }
    Firewall {
        FwClientOutputDrop = "fw.client_output_drop": "the client's own firewall drops the request before it leaves",
        FwClientOutputReject = "fw.client_output_reject": "the client's own firewall rejects the request before it leaves",
        FwClientInputDrop = "fw.client_input_drop": "the client's own firewall drops the answer",
        FwServerInputDrop = "fw.server_input_drop": "the server's firewall drops the request",
        FwServerInputReject = "fw.server_input_reject": "the server's firewall rejects the request",
        FwServerOutputDrop = "fw.server_output_drop": "the server's firewall drops the answer",
        FwPathDrop = "fw.path_drop": "something between the hosts drops the packets",
        FwPathReject = "fw.path_reject": "something between the hosts rejects the packets",
        FwReplyRuleMissing = "fw.reply_rule_missing": "the firewall lets the request in but has no rule that lets the answer out",
        FwConntrackFull = "fw.conntrack_full": "the connection tracking table is full, so new connections are dropped",
        FwConntrackInvalid = "fw.conntrack_invalid": "connection tracking calls the packets invalid and a rule drops them",
        FwNatWrong = "fw.nat_wrong": "address translation sends the packets to the wrong place",
        FwRateLimited = "fw.rate_limited": "a rate limit lets only some of the packets through",
        FwFiltered = "fw.filtered": "something beyond the client drops the packets; from here it cannot be told what",
    }
    Path {
        PathHostUnreachable = "path.host_unreachable": "a router says that it cannot reach the target",
        PathHostDown = "path.host_down": "the last router gets no sign of life from the target",
        PathMtuBlackhole = "path.mtu_blackhole": "packets over a certain size vanish and nobody says so",
        PathLoss = "path.loss": "the path loses packets",
        PathSlow = "path.slow": "the path is slow",
    }
    Dns {
        DnsHostsOverride = "dns.hosts_override": "a line of the hosts file answers for the name, and wrongly",
        DnsNxdomain = "dns.nxdomain": "the name does not exist",
        DnsNodata = "dns.nodata": "the name exists, without an address of the kind asked for",
        DnsServfail = "dns.servfail": "the name server failed to answer",
        DnsRefused = "dns.refused": "the name server refuses to answer this host",
        DnsLame = "dns.lame": "the name server neither knows the name nor asks others for it",
        DnsServerUnreachable = "dns.server_unreachable": "no name server answers",
        DnsNoResolver = "dns.no_resolver": "no name server is configured",
        DnsSlow = "dns.slow": "the name resolves too slowly",
        DnsSearchDomain = "dns.search_domain": "a search domain turns the name into another one",
        DnsServersDisagree = "dns.servers_disagree": "the configured name servers give different answers",
        DnsV6PreferredBroken = "dns.v6_preferred_broken": "IPv6 is tried first and does not work",
        DnsNsswitch = "dns.nsswitch": "nsswitch.conf keeps the resolver from asking where the answer is",
    }
    Transport {
        TcpPortClosed = "tcp.port_closed": "the port is closed: the server answers with a reset",
        TcpNotListening = "tcp.not_listening": "no process listens on the port",
        TcpLoopbackOnly = "tcp.loopback_only": "the service listens on the loopback address alone",
        TcpWrongAddress = "tcp.wrong_address": "the service listens on another address of the host",
        TcpFamilyMismatch = "tcp.family_mismatch": "the service listens for the other IP version",
        TcpBacklogFull = "tcp.backlog_full": "the queue of connections waiting to be accepted is full",
        TcpServerStuck = "tcp.server_stuck": "the server process does not take its connections or does not run",
        TcpResetByServer = "tcp.reset_by_server": "the server resets the connection",
        TcpResetByMiddlebox = "tcp.reset_by_middlebox": "something between the hosts resets the connection in the server's name",
        TcpPortsExhausted = "tcp.ports_exhausted": "the client has no free local port left",
        TcpZeroWindow = "tcp.zero_window": "the receiver's buffer is full and stays full",
        TcpTimeout = "tcp.timeout": "the connection is not answered in time",
        UdpPortClosed = "udp.port_closed": "no process takes datagrams on the port",
        UdpNoReply = "udp.no_reply": "nothing answers the datagrams",
    }
    Tls {
        TlsExpired = "tls.expired": "the certificate has expired",
        TlsNotYetValid = "tls.not_yet_valid": "the certificate is not valid yet, or a clock is wrong",
        TlsNameMismatch = "tls.name_mismatch": "the certificate is for another name",
        TlsUntrusted = "tls.untrusted": "the certificate is signed by nobody this host trusts",
        TlsVersion = "tls.version": "the two ends share no TLS version or cipher",
        TlsNotTls = "tls.not_tls": "the port does not speak TLS",
        TlsHandshakeFailed = "tls.handshake_failed": "the TLS handshake fails",
    }
    Application {
        AppHttpClientError = "app.http_client_error": "the service answers that the request is at fault (4xx)",
        AppHttpServerError = "app.http_server_error": "the service answers that it failed itself (5xx)",
        AppBadGateway = "app.bad_gateway": "a gateway answers that the service behind it failed (502, 503, 504)",
        AppNoResponse = "app.no_response": "the service takes the request and sends nothing back",
        AppSlow = "app.slow": "the service answers too slowly",
        AppTruncated = "app.truncated": "the answer ends before it is complete",
        AppResetMidResponse = "app.reset_mid_response": "the connection is reset while the answer is under way",
        AppTlsRequired = "app.tls_required": "the port speaks TLS and was asked in clear",
        AppNotHttp = "app.not_http": "the port answers, but not in HTTP",
        AppProxyEnv = "app.proxy_env": "a proxy variable sends the request elsewhere",
        AppFraming = "app.framing": "messages are cut or run together",
    }
    Balancer {
        LbVipConflict = "lb.vip_conflict": "two machines claim the virtual address",
        LbArpFlux = "lb.arp_flux": "a real server answers for the virtual address",
        LbBackendDown = "lb.backend_down": "the balancer has no healthy backend",
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract, word for word. A line is added here when a code is; none is ever taken away.
    const CONTRACT: &str = "
        link.down link.no_carrier link.missing addr.none addr.wrong_prefix addr.duplicate addr.source_unusable
        route.missing route.blackhole route.unreachable route.prohibit route.wrong_gateway route.gateway_silent
        route.policy_rule route.forwarding_off route.loop route.return_missing route.rp_filter neigh.no_reply
        neigh.wrong_mac neigh.duplicate neigh.arp_filtered fw.client_output_drop fw.client_output_reject
        fw.client_input_drop fw.server_input_drop fw.server_input_reject fw.server_output_drop fw.path_drop
        fw.path_reject fw.reply_rule_missing fw.conntrack_full fw.conntrack_invalid fw.nat_wrong
        fw.rate_limited fw.filtered path.host_unreachable path.host_down path.mtu_blackhole path.loss path.slow
        dns.hosts_override dns.nxdomain dns.servfail dns.refused dns.server_unreachable dns.no_resolver
        dns.slow dns.search_domain dns.servers_disagree dns.v6_preferred_broken dns.nsswitch tcp.port_closed
        tcp.not_listening tcp.loopback_only tcp.wrong_address tcp.family_mismatch tcp.backlog_full
        tcp.server_stuck tcp.reset_by_server tcp.reset_by_middlebox tcp.ports_exhausted tcp.zero_window
        tcp.timeout udp.port_closed udp.no_reply tls.expired tls.not_yet_valid tls.name_mismatch tls.untrusted
        tls.version tls.not_tls tls.handshake_failed app.http_client_error app.http_server_error
        app.bad_gateway app.no_response app.slow app.truncated app.reset_mid_response app.tls_required
        app.not_http app.proxy_env app.framing lb.vip_conflict lb.arp_flux lb.backend_down dns.nodata dns.lame
    ";

    #[test]
    fn every_code_of_the_contract_is_there_and_serialises_as_it_reads() {
        let have: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        for code in CONTRACT.split_whitespace() {
            assert_eq!(have.iter().filter(|have| **have == code).count(), 1, "{code}");
        }
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
        }
    }
}
