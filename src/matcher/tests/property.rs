//! The matcher against the naive model: the same packets, the same events.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use super::naive::Naive;
use super::*;
use crate::model::PortRange;

const TARGET: &str = "203.0.113.9";

/// Ports that are no tripwires though no door uses them.
fn ignored() -> Vec<PortRange> {
    ["500-505/tcp", "98/udp"]
        .map(|r| r.parse().expect("a range"))
        .into()
}

/// One thing that happens, some milliseconds after the last.
#[derive(Debug, Clone)]
struct Happening {
    after: u64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Packet(Knock, bool),
    /// The step that a source would need next at some door, if it has an attempt there, else the
    /// first step: chance alone seldom gets far.
    Next(IpAddr, Index, u32),
    Expire,
    Reload,
}

fn a_source() -> impl Strategy<Value = IpAddr> {
    select(vec![
        ONE,
        TWO,
        "192.0.2.9",
        "2001:db8::1",
        "::ffff:192.0.2.1",
    ])
    .prop_map(address)
}

fn a_step() -> impl Strategy<Value = Step> {
    let steps = ["100/tcp", "110/tcp", "100/udp", "120/tcp", "130/udp"];
    select(steps.map(step).to_vec())
}

fn some_port() -> impl Strategy<Value = Step> {
    let odd = [
        "99/tcp", "101/tcp", "112/tcp", "99/udp", "131/udp", "98/udp",
    ];
    prop_oneof![
        3 => a_step(),
        2 => select(odd.map(step).to_vec()),
        1 => (500u16..530).prop_map(|p| step(&format!("{p}/tcp"))),
    ]
}

fn a_door(number: usize) -> impl Strategy<Value = ModelDoor> {
    let flags = ["syn,!ack", "syn", "any", "fin", "fin,!ack"].map(|f| f.parse().expect("flags"));
    let from = [
        vec![],
        vec![],
        vec!["192.0.2.0/30"],
        vec!["2001:db8::/32", "192.0.2.1"],
    ];
    (
        prop::collection::vec(a_step(), 0..5),
        select(vec![1, 2, 5]),
        select(flags.to_vec()),
        select(from.to_vec()),
        select(vec![None, None, None, Some(TARGET)]),
        select(vec![0, 1, 2, 3, 6]),
        any::<bool>(),
    )
        .prop_map(
            move |(sequence, seconds, tcp_flags, from, target, strays, opens)| {
                let from = from.iter().map(|p| p.parse().expect("a prefix"));
                ModelDoor {
                    sequence: sequence.into(),
                    seq_timeout: Duration::from_secs(seconds),
                    tcp_flags,
                    from: from.collect(),
                    target: target.map(address),
                    strays,
                    open: opens
                        .then(|| "112-113/tcp".parse().expect("a range"))
                        .into_iter()
                        .collect(),
                    ..door(&format!("d{number}"), "")
                }
            },
        )
}

/// Doors, and the doors after a reload: some dropped, some changed, all moved.
fn doors() -> impl Strategy<Value = (Vec<ModelDoor>, Vec<ModelDoor>)> {
    let four = || (a_door(0), a_door(1), a_door(2), a_door(3));
    // Random doors seldom share a beginning.
    let alike = |(a, mut b, c, mut d): (ModelDoor, ModelDoor, ModelDoor, ModelDoor)| {
        b.sequence = a
            .sequence
            .iter()
            .take(2)
            .chain(&b.sequence)
            .copied()
            .collect();
        d.sequence = c
            .sequence
            .iter()
            .take(1)
            .chain(&d.sequence)
            .copied()
            .collect();
        vec![a, b, c, d]
    };
    (
        four().prop_map(alike),
        1..=4usize,
        four().prop_map(alike),
        any::<[u8; 4]>(),
    )
        .prop_map(|(mut all, many, other, fate)| {
            all.truncate(many);
            let mut after: Vec<_> = all
                .iter()
                .zip(other)
                .zip(fate)
                .filter_map(|((same, other), fate)| match fate % 4 {
                    0 => None,
                    1 => Some(other),
                    _ => Some(same.clone()),
                })
                .collect();
            after.reverse();
            (all, after)
        })
}

