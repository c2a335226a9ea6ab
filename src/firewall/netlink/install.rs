//! The start-up batch: whatever is there, afterwards there is the table that is configured,
//! with the openings that live. One transaction; no packet sees anything between.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::batch::Batch;
use super::inventory::{self, Content, Layout};
use super::socket::{Refusal, Socket};
use super::survey::{Found, OWNER, Origin, Survey};
use super::{elements, rules, structure};
use crate::firewall::book::{Slot, element};
use crate::firewall::error::FirewallError;
use crate::firewall::render;
use crate::firewall::ruleset::{self, Ruleset};
use crate::firewall::transaction::Element;
use crate::model::{Lifetime, SetPath};

/// How many openings fit a send buffer as the kernel comes (212,992 bytes, at some 60 each).
const PART: usize = 2000;

/// What each message of a batch is about, for the error that names one.
#[derive(Default)]
struct Labels(Vec<(usize, String)>);

impl Labels {
    fn mark(&mut self, batch: &Batch, text: impl Into<String>) {
        self.0.push((batch.len(), text.into()));
    }

    fn of(&self, index: Option<usize>) -> String {
        let found = index.and_then(|i| self.0.iter().rfind(|(first, _)| *first <= i));
        found.map_or_else(|| "the transaction".to_owned(), |(_, text)| text.clone())
    }
}

/// Builds the table anew whatever is there. As for [`install`], what is returned with it is
/// why some of its openings are missing.
pub(in crate::firewall) fn rebuild(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<Option<FirewallError>, FirewallError> {
    let origin = match &survey.table {
        Some(_) => Origin::Rebuilt,
        None => Origin::Created,
    };
    put(socket, (ruleset, flags, survey), origin, keep)
}

/// Makes the table what it should be. `keep` are the openings that live on, all of which
/// `ruleset` has a place for. With more of them than fit one transaction, those that follow
/// may be refused when the table stands already: why, is returned.
pub(in crate::firewall) fn install(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<(Origin, Option<FirewallError>), FirewallError> {
    let origin = survey.origin(ruleset, flags);
    let lost = put(socket, (ruleset, flags, survey), origin, keep)?;
    Ok((origin, lost))
}

fn put(
    socket: &mut Socket,
    what: (&Ruleset, u32, &Survey),
    origin: Origin,
    keep: &[Found],
) -> Result<Option<FirewallError>, FirewallError> {
    let (ruleset, _, _) = what;
    match attempt(socket, what, origin, keep) {
        Err(FirewallError::Refused {
            errno: Errno::EMSGSIZE,
            ..
        }) if keep.len() > PART => {
            // More openings than the send buffer may hold, which root in a user namespace
            // of its own cannot raise: the others follow at once.
            let (first, others) = keep.split_at(PART);
            attempt(socket, what, origin, first)?;
            for part in others.chunks(PART) {
                let mut batch = Batch::new();
                let elements: Vec<Element> =
                    part.iter().filter_map(|f| again(ruleset, f)).collect();
                elements::add_all(&mut batch, &elements);
                if let Err(Refusal { errno, .. }) = socket.commit(&mut batch) {
                    let what = format!("the openings of table inet {}", ruleset.table);
                    return Ok(Some(FirewallError::refused(&ruleset.table, what, errno)));
                }
            }
        }
        other => other?,
    }
    Ok(None)
}

fn attempt(
    socket: &mut Socket,
    what: (&Ruleset, u32, &Survey),
    origin: Origin,
    keep: &[Found],
) -> Result<(), FirewallError> {
    let (ruleset, _, _) = what;
    let mut batch = Batch::new();
    let mut labels = Labels::default();
    build(socket, &mut batch, &mut labels, what, origin, keep)?;
    socket
        .commit(&mut batch)
        .map_err(|Refusal { index, errno }| {
            FirewallError::refused(&ruleset.table, labels.of(index), errno)
        })
}

/// An opening that is put in again, with what is left of its time.
fn again(ruleset: &Ruleset, found: &Found) -> Option<Element> {
    let lifetime = found.left.map_or(Lifetime::UntilClosed, Lifetime::For);
    let door = found.door.clone().unwrap_or_else(|| "".into());
    element(ruleset, &found.slot, lifetime, &door)
}

fn build(
    socket: &mut Socket,
    batch: &mut Batch,
    labels: &mut Labels,
    (ruleset, flags, survey): (&Ruleset, u32, &Survey),
    origin: Origin,
    keep: &[Found],
) -> Result<(), FirewallError> {
    let table = &*ruleset.table;
    let nothing = Content::default();
    // What of the old content stays.
    let old = match (origin, &survey.table) {
        (Origin::Adopted, Some((_, content))) => content,
        (Origin::Created | Origin::Adopted | Origin::Rebuilt, _) => &nothing,
    };
    if origin == Origin::Rebuilt {
        labels.mark(batch, format!("delete table inet {table}"));
        structure::delete_table(batch, table);
    }
    labels.mark(batch, format!("add table inet {table}"));
    structure::add_table(batch, ruleset, flags);

    // Rules first: they hold on to sets and chains.
    for chain in &old.chains {
        labels.mark(batch, format!("flush chain inet {table} {}", chain.name));
        structure::delete_rules(batch, table, &chain.name);
    }
    for (id, set) in (1..).zip(&ruleset.sets) {
        if !old.sets.contains_key(&set.name) {
            labels.mark(batch, format!("add set inet {table} {}", set.name));
            structure::add_set(batch, table, set, id);
        }
    }
    for chain in &ruleset.chains {
        if old.chains.iter().all(|c| c.name != chain.name) {
            labels.mark(batch, format!("add chain inet {table} {}", chain.name));
            structure::add_chain(batch, table, chain);
        }
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            let text = render::rule(rule);
            labels.mark(
                batch,
                format!("add rule inet {table} {} {text}", chain.name),
            );
            rules::add(batch, table, chain.name, rule);
        }
    }
    for name in old.sets.keys() {
        if ruleset.sets.iter().all(|s| s.name != *name) {
            labels.mark(batch, format!("delete set inet {table} {name}"));
            structure::delete_set(batch, table, name);
        }
    }

    for set in &ruleset.sets {
        labels.mark(
            batch,
            format!("the elements of set inet {table} {}", set.name),
        );
        let present = match (&set.content, old.sets.contains_key(&set.name)) {
            (ruleset::Content::Openings, _) => continue,
            (_, false) => Vec::new(),
            (_, true) => {
                let path = path_of(table, &set.name);
                inventory::elements(socket, &path).map_err(FirewallError::reading)?
            }
        };
        elements::difference(batch, table, set, &inventory::keys(&present));
    }

    labels.mark(batch, format!("the openings of table inet {table}"));
    match origin {
        Origin::Adopted => {
            let there: BTreeSet<&Slot> = keep.iter().map(|f| &f.slot).collect();
            let gone: Vec<Element> = survey
                .openings
                .iter()
                .filter(|f| !there.contains(&f.slot))
                .filter_map(|f| again(ruleset, f))
                .filter(|e| old.sets.contains_key(&e.set.set))
                .collect();
            elements::delete_all(batch, &gone);
        }
        Origin::Created | Origin::Rebuilt => {}
    }
    // Those in a table that goes, and in the one that is rebuilt, are put in again.
    let copied = origin != Origin::Adopted || !survey.renamed.is_empty();
    if copied {
        let all: Vec<Element> = keep.iter().filter_map(|f| again(ruleset, f)).collect();
        elements::add_all(batch, &all);
    }
    for old in &survey.renamed {
        labels.mark(batch, format!("delete table inet {}", old.name));
        structure::delete_table(batch, &old.name);
    }
    Ok(())
}

fn path_of(table: &str, set: &str) -> SetPath {
    SetPath {
        family: "inet".to_owned(),
        table: table.to_owned(),
        set: set.to_owned(),
    }
}

/// Takes the table away, if it is there and ours.
pub(in crate::firewall) fn remove(socket: &mut Socket, table: &str) -> Result<bool, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let Some(info) = tables.into_iter().find(|t| t.name == table) else {
        return Ok(false);
    };
    if info.flags & OWNER != 0 && info.owner != Some(socket.port()) {
        return Err(FirewallError::Owned {
            table: info.name,
            port: info.owner,
        });
    }
    if info.layout == Layout::Foreign {
        return Err(FirewallError::Foreign { table: info.name });
    }
    let mut batch = Batch::new();
    structure::delete_table(&mut batch, table);
    match socket.commit(&mut batch) {
        Ok(()) => Ok(true),
        Err(Refusal {
            errno: Errno::ENOENT,
            ..
        }) => Ok(false),
        Err(Refusal { errno, .. }) => {
            let what = format!("delete table inet {table}");
            let error = FirewallError::refused(table, what, errno);
            if error.is_unanswered() {
                let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
                if tables.iter().all(|t| t.name != table) {
                    return Ok(true);
                }
            }
            Err(error)
        }
    }
}

