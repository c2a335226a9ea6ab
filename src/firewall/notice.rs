//! What the log should say about the table, apart from what was asked of it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ruleset::CAPACITY;
use super::{FirewallError, render};
use crate::model::{BY_HAND, SetPath};

/// Something the log should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// After a change the kernel does not have what it was given.
    Differs {
        /// The first difference.
        what: String,
    },
    /// Somebody deleted or changed the table, and it is as it should be again.
    Restored {
        /// What had happened.
        damage: Damage,
        /// The time from hearing of it to the end of the transaction.
        after: Duration,
        /// Who.
        by: Option<Culprit>,
    },
    /// Somebody does so again and again: the table is put back later.
    Postponed {
        /// What has happened.
        damage: Damage,
        /// How much later.
        wait: Duration,
        /// Who.
        by: Option<Culprit>,
    },
    /// The table could not be put back. It is tried again.
    NotRestored {
        /// Why.
        error: FirewallError,
    },
    /// Nftables could not be read, or not all be done. It is tried again.
    Fault {
        /// Why.
        error: FirewallError,
    },
    /// More was changed in nftables than could be heard of; the table was compared.
    Missed,
    /// There is another table of knockd's, and nothing says of which configuration: it stays.
    Stray {
        /// Its name.
        table: String,
    },
    /// A set of the administrator's is not there yet. What is to go in is kept for it.
    Awaited {
        /// The set.
        path: SetPath,
    },
    /// A set of the administrator's is there (again), and has what belongs in it.
    Back {
        /// The set.
        path: SetPath,
        /// How many elements were put in.
        elements: usize,
    },
    /// A set of the administrator's cannot take what a door would put in.
    Unfit {
        /// The set.
        path: SetPath,
        /// Why, and what it should be.
        why: String,
    },
    /// A knock has opened nothing more, for want of room.
    NotOpened {
        /// The door.
        door: Arc<str>,
        /// Who has knocked.
        source: IpAddr,
        /// What is full.
        full: NoRoom,
    },
    /// A door is open to nearly as many as it may be.
    Crowded {
        /// The door.
        door: Arc<str>,
        /// How many that is.
        sources: u32,
        /// How many it may be.
        most: u32,
    },
    /// No set that the door adds to holds addresses of the source's family.
    OtherFamily {
        /// The set.
        path: SetPath,
        /// The source.
        source: IpAddr,
    },
}

/// What holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The door.
    Door {
        /// How many addresses it may be open to.
        most: u32,
    },
    /// The door's share of one network.
    Network {
        /// How many of its addresses the door may be open to.
        most: u32,
        /// Its first address: it is a /24, or of IPv6 a /64.
        network: IpAddr,
    },
    /// The set, but for what is kept for who opens by hand.
    Knocks,
}

/// What became of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It was deleted, `flush ruleset` included.
    Deleted,
    /// Something in it was changed.
    Changed,
}

/// A process that changed nftables, as the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Its process id.
    pub pid: u32,
    /// Its name (`comm`).
    pub name: String,
}

impl Notice {
    /// Whether somebody should look: a warning, not information.
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
