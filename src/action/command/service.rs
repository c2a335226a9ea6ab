//! What the helper decides: which command runs when. No processes, no files, no clock: each
//! call takes the time and leaves [`Action`]s to be performed in their order.
//!
//! ```text
//!                knock                    start is over            due
//! (nothing) ───────────────▶ Starting ───────────────────▶ Armed ──────▶ Stopping ──▶ (nothing)
//!                                                           ▲ │            │ ▲
//!                                                     knock └─┘      knock └─┘ then Starting
//! ```
//!
//! That is for a door with a stop command; without one a start is run and forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Ending, Refusal, Report, Request};
use super::queue::Queue;
use super::table::Table;
use crate::action::journal::{Key, Pending, Record};
use crate::model::{Phase, Timestamp};

/// When a stop is tried again that could not be started: processes or memory were short.
const RETRY: Duration = Duration::from_secs(10);

/// The part of what may run, wait or be pending that one door may have, where others have
/// commands too: whoever knocks at one whose command is slow keeps no other waiting.
const SHARE: usize = 4;

/// How much is done at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Commands running, of each phase: starts that hang must not keep doors open.
    pub(super) running: usize,
    /// Start commands waiting to run.
    pub(super) waiting: usize,
    /// Stops pending.
    pub(super) pending: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            running: 64,
            waiting: 1024,
            pending: 16_384,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Write this to the journal, before any command is run.
    Record(Record),
    /// Run this; [`Service::ended`] is called when it is over.
    Run(Job),
    /// Tell the daemon.
    Report(Report),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// The door and the source.
    pub(super) key: Key,
    /// Which of the door's commands.
    pub(super) phase: Phase,
    /// The string, with `%IP%` still in it.
    pub(super) command: Arc<str>,
    /// Whether a stop is pending that waits for this: it must be over before that can run.
    pub(super) awaited: bool,
}

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// By itself.
    Over,
    /// We ended it. A stop that did not get to its end stays in the journal.
    Killed,
    /// It never began. A stop is tried again.
    NotStarted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The start waits or runs.
    Starting,
    /// The stop waits for its time.
    Armed,
    /// The stop waits for a free place, or runs. `again`: somebody knocked meanwhile.
    Stopping { again: bool },
}

#[derive(Debug)]
struct Stop {
    pending: Pending,
    state: State,
}

/// The helper's mind.
#[derive(Debug, Default)]
pub(super) struct Service {
    limits: Limits,
    table: Table,
    stops: HashMap<Key, Stop>,
    /// The `Armed` among them.
    armed: BTreeSet<(Timestamp, Key)>,
    /// By door: how many of `stops` there are.
    pending_of: HashMap<Arc<str>, usize>,
    starting: Queue,
    stopping: Queue,
    /// Stops that were killed: the next daemon is to try again.
    given_up: Vec<(Key, Pending)>,
    draining: bool,
    drained: bool,
    actions: Vec<Action>,
}

