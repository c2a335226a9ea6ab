//! Commands that wait until they may run. The number of commands that run is limited, in all and for
//! each door. Doors take turns, so that a knock at a door with a slow command keeps no other door
//! waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::job::CommandJob;

#[derive(Debug, Default)]
struct DoorQueue {
    running: usize,
    waiting: VecDeque<CommandJob>,
    /// True if the door is in [`CommandQueue::turns`].
    in_turn: bool,
}

/// The commands of one phase.
#[derive(Debug, Default)]
pub(super) struct CommandQueue {
    /// The doors that have a command that waits or runs.
    lanes: HashMap<Arc<str>, DoorQueue>,
    /// The doors that have a command that waits and may run.
    turns: VecDeque<Arc<str>>,
    running: usize,
    waiting: usize,
    /// How many commands may run, in all and of one door.
    limit: usize,
    share: usize,
}

impl CommandQueue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            share: limit,
            ..Self::default()
        }
    }

    /// Sets how many commands of one door may run from now on.
    pub(super) fn set_share(&mut self, share: usize) {
        self.share = share;
        for (door, lane) in &mut self.lanes {
            lane.take_turn(door, share, &mut self.turns);
        }
    }

    pub(super) fn push(&mut self, job: CommandJob) {
        let door = Arc::clone(&job.key.door);
        let lane = self.lanes.entry(Arc::clone(&door)).or_default();
        lane.waiting.push_back(job);
        self.waiting += 1;
        lane.take_turn(&door, self.share, &mut self.turns);
    }

    /// Takes a command that may run now. It counts as running until [`ended`](Self::ended).
    pub(super) fn next(&mut self) -> Option<CommandJob> {
        while self.running < self.limit {
            let door = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&door) else {
                continue;
            };
            lane.in_turn = false;
            if lane.running >= self.share {
                continue;
            }
            let Some(job) = lane.waiting.pop_front() else {
                continue;
            };
            lane.running += 1;
            lane.take_turn(&door, self.share, &mut self.turns);
            self.running += 1;
            self.waiting -= 1;
            return Some(job);
        }
        None
    }

    /// Notes that a command of this door is over.
    pub(super) fn ended(&mut self, door: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(door) else {
            return;
        };
        lane.running = lane.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        lane.take_turn(door, self.share, &mut self.turns);
        if lane.running == 0 && lane.waiting.is_empty() {
            self.lanes.remove(door);
        }
    }

    /// Returns how many commands wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how many commands of this door wait.
    pub(super) fn waiting_of(&self, door: &str) -> usize {
        self.lanes.get(door).map_or(0, |lane| lane.waiting.len())
    }

    /// Takes all commands that wait.
    pub(super) fn clear(&mut self) -> Vec<CommandJob> {
        self.turns.clear();
        self.waiting = 0;
        let mut jobs = Vec::new();
        for lane in self.lanes.values_mut() {
            lane.in_turn = false;
            jobs.extend(lane.waiting.drain(..));
        }
        self.lanes.retain(|_, lane| lane.running > 0);
        jobs
    }
}

impl DoorQueue {
    /// Puts the door into `turns` if one of its commands may run and it is not there yet.
    fn take_turn(&mut self, door: &Arc<str>, share: usize, turns: &mut VecDeque<Arc<str>>) {
        if !self.in_turn && !self.waiting.is_empty() && self.running < share {
            self.in_turn = true;
            turns.push_back(Arc::clone(door));
        }
    }
}
