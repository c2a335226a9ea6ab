//! Whole frames from the client's wire to the server, with any source address in them.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use socket2::Socket;

use super::{CLIENT_MAC, SERVER_MAC};

/// The EtherType of IPv4 (RFC 894).
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
/// The EtherType of IPv6 (RFC 2464).
pub(crate) const IPV6: [u8; 2] = [0x86, 0xdd];

/// An Ethernet frame from client to server.
pub(crate) fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&mac(SERVER_MAC)[..], &mac(CLIENT_MAC), &kind, packet].concat()
}

/// The bytes of a MAC address.
pub(crate) fn mac(text: &str) -> [u8; 6] {
    let mut bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    std::array::from_fn(|_| bytes.next().expect("six bytes").expect("a byte"))
}

/// The address of the source of that number, which nobody has: 10.0.0.0 and on.
pub(crate) fn source(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("a small number");
    Ipv4Addr::from(0x0a00_0000 + number)
}

/// Sends a datagram to a port of the server's, 192.0.2.1, in the name of `source`.
#[track_caller]
pub(crate) fn send_datagram(socket: &Socket, source: Ipv4Addr, port: u16) {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(source.octets(), [192, 0, 2, 1], 64)
        .udp(40_000, port)
        .write(&mut packet, &[])
        .expect("a short packet");
    let frame = frame(IPV4, &packet);
    let sent = socket.send(&frame).expect("the interface is up");
    assert_eq!(sent, frame.len());
}
