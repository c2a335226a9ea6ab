//! The event loop: one thread around one poll, from a start to a stop. Nothing in it waits for a
//! disk, a manager or a client.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Fault;
use super::background;
use super::clock::now;
use super::command_helper::CommandHelper;
use super::confine::Cage;
use super::control::listen::listen;
use super::control::message::{AddressedOrder, Order, Reply};
use super::control::requests;
use super::control::socket::{Answer, ControlSocket};
use super::control::status::{
    AttemptsStatus, DoorStatus, PacketsStatus, ProcessStatus, RefusedFile, Status, TableStatus,
};
use super::listener::handle::{Heard, Listener, ListenerError};
use super::listener::message::ListenerReport;
use super::log::Logger;
use super::log::limit::Kind;
use super::log::log_lines;
use super::one_time_files::{FileAnswer, SequencesRead};
use super::packets::pipeline::Pipeline;
use super::packets::ticks::{self, Ticks};
use super::reload::{Contents, Prepared, Readings};
use super::service_manager::ServiceManager;
use super::setup::{Options, Remark, Setup, set_next_sequence};
use super::signals::{self, Asked, Signals};
use super::state::last_good::LastGoodKeeper;
use super::state::lock::{Lock, PidFile};
use super::table;
use crate::config::Audience;
use crate::firewall::{GuardTable, Ruleset};
use crate::matcher::Occupancy;
use crate::model::{Config, OnStop, Timestamp};
use crate::sandbox::Call;

/// The least time that a read takes for each of its packets. A stray is judged in some 50 ns, a first
/// step in up to 150 ns, and nobody may see which of them a packet was.
const PACKET: Duration = Duration::from_nanos(150);

/// A read of packets that did not gather takes a multiple of this. The caches are cold then: a
/// step takes a microsecond more than another port.
const LOOK: Duration = Duration::from_micros(20);

/// Waits until the time that a read has taken since `from` no longer depends on what its packets are:
/// a process on the same processor could measure that time. If packets gathered, no packet has chosen
/// the moment of the read. If they were read as they came (`was_rare`), their arrival has.
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

/// How long the filter is left as it is after the kernel refused another.
const FILTER_REST: Duration = Duration::from_secs(1);

/// The daemon, running.
pub(super) struct Daemon<'a> {
    pub(super) options: &'a Options,
    /// The path of the configuration file.
    pub(super) path: PathBuf,
    /// The names of that file when it was last read. They are kept so that an order waits for no disk.
    pub(super) names: Vec<String>,
    pub(super) log: &'a Logger,
    pub(super) signals: Signals,
    pub(super) listener: Listener,
    /// The socket of a new listener could not be taken, and that was reported.
    pub(super) is_deaf: bool,
    pub(super) cage: Cage,
    /// The state of this host's addresses for which the listener's filter was last set: see
    /// [`crate::capture::Links::own`].
    pub(super) own: u64,
    /// If the kernel refused a filter: the time at which it is asked again.
    pub(super) filter_rest: Option<Timestamp>,
    pub(super) pipeline: Pipeline,
    pub(super) control: Option<ControlSocket>,
    pub(super) manager: ServiceManager,
    pub(super) readings: Readings,
    pub(super) keeper: LastGoodKeeper,
    pub(super) pidfile: Option<PidFile>,
    /// The lock of the table, and those of tables that a reload has left behind.
    pub(super) locks: Vec<Lock>,
    /// The lock of the state directory, by which another daemon knows that its configuration and
    /// interfaces are ours.
    pub(super) _state_lock: Option<std::fs::File>,
    /// Packets that found no room in the ring, as last reported in the log.
    pub(super) dropped: u64,
    /// Packets read since the start.
    pub(super) packets: u64,
    pub(super) ticks: Ticks,
    pub(super) started: Timestamp,
    /// If the file on the disk was refused when it was last read: the reasons, and the configuration
    /// that runs instead.
    pub(super) refused: Option<RefusedFile>,
    pub(super) stopping: bool,
}

