//! Very many doors, all the ports.

use super::super::MAX_INSTRUCTIONS;
use super::super::ports::{Run, join, runs};
use super::*;
use crate::model::flag;

/// Ports that a cheap generator scatters, no two equal.
fn scattered(count: usize) -> Vec<u16> {
    let mut ports: Vec<u16> = (1..=u16::MAX).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..ports.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ports.swap(i, (state >> 33) as usize % (i + 1));
    }
    ports.truncate(count);
    ports
}

fn many(count: usize) -> Vec<Door> {
    scattered(count * 3)
        .chunks(3)
        .map(|ports| {
            let steps = ports
                .iter()
                .filter_map(|port| Step::new(Protocol::Tcp, *port))
                .collect();
            door(steps, TcpFlags::SYN, Vec::new())
        })
        .collect()
}

#[test]
fn five_hundred_doors_fit_with_no_port_too_many() {
    let doors = many(500);
    let (program, wires) = program(TripwireMode::Sampled, &doors);
    assert!(
        program.instructions().len() <= MAX_INSTRUCTIONS,
        "{}",
        program.instructions().len()
    );
    let source = "198.51.100.9".parse().expect("an address");
    for port in 1..=u16::MAX {
        let step = Step::new(Protocol::Tcp, port).expect("a port");
        let is_wanted = wires.steps().contains(step) || wires.is_tripwire(source, step);
        let packet = Made {
            source,
            step,
            flags: flag::SYN,
            extra: None,
        };
        assert_eq!(passed(&program, &packet.packet()), is_wanted, "{port}");
    }
}

#[test]
fn any_number_of_doors_fits() {
    for (count, mode) in [
        (3_000, TripwireMode::Sampled),
        (3_000, TripwireMode::Off),
        (3_000, TripwireMode::All),
        (10_000, TripwireMode::Sampled),
    ] {
        let doors = many(count);
        let (program, wires) = program(mode, &doors);
        assert!(program.instructions().len() <= MAX_INSTRUCTIONS);
        for port in wires.steps().ports(Protocol::Tcp) {
            let packet = Made {
                step: Step {
                    protocol: Protocol::Tcp,
                    port,
                },
                ..Made::new("192.0.2.77", "1/tcp", flag::SYN)
            };
            assert!(
                passed(&program, &packet.packet()),
                "{count} {mode:?} {port}"
            );
        }
    }
}

#[test]
fn the_longest_program_fits() {
    // Every third port is a step of one protocol or the other, every third one opened.
    let mut doors: Vec<Door> = (1..=u16::MAX)
        .step_by(6)
        .filter_map(|port| {
            let tcp = Step::new(Protocol::Tcp, port)?;
            let udp = Step::new(Protocol::Udp, port.saturating_add(3))?;
            Some(door(vec![tcp, udp], TcpFlags::ANY, Vec::new()))
        })
        .collect();
    let open = |port| ["tcp", "udp"].map(|protocol| format!("{port}/{protocol}"));
    let thirds = (2..=u16::MAX).step_by(3).flat_map(open);
    doors[0].open = thirds.map(|p| p.parse().expect("a port")).collect();
    for mode in [TripwireMode::Sampled, TripwireMode::All, TripwireMode::Off] {
        let (program, _) = program(mode, &doors);
        let length = program.instructions().len();
        assert!(length <= MAX_INSTRUCTIONS, "{mode:?}: {length}");
    }
}

#[test]
fn one_port_in_64_wakes_us_and_not_the_same_for_each_source() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    for sources in [
        ["192.0.2.77", "192.0.2.78"],
        ["2001:db8::77", "2001:db8::78"],
    ] {
        let [one, other] = sources.map(|source| {
            (1..=u16::MAX)
                .map(|port| {
                    let step = Step::new(Protocol::Tcp, port).expect("a port");
                    let made = Made {
                        step,
                        ..Made::new(source, "1/tcp", flag::SYN)
                    };
                    passed(&program, &made.packet())
                })
                .collect::<Vec<bool>>()
        });
        let count = |of: &[bool]| of.iter().filter(|is| **is).count();
        let both = one.iter().zip(&other).filter(|(a, b)| **a && **b).count();
        // 1,024 of each source's own, 15 for all; 16 shared by chance.
        assert!((900..1_200).contains(&count(&one)), "{}", count(&one));
        assert!((900..1_200).contains(&count(&other)), "{}", count(&other));
        assert!(both < 100, "{both}");
    }
}

#[test]
fn runs_are_joined_across_the_narrowest_gaps() {
    let run = |first, last| Run { first, last };
    let mut tcp = runs(
        [1, 2, 3, 7, 9, 65_535]
            .into_iter()
            .filter_map(NonZeroU16::new),
    );
    assert_eq!(tcp, [run(1, 3), run(7, 7), run(9, 9), run(65_535, 65_535)]);
    let mut udp = vec![run(10, 10), run(13, 13)];
    join([&mut tcp, &mut udp], 4);
    assert_eq!(tcp, [run(1, 3), run(7, 9), run(65_535, 65_535)]);
    assert_eq!(udp, [run(10, 13)]);
    join([&mut tcp, &mut udp], 0);
    assert_eq!((tcp, udp), (vec![run(1, 65_535)], vec![run(10, 13)]));
}
