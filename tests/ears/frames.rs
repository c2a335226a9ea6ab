//! Knocks by the thousand, from sources that nobody has: whole frames, made here.

use socket2::Socket;

/// A datagram in an Ethernet frame to the laboratory's server.
fn datagram(source: [u8; 4], port: u16) -> Vec<u8> {
    const TO: [u8; 6] = [0x3e, 0x7d, 0x34, 0x62, 0x0f, 0x98];
    const FROM: [u8; 6] = [0x1a, 0xf7, 0xe6, 0x9f, 0xe7, 0x47];
    // Checksums are left out: the kernel looks at them later than knockd does.
    let ip = [0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    let [high, low] = port.to_be_bytes();
    let udp = [0x9c, 0x40, high, low, 0, 8, 0, 0];
    let server = [192, 0, 2, 1];
    [&TO[..], &FROM, &[8, 0], &ip, &source, &server, &udp].concat()
}

/// The n-th of many sources.
pub(crate) fn source(n: u32) -> [u8; 4] {
    (0x0a00_0001 + n).to_be_bytes()
}

/// Sends a datagram from the n-th source to this port of the server's.
pub(crate) fn send(socket: &Socket, n: u32, port: u16) {
    socket
        .send(&datagram(source(n), port))
        .expect("the interface is up");
}
