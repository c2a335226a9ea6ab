//! The attempts that live: a table of fixed size, found by source, ordered by stage and
//! by deadline.
//!
//! Whatever arrives, memory stays under 64 bytes an attempt, 8 for each step it has made
//! and 16 if it has strays. All of it is asked for at once and touched only as the table
//! fills; what belongs to later stages and to strays lies apart, so a flood of first steps
//! never touches it.
//!
//! Attempts are found by SipHash-1-3 of the source under a secret key. Nobody who does not
//! have the key can choose sources that fall into one bucket, so a chain is as long as
//! chance makes it: one, where the table is full.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::list::{Links, List, Slot};
use super::sketch::{self, Limit, Sketch};
use crate::model::{DoorId, MAX_STEPS, Step, Timestamp};

/// One source's attempt at one door.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) deadline: Timestamp,
    pub(super) source: IpAddr,
    pub(super) door: DoorId,
    /// How many steps it has made, from 1.
    pub(super) stage: u8,
    has_strays: bool,
    lane: u16,
    by_source: Links,
    by_stage: Links,
    by_age: Links,
}

const _: () = assert!(
    size_of::<Attempt>() == 56,
    "a cache line, or the docs are wrong"
);

fn by_stage(attempt: &mut Attempt) -> &mut Links {
    &mut attempt.by_stage
}

fn by_age(attempt: &mut Attempt) -> &mut Links {
    &mut attempt.by_age
}

/// The slots themselves.
#[derive(Debug)]
pub(super) struct Slab(Vec<Attempt>);

impl Index<Slot> for Slab {
    type Output = Attempt;

    fn index(&self, slot: Slot) -> &Attempt {
        &self.0[place(slot)]
    }
}

impl IndexMut<Slot> for Slab {
    fn index_mut(&mut self, slot: Slot) -> &mut Attempt {
        &mut self.0[place(slot)]
    }
}

fn place(slot: Slot) -> usize {
    slot.get() as usize - 1
}

/// What tells a packet from another to the same port, and so a retransmission from a
/// second knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub(super) u64);

/// A port and its protocol as one number.
fn code(step: Step) -> u32 {
    u32::from(step.protocol.number()) << 16 | u32::from(step.port.get())
}

/// Attempts of doors with the same `seq_timeout`, which run out in the order they began.
#[derive(Debug, Clone, Copy)]
struct Lane {
    timeout: Duration,
    attempts: List,
}

/// All attempts.
pub(super) struct Table {
    slots: Slab,
    capacity: usize,
    /// Slots that were used and are free, chained by `by_source.next`.
    free: Option<Slot>,
    live: usize,
    secret: SipHasher13,
    /// A power of two of them: the first attempt of each chain.
    buckets: Vec<Option<Slot>>,
    /// By stage. Within a stage by when it was reached.
    stages: [List; MAX_STEPS],
    lanes: Vec<Lane>,
    /// No attempt has a deadline before this.
    earliest: Timestamp,
    /// By stage, then by slot: the packet that made this step.
    made: Vec<Vec<u64>>,
    /// By slot: the distinct strays of an attempt that has any.
    strays: Vec<Sketch>,
}

const NEVER: Timestamp = Timestamp(u64::MAX);

impl Table {
    /// An empty one. `capacity` counts attempts; at least 1, at most 2³¹.
    pub(super) fn new(capacity: usize, secret: [u8; 16]) -> Self {
        let capacity = capacity.clamp(1, 1 << 31);
        Self {
            slots: Slab(Vec::with_capacity(capacity)),
            capacity,
            free: None,
            live: 0,
            secret: SipHasher13::new_with_key(&secret),
            buckets: vec![None; capacity.next_power_of_two()],
            stages: [List::default(); MAX_STEPS],
            lanes: Vec::new(),
            earliest: NEVER,
            made: Vec::new(),
            strays: vec![0; capacity],
        }
    }

