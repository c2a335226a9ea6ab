//! What holds for whatever stands in a journal: what is kept of it reads the same again, and no stop
//! is put off for longer than was configured.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stops::{self, Clocks, DoorSource, PendingStop};
use super::version_0_9;
use crate::model::Timestamp;

const CLOCKS: Clocks = Clocks {
    boot: Timestamp(1_000_000_000_000),
    wall: Duration::from_secs(1_795_357_200),
};

pub fn journal(text: &[u8]) {
    let (stops, _) = super::parse(text, CLOCKS);
    is_kept(&stops);
}

/// The input has no checksums, which are put before its lines here: no fuzzer would find them.
pub fn journal_0_9(text: &[u8]) {
    let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let summed = line.strip_suffix(b"\n").unwrap_or(line);
        let sum = format!("{:016x}\t", version_0_9::checksum(summed));
        [sum.as_bytes(), line].concat()
    });
    let text = lines.collect::<Vec<_>>().concat();
    let (stops, damaged) = version_0_9::parse(&text, CLOCKS);
    is_kept(&stops);
    if !text.is_empty() && damaged == 0 {
        assert_eq!(super::parse(&text, CLOCKS).0, stops, "it is known as such");
    }
}

fn is_kept(found: &BTreeMap<DoorSource, PendingStop>) {
    for stop in found.values() {
        assert!(stop.due.since(CLOCKS.boot) <= stop.timeout);
    }
    let written = |stops: &BTreeMap<_, _>| {
        let text = stops::to_text(stops.iter(), CLOCKS);
        String::from_utf8(text.expect("it can be written")).expect("text")
    };
    let text = written(found);
    let (again, damaged) = super::parse(text.as_bytes(), CLOCKS);
    assert_eq!((written(&again), damaged), (text, 0));
}
