//! Packets whose source cannot be answered, forged on the wire, are no knocks.
//!
//! Over the loopback this host may knock at itself.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use socket2::Socket;

use crate::site::{KNOCK, Site};
use crate::support::events::complete;
use crate::support::frame::{IPV4, IPV6, frame};
use crate::support::{Lab, SERVER, ip};

const DOOR: &str = r#"
[door.ssh]
sequence      = ["7001/udp", "8102/udp", "9203/udp"]
start_command = "true"
"#;

/// The whole right sequence, from one address to another.
fn forge(socket: &Socket, from: &str, to: &str) {
    for port in [7001, 8102, 9203] {
        let mut packet = Vec::new();
        let (builder, kind) = match (ip(from), ip(to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (PacketBuilder::ipv4(from.octets(), to.octets(), 64), IPV4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (PacketBuilder::ipv6(from.octets(), to.octets(), 64), IPV6)
            }
            mixed => panic!("{mixed:?}"),
        };
        let builder = builder.udp(40_000, port);
        builder.write(&mut packet, &[]).expect("a short packet");
        let frame = frame(kind, &packet);
        let sent = socket.send(&frame).expect("the interface is up");
        assert_eq!(sent, frame.len());
    }
}

#[test]
fn who_cannot_be_answered_opens_nothing() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOOR);
    // Of an interface that is not listened to.
    lab.server
        .ip("link add other type bridge\naddress add 203.0.113.1/24 dev other");
    let mut daemon = site.start("-i eth0");
    let wire = lab.client.frames("eth0");
    let [four, six] = SERVER;
    let forged = [
        "0.0.0.0",
        "0.0.0.5",
        "127.0.0.1",
        "127.9.9.9",
        "192.0.2.1",
        "203.0.113.1",
        "192.0.2.255",
        "192.0.2.0",
        "203.0.113.255",
        "224.0.0.1",
        "240.1.1.1",
        "255.255.255.255",
        "::",
        "::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:198.51.100.7",
        "::127.0.0.1",
        "ff02::1",
    ];
    for from in forged {
        forge(&wire, from, if ip(from).is_ipv4() { four } else { six });
    }
    // A packet to the loopback of this host, which no wire may carry, is no knock either.
    forge(&wire, "198.51.100.8", "127.0.0.1");
    forge(&wire, "2001:db8::8", "::1");
    let answerable = ["198.51.100.7", "169.254.9.9", "fe80::5", "2001:db8:9::7"];
    for from in answerable {
        forge(&wire, from, if ip(from).is_ipv4() { four } else { six });
        daemon.wait_for_event(&complete().at("ssh").from(from));
    }
    // One that has gone is somebody else's.
    lab.server.run("ip link del other");
    daemon.wait_for_line("running command: true");
    crate::support::wait_until("the address to be another's", || {
        forge(&wire, "203.0.113.1", four);
        daemon.count_events(&complete().at("ssh").from("203.0.113.1")) > 0
    });
    let lines = daemon.lines();
    for from in forged.into_iter().filter(|from| *from != "203.0.113.1") {
        let head = format!("{from}: ssh: ");
        assert!(!lines.iter().any(|l| l.starts_with(&head)), "{lines:#?}");
    }
    assert!(
        !lines
            .iter()
            .any(|l| l.contains(".8: ssh") || l.contains("::8: ssh"))
    );
}

#[test]
fn by_the_loopback_a_host_knocks_at_itself() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOOR);
    let mut daemon = site.start("-i lo");
    let [four, six] = SERVER;
    for to in ["127.0.0.1", "::1", four, six] {
        lab.server
            .run(&format!("{KNOCK} {to} 7001:udp 8102:udp 9203:udp"));
        daemon.wait_for_event(&complete().at("ssh").from(to));
    }
}
