//! Named objects and flow tables.

use serde_json::{Value, json};

use super::super::attr::View;
use super::super::objects::{Flowtable, Object};
use super::super::save::protocol_name;
use super::super::xt::hex;
use super::family_name;

/// `NFT_OBJECT_*` in nft's words.
pub(super) fn kind_name(kind: u32) -> String {
    match kind {
        1 => "counter",
        2 => "quota",
        3 => "ct helper",
        4 => "limit",
        5 => "ct count",
        6 => "tunnel",
        7 => "ct timeout",
        8 => "secmark",
        9 => "ct expectation",
        10 => "synproxy",
        _ => return format!("object {kind}"),
    }
    .to_owned()
}

/// One object.
pub(super) fn object(object: &Object) -> Value {
    let mut entry = json!({"family": family_name(object.family), "name": object.name, "table": object.table,
        "handle": object.handle});
    let a = View::new(&object.data);
    match object.kind {
        1 => {
            entry["packets"] = json!(a.u64(2));
            entry["bytes"] = json!(a.u64(1));
        }
        2 => {
            entry["bytes"] = json!(a.u64(1));
            entry["used"] = json!(a.u64(4));
            entry["inv"] = json!(a.u32(2).unwrap_or(0) & 1 != 0);
        }
        3 => {
            entry["type"] = json!(a.string(1));
            entry["protocol"] = json!(protocol_name(a.u8(3).unwrap_or(0)));
            entry["l3proto"] = json!(a.u16(2).map(|family| family_name(family.to_be_bytes()[1])));
        }
        4 => {
            entry["rate"] = json!(a.u64(1));
            entry["per"] = json!(super::statement::per(a.u64(2).unwrap_or(1)));
            entry["burst"] = json!(a.u32(3));
            entry["inv"] = json!(a.u32(5).unwrap_or(0) & 1 != 0);
        }
        _ => entry["reachwhy-unknown"] = json!(hex(&object.data)),
    }
    json!({kind_name(object.kind): entry})
}

/// One flow table.
pub(super) fn flowtable(table: &Flowtable) -> Value {
    json!({"flowtable": {"family": family_name(table.family), "name": table.name, "table": table.table,
        "handle": table.handle, "hook": "ingress", "prio": table.priority, "dev": table.devices}})
}
