//! Which neighbours of steps are tripwires for everyone: those without which a scan in
//! rising or falling order could come through.
//!
//! Such a scan leaves a step by its neighbours, and comes to the next one by that one's:
//! four tripwires. But if it hits a step of another door on its way the attempt is over
//! at once, and with many doors it hardly goes forty ports without. There the neighbours
//! would stop nobody, and of 500 doors they would let a tenth of all noise pass.

use std::collections::HashMap;

use super::PortSet;
use crate::model::{Door, Step};

/// How far from a step a port is a tripwire for everyone.
pub const NEAR: u16 = 2;

/// How near a step of another door makes the neighbours on its side needless. Not any
/// farther, for where steps lie thin their neighbours are few, and they stop those too who
/// scan to and fro in between.
pub(super) const REACH: u16 = 256;

/// The neighbours that are needed, but for those in `exempt`.
pub(super) fn near(doors: &[Door], exempt: &PortSet) -> PortSet {
    // A packet that fits a door fits these as well, so their steps end its attempts.
    let alike = |door: &Door| (door.target, door.tcp_flags);
    let mut groups: HashMap<_, Vec<Step>> = HashMap::new();
    for door in doors {
        let steps = groups.entry(alike(door)).or_default();
        steps.extend(&door.sequence);
    }
    for steps in groups.values_mut() {
        steps.sort_unstable();
        steps.dedup();
    }
    let mut near = PortSet::default();
    for door in doors {
        let steps = &groups[&alike(door)];
        for step in &door.sequence {
            let at = steps.partition_point(|other| other < step);
            let below = at.checked_sub(1).and_then(|below| steps.get(below));
            let above = steps.get(at + 1);
            let port = step.port.get();
            let mut add = |port: u16| {
                let neighbour = Step::new(step.protocol, port);
                if let Some(neighbour) = neighbour.filter(|step| !exempt.contains(*step)) {
                    near.insert(neighbour);
                }
            };
            if !stops(door, step, below) {
                (port.saturating_sub(NEAR)..port).for_each(&mut add);
            }
            if !stops(door, step, above) {
                (port..=port.saturating_add(NEAR))
                    .skip(1)
                    .for_each(&mut add);
            }
        }
    }
    near
}

/// Whether a scan that comes from `step` of the door, or goes to it, is stopped by the step
/// next to it. Not if the door has another one on the way, though it be of the other
/// protocol: scans may take both at once.
fn stops(door: &Door, step: &Step, next: Option<&Step>) -> bool {
    next.is_some_and(|next| {
        let way = step.port.min(next.port)..=step.port.max(next.port);
        let is_on_it = |own: &Step| own != step && way.contains(&own.port);
        next.protocol == step.protocol
            && next.port.get().abs_diff(step.port.get()) <= REACH
            && !door.sequence.iter().any(is_on_it)
    })
}
