//! What is dropped the matcher would have ignored.

use proptest::prelude::*;

use super::super::ports::{pass_if_in, runs};
use super::super::{MAX_INSTRUCTIONS, op};
use super::*;

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
            let is_mine = |door: &Door| door.uses(made.step.protocol) && flags_fit(door);
            let is_stray = has_steps && wires.is_tripwire(made.source, made.step)
                && match made.step.protocol {
                    Protocol::Tcp => TcpFlags::SYN.matches(made.flags),
                    Protocol::Udp => doors.iter().any(is_mine),
                }
                // Beside a step the door's own flags count too.
                || wires.is_near(made.step) && doors.iter().any(is_mine);
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
        let set = runs(ports.iter().copied().filter_map(NonZeroU16::new));
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
