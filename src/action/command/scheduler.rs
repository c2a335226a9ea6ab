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

use super::job::{CommandJob, Finish};
use super::message::{CommandRefusal, Ending, HelperReport, HelperRequest, Phase};
use super::queue::CommandQueue;
use super::table::CommandTable;
use crate::action::journal::{DoorSource, PendingStop};
use crate::model::Timestamp;

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
    /// Run this; [`Scheduler::ended`] is called when it is over.
    Run(CommandJob),
    /// Tell the daemon.
    Report(HelperReport),
}

/// Whether the journal says what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Unsaved {
    /// It does.
    #[default]
    Nothing,
    /// A stop has been put off or has been run. If that is never written, it runs early, or twice.
    Change,
    /// A stop is new, or all have been run: it must be written before any action is performed.
    AtOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    /// The start waits or runs.
    Starting,
    /// The stop waits for its time.
    Armed,
    /// The stop waits for a free place, or runs. `again`: somebody knocked meanwhile.
    Stopping { again: bool },
}

#[derive(Debug)]
struct Tracked {
    pending: PendingStop,
    state: StopState,
}

/// Which commands run, wait and are pending.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    limits: Limits,
    table: CommandTable,
    stops: HashMap<DoorSource, Tracked>,
    /// The `Armed` among them.
    armed: BTreeSet<(Timestamp, DoorSource)>,
    /// By door: how many of `stops` there are.
    pending_of: HashMap<Arc<str>, usize>,
    starting: CommandQueue,
    stopping: CommandQueue,
    /// Stops that were killed: the next daemon is to try again.
    given_up: Vec<(DoorSource, PendingStop)>,
    draining: bool,
    drained: bool,
    unsaved: Unsaved,
    actions: Vec<Action>,
}

impl Scheduler {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            starting: CommandQueue::new(limits.running),
            stopping: CommandQueue::new(limits.running),
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
    pub(super) fn pending(&self) -> impl Iterator<Item = (&DoorSource, &PendingStop)> {
        let stops = self.stops.iter().map(|(key, stop)| (key, &stop.pending));
        let given_up = self.given_up.iter().map(|(key, pending)| (key, pending));
        stops.chain(given_up)
    }

    /// Whether [`pending`](Self::pending) must be written to the journal.
    pub(super) fn unsaved(&self) -> Unsaved {
        self.unsaved
    }

    /// It has been written, or that is to be tried again later: then as a [`Unsaved::Change`].
    pub(super) fn set_unsaved(&mut self, unsaved: Unsaved) {
        self.unsaved = unsaved;
    }

    fn must_save(&mut self, unsaved: Unsaved) {
        self.unsaved = self.unsaved.max(unsaved);
    }

    /// How many these are.
    pub(super) fn pending_count(&self) -> usize {
        self.stops.len() + self.given_up.len()
    }

    /// Other commands from now on. What is pending keeps the command it was armed with: that
    /// is the one which undoes what was done.
    pub(super) fn set_table(&mut self, table: CommandTable) {
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
    pub(super) fn restore(&mut self, pending: BTreeMap<DoorSource, PendingStop>) {
        for (key, pending) in pending {
            self.armed.insert((pending.due, key.clone()));
            let state = StopState::Armed;
            self.keep(key, Tracked { pending, state });
        }
    }

    fn keep(&mut self, key: DoorSource, stop: Tracked) {
        *self.pending_of.entry(Arc::clone(&key.door)).or_default() += 1;
        self.stops.insert(key, stop);
    }

    fn forget(&mut self, key: &DoorSource) -> Option<Tracked> {
        let stop = self.stops.remove(key)?;
        if let Some(count) = self.pending_of.get_mut(&key.door) {
            *count -= 1;
            if *count == 0 {
                self.pending_of.remove(&key.door);
            }
        }
        Some(stop)
    }

    /// Answers a request; [`HelperRequest::Reload`] is for the caller, who can read files.
    pub(super) fn request(&mut self, now: Timestamp, request: HelperRequest) {
        match request {
            HelperRequest::Start { door, source } => self.start(now, DoorSource { door, source }),
            HelperRequest::Reload => {}
            HelperRequest::Drain => self.drain(now),
        }
        self.dispatch();
    }

    /// Runs the stops that are due.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some((due, _)) = self.armed.first()
            && *due <= now
            && let Some((_, key)) = self.armed.pop_first()
        {
            self.report(&key, |door, source| HelperReport::TimedOut { door, source });
            self.begin_stop(now, &key);
        }
        self.dispatch();
    }

