//! Reading one rule: what stands after `-A CHAIN`.

use crate::firewall::names;
use crate::firewall::ruleset::{Counters, Family, Iface, Match, Net, Rule, Target, Test, Transport, quote};

use super::error::Fault;
use super::matches::{self, Instance, Opt};
use super::spec::{self, OptionSpec, Spec};
use super::words::Word;
use super::{targets, values};

/// Columns and words of warnings.
pub(super) type Notes = Vec<(u32, String)>;

/// Reads a rule's specification. Address lists make several rules, sources outermost, as iptables
/// makes them.
pub(super) fn read(words: &[Word], family: Family, line: &str) -> Result<(Vec<Rule>, Notes), Fault> {
    let mut reader = Reader {
        family,
        end: u32::try_from(line.trim_end().chars().count() + 1).unwrap_or(u32::MAX),
        words,
        at: 0,
        core: Core::default(),
        modules: Vec::new(),
        target: None,
        goto: None,
        notes: Vec::new(),
        last_option: None,
    };
    reader.run()?;
    reader.build()
}

/// The core options as they were written, each with its negation.
#[derive(Default)]
struct Core {
    source: Option<(bool, Word)>,
    destination: Option<(bool, Word)>,
    input: Option<(bool, Word)>,
    output: Option<(bool, Word)>,
    protocol: Option<(bool, u8)>,
    fragment: Option<bool>,
    counters: Option<Counters>,
}

struct Reader<'w> {
    family: Family,
    /// Column after the line's last character.
    end: u32,
    words: &'w [Word],
    at: usize,
    core: Core,
    modules: Vec<Instance>,
    target: Option<Instance>,
    goto: Option<Word>,
    notes: Notes,
    /// The option before the current word, for hints.
    last_option: Option<String>,
}

/// Where an option belongs.
enum Owner {
    Core(&'static str),
    Module(usize, &'static OptionSpec),
    Target(&'static OptionSpec),
    /// An unknown module or target takes whatever comes.
    UnknownModule(usize),
    UnknownTarget,
}

impl<'w> Reader<'w> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut negated: Option<u32> = None;
        while let Some(word) = self.words.get(self.at) {
            self.at += 1;
            if word.is("!") {
                if negated.replace(word.column).is_some() {
                    return Err(Fault::new(word.column, "`!` twice"));
                }
                continue;
            }
            if !word.is_option() {
                return Err(self.stray(word));
            }
            let not = negated.take();
            if let Some(long) = word.text.strip_prefix("--") {
                self.long(word, long, not)?;
            } else {
                self.short(word, not)?;
            }
        }
        match negated {
            Some(column) => Err(Fault::new(column, "`!` stands before nothing")),
            None => Ok(()),
        }
    }

    /// A word where an option should be.
    fn stray(&self, word: &Word) -> Fault {
        let fault = Fault::new(word.column, format!("`{}` is no option", word.text));
        match self.last_option.as_deref() {
            Some(option @ ("dport" | "sport")) => fault.hint(format!(
                "`--{option}` takes one port or one range; for several write `-m multiport --{option}s A,{}`",
                word.text
            )),
            Some(option) if option.ends_with("ports") => fault.hint("write the list with commas and without blanks"),
            Some("comment" | "log-prefix" | "nflog-prefix") => fault.hint("text with blanks stands in quotes: \"…\""),
            Some("source" | "destination") => fault.hint("write the list of addresses with commas and without blanks"),
            _ => fault,
        }
    }

    /// The option's value. `x ! y` is today's `! x y`.
    fn value(&mut self, option: &Word, not: &mut Option<u32>) -> Result<&'w Word, Fault> {
        if let Some(word) = self.words.get(self.at)
            && word.is("!")
            && not.is_none()
        {
            self.at += 1;
            *not = Some(word.column);
            self.notes.push((
                word.column,
                "`!` after the option is how old iptables wrote it; today's refuses it".to_owned(),
            ));
        }
        match self.words.get(self.at) {
            Some(word) if !word.is_option() && !word.is("!") => {
                self.at += 1;
                Ok(word)
            }
            next => {
                let column = next.map_or(self.end, |word| word.column);
                Err(Fault::new(column, format!("`{}` needs a value", option.text)))
            }
        }
    }

