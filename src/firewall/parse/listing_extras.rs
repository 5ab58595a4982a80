//! What matches and targets print at the end of a row of `iptables -L` (`print` of each extension
//! in iptables' `extensions/`).

/// A row's extras as options of a rule.
#[derive(Default)]
pub(super) struct Extras {
    /// Matches, as they are written in a rule.
    pub(super) arguments: Vec<String>,
    /// The target's options.
    pub(super) target: Vec<String>,
    pub(super) goto: bool,
    /// Modules whose outcome rests on history, with their words.
    pub(super) stateful: Vec<(String, String)>,
    /// What is not understood, from there to the row's end.
    pub(super) unknown: Option<String>,
}

/// Reads the text after the destination.
pub(super) fn read(text: &str, target: Option<&str>) -> Extras {
    let mut extras = Extras::default();
    // Comments first: they may hold anything.
    let mut rest = text.to_owned();
    while let Some(from) = rest.find("/* ") {
        let Some(length) = rest[from..].find(" */") else { break };
        let comment = rest[from + 3..from + length].to_owned();
        extras.arguments.extend(["-m".into(), "comment".into(), "--comment".into(), comment]);
        rest.replace_range(from..from + length + 3, " ");
    }
    let words = split(&rest);
    let mut at = 0;
    while at < words.len() {
        if let Some(taken) = one(&words[at..], target, &mut extras) {
            at += taken.max(1);
        } else {
            extras.unknown = Some(words[at..].join(" "));
            break;
        }
    }
    extras
}

