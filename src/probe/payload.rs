//! What common UDP services answer to. An empty datagram proves nothing about most of them.

/// A harmless question for the service usual on this port; `None` where none is known.
///
/// Each asks for something read-only: a name, a time, a version.
pub fn for_udp_port(port: u16) -> Option<&'static [u8]> {
    Some(match port {
        7 => b"reachwhy",
        53 => DNS_ROOT_NS,
        69 => b"\0\x01reachwhy\0octet\0",
        111 => RPC_NULL,
        123 => NTP,
        137 => NETBIOS_STATUS,
        161 => SNMP_SYSDESCR,
        443 => QUIC,
        500 | 4500 => IKE,
        1900 => {
            b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\n\r\n"
        }
        3478 => STUN_BINDING,
        5060 => b"OPTIONS sip:reachwhy SIP/2.0\r\nVia: SIP/2.0/UDP reachwhy;branch=z9hG4bKreachwhy;rport\r\nFrom: <sip:r@reachwhy>;tag=1\r\nTo: <sip:r@reachwhy>\r\nCall-ID: reachwhy\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        5353 => MDNS_SERVICES,
        5683 => COAP_WELL_KNOWN,
        11211 => b"\x52\x57\0\0\0\x01\0\0version\r\n",
        _ => return None,
    })
}

/// RFC 1035: NS of the root, recursion desired.
const DNS_ROOT_NS: &[u8] = b"\x52\x57\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";
/// RFC 5531: program 100000 (portmapper) version 2 procedure 0.
const RPC_NULL: &[u8] =
    b"\x52\x57\0\x01\0\0\0\0\0\0\0\x02\0\x01\x86\xa0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// RFC 5905: version 4, mode 3 (client).
const NTP: &[u8] = &{
    let mut packet = [0; 48];
    packet[0] = 0x23;
    packet
};
/// RFC 1002 §4.2.17: node status of `*`.
const NETBIOS_STATUS: &[u8] = b"\x52\x57\0\0\0\x01\0\0\0\0\0\0\x20CKAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\0\0\x21\0\x01";
/// RFC 1157: get 1.3.6.1.2.1.1.1.0 of community `public`.
const SNMP_SYSDESCR: &[u8] = b"\x30\x26\x02\x01\0\x04\x06public\xa0\x19\x02\x01\x01\x02\x01\0\x02\x01\0\x30\x0e\x30\x0c\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0\x05\0";
/// RFC 9000 §6: an Initial of a reserved version draws a version negotiation from any server.
const QUIC: &[u8] = &{
    let mut packet = [0; 1200];
    let head = *b"\xc0\x1a\x2a\x3a\x4a\x08reachwhy\x08reachwhy";
    let mut at = 0;
    while at < head.len() {
        packet[at] = head[at];
        at += 1;
    }
    packet
};
/// RFC 7296 §3.1: a header of an unknown major version draws INVALID_MAJOR_VERSION.
const IKE: &[u8] = b"reachwhy\0\0\0\0\0\0\0\0\0\x30\x22\x08\0\0\0\0\0\0\0\x1c";
/// RFC 8489: binding request.
const STUN_BINDING: &[u8] = b"\0\x01\0\0\x21\x12\xa4\x42reachwhy-udp";
/// RFC 6763 §9: which services are there?
const MDNS_SERVICES: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x09_services\x07_dns-sd\x04_udp\x05local\0\0\x0c\0\x01";
/// RFC 7252: GET /.well-known/core.
const COAP_WELL_KNOWN: &[u8] = b"\x40\x01\x52\x57\xbb.well-known\x04core";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_lengths_are_true() {
        assert_eq!(SNMP_SYSDESCR.len(), 2 + usize::from(SNMP_SYSDESCR[1]));
        assert_eq!(STUN_BINDING.len(), 20);
        assert_eq!(IKE.len(), usize::from(IKE[27]));
        assert_eq!(NETBIOS_STATUS.len(), 12 + 34 + 4);
        assert_eq!(RPC_NULL.len(), 40);
        assert!(for_udp_port(9).is_none());
    }
}
