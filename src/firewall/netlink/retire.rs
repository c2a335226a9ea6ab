//! A table that goes, without a packet that sees half of it: first its hook, then, when no
//! packet is among its rules any more, the rest.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

use super::batch::Batch;
use super::inventory::{self, Content, Layout, TableInfo};
use super::socket::{self, BatchRefusal};
use super::structure;
use super::survey::{self, OWNER};
use crate::firewall::error::{Deed, FirewallError};
use crate::firewall::ruleset::Ruleset;
use crate::netlink::NetlinkSocket;

/// How long a packet may be held up among the rules: as long as a hypervisor takes the
/// processor away, and more.
const HELD_UP: Duration = Duration::from_millis(100);

/// Waits until every packet that is among the rules now has left them: for one grace period
/// of RCU, under whose lock they are passed (`nf_hook()`). membarrier(2) does that;
/// kernel/sched/membarrier.c calls `synchronize_rcu()`. 5 to 25 ms; but on a machine with more
/// to do than it can, grace periods of 10 s have been seen, and nobody could knock meanwhile.
pub(super) fn grace() {
    let (done, over) = mpsc::channel();
    let waiter = thread::Builder::new().spawn(move || {
        if membarrier(MembarrierCommand::Global).is_err() {
            // Refused by kernels with nohz_full, and perhaps by a sandbox.
            thread::sleep(HELD_UP);
        }
        // Nobody listens any more if it took too long.
        let _ = done.send(());
    });
    match waiter {
        Ok(_) => _ = over.recv_timeout(HELD_UP),
        Err(_) => thread::sleep(HELD_UP),
    }
}

/// A table that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Old {
    table: String,
    /// Its base chains. The others are reached through them alone, and a map may hold on to
    /// one.
    hooked: Vec<String>,
}

impl Old {
    /// One that was found.
    pub(super) fn new(info: &TableInfo, content: &Content) -> Self {
        let hooked = content.chains.iter().filter(|c| c.base.is_some());
        Self {
            table: info.name.clone(),
            hooked: hooked.map(|c| c.name.clone()).collect(),
        }
    }

    /// One that we have built.
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let hooked = ruleset.chains.iter().filter(|c| c.hook.is_some());
        Self {
            table: ruleset.table.to_string(),
            hooked: hooked.map(|c| c.name.to_owned()).collect(),
        }
    }

    /// Takes it off its hook. From here on it guards nothing.
    pub(super) fn unhook(&self, socket: &mut NetlinkSocket) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        for chain in &self.hooked {
            structure::delete_rules(&mut batch, &self.table, chain);
            structure::delete_chain(&mut batch, &self.table, chain);
        }
        self.commit(socket, &mut batch)
    }

    /// Takes the table away, whatever is in it.
    pub(super) fn delete(&self, socket: &mut NetlinkSocket) -> Result<(), FirewallError> {
        let mut batch = Batch::new();
        structure::delete_table(&mut batch, &self.table);
        self.commit(socket, &mut batch)
    }

    fn commit(&self, socket: &mut NetlinkSocket, batch: &mut Batch) -> Result<(), FirewallError> {
        socket::commit(socket, batch).map_err(|BatchRefusal { errno, .. }| {
            let what = format!("delete table inet {}", self.table);
            FirewallError::refused(&self.table, Deed::Other, what, errno)
        })
    }
}

/// Takes away tables in whose place another guards, all that can be.
pub(super) fn retire<'a>(
    socket: &mut NetlinkSocket,
    tables: impl IntoIterator<Item = &'a Old>,
) -> Result<(), FirewallError> {
    let tables: Vec<&Old> = tables.into_iter().collect();
    if tables.is_empty() {
        return Ok(());
    }
    grace();
    for table in &tables {
        // What is still on its hook goes all the same, though a packet may see half of it.
        let _ = table.unhook(socket);
    }
    grace();
    let mut done = Ok(());
    for table in &tables {
        match table.delete(socket) {
            Err(error) if !error.is_race() => done = Err(error),
            // Or somebody else did it.
            Ok(()) | Err(_) => {}
        }
    }
    done
}

/// Takes the table away, if it is there and ours, and what a crash has left beside it;
/// whether there was one.
pub(in crate::firewall) fn remove(
    socket: &mut NetlinkSocket,
    table: &str,
) -> Result<bool, FirewallError> {
    let tables = inventory::tables(socket).map_err(FirewallError::reading)?;
    let mut old = Vec::new();
    for info in tables {
        let taken = info.flags & OWNER != 0 && info.owner != Some(socket.port());
        if info.name != table && (taken || !survey::is_interim(&info, table)) {
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
        let content = inventory::content(socket, &info.name).map_err(FirewallError::reading)?;
        old.push(Old::new(&info, &content));
    }
    retire(socket, &old)?;
    Ok(!old.is_empty())
}
