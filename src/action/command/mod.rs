//! Command strings, run by a process of their own: the helper.
//!
//! The packet reader is to run without root's rights, and command strings need them. So the daemon
//! starts a helper before it reads the first packet. The two share a socket. All that the daemon
//! sends over it is a door's name and an address: whoever takes the reader over cannot choose what
//! is run. For the same reason the helper alone has the journal of pending stops, in which commands
//! stand, and at a reload it reads the configuration itself. It begins with the text that the daemon
//! has read, since not every file can be read twice (`-c /dev/stdin`).
//!
//! A daemon makes a [`HelperClient`], sends a [`HelperRequest`] for each knock that runs something,
//! and logs the [`HelperReport`]s. The daemon starts its own program as the helper, with another
//! argument; that process calls [`serve`].
//!
//! The helper and its client promise this:
//!
//! - No call on the daemon's side waits. At most 64 start commands and 64 stop commands run at once,
//!   1,024 starts wait, 16,384 stops are pending. More are refused, and the log says so. Where
//!   several doors have commands, one door may have a quarter of each.
//! - A stop is on the disk before its start runs. It is run when it is due: the configured time
//!   after its start has ended. If there is no knockd by then, the next one runs it.
//! - The commands of one door for one source run one after the other, never at once. A door without
//!   a stop command is an exception: its starts are run and forgotten.
//! - A knock while a stop is pending puts the stop off, and starts nothing.
//! - A daemon that stops sends [`HelperRequest::Drain`]: every pending stop is run at once. A command
//!   that does not end by itself within 10 seconds is ended by a signal. If it was a stop, the next
//!   daemon runs it again. Starts that no stop waits for are left alone.

mod channel;
mod children;
mod client;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
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
pub use environment::doubtful_environment;
pub use helper::serve;
pub use message::{CommandRefusal, Ending, HelperReport, HelperRequest, Phase};
pub use system::{ServeError, inherited_socket, inherited_text};
pub use table::{CommandTable, expand};

/// Returns whether an earlier daemon has left pending stops in `state_dir`: then a helper is needed,
/// even if no door has commands. Waits for the disk.
#[must_use]
pub fn has_left_stops(state_dir: &Path) -> bool {
    super::journal::is_left(state_dir)
}
