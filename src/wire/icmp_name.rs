//! ICMP types and codes in words (IANA "ICMP Parameters", "ICMPv6 Parameters").

use super::IcmpFamily;

/// The type's name.
pub fn type_name(family: IcmpFamily, kind: u8) -> &'static str {
    match (family, kind) {
        (IcmpFamily::V4, 0) | (IcmpFamily::V6, 129) => "echo reply",
        (IcmpFamily::V4, 3) | (IcmpFamily::V6, 1) => "destination unreachable",
        (IcmpFamily::V4, 4) => "source quench",
        (IcmpFamily::V4, 5) | (IcmpFamily::V6, 137) => "redirect",
        (IcmpFamily::V4, 8) | (IcmpFamily::V6, 128) => "echo request",
        (IcmpFamily::V4, 9) | (IcmpFamily::V6, 134) => "router advertisement",
        (IcmpFamily::V4, 10) | (IcmpFamily::V6, 133) => "router solicitation",
        (IcmpFamily::V4, 11) | (IcmpFamily::V6, 3) => "time exceeded",
        (IcmpFamily::V4, 12) | (IcmpFamily::V6, 4) => "parameter problem",
        (IcmpFamily::V4, 13) => "timestamp request",
        (IcmpFamily::V4, 14) => "timestamp reply",
        (IcmpFamily::V4, 17) => "address mask request",
        (IcmpFamily::V4, 18) => "address mask reply",
        (IcmpFamily::V6, 2) => "packet too big",
        (IcmpFamily::V6, 130) => "multicast listener query",
        (IcmpFamily::V6, 131) => "multicast listener report",
        (IcmpFamily::V6, 132) => "multicast listener done",
        (IcmpFamily::V6, 135) => "neighbour solicitation",
        (IcmpFamily::V6, 136) => "neighbour advertisement",
        (IcmpFamily::V6, 143) => "multicast listener report (version 2)",
        _ => "unknown type",
    }
}

/// The code's name, where the type has named codes.
pub fn code_name(family: IcmpFamily, kind: u8, code: u8) -> Option<&'static str> {
    let name = match (family, kind, code) {
        (IcmpFamily::V4, 3, 0) => "network unreachable",
        (IcmpFamily::V4, 3, 1) => "host unreachable",
        (IcmpFamily::V4, 3, 2) => "protocol unreachable",
        (IcmpFamily::V4, 3, 3) | (IcmpFamily::V6, 1, 4) => "port unreachable",
        (IcmpFamily::V4, 3, 4) => "fragmentation needed and DF set",
        (IcmpFamily::V4, 3, 5) => "source route failed",
        (IcmpFamily::V4, 3, 6) => "network unknown",
        (IcmpFamily::V4, 3, 7) => "host unknown",
        (IcmpFamily::V4, 3, 8) => "source host isolated",
        (IcmpFamily::V4, 3, 9) => "network administratively prohibited",
        (IcmpFamily::V4, 3, 10) => "host administratively prohibited",
        (IcmpFamily::V4, 3, 11) => "network unreachable for this type of service",
        (IcmpFamily::V4, 3, 12) => "host unreachable for this type of service",
        (IcmpFamily::V4, 3, 13) | (IcmpFamily::V6, 1, 1) => "communication administratively prohibited",
        (IcmpFamily::V4, 3, 14) => "host precedence violation",
        (IcmpFamily::V4, 3, 15) => "precedence cutoff in effect",
        (IcmpFamily::V4, 5, 0) => "for the network",
        (IcmpFamily::V4, 5, 1) => "for the host",
        (IcmpFamily::V4, 5, 2) => "for the type of service and network",
        (IcmpFamily::V4, 5, 3) => "for the type of service and host",
        (IcmpFamily::V4, 11, 0) | (IcmpFamily::V6, 3, 0) => "hop limit exceeded in transit",
        (IcmpFamily::V4, 11, 1) | (IcmpFamily::V6, 3, 1) => "fragment reassembly time exceeded",
        (IcmpFamily::V4, 12, 0) => "pointer indicates the error",
        (IcmpFamily::V4, 12, 1) => "missing a required option",
        (IcmpFamily::V4, 12, 2) => "bad length",
        (IcmpFamily::V6, 1, 0) => "no route to destination",
        (IcmpFamily::V6, 1, 2) => "beyond scope of source address",
        (IcmpFamily::V6, 1, 3) => "address unreachable",
        (IcmpFamily::V6, 1, 5) => "source address failed ingress or egress policy",
        (IcmpFamily::V6, 1, 6) => "reject route to destination",
        (IcmpFamily::V6, 1, 7) => "error in source routing header",
        (IcmpFamily::V6, 4, 0) => "erroneous header field",
        (IcmpFamily::V6, 4, 1) => "unrecognised next header type",
        (IcmpFamily::V6, 4, 2) => "unrecognised IPv6 option",
        _ => return None,
    };
    Some(name)
}
