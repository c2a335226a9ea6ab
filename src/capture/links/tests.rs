//! Messages in, changes and judgements out, without a kernel.

use std::net::IpAddr;

use proptest::prelude::*;

use super::change::LinkChange;
use super::message::{AddressDetails, LinkInfo, RouteDump, RouteMessage, broadcasts_of, read};
use super::table::LinkTable;
use crate::model::Pattern;
use crate::netlink::Messages;

fn link(index: u32, name: &str) -> LinkInfo {
    LinkInfo {
        index,
        name: name.to_owned(),
        alternatives: Vec::new(),
        up: true,
        loopback: name == "lo",
        master: None,
    }
}

fn port(index: u32, name: &str, master: u32) -> LinkInfo {
    LinkInfo {
        master: Some(master),
        ..link(index, name)
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn dump(messages: Vec<RouteMessage>) -> RouteDump {
    RouteDump {
        messages,
        is_whole: true,
    }
}

fn table(patterns: &[&str], links: Vec<LinkInfo>) -> LinkTable {
    let patterns: Vec<_> = patterns.iter().map(|text| Pattern::new(text)).collect();
    let mut table = LinkTable::new(&patterns);
    table.replace(dump(links.into_iter().map(RouteMessage::Link).collect()));
    table.settle();
    table
}

#[test]
fn all_interfaces_but_lo_are_listened_on_unless_named() {
    let links = || vec![link(1, "lo"), link(2, "eth0"), link(3, "ppp0")];
    assert_eq!(table(&[], links()).listening(), ["eth0", "ppp0"]);
    assert_eq!(table(&["lo"], links()).listening(), ["lo"]);
    assert_eq!(table(&["ppp*", "eth1"], links()).listening(), ["ppp0"]);
    assert_eq!(table(&["ppp*", "eth1"], links()).missing(), ["eth1"]);
    assert!(table(&["wg*"], links()).missing().is_empty());
}

#[test]
fn a_link_is_known_by_its_other_names_too() {
    let mut eth0 = link(2, "eth0");
    eth0.alternatives = vec!["enp0s3".to_owned(), "lan".to_owned()];
    let table = table(&["lan"], vec![eth0]);
    assert_eq!(table.listening(), ["eth0"]);
    assert!(table.missing().is_empty());
}

#[test]
fn a_frame_counts_once_however_bridges_and_bonds_are_stacked() {
    let links = || {
        vec![
            port(2, "eth0", 4),
            port(3, "eth1", 4),
            port(4, "bond0", 5),
            link(5, "br0"),
            link(6, "eth2"),
        ]
    };
    assert_eq!(table(&[], links()).listening(), ["br0", "eth2"]);
    // The bond in between is not listened to, the bridge is.
    assert_eq!(table(&["eth0", "br0"], links()).listening(), ["br0"]);
    // Where neither is listened to, the port is.
    assert_eq!(
        table(&["eth*"], links()).listening(),
        ["eth0", "eth1", "eth2"]
    );
    // A ring of masters, which no kernel makes, has an end.
    let ring = vec![port(2, "a", 3), port(3, "b", 2)];
    assert!(table(&[], ring).listening().is_empty());
}

#[test]
fn a_port_that_leaves_its_bridge_counts_again() {
    let mut table = table(&[], vec![link(2, "br0"), port(3, "eth0", 2)]);
    assert!(!table.counts(3));
    table.apply(RouteMessage::Link(link(3, "eth0")));
    assert!(table.settle().is_empty());
    assert!(table.counts(3));
    table.apply(RouteMessage::Link(port(3, "eth0", 2)));
    table.apply(RouteMessage::LinkGone(2));
    table.settle();
    assert!(table.counts(3));
}

#[test]
fn an_address_is_own_as_long_as_one_link_has_it() {
    let links = vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")];
    let mut table = table(&["eth0"], links);
    let shared = address("192.0.2.1");
    assert!(!table.is_local(shared, 2));
    table.apply(RouteMessage::Address(2, shared, AddressDetails::default()));
    table.apply(RouteMessage::Address(2, shared, AddressDetails::default()));
    table.apply(RouteMessage::Address(3, shared, AddressDetails::default()));
    table.apply(RouteMessage::AddressGone(2, shared));
    assert!(table.is_local(shared, 2));
    table.apply(RouteMessage::LinkGone(3));
    assert!(!table.is_local(shared, 2));
    for own in ["127.8.9.1", "::1"] {
        assert!(table.is_local(address(own), 1));
        assert!(!table.is_local(address(own), 2), "on no other wire");
    }
}

#[test]
fn own_addresses_and_broadcasts_cannot_be_answered() {
    let links = vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1")];
    let mut table = table(&["lo", "eth0"], links);
    let broadcasts = || broadcasts_of(address("192.0.2.1"), 24);
    let all = ["192.0.2.0", "192.0.2.255"];
    assert_eq!(broadcasts().len(), 2);
    let beside = |broadcasts| AddressDetails {
        broadcasts,
        ..AddressDetails::default()
    };
    table.apply(RouteMessage::Address(
        3,
        address("192.0.2.1"),
        beside(broadcasts()),
    ));
    table.apply(RouteMessage::Address(
        3,
        address("192.0.2.1"),
        beside(broadcasts()),
    ));
    table.apply(RouteMessage::Address(
        2,
        address("192.0.2.2"),
        beside(broadcasts()),
    ));
    for own in ["192.0.2.1", "192.0.2.2", "127.0.0.1", "::1"] {
        assert!(!table.can_answer(address(own), 2), "{own}");
        assert!(
            table.can_answer(address(own), 1),
            "{own}: itself, by the loopback"
        );
    }
    for index in [1, 2, 3] {
        assert!(!all.iter().any(|all| table.can_answer(address(all), index)));
        assert!(table.can_answer(address("192.0.2.77"), index));
    }
    // Another size of the same network; then all go.
    let more = broadcasts_of(address("192.0.2.1"), 25);
    table.apply(RouteMessage::Address(3, address("192.0.2.1"), beside(more)));
    assert!(!table.can_answer(address("192.0.2.127"), 2));
    table.apply(RouteMessage::AddressGone(2, address("192.0.2.2")));
    assert!(table.can_answer(address("192.0.2.255"), 2));
    table.apply(RouteMessage::LinkGone(3));
    assert!(
        ["192.0.2.0", "192.0.2.127", "192.0.2.1"]
            .iter()
            .all(|a| table.can_answer(address(a), 2))
    );
}

#[test]
fn a_network_of_two_has_no_broadcast() {
    let of = |text, length| broadcasts_of(address(text), length);
    assert_eq!(
        of("10.1.2.3", 8),
        [address("10.255.255.255"), address("10.0.0.0")]
    );
    assert_eq!(
        of("10.1.2.3", 30),
        [address("10.1.2.3"), address("10.1.2.0")]
    );
    for length in [31, 32, 33, 255] {
        assert!(of("10.1.2.3", length).is_empty(), "{length}");
    }
    assert!(of("2001:db8::1", 64).is_empty());
}

#[test]
fn a_loopback_is_one_by_its_type() {
    let mut odd = vec![link(1, "lo"), link(2, "eth0"), link(3, "looped")];
    for link in &mut odd {
        link.loopback = link.name == "looped";
    }
    assert_eq!(table(&[], odd).listening(), ["eth0", "lo"]);
}

#[test]
fn only_interfaces_that_are_listened_to_have_changes() {
    let mut table = table(&["eth0", "wan*"], vec![link(1, "lo")]);
    let name = |name: &str| name.to_owned();
    let own = address("2001:db8::1");
    table.apply(RouteMessage::Link(link(2, "eth0")));
    table.apply(RouteMessage::Link(link(3, "dummy0")));
    table.apply(RouteMessage::Address(3, own, AddressDetails::default()));
    assert_eq!(
        table.settle(),
        [
            LinkChange::Appeared { name: name("eth0") },
            LinkChange::NoAddress { name: name("eth0") }
        ]
    );
    table.apply(RouteMessage::Address(2, own, AddressDetails::default()));
    table.apply(RouteMessage::Address(2, own, AddressDetails::default()));
    table.apply(RouteMessage::AddressGone(2, own));
    assert_eq!(
        table.settle(),
        [
            LinkChange::AddressAdded {
                name: name("eth0"),
                address: own
            },
            LinkChange::AddressRemoved {
                name: name("eth0"),
                address: own
            },
            LinkChange::NoAddress { name: name("eth0") },
        ]
    );
    // Replaced by another address in one batch: the interface was never without.
    table.apply(RouteMessage::Address(2, own, AddressDetails::default()));
    table.apply(RouteMessage::AddressGone(2, own));
    table.apply(RouteMessage::Address(
        2,
        address("192.0.2.1"),
        AddressDetails::default(),
    ));
    let last = table.settle();
    assert!(
        !last.contains(&LinkChange::NoAddress { name: name("eth0") }),
        "{last:?}"
    );

    let mut down = link(2, "eth0");
    down.up = false;
    table.apply(RouteMessage::Link(down));
    table.apply(RouteMessage::Link(link(2, "eth0")));
    table.apply(RouteMessage::Link(link(2, "eth0")));
    table.apply(RouteMessage::Link(link(2, "lan0")));
    table.apply(RouteMessage::Link(link(2, "wan0")));
    assert_eq!(
        table.settle(),
        [
            LinkChange::Down { name: name("eth0") },
            LinkChange::Up { name: name("eth0") },
            LinkChange::Renamed {
                from: name("eth0"),
                to: name("lan0"),
                listened: false,
            },
            LinkChange::Renamed {
                from: name("lan0"),
                to: name("wan0"),
                listened: true,
            },
        ]
    );
    assert_eq!(table.missing(), ["eth0"]);
    table.apply(RouteMessage::LinkGone(2));
    table.apply(RouteMessage::LinkGone(2));
    assert_eq!(table.settle(), [LinkChange::Gone { name: name("wan0") }]);
}

#[test]
fn a_new_look_finds_the_changes_that_were_missed() {
    let mut table = table(&[], vec![link(2, "eth0"), link(3, "eth1")]);
    let (old, new) = (address("192.0.2.1"), address("192.0.2.2"));
    table.apply(RouteMessage::Address(2, old, AddressDetails::default()));
    table.apply(RouteMessage::Address(3, old, AddressDetails::default()));
    table.settle();
    table.replace(dump(vec![
        RouteMessage::Link(link(2, "eth0")),
        RouteMessage::Link(link(4, "eth1")),
        RouteMessage::Address(2, new, AddressDetails::default()),
    ]));
    let name = |name: &str| name.to_owned();
    assert_eq!(
        table.settle(),
        [
            LinkChange::AddressRemoved {
                name: name("eth0"),
                address: old
            },
            LinkChange::Gone { name: name("eth1") },
            LinkChange::Appeared { name: name("eth1") },
            LinkChange::AddressAdded {
                name: name("eth0"),
                address: new
            },
        ]
    );
    assert!(table.is_local(new, 2) && !table.is_local(old, 2));
    assert!(table.counts(4) && !table.knows(3));
}

#[test]
fn an_interrupted_dump_takes_nothing_for_gone() {
    let mut table = table(&[], vec![link(2, "eth0"), link(3, "eth1")]);
    let own = address("192.0.2.1");
    table.apply(RouteMessage::Address(2, own, AddressDetails::default()));
    table.settle();
    table.replace(RouteDump {
        messages: vec![RouteMessage::Link(link(4, "eth2"))],
        is_whole: false,
    });
    let name = "eth2".to_owned();
    assert_eq!(table.settle(), [LinkChange::Appeared { name }]);
    assert_eq!(table.listening(), ["eth0", "eth1", "eth2"]);
    assert!(table.is_local(own, 2));
}

proptest! {
    /// Messages that are whole, with anything in them.
    #[test]
    fn odd_messages_do_not_panic(
        kind in prop::sample::select(vec![16_u16, 17, 20, 21, 24]),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..4),
        cut in 0..20_usize,
    ) {
        let mut datagram = Vec::new();
        for payload in payloads {
            datagram.extend(u32::try_from(16 + payload.len()).expect("short").to_ne_bytes());
            datagram.extend(kind.to_ne_bytes());
            datagram.extend([0; 10]);
            datagram.extend(payload);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        datagram.truncate(datagram.len() - cut.min(datagram.len()));
        for message in Messages(&datagram) {
            let _ = read(&message);
        }
    }
}

#[test]
fn new_patterns_hold_at_once() {
    let mut table = table(&["eth0"], vec![link(2, "eth0"), link(3, "eth1")]);
    table.set_patterns(&[Pattern::new("eth1"), Pattern::new("eth2")]);
    assert!(!table.counts(2) && table.counts(3));
    assert_eq!(table.missing(), ["eth2"]);
    assert_eq!(table.without_address(), ["eth1"]);
}

#[test]
fn only_the_addresses_of_a_label_are_knocked_at() {
    let mut table = table(&["eth0:1"], vec![link(2, "eth0"), link(3, "eth1")]);
    let [own, first, tenth, other] =
        ["192.0.2.1", "192.0.2.5", "192.0.2.10", "198.51.100.5"].map(address);
    let label = |text: &str| AddressDetails {
        label: Some(text.to_owned()),
        ..AddressDetails::default()
    };
    table.apply(RouteMessage::Address(2, own, AddressDetails::default()));
    assert_eq!(table.missing(), ["eth0:1"]);
    table.apply(RouteMessage::Address(2, first, label("eth0:1")));
    table.apply(RouteMessage::Address(2, tenth, label("eth0:10")));
    table.apply(RouteMessage::Address(3, other, label("eth1:1")));
    table.settle();
    assert!(table.missing().is_empty() && table.counts(2) && !table.counts(3));
    assert_eq!(table.listening(), ["eth0"]);
    let knocked_at =
        |table: &LinkTable| [own, first, tenth, other].map(|a| table.is_knocked_at(2, a));
    assert_eq!(knocked_at(&table), [false, true, false, false]);
    // The interface as well as the label: all its addresses, and the host's others.
    table.set_patterns(&[Pattern::new("eth0:1"), Pattern::new("eth0")]);
    assert_eq!(knocked_at(&table), [true; 4]);
    table.set_patterns(&[Pattern::new("eth0:*")]);
    assert_eq!(knocked_at(&table), [false, true, true, false]);
    table.set_patterns(&[Pattern::new("eth0:1")]);
    table.apply(RouteMessage::AddressGone(2, first));
    assert_eq!(knocked_at(&table), [false; 4]);
    assert_eq!(table.missing(), ["eth0:1"]);
}
