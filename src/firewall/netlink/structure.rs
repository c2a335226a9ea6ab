//! Writes the messages that add and delete tables, chains and sets. rustables builds these
//! messages. But rustables has no word for the size of a set, so nftnl builds the sets of openings.

use nftnl::{MsgType as Nftnl, ProtoFamily};
use rustables::{
    Chain, ChainPolicy, ChainType, Hook, HookClass, MsgType, ProtocolFamily, Rule, Set, Table,
};

use super::batch::{Batch, c_name};
use super::elements;
use super::ffi::{SetShape, sized_set};
use crate::firewall::ruleset::{self, CAPACITY, IpFamily, KeyKind, Ruleset, SetContent};

/// The priority that nft calls *mangle* (`NF_IP_PRI_MANGLE`).
pub(super) const MANGLE: i32 = -150;

/// nft's numbers of data types. Each takes 6 bits in a concatenation (nftables' datatype.h).
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;

/// Set flags, `NFT_SET_…` (linux/netfilter/nf_tables.h).
pub(super) mod set_flag {
    pub(in super::super) const ANONYMOUS: u32 = 0x1;
    pub(in super::super) const CONSTANT: u32 = 0x2;
    pub(in super::super) const INTERVAL: u32 = 0x4;
    pub(in super::super) const MAP: u32 = 0x8;
    pub(in super::super) const TIMEOUT: u32 = 0x10;
    pub(in super::super) const OBJECT: u32 = 0x40;
}

/// Returns how the kernel keeps a set of ours.
pub(super) fn shape(set: &ruleset::Set) -> SetShape {
    let (flags, size) = match set.content {
        SetContent::Openings => (set_flag::TIMEOUT, CAPACITY),
        SetContent::Ports(_) => (0, 0),
    };
    let (key_type, key_len) = key(set.key);
    SetShape {
        key_type,
        key_len,
        flags,
        size,
    }
}

/// Returns type and length of a key.
pub(super) fn key(key: KeyKind) -> (u32, u32) {
    let address = |family| match family {
        IpFamily::V4 => (IPV4_ADDR, 4),
        IpFamily::V6 => (IPV6_ADDR, 16),
    };
    match key {
        KeyKind::Address(f) => address(f),
        KeyKind::AddressPort(f) => {
            let (kind, length) = address(f);
            (kind << 12 | INET_PROTO << 6 | INET_SERVICE, length + 8)
        }
        KeyKind::Port => (INET_PROTO << 6 | INET_SERVICE, 8),
    }
}

/// Adds the table, or takes it over if it is there.
pub(super) fn add_table(batch: &mut Batch, ruleset: &Ruleset, flags: u32) {
    let table = Table::new(ProtocolFamily::Inet)
        .with_name(&*ruleset.table)
        .with_flags(flags)
        .with_userdata(elements::comment(&ruleset.comment()));
    batch.rustables(|b| b.add(&table, MsgType::Add));
}

/// Deletes the table, with all that is in it.
pub(super) fn delete_table(batch: &mut Batch, name: &str) {
    let table = Table::new(ProtocolFamily::Inet).with_name(name);
    batch.rustables(|b| b.add(&table, MsgType::Del));
}

/// Adds a set, without its elements.
pub(super) fn add_set(batch: &mut Batch, table: &str, set: &ruleset::Set, id: u32) {
    let shape = shape(set);
    if shape.size > 0 {
        let table = nftnl::Table::new(c_name(table), ProtoFamily::Inet);
        let set = sized_set(&table, &c_name(&set.name), id, shape);
        batch.nftnl(&set, Nftnl::Add);
    } else {
        let set = named_set(table, &set.name)
            .with_flags(shape.flags)
            .with_key_type(shape.key_type)
            .with_key_len(shape.key_len)
            .with_id(id);
        batch.rustables(|b| b.add(&set, MsgType::Add));
    }
}

/// Adds a chain, without its rules.
pub(super) fn add_chain(batch: &mut Batch, table: &str, chain: &ruleset::GuardChain) {
    let mut out = Chain::new(&Table::new(ProtocolFamily::Inet).with_name(table));
    out.set_name(chain.name);
    if let Some(hook) = chain.hook {
        let class = match hook {
            ruleset::Hook::Prerouting => HookClass::PreRouting,
            ruleset::Hook::Input => HookClass::In,
        };
        out.set_hook(Hook::new(class, MANGLE));
        out.set_policy(ChainPolicy::Accept);
        out.set_type(ChainType::Filter);
    }
    batch.rustables(|b| b.add(&out, MsgType::Add));
}

/// Deletes all rules of a chain.
pub(super) fn delete_rules(batch: &mut Batch, table: &str, chain: &str) {
    let mut of = Chain::new(&Table::new(ProtocolFamily::Inet).with_name(table));
    of.set_name(chain);
    // Without a handle the message deletes all rules. Both names are there, so this cannot fail.
    let Ok(rules) = Rule::new(&of) else { return };
    batch.rustables(|b| b.add(&rules, MsgType::Del));
}

/// Deletes a set that no rule refers to, with its elements.
pub(super) fn delete_set(batch: &mut Batch, table: &str, name: &str) {
    batch.rustables(|b| b.add(&named_set(table, name), MsgType::Del));
}

fn named_set(table: &str, name: &str) -> Set {
    Set {
        family: ProtocolFamily::Inet,
        ..Set::default()
    }
    .with_table(table)
    .with_name(name)
}
