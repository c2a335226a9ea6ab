//! The start-up batch: whatever is there, afterwards there is the table that is configured,
//! with the openings that live. One transaction; no packet sees anything between.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::batch::Batch;
use super::inventory::{self, Content, Dumped, Layout, TableInfo};
use super::socket::{Refusal, Socket};
use super::{elements, rules, structure};
use crate::firewall::book::{Entry, Place, Slot, element};
use crate::firewall::error::FirewallError;
use crate::firewall::render;
use crate::firewall::ruleset::{self, Family, Key, Ruleset};
use crate::firewall::transaction::{Element, ElementKey};
use crate::model::{Lifetime, PortRange, SetPath, Timestamp};

/// `NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST`: nobody but us changes the table, and it
/// outlives us. (Debian 12's headers do not have the second; Linux 6.9 does.)
pub(in crate::firewall) const OWNED: u32 = 0x2 | 0x4;
/// `NFT_TABLE_F_PERSIST` alone: what is left of an owned table when its owner has died.
const ORPHAN: u32 = 0x4;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 0x2;

/// How many openings fit a send buffer as the kernel comes (212,992 bytes, at some 60 each).
const PART: usize = 2000;

/// An opening found in a table of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::firewall) struct Found {
    pub(in crate::firewall) slot: Slot,
    /// `None`: until it is closed.
    pub(in crate::firewall) left: Option<Duration>,
    /// The door that made it; `None`: somebody else's work.
    pub(in crate::firewall) door: Option<Arc<str>>,
}

/// What there is before anything is changed.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Survey {
    /// The table of the configured name.
    table: Option<(TableInfo, Content)>,
    /// Tables of ours that go by another name: the configuration has renamed it.
    renamed: Vec<TableInfo>,
    /// What is open in any of them.
    pub(in crate::firewall) openings: Vec<Found>,
}

/// How the table came to be what it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// There was none.
    Created,
    /// It was there and was taken over.
    Adopted,
    /// It was there but had to be built anew (another layout or mode, or a stranger's work
    /// in it), in one transaction and with its openings.
    Rebuilt,
}

/// Looks at what is there.
pub(in crate::firewall) fn survey(
    socket: &mut Socket,
    ruleset: &Ruleset,
    ours: Option<&str>,
) -> Result<Survey, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let port = socket.port();
    let taken = |t: &TableInfo| t.flags & OWNER != 0 && t.owner != Some(port);
    let mut survey = Survey {
        table: None,
        renamed: Vec::new(),
        openings: Vec::new(),
    };
    for info in tables {
        let this = *info.name == *ruleset.table;
        if this && taken(&info) {
            return Err(FirewallError::Owned {
                table: info.name,
                port: info.owner,
            });
        }
        if this && info.layout == Layout::Foreign {
            return Err(FirewallError::Foreign { table: info.name });
        }
        // Of other names only what bears our signature and has no living owner, or is this
        // very process's own.
        let known = ours == Some(info.name.as_str());
        if !this && !known && (info.layout == Layout::Foreign || taken(&info)) {
            continue;
        }
        let content = inventory::content(socket, &info.name).map_err(FirewallError::reading)?;
        let openings = openings(socket, &info.name, &content).map_err(FirewallError::reading)?;
        survey.openings.extend(openings);
        if this {
            survey.table = Some((info, content));
        } else {
            survey.renamed.push(info);
        }
    }
    Ok(survey)
}

/// Everything that is open in a table of ours, of whichever layout.
pub(in crate::firewall) fn openings(
    socket: &mut Socket,
    table: &str,
    content: &Content,
) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    for (name, shape) in &content.sets {
        let Some((range, family)) = set_of_openings(name) else {
            continue;
        };
        let key = match range {
            Some(_) => Key::Address(family),
            None => Key::AddressPort(family),
        };
        if (shape.key_type, shape.key_len) != structure::key(key) {
            continue;
        }
        let path = SetPath {
            family: "inet".to_owned(),
            table: table.to_owned(),
            set: name.clone(),
        };
        let dumped = inventory::elements(socket, &path)?;
        found.extend(dumped.iter().filter_map(|d| opening(d, key, range)));
    }
    Ok(found)
}

