//! A change to sets, as data: rendered as text in a replay, sent over netlink live.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{SetPath, Step};

/// The shortest timeout that is sent. The kernel rounds down to its own tick (10 ms at
/// `HZ=100`) and takes 0 for *for ever*.
const SHORTEST: Duration = Duration::from_millis(10);

/// Changes that happen together or not at all, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    pub changes: Vec<SetChange>,
}

/// One change of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetChange {
    /// Adds an element. Nothing happens if the element is there already.
    Add(Element),
    /// Deletes an element. It is an error if the element is not there.
    Delete(Element),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub set: Arc<SetPath>,
    pub key: ElementKey,
    /// How long the element lives; `None`: until it is deleted.
    pub timeout: Option<Duration>,
    /// The comment of the element: the door's name.
    pub comment: Arc<str>,
}

/// The key of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementKey {
    Address(IpAddr),
    /// An address, a protocol and a port.
    AddressPort(IpAddr, Step),
}

impl SetChange {
    /// Returns the element that the change adds or deletes.
    pub(super) fn element(&self) -> &Element {
        let (Self::Add(element) | Self::Delete(element)) = self;
        element
    }
}

impl Transaction {
    /// Returns true if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the changes of the sets of `table` as changes of the table `other`, a transaction
    /// for each set.
    pub(super) fn of_table(&self, table: &str, other: &str) -> Vec<Self> {
        let same_set = |a: &SetChange, b: &SetChange| a.element().set == b.element().set;
        let sets = self.changes.chunk_by(same_set);
        let ours = sets.filter(|changes| {
            let path = changes.first().map(|c| &*c.element().set);
            path.is_some_and(|path| path.family == "inet" && path.table == *table)
        });
        let moved = |change: &SetChange| {
            let mut change = change.clone();
            let (SetChange::Add(element) | SetChange::Delete(element)) = &mut change;
            Arc::make_mut(&mut element.set).table = other.to_owned();
            change
        };
        let copy = |changes: &[SetChange]| Self {
            changes: changes.iter().map(moved).collect(),
        };
        ours.map(copy).collect()
    }

    /// Adds an element that may be there already, with its new time. A plain add would leave an old
    /// timeout as it is (before Linux 6.12). The sequence add, delete, add works whether the
    /// element is there or not, and no packet sees the element gone.
    pub(super) fn refresh(&mut self, element: Element) {
        self.changes.push(SetChange::Add(element.clone()));
        self.changes.push(SetChange::Delete(element.clone()));
        self.changes.push(SetChange::Add(element));
    }
}

impl Element {
    /// Returns the timeout in milliseconds, as the kernel gets it.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.timeout
            .map(|t| u64::try_from(t.max(SHORTEST).as_millis()).unwrap_or(u64::MAX / 1_000_000))
    }
}
