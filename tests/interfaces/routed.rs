//! Doors with a target: knocks at other hosts, seen as they pass.

use crate::listening::ListeningDaemon;
use crate::site::{KNOCK, OPEN_SSH, SSH, Site};
use crate::support::events::complete;
use crate::support::{CLIENT, Lab, Namespace, SERVER, ip, wait_until};

/// The host behind the router.
const BEHIND: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// Makes the laboratory's server a router, with this host behind it.
fn route(lab: &Lab, behind: &Namespace) {
    lab.server.join("lan0", behind, "eth0", &[]);
    for key in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
        lab.server.run(&format!("sysctl -qw net.{key}=1"));
    }
    for (near, far, client) in [
        ("198.51.100.1", BEHIND[0], "192.0.2.0/24"),
        ("2001:db8:7::1", BEHIND[1], "2001:db8::/64"),
    ] {
        lab.server.add_address("lan0", near);
        behind.add_address("eth0", far);
        behind.ip(&format!("route add {client} via {near}"));
    }
    for (to, via) in BEHIND.into_iter().zip(SERVER) {
        lab.client.ip(&format!("route add {to} via {via}"));
    }
}

#[test]
fn what_a_router_forwards_is_not_read() {
    needs!(Laboratory);
    let lab = Lab::new();
    let behind = lab.host("behind");
    route(&lab, &behind);
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    let knock = |to: &str| lab.client.run(&format!("{KNOCK} {to} {OPEN_SSH}"));
    for _ in 0..20 {
        BEHIND.into_iter().for_each(|to| drop(knock(to)));
    }
    SERVER.into_iter().for_each(|to| drop(knock(to)));
    for client in CLIENT {
        daemon.wait_for_event(&complete().at("ssh").from(client));
    }
    let read = site.status()["packets"]["read"].as_u64();
    assert!(
        read.is_some_and(|read| (6..30).contains(&read)),
        "{read:?} of 126"
    );
    // A knock at an address that comes later is read.
    lab.server.add_address("eth0", "192.0.2.99");
    daemon.wait_for_line("has the address 192.0.2.99");
    lab.client.run("ip neigh flush all");
    wait_until("the new address to be heard", || {
        knock("192.0.2.99");
        daemon.count_events(&complete().at("ssh").from("192.0.2.77")) > 1
    });
}

#[test]
fn what_a_router_forwards_fits_the_target_alone() {
    needs!(Laboratory);
    let lab = Lab::new();
    let behind = lab.host("behind");
    route(&lab, &behind);
    let text: String = (BEHIND.iter().enumerate())
        .map(|(i, target)| {
            format!(
                "[door.behind{i}]\n\
                 sequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
                 target = \"{target}\"\n\
                 start_command = \"echo %IP% was overheard\"\n\
                 [door.here{i}]\n\
                 sequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
                 start_command = \"echo %IP% was heard\"\n"
            )
        })
        .collect();
    for keys in ["", "interfaces = [\"eth0\"]"] {
        let site = Site::new(&lab, &format!("{keys}\n{text}"));
        let mut daemon = site.start("");
        for (i, (target, server)) in BEHIND.into_iter().zip(SERVER).enumerate() {
            for to in [target, server] {
                lab.client.run(&format!("{KNOCK} {to} {OPEN_SSH}"));
            }
            daemon.wait_for_event(&complete().at(&format!("behind{i}")));
        }
        // One at each door with a target, two at each of the two without one.
        wait_until("all to open", || daemon.count_events(&complete()) >= 6);
        assert_eq!(site.status()["opened"], 6);
        for door in ["behind0", "behind1"] {
            assert_eq!(daemon.count_events(&complete().at(door)), 1);
        }
    }
}

/// As for Wake-on-LAN, which is sent to everybody.
#[test]
fn a_target_may_be_a_broadcast_address() {
    needs!(Laboratory);
    let lab = Lab::new();
    let text = r#"
        [door.wake]
        sequence      = ["9/udp"]
        target        = "192.0.2.255"
        start_command = "echo to the network"

        [door.all]
        sequence      = ["9/udp"]
        target        = "255.255.255.255"
        start_command = "echo to all"

        [door.own]
        sequence      = ["9/udp"]
        start_command = "echo to us"
    "#;
    let site = Site::new(&lab, text);
    let mut daemon = site.start("");
    let client = lab.client.udp(ip("192.0.2.77"), 0);
    client.set_broadcast(true).expect("a socket");
    lab.client.ip("route add 255.255.255.255/32 dev eth0");
    for (to, door) in [
        ("192.0.2.255", "wake"),
        ("255.255.255.255", "all"),
        ("192.0.2.1", "own"),
    ] {
        client.send_to(&[0xff; 102], (to, 9)).expect("a way there");
        daemon.wait_for_event(&complete().at(door).from("192.0.2.77"));
    }
    assert_eq!(daemon.count_events(&complete()), 3);
}

/// Without forwarding and without a target, what is for others is nobody's.
#[test]
fn what_is_for_others_is_left_alone() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    lab.client
        .ip(&format!("route add {} via {}", BEHIND[0], SERVER[0]));
    let mut daemon = ListeningDaemon::open(&lab, "");
    daemon.opens_at(SERVER[0]);
    daemon.ignores(BEHIND[0]);
    daemon.opens_at(SERVER[0]);
    daemon.close();
}
