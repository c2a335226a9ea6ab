//! The doors as the matcher needs them: who has which step, and what fits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    self, DoorId, Knock, MAX_STEPS, MAX_STRAYS, Prefix, Protocol, Step, TcpFlags, Transport,
};

/// What of a door decides about attempts, and its place in the matcher.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) id: DoorId,
    name: Arc<str>,
    /// No more than the table has room for.
    pub(super) sequence: Box<[Step]>,
    seq_timeout: Duration,
    tcp_flags: TcpFlags,
    from: Box<[Prefix]>,
    target: Option<IpAddr>,
    /// No more than the table has room for.
    pub(super) strays: u8,
    /// Which of the table's lanes its attempts run in.
    pub(super) lane: u16,
}

impl Door {
    /// One with more steps than [`MAX_STEPS`] is taken for disabled; the check lets none
    /// through.
    fn new(id: DoorId, door: &model::Door, lane: u16) -> Self {
        let steps = Some(&*door.sequence).filter(|steps| steps.len() <= MAX_STEPS);
        Self {
            id,
            name: Arc::clone(&door.name),
            sequence: steps.unwrap_or_default().into(),
            seq_timeout: door.seq_timeout,
            tcp_flags: door.tcp_flags,
            from: door.from.clone(),
            target: door.target,
            strays: door.strays.min(MAX_STRAYS),
            lane,
        }
    }

    /// Whether `source` may knock here.
    fn admits(&self, source: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|p| p.contains(source))
    }

    /// Whether a step of it is of this protocol.
    pub(super) fn uses(&self, protocol: Protocol) -> bool {
        self.sequence.iter().any(|s| s.protocol == protocol)
    }

    /// Rule 0, first half: whether packets to this destination are for this door.
    pub(super) fn faces(&self, hit: &Hit) -> bool {
        self.target
            .map_or(hit.local, |target| target == hit.knock.destination)
    }

    /// Rule 0, second half: whether such packets count.
    pub(super) fn counts(&self, hit: &Hit) -> bool {
        match hit.knock.transport {
            Transport::Tcp { flags, sequence: _ } => self.tcp_flags.matches(flags),
            Transport::Udp { identification: _ } => true,
        }
    }

    /// Whether an attempt may go on from one to the other: all that decides about it is
    /// equal, and so is the name.
    fn decides_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.sequence == other.sequence
            && self.seq_timeout == other.seq_timeout
            && self.tcp_flags == other.tcp_flags
            && self.from == other.from
            && self.target == other.target
            && self.strays == other.strays
    }
}

/// A packet, and whether its destination is this host's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) knock: &'a Knock,
    pub(super) local: bool,
}

/// All doors, and by step who has it.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: Vec<Door>,
    /// Sorted: each door by its first step.
    firsts: Vec<(Step, DoorId)>,
    /// Sorted, each pair once: each door by every step it has.
    users: Vec<(Step, DoorId)>,
    /// The distinct `seq_timeout`s, by lane.
    timeouts: Vec<Duration>,
}

impl Doors {
    /// Of at most 65,535 doors.
    pub(super) fn new(doors: &[model::Door]) -> Self {
        let mut all = Self::default();
        for (id, door) in (0..u16::MAX).map(DoorId).zip(doors) {
            let lane = all.lane(door.seq_timeout);
            let door = Door::new(id, door, lane);
            let steps = &door.sequence;
            all.firsts.extend(steps.first().map(|first| (*first, id)));
            all.users.extend(steps.iter().map(|step| (*step, id)));
            all.doors.push(door);
        }
        all.firsts.sort_unstable();
        all.users.sort_unstable();
        all.users.dedup();
        all
    }

    fn lane(&mut self, timeout: Duration) -> u16 {
        let lane = self.timeouts.iter().position(|t| *t == timeout);
        let lane = lane.unwrap_or_else(|| {
            self.timeouts.push(timeout);
            self.timeouts.len() - 1
        });
        // There are no more lanes than doors.
        lane as u16
    }

    pub(super) fn get(&self, id: DoorId) -> &Door {
        &self.doors[id.index()]
    }

    pub(super) fn len(&self) -> usize {
        self.doors.len()
    }

    /// A `seq_timeout` for each lane.
    pub(super) fn timeouts(&self) -> &[Duration] {
        &self.timeouts
    }

    /// The length of the longest sequence.
    pub(super) fn most_steps(&self) -> usize {
        self.doors
            .iter()
            .map(|d| d.sequence.len())
            .max()
            .unwrap_or(0)
    }

    /// The most strays a door allows.
    pub(super) fn most_strays(&self) -> usize {
        self.doors
            .iter()
            .map(|d| d.strays.into())
            .max()
            .unwrap_or(0)
    }

    /// The doors that begin with this packet, in their order.
    pub(super) fn begun_by<'a>(&'a self, hit: Hit<'a>) -> impl Iterator<Item = &'a Door> {
        with(&self.firsts, hit.knock.step)
            .map(|id| self.get(id))
            .filter(move |d| d.faces(&hit) && d.counts(&hit) && d.admits(hit.knock.source))
    }

    /// Whether the packet fits some door that has its step.
    pub(super) fn fits_any(&self, hit: &Hit) -> bool {
        with(&self.users, hit.knock.step)
            .map(|id| self.get(id))
            .any(|d| d.faces(hit) && d.counts(hit))
    }

    /// For each of these doors the one among `new` that decides alike.
    pub(super) fn moved_to(&self, new: &Self) -> Vec<Option<(DoorId, u16)>> {
        let mut names: Vec<&Door> = new.doors.iter().collect();
        names.sort_unstable_by_key(|d| &d.name);
        let find = |door: &Door| {
            let place = names.binary_search_by_key(&&door.name, |d| &d.name).ok()?;
            let found = names.get(place).filter(|d| d.decides_like(door))?;
            Some((found.id, found.lane))
        };
        self.doors.iter().map(find).collect()
    }
}

fn with(sorted: &[(Step, DoorId)], step: Step) -> impl Iterator<Item = DoorId> {
    let from = sorted.partition_point(|(s, _)| *s < step);
    sorted[from..]
        .iter()
        .take_while(move |(s, _)| *s == step)
        .map(|(_, id)| *id)
}
