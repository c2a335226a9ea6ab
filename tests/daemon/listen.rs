//! Which interfaces and addresses the daemon listens on.

use crate::site::{KNOCK, OPEN_SSH, SSH, Site, knock};
use crate::support::events::{complete, opened, sources};
use crate::support::{CLIENT, Lab, SERVER};

/// A door for the knock after which everything before it was seen.
const LAST: &str = r#"
[door.last]
sequence = ["7304/tcp", "8405/udp", "9506/tcp"]
open     = ["80/tcp"]
"#;

/// Returns the sources for which the door `ssh` opened, when these addresses were knocked at.
fn heard(lab: &Lab, site: &Site<'_>, words: &str, servers: &[&str], last: &str) -> Vec<String> {
    let mut daemon = site.start(words);
    for server in servers {
        knock(lab, server, OPEN_SSH);
    }
    match last {
        "127.0.0.1" => drop(
            lab.server
                .run(&format!("{KNOCK} {last} 7304 8405:udp 9506")),
        ),
        _ => knock(lab, last, "7304 8405:udp 9506"),
    }
    daemon.wait_for_event(&complete().at("last"));
    let (_, lines) = daemon.terminate();
    sources(&lines, &complete().at("ssh"))
}

#[test]
fn with_4_nobody_is_heard_by_ipv6() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("{SSH}{LAST}"));
    let servers = [SERVER[1], SERVER[0]];
    assert_eq!(
        heard(&lab, &site, "", &servers, SERVER[0]),
        [CLIENT[1], CLIENT[0]]
    );
    assert_eq!(heard(&lab, &site, "-4", &servers, SERVER[0]), [CLIENT[0]]);
}

#[test]
fn i_beats_the_interfaces_of_the_configuration() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("interfaces = [\"eth0\"]\n{SSH}{LAST}"));
    let servers = [SERVER[0]];
    assert_eq!(heard(&lab, &site, "", &servers, SERVER[0]), [CLIENT[0]]);
    assert_eq!(heard(&lab, &site, "-i lo", &servers, "127.0.0.1"), [""; 0]);
    assert_eq!(
        heard(&lab, &site, "-i lo -i 'e*'", &servers, "127.0.0.1"),
        [""; 0]
    );
    assert_eq!(
        heard(&lab, &site, "-i lo -i e*", &servers, "127.0.0.1"),
        [CLIENT[0]]
    );
    assert_eq!(
        heard(&lab, &site, "-i any", &servers, SERVER[0]),
        [CLIENT[0]]
    );
}

#[test]
fn several_interfaces_are_heard_and_others_are_not() {
    needs!(Laboratory);
    let lab = Lab::new();
    for (interface, net) in [("eth1", 1), ("wan0", 2)] {
        lab.server.join(interface, &lab.client, interface, &[]);
        lab.server
            .add_address(interface, &format!("198.51.10{net}.1"));
        lab.client
            .add_address(interface, &format!("198.51.10{net}.77"));
    }
    let site = Site::new(
        &lab,
        &format!("interfaces = [\"eth0\", \"w*\"]\n{SSH}{LAST}"),
    );
    let servers = ["198.51.101.1", "198.51.102.1", SERVER[0]];
    let sources = heard(&lab, &site, "", &servers, SERVER[0]);
    assert_eq!(sources, ["198.51.102.77", CLIENT[0]]);
}

/// The daemon waits for an interface that is not there, and listens on it when it comes.
#[test]
fn an_interface_may_come_later() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("interfaces = [\"eth1\"]\n{SSH}"));
    let mut daemon = site.start("");
    daemon.wait_for_line("waiting for interface eth1");
    lab.server.join("eth1", &lab.client, "eth1", &[]);
    lab.server.add_address("eth1", "198.51.100.1");
    lab.client.add_address("eth1", "198.51.100.77");
    daemon.wait_for_line("interface eth1 has the address 198.51.100.1");
    knock(&lab, "198.51.100.1", OPEN_SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("198.51.100.77"));
}

#[test]
fn of_a_label_its_address_alone_is_knocked_at() {
    needs!(Laboratory);
    let lab = Lab::new();
    lab.server
        .run("ip addr add 192.0.2.5/24 dev eth0 label eth0:1");
    for (configuration, words) in [("", "-i eth0:1"), ("interfaces = [\"eth0:1\"]", "")] {
        let site = Site::new(&lab, &format!("{configuration}\n{SSH}{LAST}"));
        // One opening of the same source would look like the other.
        let others = heard(&lab, &site, words, &[SERVER[0], SERVER[1]], "192.0.2.5");
        assert_eq!(others, [""; 0], "{words}");
        let labelled = heard(&lab, &site, words, &["192.0.2.5"], "192.0.2.5");
        assert_eq!(labelled, [CLIENT[0]], "{words}");
    }
}

#[test]
fn a_door_rests_for_whom_it_has_opened() {
    needs!(Laboratory);
    let lab = Lab::new();
    let game = "[door.game]\nsequence = [\"8211/udp\"]\nseq_cooldown = \"1h\"\n\
                start_command = \"true\"\n";
    let site = Site::new(&lab, &format!("{game}{SSH}{LAST}"));
    let mut daemon = site.start("");
    for server in [SERVER[0], SERVER[0], SERVER[1], SERVER[0], SERVER[1]] {
        knock(&lab, server, "8211:udp");
    }
    knock(&lab, SERVER[0], "7304 8405:udp 9506");
    daemon.wait_for_event(&complete().at("last"));
    let (_, lines) = daemon.terminate();
    let opened = sources(&lines, &complete().at("game"));
    assert_eq!(opened, CLIENT, "{lines:?}");
    let runs = lines.iter().filter(|l| l.contains("game: running command"));
    assert_eq!(runs.count(), 2, "{lines:?}");
}
