//! `-l`: names of sources in the log. A look-up may take seconds, so a thread of its own does it and
//! then writes the line; no packet waits for it.
//!
//! This is no channel: a line stays in the queue while its name is looked up, so that the end of the
//! daemon finds it there and writes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::model::Event;

use super::log_lines::{self, Who};

/// How many lines wait for a name; more are written without one.
const WAITING: usize = 256;

type PendingLine = (Event, Arc<str>);

/// The thread that looks names up, and the lines that wait for it, the oldest first.
#[derive(Debug)]
pub(crate) struct Lookup(Arc<LookupQueue>);

#[derive(Debug, Default)]
struct LookupQueue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<PendingLine>,
    over: bool,
}

impl Lookup {
    /// Starts the thread; it ends with this value.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(LookupQueue::default());
        let its = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("lookup".into())
            .spawn(move || its.serve(name_of))?;
        Ok(Self(shared))
    }

    /// Has the line of `event` written once the name is known.
    pub(crate) fn write(&self, event: Event, door: &Arc<str>) {
        let mut waiting = self.0.lock();
        if waiting.lines.len() >= WAITING {
            drop(waiting);
            write((event, Arc::clone(door)), None);
        } else {
            waiting.lines.push_back((event, Arc::clone(door)));
            self.0.news.notify_one();
        }
    }
}

impl Drop for Lookup {
    /// Writes the lines that still wait, without names: no line is lost for want of a name.
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.over = true;
        for line in waiting.lines.drain(..) {
            write(line, None);
        }
        self.0.news.notify_one();
    }
}

impl LookupQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work: looks names up and writes the lines.
    fn serve(&self, name_of: impl Fn(IpAddr) -> Option<String>) {
        // A source may have several lines in a row: the last name is kept.
        let mut last: Option<(IpAddr, Option<String>)> = None;
        loop {
            let Some(source) = self.next_source() else {
                return;
            };
            let name = match last.take() {
                Some((address, name)) if address == source => name,
                _ => name_of(source),
            };
            if let Some(line) = self.lock().lines.pop_front() {
                write(line, name.as_deref());
            }
            last = Some((source, name));
        }
    }

    /// Waits for a line; returns the source that it is about, `None` at the end.
    fn next_source(&self) -> Option<IpAddr> {
        let mut waiting = self.lock();
        loop {
            if waiting.over {
                return None;
            }
            if let Some((event, _)) = waiting.lines.front() {
                return Some(event.source);
            }
            waiting = self
                .news
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn write((event, door): PendingLine, name: Option<&str>) {
    let who = Who {
        address: event.source,
        name,
    };
    tracing::info!("{}", log_lines::event(&event, who, &door, false));
}

/// Returns the name that reverse DNS gives. It is a stranger's text: only a name of characters that a
/// host name may have (RFC 1123, 2.1) is taken.
fn name_of(address: IpAddr) -> Option<String> {
    let name = dns_lookup::lookup_addr(&address).ok()?;
    let sane = name.len() <= 253
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // Without a name getnameinfo(3) gives the address again.
    (sane && name.parse::<IpAddr>().is_err()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DoorId, Outcome, Timestamp};

    fn line(last: u8) -> PendingLine {
        let event = Event {
            at: Timestamp(0),
            source: IpAddr::from([192, 0, 2, last]),
            door: DoorId(0),
            outcome: Outcome::Open,
        };
        (event, "ssh".into())
    }

    #[test]
    fn a_line_waits_in_its_place_until_its_name_is_known() {
        let shared = LookupQueue::default();
        shared.lock().lines.extend([line(1), line(2)]);
        let left = std::cell::RefCell::new(Vec::new());
        shared.serve(|source| {
            // The line is still in the queue while its name is looked up: if the daemon ended now, it
            // would find the line there.
            let mut waiting = shared.lock();
            left.borrow_mut().push((source, waiting.lines.len()));
            waiting.over = waiting.lines.len() == 1;
            None
        });
        let of = |last| IpAddr::from([192, 0, 2, last]);
        assert_eq!(*left.borrow(), [(of(1), 2), (of(2), 1)]);
    }
}
