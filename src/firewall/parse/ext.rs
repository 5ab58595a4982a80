//! From the options of the rarer match modules to tests.

use crate::firewall::names;
use crate::firewall::ruleset::{
    BpfProgram, CgroupTest, Chunk, ChunkMode, ChunkTest, ClusterTest, ConnlabelTest, DCCP_TYPES, DevGroupTest, EcnTest,
    Ext, Family, FragTest, HelperTest, Iface, Ipv6HeaderTest, IpvsTest, Masked, Net, OptionsTest, OsfTest, PhysdevTest,
    PolicyElement, PolicyTest, RealmTest, RpfilterTest, RtTest, SocketTest, Span, SpiModule, SpiTest, SrhPart, SrhTest,
    SrhValue, StringTest, TimeTest, U32Test,
};

use super::error::Fault;
use super::matches::{Instance, Opt};
use super::values::{self, fit};
use super::words::Word;

/// Reads a module with all its options; `None` where the module is another reader's.
pub(super) fn build(instance: &Instance, family: Family) -> Result<Option<Ext>, Fault> {
    let need = |what: &str| Fault::new(instance.column, format!("`-m {}` needs {what}", instance.name));
    let span = |name: &str, what: &str, max: u32| instance.get(name).map(|opt| span(opt, what, max)).transpose();
    let one = |name: &str, what: &str, max: u32| -> Result<Option<Span>, Fault> {
        let read = instance.get(name).map(|opt| number(opt, what, max)).transpose()?;
        Ok(read.map(|(negated, n)| Span { negated, from: n, to: n }))
    };
    let flag = |name: &str| instance.has(name);
    let negated_flag = |name: &str| instance.get(name).map(|opt| opt.negated);
    let text = |name: &str, what: &str| -> Result<(bool, String), Fault> {
        let opt = instance.get(name).ok_or_else(|| need(what))?;
        Ok((opt.negated, opt.arg()?.text.clone()))
    };
    Ok(Some(match instance.name.as_str() {
        "esp" => Ext::Spi(SpiTest {
            module: SpiModule::Esp,
            spi: span("espspi", "SPI", u32::MAX)?,
            len: None,
            reserved: false,
        }),
        "ah" => Ext::Spi(SpiTest {
            module: SpiModule::Ah,
            spi: span("ahspi", "SPI", u32::MAX)?,
            len: one("ahlen", "header length", u32::MAX)?,
            reserved: flag("ahres"),
        }),
        "ipcomp" => Ext::Spi(SpiTest {
            module: SpiModule::Ipcomp,
            spi: span("ipcompspi", "CPI", u32::MAX)?,
            len: None,
            reserved: flag("compres"),
        }),
        "ecn" => {
            let ect = instance.get("ecn-ip-ect").map(|opt| number(opt, "ECN field", 3)).transpose()?;
            let ect = ect.map(|(negated, n)| (negated, u8::try_from(n).unwrap_or(0)));
            let test = EcnTest { ece: negated_flag("ecn-tcp-ece"), cwr: negated_flag("ecn-tcp-cwr"), ect };
            if test == EcnTest::default() {
                return Err(need("`--ecn-tcp-cwr`, `--ecn-tcp-ece` or `--ecn-ip-ect N`"));
            }
            Ext::Ecn(test)
        }
        "tcpmss" => Ext::TcpMss(span("mss", "segment size", 65_535)?.ok_or_else(|| need("`--mss SIZE`"))?),
        "osf" => {
            let (negated, genre) = text("genre", "`--genre NAME`")?;
            let level = |name: &str| instance.get(name).map(|opt| fit(opt.arg()?, "level")).transpose();
            Ext::Osf(OsfTest { negated, genre, ttl: level("ttl")?, log: level("log")? })
        }
        "frag" => Ext::Frag(FragTest {
            id: span("fragid", "fragment identification", u32::MAX)?,
            len: one("fraglen", "length", u32::MAX)?,
            reserved: flag("fragres"),
            first: flag("fragfirst"),
            more: flag("fragmore"),
            last: flag("fraglast"),
        }),
        "ipv6header" => {
            let opt = instance.get("header").ok_or_else(|| need("`--header LIST`"))?;
            let mask = ipv6_headers(opt.arg()?)?;
            Ext::Ipv6Header(Ipv6HeaderTest { negated: opt.negated, mask, soft: flag("soft") })
        }
        "rt" => Ext::Rt(rt(instance)?),
        name @ ("hbh" | "dst") => Ext::Options(OptionsTest {
            hop_by_hop: name == "hbh",
            len: one(&format!("{name}-len"), "header length", u32::MAX)?,
            opts: instance.get(&format!("{name}-opts")).map(ipv6_options).transpose()?.unwrap_or_default(),
        }),
        "mh" => Ext::MobilityHeader(instance.get("mh-type").map(mobility).transpose()?),
        "srh" => {
            let mut parts = Vec::new();
            for (option, most) in SrhTest::OPTIONS {
                let Some(opt) = instance.get(&format!("srh-{option}")) else { continue };
                let value = match (option, most) {
                    ("next-hdr", _) => {
                        let word = opt.arg()?;
                        let proto = names::protocol(&word.text);
                        SrhValue::Number(proto.ok_or_else(|| Fault::new(word.column, "no protocol"))?.into())
                    }
                    (_, Some(most)) => SrhValue::Number(number(opt, "field of the header", most)?.1),
                    (_, None) => {
                        let word = opt.arg()?;
                        let net = values::net(&word.text, word.column, Family::Ip6)?;
                        let any = || Net::prefix(std::net::Ipv6Addr::UNSPECIFIED.into(), 0);
                        SrhValue::Net(net.or_else(any).ok_or_else(|| Fault::new(word.column, "no address"))?)
                    }
                };
                parts.push(SrhPart { negated: opt.negated, option, value });
            }
            Ext::Srh(SrhTest(parts))
        }
        "ipvs" => {
            let mut parts = Vec::new();
            for (option, valued) in IpvsTest::OPTIONS {
                let Some(opt) = instance.get(option) else { continue };
                let value = if valued { Some(opt.arg()?.text.clone()) } else { None };
                parts.push((opt.negated, option, value));
            }
            if parts.is_empty() {
                return Err(need("one of its options, such as `--ipvs`"));
            }
            Ext::Ipvs(IpvsTest(parts))
        }
        "eui64" => Ext::Eui64,
        "physdev" => {
            let iface = |name: &str| -> Result<Option<(bool, Iface)>, Fault> {
                instance.get(name).map(|opt| Ok((opt.negated, Iface::parse(&opt.arg()?.text)))).transpose()
            };
            let test = PhysdevTest {
                in_: iface("physdev-in")?,
                out: iface("physdev-out")?,
                is_in: negated_flag("physdev-is-in"),
                is_out: negated_flag("physdev-is-out"),
                is_bridged: negated_flag("physdev-is-bridged"),
            };
            if test == PhysdevTest::default() {
                return Err(need("one of its options, such as `--physdev-is-bridged`"));
            }
            Ext::Physdev(test)
        }
        "rpfilter" => Ext::Rpfilter(RpfilterTest {
            loose: flag("loose"),
            validmark: flag("validmark"),
            accept_local: flag("accept-local"),
            invert: flag("invert"),
        }),
        "socket" => Ext::Socket(SocketTest {
            transparent: flag("transparent"),
            nowildcard: flag("nowildcard"),
            restore_skmark: flag("restore-skmark"),
        }),
        "helper" => {
            let (negated, name) = text("helper", "`--helper NAME`")?;
            Ext::Helper(HelperTest { negated, name })
        }
        "cluster" => Ext::Cluster(cluster(instance)?),
        "realm" => {
            let realm = instance.get("realm").ok_or_else(|| need("`--realm N`"))?;
            Ext::Realm(RealmTest(masked(realm, "realm")?))
        }
        "devgroup" => {
            let group = |name: &str| instance.get(name).map(|opt| masked(opt, "device group")).transpose();
            let test = DevGroupTest { src: group("src-group")?, dst: group("dst-group")? };
            if test.src.is_none() && test.dst.is_none() {
                return Err(need("`--src-group N` or `--dst-group N`"));
            }
            Ext::DevGroup(test)
        }
        "policy" => Ext::Policy(policy(instance, family)?),
        "cpu" => Ext::Cpu(one("cpu", "processor", u32::MAX)?.ok_or_else(|| need("`--cpu N`"))?),
        "nfacct" => Ext::Nfacct(text("nfacct-name", "`--nfacct-name NAME`")?.1),
        "cgroup" => match (instance.get("cgroup"), instance.get("path")) {
            (Some(opt), _) => {
                let (negated, id) = number(opt, "class", u32::MAX)?;
                Ext::Cgroup(CgroupTest::Class { negated, id })
            }
            (None, Some(opt)) => Ext::Cgroup(CgroupTest::Path { negated: opt.negated, path: opt.arg()?.text.clone() }),
            (None, None) => return Err(need("`--cgroup ID` or `--path PATH`")),
        },
        "connlabel" => {
            let (negated, label) = text("label", "`--label NAME`")?;
            Ext::Connlabel(ConnlabelTest { negated, label, set: flag("set") })
        }
        "string" => Ext::String(string(instance)?),
        "u32" => {
            let opt = instance.get("u32").ok_or_else(|| need("`--u32 EXPRESSION`"))?;
            let word = opt.arg()?;
            let test = U32Test::parse(opt.negated, &word.text);
            Ext::U32(test.map_err(|(at, why)| {
                let column = word.column + u32::from(word.quoted) + u32::try_from(at).unwrap_or(0);
                Fault::new(column, format!("in the expression of `--u32`: {why}"))
            })?)
        }
        "bpf" => {
            let opt = instance.get("bytecode").ok_or_else(|| need("`--bytecode PROGRAM`"))?;
            let word = opt.arg()?;
            let program = BpfProgram::parse(&word.text);
            Ext::Bpf(program.map_err(|why| Fault::new(word.column, format!("in the program of `--bytecode`: {why}")))?)
        }
        "time" => Ext::Time(time(instance)?),
        _ => return Ok(None),
    }))
}

