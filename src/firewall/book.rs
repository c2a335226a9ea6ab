//! What is open, as we know it: the plan for an effect and the deadlines come from here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

mod shares;

use shares::Shares;

use super::admin::family;
use super::notice::Full;
use super::render;
use super::ruleset::{Family, Ruleset};
use super::transaction::{Change, Element, ElementKey, Transaction};
use crate::model::{Effect, Lifetime, PortRange, Ports, SetPath, Step, Timestamp};

/// Where an element lies, seen from the source: every opening and every element we have
/// put into a set of the administrator's has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// Whose it is.
    pub(super) source: IpAddr,
    /// What it gives.
    pub(super) place: Place,
}

/// What an element gives its source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// These ports of this host.
    Ports(PortRange),
    /// A place in a set of the administrator's, for a port if the set is keyed by one.
    Set(Arc<SetPath>, Option<Step>),
}

impl Place {
    /// Whether it is in that set of the administrator's.
    pub(super) fn is_in(&self, path: &SetPath) -> bool {
        matches!(self, Self::Set(set, _) if **set == *path)
    }
}

/// What is known of an element that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// When it runs out; `None`: when it is closed.
    pub(super) deadline: Option<Timestamp>,
    /// The door that made it.
    pub(super) door: Arc<str>,
}

/// Whether and how a set of the administrator's takes a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Keyed by an address of this family.
    Address(Family),
    /// Keyed by such an address, protocol and port.
    AddressPort(Family),
    /// It is not there yet: its elements are kept until it is.
    Awaited,
    /// It cannot take what is asked of it.
    Unfit,
}

/// What a completed knock has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// What became of each opening that it asked for.
    pub asked: Vec<(Place, Fate)>,
    /// What is there now that was not, or for longer than it was.
    pub opened: Vec<Opened>,
    /// What is gone.
    pub closed: Vec<Closed>,
    /// What could not be done, and why.
    pub notices: Vec<super::Notice>,
}

/// What became of an opening that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The kernel has it.
    Taken,
    /// The kernel has had it, for longer than was asked for.
    Standing,
    /// The kernel does not have it; why.
    Missing(String),
}

impl Applied {
    /// Why nothing is open of all that was to be opened; `None` if something is, or nothing was
    /// asked for.
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

    /// The kernel lacks those of its openings that are meant.
    pub(super) fn lacks(&mut self, is_meant: impl Fn(&Place, &Fate) -> bool, why: &str) {
        for (place, fate) in &mut self.asked {
            if is_meant(place, fate) {
                *fate = Fate::Missing(why.to_owned());
            }
        }
    }
}

/// An element that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The door that made it.
    pub door: Arc<str>,
    /// For whom.
    pub source: IpAddr,
    /// What.
    pub place: Place,
    /// How long it lives from now; `None`: until it is closed.
    pub left: Option<Duration>,
    /// Whether it was there already.
    pub extended: bool,
}

/// An element that went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The door that had made it.
    pub door: Arc<str>,
    /// Whose it was.
    pub source: IpAddr,
    /// What it gave.
    pub place: Place,
}

/// What is to be sent for some effects, and what is to be noted once it has been taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) transaction: Transaction,
    pub(super) writes: BTreeMap<Slot, Option<Entry>>,
    pub(super) applied: Applied,
    /// A source that had nothing of its door gets something.
    pub(super) admitted: bool,
}

/// Who asks for something to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A knock: whoever knows a sequence, as often as he likes.
    Knock,
    /// Root: there is room kept for that, and no share.
    Hand,
}

/// What is open.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    entries: BTreeMap<Slot, Entry>,
    deadlines: BTreeSet<(Timestamp, Slot)>,
    shares: Shares,
}

