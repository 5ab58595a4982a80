//! Which options each module and target has, and how many words each takes.

/// One option: the names it may be written with, the first being its own; and its argument count.
pub(super) struct OptionSpec {
    pub(super) names: &'static [&'static str],
    pub(super) args: u8,
}

/// A module or target with its options.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) options: &'static [OptionSpec],
}

const fn o(names: &'static [&'static str], args: u8) -> OptionSpec {
    OptionSpec { names, args }
}

/// Core options by long name; the short ones are resolved to these.
pub(super) const CORE: &[OptionSpec] = &[
    o(&["source", "src"], 1),
    o(&["destination", "dst"], 1),
    o(&["in-interface"], 1),
    o(&["out-interface"], 1),
    o(&["protocol", "proto"], 1),
    o(&["fragment", "fragments"], 0),
    o(&["match"], 1),
    o(&["jump"], 1),
    o(&["goto"], 1),
    o(&["set-counters"], 2),
    o(&["append"], 1),
    o(&["insert"], 1),
    o(&["ipv4"], 0),
    o(&["ipv6"], 0),
    o(&["wait"], 0),
    o(&["table"], 1),
];

const SPORT: OptionSpec = o(&["sport", "source-port"], 1);
const DPORT: OptionSpec = o(&["dport", "destination-port"], 1);

