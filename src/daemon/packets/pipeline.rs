//! The straight line of a live daemon: from a knock to what it does in the kernel, before the
//! next knock is looked at.
//!
//! Only a door that opens acts at once. What else a step causes waits for a tick (see `ticks`):
//! its line in the log would tell it from another port to who measures the time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::action;
use crate::action::one_time::OneTimeError;
use crate::capture::Links;
use crate::firewall::{Applied, FirewallError, Table};
use crate::matcher::Matcher;
use crate::model::{Config, DoorId, Effect, Effects, Event, Knock, OneTime, Outcome, Timestamp};

use super::busiest::Busiest;
use super::cooldown::Cooldowns;
use crate::daemon::command_helper::Commands;
use crate::daemon::event_loop::now;
use crate::daemon::log::event_lines;
use crate::daemon::log::limit::{Kind, Limiter};
use crate::daemon::log::log_lines::{self, Done, Said};
use crate::daemon::log::lookup::Lookup;
use crate::daemon::one_time_files::{Case, Clerk};
use crate::daemon::setup;
use crate::daemon::start;

/// How long interfaces are left alone after an error.
const LINKS_REST: Duration = Duration::from_secs(1);

/// So long a knock waits for the disk of its one-time sequence: afterwards whoever knocked has given
/// up, and the address may be somebody else's.
const LATEST: Duration = Duration::from_secs(60);

/// Room for so many events is kept.
const EVENTS: usize = 1024;

/// Everything a packet may set in motion.
pub(crate) struct Line {
    pub(crate) config: Config,
    pub(crate) matcher: Matcher,
    pub(crate) links: Links,
    /// Interfaces could not be followed: when that is tried again.
    pub(crate) links_rest: Option<Timestamp>,
    pub(crate) table: Option<Table>,
    pub(crate) commands: Option<Commands>,
    pub(crate) lookup: Option<Lookup>,
    pub(crate) limiter: Limiter,
    pub(crate) only_ip_v4: bool,
    /// Whether the log may name a port that is somebody's step (`-D`).
    pub(crate) names_steps: bool,
    /// The sequences that doors of one-time sequences wait for.
    pub(crate) one_time: setup::Live,
    pub(crate) busiest: Busiest,
    /// Whom doors do not open for again yet.
    cooldowns: Cooldowns,
    /// Doors opened since the start; a knock that was made in vain is none.
    pub(crate) opened: u64,
    /// Who marks one-time sequences that are used.
    pub(crate) clerk: Clerk,
    events: Vec<Event>,
    /// What the log is to be told at the next tick. The limiter has let it through: so a flood
    /// makes it no longer.
    untold: Vec<Event>,
}

impl Line {
    pub(crate) fn new(
        config: Config,
        matcher: Matcher,
        links: Links,
        table: Option<Table>,
        commands: Option<Commands>,
        clerk: Clerk,
    ) -> Self {
        Self {
            config,
            matcher,
            links,
            links_rest: None,
            table,
            commands,
            lookup: None,
            limiter: Limiter::default(),
            only_ip_v4: false,
            names_steps: false,
            one_time: setup::Live::new(),
            busiest: Busiest::default(),
            cooldowns: Cooldowns::default(),
            opened: 0,
            clerk,
            events: Vec::new(),
            untold: Vec::new(),
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
            // It came up since the poll, and this is its first packet.
            self.follow_links();
        }
        if !self.links.counts(interface) || !self.links.can_answer(knock.source, interface) {
            return;
        }
        let local = self.links.is_knocked_at(interface, knock.destination);
        self.matcher.observe(knock, local, &mut self.events);
        self.act();
    }

    /// Takes in what has happened to interfaces and addresses. A lasting error neither keeps
    /// the daemon from all else nor fills the log.
    pub(crate) fn follow_links(&mut self) {
        let now = now();
        if self.links_rest.is_some_and(|at| at > now) {
            return;
        }
        self.links_rest = None;
        match self.links.on_readable() {
            Ok(changes) => changes.iter().for_each(log_lines::tell_change),
            Err(error) => {
                tracing::error!("{error}");
                self.links_rest = Some(now + LINKS_REST);
            }
        }
    }

    /// Runs at a tick: ends attempts whose time is over, and writes to the log. At most so much that
    /// no packet waits for long. Returns whether work is left.
    pub(crate) fn tick(&mut self, now: Timestamp) -> bool {
        self.matcher.expire(now, &mut self.events);
        self.act();
        self.tell_all();
        for (kind, count) in self.limiter.due(now) {
            tracing::info!("{count} more {} not written", kind.words());
        }
        if let Some(port) = self.busiest.news(now).filter(|p| !self.matcher.is_step(*p)) {
            tracing::warn!("{}", event_lines::busiest(port));
        }
        self.matcher.next_deadline().is_some_and(|at| at <= now)
    }

    /// Does at once what the events ask for that open doors: the port first, the log after. The
    /// others wait to be told.
    fn act(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let kind = match event.outcome {
                // The knock does nothing, and is not written either.
                Outcome::Open if self.rests(&event) => continue,
                Outcome::Open => {
                    // If nothing came of it yet, it is told when the door acts.
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
                self.untold.push(event);
            }
        }
        // Kept for its room, but for what a reload has needed.
        events.shrink_to(EVENTS);
        self.events = events;
    }

