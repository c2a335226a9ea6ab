//! The table in the kernel while a daemon runs: its start, changes, watch and stop.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::admin_sets::{self, AdminSets};
use super::error::{FirewallError, steadily};
use super::held::{AT_ONCE, HeldTable, Made, REFILL};
use super::kernel::Kernel;
use super::netlink::build::WantedTable;
use super::netlink::install;
use super::netlink::present::{self, OWNED, Origin, Renamed};
use super::netlink::{inventory, leftovers, socket};
use super::notice::Notice;
use super::offline::{self, plain, strays};
use super::opening::{Closed, Opening, OpeningEntry, OpeningPlace, divide};
use super::openings::{Applied, By, Fate, Plan};
use super::ruleset::Ruleset;
use super::watch::Watch;
use crate::model::{Effect, OnStop, Timestamp};

/// The time between the deadline of an opening and the look at its set. The kernel counts in ticks,
/// of 10 ms at most, from when it took the element.
const GRACE: Duration = Duration::from_millis(20);

/// How the table is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The table is owned where the kernel can do that (Linux 6.9 and later), and watched where it
    /// cannot.
    #[default]
    Auto,
    /// The table is watched, whatever the kernel can do: anybody may change the table, and it is
    /// restored.
    Watch,
}

/// The result of a start or a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// How the table came to be.
    pub origin: Origin,
    /// True if the kernel keeps others from the table; false if the table is watched.
    pub owned: bool,
    /// The number of openings that live on.
    pub kept: usize,
    /// Openings that are gone, since no door of the configuration makes them any more.
    pub removed: Vec<Closed>,
    /// Notices for the log.
    pub notices: Vec<Notice>,
}

/// The result of [`GuardTable::expire`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// Openings that have run out.
    pub closed: Vec<Closed>,
    /// Notices for the log.
    pub notices: Vec<Notice>,
}

/// The table in the kernel, for as long as a daemon runs.
pub struct GuardTable {
    held: HeldTable,
    watch: Option<Watch>,
    crowded: Vec<Notice>,
}

impl GuardTable {
    /// Makes the table what `ruleset` says, whatever is there: nothing, a table of ours (its
    /// openings live on), or a table of an older knockd. No packet sees anything in between.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or there is a table of that name that is not ours. Then the old guard
    /// stands, or the one that was to replace it.
    pub fn start(
        ruleset: Ruleset,
        mode: Mode,
        now: Timestamp,
    ) -> Result<(Self, Started), FirewallError> {
        let begun = Instant::now();
        let mut socket = socket::open().map_err(FirewallError::reading)?;
        let mut flags = match mode {
            Mode::Auto => OWNED,
            Mode::Watch => 0,
        };
        let wanted = |flags| WantedTable {
            ruleset: &ruleset,
            flags,
        };
        let (made, said) = steadily(|| {
            let present = present::look(&mut socket, &ruleset, Renamed::Same)?;
            let (keep, removed) = divide(&ruleset, present.openings.iter().cloned());
            let installed = match install::install(&mut socket, wanted(flags), &present, &keep) {
                // Before Linux 6.9 there is no flag persist. The flag owner alone would not do: the
                // table would die with us, and the host would be open. But where the kernel has
                // persist, somebody has put another table in the place of the one that we have
                // read.
                Err(FirewallError::Ownership { .. })
                    if flags != 0 && !install::can_own(&mut socket, &present, &ruleset)? =>
                {
                    flags = 0;
                    install::install(&mut socket, wanted(flags), &present, &keep)?
                }
                other => other?,
            };
            let made = Made {
                installed,
                keep,
                removed,
            };
            Ok((made, strays(present.strays)))
        })?;
        let mut table = Self {
            held: HeldTable::new(Kernel::new(socket, flags), ruleset),
            watch: None,
            crowded: Vec::new(),
        };
        let mut started = table.begin(made, now, begun);
        // No loop reads packets yet, so the wait holds nothing up.
        if let Err(error) = table.held.finish() {
            started.notices.extend(table.held.report(error));
        }
        started.notices.extend(said);
        Ok((table, started))
    }

