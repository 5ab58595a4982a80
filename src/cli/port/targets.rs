//! From words to hosts: lists read, names looked up.

use std::collections::HashSet;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::os::{files, resolve};
use crate::port::hosts::{HostSpec, MOST, words};

/// A host to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// As the user named it.
    pub(super) name: String,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its link by name, for a link-local address.
    pub(super) via: Option<String>,
    /// And by number; 0: none.
    pub(super) link: u32,
}

const EXAMPLE: &str = "reachwhy port 192.168.1.3 22,80";

/// Hosts first, ports last.
pub(super) fn split(all: &[String], file: bool) -> anyhow::Result<(Vec<String>, &str)> {
    match all {
        [hosts @ .., ports] if !hosts.is_empty() || file => Ok((hosts.to_vec(), ports)),
        [only] => {
            let address = only.parse::<IpAddr>().is_ok() || only.contains('.');
            let what = if address { "no ports were given" } else { "host and ports are both needed" };
            Err(Failure::usage(what, Some(EXAMPLE)))
        }
        _ => Err(Failure::usage("host and ports are both needed", Some(EXAMPLE))),
    }
}

fn read_list(file: &Path) -> anyhow::Result<String> {
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()), None);
    let octets = if file == Path::new("-") {
        let mut octets = Vec::new();
        std::io::stdin().lock().read_to_end(&mut octets).map_err(failed)?;
        octets
    } else {
        files::read_whole(file).map_err(failed)?
    };
    String::from_utf8(octets).map_err(|_| Failure::usage(format!("{} is no text", file.display()), None))
}

/// The ports' words, from a file where they are `@FILE`.
pub(super) fn port_text(word: &str) -> anyhow::Result<String> {
    let Some(file) = word.strip_prefix('@') else { return Ok(word.to_owned()) };
    let text = read_list(Path::new(file))?;
    Ok(words(&text).into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" "))
}

/// The hosts that the words and files name, each address once.
pub(super) fn read(named: &[String], lists: &[PathBuf], family: Option<bool>) -> anyhow::Result<Vec<Target>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for word in named {
        if let Some(file) = word.strip_prefix('@') {
            read_file(Path::new(file), family, &mut found, &mut seen)?;
        } else {
            add(word, family, &mut found, &mut seen)?;
        }
    }
    for file in lists {
        read_file(file, family, &mut found, &mut seen)?;
    }
    if found.is_empty() {
        return Err(Failure::usage("the list of hosts is empty", Some(EXAMPLE)));
    }
    Ok(found)
}

fn read_file(
    file: &Path,
    family: Option<bool>,
    found: &mut Vec<Target>,
    seen: &mut HashSet<(IpAddr, u32)>,
) -> anyhow::Result<()> {
    let text = read_list(file)?;
    for (line, word) in words(&text) {
        add(word, family, found, seen).map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => {
                anyhow::Error::new(Failure { what: format!("{}:{line}: {}", file.display(), failure.what), ..failure })
            }
            Err(other) => other,
        })?;
    }
    Ok(())
}

fn add(
    word: &str,
    family: Option<bool>,
    found: &mut Vec<Target>,
    seen: &mut HashSet<(IpAddr, u32)>,
) -> anyhow::Result<()> {
    let spec = HostSpec::parse(word).map_err(|error| {
        Failure::usage(error, Some("a name, an address, 10.0.0.0/24, 10.0.0.1-20, fe80::1%eth0 or @FILE"))
    })?;
    let (addresses, via) = match spec {
        HostSpec::Addresses(all) => (all, None),
        HostSpec::Scoped(address, via) => (vec![address], Some(via)),
        HostSpec::Name(name) => (vec![look_up(&name, family)?], None),
    };
    let link = match &via {
        None => 0,
        Some(name) => nix::net::if_::if_nametoindex(name.as_str())
            .map_err(|_| Failure::usage(format!("`{word}`: there is no interface {name}"), None))?,
    };
    let many = addresses.len() > 1;
    for address in addresses {
        let v6_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if v6_local && link == 0 {
            let hint = format!("{address}%eth0");
            return Err(Failure::usage(format!("`{word}` is a link-local address: on which link?"), Some(&hint)));
        }
        let group = address.is_multicast() || address == IpAddr::from([255, 255, 255, 255]) || address.is_unspecified();
        if group {
            return Err(Failure::usage(format!("`{word}` is no host: {address} is not the address of one"), None));
        }
        if seen.insert((address, link)) {
            let name = if many { address.to_string() } else { word.to_owned() };
            found.push(Target { name, address, via: via.clone(), link });
        }
        if found.len() > MOST {
            return Err(Failure::usage(format!("these are more than {MOST} hosts"), None));
        }
    }
    Ok(())
}

fn look_up(name: &str, family: Option<bool>) -> anyhow::Result<IpAddr> {
    let answer = resolve::resolve(name);
    if let Some(error) = &answer.error {
        let hint = format!("reachwhy doctor {name} says why");
        return Err(Failure::unknown(format!("the name {name} leads to no address: {error}"), Some(&hint)));
    }
    let fits = |address: &&IpAddr| family.is_none_or(|v6| address.is_ipv6() == v6);
    answer.addresses.iter().find(fits).copied().ok_or_else(|| {
        let kind = if family == Some(true) { "IPv6" } else { "IPv4" };
        Failure::unknown(format!("the name {name} has no {kind} address"), None)
    })
}