/// Words at blanks, `"…"` kept together.
fn split(text: &str) -> Vec<String> {
    let (mut out, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == '"' {
            quoted = !quoted;
            word.push(c);
        } else if c.is_whitespace() && !quoted {
            if !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

/// Reads what one extension printed; how many words it was, `None` where it is not known.
fn one(words: &[String], target: Option<&str>, extras: &mut Extras) -> Option<usize> {
    let word = |n: usize| words.get(n).map_or("", String::as_str);
    let mut add = |parts: &[&str]| extras.arguments.extend(parts.iter().map(|p| (*p).to_owned()));
    let negated = word(0) == "!";
    let base = usize::from(negated);
    let not: &[&str] = if negated { &["!"] } else { &[] };
    let first = word(base);
    match first {
        "tcp" | "udp" | "udplite" | "sctp" | "dccp" => {
            add(&["-m", first]);
            let mut taken = base + 1;
            while let Some(option) = words.get(taken) {
                let (name, value) = option.split_once(':').unwrap_or((option, ""));
                let (bang, value) = value.strip_prefix('!').map_or((false, value), |v| (true, v));
                let list = match name {
                    "dpt" | "dpts" => ["--dport", value].to_vec(),
                    "spt" | "spts" => ["--sport", value].to_vec(),
                    "flags" => {
                        let (mask, set) = value.split_once('/')?;
                        let (mask, set) = (flags(mask)?, flags(set)?);
                        if bang {
                            add(&["!"]);
                        }
                        add(&["--tcp-flags", &mask, &set]);
                        taken += 1;
                        continue;
                    }
                    _ => break,
                };
                if bang {
                    add(&["!"]);
                }
                add(&list);
                taken += 1;
            }
            Some(taken)
        }
        "icmp" if word(base + 1).starts_with("type") || word(base + 1).is_empty() => None,
        "icmptype" | "ipv6-icmptype" => {
            let (module, option) =
                if first == "icmptype" { ("icmp", "--icmp-type") } else { ("icmp6", "--icmpv6-type") };
            let code = (word(base + 2) == "code").then(|| word(base + 3));
            let value = code.map_or_else(|| word(base + 1).to_owned(), |code| format!("{}/{code}", word(base + 1)));
            let (bang, value) = value.strip_prefix('!').map_or((negated, value.as_str()), |v| (true, v));
            add(&["-m", module]);
            if bang {
                add(&["!"]);
            }
            add(&[option, if value == "255" { "any" } else { value }]);
            Some(base + if code.is_some() { 4 } else { 2 })
        }
        "state" => {
            add(&["-m", "state"]);
            add(not);
            add(&["--state", word(base + 1)]);
            Some(base + 2)
        }
        "ctstate" | "ctorigdstport" | "ctorigsrcport" | "ctorigdst" | "ctorigsrc" | "ctproto" | "ctdir"
        | "ctstatus" => {
            add(&["-m", "conntrack"]);
            add(not);
            add(&[&format!("--{first}"), word(base + 1)]);
            Some(base + 2)
        }
        "multiport" => {
            let side = word(base + 1);
            let (bang, list) = word(base + 2).strip_prefix('!').map_or((false, word(base + 2)), |list| (true, list));
            add(&["-m", "multiport"]);
            if bang {
                add(&["!"]);
            }
            matches!(side, "dports" | "sports" | "ports").then(|| {
                add(&[&format!("--{side}"), list]);
                base + 3
            })
        }
        "limit:" => {
            add(&["-m", "limit", "--limit", word(2)]);
            // iptables-save leaves the default out.
            if word(4) != "5" {
                add(&["--limit-burst", word(4)]);
            }
            Some(5)
        }
        "MAC" => {
            add(&["-m", "mac"]);
            let bang = word(1) == "!";
            if bang {
                add(&["!"]);
            }
            add(&["--mac-source", word(1 + usize::from(bang))]);
            Some(2 + usize::from(bang))
        }
        "source" | "destination" if word(base + 1) == "IP" && word(base + 2) == "range" => {
            let bang = word(base + 3) == "!";
            add(&["-m", "iprange"]);
            if bang {
                add(&["!"]);
            }
            add(&[if first == "source" { "--src-range" } else { "--dst-range" }, word(base + 3 + usize::from(bang))]);
            Some(base + 4 + usize::from(bang))
        }
        "match-set" => {
            add(&["-m", "set"]);
            add(not);
            add(&["--match-set", word(base + 1), word(base + 2)]);
            Some(base + 3)
        }
        "mark" | "connmark" if word(1) == "match" => {
            let bang = word(2) == "!";
            add(&["-m", first]);
            if bang {
                add(&["!"]);
            }
            add(&["--mark", word(2 + usize::from(bang))]);
            Some(3 + usize::from(bang))
        }
        "ADDRTYPE" if word(1) == "match" => {
            let mut taken = 2;
            add(&["-m", "addrtype"]);
            while matches!(word(taken), "src-type" | "dst-type") {
                let (bang, value) = word(taken + 1).strip_prefix('!').map_or((false, word(taken + 1)), |v| (true, v));
                if bang {
                    add(&["!"]);
                }
                add(&[&format!("--{}", word(taken)), value]);
                taken += 2;
            }
            Some(taken)
        }
        "owner" if matches!(word(1), "UID" | "GID") && word(2) == "match" => {
            add(&["-m", "owner", if word(1) == "UID" { "--uid-owner" } else { "--gid-owner" }, word(3)]);
            Some(4)
        }
        "PKTTYPE" if word(1) == "=" => {
            add(&["-m", "pkttype", "--pkt-type", word(2)]);
            Some(3)
        }
        "TTL" if word(1) == "match" && word(3) == "==" => {
            add(&["-m", "ttl", "--ttl-eq", word(4)]);
            Some(5)
        }
        "length" => {
            add(&["-m", "length"]);
            let (bang, value) = word(1).strip_prefix('!').map_or((false, word(1)), |v| (true, v));
            if bang {
                add(&["!"]);
            }
            add(&["--length", value]);
            Some(2)
        }
        "recent:" | "statistic" | "#conn" | "quota:" | "TIME" => {
            let module = match first {
                "recent:" => "recent",
                "#conn" => "connlimit",
                "quota:" => "quota",
                "TIME" => "time",
                other => other,
            };
            extras.stateful.push((module.to_owned(), words.join(" ")));
            Some(words.len())
        }
        "[goto]" => {
            extras.goto = true;
            Some(1)
        }
        _ => target_options(words, target?, extras),
    }
}

/// What a target printed.
fn target_options(words: &[String], target: &str, extras: &mut Extras) -> Option<usize> {
    let word = |n: usize| words.get(n).map_or("", String::as_str);
    let mut add = |parts: &[&str]| extras.target.extend(parts.iter().map(|p| (*p).to_owned()));
    match (target, word(0)) {
        ("REJECT", "reject-with") => {
            add(&["--reject-with", word(1)]);
            Some(2)
        }
        ("LOG", "LOG") => {
            let (mut taken, mut level) = (1, None);
            loop {
                match word(taken) {
                    "flags" => taken += 2,
                    "level" => {
                        // iptables-save leaves the default out.
                        level = Some(word(taken + 1)).filter(|l| !matches!(*l, "4" | "warning"));
                        taken += 2;
                    }
                    "prefix" => {
                        add(&["--log-prefix", word(taken + 1).trim_matches('"')]);
                        taken += 2;
                    }
                    _ => {
                        if let Some(level) = level {
                            add(&["--log-level", level]);
                        }
                        return Some(taken);
                    }
                }
            }
        }
        ("DNAT", to) if to.starts_with("to:") => {
            add(&["--to-destination", &to[3..]]);
            Some(1)
        }
        ("SNAT", to) if to.starts_with("to:") => {
            add(&["--to-source", &to[3..]]);
            Some(1)
        }
        ("NETMAP", to) if to.starts_with("to:") => {
            add(&["--to", &to[3..]]);
            Some(1)
        }
        ("REDIRECT", "redir") if word(1) == "ports" => {
            add(&["--to-ports", word(2)]);
            Some(3)
        }
        ("MASQUERADE", "masq") if word(1) == "ports:" => {
            add(&["--to-ports", word(2)]);
            Some(3)
        }
        ("MARK", "MARK") if matches!(word(1), "set" | "xset" | "and" | "or" | "xor") => {
            let option = match word(1) {
                "xset" => "--set-xmark",
                "set" => "--set-mark",
                "and" => "--and-mark",
                "or" => "--or-mark",
                _ => "--xor-mark",
            };
            add(&[option, word(2)]);
            Some(3)
        }
        ("CONNMARK", "CONNMARK") if matches!(word(1), "save" | "restore") && words.len() == 2 => {
            add(&[if word(1) == "save" { "--save-mark" } else { "--restore-mark" }]);
            Some(2)
        }
        ("TCPMSS", "TCPMSS") if word(1) == "clamp" => {
            add(&["--clamp-mss-to-pmtu"]);
            Some(4)
        }
        ("TCPMSS", "TCPMSS") if word(1) == "set" => {
            add(&["--set-mss", word(2)]);
            Some(3)
        }
        ("CT", "CT") if word(1) == "notrack" => {
            add(&["--notrack"]);
            Some(2)
        }
        (_, "random" | "persistent" | "random-fully") => {
            add(&[&format!("--{}", word(0))]);
            Some(1)
        }
        _ => None,
    }
}

/// `0x17` as the names of TCP flags.
fn flags(text: &str) -> Option<String> {
    let bits = u8::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    Some(crate::firewall::ruleset::TcpFlags(bits).names())
}
