//! Interfaces are made, deleted and renamed while the daemon listens.

use crate::listening::ListeningDaemon;
use crate::support::events::{complete, sources};
use crate::support::{CLIENT, Lab, SERVER};

#[test]
fn an_interface_may_be_deleted_and_created_again() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    for keys in ["", "interfaces = [\"eth0\"]", "interfaces = [\"et?*\"]"] {
        let mut daemon = ListeningDaemon::open(&lab, keys);
        for round in 1..=2 {
            SERVER.iter().for_each(|server| daemon.opens_at(server));
            lab.server.ip("link del eth0");
            daemon.said("interface eth0 is gone", round);
            assert!(!daemon.status_has("listening", "eth0"));
            lab.lay_wire();
            daemon.said("interface eth0 is there: listening on it", round);
        }
        SERVER.iter().for_each(|server| daemon.opens_at(server));
        daemon.close();
    }
}

#[test]
fn an_interface_may_be_renamed_and_renamed_back() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let rename = |from: &str, to: &str| {
        // Down, for kernels before 6.2 rename nothing that is up; down takes the IPv6
        // addresses along.
        lab.server.ip(&format!(
            "link set {from} down\nlink set {from} name {to}\nlink set {to} up"
        ));
        lab.server.add_address(to, SERVER[1]);
        lab.server.wait_for_carrier(to);
        lab.client.wait_for_carrier("eth0");
    };
    let mut named = ListeningDaemon::open(&lab, "interfaces = [\"eth0\", \"wan*\"]");
    for round in 1..=2 {
        SERVER.iter().for_each(|server| named.opens_at(server));
        rename("eth0", "lan0");
        named.said(
            "interface eth0 is now called lan0, which is not listened to",
            round,
        );
        SERVER.iter().for_each(|server| named.ignores(server));
        assert_eq!(named.status()["waiting_for"].to_string(), "[\"eth0\"]");
        rename("lan0", "wan7");
        named.said("interface lan0 is now called wan7: listening on it", round);
        SERVER.iter().for_each(|server| named.opens_at(server));
        rename("wan7", "eth0");
        named.said("interface wan7 is now called eth0: listening on it", round);
    }
    SERVER.iter().for_each(|server| named.opens_at(server));
    named.close();
}

#[test]
fn an_interface_may_go_down_and_up() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    for round in 1..=2 {
        SERVER.iter().for_each(|server| daemon.opens_at(server));
        lab.server.ip("link set eth0 down");
        daemon.said("interface eth0 is down", round);
        lab.server.ip("link set eth0 up");
        lab.server.add_address("eth0", SERVER[1]);
        lab.server.wait_for_carrier("eth0");
        lab.client.wait_for_carrier("eth0");
        daemon.said("interface eth0 is up", round);
    }
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.close();
}

/// Moved into another namespace, and one of the same name laid in its place.
#[test]
fn an_interface_may_be_taken_by_a_container_and_given_back() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let container = lab.host("container");
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\"]");
    daemon.opens_at(SERVER[0]);
    lab.server.give("eth0", &container);
    daemon.said("interface eth0 is gone: waiting for it", 1);
    container.ip("link del eth0");
    lab.lay_wire();
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.close();
}

#[test]
fn the_daemon_may_start_before_its_interface_exists() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let host = lab.host("late");
    let mut daemon = ListeningDaemon::on(&lab, &host, "interfaces = [\"ppp0\", \"wan*\"]", "");
    daemon.said("waiting for interface ppp0: there is none of that name", 1);
    assert_eq!(daemon.status()["waiting_for"].to_string(), "[\"ppp0\"]");
    let wires = [("ppp0", "198.51.100"), ("wan3", "203.0.113")];
    for (name, net) in wires {
        host.join(name, &lab.client, name, &[]);
        host.add_address(name, &format!("{net}.1"));
        lab.client.add_address(name, &format!("{net}.77"));
        daemon.opens_at(&format!("{net}.1"));
    }
    assert_eq!(daemon.status()["waiting_for"].to_string(), "[]");
    let lines = daemon.close();
    let about = |text: &str| lines.iter().filter(|l| l.contains(text)).count();
    assert_eq!(about("waiting for interface"), 1, "{lines:?}");
    assert_eq!(about("ppp0 is there: listening on it"), 1, "{lines:?}");
    assert_eq!(about("ppp0 has no address"), 1, "{lines:?}");
}

#[test]
fn the_daemon_may_start_before_any_interface_exists() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let host = lab.host("late");
    // With no `interfaces` there may be some: the kernel's own, such as sit0.
    for keys in ["interfaces = [\"w*\"]", "interfaces = [\"ppp?\", \"wan?\"]"] {
        let mut daemon = ListeningDaemon::on(&lab, &host, keys, "");
        daemon.said(
            "waiting for an interface: there is none to listen on yet",
            1,
        );
        host.join("wan0", &lab.client, "wan0", &[]);
        host.add_address("wan0", "198.51.100.1");
        lab.client.add_address("wan0", "198.51.100.77");
        daemon.opens_at("198.51.100.1");
        daemon.close();
        host.ip("link del wan0");
    }
}

#[test]
fn only_the_interfaces_that_are_named_are_listened_on() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    for (name, net) in [("eth1", "198.51.100"), ("eth2", "203.0.113")] {
        lab.server.join(name, &lab.client, name, &[]);
        lab.server.add_address(name, &format!("{net}.1"));
        lab.client.add_address(name, &format!("{net}.77"));
    }
    let mut daemon = ListeningDaemon::open(&lab, "interfaces = [\"eth0\", \"eth1\"]");
    for server in [SERVER[0], SERVER[1], "198.51.100.1"] {
        daemon.opens_at(server);
        daemon.ignores("203.0.113.1");
    }
    // By the one interface for an address of the other.
    lab.client.ip("route add 203.0.113.1/32 dev eth0");
    daemon.opens_at("203.0.113.1");
    daemon.close();
}

#[test]
fn lo_is_listened_on_where_it_is_named() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let own = ["127.0.0.1", "127.8.9.1", "::1", SERVER[0], SERVER[1]];
    for words in ["-i any", "-i lo -i eth0"] {
        let mut daemon = ListeningDaemon::on(&lab, &lab.server, "interfaces = [\"ppp0\"]", words);
        SERVER.iter().for_each(|server| daemon.opens_at(server));
        daemon.knocked_by(&lab.server);
        own.iter().for_each(|own| daemon.opens_at(own));
        daemon.close();
    }
    let mut daemon = ListeningDaemon::open(&lab, "");
    daemon.knocked_by(&lab.server);
    own.iter().for_each(|own| daemon.ignores(own));
    daemon.knocked_by(&lab.client);
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    let lines = daemon.close();
    let mut opened = sources(&lines, &complete()).into_iter();
    let is_clients = |source: String| CLIENT.contains(&source.as_str());
    assert!(opened.all(is_clients), "{lines:?}");
}
