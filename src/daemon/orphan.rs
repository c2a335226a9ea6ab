//! Subcommands without a running daemon. They change the table that a daemon has left; `guard` makes
//! the table before a daemon starts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::Fault;
use super::clock::now;
use super::control::message::{Order, Reply};
use super::control::requests;
use super::log::Logger;
use super::log::log_lines::{self, LogLine};
use super::setup::{Options, configuration};
use super::start;
use super::state::lock::LockError;
use super::table;
use crate::firewall::{self, Applied, GuardTable, Mode, Notice, OpeningPlace, Ruleset};
use crate::model::{Config, Effect, OnStop, SetPath, Timestamp};
use crate::stderr::complain;

/// `knockd guard`: puts the guard in place without a daemon, for the time before the network is up.
/// Where a daemon guards already, it does nothing and returns a line that says so.
///
/// # Errors
/// There is no configuration, or the kernel refuses.
pub fn guard(options: &Options) -> Result<Option<String>, Fault> {
    let log = Logger::start(options.log.clone());
    log.begin();
    let (path, _) = options.config_path();
    // The same as at the daemon's start: a faulty file must not leave the host open.
    let config = start::first_setup(options, &path, None)?.config;
    let Some(ruleset) = Ruleset::new(&config) else {
        // A configuration without a guard is no fault: the unit is enabled for every configuration.
        return Ok(None);
    };
    match table::take_lock(options, &config, &[]) {
        Err(Fault::Lock(running @ LockError::Held { .. })) => {
            return match stands(&ruleset.table)? {
                true => Ok(Some(format!("{running}: it guards"))),
                false => Err(Fault::Unavailable(format!(
                    "{running}, and there is NO table inet {}: nothing is guarded; have it reload \
                     (systemctl reload knockd)",
                    ruleset.table
                ))),
            };
        }
        Ok(Some(free)) => free.remove(),
        // So early in the boot there may be no place to write yet. The guard must stand all the same.
        Ok(None) | Err(_) => {}
    }
    let notices = firewall::guard(&ruleset.of(&path))?;
    notices.iter().for_each(log_lines::log_notice);
    Ok(None)
}

