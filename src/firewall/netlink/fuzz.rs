//! What holds for whatever the kernel says of nftables; and that what is written reads as it was meant,
//! by way of libnftnl and rustables, in whose memory a fault would be ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::batch::nft;
use super::build::LabelledBatch;
use super::elements::{COMMENT, comment, key_bytes, key_of, text_of};
use super::events::{Commit, EventReader};
use super::inventory::{self, Dumped, INET, Layout, attr};
use super::present::{OWNED, opening, set_of_openings};
use super::{elements, structure, verify};
use crate::firewall::error::MessageKind;
use crate::firewall::ruleset::{IpFamily, KeyKind, Ruleset};
use crate::firewall::transaction::{Element, ElementKey, SetChange, Transaction};
use crate::model::{Protocol, SetPath, Step};
use crate::netlink::{Message, Messages};

/// Whatever is read out of an answer has the form that we write.
pub fn nft_replies(datagrams: &[u8]) {
    for m in Messages(datagrams) {
        let is_known = inventory::read_table(&m).is_some_and(|t| t.layout != Layout::Foreign);
        assert!(!is_known || m.family() == Some(INET));
        let named = inventory::read_set(&m).and_then(|(name, _)| set_of_openings(&name));
        let _ = (inventory::read_chain(&m), inventory::read_rule(&m));
        for dumped in inventory::list(m.attributes()) {
            element(&dumped);
            if let Some((range, family)) = named {
                let kind = match range {
                    Some(_) => KeyKind::Address(family),
                    None => KeyKind::AddressPort(family),
                };
                let found = opening(&dumped, kind, range);
                assert!(found.is_none_or(|found| IpFamily::of(found.slot.source) == family));
            }
        }
    }
}

fn element(dumped: &Dumped) {
    for family in IpFamily::BOTH {
        for kind in [KeyKind::Address(family), KeyKind::AddressPort(family)] {
            if let Some(key) = dumped.key(kind) {
                assert_eq!(key_of(kind, &key_bytes(key)), Some(key));
            }
        }
    }
    let text = dumped.comment.as_deref();
    if let Some(text) = text.filter(|text| text.len() < COMMENT) {
        assert_eq!(text_of(&comment(text)), Some(text));
    }
}

/// A transaction is told once, at its end, and it is the same for who reads its messages one by one.
pub fn nft_events(datagrams: &[u8]) {
    let mut events = EventReader::default();
    let all: Vec<_> = Messages(datagrams).collect();
    let read = |events: &mut EventReader, m: &Message<'_>| events.read(m, "knockd", &|_| true);
    for m in &all {
        let commit = read(&mut events, m);
        assert_eq!(commit.is_some(), m.kind == nft(libc::NFT_MSG_NEWGEN));
        if commit.is_some() {
            assert_eq!(events, EventReader::default(), "nothing is told twice");
        }
    }
    // Nothing is ours where no table has our name.
    for m in &all {
        let commit = EventReader::default().read(m, "\0", &|_| false);
        if let Some(commit) = commit {
            let by = commit.by.clone();
            assert_eq!(
                commit,
                Commit {
                    by,
                    ..Commit::default()
                }
            );
        }
    }
}

