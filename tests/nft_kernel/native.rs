//! Native rulesets read back in nft's JSON, compared with what `nft -j` itself says.

use reachwhy::host::DumpFormat;
use reachwhy::os::nft::dumps;
use serde_json::Value;

use super::world::{has, inside, run};

const RICH: &str = include_str!("rich.nft");

/// Takes out what is said in another way and means the same.
fn normal(document: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(document).unwrap();
    let mut list: Vec<Value> = document["nftables"].as_array().unwrap()[1..].to_vec();
    for entry in &mut list {
        let Some((kind, body)) = entry.as_object_mut().and_then(|entry| entry.iter_mut().next()) else { continue };
        if let Some(Value::Array(flags)) = body.get_mut("flags") {
            // Older nft leaves this flag out of its list.
            flags.retain(|flag| flag != "dynamic");
        }
        sort_sets(body);
        if kind == "chain" {
            // Older nft leaves the device of a netdev chain out.
            body.as_object_mut().unwrap().remove("dev");
        }
        if let Some(Value::Array(statements)) = body.get_mut("expr") {
            // nft leaves out what its own reader would put in again; we say it.
            let implied = statements.get(1).is_some_and(|next| {
                next.pointer("/reject/type").is_some_and(|kind| kind == "icmp")
                    || next.pointer("/match/left/exthdr").is_some()
            });
            if implied && statements[0].pointer("/match/left/meta/key").is_some_and(|key| key == "nfproto") {
                statements.remove(0);
            }
        }
    }
    list
}

/// The kernel lists a hashed set in any order.
fn sort_sets(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                sort_sets(inner);
                if let (true, Value::Array(elements)) = (key == "set" || key == "elem", inner) {
                    elements.sort_by_key(ToString::to_string);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(sort_sets),
        _ => {}
    }
}

#[test]
fn native_rules_read_back_as_nft_says_them() {
    inside(|| {
        if !has("nft") {
            return;
        }
        run("nft", &["-f", "-"], RICH);
        let theirs = normal(&run("nft", &["-j", "list", "ruleset"], ""));
        let (dumps, unseen) = dumps();
        assert_eq!(unseen, []);
        assert_eq!(dumps.len(), 1);
        assert_eq!(dumps[0].format, DumpFormat::NftJson);
        reachwhy::firewall::parse::dump(&dumps[0]).unwrap();
        let ours = normal(&dumps[0].text);
        let mut wrong = Vec::new();
        for (ours, theirs) in ours.iter().zip(&theirs) {
            if ours != theirs {
                wrong.push(format!("ours   {ours}\ntheirs {theirs}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        assert_eq!(ours.len(), theirs.len());
    });
}
