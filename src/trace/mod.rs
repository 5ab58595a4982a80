//! The path to a host: which routers a packet passes, what each says of it, and what is wrong on the way.
//!
//! All of it is pure. [`Tracer`] decides what to send next from what came back; [`Session`] conducts tracers
//! over the probe engine; [`Trace`] is the result, [`findings()`] what it means. [`quote`] compares what was
//! sent with what a router saw, [`bucket`] tells a rate limit from loss,
//! [`mtu`] finds the largest packet that passes each hop, [`paths`] every equal way with a stated confidence,
//! [`monitor`] watches for longer.

mod batch;
pub mod bucket;
mod findings;
pub mod graph;
pub mod monitor;
pub mod mtu;
pub mod paths;
mod patience;
pub mod quote;
mod request;
mod result;
mod session;
mod tracer;

pub use findings::{Finding, findings, limit_in_words, return_length};
pub use patience::Patience;
pub use request::TraceRequest;
pub use result::{Answer, Hop, IcmpSaid, Label, ProbeResult, Refusal, Said, Stopped, Trace};
pub use session::{Progress, Session};
pub use tracer::{Tracer, answer};