/// What an element of a set of openings stands for.
pub(super) fn opening(dumped: &Dumped, key: Key, range: Option<PortRange>) -> Option<Found> {
    let (source, ports) = match (dumped.key(key)?, range) {
        (ElementKey::Address(source), Some(range)) => (source, range),
        (ElementKey::AddressPort(source, step), None) => (
            source,
            PortRange {
                protocol: step.protocol,
                first: step.port,
                last: step.port,
            },
        ),
        (ElementKey::Address(_), None) | (ElementKey::AddressPort(..), Some(_)) => return None,
    };
    Some(Found {
        slot: Slot {
            source,
            place: Place::Ports(ports),
        },
        left: dumped.left,
        door: dumped.comment.as_deref().map(Arc::from),
    })
}

/// Which openings a set of that name holds: of single ports, or of which range.
pub(super) fn set_of_openings(name: &str) -> Option<(Option<PortRange>, Family)> {
    let (stem, suffix) = name.rsplit_once('_')?;
    let family = Family::BOTH.into_iter().find(|f| f.suffix() == suffix)?;
    if stem == "openings" {
        return Some((None, family));
    }
    let (protocol, ports) = stem.split_once('_')?;
    let range = format!("{}/{protocol}", ports.replace('_', "-"));
    Some((Some(range.parse().ok()?), family))
}

impl Survey {
    /// Whether what is there can be kept, and only its rules and configured elements be
    /// replaced.
    fn origin(&self, ruleset: &Ruleset, flags: u32) -> Origin {
        let Some((info, content)) = &self.table else {
            return Origin::Created;
        };
        // The kernel takes a table from orphan to owned, and from nothing to nothing else.
        let flags_fit = info.flags == flags || (info.flags == ORPHAN && flags == OWNED);
        let chains_fit = content.chains.iter().all(|c| {
            ruleset.chains.iter().any(|wanted| {
                let base = wanted.base.then(|| {
                    let accept = 1;
                    (0, structure::MANGLE, accept, "filter".to_owned())
                });
                c.name == wanted.name && c.base == base
            })
        });
        let sets_fit = ruleset.sets.iter().all(|wanted| {
            let there = content.sets.get(&wanted.name);
            there.is_none_or(|shape| *shape == structure::shape(wanted))
        });
        if info.layout == Layout::Current
            && flags_fit
            && chains_fit
            && sets_fit
            && content.objects == 0
        {
            Origin::Adopted
        } else {
            Origin::Rebuilt
        }
    }
}

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

impl Found {
    /// The note of it in a book.
    pub(in crate::firewall) fn entry(&self, now: Timestamp) -> Entry {
        Entry {
            deadline: self.left.map(|left| now + left),
            door: self.door.clone().unwrap_or_else(|| "".into()),
        }
    }
}

/// Builds the table anew whatever is there.
pub(in crate::firewall) fn rebuild(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<(), FirewallError> {
    let origin = match &survey.table {
        Some(_) => Origin::Rebuilt,
        None => Origin::Created,
    };
    put(socket, (ruleset, flags, survey), origin, keep)
}

/// Makes the table what it should be. `keep` are the openings that live on, all of which
/// `ruleset` has a place for.
pub(in crate::firewall) fn install(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<Origin, FirewallError> {
    let origin = survey.origin(ruleset, flags);
    put(socket, (ruleset, flags, survey), origin, keep)?;
    Ok(origin)
}

fn put(
    socket: &mut Socket,
    what: (&Ruleset, u32, &Survey),
    origin: Origin,
    keep: &[Found],
) -> Result<(), FirewallError> {
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
                socket.commit(&mut batch).map_err(|Refusal { errno, .. }| {
                    let what = format!("the openings of table inet {}", ruleset.table);
                    FirewallError::refused(&ruleset.table, what, errno)
                })?;
            }
        }
        other => other?,
    }
    Ok(())
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
    structure::add_table(batch, table, flags);

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
        Err(Refusal { errno, .. }) => Err(FirewallError::refused(
            table,
            format!("delete table inet {table}"),
            errno,
        )),
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
    if info.flags != flags || info.layout != Layout::Current {
        return Ok(Some(format!(
            "table inet {table} has flags {:#x} and layout {:?}, not {flags:#x} and {}",
            info.flags,
            info.layout,
            ruleset::LAYOUT
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
