//! A host's firewall as the lab keeps it: iptables-save text, changed as the `iptables` command would
//! change it, and loaded whole.

use serde::{Deserialize, Serialize};

use crate::os::nft;

/// A host's rules of both families, as `iptables-save` and `ip6tables-save` write them. Empty text is
/// an empty filter table with policies ACCEPT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// IPv4.
    pub v4: String,
    /// IPv6.
    pub v6: String,
}

/// A table that lets everything pass.
pub const OPEN: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

impl Firewall {
    /// IPv4 rules alone.
    pub fn v4(text: &str) -> Self {
        Self { v4: text.to_owned(), v6: String::new() }
    }

    /// The text of a family, never empty.
    pub fn text(&self, v6: bool) -> &str {
        let text = if v6 { &self.v6 } else { &self.v4 };
        if text.is_empty() { OPEN } else { text }
    }
}

/// Why an `iptables` command cannot be carried out on a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EditError(String);

/// Carries out one `iptables` command (its arguments, already split) on `iptables-save` text: -A, -I, -D,
/// -R, -P, -F, -N, -X, with -t. Whether a rule makes sense is for the one who loads it to say.
///
/// # Errors
/// A command, table, chain or rule that is not there.
pub fn edit(text: &str, args: &[String]) -> Result<String, EditError> {
    let bad = |why: String| Err(EditError(why));
    let mut args = args.to_vec();
    let mut table = "filter".to_owned();
    if let Some(at) = args.iter().position(|arg| arg == "-t" || arg == "--table") {
        if at + 1 >= args.len() {
            return bad("-t needs a table".to_owned());
        }
        table = args.remove(at + 1);
        args.remove(at);
    }
    // Waiting for a lock that there is none of.
    args.retain(|arg| arg != "-w" && arg != "--wait");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let header = format!("*{table}");
    let begin = if let Some(begin) = lines.iter().position(|line| line.trim() == header) {
        begin
    } else {
        let chains = builtin(&table).ok_or_else(|| EditError(format!("there is no table {table}")))?;
        lines.push(header);
        lines.extend(chains.iter().map(|chain| format!(":{chain} ACCEPT [0:0]")));
        lines.push("COMMIT".to_owned());
        lines.len() - chains.len() - 2
    };
    let end = lines[begin..]
        .iter()
        .position(|line| line.trim() == "COMMIT")
        .map(|offset| begin + offset)
        .ok_or_else(|| EditError(format!("the table {table} has no COMMIT")))?;
    let mut words = args.into_iter();
    let command = words.next().ok_or_else(|| EditError("no command".to_owned()))?;
    let chain = words.next();
    let mut rest: Vec<String> = words.collect();
    let named = chain.clone().ok_or_else(|| EditError(format!("{command} needs a chain")));
    let declared = |lines: &[String], name: &str| {
        lines[begin..end].iter().position(|line| line.starts_with(&format!(":{name} "))).map(|offset| begin + offset)
    };
    let rules = |lines: &[String], name: &str| -> Vec<usize> {
        (begin..end).filter(|index| words_of(&lines[*index]).get(1).is_some_and(|word| word == name)).collect()
    };
    let known = |lines: &[String], name: &str| match declared(lines, name) {
        Some(at) => Ok(at),
        None => Err(EditError(format!("there is no chain {name} in {table}"))),
    };
    match command.as_str() {
        "-A" | "--append" => {
            let chain = named?;
            known(&lines, &chain)?;
            lines.insert(end, rule_line(&chain, &rest));
        }
        "-I" | "--insert" => {
            let chain = named?;
            known(&lines, &chain)?;
            let number = rest.first().and_then(|word| word.parse::<usize>().ok());
            if number.is_some() {
                rest.remove(0);
            }
            let number = number.unwrap_or(1);
            let there = rules(&lines, &chain);
            let at = match there.get(number.saturating_sub(1)) {
                _ if number == 0 => return bad("rules count from 1".to_owned()),
                Some(at) => *at,
                None if number == there.len() + 1 => end,
                None => return bad(format!("{chain} has only {} rules", there.len())),
            };
            lines.insert(at, rule_line(&chain, &rest));
        }
        "-D" | "--delete" | "-R" | "--replace" => {
            let chain = named?;
            known(&lines, &chain)?;
            let there = rules(&lines, &chain);
            let number = rest.first().and_then(|word| word.parse::<usize>().ok());
            let at = if let Some(number) = number {
                there.get(number.wrapping_sub(1)).copied()
            } else {
                let wanted = normal(&rest);
                there.iter().copied().find(|index| normal(&words_of(&lines[*index])[2..]) == wanted)
            };
            let at = at.ok_or_else(|| EditError(format!("there is no such rule in {chain}")))?;
            lines.remove(at);
            if command == "-R" || command == "--replace" {
                if number.is_none() {
                    return bad("-R needs a rule's number".to_owned());
                }
                lines.insert(at, rule_line(&chain, &rest[1..]));
            }
        }
        "-P" | "--policy" => {
            let chain = named?;
            let at = known(&lines, &chain)?;
            let policy = rest.first().ok_or_else(|| EditError("-P needs a policy".to_owned()))?;
            if policy != "ACCEPT" && policy != "DROP" {
                return bad(format!("`{policy}` is no policy"));
            }
            lines[at] = format!(":{chain} {policy} [0:0]");
        }
        "-F" | "--flush" => {
            let mut index = begin;
            lines.retain(|line| {
                let within = (begin..end).contains(&index);
                index += 1;
                let words = words_of(line);
                let is_rule = words.first().is_some_and(|word| word == "-A");
                !(within && is_rule && chain.as_ref().is_none_or(|name| words.get(1) == Some(name)))
            });
        }
        "-N" | "--new-chain" => {
            let chain = named?;
            if declared(&lines, &chain).is_some() {
                return bad(format!("there is a chain {chain} already"));
            }
            lines.insert(begin + 1, format!(":{chain} - [0:0]"));
        }
        "-X" | "--delete-chain" => {
            let chain = named?;
            let at = known(&lines, &chain)?;
            lines.remove(at);
        }
        other => return bad(format!("the lab does not do `iptables {other}`")),
    }
    Ok(lines.join("\n") + "\n")
}

