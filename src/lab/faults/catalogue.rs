//! Every fault there is, layer by layer.

use super::{Change, Fault, Step};
use crate::lab::ServiceSpec;

/// The API of every scenario.
pub fn api(args: &[&str]) -> ServiceSpec {
    let args: Vec<&str> = ["http"].iter().chain(args).copied().collect();
    ServiceSpec::new("data-api", "api", &args)
}

/// The same, on the server of the routed pair.
pub fn server(args: &[&str]) -> ServiceSpec {
    ServiceSpec { host: "server".to_owned(), ..api(args) }
}

pub(super) fn run(on: &str, command: &str) -> Step {
    Step { on: on.to_owned(), change: Change::Command(command.to_owned()) }
}

pub(super) fn restart(args: &[&str]) -> Vec<Step> {
    let on = "api".to_owned();
    vec![
        Step { on: on.clone(), change: Change::Stop("data-api".to_owned()) },
        Step { on, change: Change::Start(api(args)) },
    ]
}

fn service(change: fn(String) -> Change) -> Step {
    Step { on: "api".to_owned(), change: change("data-api".to_owned()) }
}

/// A stateless firewall for the API, as people write their first one: a rule for requests and one for
/// replies. Ping and loopback are let through, so that only the API is in question.
pub const API_PAIR: &str = "\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -p icmp -j ACCEPT
-A OUTPUT -p tcp -m tcp --sport 22 -j ACCEPT
-A OUTPUT -p tcp -m tcp --sport 8080 -j ACCEPT
COMMIT
";

/// The same with the half for replies forgotten.
pub const API_REPLY_MISSING: &str = "\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -p icmp -j ACCEPT
-A OUTPUT -p tcp -m tcp --sport 22 -j ACCEPT
COMMIT
";

/// Every fault.
pub fn all() -> Vec<Fault> {
    let mut all = links_and_neighbours();
    all.extend(routes());
    all.extend(firewalls());
    all.extend(services());
    all.extend(super::upper::all());
    all
}

/// The fault of this name.
pub fn named(name: &str) -> Option<Fault> {
    all().into_iter().find(|fault| fault.name == name)
}

#[allow(clippy::too_many_arguments, reason = "a row of the table of faults, not a function with options")]
pub(super) fn fault(
    name: &'static str,
    cause: &'static str,
    cause_alone: &'static [&'static str],
    topology: &'static str,
    summary: &'static str,
    lesson: &'static str,
    inject: Vec<Step>,
    undo: Vec<Step>,
) -> Fault {
    let layer = match cause.split('.').next().unwrap_or_default() {
        "addr" => "address",
        "neigh" => "neighbour",
        "fw" => "firewall",
        "tcp" | "udp" => "transport",
        "app" => "application",
        "lb" => "balancer",
        "link" => "link",
        "route" => "route",
        "path" => "path",
        "dns" => "dns",
        _ => "tls",
    };
    Fault { name, summary, layer, cause, cause_alone, topology, lesson, inject, undo }
}

/// One command in, one command out.
#[allow(clippy::too_many_arguments, reason = "as fault")]
fn simple(
    name: &'static str,
    cause: &'static str,
    cause_alone: &'static [&'static str],
    topology: &'static str,
    summary: &'static str,
    lesson: &'static str,
    on: &str,
    inject: &str,
    undo: &str,
) -> Fault {
    fault(name, cause, cause_alone, topology, summary, lesson, vec![run(on, inject)], vec![run(on, undo)])
}