    /// Whether the event's door has opened for its source less than its `seq_cooldown` ago.
    fn rests(&mut self, event: &Event) -> bool {
        let door = self.config.doors.get(event.door.index());
        door.is_some_and(|door| self.cooldowns.rests(door, event.source, event.at))
    }

    /// The door has acted, or stays shut.
    fn finish(&mut self, event: &Event, opened: Result<Done, OneTimeError>) {
        let has_opened = matches!(&opened, Ok(done) if done.in_vain.is_none());
        if let Some(door) = self.config.doors.get(event.door.index())
            && !has_opened
        {
            self.cooldowns.wake(door, event.source);
        }
        // What led to it stands before it.
        self.tell_all();
        self.tell_opened(event, opened);
    }

    /// Writes to the log what has happened and is not told yet.
    pub(crate) fn tell_all(&mut self) {
        for event in self.untold.drain(..) {
            let Some(door) = self.config.doors.get(event.door.index()) else {
                continue;
            };
            let line = |ports| event_lines::event(&event, event.source.into(), &door.name, ports);
            match event.outcome {
                Outcome::Reset { .. } => tracing::debug!("{}", line(self.names_steps)),
                Outcome::Stage(_) | Outcome::Timeout { .. } | Outcome::Open => {
                    tracing::info!("{}", line(false));
                }
            }
        }
    }

    /// Writes to the log what came of an event that opens a door.
    fn tell_opened(&mut self, event: &Event, opened: Result<Done, OneTimeError>) {
        let Some(door) = self.config.doors.get(event.door.index()) else {
            return;
        };
        // Each comes with several lines of what it did.
        if !self.limiter.allow(Kind::Knock, event.at) {
            return;
        }
        let why = match opened {
            Ok(Done { said, in_vain }) => {
                match (&in_vain, &self.lookup) {
                    (Some(why), _) => {
                        tracing::error!("{}: {}: not opened: {why}", event.source, door.name);
                    }
                    // It goes over the network. So only who has opened a door is looked up: whoever
                    // answers would else be told of each step.
                    (None, Some(lookup)) => lookup.write(*event, &door.name),
                    (None, None) => {
                        let line =
                            event_lines::event(event, event.source.into(), &door.name, false);
                        tracing::info!("{line}");
                    }
                }
                said.iter().for_each(Said::tell);
                return;
            }
            Err(why) => why,
        };
        tracing::error!("{}: {}: not opened: {why}", event.source, door.name);
    }

    /// Takes another configuration: attempts at doors that stay live on.
    pub(crate) fn take_config(&mut self, config: Config, one_time: setup::Live, now: Timestamp) {
        let tripwires = start::tripwires(&config);
        self.matcher
            .reload(config.doors.clone(), tripwires, now, &mut self.events);
        // Told before the swap: the places in these events are those of the doors before.
        self.act();
        self.tell_all();
        self.config = config;
        self.one_time = one_time;
    }

    /// Runs the door's actions for who knocked; or says why it stays shut; or has the sequence
    /// marked first, if it is good for one use, and gives nothing yet.
    fn open(&mut self, event: &Event) -> Result<Option<Done>, OneTimeError> {
        let Event {
            at, source, door, ..
        } = *event;
        let Some(configured) = self.config.doors.get(door.index()) else {
            return Ok(None);
        };
        let Some(OneTime { file }) = &configured.one_time else {
            return Ok(Some(self.act_for(door, source, at)));
        };
        let case = Case {
            door: Arc::clone(&configured.name),
            file: file.clone(),
            source,
            at,
        };
        let (name, file) = (Arc::clone(&case.door), file.clone());
        // None: it was completed twice before the matcher had the next one.
        let used = self.one_time.remove(&door);
        let used = used.ok_or_else(|| OneTimeError::Changed(file.clone()));
        let marked = used.and_then(|used| self.clerk.mark(case, used, &self.config));
        if marked.is_err() {
            self.clerk.read(name, file, &self.config);
        }
        marked.map(|()| None)
    }

    /// The sequence is marked, on the disk, or that failed: the door acts, or stays shut.
    pub(crate) fn marked(&mut self, case: Case, marked: Result<(), OneTimeError>, now: Timestamp) {
        let Case {
            door,
            file,
            source,
            at,
        } = case;
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

    fn act_for(&mut self, door: DoorId, source: IpAddr, now: Timestamp) -> Done {
        let effects = action::plan(door, &self.config, source);
        let done = self.perform(&effects, now);
        self.opened += u64::from(done.in_vain.is_none());
        done
    }

    /// Does what is planned: first what is for the kernel, in one transaction, then the command.
    fn perform(&mut self, effects: &Effects, now: Timestamp) -> Done {
        self.perform_by(Table::apply_knock, effects, now)
    }

    /// The same for who asks by hand.
    pub(crate) fn perform_by_hand(&mut self, effects: &Effects, now: Timestamp) -> Done {
        self.perform_by(Table::apply, effects, now)
    }

    fn perform_by(
        &mut self,
        apply: fn(&mut Table, &[Effect], Timestamp) -> Result<Applied, FirewallError>,
        effects: &Effects,
        now: Timestamp,
    ) -> Done {
        let mut said = Vec::new();
        let mut in_vain = None;
        if let Some(table) = &mut self.table {
            match apply(table, &effects.sets, now) {
                Ok(applied) => {
                    in_vain = applied.in_vain();
                    said.extend(log_lines::applied(&applied, in_vain.as_deref()));
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
            said.push(Said::Error(format!("{}: {error}", command.door)));
        }
        Done { said, in_vain }
    }
}
