//! The socket filter, which decides what packets the kernel hands over at all.
//!
//! It is a short program in classic BPF that knows no sequence. The kernel's work on a packet takes
//! time, and a sender can measure that time by an echo request right behind the packet. So a filter
//! that passed the steps alone would reveal them. Instead packets pass by their class (protocol,
//! flags, and whether their port is one that everybody may know), and every door has the same
//! program.
//!
//! On a cooked packet socket the program's offset 0 is the IP header, whatever the link; what the
//! link layer said is had by ancillary loads (linux/filter.h, `SKF_AD_OFF`). Packets that are odd
//! enough for [`crate::decode`] to look at pass. The matcher judges again.

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

/// The most instructions of any program. Two such programs fit into `net.core.optmem_max` as it was
/// before Linux 6.7 (20 KiB), so that one takes the place of another without a gap.
pub const MAX_INSTRUCTIONS: usize = 680;

impl Program {
    /// Returns the program that passes what any of these doors may take for a step or a stray, where
    /// these ports are ignored.
    ///
    /// Doors whose flags fit the packets of established sessions would make every packet pass. For
    /// such flags alone the program keeps to the ports of these doors, as far as it has room
    /// ([`Self::keeps_to_ports`]).
    #[must_use]
    pub fn new(doors: &[Door], ignore: &[PortRange]) -> Self {
        Self(program::assemble(doors, ignore))
    }

    /// Returns the same program for packets to these addresses and to 127.0.0.0/8 alone: a router's
    /// packet sockets also get what the router forwards. Of an IPv6 address the program looks at the
    /// last four bytes. Where a family has too many addresses, packets to all addresses of it pass.
    #[must_use]
    pub fn to(&self, hosts: &[IpAddr]) -> Self {
        let mut all = program::to(hosts);
        all.extend(&self.0);
        Self(all)
    }

    /// Returns the program that passes nothing.
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

    /// Returns the instructions, at most [`MAX_INSTRUCTIONS`].
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
