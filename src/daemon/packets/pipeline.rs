//! The pipeline of a live daemon: a knock is judged, and the openings that it makes are in the kernel
//! before the next knock is looked at.
//!
//! Only a door that opens acts at once. Everything else that a step causes waits for a tick (see
//! `ticks`): a line in the log takes time, by which an observer could tell a step from another
//! port.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::action;
use crate::action::one_time::OneTimeError;
use crate::capture::Links;
use crate::firewall::{Applied, FirewallError, GuardTable};
use crate::matcher::Matcher;
use crate::model::{
    Config, DoorId, Effect, Effects, Event, Knock, OneTime, Outcome, Timestamp, Tripwires,
};

use super::busiest::Busiest;
use super::cooldown::Cooldowns;
use crate::daemon::clock::now;
use crate::daemon::command_helper::CommandHelper;
use crate::daemon::log::limit::{Kind, Limiter};
use crate::daemon::log::log_lines::{self, LogLine, Performed};
use crate::daemon::log::lookup::Lookup;
use crate::daemon::one_time_files::{OneTimeFiles, PendingKnock};
use crate::daemon::setup::PendingSequences;

/// How long interfaces are left alone after an error.
const LINKS_REST: Duration = Duration::from_secs(1);

/// How long a knock waits for the disk of its one-time sequence. Afterwards the person has given up,
/// and the address may be somebody else's.
const LATEST: Duration = Duration::from_secs(60);

/// The number of events that the buffer keeps room for.
const EVENTS: usize = 1024;

/// Returns the tripwires of a configuration.
pub(crate) fn tripwires(config: &Config) -> Tripwires {
    Tripwires::new(config.tripwires, &config.ignore, &config.doors)
}

/// Everything that a packet may use or change on its way from the decoder to the kernel.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) matcher: Matcher,
    pub(crate) links: Links,
    /// If interfaces could not be followed: the time at which that is tried again.
    pub(crate) links_rest: Option<Timestamp>,
    /// Why interfaces could not be followed, if that was reported.
    links_fault: Option<String>,
    pub(crate) table: Option<GuardTable>,
    pub(crate) commands: Option<CommandHelper>,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) limiter: Limiter,
    pub(crate) only_ip_v4: bool,
    /// True with `-D`: the log may name a port that is somebody's step.
    pub(crate) names_steps: bool,
    /// The one-time sequence that each such door waits for.
    pub(crate) one_time: PendingSequences,
    pub(crate) busiest: Busiest,
    /// The doors that do not open again yet, and the sources for which they do not.
    cooldowns: Cooldowns,
    /// How often a door has opened since the start; a knock that opened nothing does not count.
    pub(crate) opened: u64,
    /// Marks one-time sequences that are used, and reads the next.
    pub(crate) one_time_files: OneTimeFiles,
    events: Vec<Event>,
    /// Events to be written to the log at the next tick. The limiter has let them through, so that a
    /// flood does not make the list longer.
    unlogged: Vec<Event>,
}

impl Pipeline {
    pub(crate) fn new(
        config: Config,
        matcher: Matcher,
        links: Links,
        table: Option<GuardTable>,
        commands: Option<CommandHelper>,
        one_time_files: OneTimeFiles,
    ) -> Self {
        Self {
            config,
            matcher,
            links,
            links_rest: None,
            links_fault: None,
            table,
            commands,
            lookup: None,
            limiter: Limiter::default(),
            only_ip_v4: false,
            names_steps: false,
            one_time: PendingSequences::new(),
            busiest: Busiest::default(),
            cooldowns: Cooldowns::default(),
            opened: 0,
            one_time_files,
            events: Vec::new(),
            unlogged: Vec::new(),
        }
    }

    /// Takes one knock from the wire.
    pub(crate) fn take(&mut self, knock: &Knock) {
        self.busiest.count(knock.step);
        if self.only_ip_v4 && knock.source.is_ipv6() {
            return;
        }
        let Some(interface) = knock.interface else {
            return;
        };
        if !self.links.knows(interface) {
            // The interface came up since the poll, and this is its first packet.
            self.follow_links();
        }
        if !self.links.counts(interface) || !self.links.can_answer(knock.source, interface) {
            return;
        }
        let local = self.links.is_knocked_at(interface, knock.destination);
        self.matcher.observe(knock, local, &mut self.events);
        self.act();
    }

    /// Reads the changes of interfaces and addresses. A lasting error neither keeps the daemon from
    /// its other work nor fills the log.
    pub(crate) fn follow_links(&mut self) {
        let now = now();
        if self.links_rest.is_some_and(|at| at > now) {
            return;
        }
        self.links_rest = None;
        match self.links.on_readable() {
            Ok(changes) => {
                self.links_fault = None;
                changes.iter().for_each(log_lines::log_change);
            }
            // This is logged once, though it is tried every second.
            Err(error) => {
                let fault = Some(error.to_string());
                if self.links_fault != fault {
                    tracing::error!("{error}: knocks at what has come since may not be heard");
                    self.links_fault = fault;
                }
                self.links_rest = Some(now + LINKS_REST);
            }
        }
    }

