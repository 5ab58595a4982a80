//! Netlink: questions to the kernel, and orders.
//!
//! One blocking socket per conversation; a dump that the kernel marks as interrupted
//! (`NLM_F_DUMP_INTR`) is asked for again, because it may have missed entries.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A flag of the header (`include/uapi/linux/netlink.h`): the table changed while it was read out.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// How often an interrupted dump is asked for again before its last reading is taken.
const DUMP_TRIES: u32 = 5;
/// Larger than any single message the kernel sends (it fills at most 32 KiB per read).
const BUFFER: usize = 1 << 16;

/// Why a netlink conversation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened or used: a kernel without that protocol, or a sandbox.
    #[error("netlink: cannot {operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel answered with an errno: the question or order was refused.
    #[error("netlink: {what}: {source}")]
    Refused {
        /// The question or order.
        what: String,
        /// The errno.
        source: io::Error,
    },
    /// The kernel's answer could not be read by this program.
    #[error("netlink: cannot read the kernel's answer to {what}: {why}")]
    Malformed {
        /// The question.
        what: String,
        /// What was wrong with the answer.
        why: String,
    },
}

impl NetlinkError {
    /// The errno behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Malformed { .. } => None,
        }
    }
}

/// A netlink socket of one protocol, in the network namespace it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket; `protocol` is `NETLINK_ROUTE` (0), `NETLINK_SOCK_DIAG` (4), `NETLINK_NETFILTER` (12), ….
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let io = |operation| move |source| NetlinkError::Io { operation, source };
        let mut socket = Socket::new(protocol).map_err(io("open a socket"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(io("bind a socket"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(io("address the kernel"))?;
        // A full table of a large router must not overrun the default buffer.
        let _ = socket.set_rx_buf_sz(4 << 20);
        Ok(Self { socket, sequence: 0 })
    }

    /// The socket itself, for those who speak a protocol by hand.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Asks for a whole table and returns its entries.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] when the kernel will not list it (no privilege, no such table).
    pub fn dump<M>(&mut self, what: &str, message: &M) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone + Debug,
    {
        let mut last = Vec::new();
        for _ in 0..DUMP_TRIES {
            let (entries, interrupted) = self.exchange(what, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            last = entries;
            if !interrupted {
                break;
            }
        }
        Ok(last)
    }

    /// Gives one order or asks one question (`flags` beside REQUEST and ACK), and returns what came
    /// back before the acknowledgement.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's errno.
    pub fn request<M>(&mut self, what: &str, message: M, flags: u16) -> Result<Vec<M>, NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        Ok(self.exchange(what, message, NLM_F_REQUEST | NLM_F_ACK | flags)?.0)
    }

    fn exchange<M>(&mut self, what: &str, message: M, flags: u16) -> Result<(Vec<M>, bool), NetlinkError>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Debug,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.header.length as usize];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|source| NetlinkError::Io { operation: "send", source })?;

        let mut entries = Vec::new();
        let mut interrupted = false;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            let read =
                self.socket.recv(&mut buffer, 0).map_err(|source| NetlinkError::Io { operation: "receive", source })?;
            let mut rest = &buffer[..read.min(buffer.len())];
            if rest.is_empty() {
                return Err(NetlinkError::Malformed { what: what.to_owned(), why: "an empty datagram".to_owned() });
            }
            while !rest.is_empty() {
                let reply = NetlinkMessage::<M>::deserialize(rest)
                    .map_err(|error| NetlinkError::Malformed { what: what.to_owned(), why: error.to_string() })?;
                let length = (reply.header.length as usize).next_multiple_of(4).min(rest.len());
                if length == 0 {
                    break;
                }
                rest = &rest[length..];
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= reply.header.flags & NLM_F_DUMP_INTR != 0;
                match reply.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        entries.push(inner);
                        // A question without ACK (an old kernel's RTM_GETROUTE) ends with its answer.
                        if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
                            return Ok((entries, interrupted));
                        }
                    }
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok((entries, interrupted)),
                    NetlinkPayload::Error(error) => {
                        return Err(NetlinkError::Refused { what: what.to_owned(), source: error.to_io() });
                    }
                    // A dump that failed on the way ends with the errno (netlink(7)): a short list is no list.
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        let source = io::Error::from_raw_os_error(-done.code);
                        return Err(NetlinkError::Refused { what: what.to_owned(), source });
                    }
                    NetlinkPayload::Done(_) => return Ok((entries, interrupted)),
                    _ => {}
                }
            }
        }
    }
}
