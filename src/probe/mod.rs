//! One engine for every probe: ICMP echo, TCP segments, TCP connections, UDP, ARP, NDP.
//!
//! Sans-IO: [`Engine`] is told the time and what arrived, and says what to send next; it never reads a
//! clock and opens nothing. `os::probe` drives it with sockets, [`sim`] with an in-memory network.
//! A reply counts for a try only when it names it: the whole quoted tuple of an ICMP error, the
//! acknowledgement number of a TCP answer, identifier and sequence number of an echo. What matches
//! nothing is counted in [`Strays`] and shown to nobody.

pub mod bpf;
mod conductor;
mod engine;
pub mod exchange;
mod flow;
pub mod http;
mod pace;
mod path;
pub mod payload;
mod report;
mod rtt;
pub mod sim;
mod spec;

#[cfg(test)]
mod tests;

pub use conductor::{Conductor, Plan};
pub use engine::{
    Arrival, Config, ConnectedSocket, Engine, Local, Packet, QueuedError, Received, SourcePort, Token, Transmit,
};
pub use flow::{CapturedFrame, Flow, FlowFilter, FrameKind};
pub use path::{NoConductor, PathMark, PathMethod, PathNeeds, PathProbe};
pub use report::{
    Event, IcmpReport, Outcome, ProbeReport, Reply, ReplyKind, RttSource, RunReport, Sent, Strays, TcpReply,
};
pub use rtt::RttEstimator;
pub use spec::{Craft, Moment, ProbeKind, ProbeSpec};
