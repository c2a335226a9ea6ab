//! Obeys root's orders from the control socket with the pipeline. Some of this is used without a
//! daemon, too.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::message::Reply;
use crate::action;
use crate::daemon::log::log_lines::LogLine;
use crate::daemon::packets::pipeline::Pipeline;
use crate::firewall::{self, GuardTable};
use crate::model::{
    Config, DoorId, Effect, Effects, Firewall, Lifetime, MAX_TIME, OnStop, Ports, Timestamp,
};

/// Does what a knock of `address` at the door would do, sequence or not.
pub(crate) fn open(
    pipeline: &mut Pipeline,
    name: &str,
    address: IpAddr,
    time: Option<Duration>,
    now: Timestamp,
) -> Reply {
    let effects = match by_hand(&pipeline.config, name, address, time) {
        Ok(effects) => effects,
        Err(why) => return Reply::Refused(why),
    };
    let mut lines = pipeline.perform_by_hand(&effects, now).all();
    let failed = lines.iter().any(|line| matches!(line, LogLine::Error(_)));
    if !failed || lines.iter().any(|line| matches!(line, LogLine::Info(_))) {
        tracing::info!("{address}: {name}: opened by hand");
    }
    lines.iter().for_each(LogLine::write);
    if effects.command.is_some() {
        let who = format!("{address}: {name}");
        lines.push(match pipeline.commands {
            Some(_) => LogLine::Info(format!(
                "{who}: the command is asked for; what becomes of it is in the log"
            )),
            None => LogLine::Error(format!("{who}: no command runs: the log says why")),
        });
    }
    reply(lines)
}

/// Ends the openings of this address, or all openings.
pub(crate) fn close(pipeline: &mut Pipeline, address: Option<IpAddr>, now: Timestamp) -> Reply {
    let Some(table) = &pipeline.table else {
        let name = table_name(&pipeline.config);
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
    let lines = pipeline.perform_by_hand(&effects, now).all();
    lines.iter().for_each(LogLine::write);
    reply(lines)
}

/// Takes the table away. The daemon stays, so that a reload puts it back.
pub(crate) fn clear(pipeline: &mut Pipeline) -> Reply {
    let Some(table) = &mut pipeline.table else {
        // A table of an earlier configuration may be left.
        let name = table_name(&pipeline.config);
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
            pipeline.table = None;
            let line = "the table is removed: NOTHING IS GUARDED until the next reload or start";
            tracing::warn!("{line}");
            Reply::Done(vec![line.to_owned()])
        }
        Err(error) => Reply::Refused(error.to_string()),
    }
}

/// Returns the name of the table; the usual one where the configuration has none.
fn table_name(config: &Config) -> String {
    let firewall = config.firewall.as_ref();
    firewall.map_or_else(|| Firewall::default().table, |f| f.table.clone())
}

/// Returns log lines as the reply to an order.
pub(crate) fn reply(lines: Vec<LogLine>) -> Reply {
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for line in lines {
        match line {
            LogLine::Info(text) => done.push(text),
            LogLine::Error(text) => failed.push(text),
        }
    }
    let failed = failed.join("; ");
    match (failed.as_str(), done.as_slice()) {
        ("", _) => Reply::Done(done),
        (_, []) => Reply::Refused(failed),
        // The user must know what there is to be taken back.
        (_, done) => Reply::Refused(failed + "; but this is done: " + &done.join("; ")),
    }
}

/// Returns the sentence that there is nothing to close or to clear.
#[must_use]
pub fn no_table(name: &str) -> String {
    format!("there is no table inet {name}: nothing is guarded")
}

/// Returns the sentence that a table without a daemon is cleared.
pub(crate) fn removed(name: &str) -> String {
    format!("the table inet {name} is removed")
}

/// Returns the effects of a knock of `address` at the door of that name, or why there are none. If
/// `time` is given, it replaces the door's own time.
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

/// Returns the effects that end every opening of this source, or of all sources.
pub(crate) fn closing(table: &GuardTable, address: Option<IpAddr>, now: Timestamp) -> Vec<Effect> {
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
