//! What the program does not depend on, and what holds of everything that it drops.

use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::super::choice::Rows;
use super::super::op::{self, DROP, PASS};
use super::super::{Instruction, MAX_INSTRUCTIONS};
use super::*;
use crate::model::{TripwireMode, Tripwires, flag, is_of_no_session};

fn some_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn some_port() -> impl Strategy<Value = u16> {
    // Few ports, so that steps, neighbours and packets meet; and the ends of the range.
    prop_oneof![1..40_u16, 1..=u16::MAX, 65_500..=u16::MAX]
}

fn some_step() -> impl Strategy<Value = Step> {
    (some_protocol(), some_port())
        .prop_map(|(protocol, port)| Step::new(protocol, port).expect("a port"))
}

fn some_range() -> impl Strategy<Value = PortRange> {
    (some_step(), 0..100_u16).prop_map(|(step, more)| PortRange {
        protocol: step.protocol,
        first: step.port,
        last: step.port.saturating_add(more),
    })
}

fn some_ranges() -> impl Strategy<Value = Vec<PortRange>> {
    prop::collection::vec(some_range(), 0..4)
}

fn some_flags() -> impl Strategy<Value = TcpFlags> {
    prop_oneof![
        3 => Just(TcpFlags::SYN),
        1 => Just(TcpFlags::ANY),
        2 => (0_u8..64, 0_u8..64).prop_map(|(set, clear)| TcpFlags { set, clear: clear & !set }),
    ]
}

/// Flags that fit no packet of a session.
fn some_flags_without_sessions() -> impl Strategy<Value = TcpFlags> {
    some_flags().prop_map(|flags| match flags.fits_sessions() {
        false => flags,
        true => TcpFlags {
            set: flags.set & !flag::ACK,
            clear: flags.clear | flag::ACK,
        },
    })
}

/// A door but for the numbers of its steps.
#[derive(Debug, Clone)]
struct Shape {
    protocols: Vec<Protocol>,
    flags: TcpFlags,
    open: Vec<PortRange>,
    is_one_time: bool,
}

impl Shape {
    fn door(&self, ports: &[u16]) -> Door {
        let steps = self.protocols.iter().zip(ports);
        let steps = steps.filter_map(|(protocol, port)| Step::new(*protocol, *port));
        let door = door(steps.collect(), self.flags, self.open.clone());
        let one_time = self.is_one_time.then(|| OneTime {
            file: "/etc/sequences".into(),
        });
        Door { one_time, ..door }
    }
}

const STEPS: RangeInclusive<usize> = 1..=5;

fn some_shape(flags: impl Strategy<Value = TcpFlags>) -> impl Strategy<Value = Shape> {
    (
        prop::collection::vec(some_protocol(), STEPS),
        flags,
        some_ranges(),
        any::<bool>(),
    )
        .prop_map(|(protocols, flags, open, is_one_time)| Shape {
            protocols,
            flags,
            open,
            is_one_time,
        })
}

fn some_ports() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(some_port(), *STEPS.end())
}

/// Doors, others that differ from them in the numbers of the steps alone, and the ports that are
/// ignored.
fn twins(
    flags: impl Strategy<Value = TcpFlags>,
) -> impl Strategy<Value = ([Vec<Door>; 2], Vec<PortRange>)> {
    let twin = (some_shape(flags), some_ports(), some_ports())
        .prop_map(|(shape, one, other)| (shape.door(&one), shape.door(&other)));
    let doors = prop::collection::vec(twin, 1..6).prop_map(|twins| {
        let (one, other) = twins.into_iter().unzip();
        [one, other]
    });
    (doors, some_ranges())
}

