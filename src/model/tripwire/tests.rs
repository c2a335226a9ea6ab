//! The hash is as even as is claimed, and the tripwires are where they should be.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn step(text: &str) -> Step {
    text.parse().expect("a step")
}

fn port(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("not 0")
}

/// Keys as unlike as random ones, the same each time (SplitMix64, Steele and others).
fn keys() -> impl Iterator<Item = TripwireKey> {
    let mut state = 1u64;
    let mut word = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    std::iter::repeat_with(move || {
        let (a, b) = (word(), word());
        let random = (u128::from(a) << 64 | u128::from(b)).to_ne_bytes();
        TripwireKey::new(random)
    })
    .take(12)
    .chain([TripwireKey::FIXED])
}

/// Neighbours: what one scanner has, and where a poor hash shows.
fn sources(n: u32) -> [IpAddr; 3] {
    let n4 = 0xc000_0200 + n;
    let prefix = 0x2001_0db8_u128 << 96;
    [
        IpAddr::V4(Ipv4Addr::from_bits(n4)),
        IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(n))),
        IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(n) << 64 | 1)),
    ]
}

fn trips(key: &TripwireKey, source: IpAddr, n: u16) -> bool {
    hash(key, source, port(n)) >> SHIFT == 0
}

/// Whether a count is within six standard deviations of what chance gives.
fn plausible(count: usize, of: u32, one_in: u32) -> bool {
    let expected = f64::from(of) / f64::from(one_in);
    (count as f64 - expected).abs() < 6. * expected.sqrt()
}

#[test]
fn the_hash_is_as_documented() {
    // Worked by hand from the words of the doc, for whoever computes it elsewhere.
    let key = TripwireKey([1, 3, 5, 7]);
    let source = IpAddr::from([0, 0, 0, 2]);
    // (1 ^ 2) * 3 = 9; 9 ^ 0 = 9; (9 ^ 4 ^ 5) * 7 = 56; 56 ^ 0 = 56; 56 * 3 = 168.
    assert_eq!(hash(&key, source, port(4)), 168);
    let source = IpAddr::V6(Ipv6Addr::from_bits(2));
    // 1 * 3 = 3, 3 * 3 = 9, 9 * 3 = 27, (27 ^ 2) * 3 = 75; (75 ^ 4 ^ 5) * 7 = 518;
    // 518 * 3 = 1554.
    assert_eq!(hash(&key, source, port(4)), 1554);
}

#[test]
fn each_source_has_a_64th_of_the_ports() {
    for key in keys() {
        for source in sources(7) {
            let count = (1..=u16::MAX).filter(|p| trips(&key, source, *p)).count();
            assert!(plausible(count, 65_535, 64), "{source}: {count}");
        }
    }
}

#[test]
fn each_port_is_a_tripwire_for_a_64th_of_the_sources() {
    for key in keys() {
        for family in 0..3 {
            for n in [1, 22, 443, 40_000, 65_535] {
                let all = (0..16_384).map(|s| sources(s)[family]);
                let count = all.filter(|s| trips(&key, *s, n)).count();
                assert!(plausible(count, 16_384, 64), "{n}: {count}");
            }
        }
    }
}

#[test]
fn neighbouring_sources_and_ports_have_nothing_in_common() {
    for key in keys() {
        for (a, b) in sources(8).into_iter().zip(sources(9)) {
            let both = |p: &u16| trips(&key, a, *p) && trips(&key, b, *p);
            let count = (1..=u16::MAX).filter(both).count();
            assert!(plausible(count, 65_535, 64 * 64), "{a} {b}: {count}");
            let next = |p: &u16| trips(&key, a, *p) && trips(&key, a, *p + 1);
            let count = (1..u16::MAX).filter(next).count();
            assert!(plausible(count, 65_534, 64 * 64), "{a}: {count}");
        }
    }
}

#[test]
fn another_key_has_other_tripwires() {
    let keys: Vec<_> = keys().collect();
    let source = sources(1)[0];
    for pair in keys.windows(2) {
        let both = |p: &u16| trips(&pair[0], source, *p) && trips(&pair[1], source, *p);
        let count = (1..=u16::MAX).filter(both).count();
        assert!(plausible(count, 65_535, 64 * 64), "{count}");
    }
}

fn door(sequence: &[&str], open: &[&str]) -> Door {
    Door {
        open: open.iter().map(|r| r.parse().expect("a range")).collect(),
        ..Door::new("d", sequence.iter().map(|s| step(s)).collect())
    }
}

