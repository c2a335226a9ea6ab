//! The section *Matching* of contrib/ARCHITECTURE.md once more, in the plainest way: a list of
//! attempts, walked from end to end for each packet.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::*;
use crate::model::{PortRange, Protocol};

pub(super) struct NaiveAttempt {
    pub(super) source: IpAddr,
    pub(super) door: usize,
    began: Timestamp,
    /// The packets that made its steps.
    pub(super) made: Vec<Knock>,
    /// For each of these, the last packet that hit the same step when it was just made.
    again: Vec<Option<Knock>>,
    /// The bits of the sketch that strays have set.
    strays: BTreeSet<u64>,
    /// When the attempt reached its stage. Attempts that did so by one packet are counted in turn.
    risen: u64,
}

pub(super) struct Naive {
    pub(super) doors: Vec<ModelDoor>,
    pub(super) mode: TripwireMode,
    pub(super) ignored: Vec<PortRange>,
    pub(super) capacity: usize,
    /// In the order they began.
    pub(super) attempts: Vec<NaiveAttempt>,
    pub(super) evicted: u64,
    pub(super) events: Vec<Event>,
    pub(super) risen: u64,
    /// The packets by which doors have opened: when the attempt began, and until when they are
    /// known.
    pub(super) seen: Vec<(Knock, Timestamp, Timestamp)>,
    /// By door, how many attempts it has, and when that last changed.
    crowds: Vec<(usize, u64)>,
    changes: u64,
}

/// Whether two packets are the same one, come again.
fn same(one: &Knock, other: &Knock) -> bool {
    one.source == other.source
        && one.step == other.step
        && one.source_port == other.source_port
        && number(one) == number(other)
}

/// Returns the number that tells a packet from others; 0 does not.
fn number(knock: &Knock) -> u32 {
    match knock.transport {
        Transport::Tcp { sequence, .. } => sequence,
        Transport::Udp { identification } => identification.into(),
    }
}

fn prefix(source: IpAddr) -> Vec<u8> {
    match source {
        IpAddr::V4(a) => a.octets()[..3].to_vec(),
        IpAddr::V6(a) => a.octets()[..8].to_vec(),
    }
}

impl Naive {
    pub(super) fn new(
        doors: &[ModelDoor],
        mode: TripwireMode,
        ignored: Vec<PortRange>,
        capacity: usize,
    ) -> Self {
        Self {
            doors: doors.to_vec(),
            mode,
            ignored,
            capacity,
            attempts: Vec::new(),
            evicted: 0,
            events: Vec::new(),
            risen: 0,
            seen: Vec::new(),
            crowds: vec![(0, 0); doors.len()],
            changes: 0,
        }
    }

    /// Counts an attempt more at this door, or one less.
    fn crowd(&mut self, door: usize, change: isize) {
        self.changes += 1;
        let (count, changed) = &mut self.crowds[door];
        *count = count.saturating_add_signed(change);
        *changed = self.changes;
    }

    fn remember(&mut self, attempt: &NaiveAttempt) {
        let timeout = self.doors[attempt.door].seq_timeout;
        let until = attempt.began + timeout.max(Duration::from_secs(4));
        let again = attempt.again.iter().flatten();
        for knock in attempt.made.iter().chain(again) {
            self.seen.retain(|(seen, ..)| !same(seen, knock));
            self.seen.push((*knock, attempt.began, until));
        }
    }

    /// Whether a door has opened by this packet before.
    fn has_opened(&mut self, knock: &Knock) -> bool {
        let mut found = false;
        for (seen, began, until) in &mut self.seen {
            if number(knock) != 0 && same(seen, knock) && knock.at < *until {
                *until = (*until).max(knock.at + 2 * knock.at.since(*began));
                found = true;
            }
        }
        found
    }

    fn tell(&mut self, at: Timestamp, attempt: &NaiveAttempt, outcome: Outcome) {
        self.events.push(Event {
            at,
            source: attempt.source,
            door: DoorId(attempt.door as u16),
            outcome,
        });
    }

    pub(super) fn deadline(&self, attempt: &NaiveAttempt) -> Timestamp {
        attempt.began + self.doors[attempt.door].seq_timeout
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some(dead) =
            (0..self.attempts.len()).find(|i| self.deadline(&self.attempts[*i]) <= now)
        {
            let dead = self.attempts.remove(dead);
            self.crowd(dead.door, -1);
            self.times_out(&dead, now);
        }
    }

