//! A knock whose opening the kernel does not take is neither logged nor counted as opened.

use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::events::{complete, opened};
use crate::support::{CLIENT, Lab, Process, SERVER, wait_for};

/// A door that fills a set of the administrator's, and one that does nothing but run a command.
const MORE: &str = r#"
[door.web]
sequence = ["7004/tcp", "8105/udp", "9206/tcp"]
add      = { table = "inet filter", set = "knocked", for = "1h" }

[door.run]
sequence = ["7007/tcp", "8108/udp", "9209/tcp"]
start_command = "true"
"#;
const OPEN_WEB: &str = "7004 8105:udp 9206";
const RUN: &str = "7007 8108:udp 9209";

/// The administrator's table, with room for so many.
fn filter(lab: &Lab, set: &str) {
    lab.server.nft(&format!(
        "table inet filter\ndelete table inet filter\ntable inet filter {{ set knocked {{ {set} }}; }}"
    ));
}

/// How many doors the daemon has opened, by its own account.
fn opened_count(site: &Site<'_>) -> u64 {
    let status = site.run("status --json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["opened"].as_u64().expect("a number")
}

/// Knocks in vain; what the daemon says why.
#[track_caller]
fn in_vain(lab: &Lab, daemon: &mut Process, door: &str, ports: &str) -> String {
    let before = daemon.count("not opened");
    knock(lab, SERVER[0], ports);
    let said = wait_for("the line", || {
        let lines = daemon.lines();
        let mut lines = lines.iter().filter(|line| line.contains("not opened"));
        lines.nth(before).cloned()
    });
    let head = format!("{}: {door}: not opened: ", CLIENT[0]);
    assert!(said.contains(&head), "{said}");
    assert_eq!(daemon.count_events(&complete()), 0, "{:#?}", daemon.lines());
    assert_eq!(daemon.count(": opened "), 0, "{:#?}", daemon.lines());
    said
}

#[test]
fn what_the_kernel_does_not_have_is_not_said_to_be_open() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &format!("{SSH}{MORE}"));
    // A set that is not there, one that does not fit, one that is full.
    let mut daemon = site.start("");
    let said = in_vain(&lab, &mut daemon, "web", OPEN_WEB);
    assert!(said.contains("knocked is not there yet"), "{said}");
    filter(&lab, "type ipv4_addr; flags interval;");
    daemon.wait_for_line("knocked cannot be used");
    let said = in_vain(&lab, &mut daemon, "web", OPEN_WEB);
    assert!(said.contains("cannot be used"), "{said}");
    daemon.terminate();
    filter(
        &lab,
        "type ipv4_addr; flags timeout; size 1; elements = { 192.0.2.99 };",
    );
    let mut daemon = site.start("");
    let said = in_vain(&lab, &mut daemon, "web", OPEN_WEB);
    assert!(said.contains("is full"), "{said}");
    let refused = site.try_run(&format!("open web {}", CLIENT[0]));
    assert!(!refused.status.success(), "{refused:?}");
    // The table is gone by hand.
    site.run("clear");
    let said = in_vain(&lab, &mut daemon, "ssh", OPEN_SSH);
    assert!(said.contains("the table was cleared by hand"), "{said}");
    assert_eq!(opened_count(&site), 0);
    // A command needs no table; and all is well again.
    knock(&lab, SERVER[0], RUN);
    daemon.wait_for_event(&complete().at("run"));
    site.reload(&daemon);
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&complete().at("ssh"));
    daemon.wait_for_event(&opened("22/tcp").at("ssh"));
    assert_eq!(opened_count(&site), 2);
    let mut lines = daemon.lines().into_iter();
    // A source to which the port is open for longer already is logged as opened once more.
    knock(&lab, SERVER[0], OPEN_SSH);
    wait_for("the second", || {
        (daemon.count_events(&complete().at("ssh")) == 2).then_some(())
    });
    assert!(lines.any(|line| line.contains("ssh: Stage 3")));
}

#[test]
fn a_table_deleted_by_hand_is_put_back_and_opened() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("--watch");
    lab.server.run("nft delete table inet knockd");
    daemon.wait_for_line("deleted the table: restored");
    knock(&lab, SERVER[0], OPEN_SSH);
    daemon.wait_for_event(&complete().at("ssh"));
    assert_eq!(site.openings().len(), 1);
}
