//! The sets of the administrator's that doors put sources into. They are in any table, made and
//! owned by somebody else. Such a set is read before it is written, and nothing but its elements is
//! changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nix::errno::Errno;

use super::error::{FirewallError, MessageKind, netlink_port};
use super::kernel::Kernel;
use super::netlink::elements;
use super::netlink::inventory::{self, SetInfo};
use super::notice::Notice;
use super::opening::{Closed, OpeningEntry, OpeningPlace, OpeningSlot, Shape};
use super::openings::Openings;
use super::render;
use super::ruleset::{KeyKind, Ruleset, Wish};
use super::transaction::{ElementKey, SetChange, Transaction};
use crate::model::{Lifetime, SetPath, Timestamp};
use crate::netlink::NetlinkSocket;

/// The sets of the administrator's that doors name, and their state.
#[derive(Debug, Clone, Default)]
pub(super) struct AdminSets {
    sets: BTreeMap<Arc<SetPath>, AdminSet>,
}

#[derive(Debug, Clone)]
struct AdminSet {
    shape: Shape,
    /// Why the set is unfit. The log reports the reason when it changes, and at each knock.
    why: Option<String>,
}

impl AdminSets {
    /// Returns all sets that some door names; none of them has been inspected yet.
    pub(super) fn new(ruleset: &Ruleset) -> Self {
        let state = AdminSet {
            shape: Shape::Awaited,
            why: None,
        };
        let paths = ruleset
            .wishes
            .iter()
            .map(|w| Arc::new(w.element.path.clone()));
        Self {
            sets: paths.map(|path| (path, state.clone())).collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub(super) fn knows(&self, path: &SetPath) -> bool {
        self.sets.contains_key(path)
    }

    pub(super) fn shape(&self, path: &SetPath) -> Shape {
        self.sets.get(path).map_or(Shape::Unfit, |s| s.shape)
    }

    /// Returns the notice that says why nothing can be put into a set for now, if nothing can.
    pub(super) fn obstacle(&self, path: &SetPath) -> Option<Notice> {
        let state = self.sets.get(path)?;
        let path = path.clone();
        match state.shape {
            Shape::Address(_) | Shape::AddressPort(_) => None,
            Shape::Awaited => Some(Notice::Awaited { path }),
            Shape::Unfit => {
                let why = state.why.clone()?;
                Some(Notice::Unfit { path, why })
            }
        }
    }

    /// Notes that a set does not exist any more.
    pub(super) fn lose(&mut self, path: &SetPath) {
        if let Some(state) = self.sets.get_mut(path) {
            state.shape = Shape::Awaited;
        }
    }

    /// Takes out of these sets the elements of ours that no door of `next` would put in. A set that
    /// refuses keeps its elements until they run out.
    pub(super) fn leave(
        &self,
        next: &Ruleset,
        kernel: &mut Kernel,
        ruleset: &Ruleset,
        openings: &mut Openings,
    ) -> Vec<Closed> {
        let mut transaction = Transaction::default();
        let mut gone = Vec::new();
        for (slot, entry) in openings.iter() {
            if let OpeningPlace::Set(path, _) = &slot.place
                && next.wisher(&entry.door, path).is_none()
            {
                transaction
                    .changes
                    .extend(slot.key(ruleset).map(SetChange::Delete));
                gone.push((slot.clone(), entry.door.clone()));
            }
        }
        let _ = kernel.send(&mut transaction, &ruleset.table, |set| self.knows(set));
        let closed = |(slot, door): (OpeningSlot, Arc<str>)| {
            openings.set(slot.clone(), None);
            Closed {
                door,
                source: slot.source,
                place: slot.place,
            }
        };
        gone.into_iter().map(closed).collect()
    }

    /// Looks at all of these sets, or at one, and puts in the elements that belong there. Returns
    /// notices for the log.
    pub(super) fn review(
        &mut self,
        only: Option<&SetPath>,
        kernel: &mut Kernel,
        ruleset: &Ruleset,
        openings: &mut Openings,
        now: Timestamp,
    ) -> Result<Vec<Notice>, FirewallError> {
        let mut notices = Vec::new();
        let paths: Vec<Arc<SetPath>> = self.sets.keys().cloned().collect();
        for path in paths {
            if only.is_some_and(|only| *only != *path) {
                continue;
            }
            let found = inspect(&mut kernel.socket, &path, ruleset)?;
            let Some(set) = self.sets.get_mut(&path) else {
                continue;
            };
            let path_of = || (*path).clone();
            match found {
                Err(why) => {
                    set.shape = Shape::Unfit;
                    let is_new = set.why.as_ref() != Some(&why);
                    set.why = Some(why.clone());
                    let path = path_of();
                    notices.extend(is_new.then_some(Notice::Unfit { path, why }));
                }
                Ok(Shape::Awaited) => {
                    set.shape = Shape::Awaited;
                    notices.push(Notice::Awaited { path: path_of() });
                }
                Ok(shape) => {
                    set.shape = shape;
                    set.why = None;
                    let (elements, unwanted) = self.fill(&path, kernel, ruleset, openings, now)?;
                    if let Some(errno) = unwanted {
                        notices.push(refused(&path, errno));
                    } else if elements > 0 {
                        let path = path_of();
                        notices.push(Notice::Back { path, elements });
                    }
                }
            }
        }
        Ok(notices)
    }

    /// Takes over the elements that an earlier daemon has put into a set, and adds those that are
    /// missing. Returns how many those are, and the reason if the set refused them.
    fn fill(
        &self,
        path: &Arc<SetPath>,
        kernel: &mut Kernel,
        ruleset: &Ruleset,
        openings: &mut Openings,
        now: Timestamp,
    ) -> Result<(usize, Option<Errno>), FirewallError> {
        let dumped =
            inventory::elements(&mut kernel.socket, path).map_err(FirewallError::reading)?;
        let mut there = BTreeSet::new();
        for d in dumped {
            let Some(slot) = self.slot(path, &d.key) else {
                continue;
            };
            let door = d.comment.as_deref().and_then(|c| ruleset.wisher(c, path));
            if let Some(door) = door
                && openings.get(&slot).is_none()
            {
                let deadline = d.left.map(|left| now + left);
                openings.set(slot.clone(), Some(OpeningEntry { deadline, door }));
            }
            there.insert(slot);
        }
        let mut transaction = Transaction::default();
        for (slot, entry) in openings.iter() {
            let left = entry.deadline.map(|at| at.since(now));
            let has_run_out = left.is_some_and(|left| left.is_zero());
            if !slot.place.is_in(path) || there.contains(slot) || has_run_out {
                continue;
            }
            let lifetime = left.map_or(Lifetime::UntilClosed, Lifetime::For);
            let element = slot.element(ruleset, lifetime, &entry.door);
            transaction.changes.extend(element.map(SetChange::Add));
        }
        let is_admin_set = |set: &SetPath| self.knows(set);
        let refused = kernel.send(&mut transaction, &ruleset.table, is_admin_set)?;
        let why = refused.first().map(|(_, errno)| *errno);
        Ok((transaction.changes.len(), why))
    }

    /// Returns the slot for a key in such a set.
    pub(super) fn slot(&self, path: &SetPath, key: &[u8]) -> Option<OpeningSlot> {
        let (path, state) = self.sets.get_key_value(path)?;
        let kind = match state.shape {
            Shape::Address(f) => KeyKind::Address(f),
            Shape::AddressPort(f) => KeyKind::AddressPort(f),
            Shape::Awaited | Shape::Unfit => return None,
        };
        let (source, step) = match elements::key_of(kind, key)? {
            ElementKey::Address(source) => (source, None),
            ElementKey::AddressPort(source, step) => (source, Some(step)),
        };
        let place = OpeningPlace::Set(path.clone(), step);
        Some(OpeningSlot { source, place })
    }
}

/// Returns the shape of a set that can take the elements which doors would put in, or else the
/// reason why the set cannot.
fn judge(info: &SetInfo, path: &SetPath, wishes: &[&Wish]) -> Result<Shape, String> {
    let with_ports = wishes.iter().any(|w| !w.element.ports.is_empty());
    // A door that only takes out does not mind how long the elements stay.
    let adds = || wishes.iter().filter(|w| w.adds).map(|w| w.element.lifetime);
    let timed = adds().any(|lifetime| matches!(lifetime, Lifetime::For(_)));
    let wanted = || {
        let concatenation = if with_ports {
            " . inet_proto . inet_service"
        } else {
            ""
        };
        let flags = if timed { " flags timeout;" } else { "" };
        let SetPath { family, table, set } = path;
        format!(
            "it should be `add set {family} {table} {set} \
             {{ type ipv4_addr{concatenation};{flags} }}` (or ipv6_addr)"
        )
    };
    if !info.is_plain() {
        return Err(format!(
            "it is an interval set, a map or constant; {}",
            wanted()
        ));
    }
    let shape = match info.key() {
        Some(KeyKind::Address(f)) if !with_ports => Shape::Address(f),
        Some(KeyKind::AddressPort(f)) if wishes.iter().all(|w| !w.element.ports.is_empty()) => {
            Shape::AddressPort(f)
        }
        Some(KeyKind::Address(_) | KeyKind::AddressPort(_) | KeyKind::Port) | None => {
            return Err(format!("its elements are of another type; {}", wanted()));
        }
    };
    if timed && !info.has_timeouts() {
        return Err(format!("its elements have no timeout; {}", wanted()));
    }
    // Before Linux 6.12 no element can ask to stay for ever.
    if info.has_default_timeout() && adds().any(|l| l == Lifetime::UntilClosed) {
        return Err(format!(
            "its elements run out by a timeout of the set's own, and none can be there \
             \"until closed\"; {}",
            wanted()
        ));
    }
    Ok(shape)
}

fn inspect(
    socket: &mut NetlinkSocket,
    path: &SetPath,
    ruleset: &Ruleset,
) -> Result<Result<Shape, String>, FirewallError> {
    let wishes: Vec<&Wish> = ruleset.wishes_for(path).collect();
    let info = match inventory::set(socket, path) {
        Ok(info) => info,
        Err(Errno::ENOENT) => return Ok(Ok(Shape::Awaited)),
        Err(Errno::EAFNOSUPPORT) => return Ok(Err("nftables has no such family".to_owned())),
        Err(errno) => return Err(FirewallError::reading(errno)),
    };
    let owner = inventory::owner(socket, path).unwrap_or(None);
    if let Some(port) = owner.filter(|port| *port != socket.port()) {
        return Ok(Err(owned(path, Some(port))));
    }
    Ok(judge(&info, path, &wishes))
}

fn owned(path: &SetPath, port: Option<u32>) -> String {
    let SetPath { family, table, .. } = path;
    let port = netlink_port(port);
    format!(
        "table {family} {table} is owned by another program{port}, which lets nobody else change \
         it; a set in a table of your own will do"
    )
}

/// Returns the notice for a set that passed inspection and refused the element all the same.
pub(super) fn refused(path: &SetPath, errno: Errno) -> Notice {
    if errno == Errno::ENOENT {
        return Notice::Awaited { path: path.clone() };
    }
    // The set's table has got an owner in between; whether the owner is a knockd cannot be known.
    let why = if errno == Errno::EPERM {
        owned(path, None)
    } else {
        FirewallError::refused(&path.table, MessageKind::Other, render::path(path), errno)
            .to_string()
    };
    let path = path.clone();
    Notice::Unfit { path, why }
}

/// Returns notices about the sets that doors of this ruleset name, as these sets are now.
pub(super) fn obstacles(
    socket: &mut NetlinkSocket,
    ruleset: &Ruleset,
) -> Result<Vec<Notice>, FirewallError> {
    let mut notices = Vec::new();
    for path in AdminSets::new(ruleset).sets.into_keys() {
        let found = inspect(socket, &path, ruleset)?;
        let path = (*path).clone();
        match found {
            Ok(Shape::Address(_) | Shape::AddressPort(_)) => {}
            Ok(Shape::Awaited | Shape::Unfit) => notices.push(Notice::Awaited { path }),
            Err(why) => notices.push(Notice::Unfit { path, why }),
        }
    }
    Ok(notices)
}
