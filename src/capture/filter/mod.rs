//! The socket filter: which packets the kernel hands over at all.
//!
//! A short classic BPF program assembled from the doors. On a cooked packet socket its
//! offset 0 is the IP header, whatever the link; what the link said are ancillary loads
//! (linux/filter.h, `SKF_AD_OFF`). It passes what may be a step or a stray of some door,
//! and whatever is odd enough that [`crate::decode`] had better look; so it may pass too
//! much, never too little. The matcher judges again.

mod op;
mod ports;
mod program;

#[cfg(test)]
mod interpret;
#[cfg(test)]
mod tests;

use crate::model::{Door, Tripwires};

/// One instruction of classic BPF, as `struct sock_filter` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to pass over if a test holds.
    pub jt: u8,
    /// And if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A classic BPF program for a cooked packet socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

/// The kernel takes no longer program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// How many runs of ports such a program has room for, at two instructions each and some
/// three in a hundred for long jumps.
pub const MAX_RUNS: usize = 1_850;

impl Program {
    /// The program that passes what these doors and tripwires want. With more than
    /// [`MAX_RUNS`] of ports it passes some more between them.
    #[must_use]
    pub fn new(doors: &[Door], tripwires: &Tripwires) -> Self {
        Self::coarse(doors, tripwires, MAX_RUNS)
    }

    /// The same with no more than so many runs of ports, or one of each protocol.
    #[must_use]
    pub fn coarse(doors: &[Door], tripwires: &Tripwires, runs: usize) -> Self {
        Self(program::assemble(doors, tripwires, runs.min(MAX_RUNS)))
    }

    /// The program that passes every packet to any of our addresses.
    #[must_use]
    pub fn everything() -> Self {
        Self(program::for_us())
    }

    /// The program that passes nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self(vec![op::DROP])
    }

    /// The instructions, at most [`MAX_INSTRUCTIONS`].
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
