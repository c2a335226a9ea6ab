//! How many instructions decode and match take for a packet, and encoding for an opening,
//! counted by valgrind: unlike time, the same on a busy machine. Fails where one has grown
//! by more than a tenth over tests/bench/instructions.txt; `UPDATE=1` writes that anew.
//!
//!     cargo bench --profile count --bench instructions

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use knockd::decode::decode;
use knockd::firewall::{Element, ElementKey, Encoder, SetChange, Transaction};
use knockd::matcher::{Matcher, Settings};
use knockd::model::{Door, Frame, LinkType, SetPath, Timestamp, TripwireMode, Tripwires};

/// How often each is done: the start-up of a run no longer counts.
const TIMES: u32 = 10_000;

/// How many attempts live meanwhile.
const ALIVE: u32 = 1_000;

/// What is counted, each once a turn.
const CASES: [&str; 5] = [
    "noise",
    "first-step",
    "repeated-step",
    "knock-of-three",
    "encode",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("run") {
        run(&arguments.next().expect("a case"));
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/instructions.txt");
    let counts = CASES.map(|case| (case, count(case)));
    if std::env::var_os("UPDATE").is_some() {
        let mut text = String::new();
        for (case, count) in counts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{case} {count}");
        }
        std::fs::write(&file, text).expect("tests/bench can be written");
        return;
    }
    let text = std::fs::read_to_string(&file).expect("tests/bench/instructions.txt");
    let known: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(case, count)| Some((case, count.parse().ok()?)))
        .collect();
    let mut grown = Vec::new();
    for (case, count) in counts {
        let known = known.get(case).copied().unwrap_or_default();
        println!("{case}: {count} instructions, {known} recorded");
        if count * 10 > known * 11 {
            grown.push(case);
        }
    }
    assert!(
        grown.is_empty(),
        "{grown:?} cost more than a tenth more than recorded; if it must be: UPDATE=1"
    );
}

/// Runs this program under callgrind, which counts inside of [`measured`] only.
fn count(case: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe().expect("/proc"))
        .args(["run", case])
        .output()
        .expect("valgrind (package valgrind)");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let collected: u64 = collected
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    assert!(collected > u64::from(TIMES), "nothing was counted:\n{said}");
    collected / u64::from(TIMES)
}

fn run(case: &str) {
    if case == "encode" {
        let (transaction, mut encoder) = (transaction(), Encoder::default());
        return measured(|_| {
            black_box(encoder.encode(black_box(&transaction)));
        });
    }
    let mut line = Line::new();
    for source in 0..ALIVE {
        line.take(&frame(source, 10_000, 1));
    }
    match case {
        "noise" => measured(|n| line.take(&frame(ALIVE + n, 10_001, 1))),
        "first-step" => measured(|n| line.take(&frame(ALIVE + n, 10_000, 1))),
        "repeated-step" => measured(|n| line.take(&frame(n % ALIVE, 10_000, 2))),
        "knock-of-three" => measured(|n| {
            for step in [10_000, 20_000, 30_000] {
                line.take(&frame(ALIVE + n, step, 1));
            }
        }),
        _ => panic!("no case is called {case}"),
    }
}

/// The functions that callgrind knows by name.
#[inline(never)]
fn measured(mut turn: impl FnMut(u32)) {
    for number in 0..TIMES {
        turn(number);
    }
}

/// Decode and match, as the daemon puts them together.
struct Line {
    matcher: Matcher,
    events: Vec<knockd::model::Event>,
}

impl Line {
    fn new() -> Self {
        let doors = [door()];
        let wires = Tripwires::new(TripwireMode::On, &[], &doors);
        Self {
            matcher: Matcher::new(doors.into(), wires, Settings::new([7; 16])),
            events: Vec::with_capacity(16),
        }
    }

    fn take(&mut self, data: &[u8]) {
        let frame = Frame {
            at: Timestamp(1),
            link: LinkType::LinuxCooked2,
            wire_len: 60,
            data: black_box(data),
        };
        if let Some(knock) = &decode(&frame) {
            self.events.clear();
            self.matcher.observe(knock, true, &mut self.events);
        }
    }
}

/// A SYN, cooked.
fn frame(source: u32, port: u16, sequence: u32) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..20].copy_from_slice(&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]);
    frame[20..32].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + source);
    frame[32..36].copy_from_slice(&source.octets());
    frame[36..40].copy_from_slice(&[192, 0, 2, 1]);
    frame[40..42].copy_from_slice(&40_000_u16.to_be_bytes());
    frame[42..44].copy_from_slice(&port.to_be_bytes());
    frame[44..48].copy_from_slice(&sequence.to_be_bytes());
    frame[52..54].copy_from_slice(&[0x50, 2]);
    frame
}

fn door() -> Door {
    let step = |port: &str| port.parse().expect("a step");
    let steps = ["10000/tcp", "20000/tcp", "30000/tcp"].map(step);
    Door {
        open: ["22/tcp".parse().expect("a port")].into(),
        ..Door::new("ssh", steps.to_vec())
    }
}

/// The transaction that opens a port.
fn transaction() -> Transaction {
    let set = Arc::new(SetPath {
        family: "inet".into(),
        table: "knockd".into(),
        set: "openings_v4".into(),
    });
    let step = "22/tcp".parse().expect("a step");
    Transaction {
        changes: vec![SetChange::Add(Element {
            set,
            key: ElementKey::AddressPort(Ipv4Addr::new(203, 0, 113, 7).into(), step),
            timeout: Some(Duration::from_secs(30)),
            comment: "ssh".into(),
        })],
    }
}