/// `N` no larger than `max`, with the option's negation.
fn number(opt: &Opt, what: &str, max: u32) -> Result<(bool, u32), Fault> {
    let word = opt.arg()?;
    let n: u32 = fit(word, what)?;
    if n > max {
        return Err(Fault::new(word.column, format!("a {what} is at most {max}")));
    }
    Ok((opt.negated, n))
}

/// `A:B`, `A:`, `:B`, `A`
fn span(opt: &Opt, what: &str, max: u32) -> Result<Span, Fault> {
    let word = opt.arg()?;
    let part = |text: &str| -> Result<u32, Fault> {
        let n: u32 = fit(&Word { text: text.to_owned(), column: word.column, quoted: false }, what)?;
        if n > max { Err(Fault::new(word.column, format!("a {what} is at most {max}"))) } else { Ok(n) }
    };
    let (from, to) = match word.text.split_once(':') {
        None => (part(&word.text)?, part(&word.text)?),
        Some((from, to)) => {
            (if from.is_empty() { 0 } else { part(from)? }, if to.is_empty() { max } else { part(to)? })
        }
    };
    if from > to {
        return Err(Fault::new(word.column, format!("the range {from}:{to} is empty")));
    }
    Ok(Span { negated: opt.negated, from, to })
}

fn masked(opt: &Opt, what: &str) -> Result<Masked, Fault> {
    let (value, mask) = values::value_mask(opt.arg()?, what)?;
    Ok(Masked { negated: opt.negated, value, mask: mask.unwrap_or(u32::MAX) })
}

