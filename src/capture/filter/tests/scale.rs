//! Very many doors, all the ports, all the flags.

use super::super::MAX_INSTRUCTIONS;
use super::*;
use crate::model::{MAX_STEPS, flag};

/// Doors of three steps each, of which no two are equal.
fn many(count: u16) -> Vec<Door> {
    let three = |number: u16| [1, 2, 3].map(|step| tcp(number * 3 + step));
    (0..count)
        .map(|number| door(three(number).into(), TcpFlags::SYN, vec![range("22/tcp")]))
        .collect()
}

#[test]
fn five_thousand_doors_have_the_program_of_one() {
    let one = program(&many(1));
    assert_eq!(program(&many(5_000)), one);
    assert!(
        one.instructions().len() < 80,
        "{}",
        one.instructions().len()
    );
}

/// Every way to ask for flags: 729.
fn all_flags() -> impl Iterator<Item = TcpFlags> + Clone {
    (0..64).flat_map(|set: u8| {
        let clear = (0..64).filter(move |clear| set & clear == 0);
        clear.map(move |clear| TcpFlags { set, clear })
    })
}

/// Every port of this remainder, in rows of one, of both protocols.
fn every_third(rest: u16) -> impl Iterator<Item = Step> {
    (1..=u16::MAX)
        .filter(move |port| port % 3 == rest)
        .flat_map(|port| [Protocol::Tcp, Protocol::Udp].map(|p| Step::new(p, port)))
        .flatten()
}

fn range_of(step: Step) -> PortRange {
    PortRange {
        protocol: step.protocol,
        first: step.port,
        last: step.port,
    }
}

#[test]
fn ten_thousand_doors_of_every_flags_are_heard() {
    let steps: Vec<Step> = every_third(0).collect();
    let mut doors: Vec<Door> = steps
        .chunks(4)
        .cycle()
        .take(10_000)
        .zip(all_flags().cycle())
        .map(|(steps, flags)| door(steps.to_vec(), flags, Vec::new()))
        .collect();
    doors[0].open = every_third(1).map(range_of).collect();
    let ignore: Vec<PortRange> = every_third(2).map(range_of).collect();
    let program = Program::new(&doors, &ignore);
    let length = program.instructions().len();
    assert!(length <= MAX_INSTRUCTIONS, "{length}");
    assert!(!Program::keeps_to_ports(&doors));
    for step in steps {
        for flags in 0..64 {
            assert!(takes(&program, step, flags), "{step} {flags:#04x}");
        }
    }
}

#[test]
fn all_the_ports_may_be_opened_or_ignored_one_by_one_or_at_once() {
    let each = |protocol| (1..=u16::MAX).filter_map(move |port| Step::new(protocol, port));
    let one_by_one = each(Protocol::Tcp).chain(each(Protocol::Udp)).map(range_of);
    let one_by_one: Vec<PortRange> = one_by_one.collect();
    let at_once = ["1-65535/tcp", "1-65535/udp"].map(range).to_vec();
    for ports in [one_by_one, at_once] {
        let mut doors = [one_time_door(&["7000/tcp"])];
        let ignored = Program::new(&doors, &ports);
        doors[0].open = ports.into();
        let opened = program(&doors);
        assert_eq!(opened, ignored);
        for port in [1, 7_000, 65_535] {
            assert!(!takes(&opened, tcp(port), flag::SYN), "{port}");
        }
        assert!(opened.instructions().len() < 80);
    }
}

#[test]
fn the_longest_programs_have_room() {
    let is_not_for_sessions = |flags: &TcpFlags| !flags.fits_sessions();
    let four = (1..25_u8).map(|n| IpAddr::from([192, 0, 2, n]));
    let hosts: Vec<_> = four
        .chain((1..25_u128).map(|n| IpAddr::from(n.to_be_bytes())))
        .collect();
    let mut longest = 0;
    // How many flags pass by class, how many at ports, and how many rows these make.
    for (classes, at_ports, rows) in [
        (13, 16, 128),
        (14, 16, 128),
        (15, 16, 128),
        (16, 17, 128),
        (500, 500, 128),
        (14, 16, 129),
        (14, 0, 0),
    ] {
        let by_class = all_flags().filter(is_not_for_sessions).take(classes);
        let for_sessions = all_flags()
            .filter(|flags| flags.fits_sessions())
            .take(at_ports);
        let steps: Vec<Step> = every_third(0).take(2 * rows).collect();
        let sequences = steps.chunks(MAX_STEPS).chain([&steps[..0]]).cycle();
        let mut doors: Vec<Door> = by_class
            .chain(for_sessions)
            .zip(sequences)
            .map(|(flags, steps)| door(steps.to_vec(), flags, Vec::new()))
            .collect();
        doors[0].open = every_third(1).map(range_of).collect();
        let length = program(&doors).to(&hosts).instructions().len();
        assert!(
            length <= MAX_INSTRUCTIONS,
            "{classes} {at_ports} {rows}: {length}"
        );
        longest = longest.max(length);
    }
    // If it is far less, these are not the longest any more.
    assert!(longest > 600, "{longest}");
}