    /// Runs at a tick: ends attempts whose time is over, and writes to the log. Does no more at once
    /// than a packet can wait for. Returns whether work is left.
    pub(crate) fn tick(&mut self, now: Timestamp) -> bool {
        self.matcher.expire(now, &mut self.events);
        self.act();
        self.log_events();
        for (kind, count) in self.limiter.due(now) {
            tracing::info!("{count} more {} not written", kind.words());
        }
        if let Some(port) = self.busiest.news(now).filter(|p| !self.matcher.is_step(*p)) {
            tracing::warn!("{}", log_lines::busiest(port));
        }
        self.matcher.next_deadline().is_some_and(|at| at <= now)
    }

    /// Acts at once on events that open doors: the port first, the log after. Other events wait for
    /// the tick that writes them.
    fn act(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let kind = match event.outcome {
                // The knock does nothing, and is not logged either.
                Outcome::Open if self.rests(&event) => continue,
                Outcome::Open => {
                    // A door that waits for its disk is logged when it acts.
                    if let Some(opened) = self.open(&event).transpose() {
                        self.finish(&event, opened);
                    }
                    continue;
                }
                Outcome::Stage(_) => Kind::Stage,
                Outcome::Timeout { .. } => Kind::Timeout,
                Outcome::Reset { .. } if tracing::enabled!(tracing::Level::DEBUG) => Kind::Reset,
                Outcome::Reset { .. } => continue,
            };
            if self.limiter.allow(kind, event.at) {
                self.unlogged.push(event);
            }
        }
        // The buffer keeps its usual room, but not the room that a reload has needed.
        events.shrink_to(EVENTS);
        self.events = events;
    }

    /// Returns whether the event's door has opened for its source less than its `seq_cooldown` ago.
    fn rests(&mut self, event: &Event) -> bool {
        let door = self.config.doors.get(event.door.index());
        door.is_some_and(|door| self.cooldowns.rests(door, event.source, event.at))
    }

    /// Ends the knock: the door has acted, or stays shut.
    fn finish(&mut self, event: &Event, opened: Result<Performed, OneTimeError>) {
        let has_opened = matches!(&opened, Ok(done) if done.in_vain.is_none());
        if let Some(door) = self.config.doors.get(event.door.index())
            && !has_opened
        {
            self.cooldowns.wake(door, event.source);
        }
        // The stages come before the opening in the log.
        self.log_events();
        self.log_opened(event, opened);
    }

    /// Writes the events that wait for it to the log.
    pub(crate) fn log_events(&mut self) {
        for event in self.unlogged.drain(..) {
            let Some(door) = self.config.doors.get(event.door.index()) else {
                continue;
            };
            let line = |ports| log_lines::event(&event, event.source.into(), &door.name, ports);
            match event.outcome {
                Outcome::Reset { .. } => tracing::debug!("{}", line(self.names_steps)),
                Outcome::Stage(_) | Outcome::Timeout { .. } | Outcome::Open => {
                    tracing::info!("{}", line(false));
                }
            }
        }
    }

    /// Writes to the log an event that opens a door, and its result.
    fn log_opened(&mut self, event: &Event, opened: Result<Performed, OneTimeError>) {
        let Some(door) = self.config.doors.get(event.door.index()) else {
            return;
        };
        // Each knock comes with several lines on its effects.
        if !self.limiter.allow(Kind::Knock, event.at) {
            return;
        }
        let why = match opened {
            Ok(Performed { lines, in_vain }) => {
                match (&in_vain, &self.lookup) {
                    (Some(why), _) => {
                        tracing::error!("{}: {}: not opened: {why}", event.source, door.name);
                    }
                    // A look-up goes over the network, and the name server would learn of each step:
                    // so only sources that have opened a door are looked up.
                    (None, Some(lookup)) => lookup.write(*event, &door.name),
                    (None, None) => {
                        let line = log_lines::event(event, event.source.into(), &door.name, false);
                        tracing::info!("{line}");
                    }
                }
                lines.iter().for_each(LogLine::write);
                return;
            }
            Err(why) => why,
        };
        tracing::error!("{}: {}: not opened: {why}", event.source, door.name);
    }

    /// Takes another configuration. Attempts at doors that stay go on.
    pub(crate) fn take_config(
        &mut self,
        config: Config,
        one_time: PendingSequences,
        now: Timestamp,
    ) {
        let tripwires = tripwires(&config);
        self.matcher
            .reload(config.doors.clone(), tripwires, now, &mut self.events);
        // Events are logged before the swap: they number the doors of the old configuration.
        self.act();
        self.log_events();
        self.config = config;
        self.one_time = one_time;
    }

    /// Runs the door's actions for the event's source. A one-time sequence is marked first: then this
    /// returns `None`, and the door acts in [`marked`](Self::marked).
    fn open(&mut self, event: &Event) -> Result<Option<Performed>, OneTimeError> {
        let Event {
            at, source, door, ..
        } = *event;
        let Some(configured) = self.config.doors.get(door.index()) else {
            return Ok(None);
        };
        let Some(OneTime { file }) = &configured.one_time else {
            return Ok(Some(self.act_for(door, source, at)));
        };
        let knock = PendingKnock {
            door: Arc::clone(&configured.name),
            file: file.clone(),
            source,
            at,
        };
        let (name, file) = (Arc::clone(&knock.door), file.clone());
        // None if it was completed twice before the matcher had the next one.
        let used = self.one_time.remove(&door);
        let used = used.ok_or_else(|| OneTimeError::Changed(file.clone()));
        let marked = used.and_then(|used| self.one_time_files.mark(knock, used, &self.config));
        if marked.is_err() {
            self.one_time_files.read(name, file, &self.config);
        }
        marked.map(|()| None)
    }

    /// Takes the result of marking a sequence on the disk: the door acts, or stays shut.
    pub(crate) fn marked(
        &mut self,
        knock: PendingKnock,
        marked: Result<(), OneTimeError>,
        now: Timestamp,
    ) {
        let PendingKnock {
            door,
            file,
            source,
            at,
        } = knock;
        let mut doors = (0..).map(DoorId).zip(self.config.doors.iter());
        let mine = |one: &OneTime| one.file == file;
        let Some((id, _)) =
            doors.find(|(_, one)| one.name == door && one.one_time.as_ref().is_some_and(mine))
        else {
            tracing::error!("{source}: {door}: not opened: a reload has taken it away");
            return;
        };
        let waited = now.since(at);
        let marked = marked.and_then(|()| match waited > LATEST {
            true => Err(OneTimeError::Late(file, waited.as_secs())),
            false => Ok(()),
        });
        let opened = marked.map(|()| self.act_for(id, source, now));
        let event = Event {
            at: now,
            source,
            door: id,
            outcome: Outcome::Open,
        };
        self.finish(&event, opened);
    }

    /// Has the files of these doors read again.
    pub(crate) fn read_sequences(&mut self, doors: Vec<(Arc<str>, PathBuf)>) {
        for (door, file) in doors {
            self.one_time_files.read(door, file, &self.config);
        }
    }

    /// Returns the port that most packets go to, unless it is somebody's step.
    pub(crate) fn busiest_port(&self, now: Timestamp) -> Option<String> {
        let port = self.busiest.found(now);
        let port = port.filter(|port| !self.matcher.is_step(*port))?;
        Some(port.to_string())
    }

    fn act_for(&mut self, door: DoorId, source: IpAddr, now: Timestamp) -> Performed {
        let effects = action::plan(door, &self.config, source);
        let done = self.perform(&effects, now);
        self.opened += u64::from(done.in_vain.is_none());
        done
    }

    /// Performs the planned effects: first the changes of sets in the kernel, in one transaction, then
    /// the command.
    fn perform(&mut self, effects: &Effects, now: Timestamp) -> Performed {
        self.perform_by(GuardTable::apply_knock, effects, now)
    }

    /// Performs the effects of an order by hand, which may use the reserve and counts for no share.
    pub(crate) fn perform_by_hand(&mut self, effects: &Effects, now: Timestamp) -> Performed {
        self.perform_by(GuardTable::apply, effects, now)
    }

    fn perform_by(
        &mut self,
        apply: fn(&mut GuardTable, &[Effect], Timestamp) -> Result<Applied, FirewallError>,
        effects: &Effects,
        now: Timestamp,
    ) -> Performed {
        let mut lines = Vec::new();
        let mut in_vain = None;
        if let Some(table) = &mut self.table {
            match apply(table, &effects.sets, now) {
                Ok(applied) => {
                    in_vain = applied.in_vain();
                    lines.extend(log_lines::applied(&applied, in_vain.as_deref()));
                }
                Err(error) => in_vain = Some(error.to_string()),
            }
        } else if !effects.sets.is_empty() {
            in_vain = Some("the table was cleared by hand".to_owned());
        }
        if let Some(command) = &effects.command
            && let Some(commands) = &mut self.commands
            && let Err(error) = commands.run(command)
        {
            lines.push(LogLine::Error(format!("{}: {error}", command.door)));
        }
        Performed { lines, in_vain }
    }
}