/// `--chunk-types all|any|only LIST`
pub(super) fn chunks(opt: &Opt) -> Result<ChunkTest, Fault> {
    let (Some(mode), Some(list)) = (opt.args.first(), opt.args.get(1)) else {
        return Err(Fault::new(opt.column, "`--chunk-types` needs `all`, `any` or `only`, and a list of chunk types"));
    };
    let mode = match mode.text.to_ascii_lowercase().as_str() {
        "all" => ChunkMode::All,
        "any" => ChunkMode::Any,
        "only" => ChunkMode::Only,
        _ => return Err(Fault::new(mode.column, format!("`{}` is none of all, any, only", mode.text))),
    };
    let mut chunks: Vec<Chunk> = Vec::new();
    match list.text.to_ascii_uppercase().as_str() {
        "ALL" => chunks.extend((0..=255).map(|kind| Chunk { kind, mask: 0, set: 0 })),
        "NONE" => (),
        _ => {
            for part in list.text.split(',') {
                let (name, letters) = part.split_once(':').unwrap_or((part, ""));
                let found = ChunkTest::NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
                let (_, kind) =
                    found.ok_or_else(|| Fault::new(list.column, format!("`{name}` is no SCTP chunk type")))?;
                let mut chunk = Chunk { kind: *kind, mask: 0, set: 0 };
                for c in letters.chars() {
                    let upper = c.to_ascii_uppercase();
                    let place = ChunkTest::letters(*kind).iter().position(|l| char::from(*l) == upper && upper != '-');
                    let place = place.ok_or_else(|| Fault::new(list.column, format!("`{c}` is no flag of {name}")))?;
                    let bit = 0x80 >> place;
                    chunk.mask |= bit;
                    if c.is_ascii_uppercase() {
                        chunk.set |= bit;
                    }
                }
                chunks.push(chunk);
            }
        }
    }
    chunks.sort_by_key(|chunk| chunk.kind);
    Ok(ChunkTest { mode, chunks })
}

