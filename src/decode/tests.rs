//! Frames that are a knock and frames that are none, byte by byte.

use std::net::IpAddr;

use proptest::prelude::*;

use super::decode;
use crate::model::{Frame, Knock, LinkType, Protocol, Step, Timestamp, Transport};

mod sources;

const LINKS: [LinkType; 11] = [
    LinkType::Null,
    LinkType::Ethernet,
    LinkType::Ppp,
    LinkType::Raw,
    LinkType::PppHdlc,
    LinkType::PppEther,
    LinkType::Loop,
    LinkType::LinuxCooked,
    LinkType::Ipv4,
    LinkType::Ipv6,
    LinkType::LinuxCooked2,
];

const SOURCE_4: [u8; 4] = [192, 0, 2, 77];
const TARGET_4: [u8; 4] = [192, 0, 2, 1];
const SOURCE_6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
const TARGET_6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A SYN from port 40000 to port 7000 with sequence number 0x01020304.
const SYN: [u8; 20] = [
    0x9c, 0x40, 0x1b, 0x58, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
];

/// An empty datagram from port 40000 to port 7000.
const DATAGRAM: [u8; 8] = [0x9c, 0x40, 0x1b, 0x58, 0, 8, 0, 0];

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0xab, 0xcd, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(SOURCE_4);
    packet.extend(TARGET_4);
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(SOURCE_6);
    packet.extend(TARGET_6);
    packet.extend(payload);
    packet
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Reads a frame of which all that was on the wire was captured.
fn read(link: LinkType, data: &[u8]) -> Option<Knock> {
    read_of(link, data, data.len())
}

/// Reads a frame that had `wire` bytes on the wire.
fn read_of(link: LinkType, data: &[u8], wire: usize) -> Option<Knock> {
    decode(&Frame {
        at: Timestamp(7),
        link,
        wire_len: u32::try_from(wire).expect("short"),
        data,
    })
}

fn with(mut packet: Vec<u8>, place: usize, bytes: &[u8]) -> Vec<u8> {
    packet[place..place + bytes.len()].copy_from_slice(bytes);
    packet
}

fn syn_4() -> Vec<u8> {
    ipv4(6, &SYN)
}

fn syn_6() -> Vec<u8> {
    ipv6(6, &SYN)
}

#[test]
fn says_all_of_a_syn() {
    let expected = Knock {
        at: Timestamp(7),
        source: IpAddr::from(SOURCE_4),
        destination: IpAddr::from(TARGET_4),
        step: Step::new(Protocol::Tcp, 7000).expect("a port"),
        source_port: 40000,
        transport: Transport::Tcp {
            flags: 2,
            sequence: 0x0102_0304,
        },
        interface: None,
    };
    assert_eq!(read(LinkType::Raw, &syn_4()), Some(expected));
    assert_eq!(
        read(LinkType::Raw, &syn_6()),
        Some(Knock {
            source: IpAddr::from(SOURCE_6),
            destination: IpAddr::from(TARGET_6),
            ..expected
        })
    );
}

#[test]
fn says_the_identification_of_a_datagram_where_there_is_one() {
    let of = |packet: &[u8]| read(LinkType::Raw, packet).map(|k| (k.step.protocol, k.transport));
    assert_eq!(
        of(&ipv4(17, &DATAGRAM)),
        Some((
            Protocol::Udp,
            Transport::Udp {
                identification: 0xabcd
            }
        ))
    );
    assert_eq!(
        of(&ipv6(17, &DATAGRAM)),
        Some((Protocol::Udp, Transport::Udp { identification: 0 }))
    );
}

