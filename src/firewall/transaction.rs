//! A change to sets, as data: rendered as text in a replay, sent over netlink live.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::netlink::batch::Batch;
use super::netlink::elements;
use crate::model::{SetPath, Step};

/// The shortest timeout that is sent. The kernel rounds down to its own tick (10 ms at
/// `HZ=100`) and takes 0 for *for ever*.
const SHORTEST: Duration = Duration::from_millis(10);

/// Changes that happen together or not at all, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An element comes. Where it is already, nothing happens.
    Add(Element),
    /// An element goes. It is a fault if it is not there.
    Delete(Element),
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The set it is in.
    pub set: Arc<SetPath>,
    /// What it stands for.
    pub key: ElementKey,
    /// How long it lives; `None`: until it is deleted.
    pub timeout: Option<Duration>,
    /// Its comment: the door's name.
    pub comment: Arc<str>,
}

/// What an element stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementKey {
    /// An address.
    Address(IpAddr),
    /// An address, a protocol and a port.
    AddressPort(IpAddr, Step),
}

impl Transaction {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Writes each change as one message.
    pub(super) fn write(&self, batch: &mut Batch) {
        for change in &self.changes {
            elements::change(batch, change);
        }
    }

    /// Puts an element in that may be there already, with its new time. A plain add would
    /// leave an old timeout as it is (before Linux 6.12); add, delete, add works whether it
    /// is there or not, and no packet sees it gone.
    pub(super) fn refresh(&mut self, element: Element) {
        self.changes.push(Change::Add(element.clone()));
        self.changes.push(Change::Delete(element.clone()));
        self.changes.push(Change::Add(element));
    }
}

/// Writes transactions as netlink batches, one after another into the same memory.
pub struct Encoder(Batch);

impl Default for Encoder {
    fn default() -> Self {
        Self(Batch::new())
    }
}

impl Encoder {
    /// What the kernel is sent.
    pub fn encode(&mut self, transaction: &Transaction) -> &[u8] {
        self.0.clear();
        transaction.write(&mut self.0);
        self.0.finish()
    }
}

impl Element {
    /// The timeout in milliseconds, as the kernel is told.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.timeout
            .map(|t| u64::try_from(t.max(SHORTEST).as_millis()).unwrap_or(u64::MAX / 1_000_000))
    }
}
