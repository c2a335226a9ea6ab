//! The real filter on a real wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use knockd::capture::{CaptureError, Fit, Live, Program};
use knockd::decode::decode;
use knockd::model::{
    Door, Frame, Knock, LinkType, Protocol, Step, TcpFlags, Timestamp, Transport, TripwireKey,
    TripwireMode, Tripwires,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::corpus::packets;
use super::netns::{index, ip, run, run_with};
use super::wire::{HERE, Wire, knocks, knocks_until, syn, with_ring};
use crate::support::{CLIENT, SOON, ip as address};

fn door(sequence: Vec<Step>, tcp_flags: TcpFlags) -> Door {
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

fn wires(mode: TripwireMode, doors: &[Door]) -> Tripwires {
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
fn knock(packet: &[u8]) -> Option<Knock> {
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

/// Everything a frame says.
fn whole(frame: &Frame<'_>) -> (LinkType, u32, Vec<u8>) {
    (frame.link, frame.wire_len, frame.data.to_vec())
}

#[test]
fn before_the_ring_is_there_the_very_same_is_heard() {
    let name = "live::before_the_ring_is_there_the_very_same_is_heard";
    run(name, || {
        let mut wire = Wire::lay();
        let mut ring = with_ring();
        let mut compared = 0;
        for (path, packets) in packets() {
            // So few that they are all there before a ring can be.
            for packets in packets.chunks(50) {
                let doors: Vec<Door> = packets
                    .iter()
                    .filter_map(|packet| knock(packet))
                    .map(|knock| door(vec![knock.step], TcpFlags::ANY))
                    .collect();
                let wires = wires(TripwireMode::Off, &doors);
                ring.set_filter(&doors, &wires).expect("a filter");
                let end = Instant::now() + SOON;
                loop {
                    let mut live = Live::open().expect("a capture");
                    live.set_filter(&doors, &wires).expect("a filter");
                    for packet in packets {
                        wire.send_packet(packet);
                    }
                    let mut read = [Vec::new(), Vec::new()];
                    for (live, read) in [&mut ring, &mut live].into_iter().zip(&mut read) {
                        live.read(Timestamp(1), 1_000, |frame| read.push(whole(frame)))
                            .expect("frames");
                    }
                    let [with, without] = read;
                    if !live.has_ring() {
                        assert_eq!(without, with, "{}", path.display());
                        compared += with.len();
                        break;
                    }
                    assert!(Instant::now() < end, "the ring is always there first");
                }
            }
        }
        assert!(compared > 500, "{compared}");
    });
}

#[test]
fn when_the_ring_takes_over_nothing_is_missed() {
    run("live::when_the_ring_takes_over_nothing_is_missed", || {
        let mut wire = Wire::lay();
        let doors = [door_of(&[7000])];
        let [sent, allowed] = [const { AtomicU32::new(0) }; 2].map(Arc::new);
        let is_over = Arc::new(AtomicBool::new(false));
        let (counts, may, over) = (sent.clone(), allowed.clone(), is_over.clone());
        let sender = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if counts.load(Ordering::Relaxed) < may.load(Ordering::Relaxed) {
                    let number = counts.fetch_add(1, Ordering::Relaxed);
                    wire.send_packet(&syn(address(CLIENT[0]), 7000, number));
                }
            }
        });
        // No more than there is room for.
        let allow = |from: u32| allowed.store(from + 500, Ordering::Relaxed);
        for _ in 0..20 {
            let mut live = Live::open().expect("a capture");
            live.set_filter(&doors, &wires(TripwireMode::Off, &doors))
                .expect("a filter");
            allow(sent.load(Ordering::Relaxed));
            let mut read: Vec<u32> = Vec::new();
            let end = Instant::now() + SOON;
            let mut with_ring = 0;
            while with_ring < 1_000 {
                let before = read.len();
                live.read(Timestamp(1), 1_000, |frame| {
                    let Some(Transport::Tcp { sequence, .. }) = decode(frame).map(|k| k.transport)
                    else {
                        panic!("{frame:?}");
                    };
                    allow(sequence);
                    read.push(sequence);
                })
                .expect("frames");
                if live.has_ring() {
                    with_ring += read.len() - before;
                }
                assert!(Instant::now() < end, "{} packets", read.len());
            }
            read.sort_unstable();
            let count = read.len();
            read.dedup();
            let (first, last) = (read[0], read[read.len() - 1]);
            assert_eq!(read.len(), (last - first + 1) as usize, "some are missing");
            // Once and no more, but for a moment.
            assert!(count - read.len() <= 500, "{count}");
        }
        is_over.store(true, Ordering::Relaxed);
        sender.join().expect("a sender");
    });
}

#[test]
fn the_bell_rings_for_steps_alone_and_once_it_is_set() {
    let name = "live::the_bell_rings_for_steps_alone_and_once_it_is_set";
    run(name, || {
        let mut wire = Wire::lay();
        let doors = [door_of(&[7000, 8000, 9000])];
        let mut live = with_ring();
        live.set_filter(&doors, &wires(TripwireMode::Sampled, &doors))
            .expect("a filter");
        let mut send = |port| wire.send_packet(&syn(address(CLIENT[0]), port, 1));
        let count = |live: &mut Live| live.read(Timestamp(1), 1_000, |_| ()).expect("frames");
        let is_readable = |live: &Live| {
            let bell = live.bell().expect("a bell");
            let mut fds = [PollFd::new(bell, PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).expect("poll") == 1
        };
        assert!(live.bell().is_none());
        send(7000);
        assert!(!live.hush(), "it was not set");
        assert!(live.set_bell(true).expect("a filter"));
        assert!(!live.set_bell(true).expect("a filter"), "it was set");
        // What came before it was set is read all the same, and does not ring it.
        assert!(!is_readable(&live));
        assert_eq!(count(&mut live), 1);
        for round in 0..3 {
            // A tripwire, being beside a step.
            send(7001);
            assert!(!is_readable(&live), "{round}");
            assert!(!live.hush(), "{round}");
            assert_eq!(count(&mut live), 1, "{round}");
            for port in [7000, 8000, 9000] {
                send(port);
                assert!(is_readable(&live), "{round} {port}");
            }
            assert!(live.hush(), "{round}");
            assert!(!is_readable(&live), "{round}");
            assert_eq!(count(&mut live), 3, "{round}");
        }
        // It follows the doors.
        let other = [door_of(&[7001, 8001])];
        live.set_filter(&other, &wires(TripwireMode::Sampled, &other))
            .expect("a filter");
        send(7000);
        assert!(!live.hush());
        send(7001);
        assert!(live.hush());
        send(7001);
        assert!(live.set_bell(false).expect("a filter"));
        assert!(live.bell().is_none());
        assert!(!live.hush());
        let mut young = Live::open().expect("a capture");
        if !young.set_bell(true).expect("a filter") {
            assert!(young.bell().is_none());
            assert!(!young.has_ring());
        }
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
