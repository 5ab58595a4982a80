//! Tests of headers that a packet has only by its octets: IPsec, DCCP, TCP's options, and the
//! extension headers of IPv6. Each cites the kernel's file.

use std::net::Ipv6Addr;

use crate::firewall::ruleset::{
    Bits, FragTest, Ipv6HeaderTest, OptionsTest, RtTest, Span, SpiModule, SpiTest, SrhTest, SrhValue,
};

use super::flow::Run;
use super::live::{Live, Truth};
use super::test_ext::OCTETS;

/// Where `ipv6_find_hdr` finds an extension header.
enum Found<'a> {
    /// Its octets, up to the packet's end, and its length as it says itself.
    At(&'a [u8], usize),
    /// There is none (`-ENOENT`).
    Not,
    /// The headers end beyond the packet (`-EBADMSG`).
    Cut,
    /// The octets are not given.
    Open,
}

impl Live {
    /// `net/ipv6/exthdrs_core.c`, `ipv6_find_hdr` with a header named.
    fn extension(&self, kind: u8) -> Found<'_> {
        let Some((octets, layout)) = &self.wire else {
            return if self.proto == kind { Found::Open } else { Found::Not };
        };
        if let Some(found) = layout.extensions.iter().find(|extension| extension.kind == kind) {
            return Found::At(octets.get(found.at..).unwrap_or_default(), found.length);
        }
        if layout.cut { Found::Cut } else { Found::Not }
    }
}

impl Live {
    /// What modules that do not look at the fragment's offset take for the transport header: over IPv6,
    /// where it was not found, what begins the packet.
    pub(super) fn later_segment(&self) -> Option<Vec<u8>> {
        let octets = self.wire_now()?;
        let place = if self.v6 { 0 } else { usize::try_from(self.network_header()).ok()? };
        Some(octets.get(place..).unwrap_or_default().to_vec())
    }
}