fn links_and_neighbours() -> Vec<Fault> {
    let waits = |on: &str, dev: &str| Step { on: on.to_owned(), change: Change::Wait(dev.to_owned()) };
    // Both ends know each other from before; a fault of address resolution shows when that has aged away.
    // The server's entry goes too: its own request for the client would tell the client where it is.
    let forget = vec![run("business", "ip neigh flush dev eth0"), run("api", "ip neigh flush dev eth0")];
    // What is not settled from the client when nobody answers ARP.
    let silent: &[&str] = &["neigh.no_reply", "path.host_down", "neigh.arp_filtered"];
    vec![
        fault(
            "link-down",
            "link.down",
            &["link.down"],
            "lan",
            "the client's interface is administratively down",
            "an interface that is down takes its routes with it: connect fails at once, unreachable",
            vec![run("business", "ip link set eth0 down")],
            vec![run("business", "ip link set eth0 up"), waits("business", "eth0")],
        ),
        fault(
            "no-carrier",
            "link.no_carrier",
            &["link.no_carrier"],
            "lan",
            "the client's interface is up, but its cable is dead (the switch's port is down)",
            "up and no carrier: ARP requests never leave, and connect waits about 3 s",
            vec![run("switch", "ip link set business down")],
            vec![run("switch", "ip link set business up"), waits("business", "eth0")],
        ),
        fault(
            "neighbour-silent",
            "neigh.arp_filtered",
            silent,
            "lan",
            "the server is up and hears ARP, but does not answer it",
            "three ARP requests, no reply, then no route to host: the server's own view tells this from a server that is gone",
            [vec![run("api", "sysctl -w net.ipv4.conf.all.arp_ignore=8")], forget.clone()].concat(),
            [vec![run("api", "sysctl -w net.ipv4.conf.all.arp_ignore=0")], forget.clone()].concat(),
        ),
        fault(
            "server-link-down",
            "link.down",
            silent,
            "lan",
            "the server's interface is down",
            "from the client it looks like neighbour-silent; the server's own facts name it",
            [vec![run("api", "ip link set eth0 down")], forget.clone()].concat(),
            [vec![run("api", "ip link set eth0 up"), waits("api", "eth0")], forget].concat(),
        ),
        simple(
            "wrong-mac",
            "neigh.wrong_mac",
            &["neigh.wrong_mac"],
            "lan",
            "the client has a fixed, wrong link-layer address for the server",
            "the request leaves for a station that is not there: silence, though ARP would give the right answer",
            "business",
            "ip neigh replace 192.168.1.3 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
            "ip neigh del 192.168.1.3 dev eth0",
        ),
    ]
}

