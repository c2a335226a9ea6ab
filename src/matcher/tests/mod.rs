//! The rules one by one, against a naive model, under scans and under floods.

mod again;
mod crowd;
mod flood;
mod forged;
mod naive;
mod property;
mod reload;
mod rules;
mod scan;

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::model::{Door as ModelDoor, Step, TcpFlags, Transport, TripwireMode, flag};

const SECRET: [u8; 16] = *b"0123456789abcdef";
const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";
const HOST: &str = "198.51.100.1";

/// Returns a door with the defaults.
fn door(name: &str, sequence: &str) -> ModelDoor {
    let steps = sequence.split_terminator(' ').map(step);
    ModelDoor::new(name, steps.collect())
}

fn step(text: &str) -> Step {
    text.parse().expect("a step")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn wires(mode: TripwireMode, doors: &[ModelDoor]) -> Tripwires {
    Tripwires::new(mode, &[], doors)
}

/// Returns how many bits of a sketch this many strays may set.
fn bits(strays: u16) -> usize {
    let share = 1. - (-f64::from(strays) / 128.).exp();
    (128. * share).round() as usize
}

/// Returns a packet that decides nothing yet: a SYN, or a datagram, from a port of its own.
fn knock(at: u64, source: IpAddr, step: Step, serial: u32) -> Knock {
    let transport = match step.protocol {
        crate::model::Protocol::Tcp => Transport::Tcp {
            flags: flag::SYN,
            sequence: serial,
        },
        crate::model::Protocol::Udp => Transport::Udp {
            identification: serial as u16,
        },
    };
    Knock {
        at: Timestamp(at),
        source,
        destination: address(HOST),
        step,
        source_port: 40_000,
        transport,
        interface: None,
    }
}

/// A matcher with a clock in milliseconds; no two of its packets are alike.
struct Bed {
    matcher: Matcher,
    now: u64,
    serial: u32,
}

impl Bed {
    fn new(doors: &[ModelDoor]) -> Self {
        Self::with(doors, TripwireMode::On, 1000)
    }

    fn with(doors: &[ModelDoor], mode: TripwireMode, capacity: usize) -> Self {
        Self::wired(doors, wires(mode, doors), capacity)
    }

    fn wired(doors: &[ModelDoor], wires: Tripwires, capacity: usize) -> Self {
        let settings = Settings {
            capacity,
            secret: SECRET,
        };
        Self {
            matcher: Matcher::new(doors.into(), wires, settings),
            now: 1000,
            serial: 0,
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.now * 1_000_000)
    }

    /// Returns the next packet of this source, not yet sent.
    fn packet(&mut self, source: &str, to: &str) -> Knock {
        self.serial += 1;
        knock(self.at().0, address(source), step(to), self.serial)
    }

    /// Sends a packet. Attempts that have run out end before the packet is looked at, as in a replay.
    fn take(&mut self, knock: &Knock, local: bool, events: &mut Vec<Event>) {
        self.matcher.expire(knock.at, events);
        self.matcher.observe(knock, local, events);
    }

    fn send(&mut self, knock: &Knock) -> Vec<(u16, Outcome)> {
        self.send_to(knock, true)
    }

    fn send_to(&mut self, knock: &Knock, local: bool) -> Vec<(u16, Outcome)> {
        let mut events = Vec::new();
        self.take(knock, local, &mut events);
        outcomes(&events)
    }

    fn hit(&mut self, source: &str, to: &str) -> Vec<(u16, Outcome)> {
        let knock = self.packet(source, to);
        self.send(&knock)
    }

    fn live(&self) -> usize {
        self.matcher.occupancy().live
    }
}

fn outcomes(events: &[Event]) -> Vec<(u16, Outcome)> {
    events.iter().map(|e| (e.door.0, e.outcome)).collect()
}

fn stage(door: u16, stage: u8) -> Vec<(u16, Outcome)> {
    vec![(door, Outcome::Stage(stage))]
}

fn open(door: u16, last: u8) -> Vec<(u16, Outcome)> {
    vec![(door, Outcome::Stage(last)), (door, Outcome::Open)]
}

fn wrong(door: u16, stage: u8, hit: &str) -> (u16, Outcome) {
    let cause = Cause::WrongStep(step(hit));
    (door, Outcome::Reset { stage, cause })
}

const NOTHING: Vec<(u16, Outcome)> = Vec::new();
