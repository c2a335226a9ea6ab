//! The daemon, the helper or both are killed: which stop commands still run, and when.

use std::fs;
use std::time::Duration;

use knockd::action::command::{HelperReport, Phase};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::helper::*;
use crate::support::{SOON, wait_until};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1500);

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed())
}

#[test]
fn after_the_daemon_was_killed_the_overdue_run_and_the_others_are_armed_again() {
    let directory = Directory::new(&[]);
    let started = directory.file("started");
    let start = format!("echo >> {}", started.display());
    let soon = door("soon", &start, "echo stop soon %IP%", SHORT);
    let late = door("late", &start, "echo stop late %IP%", LONG);
    directory.configure(&[soon, late]);
    let daemon = directory.start_daemon(&["soon", "late"], "192.0.2.7");
    wait_until("both starts", || {
        directory.read("started").lines().count() == 2
    });
    wait_until("both stops", || {
        let journal = fs::read_to_string(directory.journal()).unwrap_or_default();
        journal.lines().count() == 2
    });
    let helpers = children(daemon.id());
    assert_eq!(helpers.len(), 1);
    daemon.kill();
    wait_until("the helper's end", || !lives(helpers[0]));
    // Nobody is there when the first is due; and by then it has no door any more.
    std::thread::sleep(SHORT);
    directory.configure(&[door("late", "", "echo something else", LONG)]);

    let mut daemon = directory.unready_helper();
    let (reports, _) = daemon.wait_end("soon", Phase::Stop);
    assert!(
        matches!(
            reports[0],
            HelperReport::Ready {
                pending: 2,
                overdue: 1,
                ..
            }
        ),
        "{reports:?}"
    );
    assert_eq!(output(&reports), ["stop soon 192.0.2.7"]);
    daemon.start("late", "192.0.2.7");
    daemon.wait(|r| matches!(r, HelperReport::Extended { .. }));
    let reports = daemon.drain();
    assert_eq!(output(&reports), ["stop late 192.0.2.7"], "as it was armed");
}

#[test]
fn when_the_daemon_is_gone_what_runs_may_end() {
    let directory = Directory::new(&[]);
    let (go, end) = (directory.file("go"), directory.file("end"));
    let command = format!(
        "while [ -d {} ] && [ ! -e {} ]; do sleep 0.01; done; echo; echo; echo end > {}",
        directory.path.display(),
        go.display(),
        end.display()
    );
    directory.configure(&[door("d", &command, "true", LONG)]);
    let daemon = directory.start_daemon(&["d"], "192.0.2.7");
    let mut helpers = Vec::new();
    wait_until("a shell", || {
        helpers = children(daemon.id());
        helpers.iter().any(|h| !children(*h).is_empty())
    });
    daemon.kill();
    // The next one need not wait for it, and has the stop.
    let mut daemon = directory.unready_helper();
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    assert!(
        matches!(
            reports[0],
            HelperReport::Ready {
                pending: 1,
                overdue: 0,
                ..
            }
        ),
        "{reports:?}"
    );
    fs::write(&go, "").expect("written");
    wait_until("its end", || directory.read("end") == "end\n");
    wait_until("the helper's end", || !lives(helpers[0]));
}

/// The daemon is gone before the helper has made its first report.
#[test]
fn a_helper_whose_daemon_dies_at_once_ends_too() {
    let directory = Directory::new(&[door("d", "true", "true", LONG)]);
    let daemon = directory.unready_helper();
    let helper = daemon.client.helper();
    drop(daemon);
    wait_until("the helper's end", || !lives(helper));
}

#[test]
fn a_helper_that_is_killed_is_replaced_and_nothing_pending_is_lost() {
    let directory = Directory::new(&[door("d", "true", "echo stop", LONG)]);
    let mut daemon = directory.warded_helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait_end("d", Phase::Start);
    let old = daemon.kill_warded();
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    assert!(!fs::exists(format!("/proc/{old}")).expect("proc"), "reaped");
    let death = "signal SIGKILL".to_owned();
    assert_eq!(reports[0], HelperReport::Replaces { death });
    assert!(matches!(
        reports[1],
        HelperReport::Ready {
            pending: 1,
            overdue: 0,
            ..
        }
    ));
    assert_eq!(output(&daemon.drain()), ["stop"]);
}

