//! The interfaces that are listened to and the addresses that are this host's own, as they
//! come, go and change: the only user of route netlink.
//!
//! There is one capture on all interfaces and nothing to reopen. Which frames count is
//! judged here, by interface index; whom they are for, by address.

mod change;
mod message;
mod socket;
mod table;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::model::Pattern;
use socket::{Received, RouteSocket};
use table::LinkTable;

pub use change::LinkChange;
pub use socket::LinksError;

/// How many datagrams are taken in before packets have their turn again.
const BATCH: usize = 256;

/// The interfaces and addresses of this network namespace, as of the last
/// [`Links::on_readable`].
pub struct Links {
    socket: RouteSocket,
    table: LinkTable,
}

impl Links {
    /// Begins to follow; these interfaces are listened to (none given: all but the loopback).
    ///
    /// # Errors
    ///
    /// If the kernel gives no route netlink socket, or no answer on it.
    pub fn open(patterns: &[Pattern]) -> Result<Self, LinksError> {
        // Listen first, then look: what changes in between is heard.
        let mut links = Self {
            socket: RouteSocket::open()?,
            table: LinkTable::new(patterns),
        };
        links.look_anew()?;
        links.table.settle();
        Ok(links)
    }

    /// Takes in what the kernel has to say. Never waits.
    ///
    /// # Errors
    ///
    /// If the socket fails. That it overflowed is no error: everything is looked up anew.
    pub fn on_readable(&mut self) -> Result<Vec<LinkChange>, LinksError> {
        for _ in 0..BATCH {
            match self.socket.receive(|message| self.table.apply(message))? {
                Received::Some => {}
                Received::Nothing => break,
                Received::Overflow => {
                    // What still waits is older than what was lost, and until it is out of
                    // the way the kernel goes on losing (netlink_overrun() of
                    // net/netlink/af_netlink.c).
                    self.socket.discard()?;
                    self.look_anew()?;
                }
            }
        }
        Ok(self.table.settle())
    }

    /// Asks for all there is. What is heard afterwards may be older than the answer, but
    /// whatever undoes it is heard as well.
    fn look_anew(&mut self) -> Result<(), LinksError> {
        let dump = socket::dump()?;
        self.table.replace(dump);
        Ok(())
    }

    /// Listens to these interfaces from now on.
    pub fn set_patterns(&mut self, patterns: &[Pattern]) {
        self.table.set_patterns(patterns);
    }

    /// Whether a frame of the interface with this index counts: it is listened to, and no
    /// bridge, bond or team that is listened to gives its frames once more.
    #[must_use]
    pub fn counts(&self, index: u32) -> bool {
        self.table.counts(index)
    }

    /// Whether this interface has been heard of. A frame of one that has not may be ahead
    /// of its news, which [`Links::on_readable`] then finds.
    #[must_use]
    pub fn knows(&self, index: u32) -> bool {
        self.table.knows(index)
    }

    /// Whether a packet to this address, come by the interface with that index, is for this
    /// host: the address is of any interface, listened to or not; one of 127.0.0.0/8, and ::1,
    /// by a loopback interface alone.
    #[must_use]
    pub fn is_local(&self, address: IpAddr, index: u32) -> bool {
        self.table.is_local(address, index)
    }

    /// Whether who sent a packet that came by the interface with this index can be answered, as
    /// far as this host's own addresses tell: by a loopback interface this host knocks at itself,
    /// by any other nobody bears its addresses, nor the broadcast address of a network of its.
    #[must_use]
    pub fn can_answer(&self, source: IpAddr, index: u32) -> bool {
        self.table.can_answer(source, index)
    }

    /// The addresses of this host, and a number that is another one once they have changed.
    pub fn own(&self) -> (u64, impl Iterator<Item = IpAddr>) {
        self.table.own()
    }

    /// The same, for a frame of this interface: where labels are listened to (`eth0:1`), of the
    /// interface's addresses those alone.
    #[must_use]
    pub fn is_knocked_at(&self, index: u32, address: IpAddr) -> bool {
        self.table.is_knocked_at(index, address)
    }

    /// The interfaces that count now, by name, in order.
    #[must_use]
    pub fn listening(&self) -> Vec<&str> {
        self.table.listening()
    }

    /// The interfaces named in the configuration, without wildcards, that are not there.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        self.table.missing()
    }

    /// The interfaces that count but have no address, by name, in order.
    #[must_use]
    pub fn without_address(&self) -> Vec<&str> {
        self.table.without_address()
    }
}

impl AsFd for Links {
    /// Readable when the kernel has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
