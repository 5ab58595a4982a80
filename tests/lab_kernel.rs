//! The lab on the real kernel: every topology carries packets, every service answers, every fault does
//! what it says, and nothing is left behind. All of it in namespaces that lead nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reachwhy::lab::scenarios::{self, Scenario};
use reachwhy::lab::service::ServiceSpec;
use reachwhy::lab::topology::{self, Topology};
use reachwhy::lab::{Lab, LabError, faults};

const REACHWHY: &str = env!("CARGO_BIN_EXE_reachwhy");
/// Long enough for an answer inside one machine, short enough for silence.
const WAIT: Duration = Duration::from_millis(900);

/// Builds a lab in a thread of its own and does `work` with it; skips, loudly, where the machine cannot.
fn in_lab(topology: &Topology, work: impl FnOnce(&Lab) + Send) {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| match Lab::build_with(topology, Path::new(REACHWHY)) {
            Ok(lab) => work(&lab),
            Err(LabError::Isolate(error)) => skip(&error.to_string()),
            Err(error) => panic!("{}: {error}", topology.name),
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn skip(why: &str) {
    assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {why}");
    eprintln!("SKIPPED: {why}");
}

/// What a client sees of `GET path`.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A status and whether the body is as long as announced.
    Status(u16, bool),
    /// The connection was not made, by this errno, at once.
    Errno(i32),
    /// No answer to the connection.
    Silence,
    /// Connected, asked, and nothing came.
    NoAnswer,
    /// Connected, asked, and reset.
    Reset,
    /// Connected, asked, and something else came.
    Other,
}

fn get(ip: IpAddr, port: u16, path: &str) -> Seen {
    let mut stream = match TcpStream::connect_timeout(&SocketAddr::new(ip, port), WAIT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::TimedOut => return Seen::Silence,
        Err(error) => return Seen::Errno(error.raw_os_error().unwrap_or(0)),
    };
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    if let Err(error) = stream.write_all(request.as_bytes()) {
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
        return Seen::Reset;
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Seen::NoAnswer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Seen::Reset,
        Err(error) => panic!("{error}"),
        Ok(_) => {}
    }
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return Seen::Other };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let announced = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    Seen::Status(status, announced.is_none_or(|length| length == body.len()))
}

#[test]
fn every_topology_carries_tcp_from_end_to_end() {
    for topology in topology::all() {
        in_lab(&topology, |lab| {
            let (services, from, to, _) = scenarios::healthy(&topology);
            for service in &services {
                lab.start_service(service).unwrap();
            }
            let ip = topology.address(to).unwrap();
            assert_eq!(
                lab.in_host(from, || get(ip, 8080, "/data")).unwrap(),
                Seen::Status(200, true),
                "{}",
                topology.name
            );
        });
    }
}

#[test]
fn the_longest_chain_forwards_and_pings_every_hop() {
    let topology = topology::chain(12);
    in_lab(&topology, |lab| {
        lab.start_service(&ServiceSpec::new("echo", "server", &["echo"])).unwrap();
        for host in &topology.hosts {
            for address in topology.addresses(&host.name) {
                assert!(lab.in_host("client", || ping(address.ip())).unwrap(), "no reply from {address}");
            }
        }
        let ip = topology.address("server").unwrap();
        assert_eq!(lab.in_host("client", || udp_echo(ip, 7)).unwrap().unwrap(), b"hello");
    });
}

/// One ICMP echo by a datagram socket, as an ordinary ping does.
fn ping(ip: IpAddr) -> bool {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = match ip {
        IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)),
        IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::ICMPV6)),
    }
    .unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let kind = if ip.is_ipv4() { 8 } else { 128 };
    socket.send_to(&[kind, 0, 0, 0, 0, 0, 0, 1, b'x'], &SocketAddr::new(ip, 0).into()).is_ok()
        && (&socket).read(&mut [0; 64]).is_ok()
}

fn udp_echo(ip: IpAddr, port: u16) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.send_to(b"hello", (ip, port))?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

#[test]
fn ipv6_works_at_once_where_it_is_given_and_is_off_elsewhere() {
    in_lab(&topology::lan_dual(), |lab| {
        lab.start_service(&ServiceSpec::new("v6", "api", &["http", "--listen", "[::]:8080"])).unwrap();
        let ip = "fd00:1::3".parse().unwrap();
        assert_eq!(lab.in_host("business", || get(ip, 8080, "/data")).unwrap(), Seen::Status(200, true));
        assert!(lab.in_host("business", || ping(ip)).unwrap());
    });
    in_lab(&topology::lan(), |lab| {
        let addresses =
            lab.in_host("api", || std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()).unwrap();
        assert_eq!(addresses, "");
    });
}