    fn short(&mut self, word: &'w Word, not: Option<u32>) -> Result<(), Fault> {
        let name = match word.text.as_str() {
            "-s" => "source",
            "-d" => "destination",
            "-i" => "in-interface",
            "-o" => "out-interface",
            "-p" => "protocol",
            "-f" => "fragment",
            "-m" => "match",
            "-j" => "jump",
            "-g" => "goto",
            "-c" => "set-counters",
            "-4" => "ipv4",
            "-6" => "ipv6",
            "-w" => "wait",
            "-t" => "table",
            _ => {
                let fault = Fault::new(word.column, format!("`{}` is no option", word.text));
                let lower = word.text.to_ascii_lowercase();
                let known = ["-s", "-d", "-i", "-o", "-p", "-f", "-m", "-j", "-g"].contains(&lower.as_str());
                return Err(if known && lower != word.text {
                    fault.hint(format!("did you mean `{lower}`?"))
                } else {
                    fault
                });
            }
        };
        self.core_option(name, word, not)
    }

    fn long(&mut self, word: &'w Word, long: &str, not: Option<u32>) -> Result<(), Fault> {
        let (name, inline) = match long.split_once('=') {
            Some((name, value)) if !word.quoted => (name, Some(value)),
            _ => (long, None),
        };
        let owner = self.owner(name, word)?;
        let option = match owner {
            Owner::Core(name) => return self.core_option(name, word, not),
            Owner::UnknownModule(index) => {
                let opt = self.unknown_option(word, not);
                if let Some(module) = self.modules.get_mut(index) {
                    module.opts.push(opt);
                }
                return Ok(());
            }
            Owner::UnknownTarget => {
                let opt = self.unknown_option(word, not);
                if let Some(target) = &mut self.target {
                    target.opts.push(opt);
                }
                return Ok(());
            }
            Owner::Module(_, option) | Owner::Target(option) => option,
        };
        let mut not = not;
        let mut args = Vec::new();
        if let Some(value) = inline {
            args.push(Word { text: value.to_owned(), column: word.column, quoted: true });
        }
        while args.len() < usize::from(option.args) {
            args.push(self.value(word, &mut not)?.clone());
        }
        self.last_option = Some(option.names[0].to_owned());
        let opt = Opt { name: option.names[0].to_owned(), negated: not.is_some(), args, column: word.column };
        let twice = || Fault::new(word.column, format!("`{}` twice", word.text));
        if let Owner::Module(index, _) = owner {
            if let Some(module) = self.modules.get_mut(index) {
                // Only `policy` has options for each of several elements (XTOPT_MULTI).
                if module.name != "policy" && module.opts.iter().any(|other| other.name == opt.name) {
                    return Err(twice());
                }
                module.opts.push(opt);
            }
        } else if let Some(target) = &mut self.target {
            if let Some(column) = not {
                return Err(Fault::new(column, format!("`{}` of a target cannot be negated", word.text)));
            }
            if target.opts.iter().any(|other| other.name == opt.name) {
                return Err(twice());
            }
            target.opts.push(opt);
        }
        Ok(())
    }

    /// An option of something unknown, with the words up to the next option.
    fn unknown_option(&mut self, word: &Word, not: Option<u32>) -> Opt {
        let mut args = Vec::new();
        while let Some(next) = self.words.get(self.at) {
            if next.is_option() || next.is("!") {
                break;
            }
            args.push(next.clone());
            self.at += 1;
        }
        Opt { name: word.text.clone(), negated: not.is_some(), args, column: word.column }
    }