    /// A job is over.
    pub(super) fn ended(
        &mut self,
        now: Timestamp,
        job: CommandJob,
        finish: Finish,
        ending: Ending,
    ) {
        let phase = job.phase;
        self.report(&job.key, |door, source| HelperReport::Ended {
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

    fn start(&mut self, now: Timestamp, key: DoorSource) {
        if self.draining {
            return self.refuse(key, CommandRefusal::Stopping);
        }
        let commands = self.table.get(&key.door);
        if let Some(stop) = self.stops.get_mut(&key) {
            let timeout = commands.map_or(stop.pending.timeout, |c| c.timeout);
            match &mut stop.state {
                StopState::Starting => {}
                StopState::Armed => {
                    let old = stop.pending.due;
                    let due = old.max(now + timeout);
                    stop.pending.due = due;
                    self.armed.remove(&(old, key.clone()));
                    self.armed.insert((due, key.clone()));
                    self.must_save(Unsaved::Change);
                }
                // Not an extension: what it opened is being closed. One after the other.
                StopState::Stopping { again } => {
                    *again = true;
                    return;
                }
            }
            return self.report(&key, |door, source| HelperReport::Extended {
                door,
                source,
                timeout,
            });
        }
        // What is not started is not stopped, as in knock 0.8.
        let Some((commands, start)) = commands.and_then(|c| Some((c, c.start_for(key.source)?)))
        else {
            return self.refuse(key, CommandRefusal::UnknownDoor);
        };
        let command: Arc<str> = start.into();
        let pending = commands.stop_for(key.source).map(|stop| PendingStop {
            command: stop.into(),
            timeout: commands.timeout,
            due: now + commands.timeout,
        });
        if self.starting.waiting() >= self.limits.waiting
            || self.starting.waiting_of(&key.door) >= self.share_of(self.limits.waiting)
        {
            return self.refuse(key, CommandRefusal::TooManyWaiting);
        }
        let here = self.pending_of.get(&key.door).copied().unwrap_or(0);
        if pending.is_some()
            && (self.stops.len() >= self.limits.pending
                || here >= self.share_of(self.limits.pending))
        {
            return self.refuse(key, CommandRefusal::TooManyPending);
        }
        let awaited = pending.is_some();
        if let Some(pending) = pending {
            let state = StopState::Starting;
            self.keep(key.clone(), Tracked { pending, state });
            self.must_save(Unsaved::AtOnce);
        }
        self.starting.push(CommandJob {
            key,
            phase: Phase::Start,
            command,
            awaited,
        });
    }

    /// The start that a stop waited for is over. As in knock 0.8, the time from start to
    /// stop counts from here.
    fn started(&mut self, now: Timestamp, key: DoorSource) {
        if self.draining {
            return self.begin_stop(now, &key);
        }
        let Some(stop) = self.stops.get_mut(&key) else {
            return;
        };
        let due = now + stop.pending.timeout;
        stop.pending.due = due;
        stop.state = StopState::Armed;
        self.armed.insert((due, key));
        self.must_save(Unsaved::Change);
    }

    fn stopped(&mut self, now: Timestamp, key: DoorSource, finish: Finish) {
        let Some(mut stop) = self.forget(&key) else {
            return;
        };
        let again = stop.state == (StopState::Stopping { again: true });
        match finish {
            Finish::Over => self.must_save(Unsaved::Change),
            Finish::NotStarted if !self.draining => {
                stop.state = StopState::Armed;
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

    fn begin_stop(&mut self, now: Timestamp, key: &DoorSource) {
        let Some(stop) = self.stops.get_mut(key) else {
            return;
        };
        stop.state = StopState::Stopping { again: false };
        self.stopping.push(CommandJob {
            key: key.clone(),
            phase: Phase::Stop,
            command: Arc::clone(&stop.pending.command),
            awaited: true,
        });
        // Before its time: should it come to nothing, the next daemon is not to wait.
        if stop.pending.due > now {
            stop.pending.due = now;
            self.must_save(Unsaved::Change);
        }
    }

    fn drain(&mut self, now: Timestamp) {
        self.draining = true;
        for job in self.starting.clear() {
            if job.awaited {
                self.forget(&job.key);
                self.must_save(Unsaved::Change);
            }
            self.refuse(job.key, CommandRefusal::Stopping);
        }
        for (_, key) in std::mem::take(&mut self.armed) {
            self.begin_stop(now, &key);
        }
        let mut refused = Vec::new();
        for (key, stop) in &mut self.stops {
            if let StopState::Stopping { again } = &mut stop.state
                && std::mem::take(again)
            {
                refused.push(key.clone());
            }
        }
        for key in refused {
            self.refuse(key, CommandRefusal::Stopping);
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
            self.must_save(Unsaved::AtOnce);
            self.actions.push(Action::Report(HelperReport::Drained));
        }
    }

    fn report(&mut self, key: &DoorSource, report: impl FnOnce(Arc<str>, IpAddr) -> HelperReport) {
        let report = report(Arc::clone(&key.door), key.source);
        self.actions.push(Action::Report(report));
    }

    fn refuse(&mut self, key: DoorSource, refusal: CommandRefusal) {
        self.report(&key, |door, source| HelperReport::Refused {
            door,
            source,
            refusal,
        });
    }
}

#[cfg(test)]
mod tests;
