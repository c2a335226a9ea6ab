//! Frames as the client sends them, and those it waits for.

use std::net::Ipv4Addr;

use crate::hosts::{CLIENT_MAC, SERVER, SERVER_MAC};

/// Ethernet, IPv4 and TCP without options, filled up to what Ethernet carries at least.
pub(crate) type Frame = [u8; 60];

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// The headers of Ethernet and IPv4: a packet of this protocol and length to the server.
fn headers(source: Ipv4Addr, protocol: u8, length: u8) -> Frame {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&SERVER_MAC);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut frame[14..34];
    ip[..10].copy_from_slice(&[0x45, 0, 0, length, 0, 0, 0x40, 0, 64, protocol]);
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&SERVER.octets());
    let checksum = !fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// A datagram of one byte to the server, without a checksum (RFC 768).
pub(crate) fn datagram(source: Ipv4Addr, source_port: u16, port: u16) -> Frame {
    let mut frame = headers(source, 17, 29);
    frame[34..36].copy_from_slice(&source_port.to_be_bytes());
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[38..40].copy_from_slice(&[0, 9]);
    frame
}

/// An echo request to the server (RFC 792).
pub(crate) fn echo_request(source: Ipv4Addr, number: u16) -> Frame {
    let mut frame = headers(source, 1, 36);
    let icmp = &mut frame[34..50];
    icmp[0] = 8;
    icmp[6..8].copy_from_slice(&number.to_be_bytes());
    let checksum = !fold(sum(icmp));
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Whether it is the answer to that.
pub(crate) fn is_echo_reply(frame: &[u8], number: u16) -> bool {
    frame.get(23) == Some(&1)
        && frame.get(34) == Some(&0)
        && frame.get(40..42) == Some(&number.to_be_bytes()[..])
}

/// A SYN to the server.
pub(crate) fn syn(source: Ipv4Addr, source_port: u16, port: u16, sequence: u32) -> Frame {
    let mut frame = headers(source, 6, 40);
    let addresses = sum(&frame[26..34]);
    let tcp = &mut frame[34..54];
    tcp[..2].copy_from_slice(&source_port.to_be_bytes());
    tcp[2..4].copy_from_slice(&port.to_be_bytes());
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, SYN, 0xfa, 0xf0]);
    // The pseudo-header of RFC 9293, section 3.1: addresses, protocol, length.
    let checksum = !fold(addresses + 6 + 20 + sum(tcp));
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Whom the server answers with a SYN-ACK from this port.
pub(crate) fn answered(frame: &[u8], port: u16) -> Option<Ipv4Addr> {
    let (ip, tcp) = (frame.get(14..34)?, frame.get(34..54)?);
    let from = u16::from_be_bytes([tcp[0], tcp[1]]);
    let is_answer = frame[12..14] == [8, 0]
        && ip[0] == 0x45
        && ip[9] == 6
        && ip[12..16] == SERVER.octets()
        && from == port
        && tcp[13] & SYN_ACK == SYN_ACK;
    is_answer.then(|| Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]))
}

fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
