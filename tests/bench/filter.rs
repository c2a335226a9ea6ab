//! What the tripwires and the socket filter of a start or a reload cost to make.

use divan::{Bencher, black_box};
use knockd::capture::Program;
use knockd::model::{Door, Protocol, Step, TripwireKey, TripwireMode, Tripwires};

fn main() {
    divan::main();
}

/// Doors of three ports each, scattered by a multiplication that reaches every port once.
fn doors(count: u16) -> Vec<Door> {
    (0..count)
        .map(|door| {
            let port = |step: u16| (door * 3 + step).wrapping_mul(40_503);
            let steps = (1..4).filter_map(|step| Step::new(Protocol::Tcp, port(step)));
            Door::new("d", steps.collect())
        })
        .collect()
}

const COUNTS: [u16; 4] = [1, 10, 500, 5_000];

#[divan::bench(args = COUNTS)]
fn tripwires(bencher: Bencher<'_, '_>, count: u16) {
    let doors = doors(count);
    let new = |doors| Tripwires::new(TripwireMode::Sampled, TripwireKey::FIXED, doors);
    bencher.bench_local(|| new(black_box(&doors)));
}

#[divan::bench(args = COUNTS)]
fn assemble(bencher: Bencher<'_, '_>, count: u16) {
    let doors = doors(count);
    let wires = Tripwires::new(TripwireMode::Sampled, TripwireKey::FIXED, &doors);
    bencher.bench_local(|| Program::new(black_box(&doors), black_box(&wires)));
}
