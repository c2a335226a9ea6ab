//! The table that lives: started, changed, watched, stopped.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::admin::{self, AdminSets};
use super::book::{Applied, Book, By, Closed, Entry, Fate, Place, Plan, element};
use super::error::{Deed, FirewallError, no_answer};
use super::netlink::batch::Batch;
use super::netlink::build::Wanted;
use super::netlink::install;
use super::netlink::inventory;
use super::netlink::retire;
use super::netlink::socket::{self, BatchRefusal};
use super::netlink::survey::{self, Found, OWNED, Origin, Renamed};
use super::netlink::verify;
use super::notice::Notice;
use super::render;
use super::ruleset::Ruleset;
use super::standing::{Opening, plain, sift, steadily, strays};
use super::transaction::{Change, Transaction};
use super::watch::{REFILL, Watch};
use crate::model::{Effect, Lifetime, OnStop, SetPath, Timestamp};
use crate::netlink::NetlinkSocket;

/// How long after our deadline the set is looked at: the kernel counts in ticks, of 10 ms
/// at most, from when it took the element.
const GRACE: Duration = Duration::from_millis(20);

/// How many openings whose time is up are looked for at once: each is a question to the kernel,
/// of some 5 µs, and packets wait meanwhile.
pub(super) const EXPIRED_AT_ONCE: usize = 256;

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

/// How the table came to be, and why some openings are missing in it.
type Installed = (Origin, Option<FirewallError>);

/// That, the openings that live on, and those that do not.
type Made = (Installed, Vec<Found>, Vec<Closed>);

/// The table in the kernel, for as long as a daemon runs.
pub struct Table {
    pub(super) socket: NetlinkSocket,
    pub(super) ruleset: Ruleset,
    pub(super) book: Book,
    pub(super) flags: u32,
    pub(super) sets: AdminSets,
    pub(super) watch: Option<Watch>,
    /// Why nftables could last not be read, as was said.
    pub(super) fault: Option<FirewallError>,
    crowded: Vec<Notice>,
    batch: Batch,
}

impl Table {
    /// Makes the table what `ruleset` says, whatever is there: nothing, a table of ours (its
    /// openings live on), or one of an older knockd. No packet sees anything in between.
    ///
    /// # Errors
    ///
    /// If the kernel will not have it, or there is a table of that name that is not ours. What
    /// guarded guards then, or what was to come in its place.
    pub fn start(
        ruleset: Ruleset,
        mode: Mode,
        now: Timestamp,
    ) -> Result<(Self, Started), FirewallError> {
        let mut socket = socket::open().map_err(FirewallError::reading)?;
        let mut flags = match mode {
            Mode::Auto => OWNED,
            Mode::Watch => 0,
        };
        let wanted = |flags| Wanted {
            ruleset: &ruleset,
            flags,
        };
        let (installed, keep, removed, said) = steadily(|| {
            let survey = survey::survey(&mut socket, &ruleset, Renamed::Same)?;
            let (keep, removed) = sift(&ruleset, survey.openings.clone());
            let installed = match install::install(&mut socket, wanted(flags), &survey, &keep) {
                // Before Linux 6.9 there is no persist. Owner alone would not do: the table
                // would die with us, and the host be open. But where there is persist, somebody
                // has put another table in the place of the one that was looked at.
                Err(FirewallError::Ownership { .. })
                    if flags != 0 && !install::can_own(&mut socket, &survey, &ruleset)? =>
                {
                    flags = 0;
                    install::install(&mut socket, wanted(flags), &survey, &keep)?
                }
                other => other?,
            };
            Ok((installed, keep, removed, strays(survey)))
        })?;
        let mut table = Self {
            socket,
            ruleset,
            book: Book::default(),
            flags,
            sets: AdminSets::default(),
            watch: None,
            fault: None,
            crowded: Vec::new(),
            batch: Batch::new(),
        };
        let mut started = table.begin(installed, &keep, removed, now);
        started.notices.extend(said);
        Ok((table, started))
    }

    /// Makes the table what another configuration says; openings that it still grants live
    /// on.
    ///
    /// # Errors
    ///
    /// As for [`Table::start`]; the old one stays, or is made again.
    pub fn reload(&mut self, ruleset: Ruleset, now: Timestamp) -> Result<Started, FirewallError> {
        let postponed = self.watch.as_ref().is_some_and(|w| w.postponed.is_some());
        // What is not in the kernel for the moment is not closed.
        let known = if postponed {
            self.known(now)
        } else {
            Vec::new()
        };
        let made = self.make(&ruleset, &known);
        let (installed, keep, mut removed) = made.map_err(|why| self.put_back(why, &known))?;
        if let Some(watch) = &mut self.watch {
            watch.postponed = None;
        }
        removed.extend(self.leave_sets(&ruleset));
        self.ruleset = ruleset;
        Ok(self.begin(installed, &keep, removed, now))
    }