#[test]
fn every_link_type_carries_it() {
    let (four, six) = (syn_4(), syn_6());
    let mac = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let pppoe = |packet: &[u8], protocol: [u8; 2]| {
        let length = u16::try_from(packet.len() + 2).expect("short");
        joined(&[&[0x11, 0, 0, 9], &length.to_be_bytes(), &protocol, packet])
    };
    let cases: &[(LinkType, &[&[u8]])] = &[
        (LinkType::Ipv4, &[&four]),
        (LinkType::Ipv6, &[&six]),
        (LinkType::Null, &[&[2, 0, 0, 0], &four]),
        (LinkType::Null, &[&[0, 0, 0, 2], &four]),
        (LinkType::Null, &[&[10, 0, 0, 0], &six]),
        (LinkType::Null, &[&[24, 0, 0, 0], &six]),
        (LinkType::Null, &[&[0, 0, 0, 28], &six]),
        (LinkType::Null, &[&[30, 0, 0, 0], &six]),
        (LinkType::Loop, &[&[0, 0, 0, 2], &four]),
        (LinkType::Loop, &[&[0, 0, 0, 24], &six]),
        (LinkType::Ethernet, &[&mac, &[8, 0], &four]),
        (LinkType::Ethernet, &[&mac, &[0x86, 0xdd], &six]),
        // A priority tag, a VLAN, QinQ old and new.
        (
            LinkType::Ethernet,
            &[&mac, &[0x81, 0, 0xe0, 0, 8, 0], &four],
        ),
        (
            LinkType::Ethernet,
            &[&mac, &[0x81, 0, 0, 10, 0x86, 0xdd], &six],
        ),
        (
            LinkType::Ethernet,
            &[&mac, &[0x88, 0xa8, 0, 10, 0x81, 0, 0, 20, 8, 0], &four],
        ),
        (
            LinkType::Ethernet,
            &[&mac, &[0x91, 0, 0, 10, 0x81, 0, 0, 20, 8, 0], &four],
        ),
        (
            LinkType::Ethernet,
            &[&mac, &[0x88, 0x64], &pppoe(&four, [0, 0x21])],
        ),
        (
            LinkType::Ethernet,
            &[&mac, &[0x81, 0, 0, 7, 0x88, 0x64], &pppoe(&six, [0, 0x57])],
        ),
        (LinkType::PppEther, &[&pppoe(&four, [0, 0x21])]),
        (LinkType::Ppp, &[&[0, 0x21], &four]),
        (LinkType::Ppp, &[&[0x57], &six]),
        (LinkType::Ppp, &[&[0xff, 3, 0, 0x21], &four]),
        (LinkType::PppHdlc, &[&[0xff, 3, 0, 0x57], &six]),
        (LinkType::PppHdlc, &[&[0xff, 3, 0x21], &four]),
        (LinkType::PppHdlc, &[&[0x0f, 0, 8, 0], &four]),
        (LinkType::PppHdlc, &[&[0x8f, 0, 0x86, 0xdd], &six]),
        (
            LinkType::LinuxCooked,
            &[&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], &four],
        ),
    ];
    for (link, parts) in cases {
        let frame = joined(parts);
        assert!(read(*link, &frame).is_some(), "{link:?}: {frame:02x?}");
    }
}

#[test]
fn a_link_layer_that_announces_another_version_is_not_believed() {
    let (four, six) = (syn_4(), syn_6());
    for (link, parts) in [
        (LinkType::Ipv4, [&[][..], &six]),
        (LinkType::Ipv6, [&[], &four]),
        (LinkType::Loop, [&[2, 0, 0, 0], &four]),
        (LinkType::Loop, [&[0, 0, 0, 2], &six]),
        (LinkType::Ppp, [&[0, 0x57], &four]),
        (LinkType::Ppp, [&[0xc0, 0x21], &four]),
    ] {
        assert_eq!(read(link, &joined(&parts)), None, "{link:?}");
    }
}

/// Cooked v2, as libpcap makes it for `any`.
fn cooked2(kind: u8, packet: &[u8]) -> Vec<u8> {
    let header = [
        8, 0, 0, 0, 0, 0, 1, 2, 0, 1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0,
    ];
    joined(&[&header, packet])
}

#[test]
fn cooked_frames_name_the_interface_and_whom_they_are_for() {
    for kind in 0..=6 {
        let knock = read(LinkType::LinuxCooked2, &cooked2(kind, &syn_4()));
        assert_eq!(knock.is_some(), kind <= 2, "packet type {kind}");
        assert_eq!(
            knock.and_then(|k| k.interface),
            (kind <= 2).then_some(0x0102)
        );
        let v1 = [0, kind, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0];
        let knock = read(LinkType::LinuxCooked, &joined(&[&v1, &syn_4()]));
        assert_eq!(knock.is_some(), kind <= 2, "packet type {kind}");
    }
}

