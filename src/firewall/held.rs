//! The table that a daemon holds: its ruleset, its openings, and the kernel's side of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::admin_sets::AdminSets;
use super::error::{FirewallError, steadily};
use super::kernel::{Kernel, Refused};
use super::netlink::build::WantedTable;
use super::netlink::install::{self, Installed};
use super::netlink::inventory;
use super::netlink::leftovers::{self, HELD_UP, Leftover, TOGETHER};
use super::netlink::present::{self, Renamed};
use super::netlink::verify;
use super::notice::Notice;
use super::opening::{Closed, FoundOpening, divide};
use super::openings::Openings;
use super::ruleset::Ruleset;
use super::transaction::Transaction;
use crate::model::{SetPath, Timestamp};

/// How long after an error the kernel is asked again.
pub(super) const REFILL: Duration = Duration::from_secs(1);

/// How many openings are looked up at once: each look-up is a question to the kernel, of some 5 µs,
/// and packets wait meanwhile.
pub(super) const AT_ONCE: usize = 256;

/// The table, as far as its daemon knows.
pub(super) struct HeldTable {
    pub(super) kernel: Kernel,
    pub(super) ruleset: Ruleset,
    pub(super) openings: Openings,
    pub(super) sets: AdminSets,
    /// The leftovers that are still in the kernel, and when each is to be deleted.
    leftovers: BTreeMap<Leftover, Timestamp>,
    /// The last error that the log has reported, until nftables could be read again.
    fault: Option<FirewallError>,
    /// If the openings could not be read, though they may have changed: when they are read again.
    unread: Option<Timestamp>,
}

/// The result of a change of the table.
pub(super) struct Made {
    pub(super) installed: Installed,
    /// The openings that live on.
    pub(super) keep: Vec<FoundOpening>,
    /// The openings that no door makes any more.
    pub(super) removed: Vec<Closed>,
}

impl HeldTable {
    pub(super) fn new(kernel: Kernel, ruleset: Ruleset) -> Self {
        Self {
            kernel,
            ruleset,
            openings: Openings::default(),
            sets: AdminSets::default(),
            leftovers: BTreeMap::new(),
            fault: None,
            unread: None,
        }
    }

    /// Makes the table what `ruleset` says, with the openings that are there, and those of `known`.
    pub(super) fn make(
        &mut self,
        ruleset: &Ruleset,
        known: &[FoundOpening],
    ) -> Result<Made, FirewallError> {
        let old = self.ruleset.table.clone();
        steadily(|| {
            let socket = &mut self.kernel.socket;
            let mut present = present::look(socket, ruleset, Renamed::Old(&old))?;
            present.openings.extend(known.iter().cloned());
            // The log has reported that these openings are closed.
            let closed = |f: &FoundOpening| {
                let leftover = Leftover::Opening(f.slot.clone());
                self.leftovers.contains_key(&leftover)
            };
            let open = present.openings.iter().filter(|f| !closed(f)).cloned();
            let (keep, removed) = divide(ruleset, open);
            let wanted = WantedTable {
                ruleset,
                flags: self.kernel.flags,
            };
            let installed = install::install(socket, wanted, &present, &keep)?;
            Ok(Made {
                installed,
                keep,
                removed,
            })
        })
    }

    /// Makes the old table again if some steps of a failed change may have been done. Returns the
    /// error that the log should show.
    pub(super) fn put_back(
        &mut self,
        why: FirewallError,
        known: &[FoundOpening],
        now: Timestamp,
    ) -> FirewallError {
        if !why.may_be_half_done() {
            return why;
        }
        let begun = Instant::now();
        let ruleset = self.ruleset.clone();
        match self.make(&ruleset, known) {
            Ok(made) => {
                self.settle(made.installed, now + begun.elapsed());
                why
            }
            Err(then) => FirewallError::HalfDone {
                why: Box::new(why),
                then: Box::new(then),
            },
        }
    }

    /// Takes note of a finished change: of its ruleset and its leftovers. `now` is no earlier than
    /// the end of the change, for the leftovers' time begins then. Returns why some openings are
    /// missing.
    pub(super) fn settle(&mut self, installed: Installed, now: Timestamp) -> Option<FirewallError> {
        let Installed {
            origin: _,
            ruleset,
            lost,
            leftovers,
        } = installed;
        let renamed = ruleset.table != self.ruleset.table;
        self.ruleset = ruleset;
        let (ruleset, opened) = (&self.ruleset, self.ruleset.opened());
        // Things that the new ruleset uses again are no leftovers any more, and the sets of a
        // renamed table go with that table as a whole.
        self.leftovers.retain(|leftover, _| match leftover {
            Leftover::Opening(slot) => !slot.place.overlaps(&opened),
            Leftover::Set(name) => !renamed && ruleset.sets.iter().all(|set| set.name != *name),
            Leftover::Table(name) => **name != *ruleset.table,
        });
        for leftover in leftovers {
            self.leftovers.entry(leftover).or_insert(now + HELD_UP);
        }
        lost
    }

    /// Deletes all leftovers as soon as no packet uses them. This waits, so it is only for callers
    /// that hold up no loop. After an error the leftovers stay, for [`Self::shrink`].
    pub(super) fn finish(&mut self) -> Result<(), FirewallError> {
        let all: BTreeSet<Leftover> = self.leftovers.keys().cloned().collect();
        leftovers::finish(&mut self.kernel.socket, &self.ruleset, &all)?;
        self.leftovers.clear();
        Ok(())
    }

