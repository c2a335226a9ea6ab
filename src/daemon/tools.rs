//! What subcommands share with the daemon.

use std::path::Path;

use crate::firewall::{self, FirewallError, Ruleset};
use crate::model::Config;

use super::Fault;
use super::setup::{Options, configuration};

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

/// `knockd check` on the live system: what there is to say, and whether all is well. Who
/// may not look at it gets told so, and has the file checked all the same.
///
/// # Errors
/// The kernel cannot be asked.
pub fn check_live(config: &Config) -> Result<(String, bool), Fault> {
    if config.firewall.is_none() {
        return Ok((String::new(), true));
    }
    match firewall::check::live(config, Path::new("/etc/nftables.conf")) {
        Ok(report) => Ok((report.to_string(), report.is_good())),
        Err(error @ FirewallError::Permission) => Ok((
            format!("the live system was not looked at: {error}\n"),
            true,
        )),
        Err(error) => Err(error.into()),
    }
}
