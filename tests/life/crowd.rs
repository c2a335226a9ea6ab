//! Ten thousand openings at once: every operation is right, and costs no more than with few.

use std::time::{Duration, Instant};

use crate::forge::{self, BRIEF, DOORS, MORE, SSH};
use crate::rounds;
use crate::site::{Site, failure};
use crate::support::events::{closed, complete, extended, opened};
use crate::support::frame::{send_datagram, source};
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

/// Lines with `word`, those that were withheld as `kind` included.
fn told(daemon: &Process, word: &str, kind: &str) -> usize {
    let withheld = |line: &String| {
        let (count, _) = line.split_once(&format!(" more {kind} not written"))?;
        count.rsplit(' ').next()?.parse::<usize>().ok()
    };
    let withheld = daemon.lines().iter().filter_map(withheld).sum::<usize>();
    daemon.count(word) + withheld
}

/// Has sources knock, and waits until each has opened its door; the work that one was.
#[track_caller]
fn knock(
    wire: &socket2::Socket,
    (site, daemon): (&Site<'_>, &Process),
    sources: std::ops::Range<usize>,
    steps: [u16; 3],
) -> Duration {
    let answered = || {
        let opened = site.status()["opened"].as_u64().unwrap_or_default();
        usize::try_from(opened).expect("a small number")
    };
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
    needs!(Laboratory);
    let all = rounds(10_000).max(4 * TOGETHER);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    let mut daemon = site.start("");

    // The cost of one more opening, where there are none, some, and many.
    let few = (all / 10).max(2 * TOGETHER);
    let to = (&site, &daemon);
    let first = knock(&wire, to, 0..TOGETHER, SSH);
    knock(&wire, to, TOGETHER..few, SSH);
    let second = knock(&wire, to, few..few + TOGETHER, SSH);
    knock(&wire, to, few + TOGETHER..all, SSH);
    let third = knock(&wire, to, all..all + TOGETHER, SSH);
    println!("a knock with none open {first:?}, {few}: {second:?}, {all}: {third:?}");
    let most = first * 20 + Duration::from_millis(1);
    assert!(second < most && third < most, "the cost grows");
    let all = all + TOGETHER;

    // Listed, for people and machines.
    let began = Instant::now();
    assert_eq!(site.run("list").lines().count(), all);
    println!("listed in {:?}", began.elapsed());
    assert_eq!(site.openings().len(), all);

    // Extended: one, and in place of the other; when there is room in the log again.
    wait_until("the last count", || {
        told(&daemon, ": opened ", "finished knocks") == all
    });
    knock(&wire, to, 7..8, MORE);
    daemon.wait_for_event(&extended("22/tcp").at("more").from("10.0.0.7"));
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
        daemon.count_events(&closed("22/tcp")) == all - 1
    });

    // Run out, each by itself and each said once.
    knock(&wire, (&site, &daemon), 0..all, BRIEF);
    let closed = || told(&daemon, "brief: closed 443/tcp", "ends of openings");
    wait_until("all to run out", || closed() == all);
    assert!(site.openings().is_empty());
    // Lines that nobody could read are counted, and so are openings.
    wait_until("the last count", || {
        told(&daemon, ": opened ", "finished knocks") == all
    });
    assert_eq!(closed(), all);
}

/// The kernel's own limit, and ours.
const CAPACITY: usize = 65_536;
/// How many of them are kept for openings by hand.
const BY_HAND: usize = 1024;

fn element(number: usize) -> String {
    let source = source(number);
    format!("{source} . tcp . 22 timeout 1h comment \"ssh\"")
}

#[test]
fn a_full_set_is_said_in_words_and_breaks_nothing_else() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    // As an earlier daemon may have left it; as many at once as fit a send buffer.
    site.start("").terminate();
    let fill = |numbers: std::ops::RangeInclusive<usize>| {
        for first in numbers.step_by(1024) {
            let elements: Vec<_> = (first..first + 1024).map(element).collect();
            let elements = elements.join(", ");
            lab.server.nft(&format!(
                "add element inet knockd openings_v4 {{ {elements} }}"
            ));
        }
    };
    fill(1..=CAPACITY - BY_HAND);
    let mut daemon = site.start("");
    daemon.wait_for_line("64512 openings live on");
    forge::knock(&wire, source(0), SSH);
    let said = daemon.wait_for_line("10.0.0.0: ssh: not opened");
    assert!(
        said.contains("of 65536 openings all are taken but 1024"),
        "{said}"
    );
    // Who is in may stay longer, IPv6 is not concerned, who opens by hand has room, and one that
    // goes makes some.
    forge::knock(&wire, source(2), MORE);
    daemon.wait_for_event(&extended("22/tcp").at("more").from("10.0.0.2"));
    for address in ["2001:db8::77", "192.0.2.77"] {
        let said = site.run(&format!("open ssh {address}"));
        assert!(said.contains("opened 22/tcp"), "{said}");
    }
    for number in [3, 4] {
        site.run(&format!("close {}", source(number)));
    }
    forge::knock(&wire, source(0), SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("10.0.0.0"));
    // Where that room is used up, too, there is none at all.
    site.run("close 192.0.2.77");
    site.run("close 10.0.0.0");
    daemon.terminate();
    fill(CAPACITY - BY_HAND + 1..=CAPACITY);
    lab.server.nft(&format!(
        "add element inet knockd openings_v4 {{ {}, {} }}",
        element(3),
        element(4)
    ));
    daemon = site.start("");
    daemon.wait_for_line("65537 openings live on");
    let (code, said) = failure(&site.try_run("open ssh 10.0.0.0"));
    assert_eq!(code, 69);
    assert!(
        said.contains("set inet knockd openings_v4 is full"),
        "{said}"
    );
    assert!(said.contains("65536"), "{said}");
}

