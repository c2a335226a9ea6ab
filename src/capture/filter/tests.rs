use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::interpret::{Packet, passes};
use super::ports::{Run, join, pass_if_in, runs};
use super::{MAX_INSTRUCTIONS, Program, op};
use crate::model::{
    Close, Door, Lifetime, PortRange, Protocol, Step, TcpFlags, TripwireKey, TripwireMode,
    Tripwires, flag,
};

fn door(sequence: Vec<Step>, tcp_flags: TcpFlags, open: Vec<PortRange>) -> Door {
    Door {
        name: "d".into(),
        sequence,
        one_time: None,
        seq_timeout: Duration::from_secs(15),
        tcp_flags,
        from: Vec::new(),
        target: None,
        strays: 2,
        open,
        open_for: Lifetime::UntilClosed,
        close: Close::Nothing,
        add: Vec::new(),
        remove: Vec::new(),
        commands: None,
    }
}

fn step(text: &str) -> Step {
    text.parse().expect("a step")
}

fn doors(sequences: &[&[&str]]) -> Vec<Door> {
    sequences
        .iter()
        .map(|steps| {
            let steps = steps.iter().map(|s| step(s)).collect();
            door(steps, TcpFlags::SYN, Vec::new())
        })
        .collect()
}

fn program(mode: TripwireMode, doors: &[Door]) -> (Program, Tripwires) {
    let wires = Tripwires::new(mode, TripwireKey::new([0xa7; 16]), doors);
    (Program::new(doors, &wires), wires)
}

/// What a packet of the tests is made of.
#[derive(Debug, Clone)]
struct Made {
    source: IpAddr,
    step: Step,
    flags: u8,
    /// Words of options (IPv4) or an extension header (IPv6).
    extra: Option<u8>,
}

impl Made {
    fn new(source: &str, step_text: &str, flags: u8) -> Self {
        Self {
            source: source.parse().expect("an address"),
            step: step(step_text),
            flags,
            extra: None,
        }
    }

    fn packet(&self) -> Packet {
        let port = self.step.port.get().to_be_bytes();
        let transport = match self.step.protocol {
            Protocol::Tcp => {
                let flags = self.flags;
                let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
                [&[0x9c, 0x40, port[0], port[1]], &rest[..]].concat()
            }
            Protocol::Udp => vec![0x9c, 0x40, port[0], port[1], 0, 8, 0, 0],
        };
        let number = self.step.protocol.number();
        let (protocol, bytes) = match self.source {
            IpAddr::V4(source) => {
                let words = 5 + self.extra.unwrap_or(0) % 11;
                let options = vec![1; usize::from(words - 5) * 4];
                let length = u16::from(words) * 4 + transport.len() as u16;
                let [l0, l1] = length.to_be_bytes();
                let head = [0x40 | words, 0, l0, l1, 0, 1, 0x40, 0, 64, number, 0, 0];
                let target = [192, 0, 2, 1];
                let parts = [&head[..], &source.octets(), &target, &options, &transport];
                (0x0800, parts.concat())
            }
            IpAddr::V6(source) => {
                let (next, extension) = match self.extra {
                    None => (number, Vec::new()),
                    Some(header) => (header, vec![number, 0, 0, 0, 0, 0, 0, 0]),
                };
                let length = (extension.len() + transport.len()) as u16;
                let [l0, l1] = length.to_be_bytes();
                let head = [0x60, 0, 0, 0, l0, l1, next, 64];
                let parts = [
                    &head[..],
                    &source.octets(),
                    &[9; 16],
                    &extension,
                    &transport,
                ];
                (0x86dd, parts.concat())
            }
        };
        Packet {
            protocol,
            packet_type: 0,
            vlan: None,
            bytes,
        }
    }
}

fn passed(program: &Program, packet: &Packet) -> bool {
    passes(program.instructions(), packet)
}

