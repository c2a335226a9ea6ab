//! Writes rules as the kernel wants them. Each rule becomes the very expressions that nft 1.0.6
//! makes of its text, so that both are listed alike.

use std::net::IpAddr;

use nftnl::expr::{Bitwise, Cmp, CmpOp, Conntrack, Counter, Expression, Meta, Verdict as Nftnl};
use nftnl::nftnl_sys as sys;
use nftnl::{Chain, MsgType, ProtoFamily, Rule, Table};

use super::batch::{Batch, c_name};
use super::ffi::{AttributeValue, Raw};
use crate::firewall::ruleset::{self, IpFamily, Match, RuleVerdict};
use crate::model::{PortRange, Prefix, Protocol};

/// The first register, which is 16 bytes wide, and the 32-bit registers at 4, 8, 16 and 20 bytes
/// from its beginning (`NFT_REG32_00` is 8; linux/netfilter/nf_tables.h).
const REG_1: u32 = 1;
const REG32_01: u32 = 9;
const REG32_02: u32 = 10;
const REG32_04: u32 = 12;
const REG32_05: u32 = 13;

/// Payload bases.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// The type of a loopback interface (linux/if_arp.h).
const ARPHRD_LOOPBACK: u16 = 772;

/// Adds a rule at the end of its chain.
pub(super) fn add(batch: &mut Batch, table: &str, chain: &str, rule: &ruleset::GuardRule) {
    let table = Table::new(c_name(table), ProtoFamily::Inet);
    let chain = Chain::new(c_name(chain), &table);
    let mut out = Rule::new(&chain);
    for m in &rule.matches {
        add_match(&mut out, m);
    }
    if rule.counter {
        out.add_expr(&Counter);
    }
    if let Some(mark) = rule.mark {
        out.add_expr(&Raw {
            name: c"immediate",
            attributes: vec![
                (sys::NFTNL_EXPR_IMM_DREG, AttributeValue::Number(REG_1)),
                (
                    sys::NFTNL_EXPR_IMM_DATA,
                    AttributeValue::Bytes(mark.to_ne_bytes().to_vec()),
                ),
            ],
        });
        out.add_expr(&Meta::Mark { set: true });
    }
    add_verdict(&mut out, rule.verdict);
    batch.nftnl(&out, MsgType::Add);
}

fn add_match(rule: &mut Rule<'_>, m: &Match) {
    match m {
        Match::Loopback => {
            rule.add_expr(&Meta::IifType);
            rule.add_expr(&Cmp::new(
                CmpOp::Eq,
                ARPHRD_LOOPBACK.to_ne_bytes().as_slice(),
            ));
        }
        Match::OfSession => {
            add_match(rule, &Match::Protocol(Protocol::Tcp));
            rule.add_expr(&payload(TRANSPORT, 13, 1, REG_1));
            // The flags RST (0x04) and ACK (0x10).
            rule.add_expr(&Bitwise::new(0x14_u8, 0_u8));
            rule.add_expr(&Cmp::new(CmpOp::Neq, 0_u8));
        }
        Match::Protocol(protocol) => {
            rule.add_expr(&Meta::L4Proto);
            rule.add_expr(&Cmp::new(CmpOp::Eq, protocol.number()));
        }
        Match::PortIn(set) => {
            rule.add_expr(&Meta::L4Proto);
            rule.add_expr(&payload(TRANSPORT, 2, 2, REG32_01));
            rule.add_expr(&lookup(set));
        }
        Match::PortRange(PortRange {
            protocol,
            first,
            last,
        }) => {
            add_match(rule, &Match::Protocol(*protocol));
            rule.add_expr(&payload(TRANSPORT, 2, 2, REG_1));
            let be = |port: &std::num::NonZeroU16| port.get().to_be_bytes();
            rule.add_expr(&Cmp::new(CmpOp::Gte, be(first).as_slice()));
            rule.add_expr(&Cmp::new(CmpOp::Lte, be(last).as_slice()));
        }
        Match::ForOthers => {
            let numbers = [
                (sys::NFTNL_EXPR_FIB_DREG, REG_1),
                (sys::NFTNL_EXPR_FIB_RESULT, 3), // NFT_FIB_RESULT_ADDRTYPE
                (sys::NFTNL_EXPR_FIB_FLAGS, 2),  // NFTA_FIB_F_DADDR
            ];
            rule.add_expr(&Raw {
                name: c"fib",
                attributes: numbers.map(|(a, n)| (a, AttributeValue::Number(n))).into(),
            });
            rule.add_expr(&Cmp::new(CmpOp::Eq, 1_u32)); // RTN_UNICAST
        }
        Match::Established => {
            rule.add_expr(&Conntrack::State);
            rule.add_expr(&Bitwise::new(2_u32, 0_u32));
            rule.add_expr(&Cmp::new(CmpOp::Neq, 0_u32));
        }
        Match::SourceWithin(prefix) => add_prefix(rule, prefix),
        Match::SourceIn(family, set) => {
            add_source(rule, *family);
            rule.add_expr(&lookup(set));
        }
        Match::SourcePortIn(family, set) => {
            add_source(rule, *family);
            let (protocol, port) = match family {
                IpFamily::V4 => (REG32_01, REG32_02),
                IpFamily::V6 => (REG32_04, REG32_05),
            };
            rule.add_expr(&Raw {
                name: c"meta",
                attributes: vec![
                    (
                        sys::NFTNL_EXPR_META_KEY,
                        AttributeValue::Number(Meta::L4Proto.to_raw_key()),
                    ),
                    (sys::NFTNL_EXPR_META_DREG, AttributeValue::Number(protocol)),
                ],
            });
            rule.add_expr(&payload(TRANSPORT, 2, 2, port));
            rule.add_expr(&lookup(set));
        }
    }
}

