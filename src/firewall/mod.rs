//! The nftables table: what it must be ([`Ruleset`], pure data), its text ([`render`]), and
//! its life in the kernel ([`Table`]).

mod admin;
mod book;
mod error;
mod inspection;
mod netlink;
mod notice;
mod policy;
mod preview;
pub mod render;
pub mod ruleset;
mod standing;
mod table;
mod transaction;
mod watch;

pub use book::{Applied, Closed, Fate, Opened, Place};
pub use error::FirewallError;
pub(crate) use inspection::{Inspection, Presence, inspect};
pub use netlink::survey::Origin;
pub use notice::{Culprit, Damage, Full, Notice};
pub use preview::Preview;
pub use ruleset::Ruleset;
pub use standing::{Opening, clear, guard, list};
pub use table::{Expired, Mode, Started, Table};
pub use transaction::{Change, Element, ElementKey, Encoder, Transaction};
