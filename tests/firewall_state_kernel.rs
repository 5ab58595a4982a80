//! Histories against the kernel: a router between two namespaces forwards crafted packets, stamps
//! each with its conntrack state, and the walk must have named the same state and the same addresses.
//!
//! REACHWHY_ORACLE_SEED sets the seed (default 1), REACHWHY_ORACLE_FLOWS the random flows of each
//! kind (default 150).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, reason = "what was skipped, and the seed")]
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use reachwhy::firewall::packet::To;
use reachwhy::firewall::ruleset::TcpFlags;
use reachwhy::firewall::{Facts, History, Packet, Stack, Verdict};
use reachwhy::host::{Backend, DumpFormat, RulesetDump};
use reachwhy::os::netns::NetNs;
use reachwhy::wire::{IcmpFamily, IcmpHeader, Ipv4Header, TcpHeader, UdpHeader};
use socket2::{Domain, Protocol, Socket, Type};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(n).unwrap()).unwrap()
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The stamps: DSCP 1 to 5.
const STATES: [(&str, u8); 5] = [("NEW", 1), ("ESTABLISHED", 2), ("RELATED", 3), ("INVALID", 4), ("UNTRACKED", 5)];
const LEFT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
const LEFT_TOO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 9);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

fn stamps() -> String {
    let mut text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n".to_owned();
    for (state, code) in STATES {
        text.push_str(&format!("-A PREROUTING -m conntrack --ctstate {state} -j DSCP --set-dscp {code}\n"));
    }
    text + "COMMIT\n"
}

/// One side of the router: where packets are put in, and where they are seen to come out.
struct Side {
    send: Socket,
    seen: Socket,
}

struct Router {
    left: Side,
    right: Side,
    _namespaces: [NetNs; 2],
}

/// What came out: state's stamp, addresses, ports or identifier.
type Out = (u8, Ipv4Addr, u16, Ipv4Addr, u16);

impl Router {
    fn new() -> Self {
        let (l, r) = (NetNs::unshare().unwrap(), NetNs::unshare().unwrap());
        NetNs::unshare().unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        let sides = [(&l, "l", 1, "02:00:00:00:00:01"), (&r, "r", 2, "02:00:00:00:00:02")];
        let opened = sides.map(|(namespace, name, net, mac)| {
            let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.file().as_raw_fd());
            run("ip", &format!("link add {name}0 type veth peer name {name}1 netns {path}"));
            run("ip", &format!("addr add 10.{net}.0.1/24 dev {name}0"));
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}0/rp_filter"), "0").unwrap();
            run("ip", &format!("link set {name}0 up"));
            let sockets = namespace
                .run(|| {
                    run("ip", &format!("link set {name}1 address {mac}"));
                    run("ip", &format!("addr add 10.{net}.0.254/24 dev {name}1"));
                    run("ip", &format!("link set {name}1 up"));
                    run("ip", &format!("route add default via 10.{net}.0.1"));
                    // SOCK_RAW, IPPROTO_RAW.
                    let send = Socket::new(Domain::IPV4, Type::from(3), Some(Protocol::from(255))).unwrap();
                    // AF_PACKET, ETH_P_IP: what arrives, in this namespace's only link.
                    let seen =
                        Socket::new(Domain::from(17), Type::DGRAM, Some(Protocol::from(i32::from(0x0800_u16.to_be()))))
                            .unwrap();
                    seen.set_read_timeout(Some(Duration::from_millis(1000))).unwrap();
                    Side { send, seen }
                })
                .unwrap();
            for host in [9, 10] {
                run("ip", &format!("neigh add 10.{net}.0.{host} lladdr {mac} dev {name}0"));
            }
            sockets
        });
        let [left, right] = opened;
        Self { left, right, _namespaces: [l, r] }
    }

    fn load(&self, text: &str) {
        let mut child = Command::new("iptables-nft-restore").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
    }

    /// Sends a packet from one side and waits for it on the other.
    fn pass(&self, from_left: bool, bytes: &[u8]) -> Option<Out> {
        let (from, to) = if from_left { (&self.left, &self.right) } else { (&self.right, &self.left) };
        let dst = Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]);
        from.send.send_to(bytes, &SocketAddrV4::new(dst, 0).into()).unwrap();
        let mut buffer = [0; 2048];
        let length = (&to.seen).read(&mut buffer).ok()?;
        let (ip, header) = Ipv4Header::parse(&buffer[..length]).unwrap();
        let upper = &buffer[header..length];
        let word = |at: usize| u16::from_be_bytes([upper[at], upper[at + 1]]);
        let (sport, dport) = if ip.protocol == 1 { (0, 0) } else { (word(0), word(2)) };
        Some((ip.tos >> 2, ip.src, sport, ip.dst, dport))
    }
}

