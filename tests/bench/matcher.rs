//! What a packet costs the matcher: `cargo bench --bench matcher`.
//!
//! The argument is the number of attempts that live. It should not be seen in the times,
//! but for what a larger table misses in the processor's caches.

#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr};

use divan::Bencher;
use divan::counter::ItemsCount;
use knockd::matcher::{Matcher, Settings};
use knockd::model::{
    Door, Event, Knock, Step, Timestamp, Transport, TripwireMode, Tripwires, flag,
};

const LIVE: [u32; 4] = [0, 1_000, 50_000, 262_144];

/// Packets a turn: more than any cache of branches learns by heart.
const PACKETS: u32 = 8192;

fn main() {
    divan::main();
}

fn door(number: u16) -> Door {
    let port = |n: u16| format!("{n}/tcp").parse().expect("a step");
    let steps = [10_000, 20_000, 30_000].map(|first| port(first + number));
    Door {
        open: ["22/tcp".parse().expect("a port")].into(),
        ..Door::new(&format!("door{number}"), steps.to_vec())
    }
}

fn syn(source: u32, port: u16, sequence: u32) -> Knock {
    Knock {
        at: Timestamp(1),
        // Spread over the address space, each once: the multiplier is odd.
        source: IpAddr::V4(Ipv4Addr::from_bits(source.wrapping_mul(0x9e37_79b1))),
        destination: IpAddr::V4(Ipv4Addr::LOCALHOST),
        step: format!("{port}/tcp").parse::<Step>().expect("a step"),
        source_port: 40_000,
        transport: Transport::Tcp {
            flags: flag::SYN,
            sequence,
        },
        interface: None,
    }
}

/// With `live` attempts at the first step of the first of `doors`, and room for `capacity`.
fn matcher(doors: u16, live: u32, capacity: usize) -> Matcher {
    let doors: Vec<_> = (0..doors).map(door).collect();
    let wires = Tripwires::new(TripwireMode::On, &[], &doors);
    let settings = Settings {
        capacity,
        secret: [7; 16],
    };
    let mut matcher = Matcher::new(doors.into(), wires, settings);
    let mut events = Vec::new();
    for source in 0..live {
        events.clear();
        matcher.observe(&syn(source, 10_000, 1), true, &mut events);
    }
    matcher
}

/// Has the matcher look at all packets again and again.
fn observe(bencher: Bencher, mut matcher: Matcher, packets: &[Knock]) {
    let mut events: Vec<Event> = Vec::with_capacity(16);
    bencher
        .counter(ItemsCount::new(packets.len()))
        .bench_local(|| {
            for packet in packets {
                events.clear();
                matcher.observe(packet, true, &mut events);
            }
            events.len()
        });
}

/// A tripwire's port, from somebody who is not at work on a door.
#[divan::bench(args = LIVE)]
fn noise(bencher: Bencher, live: u32) {
    let matcher = matcher(1, live, Settings::CAPACITY);
    let packets: Vec<_> = (0..PACKETS).map(|n| syn(!n, 10_001, n)).collect();
    observe(bencher, matcher, &packets);
}

/// The first step again, from those who have made it.
#[divan::bench(args = [1_000, 50_000, 262_144])]
fn repeated(bencher: Bencher, live: u32) {
    let matcher = matcher(1, live, Settings::CAPACITY);
    let source = |n: u32| n.wrapping_mul(2_654_435_761) % live;
    let packets: Vec<_> = (0..PACKETS).map(|n| syn(source(n), 10_000, 2)).collect();
    observe(bencher, matcher, &packets);
}

/// The first step from ever new sources into a full table: each makes room for the next.
#[divan::bench(args = [1, 1_000, 50_000, 262_144])]
fn flood(bencher: Bencher, live: u32) {
    let mut matcher = matcher(1, live, live as usize);
    let mut source = live;
    let mut packet = syn(0, 10_000, 1);
    let mut events: Vec<Event> = Vec::with_capacity(16);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        for _ in 0..PACKETS {
            source = source.wrapping_add(1);
            packet.source = IpAddr::V4(Ipv4Addr::from_bits(source.wrapping_mul(0x9e37_79b1)));
            events.clear();
            matcher.observe(&packet, true, &mut events);
        }
    });
}

/// A whole knock of three steps.
#[divan::bench(args = LIVE)]
fn knock(bencher: Bencher, live: u32) {
    let matcher = matcher(1, live, Settings::CAPACITY + 1);
    let packets: Vec<_> = (0..PACKETS)
        .flat_map(|n| [10_000, 20_000, 30_000].map(|port| syn(!n, port, n)))
        .collect();
    observe(bencher, matcher, &packets);
}

/// The first step again of one door among many.
#[divan::bench(args = [1, 500, 5_000])]
fn doors(bencher: Bencher, doors: u16) {
    let matcher = matcher(doors, 1_000, Settings::CAPACITY);
    let packets: Vec<_> = (0..PACKETS).map(|n| syn(!n, 10_000, n)).collect();
    observe(bencher, matcher, &packets);
}
