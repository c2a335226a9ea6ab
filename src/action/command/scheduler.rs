//! Decides which command runs when. There are no processes, files or clocks here: each call takes
//! the time, and leaves [`Action`]s to be performed in their order.
//!
//! ```text
//!                knock                    start is over            due
//! (nothing) ───────────────▶ Starting ───────────────────▶ Armed ──────▶ Stopping ──▶ (nothing)
//!                                                           ▲ │            │ ▲
//!                                                     knock └─┘      knock └─┘ then Starting
//! ```
//!
//! This holds for a door with a stop command. Without one, a start is run and forgotten.

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

/// The time after which a stop that could not be started is tried again. Processes or memory were
/// short.
const RETRY: Duration = Duration::from_secs(10);

/// If several doors have commands, one door may have this part of each limit: one in `SHARE`. So a
/// knock at a door with a slow command keeps no other door waiting.
const SHARE: usize = 4;

/// How many commands there may be at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Commands that run, of each phase: starts that hang must not keep doors open.
    pub(super) running: usize,
    /// Start commands that wait to run.
    pub(super) waiting: usize,
    /// Stops that are pending.
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

/// Something for the caller to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Run this, and call [`Scheduler::ended`] when it is over.
    Run(CommandJob),
    /// Send this to the daemon.
    Report(HelperReport),
}

/// How the journal differs from the stops that are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Unsaved {
    /// It does not differ.
    #[default]
    Nothing,
    /// A stop was put off or has been run. If that is never written, the stop runs early, or twice.
    Change,
    /// A stop is new, or all have been run. That must be written before any action is performed.
    AtOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    /// The start waits or runs.
    Starting,
    /// The stop waits for its time.
    Armed,
    /// The stop waits for a free place, or runs. `again` is set by a knock meanwhile.
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
    /// The `stops` that are `Armed`, by the time at which they are due.
    armed: BTreeSet<(Timestamp, DoorSource)>,
    /// The number of `stops` of each door.
    pending_of: HashMap<Arc<str>, usize>,
    starting: CommandQueue,
    stopping: CommandQueue,
    /// Stops that were killed, or could not be started when the daemon was stopping: the next daemon
    /// is to try them again.
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

    /// Returns the actions since the last call.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Returns when [`expire`](Self::expire) is to be called.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.armed.first().map(|(due, _)| *due)
    }

    /// Returns all stops that are pending, as the journal is to have them.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&DoorSource, &PendingStop)> {
        let stops = self.stops.iter().map(|(key, stop)| (key, &stop.pending));
        let given_up = self.given_up.iter().map(|(key, pending)| (key, pending));
        stops.chain(given_up)
    }

    /// Returns whether [`pending`](Self::pending) must be written to the journal.
    pub(super) fn unsaved(&self) -> Unsaved {
        self.unsaved
    }

    /// Notes the result of writing the journal: [`Unsaved::Nothing`] if it has been written,
    /// [`Unsaved::Change`] if that has failed and is to be tried again later.
    pub(super) fn set_unsaved(&mut self, unsaved: Unsaved) {
        self.unsaved = unsaved;
    }

    fn must_save(&mut self, unsaved: Unsaved) {
        self.unsaved = self.unsaved.max(unsaved);
    }

    /// Returns how many stops are pending.
    pub(super) fn pending_count(&self) -> usize {
        self.stops.len() + self.given_up.len()
    }

    /// Sets the commands from now on. A pending stop keeps its command: it is the one that undoes
    /// what its start has done.
    pub(super) fn set_table(&mut self, table: CommandTable) {
        self.table = table;
        let share = self.share_of(self.limits.running);
        self.starting.set_share(share);
        self.stopping.set_share(share);
    }

    /// Returns how many of `all` one door may have.
    fn share_of(&self, all: usize) -> usize {
        match self.table.doors() {
            0 | 1 => all,
            _ => (all / SHARE).max(1),
        }
    }

    /// Takes over the stops that an earlier helper has left in the journal. A stop that is pending here
    /// as well is the newer one.
    pub(super) fn restore(&mut self, pending: BTreeMap<DoorSource, PendingStop>) {
        for (key, pending) in pending {
            if self.stops.contains_key(&key) {
                continue;
            }
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

    /// Obeys a request, but for [`HelperRequest::Reload`]: that is for the caller, who can read
    /// files.
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

    /// Takes the end of a job.
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
                // This is no extension: the door is being closed. Its start runs again after that.
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
        // If there is nothing to start, nothing is stopped either, as in knock 0.8.
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

    /// Arms a stop whose start is over. As in knock 0.8, the time from start to stop counts from
    /// here.
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
                // A knock that came meanwhile finds it armed, and puts it off.
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
        // It runs before its time. If it fails, the next daemon must not wait for that time.
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

    /// Hands out the jobs that may run.
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
