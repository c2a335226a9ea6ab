//! Makes the configured table from whatever is present, with the openings that live on. No packet
//! sees anything in between.
//!
//! One transaction is not enough for that. The kernel makes a transaction visible at once, but not
//! to a packet that is among the rules already. Such a packet goes on with the old rules, and looks
//! from then on into the sets as they are now (`nft_do_chain()` takes the rules of one generation,
//! each lookup asks `nft_genmask_cur()` for itself). And a packet that has passed the list of hooks
//! before a new chain was put on it does not meet that chain, but may meet an old chain that has no
//! rules any more. On a machine with 2 processors under full flood, 2 in 20,000 transactions that
//! rebuilt a table let a packet in.
//!
//! So rules and the sets that they look into never change together:
//!
//! 1. grow: the sets that are missing are added, and the openings;
//! 2. switch: the rules are deleted and added in one transaction;
//! 3. shrink: things that only the old rules have used are deleted later, as [`Leftover`]s.
//!
//! The kernel changes neither the owner of a table (but for an orphan, which it lets us adopt) nor
//! its comment, and two tables cannot have one name. A table that must change in these, or that a
//! stranger has changed, is replaced by way of another beside it:
//!
//! 1. the new table is built under a name of its own: only packets pass that both tables let in;
//! 2. when every packet meets the new table, the old one is deleted and the new one built under the
//!    right name, in one transaction;
//! 3. the table beside it is a leftover.
//!
//! If we die in the middle a guard stands, and the next start clears up.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use super::build::{LabelledBatch, Meanwhile, WantedTable, add, build, close};
use super::inventory::{self, TableContent, TableInfo};
use super::leftovers::{self, Leftover, grace};
use super::present::{self, ORPHAN, OWNED, Origin, Present};
use super::{structure, verify};
use crate::firewall::error::{FirewallError, MessageKind};
use crate::firewall::opening::{FoundOpening, OpeningSlot};
use crate::firewall::ruleset::{Ruleset, SetContent, names_of_guarded};
use crate::netlink::NetlinkSocket;

/// How a table was made.
#[derive(Debug, Clone)]
pub(in crate::firewall) struct Installed {
    pub(in crate::firewall) origin: Origin,
    /// The ruleset that was asked for; its set of guarded ports may have another name.
    pub(in crate::firewall) ruleset: Ruleset,
    /// Why some openings are missing.
    pub(in crate::firewall) lost: Option<FirewallError>,
    pub(in crate::firewall) leftovers: BTreeSet<Leftover>,
}

/// Builds the table anew at once, for nobody can say whether the present table guards. Returns why
/// some of its openings are missing.
pub(in crate::firewall) fn rebuild(
    socket: &mut NetlinkSocket,
    wanted: WantedTable<'_>,
    present: &Present,
    keep: &[FoundOpening],
) -> Result<(Option<FirewallError>, BTreeSet<Leftover>), FirewallError> {
    let anew = present.table.is_some();
    let openings = present.again(wanted.ruleset, keep);
    let lost = build(socket, wanted, &openings, anew, Meanwhile::Open)?;
    Ok((lost, renamed(present)))
}

/// Makes the table what it should be. `keep` has the openings that live on; the ruleset has a set
/// for each.
pub(in crate::firewall) fn install(
    socket: &mut NetlinkSocket,
    wanted: WantedTable<'_>,
    present: &Present,
    keep: &[FoundOpening],
) -> Result<Installed, FirewallError> {
    let mut installed = Installed {
        origin: Origin::Created,
        ruleset: wanted.ruleset.clone(),
        lost: None,
        leftovers: renamed(present),
    };
    match &present.table {
        None => {
            let meanwhile = match present.renamed.is_empty() {
                true => Meanwhile::Open,
                false => Meanwhile::Guarded,
            };
            let openings = present.again(wanted.ruleset, keep);
            installed.lost = build(socket, wanted, &openings, false, meanwhile)?;
        }
        Some((info, content)) if is_like(wanted, info, content) => {
            installed.ruleset = settle(socket, wanted.ruleset, content)?;
            let wanted = WantedTable {
                ruleset: &installed.ruleset,
                ..wanted
            };
            let (grown, leftovers) = change(socket, wanted, present, content, keep)?;
            installed.origin = match grown || leftovers.iter().any(Leftover::is_set) {
                true => Origin::Rebuilt,
                false => Origin::Adopted,
            };
            installed.leftovers.extend(leftovers);
        }
        Some(_) => {
            let beside = replace(socket, wanted, present, keep)?;
            installed.leftovers.insert(Leftover::Table(beside));
            installed.origin = Origin::Rebuilt;
        }
    }
    Ok(installed)
}

