//! Doubly linked lists through the slots of the table: to append, to take out and to find
//! the oldest each take constant time, and a list itself is two words.

use std::num::NonZeroU32;

use super::table::Slab;

/// A place in the table, counted from 1: so 0 is *nowhere*, and memory that the kernel
/// hands out zeroed is full of empty links without being touched.
pub(super) type Slot = NonZeroU32;

/// A slot's neighbours in one list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    pub(super) previous: Option<Slot>,
    pub(super) next: Option<Slot>,
}

/// A list of slots, oldest first. Which of an attempt's links it runs through is said at
/// each call, by a function that yields them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct List {
    first: Option<Slot>,
    last: Option<Slot>,
}

impl List {
    /// The oldest.
    pub(super) fn first(&self) -> Option<Slot> {
        self.first
    }

    /// Adds a slot that is in no list through these links.
    pub(super) fn append(&mut self, slots: &mut Slab, slot: Slot, links: LinksOf) {
        *links(&mut slots[slot]) = Links {
            previous: self.last,
            next: None,
        };
        match self.last.replace(slot) {
            Some(last) => links(&mut slots[last]).next = Some(slot),
            None => self.first = Some(slot),
        }
    }

    /// Takes out a slot that is in this list.
    pub(super) fn remove(&mut self, slots: &mut Slab, slot: Slot, links: LinksOf) {
        let Links { previous, next } = std::mem::take(links(&mut slots[slot]));
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
pub(super) type LinksOf = fn(&mut super::table::Attempt) -> &mut Links;
