//! The table that lives: started, changed, watched, stopped.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::admin::AdminSets;
use super::book::{Applied, Book, Closed, Entry, Place, Plan, Slot, element};
use super::error::FirewallError;
use super::netlink::batch::Batch;
use super::netlink::install;
use super::netlink::socket::{Refusal, Socket};
use super::netlink::survey::{self, Found, OWNED, Origin, Renamed, Survey};
use super::netlink::{elements, inventory};
use super::notice::{Damage, Notice};
use super::render;
use super::ruleset::Ruleset;
use super::transaction::{Change, Transaction};
use super::watch::Watch;
use crate::model::{Effect, Lifetime, OnStop, SetPath, Timestamp};

/// How long after our deadline the set is looked at: the kernel counts in ticks, of 10 ms
/// at most, from when it took the element.
const GRACE: Duration = Duration::from_millis(20);

/// How the table is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Owned where the kernel can (Linux 6.9 and later), watched where it cannot.
    #[default]
    Auto,
    /// Watched, whatever the kernel can: anybody may change the table, and it is put back.
    Watch,
}

/// What a start or a reload found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// How the table came to be.
    pub origin: Origin,
    /// Whether the kernel keeps others from it; if not, it is watched.
    pub owned: bool,
    /// How many openings live on.
    pub kept: usize,
    /// Openings that are gone, since no door of the configuration makes them any more.
    pub removed: Vec<Closed>,
    /// What else is to be said.
    pub notices: Vec<Notice>,
}

/// What [`Table::expire`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// What has run out.
    pub closed: Vec<Closed>,
    /// What else is to be said.
    pub notices: Vec<Notice>,
}

/// The table in the kernel, for as long as a daemon runs.
pub struct Table {
    pub(super) socket: Socket,
    pub(super) ruleset: Ruleset,
    pub(super) book: Book,
    pub(super) flags: u32,
    pub(super) sets: AdminSets,
    pub(super) watch: Option<Watch>,
    batch: Batch,
}

impl Table {
    /// Makes the table what `ruleset` says, in one transaction, whatever is there: nothing,
    /// a table of ours (its openings live on), or one of an older knockd.
    ///
    /// # Errors
    ///
    /// If the kernel will not have it, or there is a table of that name that is not ours;
    /// nothing is changed then.
    pub fn start(
        ruleset: Ruleset,
        mode: Mode,
        now: Timestamp,
    ) -> Result<(Self, Started), FirewallError> {
        let mut socket = Socket::open().map_err(FirewallError::reading)?;
        let wanted = match mode {
            Mode::Auto => OWNED,
            Mode::Watch => 0,
        };
        let mut flags = wanted;
        let (origin, keep, removed, said) = steadily(|| {
            let survey = survey::survey(&mut socket, &ruleset, Renamed::Same)?;
            let (keep, removed) = sift(&ruleset, survey.openings.clone());
            let origin = match install::install(&mut socket, &ruleset, flags, &survey, &keep) {
                // Before Linux 6.9 there is no persist. Owner alone would not do: the table
                // would die with us, and the host be open.
                Err(FirewallError::Unsupported { .. }) if flags != 0 => {
                    flags = 0;
                    install::install(&mut socket, &ruleset, flags, &survey, &keep)?
                }
                other => other?,
            };
            Ok((origin, keep, removed, strays(survey)))
        })?;
        let mut table = Self {
            socket,
            ruleset,
            book: Book::default(),
            flags,
            sets: AdminSets::default(),
            watch: None,
            batch: Batch::new(),
        };
        let mut started = table.begin(origin, &keep, removed, now)?;
        started.notices.extend(said);
        Ok((table, started))
    }