#[test]
fn a_cooked_protocol_is_no_ethertype_on_netlink_and_radiotap() {
    for device in [770_u16, 803, 824] {
        let frame = with(cooked2(0, &syn_4()), 8, &device.to_be_bytes());
        assert_eq!(read(LinkType::LinuxCooked2, &frame), None, "{device}");
    }
}

#[test]
fn options_are_passed_over() {
    let mut packet = with(syn_4(), 0, &[0x46, 0, 0, 44]);
    packet.splice(20..20, [1, 1, 1, 0]);
    assert!(read(LinkType::Raw, &packet).is_some());
    // No IPv4 header has fewer than five words.
    assert_eq!(read(LinkType::Raw, &with(syn_4(), 0, &[0x44])), None);
}

#[test]
fn extension_headers_are_passed_over() {
    let (hop, dest, route) = (0, 60, 43);
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let auth = |next: u8| {
        [
            next, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9,
        ]
    };
    let atomic = |next: u8| [next, 0, 0, 0, 1, 2, 3, 4];
    for parts in [
        [&options(6)[..], &[], &[]],
        [&options(dest), &options(6), &[]],
        [&options(route), &[44, 0, 0, 0, 0, 0, 0, 0], &atomic(6)],
        [&options(44), &atomic(51), &auth(6)],
    ] {
        let packet = ipv6(hop, &joined(&[parts[0], parts[1], parts[2], &SYN]));
        assert!(read(LinkType::Raw, &packet).is_some(), "{packet:02x?}");
    }
    // Still on its way: two segments left.
    let packet = ipv6(route, &joined(&[&[6, 0, 0, 2, 0, 0, 0, 0], &SYN]));
    assert_eq!(read(LinkType::Raw, &packet), None);
    // Hop-by-hop options that are not first.
    let packet = ipv6(dest, &joined(&[&options(hop), &options(6), &SYN]));
    assert_eq!(read(LinkType::Raw, &packet), None);
    // A mobility header carries nothing; no next header means none.
    for first in [135, 59, 58, 4, 41, 50] {
        let packet = ipv6(first, &joined(&[&options(6), &SYN]));
        assert_eq!(read(LinkType::Raw, &packet), None, "{first}");
    }
}

#[test]
fn a_chain_of_extension_headers_ends() {
    let chain = |n: usize| {
        let mut payload = [60, 0, 1, 4, 0, 0, 0, 0].repeat(n - 1);
        payload.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        payload.extend(SYN);
        ipv6(60, &payload)
    };
    assert!(read(LinkType::Raw, &chain(8)).is_some());
    assert_eq!(read(LinkType::Raw, &chain(9)), None);
}

#[test]
fn fragments_are_no_knocks() {
    // More to come; an offset. Don't fragment is no fragment.
    for (field, is_knock) in [
        ([0x20, 0], false),
        ([0, 1], false),
        ([0x40, 0], true),
        ([0x80, 0], true),
    ] {
        let packet = with(syn_4(), 6, &field);
        assert_eq!(
            read(LinkType::Raw, &packet).is_some(),
            is_knock,
            "{field:?}"
        );
    }
    for (field, is_knock) in [
        ([0, 1], false),
        ([0, 8], false),
        ([0, 0], true),
        ([0, 6], true),
    ] {
        let header = [6, 0, field[0], field[1], 0, 0, 0, 1];
        let packet = ipv6(44, &joined(&[&header, &SYN]));
        assert_eq!(
            read(LinkType::Raw, &packet).is_some(),
            is_knock,
            "{field:?}"
        );
    }
}

#[test]
fn lengths_that_contradict_are_no_knocks() {
    let raw = |packet: &[u8]| read(LinkType::Raw, packet);
    // Total length: more than the wire, less than the headers, zero (segmentation offload).
    for length in [41_u16, 39, 20, 19, 0] {
        assert_eq!(
            raw(&with(syn_4(), 2, &length.to_be_bytes())),
            None,
            "{length}"
        );
    }
    // Payload length likewise; zero is a jumbogram.
    for length in [21_u16, 19, 0] {
        assert_eq!(
            raw(&with(syn_6(), 4, &length.to_be_bytes())),
            None,
            "{length}"
        );
    }
    // Data offset: under five words, past the packet.
    for offset in [0x00, 0x40, 0x60, 0xf0] {
        assert_eq!(raw(&with(syn_4(), 32, &[offset])), None, "{offset:#x}");
    }
    // UDP length: under eight, past the packet.
    for length in [7_u16, 9, 0] {
        let datagram = with(ipv4(17, &DATAGRAM), 24, &length.to_be_bytes());
        assert_eq!(raw(&datagram), None, "{length}");
    }
    // PPPoE length: past the wire, short of the packet.
    for length in [43_u16, 41] {
        let frame = joined(&[
            &[0x11, 0, 0, 9],
            &length.to_be_bytes(),
            &[0, 0x21],
            &syn_4(),
        ]);
        assert_eq!(read(LinkType::PppEther, &frame), None, "{length}");
    }
}

