//! The doors as the matcher needs them: the doors that have a step, and what fits a door.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::mark::Mark;
use super::sketch::Limit;
use crate::model::{self, BEGUN_AT_ONCE, DoorId, Knock, MAX_STEPS, Protocol, Step, Transport};

/// A door as configured, and its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct DoorRef<'a> {
    pub(super) id: DoorId,
    door: &'a model::Door,
}

impl<'a> DoorRef<'a> {
    /// Returns no more steps than the table has room for: a door with more than [`MAX_STEPS`] is
    /// taken for disabled. (The check of the configuration lets none through.)
    pub(super) fn sequence(self) -> &'a [Step] {
        sequence(self.door)
    }

    /// Whether `source` may knock here.
    fn admits(self, source: IpAddr) -> bool {
        let from = &self.door.from;
        from.is_empty() || from.iter().any(|p| p.contains(source))
    }

    /// Whether a step of the door is of this protocol.
    pub(super) fn uses(self, protocol: Protocol) -> bool {
        self.sequence().iter().any(|s| s.protocol == protocol)
    }

    pub(super) fn seq_timeout(self) -> Duration {
        self.door.seq_timeout
    }

    /// Whether packets of sessions may be steps here.
    pub(super) fn fits_sessions(self) -> bool {
        self.door.tcp_flags.fits_sessions()
    }

    /// Rule 0, first half: whether packets to this destination are for this door.
    pub(super) fn faces(self, hit: &Hit) -> bool {
        let target = self.door.target;
        target.map_or(hit.local, |target| target == hit.knock.destination)
    }

    /// Rule 0, second half: whether the door takes such packets.
    pub(super) fn counts(self, hit: &Hit) -> bool {
        match hit.knock.transport {
            Transport::Tcp { flags, sequence: _ } => self.door.tcp_flags.matches(flags),
            Transport::Udp { identification: _ } => true,
        }
    }
}

fn sequence(door: &model::Door) -> &[Step] {
    Some(&*door.sequence)
        .filter(|steps| steps.len() <= MAX_STEPS)
        .unwrap_or_default()
}

/// Whether an attempt may go on from one door to the other: the names are equal, and so is
/// everything that decides about an attempt.
fn decide_alike(one: &model::Door, other: &model::Door) -> bool {
    let model::Door {
        name,
        sequence,
        seq_timeout,
        tcp_flags,
        from,
        target,
        strays,
        // What happens when the attempt is complete.
        one_time: _,
        seq_cooldown: _,
        open: _,
        open_for: _,
        max_open: _,
        close: _,
        add: _,
        remove: _,
        commands: _,
    } = one;
    *name == other.name
        && *sequence == other.sequence
        && *seq_timeout == other.seq_timeout
        && *tcp_flags == other.tcp_flags
        && *from == other.from
        && *target == other.target
        && *strays == other.strays
}

/// A packet, and whether its destination is an address of this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) knock: &'a Knock,
    pub(super) mark: Mark,
    pub(super) local: bool,
}

/// All doors, and the doors that have each step.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Shared with the configuration: a copy of 500 doors takes 60 KiB.
    doors: Arc<[model::Door]>,
    /// By door, the number of its queue: doors with the same `seq_timeout` share one.
    queues: Vec<u16>,
    /// By door, the strays that it allows.
    strays: Vec<Limit>,
    /// Each door by its first step, sorted.
    firsts: Vec<(Step, DoorId)>,
    /// Each door by every step it has, sorted, each pair once.
    users: Vec<(Step, DoorId)>,
    /// By queue, the `seq_timeout`.
    timeouts: Vec<Duration>,
    /// Whether some door takes packets of sessions.
    fit_sessions: bool,
}

