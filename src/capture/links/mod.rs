//! The interfaces that are listened to and this host's own addresses, as they come, go and
//! change. No other file speaks route netlink.
//!
//! There is one capture on all interfaces and nothing to reopen. The interface index of a frame
//! says whether the frame counts, its destination address whether it is for this host.

mod change;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod message;
mod socket;
mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::model::Pattern;
use socket::{ReceiveOutcome, RouteSocket};
use table::LinkTable;

pub use change::LinkChange;
pub use socket::LinksError;

/// How many datagrams are read before packets have their turn again.
const BATCH: usize = 256;

/// The interfaces and addresses of this network namespace, as of the last
/// [`Links::on_readable`].
pub struct Links {
    socket: RouteSocket,
    table: LinkTable,
    /// Messages were lost, and what they said could not be looked up.
    is_stale: bool,
}

impl Links {
    /// Begins to follow the interfaces. Those that match these patterns are listened to; without
    /// patterns all but the loopback.
    ///
    /// # Errors
    ///
    /// If the kernel gives no route netlink socket, or no answer on it.
    pub fn open(patterns: &[Pattern]) -> Result<Self, LinksError> {
        // Listen first, then look: changes in between are notified.
        let mut links = Self {
            socket: RouteSocket::open()?,
            table: LinkTable::new(patterns),
            is_stale: false,
        };
        links.look_anew()?;
        links.table.settle();
        Ok(links)
    }

    /// Reads the messages that wait, and returns what has happened. Never waits.
    ///
    /// # Errors
    ///
    /// If the socket fails. An overflow is no error: everything is looked up anew. If that fails, it
    /// is tried again at the next call.
    pub fn on_readable(&mut self) -> Result<Vec<LinkChange>, LinksError> {
        if self.is_stale {
            self.look_anew()?;
        }
        for _ in 0..BATCH {
            match self.socket.receive(|message| self.table.apply(message))? {
                ReceiveOutcome::Some => {}
                ReceiveOutcome::Nothing => break,
                ReceiveOutcome::Overflow => {
                    // The messages that still wait are older than the lost ones, and until they
                    // are out of the way the kernel goes on losing (netlink_overrun() of
                    // net/netlink/af_netlink.c).
                    self.is_stale = true;
                    self.socket.discard()?;
                    self.look_anew()?;
                }
            }
        }
        Ok(self.table.settle())
    }

    /// Asks for all there is. Messages that are read afterwards may be older than the answer, but
    /// then the message that undoes them is read as well.
    fn look_anew(&mut self) -> Result<(), LinksError> {
        let dump = socket::dump()?;
        self.table.replace(dump);
        self.is_stale = false;
        Ok(())
    }

    /// Listens to the interfaces that match these patterns from now on.
    pub fn set_patterns(&mut self, patterns: &[Pattern]) {
        self.table.set_patterns(patterns);
    }

    /// Whether a frame of the interface with this index counts: the interface is listened to, and
    /// no bridge, bond or team that is listened to gives its frames once more.
    #[must_use]
    pub fn counts(&self, index: u32) -> bool {
        self.table.counts(index)
    }

    /// Whether this interface is known. A frame of an unknown one may be ahead of the message
    /// about the interface, which [`Links::on_readable`] then finds.
    #[must_use]
    pub fn knows(&self, index: u32) -> bool {
        self.table.knows(index)
    }

    /// Whether a packet to this address that came by the interface with this index is for this
    /// host: any interface has the address, listened to or not. For 127.0.0.0/8 and ::1 the packet
    /// must have come by a loopback interface.
    #[must_use]
    pub fn is_local(&self, address: IpAddr, index: u32) -> bool {
        self.table.is_local(address, index)
    }

    /// Whether the source of a packet that came by the interface with this index can be answered,
    /// as far as this host's own addresses tell. By a loopback interface this host knocks at
    /// itself. By any other interface a packet cannot come from an address of this host. It never
    /// comes from the broadcast address of a network of this host.
    #[must_use]
    pub fn can_answer(&self, source: IpAddr, index: u32) -> bool {
        self.table.can_answer(source, index)
    }

    /// Returns a number that changes whenever the addresses of this host do, and the addresses.
    pub fn own(&self) -> (u64, impl Iterator<Item = IpAddr>) {
        self.table.own()
    }

    /// Whether a frame of this interface to this address is for this host. Where labels are
    /// listened to (`eth0:1`), the address must have such a label.
    #[must_use]
    pub fn is_knocked_at(&self, index: u32, address: IpAddr) -> bool {
        self.table.is_knocked_at(index, address)
    }

    /// Returns the names of the interfaces that count now, in order.
    #[must_use]
    pub fn listening(&self) -> Vec<&str> {
        self.table.listening()
    }

    /// Returns the interfaces that the configuration names, without wildcards, and that are not
    /// there.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        self.table.missing()
    }

    /// Returns the names of the interfaces that count but have no address, in order.
    #[must_use]
    pub fn without_address(&self) -> Vec<&str> {
        self.table.without_address()
    }
}

impl AsFd for Links {
    /// Readable when messages wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