    /// Whether the attempt has run out; if so, adds the event.
    fn times_out(&mut self, attempt: &NaiveAttempt, now: Timestamp) -> bool {
        let (deadline, stage) = (self.deadline(attempt), attempt.made.len() as u8);
        if deadline <= now {
            self.tell(deadline, attempt, Outcome::Timeout { stage });
        }
        deadline <= now
    }

    fn fits(&self, door: usize, knock: &Knock, local: bool) -> bool {
        let door = &self.doors[door];
        let here = match door.target {
            Some(target) => target == knock.destination,
            None => local,
        };
        here && match knock.transport {
            Transport::Tcp { flags, .. } => door.tcp_flags.matches(flags),
            Transport::Udp { .. } => true,
        }
    }

    fn is_step(&self, step: Step) -> bool {
        self.doors.iter().any(|d| d.sequence.contains(&step))
    }

    fn is_tripwire(&self, port: Step) -> bool {
        let opened = self.doors.iter().flat_map(|d| &d.open);
        let mut known = opened.chain(&self.ignored);
        self.mode == TripwireMode::On && !self.is_step(port) && !known.any(|r| r.contains(port))
    }

    fn admits(&self, door: usize, source: IpAddr) -> bool {
        let from = &self.doors[door].from;
        from.is_empty() || from.iter().any(|p| p.contains(source))
    }

    pub(super) fn observe(&mut self, knock: &Knock, local: bool) {
        let of_a_session = match knock.transport {
            Transport::Tcp { flags, .. } => flags & 0x12 == 0x10,
            Transport::Udp { .. } => false,
        };
        let taken =
            |d: &ModelDoor| d.tcp_flags.clear & flag::ACK == 0 && d.tcp_flags.set & flag::SYN == 0;
        if of_a_session && !(self.doors.iter().any(taken) && self.is_step(knock.step)) {
            return;
        }
        if self.has_opened(knock) {
            return;
        }
        let mut busy = Vec::new();
        // The newest attempt of a source is judged first. That shows only in which is older when two
        // rise by one packet.
        for i in (0..self.attempts.len()).rev() {
            if self.attempts[i].source == knock.source {
                let mut attempt = self.attempts.remove(i);
                let door = attempt.door;
                if self.times_out(&attempt, knock.at) {
                    self.crowd(door, -1);
                    continue;
                }
                let (used, lives) = self.judge(&mut attempt, knock, local);
                if used {
                    busy.push(door);
                }
                if lives {
                    self.attempts.insert(i, attempt);
                } else {
                    self.crowd(door, -1);
                }
            }
        }
        let mut begun = 0;
        for door in 0..self.doors.len() {
            let first = self.doors[door].sequence.first() == Some(&knock.step);
            let may = self.admits(door, knock.source) && self.fits(door, knock, local);
            if first && may {
                begun += 1;
                if begun <= crate::model::BEGUN_AT_ONCE && !busy.contains(&door) {
                    self.begin(door, knock);
                }
            }
        }
    }

    /// Whether the packet is used up for this door, and whether the attempt lives.
    fn judge(&mut self, attempt: &mut NaiveAttempt, knock: &Knock, local: bool) -> (bool, bool) {
        let door = self.doors[attempt.door].clone();
        let stage = attempt.made.len();
        let fits = self.fits(attempt.door, knock, local);
        if self.is_step(knock.step) {
            let expected = door.sequence[stage] == knock.step;
            let again = attempt.again.iter().flatten();
            let repeats = attempt.made.iter().chain(again).any(|m| same(m, knock));
            let tells = number(knock) != 0;
            if !fits || repeats && (tells || !expected) {
                return (true, true);
            }
            if expected {
                attempt.made.push(*knock);
                attempt.again.push(None);
                self.risen += 1;
                attempt.risen = self.risen;
                self.tell(knock.at, attempt, Outcome::Stage(stage as u8 + 1));
                if stage + 1 < door.sequence.len() {
                    return (true, true);
                }
                self.tell(knock.at, attempt, Outcome::Open);
                self.remember(attempt);
                return (true, false);
            }
            let others = (0..self.doors.len()).any(|d| {
                self.doors[d].sequence.contains(&knock.step) && self.fits(d, knock, local)
            });
            if door.sequence[stage - 1] == knock.step {
                attempt.again[stage - 1] = Some(*knock);
                return (true, true);
            }
            if !others {
                return (true, true);
            }
            self.reset(knock.at, attempt, Cause::WrongStep(knock.step));
            return (false, false);
        }
        let here = door.target.map_or(local, |t| t == knock.destination);
        let uses = |p| door.sequence.iter().any(|s| s.protocol == p);
        let counts = match knock.transport {
            Transport::Tcp { flags, .. } if flags & 0x12 == 0x02 => true,
            Transport::Tcp { flags, .. } => {
                let TcpFlags { set, clear } = door.tcp_flags;
                let no_sessions = clear & flag::ACK != 0 || set & flag::SYN != 0;
                fits && uses(Protocol::Tcp) && (no_sessions || flags & 0x14 == 0)
            }
            Transport::Udp { .. } => uses(Protocol::Udp),
        };
        if here && counts && self.is_tripwire(knock.step) {
            attempt.strays.insert(bit(knock));
            if attempt.strays.len() > bits(door.strays) {
                self.reset(knock.at, attempt, Cause::Strays(knock.step));
                return (true, false);
            }
        }
        (true, true)
    }

