//! Reads the journal of knockd 0.9.0, which a crash may have left before the upgrade. If the journal
//! were not read, the ports that its commands have opened would stay open for good.
//!
//! It has a change a line: a stop is pending (`arm`), is due at another time, or has been run
//! (`done`). Fields are divided by tabs, and the first is a checksum of the others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stops::{Clocks, DoorSource, PendingStop};

type Stops = BTreeMap<DoorSource, PendingStop>;

/// Reads a whole journal. Returns its stops, and how many of its lines cannot be read.
pub(super) fn parse(text: &[u8], clocks: Clocks) -> (Stops, usize) {
    let mut stops = Stops::new();
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let damaged = lines.filter(|line| apply(line, clocks, &mut stops).is_none());
    let damaged = damaged.count();
    (stops, damaged)
}

/// Makes the change of one line. Returns `None` if the line is damaged.
fn apply(line: &[u8], clocks: Clocks, stops: &mut Stops) -> Option<()> {
    let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, text) = line.split_once('\t')?;
    if sum != format!("{:016x}", checksum(text.as_bytes())) {
        return None;
    }
    let key = |source: &str, door: &str| {
        let (door, source) = (unescape(door).into(), source.parse().ok()?);
        Some(DoorSource { door, source })
    };
    match text.split('\t').collect::<Vec<_>>().as_slice() {
        ["arm", due, timeout, source, door, command] => {
            let timeout = Duration::from_millis(timeout.parse().ok()?);
            let stop = PendingStop {
                command: unescape(command).into(),
                timeout,
                due: clocks.to_boot(due.parse().ok()?, timeout),
            };
            stops.insert(key(source, door)?, stop);
        }
        ["due", due, source, door] => {
            let due = due.parse().ok()?;
            if let Some(stop) = stops.get_mut(&key(source, door)?) {
                stop.due = clocks.to_boot(due, stop.timeout);
            }
        }
        ["done", source, door] => {
            stops.remove(&key(source, door)?);
        }
        _ => return None,
    }
    Some(())
}

/// A backslash stands before a backslash, and before the `t` and `n` of a tab and a line end.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(match c {
            '\\' => chars.next().map(|c| match c {
                't' => '\t',
                'n' => '\n',
                c => c,
            }),
            c => Some(c),
        });
    }
    plain
}

/// FNV-1a, 64 bits.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
