//! What can go wrong, in words that say what to do.

use nix::errno::Errno;

use super::netlink::socket::Refusal;
use super::ruleset::CAPACITY;

/// Why the table is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirewallError {
    /// The capability is missing.
    #[error("nftables may not be touched: CAP_NET_ADMIN is missing (run as root, or grant it)")]
    Permission,
    /// Another program owns the table.
    #[error(
        "table inet {table} is owned by another program{}: is another knockd running?",
        netlink_port(*port)
    )]
    Owned {
        /// The table.
        table: String,
        /// The owner's netlink port.
        port: Option<u32>,
    },
    /// A table of that name is somebody else's.
    #[error(
        "there is a table inet {table} that knockd did not make: set another name in \
         [firewall] table, or delete it (nft delete table inet {table})"
    )]
    Foreign {
        /// The table.
        table: String,
    },
    /// A set holds as many as it may.
    #[error(
        "set {set} is full: none is taken until one runs out (knockd's own hold {CAPACITY} \
         openings)"
    )]
    Full {
        /// The set.
        set: String,
    },
    /// The kernel lacks something.
    #[error(
        "the kernel has no support for this: {what} (nf_tables with fib, ct and reject; Linux \
         5.10 or later)"
    )]
    Unsupported {
        /// What was asked of it.
        what: String,
    },
    /// The kernel would not.
    #[error("the kernel refused {what}: {}", errno.desc())]
    Refused {
        /// What was asked of it.
        what: String,
        /// Its reason.
        errno: Errno,
    },
    /// The kernel could not be asked.
    #[error("reading nftables failed: {}", errno.desc())]
    Reading {
        /// Why.
        errno: Errno,
    },
    /// A change was refused half-way, and so was the way back.
    #[error("{why}; and what was there cannot be put back ({then}): send SIGHUP once more")]
    HalfDone {
        /// Why the change was refused.
        why: Box<FirewallError>,
        /// Why the way back was.
        then: Box<FirewallError>,
    },
    /// The configuration has no table.
    #[error("the configuration has no [firewall]")]
    None,
}

impl FirewallError {
    pub(super) fn reading(Refusal { errno, .. }: Refusal) -> Self {
        if errno == Errno::EPERM {
            Self::Permission
        } else {
            Self::Reading { errno }
        }
    }

    /// Whether what it is about has gone this moment.
    pub(super) fn is_race(&self) -> bool {
        match self {
            Self::Reading { errno } | Self::Refused { errno, .. } => *errno == Errno::ENOENT,
            Self::Permission
            | Self::Owned { .. }
            | Self::Foreign { .. }
            | Self::Full { .. }
            | Self::Unsupported { .. }
            | Self::HalfDone { .. }
            | Self::None => false,
        }
    }

    /// Whether some of a change that failed so may have been done before.
    pub(super) fn may_be_half_done(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Full { .. }
            | Self::Unsupported { .. }
            | Self::Reading { .. } => true,
            Self::Permission
            | Self::Owned { .. }
            | Self::Foreign { .. }
            | Self::HalfDone { .. }
            | Self::None => false,
        }
    }

    /// Whether it was done or not is not known.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Refused { errno, .. } if no_answer(*errno))
    }

    /// A change of `table` was refused.
    pub(super) fn refused(table: &str, what: String, errno: Errno) -> Self {
        // We could read, so the capability is there: somebody owns what we would change.
        if errno == Errno::EPERM {
            let table = table.to_owned();
            Self::Owned { table, port: None }
        } else if errno == Errno::ENFILE {
            Self::Full { set: what }
        } else if errno == Errno::EOPNOTSUPP
            || errno == Errno::ENOENT && what.starts_with("add rule")
        {
            Self::Unsupported { what }
        } else {
            Self::Refused { what, errno }
        }
    }
}

/// Whether a whole batch that ends so may have been done all the same: the answer had no room
/// in the receive buffer (netlink(7)), or there was none.
pub(super) fn no_answer(errno: Errno) -> bool {
    errno == Errno::ENOBUFS || errno == Errno::EPROTO
}

/// Behind "another program": which, as far as that is known.
pub(super) fn netlink_port(port: Option<u32>) -> String {
    port.map_or_else(String::new, |p| {
        format!(" (netlink port {p}, mostly its process id)")
    })
}
