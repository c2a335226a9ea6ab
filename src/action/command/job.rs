//! The jobs that the scheduler hands out and gets back.

use std::sync::Arc;

use super::message::Phase;
use crate::action::journal::DoorSource;

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandJob {
    pub(super) key: DoorSource,
    pub(super) phase: Phase,
    /// The string, with `%IP%` still in it.
    pub(super) command: Arc<str>,
    /// True if the command must be over before a pending stop can run, or is that stop.
    pub(super) awaited: bool,
}

/// How a job came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It ended by itself.
    Over,
    /// We ended it. A stop that did not get to its end stays in the journal.
    Killed,
    /// It never began. A stop is tried again.
    NotStarted,
}