fn wires(mode: TripwireMode) -> Tripwires {
    let doors = [
        door(&["1000/tcp", "1/udp"], &["1001/tcp", "60000-60010/udp"]),
        door(&["65535/tcp", "1002/tcp"], &[]),
    ];
    Tripwires::new(mode, TripwireKey::FIXED, &doors)
}

#[test]
fn the_neighbours_of_steps_are_tripwires_for_everyone() {
    let wires = wires(TripwireMode::Sampled);
    let near = |protocol| {
        let ports = wires.near.ports(protocol);
        ports.map(NonZeroU16::get).collect::<Vec<_>>()
    };
    // 1001 is opened, 1000 and 1002 are steps; the ports end at 1 and 65535.
    let tcp = [998, 999, 1003, 1004, 65_533, 65_534];
    assert_eq!(near(Protocol::Tcp), tcp);
    assert_eq!(near(Protocol::Udp), [2, 3]);
    for source in (0..100).flat_map(sources) {
        assert!(
            tcp.iter()
                .all(|p| wires.is_tripwire(source, step(&format!("{p}/tcp"))))
        );
    }
}

/// The tripwires for everyone that go with these doors.
fn near(doors: &[Door]) -> Vec<String> {
    let wires = Tripwires::new(TripwireMode::Sampled, TripwireKey::FIXED, doors);
    let of = |protocol| {
        let steps = wires.near.ports(protocol);
        steps.filter_map(move |port| Step::new(protocol, port.get()))
    };
    let all = of(Protocol::Tcp).chain(of(Protocol::Udp));
    all.map(|step| step.to_string()).collect()
}

#[test]
fn a_step_of_another_door_takes_the_place_of_neighbours() {
    let one = || door(&["1000/tcp", "3000/tcp"], &[]);
    let around = |ports: [u16; 8]| ports.map(|port| format!("{port}/tcp")).to_vec();
    let alone = around([998, 999, 1001, 1002, 2998, 2999, 3001, 3002]);
    assert_eq!(near(&[one()]), alone);
    // Each towards the other, and as far as 256 ports.
    let other = |step: &str| door(&[step], &[]);
    let with = around([998, 999, 1257, 1258, 2998, 2999, 3001, 3002]);
    assert_eq!(near(&[one(), other("1256/tcp")]), with);
    let farther = near(&[one(), other("1257/tcp")]);
    assert!(alone.iter().all(|port| farther.contains(port)));
    // Not one that a scan may pass by, and not one behind the door's own next step.
    let passed_by = [
        other("1100/udp"),
        Door {
            target: Some(IpAddr::from([203, 0, 113, 9])),
            ..other("1100/tcp")
        },
        Door {
            tcp_flags: crate::model::TcpFlags::ANY,
            ..other("1100/tcp")
        },
    ];
    for other in passed_by {
        let near = near(&[one(), other]);
        assert!(alone.iter().all(|port| near.contains(port)), "{near:?}");
    }
    let close = door(&["1000/tcp", "1010/udp"], &[]);
    let near = near(&[close, other("1020/tcp")]);
    assert!(near.contains(&"1001/tcp".to_owned()), "{near:?}");
}

#[test]
fn many_doors_hardly_need_neighbours() {
    // Scattered by a multiplication that reaches every port once.
    let port = |n: u16| step(&format!("{}/tcp", n.wrapping_mul(40_503)));
    let doors: Vec<_> = (0..500)
        .map(|n| Door::new("d", (n * 3 + 1..n * 3 + 4).map(port).collect()))
        .collect();
    let count = near(&doors).len();
    assert!(count < 100, "{count}");
}

#[test]
fn steps_and_opened_ports_never_are() {
    for mode in [TripwireMode::Sampled, TripwireMode::All, TripwireMode::Off] {
        let wires = wires(mode);
        for source in (0..1000).flat_map(sources) {
            for exempt in ["1000/tcp", "1/udp", "65535/tcp", "1001/tcp", "60005/udp"] {
                assert!(
                    !wires.is_tripwire(source, step(exempt)),
                    "{mode:?} {exempt}"
                );
            }
        }
    }
}

#[test]
fn all_is_every_other_port_and_off_is_none() {
    let (all, off) = (wires(TripwireMode::All), wires(TripwireMode::Off));
    let source = sources(1)[0];
    for other in ["2/tcp", "1/tcp", "1000/udp", "59999/udp", "60000/tcp"] {
        assert!(all.is_tripwire(source, step(other)), "{other}");
        assert!(!off.is_tripwire(source, step(other)), "{other}");
    }
}
