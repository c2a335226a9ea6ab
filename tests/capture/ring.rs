//! Before the ring is there, when it comes, and what the socket that heard before it is then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use knockd::capture::{CaptureError, Live, Program};
use knockd::decode::decode;
use knockd::model::{
    Door, Frame, LinkType, Protocol, TcpFlags, Timestamp, Transport, TripwireMode,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockFilter, SockRef};

use super::corpus::packets;
use super::live::{door, door_of, knock, wires};
use super::netns::{run, run_without_threads};
use super::wire::{Wire, knocks, syn, with_ring};
use crate::support::{CLIENT, SOON, ip as address};

/// Everything a frame says.
type Whole = (LinkType, u32, Vec<u8>);

fn whole(frame: &Frame<'_>) -> Whole {
    (frame.link, frame.wire_len, frame.data.to_vec())
}

#[test]
fn without_a_ring_the_very_same_is_heard() {
    let name = "ring::without_a_ring_the_very_same_is_heard";
    run_without_threads(name, || {
        let mut wire = Wire::lay();
        let mut live = Live::open().expect("a capture");
        let refusal = loop {
            match live.read(Timestamp(1), 1_000, |_| ()) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(refusal, CaptureError::Ring { .. }), "{refusal}");
        // What libpcap gives, as it is to be.
        let pcap = pcap::Capture::from_device("any").expect("libpcap");
        let pcap = pcap.immediate_mode(true).snaplen(192).open();
        let mut pcap = pcap.expect("a packet socket").setnonblock().expect("it");
        pcap.set_datalink(pcap::Linktype(276)).expect("cooked v2");
        let mut compared = 0;
        for (path, packets) in packets() {
            let doors: Vec<Door> = packets
                .iter()
                .filter_map(|packet| knock(packet))
                .map(|knock| door(vec![knock.step], TcpFlags::ANY))
                .collect();
            let wires = wires(TripwireMode::Off, &doors);
            live.set_filter(&doors, &wires).expect("a filter");
            let program = Program::new(&doors, &wires);
            let filter = program.instructions().iter();
            let filter: Vec<_> = filter
                .map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k))
                .collect();
            SockRef::from(&pcap)
                .attach_filter(&filter)
                .expect("a filter");
            // What it had let in before.
            while pcap.dispatch(None, |_| ()).expect("frames") > 0 {}
            for packets in packets.chunks(50) {
                let mut with = Vec::new();
                let mut without = Vec::new();
                // A last one that passes, so that it is known when all have come.
                let end = doors.first().map(|door| door.sequence[0]);
                let Some(end) = end.filter(|step| step.protocol == Protocol::Tcp) else {
                    continue;
                };
                let end = syn(address("198.51.100.1"), end.port.get(), 77);
                for packet in packets.iter().chain([&end]) {
                    wire.send_packet(packet);
                }
                let is_there = |frames: &[Whole]| {
                    frames
                        .last()
                        .is_some_and(|(_, _, bytes)| bytes.ends_with(&end))
                };
                let deadline = Instant::now() + SOON;
                while !(is_there(&with) && is_there(&without)) {
                    let read = pcap.dispatch(None, |packet| {
                        let whole = packet.header.len;
                        with.push((LinkType::LinuxCooked2, whole, packet.data.to_vec()));
                    });
                    read.expect("frames");
                    live.read(Timestamp(1), 1_000, |frame| without.push(whole(frame)))
                        .expect("frames");
                    assert!(Instant::now() < deadline, "{}", path.display());
                }
                assert_eq!(without, with, "{}", path.display());
                compared += with.len() - 1;
            }
        }
        assert!(compared > 500, "{compared}");
        // No bell either; losses are told.
        assert!(!live.set_bell(true).expect("nothing to do"));
        assert!(live.bell().is_none());
        assert_eq!(live.dropped().expect("a count"), 0);
        let doors = [door_of(&[7000])];
        live.set_filter(&doors, &wires(TripwireMode::Off, &doors))
            .expect("a filter");
        let mut read = 0;
        // More than there is room for, whatever net.core.rmem_max allows.
        for sequence in 0..20_000 {
            wire.send_packet(&syn(address(CLIENT[0]), 7000, sequence));
        }
        read += live.read(Timestamp(1), 20_000, |_| ()).expect("frames");
        // The next that comes tells how many did not.
        wire.send_packet(&syn(address(CLIENT[0]), 7000, 20_000));
        read += knocks(&mut live, 1).len();
        let dropped = live.dropped().expect("a count");
        assert!(read > 250 && dropped > 0, "{read} {dropped}");
        assert_eq!(read as u64 + dropped, 20_001);
    });
}

#[test]
fn when_the_ring_takes_over_nothing_is_missed() {
    run("ring::when_the_ring_takes_over_nothing_is_missed", || {
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
            read.dedup();
            let (first, last) = (read[0], read[read.len() - 1]);
            assert_eq!(read.len(), (last - first + 1) as usize, "some are missing");
        }
        is_over.store(true, Ordering::Relaxed);
        sender.join().expect("a sender");
    });
}

#[test]
fn the_bell_rings_for_steps_alone_and_once_it_is_set() {
    let name = "ring::the_bell_rings_for_steps_alone_and_once_it_is_set";
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
        assert!(
            !young.set_bell(true).expect("a filter"),
            "there is none yet"
        );
        assert!(young.bell().is_none());
    });
}