/// Returns whether there is a table of this name, now or soon: a daemon that starts has the lock
/// before it has the table.
fn stands(table: &str) -> Result<bool, Fault> {
    for _ in 0..30 {
        if firewall::list(table)?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(false)
}

/// Obeys with no daemon; returns lines for the user, `None` if there is no table to close openings in.
/// `nobody` says why there is no daemon.
///
/// # Errors
/// The order is for a daemon alone, a daemon has the table after all, or the kernel refuses.
pub fn obey(
    options: &Options,
    order: &Order,
    nobody: String,
) -> Result<Option<Vec<String>>, Fault> {
    match order {
        Order::Open {
            door,
            address,
            lifetime,
        } => open(options, door, *address, *lifetime).map(Some),
        Order::Close { address, all: _ } => close(options, *address),
        Order::Clear => {
            let table = table_name(options);
            Ok(Some(vec![match clear(options, &table)? {
                true => requests::removed(&table),
                false => requests::no_table(&table),
            }]))
        }
        Order::Status | Order::Reload => Err(Fault::Unavailable(nobody)),
    }
}

/// Returns the table's name: that of the configuration, or the usual one if the configuration has no
/// table or cannot be read. So a table that an earlier configuration left can be listed and cleared.
#[must_use]
pub fn table_name(options: &Options) -> String {
    let (path, _) = options.config_path();
    let config = configuration(options, &path).ok();
    let firewall = config.and_then(|config| config.firewall);
    firewall.unwrap_or_default().table
}

/// Opens a door by hand; returns a line for each opening. The door's command is not run: only a daemon
/// runs commands.
fn open(
    options: &Options,
    door: &str,
    address: IpAddr,
    time: Option<Duration>,
) -> Result<Vec<String>, Fault> {
    let (path, _) = options.config_path();
    let config = configuration(options, &path)?;
    let effects = requests::by_hand(&config, door, address, time).map_err(Fault::Unavailable)?;
    if effects.sets.is_empty() && effects.command.is_some() {
        return Err(Fault::Unavailable(format!(
            "no daemon runs, and none but it runs the command of {door}"
        )));
    }
    let Some(mut applied) = on_orphan(options, &path, &config, |_, _| effects.sets)? else {
        let table = config.firewall.unwrap_or_default().table;
        return Err(Fault::Unavailable(requests::no_table(&table)));
    };
    let absent = take_awaited(&mut applied);
    let absent = absent.map(|path| format!("set {path} is not there, and no daemon waits for it"));
    let mut said = log_lines::applied(&applied, None);
    said.extend(absent.map(LogLine::Error));
    let mut lines = match requests::reply(said) {
        Reply::Done(lines) => lines,
        Reply::Refused(why) => return Err(Fault::Unavailable(why)),
        Reply::Status(_) | Reply::Faulty(_) | Reply::Elsewhere(_) => Vec::new(),
    };
    if effects.command.is_some() {
        lines.push(format!("the command of {door} is not run: no daemon runs"));
    }
    Ok(lines)
}

/// Takes out the openings in sets that are not there yet, and the notices of them: no daemon will fill
/// these sets later. Returns the sets.
fn take_awaited(applied: &mut Applied) -> impl Iterator<Item = SetPath> + use<> {
    let mut absent = BTreeSet::new();
    applied.notices.retain(|notice| {
        if let Notice::Awaited { path } = notice {
            absent.insert(path.clone());
        }
        !matches!(notice, Notice::Awaited { .. })
    });
    let waits = |place: &OpeningPlace| matches!(place, OpeningPlace::Set(path, _) if absent.contains(&**path));
    applied.opened.retain(|opened| !waits(&opened.place));
    absent.into_iter()
}

/// Takes the table away; returns whether there was such a table. Refuses if a daemon that runs with
/// another file has it.
fn clear(options: &Options, table: &str) -> Result<bool, Fault> {
    // The kernel keeps nobody from a table that is only watched: so the lock must be free.
    let free = table::lock_table(options, table, &[])?;
    let removed = firewall::clear(table);
    if let Some(free) = free {
        free.remove();
    }
    Ok(removed?)
}

/// Closes openings; returns a line for each, or `None` if there is no such table.
fn close(options: &Options, address: Option<IpAddr>) -> Result<Option<Vec<String>>, Fault> {
    let (path, _) = options.config_path();
    let config = configuration(options, &path)?;
    let closing = |table: &GuardTable, now| requests::closing(table, address, now);
    let applied = on_orphan(options, &path, &config, closing)?;
    Ok(applied.map(|applied| applied.closed.iter().map(log_lines::closed).collect()))
}

/// Applies `effects` to the table that a daemon has left, and leaves it again; `None` if there is none.
fn on_orphan(
    options: &Options,
    path: &Path,
    config: &Config,
    effects: impl FnOnce(&GuardTable, Timestamp) -> Vec<Effect>,
) -> Result<Option<Applied>, Fault> {
    let Some(ruleset) = Ruleset::new(config) else {
        return Err(Fault::Unavailable(format!(
            "{} has no table: nothing is opened in nftables",
            path.display()
        )));
    };
    // To start a table that is not there would make it, and so shut ports that nobody has asked to
    // be shut.
    if firewall::list(&ruleset.table)?.is_none() {
        return Ok(None);
    }
    let lock = table::take_lock(options, config, &[])?;
    let now = now();
    let (mut table, _) = GuardTable::start(ruleset.of(path), Mode::Auto, now)?;
    let applied = table.apply(&effects(&table, now), now);
    let stopped = table.stop(OnStop::Keep);
    if let Some(lock) = lock {
        lock.remove();
    }
    let applied = applied?;
    if let Err(error) = stopped {
        // The order is done all the same, and the user must know of both.
        complain(format_args!(
            "the table could not be left as it was: {error}"
        ));
    }
    Ok(Some(applied))
}
