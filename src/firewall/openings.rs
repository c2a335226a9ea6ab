//! The account of all openings, as the daemon knows them. Effects are planned against the account,
//! and deadlines are taken from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

mod shares;

use shares::Shares;

use super::notice::{NoRoom, Notice};
use super::opening::{
    Closed, FoundOpening, Opened, OpeningEntry, OpeningPlace, OpeningSlot, Shape,
};
use super::render;
use super::ruleset::{IpFamily, Ruleset};
use super::transaction::{SetChange, Transaction};
use crate::model::{Effect, Lifetime, PortRange, Ports, SetPath, Step, Timestamp};

/// The result of applying the effects of a knock, or of an order by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Each opening that the effects asked for, and its fate.
    pub asked: Vec<(OpeningPlace, Fate)>,
    /// Openings that are new, or that last longer than before.
    pub opened: Vec<Opened>,
    /// Openings that are gone now.
    pub closed: Vec<Closed>,
    /// Notices for the log. Most say that something was not done, and why.
    pub notices: Vec<Notice>,
}

/// The fate of an opening that an effect asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The kernel has taken the opening.
    Taken,
    /// The opening was there before, for at least the time that was asked for.
    Standing,
    /// The kernel does not have the opening; the text says why.
    Missing(String),
}

impl Applied {
    /// Returns why nothing is open, if the effects asked for openings and every one of them is
    /// missing. Returns `None` if something is open, or if nothing was asked for.
    #[must_use]
    pub fn in_vain(&self) -> Option<String> {
        let mut all = Vec::new();
        for (_, fate) in &self.asked {
            match fate {
                Fate::Taken | Fate::Standing => return None,
                Fate::Missing(why) if all.contains(&why.as_str()) => {}
                Fate::Missing(why) => all.push(why),
            }
        }
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Marks the openings that `is_meant` selects as missing, for the reason `why`.
    pub(super) fn lacks(&mut self, is_meant: impl Fn(&OpeningPlace, &Fate) -> bool, why: &str) {
        for (place, fate) in &mut self.asked {
            if is_meant(place, fate) {
                *fate = Fate::Missing(why.to_owned());
            }
        }
    }
}

/// The transaction to send for some effects, and the changes to note once the kernel has taken it.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) transaction: Transaction,
    pub(super) writes: BTreeMap<OpeningSlot, Option<OpeningEntry>>,
    pub(super) applied: Applied,
    /// True if the plan opens something to a source that had no opening of its door. The door's
    /// share is checked once for such a source.
    pub(super) admitted: bool,
}

/// The kind of request for an opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A knock. Whoever knows a sequence may send it as often as he likes, so shares count.
    Knock,
    /// An order by hand, from root or the daemon's own user. Room is kept for such orders, and no
    /// share counts.
    Hand,
}

/// All openings that the daemon knows, with their deadlines and shares.
#[derive(Debug, Clone, Default)]
pub(super) struct Openings {
    entries: BTreeMap<OpeningSlot, OpeningEntry>,
    deadlines: BTreeSet<(Timestamp, OpeningSlot)>,
    shares: Shares,
}

impl Openings {
    pub(super) fn set(&mut self, slot: OpeningSlot, entry: Option<OpeningEntry>) {
        if let Some(old) = self.entries.remove(&slot) {
            if let Some(at) = old.deadline {
                self.deadlines.remove(&(at, slot.clone()));
            }
            self.shares.drain(&slot);
            if !self.has(&old.door, slot.source) {
                self.shares.leave(&old.door, slot.source);
            }
        }
        if let Some(entry) = entry {
            if let Some(at) = entry.deadline {
                self.deadlines.insert((at, slot.clone()));
            }
            self.shares.fill(&slot);
            if !self.has(&entry.door, slot.source) {
                self.shares.enter(&entry.door, slot.source);
            }
            self.entries.insert(slot, entry);
        }
    }

    /// Returns true if a source has an opening of this door.
    fn has(&self, door: &str, source: IpAddr) -> bool {
        let of_source = self.entries.range(first_slot(source)..);
        of_source
            .take_while(|(slot, _)| slot.source == source)
            .any(|(_, entry)| *entry.door == *door)
    }

    /// Returns the notice that a door which was just opened is open to very many, if it is.
    pub(super) fn crowded(&mut self, ruleset: &Ruleset, door: &Arc<str>) -> Option<Notice> {
        self.shares.crowded(door, ruleset.share(door))
    }

