//! The real filter on a real wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use knockd::capture::{CaptureError, Fit, Live, Program};
use knockd::decode::decode;
use knockd::model::{
    Door, Frame, Knock, LinkType, Protocol, Step, TcpFlags, Timestamp, Transport, TripwireKey,
    TripwireMode, Tripwires,
};

use super::corpus::packets;
use super::netns::{index, ip, run, run_with};
use super::wire::{HERE, Wire, knocks, knocks_until, syn, with_ring};
use crate::support::{CLIENT, ip as address};

pub(crate) fn door(sequence: Vec<Step>, tcp_flags: TcpFlags) -> Door {
    Door {
        tcp_flags,
        ..Door::new("d", sequence)
    }
}

/// A door of these TCP ports.
pub(crate) fn door_of(ports: &[u16]) -> Door {
    let steps = ports
        .iter()
        .filter_map(|port| Step::new(Protocol::Tcp, *port))
        .collect();
    door(steps, TcpFlags::SYN)
}

pub(crate) fn wires(mode: TripwireMode, doors: &[Door]) -> Tripwires {
    Tripwires::new(mode, TripwireKey::FIXED, doors)
}

/// A capture that passes the steps of these doors and nothing else.
fn watch(doors: &[Door]) -> Live {
    let mut live = with_ring();
    let fit = live.set_filter(doors, &wires(TripwireMode::Off, doors));
    assert_eq!(fit.expect("a filter"), Fit::Exact);
    live
}

/// What a packet of a capture is.
pub(crate) fn knock(packet: &[u8]) -> Option<Knock> {
    decode(&Frame {
        at: Timestamp(1),
        link: LinkType::Raw,
        wire_len: u32::try_from(packet.len()).expect("a frame"),
        data: packet,
    })
}

/// What tells knocks apart, wherever they came in.
fn what(knock: &Knock) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        knock.source,
        knock.destination,
        knock.step,
        knock.source_port,
        knock.transport,
    )
}

#[test]
fn what_decode_takes_of_every_capture_passes() {
    run("live::what_decode_takes_of_every_capture_passes", || {
        let mut wire = Wire::lay();
        let mut sent = 0;
        let mut live = with_ring();
        for (path, packets) in packets() {
            let expected: Vec<Knock> = packets.iter().filter_map(|packet| knock(packet)).collect();
            let doors: Vec<Door> = expected
                .iter()
                .map(|knock| door(vec![knock.step], TcpFlags::ANY))
                .collect();
            // A last packet, so that what comes too many is seen.
            let end = [door_of(&[1])];
            let doors = [&doors[..], &end].concat();
            live.set_filter(&doors, &wires(TripwireMode::Off, &doors))
                .expect("a filter");
            for packet in &packets {
                wire.send_packet(packet);
            }
            wire.send_packet(&syn(address("198.51.100.1"), 1, 77));
            let read = knocks(&mut live, expected.len() + 1);
            let read: Vec<_> = read.iter().map(what).collect();
            let expected: Vec<_> = expected.iter().map(what).collect();
            assert_eq!(read[..expected.len()], expected[..], "{}", path.display());
            sent += packets.len();
        }
        assert!(sent > 3_000, "{sent}");
    });
}

#[test]
fn the_kernel_takes_the_very_tripwires_of_the_matcher() {
    run(
        "live::the_kernel_takes_the_very_tripwires_of_the_matcher",
        || {
            let mut wire = Wire::lay();
            let doors = [door_of(&[7000, 8000, 9000])];
            let wires = wires(TripwireMode::Sampled, &doors);
            let mut live = with_ring();
            live.set_filter(&doors, &wires).expect("a filter");
            for source in [CLIENT[0], CLIENT[1], "fe80::1"] {
                let source = address(source);
                let mut expected = Vec::new();
                let mut read = Vec::new();
                for port in 1..=u16::MAX {
                    let step = Step::new(Protocol::Tcp, port).expect("a port");
                    if wires.is_tripwire(source, step) || wires.steps().contains(step) {
                        expected.push(port);
                    }
                    wire.send_packet(&syn(source, port, 1));
                    if port % 1_000 == 0 {
                        live.read(Timestamp(1), 10_000, |frame| read.extend(decode(frame)))
                            .expect("frames");
                    }
                }
                let left = expected.len() - read.len();
                read.extend(knocks_until(&mut live, |knocks| knocks.len() >= left));
                let read: Vec<u16> = read.iter().map(|knock| knock.step.port.get()).collect();
                assert_eq!(read, expected);
                assert!((950..1_150).contains(&read.len()), "{}", read.len());
            }
        },
    );
}