fn happening() -> impl Strategy<Value = Happening> {
    let flags = [
        flag::SYN,
        flag::SYN,
        flag::SYN | flag::ACK,
        flag::ACK,
        flag::FIN,
        flag::RST,
        flag::SYN | flag::RST,
        flag::FIN | flag::RST,
    ];
    let towards = [(HOST, true), (HOST, true), (TARGET, false), (ONE, false)];
    let packet = (
        a_source(),
        some_port(),
        select(flags.to_vec()),
        0u32..4,
        0u16..2,
        select(towards.to_vec()),
    )
        .prop_map(|(source, step, flags, serial, source_port, (to, local))| {
            let mut knock = knock(0, source, step, serial);
            if let Transport::Tcp { flags: f, .. } = &mut knock.transport {
                *f = flags;
            }
            knock.source_port = source_port;
            knock.destination = address(to);
            What::Packet(knock, local)
        });
    let what = prop_oneof![
        12 => packet,
        12 => (a_source(), any::<Index>(), 0u32..40).prop_map(|(s, d, n)| What::Next(s, d, n)),
        2 => Just(What::Expire),
        1 => Just(What::Reload),
    ];
    let after = prop_oneof![4 => 0u64..50, 1 => select(vec![500, 1000, 2000])];
    (after, what).prop_map(|(after, what)| Happening { after, what })
}

/// The packet that takes `source` a step on.
fn next_packet(naive: &Naive, source: IpAddr, door: &Index, serial: u32) -> Option<(Knock, bool)> {
    let id = door.index(naive.doors.len().max(1));
    let door = naive.doors.get(id)?;
    let attempt = naive
        .attempts
        .iter()
        .find(|a| a.source == source && a.door == id);
    let stage = attempt.map_or(0, |a| a.made.len());
    let mut knock = knock(0, source, *door.sequence.get(stage)?, serial);
    if let Transport::Tcp { flags, .. } = &mut knock.transport {
        *flags = door.tcp_flags.set;
    }
    knock.destination = door.target.unwrap_or(address(HOST));
    Some((knock, door.target.is_none()))
}

fn by_door(mut events: Vec<Event>) -> Vec<Event> {
    // The order between attempts means nothing, that of the events of one attempt does.
    events.sort_by_key(|e| (e.source, e.door));
    events
}

#[test]
fn the_matcher_gives_the_same_events_as_the_naive_model() {
    let (opened, evicted) = (Cell::new(0), Cell::new(0));
    let modes = vec![TripwireMode::On, TripwireMode::On, TripwireMode::Off];
    let story = (
        doors(),
        select(modes),
        select(vec![1, 2, 3, 5, 100]),
        prop::collection::vec(happening(), 1..150),
    );
    let mut runner = TestRunner::new(Config {
        cases: 1500,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(
        &story,
        |((mut doors, mut others), mode, capacity, story)| {
            let wires = |doors: &[ModelDoor]| Tripwires::new(mode, &ignored(), doors);
            let mut bed = Bed::wired(&doors, wires(&doors), capacity);
            let mut naive = Naive::new(&doors, mode, ignored(), capacity);
            for Happening { after, what } in story {
                bed.now += after;
                let now = bed.at();
                let mut events = Vec::new();
                let packet = match what {
                    What::Packet(knock, local) => Some((knock, local)),
                    What::Next(source, door, n) => next_packet(&naive, source, &door, n),
                    What::Expire => {
                        bed.matcher.expire(now, &mut events);
                        naive.expire(now);
                        None
                    }
                    What::Reload => {
                        std::mem::swap(&mut doors, &mut others);
                        let wires = wires(&doors);
                        bed.matcher
                            .reload(doors.as_slice().into(), wires, now, &mut events);
                        naive.reload(&doors, now);
                        None
                    }
                };
                if let Some((knock, local)) = packet {
                    let knock = Knock { at: now, ..knock };
                    bed.matcher.observe(&knock, local, &mut events);
                    naive.observe(&knock, local);
                }
                let expected = std::mem::take(&mut naive.events);
                let opens = expected.iter().filter(|e| e.outcome == Outcome::Open);
                opened.set(opened.get() + opens.count());
                prop_assert_eq!(by_door(events), by_door(expected));

                let occupancy = Occupancy {
                    live: naive.attempts.len(),
                    capacity,
                    evicted: naive.evicted,
                };
                prop_assert_eq!(bed.matcher.occupancy(), occupancy);
                let first = naive.attempts.iter().map(|a| naive.deadline(a)).min();
                let next = bed.matcher.next_deadline();
                prop_assert_eq!(next.is_some(), first.is_some());
                prop_assert!(next <= first, "{:?} is after {:?}", next, first);
            }
            evicted.set(evicted.get() + naive.evicted);
            Ok(())
        },
    );
    if let Err(reason) = outcome {
        panic!("{reason}");
    }
    // That much happened at all.
    assert!(opened.get() > 1000, "{} opened", opened.get());
    assert!(evicted.get() > 1000, "{} evicted", evicted.get());
}
