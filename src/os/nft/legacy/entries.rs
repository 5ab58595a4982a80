//! `struct ipt_entry` and `struct ip6t_entry`: one flat array, in which chains are runs of entries.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::attr::text;
use super::super::save::{SaveChain, SaveRule, SaveTable};
use super::super::xt::{self, Context, network, word};
use super::sockopt::Info;

/// `NF_INET_*` by number.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Bytes of `struct xt_entry_match` and `xt_entry_target` before their data.
const EXTENSION: usize = 32;

/// Where things are in an entry.
struct Layout {
    address: usize,
    interface: usize,
    proto: usize,
    flags: usize,
    inverse: usize,
    target_offset: usize,
    counters: usize,
    elems: usize,
    /// `IPT_F_GOTO` or `IP6T_F_GOTO`.
    goto: u8,
}

const V4: Layout = Layout {
    address: 4,
    interface: 16,
    proto: 80,
    flags: 82,
    inverse: 83,
    target_offset: 88,
    counters: 96,
    elems: 112,
    goto: 2,
};
const V6: Layout = Layout {
    address: 16,
    interface: 64,
    proto: 128,
    flags: 131,
    inverse: 132,
    target_offset: 140,
    counters: 152,
    elems: 168,
    goto: 4,
};

struct Entry<'a> {
    offset: usize,
    next: usize,
    bytes: &'a [u8],
    target_name: String,
    target: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

impl Entry<'_> {
    fn verdict(&self) -> Option<i32> {
        self.target.get(EXTENSION..)?.first_chunk().map(|b| i32::from_ne_bytes(*b))
    }

    fn counters(&self, layout: &Layout) -> (u64, u64) {
        let at = layout.counters;
        (u64_at(self.bytes, at).unwrap_or(0), u64_at(self.bytes, at + 8).unwrap_or(0))
    }
}

/// The table's text; `None` if the entries are not laid out as the kernel does.
pub(super) fn decode(
    name: &str,
    info: &Info,
    blob: &[u8],
    v6: bool,
    set_name: &dyn Fn(u16) -> Option<String>,
) -> Option<SaveTable> {
    let layout = if v6 { &V6 } else { &V4 };
    let entries = split(blob, layout)?;
    let context = Context { v6, set_name };
    // A jump leads to the first entry of a chain, which for a user chain follows its heading.
    let mut starts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.target_name == "ERROR" && entry.next < blob.len()) {
        starts.insert(entry.next, text(entry.target.get(EXTENSION..)?));
    }
    let hooks: Vec<_> = (0..5).filter(|hook| info.valid_hooks & (1 << hook) != 0).collect();
    let mut table = SaveTable { name: name.to_owned(), chains: Vec::new() };
    for &hook in &hooks {
        table.chains.push(SaveChain { name: HOOKS[hook].to_owned(), policy: Some("ACCEPT"), ..SaveChain::default() });
    }
    let mut current: Option<usize> = None;
    for entry in &entries {
        if entry.target_name == "ERROR" {
            close(&mut table, current);
            current = None;
            if let Some(name) = starts.get(&entry.next).filter(|_| entry.next < blob.len()) {
                table.chains.push(SaveChain { name: name.clone(), ..SaveChain::default() });
                current = Some(table.chains.len() - 1);
            }
            continue;
        }
        if let Some(index) = hooks.iter().position(|hook| info.hook_entry[*hook] as usize == entry.offset) {
            current = Some(index);
        }
        let index = current?;
        if let Some(&hook) = hooks.get(index)
            && info.underflow[hook] as usize == entry.offset
        {
            let chain = &mut table.chains[index];
            chain.policy = Some(if entry.verdict()? == -1 { "DROP" } else { "ACCEPT" });
            chain.counters = entry.counters(layout);
            continue;
        }
        let rule = rule(entry, layout, &starts, &context)?;
        table.chains[index].rules.push(rule);
    }
    Some(table)
}

/// The last entry of a user chain is its unseen RETURN.
fn close(table: &mut SaveTable, current: Option<usize>) {
    if let Some(chain) = current.and_then(|index| table.chains.get_mut(index))
        && chain.policy.is_none()
    {
        chain.rules.pop();
    }
}

fn split<'a>(blob: &'a [u8], layout: &Layout) -> Option<Vec<Entry<'a>>> {
    let mut entries = Vec::new();
    let mut offset = 0;
    while offset < blob.len() {
        let bytes = &blob[offset..];
        let target_offset = usize::from(u16_at(bytes, layout.target_offset)?);
        let next = usize::from(u16_at(bytes, layout.target_offset + 2)?);
        if target_offset < layout.elems || next < target_offset + EXTENSION {
            return None;
        }
        let bytes = bytes.get(..next)?;
        let target = &bytes[target_offset..];
        let target_name = text(target.get(2..31)?);
        entries.push(Entry { offset, next: offset + next, bytes, target_name, target });
        offset += next;
    }
    Some(entries)
}

