//! Who has how much of the room: one person who knows a door, or one network, must not take it
//! from everybody else, nor from who opens by hand.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{OpeningPlace, OpeningSlot};
use crate::firewall::notice::{NoRoom, Notice};
use crate::firewall::ruleset::{CAPACITY, IpFamily};
use crate::model::{BY_HAND, OPENINGS, PortRange};

/// So many addresses of one network may a door be open to, and a sixteenth of all if that is more:
/// what the /24 of a dormitory or an office can use up.
const OF_A_NETWORK: u32 = 256;

const _: () = assert!(OPENINGS + BY_HAND == CAPACITY);

/// Doors that are open to so few do not warn: one more may be all that is meant.
const FEW: u32 = 10;

/// How much there is of what has an end.
#[derive(Debug, Clone, Default)]
pub(super) struct Shares {
    doors: HashMap<Arc<str>, Share>,
    /// Elements in each of our sets: that of the single ports, or of a range.
    sets: HashMap<(Option<PortRange>, IpFamily), u32>,
}

/// What one door has.
#[derive(Debug, Clone, Default)]
struct Share {
    sources: u32,
    networks: HashMap<IpAddr, u32>,
    /// It was said that it is nearly full.
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

    /// An element of ours comes.
    pub(super) fn fill(&mut self, slot: &OpeningSlot) {
        if let Some(set) = set(slot) {
            *self.sets.entry(set).or_default() += 1;
        }
    }

    /// An element of ours goes.
    pub(super) fn drain(&mut self, slot: &OpeningSlot) {
        if let Some(set) = set(slot) {
            less(self.sets.entry(set));
        }
    }

    /// A source has something of this door, and had nothing.
    pub(super) fn enter(&mut self, door: &Arc<str>, source: IpAddr) {
        let share = self.doors.entry(door.clone()).or_default();
        share.sources += 1;
        *share.networks.entry(network(source)).or_default() += 1;
    }

    /// A source has nothing of this door any more.
    pub(super) fn leave(&mut self, door: &Arc<str>, source: IpAddr) {
        if let Some(share) = self.doors.get_mut(door) {
            share.sources = share.sources.saturating_sub(1);
            less(share.networks.entry(network(source)));
        }
    }

    /// Why a knock puts nothing more in there, if so.
    pub(super) fn is_full(&self, slot: &OpeningSlot) -> Option<NoRoom> {
        let held = self.sets.get(&set(slot)?).copied().unwrap_or_default();
        (held >= OPENINGS).then_some(NoRoom::Knocks)
    }

    /// Why a knock of one source more opens nothing, if so. A door is open to at most `most`.
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

    /// Said once when a door has four fifths of its share, and again when it had less than half in
    /// between.
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

/// Which of our sets a slot lies in, if in one.
fn set(slot: &OpeningSlot) -> Option<(Option<PortRange>, IpFamily)> {
    let OpeningPlace::Ports(ports) = slot.place else {
        return None;
    };
    let range = (!ports.is_single()).then_some(ports);
    Some((range, IpFamily::of(slot.source)))
}

/// Whoever has one address of IPv4 may forge its neighbours or have them; whoever has one of IPv6
/// mostly has 2^64.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// One less; what is none takes no room.
fn less<K>(entry: MapEntry<'_, K, u32>) {
    if let MapEntry::Occupied(mut entry) = entry {
        match entry.get() {
            0 | 1 => drop(entry.remove()),
            _ => *entry.get_mut() -= 1,
        }
    }
}