/// Bytes that stand for elements.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// A text of at most 255 bytes, without zeros.
    fn text(&mut self) -> Option<String> {
        let [length] = self.take()?;
        let (head, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        let mut text = String::from_utf8_lossy(head).replace('\0', "_");
        let end = (0..=255.min(text.len())).rfind(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        Some(text)
    }

    fn element(&mut self) -> Option<Element> {
        const FAMILIES: [&str; 6] = ["inet", "ip", "ip6", "arp", "bridge", "netdev"];
        let [family, kind, protocol, timed] = self.take()?;
        let family = FAMILIES[usize::from(family) % FAMILIES.len()].to_owned();
        let source: IpAddr = match kind % 2 {
            0 => self.take::<4>()?.into(),
            _ => self.take::<16>()?.into(),
        };
        let protocol = match protocol % 2 {
            0 => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let step = Step::new(protocol, u16::from_be_bytes(self.take()?));
        Some(Element {
            set: Arc::new(SetPath {
                family,
                table: self.text()?,
                set: self.text()?,
            }),
            key: step.map_or(ElementKey::Address(source), |step| {
                ElementKey::AddressPort(source, step)
            }),
            timeout: match timed % 2 {
                0 => None,
                _ => Some(Duration::from_millis(u64::from_be_bytes(self.take()?))),
            },
            comment: self.text()?.into(),
        })
    }
}

/// Elements are read back as they were written, one by one and many in a message.
pub fn nft_elements(script: &[u8]) {
    let mut script = Script(script);
    let mut elements = Vec::new();
    while let Some(element) = script.element() {
        // Half of them are of the same set as the one before.
        let (same, last): (bool, Option<&Element>) =
            (element.comment.len() % 2 == 1, elements.last());
        let set = last.filter(|_| same).map(|last| Arc::clone(&last.set));
        elements.push(Element {
            set: set.unwrap_or_else(|| Arc::clone(&element.set)),
            ..element
        });
    }
    let changes = elements.iter().cloned().map(SetChange::Add).collect();
    let mut encoder = elements::Encoder::default();
    let batch = encoder.encode(&Transaction { changes });
    let read = |batch: &[u8]| -> Vec<_> {
        Messages(batch)
            .filter(is_of_nftables)
            .map(|m| read_back(&m))
            .collect()
    };
    let one_by_one = read(batch);
    assert!(one_by_one.iter().all(|(_, found)| found.len() == 1));
    let wanted: Vec<_> = elements.iter().map(as_read).collect();
    assert_eq!(flat(one_by_one), wanted);

    let mut batch = super::batch::Batch::new();
    elements::add_all(&mut batch, &elements);
    assert_eq!(flat(read(batch.finish())), wanted);

    let changes = elements.iter().cloned().map(SetChange::Delete).collect();
    let deleted = flat(read(encoder.encode(&Transaction { changes })));
    assert!(deleted.iter().zip(&wanted).all(|((a, found), (b, meant))| {
        a == b && found.key == meant.key && found.left.is_none() && found.comment.is_none()
    }));
    assert_eq!(deleted.len(), wanted.len());
}

fn is_of_nftables(m: &Message<'_>) -> bool {
    m.kind >= nft(0)
}

type Place = (Option<u8>, String, String);

fn read_back(m: &Message<'_>) -> (Place, Vec<Dumped>) {
    let a = m.attributes();
    let text = |kind| a.text(kind).unwrap_or_default().to_owned();
    let place = (m.family(), text(attr::LIST_TABLE), text(attr::LIST_SET));
    (place, inventory::list(a).collect())
}

fn flat(messages: Vec<(Place, Vec<Dumped>)>) -> Vec<(Place, Dumped)> {
    let all = messages
        .into_iter()
        .flat_map(|(place, found)| found.into_iter().map(move |dumped| (place.clone(), dumped)));
    all.collect()
}

fn as_read(element: &Element) -> (Place, Dumped) {
    let SetPath { family, table, set } = &*element.set;
    let family = super::batch::family(family).map(|family| family as u8);
    let dumped = Dumped {
        key: key_bytes(element.key),
        // The kernel tells what is left; we write how long it is to be.
        left: element.timeout_ms().map(|_| Duration::ZERO),
        comment: text_of(&comment(&element.comment)).map(str::to_owned),
    };
    ((family, table.clone(), set.clone()), dumped)
}

/// A table is read back as it was written: comment, sets, chains, and a message for each rule.
pub(crate) fn table(ruleset: &Ruleset) {
    let mut batch = LabelledBatch::new(ruleset);
    batch.table(OWNED);
    batch.sets(&ruleset.sets);
    batch.chains(MessageKind::Rule);
    let bytes = batch.batch.finish();
    let mut content = inventory::TableContent::default();
    let mut table = None;
    let mut filled = BTreeMap::<String, Vec<Dumped>>::new();
    for m in Messages(bytes).filter(is_of_nftables) {
        let is = |message| m.kind == nft(message);
        assert_eq!(m.attributes().text(attr::TABLE_OF), Some(&*ruleset.table));
        if is(libc::NFT_MSG_NEWTABLE) {
            table = inventory::read_table(&m);
        } else if is(libc::NFT_MSG_NEWSET) {
            content.sets.extend(inventory::read_set(&m));
        } else if is(libc::NFT_MSG_NEWCHAIN) {
            content.chains.extend(inventory::read_chain(&m));
        } else if is(libc::NFT_MSG_NEWRULE) {
            let chain = inventory::read_rule(&m).unwrap_or_default();
            *content.rules.entry(chain.to_owned()).or_default() += 1;
        } else {
            let ((_, _, set), found) = read_back(&m);
            filled.entry(set).or_default().extend(found);
        }
    }
    let table = table.expect("a table");
    assert!(
        table.is_current(ruleset) && table.flags == OWNED,
        "{table:?}"
    );
    assert!(verify::chains_fit(ruleset, &content), "{content:?}");
    for chain in &ruleset.chains {
        assert_eq!(
            content.rules.get(chain.name).copied().unwrap_or(0),
            chain.rules.len()
        );
    }
    assert_eq!(content.sets.len(), ruleset.sets.len());
    for set in &ruleset.sets {
        assert_eq!(content.sets.get(&set.name), Some(&structure::shape(set)));
        let found = filled.remove(&set.name).unwrap_or_default();
        assert!(
            elements::is_filled(set, &inventory::keys(&found)),
            "{found:?}"
        );
    }
    assert!(filled.is_empty());
}
