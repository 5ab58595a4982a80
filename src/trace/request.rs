//! What is asked for.

use std::net::IpAddr;
use std::time::Duration;

use crate::probe::{PathMethod, PathProbe};

/// A trace to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// As the user wrote it.
    pub target: String,
    /// To whom.
    pub dst: IpAddr,
    /// From which of this host's addresses.
    pub src: IpAddr,
    /// Out of which interface, where the address alone does not say (link-local).
    pub via: Option<String>,
    /// With what.
    pub method: PathMethod,
    /// First TTL.
    pub first: u8,
    /// Last TTL.
    pub max: u8,
    /// Probes for each hop.
    pub queries: u8,
    /// The longest wait for one answer; `None`: learnt from those that came.
    pub wait: Option<Duration>,
    /// Octets of each packet.
    pub length: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// Which flow.
    pub flow: u16,
}

impl TraceRequest {
    /// As usual: 30 hops, three probes each.
    pub fn new(target: &str, dst: IpAddr, src: IpAddr, method: PathMethod) -> Self {
        Self {
            target: target.to_owned(),
            dst,
            src,
            via: None,
            method,
            first: 1,
            max: 30,
            queries: 3,
            wait: None,
            length: if dst.is_ipv6() { 80 } else { 60 },
            tos: 0,
            flow: 0,
        }
    }

    /// The probe for one TTL.
    pub fn probe(&self, ttl: u8) -> PathProbe {
        let Self { dst, src, method, flow, length, tos, .. } = *self;
        PathProbe { dst, src, ttl, method, flow, length, tos }
    }
}