#[test]
fn one_door_and_what_passes_for_it() {
    let doors = doors(&[&["7000/tcp", "8000/udp", "9000/tcp"]]);
    let (off, _) = program(TripwireMode::Off, &doors);
    let (syn, both) = (flag::SYN, flag::SYN | flag::ACK);
    for source in ["192.0.2.77", "2001:db8::77"] {
        for (step, flags, is_wanted) in [
            ("7000/tcp", syn, true),
            ("7000/tcp", both, false),
            ("7000/tcp", flag::FIN, false),
            ("9000/tcp", syn | flag::URG, true),
            ("7000/udp", 0, false),
            ("8000/udp", 0, true),
            ("8000/tcp", syn, false),
            ("7001/tcp", syn, false),
            ("6999/tcp", syn, false),
            ("65535/tcp", syn, false),
            ("1/udp", 0, false),
        ] {
            let packet = Made::new(source, step, flags).packet();
            assert_eq!(passed(&off, &packet), is_wanted, "{source} {step} {flags}");
        }
    }
}

#[test]
fn what_is_not_for_this_host_or_comes_again_is_dropped() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let packet = Made::new("192.0.2.77", "7000/tcp", flag::SYN).packet();
    for packet_type in 0..=7 {
        let other = Packet {
            packet_type,
            ..packet.clone()
        };
        assert_eq!(passed(&program, &other), packet_type <= 2, "{packet_type}");
    }
    // The priority bits may be anything; VLAN 0 is none.
    for (vlan, is_wanted) in [(0, true), (0xe000, true), (1, false), (0xefff, false)] {
        let tagged = Packet {
            vlan: Some(vlan),
            ..packet.clone()
        };
        assert_eq!(passed(&program, &tagged), is_wanted, "{vlan:#x}");
    }
    // ARP, a tag within, PPPoE, and IPv6 in a frame that says IPv4.
    for protocol in [0x0806, 0x8100, 0x8864, 0x86dd] {
        let other = Packet {
            protocol,
            ..packet.clone()
        };
        assert!(!passed(&program, &other), "{protocol:#x}");
    }
}

#[test]
fn fragments_and_reports_are_dropped_and_odd_packets_passed() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let four = Made::new("192.0.2.77", "7000/tcp", flag::SYN).packet();
    for (field, is_wanted) in [([0x20, 0], false), ([0, 1], false), ([0x40, 0], true)] {
        let mut packet = four.clone();
        packet.bytes[6..8].copy_from_slice(&field);
        assert_eq!(passed(&program, &packet), is_wanted, "{field:?}");
    }
    let six = Made::new("2001:db8::77", "1/tcp", flag::SYN);
    for (header, is_wanted) in [
        (0, true),
        (43, true),
        (44, true),
        (51, true),
        (60, true),
        (58, false),
        (50, false),
        (135, false),
    ] {
        let packet = Made {
            extra: Some(header),
            ..six.clone()
        };
        assert_eq!(passed(&program, &packet.packet()), is_wanted, "{header}");
    }
    let mut report = Made {
        extra: Some(0),
        ..six.clone()
    }
    .packet();
    report.bytes[40] = 58;
    assert!(!passed(&program, &report));
    let mut fragment = Made {
        extra: Some(44),
        ..six
    }
    .packet();
    for (field, is_wanted) in [([0, 1], false), ([0, 8], false), ([0, 6], true)] {
        fragment.bytes[42..44].copy_from_slice(&field);
        assert_eq!(passed(&program, &fragment), is_wanted, "{field:?}");
    }
}

#[test]
fn a_packet_cut_before_its_flags_is_dropped() {
    let doors = doors(&[&["7000/tcp", "8000/tcp", "9000/tcp"]]);
    let (program, _) = program(TripwireMode::Sampled, &doors);
    let whole = Made::new("2001:db8::77", "7000/tcp", flag::SYN).packet();
    for length in 0..whole.bytes.len() {
        let mut cut = whole.clone();
        cut.bytes.truncate(length);
        // IPv6 takes 40 bytes, the flags are the fourteenth of TCP.
        assert_eq!(passed(&program, &cut), length >= 54, "{length}");
    }
}