#[test]
fn macs_and_names_are_as_the_topology_says() {
    in_lab(&topology::lan(), |lab| {
        let link = lab.links("api", |links| links.find("eth0")).unwrap();
        assert_eq!(link.mac.unwrap().to_string(), "02:00:c0:a8:01:03");
        assert_eq!(link.mtu, Some(1500));
        let mut command = Command::new("cat");
        command.args(["/etc/hosts", "/etc/resolv.conf"]).stdout(Stdio::piped());
        let mut cat = lab.spawn("business", command).unwrap();
        let mut text = String::new();
        cat.child().stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("192.168.1.3 api\n"), "{text}");
        // The machine's own files are still there, and only in the lab are they covered.
        assert!(Path::new("/etc/passwd").exists() && Path::new("/etc/netns/api/hosts").exists());
        assert!(matches!(lab.in_host("nobody", || ()), Err(LabError::NoSuchHost { .. })));
    });
    assert!(!Path::new("/etc/netns/api").exists());
}

#[test]
fn names_come_from_the_dns_server_where_there_is_one() {
    let topology = topology::lan_with_dns();
    in_lab(&topology, |lab| {
        for service in &scenarios::healthy(&topology).0 {
            lab.start_service(service).unwrap();
        }
        let mut command = Command::new("getent");
        command.args(["ahostsv4", "api"]).stdout(Stdio::piped());
        let mut getent = lab.spawn("business", command).unwrap();
        let mut text = String::new();
        getent.child().stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.starts_with("192.168.1.3"), "{text}");
    });
}

#[test]
fn a_tls_service_shows_its_certificate() {
    in_lab(&topology::lan(), |lab| {
        let ca = "/run/reachwhy/ca.pem";
        let args = ["tls", "--for", "api", "--for", "192.168.1.3", "--ca", ca];
        lab.start_service(&ServiceSpec::new("tls", "api", &args)).unwrap();
        assert!(std::fs::read_to_string(ca).unwrap().contains("BEGIN CERTIFICATE"));
        // To a client that does not speak TLS it is another protocol, but there.
        let ip = "192.168.1.3".parse().unwrap();
        assert_eq!(lab.in_host("business", || get(ip, 8443, "/")).unwrap(), Seen::Other);
    });
}

#[test]
fn a_service_that_cannot_begin_says_why() {
    in_lab(&topology::lan(), |lab| {
        let args = ["http", "--listen", "192.168.1.99:80"];
        let error = lab.start_service(&ServiceSpec::new("x", "api", &args)).unwrap_err().to_string();
        assert!(error.contains("192.168.1.99:80"), "{error}");
    });
}

/// What the client sees while each fault is in.
fn expected(fault: &str) -> Seen {
    match fault {
        "no-route" | "link-down" => Seen::Errno(libc::ENETUNREACH),
        "route-blackhole" => Seen::Errno(libc::EINVAL),
        "route-unreachable" | "server-input-admin-prohibited" | "server-input-host-prohibited" => {
            Seen::Errno(libc::EHOSTUNREACH)
        }
        "route-prohibit" => Seen::Errno(libc::EACCES),
        "server-input-reject"
        | "server-input-reset"
        | "client-output-reject"
        | "port-closed"
        | "loopback-only"
        | "wrong-address" => Seen::Errno(libc::ECONNREFUSED),
        "server-stuck" | "no-response" | "slow-answer" => Seen::NoAnswer,
        "http-500" => Seen::Status(500, true),
        "http-404" => Seen::Status(404, true),
        "bad-gateway" => Seen::Status(502, true),
        // The address is asked here, and what is wrong is the name.
        "hosts-override"
        | "no-resolver"
        | "resolver-gone"
        | "nsswitch-without-dns"
        | "name-unknown"
        | "name-servfail"
        | "name-refused"
        | "name-slow" => Seen::Status(200, true),
        "reset" | "reset-mid-response" => Seen::Reset,
        "truncated" | "misframed" => Seen::Status(200, false),
        "not-http" => Seen::Other,
        // Everything else is silence within the time that is waited here.
        _ => Seen::Silence,
    }
}

#[test]
fn every_fault_breaks_what_it_says_and_its_undo_mends_it() {
    // Most of the time is spent waiting for silence, so they wait together.
    std::thread::scope(|scope| {
        for scenario in scenarios::all() {
            scope.spawn(move || breaks_and_mends(&scenario));
        }
    });
}

