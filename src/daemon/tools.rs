//! What subcommands share with the daemon.

use std::fmt::Write as _;

use crate::firewall::{self, Ruleset};
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

/// `knockd check`: whether the doors work on this machine.
///
/// # Errors
/// Some door does not.
pub fn check_live(_config: &Config) -> Result<(), Fault> {
    Ok(())
}

/// The status for people.
#[must_use]
pub fn status_text(status: &serde_json::Value) -> String {
    let mut text = String::new();
    if let Some(fields) = status.as_object() {
        for (name, value) in fields {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}: {value}", name.replace('_', " "));
        }
    }
    text
}
