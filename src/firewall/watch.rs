//! Watching nftables: our table where the kernel does not keep others from it, and the sets
//! of the administrator's that doors put sources into.

use std::time::{Duration, Instant};

use super::book::{Place, Slot};
use super::error::FirewallError;
use super::netlink::build::Wanted;
use super::netlink::events::{Commit, Ear};
use super::netlink::install;
use super::netlink::inventory;
use super::netlink::socket;
use super::netlink::survey::{self, Found, Renamed};
use super::netlink::verify;
use super::notice::{Culprit, Damage, Notice};
use super::table::Table;
use crate::model::Timestamp;
use crate::netlink::NetlinkSocket;

/// How many restores may follow each other at once, and how long it takes until one more
/// may: two tools that put their own back each time must not do so for ever at full speed.
const BURST: u32 = 10;
pub(super) const REFILL: Duration = Duration::from_secs(1);

/// The watch.
pub(super) struct Watch {
    /// `None` after an error: it is opened again when what is put off is due.
    pub(super) socket: Option<NetlinkSocket>,
    /// What has been heard by it.
    ear: Ear,
    /// How many restores may still be made, as of `since`.
    tokens: u32,
    since: Timestamp,
    /// When a restore, or a look at what was missed, that was put off is due.
    pub(super) postponed: Option<Timestamp>,
    /// Whether something was missed since: all is to be compared.
    missed: bool,
    /// Why the last one failed: said once, and again when it has changed.
    failed: Option<FirewallError>,
}

impl Watch {
    /// One that does not listen yet.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            socket: None,
            ear: Ear::default(),
            tokens: BURST,
            since: now,
            postponed: None,
            missed: false,
            failed: None,
        }
    }

    pub(super) fn listen(&mut self) -> Result<(), FirewallError> {
        if self.socket.is_none() {
            self.socket = Some(socket::listening().map_err(FirewallError::reading)?);
            self.ear = Ear::default();
        }
        Ok(())
    }

    /// Whether the table may be put back now; if not, when.
    fn allow(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        while self.tokens < BURST && now >= self.since + REFILL {
            self.tokens += 1;
            self.since = self.since + REFILL;
        }
        if self.tokens == BURST {
            self.since = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => Err(self.since + REFILL),
        }
    }
}

impl Table {
    /// Reads what others have done to nftables, and puts back what of it is ours. Call it
    /// when [`Table::events`] is readable. Where nftables cannot be read, all is compared a
    /// little later.
    pub fn on_readable(&mut self, now: Timestamp) -> Vec<Notice> {
        let mut notices = Vec::new();
        if let Err(error) = self.follow(&mut notices, now) {
            notices.extend(self.put_off(error, now));
        }
        notices
    }

    fn follow(&mut self, notices: &mut Vec<Notice>, now: Timestamp) -> Result<(), FirewallError> {
        let port = self.socket.port();
        let Some(Watch { socket, ear, .. }) = &mut self.watch else {
            return Ok(());
        };
        let Some(socket) = socket else {
            return Ok(());
        };
        let (commits, lost) = ear
            .commits(
                socket,
                &self.ruleset.table,
                |path| self.sets.knows(path),
                port,
            )
            .map_err(FirewallError::reading)?;
        let mut damage: Option<(Damage, Option<Culprit>)> = None;
        for commit in commits {
            self.take(commit, &mut damage, notices, now)?;
        }
        if lost {
            notices.push(Notice::Missed);
        }
        match damage {
            Some((damage, by)) => notices.extend(self.heal(damage, by, now)),
            None if lost => notices.extend(self.compare(now)?),
            None => {}
        }
        if lost {
            notices.extend(self.review_sets(None, now)?);
        }
        Ok(())
    }

    /// Looks at the table, of which some news was lost.
    fn compare(&mut self, now: Timestamp) -> Result<Option<Notice>, FirewallError> {
        if !self.is_watched() {
            return Ok(None);
        }
        let differs = match verify::verify(&mut self.socket, &self.ruleset, self.flags) {
            Err(error) if error.is_race() => true,
            other => other?.is_some(),
        };
        if differs {
            return Ok(self.heal(Damage::Changed, None, now));
        }
        // How many rules there are is seen, and not what they say.
        match install::rewrite(&mut self.socket, &self.ruleset) {
            Err(error) if error.is_race() => return Ok(self.heal(Damage::Changed, None, now)),
            other => other?,
        }
        self.reread(now).map(|()| None)
    }

    /// Nftables could not be read: it is listened to anew, and all compared, a little later.
    /// The socket is closed for the time: with a lasting error it would be readable for ever.
    pub(super) fn put_off(&mut self, error: FirewallError, now: Timestamp) -> Option<Notice> {
        if let Some(watch) = &mut self.watch {
            watch.socket = None;
            watch.missed = true;
            watch.postponed = Some(now + REFILL);
        }
        self.news(error)
    }

