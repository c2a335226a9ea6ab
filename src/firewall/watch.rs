//! Watching nftables: our table where the kernel does not keep others from it, and the sets
//! of the administrator's that doors put sources into.

use std::time::Instant;

use super::error::FirewallError;
use super::held::{HeldTable, REFILL};
use super::netlink::events::{Commit, EventReader};
use super::netlink::socket;
use super::notice::{Culprit, Damage, Notice};
use crate::model::{SetPath, Timestamp};
use crate::netlink::NetlinkSocket;

/// How many restores may follow each other at once; one more is allowed each [`REFILL`]. Two tools
/// that each restore their own version must not do so for ever at full speed.
const BURST: u32 = 10;

/// The watch over nftables.
pub(super) struct Watch {
    /// `None` after an error: the socket is opened again when the work that was put off is due.
    pub(super) socket: Option<NetlinkSocket>,
    events: EventReader,
    /// How many restores may still be made, as of `since`.
    tokens: u32,
    since: Timestamp,
    /// When a restore, or a comparison, that was put off is due.
    pub(super) postponed: Option<Timestamp>,
    /// True if changes were missed since, so that everything is to be compared.
    missed: bool,
    /// Why the last restore failed. The log reports a failure once, and again when the reason has
    /// changed.
    failed: Option<FirewallError>,
}

impl Watch {
    /// Returns a watch that does not listen yet.
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            socket: None,
            events: EventReader::default(),
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
            self.events = EventReader::default();
        }
        Ok(())
    }

    /// Takes one restore from those that are allowed. If none is left, returns when the next one is
    /// allowed.
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

    /// Reads the changes that others have made to nftables, and repairs our table and our elements.
    pub(super) fn follow(
        &mut self,
        held: &mut HeldTable,
        notices: &mut Vec<Notice>,
        now: Timestamp,
    ) -> Result<(), FirewallError> {
        let port = held.kernel.socket.port();
        let Self { socket, events, .. } = self;
        let Some(socket) = socket else {
            return Ok(());
        };
        let knows = |path: &SetPath| held.sets.knows(path);
        let (commits, lost) = events
            .commits(socket, &held.ruleset.table, knows, port)
            .map_err(FirewallError::reading)?;
        let mut damage: Option<(Damage, Option<Culprit>)> = None;
        for commit in commits {
            take(held, commit, &mut damage, notices, now)?;
        }
        if lost {
            notices.push(Notice::Missed);
        }
        match damage {
            Some((damage, by)) => notices.extend(self.restore(held, damage, by, now)),
            None if lost => notices.extend(self.compare(held, now)?),
            None => {}
        }
        if lost {
            notices.extend(held.review_sets(None, now)?);
        }
        Ok(())
    }

    /// Compares the table after some notifications were lost, and restores the table if it differs.
    fn compare(
        &mut self,
        held: &mut HeldTable,
        now: Timestamp,
    ) -> Result<Option<Notice>, FirewallError> {
        if held.kernel.owns() {
            return Ok(None);
        }
        if held.compare()?.is_some() {
            return Ok(self.restore(held, Damage::Changed, None, now));
        }
        match held.rewrite() {
            Err(error) if error.is_race() => {
                return Ok(self.restore(held, Damage::Changed, None, now));
            }
            other => other?,
        }
        held.reread(now).map(|()| None)
    }

    /// Puts the work off after nftables could not be read: a little later the watch listens anew
    /// and compares everything. Until then the socket is closed: with a lasting error it would be
    /// readable for ever.
    pub(super) fn put_off(&mut self, now: Timestamp) {
        self.socket = None;
        self.missed = true;
        self.postponed = Some(now + REFILL);
    }

    /// Does the work that was put off, if it is due.
    pub(super) fn catch_up(
        &mut self,
        held: &mut HeldTable,
        notices: &mut Vec<Notice>,
        now: Timestamp,
    ) -> Result<(), FirewallError> {
        if self.postponed.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.postponed = None;
        let missed = std::mem::take(&mut self.missed);
        self.listen()?;
        if !missed {
            notices.extend(self.restore(held, Damage::Changed, None, now));
            return Ok(());
        }
        notices.extend(self.compare(held, now)?);
        notices.extend(held.review_sets(None, now)?);
        held.recover();
        Ok(())
    }

    /// Restores the table, or puts the restore off. While a restore is put off, further damage
    /// gives no notice: a tool that changes the table again and again must not fill the log.
    fn restore(
        &mut self,
        held: &mut HeldTable,
        damage: Damage,
        by: Option<Culprit>,
        now: Timestamp,
    ) -> Option<Notice> {
        if self.postponed.is_some() {
            return None;
        }
        if let Err(at) = self.allow(now) {
            self.postponed = Some(at);
            let wait = at.since(now);
            return Some(Notice::Postponed { damage, wait, by });
        }
        let began = Instant::now();
        let result = held.restore(now);
        let after = began.elapsed();
        match result {
            Ok(()) => {
                self.failed = None;
                Some(Notice::Restored { damage, after, by })
            }
            Err(error) => {
                self.postponed = Some(now + REFILL);
                let is_new = self.failed.as_ref() != Some(&error);
                self.failed = Some(error.clone());
                is_new.then_some(Notice::NotRestored { error })
            }
        }
    }
}

/// Takes note of one transaction of another program. Damage to a table that is watched is only
/// noted: the table is repaired once for all transactions.
fn take(
    held: &mut HeldTable,
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
    if !held.kernel.owns() {
        if deleted {
            *damage = Some((Damage::Deleted, by));
        } else if changed {
            damage.get_or_insert((Damage::Changed, by));
        } else if damage.is_none() {
            // An administrator who opens or closes by hand means it, so the openings follow.
            for found in removed {
                held.openings.set(found.slot, None);
            }
            for found in added {
                let entry = found.entry(now);
                held.openings.set(found.slot, Some(entry));
            }
        }
    }
    for path in sets {
        if held.sets.knows(&path) {
            notices.extend(held.review_sets(Some(&path), now)?);
        }
    }
    for (path, key) in emptied {
        if let Some(slot) = held.sets.slot(&path, &key) {
            held.openings.set(slot, None);
        }
    }
    Ok(())
}
