//! Faults that the lab's catalogue does not hold, because they take a sender's offload switched off, a shaper, a
//! real proxy: injected with the system's own tools in a lab, beside their look-alikes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use reachwhy::doctor::{Diagnosis, Verdict};
use reachwhy::lab::faults::Change;
use reachwhy::lab::rules::Firewall;
use reachwhy::lab::{Lab, LabError, ServiceSpec, faults, topology};

const REACHWHY: &str = env!("CARGO_BIN_EXE_reachwhy");

fn skip(why: &str) {
    assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {why}");
    eprintln!("SKIPPED: {why}");
}

/// A lab, and who asks whom in it.
struct Site {
    lab: Lab,
    from: &'static str,
    to: &'static str,
    target: String,
    environment: Vec<(&'static str, &'static str)>,
}

impl Site {
    fn routed(answer: &str) -> Result<Self, LabError> {
        let lab = Lab::build_with(&topology::named("routed-pair").unwrap(), Path::new(REACHWHY))?;
        lab.start_service(&faults::server(&["--answer", answer]))?;
        let target = "http://192.168.2.3:8080/data".to_owned();
        Ok(Self { lab, from: "client", to: "server", target, environment: Vec::new() })
    }

    fn lan(name: &str, answer: &str) -> Result<Self, LabError> {
        let lab = Lab::build_with(&topology::named(name).unwrap(), Path::new(REACHWHY))?;
        lab.start_service(&faults::api(&["--answer", answer]))?;
        let target = "http://192.168.1.3:8080/data".to_owned();
        Ok(Self { lab, from: "business", to: "api", target, environment: Vec::new() })
    }

    /// A command of the system's own tools in a host.
    fn run(&self, host: &str, command: &str) {
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().unwrap());
        program.args(words);
        let output = self.lab.in_host(host, || program.output()).unwrap();
        let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(output.status.success(), "{host}# {command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn change(&self, host: &str, change: Change) {
        self.lab.step(&faults::Step { on: host.to_owned(), change }).unwrap();
    }

    fn file(&self, host: &str, name: &'static str, text: &str) {
        self.change(host, Change::File { name, text: text.to_owned() });
    }

