//! What root asks through the control socket, done.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::action;
use crate::firewall::{self, Table};
use crate::matcher::Occupancy;
use crate::model::{
    Config, DoorId, Effect, Effects, Firewall, Lifetime, MAX_TIME, OnStop, Ports, Timestamp,
};

use super::socket::{Order, Reply, Request};
use super::status::{self, Status};
use crate::daemon::event_loop::Daemon;
use crate::daemon::log::log_lines::{self, Said};
use crate::daemon::packets::pipeline::Line;

impl Daemon<'_> {
    /// Answers who asks.
    pub(crate) fn serve_control(&mut self, now: Timestamp) {
        // Taken out for the time: an answer needs all of the daemon but this.
        if let Some(mut control) = self.control.take() {
            control.serve(now, |order| self.obey(order, now));
            self.control = Some(control);
        }
    }

    fn obey(&mut self, Order { of, ask }: Order, now: Timestamp) -> Reply {
        if !of.is_empty() && !of.iter().any(|name| self.names.contains(name)) {
            return Reply::Elsewhere(self.path.display().to_string());
        }
        match ask {
            Request::Status => Reply::Status(Box::new(self.status(now))),
            Request::Open {
                door,
                address,
                for_ms,
            } => self.open(&door, address, for_ms, now),
            Request::Close { address } => self.close(address, now),
            Request::Clear => {
                let reply = self.clear();
                self.manager.status(self.status_line(), now);
                reply
            }
            Request::Reload => self.reload(),
        }
    }

    /// What a knock of `address` at the door would do, sequence or not.
    fn open(&mut self, name: &str, address: IpAddr, for_ms: Option<u64>, now: Timestamp) -> Reply {
        let time = for_ms.map(Duration::from_millis);
        let effects = match by_hand(&self.line.config, name, address, time) {
            Ok(effects) => effects,
            Err(why) => return Reply::Refused(why),
        };
        let mut said = self.line.perform_by_hand(&effects, now).all();
        let failed = said.iter().any(|said| matches!(said, Said::Error(_)));
        if !failed || said.iter().any(|said| matches!(said, Said::Info(_))) {
            tracing::info!("{address}: {name}: opened by hand");
        }
        said.iter().for_each(Said::tell);
        if effects.command.is_some() {
            let who = format!("{address}: {name}");
            said.push(match self.line.commands {
                Some(_) => Said::Info(format!(
                    "{who}: the command is asked for; what becomes of it is in the log"
                )),
                None => Said::Error(format!("{who}: no command runs: the log says why")),
            });
        }
        log_lines::reply(said)
    }

    fn close(&mut self, address: Option<IpAddr>, now: Timestamp) -> Reply {
        let Some(table) = &self.line.table else {
            let name = self.table_name();
            return match firewall::list(&name) {
                Ok(None) => Reply::Done(vec![no_table(&name)]),
                Ok(Some(_)) => Reply::Refused(format!(
                    "table inet {name} is left of an earlier configuration, and guards still: \
                     `knockd clear` takes it away"
                )),
                Err(error) => Reply::Refused(error.to_string()),
            };
        };
        let effects = Effects {
            sets: closing(table, address, now),
            command: None,
        };
        let said = self.line.perform_by_hand(&effects, now).all();
        said.iter().for_each(Said::tell);
        log_lines::reply(said)
    }

    /// The table goes; the daemon stays, so that a reload puts it back.
    fn clear(&mut self) -> Reply {
        let Some(table) = &mut self.line.table else {
            // One may be left of an earlier configuration.
            let name = self.table_name();
            return match firewall::clear(&name) {
                Ok(true) => {
                    let line = removed(&name);
                    tracing::warn!("{line}");
                    Reply::Done(vec![line])
                }
                Ok(false) => Reply::Done(vec![no_table(&name)]),
                Err(error) => Reply::Refused(error.to_string()),
            };
        };
        match table.stop(OnStop::Remove) {
            Ok(()) => {
                self.line.table = None;
                let line =
                    "the table is removed: NOTHING IS GUARDED until the next reload or start";
                tracing::warn!("{line}");
                Reply::Done(vec![line.to_owned()])
            }
            Err(error) => Reply::Refused(error.to_string()),
        }
    }

    /// The port that most packets go to, unless it is somebody's step.
    fn busiest(&self, now: Timestamp) -> Option<String> {
        let Line {
            busiest, matcher, ..
        } = &self.line;
        let port = busiest.found(now).filter(|port| !matcher.is_step(*port))?;
        Some(port.to_string())
    }

    fn table_name(&self) -> String {
        let firewall = self.line.config.firewall.as_ref();
        firewall.map_or_else(|| Firewall::default().table, |f| f.table.clone())
    }

    fn status(&mut self, now: Timestamp) -> Status {
        let Occupancy {
            live,
            capacity,
            evicted,
        } = self.line.matcher.occupancy();
        let links = &self.line.links;
        let doors = self.line.config.doors.iter().map(|door| status::Door {
            name: door.name.to_string(),
            disabled: door.sequence.is_empty(),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: now.since(self.started).as_secs(),
            configuration: self.path.display().to_string(),
            refused: self.refused.clone(),
            interfaces: self.hears(),
            listening: strings(links.listening()),
            waiting_for: strings(links.missing()),
            without_address: strings(links.without_address()),
            doors: doors.collect(),
            opened: self.line.opened,
            attempts: status::Attempts {
                live,
                capacity,
                evicted,
            },
            packets: status::Packets {
                read: self.packets,
                lost: self.listener.dropped().ok(),
                busiest: self.busiest(now),
            },
            cleared: self.is_cleared(),
            table: self.line.table.as_ref().map(|table| status::Table {
                name: table.ruleset().table.to_string(),
                owned: table.is_owned(),
                openings: table.openings(now).len(),
            }),
        }
    }
}

