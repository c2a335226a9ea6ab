//! The helper: one thread around one poll.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};

use super::children::{Children, Over};
use super::message::{Report, Request};
use super::outbox::{Outbox, Received, receive};
use super::output::printable;
use super::service::{Action, Job, Limits, Service};
use super::system::{ServeError, clock, failed, now};
use super::table::{Table, expand};
use crate::action::journal::{Journal, JournalError};

/// Above this many bytes of reports that the daemon has not read, output is thrown away and
/// no request is taken.
const OUTBOX: usize = 1 << 20;

/// Requests taken before the journal is written: one sync is enough for as many.
const BATCH: usize = 256;

/// The helper's main: does what comes by `socket` until the other end is closed and every
/// command that runs is over. `load` reads the commands, now and at each
/// [`Request::Reload`]; pending stops are kept in `state_dir`.
///
/// Signals that would end it are held back: a service manager sends them to the helper and
/// to the daemon alike, and it is the daemon that says when to end.
///
/// # Errors
///
/// If the kernel refuses what it needs to begin or to wait.
pub fn serve<E: Display>(
    socket: OwnedFd,
    load: impl FnMut() -> Result<Table, E>,
    state_dir: &Path,
) -> Result<(), ServeError> {
    // What ps(1) shows; only for the eye.
    let _ = prctl::set_name(c"knockd-commands");
    let mut held: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    held.add(Signal::SIGCHLD);
    held.thread_set_mask()
        .map_err(failed("hold back signals"))?;
    let mask: SigSet = [Signal::SIGCHLD].into_iter().collect();
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(failed("watch its children"))?;
    // Unlike poll's own timeout it counts while the machine sleeps.
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
        service: Service::new(Limits::default()),
        children: Children::default(),
        journal: None,
        unsaid: None,
        journal_faulty: false,
        outbox: Outbox::default(),
        lost: 0,
    };
    helper.begin(state_dir)?;
    while helper.step()? {}
    Ok(())
}

struct Helper<L> {
    /// None when the daemon is gone.
    socket: Option<OwnedFd>,
    signals: SignalFd,
    timer: TimerFd,
    load: L,
    service: Service,
    children: Children,
    journal: Option<Journal>,
    /// Why there is none. Said when there is a stop to be kept: a daemon without any, which
    /// may not write there, does well without.
    unsaid: Option<JournalError>,
    /// The last write failed, and that was said.
    journal_faulty: bool,
    outbox: Outbox,
    lost: u32,
}

/// Which of the things waited for have come.
#[derive(Default)]
struct Ready {
    socket: bool,
    signals: bool,
    pipes: Vec<usize>,
}

impl<E: Display, L: FnMut() -> Result<Table, E>> Helper<L> {
    /// Reads the commands and what an earlier helper left.
    fn begin(&mut self, state_dir: &Path) -> Result<(), ServeError> {
        let loaded = self.load();
        let now = clock()?;
        let mut overdue = 0;
        match Journal::open(state_dir, now) {
            Ok((journal, found)) => {
                self.journal = Some(journal);
                if let Some((aside, fault)) = found.quarantined {
                    self.say(Report::JournalFault {
                        message: format!(
                            "the journal of pending stops is not as it was written: {fault}. It \
                             is kept as {}: look there for what may still be open; {} stop \
                             commands could be read and will be run",
                            aside.display(),
                            found.contents.pending.len()
                        ),
                    });
                }
                let pending = found.contents.pending.values();
                overdue = pending.filter(|p| p.due <= now.boot).count();
                self.service.restore(found.contents.pending);
            }
            Err(error) => self.unsaid = Some(error),
        }
        if let Some(table) = loaded {
            self.adopt(table, overdue);
        }
        self.service.expire(now.boot);
        self.perform()
    }

    fn load(&mut self) -> Option<Table> {
        match (self.load)() {
            Ok(table) => Some(table),
            Err(error) => {
                self.say(Report::LoadFailed {
                    message: error.to_string(),
                });
                None
            }
        }
    }

    fn adopt(&mut self, table: Table, overdue: usize) {
        if table.has_stops()
            && let Some(error) = self.unsaid.take()
        {
            self.journal_fault(&error);
        }
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        self.say(Report::Ready {
            digest: table.digest(),
            pending: count(self.service.pending_count()),
            overdue: count(overdue),
        });
        self.service.set_table(table);
    }

    /// Waits for something and does what is to be done. False when all is over.
    fn step(&mut self) -> Result<bool, ServeError> {
        self.set_timer()?;
        let ready = self.wait()?;
        if ready.socket {
            self.requests()?;
        }
        let mut reports = Vec::new();
        self.children.read(&ready.pipes, &mut reports);
        let over = if ready.signals {
            // One notice may stand for several children: all that are over are collected.
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
            self.service.ended(now, job, finish, ending);
        }
        self.children.kill(now);
        if self.socket.is_some() {
            self.service.expire(now);
        }
        self.perform()?;
        Ok(self.socket.is_some() || !self.children.is_idle())
    }

