//! Reading the sysctls that decide who can talk to whom; which ones is [`crate::host::sysctl`]'s.

use std::collections::BTreeMap;
use std::fs;

use crate::host::sysctl;

/// The values that exist here, by dotted name. `interfaces` are the links to ask about beside `all`
/// and `default`.
///
/// `/proc/sys/net` shows the namespace of the thread that looks. What a kernel does not have is
/// absent from the answer.
pub(super) fn sysctls<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for name in sysctl::GLOBAL {
        read(name, &mut values);
    }
    let mut everywhere = vec!["all", "default"];
    everywhere.extend(interfaces);
    for interface in everywhere {
        for key in sysctl::PER_INTERFACE_V4 {
            read(&sysctl::conf(false, interface, key), &mut values);
        }
        for key in sysctl::PER_INTERFACE_V6 {
            read(&sysctl::conf(true, interface, key), &mut values);
        }
    }
    values
}

fn read(name: &str, into: &mut BTreeMap<String, String>) {
    let Ok(bytes) = fs::read(sysctl::path(name)) else { return };
    let text = String::from_utf8_lossy(&bytes);
    into.insert(name.to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" "));
}