#[test]
fn a_frame_counts_where_the_kernel_gives_it_for_good() {
    run(
        "live::a_frame_counts_where_the_kernel_gives_it_for_good",
        || {
            let mut wire = Wire::lay();
            let mut live = watch(&[door_of(&[7000])]);
            let packet = |sequence| syn(address(CLIENT[0]), 7000, sequence);
            let other = [2, 0, 0, 0, 0, 9];
            wire.send(HERE, &[8, 0], &packet(0));
            wire.send([0xff; 6], &[8, 0], &packet(1));
            // For another host; in VLAN 10, and in VLAN 10 of VLAN 20.
            wire.send(other, &[8, 0], &packet(2));
            wire.send(HERE, &[0x81, 0, 0, 10, 8, 0], &packet(3));
            wire.send(HERE, &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10, 8, 0], &packet(4));
            // VLAN 0 is none.
            wire.send(HERE, &[0x81, 0, 0xe0, 0, 8, 0], &packet(5));
            // A PPPoE session.
            wire.send(
                HERE,
                &[0x88, 0x64, 0x11, 0, 0, 1, 0, 42, 0, 0x21],
                &packet(6),
            );
            wire.send(HERE, &[8, 0], &packet(7));
            let read = knocks(&mut live, 4);
            let sequences: Vec<u32> = read
                .iter()
                .map(|knock| match knock.transport {
                    Transport::Tcp { sequence, .. } => sequence,
                    Transport::Udp { .. } => u32::MAX,
                })
                .collect();
            assert_eq!(sequences, [0, 1, 5, 7]);
            let here = Some(index("here"));
            assert!(read.iter().all(|knock| knock.interface == here));
        },
    );
}

#[test]
fn an_interface_made_later_is_heard() {
    run("live::an_interface_made_later_is_heard", || {
        let mut live = watch(&[door_of(&[7000])]);
        for _ in 0..3 {
            let mut wire = Wire::lay();
            wire.send_packet(&syn(address(CLIENT[0]), 7000, 1));
            assert_eq!(knocks(&mut live, 1)[0].interface, Some(index("here")));
            ip("link del here");
        }
    });
}

#[test]
fn a_filter_takes_the_place_of_another_with_no_gap() {
    run(
        "live::a_filter_takes_the_place_of_another_with_no_gap",
        || {
            let mut wire = Wire::lay();
            let doors = [door_of(&[7000]), door_of(&[8000, 8500]), door_of(&[9000])];
            let mut live = watch(&doors);
            let enough = Arc::new(AtomicBool::new(false));
            let is_enough = Arc::clone(&enough);
            let sender = std::thread::spawn(move || {
                let mut sent = 0;
                while sent < 20_000 || !is_enough.load(Ordering::Relaxed) {
                    wire.send_packet(&syn(address(CLIENT[0]), 7000, sent));
                    sent += 1;
                }
                sent as usize
            });
            let (mut read, mut filters) = (0, 0);
            while !sender.is_finished() {
                let with = &doors[..1 + filters % 3];
                live.set_filter(with, &wires(TripwireMode::Sampled, with))
                    .expect("a filter");
                filters += 1;
                enough.store(filters > 10, Ordering::Relaxed);
                read += live.read(Timestamp(1), 10_000, |_| ()).expect("frames");
            }
            let sent = sender.join().expect("all sent");
            while live
                .read(Timestamp(1), 10_000, |_| read += 1)
                .expect("frames")
                > 0
            {}
            // On a busy machine the ring may run over; what it lost it has counted.
            let dropped = usize::try_from(live.dropped().expect("statistics")).expect("few");
            assert_eq!(read + dropped, sent);
        },
    );
}

