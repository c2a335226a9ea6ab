//! Frames as the client sends them, and those it waits for.

use std::net::Ipv4Addr;

use crate::lab::{CLIENT_MAC, SERVER, SERVER_MAC};

/// Ethernet, IPv4 and TCP without options, filled up to what Ethernet carries at least.
pub(crate) type Frame = [u8; 60];

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// A SYN to the server.
pub(crate) fn syn(source: Ipv4Addr, source_port: u16, port: u16, sequence: u32) -> Frame {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&SERVER_MAC);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut frame[14..34];
    ip[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6]);
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&SERVER.octets());
    let addresses = sum(&ip[12..20]);
    let checksum = !fold(sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
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
