//! A scan of the ports does not open a door, and who knocks beside one gets in.

use std::num::NonZeroU16;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::model::{Protocol, SHIFT, hash};

const THREE: &str = "17301/tcp 4022/udp 39855/tcp";

/// Enough of a generator for shuffling: xorshift64* (Vigna, 2016).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (high as usize * n) >> 32
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i + 1));
        }
    }
}

fn opens(bed: &mut Bed, source: IpAddr, ports: &[Step]) -> usize {
    opens_with(flag::SYN, bed, source, ports)
}

/// The same by TCP segments with these flags.
fn opens_with(scan: u8, bed: &mut Bed, source: IpAddr, ports: &[Step]) -> usize {
    let mut events = Vec::new();
    for step in ports {
        bed.serial += 1;
        let mut knock = knock(bed.at().0, source, *step, bed.serial);
        if let Transport::Tcp { flags, .. } = &mut knock.transport {
            *flags = scan;
        }
        bed.matcher.observe(&knock, true, &mut events);
    }
    let outcomes = events.iter().map(|e| e.outcome);
    outcomes.filter(|o| *o == Outcome::Open).count()
}

fn every_port() -> Vec<Step> {
    let port = |n: u16| [step(&format!("{n}/tcp")), step(&format!("{n}/udp"))];
    (1..=u16::MAX).flat_map(port).collect()
}

#[test]
fn an_ascending_or_descending_scan_opens_nothing() {
    let ascending = [
        "1000/tcp 2000/tcp 3000/tcp",
        "1000/tcp 1006/tcp 1012/tcp",
        "4022/udp 17301/tcp",
    ];
    let mut ports = every_port();
    for sequence in ascending {
        for source in [ONE, "2001:db8::77"].map(address) {
            let mut bed = Bed::with(&[door("d", sequence)], TripwireMode::Sampled, 100);
            assert_eq!(opens(&mut bed, source, &ports), 0, "{sequence}");
            ports.reverse();
            assert_eq!(opens(&mut bed, source, &ports), 0, "{sequence}");
            ports.reverse();
        }
    }
}

/// nmap's -sF, -sN, -sX, -sA and -sM: a door of a knockd.conf without TCPFlags takes them all.
#[test]
fn a_scan_by_other_packets_than_syns_opens_nothing() {
    let ports = every_port();
    let xmas = flag::FIN | flag::PSH | flag::URG;
    for wanted in ["any", "fin", "!syn"] {
        let mut lax = door("d", "1000/tcp 2000/tcp 3000/tcp");
        lax.tcp_flags = wanted.parse().expect("flags");
        for scan in [flag::FIN, 0, xmas, flag::ACK, flag::FIN | flag::ACK] {
            for mode in [TripwireMode::Sampled, TripwireMode::All] {
                let mut bed = Bed::with(std::slice::from_ref(&lax), mode, 100);
                let opened = opens_with(scan, &mut bed, address(ONE), &ports);
                assert_eq!(opened, 0, "{wanted} {scan:#x} {mode:?}");
            }
        }
    }
}

#[test]
fn without_tripwires_an_ascending_scan_does_open() {
    let doors = [door("d", "1000/tcp 2000/tcp 3000/tcp")];
    let mut bed = Bed::with(&doors, TripwireMode::Off, 100);
    assert_eq!(opens(&mut bed, address(ONE), &every_port()), 1);
}

#[test]
fn random_scans_open_nothing() {
    let doors = [door("d", THREE)];
    let mut dice = Dice(1);
    let mut ports = every_port();
    let mut bed = Bed::with(&doors, TripwireMode::Sampled, 100);
    for scan in 0..100u32 {
        dice.shuffle(&mut ports);
        for source in [
            IpAddr::from(scan.to_be_bytes()),
            IpAddr::from((u128::from(scan) << 3).to_be_bytes()),
        ] {
            assert_eq!(opens(&mut bed, source, &ports), 0, "scan {scan}");
        }
    }
}

/// Of a random order of `wires` tripwires and three steps: how many open a door that
/// allows two strays. The steps must come in order, with two tripwires at most among
/// them; so the last comes d = 2, 3 or 4 places after the first, the second in one of the
/// d - 1 places between.
fn share_that_opens(wires: u32) -> f64 {
    let all = f64::from(wires + 3);
    let orders: f64 = [2., 3., 4.].map(|d| (all - d) * (d - 1.)).iter().sum();
    orders / (all * (all - 1.) * (all - 2.))
}

