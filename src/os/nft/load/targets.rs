//! A rule's target as expressions.

use std::net::IpAddr;

use super::blob::{Blob, words};
use super::{Dialect, Encoder};
use crate::firewall::ruleset::{ConnmarkOp, NatRange, RejectWith, Target, TtlOp};
use crate::os::nft::error::NftError;
use crate::os::nft::expr::{ACCEPT, DROP, Data, Expr, GOTO, JUMP, Nat, RETURN};
use crate::os::nft::objects::family;
use crate::os::nft::xt::natrange;

fn xt(name: &str, rev: u32, blob: Blob) -> Expr {
    Expr::Target { name: name.to_owned(), rev, info: blob.done() }
}

/// Kinds of translation, with the x_tables target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Translation {
    Dnat,
    Snat,
    Masquerade,
    Redirect,
}

impl Encoder<'_> {
    pub(super) fn target(
        &self,
        target: &Target,
        protocol: Option<(bool, u8)>,
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        let native = self.dialect == Dialect::Native;
        let refuse = |why: &str| Err(self.unsupported_target(target, why));
        let expr = match target {
            Target::Accept => Expr::decide(ACCEPT, None),
            Target::Drop => Expr::decide(DROP, None),
            Target::Return => Expr::decide(RETURN, None),
            Target::Jump(chain) => Expr::decide(JUMP, Some(chain)),
            Target::Goto(chain) => Expr::decide(GOTO, Some(chain)),
            Target::Reject(RejectWith::TcpReset) if protocol != Some((false, 6)) => {
                return refuse("tcp-reset needs `-p tcp`");
            }
            Target::Reject(with) => match self.reject(*with) {
                Some(expr) => expr,
                None => return refuse("there is no such reject type in this family"),
            },
            Target::Log { options } => match log(options, native) {
                Some(expr) => expr,
                None => return refuse("its options cannot be read"),
            },
            Target::Nflog { options } => match nflog(options) {
                Some(expr) => expr,
                None => return refuse("its options cannot be read"),
            },
            Target::Notrack if native => Expr::Notrack,
            // struct xt_ct_target_info_v1, XT_CT_NOTRACK
            Target::Notrack => xt("CT", 2, Blob::new().u16(1).pad_to(72)),
            Target::Mark { value, mask } if native => {
                if *mask == u32::MAX {
                    exprs.push(Expr::Immediate { dreg: 1, data: Data::Value(value.to_ne_bytes().to_vec()) });
                } else {
                    exprs.push(Expr::Meta { key: 3, dreg: 1 });
                    exprs.push(Expr::Bitwise {
                        sreg: 1,
                        dreg: 1,
                        len: 4,
                        op: 0,
                        mask: (!mask).to_ne_bytes().to_vec(),
                        xor: value.to_ne_bytes().to_vec(),
                        shift: 0,
                    });
                }
                Expr::MetaSet { key: 3, sreg: 1 }
            }
            Target::Mark { value, mask } => xt("MARK", 2, Blob::new().u32(*value).u32(*mask)),
            Target::Connmark(op) if !native => {
                let (mode, mark, ctmask, nfmask) = match op {
                    ConnmarkOp::Set { value, mask } => (0, *value, *mask, 0),
                    ConnmarkOp::Save { nfmask, ctmask } => (1, 0, *ctmask, *nfmask),
                    ConnmarkOp::Restore { nfmask, ctmask } => (2, 0, *ctmask, *nfmask),
                };
                // Revision 2 (Linux 4.19), with no shift: iptables-nft reads every revision as its newest.
                xt("CONNMARK", 2, Blob::new().u32(mark).u32(ctmask).u32(nfmask).u8(0).u8(0).u8(mode))
            }
            Target::Dnat(range) => return self.nat(Translation::Dnat, target, range, protocol, exprs),
            Target::Snat(range) => return self.nat(Translation::Snat, target, range, protocol, exprs),
            Target::Masquerade(range) => return self.nat(Translation::Masquerade, target, range, protocol, exprs),
            Target::Redirect(range) => return self.nat(Translation::Redirect, target, range, protocol, exprs),
            Target::Tcpmss(mss) if !native => xt("TCPMSS", 0, Blob::new().u16(mss.unwrap_or(u16::MAX))),
            Target::Ttl { v6, op, value } if !native => {
                let mode = match op {
                    TtlOp::Set => 0,
                    TtlOp::Inc => 1,
                    TtlOp::Dec => 2,
                };
                xt(if *v6 { "HL" } else { "TTL" }, 0, Blob::new().u8(mode).u8(*value))
            }
            Target::Tos { value, dscp: true, .. } if !native => xt("DSCP", 0, Blob::new().u8(value >> 2)),
            Target::Tos { value, mask, dscp: false } if !native => xt("TOS", 1, Blob::new().u8(*value).u8(*mask)),
            Target::Queue { number, bypass, options } if simple_queue(options) => {
                let flags = u16::from(*bypass);
                if native {
                    return refuse("this kernel has no x_tables target for it");
                }
                xt("NFQUEUE", 3, Blob::new().u16(*number).u16(1).u16(flags))
            }
            _ => return refuse("this target is not supported here"),
        };
        exprs.push(expr);
        Ok(())
    }

    fn reject(&self, with: RejectWith) -> Option<Expr> {
        let with = with.for_packet(self.v6);
        if self.dialect == Dialect::Native {
            return Some(match with {
                RejectWith::TcpReset => Expr::Reject { kind: 1, code: 0 },
                RejectWith::Icmp(code) | RejectWith::Icmp6(code) => Expr::Reject { kind: 0, code },
                RejectWith::Icmpx(_) => return None,
            });
        }
        // enum ipt_reject_with and enum ip6t_reject_with
        let number = match (with, self.v6) {
            (RejectWith::Icmp(code @ 0..=3), false) | (RejectWith::Icmp6(code @ (0 | 1 | 3 | 4)), true) => {
                u32::from(code)
            }
            (RejectWith::Icmp(9), false) => 5,
            (RejectWith::Icmp(10), false) | (RejectWith::TcpReset, true) => 6,
            (RejectWith::TcpReset, false) | (RejectWith::Icmp6(5), true) => 7,
            (RejectWith::Icmp(13), false) | (RejectWith::Icmp6(6), true) => 8,
            _ => return None,
        };
        Some(xt("REJECT", 0, Blob::new().u32(number)))
    }

    fn nat(
        &self,
        kind: Translation,
        target: &Target,
        range: &NatRange,
        protocol: Option<(bool, u8)>,
        exprs: &mut Vec<Expr>,
    ) -> Result<(), NftError> {
        let refuse = |why: &str| Err(self.unsupported_target(target, why));
        // As iptables does.
        if range.ports.is_some() && !matches!(protocol, Some((false, 6 | 17 | 33 | 132 | 136))) {
            return refuse("ports need `-p tcp`, `-p udp` or another protocol that has them");
        }
        let mut flags = 0;
        for word in words(&range.flags) {
            flags |= match word.as_str() {
                "--random" => natrange::RANDOM,
                "--random-fully" => natrange::RANDOM_FULLY,
                "--persistent" => natrange::PERSISTENT,
                _ => return refuse("one of its options is not known"),
            };
        }
        if range.addrs.is_some() {
            flags |= natrange::MAP_IPS;
        }
        if range.ports.is_some() {
            flags |= natrange::PROTO_SPECIFIED;
        }
        if self.dialect == Dialect::Native {
            self.native_nat(kind, range, flags, exprs);
            return Ok(());
        }
        let any: IpAddr =
            if self.v6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() };
        let (first, last) = range.addrs.unwrap_or((any, any));
        let (low, high) = range.ports.map_or((0, 0), |ports| (ports.from, ports.to));
        // struct nf_nat_range and, for DNAT, nf_nat_range2 with its base port.
        let wide = || Blob::new().u32(flags).addr(first).addr(last).be16(low).be16(high);
        // struct nf_nat_ipv4_multi_range_compat of one range.
        let narrow = || match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let blob = Blob::new().u32(1).u32(flags).bytes(&first.octets()).bytes(&last.octets());
                Some(blob.be16(low).be16(high))
            }
            _ => None,
        };
        let blob = match (kind, self.v6) {
            (Translation::Dnat, _) => Some(("DNAT", 2, wide().be16(0).pad_to(44))),
            (Translation::Snat, true) => Some(("SNAT", 1, wide())),
            (Translation::Masquerade, true) => Some(("MASQUERADE", 0, wide())),
            (Translation::Redirect, true) => Some(("REDIRECT", 0, wide())),
            (Translation::Snat, false) => narrow().map(|blob| ("SNAT", 0, blob)),
            (Translation::Masquerade, false) => narrow().map(|blob| ("MASQUERADE", 0, blob)),
            (Translation::Redirect, false) => narrow().map(|blob| ("REDIRECT", 0, blob)),
        };
        match blob {
            Some((name, rev, blob)) => exprs.push(xt(name, rev, blob)),
            None => return refuse("its address is of the other family"),
        }
        Ok(())
    }

    fn native_nat(&self, kind: Translation, range: &NatRange, flags: u32, exprs: &mut Vec<Expr>) {
        let mut load = |register: u32, bytes: Vec<u8>| {
            exprs.push(Expr::Immediate { dreg: register, data: Data::Value(bytes) });
            Some(register)
        };
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut nat = Nat {
            kind: u32::from(kind == Translation::Dnat),
            family: u32::from(if self.v6 { family::IPV6 } else { family::IPV4 }),
            flags: flags & !(natrange::MAP_IPS | natrange::PROTO_SPECIFIED),
            ..Nat::default()
        };
        if let Some((first, last)) = range.addrs {
            nat.address = (load(1, octets(first)), load(2, octets(last)));
        }
        if let Some(ports) = range.ports {
            let low = load(3, ports.from.to_be_bytes().to_vec());
            nat.port = (low, load(4, ports.to.to_be_bytes().to_vec()));
        }
        exprs.push(match kind {
            Translation::Dnat | Translation::Snat => Expr::Nat(nat),
            Translation::Masquerade => Expr::Masq(nat),
            Translation::Redirect => Expr::Redir(nat),
        });
    }
}

