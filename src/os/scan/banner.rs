//! Speaking with open ports.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::port::report::HostReport;

/// Asks every open TCP port of a host what it is.
pub fn ask(
    _report: &mut HostReport,
    _address: IpAddr,
    _link: u32,
    _name: &str,
    _timeout: Option<Duration>,
    _stop: &AtomicBool,
) {
}