/// A host and what it remembers, beside the kernel.
struct Model {
    stack: Stack,
    history: History,
}

impl Model {
    fn new(text: &str) -> Self {
        let dump = RulesetDump {
            format: DumpFormat::IptablesSave,
            backend: Backend::Nft,
            via: "t".to_owned(),
            text: text.to_owned(),
        };
        Self { stack: Stack::from_dumps(&[dump]).0, history: History::new() }
    }

    fn pass(&mut self, from_left: bool, mut packet: Packet) -> Option<Out> {
        let (near, far) = if from_left { ("l0", "r0") } else { ("r0", "l0") };
        packet.in_ = Some(near.to_owned());
        packet.out = Some(far.to_owned());
        packet.to = Some(To::Forward);
        let outcome = self.history.step(&self.stack, &packet, &Facts::none());
        let out = outcome.packet_out;
        let v4 = |addr| if let IpAddr::V4(addr) = addr { addr } else { panic!() };
        (outcome.verdict == Verdict::Accept).then(|| {
            (out.tos.unwrap_or(0) >> 2, v4(out.src), out.sport.unwrap_or(0), v4(out.dst), out.dport.unwrap_or(0))
        })
    }
}

/// A segment as a connection between the two would have it: always within the windows.
fn segment(from_client: bool, client: (Ipv4Addr, u16), server: (Ipv4Addr, u16), flags: u8) -> (Vec<u8>, Packet) {
    let ((src, sport), (dst, dport)) = if from_client { (client, server) } else { (server, client) };
    let (own, other) = if from_client { (1000, 5000) } else { (5000, 1000) };
    let mut header = TcpHeader::new(sport, dport, reachwhy::wire::TcpFlags(flags));
    header.seq = own + u32::from(flags & 0x02 == 0);
    header.ack = if flags & 0x10 == 0 { 0 } else { other + 1 };
    let upper = header.segment(src.into(), dst.into(), &[]);
    let bytes = Ipv4Header::new(src, dst, 6).packet(&upper);
    (bytes, Packet::tcp(src.into(), sport, dst.into(), dport, TcpFlags(flags)))
}

fn datagram((src, sport): (Ipv4Addr, u16), (dst, dport): (Ipv4Addr, u16)) -> (Vec<u8>, Packet) {
    let upper = UdpHeader::datagram(src.into(), dst.into(), sport, dport, b"x");
    (Ipv4Header::new(src, dst, 17).packet(&upper), Packet::udp(src.into(), sport, dst.into(), dport))
}

fn echo(src: Ipv4Addr, dst: Ipv4Addr, request: bool, id: u16) -> (Vec<u8>, Packet) {
    let header = IcmpHeader::new_echo(IcmpFamily::V4, request, id, 1);
    let upper = header.message(src.into(), dst.into(), b"abcdefgh");
    let kind = if request { 8 } else { 0 };
    (Ipv4Header::new(src, dst, 1).packet(&upper), Packet::icmp(src.into(), dst.into(), kind, 0))
}

