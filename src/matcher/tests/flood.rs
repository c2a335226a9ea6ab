//! Forged sources without number: memory is bounded, and attempts at later stages stay.

use std::ops::Range;

use super::*;

const THREE: &str = "1000/tcp 2000/udp 3000/tcp";

/// Sends first steps from this many sources, none seen before, and drops their events.
fn flood(bed: &mut Bed, sources: Range<u32>) {
    flood_by(&["1000/tcp"], bed, sources);
}

/// Does the same, and each source hits all of these ports.
fn flood_by(ports: &[&str], bed: &mut Bed, sources: Range<u32>) {
    let ports: Vec<_> = ports.iter().map(|port| step(port)).collect();
    let mut events = Vec::new();
    for n in sources {
        let source = IpAddr::from((n | 0x0a00_0000).to_be_bytes());
        for port in &ports {
            events.clear();
            bed.take(&knock(bed.at().0, source, *port, n), true, &mut events);
        }
    }
}

/// Returns the resident memory of this process, in bytes (proc_pid_statm(5): the second field, in
/// pages).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages = statm.split(' ').nth(1).expect("a second field");
    pages.parse::<usize>().expect("a number") * 4096
}

/// Runs a test of this module in a process of its own, which knows that by a variable. Returns whether
/// this is that process. Memory can be measured only of a process as a whole.
fn is_alone(test: &str) -> bool {
    const MARK: &str = "KNOCKD_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let name = format!("{}::{test}", module_path!());
    // The harness names tests without the crate's name.
    let name = name.split_once("::").map_or("", |(_, name)| name);
    let output = std::process::Command::new(std::env::current_exe().expect("the test itself"))
        .args(["--exact", name])
        .env(MARK, "1")
        .output()
        .expect("the test itself");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Returns a matcher of the usual capacity, and the resident memory before it was made.
fn a_large_one() -> (Bed, usize) {
    let doors = [door("d", THREE)];
    // A small matcher first, so that the code is resident and only the table is counted.
    let mut small = Bed::with(&doors, TripwireMode::On, 2);
    flood_by(&["1000/tcp", "5000/tcp"], &mut small, 0..5);
    let before = resident();
    let bed = Bed::with(&doors, TripwireMode::On, Settings::CAPACITY);
    let at_rest = resident() - before;
    assert!(at_rest < 1 << 20, "{at_rest} bytes at rest");
    (bed, before)
}

#[test]
fn a_million_sources_fill_no_more_than_the_table() {
    if !is_alone("a_million_sources_fill_no_more_than_the_table") {
        return;
    }
    let (mut bed, before) = a_large_one();
    // A slow source, past the first step when the flood begins.
    assert_eq!(bed.hit(ONE, "1000/tcp"), stage(0, 1));
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
    for n in 0..10 {
        bed.now += 200;
        flood(&mut bed, n * 100_000..(n + 1) * 100_000);
    }
    let full = resident() - before;
    // 56 bytes each, 4 of a bucket and 4 of the crowd, 8 for the marks of the first step: 18 MiB.
    assert!(full < 20 << 20, "{full} bytes");
    let occupancy = Occupancy {
        live: Settings::CAPACITY,
        capacity: Settings::CAPACITY,
        evicted: 1_000_001 - Settings::CAPACITY as u64,
    };
    assert_eq!(bed.matcher.occupancy(), occupancy);
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
}

#[test]
fn strays_of_every_attempt_take_sixteen_bytes_more_each() {
    if !is_alone("strays_of_every_attempt_take_sixteen_bytes_more_each") {
        return;
    }
    let (mut bed, before) = a_large_one();
    let all = 0..Settings::CAPACITY as u32;
    flood_by(&["1000/tcp", "5000/tcp", "5001/tcp"], &mut bed, all);
    let full = resident() - before;
    assert_eq!(bed.live(), Settings::CAPACITY);
    // 56 bytes each, 4 of a bucket and 4 of the crowd, 8 for the marks of the first step, 16 for
    // strays: 22 MiB.
    assert!((20 << 20..24 << 20).contains(&full), "{full} bytes");
}

#[test]
fn of_the_lowest_stage_the_oldest_goes_first() {
    let mut bed = Bed::with(&[door("d", THREE)], TripwireMode::On, 3);
    let (a, b, c, d) = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4");
    for source in [a, b, c] {
        bed.hit(source, "1000/tcp");
    }
    bed.hit(a, "2000/udp");
    let evicted = |stage| {
        (
            0,
            Outcome::Reset {
                stage,
                cause: Cause::Evicted,
            },
        )
    };
    // a is the oldest, but further on: b goes.
    assert_eq!(bed.hit(d, "1000/tcp"), [evicted(1), (0, Outcome::Stage(1))]);
    assert_eq!(bed.hit(b, "2000/udp"), NOTHING);
    assert_eq!(bed.hit(d, "2000/udp"), stage(0, 2));
    assert_eq!(bed.hit(c, "2000/udp"), stage(0, 2));
    // All are at the second stage, a longest.
    assert_eq!(bed.hit(b, "1000/tcp"), [evicted(2), (0, Outcome::Stage(1))]);
    assert_eq!(bed.hit(a, "3000/tcp"), NOTHING);
    assert_eq!(bed.hit(c, "3000/tcp"), open(0, 3));
}

#[test]
fn a_full_table_runs_out_in_pieces() {
    let mut bed = Bed::with(&[door("d", THREE)], TripwireMode::On, 5000);
    flood(&mut bed, 0..5000);
    bed.now += 15_000;
    let now = bed.at();
    let mut rounds = 0;
    let mut events = Vec::new();
    while bed.matcher.next_deadline().is_some_and(|d| d <= now) {
        let told = events.len();
        bed.matcher.expire(now, &mut events);
        assert!(events.len() - told <= EXPIRED_AT_ONCE);
        rounds += 1;
    }
    assert_eq!((events.len(), rounds, bed.live()), (5000, 5, 0));
}

#[test]
fn what_has_run_out_does_not_live_on_while_others_wait_their_turn() {
    let mut bed = Bed::with(&[door("d", THREE)], TripwireMode::On, 5000);
    flood(&mut bed, 0..4999);
    bed.hit(ONE, "1000/tcp");
    bed.now += 15_000;
    // The timeouts of a thousand other attempts come first; this attempt's own is not forgotten.
    let outcomes = bed.hit(ONE, "2000/udp");
    assert_eq!(outcomes.len(), EXPIRED_AT_ONCE + 1);
    assert_eq!(outcomes.last(), Some(&(0, Outcome::Timeout { stage: 1 })));
}

#[test]
fn who_has_run_out_and_makes_room_is_not_evicted() {
    let (mut bed, mut events) = (
        Bed::with(&[door("d", THREE)], TripwireMode::On, 1),
        Vec::new(),
    );
    bed.hit(ONE, "1000/tcp");
    bed.now += 15_000;
    let other = bed.packet(TWO, "1000/tcp");
    bed.matcher.observe(&other, true, &mut events);
    let timeout = Outcome::Timeout { stage: 1 };
    assert_eq!(outcomes(&events), [(0, timeout), (0, Outcome::Stage(1))]);
    assert_eq!(bed.matcher.occupancy().evicted, 0);
}

#[test]
fn the_room_of_the_dead_is_used_again() {
    let mut bed = Bed::with(&[door("d", THREE)], TripwireMode::On, 100);
    for n in 0..50 {
        flood(&mut bed, n * 100..(n + 1) * 100);
        bed.now += 15_000;
    }
    assert_eq!(bed.matcher.occupancy().evicted, 0);
}

/// An attacker who knows the first two steps of one door forges them, each pair from another
/// address, and fills the table at the second stage.
#[test]
fn who_floods_one_door_hurts_that_one() {
    let doors = [
        door("d", THREE),
        door("other", "7000/tcp 8000/udp 9000/tcp"),
        door("short", "7500/tcp 8500/udp"),
    ];
    let mut bed = Bed::with(&doors, TripwireMode::On, 1000);
    let forged = ["1000/tcp", "2000/udp"];
    flood_by(&forged, &mut bed, 0..2000);
    let mut from = 2000;
    for (number, sequence) in [(1, "7000/tcp 8000/udp 9000/tcp"), (2, "7500/tcp 8500/udp")] {
        let mut told = Vec::new();
        for port in sequence.split(' ') {
            told = bed.hit(ONE, port);
            told.retain(|(door, _)| *door == number);
            assert!(!told.is_empty(), "{port}");
            // 44,000 packets a second, for 100 ms.
            flood_by(&forged, &mut bed, from..from + 2200);
            from += 2200;
            bed.now += 100;
        }
        let last = sequence.split(' ').count() as u8;
        assert_eq!(told, open(number, last));
    }
    assert_eq!(bed.live(), 1000);
}

/// A host has a /64, and so as many addresses as it likes.
#[test]
fn who_floods_from_one_prefix_pushes_out_his_own() {
    let mut bed = Bed::with(&[door("d", THREE)], TripwireMode::On, 1000);
    let mut sent = 0u64;
    let mut flood = |bed: &mut Bed, ports: &[&str]| {
        let mut events = Vec::new();
        for _ in 0..3000 {
            sent += 1;
            let source = std::net::Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(sent));
            for port in ports {
                let knock = knock(bed.at().0, source.into(), step(port), sent as u32);
                bed.take(&knock, true, &mut events);
            }
        }
        let is_his = |e: &Event| matches!(e.source, IpAddr::V6(a) if a.octets()[..4] == [0x20, 1, 0xd, 0xb8]);
        assert!(events.iter().all(is_his));
    };
    bed.hit(ONE, "1000/tcp");
    flood(&mut bed, &["1000/tcp"]);
    flood(&mut bed, &["1000/tcp", "2000/udp"]);
    assert_eq!(bed.hit(ONE, "2000/udp"), stage(0, 2));
    // Nor does that host keep anybody from beginning.
    assert_eq!(
        bed.hit(TWO, "1000/tcp").last(),
        Some(&(0, Outcome::Stage(1)))
    );
    flood(&mut bed, &["1000/tcp", "2000/udp"]);
    assert_eq!(bed.hit(TWO, "2000/udp"), stage(0, 2));
    assert_eq!(bed.hit(ONE, "3000/tcp"), open(0, 3));
    assert_eq!(bed.live(), 999);
}

#[test]
fn what_one_packet_begins_is_bounded() {
    let doors: Vec<_> = (0..5000)
        .map(|n| door(&format!("d{n}"), &format!("1000/tcp {}/tcp", 2000 + n)))
        .collect();
    let mut bed = Bed::with(&doors, TripwireMode::On, Settings::CAPACITY);
    let begun = bed.hit(ONE, "1000/tcp");
    assert_eq!(begun.len(), crate::model::BEGUN_AT_ONCE);
    assert_eq!(bed.live(), crate::model::BEGUN_AT_ONCE);
    // Nor do more attempts begin when the packet comes again.
    assert_eq!(bed.hit(ONE, "1000/tcp"), NOTHING);
    assert_eq!(bed.hit(ONE, "2063/tcp").last(), Some(&(63, Outcome::Open)));
}
