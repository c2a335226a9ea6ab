//! A packet that passes a bridge's port and then the bridge counts once.

use crate::listening::ListeningDaemon;
use crate::site::{KNOCK, Site};
use crate::support::events::{complete, reset};
use crate::support::{Lab, SERVER, SERVER_MAC, wait_until};

/// Makes the server's wire a port of a bridge that has its addresses.
fn bridge(lab: &Lab) {
    lab.server.ip(&format!(
        "address flush dev eth0\n\
         link add br0 address {SERVER_MAC} type bridge\n\
         link set br0 up\n\
         link set eth0 master br0"
    ));
    for server in SERVER {
        lab.server.add_address("br0", server);
    }
    wait_until("the bridge to forward", || {
        let port = lab.server.run("ip -o -d link show dev eth0");
        port.contains("state forwarding")
    });
}

#[test]
fn a_bridged_packet_counts_once_whether_the_port_or_the_bridge_is_named() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    bridge(&lab);
    ListeningDaemon::opens_with_each(
        &lab,
        &[
            "",
            "interfaces = [\"eth0\", \"br0\"]",
            "interfaces = [\"eth0\"]",
            "interfaces = [\"br0\"]",
        ],
    );
}

#[test]
fn a_wire_may_become_a_port_and_leave_again() {
    needs!(Laboratory, Knock08);
    let lab = Lab::new();
    let mut daemon = ListeningDaemon::open(&lab, "");
    for _ in 0..2 {
        SERVER.iter().for_each(|server| daemon.opens_at(server));
        bridge(&lab);
        SERVER.iter().for_each(|server| daemon.opens_at(server));
        lab.server.ip("link del br0");
        for server in SERVER {
            lab.server.add_address("eth0", server);
        }
    }
    SERVER.iter().for_each(|server| daemon.opens_at(server));
    daemon.close();
}

/// One datagram must not be taken for two. The matcher would know most repetitions by
/// themselves; a door of one step, which is knocked at above, is open before it could.
#[test]
fn a_repeated_step_over_a_bridge_is_not_made_twice() {
    needs!(Laboratory);
    let lab = Lab::new();
    bridge(&lab);
    let text = r#"
        interfaces = ["eth0", "br0"]
        [door.twice]
        sequence      = ["7401/udp", "7401/udp", "7402/tcp"]
        start_command = "echo twice, once"
    "#;
    let site = Site::new(&lab, text);
    let mut daemon = site.start("-D");
    for server in SERVER {
        let knock = |steps: &str| lab.client.run(&format!("{KNOCK} {server} {steps}"));
        knock("7401:udp 7402");
        daemon.wait_for_event(&reset(1).at("twice"));
        knock("7401:udp 7401:udp 7402");
    }
    daemon.wait_for_event(&complete().at("twice").from("2001:db8::77"));
    assert_eq!(daemon.count_events(&reset(1)), 2);
    wait_until("the commands", || daemon.count(": twice, once") == 2);
    let (_, lines) = daemon.terminate();
    let ran = lines.iter().filter(|line| line.contains(": twice, once"));
    assert_eq!(ran.count(), 2);
}
