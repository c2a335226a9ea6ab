//! The effects of a completed knock: changes to sets in the kernel, and a command.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Lifetime, PortRange, SetPath};

/// All effects of a completed knock.
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
    /// Let `source` reach `ports`. An opening that is there is never shortened.
    Open {
        /// The door's name, kept with the element as its comment.
        door: Arc<str>,
        /// The address that may reach them.
        source: IpAddr,
        /// The ports of this host.
        ports: Vec<PortRange>,
        /// How long it lasts.
        lifetime: Lifetime,
    },
    /// End openings of `source`. It is no fault if there are none.
    Close {
        /// The door's name, for the log.
        door: Arc<str>,
        /// The address whose openings end.
        source: IpAddr,
        /// The ports that are closed.
        ports: Ports,
    },
    /// Put the source into a set of the administrator's.
    Add {
        /// The door's name, kept with the element as its comment.
        door: Arc<str>,
        /// The address of the source.
        source: IpAddr,
        /// The family, table and name of the set.
        path: SetPath,
        /// The ports, for a set keyed by address, protocol and port.
        ports: Vec<PortRange>,
        /// How long it lasts.
        lifetime: Lifetime,
    },
    /// Take the source out of such a set. It is no fault if it is not there.
    Remove {
        /// The door's name, for the log.
        door: Arc<str>,
        /// The address of the source.
        source: IpAddr,
        /// The family, table and name of the set.
        path: SetPath,
        /// The ports, for a set keyed by address, protocol and port.
        ports: Vec<PortRange>,
    },
}

/// A door's start command is to be run, and its stop command when the time for it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCommand {
    /// The door's name. The helper looks the string of the command up by it.
    pub door: Arc<str>,
    /// The address for which `%IP%` stands.
    pub source: IpAddr,
}

/// The ports that are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// These ports.
    Listed(Vec<PortRange>),
    /// All ports that are open for the source.
    All,
}
