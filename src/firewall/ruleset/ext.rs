//! The rarer tests, one for each `-m MODULE` with all its options.

use std::fmt;

use super::bpf::BpfProgram;
use super::matches_header::{
    ChunkTest, DCCP_TYPES, EcnTest, FragTest, Ipv6HeaderTest, OptionsTest, OsfTest, RtTest, Span, SpiTest,
};
use super::matches_host::{
    CgroupTest, ClusterTest, ConnlabelTest, DevGroupTest, HelperTest, PhysdevTest, PolicyTest, RealmTest, RpfilterTest,
    SocketTest,
};
use super::matches_payload::{StringTest, U32Test};
use super::quote;
use super::srh::{IpvsTest, SrhTest};
use super::time::TimeTest;

/// One `-m MODULE` with its options. Each option carries its own negation, except of those modules
/// that have one option a test (`sctp`, `dccp`), whose negation is the match's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ext {
    /// `-m sctp --chunk-types`
    Chunks(ChunkTest),
    /// `-m dccp --dccp-types`, bit n for type n.
    DccpTypes(u16),
    /// `-m dccp --dccp-option`
    DccpOption(u8),
    /// `-m esp`, `-m ah`, `-m ipcomp`
    Spi(SpiTest),
    /// `-m ecn`
    Ecn(EcnTest),
    /// `-m tcpmss --mss`
    TcpMss(Span),
    /// `-m osf`
    Osf(OsfTest),
    /// `-m frag`
    Frag(FragTest),
    /// `-m ipv6header`
    Ipv6Header(Ipv6HeaderTest),
    /// `-m rt`
    Rt(RtTest),
    /// `-m hbh`, `-m dst`
    Options(OptionsTest),
    /// `-m mh --mh-type`
    MobilityHeader(Option<Span>),
    /// `-m srh`
    Srh(SrhTest),
    /// `-m ipvs`
    Ipvs(IpvsTest),
    /// `-m eui64`: the interface identifier is the hardware address's.
    Eui64,
    /// `-m physdev`
    Physdev(PhysdevTest),
    /// `-m rpfilter`
    Rpfilter(RpfilterTest),
    /// `-m socket`
    Socket(SocketTest),
    /// `-m helper`
    Helper(HelperTest),
    /// `-m cluster`
    Cluster(ClusterTest),
    /// `-m realm`
    Realm(RealmTest),
    /// `-m devgroup`
    DevGroup(DevGroupTest),
    /// `-m policy`
    Policy(PolicyTest),
    /// `-m cpu`: which processor handles the packet.
    Cpu(Span),
    /// `-m nfacct`: counts in an accounting object, which may have a quota.
    Nfacct(String),
    /// `-m cgroup`
    Cgroup(CgroupTest),
    /// `-m connlabel`
    Connlabel(ConnlabelTest),
    /// `-m string`
    String(StringTest),
    /// `-m u32`
    U32(U32Test),
    /// `-m bpf --bytecode`
    Bpf(BpfProgram),
    /// `-m time`
    Time(TimeTest),
    /// `-m owner --gid-owner` with `--suppl-groups`: one of the process's groups, first and last.
    Groups(u32, u32),
}

impl Ext {
    /// The module's name.
    pub fn module(&self) -> &'static str {
        match self {
            Self::Chunks(_) => "sctp",
            Self::DccpTypes(_) | Self::DccpOption(_) => "dccp",
            Self::Spi(test) => test.module.name(),
            Self::Ecn(_) => "ecn",
            Self::TcpMss(_) => "tcpmss",
            Self::Osf(_) => "osf",
            Self::Frag(_) => "frag",
            Self::Ipv6Header(_) => "ipv6header",
            Self::Rt(_) => "rt",
            Self::Options(OptionsTest { hop_by_hop: true, .. }) => "hbh",
            Self::Options(_) => "dst",
            Self::MobilityHeader(_) => "mh",
            Self::Srh(_) => "srh",
            Self::Ipvs(_) => "ipvs",
            Self::Eui64 => "eui64",
            Self::Physdev(_) => "physdev",
            Self::Rpfilter(_) => "rpfilter",
            Self::Socket(_) => "socket",
            Self::Helper(_) => "helper",
            Self::Cluster(_) => "cluster",
            Self::Realm(_) => "realm",
            Self::DevGroup(_) => "devgroup",
            Self::Policy(_) => "policy",
            Self::Cpu(_) => "cpu",
            Self::Nfacct(_) => "nfacct",
            Self::Cgroup(_) => "cgroup",
            Self::Connlabel(_) => "connlabel",
            Self::String(_) => "string",
            Self::U32(_) => "u32",
            Self::Bpf(_) => "bpf",
            Self::Time(_) => "time",
            Self::Groups(..) => "owner",
        }
    }

    /// Whether it is one option of a module that takes several under one `-m`.
    pub(super) fn is_one_option(&self) -> bool {
        matches!(self, Self::Chunks(_) | Self::DccpTypes(_) | Self::DccpOption(_))
    }
}

/// The options, as iptables-save writes them.
impl fmt::Display for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunks(test) => write!(f, "{test}"),
            Self::DccpTypes(types) => {
                let names: Vec<_> =
                    DCCP_TYPES.iter().enumerate().filter(|(n, _)| types & (1 << n) != 0).map(|(_, s)| *s).collect();
                write!(f, "--dccp-types {}", names.join(","))
            }
            Self::DccpOption(option) => write!(f, "--dccp-option {option}"),
            Self::Spi(test) => write!(f, "{test}"),
            Self::Ecn(test) => write!(f, "{test}"),
            Self::TcpMss(span) => f.write_str(&span.option("mss")),
            Self::Osf(test) => write!(f, "{test}"),
            Self::Frag(test) => write!(f, "{test}"),
            Self::Ipv6Header(test) => write!(f, "{test}"),
            Self::Rt(test) => write!(f, "{test}"),
            Self::Options(test) => write!(f, "{test}"),
            Self::MobilityHeader(span) => f.write_str(&span.map_or(String::new(), |span| span.option("mh-type"))),
            Self::Srh(test) => write!(f, "{test}"),
            Self::Ipvs(test) => write!(f, "{test}"),
            Self::Eui64 => Ok(()),
            Self::Physdev(test) => write!(f, "{test}"),
            Self::Rpfilter(test) => write!(f, "{test}"),
            Self::Socket(test) => write!(f, "{test}"),
            Self::Helper(test) => write!(f, "{test}"),
            Self::Cluster(test) => write!(f, "{test}"),
            Self::Realm(test) => write!(f, "{test}"),
            Self::DevGroup(test) => write!(f, "{test}"),
            Self::Policy(test) => write!(f, "{test}"),
            Self::Cpu(span) => f.write_str(&span.option("cpu")),
            Self::Nfacct(name) => write!(f, "--nfacct-name {}", quote(name)),
            Self::Cgroup(test) => write!(f, "{test}"),
            Self::Connlabel(test) => write!(f, "{test}"),
            Self::String(test) => write!(f, "{test}"),
            Self::U32(test) => write!(f, "{test}"),
            Self::Bpf(test) => write!(f, "{test}"),
            Self::Time(test) => write!(f, "{test}"),
            Self::Groups(from, to) if from == to => write!(f, "--gid-owner {from} --suppl-groups"),
            Self::Groups(from, to) => write!(f, "--gid-owner {from}-{to} --suppl-groups"),
        }
    }
}