/// Whether what is there is what is configured, as far as an inventory shows it; the first
/// difference in words.
pub(in crate::firewall) fn verify(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
) -> Result<Option<String>, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let table = &*ruleset.table;
    let Some(info) = tables.into_iter().find(|t| t.name == table) else {
        return Ok(Some(format!("there is no table inet {table}")));
    };
    if info.flags != flags || !info.is_current(ruleset) {
        return Ok(Some(format!(
            "table inet {table} has flags {:#x} and layout {:?}, not {flags:#x} and \"{}\"",
            info.flags,
            info.layout,
            ruleset.comment()
        )));
    }
    let content = inventory::content(socket, table).map_err(FirewallError::reading)?;
    if content.sets.len() != ruleset.sets.len() || content.objects != 0 {
        return Ok(Some(format!(
            "table inet {table} has a stranger's objects in it"
        )));
    }
    for set in &ruleset.sets {
        let name = &set.name;
        let Some(shape) = content.sets.get(name) else {
            return Ok(Some(format!("set {name} is missing")));
        };
        if *shape != structure::shape(set) {
            return Ok(Some(format!("set {name} is of another type")));
        }
        if set.content != ruleset::Content::Openings {
            let dumped = inventory::elements(socket, &path_of(table, name))
                .map_err(FirewallError::reading)?;
            let mut scratch = Batch::new();
            elements::difference(&mut scratch, table, set, &inventory::keys(&dumped));
            if scratch.len() != 0 {
                return Ok(Some(format!("set {name} has other elements")));
            }
        }
    }
    if content.chains.len() != ruleset.chains.len() {
        return Ok(Some(format!("table inet {table} has other chains")));
    }
    for chain in &ruleset.chains {
        let there = content.rules.get(chain.name).copied().unwrap_or(0);
        if there != chain.rules.len() {
            return Ok(Some(format!(
                "chain {} has {there} rules, not {}",
                chain.name,
                chain.rules.len()
            )));
        }
    }
    Ok(None)
}
