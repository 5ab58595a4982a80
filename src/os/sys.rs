//! Batched socket calls with control messages, which no safe crate offers in the form needed: a control
//! message per packet when sending, the error queue and all its kinds of entries when receiving.
//!
//! All buffers are plain byte arrays that this module owns; addresses and control messages are written
//! and read as bytes (sizes checked), so that the only unsafe steps are the system calls themselves.
#![allow(unsafe_code, reason = "system calls that nix and socket2 do not offer per packet")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Packets per system call.
pub(super) const BATCH: usize = 64;
/// Longer packets are cut: no reply to a probe is longer than an Ethernet frame.
const DATA: usize = 2048;
const CONTROL: usize = 512;
const NAME: usize = 128;
const NAME_U32: u32 = 128;
/// A control message's header, and what its parts are aligned to (cmsg(3)).
const CMSG_HEADER: usize = size_of::<usize>() + 8;
const ALIGN: usize = size_of::<usize>();

/// One packet to send, with the control messages of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct OutMessage {
    name: Vec<u8>,
    control: Vec<u8>,
    data: Vec<u8>,
}

impl OutMessage {
    /// To an IP address and port (raw sockets: the port is 0).
    pub(super) fn to(dst: SocketAddr, data: Vec<u8>) -> Self {
        let address = socket2::SockAddr::from(dst);
        let mut name = Vec::with_capacity(28);
        match dst {
            SocketAddr::V4(dst) => {
                name.extend(address.family().to_ne_bytes());
                name.extend(dst.port().to_be_bytes());
                name.extend(dst.ip().octets());
                name.extend([0; 8]);
            }
            SocketAddr::V6(dst) => {
                name.extend(address.family().to_ne_bytes());
                name.extend(dst.port().to_be_bytes());
                name.extend(dst.flowinfo().to_be_bytes());
                name.extend(dst.ip().octets());
                name.extend(dst.scope_id().to_ne_bytes());
            }
        }
        Self { name, control: Vec::new(), data }
    }

    /// A whole frame, out of an interface (packet(7), `struct sockaddr_ll`).
    pub(super) fn frame(interface: u32, ethertype: u16, data: Vec<u8>) -> Self {
        let mut name = Vec::with_capacity(20);
        name.extend(u16::try_from(libc::AF_PACKET).unwrap_or(17).to_ne_bytes());
        name.extend(ethertype.to_be_bytes());
        name.extend(interface.to_ne_bytes());
        name.extend([0; 12]);
        Self { name, control: Vec::new(), data }
    }

    fn control(&mut self, level: i32, kind: i32, value: &[u8]) {
        self.control.extend((CMSG_HEADER + value.len()).to_ne_bytes());
        self.control.extend(level.to_ne_bytes());
        self.control.extend(kind.to_ne_bytes());
        self.control.extend(value);
        self.control.resize(self.control.len().next_multiple_of(ALIGN), 0);
    }

