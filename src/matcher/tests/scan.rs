//! A scan of the ports does not open a door, and a knock beside a scan does.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::model::Protocol;

const THREE: &str = "17301/tcp 4022/udp 39855/tcp";

/// A generator good enough for shuffling: xorshift64* (Vigna, 2016).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        (high as usize * n) >> 32
    }

    /// Returns a number from 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        self.below(1 << 24) as f64 / f64::from(1 << 24)
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

/// Does the same by TCP segments with these flags.
fn opens_with(scan: u8, bed: &mut Bed, source: IpAddr, ports: &[Step]) -> usize {
    let mut events = Vec::new();
    for step in ports {
        bed.serial += 1;
        let mut knock = knock(bed.at().0, source, *step, bed.serial);
        if let Transport::Tcp { flags, .. } = &mut knock.transport {
            *flags = scan;
        }
        bed.take(&knock, true, &mut events);
    }
    let outcomes = events.iter().map(|e| e.outcome);
    outcomes.filter(|o| *o == Outcome::Open).count()
}

/// Returns the ports up to this one.
fn ports_to(last: u16, protocol: Protocol) -> Vec<Step> {
    let ports = 1..=last;
    ports.filter_map(|port| Step::new(protocol, port)).collect()
}

/// Returns the ports of TCP, those of UDP, and both in two orders.
fn scans_in_order(last: u16) -> [Vec<Step>; 4] {
    let (tcp, udp) = (ports_to(last, Protocol::Tcp), ports_to(last, Protocol::Udp));
    let by_turns = tcp.iter().zip(&udp).flat_map(|(tcp, udp)| [*tcp, *udp]);
    let by_turns = by_turns.collect();
    [[&*tcp, &*udp].concat(), by_turns, tcp, udp]
}

#[test]
fn an_ascending_or_descending_scan_opens_nothing() {
    let sequences = [
        "1000/tcp 2000/tcp 3000/tcp",
        "1000/udp 2000/udp 3000/udp",
        "1000/tcp 1300/tcp",
        "1300/udp 1000/udp",
        "1000/tcp 1000/tcp 2000/tcp",
        "4022/udp 17301/tcp",
    ];
    for mut scan in scans_in_order(u16::MAX) {
        for sequence in sequences {
            for source in [ONE, "2001:db8::77"].map(address) {
                let mut bed = Bed::new(&[door("d", sequence)]);
                assert_eq!(opens(&mut bed, source, &scan), 0, "{sequence}");
                scan.reverse();
                assert_eq!(opens(&mut bed, source, &scan), 0, "{sequence}");
            }
        }
    }
}

/// nmap's -sF, -sN and -sX: a door of a knockd.conf without TCPFlags takes them all. Also packets with
/// RST or ACK that no session has.
#[test]
fn a_scan_by_other_packets_than_syns_opens_nothing() {
    let mut ports = ports_to(u16::MAX, Protocol::Tcp);
    for wanted in ["any", "fin", "!syn", "syn", "syn,!ack", "fin,!ack"] {
        let mut lax = door("d", "1000/tcp 2000/tcp 3000/tcp");
        lax.tcp_flags = wanted.parse().expect("flags");
        let xmas = flag::FIN | flag::PSH | flag::URG;
        let odd = [
            flag::SYN | flag::RST,
            flag::SYN | flag::ACK,
            flag::FIN | flag::RST,
        ];
        let takes_sessions = lax.tcp_flags.fits_sessions();
        let odd = odd
            .into_iter()
            .filter(|odd| !takes_sessions || *odd == flag::SYN | flag::RST);
        for scan in [flag::FIN, 0, xmas].into_iter().chain(odd) {
            let mut bed = Bed::new(std::slice::from_ref(&lax));
            for source in [ONE, TWO].map(address) {
                let opened = opens_with(scan, &mut bed, source, &ports);
                assert_eq!(opened, 0, "{wanted} {scan:#x}");
                ports.reverse();
            }
        }
    }
}

