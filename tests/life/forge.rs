//! Knocks in the name of sources that do not exist, and the doors for them.

use std::net::Ipv4Addr;

use socket2::Socket;

use crate::support::frame::send_datagram;

/// Three doors that are knocked at with UDP alone, so that a knock is three small frames.
pub(crate) const DOORS: &str = r#"
[firewall]

[door.ssh]
sequence = ["7001/udp", "8102/udp", "9203/udp"]
open     = ["22/tcp"]
open_for = "1h"
max_open = 64_512

[door.brief]
sequence = ["7104/udp", "8205/udp", "9306/udp"]
open     = ["443/tcp"]
open_for = "2s"
max_open = 64_512

[door.more]
sequence = ["7207/udp", "8308/udp", "9409/udp"]
open     = ["22/tcp"]
open_for = "2h"
max_open = 64_512
"#;

/// The steps of [`DOORS`], in their order.
pub(crate) const SSH: [u16; 3] = [7001, 8102, 9203];
/// The second.
pub(crate) const BRIEF: [u16; 3] = [7104, 8205, 9306];
/// The third.
pub(crate) const MORE: [u16; 3] = [7207, 8308, 9409];

/// Knocks once, in the name of `source`, at the server, 192.0.2.1.
#[track_caller]
pub(crate) fn knock(socket: &Socket, source: Ipv4Addr, steps: [u16; 3]) {
    for step in steps {
        send_datagram(socket, source, step);
    }
}