    /// Whose option this is. The newest module wins, as in `xtables_merge_options`; the unique
    /// beginning of a name will do, as in getopt_long.
    fn owner(&mut self, name: &str, word: &Word) -> Result<Owner, Fault> {
        // `--proto` is `--protocol` cut short, but `-m policy` has an option of that name.
        let own = |m: &Instance| {
            spec::find(spec::MATCHES, &m.name).is_some_and(|s| s.options.iter().any(|o| o.names.contains(&name)))
        };
        if let Some(option) = spec::CORE.iter().find(|o| o.names.contains(&name))
            && !(name == "proto" && self.modules.iter().any(own))
        {
            return Ok(Owner::Core(option.names[0]));
        }
        let implicit = self.implicit_module();
        let mut found: Vec<(&'static str, Owner)> = Vec::new();
        let exact = |o: &&OptionSpec| o.names.contains(&name);
        for exactly in [true, false] {
            if !exactly && (self.modules.iter().any(|m| !m.known) || self.target.as_ref().is_some_and(|t| !t.known)) {
                break;
            }
            let fits = |o: &&OptionSpec| if exactly { exact(o) } else { o.names.iter().any(|n| n.starts_with(name)) };
            if let Some(spec) = self.target.as_ref().and_then(|t| spec::find(spec::TARGETS, &t.name)) {
                found.extend(spec.options.iter().filter(fits).map(|o| (o.names[0], Owner::Target(o))));
            }
            for (index, module) in self.modules.iter().enumerate().rev() {
                if let Some(spec) = spec::find(spec::MATCHES, &module.name) {
                    found.extend(spec.options.iter().filter(fits).map(|o| (o.names[0], Owner::Module(index, o))));
                }
            }
            if let Some(spec) = implicit
                && spec.options.iter().any(|o| fits(&o))
                && !self.modules.iter().any(|m| m.name == spec.name)
            {
                let index = self.modules.len();
                found.extend(spec.options.iter().filter(fits).map(|o| (o.names[0], Owner::Module(index, o))));
            }
            if !exactly {
                found.extend(spec::CORE.iter().filter(fits).map(|o| (o.names[0], Owner::Core(o.names[0]))));
            }
            if !found.is_empty() {
                break;
            }
        }
        if let Some((first, _)) = found.first() {
            if let Some((other, _)) = found.iter().find(|(n, _)| n != first && !exact_name(name, first)) {
                return Err(Fault::new(word.column, format!("`{}` may mean `--{first}` or `--{other}`", word.text)));
            }
            let (_, owner) = found.swap_remove(0);
            if let Owner::Module(index, _) = owner
                && index == self.modules.len()
                && let Some(spec) = implicit
            {
                self.modules.push(Instance {
                    name: spec.name.to_owned(),
                    known: true,
                    opts: Vec::new(),
                    column: word.column,
                });
            }
            return Ok(owner);
        }
        if self.target.as_ref().is_some_and(|t| !t.known) {
            return Ok(Owner::UnknownTarget);
        }
        if let Some(index) = self.modules.iter().rposition(|m| !m.known) {
            return Ok(Owner::UnknownModule(index));
        }
        Err(self.unknown(name, word))
    }

    fn unknown(&self, name: &str, word: &Word) -> Fault {
        let fault = Fault::new(word.column, format!("`{}` is an unknown option here", word.text));
        let has = |spec: &&Spec| spec.options.iter().any(|o| o.names.contains(&name));
        if matches!(name, "sport" | "dport" | "source-port" | "destination-port") {
            return match self.core.protocol {
                None => fault.hint("ports belong to a protocol: write `-p tcp` or `-p udp` before it"),
                Some(_) => fault.hint("this protocol has no ports"),
            };
        }
        if let Some(spec) = spec::MATCHES.iter().find(has) {
            return fault
                .hint(format!("it is an option of the {} match: write `-m {}` before it", spec.name, spec.name));
        }
        if let Some(spec) = spec::TARGETS.iter().find(has) {
            return fault
                .hint(format!("it is an option of the {} target: write `-j {}` before it", spec.name, spec.name));
        }
        fault
    }

    /// The module that `-p` loads by itself when one of its options is used.
    fn implicit_module(&self) -> Option<&'static Spec> {
        let (negated, number) = self.core.protocol?;
        if negated {
            return None;
        }
        let name = [
            Transport::Tcp,
            Transport::Udp,
            Transport::UdpLite,
            Transport::Sctp,
            Transport::Dccp,
            Transport::Icmp,
            Transport::Icmp6,
        ]
        .into_iter()
        .find(|t| t.number() == number)?;
        spec::find(spec::MATCHES, name.module())
    }

