//! What a packet is to an attempt: rules 0 to 5, and nothing is changed here.

use super::doors::{DoorRef, Doors, Hit};
use crate::model::{Knock, TcpFlags, Transport, Tripwires, flag, is_of_no_session};

/// What a packet is to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Judgement {
    /// As if it never came.
    Ignored,
    /// The step expected.
    Advances,
    /// The step just made, by another packet.
    Again,
    /// A step, but not the one expected.
    WrongStep,
    /// A tripwire.
    Stray,
}

/// Whether a packet may be anything at all to an attempt, as far as its class tells: nothing else
/// of it may decide whether the table is looked into. Most of what a capture file holds is of
/// sessions: those matter at the steps alone, and only if some door takes them.
pub(super) fn matters(knock: &Knock, doors: &Doors, tripwires: &Tripwires) -> bool {
    match knock.transport {
        Transport::Tcp { flags, sequence: _ } => {
            let is_of_session = flags & (flag::ACK | flag::SYN) == flag::ACK;
            !is_of_session || doors.fit_sessions() && tripwires.steps().contains(knock.step)
        }
        Transport::Udp { identification: _ } => true,
    }
}

/// Rule 5, of a packet to a port that no door uses. A SYN is always a stray. Another segment is one
/// if the door takes it; at doors that take packets of sessions, only if it belongs to none. A
/// datagram is one if the door has UDP steps.
fn is_stray(hit: &Hit, door: DoorRef<'_>, tripwires: &Tripwires) -> bool {
    let Knock {
        step, transport, ..
    } = *hit.knock;
    let counts = match transport {
        Transport::Udp { identification: _ } => door.uses(step.protocol),
        Transport::Tcp { flags, sequence: _ } => {
            let is_taken = door.uses(step.protocol) && door.counts(hit);
            let may_be_of_session = door.fits_sessions() && !is_of_no_session(flags);
            TcpFlags::SYN.matches(flags) || is_taken && !may_be_of_session
        }
    };
    counts && tripwires.is_tripwire(step)
}

/// Judges a packet of the attempt's own source. `repeats`: whether it is equal to one that
/// hit a step of the attempt when it was made, or just made; asked only where that decides. `fits`:
/// whether it fits a door that has its step.
pub(super) fn judge(
    hit: &Hit,
    door: DoorRef<'_>,
    stage: u8,
    repeats: impl FnOnce() -> bool,
    fits: impl FnOnce() -> bool,
    tripwires: &Tripwires,
) -> Judgement {
    let step = hit.knock.step;
    let stage = usize::from(stage);
    if !door.faces(hit) {
        return Judgement::Ignored;
    }
    if !tripwires.steps().contains(step) {
        return if is_stray(hit, door, tripwires) {
            Judgement::Stray
        } else {
            Judgement::Ignored
        };
    }
    // Rule 0 again.
    if !door.counts(hit) {
        return Judgement::Ignored;
    }
    let is_expected = door.sequence().get(stage) == Some(&step);
    // Rule 1. What tells nothing is the step expected.
    if (hit.mark.tells || !is_expected) && repeats() {
        return Judgement::Ignored;
    }
    // Rule 2.
    if is_expected {
        return Judgement::Advances;
    }
    // Rule 3.
    if door.sequence().get(stage.wrapping_sub(1)) == Some(&step) {
        return Judgement::Again;
    }
    // Rule 4.
    if door.sequence().contains(&step) || fits() {
        return Judgement::WrongStep;
    }
    Judgement::Ignored
}
