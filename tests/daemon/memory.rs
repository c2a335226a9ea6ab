//! How much more memory many doors take than one.

use crate::site::Site;
use crate::support::{Lab, SILENCE, wait_until};

/// KiB that 500 doors may take at rest. 240 were measured; more than twice that, when each was
/// kept twice and buffers lay where the file's tree had been.
const AT_REST: u64 = 400;

/// After a reload, which needs both configurations at once; 380 were measured.
const AFTER_RELOAD: u64 = 560;

fn configuration(doors: u16) -> String {
    let door = |n: u16| {
        let steps = [40_000 - n, 10_000 + n, 25_000 + n].map(|port| format!("\"{port}/tcp\""));
        let steps = steps.join(", ");
        format!("[door.door{n}]\nsequence = [{steps}]\nopen = [\"22/tcp\"]\n")
    };
    (0..doors).map(door).collect()
}

#[test]
fn five_hundred_doors_take_little_more_than_one() {
    needs!(Laboratory);
    let lab = Lab::new();
    let site = Site::new(&lab, &configuration(1));
    let mut daemon = site.start("-v");
    daemon.wait_for_line("starting up");
    // At rest: until it falls no more.
    let mut one = daemon.own_memory();
    loop {
        std::thread::sleep(SILENCE);
        match daemon.own_memory() {
            less if less < one => one = less,
            _ => break,
        }
    }
    daemon.terminate();

    site.configure(&configuration(500));
    let mut daemon = site.start("-v");
    daemon.wait_for_line("starting up");
    // A thread gives back what the start has needed.
    wait_until("the memory of a start", || {
        daemon.own_memory() <= one + AT_REST
    });
    site.reload(&daemon);
    let more = "the memory of a reload";
    wait_until(more, || daemon.own_memory() <= one + AFTER_RELOAD);
    daemon.terminate();
}