/// Matches whose options this program reads.
pub(super) const MATCHES: &[Spec] = &[
    Spec { name: "tcp", options: &[SPORT, DPORT, o(&["tcp-option"], 1), o(&["tcp-flags"], 2), o(&["syn"], 0)] },
    Spec { name: "udp", options: &[SPORT, DPORT] },
    Spec { name: "udplite", options: &[SPORT, DPORT] },
    Spec { name: "sctp", options: &[SPORT, DPORT, o(&["chunk-types"], 2)] },
    Spec { name: "dccp", options: &[SPORT, DPORT, o(&["dccp-types"], 1), o(&["dccp-option"], 1)] },
    Spec { name: "icmp", options: &[o(&["icmp-type"], 1)] },
    Spec { name: "icmp6", options: &[o(&["icmpv6-type", "icmp6-type"], 1)] },
    Spec {
        name: "multiport",
        options: &[o(&["sports", "source-ports"], 1), o(&["dports", "destination-ports"], 1), o(&["ports"], 1)],
    },
    Spec { name: "state", options: &[o(&["state"], 1)] },
    Spec {
        name: "conntrack",
        options: &[
            o(&["ctstate"], 1),
            o(&["ctproto"], 1),
            o(&["ctorigsrc"], 1),
            o(&["ctorigdst"], 1),
            o(&["ctreplsrc"], 1),
            o(&["ctrepldst"], 1),
            o(&["ctorigsrcport"], 1),
            o(&["ctorigdstport"], 1),
            o(&["ctreplsrcport"], 1),
            o(&["ctrepldstport"], 1),
            o(&["ctstatus"], 1),
            o(&["ctexpire"], 1),
            o(&["ctdir"], 1),
        ],
    },
    Spec { name: "mark", options: &[o(&["mark"], 1)] },
    Spec { name: "connmark", options: &[o(&["mark"], 1)] },
    Spec { name: "comment", options: &[o(&["comment"], 1)] },
    Spec { name: "iprange", options: &[o(&["src-range"], 1), o(&["dst-range"], 1)] },
    Spec { name: "mac", options: &[o(&["mac-source"], 1)] },
    Spec {
        name: "addrtype",
        options: &[o(&["src-type"], 1), o(&["dst-type"], 1), o(&["limit-iface-in"], 0), o(&["limit-iface-out"], 0)],
    },
    Spec {
        name: "owner",
        options: &[
            o(&["uid-owner"], 1),
            o(&["gid-owner"], 1),
            o(&["socket-exists"], 0),
            o(&["suppl-groups"], 0),
            o(&["pid-owner"], 1),
            o(&["sid-owner"], 1),
            o(&["cmd-owner"], 1),
        ],
    },
    Spec { name: "length", options: &[o(&["length"], 1)] },
    Spec { name: "ttl", options: &[o(&["ttl-eq", "ttl"], 1), o(&["ttl-lt"], 1), o(&["ttl-gt"], 1)] },
    Spec { name: "hl", options: &[o(&["hl-eq"], 1), o(&["hl-lt"], 1), o(&["hl-gt"], 1)] },
    Spec { name: "tos", options: &[o(&["tos"], 1)] },
    Spec { name: "dscp", options: &[o(&["dscp"], 1), o(&["dscp-class"], 1)] },
    Spec { name: "pkttype", options: &[o(&["pkt-type"], 1)] },
    Spec {
        name: "set",
        options: &[
            o(&["match-set", "set"], 2),
            o(&["return-nomatch"], 0),
            o(&["update-counters"], 0),
            o(&["update-subcounters"], 0),
            o(&["packets-eq"], 1),
            o(&["packets-lt"], 1),
            o(&["packets-gt"], 1),
            o(&["bytes-eq"], 1),
            o(&["bytes-lt"], 1),
            o(&["bytes-gt"], 1),
        ],
    },
    Spec { name: "limit", options: &[o(&["limit"], 1), o(&["limit-burst"], 1)] },
    Spec {
        name: "hashlimit",
        options: &[
            o(&["hashlimit-upto", "hashlimit"], 1),
            o(&["hashlimit-above"], 1),
            o(&["hashlimit-burst"], 1),
            o(&["hashlimit-mode"], 1),
            o(&["hashlimit-srcmask"], 1),
            o(&["hashlimit-dstmask"], 1),
            o(&["hashlimit-name"], 1),
            o(&["hashlimit-htable-size"], 1),
            o(&["hashlimit-htable-max"], 1),
            o(&["hashlimit-htable-expire"], 1),
            o(&["hashlimit-htable-gcinterval"], 1),
            o(&["hashlimit-rate-match"], 0),
            o(&["hashlimit-rate-interval"], 1),
        ],
    },
    Spec {
        name: "recent",
        options: &[
            o(&["set"], 0),
            o(&["rcheck"], 0),
            o(&["update"], 0),
            o(&["remove"], 0),
            o(&["seconds"], 1),
            o(&["reap"], 0),
            o(&["hitcount"], 1),
            o(&["rttl"], 0),
            o(&["name"], 1),
            o(&["mask"], 1),
            o(&["rsource"], 0),
            o(&["rdest"], 0),
        ],
    },
    Spec {
        name: "statistic",
        options: &[o(&["mode"], 1), o(&["probability"], 1), o(&["every"], 1), o(&["packet"], 1)],
    },
    Spec {
        name: "time",
        options: &[
            o(&["datestart"], 1),
            o(&["datestop"], 1),
            o(&["timestart"], 1),
            o(&["timestop"], 1),
            o(&["monthdays"], 1),
            o(&["weekdays", "days"], 1),
            o(&["contiguous"], 0),
            o(&["kerneltz"], 0),
            o(&["utc"], 0),
            o(&["localtz"], 0),
        ],
    },
    Spec { name: "quota", options: &[o(&["quota"], 1)] },
    Spec {
        name: "connlimit",
        options: &[
            o(&["connlimit-upto"], 1),
            o(&["connlimit-above"], 1),
            o(&["connlimit-mask"], 1),
            o(&["connlimit-saddr"], 0),
            o(&["connlimit-daddr"], 0),
        ],
    },
    Spec { name: "connbytes", options: &[o(&["connbytes"], 1), o(&["connbytes-dir"], 1), o(&["connbytes-mode"], 1)] },
    Spec { name: "esp", options: &[o(&["espspi"], 1)] },
    Spec { name: "ah", options: &[o(&["ahspi"], 1), o(&["ahlen"], 1), o(&["ahres"], 0)] },
    Spec { name: "ipcomp", options: &[o(&["ipcompspi"], 1), o(&["compres"], 0)] },
    Spec { name: "ecn", options: &[o(&["ecn-tcp-cwr"], 0), o(&["ecn-tcp-ece"], 0), o(&["ecn-ip-ect"], 1)] },
    Spec { name: "tcpmss", options: &[o(&["mss"], 1)] },
    Spec { name: "osf", options: &[o(&["genre"], 1), o(&["ttl"], 1), o(&["log"], 1)] },
    Spec {
        name: "frag",
        options: &[
            o(&["fragid"], 1),
            o(&["fraglen"], 1),
            o(&["fragres"], 0),
            o(&["fragfirst"], 0),
            o(&["fragmore"], 0),
            o(&["fraglast"], 0),
        ],
    },
    Spec { name: "ipv6header", options: &[o(&["header"], 1), o(&["soft"], 0)] },
    Spec {
        name: "rt",
        options: &[
            o(&["rt-type"], 1),
            o(&["rt-segsleft"], 1),
            o(&["rt-len"], 1),
            o(&["rt-0-res"], 0),
            o(&["rt-0-addrs"], 1),
            o(&["rt-0-not-strict"], 0),
        ],
    },
    Spec { name: "hbh", options: &[o(&["hbh-len"], 1), o(&["hbh-opts"], 1)] },
    Spec { name: "dst", options: &[o(&["dst-len"], 1), o(&["dst-opts"], 1)] },
    Spec { name: "mh", options: &[o(&["mh-type"], 1)] },
    Spec { name: "eui64", options: &[] },
    Spec {
        name: "srh",
        options: &[
            o(&["srh-next-hdr"], 1),
            o(&["srh-hdr-len-eq"], 1),
            o(&["srh-hdr-len-gt"], 1),
            o(&["srh-hdr-len-lt"], 1),
            o(&["srh-segs-left-eq"], 1),
            o(&["srh-segs-left-gt"], 1),
            o(&["srh-segs-left-lt"], 1),
            o(&["srh-last-entry-eq"], 1),
            o(&["srh-last-entry-gt"], 1),
            o(&["srh-last-entry-lt"], 1),
            o(&["srh-tag"], 1),
            o(&["srh-psid"], 1),
            o(&["srh-nsid"], 1),
            o(&["srh-lsid"], 1),
        ],
    },
    Spec {
        name: "ipvs",
        options: &[
            o(&["ipvs"], 0),
            o(&["vproto"], 1),
            o(&["vaddr"], 1),
            o(&["vport"], 1),
            o(&["vdir"], 1),
            o(&["vmethod"], 1),
            o(&["vportctl"], 1),
        ],
    },
    Spec {
        name: "physdev",
        options: &[
            o(&["physdev-in"], 1),
            o(&["physdev-out"], 1),
            o(&["physdev-is-in"], 0),
            o(&["physdev-is-out"], 0),
            o(&["physdev-is-bridged"], 0),
        ],
    },
    Spec {
        name: "rpfilter",
        options: &[o(&["loose"], 0), o(&["validmark"], 0), o(&["accept-local"], 0), o(&["invert"], 0)],
    },
    Spec { name: "socket", options: &[o(&["transparent"], 0), o(&["nowildcard"], 0), o(&["restore-skmark"], 0)] },
    Spec { name: "helper", options: &[o(&["helper"], 1)] },
    Spec {
        name: "cluster",
        options: &[
            o(&["cluster-total-nodes"], 1),
            o(&["cluster-local-node"], 1),
            o(&["cluster-local-nodemask"], 1),
            o(&["cluster-hash-seed"], 1),
        ],
    },
    Spec { name: "realm", options: &[o(&["realm"], 1)] },
    Spec { name: "devgroup", options: &[o(&["src-group"], 1), o(&["dst-group"], 1)] },
    Spec {
        name: "policy",
        options: &[
            o(&["dir"], 1),
            o(&["pol"], 1),
            o(&["strict"], 0),
            o(&["reqid"], 1),
            o(&["spi"], 1),
            o(&["proto"], 1),
            o(&["mode"], 1),
            o(&["tunnel-src"], 1),
            o(&["tunnel-dst"], 1),
            o(&["next"], 0),
        ],
    },
    Spec { name: "cpu", options: &[o(&["cpu"], 1)] },
    Spec { name: "nfacct", options: &[o(&["nfacct-name"], 1)] },
    Spec { name: "cgroup", options: &[o(&["cgroup"], 1), o(&["path"], 1)] },
    Spec { name: "connlabel", options: &[o(&["label"], 1), o(&["set"], 0)] },
    Spec {
        name: "string",
        options: &[
            o(&["string"], 1),
            o(&["hex-string"], 1),
            o(&["algo"], 1),
            o(&["from"], 1),
            o(&["to"], 1),
            o(&["icase"], 0),
        ],
    },
    Spec { name: "u32", options: &[o(&["u32"], 1)] },
    Spec { name: "bpf", options: &[o(&["bytecode"], 1)] },
];

