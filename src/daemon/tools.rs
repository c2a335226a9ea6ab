//! What subcommands share with the daemon.

use std::net::IpAddr;

use crate::firewall::{self, Mode, Ruleset, Table};
use crate::model::OnStop;

use super::run::now;
use super::setup::{Options, configuration};
use super::{Fault, deeds, orders, start};

/// `knockd guard`: the guard without the daemon, for the time before the network is up.
///
/// # Errors
/// There is no configuration, or the kernel refuses.
pub fn guard(options: &Options) -> Result<(), Fault> {
    let (path, _) = options.config_path();
    let config = configuration(options, &path)?;
    match Ruleset::new(&config) {
        Some(ruleset) => Ok(firewall::guard(&ruleset)?),
        // Nothing to guard is no fault: the unit is enabled for every configuration.
        None => Ok(()),
    }
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
    let (mut table, _) = Table::start(ruleset, Mode::Auto, now)?;
    let applied = table.apply(&orders::closing(&table, address, now), now);
    table.stop(OnStop::Keep)?;
    if let Some(lock) = lock {
        lock.remove();
    }
    Ok(Some(applied?.closed.iter().map(deeds::closed).collect()))
}
