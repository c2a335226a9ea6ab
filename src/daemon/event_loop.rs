//! The daemon's life: one poll around everything, until it is told to stop.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::firewall::Table;
use crate::model::{OnStop, Timestamp};

use super::Fault;
use super::background;
use super::command_helper::Commands;
use super::control::socket::Control;
use super::control::status::Refused;
use super::log::Log;
use super::log::limit::Kind;
use super::log::log_lines;
use super::packets::listener::{BATCH, Listener};
use super::packets::pacing::Pace;
use super::packets::pipeline::Line;
use super::packets::ticks::Ticks;
use super::service_manager::Manager;
use super::setup::Options;
use super::signals::{self, Asked, Signals};
use super::state::dir::Keeper;
use super::state::lock::{Lock, PidFile};
use super::state::start_failures as backoff;

/// A look takes so long for each packet, whatever they were: a stray is judged in some 50 ns, a first
/// step in up to 150.
const PACKET: Duration = Duration::from_nanos(150);

/// A look at packets that came by themselves takes a multiple of this. It is the first that the
/// caches see of them: a step takes a microsecond more than another port.
const LOOK: Duration = Duration::from_micros(20);

/// Waits until a look that began at `from` shows nothing of what its packets were: who shares a
/// processor with us could measure it. Where packets gathered, a moment has begun it that none of
/// them has chosen; but where they came by themselves (`was_rare`), their coming has.
fn hide_work(from: Timestamp, taken: usize, was_rare: bool) {
    let count = u32::try_from(taken).unwrap_or(u32::MAX);
    let worked = now().since(from);
    let looks = u32::try_from(worked.as_nanos() / LOOK.as_nanos()).unwrap_or(u32::MAX);
    let least = match was_rare {
        true => LOOK.saturating_mul(looks.saturating_add(1)),
        false => Duration::ZERO,
    };
    let least = least.max(PACKET.saturating_mul(count));
    while now().since(from) < least {
        std::hint::spin_loop();
    }
}

/// The monotonic clock: what decides expiry.
pub(super) fn now() -> Timestamp {
    // CLOCK_MONOTONIC cannot fail (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Timestamp::default(), |time| {
        Timestamp::from_epoch(time.into())
    })
}

/// Runs the daemon until it is told to stop. If it fails, it has said why.
///
/// # Errors
/// It cannot start, or the kernel took away what it needs.
pub fn run(options: &Options) -> Result<(), Fault> {
    if let Some(answer) = options.detached {
        background::detach(answer);
    }
    // Before any thread: a thread inherits the mask.
    let signals = Signals::block();
    let log = Log::start(options.log.clone());
    let complain = |fault: &Fault| log.complain(fault);
    let signals = signals
        .map_err(|e| Fault::System(format!("signalfd: {e}")))
        .inspect_err(complain)?;
    let failures = options.run_dir.join("failed-starts");
    let mut daemon = Daemon::start(options, &log, signals).inspect_err(|fault| {
        complain(fault);
        log.flush();
        backoff::wait(&failures);
    })?;
    backoff::forget(&failures);
    let ended = daemon.serve();
    daemon.stop(ended.is_ok());
    ended.inspect_err(complain)
}

/// The daemon, running.
pub(super) struct Daemon<'a> {
    pub(super) options: &'a Options,
    pub(super) path: PathBuf,
    /// Those of the file, as it was last read: an order waits for no disk.
    pub(super) names: Vec<String>,
    pub(super) log: &'a Log,
    pub(super) signals: Signals,
    pub(super) listener: Listener,
    /// Which of this host's addresses the listener has been told of: see [`crate::capture::Links::own`].
    pub(super) own: u64,
    pub(super) line: Line,
    pub(super) control: Option<Control>,
    pub(super) manager: Manager,
    pub(super) keeper: Keeper,
    pub(super) pidfile: Option<PidFile>,
    pub(super) lock: Option<Lock>,
    /// By it another daemon knows that its configuration and interfaces are ours.
    pub(super) _folder: Option<std::fs::File>,
    /// Packets that found no room, as last told.
    pub(super) dropped: u64,
    /// Packets taken in.
    pub(super) packets: u64,
    pub(super) pace: Pace,
    /// How long the next packets are let gather; `None`: they are read at once.
    pub(super) gather: Option<Duration>,
    pub(super) ticks: Ticks,
    pub(super) started: Timestamp,
    /// The file on the disk was looked at last and is not what runs: why.
    pub(super) refused: Option<Refused>,
    pub(super) stopping: bool,
}

