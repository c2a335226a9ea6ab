//! What subcommands share with the daemon.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::firewall::{self, Applied, Mode, Notice, Place, Ruleset, Table};
use crate::model::{Config, Effect, OnStop, SetPath, Timestamp};

use super::Fault;
use super::control::requests;
use super::control::socket::Reply;
use super::event_loop::now;
use super::log::Log;
use super::log::log_lines;
use super::log::log_lines::Said;
use super::setup::{Options, configuration};
use super::start;
use crate::stderr::complain;

/// `knockd guard`: the guard without the daemon, for the time before the network is up.
/// Where a daemon guards already, nothing is done, and that is said.
///
/// # Errors
/// There is no configuration, or the kernel refuses.
pub fn guard(options: &Options) -> Result<Option<String>, Fault> {
    let _log = Log::start(options.log.clone());
    let (path, _) = options.config_path();
    // As the daemon's start does: a faulty file must not leave the host open.
    let config = start::first_setup(options, &path, None)?.config;
    let Some(ruleset) = Ruleset::new(&config) else {
        // Nothing to guard is no fault: the unit is enabled for every configuration.
        return Ok(None);
    };
    match start::take_lock(options, &config, None) {
        Err(Fault::Unavailable(running)) => {
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
        // So early there may be no place to write yet; the guard must stand all the same.
        Ok(None) | Err(_) => {}
    }
    let notices = firewall::guard(&ruleset.of(&path))?;
    notices.iter().for_each(log_lines::tell_notice);
    Ok(None)
}

/// Whether there is such a table, now or soon: a daemon that starts has the lock before it has the
/// table.
fn stands(table: &str) -> Result<bool, Fault> {
    for _ in 0..30 {
        if firewall::list(table)?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(false)
}

/// `knockd open` with no daemon, on the table that one has left: what was opened, a line
/// each. Commands are a daemon's.
///
/// # Errors
/// There is no such door or table, a daemon has it after all, or the kernel refuses.
pub fn open(
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
    said.extend(absent.map(Said::Error));
    let mut lines = match log_lines::reply(said) {
        Reply::Done(lines) => lines,
        Reply::Refused(why) => return Err(Fault::Unavailable(why)),
        Reply::Status(_) | Reply::Faulty(_) | Reply::Elsewhere(_) => Vec::new(),
    };
    if effects.command.is_some() {
        lines.push(format!("the command of {door} is not run: no daemon runs"));
    }
    Ok(lines)
}

/// Takes out what would be put into sets when they are there: no daemon will do it. Gives
/// the sets.
fn take_awaited(applied: &mut Applied) -> impl Iterator<Item = SetPath> + use<> {
    let mut absent = BTreeSet::new();
    applied.notices.retain(|notice| {
        if let Notice::Awaited { path } = notice {
            absent.insert(path.clone());
        }
        !matches!(notice, Notice::Awaited { .. })
    });
    let waits = |place: &Place| matches!(place, Place::Set(path, _) if absent.contains(&**path));
    applied.opened.retain(|opened| !waits(&opened.place));
    absent.into_iter()
}

/// `knockd clear` with no daemon of the file: whether there was such a table.
///
/// # Errors
/// A daemon that runs with another file has the table, or the kernel refuses.
pub fn clear(options: &Options, table: &str) -> Result<bool, Fault> {
    // Where it is watched the kernel keeps nobody from it.
    let free = start::lock_table(options, table, None)?;
    let removed = firewall::clear(table);
    if let Some(free) = free {
        free.remove();
    }
    Ok(removed?)
}

/// `knockd close` with no daemon, on the table that one has left: what was closed, a line
/// each; `None` if there is no such table.
///
/// # Errors
/// The configuration has no table, a daemon has it after all, or the kernel refuses.
pub fn close(options: &Options, address: Option<IpAddr>) -> Result<Option<Vec<String>>, Fault> {
    let (path, _) = options.config_path();
    let config = configuration(options, &path)?;
    let closing = |table: &Table, now| requests::closing(table, address, now);
    let applied = on_orphan(options, &path, &config, closing)?;
    Ok(applied.map(|applied| applied.closed.iter().map(log_lines::closed).collect()))
}

/// Does what `effects` says to the table that a daemon has left, and leaves it again; `None`
/// if there is none.
fn on_orphan(
    options: &Options,
    path: &Path,
    config: &Config,
    effects: impl FnOnce(&Table, Timestamp) -> Vec<Effect>,
) -> Result<Option<Applied>, Fault> {
    let Some(ruleset) = Ruleset::new(config) else {
        return Err(Fault::Unavailable(format!(
            "{} has no table: nothing is opened in nftables",
            path.display()
        )));
    };
    // Starting the table would make it, and shut ports that nobody has asked to be shut.
    if firewall::list(&ruleset.table)?.is_none() {
        return Ok(None);
    }
    let lock = start::take_lock(options, config, None)?;
    let now = now();
    let (mut table, _) = Table::start(ruleset.of(path), Mode::Auto, now)?;
    let applied = table.apply(&effects(&table, now), now);
    let stopped = table.stop(OnStop::Keep);
    if let Some(lock) = lock {
        lock.remove();
    }
    let applied = applied?;
    if let Err(error) = stopped {
        // What was asked for is done all the same, and he must know.
        complain(format_args!(
            "the table could not be left as it was: {error}"
        ));
    }
    Ok(Some(applied))
}