    /// Said once, and again when it has changed.
    pub(super) fn news(&mut self, error: FirewallError) -> Option<Notice> {
        let news = self.fault.as_ref() != Some(&error);
        self.fault = Some(error.clone());
        news.then_some(Notice::Fault { error })
    }

    /// Does what was put off, if it is due.
    pub(super) fn catch_up(&mut self, now: Timestamp) -> Vec<Notice> {
        let Some(watch) = &mut self.watch else {
            return Vec::new();
        };
        if watch.postponed.is_none_or(|at| at > now) {
            return Vec::new();
        }
        watch.postponed = None;
        let missed = std::mem::take(&mut watch.missed);
        let mut notices = Vec::new();
        let done = watch.listen().and_then(|()| {
            if !missed {
                notices.extend(self.heal(Damage::Changed, None, now));
                return Ok(());
            }
            notices.extend(self.compare(now)?);
            notices.extend(self.review_sets(None, now)?);
            self.fault = None;
            Ok(())
        });
        if let Err(error) = done {
            notices.extend(self.put_off(error, now));
        }
        notices
    }

    fn is_watched(&self) -> bool {
        self.flags == 0
    }

    fn take(
        &mut self,
        commit: Commit,
        damage: &mut Option<(Damage, Option<Culprit>)>,
        notices: &mut Vec<Notice>,
        now: Timestamp,
    ) -> Result<(), FirewallError> {
        let Commit {
            deleted,
            changed,
            added,
            removed,
            sets,
            emptied,
            by,
        } = commit;
        if self.is_watched() {
            if deleted {
                *damage = Some((Damage::Deleted, by));
            } else if changed {
                damage.get_or_insert((Damage::Changed, by));
            } else if damage.is_none() {
                // An administrator who opens or closes by hand is taken at his word.
                for found in removed {
                    self.book.set(found.slot, None);
                }
                for found in added {
                    self.book.set(found.slot.clone(), Some(found.entry(now)));
                }
            }
        }
        for path in sets {
            if self.sets.knows(&path) {
                notices.extend(self.review_sets(Some(&path), now)?);
            }
        }
        for (path, key) in emptied {
            if let Some(slot) = self.sets.slot(&path, &key) {
                self.book.set(slot, None);
            }
        }
        Ok(())
    }

    /// Puts the table back, or puts that off. Nothing is to be said while it is put off:
    /// whoever fights us must not fill the log.
    pub(super) fn heal(
        &mut self,
        damage: Damage,
        by: Option<Culprit>,
        now: Timestamp,
    ) -> Option<Notice> {
        if let Some(watch) = &mut self.watch {
            if watch.postponed.is_some() {
                return None;
            }
            if let Err(at) = watch.allow(now) {
                watch.postponed = Some(at);
                let wait = at.since(now);
                return Some(Notice::Postponed { damage, wait, by });
            }
        }
        let began = Instant::now();
        let result = self.restore(now);
        let after = began.elapsed();
        let watch = self.watch.as_mut()?;
        match result {
            Ok(()) => {
                watch.failed = None;
                Some(Notice::Restored { damage, after, by })
            }
            Err(error) => {
                watch.postponed = Some(now + REFILL);
                let news = watch.failed.as_ref() != Some(&error);
                watch.failed = Some(error.clone());
                news.then_some(Notice::NotRestored { error })
            }
        }
    }

    /// Builds the table anew from our own book.
    fn restore(&mut self, now: Timestamp) -> Result<(), FirewallError> {
        let survey = survey::survey(&mut self.socket, &self.ruleset, Renamed::None)?;
        let keep = self.known(now);
        let wanted = Wanted {
            ruleset: &self.ruleset,
            flags: self.flags,
        };
        install::rebuild(&mut self.socket, wanted, &survey, &keep)?.map_or(Ok(()), Err)
    }

    /// The openings that are in our own book.
    pub(super) fn known(&self, now: Timestamp) -> Vec<Found> {
        self.book
            .iter()
            .filter(|(slot, _)| matches!(slot.place, Place::Ports(_)))
            .map(|(slot, entry)| Found {
                slot: slot.clone(),
                left: entry.deadline.map(|at| at.since(now)),
                door: Some(entry.door.clone()),
            })
            // Zero would be for ever.
            .filter(|found| found.left.is_none_or(|left| !left.is_zero()))
            .collect()
    }

    /// Takes what is open from the kernel.
    pub(super) fn reread(&mut self, now: Timestamp) -> Result<(), FirewallError> {
        let table = &self.ruleset.table;
        let read = inventory::content(&mut self.socket, table)
            .and_then(|content| survey::openings(&mut self.socket, table, &content));
        let found = read.map_err(FirewallError::reading)?;
        let known: Vec<Slot> = self
            .book
            .iter()
            .filter(|(slot, _)| matches!(slot.place, Place::Ports(_)))
            .map(|(slot, _)| slot.clone())
            .collect();
        for slot in known {
            self.book.set(slot, None);
        }
        for found in found {
            self.book.set(found.slot.clone(), Some(found.entry(now)));
        }
        Ok(())
    }
}
