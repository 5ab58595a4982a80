//! `--fix-check`: what a firewall fix would do, by the walk over the rulesets that were gathered.
//! Nothing is touched, so it works on a saved case too.

use serde::Serialize;

use super::case::{Case, End};
use super::diagnosis::{Diagnosis, Fix, Where};
use super::evidence::{Direction, Evidence, Side};
use super::target::Scheme;
use crate::firewall::edit::edit_iptables;
use crate::firewall::packet::Packet;
use crate::firewall::parse;
use crate::firewall::ruleset::{CtStates, Family, Rule, Ruleset, TcpFlags};
use crate::firewall::symbolic::{Change, diff};
use crate::firewall::walk::{DecidedBy, Facts, Stack, Verdict, walk_hook};
use crate::host::{Backend, DumpFormat, RulesetDump};

/// Areas of packets that are told.
const AREAS: usize = 40;

/// What a fix would do.
#[derive(Debug, Clone, Serialize)]
pub struct FixCheck {
    /// The command.
    pub command: String,
    /// The end it belongs to.
    pub on: Where,
    /// Why it could not be simulated; `None` where it was.
    pub not_simulated: Option<String>,
    /// Whether every packet of the connection passes that host's rules with the fix; `None` where it
    /// was not simulated, or the rules leave it open.
    pub helps: Option<bool>,
    /// The connection's packets at this host's hooks.
    pub packets: Vec<Fate>,
    /// Whether nothing else opens up but what is in `newly_passes`.
    pub complete: bool,
    /// All packets that are stopped now and would pass then, the connection's own among them.
    pub newly_passes: Vec<Change>,
}

/// One packet of the connection at one hook, before and after.
#[derive(Debug, Clone, Serialize)]
pub struct Fate {
    /// What it is: `request (SYN)`.
    pub packet: String,
    /// The hook.
    pub hook: String,
    /// What becomes of it now.
    pub now: Verdict,
    /// The rule or policy that decides now.
    pub now_by: Option<DecidedBy>,
    /// What would become of it.
    pub then: Verdict,
    /// The rule or policy that would decide.
    pub then_by: Option<DecidedBy>,
}

/// Simulates the fixes of a diagnosis, in the order in which they are printed.
pub fn fix_check(case: &Case, diagnosis: &Diagnosis) -> Vec<FixCheck> {
    let known = Evidence::new(case);
    diagnosis.root_cause.iter().flat_map(|cause| &cause.fix).map(|fix| simulate(&known, fix)).collect()
}

fn simulate(known: &Evidence<'_>, fix: &Fix) -> FixCheck {
    let mut check = FixCheck {
        command: fix.command.clone(),
        on: fix.on,
        not_simulated: None,
        helps: None,
        packets: Vec::new(),
        complete: true,
        newly_passes: Vec::new(),
    };
    let side = match fix.on {
        Where::Client => Some(&known.client),
        Where::Server => known.server.as_ref(),
        Where::Path | Where::Dns => None,
    };
    let Some(side) = side else {
        check.not_simulated = Some("the rules of that host were not gathered".to_owned());
        return check;
    };
    let Some(dumps) = side.end.facts.firewall.as_deref() else {
        check.not_simulated = Some("that host's rules could not be read".to_owned());
        return check;
    };
    let (old, _) = Stack::from_dumps(dumps);
    let new = match with(dumps, &old, &fix.command) {
        Ok(new) => new,
        Err(why) => {
            check.not_simulated = Some(why);
            return check;
        }
    };
    check.packets = fates(known, side, &old, &new);
    let verdicts = || check.packets.iter().map(|fate| fate.then);
    check.helps = if verdicts().any(Verdict::blocks) {
        Some(false)
    } else if check.packets.is_empty() || verdicts().any(|verdict| verdict != Verdict::Accept) {
        None
    } else {
        Some(true)
    };
    let found = diff(&old, &new, true, AREAS);
    (check.newly_passes, check.complete) = (found.regions, found.complete);
    check
}

