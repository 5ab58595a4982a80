//! Reading dumps of kernels newer than the packet crates.
//!
//! An attribute that cannot be decoded costs that attribute, not the link or route it stands in, and
//! an entry that cannot be decoded costs that entry, not the table. What was left out is counted, so
//! that the snapshot can say so.

use std::fmt::{self, Debug};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_sock_diag::SockDiagMessage;

use crate::os::netlink::{Netlink, NetlinkError};

/// A family of messages of which a table is dumped.
pub(super) trait Entry: NetlinkSerializable + NetlinkDeserializable + Clone + Debug {
    /// Octets of the fixed header before the attributes of a message of type `kind`; 0 where it is
    /// not known.
    fn fixed(kind: u16) -> usize;
}

impl Entry for RouteNetlinkMessage {
    fn fixed(kind: u16) -> usize {
        match kind {
            libc::RTM_NEWLINK => 16,
            libc::RTM_NEWADDR => 8,
            libc::RTM_NEWROUTE | libc::RTM_NEWRULE | libc::RTM_NEWNEIGH => 12,
            _ => 0,
        }
    }
}

impl Entry for SockDiagMessage {
    fn fixed(_: u16) -> usize {
        72 // struct inet_diag_msg, include/uapi/linux/inet_diag.h
    }
}

/// A table as far as it could be read.
#[derive(Debug)]
pub(super) struct Table<M> {
    /// Its entries.
    pub(super) entries: Vec<M>,
    /// Entries of which nothing or not all could be read.
    pub(super) damaged: usize,
}

/// Dumps a table.
///
/// # Errors
/// Those of [`Netlink::dump`], less the ones about single entries.
pub(super) fn dump<M: Entry>(netlink: &mut Netlink, what: &str, question: M) -> Result<Table<M>, NetlinkError> {
    let read = netlink.dump(what, &Lenient { entry: Some(question), whole: true })?;
    let damaged = read.iter().filter(|read| !read.whole).count();
    Ok(Table { entries: read.into_iter().filter_map(|read| read.entry).collect(), damaged })
}

#[derive(Debug, Clone)]
struct Lenient<M> {
    entry: Option<M>,
    whole: bool,
}

/// Never made: reading leniently cannot fail.
#[derive(Debug)]
enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

impl<M: Entry> NetlinkDeserializable for Lenient<M> {
    type Error = Never;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Never> {
        if let Ok(entry) = M::deserialize(header, payload) {
            return Ok(Self { entry: Some(entry), whole: true });
        }
        Ok(Self { entry: salvage(header, payload), whole: false })
    }
}

impl<M: Entry> NetlinkSerializable for Lenient<M> {
    fn message_type(&self) -> u16 {
        self.entry.as_ref().map_or(0, M::message_type)
    }

    fn buffer_len(&self) -> usize {
        self.entry.as_ref().map_or(0, M::buffer_len)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Some(entry) = &self.entry {
            entry.serialize(buffer);
        }
    }
}

/// The entry without the attributes that cannot be decoded.
fn salvage<M: Entry>(header: &NetlinkHeader, payload: &[u8]) -> Option<M> {
    let fixed = M::fixed(header.message_type);
    let (head, attributes) = payload.split_at_checked(fixed)?;
    let mut kept = head.to_vec();
    for attribute in NlasIterator::new(attributes) {
        let Ok(attribute) = attribute else { break };
        let bytes = attribute.into_inner();
        let mut alone = head.to_vec();
        push(&mut alone, bytes);
        if M::deserialize(header, &alone).is_ok() {
            push(&mut kept, bytes);
        }
    }
    M::deserialize(header, &kept).ok()
}

/// Appends one attribute (its own length says where it ends), padded to four octets.
fn push(message: &mut Vec<u8>, attribute: &[u8]) {
    let length = attribute.first_chunk::<2>().map_or(0, |octets| usize::from(u16::from_ne_bytes(*octets)));
    message.extend_from_slice(&attribute[..length.min(attribute.len())]);
    message.resize(message.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkAttribute;

    use super::*;

    #[test]
    fn a_strange_attribute_costs_only_itself() {
        let mut payload = vec![0; 16];
        payload[4] = 7;
        push(&mut payload, &[6, 0, 4, 0, 1, 2]); // IFLA_MTU of two octets
        push(&mut payload, &[8, 0, 3, 0, b'e', b't', b'h', 0]); // IFLA_IFNAME
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWLINK;
        assert!(RouteNetlinkMessage::deserialize(&header, &payload).is_err(), "the crate has learnt to read it");
        let read = Lenient::<RouteNetlinkMessage>::deserialize(&header, &payload).unwrap();
        assert!(!read.whole);
        let Some(RouteNetlinkMessage::NewLink(link)) = read.entry else { panic!("lost the link") };
        assert_eq!(link.header.index, 7);
        assert_eq!(link.attributes, [LinkAttribute::IfName("eth".to_owned())]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(kind in 0u16..60, payload: Vec<u8>) {
            let mut header = NetlinkHeader::default();
            header.message_type = kind;
            let _ = Lenient::<RouteNetlinkMessage>::deserialize(&header, &payload);
        }
    }
}
