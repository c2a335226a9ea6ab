//! The nftables table: what it must be ([`Ruleset`], pure data), its text ([`render`]), and
//! its life in the kernel ([`Table`]).

#[allow(dead_code, reason = "the sets of the administrator come next")]
mod book;
mod error;
#[allow(dead_code, reason = "the watch comes next")]
mod netlink;
mod policy;
mod preview;
pub mod render;
pub mod ruleset;
#[allow(dead_code, reason = "the watch comes next")]
mod table;
mod transaction;
#[allow(dead_code, reason = "the watch comes next")]
mod watch;

pub use book::{Applied, Closed, Entry, Opened, Place, Slot};
pub use error::FirewallError;
pub use netlink::install::Origin;
pub use preview::Preview;
pub use ruleset::Ruleset;
pub use table::{Expired, Mode, Opening, Started, Table, clear, guard, list};
pub use transaction::{Change, Element, ElementKey, Transaction};

/// Something the log should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// After a change the kernel does not have what it was given.
    Differs {
        /// The first difference.
        what: String,
    },
}