fn rule(
    entry: &Entry<'_>,
    layout: &Layout,
    starts: &BTreeMap<usize, String>,
    context: &Context<'_>,
) -> Option<SaveRule> {
    let bytes = entry.bytes;
    let (flags, inverse) = (*bytes.get(layout.flags)?, *bytes.get(layout.inverse)?);
    let addr = |index: usize| -> Option<IpAddr> {
        let at = index * layout.address;
        Some(if context.v6 {
            IpAddr::V6(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?))
        } else {
            IpAddr::V4(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
        })
    };
    let net = |address: usize, mask: usize, bit: u8| -> Option<Option<(bool, String)>> {
        let (address, mask) = (addr(address)?, addr(mask)?);
        let negated = inverse & bit != 0;
        let any = match mask {
            IpAddr::V4(mask) => mask.is_unspecified(),
            IpAddr::V6(mask) => mask.is_unspecified(),
        };
        Some((!any || negated).then(|| (negated, network(address, mask))))
    };
    let interface = |index: usize, bit: u8| -> Option<Option<(bool, String)>> {
        let at = layout.interface + index * 16;
        let (name, mask) = (bytes.get(at..at + 16)?, bytes.get(at + 32..at + 48)?);
        let shown = text(name);
        let known = mask.iter().take_while(|byte| **byte != 0).count();
        if known == 0 {
            return Some((inverse & bit != 0).then(|| (true, "+".to_owned())));
        }
        let shown = if known > shown.len() { shown } else { format!("{}+", shown.get(..known)?) };
        Some(Some((inverse & bit != 0, word(&shown))))
    };
    let proto = u16_at(bytes, layout.proto)?;
    let cares = !context.v6 || flags & 1 != 0;
    let protocol = (proto != 0 && cares).then(|| u8::try_from(proto).ok().map(|p| (inverse & 0x40 != 0, p)));
    let fragment = (!context.v6 && (flags & 1 != 0)).then_some(inverse & 0x20 == 0);
    let mut rule = SaveRule {
        counters: entry.counters(layout),
        source: net(0, 2, 8)?,
        destination: net(1, 3, 0x10)?,
        in_interface: interface(0, 1)?,
        out_interface: interface(1, 2)?,
        protocol: match protocol {
            Some(inner) => Some(inner?),
            None => None,
        },
        fragment,
        matches: Vec::new(),
        target: None,
    };
    let target_offset = usize::from(u16_at(bytes, layout.target_offset)?);
    let mut at = layout.elems;
    while at < target_offset {
        let size = usize::from(u16_at(bytes, at)?);
        let whole = bytes.get(at..at.checked_add(size)?)?;
        let (name, rev, data) = extension(whole)?;
        rule.matches.push(xt::match_text(&name, rev, data, context));
        at += size;
    }
    rule.target = if entry.target_name.is_empty() {
        Some(standard(entry, flags & layout.goto != 0, starts)?).filter(|target| !target.is_empty())
    } else {
        let (name, rev, data) = extension(entry.target)?;
        Some(xt::target_text(&name, rev, data, context))
    };
    Some(rule)
}

fn extension(bytes: &[u8]) -> Option<(String, u32, &[u8])> {
    Some((text(bytes.get(2..31)?), u32::from(*bytes.get(31)?), bytes.get(EXTENSION..)?))
}

/// A verdict below zero decides (`-NF_* - 1`); one above is where to go on, the next entry for none at
/// all, which is the empty word. A rule without a target is followed by an entry of its own chain (the
/// policy, or the unseen RETURN, at the latest), so that no chain starts there.
fn standard(entry: &Entry<'_>, goto: bool, starts: &BTreeMap<usize, String>) -> Option<String> {
    Some(match entry.verdict()? {
        -1 => "-j DROP".to_owned(),
        -2 => "-j ACCEPT".to_owned(),
        -4 => "-j QUEUE".to_owned(),
        -5 => "-j RETURN".to_owned(),
        offset => {
            let offset = usize::try_from(offset).ok()?;
            match starts.get(&offset) {
                Some(chain) => format!("{} {}", if goto { "-g" } else { "-j" }, word(chain)),
                None if offset == entry.next => String::new(),
                None => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut blob: Vec<u8>, v6: bool, valid_hooks: u32, at in 0u32..400) {
            let info = Info { valid_hooks, hook_entry: [0, at, at, 0, 0], underflow: [at; 5], size: blob.len() };
            let _ = decode("filter", &info, &blob, v6, &|_| None);
            // The same bytes in an entry that is laid out well enough to be looked into.
            blob.resize(400, 0);
            let layout = if v6 { &V6 } else { &V4 };
            let at = layout.target_offset;
            let head = u16::try_from(layout.elems).unwrap() + 48;
            blob[at..at + 2].copy_from_slice(&head.to_ne_bytes());
            blob[at + 2..at + 4].copy_from_slice(&400u16.to_ne_bytes());
            let info = Info { valid_hooks: 31, hook_entry: [0; 5], underflow: [400; 5], size: 400 };
            let _ = decode("filter", &info, &blob, v6, &|_| None);
        }
    }
}
