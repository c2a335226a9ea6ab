//! What is to be done: the typed outcome of a completed knock.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Lifetime, PortRange, SetPath};

/// All that a completed knock does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// For the firewall: all of it in one transaction, in this order.
    pub sets: Vec<Effect>,
    /// For the command room, afterwards: the command finds the firewall as the door makes it.
    pub command: Option<StartCommand>,
}

/// A change to sets in the kernel.
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
}

/// A door's start command is to be run, and its stop command when the time for it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCommand {
    /// The door's name. Whoever runs the command looks its string up.
    pub door: Arc<str>,
    /// For whom: what `%IP%` stands for.
    pub source: IpAddr,
}

/// Which ports are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// These.
    Listed(Vec<PortRange>),
    /// All that are open for the source.
    All,
}
