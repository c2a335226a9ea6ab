//! A table built whole: what is sent for it, in which order, and in how many transactions.

use nix::errno::Errno;

use super::batch::Batch;
use super::inventory::Content;
use super::socket::{self, BatchRefusal};
use super::{elements, rules, structure};
use crate::firewall::error::{Deed, FirewallError};
use crate::firewall::render;
use crate::firewall::ruleset::Ruleset;
use crate::firewall::transaction::Element;
use crate::netlink::NetlinkSocket;

/// How many openings fit a send buffer as the kernel comes (212,992 bytes, at some 60 each).
const PART: usize = 2000;

/// What is done with elements.
type Change = fn(&mut Batch, &[Element]);

/// Who guards until the table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Another table of ours: nobody is let in, and nobody may be kept out before the
    /// openings are there.
    Guarded,
    /// Nobody: the guard comes first.
    Open,
}

/// What a table is to be.
#[derive(Clone, Copy)]
pub(in crate::firewall) struct Wanted<'a> {
    /// What is in it.
    pub(in crate::firewall) ruleset: &'a Ruleset,
    /// Whose it is: `NFT_TABLE_F_…`.
    pub(in crate::firewall) flags: u32,
}

/// A batch in the making, and what each of its messages is about, for the error that
/// names one.
pub(super) struct Draft<'a> {
    ruleset: &'a Ruleset,
    batch: Batch,
    labels: Vec<(usize, Deed, String)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ruleset: &'a Ruleset) -> Self {
        Self {
            ruleset,
            batch: Batch::new(),
            labels: Vec::new(),
        }
    }

    /// What follows is about this, which was there before.
    fn about(&mut self, text: impl Into<String>) -> &mut Batch {
        self.to(Deed::Other, text)
    }

    /// What follows is to do this.
    fn to(&mut self, deed: Deed, text: impl Into<String>) -> &mut Batch {
        self.labels.push((self.batch.len(), deed, text.into()));
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
        structure::add_table(self.to(Deed::Table, text), ruleset, flags);
    }

    /// The sets, with what is in them by configuration.
    fn sets(&mut self) {
        let table = &*self.ruleset.table;
        for (id, set) in (1..).zip(&self.ruleset.sets) {
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

    pub(super) fn delete_rules(&mut self, present: &Content) {
        let table = &*self.ruleset.table;
        for chain in &present.chains {
            let text = format!("flush chain inet {table} {}", chain.name);
            structure::delete_rules(self.about(text), table, &chain.name);
        }
    }

    /// The chains and their rules, which look into sets that were there before if `deed` is
    /// [`Deed::Other`]. From here on, the table guards.
    fn chains(&mut self, deed: Deed) {
        let table = &*self.ruleset.table;
        for chain in &self.ruleset.chains {
            let text = format!("add chain inet {table} {}", chain.name);
            structure::add_chain(self.about(text), table, chain);
        }
        self.rules(deed);
    }

    /// The rules: [`Deed::Rule`], or [`Deed::Other`] if chains and sets were there before.
    pub(super) fn rules(&mut self, deed: Deed) {
        let table = &*self.ruleset.table;
        for chain in &self.ruleset.chains {
            for rule in &chain.rules {
                let text = render::rule(rule);
                let text = format!("add rule inet {table} {} {text}", chain.name);
                rules::add(self.to(deed, text), table, chain.name, rule);
            }
        }
    }

    fn openings(&mut self, openings: &[Element], change: Change) {
        let text = format!("the openings of table inet {}", self.ruleset.table);
        change(self.about(text), openings);
    }

    pub(super) fn commit(mut self, socket: &mut NetlinkSocket) -> Result<(), FirewallError> {
        socket::commit(socket, &mut self.batch).map_err(|BatchRefusal { index, errno }| {
            let of = |i| self.labels.iter().rfind(|(first, ..)| *first <= i);
            let (deed, what) = match index.and_then(of) {
                Some((_, deed, text)) => (*deed, text.clone()),
                None => (Deed::Other, "the transaction".to_owned()),
            };
            FirewallError::refused(&self.ruleset.table, deed, what, errno)
        })
    }
}

/// Builds a table with these openings; `anew`: in place of the one of that name. One
/// transaction, or where so many openings do not fit (root in a user namespace of its own
/// cannot raise the send buffer) several.
///
/// Gives the error that kept openings out, if the table guards all the same.
pub(super) fn build(
    socket: &mut NetlinkSocket,
    Wanted { ruleset, flags }: Wanted<'_>,
    openings: &[Element],
    anew: bool,
    meanwhile: Meanwhile,
) -> Result<Option<FirewallError>, FirewallError> {
    let begun = |openings: &[Element]| {
        let mut draft = Draft::new(ruleset);
        if anew {
            draft.delete_table();
        }
        draft.table(flags);
        draft.sets();
        draft.openings(openings, elements::add_all);
        draft
    };
    let mut whole = begun(openings);
    whole.chains(Deed::Rule);
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
            let mut guard = Draft::new(ruleset);
            guard.chains(Deed::Other);
            guard.commit(socket)?;
            Ok(None)
        }
        Meanwhile::Open => {
            let (first, others) = openings.split_at(PART);
            let mut guard = begun(first);
            guard.chains(Deed::Rule);
            guard.commit(socket)?;
            Ok(add(socket, ruleset, others).err())
        }
    }
}

/// Adds openings, in parts that fit.
pub(super) fn add(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    openings: &[Element],
) -> Result<(), FirewallError> {
    in_parts(socket, ruleset, openings, elements::add_all)
}

/// Takes openings away that are there, likewise.
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
    change: Change,
) -> Result<(), FirewallError> {
    openings.chunks(PART).try_for_each(|part| {
        let mut draft = Draft::new(ruleset);
        draft.openings(part, change);
        draft.commit(socket)
    })
}
