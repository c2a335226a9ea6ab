//! The messages between the daemon and its helper; `channel` carries them.
//!
//! A request names a door and an address and no more. So whoever holds the daemon's end can have a
//! configured command started for an address, but cannot choose the command.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::channel::write_cut;

/// A request of the daemon to its helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HelperRequest {
    /// A door has opened: run its start command, and its stop command `timeout` later. If a stop is
    /// pending for this door and source, it is put off and nothing is started.
    Start {
        /// The door's name. Unlike its index, it means the same before and after a reload.
        door: Arc<str>,
        /// The address for which `%IP%` stands.
        source: IpAddr,
    },
    /// Read the configuration again. The answer is [`HelperReport::Ready`] or
    /// [`HelperReport::LoadFailed`].
    Reload,
    /// Start nothing more, and run every pending stop at once. The answer is
    /// [`HelperReport::Drained`].
    Drain,
}

/// A report of the helper to the daemon. Its text is cut to fit a message. In commands, and in what
/// they print, control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum HelperReport {
    /// The helper of before has died. This one takes its place.
    Replaces {
        /// How it died.
        #[serde(serialize_with = "write_cut")]
        death: String,
    },
    /// The configuration was read, at the beginning or after [`HelperRequest::Reload`].
    Ready {
        /// The [`super::CommandTable::digest`] of the commands that were read. It differs from the
        /// daemon's own if the file changed between the two readings.
        digest: u64,
        /// The number of stops that are pending.
        pending: u32,
        /// The number of these that came due while no helper was there to run them.
        overdue: u32,
    },
    /// The configuration could not be read. The commands stay as they were.
    LoadFailed {
        #[serde(serialize_with = "write_cut")]
        message: String,
    },
    /// The journal of pending stops is damaged or cannot be written.
    JournalFault {
        /// The fault, and how it was handled.
        #[serde(serialize_with = "write_cut")]
        message: String,
    },
    /// A command begins. It is logged as `door: running command: CMD`.
    Running {
        door: Arc<str>,
        source: IpAddr,
        phase: Phase,
        /// The string for the shell, with the address in it.
        #[serde(serialize_with = "write_cut")]
        command: String,
    },
    /// The stop is due. It is logged as `IP: door: command timeout`.
    TimedOut { door: Arc<str>, source: IpAddr },
    /// A knock on a door whose stop is pending: the stop was put off and nothing was started.
    Extended {
        door: Arc<str>,
        source: IpAddr,
        /// The time from now to the stop.
        timeout: Duration,
    },
    /// A line that a command printed, on stdout or stderr.
    Output {
        door: Arc<str>,
        source: IpAddr,
        /// The line, without its end.
        #[serde(serialize_with = "write_cut")]
        line: String,
    },
    /// The command has printed more than is kept. The rest is thrown away.
    OutputCut { door: Arc<str>, source: IpAddr },
    /// A command is over.
    Ended {
        door: Arc<str>,
        source: IpAddr,
        phase: Phase,
        /// A code other than 0 is logged as `door: command returned non-zero status code (N)`.
        ending: Ending,
    },
    /// A start was asked for, and is not done.
    Refused {
        door: Arc<str>,
        source: IpAddr,
        refusal: CommandRefusal,
    },
    /// This many reports were thrown away because the daemon did not read them in time.
    Lost { reports: u32 },
    /// Every stop has been run: the daemon may end.
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
    /// The command returned this status.
    Code(i32),
    /// This signal ended the command.
    Signal(i32),
    /// The command could not be started, for this reason.
    NotStarted(#[serde(serialize_with = "write_cut")] String),
}

/// The reason why no command is started.
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