    /// Makes ready for doors with these timeouts (a lane each, in this order), of at most
    /// so many steps. Each attempt goes where `home` says, which is a door and
    /// its lane, or ends if it says nothing; `ended` hears of it.
    pub(super) fn refit(
        &mut self,
        timeouts: &[Duration],
        steps: usize,
        mut home: impl FnMut(DoorId) -> Option<(DoorId, u16)>,
        mut ended: impl FnMut(&Attempt),
    ) {
        for lane in 0..self.lanes.len() {
            let mut next = self.lanes[lane].attempts.first();
            while let Some(slot) = next {
                next = self.slots[slot].by_age.next;
                match home(self.slots[slot].door) {
                    Some((door, lane)) => {
                        self.slots[slot].door = door;
                        self.slots[slot].lane = lane;
                    }
                    None => {
                        ended(&self.slots[slot]);
                        self.remove(slot);
                    }
                }
            }
        }
        let old = std::mem::take(&mut self.lanes);
        self.lanes.extend(timeouts.iter().map(|&timeout| {
            Lane {
                timeout,
                attempts: old
                    .iter()
                    .find(|l| l.timeout == timeout)
                    .map_or_else(List::default, |l| l.attempts),
            }
        }));
        // The last step completes the attempt: nothing need be remembered of it.
        let capacity = self.capacity;
        self.made
            .resize_with(steps.saturating_sub(1), || vec![0; capacity]);
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_full(&self) -> bool {
        self.live == self.capacity
    }

    pub(super) fn get(&self, slot: Slot) -> &Attempt {
        &self.slots[slot]
    }

    fn bucket(&self, source: IpAddr) -> usize {
        let hash = match source {
            IpAddr::V4(a) => self.secret.hash(&a.octets()),
            IpAddr::V6(a) => self.secret.hash(&a.octets()),
        };
        // The number of buckets is a power of two: the cast takes the low bits alone.
        hash as usize & (self.buckets.len() - 1)
    }

    /// The first attempt of a source; the others by [`Self::next_of`].
    pub(super) fn first_of(&self, source: IpAddr) -> Option<Slot> {
        self.from(self.buckets[self.bucket(source)], source)
    }

    /// The source's next attempt after this one.
    pub(super) fn next_of(&self, slot: Slot) -> Option<Slot> {
        let attempt = &self.slots[slot];
        self.from(attempt.by_source.next, attempt.source)
    }

    fn from(&self, mut chain: Option<Slot>, source: IpAddr) -> Option<Slot> {
        while let Some(slot) = chain {
            if self.slots[slot].source == source {
                break;
            }
            chain = self.slots[slot].by_source.next;
        }
        chain
    }

    /// Begins an attempt, with the packet that made the first step. The table must not be
    /// full; of each source and door there must be one at most.
    pub(super) fn insert(
        &mut self,
        source: IpAddr,
        door: DoorId,
        lane: u16,
        now: Timestamp,
        mark: Mark,
    ) {
        let deadline = now + self.lanes[usize::from(lane)].timeout;
        let bucket = self.bucket(source);
        let next = self.buckets[bucket];
        let slot = self.place(Attempt {
            deadline,
            source,
            door,
            stage: 1,
            has_strays: false,
            lane,
            by_source: Links {
                previous: None,
                next,
            },
            by_stage: Links::default(),
            by_age: Links::default(),
        });
        if let Some(next) = next {
            self.slots[next].by_source.previous = Some(slot);
        }
        self.buckets[bucket] = Some(slot);
        self.stages[1].append(&mut self.slots, slot, by_stage);
        self.lanes[usize::from(lane)]
            .attempts
            .append(&mut self.slots, slot, by_age);
        self.made[0][place(slot)] = mark.0;
        self.earliest = self.earliest.min(deadline);
        self.live += 1;
    }

    /// Puts it into the slot freed last, or into one never used.
    fn place(&mut self, attempt: Attempt) -> Slot {
        debug_assert!(!self.is_full());
        if let Some(slot) = self.free {
            self.free = self.slots[slot].by_source.next;
            self.slots[slot] = attempt;
            return slot;
        }
        self.slots.0.push(attempt);
        // At most 2³¹ of them, and one is there now.
        Slot::MIN.saturating_add(self.slots.0.len() as u32 - 1)
    }

    /// Forgets an attempt.
    pub(super) fn remove(&mut self, slot: Slot) {
        let Attempt {
            source,
            stage,
            lane,
            by_source: Links { previous, next },
            ..
        } = self.slots[slot];
        match previous {
            Some(previous) => self.slots[previous].by_source.next = next,
            None => {
                let bucket = self.bucket(source);
                self.buckets[bucket] = next;
            }
        }
        if let Some(next) = next {
            self.slots[next].by_source.previous = previous;
        }
        self.stages[usize::from(stage)].remove(&mut self.slots, slot, by_stage);
        self.lanes[usize::from(lane)]
            .attempts
            .remove(&mut self.slots, slot, by_age);
        self.slots[slot].by_source.next = self.free.replace(slot);
        self.live -= 1;
    }

    /// One stage up, by this packet; not for the last step. The new stage.
    pub(super) fn advance(&mut self, slot: Slot, mark: Mark) -> u8 {
        let stage = self.slots[slot].stage;
        self.made[usize::from(stage)][place(slot)] = mark.0;
        self.stages[usize::from(stage)].remove(&mut self.slots, slot, by_stage);
        self.stages[usize::from(stage) + 1].append(&mut self.slots, slot, by_stage);
        self.slots[slot].stage = stage + 1;
        stage + 1
    }

    /// Whether a packet to `step` with this mark has made a step of the attempt at a door
    /// with this sequence.
    pub(super) fn has_made(&self, slot: Slot, sequence: &[Step], step: Step, mark: Mark) -> bool {
        sequence
            .iter()
            .zip(&self.made)
            .take(usize::from(self.slots[slot].stage))
            .any(|(made, marks)| *made == step && marks[place(slot)] == mark.0)
    }

    /// Counts a stray, if its port is a new one. Whether the attempt survives it, where so many
    /// do no harm.
    pub(super) fn survives(&mut self, slot: Slot, stray: Step, allowed: Limit) -> bool {
        let hash = self.hash_of(self.slots[slot].source, stray);
        let sketch = &mut self.strays[place(slot)];
        if !std::mem::replace(&mut self.slots[slot].has_strays, true) {
            // What is there is of an earlier attempt.
            *sketch = Sketch::default();
        }
        !sketch::exceeds(sketch, hash, allowed)
    }

    /// By source too: ports that share a bit of the sketch do so for one source alone.
    fn hash_of(&self, source: IpAddr, stray: Step) -> u64 {
        let mut hasher = self.secret;
        match source {
            IpAddr::V4(a) => hasher.write(&a.octets()),
            IpAddr::V6(a) => hasher.write(&a.octets()),
        }
        hasher.write_u32(code(stray));
        hasher.finish()
    }

    /// Who must go when the table is full: of those at the lowest stage the one that has
    /// been there longest.
    pub(super) fn most_expendable(&self) -> Option<Slot> {
        self.stages.iter().find_map(List::first)
    }

    /// The attempt that runs out first, if it has by now.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Slot> {
        if now < self.earliest {
            return None;
        }
        let first = self
            .lanes
            .iter()
            .filter_map(|lane| lane.attempts.first())
            .min_by_key(|slot| self.slots[*slot].deadline);
        self.earliest = first.map_or(NEVER, |slot| self.slots[slot].deadline);
        first.filter(|_| self.earliest <= now)
    }

    /// When [`Self::due`] should next be asked: not after the first deadline.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        (self.live > 0).then_some(self.earliest)
    }
}