/// The connection's packets through the hooks of one end.
fn fates(known: &Evidence<'_>, side: &Side<'_>, old: &Stack, new: &Stack) -> Vec<Fate> {
    let Some(firewall) = &side.firewall else { return Vec::new() };
    let (in_, out) = (["prerouting", "input"], ["output", "postrouting"]);
    let ways = if side.place == Where::Server {
        [(Direction::Request, in_), (Direction::Reply, out)]
    } else {
        [(Direction::Request, out), (Direction::Reply, in_)]
    };
    let facts = facts(side.end);
    let tcp = !matches!(known.case.target.scheme, Scheme::Host | Scheme::Udp);
    let mut all = Vec::new();
    for (direction, hooks) in ways {
        for hook in hooks {
            let Some(first) = firewall.packet(known, hook, direction) else { continue };
            let (name, flags) = match direction {
                Direction::Request => ("request", " (SYN)"),
                Direction::Reply => ("answer", " (SYN, ACK)"),
            };
            let mut packets = vec![(format!("{name}{}", if tcp { flags } else { "" }), first.clone())];
            if tcp {
                packets.push((format!("{name}'s data (ACK)"), data(first)));
            }
            for (name, packet) in packets {
                let (now, then) = (walk_hook(old, &packet, &facts), walk_hook(new, &packet, &facts));
                all.push(Fate {
                    packet: name,
                    hook: hook.to_owned(),
                    now: now.verdict,
                    now_by: now.decided_by,
                    then: then.verdict,
                    then_by: then.decided_by,
                });
            }
        }
    }
    all
}

fn facts(end: &End) -> Facts<'_> {
    Facts::of(&end.facts)
}

/// The same flow's next packet, once the connection stands.
fn data(first: Packet) -> Packet {
    let flags = TcpFlags(TcpFlags::ACK.0);
    Packet { tcp_flags: Some(flags), ctstate: Some(CtStates::ESTABLISHED), ..first }
}

/// The rulesets as they would be after a command.
fn with(dumps: &[RulesetDump], old: &Stack, command: &str) -> Result<Stack, String> {
    let words = words(command);
    let first = words.iter().map(String::as_str).find(|word| *word != "sudo").unwrap_or_default();
    if first.starts_with("iptables") || first.starts_with("ip6tables") {
        return iptables(dumps, &words, first);
    }
    if first == "nft" {
        let at = words.iter().position(|word| word == "nft").unwrap_or(0);
        return native(old, &words[at + 1..]);
    }
    if command.is_empty() { Err("it is no command".to_owned()) } else { Err("it changes no packet filter".to_owned()) }
}

fn iptables(dumps: &[RulesetDump], words: &[String], tool: &str) -> Result<Stack, String> {
    let v6 = tool.starts_with("ip6");
    let format = if v6 { DumpFormat::Ip6tablesSave } else { DumpFormat::IptablesSave };
    let legacy = tool.ends_with("-legacy");
    let of = |dump: &&RulesetDump| dump.format == format;
    let wanted = if legacy { Backend::Legacy } else { Backend::Nft };
    let chosen = dumps.iter().filter(of).find(|dump| dump.backend == wanted).or(dumps.iter().find(of));
    let text = chosen.map_or("", |dump| dump.text.as_str());
    let text = edit_iptables(text, words).map_err(|error| error.to_string())?;
    let backend = chosen.map_or(wanted, |dump| dump.backend);
    let via = chosen.map_or("netlink", |dump| dump.via.as_str()).to_owned();
    let mut after: Vec<RulesetDump> =
        dumps.iter().filter(|dump| chosen.is_none_or(|chosen| !std::ptr::eq(*dump, chosen))).cloned().collect();
    after.insert(0, RulesetDump { format, backend, via, text });
    Ok(Stack::from_dumps(&after).0)
}