    /// Sets TTL or hop limit of this packet alone.
    pub(super) fn ttl(&mut self, v6: bool, ttl: u8) {
        let (level, kind) =
            if v6 { (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
        self.control(level, kind, &i32::from(ttl).to_ne_bytes());
    }

    /// Sets TOS or traffic class of this packet alone.
    pub(super) fn tos(&mut self, v6: bool, tos: u8) {
        let (level, kind) = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
        if tos != 0 {
            self.control(level, kind, &i32::from(tos).to_ne_bytes());
        }
    }

    /// Sets source address and outgoing interface (0: any) of this packet alone.
    pub(super) fn packet_info(&mut self, v6: bool, src: Option<IpAddr>, interface: u32) {
        let mut value = Vec::with_capacity(20);
        if v6 {
            let IpAddr::V6(src) = src.unwrap_or(Ipv6Addr::UNSPECIFIED.into()) else { return };
            value.extend(src.octets());
            value.extend(interface.to_ne_bytes());
            self.control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
        } else {
            let IpAddr::V4(src) = src.unwrap_or(Ipv4Addr::UNSPECIFIED.into()) else { return };
            value.extend(interface.to_ne_bytes());
            value.extend(src.octets());
            value.extend([0; 4]);
            self.control(libc::IPPROTO_IP, libc::IP_PKTINFO, &value);
        }
    }
}

/// Sends as many as the socket takes, at most [`BATCH`]; an error is the first packet's.
pub(super) fn send_batch(socket: BorrowedFd<'_>, messages: &[OutMessage]) -> io::Result<usize> {
    let messages = &messages[..messages.len().min(BATCH)];
    let mut parts: Vec<libc::iovec> = messages
        .iter()
        .map(|message| libc::iovec { iov_base: message.data.as_ptr().cast_mut().cast(), iov_len: message.data.len() })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = messages
        .iter()
        .zip(&mut parts)
        .map(|(message, part)| {
            // SAFETY: an all-zero msghdr is valid (null pointers with zero lengths).
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = message.name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = u32::try_from(message.name.len()).unwrap_or(0);
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            if !message.control.is_empty() {
                header.msg_hdr.msg_control = message.control.as_ptr().cast_mut().cast();
                header.msg_hdr.msg_controllen = message.control.len() as _;
            }
            header
        })
        .collect();
    let count = u32::try_from(headers.len()).unwrap_or(0);
    // SAFETY: `headers` has `count` entries whose pointers lead into `messages` and `parts`, which outlive
    // the call; the kernel only reads what they point to.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Room for received packets; made once, used again for every call.
pub(super) struct Inbox {
    /// Name, control messages and data of each packet, one after the other. Never touched before the kernel fills it:
    /// fresh zeroes cost nothing.
    room: Vec<u8>,
    sizes: Vec<Sizes>,
}

/// How much of each part the kernel filled in.
#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    name: usize,
    control: usize,
    data: usize,
}

/// Octets of one packet's room.
const SLOT: usize = NAME + CONTROL + DATA;

impl Inbox {
    /// For one batch.
    pub(super) fn new() -> Self {
        Self::for_packets(BATCH)
    }

    /// For so many packets a call.
    pub(super) fn for_packets(count: usize) -> Self {
        Self { room: vec![0; count * SLOT], sizes: vec![Sizes::default(); count] }
    }

    /// Receives what waits on the socket (or on its error queue), without blocking; `Ok(0)`: nothing.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, error_queue: bool) -> io::Result<usize> {
        let mut slots: Vec<(&mut [u8], &mut [u8], libc::iovec)> = self
            .room
            .chunks_exact_mut(SLOT)
            .map(|slot| {
                let (name, rest) = slot.split_at_mut(NAME);
                let (control, data) = rest.split_at_mut(CONTROL);
                (name, control, libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() })
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = slots
            .iter_mut()
            .map(|(name, control, part)| {
                // SAFETY: an all-zero msghdr is valid (null pointers with zero lengths).
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = name.as_mut_ptr().cast();
                header.msg_hdr.msg_namelen = NAME_U32;
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = CONTROL as _;
                header
            })
            .collect();
        let flags = libc::MSG_DONTWAIT | if error_queue { libc::MSG_ERRQUEUE } else { 0 };
        let count = u32::try_from(headers.len()).unwrap_or(0);
        // SAFETY: `headers` has `count` entries whose pointers lead into `self.room` and `slots` with their
        // true lengths; both outlive the call, and nothing else reads them during it.
        let got = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags as _, std::ptr::null_mut())
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        for (sizes, header) in self.sizes.iter_mut().zip(&headers).take(got) {
            sizes.name = (header.msg_hdr.msg_namelen as usize).min(NAME);
            sizes.control = CONTROL.min(header.msg_hdr.msg_controllen as _);
            sizes.data = (header.msg_len as usize).min(DATA);
        }
        Ok(got)
    }

    /// The n-th packet of the last call.
    pub(super) fn get(&self, index: usize) -> InMessage<'_> {
        let (slot, sizes) = (&self.room[index * SLOT..(index + 1) * SLOT], self.sizes[index]);
        let (name, rest) = slot.split_at(NAME);
        let (control, data) = rest.split_at(CONTROL);
        InMessage::parse(&name[..sizes.name], &control[..sizes.control], &data[..sizes.data])
    }
}

/// What the error queue says of a packet (`struct sock_extended_err`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExtendedError {
    /// `SO_EE_ORIGIN_*`: 2 ICMP, 3 ICMPv6, 4 a time stamp, 1 this host itself.
    pub(super) origin: u8,
    pub(super) icmp_type: u8,
    pub(super) code: u8,
    pub(super) info: u32,
    pub(super) offender: Option<IpAddr>,
    /// Where RFC 4884 extensions begin in the packet, where the kernel found some it believes.
    pub(super) extensions_at: Option<u16>,
}

/// One received packet with what its control messages say.
#[derive(Debug, Clone, Copy)]
pub(super) struct InMessage<'a> {
    pub(super) bytes: &'a [u8],
    /// IP sender; for the error queue: where the packet had been going.
    pub(super) peer: Option<SocketAddr>,
    pub(super) ttl: Option<u8>,
    /// The kernel's stamp, wall clock, nanoseconds.
    pub(super) stamp_ns: Option<u64>,
    pub(super) error: Option<ExtendedError>,
    /// Packets dropped on this socket so far (`SO_RXQ_OVFL`).
    pub(super) drops: Option<u32>,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn parse_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(array(bytes, 0)?));
    let port = u16::from_be_bytes(array(bytes, 2)?);
    if family == libc::AF_INET {
        return Some(SocketAddr::new(Ipv4Addr::from(array::<4>(bytes, 4)?).into(), port));
    }
    if family == libc::AF_INET6 {
        let address = Ipv6Addr::from(array::<16>(bytes, 8)?);
        let scope = array(bytes, 24).map_or(0, u32::from_ne_bytes);
        return Some(SocketAddrV6::new(address, port, 0, scope).into());
    }
    None
}