    /// Deletes the leftovers that are due, some at a time: no packet uses them any more. Returns a
    /// notice if the kernel refuses.
    pub(super) fn shrink(&mut self, now: Timestamp) -> Option<Notice> {
        let due = self.leftovers.iter().filter(|(_, due)| **due <= now);
        let due: Vec<Leftover> = due.map(|(l, _)| l.clone()).take(TOGETHER).collect();
        if due.is_empty() {
            return None;
        }
        let deleted = leftovers::delete(&mut self.kernel.socket, &self.ruleset, &due);
        if let Err(error) = deleted {
            self.leftovers
                .values_mut()
                .for_each(|due| *due = (*due).max(now + REFILL));
            return self.report(error);
        }
        for leftover in due {
            self.leftovers.remove(&leftover);
        }
        None
    }

    /// Returns when [`Self::shrink`] is next to be called.
    pub(super) fn next_leftover(&self) -> Option<Timestamp> {
        self.leftovers.values().min().copied()
    }

    /// Returns the names of the leftovers that are tables.
    pub(super) fn leftover_tables(&self) -> impl Iterator<Item = &str> {
        self.leftovers.keys().filter_map(Leftover::table)
    }

    /// Sends a transaction; see [`Kernel::send`].
    pub(super) fn send(&mut self, transaction: &mut Transaction) -> Result<Refused, FirewallError> {
        let Self { kernel, sets, .. } = self;
        let table = &self.ruleset.table;
        let refused = kernel.send(transaction, table, |set| sets.knows(set))?;
        // A table that has just been renamed still guards, so it must let in the same sources.
        let tables = self.leftovers.keys().filter_map(Leftover::table);
        for name in tables {
            for mut copy in transaction.of_table(table, name) {
                // The old table may lack this set.
                let _ = kernel.send(&mut copy, name, |_| false);
            }
        }
        Ok(refused)
    }

    /// Compares the table with the ruleset. Returns the first difference.
    pub(super) fn compare(&mut self) -> Result<Option<String>, FirewallError> {
        let Self {
            kernel, leftovers, ..
        } = self;
        let is_leftover = |name: &str| leftovers.contains_key(&Leftover::Set(name.to_owned()));
        match verify::verify(&mut kernel.socket, &self.ruleset, kernel.flags, is_leftover) {
            // The table was deleted while it was read.
            Err(error) if error.is_race() => Ok(Some(error.to_string())),
            other => other,
        }
    }

    /// Writes the rules anew: a comparison sees how many rules there are, and not what they say.
    pub(super) fn rewrite(&mut self) -> Result<(), FirewallError> {
        install::rewrite(&mut self.kernel.socket, &self.ruleset)
    }

    /// Builds the table anew, with the openings that the daemon knows.
    pub(super) fn restore(&mut self, now: Timestamp) -> Result<(), FirewallError> {
        let begun = Instant::now();
        let Kernel { socket, flags, .. } = &mut self.kernel;
        let present = present::look(socket, &self.ruleset, Renamed::None)?;
        let keep = self.openings.found(now);
        let wanted = WantedTable {
            ruleset: &self.ruleset,
            flags: *flags,
        };
        let (lost, leftovers) = install::rebuild(socket, wanted, &present, &keep)?;
        self.leftovers
            .retain(|leftover, _| leftover.table().is_some());
        let due = now + begun.elapsed() + HELD_UP;
        for leftover in leftovers {
            self.leftovers.entry(leftover).or_insert(due);
        }
        lost.map_or(Ok(()), Err)
    }

    /// Reads the openings from the kernel, without those that are leftovers. After an error they are
    /// due to be read again.
    pub(super) fn reread(&mut self, now: Timestamp) -> Result<(), FirewallError> {
        self.unread = Some(now + REFILL);
        let (socket, table) = (&mut self.kernel.socket, &self.ruleset.table);
        let read = inventory::content(socket, table)
            .and_then(|content| present::openings(socket, table, &content));
        let mut found = read.map_err(FirewallError::reading)?;
        found.retain(|f| {
            !self
                .leftovers
                .contains_key(&Leftover::Opening(f.slot.clone()))
        });
        self.openings.replace(&found, now);
        self.unread = None;
        Ok(())
    }

    /// Returns when the openings are to be read again, if they could not be.
    pub(super) fn next_reading(&self) -> Option<Timestamp> {
        self.unread
    }

    /// Looks at all sets of the administrator's, or at one; see [`AdminSets::review`].
    pub(super) fn review_sets(
        &mut self,
        only: Option<&SetPath>,
        now: Timestamp,
    ) -> Result<Vec<Notice>, FirewallError> {
        let Self { kernel, sets, .. } = self;
        sets.review(only, kernel, &self.ruleset, &mut self.openings, now)
    }

    /// Takes out of the administrator's sets the elements that no door of `next` would put in.
    pub(super) fn leave_sets(&mut self, next: &Ruleset) -> Vec<Closed> {
        let Self { kernel, sets, .. } = self;
        sets.leave(next, kernel, &self.ruleset, &mut self.openings)
    }

    /// Returns the notice for an error, or `None` if the log has reported the same error before.
    pub(super) fn report(&mut self, error: FirewallError) -> Option<Notice> {
        let is_new = self.fault.as_ref() != Some(&error);
        self.fault = Some(error.clone());
        is_new.then_some(Notice::Fault { error })
    }

    /// Notes that the kernel can be asked again: the same error is reported anew if it comes back.
    pub(super) fn recover(&mut self) {
        self.fault = None;
    }
}
