//! Clocks that jump.
//!
//! Two things of the daemon know the date: the time before a line of the log file, and the journal of
//! pending stops, for dates outlive a reboot. Everything else counts on clocks that nobody can set:
//! attempts, cool-downs and deadlines on CLOCK_MONOTONIC, pending stops on CLOCK_BOOTTIME, openings in
//! the kernel. A test without root cannot set CLOCK_REALTIME. So the dates in the journal are set
//! instead, which is the same to whoever reads them; and a time namespace (time_namespaces(7)) gives
//! the daemon another CLOCK_BOOTTIME, as a reboot does.

use std::path::PathBuf;
use std::time::Duration;

use crate::site::{SSH, Site, knock};
use crate::support::need::{kernel_lacks, only_for_root};
use crate::support::{Lab, Process, SERVER, wait_until};
use crate::work::{close_all, expect_at_work, family};

const RUN: &str = "7011 8112:udp 9213";

/// A door whose stop command comes so long after it.
fn with_stop(timeout: &str) -> String {
    format!(
        "{SSH}\n[door.run]\nsequence = [\"7011/tcp\", \"8112/udp\", \"9213/tcp\"]\n\
         start_command = \"echo started for %IP%\"\ncmd_timeout = \"{timeout}\"\n\
         stop_command = \"echo stopped for %IP%\"\n"
    )
}

/// Leaves a stop of that time in the journal, as kill -9 does. Returns the journal.
#[track_caller]
fn leave_stop(lab: &Lab, site: &Site<'_>) -> PathBuf {
    let mut daemon = site.start("");
    knock(lab, SERVER[0], RUN);
    daemon.wait_for_line("run: started for 192.0.2.77");
    let folder = std::fs::read_dir(site.path("state")).expect("the state directory");
    let folder = folder.map(|entry| entry.expect("an entry").path()).next();
    let journal = folder.expect("our folder").join("stops.journal");
    wait_until("the journal", || journal.exists());
    let helpers = family(daemon.id());
    daemon.kill();
    wait_until("the helper's end", || {
        let is_there = |pid: &u32| PathBuf::from(format!("/proc/{pid}")).exists();
        !helpers.iter().any(is_there)
    });
    journal
}

/// Moves each date of the journal by so many milliseconds.
#[track_caller]
fn move_dates(journal: &PathBuf, by: i64) {
    let text = std::fs::read_to_string(journal).expect("the journal");
    let moved = text.lines().map(|line| {
        let mut stop: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let due = stop["due_ms"].as_i64().expect("a date") + by;
        stop["due_ms"] = due.into();
        format!("{stop}\n")
    });
    std::fs::write(journal, moved.collect::<String>()).expect("a file of ours");
}

const DAY: i64 = 24 * 3600 * 1000;

/// By a day, a year, and to 1970: as a clock without a battery has it.
#[test]
fn a_clock_that_was_set_forward_runs_stops_at_once_and_loses_none() {
    needs!(Laboratory);
    let lab = Lab::new();
    for days in [1, 366, 18_000] {
        let site = Site::new(&lab, &with_stop("1h"));
        let journal = leave_stop(&lab, &site);
        move_dates(&journal, -days * DAY);
        let mut daemon = site.start("");
        daemon.wait_for_line("1 stop commands are pending, 1 of them overdue");
        daemon.wait_for_line("run: stopped for 192.0.2.77");
        wait_until("an empty journal", || !journal.exists());
    }
}

#[test]
fn a_clock_that_was_set_back_puts_no_stop_off_beyond_its_time() {
    needs!(Laboratory);
    let lab = Lab::new();
    for days in [1, 366, 18_000] {
        // So long that it is not overdue by the start, and so short that it is waited for.
        let site = Site::new(&lab, &with_stop("3s"));
        let journal = leave_stop(&lab, &site);
        move_dates(&journal, days * DAY);
        let mut daemon = site.start("");
        daemon.wait_for_line("1 stop commands are pending, 0 of them overdue");
        daemon.wait_for_line("run: stopped for 192.0.2.77");
        wait_until("an empty journal", || !journal.exists());
    }
}

/// After a reboot CLOCK_BOOTTIME begins anew; a machine that was up for long before has more of it. Either
/// way a stop is due at its date.
#[test]
fn stops_outlive_a_reboot_whatever_the_clock_of_the_machine_says_then() {
    needs!(Laboratory);
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let up = std::fs::read_to_string("/proc/uptime").expect("/proc");
    let up = up
        .split('.')
        .next()
        .and_then(|text| text.parse::<i64>().ok());
    let up = up.expect("seconds");
    // Almost at the moment of its boot, and after a year.
    for offset in [1 - up, 366 * 24 * 3600] {
        let unshare = format!("unshare --time --boottime {offset} --monotonic {offset}");
        let tried = lab.server.try_run(&format!("{unshare} true"));
        if !tried.status.success() {
            return kernel_lacks("time namespaces");
        }
        let start = |site: &Site<'_>| {
            let mut daemon = Process::start(&mut site.command_by(&unshare, "-v"));
            daemon.wait_for_line("starting up, listening on");
            daemon
        };
        let site = Site::new(&lab, &with_stop("1h"));
        leave_stop(&lab, &site);
        let mut daemon = start(&site);
        daemon.wait_for_line("1 stop commands are pending, 0 of them overdue");
        expect_at_work(&lab, &site);
        close_all(&site);
        // A clean stop runs it; had it been due before, it would be said.
        assert_eq!(daemon.count("run: command timeout"), 0);
        let (status, lines) = daemon.terminate();
        assert!(status.success(), "{status}");
        let stopped = |line: &String| line.ends_with("run: stopped for 192.0.2.77");
        assert!(lines.iter().any(stopped), "{lines:?}");

        let site = Site::new(&lab, &with_stop("3s"));
        leave_stop(&lab, &site);
        let mut daemon = start(&site);
        daemon.wait_for_line("run: stopped for 192.0.2.77");
    }
}

/// The real clock of the machine: only in a machine of its own, where `KNOCKD_SET_CLOCK` allows it.
#[test]
fn root_a_clock_that_jumps_under_a_running_daemon_moves_no_deadline() {
    needs!(Laboratory, Tool("date"));
    if std::env::var_os("KNOCKD_SET_CLOCK").is_none() {
        return only_for_root("set the clock, and KNOCKD_SET_CLOCK=1 allows it");
    }
    let lab = Lab::new();
    let _echo = lab.server.echo(22);
    let site = Site::new(&lab, &with_stop("1h").replacen("1h", "6s", 1));
    let mut daemon = site.start("");
    let jump = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = i64::try_from(now.expect("after 1970").as_secs()).expect("a date");
        let to = format!("@{}", now + days * 24 * 3600);
        let mut date = std::process::Command::new("date");
        let status = date.args(["--utc", "--set", &to]).status().expect("date");
        assert!(status.success(), "date --set {to}");
    };
    knock(&lab, SERVER[0], RUN);
    daemon.wait_for_line("run: started for 192.0.2.77");
    for days in [366, -732, 366] {
        expect_at_work(&lab, &site);
        jump(days);
        let left = || site.openings().iter().map(|o| o["left_ms"].as_u64()).max();
        assert!(left().flatten() <= Some(6_000), "{:?}", site.openings());
        wait_until("the end of the opening", || site.openings().is_empty());
        assert_eq!(daemon.count("run: stopped"), 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let (status, lines) = daemon.terminate();
    assert!(status.success(), "{status}");
    let stopped = |line: &String| line.ends_with("run: stopped for 192.0.2.77");
    assert!(lines.iter().any(stopped), "{lines:?}");
}
