//! From knocks to events: the steps that each source has made at each door.
//!
//! The matcher does no I/O and has no clock: packets and points in time go in, events come out. Call
//! [`Matcher::observe`] for each packet, and [`Matcher::expire`] when the time has come that
//! [`Matcher::next_deadline`] returns. `rules` judges a packet, `attempts` holds the attempts,
//! `doors` knows the doors that have a step; this file puts them together.
//!
//! Cost: a packet of no session takes two look-ups, and one judgement for each attempt of its source.
//! A source has as many attempts as there are doors that share the steps it has hit so far, at most
//! [`model::BEGUN_AT_ONCE`]. A packet that changes nothing allocates nothing.
//!
//! A step costs more than another port: an insertion, some 100 ns, or a microsecond where the caches
//! are cold. The caller must keep that from showing, and do all longer work later: see
//! `daemon::event_loop`.

mod attempts;
mod crowd;
mod doors;
mod list;
mod mark;
mod rules;
mod seen;
mod settings;
mod sketch;
mod slab;
#[cfg(test)]
mod tests;

use std::cell::LazyCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{self, Cause, DoorId, Event, Knock, Outcome, Step, Timestamp, Tripwires};

use self::attempts::AttemptTable;
use self::doors::{DoorRef, Doors, Hit};
use self::mark::Mark;
use self::rules::{Judgement, judge, matters};
use self::seen::Seen;
use self::slab::Attempt;

pub use self::settings::{Occupancy, Settings};

/// How many attempts are timed out in one call: enough to keep up with any flood, since a packet
/// begins few; and few enough that no packet waits for a whole table to run out, and that the events
/// do not fill memory.
const EXPIRED_AT_ONCE: usize = 1024;

/// The state of every attempt.
pub struct Matcher {
    doors: Doors,
    tripwires: Tripwires,
    attempts: AttemptTable,
    /// The packets of attempts that have opened a door.
    seen: Seen,
    /// By door, the number of the last packet that an attempt at it has used up. Such a packet does
    /// not begin another attempt there.
    used: Vec<u64>,
    packets: u64,
    evicted: u64,
}

impl Matcher {
    /// Returns a matcher without attempts. The tripwires must have been made for the same doors.
    #[must_use]
    pub fn new(doors: Arc<[model::Door]>, tripwires: Tripwires, settings: Settings) -> Self {
        let mut matcher = Self {
            doors: Doors::default(),
            tripwires,
            attempts: AttemptTable::new(settings.capacity, settings.secret),
            seen: Seen::new(),
            used: Vec::new(),
            packets: 0,
            evicted: 0,
        };
        matcher.take_doors(Doors::new(doors), |_| {});
        matcher
    }

    /// Takes a packet; `local` says whether its destination is one of this host's own addresses.
    /// Appends the resulting events to `events`, in the order of the doors. Attempts of the packet's
    /// source that have run out by then end; [`Self::expire`] ends those of other sources.
    ///
    /// Packets should come in the order of their time. A late one is judged by its own time, but an
    /// attempt that it begins may be timed out late.
    pub fn observe(&mut self, knock: &Knock, local: bool, events: &mut Vec<Event>) {
        if !matters(knock, &self.doors, &self.tripwires) {
            return;
        }
        let from = events.len();
        let mark = Mark::of(knock);
        if self.has_opened(knock, mark) {
            return;
        }
        let hit = Hit { knock, mark, local };
        self.packets += 1;
        self.continue_attempts(hit, events);
        self.begin_attempts(hit, events);
        if events.len() > from + 1 {
            events[from..].sort_by_key(|e| e.door);
        }
    }

    /// Whether the port is a step of some door.
    #[must_use]
    pub fn is_step(&self, step: Step) -> bool {
        self.tripwires.steps().contains(step)
    }

    /// Rule 1, after the end of an attempt: whether the packet is one of those by which a door has
    /// opened. Every packet is looked up, whatever its port is.
    fn has_opened(&mut self, knock: &Knock, mark: Mark) -> bool {
        if !mark.tells || self.seen.is_empty(knock.at) {
            return false;
        }
        let hash = self.attempts.hash_of_packet(knock.source, knock.step, mark);
        self.seen.knows(hash, knock.at)
    }

