//! From whatever is there to the table that is configured, with the openings that live; no
//! packet sees anything between.
//!
//! One transaction is not enough for that. The kernel makes a transaction visible at once,
//! but not to a packet that is among the rules already: that goes on with the old rules,
//! and looks from then on into the new sets (`nft_do_chain()` takes the rules of one
//! generation, each lookup asks `nft_genmask_cur()` for itself). Where a table is deleted,
//! its sets are empty for such a packet: whom the rules let in because he is in a set is
//! refused, and a port that is guarded because it is in a set is open. On a machine with 2
//! processors under full flood, 2 in 20,000 transactions that rebuilt a table let a packet in.
//!
//! So rules and what they look into never change together. A table that cannot stay as it is
//! is replaced by way of another beside it:
//!
//! 1. the new table is built under a name of its own: whoever both let in gets in;
//! 2. the old one is taken off its hook: now the new one guards alone;
//! 3. the old one goes and the new one is built under the right name: both say the same;
//! 4. the one beside it is taken off its hook;
//! 5. and goes.
//!
//! Between any two of these no packet may be under way with rules from before: [`grace`] waits
//! for that. If we die in the middle a guard stands, and the next start clears up.

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::build::{Draft, Meanwhile, Wanted, add, build, close};
use super::inventory::{self, Content, TableInfo};
use super::retire::{Old, grace, retire};
use super::survey::{Found, ORPHAN, OWNED, Origin, Survey};
use super::verify;
use crate::firewall::book::Slot;
use crate::firewall::error::{Deed, FirewallError};
use crate::firewall::ruleset::Ruleset;
use crate::netlink::NetlinkSocket;

/// Builds the table anew at once, for nobody can say whether it guards. What is returned is
/// why some of its openings are missing.
pub(in crate::firewall) fn rebuild(
    socket: &mut NetlinkSocket,
    wanted: Wanted<'_>,
    survey: &Survey,
    keep: &[Found],
) -> Result<Option<FirewallError>, FirewallError> {
    let anew = survey.table.is_some();
    let openings = survey.again(wanted.ruleset, keep);
    let lost = build(socket, wanted, &openings, anew, Meanwhile::Open)?;
    retire(socket, &survey.renamed)?;
    Ok(lost)
}

/// Makes the table what it should be. `keep` are the openings that live on, all of which
/// the ruleset has a place for. What is returned with the origin is as for [`rebuild`].
pub(in crate::firewall) fn install(
    socket: &mut NetlinkSocket,
    wanted: Wanted<'_>,
    survey: &Survey,
    keep: &[Found],
) -> Result<(Origin, Option<FirewallError>), FirewallError> {
    let mut leaving = survey.renamed.clone();
    let mut lost = None;
    let origin = match &survey.table {
        None => {
            let meanwhile = match survey.renamed.is_empty() {
                true => Meanwhile::Open,
                false => Meanwhile::Guarded,
            };
            let openings = survey.again(wanted.ruleset, keep);
            lost = build(socket, wanted, &openings, false, meanwhile)?;
            Origin::Created
        }
        Some((info, content)) if may_stay(socket, wanted, info, content)? => {
            adopt(socket, wanted, survey, content, keep)?;
            Origin::Adopted
        }
        Some((info, content)) => {
            let old = Old::new(info, content);
            leaving.push(replace(socket, wanted, survey, &old, keep)?);
            Origin::Rebuilt
        }
    };
    retire(socket, &leaving)?;
    Ok((origin, lost))
}

/// Whether what is there is the table that is wanted, but for its rules and openings.
fn may_stay(
    socket: &mut NetlinkSocket,
    Wanted { ruleset, flags }: Wanted<'_>,
    info: &TableInfo,
    content: &Content,
) -> Result<bool, FirewallError> {
    // The kernel takes a table from orphan to owned, and from nothing to nothing else; and it
    // changes no comment of a table that is there.
    let flags_fit = info.flags == flags || (info.flags == ORPHAN && flags == OWNED);
    let fits = flags_fit
        && info.is_current(ruleset)
        && content.objects == 0
        && verify::chains_fit(ruleset, content);
    Ok(fits && verify::sets(socket, ruleset, content)?.is_none())
}

