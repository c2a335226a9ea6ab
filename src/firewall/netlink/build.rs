//! A table built whole: its messages, their order, and the number of transactions.

use nix::errno::Errno;

use super::batch::Batch;
use super::inventory::TableContent;
use super::socket::{self, BatchRefusal};
use super::{elements, rules, structure};
use crate::firewall::error::{FirewallError, MessageKind};
use crate::firewall::render;
use crate::firewall::ruleset::{Ruleset, Set};
use crate::firewall::transaction::Element;
use crate::netlink::NetlinkSocket;

/// How many openings fit a send buffer of the kernel's usual size (212,992 bytes, some 60 each).
const PART: usize = 2000;

/// Writes the messages that add or delete elements.
type WriteElements = fn(&mut Batch, &[Element]);

/// The guard until the new table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Another table of ours guards. All openings are added first and the chains last: the chains
    /// must not keep out a source that has an opening.
    Guarded,
    /// Nothing guards, so the chains are added first.
    Open,
}

/// A table that is to be made.
#[derive(Clone, Copy)]
pub(in crate::firewall) struct WantedTable<'a> {
    pub(in crate::firewall) ruleset: &'a Ruleset,
    /// The flags of the table, which say who owns it (`NFT_TABLE_F_…`).
    pub(in crate::firewall) flags: u32,
}

/// A batch, and labels for its messages: an error names the message by its label.
pub(super) struct LabelledBatch<'a> {
    ruleset: &'a Ruleset,
    pub(super) batch: Batch,
    labels: Vec<(usize, MessageKind, String)>,
}

impl<'a> LabelledBatch<'a> {
    pub(super) fn new(ruleset: &'a Ruleset) -> Self {
        Self {
            ruleset,
            batch: Batch::new(),
            labels: Vec::new(),
        }
    }

    /// Labels the messages that follow, if they are of no special kind.
    fn about(&mut self, text: impl Into<String>) -> &mut Batch {
        self.label(MessageKind::Other, text)
    }

    /// Labels the messages that follow.
    fn label(&mut self, kind: MessageKind, text: impl Into<String>) -> &mut Batch {
        self.labels.push((self.batch.len(), kind, text.into()));
        &mut self.batch
    }

    pub(super) fn delete_table(&mut self) {
        let table = &*self.ruleset.table;
        structure::delete_table(self.about(format!("delete table inet {table}")), table);
    }

    /// Adds the table, or takes it over if it is there.
    pub(super) fn table(&mut self, flags: u32) {
        let ruleset = self.ruleset;
        let text = format!("add table inet {}", ruleset.table);
        structure::add_table(self.label(MessageKind::Table, text), ruleset, flags);
    }

    /// Adds sets, with the elements that they have by configuration.
    pub(super) fn sets<'s>(&mut self, sets: impl IntoIterator<Item = &'s Set>) {
        let table = &*self.ruleset.table;
        for (id, set) in (1..).zip(sets) {
            let name = &set.name;
            structure::add_set(
                self.about(format!("add set inet {table} {name}")),
                table,
                set,
                id,
            );
            let text = format!("the elements of set inet {table} {name}");
            elements::fill(self.about(text), table, set);
        }
    }

    pub(super) fn delete_rules(&mut self, present: &TableContent) {
        let table = &*self.ruleset.table;
        for chain in &present.chains {
            let text = format!("flush chain inet {table} {}", chain.name);
            structure::delete_rules(self.about(text), table, &chain.name);
        }
    }

    /// Adds the chains and their rules. `kind` is [`MessageKind::Other`] if the sets that the rules
    /// look into were there before. When this is committed, the table guards.
    pub(super) fn chains(&mut self, kind: MessageKind) {
        let table = &*self.ruleset.table;
        for chain in &self.ruleset.chains {
            let text = format!("add chain inet {table} {}", chain.name);
            structure::add_chain(self.about(text), table, chain);
        }
        self.rules(kind);
    }

    /// Adds the rules. `kind` is [`MessageKind::Other`] if chains and sets were there before.
    pub(super) fn rules(&mut self, kind: MessageKind) {
        let table = &*self.ruleset.table;
        for chain in &self.ruleset.chains {
            for rule in &chain.rules {
                let text = render::rule(rule);
                let text = format!("add rule inet {table} {} {text}", chain.name);
                rules::add(self.label(kind, text), table, chain.name, rule);
            }
        }
    }

    fn openings(&mut self, openings: &[Element], write: WriteElements) {
        let text = format!("the openings of table inet {}", self.ruleset.table);
        write(self.about(text), openings);
    }

    pub(super) fn commit(mut self, socket: &mut NetlinkSocket) -> Result<(), FirewallError> {
        socket::commit(socket, &mut self.batch).map_err(|BatchRefusal { index, errno }| {
            let of = |i| self.labels.iter().rfind(|(first, ..)| *first <= i);
            let (kind, what) = match index.and_then(of) {
                Some((_, kind, text)) => (*kind, text.clone()),
                None => (MessageKind::Other, "the transaction".to_owned()),
            };
            FirewallError::refused(&self.ruleset.table, kind, what, errno)
        })
    }
}

/// Builds a table with these openings; with `anew`, in place of the table of that name. One
/// transaction is sent, or several if so many openings do not fit (root in a user namespace of its
/// own cannot raise the send buffer).
///
/// Returns the error that kept openings out, if the table guards nevertheless.
pub(super) fn build(
    socket: &mut NetlinkSocket,
    WantedTable { ruleset, flags }: WantedTable<'_>,
    openings: &[Element],
    anew: bool,
    meanwhile: Meanwhile,
) -> Result<Option<FirewallError>, FirewallError> {
    let begun = |openings: &[Element]| {
        let mut batch = LabelledBatch::new(ruleset);
        if anew {
            batch.delete_table();
        }
        batch.table(flags);
        batch.sets(&ruleset.sets);
        batch.openings(openings, elements::add_all);
        batch
    };
    let mut whole = begun(openings);
    whole.chains(MessageKind::Rule);
    match whole.commit(socket) {
        Err(FirewallError::Refused {
            errno: Errno::EMSGSIZE,
            ..
        }) if openings.len() > PART => {}
        done => return done.map(|()| None),
    }
    match meanwhile {
        Meanwhile::Guarded => {
            begun(&[]).commit(socket)?;
            add(socket, ruleset, openings)?;
            let mut guard = LabelledBatch::new(ruleset);
            guard.chains(MessageKind::Other);
            guard.commit(socket)?;
            Ok(None)
        }
        Meanwhile::Open => {
            let (first, others) = openings.split_at(PART);
            let mut guard = begun(first);
            guard.chains(MessageKind::Rule);
            guard.commit(socket)?;
            Ok(add(socket, ruleset, others).err())
        }
    }
}

/// Adds openings, in parts that fit the send buffer.
pub(super) fn add(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    openings: &[Element],
) -> Result<(), FirewallError> {
    in_parts(socket, ruleset, openings, elements::add_all)
}

/// Deletes openings that are there, in parts that fit the send buffer.
pub(super) fn close(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    openings: &[Element],
) -> Result<(), FirewallError> {
    in_parts(socket, ruleset, openings, elements::delete_all)
}

fn in_parts(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    openings: &[Element],
    write: WriteElements,
) -> Result<(), FirewallError> {
    openings.chunks(PART).try_for_each(|part| {
        let mut batch = LabelledBatch::new(ruleset);
        batch.openings(part, write);
        batch.commit(socket)
    })
}
