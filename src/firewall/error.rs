//! What can go wrong, in words that say what to do.

use nix::errno::Errno;

use super::ruleset::CAPACITY;

/// What a message to the kernel is for. By its number alone an error does not say what is
/// amiss: a rule that looks into a set of the same transaction and is refused with `ENOENT` is
/// of a kind that the kernel does not have; one that looks into a set that was there may have
/// lost it this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// A table comes, or is taken over.
    Table,
    /// A rule comes; all that it refers to does so in the same transaction.
    Rule,
    /// Whatever refers to what was there before.
    Other,
}

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
    /// The kernel does not make the table one that is owned, or no longer is.
    #[error(
        "the kernel does not change whose table inet {table} is: somebody else makes it anew all \
         the time"
    )]
    Ownership {
        /// The table.
        table: String,
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
    pub(super) fn reading(errno: Errno) -> Self {
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
            // It was looked at before, and had been such that it could be taken over.
            Self::Ownership { .. } => true,
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
            | Self::Ownership { .. }
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

    /// A change of `table` was refused: `what` says which, in nft's words.
    pub(super) fn refused(table: &str, deed: Deed, what: String, errno: Errno) -> Self {
        let table = table.to_owned();
        match (deed, errno) {
            // We could read, so the capability is there: somebody owns what we would change.
            (_, Errno::EPERM) => Self::Owned { table, port: None },
            (_, Errno::ENFILE) => Self::Full { set: what },
            (Deed::Table, Errno::EOPNOTSUPP) => Self::Ownership { table },
            (Deed::Rule, Errno::ENOENT) | (_, Errno::EOPNOTSUPP) => Self::Unsupported { what },
            (Deed::Table | Deed::Rule | Deed::Other, errno) => Self::Refused { what, errno },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the text says decides nothing.
    #[test]
    fn what_vanishes_is_no_want_of_support() {
        let of = |deed, errno| {
            let what = "add rule inet knockd judge accept".to_owned();
            FirewallError::refused("knockd", deed, what, errno)
        };
        let unsupported =
            |error: &FirewallError| matches!(error, FirewallError::Unsupported { .. });
        let gone = of(Deed::Other, Errno::ENOENT);
        assert!(gone.is_race() && !unsupported(&gone), "{gone}");
        let kind = of(Deed::Rule, Errno::ENOENT);
        assert!(unsupported(&kind) && !kind.is_race(), "{kind}");
        assert!(unsupported(&of(Deed::Other, Errno::EOPNOTSUPP)));
        let flags = of(Deed::Table, Errno::EOPNOTSUPP);
        assert!(flags.is_race() && !unsupported(&flags), "{flags}");
        let full = of(Deed::Other, Errno::ENFILE);
        assert!(matches!(full, FirewallError::Full { .. }), "{full}");
    }
}
