//! Openings: the source, ports, door and lifetime of each, and the set element that stands for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ruleset::{IpFamily, Ruleset};
use super::transaction::{Element, ElementKey};
use crate::model::{Lifetime, PortRange, SetPath, Step, Timestamp};

/// The identity of an opening: one source and one place. Every opening of ours has one, and so
/// has every element that we have put into a set of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpeningSlot {
    pub(super) source: IpAddr,
    pub(super) place: OpeningPlace,
}

/// The ports or the set element that an opening gives its source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpeningPlace {
    /// Ports of this host.
    Ports(PortRange),
    /// An element in a set of the administrator's, with a port if the set's key has one.
    Set(Arc<SetPath>, Option<Step>),
}

/// The deadline of an opening that exists, and its door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpeningEntry {
    /// When the opening runs out; `None`: it stays until it is closed.
    pub(super) deadline: Option<Timestamp>,
    /// The door that made the opening; empty if somebody else did.
    pub(super) door: Arc<str>,
}

/// An opening that was read from the kernel, in a table of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundOpening {
    pub(super) slot: OpeningSlot,
    /// The time that the opening has left; `None`: it stays until it is closed.
    pub(super) left: Option<Duration>,
    /// The door that made the opening; `None`: somebody else did.
    pub(super) door: Option<Arc<str>>,
}

/// An opening, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The door that made the opening; `None`: somebody put it there by hand.
    pub door: Option<Arc<str>>,
    pub source: IpAddr,
    pub place: OpeningPlace,
    /// The time that the opening has left; `None`: it stays until it is closed.
    pub left: Option<Duration>,
}

/// An opening that was added or extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub door: Arc<str>,
    pub source: IpAddr,
    pub place: OpeningPlace,
    /// How long the opening lives from now; `None`: it stays until it is closed.
    pub left: Option<Duration>,
    /// True if the opening was there before.
    pub extended: bool,
}

/// An opening that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The door that had made the opening; empty if somebody else had.
    pub door: Arc<str>,
    pub source: IpAddr,
    pub place: OpeningPlace,
}

/// How a set of the administrator's takes a source, if it can take one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The set's key is an address of this family.
    Address(IpFamily),
    /// The set's key is an address of this family, a protocol and a port.
    AddressPort(IpFamily),
    /// The set does not exist yet; its elements are kept until it does.
    Awaited,
    /// The set cannot take the elements that doors would add.
    Unfit,
}

impl OpeningPlace {
    /// Returns true if the place is in that set of the administrator's.
    pub(super) fn is_in(&self, path: &SetPath) -> bool {
        matches!(self, Self::Set(set, _) if **set == *path)
    }

    /// Returns true if the place is in our own table.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Ports(_))
    }

    /// Returns true if some port of the place is among these ports and ranges of this host.
    pub(super) fn overlaps(&self, all: &BTreeSet<PortRange>) -> bool {
        matches!(self, Self::Ports(ports) if all.iter().any(|other| other.overlaps(ports)))
    }
}

impl Shape {
    /// Returns the family of the set's addresses, if it is known.
    pub(super) fn family(self) -> Option<IpFamily> {
        match self {
            Self::Address(f) | Self::AddressPort(f) => Some(f),
            Self::Awaited | Self::Unfit => None,
        }
    }
}

impl OpeningSlot {
    /// Returns the element that stands for the slot; `None` if the table has no set for it.
    pub(super) fn element(
        &self,
        ruleset: &Ruleset,
        lifetime: Lifetime,
        door: &Arc<str>,
    ) -> Option<Element> {
        let Self { source, place } = self;
        let with_step = |step: Option<Step>| match step {
            Some(step) => ElementKey::AddressPort(*source, step),
            None => ElementKey::Address(*source),
        };
        let (set, key) = match place {
            OpeningPlace::Ports(ports) => {
                let step = ports.is_single().then_some(Step {
                    protocol: ports.protocol,
                    port: ports.first,
                });
                let set = ruleset.openings(ports, IpFamily::of(*source))?.clone();
                (set, with_step(step))
            }
            OpeningPlace::Set(path, step) => (path.clone(), with_step(*step)),
        };
        Some(Element {
            set,
            key,
            timeout: match lifetime {
                Lifetime::For(time) => Some(time),
                Lifetime::UntilClosed => None,
            },
            comment: door.clone(),
        })
    }

    /// Returns the element by its key alone, as it is looked up or deleted.
    pub(super) fn key(&self, ruleset: &Ruleset) -> Option<Element> {
        self.element(ruleset, Lifetime::UntilClosed, &"".into())
    }
}

impl FoundOpening {
    pub(super) fn entry(&self, now: Timestamp) -> OpeningEntry {
        OpeningEntry {
            deadline: self.left.map(|left| now + left),
            door: self.door.clone().unwrap_or_else(|| "".into()),
        }
    }
}

/// Divides openings into those that a door of the ruleset would make, and the others. An opening
/// that was found in two tables is taken once, with the longer time.
pub(super) fn divide(
    ruleset: &Ruleset,
    found: impl IntoIterator<Item = FoundOpening>,
) -> (Vec<FoundOpening>, Vec<Closed>) {
    let mut keep: BTreeMap<OpeningSlot, FoundOpening> = BTreeMap::new();
    let mut removed: BTreeMap<OpeningSlot, Arc<str>> = BTreeMap::new();
    for f in found {
        let granted = match (&f.door, &f.slot.place) {
            (Some(door), OpeningPlace::Ports(ports)) => ruleset.grants(door, ports),
            (Some(_), OpeningPlace::Set(..)) | (None, _) => false,
        };
        if !granted {
            removed.insert(f.slot, f.door.unwrap_or_else(|| "".into()));
            continue;
        }
        let longer = match keep.get(&f.slot).map(|k| k.left) {
            None => true,
            Some(None) => false,
            Some(Some(old)) => f.left.is_none_or(|new| new > old),
        };
        if longer {
            keep.insert(f.slot.clone(), f);
        }
    }
    removed.retain(|slot, _| !keep.contains_key(slot));
    let closed = |(slot, door): (OpeningSlot, Arc<str>)| Closed {
        door,
        source: slot.source,
        place: slot.place,
    };
    let removed = removed.into_iter().map(closed).collect();
    (keep.into_values().collect(), removed)
}