fn breaks_and_mends(scenario: &Scenario) {
    in_lab(&scenario.topology, |lab| {
        scenario.make_healthy(lab).unwrap();
        let ip = scenario.topology.address(&scenario.to).unwrap();
        let ask = || lab.in_host(&scenario.from, || get(ip, 8080, "/data")).unwrap();
        assert_eq!(ask(), Seen::Status(200, true), "{} before", scenario.name);
        lab.inject(&scenario.fault).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
        assert_eq!(ask(), expected(scenario.fault.name), "{} with its fault", scenario.name);
        lab.undo(&scenario.fault).unwrap_or_else(|error| panic!("{}: {error}", scenario.name));
        Lab::wait_until(&format!("{} after", scenario.name), || ask() == Seen::Status(200, true)).unwrap();
    });
}

#[test]
fn a_fix_is_carried_out_as_it_is_written() {
    in_lab(&topology::lan(), |lab| {
        let scenario = scenarios::named("api-unreachable").unwrap();
        scenario.make_healthy(lab).unwrap();
        lab.inject(&scenario.fault).unwrap();
        let ip = "192.168.1.3".parse().unwrap();
        let ask = || lab.in_host("business", || get(ip, 8080, "/data")).unwrap();
        assert_eq!(ask(), Seen::Silence);
        assert!(lab.fix("api", "iptables -A OUTPUT -p tcp --sport 8080 -j ACCEPT").unwrap());
        assert_eq!(ask(), Seen::Status(200, true));
        assert!(!lab.fix("api", "systemctl restart data-api").unwrap());
        assert!(lab.fix("api", "ip route del 203.0.113.0/24").is_err());
        // What people must fill in themselves is not guessed.
        assert!(!lab.fix("api", "ip route add default via GATEWAY dev eth0").unwrap());
        // What is the whole machine's is not touched, whatever a report says.
        assert!(!lab.fix("api", "sysctl -w kernel.hostname=x").unwrap());
        assert!(!lab.fix("api", &format!("kill -KILL {}", std::process::id())).unwrap());
    });
}

#[test]
fn a_lab_that_is_dropped_leaves_no_process() {
    let mut pids = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| match Lab::build_with(&topology::lan(), Path::new(REACHWHY)) {
            Ok(lab) => {
                lab.start_service(&faults::api(&[])).unwrap();
                pids = lab.services().into_iter().map(|(_, pid)| pid).collect();
                assert!(pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()));
            }
            Err(error) => skip(&error.to_string()),
        });
    });
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
    assert_eq!(mounts(), Vec::<String>::new());
}

/// Mounts of a lab that are seen from outside. Others may mount what they like meanwhile.
fn mounts() -> Vec<String> {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = |line: &&str| {
        line.starts_with("reachwhy ")
            || ["business", "api", "switch", "client"].iter().any(|name| line.contains(&format!("/run/netns/{name} ")))
    };
    all.lines().filter(ours).map(str::to_owned).collect()
}

/// The processes, zombies aside, that were started with this mark in their environment.
fn marked(mark: &str) -> BTreeSet<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(mark))
        })
        .collect()
}

/// `command` with a mark, as `uid`, from a copy of the program that every user may run.
fn as_user(home: &Path, uid: u32, mark: &str, args: &[&str]) -> Command {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let program = home.join("reachwhy");
    if !program.exists() {
        std::fs::copy(REACHWHY, &program).unwrap();
    }
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    // A directory of the test's own, so that a lab of the one who runs the tests is not touched.
    let runtime = home.join(format!("run-{uid}"));
    if !runtime.exists() {
        std::fs::create_dir(&runtime).unwrap();
        std::os::unix::fs::chown(&runtime, Some(uid), Some(uid)).unwrap();
    }
    command.args(args).env("REACHWHY_TEST_MARK", mark).env("XDG_RUNTIME_DIR", runtime).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if uid != nix::unistd::geteuid().as_raw() {
        command.uid(uid).gid(uid);
    }
    command
}

fn users() -> Vec<u32> {
    if nix::unistd::geteuid().is_root() { vec![0, 65534] } else { vec![nix::unistd::geteuid().as_raw()] }
}

