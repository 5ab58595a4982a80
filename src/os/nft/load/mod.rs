//! Loading iptables-save text into nf_tables, as iptables-nft-restore does: each table that the text
//! names is replaced as a whole, all of them in one transaction.
//!
//! Rules are written the way iptables-nft 1.8 writes them (native expressions for addresses,
//! interfaces, TCP and UDP ports, marks and limits; x_tables' own structures for the rest), so that
//! its tools list them. A kernel without those structures gets native expressions throughout.

mod blob;
mod matches;
mod targets;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::attr::Attrs;
use super::conn::{Conn, Order};
use super::error::NftError;
use super::expr::{Expr, comment_userdata};
use super::objects::{family, msg};
use super::save::builtin_chains;
use crate::firewall::parse;
use crate::firewall::ruleset::{Chain, Family, Match, Policy, Rule, Ruleset, Table, Target, Test};
use crate::host::Backend;

/// How what iptables has and nf_tables lacks is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// As x_tables' structures (nft_compat).
    Compat,
    /// In native expressions only.
    Native,
}

/// Replaces the tables that an iptables-save (`v6`: ip6tables-save) text names, in the calling
/// thread's network namespace, all or nothing. Other tables stay as they are.
///
/// # Errors
/// [`NftError::Text`] for a text that is no ruleset, [`NftError::Unsupported`] for an option that
/// cannot be loaded from here, [`NftError::Refused`] by the kernel. Nothing has then been changed.
pub fn load_iptables_save(text: &str, v6: bool) -> Result<(), NftError> {
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    let parsed = parse::iptables_save(text, family, Backend::Nft, "ruleset")
        .map_err(|error| NftError::Text(error.to_string()))?;
    let mut conn = Conn::open()?;
    let compat = orders(&parsed.ruleset, Dialect::Compat)?;
    let Err(refused) = conn.commit(&compat) else { return Ok(()) };
    if refused.is_denied() {
        return Err(refused);
    }
    // A kernel without nft_compat, or without one of x_tables' modules, refuses the structure; a
    // rule that is wrong in itself is refused again, and then the first answer is the plainer one.
    match orders(&parsed.ruleset, Dialect::Native) {
        Ok(native) => conn.commit(&native).map_err(|_| refused),
        Err(_) => Err(refused),
    }
}

fn orders(ruleset: &Ruleset, dialect: Dialect) -> Result<Vec<Order>, NftError> {
    let mut orders = Vec::new();
    let mut sets = 0;
    for table in &ruleset.tables {
        let v6 = match table.family {
            Family::Ip => false,
            Family::Ip6 => true,
            other => return Err(NftError::Text(format!("an iptables table cannot be of family {other}"))),
        };
        table_orders(table, v6, dialect, &mut sets, &mut orders)?;
    }
    Ok(orders)
}

