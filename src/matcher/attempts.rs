//! The living attempts, in a table of fixed size. They are found by source, and ordered by door and
//! stage and by deadline.
//!
//! Whatever arrives, memory stays under 68 bytes an attempt, 8 for each step it has made and 16 if it
//! has strays. All of it is allocated at once and touched only as the table fills. The memory for
//! later stages and for strays lies apart, so a flood of first steps never touches it.
//!
//! Attempts are found by SipHash-1-3 of the source under a secret key. Without the key nobody can
//! choose sources that fall into one bucket, so a chain is as long as chance makes it: one attempt,
//! where the table is full.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::crowd::Crowds;
use super::list::AttemptList;
use super::mark::Mark;
use super::sketch::{self, Limit, Sketch};
use super::slab::{Attempt, AttemptSlot, Neighbours, Slab, index};
use crate::model::{DoorId, Step, Timestamp};

fn by_stage(attempt: &mut Attempt) -> &mut Neighbours {
    &mut attempt.by_stage
}

fn by_age(attempt: &mut Attempt) -> &mut Neighbours {
    &mut attempt.by_age
}

/// The marks of packets that have hit a step: the packet that made the step, and the last of those
/// that came when the step was just made.
type StepMarks = [u32; 2];

/// Returns a port and its protocol as one number.
fn code(step: Step) -> u32 {
    u32::from(step.protocol.number()) << 16 | u32::from(step.port.get())
}

/// The attempts at doors with the same `seq_timeout`, which run out in the order they began.
#[derive(Debug, Clone, Copy)]
struct TimeoutQueue {
    timeout: Duration,
    attempts: AttemptList,
}

/// All attempts.
pub(super) struct AttemptTable {
    slots: Slab,
    capacity: usize,
    /// The first of the slots that were used and are free. They are chained by `by_source.next`.
    free: Option<AttemptSlot>,
    live: usize,
    secret: SipHasher13,
    /// The first attempt of each chain. The number of buckets is a power of two.
    buckets: Vec<Option<AttemptSlot>>,
    /// The attempts by door and stage. Within a stage they are in the order in which they reached it.
    stages: Vec<AttemptList>,
    /// By door, the index in `stages` at which its stages begin; and the end of the last ones.
    begins: Vec<u32>,
    crowds: Crowds,
    /// The number of attempts by a hash of the source's prefix.
    prefixes: Vec<u32>,
    /// Odd, and secret: two prefixes share a group by chance alone.
    prefix_key: u64,
    queues: Vec<TimeoutQueue>,
    /// No attempt has a deadline before this.
    earliest: Timestamp,
    /// By stage, then by slot: the packets that have hit the step.
    made: Vec<Vec<StepMarks>>,
    /// By slot: the distinct strays of an attempt that has any.
    strays: Vec<Sketch>,
}

const NEVER: Timestamp = Timestamp(u64::MAX);

/// How many groups of prefixes are told apart, by a hash with a secret.
const PREFIXES: usize = 4096;

/// The part of the table that sources with one prefix may have: a sixteenth. A prefix is a /24 of
/// IPv4, and a /64 of IPv6, which one host is given.
const PREFIX_SHARE: usize = 16;

/// How many attempts are looked at to find one with the newcomer's prefix.
const CANDIDATES: usize = 8;

impl AttemptTable {
    /// Returns a table without attempts. `capacity` counts attempts; it is at least 1, at most 2³¹.
    pub(super) fn new(capacity: usize, secret: [u8; 16]) -> Self {
        let capacity = capacity.clamp(1, 1 << 31);
        Self {
            slots: Slab::with_capacity(capacity),
            capacity,
            free: None,
            live: 0,
            secret: SipHasher13::new_with_key(&secret),
            buckets: vec![None; capacity.next_power_of_two()],
            stages: Vec::new(),
            begins: vec![0],
            crowds: Crowds::new(0, capacity),
            prefixes: vec![0; PREFIXES],
            prefix_key: SipHasher13::new_with_key(&secret).hash(b"prefix") | 1,
            queues: Vec::new(),
            earliest: NEVER,
            made: Vec::new(),
            strays: vec![0; capacity],
        }
    }

