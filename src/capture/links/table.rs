//! The links and addresses that are known. Messages go in, changes and judgements come out. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::change::LinkChange;
use super::message::{AddressDetails, LinkInfo, RouteDump, RouteMessage};
use crate::model::Pattern;

/// How deep ports may lie within ports: the port of a bond that is itself the port of a bridge
/// lies two deep.
const MAX_MASTERS: usize = 8;

/// The links and their addresses, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct LinkTable {
    patterns: Vec<Pattern>,
    links: BTreeMap<u32, LinkEntry>,
    /// How many links have each address.
    own: HashMap<IpAddr, u32>,
    /// How often `own` has changed.
    own_changes: u64,
    /// How many networks of the links have each broadcast address.
    broadcasts: HashMap<IpAddr, u32>,
    /// The links whose frames count.
    counted: HashSet<u32>,
    /// What has happened since `settle` was last called.
    changes: Vec<LinkChange>,
    /// The links whose addresses `settle` has to look at.
    unsettled: BTreeSet<u32>,
    /// Whether `counted` has to be computed anew.
    is_stale: bool,
}

#[derive(Debug)]
struct LinkEntry {
    link: LinkInfo,
    addresses: BTreeMap<IpAddr, AddressDetails>,
}

impl LinkTable {
    pub(super) fn new(patterns: &[Pattern]) -> Self {
        Self {
            patterns: patterns.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn set_patterns(&mut self, patterns: &[Pattern]) {
        self.patterns = patterns.to_vec();
        self.count();
    }

    /// Takes a message. One that says nothing new changes nothing.
    pub(super) fn apply(&mut self, message: RouteMessage) {
        match message {
            RouteMessage::Link(link) => self.set_link(link),
            RouteMessage::LinkGone(index) => self.remove_link(index),
            RouteMessage::Address(index, address, beside) => {
                self.add_address(index, address, beside)
            }
            RouteMessage::AddressGone(index, address) => self.remove_address(index, address),
        }
    }

    /// Takes a list of all there is: what is known and not in the list is gone. If some may be
    /// missing from the list, nothing is taken for gone: it is better to listen to an interface
    /// that is gone than to ignore one that is there.
    pub(super) fn replace(&mut self, RouteDump { messages, is_whole }: RouteDump) {
        let gone = if is_whole {
            self.not_in(&messages)
        } else {
            Vec::new()
        };
        for message in gone.into_iter().chain(messages) {
            self.apply(message);
        }
    }

    /// Returns what must have happened if this is all there is.
    fn not_in(&self, all: &[RouteMessage]) -> Vec<RouteMessage> {
        let mut links = HashSet::new();
        let mut addresses = HashSet::new();
        for message in all {
            match message {
                RouteMessage::Link(link) => {
                    links.insert(link.index);
                }
                RouteMessage::Address(index, address, _) => {
                    addresses.insert((*index, *address));
                }
                RouteMessage::LinkGone(_) | RouteMessage::AddressGone(..) => {}
            }
        }
        let mut gone = Vec::new();
        for (index, entry) in &self.links {
            if links.contains(index) {
                let left = |address: &&IpAddr| !addresses.contains(&(*index, **address));
                let lost = entry.addresses.keys().filter(left);
                gone.extend(lost.map(|address| RouteMessage::AddressGone(*index, *address)));
            } else {
                gone.push(RouteMessage::LinkGone(*index));
            }
        }
        gone
    }

    /// Ends a batch of messages: judges anew, and returns what has happened.
    pub(super) fn settle(&mut self) -> Vec<LinkChange> {
        if self.is_stale {
            self.count();
        }
        for index in std::mem::take(&mut self.unsettled) {
            if let Some(entry) = self.links.get(&index)
                && entry.addresses.is_empty()
                && self.counted.contains(&index)
            {
                let name = entry.link.name.clone();
                self.changes.push(LinkChange::NoAddress { name });
            }
        }
        std::mem::take(&mut self.changes)
    }

    fn set_link(&mut self, link: LinkInfo) {
        self.is_stale = true;
        let is_wanted = self.is_wanted(&link);
        let name = || link.name.clone();
        let Some(entry) = self.links.get_mut(&link.index) else {
            if is_wanted {
                self.changes.push(LinkChange::Appeared { name: name() });
                if self.is_named(&link) {
                    self.unsettled.insert(link.index);
                }
            }
            let addresses = BTreeMap::new();
            self.links.insert(link.index, LinkEntry { link, addresses });
            return;
        };
        let before = std::mem::replace(&mut entry.link, link.clone());
        if !is_wanted && !self.is_wanted(&before) {
            return;
        }
        if before.name != link.name {
            self.changes.push(LinkChange::Renamed {
                from: before.name,
                to: name(),
                listened: is_wanted,
            });
        }
        match (before.up, link.up) {
            (false, true) => self.changes.push(LinkChange::Up { name: name() }),
            (true, false) => self.changes.push(LinkChange::Down { name: name() }),
            (true, true) | (false, false) => {}
        }
    }

    fn remove_link(&mut self, index: u32) {
        let Some(entry) = self.links.remove(&index) else {
            return;
        };
        self.is_stale = true;
        self.unsettled.remove(&index);
        for (address, beside) in entry.addresses {
            self.disown(address, &beside.broadcasts);
        }
        if self.is_wanted(&entry.link) {
            let name = entry.link.name;
            self.changes.push(LinkChange::Gone { name });
        }
    }

    fn add_address(&mut self, index: u32, address: IpAddr, beside: AddressDetails) {
        // An unknown link is gone already, and its address with it.
        let Some(entry) = self.links.get_mut(&index) else {
            return;
        };
        for broadcast in &beside.broadcasts {
            *self.broadcasts.entry(*broadcast).or_default() += 1;
        }
        if let Some(before) = entry.addresses.insert(address, beside) {
            // Nothing new, or the network has another size.
            let gone = before.broadcasts.iter();
            return gone.for_each(|b| less(&mut self.broadcasts, *b));
        }
        *self.own.entry(address).or_default() += 1;
        self.own_changes += 1;
        self.note(index, |name| LinkChange::AddressAdded { name, address });
    }

    fn remove_address(&mut self, index: u32, address: IpAddr) {
        let Some(entry) = self.links.get_mut(&index) else {
            return;
        };
        let Some(beside) = entry.addresses.remove(&address) else {
            return;
        };
        self.disown(address, &beside.broadcasts);
        self.unsettled.insert(index);
        self.note(index, |name| LinkChange::AddressRemoved { name, address });
    }

    fn disown(&mut self, address: IpAddr, broadcasts: &[IpAddr]) {
        less(&mut self.own, address);
        self.own_changes += 1;
        for broadcast in broadcasts {
            less(&mut self.broadcasts, *broadcast);
        }
    }

    fn note(&mut self, index: u32, change: impl FnOnce(String) -> LinkChange) {
        if let Some(entry) = self.links.get(&index)
            && self.is_wanted(&entry.link)
        {
            self.changes.push(change(entry.link.name.clone()));
        }
    }

    fn is_wanted(&self, link: &LinkInfo) -> bool {
        if self.patterns.is_empty() {
            return !link.loopback;
        }
        names(link).any(|name| self.patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Whether a pattern names this link and no other.
    fn is_named(&self, link: &LinkInfo) -> bool {
        let mut literal = self.patterns.iter().filter(|pattern| pattern.is_literal());
        literal.any(|pattern| names(link).any(|name| pattern.matches(name)))
    }

    fn count(&mut self) {
        self.is_stale = false;
        let wanted: HashSet<u32> = self
            .links
            .values()
            .filter(|entry| self.is_wanted(&entry.link))
            .map(|entry| entry.link.index)
            .collect();
        self.counted = wanted
            .iter()
            .copied()
            .filter(|index| !self.masters(*index).any(|master| wanted.contains(&master)))
            .collect();
    }

    /// Returns the master of the link, the master's master, and so on.
    fn masters(&self, index: u32) -> impl Iterator<Item = u32> {
        let master = |index: &u32| self.links.get(index)?.link.master;
        std::iter::successors(Some(index), master)
            .skip(1)
            .take(MAX_MASTERS)
    }

    pub(super) fn counts(&self, index: u32) -> bool {
        self.counted.contains(&index)
    }

    pub(super) fn knows(&self, index: u32) -> bool {
        self.links.contains_key(&index)
    }

    pub(super) fn is_loopback(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|e| e.link.loopback)
    }

    pub(super) fn is_local(&self, address: IpAddr, index: u32) -> bool {
        match address.is_loopback() {
            // RFC 1122, section 3.2.1.3 (g): all of 127.0.0.0/8, and by no other interface.
            true => self.is_loopback(index),
            false => self.own.contains_key(&address),
        }
    }

    pub(super) fn own(&self) -> (u64, impl Iterator<Item = IpAddr>) {
        (self.own_changes, self.own.keys().copied())
    }

    pub(super) fn can_answer(&self, source: IpAddr, index: u32) -> bool {
        let itself = source.is_loopback() || self.own.contains_key(&source);
        (!itself || self.is_loopback(index)) && !self.broadcasts.contains_key(&source)
    }

    /// Whether a knock at this address counts, if it came by this interface. The address must be
    /// this host's own. If only labels of the interface are listened to, the address must have one
    /// of them.
    pub(super) fn is_knocked_at(&self, index: u32, address: IpAddr) -> bool {
        if !self.patterns.iter().any(Pattern::is_label) {
            return self.is_local(address, index);
        }
        let Some(entry) = self.links.get(&index) else {
            return false;
        };
        let label = entry.addresses.get(&address).and_then(|a| a.label.as_ref());
        let is_meant = |pattern: &Pattern| match pattern.is_label() {
            true => label.is_some_and(|label| pattern.matches_label(label)),
            false => names(&entry.link).any(|name| pattern.matches(name)),
        };
        self.is_local(address, index) && self.patterns.iter().any(is_meant)
    }

    pub(super) fn listening(&self) -> Vec<&str> {
        self.sorted(|entry| self.counts(entry.link.index))
    }

    pub(super) fn without_address(&self) -> Vec<&str> {
        self.sorted(|entry| self.counts(entry.link.index) && entry.addresses.is_empty())
    }

    pub(super) fn missing(&self) -> Vec<&str> {
        let is_there = |pattern: &&Pattern| {
            let mut links = self.links.values();
            links.any(|entry| match pattern.is_label() {
                true => entry
                    .addresses
                    .values()
                    .filter_map(|beside| beside.label.as_deref())
                    .any(|label| pattern.matches_label(label)),
                false => names(&entry.link).any(|name| pattern.matches(name)),
            })
        };
        self.patterns
            .iter()
            .filter(|pattern| pattern.is_literal() && !is_there(pattern))
            .map(Pattern::as_str)
            .collect()
    }

    fn sorted(&self, is_meant: impl Fn(&LinkEntry) -> bool) -> Vec<&str> {
        let meant = self.links.values().filter(|entry| is_meant(entry));
        let mut names: Vec<_> = meant.map(|entry| entry.link.name.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// Counts one less that has this address.
fn less(counts: &mut HashMap<IpAddr, u32>, address: IpAddr) {
    if let Some(count) = counts.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&address);
        }
    }
}

/// Returns all the names of a link.
fn names(link: &LinkInfo) -> impl Iterator<Item = &str> {
    std::iter::once(&link.name)
        .chain(&link.alternatives)
        .map(String::as_str)
}
