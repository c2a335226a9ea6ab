//! Counts the openings of each door, network and set. One person who knows a door, or one network,
//! must not take the room from everybody else, or from orders by hand.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{OpeningPlace, OpeningSlot};
use crate::firewall::notice::{NoRoom, Notice};
use crate::firewall::ruleset::{CAPACITY, IpFamily};
use crate::model::{BY_HAND, OPENINGS, PortRange};

/// The number of addresses of one network to which a door may be open, or a sixteenth of the door's
/// share if that is more. A dormitory or an office with a /24 can use up so many.
const OF_A_NETWORK: u32 = 256;

const _: () = assert!(OPENINGS + BY_HAND == CAPACITY);

/// A door whose share is smaller than this gives no warning: such a share may be meant to be used
/// up.
const FEW: u32 = 10;

/// The counts of openings for each door, network and set, all of which have a limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    doors: HashMap<Arc<str>, Share>,
    /// The number of elements in each of our sets of openings. The key is the range, or `None` for
    /// single ports, and the family.
    sets: HashMap<(Option<PortRange>, IpFamily), u32>,
}

/// The number of sources to which one door is open, in all and by network.
#[derive(Debug, Clone, Default)]
struct Share {
    sources: u32,
    networks: HashMap<IpAddr, u32>,
    /// True if a notice has reported that the share is nearly full.
    warned: bool,
}

impl Shares {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
            && self
                .doors
                .values()
                .all(|d| d.sources == 0 && d.networks.is_empty())
    }

    /// Counts in an element that was added to a set of ours.
    pub(super) fn fill(&mut self, slot: &OpeningSlot) {
        if let Some(set) = set(slot) {
            *self.sets.entry(set).or_default() += 1;
        }
    }

    /// Counts out an element that is gone from a set of ours.
    pub(super) fn drain(&mut self, slot: &OpeningSlot) {
        if let Some(set) = set(slot) {
            less(self.sets.entry(set));
        }
    }

    /// Counts in a source that had no opening of this door, and has one now.
    pub(super) fn enter(&mut self, door: &Arc<str>, source: IpAddr) {
        let share = self.doors.entry(door.clone()).or_default();
        share.sources += 1;
        *share.networks.entry(network(source)).or_default() += 1;
    }

    /// Counts out a source that has no opening of this door any more.
    pub(super) fn leave(&mut self, door: &Arc<str>, source: IpAddr) {
        if let Some(share) = self.doors.get_mut(door) {
            share.sources = share.sources.saturating_sub(1);
            less(share.networks.entry(network(source)));
        }
    }

    /// Returns the reason if a knock may put nothing more into the set of this slot.
    pub(super) fn is_full(&self, slot: &OpeningSlot) -> Option<NoRoom> {
        let held = self.sets.get(&set(slot)?).copied().unwrap_or_default();
        (held >= OPENINGS).then_some(NoRoom::Knocks)
    }

    /// Returns the reason if a knock of one more source opens nothing. `most` is the door's share.
    pub(super) fn refuses(&self, door: &Arc<str>, most: u32, source: IpAddr) -> Option<NoRoom> {
        let share = self.doors.get(door)?;
        if share.sources >= most {
            return Some(NoRoom::Door { most });
        }
        let most = OF_A_NETWORK.max(most / 16);
        let network = network(source);
        let held = share.networks.get(&network).copied().unwrap_or_default();
        (held >= most).then_some(NoRoom::Network { most, network })
    }

    /// Returns a notice when a door has four fifths of its share. The notice comes once, and again
    /// after the door had less than half of its share in between.
    pub(super) fn crowded(&mut self, door: &Arc<str>, most: u32) -> Option<Notice> {
        let share = self.doors.get_mut(door)?;
        let sources = share.sources;
        if sources < most / 2 {
            share.warned = false;
        }
        let many = u64::from(sources) * 5 >= u64::from(most) * 4;
        if !many || share.warned || most < FEW {
            return None;
        }
        share.warned = true;
        let door = door.clone();
        Some(Notice::Crowded {
            door,
            sources,
            most,
        })
    }
}

/// Returns which of our sets a slot lies in, or `None` if the slot is in a set of the
/// administrator's.
fn set(slot: &OpeningSlot) -> Option<(Option<PortRange>, IpFamily)> {
    let OpeningPlace::Ports(ports) = slot.place else {
        return None;
    };
    let range = (!ports.is_single()).then_some(ports);
    Some((range, IpFamily::of(slot.source)))
}

/// Returns the first address of the source's network, a /24 or a /64. Whoever has one IPv4 address
/// may have its neighbours, too, or forge them. Whoever has one IPv6 address mostly has 2^64.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Takes one from a count. A count of none is removed, so that it takes no room.
fn less<K>(entry: MapEntry<'_, K, u32>) {
    if let MapEntry::Occupied(mut entry) = entry {
        match entry.get() {
            0 | 1 => drop(entry.remove()),
            _ => *entry.get_mut() -= 1,
        }
    }
}
