//! Work on a table where no daemon runs: the table is listed, made without an owner, or deleted.

use nix::errno::Errno;

use super::error::{FirewallError, steadily};
use super::netlink::build::WantedTable;
use super::netlink::inventory::{self, Layout, TableInfo};
use super::netlink::present::{self, Renamed};
use super::netlink::{install, leftovers, socket};
use super::notice::Notice;
use super::opening::{FoundOpening, Opening, divide};
use super::ruleset::Ruleset;
use crate::netlink::NetlinkSocket;

/// Reads the openings in the table of that name from the kernel; works without a daemon. Returns
/// `None` if there is no such table.
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
        present::openings(&mut socket, table, &content).map_err(FirewallError::reading)?;
    found.sort_by(|a, b| a.slot.cmp(&b.slot));
    let openings = found.into_iter().map(|found| {
        let FoundOpening { slot, left, door } = found;
        Opening {
            door,
            source: slot.source,
            place: slot.place,
            left,
        }
    });
    Ok(Some(openings.collect()))
}

/// Puts the guard alone in place, for boot; a daemon takes the table over. Openings that are there
/// stay. Returns notices for the log.
///
/// # Errors
///
/// As for [`GuardTable::start`](super::GuardTable::start). A daemon that owns the table already
/// guards.
pub fn guard(ruleset: &Ruleset) -> Result<Vec<Notice>, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    plain(&mut socket, ruleset, Renamed::Same)
}

/// Deletes the table, daemon or not. Returns true if there was one.
///
/// # Errors
///
/// If the kernel refuses: a running daemon owns its table.
pub fn clear(table: &str) -> Result<bool, FirewallError> {
    let mut socket = socket::open().map_err(FirewallError::reading)?;
    remove(&mut socket, table)
}

/// Deletes the table through this socket, which may own it.
pub(super) fn remove(socket: &mut NetlinkSocket, table: &str) -> Result<bool, FirewallError> {
    let mut was_there = false;
    steadily(|| {
        let removed = leftovers::remove(socket, table)?;
        was_there |= removed;
        Ok(was_there)
    })
}

/// Makes the table one without an owner, with its openings. Waits until no leftover remains.
pub(super) fn plain(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    renamed: Renamed<'_>,
) -> Result<Vec<Notice>, FirewallError> {
    steadily(|| {
        let present = present::look(socket, ruleset, renamed)?;
        let (keep, _) = divide(ruleset, present.openings.iter().cloned());
        let wanted = WantedTable { ruleset, flags: 0 };
        let installed = install::install(socket, wanted, &present, &keep)?;
        leftovers::finish(socket, ruleset, &installed.leftovers)?;
        installed
            .lost
            .map_or_else(|| Ok(strays(present.strays)), Err)
    })
}

/// Returns notices about tables that may have been ours.
pub(super) fn strays(tables: Vec<String>) -> Vec<Notice> {
    let stray = |table| Notice::Stray { table };
    tables.into_iter().map(stray).collect()
}
