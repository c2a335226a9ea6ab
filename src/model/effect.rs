//! What is to be done: the typed outcome of a completed knock.

use std::net::IpAddr;
use std::sync::Arc;

use super::{DoorId, Lifetime, PortRange, SetPath};

/// One thing to do. The firewall does the first four, all those of one knock in one
/// transaction; the command room does the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Let `source` reach `ports`. Never shortens an opening that is there.
    Open {
        /// The door's name, kept with the element as its comment.
        door: Arc<str>,
        /// Who may.
        source: IpAddr,
        /// What.
        ports: Vec<PortRange>,
        /// Until when.
        lifetime: Lifetime,
    },
    /// End openings of `source`; none there is no fault.
    Close {
        /// The door's name, for the log.
        door: Arc<str>,
        /// Whose.
        source: IpAddr,
        /// Which.
        ports: Ports,
    },
    /// Put the source into a set of the administrator's.
    Add {
        /// The door's name, kept with the element as its comment.
        door: Arc<str>,
        /// Who.
        source: IpAddr,
        /// The set.
        path: SetPath,
        /// The ports, for a set keyed by address, protocol and port.
        ports: Vec<PortRange>,
        /// Until when.
        lifetime: Lifetime,
    },
    /// Take the source out of such a set; not there is no fault.
    Remove {
        /// The door's name, for the log.
        door: Arc<str>,
        /// Who.
        source: IpAddr,
        /// The set.
        path: SetPath,
        /// The ports, for a set keyed by address, protocol and port.
        ports: Vec<PortRange>,
    },
    /// Run the door's start command, and its stop command when its time has come.
    Run {
        /// Which door: the string itself is looked up by whoever runs it.
        door: DoorId,
        /// For whom: what `%IP%` stands for.
        source: IpAddr,
    },
}

/// Which ports are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// These.
    Listed(Vec<PortRange>),
    /// All that are open for the source.
    All,
}

/// Which of a door's two command strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// `start_command`.
    Start,
    /// `stop_command`.
    Stop,
}