    pub(super) fn reset(&mut self, at: Timestamp, attempt: &NaiveAttempt, cause: Cause) {
        let stage = attempt.made.len() as u8;
        self.tell(at, attempt, Outcome::Reset { stage, cause });
    }

    fn begin(&mut self, door: usize, knock: &Knock) {
        self.risen += 1;
        let attempt = NaiveAttempt {
            source: knock.source,
            door,
            began: knock.at,
            made: vec![*knock],
            again: vec![None],
            strays: BTreeSet::new(),
            risen: self.risen,
        };
        if self.doors[door].sequence.len() == 1 {
            self.tell(knock.at, &attempt, Outcome::Stage(1));
            self.tell(knock.at, &attempt, Outcome::Open);
            self.remember(&attempt);
            return;
        }
        if self.attempts.len() == self.capacity {
            let Some(victim) = self.most_expendable(knock.source) else {
                self.evicted += 1;
                return;
            };
            let victim = self.attempts.remove(victim);
            self.crowd(victim.door, -1);
            if !self.times_out(&victim, knock.at) {
                self.reset(knock.at, &victim, Cause::Evicted);
                self.evicted += 1;
            }
        }
        self.tell(knock.at, &attempt, Outcome::Stage(1));
        self.attempts.push(attempt);
        self.crowd(door, 1);
    }

    /// Returns the oldest attempt of the lowest stage at the door with most attempts; one of the
    /// newcomer's prefix, if that has a sixteenth of the table.
    fn most_expendable(&self, newcomer: IpAddr) -> Option<usize> {
        let largest = (0..self.doors.len()).max_by_key(|door| self.crowds[*door]);
        let mut there: Vec<_> = (0..self.attempts.len())
            .filter(|i| Some(self.attempts[*i].door) == largest)
            .collect();
        there.sort_by_key(|i| (self.attempts[*i].made.len(), self.attempts[*i].risen));
        let is_near = |i: &usize| prefix(self.attempts[*i].source) == prefix(newcomer);
        let near = (0..self.attempts.len()).filter(is_near).count();
        let is_too_much = near >= (self.capacity / 16).max(1);
        let mut candidates = there.into_iter().take(8);
        candidates.find(|i| !is_too_much || is_near(i))
    }

    pub(super) fn reload(&mut self, doors: &[ModelDoor], now: Timestamp) {
        self.expire(now);
        let old = std::mem::replace(&mut self.doors, doors.to_vec());
        for mut attempt in std::mem::take(&mut self.attempts) {
            let was = &old[attempt.door];
            let stays = doors.iter().position(|d| {
                d.name == was.name
                    && d.sequence == was.sequence
                    && d.seq_timeout == was.seq_timeout
                    && d.tcp_flags == was.tcp_flags
                    && d.from == was.from
                    && d.target == was.target
                    && d.strays == was.strays
            });
            match stays {
                Some(door) => {
                    attempt.door = door;
                    self.attempts.push(attempt);
                }
                None => self.reset(now, &attempt, Cause::Reload),
            }
        }
        self.crowds = vec![(0, 0); doors.len()];
        for door in 0..doors.len() {
            let there = self.attempts.iter().filter(|a| a.door == door).count();
            self.crowd(door, there as isize);
        }
    }
}

/// Returns the bit of the sketch that a stray sets.
fn bit(stray: &Knock) -> u64 {
    let Step { protocol, port } = stray.step;
    let mut hasher = SipHasher13::new_with_key(&SECRET);
    match stray.source {
        IpAddr::V4(a) => hasher.write(&a.octets()),
        IpAddr::V6(a) => hasher.write(&a.octets()),
    }
    hasher.write_u32(u32::from(protocol.number()) << 16 | u32::from(port.get()));
    hasher.finish() % 128
}