#[test]
fn signals_to_the_helper_are_the_daemons_business() {
    let directory = Directory::new(&[door("d", "true", "echo stop", LONG)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait_end("d", Phase::Start);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(pid(daemon.client.helper()), signal).expect("sent");
    }
    assert_eq!(output(&daemon.drain()), ["stop"]);
}

#[test]
fn a_damaged_journal_is_told_and_the_rest_of_it_run() {
    let directory = Directory::new(&[door("d", "true", "echo stop %IP%", LONG)]);
    let mut daemon = directory.helper();
    for n in 1..=3 {
        daemon.start("d", &format!("192.0.2.{n}"));
        daemon.wait_end("d", Phase::Start);
    }
    let helper = daemon.client.helper();
    drop(daemon);
    wait_until("the helper's end", || !lives(helper));
    let journal = fs::read_to_string(directory.journal()).expect("a journal");
    let rubbish = journal.replace("\"192.0.2.2\"", "\"192.0.2.\"");
    assert_ne!(journal, rubbish);
    fs::write(directory.journal(), rubbish).expect("written");
    let mut daemon = directory.unready_helper();
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    assert!(
        matches!(&reports[0], HelperReport::JournalFault { message } if message.contains("damaged"))
    );
    let reports = daemon.drain();
    let mut stops = output(&reports);
    stops.sort_unstable();
    assert_eq!(stops, ["stop 192.0.2.1", "stop 192.0.2.3"]);
}

#[test]
fn a_hundred_pending_stops_survive_a_kill() {
    let directory = Directory::new(&[door("d", "true", "echo stop %IP%", LONG)]);
    let mut daemon = directory.warded_helper();
    for n in 0..100 {
        daemon.start("d", &format!("192.0.2.{n}"));
    }
    // If a start is reported, its stop is on the disk.
    let mut told = 0;
    while told < 100 {
        let report = daemon.next(SOON).expect("alive");
        told += usize::from(matches!(report, HelperReport::Running { .. }));
    }
    daemon.kill_warded();
    daemon.wait(|r| matches!(r, HelperReport::Ready { pending: 100, .. }));
    assert_eq!(output(&daemon.drain()).len(), 100);
}

/// A helper is killed while starts run, are over, or have not begun: whatever has been started is
/// stopped by the next one.
#[test]
fn whenever_it_is_killed_what_was_started_is_stopped() {
    for reports in [1, 2, 3, 10, 40, 90, 150] {
        let directory = Directory::new(&[]);
        let (started, stopped) = (directory.file("started"), directory.file("stopped"));
        let start = format!("echo %IP% >> {}", started.display());
        let stop = format!("echo %IP% >> {}", stopped.display());
        directory.configure(&[door("d", &start, &stop, LONG)]);
        let mut daemon = directory.warded_helper();
        for n in 0..100 {
            daemon.start("d", &format!("192.0.2.{n}"));
        }
        for _ in 0..reports {
            daemon.next(SOON).expect("alive");
        }
        daemon.kill_warded();
        daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
        daemon.drain();
        let stopped = directory.read("stopped");
        let stopped: Vec<_> = stopped.lines().collect();
        for source in directory.read("started").lines() {
            assert!(
                stopped.contains(&source),
                "{source} after {reports} reports"
            );
        }
    }
}

#[test]
fn a_journal_that_could_not_be_written_is_written_with_the_next_knock() {
    let directory = Directory::new(&[door("d", "true", "echo stop %IP%", LONG)]);
    let mut daemon = directory.warded_helper();
    let in_the_way = directory.state().join("stops.journal.new");
    fs::create_dir(&in_the_way).expect("made");
    daemon.start("d", "192.0.2.1");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    let faults = |r: &&HelperReport| matches!(r, HelperReport::JournalFault { .. });
    assert_eq!(reports.iter().filter(faults).count(), 1, "{reports:?}");
    assert!(!directory.journal().exists());
    fs::remove_dir(&in_the_way).expect("removed");
    daemon.start("d", "192.0.2.2");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(reports.iter().filter(faults).count(), 0, "{reports:?}");
    daemon.kill_warded();
    daemon.wait(|r| matches!(r, HelperReport::Ready { pending: 2, .. }));
}