#[test]
fn a_random_scan_opens_as_rarely_as_is_claimed() {
    // Sampled: a 64th of the other ports, and the four neighbours of each step.
    let wires = (65_535 - 15) / 64 + 12;
    let one_in = 1. / share_that_opens(wires);
    assert!((170_000. ..185_000.).contains(&one_in), "{one_in}");

    // That the formula is true of the matcher shows where openings are frequent: 30
    // ports, all but the steps tripwires.
    let mut doors = [door("d", "10/tcp 20/tcp 30/tcp")];
    let mut ports: Vec<_> = (3..=32).map(|n| step(&format!("{n}/tcp"))).collect();
    let mut dice = Dice(7);
    let mut expect = |scan_by: u8, bed: &mut Bed, wires: u32| {
        let (mut opened, scans) = (0, 40_000);
        for scan in 0..scans {
            dice.shuffle(&mut ports);
            bed.now += 20_000;
            let source = IpAddr::from(u32::to_be_bytes(scan));
            opened += opens_with(scan_by, bed, source, &ports);
        }
        let expected = share_that_opens(wires) * f64::from(scans);
        let off = (opened as f64 - expected).abs();
        // Four standard deviations.
        assert!(off < 4. * expected.sqrt(), "{opened}, not {expected}");
    };
    expect(flag::SYN, &mut Bed::new(&doors), 27);

    // A door that takes other packets has the neighbours of its steps and no more.
    let one_in = 1. / share_that_opens(12);
    assert!((38. ..41.).contains(&one_in), "{one_in}");
    doors[0].tcp_flags = TcpFlags::ANY;
    expect(flag::ACK, &mut Bed::new(&doors), 12);
}

#[test]
fn a_knock_amid_the_noise_of_others_opens() {
    let doors = [door("d", THREE)];
    let mut bed = Bed::with(&doors, TripwireMode::Sampled, 100_000);
    let mut dice = Dice(3);
    let mut events = Vec::new();
    for last in ["17301/tcp", "4022/udp", "39855/tcp"] {
        for _ in 0..20_000 {
            let source = IpAddr::from([10, 0, dice.below(256) as u8, dice.below(256) as u8]);
            let known = doors[0].sequence[dice.below(3)];
            let other = step(&format!("{}/tcp", dice.below(65_535) + 1));
            let to = [known, other][dice.below(2)];
            let knock = knock(bed.at().0, source, to, dice.below(1 << 30) as u32);
            bed.matcher.observe(&knock, true, &mut events);
        }
        let of_ours = bed.hit(ONE, last);
        assert!(!of_ours.is_empty(), "{last}");
        if last == "39855/tcp" {
            assert_eq!(of_ours, open(0, 3));
        }
    }
}

/// The highest port that is scanned.
const LAST: u16 = 600;

/// One who draws no tripwire among these ports: whoever is stopped is so by those that are
/// tripwires for everyone, and by steps.
fn the_luckiest() -> IpAddr {
    let key = TripwireKey::FIXED;
    let ports = || (1..=LAST).filter_map(NonZeroU16::new);
    let draws_none = |source: &IpAddr| !ports().any(|port| hash(&key, *source, port) >> SHIFT == 0);
    let mut all = (0..u32::MAX).map(|n| IpAddr::from(n.to_be_bytes()));
    all.find(draws_none).expect("one in 12,000")
}

/// Steps lie at least five ports apart: fewer, and fewer than four tripwires are between.
fn some_door() -> impl Strategy<Value = ModelDoor> {
    let numbers: Vec<u16> = (5..LAST).step_by(5).collect();
    let all_flags = ["syn,!ack", "syn,!ack", "any", "fin"].map(|f| f.parse().expect("flags"));
    (
        subsequence(numbers, 2..5).prop_shuffle(),
        any::<[bool; 4]>(),
        select(all_flags.to_vec()),
        select(vec![None, None, Some(address("203.0.113.9"))]),
        select(vec!["0.0.0.0/0", "192.0.2.0/24"]),
        0u8..4,
    )
        .prop_map(|(ports, of_udp, tcp_flags, target, from, strays)| {
            let protocols = of_udp.map(|udp| if udp { Protocol::Udp } else { Protocol::Tcp });
            let steps = ports.iter().zip(protocols);
            ModelDoor {
                tcp_flags,
                target,
                strays,
                from: [from.parse().expect("a prefix")].into(),
                ..ModelDoor::new(
                    "d",
                    steps
                        .filter_map(|(port, of)| Step::new(of, *port))
                        .collect(),
                )
            }
        })
}

#[test]
fn no_scan_in_order_opens_any_of_many_doors() {
    let scanner = the_luckiest();
    let of = |protocol| (1..=LAST).filter_map(move |port| Step::new(protocol, port));
    let (tcp, udp) = (of(Protocol::Tcp), of(Protocol::Udp));
    let scans: [Vec<Step>; 4] = [
        tcp.clone().collect(),
        udp.clone().collect(),
        tcp.clone().chain(udp.clone()).collect(),
        tcp.zip(udp).flat_map(|(tcp, udp)| [tcp, udp]).collect(),
    ];
    let doors = prop::collection::vec(some_door(), 1..40);
    let check = |doors: Vec<ModelDoor>| {
        for scan in &scans {
            for falling in [false, true] {
                let mut scan = scan.clone();
                if falling {
                    scan.reverse();
                }
                for flags in [flag::SYN, flag::FIN, flag::SYN | flag::FIN] {
                    let mut bed = Bed::with(&doors, TripwireMode::Sampled, 100);
                    prop_assert_eq!(opens_with(flags, &mut bed, scanner, &scan), 0);
                }
            }
        }
        Ok(())
    };
    let mut runner = TestRunner::new(Config::with_cases(200));
    runner.run(&doors, check).expect("no scan opens a door");
}
