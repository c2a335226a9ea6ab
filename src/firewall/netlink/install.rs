//! From whatever is there to the table that is configured, with the openings that live; no
//! packet sees anything between.
//!
//! One transaction is not enough for that. The kernel makes a transaction visible at once,
//! but not to a packet that is among the rules already: that goes on with the old rules,
//! and looks from then on into the new sets (`nft_do_chain()` takes the rules of one
//! generation, each lookup asks `nft_genmask_cur()` for itself). Where a table is deleted, its
//! sets are empty for such a packet: whom the rules let in because he is in a set is refused, and
//! a port that is guarded because it is in a set is open. On a machine with 2 processors under
//! full flood, 2 in 20,000 transactions that rebuilt a table let a packet in.
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

use super::build::{Draft, Meanwhile, add, build, close};
use super::inventory::{self, Content};
use super::retire::{Old, grace, retire};
use super::socket::Socket;
use super::survey::{Found, Origin, Survey};
use super::verify;
use crate::firewall::book::Slot;
use crate::firewall::error::FirewallError;
use crate::firewall::ruleset::Ruleset;

/// Builds the table anew at once, for nobody can say whether it guards. What is returned is
/// why some of its openings are missing.
pub(in crate::firewall) fn rebuild(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<Option<FirewallError>, FirewallError> {
    let anew = survey.table.is_some();
    let openings = survey.again(ruleset, keep);
    let lost = build(socket, (ruleset, flags), &openings, anew, Meanwhile::Open)?;
    retire(socket, &survey.renamed)?;
    Ok(lost)
}

/// Makes the table what it should be. `keep` are the openings that live on, all of which
/// `ruleset` has a place for. What is returned with the origin is as for [`rebuild`].
pub(in crate::firewall) fn install(
    socket: &mut Socket,
    ruleset: &Ruleset,
    flags: u32,
    survey: &Survey,
    keep: &[Found],
) -> Result<(Origin, Option<FirewallError>), FirewallError> {
    let origin = survey.origin(ruleset, flags);
    let mut leaving = survey.renamed.clone();
    let mut lost = None;
    match &survey.table {
        None => {
            let meanwhile = match survey.renamed.is_empty() {
                true => Meanwhile::Open,
                false => Meanwhile::Guarded,
            };
            let openings = survey.again(ruleset, keep);
            lost = build(socket, (ruleset, flags), &openings, false, meanwhile)?;
        }
        Some((_, content))
            if origin == Origin::Adopted && verify::sets(socket, ruleset, content)?.is_none() =>
        {
            adopt(socket, (ruleset, flags), (survey, content), keep)?;
        }
        Some((info, content)) => {
            let old = Old::new(info, content);
            leaving.push(replace(socket, (ruleset, flags), (survey, &old), keep)?);
        }
    }
    retire(socket, &leaving)?;
    Ok((origin, lost))
}

/// Takes over a table that looks into the very sets that it should. Its rules alone are
/// written anew: somebody may have changed them.
fn adopt(
    socket: &mut Socket,
    (ruleset, flags): (&Ruleset, u32),
    (survey, content): (&Survey, &Content),
    keep: &[Found],
) -> Result<(), FirewallError> {
    write_rules(socket, (ruleset, flags), content)?;
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
    socket: &mut Socket,
    ruleset: &Ruleset,
) -> Result<(), FirewallError> {
    let content = inventory::content(socket, &ruleset.table).map_err(FirewallError::reading)?;
    write_rules(socket, (ruleset, 0), &content)
}

fn write_rules(
    socket: &mut Socket,
    (ruleset, flags): (&Ruleset, u32),
    content: &Content,
) -> Result<(), FirewallError> {
    let mut rules = Draft::new(ruleset);
    rules.table(flags);
    rules.delete_rules(content);
    rules.rules();
    rules.commit(socket)
}

/// Steps 1 to 3 of the way by a table beside it, which is returned.
fn replace(
    socket: &mut Socket,
    (ruleset, flags): (&Ruleset, u32),
    (survey, old): (&Survey, &Old),
    keep: &[Found],
) -> Result<Old, FirewallError> {
    let beside = survey.beside(ruleset);
    let openings = survey.again(&beside, keep);
    let built = build(
        socket,
        (&beside, flags),
        &openings,
        false,
        Meanwhile::Guarded,
    );
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
    let openings = survey.again(ruleset, keep);
    build(
        socket,
        (ruleset, flags),
        &openings,
        true,
        Meanwhile::Guarded,
    )?;
    Ok(interim)
}