fn table_orders(
    table: &Table,
    v6: bool,
    dialect: Dialect,
    sets: &mut u32,
    orders: &mut Vec<Order>,
) -> Result<(), NftError> {
    let number = if v6 { family::IPV6 } else { family::IPV4 };
    let order = |kind, flags, attrs, what: String| Order { kind, flags, family: number, attrs, what };
    let named = || Attrs::new().string(1, &table.name);
    // Deleting what may not exist: make sure that it does.
    for (kind, flags, verb) in
        [(msg::NEWTABLE, NLM_F_CREATE, "add"), (msg::DELTABLE, 0, "clear"), (msg::NEWTABLE, NLM_F_CREATE, "add")]
    {
        let attrs = if kind == msg::NEWTABLE { named().u32(2, 0) } else { named() };
        orders.push(order(kind, flags, attrs, format!("{verb} the table {}", table.name)));
    }
    for (name, hook, priority, kind) in builtin_chains(&table.name) {
        let base = table.chain(name).and_then(|chain| chain.base.as_ref());
        let policy = u32::from(base.is_none_or(|base| base.policy == Policy::Accept));
        let counters = base.and_then(|base| base.counters).unwrap_or_default();
        #[expect(clippy::cast_sign_loss, reason = "the kernel takes the bits of an int")]
        let hook = Attrs::new().u32(1, *hook).u32(2, *priority as u32);
        let attrs = named()
            .string(3, name)
            .nest(4, &hook)
            .u32(5, policy)
            .string(7, kind)
            .nest(8, &Attrs::new().u64(1, counters.bytes).u64(2, counters.packets));
        orders.push(order(msg::NEWCHAIN, NLM_F_CREATE, attrs, format!("add the chain {} {name}", table.name)));
    }
    for chain in table.chains.iter().filter(|chain| chain.base.is_none()) {
        let attrs = named().string(3, &chain.name);
        orders.push(order(msg::NEWCHAIN, NLM_F_CREATE, attrs, format!("add the chain {} {}", table.name, chain.name)));
    }
    for chain in &table.chains {
        for (rule, position) in chain.rules.iter().zip(1..) {
            let encoder = Encoder { v6, dialect, family: number, table: &table.name, sets, orders, line: line(rule) };
            let order = encoder.rule(chain, rule, position)?;
            orders.push(order);
        }
    }
    Ok(())
}

fn line(rule: &Rule) -> usize {
    rule.line.map_or(0, |line| line as usize)
}

/// Writes one rule; the anonymous sets it needs go into the orders before it.
struct Encoder<'a> {
    v6: bool,
    dialect: Dialect,
    family: u8,
    table: &'a str,
    sets: &'a mut u32,
    orders: &'a mut Vec<Order>,
    line: usize,
}

impl Encoder<'_> {
    fn rule(mut self, chain: &Chain, rule: &Rule, position: usize) -> Result<Order, NftError> {
        let what = format!("add rule {position} of {} {} (`{}`)", self.table, chain.name, rule.text.trim());
        let mut exprs = Vec::new();
        // iptables-nft writes interfaces and protocol first; the rest keep their order.
        let (mut first, rest): (Vec<_>, Vec<_>) = rule.matches.iter().partition(|m| rank(m) < u8::MAX);
        first.sort_by_key(|m| rank(m));
        let mut comment = None;
        for test in first.into_iter().chain(rest) {
            match &test.test {
                Test::Comment(text) if self.dialect == Dialect::Native && comment.is_none() => {
                    comment = Some(text.as_str());
                }
                _ => self.test(test, &mut exprs)?,
            }
        }
        if let Some(statement) = rule.statements.first() {
            return Err(self.unsupported(&statement.to_string(), "iptables has one target in a rule"));
        }
        let counters = rule.counters.unwrap_or_default();
        exprs.push(Expr::Counter { packets: counters.packets, bytes: counters.bytes });
        if let Some(target) = &rule.target {
            self.target(target, protocol(rule), &mut exprs)?;
        }
        let list = Expr::write_list(&exprs).ok_or_else(|| self.unsupported(&rule.text, "it cannot be written"))?;
        let mut attrs = Attrs::new().string(1, self.table).string(2, &chain.name).nest(4, &list);
        if let Some((negated, number)) = protocol(rule)
            && self.dialect == Dialect::Compat
        {
            // x_tables' own checks ask for the rule's protocol; NFT_RULE_COMPAT_F_INV is 2.
            let compat = Attrs::new().u32(1, u32::from(number)).u32(2, if negated { 2 } else { 0 });
            attrs = attrs.nest(5, &compat);
        }
        if let Some(comment) = comment {
            attrs = attrs.bytes_attr(7, &comment_userdata(comment));
        }
        Ok(Order { kind: msg::NEWRULE, flags: NLM_F_CREATE | NLM_F_APPEND, family: self.family, attrs, what })
    }

    fn unsupported(&self, option: &str, why: &str) -> NftError {
        NftError::Unsupported { line: self.line, option: option.to_owned(), why: why.to_owned() }
    }

    /// An error that names a match as it is written.
    fn unsupported_match(&self, test: &Match, why: &str) -> NftError {
        let module = test.test.module().map(|module| format!("-m {module} ")).unwrap_or_default();
        self.unsupported(&format!("{module}{test}"), why)
    }

    fn unsupported_target(&self, target: &Target, why: &str) -> NftError {
        self.unsupported(&target.to_string(), why)
    }
}

