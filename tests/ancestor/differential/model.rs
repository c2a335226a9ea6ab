//! What either daemon makes of a packet, as a naive model: knock 0.8's algorithm with each
//! of its faults as a switch. With none mended it is 0.8, with all of them it is ours; so
//! what the two may differ in has a name, and nothing else may differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::generate::{Door, Port, is_own};
use crate::packets::{Kind, Packet, flag};

/// A fault of 0.8 that ours has not: a row of contrib/COMPATIBILITY.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The step just made, hit once more, ends the attempt.
    Repeats,
    /// A retransmission makes the next step, where that is the same port again; or when the
    /// knock is over, the knock again.
    Retransmissions,
    /// The first step, as a wrong port, ends an attempt and does not begin another.
    BeginsNot,
    /// Whoever is at work at one door cannot begin another of the same destination.
    OneDoorAtATime,
    /// Ports that no door uses are never seen.
    StraysUnseen,
    /// When the oldest attempt of all goes, for whatever reason, all others go with it.
    AllGoWithTheFirst,
}

/// All of them.
pub(super) const FAULTS: [Fault; 6] = [
    Fault::Repeats,
    Fault::Retransmissions,
    Fault::BeginsNot,
    Fault::OneDoorAtATime,
    Fault::StraysUnseen,
    Fault::AllGoWithTheFirst,
];

/// How many distinct strays an attempt survives; nearly, so there are always far fewer or many
/// more ([`super::generate`]).
const STRAYS: usize = 128;

/// Whether it has a number that tells it from others. UDP over IPv6 has none.
fn tells(packet: &Packet) -> bool {
    packet.kind != Kind::Udp || packet.from.is_ipv4()
}

#[derive(Debug, Clone)]
struct Attempt {
    source: IpAddr,
    door: usize,
    /// The packets that made its steps.
    made: Vec<Packet>,
    /// Those that hit a step when it was just made: by step the last.
    again: BTreeMap<usize, Packet>,
    strays: BTreeSet<Port>,
    over: bool,
}

/// Which doors opened for whom, and how often.
pub(super) type Opened = BTreeMap<(IpAddr, String), usize>;

/// A daemon, as far as it can be known.
#[derive(Debug, Clone)]
pub(super) struct Model {
    faults: Vec<Fault>,
    doors: Vec<Door>,
    attempts: Vec<Attempt>,
    /// The packets of those that have opened. (No round takes as long as they are known.)
    seen: Vec<Packet>,
    pub(super) opened: Opened,
}

/// How a packet changed an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    /// Nothing to it.
    Nothing,
    /// A step of it, made now or before.
    Step,
    /// Its end.
    End,
}