/// Among them nmap's -sA and -sM, at doors that take such packets: a packet with ACK or RST may be of
/// a session beside the knock, so none is a stray. (And the daemon's filter
/// passes such packets to the steps of these doors and to no other port.)
#[test]
fn a_scan_by_acks_or_resets_opens_what_it_opened_in_0_8() {
    let ports = ports_to(4000, Protocol::Tcp);
    for (wanted, scan) in [
        ("any", flag::ACK),
        ("any", flag::RST),
        ("fin", flag::FIN | flag::ACK),
    ] {
        let mut lax = door("lax", "1000/tcp 2000/tcp 3000/tcp");
        lax.tcp_flags = wanted.parse().expect("flags");
        let falling = ModelDoor {
            name: "falling".into(),
            sequence: lax.sequence.iter().rev().copied().collect(),
            ..lax.clone()
        };
        let strict = door("strict", "1500/tcp 2500/tcp 3500/tcp");
        let mut bed = Bed::new(&[lax, falling, strict]);
        assert_eq!(
            opens_with(scan, &mut bed, address(ONE), &ports),
            1,
            "{wanted}"
        );
    }
}

#[test]
fn without_tripwires_an_ascending_scan_does_open() {
    let [_, by_turns, tcp, _] = scans_in_order(u16::MAX);
    for (sequence, ports) in [
        ("1000/tcp 2000/tcp 3000/tcp", tcp),
        ("1000/tcp 2000/udp 3000/tcp", by_turns),
    ] {
        let mut bed = Bed::with(&[door("d", sequence)], TripwireMode::Off, 100);
        assert_eq!(opens(&mut bed, address(ONE), &ports), 1, "{sequence}");
    }
}

/// The check of the configuration warns of that.
#[test]
fn steps_with_fewer_tripwires_between_than_strays_are_opened_by_a_scan_in_order() {
    let ports = ports_to(2000, Protocol::Tcp);
    for (strays, opened) in [(128, 1), (16, 0)] {
        let mut near = door("d", "1000/tcp 1020/tcp 1040/tcp");
        near.strays = strays;
        let mut bed = Bed::new(&[near]);
        assert_eq!(opens(&mut bed, address(ONE), &ports), opened, "{strays}");
    }
}

#[test]
fn random_scans_open_nothing() {
    let doors = [door("d", THREE)];
    let mut dice = Dice(1);
    let [mut ports, ..] = scans_in_order(u16::MAX);
    let mut bed = Bed::with(&doors, TripwireMode::On, 100);
    for scan in 0..50u32 {
        dice.shuffle(&mut ports);
        for source in [
            IpAddr::from(scan.to_be_bytes()),
            IpAddr::from((u128::from(scan) << 3).to_be_bytes()),
        ] {
            assert_eq!(opens(&mut bed, source, &ports), 0, "scan {scan}");
        }
    }
}

/// Returns how many random orders of this many ports, three steps and else tripwires, open the door.
/// The steps must come in order. The last comes d places after the first, the second in one of
/// the d - 1 places between; and the d - 2 tripwires among them must be `survived`, which is a
/// chance for each number.
fn share_that_opens(ports: u32, survived: &[f64]) -> f64 {
    let all = f64::from(ports);
    let distances = (2..ports).map(f64::from).zip(survived);
    let orders: f64 = distances
        .map(|(d, chance)| (all - d) * (d - 1.) * chance)
        .sum();
    orders / (all * (all - 1.) * (all - 2.))
}

/// The chance if strays were counted exactly.
fn exactly(strays: u16) -> Vec<f64> {
    vec![1.; usize::from(strays) + 1]
}

/// The chance as strays are counted: that a number of ports, from 0, sets no more of 128 bits than
/// `strays` ports set on the average. (Each port sets a bit that is still free, or one that is not.)
fn nearly(strays: u16) -> Vec<f64> {
    let mut chances = vec![0.; bits(strays) + 1];
    chances[0] = 1.;
    let after_another = |chances: &mut Vec<f64>| {
        let survives: f64 = chances.iter().sum();
        for set in (0..chances.len()).rev() {
            let fewer = set.checked_sub(1).map_or(0., |fewer| chances[fewer]);
            chances[set] = (chances[set] * set as f64 + fewer * (129 - set) as f64) / 128.;
        }
        survives
    };
    (0..1000).map(|_| after_another(&mut chances)).collect()
}

#[test]
fn a_random_scan_opens_as_rarely_as_is_claimed() {
    let one_in = |ports, survived: &[f64]| (1. / share_that_opens(ports, survived)).round();
    assert_eq!(one_in(65_535, &exactly(128)), 512_865.);
    assert_eq!(one_in(65_535, &nearly(128)), 501_437.);
    assert_eq!(one_in(65_535, &exactly(8)), 95_447_117.);
    assert_eq!(one_in(65_535, &nearly(8)), 89_493_642.);
    // A door of TCP and UDP steps: both must be scanned, and tripwires of both count.
    assert_eq!(one_in(2 * 65_535, &nearly(128)), 2_004_432.);
}