#[test]
fn no_steps_nothing_passes() {
    let mut disabled = doors(&[&["7000/tcp"]]);
    disabled[0].sequence.clear();
    let (program, _) = program(TripwireMode::All, &disabled);
    assert_eq!(program, Program::nothing());
}

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
        let is_wanted = wires.steps().contains(step) || wires.is_stray(source, step);
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
    // Every third port a step of one protocol or the other, every third one opened.
    let mut doors: Vec<Door> = (1..=u16::MAX)
        .step_by(6)
        .filter_map(|port| {
            let tcp = Step::new(Protocol::Tcp, port)?;
            let udp = Step::new(Protocol::Udp, port.saturating_add(3))?;
            Some(door(vec![tcp, udp], TcpFlags::ANY, Vec::new()))
        })
        .collect();
    for port in (2..=u16::MAX).step_by(3) {
        for protocol in ["tcp", "udp"] {
            let range = format!("{port}/{protocol}").parse().expect("a port");
            doors[0].open.push(range);
        }
    }
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
fn tripwires_over_udp_are_for_doors_with_udp_steps() {
    let (tcp_only, _) = program(TripwireMode::All, &doors(&[&["7000/tcp", "8000/tcp"]]));
    let (mixed, _) = program(TripwireMode::All, &doors(&[&["7000/tcp", "8000/udp"]]));
    let packet = Made::new("192.0.2.77", "53/udp", 0).packet();
    assert!(!passed(&tcp_only, &packet));
    assert!(passed(&mixed, &packet));
}

#[test]
fn in_mode_all_opened_ports_are_still_left_alone() {
    let mut doors = doors(&[&["7000/tcp", "8000/udp"]]);
    doors[0].open = vec![
        "22/tcp".parse().expect("a port"),
        "60000-61000/udp".parse().expect("ports"),
    ];
    let (program, _) = program(TripwireMode::All, &doors);
    for (step, is_wanted) in [
        ("22/tcp", false),
        ("23/tcp", true),
        ("60500/udp", false),
        ("61001/udp", true),
        ("60500/tcp", true),
        ("7000/tcp", true),
    ] {
        let packet = Made::new("192.0.2.77", step, flag::SYN).packet();
        assert_eq!(passed(&program, &packet), is_wanted, "{step}");
    }
}

#[test]
fn runs_are_joined_across_the_narrowest_gaps() {
    let run = |first, last| Run { first, last };
    let mut tcp = runs(|port| matches!(port, 1..=3 | 7 | 9 | 65_535));
    assert_eq!(tcp, [run(1, 3), run(7, 7), run(9, 9), run(65_535, 65_535)]);
    let mut udp = vec![run(10, 10), run(13, 13)];
    join([&mut tcp, &mut udp], 4);
    assert_eq!(tcp, [run(1, 3), run(7, 9), run(65_535, 65_535)]);
    assert_eq!(udp, [run(10, 13)]);
    join([&mut tcp, &mut udp], 0);
    assert_eq!((tcp, udp), (vec![run(1, 65_535)], vec![run(10, 13)]));
}

fn some_step() -> impl Strategy<Value = Step> {
    // Few ports, so that steps, neighbours and packets meet; and the ends of the range.
    let port = prop_oneof![1..40_u16, 1..=u16::MAX, 65_500..=u16::MAX];
    (any::<bool>(), port).prop_map(|(udp, port)| {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        Step::new(protocol, port).expect("a port")
    })
}

fn some_flags() -> impl Strategy<Value = TcpFlags> {
    prop_oneof![
        3 => Just(TcpFlags::SYN),
        1 => Just(TcpFlags::ANY),
        2 => (0_u8..64, 0_u8..64).prop_map(|(set, clear)| TcpFlags { set, clear: clear & !set }),
    ]
}