    fn core_option(&mut self, name: &'static str, word: &'w Word, not: Option<u32>) -> Result<(), Fault> {
        let mut not = not;
        self.last_option = Some(name.to_owned());
        // `--jump=X` and its like.
        let inline = if word.text.starts_with("--") && !word.quoted {
            word.text.split_once('=').map(|(_, v)| Word { text: v.to_owned(), column: word.column, quoted: false })
        } else {
            None
        };
        let takes_value = !matches!(name, "fragment" | "ipv4" | "ipv6" | "wait" | "set-counters");
        let value = match inline {
            Some(value) => value,
            None if takes_value => self.value(word, &mut not)?.clone(),
            None => word.clone(),
        };
        let negated = not.is_some();
        let once = |slot: bool| {
            if slot { Err(Fault::new(word.column, format!("`{}` twice in one rule", word.text))) } else { Ok(()) }
        };
        if negated
            && !matches!(name, "source" | "destination" | "in-interface" | "out-interface" | "protocol" | "fragment")
        {
            return Err(Fault::new(not.unwrap_or(word.column), format!("`!` cannot stand before `{}`", word.text)));
        }
        match name {
            "source" => {
                once(self.core.source.is_some())?;
                self.core.source = Some((negated, value));
            }
            "destination" => {
                once(self.core.destination.is_some())?;
                self.core.destination = Some((negated, value));
            }
            "in-interface" => {
                once(self.core.input.is_some())?;
                self.core.input = Some((negated, iface(value)?));
            }
            "out-interface" => {
                once(self.core.output.is_some())?;
                self.core.output = Some((negated, iface(value)?));
            }
            "protocol" => {
                once(self.core.protocol.is_some())?;
                let number = names::protocol(&value.text).ok_or_else(|| {
                    Fault::new(value.column, format!("`{}` is no protocol", value.text))
                        .hint("such as tcp, udp, icmp, or a number up to 255")
                })?;
                if negated && number == 0 {
                    return Err(Fault::new(value.column, "a rule with `! -p all` would never match"));
                }
                self.core.protocol = Some((negated, number));
            }
            "fragment" => {
                if self.family == Family::Ip6 {
                    return Err(Fault::new(word.column, "`-f` is for IPv4 only").hint("ip6tables has `-m frag`"));
                }
                self.core.fragment = Some(negated);
            }
            "match" => self.load_module(&value),
            "jump" => self.load_target(word, value)?,
            "goto" => {
                if self.target.is_some() || self.goto.is_some() {
                    return Err(Fault::new(word.column, "a rule has one target only"));
                }
                self.goto = Some(value);
            }
            "set-counters" => {
                let packets = self.value(word, &mut not)?;
                let (packets, bytes) = match packets.text.split_once(',') {
                    Some((p, b)) => (p.to_owned(), b.to_owned()),
                    None => (packets.text.clone(), self.value(word, &mut not)?.text.clone()),
                };
                match (packets.parse(), bytes.parse()) {
                    (Ok(packets), Ok(bytes)) => self.core.counters = Some(Counters { packets, bytes }),
                    _ => return Err(Fault::new(word.column, "`-c` needs two numbers, packets and bytes")),
                }
            }
            "table" => {
                return Err(Fault::new(word.column, "`-t` has no place in a ruleset file")
                    .hint("the table is named by the line `*TABLE` above"));
            }
            _ => (),
        }
        Ok(())
    }

    fn load_module(&mut self, name: &Word) {
        let canonical = spec::canonical_match(&name.text).to_owned();
        let known = spec::find(spec::MATCHES, &canonical).is_some();
        // `-p tcp --dport 22 -m tcp`: the module is there already.
        if Transport::of_module(&canonical).is_some() && self.modules.iter().any(|m| m.name == canonical) {
            return;
        }
        if !known {
            self.notes.push((name.column, format!("the match `{canonical}` is not evaluated")));
        }
        self.modules.push(Instance { name: canonical, known, opts: Vec::new(), column: name.column });
    }

    fn load_target(&mut self, word: &Word, name: Word) -> Result<(), Fault> {
        if self.target.is_some() || self.goto.is_some() {
            return Err(Fault::new(word.column, "a rule has one target only"));
        }
        let known = spec::find(spec::TARGETS, &name.text).is_some();
        self.target = Some(Instance { name: name.text, known, opts: Vec::new(), column: name.column });
        Ok(())
    }

