//! The number of attempts at each door, and the door with most of them. Each change and each
//! question take constant time.
//!
//! When the table is full, the door with most attempts makes room. So a flood of one door hurts that
//! door, and attempts at other doors stay, whatever their stage.

use std::num::NonZeroU32;

use crate::model::DoorId;

/// A door's number plus one, so that 0 is *none*.
type DoorNumber = NonZeroU32;

/// The attempts at one door.
#[derive(Debug, Clone, Copy, Default)]
struct Crowd {
    attempts: u32,
    /// The neighbours among the doors with as many attempts.
    newer: Option<DoorNumber>,
    older: Option<DoorNumber>,
}

/// The numbers of attempts at all doors.
#[derive(Debug)]
pub(super) struct Crowds {
    doors: Vec<Crowd>,
    /// By number of attempts, the door that reached that number last.
    newest: Vec<Option<DoorNumber>>,
    most: usize,
}

impl Crowds {
    /// Returns the crowds of this many doors, without attempts. There may be `capacity` in all.
    pub(super) fn new(doors: usize, capacity: usize) -> Self {
        Self {
            doors: vec![Crowd::default(); doors],
            newest: vec![None; capacity + 1],
            most: 0,
        }
    }

    /// Takes other doors, with this many attempts each. Of doors with as many, the later one in the
    /// list counts as the one that reached the number later.
    pub(super) fn refit(&mut self, attempts: impl Iterator<Item = usize>) {
        while self.most > 0 {
            self.newest[self.most] = None;
            self.most -= 1;
        }
        self.doors.clear();
        for (door, attempts) in attempts.enumerate() {
            self.doors.push(Crowd::default());
            self.put(door, attempts);
        }
        self.doors.shrink_to_fit();
    }

    /// Counts one more attempt at this door.
    pub(super) fn add(&mut self, door: DoorId) {
        let attempts = self.take(door.index());
        self.put(door.index(), attempts + 1);
    }

    /// Counts one attempt less at this door.
    pub(super) fn remove(&mut self, door: DoorId) {
        let attempts = self.take(door.index());
        self.put(door.index(), attempts - 1);
        // The numbers change by one: if no door has the most now, this one has one less.
        if self.newest[self.most].is_none() {
            self.most -= 1;
        }
    }

    /// Returns the door with most attempts. Of several it is the one that reached the number last: the
    /// attempts come in there.
    pub(super) fn largest(&self) -> Option<DoorId> {
        let place = self.newest[self.most]?;
        // There are at most 65,535 doors.
        Some(DoorId((place.get() - 1) as u16))
    }

    /// Takes a door out of the list of those with as many attempts. Returns that number.
    fn take(&mut self, door: usize) -> usize {
        let Crowd {
            attempts,
            newer,
            older,
        } = std::mem::take(&mut self.doors[door]);
        let attempts = attempts as usize;
        if attempts > 0 {
            match newer {
                Some(newer) => self.at(newer).older = older,
                None => self.newest[attempts] = older,
            }
            if let Some(older) = older {
                self.at(older).newer = newer;
            }
        }
        attempts
    }

    /// Puts a door into the list of those with this many attempts.
    fn put(&mut self, door: usize, attempts: usize) {
        if attempts == 0 {
            return;
        }
        let place = DoorNumber::MIN.saturating_add(door as u32);
        let older = self.newest[attempts].replace(place);
        if let Some(older) = older {
            self.at(older).newer = Some(place);
        }
        self.doors[door] = Crowd {
            // There are at most 2³¹, as many as the table holds.
            attempts: attempts as u32,
            newer: None,
            older,
        };
        self.most = self.most.max(attempts);
    }

    fn at(&mut self, place: DoorNumber) -> &mut Crowd {
        &mut self.doors[place.get() as usize - 1]
    }
}
