//! What is done with a table by whoever comes by, with a daemon or without: listed, put up
//! plain, taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::book::{Closed, Place, Slot};
use super::error::FirewallError;
use super::netlink::build::Wanted;
use super::netlink::inventory::{self, Layout, TableInfo};
use super::netlink::socket;
use super::netlink::survey::{self, Found, Renamed, Survey};
use super::netlink::{install, retire};
use super::notice::Notice;
use super::ruleset::Ruleset;
use crate::netlink::NetlinkSocket;

/// An opening, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The door that made it; `None`: somebody put it there by hand.
    pub door: Option<Arc<str>>,
    /// Who may.
    pub source: std::net::IpAddr,
    /// What.
    pub place: Place,
    /// What is left of its time; `None`: until it is closed.
    pub left: Option<Duration>,
}

/// What is open in the table of that name, from the kernel; works without a daemon. `None`:
/// there is no such table.
///
/// # Errors
///
/// If the kernel cannot be asked, or a table of that name is not ours.
pub fn list(table: &str) -> Result<Option<Vec<Opening>>, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    let tables = inventory::tables(&mut socket).map_err(FirewallError::reading)?;
    let foreign = |t: &TableInfo| t.name == table && t.layout == Layout::Foreign;
    if tables.iter().any(foreign) {
        let table = table.to_owned();
        return Err(FirewallError::Foreign { table });
    }
    let content = match inventory::content(&mut socket, table) {
        Ok(content) => content,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(FirewallError::reading(errno)),
    };
    let mut found =
        survey::openings(&mut socket, table, &content).map_err(FirewallError::reading)?;
    found.sort_by(|a, b| a.slot.cmp(&b.slot));
    let openings = found.into_iter().map(|found| {
        let Found { slot, left, door } = found;
        Opening {
            door,
            source: slot.source,
            place: slot.place,
            left,
        }
    });
    Ok(Some(openings.collect()))
}

/// Puts the guard alone in place, for boot; a daemon takes it over. Openings that are there
/// stay. Returns what is to be said.
///
/// # Errors
///
/// As for [`Table::start`](super::Table::start). A daemon that owns the table already guards.
pub fn guard(ruleset: &Ruleset) -> Result<Vec<Notice>, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    plain(&mut socket, ruleset, Renamed::Same)
}

/// Takes the table away, daemon or not; whether there was one.
///
/// # Errors
///
/// If the kernel will not have it: a running daemon owns its table.
pub fn clear(table: &str) -> Result<bool, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    retire::remove(&mut socket, table)
}

/// The table without an owner, openings and all.
pub(super) fn plain(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    renamed: Renamed<'_>,
) -> Result<Vec<Notice>, FirewallError> {
    steadily(|| {
        let survey = survey::survey(socket, ruleset, renamed)?;
        let (keep, _) = sift(ruleset, survey.openings.clone());
        let wanted = Wanted { ruleset, flags: 0 };
        let (_, lost) = install::install(socket, wanted, &survey, &keep)?;
        lost.map_or_else(|| Ok(strays(survey)), Err)
    })
}

/// What is to be said of tables that may have been ours.
pub(super) fn strays(survey: Survey) -> Vec<Notice> {
    let stray = |table| Notice::Stray { table };
    survey.strays.into_iter().map(stray).collect()
}

/// How often it is tried to make the table while others change what is there between our
/// look and our transaction, or while the kernel has no room for its answer: what was done
/// then is found there by the next attempt.
const ATTEMPTS: usize = 10;

pub(super) fn steadily<T>(
    mut attempt: impl FnMut() -> Result<T, FirewallError>,
) -> Result<T, FirewallError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_race() || error.is_unanswered() => {}
            other => return other,
        }
    }
    attempt()
}

/// Divides openings into those that a door of the ruleset would make, and the others. Of
/// one that stands in two tables, the longer.
pub(super) fn sift(ruleset: &Ruleset, found: Vec<Found>) -> (Vec<Found>, Vec<Closed>) {
    let mut keep: BTreeMap<Slot, Found> = BTreeMap::new();
    let mut removed = Vec::new();
    for f in found {
        let granted = match (&f.door, &f.slot.place) {
            (Some(door), Place::Ports(ports)) => ruleset.grants(door, ports),
            (Some(_), Place::Set(..)) | (None, _) => false,
        };
        if !granted {
            removed.push(Closed {
                door: f.door.unwrap_or_else(|| "".into()),
                source: f.slot.source,
                place: f.slot.place,
            });
            continue;
        }
        let longer = match keep.get(&f.slot).map(|k| k.left) {
            None => true,
            Some(None) => false,
            Some(Some(old)) => f.left.is_none_or(|new| new > old),
        };
        if longer {
            keep.insert(f.slot.clone(), f);
        }
    }
    (keep.into_values().collect(), removed)
}
