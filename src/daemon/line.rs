//! The straight line of a live daemon: from a frame to what it does in the kernel, before
//! the next frame is read.

use std::net::IpAddr;
use std::time::Duration;

use crate::action;
use crate::action::one_time::{self, OneTimeError};
use crate::capture::Links;
use crate::decode::decode;
use crate::firewall::Table;
use crate::matcher::Matcher;
use crate::model::{Config, DoorId, Effect, Event, Frame, OneTime, Outcome, Timestamp, Tripwires};

use super::commands::Commands;
use super::deeds::{self, Said};
use super::limit::{Kind, Limiter};
use super::lookup::Lookup;
use super::run::now;
use super::setup;
use super::words;

/// How long interfaces are left alone after an error.
const LINKS_REST: Duration = Duration::from_secs(1);

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
    /// Packets to steps of doors since the start.
    pub(crate) steps: u64,
    /// Doors opened since the start.
    pub(crate) opened: u64,
    /// A one-time sequence was used: matcher and filter want the next one.
    pub(crate) sequence_used: bool,
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
            steps: 0,
            opened: 0,
            sequence_used: false,
            events: Vec::new(),
        }
    }

    /// Takes one frame from the wire.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>) {
        // By reference: to move it out of the option would copy it, for each packet.
        let Some(knock) = &decode(frame) else {
            return;
        };
        self.steps += u64::from(self.matcher.is_step(knock.step));
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
        let local = self.links.is_local(knock.destination);
        self.matcher.observe(knock, local, &mut self.events);
        self.settle();
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

    /// Ends attempts whose time is over.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        // At most so many a call; a flood of attempts may run out at one moment.
        while self.matcher.next_deadline().is_some_and(|at| at <= now) {
            self.matcher.expire(now, &mut self.events);
            self.settle();
        }
    }

    /// Does what the events ask for, then says what they were: the port first, the log after.
    pub(crate) fn settle(&mut self) {
        if self.events.is_empty() {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        for event in &events {
            match event.outcome {
                Outcome::Open => match self.open(event.door, event.source, event.at) {
                    Ok(said) => {
                        self.tell(event);
                        said.iter().for_each(Said::tell);
                    }
                    Err(why) => {
                        let door = self.config.doors.get(event.door.index());
                        let name = door.map_or("", |door| &door.name);
                        tracing::error!("{name}: not opened: {why}");
                    }
                },
                Outcome::Stage(_) | Outcome::Timeout { .. } | Outcome::Reset { .. } => {
                    self.tell(event);
                }
            }
        }
        // Kept for its room.
        events.clear();
        self.events = events;
    }

    /// Takes another configuration: attempts at doors that stay live on.
    pub(crate) fn take_config(
        &mut self,
        config: Config,
        one_time: setup::Live,
        tripwires: Tripwires,
        now: Timestamp,
    ) {
        self.matcher
            .reload(config.doors.clone(), tripwires, now, &mut self.events);
        // Told before the swap: the places in these events are those of the doors before.
        self.settle();
        self.config = config;
        self.one_time = one_time;
    }

    fn tell(&mut self, event: &Event) {
        let Some(door) = self.config.doors.get(event.door.index()) else {
            return;
        };
        let (kind, debug) = match event.outcome {
            Outcome::Open => (None, false),
            Outcome::Stage(_) => (Some(Kind::Stage), false),
            Outcome::Timeout { .. } => (Some(Kind::Timeout), false),
            Outcome::Reset { .. } => (Some(Kind::Reset), true),
        };
        if debug && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        if kind.is_some_and(|kind| !self.limiter.allow(kind, event.at)) {
            return;
        }
        if debug {
            let line = words::event(event, event.source.into(), &door.name, self.names_steps);
            tracing::debug!("{line}");
        } else if let Some(lookup) = &self.lookup {
            lookup.write(*event, &door.name);
        } else {
            let line = words::event(event, event.source.into(), &door.name, false);
            tracing::info!("{line}");
        }
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
