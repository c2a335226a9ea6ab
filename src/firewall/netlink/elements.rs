//! Elements in the kernel's own form, and back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nftnl::MsgType;

use super::batch::{Batch, c_name, family};
use super::ffi::RawElement;
use crate::firewall::ruleset::{IpFamily, KeyKind, Set, SetContent};
use crate::firewall::transaction::{Element, ElementKey, SetChange, Transaction};
use crate::model::{Protocol, Step};

/// How many bytes nft keeps of a comment at most, the zero byte at its end among them.
pub(super) const COMMENT: usize = 128;

/// Returns a comment as nft keeps it in userdata: type 0, length, the text, a zero byte.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut end = text.len().min(COMMENT - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text, &[0]].concat()
}

/// Returns the text of the comment in userdata, whatever else stands there.
pub(super) fn text_of(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok();
        }
        userdata = rest;
    }
    None
}

/// Returns the bytes of a key, each part padded to 4 bytes.
pub(super) fn key_bytes(key: ElementKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    match key {
        ElementKey::Address(a) => push_address(&mut bytes, a),
        ElementKey::AddressPort(a, step) => {
            push_address(&mut bytes, a);
            push_step(&mut bytes, step);
        }
    }
    bytes
}

/// Takes a key of this kind apart. Returns `None` if the bytes do not fit the kind, and for a port
/// alone, which is nobody's opening.
pub(in crate::firewall) fn key_of(key: KeyKind, bytes: &[u8]) -> Option<ElementKey> {
    match key {
        KeyKind::Address(f) => {
            let (address, rest) = split_address(f, bytes)?;
            rest.is_empty().then_some(ElementKey::Address(address))
        }
        KeyKind::AddressPort(f) => {
            let (address, rest) = split_address(f, bytes)?;
            Some(ElementKey::AddressPort(address, step_of(rest)?))
        }
        KeyKind::Port => None,
    }
}

fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => bytes.extend(a.octets()),
        IpAddr::V6(a) => bytes.extend(a.octets()),
    }
}

fn push_step(bytes: &mut Vec<u8>, step: Step) {
    let [high, low] = step.port.get().to_be_bytes();
    bytes.extend([step.protocol.number(), 0, 0, 0, high, low, 0, 0]);
}

fn split_address(family: IpFamily, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    Some(match family {
        IpFamily::V4 => {
            let (octets, rest) = bytes.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*octets).into(), rest)
        }
        IpFamily::V6 => {
            let (octets, rest) = bytes.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*octets).into(), rest)
        }
    })
}

/// Returns a protocol and a port from their bytes, as [`KeyKind::Port`] has them.
pub(super) fn step_of(bytes: &[u8]) -> Option<Step> {
    let [protocol, _, _, _, high, low, _, _] = bytes else {
        return None;
    };
    let protocol = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|p| p.number() == *protocol)?;
    Step::new(protocol, u16::from_be_bytes([*high, *low]))
}

fn plain(key: Vec<u8>) -> RawElement {
    RawElement {
        key,
        timeout: None,
        userdata: Vec::new(),
    }
}

fn port(step: Step) -> RawElement {
    let mut key = Vec::with_capacity(8);
    push_step(&mut key, step);
    plain(key)
}

/// Returns the elements that a set has by configuration.
fn configured(set: &Set) -> Vec<RawElement> {
    match &set.content {
        SetContent::Openings => Vec::new(),
        SetContent::Ports(ports) => ports.iter().copied().map(port).collect(),
    }
}

/// Adds the elements that a set has by configuration.
pub(super) fn fill(batch: &mut Batch, table: &str, set: &Set) {
    let (table, name) = (c_name(table), c_name(&set.name));
    let place = (nftnl::ProtoFamily::Inet, table.as_c_str(), name.as_c_str());
    batch.elements(place, &configured(set), MsgType::Add);
}

/// Returns true if the keys in a set are those that the set has by configuration.
pub(super) fn is_filled(set: &Set, present: &BTreeSet<Vec<u8>>) -> bool {
    let wanted: BTreeSet<Vec<u8>> = configured(set).into_iter().map(|e| e.key).collect();
    wanted == *present
}

/// Writes transactions as netlink batches, one after another into the same memory.
pub struct Encoder(Batch);

impl Default for Encoder {
    fn default() -> Self {
        Self(Batch::new())
    }
}

impl Encoder {
    /// Returns the bytes of a transaction, as they are sent to the kernel.
    pub fn encode(&mut self, transaction: &Transaction) -> &[u8] {
        self.0.clear();
        write(&mut self.0, transaction);
        self.0.finish()
    }
}

/// Writes each change as one message, so that the number of a message that the kernel refuses is
/// the place of its change in the transaction.
pub(in crate::firewall) fn write(batch: &mut Batch, transaction: &Transaction) {
    for change in &transaction.changes {
        let (element, kind) = match change {
            SetChange::Add(e) => (e, MsgType::Add),
            SetChange::Delete(e) => (e, MsgType::Del),
        };
        add_or_delete(batch, std::slice::from_ref(element), kind);
    }
}

/// Adds elements, those of one set in as few messages as will do.
pub(super) fn add_all(batch: &mut Batch, elements: &[Element]) {
    for same in elements.chunk_by(|a, b| a.set == b.set) {
        add_or_delete(batch, same, MsgType::Add);
    }
}

/// Deletes elements, those of one set in as few messages as will do.
pub(super) fn delete_all(batch: &mut Batch, elements: &[Element]) {
    for same in elements.chunk_by(|a, b| a.set == b.set) {
        add_or_delete(batch, same, MsgType::Del);
    }
}

fn add_or_delete(batch: &mut Batch, elements: &[Element], kind: MsgType) {
    let Some(path) = elements.first().map(|e| &e.set) else {
        return;
    };
    let family = family(&path.family).unwrap_or(nftnl::ProtoFamily::Unspec);
    let raw: Vec<RawElement> = elements
        .iter()
        .map(|e| {
            let mut raw = plain(key_bytes(e.key));
            match kind {
                MsgType::Add => {
                    raw.timeout = e.timeout_ms();
                    raw.userdata = comment(&e.comment);
                }
                MsgType::Del => {}
            }
            raw
        })
        .collect();
    let (table, set) = (c_name(&path.table), c_name(&path.set));
    batch.elements((family, &table, &set), &raw, kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_nft() {
        let step = Step::new(Protocol::Tcp, 22).expect("a port");
        let key = ElementKey::AddressPort(IpAddr::from([203, 0, 113, 7]), step);
        let bytes = key_bytes(key);
        assert_eq!(bytes, [203, 0, 113, 7, 6, 0, 0, 0, 0, 22, 0, 0]);
        assert_eq!(
            key_of(KeyKind::AddressPort(IpFamily::V4), &bytes),
            Some(key)
        );
        assert_eq!(key_of(KeyKind::AddressPort(IpFamily::V6), &bytes), None);
    }

    #[test]
    fn comments_end_where_nft_ends_them() {
        assert_eq!(comment("ssh"), b"\0\x04ssh\0");
        assert_eq!(text_of(&comment("ssh")), Some("ssh"));
        let long = "ä".repeat(100);
        assert_eq!(text_of(&comment(&long)), Some("ä".repeat(63).as_str()));
        assert_eq!(text_of(b"\x01\x01x\0\x02a\0"), Some("a"));
        assert_eq!(text_of(b"\0\x09ssh"), None);
    }
}
