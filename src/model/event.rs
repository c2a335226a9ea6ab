//! Events: the steps of attempts, and their ends.

use std::net::IpAddr;

use super::{DoorId, Step, Timestamp};

/// Something that happened to one source's attempt at one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// The source of the attempt.
    pub source: IpAddr,
    /// The door of the attempt.
    pub door: DoorId,
    /// The kind of event, with the stage of the attempt.
    pub outcome: Outcome,
}

/// The kind of event: an attempt made a step, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The attempt has made this many steps, from 1. The last step gives this and then `Open`.
    Stage(u8),
    /// The attempt is complete: the door's actions run.
    Open,
    /// `seq_timeout` has passed since the first step.
    Timeout {
        /// How many steps the attempt had made.
        stage: u8,
    },
    /// The attempt is over before its time.
    Reset {
        /// How many steps the attempt had made.
        stage: u8,
        /// The reason why the attempt is over.
        cause: Cause,
    },
}

/// The reason why an attempt is over before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The packet hit a step of this or another door that was not the next one. The port is never
    /// logged, except with `-D`: it is part of somebody's sequence.
    WrongStep(Step),
    /// There were more strays than the door allows; this is the last of them.
    Strays(Step),
    /// The table was full, and of the attempts at the lowest stage of its door this one had been
    /// there longest.
    Evicted,
    /// A reload changed or removed the door.
    Reload,
}