    /// Replaces the openings of our own table by these, and keeps the elements of the
    /// administrator's sets.
    pub(super) fn replace<'a>(
        &mut self,
        found: impl IntoIterator<Item = &'a FoundOpening>,
        now: Timestamp,
    ) {
        let before = std::mem::take(self);
        for (slot, entry) in before.entries {
            if !slot.place.is_ours() {
                self.set(slot, Some(entry));
            }
        }
        for found in found {
            self.set(found.slot.clone(), Some(found.entry(now)));
        }
    }

    /// Returns the openings of our own table, as they would be read from the kernel at `now`.
    pub(super) fn found(&self, now: Timestamp) -> Vec<FoundOpening> {
        self.entries
            .iter()
            .filter(|(slot, _)| slot.place.is_ours())
            .map(|(slot, entry)| FoundOpening {
                slot: slot.clone(),
                left: entry.deadline.map(|at| at.since(now)),
                door: Some(entry.door.clone()),
            })
            // To the kernel, a timeout of zero means for ever.
            .filter(|found| found.left.is_none_or(|left| !left.is_zero()))
            .collect()
    }

    pub(super) fn get(&self, slot: &OpeningSlot) -> Option<&OpeningEntry> {
        self.entries.get(slot)
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OpeningSlot, &OpeningEntry)> {
        self.entries.iter()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Returns the openings that should have run out by `now`, the earliest first; `most` at most.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<OpeningSlot> {
        self.deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(most)
            .map(|(_, slot)| slot.clone())
            .collect()
    }

    pub(super) fn note(&mut self, writes: BTreeMap<OpeningSlot, Option<OpeningEntry>>) {
        for (slot, entry) in writes {
            self.set(slot, entry);
        }
    }

    /// Returns the openings of `source`.
    fn of(&self, source: IpAddr) -> impl Iterator<Item = &OpeningSlot> {
        // `first_slot` has the lowest of all places: the first port of the first protocol.
        self.entries
            .range(first_slot(source)..)
            .map(|(slot, _)| slot)
            .take_while(move |slot| slot.source == source)
    }

    /// Returns what these effects, which are those of one knock, change in the sets.
    pub(super) fn plan(
        &self,
        ruleset: &Ruleset,
        shape: &dyn Fn(&SetPath) -> Shape,
        effects: &[Effect],
        by: By,
        now: Timestamp,
    ) -> Plan {
        let open = |plan: &mut Plan, at: (IpAddr, OpeningPlace), door: &Arc<str>, lifetime| {
            self.open(plan, ruleset, at, door, (by, lifetime), now);
        };
        let mut plan = Plan::default();
        let mut unfit = None;
        let mut taken = false;
        for effect in effects {
            match effect {
                Effect::Open {
                    door,
                    source,
                    ports,
                    lifetime,
                } => {
                    for ports in ports {
                        let place = OpeningPlace::Ports(*ports);
                        open(&mut plan, (*source, place), door, *lifetime);
                    }
                }
                Effect::Close { source, ports, .. } => {
                    let meant = |slot: &&OpeningSlot| match (&slot.place, ports) {
                        (OpeningPlace::Set(..), _) => false,
                        (OpeningPlace::Ports(_), Ports::All) => true,
                        (OpeningPlace::Ports(have), Ports::Listed(list)) => {
                            list.iter().any(|p| p.overlaps(have))
                        }
                    };
                    let slots: Vec<OpeningSlot> = self.of(*source).filter(meant).cloned().collect();
                    for slot in slots {
                        self.close(&mut plan, ruleset, slot);
                    }
                }
                Effect::Add {
                    door,
                    source,
                    path,
                    ports,
                    lifetime,
                } => {
                    let shape = shape(path);
                    let lacks = |plan: &mut Plan, why: String| {
                        let place = OpeningPlace::Set(Arc::new(path.clone()), None);
                        plan.applied.asked.push((place, Fate::Missing(why)));
                    };
                    if shape.family().is_some_and(|f| f != IpFamily::of(*source)) {
                        let (path, source) = (path.clone(), *source);
                        let notice = Notice::OtherFamily { path, source };
                        lacks(&mut plan, notice.to_string());
                        unfit = Some(notice);
                        continue;
                    }
                    taken = true;
                    let sent = plan.transaction.changes.len();
                    for place in places(shape, *source, path, ports) {
                        open(&mut plan, (*source, place), door, *lifetime);
                    }
                    match shape {
                        Shape::Awaited => {
                            plan.transaction.changes.truncate(sent);
                            let notice = Notice::Awaited { path: path.clone() };
                            let meant = |place: &OpeningPlace, _: &Fate| place.is_in(path);
                            plan.applied.lacks(meant, &notice.to_string());
                        }
                        Shape::Unfit => {
                            // The notice of `AdminSets::obstacle` gives the reason.
                            let why = format!("set {} cannot be used", render::path(path));
                            lacks(&mut plan, why);
                        }
                        Shape::Address(_) | Shape::AddressPort(_) => {}
                    }
                }
                Effect::Remove {
                    source,
                    path,
                    ports,
                    ..
                } => {
                    let shape = shape(path);
                    let sent = plan.transaction.changes.len();
                    for place in places(shape, *source, path, ports) {
                        let source = *source;
                        self.remove(&mut plan, ruleset, OpeningSlot { source, place });
                    }
                    if shape == Shape::Awaited {
                        plan.transaction.changes.truncate(sent);
                    }
                }
            }
        }
        // A door may add to two sets, one for each family. A notice is due only if neither takes
        // the source.
        if let (Some(notice), false) = (unfit, taken) {
            plan.applied.notices.push(notice);
        }
        plan
    }

    /// Does the same as [`Self::close`], and removes an element that somebody else has added, too.
    fn remove(&self, plan: &mut Plan, ruleset: &Ruleset, slot: OpeningSlot) {
        if self.current(plan, &slot).is_some() {
            return self.close(plan, ruleset, slot);
        }
        let element = slot.key(ruleset);
        plan.transaction
            .changes
            .extend(element.map(SetChange::Delete));
    }

    fn current<'a>(&'a self, plan: &'a Plan, slot: &OpeningSlot) -> Option<&'a OpeningEntry> {
        match plan.writes.get(slot) {
            Some(entry) => entry.as_ref(),
            None => self.get(slot),
        }
    }

    fn open(
        &self,
        plan: &mut Plan,
        ruleset: &Ruleset,
        (source, place): (IpAddr, OpeningPlace),
        door: &Arc<str>,
        (by, lifetime): (By, Lifetime),
        now: Timestamp,
    ) {
        let slot = OpeningSlot { source, place };
        let wanted = match lifetime {
            Lifetime::For(time) => Some(now + time),
            Lifetime::UntilClosed => None,
        };
        let old = self.current(plan, &slot).map(|e| e.deadline);
        let longer = match (old, wanted) {
            (None, _) => true,
            (Some(None), _) => false,
            (Some(Some(_)), None) => true,
            (Some(Some(old)), Some(new)) => new > old,
        };
        let ask = |plan: &mut Plan, fate| plan.applied.asked.push((slot.place.clone(), fate));
        if !longer {
            return ask(plan, Fate::Standing);
        }
        let Some(element) = slot.element(ruleset, lifetime, door) else {
            let why = "the table has no place for it".to_owned();
            return ask(plan, Fate::Missing(why));
        };
        // An opening that is extended takes no more room.
        if old.is_none()
            && by == By::Knock
            && let Err(full) = self.admits(plan, ruleset, &slot, door)
        {
            return ask(plan, Fate::Missing(full.to_string()));
        }
        ask(plan, Fate::Taken);
        match old {
            None => plan.transaction.changes.push(SetChange::Add(element)),
            Some(_) => plan.transaction.refresh(element),
        }
        plan.applied.opened.push(Opened {
            door: door.clone(),
            source,
            place: slot.place.clone(),
            left: wanted.map(|at| at.since(now)),
            extended: old.is_some(),
        });
        let entry = OpeningEntry {
            deadline: wanted,
            door: door.clone(),
        };
        plan.writes.insert(slot, Some(entry));
    }

    /// Checks that a knock finds room for this opening. If not, adds one notice that names the
    /// limit, and returns that limit as the error.
    fn admits(
        &self,
        plan: &mut Plan,
        ruleset: &Ruleset,
        slot: &OpeningSlot,
        door: &Arc<str>,
    ) -> Result<(), NoRoom> {
        let full = self.shares.is_full(slot).or_else(|| {
            if plan.admitted || self.has(door, slot.source) {
                return None;
            }
            plan.admitted = true;
            self.shares.refuses(door, ruleset.share(door), slot.source)
        });
        let Some(full) = full else {
            return Ok(());
        };
        plan.admitted = false;
        let notice = Notice::NotOpened {
            door: door.clone(),
            source: slot.source,
            full,
        };
        if !plan.applied.notices.contains(&notice) {
            plan.applied.notices.push(notice);
        }
        Err(full)
    }

    fn close(&self, plan: &mut Plan, ruleset: &Ruleset, slot: OpeningSlot) {
        let Some(entry) = self.current(plan, &slot).cloned() else {
            return;
        };
        let element = slot.element(ruleset, Lifetime::UntilClosed, &entry.door);
        plan.transaction
            .changes
            .extend(element.map(SetChange::Delete));
        plan.applied.closed.push(Closed {
            door: entry.door,
            source: slot.source,
            place: slot.place.clone(),
        });
        plan.writes.insert(slot, None);
    }
}

fn first_slot(source: IpAddr) -> OpeningSlot {
    let port = std::num::NonZeroU16::MIN;
    let lowest = PortRange {
        protocol: crate::model::Protocol::Tcp,
        first: port,
        last: port,
    };
    OpeningSlot {
        source,
        place: OpeningPlace::Ports(lowest),
    }
}

/// Returns the places that a source has in a set of the administrator's.
fn places(shape: Shape, source: IpAddr, path: &SetPath, ports: &[PortRange]) -> Vec<OpeningPlace> {
    let path = Arc::new(path.clone());
    let keyed = match shape {
        Shape::Address(family) if family == IpFamily::of(source) => false,
        Shape::AddressPort(family) if family == IpFamily::of(source) => true,
        Shape::Address(_) | Shape::AddressPort(_) | Shape::Unfit => return Vec::new(),
        Shape::Awaited => !ports.is_empty(),
    };
    if !keyed {
        return vec![OpeningPlace::Set(path, None)];
    }
    ports
        .iter()
        .flat_map(|r| (r.first.get()..=r.last.get()).map(|p| Step::new(r.protocol, p)))
        .map(|step| OpeningPlace::Set(path.clone(), step))
        .collect()
}

#[cfg(test)]
mod tests;
