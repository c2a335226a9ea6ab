//! Addresses are added, removed and changed while the daemon listens.

use crate::listening::ListeningDaemon;
use crate::support::{Lab, SERVER, SERVER_MAC, wait_for, wait_until};

#[test]
fn knocks_follow_an_address_that_is_changed_and_changed_back() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let others = ["192.0.2.9", "2001:db8::9"];
    // Otherwise the address that was added later, to the same network, goes with the first.
    lab.server
        .run("sysctl -qw net.ipv4.conf.eth0.promote_secondaries=1");
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    for (server, other) in SERVER.into_iter().zip(others) {
        // Packets to an address that no host has any more must still arrive.
        for to in [server, other] {
            lab.client.ip(&format!(
                "neighbor replace {to} lladdr {SERVER_MAC} dev eth0"
            ));
        }
        let length = if server.contains(':') { 64 } else { 24 };
        for (old, new) in [(server, other), (other, server)] {
            daemon.opens_at(old);
            daemon.ignores(new);
            lab.server.add_address("eth0", new);
            // At once: the news comes before the packet.
            daemon.opens_at(new);
            daemon.opens_at(old);
            lab.server
                .ip(&format!("address del {old}/{length} dev eth0"));
            daemon.ignores(old);
            daemon.opens_at(new);
            let lines = daemon.process.lines();
            for line in [
                format!("interface eth0 has the address {new}"),
                format!("interface eth0 has lost the address {old}"),
            ] {
                assert!(lines.contains(&line), "{line}: {lines:?}");
            }
        }
    }
    daemon.close();
}

#[test]
fn an_interface_without_an_address_is_named() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "");
    daemon.opens_at(SERVER[0]);
    lab.client.ip(&format!(
        "neighbor replace {} lladdr {SERVER_MAC} dev eth0",
        SERVER[0]
    ));
    lab.server.ip("address flush dev eth0");
    daemon.said("interface eth0 has no address: nobody can knock there", 1);
    assert!(daemon.status_has("without_address", "eth0"));
    daemon.ignores(SERVER[0]);
    for server in SERVER {
        lab.server.add_address("eth0", server);
        daemon.opens_at(server);
    }
    assert!(!daemon.status_has("without_address", "eth0"));
    daemon.close();
    // The same at the start; of others only where they are named.
    lab.server.join("eth1", &lab.client, "eth1", &[]);
    lab.server.ip("address flush dev eth1");
    for (keys, told) in [("", 0), ("interfaces = [\"eth0\", \"eth1\"]", 1)] {
        let lines = ListeningDaemon::open(&lab, keys).close();
        let about = |line: &&String| line.contains("interface eth1 has no address");
        assert_eq!(lines.iter().filter(about).count(), told, "{lines:?}");
    }
    lab.server.ip("address flush dev eth0");
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    daemon.said("interface eth0 has no address", 1);
    lab.server.add_address("eth0", SERVER[0]);
    daemon.opens_at(SERVER[0]);
    daemon.close();
}

/// The kernel may be short of memory for a moment.
#[test]
fn a_filter_that_was_refused_is_tried_again() {
    needs!(Laboratory, Knock08, Tool("strace"));
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    let refused = "setsockopt:error=ENOMEM:when=1";
    let strace = lab.server.inject(daemon.process.id(), refused);
    let new = "192.0.2.9";
    lab.server.add_address("eth0", new);
    let said = "knocks at a new address may not be heard";
    daemon.said(said, 1);
    // It is tried every second.
    wait_until("the filter", || {
        let is_set = |line: &String| line.contains("SO_ATTACH_FILTER") && line.ends_with("= 0");
        strace.lines().iter().any(is_set)
    });
    strace.kill();
    daemon.opens_at(new);
    assert_eq!(daemon.process.count(said), 1);
    daemon.close();
}

/// Of every kind that an administrator, a router or the kernel itself gives.
#[test]
fn an_address_of_every_kind_is_knocked_at() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    let set = |key: &str| {
        lab.server
            .run(&format!("sysctl -qw net.ipv6.conf.eth0.{key}"));
    };
    set("use_tempaddr=2");
    set("accept_dad=0");
    let (four, six) = ("198.51.100", "2001:db8:5:");
    lab.client
        .ip(&format!("route add {four}.0/24 dev eth0 src 192.0.2.77"));
    lab.client
        .ip(&format!("route add {six}:/64 dev eth0 src 2001:db8::77"));
    // Nobody is asked over a wire for an address of lo (RFC 4861 asks an interface).
    lab.client
        .ip(&format!("route add {six}:5 via {}", SERVER[1]));
    for (words, address) in [
        (format!("{four}.1/24 dev eth0"), format!("{four}.1")),
        // Secondary, since it is of the same network.
        (format!("{four}.2/24 dev eth0"), format!("{four}.2")),
        (
            format!("{four}.3 peer 203.0.113.3 dev eth0"),
            format!("{four}.3"),
        ),
        // Of another interface, as a service's address is.
        (format!("{four}.4/32 dev lo"), format!("{four}.4")),
        (format!("{six}:5/128 dev lo"), format!("{six}:5")),
        // Deprecated (RFC 4862, section 5.5.4).
        (
            format!("{six}:1/64 dev eth0 preferred_lft 0 nodad"),
            format!("{six}:1"),
        ),
        (
            format!("{six}:2/64 dev eth0 mngtmpaddr nodad"),
            format!("{six}:2"),
        ),
    ] {
        lab.server.ip(&format!("address add {words}"));
        if address.contains(':') {
            lab.server.wait_for_address(&address);
        }
        daemon.opens_at(&address);
    }
    // Temporary (RFC 8981): the kernel has drawn it for the last one.
    let temporary = wait_for("a temporary address", || {
        let listed = lab.server.run("ip -o -6 address show dev eth0 temporary");
        let after = listed.split_once("inet6 ")?.1;
        Some(after.split_once('/')?.0.to_owned())
    });
    assert!(temporary.starts_with("2001:db8:5:"), "{temporary}");
    daemon.opens_at(&temporary);
    daemon.opens_at(SERVER[0]);
    daemon.close();
}
