//! The nftables table: its data ([`Ruleset`], which is pure), its text ([`render`]), and its life
//! in the kernel ([`GuardTable`]).

mod admin_sets;
mod error;
mod held;
mod inspection;
mod kernel;
mod netlink;
mod notice;
mod offline;
mod opening;
mod openings;
mod policy;
mod preview;
pub mod render;
pub mod ruleset;
mod table;
mod transaction;
mod watch;

pub use error::FirewallError;
pub(crate) use inspection::{Inspection, Presence, inspect};
pub use netlink::elements::Encoder;
#[cfg(any(test, fuzzing))]
pub(crate) use netlink::fuzz;
pub use netlink::present::Origin;
pub use notice::{Culprit, Damage, NoRoom, Notice};
pub use offline::{clear, guard, list};
pub use opening::{Closed, Opened, Opening, OpeningPlace};
pub use openings::{Applied, Fate};
pub use preview::Preview;
pub use ruleset::Ruleset;
pub use table::{Expired, GuardTable, Mode, Started};
pub use transaction::{Element, ElementKey, SetChange, Transaction};
