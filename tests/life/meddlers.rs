//! Other tools change the ruleset, while clients connect or the daemon starts.

use crate::clients::connect_throughout;
use crate::open_both;
use crate::rounds;
use crate::site::{OPEN_SSH, SSH, Site, knock};
use crate::support::{CLIENT, Lab, OTHER, Process, SERVER, SILENCE, SOON, ip, wait_until};

/// Runs a line again and again on the server, whether it succeeds or not. To be ended by
/// SIGTERM: a shell that is killed leaves its last line running.
fn again_and_again(lab: &Lab, line: &str) -> Process {
    let mut command = lab.server.command("sh");
    command.args([
        "-c",
        &format!("trap exit TERM; while :; do ({line}) 2>/dev/null; done"),
    ]);
    Process::start(&mut command)
}

/// The guard stands and both openings are there.
#[track_caller]
fn all_is_well(lab: &Lab, site: &Site<'_>) {
    assert_eq!(site.openings().len(), 2);
    let _echo = lab.server.echo(22);
    for ((own, other), server) in CLIENT.into_iter().zip(OTHER).zip(SERVER) {
        let to = (ip(server), 22);
        let _open = lab.client.connect(ip(own), to, SOON).expect_connected();
        lab.client.connect(ip(other), to, SILENCE).expect_silence();
    }
}

#[test]
fn flushes_without_end_do_nothing_to_an_owned_table() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("");
    open_both(&lab, &mut daemon);
    connect_throughout(&lab, || {
        for _ in 0..rounds(200) {
            lab.server.run("nft flush ruleset");
        }
    });
    all_is_well(&lab, &site);
    assert_eq!(daemon.count("restored"), 0);
}

#[test]
fn a_flushed_table_is_back_in_no_time_and_its_openings_with_it() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    let mut daemon = site.start("--watch");
    open_both(&lab, &mut daemon);
    let left = || -> Vec<_> {
        let openings = site.openings();
        let left = openings.iter().map(|o| o["left_ms"].as_u64());
        left.map(|left| left.expect("an end")).collect()
    };
    let mut before = left();
    // More at once would be taken for a fight.
    for round in 1..=8 {
        lab.server.run("nft flush ruleset");
        wait_until("the table", || daemon.count("restored after") == round);
        let after = left();
        assert_eq!(after.len(), 2);
        for (before, after) in before.iter().zip(&after) {
            // What was left, and not the door's own time again. The kernel counts in ticks:
            // two looks within one see the same.
            assert!(
                after <= before && before - after < 10_000,
                "{before} {after}"
            );
        }
        before = after;
    }
    let lines = daemon.lines();
    let mut times: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.split("restored after ").nth(1))
        .map(|rest| rest.trim_end_matches(" µs").parse().expect("a number"))
        .collect();
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("restored within {median} µs, at worst {worst} µs");
    let who = "nft (process ";
    assert_eq!(daemon.count(who), 8, "it is said who did it: {lines:?}");
    all_is_well(&lab, &site);
}

/// A tool that takes the table away whenever it is there, and one that also puts something
/// else there.
const FIGHTS: [&str; 2] = [
    "nft delete table inet knockd",
    "nft add table inet knockd; nft delete table inet knockd",
];

#[test]
fn a_fight_is_fought_slowly_and_said() {
    needs!(Laboratory);
    for fight in FIGHTS {
        let lab = Lab::new();
        let site = Site::new(&lab, SSH);
        let mut daemon = site.start("--watch");
        open_both(&lab, &mut daemon);
        let other = again_and_again(&lab, fight);
        daemon.wait_for_line("again: it is put back in");
        // Each costs a second from here on.
        let then = daemon.count("restored after");
        wait_until("the fight to go on", || {
            daemon.count("restored after") >= then + 3
        });
        let said = daemon.count("again: it is put back in");
        assert!(
            said <= 5,
            "said {said} times\n{}",
            daemon.lines().join("\n")
        );
        // It hears and answers all the while.
        knock(&lab, SERVER[0], OPEN_SSH);
        site.run("status");
        other.terminate();
        wait_until("the guard", || site.openings().len() == 2);
        all_is_well(&lab, &site);
        let (status, _) = daemon.terminate();
        assert!(status.success());
    }
}

#[test]
fn a_daemon_that_starts_amid_flushes_guards_when_they_end() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, SSH);
    for _ in 0..rounds(5) {
        let other = again_and_again(&lab, "nft flush ruleset");
        let mut daemon = Process::start(&mut site.command("-v --watch"));
        daemon.wait_for_line("starting up");
        other.terminate();
        open_both(&lab, &mut daemon);
        wait_until("the guard", || site.openings().len() == 2);
        all_is_well(&lab, &site);
        daemon.kill();
        lab.server.run("nft flush ruleset");
    }
}