    /// Makes the table what `ruleset` says, with the openings that are there and `known` ones:
    /// gives how it was done, which of them live on, and which do not.
    fn make(&mut self, ruleset: &Ruleset, known: &[Found]) -> Result<Made, FirewallError> {
        let old = self.ruleset.table.clone();
        steadily(|| {
            let mut survey = survey::survey(&mut self.socket, ruleset, Renamed::Old(&old))?;
            survey.openings.extend(known.iter().cloned());
            let (keep, removed) = sift(ruleset, survey.openings.clone());
            let wanted = Wanted {
                ruleset,
                flags: self.flags,
            };
            let installed = install::install(&mut self.socket, wanted, &survey, &keep)?;
            Ok((installed, keep, removed))
        })
    }

    /// Makes what was again, after a change was refused of which some steps may have been
    /// done; gives what is to be said.
    fn put_back(&mut self, why: FirewallError, known: &[Found]) -> FirewallError {
        if !why.may_be_half_done() {
            return why;
        }
        let ruleset = self.ruleset.clone();
        match self.make(&ruleset, known) {
            Ok(_) => why,
            Err(then) => FirewallError::HalfDone {
                why: Box::new(why),
                then: Box::new(then),
            },
        }
    }

    /// After the transaction: the book, the watch, and a look at what the kernel made of it.
    /// The kernel has the ruleset now: nothing that fails here makes it the old one again.
    fn begin(
        &mut self,
        (origin, lost): Installed,
        keep: &[Found],
        removed: Vec<Closed>,
        now: Timestamp,
    ) -> Started {
        self.book.keep_sets_only();
        for found in keep {
            self.book.set(found.slot.clone(), Some(found.entry(now)));
        }
        self.sets = AdminSets::new(&self.ruleset);
        let mut notices = Vec::new();
        if let Some(error) = lost {
            notices.push(Notice::Fault { error });
            if let Err(error) = self.reread(now) {
                notices.extend(self.put_off(error, now));
            }
        }
        if let Err(error) = self.look(&mut notices, now) {
            notices.extend(self.put_off(error, now));
        }
        Started {
            origin,
            owned: self.flags == OWNED,
            kept: keep.len(),
            removed,
            notices,
        }
    }

