//! What the bytes of a captured packet begin with (<https://www.tcpdump.org/linktypes.html>).

/// BSD loopback: the address family, in the byte order of the machine that captured.
pub const NULL: u32 = 0;
/// Ethernet.
pub const ETHERNET: u32 = 1;
/// PPP (RFC 1662), with or without address and control.
pub const PPP: u32 = 9;
/// Raw IP, as some BSDs number it.
pub const RAW_BSD: u32 = 12;
/// Raw IP, as OpenBSD numbers it.
pub const RAW_OPENBSD: u32 = 14;
/// PPP in HDLC-like framing.
pub const PPP_HDLC: u32 = 50;
/// PPPoE session, from its header on.
pub const PPPOE: u32 = 51;
/// Raw IP.
pub const RAW: u32 = 101;
/// Cisco HDLC.
pub const C_HDLC: u32 = 104;
/// OpenBSD loopback: the address family in network byte order.
pub const LOOP: u32 = 108;
/// Linux "cooked" capture.
pub const LINUX_SLL: u32 = 113;
/// Raw IPv4.
pub const IPV4: u32 = 228;
/// Raw IPv6.
pub const IPV6: u32 = 229;
/// Linux netfilter log.
pub const NFLOG: u32 = 239;
/// Linux "cooked" capture, second version.
pub const LINUX_SLL2: u32 = 276;

/// A name for people.
pub fn name(link: u32) -> String {
    let name = match link {
        NULL => "BSD loopback",
        ETHERNET => "Ethernet",
        PPP | PPP_HDLC => "PPP",
        PPPOE => "PPPoE",
        RAW | RAW_BSD | RAW_OPENBSD => "raw IP",
        C_HDLC => "Cisco HDLC",
        105 => "IEEE 802.11",
        107 => "Frame Relay",
        LOOP => "OpenBSD loopback",
        LINUX_SLL => "Linux cooked capture",
        119 => "IEEE 802.11 with Prism header",
        127 => "IEEE 802.11 with radiotap header",
        163 => "IEEE 802.11 with AVS header",
        187 | 201 => "Bluetooth",
        189 | 220 => "USB",
        195 | 230 => "IEEE 802.15.4",
        IPV4 => "raw IPv4",
        IPV6 => "raw IPv6",
        NFLOG => "netfilter log",
        253 => "netlink",
        LINUX_SLL2 => "Linux cooked capture v2",
        other => return format!("link type {other}"),
    };
    name.to_owned()
}

/// Whether [`crate::wire::Peeler`] looks into it.
pub fn is_known(link: u32) -> bool {
    matches!(
        link,
        NULL | ETHERNET
            | PPP
            | RAW_BSD
            | RAW_OPENBSD
            | PPP_HDLC
            | PPPOE
            | RAW
            | C_HDLC
            | LOOP
            | LINUX_SLL
            | IPV4
            | IPV6
            | NFLOG
            | LINUX_SLL2
    )
}
