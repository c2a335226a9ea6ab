//! The real filter on a real wire.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use knockd::capture::{CaptureError, LiveCapture, Program, SocketFilter};
use knockd::decode::decode;
use knockd::model::{
    Door, Frame, Knock, LinkType, PortRange, Protocol, Step, TcpFlags, Timestamp, Transport, flag,
};

use super::corpus::packets;
use super::netns::{index, ip, run, run_with};
use super::wire::{HERE, Wire, knocks, knocks_until, syn};
use crate::support::{CLIENT, ip as address};

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

fn range(text: &str) -> PortRange {
    text.parse().expect("a range")
}

/// A capture that passes what these doors may take.
pub(crate) fn watch(doors: &[Door]) -> LiveCapture {
    let live = LiveCapture::open().expect("a capture");
    filter_of(&live).set_filter(doors, &[]).expect("a filter");
    live
}

/// The filter of a capture, as the daemon sets it from another process.
fn filter_of(live: &LiveCapture) -> SocketFilter {
    SocketFilter::new(live.socket().expect("a socket"))
}

/// Decodes a packet of a capture.
fn knock(packet: &[u8]) -> Option<Knock> {
    decode(&Frame {
        at: Timestamp(1),
        link: LinkType::Raw,
        wire_len: u32::try_from(packet.len()).expect("a frame"),
        data: packet,
    })
}

/// The fields that tell knocks apart, whichever interface they came in by.
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
        let mut live = LiveCapture::open().expect("a capture");
        let mut filter = filter_of(&live);
        for (path, packets) in packets() {
            let expected: Vec<Knock> = packets.iter().filter_map(|packet| knock(packet)).collect();
            let doors: Vec<Door> = expected
                .iter()
                .map(|knock| door(vec![knock.step], TcpFlags::ANY))
                .collect();
            // A last packet, so that what comes too many is seen.
            let end = [door_of(&[1])];
            let doors = [&doors[..], &end].concat();
            filter.set_filter(&doors, &[]).expect("a filter");
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
fn every_port_is_heard_but_those_that_are_opened_or_ignored() {
    let name = "live::every_port_is_heard_but_those_that_are_opened_or_ignored";
    run(name, || {
        let mut wire = Wire::lay();
        let mut doors = [door_of(&[7000, 8000, 9000])];
        doors[0].open = ["22/tcp", "30000-30010/tcp", "53/udp"].map(range).into();
        let ignore = ["1/tcp", "443/tcp", "65535/tcp", "80/udp"].map(range);
        let is_left_alone = |port| {
            let step = Step::new(Protocol::Tcp, port).expect("a port");
            let mut all = doors[0].open.iter().chain(&ignore);
            all.any(|range| range.contains(step))
        };
        let expected: Vec<u16> = (1..=u16::MAX)
            .filter(|port| !is_left_alone(*port))
            .collect();
        assert_eq!(expected.len(), 65_535 - 15);
        let mut live = LiveCapture::open().expect("a capture");
        let mut filter = filter_of(&live);
        filter.set_filter(&doors, &ignore).expect("a filter");
        for source in [CLIENT[0], CLIENT[1], "fe80::1"] {
            let mut read: Vec<Knock> = Vec::new();
            for port in 1..=u16::MAX {
                wire.send_packet(&syn(address(source), port, 1));
                if port % 1_000 == 0 {
                    live.read(Timestamp(1), 10_000, |frame| read.extend(decode(frame)))
                        .expect("frames");
                }
            }
            let left = expected.len() - read.len();
            read.extend(knocks_until(&mut live, |knocks| knocks.len() >= left));
            let read: Vec<u16> = read.iter().map(|knock| knock.step.port.get()).collect();
            assert!(read == expected, "{source}: {} read", read.len());
        }
    });
}

#[test]
fn nothing_is_read_before_there_is_a_filter() {
    run("live::nothing_is_read_before_there_is_a_filter", || {
        let mut wire = Wire::lay();
        let mut live = LiveCapture::open().expect("a capture");
        let mut filter = filter_of(&live);
        let mut send = |sequence| wire.send_packet(&syn(address(CLIENT[0]), 7000, sequence));
        send(1);
        assert_eq!(live.read(Timestamp(1), 1_000, |_| ()).expect("frames"), 0);
        filter
            .set_filter(&[door_of(&[7000])], &[])
            .expect("a filter");
        send(2);
        let Transport::Tcp { sequence, .. } = knocks(&mut live, 1)[0].transport else {
            panic!("a datagram");
        };
        assert_eq!(sequence, 2);
    });
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
            let doors = ["22/tcp", "443/tcp", "53/udp"].map(|open| Door {
                open: [range(open)].into(),
                ..door(vec!["8000/udp".parse().expect("a step")], TcpFlags::SYN)
            });
            let programs = [1, 2, 3].map(|with| Program::new(&doors[..with], &[]));
            assert!(programs[0] != programs[1] && programs[1] != programs[2]);
            let mut live = LiveCapture::open().expect("a capture");
            let mut filter = filter_of(&live);
            filter.set_filter(&doors, &[]).expect("a filter");
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
                filter.set_filter(with, &[]).expect("a filter");
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
            for sequence in 0..15_000 {
                wire.send_packet(&syn(address(CLIENT[0]), 7000, sequence));
            }
            let dropped = live.dropped().expect("statistics");
            let read = knocks_until(&mut live, |_| true).len() as u64;
            assert_eq!(read + dropped - dropped_before, 15_000);
            assert!((10_000..11_000).contains(&read), "{read}");
            dropped_before = dropped;
        }
        assert_eq!(live.dropped().expect("statistics"), dropped_before);
    });
}

