//! After kill -9, at any moment, exactly what was reported as open is open.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::forge::{self, BRIEF, DOORS, SSH};
use crate::rounds;
use crate::site::Site;
use crate::support::events::{closed, opened};
use crate::support::frame::source;
use crate::support::{Lab, Process, wait_until};

/// Random numbers (xorshift64*, Marsaglia and Vigna), the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("KNOCKD_SEED").map_or_else(
            |_| {
                let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                u64::from(time.expect("after 1970").subsec_nanos())
            },
            |text| text.parse().expect("KNOCKD_SEED is a number"),
        );
        println!("KNOCKD_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }
}

/// Every third source knocks at the door that is open for two seconds only.
fn steps(number: usize) -> [u16; 3] {
    if number.is_multiple_of(3) { BRIEF } else { SSH }
}

/// The sources in lines that say that a door was opened.
fn acknowledged(lines: &[String]) -> BTreeSet<Ipv4Addr> {
    let opened = lines.iter().filter(|line| line.contains(": ssh: opened "));
    opened
        .filter_map(|line| line.split(':').next()?.parse().ok())
        .collect()
}

/// Returns what is open to whom, as the kernel lists it; none for longer than was asked.
#[track_caller]
fn open(site: &Site<'_>) -> BTreeSet<(Ipv4Addr, bool)> {
    let openings = site.openings();
    let one = |opening: &serde_json::Value| {
        let text = |key: &str| opening[key].as_str().expect("text").to_owned();
        let brief = match (&*text("door"), &*text("opens")) {
            ("ssh", "22/tcp") => false,
            ("brief", "443/tcp") => true,
            _ => panic!("nobody asked for {opening}"),
        };
        let left = Duration::from_millis(opening["left_ms"].as_u64().expect("an end"));
        let most = Duration::from_secs(if brief { 2 } else { 3600 });
        assert!(left <= most, "{opening}");
        (text("source").parse().expect("an address"), brief)
    };
    openings.iter().map(one).collect()
}

#[test]
fn after_kill_9_all_is_open_that_was_said_to_be() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, DOORS);
    let wire = lab.client.frames("eth0");
    let mut random = Random::new();
    let mut daemon = site.start("");
    let mut next = 1;
    let mut seen = 0;
    for round in 0..rounds(100) {
        // Now and then it is killed while it still starts.
        if random.below(4) == 0 {
            daemon.terminate();
            daemon = Process::start(&mut site.command("-v"));
        }
        let life = Duration::from_micros(random.below(25_000));
        let first = next;
        let begun = AtomicUsize::new(first);
        let over = AtomicUsize::new(usize::MAX);
        thread::scope(|scope| {
            scope.spawn(|| {
                while over.load(Ordering::Acquire) == usize::MAX {
                    let number = begun.fetch_add(1, Ordering::AcqRel);
                    forge::knock(&wire, source(number), steps(number));
                    thread::sleep(Duration::from_micros(50));
                }
            });
            thread::sleep(life);
            daemon.signal(Signal::SIGKILL);
            over.store(0, Ordering::Release);
        });
        next = begun.into_inner();
        let (_, lines) = daemon.wait();
        daemon = site.start("");
        let open = open(&site);
        for address in acknowledged(&lines) {
            assert!(
                open.contains(&(address, false)),
                "{address} in round {round}"
            );
        }
        // Of this round alone, and of those who knocked at that very door.
        let asked: BTreeSet<_> = (first..next)
            .map(|number| (source(number), steps(number) == BRIEF))
            .collect();
        let more: Vec<_> = open.difference(&asked).collect();
        assert!(more.is_empty(), "{more:?} in round {round}");
        seen += open.len();
        site.run("close --all");
    }
    println!("{} knocks, {seen} openings found after a crash", next - 1);
    assert!(seen > 0, "no knock was heard at all");
    // An opening of a short time runs out under whichever daemon runs then.
    forge::knock(&wire, source(0), BRIEF);
    daemon.wait_for_event(&opened("443/tcp").at("brief").from("10.0.0.0"));
    // Not over before the next daemon is there, on a slow machine either.
    site.run("open brief 10.0.0.0 --for 15s");
    daemon.kill();
    let mut daemon = site.start("");
    wait_until("the end of the opening", || site.openings().is_empty());
    daemon.wait_for_event(&closed("443/tcp").at("brief").from("10.0.0.0"));
}
