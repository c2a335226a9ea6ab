//! No frame makes the decoder panic, and no knock is from nobody.

#![no_main]

use knockd::decode::decode;
use knockd::model::{Frame, LinkType, Timestamp};
use libfuzzer_sys::fuzz_target;

const LINKS: [LinkType; 11] = [
    LinkType::LinuxCooked2,
    LinkType::Ethernet,
    LinkType::LinuxCooked,
    LinkType::Raw,
    LinkType::Ipv4,
    LinkType::Ipv6,
    LinkType::Null,
    LinkType::Loop,
    LinkType::Ppp,
    LinkType::PppHdlc,
    LinkType::PppEther,
];

// A link type, how many bytes of the frame were not captured, the frame.
fuzz_target!(|input: &[u8]| {
    let Some(([link, uncaptured], data)) = input.split_first_chunk() else {
        return;
    };
    let frame = Frame {
        at: Timestamp(0),
        link: LINKS[usize::from(*link) % LINKS.len()],
        wire_len: u32::try_from(data.len()).unwrap_or(u32::MAX) + u32::from(*uncaptured),
        data,
    };
    if let Some(knock) = decode(&frame) {
        assert!(!knock.source.is_unspecified() && !knock.source.is_multicast());
    }
});
