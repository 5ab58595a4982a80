//! Maps from a field to a value (`dnat to tcp dport map { 80 : 10.0.0.1 }`).
//!
//! Such a statement is a verdict map whose verdicts are the statement with each value: the model
//! needs no further type, and where no element fits the rule does not match, for both.

use std::collections::HashMap;

use serde_json::Value;

use crate::firewall::ruleset::{Family, Operand, Target, VerdictMap};

use super::{expr, family, string};

/// The named maps of all tables, by family, table and name.
pub(super) struct Maps<'v>(HashMap<(Family, &'v str, &'v str), &'v Value>);

/// The maps that rules of one table can name.
pub(super) struct OfTable<'m> {
    pub(super) family: Family,
    table: &'m str,
    maps: &'m Maps<'m>,
}

impl<'v> Maps<'v> {
    pub(super) fn of(items: impl Iterator<Item = &'v Value>) -> Self {
        let maps = items.filter_map(|item| {
            let map = item.get("map")?;
            Some(((family(map)?, string(map, "table")?, string(map, "name")?), map))
        });
        Self(maps.collect())
    }

    pub(super) fn of_table<'m>(&'m self, family: Family, table: &'m str) -> OfTable<'m>
    where
        'v: 'm,
    {
        OfTable { family, table, maps: self }
    }
}

/// The verdict map of a statement with a map in it; `one` makes the statement with one value.
/// `None` where the map is not known, or some value cannot be used.
pub(super) fn lower(map: &Value, maps: &OfTable<'_>, one: impl Fn(&Value) -> Option<Target>) -> Option<Target> {
    let key = expr::fields(map.get("key")?);
    let data = map.get("data")?;
    let none = Vec::new();
    let list = match data.as_str().and_then(|name| name.strip_prefix('@')) {
        Some(name) => {
            let map = maps.maps.0.get(&(maps.family, maps.table, name))?;
            map.get("elem").and_then(Value::as_array).unwrap_or(&none)
        }
        None => data.get("set")?.as_array()?,
    };
    let mut elements = Vec::with_capacity(list.len());
    for element in list {
        let [from, to] = element.as_array()?.as_slice() else { return None };
        elements.push((expr::key(&key, expr::unwrapped(from)), one(expr::unwrapped(to))?));
    }
    // The default is what is left when no other element fits.
    elements.sort_by_key(|(key, _)| key.as_slice() == [Operand::Any]);
    Some(Target::VerdictMap(VerdictMap { key, elements, name: None }))
}
