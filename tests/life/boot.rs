//! The order of a boot: `knockd guard` first, then the network, then the daemon.

use crate::clients::connect_throughout;
use crate::open_both;
use crate::site::{OPEN_SSH, SSH, Site, failure, knock};
use crate::support::events::opened;
use crate::support::{CLIENT, Lab, OTHER, SERVER, SILENCE, SOON, ip};

/// The kinds of daemon that may come after the guard.
const MODES: [&str; 2] = ["", "--watch"];

#[track_caller]
fn closed(lab: &Lab, own: [&str; 2]) {
    for (own, server) in own.into_iter().zip(SERVER) {
        let reach = lab.client.connect(ip(own), (ip(server), 22), SILENCE);
        reach.expect_silence();
    }
}

#[test]
fn the_guard_comes_before_the_daemon_and_lets_nobody_in() {
    needs!(Laboratory);
    for words in MODES {
        let lab = Lab::new();
        let _echo = lab.server.echo(22);
        let site = Site::new(&lab, SSH);
        assert_eq!(site.run("guard"), "");
        closed(&lab, CLIENT);
        assert_eq!(site.run("list"), "nothing is open\n");
        // Again, as who restarts the unit does.
        assert_eq!(site.run("guard"), "");
        let mut daemon = site.start(words);
        assert_eq!(daemon.count("the table is made"), 0, "it was there");
        closed(&lab, CLIENT);
        for (own, server) in CLIENT.into_iter().zip(SERVER) {
            knock(&lab, server, OPEN_SSH);
            daemon.wait_for_event(&opened("22/tcp").at("ssh").from(own));
            let reach = lab.client.connect(ip(own), (ip(server), 22), SOON);
            let _open = reach.expect_connected();
        }
        closed(&lab, OTHER);
    }
}

#[test]
fn the_guard_does_not_come_between_a_daemon_and_its_table() {
    needs!(Laboratory);
    for words in MODES {
        let lab = Lab::new();
        let site = Site::new(&lab, SSH);
        let mut daemon = site.start(words);
        open_both(&lab, &mut daemon);
        let said = site.run("guard");
        let running = format!("knockd runs already, as process {}", daemon.id());
        assert!(said.contains(&running), "{said}");
        assert!(said.contains("it guards"), "{said}");
        // Openings stay too, where the daemon has died or was stopped.
        connect_throughout(&lab, || {
            daemon.kill();
            assert_eq!(site.run("guard"), "");
            daemon = site.start(words);
            daemon.terminate();
            assert_eq!(site.run("guard"), "");
            assert_eq!(site.openings().len(), 2);
            let daemon = site.start(words);
            assert_eq!(daemon.count("2 openings live on"), 1);
        });
    }
}

#[test]
fn the_guard_stands_whatever_is_in_the_file() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    site.start("").terminate();
    site.run("clear");
    site.configure("[firewall]\ngaurd = \"drop\"\n");
    let output = site.try_run("guard");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown key `gaurd`"), "{said}");
    assert!(
        said.contains("running with the last configuration that was good"),
        "{said}"
    );
    closed(&lab, CLIENT);
    // Where there is no earlier one, nothing can be guarded, and the unit fails.
    let fresh = Site::new(&lab, "[firewall]\ngaurd = \"drop\"\n");
    let (code, said) = failure(&fresh.try_run("guard"));
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("no earlier configuration"), "{said}");
    closed(&lab, CLIENT);
}

#[test]
fn the_guard_needs_no_place_to_write() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, SSH);
    // A file where the folder should be: nobody, not even root, can make it.
    for name in ["run", "state"] {
        std::fs::write(site.path(name), "").expect("the laboratory's directory");
    }
    assert_eq!(site.run("guard"), "");
    closed(&lab, CLIENT);
}

#[test]
fn a_configuration_without_a_table_needs_no_guard() {
    needs!(Laboratory);
    let lab = Lab::new();
    let text = "[door.d]\nsequence = [\"7001/tcp\", \"8102/udp\", \"9203/tcp\"]\n\
                start_command = \"true\"\n";
    let site = Site::new(&lab, text);
    assert_eq!(site.run("guard"), "");
    assert_eq!(lab.server.run("nft list ruleset"), "");
}