    fn doctor(&self, both: bool) -> Diagnosis {
        let mut command = self.lab.program();
        command.args(["--json", "doctor", &self.target, "--from", &format!("netns:{}", self.from)]);
        if both {
            command.args(["--to", &format!("netns:{}", self.to)]);
        }
        command.env_remove("http_proxy").env_remove("no_proxy").envs(self.environment.iter().copied());
        let output = command.output().expect("the doctor runs");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The doctor's codes from both ends and from the client alone; `ok` where nothing is wrong.
    fn named(&self, what: &str, both: &[&str], alone: &[&str]) {
        for (ends, expect) in [(true, both), (false, alone)] {
            let found = self.doctor(ends);
            let code = match (&found.root_cause, found.verdict) {
                (Some(cause), _) => cause.code.as_str(),
                (None, Verdict::Ok) => "ok",
                (None, _) => "unknown",
            };
            let whole = serde_json::to_string_pretty(&found).unwrap();
            assert!(expect.contains(&code), "{what}, both ends {ends}: {code}, not one of {expect:?}\n{whole}");
        }
    }
}

/// Runs a test in a thread of its own: a lab takes its thread's namespaces with it.
fn in_lab(test: impl FnOnce() -> Result<(), LabError> + Send + 'static) {
    match std::thread::spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
        Ok(()) => {}
        Err(LabError::Isolate(error)) => skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

fn has(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip(&format!("there is no `{program}`"));
    }
    found
}

const NO_ICMP: &str = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p icmp -j DROP\nCOMMIT\n";

#[test]
fn large_packets_that_vanish_are_told_from_a_path_that_says_so() {
    in_lab(|| {
        let site = Site::routed("octets=20000")?;
        site.named("healthy", &["ok"], &["ok"]);
        // Segments of the path's size leave only where no offload makes them larger.
        site.run("server", "ip link set eth0 gso_max_segs 1");
        site.run("router", "ip link set eth0 mtu 1400");
        site.named("a smaller link whose router says so", &["ok"], &["ok"]);
        // What the server learnt of the path a moment ago would hide the fault.
        site.run("server", "ip route flush cache");
        site.run("server", "ip route replace default via 192.168.2.1 dev eth0");
        site.lab.set_firewall("router", Firewall::v4(NO_ICMP))?;
        let found = site.doctor(true);
        let cause = found.root_cause.as_ref().expect("a cause");
        assert_eq!(cause.code.as_str(), "path.mtu_blackhole", "{found:#?}");
        let fix = cause.fix.iter().find(|fix| !fix.command.is_empty()).expect("a fix");
        site.run("server", &fix.command);
        assert_eq!(site.doctor(true).verdict, Verdict::Ok, "the printed fix does not help: {}", fix.command);
        site.run("server", &fix.undo);
        site.named("black hole", &["path.mtu_blackhole"], &["path.mtu_blackhole", "app.no_response", "app.slow"]);
        Ok(())
    });
}

#[test]
fn a_narrow_link_is_told_from_a_slow_service() {
    in_lab(|| {
        let site = Site::lan("lan", "octets=120000")?;
        site.run("api", "ip link set eth0 gso_max_segs 1");
        site.run("api", "tc qdisc add dev eth0 root tbf rate 256kbit burst 2000 limit 60000");
        site.named("a narrow link", &["path.slow"], &["path.slow"]);
        Ok(())
    });
}

#[test]
fn a_full_buffer_is_told_from_a_service_that_says_nothing() {
    in_lab(|| {
        let mut site = Site::lan("lan", "ok")?;
        site.lab.step(&faults::Step { on: "api".to_owned(), change: Change::Stop("data-api".to_owned()) })?;
        site.lab.in_host("api", || std::fs::write("/proc/sys/net/ipv4/tcp_rmem", "2304 2304 2304"))?.unwrap();
        site.lab.start_service(&faults::api(&["--answer", "deaf"]))?;
        site.named("a small request that is not read", &["app.no_response"], &["app.no_response"]);
        site.target = format!("http://192.168.1.3:8080/{}", "a".repeat(6000));
        site.named("a buffer that stays full", &["tcp.zero_window"], &["tcp.zero_window"]);
        Ok(())
    });
}

#[test]
fn two_stations_for_one_address_have_their_names() {
    in_lab(|| {
        let site = Site::lan("lan-with-dns", "ok")?;
        site.run("dns", "ip addr add 192.168.1.3/24 dev eth0");
        site.named("two hosts with one address", &["addr.duplicate"], &["addr.duplicate"]);
        site.run("dns", "ip addr del 192.168.1.3/24 dev eth0");
        site.named("one again", &["ok"], &["ok"]);
        Ok(())
    });
    in_lab(|| {
        let mut site = Site::lan("lan-with-dns", "ok")?;
        site.target = "http://192.168.1.100:8080/data".to_owned();
        site.run("dns", "ip addr add 192.168.1.100/32 dev eth0");
        site.run("api", "ip addr add 192.168.1.100/32 dev lo");
        let alone = &["addr.duplicate", "lb.arp_flux", "lb.vip_conflict"];
        site.named("a real server answers for the virtual address", &["lb.arp_flux"], alone);
        site.run("api", "ip addr del 192.168.1.100/32 dev lo");
        site.run("api", "ip addr add 192.168.1.100/32 dev eth0");
        site.named("two machines have the virtual address", &["lb.vip_conflict"], alone);
        Ok(())
    });
}

#[test]
fn proxy_variables_are_seen_through() {
    in_lab(|| {
        let mut site = Site::lan("lan-with-dns", "ok")?;
        site.environment = vec![("http_proxy", "http://192.168.1.53:3128")];
        site.named("a proxy that is not there", &["app.proxy_env"], &["app.proxy_env"]);
        site.environment.push(("no_proxy", "localhost,192.168.1.0/24"));
        site.named("an exception for the target", &["ok"], &["ok"]);
        site.environment = vec![("http_proxy", "http://192.168.1.3:8080")];
        // The lab's service takes no whole address as its path, and says 404.
        site.named("a proxy that does not serve it", &["app.proxy_env"], &["app.proxy_env"]);
        Ok(())
    });
}

#[test]
fn names_lead_to_the_wrong_place_in_different_ways() {
    in_lab(|| {
        let mut site = Site::lan("lan-dual", "ok")?;
        site.target = "http://api6.lab:8080/data".to_owned();
        site.file("business", "hosts", "127.0.0.1 localhost\nfd00:1::77 api6.lab\n192.168.1.3 api6.lab\n");
        site.named("IPv6 is tried first and broken", &["dns.v6_preferred_broken"], &["dns.v6_preferred_broken"]);
        site.file("business", "hosts", "127.0.0.1 localhost\n192.168.1.3 api6.lab\n");
        site.named("IPv4 alone", &["ok"], &["ok"]);
        Ok(())
    });
    in_lab(|| {
        let mut site = Site::lan("lan-with-dns", "ok")?;
        site.target = "http://api.lab:8080/data".to_owned();
        let dns = |host: &str, name: &str, records: &[&str]| {
            let args: Vec<&str> =
                std::iter::once("dns").chain(records.iter().flat_map(|record| ["--record", record])).collect();
            ServiceSpec::new(name, host, &args)
        };
        site.lab.start_service(&dns(
            "dns",
            "one",
            &["api.lab. A 192.168.1.77", "api.lab.wrong.lab. A 192.168.1.77"],
        ))?;
        site.lab.start_service(&dns("api", "two", &["api.lab. A 192.168.1.3"]))?;
        site.file("business", "resolv.conf", "nameserver 192.168.1.53\nnameserver 192.168.1.3\n");
        let disagree = &["dns.servers_disagree"];
        site.named("two servers with two answers", disagree, disagree);
        site.file("business", "resolv.conf", "nameserver 192.168.1.3\nnameserver 192.168.1.53\n");
        site.named("the right one first works, and is only odd", &["ok"], &["ok"]);
        site.lab.step(&faults::Step { on: "api".to_owned(), change: Change::Stop("two".to_owned()) })?;
        let both = dns("api", "three", &["api.lab. A 192.168.1.3", "api.lab.wrong.lab. A 192.168.1.77"]);
        site.lab.start_service(&both)?;
        site.file("business", "resolv.conf", "nameserver 192.168.1.3\nsearch wrong.lab\noptions ndots:5\n");
        let search = &["dns.search_domain"];
        site.named("a search domain makes another name of it", search, search);
        Ok(())
    });
}

/// A program that runs in a host until the test is over.
fn daemon(site: &Site, host: &str, program: &str, arguments: &[&str]) -> impl Sized + use<> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = site.lab.spawn(host, command).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    daemon
}

