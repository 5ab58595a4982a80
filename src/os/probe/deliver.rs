//! From a socket's messages to the engine's events, and from the engine's packets to messages.

use std::net::{IpAddr, SocketAddr};

use super::super::sys::{self, OutMessage};
use super::sockets::Role;
use crate::probe::{Arrival, Engine, QueuedError, Received};
use crate::wire::{IcmpFamily, protocol};

/// `SO_EE_ORIGIN_*` (include/uapi/linux/errqueue.h).
pub(super) const ORIGIN_ICMP: u8 = 2;
/// See [`ORIGIN_ICMP`].
pub(super) const ORIGIN_ICMP6: u8 = 3;
const ORIGIN_TIMESTAMPING: u8 = 4;

/// Hands one received packet to the engine in the form its socket gives it.
pub(super) fn deliver(engine: &mut Engine, role: &Role, message: &sys::InMessage<'_>, at: Received) {
    if let Some(error) = message.error {
        match (error.origin, role) {
            (ORIGIN_TIMESTAMPING, _) => {
                if let Some(stamp) = message.stamp_ns {
                    engine.on_sent_stamp(message.bytes, stamp);
                }
            }
            (ORIGIN_ICMP | ORIGIN_ICMP6, Role::Udp(_) | Role::Ping(_)) => {
                let Some(dst) = message.peer else { return };
                let (number, local_port) = match role {
                    Role::Udp(port) => (protocol::UDP, *port),
                    Role::Ping(family) => (family.protocol(), 0),
                    _ => return,
                };
                engine.on_queued_error(&QueuedError {
                    offender: error.offender.unwrap_or(dst.ip()),
                    icmp_type: error.icmp_type,
                    code: error.code,
                    info: error.info,
                    ttl: message.ttl,
                    at,
                    dst,
                    local_port,
                    protocol: number,
                    bytes: message.bytes,
                    extensions: error.extensions_at.and_then(|at| message.bytes.get(usize::from(at)..)),
                });
            }
            _ => {}
        }
        return;
    }
    if let Role::Link(interface) = role {
        engine.on_frame(interface, message.bytes, at);
        return;
    }
    if matches!(role, Role::RawIcmp(IcmpFamily::V4) | Role::RawTcp(false)) {
        engine.on_ip(message.bytes, at);
        return;
    }
    let Some(peer) = message.peer else { return };
    let from: IpAddr = peer.ip();
    let arrival = Arrival { from, ttl: message.ttl, at, bytes: message.bytes };
    match role {
        Role::RawIcmp(family) | Role::Ping(family) => engine.on_icmp(*family, &arrival),
        Role::RawTcp(_) => engine.on_tcp(&arrival),
        Role::Udp(port) => engine.on_udp(*port, peer.port(), &arrival),
        Role::Link(_) | Role::Out => {}
    }
}

/// A packet with the control messages that its probe asks for.
pub(super) fn out_message(
    dst: SocketAddr,
    src: Option<IpAddr>,
    ttl: Option<u8>,
    interface: u32,
    data: Vec<u8>,
) -> OutMessage {
    let v6 = dst.is_ipv6();
    let mut message = OutMessage::to(dst, data);
    if let Some(ttl) = ttl {
        message.ttl(v6, ttl);
    }
    if src.is_some() || interface != 0 {
        message.packet_info(v6, src, interface);
    }
    message
}
