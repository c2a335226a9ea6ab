//! Thousands of openings: all that one does is right with ten thousand, and costs no more.

use std::time::{Duration, Instant};

use crate::forge::{self, BRIEF, DOORS, MORE, SSH};
use crate::rounds;
use crate::site::Site;
use crate::support::frame::source;
use crate::support::{Lab, Process, wait_for, wait_until};

/// How many sources knock before it is waited until they are heard: they find room in the
/// capture's ring.
const TOGETHER: usize = 200;

/// The processor time that the daemon has had (sched-stats.rst of the kernel), whatever else the
/// machine has to do.
fn work(daemon: &Process) -> Duration {
    let file = format!("/proc/{}/schedstat", daemon.id());
    let text = std::fs::read_to_string(file).expect("a process of ours");
    let time = text.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(time.expect("a number"))
}

/// Has sources knock, and waits until each is answered by a line with `word`; the work that
/// one was.
#[track_caller]
fn knock(
    wire: &socket2::Socket,
    daemon: &Process,
    sources: std::ops::Range<usize>,
    steps: [u16; 3],
    word: &str,
) -> Duration {
    let answered = || daemon.count(word);
    let before = work(daemon);
    let count = u32::try_from(sources.len()).expect("some");
    let mut done = answered();
    for number in sources {
        forge::knock(wire, source(number), steps);
        done += 1;
        if number.is_multiple_of(TOGETHER) {
            wait_for("the answers", || (answered() == done).then_some(()));
        }
    }
    wait_for("the answers", || (answered() == done).then_some(()));
    (work(daemon) - before) / count
}

#[test]
fn ten_thousand_are_listed_extended_closed_and_run_out() {
    let all = rounds(10_000).max(4 * TOGETHER);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    let mut daemon = site.start("");
    let opened = "ssh: opened 22/tcp";

    // What one more costs, where there is none, where there are some, and many.
    let few = (all / 10).max(2 * TOGETHER);
    let first = knock(&wire, &daemon, 0..TOGETHER, SSH, opened);
    knock(&wire, &daemon, TOGETHER..few, SSH, opened);
    let second = knock(&wire, &daemon, few..few + TOGETHER, SSH, opened);
    knock(&wire, &daemon, few + TOGETHER..all, SSH, opened);
    let third = knock(&wire, &daemon, all..all + TOGETHER, SSH, opened);
    println!("a knock with none open {first:?}, {few}: {second:?}, {all}: {third:?}");
    let most = first * 20 + Duration::from_millis(1);
    assert!(second < most && third < most, "the cost grows");
    let all = all + TOGETHER;

    // Listed, for people and machines.
    let began = Instant::now();
    assert_eq!(site.run("list").lines().count(), all);
    println!("listed in {:?}", began.elapsed());
    assert_eq!(site.openings().len(), all);

    // Extended: one, and in place of the other.
    knock(&wire, &daemon, 7..8, MORE, "more: extended 22/tcp");
    let openings = site.openings();
    assert_eq!(openings.len(), all);
    let longer = |opening: &&serde_json::Value| opening["left_ms"].as_u64() > Some(3_600_000);
    let longer: Vec<_> = openings.iter().filter(longer).collect();
    assert_eq!(longer.len(), 1);
    assert_eq!(longer[0]["source"], "10.0.0.7");

    // Closed: one, then the others, the daemon having been started anew.
    let said = site.run("close 10.0.0.8");
    assert_eq!(said, "10.0.0.8: ssh: closed 22/tcp\n");
    assert_eq!(site.openings().len(), all - 1);
    daemon.terminate();
    daemon = site.start("");
    daemon.wait_for_line(&format!("{} openings live on", all - 1));
    let began = Instant::now();
    let said = site.run("close --all");
    println!("closed in {:?}", began.elapsed());
    assert!(said.contains("10.0.0.7: more: closed 22/tcp"), "{said}");
    // More than anybody reads, and than one message holds.
    assert!(said.lines().count() < all, "{said}");
    assert!(said.ends_with("more, all of them in the log\n"), "{said}");
    assert!(site.openings().is_empty());
    wait_until("the last line", || {
        daemon.count(": closed 22/tcp") == all - 1
    });

    // Run out, each by itself and each said once.
    knock(&wire, &daemon, 0..all, BRIEF, "brief: opened 443/tcp");
    let closed = "brief: closed 443/tcp";
    wait_for("all to run out", || {
        (daemon.count(closed) == all).then_some(())
    });
    assert!(site.openings().is_empty());
    assert_eq!(daemon.count(closed), all);
}

/// The kernel's own limit, and ours.
const CAPACITY: usize = 65_536;

fn element(number: usize) -> String {
    let source = source(number);
    format!("{source} . tcp . 22 timeout 1h comment \"ssh\"")
}

#[test]
fn a_full_set_is_said_in_words_and_breaks_nothing_else() {
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    // As an earlier daemon may have left it.
    site.start("").terminate();
    // As many at once as fit a send buffer.
    for first in (1..=CAPACITY).step_by(1024) {
        let elements: Vec<_> = (first..first + 1024).map(element).collect();
        let elements = elements.join(", ");
        lab.server.nft(&format!(
            "add element inet knockd openings_v4 {{ {elements} }}"
        ));
    }
    let mut daemon = site.start("");
    daemon.wait_for_line("65536 openings live on");
    forge::knock(&wire, source(0), SSH);
    let said = daemon.wait_for_line("is full");
    assert!(said.contains("set inet knockd openings_v4"), "{said}");
    assert!(said.contains("65536"), "{said}");
    // Who is in may stay longer, IPv6 is not concerned, and one that goes makes room.
    forge::knock(&wire, source(2), MORE);
    daemon.wait_for_line("10.0.0.2: more: extended 22/tcp");
    let said = site.run("open ssh 2001:db8::77");
    assert!(said.contains("opened 22/tcp"), "{said}");
    site.run("close 10.0.0.3");
    forge::knock(&wire, source(0), SSH);
    daemon.wait_for_line("10.0.0.0: ssh: opened 22/tcp");
}
