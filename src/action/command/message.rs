//! What the daemon and its helper say to each other; `channel` carries it.
//!
//! A request names a door and an address and no more: whoever holds the daemon's end can have a
//! configured command started for an address, and cannot choose what is run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::channel::write_cut;

/// What the helper is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HelperRequest {
    /// A door was opened: run its start command, and its stop command `timeout` later. If a
    /// stop is pending for this door and source, it is put off and nothing is started.
    Start {
        /// The door's name: unlike its place, it means the same before and after a reload.
        door: Arc<str>,
        /// What `%IP%` stands for.
        source: IpAddr,
    },
    /// Read the configuration again; answered by [`HelperReport::Ready`] or
    /// [`HelperReport::LoadFailed`].
    Reload,
    /// Start nothing more, run every pending stop at once; answered by [`HelperReport::Drained`].
    Drain,
}

/// What the helper has to say. Text in it is cut to fit a message; commands and what they
/// print have their control characters escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HelperReport {
    /// The configuration was read, at the beginning or after [`HelperRequest::Reload`].
    Ready {
        /// [`super::CommandTable::digest`] of what was read: differs from the daemon's own if the
        /// file changed between the two readings.
        digest: u64,
        /// Stops that are pending.
        pending: u32,
        /// How many of these were due while nobody was there to run them.
        overdue: u32,
    },
    /// The configuration could not be read; the commands are what they were.
    LoadFailed {
        /// Why.
        #[serde(serialize_with = "write_cut")]
        message: String,
    },
    /// The journal of pending stops is damaged or cannot be written.
    JournalFault {
        /// What is wrong, and what was done about it.
        #[serde(serialize_with = "write_cut")]
        message: String,
    },
    /// A command begins. Logged as `door: running command: CMD`.
    Running {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
        /// Which of its commands.
        phase: Phase,
        /// What the shell is given.
        #[serde(serialize_with = "write_cut")]
        command: String,
    },
    /// The stop is due. Logged as `IP: door: command timeout`.
    TimedOut {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
    },
    /// A knock on a door whose stop is pending: nothing was started.
    Extended {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
        /// How long from now the stop is due.
        timeout: Duration,
    },
    /// A line that a command printed, on stdout or stderr.
    Output {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
        /// The line, without its end.
        #[serde(serialize_with = "write_cut")]
        line: String,
    },
    /// The command printed more than is kept; what follows is thrown away.
    OutputCut {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
    },
    /// A command is over.
    Ended {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
        /// Which of its commands.
        phase: Phase,
        /// How it went. A code other than 0 is logged as
        /// `door: command returned non-zero status code (N)`.
        ending: Ending,
    },
    /// What was asked is not done.
    Refused {
        /// The door.
        door: Arc<str>,
        /// For whom.
        source: IpAddr,
        /// Why.
        refusal: CommandRefusal,
    },
    /// This many reports were thrown away because the daemon did not read them in time.
    Lost {
        /// How many.
        reports: u32,
    },
    /// Every stop has been run: the daemon may go.
    Drained,
}

/// One of a door's two command strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// `start_command`.
    Start,
    /// `stop_command`.
    Stop,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It returned this status.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started.
    NotStarted(#[serde(serialize_with = "write_cut")] String),
}

/// Why a request is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CommandRefusal {
    /// The helper's configuration has no such door, or it starts nothing for this source.
    #[error("no command is configured for this door")]
    UnknownDoor,
    /// As many starts wait as may.
    #[error("too many commands are waiting to run")]
    TooManyWaiting,
    /// As many stops are pending as may.
    #[error("too many stop commands are pending")]
    TooManyPending,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