impl<'a> InMessage<'a> {
    fn parse(name: &[u8], control: &[u8], bytes: &'a [u8]) -> Self {
        let mut message =
            Self { bytes, peer: parse_address(name), ttl: None, stamp_ns: None, error: None, drops: None };
        let mut rest = control;
        while let (Some(length), Some(level), Some(kind)) = (
            array(rest, 0).map(usize::from_ne_bytes),
            array(rest, ALIGN).map(i32::from_ne_bytes),
            array(rest, ALIGN + 4).map(i32::from_ne_bytes),
        ) {
            let Some(value) = rest.get(CMSG_HEADER..length) else { break };
            message.control(level, kind, value);
            rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        }
        message
    }

    fn control(&mut self, level: i32, kind: i32, value: &[u8]) {
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPING) => {
                // Three timespecs; the first is the software stamp.
                if let (Some(seconds), Some(nanos)) = (array(value, 0), array(value, 8)) {
                    let (seconds, nanos) = (u64::from_ne_bytes(seconds), u64::from_ne_bytes(nanos));
                    let stamp = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
                    self.stamp_ns = (stamp != 0).then_some(stamp);
                }
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.drops = array(value, 0).map(u32::from_ne_bytes),
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.ttl = array(value, 0).and_then(|value| u8::try_from(i32::from_ne_bytes(value)).ok());
            }
            (libc::IPPROTO_IP, libc::IP_RECVERR)
            | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            | (libc::SOL_PACKET, PACKET_TX_TIMESTAMP) => {
                // ee_errno (4), ee_origin, ee_type, ee_code, ee_pad, ee_info (4), ee_data (4), then the offender.
                if let (Some([origin, icmp_type, code, _]), Some(info)) = (array(value, 4), array(value, 8)) {
                    let offender = value.get(16..).and_then(parse_address).map(|address| address.ip());
                    let info = u32::from_ne_bytes(info);
                    // ee_data holds `struct sock_ee_data_rfc4884`: length, flags (1: invalid).
                    let extensions_at = array(value, 12)
                        .map(|[low, high, flags, _]| (u16::from_ne_bytes([low, high]), flags))
                        .filter(|(at, flags)| matches!(origin, 2 | 3) && *at != 0 && *flags == 0)
                        .map(|(at, _)| at);
                    self.error = Some(ExtendedError { origin, icmp_type, code, info, offender, extensions_at });
                }
            }
            _ => {}
        }
    }
}

/// `include/uapi/linux/if_packet.h`
const PACKET_TX_TIMESTAMP: i32 = 16;

/// Options whose value is a C `int`.
pub(super) fn set_int(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// Options whose value is a struct, given as its bytes.
pub(super) fn set_bytes(socket: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = u32::try_from(value.len()).unwrap_or(0);
    // SAFETY: `value` is valid for `length` octets, which the kernel only reads. No option used by this crate
    // holds pointers, but SO_ATTACH_FILTER, which has its own function.
    let done = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option's value into `N` octets; gives those the kernel filled in.
pub(super) fn get_bytes<const N: usize>(socket: impl AsFd, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; N];
    let mut length = u32::try_from(N).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` octets into `value`, which has as many.
    let done = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// Puts a classic BPF program in front of the socket's receive queue.
pub(super) fn attach_filter(socket: impl AsFd, program: &[crate::probe::bpf::Instruction]) -> io::Result<()> {
    let mut code: Vec<libc::sock_filter> = program
        .iter()
        .map(|one| libc::sock_filter { code: one.code, jt: one.jump_true, jf: one.jump_false, k: one.k })
        .collect();
    let length = u16::try_from(code.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: code.as_mut_ptr() };
    // SAFETY: `program` names `length` instructions that live until the call is over; the kernel copies and
    // verifies them.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            u32::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Binds a packet socket to an interface (0: all) and an EtherType: from here on it hears.
pub(super) fn bind_link(socket: impl AsFd, interface: u32, ethertype: u16) -> io::Result<()> {
    let name = OutMessage::frame(interface, ethertype, Vec::new()).name;
    let length = u32::try_from(name.len()).unwrap_or(0);
    // SAFETY: `name` holds a whole `sockaddr_ll` of `length` octets, which the kernel only reads.
    let done = unsafe { libc::bind(socket.as_fd().as_raw_fd(), name.as_ptr().cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn control_messages_of_any_bytes_are_harmless(name in proptest::collection::vec(0u8..12, 0..40), control in proptest::collection::vec(0u8..40, 0..200)) {
            let _ = InMessage::parse(&name, &control, &[]);
        }
    }

    #[test]
    fn a_control_message_reads_back() {
        let mut message = OutMessage::to("127.0.0.1:9".parse().unwrap(), vec![]);
        message.ttl(false, 7);
        message.packet_info(false, None, 3);
        let read = InMessage::parse(&message.name, &message.control, &[]);
        assert_eq!((read.ttl, read.peer), (Some(7), Some("127.0.0.1:9".parse().unwrap())));
    }
}