fn builtin(table: &str) -> Option<&'static [&'static str]> {
    Some(match table {
        "filter" => &["INPUT", "FORWARD", "OUTPUT"],
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        _ => return None,
    })
}

fn rule_line(chain: &str, rest: &[String]) -> String {
    let quoted: Vec<String> = rest.iter().map(|word| quote(word)).collect();
    format!("-A {chain} {}", quoted.join(" "))
}

fn quote(word: &str) -> String {
    if word.is_empty() || word.contains([' ', '\t']) {
        format!("\"{}\"", word.replace('"', "\\\""))
    } else {
        word.to_owned()
    }
}

/// Splits a line into words as a shell does, as far as rules need: quotes and backslashes.
pub fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (Some(q), c) if c == q => quoted = None,
            (None, '"' | '\'') => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A rule's words in one order and spelling, so that one that was typed equals one that was saved:
/// `iptables-save` adds `-m tcp` to `-p tcp --dport …` and a `/32` to a lone address.
fn normal(words: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for word in words {
        let long = match word.as_str() {
            "--protocol" => "-p",
            "--source" | "--src" => "-s",
            "--destination" | "--dst" => "-d",
            "--jump" => "-j",
            "--match" => "-m",
            "--in-interface" => "-i",
            "--out-interface" => "-o",
            "--destination-port" => "--dport",
            "--source-port" => "--sport",
            other => other.strip_suffix("/32").unwrap_or(other),
        };
        match parts.last_mut() {
            Some(last) if !long.starts_with('-') => *last = format!("{last} {long}"),
            _ => parts.push(long.to_owned()),
        }
    }
    parts.retain(|part| !matches!(part.as_str(), "-m tcp" | "-m udp" | "-m icmp"));
    parts.sort();
    parts
}

/// Loads both families' rules into the network of the calling thread, in place of what was there.
///
/// # Errors
/// What the loader said.
pub fn load(firewall: &Firewall) -> Result<(), String> {
    for v6 in [false, true] {
        // IPv6's tables are left alone until there is something to put there.
        if v6 && firewall.v6.is_empty() {
            continue;
        }
        nft::load_iptables_save(firewall.text(v6), v6).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAIR: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n\
        -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n-A INPUT -s 10.0.0.1/32 -m comment --comment \"two words\" -j DROP\n\
        -A OUTPUT -p tcp -m tcp --sport 8080 -j ACCEPT\nCOMMIT\n";

    fn run(text: &str, command: &str) -> Result<String, EditError> {
        edit(text, &words_of(command))
    }

    #[test]
    fn rules_are_added_inserted_and_removed_where_they_belong() {
        let added = run(PAIR, "-A OUTPUT -p icmp -j ACCEPT").unwrap();
        assert!(added.ends_with("-A OUTPUT -p icmp -j ACCEPT\nCOMMIT\n"), "{added}");
        let inserted = run(PAIR, "-I INPUT 2 -i lo -j ACCEPT").unwrap();
        assert!(inserted.find("-i lo").unwrap() < inserted.find("two words").unwrap());
        assert!(inserted.find("--dport").unwrap() < inserted.find("-i lo").unwrap());
        assert_eq!(run(&inserted, "-D INPUT 2").unwrap(), PAIR);
        assert_eq!(run(&added, "-D OUTPUT -p icmp -j ACCEPT").unwrap(), PAIR);
    }

    #[test]
    fn a_rule_is_found_as_people_write_it() {
        assert!(!run(PAIR, "-D OUTPUT -p tcp --sport 8080 -j ACCEPT").unwrap().contains("--sport"));
        assert!(
            !run(PAIR, "-D INPUT -s 10.0.0.1 -m comment --comment 'two words' -j DROP").unwrap().contains("two words")
        );
        assert!(run(PAIR, "-D OUTPUT -p tcp --sport 8081 -j ACCEPT").unwrap_err().to_string().contains("no such rule"));
    }

    #[test]
    fn policies_flush_and_other_tables() {
        assert!(run(PAIR, "-P OUTPUT ACCEPT").unwrap().contains(":OUTPUT ACCEPT [0:0]"));
        assert!(!run(PAIR, "-F").unwrap().contains("-A "));
        assert_eq!(run(PAIR, "-F INPUT").unwrap().matches("-A ").count(), 1);
        let nat = run(PAIR, "-t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080").unwrap();
        assert!(nat.starts_with(PAIR) && nat.contains("*nat\n:PREROUTING ACCEPT"));
        for bad in
            ["", "-A", "-A NOPE -j DROP", "-I INPUT 9 -j DROP", "-P INPUT REJECT", "-t nope -F", "-L", "-D INPUT 0"]
        {
            assert!(run(PAIR, bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_command_make_it_panic(text in "[ -~\n*:]{0,200}", command in "[ -~]{0,80}") {
            let _ = run(&text, &command);
            let _ = run(PAIR, &command);
        }
    }
}
