//! Notices: reports about the table for the log, apart from the results that somebody asked for.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ruleset::CAPACITY;
use super::{FirewallError, render};
use crate::model::{BY_HAND, SetPath};

/// Something that the log should report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// After a change, the kernel does not have the table that it was given.
    Differs {
        /// The first difference.
        what: String,
    },
    /// Somebody deleted or changed the table, and it has been restored.
    Restored {
        damage: Damage,
        /// The time from the start of the repair to the end of its transaction.
        after: Duration,
        /// The process that did the damage, if it is known.
        by: Option<Culprit>,
    },
    /// Somebody damages the table again and again, so it is restored later.
    Postponed {
        damage: Damage,
        /// The time until the table is restored.
        wait: Duration,
        /// The process that did the damage, if it is known.
        by: Option<Culprit>,
    },
    /// The table could not be restored. The restore is tried again.
    NotRestored {
        /// The reason.
        error: FirewallError,
    },
    /// Nftables could not be read, or a part of the work could not be done. The work is tried
    /// again.
    Fault {
        /// The reason.
        error: FirewallError,
    },
    /// More was changed in nftables than could be read, so the table was compared.
    Missed,
    /// There is another table of knockd's, and it names no configuration, so the table stays.
    Stray {
        /// The name of the other table.
        table: String,
    },
    /// A set of the administrator's does not exist yet. Its elements are kept until it does.
    Awaited {
        /// The path of the set.
        path: SetPath,
    },
    /// A set of the administrator's exists (again), and has the elements that belong in it.
    Back {
        path: SetPath,
        /// The number of elements that were put in.
        elements: usize,
    },
    /// A set of the administrator's cannot take the elements that a door would put in.
    Unfit {
        path: SetPath,
        /// The reason, and how the set should be made.
        why: String,
    },
    /// A knock has opened nothing more, for want of room.
    NotOpened {
        door: Arc<str>,
        source: IpAddr,
        /// The limit that is reached.
        full: NoRoom,
    },
    /// A door is open to nearly as many addresses as it may be.
    Crowded {
        door: Arc<str>,
        /// The number of addresses to which the door is open.
        sources: u32,
        /// The number of addresses to which the door may be open.
        most: u32,
    },
    /// No set that the door adds to holds addresses of the source's family.
    OtherFamily {
        /// The set that did not get the source.
        path: SetPath,
        source: IpAddr,
    },
}

/// A limit that leaves no room for an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The door's share.
    Door {
        /// The number of addresses to which the door may be open.
        most: u32,
    },
    /// The door's share of one network.
    Network {
        /// The number of the network's addresses to which the door may be open.
        most: u32,
        /// The first address of the network, which is a /24, or of IPv6 a /64.
        network: IpAddr,
    },
    /// The room of the set, but for the part that is kept for orders by hand.
    Knocks,
}

/// The kind of damage to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The table was deleted, `flush ruleset` included.
    Deleted,
    /// Something in the table was changed.
    Changed,
}

/// A process that changed nftables, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    pub pid: u32,
    /// The name of the process (`comm`).
    pub name: String,
}

impl Notice {
    /// Returns true if somebody should look: the notice is a warning, not information.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Back { .. } => false,
            Self::Differs { .. }
            | Self::Restored { .. }
            | Self::Postponed { .. }
            | Self::NotRestored { .. }
            | Self::Fault { .. }
            | Self::Missed
            | Self::Stray { .. }
            | Self::Awaited { .. }
            | Self::Unfit { .. }
            | Self::NotOpened { .. }
            | Self::Crowded { .. }
            | Self::OtherFamily { .. } => true,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = |by: &Option<Culprit>| match by {
            Some(Culprit { pid, name }) => format!("{name} (process {pid})"),
            None => "somebody".to_owned(),
        };
        match self {
            Self::Differs { what } => {
                write!(f, "the kernel does not have what it was given: {what}")
            }
            Self::Restored { damage, after, by } => {
                let micros = after.as_micros();
                write!(
                    f,
                    "{} {damage} the table: restored after {micros} µs",
                    who(by)
                )
            }
            Self::Postponed { damage, wait, by } => write!(
                f,
                "{} {damage} the table again: it is put back in {} ms, since this happens \
                 without end; find out what does it",
                who(by),
                wait.as_millis()
            ),
            Self::NotRestored { error } => write!(f, "the table could not be put back: {error}"),
            Self::Fault { error } => error.fmt(f),
            Self::Missed => write!(f, "nftables changed too fast to follow: table compared"),
            Self::Stray { table } => write!(
                f,
                "table inet {table} is an older knockd's, and guards still: if no configuration \
                 has it any more, delete it (nft delete table inet {table})"
            ),
            Self::Awaited { path } => write!(
                f,
                "set {} is not there yet: what belongs in it is kept until it is",
                render::path(path)
            ),
            Self::Back { path, elements } => {
                let path = render::path(path);
                write!(f, "set {path} is there: {elements} elements put in")
            }
            Self::Unfit { path, why } => {
                write!(f, "set {} cannot be used: {why}", render::path(path))
            }
            Self::NotOpened { door, source, full } => {
                write!(f, "{source}: {door}: not opened: {full}")
            }
            Self::Crowded {
                door,
                sources,
                most,
            } => write!(
                f,
                "{door}: the door is open to {sources} addresses: with {most} (max_open) it opens \
                 to nobody else"
            ),
            Self::OtherFamily { path, source } => write!(
                f,
                "{source} was not added to set {}: it holds addresses of the other family",
                render::path(path)
            ),
        }
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Door { most } => write!(
                f,
                "the door is open to {most} addresses, which is all that it may be (max_open)"
            ),
            Self::Network { most, network } => {
                let length = if network.is_ipv4() { 24 } else { 64 };
                write!(
                    f,
                    "the door is open to {most} addresses of {network}/{length}, which is all \
                     that one network may have"
                )
            }
            Self::Knocks => write!(
                f,
                "of {CAPACITY} openings all are taken but {BY_HAND}, which are kept for knockd open"
            ),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "deleted",
            Self::Changed => "changed",
        })
    }
}
