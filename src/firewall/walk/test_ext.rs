//! Whether the rarer tests hold. Each cites the kernel's file; `Absent` is a test that fails
//! negated or not.

use std::net::IpAddr;

use crate::firewall::ruleset::{
    BpfContext, ChunkMode, ChunkTest, ClusterTest, CtStates, EcnTest, Ext, HelperTest, Hook, NotGiven, PhysdevTest,
    PktType, PolicyTest, RpfilterTest, TcpFlags, TimeTest,
};

use super::flow::Run;
use super::live::{IfaceName, Truth};

/// A truth with its own negation applied; what is absent stays so.
fn signed(holds: Result<bool, NotGiven>, negated: bool, open: &str) -> Truth {
    holds.map_or_else(|NotGiven| Truth::Maybe(open.to_owned()), |holds| Truth::of(holds != negated))
}

pub(super) const OCTETS: &str = "octets that it looks at are not given";

impl Run<'_> {
    pub(super) fn ext(&mut self, ext: &Ext) -> Truth {
        let open = |why: &str| Truth::Maybe(why.to_owned());
        match ext {
            Ext::Chunks(test) => self.chunks(test),
            Ext::DccpTypes(_) | Ext::DccpOption(_) if self.live.is_later_fragment() => Truth::Absent,
            Ext::DccpTypes(_) | Ext::DccpOption(_) if !self.live.has_octets(12) => self.live.hot(),
            Ext::DccpTypes(types) => self.dccp_types(*types),
            Ext::DccpOption(option) => self.dccp_option(*option),
            Ext::Spi(test) => self.spi(test),
            Ext::Ecn(test) => self.ecn(*test),
            Ext::TcpMss(span) => self.tcp_mss(*span),
            Ext::Osf(_) if self.live.proto != 6 => Truth::No,
            Ext::Osf(_) => open("the fingerprints are not given"),
            Ext::Frag(test) => self.fragment_header(test),
            Ext::Ipv6Header(test) => self.ipv6_header(*test),
            Ext::Rt(test) => self.routing_header(test),
            Ext::Options(test) => self.options_header(test),
            Ext::MobilityHeader(span) => self.mobility(*span),
            Ext::Srh(test) => self.segments(test),
            Ext::Ipvs(_) => open("whether the load balancer handles its flow is not given"),
            Ext::Eui64 => self.eui64(),
            Ext::Physdev(test) => self.physdev(test),
            Ext::Rpfilter(test) => self.rpfilter(*test),
            Ext::Socket(_) => open("the sockets of this host are not given"),
            Ext::Helper(test) => self.helper(test),
            Ext::Cluster(test) => self.cluster(*test),
            // net/netfilter/xt_realm.c; a route has realm 0 unless it was given one.
            Ext::Realm(test) => {
                self.live.assume("its route has no realm");
                Truth::of(test.0.holds(0))
            }
            Ext::DevGroup(_) => open("the groups of the devices are not given"),
            Ext::Policy(test) => self.policy_test(test),
            Ext::Cpu(_) => open("which processor handles the packet is not given"),
            // net/netfilter/xt_nfacct.c: an object without a quota always matches.
            Ext::Nfacct(name) => {
                self.live.assume(format!("the accounting object {name} has no quota"));
                Truth::Yes
            }
            Ext::Cgroup(_) | Ext::Groups(..) if self.live.came_in && self.live.hook != Hook::Input => {
                // No socket: xt_cgroup.c matches neither way, xt_owner.c like any other owner.
                if matches!(ext, Ext::Groups(..)) { Truth::No } else { Truth::Absent }
            }
            Ext::Cgroup(_) => open("the cgroup of the process is not given"),
            Ext::Groups(from, to) => match self.live.packet.gid {
                Some(gid) if (*from..=*to).contains(&gid) => Truth::Yes,
                _ => open("the groups of the process are not given"),
            },
            // net/netfilter/xt_connlabel.c: without a flow it is what its negation says.
            Ext::Connlabel(test) if !self.live.has_flow() => Truth::of(test.negated),
            Ext::Connlabel(_) => open("the labels of its flow are not given"),
            Ext::String(test) => {
                let (octets, headers) = self.live.octets_and_headers();
                signed(test.find(&octets, headers), test.negated, OCTETS)
            }
            Ext::U32(test) => {
                let octets = self.live.octets();
                signed(test.holds(&octets), test.negated, OCTETS)
            }
            Ext::Bpf(program) => {
                let octets = self.live.octets();
                let pkttype = match self.pkttype() {
                    PktType::Unicast => 0,
                    PktType::Broadcast => 1,
                    PktType::Multicast => 2,
                };
                let protocol = if self.live.v6 { 0x86dd } else { 0x0800 };
                let context = BpfContext { protocol, pkttype, mark: self.live.mark };
                signed(program.run(&octets, context), false, OCTETS)
            }
            Ext::Time(test) => self.time(test),
        }
    }

    /// Whom the frame was for. A packet that this host made is `unicast` until it leaves: nothing
    /// sets its type (`net/netfilter/xt_pkttype.c`).
    pub(super) fn pkttype(&mut self) -> PktType {
        if self.live.packet.pkttype.is_none() && !self.live.came_in && self.live.hook == Hook::Output {
            return PktType::Unicast;
        }
        self.live.pkttype()
    }

    /// `net/netfilter/xt_time.c`, by the second that the facts give.
    fn time(&mut self, test: &TimeTest) -> Truth {
        let clock = self.facts.clock;
        match clock {
            Some(_) if test.kernel_tz => Truth::Maybe("the kernel's time zone is not given".to_owned()),
            Some(now) => Truth::of(test.holds(now)),
            None if *test == TimeTest::default() => Truth::Yes,
            None => Truth::Maybe("the time is not given".to_owned()),
        }
    }

    /// `net/netfilter/xt_sctp.c`, `match_packet`.
    fn chunks(&mut self, test: &ChunkTest) -> Truth {
        let live = &mut self.live;
        if live.is_later_fragment() {
            return Truth::Absent;
        }
        if !live.has_octets(12) {
            return live.hot();
        }
        // Octets that are given and hold none end too early.
        let payload = live.payload().or_else(|| live.wire.is_some().then(Vec::new));
        let Some(payload) = payload else { return Truth::Maybe("the SCTP chunks are not given".to_owned()) };
        let mut wanted: [bool; 256] = [false; 256];
        for chunk in &test.chunks {
            wanted[usize::from(chunk.kind)] = true;
        }
        let (mut at, mut first) = (0usize, true);
        while first || at < payload.len() {
            first = false;
            let Some([kind, flags, high, low]) = payload.get(at..at + 4).and_then(|c| <[u8; 4]>::try_from(c).ok())
            else {
                return live.hot_inside();
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length == 0 {
                return live.hot_inside();
            }
            at += length.next_multiple_of(4);
            let asked = test.chunks.iter().find(|chunk| chunk.kind == kind);
            match (asked, test.mode) {
                (Some(chunk), mode) => {
                    let fits = flags & chunk.mask == chunk.set & chunk.mask;
                    match (mode, fits) {
                        (ChunkMode::Any, true) => return Truth::Yes,
                        (ChunkMode::All, true) => wanted[usize::from(kind)] = false,
                        (ChunkMode::Only, false) => return Truth::No,
                        _ => (),
                    }
                }
                (None, ChunkMode::Only) => return Truth::No,
                (None, _) => (),
            }
        }
        Truth::of(match test.mode {
            ChunkMode::All => wanted.iter().all(|open| !open),
            ChunkMode::Any => false,
            ChunkMode::Only => true,
        })
    }

    /// `net/netfilter/xt_ecn.c`
    fn ecn(&mut self, test: EcnTest) -> Truth {
        let live = &mut self.live;
        if let Some((negated, ect)) = test.ect
            && (live.tos & 3 == ect) == negated
        {
            return Truth::No;
        }
        if test.ece.is_none() && test.cwr.is_none() {
            return Truth::Yes;
        }
        if live.proto != 6 {
            return Truth::No;
        }
        let flags = if live.is_later_fragment() {
            match live.later_segment() {
                None => {
                    return Truth::Maybe(
                        "a later fragment: it looks at the payload as if it were the header".to_owned(),
                    );
                }
                Some(segment) if segment.len() < 20 => return Truth::No,
                Some(segment) => TcpFlags(segment.get(13).copied().unwrap_or(0)),
            }
        } else if !live.has_octets(20) {
            return Truth::No;
        } else {
            live.tcp_flags()
        };
        let fits = |asked: Option<bool>, bit: TcpFlags| asked.is_none_or(|negated| (flags.0 & bit.0 != 0) != negated);
        Truth::of(fits(test.ece, TcpFlags::ECE) && fits(test.cwr, TcpFlags::CWR))
    }

    /// `net/ipv6/netfilter/ip6t_eui64.c`
    fn eui64(&mut self) -> Truth {
        let IpAddr::V6(src) = self.live.packet.src else { return Truth::Absent };
        let Some(mac) = self.live.packet.mac_src else {
            return Truth::Maybe("the source hardware address is not given".to_owned());
        };
        let mac = mac.0;
        let identifier = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
        Truth::of(src.octets()[8..] == identifier)
    }

    /// `net/netfilter/xt_physdev.c`, without a bridge: what is negated holds.
    fn physdev(&mut self, test: &PhysdevTest) -> Truth {
        self.live.assume("it crosses no bridge");
        let asked = [test.is_in, test.is_out, test.is_bridged].into_iter().flatten();
        let devices = [&test.in_, &test.out].into_iter().flatten().map(|(negated, _)| *negated);
        Truth::of(asked.chain(devices).all(|negated| negated))
    }

    /// `net/netfilter/xt_policy.c`, for a packet that IPsec leaves alone.
    fn policy_test(&mut self, test: &PolicyTest) -> Truth {
        self.live.assume("no IPsec policy applies to it");
        Truth::of(test.none)
    }

    /// `net/netfilter/xt_helper.c`: only a flow that another one expected has a master.
    fn helper(&mut self, test: &HelperTest) -> Truth {
        if !self.live.has_flow() || self.live.state.intersects(CtStates::NEW) {
            return Truth::of(test.negated);
        }
        Truth::Maybe("the helper of its flow's master is not known".to_owned())
    }

    /// `net/netfilter/xt_cluster.c`, by the original source of its flow.
    fn cluster(&mut self, test: ClusterTest) -> Truth {
        // A frame for many that holds a packet for one is taken for this host's from here on.
        if self.live.packet.pkttype == Some(PktType::Multicast) && !self.live.packet.dst.is_multicast() {
            self.live.packet.pkttype = Some(PktType::Unicast);
        }
        if !self.live.has_flow() {
            return Truth::Absent;
        }
        if !self.live.state.intersects(CtStates::NEW) || self.live.state.intersects(CtStates::RELATED) {
            return Truth::Maybe("the original source of its flow is not known".to_owned());
        }
        let hash = match self.live.original.0 {
            // The kernel hashes the address as it lies in memory of a little-endian machine.
            IpAddr::V4(addr) => jhash(&[u32::from_le_bytes(addr.octets())], test.seed),
            IpAddr::V6(addr) => {
                // Of the four words the kernel hashes the first alone (NF_CT_TUPLE_L3SIZE is 4).
                let [a, b, c, d, ..] = addr.octets();
                jhash(&[u32::from_le_bytes([a, b, c, d])], test.seed)
            }
        };
        let node = (u64::from(hash) * u64::from(test.total)) >> 32;
        Truth::of((1u64 << node & u64::from(test.nodes) != 0) != test.negated)
    }

    /// `net/ipv4/netfilter/ipt_rpfilter.c`, `net/ipv6/netfilter/ip6t_rpfilter.c`.
    fn rpfilter(&mut self, test: RpfilterTest) -> Truth {
        let name = self.live.in_iface();
        let IfaceName::Known(name) = name else { return Truth::Maybe("the interface is not given".to_owned()) };
        if name == "lo" {
            return Truth::of(!test.invert);
        }
        let src = self.live.packet.src;
        let Some(host) = self.facts.host.filter(|host| host.addresses.is_some() && host.routes.is_some()) else {
            return Truth::Maybe(format!("whether {src} is behind {name} needs this host's routes"));
        };
        let rules = host.rules.as_deref().unwrap_or(&[]);
        if rules.iter().any(|rule| !matches!(rule.priority, 0 | 32766 | 32767)) {
            return Truth::Maybe("policy routing may choose another table".to_owned());
        }
        if super::flow::is_local(host, src) {
            return Truth::of((test.accept_local && !src.is_multicast()) != test.invert);
        }
        let routes = host.routes.as_deref().unwrap_or(&[]).iter();
        let best = routes
            .filter(|r| matches!(r.table, 254 | 255) && !r.dead && r.destination.contains(src))
            .max_by_key(|r| (r.destination.prefix(), std::cmp::Reverse(r.metric)));
        let passes = best.is_some_and(|r| {
            r.kind == crate::host::RouteKind::Unicast && (test.loose || r.interface.as_deref() == Some(name.as_str()))
        });
        Truth::of(passes != test.invert)
    }
}