    /// Makes the table what another configuration says, in one transaction: openings that
    /// it still grants live on. If it is refused the old one stays.
    ///
    /// # Errors
    ///
    /// As for [`Table::start`].
    pub fn reload(&mut self, ruleset: Ruleset, now: Timestamp) -> Result<Started, FirewallError> {
        let old = self.ruleset.table.clone();
        let postponed = self.watch.as_ref().is_some_and(|w| w.postponed.is_some());
        let known = if postponed {
            self.known(now)
        } else {
            Vec::new()
        };
        let (origin, keep, mut removed) = steadily(|| {
            let mut survey = survey::survey(&mut self.socket, &ruleset, Renamed::Old(&old))?;
            // What is not in the kernel for the moment is not closed.
            survey.openings.extend(known.iter().cloned());
            let (keep, removed) = sift(&ruleset, survey.openings.clone());
            let origin = install::install(&mut self.socket, &ruleset, self.flags, &survey, &keep)?;
            Ok((origin, keep, removed))
        })?;
        if let Some(watch) = &mut self.watch {
            watch.postponed = None;
        }
        removed.extend(self.leave_sets(&ruleset));
        self.ruleset = ruleset;
        self.begin(origin, &keep, removed, now)
    }

    /// After the transaction: the book, the watch, and a look at what the kernel made of it.
    fn begin(
        &mut self,
        origin: Origin,
        keep: &[Found],
        removed: Vec<Closed>,
        now: Timestamp,
    ) -> Result<Started, FirewallError> {
        self.book.keep_sets_only();
        for found in keep {
            self.book.set(found.slot.clone(), Some(found.entry(now)));
        }
        self.sets = AdminSets::new(&self.ruleset);
        // Heard from here on; what was done before is seen by the looks that follow.
        if self.flags == OWNED && self.sets.is_empty() {
            self.watch = None;
        } else if self.watch.is_none() {
            self.watch = Some(Watch::new(now)?);
        }
        let mut notices = self.review_sets(None, now)?;
        let differs = match install::verify(&mut self.socket, &self.ruleset, self.flags) {
            // It went while it was looked at.
            Err(error) if error.is_race() => Some(error.to_string()),
            other => other?,
        };
        if let Some(what) = differs {
            notices.push(Notice::Differs { what });
            // Somebody was at it before we listened: it is put back with the next deadline.
            if let Some(watch) = &mut self.watch
                && self.flags == 0
            {
                watch.postponed = Some(now);
            }
        }
        Ok(Started {
            origin,
            owned: self.flags == OWNED,
            kept: keep.len(),
            removed,
            notices,
        })
    }

    /// Does the firewall's part of the effects of one knock, all in one transaction and one
    /// write. What is open longer already stays so.
    ///
    /// # Errors
    ///
    /// If the kernel will not have it; nothing of it is done then.
    pub fn apply(&mut self, effects: &[Effect], now: Timestamp) -> Result<Applied, FirewallError> {
        let mut plan = self.plan(effects, now);
        let mut notices = Vec::new();
        let refused = match self.send(&mut plan.transaction) {
            Err(error) if self.flags == 0 && error.is_race() => {
                // Somebody has taken the table away and we have not heard of it yet. It is
                // put back, or that is put off: then with what is noted now.
                notices = self.on_readable(now)?;
                plan = self.plan(effects, now);
                match self.send(&mut plan.transaction) {
                    Err(error) if error.is_race() => Vec::new(),
                    other => other?,
                }
            }
            other => other?,
        };
        let Plan {
            transaction: _,
            mut writes,
            mut applied,
        } = plan;
        applied.notices.extend(notices);
        for (path, errno) in refused {
            let path = (*path).clone();
            if errno == Errno::ENOENT {
                // It has gone this moment. What is noted is put in when it is back.
                self.sets.lose(&path);
                applied.notices.push(Notice::Awaited { path });
                continue;
            }
            let meant = |place: &Place| matches!(place, Place::Set(p, _) if **p == path);
            writes.retain(|slot, _| !meant(&slot.place));
            applied.opened.retain(|o| !meant(&o.place));
            applied.closed.retain(|c| !meant(&c.place));
            let why = FirewallError::refused(&path.table, render::path(&path), errno).to_string();
            applied.notices.push(Notice::Unfit { path, why });
        }
        self.book.note(writes);
        Ok(applied)
    }

    fn plan(&self, effects: &[Effect], now: Timestamp) -> Plan {
        let shape = |path: &_| self.sets.shape(path);
        self.book.plan(&self.ruleset, &shape, effects, now)
    }