/// Whether the number and the bypass say all there is.
fn simple_queue(options: &str) -> bool {
    let words = words(options);
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        match word {
            "QUEUE" | "--queue-bypass" => {}
            "--queue-num" => {
                rest.next();
            }
            _ => return false,
        }
    }
    true
}

/// `struct xt_log_info`, or the native expression.
fn log(options: &str, native: bool) -> Option<Expr> {
    let (mut level, mut flags, mut prefix) = (4u8, 0u8, String::new());
    let words = words(options);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--log-level" => level = log_level(rest.next()?)?,
            "--log-prefix" => rest.next()?.clone_into(&mut prefix),
            "--log-tcp-sequence" => flags |= 1,
            "--log-tcp-options" => flags |= 2,
            "--log-ip-options" => flags |= 4,
            "--log-uid" => flags |= 8,
            "--log-macdecode" => flags |= 0x20,
            _ => return None,
        }
    }
    if prefix.len() > 29 {
        return None;
    }
    Some(if native {
        Expr::Log {
            group: None,
            prefix: (!prefix.is_empty()).then_some(prefix),
            snaplen: None,
            qthreshold: None,
            level: Some(u32::from(level)),
            flags: u32::from(flags),
        }
    } else {
        xt("LOG", 0, Blob::new().u8(level).u8(flags).string(&prefix, 30))
    })
}

fn log_level(text: &str) -> Option<u8> {
    let names = ["emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"];
    if let Ok(number) = text.parse::<u8>() {
        return (number < 8).then_some(number);
    }
    let text = match text {
        "panic" => "emerg",
        "err" => "error",
        "warn" => "warning",
        other => other,
    };
    names.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok())
}

fn nflog(options: &str) -> Option<Expr> {
    let (mut group, mut prefix, mut snaplen, mut threshold) = (0, None, None, None);
    let words = words(options);
    for pair in words.chunks(2) {
        match (pair.first()?.as_str(), pair.get(1)?) {
            ("--nflog-group", value) => group = value.parse().ok()?,
            ("--nflog-prefix", value) => prefix = Some(value.clone()).filter(|prefix| prefix.len() < 64),
            ("--nflog-size", value) => snaplen = Some(value.parse().ok()?),
            ("--nflog-threshold", value) => threshold = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    Some(Expr::Log { group: Some(group), prefix, snaplen, qthreshold: threshold, level: None, flags: 0 })
}
