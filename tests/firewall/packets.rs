//! Packets built byte by byte, also such as no library builds.

use std::net::IpAddr;

use crate::support::{CLIENT, SERVER, ip};

/// The guarded port and one that is not.
pub(crate) const GUARDED: u16 = 22;
pub(crate) const FREE: u16 = 80;

/// Protocols, and IPv6 next headers.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION: u8 = 60;

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Sender and receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way(pub(crate) IpAddr, pub(crate) IpAddr);

/// From the client to the server, by IPv4 (0) or IPv6 (1).
pub(crate) fn usual(family: usize) -> Way {
    Way(ip(CLIENT[family]), ip(SERVER[family]))
}

/// A TCP segment from the client's port `from` to `port`.
pub(crate) fn segment(family: usize, from: u16, port: u16, flags: u8) -> Vec<u8> {
    summed(usual(family), TCP, bare(from, port, flags))
}

/// A TCP header without its checksum.
pub(crate) fn bare(from: u16, port: u16, flags: u8) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(from.to_be_bytes());
    out.extend(port.to_be_bytes());
    out.extend(7_u32.to_be_bytes());
    out.extend(0_u32.to_be_bytes());
    out.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out
}

/// A UDP datagram without its checksum, whose length field is what it should be, but for `off`.
pub(crate) fn datagram(from: u16, port: u16, payload: &[u8], off: u16) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short") - off;
    let mut out = Vec::new();
    out.extend(from.to_be_bytes());
    out.extend(port.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

/// With its checksum, of what goes this way (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(crate) fn summed(way: Way, protocol: u8, mut out: Vec<u8>) -> Vec<u8> {
    let place = if protocol == TCP { 16 } else { 6 };
    let mut sum = u32::from(protocol) + u32::try_from(out.len()).expect("short");
    let mut add = |bytes: &[u8]| {
        for pair in bytes.chunks(2) {
            let low = pair.get(1).copied().unwrap_or_default();
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
        }
    };
    add(&octets(way.0));
    add(&octets(way.1));
    add(&out);
    out[place..place + 2].copy_from_slice(&fold(sum));
    out
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).expect("folded")).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An IPv4 packet of TCP, or a fragment of one: offset in bytes, and whether more follow.
pub(crate) fn four(id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let place = (offset / 8) | if more { 0x2000 } else { 0 };
    ip_v4(usual(0), TCP, (id, place), &[], payload)
}

/// An IPv4 packet with options, whose length is a multiple of four.
pub(crate) fn ip_v4(
    way: Way,
    protocol: u8,
    (id, place): (u16, u16),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).expect("short");
    let words = u8::try_from(header / 4).expect("no more than 15");
    let mut out = vec![0x40 | words, 0];
    out.extend(length.to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(place.to_be_bytes());
    out.extend([64, protocol, 0, 0]);
    out.extend(octets(way.0));
    out.extend(octets(way.1));
    out.extend(options);
    let sum = out
        .chunks_exact(2)
        .map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])))
        .sum();
    out[10..12].copy_from_slice(&fold(sum));
    out.extend(payload);
    out
}

/// An IPv6 packet whose first header is of this kind.
pub(crate) fn six(next: u8, payload: &[u8]) -> Vec<u8> {
    ip_v6(usual(1), next, payload)
}

/// The same for another way.
pub(crate) fn ip_v6(way: Way, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    let mut out = vec![0x60, 0, 0, 0];
    out.extend(length.to_be_bytes());
    out.extend([next, 64]);
    out.extend(octets(way.0));
    out.extend(octets(way.1));
    out.extend(payload);
    out
}

/// A fragment header and what it carries.
pub(crate) fn piece(id: u16, next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![next, 0];
    out.extend((offset | u16::from(more)).to_be_bytes());
    out.extend(u32::from(id).to_be_bytes());
    out.extend(payload);
    out
}

/// A header of `8 * (1 + more)` bytes with one option, of a type that nobody knows and that
/// is to be skipped (RFC 8200, 4.2; of padding Linux takes no more than 7 bytes).
pub(crate) fn options(next: u8, more: u8) -> Vec<u8> {
    let mut out = vec![next, more, 0x1e, 4 + 8 * more];
    out.resize(8 * (1 + usize::from(more)), 0);
    out
}