fn renamed(present: &Present) -> BTreeSet<Leftover> {
    let names = present.renamed.iter().cloned();
    names.map(Leftover::Table).collect()
}

/// Returns true if other sets and rules alone turn the present table into the wanted one.
fn is_like(
    WantedTable { ruleset, flags }: WantedTable<'_>,
    info: &TableInfo,
    content: &TableContent,
) -> bool {
    // The kernel makes an orphan an owned table. No other flags of a table that is there can be
    // changed, and no comment.
    let flags_fit = info.flags == flags || (info.flags == ORPHAN && flags == OWNED);
    let sets = content.sets.iter();
    flags_fit
        && info.is_current(ruleset)
        && content.objects == 0
        && verify::chains_fit(ruleset, content)
        && sets.clone().all(|(name, shape)| present::is_ours(name, *shape))
        // Nothing changes the type of a set: a set of another type can only be replaced.
        && ruleset.sets.iter().all(|set| {
            let there = content.sets.get(&set.name);
            let guarded = matches!(set.content, SetContent::Ports(_));
            guarded || there.is_none_or(|shape| *shape == structure::shape(set))
        })
}

/// Returns the ruleset with its set of guarded ports renamed: to the first name under which there
/// is no set, or a set with these very ports.
fn settle(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    content: &TableContent,
) -> Result<Ruleset, FirewallError> {
    for name in names_of_guarded() {
        let settled = ruleset.with_guarded_in(&name);
        let Some(set) = settled.sets.iter().find(|set| set.name == name) else {
            break;
        };
        let fits = match content.sets.get(&name) {
            None => true,
            Some(shape) if *shape == structure::shape(set) => {
                verify::is_filled(socket, ruleset, set)?
            }
            Some(_) => false,
        };
        if fits {
            return Ok(settled);
        }
    }
    Ok(ruleset.clone())
}

/// Grows and switches a table that is [like](is_like) the wanted one. Returns true if the table has
/// got new sets, and the leftovers to shrink. The rules are always written: somebody may have
/// changed them.
fn change(
    socket: &mut NetlinkSocket,
    wanted: WantedTable<'_>,
    present: &Present,
    content: &TableContent,
    keep: &[FoundOpening],
) -> Result<(bool, BTreeSet<Leftover>), FirewallError> {
    let WantedTable { ruleset, flags } = wanted;
    let sets = ruleset.sets.iter();
    let missing: Vec<_> = sets
        .filter(|set| !content.sets.contains_key(&set.name))
        .collect();
    if !missing.is_empty() {
        let mut grown = LabelledBatch::new(ruleset);
        grown.table(flags);
        grown.sets(missing.iter().copied());
        grown.commit(socket)?;
    }
    let is_there = |f: &&FoundOpening| present.slots.contains(&f.slot);
    let new = keep.iter().filter(|f| !is_there(f));
    add(socket, ruleset, &present.again(ruleset, new))?;

    write_rules(socket, wanted, content)?;

    let kept: BTreeSet<&OpeningSlot> = keep.iter().map(|f| &f.slot).collect();
    let there = present.openings.iter().filter(is_there);
    // An opening that is in a renamed table, too, was found twice.
    let gone: BTreeMap<&OpeningSlot, &FoundOpening> = there
        .filter(|f| !kept.contains(&f.slot))
        .map(|f| (&f.slot, f))
        .collect();
    // The ports of the other openings are not guarded any more, so these openings let nobody in.
    let opened = ruleset.opened();
    let (now, later): (Vec<_>, Vec<_>) = gone
        .into_values()
        .partition(|f| f.slot.place.overlaps(&opened));
    close(socket, ruleset, &present.again(ruleset, now))?;
    let mut leftovers: BTreeSet<Leftover> = later
        .into_iter()
        .map(|f| Leftover::Opening(f.slot.clone()))
        .collect();
    let names = content.sets.keys();
    let unused = names.filter(|name| ruleset.sets.iter().all(|set| set.name != **name));
    leftovers.extend(unused.cloned().map(Leftover::Set));
    Ok((!missing.is_empty(), leftovers))
}