    fn set_timer(&self) -> Result<(), ServeError> {
        let due = self.socket.as_ref().and(self.service.next_deadline());
        let next = due.into_iter().chain(self.children.next_deadline()).min();
        match next {
            // Zero would disarm it.
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

    fn wait(&self) -> Result<Ready, ServeError> {
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
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(failed("wait")(errno)),
        }
        let mut come: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let socket = socket.is_some() && come.pop().unwrap_or(false);
        let mut come = come.into_iter();
        let signals = come.next().unwrap_or(false);
        // The timer says no more than that it is time: the next setting clears it.
        let pipes = come.skip(1).enumerate();
        Ok(Ready {
            socket,
            signals,
            pipes: pipes.filter_map(|(n, come)| come.then_some(n)).collect(),
        })
    }

    /// Takes what the daemon asks.
    fn requests(&mut self) -> Result<(), ServeError> {
        for _ in 0..BATCH {
            if self.outbox.bytes() >= OUTBOX {
                break;
            }
            let Some(socket) = &self.socket else { break };
            match receive(socket.as_fd()) {
                Received::Message(bytes) => self.request(&bytes)?,
                Received::Nothing => break,
                Received::End => self.end(),
            }
        }
        Ok(())
    }

    fn request(&mut self, bytes: &[u8]) -> Result<(), ServeError> {
        match Request::decode(bytes) {
            Ok(Request::Reload) => {
                if let Some(table) = self.load() {
                    self.adopt(table, 0);
                }
            }
            Ok(request) => {
                let now = now()?;
                if request == Request::Drain {
                    self.children.hurry(now);
                }
                self.service.request(now, request);
            }
            // The daemon writes none: it is not itself any more, and there is nobody to tell.
            Err(_) => {}
        }
        Ok(())
    }

    /// The daemon is gone. What runs may end; what is pending is left, in the journal, to the
    /// next one, who may have it at once.
    fn end(&mut self) {
        self.socket = None;
        self.journal = None;
        self.service = Service::new(Limits::default());
    }

    /// Does what the service decided: first the journal, then the commands.
    fn perform(&mut self) -> Result<(), ServeError> {
        loop {
            let actions = self.service.take_actions();
            if actions.is_empty() {
                break;
            }
            self.record(&actions)?;
            for action in actions {
                match action {
                    Action::Record(_) => {}
                    Action::Report(report) => self.say(report),
                    Action::Run(job) => self.run(job)?,
                }
            }
        }
        self.flush();
        Ok(())
    }

    fn run(&mut self, job: Job) -> Result<(), ServeError> {
        let now = now()?;
        let command = expand(&job.command, job.key.source);
        self.say(Report::Running {
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
            self.service.ended(now, job, finish, ending);
        }
        Ok(())
    }

    /// A journal that cannot be written stops nothing: a full disk must not lock out who
    /// comes to mend it. What is pending is still run by this process.
    fn record(&mut self, actions: &[Action]) -> Result<(), ServeError> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let clock = clock()?;
        for action in actions {
            match action {
                Action::Record(record) => journal.note(record, clock),
                Action::Run(_) | Action::Report(_) => {}
            }
        }
        let count = self.service.pending_count();
        let result = if self.service.is_drained() && count == 0 {
            journal.remove()
        } else if journal.is_dirty() {
            journal.commit(count, self.service.pending(), clock)
        } else {
            return Ok(());
        };
        match result {
            Ok(()) => self.journal_faulty = false,
            Err(_) if self.journal_faulty => {}
            Err(error) => {
                self.journal_faulty = true;
                self.journal_fault(&error);
            }
        }
        Ok(())
    }

    fn journal_fault(&mut self, error: &JournalError) {
        self.say(Report::JournalFault {
            message: format!(
                "{error}; until this is mended, pending stop commands do not survive the end \
                 of knockd"
            ),
        });
    }

    /// Notes a report. What commands print may be lost, nothing else.
    fn say(&mut self, report: Report) {
        let printed = matches!(report, Report::Output { .. } | Report::OutputCut { .. });
        if printed && self.outbox.bytes() >= OUTBOX {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.outbox.push(report.encode());
        }
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else {
            self.outbox = Outbox::default();
            return;
        };
        if self.lost > 0 && self.outbox.bytes() < OUTBOX {
            let reports = std::mem::take(&mut self.lost);
            self.outbox.push(Report::Lost { reports }.encode());
        }
        if self.outbox.flush(socket.as_fd()).is_err() {
            self.end();
        }
    }
}
