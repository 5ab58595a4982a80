//! Whether one rule leaves nothing to a later one.

use crate::firewall::ruleset::{CtTest, Match, PortRange, Rule, Target, Test, Transport};

/// A rule that takes every packet that it matches out of its chain, by tests whose answer cannot
/// change within a chain.
pub(super) struct Coverer<'a> {
    matches: Vec<&'a Match>,
}

/// Whether a rule ends the chain for its packets.
pub(super) fn decides(rule: &Rule) -> bool {
    matches!(
        rule.target,
        Some(
            Target::Accept
                | Target::Drop
                | Target::Reject(_)
                | Target::Return
                | Target::Goto(_)
                | Target::Dnat(_)
                | Target::Snat(_)
                | Target::Masquerade(_)
                | Target::Redirect(_)
                | Target::Netmap(_)
        )
    )
}

impl<'a> Coverer<'a> {
    /// `None` where the rule proves nothing about others. `raw`: its table runs before and beside
    /// the decision whether a packet is tracked.
    pub(super) fn new(rule: &'a Rule, raw: bool) -> Option<Self> {
        if !decides(rule) || !rule.matches.iter().all(|m| is_fixed(m, raw)) {
            return None;
        }
        Some(Self { matches: rule.matches.iter().filter(|m| !matches!(m.test, Test::Comment(_))).collect() })
    }

    /// Whether every packet that the later rule matches is matched here.
    pub(super) fn covers(&self, later: &Rule) -> bool {
        self.matches.iter().all(|m| later.matches.iter().any(|other| implies(other, m)) || is_any(m))
    }
}

/// Whether the test asks of what no target changes on a packet's way through a chain, and whose
/// meaning here is known exactly.
fn is_fixed(m: &Match, raw: bool) -> bool {
    match &m.test {
        Test::Source(_)
        | Test::Destination(_)
        | Test::InInterface(_)
        | Test::OutInterface(_)
        | Test::Protocol(_)
        | Test::Header(_)
        | Test::Port { .. }
        | Test::TcpFlags { .. }
        | Test::Icmp { .. }
        | Test::Multiport { .. }
        | Test::Comment(_)
        | Test::IpRange { .. }
        | Test::Mac(_) => true,
        Test::Conntrack { tests, .. } => !raw && matches!(tests.as_slice(), [(false, CtTest::State(_))]),
        _ => false,
    }
}

fn is_any(m: &Match) -> bool {
    match &m.test {
        Test::Source(net) | Test::Destination(net) => net.is_any() && !m.negated,
        _ => false,
    }
}

/// Whether a packet for which `narrow` holds has `wide` hold too.
fn implies(narrow: &Match, wide: &Match) -> bool {
    if narrow == wide {
        return true;
    }
    if let Test::Header(transport) = wide.test
        && !wide.negated
    {
        return reads(&narrow.test) == Some(transport);
    }
    if narrow.negated != wide.negated {
        return false;
    }
    // `! wide` follows from `! narrow` where narrow is the larger set.
    let (small, large) = if narrow.negated { (&wide.test, &narrow.test) } else { (&narrow.test, &wide.test) };
    within(small, large)
}

/// The header that a test reads, so that it fails where the header is not there.
fn reads(test: &Test) -> Option<Transport> {
    match test {
        Test::Header(transport) | Test::Port { module: transport, .. } => Some(*transport),
        Test::TcpFlags { .. } => Some(Transport::Tcp),
        Test::Icmp { v6: false, .. } => Some(Transport::Icmp),
        Test::Icmp { v6: true, .. } => Some(Transport::Icmp6),
        _ => None,
    }
}

/// Whether all that `small` asks for is in `large`; both of one kind.
fn within(small: &Test, large: &Test) -> bool {
    let inside = |a: &PortRange, b: &PortRange| b.from <= a.from && a.to <= b.to;
    match (small, large) {
        (Test::Source(a), Test::Source(b)) | (Test::Destination(a), Test::Destination(b)) => {
            match (a.prefix_len(), b.prefix_len()) {
                (Some(of_a), Some(of_b)) => of_b <= of_a && b.contains(a.addr),
                _ => false,
            }
        }
        (Test::InInterface(a), Test::InInterface(b)) | (Test::OutInterface(a), Test::OutInterface(b)) => {
            b.prefix && a.name.starts_with(&b.name)
        }
        (Test::Port { module: m1, side: a, range: small }, Test::Port { module: m2, side: b, range: large }) => {
            a == b && m1 == m2 && inside(small, large)
        }
        (Test::Multiport { side: a, ranges: small }, Test::Multiport { side: b, ranges: large }) => {
            a == b && small.iter().all(|small| large.iter().any(|large| inside(small, large)))
        }
        (Test::Port { side: a, range: small, .. }, Test::Multiport { side: b, ranges }) => {
            a == b && ranges.iter().any(|large| inside(small, large))
        }
        (Test::IpRange { side: a, from: f1, to: t1 }, Test::IpRange { side: b, from: f2, to: t2 }) => {
            a == b && f1.is_ipv4() == f2.is_ipv4() && f2 <= f1 && t1 <= t2
        }
        (Test::Conntrack { tests: small, .. }, Test::Conntrack { tests: large, .. }) => {
            match (small.as_slice(), large.as_slice()) {
                ([(false, CtTest::State(small))], [(false, CtTest::State(large))]) => small.0 & !large.0 == 0,
                _ => false,
            }
        }
        _ => false,
    }
}