impl Doors {
    /// There may be at most 65,535 doors.
    pub(super) fn new(doors: Arc<[model::Door]>) -> Self {
        let mut all = Self::default();
        for (id, door) in (0..u16::MAX).map(DoorId).zip(&*doors) {
            let queue = all.queue(door.seq_timeout);
            let steps = sequence(door);
            all.queues.push(queue);
            all.fit_sessions |= door.tcp_flags.fits_sessions();
            all.strays.push(Limit::of(door.strays));
            all.firsts.extend(steps.first().map(|first| (*first, id)));
            all.users.extend(steps.iter().map(|step| (*step, id)));
        }
        all.doors = doors;
        all.firsts.sort_unstable();
        all.users.sort_unstable();
        all.users.dedup();
        // The lists stay as they are until a reload.
        all.queues.shrink_to_fit();
        all.strays.shrink_to_fit();
        all.firsts.shrink_to_fit();
        all.users.shrink_to_fit();
        all
    }

    fn queue(&mut self, timeout: Duration) -> u16 {
        let queue = self.timeouts.iter().position(|t| *t == timeout);
        let queue = queue.unwrap_or_else(|| {
            self.timeouts.push(timeout);
            self.timeouts.len() - 1
        });
        // There are no more queues than doors.
        queue as u16
    }

    pub(super) fn get(&self, id: DoorId) -> DoorRef<'_> {
        DoorRef {
            id,
            door: &self.doors[id.index()],
        }
    }

    /// Returns the number of the queue for attempts at a door.
    pub(super) fn queue_of(&self, id: DoorId) -> u16 {
        self.queues[id.index()]
    }

    /// Returns the strays that a door allows.
    pub(super) fn strays_of(&self, id: DoorId) -> Limit {
        self.strays[id.index()]
    }

    /// Whether some door takes packets of sessions.
    pub(super) fn fit_sessions(&self) -> bool {
        self.fit_sessions
    }

    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// Returns the `seq_timeout` of each queue.
    pub(super) fn timeouts(&self) -> &[Duration] {
        &self.timeouts
    }

    /// Returns the length of the sequence of each door.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.doors
            .iter()
            .take(self.len())
            .map(|door| sequence(door).len())
    }

    /// Returns the first [`BEGUN_AT_ONCE`] doors that begin with this packet, in their order.
    pub(super) fn begun_by<'a>(&'a self, hit: Hit<'a>) -> impl Iterator<Item = DoorRef<'a>> {
        with(&self.firsts, hit.knock.step)
            .map(|id| self.get(id))
            .filter(move |d| d.faces(&hit) && d.counts(&hit) && d.admits(hit.knock.source))
            .take(BEGUN_AT_ONCE)
    }

    /// Whether the packet fits some door that has its step.
    pub(super) fn fits_any(&self, hit: &Hit) -> bool {
        with(&self.users, hit.knock.step)
            .map(|id| self.get(id))
            .any(|d| d.faces(hit) && d.counts(hit))
    }

    /// Returns for each of these doors the one among `new` that decides alike, and its queue.
    pub(super) fn moved_to(&self, new: &Self) -> Vec<Option<(DoorId, u16)>> {
        let ids = (0..u16::MAX).map(DoorId);
        let mut names: Vec<(&str, DoorId)> = new.doors.iter().map(|d| &*d.name).zip(ids).collect();
        names.sort_unstable();
        let find = |door: &model::Door| {
            let place = names.binary_search_by(|(name, _)| (*name).cmp(&door.name));
            let (_, id) = names.get(place.ok()?)?;
            decide_alike(new.get(*id).door, door).then(|| (*id, new.queue_of(*id)))
        };
        self.doors.iter().map(find).collect()
    }
}

/// Returns the doors that this sorted list has for a step.
fn with(sorted: &[(Step, DoorId)], step: Step) -> impl Iterator<Item = DoorId> {
    let from = sorted.partition_point(|(s, _)| *s < step);
    sorted[from..]
        .iter()
        .take_while(move |(s, _)| *s == step)
        .map(|(_, id)| *id)
}
