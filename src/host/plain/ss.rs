//! What ss(8) prints.

use std::net::IpAddr;

use crate::host::{SocketFact, SocketOwner, SocketState, Transport};

/// The sockets of `ss -tuanpe`. `stopped` are the processes that a signal has stopped.
pub fn sockets(text: &str, stopped: &[u32]) -> Vec<SocketFact> {
    text.lines().filter_map(|line| socket(line, stopped)).collect()
}

fn socket(line: &str, stopped: &[u32]) -> Option<SocketFact> {
    let mut words = line.split_whitespace();
    let transport = match words.next()? {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return None,
    };
    let state = match words.next()? {
        "ESTAB" => SocketState::Established,
        "SYN-SENT" => SocketState::SynSent,
        "SYN-RECV" => SocketState::SynReceived,
        "FIN-WAIT-1" => SocketState::FinWait1,
        "FIN-WAIT-2" => SocketState::FinWait2,
        "TIME-WAIT" => SocketState::TimeWait,
        "UNCONN" => SocketState::Unconnected,
        "CLOSE-WAIT" => SocketState::CloseWait,
        "LAST-ACK" => SocketState::LastAck,
        "LISTEN" => SocketState::Listen,
        "CLOSING" => SocketState::Closing,
        _ => return None,
    };
    let recv_queue = words.next()?.parse().ok()?;
    let send_queue = words.next()?.parse().ok()?;
    let v6 = words.clone().take(2).any(|end| end.contains('['));
    let (local, local_port, device) = end(words.next()?, v6)?;
    let (remote, remote_port, _) = end(words.next()?, v6)?;
    let rest: String = words.collect::<Vec<_>>().join(" ");
    let number = |key: &str| {
        let at = rest.find(key)? + key.len();
        rest[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    // A socket of all families is shown as `*`; a `[::]` one says so itself when it takes no IPv4.
    let v6only = v6 && local.is_unspecified() && rest.contains("v6only:1") || local.is_ipv6() && line.contains("[::]:");
    Some(SocketFact {
        transport,
        state,
        local,
        local_port,
        remote,
        remote_port,
        v6only,
        device,
        recv_queue,
        send_queue,
        uid: number("uid:").and_then(|uid| u32::try_from(uid).ok()).unwrap_or(0),
        inode: number("ino:").unwrap_or(0),
        owners: owners(&rest, stopped),
    })
}

/// `0.0.0.0:22`, `[::1]:22`, `*:80`, `127.0.0.53%lo:53`.
fn end(text: &str, v6: bool) -> Option<(IpAddr, u16, Option<String>)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = if port == "*" { 0 } else { port.parse().ok()? };
    let bare = address.trim_start_matches('[').replace(']', "");
    let (bare, device) =
        bare.split_once('%').map_or((bare.as_str(), None), |(bare, device)| (bare, Some(device.to_owned())));
    let any = if v6 || !text.contains('.') { "::" } else { "0.0.0.0" };
    let address = if bare == "*" { any } else { bare };
    Some((address.parse().ok()?, port, device))
}

/// `users:(("nginx",pid=7,fd=3),("nginx",pid=8,fd=3))`
fn owners(rest: &str, stopped: &[u32]) -> Vec<SocketOwner> {
    let Some(at) = rest.find("users:(") else { return Vec::new() };
    let mut owners: Vec<SocketOwner> = Vec::new();
    for part in rest[at + "users:(".len()..].split("(\"").skip(1) {
        let Some((name, tail)) = part.split_once("\",pid=") else { continue };
        let Some(pid) = tail.split(|c: char| !c.is_ascii_digit()).next().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        if owners.iter().all(|owner| owner.pid != pid) {
            let state = if stopped.contains(&pid) { 'T' } else { 'S' };
            owners.push(SocketOwner { pid, name: name.to_owned(), state, fds: None });
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_with_their_owners() {
        let text = "Failed to find cgroup2 mount\nNetid State  Recv-Q Send-Q Local Address:Port Peer Address:PortProcess\n\
            tcp   LISTEN 0      5            127.0.0.1:8080      0.0.0.0:*    users:((\"python3\",pid=28493,fd=3)) uid:1000 ino:9032987 sk:2a9a <->\n\
            tcp   LISTEN 0      128               [::]:22           [::]:*    users:((\"sshd\",pid=1,fd=4),(\"sshd\",pid=2,fd=4)) ino:7 sk:1 v6only:1 <->\n\
            udp   UNCONN 0      0        127.0.0.53%lo:53        0.0.0.0:*    ino:9 sk:2 <->\n\
            tcp   LISTEN 0      511                  *:80              *:*    users:((\"nginx\",pid=9,fd=6)) ino:8 sk:3 v6only:0 <->\n";
        let all = sockets(text, &[28493]);
        assert_eq!(all.len(), 4);
        assert_eq!(
            (all[0].local.to_string().as_str(), all[0].local_port, all[0].owners[0].state),
            ("127.0.0.1", 8080, 'T')
        );
        assert_eq!((all[0].uid, all[0].inode, all[0].send_queue), (1000, 9_032_987, 5));
        assert!(all[1].v6only && all[1].owners.len() == 2);
        assert_eq!((all[2].device.as_deref(), all[2].local_port), (Some("lo"), 53));
        assert!(all[3].local.is_ipv6() && !all[3].v6only, "a socket of both families");
        assert!(all[3].accepts(Transport::Tcp, "10.0.0.1".parse().unwrap(), 80));
    }
}
