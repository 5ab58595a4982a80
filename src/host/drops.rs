//! Packets that the kernel freed undelivered, with its own reason: the tracepoint `skb:kfree_skb`
//! (include/trace/events/skb.h, include/net/dropreason-core.h).

use serde::{Deserialize, Serialize};

/// One packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelDrop {
    /// `NETFILTER_DROP`, `IP_RPFILTER`, `NO_SOCKET`, …
    pub reason: String,
    /// The kernel's function that let it go, without the offset.
    pub location: String,
    /// The packet's ethertype.
    pub protocol: u16,
}

/// Reads one line of a trace; `None` where it is another event, or a drop without a reason of its own.
pub fn parse(line: &str) -> Option<KernelDrop> {
    let (_, fields) = line.split_once(": kfree_skb: ")?;
    let field = |name: &str| {
        let at = fields.find(name)?;
        let rest = &fields[at + name.len()..];
        Some(rest.split_whitespace().next().unwrap_or(""))
    };
    let reason = field("reason: ").filter(|reason| !reason.is_empty())?;
    let location = field("location=")?;
    let location = location.split(['+', ' ']).next().unwrap_or(location);
    Some(KernelDrop {
        reason: reason.to_owned(),
        location: location.to_owned(),
        protocol: field("protocol=")?.parse().ok()?,
    })
}

/// The same drops together: (how many, which), the most first.
pub fn counted(drops: &[KernelDrop]) -> Vec<(usize, &KernelDrop)> {
    let mut list: Vec<(usize, &KernelDrop)> = Vec::new();
    for one in drops {
        match list.iter_mut().find(|(_, have)| *have == one) {
            Some((count, _)) => *count += 1,
            None => list.push((1, one)),
        }
    }
    list.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_others_are_passed_over() {
        let line = "   kworker/0:1-12  [000] ..s1. 1234.567890: kfree_skb: skbaddr=00000000c2 rx_sk=0000000000000000 \
                    protocol=2048 location=nft_do_chain+0x4f1/0x5a0 reason: NETFILTER_DROP";
        let drop = parse(line).unwrap();
        assert_eq!(
            (drop.reason.as_str(), drop.location.as_str(), drop.protocol),
            ("NETFILTER_DROP", "nft_do_chain", 2048)
        );
        assert_eq!(parse("# tracer: nop"), None);
        assert_eq!(parse(" x [000] 1.0: consume_skb: skbaddr=0"), None);
        let other = KernelDrop { reason: "NO_SOCKET".to_owned(), ..drop.clone() };
        let all = [other.clone(), drop.clone(), drop.clone()];
        assert_eq!(counted(&all), [(2, &drop), (1, &other)]);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_survived(line: String) {
            parse(&line);
            parse(&format!(": kfree_skb: {line}"));
        }
    }
}