    /// Sends a transaction. A deletion of what is gone by now (it ran out this moment) is
    /// left out, and so is whatever a set of the administrator's will not have; the rest is
    /// sent again. Gives the sets that would not, and why.
    pub(super) fn send(
        &mut self,
        transaction: &mut Transaction,
    ) -> Result<Vec<(Arc<SetPath>, Errno)>, FirewallError> {
        let mut refused = Vec::new();
        while !transaction.is_empty() {
            self.batch.clear();
            for change in &transaction.changes {
                elements::change(&mut self.batch, change);
            }
            let Err(Refusal { index, errno }) = self.socket.commit(&mut self.batch) else {
                break;
            };
            let failed = index.and_then(|i| transaction.changes.get(i).map(|c| (i, c)));
            let set = match failed {
                Some((i, Change::Delete(_))) if errno == Errno::ENOENT => {
                    transaction.changes.remove(i);
                    continue;
                }
                Some((_, Change::Add(e) | Change::Delete(e))) => e.set.clone(),
                None => {
                    let what = "the transaction".to_owned();
                    return Err(FirewallError::refused(&self.ruleset.table, what, errno));
                }
            };
            if !self.sets.knows(&set) {
                let what = render::path(&set);
                return Err(FirewallError::refused(&set.table, what, errno));
            }
            transaction.changes.retain(|c| {
                let (Change::Add(e) | Change::Delete(e)) = c;
                e.set != set
            });
            refused.push((set, errno));
        }
        Ok(refused)
    }

    /// What must be polled for reading: there is something when the table is watched.
    #[must_use]
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|w| w.socket.as_fd())
    }

    /// When [`Table::expire`] is next to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = self.book.next_deadline().map(|at| at + GRACE);
        let postponed = self.watch.as_ref().and_then(|w| w.postponed);
        own.into_iter().chain(postponed).min()
    }

    /// What has run out by now. The kernel says nothing when an element expires; each one
    /// whose time is up is looked for.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub fn expire(&mut self, now: Timestamp) -> Result<Expired, FirewallError> {
        let mut expired = Expired::default();
        if let Some(watch) = &mut self.watch
            && watch.postponed.is_some_and(|at| at <= now)
        {
            watch.postponed = None;
            expired
                .notices
                .extend(self.heal(Damage::Changed, None, now));
        }
        let before = Timestamp(now.0.saturating_sub(Timestamp::from_epoch(GRACE).0));
        for slot in self.book.due(before) {
            let Some(entry) = self.book.get(&slot).cloned() else {
                continue;
            };
            let lifetime = Lifetime::UntilClosed;
            let left = match element(&self.ruleset, &slot, lifetime, &entry.door) {
                None => None,
                Some(e) => inventory::element(&mut self.socket, &e.set, e.key)
                    .map_err(FirewallError::reading)?,
            };
            match left {
                Some(left) => {
                    let deadline = left.map(|left| now + left);
                    self.book.set(slot, Some(Entry { deadline, ..entry }));
                }
                None => {
                    expired.closed.push(Closed {
                        door: entry.door,
                        source: slot.source,
                        place: slot.place.clone(),
                    });
                    self.book.set(slot, None);
                }
            }
        }
        Ok(expired)
    }

    /// What is open, by our own book.
    #[must_use]
    pub fn openings(&self, now: Timestamp) -> Vec<Opening> {
        let mut all: Vec<Opening> = Vec::new();
        for (slot, entry) in self.book.iter() {
            all.push(Opening {
                door: Some(entry.door.clone()),
                source: slot.source,
                place: slot.place.clone(),
                left: entry.deadline.map(|at| at.since(now)),
            });
        }
        all
    }

    /// Whether the kernel keeps others from the table; if not, it is watched.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.flags == OWNED
    }

    /// The ruleset that is in force.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// A clean stop. Kept, the table is left plain: an owned one whose owner is gone is
    /// printed by nft 1.0.6 in a way that it cannot read back, and would poison a saved
    /// ruleset. Openings run out by themselves.
    ///
    /// # Errors
    ///
    /// If the kernel will not have it: the table then stands as it is.
    pub fn stop(mut self, on_stop: OnStop) -> Result<(), FirewallError> {
        match on_stop {
            OnStop::Keep => plain(&mut self.socket, &self.ruleset, Renamed::None).map(|_| ()),
            OnStop::Remove => install::remove(&mut self.socket, &self.ruleset.table).map(|_| ()),
        }
    }
}

