//! Stop commands run when they are due, are put off by another knock, and run at a clean stop.

use std::time::{Duration, Instant};

use knockd::action::command::{Ending, HelperReport, HelperRequest, Phase};

use crate::helper::*;
use crate::support::wait_until;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_stop_runs_when_it_is_due() {
    let timeout = Duration::from_millis(300);
    let directory = Directory::new(&[door("d", "echo start %IP%", "echo stop %IP%", timeout)]);
    let mut daemon = directory.helper();
    let started = Instant::now();
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(output(&reports), ["start 192.0.2.7"]);
    let (reports, _) = daemon.wait_end("d", Phase::Stop);
    assert!(started.elapsed() >= timeout);
    assert!(
        matches!(reports[0], HelperReport::TimedOut { .. }),
        "{reports:?}"
    );
    assert_eq!(output(&reports), ["stop 192.0.2.7"]);
}

#[test]
fn a_knock_on_an_open_door_puts_the_stop_off_and_starts_nothing() {
    let timeout = Duration::from_millis(1500);
    let directory = Directory::new(&[door("d", "echo start", "echo stop", timeout)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait_end("d", Phase::Start);
    std::thread::sleep(Duration::from_millis(300));
    let again = Instant::now();
    daemon.start("d", "192.0.2.7");
    let reports = daemon.wait(|r| matches!(r, HelperReport::Extended { .. }));
    assert_eq!(reports.len(), 1, "{reports:?}");
    let (reports, _) = daemon.wait_end("d", Phase::Stop);
    assert!(again.elapsed() >= timeout);
    assert_eq!(output(&reports), ["stop"], "no second start");
    // It is closed: the next knock starts anew.
    daemon.start("d", "192.0.2.7");
    let (reports, _) = daemon.wait_end("d", Phase::Start);
    assert_eq!(output(&reports), ["start"]);
}

#[test]
fn a_clean_stop_runs_every_pending_stop_at_once() {
    let directory = Directory::new(&[door("d", "echo start %IP%", "echo stop %IP%", LONG)]);
    let mut daemon = directory.helper();
    for n in 0..150 {
        daemon.start("d", &format!("192.0.2.{n}"));
    }
    for _ in 0..150 {
        daemon.wait_end("d", Phase::Start);
    }
    let reports = daemon.drain();
    let mut stops: Vec<_> = output(&reports).into_iter().map(str::to_owned).collect();
    stops.sort_unstable();
    stops.dedup();
    assert_eq!(stops.len(), 150);
    assert!(stops.iter().all(|s| s.starts_with("stop 192.0.2.")));
    assert!(!directory.journal().exists(), "nothing is pending");
    let helper = daemon.client.helper();
    drop(daemon);
    wait_until("the helper's end", || !lives(helper));
}

#[test]
fn a_stop_that_will_not_end_is_ended_and_left_to_the_next_daemon() {
    let directory = Directory::new(&[]);
    let seen = directory.file("seen");
    // The first time it hangs and ignores SIGTERM, and so does what it started.
    let stop = format!(
        "echo run >> {f}; [ $(wc -l < {f}) -gt 1 ] || {{ trap '' TERM; sleep 600; sleep 600; }}",
        f = seen.display()
    );
    directory.configure(&[door("d", "true", &stop, LONG)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait_end("d", Phase::Start);
    let reports = daemon.drain();
    let killed = |r: &HelperReport| matches!(r, HelperReport::Ended { phase: Phase::Stop, ending, .. } if *ending == Ending::Signal(9));
    assert!(reports.iter().any(killed), "{reports:?}");
    drop(daemon);
    assert!(directory.journal().exists());

    let mut daemon = directory.unready_helper();
    let (reports, ending) = daemon.wait_end("d", Phase::Stop);
    assert!(
        matches!(
            reports[0],
            HelperReport::Ready {
                pending: 1,
                overdue: 1,
                ..
            }
        ),
        "{reports:?}"
    );
    assert_eq!(ending, Ending::Code(0));
    assert_eq!(directory.read("seen").lines().count(), 2);
}

#[test]
fn a_clean_stop_waits_for_no_start_that_has_no_stop() {
    let directory = Directory::new(&[door("d", "sleep 600", "", LONG)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait(|r| matches!(r, HelperReport::Running { .. }));
    let asked = Instant::now();
    daemon.drain();
    assert!(asked.elapsed() < Duration::from_secs(20));
    kill_children(daemon.client.helper());
}

#[test]
fn a_pending_stop_outlives_a_reload_without_its_door() {
    let directory = Directory::new(&[door("d", "true", "echo stop", LONG)]);
    let mut daemon = directory.helper();
    daemon.start("d", "192.0.2.7");
    daemon.wait_end("d", Phase::Start);
    directory.configure(&[]);
    daemon.client.send(&HelperRequest::Reload).expect("sent");
    let reports = daemon.wait(|r| matches!(r, HelperReport::Ready { .. }));
    assert!(matches!(reports[0], HelperReport::Ready { pending: 1, .. }));
    let reports = daemon.drain();
    assert_eq!(output(&reports), ["stop"]);
}