fn strings(names: Vec<impl ToString>) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// There is nothing to close or to clear.
#[must_use]
pub fn no_table(name: &str) -> String {
    format!("there is no table inet {name}: nothing is guarded")
}

/// Cleared, and no daemon minds.
#[must_use]
pub fn removed(name: &str) -> String {
    format!("the table inet {name} is removed")
}

/// What a knock of `address` at the door of that name does, for another `time` than the
/// door's own if one is given; or why there is no such thing.
pub(crate) fn by_hand(
    config: &Config,
    name: &str,
    address: IpAddr,
    time: Option<Duration>,
) -> Result<Effects, String> {
    let doors = &config.doors;
    let Some(index) = doors.iter().position(|door| &*door.name == name) else {
        let names: Vec<_> = doors.iter().map(|door| &*door.name).collect();
        return Err(format!("no door `{name}`; there are: {}", names.join(", ")));
    };
    match time {
        Some(Duration::ZERO) => return Err("a time of 0 opens nothing".to_owned()),
        Some(time) if time > MAX_TIME => return Err("ten years are the longest time".to_owned()),
        Some(_) | None => {}
    }
    let id = DoorId(u16::try_from(index).unwrap_or(u16::MAX));
    let mut effects = action::plan(id, config, address);
    if let Some(time) = time.map(Lifetime::For) {
        for effect in &mut effects.sets {
            match effect {
                Effect::Open { lifetime, .. } | Effect::Add { lifetime, .. } => *lifetime = time,
                Effect::Close { .. } | Effect::Remove { .. } => {}
            }
        }
    }
    Ok(effects)
}

/// What ends every opening of this source, or of all.
pub(crate) fn closing(table: &Table, address: Option<IpAddr>, now: Timestamp) -> Vec<Effect> {
    let sources: BTreeSet<_> = match address {
        Some(address) => [address].into(),
        None => table.openings(now).iter().map(|o| o.source).collect(),
    };
    sources
        .into_iter()
        .map(|source| Effect::Close {
            door: "by hand".into(),
            source,
            ports: Ports::All,
        })
        .collect()
}
