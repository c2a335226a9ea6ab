//! Interfaces and addresses of a real kernel, as they come and go.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Instant;

use knockd::capture::{LinkChange, Links};
use knockd::model::Pattern;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::netns::{index, ip, ip_batch, run};
use crate::support::{SOON, ip as address};

/// The number of `lo`, in every namespace.
const LO: u32 = 1;

fn patterns(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name)).collect()
}

fn name(name: &str) -> String {
    name.to_owned()
}

/// Reads messages until `is_so`, and returns the changes. Fails if that is never so.
fn until(links: &mut Links, is_so: impl Fn(&Links, &[LinkChange]) -> bool) -> Vec<LinkChange> {
    let end = Instant::now() + SOON;
    let mut changes = Vec::new();
    loop {
        changes.extend(links.on_readable().expect("news"));
        if is_so(links, &changes) {
            return changes;
        }
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{changes:?}");
        let mut fds = [PollFd::new(links.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(left).expect("seconds")).expect("poll");
    }
}

#[test]
fn an_interface_that_comes_goes_and_is_renamed_is_followed() {
    run(
        "links::an_interface_that_comes_goes_and_is_renamed_is_followed",
        || {
            let mut links = Links::open(&patterns(&["eth0", "wan*"])).expect("links");
            assert_eq!(links.missing(), ["eth0"]);
            assert!(links.listening().is_empty());
            for _ in 0..3 {
                ip("link add eth0 type veth peer name there");
                let changes = until(&mut links, |links, _| links.listening() == ["eth0"]);
                assert!(changes.contains(&LinkChange::Appeared { name: name("eth0") }));
                assert!(changes.contains(&LinkChange::NoAddress { name: name("eth0") }));
                let eth0 = index("eth0");
                assert!(links.counts(eth0) && links.knows(index("there")));
                assert!(!links.counts(index("there")) && !links.counts(index("lo")));
                assert!(links.missing().is_empty());

                ip("link set eth0 name lan0");
                until(&mut links, |links, _| links.missing() == ["eth0"]);
                assert!(!links.counts(eth0));
                ip("link set lan0 name wan7");
                until(&mut links, |links, _| links.counts(eth0));
                ip("link set wan7 up");
                ip("link set wan7 down");
                until(&mut links, |_, changes| {
                    changes.contains(&LinkChange::Down { name: name("wan7") })
                });
                ip("link del wan7");
                until(&mut links, |_, changes| {
                    changes.contains(&LinkChange::Gone { name: name("wan7") })
                });
                assert!(!links.knows(eth0));
            }
        },
    );
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    run("links::addresses_that_come_and_go_are_followed", || {
        ip("link set lo up");
        ip("link add eth0 type veth peer name there");
        ip("addr add 198.51.100.1/24 dev there");
        let mut links = Links::open(&patterns(&["eth0"])).expect("links");
        assert_eq!(links.without_address(), ["eth0"]);
        // Of an interface not listened to, and of lo.
        for own in ["198.51.100.1", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(links.is_local(address(own), LO), "{own}");
        }
        let cases = [
            ("192.0.2.1/24", "192.0.2.1"),
            // A secondary address, one with a peer, a deprecated one, one for a link.
            ("192.0.2.2/24", "192.0.2.2"),
            ("203.0.113.1 peer 203.0.113.2", "203.0.113.1"),
            ("2001:db8::1/64 preferred_lft 0", "2001:db8::1"),
            ("2001:db8::2/64 nodad", "2001:db8::2"),
        ];
        for (words, own) in cases {
            assert!(!links.is_local(address(own), LO), "{own}");
            ip(&format!("addr add {words} dev eth0"));
            let added = LinkChange::AddressAdded {
                name: name("eth0"),
                address: address(own),
            };
            until(&mut links, |_, changes| changes.contains(&added));
            assert!(links.is_local(address(own), LO), "{own}");
        }
        assert!(!links.is_local(address("203.0.113.2"), LO));
        assert!(links.without_address().is_empty());

        ip("addr flush dev eth0");
        until(&mut links, |_, changes| {
            changes.contains(&LinkChange::NoAddress { name: name("eth0") })
        });
        for (_, own) in cases {
            assert!(!links.is_local(address(own), LO), "{own}");
        }
        ip("addr add 192.0.2.9/24 dev eth0");
        until(&mut links, |links, _| {
            links.is_local(address("192.0.2.9"), LO)
        });
        ip("link del eth0");
        until(&mut links, |links, _| {
            !links.is_local(address("192.0.2.9"), LO)
        });
        assert!(!links.is_local(address("198.51.100.1"), LO));
    });
}

#[test]
fn the_port_of_a_bridge_leaves_counting_to_the_bridge() {
    run(
        "links::the_port_of_a_bridge_leaves_counting_to_the_bridge",
        || {
            ip("link add eth0 type veth peer name there");
            ip("link add br0 type bridge");
            let mut links = Links::open(&[]).expect("links");
            assert_eq!(links.listening(), ["br0", "eth0", "there"]);
            for _ in 0..2 {
                ip("link set eth0 master br0");
                until(&mut links, |links, _| links.listening() == ["br0", "there"]);
                ip("link set eth0 nomaster");
                until(&mut links, |links, _| links.listening().len() == 3);
            }
            ip("link set eth0 master br0");
            until(&mut links, |links, _| links.listening().len() == 2);
            ip("link del br0");
            until(&mut links, |links, _| {
                links.listening() == ["eth0", "there"]
            });
            ip("link add br0 type bridge");
            ip("link set eth0 master br0");
            let links = Links::open(&patterns(&["eth0"])).expect("links");
            assert_eq!(links.listening(), ["eth0"]);
        },
    );
}

#[test]
fn a_hundred_interfaces_at_once_overflow_the_socket_and_are_known_all_the_same() {
    run(
        "links::a_hundred_interfaces_at_once_overflow_the_socket_and_are_known_all_the_same",
        || {
            let mut links = Links::open(&patterns(&["x*"])).expect("links");
            // The kernel makes of it the least it allows: some two messages.
            SockRef::from(&links)
                .set_recv_buffer_size(1)
                .expect("small");
            for round in 0..3 {
                let stays = |i: &u8| i % 2 != round % 2;
                let add = |i| {
                    format!(
                        "link add x{i} type veth peer name y{i}\n\
                         addr add 192.0.2.{i}/32 dev x{i}\n"
                    )
                };
                let del = |i| format!("link del x{i}\n");
                let all: String = (0..50).map(add).collect();
                let some: String = (0..50).filter(|i| !stays(i)).map(del).collect();
                let mut storm = ip_batch(&(all + &some));
                assert!(storm.wait().expect("ip").success());
                let changes = until(&mut links, |links, _| {
                    links.listening().len() == 25 && links.without_address().is_empty()
                });
                assert!(changes.len() >= 50, "{}", changes.len());
                for i in 0..50 {
                    let own = IpAddr::from([192, 0, 2, i]);
                    assert_eq!(links.is_local(own, LO), stays(&i), "{own}");
                }
                let rest: String = (0..50).filter(stays).map(del).collect();
                let mut storm = ip_batch(&rest);
                until(&mut links, |links, _| links.listening().is_empty());
                assert!(storm.wait().expect("ip").success());
                assert!(!links.is_local(address("192.0.2.1"), LO));
            }
        },
    );
}

#[test]
fn a_tunnel_device_is_an_interface_like_others() {
    run("links::a_tunnel_device_is_an_interface_like_others", || {
        let mut links = Links::open(&patterns(&["tun*"])).expect("links");
        ip("tuntap add tun0 mode tun");
        ip("addr add 10.0.0.1 peer 10.0.0.2 dev tun0");
        until(&mut links, |links, _| {
            links.listening() == ["tun0"] && links.is_local(address("10.0.0.1"), LO)
        });
    });
}