impl Run<'_> {
    /// `net/netfilter/xt_esp.c`, `xt_ipcomp.c`, `net/ipv4/netfilter/ipt_ah.c`,
    /// `net/ipv6/netfilter/ip6t_ah.c`.
    pub(super) fn spi(&mut self, test: &SpiTest) -> Truth {
        if test.module == SpiModule::Ah && self.live.v6 && self.live.wire.is_some() {
            return self.ah6(test);
        }
        let live = &mut self.live;
        let (needs, place, width) = match test.module {
            SpiModule::Esp => (8, 0, 4),
            SpiModule::Ah => (12, 4, 4),
            SpiModule::Ipcomp => (4, 2, 2),
        };
        if live.proto != test.module.protocol() || live.is_later_fragment() {
            return Truth::Absent;
        }
        if !live.has_octets(needs) {
            return live.hot();
        }
        let every = Span { negated: false, from: 0, to: u32::MAX };
        let asks = test.spi.is_some_and(|span| span != every) || test.len.is_some() || test.reserved;
        if !asks {
            return Truth::Yes;
        }
        let octets = live.octets();
        let base = live.network_header();
        let mut open = false;
        let mut check = |at: u32, width: usize, holds: &dyn Fn(u32) -> bool| match Bits::read(&octets, base + at, width)
        {
            None => false,
            Some(bits) => bits.value().map_or_else(
                || {
                    open = true;
                    true
                },
                holds,
            ),
        };
        let spi = test.spi.unwrap_or(every);
        let mut all = check(place, width, &|n| spi.holds(n));
        if let Some(len) = test.len {
            // Of AH in units of four octets, less two.
            all &= check(1, 1, &|n| len.holds((n + 2) << 2));
        }
        if test.reserved {
            // xt_ipcomp.c has the option and does not look at the field, nor does ipt_ah.c.
            all &= test.module != SpiModule::Ah || check(2, 2, &|n| n == 0);
        }
        if !all {
            return Truth::No;
        }
        if open { Truth::Maybe(OCTETS.to_owned()) } else { Truth::Yes }
    }

    fn ah6(&mut self, test: &SpiTest) -> Truth {
        let fits = |header: &[u8], length: usize| {
            let size = u32::try_from(length).unwrap_or(u32::MAX);
            let spi = header.get(4..8)?.iter().fold(0u32, |n, octet| n << 8 | u32::from(*octet));
            let zero = header.get(2..4)? == [0, 0];
            let every = Span { negated: false, from: 0, to: u32::MAX };
            Some(
                test.spi.unwrap_or(every).holds(spi)
                    && test.len.is_none_or(|len| len.holds(size))
                    && (!test.reserved || zero),
            )
        };
        let found = match self.live.extension(51) {
            Found::At(header, length) if header.len() >= 12 => fits(header, length),
            Found::Not | Found::Open => return Truth::Absent,
            Found::At(..) | Found::Cut => None,
        };
        found.map_or_else(|| self.live.hot(), Truth::of)
    }

    /// `net/netfilter/xt_dccp.c`, `match_types`
    pub(super) fn dccp_types(&mut self, types: u16) -> Truth {
        match self.live.transport(8, 1).and_then(Bits::value) {
            // What is no type is INVALID.
            Some(octet) => Truth::of(types & 1 << (octet >> 1 & 15).min(10) != 0),
            None => Truth::Maybe("the DCCP header is not given".to_owned()),
        }
    }

    /// `net/netfilter/xt_dccp.c`, `dccp_find_option`
    pub(super) fn dccp_option(&mut self, option: u8) -> Truth {
        let Some((octets, layout)) = &self.live.wire else {
            return Truth::Maybe("the DCCP header is not given".to_owned());
        };
        let upper = octets.get(layout.transport..).unwrap_or_default();
        let (Some(doff), Some(kind)) = (upper.get(4), upper.get(8)) else { return self.live.hot_inside() };
        // The basic header, 16 octets with a long sequence number, and what each packet type adds
        // (include/linux/dccp.h, __dccp_hdr_len).
        let basic = 12 + if kind & 1 == 1 { 4 } else { 0 };
        let more = match kind >> 1 & 15 {
            0 => 4,
            2 => 0,
            3..=6 | 8 | 9 => 8,
            _ => 12,
        };
        let (from, to) = (basic + more, usize::from(*doff) * 4);
        if to == from {
            return Truth::No;
        }
        if to < from || upper.len() < to {
            return self.live.hot_inside();
        }
        let (list, mut at) = (upper.get(from..to).unwrap_or_default(), 0);
        while let Some(kind) = list.get(at) {
            if *kind == option {
                return Truth::Yes;
            }
            let size = list.get(at + 1).copied().unwrap_or(1).max(1);
            at += if *kind < 2 { 1 } else { usize::from(size) };
        }
        Truth::No
    }

    /// `net/netfilter/xt_tcpmss.c`: without the option it is what the negation says, in a header cut
    /// short the packet is dropped; in a later fragment it looks at the payload as if it were the header.
    pub(super) fn tcp_mss(&mut self, span: Span) -> Truth {
        let live = &mut self.live;
        if live.is_later_fragment() {
            let Some(segment) = live.later_segment() else {
                return Truth::Maybe("a later fragment: it looks at the payload as if it were the header".to_owned());
            };
            return self.mss_in(&segment, span);
        }
        if !live.has_octets(20) {
            return live.hot();
        }
        if let Some((octets, layout)) = &live.wire {
            let now = live.wire_now().unwrap_or_else(|| octets.clone());
            let segment = now.get(layout.transport..).unwrap_or_default().to_vec();
            return self.mss_in(&segment, span);
        }
        let none = live.packet.tcp_options.as_ref().map_or(live.after_network() == Some(20), |o| !o.contains(&2));
        if none && live.packet.mss.is_none() {
            return Truth::of(span.negated);
        }
        if let Some(mss) = live.packet.mss {
            return Truth::of(span.holds(mss.into()));
        }
        if live.packet.tcp_options.is_some() && (span.from, span.to) == (0, 65_535) {
            return Truth::of(!span.negated);
        }
        Truth::Maybe("the segment size that it offers is not given".to_owned())
    }

    fn mss_in(&mut self, segment: &[u8], span: Span) -> Truth {
        let Some(end) = segment.get(12).map(|octet| usize::from(octet >> 4) * 4).filter(|_| segment.len() >= 20) else {
            return self.live.hot();
        };
        let Some(options) = segment.get(20.min(end)..end).filter(|_| end >= 20) else { return self.live.hot() };
        let mut at = 0;
        while let Some(kind) = options.get(at).copied() {
            let length = options.get(at + 1).copied().unwrap_or(0);
            if let (2, 4, Some([high, low])) = (kind, length, options.get(at + 2..at + 4)) {
                return Truth::of(span.holds(u32::from(u16::from_be_bytes([*high, *low]))));
            }
            at += if kind < 2 || length == 0 { 1 } else { usize::from(length) };
        }
        Truth::of(span.negated)
    }

    /// `net/ipv6/netfilter/ip6t_frag.c`
    pub(super) fn fragment_header(&mut self, test: &FragTest) -> Truth {
        let live = &mut self.live;
        let given = live.wire.as_ref().map(|(_, layout)| (layout.fragment, layout.cut));
        let (offset, more, own) = match given {
            Some((Some(fragment), _)) => (fragment.offset, fragment.more, Some(fragment)),
            Some((None, true)) => return live.hot(),
            Some((None, false)) => return Truth::Absent,
            None if !live.is_fragment() => return Truth::Absent,
            None => (live.packet.frag_offset.unwrap_or(0), live.packet.more_fragments == Some(true), None),
        };
        if test.first && offset != 0 || test.more && !more || test.last && more {
            return Truth::No;
        }
        if test.reserved && own.is_some_and(|fragment| fragment.reserved != 0) {
            return Truth::No;
        }
        match (test.id, own) {
            (None | Some(Span { negated: false, from: 0, to: u32::MAX }), _) => Truth::Yes,
            (Some(span), Some(fragment)) => Truth::of(span.holds(fragment.id)),
            (Some(_), None) => Truth::Maybe("the fragment's identification is not given".to_owned()),
        }
    }

    /// `net/ipv6/netfilter/ip6t_ipv6header.c`
    pub(super) fn ipv6_header(&mut self, test: Ipv6HeaderTest) -> Truth {
        let live = &mut self.live;
        let found = match &live.wire {
            Some((octets, _)) => match headers_of(octets) {
                Ok(found) => found,
                Err(true) => return live.hot(),
                Err(false) => return Truth::Absent,
            },
            None => {
                (if live.is_fragment() { 16 } else { 0 })
                    | match live.proto {
                        50 => 4,
                        59 => 2,
                        0 | 43 | 51 | 60 => {
                            return Truth::Maybe("what follows its extension header is not given".to_owned());
                        }
                        _ => 1,
                    }
            }
        };
        let inverted = if test.negated { 0xff } else { 0 };
        Truth::of(if test.soft {
            (found ^ test.mask ^ inverted) & test.mask == 0
        } else {
            (found == test.mask) != test.negated
        })
    }

    /// `net/ipv6/netfilter/ip6t_rt.c`: no header, no match, negated or not.
    pub(super) fn routing_header(&mut self, test: &RtTest) -> Truth {
        let (header, length) = match self.live.extension(43) {
            Found::At(header, length) => (header.to_vec(), length),
            Found::Not => return self.no_extension(),
            Found::Cut => return self.live.hot(),
            Found::Open => return Truth::Maybe("the routing header is not given".to_owned()),
        };
        let (Some(kind), Some(left)) = (header.get(2).copied(), header.get(3).copied()) else { return self.live.hot() };
        if header.len() < length {
            return Truth::Absent;
        }
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        let fits = test.segsleft.is_none_or(|span| span.holds(left.into()))
            && test.len.is_none_or(|span| span.holds(size))
            && test.kind.is_none_or(|span| span.holds(kind.into()))
            && (!test.reserved || header.get(4..8) == Some(&[0; 4]));
        if !fits || test.addrs.is_empty() && !test.not_strict {
            return Truth::of(fits);
        }
        let there: Vec<[u8; 16]> =
            header.get(8..length).unwrap_or_default().chunks_exact(16).filter_map(|c| c.try_into().ok()).collect();
        let wanted = test.addrs.iter().map(std::net::Ipv6Addr::octets);
        if test.not_strict {
            let mut wanted = wanted.peekable();
            for addr in there {
                if wanted.peek() == Some(&addr) {
                    wanted.next();
                }
            }
            return Truth::of(wanted.next().is_none());
        }
        Truth::of(wanted.eq(there))
    }

    /// `net/ipv6/netfilter/ip6t_hbh.c`: no header, no match, negated or not.
    pub(super) fn options_header(&mut self, test: &OptionsTest) -> Truth {
        let kind = if test.hop_by_hop { 0 } else { 60 };
        let (header, length) = match self.live.extension(kind) {
            Found::At(header, length) => (header.to_vec(), length),
            Found::Not => return self.no_extension(),
            Found::Cut => return self.live.hot(),
            Found::Open => return Truth::Maybe("the options header is not given".to_owned()),
        };
        if header.len() < 2 {
            return self.live.hot();
        }
        if header.len() < length {
            return Truth::Absent;
        }
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        let fits = test.len.is_none_or(|span| span.holds(size));
        if test.opts.is_empty() {
            return Truth::of(fits);
        }
        // In the order of the rule, from the header's beginning on.
        let mut rest = header.get(2..length).unwrap_or_default();
        for (number, (kind, len)) in test.opts.iter().enumerate() {
            let Some(own) = rest.first() else { return Truth::Absent };
            if own != kind {
                return Truth::Absent;
            }
            let mut step = 1;
            if *own != 0 {
                let Some(size) = rest.get(1) else { return Truth::Absent };
                if len.is_some_and(|len| len != 0xff && len != *size) {
                    return Truth::Absent;
                }
                step = usize::from(*size) + 2;
            }
            if rest.len() < step && number + 1 < test.opts.len() {
                return Truth::Absent;
            }
            rest = rest.get(step..).unwrap_or_default();
        }
        Truth::of(fits)
    }

    /// `net/ipv6/netfilter/ip6t_srh.c`: nothing holds of a packet without the header.
    pub(super) fn segments(&mut self, test: &SrhTest) -> Truth {
        let (header, length) = match self.live.extension(43) {
            Found::At(header, length) => (header.to_vec(), length),
            Found::Not => return self.no_extension(),
            Found::Cut => return Truth::Absent,
            Found::Open => return Truth::Maybe("the routing header is not given".to_owned()),
        };
        let [next, size, kind, left, last, _, high, low, ..] = *header else { return Truth::Absent };
        if header.len() < length || kind != 4 || left > last {
            return Truth::Absent;
        }
        let addr = |at: usize| Some(Ipv6Addr::from(header.get(at..at + 16)?.first_chunk::<16>().copied()?));
        for part in &test.0 {
            let number = u32::from(match part.option {
                "next-hdr" => u16::from(next),
                // Compared as it lies in memory of a little-endian machine.
                "tag" => u16::from_le_bytes([high, low]),
                option if option.starts_with("hdr-len") => u16::from(size),
                option if option.starts_with("segs-left") => u16::from(left),
                _ => u16::from(last),
            });
            let (left, last) = (usize::from(left), usize::from(last));
            let holds = match part.value {
                SrhValue::Number(with) if part.option.ends_with("-gt") => number > with,
                SrhValue::Number(with) if part.option.ends_with("-lt") => number < with,
                SrhValue::Number(with) => number == with,
                SrhValue::Net(net) => {
                    // The segments stand in the order opposite to the way.
                    let place = match part.option {
                        "psid" if left == last => return Truth::Absent,
                        "psid" => 8 + 16 * (left + 1),
                        "nsid" if left == 0 => return Truth::Absent,
                        "nsid" => 8 + 16 * (left - 1),
                        _ => 8,
                    };
                    match addr(place) {
                        Some(addr) => net.contains(addr.into()),
                        None => return Truth::Absent,
                    }
                }
            };
            if holds == part.negated {
                return Truth::No;
            }
        }
        Truth::Yes
    }

    /// A packet given by its fields has no extension header but a fragment's.
    fn no_extension(&mut self) -> Truth {
        if self.live.wire.is_none() {
            self.live.assume("it has no IPv6 extension headers but those of fragments");
        }
        Truth::Absent
    }

    /// `net/ipv6/netfilter/ip6t_mh.c`
    pub(super) fn mobility(&mut self, span: Option<Span>) -> Truth {
        let live = &mut self.live;
        if live.is_later_fragment() {
            return Truth::Absent;
        }
        if !live.has_octets(6) {
            return live.hot();
        }
        if live.wire.is_some() && live.transport(0, 1).and_then(Bits::value) != Some(59) {
            // Its next header must be none.
            return live.hot();
        }
        let Some(span) = span.filter(|span| span.negated || (span.from, span.to) != (0, 255)) else {
            return Truth::Yes;
        };
        match live.transport(2, 1).and_then(Bits::value) {
            Some(kind) => Truth::of(span.holds(kind)),
            None => Truth::Maybe(OCTETS.to_owned()),
        }
    }
}

/// Which extension headers there are, as the bits of `ip6t_ipv6header.h`. `Err(true)` where a header is
/// cut and the packet dropped, `Err(false)` where it is cut and the match fails.
fn headers_of(octets: &[u8]) -> Result<u8, bool> {
    let mut next = octets.get(6).copied().ok_or(true)?;
    let (mut at, mut found) = (40usize, 0u8);
    while matches!(next, 0 | 43 | 44 | 50 | 51 | 59 | 60) {
        if next == 59 {
            found |= 2;
            break;
        }
        let Some((after, size)) = octets.get(at).zip(octets.get(at + 1)) else { return Err(false) };
        if next == 50 {
            found |= 4;
            break;
        }
        let (bit, length) = match next {
            0 => (128, (usize::from(*size) + 1) * 8),
            60 => (64, (usize::from(*size) + 1) * 8),
            43 => (32, (usize::from(*size) + 1) * 8),
            44 => (16, 8),
            _ => (8, (usize::from(*size) + 2) * 4),
        };
        found |= bit;
        next = *after;
        at += length;
        if at > octets.len() {
            break;
        }
    }
    if !matches!(next, 50 | 59) {
        found |= 1;
    }
    Ok(found)
}
