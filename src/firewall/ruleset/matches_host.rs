//! Tests of what the host knows about a packet beyond its octets: devices, routes, sockets, IPsec.

use std::fmt;

use super::matches_header::not;
use super::quote;
use super::values::{Iface, Net};

/// `-m physdev`: the ports of a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhysdevTest {
    /// `--physdev-in`, and whether negated.
    pub in_: Option<(bool, Iface)>,
    /// `--physdev-out`, and whether negated.
    pub out: Option<(bool, Iface)>,
    /// `--physdev-is-in`, and whether negated.
    pub is_in: Option<bool>,
    /// `--physdev-is-out`, and whether negated.
    pub is_out: Option<bool>,
    /// `--physdev-is-bridged`, and whether negated.
    pub is_bridged: Option<bool>,
}

impl fmt::Display for PhysdevTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.is_in.map(|n| format!("{}--physdev-is-in", not(n))));
        parts.extend(self.in_.as_ref().map(|(n, i)| format!("{}--physdev-in {}", not(*n), quote(&i.to_string()))));
        parts.extend(self.is_out.map(|n| format!("{}--physdev-is-out", not(n))));
        parts.extend(self.out.as_ref().map(|(n, i)| format!("{}--physdev-out {}", not(*n), quote(&i.to_string()))));
        parts.extend(self.is_bridged.map(|n| format!("{}--physdev-is-bridged", not(n))));
        f.write_str(&parts.join(" "))
    }
}

/// `-m rpfilter`: whether a reply would go out where the packet came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RpfilterTest {
    /// `--loose`: by any device.
    pub loose: bool,
    /// `--validmark`: the packet's mark takes part in the look-up.
    pub validmark: bool,
    /// `--accept-local`: a source of this host's own is fine.
    pub accept_local: bool,
    /// `--invert`: packets that fail.
    pub invert: bool,
}

impl fmt::Display for RpfilterTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        flags(
            f,
            &[
                (self.loose, "--loose"),
                (self.validmark, "--validmark"),
                (self.accept_local, "--accept-local"),
                (self.invert, "--invert"),
            ],
        )
    }
}

fn flags(f: &mut fmt::Formatter<'_>, flags: &[(bool, &str)]) -> fmt::Result {
    let on: Vec<_> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    f.write_str(&on.join(" "))
}

/// `-m socket`: whether a socket of this host is open for the packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketTest {
    /// `--transparent`: a transparent one.
    pub transparent: bool,
    /// `--nowildcard`: listeners on any address count too.
    pub nowildcard: bool,
    /// `--restore-skmark`: the packet takes the socket's mark.
    pub restore_skmark: bool,
}

impl fmt::Display for SocketTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        flags(
            f,
            &[
                (self.transparent, "--transparent"),
                (self.nowildcard, "--nowildcard"),
                (self.restore_skmark, "--restore-skmark"),
            ],
        )
    }
}

/// `-m cluster`: whether this node answers for the packet's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterTest {
    /// Of the nodes not named.
    pub negated: bool,
    /// The local nodes, bit 0 the first.
    pub nodes: u32,
    /// How many nodes there are.
    pub total: u32,
    /// The hash's seed.
    pub seed: u32,
}

impl fmt::Display for ClusterTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}--cluster-local-nodemask {:#010x} --cluster-total-nodes {} --cluster-hash-seed {:#010x}",
            not(self.negated),
            self.nodes,
            self.total,
            self.seed
        )
    }
}

/// A value under a mask, with its own negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masked {
    /// Anything but it.
    pub negated: bool,
    /// What the masked number must be.
    pub value: u32,
    /// The bits looked at.
    pub mask: u32,
}

impl Masked {
    /// `(number & mask) == value`, its negation applied.
    pub fn holds(self, number: u32) -> bool {
        (number & self.mask == self.value) != self.negated
    }

    fn option(self, name: &str) -> String {
        let mask = if self.mask == u32::MAX { String::new() } else { format!("/{:#x}", self.mask) };
        format!("{}--{name} {:#x}{mask}", not(self.negated), self.value)
    }
}