/// The order in which iptables-nft writes a rule's own tests.
fn rank(test: &Match) -> u8 {
    match test.test {
        Test::InInterface(_) => 0,
        Test::OutInterface(_) => 1,
        Test::Protocol(_) => 2,
        Test::Source(_) => 3,
        Test::Destination(_) => 4,
        Test::Fragment => 5,
        _ => u8::MAX,
    }
}

/// The rule's `-p`, with its negation.
fn protocol(rule: &Rule) -> Option<(bool, u8)> {
    rule.matches.iter().find_map(|test| match test.test {
        Test::Protocol(number) => Some((test.negated, number)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::netns::NetNs;
    use crate::os::nft::dumps;

    /// Rules that native expressions can say, as the reader gives them back.
    const NATIVE: &str = "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[0:0] -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1-10.0.0.4:1000-1100 --random
[0:0] -A OUTPUT -p tcp -m tcp --dport 82 -j REDIRECT --to-ports 3128
[0:0] -A POSTROUTING -o eth1 -j SNAT --to-source 192.0.2.1
[0:0] -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:user - [0:0]
[1:60] -A INPUT ! -s 10.1.1.0/25 -d 192.168.1.3/32 -i eth+ -p udp -m multiport --dports 80:90,8888,9999 -j ACCEPT
[0:0] -A INPUT -p tcp -m multiport ! --sports 1:5,80,443,65535 -g user
[0:0] -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[0:0] -A INPUT -p tcp -m tcp --sport 1024:65535 ! --dport 22 --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset
[0:0] -A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 5/min --limit-burst 10 -j ACCEPT
[0:0] -A INPUT -p icmp -m icmp --icmp-type 3/1 -m mark --mark 0x1/0x3 -m comment --comment \"two words\" -j RETURN
[0:0] -A INPUT -f -j LOG --log-prefix \"frag \" --log-level 6
[0:0] -A INPUT -j REJECT --reject-with icmp-admin-prohibited
COMMIT
";

    #[test]
    fn native_expressions_say_the_same() {
        let thread = std::thread::spawn(|| {
            if let Err(error) = NetNs::unshare() {
                assert!(std::env::var_os("REACHWHY_REQUIRE_KERNEL").is_none(), "required, but: {error}");
                eprintln!("SKIPPED: {error}");
                return;
            }
            let parsed = parse::iptables_save(NATIVE, Family::Ip, Backend::Nft, "test").unwrap();
            Conn::open().unwrap().commit(&orders(&parsed.ruleset, Dialect::Native).unwrap()).unwrap();
            let (dumps, unseen) = dumps();
            assert_eq!(unseen, []);
            assert_eq!(dumps[0].text.split_once('\n').unwrap().1, NATIVE);
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_cannot_be_loaded_is_named_with_its_line() {
        let load = |rule: &str| {
            let text = format!("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n");
            let parsed = parse::iptables_save(&text, Family::Ip, Backend::Nft, "test").unwrap();
            orders(&parsed.ruleset, Dialect::Compat).err().map(|error| error.to_string())
        };
        assert_eq!(load("-p tcp --dport 80 -j ACCEPT"), None);
        let error = load("-m set --match-set bad src -j DROP").unwrap();
        assert!(error.contains("line 3") && error.contains("--match-set bad src"), "{error}");
        let error = load("-j REJECT --reject-with tcp-reset").unwrap();
        assert!(error.contains("needs `-p tcp`"), "{error}");
        let error = load("-m u32 --u32 \"6&0xFF=1\" -j DROP").unwrap();
        assert!(error.contains("u32"), "{error}");
    }
}