#[test]
fn packets_that_find_no_room_are_counted() {
    run("live::packets_that_find_no_room_are_counted", || {
        let mut wire = Wire::lay();
        let mut live = watch(&[door_of(&[7000])]);
        let mut dropped_before = 0;
        for _ in 0..2 {
            for sequence in 0..10_000 {
                wire.send_packet(&syn(address(CLIENT[0]), 7000, sequence));
            }
            let dropped = live.dropped().expect("statistics");
            let read = knocks_until(&mut live, |_| true).len() as u64;
            assert_eq!(read + dropped - dropped_before, 10_000);
            assert!(read > 7_000, "{read}");
            assert!(dropped > dropped_before);
            dropped_before = dropped;
        }
        assert_eq!(live.dropped().expect("statistics"), dropped_before);
    });
}

/// So small are the kernel's limits before Linux 6.7 (and in Debian 12).
#[test]
fn where_the_kernel_has_little_room_the_filter_is_coarser() {
    run(
        "live::where_the_kernel_has_little_room_the_filter_is_coarser",
        || {
            let limit = "/proc/sys/net/core/optmem_max";
            std::fs::write(limit, "20480").expect("the namespace's own limit");
            let mut wire = Wire::lay();
            let doors: Vec<Door> = (0..500)
                .map(|i| door_of(&[30 + i * 130, 70 + i * 130, 110 + i * 130]))
                .collect();
            let mut live = with_ring();
            for _ in 0..3 {
                let fit = live.set_filter(&doors, &wires(TripwireMode::Sampled, &doors));
                assert_eq!(fit.expect("a filter"), Fit::Coarse);
            }
            let few = &doors[..100];
            let fit = live.set_filter(few, &wires(TripwireMode::Sampled, few));
            assert_eq!(fit.expect("a filter"), Fit::Exact);
            wire.send_packet(&syn(address(CLIENT[0]), 30, 1));
            knocks(&mut live, 1);
        },
    );
}

/// Of programs that fill that room almost, none fits beside the short one that passes all.
#[test]
fn where_the_kernel_has_little_room_any_filter_can_be_replaced() {
    let name = "live::where_the_kernel_has_little_room_any_filter_can_be_replaced";
    run(name, || {
        let limit = "/proc/sys/net/core/optmem_max";
        std::fs::write(limit, "20480").expect("the namespace's own limit");
        let few = [door_of(&[7000])];
        let off = wires(TripwireMode::Off, &few);
        let mut coarse = 0;
        for count in 815..845 {
            // Nothing smaller has been there before.
            let mut live = with_ring();
            let ports: Vec<u16> = (0..count).map(|i| 100 + i * 3).collect();
            let many = [door_of(&ports)];
            let fit = live.set_filter(&many, &wires(TripwireMode::Off, &many));
            coarse += usize::from(fit.expect("a filter") == Fit::Coarse);
            let fit = live.set_filter(&few, &off).expect("the shorter one");
            assert_eq!(fit, Fit::Exact, "after {count}");
        }
        assert!(
            (1..30).contains(&coarse),
            "the limit lies elsewhere: {coarse}"
        );
    });
}

#[test]
fn a_missing_capability_is_named() {
    // Root of a new user namespace has no rights in the network it was born in.
    run_with(
        &["-r"],
        "live::a_missing_capability_is_named",
        || match Live::open() {
            Err(CaptureError::Capability { capability }) => {
                assert_eq!(capability, "CAP_NET_RAW");
            }
            other => panic!("{:?}", other.err()),
        },
    );
}

#[test]
fn the_kernel_takes_the_longest_program() {
    run("live::the_kernel_takes_the_longest_program", || {
        let doors: Vec<Door> = (0..10_000).map(|i| door_of(&[1 + i * 6])).collect();
        let all = wires(TripwireMode::Sampled, &doors);
        assert!(Program::new(&doors, &all).instructions().len() > 3_000);
        let mut live = Live::open().expect("a capture");
        let fit = live.set_filter(&doors, &all).expect("a filter");
        assert_eq!(fit, Fit::Exact);
    });
}
