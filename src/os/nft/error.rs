//! What can go wrong between this program and the kernel's packet filters.

use std::io;

use crate::os::netlink::NetlinkError;

/// A question or order about packet filters failed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The netlink socket could not be opened: a kernel without nfnetlink, or a sandbox.
    #[error(transparent)]
    Open(#[from] NetlinkError),
    /// The socket failed in use.
    #[error("nfnetlink: cannot {operation}: {source}")]
    Socket {
        /// `send` or `receive`.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel would not do it. Nothing was changed.
    #[error("nf_tables: cannot {what}: {source}")]
    Refused {
        /// The question or order.
        what: String,
        /// The errno.
        source: io::Error,
    },
    /// The kernel's answer could not be read by this program.
    #[error("nf_tables: cannot read the kernel's answer to {what}: {why}")]
    Malformed {
        /// The question.
        what: String,
        /// What was wrong with the answer.
        why: String,
    },
    /// x_tables (iptables-legacy) could not be read.
    #[error("x_tables: cannot {what}: {source}")]
    Legacy {
        /// The question.
        what: String,
        /// The errno.
        source: io::Error,
    },
    /// The counting table is no longer there: someone else removed it.
    #[error("the counting table {table} has been removed by someone else")]
    Gone {
        /// Its name.
        table: String,
    },
    /// A text could not be read as a ruleset. Nothing was loaded.
    #[error("{0}")]
    Text(String),
    /// A rule says what cannot be loaded from here. Nothing was loaded.
    #[error("line {line}: cannot load `{option}`: {why}")]
    Unsupported {
        /// The line in the text, from 1.
        line: usize,
        /// The option or target as the rule has it.
        option: String,
        /// Why not.
        why: String,
    },
}

impl NftError {
    /// The errno behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(error) => error.errno(),
            Self::Socket { source, .. } | Self::Refused { source, .. } | Self::Legacy { source, .. } => {
                source.raw_os_error()
            }
            Self::Malformed { .. } | Self::Gone { .. } | Self::Text(_) | Self::Unsupported { .. } => None,
        }
    }

    /// Whether the kernel has no nf_tables (or no x_tables) at all, so that there is nothing to read.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOPROTOOPT))
    }

    /// Whether the privilege is missing (`CAP_NET_ADMIN` in the namespace's owner).
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }
}
