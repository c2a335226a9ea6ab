//! The attempts that live: a table of fixed size, found by source, ordered by door and stage
//! and by deadline.
//!
//! Whatever arrives, memory stays under 68 bytes an attempt, 8 for each step it has made
//! and 16 if it has strays. All of it is asked for at once and touched only as the table
//! fills; what belongs to later stages and to strays lies apart, so a flood of first steps
//! never touches it.
//!
//! AttemptTable are found by SipHash-1-3 of the source under a secret key. Nobody who does not
//! have the key can choose sources that fall into one bucket, so a chain is as long as
//! chance makes it: one, where the table is full.

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

/// The packets that have hit a step: the one that made it, and of those that came when it was
/// just made the last.
type StepMarks = [u32; 2];

/// A port and its protocol as one number.
fn code(step: Step) -> u32 {
    u32::from(step.protocol.number()) << 16 | u32::from(step.port.get())
}

/// AttemptTable of doors with the same `seq_timeout`, which run out in the order they began.
#[derive(Debug, Clone, Copy)]
struct TimeoutQueue {
    timeout: Duration,
    attempts: AttemptList,
}

/// All attempts.
pub(super) struct AttemptTable {
    slots: Slab,
    capacity: usize,
    /// Slots that were used and are free, chained by `by_source.next`.
    free: Option<AttemptSlot>,
    live: usize,
    secret: SipHasher13,
    /// A power of two of them: the first attempt of each chain.
    buckets: Vec<Option<AttemptSlot>>,
    /// By door and stage. Within a stage by when it was reached.
    stages: Vec<AttemptList>,
    /// By door: where its stages begin; and where the last one's end.
    begins: Vec<u32>,
    crowds: Crowds,
    /// By a hash of the source's prefix: the attempts from there.
    prefixes: Vec<u32>,
    /// Odd, and nobody's to know: two prefixes share a group by chance alone.
    prefix_key: u64,
    queues: Vec<TimeoutQueue>,
    /// No attempt has a deadline before this.
    earliest: Timestamp,
    /// By stage, then by slot: the packets that have hit this step.
    made: Vec<Vec<StepMarks>>,
    /// By slot: the distinct strays of an attempt that has any.
    strays: Vec<Sketch>,
}

const NEVER: Timestamp = Timestamp(u64::MAX);

/// So many groups of prefixes are told apart, by a hash with a secret.
const PREFIXES: usize = 4096;

/// The part of a full table that sources with one prefix may have: of IPv4 /24, of IPv6 /64,
/// which is what one host is given.
const PREFIX_SHARE: usize = 16;

/// So many are looked at to find one with the newcomer's prefix.
const CANDIDATES: usize = 8;

impl AttemptTable {
    /// An empty one. `capacity` counts attempts; at least 1, at most 2³¹.
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

    /// Makes ready for doors with sequences of these lengths and with these timeouts (a queue
    /// each, in this order). Each attempt goes where `home` says, which is a door that decides
    /// alike and its queue, or ends if it says nothing; `ended` hears of it.
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
        // The last step completes the attempt: nothing need be remembered of it.
        let kept = |length: usize| length.saturating_sub(1);
        let mut begins = vec![0];
        let (mut end, mut most) = (0, 0);
        for length in lengths {
            end += kept(length);
            most = most.max(kept(length));
            // At most 31 for each of 65,535 doors.
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

    /// When it made its first step.
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

    /// The first attempt of a source; the others by [`Self::next_of`].
    pub(super) fn first_of(&self, source: IpAddr) -> Option<AttemptSlot> {
        self.same_source(self.buckets[self.bucket(source)], source)
    }

    /// The source's next attempt after this one.
    pub(super) fn next_of(&self, slot: AttemptSlot) -> Option<AttemptSlot> {
        let attempt = &self.slots[slot];
        self.same_source(attempt.by_source.next, attempt.source)
    }

    fn same_source(&self, mut chain: Option<AttemptSlot>, source: IpAddr) -> Option<AttemptSlot> {
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

    /// Puts it into the slot freed last, or into one never used.
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

    /// One stage up, by this packet; not for the last step. The new stage.
    pub(super) fn advance(&mut self, slot: AttemptSlot, mark: Mark) -> u8 {
        let Attempt { door, stage, .. } = self.slots[slot];
        self.made[usize::from(stage)][index(slot)] = [mark.value; 2];
        let place = self.stage(door, stage);
        self.stages[place].remove(&mut self.slots, slot, by_stage);
        self.stages[place + 1].append(&mut self.slots, slot, by_stage);
        self.slots[slot].stage = stage + 1;
        stage + 1
    }

    /// Where the attempts at a door and a stage are, counted from 1.
    fn stage(&self, door: DoorId, stage: u8) -> usize {
        self.begins[door.index()] as usize + usize::from(stage) - 1
    }

    /// Another packet has hit the step that was just made.
    pub(super) fn note_again(&mut self, slot: AttemptSlot, mark: Mark) {
        let stage = usize::from(self.slots[slot].stage);
        let [_, again] = &mut self.made[stage - 1][index(slot)];
        *again = mark.value;
    }

    /// Whether a packet to `step` with this mark has hit a step of the attempt, at a door with
    /// this sequence, when that was made or just made.
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

    /// The packets that have hit steps of the attempt, by their hashes.
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

    /// By which a packet is known behind the end of its attempt.
    pub(super) fn hash_of_packet(&self, source: IpAddr, step: Step, mark: Mark) -> u64 {
        self.hash_of(source, step, mark.value)
    }

    /// Counts a stray, if its port is a new one. Whether the attempt survives it, where so many
    /// do no harm.
    pub(super) fn survives(&mut self, slot: AttemptSlot, stray: Step, allowed: Limit) -> bool {
        // By source too: ports that share a bit of the sketch do so for one source alone.
        let hash = self.hash_of_port(self.slots[slot].source, stray).finish();
        let sketch = &mut self.strays[index(slot)];
        if !std::mem::replace(&mut self.slots[slot].has_strays, true) {
            // What is there is of an earlier attempt.
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

    /// The group of the source's prefix.
    fn prefix(&self, source: IpAddr) -> usize {
        let prefix = match source {
            // No /64 of IPv6 that is in use begins like this.
            IpAddr::V4(a) => !u64::from(a.to_bits() >> 8),
            IpAddr::V6(a) => (a.to_bits() >> 64) as u64,
        };
        // Multiply-shift (Dietzfelbinger et al., 1997): the high bits depend on all the others.
        (prefix.wrapping_mul(self.prefix_key) >> (64 - PREFIXES.ilog2())) as usize
    }

    /// Who must go when the table is full and somebody begins: of those at the door with most
    /// attempts the one that has been longest at the lowest stage. If the newcomer's prefix has
    /// its share of the table already, it must be one from there: none, if there is none among
    /// the first.
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

    /// The attempt that runs out first, if it has by now.
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

    /// When [`Self::due`] should next be asked: not after the first deadline.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        (self.live > 0).then_some(self.earliest)
    }
}