impl Daemon<'_> {
    /// Says that the guard stands and the capture is open.
    pub(super) fn ready(&mut self) {
        tracing::info!("starting up, listening on {}", self.hears());
        self.tell_waits();
        self.manager.ready(now());
        self.manager.status(self.status_line(), now());
        if self.options.detached.is_some() {
            // While stdout and stderr are still what they were.
            self.log.flush();
            if let Err(error) = background::ready() {
                tracing::error!("cannot leave the terminal: {error}");
            }
        }
    }

    /// Says which interfaces cannot be knocked at yet.
    pub(super) fn tell_waits(&self) {
        let links = &self.line.links;
        if links.listening().is_empty() && links.missing().is_empty() {
            tracing::warn!("waiting for an interface: there is none to listen on yet");
        }
        for name in links.missing() {
            tracing::warn!("waiting for interface {name}: there is none of that name");
        }
        for name in self.unreachable() {
            tracing::warn!("interface {name} has no address: nobody can knock there yet");
        }
    }

    /// The interfaces without an address that somebody may miss: those that are named, or
    /// all if none has one. Others are mostly meant to have none, as the kernel's own tunl0
    /// and sit0 are.
    fn unreachable(&self) -> Vec<&str> {
        let mut names = self.line.links.without_address();
        if names.len() < self.line.links.listening().len() {
            let patterns = &self.line.config.interfaces;
            let named = patterns.iter().filter(|pattern| pattern.is_literal());
            names.retain(|name| named.clone().any(|pattern| pattern.matches(name)));
        }
        names
    }

    /// The interfaces listened to, in words.
    pub(super) fn hears(&self) -> String {
        let patterns = &self.line.config.interfaces;
        if patterns.is_empty() {
            return "all interfaces but lo".to_owned();
        }
        let names: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// One line for `systemctl status`, which everybody may read: why a file is refused is not in
    /// it.
    pub(super) fn status_line(&self) -> String {
        let mut text = self.listens();
        if self.is_cleared() {
            text =
                format!("THE TABLE IS CLEARED, nothing is guarded until a reload or start; {text}");
        }
        if let Some(refused) = &self.refused {
            let path = self.path.display();
            text = format!("{path} IS REFUSED, in use is {}; {text}", refused.in_use);
        }
        text
    }

    /// The configuration has a table, and it was taken away by hand.
    pub(super) fn is_cleared(&self) -> bool {
        self.line.table.is_none() && self.line.config.firewall.is_some()
    }

    fn listens(&self) -> String {
        let links = &self.line.links;
        let mut text = match links.listening().join(", ") {
            names if names.is_empty() => "listening on no interface".to_owned(),
            names => format!("listening on {names}"),
        };
        for (what, names) in [
            ("waiting for", links.missing()),
            ("no address on", self.unreachable()),
        ] {
            if !names.is_empty() {
                text = format!("{text}; {what} {}", names.join(", "));
            }
        }
        text
    }

    /// Serves until told to stop. Everything waits in one poll.
    fn serve(&mut self) -> Result<(), Fault> {
        while !self.stopping {
            let ready = self.wait()?;
            let now = now();
            // Before the packets: they may be for an address that is news.
            if ready.links || self.line.links_rest.is_some_and(|at| at <= now) {
                self.follow_links();
            }
            if ready.capture {
                self.read_capture(now)?;
            }
            self.tell_hosts();
            if self.ticks.is_due(now) && self.line.tick(now) {
                self.ticks.go_on(now);
            }
            self.tend_table(now, ready.table);
            self.tend_commands(now, ready.commands);
            let patience = self.control.as_ref().and_then(Control::next_deadline);
            if ready.control || patience.is_some_and(|at| at <= now) {
                self.serve_control(now);
            }
            if ready.signals {
                self.obey_signals()?;
            }
            if ready.clerk {
                self.hear_clerk();
            }
            self.line.clerk.tend(now);
            self.manager.feed(now);
        }
        Ok(())
    }

    fn read_capture(&mut self, now: Timestamp) -> Result<(), Fault> {
        let Self { listener, line, .. } = self;
        let (taken, knocks) = listener.read(now)?;
        knocks.iter().for_each(|knock| line.take(knock));
        self.packets += taken as u64;
        if taken > 0 {
            self.ticks.packets_came(now);
        }
        // The ring can only have run over while we were busy, and asking costs a call.
        if taken >= BATCH {
            self.count_drops(now);
        }
        let was_rare = self.gather.is_none();
        let gather = self.pace.after(now, taken);
        // A full batch has left more behind.
        self.gather = gather.filter(|_| taken < BATCH);
        if taken > 0 {
            hide_work(now, taken, was_rare);
        }
        Ok(())
    }

    /// Tells the listener of this host's addresses, if they have changed.
    fn tell_hosts(&mut self) {
        let (own, addresses) = self.line.links.own();
        if own == self.own {
            return;
        }
        if let Err(error) = self.listener.set_hosts(addresses.collect()) {
            tracing::error!("{error}: knocks at a new address may not be heard");
        }
        self.own = own;
    }

    fn count_drops(&mut self, now: Timestamp) {
        let Ok(dropped) = self.listener.dropped() else {
            return;
        };
        let lost = dropped - self.dropped;
        if lost > 0 && self.line.limiter.allow(Kind::Drops, now) {
            tracing::warn!("{lost} packets lost: more came than could be read");
            self.dropped = dropped;
        }
    }

    fn follow_links(&mut self) {
        self.line.follow_links();
        self.manager.status(self.status_line(), now());
    }

    fn tend_table(&mut self, now: Timestamp, readable: bool) {
        let Line { table, limiter, .. } = &mut self.line;
        if let Some(count) = limiter.due_of(Kind::Closed, now) {
            tracing::info!("{count} more {} not written", Kind::Closed.words());
        }
        let Some(table) = table else {
            return;
        };
        if readable {
            let notices = table.on_readable(now);
            notices.iter().for_each(log_lines::tell_notice);
        }
        let expired = table.expire(now);
        for closed in &expired.closed {
            if limiter.allow(Kind::Closed, now) {
                tracing::info!("{}", log_lines::closed(closed));
            }
        }
        table
            .crowded()
            .for_each(|notice| log_lines::tell_notice(&notice));
        expired.notices.iter().for_each(log_lines::tell_notice);
    }

    fn tend_commands(&mut self, now: Timestamp, readable: bool) {
        if let Some(commands) = &mut self.line.commands {
            if readable {
                commands.hear(now);
            }
            commands.revive(now);
        }
    }

    fn obey_signals(&mut self) -> Result<(), Fault> {
        let failed = |errno| Fault::System(format!("signalfd: {errno}"));
        let mut reload = false;
        while let Some(asked) = self.signals.next().map_err(failed)? {
            match asked {
                Asked::Reload => reload = true,
                Asked::Stop => self.stopping = true,
                // One notice may stand for several.
                Asked::Reap => signals::reap(),
            }
        }
        // Several SIGHUPs that came together are one.
        if reload && !self.stopping {
            // What became of it is in the log, and in the status.
            let _ = self.reload();
        }
        Ok(())
    }

    /// The end: what commands opened is closed, the table stays or goes as configured.
    /// After a fault it stays in any case: nobody asked for the guard to go.
    fn stop(&mut self, asked: bool) {
        self.line.tell_all();
        tracing::info!("shutting down");
        self.manager.stopping(now());
        if let Some(commands) = self.line.commands.take() {
            commands.drain();
        }
        let configured = self.line.config.firewall.as_ref().map(|f| f.on_stop);
        let on_stop = configured.map(|on_stop| if asked { on_stop } else { OnStop::Keep });
        if let (Some(mut table), Some(on_stop)) = (self.line.table.take(), on_stop)
            && let Err(error) = table.stop(on_stop)
        {
            tracing::error!("the table was left as it is: {error}");
        }
        self.control = None;
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.remove();
        }
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }

    /// Sleeps until something is to be done; says what.
    fn wait(&self) -> Result<Ready, Fault> {
        let line = &self.line;
        // What is polled, and where it is noted that there is something to do.
        let read = PollFlags::POLLIN;
        let mut waited: Vec<(Note, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(8);
        if line.links_rest.is_none() {
            waited.push((|r| &mut r.links, line.links.as_fd(), read));
        }
        waited.push((|r| &mut r.signals, self.signals.as_fd(), read));
        waited.push((|r| &mut r.clerk, line.clerk.fd(), read));
        if self.gather.is_none() {
            waited.push((|r| &mut r.capture, self.listener.fd(), read));
        }
        if let Some(fd) = line.table.as_ref().and_then(Table::events) {
            waited.push((|r| &mut r.table, fd, read));
        }
        if let Some((fd, wanted)) = line.commands.as_ref().and_then(Commands::polled) {
            waited.push((|r| &mut r.commands, fd, wanted));
        }
        for (fd, wanted) in self.control.iter().flat_map(Control::polled) {
            waited.push((|r| &mut r.control, fd, wanted));
        }
        let mut fds: Vec<_> = waited
            .iter()
            .map(|(_, fd, wanted)| PollFd::new(*fd, *wanted))
            .collect();
        // Packets that gather are looked at when their moment is over, be there any or not,
        // and so is everything that has a deadline.
        let mut ready = Ready {
            capture: self.gather.is_some(),
            ..Ready::default()
        };
        let timeout = match self.gather {
            Some(moment) => PollTimeout::try_from(moment).unwrap_or(PollTimeout::MAX),
            None => self.timeout(),
        };
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ready),
            Err(errno) => return Err(Fault::System(format!("poll: {errno}"))),
        }
        for ((note, ..), fd) in waited.iter().zip(&fds) {
            if fd.any().unwrap_or(true) {
                *note(&mut ready) = true;
            }
        }
        Ok(ready)
    }

    /// Until the earliest deadline; for ever if there is none.
    fn timeout(&self) -> PollTimeout {
        let deadlines = [
            self.ticks.next_deadline(),
            self.line.links_rest,
            self.line.clerk.next_deadline(),
            self.line.table.as_ref().and_then(Table::next_deadline),
            self.control.as_ref().and_then(Control::next_deadline),
            self.manager.next_deadline(),
            self.line.limiter.ends(Kind::Closed),
            self.line
                .commands
                .as_ref()
                .and_then(Commands::next_deadline),
        ];
        let Some(earliest) = deadlines.into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // Rounded up: a wake-up just before the deadline would be one for nothing.
        let wait = earliest.since(now()) + Duration::from_nanos(999_999);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }
}

/// Where it is noted that something is to be read.
type Note = fn(&mut Ready) -> &mut bool;

/// What the poll says is to be read.
#[derive(Debug, Default)]
struct Ready {
    capture: bool,
    links: bool,
    clerk: bool,
    table: bool,
    commands: bool,
    control: bool,
    signals: bool,
}