    /// Fits the table to doors with sequences of these lengths and with these timeouts (a queue
    /// each, in this order). `home` returns for an old door the new door that decides alike, and its
    /// queue: the attempts move there. If it returns `None`, the attempts end, and `ended` is called
    /// for each.
    pub(super) fn refit(
        &mut self,
        timeouts: &[Duration],
        lengths: impl Iterator<Item = usize>,
        mut home: impl FnMut(DoorId) -> Option<(DoorId, u16)>,
        mut ended: impl FnMut(&Attempt),
    ) {
        for queue in 0..self.queues.len() {
            let mut next = self.queues[queue].attempts.first();
            while let Some(slot) = next {
                next = self.slots[slot].by_age.next;
                if home(self.slots[slot].door).is_none() {
                    ended(&self.slots[slot]);
                    self.remove(slot);
                }
            }
        }
        let old = std::mem::take(&mut self.queues);
        self.queues.extend(timeouts.iter().map(|&timeout| {
            TimeoutQueue {
                timeout,
                attempts: old
                    .iter()
                    .find(|l| l.timeout == timeout)
                    .map_or_else(AttemptList::default, |l| l.attempts),
            }
        }));
        // The last step completes the attempt, and need not be remembered.
        let kept = |length: usize| length.saturating_sub(1);
        let mut begins = vec![0];
        let (mut end, mut most) = (0, 0);
        for length in lengths {
            end += kept(length);
            most = most.max(kept(length));
            // There are at most 31 for each of 65,535 doors.
            begins.push(end as u32);
        }
        let old_begins = std::mem::replace(&mut self.begins, begins);
        let old_stages = std::mem::replace(&mut self.stages, vec![AttemptList::default(); end]);
        let mut crowds = vec![0; self.begins.len() - 1];
        for (old, stages) in (0..u16::MAX).map(DoorId).zip(old_begins.windows(2)) {
            let (&[begin, end], Some((door, queue))) = (stages, home(old)) else {
                continue;
            };
            for stage in 0..end - begin {
                let list = old_stages[(begin + stage) as usize];
                let mut next = list.first();
                while let Some(slot) = next {
                    let attempt = &mut self.slots[slot];
                    attempt.door = door;
                    attempt.queue = queue;
                    next = attempt.by_stage.next;
                    crowds[door.index()] += 1;
                }
                self.stages[(self.begins[door.index()] + stage) as usize] = list;
            }
        }
        self.crowds.refit(crowds.into_iter());
        let capacity = self.capacity;
        self.made
            .resize_with(most, || vec![StepMarks::default(); capacity]);
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

    pub(super) fn get(&self, slot: AttemptSlot) -> &Attempt {
        &self.slots[slot]
    }

    /// Returns when the attempt made its first step.
    pub(super) fn began(&self, slot: AttemptSlot) -> Timestamp {
        let Attempt {
            deadline, queue, ..
        } = self.slots[slot];
        Timestamp::from_epoch(
            (deadline.since_epoch()).saturating_sub(self.queues[usize::from(queue)].timeout),
        )
    }

    fn bucket(&self, source: IpAddr) -> usize {
        let hash = match source {
            IpAddr::V4(a) => self.secret.hash(&a.octets()),
            IpAddr::V6(a) => self.secret.hash(&a.octets()),
        };
        // The number of buckets is a power of two: the cast takes the low bits alone.
        hash as usize & (self.buckets.len() - 1)
    }

    /// Returns the first attempt of a source. [`Self::next_of`] returns the others.
    pub(super) fn first_of(&self, source: IpAddr) -> Option<AttemptSlot> {
        self.same_source(self.buckets[self.bucket(source)], source)
    }

    /// Returns the source's next attempt after this one.
    pub(super) fn next_of(&self, slot: AttemptSlot) -> Option<AttemptSlot> {
        let attempt = &self.slots[slot];
        self.same_source(attempt.by_source.next, attempt.source)
    }

    /// Returns the first attempt of this source in the chain.
    fn same_source(&self, mut chain: Option<AttemptSlot>, source: IpAddr) -> Option<AttemptSlot> {
        while let Some(slot) = chain {
            if self.slots[slot].source == source {
                break;
            }
            chain = self.slots[slot].by_source.next;
        }
        chain
    }

    /// Begins an attempt, with the mark of the packet that made the first step. The table must not
    /// be full, and the source must not have another attempt at the door.
    pub(super) fn insert(
        &mut self,
        source: IpAddr,
        door: DoorId,
        queue: u16,
        now: Timestamp,
        mark: Mark,
    ) {
        let deadline = now + self.queues[usize::from(queue)].timeout;
        let bucket = self.bucket(source);
        let next = self.buckets[bucket];
        let slot = self.place(Attempt {
            deadline,
            source,
            door,
            stage: 1,
            has_strays: false,
            queue,
            by_source: Neighbours {
                previous: None,
                next,
            },
            by_stage: Neighbours::default(),
            by_age: Neighbours::default(),
        });
        if let Some(next) = next {
            self.slots[next].by_source.previous = Some(slot);
        }
        self.buckets[bucket] = Some(slot);
        let stage = self.stage(door, 1);
        self.stages[stage].append(&mut self.slots, slot, by_stage);
        self.crowds.add(door);
        let prefix = self.prefix(source);
        self.prefixes[prefix] += 1;
        self.queues[usize::from(queue)]
            .attempts
            .append(&mut self.slots, slot, by_age);
        self.made[0][index(slot)] = [mark.value; 2];
        self.earliest = self.earliest.min(deadline);
        self.live += 1;
    }

    /// Puts the attempt into the slot freed last, or into one never used.
    fn place(&mut self, attempt: Attempt) -> AttemptSlot {
        debug_assert!(!self.is_full());
        if let Some(slot) = self.free {
            self.free = self.slots[slot].by_source.next;
            self.slots[slot] = attempt;
            return slot;
        }
        self.slots.push(attempt)
    }

    /// Forgets an attempt.
    pub(super) fn remove(&mut self, slot: AttemptSlot) {
        let Attempt {
            source,
            door,
            stage,
            queue,
            by_source: Neighbours { previous, next },
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
        let stage = self.stage(door, stage);
        self.stages[stage].remove(&mut self.slots, slot, by_stage);
        self.crowds.remove(door);
        let prefix = self.prefix(source);
        self.prefixes[prefix] -= 1;
        self.queues[usize::from(queue)]
            .attempts
            .remove(&mut self.slots, slot, by_age);
        self.slots[slot].by_source.next = self.free.replace(slot);
        self.live -= 1;
    }

    /// Raises the attempt by one stage, with the mark of the packet that made the step. Must not be
    /// called for the last step.
    pub(super) fn advance(&mut self, slot: AttemptSlot, mark: Mark) {
        let Attempt { door, stage, .. } = self.slots[slot];
        self.made[usize::from(stage)][index(slot)] = [mark.value; 2];
        let place = self.stage(door, stage);
        self.stages[place].remove(&mut self.slots, slot, by_stage);
        self.stages[place + 1].append(&mut self.slots, slot, by_stage);
        self.slots[slot].stage = stage + 1;
    }

    /// Returns the index in `stages` for a door and a stage, counted from 1.
    fn stage(&self, door: DoorId, stage: u8) -> usize {
        self.begins[door.index()] as usize + usize::from(stage) - 1
    }

    /// Remembers another packet that has hit the step just made.
    pub(super) fn note_again(&mut self, slot: AttemptSlot, mark: Mark) {
        let stage = usize::from(self.slots[slot].stage);
        let [_, again] = &mut self.made[stage - 1][index(slot)];
        *again = mark.value;
    }

    /// Whether a packet to `step` with this mark has already hit that step in this attempt, when the
    /// step was made or had just been made. `sequence` is the one of the attempt's door.
    pub(super) fn has_made(
        &self,
        slot: AttemptSlot,
        sequence: &[Step],
        step: Step,
        mark: Mark,
    ) -> bool {
        self.steps_of(slot, sequence)
            .any(|(made, marks)| made == step && marks.contains(&mark.value))
    }

    fn steps_of(
        &self,
        slot: AttemptSlot,
        sequence: &[Step],
    ) -> impl Iterator<Item = (Step, StepMarks)> {
        sequence
            .iter()
            .zip(&self.made)
            .take(usize::from(self.slots[slot].stage))
            .map(move |(step, marks)| (*step, marks[index(slot)]))
    }

    /// Returns the hashes of the packets that have hit steps of the attempt.
    pub(super) fn hashes_of(
        &self,
        slot: AttemptSlot,
        sequence: &[Step],
    ) -> impl Iterator<Item = u64> {
        let source = self.slots[slot].source;
        self.steps_of(slot, sequence)
            .flat_map(|(step, [made, again])| {
                let again = Some(again).filter(|again| *again != made);
                again.into_iter().chain([made]).map(move |m| (step, m))
            })
            .map(move |(step, mark)| self.hash_of(source, step, mark))
    }

    /// Returns the hash by which a packet is known after the end of its attempt.
    pub(super) fn hash_of_packet(&self, source: IpAddr, step: Step, mark: Mark) -> u64 {
        self.hash_of(source, step, mark.value)
    }

    /// Counts a stray, if its port is new. Returns whether the attempt survives it, at a door that
    /// allows this many.
    pub(super) fn survives(&mut self, slot: AttemptSlot, stray: Step, allowed: Limit) -> bool {
        // The hash is of the source, too: ports that share a bit of the sketch do so for one source
        // alone.
        let hash = self.hash_of_port(self.slots[slot].source, stray).finish();
        let sketch = &mut self.strays[index(slot)];
        if !std::mem::replace(&mut self.slots[slot].has_strays, true) {
            // The sketch is still that of an earlier attempt.
            *sketch = Sketch::default();
        }
        !sketch::exceeds(sketch, hash, allowed)
    }

    fn hash_of(&self, source: IpAddr, step: Step, mark: u32) -> u64 {
        let mut hasher = self.hash_of_port(source, step);
        hasher.write_u32(mark);
        hasher.finish()
    }

    fn hash_of_port(&self, source: IpAddr, port: Step) -> SipHasher13 {
        let mut hasher = self.secret;
        match source {
            IpAddr::V4(a) => hasher.write(&a.octets()),
            IpAddr::V6(a) => hasher.write(&a.octets()),
        }
        hasher.write_u32(code(port));
        hasher
    }

    /// Returns the group of the source's prefix.
    fn prefix(&self, source: IpAddr) -> usize {
        let prefix = match source {
            // No /64 of IPv6 that is in use begins with so many ones.
            IpAddr::V4(a) => !u64::from(a.to_bits() >> 8),
            IpAddr::V6(a) => (a.to_bits() >> 64) as u64,
        };
        // Multiply-shift (Dietzfelbinger et al., 1997): the high bits depend on all the others.
        (prefix.wrapping_mul(self.prefix_key) >> (64 - PREFIXES.ilog2())) as usize
    }

    /// Returns the attempt that must go when the table is full and a newcomer begins: at the door with
    /// most attempts, the one that has been longest at the lowest stage. If the newcomer's prefix has
    /// its share of the table already, that one must be from the prefix, too; returns `None` if no
    /// such attempt is among the first ones.
    pub(super) fn most_expendable(&self, newcomer: IpAddr) -> Option<AttemptSlot> {
        let door = self.crowds.largest()?.index();
        let stages = self.begins[door] as usize..self.begins[door + 1] as usize;
        let mut candidates = self.stages[stages]
            .iter()
            .flat_map(|list| {
                std::iter::successors(list.first(), |slot| self.slots[*slot].by_stage.next)
            })
            .take(CANDIDATES);
        let prefix = self.prefix(newcomer);
        let share = (self.capacity / PREFIX_SHARE).max(1);
        if (self.prefixes[prefix] as usize) < share {
            return candidates.next();
        }
        candidates.find(|slot| self.prefix(self.slots[*slot].source) == prefix)
    }

    /// Returns the attempt that runs out first, if it has run out by now.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<AttemptSlot> {
        if now < self.earliest {
            return None;
        }
        let first = self
            .queues
            .iter()
            .filter_map(|queue| queue.attempts.first())
            .min_by_key(|slot| self.slots[*slot].deadline);
        self.earliest = first.map_or(NEVER, |slot| self.slots[slot].deadline);
        first.filter(|_| self.earliest <= now)
    }

    /// Returns when to call [`Self::due`] next; never after the first deadline.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        (self.live > 0).then_some(self.earliest)
    }
}