/// Writes the rules of a watched table anew. Everything else in the table is as it should be.
pub(in crate::firewall) fn rewrite(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
) -> Result<(), FirewallError> {
    let content = inventory::content(socket, &ruleset.table).map_err(FirewallError::reading)?;
    if !verify::chains_fit(ruleset, &content) {
        // The table was changed or deleted after it was compared.
        let errno = Errno::ENOENT;
        return Err(FirewallError::Reading { errno });
    }
    write_rules(socket, WantedTable { ruleset, flags: 0 }, &content)
}

fn write_rules(
    socket: &mut NetlinkSocket,
    WantedTable { ruleset, flags }: WantedTable<'_>,
    content: &TableContent,
) -> Result<(), FirewallError> {
    let mut rules = LabelledBatch::new(ruleset);
    rules.table(flags);
    rules.delete_rules(content);
    rules.rules(MessageKind::Other);
    match rules.commit(socket) {
        Err(FirewallError::Refused { what, errno }) if errno == Errno::ENOENT => {
            // Either a set was deleted after we had looked, and everything begins anew; or all sets
            // are there, and the kernel does not know an expression of the rule.
            let there = inventory::content(socket, &ruleset.table);
            let there = there.map_err(FirewallError::reading)?;
            let fits = verify::chains_fit(ruleset, &there)
                && verify::sets(socket, ruleset, &there)?.is_none();
            Err(match fits {
                true => FirewallError::Unsupported { what },
                false => FirewallError::Refused { what, errno },
            })
        }
        other => other,
    }
}

/// Returns true if the kernel lets a table be owned and outlive its owner (Linux 6.9). The answer
/// comes from a trial table that is deleted in the transaction that adds it.
pub(in crate::firewall) fn can_own(
    socket: &mut NetlinkSocket,
    present: &Present,
    ruleset: &Ruleset,
) -> Result<bool, FirewallError> {
    let trial = present.beside(ruleset);
    let mut batch = LabelledBatch::new(&trial);
    batch.table(OWNED);
    batch.delete_table();
    match batch.commit(socket) {
        Ok(()) => Ok(true),
        Err(FirewallError::Ownership { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Replaces the table by way of another beside it. Returns the name of that other table.
fn replace(
    socket: &mut NetlinkSocket,
    wanted: WantedTable<'_>,
    present: &Present,
    keep: &[FoundOpening],
) -> Result<String, FirewallError> {
    let beside = present.beside(wanted.ruleset);
    let name = beside.table.to_string();
    let at_first = WantedTable {
        ruleset: &beside,
        ..wanted
    };
    let openings = present.again(&beside, keep);
    let built = build(socket, at_first, &openings, false, Meanwhile::Guarded);
    let replaced = built.and_then(|_| {
        grace();
        let openings = present.again(wanted.ruleset, keep);
        build(socket, wanted, &openings, true, Meanwhile::Guarded)
    });
    if let Err(error) = &replaced
        && !error.is_race()
        && !error.is_unanswered()
        && guards(socket, &wanted.ruleset.table)
    {
        // The change was refused, and the old table guards: it must do so alone. In any other case
        // the table beside it stays, for the next attempt begins with the tables that are there.
        let _ = leftovers::delete(socket, &beside, [&Leftover::Table(name.clone())]);
    }
    replaced.map(|_| name)
}

/// Returns true if packets meet rules of that table.
fn guards(socket: &mut NetlinkSocket, table: &str) -> bool {
    inventory::content(socket, table).is_ok_and(|content| {
        let mut hooked = content.chains.iter().filter(|chain| chain.base.is_some());
        hooked.any(|chain| content.rules.contains_key(&chain.name))
    })
}
