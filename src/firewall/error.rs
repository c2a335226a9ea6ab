//! The errors of the firewall, in words that say what to do.

use nix::errno::Errno;

use super::ruleset::CAPACITY;

/// The kind of a message to the kernel. The number of an error alone does not say what is wrong. If
/// a rule that looks into a set of the same transaction is refused with `ENOENT`, the kernel lacks
/// a part of the rule. If the set was there before, it may have been deleted this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// The message adds a table, or takes it over.
    Table,
    /// The message adds a rule; all that the rule refers to is added in the same transaction.
    Rule,
    /// Any other message, among them a rule that refers to things that were there before.
    Other,
}

/// The reason why the table is not as it should be.
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
        table: String,
        /// The owner's netlink port, if it is known.
        port: Option<u32>,
    },
    /// There is a table of that name that somebody else has made.
    #[error(
        "there is a table inet {table} that knockd did not make: set another name in \
         [firewall] table, or delete it (nft delete table inet {table})"
    )]
    Foreign {
        /// The name of the table.
        table: String,
    },
    /// A set holds as many elements as it may.
    #[error(
        "set {set} is full: none is taken until one runs out (knockd's own hold {CAPACITY} \
         openings)"
    )]
    Full {
        /// The set, in nft's words.
        set: String,
    },
    /// The kernel lacks a feature.
    #[error(
        "the kernel has no support for this: {what} (nf_tables with fib, ct and reject; Linux \
         5.10 or later)"
    )]
    Unsupported {
        /// The change that was asked of the kernel, in nft's words.
        what: String,
    },
    /// The kernel does not give the table an owner, or does not take the owner away.
    #[error(
        "the kernel does not change whose table inet {table} is: somebody else makes it anew all \
         the time"
    )]
    Ownership {
        /// The name of the table.
        table: String,
    },
    /// The kernel refused a change.
    #[error("the kernel refused {what}: {}", errno.desc())]
    Refused {
        /// The change that was asked of the kernel, in nft's words.
        what: String,
        #[source]
        errno: Errno,
    },
    /// Nftables could not be read.
    #[error("reading nftables failed: {}", errno.desc())]
    Reading {
        #[source]
        errno: Errno,
    },
    /// A change was refused half-way, and so was the way back.
    #[error("{why}; and what was there cannot be put back ({then}): send SIGHUP once more")]
    HalfDone {
        /// Why the change was refused.
        #[source]
        why: Box<FirewallError>,
        /// Why the way back was refused.
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

    /// Returns true if the error may mean that its object was deleted this moment.
    pub(super) fn is_race(&self) -> bool {
        match self {
            Self::Reading { errno } | Self::Refused { errno, .. } => *errno == Errno::ENOENT,
            // The table that was read could be taken over, so another one is in its place now.
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

    /// Returns true if an earlier step of the change that failed so may have been done.
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

    /// Returns true if it is unknown whether the change was done.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Refused { errno, .. } if no_answer(*errno))
    }

    /// Returns the error for a refused change of `table`. `what` is the change, in nft's words.
    pub(super) fn refused(table: &str, kind: MessageKind, what: String, errno: Errno) -> Self {
        let table = table.to_owned();
        match (kind, errno) {
            // Reading worked, so the capability is there: somebody owns the object that we would
            // change.
            (_, Errno::EPERM) => Self::Owned { table, port: None },
            (_, Errno::ENFILE) => Self::Full { set: what },
            (MessageKind::Table, Errno::EOPNOTSUPP) => Self::Ownership { table },
            (MessageKind::Rule, Errno::ENOENT) | (_, Errno::EOPNOTSUPP) => {
                Self::Unsupported { what }
            }
            (MessageKind::Table | MessageKind::Rule | MessageKind::Other, errno) => {
                Self::Refused { what, errno }
            }
        }
    }
}

/// How often a change is attempted while others change nftables between our look and our
/// transaction, or while the kernel has no room for its answer. Each attempt finds the changes that
/// were made before it.
const ATTEMPTS: usize = 10;

/// Repeats an attempt that ends in a race or without an answer, [`ATTEMPTS`] times at most.
pub(super) fn steadily<T>(
    mut attempt: impl FnMut() -> Result<T, FirewallError>,
) -> Result<T, FirewallError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_race() || error.is_unanswered() => {}
            other => return other,
        }
    }
    attempt()
}

/// Returns true if a batch that ends with this error may have been done nevertheless: the answer
/// had no room in the receive buffer (netlink(7)), or there was no answer.
pub(super) fn no_answer(errno: Errno) -> bool {
    errno == Errno::ENOBUFS || errno == Errno::EPROTO
}

/// Returns the words behind "another program" that name it by its netlink port, if the port is
/// known.
pub(super) fn netlink_port(port: Option<u32>) -> String {
    port.map_or_else(String::new, |p| {
        format!(" (netlink port {p}, mostly its process id)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind of the message decides, never the text of its label.
    #[test]
    fn a_vanished_object_is_not_taken_for_a_lack_of_support() {
        let of = |kind, errno| {
            let what = "add rule inet knockd judge accept".to_owned();
            FirewallError::refused("knockd", kind, what, errno)
        };
        let unsupported =
            |error: &FirewallError| matches!(error, FirewallError::Unsupported { .. });
        let gone = of(MessageKind::Other, Errno::ENOENT);
        assert!(gone.is_race() && !unsupported(&gone), "{gone}");
        let kind = of(MessageKind::Rule, Errno::ENOENT);
        assert!(unsupported(&kind) && !kind.is_race(), "{kind}");
        assert!(unsupported(&of(MessageKind::Other, Errno::EOPNOTSUPP)));
        let flags = of(MessageKind::Table, Errno::EOPNOTSUPP);
        assert!(flags.is_race() && !unsupported(&flags), "{flags}");
        let full = of(MessageKind::Other, Errno::ENFILE);
        assert!(matches!(full, FirewallError::Full { .. }), "{full}");
    }
}