#[test]
fn padding_and_what_was_not_captured_do_no_harm() {
    let mut padded = syn_4();
    padded.extend([0; 6]);
    assert!(read(LinkType::Raw, &padded).is_some());

    let long = ipv4(
        6,
        &joined(&[&with(SYN.to_vec(), 12, &[0xa0]), &[1; 20], &[9; 1400]]),
    );
    assert!(read_of(LinkType::Raw, &long[..40], long.len()).is_some());
    assert_eq!(read_of(LinkType::Raw, &long[..39], long.len()), None);
    let datagram = ipv4(17, &with(joined(&[&DATAGRAM, &[9; 90]]), 4, &[0, 98]));
    assert!(read_of(LinkType::Raw, &datagram[..28], datagram.len()).is_some());
    assert_eq!(
        read_of(LinkType::Raw, &datagram[..27], datagram.len()),
        None
    );
}

#[test]
fn other_protocols_and_port_0_are_no_knocks() {
    for protocol in [0, 1, 2, 4, 41, 47, 50, 51, 132] {
        assert_eq!(
            read(LinkType::Raw, &ipv4(protocol, &SYN)),
            None,
            "{protocol}"
        );
    }
    assert_eq!(read(LinkType::Raw, &with(syn_4(), 22, &[0, 0])), None);
    assert_eq!(
        read(LinkType::Raw, &with(ipv4(17, &DATAGRAM), 22, &[0, 0])),
        None
    );
}

#[test]
fn no_prefix_of_a_frame_but_a_whole_one_is_a_knock() {
    let frame = cooked2(0, &syn_4());
    for length in 0..frame.len() {
        let cut = &frame[..length];
        assert_eq!(read(LinkType::LinuxCooked2, cut), None);
        assert_eq!(read_of(LinkType::LinuxCooked2, cut, frame.len()), None);
    }
}

proptest! {
    #[test]
    fn random_bytes_do_not_panic(
        link in proptest::sample::select(LINKS.as_slice()),
        data in prop::collection::vec(any::<u8>(), 0..200),
        wire_len in prop_oneof![any::<u32>(), 0_u32..200],
    ) {
        let _ = decode(&Frame { at: Timestamp(0), link, wire_len, data: &data });
    }

    /// Changes that leave the way to the transport header open reach all of it.
    #[test]
    fn changed_frames_do_not_panic(
        link in proptest::sample::select(LINKS.as_slice()),
        six in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
        wire_len in 0_u32..120,
    ) {
        let packet = if six { syn_6() } else { syn_4() };
        let mut frame = match link {
            LinkType::LinuxCooked2 => cooked2(0, &packet),
            LinkType::Ethernet => joined(&[&[2; 12], if six { &[0x86, 0xdd] } else { &[8, 0] }, &packet]),
            LinkType::Null | LinkType::Loop => joined(&[&[0, 0, 0, if six { 24 } else { 2 }], &packet]),
            LinkType::Ppp | LinkType::PppHdlc => joined(&[&[0xff, 3, 0, if six { 0x57 } else { 0x21 }], &packet]),
            LinkType::PppEther => joined(&[&[0x11, 0, 0, 1, 0, 62, 0, 0x57], &packet]),
            LinkType::LinuxCooked => joined(&[&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0], &packet]),
            LinkType::Raw | LinkType::Ipv4 | LinkType::Ipv6 => packet,
        };
        for (place, byte) in changes {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        let data = &frame[..=length.index(frame.len())];
        let _ = decode(&Frame { at: Timestamp(0), link, wire_len, data });
    }
}