impl Service {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            starting: Queue::new(limits.running),
            stopping: Queue::new(limits.running),
            ..Self::default()
        }
    }

    /// What is to be done since this was last asked.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When [`expire`](Self::expire) is to be called.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.armed.first().map(|(due, _)| *due)
    }

    /// All stops that are pending, as the journal is to have them.
    pub(super) fn pending(&self) -> impl Iterator<Item = (Key, Pending)> + '_ {
        let stops = self.stops.iter().map(|(key, stop)| (key, &stop.pending));
        let given_up = self.given_up.iter().map(|(key, pending)| (key, pending));
        let all = stops.chain(given_up);
        all.map(|(key, pending)| (key.clone(), pending.clone()))
    }

    /// How many these are.
    pub(super) fn pending_count(&self) -> usize {
        self.stops.len() + self.given_up.len()
    }

    /// Other commands from now on. What is pending keeps the command it was armed with: that
    /// is the one which undoes what was done.
    pub(super) fn set_table(&mut self, table: Table) {
        self.table = table;
        let share = self.share_of(self.limits.running);
        self.starting.set_share(share);
        self.stopping.set_share(share);
    }

    /// How much of so much one door may have.
    fn share_of(&self, all: usize) -> usize {
        match self.table.doors() {
            0 | 1 => all,
            _ => (all / SHARE).max(1),
        }
    }

    /// Takes over what an earlier helper left in the journal.
    pub(super) fn restore(&mut self, pending: BTreeMap<Key, Pending>) {
        for (key, pending) in pending {
            self.armed.insert((pending.due, key.clone()));
            let state = State::Armed;
            self.keep(key, Stop { pending, state });
        }
    }

    fn keep(&mut self, key: Key, stop: Stop) {
        *self.pending_of.entry(Arc::clone(&key.door)).or_default() += 1;
        self.stops.insert(key, stop);
    }

    fn forget(&mut self, key: &Key) -> Option<Stop> {
        let stop = self.stops.remove(key)?;
        if let Some(count) = self.pending_of.get_mut(&key.door) {
            *count -= 1;
            if *count == 0 {
                self.pending_of.remove(&key.door);
            }
        }
        Some(stop)
    }

    /// Answers a request; [`Request::Reload`] is for the caller, who can read files.
    pub(super) fn request(&mut self, now: Timestamp, request: Request) {
        match request {
            Request::Start { door, source } => self.start(now, Key { door, source }),
            Request::Reload => {}
            Request::Drain => self.drain(now),
        }
        self.dispatch();
    }

    /// Runs the stops that are due.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some((due, _)) = self.armed.first()
            && *due <= now
            && let Some((_, key)) = self.armed.pop_first()
        {
            self.report(&key, |door, source| Report::TimedOut { door, source });
            self.begin_stop(now, &key);
        }
        self.dispatch();
    }

    /// A job is over.
    pub(super) fn ended(&mut self, now: Timestamp, job: Job, finish: Finish, ending: Ending) {
        let phase = job.phase;
        self.report(&job.key, |door, source| Report::Ended {
            door,
            source,
            phase,
            ending,
        });
        match phase {
            Phase::Start => {
                self.starting.ended(&job.key.door);
                if job.awaited {
                    self.started(now, job.key);
                }
            }
            Phase::Stop => {
                self.stopping.ended(&job.key.door);
                self.stopped(now, job.key, finish);
            }
        }
        self.dispatch();
    }

    fn start(&mut self, now: Timestamp, key: Key) {
        if self.draining {
            return self.refuse(key, Refusal::Stopping);
        }
        let commands = self.table.get(&key.door);
        if let Some(stop) = self.stops.get_mut(&key) {
            let timeout = commands.map_or(stop.pending.timeout, |c| c.timeout);
            match &mut stop.state {
                State::Starting => {}
                State::Armed => {
                    let old = stop.pending.due;
                    let due = old.max(now + timeout);
                    stop.pending.due = due;
                    self.armed.remove(&(old, key.clone()));
                    self.armed.insert((due, key.clone()));
                    self.record(Record::Due(key.clone(), due));
                }
                // Not an extension: what it opened is being closed. One after the other.
                State::Stopping { again } => {
                    *again = true;
                    return;
                }
            }
            return self.report(&key, |door, source| Report::Extended {
                door,
                source,
                timeout,
            });
        }
        // What is not started is not stopped, as in knock 0.8.
        let Some((commands, start)) = commands.and_then(|c| Some((c, c.start_for(key.source)?)))
        else {
            return self.refuse(key, Refusal::UnknownDoor);
        };
        let command: Arc<str> = start.into();
        let pending = commands.stop_for(key.source).map(|stop| Pending {
            command: stop.into(),
            timeout: commands.timeout,
            due: now + commands.timeout,
        });
        if self.starting.waiting() >= self.limits.waiting
            || self.starting.waiting_of(&key.door) >= self.share_of(self.limits.waiting)
        {
            return self.refuse(key, Refusal::TooManyWaiting);
        }
        let here = self.pending_of.get(&key.door).copied().unwrap_or(0);
        if pending.is_some()
            && (self.stops.len() >= self.limits.pending
                || here >= self.share_of(self.limits.pending))
        {
            return self.refuse(key, Refusal::TooManyPending);
        }
        let awaited = pending.is_some();
        if let Some(pending) = pending {
            self.record(Record::Arm(key.clone(), pending.clone()));
            let state = State::Starting;
            self.keep(key.clone(), Stop { pending, state });
        }
        self.starting.push(Job {
            key,
            phase: Phase::Start,
            command,
            awaited,
        });
    }

    /// The start that a stop waited for is over. As in knock 0.8, the time from start to
    /// stop counts from here.
    fn started(&mut self, now: Timestamp, key: Key) {
        if self.draining {
            return self.begin_stop(now, &key);
        }
        let Some(stop) = self.stops.get_mut(&key) else {
            return;
        };
        let due = now + stop.pending.timeout;
        stop.pending.due = due;
        stop.state = State::Armed;
        self.armed.insert((due, key.clone()));
        self.record(Record::Due(key, due));
    }

    fn stopped(&mut self, now: Timestamp, key: Key, finish: Finish) {
        let Some(mut stop) = self.forget(&key) else {
            return;
        };
        let again = stop.state == (State::Stopping { again: true });
        match finish {
            Finish::Over => self.record(Record::Done(key.clone())),
            Finish::NotStarted if !self.draining => {
                stop.state = State::Armed;
                stop.pending.due = now + RETRY;
                self.armed.insert((stop.pending.due, key.clone()));
                // Who knocked meanwhile finds it armed, and puts it off.
                self.keep(key.clone(), stop);
            }
            Finish::Killed | Finish::NotStarted => self.given_up.push((key.clone(), stop.pending)),
        }
        if again {
            self.start(now, key);
        }
    }

    fn begin_stop(&mut self, now: Timestamp, key: &Key) {
        let Some(stop) = self.stops.get_mut(key) else {
            return;
        };
        stop.state = State::Stopping { again: false };
        self.stopping.push(Job {
            key: key.clone(),
            phase: Phase::Stop,
            command: Arc::clone(&stop.pending.command),
            awaited: true,
        });
        // Before its time: should it come to nothing, the next daemon is not to wait.
        if stop.pending.due > now {
            stop.pending.due = now;
            self.record(Record::Due(key.clone(), now));
        }
    }

    fn drain(&mut self, now: Timestamp) {
        self.draining = true;
        for job in self.starting.clear() {
            if job.awaited {
                self.forget(&job.key);
                self.record(Record::Done(job.key.clone()));
            }
            self.refuse(job.key, Refusal::Stopping);
        }
        for (_, key) in std::mem::take(&mut self.armed) {
            self.begin_stop(now, &key);
        }
        let mut refused = Vec::new();
        for (key, stop) in &mut self.stops {
            if let State::Stopping { again } = &mut stop.state
                && std::mem::take(again)
            {
                refused.push(key.clone());
            }
        }
        for key in refused {
            self.refuse(key, Refusal::Stopping);
        }
    }

    /// Lets run what may run.
    fn dispatch(&mut self) {
        while let Some(job) = self.stopping.next() {
            self.actions.push(Action::Run(job));
        }
        while let Some(job) = self.starting.next() {
            self.actions.push(Action::Run(job));
        }
        if self.draining && !self.drained && self.stops.is_empty() {
            self.drained = true;
            self.actions.push(Action::Report(Report::Drained));
        }
    }

    /// Whether [`Report::Drained`] has been given.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    fn record(&mut self, record: Record) {
        self.actions.push(Action::Record(record));
    }

    fn report(&mut self, key: &Key, report: impl FnOnce(Arc<str>, IpAddr) -> Report) {
        let report = report(Arc::clone(&key.door), key.source);
        self.actions.push(Action::Report(report));
    }

    fn refuse(&mut self, key: Key, refusal: Refusal) {
        self.report(&key, |door, source| Report::Refused {
            door,
            source,
            refusal,
        });
    }
}

#[cfg(test)]
mod tests;