    /// Heard from here on; what was done before is seen by the looks that follow.
    fn look(&mut self, notices: &mut Vec<Notice>, now: Timestamp) -> Result<(), FirewallError> {
        if self.flags == OWNED && self.sets.is_empty() {
            self.watch = None;
        } else {
            self.watch.get_or_insert_with(|| Watch::new(now)).listen()?;
        }
        notices.extend(self.review_sets(None, now)?);
        let differs = match verify::verify(&mut self.socket, &self.ruleset, self.flags) {
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
        Ok(())
    }

    /// Has some effects, all in one transaction and one write. What is open
    /// longer already stays so. What became of each opening is said. That is for who acts by hand:
    /// there is room kept for that, and no door's share counts.
    ///
    /// # Errors
    ///
    /// If the kernel will not have it; nothing of it is done then.
    pub fn apply(&mut self, effects: &[Effect], now: Timestamp) -> Result<Applied, FirewallError> {
        self.apply_by(By::Hand, effects, now)
    }

    /// The same for a knock: it opens nothing more where its door, its network or all knocks
    /// together have what they may have, and that is said.
    ///
    /// # Errors
    ///
    /// As for [`Self::apply`].
    pub fn apply_knock(
        &mut self,
        effects: &[Effect],
        now: Timestamp,
    ) -> Result<Applied, FirewallError> {
        self.apply_by(By::Knock, effects, now)
    }

    fn apply_by(
        &mut self,
        by: By,
        effects: &[Effect],
        now: Timestamp,
    ) -> Result<Applied, FirewallError> {
        let mut plan = self.plan(effects, by, now);
        // Said at the start, too; but who has knocked in vain is to find it where he looks.
        let mut notices: Vec<Notice> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Add { path, .. } => self.sets.obstacle(path),
                Effect::Open { .. } | Effect::Close { .. } | Effect::Remove { .. } => None,
            })
            .collect();
        let mut gone = None;
        let refused = match self.send(&mut plan.transaction) {
            Err(error) if self.flags == 0 && error.is_race() => {
                // Somebody has taken the table away and we have not heard of it yet. It is
                // put back, or that is put off: then with what is noted now.
                notices.extend(self.on_readable(now));
                plan = self.plan(effects, by, now);
                match self.send(&mut plan.transaction) {
                    Err(error) if error.is_race() => {
                        gone = Some("somebody has taken the table away; it is put back with it");
                        Vec::new()
                    }
                    other => other?,
                }
            }
            Err(error) if error.is_unanswered() => {
                // Done or not: the book must say what is.
                self.reread(now)?;
                return Err(error);
            }
            other => other?,
        };
        let Plan {
            mut writes,
            mut applied,
            transaction: _,
            admitted: _,
        } = plan;
        applied.notices.extend(notices);
        if let Some(why) = gone {
            applied.lacks(|_, fate| *fate == Fate::Taken, why);
        }
        for (path, errno) in refused {
            let notice = admin::refused(&path, errno);
            let meant = |place: &Place, fate: &Fate| place.is_in(&path) && *fate == Fate::Taken;
            applied.lacks(meant, &notice.to_string());
            applied.notices.push(notice);
            if errno == Errno::ENOENT {
                // It has gone this moment. What is noted is put in when it is back.
                self.sets.lose(&path);
                continue;
            }
            writes.retain(|slot, _| !slot.place.is_in(&path));
            applied.opened.retain(|o| !o.place.is_in(&path));
            applied.closed.retain(|c| !c.place.is_in(&path));
        }
        self.book.note(writes);
        if let (By::Knock, Some(opened)) = (by, applied.opened.first()) {
            let crowded = self.book.crowded(&self.ruleset, &opened.door);
            self.crowded.extend(crowded);
        }
        Ok(applied)
    }

    /// What is to be said of doors that are open to very many.
    pub fn crowded(&mut self) -> impl Iterator<Item = Notice> + '_ {
        self.crowded.drain(..)
    }

    fn plan(&self, effects: &[Effect], by: By, now: Timestamp) -> Plan {
        let shape = |path: &_| self.sets.shape(path);
        self.book.plan(&self.ruleset, &shape, effects, by, now)
    }

    /// Sends a transaction. A deletion of what is gone by now (it ran out this moment) is
    /// left out, and so is whatever a set of the administrator's will not have; the rest is
    /// sent again. Gives the sets that would not, and why.
    pub(super) fn send(
        &mut self,
        transaction: &mut Transaction,
    ) -> Result<Vec<(Arc<SetPath>, Errno)>, FirewallError> {
        let mut refused = Vec::new();
        let mut unanswered = false;
        while !transaction.is_empty() {
            self.batch.clear();
            transaction.write(&mut self.batch);
            let Err(BatchRefusal { index, errno }) =
                socket::commit(&mut self.socket, &mut self.batch)
            else {
                break;
            };
            if index.is_none() && !unanswered && no_answer(errno) {
                // It may have been done. To do it twice is to do it once.
                unanswered = true;
                continue;
            }
            let failed = index.and_then(|i| transaction.changes.get(i).map(|c| (i, c)));
            let set = match failed {
                Some((i, Change::Delete(_))) if errno == Errno::ENOENT => {
                    transaction.changes.remove(i);
                    continue;
                }
                Some((_, Change::Add(e) | Change::Delete(e))) => e.set.clone(),
                None => {
                    let what = "the transaction".to_owned();
                    let table = &self.ruleset.table;
                    return Err(FirewallError::refused(table, Deed::Other, what, errno));
                }
            };
            if !self.sets.knows(&set) {
                let what = render::path(&set);
                return Err(FirewallError::refused(&set.table, Deed::Other, what, errno));
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
        let socket = self.watch.as_ref()?.socket.as_ref()?;
        Some(socket.as_fd())
    }

    /// When [`Table::expire`] is next to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = self.book.next_deadline().map(|at| at + GRACE);
        let postponed = self.watch.as_ref().and_then(|w| w.postponed);
        own.into_iter().chain(postponed).min()
    }

    /// What has run out by now. The kernel says nothing when an element expires; each one
    /// whose time is up is looked for, some hundred in one go: call again while
    /// [`Table::next_deadline`] lies in the past. Where the kernel cannot be asked, that is done
    /// later.
    pub fn expire(&mut self, now: Timestamp) -> Expired {
        let mut expired = Expired {
            closed: Vec::new(),
            notices: self.catch_up(now),
        };
        let mut fault = None;
        let before = Timestamp(now.0.saturating_sub(Timestamp::from_epoch(GRACE).0));
        for slot in self.book.due(before, EXPIRED_AT_ONCE) {
            let Some(entry) = self.book.get(&slot).cloned() else {
                continue;
            };
            let lifetime = Lifetime::UntilClosed;
            let left = match element(&self.ruleset, &slot, lifetime, &entry.door) {
                None => Ok(None),
                Some(e) => inventory::element(&mut self.socket, &e.set, e.key),
            };
            match left {
                Err(refusal) => {
                    fault = Some(FirewallError::reading(refusal));
                    let deadline = Some(now + REFILL);
                    self.book.set(slot, Some(Entry { deadline, ..entry }));
                }
                Ok(Some(left)) => {
                    let deadline = left.map(|left| now + left);
                    self.book.set(slot, Some(Entry { deadline, ..entry }));
                }
                Ok(None) => {
                    expired.closed.push(Closed {
                        door: entry.door,
                        source: slot.source,
                        place: slot.place.clone(),
                    });
                    self.book.set(slot, None);
                }
            }
        }
        if let Some(error) = fault {
            expired.notices.extend(self.news(error));
        } else if !expired.closed.is_empty() {
            self.fault = None;
        }
        expired
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
    /// If the kernel will not have it: the table then stands as it was, and can be used on.
    pub fn stop(&mut self, on_stop: OnStop) -> Result<(), FirewallError> {
        let done = match on_stop {
            OnStop::Keep => plain(&mut self.socket, &self.ruleset, Renamed::None).map(|_| ()),
            OnStop::Remove => retire::remove(&mut self.socket, &self.ruleset.table).map(|_| ()),
        };
        done.map_err(|why| self.put_back(why, &[]))
    }
}