    /// Judges the packet for each attempt of its source.
    fn continue_attempts(&mut self, hit: Hit, events: &mut Vec<Event>) {
        let Hit { knock, mark, .. } = hit;
        let fits = LazyCell::new(|| self.doors.fits_any(&hit));
        let mut next = self.attempts.first_of(knock.source);
        while let Some(slot) = next {
            // Only this attempt can end before the next is looked at.
            next = self.attempts.next_of(slot);
            let attempt = self.attempts.get(slot);
            let (stage, door) = (attempt.stage, self.doors.get(attempt.door));
            let mut tell = |outcome| events.push(event(knock, door, outcome));
            // Rule 6, if `expire` has not ended the attempt yet.
            if attempt.deadline <= knock.at {
                events.push(timeout(attempt));
                self.attempts.remove(slot);
                continue;
            }
            let repeats = || {
                self.attempts
                    .has_made(slot, door.sequence(), knock.step, mark)
            };
            let cause = match judge(&hit, door, stage, repeats, || *fits, &self.tripwires) {
                Judgement::Again => {
                    self.attempts.note_again(slot, mark);
                    self.used[door.id.index()] = self.packets;
                    continue;
                }
                Judgement::Ignored => {
                    self.used[door.id.index()] = self.packets;
                    continue;
                }
                Judgement::Advances => {
                    self.used[door.id.index()] = self.packets;
                    tell(Outcome::Stage(stage + 1));
                    if usize::from(stage) + 1 < door.sequence().len() {
                        self.attempts.advance(slot, mark);
                    } else {
                        tell(Outcome::Open);
                        let began = self.attempts.began(slot);
                        for hash in self.attempts.hashes_of(slot, door.sequence()) {
                            self.seen.note(hash, began, door.seq_timeout());
                        }
                        let last = self.attempts.hash_of_packet(knock.source, knock.step, mark);
                        self.seen.note(last, began, door.seq_timeout());
                        self.attempts.remove(slot);
                    }
                    continue;
                }
                Judgement::WrongStep => Cause::WrongStep(knock.step),
                Judgement::Stray => {
                    if self
                        .attempts
                        .survives(slot, knock.step, self.doors.strays_of(door.id))
                    {
                        continue;
                    }
                    Cause::Strays(knock.step)
                }
            };
            tell(Outcome::Reset { stage, cause });
            self.attempts.remove(slot);
        }
    }

    /// Begins attempts at the doors whose first step the packet is.
    fn begin_attempts(&mut self, hit: Hit, events: &mut Vec<Event>) {
        let Hit { knock, mark, .. } = hit;
        for door in self.doors.begun_by(hit) {
            if self.used[door.id.index()] == self.packets {
                continue;
            }
            if door.sequence().len() > 1 {
                if self.attempts.is_full() {
                    let Some(slot) = self.attempts.most_expendable(knock.source) else {
                        self.evicted += 1;
                        continue;
                    };
                    let victim = self.attempts.get(slot);
                    if victim.deadline <= knock.at {
                        events.push(timeout(victim));
                    } else {
                        self.evicted += 1;
                        events.push(reset(victim, knock.at, Cause::Evicted));
                    }
                    self.attempts.remove(slot);
                }
                let queue = self.doors.queue_of(door.id);
                self.attempts
                    .insert(knock.source, door.id, queue, knock.at, mark);
            }
            events.push(event(knock, door, Outcome::Stage(1)));
            if door.sequence().len() == 1 {
                events.push(event(knock, door, Outcome::Open));
                let only = self.attempts.hash_of_packet(knock.source, knock.step, mark);
                self.seen.note(only, knock.at, door.seq_timeout());
            }
        }
    }

    /// Times out attempts whose `seq_timeout` has passed, the oldest first, each as of its deadline.
    /// Ends at most some thousand in one call: call again while [`Self::next_deadline`] lies in the
    /// past.
    pub fn expire(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(slot) = self.attempts.due(now) else {
                return;
            };
            events.push(timeout(self.attempts.get(slot)));
            self.attempts.remove(slot);
        }
    }

    /// Returns when [`Self::expire`] has something to do; `None` while there are no attempts. The time
    /// may be a little early, if the attempt that was to run out has ended otherwise; never late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.attempts.earliest()
    }

    /// Takes other doors. If a door stays, by name and in everything that decides about attempts, its
    /// attempts live on under its new number. The others end; their events still bear the old
    /// numbers.
    pub fn reload(
        &mut self,
        doors: Arc<[model::Door]>,
        tripwires: Tripwires,
        now: Timestamp,
        events: &mut Vec<Event>,
    ) {
        self.expire(now, events);
        self.tripwires = tripwires;
        self.take_doors(Doors::new(doors), |attempt| {
            events.push(reset(attempt, now, Cause::Reload));
        });
    }

    fn take_doors(&mut self, doors: Doors, ended: impl FnMut(&Attempt)) {
        let homes = self.doors.moved_to(&doors);
        self.attempts.refit(
            doors.timeouts(),
            doors.lengths(),
            |old: DoorId| homes.get(old.index()).copied().flatten(),
            ended,
        );
        self.used = vec![0; doors.len()];
        self.doors = doors;
    }

    /// Returns how full the table is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            live: self.attempts.live(),
            capacity: self.attempts.capacity(),
            evicted: self.evicted,
        }
    }
}

fn event(knock: &Knock, door: DoorRef<'_>, outcome: Outcome) -> Event {
    happened(knock.at, knock.source, door.id, outcome)
}

fn timeout(attempt: &Attempt) -> Event {
    let stage = attempt.stage;
    happened(
        attempt.deadline,
        attempt.source,
        attempt.door,
        Outcome::Timeout { stage },
    )
}

fn reset(attempt: &Attempt, at: Timestamp, cause: Cause) -> Event {
    let stage = attempt.stage;
    happened(
        at,
        attempt.source,
        attempt.door,
        Outcome::Reset { stage, cause },
    )
}

fn happened(at: Timestamp, source: IpAddr, door: DoorId, outcome: Outcome) -> Event {
    Event {
        at,
        source,
        door,
        outcome,
    }
}