/// `add|insert rule FAMILY TABLE CHAIN [position HANDLE|index N] SPEC`, `delete rule FAMILY TABLE CHAIN handle N`.
fn native(old: &Stack, words: &[String]) -> Result<Stack, String> {
    let odd = || "only `nft add rule`, `nft insert rule` and `nft delete rule` are simulated".to_owned();
    let [verb, kind, family, table, chain, rest @ ..] = words else { return Err(odd()) };
    if kind != "rule" {
        return Err(odd());
    }
    let family = [Family::Ip, Family::Ip6, Family::Inet, Family::Arp, Family::Bridge, Family::Netdev]
        .into_iter()
        .find(|known| known.name() == family)
        .ok_or_else(odd)?;
    let mut rulesets: Vec<Ruleset> = old.rulesets().to_vec();
    let rules = rulesets
        .iter_mut()
        .filter(|ruleset| ruleset.backend == Backend::Nft)
        .flat_map(|ruleset| &mut ruleset.tables)
        .find(|other| other.family == family && other.name == *table)
        .and_then(|table| table.chain_mut(chain))
        .map(|chain| &mut chain.rules)
        .ok_or_else(|| format!("there is no chain {chain} in table {} {table}", family.name()))?;
    let number = |word: &String| word.parse::<u64>().ok();
    let by_handle = |rules: &[Rule], handle: u64| rules.iter().position(|rule| rule.handle == Some(handle));
    let (at, spec) = match rest {
        [word, handle, spec @ ..] if matches!(word.as_str(), "position" | "handle") => {
            let at = number(handle).and_then(|handle| by_handle(rules, handle));
            (Some(at.ok_or_else(|| format!("there is no rule with handle {handle} in {chain}"))?), spec)
        }
        [word, index, spec @ ..] if word == "index" => (number(index).and_then(|n| usize::try_from(n).ok()), spec),
        spec => (None, spec),
    };
    if verb == "delete" {
        let at = at.filter(|at| *at < rules.len()).ok_or_else(odd)?;
        rules.remove(at);
        return Ok(Stack::from_rulesets(rulesets));
    }
    let at = match (verb.as_str(), at) {
        ("insert", at) => at.unwrap_or(0),
        ("add", Some(at)) => at + 1,
        ("add", None) => rules.len(),
        _ => return Err(odd()),
    };
    let text = format!("table {} t {{ chain c {{ {} }} }}", family.name(), spec.join(" "));
    let parsed = parse::nft_text(&text, "the fix").map_err(|error| error.to_string())?;
    let rule = parsed.ruleset.tables.into_iter().flat_map(|table| table.chains).flat_map(|chain| chain.rules).next();
    rules.insert(at.min(rules.len()), rule.ok_or_else(odd)?);
    Ok(Stack::from_rulesets(rulesets))
}

/// A command's words, as sh(1) cuts them, without expansion.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
    let mut letters = command.chars();
    while let Some(c) = letters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.extend(letters.next()),
            ('\'' | '"', None) => {
                quote = Some(c);
                any = true;
            }
            (c, None) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (c, _) => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_does() {
        assert_eq!(words("a 'b c' \"d e\" f\\ g ''"), ["a", "b c", "d e", "f g", ""]);
    }

    #[test]
    fn a_native_rule_is_put_where_the_command_says() {
        let text = "table inet f { chain i { type filter hook input priority 0; policy drop; tcp dport 22 accept; } }";
        let old = Stack::from_rulesets([parse::nft_text(text, "t").unwrap().ruleset]);
        let cut = |command: &str| {
            native(&old, &words(command)).map(|stack| stack.rulesets()[0].tables[0].chains[0].rules.len())
        };
        assert_eq!(cut("add rule inet f i tcp dport 80 accept"), Ok(2));
        assert_eq!(cut("insert rule inet f i index 0 tcp dport 80 accept"), Ok(2));
        assert!(cut("add rule inet f nowhere tcp dport 80 accept").is_err());
        assert!(cut("flush ruleset").is_err());
        assert!(cut("add rule inet f i tcp dport").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_command_panics(command: String, spec in "[a-z0-9 {}@.-]{0,40}") {
            let dumps = [RulesetDump {
                format: DumpFormat::IptablesSave, backend: Backend::Nft, via: "t".to_owned(), text: String::new(),
            }];
            let (old, _) = Stack::from_dumps(&dumps);
            let _ = with(&dumps, &old, &command);
            let _ = with(&dumps, &old, &format!("nft add rule ip f i {spec}"));
        }
    }
}