/// Doors that make the program as long as it can be: many flags, and many ports in no row. They
/// open this port and others.
fn longest(opened: u16) -> Vec<Door> {
    let every_third = |from: u16, count| (from..).step_by(3).take(count);
    let by_class = (0..64).filter(|set| set & flag::ACK == 0 && *set != flag::SYN);
    let by_class = by_class.take(14).map(|set| TcpFlags {
        set,
        clear: flag::ACK,
    });
    let at_ports = (0..64).filter(|set| set & flag::ACK != 0 && set & flag::SYN == 0);
    let at_ports = at_ports.map(|set| TcpFlags { set, clear: 0 });
    let mut doors: Vec<Door> = by_class
        .chain(at_ports)
        .map(|flags| door(Vec::new(), flags))
        .collect();
    for (number, port) in every_third(30_000, 128).enumerate() {
        // Among the last 16 are those whose flags fit sessions.
        let door = doors.iter_mut().rev().nth(number % 16).expect("a door");
        let steps = door.sequence.iter().copied();
        door.sequence = steps.chain(Step::new(Protocol::Tcp, port)).collect();
    }
    doors[0].sequence = ["8000/udp".parse().expect("a step")].into();
    let open = |port| ["tcp", "udp"].map(|protocol| range(&format!("{port}/{protocol}")));
    doors[0].open = every_third(opened, 32).flat_map(open).collect();
    doors
}

/// So small are the kernel's limits before Linux 6.7 (and in Debian 12).
#[test]
fn where_the_kernel_has_little_room_the_longest_filters_replace_each_other() {
    let name = "live::where_the_kernel_has_little_room_the_longest_filters_replace_each_other";
    run(name, || {
        let limit = "/proc/sys/net/core/optmem_max";
        std::fs::write(limit, "20480").expect("the namespace's own limit");
        let mut wire = Wire::lay();
        let opened = [1_000, 2_001];
        let doors = opened.map(longest);
        for doors in &doors {
            let length = Program::new(doors, &[]).instructions().len();
            assert!(length > 550, "no longer the longest: {length}");
        }
        let mut live = LiveCapture::open().expect("a capture");
        let mut filter = filter_of(&live);
        // As many addresses as are looked at, that of the packets among them.
        let four = (1..25_u8).map(|n| IpAddr::from([192, 0, 2, n]));
        let six = (1..25_u128).map(|n| IpAddr::from(n.to_be_bytes()));
        filter
            .set_hosts(four.chain(six).collect())
            .expect("a filter");
        for round in 0..10 {
            let which = round % 2;
            filter.set_filter(&doors[which], &[]).expect("a filter");
            for port in opened {
                wire.send_packet(&syn(address(CLIENT[0]), port, 1));
            }
            let heard = knocks(&mut live, 1)[0].step.port.get();
            assert_eq!(heard, opened[1 - which], "{round}");
        }
    });
}

#[test]
fn a_missing_capability_is_named() {
    // Root of a new user namespace has no rights in the network it was born in.
    run_with(
        &["-r"],
        "live::a_missing_capability_is_named",
        || match LiveCapture::open() {
            Err(CaptureError::Capability { capability }) => {
                assert_eq!(capability, "CAP_NET_RAW");
            }
            other => panic!("{:?}", other.err()),
        },
    );
}