/// A list of DCCP packet types as bits.
pub(super) fn dccp_types(word: &Word) -> Result<u16, Fault> {
    word.text.split(',').try_fold(0, |bits, name| {
        let number = DCCP_TYPES.iter().position(|n| n.eq_ignore_ascii_case(name));
        number.map(|n| bits | 1 << n).ok_or_else(|| Fault::new(word.column, format!("`{name}` is no DCCP packet type")))
    })
}

fn ipv6_headers(word: &Word) -> Result<u8, Fault> {
    word.text.split(',').try_fold(0, |mask, name| {
        let lower = name.to_ascii_lowercase();
        let own = Ipv6HeaderTest::NAMES.iter().find(|(long, short, ..)| *long == lower || *short == lower);
        let number = || names::protocol(&lower).and_then(|p| Ipv6HeaderTest::NAMES.iter().find(|(_, _, n, _)| *n == p));
        own.or_else(number)
            .map(|(.., bit)| mask | bit)
            .ok_or_else(|| Fault::new(word.column, format!("`{name}` is no IPv6 extension header")))
    })
}

fn ipv6_options(opt: &Opt) -> Result<Vec<(u8, Option<u8>)>, Fault> {
    let word = opt.arg()?;
    let part = |text: &str| fit::<u8>(&Word { text: text.to_owned(), column: word.column, quoted: false }, "option");
    let list = word.text.split(',').map(|text| {
        let (kind, len) = text.split_once(':').map_or((text, None), |(kind, len)| (kind, Some(len)));
        Ok((part(kind)?, len.map(part).transpose()?))
    });
    let list = list.collect::<Result<Vec<_>, Fault>>()?;
    // IP6T_OPTS_OPTSNR
    if list.len() > 16 { Err(Fault::new(word.column, "at most 16 options")) } else { Ok(list) }
}

fn rt(instance: &Instance) -> Result<RtTest, Fault> {
    let read = |name: &str, what: &str| instance.get(name).map(|opt| span(opt, what, u32::MAX)).transpose();
    let mut addrs = Vec::new();
    if let Some(opt) = instance.get("rt-0-addrs") {
        let word = opt.arg()?;
        for text in word.text.split(',') {
            let addr = text.parse();
            addrs.push(addr.map_err(|_| Fault::new(word.column, format!("`{text}` is no IPv6 address")))?);
        }
        // IP6T_RT_HOPS
        if addrs.len() > 16 {
            return Err(Fault::new(word.column, "at most 16 addresses"));
        }
    }
    let test = RtTest {
        kind: read("rt-type", "routing type")?,
        segsleft: read("rt-segsleft", "number of segments")?,
        len: read("rt-len", "header length")?,
        reserved: instance.has("rt-0-res"),
        addrs,
        not_strict: instance.has("rt-0-not-strict"),
    };
    let zero = test.kind.is_some_and(|kind| !kind.negated && (kind.from, kind.to) == (0, 0));
    if !zero && (test.reserved || !test.addrs.is_empty() || test.not_strict) {
        return Err(Fault::new(instance.column, "the `--rt-0-…` options need `--rt-type 0` before them"));
    }
    Ok(test)
}