    /// Makes the table what another configuration says. Openings that the new configuration still
    /// grants live on. Sets that are not used any more are deleted at a
    /// [deadline](Self::next_deadline).
    ///
    /// # Errors
    ///
    /// As for [`Self::start`]; the old table stays, or is made again.
    pub fn reload(&mut self, ruleset: Ruleset, now: Timestamp) -> Result<Started, FirewallError> {
        let begun = Instant::now();
        let postponed = self.watch.as_ref().is_some_and(|w| w.postponed.is_some());
        // While a restore is postponed, the kernel lacks openings that are not closed.
        let known = match postponed {
            true => self.held.openings.found(now),
            false => Vec::new(),
        };
        let made = self.held.make(&ruleset, &known);
        let mut made =
            made.map_err(|why| self.held.put_back(why, &known, now + begun.elapsed()))?;
        if let Some(watch) = &mut self.watch {
            watch.postponed = None;
        }
        made.removed.extend(self.held.leave_sets(&ruleset));
        Ok(self.begin(made, now, begun))
    }

    /// Notes the openings after the table was made, begins to watch, and compares the kernel's
    /// table with the ruleset. The kernel has the new ruleset by now: no error makes it the old one
    /// again. `begun` is the moment at which the time was `now`: to read and write many openings
    /// takes a while.
    fn begin(&mut self, made: Made, now: Timestamp, begun: Instant) -> Started {
        let Made {
            installed,
            keep,
            removed,
        } = made;
        let origin = installed.origin;
        self.held.openings.replace(&keep, now);
        let lost = self.held.settle(installed, now + begun.elapsed());
        self.held.sets = AdminSets::new(&self.held.ruleset);
        let mut notices = Vec::new();
        if let Some(error) = lost {
            notices.push(Notice::Fault { error });
            if let Err(error) = self.held.reread(now) {
                notices.extend(self.put_off(error, now));
            }
        }
        if let Err(error) = self.look(&mut notices, now) {
            notices.extend(self.put_off(error, now));
        }
        Started {
            origin,
            owned: self.is_owned(),
            kept: keep.len(),
            removed,
            notices,
        }
    }

    /// Listens from here on, and then looks at changes that others have made before.
    fn look(&mut self, notices: &mut Vec<Notice>, now: Timestamp) -> Result<(), FirewallError> {
        if self.held.kernel.owns() && self.held.sets.is_empty() {
            self.watch = None;
        } else {
            self.watch.get_or_insert_with(|| Watch::new(now)).listen()?;
        }
        notices.extend(self.held.review_sets(None, now)?);
        if let Some(what) = self.held.compare()? {
            notices.push(Notice::Differs { what });
            // Somebody changed the table before we listened: it is restored with the next deadline.
            if let Some(watch) = &mut self.watch
                && !self.held.kernel.owns()
            {
                watch.postponed = Some(now);
            }
        }
        Ok(())
    }

    /// Makes the watch compare everything a little later, after nftables could not be read. Returns
    /// the notice for the log, if there is one.
    fn put_off(&mut self, error: FirewallError, now: Timestamp) -> Option<Notice> {
        if let Some(watch) = &mut self.watch {
            watch.put_off(now);
        }
        self.held.report(error)
    }

    /// Reads the changes that others have made to nftables, and repairs our table and our elements.
    /// To be called when [`Self::events`] is readable. If nftables cannot be read, everything is
    /// compared a little later.
    pub fn on_readable(&mut self, now: Timestamp) -> Vec<Notice> {
        let mut notices = Vec::new();
        let Some(watch) = &mut self.watch else {
            return notices;
        };
        if let Err(error) = watch.follow(&mut self.held, &mut notices, now) {
            notices.extend(self.put_off(error, now));
        }
        notices
    }