impl Book {
    pub(super) fn set(&mut self, slot: Slot, entry: Option<Entry>) {
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

    /// Whether a source has anything of a door's.
    fn has(&self, door: &str, source: IpAddr) -> bool {
        let of_source = self.entries.range(first_slot(source)..);
        of_source
            .take_while(|(slot, _)| slot.source == source)
            .any(|(_, entry)| *entry.door == *door)
    }

    /// What is to be said of a door that was just opened, if it is open to very many.
    pub(super) fn crowded(&mut self, ruleset: &Ruleset, door: &Arc<str>) -> Option<super::Notice> {
        self.shares.crowded(door, ruleset.share(door))
    }

    /// Forgets openings, and keeps what is in sets of the administrator's.
    pub(super) fn keep_sets_only(&mut self) {
        let ours = |slot: &Slot| matches!(slot.place, Place::Ports(_));
        let before = std::mem::take(self);
        for (slot, entry) in before.entries {
            if !ours(&slot) {
                self.set(slot, Some(entry));
            }
        }
    }

    pub(super) fn get(&self, slot: &Slot) -> Option<&Entry> {
        self.entries.get(slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What should have run out by `now`, the first of it first; so many at most.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<Slot> {
        self.deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(most)
            .map(|(_, slot)| slot.clone())
            .collect()
    }

    pub(super) fn note(&mut self, writes: BTreeMap<Slot, Option<Entry>>) {
        for (slot, entry) in writes {
            self.set(slot, entry);
        }
    }

    /// What of `source` is there.
    fn of(&self, source: IpAddr) -> impl Iterator<Item = &Slot> {
        // Of all places, the lowest: the first port of the first protocol.
        self.entries
            .range(first_slot(source)..)
            .map(|(slot, _)| slot)
            .take_while(move |slot| slot.source == source)
    }

    /// What these effects, which are those of one knock, mean for the sets.
    pub(super) fn plan(
        &self,
        ruleset: &Ruleset,
        shape: &dyn Fn(&SetPath) -> Shape,
        effects: &[Effect],
        by: By,
        now: Timestamp,
    ) -> Plan {
        let open = |plan: &mut Plan, at: (IpAddr, Place), door: &Arc<str>, lifetime| {
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
                        let place = Place::Ports(*ports);
                        open(&mut plan, (*source, place), door, *lifetime);
                    }
                }
                Effect::Close { source, ports, .. } => {
                    let meant = |slot: &&Slot| match (&slot.place, ports) {
                        (Place::Set(..), _) => false,
                        (Place::Ports(_), Ports::All) => true,
                        (Place::Ports(have), Ports::Listed(list)) => {
                            list.iter().any(|p| p.overlaps(have))
                        }
                    };
                    let slots: Vec<Slot> = self.of(*source).filter(meant).cloned().collect();
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
                        let place = Place::Set(Arc::new(path.clone()), None);
                        plan.applied.asked.push((place, Fate::Missing(why)));
                    };
                    if family(shape).is_some_and(|f| f != Family::of(*source)) {
                        let (path, source) = (path.clone(), *source);
                        let notice = super::Notice::OtherFamily { path, source };
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
                            let notice = super::Notice::Awaited { path: path.clone() };
                            let meant = |place: &Place, _: &Fate| place.is_in(path);
                            plan.applied.lacks(meant, &notice.to_string());
                        }
                        Shape::Unfit => {
                            // Why, a notice says.
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
                        self.remove(&mut plan, ruleset, Slot { source, place });
                    }
                    if shape == Shape::Awaited {
                        plan.transaction.changes.truncate(sent);
                    }
                }
            }
        }
        // A door may add to two sets, one for each family; then one of them takes it.
        if let (Some(notice), false) = (unfit, taken) {
            plan.applied.notices.push(notice);
        }
        plan
    }

    /// Like [`Self::close`], but what somebody else has put there goes, too.
    fn remove(&self, plan: &mut Plan, ruleset: &Ruleset, slot: Slot) {
        if self.current(plan, &slot).is_some() {
            return self.close(plan, ruleset, slot);
        }
        let element = element(ruleset, &slot, Lifetime::UntilClosed, &"".into());
        plan.transaction.changes.extend(element.map(Change::Delete));
    }

    fn current<'a>(&'a self, plan: &'a Plan, slot: &Slot) -> Option<&'a Entry> {
        match plan.writes.get(slot) {
            Some(entry) => entry.as_ref(),
            None => self.get(slot),
        }
    }

    fn open(
        &self,
        plan: &mut Plan,
        ruleset: &Ruleset,
        (source, place): (IpAddr, Place),
        door: &Arc<str>,
        (by, lifetime): (By, Lifetime),
        now: Timestamp,
    ) {
        let slot = Slot { source, place };
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
        let Some(element) = element(ruleset, &slot, lifetime, door) else {
            let why = "the table has no place for it".to_owned();
            return ask(plan, Fate::Missing(why));
        };
        // What is there takes no more room if it stays longer.
        if old.is_none()
            && by == By::Knock
            && let Err(full) = self.admits(plan, ruleset, &slot, door)
        {
            return ask(plan, Fate::Missing(full.to_string()));
        }
        ask(plan, Fate::Taken);
        match old {
            None => plan.transaction.changes.push(Change::Add(element)),
            Some(_) => plan.transaction.refresh(element),
        }
        plan.applied.opened.push(Opened {
            door: door.clone(),
            source,
            place: slot.place.clone(),
            left: wanted.map(|at| at.since(now)),
            extended: old.is_some(),
        });
        let entry = Entry {
            deadline: wanted,
            door: door.clone(),
        };
        plan.writes.insert(slot, Some(entry));
    }

    /// Whether there is room for what a knock opens; if not, what is full is noted once.
    fn admits(
        &self,
        plan: &mut Plan,
        ruleset: &Ruleset,
        slot: &Slot,
        door: &Arc<str>,
    ) -> Result<(), Full> {
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
        let notice = super::Notice::NotOpened {
            door: door.clone(),
            source: slot.source,
            full,
        };
        if !plan.applied.notices.contains(&notice) {
            plan.applied.notices.push(notice);
        }
        Err(full)
    }

    fn close(&self, plan: &mut Plan, ruleset: &Ruleset, slot: Slot) {
        let Some(entry) = self.current(plan, &slot).cloned() else {
            return;
        };
        let lifetime = Lifetime::UntilClosed;
        if let Some(element) = element(ruleset, &slot, lifetime, &entry.door) {
            plan.transaction.changes.push(Change::Delete(element));
        }
        plan.applied.closed.push(Closed {
            door: entry.door,
            source: slot.source,
            place: slot.place.clone(),
        });
        plan.writes.insert(slot, None);
    }
}