fn mobility(opt: &Opt) -> Result<Span, Fault> {
    const TYPES: [(&str, u32); 8] = [
        ("binding-refresh-request", 0),
        ("home-test-init", 1),
        ("careof-test-init", 2),
        ("home-test", 3),
        ("careof-test", 4),
        ("binding-update", 5),
        ("binding-acknowledgement", 6),
        ("binding-error", 7),
    ];
    const SHORT: [(&str, u32); 8] =
        [("brr", 0), ("hoti", 1), ("coti", 2), ("hot", 3), ("cot", 4), ("bu", 5), ("ba", 6), ("be", 7)];
    let word = opt.arg()?;
    let lower = word.text.to_ascii_lowercase();
    let named = |text: &str| {
        let exact = TYPES.iter().chain(&SHORT).find(|(name, _)| *name == text);
        let mut begun = TYPES.iter().filter(|(name, _)| !text.is_empty() && name.starts_with(text));
        exact.or_else(|| begun.next().filter(|_| begun.next().is_none())).map(|(_, n)| *n)
    };
    if let Some((from, to)) = lower.split_once(':')
        && let (Some(from), Some(to)) = (named(from), named(to))
        && from <= to
    {
        return Ok(Span { negated: opt.negated, from, to });
    }
    match named(&lower) {
        Some(n) => Ok(Span { negated: opt.negated, from: n, to: n }),
        None => span(opt, "mobility header type", 255),
    }
}

fn cluster(instance: &Instance) -> Result<ClusterTest, Fault> {
    let missing = |what: &str| Fault::new(instance.column, format!("`-m cluster` needs {what}"));
    let read = |name: &str| instance.get(name).map(|opt| number(opt, "number", u32::MAX)).transpose();
    let (_, total) = read("cluster-total-nodes")?.ok_or_else(|| missing("`--cluster-total-nodes N`"))?;
    let (_, seed) = read("cluster-hash-seed")?.ok_or_else(|| missing("`--cluster-hash-seed N`"))?;
    let (negated, nodes) = match (read("cluster-local-node")?, read("cluster-local-nodemask")?) {
        (Some((negated, n)), _) if (1..=32).contains(&n) => (negated, 1 << (n - 1)),
        (None, Some(mask)) => mask,
        (Some(_), _) => return Err(missing("a local node from 1 to 32")),
        (None, None) => return Err(missing("`--cluster-local-node N` or `--cluster-local-nodemask MASK`")),
    };
    if !(1..=32).contains(&total) || u64::from(nodes) >= 1 << total {
        return Err(missing("its local nodes among the nodes that there are, at most 32"));
    }
    Ok(ClusterTest { negated, nodes, total, seed })
}