/// Matches that rest on chance or history.
pub(super) const STATEFUL: &[&str] = &["limit", "hashlimit", "recent", "statistic", "quota", "connlimit", "connbytes"];

const RANDOM: OptionSpec = o(&["random"], 0);
const RANDOM_FULLY: OptionSpec = o(&["random-fully"], 0);
const PERSISTENT: OptionSpec = o(&["persistent"], 0);

/// Targets whose options this program reads.
pub(super) const TARGETS: &[Spec] = &[
    Spec { name: "ACCEPT", options: &[] },
    Spec { name: "DROP", options: &[] },
    Spec { name: "RETURN", options: &[] },
    Spec { name: "QUEUE", options: &[] },
    Spec { name: "NOTRACK", options: &[] },
    Spec { name: "REJECT", options: &[o(&["reject-with"], 1)] },
    Spec {
        name: "NFQUEUE",
        options: &[
            o(&["queue-num"], 1),
            o(&["queue-balance"], 1),
            o(&["queue-bypass"], 0),
            o(&["queue-cpu-fanout"], 0),
        ],
    },
    Spec {
        name: "LOG",
        options: &[
            o(&["log-prefix"], 1),
            o(&["log-level"], 1),
            o(&["log-tcp-sequence"], 0),
            o(&["log-tcp-options"], 0),
            o(&["log-ip-options"], 0),
            o(&["log-uid"], 0),
            o(&["log-macdecode"], 0),
        ],
    },
    Spec {
        name: "NFLOG",
        options: &[
            o(&["nflog-prefix"], 1),
            o(&["nflog-group"], 1),
            o(&["nflog-range"], 1),
            o(&["nflog-size"], 1),
            o(&["nflog-threshold"], 1),
        ],
    },
    Spec {
        name: "ULOG",
        options: &[
            o(&["ulog-nlgroup"], 1),
            o(&["ulog-prefix"], 1),
            o(&["ulog-cprange"], 1),
            o(&["ulog-qthreshold"], 1),
        ],
    },
    Spec {
        name: "MARK",
        options: &[
            o(&["set-xmark"], 1),
            o(&["set-mark"], 1),
            o(&["and-mark"], 1),
            o(&["or-mark"], 1),
            o(&["xor-mark"], 1),
        ],
    },
    Spec {
        name: "CONNMARK",
        options: &[
            o(&["set-xmark"], 1),
            o(&["set-mark"], 1),
            o(&["and-mark"], 1),
            o(&["or-mark"], 1),
            o(&["xor-mark"], 1),
            o(&["save-mark"], 0),
            o(&["restore-mark"], 0),
            o(&["nfmask"], 1),
            o(&["ctmask"], 1),
            o(&["mask"], 1),
        ],
    },
    Spec {
        name: "CT",
        options: &[
            o(&["notrack"], 0),
            o(&["helper"], 1),
            o(&["timeout"], 1),
            o(&["ctevents"], 1),
            o(&["expevents"], 1),
            o(&["zone-orig"], 1),
            o(&["zone-reply"], 1),
            o(&["zone"], 1),
        ],
    },
    Spec { name: "DNAT", options: &[o(&["to-destination"], 1), RANDOM, RANDOM_FULLY, PERSISTENT] },
    Spec { name: "SNAT", options: &[o(&["to-source"], 1), RANDOM, RANDOM_FULLY, PERSISTENT] },
    Spec { name: "MASQUERADE", options: &[o(&["to-ports"], 1), RANDOM, RANDOM_FULLY, PERSISTENT] },
    Spec { name: "REDIRECT", options: &[o(&["to-ports"], 1), RANDOM, RANDOM_FULLY, PERSISTENT] },
    Spec { name: "NETMAP", options: &[o(&["to"], 1)] },
    Spec { name: "TCPMSS", options: &[o(&["set-mss"], 1), o(&["clamp-mss-to-pmtu"], 0)] },
    Spec { name: "TTL", options: &[o(&["ttl-set"], 1), o(&["ttl-inc"], 1), o(&["ttl-dec"], 1)] },
    Spec { name: "HL", options: &[o(&["hl-set"], 1), o(&["hl-inc"], 1), o(&["hl-dec"], 1)] },
    Spec { name: "TOS", options: &[o(&["set-tos"], 1), o(&["and-tos"], 1), o(&["or-tos"], 1), o(&["xor-tos"], 1)] },
    Spec { name: "DSCP", options: &[o(&["set-dscp"], 1), o(&["set-dscp-class"], 1)] },
    Spec { name: "CHECKSUM", options: &[o(&["checksum-fill"], 0)] },
    Spec { name: "CLASSIFY", options: &[o(&["set-class"], 1)] },
    Spec { name: "TRACE", options: &[] },
    Spec { name: "AUDIT", options: &[o(&["type"], 1)] },
    Spec { name: "SECMARK", options: &[o(&["selctx"], 1)] },
    Spec { name: "CONNSECMARK", options: &[o(&["save"], 0), o(&["restore"], 0)] },
    Spec { name: "TEE", options: &[o(&["gateway"], 1), o(&["oif"], 1)] },
    Spec {
        name: "RATEEST",
        options: &[o(&["rateest-name"], 1), o(&["rateest-interval"], 1), o(&["rateest-ewmalog"], 1)],
    },
    Spec { name: "IDLETIMER", options: &[o(&["timeout"], 1), o(&["label"], 1), o(&["alarm"], 0)] },
    Spec { name: "ECN", options: &[o(&["ecn-tcp-remove"], 0)] },
    Spec { name: "TCPOPTSTRIP", options: &[o(&["strip-options"], 1)] },
    Spec { name: "TPROXY", options: &[o(&["on-port"], 1), o(&["on-ip"], 1), o(&["tproxy-mark"], 1)] },
    Spec {
        name: "SYNPROXY",
        options: &[o(&["sack-perm"], 0), o(&["timestamp"], 0), o(&["wscale"], 1), o(&["mss"], 1), o(&["ecn"], 0)],
    },
    Spec {
        name: "SET",
        options: &[
            o(&["add-set"], 2),
            o(&["del-set"], 2),
            o(&["map-set"], 2),
            o(&["exist"], 0),
            o(&["timeout"], 1),
            o(&["map-mark"], 0),
            o(&["map-prio"], 0),
            o(&["map-queue"], 0),
        ],
    },
    Spec {
        name: "HMARK",
        options: &[
            o(&["hmark-src-prefix"], 1),
            o(&["hmark-dst-prefix"], 1),
            o(&["hmark-sport-mask"], 1),
            o(&["hmark-dport-mask"], 1),
            o(&["hmark-sport"], 1),
            o(&["hmark-dport"], 1),
            o(&["hmark-spi-mask"], 1),
            o(&["hmark-spi"], 1),
            o(&["hmark-proto-mask"], 1),
            o(&["hmark-rnd"], 1),
            o(&["hmark-mod"], 1),
            o(&["hmark-offset"], 1),
            o(&["hmark-tuple"], 1),
        ],
    },
    Spec { name: "LED", options: &[o(&["led-trigger-id"], 1), o(&["led-delay"], 1), o(&["led-always-blink"], 0)] },
];

/// Targets that decide nothing and change nothing that this program follows.
pub(super) const OBSERVERS: &[&str] =
    &["ULOG", "CHECKSUM", "CLASSIFY", "TRACE", "AUDIT", "SECMARK", "CONNSECMARK", "TEE", "RATEEST", "IDLETIMER", "LED"];

/// The spec with this name.
pub(super) fn find(specs: &'static [Spec], name: &str) -> Option<&'static Spec> {
    specs.iter().find(|spec| spec.name == name)
}

/// Other names of modules.
pub(super) fn canonical_match(name: &str) -> &str {
    match name {
        "icmpv6" | "ipv6-icmp" => "icmp6",
        "mport" => "multiport",
        other => other,
    }
}