fn first_slot(source: IpAddr) -> Slot {
    let port = std::num::NonZeroU16::MIN;
    let lowest = PortRange {
        protocol: crate::model::Protocol::Tcp,
        first: port,
        last: port,
    };
    Slot {
        source,
        place: Place::Ports(lowest),
    }
}

/// The element that a slot stands for; `None` if the table has no set for it.
pub(super) fn element(
    ruleset: &Ruleset,
    slot: &Slot,
    lifetime: Lifetime,
    door: &Arc<str>,
) -> Option<Element> {
    let Slot { source, place } = slot;
    let with_step = |step: Option<Step>| match step {
        Some(step) => ElementKey::AddressPort(*source, step),
        None => ElementKey::Address(*source),
    };
    let (set, key) = match place {
        Place::Ports(ports) => {
            let step = ports.is_single().then_some(Step {
                protocol: ports.protocol,
                port: ports.first,
            });
            let set = ruleset.openings(ports, Family::of(*source))?.clone();
            (set, with_step(step))
        }
        Place::Set(path, step) => (path.clone(), with_step(*step)),
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

/// The places a source has in a set of the administrator's.
fn places(shape: Shape, source: IpAddr, path: &SetPath, ports: &[PortRange]) -> Vec<Place> {
    let path = Arc::new(path.clone());
    let keyed = match shape {
        Shape::Address(family) if family == Family::of(source) => false,
        Shape::AddressPort(family) if family == Family::of(source) => true,
        Shape::Address(_) | Shape::AddressPort(_) | Shape::Unfit => return Vec::new(),
        Shape::Awaited => !ports.is_empty(),
    };
    if !keyed {
        return vec![Place::Set(path, None)];
    }
    ports
        .iter()
        .flat_map(|r| (r.first.get()..=r.last.get()).map(|p| Step::new(r.protocol, p)))
        .map(|step| Place::Set(path.clone(), step))
        .collect()
}

#[cfg(test)]
mod tests;
