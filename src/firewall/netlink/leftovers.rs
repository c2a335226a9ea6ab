//! The leftovers of a change: things in the kernel that the new rules do not use. A packet that was
//! among the old rules when they were replaced still uses them, so they are deleted later.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use rustix::thread::{MembarrierCommand, membarrier};

use super::batch::Batch;
use super::elements;
use super::inventory::{self, Layout};
use super::present::{self, OWNER};
use super::socket::{self, BatchRefusal};
use super::structure;
use crate::firewall::error::{FirewallError, MessageKind};
use crate::firewall::opening::OpeningSlot;
use crate::firewall::render;
use crate::firewall::ruleset::Ruleset;
use crate::netlink::NetlinkSocket;

/// The longest time that a packet may be held up among the rules: as long as a hypervisor takes
/// the processor away, and more.
pub(in crate::firewall) const HELD_UP: Duration = Duration::from_millis(100);

/// How many leftovers are deleted in one transaction: packets wait meanwhile.
pub(in crate::firewall) const TOGETHER: usize = 256;

/// One thing that is left behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::firewall) enum Leftover {
    /// An opening that the configuration no longer grants, of ports that it no longer guards.
    Opening(OpeningSlot),
    /// A set of our table.
    Set(String),
    /// Another table of ours, in whose place the new table guards.
    Table(String),
}

impl Leftover {
    pub(super) fn is_set(&self) -> bool {
        matches!(self, Self::Set(_))
    }

    /// Returns the name of the table, if the leftover is one.
    pub(in crate::firewall) fn table(&self) -> Option<&str> {
        match self {
            Self::Table(name) => Some(name),
            Self::Opening(_) | Self::Set(_) => None,
        }
    }

    /// Writes the message that deletes the leftover. Returns the deletion in nft's words, or `None`
    /// if no message is needed: an opening of a range goes with the set of that range.
    fn write_deletion(&self, batch: &mut Batch, ruleset: &Ruleset) -> Option<String> {
        Some(match self {
            Self::Opening(slot) => {
                let element = slot.key(ruleset)?;
                elements::delete_all(batch, std::slice::from_ref(&element));
                format!("delete element {}", render::path(&element.set))
            }
            Self::Set(name) => {
                structure::delete_set(batch, &ruleset.table, name);
                format!("delete set inet {} {name}", ruleset.table)
            }
            Self::Table(name) => {
                structure::delete_table(batch, name);
                format!("delete table inet {name}")
            }
        })
    }
}

/// Deletes the leftovers that are still there, in one transaction: everybody who watches nftables
/// is notified of each transaction, the daemon among them. `ruleset` is the ruleset of our table.
pub(in crate::firewall) fn delete<'a>(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    leftovers: impl IntoIterator<Item = &'a Leftover>,
) -> Result<(), FirewallError> {
    let mut leftovers: Vec<&Leftover> = leftovers.into_iter().collect();
    loop {
        let mut batch = Batch::new();
        // For each message of the batch: the leftover that it deletes, and the deletion in nft's
        // words.
        let mut messages = Vec::new();
        for (place, leftover) in leftovers.iter().enumerate() {
            let what = leftover.write_deletion(&mut batch, ruleset);
            messages.extend(what.map(|what| (place, what)));
        }
        let Err(BatchRefusal { index, errno }) = socket::commit(socket, &mut batch) else {
            return Ok(());
        };
        let failed = index.and_then(|index| messages.into_iter().nth(index));
        let what = match failed {
            // The opening has run out, or somebody else has deleted the leftover.
            Some((place, _)) if errno == Errno::ENOENT => {
                leftovers.remove(place);
                continue;
            }
            Some((_, what)) => what,
            None => "the transaction".to_owned(),
        };
        let kind = MessageKind::Other;
        return Err(FirewallError::refused(&ruleset.table, kind, what, errno));
    }
}

/// Waits until every packet that is among the rules now has left them. That is one grace period of
/// RCU, under whose lock packets pass the rules (`nf_hook()`). membarrier(2) waits for one:
/// kernel/sched/membarrier.c calls `synchronize_rcu()`. A grace period takes 5 to 25 ms. But on a
/// machine with more to do than it can, grace periods of 10 s have been seen, and nobody could
/// knock meanwhile; so the wait ends after [`HELD_UP`].
pub(in crate::firewall) fn grace() {
    let (done, over) = mpsc::channel();
    let waiter = thread::Builder::new().spawn(move || {
        if membarrier(MembarrierCommand::Global).is_err() {
            // membarrier is refused by kernels with nohz_full, and perhaps by a sandbox.
            thread::sleep(HELD_UP);
        }
        // Nobody waits for this any more if it took too long.
        let _ = done.send(());
    });
    match waiter {
        Ok(_) => _ = over.recv_timeout(HELD_UP),
        Err(_) => thread::sleep(HELD_UP),
    }
}

/// Deletes all leftovers as soon as no packet uses them. This waits, so it is only for callers that
/// hold up no loop.
pub(in crate::firewall) fn finish(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
    leftovers: &BTreeSet<Leftover>,
) -> Result<(), FirewallError> {
    if leftovers.is_empty() {
        return Ok(());
    }
    grace();
    let all: Vec<&Leftover> = leftovers.iter().collect();
    all.chunks(TOGETHER)
        .try_for_each(|some| delete(socket, ruleset, some.iter().copied()))
}

/// Deletes the table of that name if it is there and ours, and every table that a crash has left
/// beside it. Returns true if there was one.
pub(in crate::firewall) fn remove(
    socket: &mut NetlinkSocket,
    table: &str,
) -> Result<bool, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let mut batch = Batch::new();
    for info in tables {
        let taken = info.flags & OWNER != 0 && info.owner != Some(socket.port());
        if info.name != table && (taken || !present::is_interim(&info, table)) {
            continue;
        }
        if taken {
            return Err(FirewallError::Owned {
                table: info.name,
                port: info.owner,
            });
        }
        if info.layout == Layout::Foreign {
            return Err(FirewallError::Foreign { table: info.name });
        }
        structure::delete_table(&mut batch, &info.name);
    }
    if batch.len() == 0 {
        return Ok(false);
    }
    match socket::commit(socket, &mut batch) {
        Ok(()) => Ok(true),
        Err(BatchRefusal { errno, .. }) => {
            let what = format!("delete table inet {table}");
            let kind = MessageKind::Other;
            Err(FirewallError::refused(table, kind, what, errno))
        }
    }
}
