//! nft JSON in nft's own words, for people to read.

use std::fmt::Write as _;

use serde_json::Value;

/// A statement; what is not known stays JSON.
pub(super) fn statement(value: &Value) -> String {
    let Some((name, inner)) = value.as_object().and_then(|object| object.iter().next()) else { return expr(value) };
    let get = |key: &str| inner.get(key);
    let word = |key: &str| get(key).map(expr).unwrap_or_default();
    match name.as_str() {
        "match" => {
            let (left, right) = (word("left"), word("right"));
            match get("op").and_then(Value::as_str).unwrap_or("==") {
                "==" | "in" => {
                    let masked = get("left").is_some_and(|left| left.get("&").is_some());
                    if masked { format!("{left} == {right}") } else { format!("{left} {right}") }
                }
                op => format!("{left} {op} {right}"),
            }
        }
        "accept" | "drop" | "return" | "continue" | "notrack" => name.clone(),
        "jump" | "goto" => format!("{name} {}", get("target").and_then(Value::as_str).unwrap_or("?")),
        "counter" => match inner.as_str() {
            Some(counter) => format!("counter name {counter}"),
            None => "counter".to_owned(),
        },
        "vmap" => format!("{} vmap {}", word("key"), word("data")),
        "limit" if inner.get("rate").is_some() => {
            let over = if get("inv").and_then(Value::as_bool) == Some(true) { "over " } else { "" };
            let burst = get("burst").and_then(Value::as_u64).map_or(String::new(), |n| format!(" burst {n} packets"));
            format!("limit rate {over}{}/{}{burst}", word("rate"), word("per"))
        }
        "log" => {
            let prefix = get("prefix").and_then(Value::as_str).map_or(String::new(), |p| format!(" prefix \"{p}\""));
            format!("log{prefix}")
        }
        "reject" => match (get("type").and_then(Value::as_str), get("expr").and_then(Value::as_str)) {
            (Some(kind), Some(code)) => format!("reject with {kind} {code}"),
            (Some(kind), None) => format!("reject with {kind}"),
            _ => "reject".to_owned(),
        },
        "mangle" => format!("{} set {}", word("key"), word("value")),
        "queue" => format!("queue to {}", word("num")),
        "ct count" => {
            let over = if get("inv").and_then(Value::as_bool) == Some(true) { "over " } else { "" };
            format!("ct count {over}{}", word("val"))
        }
        "dnat" | "snat" | "masquerade" | "redirect" => {
            let mut out = name.clone();
            if let Some(family) = get("family").and_then(Value::as_str) {
                let _ = write!(out, " {family}");
            }
            if get("addr").is_some() || get("port").is_some() {
                let _ = write!(out, " to {}", word("addr"));
            }
            if get("port").is_some() {
                let _ = write!(out, ":{}", word("port"));
            }
            match get("flags") {
                Some(Value::Array(flags)) => {
                    let flags: Vec<_> = flags.iter().filter_map(Value::as_str).collect();
                    let _ = write!(out, " {}", flags.join(","));
                }
                Some(Value::String(flag)) => {
                    let _ = write!(out, " {flag}");
                }
                _ => (),
            }
            out
        }
        "set" | "map" => {
            let inner: Vec<_> = get("stmt").and_then(Value::as_array).into_iter().flatten().map(statement).collect();
            format!("{} {} {{ {} {} }}", word("op"), word("set"), word("elem"), inner.join(" ")).replace("  }", " }")
        }
        _ => expr(value),
    }
}

/// An expression; what is not known stays JSON.
pub(super) fn expr(value: &Value) -> String {
    let list = |values: &[Value], joint: &str| values.iter().map(expr).collect::<Vec<_>>().join(joint);
    match value {
        Value::String(text) if text.starts_with('@') => return text.clone(),
        Value::String(text) => {
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._:-/+".contains(c));
            return if plain { text.clone() } else { format!("\"{text}\"") };
        }
        Value::Number(n) => return n.to_string(),
        Value::Array(values) => return list(values, ","),
        Value::Null => return String::new(),
        _ => (),
    }
    let Some((name, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return value.to_string();
    };
    let get = |key: &str| inner.get(key).and_then(Value::as_str);
    match name.as_str() {
        "payload" => match (get("protocol"), get("field")) {
            (Some(protocol), Some(field)) => format!("{protocol} {field}"),
            _ => value.to_string(),
        },
        "meta" => match get("key") {
            Some(key @ ("iifname" | "oifname" | "iif" | "oif")) => key.to_owned(),
            Some(key) => format!("meta {key}"),
            None => value.to_string(),
        },
        "ct" => match (get("dir"), get("key")) {
            (Some(dir), Some(key)) => format!("ct {dir} {key}"),
            (None, Some(key)) => format!("ct {key}"),
            _ => value.to_string(),
        },
        "fib" => {
            let flags = inner.get("flags").map(|flags| expr(flags).replace(',', " . ")).unwrap_or_default();
            format!("fib {flags} {}", get("result").unwrap_or_default())
        }
        "prefix" => {
            let len = inner.get("len").and_then(Value::as_u64).unwrap_or(0);
            format!("{}/{len}", inner.get("addr").map(expr).unwrap_or_default())
        }
        "range" => inner.as_array().map_or_else(|| value.to_string(), |ends| list(ends, "-")),
        "concat" => inner.as_array().map_or_else(|| value.to_string(), |parts| list(parts, " . ")),
        "elem" => inner.get("val").map(expr).unwrap_or_default(),
        "set" => match inner {
            Value::Array(elements) => {
                let elements: Vec<_> = elements
                    .iter()
                    .map(|element| match element.as_array().map(Vec::as_slice) {
                        Some([key, to]) => format!("{} : {}", expr(key), statement(to)),
                        _ => expr(element),
                    })
                    .collect();
                format!("{{ {} }}", elements.join(", "))
            }
            one => format!("{{ {} }}", expr(one)),
        },
        "&" | "|" | "^" | "<<" | ">>" => match inner.as_array().map(Vec::as_slice) {
            Some([left, Value::Array(flags)]) => format!("{} {name} ({})", expr(left), list(flags, " | ")),
            Some(parts) => list(parts, &format!(" {name} ")),
            None => value.to_string(),
        },
        "socket" => format!("socket {}", get("key").unwrap_or_default()),
        _ => value.to_string(),
    }
}
