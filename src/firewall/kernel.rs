//! The kernel's side of a table: the one socket that owns it, and how changes to sets are sent.

use std::sync::Arc;

use nix::errno::Errno;

use super::error::{FirewallError, MessageKind, no_answer};
use super::netlink::batch::Batch;
use super::netlink::elements;
use super::netlink::present::OWNED;
use super::netlink::socket::{self, BatchRefusal};
use super::render;
use super::transaction::{SetChange, Transaction};
use crate::model::SetPath;
use crate::netlink::NetlinkSocket;

/// The socket that made the table, and the table's flags.
pub(super) struct Kernel {
    pub(super) socket: NetlinkSocket,
    /// The flags of the table (`NFT_TABLE_F_…`).
    pub(super) flags: u32,
    batch: Batch,
}

/// Sets of the administrator's that refused a change, and why.
pub(super) type Refused = Vec<(Arc<SetPath>, Errno)>;

impl Kernel {
    pub(super) fn new(socket: NetlinkSocket, flags: u32) -> Self {
        Self {
            socket,
            flags,
            batch: Batch::new(),
        }
    }

    /// Returns true if the kernel keeps others from the table; false if the table is watched.
    pub(super) fn owns(&self) -> bool {
        self.flags == OWNED
    }

    /// Sends a transaction that changes sets of `table`, and of the administrator's. A deletion
    /// whose element is gone (it ran out this moment) is left out, and so is every change of an
    /// administrator's set that refuses one; the rest is sent again. Returns the sets that refused.
    pub(super) fn send(
        &mut self,
        transaction: &mut Transaction,
        table: &str,
        is_admin_set: impl Fn(&SetPath) -> bool,
    ) -> Result<Refused, FirewallError> {
        let mut refused = Vec::new();
        let mut unanswered = false;
        while !transaction.is_empty() {
            self.batch.clear();
            elements::write(&mut self.batch, transaction);
            let Err(BatchRefusal { index, errno }) =
                socket::commit(&mut self.socket, &mut self.batch)
            else {
                break;
            };
            if index.is_none() && !unanswered && no_answer(errno) {
                // The transaction may have been done. To do it twice is to do it once.
                unanswered = true;
                continue;
            }
            let failed = index.and_then(|i| transaction.changes.get(i).map(|c| (i, c)));
            let set = match failed {
                Some((i, SetChange::Delete(_))) if errno == Errno::ENOENT => {
                    transaction.changes.remove(i);
                    continue;
                }
                Some((_, change)) => change.element().set.clone(),
                None => {
                    let what = "the transaction".to_owned();
                    let kind = MessageKind::Other;
                    return Err(FirewallError::refused(table, kind, what, errno));
                }
            };
            if !is_admin_set(&set) {
                let (kind, what) = (MessageKind::Other, render::path(&set));
                return Err(FirewallError::refused(&set.table, kind, what, errno));
            }
            transaction.changes.retain(|c| c.element().set != set);
            refused.push((set, errno));
        }
        Ok(refused)
    }
}