    fn build(mut self) -> Result<(Vec<Rule>, Notes), Fault> {
        self.check_protocol()?;
        let sources = self.addresses(self.core.source.clone(), "-s")?;
        let destinations = self.addresses(self.core.destination.clone(), "-d")?;
        let mut rest = Vec::new();
        if let Some((negated, word)) = &self.core.input {
            rest.push(Match::new(*negated, Test::InInterface(Iface::parse(&word.text))));
        }
        if let Some((negated, word)) = &self.core.output {
            rest.push(Match::new(*negated, Test::OutInterface(Iface::parse(&word.text))));
        }
        if let Some((negated, number)) = self.core.protocol
            && number != 0
        {
            rest.push(Match::new(negated, Test::Protocol(number)));
        }
        if let Some(negated) = self.core.fragment {
            rest.push(Match::new(negated, Test::Fragment));
        }
        let modules = std::mem::take(&mut self.modules);
        for module in &modules {
            rest.extend(matches::build(module, self.family, &mut self.notes)?);
        }
        let target = match (&self.target, &self.goto) {
            (_, Some(chain)) => Some(Target::Goto(chain.text.clone())),
            (Some(target), None) if !target.known && target.opts.is_empty() => Some(Target::Jump(target.name.clone())),
            (Some(target), None) => Some(targets::build(target, self.family)?),
            (None, None) => None,
        };
        if let Some(Target::Unknown { name, .. }) = &target {
            let column = self.target.as_ref().map_or(1, |t| t.column);
            self.notes.push((column, format!("the target `{name}` is not evaluated")));
        }
        let mut rules = Vec::new();
        for source in &sources {
            for destination in &destinations {
                let matches = source.iter().chain(destination).chain(&rest).cloned().collect();
                rules.push(Rule { matches, target: target.clone(), counters: self.core.counters, ..Rule::default() });
            }
        }
        Ok((rules, self.notes))
    }

    /// The kernel refuses tcp, udp, … without their `-p`, and multiport without one of its protocols.
    fn check_protocol(&self) -> Result<(), Fault> {
        let protocol = self.core.protocol.filter(|(negated, _)| !negated).map(|(_, number)| number);
        for module in &self.modules {
            if let Some(transport) = Transport::of_module(&module.name)
                && protocol != Some(transport.number())
            {
                let name = names::portable_protocol(transport.number());
                return Err(Fault::new(module.column, format!("`-m {}` needs `-p {name}`", module.name)));
            }
            if module.name == "multiport" && !protocol.is_some_and(|p| [6, 17, 136, 132, 33].contains(&p)) {
                return Err(Fault::new(
                    module.column,
                    "`-m multiport` needs `-p tcp`, `-p udp`, `-p udplite`, `-p sctp` or `-p dccp`",
                ));
            }
        }
        Ok(())
    }

    /// The matches that a list of addresses makes, one of them for each rule; one `None` where
    /// there is nothing to test.
    fn addresses(&mut self, list: Option<(bool, Word)>, option: &str) -> Result<Vec<Option<Match>>, Fault> {
        let Some((negated, word)) = list else { return Ok(vec![None]) };
        let parts: Vec<&str> = word.text.split(',').collect();
        if negated && parts.len() > 1 {
            return Err(Fault::new(word.column, format!("`! {option}` takes one address; a list cannot be negated"))
                .hint("make a chain of its own: one RETURN for each address, then the target"));
        }
        let (mut out, mut at) = (Vec::new(), word.column);
        for part in parts {
            let test = |net: Net| if option == "-s" { Test::Source(net) } else { Test::Destination(net) };
            out.push(match values::net(part, at, self.family)? {
                Some(net) if net.is_any() && !negated => None,
                Some(net) => Some(Match::new(negated, test(net))),
                None => {
                    self.notes.push((at, format!("`{part}` is a name, which is not looked up")));
                    let options = format!("{option} {}", quote(part));
                    Some(Match::new(negated, Test::Unknown { module: String::new(), options }))
                }
            });
            at += u32::try_from(part.chars().count() + 1).unwrap_or(0);
        }
        Ok(out)
    }
}

fn exact_name(given: &str, name: &str) -> bool {
    given == name
}

/// Checks an interface's name (`IFNAMSIZ` is 16 with the final NUL).
fn iface(word: Word) -> Result<Word, Fault> {
    if word.text.len() > 15 {
        return Err(Fault::new(
            word.column,
            format!("`{}` is too long for an interface's name (15 octets)", word.text),
        ));
    }
    Ok(word)
}