/// An opening, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The door that made it; `None`: somebody put it there by hand.
    pub door: Option<Arc<str>>,
    /// Who may.
    pub source: std::net::IpAddr,
    /// What.
    pub place: Place,
    /// What is left of its time; `None`: until it is closed.
    pub left: Option<Duration>,
}

/// What is open in the table of that name, from the kernel; works without a daemon. `None`:
/// there is no such table.
///
/// # Errors
///
/// If the kernel cannot be asked.
pub fn list(table: &str) -> Result<Option<Vec<Opening>>, FirewallError> {
    let mut socket = Socket::open().map_err(FirewallError::reading)?;
    let content = match inventory::content(&mut socket, table) {
        Ok(content) => content,
        Err(refusal) if refusal.errno == Errno::ENOENT => return Ok(None),
        Err(refusal) => return Err(FirewallError::reading(refusal)),
    };
    let mut found =
        survey::openings(&mut socket, table, &content).map_err(FirewallError::reading)?;
    found.sort_by(|a, b| a.slot.cmp(&b.slot));
    let openings = found.into_iter().map(|found| {
        let Found { slot, left, door } = found;
        Opening {
            door,
            source: slot.source,
            place: slot.place,
            left,
        }
    });
    Ok(Some(openings.collect()))
}

/// Puts the guard alone in place, for boot; a daemon takes it over. Openings that are there
/// stay. Returns what is to be said.
///
/// # Errors
///
/// As for [`Table::start`]. A daemon that owns the table already guards.
pub fn guard(ruleset: &Ruleset) -> Result<Vec<Notice>, FirewallError> {
    let mut socket = Socket::open().map_err(FirewallError::reading)?;
    plain(&mut socket, ruleset, Renamed::Same)
}

/// Takes the table away, daemon or not; whether there was one.
///
/// # Errors
///
/// If the kernel will not have it: a running daemon owns its table.
pub fn clear(table: &str) -> Result<bool, FirewallError> {
    let mut socket = Socket::open().map_err(FirewallError::reading)?;
    install::remove(&mut socket, table)
}

/// The table without an owner, openings and all.
fn plain(
    socket: &mut Socket,
    ruleset: &Ruleset,
    renamed: Renamed<'_>,
) -> Result<Vec<Notice>, FirewallError> {
    let survey = survey::survey(socket, ruleset, renamed)?;
    let (keep, _) = sift(ruleset, survey.openings.clone());
    install::install(socket, ruleset, 0, &survey, &keep)?;
    Ok(strays(survey))
}

/// What is to be said of tables that may have been ours.
fn strays(survey: Survey) -> Vec<Notice> {
    let stray = |table| Notice::Stray { table };
    survey.strays.into_iter().map(stray).collect()
}

/// How often it is tried to make the table while others change what is there between our
/// look and our transaction.
const ATTEMPTS: usize = 10;

fn steadily<T>(mut attempt: impl FnMut() -> Result<T, FirewallError>) -> Result<T, FirewallError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_race() => {}
            other => return other,
        }
    }
    attempt()
}

/// Divides openings into those that a door of the ruleset would make, and the others. Of
/// one that stands in two tables, the longer.
fn sift(ruleset: &Ruleset, found: Vec<Found>) -> (Vec<Found>, Vec<Closed>) {
    let mut keep: BTreeMap<Slot, Found> = BTreeMap::new();
    let mut removed = Vec::new();
    for f in found {
        let granted = match (&f.door, &f.slot.place) {
            (Some(door), Place::Ports(ports)) => ruleset.grants(door, ports),
            (Some(_), Place::Set(..)) | (None, _) => false,
        };
        if !granted {
            removed.push(Closed {
                door: f.door.unwrap_or_else(|| "".into()),
                source: f.slot.source,
                place: f.slot.place,
            });
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
    (keep.into_values().collect(), removed)
}
