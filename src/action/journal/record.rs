//! What the journal says, and its text: a record a line, the fields divided by tabs, a
//! checksum first. Text, so that an administrator can read what will be run; lines, so that
//! damage to one leaves the others readable.
//!
//! ```text
//! 6f0d6e1a6ad4e0c2  arm   1795357200000  10000  192.0.2.7  ssh  iptables -D INPUT -s %IP% -j ACCEPT
//! 83c1d1f09f1f3c44  due   1795357204000  192.0.2.7  ssh
//! 02d9b7f5dd6e22a0  done  192.0.2.7  ssh
//! ```
//!
//! Times are Unix milliseconds. Losing any line is safe: without its `due` a stop runs
//! early, without its `done` twice; without its `arm` it does not run, and that is reported.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Timestamp;

/// Whose stop: one source at one door.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The door's name.
    pub(crate) door: Arc<str>,
    /// The source.
    pub(crate) source: IpAddr,
}

/// A stop command that is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// The string, with `%IP%` still in it. Kept here because the door may be gone from
    /// the configuration by then, and what it opened would stay open for good.
    pub(crate) command: Arc<str>,
    /// The configured time from start to stop.
    pub(crate) timeout: Duration,
    /// When it is to be run.
    pub(crate) due: Timestamp,
}

/// A change to what is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A stop is pending from now on.
    Arm(Key, Pending),
    /// It is due at another time.
    Due(Key, Timestamp),
    /// It has been run.
    Done(Key),
}

/// One moment on both clocks: deadlines are kept on `CLOCK_BOOTTIME`, which no change of
/// the date disturbs, and written as wall-clock time, which outlives a reboot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// `CLOCK_BOOTTIME`.
    pub(crate) boot: Timestamp,
    /// The time since the Unix epoch.
    pub(crate) wall: Duration,
}

impl Clock {
    fn to_wall(self, at: Timestamp) -> u64 {
        let wall = (self.wall + at.since(self.boot)).saturating_sub(self.boot.since(at));
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// A date in the past is due now. One in the future is never further off than the whole
    /// timeout: a clock that has been set back, or starts at 1970, keeps no door open longer.
    fn to_boot(self, millis: u64, timeout: Duration) -> Timestamp {
        let wait = Duration::from_millis(millis).saturating_sub(self.wall);
        self.boot + wait.min(timeout)
    }
}

impl Record {
    /// The line, with its end.
    pub(crate) fn to_line(&self, clock: Clock) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Arm(key, pending) => write!(
                text,
                "arm\t{}\t{}\t{}\t{}\t{}",
                clock.to_wall(pending.due),
                pending.timeout.as_millis(),
                key.source,
                escape(&key.door),
                escape(&pending.command)
            ),
            Self::Due(key, due) => write!(
                text,
                "due\t{}\t{}\t{}",
                clock.to_wall(*due),
                key.source,
                escape(&key.door)
            ),
            Self::Done(key) => write!(text, "done\t{}\t{}", key.source, escape(&key.door)),
        };
        format!("{:016x}\t{text}\n", checksum(text.as_bytes()))
    }
}

/// What a journal says is pending.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The stops, by door and source.
    pub(crate) pending: BTreeMap<Key, Pending>,
    /// How many lines could not be read.
    pub(crate) damaged: usize,
}

/// Reads a whole journal. A line that is not exactly as it was written counts as damaged
/// and says nothing.
pub(crate) fn parse(bytes: &[u8], clock: Clock) -> Contents {
    let mut contents = Contents::default();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        match parse_line(line, clock) {
            Some(Record::Arm(key, pending)) => {
                contents.pending.insert(key, pending);
            }
            Some(Record::Due(key, due)) => {
                if let Some(pending) = contents.pending.get_mut(&key) {
                    // Read with the stop's own timeout as the bound.
                    pending.due = due.min(clock.boot + pending.timeout);
                }
            }
            Some(Record::Done(key)) => {
                contents.pending.remove(&key);
            }
            None => contents.damaged += 1,
        }
    }
    contents
}

fn parse_line(line: &[u8], clock: Clock) -> Option<Record> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (sum, text) = line.split_once('\t')?;
    if sum != format!("{:016x}", checksum(text.as_bytes())) {
        return None;
    }
    let mut fields = text.split('\t');
    let record = match fields.next()? {
        "arm" => {
            let due = fields.next()?.parse().ok()?;
            let timeout = Duration::from_millis(fields.next()?.parse().ok()?);
            let key = parse_key(&mut fields)?;
            let command = unescape(fields.next()?)?.into();
            let due = clock.to_boot(due, timeout);
            Record::Arm(
                key,
                Pending {
                    command,
                    timeout,
                    due,
                },
            )
        }
        "due" => {
            let due = clock.to_boot(fields.next()?.parse().ok()?, Duration::MAX);
            Record::Due(parse_key(&mut fields)?, due)
        }
        "done" => Record::Done(parse_key(&mut fields)?),
        _ => return None,
    };
    fields.next().is_none().then_some(record)
}

fn parse_key<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Key> {
    let source = fields.next()?.parse().ok()?;
    let door = unescape(fields.next()?)?.into();
    Some(Key { door, source })
}

/// Tabs and line ends would divide fields and lines; the backslash marks them.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

/// FNV-1a, 64 bits: against accidents, not against an author. Each byte is mixed in by a
/// bijection, so that a single changed byte is always found.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
