//! The files that decide how a name resolves, as this process sees them.

use std::os::unix::net::UnixStream;

use crate::dns::ResolverFacts;
use crate::dns::resolved::{LinkDns, ResolvedFacts};
use crate::host::resolv::ResolvConf;
use crate::os::files::{name_facts, read_text};

/// Reads them all. Nothing is asked of the network.
pub fn resolver_facts() -> ResolverFacts {
    let mut names = name_facts();
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    for name in ["RESOLV_MULTI", "RESOLV_HOST_CONF"] {
        if let Some(value) = variable(name) {
            names.environment.insert(name.to_owned(), value);
        }
    }
    let host_conf = names.environment.get("RESOLV_HOST_CONF").map_or("/etc/host.conf", String::as_str);
    let host_conf = read_text(host_conf);
    let aliases = names.environment.get("HOSTALIASES").map(|path| read_text(path));
    let scoped = names.resolv_conf.text.as_deref().is_some_and(|text| text.contains('%'));
    let interfaces = if scoped { nix::net::if_::if_nameindex().ok() } else { None };
    ResolverFacts {
        host_conf,
        aliases,
        hostname: nix::sys::utsname::uname().ok().map(|names| names.nodename().to_string_lossy().into_owned()),
        interfaces: interfaces
            .iter()
            .flat_map(|list| list.iter())
            .map(|one| (one.name().to_string_lossy().into_owned(), one.index()))
            .collect(),
        nscd: ["/run/nscd/socket", "/var/run/nscd/socket"].iter().any(|path| UnixStream::connect(path).is_ok()),
        resolved: resolved(),
        names,
    }
}

/// `None` where systemd-resolved does not run.
fn resolved() -> Option<ResolvedFacts> {
    let uplinks = read_text("/run/systemd/resolve/resolv.conf").text?;
    let uplinks = ResolvConf::parse(&uplinks);
    let mut links: Vec<LinkDns> = Vec::new();
    for folder in ["/run/systemd/resolve/netif", "/run/systemd/netif/links"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let interface = file.parse().ok().and_then(|index: u32| {
                nix::net::if_::if_indextoname(index).ok().map(|name| name.to_string_lossy().into_owned())
            });
            let Some(text) = read_text(&entry.path().to_string_lossy()).text else { continue };
            let link = LinkDns::parse(&interface.unwrap_or(file), &text);
            // What resolvectl set stands above what networkd knows.
            if !link.servers.is_empty() && !links.iter().any(|known| known.interface == link.interface) {
                links.push(link);
            }
        }
    }
    let all = uplinks.servers.iter().chain(&uplinks.unused);
    Some(ResolvedFacts { uplinks: all.map(|server| server.address.to_string()).collect(), links })
}
