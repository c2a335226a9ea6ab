//! What a packet is to an attempt: rules 0 to 5, and nothing is changed here.

use super::doors::{Door, Doors, Hit};
use crate::model::{TcpFlags, Transport, Tripwires};

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

/// Judges a packet of the attempt's own source. `repeats`: whether it is equal to one that
/// made a step of the attempt; asked only where that decides.
pub(super) fn judge(
    hit: &Hit,
    door: &Door,
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
        // Rule 5. The door's own flags do not matter: a scanner chooses his.
        let counts = match hit.knock.transport {
            Transport::Tcp { flags, sequence: _ } => TcpFlags::SYN.matches(flags),
            Transport::Udp { identification: _ } => door.has_udp,
        };
        return if counts && tripwires.is_stray(hit.knock.source, step) {
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
    if door.sequence.get(stage) == Some(&step) {
        return Verdict::Advances;
    }
    // Rule 3.
    if door.sequence.get(stage.wrapping_sub(1)) == Some(&step) {
        return Verdict::Ignored;
    }
    // Rule 4.
    if door.sequence.contains(&step) || doors.fits_any(hit) {
        return Verdict::WrongStep;
    }
    Verdict::Ignored
}
