//! The pending stops and their text in the journal: one stop a line, in JSON. It is text so that an
//! administrator can read what will be run. It is lines so that damage to one leaves the others
//! readable.
//!
//! ```json
//! {"door":"ssh","source":"192.0.2.7","command":"iptables -D INPUT -s %IP% -j ACCEPT","timeout_ms":10000,"due_ms":1795357210000}
//! ```
//!
//! `due_ms` is a Unix time in milliseconds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A source at a door: commands of the same pair run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DoorSource {
    pub(crate) door: Arc<str>,
    pub(crate) source: IpAddr,
}

/// A stop command that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingStop {
    /// The string, with `%IP%` still in it. It is kept because the door may be gone from the
    /// configuration when the stop is due: without the string, the ports that the start command has
    /// opened would stay open for good.
    pub(crate) command: Arc<str>,
    /// The configured time from start to stop.
    pub(crate) timeout: Duration,
    pub(crate) due: Timestamp,
}

/// One moment on two clocks. Deadlines are kept on `CLOCK_BOOTTIME`, which no change of the date
/// disturbs. They are written as wall-clock time, which outlives a reboot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// `CLOCK_BOOTTIME`.
    pub(crate) boot: Timestamp,
    /// The time since the Unix epoch.
    pub(crate) wall: Duration,
}

impl Clocks {
    fn to_wall(self, at: Timestamp) -> u64 {
        let wall = (self.wall + at.since(self.boot)).saturating_sub(self.boot.since(at));
        millis(wall)
    }

    /// A date in the past is due now. A date in the future is taken as at most `timeout` away: a
    /// clock that has been set back, or starts at 1970, keeps no door open longer.
    pub(super) fn to_boot(self, due_ms: u64, timeout: Duration) -> Timestamp {
        let wait = Duration::from_millis(due_ms).saturating_sub(self.wall);
        self.boot + wait.min(timeout)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopLine {
    door: Arc<str>,
    source: IpAddr,
    command: Arc<str>,
    timeout_ms: u64,
    due_ms: u64,
}

/// Returns the whole text of a journal of these stops.
pub(super) fn to_text<'a>(
    stops: impl Iterator<Item = (&'a DoorSource, &'a PendingStop)>,
    clocks: Clocks,
) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    for (DoorSource { door, source }, stop) in stops {
        let line = StopLine {
            door: Arc::clone(door),
            source: *source,
            command: Arc::clone(&stop.command),
            timeout_ms: millis(stop.timeout),
            due_ms: clocks.to_wall(stop.due),
        };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Reads a whole journal. Returns its stops, and how many of its lines cannot be read.
pub(super) fn parse(text: &[u8], clocks: Clocks) -> (BTreeMap<DoorSource, PendingStop>, usize) {
    let mut stops = BTreeMap::new();
    let mut damaged = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<StopLine>(line) else {
            damaged += 1;
            continue;
        };
        let timeout = Duration::from_millis(line.timeout_ms);
        let key = DoorSource {
            door: line.door,
            source: line.source,
        };
        let stop = PendingStop {
            command: line.command,
            timeout,
            due: clocks.to_boot(line.due_ms, timeout),
        };
        stops.insert(key, stop);
    }
    (stops, damaged)
}

#[cfg(test)]
mod tests;
