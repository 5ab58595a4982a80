//! The kernel's protocol counters of the calling thread's network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::host::counters;

/// Reads `/proc/net/{snmp,snmp6,netstat}` as the thread sees them (`/proc/net` itself shows the
/// namespace of the process's first thread), by nstat(8)'s names.
///
/// # Errors
/// When none of the three can be read.
pub fn read() -> io::Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    let mut failed = None;
    let mut any = false;
    for (file, parse) in [
        ("snmp", counters::parse_tables as fn(&str) -> BTreeMap<String, u64>),
        ("netstat", counters::parse_tables),
        ("snmp6", counters::parse_list),
    ] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => {
                any = true;
                counted.extend(parse(&text));
            }
            // No snmp6 on a host without IPv6.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) if !any => Err(error),
        _ => Ok(counted),
    }
}
