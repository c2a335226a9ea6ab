//! The socket filter: which packets the kernel hands over at all.
//!
//! A short classic BPF program that knows no sequence. What the kernel does with a packet takes
//! time, and whoever sends an echo request right behind it can measure that: a filter that passed
//! the steps alone would tell them. So packets pass by their class (protocol, flags, and whether
//! their port is one that everybody may know of), and every door has the same program.
//!
//! On a cooked packet socket the program's offset 0 is the IP header, whatever the link; what the
//! link said are ancillary loads (linux/filter.h, `SKF_AD_OFF`). Whatever is odd enough that
//! [`crate::decode`] had better look is passed. The matcher judges again.

mod choice;
mod op;
mod program;

#[cfg(test)]
mod interpret;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::model::{Door, PortRange};

pub use op::Instruction;

/// A classic BPF program for a cooked packet socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

/// The longest program that is ever made: two fit into `net.core.optmem_max` as it was before
/// Linux 6.7 (20 KiB), so that one takes the place of another without a gap.
pub const MAX_INSTRUCTIONS: usize = 680;

impl Program {
    /// The program that passes what any of these doors may take for a step or a stray, where
    /// these ports are ignored.
    ///
    /// Doors whose flags fit the packets of established sessions would have every packet pass.
    /// For these flags alone the program keeps to the ports of such doors, as far as it has room
    /// ([`Self::keeps_to_ports`]).
    #[must_use]
    pub fn new(doors: &[Door], ignore: &[PortRange]) -> Self {
        Self(program::assemble(doors, ignore))
    }

    /// The same program for packets to these addresses alone, and to 127.0.0.0/8: a router's packet
    /// sockets are given what passes through it, too. Of IPv6 addresses the last four bytes are
    /// looked at. Where a family has too many addresses, packets to any of it pass.
    #[must_use]
    pub fn to(&self, hosts: &[IpAddr]) -> Self {
        let mut all = program::to(hosts);
        all.extend(&self.0);
        Self(all)
    }

    /// The program that passes nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self(vec![op::DROP])
    }

    /// Whether these doors' steps are few enough for the program to keep to their ports where
    /// flags fit the packets of sessions. If not, all packets of sessions pass.
    #[must_use]
    pub fn keeps_to_ports(doors: &[Door]) -> bool {
        program::session_ports(doors).is_some()
    }

    /// The instructions, at most [`MAX_INSTRUCTIONS`].
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
