//! What the matcher has to say.

use std::net::IpAddr;

use super::{DoorId, Step, Timestamp};

/// Something that happened to one source's attempt at one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Whose attempt.
    pub source: IpAddr,
    /// Which door.
    pub door: DoorId,
    /// What.
    pub outcome: Outcome,
}

/// What happened to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It has made this many steps, from 1. The last step gives this and then `Open`.
    Stage(u8),
    /// It is complete: the door's actions run.
    Open,
    /// `seq_timeout` has passed since its first step.
    Timeout {
        /// How many steps it had made.
        stage: u8,
    },
    /// It is over before its time.
    Reset {
        /// How many steps it had made.
        stage: u8,
        /// Why.
        cause: Cause,
    },
}

/// Why an attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A step of this or another door that was not the next one. Never logged with its
    /// port, but for `-D`: it is part of somebody's sequence.
    WrongStep(Step),
    /// More strays than the door allows; the last of them.
    Strays(Step),
    /// The table was full, and of the attempts at the lowest stage this had been there
    /// longest.
    Evicted,
    /// A reload changed or removed the door.
    Reload,
}
