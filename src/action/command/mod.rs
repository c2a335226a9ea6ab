//! Command strings, run by a process of their own.
//!
//! The packet reader is to run without root's rights, and command strings need them. So a
//! helper is started before the first packet is read; the two share a socket, and all that
//! passes over it towards the helper is a door's name and an address. It begins with the text of
//! the configuration that the daemon has read, since not every file can be read twice
//! (`-c /dev/stdin`). Another text it reads itself, so that nobody who takes over the reader can
//! choose what is run; for the same reason the journal of pending stops, in which commands stand, is
//! the helper's alone.
//!
//! A daemon makes a [`HelperClient`], sends a [`HelperRequest`] for each knock that is to run something,
//! and logs the [`HelperReport`]s; the same program, started by it with another argument, calls
//! [`serve`].
//!
//! What holds:
//!
//! - No call on the daemon's side waits. At most 64 start commands and 64 stop commands run
//!   at once, 1,024 starts wait, 16,384 stops are pending; what is more is refused and said.
//!   Where several doors have commands, one may have a quarter of each.
//! - A stop is on the disk before its start runs. It is run at its time (the configured
//!   time after its start has ended), or, if there was no knockd then, by the next one.
//! - The commands of one door for one source run one after the other, never at once. (Doors
//!   without a stop command excepted: what they start is not looked after.)
//! - A knock while a stop is pending puts it off, and starts nothing.
//! - When the daemon stops it sends [`HelperRequest::Drain`]: every pending stop is run at once.
//!   What does not end by itself within 10 seconds is ended; a stop that was is run again
//!   by the next daemon. Starts that no stop waits for are left alone.

mod channel;
mod children;
mod client;
mod helper;
mod job;
mod message;
mod output;
mod queue;
mod scheduler;
mod spawn;
mod system;
mod table;

use std::path::Path;

pub use children::DRAIN_TIME;
pub use client::{HelperBusy, HelperClient, HelperGone, SpawnError};
pub use helper::serve;
pub use message::{CommandRefusal, Ending, HelperReport, HelperRequest, Phase};
pub use system::{ServeError, inherited_socket, inherited_text};
pub use table::{CommandTable, expand};

/// Whether a helper is needed: some door has commands, or stops were left to be run in
/// `state_dir` by a daemon that had some.
#[must_use]
pub fn is_needed(table: &CommandTable, state_dir: &Path) -> bool {
    !table.is_empty() || super::journal::is_left(state_dir)
}
