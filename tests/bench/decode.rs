//! What a packet costs before the matcher sees it: decoding, and reading from a file.

use std::path::Path;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use knockd::capture::CaptureFile;
use knockd::decode::decode;
use knockd::model::{Frame, LinkType, Timestamp};

fn main() {
    divan::main();
}

const COOKED_4: [u8; 20] = [8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0];
const COOKED_6: [u8; 20] = [
    0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0,
];
const IPV4: [u8; 20] = [
    0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 77, 192, 0, 2, 1,
];
const IPV6: [u8; 40] = [
    0x60, 0, 0, 0, 0, 20, 6, 64, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77, 0x20,
    1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];
const SYN: [u8; 20] = [
    0x9c, 0x40, 0x1b, 0x58, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
];

fn run(bencher: Bencher<'_, '_>, link: LinkType, parts: &[&[u8]]) {
    let data = parts.concat();
    let frame = Frame {
        at: Timestamp(1),
        link,
        wire_len: u32::try_from(data.len()).expect("short"),
        data: &data,
    };
    assert!(decode(&frame).is_some());
    bencher.bench_local(|| decode(black_box(&frame)));
}

#[divan::bench]
fn cooked_ipv4_syn(bencher: Bencher<'_, '_>) {
    run(bencher, LinkType::LinuxCooked2, &[&COOKED_4, &IPV4, &SYN]);
}

#[divan::bench]
fn cooked_ipv6_syn(bencher: Bencher<'_, '_>) {
    run(bencher, LinkType::LinuxCooked2, &[&COOKED_6, &IPV6, &SYN]);
}

#[divan::bench]
fn vlan_ipv4_syn(bencher: Bencher<'_, '_>) {
    let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 10, 8, 0];
    run(bencher, LinkType::Ethernet, &[&ethernet, &IPV4, &SYN]);
}

/// A file of 2,201 packets, opened and decoded to its end.
#[divan::bench]
fn replay(bencher: Bencher<'_, '_>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/clients/scan-ascending.pcap");
    bencher
        .counter(ItemsCount::new(2_201_usize))
        .bench_local(|| {
            let mut replay = CaptureFile::open(&path).expect("the capture");
            let mut knocks = 0;
            while let Some(frame) = replay.next_frame().expect("a frame") {
                knocks += u32::from(decode(&frame).is_some());
            }
            assert_eq!(knocks, 2_201);
        });
}
