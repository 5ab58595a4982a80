//! TCP and UDP sockets (sock_diag(7)).

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};

use super::lenient::{Table, dump};
use super::links::{LinkNames, name_of};
use crate::host::{SocketFact, SocketState, Transport};
use crate::os::netlink::{Netlink, NetlinkError};

/// All sockets of one transport and family, without their owners.
pub(super) fn sockets(
    netlink: &mut Netlink,
    transport: Transport,
    v6: bool,
    names: &LinkNames,
) -> Result<Table<SocketFact>, NetlinkError> {
    let question = SockDiagMessage::InetRequest(InetRequest {
        family: if v6 { AF_INET6 } else { AF_INET },
        protocol: match transport {
            Transport::Tcp => IPPROTO_TCP,
            Transport::Udp => IPPROTO_UDP,
        },
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: if v6 { SocketId::new_v6() } else { SocketId::new_v4() },
    });
    let table = dump(netlink, "list the sockets", question)?;
    let mut sockets = Vec::with_capacity(table.entries.len());
    let mut damaged = table.damaged;
    for entry in table.entries {
        let SockDiagMessage::InetResponse(response) = entry else { continue };
        match socket(transport, v6, &response, names) {
            Some(socket) => sockets.push(socket),
            None => damaged += 1,
        }
    }
    Ok(Table { entries: sockets, damaged })
}

fn socket(transport: Transport, v6: bool, response: &InetResponse, names: &LinkNames) -> Option<SocketFact> {
    let header = &response.header;
    let id = &header.socket_id;
    Some(SocketFact {
        transport,
        state: state(header.state)?,
        local: id.source_address,
        local_port: id.source_port,
        remote: id.destination_address,
        remote_port: id.destination_port,
        v6only: v6 && response.nlas.iter().any(|nla| matches!(nla, Nla::SkV6Only(true))),
        device: (id.interface_id != 0).then(|| name_of(names, id.interface_id)),
        recv_queue: header.recv_queue,
        send_queue: header.send_queue,
        uid: header.uid,
        inode: header.inode.into(),
        owners: Vec::new(),
    })
}

/// `include/net/tcp_states.h`. 12 is a SYN-RECEIVED that has no socket of its own yet, and 13 a
/// bound socket that has done nothing.
fn state(number: u8) -> Option<SocketState> {
    Some(match number {
        1 => SocketState::Established,
        2 => SocketState::SynSent,
        3 | 12 => SocketState::SynReceived,
        4 => SocketState::FinWait1,
        5 => SocketState::FinWait2,
        6 => SocketState::TimeWait,
        7 | 13 => SocketState::Unconnected,
        8 => SocketState::CloseWait,
        9 => SocketState::LastAck,
        10 => SocketState::Listen,
        11 => SocketState::Closing,
        _ => return None,
    })
}
