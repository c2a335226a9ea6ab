//! The helper process: one thread around one `poll`.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};

use super::channel::{Incoming, Outbox, receive};
use super::children::{Children, Over};
use super::job::CommandJob;
use super::message::{HelperReport, HelperRequest};
use super::output::printable;
use super::scheduler::{Action, Limits, Scheduler, Unsaved};
use super::system::{ServeError, clocks, failed, now};
use super::table::{CommandTable, expand};
use crate::action::journal::{Clocks, Journal, JournalError, is_left};
use crate::model::Timestamp;

/// How many bytes of reports may wait for the daemon. If more wait, the output of commands is thrown
/// away and no request is taken.
const OUTBOX: usize = 1 << 20;

/// Requests taken before the journal is written, once for all of them.
const BATCH: usize = 256;

/// A change of the journal that no command waits for is held back for a while after the journal was
/// written: for so many times as long as that took. So a busy disk, or a journal of thousands of
/// stops, does not keep commands waiting.
const SAVE_PAUSE: u32 = 8;

/// The time after which a write of the journal that has failed is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(10);

/// The helper's main function. It obeys the requests that come by `socket`, until the other end is
/// closed and every command that runs is over. `load` reads the commands, now and at each
/// [`HelperRequest::Reload`]. Pending stops are kept in `state_dir`. If this helper takes the place of
/// one that has died, `death` says how that died.
///
/// Signals that would end the helper are blocked: a service manager sends them to the helper and to
/// the daemon alike, and it is the daemon that says when to end.
///
/// # Errors
///
/// If the kernel refuses what it needs to begin or to wait.
pub fn serve<E: Display>(
    socket: OwnedFd,
    death: Option<String>,
    load: impl FnMut() -> Result<CommandTable, E>,
    state_dir: &Path,
) -> Result<(), ServeError> {
    let mut held: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    held.add(Signal::SIGCHLD);
    held.thread_set_mask()
        .map_err(failed("hold back signals"))?;
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(failed("watch its children"))?;
    // Unlike the timeout of poll, it counts while the machine sleeps.
    let timer = TimerFd::new(
        TimerClock::CLOCK_BOOTTIME,
        TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
    )
    .map_err(failed("make a timer"))?;
    let mut helper = Helper {
        socket: Some(socket),
        signals,
        timer,
        load,
        scheduler: Scheduler::new(Limits::default()),
        children: Children::default(),
        state_dir: state_dir.to_owned(),
        journal: None,
        next_open: None,
        unsaid: None,
        journal_faulty: false,
        next_save: Timestamp::default(),
        outbox: Outbox::default(),
        lost: 0,
    };
    if let Some(death) = death {
        helper.say(HelperReport::Replaces { death });
    }
    helper.begin()?;
    // The daemon may be gone as early as that.
    while !helper.is_over() {
        helper.step()?;
    }
    Ok(())
}

struct Helper<L> {
    /// `None` once the daemon is gone.
    socket: Option<OwnedFd>,
    signals: SignalFd,
    timer: TimerFd,
    load: L,
    scheduler: Scheduler,
    children: Children,
    /// The folder of the journal.
    state_dir: PathBuf,
    journal: Option<Journal>,
    /// If there is no journal, and that was reported: the time at which it is opened once more.
    next_open: Option<Timestamp>,
    /// The reason why there is no journal, not reported yet. It is reported when some door has a stop
    /// command: a daemon without stop commands needs no journal, and perhaps may not write there.
    unsaid: Option<JournalError>,
    /// The last write of the journal failed, and that was reported.
    journal_faulty: bool,
    /// The earliest time to write an [`Unsaved::Change`].
    next_save: Timestamp,
    outbox: Outbox,
    lost: u32,
}

/// The descriptors that [`Helper::wait`] has found ready.
#[derive(Default)]
struct ReadyFds {
    socket: bool,
    signals: bool,
    pipes: Vec<usize>,
}

impl<E: Display, L: FnMut() -> Result<CommandTable, E>> Helper<L> {
    /// Reads the commands, and the stops that an earlier helper has left.
    fn begin(&mut self) -> Result<(), ServeError> {
        let loaded = self.load();
        let now = clocks()?;
        let overdue = match self.open_journal(now) {
            Ok(overdue) => overdue,
            Err(error) => {
                self.unsaid = Some(error);
                0
            }
        };
        if let Some(table) = loaded {
            self.adopt(table, overdue);
        }
        self.scheduler.expire(now.boot);
        self.perform()
    }