impl Model {
    pub(super) fn new(doors: &[Door], faults: &[Fault]) -> Self {
        Self {
            faults: faults.to_vec(),
            doors: doors.to_vec(),
            attempts: Vec::new(),
            seen: Vec::new(),
            opened: Opened::new(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(super) fn observe(&mut self, packet: &Packet) {
        let port = Port::of(packet);
        let is_step = self.doors.iter().any(|d| d.sequence.contains(&port));
        let fits_one = (self.doors.iter()).any(|d| d.sequence.contains(&port) && d.fits(packet));
        if is_step && !fits_one {
            return;
        }
        if !is_step {
            if !self.has(Fault::StraysUnseen) {
                self.stray(packet);
            }
            return;
        }
        self.sweep();
        if !self.has(Fault::Retransmissions) && tells(packet) && self.seen.contains(packet) {
            return;
        }
        let mut was: Vec<(usize, Was)> = Vec::new();
        for i in 0..self.attempts.len() {
            let Attempt { source, door, .. } = self.attempts[i];
            if source == packet.from && self.doors[door].faces(packet) {
                was.push((door, self.judge(i, packet)));
            }
        }
        for door in 0..self.doors.len() {
            let it = &self.doors[door];
            let begins = it.fits(packet)
                && it.sequence.first() == Some(&port)
                && match was.iter().rev().find(|(at, _)| *at == door) {
                    None => was.is_empty() || !self.has(Fault::OneDoorAtATime),
                    Some((_, Was::End)) => !self.has(Fault::BeginsNot),
                    Some((_, Was::Nothing | Was::Step)) => false,
                };
            if begins {
                self.attempts.push(Attempt {
                    source: packet.from,
                    door,
                    made: Vec::new(),
                    again: BTreeMap::new(),
                    strays: BTreeSet::new(),
                    over: false,
                });
                self.advance(self.attempts.len() - 1, packet);
            }
        }
        if !self.has(Fault::AllGoWithTheFirst) {
            self.attempts.retain(|a| !a.over);
        }
    }

    /// Does what knock 0.8 does when the next packet comes.
    fn sweep(&mut self) {
        if self.has(Fault::AllGoWithTheFirst) && self.attempts.first().is_some_and(|a| a.over) {
            self.attempts.clear();
        }
        self.attempts.retain(|a| !a.over);
    }

    fn judge(&mut self, i: usize, packet: &Packet) -> Was {
        let attempt = &self.attempts[i];
        let door = &self.doors[attempt.door];
        let port = Port::of(packet);
        if !door.counts(packet) {
            return Was::Nothing;
        }
        let stage = attempt.made.len();
        let is_expected = door.sequence[stage] == port;
        let mut known = attempt.made.iter().chain(attempt.again.values());
        let repeats = known.any(|known| known == packet);
        let decides = tells(packet) || !is_expected;
        if !self.has(Fault::Retransmissions) && decides && repeats {
            return Was::Step;
        }
        if is_expected {
            self.advance(i, packet);
            return Was::Step;
        }
        if !self.has(Fault::Repeats) && door.sequence[stage - 1] == port {
            self.attempts[i].again.insert(stage, *packet);
            return Was::Step;
        }
        self.attempts[i].over = true;
        Was::End
    }

    fn advance(&mut self, i: usize, packet: &Packet) {
        let attempt = &mut self.attempts[i];
        attempt.made.push(*packet);
        let door = &self.doors[attempt.door];
        if attempt.made.len() == door.sequence.len() {
            attempt.over = true;
            self.seen.extend(&attempt.made);
            self.seen.extend(attempt.again.values());
            *(self.opened)
                .entry((packet.from, door.name.clone()))
                .or_default() += 1;
        }
    }

    fn stray(&mut self, packet: &Packet) {
        let Self {
            doors, attempts, ..
        } = self;
        attempts.retain_mut(|attempt| {
            let door = &doors[attempt.door];
            let uses = |udp| door.sequence.iter().any(|s| s.udp == udp);
            let counts = match packet.kind {
                Kind::Tcp(flags) if flags & (flag::SYN | flag::ACK) == flag::SYN => true,
                Kind::Tcp(flags) => {
                    let no_sessions = door.clear & flag::ACK != 0 || door.set & flag::SYN != 0;
                    let is_of_none = flags & (flag::ACK | flag::RST) == 0;
                    uses(false) && door.counts(packet) && (no_sessions || is_of_none)
                }
                Kind::Udp => uses(true),
            };
            let minds = attempt.source == packet.from && door.faces(packet) && counts;
            if minds {
                attempt.strays.insert(Port::of(packet));
            }
            attempt.strays.len() <= STRAYS
        });
    }
}

impl Door {
    fn fits(&self, packet: &Packet) -> bool {
        self.faces(packet) && self.counts(packet)
    }

    fn faces(&self, packet: &Packet) -> bool {
        match self.target {
            Some(target) => target == packet.to,
            None => is_own(packet.to),
        }
    }

    fn counts(&self, packet: &Packet) -> bool {
        match packet.kind {
            Kind::Tcp(flags) => flags & self.set == self.set && flags & self.clear == 0,
            Kind::Udp => true,
        }
    }
}
