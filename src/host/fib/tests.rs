#![allow(clippy::needless_pass_by_value, reason = "`json!` makes a value of its own each time")]

use serde_json::json;

use super::*;

fn route(json: serde_json::Value) -> Route {
    let mut whole = json!({"table": 254, "kind": "unicast", "metric": 0, "protocol": "boot", "scope": "global"});
    whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn rule(json: serde_json::Value) -> PolicyRule {
    let mut whole = json!({"v6": false});
    whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn facts() -> HostFacts {
    HostFacts {
        rules: Some(vec![
            rule(json!({"priority": 0, "action": {"table": 255}})),
            rule(json!({"priority": 32766, "action": {"table": 254}})),
            rule(json!({"priority": 32767, "action": {"table": 253}})),
        ]),
        routes: Some(vec![
            route(json!({"table": 255, "kind": "local", "destination": "192.168.1.2/32", "interface": "eth0"})),
            route(json!({"destination": "0.0.0.0/0", "gateway": "192.168.1.1", "interface": "eth0", "metric": 100})),
            route(
                json!({"destination": "0.0.0.0/0", "gateway": "192.168.1.9", "interface": "eth0", "metric": 50, "dead": true}),
            ),
            route(json!({"destination": "192.168.1.0/24", "interface": "eth0"})),
            route(json!({"table": 7, "kind": "throw", "destination": "10.1.0.0/16"})),
            route(json!({"table": 7, "kind": "prohibit", "destination": "10.0.0.0/8"})),
        ]),
        ..HostFacts::default()
    }
}

fn insert(facts: &mut HostFacts, json: serde_json::Value) {
    facts.rules.as_mut().unwrap().push(rule(json));
}

fn go(facts: &HostFacts, dst: &str, src: Option<&str>) -> RouteExplanation {
    explain_route(facts, dst.parse().unwrap(), src.map(|src| src.parse().unwrap()))
}

#[test]
fn longest_prefix_lowest_living_metric() {
    let facts = facts();
    assert_eq!(go(&facts, "192.168.1.2", None).verdict, RouteVerdict::Local);
    let near = go(&facts, "192.168.1.3", None);
    assert_eq!(near.route.unwrap().gateway, None);
    assert!(near.notes.iter().any(|note| note.contains("longer prefix (/24 over /0)")), "{:?}", near.notes);
    let far = go(&facts, "192.168.2.3", None);
    assert_eq!((far.verdict, far.rule.unwrap().priority), (RouteVerdict::Sent, 32766));
    assert_eq!(far.route.unwrap().metric, 100);
    assert!(far.notes.iter().any(|note| note.contains("marked it dead")), "{:?}", far.notes);
}

#[test]
fn rules_decide_first() {
    let mut facts = facts();
    insert(&mut facts, json!({"priority": 10, "from": "192.168.1.2/32", "action": {"table": 7}}));
    assert_eq!(go(&facts, "10.0.0.1", None).verdict, RouteVerdict::Sent, "no source yet: the rule is not for it");
    let refused = go(&facts, "10.0.0.1", Some("192.168.1.2"));
    assert_eq!((refused.verdict, refused.rule.unwrap().priority), (RouteVerdict::Prohibit, 10));
    let thrown = go(&facts, "10.1.0.1", Some("192.168.1.2"));
    assert_eq!((thrown.verdict, thrown.rule.unwrap().priority), (RouteVerdict::Sent, 32766));
    let connect = explain_connect(&facts, "10.0.0.1".parse().unwrap(), Some("192.168.1.2".parse().unwrap()));
    assert_eq!(connect.verdict.errno(), Some("EACCES"));
    assert!(connect.notes[0].contains("first look"), "{:?}", connect.notes);
}

#[test]
fn marks_inversion_and_suppression() {
    // What wg-quick sets up.
    let mut facts = facts();
    facts.routes.as_mut().unwrap().push(route(json!({"table": 51820, "destination": "0.0.0.0/0", "interface": "wg0"})));
    insert(&mut facts, json!({"priority": 32764, "suppress_prefix_len": 0, "action": {"table": 254}}));
    insert(
        &mut facts,
        json!({"priority": 32765, "not": true, "fwmark": [51820, u32::MAX], "action": {"table": 51820}}),
    );
    assert_eq!(go(&facts, "192.168.1.3", None).route.unwrap().interface.as_deref(), Some("eth0"));
    let tunnel = go(&facts, "9.9.9.9", None);
    assert_eq!(tunnel.route.unwrap().interface.as_deref(), Some("wg0"));
    assert!(tunnel.notes.iter().any(|note| note.contains("suppresses")), "{:?}", tunnel.notes);
    let carrier = Flow { mark: 51820, ..Flow::to("9.9.9.9".parse().unwrap()) };
    assert_eq!(explain_flow(&facts, &carrier).route.unwrap().interface.as_deref(), Some("eth0"));
}

#[test]
fn goto_jumps_forward_and_ends() {
    let mut facts = facts();
    insert(&mut facts, json!({"priority": 5, "to": "9.9.9.9/32", "action": {"goto": 20}}));
    insert(&mut facts, json!({"priority": 10, "action": "blackhole"}));
    insert(&mut facts, json!({"priority": 20, "action": "nop"}));
    insert(&mut facts, json!({"priority": 30, "action": {"goto": 5}}));
    assert_eq!(go(&facts, "9.9.9.9", None).verdict, RouteVerdict::Sent);
    assert_eq!(go(&facts, "9.9.9.8", None).verdict, RouteVerdict::Blackhole);
}

#[test]
fn what_is_not_known_is_not_decided() {
    let mut facts = facts();
    insert(&mut facts, json!({"priority": 10, "uid": [1000, 1000], "action": {"table": 7}}));
    assert_eq!(go(&facts, "9.9.9.9", None).verdict, RouteVerdict::Sent, "table 7 has nothing to say about it");
    let doubtful = go(&facts, "10.0.0.1", None);
    assert_eq!(doubtful.verdict, RouteVerdict::Unknown);
    assert!(doubtful.notes.iter().any(|note| note.contains("user id")), "{:?}", doubtful.notes);
    let known = Flow { uid: Some(0), ..Flow::to("10.0.0.1".parse().unwrap()) };
    assert_eq!(explain_flow(&facts, &known).verdict, RouteVerdict::Sent);
    assert_eq!(go(&HostFacts::default(), "9.9.9.9", None).verdict, RouteVerdict::Unknown);
}

#[test]
fn nothing_covers_it() {
    let mut facts = facts();
    facts.routes.as_mut().unwrap().retain(|route| route.destination.prefix() > 0);
    let lost = go(&facts, "9.9.9.9", None);
    assert_eq!((lost.verdict.errno(), &lost.route, &lost.rule), (Some("ENETUNREACH"), &None, &None));
    assert_eq!(lost.notes, ["table main has no route for it"]);
}

#[test]
fn shown_as_ip_shows_it() {
    let shown = |json| route(json).to_string();
    assert_eq!(
        shown(
            json!({"destination": "0.0.0.0/0", "gateway": "192.168.1.1", "interface": "eth0", "protocol": "dhcp", "metric": 100})
        ),
        "default via 192.168.1.1 dev eth0 proto dhcp metric 100"
    );
    assert_eq!(shown(json!({"kind": "blackhole", "destination": "192.168.2.3/32"})), "blackhole 192.168.2.3");
    assert_eq!(
        rule(json!({"priority": 5, "not": true, "fwmark": [1, 255], "iif": "eth0", "action": {"table": 100}}))
            .to_string(),
        "5: not from all fwmark 0x1/0xff iif eth0 lookup 100"
    );
}