/// Where openings are frequent, it shows that the formula is true of the matcher.
#[test]
fn random_scans_of_few_ports_open_as_often_as_the_formula_says() {
    const SCANS: u32 = 40_000;
    let mut dice = Dice(7);
    let mut check = |flags: u8, sequence: &str, strays: u16, mut ports: Vec<Step>| {
        let mut one = door("d", sequence);
        one.tcp_flags = TcpFlags {
            set: flags,
            clear: flag::ACK,
        };
        one.strays = strays;
        let mut bed = Bed::new(&[one]);
        let mut opened = 0;
        for scan in 0..SCANS {
            dice.shuffle(&mut ports);
            bed.now += 20_000;
            let source = IpAddr::from(u32::to_be_bytes(scan));
            opened += opens_with(flags, &mut bed, source, &ports);
        }
        let share = share_that_opens(ports.len() as u32, &nearly(strays));
        let (expected, deviation) = (
            share * f64::from(SCANS),
            (share * (1. - share) * f64::from(SCANS)).sqrt(),
        );
        let off = (opened as f64 - expected).abs();
        assert!(off < 4. * deviation, "{strays}: {opened}, not {expected}");
    };
    let tcp = |last| ports_to(last, Protocol::Tcp);
    let [both, ..] = scans_in_order(30);
    check(flag::SYN, "10/tcp 20/tcp 30/tcp", 2, tcp(30));
    check(flag::SYN, "10/tcp 20/tcp 30/tcp", 8, tcp(60));
    check(flag::SYN, "10/tcp 20/tcp 30/tcp", 128, tcp(200));
    check(flag::SYN, "10/tcp 20/udp 30/tcp", 8, both);
    check(flag::FIN, "10/tcp 20/tcp 30/tcp", 2, tcp(30));
}

#[test]
fn a_knock_amid_the_noise_of_others_opens() {
    let doors = [door("d", THREE)];
    let mut bed = Bed::with(&doors, TripwireMode::On, 100_000);
    let mut dice = Dice(3);
    let mut events = Vec::new();
    for last in ["17301/tcp", "4022/udp", "39855/tcp"] {
        for _ in 0..20_000 {
            let source = IpAddr::from([10, 0, dice.below(256) as u8, dice.below(256) as u8]);
            let known = doors[0].sequence[dice.below(3)];
            let other = step(&format!("{}/tcp", dice.below(65_535) + 1));
            let to = [known, other][dice.below(2)];
            let knock = knock(bed.at().0, source, to, dice.below(1 << 30) as u32);
            bed.take(&knock, true, &mut events);
        }
        let of_ours = bed.hit(ONE, last);
        assert!(!of_ours.is_empty(), "{last}");
        if last == "39855/tcp" {
            assert_eq!(of_ours, open(0, 3));
        }
    }
}

/// The highest port that is scanned.
const LAST: u16 = 1000;

/// Steps lie at least forty ports apart, which are more tripwires than strays, even if many
/// share a bit.
fn some_door() -> impl Strategy<Value = ModelDoor> {
    let numbers: Vec<u16> = (40..LAST).step_by(40).collect();
    let all_flags = ["syn,!ack", "syn,!ack", "any", "fin"].map(|f| f.parse().expect("flags"));
    (
        subsequence(numbers, 2..5).prop_shuffle(),
        any::<[bool; 4]>(),
        select(all_flags.to_vec()),
        select(vec![None, None, Some(address("203.0.113.9"))]),
        select(vec!["0.0.0.0/0", "192.0.2.0/24"]),
        0u16..16,
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
    let scans = scans_in_order(LAST);
    let doors = prop::collection::vec(some_door(), 1..40);
    let check = |doors: Vec<ModelDoor>| {
        for scan in &scans {
            for falling in [false, true] {
                let mut scan = scan.clone();
                if falling {
                    scan.reverse();
                }
                for flags in [flag::SYN, flag::FIN, flag::SYN | flag::FIN] {
                    let mut bed = Bed::with(&doors, TripwireMode::On, 100);
                    prop_assert_eq!(opens_with(flags, &mut bed, address(ONE), &scan), 0);
                }
            }
        }
        Ok(())
    };
    let mut runner = TestRunner::new(Config::with_cases(200));
    runner.run(&doors, check).expect("no scan opens a door");
}
