//! The table in nftables and its lock, as a start, a reload and subcommands take them.

use std::ffi::OsStr;

use super::Fault;
use super::clock::now;
use super::log::log_lines;
use super::setup::Options;
use super::state::lock::{Lock, LockError};
use crate::firewall::{GuardTable, Mode, Ruleset};
use crate::model::Config;

/// Takes the lock of the configuration's table: one daemon a table. `None` if the configuration
/// has no table, or its lock is among `held`.
pub(super) fn take_lock(
    options: &Options,
    config: &Config,
    held: &[Lock],
) -> Result<Option<Lock>, Fault> {
    match &config.firewall {
        Some(firewall) => lock_table(options, &firewall.table, held),
        None => Ok(None),
    }
}

/// Takes the lock of the table of this name.
pub(super) fn lock_table(
    options: &Options,
    table: &str,
    held: &[Lock],
) -> Result<Option<Lock>, Fault> {
    let path = options.run_dir.join(format!("{table}.lock"));
    if held.iter().any(|lock| lock.path() == path) {
        return Ok(None);
    }
    // If the folder cannot be made, the lock file cannot either, and that error has the reason.
    let _ = options.prepare_run_dir();
    match Lock::take(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => Err(error.into()),
        // A guard without a lock is better than no guard.
        Err(error @ LockError::Write { .. }) => {
            tracing::warn!("{error}: nothing keeps a second daemon away");
            Ok(None)
        }
    }
}

/// Returns whether this is the lock of the table of this name.
pub(super) fn is_lock_of(lock: &Lock, table: &str) -> bool {
    lock.path().file_stem() == Some(OsStr::new(table))
}

/// Makes the table, or takes over the one that is there.
pub(super) fn make(options: &Options, ruleset: Ruleset) -> Result<GuardTable, Fault> {
    let mode = if options.watch {
        Mode::Watch
    } else {
        Mode::Auto
    };
    let (table, started) = GuardTable::start(ruleset, mode, now())?;
    log_lines::log_started(&started);
    Ok(table)
}