/// Takes over a table that [may stay](may_stay). Its rules are written anew: somebody may
/// have changed them.
fn adopt(
    socket: &mut NetlinkSocket,
    wanted: Wanted<'_>,
    survey: &Survey,
    content: &Content,
    keep: &[Found],
) -> Result<(), FirewallError> {
    write_rules(socket, wanted, content)?;
    let ruleset = wanted.ruleset;
    let is_there = |f: &&Found| survey.present.contains(&f.slot);
    let new = keep.iter().filter(|f| !is_there(f));
    add(socket, ruleset, &survey.again(ruleset, new))?;
    let kept: BTreeSet<&Slot> = keep.iter().map(|f| &f.slot).collect();
    let there = survey.openings.iter().filter(is_there);
    let gone = there.filter(|f| !kept.contains(&f.slot));
    close(socket, ruleset, &survey.again(ruleset, gone))
}

/// Writes the rules of a watched table anew, all else of which is as it should be.
pub(in crate::firewall) fn rewrite(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
) -> Result<(), FirewallError> {
    let content = inventory::content(socket, &ruleset.table).map_err(FirewallError::reading)?;
    if !verify::chains_fit(ruleset, &content) {
        // It went while it was looked at.
        let errno = Errno::ENOENT;
        return Err(FirewallError::Reading { errno });
    }
    write_rules(socket, Wanted { ruleset, flags: 0 }, &content)
}

fn write_rules(
    socket: &mut NetlinkSocket,
    Wanted { ruleset, flags }: Wanted<'_>,
    content: &Content,
) -> Result<(), FirewallError> {
    let mut rules = Draft::new(ruleset);
    rules.table(flags);
    rules.delete_rules(content);
    rules.rules(Deed::Other);
    match rules.commit(socket) {
        Err(FirewallError::Refused { what, errno }) if errno == Errno::ENOENT => {
            // Either a set went between our look and this, and all begins anew; or it is there,
            // and the kernel does not know what the rule is made of.
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

/// Whether the kernel lets a table be owned and outlive its owner (Linux 6.9): asked by one
/// that goes in the transaction in which it comes.
pub(in crate::firewall) fn can_own(
    socket: &mut NetlinkSocket,
    survey: &Survey,
    ruleset: &Ruleset,
) -> Result<bool, FirewallError> {
    let trial = survey.beside(ruleset);
    let mut draft = Draft::new(&trial);
    draft.table(OWNED);
    draft.delete_table();
    match draft.commit(socket) {
        Ok(()) => Ok(true),
        Err(FirewallError::Ownership { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Steps 1 to 3 of the way by a table beside it, which is returned.
fn replace(
    socket: &mut NetlinkSocket,
    wanted: Wanted<'_>,
    survey: &Survey,
    old: &Old,
    keep: &[Found],
) -> Result<Old, FirewallError> {
    let beside = survey.beside(wanted.ruleset);
    let openings = survey.again(&beside, keep);
    let at_first = Wanted {
        ruleset: &beside,
        ..wanted
    };
    let built = build(socket, at_first, &openings, false, Meanwhile::Guarded);
    let interim = Old::of(&beside);
    built
        .and_then(|_| {
            grace();
            old.unhook(socket)
        })
        .inspect_err(|error| {
            // Refused, the old one guards, and must do so alone. But if it is not known what
            // became of it the interim one stays: the next attempt begins with what is there.
            if !error.is_race() && !error.is_unanswered() {
                let _ = interim.delete(socket);
            }
        })?;
    grace();
    // The kernel has had the same a moment ago.
    let openings = survey.again(wanted.ruleset, keep);
    build(socket, wanted, &openings, true, Meanwhile::Guarded)?;
    Ok(interim)
}