#[test]
fn nothing_is_left_however_the_lab_ends() {
    use nix::sys::signal::{Signal, kill};
    let home = tempfile::tempdir().unwrap();
    for uid in users() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
            let mark = format!("lab-{}-{uid}-{signal}", std::process::id());
            let name = if uid == 0 { "server-stuck" } else { "http-500" };
            let mut holder = as_user(home.path(), uid, &mark, &["lab", "hold", name]).spawn().unwrap();
            let mut first = [0; 6];
            if holder.stdout.as_mut().unwrap().read_exact(&mut first).is_err() {
                let output = holder.wait_with_output().unwrap();
                skip(&String::from_utf8_lossy(&output.stderr));
                return;
            }
            assert_eq!(&first, b"ready\n");
            assert!(marked(&mark).len() >= 4, "holder, stage, builder, service: {:?}", marked(&mark));
            kill(nix::unistd::Pid::from_raw(holder.id().cast_signed()), signal).unwrap();
            let status = holder.wait().unwrap();
            if signal != Signal::SIGKILL {
                // The one who watched the lab ends after all the rest.
                assert_eq!(marked(&mark), BTreeSet::new(), "{signal} as {uid}");
                assert_eq!(status.code(), Some(128 + signal as i32));
            }
            let end = Instant::now() + Duration::from_secs(5);
            while !marked(&mark).is_empty() {
                assert!(Instant::now() < end, "{signal} as {uid} leaves {:?}", marked(&mark));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    assert_eq!(mounts(), Vec::<String>::new());
}

#[test]
fn up_shell_and_down_as_any_user() {
    let home = tempfile::tempdir().unwrap();
    for uid in users() {
        let mark = format!("up-{}-{uid}", std::process::id());
        let run = |args: &[&str]| {
            let mut command = as_user(home.path(), uid, &mark, args);
            let output = command.output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let (code, _, error) = run(&["lab", "up", "lan"]);
        if code != Some(0) {
            return skip(&error);
        }
        let (code, _, error) = run(&["lab", "up", "lan"]);
        assert!(code != Some(0) && error.contains("up already"), "{error}");
        let (code, out, error) =
            run(&["lab", "shell", "business", "--", "sh", "-c", "cat /etc/hosts; ls /run/netns; exit 7"]);
        assert_eq!(code, Some(7), "{error}");
        assert!(out.contains("192.168.1.3 api") && out.contains("business\n"), "{out}");
        assert_ne!(run(&["lab", "shell", "nowhere", "--", "true"]).0, Some(0));
        assert_eq!(run(&["lab", "down", "lan"]).0, Some(0));
        assert_eq!(marked(&mark), BTreeSet::new());
        assert_ne!(run(&["lab", "down", "lan"]).0, Some(0));
    }
}

#[test]
fn an_impaired_cable_delays_and_loses_as_it_is_told() {
    let mut topology = topology::routed_pair();
    topology.links[0].impair = serde_json::from_str(r#"{"delay_ms":20,"loss":0.2,"seed":4}"#).unwrap();
    in_lab(&topology, |lab| {
        lab.start_service(&ServiceSpec::new("echo", "server", &["echo"])).unwrap();
        let ip = topology.address("server").unwrap();
        let (mut answered, mut fastest) = (0, Duration::MAX);
        lab.in_host("client", || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            // Until the first is answered the neighbours may be unknown, and their questions lost as well.
            let mut resolved = false;
            for _ in 0..40 {
                let _ = socket.send_to(b"?", (ip, 7));
                resolved |= socket.recv_from(&mut [0; 8]).is_ok();
                if resolved {
                    break;
                }
            }
            assert!(resolved, "nothing gets through");
            for _ in 0..5 {
                let sent = Instant::now();
                let _ = socket.send_to(b"?", (ip, 7));
                if socket.recv_from(&mut [0; 8]).is_ok() {
                    fastest = fastest.min(sent.elapsed());
                }
            }
            for _ in 0..200 {
                let _ = socket.send_to(b"?", (ip, 7));
            }
            while socket.recv_from(&mut [0; 8]).is_ok() {
                answered += 1;
            }
        })
        .unwrap();
        assert!(fastest >= Duration::from_millis(40), "{fastest:?}");
        // Both ways are lossy: 0.8 × 0.8 of 200 is 128.
        assert!((100..160).contains(&answered), "{answered} of 200");
    });
}

#[test]
fn a_large_answer_crosses_an_impaired_cable_whole() {
    let mut topology = topology::lan();
    topology.links[0].impair = serde_json::from_str(r#"{"delay_ms":1,"jitter_ms":1,"seed":9}"#).unwrap();
    in_lab(&topology, |lab| {
        lab.start_service(&ServiceSpec::new("echo", "api", &["echo"])).unwrap();
        let received = lab
            .in_host("business", || {
                let mut stream = TcpStream::connect_timeout(&"192.168.1.3:7".parse().unwrap(), WAIT * 3).unwrap();
                stream.set_read_timeout(Some(WAIT * 5)).unwrap();
                let mut reader = stream.try_clone().unwrap();
                let data = vec![b'x'; 400_000];
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        stream.write_all(&data).unwrap();
                        stream.shutdown(std::net::Shutdown::Write).unwrap();
                    });
                    let mut back = Vec::new();
                    reader.read_to_end(&mut back).unwrap();
                    back == data
                })
            })
            .unwrap();
        assert!(received);
    });
}