fn some_doors() -> impl Strategy<Value = Vec<Door>> {
    let one =
        (some_shape(some_flags()), some_ports()).prop_map(|(shape, ports)| shape.door(&ports));
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

fn some_packets() -> impl Strategy<Value = Vec<Made>> {
    prop::collection::vec(some_packet(), 1..40)
}

/// Takes away what the check of the configuration refuses: steps that are opened or ignored.
fn without_steps(ranges: &[PortRange], steps: &[Step]) -> Vec<PortRange> {
    let has_step = |range: &PortRange| steps.iter().any(|step| range.contains(*step));
    ranges
        .iter()
        .filter(|range| !has_step(range))
        .copied()
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The time that the kernel takes tells no step.
    #[test]
    fn the_program_is_the_same_whatever_the_sequences_are(
        ([one, other], ignore) in twins(some_flags_without_sessions()),
    ) {
        let program = Program::new(&one, &ignore);
        prop_assert_eq!(&program, &Program::new(&other, &ignore));
        // Nor how many doors there are, or in which order.
        let mut all = [other, one].concat();
        all.reverse();
        prop_assert_eq!(&program, &Program::new(&all, &ignore));
        // One-time sequences may be used up, too.
        for door in all.iter_mut().filter(|door| door.one_time.is_some()) {
            door.sequence = Box::default();
        }
        prop_assert_eq!(&program, &Program::new(&all, &ignore));
    }

    #[test]
    fn what_belongs_to_no_session_passes_whatever_the_sequences_are(
        (doors, ignore) in twins(some_flags()),
        packets in some_packets(),
    ) {
        let programs = doors.map(|doors| Program::new(&doors, &ignore));
        for mut made in packets {
            if !TcpFlags::SYN.matches(made.flags) {
                made.flags &= !(flag::ACK | flag::RST);
            }
            let [one, other] = programs.each_ref().map(|p| passed(p, &made.packet()));
            prop_assert_eq!(one, other, "{:?}", made);
        }
    }

    #[test]
    fn what_is_dropped_would_have_been_ignored(
        doors in some_doors(),
        ignore in some_ranges(),
        mode in prop_oneof![Just(TripwireMode::On), Just(TripwireMode::Off)],
        packets in some_packets(),
        hit in prop::collection::vec(any::<prop::sample::Index>(), 1..10),
    ) {
        let mut doors = doors;
        let steps: Vec<Step> = doors.iter().flat_map(|d| d.sequence.clone()).collect();
        for door in &mut doors {
            door.open = without_steps(&door.open, &steps).into();
        }
        let ignore = without_steps(&ignore, &steps);
        let wires = Tripwires::new(mode, &ignore, &doors);
        let program = Program::new(&doors, &ignore);
        let mut packets = packets;
        for (packet, which) in packets.iter_mut().zip(&hit) {
            packet.step = *which.get(&steps);
        }
        for made in &packets {
            let takes = |door: &Door| match made.step.protocol {
                Protocol::Tcp => door.tcp_flags.matches(made.flags),
                Protocol::Udp => true,
            };
            let is_step = doors.iter().any(|d| d.sequence.contains(&made.step) && takes(d));
            let may_be_stray = match made.step.protocol {
                Protocol::Tcp => {
                    let no_session = is_of_no_session(made.flags);
                    let counts = |d: &Door| takes(d) && (no_session || !d.tcp_flags.fits_sessions());
                    TcpFlags::SYN.matches(made.flags) || doors.iter().any(counts)
                }
                Protocol::Udp => doors.iter().any(|d| d.uses(Protocol::Udp)),
            };
            let is_stray = may_be_stray && wires.is_tripwire(made.step);
            let is_passed = passed(&program, &made.packet());
            prop_assert!(is_passed || !(is_step || is_stray), "{made:?}");
            // And nothing but that where all doors ask for SYNs, and no header is odd.
            let plain = doors.iter().all(|d| d.tcp_flags == TcpFlags::SYN && d.one_time.is_none())
                && mode == TripwireMode::On
                && (made.extra.is_none() || made.source.is_ipv4());
            if plain {
                prop_assert_eq!(is_passed, is_step || is_stray, "{:?}", made);
            }
        }
    }

    #[test]
    fn of_sessions_no_packet_passes_but_to_steps_of_doors_that_take_it(
        doors in some_doors(),
        packets in some_packets(),
    ) {
        let program = program(&doors);
        prop_assert!(Program::keeps_to_ports(&doors));
        for mut made in packets {
            made.step.protocol = Protocol::Tcp;
            made.flags = made.flags & !flag::SYN | flag::ACK;
            made.extra = None;
            let takes = |door: &Door| door.tcp_flags.matches(made.flags);
            let has_step = |door: &Door| {
                door.tcp_flags.fits_sessions() && door.sequence.contains(&made.step)
            };
            let is_wanted = doors.iter().any(takes) && doors.iter().any(has_step);
            prop_assert_eq!(passed(&program, &made.packet()), is_wanted, "{:?}", made);
        }
    }

    #[test]
    fn the_search_finds_what_is_there_and_nothing_else(
        ranges in some_numbers(),
        asked in prop::collection::vec(any::<u16>(), 1..100),
    ) {
        let rows = Rows::new(ranges.iter().copied());
        let [found, missed] = [(PASS, DROP), (DROP, PASS)].map(|(inside, outside)| {
            let mut code = vec![op::load_half(0)];
            code.extend(rows.choose(inside, outside));
            code
        });
        prop_assert!(found.len() <= 1 + rows.len() * 2 + 2);
        let edges = ranges.iter().flat_map(|(first, last)| {
            [first.wrapping_sub(1), *first, *last, last + 1].map(|edge| edge as u16)
        });
        for number in edges.chain(asked).chain([0, u16::MAX]) {
            let is_there = ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&number.into()));
            prop_assert_eq!(returns(&found, number), is_there, "{}", number);
            prop_assert_eq!(returns(&missed, number), !is_there, "{}", number);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn no_program_is_too_long(
        doors in prop::collection::vec(
            (some_shape(some_flags()), some_ports(), prop::collection::vec(some_range(), 0..40)),
            0..60,
        ),
        ignore in prop::collection::vec(some_range(), 0..60),
    ) {
        let doors: Vec<Door> = doors
            .into_iter()
            .map(|(shape, ports, open)| Shape { open, ..shape }.door(&ports))
            .collect();
        let length = Program::new(&doors, &ignore).instructions().len();
        prop_assert!(length <= MAX_INSTRUCTIONS, "{length}");
    }
}

/// First and last of up to 128 ranges, which may be 0 and 65,535.
fn some_numbers() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let number = || prop_oneof![1 => 0..60_u16, 5 => any::<u16>(), 1 => 65_500..=u16::MAX];
    let single = number().prop_map(|number| (number, number));
    let few = (number(), 0..20_u16).prop_map(|(first, more)| (first, first.saturating_add(more)));
    let wide = (number(), number()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let rows = prop_oneof![
        prop::collection::vec(single, 0..=128),
        prop::collection::vec(few, 0..=128),
        prop::collection::vec(wide, 0..10),
    ];
    let wider = |(first, last): (u16, u16)| (first.into(), last.into());
    rows.prop_map(move |rows| rows.into_iter().map(wider).collect())
}

/// Whether the code passes a packet that consists of this number.
fn returns(code: &[Instruction], number: u16) -> bool {
    let packet = Packet {
        protocol: 0,
        packet_type: 0,
        vlan: None,
        bytes: number.to_be_bytes().to_vec(),
    };
    passes(code, &packet)
}