fn policy(instance: &Instance, family: Family) -> Result<PolicyTest, Fault> {
    let mut test = PolicyTest { inward: false, none: false, strict: instance.has("strict"), elements: Vec::new() };
    let mut element = PolicyElement::default();
    let (mut dir, mut pol) = (false, false);
    for opt in &instance.opts {
        let word = if opt.args.is_empty() { None } else { Some(opt.arg()?) };
        let text = word.map_or("", |word| word.text.as_str());
        let bad =
            || Fault::new(word.map_or(opt.column, |w| w.column), format!("`{text}` is no value for `--{}`", opt.name));
        let net = || -> Result<Net, Fault> { values::net(text, word.map_or(0, |w| w.column), family)?.ok_or_else(bad) };
        match opt.name.as_str() {
            "dir" => {
                (dir, test.inward) = (true, text == "in");
                if !matches!(text, "in" | "out") {
                    return Err(bad());
                }
            }
            "pol" => {
                (pol, test.none) = (true, text == "none");
                if !matches!(text, "none" | "ipsec") {
                    return Err(bad());
                }
            }
            "reqid" => element.reqid = Some(number(opt, "reqid", u32::MAX)?),
            "spi" => element.spi = Some(number(opt, "SPI", u32::MAX)?),
            "proto" => {
                let proto = names::protocol(text).filter(|p| matches!(p, 50 | 51 | 108)).ok_or_else(bad)?;
                element.proto = Some((opt.negated, proto));
            }
            "mode" => {
                if !matches!(text, "tunnel" | "transport") {
                    return Err(bad());
                }
                element.tunnel = Some((opt.negated, text == "tunnel"));
            }
            "tunnel-src" => element.src = Some((opt.negated, net()?)),
            "tunnel-dst" => element.dst = Some((opt.negated, net()?)),
            "next" => test.elements.push(std::mem::take(&mut element)),
            _ => (),
        }
    }
    if element != PolicyElement::default() || !test.elements.is_empty() {
        test.elements.push(element);
    }
    if !dir || !pol {
        return Err(Fault::new(instance.column, "`-m policy` needs `--dir in|out` and `--pol none|ipsec`"));
    }
    Ok(test)
}

fn string(instance: &Instance) -> Result<StringTest, Fault> {
    let (opt, hex) = match (instance.get("string"), instance.get("hex-string")) {
        (Some(opt), None) => (opt, false),
        (None, Some(opt)) => (opt, true),
        _ => return Err(Fault::new(instance.column, "`-m string` needs `--string TEXT` or `--hex-string TEXT`")),
    };
    let word = opt.arg()?;
    let pattern = if hex { StringTest::of_hex(&word.text) } else { Some(word.text.clone().into_bytes()) };
    let pattern =
        pattern.ok_or_else(|| Fault::new(word.column, "the hexadecimal part between `|` is not well-formed"))?;
    if pattern.is_empty() || pattern.len() > 128 {
        return Err(Fault::new(word.column, "a pattern has 1 to 128 octets"));
    }
    let algo =
        instance.get("algo").ok_or_else(|| Fault::new(instance.column, "`-m string` needs `--algo bm` or `kmp`"))?;
    let kmp = match algo.arg()?.text.as_str() {
        "kmp" => true,
        "bm" => false,
        other => return Err(Fault::new(algo.column, format!("`{other}` is no algorithm")).hint("bm or kmp")),
    };
    let offset = |name: &str| instance.get(name).map(|opt| fit(opt.arg()?, "offset")).transpose();
    let (from, to) = (offset("from")?.unwrap_or(0), offset("to")?.unwrap_or(u16::MAX));
    Ok(StringTest { negated: opt.negated, pattern, kmp, from, to, icase: instance.has("icase") })
}

fn time(instance: &Instance) -> Result<TimeTest, Fault> {
    let mut test = TimeTest::default();
    for opt in &instance.opts {
        let text = if opt.args.is_empty() { "" } else { opt.arg()?.text.as_str() };
        let column = opt.args.first().map_or(opt.column, |word| word.column);
        let bad = || Fault::new(column, format!("`{text}` is no value for `--{}`", opt.name));
        match opt.name.as_str() {
            "datestart" => test.date_start = TimeTest::date(text).ok_or_else(bad)?,
            "datestop" => test.date_stop = TimeTest::date(text).ok_or_else(bad)?,
            "timestart" => test.day_start = TimeTest::clock(text).ok_or_else(bad)?,
            "timestop" => test.day_stop = TimeTest::clock(text).ok_or_else(bad)?,
            "monthdays" => {
                let days = TimeTest::month_days_of(text).ok_or_else(bad)?;
                test.month_days = if opt.negated { !days & 0xffff_fffe } else { days };
            }
            "weekdays" => {
                let days = TimeTest::week_days_of(text).ok_or_else(bad)?;
                test.week_days = if opt.negated { !days & 0xfe } else { days };
            }
            "contiguous" => test.contiguous = true,
            "kerneltz" | "localtz" => test.kernel_tz = true,
            _ => (),
        }
    }
    Ok(test)
}
