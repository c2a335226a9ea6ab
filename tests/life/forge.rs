//! Knocks of sources that need not exist: whole frames, with any source address in them.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use socket2::Socket;

/// Three doors that are knocked at with UDP alone, so that a knock is three small frames.
pub(crate) const DOORS: &str = r#"
[firewall]

[door.ssh]
sequence = ["7001/udp", "8102/udp", "9203/udp"]
open     = ["22/tcp"]
open_for = "1h"

[door.brief]
sequence = ["7104/udp", "8205/udp", "9306/udp"]
open     = ["443/tcp"]
open_for = "2s"

[door.more]
sequence = ["7207/udp", "8308/udp", "9409/udp"]
open     = ["22/tcp"]
open_for = "2h"
"#;

/// The steps of [`DOORS`], in their order.
pub(crate) const SSH: [u16; 3] = [7001, 8102, 9203];
/// The second.
pub(crate) const BRIEF: [u16; 3] = [7104, 8205, 9306];
/// The third.
pub(crate) const MORE: [u16; 3] = [7207, 8308, 9409];

/// The MAC addresses of client and server in the laboratory.
const MAC: [[u8; 6]; 2] = [
    [0x1a, 0xf7, 0xe6, 0x9f, 0xe7, 0x47],
    [0x3e, 0x7d, 0x34, 0x62, 0x0f, 0x98],
];

/// The address of the source of that number: 10.0.0.0 and on.
pub(crate) fn source(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("a small number");
    Ipv4Addr::from(0x0a00_0000 + number)
}

/// Knocks once, in the name of `source`, at the server, 192.0.2.1.
#[track_caller]
pub(crate) fn knock(socket: &Socket, source: Ipv4Addr, steps: [u16; 3]) {
    let [client, server] = MAC;
    for step in steps {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(client, server)
            .ipv4(source.octets(), [192, 0, 2, 1], 64)
            .udp(40_000, step)
            .write(&mut frame, &[])
            .expect("a short packet");
        let sent = socket.send(&frame).expect("the interface is up");
        assert_eq!(sent, frame.len());
    }
}
