//! What subcommands share with the daemon.

use crate::firewall::{self, Ruleset};

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