/// Bob Jenkins' hash as the kernel has it (`include/linux/jhash.h`, `jhash2`).
pub(super) fn jhash(words: &[u32], seed: u32) -> u32 {
    let length = u32::try_from(words.len()).unwrap_or(0);
    let start = 0xdead_beef_u32.wrapping_add(length << 2).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = words;
    while let [x, y, z, more @ ..] = rest {
        if more.is_empty() {
            break;
        }
        (a, b, c) = (a.wrapping_add(*x), b.wrapping_add(*y), c.wrapping_add(*z));
        for (left, shift) in [(0, 4), (1, 6), (2, 8), (0, 16), (1, 19), (2, 4)] {
            match left {
                0 => (a, c) = (a.wrapping_sub(c) ^ c.rotate_left(shift), c.wrapping_add(b)),
                1 => (b, a) = (b.wrapping_sub(a) ^ a.rotate_left(shift), a.wrapping_add(c)),
                _ => (c, b) = (c.wrapping_sub(b) ^ b.rotate_left(shift), b.wrapping_add(a)),
            }
        }
        rest = more;
    }
    if rest.is_empty() {
        return c;
    }
    let word = |n: usize| rest.get(n).copied().unwrap_or(0);
    (a, b, c) = (a.wrapping_add(word(0)), b.wrapping_add(word(1)), c.wrapping_add(word(2)));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