/// Loads the source address into the first register. The rule holds for packets of that family
/// only.
fn add_source(rule: &mut Rule<'_>, family: IpFamily) {
    let (nfproto, offset, length) = match family {
        IpFamily::V4 => (2_u8, 12, 4),
        IpFamily::V6 => (10, 8, 16),
    };
    rule.add_expr(&Meta::NfProto);
    rule.add_expr(&Cmp::new(CmpOp::Eq, nfproto));
    rule.add_expr(&payload(NETWORK, offset, length, REG_1));
}

/// Compares the leading bits of the source. Whole bytes are compared as such, as nft does it.
fn add_prefix(rule: &mut Rule<'_>, prefix: &Prefix) {
    let (nfproto, offset, octets) = match prefix.address() {
        IpAddr::V4(a) => (2_u8, 12, a.octets().to_vec()),
        IpAddr::V6(a) => (10, 8, a.octets().to_vec()),
    };
    rule.add_expr(&Meta::NfProto);
    rule.add_expr(&Cmp::new(CmpOp::Eq, nfproto));
    let length = u32::from(prefix.length());
    let bytes = octets.get(..prefix.length().div_ceil(8).into());
    let bytes = bytes.unwrap_or(octets.as_slice());
    if length == 0 {
        return;
    }
    if length % 8 == 0 {
        rule.add_expr(&payload(NETWORK, offset, length / 8, REG_1));
        rule.add_expr(&Cmp::new(CmpOp::Eq, bytes));
        return;
    }
    let whole = u32::try_from(octets.len()).unwrap_or(16);
    rule.add_expr(&payload(NETWORK, offset, whole, REG_1));
    let mask = mask(octets.len(), prefix.length());
    let zero = vec![0_u8; octets.len()];
    rule.add_expr(&Bitwise::new(mask.as_slice(), zero.as_slice()));
    rule.add_expr(&Cmp::new(CmpOp::Eq, octets.as_slice()));
}

/// Returns a mask of so many bytes, the first `length` bits of which are set.
fn mask(bytes: usize, length: u8) -> Vec<u8> {
    let ones = |byte: usize| {
        let left = usize::from(length).saturating_sub(byte * 8).min(8);
        !(0xff_u16 >> left).to_be_bytes()[1]
    };
    (0..bytes).map(ones).collect()
}

fn add_verdict(rule: &mut Rule<'_>, verdict: RuleVerdict) {
    let reject = |kind, code| Raw {
        name: c"reject",
        attributes: vec![
            (sys::NFTNL_EXPR_REJECT_TYPE, AttributeValue::Number(kind)),
            (sys::NFTNL_EXPR_REJECT_CODE, AttributeValue::Byte(code)),
        ],
    };
    match verdict {
        RuleVerdict::Accept => rule.add_expr(&Nftnl::Accept),
        RuleVerdict::Drop => rule.add_expr(&Nftnl::Drop),
        // NFT_REJECT_TCP_RST; NFT_REJECT_ICMPX_UNREACH with NFT_REJECT_ICMPX_PORT_UNREACH.
        RuleVerdict::Reset => rule.add_expr(&reject(1, 0)),
        RuleVerdict::Unreachable => rule.add_expr(&reject(2, 1)),
        RuleVerdict::Goto(chain) => rule.add_expr(&Nftnl::Goto {
            chain: c_name(chain),
        }),
    }
}

fn payload(base: u32, offset: u32, length: u32, register: u32) -> impl Expression {
    let numbers = [
        (sys::NFTNL_EXPR_PAYLOAD_DREG, register),
        (sys::NFTNL_EXPR_PAYLOAD_BASE, base),
        (sys::NFTNL_EXPR_PAYLOAD_OFFSET, offset),
        (sys::NFTNL_EXPR_PAYLOAD_LEN, length),
    ];
    Raw {
        name: c"payload",
        attributes: numbers.map(|(a, n)| (a, AttributeValue::Number(n))).into(),
    }
}

fn lookup(set: &str) -> impl Expression {
    Raw {
        name: c"lookup",
        attributes: vec![
            (sys::NFTNL_EXPR_LOOKUP_SREG, AttributeValue::Number(REG_1)),
            (
                sys::NFTNL_EXPR_LOOKUP_SET,
                AttributeValue::Text(c_name(set)),
            ),
        ],
    }
}
