//! Doubly linked lists through the slots of the table: to append, to take out and to find
//! the oldest each take constant time, and a list itself is two words.

use super::slab::{Attempt, AttemptSlot, Neighbours, Slab};

/// A list of slots, oldest first. Which of an attempt's links it runs through is said at
/// each call, by a function that yields them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AttemptList {
    first: Option<AttemptSlot>,
    last: Option<AttemptSlot>,
}

impl AttemptList {
    /// The oldest.
    pub(super) fn first(&self) -> Option<AttemptSlot> {
        self.first
    }

    /// Adds a slot that is in no list through these links.
    pub(super) fn append(&mut self, slots: &mut Slab, slot: AttemptSlot, links: NeighboursOf) {
        *links(&mut slots[slot]) = Neighbours {
            previous: self.last,
            next: None,
        };
        match self.last.replace(slot) {
            Some(last) => links(&mut slots[last]).next = Some(slot),
            None => self.first = Some(slot),
        }
    }

    /// Takes out a slot that is in this list.
    pub(super) fn remove(&mut self, slots: &mut Slab, slot: AttemptSlot, links: NeighboursOf) {
        let Neighbours { previous, next } = std::mem::take(links(&mut slots[slot]));
        match previous {
            Some(previous) => links(&mut slots[previous]).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => links(&mut slots[next]).previous = previous,
            None => self.last = previous,
        }
    }
}

/// Picks one pair of an attempt's links.
pub(super) type NeighboursOf = fn(&mut Attempt) -> &mut Neighbours;