fn some_doors() -> impl Strategy<Value = Vec<Door>> {
    let sequence = prop::collection::vec(some_step(), 0..5);
    let open = prop::collection::vec(some_step(), 0..3).prop_map(|steps| {
        steps
            .iter()
            .map(|s| PortRange {
                protocol: s.protocol,
                first: s.port,
                last: s.port,
            })
            .collect()
    });
    let one = (sequence, some_flags(), open).prop_map(|(s, f, o)| door(s, f, o));
    prop::collection::vec(one, 1..5)
}

fn some_packet() -> impl Strategy<Value = Made> {
    let source = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    let extra = prop::option::of(prop_oneof![Just(0), Just(43), Just(44), Just(51), Just(60)]);
    (source, some_step(), any::<u8>(), extra).prop_map(|(source, step, flags, extra)| Made {
        source,
        step,
        flags,
        extra,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_dropped_would_have_been_ignored(
        doors in some_doors(),
        mode in prop_oneof![Just(TripwireMode::Sampled), Just(TripwireMode::All), Just(TripwireMode::Off)],
        key in any::<[u8; 16]>(),
        packets in prop::collection::vec(some_packet(), 1..40),
        hit in prop::collection::vec(any::<prop::sample::Index>(), 1..10),
    ) {
        let wires = Tripwires::new(mode, TripwireKey::new(key), &doors);
        let program = Program::new(&doors, &wires);
        prop_assert!(program.instructions().len() <= MAX_INSTRUCTIONS);
        let mut packets = packets;
        let steps: Vec<Step> = doors.iter().flat_map(|d| d.sequence.clone()).collect();
        for (i, which) in hit.iter().enumerate() {
            if let (Some(packet), false) = (packets.get_mut(i), steps.is_empty()) {
                packet.step = steps[which.index(steps.len())];
            }
        }
        for made in &packets {
            let flags_fit = |door: &Door| match made.step.protocol {
                Protocol::Tcp => door.tcp_flags.matches(made.flags),
                Protocol::Udp => true,
            };
            let is_step = doors.iter().any(|d| d.sequence.contains(&made.step) && flags_fit(d));
            let has_steps = !steps.is_empty();
            let is_stray = has_steps && wires.is_stray(made.source, made.step)
                && match made.step.protocol {
                    Protocol::Tcp => TcpFlags::SYN.matches(made.flags),
                    Protocol::Udp => doors.iter().any(Door::has_udp),
                };
            let is_passed = passed(&program, &made.packet());
            prop_assert!(is_passed || !(is_step || is_stray), "{made:?}");
            // And nothing but that where all doors ask for the same, and no header is odd.
            let plain = doors.iter().all(|d| d.tcp_flags == TcpFlags::SYN)
                && (made.extra.is_none() || made.source.is_ipv4());
            if plain {
                prop_assert_eq!(is_passed, is_step || is_stray, "{:?}", made);
            }
        }
    }

    #[test]
    fn the_search_finds_what_is_there(
        ports in prop::collection::btree_set(any::<u16>(), 0..600),
        asked in prop::collection::vec(any::<u16>(), 1..100),
    ) {
        let set = runs(|port| ports.contains(&port));
        let mut code = vec![op::load_half(0)];
        code.extend(pass_if_in(&set));
        code.push(op::DROP);
        let edges = ports.iter().flat_map(|p| [p.saturating_sub(1), *p, p.saturating_add(1)]);
        for port in edges.chain(asked) {
            let packet = Packet { protocol: 0, packet_type: 0, vlan: None, bytes: port.to_be_bytes().to_vec() };
            prop_assert_eq!(passes(&code, &packet), port != 0 && ports.contains(&port), "{}", port);
        }
    }
}