#[test]
fn real_proxies_speak_for_those_behind_them() {
    if !has("haproxy", "-v") || !has("nginx", "-v") {
        return;
    }
    in_lab(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let mut site = Site::lan("lan-with-dns", "ok")?;
        site.target = "http://192.168.1.3:8081/data".to_owned();
        let backend = ServiceSpec { host: "dns".to_owned(), ..faults::api(&["--listen", "0.0.0.0:9000"]) };
        let backend = ServiceSpec { name: "backend".to_owned(), ..backend };
        let haproxy = file(
            "haproxy.cfg",
            "defaults\n mode http\n timeout connect 1s\n timeout client 5s\n timeout server 1s\n\
             frontend f\n bind 0.0.0.0:8081\n default_backend b\n\
             backend b\n server s 192.168.1.53:9000 check inter 200ms fall 1 rise 1\n",
        );
        {
            let _haproxy = daemon(&site, "api", "haproxy", &["-db", "-f", &haproxy]);
            site.named("haproxy without a backend", &["lb.backend_down"], &["lb.backend_down"]);
            site.lab.start_service(&backend)?;
            std::thread::sleep(Duration::from_millis(800));
            site.named("haproxy with its backend", &["ok"], &["ok"]);
            site.change("dns", Change::Stop("backend".to_owned()));
        }
        let nginx = file(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {0}/nginx.pid; error_log /dev/null;\nevents {{}}\n\
                 http {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c;\n\
                 uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
                 server {{ listen 8081; location / {{ proxy_pass http://192.168.1.53:9000; proxy_connect_timeout 1s;\n\
                 proxy_read_timeout 1s; }} }} }}\n",
                folder.path().display()
            ),
        );
        let _nginx = daemon(&site, "api", "nginx", &["-c", &nginx]);
        site.named("nginx before a closed port", &["app.bad_gateway"], &["app.bad_gateway"]);
        site.lab.start_service(&backend)?;
        site.named("nginx before a service", &["ok"], &["ok"]);
        site.change("dns", Change::Stop("backend".to_owned()));
        let broken = ServiceSpec {
            args: [&backend.args[..], &["--answer".to_owned(), "500".to_owned()]].concat(),
            ..backend.clone()
        };
        site.lab.start_service(&broken)?;
        let own = &["app.http_server_error"];
        site.named("the service's own error by way of nginx", own, own);
        site.change("dns", Change::Stop("backend".to_owned()));
        let hanging =
            ServiceSpec { args: [&backend.args[..], &["--answer".to_owned(), "hang".to_owned()]].concat(), ..backend };
        site.lab.start_service(&hanging)?;
        site.named("nginx before a service that hangs", &["app.bad_gateway"], &["app.bad_gateway"]);
        Ok(())
    });
}
