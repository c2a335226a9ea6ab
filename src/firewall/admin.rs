//! The sets of the administrator's that doors put sources into: in any table, made and
//! owned by somebody else. They are read before they are written, and never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::errno::Errno;

use super::book::{Closed, Entry, Place, Shape, Slot, element};
use super::error::{Deed, FirewallError, netlink_port};
use super::netlink::inventory::{self, SetInfo};
use super::notice::Notice;
use super::render;
use super::ruleset::{Family, Key, Ruleset, Wish};
use super::table::Table;
use super::transaction::{Change, ElementKey, Transaction};
use crate::model::{Lifetime, SetPath, Timestamp};
use crate::netlink::NetlinkSocket;

/// What is known of them.
#[derive(Debug, Clone, Default)]
pub(super) struct AdminSets {
    sets: BTreeMap<Arc<SetPath>, State>,
}

#[derive(Debug, Clone)]
struct State {
    shape: Shape,
    /// Why it is unfit: said when that changes, and at each knock.
    why: Option<String>,
}

impl AdminSets {
    /// All sets that some door names, none of them looked at.
    pub(super) fn new(ruleset: &Ruleset) -> Self {
        let state = State {
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

    /// Why nothing goes into it for now, if so.
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

    /// It is not there any more.
    pub(super) fn lose(&mut self, path: &SetPath) {
        if let Some(state) = self.sets.get_mut(path) {
            state.shape = Shape::Awaited;
        }
    }

    /// The slot that an element of it is.
    pub(super) fn slot(&self, path: &SetPath, key: &[u8]) -> Option<Slot> {
        let (path, state) = self.sets.get_key_value(path)?;
        let kind = match state.shape {
            Shape::Address(f) => Key::Address(f),
            Shape::AddressPort(f) => Key::AddressPort(f),
            Shape::Awaited | Shape::Unfit => return None,
        };
        let (source, step) = match inventory::key(kind, key)? {
            ElementKey::Address(source) => (source, None),
            ElementKey::AddressPort(source, step) => (source, Some(step)),
        };
        let place = Place::Set(path.clone(), step);
        Some(Slot { source, place })
    }
}

/// Whether a set can take what doors would put in; if not, why.
fn judge(info: &SetInfo, path: &SetPath, wishes: &[&Wish]) -> Result<Shape, String> {
    let with_ports = wishes.iter().any(|w| !w.element.ports.is_empty());
    // What only takes out does not mind how long the others stay.
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
        Some(Key::Address(f)) if !with_ports => Shape::Address(f),
        Some(Key::AddressPort(f)) if wishes.iter().all(|w| !w.element.ports.is_empty()) => {
            Shape::AddressPort(f)
        }
        Some(Key::Address(_) | Key::AddressPort(_) | Key::Port) | None => {
            return Err(format!("its elements are of another type; {}", wanted()));
        }
    };
    if timed && !info.has_timeouts() {
        return Err(format!("its elements have no timeout; {}", wanted()));
    }
    // Before Linux 6.12 no element can ask to stay.
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
        Err(refusal) => return Err(FirewallError::reading(refusal)),
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

/// What is to be said of a set that was looked at and fits, and would not have it after all.
pub(super) fn refused(path: &SetPath, errno: Errno) -> Notice {
    if errno == Errno::ENOENT {
        return Notice::Awaited { path: path.clone() };
    }
    // Somebody who owns its table has come in between; whether a knockd, cannot be known.
    let why = if errno == Errno::EPERM {
        owned(path, None)
    } else {
        FirewallError::refused(&path.table, Deed::Other, render::path(path), errno).to_string()
    };
    let path = path.clone();
    Notice::Unfit { path, why }
}

impl Table {
    /// Takes out of these sets what no door of another ruleset would put in. One that will
    /// not have it keeps it until it runs out.
    pub(super) fn leave_sets(&mut self, next: &Ruleset) -> Vec<Closed> {
        let mut transaction = Transaction::default();
        let mut gone = Vec::new();
        for (slot, entry) in self.book.iter() {
            if let Place::Set(path, _) = &slot.place
                && next.wisher(&entry.door, path).is_none()
            {
                let lifetime = Lifetime::UntilClosed;
                let element = element(&self.ruleset, slot, lifetime, &entry.door);
                transaction.changes.extend(element.map(Change::Delete));
                gone.push((slot.clone(), entry.door.clone()));
            }
        }
        let _ = self.send(&mut transaction);
        let closed = |(slot, door): (Slot, Arc<str>)| {
            self.book.set(slot.clone(), None);
            Closed {
                door,
                source: slot.source,
                place: slot.place,
            }
        };
        gone.into_iter().map(closed).collect()
    }

    /// Looks at one of these sets, or at all, and puts in what belongs there.
    pub(super) fn review_sets(
        &mut self,
        only: Option<&SetPath>,
        now: Timestamp,
    ) -> Result<Vec<Notice>, FirewallError> {
        let mut notices = Vec::new();
        let paths: Vec<Arc<SetPath>> = self.sets.sets.keys().cloned().collect();
        for path in paths {
            if only.is_none_or(|only| *only == *path) {
                notices.extend(self.review(&path, now)?);
            }
        }
        Ok(notices)
    }

    fn review(
        &mut self,
        path: &Arc<SetPath>,
        now: Timestamp,
    ) -> Result<Option<Notice>, FirewallError> {
        let found = inspect(&mut self.socket, path, &self.ruleset)?;
        let Some(state) = self.sets.sets.get_mut(path) else {
            return Ok(None);
        };
        let path_of = || (**path).clone();
        match found {
            Err(why) => {
                state.shape = Shape::Unfit;
                let news = state.why.as_ref() != Some(&why);
                state.why = Some(why.clone());
                let path = path_of();
                Ok(news.then_some(Notice::Unfit { path, why }))
            }
            Ok(Shape::Awaited) => {
                state.shape = Shape::Awaited;
                Ok(Some(Notice::Awaited { path: path_of() }))
            }
            Ok(shape) => {
                state.shape = shape;
                state.why = None;
                let (elements, unwanted) = self.fill(path, now)?;
                if let Some(errno) = unwanted {
                    return Ok(Some(refused(path, errno)));
                }
                let path = path_of();
                Ok((elements > 0).then_some(Notice::Back { path, elements }))
            }
        }
    }

    /// Takes over what an earlier daemon has put into a set, and puts in what is missing: how
    /// many elements, and why none, if the set would not have them.
    fn fill(
        &mut self,
        path: &Arc<SetPath>,
        now: Timestamp,
    ) -> Result<(usize, Option<Errno>), FirewallError> {
        let dumped = inventory::elements(&mut self.socket, path).map_err(FirewallError::reading)?;
        let mut there = std::collections::BTreeSet::new();
        for d in dumped {
            let Some(slot) = self.sets.slot(path, &d.key) else {
                continue;
            };
            let door = d
                .comment
                .as_deref()
                .and_then(|c| self.ruleset.wisher(c, path));
            if let Some(door) = door
                && self.book.get(&slot).is_none()
            {
                let deadline = d.left.map(|left| now + left);
                self.book.set(slot.clone(), Some(Entry { deadline, door }));
            }
            there.insert(slot);
        }
        let mut transaction = Transaction::default();
        for (slot, entry) in self.book.iter() {
            let meant = matches!(&slot.place, Place::Set(p, _) if p == path);
            let left = entry.deadline.map(|at| at.since(now));
            if !meant || there.contains(slot) || left.is_some_and(|l| l.is_zero()) {
                continue;
            }
            let lifetime = left.map_or(Lifetime::UntilClosed, Lifetime::For);
            let element = element(&self.ruleset, slot, lifetime, &entry.door);
            transaction.changes.extend(element.map(Change::Add));
        }
        let refused = self.send(&mut transaction)?;
        let why = refused.first().map(|(_, errno)| *errno);
        Ok((transaction.changes.len(), why))
    }
}

/// What is to be said of the sets that doors of this ruleset name, as they are now.
pub(super) fn survey(
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

/// The family a shape is for.
pub(super) fn family(shape: Shape) -> Option<Family> {
    match shape {
        Shape::Address(f) | Shape::AddressPort(f) => Some(f),
        Shape::Awaited | Shape::Unfit => None,
    }
}
