//! The section *Matching* once more, in the plainest way: a list of attempts, walked from
//! end to end for each packet.

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
    /// The bits of the sketch that strays have set.
    strays: BTreeSet<u64>,
    /// When it came to its stage; those that did so by one packet count in turn.
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
}

impl Naive {
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
            self.times_out(&dead, now);
        }
    }

    /// Whether it has run out; if so, it is told.
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
        let mut busy = Vec::new();
        // Of a source's attempts the newest is judged first: it shows only in who is
        // older when two rise by one packet.
        for i in (0..self.attempts.len()).rev() {
            if self.attempts[i].source == knock.source {
                let mut attempt = self.attempts.remove(i);
                if self.times_out(&attempt, knock.at) {
                    continue;
                }
                let door = attempt.door;
                let (used, lives) = self.judge(&mut attempt, knock, local);
                if used {
                    busy.push(door);
                }
                if lives {
                    self.attempts.insert(i, attempt);
                }
            }
        }
        for door in 0..self.doors.len() {
            let first = self.doors[door].sequence.first() == Some(&knock.step);
            let may = self.admits(door, knock.source) && self.fits(door, knock, local);
            if first && may && !busy.contains(&door) {
                self.begin(door, knock);
            }
        }
    }

    /// Whether the packet is used up for this door, and whether the attempt lives.
    fn judge(&mut self, attempt: &mut NaiveAttempt, knock: &Knock, local: bool) -> (bool, bool) {
        let door = self.doors[attempt.door].clone();
        let stage = attempt.made.len();
        let fits = self.fits(attempt.door, knock, local);
        if self.is_step(knock.step) {
            let same = |m: &Knock| {
                m.step == knock.step
                    && m.source_port == knock.source_port
                    && match (m.transport, knock.transport) {
                        (
                            Transport::Tcp { sequence: a, .. },
                            Transport::Tcp { sequence: b, .. },
                        ) => a == b,
                        (a, b) => a == b,
                    }
            };
            if !fits || attempt.made.iter().any(same) {
                return (true, true);
            }
            if door.sequence[stage] == knock.step {
                attempt.made.push(*knock);
                self.risen += 1;
                attempt.risen = self.risen;
                self.tell(knock.at, attempt, Outcome::Stage(stage as u8 + 1));
                if stage + 1 < door.sequence.len() {
                    return (true, true);
                }
                self.tell(knock.at, attempt, Outcome::Open);
                return (true, false);
            }
            let others = (0..self.doors.len()).any(|d| {
                self.doors[d].sequence.contains(&knock.step) && self.fits(d, knock, local)
            });
            if door.sequence[stage - 1] == knock.step || !others {
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
            strays: BTreeSet::new(),
            risen: self.risen,
        };
        if self.doors[door].sequence.len() == 1 {
            self.tell(knock.at, &attempt, Outcome::Stage(1));
            self.tell(knock.at, &attempt, Outcome::Open);
            return;
        }
        if self.attempts.len() == self.capacity {
            let victim = (0..self.capacity)
                .min_by_key(|i| (self.attempts[*i].made.len(), self.attempts[*i].risen))
                .expect("a full table holds something");
            let victim = self.attempts.remove(victim);
            if !self.times_out(&victim, knock.at) {
                self.reset(knock.at, &victim, Cause::Evicted);
                self.evicted += 1;
            }
        }
        self.tell(knock.at, &attempt, Outcome::Stage(1));
        self.attempts.push(attempt);
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
    }
}

/// Which bit of the sketch a stray sets.
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
