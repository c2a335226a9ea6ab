//! What the socket filter costs to assemble.

use divan::{Bencher, black_box};
use knockd::capture::Program;
use knockd::model::{
    Close, Door, Lifetime, Protocol, Step, TcpFlags, TripwireKey, TripwireMode, Tripwires,
};

fn main() {
    divan::main();
}

/// Doors of three ports each, scattered by a multiplication that reaches every port once.
fn doors(count: u16) -> Vec<Door> {
    (0..count)
        .map(|door| Door {
            name: format!("d{door}").into(),
            sequence: (0..3)
                .filter_map(|step| {
                    let port = (door * 3 + step).wrapping_mul(40_503) | 1;
                    Step::new(Protocol::Tcp, port)
                })
                .collect(),
            one_time: None,
            seq_timeout: std::time::Duration::from_secs(15),
            tcp_flags: TcpFlags::SYN,
            from: Vec::new(),
            target: None,
            strays: 2,
            open: Vec::new(),
            open_for: Lifetime::UntilClosed,
            close: Close::Nothing,
            add: Vec::new(),
            remove: Vec::new(),
            commands: None,
        })
        .collect()
}

#[divan::bench(args = [1, 10, 500, 5_000])]
fn assemble(bencher: Bencher<'_, '_>, count: u16) {
    let doors = doors(count);
    let wires = Tripwires::new(TripwireMode::Sampled, TripwireKey::FIXED, &doors);
    bencher.bench_local(|| Program::new(black_box(&doors), black_box(&wires)));
}