fn routes() -> Vec<Fault> {
    let pair = "routed-pair";
    let default = "ip route add default via 192.168.1.1 dev eth0";
    vec![
        simple(
            "no-route",
            "route.missing",
            &["route.missing"],
            pair,
            "the client has no route to the server's network",
            "network is unreachable, at once, and nothing on the wire",
            "client",
            "ip route del default",
            default,
        ),
        simple(
            "route-blackhole",
            "route.blackhole",
            &["route.blackhole"],
            pair,
            "the client has a blackhole route for the server",
            "invalid argument, at once: the errno is the route's kind",
            "client",
            "ip route add blackhole 192.168.2.3",
            "ip route del blackhole 192.168.2.3",
        ),
        simple(
            "route-unreachable",
            "route.unreachable",
            &["route.unreachable"],
            pair,
            "the client has an unreachable route for the server",
            "no route to host, at once, and no ARP: a dead neighbour would take 3 s",
            "client",
            "ip route add unreachable 192.168.2.3",
            "ip route del unreachable 192.168.2.3",
        ),
        simple(
            "route-prohibit",
            "route.prohibit",
            &["route.prohibit"],
            pair,
            "the client has a prohibit route for the server",
            "permission denied, at once, as root too",
            "client",
            "ip route add prohibit 192.168.2.3",
            "ip route del prohibit 192.168.2.3",
        ),
        simple(
            "gateway-silent",
            "route.gateway_silent",
            &["route.gateway_silent", "route.wrong_gateway"],
            pair,
            "the client's default route leads to a gateway that is not there",
            "ARP for the gateway goes unanswered: the fault is near, though the target is far",
            "client",
            "ip route replace default via 192.168.1.77 dev eth0",
            "ip route replace default via 192.168.1.1 dev eth0",
        ),
        simple(
            "no-return-route",
            "route.return_missing",
            &["fw.filtered", "route.return_missing", "tcp.timeout"],
            pair,
            "the server has no route back to the client",
            "the request arrives and its answer cannot leave: the same silence as a drop, from the client",
            "server",
            "ip route del default",
            "ip route add default via 192.168.2.1 dev eth0",
        ),
        simple(
            "forwarding-off",
            "route.forwarding_off",
            &["fw.filtered", "route.forwarding_off", "tcp.timeout"],
            pair,
            "the router does not forward",
            "the gateway answers ARP and ping and takes the packets, and there they end",
            "router",
            "sysctl -w net.ipv4.ip_forward=0",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        simple(
            "router-forward-drop",
            "fw.path_drop",
            &["fw.filtered", "fw.path_drop", "tcp.timeout"],
            pair,
            "the router's firewall drops what it should forward (policy DROP, as Docker sets it)",
            "silence past the gateway, while the server never sees the request",
            "router",
            "iptables -P FORWARD DROP",
            "iptables -P FORWARD ACCEPT",
        ),
    ]
}

fn firewalls() -> Vec<Fault> {
    let silence: &[&str] = &["fw.filtered", "tcp.timeout"];
    let refused: &[&str] = &["fw.server_input_reject", "fw.path_reject", "fw.filtered"];
    let refused_like_closed: &[&str] = &["tcp.port_closed", "fw.server_input_reject", "fw.path_reject"];
    let input = "INPUT -p tcp --dport 8080 -j";
    let lan = "lan";
    let reject = |name, summary, lesson, with: &str, alone| {
        let rule = format!("{input} REJECT --reject-with {with}");
        simple(
            name,
            "fw.server_input_reject",
            alone,
            lan,
            summary,
            lesson,
            "api",
            &format!("iptables -A {rule}"),
            &format!("iptables -D {rule}"),
        )
    };
    let drop = |name, cause, alone, summary, lesson, on, rule: &str| {
        simple(
            name,
            cause,
            alone,
            lan,
            summary,
            lesson,
            on,
            &format!("iptables -A {rule}"),
            &format!("iptables -D {rule}"),
        )
    };
    vec![
        drop(
            "client-output-drop",
            "fw.client_output_drop",
            &["fw.client_output_drop"],
            "the client's own firewall drops the request",
            "timeout with nothing on the wire, not even ARP",
            "business",
            "OUTPUT -p tcp --dport 8080 -j DROP",
        ),
        drop(
            "client-output-reject",
            "fw.client_output_reject",
            &["fw.client_output_reject"],
            "the client's own firewall rejects the request",
            "refused at once, though nothing left the host",
            "business",
            "OUTPUT -p tcp --dport 8080 -j REJECT",
        ),
        simple(
            "client-input-drop",
            "fw.client_input_drop",
            &["fw.client_input_drop"],
            lan,
            "the client's firewall drops every answer (policy DROP, no rule for replies)",
            "the answer is on the client's wire, and still the request is repeated",
            "business",
            "iptables -P INPUT DROP",
            "iptables -P INPUT ACCEPT",
        ),
        drop(
            "server-input-drop",
            "fw.server_input_drop",
            silence,
            "a rule on the server drops the request",
            "silence: the server's wire has the request, its TCP has not",
            "api",
            &format!("{input} DROP"),
        ),
        simple(
            "server-input-policy",
            "fw.server_input_drop",
            silence,
            lan,
            "the server's INPUT policy is DROP and no rule lets the request in",
            "no rule dropped it: the policy did, which is what is left when no rule matches",
            "api",
            "iptables -P INPUT DROP",
            "iptables -P INPUT ACCEPT",
        ),
        reject(
            "server-input-reject",
            "a rule on the server answers the request with ICMP port unreachable",
            "refused, by ICMP and not by a reset: a firewall's answer, not a closed port's",
            "icmp-port-unreachable",
            refused,
        ),
        reject(
            "server-input-reset",
            "a rule on the server answers the request with a reset",
            "from the client it cannot be told from a closed port; on the server it can",
            "tcp-reset",
            refused_like_closed,
        ),
        reject(
            "server-input-admin-prohibited",
            "a rule on the server answers: administratively prohibited",
            "no route to host though there is one: the ICMP code says who refused",
            "icmp-admin-prohibited",
            refused,
        ),
        reject(
            "server-input-host-prohibited",
            "a rule on the server answers: host prohibited (firewalld's way)",
            "no route to host though there is one: the ICMP code says who refused",
            "icmp-host-prohibited",
            refused,
        ),
        drop(
            "server-output-drop",
            "fw.server_output_drop",
            silence,
            "a rule on the server drops the reply",
            "the request is accepted and its answer is not: look at OUTPUT too",
            "api",
            "OUTPUT -p tcp --sport 8080 -j DROP",
        ),
        fault(
            "reply-rule-missing",
            "fw.reply_rule_missing",
            silence,
            lan,
            "the server's stateless firewall lacks the --sport half of its rule pair",
            "a stateless rule pair needs both halves: --dport in, --sport out",
            vec![Step { on: "api".to_owned(), change: Change::Rules(API_REPLY_MISSING.to_owned()) }],
            vec![Step { on: "api".to_owned(), change: Change::Rules(API_PAIR.to_owned()) }],
        ),
    ]
}

fn services() -> Vec<Fault> {
    let lan = "lan";
    let http = |name, cause, alone, summary, lesson, answer: &'static str| {
        fault(name, cause, alone, lan, summary, lesson, restart(&["--answer", answer]), restart(&[]))
    };
    let closed: &[&str] = &["tcp.port_closed", "tcp.not_listening", "tcp.loopback_only", "tcp.wrong_address"];
    vec![
        fault(
            "port-closed",
            "tcp.not_listening",
            closed,
            lan,
            "the service is not running",
            "refused by a reset: the host is well and nobody is at the port",
            vec![service(Change::Stop)],
            vec![Step { on: "api".to_owned(), change: Change::Start(api(&[])) }],
        ),
        fault(
            "loopback-only",
            "tcp.loopback_only",
            closed,
            lan,
            "the service listens on 127.0.0.1 alone",
            "it works on the server itself and is refused from everywhere else",
            restart(&["--listen", "127.0.0.1:8080"]),
            restart(&[]),
        ),
        fault(
            "wrong-address",
            "tcp.wrong_address",
            closed,
            lan,
            "the service listens on another of the server's addresses",
            "the server has two addresses, and the service has bound the other",
            [vec![run("api", "ip address add 192.168.1.33/24 dev eth0")], restart(&["--listen", "192.168.1.33:8080"])]
                .concat(),
            [restart(&[]), vec![run("api", "ip address del 192.168.1.33/24 dev eth0")]].concat(),
        ),
        fault(
            "server-stuck",
            "tcp.server_stuck",
            &["app.no_response", "tcp.server_stuck"],
            lan,
            "the service's process is stopped",
            "the kernel still takes the connection and acknowledges the request; nobody reads it",
            vec![service(Change::Pause)],
            vec![service(Change::Resume)],
        ),
        http(
            "no-response",
            "app.no_response",
            &["app.no_response", "tcp.server_stuck"],
            "the service takes the request and never answers",
            "the network is well: the request was read, and the program is what hangs",
            "hang",
        ),
        http(
            "http-500",
            "app.http_server_error",
            &["app.http_server_error"],
            "the service answers 500",
            "the network did all it can: the answer itself is the fault",
            "500",
        ),
        http(
            "http-404",
            "app.http_client_error",
            &["app.http_client_error"],
            "the service answers 404",
            "the network did all it can: the path is asked for wrongly",
            "404",
        ),
        http(
            "reset",
            "tcp.reset_by_server",
            &["tcp.reset_by_server", "app.reset_mid_response"],
            "the service resets the connection instead of answering",
            "the connection is made, the request arrives, and then comes a reset: a program's doing, not a closed port's",
            "reset",
        ),
        http(
            "reset-mid-response",
            "app.reset_mid_response",
            &["app.reset_mid_response", "tcp.reset_by_server"],
            "the service resets the connection in the middle of its answer",
            "the answer begins and is torn off: look at what the program does, not at the network",
            "torn",
        ),
        http(
            "truncated",
            "app.truncated",
            &["app.truncated"],
            "the service closes before its answer is complete",
            "the announced length and the octets that came differ",
            "truncated",
        ),
        http(
            "not-http",
            "app.not_http",
            &["app.not_http"],
            "the service speaks something that is not HTTP",
            "the port is open, and another program than expected is behind it",
            "garbage",
        ),
    ]
}
