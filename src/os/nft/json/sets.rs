//! Sets, maps and their elements.

use serde_json::{Value, json};

use super::super::expr::Data;
use super::super::objects::{Element, Set};
use super::kind::{Kind, key_types, prefix_len};
use super::{family_name, objects, statement};

/// `NFT_SET_*`.
const ANONYMOUS_OR_MAP: u32 = 8 | 0x40;
const INTERVAL: u32 = 4;
const OBJECTS: u32 = 0x40;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;

/// A named set or map with its elements.
pub(super) fn named(set: &Set) -> Value {
    let mut entry = json!({"family": family_name(set.family), "name": set.name, "table": set.table,
        "type": type_names(set.key_type, set.key_len), "handle": set.handle});
    let flags: Vec<_> = [(2, "constant"), (INTERVAL, "interval"), (0x10, "timeout"), (0x20, "dynamic")]
        .iter()
        .filter(|(bit, _)| set.flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if !flags.is_empty() {
        entry["flags"] = json!(flags);
    }
    if let Some(timeout) = set.timeout.filter(|timeout| *timeout > 0) {
        entry["timeout"] = json!(timeout / 1000);
    }
    if let Some(interval) = set.gc_interval.filter(|interval| *interval > 0) {
        entry["gc-interval"] = json!(interval / 1000);
    }
    if let Some(size) = set.size.filter(|size| *size > 0) {
        entry["size"] = json!(size);
    }
    if !set.exprs.is_empty() {
        entry["stmt"] = json!(set.exprs.iter().map(statement::simple).collect::<Vec<_>>());
    }
    let elements = elements(set);
    if !elements.is_empty() {
        entry["elem"] = json!(elements);
    }
    if set.flags & ANONYMOUS_OR_MAP == 0 {
        return json!({"set": entry});
    }
    entry["map"] = match (set.flags & OBJECTS != 0, set.data_type) {
        (true, _) => json!(objects::kind_name(set.object_type.unwrap_or(0))),
        (false, None | Some(VERDICT)) => json!("verdict"),
        (false, Some(code)) => type_names(code, 4),
    };
    json!({"map": entry})
}

fn type_names(code: u32, len: u32) -> Value {
    match key_types(code, len as usize).as_slice() {
        [(name, ..)] => json!(name),
        many => json!(many.iter().map(|(name, ..)| name).collect::<Vec<_>>()),
    }
}

/// The elements as nft lists them: intervals as ranges and prefixes, maps as pairs.
pub(super) fn elements(set: &Set) -> Vec<Value> {
    let types = key_types(set.key_type, set.key_len as usize);
    let interval = set.flags & INTERVAL != 0;
    let mut all: Vec<&Element> = set.elements.iter().collect();
    // By key, and an end before the beginning that has the same key. The kernel lists hashed sets in
    // an order that changes from one reading to the next.
    all.sort_by(|a, b| a.key.cmp(&b.key).then(b.is_end().cmp(&a.is_end())));
    let mut out = Vec::new();
    for (index, element) in all.iter().enumerate() {
        if element.is_end() {
            continue;
        }
        let key = if element.flags & 2 != 0 {
            json!("*")
        } else if let [(_, _, kind)] = types.as_slice() {
            match (&element.key_end, interval) {
                (Some(end), _) => span(*kind, &element.key, end),
                (None, false) => kind.value(&element.key),
                // One type: the next end, not included, closes it; none is up to the largest value.
                (None, true) => {
                    let end = all.get(index + 1).filter(|next| next.is_end()).map(|next| before(&next.key));
                    let end = end.unwrap_or_else(|| vec![u8::MAX; element.key.len()]);
                    span(*kind, &element.key, &end)
                }
            }
        } else {
            concatenation(&types, &element.key, element.key_end.as_deref())
        };
        out.push(finish(set, element, key));
    }
    out
}

impl Element {
    fn is_end(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// The value before a big-endian one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    key
}

/// From and to, both included, in big-endian bytes.
pub(super) fn span(kind: Kind, from: &[u8], to: &[u8]) -> Value {
    let kind = kind.swapped();
    if from == to {
        return kind.value(from);
    }
    let differing: Vec<u8> = from.iter().zip(to).map(|(from, to)| !(from ^ to)).collect();
    let low = from.iter().zip(&differing).all(|(from, mask)| from & !mask == 0);
    let high = to.iter().zip(&differing).all(|(to, mask)| to | mask == u8::MAX);
    if from.len() == to.len()
        && low
        && high
        && let Some(prefix) = prefix_len(&differing).and_then(|len| kind.prefix(from, len))
    {
        return prefix;
    }
    json!({"range": [kind.value(from), kind.value(to)]})
}

/// Fields of a key of several types, each padded to four bytes.
fn concatenation(types: &[(String, usize, Kind)], key: &[u8], end: Option<&[u8]>) -> Value {
    let mut at = 0;
    let mut parts = Vec::new();
    for (_, width, kind) in types {
        let Some(from) = key.get(at..at + width) else { break };
        parts.push(match end.and_then(|end| end.get(at..at + width)) {
            Some(to) if from != to => span(*kind, from, to),
            _ => kind.value(from),
        });
        at += width.next_multiple_of(4);
    }
    json!({"concat": parts})
}

/// The element's extras, and what a map has it lead to.
fn finish(set: &Set, element: &Element, key: Value) -> Value {
    let mut extras = serde_json::Map::new();
    if let Some(timeout) = element.timeout {
        extras.insert("timeout".to_owned(), json!(timeout / 1000));
    }
    if let Some(expires) = element.expiration {
        extras.insert("expires".to_owned(), json!(expires / 1000));
    }
    if let Some(comment) = &element.comment {
        extras.insert("comment".to_owned(), json!(comment));
    }
    for expr in &element.exprs {
        if let Value::Object(statement) = statement::simple(expr) {
            extras.extend(statement);
        }
    }
    let key = if extras.is_empty() {
        key
    } else {
        extras.insert("val".to_owned(), key);
        json!({"elem": extras})
    };
    match (&element.data, &element.object) {
        (Some(Data::Verdict(verdict)), _) => json!([key, statement::verdict(verdict)]),
        (Some(Data::Value(value)), _) => {
            let types = key_types(set.data_type.unwrap_or(0), value.len());
            let data = match types.as_slice() {
                [(_, _, kind)] => kind.value(value),
                many => concatenation(many, value, None),
            };
            json!([key, data])
        }
        (None, Some(object)) => json!([key, object]),
        (None, None) => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_become_prefixes_ranges_and_single_values() {
        assert_eq!(
            span(Kind::Ipv4, &[10, 0, 0, 0], &[10, 255, 255, 255]),
            json!({"prefix": {"addr": "10.0.0.0", "len": 8}})
        );
        assert_eq!(span(Kind::Ipv4, &[10, 0, 0, 1], &[10, 0, 0, 2]), json!({"range": ["10.0.0.1", "10.0.0.2"]}));
        assert_eq!(span(Kind::Number, &[0, 80], &[0, 80]), json!(80));
        assert_eq!(span(Kind::Number, &[0, 0], &[0, 255]), json!({"range": [0, 255]}));
        assert_eq!(before(&[1, 0]), [0, 255]);
    }
}
