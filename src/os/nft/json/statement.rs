//! Statements that need no register.

use serde_json::{Map, Value, json};

use super::super::expr::{ACCEPT, CONTINUE, DROP, Expr, GOTO, JUMP, RETURN, Verdict};
use super::super::xt::{self, Context, hex};
use super::objects::kind_name;

/// A verdict.
pub(super) fn verdict(verdict: &Verdict) -> Value {
    match (verdict.code, &verdict.chain) {
        (ACCEPT, _) => json!({"accept": null}),
        (DROP, _) => json!({"drop": null}),
        (CONTINUE, _) => json!({"continue": null}),
        (RETURN, _) => json!({"return": null}),
        (JUMP, Some(chain)) => json!({"jump": {"target": chain}}),
        (GOTO, Some(chain)) => json!({"goto": {"target": chain}}),
        (code, _) => json!({"reachwhy-unknown": {"verdict": code}}),
    }
}

/// What has no place in the schema: the expression's name and what is known of it.
pub(super) fn unknown(expr: &Expr) -> Value {
    let data = match expr {
        Expr::Unknown { data, .. } => hex(data),
        other => format!("{other:?}"),
    };
    json!({"reachwhy-unknown": {"name": expr.name(), "data": data}})
}

/// An expression that reads and writes no register.
pub(super) fn simple(expr: &Expr) -> Value {
    match expr {
        Expr::Counter { packets, bytes } => json!({"counter": {"packets": packets, "bytes": bytes}}),
        Expr::Limit { rate, unit, burst, bytes, invert } => limit(*rate, *unit, *burst, *bytes, *invert),
        Expr::Quota { bytes, used, over } => {
            let mut quota = json!({"val": bytes, "val_unit": "bytes"});
            if *used != 0 {
                quota["used"] = json!(used);
                quota["used_unit"] = json!("bytes");
            }
            if *over {
                quota["inv"] = json!(true);
            }
            json!({"quota": quota})
        }
        Expr::Connlimit { count, over: true } => json!({"ct count": {"val": count, "inv": true}}),
        Expr::Connlimit { count, over: false } => json!({"ct count": {"val": count}}),
        Expr::Log { .. } => log(expr),
        Expr::Notrack => json!({"notrack": null}),
        Expr::Objref { kind, name } => json!({kind_name(*kind): name}),
        Expr::Queue { num: Some(num), total, flags, sreg: None } => {
            let last = num.saturating_add(total.saturating_sub(1));
            let mut queue = Map::new();
            queue.insert("num".to_owned(), if *total > 1 { json!({"range": [num, last]}) } else { json!(num) });
            insert_flags(&mut queue, u32::from(*flags), &[(1, "bypass"), (2, "fanout")]);
            json!({"queue": queue})
        }
        Expr::Match { name, rev, info } => {
            let context = Context { v6: false, set_name: &|_| None };
            json!({"xt": {"type": "match", "name": name, "text": xt::match_text(name, *rev, info, &context)}})
        }
        Expr::Target { name, rev, info } => {
            let context = Context { v6: false, set_name: &|_| None };
            json!({"xt": {"type": "target", "name": name, "text": xt::target_text(name, *rev, info, &context)}})
        }
        Expr::Unknown { name, .. } if name == "last" => json!({"last": null}),
        other => unknown(other),
    }
}

/// `flags`: one by itself, several as a list, none not at all.
pub(super) fn insert_flags(into: &mut Map<String, Value>, flags: u32, names: &[(u32, &str)]) {
    let set: Vec<_> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    match set.as_slice() {
        [] => None,
        [one] => into.insert("flags".to_owned(), json!(one)),
        many => into.insert("flags".to_owned(), json!(many)),
    };
}

/// A time unit in seconds.
pub(super) fn per(unit: u64) -> Value {
    match unit {
        1 => json!("second"),
        60 => json!("minute"),
        3600 => json!("hour"),
        86_400 => json!("day"),
        604_800 => json!("week"),
        other => json!(other),
    }
}

fn limit(rate: u64, unit: u64, burst: u32, bytes: bool, invert: bool) -> Value {
    let mut limit = json!({"rate": rate, "burst": burst, "per": per(unit)});
    if bytes {
        let (divisor, name) = match rate {
            0 => (1, "bytes"),
            rate if rate % (1 << 20) == 0 => (1 << 20, "mbytes"),
            rate if rate % (1 << 10) == 0 => (1 << 10, "kbytes"),
            _ => (1, "bytes"),
        };
        limit["rate"] = json!(rate / divisor);
        limit["rate_unit"] = json!(name);
        limit["burst_unit"] = json!("bytes");
    }
    if invert {
        limit["inv"] = json!(true);
    }
    json!({"limit": limit})
}

fn log(expr: &Expr) -> Value {
    let Expr::Log { group, prefix, snaplen, qthreshold, level, flags } = expr else { return unknown(expr) };
    let mut log = Map::new();
    let mut add = |key: &str, value: Value| log.insert(key.to_owned(), value);
    if let Some(prefix) = prefix {
        add("prefix", json!(prefix));
    }
    if let Some(group) = group {
        add("group", json!(group));
    }
    if let Some(snaplen) = snaplen.filter(|snaplen| *snaplen != 0) {
        add("snaplen", json!(snaplen));
    }
    if let Some(threshold) = qthreshold.filter(|threshold| *threshold != 0) {
        add("queue-threshold", json!(threshold));
    }
    let levels = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    if let Some(name) = level.filter(|level| *level != 4).and_then(|level| levels.get(level as usize)) {
        add("level", json!(name));
    }
    let names = [(1, "tcp sequence"), (2, "tcp options"), (4, "ip options"), (8, "skuid"), (0x20, "ether")];
    insert_flags(&mut log, *flags, &names);
    if log.is_empty() { json!({"log": null}) } else { json!({"log": log}) }
}
