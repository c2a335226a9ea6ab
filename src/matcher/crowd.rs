//! How many attempts there are at each door, and which door has most: each change and each
//! question take constant time.
//!
//! When the table is full, the door with most makes room: so who floods one door hurts that
//! one, and whoever is at work elsewhere stays, at whatever stage he is.

use std::num::NonZeroU32;

use crate::model::DoorId;

/// A door's number and one: so 0 is *none*.
type DoorNumber = NonZeroU32;

#[derive(Debug, Clone, Copy, Default)]
struct Crowd {
    attempts: u32,
    /// Its neighbours among the doors with as many attempts.
    newer: Option<DoorNumber>,
    older: Option<DoorNumber>,
}

/// The numbers of attempts by door.
#[derive(Debug)]
pub(super) struct Crowds {
    doors: Vec<Crowd>,
    /// By number of attempts: the door that came to it last.
    newest: Vec<Option<DoorNumber>>,
    most: usize,
}

impl Crowds {
    /// None at any of so many doors, of at most so many in all.
    pub(super) fn new(doors: usize, capacity: usize) -> Self {
        Self {
            doors: vec![Crowd::default(); doors],
            newest: vec![None; capacity + 1],
            most: 0,
        }
    }

    /// Other doors, with so many attempts each; those that come later came to it later.
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

    /// One more at this door.
    pub(super) fn add(&mut self, door: DoorId) {
        let attempts = self.take(door.index());
        self.put(door.index(), attempts + 1);
    }

    /// One less.
    pub(super) fn remove(&mut self, door: DoorId) {
        let attempts = self.take(door.index());
        self.put(door.index(), attempts - 1);
        // By one at a time: if none has so many now, this one has one less.
        if self.newest[self.most].is_none() {
            self.most -= 1;
        }
    }

    /// The door with most attempts; of several the one that came to so many last, which is
    /// where they come in.
    pub(super) fn largest(&self) -> Option<DoorId> {
        let place = self.newest[self.most]?;
        // There are at most 65,535 doors.
        Some(DoorId((place.get() - 1) as u16))
    }

    /// Takes a door from among those with as many; how many it has.
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
            // At most 2³¹, as many as the table holds.
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