    /// Opens the journal, and takes over its stops. Returns how many of them are overdue.
    fn open_journal(&mut self, now: Clocks) -> Result<usize, JournalError> {
        let (journal, found) = Journal::open(&self.state_dir, now)?;
        self.journal = Some(journal);
        if let Some((aside, fault)) = found.quarantined {
            self.say(HelperReport::JournalFault {
                message: format!(
                    "the journal of pending stops is not as it was written: {fault}. It is kept \
                     as {}: look there for what may still be open; {} stop commands could be \
                     read and will be run",
                    aside.display(),
                    found.stops.len()
                ),
            });
        }
        let stops = found.stops.values();
        let overdue = stops.filter(|stop| stop.due <= now.boot).count();
        self.scheduler.restore(found.stops);
        Ok(overdue)
    }

    /// Opens a journal that could not be opened, once more, if that is due: its disk may have been
    /// repaired.
    fn reopen_journal(&mut self) -> Result<(), ServeError> {
        let now = clocks()?;
        if self.socket.is_none() || self.next_open.is_none_or(|at| at > now.boot) {
            return Ok(());
        }
        self.next_open = match self.open_journal(now) {
            Ok(_) => {
                // It has none of the stops that are pending here.
                self.scheduler.set_unsaved(Unsaved::AtOnce);
                self.scheduler.expire(now.boot);
                None
            }
            Err(_) => Some(self::now()? + SAVE_RETRY),
        };
        Ok(())
    }

    fn load(&mut self) -> Option<CommandTable> {
        match (self.load)() {
            Ok(table) => Some(table),
            Err(error) => {
                self.say(HelperReport::LoadFailed {
                    message: error.to_string(),
                });
                None
            }
        }
    }

    fn adopt(&mut self, table: CommandTable, overdue: usize) {
        let is_needed = || table.has_stops() || is_left(&self.state_dir);
        if let Some(error) = self.unsaid.take_if(|_| is_needed()) {
            self.journal_fault(&error);
            // At once: what is wrong may be over by now.
            self.next_open = Some(Timestamp::default());
        }
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        self.say(HelperReport::Ready {
            digest: table.digest(),
            pending: count(self.scheduler.pending_count()),
            overdue: count(overdue),
        });
        self.scheduler.set_table(table);
    }

    /// Returns whether the daemon is gone and no command runs. Then nothing happens any more.
    fn is_over(&self) -> bool {
        self.socket.is_none() && self.children.is_idle()
    }

    /// Waits for something to happen, and reacts.
    fn step(&mut self) -> Result<(), ServeError> {
        self.set_timer()?;
        let ready = self.wait()?;
        if ready.socket {
            self.requests()?;
        }
        let mut reports = Vec::new();
        self.children.read(&ready.pipes, &mut reports);
        let over = if ready.signals {
            // One signal may stand for several children that are over: all are collected.
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.children.reap(&mut reports)
        } else {
            Vec::new()
        };
        for report in reports {
            self.say(report);
        }
        let now = now()?;
        for Over {
            job,
            finish,
            ending,
        } in over
        {
            self.scheduler.ended(now, job, finish, ending);
        }
        self.children.kill(now);
        if self.socket.is_some() {
            self.scheduler.expire(now);
        }
        self.perform()
    }