/// `-m realm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealmTest(pub Masked);

impl fmt::Display for RealmTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.option("realm"))
    }
}

/// `-m devgroup`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevGroupTest {
    /// The incoming device's group.
    pub src: Option<Masked>,
    /// The outgoing device's group.
    pub dst: Option<Masked>,
}

impl fmt::Display for DevGroupTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.src.map(|group| group.option("src-group")));
        parts.extend(self.dst.map(|group| group.option("dst-group")));
        f.write_str(&parts.join(" "))
    }
}

/// One transformation that `-m policy` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyElement {
    /// `--reqid`, and whether negated.
    pub reqid: Option<(bool, u32)>,
    /// `--spi`, and whether negated.
    pub spi: Option<(bool, u32)>,
    /// `--proto`, and whether negated.
    pub proto: Option<(bool, u8)>,
    /// `--mode tunnel`, and whether negated.
    pub tunnel: Option<(bool, bool)>,
    /// `--tunnel-dst`, and whether negated.
    pub dst: Option<(bool, Net)>,
    /// `--tunnel-src`, and whether negated.
    pub src: Option<(bool, Net)>,
}

/// `-m policy`: what IPsec does with the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTest {
    /// `--dir in`; else `out`.
    pub inward: bool,
    /// `--pol none`; else `ipsec`.
    pub none: bool,
    /// `--strict`: these transformations in this order and no others.
    pub strict: bool,
    /// The transformations.
    pub elements: Vec<PolicyElement>,
}

impl fmt::Display for PolicyTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--dir {}", if self.inward { "in" } else { "out" })?;
        write!(f, " --pol {}", if self.none { "none" } else { "ipsec" })?;
        if self.strict {
            f.write_str(" --strict")?;
        }
        for (index, e) in self.elements.iter().enumerate() {
            if index > 0 {
                f.write_str(" --next")?;
            }
            if let Some((n, reqid)) = e.reqid {
                write!(f, " {}--reqid {reqid}", not(n))?;
            }
            if let Some((n, spi)) = e.spi {
                write!(f, " {}--spi {spi:#x}", not(n))?;
            }
            if let Some((n, proto)) = e.proto {
                write!(f, " {}--proto {}", not(n), crate::firewall::names::portable_protocol(proto))?;
            }
            if let Some((n, tunnel)) = e.tunnel {
                write!(f, " {}--mode {}", not(n), if tunnel { "tunnel" } else { "transport" })?;
            }
            if let Some((n, net)) = &e.dst {
                write!(f, " {}--tunnel-dst {net}", not(*n))?;
            }
            if let Some((n, net)) = &e.src {
                write!(f, " {}--tunnel-src {net}", not(*n))?;
            }
        }
        Ok(())
    }
}

/// `-m cgroup`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupTest {
    /// `--cgroup`: the net_cls class.
    Class {
        /// Any other.
        negated: bool,
        /// The class.
        id: u32,
    },
    /// `--path`: below this directory of the cgroup2 tree.
    Path {
        /// Anywhere else.
        negated: bool,
        /// The directory.
        path: String,
    },
}

impl fmt::Display for CgroupTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class { negated, id } => write!(f, "{}--cgroup {id}", not(*negated)),
            Self::Path { negated, path } => write!(f, "{}--path {}", not(*negated), quote(path)),
        }
    }
}

/// `-m helper`: the helper of the flow that this flow belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelperTest {
    /// Any other.
    pub negated: bool,
    /// `ftp`, `sip-5060`, …; empty for any.
    pub name: String,
}

impl fmt::Display for HelperTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}--helper {}", not(self.negated), quote(&self.name))
    }
}

/// `-m connlabel`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnlabelTest {
    /// Without it.
    pub negated: bool,
    /// The label's number or name.
    pub label: String,
    /// `--set`: gives the flow the label.
    pub set: bool,
}

impl fmt::Display for ConnlabelTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}--label {}{}", not(self.negated), quote(&self.label), if self.set { " --set" } else { "" })
    }
}