/// One person who knows a door.
#[test]
fn who_floods_one_door_hurts_that_one() {
    needs!(Laboratory);
    let lab = Lab::new();
    let doors = DOORS.replacen("64_512", "20", 1);
    let site = Site::new(&lab, &doors);
    let wire = lab.client.frames("eth0");
    let mut daemon = site.start("");
    for number in 0..30 {
        forge::knock(&wire, source(number), SSH);
    }
    daemon.wait_for_line("ssh: the door is open to 16 addresses: with 20 (max_open)");
    let said = daemon.wait_for_line("10.0.0.29: ssh: not opened");
    assert!(said.contains("open to 20 addresses"), "{said}");
    assert_eq!(daemon.count("which is all that it may be"), 10);
    assert_eq!(daemon.count("with 20 (max_open)"), 1);
    assert_eq!(site.openings().len(), 20);
    // At this door somebody is let in by hand, at another by a knock; who is in may stay.
    let said = site.run("open ssh 192.0.2.77");
    assert!(said.contains("192.0.2.77: ssh: opened 22/tcp"), "{said}");
    forge::knock(&wire, source(29), BRIEF);
    daemon.wait_for_event(&opened("443/tcp").at("brief").from("10.0.0.29"));
    forge::knock(&wire, source(1), SSH);
    daemon.wait_for_event(&extended("22/tcp").at("ssh").from("10.0.0.1"));
    // Those whose time is over make room, also for a daemon that is started anew.
    daemon.kill();
    let mut daemon = site.start("");
    forge::knock(&wire, source(40), SSH);
    daemon.wait_for_line("10.0.0.40: ssh: not opened");
    site.run("close 10.0.0.2");
    site.run("close 10.0.0.3");
    forge::knock(&wire, source(41), SSH);
    daemon.wait_for_event(&opened("22/tcp").at("ssh").from("10.0.0.41"));
}

/// A reload that changes a door ends the attempts at it, all at once.
#[test]
fn a_reload_that_ends_many_attempts_keeps_no_memory_for_them() {
    needs!(Laboratory);
    let lab = Lab::new();
    let doors = DOORS.replacen("open_for = \"1h\"", "seq_timeout = \"10m\"", 1);
    let site = Site::new(&lab, &doors);
    let wire = lab.client.frames("eth0");
    let daemon = site.start("");
    let live = || site.status()["attempts"]["live"].as_u64().unwrap_or(0);
    for (before, chunk) in (0..60_000).collect::<Vec<_>>().chunks(1000).enumerate() {
        for number in chunk {
            send_datagram(&wire, source(*number), SSH[0]);
        }
        // As many as the ring of an ordinary user may hold.
        wait_until("the attempts", || live() > before as u64 * 1000);
    }
    let anonymous = || daemon.own_memory();
    let before = anonymous();
    site.configure(&doors.replacen("9203", "9204", 1));
    site.run("reload");
    assert_eq!(live(), 0);
    // Kept, their events would take more than two MiB.
    assert!(anonymous() <= before + 512);
}

/// The log of somebody who knocks thousands of times a second is no flood.
#[test]
fn of_hundreds_of_knocks_a_second_the_log_has_a_count() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    let daemon = site.start("");
    let began = Instant::now();
    knock(&wire, (&site, &daemon), 0..2000, SSH);
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("few");
    wait_until("the last count", || {
        told(&daemon, "OPEN SESAME", "finished knocks") == 2000
    });
    let written = daemon.count_events(&complete());
    assert!((300..=300 * (seconds + 2)).contains(&written), "{written}");
    assert_eq!(site.openings().len(), 2000);
}
