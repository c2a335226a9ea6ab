//! The straight line of a live daemon: from a knock to what it does in the kernel, before the
//! next knock is looked at.
//!
//! Only a door that opens acts at once. What else a step causes waits for a tick (see `ticks`):
//! its line in the log would tell it from another port to who measures the time.

use std::net::IpAddr;
use std::time::Duration;

use crate::action;
use crate::action::one_time::{self, OneTimeError};
use crate::capture::Links;
use crate::firewall::Table;
use crate::matcher::Matcher;
use crate::model::{Config, DoorId, Effect, Event, Knock, OneTime, Outcome, Timestamp};

use super::busiest::Busiest;
use super::commands::Commands;
use super::cooldown::Cooldowns;
use super::deeds::{self, Said};
use super::limit::{Kind, Limiter};
use super::lookup::Lookup;
use super::run::now;
use super::setup;
use super::start;
use super::words;

/// How long interfaces are left alone after an error.
const LINKS_REST: Duration = Duration::from_secs(1);

/// So many events wait for a tick; with more there is a flood, and then the log is told at once.
const UNTOLD: usize = 4096;

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
    /// Doors opened since the start.
    pub(crate) opened: u64,
    /// A one-time sequence was used: matcher and filter want the next one.
    pub(crate) sequence_used: bool,
    /// What the log has not been told of yet.
    events: Vec<Event>,
}

impl Line {
    pub(crate) fn new(
        config: Config,
        matcher: Matcher,
        links: Links,
        table: Option<Table>,
        commands: Option<Commands>,
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
            sequence_used: false,
            events: Vec::with_capacity(UNTOLD),
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
        if !self.links.counts(interface) {
            return;
        }
        let local = self.links.is_knocked_at(interface, knock.destination);
        let from = self.events.len();
        self.matcher.observe(knock, local, &mut self.events);
        self.act(from);
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
            Ok(changes) => changes.iter().for_each(deeds::tell_change),
            Err(error) => {
                tracing::error!("{error}");
                self.links_rest = Some(now + LINKS_REST);
            }
        }
    }

    /// What waits for a tick: ends attempts whose time is over, and writes to the log. At most so
    /// much that no packet waits for long; whether there is more to be done.
    pub(crate) fn tick(&mut self, now: Timestamp) -> bool {
        self.matcher.expire(now, &mut self.events);
        self.tell_all();
        for (kind, count) in self.limiter.due(now) {
            tracing::info!("{count} more {} not written", kind.words());
        }
        if let Some(port) = self.busiest.news(now).filter(|p| !self.matcher.is_step(*p)) {
            tracing::warn!("{}", words::busiest(port));
        }
        self.matcher.next_deadline().is_some_and(|at| at <= now)
    }

    /// Does at once what those of the events ask for that open doors, from this one on. The others
    /// wait, unless there are very many.
    fn act(&mut self, from: usize) {
        let mut opened = Vec::new();
        let mut place = from;
        while let Some(event) = self.events.get(place).copied() {
            if event.outcome != Outcome::Open {
                place += 1;
            } else if self.rests(&event) {
                // The knock does nothing, and is not written either.
                self.events.remove(place);
            } else {
                opened.push(self.open(event.door, event.source, event.at));
                place += 1;
            }
        }
        if !opened.is_empty() || self.events.len() >= UNTOLD {
            self.tell(opened);
        }
    }

    /// Whether the event's door has opened for its source less than its `seq_cooldown` ago.
    fn rests(&mut self, event: &Event) -> bool {
        let door = self.config.doors.get(event.door.index());
        door.is_some_and(|door| self.cooldowns.rests(door, event.source, event.at))
    }

    /// Writes to the log what has happened and is not told yet.
    pub(crate) fn tell_all(&mut self) {
        self.tell(Vec::new());
    }

    /// Writes to the log what the events were; `opened`: what came of each that opens a door, in
    /// their order.
    fn tell(&mut self, opened: Vec<Result<Vec<Said>, OneTimeError>>) {
        let mut opened = opened.into_iter();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let Some(door) = self.config.doors.get(event.door.index()) else {
                continue;
            };
            let line = |ports| words::event(&event, event.source.into(), &door.name, ports);
            match event.outcome {
                Outcome::Open => match opened.next() {
                    Some(Ok(said)) => {
                        match &self.lookup {
                            // It goes over the network. So only who has opened a door is looked
                            // up: whoever answers would else be told of each step.
                            Some(lookup) => lookup.write(event, &door.name),
                            None => tracing::info!("{}", line(false)),
                        }
                        said.iter().for_each(Said::tell);
                    }
                    Some(Err(why)) => tracing::error!("{}: not opened: {why}", door.name),
                    None => {}
                },
                Outcome::Stage(_) => {
                    if self.limiter.allow(Kind::Stage, event.at) {
                        tracing::info!("{}", line(false));
                    }
                }
                Outcome::Timeout { .. } => {
                    if self.limiter.allow(Kind::Timeout, event.at) {
                        tracing::info!("{}", line(false));
                    }
                }
                Outcome::Reset { .. } => {
                    if tracing::enabled!(tracing::Level::DEBUG)
                        && self.limiter.allow(Kind::Reset, event.at)
                    {
                        tracing::debug!("{}", line(self.names_steps));
                    }
                }
            }
        }
        // Kept for its room, but for what a reload has needed.
        events.shrink_to(UNTOLD);
        self.events = events;
    }

    /// Takes another configuration: attempts at doors that stay live on.
    pub(crate) fn take_config(&mut self, config: Config, one_time: setup::Live, now: Timestamp) {
        let tripwires = start::tripwires(&config);
        self.matcher
            .reload(config.doors.clone(), tripwires, now, &mut self.events);
        // Told before the swap: the places in these events are those of the doors before.
        self.tell_all();
        self.config = config;
        self.one_time = one_time;
    }

    /// Runs the door's actions for `source`; or says why it stays shut.
    fn open(
        &mut self,
        door: DoorId,
        source: IpAddr,
        at: Timestamp,
    ) -> Result<Vec<Said>, OneTimeError> {
        let Some(configured) = self.config.doors.get(door.index()) else {
            return Ok(Vec::new());
        };
        if let Some(OneTime { file }) = &configured.one_time {
            // Marked and synced before the door acts: no crash lets it be used twice.
            self.sequence_used = true;
            let used = self.one_time.remove(&door);
            // None: it was completed twice before the matcher had the next one.
            let used = used.ok_or_else(|| OneTimeError::Changed(file.clone()))?;
            one_time::mark_used(file, &used)?;
        }
        self.opened += 1;
        let effects = action::plan(door, &self.config, source);
        Ok(self.perform(&effects, at))
    }

    /// Does what is planned: what is for the kernel in one transaction, then commands.
    pub(crate) fn perform(&mut self, effects: &[Effect], now: Timestamp) -> Vec<Said> {
        let mut said = Vec::new();
        if let Some(table) = &mut self.table {
            match table.apply(effects, now) {
                Ok(applied) => said.extend(deeds::applied(&applied)),
                Err(error) => said.push(Said::Error(error.to_string())),
            }
        } else if effects.iter().any(|e| !matches!(e, Effect::Run { .. })) {
            let text = "nothing is opened: the table was cleared by hand".to_owned();
            said.push(Said::Error(text));
        }
        for effect in effects {
            if let Effect::Run { door, source } = effect
                && let Some(configured) = self.config.doors.get(door.index())
                && let Some(commands) = &mut self.commands
                && let Err(error) = commands.run(&configured.name, *source)
            {
                said.push(Said::Error(format!("{}: {error}", configured.name)));
            }
        }
        said
    }
}
