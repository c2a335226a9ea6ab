//! Doubly linked lists through the slots. To append an attempt, to remove one and to find the oldest
//! each take constant time, and the list itself is two words.

use super::slab::{Attempt, AttemptSlot, Neighbours, Slab};

/// A list of slots, oldest first. Each call is given a function that yields those neighbours of an
/// attempt through which the list runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AttemptList {
    first: Option<AttemptSlot>,
    last: Option<AttemptSlot>,
}

impl AttemptList {
    /// Returns the oldest slot.
    pub(super) fn first(&self) -> Option<AttemptSlot> {
        self.first
    }

    /// Adds a slot that is in no list through these neighbours.
    pub(super) fn append(&mut self, slots: &mut Slab, slot: AttemptSlot, of: NeighboursOf) {
        *of(&mut slots[slot]) = Neighbours {
            previous: self.last,
            next: None,
        };
        match self.last.replace(slot) {
            Some(last) => of(&mut slots[last]).next = Some(slot),
            None => self.first = Some(slot),
        }
    }

    /// Removes a slot that is in this list.
    pub(super) fn remove(&mut self, slots: &mut Slab, slot: AttemptSlot, of: NeighboursOf) {
        let Neighbours { previous, next } = std::mem::take(of(&mut slots[slot]));
        match previous {
            Some(previous) => of(&mut slots[previous]).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => of(&mut slots[next]).previous = previous,
            None => self.last = previous,
        }
    }
}

/// Picks one pair of an attempt's neighbours.
pub(super) type NeighboursOf = fn(&mut Attempt) -> &mut Neighbours;
