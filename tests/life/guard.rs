//! What each setting of the guard does to packets on the wire.

use std::io::ErrorKind;

use crate::open_both;
use crate::site::{OPEN_SSH, SHUT_SSH, SSH, Site, knock};
use crate::support::events::{closed, opened};
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip};

/// The door of SSH, and one for UDP.
fn with_udp() -> String {
    format!(
        "firewall.guard = \"reject\"\n{SSH}\n[door.dns]\n\
         sequence = [\"7004/tcp\", \"8105/udp\", \"9206/tcp\"]\n\
         open = [\"53/udp\"]\nopen_for = \"1h\"\n"
    )
}

/// Whether this is a TCP reset, or an ICMP or ICMPv6 port unreachable (RFC 792, RFC 4443).
fn refusal(frame: &[u8]) -> &'static str {
    let (version, protocol, rest) = match frame.get(12..14) {
        Some([0x08, 0x00]) => (4, frame[23], &frame[34..]),
        Some([0x86, 0xdd]) => (6, frame[20], &frame[54..]),
        other => panic!("no IP: {other:?}"),
    };
    match (version, protocol) {
        (_, 6) if rest[13] & 0x04 != 0 => "reset",
        (4, 1) if rest[..2] == [3, 3] => "port unreachable",
        (6, 58) if rest[..2] == [1, 4] => "port unreachable",
        _ => panic!("protocol {protocol}: {rest:?}"),
    }
}

#[test]
fn a_rejecting_guard_says_so_in_the_words_of_each_protocol() {
    needs!(Laboratory, Tool("tcpdump"));
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &with_udp());
    let mut daemon = site.start("");
    let sockets = SERVER.map(|server| lab.server.udp(ip(server), 53));
    for ((own, server), listening) in CLIENT.into_iter().zip(SERVER).zip(&sockets) {
        // tcpdump refuses to look for one family from an address of the other.
        let errors = if server.contains(':') {
            "(icmp6 and ip6[40] == 1)"
        } else {
            "icmp"
        };
        let filter = format!("src host {server} and (tcp or {errors})");
        let wire = lab.capture(&lab.client, "eth0", &filter);
        let reach = |patience| lab.client.connect(ip(own), (ip(server), 22), patience);
        reach(SOON).expect_refused();
        let asking = lab.client.udp(ip(own), 0);
        asking.connect((ip(server), 53)).expect("a way there");
        asking.send(b"?").expect("a way there");
        let error = asking.recv(&mut [0; 8]).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let seen = wire.wait_for(2);
        let seen: Vec<_> = seen.iter().map(|frame| refusal(frame)).collect();
        assert_eq!(seen, ["reset", "port unreachable"], "{server}");
        wire.stop();
        // Both open, and nobody says no.
        knock(&lab, server, OPEN_SSH);
        daemon.wait_for_event(&opened("22/tcp").at("ssh").from(own));
        knock(&lab, server, "7004 8105:udp 9206");
        daemon.wait_for_event(&opened("53/udp").at("dns").from(own));
        let _open = reach(SOON).expect_connected();
        asking.send(b"!").expect("a way there");
        let mut buffer = [0; 8];
        let length = listening.recv(&mut buffer).expect("the datagram");
        assert_eq!(&buffer[..length], b"!");
    }
}

/// A firewall that lets nothing in but what bears our mark.
const POLICY_DROP: &str = "table inet filter { chain input { \
    type filter hook input priority filter; policy drop; \
    iif lo accept; ct state established,related accept; \
    meta l4proto { icmp, ipv6-icmp } accept; \
    meta mark 0x6b6e accept; }; }";

/// Beside such a firewall, with our own guard and without it.
#[test]
fn a_mark_lets_the_opened_through_a_firewall_that_drops() {
    needs!(Laboratory);
    for guard in ["drop", "off"] {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        lab.server.nft(POLICY_DROP);
        let toml = format!("firewall.guard = \"{guard}\"\n{SSH}");
        let site = Site::new(&lab, &toml);
        let mut daemon = site.start("");
        open_both(&lab, &mut daemon);
        let reach = |own, server, patience| {
            let to = (ip(server), 22);
            lab.client.connect(ip(own), to, patience)
        };
        // Our accept does not overrule another table's drop.
        reach(CLIENT[0], SERVER[0], SILENCE).expect_silence();
        site.configure(&format!("firewall.mark = 0x6b6e\n{toml}"));
        site.reload(&daemon);
        for ((own, other), server) in CLIENT.into_iter().zip(OTHER).zip(SERVER) {
            let _open = reach(own, server, SOON).expect_connected();
            reach(other, server, SILENCE).expect_silence();
        }
    }
}

#[test]
fn without_a_guard_nobody_is_kept_out() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &format!("firewall.guard = \"off\"\n{SSH}"));
    let mut daemon = site.start("");
    for (own, server) in CLIENT.into_iter().zip(SERVER) {
        let to = (ip(server), 22);
        let _open = lab.client.connect(ip(own), to, SOON).expect_connected();
    }
    // A knock is logged all the same.
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("192.0.2.77"));
    assert_eq!(site.openings().len(), 1);
}

#[test]
fn one_door_shuts_all_that_others_opened() {
    needs!(Laboratory);
    let lab = Lab::new();
    let toml = with_udp().replace("close    = [\"22/tcp\"]", "close = \"all\"");
    let site = Site::new(&lab, &toml);
    let mut daemon = site.start("");
    site.run(&format!("open ssh {}", OTHER[0]));
    knock(&lab, SERVER[0], OPEN_SSH);
    knock(&lab, SERVER[0], "7004 8105:udp 9206");
    daemon.wait_for_event(&opened("53/udp").at("dns").from("192.0.2.77"));
    assert_eq!(site.openings().len(), 3);
    knock(&lab, SERVER[0], SHUT_SSH);
    daemon.wait_for_event(&closed("22/tcp").at("ssh").from("192.0.2.77"));
    daemon.wait_for_event(&closed("53/udp").at("dns").from("192.0.2.77"));
    // Another's is another's.
    let left = site.openings();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["source"], OTHER[0]);
}

#[test]
fn what_is_open_until_closed_outlives_daemons_and_is_closed_by_a_knock() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &SSH.replace("1h", "until closed"));
    let mut daemon = site.start("");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(
        &opened("22/tcp")
            .lasting("until closed")
            .at("ssh")
            .from("192.0.2.77"),
    );
    for words in ["", "--watch", ""] {
        daemon.terminate();
        daemon = site.start(words);
        assert!(site.run("list").contains("until closed"));
        assert!(site.openings()[0]["left_ms"].is_null());
        let to = (ip(SERVER[0]), 22);
        let reach = lab.client.connect(ip(CLIENT[0]), to, SOON);
        let _open = reach.expect_connected();
    }
    knock(&lab, SERVER[0], SHUT_SSH);
    daemon.wait_for_event(&closed("22/tcp").at("ssh").from("192.0.2.77"));
    assert!(site.openings().is_empty());
}
