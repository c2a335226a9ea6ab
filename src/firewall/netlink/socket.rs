//! The sockets to nftables, and the way that a batch goes out by one of them.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol::NetlinkNetFilter;

use super::batch::Batch;
use crate::netlink::{NetlinkRefusal, NetlinkSocket};

/// The netlink group of nftables' notifications, `NFNLGRP_NFTABLES` (7).
const NFTABLES_GROUP: u32 = 1 << 6;

/// The kernel's refusal of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::firewall) struct BatchRefusal {
    /// The place of the refused message in the batch, from 0; `None`: the whole batch.
    pub(in crate::firewall) index: Option<usize>,
    pub(in crate::firewall) errno: Errno,
}

/// Opens a socket for requests.
pub(in crate::firewall) fn open() -> Result<NetlinkSocket, Errno> {
    NetlinkSocket::open(NetlinkNetFilter, 0)
}

/// Opens a socket that is notified of every change to nftables.
pub(in crate::firewall) fn listening() -> Result<NetlinkSocket, Errno> {
    NetlinkSocket::open(NetlinkNetFilter, NFTABLES_GROUP)
}

/// Sends a batch in one write, and takes the answer.
pub(in crate::firewall) fn commit(
    socket: &mut NetlinkSocket,
    batch: &mut Batch,
) -> Result<(), BatchRefusal> {
    let bytes = batch.finish();
    if bytes.is_empty() {
        return Ok(());
    }
    let refused = socket.commit(bytes);
    refused.map_err(|NetlinkRefusal { seq, errno }| BatchRefusal {
        index: seq.and_then(|seq| batch.index(seq)),
        errno,
    })
}