    fn set_timer(&self) -> Result<(), ServeError> {
        let due = self.socket.as_ref().and(self.scheduler.next_deadline());
        let save = (self.scheduler.unsaved() != Unsaved::Nothing).then_some(self.next_save);
        let save = self.journal.as_ref().and(save);
        let open = self.socket.as_ref().and(self.next_open);
        let kill = self.children.next_deadline();
        let next = [due, save, open, kill].into_iter().flatten().min();
        match next {
            // Zero would disarm the timer.
            Some(at) => self.timer.set(
                Expiration::OneShot(TimeSpec::from(
                    at.since_epoch().max(Duration::from_nanos(1)),
                )),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.timer.unset(),
        }
        .map_err(failed("set its timer"))
    }

    fn wait(&self) -> Result<ReadyFds, ServeError> {
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::POLLIN, self.outbox.bytes() < OUTBOX);
        wanted.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        let pipes = self.children.pipes();
        fds.extend(pipes.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
        let socket = self.socket.as_ref();
        fds.extend(socket.map(|s| PollFd::new(s.as_fd(), wanted)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ReadyFds::default()),
            Err(errno) => return Err(failed("wait")(errno)),
        }
        let mut come: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let socket = socket.is_some() && come.pop().unwrap_or(false);
        let mut come = come.into_iter();
        let signals = come.next().unwrap_or(false);
        // The timer need not be read: to set it again clears it.
        let pipes = come.skip(1).enumerate();
        Ok(ReadyFds {
            socket,
            signals,
            pipes: pipes.filter_map(|(n, come)| come.then_some(n)).collect(),
        })
    }

    /// Takes requests of the daemon.
    fn requests(&mut self) -> Result<(), ServeError> {
        for _ in 0..BATCH {
            if self.outbox.bytes() >= OUTBOX {
                break;
            }
            let Some(socket) = &self.socket else { break };
            match receive(socket.as_fd()) {
                Incoming::Message(request) => self.request(request)?,
                // A daemon that writes such a packet has been taken over: nobody is there for a report.
                Incoming::Malformed => {}
                Incoming::Nothing => break,
                Incoming::End => self.end(),
            }
        }
        Ok(())
    }

    fn request(&mut self, request: HelperRequest) -> Result<(), ServeError> {
        let now = now()?;
        match &request {
            HelperRequest::Reload => {
                if let Some(table) = self.load() {
                    self.adopt(table, 0);
                }
            }
            HelperRequest::Drain => self.children.hurry(now),
            HelperRequest::Start { .. } => {}
        }
        self.scheduler.request(now, request);
        Ok(())
    }

    /// Reacts to the end of the daemon. Commands that run may end by themselves. Stops that are
    /// pending are left in the journal to the next helper, which may open it at once.
    fn end(&mut self) {
        // Only a change is written. A new stop is not, since its start will not run. If the write
        // fails, nobody is there for a report.
        if let (Some(journal), Ok(clocks)) = (self.journal.take(), clocks())
            && self.scheduler.unsaved() == Unsaved::Change
        {
            let _ = journal.write(self.scheduler.pending(), clocks);
        }
        self.socket = None;
        self.scheduler = Scheduler::new(Limits::default());
    }

    /// Writes the journal, then does what the scheduler has decided.
    fn perform(&mut self) -> Result<(), ServeError> {
        self.reopen_journal()?;
        loop {
            self.save()?;
            let actions = self.scheduler.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Report(report) => self.say(report),
                    Action::Run(job) => self.run(job)?,
                }
            }
        }
        self.flush();
        Ok(())
    }

    fn run(&mut self, job: CommandJob) -> Result<(), ServeError> {
        let now = now()?;
        let command = expand(&job.command, job.key.source);
        self.say(HelperReport::Running {
            door: job.key.door.clone(),
            source: job.key.source,
            phase: job.phase,
            command: printable(&command),
        });
        if let Err(Over {
            job,
            finish,
            ending,
        }) = self.children.run(now, job, &command)
        {
            self.scheduler.ended(now, job, finish, ending);
        }
        Ok(())
    }

    /// Writes the journal, if it is time to.
    ///
    /// If the journal cannot be written, commands run all the same: a full disk must not lock out the
    /// administrator who comes to repair it. Pending stops are still run by this process.
    fn save(&mut self) -> Result<(), ServeError> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let begun = clocks()?;
        match self.scheduler.unsaved() {
            Unsaved::Nothing => return Ok(()),
            Unsaved::Change if begun.boot < self.next_save => return Ok(()),
            Unsaved::Change | Unsaved::AtOnce => {}
        }
        let written = journal.write(self.scheduler.pending(), begun);
        let ended = now()?;
        match written {
            Ok(()) => {
                self.scheduler.set_unsaved(Unsaved::Nothing);
                self.next_save = ended + ended.since(begun.boot) * SAVE_PAUSE;
                self.journal_faulty = false;
            }
            Err(error) => {
                self.scheduler.set_unsaved(Unsaved::Change);
                self.next_save = ended + SAVE_RETRY;
                if !self.journal_faulty {
                    self.journal_faulty = true;
                    self.journal_fault(&error);
                }
            }
        }
        Ok(())
    }

    fn journal_fault(&mut self, error: &JournalError) {
        self.say(HelperReport::JournalFault {
            message: format!(
                "{error}; until this is mended, pending stop commands do not survive the end \
                 of knockd"
            ),
        });
    }

    /// Queues a report. Only the output of commands may be lost.
    fn say(&mut self, report: HelperReport) {
        let printed = matches!(
            report,
            HelperReport::Output { .. } | HelperReport::OutputCut { .. }
        );
        if printed && self.outbox.bytes() >= OUTBOX {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.outbox.push(&report);
        }
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else {
            self.outbox = Outbox::default();
            return;
        };
        if self.lost > 0 && self.outbox.bytes() < OUTBOX {
            let reports = std::mem::take(&mut self.lost);
            self.outbox.push(&HelperReport::Lost { reports });
        }
        if self.outbox.flush(socket.as_fd()).is_err() {
            self.end();
        }
    }
}
