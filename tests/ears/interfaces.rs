//! Interfaces that come, go, and change their names.

use crate::ears::Ears;
use crate::support::{CLIENT, Lab, SERVER};

#[test]
fn deleted_and_created_again() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    for keys in ["", "interfaces = [\"eth0\"]", "interfaces = [\"et?*\"]"] {
        let mut ears = Ears::open(&lab, keys);
        for round in 1..=2 {
            SERVER.iter().for_each(|server| ears.hears(server));
            lab.server.ip("link del eth0");
            ears.said("interface eth0 is gone", round);
            assert!(!ears.status_has("listening", "eth0"));
            lab.lay_wire();
            ears.said("interface eth0 is there: listening on it", round);
        }
        SERVER.iter().for_each(|server| ears.hears(server));
        ears.close();
    }
}

#[test]
fn renamed_away_and_back() {
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
    let mut named = Ears::open(&lab, "interfaces = [\"eth0\", \"wan*\"]");
    for round in 1..=2 {
        SERVER.iter().for_each(|server| named.hears(server));
        rename("eth0", "lan0");
        named.said(
            "interface eth0 is now called lan0, which is not listened to",
            round,
        );
        SERVER.iter().for_each(|server| named.ignores(server));
        assert_eq!(named.status()["waiting_for"].to_string(), "[\"eth0\"]");
        rename("lan0", "wan7");
        named.said("interface lan0 is now called wan7: listening on it", round);
        SERVER.iter().for_each(|server| named.hears(server));
        rename("wan7", "eth0");
        named.said("interface wan7 is now called eth0: listening on it", round);
    }
    SERVER.iter().for_each(|server| named.hears(server));
    named.close();
}

#[test]
fn down_and_up() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut ears = Ears::open(&lab, "interfaces = [\"eth0\"]");
    for round in 1..=2 {
        SERVER.iter().for_each(|server| ears.hears(server));
        lab.server.ip("link set eth0 down");
        ears.said("interface eth0 is down", round);
        lab.server.ip("link set eth0 up");
        lab.server.add_address("eth0", SERVER[1]);
        lab.server.wait_for_carrier("eth0");
        lab.client.wait_for_carrier("eth0");
        ears.said("interface eth0 is up", round);
    }
    SERVER.iter().for_each(|server| ears.hears(server));
    ears.close();
}

/// Moved into another namespace, and one of the same name laid in its place.
#[test]
fn taken_by_a_container() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let container = lab.host("container");
    let mut ears = Ears::open(&lab, "interfaces = [\"eth0\"]");
    ears.hears(SERVER[0]);
    lab.server.give("eth0", &container);
    ears.said("interface eth0 is gone: waiting for it", 1);
    container.ip("link del eth0");
    lab.lay_wire();
    SERVER.iter().for_each(|server| ears.hears(server));
    ears.close();
}

#[test]
fn started_before_the_interface_exists() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let host = lab.host("late");
    let mut ears = Ears::on(&lab, &host, "interfaces = [\"ppp0\", \"wan*\"]", "");
    ears.said("waiting for interface ppp0: there is none of that name", 1);
    assert_eq!(ears.status()["waiting_for"].to_string(), "[\"ppp0\"]");
    let wires = [("ppp0", "198.51.100"), ("wan3", "203.0.113")];
    for (name, net) in wires {
        host.join(name, &lab.client, name, &[]);
        host.add_address(name, &format!("{net}.1"));
        lab.client.add_address(name, &format!("{net}.77"));
        ears.hears(&format!("{net}.1"));
    }
    assert_eq!(ears.status()["waiting_for"].to_string(), "[]");
    let lines = ears.close();
    let about = |text: &str| lines.iter().filter(|l| l.contains(text)).count();
    assert_eq!(about("waiting for interface"), 1, "{lines:?}");
    assert_eq!(about("ppp0 is there: listening on it"), 1, "{lines:?}");
    assert_eq!(about("ppp0 has no address"), 1, "{lines:?}");
}

#[test]
fn started_before_any_interface_exists() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let host = lab.host("late");
    // With no `interfaces` there may be some: the kernel's own, such as sit0.
    for keys in ["interfaces = [\"w*\"]", "interfaces = [\"ppp?\", \"wan?\"]"] {
        let mut ears = Ears::on(&lab, &host, keys, "");
        ears.said(
            "waiting for an interface: there is none to listen on yet",
            1,
        );
        host.join("wan0", &lab.client, "wan0", &[]);
        host.add_address("wan0", "198.51.100.1");
        lab.client.add_address("wan0", "198.51.100.77");
        ears.hears("198.51.100.1");
        ears.close();
        host.ip("link del wan0");
    }
}

#[test]
fn two_that_are_named_and_one_that_is_not() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    for (name, net) in [("eth1", "198.51.100"), ("eth2", "203.0.113")] {
        lab.server.join(name, &lab.client, name, &[]);
        lab.server.add_address(name, &format!("{net}.1"));
        lab.client.add_address(name, &format!("{net}.77"));
    }
    let mut ears = Ears::open(&lab, "interfaces = [\"eth0\", \"eth1\"]");
    for server in [SERVER[0], SERVER[1], "198.51.100.1"] {
        ears.hears(server);
        ears.ignores("203.0.113.1");
    }
    // By the one interface for an address of the other.
    lab.client.ip("route add 203.0.113.1/32 dev eth0");
    ears.hears("203.0.113.1");
    ears.close();
}

#[test]
fn lo_is_heard_where_it_is_named() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let own = ["127.0.0.1", "127.8.9.1", "::1", SERVER[0], SERVER[1]];
    for words in ["-i any", "-i lo -i eth0"] {
        let mut ears = Ears::on(&lab, &lab.server, "interfaces = [\"ppp0\"]", words);
        SERVER.iter().for_each(|server| ears.hears(server));
        ears.knocked_by(&lab.server);
        own.iter().for_each(|own| ears.hears(own));
        ears.close();
    }
    let mut ears = Ears::open(&lab, "");
    ears.knocked_by(&lab.server);
    own.iter().for_each(|own| ears.ignores(own));
    ears.knocked_by(&lab.client);
    SERVER.iter().for_each(|server| ears.hears(server));
    let lines = ears.close();
    let mut opened = lines.iter().filter(|line| line.contains("OPEN SESAME"));
    let is_clients = |line: &String| CLIENT.iter().any(|own| line.starts_with(own));
    assert!(opened.all(is_clients), "{lines:?}");
}
