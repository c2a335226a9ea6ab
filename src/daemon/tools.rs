//! What subcommands share with the daemon.

use std::net::IpAddr;

use crate::firewall::{self, Mode, Ruleset, Table};
use crate::model::OnStop;

use super::log::Log;
use super::run::now;
use super::setup::{Options, configuration};
use super::{Fault, deeds, orders, start};

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
        Err(Fault::Unavailable(running)) => return Ok(Some(format!("{running}: it guards"))),
        Ok(Some(free)) => free.remove(),
        // So early there may be no place to write yet; the guard must stand all the same.
        Ok(None) | Err(_) => {}
    }
    let notices = firewall::guard(&ruleset.of(&path))?;
    notices.iter().for_each(deeds::tell_notice);
    Ok(None)
}

/// `knockd close` with no daemon, on the table that one has left: what was closed, a line
/// each; `None` if there is no such table.
///
/// # Errors
/// The configuration has no table, a daemon has it after all, or the kernel refuses.
pub fn close(options: &Options, address: Option<IpAddr>) -> Result<Option<Vec<String>>, Fault> {
    let (path, _) = options.config_path();
    let config = configuration(options, &path)?;
    let Some(ruleset) = Ruleset::new(&config) else {
        return Err(Fault::Unavailable(format!(
            "{} has no table: nothing is opened in nftables",
            path.display()
        )));
    };
    // Starting the table would make it, and shut ports that nobody has asked to be shut.
    if firewall::list(&ruleset.table)?.is_none() {
        return Ok(None);
    }
    let lock = start::take_lock(options, &config, None)?;
    let now = now();
    let (mut table, _) = Table::start(ruleset.of(&path), Mode::Auto, now)?;
    let applied = table.apply(&orders::closing(&table, address, now), now);
    table.stop(OnStop::Keep)?;
    if let Some(lock) = lock {
        lock.remove();
    }
    Ok(Some(applied?.closed.iter().map(deeds::closed).collect()))
}