impl Daemon<'_> {
    /// Reports to the log, the service manager and a waiting parent process that the guard stands and
    /// the capture is open.
    pub(super) fn ready(&mut self) {
        tracing::info!("starting up, listening on {}", self.patterns());
        self.log_waiting();
        self.manager.ready(now());
        self.manager.status(self.status_line(), now());
        if self.options.detached.is_some() {
            // Lines that wait are written before stdout and stderr are replaced.
            self.log.flush();
            if let Err(error) = background::ready() {
                tracing::error!("cannot leave the terminal: {error}");
            }
        }
    }

    /// Writes to the log which interfaces cannot be knocked at yet.
    fn log_waiting(&self) {
        let links = &self.pipeline.links;
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

    /// Returns the interfaces without an address that somebody may miss: the named interfaces, or all
    /// interfaces if none has an address. Other interfaces are mostly meant to have none, like the
    /// kernel's own tunl0 and sit0.
    fn unreachable(&self) -> Vec<&str> {
        let mut names = self.pipeline.links.without_address();
        if names.len() < self.pipeline.links.listening().len() {
            let patterns = &self.pipeline.config.interfaces;
            let named = patterns.iter().filter(|pattern| pattern.is_literal());
            names.retain(|name| named.clone().any(|pattern| pattern.matches(name)));
        }
        names
    }

    /// Returns the interfaces to listen to, in words.
    fn patterns(&self) -> String {
        let patterns = &self.pipeline.config.interfaces;
        if patterns.is_empty() {
            return "all interfaces but lo".to_owned();
        }
        let names: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// Returns one line for `systemctl status`. Everybody may read it, so it leaves out the reasons why
    /// a file is refused.
    fn status_line(&self) -> String {
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

    /// Returns whether the configuration has a table that was taken away by hand.
    fn is_cleared(&self) -> bool {
        self.pipeline.table.is_none() && self.pipeline.config.firewall.is_some()
    }

    fn listens(&self) -> String {
        let links = &self.pipeline.links;
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

    /// Serves until asked to stop. Everything waits in one poll.
    pub(super) fn serve(&mut self) -> Result<(), Fault> {
        while !self.stopping {
            let ready = self.wait()?;
            let now = now();
            // Before the packets: they may be for an address that is new.
            if ready.links || self.pipeline.links_rest.is_some_and(|at| at <= now) {
                self.follow_links();
            }
            if ready.listener {
                self.hear(now)?;
            }
            self.update_filter(now);
            if self.ticks.is_due(now) && self.pipeline.tick(now) {
                self.ticks.go_on(now);
            }
            self.update_table(now, ready.table);
            if ready.commands {
                self.read_reports()?;
            }
            let patience = self.control.as_ref().and_then(ControlSocket::next_deadline);
            if ready.control || patience.is_some_and(|at| at <= now) {
                self.serve_control(now);
            }
            if ready.signals {
                self.obey_signals()?;
            }
            if ready.one_time_files {
                self.take_sequences();
            }
            if ready.readings && !self.stopping {
                self.take_reading();
            }
            // A leftover of a reload may be gone by now.
            self.free_locks();
            self.pipeline.one_time_files.warn_if_slow(now);
            self.readings.warn_if_slow(&self.path, now);
            self.manager.feed(now);
        }
        Ok(())
    }

    /// Takes what the listener has sent.
    fn hear(&mut self, now: Timestamp) -> Result<(), Fault> {
        let Self {
            listener, pipeline, ..
        } = self;
        let (frames, were_rare) = match listener.read(now) {
            Ok(Heard::Knocks {
                frames,
                were_rare,
                knocks,
            }) => {
                knocks.iter().for_each(|knock| pipeline.take(knock));
                (frames, were_rare)
            }
            Ok(Heard::Report(report)) => {
                self.is_deaf = false;
                // Without packets there is no tick that would tell how many were left out.
                self.ticks.packets_came(now);
                if pipeline.limiter.allow(Kind::Listener, now) {
                    log_report(&report);
                }
                return Ok(());
            }
            Ok(Heard::Nothing) => return Ok(()),
            Err(ListenerError::Capture(error)) => {
                tracing::error!("{error}: no knock is heard");
                self.filter_rest = Some(now + FILTER_REST);
                return Ok(());
            }
            // This is logged once, though the listener tries again and again.
            Err(error @ ListenerError::NoDescriptor) => {
                if !std::mem::replace(&mut self.is_deaf, true) {
                    tracing::error!("{error}: no knock is heard until one can");
                }
                return Ok(());
            }
            Err(error @ (ListenerError::Gone | ListenerError::Socket(_))) => {
                return Err(error.into());
            }
        };
        self.packets += frames as u64;
        if frames > 0 {
            self.ticks.packets_came(now);
            hide_work(now, frames, were_rare);
        }
        self.count_drops(now);
        Ok(())
    }

    /// Gives this host's addresses to the listener's filter, if they have changed. If the kernel has
    /// refused the filter before, sets it once more when the retry is due.
    fn update_filter(&mut self, now: Timestamp) {
        let (own, addresses) = self.pipeline.links.own();
        let is_due = self.filter_rest.is_some_and(|at| at <= now);
        if own == self.own && !is_due {
            return;
        }
        let told = match is_due {
            true => self.listener.set_filter(&self.pipeline.config),
            false => Ok(()),
        };
        let told = told.and_then(|()| self.listener.set_hosts(addresses.collect()));
        self.own = own;
        match told {
            Ok(()) => self.filter_rest = None,
            Err(error) => {
                // This is logged once, though the filter is tried again every second.
                if !is_due {
                    tracing::error!("{error}: knocks at a new address may not be heard");
                }
                self.filter_rest = Some(now + FILTER_REST);
            }
        }
    }

    fn count_drops(&mut self, now: Timestamp) {
        let dropped = self.listener.dropped();
        let lost = dropped.saturating_sub(self.dropped);
        if lost > 0 && self.pipeline.limiter.allow(Kind::Drops, now) {
            tracing::warn!("{lost} packets lost: more came than could be read");
            self.dropped = dropped;
        }
    }

    fn follow_links(&mut self) {
        self.pipeline.follow_links();
        self.manager.status(self.status_line(), now());
    }

    fn update_table(&mut self, now: Timestamp, readable: bool) {
        let Pipeline { table, limiter, .. } = &mut self.pipeline;
        if let Some(count) = limiter.due_of(Kind::Closed, now) {
            tracing::info!("{count} more {} not written", Kind::Closed.words());
        }
        let Some(table) = table else {
            return;
        };
        if readable {
            let notices = table.on_readable(now);
            notices.iter().for_each(log_lines::log_notice);
        }
        let expired = table.expire(now);
        for closed in &expired.closed {
            if limiter.allow(Kind::Closed, now) {
                tracing::info!("{}", log_lines::closed(closed));
            }
        }
        table
            .crowded()
            .for_each(|notice| log_lines::log_notice(&notice));
        expired.notices.iter().for_each(log_lines::log_notice);
    }

    fn read_reports(&mut self) -> Result<(), Fault> {
        match &mut self.pipeline.commands {
            Some(commands) => Ok(commands.read_reports()?),
            None => Ok(()),
        }
    }

    fn obey_signals(&mut self) -> Result<(), Fault> {
        let failed = |errno| Fault::system("signalfd", errno);
        let mut reload = false;
        while let Some(asked) = self.signals.next().map_err(failed)? {
            match asked {
                Asked::Reload => reload = true,
                Asked::Stop => self.stopping = true,
                // One signal may stand for several children.
                Asked::Reap => signals::reap(),
            }
        }
        // Several SIGHUPs that came together are one.
        if reload && !self.stopping {
            self.reload();
        }
        Ok(())
    }

    fn serve_control(&mut self, now: Timestamp) {
        // The control socket is taken out meanwhile: an answer needs all of the daemon but the socket.
        if let Some(mut control) = self.control.take() {
            control.serve(now, |order| self.obey(order, now));
            self.control = Some(control);
        }
    }

    fn obey(&mut self, AddressedOrder { of, ask }: AddressedOrder, now: Timestamp) -> Answer {
        if !of.is_empty() && !of.iter().any(|name| self.names.contains(name)) {
            return Answer::Now(Reply::Elsewhere(self.path.display().to_string()));
        }
        Answer::Now(match ask {
            Order::Status => Reply::Status(Box::new(self.status(now))),
            Order::Open {
                door,
                address,
                lifetime,
            } => requests::open(&mut self.pipeline, &door, address, lifetime, now),
            Order::Close { address, all: _ } => requests::close(&mut self.pipeline, address, now),
            Order::Clear => {
                let reply = requests::clear(&mut self.pipeline);
                self.readings.discard();
                self.manager.status(self.status_line(), now);
                reply
            }
            Order::Reload => {
                let late = format!(
                    "{} cannot be read yet: the running configuration stays until it can",
                    self.path.display()
                );
                return Answer::AfterReload {
                    reload: self.reload(),
                    late: Reply::Refused(late),
                };
            }
        })
    }

    fn status(&mut self, now: Timestamp) -> Status {
        let Occupancy {
            live,
            capacity,
            evicted,
        } = self.pipeline.matcher.occupancy();
        let links = &self.pipeline.links;
        let doors = self.pipeline.config.doors.iter().map(|door| DoorStatus {
            name: door.name.to_string(),
            disabled: door.sequence.is_empty(),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: now.since(self.started).as_secs(),
            configuration: self.path.display().to_string(),
            refused: self.refused.clone(),
            interfaces: self.patterns(),
            listening: strings(links.listening()),
            waiting_for: strings(links.missing()),
            without_address: strings(links.without_address()),
            doors: doors.collect(),
            opened: self.pipeline.opened,
            attempts: AttemptsStatus {
                live,
                capacity,
                evicted,
            },
            packets: PacketsStatus {
                read: self.packets,
                lost: Some(self.listener.dropped()),
                busiest: self.pipeline.busiest_port(now),
            },
            processes: vec![
                ProcessStatus {
                    name: "knockd".to_owned(),
                    confinement: self.cage.held.clone(),
                },
                ProcessStatus {
                    name: "listener".to_owned(),
                    confinement: self.listener.confinement().clone(),
                },
            ],
            cleared: self.is_cleared(),
            table: self.pipeline.table.as_ref().map(|table| TableStatus {
                name: table.ruleset().table.to_string(),
                owned: table.is_owned(),
                openings: table.opening_count(),
            }),
        }
    }

    /// Has the configuration read again, in a thread; returns the number of the reading. A reading
    /// that is under way may have begun before the file was changed: then another follows it.
    fn reload(&mut self) -> u64 {
        let (number, is_due) = self.readings.ask();
        if is_due {
            self.begin_reading();
        }
        number
    }

    fn begin_reading(&mut self) {
        self.manager.reloading(now());
        tracing::info!("re-reading config file: {}", self.path.display());
        // The log may have been rotated. It is opened anew now, since the reading may take long.
        self.log.configure(&self.pipeline.config.log);
        let used = self.pipeline.one_time_files.used();
        self.readings.begin(self.options, &self.path, &used, now());
    }

    /// Takes the result of a reading, and ends the reload with it.
    fn take_reading(&mut self) {
        let Some((number, prepared, again)) = self.readings.take() else {
            return;
        };
        let reply = match prepared {
            Some(Ok(prepared)) => self.commit(prepared),
            Some(Err(error)) => {
                let text =
                    format!("cannot start a thread: {error}: the running configuration stays");
                tracing::error!("{text}");
                Reply::Refused(text)
            }
            // The table stays away: a guard that an older order brings back could lock the
            // administrator out.
            None => {
                let text = "the table was cleared while the configuration was read: reload again";
                tracing::warn!("{text}");
                Reply::Refused(text.to_owned())
            }
        };
        self.free_locks();
        self.log.configure(&self.pipeline.config.log);
        // What was wrong with its folder may have been repaired.
        if self.control.is_none() {
            self.control = listen(self.options);
        }
        self.manager.ready(now());
        self.manager.status(self.status_line(), now());
        if let Some(control) = &mut self.control {
            control.reloaded(number, &reply, now());
        }
        if again {
            self.begin_reading();
        }
    }

    /// Puts the configuration that was read in force, all of it or nothing. A faulty file changes
    /// nothing. A good one loses no opening, no pending stop, and no attempt at a door that stays.
    /// Writes the outcome to the log, and returns it as the reply to the clients that have asked.
    fn commit(&mut self, Prepared { names, contents }: Prepared) -> Reply {
        self.names = names;
        let path = self.path.display().to_string();
        match contents {
            Contents::ReadOnce => {
                let text = format!(
                    "{path} cannot be read again: the running configuration stays; for another, \
                     start knockd anew"
                );
                tracing::error!("{text}");
                Reply::Refused(text)
            }
            Contents::Unusable(unusable) => {
                let faults = unusable.shown_to(Audience::Log);
                for fault in &faults {
                    tracing::error!("{fault}");
                }
                let stays = format!("{path} cannot be used: the running configuration stays");
                tracing::error!("{stays}");
                self.refuse(&unusable.errors());
                // Only root or the daemon's own user is answered, and the client shows the lines to a
                // terminal alone.
                let mut faults = unusable.shown_to(Audience::Terminal);
                faults.push(stays);
                Reply::Faulty(faults)
            }
            Contents::Good(mut setup) => {
                let later = self.cage.later(&setup.config);
                setup.warnings.extend(later.map(Remark::from));
                for line in &setup.warnings {
                    tracing::warn!("{line}");
                }
                let beyond = self.cage.beyond_reach(self.options, &setup.config);
                if !beyond.is_empty() {
                    return self.stay(beyond);
                }
                // The steps that the kernel may refuse come first: if one fails, nothing has changed.
                if let Err(error) = self.commit_to_kernel(&setup.config) {
                    tracing::error!("{error}: the running configuration stays");
                    self.refuse(&[error.to_string()]);
                    return Reply::Refused(format!("{error}: the running configuration stays"));
                }
                self.commit_to_daemon(*setup)
            }
        }
    }

    /// Refuses a configuration that needs what has been given up. Returns the reply to the clients that
    /// have asked.
    fn stay(&mut self, beyond: Vec<String>) -> Reply {
        for line in &beyond {
            tracing::error!("{line}");
        }
        let stays = "the running configuration stays";
        tracing::error!("{stays}");
        self.refuse(&beyond);
        let mut lines = beyond;
        lines.push(stays.to_owned());
        Reply::Faulty(lines)
    }

    /// Notes that the file on the disk is not what runs.
    fn refuse(&mut self, why: &[String]) {
        // A faulty file after another faulty one changes nothing: the configuration in use is still
        // the one that was in use at the first of them.
        let in_use = self.refused.take().map(|before| before.in_use);
        let in_use = in_use.unwrap_or_else(|| RefusedFile::RUNNING.to_owned());
        self.refused = Some(RefusedFile::new(in_use, why));
    }

    /// The part of a reload that may fail: filter, lock, table. If one of them fails, the filter is
    /// set back here, and [`Self::free_locks`] gives up the lock. The filter comes first: a packet that
    /// it passes too early is judged by the matcher, a packet that it does not pass is lost.
    fn commit_to_kernel(&mut self, config: &Config) -> Result<(), Fault> {
        self.listener.set_filter(config)?;
        let lock = table::take_lock(self.options, config, &self.locks);
        let done = lock.and_then(|lock| {
            self.locks.extend(lock);
            self.swap_table(config)
        });
        done.inspect_err(|_| {
            if let Err(error) = self.listener.set_filter(&self.pipeline.config) {
                tracing::error!("{error}");
                // Else knocks are lost until the next change.
                self.filter_rest = Some(now() + FILTER_REST);
            }
        })
    }

    /// Gives up the locks of tables that are neither configured nor left behind. While the old table
    /// of a rename stands, another daemon must not take it over, for it is deleted a moment later.
    fn free_locks(&mut self) {
        let Pipeline { config, table, .. } = &self.pipeline;
        let is_unused = |lock: &mut Lock| {
            let configured = config.firewall.iter().map(|f| f.table.as_str());
            let left = table.iter().flat_map(GuardTable::leftover_tables);
            let mut used = configured.chain(left);
            !used.any(|name| table::is_lock_of(lock, name))
        };
        self.locks.extract_if(.., is_unused).for_each(Lock::remove);
    }

    fn swap_table(&mut self, config: &Config) -> Result<(), Fault> {
        let ruleset = Ruleset::new(config).map(|ruleset| ruleset.of(&self.path));
        match (&mut self.pipeline.table, ruleset) {
            (Some(table), Some(ruleset)) => {
                log_lines::log_started(&table.reload(ruleset, now())?);
            }
            (None, Some(ruleset)) => {
                self.pipeline.table = Some(table::make(self.options, ruleset)?);
            }
            (Some(table), None) => {
                table.stop(OnStop::Remove)?;
                self.pipeline.table = None;
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// The part of a reload that cannot fail.
    fn commit_to_daemon(&mut self, mut setup: Setup) -> Reply {
        // A door may have opened while the files were read.
        setup.forget_used(&self.pipeline.one_time_files.used());
        let Setup {
            config,
            one_time,
            unread,
            bytes,
            warnings,
            refused: _,
        } = setup;
        self.refused = None;
        self.swap_commands(&config, &bytes);
        let others = config.interfaces != self.pipeline.config.interfaces;
        self.pipeline.links.set_patterns(&config.interfaces);
        self.ticks.set_patience(ticks::patience(&config));
        self.pipeline.take_config(config, one_time, now());
        self.pipeline.read_sequences(unread);
        if others {
            tracing::info!("listening on {}", self.patterns());
            self.log_waiting();
        }
        let state = self.options.state(&self.path);
        self.keeper.keep_last_good(state, bytes);
        tracing::info!("the new configuration is in force");
        // Where `knockd reload` is a unit's ExecReload=, the journal reads it: without the lines
        // that hold steps. `knockd check` shows those.
        let warnings = warnings.iter().map(|line| line.shown_to(Audience::Log));
        let mut lines: Vec<_> = warnings.collect();
        lines.push("the new configuration is in force".to_owned());
        Reply::Done(lines)
    }

    fn swap_commands(&mut self, config: &Config, text: &[u8]) {
        match &mut self.pipeline.commands {
            Some(commands) => commands.reload(config),
            // Only without a sandbox: else such a configuration has been refused. Had an earlier daemon
            // left stops, there would be a helper since the start: the disk is not asked again.
            None => match CommandHelper::start(self.options, &self.path, config, text, false) {
                Ok(commands) => self.pipeline.commands = commands,
                Err(error) => tracing::error!("{error}: no command will run"),
            },
        }
    }

    /// Takes the results for files of one-time sequences that were read or written.
    fn take_sequences(&mut self) {
        for answer in self.pipeline.one_time_files.take() {
            match answer {
                FileAnswer::Marked(knock, marked, next) => {
                    self.pipeline.marked(knock, marked, now());
                    self.listen_for_next(next);
                }
                FileAnswer::Read(read) => self.listen_for_next(read),
            }
        }
    }

    /// Sets the next one-time sequence of a door, unless the door waits for one already.
    fn listen_for_next(&mut self, read: SequencesRead) {
        if self.pipeline.one_time_files.is_stale(&read) {
            let SequencesRead { door, file, .. } = read;
            self.pipeline.read_sequences(vec![(door, file)]);
            return;
        }
        let mut config = self.pipeline.config.clone();
        let mut one_time = self.pipeline.one_time.clone();
        for line in set_next_sequence(&mut config, &mut one_time, read) {
            tracing::warn!("{line}");
        }
        // The filter knows no sequence, but for doors whose flags fit sessions.
        if let Err(error) = self.listener.set_filter(&config) {
            tracing::error!("{error}: the next sequence may not be heard");
            self.filter_rest = Some(now() + FILTER_REST);
        }
        self.pipeline.take_config(config, one_time, now());
    }

    /// Stops: runs the pending stop commands, and leaves or removes the table as configured. After a
    /// fault (`asked` is false) the table stays in any case: nobody asked for the guard to go.
    pub(super) fn stop(&mut self, asked: bool) {
        self.pipeline.log_events();
        tracing::info!("shutting down");
        self.manager.stopping(now());
        if let Some(commands) = self.pipeline.commands.take() {
            commands.drain();
        }
        let configured = self.pipeline.config.firewall.as_ref().map(|f| f.on_stop);
        let on_stop = configured.map(|on_stop| if asked { on_stop } else { OnStop::Keep });
        if let (Some(mut table), Some(on_stop)) = (self.pipeline.table.take(), on_stop)
            && let Err(error) = table.stop(on_stop)
        {
            tracing::error!("the table was left as it is: {error}");
        }
        self.control = None;
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.remove();
        }
        self.locks.drain(..).for_each(Lock::remove);
    }

    /// Sleeps until a descriptor is readable or a deadline has come. Returns the readable ones.
    fn wait(&self) -> Result<Readable, Fault> {
        let pipeline = &self.pipeline;
        // Each descriptor with the events to poll it for, and the mark to set when it is readable.
        let read = PollFlags::POLLIN;
        let mut waited: Vec<(MarkReadable, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(8);
        if pipeline.links_rest.is_none() {
            waited.push((|r| &mut r.links, pipeline.links.as_fd(), read));
        }
        waited.push((|r| &mut r.signals, self.signals.as_fd(), read));
        let one_time_files = pipeline.one_time_files.fd();
        waited.push((|r| &mut r.one_time_files, one_time_files, read));
        waited.push((|r| &mut r.readings, self.readings.fd(), read));
        waited.push((|r| &mut r.listener, self.listener.fd(), read));
        if let Some(fd) = pipeline.table.as_ref().and_then(GuardTable::events) {
            waited.push((|r| &mut r.table, fd, read));
        }
        if let Some((fd, wanted)) = pipeline.commands.as_ref().map(CommandHelper::polled) {
            waited.push((|r| &mut r.commands, fd, wanted));
        }
        for (fd, wanted) in self.control.iter().flat_map(ControlSocket::polled) {
            waited.push((|r| &mut r.control, fd, wanted));
        }
        let mut fds: Vec<_> = waited
            .iter()
            .map(|(_, fd, wanted)| PollFd::new(*fd, *wanted))
            .collect();
        let mut ready = Readable::default();
        match poll(&mut fds, self.timeout()) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ready),
            Err(errno) => return Err(Fault::system("poll", errno)),
        }
        for ((note, ..), fd) in waited.iter().zip(&fds) {
            if fd.any().unwrap_or(true) {
                *note(&mut ready) = true;
            }
        }
        Ok(ready)
    }

    /// Returns the time until the earliest deadline; for ever if there is none.
    fn timeout(&self) -> PollTimeout {
        let deadlines = [
            self.ticks.next_deadline(),
            self.pipeline.links_rest,
            self.filter_rest,
            self.pipeline.one_time_files.next_deadline(),
            self.readings.next_deadline(),
            self.pipeline
                .table
                .as_ref()
                .and_then(GuardTable::next_deadline),
            self.control.as_ref().and_then(ControlSocket::next_deadline),
            self.manager.next_deadline(),
            self.pipeline.limiter.ends(Kind::Closed),
        ];
        let Some(earliest) = deadlines.into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // The wait is rounded up: a wake-up just before the deadline would be in vain.
        let wait = earliest.since(now()) + Duration::from_nanos(999_999);
        PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
    }
}

/// Writes to the log what has become of the listener.
fn log_report(report: &ListenerReport) {
    match report {
        ListenerReport::Opened(death) if death.is_empty() => {}
        ListenerReport::Opened(death) => {
            // Whoever has taken it over may have written this.
            let death = death.escape_debug();
            tracing::error!("the listener has died ({death}): another one listens");
        }
        ListenerReport::Failed(_, reason) => {
            let reason = reason.escape_debug();
            tracing::error!("the listener cannot open its capture: {reason}: no knock is heard");
        }
        ListenerReport::Confined(confinement) => {
            tracing::debug!("the listener: {confinement}");
        }
        ListenerReport::Refused(call) => {
            tracing::error!(
                "the kernel refused the listener system call {}: somebody may have taken it over",
                Call(*call)
            );
        }
    }
}

/// Returns the mark of one descriptor in [`Readable`].
type MarkReadable = fn(&mut Readable) -> &mut bool;

/// The descriptors that poll found readable.
#[derive(Debug, Default)]
struct Readable {
    listener: bool,
    links: bool,
    one_time_files: bool,
    readings: bool,
    table: bool,
    commands: bool,
    control: bool,
    signals: bool,
}

fn strings(names: Vec<impl ToString>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