fn in_namespaces(test: impl FnOnce(&Router) + Send + 'static) {
    let why = std::thread::spawn(move || {
        for program in ["ip", "iptables-nft-restore"] {
            if Command::new(program).arg("-V").output().is_err() {
                return Some(format!("there is no `{program}`"));
            }
        }
        if let Err(error) = NetNs::unshare() {
            return Some(error.to_string());
        }
        test(&Router::new());
        None
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    if let Some(why) = why {
        assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "kernel tests are required: {why}");
        println!("SKIPPED: {why}");
    }
}

const FLAGS: [u8; 12] = [0x02, 0x12, 0x10, 0x10, 0x11, 0x11, 0x04, 0x14, 0x18, 0x00, 0x29, 0x01];

fn names(flags: u8) -> String {
    TcpFlags(flags).names()
}

#[test]
fn tcp_states_as_the_kernel_has_them() {
    in_namespaces(|router| {
        let (text, seed) = (stamps(), env("REACHWHY_ORACLE_SEED", 1));
        router.load(&text);
        let mut random = Random(seed);
        let mut compared = 0;
        let mut wrong = Vec::new();
        // Orders that matter, then random ones. Capital: from the client.
        let mut orders: Vec<Vec<(bool, u8)>> = vec![
            vec![(true, 0x02), (false, 0x12), (true, 0x10), (true, 0x11), (false, 0x11), (true, 0x10), (true, 0x02), (false, 0x12)],
            vec![(true, 0x02), (false, 0x14), (true, 0x02)],
            vec![(true, 0x02), (false, 0x02), (true, 0x12), (false, 0x12), (true, 0x10)],
            vec![(true, 0x10), (true, 0x10), (false, 0x10), (true, 0x04), (true, 0x02)],
            vec![(true, 0x02), (false, 0x12), (true, 0x10), (false, 0x11), (true, 0x11), (false, 0x10), (false, 0x02)],
        ];
        for _ in 0..env("REACHWHY_ORACLE_FLOWS", 150) {
            // Mostly alive: a handshake before what is random.
            let mut order = Vec::new();
            if random.below(3) > 0 {
                order.extend([(true, 0x02), (false, 0x12), (true, 0x10)]);
            }
            let length = 1 + random.below(9);
            order.extend((0..length).map(|_| (random.below(2) == 0, random.pick(&FLAGS))));
            orders.push(order);
        }
        for (number, order) in orders.iter().enumerate() {
            let mut model = Model::new(&text);
            let client = (LEFT, 10_000 + u16::try_from(number % 50_000).unwrap());
            let mut told = Vec::new();
            for &(from_client, flags) in order {
                let (bytes, packet) = segment(from_client, client, (RIGHT, 80), flags);
                let kernel = router.pass(from_client, &bytes);
                let model = model.pass(from_client, packet);
                compared += 1;
                told.push(format!("{}{}", if from_client { "> " } else { "< " }, names(flags)));
                if kernel != model {
                    wrong.push(format!("{}: kernel {kernel:?}, model {model:?}", told.join(", ")));
                    break;
                }
            }
        }
        println!("{compared} segments in {} flows compared, seed {seed}", orders.len());
        assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    });
}

#[test]
fn udp_icmp_and_errors_as_the_kernel_has_them() {
    in_namespaces(|router| {
        let text = stamps();
        router.load(&text);
        let mut model = Model::new(&text);
        let (client, server) = ((LEFT, 5000), (RIGHT, 53));
        let error = |quoted: &[u8], src: Ipv4Addr, dst: Ipv4Addr| {
            let header = IcmpHeader { family: IcmpFamily::V4, kind: 3, code: 3, checksum: 0, rest: [0; 4] };
            let upper = header.message(src.into(), dst.into(), quoted);
            let mut packet = Packet::icmp(src.into(), dst.into(), 3, 3);
            packet.payload = Some(quoted.iter().map(|byte| format!("{byte:02x}")).collect());
            (Ipv4Header::new(src, dst, 1).packet(&upper), packet)
        };
        let one_way = datagram(client, server);
        let unknown = datagram((LEFT, 5), (RIGHT, 6));
        let steps = [
            (false, echo(RIGHT, LEFT, false, 0)),
            (true, one_way.clone()),
            (true, one_way.clone()),
            (true, one_way.clone()),
            (false, error(&one_way.0, RIGHT, LEFT)),
            (false, error(&unknown.0, RIGHT, LEFT)),
            (false, datagram(server, client)),
            (true, one_way.clone()),
            (true, echo(LEFT, RIGHT, true, 0)),
            (true, echo(LEFT, RIGHT, true, 0)),
            (false, echo(RIGHT, LEFT, false, 0)),
            (true, echo(LEFT, RIGHT, true, 0)),
            (false, echo(RIGHT, LEFT, true, 0)),
        ];
        for (number, (from_left, (bytes, packet))) in steps.into_iter().enumerate() {
            let kernel = router.pass(from_left, &bytes);
            assert!(kernel.is_some(), "step {number} did not come out");
            assert_eq!(kernel, model.pass(from_left, packet), "step {number}");
        }
    });
}

#[test]
fn translation_as_the_kernel_does_it() {
    let text = format!(
        "{}*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A PREROUTING -i r0 -p tcp --dport 80 -j DNAT --to-destination 10.1.0.9:8080\n\
         -A PREROUTING -i r0 -p udp --dport 7000:7009 -j DNAT --to-destination 10.1.0.9:7100-7105\n\
         -A PREROUTING -i l0 -d 10.9.0.0/24 -j NETMAP --to 10.2.0.0/24\n\
         -A POSTROUTING -o r0 -p udp --dport 99 -j SNAT --to-source 10.2.0.1:3000-3000\n\
         -A POSTROUTING -o r0 -j SNAT --to-source 10.2.0.1\nCOMMIT\n",
        stamps()
    );
    in_namespaces(move |router| {
        router.load(&text);
        let mut model = Model::new(&text);
        let seg = |from_left: bool, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), flags| {
            let (bytes, packet) = segment(true, src, dst, flags);
            (from_left, bytes, packet)
        };
        let udp = |from_left: bool, src, dst| {
            let (bytes, packet) = datagram(src, dst);
            (from_left, bytes, packet)
        };
        let mapped = Ipv4Addr::new(10, 9, 0, 9);
        let reply = segment(false, (RIGHT, 4000), (LEFT, 8080), 0x12);
        let steps = vec![
            seg(false, (RIGHT, 4000), (OUTSIDE, 80), 0x02),
            (true, reply.0, reply.1),
            seg(false, (RIGHT, 4000), (OUTSIDE, 80), 0x10),
            udp(true, (LEFT, 6000), (RIGHT, 53)),
            udp(false, (RIGHT, 53), (OUTSIDE, 6000)),
            udp(true, (LEFT, 6000), (RIGHT, 53)),
            udp(true, (LEFT, 6000), (RIGHT, 54)),
            udp(true, (LEFT, 6001), (RIGHT, 99)),
            udp(false, (RIGHT, 99), (OUTSIDE, 3000)),
            udp(false, (RIGHT, 1), (OUTSIDE, 7003)),
            udp(false, (RIGHT, 2), (OUTSIDE, 7000)),
            udp(true, (LEFT, 7100), (RIGHT, 2)),
            udp(true, (LEFT, 6002), (mapped, 53)),
            udp(false, (RIGHT, 53), (OUTSIDE, 6002)),
        ];
        for (number, (from_left, bytes, packet)) in steps.into_iter().enumerate() {
            let told = packet.to_string();
            let kernel = router.pass(from_left, &bytes);
            assert_eq!(kernel, model.pass(from_left, packet), "step {number}: {told}");
            assert!(kernel.is_some(), "step {number} did not come out: {told}");
        }
        // Two clients with one port: the second gets another, and answers find their way.
        let (bytes, packet) = datagram((LEFT_TOO, 6000), (RIGHT, 53));
        let (_, src, port, ..) = router.pass(true, &bytes).unwrap();
        let (_, model_src, model_port, ..) = model.pass(true, packet).unwrap();
        assert!(src == model_src && port != 6000 && model_port != 6000, "{src}:{port} {model_src}:{model_port}");
        let (bytes, _) = datagram((RIGHT, 53), (OUTSIDE, port));
        let (_, packet) = datagram((RIGHT, 53), (OUTSIDE, model_port));
        assert_eq!(router.pass(false, &bytes), model.pass(false, packet));
    });
}
