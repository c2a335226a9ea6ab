//! The attempts themselves, each in a slot of its own, and what links them.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

use crate::model::{DoorId, Timestamp};

/// The number of a slot, counted from 1. So 0 is *none*, and memory that the kernel hands out
/// zeroed is full of empty links without being touched.
pub(super) type AttemptSlot = NonZeroU32;

/// The index that belongs to a slot in whatever is kept by slot.
pub(super) fn index(slot: AttemptSlot) -> usize {
    slot.get() as usize - 1
}

/// A slot's neighbours in one list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Neighbours {
    pub(super) previous: Option<AttemptSlot>,
    pub(super) next: Option<AttemptSlot>,
}

/// One source's attempt at one door.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) deadline: Timestamp,
    pub(super) source: IpAddr,
    pub(super) door: DoorId,
    /// How many steps the attempt has made, from 1.
    pub(super) stage: u8,
    pub(super) has_strays: bool,
    /// The number of its queue: see `attempts`.
    pub(super) queue: u16,
    pub(super) by_source: Neighbours,
    pub(super) by_stage: Neighbours,
    pub(super) by_age: Neighbours,
}

const _: () = assert!(
    size_of::<Attempt>() == 56,
    "a cache line, or the docs are wrong"
);

/// The slots.
#[derive(Debug)]
pub(super) struct Slab(Vec<Attempt>);

impl Slab {
    /// Returns a slab without attempts, with room for this many.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Puts an attempt into a slot that was never used.
    pub(super) fn push(&mut self, attempt: Attempt) -> AttemptSlot {
        self.0.push(attempt);
        // There are at most 2³¹, and one at least now.
        AttemptSlot::MIN.saturating_add(self.0.len() as u32 - 1)
    }
}

impl Index<AttemptSlot> for Slab {
    type Output = Attempt;

    fn index(&self, slot: AttemptSlot) -> &Attempt {
        &self.0[index(slot)]
    }
}

impl IndexMut<AttemptSlot> for Slab {
    fn index_mut(&mut self, slot: AttemptSlot) -> &mut Attempt {
        &mut self.0[index(slot)]
    }
}