    /// Does the firewall's part of some effects, all in one transaction and one write. An opening
    /// that already lasts longer stays as it is. The result has the fate of each opening. This is
    /// for orders by hand: room is kept for them, and no door's share counts.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the transaction, of which nothing is done then. If the kernel's answer
    /// is lost, the transaction may have been done or not, and the openings are read anew.
    pub fn apply(&mut self, effects: &[Effect], now: Timestamp) -> Result<Applied, FirewallError> {
        self.apply_by(By::Hand, effects, now)
    }

    /// Does the same for a knock. A knock opens nothing more where its door, its network or all
    /// knocks together have reached their limit, and a notice reports that.
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
        // A change that is planned on what may be wrong could leave something open. A knock opens
        // all the same.
        if self.held.next_reading().is_some()
            && let Err(error) = self.held.reread(now)
            && by == By::Hand
        {
            return Err(error);
        }
        let mut plan = self.plan(effects, by, now);
        // The start reports these, too; but whoever has knocked in vain looks for the reason at his
        // knock.
        let mut notices: Vec<Notice> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Add { path, .. } => self.held.sets.obstacle(path),
                Effect::Open { .. } | Effect::Close { .. } | Effect::Remove { .. } => None,
            })
            .collect();
        let mut gone = None;
        let refused = match self.held.send(&mut plan.transaction) {
            Err(error) if !self.is_owned() && error.is_race() => {
                // Somebody has taken the table away, and the watch has not read that yet. The table
                // is restored now, or later, together with the openings that are noted now.
                notices.extend(self.on_readable(now));
                plan = self.plan(effects, by, now);
                match self.held.send(&mut plan.transaction) {
                    Err(error) if error.is_race() => {
                        gone = Some("somebody has taken the table away; it is put back with it");
                        Vec::new()
                    }
                    other => other?,
                }
            }
            Err(error) if error.is_unanswered() => {
                // The transaction may have been done or not: read from the kernel which openings
                // exist.
                self.held.reread(now)?;
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
            let notice = admin_sets::refused(&path, errno);
            let meant =
                |place: &OpeningPlace, fate: &Fate| place.is_in(&path) && *fate == Fate::Taken;
            applied.lacks(meant, &notice.to_string());
            applied.notices.push(notice);
            if errno == Errno::ENOENT {
                // The set was deleted this moment. The elements that are noted are put in when it
                // is back.
                self.held.sets.lose(&path);
                continue;
            }
            writes.retain(|slot, _| !slot.place.is_in(&path));
            applied.opened.retain(|o| !o.place.is_in(&path));
            applied.closed.retain(|c| !c.place.is_in(&path));
        }
        self.held.openings.note(writes);
        if let (By::Knock, Some(opened)) = (by, applied.opened.first()) {
            let HeldTable {
                openings, ruleset, ..
            } = &mut self.held;
            let crowded = openings.crowded(ruleset, &opened.door);
            self.crowded.extend(crowded);
        }
        Ok(applied)
    }

    /// Takes the notices of doors that are open to very many.
    pub fn crowded(&mut self) -> impl Iterator<Item = Notice> + '_ {
        self.crowded.drain(..)
    }

    fn plan(&self, effects: &[Effect], by: By, now: Timestamp) -> Plan {
        let shape = |path: &_| self.held.sets.shape(path);
        self.held
            .openings
            .plan(&self.held.ruleset, &shape, effects, by, now)
    }

    /// Returns the socket that must be polled for reading, if nftables is watched.
    #[must_use]
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        let socket = self.watch.as_ref()?.socket.as_ref()?;
        Some(socket.as_fd())
    }

    /// Returns when [`Self::expire`] is next to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = self.held.openings.next_deadline().map(|at| at + GRACE);
        let postponed = self.watch.as_ref().and_then(|w| w.postponed);
        let leftover = self.held.next_leftover();
        let reading = self.held.next_reading();
        let others = postponed.into_iter().chain(leftover).chain(reading);
        own.into_iter().chain(others).min()
    }

    /// Does the work that is due by now. Returns the openings that have run out: the kernel reports
    /// nothing when an element expires, so each opening whose time is up is looked up. One call
    /// looks up some hundred openings: call again while [`Self::next_deadline`] lies in the past.
    /// Work that the kernel cannot do now is done later.
    pub fn expire(&mut self, now: Timestamp) -> Expired {
        let mut expired = Expired::default();
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.catch_up(&mut self.held, &mut expired.notices, now)
        {
            expired.notices.extend(self.put_off(error, now));
        }
        expired.notices.extend(self.held.shrink(now));
        if self.held.next_reading().is_some_and(|at| at <= now)
            && let Err(error) = self.held.reread(now)
        {
            expired.notices.extend(self.held.report(error));
        }
        let mut fault = None;
        let HeldTable {
            kernel,
            ruleset,
            openings,
            ..
        } = &mut self.held;
        let before = Timestamp(now.0.saturating_sub(Timestamp::from_epoch(GRACE).0));
        for slot in openings.due(before, AT_ONCE) {
            let Some(entry) = openings.get(&slot).cloned() else {
                continue;
            };
            let left = match slot.key(ruleset) {
                None => Ok(None),
                Some(e) => inventory::element(&mut kernel.socket, &e.set, e.key),
            };
            let deadline = match left {
                Err(errno) => {
                    fault = Some(FirewallError::reading(errno));
                    Some(now + REFILL)
                }
                Ok(Some(left)) => left.map(|left| now + left),
                Ok(None) => {
                    expired.closed.push(Closed {
                        door: entry.door,
                        source: slot.source,
                        place: slot.place.clone(),
                    });
                    openings.set(slot, None);
                    continue;
                }
            };
            openings.set(slot, Some(OpeningEntry { deadline, ..entry }));
        }
        if let Some(error) = fault {
            expired.notices.extend(self.held.report(error));
        } else if !expired.closed.is_empty() {
            self.held.recover();
        }
        expired
    }

    /// Returns the openings, as far as the daemon knows.
    #[must_use]
    pub fn openings(&self, now: Timestamp) -> Vec<Opening> {
        let all = self.held.openings.iter();
        all.map(|(slot, entry)| Opening {
            door: Some(entry.door.clone()),
            source: slot.source,
            place: slot.place.clone(),
            left: entry.deadline.map(|at| at.since(now)),
        })
        .collect()
    }

    /// Returns the number of openings, as far as the daemon knows. The time does not depend on it.
    #[must_use]
    pub fn opening_count(&self) -> usize {
        self.held.openings.count()
    }

    /// Returns true if the kernel keeps others from the table; false if the table is watched.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.held.kernel.owns()
    }

    /// Returns the ruleset that is in force.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.held.ruleset
    }

    /// Returns the names of tables that a reload has left behind, until each is deleted.
    pub fn leftover_tables(&self) -> impl Iterator<Item = &str> {
        self.held.leftover_tables()
    }

    /// Stops cleanly. A table that is kept is left without an owner: nft 1.0.6 prints an owned
    /// table whose owner is gone in a way that it cannot read back, and that would poison a saved
    /// ruleset. Openings run out by themselves.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: the table then stands as it was, and can be used further.
    pub fn stop(&mut self, on_stop: OnStop) -> Result<(), FirewallError> {
        // After a recent rename the old table would stay, for nobody else knows of it.
        let done = self.held.finish().and_then(|()| {
            let HeldTable {
                kernel, ruleset, ..
            } = &mut self.held;
            match on_stop {
                OnStop::Keep => plain(&mut kernel.socket, ruleset, Renamed::None).map(|_| ()),
                OnStop::Remove => offline::remove(&mut kernel.socket, &ruleset.table).map(|_| ()),
            }
        });
        done.map_err(|why| {
            let why = self
                .held
                .put_back(why, &[], Timestamp::from_epoch(Duration::ZERO));
            // The leftovers are due at once, so no packet may use them any more.
            leftovers::grace();
            why
        })
    }
}
