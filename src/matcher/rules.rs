//! What a packet is to an attempt: rules 0 to 5, and nothing is changed here.

use super::doors::{Door, Doors, Hit};
use crate::model::{Knock, Protocol, TcpFlags, Transport, Tripwires};

/// What a packet is to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// As if it never came.
    Ignored,
    /// The step expected.
    Advances,
    /// A step, but not the one expected.
    WrongStep,
    /// A tripwire.
    Stray,
}

/// Whether a packet can be anything at all to an attempt: a step, or a stray. Most of what
/// a capture file holds is neither, and costs no look into the table.
pub(super) fn matters(knock: &Knock, tripwires: &Tripwires) -> bool {
    tripwires.steps().contains(knock.step)
        || tripwires.is_near(knock.step)
        || is_scan(knock) && tripwires.is_tripwire(knock.source, knock.step)
}

/// Whether such packets to a port that no door uses are nobody's everyday traffic: what is
/// no SYN may belong to a connection that is open.
fn is_scan(knock: &Knock) -> bool {
    match knock.transport {
        Transport::Tcp { flags, sequence: _ } => TcpFlags::SYN.matches(flags),
        Transport::Udp { identification: _ } => true,
    }
}

/// Rule 5, of a packet to a port that no door uses. A SYN counts whatever flags the door
/// wants. What else the door would take for a step counts beside one, where no connection is
/// likely to be: a scanner sends what he likes.
fn is_stray(hit: &Hit, door: Door<'_>, tripwires: &Tripwires) -> bool {
    let Knock { source, step, .. } = *hit.knock;
    let is_mine = door.uses(step.protocol);
    match step.protocol {
        Protocol::Udp => is_mine && tripwires.is_tripwire(source, step),
        Protocol::Tcp if is_scan(hit.knock) => tripwires.is_tripwire(source, step),
        Protocol::Tcp => is_mine && door.counts(hit) && tripwires.is_near(step),
    }
}

/// Judges a packet of the attempt's own source. `repeats`: whether it is equal to one that
/// made a step of the attempt; asked only where that decides.
pub(super) fn judge(
    hit: &Hit,
    door: Door<'_>,
    stage: u8,
    repeats: impl FnOnce() -> bool,
    doors: &Doors,
    tripwires: &Tripwires,
) -> Verdict {
    let step = hit.knock.step;
    let stage = usize::from(stage);
    if !door.faces(hit) {
        return Verdict::Ignored;
    }
    if !tripwires.steps().contains(step) {
        return if is_stray(hit, door, tripwires) {
            Verdict::Stray
        } else {
            Verdict::Ignored
        };
    }
    // Rule 0 again, then rule 1.
    if !door.counts(hit) || repeats() {
        return Verdict::Ignored;
    }
    // Rule 2.
    if door.sequence().get(stage) == Some(&step) {
        return Verdict::Advances;
    }
    // Rule 3.
    if door.sequence().get(stage.wrapping_sub(1)) == Some(&step) {
        return Verdict::Ignored;
    }
    // Rule 4.
    if door.sequence().contains(&step) || doors.fits_any(hit) {
        return Verdict::WrongStep;
    }
    Verdict::Ignored
}
