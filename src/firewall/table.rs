//! The table that lives: started, changed, watched, stopped.

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

/// What [`GuardTable::expire`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expired {
    /// What has run out.
    pub closed: Vec<Closed>,
    /// What else is to be said.
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
    /// openings live on), or one of an older knockd. No packet sees anything in between.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or there is a table of that name that is not ours. The old guard
    /// stands then, or the one that was to replace it.
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
                // Before Linux 6.9 there is no persist. Owner alone would not do: the table
                // would die with us, and the host be open. But where there is persist, somebody
                // has put another table in the place of the one that we have read.
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
        // Nobody waits for packets yet.
        if let Err(error) = table.held.finish() {
            started.notices.extend(table.held.report(error));
        }
        started.notices.extend(said);
        Ok((table, started))
    }

    /// Makes the table what another configuration says; openings that it still grants live
    /// on. Sets that are not used any more are deleted at a [deadline](Self::next_deadline).
    ///
    /// # Errors
    ///
    /// As for [`Self::start`]; the old table stays, or is made again.
    pub fn reload(&mut self, ruleset: Ruleset, now: Timestamp) -> Result<Started, FirewallError> {
        let begun = Instant::now();
        let postponed = self.watch.as_ref().is_some_and(|w| w.postponed.is_some());
        // An opening that the kernel lacks for the moment is not closed.
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

    /// After the table was made: notes the openings, begins to watch, and looks at what the kernel
    /// made of it. The kernel has the ruleset now: no error makes it the old one again. `begun` is
    /// when it was `now`: to read and write many openings takes a while.
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

    /// Listens from here on, and then looks at what others have done before.
    fn look(&mut self, notices: &mut Vec<Notice>, now: Timestamp) -> Result<(), FirewallError> {
        if self.held.kernel.owns() && self.held.sets.is_empty() {
            self.watch = None;
        } else {
            self.watch.get_or_insert_with(|| Watch::new(now)).listen()?;
        }
        notices.extend(self.held.review_sets(None, now)?);
        if let Some(what) = self.held.compare()? {
            notices.push(Notice::Differs { what });
            // Somebody changed it before we listened: it is put back with the next deadline.
            if let Some(watch) = &mut self.watch
                && !self.held.kernel.owns()
            {
                watch.postponed = Some(now);
            }
        }
        Ok(())
    }

    /// After an error when nftables was read: the watch compares all a little later. Returns what
    /// the log should say.
    fn put_off(&mut self, error: FirewallError, now: Timestamp) -> Option<Notice> {
        if let Some(watch) = &mut self.watch {
            watch.put_off(now);
        }
        self.held.report(error)
    }

    /// Reads what others have done to nftables, and puts back what of it is ours. To be called
    /// when [`Self::events`] is readable. If nftables cannot be read, all is compared a little
    /// later.
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

    /// Does the firewall's part of some effects, all in one transaction and one write. What is open
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
                Effect::Add { path, .. } => self.held.sets.obstacle(path),
                Effect::Open { .. } | Effect::Close { .. } | Effect::Remove { .. } => None,
            })
            .collect();
        let mut gone = None;
        let refused = match self.held.send(&mut plan.transaction) {
            Err(error) if !self.is_owned() && error.is_race() => {
                // Somebody has taken the table away and we have not heard of it yet. It is
                // put back, or that is put off: then with what is noted now.
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
                // Done or not: the book must say what is.
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
                // It has gone this moment. What is noted is put in when it is back.
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

    /// What must be polled for reading: there is something when the table is watched.
    #[must_use]
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        let socket = self.watch.as_ref()?.socket.as_ref()?;
        Some(socket.as_fd())
    }

    /// When [`Self::expire`] is next to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = self.held.openings.next_deadline().map(|at| at + GRACE);
        let postponed = self.watch.as_ref().and_then(|w| w.postponed);
        let leftover = self.held.next_leftover();
        own.into_iter().chain(postponed).chain(leftover).min()
    }

    /// Does what is due by now. Returns what has run out: the kernel says nothing when an element
    /// expires, so it is asked for each opening whose time is up. It does some hundred at a time:
    /// call it again while [`Self::next_deadline`] lies in the past. What the kernel cannot do now
    /// is done later.
    pub fn expire(&mut self, now: Timestamp) -> Expired {
        let mut expired = Expired::default();
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.catch_up(&mut self.held, &mut expired.notices, now)
        {
            expired.notices.extend(self.put_off(error, now));
        }
        expired.notices.extend(self.held.shrink(now));
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

    /// Returns what is open, as far as we know.
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

    /// Whether the kernel keeps others from the table; if not, it is watched.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.held.kernel.owns()
    }

    /// Returns the ruleset that is in force.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.held.ruleset
    }

    /// A clean stop. A table that is kept is left without an owner: an owned one whose owner is
    /// gone is printed by nft 1.0.6 in a way that it cannot read back, and would poison a saved
    /// ruleset. Openings run out by themselves.
    ///
    /// # Errors
    ///
    /// If the kernel refuses: the table then stands as it was, and can be used on.
    pub fn stop(&mut self, on_stop: OnStop) -> Result<(), FirewallError> {
        // A table that was renamed a moment ago would stay, for nobody else knows of it.
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
            // What is left behind is due at once, then.
            leftovers::grace();
            why
        })
    }
}
