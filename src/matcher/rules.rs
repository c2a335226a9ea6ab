//! The judgement of a packet for an attempt: rules 0 to 5. Nothing is changed here.

use super::doors::{DoorRef, Doors, Hit};
use crate::model::{Knock, TcpFlags, Transport, Tripwires, flag, is_of_no_session};

/// What a packet means to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Judgement {
    /// As if the packet had never come.
    Ignored,
    /// The packet hits the expected step.
    Advances,
    /// Another packet hits the step just made.
    Again,
    /// The packet hits a step, but not the expected one.
    WrongStep,
    /// The packet hits a tripwire.
    Stray,
}

/// Whether a packet may mean anything to an attempt, as far as its class tells: nothing else of the
/// packet may decide whether the table is looked into. Most packets of a capture file are of sessions,
/// which matter at the steps alone, and only if some door takes them.
pub(super) fn matters(knock: &Knock, doors: &Doors, tripwires: &Tripwires) -> bool {
    match knock.transport {
        Transport::Tcp { flags, sequence: _ } => {
            let is_of_session = flags & (flag::ACK | flag::SYN) == flag::ACK;
            !is_of_session || doors.fit_sessions() && tripwires.steps().contains(knock.step)
        }
        Transport::Udp { identification: _ } => true,
    }
}

/// Rule 5, for a packet to a port that no door uses. A SYN is always a stray. Another segment is a
/// stray if the door takes it; at a door that takes packets of sessions, only if the segment belongs
/// to no session. A datagram is a stray if the door has UDP steps.
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

/// Judges a packet of the attempt's own source. `repeats` returns whether the packet is equal to one
/// that hit a step of the attempt when the step was made, or had just been made; it is called only
/// where that decides. `fits` returns whether the packet fits a door that has its step.
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
    // Rule 1. A packet without a number is taken for the expected step.
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
